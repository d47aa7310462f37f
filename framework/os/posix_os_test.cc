// What only the real operating system can show. What every Os promises is tested in testing/os_contract.
#include "troupe/os/posix_os.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstddef>
#include <iterator>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

Os& os() { return PosixOs::Get(); }

void ExpectNonBlockingAndCloseOnExec(int fd) {
  ASSERT_GE(fd, 0);
  EXPECT_NE(fcntl(fd, F_GETFL) & O_NONBLOCK, 0) << fd;
  EXPECT_NE(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0) << fd;
}

// P-6
TEST(PosixOs, EveryDescriptorIsNonBlockingAndCloseOnExec) {
  const int listener = os().Socket(AF_INET, SOCK_STREAM);
  ExpectNonBlockingAndCloseOnExec(listener);
  ASSERT_EQ(os().Bind(listener, *SocketAddress::FromIp("127.0.0.1", 0)), 0);
  ASSERT_EQ(os().Listen(listener, 1), 0);
  SocketAddress address;
  ASSERT_EQ(os().LocalAddress(listener, &address), 0);
  const int client = os().Socket(AF_INET, SOCK_STREAM);
  ASSERT_EQ(os().Connect(client, address), -EINPROGRESS);
  const auto poller = os().NewPoller();
  ASSERT_EQ(poller->Add(listener, kReadable, nullptr), 0);
  PollEvent events[1];
  ASSERT_EQ(poller->Wait(MonotonicTime::InfiniteFuture(), absl::MakeSpan(events)), 1);
  const int accepted = os().Accept(listener, nullptr);
  ExpectNonBlockingAndCloseOnExec(accepted);
  int pair[2];
  ASSERT_EQ(os().SocketPair(AF_UNIX, SOCK_STREAM, pair), 0);
  ExpectNonBlockingAndCloseOnExec(pair[0]);
  ExpectNonBlockingAndCloseOnExec(pair[1]);
  for (int fd : {listener, client, accepted, pair[0], pair[1]}) EXPECT_EQ(os().Close(fd), 0);
}

TEST(PosixOs, ASocketFromElsewhereIsMadeNonBlockingAndCloseOnExecOthersAreLeftAsTheyAre) {
  const int blocking = socket(AF_UNIX, SOCK_STREAM, 0);
  EXPECT_EQ(os().AdoptSocket(blocking, SOCK_STREAM), AF_UNIX);
  ExpectNonBlockingAndCloseOnExec(blocking);
  const int datagrams = socket(AF_INET, SOCK_DGRAM, 0);
  EXPECT_EQ(os().AdoptSocket(datagrams, SOCK_STREAM), -ESOCKTNOSUPPORT);
  const int netlink = socket(AF_NETLINK, SOCK_DGRAM, 0);
  EXPECT_EQ(os().AdoptSocket(netlink, SOCK_DGRAM), -EAFNOSUPPORT);
  int pipes[2];
  ASSERT_EQ(pipe(pipes), 0);
  EXPECT_EQ(os().AdoptSocket(pipes[0], SOCK_STREAM), -ENOTSOCK);
  for (const int fd : {datagrams, netlink, pipes[0]}) {
    EXPECT_EQ(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
    EXPECT_EQ(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
  }
  for (const int fd : {blocking, datagrams, netlink, pipes[0], pipes[1]}) EXPECT_EQ(os().Close(fd), 0);
}

TEST(PosixOs, WhetherADescriptorBlocksCanBeAsked) {
  int pipes[2];
  ASSERT_EQ(pipe(pipes), 0);
  EXPECT_EQ(os().IsNonBlocking(pipes[0]), 0);
  ASSERT_EQ(os().AdoptPipe(pipes[0]), 0);
  EXPECT_EQ(os().IsNonBlocking(pipes[0]), 1);
  for (const int fd : pipes) EXPECT_EQ(os().Close(fd), 0);
  EXPECT_EQ(os().IsNonBlocking(pipes[0]), -EBADF);
}

// Runs in a process of its own whose descriptors 3 and 4 are open and live through an exec, as a service manager leaves
// them, and with its variables.
template <class F>
void AsIfStartedByAManager(const char* count, const char* names, F check) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    closefrom(3);
    EXPECT_EQ(fcntl(0, F_DUPFD, 3), 3);
    EXPECT_EQ(fcntl(0, F_DUPFD, 3), 4);
    setenv("LISTEN_PID", std::to_string(getpid()).c_str(), 1);
    setenv("LISTEN_FDS", count, 1);
    if (names != nullptr) setenv("LISTEN_FDNAMES", names, 1);
    check();
    // Whatever it was, it is there once.
    EXPECT_THAT(*os().TakeListenDescriptors(), IsEmpty());
    for (const char* name : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}) EXPECT_EQ(getenv(name), nullptr) << name;
    fflush(nullptr);
    _exit(::testing::Test::HasFailure() ? 1 : 0);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0) << "see what the child printed";
}

