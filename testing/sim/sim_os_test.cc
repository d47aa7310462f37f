// What only the simulation can do: virtual time, faults, several hosts, replay. What every Os promises is tested in
// testing/os_contract.
#include "troupe/testing/sim/sim_os.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/socket.h>

#include <cerrno>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/base/errors.h"
#include "troupe/base/monotonic_time.h"
#include "troupe/testing/sim/sim_kernel.h"

namespace troupe::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::Ge;
using ::testing::IsEmpty;

constexpr MonotonicTime kForever = MonotonicTime::InfiniteFuture();
const MonotonicTime kStart;

SocketAddress Address(absl::string_view text) { return *SocketAddress::Parse(text); }

// A listener and a client on it, with the events that each poller saw on the way.
struct Wire {
  Wire(SimOs& server_os, SimOs& client_os, const SocketAddress& to) : server_os(server_os), client_os(client_os) {
    listener = server_os.Socket(to.family(), SOCK_STREAM);
    EXPECT_EQ(server_os.Bind(listener, to), 0);
    EXPECT_EQ(server_os.Listen(listener, 8), 0);
    EXPECT_EQ(server_os.LocalAddress(listener, &address), 0);
    client = client_os.Socket(to.family(), SOCK_STREAM);
    EXPECT_EQ(client_os.Connect(client, address), -EINPROGRESS);
  }
  void Accept() {
    WaitFor(server_os, listener, kReadable);
    server = server_os.Accept(listener, nullptr);
    EXPECT_GE(server, 0);
    WaitFor(client_os, client, kWritable);
    EXPECT_EQ(client_os.SocketError(client), 0);
  }
  static int WaitFor(SimOs& os, int fd, uint32_t interest, MonotonicTime deadline = kForever) {
    const auto poller = os.NewPoller();
    EXPECT_EQ(poller->Add(fd, interest, nullptr), 0);
    PollEvent events[1];
    return poller->Wait(deadline, absl::MakeSpan(events));
  }
  static std::string RecvAll(SimOs& os, int fd, size_t bytes) {
    std::string all;
    while (all.size() < bytes) {
      EXPECT_EQ(WaitFor(os, fd, kReadable), 1);
      char buffer[4096];
      const int64_t n = os.Recv(fd, absl::MakeSpan(buffer));
      if (n <= 0) break;
      all.append(buffer, static_cast<size_t>(n));
    }
    return all;
  }
  static int64_t Send(SimOs& os, int fd, absl::string_view text) {
    const iovec part = {const_cast<char*>(text.data()), text.size()};
    return os.Send(fd, absl::MakeConstSpan(&part, 1));
  }

  SimOs& server_os;
  SimOs& client_os;
  SocketAddress address;
  int listener = -1;
  int client = -1;
  int server = -1;
};

// Reports when it ran.
struct Record : Work {
  Record(SimOs& os, std::vector<std::string>& log, std::string name) : os(os), log(log), name(std::move(name)) {}
  void Run() override { log.push_back(absl::StrCat(name, "@", absl::ToInt64Microseconds(os.Now() - MonotonicTime()))); }
  SimOs& os;
  std::vector<std::string>& log;
  std::string name;
};

TEST(SimOs, TimeMovesOnlyWhileAPollerWaits) {
  SimOs os;
  EXPECT_EQ(os.Now(), kStart);
  const auto poller = os.NewPoller();
  PollEvent events[1];
  EXPECT_EQ(poller->Wait(kStart + absl::Hours(24 * 365), absl::MakeSpan(events)), 0);
  EXPECT_EQ(os.Now(), kStart + absl::Hours(24 * 365));
  EXPECT_EQ(poller->Wait(kStart, absl::MakeSpan(events)), 0);
  EXPECT_EQ(os.Now(), kStart + absl::Hours(24 * 365));
}

TEST(SimOs, AWaitThatNothingCanEndIsADeadlock) {
  SimOs os;
  const auto poller = os.NewPoller();
  PollEvent events[1];
  EXPECT_EQ(poller->Wait(kForever, absl::MakeSpan(events)), -EDEADLK);
  const int fd = os.Socket(AF_INET, SOCK_STREAM);
  ASSERT_EQ(os.Listen(fd, 1), 0);
  ASSERT_EQ(poller->Add(fd, kReadable, nullptr), 0);
  EXPECT_EQ(poller->Wait(kForever, absl::MakeSpan(events)), -EDEADLK);
  EXPECT_EQ(os.Now(), kStart);
}

TEST(SimOs, TheWallClockFollowsTimeAndJumps) {
  SimOs os(1, {.wall_start = absl::FromUnixSeconds(100)});
  EXPECT_EQ(os.WallNow(), absl::FromUnixSeconds(100));
  os.kernel().AdvanceTo(kStart + absl::Seconds(5));
  EXPECT_EQ(os.WallNow(), absl::FromUnixSeconds(105));
  os.SetWallTime(absl::FromUnixSeconds(7));
  EXPECT_EQ(os.WallNow(), absl::FromUnixSeconds(7));
  EXPECT_EQ(os.Now(), kStart + absl::Seconds(5));
}

