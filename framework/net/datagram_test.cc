// Datagram endpoints: on a simulated machine, on a bad network from seeds, and at the end over the kernel's own sockets.
#include "troupe/net/datagram.h"

#include <glog/logging.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/task.h"
#include "troupe/base/errors.h"
#include "troupe/base/os_error.h"
#include "troupe/loop/event_loop.h"
#include "troupe/loop/loop_testing.h"
#include "troupe/net/internal/log_count.h"
#include "troupe/net/internal/recording_datagrams.h"
#include "troupe/os/posix_os.h"
#include "troupe/testing/sim/sim_os.h"

namespace troupe {
namespace {

using internal::DatagramRecording;
using internal::LogCount;
using ::testing::Combine;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Lt;
using ::testing::SizeIs;
using ::testing::Values;

SocketAddress Address(absl::string_view text) { return *SocketAddress::Parse(text); }

class DatagramTest : public LoopTest {
 protected:
  ~DatagramTest() override {
    first_.reset();
    second_.reset();
    Settle();
    loop_.Close();
    EXPECT_THAT(os_.OpenDescriptors(), IsEmpty());
    EXPECT_EQ(a_.alive + b_.alive, 0);
  }

  // Runs the loop until nothing happens any more by itself.
  void Settle() {
    if (loop_.IsClosed()) return;
    try {
      loop_.RunForever();
      FAIL() << "the loop stopped";
    } catch (const InvalidState& stalled) {
      ASSERT_THAT(stalled.what(), HasSubstr("nothing is left"));
    }
  }

  Task<absl::StatusOr<DatagramEndpoint<>>> Creating(DatagramRecording& recording, const DatagramOptions& options) {
    return CreateDatagramEndpoint(
        loop_,
        [this, &recording] {
          ++factory_calls_;
          return recording.NewProtocol();
        },
        options);
  }
  absl::StatusOr<DatagramEndpoint<>> TryCreate(DatagramRecording& recording, const DatagramOptions& options) {
    return loop_.RunUntilComplete(Creating(recording, options));
  }
  absl::Status Refused(const DatagramOptions& options) {
    const int before = factory_calls_;
    const absl::Status status = TryCreate(a_, options).status();
    EXPECT_EQ(factory_calls_, before);
    return status;
  }
  DatagramTransportPtr Create(DatagramRecording& recording, const DatagramOptions& options) {
    absl::StatusOr<DatagramEndpoint<>> made = TryCreate(recording, options);
    EXPECT_TRUE(made.ok()) << made.status();
    return made.ok() ? std::move(made->transport) : nullptr;
  }
  // first_ is anybody's, second_ is connected to it.
  void CreateBoth(const DatagramOptions& options = {.local = "127.0.0.1:0"}) {
    first_ = Create(a_, options);
    second_ = Create(b_, {.remote_address = first_->local()});
  }
  // While it lives, the system takes no datagram of `fd`.
  void Block(int fd) {
    os_.SetFault([fd](absl::string_view operation, int asked) {
      return operation == "SendTo" && asked == fd ? EAGAIN : 0;
    });
  }
  void Unblock() { os_.SetFault(nullptr); }
  int SendCalls(const std::function<void()>& f) {
    int calls = 0;
    os_.SetFault([&](absl::string_view operation, int) {
      calls += operation == "SendTo" ? 1 : 0;
      return 0;
    });
    f();
    os_.SetFault(nullptr);
    return calls;
  }

  DatagramRecording a_, b_;
  int factory_calls_ = 0;
  DatagramTransportPtr first_, second_;
};

INSTANTIATE_POLLING(DatagramTest);

// ---------------------------------------------------------------------------------------------------- what travels

TEST_P(DatagramTest, AnEndpointAnswersWhoeverAsks) {
  a_.on_data = [&](DatagramTransport& transport, absl::string_view text) {
    transport.SendTo(absl::StrCat("echo ", text), a_.from);
  };
  for (const char* const local : {"127.0.0.1:0", "[::1]:0", "unix:/echo", "unix-abstract:echo"}) {
    SCOPED_TRACE(local);
    a_.log.clear();
    b_.log.clear();
    first_ = Create(a_, {.local = local});
    ASSERT_NE(first_, nullptr);
    const bool unix_socket = first_->local().family() == AF_UNIX;
    second_ = Create(b_, {.local = unix_socket ? "unix-abstract:asker" : "",
                          .remote_address = first_->local()});
    ASSERT_NE(second_, nullptr);
    EXPECT_EQ(second_->remote(), first_->local());
    second_->SendTo("one");
    second_->SendTo("two");
    Settle();
    EXPECT_THAT(a_.log, ElementsAre("made", "data one", "data two"));
    EXPECT_THAT(b_.log, ElementsAre("made", "data echo one", "data echo two"));
    EXPECT_EQ(a_.from, second_->local());
    EXPECT_EQ(b_.from, first_->local());
    first_->Close();
    second_->Close();
    Settle();
    EXPECT_EQ(a_.log.back(), "lost OK");
    EXPECT_EQ(b_.log.back(), "lost OK");
    first_.reset();
    second_.reset();
    Settle();
  }
}

// D-5
TEST_P(DatagramTest, EmptyDatagramsAreSent) {
  CreateBoth();
  second_->SendTo({});
  Block(second_->descriptor());
  second_->SendTo({});
  EXPECT_EQ(second_->write_buffer_size(), DatagramTransport::kHeaderBytes);
  Unblock();
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "data ", "data "));
}

// C-DGM-01
TEST_P(DatagramTest, OneDatagramIsReceivedPerReadiness) {
  CreateBoth();
  std::vector<int> at;
  Iterations iterations(loop_);
  a_.on_data = [&](DatagramTransport&, absl::string_view) { at.push_back(iterations.count()); };
  for (const char* const text : {"one", "two", "three"}) second_->SendTo(text);
  os_.kernel().AdvanceTo(os_.Now() + absl::Seconds(1));
  while (at.size() < 3) loop_.RunOnceWithoutWaiting();
  EXPECT_GT(at[1], at[0]);
  EXPECT_GT(at[2], at[1]);
  iterations.Unlink();
}

