// Gather and GatherSettled: C-CMB-01 to C-CMB-09.
#include "troupe/async/gather.h"

#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <variant>
#include <vector>

#include "troupe/async/sleep.h"
#include "troupe/loop/loop_testing.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::FieldsAre;
using ::testing::IsEmpty;

using GatherTest = LoopTest;
INSTANTIATE_POLLING(GatherTest);

Task<int> After(absl::Duration delay, int value) {
  co_await Sleep(delay);
  co_return value;
}
Task<int> ThrowsAfter(absl::Duration delay, std::string text) {
  co_await Sleep(delay);
  throw std::runtime_error(text);
}
Task<absl::Status> StatusAfter(absl::Duration delay, absl::Status status) {
  co_await Sleep(delay);
  co_return status;
}
Task<absl::StatusOr<int>> StatusOrAfter(absl::Duration delay, absl::StatusOr<int> result) {
  co_await Sleep(delay);
  co_return result;
}
Task<void> Nothing(absl::Duration delay) { co_await Sleep(delay); }
Task<void> LogsItsEnd(std::vector<std::string>& log, std::string name, absl::Duration winding_down) {
  struct AtEnd {
    std::vector<std::string>& log;
    std::string name;
    ~AtEnd() { log.push_back(name + " destroyed"); }
  } at_end{log, name};
  bool cancelled = false;
  try {
    co_await Sleep(absl::Hours(1));
  } catch (const Cancelled&) {
    cancelled = true;
  }
  if (cancelled) {
    log.push_back(name + " cancelled");
    co_await Sleep(winding_down);
    log.push_back(name + " wound down");
    throw Cancelled();
  }
}

// C-CMB-01
TEST_P(GatherTest, OfNothingIsDoneAndEmpty) {
  loop_.RunUntilComplete([]() -> Task<void> {
    auto none = Gather(std::vector<Task<int>>());
    EXPECT_TRUE(none.done());
    EXPECT_THAT(none.result(), IsEmpty());
    EXPECT_TRUE(Gather().done());
    EXPECT_TRUE(Gather(std::vector<Task<absl::Status>>()).result().ok());
    EXPECT_TRUE(GatherSettled(std::vector<Task<int>>()).done());
    co_return;
  }());
}

// C-CMB-02
TEST_P(GatherTest, ResultsComeInArgumentOrderWhateverTheFinishingOrder) {
  loop_.RunUntilComplete([]() -> Task<void> {
    EXPECT_THAT(co_await Gather(After(absl::Seconds(3), 1), After(absl::Seconds(1), 2), After(absl::Seconds(2), 3)),
                FieldsAre(1, 2, 3));
    std::vector<Task<int>> tasks;
    for (int i = 0; i < 20; ++i) tasks.push_back(After(absl::Milliseconds((i * 7) % 20), i));
    std::vector<int> expected;
    for (int i = 0; i < 20; ++i) expected.push_back(i);
    EXPECT_EQ(co_await Gather(std::move(tasks)), expected);
  }());
  EXPECT_EQ(loop_.Time() - MonotonicTime(), absl::Seconds(3) + absl::Milliseconds(19));
}

// C-CMB-02
TEST_P(GatherTest, DuplicatesShareOneChild) {
  Promise<int> promise(loop_);
  auto gathered = Gather(promise.future(), promise.future(), promise.future());
  loop_.CallSoon([&] { promise.SetValue(7); });
  EXPECT_THAT(loop_.RunUntilComplete(std::move(gathered)), FieldsAre(7, 7, 7));
}

// asyncio: a child's first step one iteration after the call, the caller two after its end.
TEST_P(GatherTest, TakesAsManyIterationsAsInAsyncio) {
  Iterations iterations(loop_);
  loop_.RunUntilComplete([](Iterations& iterations) -> Task<void> {
    const int start = iterations.count();
    int ran = -1;
    auto child = [](Iterations& iterations, int& ran) -> Task<void> {
      ran = iterations.count();
      co_return;
    };
    co_await Gather(child(iterations, ran));
    EXPECT_EQ(ran - start, 1);
    EXPECT_EQ(iterations.count() - start, 3);
  }(iterations));
}