TEST(SimOs, DescriptorsAreSmallAndReusedLowestFirst) {
  SimOs os;
  for (int expected : {3, 4, 5}) EXPECT_EQ(os.Socket(AF_INET, SOCK_STREAM), expected);
  EXPECT_EQ(os.Close(4), 0);
  EXPECT_EQ(os.Close(3), 0);
  EXPECT_EQ(os.Close(3), -EBADF);
  EXPECT_EQ(os.Socket(AF_INET, SOCK_STREAM), 3);
  EXPECT_EQ(os.Socket(AF_INET, SOCK_STREAM), 4);
  EXPECT_THAT(os.OpenDescriptors(), ElementsAre(3, 4, 5));
}

TEST(SimOs, WithoutDescriptorsAcceptLeavesTheConnectionInTheQueue) {
  SimOs os;
  Wire wire(os, os, Address("127.0.0.1:0"));
  Wire::WaitFor(os, wire.client, kWritable);
  os.SetDescriptorLimit(5);
  EXPECT_EQ(os.Accept(wire.listener, nullptr), -EMFILE);
  EXPECT_EQ(os.Socket(AF_INET, SOCK_STREAM), -EMFILE);
  int pair[2];
  EXPECT_EQ(os.SocketPair(AF_UNIX, SOCK_STREAM, pair), -EMFILE);
  os.SetDescriptorLimit(6);
  EXPECT_EQ(os.SocketPair(AF_UNIX, SOCK_STREAM, pair), -EMFILE);  // and takes none of the two
  EXPECT_EQ(os.Accept(wire.listener, nullptr), 5);
}

TEST(SimOs, BytesTakeTheLinksLatency) {
  SimKernel kernel;
  SimOs server(kernel), client(kernel);
  kernel.SetLink(client, server, {.latency = absl::Milliseconds(3)});
  kernel.SetLink(server, client, {.latency = absl::Milliseconds(5)});
  Wire wire(server, client, Address("10.0.0.1:80"));
  Wire::WaitFor(server, wire.listener, kReadable);
  EXPECT_EQ(kernel.Now(), kStart + absl::Milliseconds(3));
  Wire::WaitFor(client, wire.client, kWritable);
  EXPECT_EQ(kernel.Now(), kStart + absl::Milliseconds(8));
  wire.Accept();
  EXPECT_EQ(Wire::Send(client, wire.client, "ping"), 4);
  EXPECT_EQ(Wire::RecvAll(server, wire.server, 4), "ping");
  EXPECT_EQ(kernel.Now(), kStart + absl::Milliseconds(11));
}

TEST(SimOs, JitterNeverReordersAConnection) {
  SimKernel kernel(7);
  SimOs server(kernel), client(kernel);
  kernel.SetDefaultLink({.latency = absl::Milliseconds(1), .jitter = absl::Milliseconds(50)});
  Wire wire(server, client, Address("10.0.0.1:80"));
  wire.Accept();
  std::string sent;
  for (int i = 0; i < 100; ++i) {
    const std::string text = absl::StrCat(i, ",");
    ASSERT_EQ(Wire::Send(client, wire.client, text), static_cast<int64_t>(text.size()));
    sent += text;
  }
  EXPECT_EQ(Wire::RecvAll(server, wire.server, sent.size()), sent);
}

TEST(SimOs, AStalledLinkHoldsWhatWasSentUntilItNoLongerIs) {
  SimKernel kernel;
  SimOs server(kernel), client(kernel);
  Wire wire(server, client, Address("10.0.0.1:80"));
  wire.Accept();
  kernel.SetLink(client, server, {.stalled = true});
  EXPECT_EQ(Wire::Send(client, wire.client, "held"), 4);
  EXPECT_EQ(client.ShutdownWrite(wire.client), 0);
  EXPECT_EQ(Wire::WaitFor(server, wire.server, kReadable, kernel.Now() + absl::Minutes(10)), 0);
  kernel.SetLink(client, server, {});
  EXPECT_EQ(Wire::RecvAll(server, wire.server, 5), "held");  // and the end after it
}

