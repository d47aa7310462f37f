// Blocking, RunInExecutor: run a function that blocks on another thread, without blocking the loop.
//
//   Row row = co_await Blocking([&] { return database.Read(key); });
//
// Blocking resumes only after the function has returned, cancelled or not, and destroying a frame that waits in it
// waits for the function: so the function may borrow from the frame. When the caller was cancelled, Cancelled is thrown
// then; a function that has not started by then never does. RunInExecutor is asyncio's run_in_executor: a Future that
// may be abandoned, and a function that owns all that it uses.
//
// What the function throws is thrown at the co_await. It runs in a copy of the caller's context, without a
// running loop. When no thread can be started, the outcome is RESOURCE_EXHAUSTED: as a status where the type holds one,
// else thrown.
//
// g++ 12 destroys closures in co_await expressions twice if they own something. Blocking therefore takes a temporary
// only if it is trivially destructible (capture by reference), or a named callable, which it borrows. RunInExecutor
// copies a named one, and takes any that is wrapped: `RunInExecutor(absl::AnyInvocable<int()>(std::move(work)))`.
//
// Threading: called on the loop; the function runs on a worker.
#ifndef TROUPE_ASYNC_BLOCKING_H_
#define TROUPE_ASYNC_BLOCKING_H_

#include <coroutine>
#include <exception>
#include <optional>
#include <source_location>
#include <string>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "troupe/async/await_argument.h"
#include "troupe/async/future.h"
#include "troupe/async/internal/executor_works.h"
#include "troupe/async/internal/root.h"
#include "troupe/loop/context.h"
#include "troupe/loop/event_loop.h"
#include "troupe/loop/runnable.h"
#include "troupe/os/os.h"

namespace troupe {
namespace internal {

// A function's way to a worker and back. Derived: holds function and result, and calls Stop() in its destructor.
class BlockingLeaf : public Leaf {
 public:
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<>);
  std::string DescribeWait() const override { return done_ ? "Blocking, done" : "Blocking"; }

 protected:
  // Null: the executor of the running loop.
  explicit BlockingLeaf(WorkerPool* pool) : pool_(pool) {}
  ~BlockingLeaf() = default;

  // On the worker.
  virtual void Call() = 0;

  // Returns when the function neither runs nor will run.
  void Stop();
  // First thing in await_resume. Throws Cancelled, or what the function threw.
  void Finish();
  // Not even a thread.
  const absl::Status& refused() const { return refused_; }

 private:
  class Job final : public Work {
   public:
    explicit Job(BlockingLeaf& leaf) : leaf_(leaf) {}
    void Run() override;

   private:
    BlockingLeaf& leaf_;
  };
  class Arrival final : public Runnable {
   public:
    explicit Arrival(BlockingLeaf& leaf) : leaf_(leaf) {}
    void Run() override { leaf_.OnArrival(); }
    std::string Describe() const override { return "Blocking's return"; }

   private:
    BlockingLeaf& leaf_;
  };
  void OnArrival();
  void CancelWait() override;

  WorkerPool* pool_;
  EventLoop* loop_ = nullptr;
  Context context_;
  Job job_{*this};
  Arrival arrival_{*this};
  std::exception_ptr error_;
  absl::Status refused_;
  bool submitted_ = false;
  bool done_ = false;
  bool cancelled_ = false;
};

// F is a callable, or a reference to one.
template <class F>
class BlockingAwaiter final : public BlockingLeaf {
  using R = std::invoke_result_t<F&>;
  static_assert(!std::is_reference_v<R>, "return a value or a pointer");

 public:
  BlockingAwaiter(WorkerPool* pool, F&& function) : BlockingLeaf(pool), function_(std::forward<F>(function)) {}
  ~BlockingAwaiter() { Stop(); }

  R await_resume() {
    Finish();
    if (!refused().ok()) {
      if constexpr (kHoldsStatus<R>) {
        return refused();
      } else {
        throw StatusError(refused());
      }
    }
    if constexpr (!std::is_void_v<R>) return std::move(*value_);
  }

 private:
  void Call() override {
    if constexpr (std::is_void_v<R>) {
      function_();
      value_.emplace();
    } else {
      value_.emplace(function_());
    }
  }

  F function_;
  std::optional<Stored<R>> value_;
};

}  // namespace internal

template <class F>
[[nodiscard]] auto Blocking(F&& function) {
  static_assert(internal::kFitsAwait<F>, "capture by reference, or name the callable first");
  return internal::BlockingAwaiter<F>(nullptr, std::forward<F>(function));
}
// On a pool of one's own, which outlives the co_await: a database's single thread, for instance.
template <class F>
[[nodiscard]] auto Blocking(WorkerPool& pool, F&& function) {
  static_assert(internal::kFitsAwait<F>, "capture by reference, or name the callable first");
  return internal::BlockingAwaiter<F>(&pool, std::forward<F>(function));
}

