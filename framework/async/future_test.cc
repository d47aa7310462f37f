// Future and Promise: C-FUT, C-CMB-25.
#include "troupe/async/future.h"

#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "troupe/async/ensure_future.h"
#include "troupe/async/sleep.h"
#include "troupe/async/task.h"
#include "troupe/loop/loop_testing.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using FutureTest = LoopTest;
INSTANTIATE_POLLING(FutureTest);

template <class F>
std::string Misuse(F&& f) {
  try {
    f();
  } catch (const InvalidState& error) {
    return error.what();
  }
  return "nothing was thrown";
}

// C-FUT-01, C-FUT-02, C-FUT-19
TEST_P(FutureTest, ANewOneIsPending) {
  Promise<int> promise(loop_);
  Future<int> future = promise.future();
  EXPECT_FALSE(future.done());
  EXPECT_FALSE(future.cancelled());
  EXPECT_EQ(&future.loop(), &loop_);
  EXPECT_EQ(Misuse([&] { future.result(); }), "Result is not ready.");
  EXPECT_EQ(Misuse([&] { future.exception(); }), "Exception is not set.");
  EXPECT_THAT(future.ToString(), HasSubstr("<Future pending created at framework/async/future_test.cc:"));
}

// C-FUT-19
TEST_P(FutureTest, OneOfNothingFailsCleanly) {
  const Future<int> nothing;
  EXPECT_FALSE(nothing.valid());
  EXPECT_THROW(nothing.done(), InvalidState);
  EXPECT_THROW(nothing.result(), InvalidState);
  EXPECT_THROW(nothing.Cancel(), InvalidState);
  EXPECT_THROW(nothing.loop(), InvalidState);
  EXPECT_EQ(nothing.ToString(), "<Future of nothing>");
}

// C-FUT-02
TEST_P(FutureTest, DoneWithAValueAnErrorOrCancelled) {
  Promise<int> value(loop_), error(loop_), cancelled(loop_);
  value.SetValue(3);
  EXPECT_EQ(value.future().result(), 3);
  EXPECT_EQ(value.future().exception(), nullptr);
  error.SetError(std::make_exception_ptr(std::runtime_error("x")));
  EXPECT_THROW(error.future().result(), std::runtime_error);
  EXPECT_NE(error.future().exception(), nullptr);
  EXPECT_TRUE(cancelled.future().Cancel());
  EXPECT_THROW(cancelled.future().result(), Cancelled);
  EXPECT_THROW(cancelled.future().exception(), Cancelled);
}

// C-FUT-03
TEST_P(FutureTest, OneThatIsDoneCannotBeCompletedAgain) {
  Promise<int> promise(loop_);
  promise.SetValue(3);
  EXPECT_THAT(Misuse([&] { promise.SetValue(4); }), HasSubstr("invalid state: <Future finished"));
  EXPECT_THROW(promise.SetError(absl::InternalError("x")), InvalidState);
  EXPECT_EQ(promise.future().result(), 3);
  Promise<int> cancelled(loop_);
  cancelled.future().Cancel();
  EXPECT_THAT(Misuse([&] { cancelled.SetValue(4); }), HasSubstr("invalid state: <Future cancelled"));
  EXPECT_TRUE(cancelled.cancelled());
}

template <class P, class E>
concept TakesErrorOfType = requires(P promise) { promise.template SetError<E>(); };
// C-FUT-04
static_assert(TakesErrorOfType<Promise<int>, std::bad_alloc> && TakesErrorOfType<Promise<int>, Cancelled>);
// C-FUT-04: the signal that ends an iteration is no error.
static_assert(!TakesErrorOfType<Promise<int>, GeneratorExit>);

