// ExecutorWorks: what RunInExecutor has under way on one loop.
//
// troupe::Run waits for it before it closes the loop. Closing drops what has not started; the loop's destructor
// waits for what runs.
#ifndef TROUPE_ASYNC_INTERNAL_EXECUTOR_WORKS_H_
#define TROUPE_ASYNC_INTERNAL_EXECUTOR_WORKS_H_

#include "troupe/async/internal/wait_list.h"
#include "troupe/async/task.h"
#include "troupe/base/intrusive_list.h"
#include "troupe/loop/event_loop.h"

namespace troupe::internal {

class ExecutorWork : public ListNode<> {
 public:
  // The loop closes. May destroy itself.
  virtual void OnLoopClose() = 0;

 protected:
  ~ExecutorWork() = default;
};

class ExecutorWorks final : public LoopLocal {
 public:
  explicit ExecutorWorks(EventLoop&) {}
  void Add(ExecutorWork& work) { works_.PushBack(work); }
  void Remove(ExecutorWork& work) {
    work.Unlink();
    if (works_.empty()) drained_.WakeAll();
  }
  // Waits until nothing is under way.
  Task<void> Drained() {
    while (!works_.empty()) {
      co_await drained_.Wait();
    }
  }
  void OnLoopClose() override {
    while (!works_.empty()) works_.PopFront().OnLoopClose();
  }

 private:
  IntrusiveList<ExecutorWork> works_;
  WaitList drained_{"the executor"};
};

}  // namespace troupe::internal

#endif  // TROUPE_ASYNC_INTERNAL_EXECUTOR_WORKS_H_
