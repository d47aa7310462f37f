#include "troupe/net/internal/socket_file.h"

#include <sys/socket.h>

#include <cerrno>
#include <string>

#include "troupe/base/os_error.h"

namespace troupe::internal {

absl::Status RemoveStaleSocketFile(Os& os, const SocketAddress& address, int type) {
  const std::string path = address.unix_path();
  if (path.empty() || !os.IsSocketFile(path)) return absl::OkStatus();
  const int probe = os.Socket(AF_UNIX, type);
  if (probe < 0) return OsError(probe, "socket");
  const int connected = os.Connect(probe, address);
  os.Close(probe);
  if (connected == -ECONNREFUSED) os.Unlink(path);
  return absl::OkStatus();
}

}  // namespace troupe::internal
