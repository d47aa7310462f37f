// The operations of sockets, in simulation, and over the kernel's sockets where these are the subject. Numbers in comments
// are those of the contract's rules.
#include "troupe/net/sockets.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/dump_tasks.h"
#include "troupe/async/task.h"
#include "troupe/base/errors.h"
#include "troupe/base/os_error.h"
#include "troupe/base/socket_address.h"
#include "troupe/loop/event_loop.h"
#include "troupe/loop/exception_context.h"
#include "troupe/loop/loop_testing.h"
#include "troupe/net/internal/net_testing.h"
#include "troupe/net/transport.h"
#include "troupe/os/posix_os.h"
#include "troupe/testing/sim/sim_os.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class SocketsTest : public internal::NetTest {
 protected:
  SocketsTest() {
    int fds[2] = {-1, -1};
    EXPECT_EQ(os_.SocketPair(AF_UNIX, SOCK_STREAM, fds), 0);
    ours_ = fds[0];
    theirs_ = fds[1];
  }
  ~SocketsTest() override {
    // Whatever an operation came to, it watches nothing any more.
    for (const int fd : {ours_, theirs_}) {
      if (fd >= 0) ExpectUnwatched(fd);
    }
    Settle();
    for (const int fd : {ours_, theirs_}) {
      if (fd >= 0) os_.Close(fd);
    }
  }

  void ExpectUnwatched(int fd) {
    EXPECT_FALSE(loop_.RemoveReader(fd)) << fd;
    EXPECT_FALSE(loop_.RemoveWriter(fd)) << fd;
  }
  // What the peer says and hears, without the loop.
  void Say(absl::string_view text) { SayOn(theirs_, text); }
  void SayOn(int fd, absl::string_view text) {
    const iovec piece = {const_cast<char*>(text.data()), text.size()};
    EXPECT_EQ(os_.Send(fd, absl::MakeConstSpan(&piece, 1)), static_cast<int64_t>(text.size()));
  }
  std::string Hear(int fd, size_t bytes_max = 1 << 20) {
    std::string heard(bytes_max, '\0');
    heard.resize(static_cast<size_t>(std::max<int64_t>(0, os_.Recv(fd, absl::MakeSpan(heard)))));
    return heard;
  }
  std::string Hear() { return Hear(theirs_); }
  // Fills what the kernel holds for the peer: how many bytes that were.
  size_t FillUp() {
    const std::string block(4096, 'x');
    size_t filled = 0;
    while (true) {
      const iovec piece = {const_cast<char*>(block.data()), block.size()};
      const int64_t sent = os_.Send(ours_, absl::MakeConstSpan(&piece, 1));
      if (sent < 0) return filled;
      filled += static_cast<size_t>(sent);
    }
  }
  TaskHandle<absl::StatusOr<std::string>> Receiving(int fd) { return loop_.CreateTask(SockRecv(loop_, fd, 100)); }

  int ours_ = -1;
  int theirs_ = -1;
};
INSTANTIATE_POLLING(SocketsTest);

// C-SCK-04
TEST_P(SocketsTest, WhatIsThereIsTakenWithoutWaiting) {
  const int listener = BoundSocket(Address("127.0.0.1:7000"));
  ASSERT_EQ(os_.Listen(listener, 8), 0);
  const int client = os_.Socket(AF_INET, SOCK_STREAM);
  ASSERT_EQ(os_.Connect(client, Address("127.0.0.1:7000")), -EINPROGRESS);
  Say("hello");
  Settle();
  int accepted = -1;
  const int watches = Count("Poller.Add", [&] {
    EXPECT_EQ(*loop_.RunUntilComplete(SockRecv(loop_, ours_, 3)), "hel");
    char rest[10];
    EXPECT_EQ(*loop_.RunUntilComplete(SockRecvInto(loop_, ours_, absl::MakeSpan(rest))), 2u);
    EXPECT_EQ(absl::string_view(rest, 2), "lo");
    EXPECT_TRUE(loop_.RunUntilComplete(SockSendAll(loop_, ours_, absl::string_view("bye"))).ok());
    accepted = loop_.RunUntilComplete(SockAccept(loop_, listener))->Release();
  });
  EXPECT_EQ(watches, 0);
  Settle();
  EXPECT_EQ(Hear(), "bye");
  for (const int fd : {listener, client, accepted}) EXPECT_EQ(os_.Close(fd), 0);
}

