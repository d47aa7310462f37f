// Root, PromiseBase, Leaf: how chains of coroutines run.
//
// A *chain* is a coroutine and, through co_await, the coroutines that it waits in. Only the innermost one is suspended
// on something outside the chain: on a Leaf. A *Root* owns a chain, runs it on a loop and carries what belongs to it:
// context, cancellation, result. Tasks made by CreateTask are Roots, and so are the call records of a session.
//
// Nobody resumes a coroutine from inside a coroutine: await_suspend stores the frame that goes next in
// thread_state.next and returns; Root::Run takes it from there (a trampoline). So neither a long loop of ready awaits nor
// a deep chain grows the stack, in any build.
//
// Cancellation: Root::Cancel asks the Leaf to end its wait. A leaf that waits in a future cancels that future; any other
// leaf leaves what it waits in, and Cancelled is thrown at its co_await. A root that is running or queued remembers the
// request and throws at its next suspension, or when it resumes.
//
// Threading: the loop's. Lifetime: a chain may be destroyed while suspended: innermost frame first, as unwinding would.
#ifndef TROUPE_ASYNC_INTERNAL_ROOT_H_
#define TROUPE_ASYNC_INTERNAL_ROOT_H_

#include <coroutine>
#include <cstddef>
#include <exception>
#include <source_location>
#include <string>
#include <type_traits>
#include <utility>

#include "troupe/base/errors.h"
#include "troupe/base/pool.h"
#include "troupe/loop/context.h"
#include "troupe/loop/event_loop.h"
#include "troupe/loop/internal/thread_state.h"
#include "troupe/loop/runnable.h"

namespace troupe::internal {

class Root;

template <class A>
concept HasMemberCoAwait = requires(A&& a) { static_cast<A&&>(a).operator co_await(); };

// What every frame of a chain knows. Base of all promise types.
class PromiseBase {
 public:
  PromiseBase() = default;
  PromiseBase(const PromiseBase&) = delete;
  PromiseBase& operator=(const PromiseBase&) = delete;

  static void* operator new(size_t bytes) { return PoolAllocate(bytes); }
  static void operator delete(void* frame, size_t bytes) { PoolFree(frame, bytes); }

  std::suspend_always initial_suspend() noexcept { return {}; }
  void unhandled_exception() noexcept { error = std::current_exception(); }

  // Remembers the line of each co_await, for DumpTasks. An awaiter is passed on as an lvalue: g++ 12 would move it.
  template <class A>
    requires HasMemberCoAwait<A>
  auto await_transform(A&& awaited, std::source_location location = std::source_location::current()) {
    where = location;
    return std::forward<A>(awaited).operator co_await();
  }
  template <class A>
  std::remove_reference_t<A>& await_transform(A&& awaited,
                                              std::source_location location = std::source_location::current()) {
    where = location;
    return awaited;
  }

  struct FinalAwaiter {
    bool await_ready() noexcept { return false; }
    template <class Promise>
    void await_suspend(std::coroutine_handle<Promise> frame) noexcept;
    void await_resume() noexcept {}
  };
  FinalAwaiter final_suspend() noexcept { return {}; }

  std::coroutine_handle<> self;
  PromiseBase* parent = nullptr;              // the frame that awaits this one; null: the root's own
  std::coroutine_handle<>* owner = nullptr;   // what destroys this frame; cleared when the chain goes leaf first
  std::source_location where;                 // of the co_await in which it is, or was last
  std::exception_ptr error;                   // what left the body
};

// The innermost await of a suspended chain. Derived awaiters live in the innermost frame.
//
// Life: made -> [Suspend -> (Resume by what it waited for | Cancel | destroyed)]
class Leaf {
 public:
  Leaf(const Leaf&) = delete;
  Leaf& operator=(const Leaf&) = delete;

  // For dumps: "Future", "Sleep until ...".
  virtual std::string DescribeWait() const = 0;

 protected:
  Leaf() = default;
  // Derived destructors stop the wait; this forgets it.
  ~Leaf();

  // Ends the wait because the chain was cancelled: leaves what it waits in and calls WakeCancelled(), or sees to it that
  // what it waits in ends and wakes the chain as usual.
  virtual void CancelWait() = 0;

  // Suspends the running chain in this leaf.
  template <class Promise>
  void Suspend(std::coroutine_handle<Promise> frame) {
    SuspendFrame(frame.promise());
  }
  bool suspended() const { return root_ != nullptr && !woken_; }
  // Queues the chain: it resumes in the next iteration. REQUIRES: suspended().
  void Wake();
  void WakeCancelled();
  // First thing in await_resume: throws Cancelled when the chain was cancelled while it waited or was queued.
  void Resumed();

 private:
  friend class Root;
  void SuspendFrame(PromiseBase& frame);

  Root* root_ = nullptr;
  bool woken_ = false;
};

class Root : public Runnable {
 public:
  Root(EventLoop& loop, Context context) : loop_(loop), context_(std::move(context)) {}
  Root(const Root&) = delete;
  Root& operator=(const Root&) = delete;

  static Root* Current() { return thread_state.root; }

  EventLoop& loop() { return loop_; }
  bool finished() const { return finished_; }
  bool running() const { return running_; }

  // Asks the chain to end by Cancelled (C-TSK-05). False: it has finished.
  bool Cancel();
  // Cancel() was called and Cancelled has not been thrown yet.
  bool cancel_requested() const { return cancel_requested_; }

  // Runs the chain until it suspends or finishes, then, if it finished, OnFinished().
  void Run() override;

  // "name or kind" and one line per frame, outermost first, then what it waits in.
  std::string DescribeChain() const;

 protected:
  // REQUIRES: the chain is not running. Destroys it.
  ~Root() { DestroyChain(); }

  // Takes over a lazy coroutine that has not started; Run() (directly, or by the loop) starts it.
  void Adopt(PromiseBase& frame) {
    frame_ = &frame;
    at_ = &frame;
  }
  PromiseBase* frame() { return frame_; }
  void set_context(Context context) { context_ = std::move(context); }

  // The root frame has finished: its promise holds result or error; the frame still exists until DestroyChain(). May
  // destroy this Root. What it throws leaves Run().
  virtual void OnFinished() = 0;
  // Cancelled before its first step: the body never ran.
  virtual void OnCancelledUnstarted() = 0;

  // Destroys the frames, innermost first. Safe to repeat.
  void DestroyChain();

 private:
  friend class Leaf;
  friend class PromiseBase;

  EventLoop& loop_;
  Context context_;
  PromiseBase* frame_ = nullptr;  // outermost
  PromiseBase* at_ = nullptr;     // innermost: resumes first
  Leaf* waiting_ = nullptr;       // null while running, queued or finished
  bool started_ = false;
  bool running_ = false;
  bool finished_ = false;
  bool cancel_requested_ = false;
};

template <class Promise>
void PromiseBase::FinalAwaiter::await_suspend(std::coroutine_handle<Promise> frame) noexcept {
  PromiseBase& promise = frame.promise();
  if (promise.parent != nullptr) {
    thread_state.next = promise.parent->self;
  } else {
    thread_state.root->finished_ = true;
  }
}

}  // namespace troupe::internal

#endif  // TROUPE_ASYNC_INTERNAL_ROOT_H_