bool ClosesOnExec(int fd) { return (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0; }

TEST(PosixOs, DescriptorsOfAServiceManagerAreTakenOnceWithTheirNames) {
  AsIfStartedByAManager("2", "http:", [] {
    const absl::StatusOr<std::vector<ListenDescriptor>> taken = os().TakeListenDescriptors();
    ASSERT_TRUE(taken.ok()) << taken.status();
    ASSERT_EQ(taken->size(), 2u);
    EXPECT_EQ((*taken)[0].fd, 3);
    EXPECT_EQ((*taken)[0].name, "http");
    EXPECT_EQ((*taken)[1].fd, 4);
    EXPECT_EQ((*taken)[1].name, "");
    EXPECT_TRUE(ClosesOnExec(3) && ClosesOnExec(4));
  });
  AsIfStartedByAManager("1", nullptr, [] {
    const absl::StatusOr<std::vector<ListenDescriptor>> taken = os().TakeListenDescriptors();
    ASSERT_TRUE(taken.ok()) << taken.status();
    ASSERT_EQ(taken->size(), 1u);
    EXPECT_EQ((*taken)[0].name, "unknown");
    EXPECT_FALSE(ClosesOnExec(4)) << "it was not handed over";
  });
  AsIfStartedByAManager("0", nullptr, [] { EXPECT_THAT(*os().TakeListenDescriptors(), IsEmpty()); });
}

TEST(PosixOs, DescriptorsForAnotherProcessAreLeftAlone) {
  AsIfStartedByAManager("2", nullptr, [] {
    setenv("LISTEN_PID", std::to_string(getppid()).c_str(), 1);
    EXPECT_THAT(*os().TakeListenDescriptors(), IsEmpty());
    EXPECT_FALSE(ClosesOnExec(3));
  });
  AsIfStartedByAManager("2", nullptr, [] {
    unsetenv("LISTEN_PID");
    EXPECT_THAT(*os().TakeListenDescriptors(), IsEmpty());
    EXPECT_FALSE(ClosesOnExec(3));
  });
}

TEST(PosixOs, WhatAServiceManagerCannotHaveMeantIsRefusedWhole) {
  const auto refuses = [](const char* text) {
    return [text] {
      const absl::Status status = os().TakeListenDescriptors().status();
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
      EXPECT_THAT(status.message(), HasSubstr(text));
      EXPECT_FALSE(ClosesOnExec(3));
    };
  };
  AsIfStartedByAManager("3", nullptr, refuses("descriptor 5 is not open"));
  AsIfStartedByAManager("2147483647", nullptr, refuses("LISTEN_FDS is no number"));
  AsIfStartedByAManager("-1", nullptr, refuses("LISTEN_FDS is no number of descriptors: -1"));
  AsIfStartedByAManager("two", nullptr, refuses("LISTEN_FDS is no number of descriptors: two"));
  AsIfStartedByAManager("2", "one", refuses("1 names for 2"));
  AsIfStartedByAManager("0", "one", refuses("1 names for 0"));
  AsIfStartedByAManager("2", nullptr, [&] {
    setenv("LISTEN_PID", "me", 1);
    refuses("LISTEN_PID is no process's number: me")();
  });
}

// From here on the system makes no process for this one.
void RefuseProcesses(unsigned error) {
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 2, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
  };
  const sock_fprog program = {static_cast<uint16_t>(std::size(filter)), filter};
  EXPECT_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
  EXPECT_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

// As when a container's or a user's limit of processes is reached, or memory.
TEST(PosixOs, AProgramThatTheSystemHasNoProcessForSaysSoAndLeavesNothing) {
  for (const int error : {EAGAIN, ENOMEM}) {
    SCOPED_TRACE(error);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      RefuseProcesses(static_cast<unsigned>(error));
      const auto open = [] {
        std::vector<int> fds;
        for (int fd = 0; fd < 1000; ++fd) {
          if (fcntl(fd, F_GETFD) >= 0) fds.push_back(fd);
        }
        return fds;
      };
      int pipes[2];
      EXPECT_EQ(os().MakePipe(pipes), 0);
      const std::vector<int> before = open();
      for (int i = 0; i < 3; ++i) {
        int pid = -1;
        ProcessOptions options;
        options.arguments = {"/bin/true"};
        options.output = pipes[1];
        EXPECT_EQ(os().Spawn(options, &pid), -error);
      }
      EXPECT_EQ(open(), before);
      EXPECT_EQ(os().IsNonBlocking(pipes[1]), 1) << "as it was";
      EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << "a child was left";
      fflush(nullptr);
      _exit(::testing::Test::HasFailure() ? 1 : 0);
    }
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0) << "see what the child printed";
  }
}

