#include "troupe/net/tls.h"

#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "troupe/base/status_macros.h"
#include "troupe/net/internal/byte_transport.h"
#include "troupe/net/internal/tls_transport.h"

namespace troupe {
namespace {

using internal::TlsSettings;
using internal::TlsTransport;

absl::StatusOr<TlsSettings> Check(Transport& transport, const TlsContext& context, const StartTlsOptions& options) {
  ASSIGN_OR_RETURN(TlsSettings settings,
                   TlsSettings::Make(&context, options.server_hostname, options.tls_handshake_timeout,
                                     options.tls_shutdown_timeout));
  if (context.state()->verifies_host_name() && options.server_hostname.empty()) {
    return absl::InvalidArgumentError("You must set server_hostname when using TLS without a host");
  }
  const auto* bytes = dynamic_cast<internal::ByteTransport*>(&transport);
  if (transport.is_closing() || (bytes != nullptr && !bytes->can_be_layered())) {
    return absl::InvalidArgumentError(
        absl::StrCat("transport ", transport.DebugString(), " is not supported by StartTls()"));
  }
  return settings;
}

absl::Status WhyNot(const TlsTransport& transport) {
  const absl::Status& reason = transport.lost_reason();
  return reason.ok() ? absl::UnavailableError("the connection was closed during the TLS handshake") : reason;
}

template <class T>
Task<absl::StatusOr<T>> Refuse(absl::Status why) {
  co_return why;
}

Task<absl::StatusOr<TransportPtr>> Await(TransportPtr owned) {
  auto* const transport = static_cast<TlsTransport*>(owned.get());
  absl::Cleanup abort = [transport] { transport->Abort(); };
  co_await transport->Made();
  if (!transport->opened()) co_return WhyNot(*transport);
  std::move(abort).Cancel();
  co_return owned;
}

Task<absl::StatusOr<Transport*>> AwaitServed(TlsTransport* transport) {
  co_await transport->Made();
  if (!transport->opened()) co_return WhyNot(*transport);
  co_return transport;
}

}  // namespace

Task<absl::StatusOr<TransportPtr>> StartTls(TransportPtr transport, const TlsContext& context,
                                            const StartTlsOptions& options) {
  absl::StatusOr<TlsSettings> settings = Check(*transport, context, options);
  if (!settings.ok()) {
    transport->Abort();
    return Refuse<TransportPtr>(settings.status());
  }
  return Await(TransportPtr(TlsTransport::Upgrade(std::move(transport), *std::move(settings))));
}

Task<absl::StatusOr<Transport*>> StartTls(Transport& transport, const TlsContext& context,
                                          const StartTlsOptions& options) {
  absl::StatusOr<TlsSettings> settings = Check(transport, context, options);
  if (!settings.ok()) return Refuse<Transport*>(settings.status());
  const auto* bytes = dynamic_cast<internal::ByteTransport*>(&transport);
  if (bytes == nullptr || !bytes->has_owner()) {
    return Refuse<Transport*>(absl::InvalidArgumentError(
        absl::StrCat("transport ", transport.DebugString(), " is no server's: StartTls() takes its TransportPtr")));
  }
  return AwaitServed(TlsTransport::Upgrade(TransportPtr(&transport), *std::move(settings)));
}

}  // namespace troupe
