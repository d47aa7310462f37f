// Services over TLS: a server and channels on one simulated machine; who the client is reaches the actor.
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "echo/v1/echo.troupe.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/base/tls_info.h"
#include "troupe/loop/event_loop.h"
#include "troupe/net/connect.h"
#include "troupe/net/protocol.h"
#include "troupe/net/stream_server.h"
#include "troupe/net/tls_context.h"
#include "troupe/net/transport.h"
#include "troupe/rpc/call.h"
#include "troupe/service/channel.h"
#include "troupe/service/server.h"
#include "troupe/testing/matchers.h"
#include "troupe/testing/sim/sim_os.h"
#include "troupe/testing/tls_certificates.h"

namespace troupe {
namespace {

using ::echo::v1::EchoRequest;
using ::echo::v1::EchoResponse;
using ::echo::v1::EchoStub;
using ::testing::HasSubstr;
using ::troupe::testing::SimOs;
using ::troupe::testing::StatusIs;
using ::troupe::testing::TestCertificate;
using ::troupe::testing::TestCertificateOptions;

// Answers with who asked.
class WhoAmI final : public echo::v1::EchoActor {
 public:
  explicit WhoAmI(std::string& at_the_end) : at_the_end_(at_the_end) {}
  Task<absl::Status> Echo(const EchoRequest&, EchoResponse& response, Call& call) override {
    connection_ = &call.connection();
    response.set_message(Name());
    co_return absl::OkStatus();
  }
  void ConnectionLost(const absl::Status&) override {
    if (connection_ != nullptr) at_the_end_ = Name();
  }

 private:
  std::string Name() const {
    const TlsInfo* tls = connection_->tls();
    if (tls == nullptr) return "in clear text";
    const std::string name = tls->peer.has_value() && tls->peer_verified ? tls->peer->uris.at(0) : "nobody";
    return tls->alpn + " " + name;
  }
  std::string& at_the_end_;
  Connection* connection_ = nullptr;
};

Task<absl::StatusOr<EchoResponse>> Await(Reply<EchoResponse> reply) {
  absl::StatusOr<EchoResponse> got = co_await reply;
  co_return got;
}

class ServiceTlsTest : public ::testing::Test {
 protected:
  ServiceTlsTest() : root_(TestCertificate::Root()) {
    TestCertificateOptions server;
    server.dns_names = {"kv.test"};
    server.ip_addresses = {"127.0.0.1"};
    TestCertificateOptions client;
    client.uris = {"spiffe://test/client"};
    server_options_ = Showing(root_.Issue(server));
    client_options_ = Showing(root_.Issue(client));
    client_options_.roots = root_.certificate();
    server_options_.roots = root_.certificate();
    server_options_.verify = TlsVerify::kRequest;
  }
  ~ServiceTlsTest() override {
    if (server_.has_value()) {
      server_->Close();
      loop_.RunUntilComplete(server_->WaitClosed());
    }
    loop_.Close();
    EXPECT_THAT(os_.OpenDescriptors(), ::testing::IsEmpty());
  }
  static TlsOptions Showing(const TestCertificate& certificate) {
    TlsOptions options;
    options.certificates.emplace_back();
    options.certificates.back().chain = certificate.chain();
    options.certificates.back().key = certificate.key();
    return options;
  }
  void Serve(ServerOptions options = {}) {
    options.listen = {"127.0.0.1:0"};
    options.tls = *TlsContext::ForServer(server_options_);
    options.tls_handshake_timeout = absl::Seconds(5);
    server_.emplace(loop_, options);
    server_->Add<WhoAmI>(std::ref(at_the_end_));
    ASSERT_OK(loop_.RunUntilComplete(server_->Start()));
  }
  ChannelOptions Secure() {
    ChannelOptions options;
    options.tls = *TlsContext::ForClient(client_options_);
    return options;
  }
  absl::StatusOr<std::string> Ask(ChannelOptions options) {
    Channel channel(loop_, server_->addresses().front().ToString(), std::move(options));
    EchoStub echo(channel);
    EchoRequest request;
    request.set_message("who am I?");
    absl::StatusOr<EchoResponse> got = loop_.RunUntilComplete(Await(echo.Echo(request)));
    if (!got.ok()) return got.status();
    return got->message();
  }

