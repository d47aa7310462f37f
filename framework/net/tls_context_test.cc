#include "troupe/net/tls_context.h"

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/base/tls_info.h"
#include "troupe/net/internal/tls_state.h"
#include "troupe/net/internal/tls_testing.h"
#include "troupe/testing/tls_certificates.h"

namespace troupe::internal {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::TestCertificate;
using testing::TestCertificateOptions;

class TlsContextTest : public TlsTest {
 protected:
  static TestCertificate For(const std::string& name) {
    TestCertificateOptions options;
    options.common_name = name;
    options.dns_names = {name};
    return Root().Issue(options);
  }
  static std::string Path(const std::string& name) {
    const char* folder = std::getenv("TEST_TMPDIR");
    return absl::StrCat(folder != nullptr ? folder : "/tmp", "/", name);
  }
  static void WriteFile(const std::string& path, const std::string& text) { std::ofstream(path) << text; }
  static std::string ReadFile(const std::string& path) {
    std::stringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  }
  // The subject that a client sees that asks for `host`.
  std::string SubjectFor(const TlsContext& server, const TlsContext& client, absl::string_view host) {
    Handshake(server, client, host);
    std::string subject = client_->tls()->peer->subject;
    CloseBoth();
    Forget();
    return subject;
  }
  bool Resumes(const TlsContext& server, const TlsContext& client) {
    Handshake(server, client);
    EXPECT_EQ(client_->tls()->session_resumed, server_->tls()->session_resumed);
    const bool resumed = client_->tls()->session_resumed;
    CloseBoth();
    Forget();
    return resumed;
  }
};
INSTANTIATE_POLLING(TlsContextTest);

TEST_P(TlsContextTest, OptionsThatMakeNoSenseAreRefused) {
  const auto server = [](TlsOptions options) { return TlsContext::ForServer(options).status(); };
  const auto client = [](TlsOptions options) { return TlsContext::ForClient(options).status(); };
  const auto refused = [](const absl::Status& status, const char* why) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(why));
  };
  TlsOptions good;
  good.certificates.push_back(Of(Leaf()));
  EXPECT_TRUE(server(good).ok());
  refused(server({}), "a server needs a certificate");
  TlsOptions options = good;
  options.verify = TlsVerify::kRequire;
  refused(server(options), "needs roots");
  options = good;
  options.certificates[0].key = TestCertificate::Root().key();
  refused(server(options), "the private key is not the certificate's");
  options = good;
  options.certificates[0].chain = "no PEM";
  refused(server(options), "certificate chain");
  options = good;
  options.certificates[0].key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
  refused(server(options), "private key");
  options = good;
  options.certificates[0].chain_file = "/nowhere";
  refused(server(options), "exclude each other");
  options = good;
  options.version_min = TlsVersion::k1_3;
  options.version_max = TlsVersion::k1_2;
  refused(server(options), "version_min");
  options = good;
  options.ciphers = "NO-SUCH-CIPHER";
  refused(server(options), "ciphers");
  options = good;
  options.alpn = {""};
  refused(server(options), "ALPN");
  options = {};
  options.roots = "no PEM";
  refused(client(options), "roots");
  options = {};
  options.verify = TlsVerify::kRequest;
  refused(client(options), "only request");
  TestCertificateOptions weak;
  weak.rsa_bits = 1024;
  options = {};
  options.certificates.push_back(Of(Root().Issue(weak)));
  refused(server(options), "ee key too small");
  EXPECT_EQ(server({.certificates = {{.chain_file = "/nowhere/cert.pem", .key_file = "/nowhere/key.pem"}}}).code(),
            absl::StatusCode::kNotFound);
}

