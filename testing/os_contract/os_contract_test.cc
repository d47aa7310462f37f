// What every Os promises of its clock, poller, stream sockets, names, workers and signals. See os_contract.h.
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
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
#include "troupe/base/monotonic_time.h"
#include "troupe/base/socket_address.h"
#include "troupe/os/os.h"
#include "troupe/testing/os_contract/os_contract.h"

namespace troupe {
namespace {

using ::testing::AnyOf;
using ::testing::Contains;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Truly;
using ::testing::UnorderedElementsAre;

INSTANTIATE_OS_CONTRACT(OsContract);

// The same over every family: a connected pair and the listener that it came by.
class OsStreamContract : public OsContract {
 protected:
  struct Ends {
    int listener = -1;
    int client = -1;
    int server = -1;
  };

  std::vector<SocketAddress> Addresses() {
    return {Address("127.0.0.1:0"), Address("[::1]:0"), *SocketAddress::FromUnixPath(TempPath("stream")),
            AbstractName("stream")};
  }
  Ends Connect(const SocketAddress& address) {
    Ends ends;
    ends.listener = ListenOn(address);
    ends.client = os().Socket(address.family(), SOCK_STREAM);
    EXPECT_EQ(ConnectResult(ends.client, LocalAddress(ends.listener)), 0);
    EXPECT_EQ(Ready(ends.listener, kReadable), uint32_t{kReadable});
    ends.server = os().Accept(ends.listener, nullptr);
    EXPECT_GE(ends.server, 0);
    return ends;
  }
  // Runs `test` on fresh ends of every family, and closes what it did not.
  template <class Test>
  void OnEveryFamily(Test test) {
    for (const SocketAddress& address : Addresses()) {
      SCOPED_TRACE(address.ToString());
      Ends ends = Connect(address);
      test(ends);
      for (const int fd : {ends.listener, ends.client, ends.server}) {
        if (fd >= 0) os().Close(fd);
      }
      if (const std::string path = address.unix_path(); !path.empty()) os().Unlink(path);
    }
  }
};

INSTANTIATE_OS_CONTRACT(OsStreamContract);

// ---- clocks, randomness

TEST_P(OsContract, TheClockReachesTheDeadlineOfAWait) {
  for (int i = 0; i < 3; ++i) {
    const MonotonicTime deadline = os().Now() + absl::Microseconds(1500);
    EXPECT_THAT(Wait(deadline), IsEmpty());
    EXPECT_GE(os().Now(), deadline);
  }
}

TEST_P(OsContract, ADeadlineInThePastPolls) {
  EXPECT_THAT(Wait(kPast), IsEmpty());
  EXPECT_THAT(Wait(os().Now()), IsEmpty());
}

TEST_P(OsContract, RandomBytesDifferFromCallToCall) {
  std::string a(100, '\0'), b(100, '\0');
  os().FillRandom(absl::MakeSpan(&a[0], a.size()));
  os().FillRandom(absl::MakeSpan(&b[0], b.size()));
  os().FillRandom({});
  EXPECT_NE(a, b);
  EXPECT_NE(a.substr(92), std::string(8, '\0'));  // the last, partial word is filled too
}

TEST_P(OsContract, LimitsArePositive) {
  EXPECT_GT(os().DescriptorLimit(), 0);
  EXPECT_GT(os().MemoryLimit(), 0);
  EXPECT_GT(os().WallNow(), absl::FromUnixSeconds(1'600'000'000));
}

// ---- polling

TEST_P(OsContract, ReadinessIsReportedUntilItIsGone) {
  int fds[2];
  ASSERT_EQ(os().SocketPair(AF_UNIX, SOCK_STREAM, fds), 0);
  ASSERT_EQ(poller().Add(fds[0], kReadable, &fds[0]), 0);
  EXPECT_THAT(Wait(kPast), IsEmpty());
  ASSERT_EQ(Send(fds[1], "ab"), 2);
  EXPECT_THAT(Wait(), ElementsAre(&fds[0]));
  EXPECT_THAT(Wait(), ElementsAre(&fds[0]));
  char one[1];
  EXPECT_EQ(os().Recv(fds[0], absl::MakeSpan(one)), 1);
  EXPECT_THAT(Wait(), ElementsAre(&fds[0]));
  EXPECT_EQ(os().Recv(fds[0], absl::MakeSpan(one)), 1);
  Settle();
  EXPECT_THAT(Wait(kPast), IsEmpty());
  Close({fds[0], fds[1]});
}

TEST_P(OsContract, OnlyWhatIsAskedForIsReported) {
  int fds[2];
  ASSERT_EQ(os().SocketPair(AF_UNIX, SOCK_STREAM, fds), 0);
  ASSERT_EQ(Send(fds[1], "x"), 1);
  Settle();
  EXPECT_EQ(Ready(fds[0], kReadable), uint32_t{kReadable});
  EXPECT_EQ(Ready(fds[0], kWritable), uint32_t{kWritable});
  EXPECT_EQ(Ready(fds[0], kReadable | kWritable), kReadable | kWritable);
  EXPECT_EQ(Ready(fds[0], 0, kPast), 0u);
  Close({fds[0], fds[1]});
}

TEST_P(OsContract, AHangUpIsReportedAsBothWhateverIsAskedFor) {
  int fds[2];
  ASSERT_EQ(os().SocketPair(AF_UNIX, SOCK_STREAM, fds), 0);
  Close({fds[1]});
  for (const uint32_t interest : {uint32_t{0}, uint32_t{kReadable}, uint32_t{kWritable}}) {
    EXPECT_EQ(Ready(fds[0], interest), kReadable | kWritable) << interest;
  }
  Close({fds[0]});
}

TEST_P(OsContract, ModifyChangesInterestAndToken) {
  int fds[2], other;
  ASSERT_EQ(os().SocketPair(AF_UNIX, SOCK_STREAM, fds), 0);
  ASSERT_EQ(poller().Add(fds[0], kReadable, &fds[0]), 0);
  EXPECT_THAT(Wait(kPast), IsEmpty());
  ASSERT_EQ(poller().Modify(fds[0], kWritable, &other), 0);
  EXPECT_THAT(Wait(), ElementsAre(&other));
  ASSERT_EQ(poller().Modify(fds[0], 0, &other), 0);
  EXPECT_THAT(Wait(kPast), IsEmpty());
  ASSERT_EQ(poller().Modify(fds[0], kWritable, &fds[0]), 0);
  EXPECT_THAT(Wait(), ElementsAre(&fds[0]));
  Close({fds[0], fds[1]});
}

TEST_P(OsContract, ADescriptorIsWatchedOnceAndMustBeKnown) {
  int fds[2];
  ASSERT_EQ(os().SocketPair(AF_UNIX, SOCK_STREAM, fds), 0);
  EXPECT_EQ(poller().Modify(fds[0], kReadable, nullptr), -ENOENT);
  EXPECT_EQ(poller().Remove(fds[0]), -ENOENT);
  EXPECT_EQ(poller().Add(fds[0], kReadable, nullptr), 0);
  EXPECT_EQ(poller().Add(fds[0], kWritable, nullptr), -EEXIST);
  EXPECT_EQ(poller().Remove(fds[0]), 0);
  EXPECT_EQ(poller().Remove(fds[0]), -ENOENT);
  EXPECT_EQ(poller().Add(fds[0], kReadable, nullptr), 0);
  Close({fds[0], fds[1]});
  EXPECT_EQ(poller().Add(fds[0], kReadable, nullptr), -EBADF);
  EXPECT_EQ(poller().Modify(fds[0], kReadable, nullptr), -EBADF);
  EXPECT_EQ(poller().Remove(fds[0]), -EBADF);
  EXPECT_EQ(poller().Add(-1, kReadable, nullptr), -EBADF);
}

TEST_P(OsContract, TwoPollersMayWatchOneDescriptor) {
  int fds[2];
  ASSERT_EQ(os().SocketPair(AF_UNIX, SOCK_STREAM, fds), 0);
  ASSERT_EQ(poller().Add(fds[0], kReadable, &fds[0]), 0);
  ASSERT_EQ(Send(fds[1], "x"), 1);
  EXPECT_EQ(Ready(fds[0], kReadable), uint32_t{kReadable});
  EXPECT_THAT(Wait(), ElementsAre(&fds[0]));
  Close({fds[0], fds[1]});
}

TEST_P(OsContract, WhatIsRemovedIsNotReportedThoughItWasReady) {
  int fds[2];
  ASSERT_EQ(os().SocketPair(AF_UNIX, SOCK_STREAM, fds), 0);
  ASSERT_EQ(poller().Add(fds[0], kWritable, &fds[0]), 0);
  ASSERT_EQ(poller().Add(fds[1], kWritable, &fds[1]), 0);
  EXPECT_THAT(Wait(), UnorderedElementsAre(&fds[0], &fds[1]));
  ASSERT_EQ(poller().Remove(fds[0]), 0);
  EXPECT_THAT(Wait(), ElementsAre(&fds[1]));
  Close({fds[0], fds[1]});
}

TEST_P(OsContract, AClosedDescriptorIsNoLongerWatchedAndItsNumberStartsAfresh) {
  int fds[2];
  ASSERT_EQ(os().SocketPair(AF_UNIX, SOCK_STREAM, fds), 0);
  ASSERT_EQ(poller().Add(fds[0], kReadable | kWritable, &fds[0]), 0);
  EXPECT_THAT(Wait(), ElementsAre(&fds[0]));
  Close({fds[0]});
  EXPECT_THAT(Wait(kPast), IsEmpty());
  int again[2];
  ASSERT_EQ(os().SocketPair(AF_UNIX, SOCK_STREAM, again), 0);
  ASSERT_EQ(again[0], fds[0]) << "the lowest free number is used";
  EXPECT_THAT(Wait(kPast), IsEmpty());
  EXPECT_EQ(poller().Modify(again[0], kWritable, &again[0]), -ENOENT);
  ASSERT_EQ(poller().Add(again[0], kWritable, &again[0]), 0);
  EXPECT_THAT(Wait(), ElementsAre(&again[0]));
  Close({fds[1], again[0], again[1]});
}

TEST_P(OsContract, MoreReadyThanAskedForAreReportedInTurn) {
  int fds[4];
  ASSERT_EQ(os().SocketPair(AF_UNIX, SOCK_STREAM, fds), 0);
  ASSERT_EQ(os().SocketPair(AF_UNIX, SOCK_STREAM, fds + 2), 0);
  for (int& fd : fds) ASSERT_EQ(poller().Add(fd, kWritable, &fd), 0);
  std::vector<void*> seen;
  for (int i = 0; i < 4; ++i) {
    const std::vector<void*> one = Wait(kForever, 1);
    ASSERT_EQ(one.size(), 1u);
    seen.push_back(one[0]);
  }
  EXPECT_THAT(seen, UnorderedElementsAre(&fds[0], &fds[1], &fds[2], &fds[3]));
  Close({fds[0], fds[1], fds[2], fds[3]});
}

TEST_P(OsContract, AWakeBeforeTheWaitEndsThatOneAndNoOther) {
  for (int burst : {1, 3}) {
    for (int i = 0; i < burst; ++i) poller().Wake();
    EXPECT_THAT(Wait(), IsEmpty());
    const MonotonicTime deadline = os().Now() + absl::Milliseconds(2);
    EXPECT_THAT(Wait(deadline), IsEmpty());
    EXPECT_GE(os().Now(), deadline);
  }
}

TEST_P(OsContract, AWakeDoesNotHideWhatIsReady) {
  int fds[2];
  ASSERT_EQ(os().SocketPair(AF_UNIX, SOCK_STREAM, fds), 0);
  ASSERT_EQ(poller().Add(fds[0], kWritable, &fds[0]), 0);
  poller().Wake();
  EXPECT_THAT(Wait(kForever, 2), ElementsAre(&fds[0]));
  Close({fds[0], fds[1]});
}

struct WakeWork : Work {
  explicit WakeWork(Poller& poller) : poller(poller) {}
  void Run() override {
    published = 7;
    poller.Wake();
  }
  Poller& poller;
  int published = 0;  // not atomic: Wake hands it over
};

TEST_P(OsContract, AWakeFromAWorkerEndsTheWaitAndPublishesWhatCameBefore) {
  WakeWork work(poller());
  const auto pool = os().NewWorkerPool(1, "waker");
  pool->Submit(work);
  EXPECT_THAT(Wait(), IsEmpty());
  EXPECT_EQ(work.published, 7);
  pool->Wait(work);
}

// ---- sockets: names

TEST_P(OsContract, PortZeroIsAssignedAndKnown) {
  const int a = ListenOn(Address("127.0.0.1:0"));
  const int b = ListenOn(Address("127.0.0.1:0"));
  EXPECT_EQ(LocalAddress(a).host(), "127.0.0.1");
  EXPECT_NE(LocalAddress(a).port(), 0);
  EXPECT_NE(LocalAddress(a).port(), LocalAddress(b).port());
  Close({a, b});
}

TEST_P(OsContract, ListeningWithoutANameBindsToAll) {
  const int fd = os().Socket(AF_INET, SOCK_STREAM);
  EXPECT_EQ(LocalAddress(fd).ToString(), "0.0.0.0:0");
  EXPECT_EQ(os().Listen(fd, 1), 0);
  EXPECT_EQ(LocalAddress(fd).host(), "0.0.0.0");
  EXPECT_NE(LocalAddress(fd).port(), 0);
  Close({fd});
}

TEST_P(OsStreamContract, BothEndsKnowBothNames) {
  for (const SocketAddress& address : {Address("127.0.0.1:0"), Address("[::1]:0")}) {
    const int listener = ListenOn(address);
    const int client = os().Socket(address.family(), SOCK_STREAM);
    ASSERT_EQ(ConnectResult(client, LocalAddress(listener)), 0);
    SocketAddress peer;
    const int server = os().Accept(listener, &peer);
    ASSERT_GE(server, 0);
    EXPECT_TRUE(peer == LocalAddress(client)) << peer.ToString();
    EXPECT_TRUE(PeerAddress(server) == LocalAddress(client));
    EXPECT_TRUE(PeerAddress(client) == LocalAddress(listener));
    EXPECT_TRUE(LocalAddress(server) == LocalAddress(listener));
    EXPECT_EQ(LocalAddress(client).host(), address.host());
    Close({listener, client, server});
  }
}

TEST_P(OsContract, AnAddressIsHeardOnceAtATime) {
  const int first = ListenOn(Address("127.0.0.1:0"));
  const SocketAddress address = LocalAddress(first);
  const int second = os().Socket(AF_INET, SOCK_STREAM);
  EXPECT_EQ(os().Bind(second, address), -EADDRINUSE);
  // SO_REUSEADDR is for the time after a listener, not for a second one.
  EXPECT_EQ(os().SetSocketOption(first, SOL_SOCKET, SO_REUSEADDR, 1), 0);
  EXPECT_EQ(os().SetSocketOption(second, SOL_SOCKET, SO_REUSEADDR, 1), 0);
  EXPECT_EQ(os().Bind(second, address), -EADDRINUSE);
  // All interfaces include this one.
  EXPECT_EQ(os().Bind(second, Address(absl::StrCat("0.0.0.0:", address.port()))), -EADDRINUSE);
  Close({first});
  EXPECT_EQ(os().Bind(second, address), 0);
  EXPECT_EQ(os().Bind(second, Address("127.0.0.1:0")), -EINVAL);
  Close({second});
}

TEST_P(OsContract, ReusePortSharesAnAddress) {
  const int first = os().Socket(AF_INET, SOCK_STREAM);
  const int second = os().Socket(AF_INET, SOCK_STREAM);
  for (const int fd : {first, second}) ASSERT_EQ(os().SetSocketOption(fd, SOL_SOCKET, SO_REUSEPORT, 1), 0);
  ASSERT_EQ(os().Bind(first, Address("127.0.0.1:0")), 0);
  EXPECT_EQ(os().Listen(first, 4), 0);
  EXPECT_EQ(os().Bind(second, LocalAddress(first)), 0);
  EXPECT_EQ(os().Listen(second, 4), 0);
  Close({first, second});
}

TEST_P(OsContract, OfTwoBoundWithReuseAddrTheFirstToListenWins) {
  const int first = os().Socket(AF_INET, SOCK_STREAM);
  const int second = os().Socket(AF_INET, SOCK_STREAM);
  for (const int fd : {first, second}) ASSERT_EQ(os().SetSocketOption(fd, SOL_SOCKET, SO_REUSEADDR, 1), 0);
  ASSERT_EQ(os().Bind(first, Address("127.0.0.1:0")), 0);
  ASSERT_EQ(os().Bind(second, LocalAddress(first)), 0);
  EXPECT_EQ(os().Listen(second, 4), 0);
  EXPECT_EQ(os().Listen(first, 4), -EADDRINUSE);
  Close({first, second});
}

TEST_P(OsContract, V6OnlyLeavesThePortToIpv4) {
  const int v4 = ListenOn(Address("0.0.0.0:0"));
  const SocketAddress all6 = Address(absl::StrCat("[::]:", LocalAddress(v4).port()));
  const int v6 = os().Socket(AF_INET6, SOCK_STREAM);
  EXPECT_EQ(os().Bind(v6, all6), -EADDRINUSE);
  EXPECT_EQ(os().SetSocketOption(v6, IPPROTO_IPV6, IPV6_V6ONLY, 1), 0);
  EXPECT_EQ(os().Bind(v6, all6), 0);
  EXPECT_EQ(os().Listen(v6, 4), 0);
  Close({v4, v6});
}

TEST_P(OsContract, AnIpv6ListenerOnAllInterfacesTakesIpv4) {
  const int listener = ListenOn(Address("[::]:0"));
  const int client = os().Socket(AF_INET, SOCK_STREAM);
  ASSERT_EQ(ConnectResult(client, Address(absl::StrCat("127.0.0.1:", LocalAddress(listener).port()))), 0);
  SocketAddress peer;
  const int server = os().Accept(listener, &peer);
  ASSERT_GE(server, 0);
  EXPECT_EQ(peer.ToString(), absl::StrCat("[::ffff:127.0.0.1]:", LocalAddress(client).port()));
  Close({listener, client, server});
}

TEST_P(OsContract, AddressesOfOthersAndOfOtherFamiliesAreRefused) {
  const int v4 = os().Socket(AF_INET, SOCK_STREAM);
  EXPECT_EQ(os().Bind(v4, Address("192.0.2.1:0")), -EADDRNOTAVAIL);  // reserved for documentation
  EXPECT_THAT(os().Connect(v4, Address("[::1]:1")), AnyOf(-EAFNOSUPPORT, -EINVAL));
  EXPECT_EQ(os().Socket(AF_APPLETALK, SOCK_STREAM), -EAFNOSUPPORT);
  Close({v4});
}

TEST_P(OsContract, OptionsThatDoNotFitAreRefused) {
  const int tcp = os().Socket(AF_INET, SOCK_STREAM);
  const int local = os().Socket(AF_UNIX, SOCK_STREAM);
  EXPECT_EQ(os().SetSocketOption(tcp, IPPROTO_TCP, TCP_NODELAY, 1), 0);
  EXPECT_EQ(os().SetSocketOption(tcp, SOL_SOCKET, SO_KEEPALIVE, 1), 0);
  EXPECT_EQ(os().SetSocketOption(local, IPPROTO_TCP, TCP_NODELAY, 1), -EOPNOTSUPP);
  EXPECT_EQ(os().SetSocketOption(tcp, SOL_SOCKET, 12345, 1), -ENOPROTOOPT);
  EXPECT_EQ(os().SetSocketOption(tcp, IPPROTO_TCP, 12345, 1), -ENOPROTOOPT);
  Close({tcp, local});
}

TEST_P(OsContract, ASocketFromElsewhereIsTakenInWhenItIsOfTheTypeAskedFor) {
  for (const int family : {AF_INET, AF_INET6, AF_UNIX}) {
    const int fd = os().Socket(family, SOCK_STREAM);
    EXPECT_EQ(os().AdoptSocket(fd, SOCK_STREAM), family);
    EXPECT_EQ(os().AdoptSocket(fd, SOCK_STREAM), family) << "again";
    EXPECT_EQ(os().AdoptSocket(fd, SOCK_DGRAM), -ESOCKTNOSUPPORT);
    Close({fd});
    EXPECT_EQ(os().AdoptSocket(fd, SOCK_STREAM), -EBADF);
  }
}

TEST_P(OsContract, WithoutAFreeDescriptorNothingIsOpenedAndNothingIsLost) {
  const int listener = ListenOn(Address("127.0.0.1:0"));
  const int client = os().Socket(AF_INET, SOCK_STREAM);
  ASSERT_EQ(ConnectResult(client, LocalAddress(listener)), 0);
  ASSERT_EQ(Ready(listener, kReadable), uint32_t{kReadable});
  int fds[2];
  WithoutFreeDescriptors([&] {
    EXPECT_EQ(os().Socket(AF_INET, SOCK_STREAM), -EMFILE);
    EXPECT_EQ(os().SocketPair(AF_UNIX, SOCK_STREAM, fds), -EMFILE);
    EXPECT_EQ(os().Accept(listener, nullptr), -EMFILE);
    EXPECT_EQ(os().Accept(listener, nullptr), -EMFILE);
    EXPECT_EQ(Send(client, "x"), 1) << "what is open works";
  });
  const int server = os().Accept(listener, nullptr);
  ASSERT_GE(server, 0) << "it waited";
  EXPECT_EQ(RecvText(server, 1), "x");
  Close({listener, client, server});
}

TEST_P(OsContract, AClosedDescriptorIsBad) {
  const int fd = os().Socket(AF_INET, SOCK_STREAM);
  Close({fd});
  SocketAddress address;
  EXPECT_EQ(os().Close(fd), -EBADF);
  EXPECT_EQ(os().Bind(fd, Address("127.0.0.1:0")), -EBADF);
  EXPECT_EQ(os().Listen(fd, 1), -EBADF);
  EXPECT_EQ(os().Accept(fd, nullptr), -EBADF);
  EXPECT_EQ(os().Connect(fd, Address("127.0.0.1:1")), -EBADF);
  EXPECT_EQ(os().SocketError(fd), EBADF);
  EXPECT_EQ(os().LocalAddress(fd, &address), -EBADF);
  EXPECT_EQ(os().PeerAddress(fd, &address), -EBADF);
  EXPECT_EQ(os().ShutdownWrite(fd), -EBADF);
  EXPECT_EQ(os().SetSocketOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1), -EBADF);
  EXPECT_EQ(Recv(fd), -EBADF);
  EXPECT_EQ(Send(fd, "x"), -EBADF);
}

// ---- sockets: connecting and accepting

TEST_P(OsContract, ASocketThatIsNotConnectedSaysSo) {
  const int fd = os().Socket(AF_INET, SOCK_STREAM);
  SocketAddress peer;
  EXPECT_EQ(os().PeerAddress(fd, &peer), -ENOTCONN);
  EXPECT_EQ(os().ShutdownWrite(fd), -ENOTCONN);
  EXPECT_EQ(Recv(fd), -ENOTCONN);
  EXPECT_EQ(Send(fd, "x"), -EPIPE);
  EXPECT_EQ(os().Accept(fd, nullptr), -EINVAL);
  EXPECT_EQ(Ready(fd, 0), kReadable | kWritable) << "hung up";
  const int local = os().Socket(AF_UNIX, SOCK_STREAM);
  EXPECT_EQ(os().PeerAddress(local, &peer), -ENOTCONN);
  EXPECT_EQ(Recv(local), -EINVAL);
  EXPECT_EQ(Send(local, "x"), -ENOTCONN);
  EXPECT_EQ(os().Listen(local, 1), -EINVAL) << "without a name";
  Close({fd, local});
}

TEST_P(OsContract, ConnectingToAPortThatNobodyHearsIsRefused) {
  for (const char* ip : {"127.0.0.1:0", "[::1]:0"}) {
    // Bound and not listening: the port is nobody else's.
    const int bound = os().Socket(Address(ip).family(), SOCK_STREAM);
    ASSERT_EQ(os().Bind(bound, Address(ip)), 0);
    const int fd = os().Socket(Address(ip).family(), SOCK_STREAM);
    EXPECT_EQ(ConnectResult(fd, LocalAddress(bound)), ECONNREFUSED);
    EXPECT_EQ(os().SocketError(fd), 0) << "the error is taken once";
    EXPECT_EQ(Ready(fd, 0), kReadable | kWritable);
    EXPECT_EQ(Send(fd, "x"), -EPIPE);
    Close({bound, fd});
  }
}

TEST_P(OsContract, AConnectionIsAcceptedOnce) {
  const int listener = ListenOn(Address("127.0.0.1:0"));
  EXPECT_EQ(os().Accept(listener, nullptr), -EAGAIN);
  EXPECT_EQ(Ready(listener, kReadable | kWritable, kPast), 0u);
  const int client = os().Socket(AF_INET, SOCK_STREAM);
  ASSERT_EQ(ConnectResult(client, LocalAddress(listener)), 0);
  EXPECT_EQ(Ready(listener, kReadable | kWritable), uint32_t{kReadable});
  const int server = os().Accept(listener, nullptr);
  ASSERT_GE(server, 0);
  EXPECT_EQ(os().Accept(listener, nullptr), -EAGAIN);
  EXPECT_EQ(os().Listen(server, 1), -EINVAL);
  EXPECT_EQ(os().Connect(server, LocalAddress(listener)), -EISCONN);
  Close({listener, client, server});
}

TEST_P(OsContract, ConnectionsAreAcceptedInTheirOrder) {
  const int listener = ListenOn(Address("127.0.0.1:0"));
  int clients[3];
  for (int& client : clients) {
    client = os().Socket(AF_INET, SOCK_STREAM);
    ASSERT_EQ(ConnectResult(client, LocalAddress(listener)), 0);
  }
  for (const int client : clients) {
    Ready(listener, kReadable);
    SocketAddress peer;
    const int server = os().Accept(listener, &peer);
    ASSERT_GE(server, 0);
    EXPECT_TRUE(peer == LocalAddress(client));
    Close({server, client});
  }
  Close({listener});
}

TEST_P(OsStreamContract, WhatWasSentBeforeTheAcceptIsThereAfterIt) {
  for (const SocketAddress& address : Addresses()) {
    const int listener = ListenOn(address);
    const int client = os().Socket(address.family(), SOCK_STREAM);
    ASSERT_EQ(ConnectResult(client, LocalAddress(listener)), 0);
    EXPECT_EQ(Send(client, "early"), 5);
    Close({client});
    Ready(listener, kReadable);
    const int server = os().Accept(listener, nullptr);
    ASSERT_GE(server, 0);
    EXPECT_EQ(RecvText(server, 6), "early");  // and then the end
    Close({listener, server});
  }
}

TEST_P(OsStreamContract, AListenerThatClosesResetsWhomItDidNotAccept) {
  for (const SocketAddress& address : {Address("127.0.0.1:0"), Address("[::1]:0")}) {
    const int listener = ListenOn(address);
    const int client = os().Socket(address.family(), SOCK_STREAM);
    ASSERT_EQ(ConnectResult(client, LocalAddress(listener)), 0);
    Close({listener});
    EXPECT_EQ(Ready(client, 0), kReadable | kWritable);
    EXPECT_EQ(Recv(client), -ECONNRESET);
    Close({client});
  }
}

// ---- bytes

TEST_P(OsStreamContract, BytesGoBothWaysInOrder) {
  OnEveryFamily([&](Ends& ends) {
    EXPECT_EQ(Recv(ends.server), -EAGAIN);
    EXPECT_EQ(Send(ends.client, "hello "), 6);
    EXPECT_EQ(Send(ends.client, "world"), 5);
    EXPECT_EQ(RecvText(ends.server, 11), "hello world");
    EXPECT_EQ(Recv(ends.server), -EAGAIN);
    EXPECT_EQ(Send(ends.server, "back"), 4);
    EXPECT_EQ(RecvText(ends.client, 4), "back");
  });
}

TEST_P(OsStreamContract, SendGathersItsParts) {
  OnEveryFamily([&](Ends& ends) {
    std::string a = "one,", b = "", c = "two";
    const iovec parts[] = {{&a[0], a.size()}, {&b[0], b.size()}, {&c[0], c.size()}};
    EXPECT_EQ(os().Send(ends.client, absl::MakeConstSpan(parts)), 7);
    EXPECT_EQ(RecvText(ends.server, 7), "one,two");
    EXPECT_EQ(os().Send(ends.client, {}), 0);
  });
}

TEST_P(OsStreamContract, AFullConnectionTakesAPartThenNothingUntilItIsRead) {
  OnEveryFamily([&](Ends& ends) {
    std::string chunk;
    for (int i = 0; chunk.size() < 1 << 20; ++i) absl::StrAppend(&chunk, i, ";");
    std::string sent;
    bool partial = false;
    while (true) {
      const int64_t n = Send(ends.client, chunk);
      if (n == -EAGAIN) break;
      ASSERT_GT(n, 0);
      partial |= n < static_cast<int64_t>(chunk.size());
      sent.append(chunk, 0, static_cast<size_t>(n));
    }
    EXPECT_TRUE(partial);
    EXPECT_EQ(Ready(ends.client, kWritable, kPast), 0u);
    EXPECT_TRUE(RecvText(ends.server, sent.size()) == sent) << "of " << sent.size() << " bytes";
    EXPECT_EQ(Ready(ends.client, kWritable), uint32_t{kWritable});
    EXPECT_EQ(Send(ends.client, "more"), 4);
    EXPECT_EQ(RecvText(ends.server, 4), "more");
  });
}

TEST_P(OsStreamContract, AHalfCloseEndsOneDirection) {
  OnEveryFamily([&](Ends& ends) {
    EXPECT_EQ(Send(ends.client, "last"), 4);
    EXPECT_EQ(os().ShutdownWrite(ends.client), 0);
    EXPECT_EQ(Send(ends.client, "x"), -EPIPE);  // and no SIGPIPE
    EXPECT_EQ(RecvText(ends.server, 4), "last");
    EXPECT_EQ(Ready(ends.server, kReadable), uint32_t{kReadable});
    EXPECT_EQ(Recv(ends.server), 0);
    EXPECT_EQ(Recv(ends.server), 0) << "the end stays";
    EXPECT_EQ(Ready(ends.server, 0, kPast), 0u) << "half open is no hang-up";
    EXPECT_EQ(Send(ends.server, "reply"), 5);
    EXPECT_EQ(RecvText(ends.client, 5), "reply");
    EXPECT_EQ(Recv(ends.client), -EAGAIN);
    EXPECT_EQ(os().ShutdownWrite(ends.server), 0);
    EXPECT_EQ(Ready(ends.client, 0), kReadable | kWritable) << "both directions ended";
    EXPECT_EQ(Recv(ends.client), 0);
  });
}

TEST_P(OsStreamContract, ClosingSendsWhatWasSentAndThenTheEnd) {
  OnEveryFamily([&](Ends& ends) {
    EXPECT_EQ(Send(ends.client, "bye"), 3);
    Close({std::exchange(ends.client, -1)});
    EXPECT_EQ(RecvText(ends.server, 4), "bye");
    EXPECT_EQ(Recv(ends.server), 0);
  });
}

TEST_P(OsStreamContract, SendingToAClosedEndFailsWithoutASignal) {
  OnEveryFamily([&](Ends& ends) {
    Close({std::exchange(ends.client, -1)});
    EXPECT_NE(Ready(ends.server, kReadable), 0u);
    // TCP learns it from the answer to the first bytes.
    int64_t n = Send(ends.server, "x");
    if (n == 1) {
      EXPECT_EQ(Ready(ends.server, 0), kReadable | kWritable);
      n = Send(ends.server, "x");
    }
    EXPECT_EQ(n, -EPIPE);
    EXPECT_EQ(Send(ends.server, "x"), -EPIPE);
  });
}

TEST_P(OsStreamContract, ClosingWithBytesUnreadResets) {
  OnEveryFamily([&](Ends& ends) {
    EXPECT_EQ(Send(ends.client, "never read"), 10);
    EXPECT_NE(Ready(ends.server, kReadable), 0u);
    Close({std::exchange(ends.server, -1)});
    EXPECT_EQ(Ready(ends.client, 0), kReadable | kWritable);
    EXPECT_EQ(Recv(ends.client), -ECONNRESET);
    EXPECT_EQ(Recv(ends.client), 0);
    EXPECT_EQ(Send(ends.client, "x"), -EPIPE);
  });
}

TEST_P(OsStreamContract, TheErrorOfAResetIsTakenOnceByWhoeverAsksFirst) {
  OnEveryFamily([&](Ends& ends) {
    EXPECT_EQ(Send(ends.client, "never read"), 10);
    EXPECT_NE(Ready(ends.server, kReadable), 0u);
    Close({std::exchange(ends.server, -1)});
    EXPECT_EQ(Ready(ends.client, 0), kReadable | kWritable);
    EXPECT_EQ(os().SocketError(ends.client), ECONNRESET);
    EXPECT_EQ(os().SocketError(ends.client), 0);
    EXPECT_EQ(Recv(ends.client), 0);
  });
}

// ---- Unix paths

TEST_P(OsContract, AUnixPathOutlivesItsSocketUntilItIsUnlinked) {
  const std::string path = TempPath("stale");
  const SocketAddress address = *SocketAddress::FromUnixPath(path);
  const int fd = os().Socket(AF_UNIX, SOCK_STREAM);
  EXPECT_EQ(os().Connect(fd, address), -ENOENT);
  EXPECT_FALSE(os().IsSocketFile(path));
  EXPECT_EQ(os().Unlink(path), -ENOENT);

  const int first = ListenOn(address);
  EXPECT_TRUE(os().IsSocketFile(path));
  EXPECT_EQ(LocalAddress(first).unix_path(), path);
  EXPECT_EQ(os().Bind(fd, address), -EADDRINUSE);
  Close({first});
  EXPECT_TRUE(os().IsSocketFile(path));
  EXPECT_EQ(os().Connect(fd, address), -ECONNREFUSED);
  EXPECT_EQ(os().Bind(fd, address), -EADDRINUSE);

  EXPECT_EQ(os().Unlink(path), 0);
  EXPECT_FALSE(os().IsSocketFile(path));
  EXPECT_EQ(os().Bind(fd, address), 0);
  Close({fd});
}

TEST_P(OsContract, AnUnlinkedListenerHearsNobodyButLives) {
  const std::string path = TempPath("taken over");
  const SocketAddress address = *SocketAddress::FromUnixPath(path);
  const int first = ListenOn(address);
  EXPECT_EQ(os().Unlink(path), 0);
  const int second = ListenOn(address);
  const int client = os().Socket(AF_UNIX, SOCK_STREAM);
  EXPECT_EQ(os().Connect(client, address), 0);
  Settle();
  EXPECT_EQ(os().Accept(first, nullptr), -EAGAIN);
  const int server = os().Accept(second, nullptr);
  EXPECT_GE(server, 0);
  Close({first});
  EXPECT_TRUE(os().IsSocketFile(path)) << "the file is the second's";
  Close({second, client, server});
}

TEST_P(OsContract, ARegularFileIsNoSocket) {
  const std::string path = TempPath("regular");
  MakeRegularFile(path);
  EXPECT_FALSE(os().IsSocketFile(path));
  const int fd = os().Socket(AF_UNIX, SOCK_STREAM);
  EXPECT_EQ(os().Connect(fd, *SocketAddress::FromUnixPath(path)), -ECONNREFUSED);
  EXPECT_EQ(os().Bind(fd, *SocketAddress::FromUnixPath(path)), -EADDRINUSE);
  EXPECT_EQ(os().Unlink(path), 0);
  Close({fd});
}

TEST_P(OsContract, AnAbstractNameEndsWithItsSocket) {
  const SocketAddress name = AbstractName("ends");
  const int first = ListenOn(name);
  const int second = os().Socket(AF_UNIX, SOCK_STREAM);
  EXPECT_EQ(os().Bind(second, name), -EADDRINUSE);
  Close({first});
  EXPECT_EQ(os().Connect(second, name), -ECONNREFUSED);
  EXPECT_EQ(os().Bind(second, name), 0);
  Close({second});
}

TEST_P(OsContract, AFullUnixBacklogSaysAgain) {
  const std::string path = TempPath("full");
  const int listener = ListenOn(*SocketAddress::FromUnixPath(path), 0);
  const int first = os().Socket(AF_UNIX, SOCK_STREAM);
  const int second = os().Socket(AF_UNIX, SOCK_STREAM);
  EXPECT_EQ(os().Connect(first, LocalAddress(listener)), 0);
  EXPECT_EQ(os().Connect(second, LocalAddress(listener)), -EAGAIN);
  const int server = os().Accept(listener, nullptr);
  EXPECT_GE(server, 0);
  EXPECT_EQ(os().Connect(second, LocalAddress(listener)), 0);
  Close({listener, first, second, server});
}

TEST_P(OsContract, UnixPeersWithoutANameHaveNone) {
  int fds[2];
  ASSERT_EQ(os().SocketPair(AF_UNIX, SOCK_STREAM, fds), 0);
  EXPECT_EQ(LocalAddress(fds[0]).ToString(), "unix:");
  EXPECT_EQ(PeerAddress(fds[0]).ToString(), "unix:");
  Close({fds[0], fds[1]});
  EXPECT_THAT(os().SocketPair(AF_INET, SOCK_STREAM, fds), -EOPNOTSUPP);
}

// ---- names

std::vector<std::string> Texts(const absl::StatusOr<std::vector<SocketAddress>>& addresses) {
  std::vector<std::string> texts;
  EXPECT_TRUE(addresses.ok()) << addresses.status().ToString();
  if (addresses.ok()) {
    for (const SocketAddress& address : *addresses) texts.push_back(address.ToString());
  }
  return texts;
}

TEST_P(OsContract, NumericHostsResolveToThemselves) {
  EXPECT_THAT(Texts(os().Resolve({.host = "10.1.2.3", .service = "80"})), ElementsAre("10.1.2.3:80"));
  EXPECT_THAT(Texts(os().Resolve({.host = "fe80::1%1", .service = "0"})), ElementsAre("[fe80::1%1]:0"));
  EXPECT_THAT(Texts(os().Resolve({.host = "::1", .family = AF_INET6})), ElementsAre("[::1]:0"));
  EXPECT_THAT(Texts(os().Resolve({.host = "127.0.0.1", .passive = true})), ElementsAre("127.0.0.1:0"));
}

TEST_P(OsContract, LocalhostIsLoopback) {
  const auto addresses = os().Resolve({.host = "localhost", .service = "7400"});
  ASSERT_TRUE(addresses.ok()) << addresses.status().ToString();
  EXPECT_THAT(
      *addresses,
      Each(Truly([](const SocketAddress& address) { return address.is_loopback() && address.port() == 7400; })));
  EXPECT_THAT(Texts(os().Resolve({.host = "localhost", .service = "1", .family = AF_INET})),
              ElementsAre("127.0.0.1:1"));
}

TEST_P(OsContract, NoHostIsAllInterfacesToBindAndLoopbackToConnect) {
  EXPECT_THAT(Texts(os().Resolve({.service = "1", .family = AF_INET, .passive = true})), ElementsAre("0.0.0.0:1"));
  EXPECT_THAT(Texts(os().Resolve({.service = "1", .family = AF_INET6, .passive = true})), ElementsAre("[::]:1"));
  EXPECT_THAT(Texts(os().Resolve({.service = "1", .family = AF_INET})), ElementsAre("127.0.0.1:1"));
  EXPECT_THAT(Texts(os().Resolve({.service = "1", .passive = true})), UnorderedElementsAre("0.0.0.0:1", "[::]:1"));
}

TEST_P(OsContract, WhatCannotBeResolvedSaysWhy) {
  const auto code = [&](const ResolveQuery& query) { return os().Resolve(query).status().code(); };
  EXPECT_EQ(code({.host = "127.0.0.1", .service = "65536"}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.host = "127.0.0.1", .service = "no-such-service"}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.host = "127.0.0.1", .service = "-1"}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.host = "127.0.0.1", .family = AF_UNIX}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.host = std::string("127.0.0.1\0x", 11)}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.host = "127.0.0.1", .family = AF_INET6}), absl::StatusCode::kNotFound);
}

