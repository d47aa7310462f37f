// RunThreadsafe: runs a task on a loop from another thread, and gives that thread a future to block on (C-CMB-24).
//
//   ThreadFuture<int> answer = RunThreadsafe(loop, Compute());   // in any thread but the loop's
//   answer.Wait(absl::Seconds(1));
//   absl::StatusOr<int> got = answer.Get();
//
// For threads that are not a loop's: main while loops run elsewhere, a library's callbacks. Blocking the loop's own
// thread on it is a deadlock, and refused. The task must not use the calling thread's data without a lock.
//
// A coroutine of another loop awaits it by WrapFuture (async/wrap_future.h).
//
// Cancelling the ThreadFuture cancels the task; a task that is destroyed with its loop counts as cancelled.
// Threading: a ThreadFuture may be used from any thread.     Lifetime: it may outlive the loop.
#ifndef TROUPE_ASYNC_RUN_THREADSAFE_H_
#define TROUPE_ASYNC_RUN_THREADSAFE_H_

#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <source_location>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "troupe/async/future.h"
#include "troupe/async/task.h"
#include "troupe/base/errors.h"
#include "troupe/loop/event_loop.h"

namespace troupe {
namespace internal {

// Told of a ThreadFuture's end: once, on the thread that completes it.
class ThreadFutureObserver {
 public:
  virtual ~ThreadFutureObserver() = default;
  virtual void OnThreadFutureDone() = 0;
};

// Shared by the ThreadFutures and the loop's side.
class ThreadFutureCore : public std::enable_shared_from_this<ThreadFutureCore> {
 public:
  // False: the time is up first.
  bool Wait(absl::Duration timeout);
  bool done() const;
  bool cancelled() const;
  // Cancels the task through its loop. False: it is done.
  bool Cancel();
  // Done already: the observer is told at once.
  void Observe(std::shared_ptr<ThreadFutureObserver> observer);

  // ---- the loop's side
  explicit ThreadFutureCore(EventLoop& loop) : loop_(&loop) {}
  // The task runs; false: it was cancelled before that.
  bool Begin(Ref task);
  void SetError(std::exception_ptr error);
  void SetCancelled();

 protected:
  ~ThreadFutureCore() = default;
  void Finish(std::unique_lock<std::mutex>& lock);
  // Throws when there is no value. REQUIRES: done.
  void ThrowIfFailed() const;

  mutable std::mutex mutex_;  // guards all
  std::condition_variable changed_;
  EventLoop* loop_;  // null once it is done
  Ref task_;         // touched on the loop's thread only
  bool done_ = false;
  bool cancelled_ = false;
  bool cancel_requested_ = false;
  std::exception_ptr error_;
  std::vector<std::shared_ptr<ThreadFutureObserver>> observers_;  // shared with the future that waits for this one
};

template <class T>
class ThreadFutureState final : public ThreadFutureCore {
 public:
  using ThreadFutureCore::ThreadFutureCore;
  template <class... Args>
  void SetValue(Args&&... args) {
    std::unique_lock<std::mutex> lock(mutex_);
    value_.emplace(std::forward<Args>(args)...);
    Finish(lock);
  }
  T Take() {
    Wait(absl::InfiniteDuration());
    std::unique_lock<std::mutex> lock(mutex_);
    ThrowIfFailed();
    if (!value_) throw InvalidState("the value was taken before");
    if constexpr (!std::is_void_v<T>) {
      T value = std::move(*value_);
      value_.reset();
      return value;
    }
  }

 private:
  std::optional<Stored<T>> value_;
};

}  // namespace internal

template <class T>
class ThreadFuture {
 public:
  // Blocks; false: not done within `timeout`. Nothing is cancelled.
  bool Wait(absl::Duration timeout) const { return state_->Wait(timeout); }
  // Blocks, then the value, once. Throws what the task failed with, Cancelled if it was cancelled.
  T Get() { return state_->Take(); }
  // Asks the task to end. False: it is done.
  bool Cancel() const { return state_->Cancel(); }
  bool done() const { return state_->done(); }
  bool cancelled() const { return state_->cancelled(); }

  // For the framework.
  explicit ThreadFuture(std::shared_ptr<internal::ThreadFutureState<T>> state) : state_(std::move(state)) {}
  const std::shared_ptr<internal::ThreadFutureState<T>>& state() const { return state_; }

 private:
  std::shared_ptr<internal::ThreadFutureState<T>> state_;  // shared with the loop, until the task is done
};

namespace internal {

// Goes with the callback that starts the task: dropped unrun, the future is cancelled.
template <class T>
class ThreadsafeStart {
 public:
  ThreadsafeStart(std::shared_ptr<ThreadFutureState<T>> state, Task<T> task, std::source_location where)
      : state_(std::move(state)), task_(std::move(task)), where_(where) {}
  ThreadsafeStart(ThreadsafeStart&&) noexcept = default;
  ~ThreadsafeStart() {
    if (state_ != nullptr) state_->SetCancelled();
  }

  void operator()() {
    const std::shared_ptr<ThreadFutureState<T>> state = std::exchange(state_, nullptr);
    TaskHandle<T> handle;
    try {
      handle = EventLoop::Current().CreateTask(std::move(task_), "", where_);
    } catch (...) {  // becomes the future's error
      return state->SetError(std::current_exception());
    }
    if (!state->Begin(handle.core())) handle.Cancel();
    handle.AddDoneCallback(Arrive{state});
  }

 private:
  struct Arrive {
    explicit Arrive(std::shared_ptr<ThreadFutureState<T>> s) : state(std::move(s)) {}
    Arrive(Arrive&&) noexcept = default;
    // Dropped unrun: the loop was closed.
    ~Arrive() {
      if (state != nullptr) state->SetCancelled();
    }
    void operator()(const Future<T>& future) {
      const std::shared_ptr<ThreadFutureState<T>> to = std::exchange(state, nullptr);
      if (future.cancelled()) return to->SetCancelled();
      if (std::exception_ptr error = future.exception()) return to->SetError(std::move(error));
      if constexpr (std::is_void_v<T>) {
        to->SetValue();
      } else {
        to->SetValue(future.state().Take());
      }
    }
    std::shared_ptr<ThreadFutureState<T>> state;
  };

  std::shared_ptr<ThreadFutureState<T>> state_;
  Task<T> task_;
  std::source_location where_;
};

}  // namespace internal

// Throws InvalidState when the loop is closed.
template <class T>
ThreadFuture<T> RunThreadsafe(EventLoop& loop, Task<T> task,
                              std::source_location where = std::source_location::current()) {
  if (!task.valid()) throw InvalidState("the task is of nothing, or was awaited before");
  auto state = std::make_shared<internal::ThreadFutureState<T>>(loop);
  loop.CallSoonThreadsafe(internal::ThreadsafeStart<T>(state, std::move(task), where));
  return ThreadFuture<T>(std::move(state));
}

}  // namespace troupe

#endif  // TROUPE_ASYNC_RUN_THREADSAFE_H_
