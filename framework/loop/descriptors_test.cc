// Descriptor watchers (C-SCK-01, C-SCK-03) and signals (C-SIG).
#include <sys/socket.h>

#include <csignal>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "troupe/loop/event_loop.h"
#include "troupe/loop/loop_testing.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class DescriptorsTest : public LoopTest {
 protected:
  DescriptorsTest() { EXPECT_EQ(os_.SocketPair(AF_UNIX, SOCK_STREAM, fds_), 0); }
  ~DescriptorsTest() override {
    loop_.RemoveReader(fds_[0]);
    loop_.RemoveWriter(fds_[0]);
    for (const int fd : fds_) os_.Close(fd);
  }
  // To the other end of `from`, where it has arrived.
  void Send(int from, std::string text) {
    const iovec bytes = {text.data(), text.size()};
    EXPECT_EQ(os_.Send(fds_[from], absl::MakeConstSpan(&bytes, 1)), static_cast<int64_t>(text.size()));
    os_.kernel().clock().AdvanceTo(loop_.Time() + absl::Seconds(1));
  }
  void Send(std::string text) { Send(1, std::move(text)); }
  std::string Recv() {
    char buffer[100];
    const int64_t n = os_.Recv(fds_[0], absl::MakeSpan(buffer));
    return n < 0 ? "error" : std::string(buffer, n);
  }
  int fds_[2];
};
INSTANTIATE_POLLING(DescriptorsTest);

// C-SCK-01
TEST_P(DescriptorsTest, ReaderAndWriterAreIndependentAndRemovingTellsWhetherThereWasOne) {
  EXPECT_EQ(loop_.AddReader(fds_[0], [this] { log_.push_back("read " + Recv()); }), 0);
  EXPECT_EQ(loop_.AddWriter(fds_[0],
                            [this] {
                              log_.push_back("write");
                              EXPECT_TRUE(loop_.RemoveWriter(fds_[0]));
                            }),
            0);
  RunIterations(2);
  EXPECT_THAT(log_, ElementsAre("write"));
  Send("x");
  RunIterations(2);
  EXPECT_THAT(log_, ElementsAre("write", "read x"));
  EXPECT_FALSE(loop_.RemoveWriter(fds_[0]));
  EXPECT_TRUE(loop_.RemoveReader(fds_[0]));
  EXPECT_FALSE(loop_.RemoveReader(fds_[0]));
  Send("y");
  RunIterations(2);
  EXPECT_EQ(log_.size(), 2u);
}

// C-SCK-03
TEST_P(DescriptorsTest, ReadIsQueuedBeforeWriteAndWhatIsRemovedMeanwhileDoesNotRun) {
  loop_.AddWriter(fds_[0], [this] { log_.push_back("write"); });
  loop_.AddReader(fds_[0], [this] {
    log_.push_back("read " + Recv());
    loop_.RemoveWriter(fds_[0]);
    loop_.RemoveReader(fds_[0]);
  });
  Send("x");
  RunIterations(3);
  EXPECT_THAT(log_, ElementsAre("read x"));
}

// C-SCK-03
TEST_P(DescriptorsTest, AReaderReplacedWhileItIsQueuedDoesNotRunNorDoesItsSuccessorBeforeTheNextPoll) {
  loop_.AddReader(fds_[0], [] { FAIL() << "replaced"; });
  loop_.AddReader(fds_[1], [this] {
    loop_.RemoveReader(fds_[1]);
    loop_.AddReader(fds_[0], [this] { log_.push_back("second " + Recv()); });
    log_.push_back("replaced");
  });
  RunIterations(1);
  Send(0, "x");  // the other end is ready first
  Send("y");
  RunIterations(1);
  EXPECT_THAT(log_, ElementsAre("replaced"));
  RunIterations(1);
  EXPECT_THAT(log_, ElementsAre("replaced", "second y"));
}

TEST_P(DescriptorsTest, ACallbackMayRemoveItselfAndItsReportNamesTheDescriptor) {
  const auto owned = std::make_shared<int>(5);
  loop_.AddReader(fds_[0], [this, owned] {
    loop_.RemoveReader(fds_[0]);
    EXPECT_EQ(*owned, 5);
    throw std::runtime_error("x");
  });
  Send("x");
  RunIterations(1);
  EXPECT_EQ(owned.use_count(), 1);
  ASSERT_EQ(reports_.size(), 1u);
  EXPECT_THAT(reports_[0].Get("handle"), HasSubstr("reader of descriptor " + std::to_string(fds_[0])));
  TakeReports();
}

