// TaskGroup: tasks that belong together end together, and before their owner.
#include "troupe/async/task_group.h"

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "troupe/async/sleep.h"
#include "troupe/loop/loop_testing.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::StartsWith;

using TaskGroupTest = LoopTest;
INSTANTIATE_POLLING(TaskGroupTest);

// Says in the log how it ended.
Task<void> Sleeper(std::vector<std::string>& log, std::string name, absl::Duration delay) {
  struct AtEnd {
    std::vector<std::string>& log;
    std::string& name;
    const char* how = " destroyed";
    ~AtEnd() { log.push_back(name + how); }
  } at_end{log, name};
  try {
    co_await Sleep(delay);
  } catch (const Cancelled&) {
    at_end.how = " cancelled";
    throw;
  }
  at_end.how = " slept";
}
Task<void> Throws(absl::Duration delay, std::string text) {
  co_await Sleep(delay);
  throw std::runtime_error(text);
}
Task<absl::Status> Fails(absl::Duration delay, absl::Status status) {
  co_await Sleep(delay);
  co_return status;
}
Task<int> Gives(int value) { co_return value; }

TEST_P(TaskGroupTest, JoinWaitsForAllAndHandlesGiveTheValues) {
  loop_.RunUntilComplete([](std::vector<std::string>& log) -> Task<void> {
    TaskGroup group;
    group.Spawn(Sleeper(log, "a", absl::Seconds(2)), "a");
    group.Spawn(Sleeper(log, "b", absl::Seconds(1)), "b");
    const TaskHandle<int> value = group.Spawn(Gives(4));
    EXPECT_EQ(group.size(), 3u);
    absl::Status joined = co_await group.Join();
    EXPECT_EQ(joined, absl::OkStatus());
    EXPECT_EQ(value.result(), 4);
    EXPECT_TRUE(group.empty());
    joined = co_await group.Join();
    EXPECT_EQ(joined, absl::OkStatus());
  }(log_));
  EXPECT_THAT(log_, ElementsAre("b slept", "a slept"));
}

// asyncio's TaskGroup: a child's step one iteration after it was made, the joiner two after its end.
TEST_P(TaskGroupTest, TakesAsManyIterationsAsInAsyncio) {
  Iterations iterations(loop_);
  loop_.RunUntilComplete([](Iterations& iterations) -> Task<void> {
    TaskGroup group;
    const int start = iterations.count();
    group.Spawn(Gives(1));
    const absl::Status joined = co_await group.Join();
    EXPECT_EQ(joined, absl::OkStatus());
    EXPECT_EQ(iterations.count() - start, 3);
  }(iterations));
}

TEST_P(TaskGroupTest, TheFirstExceptionCancelsTheRestAndIsThrown) {
  loop_.RunUntilComplete([](std::vector<std::string>& log) -> Task<void> {
    TaskGroup group;
    group.Spawn(Sleeper(log, "a", absl::Hours(1)));
    group.Spawn(Throws(absl::Seconds(1), "boom"));
    std::string text;
    try {
      (void)co_await group.Join();
    } catch (const std::runtime_error& error) {
      text = error.what();
    }
    EXPECT_EQ(text, "boom");
    const absl::Status again = co_await group.Join();
    EXPECT_EQ(again, absl::OkStatus());
  }(log_));
  EXPECT_THAT(log_, ElementsAre("a cancelled"));
  EXPECT_EQ(loop_.Time() - MonotonicTime(), absl::Seconds(1));
}

TEST_P(TaskGroupTest, TheFirstStatusCancelsTheRestAndIsReturned) {
  loop_.RunUntilComplete([](std::vector<std::string>& log) -> Task<void> {
    TaskGroup group;
    group.Spawn(Fails(absl::Seconds(2), absl::InternalError("never gets there")));
    group.Spawn(Sleeper(log, "a", absl::Hours(1)));
    group.Spawn(Fails(absl::Seconds(1), absl::NotFoundError("gone")));
    const absl::Status joined = co_await group.Join();
    EXPECT_EQ(joined, absl::NotFoundError("gone"));
  }(log_));
  EXPECT_THAT(log_, ElementsAre("a cancelled"));
}

TEST_P(TaskGroupTest, AStatusErrorIsTheStatusItCarries) {
  loop_.RunUntilComplete([]() -> Task<void> {
    TaskGroup group;
    group.Spawn([]() -> Task<void> {
      throw StatusError(absl::DataLossError("x"));
      co_return;
    }());
    const absl::Status joined = co_await group.Join();
    EXPECT_EQ(joined, absl::DataLossError("x"));
  }());
}

