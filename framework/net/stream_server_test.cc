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
#include "troupe/net/connect.h"
#include "troupe/net/internal/recording_protocol.h"
#include "troupe/testing/sim/sim_os.h"

namespace troupe {
namespace {

using internal::Recording;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

struct Echo : Protocol {
  void DataReceived(absl::Span<const char> data) override { transport().Write(data); }
};

class StreamServerTest : public ::testing::Test {
 protected:
  using MadeServer = absl::StatusOr<std::unique_ptr<StreamServer>>;

  StreamServerTest() {
    loop_.SetExceptionHandler([this](EventLoop&, const ExceptionContext& context) {
      reports_.push_back(context.message);
      last_report_ = context;
    });
  }
  ~StreamServerTest() override {
    clients_.clear();
    server_.reset();
    Settle();
    loop_.Close();
    EXPECT_THAT(os_.OpenDescriptors(), IsEmpty());
    EXPECT_EQ(served_.alive, 0);
  }

  // Runs the loop until nothing happens any more by itself.
  void Settle() {
    try {
      loop_.RunForever();
      FAIL() << "the loop stopped";
    } catch (const InvalidState& stalled) {
      ASSERT_THAT(stalled.what(), HasSubstr("nothing is left"));
    }
  }
  // Until `time` of the virtual clock.
  void RunTo(absl::Duration time) {
    loop_.CallAt(MonotonicTime() + time, [this] { loop_.Stop(); });
    loop_.RunForever();
  }

  MadeServer Create(const StreamServerOptions& options) {
    return loop_.RunUntilComplete(CreateServer(loop_, [this] { return served_.NewProtocol(); }, options));
  }
  MadeServer Create(std::vector<std::string> listen) {
    StreamServerOptions options;
    options.listen = std::move(listen);
    return Create(options);
  }
  // A server on a free port.
  void Serve(StreamServerOptions options = {}) {
    if (options.listen.empty()) options.listen = {"127.0.0.1:0"};
    MadeServer made = Create(options);
    ASSERT_TRUE(made.ok()) << made.status();
    server_ = *std::move(made);
  }
  absl::StatusOr<Connected<>> TryConnect(const SocketAddress& address) {
    ConnectOptions options;
    options.address = address;
    return loop_.RunUntilComplete(CreateConnection(loop_, [this] { return client_.NewProtocol(); }, options));
  }
  // A client, kept until the end.
  Transport& Connect() {
    absl::StatusOr<Connected<>> connected = TryConnect(server_->addresses().front());
    EXPECT_TRUE(connected.ok()) << connected.status();
    clients_.push_back(std::move(connected->transport));
    return *clients_.back();
  }
  // A raw descriptor that connects and is never read.
  int Knock() {
    const int fd = os_.Socket(AF_INET, SOCK_STREAM);
    EXPECT_EQ(os_.Connect(fd, server_->addresses().front()), -EINPROGRESS);
    return fd;
  }
  int Option(int fd, int level, int name) {
    int value = 0;
    EXPECT_EQ(os_.GetSocketOption(fd, level, name, &value), 0);
    return value;
  }

