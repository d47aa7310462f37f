// Finally: a cleanup that awaits runs however a task ends.
#include "troupe/async/finally.h"

#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "troupe/async/sleep.h"
#include "troupe/loop/loop_testing.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;

using FinallyTest = LoopTest;
INSTANTIATE_POLLING(FinallyTest);

using Log = std::vector<std::string>;

Task<int> Body(Log& log, absl::Duration delay, bool throws) {
  log.push_back("body");
  co_await Sleep(delay);
  if (throws) throw std::runtime_error("body");
  co_return 5;
}
Task<void> Clean(Log& log, absl::Duration delay, bool throws = false) {
  log.push_back("cleanup");
  co_await Sleep(delay);
  log.push_back("clean");
  if (throws) throw std::runtime_error("cleanup");
}

TEST_P(FinallyTest, RunsAfterAResultAndGivesIt) {
  loop_.RunUntilComplete([](Log& log) -> Task<void> {
    const int value =
        co_await Finally(Body(log, absl::Seconds(1), false), [&] { return Clean(log, absl::Seconds(1)); });
    EXPECT_EQ(value, 5);
    log.push_back("after");
  }(log_));
  EXPECT_THAT(log_, ElementsAre("body", "cleanup", "clean", "after"));
}

TEST_P(FinallyTest, RunsAfterAnErrorAndThrowsIt) {
  loop_.RunUntilComplete([](Log& log) -> Task<void> {
    std::string text;
    try {
      co_await Finally(Body(log, absl::Seconds(1), true), [&] { return Clean(log, absl::Seconds(1)); });
    } catch (const std::runtime_error& error) {
      text = error.what();
    }
    EXPECT_EQ(text, "body");
  }(log_));
  EXPECT_THAT(log_, ElementsAre("body", "cleanup", "clean"));
}

TEST_P(FinallyTest, RunsToItsEndAfterACancellation) {
  auto handle = loop_.CreateTask([](Log& log) -> Task<void> {
    try {
      co_await Finally(Body(log, absl::Hours(1), false), [&] { return Clean(log, absl::Seconds(1)); });
    } catch (const Cancelled&) {
      log.push_back("cancelled");
      throw;
    }
  }(log_));
  loop_.CallLater(absl::Seconds(1), [&] { handle.Cancel(); });
  EXPECT_THROW(loop_.RunUntilComplete(Future<void>(handle)), Cancelled);
  EXPECT_THAT(log_, ElementsAre("body", "cleanup", "clean", "cancelled"));
  EXPECT_EQ(loop_.Time() - MonotonicTime(), absl::Seconds(2));
}

TEST_P(FinallyTest, ASecondCancellationArrivesInTheCleanup) {
  auto handle = loop_.CreateTask([](Log& log) -> Task<void> {
    co_await Finally(Body(log, absl::Hours(1), false), [&] { return Clean(log, absl::Hours(1)); });
  }(log_));
  loop_.CallLater(absl::Seconds(1), [&] { handle.Cancel(); });
  loop_.CallLater(absl::Seconds(2), [&] { handle.Cancel(); });
  EXPECT_THROW(loop_.RunUntilComplete(Future<void>(handle)), Cancelled);
  EXPECT_THAT(log_, ElementsAre("body", "cleanup"));
}

TEST_P(FinallyTest, TheCleanupsErrorReplacesTheBodysWhichIsReported) {
  loop_.RunUntilComplete([](Log& log) -> Task<void> {
    std::string text;
    try {
      co_await Finally(Body(log, absl::Seconds(1), true), [&] { return Clean(log, absl::Seconds(1), true); });
    } catch (const std::runtime_error& error) {
      text = error.what();
    }
    EXPECT_EQ(text, "cleanup");
  }(log_));
  ASSERT_EQ(reports_.size(), 1u);
  EXPECT_EQ(DescribeException(reports_[0].exception), "std::runtime_error: body");
  EXPECT_THAT(TakeReports(), ElementsAre("An error was replaced by one of the cleanup in Finally"));
}

TEST_P(FinallyTest, AReplacedCancellationIsNotReported) {
  auto handle = loop_.CreateTask([](Log& log) -> Task<void> {
    co_await Finally(Body(log, absl::Hours(1), false), [&] { return Clean(log, absl::Seconds(1), true); });
  }(log_));
  loop_.CallLater(absl::Seconds(1), [&] { handle.Cancel(); });
  EXPECT_THROW(loop_.RunUntilComplete(Future<void>(handle)), std::runtime_error);
}

TEST_P(FinallyTest, ACleanupThatThrowsBeforeItsTaskIsLikeOneThatThrowsInIt) {
  loop_.RunUntilComplete([](Log& log) -> Task<void> {
    bool thrown = false;
    try {
      co_await Finally(Body(log, absl::ZeroDuration(), false),
                       []() -> Task<void> { throw std::logic_error("at once"); });
    } catch (const std::logic_error&) {
      thrown = true;
    }
    EXPECT_TRUE(thrown);
  }(log_));
}

TEST_P(FinallyTest, AnOwningCleanupIsNamedAndPassedByReference) {
  loop_.RunUntilComplete([](Log& log) -> Task<void> {
    const auto owned = std::make_shared<std::string>("owned");
    auto cleanup = [owned, &log] {
      log.push_back(*owned);
      return Clean(log, absl::ZeroDuration());
    };
    Task<void> body = Sleep(absl::Seconds(1));
    co_await Finally(std::move(body), std::ref(cleanup));
    EXPECT_EQ(owned.use_count(), 2);
  }(log_));
  EXPECT_THAT(log_, ElementsAre("owned", "cleanup", "clean"));
}

TEST_P(FinallyTest, TheyNest) {
  auto handle = loop_.CreateTask([](Log& log) -> Task<void> {
    auto inner = [](Log& log) -> Task<void> {
      co_await Finally(Body(log, absl::Hours(1), false), [&]() -> Task<void> {
        log.push_back("inner");
        return Sleep(absl::Seconds(1));
      });
    };
    co_await Finally(inner(log), [&]() -> Task<void> {
      log.push_back("outer");
      return Sleep(absl::Seconds(1));
    });
  }(log_));
  loop_.CallLater(absl::Seconds(1), [&] { handle.Cancel(); });
  EXPECT_THROW(loop_.RunUntilComplete(Future<void>(handle)), Cancelled);
  EXPECT_THAT(log_, ElementsAre("body", "inner", "outer"));
  EXPECT_EQ(loop_.Time() - MonotonicTime(), absl::Seconds(3));
}

TEST_P(FinallyTest, DestroyedWhileSuspendedNothingRuns) {
  auto handle = loop_.CreateTask([](Log& log) -> Task<void> {
    co_await Finally(Body(log, absl::Hours(1), false), [&] { return Clean(log, absl::Seconds(1)); });
  }(log_));
  RunReady();
  handle.task_state().DestroyNow();
  RunReady();
  EXPECT_THAT(log_, ElementsAre("body"));
}

}  // namespace
}  // namespace troupe
