// RunThreadsafe: C-CMB-24, on the real machine with real threads.
#include "troupe/async/run_threadsafe.h"

#include <atomic>
#include <memory>
#include <stdexcept>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/sleep.h"
#include "troupe/os/posix_os.h"

namespace troupe {
namespace {

class RunThreadsafeTest : public ::testing::Test {
 protected:
  // The loop runs on a thread of its own; the test is the other one.
  RunThreadsafeTest() {
    thread_ = std::thread([this] {
      EventLoop loop(PosixOs::Get());
      loop.CallSoon([&] { loop_ = &loop; });
      loop.RunForever();
      loop.Close();
    });
    while (loop_ == nullptr) std::this_thread::yield();
  }
  ~RunThreadsafeTest() override { Stop(); }
  void Stop() {
    if (!thread_.joinable()) return;
    loop_.load()->CallSoonThreadsafe([this] { loop_.load()->Stop(); });
    thread_.join();
  }

  std::atomic<EventLoop*> loop_ = nullptr;
  std::thread thread_;
};

Task<int> Add(int a, int b) {
  co_await Sleep(absl::ZeroDuration());
  co_return a + b;
}
Task<void> Forever(std::atomic<bool>& cancelled) {
  try {
    co_await Sleep(absl::Hours(1));
  } catch (const Cancelled&) {
    cancelled = true;
    throw;
  }
}

// C-CMB-24, P-5
TEST_F(RunThreadsafeTest, TheResultReachesTheThread) {
  ThreadFuture<int> sum = RunThreadsafe(*loop_, Add(1, 2));
  EXPECT_EQ(sum.Get(), 3);
  EXPECT_TRUE(sum.done());
  EXPECT_FALSE(sum.Cancel());
  auto make = []() -> Task<std::unique_ptr<int>> { co_return std::make_unique<int>(4); };
  EXPECT_EQ(*RunThreadsafe(*loop_, make()).Get(), 4);
  RunThreadsafe(*loop_, Sleep(absl::ZeroDuration())).Get();
}

// C-CMB-24
TEST_F(RunThreadsafeTest, TheErrorReachesTheThread) {
  auto throws = []() -> Task<int> {
    co_await Sleep(absl::ZeroDuration());
    throw std::runtime_error("x");
  };
  ThreadFuture<int> failed = RunThreadsafe(*loop_, throws());
  EXPECT_THROW(failed.Get(), std::runtime_error);
}

// C-CMB-24
TEST_F(RunThreadsafeTest, WaitingMayGiveUpAndCancellingEndsTheTask) {
  std::atomic<bool> cancelled = false;
  ThreadFuture<void> forever = RunThreadsafe(*loop_, Forever(cancelled));
  EXPECT_FALSE(forever.Wait(absl::ZeroDuration()));
  EXPECT_FALSE(forever.done());
  EXPECT_TRUE(forever.Cancel());
  EXPECT_THROW(forever.Get(), Cancelled);
  EXPECT_TRUE(forever.cancelled());
}

// C-CMB-24
TEST_F(RunThreadsafeTest, ATaskThatIsCancelledOnItsLoopIsCancelledForTheThread) {
  auto cancels_itself = []() -> Task<void> {
    throw Cancelled();
    co_return;
  };
  ThreadFuture<void> future = RunThreadsafe(*loop_, cancels_itself());
  EXPECT_THROW(future.Get(), Cancelled);
}

TEST_F(RunThreadsafeTest, TheEndOfTheLoopCancels) {
  std::atomic<bool> cancelled = false;
  ThreadFuture<void> forever = RunThreadsafe(*loop_, Forever(cancelled));
  Stop();
  EXPECT_THROW(forever.Get(), Cancelled);
  EXPECT_FALSE(cancelled);  // destroyed where it stood
  EXPECT_FALSE(forever.Cancel());
}

// C-LOOP-27
TEST_F(RunThreadsafeTest, AClosedLoopRefuses) {
  EventLoop closed(PosixOs::Get());
  closed.Close();
  EXPECT_THROW(RunThreadsafe(closed, Add(1, 2)), InvalidState);
}

TEST_F(RunThreadsafeTest, DroppedBeforeItStartsItIsCancelled) {
  EventLoop idle(PosixOs::Get());
  ThreadFuture<int> never = RunThreadsafe(idle, Add(1, 2));
  idle.Close();
  EXPECT_THROW(never.Get(), Cancelled);
}

TEST_F(RunThreadsafeTest, CancelledBeforeItStartsItsBodyNeverRuns) {
  EventLoop idle(PosixOs::Get());
  std::atomic<bool> ran = false;
  auto body = [](std::atomic<bool>& ran) -> Task<void> {
    ran = true;
    co_return;
  };
  ThreadFuture<void> never = RunThreadsafe(idle, body(ran));
  EXPECT_TRUE(never.Cancel());
  EXPECT_TRUE(never.Cancel());
  for (int i = 0; i < 5; ++i) idle.RunOnceWithoutWaiting();
  EXPECT_THROW(never.Get(), Cancelled);
  EXPECT_FALSE(ran);
  idle.Close();
}

// C-CMB-24
TEST_F(RunThreadsafeTest, AnErrorOfTheTaskFactoryReachesTheThread) {
  EventLoop idle(PosixOs::Get());
  idle.SetTaskFactory([](EventLoop&, NewTask&) { throw std::runtime_error("refused"); });
  ThreadFuture<int> never = RunThreadsafe(idle, Add(1, 2));
  idle.RunOnceWithoutWaiting();
  EXPECT_THROW(never.Get(), std::runtime_error);
  idle.Close();
}

TEST_F(RunThreadsafeTest, WaitingOnTheLoopsOwnThreadIsRefused) {
  auto deadlock = [](EventLoop& loop) -> Task<bool> {
    ThreadFuture<int> never = RunThreadsafe(loop, Add(1, 2));
    try {
      never.Get();
    } catch (const InvalidState&) {
      co_return true;
    }
    co_return false;
  };
  EXPECT_TRUE(RunThreadsafe(*loop_, deadlock(*loop_)).Get());
}

TEST_F(RunThreadsafeTest, ManyThreadsAtOnce) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) {
        std::atomic<bool> ignored = false;
        ThreadFuture<void> cancelled = RunThreadsafe(*loop_, Forever(ignored));
        ThreadFuture<int> sum = RunThreadsafe(*loop_, Add(i, 1));
        cancelled.Cancel();
        EXPECT_EQ(sum.Get(), i + 1);
        EXPECT_THROW(cancelled.Get(), Cancelled);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace troupe