// C-FUT-04
TEST_P(FutureTest, AnErrorIsAStatusOrAnExceptionGivenOrMadeByItsType) {
  Promise<int> status(loop_), exception(loop_), type(loop_), none(loop_);
  status.SetError(absl::NotFoundError("n"));
  exception.SetError(std::make_exception_ptr(std::runtime_error("r")));
  type.SetError<std::out_of_range>("row 7");
  EXPECT_EQ(DescribeException(status.future().exception()), "troupe::StatusError: NOT_FOUND: n");
  EXPECT_EQ(DescribeException(exception.future().exception()), "std::runtime_error: r");
  EXPECT_EQ(DescribeException(type.future().exception()), "std::out_of_range: row 7");
  EXPECT_EQ(Misuse([&] { none.SetError(absl::OkStatus()); }), "SetError was given an OK status");
  EXPECT_EQ(Misuse([&] { none.SetError(std::exception_ptr()); }), "SetError was given no exception");
  EXPECT_THAT(Misuse([&] { none.SetError(std::make_exception_ptr(GeneratorExit())); }),
              HasSubstr("GeneratorExit interacts badly with generators"));
  EXPECT_FALSE(none.done());
}

// C-FUT-05
TEST_P(FutureTest, CancelOfADoneOneIsRefusedAndChangesNothing) {
  Promise<int> promise(loop_);
  promise.SetValue(3);
  EXPECT_FALSE(promise.future().Cancel());
  EXPECT_EQ(promise.future().result(), 3);
  Promise<int> other(loop_);
  EXPECT_TRUE(other.future().Cancel());
  EXPECT_FALSE(other.future().Cancel());
}

// C-FUT-06
TEST_P(FutureTest, CallbacksAreQueuedInOrderWithTheFutureAsArgument) {
  for (int how = 0; how < 3; ++how) {
    log_.clear();
    Promise<int> promise(loop_);
    Future<int> future = promise.future();
    for (const char* name : {"a", "b"}) {
      future.AddDoneCallback([&, name](const Future<int>& done) {
        EXPECT_EQ(done.core().get(), future.core().get());
        log_.push_back(name);
      });
    }
    if (how == 0) promise.SetValue(1);
    if (how == 1) promise.SetError(absl::InternalError("x"));
    if (how == 2) future.Cancel();
    EXPECT_THAT(log_, IsEmpty());
    loop_.CallSoon([this] { log_.push_back("soon"); });
    RunReady();
    EXPECT_THAT(log_, ElementsAre("a", "b", "soon"));
    if (how == 1) {
      EXPECT_NE(future.exception(), nullptr);
    }
  }
}

// C-FUT-06: tasks that wait and callbacks stand in one queue.
TEST_P(FutureTest, WaitersAndCallbacksAreServedInOrderOfRegistration) {
  Promise<int> promise(loop_);
  auto waits = [](Future<int> future, std::vector<std::string>& log) -> Task<void> {
    co_await future;
    log.push_back("task");
  };
  promise.future().AddDoneCallback([this](const Future<int>&) { log_.push_back("a"); });
  loop_.CreateTask(waits(promise.future(), log_));
  RunReady();
  promise.future().AddDoneCallback([this](const Future<int>&) { log_.push_back("b"); });
  promise.SetValue(1);
  RunReady();
  EXPECT_THAT(log_, ElementsAre("a", "task", "b"));
}

// C-FUT-07
TEST_P(FutureTest, ACallbackAddedToADoneOneIsQueuedAtOnceStillNotInline) {
  Promise<int> promise(loop_);
  promise.SetValue(1);
  promise.future().AddDoneCallback([this](const Future<int>&) { log_.push_back("called"); });
  EXPECT_THAT(log_, IsEmpty());
  RunReady();
  EXPECT_THAT(log_, ElementsAre("called"));
}

// C-FUT-08, for the token that registration returns
TEST_P(FutureTest, ARemovedCallbackIsNotCalledEvenWhenItIsQueued) {
  Promise<int> promise(loop_);
  const auto owned = std::make_shared<int>(0);
  const auto make = [&] { return [this, owned](const Future<int>&) { log_.push_back("called"); }; };
  const DoneCallbackToken waiting = promise.future().AddDoneCallback(make());
  const DoneCallbackToken queued = promise.future().AddDoneCallback(make());
  const DoneCallbackToken called = promise.future().AddDoneCallback(make());
  EXPECT_TRUE(promise.future().RemoveDoneCallback(waiting));
  promise.SetValue(1);
  EXPECT_TRUE(promise.future().RemoveDoneCallback(queued));
  EXPECT_FALSE(promise.future().RemoveDoneCallback(queued));
  RunReady();
  EXPECT_THAT(log_, ElementsAre("called"));
  EXPECT_FALSE(promise.future().RemoveDoneCallback(called));
  EXPECT_FALSE(promise.future().RemoveDoneCallback(DoneCallbackToken()));
  EXPECT_EQ(owned.use_count(), 1);
}

