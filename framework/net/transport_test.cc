// The rules of byte streams (CONTRACT.md, sections 10 to 13), over every device that has them: a pair over memory, a
// simulated socket pair, a real one. Numbers in comments are those of the rules.
//
// What depends on the kernel's answers is tested in stream_transport_test.cc, callbacks that throw or destroy what calls
// them in callbacks_test.cc.
#include "troupe/net/transport.h"

#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/task.h"
#include "troupe/base/errors.h"
#include "troupe/loop/context.h"
#include "troupe/loop/loop_testing.h"
#include "troupe/net/internal/recording_protocol.h"
#include "troupe/net/internal/transport_testing.h"
#include "troupe/net/memory_transport.h"
#include "troupe/testing/sim/sim_os.h"

namespace troupe {
namespace {

using internal::Recording;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

class TransportTest : public internal::TransportWorld,
                      public ::testing::TestWithParam<std::tuple<internal::Device, Polling>> {
 protected:
  TransportTest() : TransportWorld(std::get<internal::Device>(GetParam()), std::get<Polling>(GetParam())) {}
};

INSTANTIATE_TEST_SUITE_P(Devices, TransportTest,
                         ::testing::Combine(::testing::Values(internal::Device::kMemory,
                                                              internal::Device::kMemoryInBits,
                                                              internal::Device::kSimulated, internal::Device::kPosix),
                                            ::testing::Values(Polling::kStrict, Polling::kShared)),
                         [](const ::testing::TestParamInfo<TransportTest::ParamType>& info) {
                           return internal::DeviceName(std::get<internal::Device>(info.param)) +
                                  (std::get<Polling>(info.param) == Polling::kStrict ? "Strict" : "Shared");
                         });

// ---------------------------------------------------------------------------------------------------- life cycle

// C-TRN-01
TEST_P(TransportTest, ConnectionMadeIsQueuedAndComesBeforeData) {
  Connect();
  EXPECT_THAT(a_.log, IsEmpty());
  EXPECT_THAT(b_.log, IsEmpty());
  a_.on_made = [](Transport& transport) { transport.Write("hello"); };
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made"));
  EXPECT_THAT(b_.log, ElementsAre("made", "data hello"));
}

// C-TRN-01
TEST_P(TransportTest, PausingInConnectionMadeHoldsReadingBack) {
  a_.on_made = [](Transport& transport) { transport.PauseReading(); };
  b_.on_made = [](Transport& transport) { transport.Write("x"); };
  ConnectAndSettle();
  EXPECT_THAT(a_.log, ElementsAre("made"));
  first_->ResumeReading();
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "data x"));
}

// C-TRN-02
TEST_P(TransportTest, ALifeInOrderAtBothEnds) {
  ConnectAndSettle();
  first_->Write("ping");
  Settle();
  second_->Write("pong");
  Settle();
  first_->Close();
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "data pong", "lost OK"));
  EXPECT_THAT(b_.log, ElementsAre("made", "data ping", "eof", "lost OK"));
  EXPECT_THAT(reports_, IsEmpty());
}

// C-TRN-02
TEST_P(TransportTest, ClosedBeforeConnectionMadeItIsStillMadeAndLost) {
  Connect();
  first_->Close();
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "lost OK"));
  EXPECT_THAT(b_.log, ElementsAre("made", "eof", "lost OK"));
}

// C-TRN-02, C-FLW-06: who writes before the protocol has heard of the connection pauses it right after.
TEST_P(TransportTest, PauseWritingNeverComesBeforeConnectionMade) {
  b_.on_made = [](Transport& transport) { transport.PauseReading(); };
  Connect();
  first_->Write(std::string(Many(), 'x'));
  ASSERT_GT(first_->write_buffer_size(), first_->write_high_mark());
  ASSERT_TRUE(first_->SetWriteBufferLimits({}).ok());
  EXPECT_THAT(a_.log, IsEmpty());
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "pause"));
  second_->ResumeReading();
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "pause", "resume"));
  EXPECT_EQ(b_.received, Many());
}

// C-TRN-02, C-FLW-06
TEST_P(TransportTest, AWriteInConnectionMadePausesInsideThatWrite) {
  b_.on_made = [](Transport& transport) { transport.PauseReading(); };
  a_.on_made = [this](Transport& transport) {
    EXPECT_THAT(a_.log, ElementsAre("made"));
    transport.Write("x");
    EXPECT_THAT(a_.log, ElementsAre("made", "pause"));
  };
  Connect();
  first_->Write(std::string(Many(), 'x'));
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "pause"));
}

