// TestCertificate: certificates for tests, made in memory by the test itself.
//
//   const TestCertificate root = TestCertificate::Root();
//   const TestCertificate leaf = root.Issue({.dns_names = {"kv.test"}});
//   TlsOptions server{.certificates = {{.chain = leaf.chain(), .key = leaf.key()}}};
//   TlsOptions client{.roots = root.certificate()};
//
// Keys are of P-256 unless said otherwise: one takes tens of microseconds. Times are absolute, so that a test with a
// fixed or a virtual clock says what is valid when; without, everything is valid from 2000 to 2100.
#ifndef TROUPE_TESTING_TLS_CERTIFICATES_H_
#define TROUPE_TESTING_TLS_CERTIFICATES_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace troupe::testing {

struct TestCertificateOptions {
  std::string common_name = "test";
  // The subject's alternative names. A name may hold a NUL.
  std::vector<std::string> dns_names = {};
  std::vector<std::string> ip_addresses = {};  // "192.0.2.1", "2001:db8::1"
  std::vector<std::string> uris = {};
  absl::Time not_before = absl::FromCivil(absl::CivilYear(2000), absl::UTCTimeZone());
  absl::Time not_after = absl::FromCivil(absl::CivilYear(2100), absl::UTCTimeZone());
  // What it is for, as OpenSSL's configuration calls it: "serverAuth", "clientAuth", "codeSigning"; "" leaves it open.
  std::string usage = "serverAuth,clientAuth";
  bool authority = false;                         // may issue others
  std::optional<int> path_length = std::nullopt;  // of an authority: how many more may stand below it
  int rsa_bits = 0;                               // an RSA key instead of P-256
  std::string digest = "SHA256";
};

class TestCertificate {
 public:
  // An authority that nobody stands above.
  static TestCertificate Root(std::string common_name = "test root");
  static TestCertificate SelfSigned(const TestCertificateOptions& options);
  TestCertificate(const TestCertificate&);
  TestCertificate& operator=(const TestCertificate&);
  ~TestCertificate();

  // Signed by this one, whatever that is.
  TestCertificate Issue(const TestCertificateOptions& options) const;
  const std::string& certificate() const { return certificate_; }  // PEM
  const std::string& key() const { return key_; }                  // PEM
  // This one and those between it and its root, without that.
  const std::string& chain() const { return chain_; }
  // This authority's list of what it has revoked, as PEM.
  std::string RevocationList(const std::vector<TestCertificate>& revoked) const;

 private:
  struct Objects;
  explicit TestCertificate(std::shared_ptr<const Objects> objects);
  static TestCertificate Make(const TestCertificateOptions& options, const TestCertificate* issuer);

  std::shared_ptr<const Objects> objects_;  // shared by the copies
  std::string certificate_;
  std::string key_;
  std::string chain_;
};

}  // namespace troupe::testing

#endif  // TROUPE_TESTING_TLS_CERTIFICATES_H_
