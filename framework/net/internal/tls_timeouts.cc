#include "troupe/net/internal/tls_timeouts.h"

#include "absl/strings/str_cat.h"

namespace troupe::internal {

absl::StatusOr<TlsTimeouts> TlsTimeouts::Make(std::optional<absl::Duration> handshake,
                                              std::optional<absl::Duration> shutdown) {
  TlsTimeouts timeouts;
  timeouts.handshake = handshake.value_or(kTlsHandshakeTimeout);
  timeouts.shutdown = shutdown.value_or(kTlsShutdownTimeout);
  const auto refuse = [](const char* what, absl::Duration given) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " should be a positive duration, got ", absl::FormatDuration(given)));
  };
  if (timeouts.handshake <= absl::ZeroDuration()) return refuse("tls_handshake_timeout", timeouts.handshake);
  if (timeouts.shutdown <= absl::ZeroDuration()) return refuse("tls_shutdown_timeout", timeouts.shutdown);
  return timeouts;
}

}  // namespace troupe::internal
