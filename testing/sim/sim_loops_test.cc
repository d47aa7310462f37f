// Event loops on simulated hosts: one that drives itself, and several in one thread that a driver steps. The second is
// what a simulated world of services is made of.
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/base/monotonic_time.h"
#include "troupe/loop/event_loop.h"
#include "troupe/testing/sim/sim_kernel.h"
#include "troupe/testing/sim/sim_os.h"

namespace troupe::testing {
namespace {

using ::testing::ElementsAre;

// Steps all loops until `done`. Within one moment every loop runs until none has anything to do; then time moves.
void Drive(SimKernel& kernel, const std::vector<EventLoop*>& loops, const std::function<bool()>& done) {
  while (!done()) {
    bool busy = true;
    while (busy) {
      busy = false;
      for (EventLoop* loop : loops) {
        loop->RunOnceWithoutWaiting();
        busy |= loop->NextWakeup() <= kernel.Now();
      }
    }
    MonotonicTime next = kernel.NextEventTime();
    for (EventLoop* loop : loops) next = std::min(next, loop->NextWakeup());
    ASSERT_FALSE(next.is_infinite()) << "nothing will ever happen";
    kernel.AdvanceTo(next);
  }
}

// Sends back what it gets.
class EchoHost {
 public:
  EchoHost(SimKernel& kernel, std::string name) : os_(kernel, {.name = std::move(name)}), loop_(os_) {
    listener_ = os_.Socket(AF_INET, SOCK_STREAM);
    EXPECT_EQ(os_.Bind(listener_, *SocketAddress::Parse("0.0.0.0:7")), 0);
    EXPECT_EQ(os_.Listen(listener_, 100), 0);
    EXPECT_EQ(loop_.AddReader(listener_, [this] { OnConnection(); }), 0);
  }
  ~EchoHost() { loop_.Close(); }
  EventLoop& loop() { return loop_; }

 private:
  void OnConnection() {
    const int fd = os_.Accept(listener_, nullptr);
    ASSERT_GE(fd, 0);
    EXPECT_EQ(loop_.AddReader(fd, [this, fd] { OnBytes(fd); }), 0);
  }
  void OnBytes(int fd) {
    char buffer[64];
    const int64_t n = os_.Recv(fd, absl::MakeSpan(buffer));
    if (n > 0) {
      const iovec part = {buffer, static_cast<size_t>(n)};
      EXPECT_EQ(os_.Send(fd, absl::MakeConstSpan(&part, 1)), n);
    } else {
      loop_.RemoveReader(fd);
      os_.Close(fd);
    }
  }

  SimOs os_;
  EventLoop loop_;
  int listener_ = -1;
};

// Sends `count` bytes, one a millisecond, and notes when each came back.
class PingHost {
 public:
  PingHost(SimKernel& kernel, const std::string& server, int count, std::vector<std::string>& log)
      : os_(kernel), loop_(os_), left_(count), log_(log) {
    fd_ = os_.Socket(AF_INET, SOCK_STREAM);
    const auto address = os_.Resolve({.host = server, .service = "7", .family = AF_INET});
    EXPECT_EQ(os_.Connect(fd_, address->at(0)), -EINPROGRESS);
    EXPECT_EQ(loop_.AddWriter(fd_, [this] { OnConnected(); }), 0);
  }
  ~PingHost() { loop_.Close(); }
  EventLoop& loop() { return loop_; }
  bool done() const { return left_ == 0; }

 private:
  void OnConnected() {
    EXPECT_EQ(os_.SocketError(fd_), 0);
    loop_.RemoveWriter(fd_);
    EXPECT_EQ(loop_.AddReader(fd_, [this] { OnEcho(); }), 0);
    Ping();
  }
  void Ping() {
    char byte = 'p';
    const iovec part = {&byte, 1};
    EXPECT_EQ(os_.Send(fd_, absl::MakeConstSpan(&part, 1)), 1);
  }
  void OnEcho() {
    char buffer[64];
    ASSERT_EQ(os_.Recv(fd_, absl::MakeSpan(buffer)), 1);
    log_.push_back(absl::StrCat(os_.name(), "@", absl::ToInt64Microseconds(loop_.Time() - MonotonicTime())));
    if (--left_ > 0) loop_.CallLater(absl::Milliseconds(1), [this] { Ping(); });
  }