// C-TRN-02: what was written has left before the protocol was told of the connection, or the connection has ended.
TEST_P(TransportTest, WhatWaitsNoMoreAfterConnectionMadePausesNothing) {
  a_.on_made = [](Transport& transport) { transport.Abort(); };
  Connect();
  first_->Write(std::string(Many(), 'x'));
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "lost OK"));
}

// C-TRN-04
TEST_P(TransportTest, CloseStopsReadingAtOnceAndIsIdempotent) {
  ConnectAndSettle();
  second_->Write("late");
  first_->Close();
  first_->Close();
  EXPECT_TRUE(first_->is_closing());
  EXPECT_FALSE(first_->is_reading());
  Settle();
  first_->Close();
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "lost OK"));
}

// C-TRN-04, C-WR-12
TEST_P(TransportTest, CloseSendsWhatIsBufferedFirst) {
  ConnectAndSettle();
  second_->PauseReading();
  first_->Write(std::string(Many(), 'x'));
  ASSERT_GT(first_->write_buffer_size(), 0u);
  first_->Close();
  Settle();
  EXPECT_EQ(a_.Count("lost OK"), 0u);
  second_->ResumeReading();
  Settle();
  EXPECT_EQ(b_.received, Many());
  EXPECT_THAT(b_.log, ElementsAre("made", StartsWith("data xxx"), "eof", "lost OK"));
  EXPECT_EQ(a_.log.back(), "lost OK");
}

// C-TRN-06, C-TRN-07
TEST_P(TransportTest, AbortDropsTheBufferAndReportsFromTheLoop) {
  ConnectAndSettle();
  second_->PauseReading();
  first_->Write(std::string(Many(), 'x'));
  ASSERT_THAT(a_.log, ElementsAre("made", "pause"));
  first_->Abort();
  EXPECT_EQ(first_->write_buffer_size(), 0u);
  EXPECT_TRUE(first_->is_closing());
  EXPECT_THAT(a_.log, ElementsAre("made", "pause"));
  Iterate();
  EXPECT_THAT(a_.log, ElementsAre("made", "pause", "lost OK"));
  second_->ResumeReading();
  Settle();
  EXPECT_LT(b_.received, Many());
  EXPECT_TRUE(b_.lost());
}

// C-TRN-09
TEST_P(TransportTest, ASecondEndChangesNothing) {
  ConnectAndSettle();
  first_->Abort();
  first_->Close();
  first_->Abort();
  Settle();
  first_->Abort();
  first_->Close();
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "lost OK"));
}

// C-TRN-03
TEST_P(TransportTest, TheDescriptorGoesWithTheConnection) {
  ConnectAndSettle();
  EXPECT_EQ(first_->descriptor() >= 0, !memory());
  first_->Close();
  Settle();
  EXPECT_EQ(first_->descriptor(), -1);
  EXPECT_EQ(&first_->loop(), loop_.get());
}

// C-TRN-11
TEST_P(TransportTest, ANewProtocolReceivesWhatComesNext) {
  Recording c;
  ConnectAndSettle();
  second_->Write("one");
  Settle();
  a_.on_data = [&](Transport& transport, absl::Span<const char>) { transport.SetProtocol(c.NewProtocol()); };
  second_->Write("2");
  Settle();
  second_->Write("three");
  second_->Close();
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "data one2"));
  EXPECT_EQ(a_.alive, 0);
  EXPECT_THAT(c.log, ElementsAre("data three", "eof", "lost OK"));
  EXPECT_EQ(c.alive, 1);
  first_.reset();
  Settle();
  EXPECT_EQ(c.alive, 0);
}

// C-TRN-11
TEST_P(TransportTest, AnExchangedProtocolHasNoTransportAndLives) {
  struct Probe : Protocol {
    using Protocol::transport;
    void DataReceived(absl::Span<const char>) override {}
  };
  auto probe = std::make_unique<Probe>();
  Probe* raw = probe.get();
  EXPECT_THROW(raw->transport(), InvalidState);
  Connect(std::move(probe), b_.NewProtocol());
  Settle();
  EXPECT_EQ(&raw->transport(), first_.get());
  EXPECT_EQ(&first_->protocol(), raw);
  const std::unique_ptr<BaseProtocol> old = first_->ExchangeProtocol(a_.NewProtocol());
  EXPECT_EQ(old.get(), raw);
  EXPECT_THROW(raw->transport(), InvalidState);
}

