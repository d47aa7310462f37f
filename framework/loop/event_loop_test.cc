// EventLoop: queue, iteration, stop, close (C-LOOP) and handles and timers (C-HND).
#include "troupe/loop/event_loop.h"

#include <glog/logging.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "troupe/loop/loop_testing.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using EventLoopTest = LoopTest;
INSTANTIATE_POLLING(EventLoopTest);

// The message of the InvalidState that `f` throws.
template <class F>
std::string Misuse(F&& f) {
  try {
    f();
  } catch (const InvalidState& error) {
    return error.what();
  }
  return "nothing was thrown";
}

// ---------------------------------------------------------------------------------------------------- queue

// C-LOOP-01
TEST_P(EventLoopTest, CallbacksRunFirstInFirstOutEachOnce) {
  for (int i = 0; i < 100; ++i) {
    loop_.CallSoon([this, i] { log_.push_back(std::to_string(i)); });
    loop_.Post([this, i] { log_.push_back(std::to_string(i)); });
  }
  EXPECT_THAT(log_, IsEmpty());
  RunReady();
  RunReady();
  ASSERT_EQ(log_.size(), 200u);
  for (int i = 0; i < 200; ++i) EXPECT_EQ(log_[i], std::to_string(i / 2));
}

// C-LOOP-02
TEST_P(EventLoopTest, WhatABatchSchedulesRunsInTheNextOne) {
  loop_.CallSoon([this] {
    log_.push_back("a");
    loop_.CallSoon([this] { log_.push_back("scheduled by a"); });
  });
  loop_.CallSoon([this] { log_.push_back("b"); });
  RunReady();
  EXPECT_THAT(log_, ElementsAre("a", "b", "scheduled by a"));
}

// C-LOOP-02: with strict polling an iteration is a poll.
TEST_P(EventLoopTest, AStrictIterationRunsOneBatchASharedOneSeveral) {
  loop_.CallSoon([this] { loop_.CallSoon([this] { log_.push_back("next"); }); });
  loop_.RunOnceWithoutWaiting();
  EXPECT_EQ(log_.empty(), GetParam() == Polling::kStrict);
}

// What is due takes its place between batches that share a poll, so that the order is that of strict polling.
TEST_P(EventLoopTest, ATimerThatIsDueRunsBeforeWhatTheNextBatchSchedules) {
  loop_.CallSoon([this] {
    loop_.CallLater(absl::ZeroDuration(), [this] { log_.push_back("timer"); });
    loop_.CallSoon([this] {
      log_.push_back("b");
      loop_.CallSoon([this] { log_.push_back("c"); });
    });
  });
  RunReady();
  EXPECT_THAT(log_, ElementsAre("b", "timer", "c"));
}

TEST_P(EventLoopTest, SharedPollingIsBounded) {
  Iterations iterations(loop_);
  loop_.RunOnceWithoutWaiting();
  EXPECT_EQ(iterations.count(), GetParam() == Polling::kStrict ? 1 : 16);
}

TEST_P(EventLoopTest, AfterBatchRunsOnceAtTheEndOfTheBatch) {
  struct Flush final : Runnable {
    explicit Flush(std::vector<std::string>& log) : log(log) {}
    void Run() override { log.push_back("flush"); }
    std::vector<std::string>& log;
  } flush(log_);
  for (const char* name : {"a", "b"}) {
    loop_.CallSoon([this, name, &flush] {
      log_.push_back(name);
      if (!flush.linked()) loop_.AfterBatch(flush);
      loop_.CallSoon([this] { log_.push_back("next"); });
    });
  }
  RunReady();
  EXPECT_THAT(log_, ElementsAre("a", "b", "flush", "next", "next"));
}

// ---------------------------------------------------------------------------------------------------- timers

