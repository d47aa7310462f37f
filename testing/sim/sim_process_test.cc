// What only the simulation can show of programs: turns of the clock, children of children, a machine that crashes. What
// every Os promises of them is tested in testing/os_contract.
#include "troupe/testing/sim/sim_process.h"

#include <signal.h>

#include <cerrno>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "troupe/base/monotonic_time.h"
#include "troupe/os/os.h"
#include "troupe/testing/sim/sim_kernel.h"
#include "troupe/testing/sim/sim_os.h"

namespace troupe::testing {
namespace {

class SimProcessTest : public ::testing::Test {
 protected:
  int Start(std::vector<std::string> arguments, int output = 1) {
    ProcessOptions options;
    options.arguments = std::move(arguments);
    options.output = output;
    const int process = os_.Spawn(options, &pid_);
    EXPECT_GE(process, 0) << process;
    return process;
  }
  void Advance(absl::Duration time) { os_.kernel().AdvanceTo(os_.Now() + time); }
  // 12345: it runs.
  int Status(int process) {
    int status = 12345;
    os_.TakeExitStatus(process, &status);
    return status;
  }

  SimOs os_;
  int pid_ = 0;
};

TEST_F(SimProcessTest, AProgramRunsInTurnsOfTheClock) {
  os_.AddProgram("clock", [](SimProcess& process) {
    process.WriteTo(1, absl::StrCat(absl::ToInt64Milliseconds(process.Now() - MonotonicTime()), " "));
    if (process.Now() >= MonotonicTime() + absl::Seconds(2)) return process.Exit(5);
    process.WakeAfter(absl::Seconds(1));
  });
  const int process = Start({"clock"});
  EXPECT_EQ(os_.console(), "") << "not before the clock moves";
  EXPECT_EQ(os_.running_processes(), 1u);
  Advance(absl::Seconds(3));
  EXPECT_EQ(os_.console(), "0 1000 2000 ");
  EXPECT_EQ(os_.running_processes(), 0u);
  EXPECT_EQ(os_.zombies(), 1u);
  EXPECT_EQ(Status(process), 5);
  EXPECT_EQ(os_.zombies(), 0u);
}

class Hears final : public SimProgram {
 public:
  void Run(SimProcess& process) override {
    for (const int signo : std::exchange(heard_, {})) process.WriteTo(1, absl::StrCat(signo, " "));
  }
  bool HandleSignal(SimProcess& /*process*/, int signo) override {
    heard_.push_back(signo);
    return signo != SIGUSR2;
  }