// P-4
TEST_P(TransportTest, DroppingTheTransportInDataReceivedIsSafe) {
  a_.on_data = [this](Transport& transport, absl::Span<const char> data) {
    first_.reset();
    EXPECT_EQ(data.front(), 'x');
    EXPECT_TRUE(transport.is_closing());
    transport.Write("dropped");
  };
  ConnectAndSettle();
  second_->Write("x");
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "data x", "lost OK"));
  EXPECT_THAT(b_.log, ElementsAre("made", "eof", "lost OK"));
  EXPECT_EQ(a_.alive, 0);
}

// C-TRN-13
TEST_P(TransportTest, ADroppedTransportIsLostBeforeItIsDestroyed) {
  Connect();
  first_.reset();
  EXPECT_THAT(a_.log, IsEmpty());
  EXPECT_EQ(a_.alive, 1);
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "lost OK"));
  EXPECT_EQ(a_.alive, 0);
}

TEST_P(TransportTest, TransportsMayOutliveTheirLoopsRun) {
  ConnectAndSettle();
  first_->Close();  // ConnectionLost is queued, and dropped
  loop_->Close();
  EXPECT_THAT(a_.log, ElementsAre("made"));
  first_.reset();
  second_.reset();
  EXPECT_EQ(a_.alive, 0);
  EXPECT_EQ(b_.alive, 0);
  loop_ = NewLoop();
}

TEST_P(TransportTest, DroppedAndUnfinishedWhenTheLoopClosesTheyAreFreed) {
  Connect();
  first_.reset();
  loop_->Close();
  EXPECT_EQ(a_.alive, 0);
  second_.reset();
  EXPECT_EQ(b_.alive, 0);
  loop_ = NewLoop();
}

Task<void> WaitClosed(Transport& transport, std::vector<std::string>& log, std::string name) {
  co_await transport.Closed();
  log.push_back(name);
}

TEST_P(TransportTest, ClosedReturnsAfterConnectionLostToAllWhoWait) {
  ConnectAndSettle();
  std::vector<std::string> log;
  a_.on_lost = [&](Transport&) { log.push_back("lost"); };
  const auto one = loop_->CreateTask(WaitClosed(*first_, log, "one"));
  const auto two = loop_->CreateTask(WaitClosed(*first_, log, "two"));
  const auto cancelled = loop_->CreateTask(WaitClosed(*first_, log, "cancelled"));
  Iterate();
  cancelled.Cancel();
  first_->Close();
  EXPECT_THAT(log, IsEmpty());
  loop_->RunUntilComplete(two);
  EXPECT_THAT(log, ElementsAre("lost", "one", "two"));
  EXPECT_TRUE(cancelled.cancelled());
  loop_->RunUntilComplete(WaitClosed(*first_, log, "late"));
  EXPECT_EQ(log.back(), "late");
}

TEST_P(TransportTest, ClosedReturnsWhenTheTransportIsDropped) {
  ConnectAndSettle();
  std::vector<std::string> log;
  const auto task = loop_->CreateTask(WaitClosed(*first_, log, "closed"));
  Iterate();
  first_.reset();
  loop_->RunUntilComplete(task);
  EXPECT_THAT(log, ElementsAre("closed"));
}

// ---------------------------------------------------------------------------------------------------- context

ContextVar<std::string> name("nobody");

// C-LOOP-39: where it was made, less the deadline; each transport has its own, from one callback to the next.
TEST_P(TransportTest, CallbacksRunInTheContextInWhichTheTransportWasMade) {
  std::vector<std::string> seen;
  const auto note = [&](const char* callback) {
    seen.push_back(absl::StrCat(callback, " ", name.Get()));
    EXPECT_TRUE(Context::Current().deadline().is_infinite());
  };
  a_.on_made = [&](Transport&) {
    note("made");
    name.Set("maker, told");
  };
  a_.on_data = [&](Transport&, absl::Span<const char>) { note("data"); };
  a_.on_eof = [&](Transport&) { note("eof"); };
  a_.on_pause = [&](Transport&) { note("pause"); };
  a_.on_resume = [&](Transport&) { note("resume"); };
  a_.on_lost = [&](Transport&) { note("lost"); };
  a_.keep_open = true;
  b_.on_made = [&](Transport&) { EXPECT_EQ(name.Get(), "maker"); };
  Context context = Context().WithDeadline(loop_->Time() + absl::Hours(1));
  context.Run([&] {
    name.Set("maker");
    Connect();
    EXPECT_EQ(name.Get(), "maker");
  });
  Settle();
  second_->PauseReading();
  context.Run([&] {
    name.Set("writer");
    // Inside this call, so in this context.
    a_.on_pause = [&](Transport&) { seen.push_back(absl::StrCat("pause ", name.Get())); };
    first_->Write(std::string(Many(), 'x'));
  });
  second_->ResumeReading();
  Settle();
  second_->Write("y");
  Settle();
  second_->WriteEof();
  Settle();
  context.Run([&] {
    name.Set("closer");
    first_->Close();
  });
  Settle();
  EXPECT_THAT(seen, ElementsAre("made maker", "pause writer", "resume maker, told", "data maker, told",
                                "eof maker, told", "lost maker, told"));
  EXPECT_EQ(name.Get(), "nobody");
}

