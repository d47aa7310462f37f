// Tasks and futures on a real loop, without anything that waits for the clock.
#include "troupe/async/task.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/sleep.h"
#include "troupe/os/posix_os.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;

class TaskTest : public ::testing::Test {
 protected:
  TaskTest() {
    loop_.SetExceptionHandler([this](EventLoop&, const ExceptionContext& context) {
      reports_.push_back(context.message);
    });
  }
  ~TaskTest() override { loop_.Close(); }

  EventLoop loop_{PosixOs::Get()};
  std::vector<std::string> reports_;
  std::vector<std::string> log_;
};

Task<int> One() { co_return 1; }
Task<int> Add(int a, int b) {
  const int one = co_await One();
  co_return a + b + one - 1;
}
Task<void> Throws() {
  co_await Sleep(absl::ZeroDuration());
  throw std::runtime_error("boom");
}

TEST_F(TaskTest, AwaitsInPlaceAndGivesTheValue) { EXPECT_EQ(loop_.RunUntilComplete(Add(2, 3)), 5); }

TEST_F(TaskTest, AnErrorReachesTheAwaiter) {
  EXPECT_THROW(loop_.RunUntilComplete(Throws()), std::runtime_error);
  EXPECT_THAT(reports_, ElementsAre());
}

Task<long> Loop(int n) {
  long sum = 0;
  for (int i = 0; i < n; ++i) sum += co_await One();
  co_return sum;
}
Task<int> Deep(int n) {
  if (n == 0) co_return 0;
  const int below = co_await Deep(n - 1);
  co_return below + 1;
}

TEST_F(TaskTest, NeitherLongLoopsNorDeepChainsGrowTheStack) {
  EXPECT_EQ(loop_.RunUntilComplete(Loop(300000)), 300000);
  EXPECT_EQ(loop_.RunUntilComplete(Deep(300000)), 300000);
}

Task<void> DeepThenForever(int n) {
  if (n == 0) {
    Promise<void> never;
    co_await never.future();
  } else {
    co_await DeepThenForever(n - 1);
  }
}

TEST_F(TaskTest, ADeepSuspendedChainIsDestroyedWithoutGrowingTheStack) {
  {
    auto handle = loop_.CreateTask(DeepThenForever(300000), "deep");
    loop_.CallLater(absl::ZeroDuration(), [this] { loop_.Stop(); });
    loop_.RunForever();
  }
  loop_.Close();
  EXPECT_THAT(reports_, ElementsAre("Task was destroyed but it is pending!"));
}

// C-TSK-01
TEST_F(TaskTest, CreatingRunsNothing) {
  auto handle = loop_.CreateTask([](std::vector<std::string>& log) -> Task<void> {
    log.push_back("ran");
    co_return;
  }(log_));
  EXPECT_THAT(log_, ElementsAre());
  loop_.RunUntilComplete(Future<void>(handle));
  EXPECT_THAT(log_, ElementsAre("ran"));
}

Task<void> CatchesCancel(std::vector<std::string>& log) {
  try {
    co_await Sleep(absl::Hours(1));
  } catch (const Cancelled&) {
    log.push_back("cancelled");
    throw;
  }
}

// C-TSK-05
TEST_F(TaskTest, CancelThrowsAtTheInnermostAwait) {
  auto handle = loop_.CreateTask(CatchesCancel(log_));
  loop_.CallSoon([&] {
    EXPECT_TRUE(handle.Cancel());
    EXPECT_FALSE(handle.cancelled());
  });
  EXPECT_THROW(loop_.RunUntilComplete(Future<void>(handle)), Cancelled);
  EXPECT_TRUE(handle.cancelled());
  EXPECT_FALSE(handle.Cancel());
  EXPECT_THAT(log_, ElementsAre("cancelled"));
}

TEST_F(TaskTest, CancelledBeforeItsFirstStepNeverRuns) {
  auto handle = loop_.CreateTask(CatchesCancel(log_));
  EXPECT_TRUE(handle.Cancel());
  EXPECT_THROW(loop_.RunUntilComplete(Future<void>(handle)), Cancelled);
  EXPECT_THAT(log_, ElementsAre());
}

Task<void> CancelsItself(std::vector<std::string>& log, TaskHandle<void>& self) {
  self.Cancel();
  log.push_back("goes on");
  co_await Sleep(absl::Hours(1));
  log.push_back("not reached");
}