// C-SCK-04
TEST_P(SocketsTest, WhatIsNotThereIsWaitedForAlsoIfItVanishesOnTheWay) {
  const auto received = Receiving(ours_);
  Settle();
  EXPECT_FALSE(received.done());
  EXPECT_THAT(DumpTasks(loop_), HasSubstr(absl::StrCat("SockRecv on descriptor ", ours_)));
  // Ready, and then not: as when another process reads the same socket.
  int attempts = 0;
  os_.SetFault([&](absl::string_view operation, int) { return operation == "Recv" && ++attempts == 1 ? EAGAIN : 0; });
  Say("late");
  Settle();
  EXPECT_EQ(attempts, 2);
  ASSERT_TRUE(received.done());
  EXPECT_EQ(*received.result(), "late");
}

TEST_P(SocketsTest, TheEndOfTheStreamIsEmptyAndAnErrorIsItself) {
  const auto received = Receiving(ours_);
  Settle();
  os_.ShutdownWrite(theirs_);
  Settle();
  EXPECT_EQ(*received.result(), "");
  char none[1];
  EXPECT_EQ(*loop_.RunUntilComplete(SockRecvInto(loop_, ours_, absl::MakeSpan(none))), 0u);
  const auto failing = loop_.CreateTask(SockRecv(loop_, theirs_, 1));
  Settle();
  os_.Reset(theirs_);
  Settle();
  EXPECT_EQ(ErrnoOf(failing.result().status()), ECONNRESET);
  EXPECT_THAT(failing.result().status().message(), HasSubstr("SockRecv"));
  EXPECT_EQ(ErrnoOf(loop_.RunUntilComplete(SockRecv(loop_, 999, 1)).status()), EBADF);
}