namespace internal {

template <class F>
class ExecutorState final : public FutureState<std::invoke_result_t<F&>>, public ExecutorWork {
  using R = std::invoke_result_t<F&>;

 public:
  template <class G>
  ExecutorState(EventLoop& loop, WorkerPool& pool, G&& function, std::source_location where)
      : FutureState<R>(loop, where), pool_(pool), function_(std::forward<G>(function)) {
    try {
      pool_.Submit(job_);
    } catch (const StatusError& error) {
      function_.reset();
      this->SetStatus(error.status());
      return;
    }
    this->Retain();  // the work's, until it has come back
    loop.Local<ExecutorWorks>().Add(*this);
  }
  ~ExecutorState() override { this->ReportUnretrieved(); }

  // Before the function starts, it never does; later its result is dropped (C-EXE-02).
  bool Cancel() override {
    if (!FutureCore::Cancel()) return false;
    if (pool_.Cancel(job_)) Leave();
    return true;
  }
  void OnLoopClose() override {
    if (pool_.Cancel(job_)) {
      function_.reset();
      this->Release();
    }
  }

 private:
  class Job final : public Work {
   public:
    explicit Job(ExecutorState& state) : state_(state) {}
    void Run() override { state_.RunOnWorker(); }

   private:
    ExecutorState& state_;
  };
  class Arrival final : public Runnable {
   public:
    explicit Arrival(ExecutorState& state) : state_(state) {}
    void Run() override { state_.OnArrival(); }
    void Drop() noexcept override { state_.Leave(); }
    std::string Describe() const override { return state_.Describe() + "'s return"; }

   private:
    ExecutorState& state_;
  };

  void RunOnWorker() {
    {
      ContextScope scope(context_);
      try {
        if constexpr (std::is_void_v<R>) {
          (*function_)();
          result_.emplace();
        } else {
          result_.emplace((*function_)());
        }
      } catch (...) {  // becomes the future's error
        error_of_function_ = std::current_exception();
      }
    }
    // The last touch: the loop's thread may destroy this from here on.
    this->loop_.ScheduleFromThread(arrival_);
  }
  void OnArrival() {
    if (this->done()) {
      ReportAbandoned();
    } else if (error_of_function_) {
      this->SetError(std::exchange(error_of_function_, nullptr));
    } else {
      this->SetValue(std::move(*result_));
    }
    Leave();
  }
  // Cancelled while it ran: nobody else will hear of what it threw.
  void ReportAbandoned() {
    if (!error_of_function_) return;
    ExceptionContext context;
    context.message = "Exception in a function of RunInExecutor that was abandoned";
    context.exception = std::exchange(error_of_function_, nullptr);
    context.Add("future", this->Describe(), this);
    this->loop_.CallExceptionHandler(context);
  }
  void Leave() {
    function_.reset();
    result_.reset();
    if (auto* works = this->loop_.template LocalOrNull<ExecutorWorks>()) {
      works->Remove(*this);
    } else {
      this->Unlink();
    }
    this->Release();
  }

  WorkerPool& pool_;
  std::optional<F> function_;
  Context context_ = Context::Current();
  Job job_{*this};
  Arrival arrival_{*this};
  std::optional<Stored<R>> result_;
  std::exception_ptr error_of_function_;
};

}  // namespace internal

// On one of the loop's own pools: loop.executor(), or loop.resolver(). Another one would have to end before the loop.
template <class F>
auto RunInExecutor(EventLoop& loop, WorkerPool& pool, F&& function,
                   std::source_location where = std::source_location::current()) {
  static_assert(internal::kFitsAwait<F>,
                "name the function first and pass it by name, or wrap it in an absl::AnyInvocable: g++ 12 destroys a "
                "temporary that owns something twice where it is awaited");
  using State = internal::ExecutorState<std::decay_t<F>>;
  return Future<std::invoke_result_t<std::decay_t<F>&>>(
      internal::Ref(new State(loop, pool, std::forward<F>(function), where)));
}
template <class F>
auto RunInExecutor(EventLoop& loop, F&& function, std::source_location where = std::source_location::current()) {
  return RunInExecutor(loop, loop.executor(), std::forward<F>(function), where);
}
template <class F>
  requires std::invocable<std::decay_t<F>&>
auto RunInExecutor(F&& function, std::source_location where = std::source_location::current()) {
  return RunInExecutor(EventLoop::Current(), std::forward<F>(function), where);
}

}  // namespace troupe

#endif  // TROUPE_ASYNC_BLOCKING_H_