// C-CMB-03
TEST_P(GatherTest, TheFirstErrorCompletesAtOnceAndTheOthersGoOn) {
  Promise<int> other(loop_);
  loop_.RunUntilComplete([](EventLoop& loop, Promise<int>& other) -> Task<void> {
    auto gathered =
        Gather(other.future(), ThrowsAfter(absl::Seconds(1), "first"), ThrowsAfter(absl::Seconds(2), "second"));
    std::string text;
    try {
      co_await gathered;
    } catch (const std::runtime_error& error) {
      text = error.what();
    }
    EXPECT_EQ(text, "first");
    EXPECT_EQ(loop.Time() - MonotonicTime(), absl::Seconds(1));
    EXPECT_FALSE(other.done());
    EXPECT_EQ(loop.tasks().front().AsFuture()->done(), false);
    co_await Sleep(absl::Seconds(2));
  }(loop_, other));
  // The second error is dropped, as in asyncio: no report.
  EXPECT_THAT(TakeReports(), IsEmpty());
}

TEST_P(GatherTest, AnErrorAfterTheWholeHasFailedAndGoneIsDroppedToo) {
  loop_.RunUntilComplete([]() -> Task<void> {
    try {
      co_await Gather(ThrowsAfter(absl::Seconds(1), "first"), ThrowsAfter(absl::Seconds(2), "second"));
    } catch (const std::runtime_error& error) {
      EXPECT_STREQ(error.what(), "first");
    }
    co_await Sleep(absl::Seconds(2));
  }());
  EXPECT_THAT(TakeReports(), IsEmpty());
}

TEST_P(GatherTest, DroppedWhilePendingItsFuturesSpeakForThemselves) {
  loop_.RunUntilComplete([](EventLoop& loop) -> Task<void> {
    {
      auto fails = loop.CreateTask(ThrowsAfter(absl::Seconds(1), "a"));
      auto gathered = Gather(std::move(fails), After(absl::Seconds(1), 1));
    }
    co_await Sleep(absl::Seconds(2));
  }(loop_));
  EXPECT_THAT(TakeReports(), ElementsAre("Task exception was never retrieved"));
}

// Its tasks may borrow from the frame that holds it: they go first, the last one first.
TEST_P(GatherTest, DroppedWhilePendingItsTasksGoWithIt) {
  auto holds = [](std::vector<std::string>& log) -> Task<void> {
    struct Local {
      std::vector<std::string>& log;
      ~Local() { log.push_back("caller destroyed"); }
    } local{log};
    auto gathered =
        Gather(LogsItsEnd(local.log, "a", absl::ZeroDuration()), LogsItsEnd(local.log, "b", absl::ZeroDuration()));
    auto copy = gathered;
    auto settled = GatherSettled(LogsItsEnd(local.log, "c", absl::ZeroDuration()));
    co_await Sleep(absl::Seconds(1));
    throw std::runtime_error("out");
  };
  EXPECT_THROW(loop_.RunUntilComplete(holds(log_)), std::runtime_error);
  EXPECT_THAT(log_, ElementsAre("c destroyed", "b destroyed", "a destroyed", "caller destroyed"));
  EXPECT_TRUE(loop_.tasks().empty());
  log_.clear();

  auto handle = loop_.CreateTask(holds(log_));
  RunReady();
  handle.task_state().DestroyNow();
  EXPECT_THAT(log_, ElementsAre("c destroyed", "b destroyed", "a destroyed", "caller destroyed"));
  EXPECT_TRUE(loop_.tasks().empty());
}

TEST_P(GatherTest, AHandleElsewhereKeepsItsTasks) {
  Future<std::tuple<int>> kept;
  loop_.RunUntilComplete([](Future<std::tuple<int>>& kept) -> Task<void> {
    auto gathered = Gather(After(absl::Seconds(1), 7));
    kept = gathered;
    co_return;
  }(kept));
  EXPECT_THAT(loop_.RunUntilComplete(std::move(kept)), FieldsAre(7));
}

