// Process on a simulated machine; and, at the end, real programs.
#include "troupe/net/process.h"

#include <signal.h>
#include <sys/wait.h>

#include <cerrno>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/task.h"
#include "troupe/async/task_group.h"
#include "troupe/base/errors.h"
#include "troupe/base/status_macros.h"
#include "troupe/loop/event_loop.h"
#include "troupe/loop/loop_testing.h"
#include "troupe/net/internal/subprocess_testing.h"
#include "troupe/net/subprocess.h"
#include "troupe/os/posix_os.h"
#include "troupe/testing/sim/sim_os.h"

namespace troupe {
namespace {

using internal::SubprocessTest;
using ::testing::HasSubstr;

using Strings = std::vector<std::string>;

constexpr SubprocessOptions kPipes = {.input = Stdio::Pipe(), .output = Stdio::Pipe(), .error = Stdio::Pipe()};

class ProcessTest : public SubprocessTest {
 protected:
  absl::StatusOr<Process> TryRun(const Strings& command, const SubprocessOptions& options = kPipes) {
    return loop_.RunUntilComplete(CreateSubprocessExec(loop_, command, options));
  }
  Process Run(const Strings& command, const SubprocessOptions& options = kPipes) {
    absl::StatusOr<Process> process = TryRun(command, options);
    EXPECT_TRUE(process.ok()) << process.status();
    return *std::move(process);
  }
  template <class T>
  T Await(Task<T> task) {
    return loop_.RunUntilComplete(std::move(task));
  }
  absl::StatusOr<ProcessResult> Communicate(Process& process, const CommunicateOptions& options = {}) {
    return Await(process.Communicate(options));
  }
};

INSTANTIATE_POLLING(ProcessTest);

TEST_P(ProcessTest, CommunicateFeedsReadsAndWaits) {
  Process cat = Run({"cat"});
  const absl::StatusOr<ProcessResult> result = Communicate(cat, {.input = "hello"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->returncode, 0);
  EXPECT_EQ(result->output, "hello");
  EXPECT_EQ(result->error, "");
  EXPECT_EQ(cat.returncode(), 0);
}

TEST_P(ProcessTest, CommunicateReadsMoreThanPipesHoldInBothDirectionsAndBothStreams) {
  const std::string many(1'000'000, 'x');
  Process cat = Run({"cat"});
  const absl::StatusOr<ProcessResult> echoed = Communicate(cat, {.input = many});
  ASSERT_TRUE(echoed.ok());
  EXPECT_EQ(echoed->output, many);
  Process spew = Run({"spew", "500000", "400000"});
  const absl::StatusOr<ProcessResult> spewed = Communicate(spew);
  ASSERT_TRUE(spewed.ok());
  EXPECT_EQ(spewed->output, std::string(500'000, '1'));
  EXPECT_EQ(spewed->error, std::string(400'000, '2'));
}

TEST_P(ProcessTest, ReadsAndWritesMayBeOfAFewBytes) {
  std::string text;
  for (int i = 0; i < 3000; ++i) absl::StrAppend(&text, i, "\n");
  const testing::SimIoLimits one = {.recv_bytes_max = 1, .send_bytes_max = 1};
  const testing::SimIoLimits some = {.recv_bytes_max = 7, .send_bytes_max = 7, .random = true};
  for (const testing::SimIoLimits& limits : {one, some}) {
    os_.SetIoLimits(limits);
    Process cat = Run({"cat"});
    const absl::StatusOr<ProcessResult> result = Communicate(cat, {.input = text});
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->output, text);
  }
}

// C-SUB-08
TEST_P(ProcessTest, AChildThatDoesNotReadItsInputIsNoError) {
  Process deaf = Run({"deaf"});
  const std::string many(1'000'000, 'x');
  const absl::StatusOr<ProcessResult> result = Communicate(deaf, {.input = many});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->output, "said");
  EXPECT_EQ(result->returncode, 0);
}

TEST_P(ProcessTest, CommunicateGivesTheStatusOfAChildThatFailed) {
  Process fails = Run({"exit", "3"});
  EXPECT_EQ(Communicate(fails)->returncode, 3);
  Process waits = Run({"wait"});
  EXPECT_TRUE(waits.Terminate().ok());
  EXPECT_EQ(Communicate(waits)->returncode, -SIGTERM);
}

// C-SUB-09
TEST_P(ProcessTest, CommunicateAfterTheExitReadsWhatIsLeftAndOnceMoreNothing) {
  Process spew = Run({"spew", "10"});
  EXPECT_EQ(Await(spew.Wait()), 0);
  EXPECT_EQ(Communicate(spew)->output, "1111111111");
  const absl::StatusOr<ProcessResult> again = Communicate(spew);
  EXPECT_EQ(again->output, "");
  EXPECT_EQ(again->returncode, 0);
}

TEST_P(ProcessTest, MoreOutputThanIsWantedKillsTheChild) {
  for (const Strings& command : {Strings{"spew", "200000"}, Strings{"spew", "0", "200000"}}) {
    Process spew = Run(command);
    const absl::Status status = Communicate(spew, {.output_bytes_max = 1000}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(status.message(), HasSubstr("expected at most 1000 bytes"));
    EXPECT_TRUE(spew.returncode().has_value());
  }
  Process exact = Run({"spew", "1000", "1000"});
  EXPECT_TRUE(Communicate(exact, {.output_bytes_max = 1000}).ok());
}

TEST_P(ProcessTest, InputNeedsAPipe) {
  Process child = Run({"wait"}, {.input = Stdio::Null()});
  EXPECT_EQ(Communicate(child, {.input = "x"}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THROW(child.input(), InvalidState);
  EXPECT_THROW(child.output(), InvalidState);
  EXPECT_THROW(child.error(), InvalidState);
  EXPECT_EQ(child.returncode(), std::nullopt);
  child.Close();
}

TEST_P(ProcessTest, WhatIsNotSaidOtherwiseIsInherited) {
  Process child = Run({"spew", "3", "3"}, {});
  EXPECT_EQ(Communicate(child)->output, "");
  EXPECT_EQ(os_.console(), "111222");
}

TEST_P(ProcessTest, CancelledCommunicateLeavesTheChildRunningAndWhatWasRead) {
  Process child = Run({"say", "something"});
  auto communicating = loop_.CreateTask(child.Communicate());
  Settle();
  communicating.Cancel();
  Settle();
  EXPECT_TRUE(communicating.cancelled());
  EXPECT_EQ(child.returncode(), std::nullopt);
  EXPECT_EQ(*Await(child.output().Read()), "something");
  EXPECT_TRUE(child.Kill().ok());
  EXPECT_EQ(Communicate(child)->returncode, -SIGKILL);
}

TEST_P(ProcessTest, OneCommunicatesAtATimeAndNobodyReadsMeanwhile) {
  Process child = Run({"wait"});
  auto first = loop_.CreateTask(child.Communicate({}));
  Settle();
  EXPECT_THROW(static_cast<void>(Communicate(child)), InvalidState);
  EXPECT_THROW(static_cast<void>(Await(child.output().Read())), InvalidState);
  EXPECT_TRUE(child.Kill().ok());
  Settle();
  EXPECT_TRUE(first.done());
}

TEST_P(ProcessTest, WhatItLeavesBehindHoldsCommunicateUntilItEnds) {
  Process leave = Run({"leave"});
  const absl::StatusOr<ProcessResult> result = Communicate(leave, {.input = "to its child"});
  EXPECT_EQ(result->output, "to its child");
}

// ---- piece by piece

TEST_P(ProcessTest, StreamsAreReadPieceByPiece) {
  Process cat = Run({"cat"});
  EXPECT_TRUE(Await(cat.input().Write("one\ntwo\nthr")).ok());
  EXPECT_EQ(*Await(cat.output().ReadLine()), "one\n");
  EXPECT_EQ(*Await(cat.output().Read(2)), "tw");
  EXPECT_EQ(*Await(cat.output().ReadLine()), "o\n");
  auto line = loop_.CreateTask(cat.output().ReadLine());
  Settle();
  EXPECT_FALSE(line.done());
  EXPECT_TRUE(Await(cat.input().Write("ee\nrest")).ok());
  EXPECT_EQ(*loop_.RunUntilComplete(std::move(line)), "three\n");
  cat.input().Close();
  EXPECT_EQ(*Await(cat.output().ReadLine()), "rest");
  EXPECT_EQ(*Await(cat.output().ReadLine()), "");
  EXPECT_EQ(*Await(cat.output().Read()), "");
  EXPECT_EQ(*Await(cat.error().ReadToEnd()), "");
  EXPECT_EQ(Await(cat.Wait()), 0);
}

TEST_P(ProcessTest, ManyShortLinesMixWithReadsOfOtherSizes) {
  // 30,000 of them in less than is held.
  std::string text;
  for (int i = 0; text.size() < 120'000; ++i) absl::StrAppend(&text, i % 10, "\n", i % 7 == 0 ? "\n" : "");
  Process child = Run({"cat"});
  EXPECT_TRUE(Await(child.input().Write(text)).ok());
  child.input().Close();
  Settle();
  std::string got;
  ProcessReader output = child.output();
  for (int i = 0; got.size() < text.size(); ++i) {
    const absl::StatusOr<std::string> some = i % 100 == 0 ? Await(output.Read(1 + i % 777)) : Await(output.ReadLine());
    ASSERT_TRUE(some.ok() && !some->empty()) << some.status();
    if (i % 100 != 0) {
      EXPECT_EQ(some->find('\n'), some->size() - 1);
    }
    got += *some;
  }
  EXPECT_TRUE(got == text);
  EXPECT_EQ(*Await(output.Read()), "");
  EXPECT_EQ(Await(child.Wait()), 0);
}

TEST_P(ProcessTest, ALineMayBeLong) {
  const std::string longest = std::string(ProcessReader::kLineBytesMax - 1, 'x') + "\n";
  Process cat = Run({"cat"});
  auto feeding = loop_.CreateTask(cat.input().Write(longest + "y" + longest));
  EXPECT_EQ(*Await(cat.output().ReadLine()), longest);
  EXPECT_EQ(Await(cat.output().ReadLine()).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(*Await(cat.output().Read(2)), "yx");
  Settle();
  EXPECT_TRUE(feeding.done());
  cat.Close();
}

TEST_P(ProcessTest, ReadToEndHasABound) {
  Process spew = Run({"spew", "100001"});
  EXPECT_EQ(Await(spew.output().ReadToEnd(100'000)).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(*Await(spew.output().ReadToEnd(100'000)), "");
}

TEST_P(ProcessTest, AReaderThatIsSlowHoldsTheChildBack) {
  Process spew = Run({"spew", "1000000"});
  Settle();
  EXPECT_EQ(spew.returncode(), std::nullopt);
  EXPECT_FALSE(spew.transport().pipe(1)->is_reading());
  size_t bytes = 0;
  while (true) {
    const absl::StatusOr<std::string> some = Await(spew.output().Read());
    ASSERT_TRUE(some.ok());
    if (some->empty()) break;
    bytes += some->size();
  }
  EXPECT_EQ(bytes, 1'000'000u);
  EXPECT_EQ(Await(spew.Wait()), 0);
}

TEST_P(ProcessTest, AWriterWaitsForRoom) {
  Process child = Run({"wait"});
  EXPECT_TRUE(Await(child.input().Write(std::string(100'000, 'x'))).ok());
  auto writing = loop_.CreateTask(child.input().Write(std::string(100'000, 'x')));
  Settle();
  EXPECT_FALSE(writing.done());
  EXPECT_TRUE(child.Kill().ok());
  Settle();
  EXPECT_EQ(loop_.RunUntilComplete(std::move(writing)).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Await(child.input().Write("x")).code(), absl::StatusCode::kUnavailable);
  child.input().Close();
  EXPECT_THROW(static_cast<void>(child.input().Write("x")), InvalidState);
}

TEST_P(ProcessTest, ReadersOfAProcessThatGoesSeeTheEnd) {
  std::optional<Process> child = Run({"wait"});
  auto reading = loop_.CreateTask(child->output().Read());
  auto line = loop_.CreateTask(child->error().ReadLine());
  RunReady();
  child.reset();
  Settle();
  EXPECT_EQ(*loop_.RunUntilComplete(std::move(reading)), "");
  EXPECT_EQ(*loop_.RunUntilComplete(std::move(line)), "");
}

TEST_P(ProcessTest, TwoMayNotReadOneStream) {
  Process child = Run({"wait"});
  auto reading = loop_.CreateTask(child.output().Read());
  RunReady();
  EXPECT_THROW(static_cast<void>(Await(child.output().Read())), InvalidState);
  reading.Cancel();
  Settle();
  auto again = loop_.CreateTask(child.output().Read());
  child.Close();
  Settle();
  EXPECT_EQ(*loop_.RunUntilComplete(std::move(again)), "");
}

TEST_P(ProcessTest, WhatCannotBeStartedSaysWhy) {
  EXPECT_EQ(TryRun({"nothing"}).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(TryRun({}).status().code(), absl::StatusCode::kInvalidArgument);
}

// ---- real programs

class RealProcessTest : public ::testing::TestWithParam<Polling> {
 protected:
  void SetUp() override {
    descriptors_before_ = CountDescriptors();
    loop_ =
        std::make_unique<EventLoop>(PosixOs::Get(), EventLoopOptions{.strict_polling = GetParam() == Polling::kStrict});
  }
  void TearDown() override {
    loop_->Close();
    loop_.reset();
    EXPECT_EQ(CountDescriptors(), descriptors_before_) << "descriptors were left open";
    EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1) << "a child was left";
    EXPECT_EQ(errno, ECHILD);
  }
  static size_t CountDescriptors() {
    const std::filesystem::directory_iterator all("/proc/self/fd");
    return static_cast<size_t>(std::distance(begin(all), end(all)));
  }
  template <class T>
  T Await(Task<T> task) {
    return loop_->RunUntilComplete(std::move(task));
  }
  Process Shell(absl::string_view command, const SubprocessOptions& options = kPipes) {
    absl::StatusOr<Process> process = Await(CreateSubprocessShell(*loop_, command, options));
    EXPECT_TRUE(process.ok()) << process.status();
    return *std::move(process);
  }
  void Run(Task<void> task) { loop_->RunUntilComplete(std::move(task)); }

  std::unique_ptr<EventLoop> loop_;
  size_t descriptors_before_ = 0;
};

INSTANTIATE_POLLING(RealProcessTest);

Task<void> CloseAndWait(Process& process) {
  process.Close();
  co_await process.transport().Closed();
}

// C-SUB-03 C-SUB-04
TEST_P(RealProcessTest, AShellRunsAPipeline) {
  Process shell = Shell("sort -n | head -2; echo problem >&2; exit 7");
  Task<absl::StatusOr<ProcessResult>> task = shell.Communicate({.input = "3\n1\n2\n"});
  const absl::StatusOr<ProcessResult> result = Await(std::move(task));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->output, "1\n2\n");
  EXPECT_EQ(result->error, "problem\n");
  EXPECT_EQ(result->returncode, 7);
  Run(CloseAndWait(shell));
}

TEST_P(RealProcessTest, ManyBytesGoThroughAChildAndBack) {
  const std::string many(3'000'000, 'x');
  Process cat = Shell("cat");
  Task<absl::StatusOr<ProcessResult>> task = cat.Communicate({.input = many});
  const absl::StatusOr<ProcessResult> result = Await(std::move(task));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(result->output == many);
  Run(CloseAndWait(cat));
}

// C-SUB-08
TEST_P(RealProcessTest, AChildThatDoesNotReadIsNoError) {
  const std::string many(3'000'000, 'x');
  Process deaf = Shell("exec 0<&-; echo said");
  Task<absl::StatusOr<ProcessResult>> task = deaf.Communicate({.input = many});
  const absl::StatusOr<ProcessResult> result = Await(std::move(task));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->output, "said\n");
  Run(CloseAndWait(deaf));
}

// C-SUB-04 C-SUB-06
TEST_P(RealProcessTest, AChildIsSignalledAndItsEndHeard) {
  Process child = Shell("exec cat");
  EXPECT_GT(child.pid(), 0);
  EXPECT_TRUE(child.Terminate().ok());
  EXPECT_EQ(Await(child.Wait()), -SIGTERM);
  EXPECT_EQ(child.Kill().code(), absl::StatusCode::kNotFound);
  Run(CloseAndWait(child));
}

// C-SUB-05
TEST_P(RealProcessTest, AProcessThatGoesKillsItsChildAndLeavesNoZombie) {
  Task<int> wait = [&] {
    Process child = Shell("trap '' TERM; read nothing");
    return child.Wait();
  }();
  EXPECT_EQ(Await(std::move(wait)), -SIGKILL);
  for (int quiet = 0; quiet < 3; ++quiet) {
    if (loop_->RunOnceWithoutWaiting()) quiet = -1;
  }
}

TEST_P(RealProcessTest, ALoopThatClosesLeavesNoZombie) {
  Process child = Shell("trap '' TERM; read nothing");
  loop_->Close();
  EXPECT_EQ(child.returncode(), -SIGKILL);
}

TEST_P(RealProcessTest, DirectoryEnvironmentAndGivenStreams) {
  const Strings environment = {"A=one two"};
  SubprocessOptions options = kPipes;
  options.directory = "/";
  options.environment = environment;
  options.error = Stdio::Output();
  options.input = Stdio::Null();
  Process child = Shell("pwd; echo $A; echo merged >&2; cat", options);
  EXPECT_EQ(Await(child.Communicate())->output, "/\none two\nmerged\n");
  Run(CloseAndWait(child));
}

Task<void> RunOne(EventLoop& loop, int number, int& right) {
  const std::string command = absl::StrCat("echo ", number, "; exit ", number);
  absl::StatusOr<Process> process = co_await CreateSubprocessShell(loop, command, kPipes);
  if (!process.ok()) co_return;
  const absl::StatusOr<ProcessResult> result = co_await process->Communicate();
  if (result.ok() && result->returncode == number && result->output == absl::StrCat(number, "\n")) ++right;
  process->Close();
  co_await process->transport().Closed();
}

Task<void> RunMany(EventLoop& loop, int& right) {
  TaskGroup group(loop);
  for (int number = 0; number < 40; ++number) group.Spawn(RunOne(loop, number, right));
  (void)co_await group.Join();
}

TEST_P(RealProcessTest, ManyChildrenAtOnceAreToldApart) {
  int right = 0;
  Run(RunMany(*loop_, right));
  EXPECT_EQ(right, 40);
}

TEST_P(RealProcessTest, WhatIsNoProgramSaysSo) {
  const Strings nothing = {"/no/such/program"}, folder = {"/"};
  EXPECT_EQ(Await(CreateSubprocessExec(*loop_, nothing, {})).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Await(CreateSubprocessExec(*loop_, folder, {})).status().code(), absl::StatusCode::kPermissionDenied);
}

// The system says the same of a missing folder as of a missing program.
TEST_P(RealProcessTest, AFolderThatIsNotThereIsNamed) {
  SubprocessOptions options;
  options.directory = "/no/such/folder";
  const Strings command = {"true"};
  const absl::Status status = Await(CreateSubprocessExec(*loop_, command, options)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(status.message(), "start true in /no/such/folder: No such file or directory");
}

// ---- the samples of the headers

Task<absl::Status> Sort(EventLoop& loop, ProcessResult& sorted) {
  const std::vector<std::string> command = {"sort", "-n"};
  auto sort = co_await troupe::CreateSubprocessExec(loop, command,
                                                    {.input = troupe::Stdio::Pipe(), .output = troupe::Stdio::Pipe()});
  CO_RETURN_IF_ERROR(sort.status());
  auto result = co_await sort->Communicate({.input = "3\n1\n2\n"});
  CO_RETURN_IF_ERROR(result.status());
  sorted = *std::move(result);
  co_return absl::OkStatus();
}

class Lines final : public troupe::SubprocessProtocol {};

Task<absl::Status> StartAndTerminate(EventLoop& loop, int& returncode) {
  const std::vector<std::string> command = {"cat", "-u"};
  auto started = co_await troupe::SubprocessExec(loop, [] { return std::make_unique<Lines>(); }, command,
                                                 {.output = troupe::Stdio::Null()});
  CO_RETURN_IF_ERROR(started.status());
  started->transport->Terminate().IgnoreError();
  returncode = co_await started->transport->Wait();
  co_return absl::OkStatus();
}

TEST_P(RealProcessTest, TheSamplesRun) {
  ProcessResult sorted;
  EXPECT_TRUE(Await(Sort(*loop_, sorted)).ok());
  EXPECT_EQ(sorted.output, "1\n2\n3\n");
  int returncode = 0;
  EXPECT_TRUE(Await(StartAndTerminate(*loop_, returncode)).ok());
  EXPECT_EQ(returncode, -SIGTERM);
}

// C-SUB-09
TEST_P(RealProcessTest, LinesAreReadWhileItRunsAndAfterIt) {
  Process child = Shell("echo one; read line; echo got $line; echo last");
  EXPECT_EQ(*Await(child.output().ReadLine()), "one\n");
  EXPECT_TRUE(Await(child.input().Write("word\n")).ok());
  EXPECT_EQ(*Await(child.output().ReadLine()), "got word\n");
  EXPECT_EQ(Await(child.Wait()), 0);
  EXPECT_EQ(*Await(child.output().ReadToEnd()), "last\n");
  Run(CloseAndWait(child));
}

}  // namespace
}  // namespace troupe