TEST(PosixOs, WakeFromAnotherThreadEndsAnInfiniteWait) {
  const auto poller = os().NewPoller();
  int published = 0;  // not atomic: Wake hands it over
  std::thread waker([&] {
    published = 7;
    poller->Wake();
  });
  PollEvent events[1];
  EXPECT_EQ(poller->Wait(MonotonicTime::InfiniteFuture(), absl::MakeSpan(events)), 0);
  EXPECT_EQ(published, 7);
  waker.join();
}

TEST(PosixOs, NoWakeIsLostWhileTheWaiterRuns) {
  const auto poller = os().NewPoller();
  constexpr int kWakes = 20'000;
  std::atomic<int> sent = 0;
  std::thread waker([&] {
    for (int i = 1; i <= kWakes; ++i) {
      sent.store(i, std::memory_order_relaxed);
      poller->Wake();
    }
  });
  PollEvent events[1];
  // Hangs if a wake between two waits is lost.
  while (sent.load(std::memory_order_relaxed) < kWakes) {
    ASSERT_EQ(poller->Wait(MonotonicTime::InfiniteFuture(), absl::MakeSpan(events)), 0);
  }
  waker.join();
}

TEST(PosixOs, SignalsComeToThePollerAndTheFormerActionIsRestored) {
  static std::atomic<int> own = 0;
  struct sigaction action = {}, before = {}, after = {};
  action.sa_handler = [](int) { own.fetch_add(1); };
  ASSERT_EQ(sigaction(SIGUSR1, &action, &before), 0);
  {
    const auto poller = os().NewPoller();
    ASSERT_EQ(os().WatchSignal(SIGUSR1, *poller), 0);
    ASSERT_EQ(os().RaiseSignal(SIGUSR1), 0);
    PollEvent events[1];
    EXPECT_EQ(poller->Wait(MonotonicTime::InfiniteFuture(), absl::MakeSpan(events)), 0);
    EXPECT_EQ(os().TakeSignals(*poller), uint64_t{1} << SIGUSR1);
    EXPECT_EQ(own.load(), 0);
    ASSERT_EQ(os().UnwatchSignal(SIGUSR1, *poller), 0);
    ASSERT_EQ(os().RaiseSignal(SIGUSR1), 0);
    EXPECT_EQ(own.load(), 1);
    EXPECT_EQ(os().TakeSignals(*poller), 0u);
    ASSERT_EQ(os().WatchSignal(SIGUSR1, *poller), 0);  // and left to the poller's destructor
  }
  ASSERT_EQ(sigaction(SIGUSR1, &before, &after), 0);
  EXPECT_EQ(after.sa_handler, action.sa_handler);
}

TEST(PosixOs, ASignalOnAnotherThreadMayRaceWithItsUnwatching) {
  struct sigaction ignore = {}, before = {};
  ignore.sa_handler = SIG_IGN;
  ASSERT_EQ(sigaction(SIGUSR2, &ignore, &before), 0);
  std::atomic<bool> stop = false;
  std::thread raiser([&] {
    while (!stop.load()) pthread_kill(pthread_self(), SIGUSR2);
  });
  for (int i = 0; i < 200; ++i) {
    const auto poller = os().NewPoller();
    ASSERT_EQ(os().WatchSignal(SIGUSR2, *poller), 0);
    PollEvent events[1];
    ASSERT_EQ(poller->Wait(MonotonicTime::InfiniteFuture(), absl::MakeSpan(events)), 0);
    EXPECT_EQ(os().TakeSignals(*poller), uint64_t{1} << SIGUSR2);
  }
  stop.store(true);
  raiser.join();
  sigaction(SIGUSR2, &before, nullptr);
}

TEST(PosixOs, SendTakesMoreBuffersThanTheKernelDoes) {
  int pair[2];
  ASSERT_EQ(os().SocketPair(AF_UNIX, SOCK_STREAM, pair), 0);
  char byte = 'x';
  const std::vector<iovec> many(3000, iovec{&byte, 1});
  EXPECT_EQ(os().Send(pair[0], many), 1024);
  for (int fd : pair) os().Close(fd);
}

