// Task, TaskHandle, Sleep and the loop's RunUntilComplete: C-TSK, C-LOOP-19 to C-LOOP-24, C-CMB-22.
#include "troupe/async/task.h"

#include <cstddef>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "troupe/async/any_task.h"
#include "troupe/async/sleep.h"
#include "troupe/loop/loop_testing.h"

namespace troupe {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;

using ::testing::HasSubstr;
using ::testing::IsEmpty;

using TaskTest = LoopTest;
INSTANTIATE_POLLING(TaskTest);

Task<int> One() { co_return 1; }
Task<int> Add(int a, int b) {
  const int one = co_await One();
  co_return a + b + one - 1;
}
Task<void> Throws() {
  co_await Sleep(absl::ZeroDuration());
  throw std::runtime_error("boom");
}

TEST_P(TaskTest, AwaitsInPlaceAndGivesTheValue) { EXPECT_EQ(loop_.RunUntilComplete(Add(2, 3)), 5); }

TEST_P(TaskTest, AnErrorReachesTheAwaiter) {
  EXPECT_THROW(loop_.RunUntilComplete(Throws()), std::runtime_error);
  EXPECT_THAT(TakeReports(), IsEmpty());
}

// clang warns, and is free to do anything; g++ says nothing and comes to the end.
#ifndef __clang__
Task<std::string> EndsWithoutAValue() { co_await Sleep(absl::ZeroDuration()); }
Task<size_t> AsksForIt() {
  const std::string text = co_await EndsWithoutAValue();
  co_return text.size();
}

TEST_P(TaskTest, ABodyThatEndsWithoutAValueIsInvalidState) {
  for (const bool nested : {false, true}) {
    try {
      if (nested) {
        loop_.RunUntilComplete(AsksForIt());
      } else {
        loop_.RunUntilComplete(EndsWithoutAValue());
      }
      FAIL() << "no error";
    } catch (const InvalidState& error) {
      EXPECT_THAT(error.what(), HasSubstr("ended without co_return"));
      EXPECT_THAT(error.what(), HasSubstr("task_test.cc:"));
    }
  }
}
#endif

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

TEST_P(TaskTest, NeitherLongLoopsNorDeepChainsGrowTheStack) {
  EXPECT_EQ(loop_.RunUntilComplete(Loop(100000)), 100000);
  EXPECT_EQ(loop_.RunUntilComplete(Deep(100000)), 100000);
}

Task<void> DeepThenForever(int n) {
  if (n == 0) {
    Promise<void> never;
    co_await never.future();
  } else {
    co_await DeepThenForever(n - 1);
  }
}

TEST_P(TaskTest, ADeepSuspendedChainIsDestroyedWithoutGrowingTheStack) {
  {
    auto handle = loop_.CreateTask(DeepThenForever(100000), "deep");
    loop_.CallLater(absl::ZeroDuration(), [this] { loop_.Stop(); });
    loop_.RunForever();
  }
  loop_.Close();
  EXPECT_THAT(TakeReports(), ElementsAre("Task was destroyed but it is pending!"));
}

// C-TSK-01
TEST_P(TaskTest, CreatingRunsNothing) {
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
TEST_P(TaskTest, CancelThrowsAtTheInnermostAwait) {
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

TEST_P(TaskTest, CancelledBeforeItsFirstStepNeverRuns) {
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
TEST_P(TaskTest, CancellingItselfIsSeenAtTheNextSuspension) {
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
TEST_P(TaskTest, CancellingATaskCancelsTheFutureItWaitsIn) {
  Promise<int> promise(loop_);
  auto handle = loop_.CreateTask(AwaitsFuture(promise.future()));
  loop_.CallSoon([&] {
    handle.Cancel();
    EXPECT_TRUE(promise.cancelled());
  });
  EXPECT_THROW(loop_.RunUntilComplete(Future<int>(handle)), Cancelled);
}

// asyncio: a task that was woken and then cancelled loses what woke it.
TEST_P(TaskTest, CancelledWhileQueuedThrowsInsteadOfTheValue) {
  Promise<int> promise(loop_);
  auto handle = loop_.CreateTask(AwaitsFuture(promise.future()));
  loop_.CallSoon([&] {
    promise.SetValue(3);
    EXPECT_TRUE(handle.Cancel());
  });
  EXPECT_THROW(loop_.RunUntilComplete(Future<int>(handle)), Cancelled);
}

// C-TSK-17
TEST_P(TaskTest, AnErrorNobodyAskedForIsReportedOnce) {
  loop_.CreateTask(Throws());
  loop_.RunUntilComplete(Sleep(absl::Milliseconds(1)));
  EXPECT_THAT(TakeReports(), ElementsAre("Task exception was never retrieved"));
}

// C-FUT-11
TEST_P(TaskTest, AFutureErrorNobodyAskedForIsReported) {
  {
    Promise<int>(loop_).SetError(absl::InternalError("x"));
  }
  EXPECT_THAT(TakeReports(), ElementsAre("Future exception was never retrieved"));
}

// C-TSK-13
TEST_P(TaskTest, ATaskAwaitingItselfIsRefused) {
  TaskHandle<int> handle;
  handle = loop_.CreateTask([](TaskHandle<int>& self) -> Task<int> {
    const int value = co_await self;
    co_return value;
  }(handle));
  EXPECT_THROW(loop_.RunUntilComplete(Future<int>(handle)), InvalidState);
}

// C-TSK-18, C-LOOP-24
TEST_P(TaskTest, FatalLeavesTheLoop) {
  EXPECT_THROW(loop_.RunUntilComplete([]() -> Task<void> {
    co_await Sleep(absl::ZeroDuration());
    throw Fatal("stop");
  }()),
               Fatal);
  EXPECT_EQ(loop_.RunUntilComplete(One()), 1);
  EXPECT_THAT(TakeReports(), IsEmpty());
}

TEST_P(TaskTest, AStatusIsYieldedWhereTheTypeHoldsOne) {
  Promise<absl::StatusOr<int>> promise(loop_);
  promise.SetError(absl::NotFoundError("no"));
  EXPECT_EQ(loop_.RunUntilComplete(promise.future()).status(), absl::NotFoundError("no"));
  Promise<int> other(loop_);
  other.SetError(absl::NotFoundError("no"));
  EXPECT_THROW(loop_.RunUntilComplete(other.future()), StatusError);
}

// C-TSK-03
TEST_P(TaskTest, ResultErrorAndCancellationOfTheBodyAreTheTasks) {
  auto value = loop_.CreateTask(One());
  auto error = loop_.CreateTask(Throws());
  auto cancelled = loop_.CreateTask([]() -> Task<void> {
    throw Cancelled();
    co_return;
  }());
  RunReady();
  EXPECT_EQ(value.result(), 1);
  EXPECT_NE(error.exception(), nullptr);
  EXPECT_TRUE(cancelled.cancelled());
  EXPECT_THAT(value.ToString(), HasSubstr("<Task '' finished created at framework/async/task_test.cc:"));
}

TEST_P(TaskTest, ATaskIsAwaitedOrCreatedOnce) {
  Task<int> task = One();
  EXPECT_TRUE(task.valid());
  auto handle = loop_.CreateTask(std::move(task));
  EXPECT_FALSE(task.valid());
  EXPECT_THROW(loop_.CreateTask(std::move(task)), InvalidState);
  EXPECT_THROW(loop_.CreateTask(Task<int>()), InvalidState);
  RunReady();
  EXPECT_EQ(handle.result(), 1);
  EXPECT_THROW(loop_.RunUntilComplete([]() -> Task<void> {
    Task<int> awaited = One();
    co_await std::move(awaited);
    co_await std::move(awaited);
  }()),
               InvalidState);
}

// C-TSK-02
TEST_P(TaskTest, OneThatIsNeverStartedLeavesNothing) {
  const auto owned = std::make_shared<int>(0);
  auto holds = [](std::shared_ptr<int> owned) -> Task<int> { co_return *owned; };
  {
    Task<int> task = holds(owned);
    EXPECT_EQ(owned.use_count(), 2);
    task = holds(owned);
    EXPECT_EQ(owned.use_count(), 2);
  }
  EXPECT_EQ(owned.use_count(), 1);
  EXPECT_THAT(TakeReports(), IsEmpty());
}

// P-3. In debug mode, and only on a loop: elsewhere nobody could be told.
TEST_P(TaskTest, InDebugModeACoroutineThatIsNeverAwaitedIsReported) {
  const auto drops_one = [] { static_cast<void>(One()); };
  loop_.CallSoon(drops_one);
  RunReady();
  EXPECT_THAT(reports_, IsEmpty()) << "not in debug mode";
  loop_.SetDebug(true);
  drops_one();
  EXPECT_THAT(reports_, IsEmpty()) << "no loop runs";
  loop_.CallSoon(drops_one);
  loop_.CallSoon([this] { loop_.CreateTask(One()); });
  loop_.CallSoon([] { Task<int> moved = One(), kept = std::move(moved); });
  RunReady();
  ASSERT_EQ(reports_.size(), 2u);
  for (const ExceptionContext& report : reports_) {
    EXPECT_THAT(report.ToString(), AllOf(HasSubstr("coroutine was never awaited"), HasSubstr("task_test.cc:"),
                                         HasSubstr("One()")));
  }
  TakeReports();
}

// P-3. It was lost with its task, of which one knows.
TEST_P(TaskTest, ACoroutineThatGoesWithACancelledTaskIsNotReportedOneThatItsTaskForgotIs) {
  loop_.SetDebug(true);
  const auto awaits = [](Task<int> inner) -> Task<int> { co_return co_await std::move(inner); };
  const auto forgets = [](Task<int> inner) -> Task<int> { co_return inner.valid() ? 1 : 0; };
  loop_.CallSoon([&] {
    const auto cancelled = loop_.CreateTask(awaits(One()));
    cancelled.Cancel();
    loop_.CreateTask(forgets(One()));
  });
  RunReady();
  EXPECT_THAT(TakeReports(), ElementsAre("coroutine was never awaited"));
}

// C-TSK-06
TEST_P(TaskTest, ABodyThatCatchesCancelledGoesOn) {
  auto returns = loop_.CreateTask([]() -> Task<int> {
    try {
      co_await Sleep(absl::Hours(1));
    } catch (const Cancelled&) {
      // carries on
    }
    co_return 4;
  }());
  auto waits = loop_.CreateTask([](std::vector<std::string>& log) -> Task<int> {
    for (int i = 0; i < 3; ++i) {
      try {
        co_await Sleep(absl::Seconds(10));
        log.push_back("slept");
      } catch (const Cancelled&) {
        log.push_back("cancelled");
      }
    }
    co_return 5;
  }(log_));
  loop_.CallLater(absl::Seconds(1), [&] {
    EXPECT_TRUE(returns.Cancel());
    EXPECT_TRUE(waits.Cancel());
  });
  EXPECT_EQ(loop_.RunUntilComplete(Future<int>(waits)), 5);
  EXPECT_EQ(returns.result(), 4);
  EXPECT_FALSE(returns.cancelled());
  EXPECT_THAT(log_, ElementsAre("cancelled", "slept", "slept"));
}

// C-TSK-05: a second cancellation before the first was seen is the same one.
TEST_P(TaskTest, CancelledTwiceBeforeItsNextStepItSeesOne) {
  auto handle = loop_.CreateTask([](std::vector<std::string>& log) -> Task<void> {
    try {
      co_await Sleep(absl::Hours(1));
    } catch (const Cancelled&) {
      log.push_back("cancelled");
    }
    co_await Sleep(absl::Seconds(1));
  }(log_));
  loop_.CallLater(absl::Seconds(1), [&] {
    handle.Cancel();
    handle.Cancel();
  });
  loop_.RunUntilComplete(Future<void>(handle));
  EXPECT_THAT(log_, ElementsAre("cancelled"));
}

// C-TSK-12
TEST_P(TaskTest, CancellingATaskThatAwaitsATaskCancelsTheInner) {
  auto inner = loop_.CreateTask(CatchesCancel(log_), "inner");
  auto outer = loop_.CreateTask([](TaskHandle<void> inner) -> Task<void> { co_await inner; }(inner), "outer");
  loop_.CallLater(absl::Seconds(1), [&] {
    EXPECT_TRUE(outer.Cancel());
    EXPECT_TRUE(inner.Cancel());  // both is harmless
  });
  EXPECT_THROW(loop_.RunUntilComplete(Future<void>(outer)), Cancelled);
  EXPECT_TRUE(inner.cancelled());
  EXPECT_TRUE(outer.cancelled());
  EXPECT_THAT(log_, ElementsAre("cancelled"));
}

// C-TSK-12: asyncio recurses without end here.
TEST_P(TaskTest, CancellingOneOfACircleEndsThemAll) {
  TaskHandle<void> tasks[3];
  auto wait = [](TaskHandle<void>& next) -> Task<> { co_await next; };
  for (int i = 0; i < 3; ++i) tasks[i] = loop_.CreateTask(wait(tasks[(i + 1) % 3]));
  RunReady();
  EXPECT_TRUE(tasks[1].Cancel());
  RunReady();
  for (const TaskHandle<void>& task : tasks) EXPECT_TRUE(task.cancelled());
}

// C-TSK-12: an inner one that resists leaves the outer uncancelled, as in asyncio.
TEST_P(TaskTest, AnInnerTaskThatCatchesCancelledGivesItsResultToTheOuter) {
  auto inner = loop_.CreateTask([]() -> Task<int> {
    try {
      co_await Sleep(absl::Hours(1));
    } catch (const Cancelled&) {
      // carries on
    }
    co_return 7;
  }());
  auto outer = loop_.CreateTask(AwaitsFuture(inner));
  loop_.CallLater(absl::Seconds(1), [&] { outer.Cancel(); });
  EXPECT_EQ(loop_.RunUntilComplete(Future<int>(outer)), 7);
}

// asyncio's test_cancel_at_end
TEST_P(TaskTest, CancelledAfterItsLastSuspensionItIsCancelledAllTheSame) {
  TaskHandle<int> handle;
  handle = loop_.CreateTask([](TaskHandle<int>& self) -> Task<int> {
    co_await Sleep(absl::ZeroDuration());
    EXPECT_TRUE(self.Cancel());
    co_return 1;
  }(handle));
  EXPECT_THROW(loop_.RunUntilComplete(Future<int>(handle)), Cancelled);
  EXPECT_TRUE(handle.cancelled());
}

// A task that cancels another one with its last breath: by a local of its body, and by a parameter, which goes later.
struct CancelsAtItsEnd {
  explicit CancelsAtItsEnd(TaskHandle<void>* victim) : victim(victim) {}
  CancelsAtItsEnd(CancelsAtItsEnd&& other) noexcept : victim(std::exchange(other.victim, nullptr)) {}
  ~CancelsAtItsEnd() {
    if (victim != nullptr) {
      EXPECT_TRUE(victim->Cancel());
    }
  }
  TaskHandle<void>* victim;
};

TEST_P(TaskTest, AWaiterIsCancelledByTheLastBreathOfWhatItWaitsFor) {
  for (const bool by_parameter : {false, true}) {
    TaskHandle<void> outer;
    auto inner = loop_.CreateTask([](CancelsAtItsEnd cancels, bool by_parameter) -> Task<int> {
      CancelsAtItsEnd local(nullptr);
      if (!by_parameter) std::swap(local.victim, cancels.victim);
      co_await Sleep(absl::Seconds(1));
      co_return 1;
    }(CancelsAtItsEnd(&outer), by_parameter));
    outer = loop_.CreateTask([](TaskHandle<int> inner) -> Task<void> { co_await inner; }(inner));
    EXPECT_THROW(loop_.RunUntilComplete(Future<void>(outer)), Cancelled);
    EXPECT_TRUE(inner.done());
    EXPECT_EQ(inner.cancelled(), !by_parameter);
  }
}

// C-TSK-13
TEST_P(TaskTest, AwaitingItselfIsThrownIntoTheBody) {
  TaskHandle<void> handle;
  handle = loop_.CreateTask([](TaskHandle<void>& self, std::vector<std::string>& log) -> Task<void> {
    try {
      co_await self;
    } catch (const InvalidState& error) {
      log.push_back(error.what());
    }
    co_await Sleep(absl::ZeroDuration());
    log.push_back("goes on");
  }(handle, log_));
  loop_.RunUntilComplete(Future<void>(handle));
  EXPECT_THAT(log_, ElementsAre("Task cannot await on itself", "goes on"));
}

// C-TSK-14
TEST_P(TaskTest, AwaitingAFutureOfAnotherLoopIsThrownIntoTheBody) {
  EventLoop other(os_);
  Promise<int> foreign(other);
  loop_.RunUntilComplete([](Future<int> foreign, std::vector<std::string>& log) -> Task<void> {
    try {
      co_await foreign;
    } catch (const InvalidState& error) {
      log.push_back(error.what());
    }
    co_await Sleep(absl::ZeroDuration());
  }(foreign.future(), log_));
  EXPECT_THAT(log_, ElementsAre(HasSubstr("is attached to a different loop")));
  other.Close();
}

// C-TSK-15, C-CMB-22
TEST_P(TaskTest, SleepZeroGivesUpExactlyOneIteration) {
  Iterations iterations(loop_);
  loop_.RunUntilComplete([](Iterations& iterations) -> Task<void> {
    for (const absl::Duration none : {absl::ZeroDuration(), -absl::Seconds(1), -absl::InfiniteDuration()}) {
      const int start = iterations.count();
      co_await Sleep(none);
      EXPECT_EQ(iterations.count() - start, 1);
    }
  }(iterations));
}

// C-CMB-22
TEST_P(TaskTest, SleepWaitsForItsTime) {
  loop_.RunUntilComplete([](EventLoop& loop) -> Task<void> {
    co_await Sleep(absl::Seconds(3));
    EXPECT_EQ(loop.Time() - MonotonicTime(), absl::Seconds(3));
    co_await SleepUntil(MonotonicTime() + absl::Seconds(5));
    EXPECT_EQ(loop.Time() - MonotonicTime(), absl::Seconds(5));
    co_await SleepUntil(MonotonicTime() + absl::Seconds(1));
    EXPECT_EQ(loop.Time() - MonotonicTime(), absl::Seconds(5));
  }(loop_));
}

// C-TSK-16, C-DBG-06, P-3
TEST_P(TaskTest, APendingTaskDestroyedByCloseIsReportedWithItsChain) {
  loop_.CreateTask(CatchesCancel(log_), "left");
  RunReady();
  loop_.Close();
  ASSERT_EQ(reports_.size(), 1u);
  EXPECT_THAT(std::string(reports_[0].Get("task")),
              HasSubstr("<Task 'left' pending created at framework/async/task_test.cc:"));
  EXPECT_THAT(std::string(reports_[0].Get("task")), HasSubstr("waits in Sleep until"));
  EXPECT_THAT(TakeReports(), ElementsAre("Task was destroyed but it is pending!"));
  EXPECT_THAT(log_, IsEmpty());
}

// C-TSK-16: not those of RunUntilComplete.
TEST_P(TaskTest, TheTaskOfAnInterruptedRunIsNotReported) {
  loop_.CallSoon([this] { loop_.Stop(); });
  EXPECT_THROW(loop_.RunUntilComplete(Sleep(absl::Hours(1))), InvalidState);
  loop_.Close();
  EXPECT_THAT(TakeReports(), IsEmpty());
}

// C-TSK-16, C-EXC-07
TEST_P(TaskTest, AFatalOfTheHandlerLeavesCloseWhichCanBeRepeated) {
  loop_.CreateTask(CatchesCancel(log_), "a");
  loop_.CreateTask(CatchesCancel(log_), "b");
  RunReady();
  int calls = 0;
  loop_.SetExceptionHandler([&](EventLoop&, const ExceptionContext&) {
    if (++calls == 1) throw Fatal("out");
  });
  EXPECT_THROW(loop_.Close(), Fatal);
  EXPECT_FALSE(loop_.IsClosed());
  loop_.Close();
  EXPECT_TRUE(loop_.IsClosed());
  EXPECT_EQ(calls, 2);
}

// C-TSK-17
TEST_P(TaskTest, AStatusOfADetachedTaskThatNobodyAskedForIsReported) {
  loop_.CreateTask([]() -> Task<absl::Status> { co_return absl::DataLossError("lost"); }());
  loop_.CreateTask([]() -> Task<absl::StatusOr<int>> { co_return absl::NotFoundError("gone"); }());
  loop_.CreateTask([]() -> Task<absl::StatusOr<int>> { co_return 4; }());
  RunReady();
  ASSERT_EQ(reports_.size(), 2u);
  EXPECT_EQ(reports_[0].status, absl::DataLossError("lost"));
  EXPECT_EQ(reports_[1].status, absl::NotFoundError("gone"));
  TakeReports();
}

// C-TSK-18
TEST_P(TaskTest, AFatalIsStoredAndLeavesTheLoop) {
  auto handle = loop_.CreateTask([]() -> Task<void> {
    co_await Sleep(absl::ZeroDuration());
    throw Fatal("out");
  }());
  EXPECT_THROW(loop_.RunForever(), Fatal);
  EXPECT_TRUE(handle.done());
  EXPECT_THROW(handle.result(), Fatal);
}

// C-TSK-19
TEST_P(TaskTest, TheCurrentTaskIsSetExactlyDuringAStep) {
  EventLoop other(os_);
  auto steps = [](TaskHandle<void>& self, EventLoop& other) -> Task<void> {
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(CurrentTask(), self);
      EXPECT_EQ(CurrentTask(self.loop()), self);
      EXPECT_FALSE(CurrentTask(other).valid());
      co_await Sleep(absl::ZeroDuration());
      const int one = co_await One();  // in place
      EXPECT_EQ(one, 1);
    }
    // No second one can be entered inside.
    EXPECT_THROW(self.loop().RunUntilComplete(One()), InvalidState);
    EXPECT_THROW(other.RunUntilComplete(One()), InvalidState);
    EXPECT_EQ(CurrentTask(), self);
  };
  TaskHandle<void> a, b;
  a = loop_.CreateTask(steps(a, other));
  b = loop_.CreateTask(steps(b, other));
  loop_.CallSoon([] { EXPECT_FALSE(CurrentTask().valid()); });
  a.AddDoneCallback([](const Future<void>&) { EXPECT_FALSE(CurrentTask().valid()); });
  loop_.RunUntilComplete(Future<void>(a));
  loop_.RunUntilComplete(Future<void>(b));
  EXPECT_FALSE(CurrentTask(loop_).valid());
  EXPECT_THROW(CurrentTask(), InvalidState);
  other.Close();
}

// C-TSK-20
TEST_P(TaskTest, TheLoopKnowsItsUnfinishedTasksInOrderOfCreation) {
  EventLoop other(os_);
  auto a = loop_.CreateTask(Sleep(absl::Seconds(1)), "a");
  auto b = loop_.CreateTask(Sleep(absl::Seconds(2)), "b");
  auto foreign = other.CreateTask(Sleep(absl::Seconds(1)), "foreign");
  EXPECT_THAT(AllTasks(loop_), ElementsAre(AnyTask(a), AnyTask(b)));
  EXPECT_THAT(AllTasks(other), ElementsAre(AnyTask(foreign)));
  loop_.RunUntilComplete(Sleep(absl::Milliseconds(1500)));
  EXPECT_THAT(AllTasks(loop_), ElementsAre(AnyTask(b)));
  loop_.RunUntilComplete(Future<void>(b));
  other.RunUntilComplete(Future<void>(foreign));
  other.Close();
}

TEST_P(TaskTest, ATaskOfWhateverTypeCanBeNamedAskedAndCancelled) {
  loop_.CreateTask(Sleep(absl::Hours(1)), "sleeper");
  const std::vector<AnyTask> tasks = AllTasks(loop_);
  ASSERT_EQ(tasks.size(), 1u);
  const AnyTask& task = tasks.front();
  EXPECT_EQ(task.name(), "sleeper");
  EXPECT_EQ(&task.loop(), &loop_);
  EXPECT_THAT(task.ToString(), HasSubstr("<Task 'sleeper' pending created at framework/async/task_test.cc:"));
  EXPECT_FALSE(task.done());
  EXPECT_TRUE(task.Cancel());
  RunReady();
  EXPECT_TRUE(task.done() && task.cancelled());
  EXPECT_FALSE(task.Cancel());
  EXPECT_FALSE(AnyTask().valid());
  EXPECT_EQ(AnyTask().ToString(), "<Task of nothing>");
  EXPECT_THROW(AnyTask().Cancel(), InvalidState);
}

template <class H>
concept CanBeCompleted = requires(H handle) { handle.SetValue(1); } || requires(H handle) {
  handle.SetError(nullptr);
} || requires(H handle) { handle.SetError(absl::InternalError("x")); } || requires(H handle) { Promise<int>(handle); };
// C-TSK-04
static_assert(CanBeCompleted<Promise<int>> && !CanBeCompleted<TaskHandle<int>> && !CanBeCompleted<Future<int>> &&
              !CanBeCompleted<AnyTask>);

template <class L, class T>
concept MakesTasksOf = requires(L& loop, T t) { loop.CreateTask(std::move(t)); };
// C-TSK-02
static_assert(MakesTasksOf<EventLoop, Task<int>> && !MakesTasksOf<EventLoop, Future<int>> &&
              !MakesTasksOf<EventLoop, int> && !MakesTasksOf<EventLoop, Task<int> (*)()>);

struct Callable {
  void operator()() {}
};
struct CoroutineFunction {
  Task<int> operator()() const;
};
template <class L, class F>
concept TakesCallback = requires(L& loop, F f) {
  loop.CallSoon(f);
  loop.CallSoonIn(Context(), f);
  loop.Post(f);
  loop.CallLater(absl::Seconds(1), f);
  loop.CallAt(MonotonicTime(), f);
  loop.CallSoonThreadsafe(f);
  loop.AddReader(1, f);
  loop.AddWriter(1, f);
  loop.AddSignalHandler(1, f);
};
// C-DBG-02
static_assert(TakesCallback<EventLoop, Callable> && TakesCallback<EventLoop, void (*)()>);
template <class L, class F>
concept TakesCallbackSomewhere =
    requires(L& loop, F f) { loop.CallSoon(f); } || requires(L& loop, F f) { loop.CallSoonIn(Context(), f); } ||
    requires(L& loop, F f) { loop.Post(f); } || requires(L& loop, F f) { loop.CallLater(absl::Seconds(1), f); } ||
    requires(L& loop, F f) { loop.CallAt(MonotonicTime(), f); } ||
    requires(L& loop, F f) { loop.CallSoonThreadsafe(f); } || requires(L& loop, F f) { loop.AddReader(1, f); } ||
    requires(L& loop, F f) { loop.AddWriter(1, f); } || requires(L& loop, F f) { loop.AddSignalHandler(1, f); };
// C-DBG-02, C-SIG-01: a coroutine, whose task nobody would run; what cannot be called; what wants arguments.
static_assert(!TakesCallbackSomewhere<EventLoop, CoroutineFunction> && !TakesCallbackSomewhere<EventLoop, int> &&
              !TakesCallbackSomewhere<EventLoop, void (*)(int)>);

template <class L, class F>
concept TakesTaskFactory = requires(L& loop, F f) { loop.SetTaskFactory(f); };
// C-LOOP-40
static_assert(TakesTaskFactory<EventLoop, void (*)(EventLoop&, NewTask&)> &&
              TakesTaskFactory<EventLoop, std::nullptr_t> && !TakesTaskFactory<EventLoop, int> &&
              !TakesTaskFactory<EventLoop, void (*)()>);

// C-LOOP-40
TEST_P(TaskTest, EveryTaskGoesThroughTheTaskFactoryUntilThereIsNone) {
  static const ContextVar<int> kVariable(0);
  EXPECT_FALSE(loop_.has_task_factory());
  loop_.SetTaskFactory([this](EventLoop& loop, NewTask& task) {
    EXPECT_EQ(&loop, &loop_);
    EXPECT_NE(std::string(task.where.file_name()), "");
    log_.push_back(task.name);
    task.name += "!";
    task.context = task.context.Run([] {
      kVariable.Set(kVariable.Get() + 1);
      return Context::Current();
    });
  });
  EXPECT_TRUE(loop_.has_task_factory());
  auto asks = []() -> Task<int> { co_return kVariable.Get(); };
  const TaskHandle<int> named = loop_.CreateTask(asks(), "named");
  EXPECT_EQ(named.name(), "named!");
  EXPECT_EQ(loop_.RunUntilComplete(asks()), 1);
  EXPECT_EQ(named.result(), 1);
  loop_.RunUntilComplete([](auto asks) -> Task<void> {
    const int in_child = co_await EventLoop::Current().CreateTask(asks(), "child");
    EXPECT_EQ(in_child, 2);  // of its parent's context, and one more
  }(asks));
  EXPECT_THAT(log_, ElementsAre("named", "main", "main", "child"));
  loop_.SetTaskFactory(nullptr);
  EXPECT_FALSE(loop_.has_task_factory());
  EXPECT_EQ(loop_.RunUntilComplete(asks()), 0);
  EXPECT_EQ(log_.size(), 4u);
}

// C-LOOP-40
TEST_P(TaskTest, ATaskFactoryMayRefuseAndMayReplaceItself) {
  const auto owned = std::make_shared<int>(0);
  auto holds = [](std::shared_ptr<int> owned) -> Task<int> { co_return *owned; };
  loop_.SetTaskFactory([this, owned](EventLoop& loop, NewTask&) {
    loop.SetTaskFactory(nullptr);
    log_.push_back(std::to_string(owned.use_count()));
    throw std::runtime_error("refused");
  });
  EXPECT_THROW(loop_.CreateTask(holds(owned)), std::runtime_error);
  EXPECT_TRUE(AllTasks(loop_).empty());
  EXPECT_EQ(owned.use_count(), 1);  // neither the coroutine nor the factory is left
  EXPECT_EQ(loop_.RunUntilComplete(holds(owned)), 0);
  EXPECT_THAT(log_, ElementsAre("3"));
}

// C-TSK-22
TEST_P(TaskTest, ATaskLivesWithoutItsHandle) {
  loop_.CreateTask([](std::vector<std::string>& log) -> Task<void> {
    co_await Sleep(absl::Seconds(1));
    log.push_back("done");
  }(log_));
  loop_.RunUntilComplete(Sleep(absl::Seconds(2)));
  EXPECT_THAT(log_, ElementsAre("done"));
}

TEST_P(TaskTest, NamesCanBeReadAndChanged) {
  auto handle = loop_.CreateTask(One(), "first");
  EXPECT_EQ(handle.name(), "first");
  handle.set_name("second");
  EXPECT_THAT(handle.ToString(), HasSubstr("<Task 'second' pending"));
  RunReady();
}

// ---------------------------------------------------------------------------------------------------- destruction

TEST_P(TaskTest, FramesAreDestroyedInnermostFirst) {
  struct AtEnd {
    std::vector<std::string>& log;
    const char* name;
    ~AtEnd() { log.push_back(name); }
  };
  auto inner = [](std::vector<std::string>& log) -> Task<void> {
    const AtEnd at_end{log, "inner"};
    co_await Sleep(absl::Hours(1));
  };
  auto outer = [](std::vector<std::string>& log, auto inner) -> Task<void> {
    const AtEnd at_end{log, "outer"};
    co_await inner(log);
  };
  auto handle = loop_.CreateTask(outer(log_, inner));
  RunReady();
  handle.task_state().DestroyNow();
  EXPECT_THAT(log_, ElementsAre("inner", "outer"));
  EXPECT_TRUE(handle.cancelled());
  handle.task_state().DestroyNow();  // no effect
  EXPECT_EQ(loop_.NextWakeup(), MonotonicTime::InfiniteFuture());
}

TEST_P(TaskTest, DestroyedByItselfItGoesOnceItSuspends) {
  TaskHandle<void> handle;
  handle = loop_.CreateTask([](TaskHandle<void>& self, std::vector<std::string>& log) -> Task<void> {
    self.task_state().DestroyNow();
    log.push_back("still running");
    const int ready = co_await One();
    log.push_back("still running " + std::to_string(ready));
    co_await Sleep(absl::Seconds(1));
    log.push_back("not reached");
  }(handle, log_));
  RunReady();
  EXPECT_TRUE(handle.cancelled());
  EXPECT_THAT(log_, ElementsAre("still running", "still running 1"));
  EXPECT_EQ(loop_.NextWakeup(), MonotonicTime::InfiniteFuture());
}

TEST_P(TaskTest, DestroyedByItselfItMayStillEndByItself) {
  TaskHandle<int> handle;
  handle = loop_.CreateTask([](TaskHandle<int>& self) -> Task<int> {
    self.task_state().DestroyNow();
    co_return 3;
  }(handle));
  RunReady();
  EXPECT_EQ(handle.result(), 3);
}

// ---------------------------------------------------------------------------------------------------- context

TEST_P(TaskTest, ATaskHasAContextOfItsOwnThatLastsOverItsSteps) {
  static const ContextVar<int> kVariable(0);
  auto sets = [](int value, std::vector<std::string>& log) -> Task<void> {
    log.push_back("inherits " + std::to_string(kVariable.Get()));
    kVariable.Set(value);
    co_await Sleep(absl::ZeroDuration());
    log.push_back("keeps " + std::to_string(kVariable.Get()));
  };
  loop_.RunUntilComplete([](auto sets, std::vector<std::string>& log) -> Task<void> {
    kVariable.Set(1);
    EventLoop& loop = EventLoop::Current();
    const TaskHandle<void> a = loop.CreateTask(sets(2, log));
    const TaskHandle<void> b = loop.CreateTask(sets(3, log));
    co_await a;
    co_await b;
    EXPECT_EQ(kVariable.Get(), 1);
    co_await sets(4, log);  // in place: the same context
    EXPECT_EQ(kVariable.Get(), 4);
  }(sets, log_));
  EXPECT_EQ(kVariable.Get(), 0);
  EXPECT_THAT(log_, ElementsAre("inherits 1", "inherits 1", "keeps 2", "keeps 3", "inherits 1", "keeps 4"));
}

TEST_P(TaskTest, ADetachedTaskDoesNotInheritTheDeadline) {
  auto deadline = []() -> Task<MonotonicTime> { co_return Context::Current().deadline(); };
  Context context = Context().WithDeadline(MonotonicTime::FromNanos(5));
  const TaskHandle<MonotonicTime> detached = context.Run([&] { return loop_.CreateTask(deadline()); });
  RunReady();
  EXPECT_TRUE(detached.result().is_infinite());
}

// ---------------------------------------------------------------------------------------------------- RunUntilComplete

// C-LOOP-19
TEST_P(TaskTest, RunUntilCompleteGivesTheResultOrThrowsTheError) {
  EXPECT_EQ(loop_.RunUntilComplete(One()), 1);
  auto make = []() -> Task<std::unique_ptr<int>> { co_return std::make_unique<int>(4); };
  EXPECT_EQ(*loop_.RunUntilComplete(make()), 4);
  Promise<int> promise(loop_);
  loop_.CallLater(absl::Seconds(1), [&] { promise.SetValue(6); });
  EXPECT_EQ(loop_.RunUntilComplete(promise.future()), 6);
  EXPECT_EQ(loop_.RunUntilComplete(promise.future()), 6);
  auto refuses = []() -> Task<absl::Status> { co_return absl::NotFoundError("x"); };
  EXPECT_EQ(loop_.RunUntilComplete(refuses()), absl::NotFoundError("x"));
}

// C-LOOP-20
TEST_P(TaskTest, StoppedEarlyItSaysSo) {
  loop_.CallSoon([&] { loop_.Stop(); });
  try {
    loop_.RunUntilComplete(Promise<int>(loop_).future());
    ADD_FAILURE();
  } catch (const InvalidState& error) {
    EXPECT_STREQ(error.what(), "Event loop stopped before Future completed.");
  }
}

// C-LOOP-22
TEST_P(TaskTest, AFutureOfAnotherLoopIsRefused) {
  EventLoop other(os_);
  EXPECT_THROW(loop_.RunUntilComplete(Promise<int>(other).future()), InvalidState);
  other.Close();
}

// C-LOOP-18, C-LOOP-17, C-LOOP-27: and the task given is not left behind.
TEST_P(TaskTest, WhereNoLoopCanRunTheTaskGoesUnrun) {
  loop_.RunUntilComplete([](EventLoop& loop) -> Task<void> {
    EXPECT_THROW(loop.RunUntilComplete(One()), InvalidState);
    co_return;
  }(loop_));
  EXPECT_TRUE(loop_.tasks().empty());
  loop_.Close();
  EXPECT_THROW(loop_.RunUntilComplete(One()), InvalidState);
  EXPECT_THROW(loop_.CreateTask(One()), InvalidState);
  EXPECT_THAT(TakeReports(), IsEmpty());
}

}  // namespace
}  // namespace troupe