TEST_P(GatherTest, ATaskMayDropTheGatherThatItRunsIn) {
  auto drops = [](Future<std::tuple<std::monostate, int>>& gathered, std::vector<std::string>& log) -> Task<void> {
    gathered = {};
    log.push_back("still running");
    co_await Sleep(absl::ZeroDuration());
    log.push_back("not reached");
  };
  Future<std::tuple<std::monostate, int>> held;
  loop_.RunUntilComplete([](auto drops, auto& held, std::vector<std::string>& log) -> Task<void> {
    held = Gather(drops(held, log), After(absl::Hours(1), 1));
    co_await Sleep(absl::Seconds(1));
  }(drops, held, log_));
  EXPECT_THAT(log_, ElementsAre("still running"));
  EXPECT_TRUE(loop_.tasks().empty());
}

// None runs where one cannot.
TEST_P(GatherTest, ATaskOfNothingAmongItsArgumentsLeavesNoTaskBehind) {
  loop_.RunUntilComplete([](EventLoop& loop) -> Task<void> {
    int local = 0;
    std::vector<Task<int>> tasks;
    tasks.push_back(After(absl::Seconds(1), local));
    tasks.push_back(Task<int>());
    EXPECT_THROW((void)Gather(std::move(tasks)), InvalidState);
    EXPECT_THROW((void)Gather(After(absl::Seconds(1), local), Task<int>()), InvalidState);
    EXPECT_EQ(&loop.tasks().front(), &loop.tasks().back());  // this one
    co_return;
  }(loop_));
}

TEST_P(GatherTest, AFailureNobodyAwaitedIsReportedOnce) {
  loop_.RunUntilComplete([]() -> Task<void> {
    {
      auto gathered = Gather(ThrowsAfter(absl::Seconds(1), "a"), ThrowsAfter(absl::Seconds(1), "b"));
      co_await Sleep(absl::Seconds(2));
    }
    co_return;
  }());
  EXPECT_THAT(TakeReports(), ElementsAre("Gather exception was never retrieved"));
}

TEST_P(GatherTest, AStatusThatIsNotOkIsTheError) {
  loop_.RunUntilComplete([](EventLoop& loop) -> Task<void> {
    absl::Status all = co_await Gather(StatusAfter(absl::Seconds(2), absl::InternalError("late")),
                                       StatusAfter(absl::Seconds(1), absl::NotFoundError("early")));
    EXPECT_EQ(all, absl::NotFoundError("early"));
    EXPECT_EQ(loop.Time() - MonotonicTime(), absl::Seconds(1));
    all = co_await Gather(StatusAfter(absl::Seconds(1), absl::OkStatus()), Nothing(absl::Seconds(1)));
    EXPECT_EQ(all, absl::OkStatus());

    absl::StatusOr<std::tuple<int, int, std::monostate>> mixed =
        co_await Gather(StatusOrAfter(absl::Seconds(1), 5), After(absl::Seconds(1), 6), Nothing(absl::Seconds(1)));
    EXPECT_EQ(std::get<0>(*mixed), 5);
    EXPECT_EQ(std::get<1>(*mixed), 6);

    std::vector<Task<absl::StatusOr<int>>> tasks;
    tasks.push_back(StatusOrAfter(absl::Seconds(2), 1));
    tasks.push_back(StatusOrAfter(absl::Seconds(1), absl::AbortedError("no")));
    absl::StatusOr<std::vector<int>> vector = co_await Gather(std::move(tasks));
    EXPECT_EQ(vector.status(), absl::AbortedError("no"));
    co_await Sleep(absl::Seconds(5));
  }(loop_));
}

