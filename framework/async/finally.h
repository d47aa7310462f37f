// Finally: runs a cleanup that awaits, however a task ends. C++ cannot await in a destructor or a catch block.
//
//   co_return co_await Finally(Use(connection), [&] { return connection.Bye(); });
//
// The cleanup is a callable that returns a Task<void>; it is called, and what it returns awaited, after the task has
// returned, thrown, or been cancelled; then its outcome goes on. As in Python's try-finally: a second cancellation
// arrives in the cleanup; what the cleanup throws replaces the task's own error, which then is reported to the
// exception handler. Where no co_await is needed to clean up, use a destructor: destroying the frame while it is
// suspended runs destructors and not this.
//
// g++ 12 destroys closures in co_await expressions twice if they own something, so the callable must be trivially
// destructible: capture by reference, or name an owning one and pass std::ref(cleanup).
// Threading: the loop's.
#ifndef TROUPE_ASYNC_FINALLY_H_
#define TROUPE_ASYNC_FINALLY_H_

#include <exception>
#include <optional>
#include <type_traits>
#include <utility>

#include "troupe/async/task.h"

namespace troupe {
namespace internal {

// What the cleanup's error pushes aside. Says nothing about Cancelled and GeneratorExit.
void ReportReplacedError(const std::exception_ptr& error);

template <class F>
Task<void> Cleanup(F& cleanup, const std::exception_ptr& error) {
  std::exception_ptr replaced = error;
  try {
    Task<void> task = cleanup();
    co_await std::move(task);
    replaced = nullptr;
  } catch (...) {  // rethrown
    ReportReplacedError(replaced);
    throw;
  }
}

}  // namespace internal

template <class T, class F>
Task<T> Finally(Task<T> task, F cleanup) {
  static_assert(std::is_trivially_destructible_v<F>, "capture by reference, or pass std::ref() of a named callable");
  static_assert(std::is_same_v<std::invoke_result_t<F&>, Task<void>>, "the cleanup returns a Task<void>");
  std::exception_ptr error;
  if constexpr (std::is_void_v<T>) {
    try {
      co_await std::move(task);
    } catch (...) {  // rethrown after the cleanup
      error = std::current_exception();
    }
    co_await internal::Cleanup(cleanup, error);
    if (error) std::rethrow_exception(error);
  } else {
    std::optional<T> value;
    try {
      T result = co_await std::move(task);
      value.emplace(std::move(result));
    } catch (...) {  // rethrown after the cleanup
      error = std::current_exception();
    }
    co_await internal::Cleanup(cleanup, error);
    if (error) std::rethrow_exception(error);
    co_return std::move(*value);
  }
}

}  // namespace troupe

#endif  // TROUPE_ASYNC_FINALLY_H_
