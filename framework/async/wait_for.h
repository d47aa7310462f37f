// WaitFor: waits for a task or a future, but not longer than a given time.
//
//   absl::StatusOr<Reply> reply = co_await WaitFor(Ask(question), absl::Milliseconds(50));
//
// Gives StatusOr<T>, never nested: of a Task<StatusOr<T>> it is StatusOr<T>, of Status and void it is Status. When the
// time is up the task or future is cancelled and, once it has ended, the answer is DEADLINE_EXCEEDED; if it ended
// otherwise than by Cancelled or a CANCELLED status, the answer is how it ended. To leave a future alone when the time
// is up: WaitFor(Shield(future), ...).
//
// A task runs beside the caller, as a child: it inherits the context, with a deadline no later than this one, and never
// outlives the co_await (so it may borrow from the caller's frame), whether that ends by time, by cancellation, or
// because the frame is destroyed. Cancelling the caller cancels it and waits until it has ended (C-CMB-16). Timeout:
// infinite: just waits. Zero or less: a done future's result, else DEADLINE_EXCEEDED; a task's body does not
//            start (C-CMB-13).
// Threading: the loop's.
#ifndef TROUPE_ASYNC_WAIT_FOR_H_
#define TROUPE_ASYNC_WAIT_FOR_H_

#include <optional>
#include <source_location>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "troupe/async/ensure_future.h"
#include "troupe/async/future.h"
#include "troupe/async/internal/child_leaf.h"
#include "troupe/async/sleep.h"
#include "troupe/async/task.h"
#include "troupe/loop/context.h"
#include "troupe/loop/event_loop.h"

namespace troupe {
namespace internal {

template <class T>
using NotNested = std::conditional_t<std::is_void_v<T> || std::is_same_v<T, absl::Status>, absl::Status,
                                     std::conditional_t<kIsStatusOr<T>, Stored<T>, absl::StatusOr<Stored<T>>>>;

absl::Status TimedOut(absl::Duration timeout);

// The outcome of a done future. Throws what it failed with, but a StatusError is the status that it carries.
template <class T>
NotNested<T> OutcomeOf(const Ref& future, bool take) {
  auto& state = static_cast<FutureState<T>&>(*future.get());
  try {
    if constexpr (std::is_void_v<T>) {
      state.Get();
      return absl::OkStatus();
    } else if constexpr (std::is_copy_constructible_v<T>) {
      if (take) return state.Take();
      return state.Get();
    } else {
      return state.Take();
    }
  } catch (const StatusError& error) {
    return error.status();
  }
}

template <class T>
Task<NotNested<T>> WaitForFuture(Ref future, absl::Duration timeout, bool take) {
  const MonotonicTime deadline = future->loop().Time() + timeout;
  const bool expired = co_await ChildLeaf(future, deadline);
  if (expired && (future->EndedByCancellation() || absl::IsCancelled(future->ValueStatus()))) {
    future->MarkRetrieved();
    co_return TimedOut(timeout);
  }
  co_return OutcomeOf<T>(future, take);
}

}  // namespace internal

template <class T>
Task<internal::NotNested<T>> WaitFor(Task<T> task, absl::Duration timeout,
                                     std::source_location where = std::source_location::current()) {
  EventLoop& loop = EventLoop::Current();
  if (timeout <= absl::ZeroDuration()) {
    if (task.valid()) task.Release()->self.destroy();  // at once, and without a word that it was never awaited
    co_await Sleep(absl::ZeroDuration());
    co_return internal::TimedOut(timeout);
  }
  Context context = Context::Current().WithDeadline(loop.Time() + timeout);
  const internal::OwnedTask child(
      internal::StartTask(loop, std::move(task), "", std::move(context), where, /*quiet=*/true).core());
  Task<internal::NotNested<T>> wait = internal::WaitForFuture<T>(child.ref(), timeout, /*take=*/true);
  co_return co_await std::move(wait);
}

// A Reply, for one: the call is cancelled when the time is up.
template <internal::HasAsTask A>
auto WaitFor(A reply, absl::Duration timeout, std::source_location where = std::source_location::current()) {
  return WaitFor(std::move(reply).AsTask(), timeout, where);
}

template <class T>
Task<internal::NotNested<T>> WaitFor(Future<T> future, absl::Duration timeout) {
  if (timeout <= absl::ZeroDuration() && future.done()) {
    co_return internal::OutcomeOf<T>(future.core(), /*take=*/false);
  }
  Task<internal::NotNested<T>> wait = internal::WaitForFuture<T>(future.core(), timeout, /*take=*/false);
  co_return co_await std::move(wait);
}

}  // namespace troupe

#endif  // TROUPE_ASYNC_WAIT_FOR_H_
