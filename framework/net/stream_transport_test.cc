// What a stream transport makes of the kernel's answers: partial sends, EAGAIN, errors of every call. On a simulated
// machine whose calls can be made to fail; what holds over every device is in transport_test.cc.
#include "troupe/net/stream_transport.h"

#include <glog/logging.h>
#include <sys/socket.h>

#include <cerrno>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/base/errors.h"
#include "troupe/base/os_error.h"
#include "troupe/loop/loop_testing.h"
#include "troupe/net/internal/log_count.h"
#include "troupe/net/internal/recording_protocol.h"

namespace troupe {
namespace {

using internal::LogCount;
using internal::Recording;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A transport and, at the other end of its socket pair, a bare descriptor.
class StreamTransportTest : public LoopTest {
 protected:
  StreamTransportTest() {
    os_.SetIoLimits({});  // this is about what becomes of single calls
    int fds[2];
    EXPECT_EQ(os_.SocketPair(AF_UNIX, SOCK_STREAM, fds), 0);
    transport_ = MakeStreamTransport(loop_, fds[0], a_.NewProtocol());
    other_ = fds[1];
    Settle();
    EXPECT_THAT(std::exchange(a_.log, {}), ElementsAre("made"));
  }
  ~StreamTransportTest() override {
    os_.SetFault(nullptr);
    os_.SetIoLimits({});
    transport_.reset();
    Settle();
    if (other_ >= 0) os_.Close(other_);
    EXPECT_EQ(a_.alive, 0);
    EXPECT_THAT(os_.OpenDescriptors(), IsEmpty());
  }
  void Settle() {
    try {
      loop_.RunForever();
      FAIL() << "the loop stopped";
    } catch (const InvalidState& stalled) {
      ASSERT_THAT(stalled.what(), HasSubstr("nothing is left"));
    }
  }
  // Calls of `operation` on the transport's descriptor give these errnos, one after the other, and then succeed; all
  // are counted.
  void Answer(std::string operation, std::vector<int> errors) {
    calls_ = 0;
    os_.SetFault(
        [this, operation = std::move(operation), errors = std::move(errors)](absl::string_view called, int fd) {
          if (called != operation || fd != transport_->descriptor()) return 0;
          const size_t index = calls_++;
          return index < errors.size() ? errors[index] : 0;
        });
  }
  // What has arrived at the other end.
  std::string Arrived() {
    std::string text;
    char buffer[4096];
    for (int64_t n; (n = os_.Recv(other_, absl::MakeSpan(buffer))) > 0;) text.append(buffer, static_cast<size_t>(n));
    return text;
  }