TEST_P(GatherTest, AFutureFailedByAStatusGivesItWhereTheTypeHoldsOne) {
  Promise<int> promise(loop_);
  promise.SetError(absl::NotFoundError("x"));
  auto with_status = Gather(promise.future(), StatusAfter(absl::ZeroDuration(), absl::OkStatus()));
  EXPECT_EQ(loop_.RunUntilComplete(std::move(with_status)).status(), absl::NotFoundError("x"));
  auto without = Gather(promise.future());
  EXPECT_THROW(loop_.RunUntilComplete(std::move(without)), StatusError);
}

TEST_P(GatherTest, MoveOnlyValuesMoveThrough) {
  auto make = [](int value) -> Task<std::unique_ptr<int>> { co_return std::make_unique<int>(value); };
  loop_.RunUntilComplete([](auto make) -> Task<void> {
    std::vector<Task<std::unique_ptr<int>>> tasks;
    tasks.push_back(make(1));
    tasks.push_back(make(2));
    std::vector<std::unique_ptr<int>> values = co_await Gather(std::move(tasks));
    EXPECT_EQ(*values[0] + *values[1], 3);
    auto [a] = co_await Gather(make(3));
    EXPECT_EQ(*a, 3);
  }(make));
}

// C-CMB-07: as in asyncio, a task hears of its cancellation when the Gather that nothing can cancel any more has ended.
TEST_P(GatherTest, CancelledWhenTheChildrenAreDoneTheTaskStillWaitsForTheWhole) {
  Promise<int> promise(loop_);
  auto task = loop_.CreateTask([](Future<int> child, std::vector<std::string>& log) -> Task<void> {
    try {
      co_await Gather(child);
    } catch (const Cancelled&) {
      log.push_back("cancelled");
      throw;
    }
  }(promise.future(), log_));
  loop_.CallLater(absl::Seconds(1), [&] {
    promise.SetValue(1);
    EXPECT_TRUE(task.Cancel());
    loop_.Post([&] { log_.push_back("an iteration"); });
  });
  EXPECT_THROW(loop_.RunUntilComplete(Future<void>(task)), Cancelled);
  EXPECT_THAT(log_, ElementsAre("an iteration", "cancelled"));
}

// C-CMB-04
TEST_P(GatherTest, SettledKeepsEveryOutcome) {
  Promise<int> cancelled(loop_);
  loop_.RunUntilComplete([](Promise<int>& cancelled) -> Task<void> {
    EventLoop::Current().CallSoon([&] { cancelled.future().Cancel(); });
    auto [value, error, gone, status] =
        co_await GatherSettled(After(absl::Seconds(1), 1), ThrowsAfter(absl::Seconds(2), "x"), cancelled.future(),
                               StatusAfter(absl::Seconds(1), absl::DataLossError("d")));
    EXPECT_EQ(value.result(), 1);
    EXPECT_TRUE(error.exception() != nullptr);
    EXPECT_TRUE(gone.cancelled());
    EXPECT_EQ(status.result(), absl::DataLossError("d"));
  }(cancelled));
  EXPECT_THAT(TakeReports(), IsEmpty());
}

// C-CMB-06
TEST_P(GatherTest, ACancelledChildFailsTheWholeWithCancelledAndLeavesTheSiblings) {
  Promise<int> one(loop_), two(loop_);
  auto gathered = Gather(one.future(), two.future());
  loop_.CallSoon([&] { one.future().Cancel(); });
  EXPECT_THROW(loop_.RunUntilComplete(gathered), Cancelled);
  EXPECT_TRUE(gathered.done());
  EXPECT_FALSE(gathered.cancelled());
  EXPECT_FALSE(two.done());
}

// C-CMB-07
TEST_P(GatherTest, CancellingTheWholeCancelsEveryChildAndEndsWhenTheLastHasEnded) {
  auto waits = loop_.CreateTask([](std::vector<std::string>& log) -> Task<void> {
    co_await Gather(LogsItsEnd(log, "a", absl::Seconds(1)), LogsItsEnd(log, "b", absl::Seconds(5)));
  }(log_));
  loop_.CallLater(absl::Seconds(1), [&] { EXPECT_TRUE(waits.Cancel()); });
  EXPECT_THROW(loop_.RunUntilComplete(Future<void>(waits)), Cancelled);
  EXPECT_THAT(log_,
              ElementsAre("a cancelled", "b cancelled", "a wound down", "a destroyed", "b wound down", "b destroyed"));
  EXPECT_EQ(loop_.Time() - MonotonicTime(), absl::Seconds(6));
}

