#include "troupe/service/actor_protocol.h"

#include <utility>

#include "troupe/loop/event_loop.h"
#include "troupe/net/transport.h"

namespace troupe {

ActorProtocol::ActorProtocol(const ServiceBinding& binding, std::unique_ptr<Actor> actor, void* generated)
    : hosted_(std::make_unique<Hosted>()) {
  hosted_->table.AddActor(binding, std::move(actor), generated);
}

ActorProtocol::~ActorProtocol() = default;

void ActorProtocol::ConnectionMade(Transport& transport) {
  hosted_->session = std::make_unique<Session>(transport.loop(), Session::Role::kServer, SessionOptions(),
                                               &hosted_->table, hosted_->counters);
  inner_ = hosted_->session->MakeProtocol();
  inner_->ConnectionMade(transport);
}

void ActorProtocol::Feed(absl::Span<const char> data) { inner_->DataReceived(data); }
bool ActorProtocol::EofReceived() { return inner_->EofReceived(); }
void ActorProtocol::PauseWriting() { inner_->PauseWriting(); }
void ActorProtocol::ResumeWriting() { inner_->ResumeWriting(); }

void ActorProtocol::ConnectionLost(const absl::Status& reason) {
  // Handlers may still run: what they use is deleted by the loop once they have ended.
  Hosted* const hosted = hosted_.release();
  EventLoop& loop = hosted->session->loop();
  hosted->session->set_on_ended([hosted, &loop](Session&) { loop.DeleteLater(std::unique_ptr<Hosted>(hosted)); });
  inner_->ConnectionLost(reason);
}

}  // namespace troupe
