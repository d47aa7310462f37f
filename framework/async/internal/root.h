// Root, PromiseBase, Leaf: how chains of coroutines run.
//
// A *chain* is a coroutine and, through co_await, the coroutines that it waits in. Only the innermost one is suspended
// on something outside the chain: on a Leaf. A *Root* owns a chain, runs it on a loop and carries what belongs to it:
// context, cancellation, result. Tasks made by CreateTask are Roots, and so are the call records of a session.
//
// Nobody resumes a coroutine from inside a coroutine: await_suspend and final_suspend move the root's mark to the frame
// that goes next and return; Root::Run takes it from there (a trampoline). So neither a long loop of ready awaits nor a
// deep chain grows the stack, in any build.
//
// Cancellation: Root::Cancel asks the Leaf to end its wait. A leaf that waits in a future cancels that future; any
// other leaf leaves what it waits in, and Cancelled is thrown at its co_await. A root that is running or queued
// remembers the request and throws at its next suspension, or when it resumes.
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

class FutureCore;
class Root;
class PromiseBase;

// A coroutine that ends without co_return although it promises a value: g++ does not warn of it. InvalidState, with the
// line of its last co_await, or its own.
std::exception_ptr NoValueError(const PromiseBase& frame);

template <class A>
concept IsAwaiter = requires(A& a) { a.await_ready(); };

template <class A>
concept HasMemberCoAwait = requires(A&& a) { static_cast<A&&>(a).operator co_await(); };

// An awaiter by reference: g++ 12 copies what await_transform returns as a glvalue, and awaiters do not move.
template <class A>
class AwaiterRef {
 public:
  explicit AwaiterRef(A& awaiter) : awaiter_(&awaiter) {}
  decltype(auto) await_ready() { return awaiter_->await_ready(); }
  template <class Promise>
  decltype(auto) await_suspend(std::coroutine_handle<Promise> frame) {
    return awaiter_->await_suspend(frame);
  }
  decltype(auto) await_resume() { return awaiter_->await_resume(); }

 private:
  A* awaiter_;
};

// What every frame of a chain knows. Base of all promise types.
class PromiseBase {
 public:
  explicit PromiseBase(std::source_location made) : where(made) {}
  PromiseBase(const PromiseBase&) = delete;
  PromiseBase& operator=(const PromiseBase&) = delete;

  static void* operator new(size_t bytes) { return PoolAllocate(bytes); }
  static void operator delete(void* frame, size_t bytes) { PoolFree(frame, bytes); }

  std::suspend_always initial_suspend() noexcept { return {}; }
  void unhandled_exception() noexcept { error = std::current_exception(); }

  // Remembers the line of each co_await, for DumpTasks.
  template <class A>
    requires HasMemberCoAwait<A>
  auto await_transform(A&& awaited, std::source_location location = std::source_location::current()) {
    where = location;
    return std::forward<A>(awaited).operator co_await();
  }
  template <class A>
  auto await_transform(A&& awaited, std::source_location location = std::source_location::current()) {
    static_assert(IsAwaiter<std::remove_reference_t<A>>,
                  "this cannot be awaited; a Task that has a name is awaited once, as co_await std::move(task)");
    where = location;
    return AwaiterRef<std::remove_reference_t<A>>(awaited);
  }

  struct FinalAwaiter {
    PromiseBase& promise;
    bool await_ready() noexcept { return false; }
    void await_suspend(std::coroutine_handle<>) noexcept;
    void await_resume() noexcept {}
  };
  FinalAwaiter final_suspend() noexcept { return FinalAwaiter{*this}; }

  std::coroutine_handle<> self;
  PromiseBase* parent = nullptr;             // the frame that awaits this one; null: the root's own
  std::coroutine_handle<>* owner = nullptr;  // what destroys this frame; cleared when the chain goes leaf first
  std::source_location where;                // of the co_await in which it is, or was last; before, of the coroutine
  std::exception_ptr error;                  // what left the body
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

  // Ends the wait because the chain was cancelled: leaves what it waits in and calls WakeCancelled(), or sees to it
  // that what it waits in ends and wakes the chain as usual.
  virtual void CancelWait() = 0;

  // Suspends the running chain in this leaf: the last thing in await_suspend, as it may wake the chain at once.
  void Suspend();
  bool suspended() const { return root_ != nullptr && !woken_; }
  // Queues the chain: it resumes in the next iteration, or never when the loop is closed. REQUIRES: suspended().
  void Wake();
  void WakeCancelled();
  // Throws Cancelled when the wait has ended by itself.
  void CancelOnceWoken();
  // Takes Wake() back: the chain waits on, unless a cancellation is on its way. REQUIRES: woken, not resumed.
  void Unwake();
  // First thing in await_resume: throws Cancelled when the chain was cancelled while it waited or was queued.
  void Resumed();

 private:
  friend class Root;
  class PromiseBase;

  Root* root_ = nullptr;
  bool woken_ = false;
};

// Destroys a coroutine that was never started, of which the running loop warns in debug mode.
void DestroyUnawaited(PromiseBase& frame);

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

  // The cancellation in progress has come back to where it began: tasks wait for each other in a circle. The one that
  // takes notice, once, ends its wait at once, which opens the circle.
  static bool TakeCircle() { return std::exchange(in_circle_, nullptr) != nullptr; }
  // For owners whose chain may be the one that is running: it is destroyed as soon as it suspends. REQUIRES: running().
  void DestroyOnceSuspended() { doomed_ = true; }

  // For awaiters that run a coroutine in place: it goes next.
  void Enter(PromiseBase& child) { at_ = &child; }

  // The task that this is, if it is one.
  virtual FutureCore* AsFuture() { return nullptr; }

  // One line per frame, outermost first, then what it waits in.
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
  // Makes a finished or fresh root ready for another chain.
  void Recycle(Context context) {
    context_ = std::move(context);
    started_ = finished_ = cancel_requested_ = doomed_ = false;
  }

  // The root frame has finished: its promise holds result or error; the frame still exists until DestroyChain(). May
  // destroy this Root. What it throws leaves Run().
  virtual void OnFinished() = 0;
  // Cancelled before its first step: the body never ran.
  virtual void OnCancelledUnstarted() = 0;
  // It has suspended after DestroyOnceSuspended(). May destroy this Root.
  virtual void OnDoomed() {}

  // Destroys the frames, innermost first. Safe to repeat.
  void DestroyChain();

 private:
  friend class Leaf;
  friend class PromiseBase;

  EventLoop& loop_;
  Context context_;
  PromiseBase* frame_ = nullptr;  // outermost
  PromiseBase* at_ = nullptr;     // innermost: resumes next
  Leaf* waiting_ = nullptr;       // null while running, queued or finished
  bool started_ = false;
  bool running_ = false;
  bool finished_ = false;
  bool cancel_requested_ = false;
  bool cancelling_ = false;  // in Cancel()
  bool doomed_ = false;
  static inline thread_local Root* in_circle_ = nullptr;
};

inline void PromiseBase::FinalAwaiter::await_suspend(std::coroutine_handle<>) noexcept {
  Root& root = *thread_state.root;
  if (promise.parent != nullptr) {
    root.at_ = promise.parent;
  } else {
    root.finished_ = true;
    root.running_ = false;
  }
}

}  // namespace troupe::internal

#endif  // TROUPE_ASYNC_INTERNAL_ROOT_H_
