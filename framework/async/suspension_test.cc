// Every awaitable, cancelled and destroyed at every point of its life.
//
// Each scenario is a task that awaits something in every state that it has. It is run again and again: cancelled after
// the first iteration, after the second, and so on until it ends by itself; then cancelled twice; then destroyed at
// each point by its owner; then by closing the loop. After each: every frame is gone, no task, no timer and no report
// is left, and a cancellation that was accepted has ended the task as cancelled.
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "troupe/async/async_generator.h"
#include "troupe/async/blocking.h"
#include "troupe/async/event.h"
#include "troupe/async/finally.h"
#include "troupe/async/gather.h"
#include "troupe/async/mutex.h"
#include "troupe/async/queue.h"
#include "troupe/async/semaphore.h"
#include "troupe/async/shield.h"
#include "troupe/async/sleep.h"
#include "troupe/async/task_group.h"
#include "troupe/async/wait.h"
#include "troupe/async/wait_for.h"
#include "troupe/loop/loop_testing.h"

namespace troupe {
namespace {

using ::testing::AnyOf;
using ::testing::Each;

// Counts the frames that are alive: each has one as a local.
int live_frames = 0;
struct Frame {
  Frame() { ++live_frames; }
  ~Frame() { --live_frames; }
};

Task<int> Ready(int value) {
  const Frame frame;
  co_return value;
}
Task<int> After(absl::Duration delay, int value) {
  const Frame frame;
  co_await Sleep(delay);
  co_return value;
}
// Borrows from its caller for as long as it lives.
Task<int> Borrows(int& local, absl::Duration delay) {
  const Frame frame;
  struct Touches {
    int& local;
    ~Touches() { ++local; }
  } touches{local};
  co_await Sleep(delay);
  co_return ++local;
}
// Needs a while to wind down when it is cancelled.
Task<int> Slow(int& local) {
  const Frame frame;
  bool cancelled = false;
  try {
    co_await Sleep(absl::Hours(1));
  } catch (const Cancelled&) {
    cancelled = true;
  }
  co_await Sleep(absl::Seconds(1));
  ++local;
  if (cancelled) throw Cancelled();
  co_return local;
}

Task<void> Sleeps() {
  const Frame frame;
  co_await Sleep(absl::ZeroDuration());
  co_await Sleep(absl::Seconds(1));
  co_await SleepUntil(EventLoop::Current().Time() + absl::Seconds(1));
  co_await SleepUntil(MonotonicTime());
}

Task<void> Futures() {
  const Frame frame;
  EventLoop& loop = EventLoop::Current();
  Promise<int> value, error;
  const TimerHandle one = loop.CallLater(absl::Seconds(1), [value = value.future(), &loop] {
    if (value.done()) return;
    loop.Post([value] {
      if (!value.done()) value.state().SetValue(1);
    });
  });
  co_await value.future();
  loop.CallLater(absl::Seconds(1), [error = error.future()] {
    if (!error.done()) error.state().SetStatus(absl::InternalError("x"));
  });
  try {
    co_await error.future();
  } catch (const StatusError&) {
    // expected
  }
}

Task<void> Chains() {
  const Frame frame;
  int local = 0;
  co_await Borrows(local, absl::Seconds(1));
  const int ready = co_await Ready(1);
  co_await After(absl::ZeroDuration(), ready);
}

Task<void> Handles() {
  const Frame frame;
  EventLoop& loop = EventLoop::Current();
  const TaskHandle<int> handle = loop.CreateTask(After(absl::Seconds(1), 1));
  struct Ends {
    const TaskHandle<int>& handle;
    ~Ends() { handle.task_state().DestroyNow(); }
  } ends{handle};
  co_await handle;
}

Task<void> Gathers() {
  const Frame frame;
  int local = 0;
  co_await Gather(Borrows(local, absl::Seconds(1)), Borrows(local, absl::Seconds(2)), Slow(local), Ready(3));
}
Task<void> GathersSettled() {
  const Frame frame;
  int local = 0;
  auto throws = [](int& local) -> Task<int> {
    const Frame frame;
    co_await Sleep(absl::Seconds(1));
    throw std::runtime_error(std::to_string(local));
  };
  co_await GatherSettled(Borrows(local, absl::Seconds(2)), throws(local));
  std::vector<Task<int>> tasks;
  tasks.push_back(Borrows(local, absl::Seconds(2)));
  tasks.push_back(Borrows(local, absl::Seconds(1)));
  co_await GatherSettled(std::move(tasks));
}

// Made and held, never awaited: what they started must go before the local does.
Task<void> HoldsGathers() {
  const Frame frame;
  int local = 0;
  auto gathered = Gather(Borrows(local, absl::Seconds(2)), Slow(local), Ready(3));
  auto settled = GatherSettled(Borrows(local, absl::Seconds(2)), Slow(local));
  auto nested = Gather(Gather(Borrows(local, absl::Seconds(2))), gathered);
  std::vector<Task<int>> tasks;
  tasks.push_back(Borrows(local, absl::Seconds(2)));
  tasks.push_back(Slow(local));
  auto many = Gather(std::move(tasks));
  co_await Sleep(absl::ZeroDuration());
  co_await Sleep(absl::Seconds(1));
}
Task<void> HoldsOthers() {
  const Frame frame;
  int local = 0;
  std::vector<Task<int>> tasks;
  tasks.push_back(Borrows(local, absl::Seconds(2)));
  tasks.push_back(Slow(local));
  AsCompleted<int> results(std::move(tasks), absl::Seconds(5));
  auto next = results.Next();
  auto wait_for = WaitFor(Borrows(local, absl::Seconds(2)), absl::Seconds(1));
  auto wait_for_gather = WaitFor(Gather(Borrows(local, absl::Seconds(2))), absl::Seconds(1));
  auto shielded = Shield(After(absl::Milliseconds(10), 1));
  std::vector<Future<std::tuple<int>>> gathers;
  gathers.push_back(Gather(Borrows(local, absl::Seconds(2))));
  auto wait = Wait(std::move(gathers));
  auto cleaned = Finally(Borrows(local, absl::Seconds(2)), [&] { return Sleep(absl::Seconds(1)); });
  auto blocking = Blocking([&] { ++local; });
  auto executed = RunInExecutor(absl::AnyInvocable<void()>([frame = std::make_unique<Frame>()] {}));
  auto numbers = []() -> AsyncGenerator<int> {
    const Frame frame;
    co_yield 1;
  };
  AsyncGenerator<int> generator = numbers();
  [[maybe_unused]] auto number = generator.Next();
  Queue<int> queue(1);
  auto put = queue.Put(1);
  auto get = queue.Get();
  Semaphore semaphore(1);
  auto acquire = semaphore.Acquire();
  TaskGroup group;
  group.Spawn(Borrows(local, absl::Seconds(2)));
  auto join = group.Join();
  co_await Sleep(absl::ZeroDuration());
  co_await Sleep(absl::Seconds(1));
}
// Awaited through others.
Task<void> WaitsInGathers() {
  const Frame frame;
  int local = 0;
  (void)co_await WaitFor(Gather(Borrows(local, absl::Seconds(2)), Slow(local)), absl::Seconds(1));
  auto gathered = Gather(Borrows(local, absl::Seconds(2)), Slow(local));
  (void)co_await WaitFor(Shield(gathered), absl::Seconds(1));
  std::vector<Future<std::tuple<int>>> gathers;
  gathers.push_back(Gather(Borrows(local, absl::Seconds(2))));
  gathers.push_back(Gather(Slow(local)));
  co_await Wait(std::move(gathers), {.timeout = absl::Seconds(1)});
}

Task<void> WaitsFor() {
  const Frame frame;
  int local = 0;
  (void)co_await WaitFor(Borrows(local, absl::Seconds(1)), absl::Seconds(2));
  (void)co_await WaitFor(Borrows(local, absl::Seconds(2)), absl::Seconds(1));
  (void)co_await WaitFor(Slow(local), absl::Seconds(1));
  (void)co_await WaitFor(Borrows(local, absl::Seconds(2)), absl::ZeroDuration());
  Promise<int> never;
  (void)co_await WaitFor(never.future(), absl::Seconds(1));
}

Task<void> Shields() {
  const Frame frame;
  co_await Shield(After(absl::Milliseconds(10), 1));
}

Task<void> WaitsSeveral() {
  const Frame frame;
  std::vector<Promise<int>> promises(3);
  std::vector<Future<int>> futures;
  for (const Promise<int>& each : promises) futures.push_back(each.future());
  EventLoop& loop = EventLoop::Current();
  loop.CallLater(absl::Seconds(1), [future = futures[0]] { future.state().SetValue(1); });
  co_await Wait(futures, {.return_when = WaitUntil::kFirstCompleted});
  co_await Wait(futures, {.timeout = absl::Seconds(1)});
  int local = 0;
  std::vector<Task<int>> tasks;
  tasks.push_back(Borrows(local, absl::Seconds(2)));
  tasks.push_back(Borrows(local, absl::Seconds(1)));
  AsCompleted<int> results(std::move(tasks));
  while (results.more()) {
    (void)co_await results.Next();
  }
}

Task<void> Groups() {
  const Frame frame;
  int local = 0;
  TaskGroup group;
  group.Spawn(Borrows(local, absl::Seconds(1)));
  group.Spawn(Slow(local));
  auto fails = []() -> Task<absl::Status> {
    const Frame frame;
    co_await Sleep(absl::Seconds(2));
    co_return absl::InternalError("x");
  };
  group.Spawn(fails());
  (void)co_await group.Join();
  group.Spawn(Borrows(local, absl::Seconds(1)));
  co_await Sleep(absl::Milliseconds(500));
  group.Cancel();
  (void)co_await group.Join();
}

Task<void> CleansUp() {
  const Frame frame;
  int local = 0;
  co_await Finally(Borrows(local, absl::Seconds(1)), [&]() -> Task<void> {
    ++local;
    return Sleep(absl::Seconds(1));
  });
}

Task<void> QueuesUp() {
  const Frame frame;
  Queue<int> queue(1);
  TaskGroup group;
  auto produce = [](Queue<int>& queue) -> Task<void> {
    const Frame frame;
    for (int i = 0; i < 3; ++i) co_await queue.Put(i);
  };
  group.Spawn(produce(queue));
  for (int i = 0; i < 3; ++i) {
    const int value = co_await queue.Get();
    EXPECT_EQ(value, i);
    queue.TaskDone();
  }
  co_await queue.Join();
  (void)co_await group.Join();
}

Task<void> Locks() {
  const Frame frame;
  Mutex mutex;
  Semaphore semaphore(2);
  Event event;
  auto contends = [](Mutex& mutex, Semaphore& semaphore, Event& event) -> Task<void> {
    const Frame frame;
    const Semaphore::Permit permit = co_await semaphore.Acquire();
    const Mutex::Guard guard = co_await mutex.Lock();
    co_await Sleep(absl::Seconds(1));
    event.Set();
  };
  TaskGroup group;
  for (int i = 0; i < 3; ++i) group.Spawn(contends(mutex, semaphore, event));
  co_await event.Wait();
  const Mutex::Guard guard = co_await mutex.Lock();
  (void)co_await semaphore.Acquire();
}

Task<void> Blocks() {
  const Frame frame;
  int local = 0;
  co_await Blocking([&] { ++local; });
  auto future = RunInExecutor([] { return 1; });
  co_await future;
}

Task<void> Generates() {
  const Frame frame;
  auto numbers = []() -> AsyncGenerator<int> {
    const Frame frame;
    for (int i = 0; i < 3; ++i) {
      co_await Sleep(absl::Seconds(1));
      co_yield i;
    }
  };
  AsyncGenerator<int> generator = numbers();
  while (std::optional<int> n = co_await generator.Next()) {
    co_await Sleep(absl::ZeroDuration());
  }
  AsyncGenerator<int> closed = numbers();
  (void)co_await closed.Next();
  co_await closed.Close();
}

struct Scenario {
  const char* name;
  Task<void> (*run)();
  const char* may_report = "";
};

class SuspensionTest : public ::testing::TestWithParam<Scenario> {
 protected:
  // A world for one run.
  struct World {
    World() : loop(os, {.strict_polling = true}) {
      loop.SetExceptionHandler(
          [this](EventLoop&, const ExceptionContext& context) { reports.push_back(context.message); });
      handle = loop.CreateTask(GetParam().run());
    }
    ~World() { loop.Close(); }

