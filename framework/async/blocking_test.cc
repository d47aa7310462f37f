// Blocking and RunInExecutor: C-EXE-01, C-EXE-02, and that a function may borrow from the frame that waits for it.
#include "troupe/async/blocking.h"

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "troupe/async/shutdown.h"
#include "troupe/async/sleep.h"
#include "troupe/async/task.h"
#include "troupe/loop/loop_testing.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using BlockingTest = LoopTest;
INSTANTIATE_POLLING(BlockingTest);

TEST_P(BlockingTest, GivesTheValueOrThrowsWhatTheFunctionThrew) {
  loop_.RunUntilComplete([]() -> Task<void> {
    int local = 1;
    const int value = co_await Blocking([&] { return ++local; });
    EXPECT_EQ(value, 2);
    co_await Blocking([&] { local = 5; });
    EXPECT_EQ(local, 5);
    std::unique_ptr<int> moved = co_await Blocking([] { return std::make_unique<int>(7); });
    EXPECT_EQ(*moved, 7);
    const auto owner = std::make_shared<int>(3);
    auto named = [owner] { return *owner; };  // not trivially destructible: borrowed by name
    const int borrowed = co_await Blocking(named);
    EXPECT_EQ(borrowed, 3);
    std::string text;
    try {
      co_await Blocking([] { throw std::runtime_error("x"); });
    } catch (const std::runtime_error& error) {
      text = error.what();
    }
    EXPECT_EQ(text, "x");
  }());
}

// C-RUN-03
TEST_P(BlockingTest, TheShutdownOfTheExecutorWaitsForWhatIsUnderWay) {
  loop_.RunUntilComplete(ShutdownExecutor(loop_));
  EXPECT_EQ(loop_.Time(), MonotonicTime()) << "nothing was";
  bool ran = false;
  const auto work = [&ran] { ran = true; };
  const Future<void> abandoned = RunInExecutor(loop_, work);
  EXPECT_FALSE(ran);
  loop_.RunUntilComplete(ShutdownExecutor(loop_));
  EXPECT_TRUE(ran && abandoned.done());
}

TEST_P(BlockingTest, TheFunctionSeesACopyOfTheContext) {
  static const ContextVar<int> kVariable(0);
  loop_.RunUntilComplete([]() -> Task<void> {
    kVariable.Set(5);
    const int seen = co_await Blocking([] {
      const int seen = kVariable.Get();
      kVariable.Set(6);
      return seen;
    });
    EXPECT_EQ(seen, 5);
    EXPECT_EQ(kVariable.Get(), 5);
  }());
}

TEST_P(BlockingTest, APoolOfOnesOwnRunsOneAfterTheOther) {
  const std::unique_ptr<WorkerPool> pool = os_.NewWorkerPool(1, "database");
  auto append = [](WorkerPool& pool, std::vector<std::string>& log, std::string text) -> Task<void> {
    co_await Blocking(pool, [&] { log.push_back(text); });
  };
  auto a = loop_.CreateTask(append(*pool, log_, "a"));
  auto b = loop_.CreateTask(append(*pool, log_, "b"));
  loop_.RunUntilComplete(Future<void>(b));
  EXPECT_TRUE(a.done());
  EXPECT_THAT(log_, ElementsAre("a", "b"));
}

Task<void> Borrows(std::vector<std::string>& log) {
  std::string local = "alive";
  try {
    co_await Blocking([&] { log.push_back("ran " + local); });
  } catch (const Cancelled&) {
    log.push_back("cancelled");
    throw;
  }
}

TEST_P(BlockingTest, CancelledBeforeItStartsTheFunctionNeverRuns) {
  auto handle = loop_.CreateTask(Borrows(log_));
  loop_.CallSoon([&] { handle.Cancel(); });
  EXPECT_THROW(loop_.RunUntilComplete(Future<void>(handle)), Cancelled);
  loop_.RunUntilComplete(Sleep(absl::Seconds(1)));
  EXPECT_THAT(log_, ElementsAre("cancelled"));
}

TEST_P(BlockingTest, CancelledWhileItRunsTheCallerResumesAfterTheFunction) {
  TaskHandle<void> handle;
  auto task = [](std::vector<std::string>& log, TaskHandle<void>& self) -> Task<void> {
    try {
      // In simulation the worker is this thread: the cancellation comes while the function runs.
      co_await Blocking([&] {
        EXPECT_TRUE(self.Cancel());
        EXPECT_FALSE(self.done());
        log.push_back("function");
      });
    } catch (const Cancelled&) {
      log.push_back("cancelled");
      throw;
    }
  };
  handle = loop_.CreateTask(task(log_, handle));
  EXPECT_THROW(loop_.RunUntilComplete(Future<void>(handle)), Cancelled);
  EXPECT_THAT(log_, ElementsAre("function", "cancelled"));
}

TEST_P(BlockingTest, WhatTheFunctionOfACancelledCallerThrowsIsReported) {
  TaskHandle<void> handle;
  auto task = [](TaskHandle<void>& self) -> Task<void> {
    co_await Blocking([&] {
      self.Cancel();
      throw std::runtime_error("x");
    });
  };
  handle = loop_.CreateTask(task(handle));
  EXPECT_THROW(loop_.RunUntilComplete(Future<void>(handle)), Cancelled);
  EXPECT_THAT(TakeReports(), ElementsAre("Exception in a function of Blocking whose caller was cancelled"));
}

