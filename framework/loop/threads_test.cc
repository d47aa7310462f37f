// What other threads may do with a loop, on the real machine: C-LOOP-33, C-LOOP-35, C-DBG-01, P-5, handles shared
// between threads.
#include <atomic>
#include <csignal>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/loop/context.h"
#include "troupe/loop/event_loop.h"
#include "troupe/os/posix_os.h"

namespace troupe {
namespace {

using ::testing::EndsWith;

class ThreadsTest : public ::testing::Test {
 protected:
  ~ThreadsTest() override { loop_.Close(); }
  EventLoop loop_{PosixOs::Get()};
};

// C-LOOP-33, P-5
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

// Posts at every point of an iteration: while callbacks run, before the poll, in it, after it. There is no timer, so a
// wake-up that is lost leaves the loop asleep and the poster waiting for good.
TEST_F(ThreadsTest, NoPostIsLostAtWhateverPointOfAnIterationItComes) {
  constexpr int kThreads = 3;
  constexpr int kRounds = 1500;
  // Keeps the loop busy for `left` more iterations.
  struct Busy {
    EventLoop& loop;
    int left;
    void operator()() const {
      if (left > 0) loop.CallSoon(Busy{loop, left - 1});
    }
  };
  int finished = 0;  // the loop's thread only
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::atomic<int> ran = 0;
      int posted = 0;
      for (int round = 0; round < kRounds; ++round) {
        for (int i = 0; i <= round % 4; ++i, ++posted) {
          loop_.CallSoonThreadsafe([&, busy = (round * 7 + t) % 23] {
            loop_.CallSoon(Busy{loop_, busy});
            ++ran;
          });
        }
        while (ran < posted) std::this_thread::yield();
      }
      loop_.CallSoonThreadsafe([&] {
        if (++finished == kThreads) loop_.Stop();
      });
    });
  }
  loop_.RunForever();
  for (std::thread& thread : threads) thread.join();
}

// How often the pollers of this process were woken: nobody reads what their eventfds count.
uint64_t WakeUps() {
  uint64_t wakes = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fdinfo")) {
    std::ifstream info(entry.path());
    for (std::string line; std::getline(info, line);) {
      if (const std::string key = "eventfd-count:"; line.rfind(key, 0) == 0) {
        wakes += std::stoull(line.substr(key.size()), nullptr, 16);
      }
    }
  }
  return wakes;
}

TEST_F(ThreadsTest, ALoopThatRunsIsNotWoken) {
  const uint64_t before = WakeUps();
  int ran = 0;
  const auto post = [&] {
    std::thread([&] {
      for (int i = 0; i < 100; ++i) loop_.CallSoonThreadsafe([&] { ++ran; });
    }).join();
  };
  post();  // it does not wait: it does not even run
  loop_.CallSoon([&] {
    post();
    loop_.CallSoon([&] {
      post();
      loop_.CallSoonThreadsafe([&] { loop_.Stop(); });
    });
  });
  loop_.RunForever();
  loop_.RunOnceWithoutWaiting();
  EXPECT_EQ(ran, 300);
  EXPECT_EQ(WakeUps(), before);
  // And one that waits is.
  std::thread poster([&] { loop_.CallSoonThreadsafe([&] { loop_.Stop(); }); });
  loop_.RunForever();
  poster.join();
  EXPECT_LE(WakeUps(), before + 1);
}

// C-LOOP-35: what wakes leaves nothing behind, however often it was told to: no iteration in vain, none lost.
TEST_F(ThreadsTest, WakeUpsLeaveNothingBehind) {
  Poller& poller = loop_.poller();
  std::vector<PollEvent> events(1);
  for (int round = 0; round < 3; ++round) {
    std::thread([&] {
      for (int i = 0; i < 1000; ++i) poller.Wake();
    }).join();
    EXPECT_EQ(poller.Wait(MonotonicTime::InfiniteFuture(), absl::MakeSpan(events)), 0);
    const MonotonicTime until = loop_.Time() + absl::Milliseconds(1);
    EXPECT_EQ(poller.Wait(until, absl::MakeSpan(events)), 0);
    EXPECT_GE(loop_.Time(), until);
  }
}

// The thread that posted may still be on its way back.
TEST_F(ThreadsTest, TheLoopMayGoAsSoonAsThePostThatStoppedItHasRun) {
  for (int round = 0; round < 300; ++round) {
    auto loop = std::make_unique<EventLoop>(PosixOs::Get());
    std::thread poster([&loop = *loop] { loop.CallSoonThreadsafe([&loop] { loop.Stop(); }); });
    loop->RunForever();
    loop->Close();
    loop = nullptr;
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

// C-HND-07
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

// C-DBG-01, P-5
TEST_F(ThreadsTest, InDebugModeCallsFromTheWrongThreadAreRefusedWhileTheLoopRuns) {
  loop_.SetDebug(true);
  std::thread([&] { loop_.CallSoon([] {}); }).join();  // not running: not checked
  std::atomic<bool> running = false;
  std::thread stranger([&] {
    while (!running) std::this_thread::yield();
    const auto refused = [](auto&& call) -> std::string {
      try {
        call();
      } catch (const InvalidState& error) {
        return error.what();
      }
      return "accepted";
    };
    const auto names = [](const char* called) {
      return EndsWith(std::string("Non-thread-safe operation invoked on an event loop other than the current one: ") +
                      called);
    };
    EXPECT_THAT(refused([&] { loop_.CallSoon([] {}); }), names("CallSoon"));
    EXPECT_THAT(refused([&] { loop_.CallSoonIn(Context(), [] {}); }), names("CallSoonIn"));
    EXPECT_THAT(refused([&] { loop_.Post([] {}); }), names("Post"));
    EXPECT_THAT(refused([&] { loop_.CallLater(absl::Seconds(1), [] {}); }), names("CallLater"));
    EXPECT_THAT(refused([&] { loop_.CallAt(MonotonicTime(), [] {}); }), names("CallAt"));
    EXPECT_THAT(refused([&] { loop_.AddReader(0, [] {}); }), names("AddReader"));
    EXPECT_THAT(refused([&] { loop_.AddWriter(0, [] {}); }), names("AddWriter"));
    EXPECT_THAT(refused([&] { EXPECT_TRUE(loop_.AddSignalHandler(SIGUSR1, [] {}).ok()); }), names("AddSignalHandler"));
    EXPECT_THAT(refused([&] { loop_.executor(); }), names("executor"));
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