TEST_P(TlsContextTest, AnEncryptedKeyIsRefusedAndNobodyIsAskedForAPassword) {
  TlsOptions options;
  options.certificates.push_back(Of(Leaf()));
  options.certificates[0].key =
      "-----BEGIN ENCRYPTED PRIVATE KEY-----\n"
      "MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAg5mVRz\n"
      "-----END ENCRYPTED PRIVATE KEY-----\n";
  EXPECT_EQ(TlsContext::ForServer(options).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_P(TlsContextTest, AServerShowsTheCertificateThatFitsTheNameAskedFor) {
  const TestCertificate one = For("one.test");
  const TestCertificate two = For("*.two.test");
  TlsOptions options;
  options.certificates = {Of(Leaf()), Of(one), Of(two)};
  const TlsContext server = ServerContext(options);
  TlsOptions any;
  any.verify_host_name = false;
  const TlsContext client = ClientContext(any);
  EXPECT_EQ(SubjectFor(server, client, "one.test"), "CN=one.test");
  EXPECT_EQ(SubjectFor(server, client, "a.two.test"), "CN=*.two.test");
  EXPECT_EQ(SubjectFor(server, client, "kv.test"), "CN=kv");
  EXPECT_EQ(SubjectFor(server, client, "three.test"), "CN=kv");  // the first, which a client that verifies refuses
  EXPECT_EQ(SubjectFor(server, client, ""), "CN=kv");
}

TEST_P(TlsContextTest, OfTwoCertificatesForANameTheClientGetsTheOneThatItCanVerify) {
  TestCertificateOptions rsa;
  rsa.common_name = "rsa";
  rsa.dns_names = {"kv.test"};
  rsa.rsa_bits = 2048;
  TlsOptions options;
  options.certificates = {Of(Leaf()), Of(Root().Issue(rsa))};
  const TlsContext server = ServerContext(options);
  EXPECT_EQ(SubjectFor(server, ClientContext(), "kv.test"), "CN=kv");
  TlsOptions only_rsa;
  only_rsa.version_max = TlsVersion::k1_2;
  only_rsa.ciphers = "ECDHE-RSA-AES128-GCM-SHA256";
  EXPECT_EQ(SubjectFor(server, ClientContext(only_rsa), "kv.test"), "CN=rsa");
}

TEST_P(TlsContextTest, AlpnAgreesOnTheServersFirstThatTheClientOffers) {
  TlsOptions server;
  server.alpn = {"troupe/1", "h2"};
  TlsOptions client;
  client.alpn = {"http/1.1", "h2", "troupe/1"};
  Handshake(ServerContext(server), ClientContext(client));
  EXPECT_EQ(client_->tls()->alpn, "troupe/1");
  EXPECT_EQ(server_->tls()->alpn, "troupe/1");
  CloseBoth();
  Forget();
  // RFC 7301: a client that offers nothing of ours is refused; one that offers nothing at all is not.
  client.alpn = {"http/1.1"};
  TryHandshake(ServerContext(server), ClientContext(client));
  EXPECT_THAT(std::string(client_status_.message()), HasSubstr("no application protocol"));
  EXPECT_FALSE(server_status_.ok());
  Forget();
  Handshake(ServerContext(server), ClientContext());
  EXPECT_EQ(client_->tls()->alpn, "");
  CloseBoth();
}

TEST_P(TlsContextTest, VersionsAreKept) {
  TlsOptions old;
  old.version_max = TlsVersion::k1_2;
  TlsOptions recent;
  recent.version_min = TlsVersion::k1_3;
  Handshake(ServerContext(), ClientContext(old));
  EXPECT_EQ(client_->tls()->version, TlsVersion::k1_2);
  EXPECT_EQ(server_->tls()->version, TlsVersion::k1_2);
  CloseBoth();
  Forget();
  TryHandshake(ServerContext(recent), ClientContext(old));
  EXPECT_EQ(client_status_.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(client_status_.message()), HasSubstr("protocol version"));
  EXPECT_EQ(server_status_.code(), absl::StatusCode::kUnavailable);
}

TEST_P(TlsContextTest, CiphersAreKept) {
  TlsOptions client;
  client.cipher_suites = "TLS_CHACHA20_POLY1305_SHA256";
  Handshake(ServerContext(), ClientContext(client));
  EXPECT_EQ(server_->tls()->cipher, "TLS_CHACHA20_POLY1305_SHA256");
  CloseBoth();
}

TEST_P(TlsContextTest, ASessionIsResumedInEitherVersion) {
  for (const TlsVersion version : {TlsVersion::k1_2, TlsVersion::k1_3}) {
    TlsOptions options;
    options.version_min = options.version_max = version;
    const TlsContext server = ServerContext(options);
    const TlsContext client = ClientContext(options);
    EXPECT_FALSE(Resumes(server, client));
    EXPECT_TRUE(Resumes(server, client));
    EXPECT_TRUE(Resumes(server, client));
    // It was verified when it began.
    Handshake(server, client);
    EXPECT_TRUE(client_->tls()->session_resumed);
    EXPECT_TRUE(client_->tls()->peer_verified);
    EXPECT_EQ(client_->tls()->peer->subject, "CN=kv");
    CloseBoth();
    Forget();
    // Neither another server's context nor another client's knows it.
    EXPECT_FALSE(Resumes(ServerContext(options), client));
    EXPECT_FALSE(Resumes(server, ClientContext(options)));
  }
}

TEST_P(TlsContextTest, ASessionIsNotResumedForAnotherName) {
  TestCertificateOptions options;
  options.dns_names = {"kv.test", "other.test"};
  TlsOptions both;
  both.certificates.push_back(Of(Root().Issue(options)));
  const TlsContext server = ServerContext(both);
  const TlsContext client = ClientContext();
  EXPECT_FALSE(Resumes(server, client));
  Handshake(server, client, "other.test");
  EXPECT_FALSE(client_->tls()->session_resumed);
  CloseBoth();
}

TEST_P(TlsContextTest, WithoutTicketsNothingIsResumed) {
  for (const TlsVersion version : {TlsVersion::k1_2, TlsVersion::k1_3}) {
    TlsOptions options;
    options.version_min = options.version_max = version;
    options.session_tickets = false;
    const TlsContext client = ClientContext();
    const TlsContext server = ServerContext(options);
    EXPECT_FALSE(Resumes(server, client));
    EXPECT_FALSE(Resumes(server, client));
  }
}

TEST_P(TlsContextTest, AResumedClientIsTheOneWhoBeganTheSession) {
  TlsOptions options;
  options.roots = Root().certificate();
  options.verify = TlsVerify::kRequire;
  const TlsContext server = ServerContext(options);
  TlsOptions with;
  with.certificates.push_back(Of(For("client.test")));
  const TlsContext client = ClientContext(with);
  EXPECT_FALSE(Resumes(server, client));
  Handshake(server, client);
  EXPECT_TRUE(server_->tls()->session_resumed);
  EXPECT_TRUE(server_->tls()->peer_verified);
  ASSERT_TRUE(server_->tls()->peer.has_value());
  EXPECT_THAT(server_->tls()->peer->dns_names, ElementsAre("client.test"));
  CloseBoth();
}

TEST_P(TlsContextTest, ReloadShowsTheNewCertificateAndKeepsSessions) {
  TlsContext server = ServerContext();
  const TlsContext client = ClientContext();
  EXPECT_EQ(SubjectFor(server, client, "kv.test"), "CN=kv");
  TestCertificateOptions renewed;
  renewed.common_name = "renewed";
  renewed.dns_names = {"kv.test"};
  ASSERT_TRUE(server.Reload({Of(Root().Issue(renewed))}).ok());
  EXPECT_TRUE(Resumes(server, client));
  EXPECT_EQ(SubjectFor(server, ClientContext(), "kv.test"), "CN=renewed");
  // One that fails changes nothing.
  EXPECT_EQ(server.Reload({{.chain = "no PEM", .key = "none"}}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(server.Reload(std::vector<TlsCertificate>()).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(SubjectFor(server, ClientContext(), "kv.test"), "CN=renewed");
}

TEST_P(TlsContextTest, AHandshakeUnderWayGoesOnWithWhatItBeganWith) {
  TlsContext server = ServerContext();
  const TlsContext client = ClientContext();
  // Reloaded at each message that passes.
  for (size_t at = 1; at <= 4; ++at) {
    size_t messages = 0;
    tap_.change = [&](Tap::Side, std::string bytes) {
      if (++messages == at) {
        EXPECT_TRUE(server.Reload({Of(For("kv.test"))}).ok());
      }
      return bytes;
    };
    Handshake(server, client);
    tap_.change = nullptr;
    CloseBoth();
    Forget();
  }
}

TEST_P(TlsContextTest, ReloadReadsTheFilesAgain) {
  const std::string chain_file = Path("reload.crt");
  const std::string key_file = Path("reload.key");
  const auto write = [&](const TestCertificate& certificate) {
    WriteFile(chain_file, certificate.chain());
    WriteFile(key_file, certificate.key());
  };
  TestCertificateOptions names;
  names.dns_names = {"kv.test"};
  names.common_name = "first";
  write(Root().Issue(names));
  TlsOptions options;
  options.certificates.emplace_back();
  options.certificates[0].chain_file = chain_file;
  options.certificates[0].key_file = key_file;
  TlsContext server = ServerContext(options);
  TlsContext copy = server;
  EXPECT_EQ(SubjectFor(server, ClientContext(), "kv.test"), "CN=first");
  names.common_name = "second";
  write(Root().Issue(names));
  EXPECT_EQ(SubjectFor(server, ClientContext(), "kv.test"), "CN=first");
  ASSERT_TRUE(copy.Reload().ok());
  EXPECT_EQ(SubjectFor(server, ClientContext(), "kv.test"), "CN=second");
  WriteFile(key_file, TestCertificate::Root().key());  // half of a renewal
  EXPECT_EQ(server.Reload().code(), absl::StatusCode::kInvalidArgument);
  std::remove(chain_file.c_str());
  EXPECT_EQ(server.Reload().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(SubjectFor(server, ClientContext(), "kv.test"), "CN=second");
}

TEST_P(TlsContextTest, AClientsReloadForgetsItsSessions) {
  const TlsContext server = ServerContext();
  TlsContext client = ClientContext();
  EXPECT_FALSE(Resumes(server, client));
  ASSERT_TRUE(client.Reload({Of(For("client.test"))}).ok());
  EXPECT_FALSE(Resumes(server, client));
}

TEST_P(TlsContextTest, ConnectionsOutliveTheirContext) {
  {
    const TlsContext server = ServerContext();
    const TlsContext client = ClientContext();
    ConnectInClear();
    StartServer(server);
    StartClient(client);
  }
  Settle();
  ASSERT_TRUE(client_status_.ok()) << client_status_;
  client_->Write("hello");
  Settle();
  EXPECT_THAT(b_.log, ElementsAre("made", "data hello"));
  CloseBoth();
}

TEST_P(TlsContextTest, TheKeyLogHasTheSecretsOfEachConnection) {
  const std::string path = Path("keys.log");
  std::remove(path.c_str());
  TlsOptions options;
  options.key_log_file = path;
  Handshake(ServerContext(), ClientContext(options));
  CloseBoth();
  const std::string log = ReadFile(path);
  EXPECT_THAT(log, HasSubstr("CLIENT_HANDSHAKE_TRAFFIC_SECRET "));
  EXPECT_THAT(log, HasSubstr("SERVER_TRAFFIC_SECRET_0 "));
  options.key_log_file = "/nowhere/keys.log";
  EXPECT_EQ(TlsContext::ForClient(options).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_P(TlsContextTest, AClientThatVerifiesNobodyTalksToAnyone) {
  TlsOptions options;
  options.verify = TlsVerify::kNone;
  options.roots = TestCertificate::Root("stranger").certificate();
  Handshake(ServerContext(), ClientContext(options), "other.test");
  EXPECT_FALSE(client_->tls()->peer_verified);
  CloseBoth();
}

TEST(TlsSessionCache, KeepsTheLatestOfTheLatestServers) {
  TlsSessionCache cache;
  const auto fill = [&](const std::string& key) { cache.Put(key, OpenSslPtr<SSL_SESSION>(SSL_SESSION_new())); };
  for (size_t i = 0; i < TlsSessionCache::kSessionsPerServerMax + 3; ++i) fill("first");
  for (size_t i = 0; i < TlsSessionCache::kSessionsPerServerMax; ++i) EXPECT_NE(cache.Take("first"), nullptr);
  EXPECT_EQ(cache.Take("first"), nullptr);
  for (size_t i = 0; i <= TlsSessionCache::kServersMax; ++i) {
    fill(absl::StrCat("server ", i));
    fill(absl::StrCat("server ", i));
    if (i == 0) continue;
    EXPECT_NE(cache.Take("server 0"), nullptr) << i;
    fill("server 0");
  }
  EXPECT_EQ(cache.Take("server 1"), nullptr);
  EXPECT_NE(cache.Take("server 0"), nullptr);
  EXPECT_NE(cache.Take(absl::StrCat("server ", TlsSessionCache::kServersMax)), nullptr);
  cache.Clear();
  EXPECT_EQ(cache.Take("server 5"), nullptr);
}

}  // namespace
}  // namespace troupe::internal
