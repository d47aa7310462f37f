// What every Os promises of programs that it starts. The simulated one has programs that do what those of Debian do, as
// far as a case asks for it.
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

#include <initializer_list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/os/os.h"
#include "troupe/testing/os_contract/os_contract.h"
#include "troupe/testing/sim/sim_os.h"
#include "troupe/testing/sim/sim_process.h"

namespace troupe {
namespace {

using testing::SimCat;
using testing::SimProcess;

class OsProcessContract : public OsContract {
 protected:
  OsProcessContract() {
    if (sim_ == nullptr) return;
    sim_->AddProgram("/bin/cat", [] { return std::make_unique<SimCat>(); });
    sim_->AddProgram("/bin/true", [](SimProcess& process) { process.Exit(0); });
    sim_->AddProgram("/bin/false", [](SimProcess& process) { process.Exit(1); });
    sim_->AddProgram("/usr/bin/env", [](SimProcess& process) {
      for (const std::string& variable : *process.options().environment) process.WriteTo(1, absl::StrCat(variable, "\n"));
      process.Exit(0);
    });
  }
  void TearDown() override {
    OsContract::TearDown();
    if (sim_ != nullptr) {
      EXPECT_EQ(sim_->zombies() + sim_->running_processes(), 0u) << "a child was left";
    } else {
      EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1) << "a child was left";
    }
  }

