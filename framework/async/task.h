// Task<T>: a lazy coroutine. TaskHandle<T>: a task that a loop runs.
//
// Write asynchronous functions as coroutines that return Task<T>. `co_await F()` runs F in place, inside the caller's
// chain, and gives its T or throws what it threw. To run something beside the caller, hand it to loop.CreateTask, whose
// TaskHandle is a Future<T> that can also be named; TaskGroup and Gather do this for several.
//
// Life:         made (nothing runs) -> awaited or created once -> runs -> done
//               One that is dropped unawaited never ran; debug mode warns of it.
// Cancellation: TaskHandle::Cancel() throws Cancelled at the innermost co_await, at the next step (C-TSK-05).
// Lifetime:     a Task owns its coroutine; arguments taken by reference must outlive it. Not a capturing lambda: its
//               captures die before the coroutine does. A created task is kept alive by its loop until it is done.
// Threading:    the loop's.
#ifndef TROUPE_ASYNC_TASK_H_
#define TROUPE_ASYNC_TASK_H_

#include <coroutine>
#include <exception>
#include <optional>
#include <source_location>
#include <string>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "troupe/async/future.h"
#include "troupe/async/internal/root.h"
#include "troupe/loop/context.h"
#include "troupe/loop/event_loop.h"

namespace troupe {

namespace internal {

template <class T>
class TaskPromise : public PromiseBase {
 public:
  // `made`: at the coroutine.
  explicit TaskPromise(std::source_location made = std::source_location::current()) : PromiseBase(made) {
    self = std::coroutine_handle<TaskPromise>::from_promise(*this);
  }
  Task<T> get_return_object();
  template <class U = T>
    requires std::is_constructible_v<T, U&&>
  void return_value(U&& result) {
    value.emplace(std::forward<U>(result));
  }
  T Take() {
    if (!value.has_value()) [[unlikely]]
      std::rethrow_exception(TakeError());
    return std::move(*value);
  }
  // What left the body; null where there is a value. A body that ended without co_return left InvalidState.
  std::exception_ptr TakeError() {
    if (value.has_value()) [[likely]]
      return nullptr;
    return error ? std::exchange(error, nullptr) : NoValueError(*this);
  }
  std::optional<T> value;
};

template <>
class TaskPromise<void> : public PromiseBase {
 public:
  // `made`: at the coroutine.
  explicit TaskPromise(std::source_location made = std::source_location::current()) : PromiseBase(made) {
    self = std::coroutine_handle<TaskPromise>::from_promise(*this);
  }
  Task<void> get_return_object();
  void return_void() {}
  void Take() {
    if (error) std::rethrow_exception(TakeError());
  }
  std::exception_ptr TakeError() { return std::exchange(error, nullptr); }
};

// Runs a child coroutine in place. Owns its frame until the co_await is over.
template <class T>
class TaskAwaiter {
 public:
  explicit TaskAwaiter(TaskPromise<T>* child) : child_(child), frame_(child->self) {}
  TaskAwaiter(const TaskAwaiter&) = delete;
  TaskAwaiter& operator=(const TaskAwaiter&) = delete;
  ~TaskAwaiter() {
    if (frame_) frame_.destroy();
  }
  bool await_ready() const noexcept { return false; }
  template <class Promise>
  void await_suspend(std::coroutine_handle<Promise> parent) noexcept {
    child_->parent = &parent.promise();
    child_->owner = &frame_;
    thread_state.root->Enter(*child_);
  }
  T await_resume() { return child_->Take(); }

 private:
  TaskPromise<T>* child_;
  std::coroutine_handle<> frame_;
};

}  // namespace internal

template <class T = void>
class [[nodiscard]] Task {
 public:
  using value_type = T;
  using promise_type = internal::TaskPromise<T>;

  Task() = default;  // of nothing
  Task(Task&& other) noexcept : promise_(std::exchange(other.promise_, nullptr)) {}
  Task& operator=(Task&& other) noexcept {
    Task old = std::move(*this);
    promise_ = std::exchange(other.promise_, nullptr);
    return *this;
  }
  ~Task() {
    if (promise_ != nullptr) internal::DestroyUnawaited(*promise_);
  }

  bool valid() const { return promise_ != nullptr; }