// C-DGM-01
TEST_P(DatagramTest, TheSystemsErrorsAreToldAndTheEndpointStays) {
  CreateBoth();
  const SocketAddress local = first_->local();
  first_->Abort();
  Settle();
  second_->SendTo("nobody there");
  Settle();
  EXPECT_THAT(b_.log, ElementsAre("made", "error Connection refused"));
  EXPECT_EQ(ErrnoOf(b_.errors[0]), ECONNREFUSED);
  EXPECT_FALSE(second_->is_closing());
  a_.log.clear();
  first_ = Create(a_, {.local_address = local});
  second_->SendTo("somebody there");
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "data somebody there"));
}

// C-DGM-01
TEST_P(DatagramTest, NothingToReceiveIsNoEvent) {
  CreateBoth();
  int failed = 0;
  os_.SetFault([&](absl::string_view operation, int) { return operation == "ReceiveFrom" && ++failed == 1 ? EAGAIN : 0; });
  second_->SendTo("x");
  Settle();
  Unblock();
  EXPECT_GT(failed, 1);
  EXPECT_THAT(a_.log, ElementsAre("made", "data x"));
}

TEST_P(DatagramTest, WithoutMemoryToReceiveItSaysSoAndTriesAgainWithoutSpinning) {
  CreateBoth();
  int tried = 0;
  os_.SetFault(
      [&](absl::string_view operation, int) { return operation == "ReceiveFrom" && ++tried <= 5 ? ENOMEM : 0; });
  const MonotonicTime before = os_.Now();
  second_->SendTo("x");
  Settle();
  os_.SetFault(nullptr);
  EXPECT_EQ(tried, 6);
  EXPECT_GE(os_.Now() - before, absl::Milliseconds(300));
  EXPECT_EQ(a_.errors.size(), 5u);
  EXPECT_EQ(a_.log.back(), "data x");
}

TEST_P(DatagramTest, ClosedWhileItWaitsForMemoryItWaitsNoMore) {
  CreateBoth();
  os_.SetFault([](absl::string_view operation, int) { return operation == "ReceiveFrom" ? ENOMEM : 0; });
  second_->SendTo("x");
  os_.kernel().AdvanceTo(os_.Now() + absl::Milliseconds(1));
  for (int i = 0; i < 10; ++i) loop_.RunOnceWithoutWaiting();
  EXPECT_EQ(a_.errors.size(), 1u);
  first_.reset();
  os_.SetFault(nullptr);
  const MonotonicTime before = os_.Now();
  Settle();
  EXPECT_EQ(os_.Now(), before);
}

TEST_P(DatagramTest, ADatagramThatIsTooLargeToReceiveIsToldAndDropped) {
  first_ = Create(a_, {.local = "unix-abstract:a"});
  const int fd = os_.Socket(AF_UNIX, SOCK_DGRAM);
  ASSERT_EQ(os_.SetSocketOption(fd, SOL_SOCKET, SO_SNDBUF, 1 << 20), 0);
  const std::string large((256 << 10) + 1, 'x');
  ASSERT_EQ(os_.SendTo(fd, large, &first_->local()), static_cast<int64_t>(large.size()));
  ASSERT_EQ(os_.SendTo(fd, absl::string_view("fits"), &first_->local()), 4);
  Settle();
  ASSERT_THAT(a_.errors, SizeIs(1));
  EXPECT_EQ(a_.errors[0].code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(a_.errors[0].message(), HasSubstr("262145 bytes"));
  EXPECT_EQ(a_.log.back(), "data fits");
  os_.Close(fd);
}

TEST_P(DatagramTest, APausedEndpointReceivesLater) {
  CreateBoth();
  first_->PauseReading();
  first_->PauseReading();
  EXPECT_FALSE(first_->is_reading());
  second_->SendTo("x");
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made"));
  first_->ResumeReading();
  first_->ResumeReading();
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "data x"));
  first_->Close();
  first_->ResumeReading();
  EXPECT_FALSE(first_->is_reading());
}

// ---------------------------------------------------------------------------------------------------- sending

// C-DGM-02
TEST_P(DatagramTest, ADatagramIsSentAtOnceOrQueuedInOrderAndCopied) {
  CreateBoth();
  EXPECT_EQ(SendCalls([&] { second_->SendTo("at once"); }), 1);
  EXPECT_EQ(second_->write_buffer_size(), 0u);
  Block(second_->descriptor());
  std::string reused = "queued 1";
  second_->SendTo(reused);
  Unblock();
  // Behind it, though the system would take it.
  reused = "queued 2";
  EXPECT_EQ(SendCalls([&] { second_->SendTo(reused, first_->local()); }), 0);
  reused = "gone";
  EXPECT_EQ(second_->write_buffer_size(), 16u + 2 * DatagramTransport::kHeaderBytes);
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "data at once", "data queued 1", "data queued 2"));
  EXPECT_EQ(second_->write_buffer_size(), 0u);
}

// C-DGM-03
TEST_P(DatagramTest, AConnectedEndpointRefusesAnyOtherDestination) {
  CreateBoth();
  second_->SendTo("mine", first_->local());
  EXPECT_THROW(second_->SendTo("another's", Address("127.0.0.1:9")), InvalidState);
  second_->Abort();
  Settle();
  EXPECT_THROW(second_->SendTo("also when lost", Address("127.0.0.1:9")), InvalidState);
  EXPECT_THAT(a_.log, ElementsAre("made", "data mine"));
}

