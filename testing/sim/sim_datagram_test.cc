// What only the simulation can do with datagrams: lose, delay, double and reorder them by a seed, on links between hosts.
#include "troupe/testing/sim/sim_datagram.h"

#include <sys/socket.h>

#include <cerrno>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/base/monotonic_time.h"
#include "troupe/base/socket_address.h"
#include "troupe/testing/sim/sim_kernel.h"
#include "troupe/testing/sim/sim_os.h"

namespace troupe::testing {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Gt;
using ::testing::IsEmpty;
using ::testing::Lt;
using ::testing::SizeIs;

// A receiver on one host and a sender on another.
struct Link {
  explicit Link(uint64_t seed, const SimLink& link) : kernel(seed) {
    kernel.SetDefaultLink(link);
    receiver = there.Socket(AF_INET, SOCK_DGRAM);
    EXPECT_EQ(there.Bind(receiver, *SocketAddress::FromIp(there.ips()[0].host(), 4000)), 0);
    EXPECT_EQ(there.LocalAddress(receiver, &address), 0);
    sender = here.Socket(AF_INET, SOCK_DGRAM);
  }
  int64_t Send(absl::string_view text) {
    return here.SendTo(sender, absl::MakeConstSpan(text.data(), text.size()), &address);
  }
  void Settle() {
    while (!kernel.NextEventTime().is_infinite()) kernel.AdvanceTo(kernel.NextEventTime());
  }
  std::vector<std::string> Received() {
    std::vector<std::string> all;
    char buffer[100];
    SocketAddress from;
    for (int64_t n; (n = there.ReceiveFrom(receiver, absl::MakeSpan(buffer), &from)) >= 0;) {
      all.emplace_back(buffer, static_cast<size_t>(n));
    }
    return all;
  }
  std::vector<std::string> SendMany(int count) {
    for (int i = 0; i < count; ++i) EXPECT_GT(Send(absl::StrCat(i)), 0);
    Settle();
    return Received();
  }

