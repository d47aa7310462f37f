// WaitFor: C-CMB-13, C-CMB-16, C-CMB-17.
#include "troupe/async/wait_for.h"

#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "troupe/async/gather.h"
#include "troupe/async/shield.h"
#include "troupe/loop/loop_testing.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

using WaitForTest = LoopTest;
INSTANTIATE_POLLING(WaitForTest);

static_assert(std::is_same_v<internal::NotNested<int>, absl::StatusOr<int>>);
static_assert(std::is_same_v<internal::NotNested<absl::StatusOr<int>>, absl::StatusOr<int>>);
static_assert(std::is_same_v<internal::NotNested<absl::Status>, absl::Status>);
static_assert(std::is_same_v<internal::NotNested<void>, absl::Status>);

Task<int> After(absl::Duration delay, int value) {
  co_await Sleep(delay);
  co_return value;
}
Task<absl::StatusOr<int>> Refuses() { co_return absl::NotFoundError("no"); }
Task<void> Throws() {
  co_await Sleep(absl::Seconds(1));
  throw std::runtime_error("x");
}
Task<int> Stubborn(std::vector<std::string>& log) {
  try {
    co_await Sleep(absl::Hours(1));
  } catch (const Cancelled&) {
    log.push_back("cancelled");
  }
  co_await Sleep(absl::Seconds(2));
  log.push_back("ended");
  co_return 9;
}

// C-CMB-17
TEST_P(WaitForTest, NoTimerIsLeftWhicheverWayItEnds) {
  const auto ended = [this](const TaskHandle<absl::StatusOr<int>>& handle) {
    RunReady();
    EXPECT_TRUE(handle.done());
    EXPECT_EQ(loop_.NextWakeup(), MonotonicTime::InfiniteFuture());
  };
  const auto start = [this](Task<int> task) {
    auto waits = [](Task<int> task) -> Task<absl::StatusOr<int>> {
      Task<absl::StatusOr<int>> wait = WaitFor(std::move(task), absl::Hours(1));
      co_return co_await std::move(wait);
    };
    auto handle = loop_.CreateTask(waits(std::move(task)));
    RunReady();
    EXPECT_LE(loop_.NextWakeup(), loop_.Time() + absl::Hours(1));
    return handle;
  };
  const auto run_until_done = [this](const TaskHandle<absl::StatusOr<int>>& handle) {
    handle.AddDoneCallback([this](const Future<absl::StatusOr<int>>&) { loop_.Stop(); });
    loop_.RunForever();
  };
  auto value = start(After(absl::Seconds(1), 1));
  run_until_done(value);
  EXPECT_TRUE(value.result().ok());
  ended(value);
  auto error = start([]() -> Task<int> {
    co_await Sleep(absl::Seconds(1));
    throw std::runtime_error("x");
  }());
  run_until_done(error);
  EXPECT_NE(error.exception(), nullptr);
  ended(error);
  auto late = start(After(absl::Hours(2), 1));
  run_until_done(late);
  EXPECT_TRUE(absl::IsDeadlineExceeded(late.result().status()));
  ended(late);
  auto cancelled = start(After(absl::Hours(2), 1));
  cancelled.Cancel();
  RunReady();
  EXPECT_TRUE(cancelled.cancelled());
  ended(cancelled);
  auto destroyed = start(After(absl::Hours(2), 1));
  destroyed.task_state().DestroyNow();
  ended(destroyed);
}