// C-DGM-04
TEST_P(DatagramTest, ADatagramThatCannotBeSentIsLostAndTold) {
  CreateBoth();
  second_->SendTo(std::string(65508, 'x'));
  EXPECT_THAT(b_.log, ElementsAre("made", "error Message too long"));
  Block(second_->descriptor());
  second_->SendTo("queued 1");
  second_->SendTo(std::string(65508, 'y'));
  second_->SendTo("queued 2");
  Unblock();
  Settle();
  EXPECT_EQ(b_.Count("error Message too long"), 2);
  EXPECT_THAT(a_.log, ElementsAre("made", "data queued 1", "data queued 2"));
  EXPECT_FALSE(second_->is_closing());
  EXPECT_EQ(second_->write_buffer_size(), 0u);

  first_->SendTo("nowhere");
  EXPECT_EQ(ErrnoOf(a_.errors.at(0)), EDESTADDRREQ);
}

// C-DGM-04: not in the call that failed, which would never end.
TEST_P(DatagramTest, AProtocolMayTryAgainFromErrorReceived) {
  CreateBoth();
  int depth = 0;
  b_.on_error = [&](DatagramTransport& transport) {
    EXPECT_EQ(++depth, 1);
    if (b_.errors.size() < 20) transport.SendTo(b_.errors.size() < 10 ? std::string(65508, 'x') : "small");
    --depth;
  };
  second_->SendTo(std::string(65508, 'x'));
  EXPECT_THAT(b_.errors, SizeIs(1));
  Settle();
  EXPECT_THAT(b_.errors, SizeIs(10));
  EXPECT_THAT(a_.log, ElementsAre("made", "data small"));
}

// C-DGM-06
TEST_P(DatagramTest, ClosingSendsWhatIsQueuedAndAbortingDropsIt) {
  for (const bool abort : {false, true}) {
    SCOPED_TRACE(abort);
    a_.log.clear();
    b_.log.clear();
    CreateBoth();
    Block(second_->descriptor());
    second_->SendTo("one");
    second_->SendTo("two");
    abort ? second_->Abort() : second_->Close();
    abort ? second_->Abort() : second_->Close();
    EXPECT_TRUE(second_->is_closing());
    EXPECT_THAT(b_.log, ElementsAre("made"));  // D-10
    second_->SendTo("after");                  // D-6
    Unblock();
    Settle();
    EXPECT_THAT(b_.log, ElementsAre("made", "lost OK"));
    EXPECT_EQ(second_->descriptor(), -1);
    if (abort) {
      EXPECT_THAT(a_.log, ElementsAre("made"));
    } else {
      EXPECT_THAT(a_.log, ElementsAre("made", "data one", "data two", "data after"));
    }
    first_->Close();
    loop_.RunUntilComplete(first_->Closed());
    loop_.RunUntilComplete(second_->Closed());
  }
}

TEST_P(DatagramTest, AClosedEndpointReceivesNothingMore) {
  CreateBoth();
  Block(first_->descriptor());
  first_->SendTo("queued", second_->local());
  first_->Close();
  second_->SendTo("too late");
  os_.kernel().AdvanceTo(os_.Now() + absl::Seconds(1));
  Unblock();
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "lost OK"));
  EXPECT_THAT(b_.log, ElementsAre("made", "data queued"));
}

// C-DGM-06, C-DGM-07: whoever hears that it closes may still send.
TEST_P(DatagramTest, WhatCallbacksSendWhileItClosesGoesLastAndAfterTheEndNothing) {
  CreateBoth();
  ASSERT_TRUE(second_->SetWriteBufferLimits({.high = 20}).ok());
  b_.on_error = [](DatagramTransport& transport) { transport.SendTo("from the error"); };
  b_.on_pause = [](DatagramTransport& transport) { transport.SendTo("from the pause"); };
  b_.on_resume = [](DatagramTransport& transport) { transport.SendTo("from the resume"); };
  b_.on_lost = [](DatagramTransport& transport) {
    transport.SendTo("from the end");
    transport.Close();
    transport.Abort();
  };
  Block(second_->descriptor());
  second_->SendTo("one");
  second_->SendTo("two");
  second_->SendTo("three");
  second_->Close();
  EXPECT_GT(second_->write_buffer_size(), 0u);
  // The second is refused.
  os_.SetFault([calls = 0](absl::string_view operation, int) mutable {
    return operation == "SendTo" && ++calls == 2 ? EHOSTUNREACH : 0;
  });
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "data one", "data from the pause", "data three", "data from the error",
                                  "data from the resume"));
  EXPECT_EQ(b_.log.back(), "lost OK");
  EXPECT_EQ(second_->descriptor(), -1);
  EXPECT_EQ(second_->write_buffer_size(), 0u);
  os_.SetFault(nullptr);
}

// C-DGM-07
TEST_P(DatagramTest, SendingOnALostEndpointVanishesAndIsWarnedOf) {
  CreateBoth();
  second_->Abort();
  const LogCount warnings(google::GLOG_WARNING, "socket.send() raised exception.");
  EXPECT_EQ(SendCalls([&] {
              for (int i = 0; i < 4; ++i) second_->SendTo("x");
              EXPECT_EQ(warnings.count(), 0);
              for (int i = 0; i < 3; ++i) second_->SendTo("x");
            }),
            0);
  EXPECT_EQ(warnings.count(), 3);
  EXPECT_EQ(second_->write_buffer_size(), 0u);
}

// ---------------------------------------------------------------------------------------------------- flow control

