// Future<T>, Promise<T>: a value that will be there once, and the side that puts it there.
//
// Use a Future to wait for what someone else does: co_await it, or add a done callback. To run a coroutine, use Task
// and CreateTask, whose TaskHandle is a Future too. asyncio's rules hold (C-FUT).
//
// Life:      pending -> done (value, error) | cancelled; once
// Awaiting:  `co_await future` gives const T&; `co_await std::move(future)` moves the value out, once. An error is
//            thrown at the co_await, Cancelled if the future was cancelled. A status given to SetError is yielded where
//            T can hold it (absl::Status, absl::StatusOr<U>) and thrown as StatusError where not.
// Callbacks: never run inside SetValue, SetError or Cancel: they are queued, in order of registration (C-FUT-06).
// Threading: the loop's.     Lifetime: futures and promises share the state; the loop outlives it.
#ifndef TROUPE_ASYNC_FUTURE_H_
#define TROUPE_ASYNC_FUTURE_H_

#include <concepts>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <source_location>
#include <string>
#include <type_traits>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "troupe/async/internal/root.h"
#include "troupe/base/errors.h"
#include "troupe/base/intrusive_list.h"
#include "troupe/base/pool.h"
#include "troupe/loop/event_loop.h"

namespace troupe {

template <class T>
class Promise;

namespace internal {

// What a pending future tells when it is done: a suspended chain, a queued callback.
class FutureWaiter : public ListNode<> {
 public:
  // Inside the completion: only queues something.
  virtual void OnFutureDone() = 0;
  // The future goes away, pending.
  virtual void OnFutureDropped() {}

 protected:
  ~FutureWaiter() = default;
};

class FutureCore {
 public:
  enum State : uint8_t { kPending, kValue, kError, kCancelled };

  explicit FutureCore(EventLoop& loop, std::source_location where) : loop_(loop), where_(where) {}
  FutureCore(const FutureCore&) = delete;
  FutureCore& operator=(const FutureCore&) = delete;

  void Retain() { ++references_; }
  void Release() {
    if (--references_ == 0) delete this;
  }

  EventLoop& loop() { return loop_; }
  State state() const { return state_; }
  bool done() const { return state_ != kPending; }
  virtual bool Cancel();
  void SetError(std::exception_ptr error);
  // Throws what a done future without a value ended with; marks it as retrieved.
  void ThrowIfFailed();
  // Null if there is none. Throws InvalidState while pending, Cancelled if cancelled.
  std::exception_ptr exception();
  void MarkRetrieved() { retrieved_ = true; }
  // Cancelled, or failed with Cancelled, as a Gather does.
  bool EndedByCancellation() const;
  void Add(FutureWaiter& waiter) { waiters_.PushBack(waiter); }
  // "<Future pending>", "<Task 'name' finished>"
  virtual std::string Describe() const;
  // A task's; empty for others.
  virtual const std::string& name() const;
  // The chain behind a task; null for a plain future.
  virtual Root* root() { return nullptr; }
  // What the value says of itself: OK, or the status that it holds.
  virtual absl::Status ValueStatus() const { return absl::OkStatus(); }
  // The owner goes: a pending task is destroyed where it stands, without a report. No effect on a plain future.
  virtual void DestroyNow() {}
  // A frame that awaited this was destroyed while suspended. Combinators that made tasks for it destroy them.
  virtual void OnAwaiterDestroyed() {}
  // Goes on until it is done, even when nobody refers to it any more: for combinators, which else take their tasks along.
  virtual void KeepUntilDone() {}

 protected:
  virtual ~FutureCore();
  void CheckPending() const;
  void Complete(State state);
  // The word for reports: "Future", "Task".
  virtual const char* Kind() const { return "Future"; }
  // Is a value that nobody took, and that is a status which is not OK, worth a report? A task's is.
  virtual bool ReportsStatus() const { return false; }
  // For destructors of derived classes, whose virtuals still work.
  void ReportUnretrieved();

  EventLoop& loop_;
  std::source_location where_;
  uint32_t references_ = 1;
  State state_ = kPending;
  bool retrieved_ = false;
  std::exception_ptr error_;
  IntrusiveList<FutureWaiter> waiters_;
};

// The status that a StatusError carries; OK for any other exception.
absl::Status StatusIn(const std::exception_ptr& error);
// Throws InvalidState where there is no exception, or one that no future may fail with.
void CheckIsError(const std::exception_ptr& error);

template <class T>
inline constexpr bool kIsStatusOr = false;
template <class T>
inline constexpr bool kIsStatusOr<absl::StatusOr<T>> = true;
// Can T hold a status?
template <class T>
inline constexpr bool kHoldsStatus = std::is_same_v<T, absl::Status> || kIsStatusOr<T>;

// void as a value.
struct Nothing {};
template <class T>
using Stored = std::conditional_t<std::is_void_v<T>, Nothing, T>;

template <class T>
class FutureState : public FutureCore {
 public:
  using FutureCore::FutureCore;
  ~FutureState() override { ReportUnretrieved(); }

