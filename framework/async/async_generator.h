// AsyncGenerator<T>: a coroutine that gives several values, one after another, and may wait between them.
//
//   AsyncGenerator<Line> Lines(Connection& connection) {
//     while (...) {
//       Line line = co_await connection.ReadLine();
//       co_yield std::move(line);
//     }
//   }
//   AsyncGenerator<Line> lines = Lines(connection);
//   while (std::optional<Line> line = co_await lines.Next()) { ... }
//
// Use it where the consumer pulls. Where the producer pushes, or there are several consumers, use Queue.
//
// Life:      made (nothing runs) -> Next* -> nothing more (it returned, or threw) ; or Close, or destroyed, at any time.
//            Destroyed while a Next or Close of another task is under way, its coroutine lives until that has ended.
// Errors:    what leaves the body is thrown by Next, once; after that Next gives nothing.
// Cancelled: cancelling the consumer in Next throws Cancelled inside the generator, which then is over.
// Close:     throws GeneratorExit at the co_yield and waits for the end, so that a Finally in the body can await. The
//            destructor only destroys the frame. troupe::Run closes generators that are alive at its end (C-RUN-04).
// g++ 12:    do not yield a temporary aggregate that owns something: name it first.
// Threading: the loop's. One Next at a time.     Lifetime: owns its coroutine.
#ifndef TROUPE_ASYNC_ASYNC_GENERATOR_H_
#define TROUPE_ASYNC_ASYNC_GENERATOR_H_

#include <coroutine>
#include <exception>
#include <optional>
#include <source_location>
#include <utility>

#include "troupe/async/internal/root.h"
#include "troupe/async/task.h"
#include "troupe/base/errors.h"
#include "troupe/base/intrusive_list.h"
#include "troupe/loop/event_loop.h"

namespace troupe {

template <class T>
class AsyncGenerator;

namespace internal {

class GeneratorAwaiter;

// What generators of any type have in common. In its loop's list from its first Next to its end.
class GeneratorPromiseBase : public PromiseBase, public ListNode<> {
 public:
  explicit GeneratorPromiseBase(std::source_location made) : PromiseBase(made) {}

  // Goes back to the consumer; resumes in the next Next or in Close.
  class YieldAwaiter {
   public:
    explicit YieldAwaiter(GeneratorPromiseBase& promise) : promise_(promise) {}
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<>) noexcept { promise_.Leave(); }
    void await_resume() {
      if (promise_.closing_) throw GeneratorExit();
    }

   private:
    GeneratorPromiseBase& promise_;
  };
  void return_void() { Finish(); }
  void unhandled_exception() noexcept {
    PromiseBase::unhandled_exception();
    Finish();
  }

  bool finished() const { return finished_; }
  // From the running chain: runs until it yields or ends, then goes back to `parent`.
  void Enter(PromiseBase& parent, GeneratorAwaiter& awaiter);
  Task<void> Close();
  // The generator goes: at once, or with the awaiter under which it runs.
  void Destroy();

 private:
  void Leave() noexcept;
  void Finish() noexcept {
    finished_ = true;
    running_ = false;
    Unlink();
  }

  bool started_ = false;
  bool running_ = false;                 // under a Next or Close
  bool closing_ = false;                 // by Close
  bool finished_ = false;                // returned or threw
  GeneratorAwaiter* awaiter_ = nullptr;  // while running_
};

template <class T>
class GeneratorPromise final : public GeneratorPromiseBase {
 public:
  // `made`: at the coroutine.
  explicit GeneratorPromise(std::source_location made = std::source_location::current()) : GeneratorPromiseBase(made) {
    self = std::coroutine_handle<GeneratorPromise>::from_promise(*this);
  }
  AsyncGenerator<T> get_return_object() { return AsyncGenerator<T>(this); }
  YieldAwaiter yield_value(T given) {
    value.emplace(std::move(given));
    return YieldAwaiter(*this);
  }
  std::optional<T> value;
};

class GeneratorAwaiter {
 public:
  explicit GeneratorAwaiter(GeneratorPromiseBase& generator) : generator_(generator) {}
  GeneratorAwaiter(const GeneratorAwaiter&) = delete;
  GeneratorAwaiter& operator=(const GeneratorAwaiter&) = delete;
  ~GeneratorAwaiter() {
    if (orphan_) orphan_.destroy();
  }
  bool await_ready() const noexcept { return generator_.finished(); }
  template <class Promise>
  void await_suspend(std::coroutine_handle<Promise> parent) {
    generator_.Enter(parent.promise(), *this);
  }
  void await_resume() {
    if (std::exception_ptr error = std::exchange(generator_.error, nullptr)) std::rethrow_exception(error);
  }

  // Its generator is gone: the coroutine is this one's.
  void Adopt() {
    orphan_ = generator_.self;
    generator_.owner = &orphan_;
  }

 protected:
  GeneratorPromiseBase& generator_;

 private:
  std::coroutine_handle<> orphan_;
};

template <class T>
class NextAwaiter final : public GeneratorAwaiter {
 public:
  using GeneratorAwaiter::GeneratorAwaiter;
  std::optional<T> await_resume() {
    GeneratorAwaiter::await_resume();
    return std::exchange(static_cast<GeneratorPromise<T>&>(generator_).value, std::nullopt);
  }
};

}  // namespace internal

template <class T>
class [[nodiscard]] AsyncGenerator {
 public:
  using value_type = T;
  using promise_type = internal::GeneratorPromise<T>;

  AsyncGenerator() = default;  // of nothing
  AsyncGenerator(AsyncGenerator&& other) noexcept { Take(other); }
  AsyncGenerator& operator=(AsyncGenerator&& other) noexcept {
    AsyncGenerator old = std::move(*this);
    Take(other);
    return *this;
  }
  ~AsyncGenerator() {
    if (frame_) promise().Destroy();
  }

  // The next value, or nothing when there is none any more. InvalidState: another Next or Close is under way.
  [[nodiscard]] auto Next() { return internal::NextAwaiter<T>(promise()); }

  // Ends it early. InvalidState: its body went on to yield; or a Next is under way.
  [[nodiscard]] Task<void> Close() { return promise().Close(); }

 private:
  friend promise_type;
  explicit AsyncGenerator(promise_type* promise) : frame_(promise->self) { promise->owner = &frame_; }

  promise_type& promise() const {
    if (!frame_) throw InvalidState("the generator is of nothing");
    return std::coroutine_handle<promise_type>::from_address(frame_.address()).promise();
  }
  // A chain that is destroyed from inside the generator clears `frame_`: the promise knows where it is.
  void Take(AsyncGenerator& other) {
    frame_ = std::exchange(other.frame_, nullptr);
    if (frame_) promise().owner = &frame_;
  }

  std::coroutine_handle<> frame_;
};

}  // namespace troupe

#endif  // TROUPE_ASYNC_ASYNC_GENERATOR_H_
