// StartTls: makes a connection that is open in clear text a TLS one, at either end: STARTTLS of mail, LDAP, databases.
//
// Connections that are TLS from the start are made by CreateConnection and CreateServer with a context.
//
//   auto secured = co_await troupe::StartTls(std::move(transport), context, {.server_hostname = "mail.example.org"});
//   CO_RETURN_IF_ERROR(secured.status());        // the transport to use from here on; the protocol is the same
//
// From the call on (not only from the co_await on) the TLS transport stands in the old one's place: what the protocol
// writes waits for the handshake and leaves encrypted, and whatever arrives has to be TLS, or the connection fails. What
// had arrived before is the protocol's to judge: one that finds bytes behind the peer's last word in clear text, in the
// same DataReceived, must not take them for protected (CVE-2011-0411), and rather Abort.
#ifndef TROUPE_NET_TLS_H_
#define TROUPE_NET_TLS_H_

#include <optional>
#include <type_traits>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "troupe/async/task.h"
#include "troupe/net/tls_context.h"
#include "troupe/net/transport.h"

namespace troupe {

struct StartTlsOptions {
  // Clients: whom to ask for and to verify. A server ignores it (C-TLS-16).
  absl::string_view server_hostname = {};
  std::optional<absl::Duration> tls_handshake_timeout = std::nullopt;  // 60 s
  // From Close() on: to send what is buffered and to close down. 30 s.
  std::optional<absl::Duration> tls_shutdown_timeout = std::nullopt;
};
static_assert(std::is_trivially_destructible_v<StartTlsOptions>);

// Which end this is, the context says. The protocol, which goes with the transport, hears no second ConnectionMade, and
// ConnectionLost if this fails. INVALID_ARGUMENT: the options make no sense, or `transport` cannot be upgraded: it is
// closing, or one of its directions has ended; it is aborted then. UNAUTHENTICATED: the peer's certificate is not good;
// UNAVAILABLE: the handshake failed otherwise. Cancelling aborts the connection.
Task<absl::StatusOr<TransportPtr>> StartTls(TransportPtr transport, const TlsContext& context,
                                            const StartTlsOptions& options = {});
// The same for a connection that its StreamServer owns, which it goes on to do. Refused, it stays as it was; cancelling
// only stops the wait. What is returned lives as long as the connection.
Task<absl::StatusOr<Transport*>> StartTls(Transport& transport, const TlsContext& context,
                                          const StartTlsOptions& options = {});

}  // namespace troupe

#endif  // TROUPE_NET_TLS_H_