  testing::SimOs os_;
  EventLoop loop_{os_};
  Recording served_, client_;
  std::unique_ptr<StreamServer> server_;
  std::vector<TransportPtr> clients_;
  std::vector<std::string> reports_;
  ExceptionContext last_report_;
};

// ---------------------------------------------------------------------------------------------------- serving

TEST_F(StreamServerTest, AcceptsAndTalks) {
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
TEST_F(StreamServerTest, BothEndsKnowBothAddresses) {
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
TEST_F(StreamServerTest, NagleIsOffOnTcpOnly) {
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
TEST_F(StreamServerTest, StartServingListensOnceAndIsIdempotent) {
  Serve({.listen = {"127.0.0.1:0"}, .start_serving = false});
  EXPECT_FALSE(server_->is_serving());
  EXPECT_THAT(server_->sockets(), SizeIs(1));
  const absl::StatusOr<Connected<>> refused = TryConnect(server_->addresses().front());
  EXPECT_EQ(ErrnoOf(refused.status()), ECONNREFUSED);
  EXPECT_TRUE(loop_.RunUntilComplete(server_->StartServing()).ok());
  EXPECT_TRUE(loop_.RunUntilComplete(server_->StartServing()).ok());
  EXPECT_TRUE(server_->is_serving());
  Connect();
  EXPECT_EQ(client_.Count("made"), 1u);
}

// C-SRV-03, C-SRV-10
TEST_F(StreamServerTest, CloseStopsListeningAtOnceAndKeepsConnections) {
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

// C-SRV-04, C-SRV-05, D-2
TEST_F(StreamServerTest, WaitClosedWaitsForCloseAndForTheLastConnection) {
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
TEST_F(StreamServerTest, WaitClosedOfAServerWithoutConnectionsWaitsForClose) {
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
TEST_F(StreamServerTest, ServeForeverIsAwaitedOnceAndNotOnAClosedServer) {
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
TEST_F(StreamServerTest, CancellingServeForeverClosesAndWaitsForTheConnections) {
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

TEST_F(StreamServerTest, ConnectionsAreClosedOrAbortedTogether) {
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
TEST_F(StreamServerTest, DestroyingTheServerAbortsItsConnectionsWhichStillHearOfIt) {
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

// P-4
TEST_F(StreamServerTest, AProtocolMayDestroyTheServerInAnyCallback) {
  for (auto hook : {&Recording::on_made, &Recording::on_eof, &Recording::on_lost}) {
    served_ = Recording();
    served_.*hook = [this](Transport&) { server_.reset(); };
    Serve();
    Transport& client = Connect();
    Settle();
    client.Close();
    Settle();
    EXPECT_EQ(server_, nullptr);
    EXPECT_EQ(served_.alive, 0);
    EXPECT_EQ(served_.log.front(), "made");
    EXPECT_EQ(served_.Count("lost OK"), 1u);
  }
}

// P-4
TEST_F(StreamServerTest, TheFactoryMayCloseOrDestroyTheServer) {
  for (const bool destroy : {false, true}) {
    StreamServerOptions options;
    options.listen = {"127.0.0.1:0"};
    MadeServer made = loop_.RunUntilComplete(CreateServer(
        loop_,
        [this, destroy] {
          destroy ? server_.reset() : server_->Close();
          return served_.NewProtocol();
        },
        options));
    server_ = *std::move(made);
    Connect();
    Settle();
    EXPECT_THAT(served_.log, IsEmpty());
    EXPECT_TRUE(client_.lost());
  }
}

// ---------------------------------------------------------------------------------------------------- making one

// C-CSV-03
TEST_F(StreamServerTest, OptionsThatMakeNoSenseAreRefused) {
  EXPECT_THAT(Create(std::vector<std::string>{}).status().message(), HasSubstr("no address to listen on"));
  for (const char* text : {"7000", "host", "[::1]", "1.2.3.4:99999", "::1:7000", "unix:", "127.0.0.1:-1"}) {
    EXPECT_EQ(Create({text}).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
  StreamServerOptions options;
  options.listen = {"127.0.0.1:0"};
  options.backlog = 0;
  EXPECT_EQ(Create(options).status().code(), absl::StatusCode::kInvalidArgument);
}

// C-CSV-04, C-CSV-08
TEST_F(StreamServerTest, AnEmptyHostMeansAllInterfacesOfBothFamilies) {
  Serve({.listen = {":7000"}});
  std::vector<std::string> bound;
  for (const SocketAddress& address : server_->addresses()) bound.push_back(address.ToString());
  EXPECT_THAT(bound, ::testing::UnorderedElementsAre("0.0.0.0:7000", "[::]:7000"));
}

// C-CSV-04
TEST_F(StreamServerTest, AllAddressesAreBoundAndEqualOnesOnce) {
  Serve({.listen = {"127.0.0.1:7001", "[::1]:7001", "127.0.0.1:7001", "unix-abstract:a"}});
  EXPECT_THAT(server_->addresses(), SizeIs(3));
  EXPECT_THAT(server_->sockets(), SizeIs(3));
}

// C-CSV-04: a name is bound at all its addresses.
TEST_F(StreamServerTest, ANameIsBoundAtEachOfItsAddresses) {
  os_.kernel().SetName("service.test", os_.ips());
  Serve({.listen = {"service.test:7002"}});
  EXPECT_EQ(server_->addresses().size(), os_.ips().size());
}

// C-CSV-05
TEST_F(StreamServerTest, ANameThatDoesNotExistIsNotFound) {
  EXPECT_EQ(Create({"nowhere.test:7000"}).status().code(), absl::StatusCode::kNotFound);
}

// C-CSV-06
TEST_F(StreamServerTest, AFamilyThatTheSystemLacksIsSkippedUnlessItIsTheOnlyOne) {
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
TEST_F(StreamServerTest, ReuseAddressIsTheDefaultAndReusePortAnOption) {
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
TEST_F(StreamServerTest, OnePortServesBothFamiliesWithTwoSockets) {
  Serve({.listen = {"[::]:7003", "0.0.0.0:7003"}});
  EXPECT_EQ(Option(server_->sockets()[0], IPPROTO_IPV6, IPV6_V6ONLY), 1);
  for (const char* where : {"127.0.0.1:7003", "[::1]:7003"}) {
    EXPECT_TRUE(TryConnect(*SocketAddress::Parse(where)).ok()) << where;
  }
}

TEST_F(StreamServerTest, AnAddressInUseIsSaidInTheSystemsWords) {
  Serve({.listen = {"127.0.0.1:7004"}});
  const absl::Status status = Create({"127.0.0.1:7004"}).status();
  EXPECT_EQ(ErrnoOf(status), EADDRINUSE);
  EXPECT_EQ(status.message(), "error while attempting to bind on address 127.0.0.1:7004: Address already in use");
}

// C-CSV-11
TEST_F(StreamServerTest, AStaleSocketFileIsRemovedFirst) {
  Serve({.listen = {"unix:/run/test.sock"}});
  server_.reset();  // leaves the file
  Settle();
  ASSERT_TRUE(os_.IsSocketFile("/run/test.sock"));
  Serve({.listen = {"unix:/run/test.sock"}});
  Connect();
  EXPECT_EQ(client_.Count("made"), 1u);
}

// C-CSV-11
TEST_F(StreamServerTest, TheSocketFileOfALivingServerAndOtherFilesStay) {
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

// C-ACC-01
TEST_F(StreamServerTest, OneReadinessAcceptsUpToABacklogOfConnections) {
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
TEST_F(StreamServerTest, AConnectionThatIsGoneBeforeItIsAcceptedIsNoError) {
  Serve();
  int accepts = 0;
  os_.SetFault(
      [&](absl::string_view operation, int) { return operation == "Accept" && ++accepts == 1 ? ECONNABORTED : 0; });
  Connect();
  Settle();
  EXPECT_EQ(served_.Count("made"), 1u);
  EXPECT_GT(accepts, 1);
  EXPECT_THAT(reports_, IsEmpty());
}

// C-ACC-02
TEST_F(StreamServerTest, WithoutDescriptorsItSaysSoOnceAndTriesAgainEverySecond) {
  for (const int error : {EMFILE, ENFILE, ENOBUFS, ENOMEM}) {
    reports_.clear();
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
    EXPECT_THAT(reports_, ElementsAre("socket.accept() out of system resource"));
    EXPECT_EQ(ErrnoOf(last_report_.status), error);
    EXPECT_THAT(last_report_.Get("socket"), HasSubstr("listener"));
    EXPECT_EQ(server_->accept_pauses().value(), 3u);
    EXPECT_TRUE(server_->is_serving());
    EXPECT_EQ(served_.Count("made"), 1u);
    server_->AbortConnections();
    Settle();
  }
}

TEST_F(StreamServerTest, ClosedWhileItWaitsForDescriptorsItWaitsNoMore) {
  Serve();
  os_.SetFault([](absl::string_view operation, int) { return operation == "Accept" ? EMFILE : 0; });
  Connect();
  RunTo(absl::Seconds(5));
  server_->Close();
  os_.SetFault(nullptr);
  const MonotonicTime before = os_.Now();
  Settle();
  EXPECT_LT(os_.Now() - before, absl::Seconds(1));
}

TEST_F(StreamServerTest, AFailingFactoryCostsThatConnectionOnly) {
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
  EXPECT_THAT(reports_, ElementsAre("Error on transport creation for incoming connection",
                                    "Error on transport creation for incoming connection"));
  EXPECT_THAT(last_report_.Get("peer"), HasSubstr("127.0.0.1"));
}

TEST_F(StreamServerTest, BeyondItsConnectionsTheRestWaitsInTheBacklog) {
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

TEST_F(StreamServerTest, ByDefaultSomeDescriptorsAreLeftForOtherUses) {
  os_.SetDescriptorLimit(66);
  Serve();
  std::vector<int> fds;
  for (int i = 0; i < 4; ++i) fds.push_back(Knock());
  Settle();
  EXPECT_EQ(server_->connections(), 2u);
  for (const int fd : fds) os_.Close(fd);
  Settle();
}

// Each system call in turn fails: whatever comes of it, nothing leaks, nothing hangs, nothing crashes.
TEST_F(StreamServerTest, EveryCallMayFail) {
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
