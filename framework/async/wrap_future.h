// WrapFuture: a future of one loop for what a task of another loop gives (C-FUT-18).
//
//   Future<int> answer = WrapFuture(RunThreadsafe(other_loop, Compute()));
//   int got = co_await answer;
//
// Use it to await from a coroutine what a ThreadFuture lets a thread block on. It takes the value, so nobody else can.
// Cancelling it cancels the task; a task that was cancelled cancels it. A loop that is closed before the answer comes is
// no error: the answer is dropped.
//
// Threading: called, and the future used, on the thread of `loop`. The answer arrives there by CallSoonThreadsafe.
#ifndef TROUPE_ASYNC_WRAP_FUTURE_H_
#define TROUPE_ASYNC_WRAP_FUTURE_H_

#include <exception>
#include <memory>
#include <mutex>
#include <source_location>
#include <type_traits>
#include <utility>

#include "troupe/async/future.h"
#include "troupe/async/run_threadsafe.h"
#include "troupe/base/errors.h"
#include "troupe/base/intrusive_list.h"
#include "troupe/loop/event_loop.h"

namespace troupe {
namespace internal {

// What the thread that completes the one future knows of the other. In its loop's list until the answer has come.
class WrapLink : public ThreadFutureObserver, public ListNode<>, public std::enable_shared_from_this<WrapLink> {
 public:
  explicit WrapLink(EventLoop& loop) : loop_(&loop) {}

  // Any thread.
  void OnThreadFutureDone() override;

  // On the loop's thread: `waiting` goes on living until the answer has come.
  void Start(Ref waiting);
  // Nobody waits any more.
  void Stop();

 protected:
  // On the loop's thread.
  virtual void TakeAnswer(FutureCore& waiting) = 0;

 private:
  void Arrive();

  std::mutex mutex_;
  EventLoop* loop_;  // guarded by the mutex; null once it does not matter any more
  Ref waiting_;      // touched on the loop's thread only
};

template <class T>
class WrappedState final : public FutureState<T> {
  class Link final : public WrapLink {
   public:
    Link(EventLoop& loop, std::shared_ptr<ThreadFutureState<T>> source) : WrapLink(loop), source(std::move(source)) {}
    const std::shared_ptr<ThreadFutureState<T>> source;  // shared with its ThreadFutures

   private:
    void TakeAnswer(FutureCore& waiting) override {
      auto& state = static_cast<WrappedState&>(waiting);
      if (source->cancelled()) {
        state.FutureCore::Cancel();
        return;
      }
      try {
        if constexpr (std::is_void_v<T>) {
          source->Take();
          state.SetValue();
        } else {
          state.SetValue(source->Take());
        }
      } catch (...) {  // becomes the future's error
        state.SetError(std::current_exception());
      }
    }
  };

 public:
  WrappedState(EventLoop& loop, std::shared_ptr<ThreadFutureState<T>> source, std::source_location where)
      : FutureState<T>(loop, where), link_(std::make_shared<Link>(loop, std::move(source))) {}
  ~WrappedState() override { this->ReportUnretrieved(); }

  void Start() {
    this->Retain();
    link_->Start(Ref(this));
    link_->source->Observe(link_);
  }
  bool Cancel() override {
    if (!FutureCore::Cancel()) return false;
    const std::shared_ptr<Link> link = link_;
    link->source->Cancel();
    link->Stop();  // may destroy this
    return true;
  }

 private:
  const std::shared_ptr<Link> link_;  // shared with the source
};

}  // namespace internal

template <class T>
Future<T> WrapFuture(ThreadFuture<T> future, EventLoop& loop = EventLoop::Current(),
                     std::source_location where = std::source_location::current()) {
  loop.CheckUsable("WrapFuture");
  auto* state = new internal::WrappedState<T>(loop, future.state(), where);
  Future<T> wrapped{internal::Ref(state)};
  state->Start();
  return wrapped;
}

}  // namespace troupe

#endif  // TROUPE_ASYNC_WRAP_FUTURE_H_
