#include "troupe/testing/tls_certificates.h"

#include <glog/logging.h>
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <cstdint>
#include <map>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "troupe/net/internal/tls_random.h"
#include "troupe/testing/sim/sim_trace.h"

namespace troupe::testing {
namespace {

template <class T, class Write>
std::string ToPem(T* object, Write write) {
  BIO* const bio = BIO_new(BIO_s_mem());
  CHECK_EQ(write(bio, object), 1);
  char* text = nullptr;
  const long size = BIO_get_mem_data(bio, &text);  // NOLINT(runtime/int): OpenSSL's type
  std::string pem(text, static_cast<size_t>(size));
  BIO_free(bio);
  return pem;
}

void AddExtension(X509* certificate, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* const extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str());
  CHECK(extension != nullptr) << value;
  CHECK_EQ(X509_add_ext(certificate, extension, -1), 1);
  X509_EXTENSION_free(extension);
}

void AddName(GENERAL_NAMES* names, int type, const std::string& text) {
  GENERAL_NAME* const name = GENERAL_NAME_new();
  if (type == GEN_IPADD) {
    ASN1_OCTET_STRING* const address = a2i_IPADDRESS(text.c_str());
    CHECK(address != nullptr) << text;
    GENERAL_NAME_set0_value(name, type, address);
  } else {
    ASN1_IA5STRING* const value = ASN1_IA5STRING_new();
    ASN1_STRING_set(value, text.data(), static_cast<int>(text.size()));
    GENERAL_NAME_set0_value(name, type, value);
  }
  sk_GENERAL_NAME_push(names, name);
}

void AddNames(X509* certificate, const TestCertificateOptions& options) {
  GENERAL_NAMES* const names = GENERAL_NAMES_new();
  for (const std::string& name : options.dns_names) AddName(names, GEN_DNS, name);
  for (const std::string& address : options.ip_addresses) AddName(names, GEN_IPADD, address);
  for (const std::string& uri : options.uris) AddName(names, GEN_URI, uri);
  if (sk_GENERAL_NAME_num(names) > 0) {
    CHECK_EQ(X509_add1_ext_i2d(certificate, NID_subject_alt_name, names, 0, 0), 1);
  }
  GENERAL_NAMES_free(names);
}

// Of what is asked for, and of how many of the same were made before in this process: so that keys and signatures, and
// with them the length of a certificate, are the same in the next one.
uint64_t SeedOf(const TestCertificateOptions& options, const std::string& issuer) {
  SimTrace asked;
  asked.Add(issuer);
  asked.Add(options.common_name);
  for (const auto* names : {&options.dns_names, &options.ip_addresses, &options.uris}) {
    for (const std::string& name : *names) asked.Add(name);
    asked.Add("");
  }
  for (const absl::Time time : {options.not_before, options.not_after}) asked.Add(absl::ToUnixSeconds(time));
  asked.Add(options.usage);
  asked.Add(options.authority ? 1 : 0);
  asked.Add(options.path_length.value_or(-1));
  asked.Add(options.rsa_bits);
  asked.Add(options.digest);
  static std::mutex mutex;
  static auto& made = *new std::map<uint64_t, int64_t>;
  const std::lock_guard<std::mutex> lock(mutex);
  asked.Add(made[asked.hash()]++);
  return asked.hash();
}

void SetTime(ASN1_TIME* field, absl::Time time) { CHECK(ASN1_TIME_adj(field, absl::ToTimeT(time), 0, 0) != nullptr); }

}  // namespace

struct TestCertificate::Objects {
  X509* certificate = nullptr;
  EVP_PKEY* key = nullptr;

  ~Objects() {
    X509_free(certificate);
    EVP_PKEY_free(key);
  }
};

TestCertificate::TestCertificate(std::shared_ptr<const Objects> objects)
    : objects_(std::move(objects)),
      certificate_(ToPem(objects_->certificate, PEM_write_bio_X509)),
      key_(ToPem(objects_->key, [](BIO* bio, EVP_PKEY* key) {
        return PEM_write_bio_PrivateKey(bio, key, nullptr, nullptr, 0, nullptr, nullptr);
      })) {}

TestCertificate::TestCertificate(const TestCertificate&) = default;
TestCertificate& TestCertificate::operator=(const TestCertificate&) = default;
TestCertificate::~TestCertificate() = default;

