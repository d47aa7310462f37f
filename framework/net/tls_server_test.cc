// TLS from the start, over simulated sockets: CreateServer, CreateConnection, ConnectAcceptedSocket, and the upgrade of a
// connection that a server owns.
#include <malloc.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdio>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/task.h"
#include "troupe/base/monotonic_time.h"
#include "troupe/base/os_error.h"
#include "troupe/base/socket_address.h"
#include "troupe/loop/event_loop.h"
#include "troupe/net/connect.h"
#include "troupe/net/internal/net_testing.h"
#include "troupe/net/internal/recording_protocol.h"
#include "troupe/net/stream_server.h"
#include "troupe/net/tls.h"
#include "troupe/net/tls_context.h"
#include "troupe/os/io_limit.h"
#include "troupe/testing/sim/sim_os.h"
#include "troupe/testing/tls_certificates.h"

namespace troupe::internal {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::TestCertificate;
using testing::TestCertificateOptions;

class TlsServerTest : public NetTest {
 protected:
  TlsServerTest() {
    TestCertificateOptions leaf;
    leaf.dns_names = {"kv.test", "localhost"};
    leaf.ip_addresses = {"127.0.0.1"};
    const TestCertificate certificate = Root().Issue(leaf);
    server_options_.certificates.emplace_back();
    server_options_.certificates[0].chain = certificate.chain();
    server_options_.certificates[0].key = certificate.key();
    server_context_ = *TlsContext::ForServer(server_options_);
    TlsOptions client;
    client.roots = Root().certificate();
    client_context_ = *TlsContext::ForClient(client);
  }
  static const TestCertificate& Root() {
    static const auto* const root = new TestCertificate(TestCertificate::Root());
    return *root;
  }
  void ServeTls(StreamServerOptions options, const TlsContext& context) {
    options.tls = &context;
    Serve(std::move(options));
  }
  void ServeTls(StreamServerOptions options = {}) { ServeTls(std::move(options), *server_context_); }
  ConnectOptions Secure() {
    ConnectOptions options;
    options.address = server_->addresses().front();
    options.tls = &*client_context_;
    options.server_hostname = "kv.test";
    return options;
  }
  Transport& ConnectTls() {
    absl::StatusOr<Connected<>> connected = TryConnect(Secure());
    EXPECT_TRUE(connected.ok()) << connected.status();
    clients_.push_back(std::move(connected->transport));
    return *clients_.back();
  }
  absl::Status Refusal(const ConnectOptions& options) {
    const absl::Status status = TryConnect(options).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return status;
  }
  static Task<void> Note(Task<absl::StatusOr<Transport*>> starting, absl::Status& status) {
    const absl::StatusOr<Transport*> made = co_await std::move(starting);
    status = made.status();
  }
  // What a raw descriptor has received.
  std::string Received(int fd) {
    std::string all;
    char bytes[1000];
    for (;;) {
      const int64_t n = os_.Recv(fd, absl::MakeSpan(bytes));
      if (n <= 0) return all;
      all.append(bytes, static_cast<size_t>(n));
    }
  }
  void SendRaw(int fd, absl::string_view text) {
    while (!text.empty()) {
      const iovec piece = {const_cast<char*>(text.data()), text.size()};
      const int64_t sent = os_.Send(fd, absl::MakeConstSpan(&piece, 1));
      ASSERT_GT(sent, 0);
      text.remove_prefix(static_cast<size_t>(sent));
    }
  }

