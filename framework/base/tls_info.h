// TlsInfo: what a TLS handshake has agreed on, and who the peer proved to be.
//
// A Transport gives it (Transport::tls, net/transport.h), and an actor finds it at its Connection (Connection::tls,
// rpc/connection.h). Plain data: it names no library's types.
#ifndef TROUPE_BASE_TLS_INFO_H_
#define TROUPE_BASE_TLS_INFO_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace troupe {

enum class TlsVersion : uint8_t { k1_2, k1_3 };

// What a certificate says. Only one that was verified proves anything: see TlsInfo::peer_verified.
struct TlsPeerCertificate {
  std::string subject;  // "CN=kv,O=Example", RFC 4514
  std::string issuer;
  // The subject's alternative names, by their kind.
  std::vector<std::string> dns_names;
  std::vector<std::string> ip_addresses;  // "192.0.2.1", "2001:db8::1"
  std::vector<std::string> uris;          // "spiffe://example.org/kv"
  std::vector<std::string> emails;
  std::string serial;  // hexadecimal, upper case
  absl::Time not_before;
  absl::Time not_after;
  std::string der;  // all of it
};

struct TlsInfo {
  TlsVersion version = TlsVersion::k1_3;
  std::string cipher;       // "TLS_AES_256_GCM_SHA384"
  std::string alpn;         // the protocol agreed on, "" without
  std::string server_name;  // that the client asked for (SNI), "" without
  bool session_resumed = false;
  // The peer's certificate was verified, now or when the resumed session began.
  bool peer_verified = false;
  std::optional<TlsPeerCertificate> peer;  // none: it has shown none
};

}  // namespace troupe

#endif  // TROUPE_BASE_TLS_INFO_H_
