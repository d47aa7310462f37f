// Connecting, in virtual time. Numbers in comments are those of the contract's rules.
#include "troupe/net/connect.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/task.h"
#include "troupe/base/errors.h"
#include "troupe/base/os_error.h"
#include "troupe/net/internal/net_testing.h"
#include "troupe/net/internal/recording_protocol.h"
#include "troupe/net/stream_server.h"
#include "troupe/testing/sim/sim_os.h"

namespace troupe {
namespace {

using internal::Recording;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using ConnectTest = internal::NetTest;
INSTANTIATE_POLLING(ConnectTest);

TEST_P(ConnectTest, EveryFormOfTargetConnects) {
  ServeOn({"127.0.0.1:7000", "[::1]:7000", "unix:/run/s", "unix-abstract:s"});
  os_.kernel().SetName("kv.test", {Address("127.0.0.1:0")});
  for (const char* target :
       {"127.0.0.1:7000", "[::1]:7000", "localhost:7000", "kv.test:7000", "unix:/run/s", "unix-abstract:s"}) {
    EXPECT_TRUE(TryConnect({.target = target}).ok()) << target;
  }
  EXPECT_TRUE(TryConnect({.host = "localhost", .port = "7000"}).ok());
  EXPECT_TRUE(TryConnect({.address = Address("[::1]:7000")}).ok());
  EXPECT_EQ(client_.Count("made"), 8u);
}

struct Typed : Protocol {
  void DataReceived(absl::Span<const char>) override {}
  int mine = 5;
};

// The samples' way of writing it, in a coroutine.
Task<int> ConnectTyped(EventLoop& loop) {
  auto connected = co_await CreateConnection(loop, [] { return std::make_unique<Typed>(); }, {.target = "[::1]:7000"});
  if (!connected.ok()) co_return -1;
  connected->transport->Close();
  const int mine = connected->protocol->mine;
  co_await connected->transport->Closed();
  co_return mine;
}

TEST_P(ConnectTest, TheProtocolComesBackWithItsOwnType) {
  ServeOn({"[::1]:7000"});
  EXPECT_EQ(loop_.RunUntilComplete(ConnectTyped(loop_)), 5);
}

// C-CON-07
TEST_P(ConnectTest, OnReturnConnectionMadeHasBeenCalled) {
  ServeOn({"127.0.0.1:7000"});
  const absl::StatusOr<Connected<>> connected = TryConnect({.target = "127.0.0.1:7000"});
  EXPECT_THAT(client_.log, ElementsAre("made"));
  EXPECT_EQ(connected->protocol, &connected->transport->protocol());
}

// C-CON-02
TEST_P(ConnectTest, OptionsThatMakeNoSenseAreRefused) {
  const ConnectOptions wrong[] = {
      {},
      {.target = "localhost:1", .host = "localhost"},
      {.target = "localhost:1", .address = Address("127.0.0.1:1")},
      {.host = "localhost", .port = "1", .socket = 3},
      {.address = Address("127.0.0.1:1"), .socket = 3},
      {.host = "localhost"},
      {.target = "localhost:"},
      {.target = "localhost"},
      {.target = "::1:7000"},
      {.target = "unix:"},
      {.target = "127.0.0.1:65536"},
      {.target = "localhost:1", .local = "localhost"},
      {.target = "localhost:1", .local = "localhost:0", .local_address = Address("127.0.0.1:0")},
      {.socket = 3, .local = "localhost:0"},
  };
  for (const ConnectOptions& options : wrong) {
    EXPECT_EQ(TryConnect(options).status().code(), absl::StatusCode::kInvalidArgument) << options.target;
  }
  EXPECT_EQ(factory_calls_, 0);
}

// C-CON-02
TEST_P(ConnectTest, AConnectedSocketFromElsewhereIsTakenOver) {
  for (const int family : {AF_INET, AF_UNIX}) {
    ServeOn({family == AF_INET ? "127.0.0.1:0" : "unix-abstract:given"});
    client_ = Recording();
    const int fd = os_.Socket(family, SOCK_STREAM);
    os_.Connect(fd, server_->addresses().front());
    Settle();
    absl::StatusOr<Connected<>> connected = TryConnect({.socket = fd});
    ASSERT_TRUE(connected.ok()) << connected.status();
    EXPECT_THAT(client_.log, ElementsAre("made"));
    EXPECT_EQ(connected->transport->descriptor(), fd);
    EXPECT_EQ(connected->transport->peer(), server_->addresses().front());
    connected->transport.reset();
    Settle();
    EXPECT_EQ(os_.Close(fd), -EBADF);
  }
}

// C-CON-02, C-CON-09
TEST_P(ConnectTest, WhatIsNoStreamSocketIsRefusedAndStaysTheCallers) {
  const int fd = os_.Socket(AF_INET, SOCK_STREAM);
  os_.SetFault([](absl::string_view operation, int) { return operation == "AdoptSocket" ? ESOCKTNOSUPPORT : 0; });
  const auto factory = [this] { return client_.NewProtocol(); };
  for (const absl::Status& refused : {TryConnect({.socket = fd}).status(),
                                      loop_.RunUntilComplete(ConnectAcceptedSocket(loop_, factory, fd)).status()}) {
    EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(refused.message(), HasSubstr("A Stream Socket was expected"));
  }
  os_.SetFault(nullptr);
  EXPECT_EQ(TryConnect({.socket = 999}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(client_.log, IsEmpty());
  EXPECT_EQ(os_.Close(fd), 0);
}

// C-CON-09
TEST_P(ConnectTest, AnAcceptedSocketGetsATransportAndAProtocol) {
  const int listener = BoundSocket(Address("127.0.0.1:7000"));
  ASSERT_EQ(os_.Listen(listener, 1), 0);
  const Transport& client = Connect(Address("127.0.0.1:7000"));
  const int fd = os_.Accept(listener, nullptr);
  ASSERT_GE(fd, 0);
  absl::StatusOr<Connected<Typed>> accepted =
      loop_.RunUntilComplete(ConnectAcceptedSocket(loop_, [] { return std::make_unique<Typed>(); }, fd));
  ASSERT_TRUE(accepted.ok()) << accepted.status();
  EXPECT_EQ(accepted->protocol->mine, 5);
  EXPECT_EQ(accepted->transport->descriptor(), fd);
  EXPECT_EQ(accepted->transport->peer(), client.local());
  EXPECT_EQ(Option(fd, IPPROTO_TCP, TCP_NODELAY), 1);  // C-TRN-12
  accepted->transport->Close();
  Settle();
  EXPECT_THAT(client_.log, ElementsAre("made", "eof", "lost OK"));
  os_.Close(listener);
}

// C-CON-03
TEST_P(ConnectTest, AddressesAreTriedInOrderAndTheFirstThatAnswersWins) {
  ServeOn({"127.0.0.3:7000", "127.0.0.4:7000"});
  os_.kernel().SetName("many.test", {Address("127.0.0.2:0"), Address("127.0.0.3:0"), Address("127.0.0.4:0")});
  int connects = 0;
  connects = Count("Connect", [&] {
    absl::StatusOr<Connected<>> connected = TryConnect({.target = "many.test:7000"});
    ASSERT_TRUE(connected.ok()) << connected.status();
    EXPECT_EQ(connected->transport->peer(), Address("127.0.0.3:7000"));
    connected->transport->Close();
  });
  EXPECT_EQ(connects, 2);
  EXPECT_EQ(factory_calls_, 1);
}

// C-CON-04
TEST_P(ConnectTest, OneErrorIsItself) {
  const absl::Status status = TryConnect({.target = "127.0.0.1:7999"}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(status.message(), "connect 127.0.0.1:7999: Connection refused");
  EXPECT_EQ(ErrnoOf(status), ECONNREFUSED);
}

// C-CON-04
TEST_P(ConnectTest, SeveralErrorsAreListed) {
  os_.kernel().SetName("many.test", {Address("127.0.0.2:0"), Address("127.0.0.3:0")});
  const absl::Status status = TryConnect({.target = "many.test:7999"}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(status.message(),
            "Multiple exceptions: connect 127.0.0.2:7999: Connection refused, "
            "connect 127.0.0.3:7999: Connection refused");
}

// C-CON-04
TEST_P(ConnectTest, ErrorsWithEqualTextAreOne) {
  os_.kernel().SetName("twice.test", {Address("127.0.0.2:0"), Address("127.0.0.2:0")});
  const absl::Status status = TryConnect({.target = "twice.test:7999"}).status();
  EXPECT_EQ(status.message(), "connect 127.0.0.2:7999: Connection refused");
}

TEST_P(ConnectTest, WhatTheResolverSaysComesThrough) {
  EXPECT_EQ(TryConnect({.target = "nowhere.test:1"}).status().code(), absl::StatusCode::kNotFound);
  os_.kernel().SetNameError("broken.test", absl::UnavailableError("no name server answers"));
  EXPECT_EQ(TryConnect({.target = "broken.test:1"}).status(), absl::UnavailableError("no name server answers"));
}

TEST_P(ConnectTest, TheLocalAddressMayBeChosen) {
  ServeOn({"127.0.0.1:7000"});
  absl::StatusOr<Connected<>> connected =
      TryConnect({.target = "127.0.0.1:7000", .local_address = Address("127.0.0.1:7123")});
  ASSERT_TRUE(connected.ok()) << connected.status();
  EXPECT_EQ(connected->transport->local(), Address("127.0.0.1:7123"));
  EXPECT_EQ(ErrnoOf(TryConnect({.target = "127.0.0.1:7000", .local_address = Address("127.0.0.1:7000")}).status()),
            EADDRINUSE);
}

// C-CON-11
TEST_P(ConnectTest, TheFirstLocalAddressOfTheFamilyThatCanBeBoundIsTaken) {
  os_.kernel().SetName("here.test", {Address("[::1]:0"), Address("127.0.0.1:0"), Address("127.0.0.2:0")});
  ServeOn({"127.0.0.1:7000"});
  const auto connect = [&] { return TryConnect({.target = "127.0.0.1:7000", .local = "here.test:7123"}); };
  absl::StatusOr<Connected<>> first = connect(), second = connect();
  ASSERT_TRUE(first.ok()) << first.status();
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(first->transport->local(), Address("127.0.0.1:7123"));
  EXPECT_EQ(second->transport->local(), Address("127.0.0.2:7123"));
  const absl::Status none = connect().status();
  EXPECT_EQ(ErrnoOf(none), EADDRINUSE);
  EXPECT_THAT(none.message(), HasSubstr("from 127.0.0.2:7123"));
  EXPECT_EQ(TryConnect({.target = "127.0.0.1:7000", .local = "[::1]:0"}).status(),
            absl::InvalidArgumentError("connect 127.0.0.1:7000: the local address [::1]:0 is of another family"));
  EXPECT_EQ(TryConnect({.target = "127.0.0.1:7000", .local = "nowhere.test:0"}).status().code(),
            absl::StatusCode::kNotFound);
  first->transport->Close();
  second->transport->Close();
}

TEST_P(ConnectTest, AnErrorOfTheFactoryPassesThroughAndClosesTheSocket) {
  ServeOn({"127.0.0.1:7000"});
  const auto throws = []() -> std::unique_ptr<Typed> { throw std::runtime_error("no"); };
  EXPECT_THROW(static_cast<void>(loop_.RunUntilComplete(CreateConnection(loop_, throws, {.target = "127.0.0.1:7000"}))),
               std::runtime_error);
  const auto null = []() -> std::unique_ptr<Typed> { return nullptr; };
  EXPECT_THROW(static_cast<void>(loop_.RunUntilComplete(CreateConnection(loop_, null, {.target = "127.0.0.1:7000"}))),
               InvalidState);
}

TEST_P(ConnectTest, AConnectionMadeThatThrowsFailsTheConnect) {
  ServeOn({"127.0.0.1:7000"});
  client_.on_made = [](Transport&) { throw StatusError(absl::PermissionDeniedError("not you")); };
  EXPECT_EQ(TryConnect({.target = "127.0.0.1:7000"}).status(), absl::PermissionDeniedError("not you"));
  Settle();
  EXPECT_THAT(client_.log, ElementsAre("made", "lost PERMISSION_DENIED"));
  EXPECT_THAT(TakeReports(), ElementsAre("Fatal error: protocol.ConnectionMade() call failed."));
}

// P-2: the task that connects is not left behind.
TEST_P(ConnectTest, FatalOutOfConnectionMadeLeavesTheLoopAndFailsTheConnect) {
  ServeOn({"127.0.0.1:7000"});
  client_.on_made = [](Transport&) { throw Fatal("stop"); };
  const auto connecting = loop_.CreateTask(Connecting({.target = "127.0.0.1:7000"}));
  EXPECT_THROW(loop_.RunForever(), Fatal);
  Settle();
  ASSERT_TRUE(connecting.done());
  EXPECT_EQ(loop_.RunUntilComplete(connecting).status().code(), absl::StatusCode::kUnknown);
  EXPECT_THAT(client_.log, ElementsAre("made", "lost UNKNOWN"));
}

// Cancelled at every point of its way, it leaves nothing behind.
TEST_P(ConnectTest, CancelledAnywhereItClosesWhatWasOpen) {
  ServeOn({"127.0.0.1:7000"});
  os_.kernel().SetName("kv.test", {Address("127.0.0.1:0")});
  os_.kernel().SetLoopbackLink({.latency = absl::Milliseconds(1)});
  int cancelled = 0;
  for (int i = 0;; ++i) {
    ASSERT_LT(i, 100);
    const auto connecting = loop_.CreateTask(Connecting({.target = "kv.test:7000"}));
    loop_.CallLater(i * absl::Microseconds(100), [&] { connecting.Cancel(); });
    Settle();
    ASSERT_TRUE(connecting.done());
    if (!connecting.cancelled()) break;
    ++cancelled;
    EXPECT_EQ(client_.alive, 0);
    EXPECT_EQ(os_.OpenDescriptors().size(), 1u) << "after " << i;  // the listener
  }
  EXPECT_GT(cancelled, 10);
  // Destroyed instead of cancelled: with the loop.
  loop_.SetExceptionHandler([](EventLoop&, const ExceptionContext&) {});
  const auto left = loop_.CreateTask(Connecting({.target = "kv.test:7000"}));
  loop_.RunOnceWithoutWaiting();
}

TEST_P(ConnectTest, DroppedRightAfterConnectingBothEndsAreToldOnce) {
  ServeOn({"127.0.0.1:7000"});
  {
    const absl::StatusOr<Connected<>> connected = TryConnect({.target = "127.0.0.1:7000"});
  }
  Settle();
  EXPECT_THAT(client_.log, ElementsAre("made", "lost OK"));
  EXPECT_THAT(served_.log, ElementsAre("made", "eof", "lost OK"));
}

}  // namespace
}  // namespace troupe