// C-FLW-04, C-FLW-06, C-FLW-02
TEST_P(DatagramTest, WritingPausesAboveTheHighMarkAndResumesAtTheLowOne) {
  CreateBoth();
  EXPECT_EQ(second_->write_high_mark(), 64u << 10);
  EXPECT_EQ(second_->write_low_mark(), 16u << 10);
  EXPECT_FALSE(second_->SetWriteBufferLimits({.high = 1, .low = 2}).ok());
  ASSERT_TRUE(second_->SetWriteBufferLimits({.high = 40, .low = 20}).ok());
  Block(second_->descriptor());
  second_->SendTo("12");
  second_->SendTo(std::string(22, 'x'));
  EXPECT_EQ(second_->write_buffer_size(), 40u);
  EXPECT_THAT(b_.log, ElementsAre("made"));
  second_->SendTo({});
  EXPECT_THAT(b_.log, ElementsAre("made", "pause"));
  second_->SendTo("more");
  Unblock();
  Settle();
  EXPECT_THAT(b_.log, ElementsAre("made", "pause", "resume"));
  EXPECT_EQ(a_.log.size(), 5u);
}

// D-8
TEST_P(DatagramTest, FailingDatagramsDoNotStallFlowControl) {
  CreateBoth();
  ASSERT_TRUE(second_->SetWriteBufferLimits({.high = 100, .low = 0}).ok());
  Block(second_->descriptor());
  for (int i = 0; i < 10; ++i) second_->SendTo(std::string(65508, 'x'));
  EXPECT_THAT(b_.log, ElementsAre("made", "pause"));
  // One that fails is the last of all.
  Unblock();
  Settle();
  EXPECT_THAT(b_.errors, SizeIs(10));
  EXPECT_EQ(b_.log.back(), "resume");
  second_->SendTo("fine");
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "data fine"));
  // Nothing is watched for any more: a loop that was told that it may write would not have settled.
}

// D-8: a poller calls a Unix socket writable whose receiver, to which it is not connected, has no room.
TEST_P(DatagramTest, AFullReceiverIsTriedAgainWithoutSpinning) {
  first_ = Create(a_, {.local = "unix-abstract:full"});
  first_->PauseReading();
  second_ = Create(b_, {.family = AF_UNIX});
  for (int i = 0; i < 100; ++i) second_->SendTo(absl::StrCat(i), first_->local());
  EXPECT_GT(second_->write_buffer_size(), 0u);
  const int calls = SendCalls([&] {
    loop_.CallLater(absl::Seconds(10), [&] { first_->ResumeReading(); });
    loop_.CallLater(absl::Seconds(11), [&] { loop_.Stop(); });
    loop_.RunForever();
  });
  EXPECT_THAT(calls, Lt(1000));
  EXPECT_EQ(a_.log.size(), 101u);
  EXPECT_EQ(a_.log.back(), "data 99");
}

TEST_P(DatagramTest, AnEndpointThatThePollerRefusesWhileItsReceiverIsFullEndsOnce) {
  first_ = Create(a_, {.local = "unix-abstract:full"});
  first_->PauseReading();
  second_ = Create(b_, {.family = AF_UNIX});
  const int fd = second_->descriptor();
  // It watches for room, and then no more until it tries again.
  os_.SetFault([fd, changes = 0](absl::string_view operation, int asked) mutable {
    return asked == fd && operation == "Poller.Modify" && ++changes == 2 ? EBADF : 0;
  });
  for (int i = 0; i < 100; ++i) second_->SendTo(absl::StrCat(i), first_->local());
  for (int i = 0; i < 20; ++i) loop_.RunOnceWithoutWaiting();
  EXPECT_THAT(b_.log.back(), HasSubstr("lost"));
  second_.reset();
  Settle();
  os_.SetFault(nullptr);
}

// ---------------------------------------------------------------------------------------------------- making one

// C-DGM-08
TEST_P(DatagramTest, ContradictoryOptionsAreRefusedAndTheTextSaysWhich) {
  const auto refused = [&](const DatagramOptions& options) {
    const absl::Status status = Refused(options);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return std::string(status.message());
  };
  EXPECT_THAT(refused({}), HasSubstr("unexpected address family"));
  EXPECT_THAT(refused({.family = 12345}), HasSubstr("unexpected address family"));
  EXPECT_THAT(refused({.local = "127.0.0.1:0", .remote = "[::1]:9"}), HasSubstr("can not get address information"));
  EXPECT_THAT(refused({.local_address = Address("[::1]:0"), .family = AF_INET}),
              HasSubstr("can not get address information"));
  EXPECT_THAT(refused({.local = ":0", .local_address = Address("[::1]:0")}), HasSubstr("local_address"));
  EXPECT_THAT(refused({.remote = "h:1", .remote_address = Address("[::1]:1")}), HasSubstr("remote_address"));
  EXPECT_THAT(refused({.local = "no port"}), HasSubstr("no port"));
  EXPECT_THAT(refused({.remote = "host:"}), HasSubstr("port"));
  EXPECT_THAT(refused({.local = "host:1", .family = AF_UNIX}), HasSubstr("unix:"));
  const int fd = os_.Socket(AF_INET, SOCK_DGRAM);
  const std::string all = refused({.local = "x:1",
                                   .remote = "y:2",
                                   .family = AF_INET,
                                   .reuse_port = true,
                                   .allow_broadcast = true,
                                   .socket = fd});
  for (const char* const name : {"local=x:1", "remote=y:2", "family=2", "reuse_port", "allow_broadcast"}) {
    EXPECT_THAT(all, HasSubstr(name));
  }
  const int stream = os_.Socket(AF_INET, SOCK_STREAM);
  EXPECT_THAT(refused({.socket = stream}), HasSubstr("A Datagram Socket was expected"));
  EXPECT_THAT(refused({.socket = 12345}), HasSubstr("A Datagram Socket was expected"));
  // They stay the caller's.
  EXPECT_EQ(os_.Close(fd), 0);
  EXPECT_EQ(os_.Close(stream), 0);
}

TEST_P(DatagramTest, AFamilyAloneMakesAnUnboundSocket) {
  first_ = Create(a_, {.local = "127.0.0.1:0"});
  second_ = Create(b_, {.family = AF_INET});
  second_->SendTo("x", first_->local());
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "data x"));
}

