// SocketAddress: where a socket is bound or connected: IPv4, IPv6, or a Unix path (abstract names included).
//
// A value. Text forms: "127.0.0.1:7400", "[::1]:7400", "[fe80::1%2]:7400", "unix:/run/kv.sock", "unix-abstract:kv".
// Host names, service names and interface names are not looked up here: see Os::Resolve.
#ifndef TROUPE_BASE_SOCKET_ADDRESS_H_
#define TROUPE_BASE_SOCKET_ADDRESS_H_

#include <sys/socket.h>
#include <sys/un.h>

#include <cstdint>
#include <cstring>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace troupe {

class SocketAddress {
 public:
  SocketAddress() = default;  // family() is AF_UNSPEC
  // As the kernel gives it. A family other than the three, or a length too short for its family, gives AF_UNSPEC.
  SocketAddress(const sockaddr* address, socklen_t length);

  // Parses a numeric "host:port" or one of the unix forms; never asks a resolver. INVALID_ARGUMENT says what is wrong.
  static absl::StatusOr<SocketAddress> Parse(absl::string_view text);
  // `ip` is a numeric IPv4 or IPv6 address, with a numeric zone index if need be.
  static absl::StatusOr<SocketAddress> FromIp(absl::string_view ip, uint16_t port);
  // INVALID_ARGUMENT when the path has 108 bytes or more, or a NUL.
  static absl::StatusOr<SocketAddress> FromUnixPath(absl::string_view path);
  // INVALID_ARGUMENT when the name has 108 bytes or more, or none. Any byte may stand in it.
  static absl::StatusOr<SocketAddress> FromUnixAbstract(absl::string_view name);

  int family() const { return storage_.any.sa_family; }
  bool is_ip() const { return family() == AF_INET || family() == AF_INET6; }
  uint16_t port() const;          // 0 where there is none
  std::string host() const;       // the numeric address, "" where there is none
  std::string unix_path() const;  // "" unless it is a path
  bool is_loopback() const;       // 127.0.0.0/8, also mapped into IPv6, ::1, or AF_UNIX

  const sockaddr* get() const { return &storage_.any; }
  socklen_t length() const { return length_; }

  // A text form as above; "unix:" for a Unix socket without a name, "" for AF_UNSPEC. A name that holds unprintable
  // bytes is shown escaped, and such a text does not parse back.
  std::string ToString() const;
  friend bool operator==(const SocketAddress& a, const SocketAddress& b) {
    return a.length_ == b.length_ && std::memcmp(&a.storage_, &b.storage_, a.length_) == 0;
  }

 private:
  union Storage {
    sockaddr any;
    sockaddr_un un;  // the largest
  } storage_ = {};
  socklen_t length_ = 0;
};

}  // namespace troupe

#endif  // TROUPE_BASE_SOCKET_ADDRESS_H_
