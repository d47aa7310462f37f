// ParseTarget: the text that says where a server is or shall listen, as the sockets below want it.
//
// One grammar for Channel and ServerOptions::listen, so that what one of them takes the other takes too.
#ifndef TROUPE_SERVICE_INTERNAL_TARGET_H_
#define TROUPE_SERVICE_INTERNAL_TARGET_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "troupe/base/socket_address.h"

namespace troupe::internal {

enum class TargetUse : uint8_t {
  kConnect,  // "troupe+" before the scheme is taken; an empty host and port 0 are not
  kListen,
};

// "host:port", "[v6]:port", "unix:/path" or "unix-abstract:name" for any form that channel.h lists. INVALID_ARGUMENT
// names `target` and says what is wrong with it: whatever can be seen without asking a resolver. Of a list of addresses
// to connect to it gives the first.
absl::StatusOr<std::string> ParseTarget(absl::string_view target, TargetUse use);

// The addresses of a target that lists several, "ipv4:10.0.0.1:7400,10.0.0.2:7400"; empty for any other.
// REQUIRES: ParseTarget takes it.
std::vector<SocketAddress> ListedAddresses(absl::string_view target);

}  // namespace troupe::internal

#endif  // TROUPE_SERVICE_INTERNAL_TARGET_H_
