// TlsTimeouts: how long a handshake and a shutdown may take.
#ifndef TROUPE_NET_INTERNAL_TLS_TIMEOUTS_H_
#define TROUPE_NET_INTERNAL_TLS_TIMEOUTS_H_

#include <optional>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace troupe::internal {

// asyncio's SSL_HANDSHAKE_TIMEOUT and SSL_SHUTDOWN_TIMEOUT.
inline constexpr absl::Duration kTlsHandshakeTimeout = absl::Seconds(60);
inline constexpr absl::Duration kTlsShutdownTimeout = absl::Seconds(30);

struct TlsTimeouts {
  absl::Duration handshake = kTlsHandshakeTimeout;
  absl::Duration shutdown = kTlsShutdownTimeout;

  // The defaults where nothing is given. INVALID_ARGUMENT: not positive (C-TLS-03).
  static absl::StatusOr<TlsTimeouts> Make(std::optional<absl::Duration> handshake,
                                          std::optional<absl::Duration> shutdown);
};

}  // namespace troupe::internal

#endif  // TROUPE_NET_INTERNAL_TLS_TIMEOUTS_H_