// C-DGM-09
TEST_P(DatagramTest, CandidatesAreTriedInTurnAndTheFirstErrorIsGiven) {
  os_.kernel().SetName("several", {Address("192.0.2.1:0"), Address("192.0.2.2:0"), Address("127.0.0.1:0")});
  first_ = Create(a_, {.local = "several:0"});
  EXPECT_EQ(first_->local().host(), "127.0.0.1");
  os_.kernel().SetName("none", {Address("192.0.2.1:0"), Address("[::1]:0")});
  // The second fails differently.
  const std::string taken = absl::StrCat("[::1]:", first_->local().port());
  second_ = Create(b_, {.local = taken});
  const absl::Status status = Refused({.local = absl::StrCat("none:", first_->local().port())});
  EXPECT_EQ(ErrnoOf(status), EADDRNOTAVAIL);
  EXPECT_THAT(status.message(), HasSubstr("192.0.2.1"));
  EXPECT_THAT(os_.OpenDescriptors(), SizeIs(2));
  EXPECT_EQ(Refused({.local = "unknown:0"}).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ErrnoOf(Refused({.remote = "unix:/nobody"})), ENOENT);
  EXPECT_THAT(os_.OpenDescriptors(), SizeIs(2));
}

TEST_P(DatagramTest, BothEndsAreOfOneFamily) {
  os_.kernel().SetName("both", {Address("[::1]:0"), Address("127.0.0.1:0")});
  first_ = Create(a_, {.local = "127.0.0.1:0", .remote = "both:9"});
  EXPECT_EQ(first_->remote().ToString(), "127.0.0.1:9");
  second_ = Create(b_, {.local = "both:0", .family = AF_INET});
  EXPECT_EQ(second_->local().host(), "127.0.0.1");
}

// C-DGM-10
TEST_P(DatagramTest, WithBroadcastTheRemoteAddressIsOnlyWhereToSend) {
  first_ = Create(a_, {.local = "0.0.0.0:0"});
  const std::string all = absl::StrCat("127.255.255.255:", first_->local().port());
  EXPECT_EQ(ErrnoOf(Refused({.remote = all})), EACCES);
  second_ = Create(b_, {.local = "127.0.0.1:0", .remote = all, .allow_broadcast = true});
  EXPECT_EQ(second_->remote().ToString(), all);
  second_->SendTo("to all");
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "data to all"));
  EXPECT_THROW(second_->SendTo("x", first_->local()), InvalidState);  // C-DGM-03
  // Who answers has another address and is heard all the same.
  first_->SendTo("here", second_->local());
  Settle();
  EXPECT_THAT(b_.log, ElementsAre("made", "data here"));
}

TEST_P(DatagramTest, ReusePortSharesAPort) {
  first_ = Create(a_, {.local = "127.0.0.1:0", .reuse_port = true});
  EXPECT_EQ(ErrnoOf(Refused({.local_address = first_->local()})), EADDRINUSE);
  second_ = Create(b_, {.local_address = first_->local(), .reuse_port = true});
  EXPECT_EQ(first_->local(), second_->local());
}

TEST_P(DatagramTest, AGivenSocketIsTakenOverWithItsPeer) {
  int fds[2];
  ASSERT_EQ(os_.SocketPair(AF_UNIX, SOCK_DGRAM, fds), 0);
  first_ = Create(a_, {.socket = fds[0]});
  second_ = Create(b_, {.socket = fds[1]});
  EXPECT_EQ(first_->descriptor(), fds[0]);
  first_->SendTo("x");
  Settle();
  EXPECT_THAT(b_.log, ElementsAre("made", "data x"));
  EXPECT_EQ(b_.from.family(), AF_UNSPEC);
}

TEST_P(DatagramTest, AStaleSocketFileIsReplacedAndOneInUseIsNot) {
  first_ = Create(a_, {.local = "unix:/run/x"});
  EXPECT_EQ(ErrnoOf(Refused({.local = "unix:/run/x"})), EADDRINUSE);
  first_.reset();
  Settle();
  EXPECT_TRUE(os_.IsSocketFile("/run/x"));
  first_ = Create(a_, {.local = "unix:/run/x"});
  EXPECT_NE(first_, nullptr);
}

TEST_P(DatagramTest, WhatTheFactoryThrowsPassesThroughAndClosesTheSocket) {
  const auto throws = []() -> std::unique_ptr<DatagramProtocol> { throw std::runtime_error("no protocol"); };
  const DatagramOptions options = {.local = "127.0.0.1:0"};
  EXPECT_THROW((void)loop_.RunUntilComplete(CreateDatagramEndpoint(loop_, throws, options)), std::runtime_error);
  const auto null = [] { return std::unique_ptr<DatagramProtocol>(); };
  EXPECT_THROW((void)loop_.RunUntilComplete(CreateDatagramEndpoint(loop_, null, options)), InvalidState);
  EXPECT_THAT(os_.OpenDescriptors(), IsEmpty());
}

TEST_P(DatagramTest, AConnectionMadeThatThrowsIsTheCallersError) {
  a_.on_made = [](DatagramTransport&) { throw StatusError(absl::DataLossError("thrown")); };
  EXPECT_EQ(TryCreate(a_, {.local = "127.0.0.1:0"}).status().code(), absl::StatusCode::kDataLoss);
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "lost DATA_LOSS"));
  EXPECT_THAT(TakeReports(), ElementsAre(HasSubstr("ConnectionMade")));
}

TEST_P(DatagramTest, CreatingMayBeCancelledAtAnyTime) {
  os_.kernel().SetName("slow", {Address("127.0.0.1:0")});
  for (int steps = 0;; ++steps) {
    ASSERT_LT(steps, 100);
    auto creating = loop_.CreateTask(Creating(a_, {.local = "slow:0"}));
    for (int i = 0; i < steps && !creating.done(); ++i) {
      os_.kernel().AdvanceTo(os_.Now() + absl::Microseconds(5));
      loop_.RunOnceWithoutWaiting();
    }
    const bool done = creating.done();
    creating.Cancel();
    try {
      absl::StatusOr<DatagramEndpoint<>> made = loop_.RunUntilComplete(std::move(creating));
      EXPECT_TRUE(done);
    } catch (const Cancelled&) {
    }
    Settle();
    EXPECT_THAT(os_.OpenDescriptors(), IsEmpty());
    EXPECT_EQ(a_.alive, 0);
    if (done) break;
  }
}