// ---------------------------------------------------------------------------------------------------- reading

// C-RD-03, C-TRN-08
TEST_P(TransportTest, AThrowingDataReceivedIsFatalAndReported) {
  a_.on_data = [](Transport&, absl::Span<const char>) { throw std::runtime_error("cannot parse"); };
  ConnectAndSettle();
  second_->Write("x");
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "data x", "lost UNKNOWN"));
  EXPECT_THAT(a_.reason.message(), HasSubstr("cannot parse"));
  EXPECT_THAT(reports_, ElementsAre("Fatal error: protocol.DataReceived() call failed."));
  EXPECT_THAT(last_report_.Get("transport"), HasSubstr("transport"));
  EXPECT_THAT(last_report_.Get("protocol"), HasSubstr("RecordingProtocol"));
  EXPECT_TRUE(last_report_.exception);
}

TEST_P(TransportTest, AStatusErrorIsTheReasonItself) {
  a_.on_data = [](Transport&, absl::Span<const char>) { throw StatusError(absl::DataLossError("bad checksum")); };
  ConnectAndSettle();
  second_->Write("x");
  Settle();
  EXPECT_EQ(a_.reason, absl::DataLossError("bad checksum"));
  EXPECT_EQ(last_report_.status, absl::DataLossError("bad checksum"));
}

TEST_P(TransportTest, AThrowingConnectionMadeIsFatalAndReported) {
  a_.on_made = [](Transport&) { throw std::runtime_error("no"); };
  ConnectAndSettle();
  EXPECT_THAT(a_.log, ElementsAre("made", "lost UNKNOWN"));
  EXPECT_THAT(reports_, ElementsAre("Fatal error: protocol.ConnectionMade() call failed."));
}

TEST_P(TransportTest, AThrowingConnectionLostIsReportedAndTheTransportStillEnds) {
  a_.on_lost = [](Transport&) { throw std::runtime_error("no"); };
  ConnectAndSettle();
  first_->Close();
  Settle();
  EXPECT_THAT(reports_, ElementsAre("Exception in protocol.ConnectionLost()"));
  EXPECT_THAT(b_.log, ElementsAre("made", "eof", "lost OK"));
  EXPECT_EQ(first_->descriptor(), -1);
}

// P-2, C-LOOP-23
TEST_P(TransportTest, FatalOutOfACallbackLeavesTheLoopAndEndsTheConnection) {
  a_.on_data = [](Transport&, absl::Span<const char>) { throw Fatal("stop"); };
  ConnectAndSettle();
  second_->Write("x");
  EXPECT_THROW(loop_->RunForever(), Fatal);
  EXPECT_THAT(reports_, IsEmpty());
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "data x", "lost UNKNOWN"));
}

// C-RD-04
TEST_P(TransportTest, EndOfFileClosesUnlessTheProtocolKeepsItOpen) {
  ConnectAndSettle();
  second_->WriteEof();
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "eof", "lost OK"));
  EXPECT_THAT(b_.log, ElementsAre("made", "eof", "lost OK"));
}

// C-RD-04, C-WR-14
TEST_P(TransportTest, AHalfOpenConnectionStillCarriesTheOtherDirection) {
  a_.keep_open = true;
  a_.on_eof = [](Transport& transport) { transport.Write("the answer"); };
  ConnectAndSettle();
  second_->Write("question");
  second_->WriteEof();
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "data question", "eof"));
  EXPECT_THAT(b_.log, ElementsAre("made", "data the answer"));
  EXPECT_FALSE(first_->is_closing());
  // Reading has stopped for good: resuming does not find the end again.
  first_->PauseReading();
  first_->ResumeReading();
  Settle();
  EXPECT_EQ(a_.Count("eof"), 1u);
  first_->Close();
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "data question", "eof", "lost OK"));
  EXPECT_THAT(b_.log, ElementsAre("made", "data the answer", "eof", "lost OK"));
}

