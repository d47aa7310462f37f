#include "troupe/net/subprocess.h"

#include <signal.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "glog/logging.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/task.h"
#include "troupe/base/errors.h"
#include "troupe/base/monotonic_time.h"
#include "troupe/base/os_error.h"
#include "troupe/loop/event_loop.h"
#include "troupe/loop/loop_testing.h"
#include "troupe/net/internal/log_count.h"
#include "troupe/net/internal/subprocess_testing.h"
#include "troupe/testing/sim/sim_os.h"
#include "troupe/testing/sim/sim_process.h"

namespace troupe {
namespace {

using internal::LogCount;
using internal::SubprocessRecording;
using internal::SubprocessTest;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

using Strings = std::vector<std::string>;

INSTANTIATE_POLLING(SubprocessTest);

constexpr SubprocessOptions kAllNull = {.input = Stdio::Null(), .output = Stdio::Null(), .error = Stdio::Null()};

TEST_P(SubprocessTest, AProtocolHearsTheLifeOfItsChild) {
  SubprocessTransport& cat = Start({"cat"});
  EXPECT_THAT(heard_.log, ElementsAre("made"));
  EXPECT_GT(cat.pid(), 0);
  EXPECT_EQ(cat.returncode(), std::nullopt);
  cat.pipe(0)->Write("hello");
  Settle();
  EXPECT_THAT(heard_.log, ElementsAre("made", "data 1 hello"));
  cat.pipe(0)->Write(" world");
  cat.pipe(0)->WriteEof();
  Settle();
  ExpectLife({"data 1 hello", "pipe 0 OK", "data 1  world", "pipe 1 OK", "pipe 2 OK", "exited 0"});
  EXPECT_EQ(cat.returncode(), 0);
  EXPECT_TRUE(cat.is_closing());
  EXPECT_EQ(os_.zombies(), 0u);
}

TEST_P(SubprocessTest, WhatIsWrittenInConnectionMadeIsRead) {
  heard_.on = [](SubprocessTransport* transport, const std::string& entry) {
    if (entry != "made") return;
    transport->pipe(0)->Write("first");
    transport->pipe(0)->Close();
  };
  Start({"cat"});
  Settle();
  EXPECT_THAT(heard_.log, Contains("data 1 first"));
  EXPECT_TRUE(heard_.lost());
}

// C-SUB-01
TEST_P(SubprocessTest, ContradictingArgumentsAreRefusedBeforeAnythingStarts) {
  const int64_t calls = os_.calls();
  const auto refused = [&](const Strings& arguments, const SubprocessOptions& options) {
    const absl::Status status = TryStart(arguments, options).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return std::string(status.message());
  };
  EXPECT_THAT(refused({}, {}), HasSubstr("a program to start was not specified"));
  EXPECT_THAT(refused({""}, {}), HasSubstr("a program to start was not specified"));
  EXPECT_THAT(refused({"cat", std::string("a\0b", 3)}, {}), HasSubstr("NUL"));
  EXPECT_THAT(refused({"cat"}, {.input = Stdio::Output()}), HasSubstr("only the error stream"));
  EXPECT_THAT(refused({"cat"}, {.output = Stdio::Output()}), HasSubstr("only the error stream"));
  EXPECT_THAT(refused({"cat"}, {.output = Stdio::Descriptor(-1)}), HasSubstr("no descriptor: -1"));
  EXPECT_THAT(refused({"cat"}, {.directory = absl::string_view("a\0b", 3)}), HasSubstr("directory"));
  for (const std::string& variable :
       {std::string("noequals"), std::string("=x"), std::string("A=\0", 3), std::string()}) {
    const Strings environment = {"A=1", variable};
    EXPECT_THAT(refused({"cat"}, {.environment = environment}), HasSubstr("environment variable")) << variable;
  }
  const absl::Status nul = loop_
                               .RunUntilComplete(SubprocessShell(
                                   loop_, [this] { return heard_.NewProtocol(); }, absl::string_view("a\0b", 3)))
                               .status();
  EXPECT_EQ(nul.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(heard_.log, IsEmpty());
  EXPECT_EQ(heard_.alive, 0);
  EXPECT_EQ(os_.calls(), calls);
}

TEST_P(SubprocessTest, WhatCannotBeStartedSaysWhyAndLeavesNothing) {
  const absl::Status status = TryStart({"nothing", "secret"}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ErrnoOf(status), ENOENT);
  EXPECT_THAT(status.message(), AllOf(HasSubstr("start nothing"), ::testing::Not(HasSubstr("secret"))));
  EXPECT_EQ(ErrnoOf(TryStart({"cat"}, {.error = Stdio::Descriptor(77)}).status()), EBADF);
  EXPECT_THAT(os_.OpenDescriptors(), IsEmpty());
  EXPECT_THAT(heard_.log, IsEmpty());
  EXPECT_EQ(heard_.alive, 0);
}

TEST_P(SubprocessTest, WhicheverCallFailsNothingIsLeft) {
  for (int64_t k = 1;; ++k) {
    SCOPED_TRACE(k);
    heard_ = SubprocessRecording();
    int64_t calls = 0;
    os_.SetFault([&](absl::string_view called, int) {
      // Which fails only where somebody else waits for the child.
      if (called == "TakeExitStatus") return 0;
      return ++calls == k ? EMFILE : 0;
    });
    {
      absl::StatusOr<StartedSubprocess<>> started = TryStart({"cat"});
      if (started.ok()) {
        started->transport->Close();
        Settle();
        EXPECT_TRUE(heard_.lost());
      } else {
        EXPECT_EQ(ErrnoOf(started.status()), EMFILE);
      }
    }
    Settle();
    EXPECT_EQ(heard_.alive, 0);
    EXPECT_EQ(os_.zombies() + os_.running_processes(), 0u);
    EXPECT_THAT(os_.OpenDescriptors(), IsEmpty());
    os_.SetFault(nullptr);
    if (calls < k) break;
    ASSERT_LT(k, 200);
  }
}

TEST_P(SubprocessTest, AFactoryThatThrowsStartsNothing) {
  const auto fails = []() -> std::unique_ptr<SubprocessProtocol> { throw std::runtime_error("no protocol"); };
  const Strings command = {"cat"};
  EXPECT_THROW(static_cast<void>(loop_.RunUntilComplete(SubprocessExec(loop_, fails, command))), std::runtime_error);
  EXPECT_EQ(os_.running_processes(), 0u);
}

TEST_P(SubprocessTest, AShellGetsTheCommandAsOneArgument) {
  absl::StatusOr<StartedSubprocess<>> started = loop_.RunUntilComplete(SubprocessShell(
      loop_, [this] { return heard_.NewProtocol(); }, "ls | wc; echo 'x y'"));
  ASSERT_TRUE(started.ok());
  Settle();
  EXPECT_THAT(heard_.log, Contains("data 1 ls | wc; echo 'x y'"));
  EXPECT_TRUE(heard_.lost());
}

// ---- the order of the end

// C-SUB-03
TEST_P(SubprocessTest, AnExitBeforeTheEndOfThePipesWaitsForThem) {
  SubprocessTransport& leaver = Start({"leave"});
  Settle();
  EXPECT_THAT(heard_.log, ElementsAre("made", "exited 0"));
  EXPECT_EQ(loop_.RunUntilComplete(leaver.Wait()), 0);
  EXPECT_FALSE(leaver.is_closing());
  leaver.pipe(0)->Write("to its child");
  leaver.pipe(0)->Close();
  Settle();
  ExpectLife({"exited 0", "data 1 to its child", "pipe 0 OK", "pipe 1 OK", "pipe 2 OK"});
}

// C-SUB-03
TEST_P(SubprocessTest, AnEndOfThePipesBeforeTheExitWaitsForIt) {
  const MonotonicTime before = loop_.Time();
  SubprocessTransport& lingerer = Start({"linger"});
  loop_.RunUntilComplete(lingerer.Closed());
  EXPECT_GE(loop_.Time() - before, absl::Seconds(1));
  ExpectLife({"pipe 0 OK", "pipe 1 OK", "pipe 2 OK", "exited 0"});
}

// C-SUB-09
TEST_P(SubprocessTest, WhatItWroteCanBeReadAfterItsExit) {
  SubprocessTransport& spew = Start({"spew", "1000", "500"});
  for (const int fd : {1, 2}) spew.pipe(fd)->PauseReading();
  EXPECT_EQ(loop_.RunUntilComplete(spew.Wait()), 0);
  EXPECT_EQ(heard_.received, 0u);
  for (const int fd : {1, 2}) spew.pipe(fd)->ResumeReading();
  Settle();
  EXPECT_EQ(heard_.received, 1500u);
  EXPECT_TRUE(heard_.lost());
}

// ---- exit codes

// C-SUB-04
TEST_P(SubprocessTest, TheExitCodeIsTheStatusOrMinusTheSignalAndEveryoneHearsIt) {
  for (const int expected : {0, 1, 42, 255}) {
    SubprocessTransport& child = Start({"exit", absl::StrCat(expected)});
    EXPECT_EQ(loop_.RunUntilComplete(child.Wait()), expected);
  }
  for (const int signo : {SIGTERM, SIGKILL, SIGINT}) {
    SubprocessTransport& child = Start({"wait"});
    auto first = loop_.CreateTask(child.Wait());
    auto second = loop_.CreateTask(child.Wait());
    auto cancelled = loop_.CreateTask(child.Wait());
    RunReady();
    cancelled.Cancel();
    EXPECT_TRUE(child.SendSignal(signo).ok());
    Settle();
    EXPECT_EQ(loop_.RunUntilComplete(std::move(first)), -signo);
    EXPECT_EQ(loop_.RunUntilComplete(std::move(second)), -signo);
    EXPECT_TRUE(cancelled.cancelled());
    EXPECT_EQ(loop_.RunUntilComplete(child.Wait()), -signo) << "later too";
    EXPECT_EQ(child.returncode(), -signo);
  }
}

TEST_P(SubprocessTest, WhoWaitsMayOutliveTheTransport) {
  SubprocessTransport& child = Start({"wait"});
  auto waiting = loop_.CreateTask(child.Wait());
  auto closing = loop_.CreateTask(child.Closed());
  RunReady();
  transports_.clear();
  Settle();
  EXPECT_EQ(heard_.alive, 0);
  EXPECT_EQ(loop_.RunUntilComplete(std::move(waiting)), -SIGKILL);
  EXPECT_TRUE(closing.done());
}

TEST_P(SubprocessTest, AStatusThatSomebodyElseTookIsUnknown) {
  const LogCount logged(google::GLOG_WARNING, "is unknown, 255 is reported");
  int calls = 0;
  os_.SetFault([&](absl::string_view called, int fd) {
    if (called != "TakeExitStatus" || calls++ > 0) return 0;
    int status = 0;
    EXPECT_EQ(os_.TakeExitStatus(fd, &status), 0);
    return ECHILD;
  });
  SubprocessTransport& child = Start({"exit", "3"});
  EXPECT_EQ(loop_.RunUntilComplete(child.Wait()), 255);
  EXPECT_EQ(logged.count(), 1);
}

TEST_P(SubprocessTest, AChildThatNoPollerWatchesIsLookedAtNowAndThen) {
  const LogCount logged(google::GLOG_WARNING, "cannot be watched and is looked at now and then");
  const Strings command = {"linger"};
  int spawned = -1;
  os_.SetFault([&](absl::string_view called, int fd) {
    // The child's descriptor is the first that is opened behind none.
    if (called == "Poller.Add" && spawned == -1) spawned = fd;
    return called == "Poller.Add" && fd == spawned ? ENOSPC : 0;
  });
  SubprocessTransport& child = Start(command, kAllNull);
  EXPECT_EQ(loop_.RunUntilComplete(child.Wait()), 0);
  EXPECT_LT(loop_.Time(), MonotonicTime() + absl::Milliseconds(1200));
  EXPECT_EQ(logged.count(), 1);
  os_.SetFault(nullptr);
}

// ---- signals

// C-SUB-06
TEST_P(SubprocessTest, SignallingAChildThatIsGoneIsAnError) {
  SubprocessTransport& child = Start({"exit", "0"});
  loop_.RunUntilComplete(child.Wait());
  for (const absl::Status& status : {child.SendSignal(SIGUSR1), child.Terminate(), child.Kill()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
    EXPECT_EQ(ErrnoOf(status), ESRCH);
  }
}

TEST_P(SubprocessTest, AChildMayLiveThroughASignal) {
  SubprocessTransport& child = Start({"stubborn"});
  EXPECT_EQ(child.SendSignal(65).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(child.Terminate().ok());
  Settle();
  EXPECT_EQ(child.returncode(), std::nullopt);
  EXPECT_TRUE(child.Kill().ok());
  Settle();
  EXPECT_EQ(child.returncode(), -SIGKILL);
}

// ---- closing

// C-SUB-05
TEST_P(SubprocessTest, ClosingKillsAChildThatRuns) {
  for (const char* program : {"cat", "wait", "stubborn"}) {
    heard_.log.clear();
    SubprocessTransport& child = Start({program});
    child.Close();
    EXPECT_TRUE(child.is_closing());
    child.Close();
    loop_.RunUntilComplete(child.Closed());
    EXPECT_EQ(child.returncode(), -SIGKILL);
    ExpectLife({"pipe 0 OK", "pipe 1 OK", "pipe 2 OK", "exited -9"});
  }
}

// C-SUB-05
TEST_P(SubprocessTest, ClosingLeavesAChildAloneThatHasEnded) {
  SubprocessTransport& leaver = Start({"leave"});
  loop_.RunUntilComplete(leaver.Wait());
  os_.SetFault([](absl::string_view called, int) {
    EXPECT_NE(called, "SignalProcess");
    return 0;
  });
  leaver.Close();
  loop_.RunUntilComplete(leaver.Closed());
  EXPECT_EQ(leaver.returncode(), 0);
  os_.SetFault(nullptr);
  Settle();
}

TEST_P(SubprocessTest, ATransportThatIsDroppedKillsItsChildAndLeavesNoZombie) {
  const LogCount logged(google::GLOG_WARNING, "unclosed transport <subprocess cat pid=");
  SubprocessTransport& child = Start({"cat"});
  child.pipe(0)->Write(std::string(200'000, 'x').c_str());
  transports_.clear();
  Settle();
  EXPECT_EQ(logged.count(), 1);
  EXPECT_EQ(heard_.log.back(), "lost OK");
  EXPECT_EQ(heard_.alive, 0);
  EXPECT_EQ(os_.zombies() + os_.running_processes(), 0u);
}

TEST_P(SubprocessTest, ADroppedTransportDoesNotWaitForWhomItsChildLeftBehind) {
  SubprocessTransport& leaver = Start({"leave"});
  loop_.RunUntilComplete(leaver.Wait());
  leaver.pipe(0)->Write("x");
  transports_.clear();
  Settle();
  EXPECT_EQ(heard_.alive, 0);
}

TEST_P(SubprocessTest, ALoopThatClosesKillsItsChildrenAndWaitsForThem) {
  SubprocessTransport& kept = Start({"stubborn"});
  Start({"cat"});
  transports_.pop_back();  // on its way out
  Start({"exit", "0"});
  EXPECT_GT(os_.running_processes(), 0u);
  loop_.Close();
  EXPECT_EQ(os_.zombies() + os_.running_processes(), 0u);
  EXPECT_EQ(kept.returncode(), -SIGKILL);
  EXPECT_EQ(kept.SendSignal(SIGTERM).code(), absl::StatusCode::kNotFound);
}

TEST_P(SubprocessTest, CancelledWhileItStartsItIsKilled) {
  for (int steps = 0; steps < 4; ++steps) {
    heard_.log.clear();
    auto starting = loop_.CreateTask(Starting({"cat"}));
    for (int i = 0; i < steps; ++i) loop_.RunOnceWithoutWaiting();
    if (!starting.Cancel()) break;
    Settle();
    EXPECT_TRUE(starting.cancelled());
    EXPECT_EQ(heard_.alive, 0);
    EXPECT_EQ(os_.zombies() + os_.running_processes(), 0u);
    if (!heard_.log.empty()) {
      EXPECT_EQ(heard_.log.back(), "lost OK");
    }
  }
}

// ---- where its descriptors lead

TEST_P(SubprocessTest, StreamsMayGoTogetherNowhereOrWhereOursGo) {
  SubprocessTransport& together = Start({"spew", "3", "3"}, {.error = Stdio::Output()});
  EXPECT_EQ(together.pipe(2), nullptr);
  loop_.RunUntilComplete(together.Closed());
  ExpectLife({"data 1 111222", "pipe 0 OK", "pipe 1 OK", "exited 0"});
  heard_.log.clear();
  SubprocessTransport& nowhere = Start({"spew", "3", "3"}, kAllNull);
  EXPECT_EQ(nowhere.pipe(1), nullptr);
  loop_.RunUntilComplete(nowhere.Closed());
  ExpectLife({"exited 0"});
  SubprocessTransport& ours =
      Start({"spew", "3", "3"}, {.input = Stdio::Inherit(), .output = Stdio::Inherit(), .error = Stdio::Inherit()});
  loop_.RunUntilComplete(ours.Closed());
  EXPECT_EQ(os_.console(), "111222");
  EXPECT_EQ(ours.pipe(3), nullptr);
  EXPECT_EQ(ours.pipe(-1), nullptr);
}

TEST_P(SubprocessTest, AGivenDescriptorStaysTheCallers) {
  int fds[2];
  ASSERT_EQ(os_.MakePipe(fds), 0);
  SubprocessTransport& child = Start({"spew", "3"}, {.output = Stdio::Descriptor(fds[1])});
  loop_.RunUntilComplete(child.Closed());
  char bytes[10];
  EXPECT_EQ(os_.Read(fds[0], absl::MakeSpan(bytes)), 3);
  EXPECT_EQ(os_.Close(fds[0]), 0);
  EXPECT_EQ(os_.Close(fds[1]), 0);
}

TEST_P(SubprocessTest, DirectoryEnvironmentAndSessionArePassedOn) {
  const Strings environment = {"A=1", "B="};
  Start({"environment"}, {.directory = "/tmp", .environment = environment, .new_session = true});
  Settle();
  EXPECT_THAT(heard_.log, Contains("data 1 /tmp new A=1 B="));
  heard_.log.clear();
  Start({"environment"});
  Settle();
  EXPECT_THAT(heard_.log, Contains("data 1  inherited"));
}

TEST_P(SubprocessTest, MoreThanAPipeHoldsPausesTheWriter) {
  SubprocessTransport& child = Start({"wait"});
  Transport& input = *child.pipe(0);
  input.Write(std::string(65'536, 'x').c_str());
  input.Write(std::string(60'000, 'x').c_str());
  EXPECT_THAT(heard_.log, ElementsAre("made"));
  input.Write(std::string(60'000, 'x').c_str());
  EXPECT_THAT(heard_.log, ElementsAre("made", "pause"));
  EXPECT_TRUE(child.Kill().ok());
  Settle();
  ExpectLife({"pause", "pipe 0 UNAVAILABLE", "pipe 1 OK", "pipe 2 OK", "exited -9"});
}

// ---- many

TEST_P(SubprocessTest, ManyChildrenAtOnceAreToldApart) {
  os_.SetDescriptorLimit(4096);
  std::vector<SubprocessRecording> recordings(200);
  for (size_t i = 0; i < recordings.size(); ++i) {
    const Strings command = {"exit", absl::StrCat(i)};
    absl::StatusOr<StartedSubprocess<>> started = loop_.RunUntilComplete(SubprocessExec(
        loop_, [&] { return recordings[i].NewProtocol(); }, command));
    ASSERT_TRUE(started.ok()) << started.status();
    transports_.push_back(std::move(started->transport));
  }
  for (size_t i = 0; i < recordings.size(); ++i) {
    EXPECT_EQ(loop_.RunUntilComplete(transports_[i]->Wait()), static_cast<int>(i));
  }
  Settle();
  for (size_t i = 0; i < recordings.size(); ++i) {
    EXPECT_TRUE(recordings[i].lost());
    EXPECT_THAT(recordings[i].log, Contains(absl::StrCat("exited ", i)));
  }
  transports_.clear();
  Settle();
}

TEST_P(SubprocessTest, TheSameSeedGivesTheSameTrace) {
  std::vector<std::pair<uint64_t, std::string>> runs;
  for (int run = 0; run < 2; ++run) {
    testing::SimOs os(7);
    os.AddProgram("cat", [] { return std::make_unique<testing::SimCat>(); });
    EventLoop loop(os, {.strict_polling = GetParam() == Polling::kStrict});
    SubprocessRecording heard;
    const Strings command = {"cat"};
    absl::StatusOr<StartedSubprocess<>> started = loop.RunUntilComplete(SubprocessExec(
        loop, [&] { return heard.NewProtocol(); }, command));
    ASSERT_TRUE(started.ok());
    started->transport->pipe(0)->Write(std::string(300'000, 'x').c_str());
    started->transport->pipe(0)->Close();
    loop.RunUntilComplete(started->transport->Closed());
    runs.emplace_back(os.kernel().TraceHash(), absl::StrJoin(heard.log, ","));
    loop.Close();
  }
  EXPECT_EQ(runs[0], runs[1]);
}

// ---- what is logged

// C-SUB-10
TEST_P(SubprocessTest, ArgumentsNeverReachTheLog) {
  loop_.SetDebug(true);
  const LogCount infos(google::GLOG_INFO, "secret"), warnings(google::GLOG_WARNING, "secret"),
      errors(google::GLOG_ERROR, "secret"), created(google::GLOG_INFO, "process cat created: pid ");
  SubprocessTransport& child = Start({"cat", "--password=secret"});
  EXPECT_THAT(child.DebugString(), ::testing::Not(HasSubstr("secret")));
  child.Close();
  Settle();
  absl::StatusOr<StartedSubprocess<>> shell = loop_.RunUntilComplete(SubprocessShell(
      loop_, [this] { return heard_.NewProtocol(); }, "echo secret"));
  ASSERT_TRUE(shell.ok());
  shell->transport.reset();
  EXPECT_THAT(TryStart({"nothing", "secret"}).status().message(), ::testing::Not(HasSubstr("secret")));
  Settle();
  EXPECT_EQ(created.count(), 1);
  EXPECT_EQ(infos.count() + warnings.count() + errors.count(), 0);
}

// ---- callbacks that fail, and those that destroy their transport (P-4)

TEST_P(SubprocessTest, ACallbackMayThrowOrDropOrCloseItsTransport) {
  enum Action { kThrow, kThrowFatal, kDrop, kClose, kDropAndThrow };
  for (const char* callback : {"made", "data 1", "pipe 0", "pipe 1", "pause", "resume", "exited", "lost"}) {
    for (const Action action : {kThrow, kThrowFatal, kDrop, kClose, kDropAndThrow}) {
      SCOPED_TRACE(absl::StrCat(callback, " ", static_cast<int>(action)));
      heard_ = SubprocessRecording();
      SubprocessTransportPtr transport;
      int acted = 0, fatals = 0;
      // Fatal leaves the loop, or the call of Write in which PauseWriting threw it; then the loop goes on.
      const auto outlive = [&](auto step) {
        try {
          step();
        } catch (const Fatal&) {
          ++fatals;
        }
      };
      heard_.on = [&](SubprocessTransport* t, const std::string& entry) {
        if (entry != callback || acted++ > 0) return;
        if (action == kClose) t->Close();
        if (action == kDrop || action == kDropAndThrow) transport.reset();
        if (action == kThrowFatal) throw Fatal("thrown");
        if (action == kThrow || action == kDropAndThrow) throw std::runtime_error("thrown");
      };
      // A task, so that Fatal leaves the loop and not the wait.
      auto starting = loop_.CreateTask(Starting({"cat"}));
      while (!starting.done()) {
        outlive([&] { loop_.RunOnceWithoutWaiting(); });
      }
      absl::StatusOr<StartedSubprocess<>> started = starting.state().Take();
      EXPECT_EQ(started.ok(), absl::string_view(callback) != "made" || action == kDrop || action == kClose);
      if (started.ok()) {
        transport = std::move(started->transport);
        if (transport->pipe(0) != nullptr && !transport->is_closing()) {
          outlive([&] { transport->pipe(0)->Write(std::string(400'000, 'x').c_str()); });
          if (transport != nullptr) transport->pipe(0)->Close();
        }
      }
      outlive([&] { Settle(); });
      Settle();
      EXPECT_EQ(acted, 1);
      EXPECT_EQ(fatals, action == kThrowFatal ? 1 : 0);
      EXPECT_TRUE(heard_.lost());
      EXPECT_EQ(std::count(heard_.log.begin(), heard_.log.end(), "lost OK"), 1);
      EXPECT_THAT(TakeReports(), SizeIs(action == kThrow || action == kDropAndThrow ? 1 : 0));
      transport.reset();
      Settle();
      EXPECT_EQ(heard_.alive, 0);
      EXPECT_EQ(os_.zombies() + os_.running_processes(), 0u);
    }
  }
}

TEST_P(SubprocessTest, WhatConnectionMadeThrowsIsTheErrorOfTheStart) {
  heard_.on = [](SubprocessTransport*, const std::string& entry) {
    if (entry == "made") throw StatusError(absl::DataLossError("not so"));
  };
  EXPECT_EQ(TryStart({"cat"}).status(), absl::DataLossError("not so"));
  EXPECT_THAT(TakeReports(), ElementsAre("Fatal error: protocol.ConnectionMade() call failed."));
  Settle();
  EXPECT_EQ(heard_.alive, 0);
}

}  // namespace
}  // namespace troupe
