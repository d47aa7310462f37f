// Queue, Event, Semaphore, Mutex: order, cancellation and destruction of those who wait in them.
#include <memory>
#include <string>
#include <vector>

#include "troupe/async/event.h"
#include "troupe/async/mutex.h"
#include "troupe/async/queue.h"
#include "troupe/async/semaphore.h"
#include "troupe/async/sleep.h"
#include "troupe/loop/loop_testing.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

using SynchronizationTest = LoopTest;
INSTANTIATE_POLLING(SynchronizationTest);

using Log = std::vector<std::string>;

// ---------------------------------------------------------------------------------------------------- Queue

Task<void> Gets(Queue<int>& queue, Log& log, std::string name) {
  const int value = co_await queue.Get();
  log.push_back(name + std::to_string(value));
}
Task<void> Puts(Queue<int>& queue, Log& log, int value) {
  co_await queue.Put(value);
  log.push_back("put" + std::to_string(value));
}

TEST_P(SynchronizationTest, QueueServesGettersInOrder) {
  Queue<int> queue;
  loop_.CreateTask(Gets(queue, log_, "a"));
  loop_.CreateTask(Gets(queue, log_, "b"));
  RunReady();
  EXPECT_TRUE(queue.TryPut(1));
  EXPECT_TRUE(queue.TryPut(2));
  EXPECT_TRUE(queue.TryPut(3));
  RunReady();
  EXPECT_THAT(log_, ElementsAre("a1", "b2"));
  EXPECT_EQ(queue.TryGet(), 3);
  EXPECT_EQ(queue.TryGet(), std::nullopt);
}

TEST_P(SynchronizationTest, QueueMakesPuttersWaitWhileItIsFull) {
  Queue<int> queue(2);
  for (int i = 1; i <= 4; ++i) loop_.CreateTask(Puts(queue, log_, i));
  RunReady();
  EXPECT_THAT(log_, ElementsAre("put1", "put2"));
  EXPECT_TRUE(queue.full());
  EXPECT_FALSE(queue.TryPut(9));
  EXPECT_EQ(queue.TryGet(), 1);
  RunReady();
  EXPECT_THAT(log_, ElementsAre("put1", "put2", "put3"));
  EXPECT_EQ(queue.TryGet(), 2);
  EXPECT_EQ(queue.TryGet(), 3);
  RunReady();
  EXPECT_EQ(queue.TryGet(), 4);
}

// asyncio: who is ready takes before who was woken; the woken one waits again.
TEST_P(SynchronizationTest, AGetterThatWasOvertakenWaitsAgain) {
  Queue<int> queue;
  auto getter = loop_.CreateTask(Gets(queue, log_, "a"));
  RunReady();
  EXPECT_TRUE(queue.TryPut(1));
  EXPECT_EQ(queue.TryGet(), 1);
  RunReady();
  EXPECT_FALSE(getter.done());
  EXPECT_TRUE(queue.TryPut(2));
  RunReady();
  EXPECT_THAT(log_, ElementsAre("a2"));
}

TEST_P(SynchronizationTest, AGetterCancelledAfterItWasWokenWakesTheNext) {
  for (const bool destroy : {false, true}) {
    log_.clear();
    Queue<int> queue;
    auto first = loop_.CreateTask(Gets(queue, log_, "a"));
    auto second = loop_.CreateTask(Gets(queue, log_, "b"));
    RunReady();
    EXPECT_TRUE(queue.TryPut(1));
    if (destroy) {
      first.task_state().DestroyNow();
    } else {
      EXPECT_TRUE(first.Cancel());
    }
    RunReady();
    EXPECT_TRUE(first.cancelled());
    EXPECT_TRUE(second.done());
    EXPECT_THAT(log_, ElementsAre("b1")) << destroy;
  }
}

TEST_P(SynchronizationTest, AGetterCancelledWhileItWaitsLosesNothing) {
  Queue<int> queue;
  auto first = loop_.CreateTask(Gets(queue, log_, "a"));
  loop_.CreateTask(Gets(queue, log_, "b"));
  RunReady();
  first.Cancel();
  EXPECT_TRUE(queue.TryPut(1));
  RunReady();
  EXPECT_THAT(log_, ElementsAre("b1"));
}

TEST_P(SynchronizationTest, APutterCancelledAfterItWasWokenWakesTheNext) {
  Queue<int> queue(1);
  EXPECT_TRUE(queue.TryPut(0));
  auto first = loop_.CreateTask(Puts(queue, log_, 1));
  loop_.CreateTask(Puts(queue, log_, 2));
  RunReady();
  EXPECT_EQ(queue.TryGet(), 0);
  first.Cancel();
  RunReady();
  EXPECT_THAT(log_, ElementsAre("put2"));
  EXPECT_EQ(queue.TryGet(), 2);
}