  TlsOptions server_options_;
  std::optional<TlsContext> server_context_, client_context_;
};
INSTANTIATE_POLLING(TlsServerTest);

// C-TLS-01
TEST_P(TlsServerTest, ServesAndConnects) {
  ServeTls();
  Transport& client = ConnectTls();
  EXPECT_THAT(client_.log, ElementsAre("made"));
  client.Write("hello");
  Settle();
  EXPECT_THAT(served_.log, ElementsAre("made", "data hello"));
  EXPECT_EQ(client.peer(), server_->addresses().front());
  EXPECT_GE(client.descriptor(), 0);
  EXPECT_EQ(client.tls()->server_name, "kv.test");
  client.Close();
  Settle();
  EXPECT_THAT(served_.log, ElementsAre("made", "data hello", "eof", "lost OK"));
  EXPECT_THAT(client_.log, ElementsAre("made", "lost OK"));
  EXPECT_EQ(client.descriptor(), -1);
  EXPECT_EQ(server_->connections(), 0u);
  EXPECT_EQ(server_->tls_handshake_failures().value(), 0u);
}

// C-TLS-01: the certificate may be asked for in ConnectionMade.
TEST_P(TlsServerTest, ConnectionMadeComesAfterTheHandshake) {
  ServeTls();
  bool asked = false;
  client_.on_made = [&](Transport& transport) {
    asked = transport.tls() != nullptr && transport.tls()->peer.has_value();
  };
  served_.on_made = [&](Transport& transport) { EXPECT_NE(transport.tls(), nullptr); };
  const int fd = Knock();
  Settle();
  EXPECT_THAT(served_.log, ElementsAre());  // it says nothing: 60 s later it is gone
  EXPECT_EQ(server_->tls_handshake_failures().value(), 1u);
  os_.Close(fd);
  ConnectTls();
  EXPECT_TRUE(asked);
  Settle();
  EXPECT_THAT(served_.log, ElementsAre("made"));
}

// C-CON-01
TEST_P(TlsServerTest, TlsOptionsWithoutTlsAreRefused) {
  ServeTls();
  ConnectOptions options;
  options.address = server_->addresses().front();
  options.server_hostname = "kv.test";
  EXPECT_EQ(Refusal(options).message(), "server_hostname is only meaningful with tls");
  options.server_hostname = {};
  options.tls_handshake_timeout = absl::Seconds(1);
  EXPECT_EQ(Refusal(options).message(), "tls_handshake_timeout is only meaningful with tls");
  options.tls_handshake_timeout = std::nullopt;
  options.tls_shutdown_timeout = absl::Seconds(1);
  EXPECT_EQ(Refusal(options).message(), "tls_shutdown_timeout is only meaningful with tls");
  options = Secure();
  options.server_hostname = {};
  EXPECT_EQ(Refusal(options).message(), "You must set server_hostname when using TLS without a host");
  options = Secure();
  options.tls = &*server_context_;
  EXPECT_THAT(std::string(Refusal(options).message()), HasSubstr("a TlsContext for clients"));
  // C-TLS-03
  options = Secure();
  options.tls_handshake_timeout = absl::ZeroDuration();
  EXPECT_THAT(std::string(Refusal(options).message()), HasSubstr("should be a positive duration, got 0"));
  EXPECT_EQ(factory_calls_, 0);
}

// C-CON-01
TEST_P(TlsServerTest, TheHostIsTheDefaultHostname) {
  ServeTls();
  const std::string port = absl::StrCat(server_->addresses().front().port());
  ConnectOptions options;
  options.host = "127.0.0.1";
  options.port = port;
  options.tls = &*client_context_;
  absl::StatusOr<Connected<>> connected = TryConnect(options);
  ASSERT_TRUE(connected.ok()) << connected.status();
  EXPECT_EQ(connected->transport->tls()->server_name, "");  // an address is not asked for, and verified
  connected->transport->Abort();
  options.server_hostname = "other.test";
  EXPECT_EQ(TryConnect(options).status().code(), absl::StatusCode::kUnauthenticated);
}

// C-CSV-02, C-TLS-03, C-CSV-01
TEST_P(TlsServerTest, AServersTlsOptionsAreChecked) {
  StreamServerOptions options;
  options.listen = {"127.0.0.1:0"};
  options.tls_handshake_timeout = absl::Seconds(1);
  EXPECT_EQ(Create(options).status().message(), "tls_handshake_timeout is only meaningful with tls");
  options.tls = &*client_context_;
  EXPECT_EQ(Create(options).status().message(), "a server takes a TlsContext for servers");
  options.tls = &*server_context_;
  options.tls_handshake_timeout = absl::Seconds(-1);
  EXPECT_EQ(Create(options).status().code(), absl::StatusCode::kInvalidArgument);
  options.tls_handshake_timeout = std::nullopt;
  options.tls_shutdown_timeout = absl::ZeroDuration();
  EXPECT_EQ(Create(options).status().code(), absl::StatusCode::kInvalidArgument);
}

// C-ACC-07
TEST_P(TlsServerTest, AHandshakeThatFailsCostsItsOwnConnectionOnly) {
  ServeTls();
  Transport& good = ConnectTls();
  std::vector<int> strangers;
  for (int i = 0; i < 5; ++i) strangers.push_back(Knock());
  RunTo(absl::Seconds(1));
  const std::string bad_hello("\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", 10);
  for (const int fd : strangers) SendRaw(fd, bad_hello);
  RunTo(absl::Seconds(2));
  EXPECT_EQ(server_->tls_handshake_failures().value(), 5u);
  EXPECT_EQ(server_->connections(), 1u);
  for (const int fd : strangers) {
    EXPECT_EQ(Received(fd).substr(0, 2), "\x15\x03");  // an alert, and nothing else
    os_.Close(fd);
  }
  good.Write("hello");
  Settle();
  EXPECT_THAT(served_.log, ElementsAre("made", "data hello"));
  EXPECT_EQ(served_.alive, 1);
}

// C-TLS-06
TEST_P(TlsServerTest, ClosingInTheHandshakeLeavesNoDescriptorBehind) {
  for (int way = 0; way < 3; ++way) {
    ServeTls();
    const int fd = Knock();
    RunTo(loop_.Time() - MonotonicTime() + absl::Seconds(1));
    EXPECT_EQ(server_->connections(), 1u);
    server_->Close();
    if (way == 0) server_->CloseConnections();
    if (way == 1) server_->AbortConnections();
    if (way == 2) {
      server_.reset();
    } else {
      loop_.RunUntilComplete(server_->WaitClosed());
    }
    RunReady();
    os_.Close(fd);
    Settle();
    EXPECT_THAT(os_.OpenDescriptors(), ::testing::IsEmpty());
    EXPECT_THAT(served_.log, ElementsAre());
  }
}

// C-TLS-06
TEST_P(TlsServerTest, CancellingAConnectInTheHandshakeClosesTheSocket) {
  ServeOn({"127.0.0.1:0"});  // accepts, and says nothing
  auto connecting = loop_.CreateTask(Connecting(Secure()));
  RunTo(absl::Seconds(1));
  connecting.Cancel();
  Settle();
  EXPECT_TRUE(connecting.cancelled());
  EXPECT_THAT(client_.log, ElementsAre());
  EXPECT_EQ(client_.alive, 0);
}

// C-TLS-04, C-TLS-10
TEST_P(TlsServerTest, AConnectThatFailsInTheHandshakeSaysWhyAndTheProtocolHearsNothing) {
  ServeTls();
  ConnectOptions options = Secure();
  options.server_hostname = "other.test";
  const absl::Status status = TryConnect(options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(status.message(), "TLS handshake failed on verifying the certificate: hostname mismatch");
  Settle();
  EXPECT_THAT(client_.log, ElementsAre());
  EXPECT_THAT(served_.log, ElementsAre());
  EXPECT_EQ(server_->tls_handshake_failures().value(), 1u);
}

TEST_P(TlsServerTest, AnExceptionInConnectionMadeEndsTheConnection) {
  ServeTls();
  client_.on_made = [](Transport&) { throw std::runtime_error("no"); };
  EXPECT_EQ(TryConnect(Secure()).status().code(), absl::StatusCode::kUnknown);
  EXPECT_THAT(TakeReports(), ElementsAre("Fatal error: protocol.ConnectionMade() call failed."));
}

TEST_P(TlsServerTest, AServersConnectionsCloseInGoodOrder) {
  ServeTls();
  ConnectTls();
  ConnectTls();
  Settle();
  server_->Close();
  server_->CloseConnections();
  loop_.RunUntilComplete(server_->WaitClosed());
  Settle();
  EXPECT_EQ(served_.Count("lost OK"), 2u);
  EXPECT_EQ(client_.Count("eof"), 2u);
  EXPECT_EQ(client_.Count("lost OK"), 2u);
}

TEST_P(TlsServerTest, CertificatesAreReloadedWhileServingWithoutOneFailedHandshake) {
  ServeTls();
  for (int i = 0; i < 20; ++i) {
    TestCertificateOptions leaf;
    leaf.common_name = absl::StrCat("generation ", i);
    leaf.dns_names = {"kv.test"};
    const TestCertificate certificate = Root().Issue(leaf);
    std::vector<TlsCertificate> given(1);
    given[0].chain = certificate.chain();
    given[0].key = certificate.key();
    auto under_way = loop_.CreateTask(Connecting(Secure()));
    for (int steps = 0; steps < i; ++steps) loop_.RunOnceWithoutWaiting();
    ASSERT_TRUE(server_context_->Reload(given).ok());
    Settle();
    ASSERT_TRUE(under_way.done());
    absl::StatusOr<Connected<>> connected = loop_.RunUntilComplete(Future<absl::StatusOr<Connected<>>>(under_way));
    ASSERT_TRUE(connected.ok()) << connected.status();
    clients_.push_back(std::move(connected->transport));
  }
  EXPECT_EQ(server_->tls_handshake_failures().value(), 0u);
  EXPECT_EQ(server_->connections(), 20u);
}

TEST_P(TlsServerTest, AServerAndAClientMayAgreeOnOtherProtocolsThanTheirContexts) {
  StreamServerOptions options;
  options.tls_alpn = {"troupe/1"};
  ServeTls(std::move(options));
  const std::vector<std::string> offered = {"other", "troupe/1"};
  ConnectOptions client = Secure();
  client.tls_alpn = offered;
  absl::StatusOr<Connected<>> connected = TryConnect(client);
  ASSERT_TRUE(connected.ok()) << connected.status();
  EXPECT_EQ(connected->transport->tls()->alpn, "troupe/1");
  connected->transport->Abort();
  const std::vector<std::string> others = {"other"};
  client.tls_alpn = others;
  EXPECT_THAT(std::string(TryConnect(client).status().message()), HasSubstr("no application protocol"));
  const std::vector<std::string> empty = {""};
  client.tls_alpn = empty;
  EXPECT_THAT(std::string(Refusal(client).message()), HasSubstr("ALPN"));
  client.tls = nullptr;
  client.server_hostname = {};
  client.tls_alpn = others;
  EXPECT_EQ(Refusal(client).message(), "tls_alpn is only meaningful with tls");
}

// Less than 20 KiB an end, also of a client that was sent tickets.
TEST_P(TlsServerTest, AnIdleConnectionTakesLittleMoreThanAPlainOne) {
  if (IoLimit::FromEnvironment().any()) return;  // pieces of a record leave their mark
  constexpr int kConnections = 50;
  const auto held = [] { return static_cast<int64_t>(mallinfo2().uordblks); };
  const auto measure = [&](bool tls) {
    const auto connect = [&] { tls ? ConnectTls() : Connect(); };
    tls ? ServeTls() : ServeOn({"127.0.0.1:0"});
    connect();  // what is made once
    Settle();
    const int64_t before = held();
    for (int i = 0; i < kConnections; ++i) connect();
    Settle();
    const int64_t each = (held() - before) / kConnections;
    for (const TransportPtr& client : clients_) client->Abort();
    clients_.clear();
    server_.reset();
    Settle();
    return each;
  };
  const int64_t plain = measure(false);
  if (plain <= 0) return;  // a sanitizer's allocator does not count
  const int64_t both_ends = measure(true) - plain;
  RecordProperty("bytes_of_both_ends", static_cast<int>(both_ends));
  std::printf("TLS takes %d bytes more for both ends of a connection\n", static_cast<int>(both_ends));
  EXPECT_LT(both_ends, 2 * (20 << 10));
}

// Signatures are of 70 to 72 bytes, by the numbers that were drawn for them.
TEST_P(TlsServerTest, TheSameSeedGivesTheSameTrace) {
  const auto run = [&](uint64_t seed) {
    testing::SimOs os(seed);
    EventLoop loop(os);
    os.kernel().SetLoopbackLink({.latency = absl::Milliseconds(1), .jitter = absl::Milliseconds(1)});
    os.SetIoLimits({.recv_bytes_max = 700, .send_bytes_max = 700, .random = true});
    const TlsContext server_context = *TlsContext::ForServer(server_options_);
    TlsOptions client_options;
    client_options.roots = Root().certificate();
    client_options.session_tickets = false;  // each handshake has its signature
    const TlsContext client_context = *TlsContext::ForClient(client_options);
    internal::Recording served, client;
    StreamServerOptions options;
    options.listen = {"127.0.0.1:0"};
    options.tls = &server_context;
    auto server = *loop.RunUntilComplete(CreateServer(loop, [&] { return served.NewProtocol(); }, options));
    for (int i = 0; i < 10; ++i) {
      ConnectOptions to;
      to.address = server->addresses().front();
      to.tls = &client_context;
      to.server_hostname = "kv.test";
      auto connected = loop.RunUntilComplete(CreateConnection(loop, [&] { return client.NewProtocol(); }, to));
      EXPECT_TRUE(connected.ok()) << connected.status();
      connected->transport->Write("hello");
      connected->transport->Close();
      loop.RunUntilComplete(connected->transport->Closed());
    }
    server->Close();
    loop.RunUntilComplete(server->WaitClosed());
    server.reset();
    loop.Close();
    return os.kernel().TraceHash();
  };
  const uint64_t first = run(1);
  EXPECT_EQ(run(1), first);
  EXPECT_NE(run(2), first);
}

TEST_P(TlsServerTest, AServerMayAllowClearTextBesideTls) {
  StreamServerOptions options;
  options.listen = {"127.0.0.1:0"};
  options.allow_clear_text = true;
  EXPECT_EQ(Create(options).status().message(), "allow_clear_text is only meaningful with tls");
  options.tls_handshake_timeout = absl::Seconds(5);
  std::vector<bool> secure;
  served_.on_data = [&](Transport& transport, absl::Span<const char> data) {
    secure.push_back(transport.tls() != nullptr);
    transport.Write(data);
  };
  ServeTls(options);
  ConnectTls().Write("hello");
  Settle();
  Transport& plain = Connect();
  const std::string text(300'000, 'x');
  plain.Write(absl::MakeConstSpan(text));
  Settle();
  EXPECT_EQ(client_.received, 5 + text.size());
  EXPECT_TRUE(secure.front());
  EXPECT_FALSE(secure.back());
  plain.Close();
  Settle();
  EXPECT_EQ(served_.Count("eof"), 1u);
  EXPECT_EQ(served_.Count("lost OK"), 1u);
  // Who says nothing at all is not waited for.
  const int fd = Knock();
  Settle();
  EXPECT_EQ(server_->connections(), 1u);
  EXPECT_EQ(server_->tls_handshake_failures().value(), 1u);
  os_.Close(fd);
  // A server that closes first.
  Transport& other = Connect();
  other.Write("hello");
  Settle();
  server_->Close();
  server_->CloseConnections();
  Settle();
  EXPECT_EQ(server_->connections(), 0u);
  EXPECT_EQ(served_.Count("lost OK"), 3u);
}

// ---------------------------------------------------------------------------------------------------- others

TEST_P(TlsServerTest, AnAcceptedSocketMaySpeakTls) {
  int fds[2];
  ASSERT_EQ(os_.SocketPair(AF_UNIX, SOCK_STREAM, fds), 0);
  ConnectOptions client;
  client.socket = fds[0];
  client.tls = &*client_context_;
  client.server_hostname = "kv.test";
  auto connecting = loop_.CreateTask(Connecting(client));
  AcceptedSocketOptions accepted;
  accepted.tls = &*client_context_;
  const auto factory = [this] { return served_.NewProtocol(); };
  EXPECT_EQ(loop_.RunUntilComplete(ConnectAcceptedSocket(loop_, factory, fds[1], accepted)).status().message(),
            "an accepted connection takes a TlsContext for servers");
  accepted.tls = &*server_context_;
  auto served = loop_.RunUntilComplete(ConnectAcceptedSocket(loop_, factory, fds[1], accepted));
  ASSERT_TRUE(served.ok()) << served.status();
  auto connected = loop_.RunUntilComplete(Future<absl::StatusOr<Connected<>>>(connecting));
  ASSERT_TRUE(connected.ok()) << connected.status();
  served->transport->Write("hello");
  Settle();
  EXPECT_THAT(client_.log, ElementsAre("made", "data hello"));
  connected->transport->Close();
  Settle();
  EXPECT_THAT(served_.log, ElementsAre("made", "eof", "lost OK"));
}

// STARTTLS as mail does it: the server owns its connection and goes on to own it.
TEST_P(TlsServerTest, AServersConnectionIsUpgraded) {
  absl::Status upgraded = absl::UnknownError("not yet");
  served_.on_data = [&](Transport& transport, absl::Span<const char>) {
    if (served_.log.back() != "data STARTTLS\r\n") return;
    transport.Write("220 go ahead\r\n");
    auto starting = StartTls(transport, *server_context_);
    loop_.CreateTask(Note(std::move(starting), upgraded));
  };
  ServeOn({"127.0.0.1:0"});
  Transport& plain = Connect();
  plain.Write("STARTTLS\r\n");
  RunTo(absl::Seconds(1));
  EXPECT_THAT(client_.log, ElementsAre("made", "data 220 go ahead\r\n"));
  absl::StatusOr<TransportPtr> secured =
      loop_.RunUntilComplete(StartTls(std::move(clients_.back()), *client_context_, {.server_hostname = "kv.test"}));
  clients_.clear();
  ASSERT_TRUE(secured.ok()) << secured.status();
  Settle();
  EXPECT_TRUE(upgraded.ok()) << upgraded;
  EXPECT_EQ(server_->connections(), 1u);
  (*secured)->Write("hello");
  Settle();
  EXPECT_EQ(served_.log.back(), "data STARTTLS\r\nhello");
  server_->Close();
  server_->CloseConnections();
  Settle();
  EXPECT_TRUE(server_->is_closed());
  EXPECT_EQ(server_->connections(), 0u);
  EXPECT_EQ(served_.log.back(), "lost OK");
  EXPECT_EQ(client_.log.back(), "lost OK");
}

// C-STL-02: a man in the middle puts clear text behind STARTTLS, and behind the answer.
TEST_P(TlsServerTest, ClearTextInjectedBehindStartTlsIsRefused) {
  absl::Status upgraded = absl::UnknownError("not yet");
  served_.on_data = [&](Transport& transport, absl::Span<const char>) {
    if (served_.log.back() != "data STARTTLS\r\n") return;
    transport.Write("220 go ahead\r\n");
    auto starting = StartTls(transport, *server_context_);
    loop_.CreateTask(Note(std::move(starting), upgraded));
  };
  ServeOn({"127.0.0.1:0"});
  Transport& plain = Connect();
  plain.Write("STARTTLS\r\n");
  RunTo(absl::Seconds(1));
  EXPECT_THAT(client_.log, ElementsAre("made", "data 220 go ahead\r\n"));
  plain.Write("DROP TABLE users;\r\n");
  Settle();
  EXPECT_EQ(upgraded.code(), absl::StatusCode::kUnavailable) << upgraded;
  EXPECT_THAT(served_.log, ElementsAre("made", "data STARTTLS\r\n", "lost UNAVAILABLE"));
  EXPECT_EQ(server_->connections(), 0u);
}

// The whole of a conversation while the simulated network splits what it carries at any byte.
TEST_P(TlsServerTest, SmallSocketsCarryLargeConversations) {
  os_.kernel().SetSendBufferBytes(700);
  ServeTls();
  Transport& client = ConnectTls();
  const std::string text(200'000, 'x');
  served_.on_eof = nullptr;
  client.Write(absl::MakeConstSpan(text));
  client.Close();
  Settle();
  EXPECT_EQ(served_.received, text.size());
  EXPECT_EQ(served_.log.back(), "lost OK");
  EXPECT_EQ(client_.log.back(), "lost OK");
}

}  // namespace
}  // namespace troupe::internal