  SimOs os_;
  EventLoop loop_;
  int fd_ = -1;
  int left_;
  std::vector<std::string>& log_;
};

struct Outcome {
  std::vector<std::string> log;
  uint64_t trace = 0;
};

Outcome RunPings(uint64_t seed, SimLink link, int count) {
  Outcome outcome;
  SimKernel kernel(seed);
  kernel.SetDefaultLink(link);
  EchoHost echo(kernel, "echo");
  PingHost a(kernel, "echo", count, outcome.log), b(kernel, "echo", count, outcome.log);
  Drive(kernel, {&echo.loop(), &a.loop(), &b.loop()}, [&] { return a.done() && b.done(); });
  outcome.trace = kernel.TraceHash();
  return outcome;
}

TEST(SimLoops, SeveralHostsShareAThreadAndAClock) {
  // Connecting takes 2 ms, each echo 2 ms, and there is 1 ms between them.
  EXPECT_THAT(RunPings(1, {.latency = absl::Milliseconds(1)}, 2).log,
              ElementsAre("host1@4000", "host2@4000", "host1@7000", "host2@7000"));
}

TEST(SimLoops, ASeedReplaysAllHosts) {
  const SimLink link = {.latency = absl::Milliseconds(1), .jitter = absl::Milliseconds(9)};
  const Outcome first = RunPings(3, link, 50), again = RunPings(3, link, 50), other = RunPings(4, link, 50);
  EXPECT_EQ(first.log, again.log);
  EXPECT_EQ(first.trace, again.trace);
  EXPECT_NE(first.log, other.log);
}

TEST(SimLoops, ALoopOnItsOwnMovesTheClock) {
  SimOs os;
  EventLoop loop(os);
  std::vector<int64_t> seconds;
  for (const int s : {3600, 1, 60}) {
    loop.CallLater(absl::Seconds(s), [&] { seconds.push_back(loop.Time().nanos() / 1'000'000'000); });
  }
  loop.CallLater(absl::Seconds(3600), [&] { loop.Stop(); });
  loop.RunForever();
  EXPECT_THAT(seconds, ElementsAre(1, 60, 3600));
  loop.Close();
}

TEST(SimLoops, ALoopThatNothingCanWakeSaysSo) {
  SimOs os;
  EventLoop loop(os);
  EXPECT_THROW(loop.RunForever(), InvalidState);
  loop.Close();
}

// Work runs on the thread of the loop that waits: what it posts must be heard before the clock moves on.
struct PostingWork : Work {
  void Run() override { loop->CallSoonThreadsafe(then); }
  EventLoop* loop = nullptr;
  std::function<void()> then;
};

TEST(SimLoops, WhatWorkPostsRunsBeforeTheNextTimer) {
  SimOs os(1, {.worker_latency = absl::Microseconds(20)});
  EventLoop loop(os);
  std::vector<std::string> log;
  const auto note = [&](absl::string_view what) {
    log.push_back(absl::StrCat(what, "@", absl::ToInt64Microseconds(loop.Time() - MonotonicTime())));
  };
  PostingWork work;
  work.loop = &loop;
  work.then = [&] { note("work"); };
  loop.CallSoon([&] { loop.executor().Submit(work); });
  loop.CallLater(absl::Seconds(1), [&] {
    note("timer");
    loop.Stop();
  });
  loop.RunForever();
  EXPECT_THAT(log, ElementsAre("work@20", "timer@1000000"));
  loop.Close();
}

TEST(SimLoops, ACrashedHostLeavesTheOthersRunning) {
  std::vector<std::string> log;
  SimKernel kernel;
  EchoHost echo(kernel, "echo");
  auto victim = std::make_unique<PingHost>(kernel, "echo", 1000, log);
  PingHost survivor(kernel, "echo", 20, log);
  std::vector<EventLoop*> loops = {&echo.loop(), &victim->loop(), &survivor.loop()};
  bool crashed = false;
  kernel.After(absl::Milliseconds(5), [&] { crashed = true; });
  Drive(kernel, loops, [&] { return crashed; });
  static_cast<SimOs&>(victim->loop().os()).Crash();
  victim.reset();  // its destructors find a dead machine, and may not complain
  Drive(kernel, {&echo.loop(), &survivor.loop()}, [&] { return survivor.done(); });
  EXPECT_TRUE(survivor.done());
}

}  // namespace
}  // namespace troupe::testing
