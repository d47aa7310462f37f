// Wait and AsCompleted: C-CMB-18, C-CMB-19, C-CMB-21.
#include "troupe/async/wait.h"

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "troupe/async/sleep.h"
#include "troupe/loop/loop_testing.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

using WaitTest = LoopTest;
INSTANTIATE_POLLING(WaitTest);

Task<int> After(absl::Duration delay, int value) {
  co_await Sleep(delay);
  co_return value;
}
Task<int> Throws(absl::Duration delay) {
  co_await Sleep(delay);
  throw std::runtime_error("x");
}

// Promises that are completed by the test, and their futures.
struct Promises {
  Promises(EventLoop& loop, int n) {
    for (int i = 0; i < n; ++i) {
      promises.emplace_back(loop);
      futures.push_back(promises.back().future());
    }
  }
  // Positions of `some` among the futures.
  std::vector<int> Indices(const std::vector<Future<int>>& some) const {
    std::vector<int> indices;
    for (const Future<int>& each : some) {
      for (size_t i = 0; i < futures.size(); ++i) {
        if (futures[i].core().get() == each.core().get()) indices.push_back(static_cast<int>(i));
      }
    }
    return indices;
  }
  std::vector<Promise<int>> promises;
  std::vector<Future<int>> futures;
};

TEST_P(WaitTest, WaitsForAllInTheOrderOfTheArguments) {
  Promises p(loop_, 3);
  for (int i = 0; i < 3; ++i) {
    loop_.CallLater(absl::Seconds(3 - i), [&p, i] { p.promises[i].SetValue(i); });
  }
  auto [done, pending] = loop_.RunUntilComplete(Wait(p.futures));
  EXPECT_THAT(p.Indices(done), ElementsAre(0, 1, 2));
  EXPECT_THAT(p.Indices(pending), IsEmpty());
  EXPECT_EQ(loop_.Time() - MonotonicTime(), absl::Seconds(3));
}

// C-CMB-18
TEST_P(WaitTest, NothingToWaitForAndFuturesOfAnotherLoopAreRefused) {
  EXPECT_THROW(loop_.RunUntilComplete(Wait(std::vector<Future<int>>())), InvalidState);
  EventLoop other(os_);
  Promises p(other, 1);
  EXPECT_THROW(loop_.RunUntilComplete(Wait(p.futures)), InvalidState);
  other.Close();
}

// C-CMB-18
TEST_P(WaitTest, WhenTheTimeIsUpItGivesWhatIsDoneAndCancelsNothing) {
  Promises p(loop_, 2);
  loop_.CallLater(absl::Seconds(1), [&] { p.promises[1].SetValue(1); });
  auto [done, pending] = loop_.RunUntilComplete(Wait(p.futures, {.timeout = absl::Seconds(2)}));
  EXPECT_THAT(p.Indices(done), ElementsAre(1));
  EXPECT_THAT(p.Indices(pending), ElementsAre(0));
  EXPECT_FALSE(p.futures[0].done());
  EXPECT_EQ(loop_.Time() - MonotonicTime(), absl::Seconds(2));
  EXPECT_EQ(loop_.NextWakeup(), MonotonicTime::InfiniteFuture());
}

// C-CMB-19
TEST_P(WaitTest, FirstCompletedMayGiveSeveral) {
  Promises p(loop_, 3);
  loop_.CallLater(absl::Seconds(1), [&] {
    p.promises[0].SetValue(1);
    p.futures[2].Cancel();
  });
  auto [done, pending] = loop_.RunUntilComplete(Wait(p.futures, {.return_when = WaitUntil::kFirstCompleted}));
  EXPECT_THAT(p.Indices(done), ElementsAre(0, 2));
  EXPECT_THAT(p.Indices(pending), ElementsAre(1));
}