TEST_P(WaitForTest, GivesTheResultAndLeavesNoTimer) {
  loop_.RunUntilComplete([](EventLoop& loop) -> Task<void> {
    const absl::StatusOr<int> value = co_await WaitFor(After(absl::Seconds(1), 5), absl::Seconds(2));
    EXPECT_EQ(*value, 5);
    const absl::StatusOr<int> refused = co_await WaitFor(Refuses(), absl::Seconds(2));
    EXPECT_EQ(refused.status(), absl::NotFoundError("no"));
    const absl::Status nothing = co_await WaitFor(Sleep(absl::Seconds(1)), absl::Seconds(2));
    EXPECT_EQ(nothing, absl::OkStatus());
    EXPECT_EQ(loop.Time() - MonotonicTime(), absl::Seconds(2));
  }(loop_));
  EXPECT_EQ(loop_.NextWakeup(), MonotonicTime::InfiniteFuture());  // C-CMB-17
}

TEST_P(WaitForTest, ThrowsWhatTheTaskThrewAndGivesTheStatusOfAStatusError) {
  loop_.RunUntilComplete([]() -> Task<void> {
    bool thrown = false;
    try {
      (void)co_await WaitFor(Throws(), absl::Seconds(2));
    } catch (const std::runtime_error&) {
      thrown = true;
    }
    EXPECT_TRUE(thrown);
    auto carries = []() -> Task<int> {
      throw StatusError(absl::DataLossError("d"));
      co_return 1;
    };
    const absl::StatusOr<int> carried = co_await WaitFor(carries(), absl::Seconds(2));
    EXPECT_EQ(carried.status(), absl::DataLossError("d"));
  }());
}

TEST_P(WaitForTest, WhenTheTimeIsUpTheTaskIsCancelledAndAwaited) {
  loop_.RunUntilComplete([](EventLoop& loop, std::vector<std::string>& log) -> Task<void> {
    const absl::StatusOr<int> late = co_await WaitFor(After(absl::Hours(1), 1), absl::Seconds(1));
    EXPECT_EQ(late.status(), absl::DeadlineExceededError("not done within 1s"));
    EXPECT_EQ(loop.Time() - MonotonicTime(), absl::Seconds(1));
    // One that resists is waited for, and its result is the result.
    const absl::StatusOr<int> stubborn = co_await WaitFor(Stubborn(log), absl::Seconds(1));
    EXPECT_EQ(*stubborn, 9);
    EXPECT_EQ(loop.Time() - MonotonicTime(), absl::Seconds(4));
    // A call that answers CANCELLED because it was cancelled has run out of time.
    auto answers = []() -> Task<absl::Status> {
      try {
        co_await Sleep(absl::Hours(1));
      } catch (const Cancelled&) {
        // answered below
      }
      co_return absl::CancelledError("told to");
    };
    const absl::Status answer = co_await WaitFor(answers(), absl::Seconds(1));
    EXPECT_TRUE(absl::IsDeadlineExceeded(answer)) << answer;
  }(loop_, log_));
  EXPECT_THAT(log_, ElementsAre("cancelled", "ended"));
}

// C-CMB-13
TEST_P(WaitForTest, WithoutTimeTheBodyDoesNotStartAndADoneFutureGivesItsResult) {
  loop_.SetDebug(true);  // and nobody is told that the body was never awaited
  Promise<int> done(loop_), pending(loop_);
  done.SetValue(3);
  loop_.RunUntilComplete([](std::vector<std::string>& log, Future<int> done, Future<int> pending) -> Task<void> {
    auto body = [](std::vector<std::string>& log) -> Task<int> {
      log.push_back("started");
      co_return 1;
    };
    for (const absl::Duration none : {absl::ZeroDuration(), -absl::Seconds(1), -absl::InfiniteDuration()}) {
      const absl::StatusOr<int> result = co_await WaitFor(body(log), none);
      EXPECT_TRUE(absl::IsDeadlineExceeded(result.status()));
      const absl::StatusOr<int> of_done = co_await WaitFor(done, none);
      EXPECT_EQ(*of_done, 3);
    }
    const absl::StatusOr<int> of_pending = co_await WaitFor(pending, absl::ZeroDuration());
    EXPECT_TRUE(absl::IsDeadlineExceeded(of_pending.status()));
    EXPECT_TRUE(pending.cancelled());
  }(log_, done.future(), pending.future()));
  EXPECT_THAT(log_, IsEmpty());
}