// ---- signals

class OsSignalContract : public OsContract {
 protected:
  // What is not watched must not end the test.
  void SetUp() override {
    for (size_t i = 0; i < 2; ++i) before_[i] = ::signal(kSignals[i], SIG_IGN);
    OsContract::SetUp();
  }
  void TearDown() override {
    OsContract::TearDown();
    for (size_t i = 0; i < 2; ++i) ::signal(kSignals[i], before_[i]);
  }
  static constexpr int kSignals[2] = {SIGUSR1, SIGHUP};
  static constexpr uint64_t kUsr1 = uint64_t{1} << SIGUSR1;
  static constexpr uint64_t kHup = uint64_t{1} << SIGHUP;

 private:
  void (*before_[2])(int);
};

INSTANTIATE_TEST_SUITE_P(Both, OsSignalContract, ::testing::Values(Kind::kPosix, Kind::kSim), KindName);

TEST_P(OsSignalContract, AWatchedSignalWakesItsPollerAndIsTakenOnce) {
  ASSERT_EQ(os().WatchSignal(SIGUSR1, poller()), 0);
  EXPECT_EQ(os().RaiseSignal(SIGUSR1), 0);
  EXPECT_THAT(Wait(), IsEmpty());
  EXPECT_EQ(os().TakeSignals(poller()), kUsr1);
  EXPECT_EQ(os().TakeSignals(poller()), 0u);
  EXPECT_EQ(os().UnwatchSignal(SIGUSR1, poller()), 0);
}