// A path may come from a stranger, and a worker that waits for good cannot be given up.
TEST(PosixOs, OpeningAFifoDoesNotWaitForItsWriter) {
  const std::string path = ::testing::TempDir() + "/fifo_" + std::to_string(getpid());
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  const int fd = os().OpenFile(path);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(os().FileBytes(fd), -EINVAL);
  os().Close(fd);
  unlink(path.c_str());
}

TEST(PosixOs, LimitsAreOfThisProcess) {
  EXPECT_GT(os().DescriptorLimit(), 8);
  EXPECT_GT(os().MemoryLimit(), 16 << 20);
}

TEST(PosixOs, TheWallClockIsTheSystems) {
  const absl::Time before = absl::Now();
  const absl::Time now = os().WallNow();
  EXPECT_GE(now, before);
  EXPECT_LE(now, absl::Now());
}

TEST(PosixOs, RandomBytesDiffer) {
  std::string a(64, '\0'), b(64, '\0');
  os().FillRandom(absl::MakeSpan(&a[0], a.size()));
  os().FillRandom(absl::MakeSpan(&b[0], b.size()));
  EXPECT_NE(a, b);
}

// ---- worker pool, where threads are real

// Runs until it is released; counts how many run at once.
class Gate {
 public:
  void Enter() {
    std::unique_lock<std::mutex> lock(mutex_);
    ++inside_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return open_; });
  }
  void AwaitInside(int n) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return inside_ >= n; });
  }
  void Open() {
    std::lock_guard<std::mutex> lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int inside_ = 0;
  bool open_ = false;
};

struct GateWork : Work {
  explicit GateWork(Gate& gate) : gate(gate) {}
  void Run() override {
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    signals_blocked = sigismember(&mask, SIGTERM) == 1 && sigismember(&mask, SIGUSR1) == 1;
    gate.Enter();
    done = true;
  }
  Gate& gate;
  bool signals_blocked = false;
  bool done = false;
};

TEST(PosixWorkerPool, RunsAsManyAtOnceAsItHasThreads) {
  Gate gate;
  GateWork first(gate), second(gate), third(gate);
  const auto pool = os().NewWorkerPool(2, "test");
  for (GateWork* work : {&first, &second, &third}) pool->Submit(*work);
  gate.AwaitInside(2);  // hangs if the second thread is not started
  EXPECT_TRUE(pool->Cancel(third));
  EXPECT_FALSE(pool->Cancel(first));
  gate.Open();
  pool->Wait(first);
  pool->Wait(second);
  pool->Wait(third);  // was cancelled: at once
  EXPECT_TRUE(first.done && second.done);
  EXPECT_FALSE(third.done);
  EXPECT_TRUE(first.signals_blocked && second.signals_blocked);
}

// Runs until the pool no longer takes work, which is until it ends.
struct OutlastWork : Work {
  void Run() override {
    started.Enter();
    do {
      pool->Submit(probe);
    } while (pool->Cancel(probe));
    done = true;
  }
  struct Probe : Work {
    void Run() override { ran = true; }
    bool ran = false;
  };
  Gate started;
  WorkerPool* pool = nullptr;
  Probe probe;
  bool done = false;
};

TEST(PosixWorkerPool, ItsEndWaitsForWhatRunsAndDropsWhatDoesNot) {
  OutlastWork running;
  OutlastWork::Probe queued;
  auto pool = os().NewWorkerPool(1, "test");
  running.pool = pool.get();
  running.started.Open();
  pool->Submit(running);
  running.started.AwaitInside(1);
  pool->Submit(queued);
  pool.reset();
  EXPECT_TRUE(running.done);
  EXPECT_FALSE(running.probe.ran);
  EXPECT_FALSE(queued.ran);
}

// Is gone before Run returns, as when the submitter learns from Run that it is done.
struct SelfOwned : Work {
  explicit SelfOwned(std::atomic<int>& count) : count(count) {}
  void Run() override {
    std::atomic<int>& counter = count;
    delete this;
    counter.fetch_add(1);
  }
  std::atomic<int>& count;
};

TEST(PosixWorkerPool, TouchesNoWorkAfterItHasRun) {
  std::atomic<int> count = 0;
  {
    const auto pool = os().NewWorkerPool(2, "test");
    for (int i = 0; i < 1000; ++i) pool->Submit(*new SelfOwned(count));
    struct Last : Work {
      void Run() override {}
    } last;
    pool->Submit(last);
    pool->Wait(last);  // first in, first out: the others have at least begun
  }
  EXPECT_EQ(count.load(), 1000);
}

}  // namespace
}  // namespace troupe
