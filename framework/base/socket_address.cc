#include "troupe/base/socket_address.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace troupe {
namespace {

constexpr size_t kUnixPathOffset = offsetof(sockaddr_un, sun_path);
constexpr size_t kUnixPathBytes = sizeof(sockaddr_un::sun_path);

std::string Quoted(absl::string_view text) { return absl::StrCat("\"", absl::CEscape(text), "\""); }

// Digits only: no sign, no space, at most `max`.
bool ParseDecimal(absl::string_view text, uint32_t max, uint32_t* value) {
  return !text.empty() && std::all_of(text.begin(), text.end(), absl::ascii_isdigit) && absl::SimpleAtoi(text, value) &&
         *value <= max;
}

// What a log can print; a name that holds other bytes is escaped as a whole.
std::string Printable(absl::string_view name) {
  return std::all_of(name.begin(), name.end(), absl::ascii_isprint) ? std::string(name) : absl::CEscape(name);
}

absl::StatusOr<SocketAddress> MakeUnix(const char* name, size_t bytes, size_t bytes_counted) {
  sockaddr_un un = {};
  un.sun_family = AF_UNIX;
  std::memcpy(un.sun_path, name, bytes);
  return SocketAddress(reinterpret_cast<const sockaddr*>(&un), static_cast<socklen_t>(kUnixPathOffset + bytes_counted));
}

}  // namespace

SocketAddress::SocketAddress(const sockaddr* address, socklen_t length) {
  // Copied member by member where there is padding, so that operator== may compare bytes.
  if (address == nullptr || length < sizeof(sa_family_t)) return;
  switch (address->sa_family) {
    case AF_INET: {
      if (length < sizeof(sockaddr_in)) return;
      sockaddr_in in;
      std::memcpy(&in, address, sizeof(in));
      std::memset(in.sin_zero, 0, sizeof(in.sin_zero));
      std::memcpy(&storage_, &in, sizeof(in));
      length_ = sizeof(sockaddr_in);
      return;
    }
    case AF_INET6:
      if (length < sizeof(sockaddr_in6)) return;
      std::memcpy(&storage_, address, sizeof(sockaddr_in6));
      length_ = sizeof(sockaddr_in6);
      return;
    case AF_UNIX:
      // The kernel counts one byte more than it stores for a path that fills sun_path.
      length_ = std::min<socklen_t>(length, sizeof(sockaddr_un));
      std::memcpy(&storage_, address, length_);
      return;
    default:
      return;
  }
}

absl::StatusOr<SocketAddress> SocketAddress::Parse(absl::string_view text) {
  absl::string_view rest = text;
  if (absl::ConsumePrefix(&rest, "unix-abstract:")) return FromUnixAbstract(rest);
  if (absl::ConsumePrefix(&rest, "unix:")) return FromUnixPath(rest);

  absl::string_view host, port;
  if (absl::StartsWith(text, "[")) {
    const size_t end = text.find("]:");
    if (end == absl::string_view::npos) {
      return absl::InvalidArgumentError(absl::StrCat("expected [ipv6]:port, got ", Quoted(text)));
    }
    host = text.substr(1, end - 1);
    port = text.substr(end + 2);
    if (!absl::StrContains(host, ':')) {
      return absl::InvalidArgumentError(absl::StrCat("expected an IPv6 address in brackets, got ", Quoted(text)));
    }
  } else {
    const size_t colon = text.find(':');
    if (colon == absl::string_view::npos) {
      return absl::InvalidArgumentError(absl::StrCat("expected host:port, got ", Quoted(text)));
    }
    if (text.find(':', colon + 1) != absl::string_view::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat("expected host:port with an IPv6 host in brackets, got ", Quoted(text)));
    }
    host = text.substr(0, colon);
    port = text.substr(colon + 1);
  }
  uint32_t number = 0;
  if (!ParseDecimal(port, 65535, &number)) {
    return absl::InvalidArgumentError(absl::StrCat("expected a port from 0 to 65535, got ", Quoted(text)));
  }
  return FromIp(host, static_cast<uint16_t>(number));
}