// C-SCK-05
TEST_P(SocketsTest, SendAllGoesOnOverPartialSends) {
  os_.SetIoLimits({.send_bytes_max = 5000, .random = true});
  std::string text;
  for (int i = 0; i < 200'000; ++i) absl::StrAppend(&text, i, ",");
  const auto sent = loop_.CreateTask(SockSendAll(loop_, ours_, text));
  std::string heard;
  while (!sent.done()) {
    Settle();
    const std::string more = Hear(theirs_, 30'000);
    ASSERT_FALSE(more.empty()) << "nothing more comes, and it is not done";
    heard += more;
  }
  EXPECT_TRUE(sent.result().ok());
  for (std::string more = Hear(); !more.empty(); more = Hear()) heard += more;
  EXPECT_EQ(heard, text);
}

// C-SCK-05
TEST_P(SocketsTest, NothingToSendIsDoneAtOnce) {
  FillUp();
  EXPECT_EQ(Count("Send", [&] { EXPECT_TRUE(loop_.RunUntilComplete(SockSendAll(loop_, ours_, {})).ok()); }), 0);
}

// C-SCK-05, P-1
TEST_P(SocketsTest, APeerThatLeavesWhileSendingIsAnError) {
  FillUp();
  const auto sent = loop_.CreateTask(SockSendAll(loop_, ours_, absl::string_view("more")));
  Settle();
  EXPECT_FALSE(sent.done());
  os_.Close(std::exchange(theirs_, -1));
  Settle();
  ASSERT_TRUE(sent.done());
  EXPECT_THAT(ErrnoOf(sent.result()), ::testing::AnyOf(EPIPE, ECONNRESET));
}

// C-SCK-07
TEST_P(SocketsTest, ConnectWaitsAndThenAsksTheSocketHowItWent) {
  os_.kernel().SetLoopbackLink({.latency = absl::Milliseconds(5)});
  ServeOn({"127.0.0.1:7000"});
  const int fd = os_.Socket(AF_INET, SOCK_STREAM);
  EXPECT_TRUE(loop_.RunUntilComplete(SockConnect(loop_, fd, Address("127.0.0.1:7000"))).ok());
  EXPECT_EQ(loop_.Time() - MonotonicTime(), absl::Milliseconds(10)) << "there and back";
  SocketAddress peer;
  EXPECT_EQ(os_.PeerAddress(fd, &peer), 0);
  EXPECT_EQ(peer, Address("127.0.0.1:7000"));
  EXPECT_EQ(ErrnoOf(loop_.RunUntilComplete(SockConnect(loop_, fd, Address("127.0.0.1:7000")))), EISCONN);
  ExpectUnwatched(fd);
  os_.Close(fd);
  const int refused = os_.Socket(AF_INET, SOCK_STREAM);
  const absl::Status status = loop_.RunUntilComplete(SockConnect(loop_, refused, Address("127.0.0.1:7999")));
  EXPECT_EQ(ErrnoOf(status), ECONNREFUSED);
  EXPECT_EQ(status.message(), "connect 127.0.0.1:7999: Connection refused");
  ExpectUnwatched(refused);
  os_.Close(refused);
}

// C-SCK-09
TEST_P(SocketsTest, ConnectResolvesNamesInTheFamilyOfItsSocket) {
  ServeOn({"127.0.0.1:7000", "[::1]:7000", "unix-abstract:s"});
  os_.kernel().SetName("kv.test", {Address("[::1]:0"), Address("127.0.0.1:0")});
  for (const int family : {AF_INET, AF_INET6}) {
    const int fd = os_.Socket(family, SOCK_STREAM);
    EXPECT_TRUE(loop_.RunUntilComplete(SockConnect(loop_, fd, "kv.test:7000")).ok());
    SocketAddress peer;
    EXPECT_EQ(os_.PeerAddress(fd, &peer), 0);
    EXPECT_EQ(peer.family(), family);
    EXPECT_EQ(loop_.RunUntilComplete(SockConnect(loop_, fd, "nowhere.test:1")).code(), absl::StatusCode::kNotFound);
    EXPECT_EQ(loop_.RunUntilComplete(SockConnect(loop_, fd, "no port")).code(), absl::StatusCode::kInvalidArgument);
    os_.Close(fd);
  }
  const int local = os_.Socket(AF_UNIX, SOCK_STREAM);
  EXPECT_EQ(loop_.RunUntilComplete(SockConnect(loop_, local, "kv.test:7000")).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(loop_.RunUntilComplete(SockConnect(loop_, local, "unix-abstract:s")).ok());
  os_.Close(local);
}

// C-SCK-04, C-SCK-10
TEST_P(SocketsTest, AcceptGivesADescriptorThatCanBeUsedAtOnceAndThePeersAddress) {
  const int listener = BoundSocket(Address("127.0.0.1:7000"));
  ASSERT_EQ(os_.Listen(listener, 8), 0);
  const auto accepting = loop_.CreateTask(SockAccept(loop_, listener));
  Settle();
  EXPECT_FALSE(accepting.done());
  const int client = os_.Socket(AF_INET, SOCK_STREAM);
  ASSERT_TRUE(loop_.RunUntilComplete(SockConnect(loop_, client, Address("127.0.0.1:7000"))).ok());
  Settle();
  ASSERT_TRUE(accepting.done());
  const Accepted& accepted = *accepting.result();
  EXPECT_EQ(os_.IsNonBlocking(accepted.fd()), 1);
  SocketAddress local;
  ASSERT_EQ(os_.LocalAddress(client, &local), 0);
  EXPECT_EQ(accepted.peer(), local);
  const auto answer = Receiving(client);
  ASSERT_TRUE(loop_.RunUntilComplete(SockSendAll(loop_, accepted.fd(), absl::string_view("hi"))).ok());
  Settle();
  EXPECT_EQ(*answer.result(), "hi");
  ExpectUnwatched(accepted.fd());
  for (const int fd : {listener, client}) {
    ExpectUnwatched(fd);
    os_.Close(fd);
  }
}

// As of a task whose outcome nobody waits for any more.
TEST_P(SocketsTest, WhatWasAcceptedIsClosedUnlessSomebodyTakesIt) {
  const int listener = BoundSocket(Address("127.0.0.1:7000"));
  ASSERT_EQ(os_.Listen(listener, 8), 0);
  const int clients[] = {os_.Socket(AF_INET, SOCK_STREAM), os_.Socket(AF_INET, SOCK_STREAM)};
  const auto accept = [&](int client) {
    auto accepting = loop_.CreateTask(SockAccept(loop_, listener));
    EXPECT_EQ(os_.Connect(client, Address("127.0.0.1:7000")), -EINPROGRESS);
    Settle();
    return accepting;
  };
  int fd = -1;
  {
    const auto dropped = accept(clients[0]);
    fd = dropped.result()->fd();
    EXPECT_EQ(os_.IsNonBlocking(fd), 1);
  }
  EXPECT_EQ(os_.IsNonBlocking(fd), -EBADF);
  {
    Future<absl::StatusOr<Accepted>> accepting = accept(clients[1]);
    Accepted accepted = *loop_.RunUntilComplete(std::move(accepting));
    fd = accepted.fd();
    Accepted moved = std::move(accepted);
    accepted = Accepted();
    EXPECT_EQ(moved.Release(), fd);
    EXPECT_EQ(moved.fd(), -1);
  }
  EXPECT_EQ(os_.IsNonBlocking(fd), 1);
  for (const int open : {fd, listener, clients[0], clients[1]}) os_.Close(open);
}

// C-TRN-14
TEST_P(SocketsTest, TheDescriptorOfATransportIsRefused) {
  ServeOn({"127.0.0.1:7000"});
  const int fd = Connect().descriptor();
  try {
    loop_.RunUntilComplete(SockRecv(loop_, fd, 1)).IgnoreError();
    FAIL() << "it was accepted";
  } catch (const InvalidState& error) {
    EXPECT_THAT(error.what(), HasSubstr(absl::StrCat("File descriptor ", fd, " is used by transport")));
  }
}

// C-SCK-01: what reads and what writes do not disturb each other.
TEST_P(SocketsTest, OneDescriptorIsReceivedFromAndSentToAtOnce) {
  const size_t filled = FillUp();
  const auto received = Receiving(ours_);
  const auto sent = loop_.CreateTask(SockSendAll(loop_, ours_, absl::string_view("tail")));
  Settle();
  EXPECT_FALSE(received.done() || sent.done());
  Say("in");
  Settle();
  EXPECT_EQ(*received.result(), "in");
  EXPECT_FALSE(sent.done());
  std::string heard;
  while (heard.size() < filled + 4) {
    heard += Hear();
    Settle();
  }
  EXPECT_TRUE(sent.result().ok());
  EXPECT_EQ(heard.substr(filled), "tail");
}

// As asyncio: the later one has the watch.
TEST_P(SocketsTest, ASecondOfTheSameDirectionTakesTheWatchOver) {
  const auto first = Receiving(ours_);
  const auto second = Receiving(ours_);
  Settle();
  Say("one");
  Settle();
  EXPECT_FALSE(first.done());
  ASSERT_TRUE(second.done());
  EXPECT_EQ(*second.result(), "one");
  // The end of the one that lost the watch leaves that of its successor alone.
  const auto third = Receiving(ours_);
  Settle();
  first.Cancel();
  Settle();
  EXPECT_TRUE(first.cancelled());
  Say("two");
  Settle();
  EXPECT_EQ(*third.result(), "two");
}

TEST_P(SocketsTest, AReaderOfTheUsersTakesTheWatchOverToo) {
  const auto received = Receiving(ours_);
  Settle();
  int read = 0;
  loop_.AddReader(ours_, [&] {
    ++read;
    Hear(ours_);
  });
  Say("x");
  Settle();
  EXPECT_EQ(read, 1);
  EXPECT_FALSE(received.done());
  received.Cancel();
  Settle();
  EXPECT_TRUE(loop_.RemoveReader(ours_)) << "it went with the operation that it had replaced";
}

TEST_P(SocketsTest, CancelledWhileItWaitsItWatchesNothing) {
  FillUp();
  os_.kernel().SetLoopbackLink({.latency = absl::Seconds(1)});
  const int listener = BoundSocket(Address("127.0.0.1:7000"));
  ASSERT_EQ(os_.Listen(listener, 8), 0);
  const int client = os_.Socket(AF_INET, SOCK_STREAM);
  const auto receiving = Receiving(ours_);
  const auto sending = loop_.CreateTask(SockSendAll(loop_, ours_, absl::string_view("more")));
  const auto accepting = loop_.CreateTask(SockAccept(loop_, listener));
  const auto connecting = loop_.CreateTask(SockConnect(loop_, client, Address("127.0.0.1:7000")));
  RunReady();
  receiving.Cancel();
  sending.Cancel();
  accepting.Cancel();
  connecting.Cancel();
  RunReady();
  EXPECT_TRUE(receiving.cancelled() && sending.cancelled() && accepting.cancelled() && connecting.cancelled());
  for (const int fd : {ours_, listener, client}) {
    ExpectUnwatched(fd);
    EXPECT_EQ(loop_.poller().Add(fd, kReadable, nullptr), 0) << "still known to the poller";
    loop_.poller().Remove(fd);
  }
  Settle();
  for (const int fd : {listener, client}) os_.Close(fd);
}

// Between readiness and the task's step nothing has been taken that the cancellation could drop.
TEST_P(SocketsTest, CancelledWhenItIsReadyItLosesNothing) {
  const int listener = BoundSocket(Address("127.0.0.1:7000"));
  ASSERT_EQ(os_.Listen(listener, 8), 0);
  const auto receiving = Receiving(ours_);
  const auto accepting = loop_.CreateTask(SockAccept(loop_, listener));
  Settle();
  const int client = os_.Socket(AF_INET, SOCK_STREAM);
  ASSERT_EQ(os_.Connect(client, Address("127.0.0.1:7000")), -EINPROGRESS);
  Say("kept");
  // Cancelled by what becomes ready in the same moment, at every place that this can have in a batch.
  for (int i = 0; !receiving.done() || !accepting.done(); ++i) {
    ASSERT_LT(i, 20);
    if (DumpTasks(loop_).find("queued to run") != std::string::npos) {
      receiving.Cancel();
      accepting.Cancel();
    }
    if (!loop_.RunOnceWithoutWaiting() && loop_.NextWakeup().is_infinite()) {
      os_.kernel().AdvanceTo(os_.kernel().NextEventTime());
    }
  }
  if (receiving.cancelled()) {
    EXPECT_EQ(Hear(ours_), "kept");
  }
  if (accepting.cancelled()) {
    const int accepted = os_.Accept(listener, nullptr);
    EXPECT_GE(accepted, 0);
    os_.Close(accepted);
  } else {
    EXPECT_GE(accepting.result()->fd(), 0);
  }
  Settle();
  for (const int fd : {listener, client}) os_.Close(fd);
}

TEST_P(SocketsTest, ALoopThatClosesEndsWhatWaits) {
  EventLoop other(os_);
  std::vector<std::string> reports;
  other.SetExceptionHandler([&](EventLoop&, const ExceptionContext& report) { reports.push_back(report.message); });
  const auto receiving = other.CreateTask(SockRecv(other, ours_, 1));
  other.RunOnceWithoutWaiting();
  other.Close();
  EXPECT_TRUE(receiving.cancelled());
  EXPECT_THAT(reports, ElementsAre("Task was destroyed but it is pending!"));
}

// ---------------------------------------------------------------------------------------------------- real sockets

class RealSocketOperationsTest : public ::testing::Test {
 protected:
  ~RealSocketOperationsTest() override {
    for (const int fd : fds_) ::close(fd);
    loop_.Close();
  }
  int Made(int fd) {
    EXPECT_GE(fd, 0);
    fds_.push_back(fd);
    return fd;
  }
  int Datagrams() {
    const int fd = Made(loop_.os().Socket(AF_INET, SOCK_DGRAM));
    EXPECT_EQ(loop_.os().Bind(fd, *SocketAddress::Parse("127.0.0.1:0")), 0);
    return fd;
  }
  SocketAddress AddressOf(int fd) {
    SocketAddress address;
    EXPECT_EQ(loop_.os().LocalAddress(fd, &address), 0);
    return address;
  }

  EventLoop loop_{PosixOs::Get()};
  std::vector<int> fds_;
};

// C-DBG-05
TEST_F(RealSocketOperationsTest, InDebugModeASocketThatWouldBlockIsRefused) {
  int pair[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  const int blocking = Made(pair[0]);
  Made(pair[1]);
  ASSERT_EQ(::write(pair[1], "abc", 3), 3);
  EXPECT_EQ(*loop_.RunUntilComplete(SockRecv(loop_, blocking, 1)), "a") << "not in debug mode";
  loop_.SetDebug(true);
  char buffer[1];
  const SocketAddress address = *SocketAddress::Parse("127.0.0.1:1");
  for (const absl::Status& status :
       {loop_.RunUntilComplete(SockRecv(loop_, blocking, 1)).status(),
        loop_.RunUntilComplete(SockRecvInto(loop_, blocking, absl::MakeSpan(buffer))).status(),
        loop_.RunUntilComplete(SockRecvFrom(loop_, blocking, absl::MakeSpan(buffer))).status(),
        loop_.RunUntilComplete(SockSendAll(loop_, blocking, absl::string_view("x"))),
        loop_.RunUntilComplete(SockSendTo(loop_, blocking, absl::string_view("x"), address)),
        loop_.RunUntilComplete(SockConnect(loop_, blocking, address)),
        loop_.RunUntilComplete(SockAccept(loop_, blocking)).status()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(status.message(), HasSubstr("the socket must be non-blocking"));
  }
  ASSERT_EQ(loop_.os().AdoptSocket(blocking, SOCK_STREAM), AF_UNIX);
  EXPECT_EQ(*loop_.RunUntilComplete(SockRecv(loop_, blocking, 1)), "b");
}

TEST_F(RealSocketOperationsTest, DatagramsComeOneByOneWithTheirSenders) {
  const int receiver = Datagrams(), sender = Datagrams();
  char buffer[4];
  const auto waiting = loop_.CreateTask(SockRecvFrom(loop_, receiver, absl::MakeSpan(buffer)));
  const auto send = [&](absl::string_view text) {
    return loop_.RunUntilComplete(SockSendTo(loop_, sender, text, AddressOf(receiver)));
  };
  loop_.RunOnceWithoutWaiting();
  EXPECT_FALSE(waiting.done());
  ASSERT_TRUE(send("one").ok());
  ASSERT_TRUE(send("").ok());
  ASSERT_TRUE(send("longer").ok());
  const ReceivedFrom first = *loop_.RunUntilComplete(waiting);
  EXPECT_EQ(absl::string_view(buffer, first.bytes), "one");
  EXPECT_EQ(first.from, AddressOf(sender));
  EXPECT_EQ(loop_.RunUntilComplete(SockRecvFrom(loop_, receiver, absl::MakeSpan(buffer)))->bytes, 0u);
  EXPECT_EQ(loop_.RunUntilComplete(SockRecvFrom(loop_, receiver, absl::MakeSpan(buffer)))->bytes, 6u) << "cut, and told so";
  EXPECT_EQ(absl::string_view(buffer, 4), "long");
  const std::string huge(70'000, 'x');
  EXPECT_EQ(ErrnoOf(send(huge)), EMSGSIZE);
}

// C-SCK-04, C-SCK-07, C-SCK-10
TEST_F(RealSocketOperationsTest, ConnectAcceptSendReceive) {
  Os& os = loop_.os();
  const int listener = Made(os.Socket(AF_INET, SOCK_STREAM));
  ASSERT_EQ(os.Bind(listener, *SocketAddress::Parse("127.0.0.1:0")), 0);
  ASSERT_EQ(os.Listen(listener, 8), 0);
  const int client = Made(os.Socket(AF_INET, SOCK_STREAM));
  const auto accepting = loop_.CreateTask(SockAccept(loop_, listener));
  ASSERT_TRUE(loop_.RunUntilComplete(SockConnect(loop_, client, AddressOf(listener).ToString())).ok());
  Accepted accepted = *loop_.RunUntilComplete(Future<absl::StatusOr<Accepted>>(accepting));
  EXPECT_EQ(os.IsNonBlocking(accepted.fd()), 1);
  EXPECT_EQ(accepted.peer(), AddressOf(client));
  const std::string text(3'000'000, 'x');
  const auto sending = loop_.CreateTask(SockSendAll(loop_, client, text));
  size_t received = 0;
  while (received < text.size()) {
    const absl::StatusOr<std::string> more = loop_.RunUntilComplete(SockRecv(loop_, accepted.fd(), 100'000));
    ASSERT_TRUE(more.ok() && !more->empty());
    received += more->size();
  }
  EXPECT_TRUE(loop_.RunUntilComplete(sending).ok());
  const int refused = Made(os.Socket(AF_INET, SOCK_STREAM));
  const SocketAddress gone = AddressOf(listener);
  os.Close(listener);
  fds_.erase(fds_.begin());
  EXPECT_EQ(ErrnoOf(loop_.RunUntilComplete(SockConnect(loop_, refused, gone))), ECONNREFUSED);
}

}  // namespace
}  // namespace troupe