// C-RD-04
TEST_P(TransportTest, EndOfFileStillSendsWhatIsBuffered) {
  ConnectAndSettle();
  second_->PauseReading();
  first_->Write(std::string(Many(), 'x'));
  second_->WriteEof();
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "pause", "eof"));
  EXPECT_TRUE(first_->is_closing());
  second_->ResumeReading();
  Settle();
  EXPECT_EQ(b_.received, Many());
  EXPECT_TRUE(a_.lost());
}

// C-RD-05
TEST_P(TransportTest, AThrowingEofReceivedIsFatalAndReported) {
  a_.on_eof = [](Transport&) { throw std::runtime_error("no"); };
  ConnectAndSettle();
  second_->WriteEof();
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "eof", "lost UNKNOWN"));
  EXPECT_THAT(reports_, ElementsAre("Fatal error: protocol.EofReceived() call failed."));
}

// C-RD-06
TEST_P(TransportTest, PausingAndResumingReadingIsIdempotent) {
  ConnectAndSettle();
  EXPECT_TRUE(first_->is_reading());
  first_->PauseReading();
  first_->PauseReading();
  EXPECT_FALSE(first_->is_reading());
  second_->Write("x");
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made"));
  first_->ResumeReading();
  first_->ResumeReading();
  EXPECT_TRUE(first_->is_reading());
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "data x"));
  first_->Close();
  first_->ResumeReading();
  EXPECT_FALSE(first_->is_reading());
  first_->PauseReading();
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "data x", "lost OK"));
}

// C-RD-06: what was ready when reading was paused in the same batch is not delivered.
TEST_P(TransportTest, PausedInDataReceivedNothingMoreComes) {
  a_.split = true;
  a_.on_data = [](Transport& transport, absl::Span<const char>) { transport.PauseReading(); };
  ConnectAndSettle();
  second_->Write("ab");
  Settle();
  second_->Write("cd");
  Settle();
  ASSERT_EQ(a_.log.size(), 2u);
  for (int i = 0; i < 4; ++i) {
    first_->ResumeReading();
    Settle();
  }
  EXPECT_EQ(a_.received, 4u);
}

// C-RD-09
TEST_P(TransportTest, ABufferedProtocolReceivesIntoItsOwnBuffer) {
  std::vector<int64_t> hints;
  char mine[3];
  a_.get_buffer = [&](int64_t hint) {
    hints.push_back(hint);
    return absl::MakeSpan(mine);
  };
  Connect(a_.NewBufferedProtocol(), b_.NewProtocol());
  Settle();
  second_->Write("hello world");
  second_->Close();
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "data hello world", "eof", "lost OK"));
  EXPECT_THAT(hints, Contains(-1).Times(hints.size()));
}

// C-RD-10
TEST_P(TransportTest, AnEmptyBufferIsFatal) {
  a_.get_buffer = [](int64_t) { return absl::Span<char>(); };
  Connect(a_.NewBufferedProtocol(), b_.NewProtocol());
  Settle();
  second_->Write("x");
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "lost UNKNOWN"));
  EXPECT_THAT(a_.reason.message(), HasSubstr("GetBuffer() returned an empty buffer"));
  EXPECT_THAT(reports_, ElementsAre("Fatal error: protocol.GetBuffer() call failed."));
}

// C-RD-10
TEST_P(TransportTest, AThrowingGetBufferOrBufferUpdatedIsFatal) {
  a_.get_buffer = [](int64_t) -> absl::Span<char> { throw std::runtime_error("no"); };
  Connect(a_.NewBufferedProtocol(), b_.NewBufferedProtocol());
  b_.on_data = [](Transport&, absl::Span<const char>) { throw std::runtime_error("no"); };
  Settle();
  second_->Write("x");
  first_->Write("y");
  Settle();
  EXPECT_THAT(reports_, ::testing::UnorderedElementsAre("Fatal error: protocol.GetBuffer() call failed.",
                                                        "Fatal error: protocol.BufferUpdated() call failed."));
}