    // One iteration, with as much waiting as it takes. False: nothing will ever happen again.
    bool Step() {
      const MonotonicTime next = std::min(loop.NextWakeup(), os.kernel().clock().NextEventTime());
      if (next.is_infinite()) return false;
      os.kernel().clock().AdvanceTo(std::max(next, os.Now()));
      loop.RunOnceWithoutWaiting();
      return true;
    }
    // n iterations; false: it was over before.
    bool Steps(int n) {
      for (int i = 0; i < n; ++i) {
        if (handle.done() || !Step()) return false;
      }
      return !handle.done();
    }
    void Finish() {
      while (Step()) {
      }
    }
    void ExpectNothingLeft() {
      EXPECT_TRUE(loop.tasks().empty()) << loop.tasks().front().DescribeTask();
      EXPECT_EQ(live_frames, 0);
      EXPECT_THAT(reports, Each(GetParam().may_report));
    }

    testing::SimOs os;
    EventLoop loop;
    std::vector<std::string> reports;
    TaskHandle<void> handle;
  };

  void SetUp() override { live_frames = 0; }
};

TEST_P(SuspensionTest, EndsByItself) {
  World world;
  world.Finish();
  EXPECT_TRUE(world.handle.done());
  world.handle.result();
  world.ExpectNothingLeft();
}

TEST_P(SuspensionTest, CancelledAtEveryPoint) {
  for (int n = 0;; ++n) {
    SCOPED_TRACE(n);
    World world;
    if (!world.Steps(n)) break;
    EXPECT_TRUE(world.handle.Cancel());
    EXPECT_FALSE(world.handle.done());
    world.Finish();
    EXPECT_TRUE(world.handle.cancelled());
    world.ExpectNothingLeft();
    ASSERT_LT(n, 1000);
  }
}

TEST_P(SuspensionTest, CancelledTwiceAtEveryPoint) {
  for (int n = 0;; ++n) {
    World probe;
    if (!probe.Steps(n)) break;
    for (int more = 0; more < 4; ++more) {
      SCOPED_TRACE(std::to_string(n) + "+" + std::to_string(more));
      World world;
      EXPECT_TRUE(world.Steps(n) || n == 0);
      EXPECT_TRUE(world.handle.Cancel());
      world.Steps(more);
      world.handle.Cancel();
      world.Finish();
      EXPECT_TRUE(world.handle.cancelled());
      probe.handle.task_state().DestroyNow();
      probe.Finish();
      world.ExpectNothingLeft();
    }
    ASSERT_LT(n, 1000);
  }
}

TEST_P(SuspensionTest, DestroyedByItsOwnerAtEveryPoint) {
  for (int n = 0;; ++n) {
    SCOPED_TRACE(n);
    World world;
    if (!world.Steps(n)) break;
    world.handle.task_state().DestroyNow();
    EXPECT_TRUE(world.handle.cancelled());
    // What it had handed over to the loop may still end.
    world.Finish();
    world.ExpectNothingLeft();
    ASSERT_LT(n, 1000);
  }
}

TEST_P(SuspensionTest, DestroyedAfterACancellationAtEveryPoint) {
  for (int n = 0;; ++n) {
    SCOPED_TRACE(n);
    World world;
    if (!world.Steps(n)) break;
    for (int more = 0; more < 3; ++more) {
      World again;
      EXPECT_TRUE(again.Steps(n) || n == 0);
      again.handle.Cancel();
      again.Steps(more);
      again.handle.task_state().DestroyNow();
      again.Finish();
      EXPECT_TRUE(again.handle.cancelled());
      EXPECT_THAT(again.reports, Each(GetParam().may_report));
    }
    world.handle.task_state().DestroyNow();
    world.Finish();
    world.ExpectNothingLeft();
    ASSERT_LT(n, 1000);
  }
}

TEST_P(SuspensionTest, DestroyedByClosingTheLoopAtEveryPoint) {
  for (int n = 0;; ++n) {
    SCOPED_TRACE(n);
    World world;
    const bool going_on = world.Steps(n);
    world.loop.Close();
    EXPECT_EQ(live_frames, 0);
    EXPECT_TRUE(world.loop.tasks().empty());
    EXPECT_THAT(world.reports, Each(AnyOf("Task was destroyed but it is pending!", GetParam().may_report)));
    if (!going_on) break;
    EXPECT_TRUE(world.handle.cancelled());
    EXPECT_FALSE(world.reports.empty());
    ASSERT_LT(n, 1000);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Awaitables, SuspensionTest,
    // An error that comes just before the cancellation or the destruction is nobody's, and reported.
    ::testing::Values(Scenario{"sleep", Sleeps}, Scenario{"future", Futures, "Future exception was never retrieved"},
                      Scenario{"chain", Chains}, Scenario{"handle", Handles}, Scenario{"gather", Gathers},
                      Scenario{"held_gather", HoldsGathers}, Scenario{"held_others", HoldsOthers},
                      Scenario{"waits_in_gather", WaitsInGathers},
                      Scenario{"settled", GathersSettled, "Task exception was never retrieved"},
                      Scenario{"wait_for", WaitsFor}, Scenario{"shield", Shields}, Scenario{"wait", WaitsSeveral},
                      Scenario{"task_group", Groups, "Task exception was never retrieved"},
                      Scenario{"finally", CleansUp}, Scenario{"queue", QueuesUp}, Scenario{"locks", Locks},
                      Scenario{"blocking", Blocks}, Scenario{"generator", Generates}),
    [](const ::testing::TestParamInfo<Scenario>& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace troupe
