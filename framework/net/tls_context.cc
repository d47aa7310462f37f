#include "troupe/net/tls_context.h"

#include "troupe/base/status_macros.h"
#include "troupe/net/internal/tls_state.h"

namespace troupe {

absl::StatusOr<TlsContext> TlsContext::ForServer(const TlsOptions& options) {
  ASSIGN_OR_RETURN(std::shared_ptr<internal::TlsState> state, internal::TlsState::Make(options, /*server=*/true));
  return TlsContext(std::move(state));
}

absl::StatusOr<TlsContext> TlsContext::ForClient(const TlsOptions& options) {
  ASSIGN_OR_RETURN(std::shared_ptr<internal::TlsState> state, internal::TlsState::Make(options, /*server=*/false));
  return TlsContext(std::move(state));
}

absl::Status TlsContext::Reload(std::vector<TlsCertificate> certificates) {
  return state_->Reload(std::move(certificates));
}

absl::Status TlsContext::Reload() { return state_->Reload(); }

bool TlsContext::is_server() const { return state_->server(); }

}  // namespace troupe