TEST_P(BlockingTest, ATaskThatCancelledItselfDoesNotStartTheFunction) {
  TaskHandle<void> handle;
  auto task = [](std::vector<std::string>& log, TaskHandle<void>& self) -> Task<void> {
    self.Cancel();
    co_await Blocking([&] { log.push_back("ran"); });
  };
  handle = loop_.CreateTask(task(log_, handle));
  EXPECT_THROW(loop_.RunUntilComplete(Future<void>(handle)), Cancelled);
  loop_.RunUntilComplete(Sleep(absl::Seconds(1)));
  EXPECT_THAT(log_, IsEmpty());
}

TEST_P(BlockingTest, DestroyedBeforeTheFunctionStartsItNeverRuns) {
  auto handle = loop_.CreateTask(Borrows(log_));
  loop_.RunOnceWithoutWaiting();
  handle.task_state().DestroyNow();
  loop_.RunUntilComplete(Sleep(absl::Seconds(1)));
  EXPECT_THAT(log_, IsEmpty());
}

// A machine on which no thread can be started.
class RefusingPool final : public WorkerPool {
 public:
  void Submit(Work&) override { throw StatusError(absl::ResourceExhaustedError("no thread")); }
  bool Cancel(Work&) override { return false; }
  void Wait(Work&) override {}
};

TEST_P(BlockingTest, WithoutAnyThreadTheOutcomeIsResourceExhausted) {
  RefusingPool pool;
  loop_.RunUntilComplete([](RefusingPool& pool) -> Task<void> {
    absl::StatusOr<int> result = co_await Blocking(pool, []() -> absl::StatusOr<int> { return 1; });
    EXPECT_EQ(result.status(), absl::ResourceExhaustedError("no thread"));
    bool thrown = false;
    try {
      co_await Blocking(pool, [] {});
    } catch (const StatusError& error) {
      thrown = true;
      EXPECT_EQ(error.status(), absl::ResourceExhaustedError("no thread"));
    }
    EXPECT_TRUE(thrown);
  }(pool));
}

// C-EXE-01
TEST_P(BlockingTest, RunInExecutorGivesAFuture) {
  auto value = RunInExecutor(loop_, [] { return 3; });
  EXPECT_FALSE(value.done());
  EXPECT_EQ(loop_.RunUntilComplete(value), 3);
  auto error = RunInExecutor(loop_, []() -> int { throw std::runtime_error("x"); });
  EXPECT_THROW(loop_.RunUntilComplete(error), std::runtime_error);
}

// C-FUT-11, P-3
TEST_P(BlockingTest, AnErrorOfTheExecutorThatNobodyAskedForIsReported) {
  {
    RunInExecutor(loop_, [] { throw std::runtime_error("x"); });
  }
  loop_.RunUntilComplete(Sleep(absl::Seconds(1)));
  EXPECT_THAT(TakeReports(), ElementsAre("Future exception was never retrieved"));
}

// C-EXE-02
TEST_P(BlockingTest, CancellingTheFutureBeforeTheFunctionStartsPreventsIt) {
  auto future = RunInExecutor(loop_, [&] { log_.push_back("ran"); });
  EXPECT_TRUE(future.Cancel());
  EXPECT_TRUE(future.cancelled());
  loop_.RunUntilComplete(Sleep(absl::Seconds(1)));
  EXPECT_THAT(log_, IsEmpty());
}

TEST_P(BlockingTest, CancelledWhileItRunsTheFutureIsDoneAtOnceAndTheResultIsDropped) {
  Future<int> future;
  future = RunInExecutor(loop_, [&] {
    EXPECT_TRUE(future.Cancel());
    EXPECT_TRUE(future.cancelled());
    log_.push_back("ran");
    return 1;
  });
  EXPECT_THROW(loop_.RunUntilComplete(future), Cancelled);
  loop_.RunUntilComplete(Sleep(absl::Seconds(1)));
  EXPECT_THAT(log_, ElementsAre("ran"));
  EXPECT_TRUE(future.cancelled());
}

TEST_P(BlockingTest, WhatAnAbandonedFunctionThrowsIsReported) {
  Future<void> future;
  future = RunInExecutor(loop_, [&] {
    future.Cancel();
    throw std::runtime_error("x");
  });
  loop_.RunUntilComplete(Sleep(absl::Seconds(1)));
  EXPECT_THAT(TakeReports(), ElementsAre("Exception in a function of RunInExecutor that was abandoned"));
}

// C-EXE-02
TEST_P(BlockingTest, TheLoopMayBeClosedWithWorkOutstanding) {
  const auto owned = std::make_shared<int>(1);
  auto future = RunInExecutor(loop_, absl::AnyInvocable<void()>([this, owned] { log_.push_back("ran"); }));
  EXPECT_EQ(owned.use_count(), 2);
  loop_.Close();
  EXPECT_EQ(owned.use_count(), 1);
  EXPECT_THAT(log_, IsEmpty());
  EXPECT_FALSE(future.done());
}

// C-LOOP-27
TEST_P(BlockingTest, AClosedLoopTakesNoWork) {
  loop_.Close();
  EXPECT_THROW(RunInExecutor(loop_, [] {}), InvalidState);
}

}  // namespace
}  // namespace troupe