  int Start(std::initializer_list<const char*> arguments, int input = -1, int output = -1, int error = -1) {
    ProcessOptions options;
    for (const char* argument : arguments) options.arguments.push_back(argument);
    options.input = input;
    options.output = output;
    options.error = error;
    int pid = -1;
    const int process = os().Spawn(options, &pid);
    EXPECT_GE(process, 0) << "errno " << -process;
    EXPECT_GT(pid, 0);
    return process;
  }
  // Waits for the end: the status.
  int End(int process) {
    EXPECT_EQ(Ready(process, kReadable), uint32_t{kReadable});
    int status = 12345;
    EXPECT_EQ(os().TakeExitStatus(process, &status), 0);
    Close({process});
    return status;
  }
  std::string ReadToEnd(int fd) {
    std::string all;
    while (true) {
      EXPECT_NE(Ready(fd, kReadable), 0u);
      char bytes[256];
      const int64_t n = os().Read(fd, absl::MakeSpan(bytes));
      EXPECT_GE(n, 0);
      if (n <= 0) return all;
      all.append(bytes, static_cast<size_t>(n));
    }
  }
  int64_t Write(int fd, absl::string_view text) {
    const iovec part = {const_cast<char*>(text.data()), text.size()};
    return os().Write(fd, absl::MakeConstSpan(&part, 1));
  }
};

INSTANTIATE_OS_CONTRACT(OsProcessContract);

// C-SUB-04
TEST_P(OsProcessContract, TheExitStatusIsTakenOnce) {
  for (const auto& [program, expected] : {std::pair("/bin/true", 0), std::pair("/bin/false", 1)}) {
    const int process = Start({program});
    EXPECT_EQ(Ready(process, kReadable), uint32_t{kReadable});
    EXPECT_EQ(Ready(process, kReadable), uint32_t{kReadable}) << "until it is taken at least";
    int status = 12345;
    EXPECT_EQ(os().TakeExitStatus(process, &status), 0);
    EXPECT_EQ(status, expected);
    EXPECT_EQ(os().TakeExitStatus(process, &status), -ECHILD);
    Close({process});
  }
}

TEST_P(OsProcessContract, AProgramReadsAndWritesWhatItWasGiven) {
  int in[2], out[2];
  ASSERT_EQ(os().MakePipe(in), 0);
  ASSERT_EQ(os().MakePipe(out), 0);
  const int process = Start({"/bin/cat"}, in[0], out[1]);
  Close({in[0], out[1]});
  EXPECT_EQ(Write(in[1], "hello"), 5);
  EXPECT_NE(Ready(out[0], kReadable), 0u);
  char bytes[10];
  EXPECT_EQ(os().Read(out[0], absl::MakeSpan(bytes)), 5);
  EXPECT_EQ(os().Read(out[0], absl::MakeSpan(bytes)), -EAGAIN);
  int status = 0;
  EXPECT_EQ(os().TakeExitStatus(process, &status), -EAGAIN);
  EXPECT_EQ(Ready(process, kReadable, kPast), 0u);
  EXPECT_EQ(Write(in[1], "bye"), 3);
  Close({in[1]});
  EXPECT_EQ(ReadToEnd(out[0]), "bye");
  EXPECT_EQ(End(process), 0);
  Close({out[0]});
}

TEST_P(OsProcessContract, ItsEndsOfPipesCloseWhenItEnds) {
  int in[2], out[2];
  ASSERT_EQ(os().MakePipe(in), 0);
  ASSERT_EQ(os().MakePipe(out), 0);
  const int process = Start({"/bin/cat"}, in[0], out[1]);
  Close({in[0], out[1]});
  EXPECT_EQ(Ready(out[0], kReadable, kPast), 0u);
  EXPECT_EQ(Ready(in[1], kReadable, kPast), 0u);
  EXPECT_EQ(os().SignalProcess(process, SIGKILL), 0);
  EXPECT_EQ(ReadToEnd(out[0]), "");
  EXPECT_NE(Ready(in[1], kReadable), 0u);
  EXPECT_EQ(Write(in[1], "x"), -EPIPE);
  EXPECT_EQ(End(process), -SIGKILL);
  Close({in[1], out[0]});
}

// C-SUB-04
TEST_P(OsProcessContract, ASignalEndsItAndIsItsStatus) {
  for (const int signo : {SIGTERM, SIGKILL, SIGUSR1}) {
    int in[2];
    ASSERT_EQ(os().MakePipe(in), 0);
    const int process = Start({"/bin/cat"}, in[0]);
    EXPECT_EQ(os().SignalProcess(process, 0), 0);
    EXPECT_EQ(os().SignalProcess(process, signo), 0);
    EXPECT_EQ(End(process), -signo);
    Close({in[0], in[1]});
  }
}

// C-SUB-06
TEST_P(OsProcessContract, WhoHasEndedAndWasWaitedForCannotBeSignalled) {
  const int process = Start({"/bin/true"});
  EXPECT_NE(Ready(process, kReadable), 0u);
  EXPECT_EQ(os().SignalProcess(process, SIGTERM), 0) << "nobody has waited for it";
  EXPECT_EQ(os().SignalProcess(process, 65), -EINVAL);
  EXPECT_EQ(os().SignalProcess(process, -1), -EINVAL);
  int status = 1;
  EXPECT_EQ(os().TakeExitStatus(process, &status), 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(os().SignalProcess(process, SIGTERM), -ESRCH);
  Close({process});
}

TEST_P(OsProcessContract, WritingToAPipeThatNobodyReadsKillsIt) {
  int in[2], out[2];
  ASSERT_EQ(os().MakePipe(in), 0);
  ASSERT_EQ(os().MakePipe(out), 0);
  const int process = Start({"/bin/cat"}, in[0], out[1]);
  Close({in[0], out[0], out[1]});
  EXPECT_EQ(Write(in[1], "x"), 1);
  EXPECT_EQ(End(process), -SIGPIPE);
  Close({in[1]});
}

TEST_P(OsProcessContract, WithoutDescriptorsThereIsNothingToRead) { EXPECT_EQ(End(Start({"/bin/cat"})), 0); }

TEST_P(OsProcessContract, OneDescriptorMayBeGivenTwiceAndManyTimes) {
  int pair[2];
  ASSERT_EQ(os().MakePipe(pair), 0);
  const int first = Start({"/bin/true"}, -1, pair[1], pair[1]);
  const int second = Start({"/bin/true"}, -1, pair[1]);
  Close({pair[1]});
  EXPECT_EQ(ReadToEnd(pair[0]), "") << "the end is that of the last";
  EXPECT_EQ(End(first), 0);
  EXPECT_EQ(End(second), 0);
  Close({pair[0]});
}

TEST_P(OsProcessContract, ItsEnvironmentIsTheOneGiven) {
  int out[2], pid = 0;
  ASSERT_EQ(os().MakePipe(out), 0);
  ProcessOptions options;
  options.arguments = {"/usr/bin/env"};
  options.environment = {"A=1", "B=two words"};
  options.output = out[1];
  const int process = os().Spawn(options, &pid);
  Close({out[1]});
  EXPECT_EQ(ReadToEnd(out[0]), "A=1\nB=two words\n");
  EXPECT_EQ(End(process), 0);
  Close({out[0]});
}

TEST_P(OsProcessContract, WhatCannotBeStartedSaysWhyAndLeavesNothing) {
  int pid = 77;
  EXPECT_EQ(os().Spawn({}, &pid), -EINVAL);
  ProcessOptions options;
  options.arguments = {"/no/such/program"};
  EXPECT_EQ(os().Spawn(options, &pid), -ENOENT);
  options.arguments = {"/bin/true"};
  options.output = 999;
  EXPECT_EQ(os().Spawn(options, &pid), -EBADF);
  options.output = -1;
  WithoutFreeDescriptors([&] { EXPECT_EQ(os().Spawn(options, &pid), -EMFILE); });
  EXPECT_EQ(pid, 77);
}

TEST_P(OsProcessContract, AProcessIsNoPipeAndAPipeNoProcess) {
  int fds[2], status = 0;
  ASSERT_EQ(os().MakePipe(fds), 0);
  const int process = Start({"/bin/cat"}, fds[0]);
  char byte[1];
  EXPECT_EQ(os().Read(process, absl::MakeSpan(byte)), -EINVAL);
  EXPECT_EQ(Write(process, "x"), -EINVAL);
  EXPECT_EQ(os().TakeExitStatus(999, &status), -EBADF);
  Close({fds[0], fds[1]});
  EXPECT_EQ(End(process), 0);
  EXPECT_EQ(os().TakeExitStatus(process, &status), -EBADF);
  EXPECT_EQ(os().SignalProcess(process, SIGTERM), -EBADF);
}

}  // namespace
}  // namespace troupe
