// What other threads may do with a loop, on the real machine: C-LOOP-33, C-DBG-01, handles shared between threads.
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/loop/event_loop.h"
#include "troupe/os/posix_os.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

class ThreadsTest : public ::testing::Test {
 protected:
  ~ThreadsTest() override { loop_.Close(); }
  EventLoop loop_{PosixOs::Get()};
};

// C-LOOP-33
TEST_F(ThreadsTest, PostsOfOneThreadRunInOrderAndEachOnce) {
  constexpr int kThreads = 4;
  constexpr int kPosts = 2000;
  std::vector<std::vector<int>> seen(kThreads);  // the loop's thread writes
  int left = kThreads * kPosts;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kPosts; ++i) {
        loop_.CallSoonThreadsafe([&, t, i] {
          EXPECT_EQ(EventLoop::CurrentOrNull(), &loop_);
          seen[t].push_back(i);
          if (--left == 0) loop_.Stop();
        });
      }
    });
  }
  loop_.RunForever();
  for (std::thread& thread : threads) thread.join();
  for (const std::vector<int>& each : seen) {
    ASSERT_EQ(each.size(), static_cast<size_t>(kPosts));
    for (int i = 0; i < kPosts; ++i) EXPECT_EQ(each[i], i);
  }
}

// C-LOOP-33: wakes a blocked poll.
TEST_F(ThreadsTest, APostWakesALoopThatWaitsWithoutLimit) {
  for (int round = 0; round < 50; ++round) {
    std::thread poster([&] { loop_.CallSoonThreadsafe([&] { loop_.Stop(); }); });
    loop_.RunForever();
    poster.join();
  }
}

// There and back: two loops post to each other.
TEST_F(ThreadsTest, TwoLoopsPostToEachOther) {
  std::atomic<EventLoop*> other = nullptr;
  int rounds = 0;  // the first loop's thread only
  std::thread thread([&] {
    EventLoop loop(PosixOs::Get());
    other = &loop;
    loop.RunForever();
    loop.Close();
  });
  while (other == nullptr) std::this_thread::yield();
  std::function<void()> ping = [&] {
    if (++rounds == 500) {
      other.load()->CallSoonThreadsafe([&] { other.load()->Stop(); });
      loop_.Stop();
      return;
    }
    other.load()->CallSoonThreadsafe([&] { loop_.CallSoonThreadsafe([&] { ping(); }); });
  };
  loop_.CallSoon([&] { ping(); });
  loop_.RunForever();
  thread.join();
  EXPECT_EQ(rounds, 500);
}

TEST_F(ThreadsTest, AHandleMayBeCancelledOnAnotherThreadAndWhatItHoldsGoesOnTheLoops) {
  struct Checks {
    explicit Checks(std::thread::id home) : home(home) {}
    ~Checks() { EXPECT_EQ(std::this_thread::get_id(), home); }
    std::thread::id home;
  };
  std::atomic<int> ran = 0;
  std::atomic<int> cancelled = 0;
  const std::thread::id home = std::this_thread::get_id();
  std::thread poster([&] {
    for (int i = 0; i < 1000; ++i) {
      auto owned = std::make_unique<Checks>(home);
      Handle handle = loop_.CallSoonThreadsafe([&, owned = std::move(owned)] { ++ran; });
      if (i % 2 == 0) handle.Cancel();
      if (handle.cancelled()) ++cancelled;
    }
    loop_.CallSoonThreadsafe([&] { loop_.Stop(); });
  });
  loop_.RunForever();
  poster.join();
  EXPECT_EQ(ran + cancelled, 1000);
}

TEST_F(ThreadsTest, PostsThatRaceWithCloseRunOrAreRefusedOrDropped) {
  for (int round = 0; round < 20; ++round) {
    auto loop = std::make_unique<EventLoop>(PosixOs::Get());
    const auto owned = std::make_shared<int>(0);
    std::atomic<bool> go = false;
    std::thread poster([&] {
      while (!go) std::this_thread::yield();
      for (int i = 0; i < 100; ++i) {
        try {
          loop->CallSoonThreadsafe([owned] { FAIL(); });
        } catch (const InvalidState& error) {
          EXPECT_STREQ(error.what(), "Event loop is closed");
        }
      }
    });
    go = true;
    loop->Close();
    poster.join();
    loop = nullptr;
    EXPECT_EQ(owned.use_count(), 1);
  }
}

// C-DBG-01
TEST_F(ThreadsTest, InDebugModeCallsFromTheWrongThreadAreRefusedWhileTheLoopRuns) {
  loop_.SetDebug(true);
  std::thread([&] { loop_.CallSoon([] {}); }).join();  // not running: not checked
  std::atomic<bool> running = false;
  std::thread stranger([&] {
    while (!running) std::this_thread::yield();
    const auto refused = [](auto&& call) {
      try {
        call();
      } catch (const InvalidState& error) {
        EXPECT_THAT(error.what(),
                    HasSubstr("Non-thread-safe operation invoked on an event loop other than the current"));
        return true;
      }
      return false;
    };
    EXPECT_TRUE(refused([&] { loop_.CallSoon([] {}); }));
    EXPECT_TRUE(refused([&] { loop_.CallLater(absl::Seconds(1), [] {}); }));
    EXPECT_TRUE(refused([&] { loop_.CallAt(MonotonicTime(), [] {}); }));
    loop_.CallSoonThreadsafe([&] { loop_.Stop(); });
  });
  loop_.CallSoon([&] { running = true; });
  loop_.RunForever();
  stranger.join();
}

TEST_F(ThreadsTest, RunnablesOfTheFrameworkComeBackFromThreadsEvenIfTheLoopIsClosedMeanwhile) {
  struct Arrival final : Runnable {
    void Run() override { how = "ran"; }
    void Drop() noexcept override { how = "dropped"; }
    std::string how = "lost";
  };
  Arrival ran, dropped, taken_back;
  {
    EventLoop loop(PosixOs::Get());
    std::thread([&] { loop.ScheduleFromThread(ran); }).join();
    std::thread([&] { loop.ScheduleFromThread(taken_back); }).join();
    loop.CancelFromThread(taken_back);
    loop.RunOnceWithoutWaiting();
    loop.Close();
    std::thread([&] { loop.ScheduleFromThread(dropped); }).join();
    EXPECT_EQ(dropped.how, "lost");
  }
  EXPECT_EQ(ran.how, "ran");
  EXPECT_EQ(dropped.how, "dropped");
  EXPECT_EQ(taken_back.how, "lost");
}

}  // namespace
}  // namespace troupe
