// Connecting to several addresses in virtual time: one after the other, and with happy eyeballs (RFC 8305). Numbers in
// comments are those of the contract's rules.
#include <sys/socket.h>

#include <cerrno>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/sleep.h"
#include "troupe/async/task.h"
#include "troupe/base/errors.h"
#include "troupe/base/socket_address.h"
#include "troupe/loop/event_loop.h"
#include "troupe/loop/exception_context.h"
#include "troupe/loop/loop_testing.h"
#include "troupe/net/connect.h"
#include "troupe/net/internal/net_testing.h"
#include "troupe/testing/sim/sim_os.h"

namespace troupe {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr int kNever = -1;

// The name many.test has the address of every host that a test adds, in that order.
class ConnectRaceTest : public internal::NetTest {
 protected:
  ~ConnectRaceTest() override {
    clients_.clear();
    Settle();
    EXPECT_THAT(os_.OpenDescriptors(), IsEmpty());
  }

  struct Host {
    std::unique_ptr<testing::SimOs> os;
    int listener = -1;
  };
  // A host that answers after so many milliseconds: it takes connections, or refuses them.
  void Add(absl::string_view ip, int answers_after, bool refuses = false) {
    const SocketAddress address = *SocketAddress::FromIp(ip, 7000);
    testing::SimHostOptions options;
    options.name = absl::StrCat("remote", hosts_.size());
    options.ips = {address};
    Host host{.os = std::make_unique<testing::SimOs>(os_.kernel(), options)};
    const absl::Duration latency = absl::Milliseconds(answers_after) / 2;
    const testing::SimLink link = answers_after == kNever ? testing::SimLink{.stalled = true}
                                                          : testing::SimLink{.latency = latency};
    os_.kernel().SetLink(os_, *host.os, link);
    os_.kernel().SetLink(*host.os, os_, link);
    if (!refuses) {
      host.listener = host.os->Socket(address.family(), SOCK_STREAM);
      EXPECT_EQ(host.os->Bind(host.listener, address), 0);
      EXPECT_EQ(host.os->Listen(host.listener, 128), 0);  // what was given up waits there too
    }
    hosts_.push_back(std::move(host));
    addresses_.push_back(address);
    os_.kernel().SetName("many.test", addresses_);
  }
  void AddRefusing(absl::string_view ip, int answers_after) { Add(ip, answers_after, /*refuses=*/true); }

  static ConnectOptions Options(int delay_ms) {
    ConnectOptions options;
    options.target = "many.test:7000";
    if (delay_ms != kNever) options.happy_eyeballs_delay = absl::Milliseconds(delay_ms);
    return options;
  }
  // "whom after how many milliseconds", or "code after ...".
  std::string Race(const ConnectOptions& options) {
    const MonotonicTime start = loop_.Time();
    absl::StatusOr<Connected<>> connected = TryConnect(options);
    const int64_t took = absl::ToInt64Milliseconds(loop_.Time() - start);
    // Nothing of it is left but the winner's socket: no timer, no other descriptor.
    EXPECT_THAT(os_.OpenDescriptors(), SizeIs(connected.ok() ? 1 : 0));
    RunReady();
    EXPECT_TRUE(loop_.NextWakeup().is_infinite());
    if (!connected.ok()) return absl::StrCat(absl::StatusCodeToString(connected.status().code()), " after ", took);
    clients_.push_back(std::move(connected->transport));
    return absl::StrCat(clients_.back()->peer().host(), " after ", took);
  }
  std::string Race(int delay_ms) { return Race(Options(delay_ms)); }
  // In which order addresses are tried.
  std::string Order(const ConnectOptions& options) {
    const std::string message(TryConnect(options).status().message());
    std::vector<std::string> order;
    for (size_t at = message.find("connect "); at != std::string::npos; at = message.find("connect ", at + 1)) {
      const size_t begin = at + 8;
      order.push_back(SocketAddress::Parse(message.substr(begin, message.find(": ", begin) - begin))->host());
    }
    return absl::StrJoin(order, " ");
  }