// C-LOOP-39
TEST_P(DescriptorsTest, CallbacksRunInTheContextOfTheirRegistration) {
  static const ContextVar<int> kVariable(0);
  Context::Current().Run([&] {
    kVariable.Set(4);
    loop_.AddReader(fds_[0], [this] {
      Recv();
      log_.push_back("read " + std::to_string(kVariable.Get()));
    });
    EXPECT_TRUE(
        loop_.AddSignalHandler(SIGUSR1, [this] { log_.push_back("signal " + std::to_string(kVariable.Get())); }).ok());
  });
  Send("x");
  os_.RaiseSignal(SIGUSR1);
  RunIterations(2);
  EXPECT_THAT(log_, ElementsAre("read 4", "signal 4"));
}

TEST_P(DescriptorsTest, EndOfFileIsReadiness) {
  loop_.AddReader(fds_[0], [this] {
    log_.push_back("read '" + Recv() + "'");
    loop_.Stop();
  });
  os_.ShutdownWrite(fds_[1]);
  loop_.RunForever();
  EXPECT_THAT(log_, ElementsAre("read ''"));
}

TEST_P(DescriptorsTest, ADirectionThatThePollerGoesOnWatchingIsNotCalledAndSoonNotWatched) {
  int changes = 0;
  os_.SetFault(
      [&](absl::string_view operation, int) { return operation == "Poller.Modify" && ++changes == 2 ? ENOMEM : 0; });
  EXPECT_EQ(loop_.AddReader(fds_[0], [this] { log_.push_back("read " + Recv()); }), 0);
  EXPECT_EQ(loop_.AddWriter(fds_[0], [this] { log_.push_back("write"); }), 0);
  EXPECT_TRUE(loop_.RemoveWriter(fds_[0]));
  RunIterations(3);
  EXPECT_EQ(changes, 3);
  Send("x");
  RunIterations(2);
  EXPECT_THAT(log_, ElementsAre("read x"));
  os_.SetFault(nullptr);
}

// Libraries close their descriptors when they like, and the next one has the number.
TEST_P(DescriptorsTest, ADescriptorThatWasClosedWithoutAWordMayHaveASuccessor) {
  for (const bool both : {false, true}) {
    EXPECT_EQ(loop_.AddReader(fds_[0], [this] { log_.push_back("read before"); }), 0);
    if (both) {
      EXPECT_EQ(loop_.AddWriter(fds_[0], [this] { log_.push_back("write"), loop_.RemoveWriter(fds_[0]); }), 0);
    }
    const int before = fds_[0];
    os_.Close(fds_[0]);
    os_.Close(fds_[1]);
    ASSERT_EQ(os_.SocketPair(AF_UNIX, SOCK_STREAM, fds_), 0);
    ASSERT_EQ(fds_[0], before);
    EXPECT_EQ(loop_.AddReader(fds_[0], [this] { log_.push_back("read " + Recv()); }), 0);
    Send("x");
    RunIterations(3);
    EXPECT_EQ(log_, both ? std::vector<std::string>({"read x", "write"}) : std::vector<std::string>({"read x"}));
    log_.clear();
    EXPECT_TRUE(loop_.RemoveReader(fds_[0]));
  }
}

TEST_P(DescriptorsTest, WhatCannotBeWatchedIsToldByErrno) {
  EXPECT_EQ(loop_.AddReader(12345, [] {}), -EBADF);
  EXPECT_EQ(loop_.AddReader(-1, [] {}), -EBADF);
  os_.FailCall(1, ENOSPC);
  EXPECT_EQ(loop_.AddReader(fds_[0], [] {}), -ENOSPC);
  EXPECT_FALSE(loop_.RemoveReader(fds_[0]));
  EXPECT_EQ(loop_.AddReader(fds_[0], [] {}), 0);
}

// ---------------------------------------------------------------------------------------------------- signals

using SignalTest = LoopTest;
INSTANTIATE_POLLING(SignalTest);

