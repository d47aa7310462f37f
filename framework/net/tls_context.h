// TlsContext: how TLS connections are made: certificates, trust, versions, what is verified.
//
// One serves any number of connections, servers and loops. Give it to CreateServer, CreateConnection (net/connect.h),
// StartTls (net/tls.h), or a Server or Channel of the service room.
//
//   TlsOptions options;
//   options.certificates = {{.chain_file = "/etc/kv/tls.crt", .key_file = "/etc/kv/tls.key"}};
//   absl::StatusOr<TlsContext> context = TlsContext::ForServer(options);
//   ...
//   absl::Status again = context->Reload();   // the files have changed: what is served from here on has the new ones
//
// A client's default verifies the server against the system's roots and by its name. Nothing falls back to clear text,
// and nothing older than TLS 1.2 is spoken. Renegotiation is refused.
//
// Time:       certificates are judged by the wall clock of the connection's Os, so in simulation by the simulated one,
//             or at `verification_time`. How long a session can be resumed is counted by the real clock.
// Randomness: OpenSSL's own; in a simulation the simulated Os's, so that a handshake is as long, byte for byte, whenever a
//             seed is run again. For that a context belongs to the simulation: one that was used before may resume.
// Threading:  any; Reload too.
// Lifetime:   copies share one state. What uses a context keeps that, so it may go at any time.
#ifndef TROUPE_NET_TLS_CONTEXT_H_
#define TROUPE_NET_TLS_CONTEXT_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "troupe/base/tls_info.h"

namespace troupe {

// A certificate with its private key, as PEM: texts, or files that Reload() reads again.
struct TlsCertificate {
  std::string chain = {};  // the certificate, then what leads from it to a root, which may be left out
  std::string key = {};    // not encrypted
  std::string chain_file = {};
  std::string key_file = {};
};

enum class TlsVerify : uint8_t {
  kDefault,  // a client requires, a server asks for nothing
  kNone,     // a client talks to anyone: for tests
  kRequest,  // servers: a client may show a certificate, and if it does it must be good
  kRequire,
};

struct TlsOptions {
  // Whom this end is. A server needs one at least: it shows the first whose names fit what the client asked for (SNI),
  // of several with the same names the one whose key the client can verify, and the first of all if none fits. A client
  // may have one, for servers that ask.
  std::vector<TlsCertificate> certificates = {};

  // Whom it trusts, as PEM. None: a client trusts the system's roots. A server that verifies clients needs them.
  std::string roots = {};
  std::string roots_file = {};
  // Certificates that are not accepted any more, as PEM, one list for each authority; with any given, each certificate
  // of a chain needs the list of its issuer.
  std::string revocation_lists = {};
  TlsVerify verify = TlsVerify::kDefault;
  // Clients: the certificate must be for the name, or address, that was connected to.
  bool verify_host_name = true;
  // Instead of the wall clock.
  std::optional<absl::Time> verification_time = std::nullopt;

  TlsVersion version_min = TlsVersion::k1_2;
  TlsVersion version_max = TlsVersion::k1_3;
  // OpenSSL's lists, for TLS 1.2 and 1.3; empty: its defaults.
  std::string ciphers = {};
  std::string cipher_suites = {};
  // Of keys, digests and ciphers, as OpenSSL counts: 2 demands 112 bits (RSA 2048, SHA-256).
  int security_level = 2;

  // Protocols to agree on, the preferred first: {"h2", "http/1.1"}. A server refuses a client that offers only others.
  std::vector<std::string> alpn = {};

  // Resuming a session saves the certificates' exchange. A server gives out tickets and keeps nothing; a client keeps
  // some of each server's, and does not verify again what the session's beginning has verified.
  bool session_tickets = true;

  // Appends the secrets of every connection, for tools that decrypt captures. Empty: $SSLKEYLOGFILE, if set.
  std::string key_log_file = {};
};

namespace internal {
class TlsState;
}  // namespace internal

class TlsContext {
 public:
  // INVALID_ARGUMENT: the options make no sense, or what was to be PEM is not; NOT_FOUND and the like: a file.
  static absl::StatusOr<TlsContext> ForServer(const TlsOptions& options);
  static absl::StatusOr<TlsContext> ForClient(const TlsOptions& options = {});

  // Takes other certificates, or reads the files of the present ones again. Connections that stand, and handshakes under
  // way, go on with the old ones, and so does everything if this fails. A client forgets its sessions.
  absl::Status Reload(std::vector<TlsCertificate> certificates);
  absl::Status Reload();

  bool is_server() const;

  // For the transports.
  const std::shared_ptr<internal::TlsState>& state() const { return state_; }

 private:
  explicit TlsContext(std::shared_ptr<internal::TlsState> state) : state_(std::move(state)) {}

  // Shared by the copies and by the connections.
  std::shared_ptr<internal::TlsState> state_;
};

}  // namespace troupe

#endif  // TROUPE_NET_TLS_CONTEXT_H_