  // Only once: `co_await F()`, `co_await std::move(task)`.
  auto operator co_await() && {
    if (promise_ == nullptr) throw InvalidState("the task is of nothing, or was awaited before");
    return internal::TaskAwaiter<T>(std::exchange(promise_, nullptr));
  }

  // For the framework: takes the coroutine out.
  promise_type* Release() { return std::exchange(promise_, nullptr); }
  explicit Task(promise_type* promise) : promise_(promise) {}

 private:
  promise_type* promise_ = nullptr;
};

namespace internal {

template <class T>
Task<T> TaskPromise<T>::get_return_object() {
  return Task<T>(this);
}
inline Task<void> TaskPromise<void>::get_return_object() { return Task<void>(this); }

// A task on a loop: future, chain and entry in the loop's list in one block.
template <class T>
class TaskState final : public FutureState<T>, public Root, public TaskNode, public Pooled {
 public:
  TaskState(EventLoop& loop, Task<T> task, absl::string_view name, Context context, std::source_location where)
      : FutureState<T>(loop, where), Root(loop, std::move(context)), name_(name) {
    Adopt(*task.Release());
    loop.tasks().PushBack(*this);
    this->Retain();  // the loop's, until the task is done
  }
  using Pooled::operator new;
  using Pooled::operator delete;

  bool Cancel() override { return Root::Cancel(); }
  Root* root() override { return this; }

  const std::string& name() const override { return name_; }
  void set_name(absl::string_view name) { name_ = std::string(name); }
  // Tasks of RunUntilComplete and Gather are not reported when they are destroyed pending (C-TSK-16).
  void set_quiet() { quiet_ = true; }

  std::string Describe() const override {
    static constexpr const char* kStates[] = {"pending", "finished", "finished with an error", "cancelled"};
    return "<Task '" + name_ + "' " + kStates[this->state_] + " created at " + this->where_.file_name() + ":" +
           std::to_string(this->where_.line()) + ">";
  }
  std::string DescribeTask() const override { return Describe() + "\n" + DescribeChain(); }

  FutureCore* AsFuture() override { return this; }

  // A Fatal that the exception handler throws leaves from here, after the task is gone.
  void DestroyPending() override {
    static_cast<TaskNode*>(this)->Unlink();
    struct AtExit {
      TaskState* state;
      ~AtExit() {
        state->DestroyChain();
        state->FutureCore::Complete(FutureCore::kCancelled);
        state->Release();
      }
    } at_exit{this};
    if (quiet_) return;
    ExceptionContext context;
    context.message = "Task was destroyed but it is pending!";
    context.Add("task", DescribeTask(), this);
    Root::loop().CallExceptionHandler(context);
  }
  void DestroyNow() override {
    if (Root::finished() || this->done()) return;
    quiet_ = true;
    if (Root::running()) {
      DestroyOnceSuspended();
    } else {
      DestroyPending();
    }
  }

 protected:
  const char* Kind() const override { return "Task"; }
  bool ReportsStatus() const override { return true; }

 private:
  ~TaskState() override { this->ReportUnretrieved(); }

  void OnFinished() override {
    static_cast<TaskNode*>(this)->Unlink();
    auto& promise = static_cast<TaskPromise<T>&>(*frame());
    std::exception_ptr error = promise.TakeError();
    bool fatal = false;
    if (error) [[unlikely]] {
      try {
        std::rethrow_exception(error);
      } catch (const Cancelled&) {
        error = nullptr;
        DestroyChain();
        FutureCore::Complete(FutureCore::kCancelled);
        return this->Release();
      } catch (const Fatal&) {
        fatal = true;
      } catch (...) {  // becomes the task's error, which its awaiter or the exception handler gets
      }
      DestroyChain();
      FutureCore::SetError(error);
      ReleaseAtExit release{this};
      if (fatal) std::rethrow_exception(error);  // stored and out of the loop as well (C-TSK-18)
      return;
    }
    // Cancelled after its last suspension: a cancellation that was accepted is never lost.
    const bool cancelled = cancel_requested();
    if (!cancelled) {
      if constexpr (!std::is_void_v<T>) {
        this->value_.emplace(std::move(*promise.value));
      } else {
        this->value_.emplace();
      }
    }
    DestroyChain();
    FutureCore::Complete(cancelled ? FutureCore::kCancelled : FutureCore::kValue);
    this->Release();
  }
  void OnDoomed() override { DestroyPending(); }
  void OnCancelledUnstarted() override {
    static_cast<TaskNode*>(this)->Unlink();
    FutureCore::Complete(FutureCore::kCancelled);
    this->Release();
  }