TEST_P(TransportTest, ABufferedProtocolMayHandOverInGetBuffer) {
  Recording c;
  char mine[8];
  a_.get_buffer = [&](int64_t) {
    first_->SetProtocol(c.NewProtocol());
    return absl::MakeSpan(mine);
  };
  Connect(a_.NewBufferedProtocol(), b_.NewProtocol());
  Settle();
  second_->Write("all of it");
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made"));
  EXPECT_THAT(c.log, ElementsAre("data all of it"));
  first_.reset();
  Settle();
}

// ---------------------------------------------------------------------------------------------------- writing

// C-WR-01
TEST_P(TransportTest, ASmallWriteLeavesNothingBuffered) {
  ConnectAndSettle();
  first_->Write("x");
  EXPECT_EQ(first_->write_buffer_size(), 0u);
}

// C-WR-02
TEST_P(TransportTest, BytesLeaveInTheOrderOfTheWrites) {
  ConnectAndSettle();
  std::string sent;
  for (int i = 0; i < static_cast<int>(Many() / 300); ++i) {
    const std::string piece = absl::StrCat("<", i, std::string(static_cast<size_t>(i % 700), 'x'), ">");
    sent += piece;
    switch (i % 4) {
      case 0:
        first_->Write(piece);
        break;
      case 1: {
        ByteQueue queue;
        queue.Append(Bytes::Copy(piece));
        first_->Write(std::move(queue));
        EXPECT_TRUE(queue.empty());
        break;
      }
      case 2: {
        const absl::Span<const char> all = piece;
        first_->Writev({all.first(2), absl::Span<const char>(), all.subspan(2)});
        break;
      }
      default:
        first_->Write(piece.c_str());
    }
  }
  EXPECT_GT(first_->write_buffer_size(), 0u);
  Settle();
  EXPECT_THAT(b_.log, ElementsAre("made", absl::StrCat("data ", sent)));
}

// C-WR-04
TEST_P(TransportTest, WritingNothingHasNoEffect) {
  ConnectAndSettle();
  first_->Write("");
  first_->Write({});
  first_->Write(absl::Span<const char>());
  first_->Write(ByteQueue());
  first_->Writev({});
  first_->Writev({absl::Span<const char>()});
  Settle();
  EXPECT_THAT(b_.log, ElementsAre("made"));
}

// C-WR-06
TEST_P(TransportTest, WritingAfterWriteEofIsMisuse) {
  ConnectAndSettle();
  first_->WriteEof();
  EXPECT_THROW(first_->Write("x"), InvalidState);
  EXPECT_THROW(first_->Write(""), InvalidState);
  EXPECT_THROW(first_->Write(ByteQueue()), InvalidState);
  EXPECT_THROW(first_->Writev({}), InvalidState);
}

// C-WR-09
TEST_P(TransportTest, AfterTheLossWritesAreDroppedWithoutError) {
  ConnectAndSettle();
  first_->Abort();
  for (int i = 0; i < 3; ++i) {
    first_->Write("x");
    first_->Write(ByteQueue());
    first_->Writev({absl::Span<const char>("y", 1)});
  }
  EXPECT_EQ(first_->write_buffer_size(), 0u);
  Settle();
  first_->Write("z");
  Settle();
  EXPECT_EQ(b_.received, 0u);
}

// D-6: what is written while a closing transport still sends is sent too.
TEST_P(TransportTest, WritesWhileClosingAreSentAsLongAsSomethingIs) {
  a_.on_resume = [](Transport& transport) { transport.Write("from ResumeWriting"); };
  ConnectAndSettle();
  second_->PauseReading();
  first_->Write(std::string(Many(), 'x'));
  first_->Close();
  first_->Write("more");
  second_->ResumeReading();
  Settle();
  EXPECT_EQ(b_.received, Many() + 4 + 18);
  EXPECT_THAT(b_.log[1], ::testing::EndsWith("xmorefrom ResumeWriting"));
  EXPECT_EQ(a_.Count("lost OK"), 1u);
}

// C-WR-13
TEST_P(TransportTest, WriteEofComesAfterWhatIsBufferedAndOnce) {
  a_.keep_open = b_.keep_open = true;
  ConnectAndSettle();
  EXPECT_TRUE(first_->CanWriteEof());
  second_->PauseReading();
  first_->Write(std::string(Many(), 'x'));
  first_->WriteEof();
  first_->WriteEof();
  second_->ResumeReading();
  Settle();
  EXPECT_EQ(b_.received, Many());
  EXPECT_THAT(b_.log, ElementsAre("made", StartsWith("data x"), "eof"));
  EXPECT_FALSE(first_->is_closing());
}

