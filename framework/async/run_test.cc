// Run: C-RUN-01 to C-RUN-03, signals and exit codes.
#include "troupe/async/run.h"

#include <csignal>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/blocking.h"
#include "troupe/async/event.h"
#include "troupe/async/finally.h"
#include "troupe/async/internal/shutdown_hooks.h"
#include "troupe/async/sleep.h"
#include "troupe/base/errors.h"
#include "troupe/loop/event_loop.h"
#include "troupe/loop/loop_policy.h"
#include "troupe/testing/sim/sim_os.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class RunTest : public ::testing::Test {
 protected:
  // Raises `signo` on this machine at `when` of its clock.
  void RaiseAt(absl::Duration when, int signo) {
    os_.kernel().clock().At(MonotonicTime() + when, [this, signo] { os_.RaiseSignal(signo); });
  }
  absl::Duration Elapsed() { return os_.Now() - MonotonicTime(); }

  testing::SimOs os_;
  std::vector<std::string> log_;
};

TEST_F(RunTest, TheExitCodeComesFromTheStatus) {
  EXPECT_EQ(RunMain(os_, [](EventLoop&) -> Task<absl::Status> { co_return absl::OkStatus(); }), 0);
  EXPECT_EQ(RunMain(os_, [](EventLoop&) -> Task<absl::Status> { co_return absl::NotFoundError("x"); }), 1);
  EXPECT_EQ(RunMain(os_,
                    [](EventLoop&) -> Task<absl::Status> {
                      co_await Sleep(absl::ZeroDuration());
                      throw std::runtime_error("x");
                    }),
            1);
  EXPECT_THAT(os_.OpenDescriptors(), IsEmpty());
}

TEST_F(RunTest, MainIsCalledOnTheRunningLoopAndTheLoopIsGoneAfterwards) {
  EXPECT_EQ(RunMain(os_,
                    [](EventLoop& loop) {
                      EXPECT_EQ(&EventLoop::Current(), &loop);
                      return []() -> Task<absl::Status> { co_return absl::OkStatus(); }();
                    }),
            0);
  EXPECT_EQ(EventLoop::CurrentOrNull(), nullptr);
}

TEST_F(RunTest, ALambdaThatIsACoroutineLivesAsLongAsItsTask) {
  const auto shared = std::make_shared<int>(3);
  EXPECT_EQ(RunMain(os_,
                    [shared](EventLoop&) -> Task<absl::Status> {
                      co_await Sleep(absl::Seconds(1));
                      co_return *shared == 3 ? absl::OkStatus() : absl::InternalError("gone");
                    }),
            0);
}

// C-RUN-01
TEST_F(RunTest, RefusesToRunInsideALoop) {
  EventLoop loop(os_);
  loop.CallSoon([&] {
    EXPECT_THROW(RunMain(os_, [](EventLoop&) -> Task<absl::Status> { co_return absl::OkStatus(); }), InvalidState);
    loop.Stop();
  });
  loop.RunForever();
  loop.Close();
}

Task<void> WindsDown(std::vector<std::string>& log, std::string name, bool fails) {
  bool cancelled = false;
  try {
    co_await Sleep(absl::Hours(1));
  } catch (const Cancelled&) {
    cancelled = true;
  }
  log.push_back(name + (cancelled ? " cancelled" : " slept"));
  co_await Sleep(absl::Seconds(1));
  log.push_back(name + " ended");
  if (fails) throw std::runtime_error(name);
}
Task<absl::Status> EndsWith(absl::Status status) {
  try {
    co_await Sleep(absl::Hours(1));
  } catch (const Cancelled&) {
    // turned into a value
  }
  co_return status;
}