 private:
  std::vector<int> heard_;
};

TEST_F(SimProcessTest, AProgramMayHandleSignalsButNotAll) {
  os_.AddProgram("hears", [] { return std::make_unique<Hears>(); });
  const int process = Start({"hears"});
  Advance(absl::Seconds(1));
  for (const int signo : {SIGTERM, SIGINT, SIGTERM}) EXPECT_EQ(os_.SignalProcess(process, signo), 0);
  EXPECT_EQ(os_.console(), "") << "it hears in its own turn";
  Advance(absl::Seconds(1));
  EXPECT_EQ(os_.console(), "2 15 ") << "each once, in the order of their numbers";
  EXPECT_EQ(os_.SignalProcess(process, SIGUSR2), 0);
  Advance(absl::Seconds(1));
  EXPECT_EQ(Status(process), -SIGUSR2);
  const int second = Start({"hears"});
  EXPECT_EQ(os_.SignalProcess(second, SIGCHLD), 0);
  EXPECT_EQ(os_.SignalProcess(second, SIGKILL), 0);
  Advance(absl::Seconds(1));
  EXPECT_EQ(Status(second), -SIGKILL);
  EXPECT_EQ(os_.console(), "2 15 ");
}

TEST_F(SimProcessTest, ASignalThatIsIgnoredByDefaultEndsNothing) {
  os_.AddProgram("wait", [](SimProcess&) {});
  const int process = Start({"wait"});
  for (const int signo : {SIGCHLD, SIGCONT, SIGWINCH, SIGURG}) os_.SignalProcess(process, signo);
  Advance(absl::Seconds(1));
  EXPECT_EQ(os_.running_processes(), 1u);
  os_.SignalProcess(process, SIGHUP);
  Advance(absl::Seconds(1));
  EXPECT_EQ(Status(process), -SIGHUP);
}

TEST_F(SimProcessTest, AChildOfAChildHoldsItsDescriptorsAndNobodyWaitsForIt) {
  os_.AddProgram("cat", [] { return std::make_unique<SimCat>(); });
  os_.AddProgram("leave", [](SimProcess& process) {
    EXPECT_EQ(process.StartChild({"nothing"}), -ENOENT);
    EXPECT_EQ(process.StartChild({"later", "x"}), 0);
    process.Exit(0);
  });
  os_.AddProgram("later", [](SimProcess& process) {
    if (process.Now() < MonotonicTime() + absl::Seconds(1)) return process.WakeAfter(absl::Seconds(1));
    process.WriteTo(1, process.arguments()[1]);
    process.Exit(0);
  });
  int fds[2];
  ASSERT_EQ(os_.MakePipe(fds), 0);
  const int process = Start({"leave"}, fds[1]);
  EXPECT_EQ(os_.Close(fds[1]), 0);
  Advance(absl::Milliseconds(1));
  EXPECT_EQ(Status(process), 0);
  EXPECT_EQ(os_.running_processes(), 1u);
  char bytes[10];
  EXPECT_EQ(os_.Read(fds[0], absl::MakeSpan(bytes)), -EAGAIN) << "the pipe is held open";
  Advance(absl::Seconds(2));
  EXPECT_EQ(os_.Read(fds[0], absl::MakeSpan(bytes)), 1);
  EXPECT_EQ(os_.Read(fds[0], absl::MakeSpan(bytes)), 0);
  EXPECT_EQ(os_.running_processes() + os_.zombies(), 0u);
}

TEST_F(SimProcessTest, AProgramSeesNothingOfWhatItHasClosed) {
  os_.AddProgram("closes", [](SimProcess& process) {
    process.Close(1);
    EXPECT_EQ(process.WriteTo(1, "x"), -EBADF);
    char byte[1];
    EXPECT_EQ(process.ReadFrom(7, absl::MakeSpan(byte)), -EBADF);
    EXPECT_EQ(process.ReadFrom(0, absl::MakeSpan(byte)), 0) << "the null device";
    process.Exit(256 + 3);
    EXPECT_EQ(process.WriteTo(2, "x"), -EBADF) << "it has ended";
    process.Exit(4);
  });
  const int process = Start({"closes"});
  Advance(absl::Seconds(1));
  EXPECT_EQ(Status(process), 3) << "the lower eight bits";
}

TEST_F(SimProcessTest, ClosingItsDescriptorLeavesItRunningAndThenAZombie) {
  os_.AddProgram("later", [](SimProcess& process) {
    if (process.Now() >= MonotonicTime() + absl::Seconds(1)) return process.Exit(0);
    process.WakeAfter(absl::Seconds(1));
  });
  EXPECT_EQ(os_.Close(Start({"later"})), 0);
  EXPECT_EQ(os_.running_processes(), 1u);
  Advance(absl::Seconds(2));
  EXPECT_EQ(os_.running_processes(), 0u);
  EXPECT_EQ(os_.zombies(), 1u);
}

TEST_F(SimProcessTest, AMachineThatCrashesTakesItsProgramsAlong) {
  int runs = 0;
  os_.AddProgram("ticks", [&runs](SimProcess& process) {
    ++runs;
    process.WakeAfter(absl::Seconds(1));
  });
  Start({"ticks"});
  Advance(absl::Milliseconds(1500));
  EXPECT_EQ(runs, 2);
  os_.Crash();
  Advance(absl::Seconds(5));
  EXPECT_EQ(runs, 2);
  EXPECT_EQ(os_.running_processes() + os_.zombies(), 0u);
  os_.Restart();
  Start({"ticks"});
  Advance(absl::Milliseconds(1));
  EXPECT_EQ(runs, 3) << "the programs are still there";
}

TEST_F(SimProcessTest, AHostThatGoesTakesItsProgramsAlong) {
  SimKernel kernel;
  int runs = 0;
  {
    SimOs host(kernel);
    host.AddProgram("ticks", [&runs](SimProcess& process) {
      ++runs;
      process.WakeAfter(absl::Seconds(1));
    });
    ProcessOptions options;
    options.arguments = {"ticks"};
    EXPECT_GE(host.Spawn(options, &pid_), 0);
    kernel.AdvanceTo(kernel.Now() + absl::Milliseconds(1));
  }
  kernel.AdvanceTo(kernel.Now() + absl::Seconds(5));
  EXPECT_EQ(runs, 1);
}

TEST_F(SimProcessTest, NumbersAreTheirOwn) {
  os_.AddProgram("true", [](SimProcess& process) { process.Exit(0); });
  Start({"true"});
  const int first = pid_;
  Start({"true"});
  EXPECT_EQ(pid_, first + 1);
}

}  // namespace
}  // namespace troupe::testing
