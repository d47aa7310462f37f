// TlsSettings: what one connection, or all of a server, takes of a TlsContext and of its own options.
#ifndef TROUPE_NET_INTERNAL_TLS_SETTINGS_H_
#define TROUPE_NET_INTERNAL_TLS_SETTINGS_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "troupe/net/tls_context.h"

namespace troupe::internal {

struct TlsSettings {
  std::shared_ptr<TlsState> state;  // the context's; null: clear text
  std::string server_hostname;      // of a client
  std::string alpn;                 // as on the wire; "": the context's
  bool clear_text_allowed = false;  // of a server: who does not begin with a handshake
  absl::Duration handshake_timeout;
  absl::Duration shutdown_timeout;

  // What there is to say about TLS without any. INVALID_ARGUMENT where that makes no sense: a limit that is not positive
  // (C-TLS-03), and anything at all without a context (C-CSV-02, C-CON-01).
  static absl::StatusOr<TlsSettings> Make(const TlsContext* context, absl::string_view server_hostname,
                                          std::optional<absl::Duration> handshake_timeout,
                                          std::optional<absl::Duration> shutdown_timeout);
  // Instead of the context's protocols. INVALID_ARGUMENT: a name that is none.
  absl::Status SetAlpn(absl::Span<const std::string> protocols);
  bool secure() const { return state != nullptr; }
};

// The list of protocols as it travels (RFC 7301, 3.1). INVALID_ARGUMENT: a name of no or more than 255 bytes.
absl::StatusOr<std::string> AlpnOnWire(absl::Span<const std::string> protocols);

}  // namespace troupe::internal

#endif  // TROUPE_NET_INTERNAL_TLS_SETTINGS_H_
