// UntilDraining: runs a handler's work until it is done or the server drains.
//
//   troupe::Task<absl::Status> follow = Follow(watcher, events);
//   co_return co_await troupe::UntilDraining(call, std::move(follow));
//
// For streams that have no end of their own: a drain need not wait for them, and their clients hear at once that they
// should go on elsewhere. Work that has an end is better left alone, or asks call.draining() where it can stop.
//
// Gives StatusOr<T>, never nested, as WaitFor does. When the server begins to drain, or drains already, the task is
// cancelled, and once it has ended the answer is UNAVAILABLE; if it ended otherwise than by Cancelled or a CANCELLED
// status, the answer is how it ended. The task runs beside the caller as a child, and never outlives the co_await.
//
// Threading: the loop's.     Lifetime: `call` outlives the co_await: the handler's own does.
#ifndef TROUPE_RPC_UNTIL_DRAINING_H_
#define TROUPE_RPC_UNTIL_DRAINING_H_

#include <source_location>
#include <utility>

#include "absl/status/status.h"
#include "troupe/async/internal/child_leaf.h"
#include "troupe/async/task.h"
#include "troupe/async/wait_for.h"
#include "troupe/loop/context.h"
#include "troupe/loop/event_loop.h"
#include "troupe/rpc/call.h"

namespace troupe {
namespace internal {

// Cancels a task when the server of a call begins to drain.
class CancelledByDrain final : public DrainWatcher {
 public:
  CancelledByDrain(Call& call, const Ref& task) : task_(task) { call.WatchDraining(*this); }
  ~CancelledByDrain() = default;
  bool happened() const { return happened_; }

 private:
  void OnDraining() override {
    happened_ = true;
    task_->Cancel();
  }

  const Ref& task_;
  bool happened_ = false;
};

inline absl::Status ShuttingDown() { return absl::UnavailableError("the server is shutting down"); }

}  // namespace internal

template <class T>
Task<internal::NotNested<T>> UntilDraining(Call& call, Task<T> task,
                                           std::source_location where = std::source_location::current()) {
  if (call.draining()) {
    const Task<T> never = std::move(task);
    co_return internal::ShuttingDown();
  }
  const internal::OwnedTask child(
      internal::StartTask(EventLoop::Current(), std::move(task), "", Context::Current(), where, /*quiet=*/true).core());
  const internal::CancelledByDrain drained(call, child.ref());
  co_await internal::ChildLeaf(child.ref());
  const bool cancelled =
      child.ref()->state() == internal::FutureCore::kCancelled || absl::IsCancelled(child.ref()->ValueStatus());
  if (drained.happened() && cancelled) {
    child.ref()->MarkRetrieved();
    co_return internal::ShuttingDown();
  }
  co_return internal::OutcomeOf<T>(child.ref(), /*take=*/true);
}

}  // namespace troupe

#endif  // TROUPE_RPC_UNTIL_DRAINING_H_
