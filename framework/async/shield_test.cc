// Shield: C-CMB-10.
#include "troupe/async/shield.h"

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "troupe/async/gather.h"
#include "troupe/async/sleep.h"
#include "troupe/loop/loop_testing.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

using ShieldTest = LoopTest;
INSTANTIATE_POLLING(ShieldTest);

Task<int> After(absl::Duration delay, int value, std::vector<std::string>* log = nullptr) {
  co_await Sleep(delay);
  if (log != nullptr) log->push_back("done");
  co_return value;
}
Task<void> Throws(absl::Duration delay) {
  co_await Sleep(delay);
  throw std::runtime_error("x");
}

// C-CMB-10
TEST_P(ShieldTest, ResultAndErrorPassThrough) {
  loop_.RunUntilComplete([]() -> Task<void> {
    const int value = co_await Shield(After(absl::Seconds(1), 4));
    EXPECT_EQ(value, 4);
    bool thrown = false;
    try {
      co_await Shield(Throws(absl::Seconds(1)));
    } catch (const std::runtime_error&) {
      thrown = true;
    }
    EXPECT_TRUE(thrown);
    auto make = []() -> Task<std::unique_ptr<int>> { co_return std::make_unique<int>(4); };
    const std::unique_ptr<int> moved = co_await Shield(make());
    EXPECT_EQ(*moved, 4);
  }());
}

// C-CMB-10
TEST_P(ShieldTest, CancellingTheOuterLeavesTheInnerRunning) {
  auto waits = loop_.CreateTask(
      [](std::vector<std::string>& log) -> Task<void> { co_await Shield(After(absl::Seconds(5), 1, &log)); }(log_));
  loop_.CallLater(absl::Seconds(1), [&] { waits.Cancel(); });
  EXPECT_THROW(loop_.RunUntilComplete(Future<void>(waits)), Cancelled);
  EXPECT_EQ(loop_.Time() - MonotonicTime(), absl::Seconds(1));
  EXPECT_THAT(log_, IsEmpty());
  loop_.RunUntilComplete(Sleep(absl::Seconds(10)));
  EXPECT_THAT(log_, ElementsAre("done"));
}

// C-CMB-10
TEST_P(ShieldTest, CancellingTheInnerCancelsTheOuter) {
  Promise<int> inner(loop_);
  Future<int> outer = Shield(inner.future());
  loop_.CallSoon([&] { inner.future().Cancel(); });
  EXPECT_THROW(loop_.RunUntilComplete(outer), Cancelled);
  EXPECT_TRUE(outer.cancelled());
}

TEST_P(ShieldTest, ADoneFutureIsItself) {
  Promise<int> inner(loop_);
  inner.SetValue(1);
  EXPECT_EQ(Shield(inner.future()).core().get(), inner.future().core().get());
}

TEST_P(ShieldTest, AnErrorAfterTheOuterWasCancelledIsReportedByTheInner) {
  loop_.RunUntilComplete([]() -> Task<void> {
    Future<void> outer = Shield(Throws(absl::Seconds(1)));
    outer.Cancel();
    co_await Sleep(absl::Seconds(2));
  }());
  EXPECT_THAT(TakeReports(), ElementsAre("Task exception was never retrieved"));
}

TEST_P(ShieldTest, AnErrorNobodyTookFromTheOuterIsReportedOnce) {
  loop_.RunUntilComplete([]() -> Task<void> {
    {
      Future<void> outer = Shield(Throws(absl::Seconds(1)));
      co_await Sleep(absl::Seconds(2));
    }
    co_return;
  }());
  EXPECT_THAT(TakeReports(), ElementsAre("Shield exception was never retrieved"));
}

TEST_P(ShieldTest, TheInnerDoesNotInheritTheDeadline) {
  loop_.RunUntilComplete([]() -> Task<void> {
    auto deadline = []() -> Task<MonotonicTime> { co_return Context::Current().deadline(); };
    Future<MonotonicTime> shielded =
        Context::Current().WithDeadline(MonotonicTime::FromNanos(5)).Run([&] { return Shield(deadline()); });
    const MonotonicTime seen = co_await shielded;
    EXPECT_TRUE(seen.is_infinite());
  }());
}

// C-CMB-10: what is moved in goes on by itself, what the caller keeps goes with the caller.
TEST_P(ShieldTest, AGatherMovedIntoItGoesOnAndOneThatIsKeptGoesWithItsHolder) {
  auto shields = [](std::vector<std::string>& log, bool move) -> Task<void> {
    auto gathered = Gather(After(absl::Seconds(5), 1, &log));
    if (move) {
      co_await Shield(std::move(gathered));
    } else {
      co_await Shield(gathered);
    }
  };
  for (const bool destroyed : {false, true}) {
    for (const bool move : {false, true}) {
      log_.clear();
      auto waits = loop_.CreateTask(shields(log_, move));
      loop_.RunUntilComplete(Sleep(absl::Seconds(1)));
      if (destroyed) {
        waits.task_state().DestroyNow();
      } else {
        waits.Cancel();
        EXPECT_THROW(loop_.RunUntilComplete(Future<void>(waits)), Cancelled);
      }
      EXPECT_EQ(loop_.tasks().empty(), !move);
      loop_.RunUntilComplete(Sleep(absl::Seconds(10)));
      EXPECT_EQ(log_.size(), move ? 1u : 0u);
      EXPECT_TRUE(loop_.tasks().empty());
    }
  }
}

TEST_P(ShieldTest, AGatherThatGoesOnByItselfReportsItsErrorAndEndsWithTheLoop) {
  loop_.RunUntilComplete([]() -> Task<void> {
    Shield(Gather(Throws(absl::Seconds(1)))).Cancel();
    co_await Sleep(absl::Seconds(2));
  }());
  EXPECT_THAT(TakeReports(), ElementsAre("Gather exception was never retrieved"));
  Promise<int> never(loop_);
  loop_.RunUntilComplete([](Future<int> never) -> Task<void> {
    Shield(Gather(std::move(never), After(absl::Hours(1), 1))).Cancel();
    co_return;
  }(never.future()));
  loop_.Close();
  EXPECT_TRUE(loop_.tasks().empty());
}

// asyncio: 3 iterations for a task that is ready at once.
TEST_P(ShieldTest, TakesAsManyIterationsAsInAsyncio) {
  Iterations iterations(loop_);
  loop_.RunUntilComplete([](Iterations& iterations) -> Task<void> {
    auto body = []() -> Task<int> { co_return 1; };
    const int start = iterations.count();
    co_await Shield(body());
    EXPECT_EQ(iterations.count() - start, 3);
  }(iterations));
}

}  // namespace
}  // namespace troupe
