// What every Os promises of datagram sockets. See os_contract.h.
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/base/socket_address.h"
#include "troupe/os/os.h"
#include "troupe/testing/os_contract/os_contract.h"

namespace troupe {
namespace {

using ::testing::AnyOf;
using ::testing::ElementsAre;
using ::testing::Lt;

constexpr uint32_t kBoth = kReadable | kWritable;

class OsDatagramContract : public OsContract {
 protected:
  struct Received {
    int64_t result;
    std::string text;
    SocketAddress from;
  };

  int DatagramSocket(int family) {
    const int fd = os().Socket(family, SOCK_DGRAM);
    EXPECT_GE(fd, 0);
    return fd;
  }
  int BoundTo(const SocketAddress& address) {
    const int fd = DatagramSocket(address.family());
    EXPECT_EQ(os().Bind(fd, address), 0) << address.ToString();
    return fd;
  }
  int BoundTo(absl::string_view address) { return BoundTo(Address(address)); }

  int64_t SendTo(int fd, absl::string_view text, const SocketAddress& to) {
    return os().SendTo(fd, absl::MakeConstSpan(text.data(), text.size()), &to);
  }
  int64_t SendToPeer(int fd, absl::string_view text) {
    return os().SendTo(fd, absl::MakeConstSpan(text.data(), text.size()), nullptr);
  }
  // What has arrived.
  Received TakeNow(int fd, size_t bytes_max = 1 << 16) {
    std::string buffer(bytes_max, '\0');
    Received received;
    received.result = os().ReceiveFrom(fd, absl::MakeSpan(&buffer[0], buffer.size()), &received.from);
    if (received.result > 0) received.text = buffer.substr(0, static_cast<size_t>(received.result));
    return received;
  }
  // What must arrive.
  Received Take(int fd, size_t bytes_max = 1 << 16) {
    EXPECT_EQ(Ready(fd, kReadable), uint32_t{kReadable});
    return TakeNow(fd, bytes_max);
  }
  // A port of UDP that nobody has: just given back.
  SocketAddress FreeAddress(absl::string_view ip) {
    const int fd = BoundTo(absl::StrCat(ip, ":0"));
    const SocketAddress address = LocalAddress(fd);
    Close({fd});
    return address;
  }
  // Two sockets that are bound, of every family.
  template <class Test>
  void OnEveryFamily(Test test) {
    const std::string first_path = TempPath("first"), second_path = TempPath("second");
    const std::pair<SocketAddress, SocketAddress> kinds[] = {
        {Address("127.0.0.1:0"), Address("127.0.0.1:0")},
        {Address("[::1]:0"), Address("[::1]:0")},
        {*SocketAddress::FromUnixPath(first_path), *SocketAddress::FromUnixPath(second_path)},
        {AbstractName("first"), AbstractName("second")}};
    for (const auto& [first, second] : kinds) {
      SCOPED_TRACE(first.ToString());
      const int a = BoundTo(first), b = BoundTo(second);
      test(a, b);
      Close({a, b});
    }
  }
};

INSTANTIATE_OS_CONTRACT(OsDatagramContract);

// ---- what travels

TEST_P(OsDatagramContract, ADatagramArrivesWholeWithItsSender) {
  OnEveryFamily([&](int a, int b) {
    EXPECT_EQ(TakeNow(b).result, -EAGAIN);
    EXPECT_EQ(Ready(b, kBoth), uint32_t{kWritable});
    EXPECT_EQ(SendTo(a, "one", LocalAddress(b)), 3);
    EXPECT_EQ(SendTo(a, "", LocalAddress(b)), 0);
    EXPECT_EQ(SendTo(a, std::string(1400, 'x'), LocalAddress(b)), 1400);
    const Received first = Take(b), second = Take(b), third = Take(b);
    EXPECT_EQ(first.text, "one");
    EXPECT_EQ(first.from, LocalAddress(a));
    EXPECT_EQ(second.result, 0);
    EXPECT_EQ(second.from, LocalAddress(a));
    EXPECT_EQ(third.text, std::string(1400, 'x'));
    EXPECT_EQ(TakeNow(b).result, -EAGAIN);
  });
}

TEST_P(OsDatagramContract, OneThatIsCutTellsItsSizeAndTheRestIsGone) {
  OnEveryFamily([&](int a, int b) {
    EXPECT_EQ(SendTo(a, "0123456789", LocalAddress(b)), 10);
    EXPECT_EQ(SendTo(a, "next", LocalAddress(b)), 4);
    const Received cut = Take(b, 4);
    EXPECT_EQ(cut.result, 10);
    EXPECT_EQ(Take(b).text, "next");
  });
}

TEST_P(OsDatagramContract, AnUnnamedUnixSocketIsASenderWithoutAddress) {
  const int receiver = BoundTo(AbstractName("receiver"));
  const int sender = DatagramSocket(AF_UNIX);
  EXPECT_EQ(SendTo(sender, "x", LocalAddress(receiver)), 1);
  EXPECT_EQ(Take(receiver).from.family(), AF_UNSPEC);
  Close({receiver, sender});
}

TEST_P(OsDatagramContract, AnUnboundUdpSocketGetsAPortWhenItSends) {
  const int receiver = BoundTo("127.0.0.1:0");
  const int sender = DatagramSocket(AF_INET);
  EXPECT_EQ(LocalAddress(sender).port(), 0);
  EXPECT_EQ(SendTo(sender, "x", LocalAddress(receiver)), 1);
  const Received received = Take(receiver);
  EXPECT_EQ(received.from.host(), "127.0.0.1");
  EXPECT_NE(received.from.port(), 0);
  EXPECT_EQ(received.from.port(), LocalAddress(sender).port());
  EXPECT_EQ(SendTo(receiver, "back", received.from), 4);
  EXPECT_EQ(Take(sender).text, "back");
  Close({receiver, sender});
}

TEST_P(OsDatagramContract, ADualStackSocketTalksToBothFamilies) {
  const int server = BoundTo("[::]:0");
  for (const char* const ip : {"127.0.0.1", "::1"}) {
    const SocketAddress to = *SocketAddress::FromIp(ip, LocalAddress(server).port());
    const int client = DatagramSocket(to.family());
    EXPECT_EQ(SendTo(client, "ask", to), 3);
    const Received asked = Take(server);
    EXPECT_EQ(asked.from.family(), AF_INET6);
    EXPECT_EQ(SendTo(server, "answer", asked.from), 6);
    const Received answered = Take(client);
    EXPECT_EQ(answered.text, "answer");
    EXPECT_EQ(answered.from, to);
    Close({client});
  }
  Close({server});
}

TEST_P(OsDatagramContract, WhatIsTooLargeIsRefused) {
  const int a = BoundTo("127.0.0.1:0"), b = BoundTo("[::1]:0"), c = BoundTo(AbstractName("large"));
  EXPECT_EQ(SendTo(a, std::string(65507, 'x'), LocalAddress(a)), 65507);
  EXPECT_EQ(SendTo(a, std::string(65508, 'x'), LocalAddress(a)), -EMSGSIZE);
  EXPECT_EQ(SendTo(b, std::string(65527, 'x'), LocalAddress(b)), 65527);
  EXPECT_EQ(SendTo(b, std::string(65528, 'x'), LocalAddress(b)), -EMSGSIZE);
  EXPECT_EQ(SendTo(c, std::string(4 << 20, 'x'), LocalAddress(c)), -EMSGSIZE);
  EXPECT_EQ(Take(a).result, 65507);
  EXPECT_EQ(Take(b).result, 65527);
  Close({a, b, c});
}

TEST_P(OsDatagramContract, StreamCallsAreRefusedAndPlainOnesWork) {
  OnEveryFamily([&](int a, int b) {
    EXPECT_EQ(os().Listen(a, 1), -EOPNOTSUPP);
    EXPECT_EQ(os().Accept(a, nullptr), -EOPNOTSUPP);
    EXPECT_EQ(os().AdoptSocket(a, SOCK_STREAM), -ESOCKTNOSUPPORT);
    EXPECT_EQ(os().AdoptSocket(a, SOCK_DGRAM), LocalAddress(a).family());
    ASSERT_EQ(os().Connect(a, LocalAddress(b)), 0);
    EXPECT_EQ(Send(a, "plain"), 5);
    EXPECT_EQ(RecvText(b, 5), "plain");
    EXPECT_EQ(os().ShutdownWrite(a), 0);
    EXPECT_EQ(Send(a, "more"), -EPIPE);
  });
}

// ---- names

TEST_P(OsDatagramContract, APortBelongsToOneSocketAndToNoStream) {
  const int first = BoundTo("127.0.0.1:0");
  const int second = DatagramSocket(AF_INET);
  EXPECT_EQ(os().Bind(second, LocalAddress(first)), -EADDRINUSE);
  EXPECT_EQ(os().Bind(first, Address("127.0.0.1:0")), -EINVAL);
  EXPECT_EQ(os().Bind(second, Address("[::1]:0")), -EAFNOSUPPORT);
  EXPECT_EQ(os().Bind(second, Address("192.0.2.1:0")), -EADDRNOTAVAIL);
  Close({first, second});
}

TEST_P(OsDatagramContract, ReusePortSharesAPort) {
  const int first = DatagramSocket(AF_INET), second = DatagramSocket(AF_INET), sender = DatagramSocket(AF_INET);
  ASSERT_EQ(os().SetSocketOption(first, SOL_SOCKET, SO_REUSEPORT, 1), 0);
  ASSERT_EQ(os().SetSocketOption(second, SOL_SOCKET, SO_REUSEPORT, 1), 0);
  ASSERT_EQ(os().Bind(first, Address("127.0.0.1:0")), 0);
  EXPECT_EQ(os().Bind(second, LocalAddress(first)), 0);
  for (int i = 0; i < 8; ++i) EXPECT_EQ(SendTo(sender, "x", LocalAddress(first)), 1);
  Settle();
  // One flow goes to one of them.
  int got[2] = {};
  while (TakeNow(first).result >= 0) ++got[0];
  while (TakeNow(second).result >= 0) ++got[1];
  EXPECT_THAT(got, AnyOf(ElementsAre(8, 0), ElementsAre(0, 8)));
  Close({first, second, sender});
}

TEST_P(OsDatagramContract, UnixNamesThatNobodyHasAreRefused) {
  const std::string path = TempPath("gone");
  const SocketAddress address = *SocketAddress::FromUnixPath(path);
  const int sender = DatagramSocket(AF_UNIX);
  EXPECT_EQ(SendTo(sender, "x", address), -ENOENT);
  EXPECT_EQ(os().Connect(sender, address), -ENOENT);
  const int receiver = BoundTo(address);
  EXPECT_EQ(SendTo(sender, "x", address), 1);
  EXPECT_TRUE(os().IsSocketFile(path));
  EXPECT_EQ(SendTo(sender, "x", AbstractName("nobody")), -ECONNREFUSED);
  Close({receiver});
  EXPECT_EQ(SendTo(sender, "x", address), -ECONNREFUSED);
  EXPECT_EQ(os().Unlink(path), 0);
  const int stream = os().Socket(AF_UNIX, SOCK_STREAM);
  ASSERT_EQ(os().Bind(stream, address), 0);
  EXPECT_EQ(SendTo(sender, "x", address), -EPROTOTYPE);
  EXPECT_EQ(os().Connect(sender, address), -EPROTOTYPE);
  Close({stream, sender});
}

// ---- connected

TEST_P(OsDatagramContract, AConnectedSocketSendsToItsPeerAndHearsNobodyElse) {
  const int a = BoundTo("127.0.0.1:0"), b = BoundTo("127.0.0.1:0"), other = BoundTo("127.0.0.1:0");
  EXPECT_EQ(SendToPeer(a, "x"), -EDESTADDRREQ);
  SocketAddress peer;
  EXPECT_EQ(os().PeerAddress(a, &peer), -ENOTCONN);
  ASSERT_EQ(os().Connect(a, LocalAddress(b)), 0);
  EXPECT_EQ(PeerAddress(a), LocalAddress(b));
  EXPECT_EQ(SendTo(other, "from another", LocalAddress(a)), 12);
  EXPECT_EQ(SendToPeer(a, "ask"), 3);
  const Received asked = Take(b);
  EXPECT_EQ(asked.from, LocalAddress(a));
  EXPECT_EQ(SendTo(b, "answer", asked.from), 6);
  EXPECT_EQ(Take(a).text, "answer");
  Settle();
  EXPECT_EQ(TakeNow(a).result, -EAGAIN);
  // Another destination may be given, and it may be connected again.
  EXPECT_EQ(SendTo(a, "elsewhere", LocalAddress(other)), 9);
  EXPECT_EQ(Take(other).from, LocalAddress(a));
  ASSERT_EQ(os().Connect(a, LocalAddress(other)), 0);
  EXPECT_EQ(SendToPeer(a, "again"), 5);
  EXPECT_EQ(Take(other).text, "again");
  Close({a, b, other});
}

TEST_P(OsDatagramContract, AConnectedUnixSocketIsItsPeersOnly) {
  const int a = BoundTo(AbstractName("a")), b = BoundTo(AbstractName("b")), other = DatagramSocket(AF_UNIX);
  EXPECT_EQ(SendToPeer(a, "x"), -ENOTCONN);
  ASSERT_EQ(os().Connect(a, LocalAddress(b)), 0);
  EXPECT_EQ(SendToPeer(a, "ask"), 3);
  EXPECT_EQ(Take(b).from, LocalAddress(a));
  EXPECT_EQ(SendTo(other, "x", LocalAddress(a)), -EPERM);
  EXPECT_EQ(SendTo(b, "answer", LocalAddress(a)), 6);
  EXPECT_EQ(Take(a).text, "answer");
  Close({b});
  EXPECT_EQ(SendToPeer(a, "x"), -ECONNREFUSED);
  EXPECT_EQ(SendToPeer(a, "x"), -ENOTCONN);
  Close({a, other});
}

TEST_P(OsDatagramContract, APairIsConnected) {
  int fds[2];
  ASSERT_EQ(os().SocketPair(AF_UNIX, SOCK_DGRAM, fds), 0);
  EXPECT_EQ(SendToPeer(fds[0], "there"), 5);
  EXPECT_EQ(SendToPeer(fds[1], ""), 0);
  EXPECT_EQ(Take(fds[1]).text, "there");
  EXPECT_EQ(Take(fds[0]).result, 0);
  Close({fds[1]});
  EXPECT_EQ(SendToPeer(fds[0], "x"), -ECONNREFUSED);
  Close({fds[0]});
}

TEST_P(OsDatagramContract, WhereNobodyListensAConnectedSocketIsToldOnce) {
  const int connected = DatagramSocket(AF_INET), unconnected = DatagramSocket(AF_INET);
  const SocketAddress nobody = FreeAddress("127.0.0.1");
  ASSERT_EQ(os().Connect(connected, nobody), 0);
  for (const bool by_receiving : {true, false}) {
    SCOPED_TRACE(by_receiving);
    EXPECT_EQ(SendToPeer(connected, "x"), 1);
    // An error is readiness for both.
    EXPECT_EQ(Ready(connected, kReadable), kBoth);
    EXPECT_EQ(by_receiving ? TakeNow(connected).result : SendToPeer(connected, "y"), -ECONNREFUSED);
    Settle();
    EXPECT_EQ(TakeNow(connected).result, -EAGAIN);
  }
  EXPECT_EQ(SendToPeer(connected, "x"), 1);
  EXPECT_EQ(Ready(connected, kReadable), kBoth);
  EXPECT_EQ(os().SocketError(connected), ECONNREFUSED);
  EXPECT_EQ(Ready(connected, kBoth), uint32_t{kWritable});

  EXPECT_EQ(SendTo(unconnected, "x", nobody), 1);
  Settle();
  EXPECT_EQ(SendTo(unconnected, "x", nobody), 1);
  EXPECT_EQ(TakeNow(unconnected).result, -EAGAIN);
  Close({connected, unconnected});
}

// ---- room

TEST_P(OsDatagramContract, WhatAReceiverHasNoRoomForIsLostWithoutAWord) {
  const int receiver = BoundTo("127.0.0.1:0"), sender = DatagramSocket(AF_INET);
  ASSERT_EQ(os().SetSocketOption(receiver, SOL_SOCKET, SO_RCVBUF, 4096), 0);
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(SendTo(sender, absl::StrCat(i, std::string(1000, 'x')), LocalAddress(receiver)), i < 10 ? 1001 : 1002);
    Settle();
  }
  int received = 0;
  while (true) {
    const Received datagram = TakeNow(receiver);
    if (datagram.result < 0) break;
    EXPECT_EQ(datagram.text.substr(0, 2), absl::StrCat(received, "x"));
    ++received;
  }
  EXPECT_GT(received, 0);
  EXPECT_THAT(received, Lt(10));
  EXPECT_EQ(SendTo(sender, "room again", LocalAddress(receiver)), 10);
  EXPECT_EQ(Take(receiver).text, "room again");
  Close({receiver, sender});
}

TEST_P(OsDatagramContract, AUnixReceiverWithManyUnreadMakesItsSendersWait) {
  const int receiver = BoundTo(AbstractName("full"));
  const int connected = DatagramSocket(AF_UNIX), unconnected = DatagramSocket(AF_UNIX);
  ASSERT_EQ(os().Connect(connected, LocalAddress(receiver)), 0);
  int sent = 0;
  int64_t result = 1;
  while (result == 1 && sent < 100'000) {
    result = SendToPeer(connected, "x");
    if (result == 1) ++sent;
  }
  EXPECT_EQ(result, -EAGAIN);
  EXPECT_GT(sent, 0);
  EXPECT_EQ(SendTo(unconnected, "x", LocalAddress(receiver)), -EAGAIN);
  EXPECT_EQ(Ready(connected, kWritable, kPast), 0u);
  ASSERT_EQ(poller().Add(connected, kWritable, &sent), 0);
  EXPECT_TRUE(Wait(kPast).empty());
  for (int i = 0; i < sent; ++i) EXPECT_EQ(TakeNow(receiver).text, "x");
  EXPECT_THAT(Wait(), ElementsAre(&sent));
  ASSERT_EQ(poller().Remove(connected), 0);
  EXPECT_EQ(SendToPeer(connected, "y"), 1);
  EXPECT_EQ(Take(receiver).text, "y");
  Close({receiver, connected, unconnected});
}

TEST_P(OsDatagramContract, APairIsHeldBackByItsSendBuffer) {
  int fds[2];
  ASSERT_EQ(os().SocketPair(AF_UNIX, SOCK_DGRAM, fds), 0);
  const std::string kilobyte(1000, 'x');
  int64_t result = 1000;
  int sent = -1;
  for (; result == 1000 && sent < 100'000; ++sent) result = SendToPeer(fds[0], kilobyte);
  EXPECT_EQ(result, -EAGAIN);
  EXPECT_GT(sent, 10);
  EXPECT_EQ(Ready(fds[0], kWritable, kPast), 0u);
  EXPECT_EQ(SendToPeer(fds[1], "the other way"), 13);
  while (TakeNow(fds[1]).result > 0) {
  }
  EXPECT_EQ(Ready(fds[0], kWritable), uint32_t{kWritable});
  EXPECT_EQ(SendToPeer(fds[0], kilobyte), 1000);
  Close({fds[0], fds[1]});
}

// ---- broadcast

TEST_P(OsDatagramContract, ABroadcastMustBeAllowed) {
  const int receiver = BoundTo("0.0.0.0:0"), narrow = DatagramSocket(AF_INET), sender = DatagramSocket(AF_INET);
  // Not bound to every address: it hears none.
  ASSERT_EQ(os().SetSocketOption(receiver, SOL_SOCKET, SO_REUSEADDR, 1), 0);
  ASSERT_EQ(os().SetSocketOption(narrow, SOL_SOCKET, SO_REUSEADDR, 1), 0);
  ASSERT_EQ(os().Bind(narrow, *SocketAddress::FromIp("127.0.0.1", LocalAddress(receiver).port())), 0);
  const SocketAddress all = *SocketAddress::FromIp("127.255.255.255", LocalAddress(receiver).port());
  EXPECT_EQ(SendTo(sender, "x", all), -EACCES);
  EXPECT_EQ(os().Connect(sender, all), -EACCES);
  ASSERT_EQ(os().SetSocketOption(sender, SOL_SOCKET, SO_BROADCAST, 1), 0);
  EXPECT_EQ(SendTo(sender, "to all", all), 6);
  EXPECT_EQ(Take(receiver).text, "to all");
  Settle();
  EXPECT_EQ(TakeNow(narrow).result, -EAGAIN);
  Close({receiver, narrow, sender});
}

// ---- descriptors

TEST_P(OsDatagramContract, WithoutADescriptorThereIsNoSocket) {
  int fds[2];
  WithoutFreeDescriptors([&] {
    EXPECT_EQ(os().Socket(AF_INET, SOCK_DGRAM), -EMFILE);
    EXPECT_EQ(os().SocketPair(AF_UNIX, SOCK_DGRAM, fds), -EMFILE);
  });
  char byte;
  SocketAddress from;
  EXPECT_EQ(os().ReceiveFrom(1'000'000, absl::MakeSpan(&byte, 1), &from), -EBADF);
  EXPECT_EQ(SendToPeer(1'000'000, "x"), -EBADF);
}

}  // namespace
}  // namespace troupe
