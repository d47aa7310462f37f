#include "troupe/async/internal/child_leaf.h"

#include "absl/strings/str_cat.h"
#include "troupe/base/errors.h"

namespace troupe::internal {

ChildLeaf::ChildLeaf(Ref future, MonotonicTime deadline)
    : future_(std::move(future)), loop_(future_->loop()), deadline_(deadline) {}

ChildLeaf::~ChildLeaf() { loop_.Cancel(expiry_); }

void ChildLeaf::await_suspend(std::coroutine_handle<>) {
  Root& root = *Root::Current();
  if (future_->root() == &root) throw InvalidState("Task cannot await on itself");
  if (&loop_ != &root.loop()) {
    throw InvalidState(absl::StrCat(future_->Describe(), " is attached to a different loop"));
  }
  if (!deadline_.is_infinite()) loop_.ScheduleAt(expiry_, deadline_);
  watcher_.Watch(future_);
  Suspend();
}

void ChildLeaf::OnDone() {
  loop_.Cancel(expiry_);
  if (!cancelled_) return Wake();
  // What the future ended with goes unheard: the Cancelled that was asked for stands in its place. An exception is
  // reported by the future itself.
  if (future_->state() == FutureCore::kValue) future_->MarkRetrieved();
  WakeCancelled();
}

void ChildLeaf::OnExpired() {
  if (future_->done()) return;  // and we are about to hear of it
  expired_ = true;
  future_->Cancel();
}

void ChildLeaf::CancelWait() {
  cancelled_ = true;
  future_->Cancel();
}

}  // namespace troupe::internal
