// WrapFuture: C-FUT-18.
#include "troupe/async/wrap_future.h"

#include <atomic>
#include <memory>
#include <stdexcept>
#include <thread>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/run_threadsafe.h"
#include "troupe/async/sleep.h"
#include "troupe/loop/event_loop.h"
#include "troupe/os/posix_os.h"

namespace troupe {
namespace {

// A loop here, and one that runs in a thread of its own.
class WrapFutureTest : public ::testing::Test {
 protected:
  WrapFutureTest() : thread_([this] { there_.RunForever(); }) {}
  ~WrapFutureTest() override {
    EndOther();
    here_.Close();
  }
  void EndOther() {
    if (!thread_.joinable()) return;
    there_.CallSoonThreadsafe([this] { there_.Stop(); });
    thread_.join();
    there_.Close();
  }

  EventLoop here_{PosixOs::Get()};
  EventLoop there_{PosixOs::Get()};
  std::thread thread_;
};

Task<std::unique_ptr<int>> Gives(EventLoop& home) {
  EXPECT_EQ(&EventLoop::Current(), &home);
  co_await Sleep(absl::ZeroDuration());
  co_return std::make_unique<int>(7);
}
Task<int> Throws() {
  throw std::runtime_error("x");
  co_return 1;
}
// Ends by being cancelled, and says so.
Task<int> Waits(std::atomic<bool>& started, std::atomic<bool>& cancelled) {
  started = true;
  try {
    co_await Sleep(absl::Hours(1));
  } catch (const Cancelled&) {
    cancelled = true;
    throw;
  }
  co_return 1;
}

// C-FUT-18
TEST_F(WrapFutureTest, ValueAndErrorArriveOnTheLoopsThread) {
  here_.RunUntilComplete([](EventLoop& here, EventLoop& there) -> Task<void> {
    Future<std::unique_ptr<int>> value = WrapFuture(RunThreadsafe(there, Gives(there)));
    bool told = false;
    value.AddDoneCallback([&](const Future<std::unique_ptr<int>>&) {
      EXPECT_EQ(&EventLoop::Current(), &here);
      told = true;
    });
    const std::unique_ptr<int> got = co_await std::move(value);
    EXPECT_EQ(*got, 7);
    EXPECT_TRUE(told);
    bool thrown = false;
    try {
      co_await WrapFuture(RunThreadsafe(there, Throws()));
    } catch (const std::runtime_error&) {
      thrown = true;
    }
    EXPECT_TRUE(thrown);
    auto nothing = RunThreadsafe(there, Sleep(absl::ZeroDuration()));
    nothing.Wait(absl::InfiniteDuration());
    co_await WrapFuture(std::move(nothing));  // done already
  }(here_, there_));
}

// C-FUT-18
TEST_F(WrapFutureTest, CancellingItCancelsTheTaskBehindIt) {
  std::atomic<bool> started = false, cancelled = false;
  auto source = RunThreadsafe(there_, Waits(started, cancelled));
  Future<int> wrapped = WrapFuture(source, here_);
  while (!started) std::this_thread::yield();
  EXPECT_TRUE(wrapped.Cancel());
  EXPECT_TRUE(wrapped.cancelled());
  EXPECT_FALSE(wrapped.Cancel());
  source.Wait(absl::InfiniteDuration());
  EXPECT_TRUE(source.cancelled());
  EXPECT_TRUE(cancelled);
  here_.RunOnceWithoutWaiting();  // nothing of it is left
}

TEST_F(WrapFutureTest, ATaskThatWasCancelledCancelsIt) {
  std::atomic<bool> started = false, cancelled = false;
  auto source = RunThreadsafe(there_, Waits(started, cancelled));
  source.Cancel();
  Future<int> wrapped = WrapFuture(source, here_);
  EXPECT_THROW(here_.RunUntilComplete(wrapped), Cancelled);
  EXPECT_TRUE(wrapped.cancelled());
}

// C-FUT-18
TEST_F(WrapFutureTest, ALoopThatIsClosedOrGoneBeforeTheAnswerIsNoError) {
  Future<std::unique_ptr<int>> kept;
  {
    EventLoop gone(PosixOs::Get());
    kept = WrapFuture(RunThreadsafe(there_, Gives(there_)), gone);
    std::atomic<bool> started = false, cancelled = false;
    auto source = RunThreadsafe(there_, Waits(started, cancelled));
    Future<int> wrapped = WrapFuture(source, gone);
    Future<int> cancelled_too = WrapFuture(RunThreadsafe(there_, Throws()), gone);
    cancelled_too.Cancel();
    gone.Close();
    EXPECT_FALSE(wrapped.done());
    source.Cancel();
    source.Wait(absl::InfiniteDuration());
    EXPECT_THROW(WrapFuture(source, gone), InvalidState);
  }
  EndOther();
  EXPECT_FALSE(kept.done());
}

// C-FUT-18
TEST_F(WrapFutureTest, AnswersThatRaceWithTheCloseArriveOrAreDropped) {
  for (int round = 0; round < 100; ++round) {
    EventLoop loop(PosixOs::Get());
    Future<std::unique_ptr<int>> wrapped = WrapFuture(RunThreadsafe(there_, Gives(there_)), loop);
    if (round % 2 == 0) loop.RunOnceWithoutWaiting();
    loop.Close();
    if (wrapped.done()) {
      EXPECT_EQ(*wrapped.result(), 7);
    }
  }
}

}  // namespace
}  // namespace troupe
