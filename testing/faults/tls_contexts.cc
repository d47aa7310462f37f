#include "troupe/testing/faults/tls_contexts.h"

#include "troupe/testing/tls_certificates.h"

namespace troupe::testing {
namespace {

TlsOptions OptionsOf(const char* name) {
  static const TestCertificate root = TestCertificate::Root();
  TestCertificateOptions certificate;
  certificate.dns_names = {name};
  const TestCertificate leaf = root.Issue(certificate);
  TlsCertificate shown;
  shown.chain = leaf.chain();
  shown.key = leaf.key();
  TlsOptions options;
  options.certificates = {shown};
  options.roots = root.certificate();
  options.verify = TlsVerify::kRequire;
  options.session_tickets = false;
  return options;
}

}  // namespace

const TlsContext& TlsServerContext() {
  static const TlsContext context = *TlsContext::ForServer(OptionsOf("server"));
  return context;
}

const TlsContext& TlsClientContext() {
  static const TlsContext context = *TlsContext::ForClient(OptionsOf("client"));
  return context;
}

}  // namespace troupe::testing