TEST_P(OsSignalContract, SignalsAreToldApartAndFoldedTogether) {
  ASSERT_EQ(os().WatchSignal(SIGUSR1, poller()), 0);
  ASSERT_EQ(os().WatchSignal(SIGHUP, poller()), 0);
  for (int signo : {SIGUSR1, SIGHUP, SIGUSR1}) EXPECT_EQ(os().RaiseSignal(signo), 0);
  EXPECT_THAT(Wait(), IsEmpty());
  EXPECT_EQ(os().TakeSignals(poller()), kUsr1 | kHup);
  EXPECT_EQ(os().UnwatchSignal(SIGUSR1, poller()), 0);
  EXPECT_EQ(os().RaiseSignal(SIGUSR1), 0);
  EXPECT_EQ(os().RaiseSignal(SIGHUP), 0);
  EXPECT_EQ(os().TakeSignals(poller()), kHup);
  EXPECT_EQ(os().UnwatchSignal(SIGHUP, poller()), 0);
}

TEST_P(OsSignalContract, ASignalHasOneWatcher) {
  {
    const std::unique_ptr<Poller> other = os().NewPoller();
    EXPECT_EQ(os().WatchSignal(SIGUSR1, *other), 0);
    EXPECT_EQ(os().WatchSignal(SIGUSR1, *other), 0);
    EXPECT_EQ(os().WatchSignal(SIGUSR1, poller()), -EBUSY);
    EXPECT_EQ(os().UnwatchSignal(SIGUSR1, poller()), -ENOENT);
    EXPECT_EQ(os().RaiseSignal(SIGUSR1), 0);
    EXPECT_EQ(os().TakeSignals(poller()), 0u);
    EXPECT_EQ(os().TakeSignals(*other), kUsr1);
  }
  EXPECT_EQ(os().WatchSignal(SIGUSR1, poller()), 0) << "a poller that is gone watches nothing";
  EXPECT_EQ(os().UnwatchSignal(SIGUSR1, poller()), 0);
  EXPECT_EQ(os().UnwatchSignal(SIGUSR1, poller()), -ENOENT);
}