// C-FUT-10
TEST_P(FutureTest, CallbacksMayChangeTheListAndDestroyTheFuture) {
  auto promise = std::make_unique<Promise<int>>(loop_);
  Future<int> future = promise->future();
  DoneCallbackToken second;
  // Destroyed with the first callback: removes the second.
  struct Removes {
    Future<int> future;
    DoneCallbackToken* token;
    explicit Removes(Future<int> f, DoneCallbackToken* t) : future(std::move(f)), token(t) {}
    ~Removes() { future.RemoveDoneCallback(*token); }
  };
  auto removes = std::make_shared<Removes>(future, &second);
  future.AddDoneCallback([this, removes = std::move(removes)](const Future<int>& done) {
    log_.push_back("first");
    done.AddDoneCallback([this](const Future<int>&) { log_.push_back("added"); });
  });
  second = future.AddDoneCallback([this](const Future<int>&) { log_.push_back("second"); });
  promise->SetValue(1);
  promise = nullptr;
  future = Future<int>();
  RunReady();
  EXPECT_THAT(log_, ElementsAre("first", "added"));
}

TEST_P(FutureTest, AThrowingCallbackIsReported) {
  Promise<int> promise(loop_);
  promise.future().AddDoneCallback([](const Future<int>&) { throw std::runtime_error("x"); });
  promise.future().AddDoneCallback([this](const Future<int>&) { log_.push_back("next"); });
  promise.SetValue(1);
  RunReady();
  EXPECT_THAT(log_, ElementsAre("next"));
  EXPECT_THAT(TakeReports(), ElementsAre(HasSubstr("Exception in callback ")));
}

TEST_P(FutureTest, CallbacksRunInTheContextOfTheirRegistration) {
  static const ContextVar<int> kVariable(0);
  Promise<int> promise(loop_);
  Context().Run([&] {
    kVariable.Set(4);
    promise.future().AddDoneCallback([&](const Future<int>&) { log_.push_back(std::to_string(kVariable.Get())); });
  });
  promise.SetValue(1);
  RunReady();
  EXPECT_THAT(log_, ElementsAre("4"));
}

// C-FUT-11, C-DBG-06, P-3
TEST_P(FutureTest, AnErrorNobodyTookIsReportedWhenTheFutureGoes) {
  {
    Promise<int>(loop_).SetError(std::make_exception_ptr(std::runtime_error("x")));
  }
  ASSERT_EQ(reports_.size(), 1u);
  EXPECT_EQ(DescribeException(reports_[0].exception), "std::runtime_error: x");
  EXPECT_THAT(reports_[0].Get("future"),
              HasSubstr("<Future finished with an error created at framework/async/future_test.cc:"));
  EXPECT_THAT(TakeReports(), ElementsAre("Future exception was never retrieved"));
}

// C-FUT-11
TEST_P(FutureTest, AskingOrAwaitingCountsAsTakingTheError) {
  for (int how = 0; how < 3; ++how) {
    Promise<int> promise(loop_);
    promise.SetError(absl::InternalError("x"));
    if (how == 0) {
      EXPECT_NE(promise.future().exception(), nullptr);
    }
    if (how == 1) {
      EXPECT_THROW(promise.future().result(), StatusError);
    }
    if (how == 2) {
      EXPECT_THROW(loop_.RunUntilComplete(promise.future()), StatusError);
    }
  }
  EXPECT_THAT(TakeReports(), IsEmpty());
}

