// Servers and the connections that they accept, in virtual time. Numbers in comments are those of the contract's rules.
#include "troupe/net/stream_server.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/task.h"
#include "troupe/base/errors.h"
#include "troupe/base/os_error.h"
#include "troupe/loop/context.h"
#include "troupe/net/connect.h"
#include "troupe/net/internal/net_testing.h"
#include "troupe/net/internal/recording_protocol.h"
#include "troupe/testing/sim/sim_os.h"

namespace troupe {
namespace {

using internal::Recording;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

struct Echo : Protocol {
  void DataReceived(absl::Span<const char> data) override { transport().Write(data); }
};

using StreamServerTest = internal::NetTest;
INSTANTIATE_POLLING(StreamServerTest);

// ---------------------------------------------------------------------------------------------------- serving

TEST_P(StreamServerTest, AcceptsAndTalks) {
  served_.on_data = [](Transport& transport, absl::Span<const char> data) { transport.Write(data); };
  Serve();
  Transport& client = Connect();
  client.Write("hello");
  Settle();
  EXPECT_THAT(client_.log, ElementsAre("made", "data hello"));
  EXPECT_EQ(server_->connections(), 1u);
  EXPECT_EQ(server_->accepted().value(), 1u);
  client.Close();
  Settle();
  EXPECT_THAT(served_.log, ElementsAre("made", "data hello", "eof", "lost OK"));
  EXPECT_EQ(server_->connections(), 0u);
}

// C-ACC-09, C-TRN-03
TEST_P(StreamServerTest, BothEndsKnowBothAddresses) {
  std::vector<std::string> seen;
  served_.on_made = served_.on_lost = [&](Transport& transport) {
    seen.push_back(transport.local().ToString() + " " + transport.peer().ToString());
  };
  Serve();
  Transport& client = Connect();
  EXPECT_EQ(client.peer(), server_->addresses().front());
  client.Close();
  Settle();
  const std::string expected = client.peer().ToString() + " " + client.local().ToString();
  EXPECT_THAT(seen, ElementsAre(expected, expected));
}

// C-TRN-12
TEST_P(StreamServerTest, NagleIsOffOnTcpOnly) {
  served_.on_made = [&](Transport& transport) {
    int value = 0;
    os_.GetSocketOption(transport.descriptor(), IPPROTO_TCP, TCP_NODELAY, &value);
    served_.log.push_back(absl::StrCat("nodelay ", value));
  };
  Serve({.listen = {"[::1]:0", "unix-abstract:plain"}});
  Transport& tcp = Connect();
  EXPECT_EQ(Option(tcp.descriptor(), IPPROTO_TCP, TCP_NODELAY), 1);
  absl::StatusOr<Connected<>> plain = TryConnect(server_->addresses().back());
  ASSERT_TRUE(plain.ok()) << plain.status();
  Settle();
  EXPECT_THAT(served_.log, ElementsAre("made", "nodelay 1", "made", "nodelay 0"));
}

// C-SRV-02
TEST_P(StreamServerTest, StartServingListensOnceAndIsIdempotent) {
  StreamServerOptions options;
  options.listen = {"127.0.0.1:0", "unix-abstract:s"};
  options.start_serving = false;
  EXPECT_EQ(Count("Listen", [&] { Serve(options); }), 0);
  EXPECT_FALSE(server_->is_serving());
  EXPECT_THAT(server_->sockets(), SizeIs(2));
  const absl::StatusOr<Connected<>> refused = TryConnect(server_->addresses().front());
  EXPECT_EQ(ErrnoOf(refused.status()), ECONNREFUSED);
  const auto start = [&] {
    Iterations iterations(loop_);
    EXPECT_TRUE(loop_.RunUntilComplete(server_->StartServing()).ok());
    EXPECT_GE(iterations.count(), 2) << "an iteration was given up";
  };
  EXPECT_EQ(Count("Listen", start), 2);
  EXPECT_EQ(Count("Listen", start), 0);
  EXPECT_TRUE(server_->is_serving());
  Connect();
  EXPECT_EQ(client_.Count("made"), 1u);
  EXPECT_EQ(Count("Poller.Add", [&] { Serve(); }), 1) << "watched when CreateServer returns";
}

// C-SRV-03, C-SRV-10
TEST_P(StreamServerTest, CloseStopsListeningAtOnceAndKeepsConnections) {
  Serve();
  Transport& client = Connect();
  Settle();
  const SocketAddress address = server_->addresses().front();
  EXPECT_EQ(&server_->loop(), &loop_);
  server_->Close();
  server_->Close();
  EXPECT_FALSE(server_->is_serving());
  EXPECT_TRUE(server_->is_closed());
  EXPECT_THAT(server_->sockets(), IsEmpty());
  EXPECT_EQ(ErrnoOf(TryConnect(address).status()), ECONNREFUSED);
  client.Write("still here");
  Settle();
  EXPECT_THAT(served_.log, ElementsAre("made", "data still here"));
  EXPECT_THROW(static_cast<void>(loop_.RunUntilComplete(server_->StartServing())), InvalidState);
}

Task<void> LogWhenClosed(StreamServer& server, std::vector<std::string>& log) {
  co_await server.WaitClosed();
  log.push_back("closed");
}

// C-SRV-04, C-SRV-05, D-2, D-9
TEST_P(StreamServerTest, WaitClosedWaitsForCloseAndForTheLastConnection) {
  Serve();
  Transport& one = Connect();
  Transport& two = Connect();
  loop_.CreateTask(LogWhenClosed(*server_, served_.log));
  server_->Close();
  Settle();
  one.Close();
  Settle();
  EXPECT_THAT(served_.log, ElementsAre("made", "made", "eof", "lost OK"));
  two.Close();
  Settle();
  EXPECT_THAT(served_.log, ElementsAre("made", "made", "eof", "lost OK", "eof", "lost OK", "closed"));
}

// C-SRV-05
TEST_P(StreamServerTest, WaitClosedOfAServerWithoutConnectionsWaitsForClose) {
  Serve();
  const auto waits = loop_.CreateTask(LogWhenClosed(*server_, served_.log));
  Connect().Close();
  Settle();
  EXPECT_FALSE(waits.done());
  server_->Close();
  loop_.RunUntilComplete(waits);
  loop_.RunUntilComplete(LogWhenClosed(*server_, served_.log));
}

// C-SRV-07
TEST_P(StreamServerTest, ServeForeverIsAwaitedOnceAndNotOnAClosedServer) {
  Serve({.listen = {"127.0.0.1:0"}, .start_serving = false});
  const auto serving = loop_.CreateTask(server_->ServeForever());
  loop_.RunOnceWithoutWaiting();
  EXPECT_TRUE(server_->is_serving());
  try {
    static_cast<void>(loop_.RunUntilComplete(server_->ServeForever()));
    FAIL();
  } catch (const InvalidState& error) {
    EXPECT_THAT(error.what(), HasSubstr("is already being awaited on ServeForever()"));
  }
  server_->Close();
  EXPECT_TRUE(loop_.RunUntilComplete(serving).ok());
  try {
    static_cast<void>(loop_.RunUntilComplete(server_->ServeForever()));
    FAIL();
  } catch (const InvalidState& error) {
    EXPECT_THAT(error.what(), HasSubstr("is closed"));
  }
}

// C-SRV-08
TEST_P(StreamServerTest, CancellingServeForeverClosesAndWaitsForTheConnections) {
  Serve();
  Transport& client = Connect();
  const auto serving = loop_.CreateTask(server_->ServeForever());
  Settle();
  serving.Cancel();
  Settle();
  EXPECT_TRUE(server_->is_closed());
  EXPECT_FALSE(serving.done());
  client.Close();
  Settle();
  EXPECT_TRUE(serving.cancelled());
  EXPECT_TRUE(served_.lost());
}

TEST_P(StreamServerTest, ConnectionsAreClosedOrAbortedTogether) {
  Serve();
  Connect();
  Connect();
  Settle();
  server_->CloseConnections();
  Settle();
  EXPECT_EQ(served_.Count("lost OK"), 2u);
  Connect();
  Settle();
  server_->AbortConnections();
  Settle();
  EXPECT_EQ(served_.Count("lost OK"), 3u);
  EXPECT_EQ(server_->connections(), 0u);
}

// P-4
TEST_P(StreamServerTest, DestroyingTheServerAbortsItsConnectionsWhichStillHearOfIt) {
  Serve();
  Connect();
  Connect();
  Settle();
  const auto waits = loop_.CreateTask(LogWhenClosed(*server_, client_.log));
  loop_.RunOnceWithoutWaiting();
  server_.reset();
  EXPECT_THAT(served_.log, ElementsAre("made", "made"));
  Settle();
  EXPECT_THAT(served_.log, ElementsAre("made", "made", "lost OK", "lost OK"));
  EXPECT_TRUE(waits.done());
}

// ---------------------------------------------------------------------------------------------------- making one

// C-CSV-03
TEST_P(StreamServerTest, OptionsThatMakeNoSenseAreRefused) {
  EXPECT_EQ(Create(StreamServerOptions()).status(),
            absl::InvalidArgumentError("Neither listen nor sockets were specified"));
  StreamServerOptions both;
  both.listen = {"127.0.0.1:0"};
  both.sockets = {3};
  EXPECT_EQ(Create(both).status(),
            absl::InvalidArgumentError("listen and sockets cannot be specified at the same time"));
  for (const char* text : {"7000", "host", "[::1]", "1.2.3.4:99999", "::1:7000", "unix:", "127.0.0.1:-1"}) {
    EXPECT_EQ(Create(std::vector<std::string>{text}).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
  StreamServerOptions options;
  options.listen = {"127.0.0.1:0"};
  options.backlog = 0;
  EXPECT_EQ(Create(options).status().code(), absl::StatusCode::kInvalidArgument);
}

// C-CSV-03
TEST_P(StreamServerTest, SocketsFromElsewhereAreServedAndClosedWithTheServer) {
  StreamServerOptions options;
  options.sockets = {BoundSocket(Address("127.0.0.1:7000")), BoundSocket(Address("unix-abstract:given"))};
  Serve(options);
  EXPECT_EQ(server_->sockets(), options.sockets);
  EXPECT_THAT(server_->addresses(), ElementsAre(Address("127.0.0.1:7000"), Address("unix-abstract:given")));
  for (const SocketAddress& address : server_->addresses()) Connect(address);
  EXPECT_EQ(client_.Count("made"), 2u);
  server_->Close();
  for (const int fd : options.sockets) EXPECT_EQ(os_.Close(fd), -EBADF);
}

// C-CSV-03: as with systemd's socket activation.
TEST_P(StreamServerTest, WhatAServiceManagerHandedOverIsServed) {
  const int plain = BoundSocket(Address("127.0.0.1:7000")), other = BoundSocket(Address("127.0.0.1:7001"));
  ASSERT_EQ(os_.Listen(plain, 1), 0);  // the manager listens already, and clients may be waiting
  const int early = os_.Socket(AF_INET, SOCK_STREAM);
  ASSERT_EQ(os_.Connect(early, Address("127.0.0.1:7000")), -EINPROGRESS);
  Settle();
  os_.HandOver(plain, "plain");
  os_.HandOver(other, "other");
  const absl::StatusOr<std::vector<ListenDescriptor>> handed_over = os_.TakeListenDescriptors();
  ASSERT_TRUE(handed_over.ok());
  StreamServerOptions options;
  for (const ListenDescriptor& descriptor : *handed_over) {
    if (descriptor.name == "plain") options.sockets.push_back(descriptor.fd);
  }
  Serve(options);
  Settle();
  EXPECT_EQ(server_->connections(), 1u) << "the client that waited";
  EXPECT_THAT(server_->addresses(), ElementsAre(Address("127.0.0.1:7000")));
  os_.Close(early);
  os_.Close(other);
}

// C-CSV-03
TEST_P(StreamServerTest, WhatIsNoStreamSocketIsRefusedAndStaysTheCallers) {
  const int stream = BoundSocket(Address("127.0.0.1:7000"));
  const int other = BoundSocket(Address("127.0.0.1:7001"));
  StreamServerOptions options;
  options.sockets = {stream, other};
  os_.SetFault([&](absl::string_view operation, int fd) {
    return operation == "AdoptSocket" && fd == other ? ESOCKTNOSUPPORT : 0;
  });
  const absl::Status refused = Create(options).status();
  os_.SetFault(nullptr);
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(refused.message(), HasSubstr("A Stream Socket was expected"));
  options.sockets = {stream, stream};
  EXPECT_EQ(Create(options).status().code(), absl::StatusCode::kInvalidArgument);
  options.sockets = {stream, 999};
  EXPECT_EQ(Create(options).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(os_.Close(stream), 0);
  EXPECT_EQ(os_.Close(other), 0);
}

// C-CSV-03: what is taken over is closed when it comes to nothing.
TEST_P(StreamServerTest, ASocketThatCannotListenIsClosed) {
  const int stream = BoundSocket(Address("127.0.0.1:7000"));
  StreamServerOptions options;
  options.sockets = {stream};
  os_.SetFault([](absl::string_view operation, int) { return operation == "Listen" ? EADDRINUSE : 0; });
  EXPECT_EQ(ErrnoOf(Create(options).status()), EADDRINUSE);
  os_.SetFault(nullptr);
  EXPECT_EQ(os_.Close(stream), -EBADF);
}

// INVALID_ARGUMENT would say that it is still the caller's.
TEST_P(StreamServerTest, AConnectedSocketToListenOnIsTakenOverAndClosed) {
  int fds[2];
  ASSERT_EQ(os_.SocketPair(AF_UNIX, SOCK_STREAM, fds), 0);
  StreamServerOptions options;
  options.sockets = {fds[0]};
  const absl::Status refused = Create(options).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(refused.message(), HasSubstr("listen"));
  EXPECT_EQ(os_.Close(fds[0]), -EBADF);
  os_.Close(fds[1]);
}

ContextVar<std::string> name("nobody");

Task<absl::StatusOr<std::unique_ptr<StreamServer>>> CreateAs(EventLoop& loop, ProtocolFactory factory,
                                                             const char* who) {
  name.Set(who);
  StreamServerOptions options{.listen = {"127.0.0.1:0"}};
  co_return co_await CreateServer(loop, std::move(factory), options);
}

// C-LOOP-39: connections run in the context in which the server began to listen, each in its own copy, which its factory
// may change.
TEST_P(StreamServerTest, EachConnectionHasItsOwnCopyOfTheServersContext) {
  std::vector<std::string> seen;
  const auto note = [&](const char* callback) { seen.push_back(absl::StrCat(callback, " ", name.Get())); };
  served_.on_made = [&](Transport&) { note("made"); };
  served_.on_lost = [&](Transport&) { note("lost"); };
  int connections = 0;
  MadeServer made = loop_.RunUntilComplete(CreateAs(
      loop_,
      [&] {
        note("factory");
        name.Set(absl::StrCat(name.Get(), " ", ++connections));
        return served_.NewProtocol();
      },
      "server"));
  ASSERT_TRUE(made.ok()) << made.status();
  server_ = *std::move(made);
  Connect();
  Settle();
  Connect();
  Settle();
  EXPECT_THAT(seen, ElementsAre("factory server", "made server 1", "factory server", "made server 2"));
  seen.clear();
  server_->AbortConnections();
  Settle();
  EXPECT_THAT(seen, ElementsAre("lost server 1", "lost server 2"));
}

// C-CSV-04, C-CSV-08
TEST_P(StreamServerTest, AnEmptyHostMeansAllInterfacesOfBothFamilies) {
  Serve({.listen = {":7000"}});
  std::vector<std::string> bound;
  for (const SocketAddress& address : server_->addresses()) bound.push_back(address.ToString());
  EXPECT_THAT(bound, ::testing::UnorderedElementsAre("0.0.0.0:7000", "[::]:7000"));
}

// C-CSV-04
TEST_P(StreamServerTest, AllAddressesAreBoundAndEqualOnesOnce) {
  Serve({.listen = {"127.0.0.1:7001", "[::1]:7001", "127.0.0.1:7001", "unix-abstract:a"}});
  EXPECT_THAT(server_->addresses(), SizeIs(3));
  EXPECT_THAT(server_->sockets(), SizeIs(3));
}

// C-CSV-04: a name is bound at all its addresses.
TEST_P(StreamServerTest, ANameIsBoundAtEachOfItsAddresses) {
  os_.kernel().SetName("service.test", os_.ips());
  Serve({.listen = {"service.test:7002"}});
  EXPECT_EQ(server_->addresses().size(), os_.ips().size());
}

// C-CSV-05
TEST_P(StreamServerTest, ANameThatDoesNotExistIsNotFound) {
  EXPECT_EQ(Create({"nowhere.test:7000"}).status().code(), absl::StatusCode::kNotFound);
}

// C-CSV-06
TEST_P(StreamServerTest, AFamilyThatTheSystemLacksIsSkippedUnlessItIsTheOnlyOne) {
  testing::SimOs only_four(2, {.ipv6 = false});
  EventLoop loop(only_four);
  StreamServerOptions options;
  options.listen = {"[::]:7000", "0.0.0.0:7000"};
  const auto echo = [] { return std::make_unique<Echo>(); };
  MadeServer made = loop.RunUntilComplete(CreateServer(loop, echo, options));
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_THAT((*made)->sockets(), SizeIs(1));
  options.listen = {"[::]:7001"};
  MadeServer none = loop.RunUntilComplete(CreateServer(loop, echo, options));
  EXPECT_EQ(ErrnoOf(none.status()), EAFNOSUPPORT);
  made = absl::UnknownError("gone");
  loop.RunOnceWithoutWaiting();
  loop.Close();
}

// C-CSV-07
TEST_P(StreamServerTest, ReuseAddressIsTheDefaultAndReusePortAnOption) {
  Serve();
  EXPECT_EQ(Option(server_->sockets()[0], SOL_SOCKET, SO_REUSEADDR), 1);
  EXPECT_EQ(Option(server_->sockets()[0], SOL_SOCKET, SO_REUSEPORT), 0);
  Serve({.listen = {"127.0.0.1:0"}, .reuse_address = false, .reuse_port = true});
  EXPECT_EQ(Option(server_->sockets()[0], SOL_SOCKET, SO_REUSEADDR), 0);
  EXPECT_EQ(Option(server_->sockets()[0], SOL_SOCKET, SO_REUSEPORT), 1);

  int options_set = 0;
  os_.SetFault([&](absl::string_view operation, int) {
    return operation == "SetSocketOption" && ++options_set == 2 ? ENOPROTOOPT : 0;
  });
  StreamServerOptions options;
  options.listen = {"127.0.0.1:0"};
  options.reuse_port = true;
  const absl::Status refused = Create(options).status();
  os_.SetFault(nullptr);
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(refused.message(), HasSubstr("reuse_port"));
}

// C-CSV-08
TEST_P(StreamServerTest, OnePortServesBothFamiliesWithTwoSockets) {
  Serve({.listen = {"[::]:7003", "0.0.0.0:7003"}});
  EXPECT_EQ(Option(server_->sockets()[0], IPPROTO_IPV6, IPV6_V6ONLY), 1);
  for (const char* where : {"127.0.0.1:7003", "[::1]:7003"}) {
    EXPECT_TRUE(TryConnect(*SocketAddress::Parse(where)).ok()) << where;
  }
}

TEST_P(StreamServerTest, AnAddressInUseIsSaidInTheSystemsWords) {
  Serve({.listen = {"127.0.0.1:7004"}});
  const absl::Status status = Create({"127.0.0.1:7004"}).status();
  EXPECT_EQ(ErrnoOf(status), EADDRINUSE);
  EXPECT_EQ(status.message(), "error while attempting to bind on address 127.0.0.1:7004: Address already in use");
}

// C-CSV-11
TEST_P(StreamServerTest, AStaleSocketFileIsRemovedFirst) {
  Serve({.listen = {"unix:/run/test.sock"}});
  server_.reset();  // leaves the file
  Settle();
  ASSERT_TRUE(os_.IsSocketFile("/run/test.sock"));
  Serve({.listen = {"unix:/run/test.sock"}});
  Connect();
  EXPECT_EQ(client_.Count("made"), 1u);
}

// C-CSV-11
TEST_P(StreamServerTest, TheSocketFileOfALivingServerAndOtherFilesStay) {
  Serve({.listen = {"unix:/run/test.sock"}});
  const absl::Status in_use = Create({"unix:/run/test.sock"}).status();
  EXPECT_EQ(ErrnoOf(in_use), EADDRINUSE);
  EXPECT_THAT(in_use.message(), HasSubstr("Address unix:/run/test.sock is already in use"));
  os_.AddFile("/run/plain");
  EXPECT_EQ(ErrnoOf(Create({"unix:/run/plain"}).status()), EADDRINUSE);
  EXPECT_FALSE(os_.IsSocketFile("/run/plain"));
  Connect();
  EXPECT_EQ(client_.Count("made"), 1u);
}

// ---------------------------------------------------------------------------------------------------- accepting

// C-CSV-10
TEST_P(StreamServerTest, TheBacklogDefaultsToAHundred) {
  Serve();
  std::vector<int> fds;
  for (int i = 0; i < 150; ++i) fds.push_back(Knock());
  os_.kernel().AdvanceTo(os_.Now() + absl::Milliseconds(1));
  loop_.RunOnceWithoutWaiting();
  EXPECT_EQ(server_->accepted().value(), 100u);
  for (const int fd : fds) os_.Close(fd);
  Settle();
}

// C-ACC-01
TEST_P(StreamServerTest, OneReadinessAcceptsUpToABacklogOfConnections) {
  Serve({.listen = {"127.0.0.1:0"}, .backlog = 3});
  std::vector<int> fds;
  for (int i = 0; i < 5; ++i) fds.push_back(Knock());
  os_.kernel().AdvanceTo(os_.Now() + absl::Milliseconds(1));
  loop_.RunOnceWithoutWaiting();
  EXPECT_EQ(server_->accepted().value(), 3u);
  Settle();
  EXPECT_EQ(server_->accepted().value(), 5u);
  for (const int fd : fds) os_.Close(fd);
  Settle();
}

// C-ACC-01
TEST_P(StreamServerTest, NothingToAcceptAfterAllIsNoError) {
  Serve();
  for (const int error : {EAGAIN, EINTR, ECONNABORTED}) {
    served_.log.clear();
    int accepts = 0;
    os_.SetFault([&](absl::string_view operation, int) { return operation == "Accept" && ++accepts == 1 ? error : 0; });
    Connect();
    Settle();
    EXPECT_THAT(served_.log, ElementsAre("made"));
    EXPECT_GT(accepts, 1);
    EXPECT_EQ(server_->accept_pauses().value(), 0u);
  }
}

// C-ACC-02
TEST_P(StreamServerTest, WithoutDescriptorsItSaysSoAndTriesAgainEverySecond) {
  for (const int error : {EMFILE, ENFILE, ENOBUFS, ENOMEM}) {
    served_ = Recording();
    Serve();
    std::vector<absl::Duration> tried;
    os_.SetFault([&](absl::string_view operation, int) {
      if (operation != "Accept" || tried.size() == 3) return 0;
      tried.push_back(os_.Now() - MonotonicTime());
      return error;
    });
    Connect();
    Settle();
    os_.SetFault(nullptr);
    ASSERT_THAT(tried, SizeIs(3));
    EXPECT_EQ(tried[1] - tried[0], absl::Seconds(1));
    EXPECT_EQ(tried[2] - tried[1], absl::Seconds(1));
    ASSERT_THAT(reports_, SizeIs(3));
    EXPECT_EQ(ErrnoOf(reports_[0].status), error);
    EXPECT_THAT(reports_[0].Get("socket"), HasSubstr("listener"));
    EXPECT_THAT(TakeReports(), Each("socket.accept() out of system resource"));
    EXPECT_EQ(server_->accept_pauses().value(), 3u);
    EXPECT_TRUE(server_->is_serving());
    EXPECT_EQ(served_.Count("made"), 1u);
    server_->AbortConnections();
    Settle();
  }
}

TEST_P(StreamServerTest, ClosedWhileItWaitsForDescriptorsItWaitsNoMore) {
  Serve();
  os_.SetFault([](absl::string_view operation, int) { return operation == "Accept" ? EMFILE : 0; });
  Connect();
  RunTo(absl::Milliseconds(4500));
  EXPECT_THAT(TakeReports(), SizeIs(5));
  server_->Close();
  os_.SetFault(nullptr);
  const MonotonicTime before = os_.Now();
  Settle();
  EXPECT_LT(os_.Now() - before, absl::Seconds(1));
}

TEST_P(StreamServerTest, AListenerThatCannotBeWatchedAgainTriesASecondLater) {
  Serve({.listen = {"127.0.0.1:0"}, .connections_max = 1});
  Transport& first = Connect();
  Connect();
  EXPECT_EQ(served_.Count("made"), 1u);
  const int listener = server_->sockets().front();
  int refused = 0;
  os_.SetFault([&](absl::string_view operation, int fd) {
    return operation == "Poller.Add" && fd == listener && ++refused <= 2 ? ENOMEM : 0;
  });
  const MonotonicTime before = os_.Now();
  first.Close();
  Settle();
  os_.SetFault(nullptr);
  EXPECT_EQ(refused, 3);
  EXPECT_EQ(served_.Count("made"), 2u);
  EXPECT_GE(os_.Now() - before, absl::Seconds(2));
  EXPECT_EQ(server_->accept_pauses().value(), 2u);
}

TEST_P(StreamServerTest, AFailingFactoryCostsThatConnectionOnly) {
  int calls = 0;
  StreamServerOptions options;
  options.listen = {"127.0.0.1:0"};
  MadeServer made = loop_.RunUntilComplete(CreateServer(
      loop_,
      [&]() -> std::unique_ptr<BaseProtocol> {
        ++calls;
        if (calls == 1) throw std::runtime_error("no");
        if (calls == 2) return nullptr;
        return served_.NewProtocol();
      },
      options));
  server_ = *std::move(made);
  for (int i = 0; i < 3; ++i) Connect();
  Settle();
  EXPECT_EQ(server_->connections(), 1u);
  EXPECT_THAT(served_.log, ElementsAre("made"));
  ASSERT_THAT(reports_, SizeIs(2));
  EXPECT_THAT(reports_[1].Get("peer"), HasSubstr("127.0.0.1"));
  EXPECT_THAT(TakeReports(), ElementsAre("Error on transport creation for incoming connection",
                                         "Error on transport creation for incoming connection"));
}

TEST_P(StreamServerTest, BeyondItsConnectionsTheRestWaitsInTheBacklog) {
  Serve({.listen = {"127.0.0.1:0"}, .connections_max = 2});
  Transport& one = Connect();
  Connect();
  Connect();
  Settle();
  EXPECT_EQ(server_->connections(), 2u);
  EXPECT_EQ(server_->connections_max_hits().value(), 1u);
  one.Close();
  Settle();
  EXPECT_EQ(server_->accepted().value(), 3u);
  EXPECT_EQ(server_->connections(), 2u);
}

TEST_P(StreamServerTest, ByDefaultSomeDescriptorsAreLeftForOtherUses) {
  os_.SetDescriptorLimit(66);
  Serve();
  std::vector<int> fds;
  for (int i = 0; i < 4; ++i) fds.push_back(Knock());
  Settle();
  EXPECT_EQ(server_->connections(), 2u);
  for (const int fd : fds) os_.Close(fd);
  Settle();
}

// P-6: each system call in turn fails: whatever comes of it, nothing leaks, nothing hangs, nothing crashes.
TEST_P(StreamServerTest, EveryCallMayFail) {
  for (const int error : {EMFILE, ENOMEM, ECONNRESET, EINVAL}) {
    int64_t k = 1;
    for (bool injected = true; injected; ++k) {
      ASSERT_LT(k, 500);
      testing::SimOs os(static_cast<uint64_t>(k));
      EventLoop loop(os);
      loop.SetExceptionHandler([](EventLoop&, const ExceptionContext&) {});
      os.FailCall(k, error);
      Recording client;
      client.on_made = [](Transport& transport) {
        transport.Write("hello");
        transport.WriteEof();
      };
      StreamServerOptions options;
      options.listen = {"127.0.0.1:7000", "unix:/run/x"};
      {
        MadeServer made = loop.RunUntilComplete(CreateServer(loop, [] { return std::make_unique<Echo>(); }, options));
        absl::StatusOr<Connected<>> connected = absl::UnknownError("not tried");
        if (made.ok()) {
          ConnectOptions where;
          where.target = "127.0.0.1:7000";
          connected = loop.RunUntilComplete(CreateConnection(loop, [&] { return client.NewProtocol(); }, where));
        }
        if (connected.ok()) {
          try {
            loop.RunForever();
          } catch (const InvalidState&) {
            // Settled.
          }
        }
      }
      for (int i = 0; i < 5; ++i) loop.RunOnceWithoutWaiting();
      loop.Close();
      EXPECT_THAT(os.OpenDescriptors(), IsEmpty()) << "call " << k << " failed with " << ErrnoText(error);
      EXPECT_EQ(client.alive, 0);
      injected = os.fault_was_injected();
    }
    EXPECT_GT(k, 20);
  }
}

}  // namespace
}  // namespace troupe
