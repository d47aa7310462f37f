// Blocking and RunInExecutor on real threads: what borrows from a frame is never touched after the frame has gone.
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/blocking.h"
#include "troupe/async/gather.h"
#include "troupe/async/sleep.h"
#include "troupe/async/task.h"
#include "troupe/os/posix_os.h"

namespace troupe {
namespace {

// Lets threads wait for each other.
class Gate {
 public:
  void Open() {
    std::lock_guard<std::mutex> lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
};

class BlockingThreadsTest : public ::testing::Test {
 protected:
  ~BlockingThreadsTest() override { loop_.Close(); }
  EventLoop loop_{PosixOs::Get()};
};

// C-EXE-01, P-5
TEST_F(BlockingThreadsTest, RunsOnAnotherThreadAndResumesOnTheLoops) {
  loop_.RunUntilComplete([](EventLoop& loop) -> Task<void> {
    const std::thread::id home = std::this_thread::get_id();
    bool elsewhere = false;
    co_await Blocking([&] {
      elsewhere = std::this_thread::get_id() != home;
      EXPECT_EQ(EventLoop::CurrentOrNull(), nullptr);
    });
    EXPECT_TRUE(elsewhere);
    EXPECT_EQ(std::this_thread::get_id(), home);
    EXPECT_EQ(EventLoop::CurrentOrNull(), &loop);
  }(loop_));
}

// Started, then cancelled: the caller resumes after the function has returned.
TEST_F(BlockingThreadsTest, CancelledWhileTheFunctionRuns) {
  Gate started, go_on;
  std::atomic<bool> returned = false;
  auto handle = loop_.CreateTask([](Gate& started, Gate& go_on, std::atomic<bool>& returned) -> Task<void> {
    std::string local = "on the frame";
    try {
      co_await Blocking([&] {
        started.Open();
        go_on.Wait();
        local += " still";
        returned = true;
      });
    } catch (const Cancelled&) {
      EXPECT_TRUE(returned);
      EXPECT_EQ(local, "on the frame still");
      throw;
    }
  }(started, go_on, returned));
  std::thread canceller([&] {
    started.Wait();
    loop_.CallSoonThreadsafe([&] {
      EXPECT_TRUE(handle.Cancel());
      EXPECT_TRUE(handle.Cancel());
      loop_.CallSoon([&] {
        EXPECT_FALSE(handle.done());
        go_on.Open();
      });
    });
  });
  EXPECT_THROW(loop_.RunUntilComplete(Future<void>(handle)), Cancelled);
  canceller.join();
}

// Destroying the frame waits for the function.
TEST_F(BlockingThreadsTest, DestroyedWhileTheFunctionRuns) {
  Gate started;
  std::atomic<bool> returned = false;
  auto handle = loop_.CreateTask([](Gate& started, std::atomic<bool>& returned) -> Task<void> {
    std::vector<int> local(1000);
    co_await Blocking([&] {
      started.Open();
      for (int round = 0; round < 100; ++round) {
        for (int& each : local) ++each;
        std::this_thread::yield();
      }
      returned = true;
    });
    ADD_FAILURE() << "destroyed before";
  }(started, returned));
  loop_.RunOnceWithoutWaiting();
  started.Wait();
  handle.task_state().DestroyNow();
  EXPECT_TRUE(returned);
}

TEST_F(BlockingThreadsTest, ClosedWhileFunctionsRunAndArrive) {
  for (int round = 0; round < 30; ++round) {
    EventLoop loop(PosixOs::Get());
    loop.SetExceptionHandler([](EventLoop&, const ExceptionContext&) {});
    std::atomic<int> ran = 0;
    for (int i = 0; i < 5; ++i) {
      loop.CreateTask([](std::atomic<int>& ran) -> Task<void> {
        std::string local(100, 'x');
        while (true) {
          co_await Blocking([&] {
            local[0]++;
            ++ran;
          });
        }
      }(ran));
    }
    for (int i = 0; i < round; ++i) loop.RunOnceWithoutWaiting();
    loop.Close();
  }
}

// C-LOOP-26: closing does not wait for what RunInExecutor runs; destroying the loop does.
TEST_F(BlockingThreadsTest, CloseDoesNotWaitForTheExecutor) {
  Gate started, go_on;
  const auto owned = std::make_shared<std::atomic<bool>>(false);
  auto loop = std::make_unique<EventLoop>(PosixOs::Get());
  RunInExecutor(*loop, absl::AnyInvocable<void()>([&, owned] {
    started.Open();
    go_on.Wait();
    *owned = true;
  }));
  started.Wait();
  loop->Close();
  EXPECT_FALSE(*owned);
  go_on.Open();
  loop = nullptr;
  EXPECT_TRUE(*owned);
  EXPECT_EQ(owned.use_count(), 1);
}

TEST_F(BlockingThreadsTest, ManyAtOnce) {
  loop_.RunUntilComplete([]() -> Task<void> {
    auto one = [](int i) -> Task<int> {
      const int value = co_await Blocking([&] { return i * 2; });
      co_return value;
    };
    std::vector<Task<int>> tasks;
    for (int i = 0; i < 500; ++i) tasks.push_back(one(i));
    const std::vector<int> values = co_await Gather(std::move(tasks));
    for (int i = 0; i < 500; ++i) EXPECT_EQ(values[i], i * 2);
  }());
}

TEST_F(BlockingThreadsTest, CancelledAtRandomMoments) {
  for (int round = 0; round < 100; ++round) {
    std::atomic<int> inside = 0;
    auto handle = loop_.CreateTask([](std::atomic<int>& inside) -> Task<void> {
      while (true) {
        std::string local = "x";
        co_await Blocking([&] {
          ++inside;
          local += "y";
          --inside;
        });
      }
    }(inside));
    for (int i = 0; i < round % 17; ++i) loop_.RunOnceWithoutWaiting();
    handle.Cancel();
    EXPECT_THROW(loop_.RunUntilComplete(Future<void>(handle)), Cancelled);
    EXPECT_EQ(inside, 0);
  }
}

TEST_F(BlockingThreadsTest, APoolOfOnesOwn) {
  const std::unique_ptr<WorkerPool> pool = PosixOs::Get().NewWorkerPool(1, "single");
  loop_.RunUntilComplete([](WorkerPool& pool) -> Task<void> {
    auto id = [](WorkerPool& pool) -> Task<std::thread::id> {
      const std::thread::id id = co_await Blocking(pool, [] { return std::this_thread::get_id(); });
      co_return id;
    };
    auto [a, b, c] = co_await Gather(id(pool), id(pool), id(pool));
    EXPECT_EQ(a, b);
    EXPECT_EQ(b, c);
  }(*pool));
}

}  // namespace
}  // namespace troupe