absl::StatusOr<SocketAddress> SocketAddress::FromIp(absl::string_view ip, uint16_t port) {
  const size_t percent = ip.find('%');
  const std::string host(ip.substr(0, percent));
  uint32_t zone = 0;
  if (percent != absl::string_view::npos && !ParseDecimal(ip.substr(percent + 1), UINT32_MAX, &zone)) {
    // Interface names are the resolver's business: to look one up asks the kernel.
    return absl::InvalidArgumentError(absl::StrCat("expected a numeric zone index, got ", Quoted(ip)));
  }
  // inet_pton stops at a NUL, which would let "127.0.0.1\0x" pass.
  if (!absl::StrContains(ip, '\0')) {
    sockaddr_in in = {};
    if (percent == absl::string_view::npos && inet_pton(AF_INET, host.c_str(), &in.sin_addr) == 1) {
      in.sin_family = AF_INET;
      in.sin_port = htons(port);
      return SocketAddress(reinterpret_cast<const sockaddr*>(&in), sizeof(in));
    }
    sockaddr_in6 in6 = {};
    if (inet_pton(AF_INET6, host.c_str(), &in6.sin6_addr) == 1) {
      in6.sin6_family = AF_INET6;
      in6.sin6_port = htons(port);
      in6.sin6_scope_id = zone;
      return SocketAddress(reinterpret_cast<const sockaddr*>(&in6), sizeof(in6));
    }
  }
  return absl::InvalidArgumentError(absl::StrCat("expected a numeric IPv4 or IPv6 address, got ", Quoted(ip)));
}

absl::StatusOr<SocketAddress> SocketAddress::FromUnixPath(absl::string_view path) {
  if (path.empty()) return absl::InvalidArgumentError("expected a Unix socket path, got an empty one");
  if (absl::StrContains(path, '\0')) {
    return absl::InvalidArgumentError(absl::StrCat("a Unix socket path may not hold a NUL: ", Quoted(path)));
  }
  if (path.size() >= kUnixPathBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("a Unix socket path has at most ", kUnixPathBytes - 1, " bytes, got ", path.size(), ": ", path));
  }
  return MakeUnix(path.data(), path.size(), path.size() + 1);  // with its NUL, as the kernel gives it back
}

absl::StatusOr<SocketAddress> SocketAddress::FromUnixAbstract(absl::string_view name) {
  // An abstract name of no bytes would ask the kernel to choose one.
  if (name.empty()) return absl::InvalidArgumentError("expected an abstract Unix socket name, got an empty one");
  if (name.size() >= kUnixPathBytes) {
    return absl::InvalidArgumentError(absl::StrCat("an abstract Unix socket name has at most ", kUnixPathBytes - 1,
                                                   " bytes, got ", name.size(), ": ", Quoted(name)));
  }
  const std::string bytes = std::string(1, '\0') + std::string(name);
  return MakeUnix(bytes.data(), bytes.size(), bytes.size());
}

uint16_t SocketAddress::port() const {
  switch (family()) {
    case AF_INET:
      return ntohs(reinterpret_cast<const sockaddr_in*>(&storage_)->sin_port);
    case AF_INET6:
      return ntohs(reinterpret_cast<const sockaddr_in6*>(&storage_)->sin6_port);
    default:
      return 0;
  }
}

std::string SocketAddress::host() const {
  char text[INET6_ADDRSTRLEN];
  if (family() == AF_INET) {
    return inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(&storage_)->sin_addr, text, sizeof(text));
  }
  if (family() == AF_INET6) {
    const auto* in6 = reinterpret_cast<const sockaddr_in6*>(&storage_);
    std::string host = inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof(text));
    if (in6->sin6_scope_id != 0) absl::StrAppend(&host, "%", in6->sin6_scope_id);
    return host;
  }
  return "";
}

std::string SocketAddress::unix_path() const {
  if (family() != AF_UNIX || length_ <= kUnixPathOffset || storage_.un.sun_path[0] == '\0') return "";
  return std::string(storage_.un.sun_path, strnlen(storage_.un.sun_path, length_ - kUnixPathOffset));
}

bool SocketAddress::is_loopback() const {
  switch (family()) {
    case AF_INET:
      return ntohl(reinterpret_cast<const sockaddr_in*>(&storage_)->sin_addr.s_addr) >> 24 == 127;
    case AF_INET6: {
      const in6_addr& ip = reinterpret_cast<const sockaddr_in6*>(&storage_)->sin6_addr;
      return IN6_IS_ADDR_LOOPBACK(&ip) || (IN6_IS_ADDR_V4MAPPED(&ip) && ip.s6_addr[12] == 127);
    }
    default:
      return family() == AF_UNIX;
  }
}

std::string SocketAddress::ToString() const {
  switch (family()) {
    case AF_INET:
      return absl::StrCat(host(), ":", port());
    case AF_INET6:
      return absl::StrCat("[", host(), "]:", port());
    case AF_UNIX:
      if (length_ > kUnixPathOffset && storage_.un.sun_path[0] == '\0') {
        return absl::StrCat("unix-abstract:",
                            Printable(absl::string_view(storage_.un.sun_path + 1, length_ - kUnixPathOffset - 1)));
      }
      return absl::StrCat("unix:", Printable(unix_path()));
    default:
      return "";
  }
}

}  // namespace troupe