// C-CMB-13
TEST_P(WaitForTest, WithoutALimitItJustWaits) {
  loop_.RunUntilComplete([]() -> Task<void> {
    const absl::StatusOr<int> value = co_await WaitFor(After(absl::Hours(24), 5), absl::InfiniteDuration());
    EXPECT_EQ(*value, 5);
  }());
}

// C-CMB-16
TEST_P(WaitForTest, CancellingItCancelsTheInnerAndWaitsForIt) {
  auto waits = loop_.CreateTask([](std::vector<std::string>& log) -> Task<void> {
    try {
      (void)co_await WaitFor(Stubborn(log), absl::Hours(1));
    } catch (const Cancelled&) {
      log.push_back("outer cancelled");
      throw;
    }
  }(log_));
  loop_.CallLater(absl::Seconds(1), [&] { waits.Cancel(); });
  EXPECT_THROW(loop_.RunUntilComplete(Future<void>(waits)), Cancelled);
  EXPECT_THAT(log_, ElementsAre("cancelled", "ended", "outer cancelled"));
  EXPECT_EQ(loop_.Time() - MonotonicTime(), absl::Seconds(3));
}

TEST_P(WaitForTest, ACancellationWhileTheTimedOutTaskWindsDownIsNotLost) {
  auto waits = loop_.CreateTask([](std::vector<std::string>& log) -> Task<void> {
    (void)co_await WaitFor(Stubborn(log), absl::Seconds(1));
    log.push_back("not reached");
  }(log_));
  loop_.CallLater(absl::Seconds(2), [&] { waits.Cancel(); });
  EXPECT_THROW(loop_.RunUntilComplete(Future<void>(waits)), Cancelled);
  // The second cancellation reaches the inner one too.
  EXPECT_THAT(log_, ElementsAre("cancelled"));
}

TEST_P(WaitForTest, ACancellationThatComesWithTheResultWins) {
  Promise<int> promise(loop_);
  auto waits = loop_.CreateTask([](Future<int> future, std::vector<std::string>& log) -> Task<void> {
    (void)co_await WaitFor(std::move(future), absl::Hours(1));
    log.push_back("not reached");
  }(promise.future(), log_));
  loop_.CallLater(absl::Seconds(1), [&] {
    promise.SetValue(1);
    EXPECT_TRUE(waits.Cancel());
  });
  EXPECT_THROW(loop_.RunUntilComplete(Future<void>(waits)), Cancelled);
  EXPECT_THAT(log_, IsEmpty());
}

TEST_P(WaitForTest, CancellingTheInnerByItsHandleThrowsCancelled) {
  loop_.RunUntilComplete([](EventLoop& loop) -> Task<void> {
    const TaskHandle<int> inner = loop.CreateTask(After(absl::Hours(1), 1));
    loop.CallLater(absl::Seconds(1), [&] { inner.Cancel(); });
    bool cancelled = false;
    try {
      (void)co_await WaitFor(inner, absl::Hours(2));
    } catch (const Cancelled&) {
      cancelled = true;
    }
    EXPECT_TRUE(cancelled);
  }(loop_));
}

TEST_P(WaitForTest, AFutureIsCancelledByItUnlessShielded) {
  Promise<int> plain(loop_), shielded(loop_);
  loop_.RunUntilComplete([](Future<int> plain, Future<int> shielded) -> Task<void> {
    const absl::StatusOr<int> one = co_await WaitFor(plain, absl::Seconds(1));
    EXPECT_TRUE(absl::IsDeadlineExceeded(one.status()));
    EXPECT_TRUE(plain.cancelled());
    const absl::StatusOr<int> two = co_await WaitFor(Shield(shielded), absl::Seconds(1));
    EXPECT_TRUE(absl::IsDeadlineExceeded(two.status()));
    EXPECT_FALSE(shielded.done());
  }(plain.future(), shielded.future()));
}