// C-LOOP-05
TEST_P(EventLoopTest, PollsUntilTheNearestTimerAndNotAtAllWhileSomethingIsReady) {
  loop_.CallLater(absl::Seconds(5), [this] {
    log_.push_back("timer");
    loop_.Stop();
  });
  loop_.CallSoon([this] {
    EXPECT_EQ(loop_.Time(), MonotonicTime());
    log_.push_back("ready");
  });
  loop_.RunForever();
  EXPECT_THAT(log_, ElementsAre("ready", "timer"));
  EXPECT_EQ(loop_.Time() - MonotonicTime(), absl::Seconds(5));
}

// C-LOOP-07
TEST_P(EventLoopTest, ATimerIsDueAtItsTimeAndNotBefore) {
  const MonotonicTime when = loop_.Time() + absl::Nanoseconds(100);
  loop_.CallAt(when, [this] { log_.push_back("due"); });
  os_.kernel().clock().AdvanceTo(when - absl::Nanoseconds(1));
  loop_.RunOnceWithoutWaiting();
  EXPECT_THAT(log_, IsEmpty());
  os_.kernel().clock().AdvanceTo(when);
  loop_.RunOnceWithoutWaiting();
  EXPECT_THAT(log_, ElementsAre("due"));
}

// C-LOOP-07: the time is sampled once for the pass: what becomes due by what the batch does waits for the next pass.
TEST_P(EventLoopTest, TimersThatBecomeDueWhileTimersRunWait) {
  loop_.CallAt(MonotonicTime::FromNanos(10), [this] {
    log_.push_back("first");
    loop_.CallSoon([this] { log_.push_back("scheduled by first"); });
    os_.kernel().clock().AdvanceTo(MonotonicTime::FromNanos(50));
  });
  loop_.CallAt(MonotonicTime::FromNanos(20), [this] { log_.push_back("second"); });
  os_.kernel().clock().AdvanceTo(MonotonicTime::FromNanos(10));
  RunReady();
  EXPECT_THAT(log_, ElementsAre("first", "scheduled by first", "second"));
}