// C-CMB-19
TEST_P(WaitTest, FirstExceptionDoesNotCountACancelledOne) {
  Promises p(loop_, 3);
  loop_.CallLater(absl::Seconds(1), [&] { p.futures[0].Cancel(); });
  loop_.CallLater(absl::Seconds(2), [&] { p.promises[1].SetError(absl::InternalError("x")); });
  auto [done, pending] = loop_.RunUntilComplete(Wait(p.futures, {.return_when = WaitUntil::kFirstException}));
  EXPECT_THAT(p.Indices(done), ElementsAre(0, 1));
  EXPECT_THAT(p.Indices(pending), ElementsAre(2));
  EXPECT_EQ(loop_.Time() - MonotonicTime(), absl::Seconds(2));
  EXPECT_TRUE(p.futures[1].exception() != nullptr);
}

TEST_P(WaitTest, FirstExceptionCountsAStatusThatIsNotOk) {
  Promise<absl::Status> one(loop_), two(loop_);
  loop_.CallLater(absl::Seconds(1), [&] { one.SetValue(absl::OkStatus()); });
  loop_.CallLater(absl::Seconds(2), [&] { two.SetValue(absl::NotFoundError("x")); });
  Promise<absl::Status> never(loop_);
  std::vector<Future<absl::Status>> futures = {never.future(), one.future(), two.future()};
  const auto [done, pending] =
      loop_.RunUntilComplete(Wait(std::move(futures), {.return_when = WaitUntil::kFirstException}));
  EXPECT_EQ(done.size(), 2u);
  EXPECT_EQ(loop_.Time() - MonotonicTime(), absl::Seconds(2));
}

TEST_P(WaitTest, AFutureNamedTwiceComesOnce) {
  Promises p(loop_, 1);
  p.promises[0].SetValue(1);
  std::vector<Future<int>> twice = {p.futures[0], p.futures[0]};
  EXPECT_EQ(loop_.RunUntilComplete(Wait(twice)).done.size(), 1u);
}

TEST_P(WaitTest, CancelledItCancelsNothing) {
  Promises p(loop_, 2);
  auto waits = loop_.CreateTask(Wait(p.futures, {.timeout = absl::Hours(1)}));
  loop_.CallLater(absl::Seconds(1), [&] { waits.Cancel(); });
  EXPECT_THROW(loop_.RunUntilComplete(Future<WaitResult<Future<int>>>(waits)), Cancelled);
  EXPECT_FALSE(p.futures[0].done());
  EXPECT_EQ(loop_.NextWakeup(), MonotonicTime::InfiniteFuture());
}

TEST_P(WaitTest, HandlesStayHandles) {
  std::vector<TaskHandle<int>> handles = {loop_.CreateTask(After(absl::Seconds(1), 1), "named")};
  const auto [done, pending] = loop_.RunUntilComplete(Wait(std::move(handles)));
  EXPECT_EQ(done.front().name(), "named");
}

TEST_P(WaitTest, TakesAsManyIterationsAsInAsyncio) {
  Iterations iterations(loop_);
  loop_.RunUntilComplete([](EventLoop& loop, Iterations& iterations) -> Task<void> {
    std::vector<TaskHandle<int>> handles;
    auto body = []() -> Task<int> { co_return 1; };
    handles.push_back(loop.CreateTask(body()));
    const int start = iterations.count();
    co_await Wait(std::move(handles));
    EXPECT_EQ(iterations.count() - start, 3);
  }(loop_, iterations));
}

// C-CMB-21
TEST_P(WaitTest, AsCompletedGivesResultsAsTheyCome) {
  loop_.RunUntilComplete([](std::vector<std::string>& log) -> Task<void> {
    std::vector<Task<int>> tasks;
    tasks.push_back(After(absl::Seconds(3), 3));
    tasks.push_back(After(absl::Seconds(1), 1));
    tasks.push_back(Throws(absl::Seconds(2)));
    AsCompleted<int> results(std::move(tasks));
    while (results.more()) {
      try {
        const absl::StatusOr<int> result = co_await results.Next();
        log.push_back(std::to_string(*result));
      } catch (const std::runtime_error&) {
        log.push_back("error");
      }
    }
  }(log_));
  EXPECT_THAT(log_, ElementsAre("1", "error", "3"));
}