// C-RUN-02
TEST_F(RunTest, TasksThatAreLeftAreCancelledAndAwaitedAndTheirErrorsReported) {
  std::vector<std::string> reports;
  EXPECT_EQ(RunMain(os_,
                    [&](EventLoop& loop) -> Task<absl::Status> {
                      loop.SetExceptionHandler([&](EventLoop&, const ExceptionContext& context) {
                        reports.push_back(
                            context.message + "|" + std::string(context.Get("task")).substr(0, 9) + "|" +
                            (context.exception ? DescribeException(context.exception) : context.status.ToString()));
                      });
                      loop.CreateTask(WindsDown(log_, "a", false), "a");
                      loop.CreateTask(WindsDown(log_, "b", true), "b");
                      loop.CreateTask(EndsWith(absl::DataLossError("lost")), "c");
                      loop.CreateTask(EndsWith(absl::CancelledError("told to")), "d");
                      co_await Sleep(absl::Seconds(1));
                      co_return absl::OkStatus();
                    }),
            0);
  EXPECT_THAT(log_, ElementsAre("a cancelled", "b cancelled", "a ended", "b ended"));
  EXPECT_THAT(reports, ElementsAre("unhandled exception during troupe::Run() shutdown|<Task 'b'|std::runtime_error: b",
                                   "unhandled exception during troupe::Run() shutdown|<Task 'c'|DATA_LOSS: lost"));
}

// C-RUN-03
TEST_F(RunTest, NoLoopIsCurrentAfterwardsHoweverItEnded) {
  EXPECT_EQ(RunMain(os_,
                    [](EventLoop& loop) -> Task<absl::Status> {
                      EXPECT_EQ(&GetEventLoop(), &loop);
                      co_return absl::OkStatus();
                    }),
            0);
  EXPECT_THROW(GetEventLoop(), InvalidState);
  EXPECT_THROW(RunMain(os_, [](EventLoop&) -> Task<absl::Status> { throw Fatal("out"); }), Fatal);
  EXPECT_THROW(GetEventLoop(), InvalidState);
}

TEST_F(RunTest, ThePolicyMakesTheLoopOfAProgram) {
  struct Simulated final : LoopPolicy {
    explicit Simulated(Os& os) : os(os) {}
    std::unique_ptr<EventLoop> NewLoop() override { return std::make_unique<EventLoop>(os); }
    Os& os;
  };
  SetLoopPolicy(std::make_shared<Simulated>(os_));
  static char name[] = "program";  // the log keeps it
  char* arguments[] = {name, nullptr};
  EXPECT_EQ(troupe::Run(1, arguments,
                [](EventLoop&) -> Task<absl::Status> {
                  co_await Sleep(absl::Hours(1));
                  co_return absl::OkStatus();
                }),
            0);
  SetLoopPolicy(nullptr);
  EXPECT_EQ(Elapsed(), absl::Hours(1));
}

// C-RUN-03
TEST_F(RunTest, WhatTheExecutorHasUnderWayIsAwaited) {
  EXPECT_EQ(RunMain(os_,
                    [&](EventLoop& loop) -> Task<absl::Status> {
                      RunInExecutor(loop, [&] { log_.push_back("flushed"); });
                      co_return absl::OkStatus();
                    }),
            0);
  EXPECT_THAT(log_, ElementsAre("flushed"));
}

TEST_F(RunTest, ASignalCancelsMain) {
  RaiseAt(absl::Seconds(5), SIGTERM);
  EXPECT_EQ(RunMain(os_,
                    [](EventLoop&) -> Task<absl::Status> {
                      co_await Sleep(absl::Hours(1));
                      co_return absl::OkStatus();
                    }),
            128 + SIGTERM);
  EXPECT_EQ(Elapsed(), absl::Seconds(5));
  EXPECT_THAT(os_.unwatched_signals(), IsEmpty());
}

TEST_F(RunTest, MainMayTurnACancellationIntoAResult) {
  RaiseAt(absl::Seconds(5), SIGINT);
  EXPECT_EQ(RunMain(os_, [](EventLoop&) { return EndsWith(absl::OkStatus()); }), 0);
}

TEST_F(RunTest, MainCancelledByItselfIsAnErrorAndNoSignal) {
  EXPECT_EQ(RunMain(os_, [](EventLoop&) -> Task<absl::Status> { throw Cancelled(); }), 1);
}