  struct ReleaseAtExit {
    TaskState* state;
    ~ReleaseAtExit() { state->Release(); }
  };

  std::string name_;
  bool quiet_ = false;
};

template <class T>
TaskHandle<T> StartTask(EventLoop& loop, Task<T> task, absl::string_view name, Context context,
                        std::source_location where, bool quiet = false);
// Past the task factory.
template <class T>
TaskHandle<T> MakeTask(EventLoop& loop, Task<T> task, absl::string_view name, Context context,
                       std::source_location where, bool quiet);

}  // namespace internal

template <class T>
class TaskHandle : public Future<T> {
 public:
  TaskHandle() = default;

  const std::string& name() const { return task_state().name(); }
  void set_name(absl::string_view name) const { task_state().set_name(name); }

  // For the framework.
  explicit TaskHandle(internal::Ref core) : Future<T>(std::move(core)) {}
  internal::TaskState<T>& task_state() const { return static_cast<internal::TaskState<T>&>(this->state()); }
};

namespace internal {

template <class T>
TaskHandle<T> StartTask(EventLoop& loop, Task<T> task, absl::string_view name, Context context,
                        std::source_location where, bool quiet) {
  loop.CheckUsable("CreateTask");
  if (!task.valid()) throw InvalidState("the task is of nothing, or was awaited before");
  if (loop.has_task_factory()) [[unlikely]] {
    NewTask made{std::string(name), std::move(context), where};
    loop.CallTaskFactory(made);
    return MakeTask(loop, std::move(task), made.name, std::move(made.context), made.where, quiet);
  }
  return MakeTask(loop, std::move(task), name, std::move(context), where, quiet);
}

template <class T>
TaskHandle<T> MakeTask(EventLoop& loop, Task<T> task, absl::string_view name, Context context,
                       std::source_location where, bool quiet) {
  auto* state = new TaskState<T>(loop, std::move(task), name, std::move(context), where);
  TaskHandle<T> handle{Ref(state)};
  if (quiet) state->set_quiet();
  loop.Schedule(*state);
  return handle;
}

template <class T>
void RunUntilDone(EventLoop& loop, const Future<T>& future) {
  const DoneCallbackToken token = future.AddDoneCallback([&loop](const Future<T>&) { loop.Stop(); });
  try {
    loop.RunForever();
  } catch (...) {  // rethrown
    future.RemoveDoneCallback(token);
    // What the task itself failed with is on its way to the caller (C-LOOP-24).
    if (future.done()) future.core()->MarkRetrieved();
    throw;
  }
  future.RemoveDoneCallback(token);
  if (!future.done()) throw InvalidState("Event loop stopped before Future completed.");
}

}  // namespace internal

template <class T>
TaskHandle<T> EventLoop::CreateTask(Task<T> task, absl::string_view name, std::source_location where) {
  return internal::StartTask(*this, std::move(task), name, Context::Current().WithoutDeadline(), where);
}

template <class T>
T EventLoop::RunUntilComplete(Task<T> task) {
  if (IsClosed()) throw InvalidState("Event loop is closed");
  if (IsRunning()) throw InvalidState("This event loop is already running");
  const TaskHandle<T> handle = internal::StartTask(*this, std::move(task), "main", Context::Current(),
                                                   std::source_location::current(), /*quiet=*/true);
  internal::RunUntilDone<T>(*this, handle);
  if constexpr (std::is_void_v<T>) {
    handle.result();
  } else {
    return handle.state().Take();
  }
}

template <class T>
T EventLoop::RunUntilComplete(Future<T> future) {
  if (IsClosed()) throw InvalidState("Event loop is closed");
  if (IsRunning()) throw InvalidState("This event loop is already running");
  if (&future.loop() != this) throw InvalidState("the future belongs to a different loop than the one specified");
  internal::RunUntilDone<T>(*this, future);
  // Others may hold it as well: its value stays where it can.
  if constexpr (std::is_void_v<T> || std::is_copy_constructible_v<T>) {
    return future.result();
  } else {
    return future.state().Take();
  }
}

}  // namespace troupe

#endif  // TROUPE_ASYNC_TASK_H_
