// TLS contexts of the scenarios: each end verifies the other, "server" and "client". Without sessions, so that every
// handshake is whole, as in the run without a fault.
#ifndef TROUPE_TESTING_FAULTS_TLS_CONTEXTS_H_
#define TROUPE_TESTING_FAULTS_TLS_CONTEXTS_H_

#include "troupe/net/tls_context.h"

namespace troupe::testing {

const TlsContext& TlsServerContext();
const TlsContext& TlsClientContext();

}  // namespace troupe::testing

#endif  // TROUPE_TESTING_FAULTS_TLS_CONTEXTS_H_