// C-CMB-21
TEST_P(WaitTest, AfterItsTimeEachRemainingResultIsDeadlineExceeded) {
  Promises p(loop_, 3);
  loop_.CallLater(absl::Seconds(1), [&] { p.promises[2].SetValue(2); });
  loop_.RunUntilComplete([](EventLoop& loop, std::vector<Future<int>> futures) -> Task<void> {
    AsCompleted<int> results(futures, absl::Seconds(5));
    absl::StatusOr<int> result = co_await results.Next();
    EXPECT_EQ(*result, 2);
    for (int i = 0; i < 2; ++i) {
      EXPECT_TRUE(results.more());
      result = co_await results.Next();
      EXPECT_TRUE(absl::IsDeadlineExceeded(result.status()));
    }
    EXPECT_FALSE(results.more());
    EXPECT_EQ(loop.Time() - MonotonicTime(), absl::Seconds(5));
  }(loop_, p.futures));
  EXPECT_FALSE(p.futures[0].done());
}

// C-CMB-21: as in asyncio, also what is under way by then.
TEST_P(WaitTest, AResultThatComesWhenTheTimeIsUpComesTooLate) {
  Promises p(loop_, 1);
  loop_.CallLater(absl::Seconds(5), [&] { p.promises[0].SetValue(1); });
  loop_.RunUntilComplete([](std::vector<Future<int>> futures) -> Task<void> {
    AsCompleted<int> results(futures, absl::Seconds(5));
    const absl::StatusOr<int> result = co_await results.Next();
    EXPECT_TRUE(absl::IsDeadlineExceeded(result.status()));
  }(p.futures));
}

TEST_P(WaitTest, AsCompletedServesSeveralWaitersAndACancelledOnePassesItsTurnOn) {
  Promises p(loop_, 2);
  AsCompleted<int> results(p.futures);
  auto next = [](AsCompleted<int>& results) -> Task<int> {
    const absl::StatusOr<int> result = co_await results.Next();
    co_return *result;
  };
  auto one = loop_.CreateTask(next(results));
  auto two = loop_.CreateTask(next(results));
  RunReady();
  loop_.CallSoon([&] { p.promises[0].SetValue(7); });
  loop_.RunOnceWithoutWaiting();
  RunReady();
  EXPECT_EQ(one.result(), 7);
  two.Cancel();
  EXPECT_THROW(loop_.RunUntilComplete(Future<int>(two)), Cancelled);
  p.promises[1].SetValue(8);
  EXPECT_EQ(*loop_.RunUntilComplete(results.Next()), 8);
}

TEST_P(WaitTest, ATaskWokenByAsCompletedThatGoesBeforeItResumesWaitsUntilItIsCancelled) {
  Promises p(loop_, 1);
  auto results = std::make_unique<AsCompleted<int>>(p.futures);
  auto next = [](AsCompleted<int>& results) -> Task<int> {
    const absl::StatusOr<int> result = co_await results.Next();
    co_return *result;
  };
  auto waits = loop_.CreateTask(next(*results));
  RunReady();
  p.promises[0].SetValue(1);
  loop_.CallSoon([&] { results = nullptr; });  // after the result has arrived, before the task goes on
  RunReady();
  EXPECT_FALSE(waits.done());
  waits.Cancel();
  EXPECT_THROW(loop_.RunUntilComplete(Future<int>(waits)), Cancelled);
}

TEST_P(WaitTest, DestroyingAsCompletedDestroysItsTasks) {
  {
    std::vector<Task<int>> tasks;
    tasks.push_back(After(absl::Seconds(3), 3));
    Context().Run([&] {
      loop_.RunUntilComplete([](std::vector<Task<int>> tasks) -> Task<void> {
        AsCompleted<int> results(std::move(tasks), absl::Hours(1));
        co_return;
      }(std::move(tasks)));
    });
  }
  EXPECT_TRUE(loop_.tasks().empty());
  RunReady();
  EXPECT_EQ(loop_.NextWakeup(), MonotonicTime::InfiniteFuture());
}

}  // namespace
}  // namespace troupe