// C-FUT-13
TEST_P(FutureTest, AValueNobodyTookAndAnAbandonedOneAreNotReported) {
  {
    Promise<int>(loop_).SetValue(1);
  }
  {
    Promise<int> abandoned(loop_);
  }
  {
    Promise<int>(loop_).future().Cancel();
  }
  {
    Promise<absl::Status>(loop_).SetValue(absl::InternalError("x"));
  }
  EXPECT_THAT(TakeReports(), IsEmpty());
}

// C-FUT-13
TEST_P(FutureTest, AbandonedWithCallbacksItDropsThem) {
  const auto owned = std::make_shared<int>(0);
  {
    Promise<int> abandoned(loop_);
    abandoned.future().AddDoneCallback([owned](const Future<int>&) { FAIL(); });
    EXPECT_EQ(owned.use_count(), 2);
  }
  EXPECT_EQ(owned.use_count(), 1);
}

// C-FUT-15
TEST_P(FutureTest, AWaitingTaskResumesInALaterIterationThanTheCompletion) {
  Iterations iterations(loop_);
  Promise<int> promise(loop_);
  int resumed = 0, completed = 0;
  auto handle = loop_.CreateTask([](Future<int> future, Iterations& iterations, int& resumed) -> Task<void> {
    co_await future;
    resumed = iterations.count();
  }(promise.future(), iterations, resumed));
  loop_.CallLater(absl::Nanoseconds(0), [&] {
    loop_.CallSoon([&] {
      completed = iterations.count();
      promise.SetValue(1);
    });
  });
  loop_.RunUntilComplete(Future<void>(handle));
  EXPECT_EQ(resumed, completed + 1);
}

// C-FUT-15: a done one does not suspend.
TEST_P(FutureTest, AwaitingADoneOneGoesOnAtOnce) {
  Promise<int> promise(loop_);
  promise.SetValue(5);
  loop_.RunUntilComplete([](Iterations& iterations, Future<int> future) -> Task<void> {
    const int start = iterations.count();
    const int value = co_await future;
    EXPECT_EQ(value, 5);
    EXPECT_EQ(iterations.count(), start);
  }(*std::make_unique<Iterations>(loop_), promise.future()));
}

TEST_P(FutureTest, AnLvalueIsSharedAnRvalueMovesOutOnce) {
  Promise<std::unique_ptr<int>> promise(loop_);
  promise.SetValue(std::make_unique<int>(5));
  loop_.RunUntilComplete([](Future<std::unique_ptr<int>> future) -> Task<void> {
    const std::unique_ptr<int>& shared = co_await future;
    EXPECT_EQ(*shared, 5);
    Future<std::unique_ptr<int>> same = future;
    const std::unique_ptr<int> taken = co_await std::move(same);
    EXPECT_EQ(*taken, 5);
    bool refused = false;
    try {
      co_await future;
    } catch (const InvalidState&) {
      refused = true;
    }
    EXPECT_TRUE(refused);
  }(promise.future()));
}

// C-FUT-17
TEST_P(FutureTest, SetValueUnlessCancelledIsSilentOnACancelledOneOnly) {
  Promise<int> cancelled(loop_), done(loop_), pending(loop_);
  cancelled.future().Cancel();
  cancelled.SetValueUnlessCancelled(1);
  EXPECT_TRUE(cancelled.cancelled());
  done.SetValue(1);
  EXPECT_THROW(done.SetValueUnlessCancelled(2), InvalidState);
  pending.SetValueUnlessCancelled(3);
  EXPECT_EQ(pending.future().result(), 3);
}

