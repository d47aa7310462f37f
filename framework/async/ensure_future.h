// EnsureFuture: a Future from a Task, which starts, or from a Future, which stays what it is (C-CMB-25).
//
// Use it where code takes either. A task becomes one of the running loop, as by CreateTask, deadline included.
#ifndef TROUPE_ASYNC_ENSURE_FUTURE_H_
#define TROUPE_ASYNC_ENSURE_FUTURE_H_

#include <concepts>
#include <initializer_list>
#include <source_location>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "troupe/async/future.h"
#include "troupe/async/task.h"
#include "troupe/base/errors.h"
#include "troupe/loop/event_loop.h"

namespace troupe {

template <class T>
Future<T> EnsureFuture(Task<T> task, std::source_location where = std::source_location::current()) {
  return internal::StartTask(EventLoop::Current(), std::move(task), "", Context::Current(), where);
}
template <class T>
Future<T> EnsureFuture(Future<T> future) {
  return future;
}
// InvalidState where the future belongs to another loop than `loop`.
template <class T>
Future<T> EnsureFuture(Future<T> future, EventLoop& loop) {
  if (&future.loop() != &loop) {
    throw InvalidState("the future belongs to a different loop than the one specified");
  }
  return future;
}

namespace internal {

// A Task to be consumed, or anything derived from Future.
template <class A>
concept GatherArgument =
    (kIsTask<A> || (!std::is_lvalue_reference_v<A> && kIsTask<std::remove_reference_t<A>>) ||
     requires(const std::remove_cvref_t<A>& future) {
       typename std::remove_cvref_t<A>::value_type;
       requires std::derived_from<std::remove_cvref_t<A>, Future<typename std::remove_cvref_t<A>::value_type>>;
     });

// What can be made a task of: troupe::Reply, for one.
template <class A>
concept HasAsTask = !std::is_lvalue_reference_v<A> && requires(A&& a) { std::move(a).AsTask(); };

template <class A>
decltype(auto) TaskOrFuture(A&& argument) {
  if constexpr (HasAsTask<A>) {
    return std::move(argument).AsTask();
  } else {
    return std::forward<A>(argument);
  }
}
template <HasAsTask A>
auto TasksOf(std::vector<A> from) {
  std::vector<decltype(std::declval<A>().AsTask())> tasks;
  tasks.reserve(from.size());
  for (A& each : from) tasks.push_back(std::move(each).AsTask());
  return tasks;
}

template <class A>
using AwaitedValue = typename std::remove_cvref_t<A>::value_type;

// A future that a combinator works with. A task that the combinator made for it goes with it: what the task borrows may
// go next.
class Child {
 public:
  Child(Ref future, bool owned) : future(std::move(future)), owned(owned) {}
  Child(Child&&) noexcept = default;
  ~Child() {
    if (owned && future.get() != nullptr) future->DestroyNow();
  }

  Ref future;
  bool owned;  // made from a Task: nobody else knows it
};

// The last one first, as locals go.
inline void DestroyChildren(std::vector<Child>& children) {
  while (!children.empty()) children.pop_back();
}

// Null for a task: any loop will do.
template <class A>
EventLoop* LoopOf(const A& task_or_future) {
  if constexpr (kIsTask<std::remove_cvref_t<A>>) {
    return nullptr;
  } else {
    return &task_or_future.loop();
  }
}

// The one loop of all futures, else the running one.
inline EventLoop& CommonLoop(const std::vector<EventLoop*>& loops) {
  EventLoop* common = nullptr;
  for (EventLoop* loop : loops) {
    if (loop == nullptr) continue;
    if (common != nullptr && common != loop) {
      throw InvalidState("futures are tied to different event loops");
    }
    common = loop;
  }
  return common != nullptr ? *common : EventLoop::Current();
}

template <class A>
Child MakeChild(EventLoop& loop, A&& task_or_future) {
  if constexpr (kIsTask<std::remove_cvref_t<A>>) {
    return {StartTask(loop, std::move(task_or_future), "", Context::Current(), std::source_location::current(),
                      /*quiet=*/true)
                .core(),
            true};
  } else {
    return {task_or_future.core(), false};
  }
}

template <class A>
EventLoop& MakeChildren(std::vector<A> from, std::vector<Child>& children) {
  std::vector<EventLoop*> loops;
  loops.reserve(from.size());
  for (const A& each : from) loops.push_back(LoopOf(each));
  EventLoop& loop = CommonLoop(loops);
  children.reserve(from.size());
  for (A& each : from) children.push_back(MakeChild(loop, std::move(each)));
  return loop;
}

// The value of a future that has one: moved out if `take`, or if it cannot be copied. Throws what it failed with.
template <class T>
T TakeValue(const Ref& future, bool take) {
  auto& state = static_cast<FutureState<T>&>(*future.get());
  if constexpr (std::is_void_v<T>) {
    state.Get();
  } else if constexpr (std::is_copy_constructible_v<T>) {
    if (take) return state.Take();
    return state.Get();
  } else {
    return state.Take();
  }
}

}  // namespace internal
}  // namespace troupe

#endif  // TROUPE_ASYNC_ENSURE_FUTURE_H_