// C-SIG-01
TEST_P(SignalTest, WhatIsNoSignalAndWhatCannotBeCaughtIsRefused) {
  EXPECT_TRUE(absl::IsInvalidArgument(loop_.AddSignalHandler(0, [] {})));
  EXPECT_TRUE(absl::IsInvalidArgument(loop_.AddSignalHandler(64, [] {})));
  EXPECT_TRUE(absl::IsInvalidArgument(loop_.AddSignalHandler(-5, [] {})));
  EXPECT_THROW((void)loop_.AddSignalHandler(SIGKILL, [] {}), InvalidState);
  EXPECT_THROW((void)loop_.AddSignalHandler(SIGSTOP, [] {}), InvalidState);
}

// C-SIG-02
TEST_P(SignalTest, TheHandlerRunsAsACallbackAndAWaitingPollWakesForIt) {
  ASSERT_TRUE(loop_
                  .AddSignalHandler(SIGTERM,
                                    [this] {
                                      log_.push_back("signal");
                                      EXPECT_EQ(EventLoop::CurrentOrNull(), &loop_);
                                      loop_.Stop();
                                    })
                  .ok());
  os_.kernel().clock().At(MonotonicTime() + absl::Seconds(3), [this] { os_.RaiseSignal(SIGTERM); });
  loop_.RunForever();
  EXPECT_EQ(loop_.Time() - MonotonicTime(), absl::Seconds(3));
  EXPECT_THAT(log_, ElementsAre("signal"));
}

// C-SIG-03
TEST_P(SignalTest, AddingAgainReplacesAndRemovingRestoresTheFormerAction) {
  ASSERT_TRUE(loop_.AddSignalHandler(SIGUSR1, [this] { log_.push_back("first"); }).ok());
  ASSERT_TRUE(loop_.AddSignalHandler(SIGUSR1, [this] { log_.push_back("second"); }).ok());
  os_.RaiseSignal(SIGUSR1);
  RunIterations(2);
  EXPECT_THAT(log_, ElementsAre("second"));
  EXPECT_TRUE(loop_.RemoveSignalHandler(SIGUSR1));
  EXPECT_FALSE(loop_.RemoveSignalHandler(SIGUSR1));
  os_.RaiseSignal(SIGUSR1);
  EXPECT_THAT(os_.unwatched_signals(), ElementsAre(SIGUSR1));
}

// C-SIG-05
TEST_P(SignalTest, ASignalForWhichNoHandlerIsLeftIsIgnored) {
  ASSERT_TRUE(loop_.AddSignalHandler(SIGUSR1, [this] { log_.push_back("ran"); }).ok());
  ASSERT_TRUE(loop_.AddSignalHandler(SIGUSR2, [this] { loop_.RemoveSignalHandler(SIGUSR1); }).ok());
  os_.RaiseSignal(SIGUSR1);
  EXPECT_TRUE(loop_.RemoveSignalHandler(SIGUSR1));
  RunIterations(2);
  EXPECT_THAT(log_, IsEmpty());
}

TEST_P(SignalTest, AHandlerMayRemoveItselfAndThrow) {
  const auto owned = std::make_shared<int>(1);
  ASSERT_TRUE(loop_
                  .AddSignalHandler(SIGUSR1,
                                    [this, owned] {
                                      loop_.RemoveSignalHandler(SIGUSR1);
                                      throw std::runtime_error(std::to_string(*owned));
                                    })
                  .ok());
  os_.RaiseSignal(SIGUSR1);
  RunIterations(2);
  EXPECT_EQ(owned.use_count(), 1);
  EXPECT_THAT(TakeReports(), ElementsAre(HasSubstr("Exception in callback")));
}

TEST_P(SignalTest, CloseGivesTheSignalsBackAndOneLoopHasASignal) {
  EventLoop other(os_);
  ASSERT_TRUE(other.AddSignalHandler(SIGUSR1, [] {}).ok());
  EXPECT_FALSE(loop_.AddSignalHandler(SIGUSR1, [] {}).ok());
  other.Close();
  EXPECT_TRUE(loop_.AddSignalHandler(SIGUSR1, [] {}).ok());
}

}  // namespace
}  // namespace troupe