TEST_P(OsSignalContract, WhatIsNoSignalOrCannotBeCaughtIsRefused) {
  for (const int signo : {-1, 0, 64, 1000}) {
    EXPECT_EQ(os().WatchSignal(signo, poller()), -EINVAL) << signo;
    EXPECT_EQ(os().UnwatchSignal(signo, poller()), -ENOENT) << signo;
  }
  EXPECT_EQ(os().WatchSignal(SIGKILL, poller()), -EPERM);
  EXPECT_EQ(os().WatchSignal(SIGSTOP, poller()), -EPERM);
  EXPECT_EQ(os().RaiseSignal(1000), -EINVAL);
}

// ---- worker pools

struct LogWork : Work {
  void Run() override {
    log->push_back(number);
    ran = true;
  }
  std::vector<int>* log = nullptr;
  int number = 0;
  bool ran = false;
};

std::vector<LogWork> MakeWorks(int n, std::vector<int>& log) {
  std::vector<LogWork> works(static_cast<size_t>(n));
  for (int i = 0; i < n; ++i) {
    works[static_cast<size_t>(i)].log = &log;
    works[static_cast<size_t>(i)].number = i;
  }
  return works;
}

TEST_P(OsContract, OneWorkerRunsWorkInTheOrderOfSubmission) {
  std::vector<int> log;
  std::vector<LogWork> works = MakeWorks(100, log);
  const auto pool = os().NewWorkerPool(1, "order");
  for (LogWork& work : works) pool->Submit(work);
  for (LogWork& work : works) pool->Wait(work);
  EXPECT_EQ(log.size(), 100u);
  EXPECT_TRUE(std::is_sorted(log.begin(), log.end()));
}

