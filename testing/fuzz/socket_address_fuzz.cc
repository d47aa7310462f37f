// Addresses as text, and as a kernel would give them: what parses says the same again.
#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "testing/fuzz/fuzz.h"
#include "troupe/base/socket_address.h"
#include "troupe/net/resolve.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using troupe::SocketAddress;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const absl::StatusOr<SocketAddress> parsed = SocketAddress::Parse(text);
  if (parsed.ok()) {
    const std::string shown = parsed->ToString();
    const absl::StatusOr<SocketAddress> again = SocketAddress::Parse(shown);
    // A name with unprintable bytes is shown escaped.
    if (parsed->is_ip()) REQUIRE(again.ok() && *again == *parsed && again->ToString() == shown);
    const SocketAddress copy(parsed->get(), parsed->length());
    REQUIRE(copy == *parsed && copy.ToString() == shown && copy.port() == parsed->port());
  }
  const absl::StatusOr<troupe::HostPort> split = troupe::SplitHostPort(text);
  if (split.ok()) {
    REQUIRE(split->host.find('[') == std::string::npos || !absl::StartsWith(text, "["));
    const bool brackets = absl::StrContains(split->host, ":") || absl::StartsWith(text, "[");
    const std::string joined =
        brackets ? absl::StrCat("[", split->host, "]:", split->port) : absl::StrCat(split->host, ":", split->port);
    const absl::StatusOr<troupe::HostPort> again = troupe::SplitHostPort(joined);
    REQUIRE(again.ok() && again->host == split->host && again->port == split->port);
  }
  // From a kernel: any length, any family.
  sockaddr_storage storage = {};
  const size_t length = size < sizeof(storage) ? size : sizeof(storage);
  if (length > 0) std::memcpy(&storage, data, length);
  const SocketAddress address(reinterpret_cast<const sockaddr*>(&storage), static_cast<socklen_t>(length));
  static_cast<void>(address.ToString());
  static_cast<void>(address.host());
  static_cast<void>(address.unix_path());
  static_cast<void>(address.is_loopback());
  return 0;
}