  SimOs os_;
  EventLoop loop_{os_};
  const TestCertificate root_;
  TlsOptions server_options_, client_options_;
  std::string at_the_end_;
  std::optional<Server> server_;
};

TEST_F(ServiceTlsTest, AnActorKnowsWhoItsClientIs) {
  Serve();
  EXPECT_EQ(Ask(Secure()).value(), "troupe/1 spiffe://test/client");
  client_options_.certificates.clear();
  EXPECT_EQ(Ask(Secure()).value(), "troupe/1 nobody");
}

TEST_F(ServiceTlsTest, AnActorKnowsItStillWhenTheConnectionIsLost) {
  Serve();
  EXPECT_EQ(Ask(Secure()).value(), "troupe/1 spiffe://test/client");
  server_->Close();
  loop_.RunUntilComplete(server_->WaitClosed());
  EXPECT_EQ(at_the_end_, "troupe/1 spiffe://test/client");
}

TEST_F(ServiceTlsTest, AServerThatRequiresACertificateServesNobodyWithout) {
  server_options_.verify = TlsVerify::kRequire;
  Serve();
  client_options_.certificates.clear();
  EXPECT_THAT(Ask(Secure()), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(server_->tls_handshake_failures(), 1u);
  EXPECT_EQ(server_->calls_in_flight(), 0u);
}

TEST_F(ServiceTlsTest, AClientVerifiesItsServer) {
  Serve();
  ChannelOptions options = Secure();
  options.server_hostname = "kv.test";
  EXPECT_EQ(Ask(options).value(), "troupe/1 spiffe://test/client");
  options.server_hostname = "other.test";
  EXPECT_THAT(Ask(options), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("hostname mismatch")));
}

TEST_F(ServiceTlsTest, NobodyIsServedInClearText) {
  Serve();
  EXPECT_THAT(Ask({}), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(server_->tls_handshake_failures(), 1u);
  EXPECT_EQ(at_the_end_, "");
}

TEST_F(ServiceTlsTest, ClearTextIsServedWhereItIsAllowed) {
  ServerOptions options;
  options.allow_clear_text = true;
  Serve(options);
  EXPECT_EQ(Ask({}).value(), "in clear text");
  EXPECT_EQ(Ask(Secure()).value(), "troupe/1 spiffe://test/client");
}

TEST_F(ServiceTlsTest, TheServerChoosesTheWireFromWhatTheChannelOffers) {
  Serve();
  ChannelOptions options = Secure();
  EXPECT_EQ(Ask(options).value(), "troupe/1 spiffe://test/client") << "both are offered";
  options.wire = Wire::kGrpc;
  EXPECT_EQ(Ask(options).value(), "h2 spiffe://test/client");
  options.wire = Wire::kNative;
  EXPECT_EQ(Ask(options).value(), "troupe/1 spiffe://test/client");
}

// A server whose listener agrees on what `alpn` says.
class AlpnTest : public ServiceTlsTest {
 protected:
  ~AlpnTest() override {
    if (front_ != nullptr) front_->Close();
  }
  void Listen(std::vector<std::string> alpn) {
    server_.emplace(loop_);
    server_->Add<WhoAmI>(std::ref(at_the_end_));
    ASSERT_OK(loop_.RunUntilComplete(server_->Start()));
    const TlsContext context = *TlsContext::ForServer(server_options_);
    StreamServerOptions listen;
    listen.listen = {"127.0.0.1:7400"};
    listen.tls = &context;
    listen.tls_alpn = std::move(alpn);
    const auto factory = [this]() -> std::unique_ptr<BaseProtocol> { return server_->NewConnection(); };
    auto listening = loop_.RunUntilComplete(CreateServer(loop_, factory, listen));
    ASSERT_OK(listening.status());
    front_ = *std::move(listening);
  }
  absl::StatusOr<std::string> AskTarget(const std::string& target, ChannelOptions options) {
    Channel channel(loop_, target, std::move(options));
    EchoRequest request;
    request.set_message("who am I?");
    absl::StatusOr<EchoResponse> got = loop_.RunUntilComplete(Await(EchoStub(channel).Echo(request)));
    if (!got.ok()) return got.status();
    return got->message();
  }

  std::unique_ptr<StreamServer> front_;
};

TEST_F(AlpnTest, AServerOfGrpcAloneIsSpokenToInGrpc) {
  Listen({"h2"});
  EXPECT_EQ(AskTarget("127.0.0.1:7400", Secure()).value(), "h2 spiffe://test/client");
  ChannelOptions native = Secure();
  native.wire = Wire::kNative;
  EXPECT_THAT(AskTarget("127.0.0.1:7400", native), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(AskTarget("troupe+dns:///127.0.0.1:7400", Secure()), StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(AlpnTest, AServerThatAgreesOnNothingIsNotTried) {
  Listen({});
  EXPECT_THAT(AskTarget("127.0.0.1:7400", Secure()),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("neither troupe/1 nor h2")));
  EXPECT_EQ(at_the_end_, "") << "no call has come";
  ChannelOptions told = Secure();
  told.wire = Wire::kGrpc;
  EXPECT_EQ(AskTarget("127.0.0.1:7400", told).value(), " spiffe://test/client") << "the user knows";
}

TEST_F(ServiceTlsTest, WhoSpeaksOtherProtocolsIsRefusedInTheHandshake) {
  Serve();
  class Silent final : public Protocol {
    void DataReceived(absl::Span<const char>) override {}
  };
  const TlsContext context = *TlsContext::ForClient(client_options_);
  const std::vector<std::string> alpn = {"http/1.1"};
  ConnectOptions options;
  options.address = server_->addresses().front();
  options.tls = &context;
  options.tls_alpn = alpn;
  options.server_hostname = "kv.test";
  const auto factory = [] { return std::make_unique<Silent>(); };
  EXPECT_THAT(loop_.RunUntilComplete(CreateConnection(loop_, factory, options)),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("no application protocol")));
}

TEST_F(ServiceTlsTest, AContextForTheOtherEndIsRefused) {
  server_options_ = client_options_;
  ServerOptions options;
  options.listen = {"127.0.0.1:0"};
  options.tls = *TlsContext::ForClient(client_options_);
  Server server(loop_, options);
  EXPECT_THAT(loop_.RunUntilComplete(server.Start()), StatusIs(absl::StatusCode::kInvalidArgument));
  server.Close();
}

}  // namespace
}  // namespace troupe