TEST_P(DatagramTest, DroppingAnOpenEndpointWarnsAndClosesIt) {
  CreateBoth();
  const LogCount warnings(google::GLOG_WARNING, "unclosed transport <datagram transport");
  second_.reset();
  EXPECT_EQ(warnings.count(), 1);
  Settle();
  EXPECT_THAT(b_.log, ElementsAre("made", "lost OK"));
  EXPECT_EQ(b_.alive, 0);
}

// P-3
TEST_P(DatagramTest, AnEndpointMayOutliveItsLoopsClosing) {
  CreateBoth();
  Block(second_->descriptor());
  second_->SendTo("never");
  Unblock();
  loop_.Close();
  first_.reset();
  second_.reset();
  EXPECT_THAT(os_.OpenDescriptors(), IsEmpty());
  EXPECT_EQ(a_.alive + b_.alive, 0);
}

TEST_P(DatagramTest, AProtocolMayBeReplaced) {
  CreateBoth();
  DatagramRecording c;
  first_->SetProtocol(c.NewProtocol());
  second_->SendTo("x");
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made"));
  EXPECT_EQ(a_.alive, 0);
  EXPECT_THAT(c.log, ElementsAre("data x"));
  first_.reset();
  Settle();
  EXPECT_EQ(c.alive, 0);
}

// ---------------------------------------------------------------------------------------------------- callbacks

enum class Callback { kMade, kData, kError, kErrorInSend, kPause, kResume, kLost };
enum class Action { kThrow, kThrowStatus, kThrowFatal, kAbort, kClose, kDrop, kDropBoth, kDropAndThrow, kReplace };
using CallbackCase = std::tuple<Polling, Callback, Action>;

std::string CallbackCaseName(const ::testing::TestParamInfo<CallbackCase>& info) {
  constexpr const char* kCallbacks[] = {"Made", "Data", "Error", "ErrorInSend", "Pause", "Resume", "Lost"};
  constexpr const char* kActions[] = {"Throw", "ThrowStatus", "ThrowFatal",   "Abort",  "Close",
                                      "Drop",  "DropBoth",    "DropAndThrow", "Replace"};
  return absl::StrCat(std::get<Polling>(info.param) == Polling::kStrict ? "Strict" : "Shared",
                      kCallbacks[static_cast<int>(std::get<Callback>(info.param))],
                      kActions[static_cast<int>(std::get<Action>(info.param))]);
}

class DatagramCallbacksTest : public ::testing::TestWithParam<CallbackCase> {
 protected:
  DatagramCallbacksTest() {
    loop_.SetExceptionHandler(
        [this](EventLoop&, const ExceptionContext& context) { reports_.push_back(context.message); });
  }
  void Act() {
    ++acted_;
    switch (std::get<Action>(GetParam())) {
      case Action::kThrow:
        throw std::runtime_error("thrown");
      case Action::kThrowStatus:
        throw StatusError(absl::DataLossError("thrown"));
      case Action::kThrowFatal:
        throw Fatal("thrown");
      case Action::kAbort:
        return first_->Abort();
      case Action::kClose:
        return first_->Close();
      case Action::kDrop:
        return first_.reset();
      case Action::kDropBoth:
        second_.reset();
        return first_.reset();
      case Action::kDropAndThrow:
        first_.reset();
        throw std::runtime_error("thrown");
      case Action::kReplace:
        return first_->SetProtocol(c_.NewProtocol());
    }
  }
  void Settle() {
    try {
      loop_.RunForever();
      FAIL() << "the loop stopped";
    } catch (const InvalidState& stalled) {
      ASSERT_THAT(stalled.what(), HasSubstr("nothing is left"));
    }
  }
  // Fatal leaves the loop, or the call inside which the callback came; then the loop goes on.
  template <class F>
  void Outlive(F f) {
    try {
      f();
    } catch (const Fatal&) {
      ++fatals_;
    }
    try {
      Settle();
    } catch (const Fatal&) {
      ++fatals_;
      Settle();
    }
  }
  // A task, so that Fatal leaves the loop and not the wait. What it makes goes where callbacks find it, before they come.
  Task<void> Create(DatagramRecording& recording, DatagramTransportPtr& transport, const DatagramOptions& options) {
    const auto factory = [&recording] { return recording.NewProtocol(); };
    absl::StatusOr<DatagramEndpoint<>> made = co_await CreateDatagramEndpoint(loop_, factory, options);
    if (made.ok()) transport = std::move(made->transport);
  }

  testing::SimOs os_;
  EventLoop loop_{os_, {.strict_polling = std::get<Polling>(GetParam()) == Polling::kStrict}};
  DatagramRecording a_, b_, c_;
  DatagramTransportPtr first_, second_;
  std::vector<std::string> reports_;
  int acted_ = 0;
  int fatals_ = 0;
};

INSTANTIATE_TEST_SUITE_P(
    All, DatagramCallbacksTest,
    Combine(Values(Polling::kStrict, Polling::kShared),
            Values(Callback::kMade, Callback::kData, Callback::kError, Callback::kErrorInSend, Callback::kPause,
                   Callback::kResume, Callback::kLost),
            Values(Action::kThrow, Action::kThrowStatus, Action::kThrowFatal, Action::kAbort, Action::kClose,
                   Action::kDrop, Action::kDropBoth, Action::kDropAndThrow, Action::kReplace)),
    CallbackCaseName);