TEST_P(SynchronizationTest, QueueJoinWaitsUntilEveryValueIsDealtWith) {
  Queue<int> queue;
  EXPECT_TRUE(queue.TryPut(1));
  EXPECT_TRUE(queue.TryPut(2));
  auto joins = loop_.CreateTask(queue.Join());
  RunReady();
  EXPECT_FALSE(joins.done());
  (void)queue.TryGet();
  queue.TaskDone();
  (void)queue.TryGet();
  RunReady();
  EXPECT_FALSE(joins.done());
  queue.TaskDone();
  RunReady();
  EXPECT_TRUE(joins.done());
  EXPECT_THROW(queue.TaskDone(), InvalidState);
}

TEST_P(SynchronizationTest, QueueOfMoveOnlyValues) {
  loop_.RunUntilComplete([]() -> Task<void> {
    Queue<std::unique_ptr<int>> queue(1);
    co_await queue.Put(std::make_unique<int>(3));
    auto refused = std::make_unique<int>(4);
    EXPECT_FALSE(queue.TryPut(std::move(refused)));
    EXPECT_EQ(*refused, 4);
    const std::unique_ptr<int> value = co_await queue.Get();
    EXPECT_EQ(*value, 3);
  }());
}

// asyncio: resumes in the iteration after the put.
TEST_P(SynchronizationTest, AGetterResumesOneIterationAfterThePut) {
  Iterations iterations(loop_);
  Queue<int> queue;
  int resumed = 0;
  auto getter = loop_.CreateTask([](Queue<int>& queue, Iterations& iterations, int& resumed) -> Task<void> {
    (void)co_await queue.Get();
    resumed = iterations.count();
  }(queue, iterations, resumed));
  int put = 0;
  loop_.CallLater(absl::Seconds(0), [&] {
    loop_.CallSoon([&] {
      put = iterations.count();
      (void)queue.TryPut(1);
    });
  });
  loop_.RunUntilComplete(Future<void>(getter));
  EXPECT_EQ(resumed - put, 1);
}

// Destroyed after what waits in it, and before.
TEST_P(SynchronizationTest, AQueueMayGoBeforeTheTasksThatAreDestroyedInIt) {
  auto queue = std::make_unique<Queue<int>>();
  auto waiting = loop_.CreateTask(Gets(*queue, log_, "a"));
  auto woken = loop_.CreateTask(Gets(*queue, log_, "b"));
  RunReady();
  EXPECT_TRUE(queue->TryPut(1));
  queue = nullptr;
  waiting.task_state().DestroyNow();
  woken.task_state().DestroyNow();
  EXPECT_THAT(log_, IsEmpty());
}

// ---------------------------------------------------------------------------------------------------- Event

Task<void> Waits(Event& event, Log& log, std::string name) {
  co_await event.Wait();
  log.push_back(name);
}

// Woken, it would look into the queue.
TEST_P(SynchronizationTest, ATaskWokenByAQueueThatGoesBeforeItResumesWaitsUntilItIsCancelled) {
  auto gets = [](Queue<int>& queue) -> Task<int> {
    const int value = co_await queue.Get();
    co_return value;
  };
  auto puts = [](Queue<int>& queue) -> Task<void> { co_await queue.Put(2); };
  auto joins = [](Queue<int>& queue) -> Task<void> { co_await queue.Join(); };
  auto empty = std::make_unique<Queue<int>>(1);
  auto full = std::make_unique<Queue<int>>(1);
  EXPECT_TRUE(full->TryPut(1));
  auto getter = loop_.CreateTask(gets(*empty));
  auto cancelled = loop_.CreateTask(gets(*empty));
  auto putter = loop_.CreateTask(puts(*full));
  auto joiner = loop_.CreateTask(joins(*full));
  RunReady();
  EXPECT_TRUE(empty->TryPut(1));
  EXPECT_EQ(full->TryGet(), 1);
  full->TaskDone();
  cancelled.Cancel();
  empty = nullptr;
  full = nullptr;
  RunReady();
  EXPECT_FALSE(getter.done());
  EXPECT_TRUE(cancelled.cancelled());
  EXPECT_FALSE(putter.done());
  EXPECT_FALSE(joiner.done());
  getter.Cancel();
  putter.Cancel();
  joiner.Cancel();
  RunReady();
  EXPECT_TRUE(getter.cancelled());
  EXPECT_TRUE(putter.cancelled());
  EXPECT_TRUE(joiner.cancelled());
}

TEST_P(SynchronizationTest, EventWakesAllEvenIfItIsClearedAtOnce) {
  Event event;
  loop_.CreateTask(Waits(event, log_, "a"));
  loop_.CreateTask(Waits(event, log_, "b"));
  RunReady();
  event.Set();
  EXPECT_TRUE(event.is_set());
  event.Clear();
  RunReady();
  EXPECT_THAT(log_, ElementsAre("a", "b"));
  auto later = loop_.CreateTask(Waits(event, log_, "c"));
  RunReady();
  EXPECT_FALSE(later.done());
  event.Set();
  event.Set();
  RunReady();
  EXPECT_TRUE(later.done());
  EXPECT_TRUE(loop_.CreateTask(Waits(event, log_, "d")).valid());
  RunReady();
  EXPECT_THAT(log_, ElementsAre("a", "b", "c", "d"));
}