TEST_P(TaskGroupTest, ExceptionsAfterTheFirstAreReported) {
  loop_.RunUntilComplete([]() -> Task<void> {
    TaskGroup group;
    group.Spawn([]() -> Task<void> {
      try {
        co_await Sleep(absl::Hours(1));
      } catch (const Cancelled&) {
        throw std::runtime_error("while it was cancelled");
      }
    }());
    group.Spawn(Fails(absl::Seconds(1), absl::NotFoundError("first")));
    const absl::Status joined = co_await group.Join();
    EXPECT_EQ(joined, absl::NotFoundError("first"));
  }());
  EXPECT_THAT(TakeReports(), ElementsAre("Exception in a task of a TaskGroup that had failed before"));
}

TEST_P(TaskGroupTest, AChildCancelledByItsHandleHasNotFailed) {
  loop_.RunUntilComplete([](std::vector<std::string>& log) -> Task<void> {
    TaskGroup group;
    const TaskHandle<void> one = group.Spawn(Sleeper(log, "a", absl::Hours(1)));
    group.Spawn(Sleeper(log, "b", absl::Seconds(1)));
    one.Cancel();
    const absl::Status joined = co_await group.Join();
    EXPECT_EQ(joined, absl::OkStatus());
  }(log_));
  EXPECT_THAT(log_, ElementsAre("b slept"));  // a never ran
}

TEST_P(TaskGroupTest, ACancelledJoinCancelsTheChildrenWaitsForThemAndThrows) {
  auto waits = loop_.CreateTask([](std::vector<std::string>& log) -> Task<void> {
    TaskGroup group;
    group.Spawn([](std::vector<std::string>& log) -> Task<void> {
      try {
        co_await Sleep(absl::Hours(1));
      } catch (const Cancelled&) {
        log.push_back("cancelled");
      }
      co_await Sleep(absl::Seconds(3));
      log.push_back("wound down");
    }(log));
    try {
      (void)co_await group.Join();
    } catch (const Cancelled&) {
      EXPECT_TRUE(group.empty());
      log.push_back("join cancelled");
      throw;
    }
  }(log_));
  loop_.CallLater(absl::Seconds(1), [&] { waits.Cancel(); });
  EXPECT_THROW(loop_.RunUntilComplete(Future<void>(waits)), Cancelled);
  EXPECT_THAT(log_, ElementsAre("cancelled", "wound down", "join cancelled"));
  EXPECT_EQ(loop_.Time() - MonotonicTime(), absl::Seconds(4));
}

TEST_P(TaskGroupTest, AnExceptionOfAChildGoesBeforeTheCancellationOfJoinAndAStatusDoesNot) {
  for (const bool throws : {true, false}) {
    auto waits = loop_.CreateTask([](bool throws) -> Task<void> {
      TaskGroup group;
      group.Spawn([](bool throws) -> Task<absl::Status> {
        try {
          co_await Sleep(absl::Hours(1));
        } catch (const Cancelled&) {
          if (throws) throw std::runtime_error("x");
        }
        co_return absl::InternalError("y");
      }(throws));
      (void)co_await group.Join();
    }(throws));
    loop_.CallLater(absl::Seconds(1), [&] { waits.Cancel(); });
    if (throws) {
      EXPECT_THROW(loop_.RunUntilComplete(Future<void>(waits)), std::runtime_error);
    } else {
      EXPECT_THROW(loop_.RunUntilComplete(Future<void>(waits)), Cancelled);
    }
  }
}

TEST_P(TaskGroupTest, InAFailedGroupNothingStartsUntilItWasJoined) {
  loop_.RunUntilComplete([](std::vector<std::string>& log) -> Task<void> {
    TaskGroup group;
    group.Spawn(Fails(absl::ZeroDuration(), absl::NotFoundError("x")));
    co_await Sleep(absl::Seconds(1));
    const TaskHandle<void> late = group.Spawn(Sleeper(log, "late", absl::ZeroDuration()));
    absl::Status joined = co_await group.Join();
    EXPECT_EQ(joined, absl::NotFoundError("x"));
    EXPECT_TRUE(late.cancelled());
    group.Spawn(Sleeper(log, "again", absl::ZeroDuration()));
    joined = co_await group.Join();
    EXPECT_EQ(joined, absl::OkStatus());
  }(log_));
  EXPECT_THAT(log_, ElementsAre("again slept"));
}

TEST_P(TaskGroupTest, ChildrenMaySpawnSiblings) {
  loop_.RunUntilComplete([](std::vector<std::string>& log) -> Task<void> {
    TaskGroup group;
    group.Spawn([](TaskGroup& group, std::vector<std::string>& log) -> Task<void> {
      co_await Sleep(absl::Seconds(1));
      group.Spawn(Sleeper(log, "grandchild", absl::Seconds(1)));
    }(group, log));
    const absl::Status joined = co_await group.Join();
    EXPECT_EQ(joined, absl::OkStatus());
  }(log_));
  EXPECT_THAT(log_, ElementsAre("grandchild slept"));
}