TEST_P(OsContract, CancelledWorkDoesNotRunAndOtherWorkDoes) {
  std::vector<int> log;
  std::vector<LogWork> works = MakeWorks(200, log);
  const auto pool = os().NewWorkerPool(1, "cancel");
  for (LogWork& work : works) pool->Submit(work);
  std::vector<bool> cancelled;
  for (size_t i = 0; i < works.size(); ++i) cancelled.push_back(i % 2 == 1 && pool->Cancel(works[i]));
  for (LogWork& work : works) pool->Wait(work);
  for (size_t i = 0; i < works.size(); ++i) EXPECT_EQ(works[i].ran, !cancelled[i]) << i;
  EXPECT_FALSE(pool->Cancel(works[0])) << "it has run";
}

TEST_P(OsContract, WaitingForWorkThatWasNeverSubmittedReturnsAtOnce) {
  LogWork work;
  const auto pool = os().NewWorkerPool(1, "idle");
  pool->Wait(work);
  EXPECT_FALSE(pool->Cancel(work));
  EXPECT_FALSE(work.ran);
}

TEST_P(OsContract, WorkMayBeSubmittedAgainAfterItRan) {
  std::vector<int> log;
  std::vector<LogWork> works = MakeWorks(1, log);
  const auto pool = os().NewWorkerPool(2, "again");
  for (int i = 0; i < 3; ++i) {
    pool->Submit(works[0]);
    pool->Wait(works[0]);
  }
  EXPECT_EQ(log.size(), 3u);
}

TEST_P(OsContract, APoolMayEndUnused) { os().NewWorkerPool(4, "unused"); }

}  // namespace
}  // namespace troupe
