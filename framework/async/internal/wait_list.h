// WaitList: chains that wait for a turn, first come, first served. What queues, semaphores and events are made of.
//
// `co_await list.Wait()` suspends until WakeOne or WakeAll names the chain. Who wakes one chain and then learns that
// the chain was cancelled or destroyed before it resumed has woken nobody: `on_lost` tells the owner, which then wakes
// another.
//
// Threading: the loop's.
// Lifetime:  may be destroyed before chains that wait in it; they are never woken then. A chain that was woken before
//            resumes all the same, but not where the list has an owner: it would ask the owner, which is gone.
#ifndef TROUPE_ASYNC_INTERNAL_WAIT_LIST_H_
#define TROUPE_ASYNC_INTERNAL_WAIT_LIST_H_

#include <coroutine>
#include <string>

#include "troupe/async/internal/root.h"
#include "troupe/base/intrusive_list.h"

namespace troupe::internal {

class WaitList {
 public:
  class Waiter;

  // `what` is for dumps: "Queue::Get". Null for `on_lost`: a turn may be lost.
  WaitList(const char* what, void* owner, void (*on_lost)(void* owner))
      : what_(what), owner_(owner), on_lost_(on_lost) {}
  explicit WaitList(const char* what) : WaitList(what, nullptr, nullptr) {}
  WaitList(const WaitList&) = delete;
  WaitList& operator=(const WaitList&) = delete;
  ~WaitList();

  // Waiting and not yet woken: none.
  bool empty() const { return waiting_.empty(); }
  // False: nobody waits.
  bool WakeOne();
  void WakeAll();
  [[nodiscard]] Waiter Wait();

 private:
  const char* const what_;
  void* const owner_;
  void (*const on_lost_)(void* owner);
  IntrusiveList<Waiter> waiting_;
  IntrusiveList<Waiter> woken_;  // not resumed yet
};

class WaitList::Waiter final : public Leaf, public ListNode<> {
 public:
  explicit Waiter(WaitList& list) : list_(&list) {}
  ~Waiter();
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<>);
  void await_resume();
  std::string DescribeWait() const override { return what_; }

 private:
  friend class WaitList;
  void CancelWait() override;

  WaitList* list_;  // null once the list is gone
  const char* const what_ = list_->what_;
  bool woken_ = false;
};

inline WaitList::Waiter WaitList::Wait() { return Waiter(*this); }

}  // namespace troupe::internal

#endif  // TROUPE_ASYNC_INTERNAL_WAIT_LIST_H_
