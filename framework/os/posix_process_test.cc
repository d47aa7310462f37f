// What only the real operating system can show of pipes and programs: signals, descriptor flags, what a child gets. What
// every Os promises is tested in testing/os_contract.
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/base/monotonic_time.h"
#include "troupe/os/os.h"
#include "troupe/os/posix_os.h"

namespace troupe {
namespace {

using ::testing::ContainsRegex;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

Os& os() { return PosixOs::Get(); }

size_t CountDescriptors() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return static_cast<size_t>(std::distance(begin(all), end(all)));
}

bool IsNonBlocking(int fd) { return (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0; }

int64_t Write(int fd, std::string text) {
  const iovec part = {text.data(), text.size()};
  return os().Write(fd, absl::MakeConstSpan(&part, 1));
}

// ---- SIGPIPE

class SigpipeTest : public ::testing::Test {
 protected:
  SigpipeTest() {
    delivered_ = 0;
    struct sigaction action = {};
    action.sa_handler = [](int) { delivered_.fetch_add(1); };
    sigaction(SIGPIPE, &action, &before_);
    sigemptyset(&sigpipe_);
    sigaddset(&sigpipe_, SIGPIPE);
    EXPECT_EQ(os().MakePipe(fds_), 0);
    EXPECT_EQ(os().Close(fds_[0]), 0);
  }
  ~SigpipeTest() override {
    EXPECT_EQ(os().Close(fds_[1]), 0);
    sigaction(SIGPIPE, &before_, nullptr);
  }
  bool IsBlocked() {
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    return sigismember(&mask, SIGPIPE) == 1;
  }
  bool IsPending() {
    sigset_t pending;
    sigpending(&pending);
    return sigismember(&pending, SIGPIPE) == 1;
  }
  // Takes one that is pending.
  bool Take() {
    const timespec at_once = {};
    return sigtimedwait(&sigpipe_, nullptr, &at_once) == SIGPIPE;
  }

  static inline std::atomic<int> delivered_ = 0;
  struct sigaction before_;
  sigset_t sigpipe_;
  int fds_[2];
};

// P-1
TEST_F(SigpipeTest, AWriteThatNobodyReadsRaisesNone) {
  EXPECT_EQ(Write(fds_[1], "x"), -EPIPE);
  EXPECT_FALSE(IsPending());
  EXPECT_FALSE(IsBlocked());
  EXPECT_EQ(delivered_.load(), 0);
  raise(SIGPIPE);
  EXPECT_EQ(delivered_.load(), 1) << "others still are delivered";
}

// P-1
TEST_F(SigpipeTest, WhereItIsBlockedNoneIsLeftPending) {
  pthread_sigmask(SIG_BLOCK, &sigpipe_, nullptr);
  EXPECT_EQ(Write(fds_[1], "x"), -EPIPE);
  EXPECT_FALSE(IsPending());
  EXPECT_TRUE(IsBlocked());
  pthread_sigmask(SIG_UNBLOCK, &sigpipe_, nullptr);
  EXPECT_EQ(delivered_.load(), 0);
}

TEST_F(SigpipeTest, OneThatWasPendingStays) {
  pthread_sigmask(SIG_BLOCK, &sigpipe_, nullptr);
  raise(SIGPIPE);
  EXPECT_EQ(Write(fds_[1], "x"), -EPIPE);
  EXPECT_TRUE(IsPending());
  EXPECT_TRUE(Take());
  EXPECT_FALSE(Take());
  pthread_sigmask(SIG_UNBLOCK, &sigpipe_, nullptr);
}

// P-1
TEST_F(SigpipeTest, SendingAFileToASocketThatWasClosedRaisesNone) {
  int pair[2];
  ASSERT_EQ(os().SocketPair(AF_UNIX, SOCK_STREAM, pair), 0);
  ASSERT_EQ(os().Close(pair[1]), 0);
  const int file = os().OpenFile("/proc/self/exe");
  ASSERT_GE(file, 0);
  EXPECT_EQ(os().SendFile(pair[0], file, 0, 100), -EPIPE);
  EXPECT_FALSE(IsPending());
  EXPECT_EQ(delivered_.load(), 0);
  os().Close(file);
  os().Close(pair[0]);
}

// ---- descriptors from elsewhere

// P-6
TEST(PosixPipe, ItsDescriptorsAreNonBlockingAndCloseOnExecAlsoThoseFromElsewhere) {
  int fds[2], foreign[2];
  ASSERT_EQ(os().MakePipe(fds), 0);
  ASSERT_EQ(pipe(foreign), 0);
  ASSERT_EQ(os().AdoptPipe(foreign[0]), 0);
  const int terminal = posix_openpt(O_RDWR | O_NOCTTY);
  ASSERT_GE(terminal, 0);
  ASSERT_EQ(os().AdoptPipe(terminal), 0);
  for (const int fd : {fds[0], fds[1], foreign[0], terminal}) {
    EXPECT_TRUE(IsNonBlocking(fd));
    EXPECT_NE(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
  }
  EXPECT_FALSE(IsNonBlocking(foreign[1]));
  for (const int fd : {fds[0], fds[1], foreign[0], foreign[1], terminal}) os().Close(fd);
}

TEST(PosixPipe, AFileOrAFolderIsRefusedAndStaysAsItWas) {
  for (const char* path : {"/proc/self/exe", "/"}) {
    const int fd = open(path, O_RDONLY);
    ASSERT_GE(fd, 0);
    EXPECT_EQ(os().AdoptPipe(fd), -EINVAL);
    EXPECT_FALSE(IsNonBlocking(fd));
    EXPECT_EQ(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
    os().Close(fd);
  }
}

// ---- programs

class PosixProcessTest : public ::testing::Test {
 protected:
  void SetUp() override { descriptors_before_ = CountDescriptors(); }
  void TearDown() override {
    EXPECT_EQ(CountDescriptors(), descriptors_before_) << "descriptors were left open";
    EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << "a child was left";
    EXPECT_EQ(errno, ECHILD);
  }

  // Runs it to its end: its exit status.
  static int Run(const ProcessOptions& options) {
    int pid = 0;
    const int process = os().Spawn(options, &pid);
    EXPECT_GE(process, 0) << "errno " << -process;
    if (process < 0) return process;
    EXPECT_GT(pid, 0);
    AwaitEnd(process);
    int status = 12345;
    EXPECT_EQ(os().TakeExitStatus(process, &status), 0);
    EXPECT_EQ(os().Close(process), 0);
    return status;
  }
  static void AwaitEnd(int process) {
    const std::unique_ptr<Poller> poller = os().NewPoller();
    ASSERT_EQ(poller->Add(process, kReadable, nullptr), 0);
    PollEvent events[1];
    while (poller->Wait(MonotonicTime::InfiniteFuture(), absl::MakeSpan(events)) == 0) {
    }
  }
  // What a command writes.
  std::string Output(std::vector<std::string> arguments, ProcessOptions options = {}) {
    int fds[2];
    EXPECT_EQ(os().MakePipe(fds), 0);
    options.arguments = std::move(arguments);
    options.output = fds[1];
    EXPECT_EQ(Run(options), 0);
    os().Close(fds[1]);
    std::string text(1 << 16, '\0');
    const int64_t n = read(fds[0], text.data(), text.size());
    os().Close(fds[0]);
    text.resize(n < 0 ? 0 : static_cast<size_t>(n));
    return text;
  }
  std::string Shell(std::string command, ProcessOptions options = {}) {
    return Output({"/bin/sh", "-c", std::move(command)}, std::move(options));
  }
  // What is open in a child: the descriptor that lists them is the fourth.
  std::vector<std::string> ChildDescriptors(ProcessOptions options = {}) {
    std::vector<std::string> lines =
        absl::StrSplit(Output({"/bin/ls", "/proc/self/fd"}, options), '\n', absl::SkipEmpty());
    return lines;
  }

  size_t descriptors_before_ = 0;
};

TEST_F(PosixProcessTest, AChildGetsNoDescriptorButItsThree) {
  const int leaks[] = {open("/dev/null", O_RDONLY), dup(0), fcntl(0, F_DUPFD, 100)};  // not close-on-exec
  EXPECT_THAT(ChildDescriptors(), ElementsAre("0", "1", "2", "3"));
  for (const int fd : leaks) close(fd);
}

TEST_F(PosixProcessTest, WithoutDescriptorsItReadsNothingAndWritesNowhere) {
  EXPECT_EQ(Shell("readlink /proc/self/fd/0; readlink /proc/self/fd/2; cat"), "/dev/null\n/dev/null\n");
  EXPECT_EQ(Run({.arguments = {"/bin/sh", "-c", "echo gone; echo gone >&2"}}), 0);
}

TEST_F(PosixProcessTest, ItsDescriptorsMayBeGivenInAnyOrderAlsoThoseBelowThree) {
  // 0, 1 and 2 of this process are three pipes while it spawns, in every permutation, and each also three times.
  int saved[3], pipes[3][2];
  for (int i = 0; i < 3; ++i) {
    saved[i] = fcntl(i, F_DUPFD_CLOEXEC, 10);
    ASSERT_EQ(pipe2(pipes[i], O_CLOEXEC | O_NONBLOCK), 0);
  }
  std::vector<std::array<int, 3>> orders;
  std::array<int, 3> order = {0, 1, 2};
  do {
    orders.push_back(order);
  } while (std::next_permutation(order.begin(), order.end()));
  for (int i = 0; i < 3; ++i) orders.push_back({i, i, i});
  std::vector<std::string> found, expected;
  for (const std::array<int, 3>& given : orders) {
    for (int i = 0; i < 3; ++i) dup2(pipes[i][1], i);
    int pid = 0;
    ProcessOptions options{.arguments = {"/bin/sh", "-c", "echo a >&0; echo b >&1; echo c >&2"}};
    options.input = given[0];
    options.output = given[1];
    options.error = given[2];
    const int process = os().Spawn(options, &pid);
    for (int i = 0; i < 3; ++i) dup2(saved[i], i);
    ASSERT_GE(process, 0);
    AwaitEnd(process);
    int status = -1;
    EXPECT_EQ(os().TakeExitStatus(process, &status), 0);
    EXPECT_EQ(status, 0);
    os().Close(process);
    std::string texts[3], wanted[3];
    for (int i = 0; i < 3; ++i) {
      char bytes[64];
      const ssize_t n = read(pipes[i][0], bytes, sizeof(bytes));
      texts[i].assign(bytes, n < 0 ? 0 : static_cast<size_t>(n));
      wanted[given[static_cast<size_t>(i)]] += std::string(1, static_cast<char>('a' + i)) + "\n";
    }
    found.push_back(absl::StrCat(texts[0], "|", texts[1], "|", texts[2]));
    expected.push_back(absl::StrCat(wanted[0], "|", wanted[1], "|", wanted[2]));
  }
  for (int i = 0; i < 3; ++i) {
    close(saved[i]);
    close(pipes[i][0]);
    close(pipes[i][1]);
  }
  EXPECT_EQ(found, expected);
}

TEST_F(PosixProcessTest, WhatItGetsBlocksUnlessItCouldNotBeStarted) {
  int fds[2];
  ASSERT_EQ(os().MakePipe(fds), 0);
  int pid = 0;
  EXPECT_EQ(os().Spawn({.arguments = {"/no/such/program"}, .output = fds[1]}, &pid), -ENOENT);
  EXPECT_TRUE(IsNonBlocking(fds[1]));
  EXPECT_EQ(Run({.arguments = {"/bin/true"}, .output = fds[1]}), 0);
  EXPECT_FALSE(IsNonBlocking(fds[1]));
  EXPECT_TRUE(IsNonBlocking(fds[0])) << "the other end";
  os().Close(fds[0]);
  os().Close(fds[1]);
}

TEST_F(PosixProcessTest, WhatCannotBeStartedSaysWhyAndLeavesNothing) {
  const char* const temp = getenv("TEST_TMPDIR");
  const std::string plain = absl::StrCat(temp == nullptr ? "/tmp" : temp, "/plain_", getpid());
  std::ofstream(plain) << "no program";
  int pid = 77, fds[2];
  ASSERT_EQ(os().MakePipe(fds), 0);
  const auto spawn = [&](std::vector<std::string> arguments, std::string directory = "") {
    ProcessOptions options;
    options.arguments = std::move(arguments);
    options.directory = std::move(directory);
    options.output = options.error = fds[1];
    return os().Spawn(options, &pid);
  };
  EXPECT_EQ(spawn({}), -EINVAL);
  EXPECT_EQ(spawn({"/no/such/program"}), -ENOENT);
  EXPECT_EQ(spawn({"no-such-program-in-the-path"}), -ENOENT);
  EXPECT_EQ(spawn({"/bin/sh/x"}), -ENOTDIR);
  EXPECT_EQ(spawn({plain}), -EACCES);
  EXPECT_EQ(spawn({"/"}), -EACCES);
  chmod(plain.c_str(), 0700);
  EXPECT_EQ(spawn({plain}), -ENOEXEC);
  EXPECT_EQ(spawn({"/bin/true", std::string(1 << 20, 'x')}), -E2BIG);
  EXPECT_EQ(spawn({"/bin/true"}, "/no/such/folder"), -ENOENT);
  EXPECT_EQ(spawn({"/bin/true"}, plain), -ENOTDIR);
  EXPECT_EQ(pid, 77);
  EXPECT_EQ(os().Spawn({.arguments = {"/bin/true"}, .input = 4321}, &pid), -EBADF);
  unlink(plain.c_str());
  os().Close(fds[0]);
  os().Close(fds[1]);
}

TEST_F(PosixProcessTest, ItStartsWithoutBlockedAndWithoutIgnoredSignals) {
  sigset_t mask, before;
  sigemptyset(&mask);
  sigaddset(&mask, SIGTERM);
  sigaddset(&mask, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &mask, &before);
  struct sigaction ignore = {}, action_before = {};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &ignore, &action_before);
  const std::string status = Output({"/bin/cat", "/proc/self/status"});
  sigaction(SIGPIPE, &action_before, nullptr);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  // But for 32 and 33, which are the C library's own.
  EXPECT_THAT(status, HasSubstr("SigBlk:\t0000000000000000\n"));
  EXPECT_THAT(status, ContainsRegex("SigIgn:\t0000000[01]80000000\n|SigIgn:\t0000000000000000\n"));
  EXPECT_THAT(status, HasSubstr("SigCgt:\t0000000000000000\n"));
}

TEST_F(PosixProcessTest, ItsSessionIsThisOneOrANewOne) {
  // Field 6 of proc(5)'s stat.
  const std::string session = "cut -d' ' -f6 /proc/$$/stat; echo $$";
  const std::vector<std::string> same = absl::StrSplit(Shell(session), '\n', absl::SkipEmpty());
  EXPECT_EQ(same[0], absl::StrCat(getsid(0)));
  const std::vector<std::string> own = absl::StrSplit(Shell(session, {.new_session = true}), '\n', absl::SkipEmpty());
  EXPECT_EQ(own[0], own[1]);
}

TEST_F(PosixProcessTest, ANameWithoutASlashIsLookedForInThePath) { EXPECT_EQ(Output({"echo", "found"}), "found\n"); }

TEST_F(PosixProcessTest, ChildrenThatNobodyMayWaitForStillEnd) {
  struct sigaction ignore = {}, before = {};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGCHLD, &ignore, &before);
  int pid = 0, status = 0;
  const int process = os().Spawn({.arguments = {"/bin/cat"}, .input = -1}, &pid);
  // It may have been reaped before anybody could look.
  if (process >= 0) {
    AwaitEnd(process);
    EXPECT_EQ(os().TakeExitStatus(process, &status), -ECHILD);
    os().Close(process);
  } else {
    EXPECT_EQ(process, -ESRCH);
  }
  sigaction(SIGCHLD, &before, nullptr);
}

}  // namespace
}  // namespace troupe