// C-FUT-20
TEST_P(FutureTest, OneMadeFromAnotherEndsAsThatOneDid) {
  Promise<std::string> value(loop_), error(loop_), cancelled(loop_), pending(loop_);
  value.SetValue("v");
  error.SetError<std::runtime_error>("x");
  cancelled.future().Cancel();
  Promise<std::string> a(loop_), b(loop_), c(loop_), d(loop_);
  a.SetFrom(value.future());
  EXPECT_EQ(a.future().result(), "v");
  EXPECT_EQ(value.future().result(), "v");
  b.SetFrom(error.future());
  EXPECT_EQ(DescribeException(b.future().exception()), "std::runtime_error: x");
  c.SetFrom(cancelled.future());
  EXPECT_TRUE(c.cancelled());
  EXPECT_EQ(Misuse([&] { d.SetFrom(pending.future()); }), "Result is not ready.");
  d.future().Cancel();
  d.SetFrom(value.future());  // silent, as SetValueUnlessCancelled
  EXPECT_TRUE(d.cancelled());
  EXPECT_THAT(Misuse([&] { a.SetFrom(value.future()); }), HasSubstr("is done already"));
  EXPECT_THAT(Misuse([&] { a.SetFrom(error.future()); }), HasSubstr("is done already"));
  EXPECT_THAT(Misuse([&] { a.SetFrom(cancelled.future()); }), HasSubstr("is done already"));
  Promise<void> nothing(loop_), copy(loop_);
  nothing.SetValue();
  copy.SetFrom(nothing.future());
  EXPECT_TRUE(copy.done());
  Promise<absl::Status> refused(loop_), refused_too(loop_);
  refused.SetError(absl::DataLossError("d"));
  refused_too.SetFrom(refused.future());
  EXPECT_EQ(refused_too.future().result(), absl::DataLossError("d"));
  EXPECT_THAT(TakeReports(), IsEmpty());
}

template <class F>
concept TakesDoneCallback = requires(Future<int> future, F f) { future.AddDoneCallback(f); };
// C-DBG-02: nobody would run the task.
static_assert(TakesDoneCallback<void (*)(const Future<int>&)> &&
              !TakesDoneCallback<Task<int> (*)(const Future<int>&)> && !TakesDoneCallback<void (*)()>);

TEST_P(FutureTest, SeveralTasksMayWaitForOne) {
  Promise<int> promise(loop_);
  auto waits = [](Future<int> future, std::vector<std::string>& log, std::string name) -> Task<void> {
    const int value = co_await future;
    log.push_back(name + std::to_string(value));
  };
  for (const char* name : {"a", "b", "c"}) loop_.CreateTask(waits(promise.future(), log_, name));
  RunReady();
  promise.SetValue(1);
  RunReady();
  EXPECT_THAT(log_, ElementsAre("a1", "b1", "c1"));
}

TEST_P(FutureTest, AnErrorIsThrownAtEveryAwait) {
  Promise<void> promise(loop_);
  promise.SetError(std::make_exception_ptr(std::runtime_error("x")));
  loop_.RunUntilComplete([](Future<void> future) -> Task<void> {
    for (int i = 0; i < 3; ++i) {
      bool thrown = false;
      try {
        co_await future;
      } catch (const std::runtime_error&) {
        thrown = true;
      }
      EXPECT_TRUE(thrown);
    }
  }(promise.future()));
}

// C-CMB-25
TEST_P(FutureTest, EnsureFutureGivesAFutureAsItIsAndStartsATask) {
  Promise<int> promise(loop_);
  EXPECT_EQ(EnsureFuture(promise.future()).core().get(), promise.future().core().get());
  EXPECT_EQ(EnsureFuture(promise.future(), loop_).core().get(), promise.future().core().get());
  EventLoop other(os_);
  EXPECT_THROW(EnsureFuture(promise.future(), other), InvalidState);
  other.Close();
  loop_.RunUntilComplete([]() -> Task<void> {
    auto body = []() -> Task<int> { co_return 4; };
    const Future<int> started = EnsureFuture(body());
    const int value = co_await started;
    EXPECT_EQ(value, 4);
  }());
}

// C-LOOP-27 for callbacks; nothing stays behind.
TEST_P(FutureTest, CompletedAfterItsLoopWasClosed) {
  const auto owned = std::make_shared<int>(0);
  Promise<int> plain(loop_), watched(loop_);
  watched.future().AddDoneCallback([owned](const Future<int>&) { FAIL(); });
  loop_.Close();
  plain.SetValue(1);
  EXPECT_EQ(plain.future().result(), 1);
  EXPECT_EQ(Misuse([&] { watched.SetValue(1); }), "Event loop is closed");
  EXPECT_EQ(owned.use_count(), 1);
}

}  // namespace
}  // namespace troupe