  SimKernel kernel;
  SimOs there{kernel}, here{kernel};
  int receiver = -1;
  int sender = -1;
  SocketAddress address;
};

TEST(SimDatagram, TakesTheLinksLatency) {
  Link link(1, {.latency = absl::Milliseconds(30)});
  EXPECT_EQ(link.Send("x"), 1);
  link.kernel.AdvanceTo(MonotonicTime() + absl::Milliseconds(29));
  EXPECT_THAT(link.Received(), IsEmpty());
  link.kernel.AdvanceTo(MonotonicTime() + absl::Milliseconds(30));
  EXPECT_THAT(link.Received(), ElementsAre("x"));
}

TEST(SimDatagram, JitterLetsOneOvertakeAnother) {
  std::vector<std::string> in_order;
  for (int i = 0; i < 50; ++i) in_order.push_back(absl::StrCat(i));
  Link steady(7, {});
  EXPECT_EQ(steady.SendMany(50), in_order);
  Link jittery(7, {.jitter = absl::Milliseconds(5)});
  const std::vector<std::string> received = jittery.SendMany(50);
  EXPECT_NE(received, in_order);
  EXPECT_EQ(std::set<std::string>(received.begin(), received.end()),
            std::set<std::string>(in_order.begin(), in_order.end()));
}

TEST(SimDatagram, IsLostOrDoubledByChanceAndTheSameSeedRepeatsIt) {
  const auto run = [](uint64_t seed, const SimLink& link) { return Link(seed, link).SendMany(200); };
  EXPECT_THAT(run(3, {.loss_chance = 1}), IsEmpty());
  EXPECT_THAT(run(3, {.loss_chance = 0.3}), SizeIs(AllOf(Gt(100u), Lt(180u))));
  EXPECT_THAT(run(3, {.duplicate_chance = 1}), SizeIs(400));
  EXPECT_THAT(run(3, {.duplicate_chance = 0.3}), SizeIs(AllOf(Gt(220u), Lt(300u))));
  const SimLink bad = {.jitter = absl::Milliseconds(3), .stall_chance = 0.1, .loss_chance = 0.2, .duplicate_chance = 0.2};
  EXPECT_EQ(run(3, bad), run(3, bad));
  EXPECT_NE(run(3, bad), run(4, bad));
}

TEST(SimDatagram, AStalledLinkLosesWhatASteadyOneDelivers) {
  Link link(1, {});
  SimLink stalled = {.stalled = true};
  link.kernel.SetLink(link.here, link.there, stalled);
  EXPECT_EQ(link.Send("sent while stalled"), 18);
  link.kernel.SetLink(link.here, link.there, {});
  EXPECT_EQ(link.Send("fine"), 4);
  link.Settle();
  EXPECT_THAT(link.Received(), ElementsAre("fine"));
  EXPECT_EQ(link.Send("under way when it stalls"), 24);
  link.kernel.SetLink(link.here, link.there, stalled);
  link.Settle();
  EXPECT_THAT(link.Received(), IsEmpty());
}

TEST(SimDatagram, AHostThatIsDownIsSilent) {
  Link link(1, {});
  ASSERT_EQ(link.here.Connect(link.sender, link.address), 0);
  link.there.Crash();
  EXPECT_EQ(link.Send("x"), 1);
  link.Settle();
  EXPECT_EQ(link.here.SocketError(link.sender), 0);
  link.there.Restart();
  EXPECT_EQ(link.Send("x"), 1);
  link.Settle();
  EXPECT_EQ(link.here.SocketError(link.sender), ECONNREFUSED);
}

TEST(SimDatagram, NobodyAtAnAddressIsUnreachable) {
  Link link(1, {});
  const SocketAddress nowhere = *SocketAddress::FromIp("192.0.2.1", 9);
  ASSERT_EQ(link.here.Connect(link.sender, nowhere), 0);
  EXPECT_EQ(link.here.SendTo(link.sender, {}, nullptr), 0);
  link.Settle();
  EXPECT_EQ(link.here.SocketError(link.sender), EHOSTUNREACH);
}

TEST(SimDatagram, TheSendBufferBoundsWhatIsUnderWayAlsoWhatIsLost) {
  for (const double loss : {0.0, 1.0}) {
    Link link(1, {.latency = absl::Milliseconds(1), .loss_chance = loss});
    ASSERT_EQ(link.here.SetSocketOption(link.sender, SOL_SOCKET, SO_SNDBUF, 10), 0);
    int sent = 0;
    while (sent < 100 && link.Send("12345") == 5) ++sent;
    // What is lost at once takes no room.
    EXPECT_EQ(sent, loss == 0 ? 2 : 100);
    const auto poller = link.here.NewPoller();
    PollEvent event;
    ASSERT_EQ(poller->Add(link.sender, kWritable, nullptr), 0);
    EXPECT_EQ(poller->Wait(MonotonicTime::InfiniteFuture(), absl::MakeSpan(&event, 1)), 1);
    EXPECT_EQ(link.kernel.Now(), MonotonicTime() + (loss == 0 ? absl::Milliseconds(1) : absl::ZeroDuration()));
    EXPECT_EQ(link.Send("12345"), 5);
  }
}

TEST(SimDatagram, ABroadcastReachesEveryHost) {
  SimKernel kernel;
  SimOs a(kernel), b(kernel), c(kernel);
  std::vector<int> fds;
  for (SimOs* os : {&a, &b, &c}) {
    fds.push_back(os->Socket(AF_INET, SOCK_DGRAM));
    ASSERT_EQ(os->Bind(fds.back(), *SocketAddress::Parse("0.0.0.0:4000")), 0);
  }
  ASSERT_EQ(a.SetSocketOption(fds[0], SOL_SOCKET, SO_BROADCAST, 1), 0);
  const SocketAddress all = *SocketAddress::Parse("255.255.255.255:4000");
  EXPECT_EQ(b.SendTo(fds[1], {}, &all), -EACCES);
  EXPECT_EQ(a.SendTo(fds[0], absl::MakeConstSpan("x", 1), &all), 1);
  while (!kernel.NextEventTime().is_infinite()) kernel.AdvanceTo(kernel.NextEventTime());
  char byte;
  SocketAddress from;
  std::vector<int64_t> results;
  results.push_back(a.ReceiveFrom(fds[0], absl::MakeSpan(&byte, 1), &from));
  results.push_back(b.ReceiveFrom(fds[1], absl::MakeSpan(&byte, 1), &from));
  EXPECT_EQ(from.host(), a.ips()[0].host());
  results.push_back(c.ReceiveFrom(fds[2], absl::MakeSpan(&byte, 1), &from));
  EXPECT_THAT(results, Each(1));
}

TEST(SimDatagram, IoLimitsDoNotCutThem) {
  Link link(1, {});
  link.here.SetIoLimits({.recv_bytes_max = 1, .send_bytes_max = 1});
  link.there.SetIoLimits({.recv_bytes_max = 1, .send_bytes_max = 1});
  EXPECT_EQ(link.Send("whole"), 5);
  link.Settle();
  char buffer[100];
  EXPECT_EQ(link.there.Recv(link.receiver, absl::MakeSpan(buffer)), 5);
}

}  // namespace
}  // namespace troupe::testing
