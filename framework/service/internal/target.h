// ParseTarget: the text that says where a server is or shall listen, as the sockets below want it.
//
// One grammar for Channel and ServerOptions::listen, so that what one of them takes the other takes too.
#ifndef TROUPE_SERVICE_INTERNAL_TARGET_H_
#define TROUPE_SERVICE_INTERNAL_TARGET_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace troupe::internal {

enum class TargetUse : uint8_t {
  kConnect,  // "troupe+" before the scheme is taken; an empty host and port 0 are not
  kListen,
};

// "host:port", "[v6]:port", "unix:/path" or "unix-abstract:name" for any form that channel.h lists. INVALID_ARGUMENT
// names `target` and says what is wrong with it: whatever can be seen without asking a resolver.
absl::StatusOr<std::string> ParseTarget(absl::string_view target, TargetUse use);

}  // namespace troupe::internal

#endif  // TROUPE_SERVICE_INTERNAL_TARGET_H_
