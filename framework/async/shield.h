// Shield: awaits something without passing the awaiter's cancellation on to it (C-CMB-10).
//
//   co_await Shield(Commit(transaction));   // cancelled here, the commit goes on by itself
//
// The result, the error, and the cancellation of the inner one pass through. A task given to it becomes a detached task
// of the loop, as by CreateTask: it must own what it uses, since it may outlive the caller's frame, and it does not
// inherit the deadline. Its error is reported to the loop's exception handler when nobody is left to hear it.
//
// A future that is moved into it, as in Shield(Gather(...)), goes on by itself in the same way; one that the caller
// keeps lives as long as the caller keeps it.
//
// Threading: the loop's.
#ifndef TROUPE_ASYNC_SHIELD_H_
#define TROUPE_ASYNC_SHIELD_H_

#include <source_location>
#include <utility>

#include "troupe/async/ensure_future.h"
#include "troupe/async/future.h"
#include "troupe/async/internal/done_watcher.h"
#include "troupe/async/task.h"
#include "troupe/loop/context.h"
#include "troupe/loop/event_loop.h"

namespace troupe {
namespace internal {

template <class T>
class ShieldState final : public FutureState<T> {
 public:
  // `take`: nobody else asks for the value.
  ShieldState(EventLoop& loop, Ref inner, bool take, std::source_location where)
      : FutureState<T>(loop, where), inner_(std::move(inner)), take_(take) {
    watcher_.shield = this;
    watcher_.Watch(inner_);
  }
  ~ShieldState() override { this->ReportUnretrieved(); }

  bool Cancel() override {
    if (this->done()) return false;
    watcher_.Stop();
    return FutureState<T>::Cancel();
  }

 protected:
  const char* Kind() const override { return "Shield"; }

 private:
  class Watcher final : public DoneWatcher {
   public:
    ShieldState* shield = nullptr;

   private:
    void OnDone() override { shield->OnInnerDone(); }
  };

  void OnInnerDone() {
    FutureCore& inner = *inner_.get();
    if (inner.state() == FutureCore::kCancelled) {
      FutureState<T>::Cancel();
    } else if (inner.state() == FutureCore::kError) {
      this->SetError(inner.exception());
    } else {
      try {
        if constexpr (std::is_void_v<T>) {
          TakeValue<T>(inner_, take_);
          this->SetValue();
        } else {
          this->SetValue(TakeValue<T>(inner_, take_));
        }
      } catch (...) {  // a value that does not let itself be copied: becomes the error
        this->SetError(std::current_exception());
      }
    }
  }

  Ref inner_;
  const bool take_;
  Watcher watcher_;
};

}  // namespace internal

template <class T>
Future<T> Shield(Task<T> task, std::source_location where = std::source_location::current()) {
  EventLoop& loop = EventLoop::Current();
  const TaskHandle<T> inner =
      internal::StartTask(loop, std::move(task), "", Context::Current().WithoutDeadline(), where);
  return Future<T>(internal::Ref(new internal::ShieldState<T>(loop, inner.core(), /*take=*/true, where)));
}

template <class T>
Future<T> Shield(const Future<T>& inner, std::source_location where = std::source_location::current()) {
  if (inner.done()) return inner;
  return Future<T>(internal::Ref(new internal::ShieldState<T>(inner.loop(), inner.core(), /*take=*/false, where)));
}
template <class T>
Future<T> Shield(Future<T>&& inner, std::source_location where = std::source_location::current()) {
  const Future<T> kept = std::move(inner);
  if (!kept.done()) kept.core()->KeepUntilDone();
  return Shield(kept, where);
}

}  // namespace troupe

#endif  // TROUPE_ASYNC_SHIELD_H_