TEST(SimOs, AConnectThroughAStalledLinkTriesAgainAndGivesUp) {
  SimKernel kernel;
  SimOs server(kernel), client(kernel);
  kernel.SetLink(client, server, {.stalled = true});
  Wire late(server, client, Address("10.0.0.1:80"));
  EXPECT_EQ(Wire::WaitFor(client, late.client, kWritable, kStart + absl::Milliseconds(6500)), 0);
  kernel.SetLink(client, server, {});
  EXPECT_EQ(Wire::WaitFor(client, late.client, kWritable), 1);
  EXPECT_EQ(client.SocketError(late.client), 0);
  EXPECT_EQ(kernel.Now(), kStart + absl::Seconds(7) + 2 * absl::Microseconds(250));  // tried after 1, 3 and 7 s

  kernel.SetLink(client, server, {.stalled = true});
  const MonotonicTime start = kernel.Now();
  const int fd = client.Socket(AF_INET, SOCK_STREAM);
  ASSERT_EQ(client.Connect(fd, late.address), -EINPROGRESS);
  EXPECT_EQ(Wire::WaitFor(client, fd, kWritable), 1);
  EXPECT_EQ(client.SocketError(fd), ETIMEDOUT);
  EXPECT_EQ(kernel.Now(), start + absl::Seconds(127));
}

TEST(SimOs, AConnectionThatCannotDeliverBreaksForItsSender) {
  SimKernel kernel;
  SimOs server(kernel), client(kernel);
  Wire wire(server, client, Address("10.0.0.1:80"));
  wire.Accept();
  kernel.SetLink(client, server, {.stalled = true});
  kernel.AdvanceTo(kernel.Now() + absl::Hours(5));  // an idle connection knows nothing of it
  const MonotonicTime start = kernel.Now();
  EXPECT_EQ(Wire::Send(client, wire.client, "x"), 1);
  kernel.AdvanceTo(start + absl::Minutes(15));
  EXPECT_EQ(Wire::WaitFor(client, wire.client, kReadable, kernel.Now()), 0);
  EXPECT_EQ(Wire::WaitFor(client, wire.client, kReadable), 1);
  EXPECT_GE(kernel.Now(), start + absl::Seconds(924));
  EXPECT_LE(kernel.Now(), start + absl::Seconds(925));
  char buffer[8];
  EXPECT_EQ(client.Recv(wire.client, absl::MakeSpan(buffer)), -ETIMEDOUT);
  // The other end learns it when it speaks.
  kernel.SetLink(client, server, {});
  EXPECT_EQ(Wire::WaitFor(server, wire.server, kReadable, kernel.Now() + absl::Hours(1)), 0);
  EXPECT_EQ(Wire::Send(server, wire.server, "y"), 1);
  EXPECT_EQ(Wire::WaitFor(server, wire.server, kReadable), 1);
  EXPECT_EQ(server.Recv(wire.server, absl::MakeSpan(buffer)), -ECONNRESET);
}

TEST(SimOs, ALinkThatRecoversInTimeBreaksNothing) {
  SimKernel kernel;
  SimOs server(kernel), client(kernel);
  Wire wire(server, client, Address("10.0.0.1:80"));
  wire.Accept();
  for (int i = 0; i < 3; ++i) {
    kernel.SetLink(client, server, {.stalled = true});
    EXPECT_EQ(Wire::Send(client, wire.client, "ab"), 2);
    kernel.AdvanceTo(kernel.Now() + absl::Minutes(14));
    kernel.SetLink(client, server, {});
    EXPECT_EQ(Wire::RecvAll(server, wire.server, 2), "ab");
  }
  kernel.AdvanceTo(kernel.Now() + absl::Hours(1));
  EXPECT_EQ(Wire::Send(client, wire.client, "c"), 1);
  EXPECT_EQ(Wire::RecvAll(server, wire.server, 1), "c");
}

TEST(SimOs, AFullBacklogMakesConnectsTryAgain) {
  SimOs os;
  const int listener = os.Socket(AF_INET, SOCK_STREAM);
  ASSERT_EQ(os.Bind(listener, Address("127.0.0.1:0")), 0);
  ASSERT_EQ(os.Listen(listener, 1), 0);  // Linux lets one more wait
  SocketAddress address;
  ASSERT_EQ(os.LocalAddress(listener, &address), 0);
  int clients[3];
  for (int& client : clients) {
    client = os.Socket(AF_INET, SOCK_STREAM);
    ASSERT_EQ(os.Connect(client, address), -EINPROGRESS);
  }
  EXPECT_EQ(Wire::WaitFor(os, clients[0], kWritable), 1);
  EXPECT_EQ(Wire::WaitFor(os, clients[1], kWritable), 1);
  EXPECT_EQ(Wire::WaitFor(os, clients[2], kWritable, kStart + absl::Milliseconds(999)), 0);
  EXPECT_GE(os.Accept(listener, nullptr), 0);
  EXPECT_EQ(Wire::WaitFor(os, clients[2], kWritable), 1);
  EXPECT_EQ(os.SocketError(clients[2]), 0);
  EXPECT_GT(os.Now(), kStart + absl::Seconds(1));
}

