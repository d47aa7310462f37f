#include "troupe/async/wrap_future.h"

namespace troupe::internal {
namespace {

// Those of a loop that wait for an answer.
class WrapLinks final : public LoopLocal {
 public:
  explicit WrapLinks(EventLoop&) {}
  void Add(WrapLink& link) { links_.PushBack(link); }
  void OnLoopClose() override {
    while (!links_.empty()) links_.front().Stop();
  }

 private:
  IntrusiveList<WrapLink> links_;
};

}  // namespace

void WrapLink::OnThreadFutureDone() {
  // The lock keeps the loop: Stop() takes it before the loop goes.
  std::lock_guard<std::mutex> lock(mutex_);
  if (loop_ == nullptr) return;
  try {
    loop_->CallSoonThreadsafe([self = shared_from_this()] { self->Arrive(); });
  } catch (const InvalidState&) {
    // The loop is closing, and about to stop waiting.
  }
}

void WrapLink::Start(Ref waiting) {
  waiting->loop().Local<WrapLinks>().Add(*this);
  waiting_ = std::move(waiting);
}

void WrapLink::Stop() {
  const std::shared_ptr<WrapLink> self = shared_from_this();
  Unlink();
  {
    std::lock_guard<std::mutex> lock(mutex_);
    loop_ = nullptr;
  }
  const Ref waiting = std::exchange(waiting_, Ref());
}

void WrapLink::Arrive() {
  const Ref waiting = waiting_;
  if (waiting.get() == nullptr) return;  // cancelled meanwhile
  Stop();
  TakeAnswer(*waiting.get());
}

}  // namespace troupe::internal