  template <class... Args>
  void SetValue(Args&&... args) {
    CheckPending();
    value_.emplace(std::forward<Args>(args)...);
    Complete(kValue);
  }
  void SetStatus(absl::Status status) {
    if constexpr (kHoldsStatus<T>) {
      SetValue(std::move(status));
    } else {
      SetError(std::make_exception_ptr(StatusError(std::move(status))));
    }
  }
  // REQUIRES: done().
  Stored<T>& Get() {
    retrieved_ = true;
    if (state_ != kValue) ThrowIfFailed();
    if (!value_) throw InvalidState("the future's value was moved out before");
    return *value_;
  }
  Stored<T> Take() {
    Stored<T> value = std::move(Get());
    value_.reset();
    return value;
  }
  absl::Status ValueStatus() const override {
    if constexpr (std::is_same_v<T, absl::Status>) {
      if (value_) return *value_;
    } else if constexpr (kIsStatusOr<T>) {
      if (value_) return value_->status();
    }
    return absl::OkStatus();
  }

 protected:
  std::optional<Stored<T>> value_;
};

class Ref {
 public:
  Ref() = default;
  explicit Ref(FutureCore* core) : core_(core) {}  // takes over one reference
  Ref(const Ref& other) : core_(other.core_) {
    if (core_) core_->Retain();
  }
  Ref(Ref&& other) noexcept : core_(std::exchange(other.core_, nullptr)) {}
  Ref& operator=(Ref other) noexcept {
    std::swap(core_, other.core_);
    return *this;
  }
  ~Ref() {
    if (core_) core_->Release();
  }
  FutureCore* get() const { return core_; }
  FutureCore* operator->() const { return core_; }

 private:
  FutureCore* core_ = nullptr;
};

// Awaits any future, without its value.
class FutureLeaf : public Leaf, public FutureWaiter {
 public:
  explicit FutureLeaf(Ref core) : core_(std::move(core)) {}
  ~FutureLeaf() {
    if (suspended()) core_->OnAwaiterDestroyed();
  }
  bool await_ready() const noexcept { return core_->done(); }
  void await_suspend(std::coroutine_handle<>) {
    Check();
    core_->Add(*this);
    Suspend();
  }
  std::string DescribeWait() const override { return core_->Describe(); }

 protected:
  void CancelWait() override;
  void OnFutureDone() override { Wake(); }
  void Check() const;

  Ref core_;
};

template <class T, bool kMove>
class FutureAwaiter final : public FutureLeaf {
 public:
  using FutureLeaf::FutureLeaf;
  decltype(auto) await_resume() {
    Resumed();
    auto& state = static_cast<FutureState<T>&>(*core_.get());
    if constexpr (std::is_void_v<T>) {
      state.Get();
    } else if constexpr (kMove) {
      return T(state.Take());
    } else {
      return static_cast<const T&>(state.Get());
    }
  }
};

// A callback added to a future: waits, is queued, runs, goes.
class DoneCallback;

}  // namespace internal

// Names a registered callback, for Future::RemoveDoneCallback.
class DoneCallbackToken {
 public:
  DoneCallbackToken() = default;

 private:
  template <class>
  friend class Future;
  explicit DoneCallbackToken(std::weak_ptr<internal::DoneCallback> callback) : callback_(std::move(callback)) {}
  std::weak_ptr<internal::DoneCallback> callback_;
};

namespace internal {
std::shared_ptr<DoneCallback> AddDoneCallback(const Ref& future, absl::AnyInvocable<void(Ref)> callback,
                                              std::source_location where);
bool RemoveDoneCallback(const std::weak_ptr<DoneCallback>& callback);
}  // namespace internal

template <class T>
class Future {
 public:
  using value_type = T;

  Future() = default;  // of nothing: only assignment and valid() make sense

  bool valid() const { return core_.get() != nullptr; }
  bool done() const { return Core().done(); }
  bool cancelled() const { return Core().state() == internal::FutureCore::kCancelled; }
  EventLoop& loop() const { return Core().loop(); }

  // Pending: true, and waiters see Cancelled. Done: false, and nothing changes (C-FUT-05).
  bool Cancel() const { return Core().Cancel(); }