TEST(SimOs, ListenersThatShareAPortAllGetConnections) {
  SimOs os;
  int listeners[2];
  for (int& listener : listeners) {
    listener = os.Socket(AF_INET, SOCK_STREAM);
    ASSERT_EQ(os.SetSocketOption(listener, SOL_SOCKET, SO_REUSEPORT, 1), 0);
    ASSERT_EQ(os.Bind(listener, Address("127.0.0.1:80")), 0);
    ASSERT_EQ(os.Listen(listener, 64), 0);
  }
  for (int i = 0; i < 32; ++i) {
    ASSERT_EQ(os.Connect(os.Socket(AF_INET, SOCK_STREAM), Address("127.0.0.1:80")), -EINPROGRESS);
  }
  os.kernel().AdvanceTo(kStart + absl::Seconds(1));
  for (const int listener : listeners) {
    int accepted = 0;
    while (os.Accept(listener, nullptr) >= 0) ++accepted;
    EXPECT_GT(accepted, 4);
  }
}

TEST(SimOs, EphemeralPortsRunOutAndComeBack) {
  SimOs os(1, {.descriptors_max = 100'000});
  std::vector<int> fds;
  int result = 0;
  while (result == 0) {
    fds.push_back(os.Socket(AF_INET, SOCK_STREAM));
    result = os.Bind(fds.back(), Address("127.0.0.1:0"));
  }
  EXPECT_EQ(result, -EADDRINUSE);
  EXPECT_EQ(fds.size(), 60999u - 32768u + 2u);
  EXPECT_EQ(os.Connect(fds.back(), Address("127.0.0.1:80")), -EADDRNOTAVAIL);
  EXPECT_EQ(os.Close(fds[100]), 0);
  EXPECT_EQ(os.Bind(fds.back(), Address("127.0.0.1:0")), 0);
}

TEST(SimOs, ACrashedHostIsSilentUntilItComesBack) {
  SimKernel kernel;
  SimOs server(kernel, {.name = "server"}), client(kernel);
  Wire wire(server, client, Address("10.0.0.1:80"));
  wire.Accept();
  server.Crash();
  EXPECT_THAT(server.OpenDescriptors(), IsEmpty());
  EXPECT_EQ(client.Resolve({.host = "server"}).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Wire::Send(client, wire.client, "x"), 1);
  EXPECT_EQ(Wire::WaitFor(client, wire.client, kReadable, kernel.Now() + absl::Minutes(10)), 0) << "nobody tells it";
  const int connecting = client.Socket(AF_INET, SOCK_STREAM);
  EXPECT_EQ(client.Connect(connecting, wire.address), -EINPROGRESS);
  EXPECT_EQ(Wire::WaitFor(client, connecting, kWritable, kernel.Now() + absl::Minutes(1)), 0);
  server.Restart();
  EXPECT_TRUE(client.Resolve({.host = "server"}).ok());
  EXPECT_EQ(Wire::WaitFor(client, wire.client, kReadable), 1);
  char buffer[8];
  EXPECT_EQ(client.Recv(wire.client, absl::MakeSpan(buffer)), -ECONNRESET);
  EXPECT_EQ(Wire::WaitFor(client, connecting, kWritable), 1);
  EXPECT_EQ(client.SocketError(connecting), ECONNREFUSED);
  Wire again(server, client, Address("10.0.0.1:80"));
  again.Accept();
}

TEST(SimOs, NothingRunsOnACrashedHost) {
  SimOs os;
  std::vector<std::string> log;
  Record work(os, log, "work");
  auto poller = os.NewPoller();
  auto pool = os.NewWorkerPool(1, "test");
  int pair[2];
  ASSERT_EQ(os.SocketPair(AF_UNIX, SOCK_STREAM, pair), 0);
  ASSERT_EQ(poller->Add(pair[0], kWritable, nullptr), 0);
  ASSERT_EQ(os.WatchSignal(SIGTERM, *poller), 0);
  const int listener = os.Socket(AF_UNIX, SOCK_STREAM);
  ASSERT_EQ(os.Bind(listener, Address("unix:/run/x")), 0);
  pool->Submit(work);
  os.Crash();
  PollEvent events[1];
  EXPECT_EQ(poller->Wait(kForever, absl::MakeSpan(events)), -EIO);
  EXPECT_EQ(os.Socket(AF_INET, SOCK_STREAM), -EIO);
  EXPECT_EQ(Wire::Send(os, pair[0], "x"), -EIO);
  EXPECT_EQ(os.RaiseSignal(SIGTERM), -EIO);
  EXPECT_EQ(os.Close(pair[0]), -EBADF);
  os.kernel().AdvanceTo(kStart + absl::Seconds(1));
  pool->Wait(work);
  EXPECT_THAT(log, IsEmpty());
  pool.reset();
  poller.reset();
  os.Restart();
  EXPECT_TRUE(os.IsSocketFile("/run/x")) << "disks survive";
  EXPECT_EQ(os.Connect(os.Socket(AF_UNIX, SOCK_STREAM), Address("unix:/run/x")), -ECONNREFUSED);
}

TEST(SimOs, AHostMayCrashWhileItWaits) {
  SimOs os;
  auto poller = os.NewPoller();
  os.kernel().After(absl::Seconds(1), [&] { os.Crash(); });
  PollEvent events[1];
  EXPECT_EQ(poller->Wait(kForever, absl::MakeSpan(events)), -EIO);
}

TEST(SimOs, PollersAndThreadsMayBeRefused) {
  SimOs os;
  os.FailCall(1, EMFILE);
  EXPECT_THROW(os.NewPoller(), StatusError);
  std::vector<std::string> log;
  Record work(os, log, "work");
  const auto pool = os.NewWorkerPool(1, "test");
  os.FailCall(1, EAGAIN);
  EXPECT_THROW(pool->Submit(work), StatusError);
  pool->Submit(work);
  pool->Wait(work);
  EXPECT_EQ(log.size(), 1u);
}

TEST(SimOs, NobodyAtAnAddressIsUnreachable) {
  SimOs os;
  const int fd = os.Socket(AF_INET, SOCK_STREAM);
  EXPECT_EQ(os.Connect(fd, Address("10.9.9.9:80")), -EINPROGRESS);
  EXPECT_EQ(Wire::WaitFor(os, fd, kWritable), 1);
  EXPECT_EQ(os.SocketError(fd), EHOSTUNREACH);
}

TEST(SimOs, AHostThatEndsResetsItsConnections) {
  SimKernel kernel;
  auto server = std::make_unique<SimOs>(kernel);
  SimOs client(kernel);
  Wire wire(*server, client, Address("10.0.0.1:80"));
  wire.Accept();
  server.reset();
  EXPECT_EQ(Wire::RecvAll(client, wire.client, 1), "");
  EXPECT_EQ(Wire::Send(client, wire.client, "x"), 1);
  kernel.AdvanceTo(kernel.Now() + absl::Seconds(1));
  EXPECT_EQ(Wire::Send(client, wire.client, "x"), -EPIPE);
  EXPECT_EQ(client.Resolve({.host = "host0"}).status().code(), absl::StatusCode::kNotFound);
}

TEST(SimOs, ResetBreaksBothEnds) {
  SimOs os;
  Wire wire(os, os, Address("[::1]:0"));
  wire.Accept();
  os.Reset(wire.client);
  char buffer[8];
  for (int fd : {wire.client, wire.server}) {
    EXPECT_EQ(Wire::WaitFor(os, fd, 0), 1);
    EXPECT_EQ(os.Recv(fd, absl::MakeSpan(buffer)), -ECONNRESET);
    EXPECT_EQ(os.Recv(fd, absl::MakeSpan(buffer)), 0);
    EXPECT_EQ(Wire::Send(os, fd, "x"), -EPIPE);
  }
}

// Sends a byte at a time over a link, and tells when each came; an error ends it.
std::vector<std::string> Arrivals(uint64_t seed, const SimLink& link) {
  SimKernel kernel(seed);
  SimOs server(kernel), client(kernel);
  Wire wire(server, client, Address("10.0.0.1:80"));
  wire.Accept();
  kernel.SetLink(client, server, link);
  std::vector<std::string> arrivals;
  for (int i = 0; i < 200; ++i) {
    if (Wire::Send(client, wire.client, "x") != 1) break;
    Wire::WaitFor(server, wire.server, kReadable);
    char byte[1];
    if (const int64_t n = server.Recv(wire.server, absl::MakeSpan(byte)); n != 1) {
      arrivals.push_back(absl::StrCat("error ", -n));
      EXPECT_EQ(client.SocketError(wire.client), ECONNRESET) << "the sender is told too";
      break;
    }
    arrivals.push_back(absl::FormatDuration(kernel.Now() - kStart));
  }
  return arrivals;
}

TEST(SimOs, AHangUpIsTheEndOfFileAtBothEndsAndWhoStillSendsIsReset) {
  SimKernel kernel;
  SimOs server(kernel), client(kernel);
  Wire wire(server, client, WithPort(server.ips()[0], 7000));
  wire.Accept();
  EXPECT_EQ(Wire::Send(server, wire.server, "lost"), 4);
  EXPECT_EQ(Wire::WaitFor(client, wire.client, kReadable), 1);
  client.HangUp(wire.client);
  char byte;
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(client.Recv(wire.client, absl::MakeSpan(&byte, 1)), 0);
    EXPECT_EQ(server.Recv(wire.server, absl::MakeSpan(&byte, 1)), 0);
  }
  EXPECT_EQ(Wire::Send(client, wire.client, "x"), 1);
  kernel.AdvanceTo(kernel.Now() + absl::Seconds(1));
  EXPECT_EQ(Wire::Send(client, wire.client, "y"), -EPIPE);
  EXPECT_EQ(server.ShutdownWrite(wire.server), 0);
  for (const int fd : {wire.listener, wire.server}) server.Close(fd);
  client.Close(wire.client);
}

TEST(SimOs, AHangUpOfAPipeEndsIt) {
  SimOs os;
  int fds[2];
  for (const int end : {0, 1}) {
    ASSERT_EQ(os.MakePipe(fds), 0);
    const iovec part = {const_cast<char*>("lost"), 4};
    ASSERT_EQ(os.Write(fds[1], absl::MakeConstSpan(&part, 1)), 4);
    os.HangUp(fds[end]);
    char byte;
    EXPECT_EQ(os.Read(fds[0], absl::MakeSpan(&byte, 1)), end == 0 ? 0 : 1);
    EXPECT_EQ(os.Write(fds[1], absl::MakeConstSpan(&part, 1)), -EPIPE);
    for (const int fd : fds) os.Close(fd);
  }
}

TEST(SimOs, LinksStallAndResetByChanceAndTheSameSeedRepeatsIt) {
  const SimLink stalls = {.latency = absl::ZeroDuration(), .stall_chance = 0.1, .stall_max = absl::Milliseconds(50)};
  const std::vector<std::string> stalled = Arrivals(1, stalls);
  EXPECT_EQ(stalled.size(), 200u);
  EXPECT_EQ(stalled, Arrivals(1, stalls));
  EXPECT_NE(stalled, Arrivals(2, stalls));
  const std::set<std::string> times(stalled.begin(), stalled.end());
  EXPECT_GT(times.size(), 5u);
  EXPECT_LT(times.size(), 60u);

  const SimLink resets = {.latency = absl::ZeroDuration(), .reset_chance = 0.05};
  const std::vector<std::string> broken = Arrivals(1, resets);
  EXPECT_LT(broken.size(), 200u);
  EXPECT_EQ(broken.back(), absl::StrCat("error ", ECONNRESET));
  EXPECT_EQ(broken, Arrivals(1, resets));
  EXPECT_NE(broken.size(), Arrivals(2, resets).size());
}

TEST(SimOs, IoLimitsSplitReadsAndWrites) {
  SimOs os;
  Wire wire(os, os, Address("127.0.0.1:0"));
  wire.Accept();
  os.SetIoLimits({.recv_bytes_max = 2, .send_bytes_max = 3});
  EXPECT_EQ(Wire::Send(os, wire.client, "abcdef"), 3);
  Wire::WaitFor(os, wire.server, kReadable);
  char buffer[8];
  EXPECT_EQ(os.Recv(wire.server, absl::MakeSpan(buffer)), 2);
  EXPECT_EQ(os.Recv(wire.server, absl::MakeSpan(buffer)), 1);
  EXPECT_EQ(os.Recv(wire.server, absl::MakeSpan(buffer)), -EAGAIN);
}

TEST(SimOs, RandomIoLimitsComeFromTheSeed) {
  const auto sizes = [](uint64_t seed) {
    SimOs os(seed);
    Wire wire(os, os, Address("127.0.0.1:0"));
    wire.Accept();
    os.SetIoLimits({.send_bytes_max = 100, .random = true});
    std::vector<int64_t> sent;
    for (int i = 0; i < 20; ++i) sent.push_back(Wire::Send(os, wire.client, std::string(100, 'x')));
    return sent;
  };
  const std::vector<int64_t> first = sizes(1);
  EXPECT_THAT(first, ::testing::Each(::testing::AllOf(Ge(1), ::testing::Le(100))));
  EXPECT_EQ(first, sizes(1));
  EXPECT_NE(first, sizes(2));
}

TEST(SimOs, TheKthCallFailsOnceAndChangesNothing) {
  SimOs os;
  os.FailCall(2, ENFILE);
  const int fd = os.Socket(AF_INET, SOCK_STREAM);
  EXPECT_EQ(fd, 3);
  EXPECT_FALSE(os.fault_was_injected());
  EXPECT_EQ(os.Socket(AF_INET, SOCK_STREAM), -ENFILE);
  EXPECT_TRUE(os.fault_was_injected());
  EXPECT_EQ(os.Socket(AF_INET, SOCK_STREAM), 4);
}

TEST(SimOs, AFaultHookSeesOperationAndDescriptor) {
  SimOs os;
  std::vector<std::string> seen;
  os.SetFault([&](absl::string_view operation, int fd) {
    seen.push_back(absl::StrCat(operation, " ", fd));
    return operation == "Bind" ? EACCES : 0;
  });
  const int fd = os.Socket(AF_INET, SOCK_STREAM);
  EXPECT_EQ(os.Bind(fd, Address("127.0.0.1:0")), -EACCES);
  const auto poller = os.NewPoller();
  EXPECT_EQ(poller->Add(fd, kReadable, nullptr), 0);
  EXPECT_EQ(os.Close(fd), 0);
  EXPECT_THAT(seen, ElementsAre("Socket -1", "Bind 3", "NewPoller -1", "Poller.Add 3", "Close 3"));
}

TEST(SimOs, AFailedCloseClosesAllTheSame) {
  SimOs os;
  const int fd = os.Socket(AF_INET, SOCK_STREAM);
  os.FailCall(1, EIO);
  EXPECT_EQ(os.Close(fd), -EIO);
  EXPECT_THAT(os.OpenDescriptors(), IsEmpty());
}

TEST(SimOs, OptionsOfASocketCanBeRead) {
  SimOs os;
  const int fd = os.Socket(AF_INET, SOCK_STREAM);
  int value = -1;
  EXPECT_EQ(os.GetSocketOption(fd, IPPROTO_TCP, TCP_NODELAY, &value), 0);
  EXPECT_EQ(value, 0);
  EXPECT_EQ(os.SetSocketOption(fd, IPPROTO_TCP, TCP_NODELAY, 1), 0);
  EXPECT_EQ(os.GetSocketOption(fd, IPPROTO_TCP, TCP_NODELAY, &value), 0);
  EXPECT_EQ(value, 1);
}

TEST(SimOs, NamesComeFromTheKernelsTable) {
  SimKernel kernel;
  SimOs os(kernel, {.name = "kv"});
  EXPECT_EQ(os.Resolve({.host = "nobody"}).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(os.Resolve({.host = "kv", .service = "7400", .family = AF_INET}).value().at(0).ToString(), "10.0.0.1:7400");
  kernel.SetName("db", {Address("10.0.0.9:1"), Address("[fd00::9]:1")});
  const auto both = os.Resolve({.host = "db", .service = "https"});
  ASSERT_TRUE(both.ok());
  ASSERT_EQ(both->size(), 2u);
  EXPECT_EQ((*both)[0].ToString(), "10.0.0.9:443");
  EXPECT_EQ((*both)[1].ToString(), "[fd00::9]:443");
  kernel.SetNameError("db", absl::UnavailableError("the name server sleeps"));
  EXPECT_EQ(os.Resolve({.host = "db"}).status().code(), absl::StatusCode::kUnavailable);
}

TEST(SimOs, WithoutIpv6ThereIsNoSuchFamily) {
  SimOs os(1, {.ipv6 = false});
  EXPECT_EQ(os.Socket(AF_INET6, SOCK_STREAM), -EAFNOSUPPORT);
  EXPECT_EQ(os.Socket(AF_INET, SOCK_SEQPACKET), -ESOCKTNOSUPPORT);
}

TEST(SimOs, SignalsBelongToTheHost) {
  SimKernel kernel;
  SimOs a(kernel), b(kernel);
  const auto poller = a.NewPoller();
  ASSERT_EQ(a.WatchSignal(SIGTERM, *poller), 0);
  EXPECT_EQ(b.RaiseSignal(SIGTERM), 0);
  EXPECT_THAT(b.unwatched_signals(), ElementsAre(SIGTERM));
  EXPECT_EQ(a.TakeSignals(*poller), 0u);
  EXPECT_EQ(a.RaiseSignal(SIGTERM), 0);
  EXPECT_EQ(a.TakeSignals(*poller), uint64_t{1} << SIGTERM);
}

TEST(SimWorkerPool, WorkRunsInVirtualTimeOnAsManyWorkersAsThereAre) {
  SimOs os(1, {.worker_latency = absl::Microseconds(10)});
  std::vector<std::string> log;
  Record a(os, log, "a"), b(os, log, "b"), c(os, log, "c");
  const auto pool = os.NewWorkerPool(2, "test");
  for (Record* work : {&a, &b, &c}) pool->Submit(*work);
  EXPECT_THAT(log, IsEmpty());
  os.kernel().AdvanceTo(kStart + absl::Seconds(1));
  EXPECT_THAT(log, ElementsAre("a@10", "b@10", "c@20"));
}

TEST(SimWorkerPool, WaitRunsWhatStandsBeforeItAndNothingElse) {
  SimOs os;
  std::vector<std::string> log;
  Record a(os, log, "a"), b(os, log, "b"), c(os, log, "c");
  auto pool = os.NewWorkerPool(1, "test");
  for (Record* work : {&a, &b, &c}) pool->Submit(*work);
  pool->Wait(b);
  EXPECT_THAT(log, ElementsAre("a@0", "b@0"));
  pool.reset();
  os.kernel().AdvanceTo(kStart + absl::Seconds(1));
  EXPECT_EQ(log.size(), 2u);
}

// A small world: two hosts, some chaos, everything drawn from the seed.
uint64_t HashOfRun(uint64_t seed) {
  SimKernel kernel(seed);
  SimOs server(kernel), client(kernel);
  kernel.SetDefaultLink({.latency = absl::Milliseconds(1), .jitter = absl::Milliseconds(5)});
  Wire wire(server, client, Address("10.0.0.1:80"));
  wire.Accept();
  server.SetIoLimits({.recv_bytes_max = 50, .random = true});
  char random[32];
  client.FillRandom(absl::MakeSpan(random));
  for (int i = 0; i < 10; ++i) Wire::Send(client, wire.client, absl::string_view(random, sizeof(random)));
  EXPECT_EQ(Wire::RecvAll(server, wire.server, 320).size(), 320u);
  return kernel.TraceHash();
}

TEST(SimOs, WhatAManagerHandedOverIsTakenOnce) {
  SimOs os;
  const int fd = os.Socket(AF_INET, SOCK_STREAM);
  os.HandOver(fd, "http");
  absl::StatusOr<std::vector<ListenDescriptor>> taken = os.TakeListenDescriptors();
  ASSERT_TRUE(taken.ok()) << taken.status();
  ASSERT_EQ(taken->size(), 1u);
  EXPECT_EQ(taken->front().fd, fd);
  EXPECT_EQ(taken->front().name, "http");
  EXPECT_THAT(*os.TakeListenDescriptors(), ::testing::IsEmpty());
}

TEST(SimKernel, TheSameSeedGivesTheSameTrace) {
  EXPECT_EQ(HashOfRun(5), HashOfRun(5));
  EXPECT_NE(HashOfRun(5), HashOfRun(6));
}

TEST(SimKernel, EventsRunInTheOrderOfTimeThenOfScheduling) {
  SimKernel kernel;
  std::vector<std::string> log;
  const auto note = [&](const char* what) { return [&log, what] { log.push_back(what); }; };
  EXPECT_EQ(kernel.NextEventTime(), kForever);
  kernel.After(absl::Seconds(2), note("2s"));
  kernel.After(absl::Seconds(1), note("1s first"));
  const SimClock::EventId cancelled = kernel.After(absl::Seconds(1), note("cancelled"));
  kernel.After(absl::Seconds(1), [&] {
    log.push_back("1s second");
    kernel.After(absl::ZeroDuration(), note("1s third"));
  });
  EXPECT_TRUE(kernel.Cancel(cancelled));
  EXPECT_FALSE(kernel.Cancel(cancelled));
  EXPECT_EQ(kernel.NextEventTime(), kStart + absl::Seconds(1));
  kernel.AdvanceTo(kStart + absl::Seconds(1));
  EXPECT_THAT(log, ElementsAre("1s first", "1s second", "1s third"));
  EXPECT_EQ(kernel.NextEventTime(), kStart + absl::Seconds(2));
  kernel.AdvanceTo(kStart + absl::Milliseconds(2500));
  EXPECT_EQ(log.back(), "2s");
  EXPECT_EQ(kernel.Now(), kStart + absl::Milliseconds(2500));
}

// Such an event, or work, may have called a loop on this thread, which then has something to do before the deadline.
TEST(SimKernel, AWaitReturnsAfterCodeThatIsNotTheKernels) {
  SimOs os;
  const auto poller = os.NewPoller();
  PollEvent events[1];
  os.kernel().After(absl::Seconds(1), [] {});
  EXPECT_EQ(poller->Wait(kForever, absl::MakeSpan(events)), 0);
  EXPECT_EQ(os.Now(), kStart + absl::Seconds(1));

  std::vector<std::string> log;
  Record work(os, log, "work");
  const auto pool = os.NewWorkerPool(1, "test");
  pool->Submit(work);
  EXPECT_EQ(poller->Wait(kForever, absl::MakeSpan(events)), 0);
  EXPECT_EQ(log.size(), 1u);
  EXPECT_EQ(poller->Wait(kForever, absl::MakeSpan(events)), -EDEADLK);
}

TEST(SimKernelDeathTest, ARealThreadThatReachesInIsFatal) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(
      {
        SimOs os;
        const auto poller = os.NewPoller();
        std::thread([&] { poller->Wake(); }).join();
      },
      "a real thread reached into a simulation");
}

TEST(SimKernelDeathTest, AnEventMayNotWait) {
  EXPECT_DEATH(
      {
        SimOs os;
        const auto poller = os.NewPoller();
        os.kernel().After(absl::ZeroDuration(), [&] {
          PollEvent events[1];
          poller->Wait(kForever, absl::MakeSpan(events));
        });
        os.kernel().AdvanceTo(kStart);
      },
      "an event of the simulated kernel waits");
}

}  // namespace
}  // namespace troupe::testing
