// RemoveStaleSocketFile: makes way for bind(2) to a Unix path (C-CSV-11).
#ifndef TROUPE_NET_INTERNAL_SOCKET_FILE_H_
#define TROUPE_NET_INTERNAL_SOCKET_FILE_H_

#include "absl/status/status.h"
#include "troupe/base/socket_address.h"
#include "troupe/os/os.h"

namespace troupe::internal {

// Removes the file of a socket of `type` that nobody has any more; one that somebody has stays, and so does a file of
// another kind. Not OK: there was not even a descriptor to find out.
absl::Status RemoveStaleSocketFile(Os& os, const SocketAddress& address, int type);

}  // namespace troupe::internal

#endif  // TROUPE_NET_INTERNAL_SOCKET_FILE_H_
