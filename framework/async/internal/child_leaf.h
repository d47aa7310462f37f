// ChildLeaf: waits for the end of a future that belongs to the waiting chain, and ends it early when told to.
//
// Unlike a plain await it never leaves the future behind: a cancellation of the chain, or the deadline, cancels the
// future and goes on waiting until it has ended. So what the future's task borrows from the waiting frame stays valid.
// The awaiter learns whether the deadline passed; the outcome is in the future.
#ifndef TROUPE_ASYNC_INTERNAL_CHILD_LEAF_H_
#define TROUPE_ASYNC_INTERNAL_CHILD_LEAF_H_

#include <coroutine>
#include <string>
#include <utility>

#include "troupe/async/future.h"
#include "troupe/async/internal/done_watcher.h"
#include "troupe/async/internal/root.h"
#include "troupe/base/monotonic_time.h"
#include "troupe/loop/event_loop.h"
#include "troupe/loop/timer_heap.h"

namespace troupe::internal {

class ChildLeaf final : public Leaf {
 public:
  explicit ChildLeaf(Ref future, MonotonicTime deadline = MonotonicTime::InfiniteFuture());
  ~ChildLeaf();

  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<>);
  // True: the deadline passed before the future was done.
  bool await_resume() {
    Resumed();
    return expired_;
  }
  std::string DescribeWait() const override { return future_->Describe(); }

 private:
  class Watcher final : public DoneWatcher {
   public:
    explicit Watcher(ChildLeaf& leaf) : leaf_(leaf) {}

   private:
    void OnDone() override { leaf_.OnDone(); }
    ChildLeaf& leaf_;
  };
  class Expiry final : public Timer {
   public:
    explicit Expiry(ChildLeaf& leaf) : leaf_(leaf) {}

   private:
    void Run() override { leaf_.OnExpired(); }
    ChildLeaf& leaf_;
  };
  void OnDone();
  void OnExpired();
  void CancelWait() override;

  Ref future_;
  EventLoop& loop_;
  const MonotonicTime deadline_;
  Watcher watcher_{*this};
  Expiry expiry_{*this};
  bool expired_ = false;
  bool cancelled_ = false;
};

// Owns a task that a combinator made for a frame: when the frame goes before the task is done, the task goes too.
class OwnedTask {
 public:
  OwnedTask() = default;
  explicit OwnedTask(Ref task) : task_(std::move(task)) {}
  OwnedTask(OwnedTask&&) noexcept = default;
  OwnedTask& operator=(OwnedTask other) noexcept {
    std::swap(task_, other.task_);
    return *this;
  }
  ~OwnedTask() {
    if (task_.get() != nullptr) task_->DestroyNow();
  }
  const Ref& ref() const { return task_; }

 private:
  Ref task_;
};

}  // namespace troupe::internal

#endif  // TROUPE_ASYNC_INTERNAL_CHILD_LEAF_H_