// C-WR-13
TEST_P(TransportTest, WriteEofAfterCloseDoesNothing) {
  ConnectAndSettle();
  first_->Close();
  first_->WriteEof();
  first_->Write("dropped, not refused");
  Settle();
  EXPECT_THAT(b_.log, ElementsAre("made", "eof", "lost OK"));
}

// C-WR-15
TEST_P(TransportTest, WritevEqualsOneWriteOfTheConcatenation) {
  ConnectAndSettle();
  std::vector<std::string> texts;
  std::string all;
  for (int i = 0; i < 80; ++i) {  // more pieces than one send takes
    texts.push_back(i % 7 == 0 ? "" : absl::StrCat(i, std::string(1000, 'w')));
    all += texts.back();
  }
  std::vector<absl::Span<const char>> pieces(texts.begin(), texts.end());
  first_->Writev(pieces);
  Settle();
  EXPECT_THAT(b_.log, ElementsAre("made", absl::StrCat("data ", all)));
}

// ---------------------------------------------------------------------------------------------------- flow control

// C-FLW-01
TEST_P(TransportTest, TheMarksDefaultToSixtyFourAndSixteenKibibytes) {
  Connect();
  EXPECT_EQ(first_->write_high_mark(), 65536u);
  EXPECT_EQ(first_->write_low_mark(), 16384u);
  ASSERT_TRUE(first_->SetWriteBufferLimits({.high = 1023}).ok());
  EXPECT_EQ(first_->write_high_mark(), 1023u);
  EXPECT_EQ(first_->write_low_mark(), 255u);
  ASSERT_TRUE(first_->SetWriteBufferLimits({.low = 100}).ok());
  EXPECT_EQ(first_->write_high_mark(), 400u);
  EXPECT_EQ(first_->write_low_mark(), 100u);
  ASSERT_TRUE(first_->SetWriteBufferLimits({.high = 7, .low = 7}).ok());
  ASSERT_TRUE(first_->SetWriteBufferLimits({.high = 0}).ok());
  EXPECT_EQ(first_->write_high_mark(), 0u);
  EXPECT_EQ(first_->write_low_mark(), 0u);
  ASSERT_TRUE(first_->SetWriteBufferLimits({}).ok());
  EXPECT_EQ(first_->write_high_mark(), 65536u);
  EXPECT_EQ(first_->write_low_mark(), 16384u);
}

// C-FLW-02
TEST_P(TransportTest, ImpossibleMarksAreRefusedAndChangeNothing) {
  Connect();
  const absl::Status status = first_->SetWriteBufferLimits({.high = 1, .low = 2});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "high (1) must be >= low (2) must be >= 0");
  EXPECT_FALSE(first_->SetWriteBufferLimits({.low = -1}).ok());
  EXPECT_FALSE(first_->SetWriteBufferLimits({.high = -1}).ok());
  EXPECT_EQ(first_->write_high_mark(), 65536u);
}

// C-FLW-04, C-FLW-06
TEST_P(TransportTest, PausesInTheWriteThatCrossesTheHighMarkAndResumesAtTheLowOne) {
  ConnectAndSettle();
  second_->PauseReading();
  Fill();
  const size_t high = first_->write_high_mark();
  first_->Write(std::string(high - first_->write_buffer_size(), 'x'));
  EXPECT_EQ(first_->write_buffer_size(), high);
  EXPECT_THAT(a_.log, ElementsAre("made"));
  first_->Write("y");
  EXPECT_THAT(a_.log, ElementsAre("made", "pause"));
  first_->Write("z");
  EXPECT_THAT(a_.log, ElementsAre("made", "pause"));

  size_t at_resume = 0;
  a_.on_resume = [&](Transport& transport) { at_resume = transport.write_buffer_size(); };
  second_->ResumeReading();
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "pause", "resume"));
  EXPECT_LE(at_resume, first_->write_low_mark());
  EXPECT_EQ(first_->write_buffer_size(), 0u);
}

// C-FLW-04
TEST_P(TransportTest, PauseAndResumeAlternateStrictly) {
  ConnectAndSettle();
  int rounds = 0;
  const auto fill = [&](Transport& transport) {
    if (++rounds > 5) return;
    transport.Write(std::string(Many(), 'x'));
  };
  a_.on_resume = fill;
  fill(*first_);
  Settle();
  std::vector<std::string> expected = {"made"};
  for (int i = 0; i < 5; ++i) expected.insert(expected.end(), {"pause", "resume"});
  EXPECT_EQ(a_.log, expected);
  EXPECT_EQ(b_.received, 5 * (Many()));
}