TEST_P(TaskGroupTest, OneJoinAtATime) {
  loop_.RunUntilComplete([](std::vector<std::string>& log) -> Task<void> {
    TaskGroup group;
    group.Spawn(Sleeper(log, "a", absl::Seconds(1)));
    auto join = [](TaskGroup& group) -> Task<void> { (void)co_await group.Join(); };
    const TaskHandle<void> first = EventLoop::Current().CreateTask(join(group));
    co_await Sleep(absl::ZeroDuration());
    bool refused = false;
    try {
      (void)co_await group.Join();
    } catch (const InvalidState&) {
      refused = true;
    }
    EXPECT_TRUE(refused);
    co_await first;
  }(log_));
}

TEST_P(TaskGroupTest, ItsDestructorDestroysWhatIsLeftTheYoungestFirst) {
  {
    TaskGroup group(loop_);
    group.Spawn(Sleeper(log_, "a", absl::Hours(1)));
    group.Spawn(Sleeper(log_, "b", absl::Hours(1)));
    group.Spawn(Sleeper(log_, "done", absl::ZeroDuration()));
    RunReady();
    EXPECT_THAT(log_, ElementsAre("done slept"));
    log_.clear();
  }
  EXPECT_THAT(log_, ElementsAre("b destroyed", "a destroyed"));
  EXPECT_TRUE(loop_.tasks().empty());
}

TEST_P(TaskGroupTest, AnExceptionThatNoJoinTookIsReportedByTheDestructor) {
  {
    TaskGroup group(loop_);
    group.Spawn(Throws(absl::ZeroDuration(), "x"));
    RunReady();
  }
  EXPECT_THAT(TakeReports(), ElementsAre("TaskGroup exception was never retrieved"));
}

// A class whose tasks use its members, the group last.
struct Owner {
  explicit Owner(EventLoop& loop, std::vector<std::string>& log) : log(log), group(loop) {}
  ~Owner() { log.push_back("owner destroyed"); }
  Task<void> DestroysItsOwner(std::unique_ptr<Owner>& self) {
    co_await Sleep(absl::Seconds(1));
    std::vector<std::string>& log = this->log;
    self = nullptr;
    log.push_back("still running");
    co_await Sleep(absl::Hours(1));
    log.push_back("not reached");
  }
  std::vector<std::string>& log;
  TaskGroup group;
};

// P-4
TEST_P(TaskGroupTest, AChildMayDestroyTheGroupItRunsIn) {
  auto owner = std::make_unique<Owner>(loop_, log_);
  owner->group.Spawn(owner->DestroysItsOwner(owner));
  loop_.RunUntilComplete(Sleep(absl::Seconds(2)));
  EXPECT_THAT(log_, ElementsAre("owner destroyed", "still running"));
  EXPECT_TRUE(loop_.tasks().empty());
}

TEST_P(TaskGroupTest, DestroyedWhileAnotherTaskJoinsItThatTaskCanStillBeCancelled) {
  auto group = std::make_unique<TaskGroup>(loop_);
  group->Spawn(Sleeper(log_, "a", absl::Hours(1)));
  auto joins = loop_.CreateTask([](TaskGroup& group) -> Task<void> { (void)co_await group.Join(); }(*group));
  RunReady();
  group = nullptr;
  EXPECT_THAT(log_, ElementsAre("a destroyed"));
  joins.Cancel();
  EXPECT_THROW(loop_.RunUntilComplete(Future<void>(joins)), Cancelled);
}

TEST_P(TaskGroupTest, DestroyedAfterItsLastChildEndedAndBeforeTheJoinerResumes) {
  auto group = std::make_unique<TaskGroup>(loop_);
  auto child = group->Spawn(Sleeper(log_, "a", absl::Seconds(1)));
  auto joins = loop_.CreateTask([](TaskGroup& group) -> Task<void> { (void)co_await group.Join(); }(*group));
  // Called right after the group has heard of it.
  child.AddDoneCallback([&](const Future<void>&) {
    EXPECT_TRUE(group->empty());
    group = nullptr;
  });
  loop_.RunUntilComplete(Sleep(absl::Seconds(2)));
  EXPECT_EQ(group, nullptr);
  EXPECT_FALSE(joins.done());
  joins.Cancel();
  EXPECT_THROW(loop_.RunUntilComplete(Future<void>(joins)), Cancelled);
}

TEST_P(TaskGroupTest, ChildrenInheritTheDeadline) {
  loop_.RunUntilComplete([]() -> Task<void> {
    TaskGroup group;
    auto child = []() -> Task<MonotonicTime> { co_return Context::Current().deadline(); };
    Context context = Context::Current().WithDeadline(MonotonicTime::FromNanos(77));
    const TaskHandle<MonotonicTime> handle = context.Run([&] { return group.Spawn(child()); });
    (void)co_await group.Join();
    EXPECT_EQ(handle.result(), MonotonicTime::FromNanos(77));
  }());
}

}  // namespace
}  // namespace troupe