  Recording a_;
  TransportPtr transport_;
  int other_ = -1;
  size_t calls_ = 0;
};

INSTANTIATE_POLLING(StreamTransportTest);

// ---------------------------------------------------------------------------------------------------- reading

// C-RD-02
TEST_P(StreamTransportTest, NothingToReadAfterAllIsNoEvent) {
  Answer("Recv", {EAGAIN, EAGAIN});
  const iovec bytes = {const_cast<char*>("late"), 4};
  ASSERT_GT(os_.Send(other_, absl::MakeConstSpan(&bytes, 1)), 0);
  Settle();
  EXPECT_GE(calls_, 3u);
  EXPECT_THAT(a_.log, ElementsAre("data late"));
}

// C-RD-02, C-TRN-08: an error of the system is the reason, and no report.
TEST_P(StreamTransportTest, AFailingReadIsFatal) {
  for (const int error : {ECONNRESET, ETIMEDOUT, EIO}) {
    SCOPED_TRACE(error);
    int fds[2];
    ASSERT_EQ(os_.SocketPair(AF_UNIX, SOCK_STREAM, fds), 0);
    Recording b;
    TransportPtr transport = MakeStreamTransport(loop_, fds[0], b.NewProtocol());
    Settle();
    os_.SetFault([&](absl::string_view called, int fd) { return called == "Recv" && fd == fds[0] ? error : 0; });
    const iovec bytes = {const_cast<char*>("x"), 1};
    ASSERT_GT(os_.Send(fds[1], absl::MakeConstSpan(&bytes, 1)), 0);
    Settle();
    EXPECT_EQ(ErrnoOf(b.reason), error);
    EXPECT_THAT(b.reason.message(), HasSubstr("Fatal read error on socket transport"));
    EXPECT_EQ(b.log.size(), 2u) << "made, lost";
    EXPECT_EQ(transport->descriptor(), -1);
    transport.reset();
    Settle();
    os_.SetFault(nullptr);
    os_.Close(fds[1]);
  }
}

// C-RD-02, C-TRN-08: the same, when the connection breaks below.
TEST_P(StreamTransportTest, AResetConnectionIsLostWithItsReason) {
  os_.Reset(other_);
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("lost UNAVAILABLE"));
  EXPECT_EQ(ErrnoOf(a_.reason), ECONNRESET);
}

// ---------------------------------------------------------------------------------------------------- writing

// C-WR-01, C-WR-16
TEST_P(StreamTransportTest, OnlyTheUnsentRestIsBufferedAndWaitsForTheSocket) {
  os_.SetIoLimits({.send_bytes_max = 3});
  Answer("Send", {});
  transport_->Write("hello");
  EXPECT_EQ(calls_, 1u);
  EXPECT_EQ(transport_->write_buffer_size(), 2u);
  Settle();
  EXPECT_EQ(calls_, 2u);
  EXPECT_EQ(transport_->write_buffer_size(), 0u);
  EXPECT_EQ(Arrived(), "hello");
  transport_->Write("abc");
  EXPECT_EQ(transport_->write_buffer_size(), 0u);
  Answer("Poller.Modify", {});
  Settle();
  EXPECT_EQ(calls_, 0u) << "nobody waits to write";
}

// C-WR-02
TEST_P(StreamTransportTest, WithSomethingBufferedNothingIsSentDirectly) {
  Answer("Send", {EAGAIN});
  transport_->Write("one ");
  transport_->Write("two ");
  const absl::Span<const char> pieces[] = {{"th", 2}, {"ree ", 4}};
  transport_->Writev(pieces);
  ByteQueue queue;
  queue.Append("four");
  transport_->Write(std::move(queue));
  EXPECT_EQ(calls_, 1u);
  EXPECT_EQ(transport_->write_buffer_size(), 18u);
  Settle();
  EXPECT_EQ(calls_, 2u) << "gathered";
  EXPECT_EQ(Arrived(), "one two three four");
}

// C-WR-03: the first send, by each form of Write.
TEST_P(StreamTransportTest, AgainBuffersAllAndAnotherErrorIsFatal) {
  const absl::Span<const char> pieces[] = {{"by", 2}, {"tes", 3}};
  const auto write = [&](Transport& transport, int form) {
    ByteQueue queue;
    queue.Append("bytes");
    switch (form) {
      case 0:
        return transport.Write("bytes");
      case 1:
        return transport.Write(std::move(queue));
      default:
        return transport.Writev(pieces);
    }
  };
  for (int form = 0; form < 3; ++form) {
    SCOPED_TRACE(form);
    Answer("Send", {EAGAIN});
    write(*transport_, form);
    EXPECT_EQ(transport_->write_buffer_size(), 5u);
    EXPECT_FALSE(transport_->is_closing());
    Settle();
    EXPECT_EQ(Arrived(), "bytes");
  }
  for (int form = 0; form < 3; ++form) {
    SCOPED_TRACE(form);
    int fds[2];
    ASSERT_EQ(os_.SocketPair(AF_UNIX, SOCK_STREAM, fds), 0);
    Recording b;
    TransportPtr transport = MakeStreamTransport(loop_, fds[0], b.NewProtocol());
    Settle();
    os_.SetFault([&](absl::string_view called, int fd) { return called == "Send" && fd == fds[0] ? EPIPE : 0; });
    write(*transport, form);
    EXPECT_EQ(transport->write_buffer_size(), 0u);
    EXPECT_TRUE(transport->is_closing());
    EXPECT_THAT(b.log, ElementsAre("made")) << "never inside the call";
    Settle();
    EXPECT_THAT(b.log, ElementsAre("made", "lost UNAVAILABLE"));
    EXPECT_THAT(b.reason.message(), HasSubstr("Fatal write error on socket transport"));
    EXPECT_EQ(ErrnoOf(b.reason), EPIPE);
    transport.reset();
    Settle();
    os_.Close(fds[1]);
  }
}

// C-WR-09: dropped, and from the fifth on said.
TEST_P(StreamTransportTest, TheFifthAndEachLaterWriteAfterTheLossIsLogged) {
  Answer("Send", {EPIPE});
  transport_->Write("x");
  LogCount warnings(google::WARNING, "socket.send() raised exception.");
  for (int i = 0; i < 4; ++i) transport_->Write("y");
  transport_->Write("");
  EXPECT_EQ(warnings.count(), 0);
  transport_->Write("y");
  EXPECT_EQ(warnings.count(), 1);
  transport_->Write("y");
  EXPECT_EQ(warnings.count(), 2);
  EXPECT_EQ(calls_, 1u);
}

// C-WR-10
TEST_P(StreamTransportTest, WhenWritableTheBufferIsSentOnceAndTheRestStays) {
  Answer("Send", {EAGAIN, EAGAIN});
  os_.SetIoLimits({.send_bytes_max = 4});
  transport_->Write("0123456789");
  std::vector<size_t> left;
  while (transport_->write_buffer_size() > 0) {
    const size_t calls = calls_;
    while (calls_ == calls) loop_.RunOnceWithoutWaiting();
    left.push_back(transport_->write_buffer_size());
    EXPECT_EQ(calls_, calls + 1);
    os_.kernel().AdvanceTo(os_.Now() + absl::Seconds(1));
  }
  EXPECT_THAT(left, ElementsAre(10u, 6u, 2u, 0u)) << "the first one said EAGAIN again";
  EXPECT_EQ(Arrived(), "0123456789");
}

// C-WR-10, C-FLW-04: an error clears the buffer; nobody is told to resume.
TEST_P(StreamTransportTest, AnErrorWhileWritingClearsTheBuffer) {
  Answer("Send", {EAGAIN, ECONNRESET});
  transport_->Write(std::string(100'000, 'x'));
  EXPECT_THAT(a_.log, ElementsAre("pause"));
  Settle();
  EXPECT_EQ(transport_->write_buffer_size(), 0u);
  EXPECT_THAT(a_.log, ElementsAre("pause", "lost UNAVAILABLE"));
  EXPECT_THAT(a_.reason.message(), HasSubstr("Fatal write error on socket transport"));
}

// C-WR-12, D-10: connection_lost comes from the loop, in the callback that has sent the last byte at the earliest.
TEST_P(StreamTransportTest, TheLastBufferedByteOfAClosingTransportIsFollowedByTheLoss) {
  Answer("Send", {EAGAIN});
  transport_->Write("bye");
  transport_->Close();
  EXPECT_THAT(a_.log, IsEmpty());
  while (transport_->write_buffer_size() > 0) loop_.RunOnceWithoutWaiting();
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("lost OK"));
  EXPECT_EQ(Arrived(), "bye");
}

// C-WR-17: with a writer that is registered and no longer needed.
TEST_P(StreamTransportTest, ClosingWithAnEmptyBufferAlsoRemovesTheWriter) {
  Answer("Send", {EAGAIN});
  a_.on_resume = [](Transport& transport) { transport.Close(); };
  ASSERT_TRUE(transport_->SetWriteBufferLimits({.high = 0}).ok());
  transport_->Write("x");
  const int fd = transport_->descriptor();
  // The buffer is empty when ResumeWriting closes, and the socket is still watched for writing.
  while (transport_->write_buffer_size() > 0) loop_.RunOnceWithoutWaiting();
  Answer("Send", {});
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("pause", "resume", "lost OK"));
  EXPECT_EQ(calls_, 0u) << "nothing more is sent on " << fd;
}

// ---------------------------------------------------------------------------------------------------- life

// C-TRN-03
TEST_P(StreamTransportTest, AddressesThatAreNotAvailableAreNone) {
  int fds[2];
  ASSERT_EQ(os_.SocketPair(AF_UNIX, SOCK_STREAM, fds), 0);
  os_.SetFault([](absl::string_view called, int) { return absl::EndsWith(called, "Address") ? ENOTCONN : 0; });
  Recording b;
  TransportPtr transport = MakeStreamTransport(loop_, fds[0], b.NewProtocol());
  os_.SetFault(nullptr);
  EXPECT_EQ(transport->peer().family(), AF_UNSPEC);
  EXPECT_EQ(transport->local().family(), AF_UNSPEC);
  transport.reset();
  Settle();
  os_.Close(fds[1]);
}

// C-TRN-13, P-3
TEST_P(StreamTransportTest, DroppingAnOpenTransportWarnsAndClosesTheDescriptor) {
  LogCount warnings(google::WARNING, "unclosed transport");
  const int fd = transport_->descriptor();
  transport_.reset();
  EXPECT_EQ(warnings.count(), 1);
  Settle();
  EXPECT_THAT(os_.OpenDescriptors(), ::testing::Not(::testing::Contains(fd)));
  EXPECT_THAT(a_.log, ElementsAre("lost OK"));
}

// C-TRN-13: closing is enough; who drops it afterwards is not warned.
TEST_P(StreamTransportTest, DroppingAClosedTransportIsSilent) {
  LogCount warnings(google::WARNING, "unclosed transport");
  transport_->Close();
  transport_.reset();
  Settle();
  EXPECT_EQ(warnings.count(), 0);
  EXPECT_THAT(a_.log, ElementsAre("lost OK"));
}

// C-TRN-14
TEST_P(StreamTransportTest, TheDescriptorOfALiveTransportIsNobodyElses) {
  const int fd = transport_->descriptor();
  for (const bool reading : {true, false}) {
    try {
      reading ? loop_.AddReader(fd, [] {}) : loop_.AddWriter(fd, [] {});
      FAIL();
    } catch (const InvalidState& refused) {
      EXPECT_THAT(refused.what(), HasSubstr(absl::StrCat("File descriptor ", fd, " is used by transport ")));
    }
    EXPECT_THROW(reading ? loop_.RemoveReader(fd) : loop_.RemoveWriter(fd), InvalidState);
  }
  EXPECT_FALSE(loop_.RemoveReader(other_)) << "any other may be asked for";
  transport_->PauseReading();
  EXPECT_THROW(loop_.AddReader(fd, [] {}), InvalidState) << "watched or not";
}

// C-TRN-02, P-6: each call in turn fails, with each kind of error; the connection is lost once at most, nothing leaks.
TEST_P(StreamTransportTest, EveryCallMayFail) {
  for (const int error : {EAGAIN, ECONNRESET, EPIPE, ENOMEM, EBADF}) {
    bool injected = true;
    for (int64_t k = 1; injected; ++k) {
      SCOPED_TRACE(absl::StrCat("call ", k, " errno ", error));
      ASSERT_LT(k, 200);
      Recording b, c;
      b.keep_open = true;
      int fds[2];
      ASSERT_EQ(os_.SocketPair(AF_UNIX, SOCK_STREAM, fds), 0);
      os_.FailCall(k, error);
      TransportPtr one = MakeStreamTransport(loop_, fds[0], b.NewProtocol());
      TransportPtr two = MakeStreamTransport(loop_, fds[1], c.NewProtocol());
      one->Write(std::string(200'000, 'x'));
      two->Write("y");
      two->WriteEof();
      Settle();
      one->Close();
      Settle();
      injected = os_.fault_was_injected();
      os_.FailCall(0, 0);
      one.reset();
      two.reset();
      Settle();
      for (const Recording* end : {&b, &c}) {
        EXPECT_EQ(end->log.front(), "made");
        EXPECT_TRUE(end->lost());
        EXPECT_EQ(end->alive, 0);
        EXPECT_LE(end->Count("eof"), 1u);
        for (size_t i = 0; i + 1 < end->log.size(); ++i) EXPECT_FALSE(absl::StartsWith(end->log[i], "lost"));
      }
      if (!injected) {
        EXPECT_EQ(c.received, 200'000u);
      }
    }
  }
}

}  // namespace
}  // namespace troupe