// A Gather that was cancelled has failed with Cancelled: still what the time brought about.
TEST_P(WaitForTest, AGatherThatIsNotDoneInTimeIsDeadlineExceeded) {
  loop_.RunUntilComplete([]() -> Task<void> {
    const absl::StatusOr<std::tuple<int, int>> late =
        co_await WaitFor(Gather(After(absl::Hours(1), 1), After(absl::Seconds(1), 2)), absl::Seconds(2));
    EXPECT_TRUE(absl::IsDeadlineExceeded(late.status())) << late.status();
    const absl::StatusOr<std::tuple<int>> in_time =
        co_await WaitFor(Gather(After(absl::Seconds(1), 1)), absl::Seconds(2));
    EXPECT_EQ(std::get<0>(*in_time), 1);
  }());
  EXPECT_TRUE(loop_.tasks().empty());
}

TEST_P(WaitForTest, TheTaskMayBorrowFromTheFrameThatWaits) {
  auto waits = loop_.CreateTask([](std::vector<std::string>& log) -> Task<void> {
    struct Local {
      std::vector<std::string>& log;
      ~Local() { log.push_back("caller destroyed"); }
    } local{log};
    auto inner = [](Local& borrowed) -> Task<void> {
      struct AtEnd {
        Local& borrowed;
        ~AtEnd() { borrowed.log.push_back("inner destroyed"); }
      } at_end{borrowed};
      co_await Sleep(absl::Hours(1));
    };
    (void)co_await WaitFor(inner(local), absl::Hours(1));
  }(log_));
  RunReady();
  waits.task_state().DestroyNow();
  EXPECT_THAT(log_, ElementsAre("inner destroyed", "caller destroyed"));
  EXPECT_TRUE(loop_.tasks().empty());
  EXPECT_EQ(loop_.NextWakeup(), MonotonicTime::InfiniteFuture());
}

TEST_P(WaitForTest, TheTaskSeesTheDeadline) {
  loop_.RunUntilComplete([](EventLoop& loop) -> Task<void> {
    auto deadline = []() -> Task<MonotonicTime> { co_return Context::Current().deadline(); };
    const absl::StatusOr<MonotonicTime> own = co_await WaitFor(deadline(), absl::Seconds(5));
    EXPECT_EQ(*own, loop.Time() + absl::Seconds(5));
    auto nested = [](auto deadline) -> Task<MonotonicTime> {
      const absl::StatusOr<MonotonicTime> inner = co_await WaitFor(deadline(), absl::Hours(1));
      co_return *inner;
    };
    const absl::StatusOr<MonotonicTime> outer = co_await WaitFor(nested(deadline), absl::Seconds(3));
    EXPECT_EQ(*outer, loop.Time() + absl::Seconds(3));
  }(loop_));
}

TEST_P(WaitForTest, MoveOnlyValuesMoveThrough) {
  loop_.RunUntilComplete([]() -> Task<void> {
    auto make = []() -> Task<std::unique_ptr<int>> { co_return std::make_unique<int>(4); };
    absl::StatusOr<std::unique_ptr<int>> value = co_await WaitFor(make(), absl::Seconds(1));
    EXPECT_EQ(**value, 4);
  }());
}

// As asyncio 3.11: the body's first step one iteration later, the waiter two after its end.
TEST_P(WaitForTest, TakesAsManyIterationsAsInAsyncio) {
  Iterations iterations(loop_);
  loop_.RunUntilComplete([](Iterations& iterations) -> Task<void> {
    auto body = []() -> Task<int> { co_return 1; };
    const int start = iterations.count();
    (void)co_await WaitFor(body(), absl::Seconds(1));
    EXPECT_EQ(iterations.count() - start, 3);
  }(iterations));
}

}  // namespace
}  // namespace troupe
