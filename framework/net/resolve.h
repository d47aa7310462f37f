// GetAddrInfo, GetNameInfo: the addresses of a host and service, and the other way, without blocking the loop.
//
// Numbers are answered at once and never reach the resolver (C-DNS-01). Everything else is asked on the loop's resolver
// thread, which is its own, so that neither a slow name server nor a busy executor stops the other (C-DNS-03). Debug mode
// logs how long it took (C-DBG-08).
//
// Threading:    the loop's.
// Cancellation: abandons the question. One that has not reached the resolver's thread never does; its thread goes on with
//               one that has.
#ifndef TROUPE_NET_RESOLVE_H_
#define TROUPE_NET_RESOLVE_H_

#include <string>
#include <type_traits>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "troupe/async/task.h"
#include "troupe/base/socket_address.h"
#include "troupe/loop/event_loop.h"
#include "troupe/os/os.h"

namespace troupe {

// "host" and "port" of a text, as they stand there.
struct HostPort {
  std::string host;  // without brackets
  std::string port;
};

// Splits "host:port", "[v6]:port" and ":port". INVALID_ARGUMENT says what is wrong.
absl::StatusOr<HostPort> SplitHostPort(absl::string_view text);

// In the order of preference, never empty; NOT_FOUND where there is no such host, otherwise as Os::Resolve. Copies `query`
// before it returns, but name it before the co_await: g++ 12 frees a temporary there twice.
Task<absl::StatusOr<std::vector<SocketAddress>>> GetAddrInfo(EventLoop& loop, const ResolveQuery& query);

// What an address is called; NOT_FOUND where a name is required and there is none, otherwise as Os::ResolveHostName.
Task<absl::StatusOr<HostName>> GetNameInfo(EventLoop& loop, const SocketAddress& address, HostNameQuery query = {});
static_assert(std::is_trivially_destructible_v<HostNameQuery>);

}  // namespace troupe

#endif  // TROUPE_NET_RESOLVE_H_
