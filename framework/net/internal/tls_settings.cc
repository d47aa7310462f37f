#include "troupe/net/internal/tls_settings.h"

#include "absl/strings/str_cat.h"
#include "troupe/base/status_macros.h"

namespace troupe::internal {
namespace {

// asyncio's SSL_HANDSHAKE_TIMEOUT and SSL_SHUTDOWN_TIMEOUT.
constexpr absl::Duration kHandshakeTimeout = absl::Seconds(60);
constexpr absl::Duration kShutdownTimeout = absl::Seconds(30);

absl::StatusOr<absl::Duration> Positive(absl::string_view what, absl::Duration given) {
  if (given > absl::ZeroDuration()) return given;
  return absl::InvalidArgumentError(
      absl::StrCat(what, " should be a positive duration, got ", absl::FormatDuration(given)));
}

}  // namespace

absl::StatusOr<TlsSettings> TlsSettings::Make(const TlsContext* context, absl::string_view server_hostname,
                                              std::optional<absl::Duration> handshake_timeout,
                                              std::optional<absl::Duration> shutdown_timeout) {
  TlsSettings settings;
  if (context == nullptr) {
    const char* const meaningless = !server_hostname.empty()        ? "server_hostname"
                                    : handshake_timeout.has_value() ? "tls_handshake_timeout"
                                    : shutdown_timeout.has_value()  ? "tls_shutdown_timeout"
                                                                    : nullptr;
    if (meaningless == nullptr) return settings;
    return absl::InvalidArgumentError(absl::StrCat(meaningless, " is only meaningful with tls"));
  }
  settings.state = context->state();
  settings.server_hostname = std::string(server_hostname);
  ASSIGN_OR_RETURN(settings.handshake_timeout,
                   Positive("tls_handshake_timeout", handshake_timeout.value_or(kHandshakeTimeout)));
  ASSIGN_OR_RETURN(settings.shutdown_timeout,
                   Positive("tls_shutdown_timeout", shutdown_timeout.value_or(kShutdownTimeout)));
  return settings;
}

absl::Status TlsSettings::SetAlpn(absl::Span<const std::string> protocols) {
  if (!protocols.empty() && !secure()) return absl::InvalidArgumentError("tls_alpn is only meaningful with tls");
  ASSIGN_OR_RETURN(alpn, AlpnOnWire(protocols));
  return absl::OkStatus();
}

absl::StatusOr<std::string> AlpnOnWire(absl::Span<const std::string> protocols) {
  std::string wire;
  for (const std::string& protocol : protocols) {
    if (protocol.empty() || protocol.size() > 255) {
      return absl::InvalidArgumentError("TLS: the name of a protocol (ALPN) has 1 to 255 bytes");
    }
    wire.push_back(static_cast<char>(protocol.size()));
    wire.append(protocol);
  }
  return wire;
}

}  // namespace troupe::internal