// P-2, P-4
TEST_P(DatagramCallbacksTest, MayThrowOrDestroyWhatCallsThem) {
  const Callback callback = std::get<Callback>(GetParam());
  const Action action = std::get<Action>(GetParam());
  // While it is being made, who waits for it has the endpoint: acting on that is another test's.
  if (callback == Callback::kMade && action != Action::kThrow && action != Action::kThrowStatus &&
      action != Action::kThrowFatal) {
    a_.on_made = [this](DatagramTransport& transport) {
      ++acted_;
      if (std::get<Action>(GetParam()) == Action::kReplace) return transport.SetProtocol(c_.NewProtocol());
      std::get<Action>(GetParam()) == Action::kClose ? transport.Close() : transport.Abort();
      if (std::get<Action>(GetParam()) == Action::kDropAndThrow) throw std::runtime_error("thrown");
    };
  }
  const auto hook = [this, done = std::make_shared<bool>(false)] {
    if (!std::exchange(*done, true)) Act();
  };
  switch (callback) {
    case Callback::kMade:
      if (a_.on_made == nullptr) {
        a_.on_made = [hook](DatagramTransport&) { hook(); };
      }
      break;
    case Callback::kData:
      a_.on_data = [hook](DatagramTransport&, absl::string_view) { hook(); };
      break;
    case Callback::kError:
    case Callback::kErrorInSend:
      a_.on_error = [hook](DatagramTransport&) { hook(); };
      break;
    case Callback::kPause:
      a_.on_pause = [hook](DatagramTransport&) { hook(); };
      break;
    case Callback::kResume:
      a_.on_resume = [hook](DatagramTransport&) { hook(); };
      break;
    case Callback::kLost:
      a_.on_lost = [hook](DatagramTransport&) { hook(); };
      break;
  }

  // A life in which every callback comes.
  const DatagramOptions first = {.local = "127.0.0.1:4000"};
  loop_.CreateTask(Create(a_, first_, first));
  Outlive([this] { Settle(); });
  const DatagramOptions second = {.remote = "127.0.0.1:4000"};
  loop_.CreateTask(Create(b_, second_, second));
  Outlive([this] { Settle(); });
  if (second_ != nullptr) second_->SendTo("x");
  Outlive([this] { Settle(); });
  const SocketAddress peer = second_ != nullptr ? second_->local() : Address("127.0.0.1:9");
  if (first_ != nullptr && callback == Callback::kErrorInSend) {
    Outlive([&] { first_->SendTo(std::string(65508, 'x'), peer); });
  } else if (first_ != nullptr && callback == Callback::kError) {
    os_.SetFault([this, failed = false](absl::string_view operation, int fd) mutable {
      const bool mine = first_ != nullptr && fd == first_->descriptor();
      return operation == "ReceiveFrom" && mine && !std::exchange(failed, true) ? EHOSTUNREACH : 0;
    });
    second_->SendTo("y");
    Outlive([this] { Settle(); });
    os_.SetFault(nullptr);
  }
  if (first_ != nullptr) {
    ASSERT_TRUE(first_->SetWriteBufferLimits({.high = 0}).ok());
    os_.SetFault([](absl::string_view operation, int) { return operation == "SendTo" ? EAGAIN : 0; });
    try {
      first_->SendTo("x", peer);
    } catch (const Fatal&) {
      ++fatals_;
    }
    os_.SetFault(nullptr);
  }
  Outlive([this] { Settle(); });
  if (first_ != nullptr) first_->Close();
  Outlive([this] { Settle(); });
  first_.reset();
  second_.reset();
  Outlive([this] { Settle(); });

  EXPECT_EQ(acted_, 1);
  EXPECT_EQ(a_.log.front(), "made");
  const auto losses = [](const DatagramRecording& recording) {
    int losses = 0;
    for (const std::string& entry : recording.log) losses += absl::StartsWith(entry, "lost") ? 1 : 0;
    return losses;
  };
  EXPECT_EQ(losses(a_) + losses(c_), 1);
  EXPECT_TRUE(c_.log.empty() ? a_.lost() : c_.lost());
  EXPECT_EQ(losses(b_), 1);
  EXPECT_EQ(a_.alive + b_.alive + c_.alive, 0);
  const bool throws = action == Action::kThrow || action == Action::kThrowStatus || action == Action::kDropAndThrow;
  EXPECT_THAT(reports_, SizeIs(throws ? 1 : 0));
  EXPECT_EQ(fatals_, action == Action::kThrowFatal ? 1 : 0);
  loop_.Close();
  EXPECT_THAT(os_.OpenDescriptors(), IsEmpty());
}

// ---------------------------------------------------------------------------------------------------- a bad network