// C-CMB-07: asyncio's test_cancel_gather_1: once every child is done the whole cannot be cancelled any more.
TEST_P(GatherTest, RefusesToBeCancelledOnceAllChildrenAreDone) {
  Promise<int> one(loop_);
  auto gathered = Gather(one.future());
  loop_.CallSoon([&] {
    one.SetValue(1);
    EXPECT_FALSE(gathered.Cancel());
  });
  EXPECT_THAT(loop_.RunUntilComplete(gathered), FieldsAre(1));
}

TEST_P(GatherTest, AWaiterCancelledBetweenTheLastChildAndTheWholeIsCancelled) {
  Promise<int> one(loop_);
  auto waits = loop_.CreateTask([](Future<int> one) -> Task<void> { co_await Gather(one); }(one.future()));
  loop_.CallLater(absl::Seconds(1), [&] {
    one.SetValue(1);
    EXPECT_TRUE(waits.Cancel());
  });
  EXPECT_THROW(loop_.RunUntilComplete(Future<void>(waits)), Cancelled);
}

TEST_P(GatherTest, SettledIsCancelledAsAWhole) {
  auto waits = loop_.CreateTask([](std::vector<std::string>& log) -> Task<void> {
    co_await GatherSettled(LogsItsEnd(log, "a", absl::Seconds(1)), After(absl::Hours(1), 1));
  }(log_));
  loop_.CallLater(absl::Seconds(1), [&] { waits.Cancel(); });
  EXPECT_THROW(loop_.RunUntilComplete(Future<void>(waits)), Cancelled);
  EXPECT_THAT(log_, ElementsAre("a cancelled", "a wound down", "a destroyed"));
}

// C-CMB-09
TEST_P(GatherTest, FuturesOfSeveralLoopsAreRefused) {
  EventLoop other(os_);
  Promise<int> here(loop_), there(other);
  EXPECT_THROW((void)Gather(here.future(), there.future()), InvalidState);
  std::vector<Future<int>> both = {here.future(), there.future()};
  EXPECT_THROW((void)Gather(both), InvalidState);
  other.Close();
}

TEST_P(GatherTest, ChildrenInheritTheContextWithItsDeadline) {
  static const ContextVar<int> kVariable(0);
  loop_.RunUntilComplete([]() -> Task<void> {
    kVariable.Set(5);
    auto child = []() -> Task<int> {
      EXPECT_EQ(Context::Current().deadline(), MonotonicTime::FromNanos(1000));
      co_return kVariable.Get();
    };
    auto future = Context::Current().WithDeadline(MonotonicTime::FromNanos(1000)).Run([&] { return Gather(child()); });
    EXPECT_THAT(co_await future, FieldsAre(5));
  }());
}

// The frames of children that borrow from the caller go before the caller's.
TEST_P(GatherTest, DestroyedWhileSuspendedItsChildrenGoToo) {
  {
    auto waits = loop_.CreateTask([](std::vector<std::string>& log) -> Task<void> {
      struct Local {
        std::vector<std::string>& log;
        ~Local() { log.push_back("caller destroyed"); }
      } local{log};
      co_await Gather(LogsItsEnd(log, "a", absl::ZeroDuration()), LogsItsEnd(log, "b", absl::ZeroDuration()));
    }(log_));
    RunReady();
    waits.task_state().DestroyNow();
  }
  EXPECT_THAT(log_, ElementsAre("b destroyed", "a destroyed", "caller destroyed"));
  EXPECT_TRUE(loop_.tasks().empty());
}

}  // namespace
}  // namespace troupe
