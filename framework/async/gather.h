// Gather: runs several at once and gives all results in the order of the arguments. GatherSettled: waits for all of
// them whatever becomes of each.
//
//   auto [user, orders] = co_await Gather(LoadUser(id), LoadOrders(id));
//   absl::StatusOr<std::vector<Row>> rows = co_await Gather(std::move(tasks));   // a vector of tasks
//
// Each argument is a Task, which starts at once, a Future (a TaskHandle is one), or a Reply. A plain T gives a T; a StatusOr<T>
// gives a T and makes the whole a StatusOr; a Status or a void gives a std::monostate. A vector gives a vector, and
// arguments without any value give Status or void.
//
// Errors:    the first one, an exception or a status that is not OK, completes the whole at once; THE OTHERS GO ON, so
//            what they borrow must outlive them. Where they borrow from the caller's frame use TaskGroup, which cancels
//            and awaits them, or GatherSettled. Errors after the first are dropped (C-CMB-03). A child that was
//            cancelled counts as one that failed with Cancelled (C-CMB-06).
// Cancelled: cancels every child and ends when the last one has ended (C-CMB-07).
// Context:   children inherit the caller's, deadline included.
// Lifetime:  tasks that were given to it belong to it while it is pending. When the last Future of it goes, or a frame
//            that awaits it is destroyed, they are destroyed where they stand, the last one first; so they may borrow
//            from a frame that holds the Future, awaited or not. Futures that were given to it go on. To run tasks that
//            nobody waits for use EventLoop::CreateTask, or Shield(Gather(...)).
// Threading: the loop's. Futures of several loops are refused by InvalidState.
#ifndef TROUPE_ASYNC_GATHER_H_
#define TROUPE_ASYNC_GATHER_H_

#include <cstddef>
#include <exception>
#include <memory>
#include <source_location>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "troupe/async/ensure_future.h"
#include "troupe/async/future.h"
#include "troupe/async/internal/done_watcher.h"
#include "troupe/async/task.h"
#include "troupe/base/intrusive_list.h"
#include "troupe/loop/event_loop.h"

namespace troupe {
namespace internal {

// The logic of gathering, whatever the types. In its loop's list while it is kept.
class Gathering : public ListNode<> {
 public:
  Gathering(EventLoop& loop, std::vector<Child> children, bool settle);

 protected:
  ~Gathering();

  // Starts to watch: once the derived object is complete.
  void Start();
  bool CancelChildren();
  void DestroyOwned();
  void Keep();

  virtual FutureCore& outer() = 0;
  // All children have ended, without a failure unless settling.
  virtual void Complete() = 0;
  virtual void Fail(absl::Status status) = 0;
  // False: the result's type cannot hold a status.
  virtual bool HoldsStatus() const = 0;

  std::vector<Child> children_;

 private:
  class Kept;
  class Watcher final : public DoneWatcher {
   public:
    Gathering* gathering = nullptr;

   private:
    void OnDone() override {
      gathering->OnChildDone(future());
      gathering->ForgetIfDone();
    }
  };
  void OnChildDone(FutureCore& child);
  // No longer kept. May destroy this.
  void ForgetIfDone();
  void Fail(FutureCore& child);