  std::vector<Host> hosts_;
  std::vector<SocketAddress> addresses_;
};
INSTANTIATE_POLLING(ConnectRaceTest);

// C-CON-03
TEST_P(ConnectRaceTest, WithoutADelayEachWaitsForTheFailureOfTheOneBefore) {
  AddRefusing("10.1.0.1", 100);
  Add("10.1.0.2", 1000);
  Add("10.1.0.3", 10);
  EXPECT_EQ(Race(kNever), "10.1.0.2 after 1100");
}

// C-CON-10
TEST_P(ConnectRaceTest, OneThatDoesNotAnswerIsJoinedByTheNext) {
  Add("10.1.0.1", kNever);
  Add("10.1.0.2", 20);
  EXPECT_EQ(Race(250), "10.1.0.2 after 270");
}

// C-CON-10
TEST_P(ConnectRaceTest, OneThatFailsEarlyIsFollowedAtOnce) {
  AddRefusing("10.1.0.1", 10);
  AddRefusing("10.1.0.2", 20);
  Add("10.1.0.3", 30);
  EXPECT_EQ(Race(250), "10.1.0.3 after 60");
}

// C-CON-10
TEST_P(ConnectRaceTest, OneThatIsSlowMayStillWin) {
  Add("10.1.0.1", 300);
  Add("10.1.0.2", 100);
  EXPECT_EQ(Race(250), "10.1.0.1 after 300");
  // What was given up hears of it.
  Settle();
  const int accepted = hosts_[1].os->Accept(hosts_[1].listener, nullptr);
  if (accepted >= 0) {
    char byte[1];
    EXPECT_THAT(hosts_[1].os->Recv(accepted, absl::MakeSpan(byte)), ::testing::AnyOf(0, -ECONNRESET));
  }
}

// C-CON-10: the last one to be tried has its time, whatever becomes of those before.
TEST_P(ConnectRaceTest, AnEarlierOnesFailureHurriesNobody) {
  AddRefusing("10.1.0.1", 300);
  Add("10.1.0.2", kNever);
  Add("10.1.0.3", 10);
  EXPECT_EQ(Race(250), "10.1.0.3 after 510");
}

// C-CON-10
TEST_P(ConnectRaceTest, TheDelayCountsFromTheStartOfTheLastOne) {
  AddRefusing("10.1.0.1", 100);
  Add("10.1.0.2", kNever);
  Add("10.1.0.3", 10);
  EXPECT_EQ(Race(250), "10.1.0.3 after 360");
}

// C-CON-10
TEST_P(ConnectRaceTest, WithADelayOfNothingAllAreTriedAtOnce) {
  Add("10.1.0.1", 300);
  Add("10.1.0.2", 200);
  Add("10.1.0.3", 100);
  EXPECT_EQ(Race(0), "10.1.0.3 after 100");
}

// C-CON-10
TEST_P(ConnectRaceTest, OfTwoThatAnswerInTheSameMomentOneWinsAndTheOtherIsClosed) {
  Add("10.1.0.1", 260);
  Add("10.1.0.2", 10);
  EXPECT_THAT(Race(250), ::testing::AnyOf("10.1.0.1 after 260", "10.1.0.2 after 260"));
  EXPECT_EQ(factory_calls_, 1);
}

// C-CON-04, C-CON-10
TEST_P(ConnectRaceTest, IfAllFailTheErrorIsTheirsInTheirOrder) {
  AddRefusing("10.1.0.1", 400);
  AddRefusing("10.1.0.2", 20);
  AddRefusing("10.1.0.3", 30);
  const MonotonicTime start = loop_.Time();
  const absl::Status status = TryConnect(Options(250)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(status.message(),
            "Multiple exceptions: connect 10.1.0.1:7000: Connection refused, connect 10.1.0.2:7000: Connection refused, "
            "connect 10.1.0.3:7000: Connection refused");
  EXPECT_EQ(absl::ToInt64Milliseconds(loop_.Time() - start), 400) << "the last answer to come";
  EXPECT_EQ(factory_calls_, 0);
  EXPECT_THAT(os_.OpenDescriptors(), IsEmpty());
}

// C-CON-03, C-CON-10
TEST_P(ConnectRaceTest, WhatCannotEvenBeTriedIsPassedOver) {
  Add("10.1.0.1", kNever);
  Add("10.1.0.2", 10);
  Add("10.1.0.3", 10);
  int sockets = 0;
  os_.SetFault([&](absl::string_view operation, int) { return operation == "Socket" && ++sockets == 2 ? EMFILE : 0; });
  EXPECT_EQ(Race(250), "10.1.0.3 after 260");
  os_.SetFault([&](absl::string_view operation, int) { return operation == "Poller.Add" ? ENOSPC : 0; });
  EXPECT_EQ(TryConnect(Options(250)).status().code(), absl::StatusCode::kResourceExhausted);
  os_.SetFault(nullptr);
}

// C-CON-10: cancelled at every point of its way it leaves nothing behind.
TEST_P(ConnectRaceTest, CancelledAnywhereItClosesWhatWasOpen) {
  AddRefusing("10.1.0.1", 100);
  Add("10.1.0.2", kNever);
  Add("10.1.0.3", 600);
  Add("10.1.0.4", 200);
  int cancelled = 0;
  for (int i = 0;; ++i) {
    ASSERT_LT(i, 100);
    const auto connecting = loop_.CreateTask(Connecting(Options(250)));
    loop_.CallLater(i * absl::Milliseconds(10), [connecting] { connecting.Cancel(); });
    while (!connecting.done()) loop_.RunUntilComplete(Sleep(absl::Milliseconds(5)));
    if (!connecting.cancelled()) break;
    ++cancelled;
    ASSERT_THAT(os_.OpenDescriptors(), IsEmpty()) << "after " << i;
  }
  EXPECT_GT(cancelled, 60);
  EXPECT_EQ(factory_calls_, 1);
}

TEST_P(ConnectRaceTest, ALoopThatClosesInTheMiddleLeavesNothingOpen) {
  Add("10.1.0.1", kNever);
  Add("10.1.0.2", kNever);
  EventLoop other(os_);
  other.SetExceptionHandler([](EventLoop&, const ExceptionContext&) {});
  const auto connecting =
      other.CreateTask(CreateConnection(other, [this] { return client_.NewProtocol(); }, Options(10)));
  other.CallLater(absl::Milliseconds(50), [&] { other.Stop(); });
  other.RunForever();
  EXPECT_THAT(os_.OpenDescriptors(), SizeIs(2));
  other.Close();
  EXPECT_TRUE(connecting.cancelled());
  EXPECT_THAT(os_.OpenDescriptors(), IsEmpty());
}

// RFC 8305, section 4
TEST_P(ConnectRaceTest, FamiliesTakeTurns) {
  for (const char* ip : {"fd01::1", "fd01::2", "fd01::3", "10.1.0.1", "10.1.0.2"}) AddRefusing(ip, 10);
  ConnectOptions options = Options(250);
  EXPECT_EQ(Order(options), "fd01::1 10.1.0.1 fd01::2 10.1.0.2 fd01::3");
  options.interleave = 2;
  EXPECT_EQ(Order(options), "fd01::1 fd01::2 10.1.0.1 fd01::3 10.1.0.2");
  options.interleave = 9;
  EXPECT_EQ(Order(options), "fd01::1 fd01::2 fd01::3 10.1.0.1 10.1.0.2");
  options.interleave = 0;
  EXPECT_EQ(Order(options), "fd01::1 fd01::2 fd01::3 10.1.0.1 10.1.0.2");
  EXPECT_EQ(Order(Options(kNever)), "fd01::1 fd01::2 fd01::3 10.1.0.1 10.1.0.2");
  options = Options(kNever);
  options.interleave = 1;
  EXPECT_EQ(Order(options), "fd01::1 10.1.0.1 fd01::2 10.1.0.2 fd01::3");
}

TEST_P(ConnectRaceTest, TheLocalAddressDecidesTheFamily) {
  AddRefusing("fd01::1", 10);
  Add("10.1.0.1", 10);
  ConnectOptions options = Options(250);
  options.local_address = Address("10.0.0.1:7123");
  EXPECT_EQ(Race(options), "10.1.0.1 after 10");
  EXPECT_EQ(clients_.back()->local(), Address("10.0.0.1:7123"));
  addresses_.pop_back();
  os_.kernel().SetName("many.test", addresses_);
  EXPECT_EQ(TryConnect(options).status(),
            absl::InvalidArgumentError(
                "connect [fd01::1]:7000: the local address 10.0.0.1:7123 is of another family"));
}

// C-CON-02
TEST_P(ConnectRaceTest, OptionsThatMakeNoSenseAreRefused) {
  ConnectOptions options = Options(250);
  options.happy_eyeballs_delay = absl::Milliseconds(-1);
  EXPECT_EQ(TryConnect(options).status().code(), absl::StatusCode::kInvalidArgument);
  options = Options(250);
  options.interleave = -2;
  EXPECT_EQ(TryConnect(options).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace troupe