Task<absl::Status> Serves(EventLoop& loop, Event*& drained, std::vector<std::string>& log) {
  Event event;
  drained = &event;
  const auto hook = loop.Local<internal::ShutdownHooks>().AddDrainable([&log] { log.push_back("drain"); });
  co_await event.Wait();
  co_return absl::OkStatus();
}

TEST_F(RunTest, TheFirstSignalDrainsTheServersAndTheSecondCancels) {
  Event* drained = nullptr;
  const auto serve = [&](EventLoop& loop) { return Serves(loop, drained, log_); };
  RaiseAt(absl::Seconds(1), SIGTERM);
  os_.kernel().clock().At(MonotonicTime() + absl::Seconds(2), [&] {
    os_.kernel().clock().NoteForeignCode();
    drained->Set();
  });
  EXPECT_EQ(RunMain(os_, serve), 0);
  EXPECT_THAT(log_, ElementsAre("drain"));

  RaiseAt(Elapsed() + absl::Seconds(1), SIGTERM);
  RaiseAt(Elapsed() + absl::Seconds(2), SIGINT);
  EXPECT_EQ(RunMain(os_, serve), 128 + SIGINT);
  EXPECT_THAT(log_, ElementsAre("drain", "drain"));
}

TEST_F(RunTest, AHookThatIsGoneIsNotCalled) {
  RaiseAt(absl::Seconds(1), SIGTERM);
  EXPECT_EQ(RunMain(os_,
                    [&](EventLoop& loop) -> Task<absl::Status> {
                      {
                        const auto hook = loop.Local<internal::ShutdownHooks>().AddDrainable([] { ADD_FAILURE(); });
                      }
                      co_await Sleep(absl::Hours(1));
                      co_return absl::OkStatus();
                    }),
            128 + SIGTERM);
}

TEST_F(RunTest, AThirdSignalRaisesItselfUncaught) {
  for (int i = 1; i <= 3; ++i) RaiseAt(absl::Seconds(i), SIGTERM);
  EXPECT_EQ(RunMain(os_,
                    [&](EventLoop&) -> Task<absl::Status> {
                      Task<void> body = Sleep(absl::Hours(1));
                      co_await Finally(std::move(body), [&] { return WindsDown(log_, "deaf", false); });
                      co_return absl::OkStatus();
                    }),
            128 + SIGTERM);
  // A real process would have ended here.
  EXPECT_THAT(os_.unwatched_signals(), ElementsAre(SIGTERM));
}

TEST_F(RunTest, ASignalDuringShutdownCancelsAgainWhatIsLeft) {
  RaiseAt(absl::Seconds(10), SIGTERM);
  EXPECT_EQ(RunMain(os_,
                    [&](EventLoop& loop) -> Task<absl::Status> {
                      loop.CreateTask([](std::vector<std::string>& log) -> Task<void> {
                        for (int i = 0; i < 2; ++i) {
                          try {
                            co_await Sleep(absl::Hours(1));
                          } catch (const Cancelled&) {
                            log.push_back("cancelled");
                          }
                        }
                      }(log_));
                      co_await Sleep(absl::Seconds(1));
                      co_return absl::OkStatus();
                    }),
            0);
  EXPECT_THAT(log_, ElementsAre("cancelled", "cancelled"));
  EXPECT_EQ(Elapsed(), absl::Seconds(10));
}

TEST_F(RunTest, FatalLeavesRunAfterTheShutdown) {
  EXPECT_THROW(RunMain(os_,
                       [&](EventLoop& loop) -> Task<absl::Status> {
                         loop.CreateTask(WindsDown(log_, "a", false));
                         co_await Sleep(absl::Seconds(1));
                         throw Fatal("out");
                       }),
               Fatal);
  EXPECT_THAT(log_, ElementsAre("a cancelled", "a ended"));
}

TEST_F(RunTest, StoppedFromInsideMainIsReportedAsMisuseAfterTheShutdown) {
  EXPECT_THROW(RunMain(os_,
                       [&](EventLoop& loop) -> Task<absl::Status> {
                         loop.Stop();
                         co_await Sleep(absl::Hours(1));
                         co_return absl::OkStatus();
                       }),
               InvalidState);
}

}  // namespace
}  // namespace troupe