  std::unique_ptr<Watcher[]> watchers_;
  size_t ended_ = 0;
  const bool settle_;
  bool cancel_requested_ = false;
  Ref failed_;  // the first one
};

template <class T>
struct GatheredItem {
  using type = T;
};
template <class T>
struct GatheredItem<absl::StatusOr<T>> {
  using type = T;
};
template <>
struct GatheredItem<absl::Status> {
  using type = std::monostate;
};
template <>
struct GatheredItem<void> {
  using type = std::monostate;
};
// What a child of value type T contributes.
template <class T>
using Gathered = typename GatheredItem<T>::type;

template <class Values, bool kStatus, bool kEmpty>
using GatherResult = std::conditional_t<kEmpty, std::conditional_t<kStatus, absl::Status, void>,
                                        std::conditional_t<kStatus, absl::StatusOr<Values>, Values>>;
template <class... Ts>
using GatherTupleResult = GatherResult<std::tuple<Gathered<Ts>...>, (kHoldsStatus<Ts> || ...),
                                       (std::is_same_v<Gathered<Ts>, std::monostate> && ...)>;
template <class T>
using GatherVectorResult =
    GatherResult<std::vector<Gathered<T>>, kHoldsStatus<T>, std::is_same_v<Gathered<T>, std::monostate>>;

// The value of a child that has one: moved out of a task that nobody else can ask, copied (if it can be) otherwise.
template <class T>
Gathered<T> TakeGathered(const Child& child) {
  auto& state = static_cast<FutureState<T>&>(*child.future.get());
  if constexpr (std::is_same_v<Gathered<T>, std::monostate>) {
    state.Get();
    return {};
  } else if constexpr (kIsStatusOr<T>) {
    return *TakeValue<T>(child.future, child.owned);
  } else {
    return TakeValue<T>(child.future, child.owned);
  }
}

template <class R>
class GatherStateBase : public FutureState<R>, protected Gathering {
 public:
  GatherStateBase(EventLoop& loop, std::vector<Child> children, bool settle)
      : FutureState<R>(loop, std::source_location::current()), Gathering(loop, std::move(children), settle) {}

  ~GatherStateBase() override { this->ReportUnretrieved(); }

  bool Cancel() override { return !this->done() && CancelChildren(); }
  void OnAwaiterDestroyed() override { DestroyOwned(); }
  void KeepUntilDone() override { Keep(); }

 protected:
  const char* Kind() const override { return "Gather"; }
  FutureCore& outer() override { return *this; }
  bool HoldsStatus() const override { return kHoldsStatus<R>; }
  void Fail(absl::Status status) override { this->SetStatus(std::move(status)); }
};

template <class... Ts>
class GatherTupleState final : public GatherStateBase<GatherTupleResult<Ts...>> {
  using R = GatherTupleResult<Ts...>;

 public:
  explicit GatherTupleState(EventLoop& loop, std::vector<Child> children)
      : GatherStateBase<R>(loop, std::move(children), false) {
    this->Start();
    if constexpr (sizeof...(Ts) == 0) Complete();
  }

 private:
  void Complete() override {
    if constexpr (std::is_void_v<R>) {
      this->SetValue();
    } else if constexpr (std::is_same_v<R, absl::Status>) {
      this->SetValue(absl::OkStatus());
    } else {
      Collect(std::index_sequence_for<Ts...>());
    }
  }
  template <size_t... kIndex>
  void Collect(std::index_sequence<kIndex...>) {
    this->SetValue(std::tuple<Gathered<Ts>...>{TakeGathered<Ts>(this->children_[kIndex])...});
  }
};

template <class T>
class GatherVectorState final : public GatherStateBase<GatherVectorResult<T>> {
  using R = GatherVectorResult<T>;

 public:
  explicit GatherVectorState(EventLoop& loop, std::vector<Child> children)
      : GatherStateBase<R>(loop, std::move(children), false) {
    this->Start();
    if (this->children_.empty()) Complete();  // C-CMB-01
  }

 private:
  void Complete() override {
    if constexpr (std::is_void_v<R>) {
      this->SetValue();
    } else if constexpr (std::is_same_v<R, absl::Status>) {
      this->SetValue(absl::OkStatus());
    } else {
      std::vector<Gathered<T>> values;
      values.reserve(this->children_.size());
      for (const Child& child : this->children_) values.push_back(TakeGathered<T>(child));
      this->SetValue(std::move(values));
    }
  }
};

template <class... Ts>
class SettledTupleState final : public GatherStateBase<std::tuple<Future<Ts>...>> {
 public:
  explicit SettledTupleState(EventLoop& loop, std::vector<Child> children)
      : GatherStateBase<std::tuple<Future<Ts>...>>(loop, std::move(children), true) {
    this->Start();
    if constexpr (sizeof...(Ts) == 0) Complete();
  }

 private:
  void Complete() override { Collect(std::index_sequence_for<Ts...>()); }
  template <size_t... kIndex>
  void Collect(std::index_sequence<kIndex...>) {
    this->SetValue(std::tuple<Future<Ts>...>{Future<Ts>(this->children_[kIndex].future)...});
  }
};

template <class T>
class SettledVectorState final : public GatherStateBase<std::vector<Future<T>>> {
 public:
  explicit SettledVectorState(EventLoop& loop, std::vector<Child> children)
      : GatherStateBase<std::vector<Future<T>>>(loop, std::move(children), true) {
    this->Start();
    if (this->children_.empty()) Complete();
  }