// What arrives was sent, is whole, and comes from who sent it; what the network loses is never told; nothing hangs.
TEST(DatagramNetworkTest, ABadNetworkLosesDoublesAndReordersButBreaksNothing) {
  size_t delivered = 0, sent = 0, doubled = 0;
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    testing::SimKernel kernel(seed);
    kernel.SetLoopbackLink({.latency = absl::Milliseconds(1),
                            .jitter = absl::Milliseconds(5),
                            .stall_chance = 0.05,
                            .loss_chance = 0.2,
                            .duplicate_chance = 0.2});
    testing::SimOs os(kernel);
    EventLoop loop(os);
    DatagramRecording server, client;
    server.on_data = [&](DatagramTransport& transport, absl::string_view text) { transport.SendTo(text, server.from); };
    const DatagramOptions server_options = {.local = "127.0.0.1:4000"};
    const DatagramOptions client_options = {.remote = "127.0.0.1:4000"};
    auto made_server = loop.RunUntilComplete(
        CreateDatagramEndpoint(loop, [&] { return server.NewProtocol(); }, server_options));
    auto made_client = loop.RunUntilComplete(
        CreateDatagramEndpoint(loop, [&] { return client.NewProtocol(); }, client_options));
    ASSERT_TRUE(made_server.ok() && made_client.ok());
    // So that there is flow control on the way, too.
    ASSERT_EQ(os.SetSocketOption(made_client->transport->descriptor(), SOL_SOCKET, SO_SNDBUF, 2000), 0);
    std::set<std::string> texts;
    for (int i = 0; i < 50; ++i) {
      texts.insert(std::string(static_cast<size_t>(i) * 7, static_cast<char>('a' + i % 26)));
      made_client->transport->SendTo(std::string(static_cast<size_t>(i) * 7, static_cast<char>('a' + i % 26)));
    }
    loop.CallLater(absl::Seconds(60), [&] { loop.Stop(); });
    loop.RunForever();
    for (const std::string& entry : client.log) {
      if (entry == "made") continue;
      ASSERT_TRUE(texts.count(entry.substr(5)) == 1) << entry;
    }
    EXPECT_EQ(made_client->transport->write_buffer_size(), 0u);
    sent += 50;
    delivered += server.log.size() - 1;
    doubled += client.log.size() - 1 > std::set<std::string>(client.log.begin(), client.log.end()).size() - 1 ? 1 : 0;
    made_client->transport->Close();
    made_server->transport->Close();
    loop.RunUntilComplete(made_client->transport->Closed());
    loop.RunUntilComplete(made_server->transport->Closed());
    EXPECT_TRUE(client.errors.empty() && server.errors.empty());
  }
  EXPECT_GT(delivered, sent / 2);
  EXPECT_GT(doubled, 50u);
}

// ---------------------------------------------------------------------------------------------------- the real system

class RealDatagramTest : public ::testing::TestWithParam<Polling> {
 protected:
  ~RealDatagramTest() override { loop_.Close(); }
  static void SetUpTestSuite() {
    const char* const folder = ::getenv("TEST_TMPDIR");
    if (folder != nullptr) {
      ASSERT_EQ(::chdir(folder), 0);
    }
  }
  DatagramTransportPtr Create(DatagramRecording& recording, const DatagramOptions& options) {
    auto made = loop_.RunUntilComplete(
        CreateDatagramEndpoint(loop_, [&recording] { return recording.NewProtocol(); }, options));
    EXPECT_TRUE(made.ok()) << made.status();
    return made.ok() ? std::move(made->transport) : nullptr;
  }
  template <class Condition>
  void Until(Condition condition) {
    while (!condition()) loop_.RunOnceWithoutWaiting();
  }
  void End(DatagramTransportPtr& transport) {
    transport->Close();
    loop_.RunUntilComplete(transport->Closed());
    transport.reset();
    loop_.RunOnceWithoutWaiting();
  }

  EventLoop loop_{PosixOs::Get(), {.strict_polling = GetParam() == Polling::kStrict}};
  DatagramRecording a_, b_;
};

INSTANTIATE_POLLING(RealDatagramTest);

// C-DGM-01, C-DGM-02, D-5
TEST_P(RealDatagramTest, AnEndpointAnswersWhoeverAsksOverEveryFamily) {
  a_.on_data = [&](DatagramTransport& transport, absl::string_view text) {
    transport.SendTo(absl::StrCat("echo ", text), a_.from);
  };
  const std::string path = absl::StrCat("unix:dgram_", ::getpid());
  const std::string asker = absl::StrCat("unix:asker_", ::getpid());
  for (const std::string& local : {std::string("127.0.0.1:0"), std::string("[::1]:0"), path}) {
    SCOPED_TRACE(local);
    a_.log = b_.log = {};
    DatagramTransportPtr first = Create(a_, {.local = local});
    const bool unix_socket = first->local().family() == AF_UNIX;
    DatagramTransportPtr second =
        Create(b_, {.local = unix_socket ? absl::string_view(asker) : "", .remote_address = first->local()});
    second->SendTo("one");
    second->SendTo({});
    Until([&] { return b_.log.size() == 3; });
    EXPECT_THAT(b_.log, ElementsAre("made", "data echo one", "data echo "));
    End(first);
    End(second);
    EXPECT_TRUE(a_.lost() && b_.lost());
  }
  ::unlink(path.substr(5).c_str());
  ::unlink(asker.substr(5).c_str());
  EXPECT_EQ(a_.alive + b_.alive, 0);
}

// C-DGM-01, C-DGM-04
TEST_P(RealDatagramTest, ErrorsAreToldAndTheEndpointStays) {
  DatagramTransportPtr first = Create(a_, {.local = "127.0.0.1:0"});
  DatagramTransportPtr second = Create(b_, {.remote_address = first->local()});
  second->SendTo(std::string(65508, 'x'));
  EXPECT_EQ(b_.log.back(), "error Message too long");
  End(first);
  second->SendTo("nobody there");
  Until([&] { return b_.errors.size() == 2; });
  EXPECT_EQ(b_.log.back(), "error Connection refused");
  EXPECT_FALSE(second->is_closing());
  End(second);
}

// D-8: a Unix receiver that is full, and not our peer.
TEST_P(RealDatagramTest, AFullReceiverIsTriedAgain) {
  const std::string path = absl::StrCat("unix:full_", ::getpid());
  DatagramTransportPtr first = Create(a_, {.local = path});
  first->PauseReading();
  DatagramTransportPtr second = Create(b_, {.family = AF_UNIX});
  while (second->write_buffer_size() == 0) second->SendTo("x", first->local());
  for (int i = 0; i < 20; ++i) loop_.RunOnceWithoutWaiting();
  EXPECT_GT(second->write_buffer_size(), 0u);
  second->SendTo("last", first->local());
  first->ResumeReading();
  Until([&] { return a_.log.back() == "data last"; });
  EXPECT_EQ(second->write_buffer_size(), 0u);
  End(first);
  End(second);
  ::unlink(path.substr(5).c_str());
}

}  // namespace
}  // namespace troupe