  // The value. Throws what the future failed with; InvalidState "Result is not ready." while pending.
  decltype(auto) result() const {
    if (!done()) throw InvalidState("Result is not ready.");
    if constexpr (std::is_void_v<T>) {
      state().Get();
    } else {
      return static_cast<const T&>(state().Get());
    }
  }
  // Null if it has a value. Throws InvalidState "Exception is not set." while pending, Cancelled if cancelled.
  std::exception_ptr exception() const { return Core().exception(); }

  // Calls `callback(future)` through the loop once the future is done; at the earliest in the next iteration.
  template <class F>
    requires(std::invocable<F&, Future> && !internal::kIsTask<std::invoke_result_t<F&, Future>>)
  DoneCallbackToken AddDoneCallback(F callback, std::source_location where = std::source_location::current()) const {
    auto call = [callback = std::move(callback)](internal::Ref core) mutable { callback(Future(std::move(core))); };
    return DoneCallbackToken(internal::AddDoneCallback(core_, std::move(call), where));
  }
  // True: it was registered and will not be called.
  bool RemoveDoneCallback(const DoneCallbackToken& token) const {
    return internal::RemoveDoneCallback(token.callback_);
  }

  auto operator co_await() const& { return internal::FutureAwaiter<T, false>(core_); }
  auto operator co_await() && { return internal::FutureAwaiter<T, true>(std::move(core_)); }

  std::string ToString() const { return core_.get() ? core_->Describe() : "<Future of nothing>"; }

  // For the framework.
  explicit Future(internal::Ref core) : core_(std::move(core)) {}
  const internal::Ref& core() const { return core_; }
  internal::FutureState<T>& state() const { return static_cast<internal::FutureState<T>&>(Core()); }

 private:
  internal::FutureCore& Core() const {
    if (core_.get() == nullptr) throw InvalidState("the future is of nothing");
    return *core_.get();
  }
  internal::Ref core_;
};

// The side that completes a future. Move-only; a promise that is dropped leaves its future pending, as in asyncio.
template <class T>
class Promise {
 public:
  explicit Promise(EventLoop& loop = EventLoop::Current(), std::source_location where = std::source_location::current())
      : core_(new internal::FutureState<T>(loop, where)) {}
  Promise(Promise&&) noexcept = default;
  Promise& operator=(Promise&&) noexcept = default;

  Future<T> future() const { return Future<T>(core_); }
  bool done() const { return core_->done(); }
  bool cancelled() const { return core_->state() == internal::FutureCore::kCancelled; }

  // All throw InvalidState when the future is done already (C-FUT-03).
  template <class... Args>
  void SetValue(Args&&... args) const {
    State().SetValue(std::forward<Args>(args)...);
  }
  // An error is a status that is not OK, or an exception: given, or made in place by its type, as in
  // SetError<std::out_of_range>("row 7"). GeneratorExit is none (C-FUT-04).
  void SetError(absl::Status status) const {
    if (status.ok()) throw InvalidState("SetError was given an OK status");
    State().SetStatus(std::move(status));
  }
  void SetError(std::exception_ptr error) const {
    internal::CheckIsError(error);
    State().SetError(std::move(error));
  }
  template <class E, class... Args>
    requires(std::is_constructible_v<E, Args...> && !std::is_same_v<E, GeneratorExit>)
  void SetError(Args&&... args) const {
    State().SetError(std::make_exception_ptr(E(std::forward<Args>(args)...)));
  }
  // Silent on a future that was cancelled in the meantime (C-FUT-17).
  template <class... Args>
  void SetValueUnlessCancelled(Args&&... args) const {
    if (!cancelled()) SetValue(std::forward<Args>(args)...);
  }
  // Ends as `done` has ended: by its value, its error, or cancelled (C-FUT-20). Silent on a future that was cancelled in
  // the meantime. InvalidState: `done` is pending.
  void SetFrom(const Future<T>& done) const {
    if (!done.done()) throw InvalidState("Result is not ready.");
    if (cancelled()) return;
    if (done.cancelled()) {
      if (!core_->Cancel()) SetError(std::make_exception_ptr(Cancelled()));  // throws: it is done already
    } else if (std::exception_ptr error = done.exception()) {
      State().SetError(std::move(error));
    } else if constexpr (std::is_void_v<T>) {
      SetValue();
    } else {
      SetValue(done.result());
    }
  }

 private:
  internal::FutureState<T>& State() const { return static_cast<internal::FutureState<T>&>(*core_.get()); }
  internal::Ref core_;
};

}  // namespace troupe

#endif  // TROUPE_ASYNC_FUTURE_H_