// C-FLW-07
TEST_P(TransportTest, NewMarksPauseAtOnceButDoNotResume) {
  ConnectAndSettle();
  second_->PauseReading();
  Fill();
  ASSERT_THAT(a_.log, ElementsAre("made"));
  ASSERT_TRUE(first_->SetWriteBufferLimits({.high = 0}).ok());
  EXPECT_THAT(a_.log, ElementsAre("made", "pause"));
  ASSERT_TRUE(first_->SetWriteBufferLimits({.high = 1 << 20}).ok());
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "pause"));
  second_->ResumeReading();
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "pause", "resume"));
}

// What flow control throws does not cost the connection.
TEST_P(TransportTest, ThrowingFlowControlIsReportedAndTheConnectionLives) {
  a_.on_pause = a_.on_resume = [](Transport&) { throw std::runtime_error("no"); };
  ConnectAndSettle();
  first_->Write(std::string(Many(), 'x'));
  Settle();
  EXPECT_THAT(reports_, ElementsAre("protocol.PauseWriting() failed", "protocol.ResumeWriting() failed"));
  EXPECT_EQ(b_.received, Many());
  EXPECT_FALSE(first_->is_closing());
}

// C-WR-16
TEST_P(TransportTest, TheWriteBufferSizeIsExact) {
  ConnectAndSettle();
  second_->PauseReading();
  Fill();
  const size_t before = first_->write_buffer_size();
  first_->Write("12345");
  ByteQueue queue;
  queue.Append("678");
  first_->Write(std::move(queue));
  EXPECT_EQ(first_->write_buffer_size(), before + 8);
}

// ---------------------------------------------------------------------------------------------------- two loops

TEST(MemoryTransport, TheEndsMayLiveOnTwoLoopsOfOneThread) {
  testing::SimOs os;
  EventLoop one(os), two(os);
  Recording a, b;
  MemoryPair pair = MakeMemoryPair(one, a.NewProtocol(), two, b.NewProtocol());
  a.on_made = [](Transport& transport) { transport.Write("hello"); };
  b.on_data = [&](Transport& transport, absl::Span<const char> data) {
    transport.Write(data);
    if (b.received == 5) transport.Close();
  };
  for (int i = 0; i < 30; ++i) {
    one.RunOnceWithoutWaiting();
    two.RunOnceWithoutWaiting();
  }
  EXPECT_THAT(a.log, ElementsAre("made", "data hello", "eof", "lost OK"));
  EXPECT_THAT(b.log, ElementsAre("made", "data hello", "lost OK"));
  // One loop may go before the other one's end does.
  pair.first.reset();
  one.RunOnceWithoutWaiting();
  one.Close();
  two.RunOnceWithoutWaiting();
  pair.second.reset();
  two.Close();
}

TEST(MemoryTransport, ClosingWithUnreadBytesResetsThePeer) {
  testing::SimOs os;
  EventLoop loop(os);
  Recording a, b;
  MemoryPair pair = MakeMemoryPair(loop, a.NewProtocol(), b.NewProtocol());
  a.on_made = [](Transport& transport) { transport.Write("u"); };
  b.on_made = [](Transport& transport) { transport.Abort(); };
  for (int i = 0; i < 5; ++i) loop.RunOnceWithoutWaiting();
  EXPECT_THAT(a.log, ElementsAre("made", "lost UNAVAILABLE"));
  EXPECT_THAT(a.reason.message(), HasSubstr("Connection reset by peer"));
  pair = {};
  loop.RunOnceWithoutWaiting();
  loop.Close();
}

TEST(MemoryTransport, WritingToAPeerThatIsGoneBreaksTheConnection) {
  testing::SimOs os;
  EventLoop loop(os);
  Recording a, b;
  MemoryPair pair = MakeMemoryPair(loop, a.NewProtocol(), b.NewProtocol());
  loop.RunOnceWithoutWaiting();
  pair.first->PauseReading();
  pair.second->Abort();
  loop.RunOnceWithoutWaiting();
  pair.first->Write("x");
  loop.RunOnceWithoutWaiting();
  EXPECT_THAT(a.log, ElementsAre("made", "lost UNAVAILABLE"));
  EXPECT_THAT(a.reason.message(), HasSubstr("Broken pipe"));
  pair = {};
  loop.RunOnceWithoutWaiting();
  loop.Close();
}

}  // namespace
}  // namespace troupe
