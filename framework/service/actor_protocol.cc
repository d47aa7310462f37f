#include "troupe/service/actor_protocol.h"

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "troupe/base/intrusive_list.h"
#include "troupe/loop/event_loop.h"
#include "troupe/loop/internal/loop_local.h"
#include "troupe/net/transport.h"

namespace troupe {

ActorProtocol::ActorProtocol(const ServiceBinding& binding, std::unique_ptr<Actor> actor, void* generated)
    : hosted_(std::make_unique<Hosted>()) {
  hosted_->table.AddActor(binding, std::move(actor), generated);
}

// What handlers of lost connections still use. Owns it.
class ActorProtocol::Orphans final : public internal::LoopLocal {
 public:
  explicit Orphans(EventLoop& loop) : loop_(loop) {}
  ~Orphans() override { OnLoopClose(); }

  void Add(std::unique_ptr<Hosted> hosted) {
    Hosted& orphan = *hosted.release();
    orphans_.PushBack(orphan);
    orphan.session->set_on_ended([this, &orphan](Session&) {
      orphan.Unlink();
      loop_.DeleteLater(std::unique_ptr<Hosted>(&orphan));
    });
  }
  void OnLoopClose() override {
    while (!orphans_.empty()) delete &orphans_.PopFront();
  }

 private:
  EventLoop& loop_;
  IntrusiveList<Hosted> orphans_;
};

namespace {

// What connections may hold, as ServerOptions has it by default. Asked for once: the answer stands in files.
struct MemoryBound final : internal::LoopLocal {
  explicit MemoryBound(EventLoop& loop) : bytes(loop.os().MemoryLimit() / 2) {}
  const int64_t bytes;
};

}  // namespace

ActorProtocol::~ActorProtocol() {
  // Dropped by its transport without a word, as after the end of the loop.
  if (hosted_ != nullptr && hosted_->session != nullptr) {
    ConnectionLost(absl::UnavailableError("the connection was destroyed"));
  }
}

void ActorProtocol::ConnectionMade(Transport& transport) {
  EventLoop& loop = transport.loop();
  hosted_->memory = std::make_unique<MemoryGuard>(loop, loop.Local<MemoryBound>().bytes, hosted_->counters.memory);
  SessionOptions options;
  options.memory = hosted_->memory.get();
  hosted_->session =
      std::make_unique<Session>(transport.loop(), Session::Role::kServer, options, &hosted_->table, hosted_->counters);
  inner_ = hosted_->session->MakeProtocol();
  inner_->ConnectionMade(transport);
}

void ActorProtocol::Feed(absl::Span<const char> data) { inner_->DataReceived(data); }
bool ActorProtocol::EofReceived() { return inner_->EofReceived(); }
void ActorProtocol::PauseWriting() { inner_->PauseWriting(); }
void ActorProtocol::ResumeWriting() { inner_->ResumeWriting(); }

void ActorProtocol::ConnectionLost(const absl::Status& reason) {
  // Handlers may still run: what they use is deleted by the loop once they have ended.
  EventLoop& loop = hosted_->session->loop();
  if (!loop.IsClosed()) loop.Local<Orphans>().Add(std::move(hosted_));
  inner_->ConnectionLost(reason);
  hosted_.reset();
}

}  // namespace troupe