TEST_P(SynchronizationTest, EventForgetsWhoWasCancelled) {
  Event event;
  auto handle = loop_.CreateTask(Waits(event, log_, "a"));
  RunReady();
  handle.Cancel();
  event.Set();
  EXPECT_THROW(loop_.RunUntilComplete(Future<void>(handle)), Cancelled);
  EXPECT_THAT(log_, IsEmpty());
}

// ---------------------------------------------------------------------------------------------------- Semaphore, Mutex

Task<void> Holds(Semaphore& semaphore, Log& log, std::string name, absl::Duration time) {
  const Semaphore::Permit permit = co_await semaphore.Acquire();
  log.push_back(name + " in");
  co_await Sleep(time);
  log.push_back(name + " out");
}

TEST_P(SynchronizationTest, SemaphoreLetsSoManyInFirstComeFirstServed) {
  Semaphore semaphore(2);
  for (const char* name : {"a", "b", "c", "d"}) loop_.CreateTask(Holds(semaphore, log_, name, absl::Seconds(1)));
  loop_.RunUntilComplete(Sleep(absl::Seconds(10)));
  EXPECT_THAT(log_, ElementsAre("a in", "b in", "a out", "b out", "c in", "d in", "c out", "d out"));
  EXPECT_EQ(semaphore.free(), 2u);
}

TEST_P(SynchronizationTest, NobodyOvertakesAtASemaphore) {
  Semaphore semaphore(1);
  std::optional<Semaphore::Permit> held = semaphore.TryAcquire();
  loop_.CreateTask(Holds(semaphore, log_, "a", absl::ZeroDuration()));
  RunReady();
  held = std::nullopt;  // handed to a, which has not resumed
  EXPECT_TRUE(semaphore.locked());
  EXPECT_FALSE(semaphore.TryAcquire().has_value());
  RunReady();
  EXPECT_THAT(log_, ElementsAre("a in", "a out"));
  EXPECT_TRUE(semaphore.TryAcquire().has_value());
}

TEST_P(SynchronizationTest, APermitGivenToWhoIsCancelledOrDestroyedGoesOn) {
  for (const bool destroy : {false, true}) {
    log_.clear();
    Semaphore semaphore(1);
    std::optional<Semaphore::Permit> held = semaphore.TryAcquire();
    auto first = loop_.CreateTask(Holds(semaphore, log_, "a", absl::ZeroDuration()));
    auto second = loop_.CreateTask(Holds(semaphore, log_, "b", absl::ZeroDuration()));
    RunReady();
    held = std::nullopt;
    if (destroy) {
      first.task_state().DestroyNow();
    } else {
      first.Cancel();
    }
    RunReady();
    EXPECT_THAT(log_, ElementsAre("b in", "b out")) << destroy;
    EXPECT_EQ(semaphore.free(), 1u);
    EXPECT_TRUE(second.done());
  }
}

TEST_P(SynchronizationTest, PermitsMoveAndAreReleasedOnce) {
  Semaphore semaphore(3);
  Semaphore::Permit a = *semaphore.TryAcquire();
  Semaphore::Permit b = std::move(a);
  EXPECT_FALSE(a.valid());
  EXPECT_TRUE(b.valid());
  EXPECT_EQ(semaphore.free(), 2u);
  b.Release();
  b.Release();
  EXPECT_EQ(semaphore.free(), 3u);
  Semaphore::Permit c = *semaphore.TryAcquire();
  c = *semaphore.TryAcquire();
  EXPECT_EQ(semaphore.free(), 2u);
}

TEST_P(SynchronizationTest, MutexLetsOneInAcrossItsAwaits) {
  Mutex mutex;
  int inside = 0;
  auto enter = [](Mutex& mutex, int& inside) -> Task<void> {
    const Mutex::Guard guard = co_await mutex.Lock();
    EXPECT_EQ(++inside, 1);
    co_await Sleep(absl::Seconds(1));
    EXPECT_EQ(--inside, 0);
  };
  for (int i = 0; i < 5; ++i) loop_.CreateTask(enter(mutex, inside));
  loop_.RunUntilComplete(Sleep(absl::Seconds(3)));
  EXPECT_TRUE(mutex.locked());
  EXPECT_FALSE(mutex.TryLock().has_value());
  loop_.RunUntilComplete(Sleep(absl::Seconds(3)));
  EXPECT_FALSE(mutex.locked());
}

}  // namespace
}  // namespace troupe
