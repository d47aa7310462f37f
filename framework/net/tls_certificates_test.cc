// Certificates that must be refused, and some that must not, by our client and, with mTLS, by our server. Each row makes
// its certificates; the clock stands at noon of 2030-06-15.
#include "troupe/testing/tls_certificates.h"

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/net/internal/tls_testing.h"
#include "troupe/net/tls_context.h"

namespace troupe::internal {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::TestCertificate;
using testing::TestCertificateOptions;

absl::Time At(int year, int month, int day) {
  return absl::FromCivil(absl::CivilHour(year, month, day, 12), absl::UTCTimeZone());
}

// What one end shows, and what the other trusts.
struct Shown {
  TestCertificate root;
  TestCertificate leaf;
  std::string chain = {};    // instead of the leaf's
  std::string revoked = {};  // lists
};

// `usage`: of the end that shows the certificate.
using Make = std::function<Shown(std::string usage)>;

struct Row {
  const char* name;
  const char* why;  // a part of the error; null: the certificate is good
  Make make;
  const char* host = "kv.test";  // that the client asks for
  bool about_names = false;      // nothing that a server can judge
};

// A leaf of the root, changed.
Make Leaf(std::function<void(TestCertificateOptions&)> change) {
  return [change = std::move(change)](std::string usage) {
    const TestCertificate root = TestCertificate::Root();
    TestCertificateOptions options;
    options.dns_names = {"kv.test"};
    options.usage = std::move(usage);
    change(options);
    return Shown{root, root.Issue(options)};
  };
}
Make Named(std::vector<std::string> names) {
  return Leaf([names = std::move(names)](TestCertificateOptions& options) { options.dns_names = names; });
}
// A leaf of an authority of the root, which is changed.
Make Below(std::function<void(TestCertificateOptions&)> change) {
  return [change = std::move(change)](std::string usage) {
    const TestCertificate root = TestCertificate::Root();
    TestCertificateOptions between;
    between.common_name = "between";
    between.authority = true;
    between.usage.clear();
    change(between);
    TestCertificateOptions options;
    options.dns_names = {"kv.test"};
    options.usage = std::move(usage);
    return Shown{root, root.Issue(between).Issue(options)};
  };
}

constexpr const char* kName = "hostname mismatch";
constexpr const char* kAddress = "IP address mismatch";

std::vector<Row> Bad() {
  return {
      {"WrongHost", kName, Named({"other.test"}), "kv.test", true},
      {"Subdomain", kName, Named({"kv.test"}), "a.kv.test", true},
      {"ParentDomain", kName, Named({"a.kv.test"}), "kv.test", true},
      {"WildcardForTwoLabels", kName, Named({"*.kv.test"}), "a.b.kv.test", true},
      {"WildcardForNoLabel", kName, Named({"*.kv.test"}), "kv.test", true},
      {"WildcardOfTopLevel", kName, Named({"*.test"}), "kv.test", true},
      {"WildcardOfEverything", kName, Named({"*"}), "kv.test", true},
      {"PartialWildcard", kName, Named({"k*.svc.test"}), "kv.svc.test", true},
      {"WildcardInTheMiddle", kName, Named({"a.*.kv.test"}), "a.b.kv.test", true},
      {"WildcardForAddress", kAddress, Named({"*.0.2.1"}), "192.0.2.1", true},
      {"AddressForName", kName, Leaf([](TestCertificateOptions& options) {
         options.dns_names.clear();
         options.ip_addresses = {"192.0.2.1"};
       }),
       "kv.test", true},
      {"NameForAddress", kAddress, Named({"192.0.2.1"}), "192.0.2.1", true},
      {"OtherAddress", kAddress, Leaf([](TestCertificateOptions& options) { options.ip_addresses = {"192.0.2.2"}; }),
       "192.0.2.1", true},
      {"OnlyACommonName", kName, Leaf([](TestCertificateOptions& options) {
         options.dns_names.clear();
         options.common_name = "kv.test";
       }),
       "kv.test", true},
      {"NulInName", kName, Named({std::string("kv.test\0.evil.test", 18)}), "kv.test", true},
      {"Expired", "certificate has expired",
       Leaf([](TestCertificateOptions& options) { options.not_after = At(2030, 6, 14); })},
      {"NotYetValid", "certificate is not yet valid",
       Leaf([](TestCertificateOptions& options) { options.not_before = At(2030, 6, 16); })},
      {"SelfSigned", "self-signed certificate",
       [](std::string usage) {
         TestCertificateOptions options;
         options.dns_names = {"kv.test"};
         options.usage = std::move(usage);
         return Shown{TestCertificate::Root(), TestCertificate::SelfSigned(options)};
       }},
      {"Untrusted", "unable to get local issuer certificate",
       [](std::string usage) {
         TestCertificateOptions options;
         options.dns_names = {"kv.test"};
         options.usage = std::move(usage);
         return Shown{TestCertificate::Root(), TestCertificate::Root("another root").Issue(options)};
       }},
      {"IssuerOfTheSameNameWithAnotherKey", "unable to get local issuer certificate",
       [](std::string usage) {
         TestCertificateOptions options;
         options.dns_names = {"kv.test"};
         options.usage = std::move(usage);
         return Shown{TestCertificate::Root(), TestCertificate::Root().Issue(options)};
       }},
      {"UntrustedRootSentAlong", "self-signed certificate in certificate chain",
       [](std::string usage) {
         const TestCertificate stranger = TestCertificate::Root("another root");
         TestCertificateOptions options;
         options.dns_names = {"kv.test"};
         options.usage = std::move(usage);
         Shown shown{TestCertificate::Root(), stranger.Issue(options)};
         shown.chain = shown.leaf.certificate() + stranger.certificate();
         return shown;
       }},
      {"WrongUsage", "unsuitable certificate purpose", Leaf([](TestCertificateOptions& options) {
         options.usage = options.usage == "serverAuth" ? "clientAuth" : "serverAuth";
       })},
      {"UsageOfAnotherKind", "unsuitable certificate purpose",
       Leaf([](TestCertificateOptions& options) { options.usage = "codeSigning"; })},
      {"WeakKey", "EE certificate key too weak",
       Leaf([](TestCertificateOptions& options) { options.rsa_bits = 1024; })},
      {"WeakKeyOfAuthority", "CA certificate key too weak",
       Below([](TestCertificateOptions& options) { options.rsa_bits = 1024; })},
      {"WeakDigest", "CA signature digest algorithm too weak",
       Leaf([](TestCertificateOptions& options) { options.digest = "SHA1"; })},
      {"TooLongAChain", "path length constraint exceeded",
       [](std::string usage) {
         TestCertificateOptions between;
         between.common_name = "between";
         between.authority = true;
         between.usage.clear();
         between.path_length = 0;
         const TestCertificate root = TestCertificate::Root();
         const TestCertificate first = root.Issue(between);
         between.common_name = "between again";
         TestCertificateOptions options;
         options.dns_names = {"kv.test"};
         options.usage = std::move(usage);
         return Shown{root, first.Issue(between).Issue(options)};
       }},
      {"MissingIntermediate", "unable to get local issuer certificate",
       [](std::string usage) {
         Shown shown = Below([](TestCertificateOptions&) {})(std::move(usage));
         shown.chain = shown.leaf.certificate();
         return shown;
       }},
      {"IssuerThatIsNoAuthority", "invalid CA certificate",
       Below([](TestCertificateOptions& options) { options.authority = false; })},
      {"ExpiredAuthority", "certificate has expired",
       Below([](TestCertificateOptions& options) { options.not_after = At(2030, 6, 14); })},
      {"AuthorityThatIsNotYetValid", "certificate is not yet valid",
       Below([](TestCertificateOptions& options) { options.not_before = At(2030, 6, 16); })},
      {"AuthorityOfAnotherUsage", "unsuitable certificate purpose",
       Below([](TestCertificateOptions& options) { options.usage = "codeSigning"; })},
      {"WeakDigestOfAuthority", "CA signature digest algorithm too weak",
       Below([](TestCertificateOptions& options) { options.digest = "SHA1"; })},
      {"ExpiredRoot", "certificate has expired",
       [](std::string usage) {
         TestCertificateOptions root;
         root.common_name = "root";
         root.authority = true;
         root.usage.clear();
         root.not_after = At(2030, 6, 14);
         TestCertificateOptions options;
         options.dns_names = {"kv.test"};
         options.usage = std::move(usage);
         const TestCertificate expired = TestCertificate::SelfSigned(root);
         return Shown{expired, expired.Issue(options)};
       }},
      {"Revoked", "certificate revoked",
       [](std::string usage) {
         Shown shown = Leaf([](TestCertificateOptions&) {})(std::move(usage));
         shown.revoked = shown.root.RevocationList({shown.leaf});
         return shown;
       }},
      {"NoListOfTheIssuer", "unable to get certificate CRL",
       [](std::string usage) {
         Shown shown = Leaf([](TestCertificateOptions&) {})(std::move(usage));
         shown.revoked = TestCertificate::Root("another root").RevocationList({});
         return shown;
       }},
  };
}

std::vector<Row> Good() {
  return {
      {"ForTheName", nullptr, Named({"other.test", "kv.test"})},
      {"InOtherLetters", nullptr, Named({"KV.Test"}), "kv.TEST"},
      {"WithAFinalDot", nullptr, Named({"kv.test"}), "kv.test."},
      {"Wildcard", nullptr, Named({"*.svc.test"}), "kv.svc.test"},
      {"ForTheAddress", nullptr, Leaf([](TestCertificateOptions& options) { options.ip_addresses = {"192.0.2.1"}; }),
       "192.0.2.1"},
      {"ForTheAddressOfSix", nullptr,
       Leaf([](TestCertificateOptions& options) { options.ip_addresses = {"2001:db8::1"}; }), "2001:db8:0::1"},
      {"BelowAnAuthority", nullptr, Below([](TestCertificateOptions& options) { options.path_length = 0; })},
      {"OfRsa", nullptr, Leaf([](TestCertificateOptions& options) { options.rsa_bits = 2048; })},
      {"OfNoStatedUsage", nullptr, Leaf([](TestCertificateOptions& options) { options.usage.clear(); })},
      {"ValidForAMomentMore", nullptr, Leaf([](TestCertificateOptions& options) {
         options.not_before = At(2030, 6, 15);
         options.not_after = At(2030, 6, 15) + absl::Seconds(1);
       })},
      {"NotTheRevokedOne", nullptr,
       [](std::string usage) {
         Shown shown = Leaf([](TestCertificateOptions&) {})(usage);
         shown.revoked = shown.root.RevocationList({Leaf([](TestCertificateOptions&) {})(usage).leaf});
         return shown;
       }},
  };
}

class CertificatesTest : public TlsTest {
 protected:
  static TlsOptions Showing(const Shown& shown) {
    TlsOptions options;
    options.certificates.push_back(Of(shown.leaf));
    if (!shown.chain.empty()) options.certificates.back().chain = shown.chain;
    options.security_level = 0;  // it shows what it has
    return options;
  }
  static TlsOptions Judging(const Shown& shown) {
    TlsOptions options;
    options.roots = shown.root.certificate();
    options.revocation_lists = shown.revoked;
    options.verification_time = At(2030, 6, 15);
    return options;
  }
  void ClientJudges(const Row& row) {
    const Shown shown = row.make("serverAuth");
    TryHandshake(ServerContext(Showing(shown)), ClientContext(Judging(shown)), row.host);
  }
  void ServerJudges(const Row& row) {
    const Shown shown = row.make("clientAuth");
    TlsOptions server = Judging(shown);
    server.verify = TlsVerify::kRequire;
    TryHandshake(ServerContext(server), ClientContext(Showing(shown)));
    if (client_ != nullptr) client_->Write("hello");  // with TLS 1.3 a client is done before the server has judged
    Settle();
  }
};
INSTANTIATE_POLLING(CertificatesTest);

// C-TLS-04
TEST_P(CertificatesTest, AClientRefusesABadOneAndSaysWhy) {
  for (const Row& row : Bad()) {
    SCOPED_TRACE(row.name);
    ClientJudges(row);
    EXPECT_EQ(client_status_.code(), absl::StatusCode::kUnauthenticated) << client_status_;
    EXPECT_THAT(std::string(client_status_.message()), HasSubstr("failed on verifying the certificate: "));
    EXPECT_THAT(std::string(client_status_.message()), HasSubstr(row.why));
    // It has been told, and nothing of what an application says has been sent.
    EXPECT_FALSE(server_status_.ok());
    EXPECT_THAT(b_.log, ElementsAre("made", "lost UNAVAILABLE"));
    Forget();
  }
}

// C-TLS-04
TEST_P(CertificatesTest, AClientAcceptsAGoodOne) {
  for (const Row& row : Good()) {
    SCOPED_TRACE(row.name);
    ClientJudges(row);
    EXPECT_TRUE(client_status_.ok()) << client_status_;
    EXPECT_TRUE(server_status_.ok()) << server_status_;
    if (client_status_.ok()) {
      EXPECT_TRUE(client_->tls()->peer_verified);
      client_->Abort();
    }
    Forget();
  }
}

TEST_P(CertificatesTest, AServerRefusesABadClientAndHearsNothingOfIt) {
  for (const Row& row : Bad()) {
    if (row.about_names) continue;
    SCOPED_TRACE(row.name);
    ServerJudges(row);
    EXPECT_EQ(server_status_.code(), absl::StatusCode::kUnauthenticated) << server_status_;
    EXPECT_THAT(std::string(server_status_.message()), HasSubstr(row.why));
    EXPECT_THAT(b_.log, ElementsAre("made", "lost UNAUTHENTICATED"));
    EXPECT_THAT(a_.log, ElementsAre("made", "lost UNAVAILABLE"));
    Forget();
  }
}

TEST_P(CertificatesTest, AServerAcceptsAGoodClientAndKnowsIt) {
  for (const Row& row : Good()) {
    SCOPED_TRACE(row.name);
    ServerJudges(row);
    EXPECT_TRUE(server_status_.ok()) << server_status_;
    EXPECT_THAT(b_.log, ElementsAre("made", "data hello"));
    if (server_status_.ok()) {
      EXPECT_TRUE(server_->tls()->peer_verified);
      EXPECT_EQ(server_->tls()->peer->subject, "CN=test");
      server_->Abort();
    }
    Forget();
  }
}

TEST_P(CertificatesTest, AServerThatRequiresOneRefusesAClientWithout) {
  TlsOptions server;
  server.roots = Root().certificate();
  server.verify = TlsVerify::kRequire;
  TryHandshake(ServerContext(server), ClientContext());
  EXPECT_EQ(server_status_.code(), absl::StatusCode::kUnauthenticated) << server_status_;
  EXPECT_THAT(b_.log, ElementsAre("made", "lost UNAUTHENTICATED"));
  Forget();
  server.verify = TlsVerify::kRequest;
  Handshake(ServerContext(server), ClientContext());
  EXPECT_FALSE(server_->tls()->peer.has_value());
  EXPECT_FALSE(server_->tls()->peer_verified);
  CloseBoth();
}

// A client's verification goes by the clock of the connection's Os.
TEST_P(CertificatesTest, ExpireInVirtualTime) {
  testing::TestCertificateOptions options;
  options.dns_names = {"kv.test"};
  options.not_after = os_.WallNow() + absl::Hours(1);
  const TestCertificate leaf = Root().Issue(options);
  TlsOptions server;
  server.certificates.push_back(Of(leaf));
  server.session_tickets = false;
  const TlsContext server_context = ServerContext(server);
  const TlsContext client_context = ClientContext();
  Handshake(server_context, client_context);
  CloseBoth();
  Forget();
  RunFor(absl::Hours(2));
  TryHandshake(server_context, client_context);
  EXPECT_THAT(std::string(client_status_.message()), HasSubstr("certificate has expired"));
}

}  // namespace
}  // namespace troupe::internal