// C-TSK-08
TEST_F(TaskTest, CancellingItselfIsSeenAtTheNextSuspension) {
  TaskHandle<void> handle;
  handle = loop_.CreateTask(CancelsItself(log_, handle));
  EXPECT_THROW(loop_.RunUntilComplete(Future<void>(handle)), Cancelled);
  EXPECT_THAT(log_, ElementsAre("goes on"));
}

Task<int> AwaitsFuture(Future<int> future) {
  const int value = co_await std::move(future);
  co_return value;
}

// C-FUT-15, C-TSK-12
TEST_F(TaskTest, CancellingATaskCancelsTheFutureItWaitsIn) {
  Promise<int> promise(loop_);
  auto handle = loop_.CreateTask(AwaitsFuture(promise.future()));
  loop_.CallSoon([&] {
    handle.Cancel();
    EXPECT_TRUE(promise.cancelled());
  });
  EXPECT_THROW(loop_.RunUntilComplete(Future<int>(handle)), Cancelled);
}

// asyncio: a task that was woken and then cancelled loses what woke it.
TEST_F(TaskTest, CancelledWhileQueuedThrowsInsteadOfTheValue) {
  Promise<int> promise(loop_);
  auto handle = loop_.CreateTask(AwaitsFuture(promise.future()));
  loop_.CallSoon([&] {
    promise.SetValue(3);
    EXPECT_TRUE(handle.Cancel());
  });
  EXPECT_THROW(loop_.RunUntilComplete(Future<int>(handle)), Cancelled);
}

// C-TSK-17
TEST_F(TaskTest, AnErrorNobodyAskedForIsReportedOnce) {
  loop_.CreateTask(Throws());
  loop_.RunUntilComplete(Sleep(absl::Milliseconds(1)));
  EXPECT_THAT(reports_, ElementsAre("Task exception was never retrieved"));
}

// C-FUT-11
TEST_F(TaskTest, AFutureErrorNobodyAskedForIsReported) {
  { Promise<int>(loop_).SetError(absl::InternalError("x")); }
  EXPECT_THAT(reports_, ElementsAre("Future exception was never retrieved"));
}

// C-TSK-13
TEST_F(TaskTest, ATaskAwaitingItselfIsRefused) {
  TaskHandle<int> handle;
  handle = loop_.CreateTask([](TaskHandle<int>& self) -> Task<int> {
    const int value = co_await self;
    co_return value;
  }(handle));
  EXPECT_THROW(loop_.RunUntilComplete(Future<int>(handle)), InvalidState);
}

// C-LOOP-20
TEST_F(TaskTest, StoppedEarly) {
  loop_.CallSoon([&] { loop_.Stop(); });
  EXPECT_THROW(loop_.RunUntilComplete(Sleep(absl::Hours(1))), InvalidState);
}

// C-TSK-18, C-LOOP-24
TEST_F(TaskTest, FatalLeavesTheLoop) {
  EXPECT_THROW(loop_.RunUntilComplete([]() -> Task<void> {
    co_await Sleep(absl::ZeroDuration());
    throw Fatal("stop");
  }()),
               Fatal);
  EXPECT_EQ(loop_.RunUntilComplete(One()), 1);
  EXPECT_THAT(reports_, ElementsAre());
}

TEST_F(TaskTest, DoneCallbacksRunThroughTheLoopInOrder) {
  Promise<int> promise(loop_);
  promise.future().AddDoneCallback([&](Future<int> f) { log_.push_back("a" + std::to_string(f.result())); });
  const auto token = promise.future().AddDoneCallback([&](Future<int>) { log_.push_back("removed"); });
  promise.future().AddDoneCallback([&](Future<int>) { log_.push_back("b"); });
  EXPECT_TRUE(promise.future().RemoveDoneCallback(token));
  EXPECT_FALSE(promise.future().RemoveDoneCallback(token));
  promise.SetValue(7);
  EXPECT_THAT(log_, ElementsAre());
  loop_.RunUntilComplete(Sleep(absl::ZeroDuration()));
  EXPECT_THAT(log_, ElementsAre("a7", "b"));
}

TEST_F(TaskTest, AStatusIsYieldedWhereTheTypeHoldsOne) {
  Promise<absl::StatusOr<int>> promise(loop_);
  promise.SetError(absl::NotFoundError("no"));
  EXPECT_EQ(loop_.RunUntilComplete(promise.future()).status(), absl::NotFoundError("no"));
  Promise<int> other(loop_);
  other.SetError(absl::NotFoundError("no"));
  EXPECT_THROW(loop_.RunUntilComplete(other.future()), StatusError);
}

}  // namespace
}  // namespace troupe