 private:
  void Complete() override {
    std::vector<Future<T>> futures;
    futures.reserve(this->children_.size());
    for (const Child& child : this->children_) futures.push_back(Future<T>(child.future));
    this->SetValue(std::move(futures));
  }
};

// Waits until all are done, and leaves them alone when cancelled. Their outcome stays with them.
Task<void> AwaitAll(std::vector<Ref> futures);

}  // namespace internal

template <class... As>
  requires(internal::GatherArgument<As> && ...)
[[nodiscard]] auto Gather(As&&... tasks_or_futures) {
  EventLoop& loop = internal::CommonLoop({internal::LoopOf(tasks_or_futures)...});
  std::vector<internal::Child> children;
  children.reserve(sizeof...(As));
  (children.push_back(internal::MakeChild(loop, std::forward<As>(tasks_or_futures))), ...);
  using State = internal::GatherTupleState<internal::AwaitedValue<As>...>;
  using Result = internal::GatherTupleResult<internal::AwaitedValue<As>...>;
  return Future<Result>(internal::Ref(new State(loop, std::move(children))));
}

// A is Task<T>, Future<T> or TaskHandle<T>.
template <class A>
  requires internal::GatherArgument<A>
[[nodiscard]] auto Gather(std::vector<A> tasks_or_futures) {
  std::vector<internal::Child> children;
  EventLoop& loop = internal::MakeChildren(std::move(tasks_or_futures), children);
  using T = internal::AwaitedValue<A>;
  return Future<internal::GatherVectorResult<T>>(
      internal::Ref(new internal::GatherVectorState<T>(loop, std::move(children))));
}
template <class... As>
  requires((internal::GatherArgument<As> || internal::HasAsTask<As>) && ...) && (internal::HasAsTask<As> || ...)
[[nodiscard]] auto Gather(As&&... replies) {
  return Gather(internal::TaskOrFuture(std::forward<As>(replies))...);
}
template <internal::HasAsTask A>
[[nodiscard]] auto Gather(std::vector<A> replies) {
  return Gather(internal::TasksOf(std::move(replies)));
}

// Gives the futures themselves, each done: with a value, an error, or cancelled (C-CMB-04). Never fails, but for being
// cancelled itself.
template <class... As>
  requires(internal::GatherArgument<As> && ...)
[[nodiscard]] auto GatherSettled(As&&... tasks_or_futures) {
  EventLoop& loop = internal::CommonLoop({internal::LoopOf(tasks_or_futures)...});
  std::vector<internal::Child> children;
  children.reserve(sizeof...(As));
  (children.push_back(internal::MakeChild(loop, std::forward<As>(tasks_or_futures))), ...);
  using State = internal::SettledTupleState<internal::AwaitedValue<As>...>;
  return Future<std::tuple<Future<internal::AwaitedValue<As>>...>>(internal::Ref(new State(loop, std::move(children))));
}

template <class A>
  requires internal::GatherArgument<A>
[[nodiscard]] auto GatherSettled(std::vector<A> tasks_or_futures) {
  std::vector<internal::Child> children;
  EventLoop& loop = internal::MakeChildren(std::move(tasks_or_futures), children);
  using T = internal::AwaitedValue<A>;
  return Future<std::vector<Future<T>>>(internal::Ref(new internal::SettledVectorState<T>(loop, std::move(children))));
}
template <class... As>
  requires((internal::GatherArgument<As> || internal::HasAsTask<As>) && ...) && (internal::HasAsTask<As> || ...)
[[nodiscard]] auto GatherSettled(As&&... replies) {
  return GatherSettled(internal::TaskOrFuture(std::forward<As>(replies))...);
}
template <internal::HasAsTask A>
[[nodiscard]] auto GatherSettled(std::vector<A> replies) {
  return GatherSettled(internal::TasksOf(std::move(replies)));
}

}  // namespace troupe

#endif  // TROUPE_ASYNC_GATHER_H_