// C-LOOP-08
TEST_P(EventLoopTest, TimersFireInTheOrderOfTheirTimesNegativeDelaysToo) {
  os_.kernel().clock().AdvanceTo(MonotonicTime::FromNanos(1'000'000'000));
  loop_.CallLater(absl::Milliseconds(20), [this] { log_.push_back("20"); });
  loop_.CallLater(-absl::Milliseconds(10), [this] { log_.push_back("-10"); });
  loop_.CallLater(absl::Milliseconds(10), [this] { log_.push_back("10"); });
  loop_.CallLater(-absl::Milliseconds(20), [this] { log_.push_back("-20"); });
  loop_.CallLater(absl::ZeroDuration(), [this] { log_.push_back("0"); });
  loop_.CallLater(absl::Milliseconds(30), [this] { loop_.Stop(); });
  loop_.RunForever();
  EXPECT_THAT(log_, ElementsAre("-20", "-10", "0", "10", "20"));
}

// Stronger than C-LOOP-08, for the simulation's sake.
TEST_P(EventLoopTest, TimersOfOneTimeFireInTheOrderOfScheduling) {
  for (int i = 0; i < 50; ++i) {
    loop_.CallAt(MonotonicTime::FromNanos(100), [this, i] { log_.push_back(std::to_string(i)); });
  }
  loop_.CallLater(absl::Seconds(1), [this] { loop_.Stop(); });
  loop_.RunForever();
  ASSERT_EQ(log_.size(), 50u);
  for (int i = 0; i < 50; ++i) EXPECT_EQ(log_[i], std::to_string(i));
}

// C-LOOP-09, C-HND-04
TEST_P(EventLoopTest, CallLaterIsCallAtOfTimePlusDelay) {
  os_.kernel().clock().AdvanceTo(MonotonicTime::FromNanos(1000));
  TimerHandle later = loop_.CallLater(absl::Nanoseconds(500), [] { FAIL(); });
  EXPECT_EQ(later.when(), MonotonicTime::FromNanos(1500));
  TimerHandle at = loop_.CallAt(MonotonicTime::FromNanos(1500), [] { FAIL(); });
  EXPECT_EQ(at.when(), later.when());
  later.Cancel();
  at.Cancel();
  EXPECT_EQ(loop_.NextWakeup(), MonotonicTime::InfiniteFuture());
}

// C-LOOP-10
TEST_P(EventLoopTest, StepsOfTheWallClockChangeNothing) {
  loop_.CallLater(absl::Seconds(10), [this] {
    log_.push_back("timer");
    loop_.Stop();
  });
  loop_.CallLater(absl::Seconds(1), [this] { os_.SetWallTime(os_.WallNow() + absl::Hours(1000)); });
  loop_.CallLater(absl::Seconds(2), [this] { os_.SetWallTime(os_.WallNow() - absl::Hours(9000)); });
  loop_.RunForever();
  EXPECT_EQ(loop_.Time() - MonotonicTime(), absl::Seconds(10));
}

// C-LOOP-29, C-LOOP-30: a cancelled timer leaves at once.
TEST_P(EventLoopTest, CancelledTimersAreNotKept) {
  std::vector<TimerHandle> handles;
  const auto owned = std::make_shared<int>(0);
  for (int i = 0; i < 1000; ++i) {
    handles.push_back(loop_.CallLater(absl::Seconds(i + 1), [owned] { FAIL(); }));
  }
  for (int i = 0; i < 1000; ++i) handles[(i * 7) % 1000].Cancel();
  EXPECT_EQ(owned.use_count(), 1);
  EXPECT_EQ(loop_.NextWakeup(), MonotonicTime::InfiniteFuture());
}

// ---------------------------------------------------------------------------------------------------- handles

// C-HND-01
TEST_P(EventLoopTest, ACancelledHandleNeverRunsAndDropsWhatItHolds) {
  const auto owned = std::make_shared<int>(0);
  Handle soon = loop_.CallSoon([owned] { FAIL(); });
  TimerHandle later = loop_.CallLater(absl::ZeroDuration(), [owned] { FAIL(); });
  EXPECT_FALSE(soon.cancelled());
  EXPECT_EQ(owned.use_count(), 3);
  soon.Cancel();
  later.Cancel();
  EXPECT_EQ(owned.use_count(), 1);
  soon.Cancel();
  EXPECT_TRUE(soon.cancelled());
  EXPECT_TRUE(later.cancelled());
  RunReady();
  Handle of_nothing;
  of_nothing.Cancel();
  EXPECT_FALSE(of_nothing.cancelled());
}

template <class A, class B>
concept Compares = requires(A a, B b) {
  a == b;
  a < b;
};
// C-HND-05
static_assert(Compares<TimerHandle, TimerHandle>);
// C-HND-05
static_assert(!Compares<TimerHandle, Handle> && !Compares<Handle, TimerHandle> && !Compares<Handle, Handle>);
template <class A, class B>
concept Equals = requires(A a, B b) { a == b; };
// C-HND-05
static_assert(Equals<Handle, Handle> && !Equals<TimerHandle, Handle> && !Equals<Handle, TimerHandle>);

// C-HND-05
TEST_P(EventLoopTest, TimersCompareByTimeAndAreTheSameOnlyIfTheyAreOfTheSameCallback) {
  const MonotonicTime when = loop_.Time() + absl::Seconds(1);
  const auto callback = [] { FAIL(); };
  TimerHandle one = loop_.CallAt(when, callback);
  TimerHandle twin = loop_.CallAt(when, callback);
  TimerHandle later = loop_.CallAt(when + absl::Nanoseconds(1), callback);
  const TimerHandle copy = one;
  EXPECT_TRUE(one < later && one <= later && later > one && later >= one && one != later);
  EXPECT_TRUE(one == copy && one <= copy && one >= copy);
  EXPECT_FALSE(one < copy || one > copy);
  // Of one time, and not the same: neither comes first as far as a comparison can tell.
  EXPECT_TRUE(one != twin);
  EXPECT_FALSE(one < twin || one > twin || one <= twin || one >= twin);
  one.Cancel();
  EXPECT_TRUE(one == copy && copy.cancelled() && one != twin);
  twin.Cancel();
  EXPECT_TRUE(one != twin);
  later.Cancel();

  Handle soon = loop_.CallSoon(callback);
  Handle other = loop_.CallSoon(callback);
  EXPECT_TRUE(soon == Handle(soon));
  EXPECT_TRUE(soon != other && soon != Handle());
  soon.Cancel();
  other.Cancel();
}

template <class L, class R>
concept Schedules = requires(L& loop, R& runnable) { loop.Schedule(runnable); };
// C-HND-07: timers get ready by their time only.
static_assert(Schedules<EventLoop, Runnable> && !Schedules<EventLoop, Timer>);

// C-HND-07
TEST_P(EventLoopTest, ABatchCanBeCancelledFromWithin) {
  Handle later_in_batch;
  loop_.CallSoon([&] { later_in_batch.Cancel(); });
  later_in_batch = loop_.CallSoon([] { FAIL(); });
  TimerHandle due = loop_.CallLater(absl::ZeroDuration(), [] { FAIL(); });
  loop_.CallSoon([&] { due.Cancel(); });
  RunReady();
  EXPECT_TRUE(later_in_batch.cancelled());
}

TEST_P(EventLoopTest, ACallbackMayCancelItself) {
  Handle self;
  const auto owned = std::make_shared<int>(0);
  self = loop_.CallSoon([&self, this, owned] {
    self.Cancel();
    self = Handle();
    log_.push_back(std::to_string(owned.use_count()));
  });
  RunReady();
  EXPECT_THAT(log_, ElementsAre("2"));
  EXPECT_EQ(owned.use_count(), 1);
}

TEST_P(EventLoopTest, DroppingAHandleDoesNotCancel) {
  {
    Handle dropped = loop_.CallSoon([this] { log_.push_back("ran"); });
  }
  RunReady();
  EXPECT_THAT(log_, ElementsAre("ran"));
}

// C-HND-06
TEST_P(EventLoopTest, ACancelledHandleStillNamesWhereItWasMade) {
  Handle handle = loop_.CallSoon([] {});
  handle.Cancel();
  EXPECT_THAT(handle.ToString(), HasSubstr("cancelled created at framework/loop/event_loop_test.cc:"));
}

TEST_P(EventLoopTest, WhatACallbackHoldsIsDestroyedRightAfterItRan) {
  const auto owned = std::make_shared<int>(0);
  Handle handle = loop_.CallSoon([owned] {});
  loop_.CallSoon([&] { log_.push_back(std::to_string(owned.use_count())); });
  RunReady();
  EXPECT_THAT(log_, ElementsAre("1"));
}

TEST_P(EventLoopTest, DeleteLaterDeletesInTheNextIteration) {
  struct Thing {
    explicit Thing(std::vector<std::string>& log) : log(log) {}
    ~Thing() { log.push_back("deleted"); }
    std::vector<std::string>& log;
  };
  loop_.CallSoon([this] {
    loop_.DeleteLater(std::make_unique<Thing>(log_));
    log_.push_back("still there");
  });
  loop_.CallSoon([this] { log_.push_back("same batch"); });
  RunReady();
  EXPECT_THAT(log_, ElementsAre("still there", "same batch", "deleted"));
  loop_.DeleteLater(std::make_unique<Thing>(log_));
  loop_.Close();  // deletes what is queued
  EXPECT_EQ(log_.size(), 4u);
  loop_.DeleteLater(std::make_unique<Thing>(log_));  // and from then on at once
  EXPECT_EQ(log_.size(), 5u);
}

// ---------------------------------------------------------------------------------------------------- stop, run

// C-LOOP-12
TEST_P(EventLoopTest, StopLetsTheBatchComplete) {
  loop_.CallSoon([this] {
    log_.push_back("a");
    loop_.Stop();
    loop_.CallSoon([this] { log_.push_back("next run"); });
  });
  loop_.CallSoon([this] { log_.push_back("b"); });
  loop_.RunForever();
  EXPECT_THAT(log_, ElementsAre("a", "b"));
  loop_.Stop();
  loop_.RunForever();
  EXPECT_THAT(log_, ElementsAre("a", "b", "next run"));
}

// C-LOOP-14
TEST_P(EventLoopTest, StoppedBeforehandItRunsExactlyOneIterationWithoutWaiting) {
  loop_.CallSoon([this] {
    log_.push_back("ready");
    loop_.CallSoon([this] { log_.push_back("not yet"); });
  });
  loop_.CallLater(absl::Seconds(1), [this] { log_.push_back("not yet"); });
  loop_.Stop();
  loop_.RunForever();
  EXPECT_THAT(log_, ElementsAre("ready"));
  EXPECT_EQ(loop_.Time(), MonotonicTime());
}

// C-LOOP-15
TEST_P(EventLoopTest, EveryWayOutResetsWhatRunningSet) {
  loop_.CallSoon([this] {
    EXPECT_TRUE(loop_.IsRunning());
    EXPECT_EQ(EventLoop::CurrentOrNull(), &loop_);
    loop_.Stop();
    throw Fatal("out");
  });
  EXPECT_THROW(loop_.RunForever(), Fatal);
  EXPECT_FALSE(loop_.IsRunning());
  EXPECT_EQ(EventLoop::CurrentOrNull(), nullptr);
  // The stop flag too: this run goes on until the timer.
  loop_.CallLater(absl::Seconds(1), [this] { loop_.Stop(); });
  loop_.RunForever();
  EXPECT_EQ(loop_.Time() - MonotonicTime(), absl::Seconds(1));
}

// C-LOOP-18, C-POL-01, C-POL-03
TEST_P(EventLoopTest, OneRunningLoopAThread) {
  EventLoop other(os_);
  EXPECT_EQ(Misuse([] { EventLoop::Current(); }), "no running event loop");
  loop_.CallSoon([&] {
    EXPECT_EQ(&EventLoop::Current(), &loop_);
    EXPECT_EQ(Misuse([&] { loop_.RunForever(); }), "This event loop is already running");
    EXPECT_EQ(Misuse([&] { other.RunForever(); }), "Cannot run the event loop while another loop is running");
    EXPECT_EQ(&EventLoop::Current(), &loop_);
    EXPECT_TRUE(loop_.IsRunning());
    loop_.Stop();
  });
  loop_.RunForever();
  other.Close();
}

// C-LOOP-23
TEST_P(EventLoopTest, AFatalLeavesAtOnceAndTheRestOfTheBatchStaysQueued) {
  loop_.CallSoon([this] { log_.push_back("a"); });
  loop_.CallSoon([] { throw Fatal("out"); });
  loop_.CallSoon([this] { log_.push_back("b"); });
  EXPECT_THROW(loop_.RunForever(), Fatal);
  EXPECT_THAT(log_, ElementsAre("a"));
  loop_.CallSoon([this] {
    log_.push_back("c");
    loop_.Stop();
  });
  loop_.RunForever();
  EXPECT_THAT(log_, ElementsAre("a", "b", "c"));
}

// C-LOOP-37
TEST_P(EventLoopTest, AFailingCallbackIsReportedAndTheRestOfTheBatchRuns) {
  const auto owned = std::make_shared<int>(0);
  loop_.CallSoon([owned] { throw std::runtime_error("x"); });
  loop_.CallSoon([] { throw Cancelled(); });
  loop_.CallSoon([] { throw 5; });
  loop_.CallLater(absl::ZeroDuration(), [] { throw std::runtime_error("x"); });
  loop_.CallSoon([this] { log_.push_back("ran"); });
  RunReady();
  EXPECT_THAT(log_, ElementsAre("ran"));
  EXPECT_EQ(owned.use_count(), 1);
  EXPECT_THAT(TakeReports(), ElementsAre(HasSubstr("Exception in callback "), HasSubstr("Exception in callback "),
                                         HasSubstr("Exception in callback "), HasSubstr("Exception in callback ")));
}

TEST_P(EventLoopTest, ALoopInWhichNothingCanEverHappenSaysSo) {
  EXPECT_THAT(Misuse([this] { loop_.RunForever(); }), HasSubstr("nothing is left that could wake the event loop"));
}

// ---------------------------------------------------------------------------------------------------- context

// C-LOOP-39
TEST_P(EventLoopTest, CallbacksRunInTheContextOfTheirScheduling) {
  static const ContextVar<int> kVariable(0);
  Context::Current().Run([&] {
    kVariable.Set(1);
    loop_.CallSoon([&] {
      log_.push_back("soon " + std::to_string(kVariable.Get()));
      kVariable.Set(10);  // does not leak
    });
    loop_.CallSoon([&] { log_.push_back("soon " + std::to_string(kVariable.Get())); });
    loop_.CallLater(absl::ZeroDuration(), [&] { log_.push_back("later " + std::to_string(kVariable.Get())); });
    Context other = Context::Current();
    kVariable.Set(2);
    loop_.CallSoonIn(other, [&] { log_.push_back("in " + std::to_string(kVariable.Get())); });
    loop_.CallSoonThreadsafe([&] { log_.push_back("threadsafe " + std::to_string(kVariable.Get())); });
    EXPECT_EQ(kVariable.Get(), 2);
  });
  EXPECT_EQ(kVariable.Get(), 0);
  loop_.CallSoon([&] { log_.push_back("outside " + std::to_string(kVariable.Get())); });
  RunReady();
  EXPECT_EQ(kVariable.Get(), 0);
  EXPECT_THAT(log_,
              ::testing::UnorderedElementsAre("soon 1", "soon 1", "later 1", "in 1", "threadsafe 2", "outside 0"));
}

// ---------------------------------------------------------------------------------------------------- close

// C-LOOP-25
TEST_P(EventLoopTest, ARunningLoopCannotBeClosed) {
  loop_.CallSoon([this] {
    EXPECT_EQ(Misuse([this] { loop_.Close(); }), "Cannot close a running event loop");
    loop_.Stop();
  });
  loop_.RunForever();
  EXPECT_FALSE(loop_.IsClosed());
}

// C-LOOP-26
TEST_P(EventLoopTest, CloseDropsWhatIsQueuedUnrunAndIsIdempotent) {
  const auto owned = std::make_shared<int>(0);
  loop_.CallSoon([owned] { FAIL(); });
  loop_.Post([owned] { FAIL(); });
  loop_.CallLater(absl::ZeroDuration(), [owned] { FAIL(); });
  loop_.CallSoonThreadsafe([owned] { FAIL(); });
  Handle kept = loop_.CallSoon([owned] { FAIL(); });
  EXPECT_EQ(owned.use_count(), 6);
  loop_.Close();
  EXPECT_EQ(owned.use_count(), 1);
  EXPECT_TRUE(loop_.IsClosed());
  loop_.Close();
  kept.Cancel();
}

TEST_P(EventLoopTest, WhatDestructorsScheduleDuringCloseIsDroppedToo) {
  struct Schedules {
    explicit Schedules(EventLoop& loop) : loop(loop) {}
    ~Schedules() {
      loop.CallSoon([] { FAIL(); });
      loop.CallLater(absl::Seconds(1), [] { FAIL(); });
    }
    EventLoop& loop;
  };
  auto schedules = std::make_shared<Schedules>(loop_);
  loop_.CallSoon([schedules = std::move(schedules)] { FAIL(); });
  loop_.Close();
}

// C-LOOP-17, C-LOOP-27
TEST_P(EventLoopTest, AClosedLoopRefusesEverything) {
  loop_.Close();
  const std::string closed = "Event loop is closed";
  EXPECT_EQ(Misuse([this] { loop_.RunForever(); }), closed);
  EXPECT_EQ(Misuse([this] { loop_.CallSoon([] {}); }), closed);
  EXPECT_EQ(Misuse([this] { loop_.Post([] {}); }), closed);
  EXPECT_EQ(Misuse([this] { loop_.CallLater(absl::Seconds(1), [] {}); }), closed);
  EXPECT_EQ(Misuse([this] { loop_.CallAt(MonotonicTime(), [] {}); }), closed);
  EXPECT_EQ(Misuse([this] { loop_.CallSoonThreadsafe([] {}); }), closed);
  EXPECT_EQ(Misuse([this] { loop_.AddReader(1, [] {}); }), closed);
  EXPECT_EQ(Misuse([this] { loop_.AddWriter(1, [] {}); }), closed);
  EXPECT_EQ(Misuse([this] { (void)loop_.AddSignalHandler(2, [] {}); }), closed);
  EXPECT_EQ(Misuse([this] { loop_.executor(); }), closed);
  EXPECT_FALSE(loop_.RemoveReader(1));
}

// C-LOOP-33: from the loop's own thread too, running or not.
TEST_P(EventLoopTest, CallSoonThreadsafeWorksOnTheOwnThread) {
  loop_.CallSoonThreadsafe([this] { log_.push_back("from outside"); });
  EXPECT_EQ(loop_.NextWakeup(), loop_.Time());
  loop_.CallSoon([this] {
    loop_.CallSoonThreadsafe([this] {
      log_.push_back("from inside");
      loop_.Stop();
    });
    log_.push_back("soon");
  });
  loop_.RunForever();
  EXPECT_THAT(log_, ::testing::UnorderedElementsAre("from outside", "soon", "from inside"));
  EXPECT_EQ(log_.back(), "from inside");
}

// C-LOOP-36
TEST_P(EventLoopTest, ALoopLeavesNoDescriptorBehind) {
  RunReady();
  loop_.Close();
  EXPECT_THAT(os_.OpenDescriptors(), IsEmpty());
}

// C-LOOP-41, P-3
TEST_P(EventLoopTest, DestroyingAnOpenLoopWarnsAndClosesIt) {
  struct Warnings final : google::LogSink {
    Warnings() { google::AddLogSink(this); }
    ~Warnings() override { google::RemoveLogSink(this); }
    void send(google::LogSeverity severity, const char*, const char*, int, const google::LogMessageTime&,
              const char* message, size_t bytes) override {
      if (severity == google::GLOG_WARNING) texts.emplace_back(message, bytes);
    }
    std::vector<std::string> texts;
  } warnings;
  const auto owned = std::make_shared<int>(0);
  {
    EventLoop other(os_);
    other.CallSoon([owned] { FAIL(); });
  }
  EXPECT_EQ(owned.use_count(), 1);
  EXPECT_THAT(warnings.texts, ElementsAre("unclosed event loop destroyed"));
  {
    EventLoop closed(os_);
    closed.Close();
  }
  EXPECT_EQ(warnings.texts.size(), 1u);
}

// ---------------------------------------------------------------------------------------------------- extensions

struct First final : internal::LoopLocal {
  explicit First(EventLoop&) {}
  void OnLoopClose() override { log->push_back("first closed"); }
  ~First() override { log->push_back("first destroyed"); }
  std::vector<std::string>* log = nullptr;
};
struct Second final : internal::LoopLocal {
  explicit Second(EventLoop& loop) { loop.Local<First>(); }
  void OnLoopClose() override { log->push_back("second closed"); }
  ~Second() override { log->push_back("second destroyed"); }
  std::vector<std::string>* log = nullptr;
};

TEST_P(EventLoopTest, LocalsAreMadeOnceToldOfTheCloseAndDestroyedWithTheLoopTheLastFirst) {
  std::vector<std::string> log;
  {
    EventLoop loop(os_);
    EXPECT_EQ(loop.LocalOrNull<Second>(), nullptr);
    loop.Local<Second>().log = &log;
    loop.Local<First>().log = &log;
    EXPECT_EQ(&loop.Local<First>(), loop.LocalOrNull<First>());
    loop.Close();
    EXPECT_THAT(log, ElementsAre("second closed", "first closed"));
    EXPECT_NE(loop.LocalOrNull<Second>(), nullptr);
  }
  EXPECT_THAT(log, ElementsAre("second closed", "first closed", "second destroyed", "first destroyed"));
}

}  // namespace
}  // namespace troupe
