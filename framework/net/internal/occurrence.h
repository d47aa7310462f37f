// Occurrence: something that happens once, for which any number of coroutines wait.
//
// A Future would do, but that cancelling one who waits in it would cancel it for all.
//
// Life:      pending -> Wait* -> Happen -> (Wait returns at once)
// Threading: the loop's.    Lifetime: may go while coroutines wait; then nothing wakes them but their cancellation. It
//            is not touched by those it has woken.
#ifndef TROUPE_NET_INTERNAL_OCCURRENCE_H_
#define TROUPE_NET_INTERNAL_OCCURRENCE_H_

#include <coroutine>
#include <string>

#include "troupe/async/internal/root.h"
#include "troupe/base/intrusive_list.h"

namespace troupe::internal {

class Occurrence {
 public:
  class Waiter final : public Leaf, public ListNode<Occurrence> {
   public:
    Waiter(Occurrence& occurrence, const char* what) : occurrence_(occurrence), what_(what) {}
    bool await_ready() const noexcept { return occurrence_.happened_; }
    void await_suspend(std::coroutine_handle<>) {
      occurrence_.waiters_.PushBack(*this);
      Suspend();
    }
    void await_resume() { Resumed(); }
    std::string DescribeWait() const override { return what_; }

   private:
    friend class Occurrence;
    void CancelWait() override {
      Unlink();
      WakeCancelled();
    }
    Occurrence& occurrence_;
    const char* const what_;
  };

  bool happened() const { return happened_; }
  void Happen() {
    happened_ = true;
    while (!waiters_.empty()) waiters_.PopFront().Wake();
  }
  // `what` is for dumps, a literal.
  Waiter Wait(const char* what) { return Waiter(*this, what); }

 private:
  bool happened_ = false;
  IntrusiveList<Waiter, Occurrence> waiters_;
};

}  // namespace troupe::internal

#endif  // TROUPE_NET_INTERNAL_OCCURRENCE_H_