TestCertificate TestCertificate::Root(std::string common_name) {
  TestCertificateOptions options;
  options.common_name = std::move(common_name);
  options.authority = true;
  options.usage.clear();
  return SelfSigned(options);
}

TestCertificate TestCertificate::SelfSigned(const TestCertificateOptions& options) { return Make(options, nullptr); }

TestCertificate TestCertificate::Issue(const TestCertificateOptions& options) const { return Make(options, this); }

TestCertificate TestCertificate::Make(const TestCertificateOptions& options, const TestCertificate* issuer) {
  const uint64_t seed = SeedOf(options, issuer != nullptr ? issuer->certificate_ : "");
  troupe::internal::TlsRandom random(seed);
  const troupe::internal::TlsRandom::Scope randomness(&random);
  auto made = std::make_shared<Objects>();
  made->key = options.rsa_bits == 0 ? EVP_EC_gen("P-256") : EVP_RSA_gen(static_cast<unsigned>(options.rsa_bits));
  CHECK(made->key != nullptr);
  X509* const certificate = made->certificate = X509_new();
  X509_set_version(certificate, X509_VERSION_3);
  ASN1_INTEGER_set_uint64(X509_get_serialNumber(certificate), seed | uint64_t{1} << 63);
  X509_NAME* const name = X509_get_subject_name(certificate);
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8,
                             reinterpret_cast<const unsigned char*>(options.common_name.data()),
                             static_cast<int>(options.common_name.size()), -1, 0);
  X509* const signer = issuer != nullptr ? issuer->objects_->certificate : certificate;
  X509_set_issuer_name(certificate, X509_get_subject_name(signer));
  SetTime(X509_getm_notBefore(certificate), options.not_before);
  SetTime(X509_getm_notAfter(certificate), options.not_after);
  X509_set_pubkey(certificate, made->key);
  std::string constraints = options.authority ? "critical,CA:TRUE" : "critical,CA:FALSE";
  if (options.path_length.has_value()) absl::StrAppend(&constraints, ",pathlen:", *options.path_length);
  AddExtension(certificate, signer, NID_basic_constraints, constraints);
  AddExtension(certificate, signer, NID_key_usage,
               options.authority ? "critical,keyCertSign,cRLSign" : "critical,digitalSignature,keyEncipherment");
  if (!options.usage.empty()) AddExtension(certificate, signer, NID_ext_key_usage, options.usage);
  AddExtension(certificate, signer, NID_subject_key_identifier, "hash");
  AddExtension(certificate, signer, NID_authority_key_identifier, "keyid");
  AddNames(certificate, options);
  EVP_PKEY* const signing = issuer != nullptr ? issuer->objects_->key : made->key;
  CHECK_GT(X509_sign(certificate, signing, EVP_get_digestbyname(options.digest.c_str())), 0);

  TestCertificate result(std::move(made));
  result.chain_ = result.certificate_;
  // The root's own chain is not sent.
  if (issuer != nullptr && X509_self_signed(signer, 0) != 1) absl::StrAppend(&result.chain_, issuer->chain_);
  return result;
}

std::string TestCertificate::RevocationList(const std::vector<TestCertificate>& revoked) const {
  X509_CRL* const list = X509_CRL_new();
  X509_CRL_set_version(list, X509_CRL_VERSION_2);
  X509_CRL_set_issuer_name(list, X509_get_subject_name(objects_->certificate));
  ASN1_TIME* const time = ASN1_TIME_new();
  SetTime(time, absl::FromCivil(absl::CivilYear(2000), absl::UTCTimeZone()));
  X509_CRL_set1_lastUpdate(list, time);
  for (const TestCertificate& one : revoked) {
    X509_REVOKED* const entry = X509_REVOKED_new();
    X509_REVOKED_set_serialNumber(entry, X509_get_serialNumber(one.objects_->certificate));
    X509_REVOKED_set_revocationDate(entry, time);
    X509_CRL_add0_revoked(list, entry);
  }
  SetTime(time, absl::FromCivil(absl::CivilYear(2100), absl::UTCTimeZone()));
  X509_CRL_set1_nextUpdate(list, time);
  ASN1_TIME_free(time);
  CHECK_GT(X509_CRL_sign(list, objects_->key, EVP_sha256()), 0);
  std::string pem = ToPem(list, PEM_write_bio_X509_CRL);
  X509_CRL_free(list);
  return pem;
}

}  // namespace troupe::testing
