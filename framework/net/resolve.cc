#include "troupe/net/resolve.h"

#include <glog/logging.h>

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "troupe/async/blocking.h"
#include "troupe/base/monotonic_time.h"

namespace troupe {
namespace {

using Addresses = absl::StatusOr<std::vector<SocketAddress>>;

// Empty is 0; -1: not a number.
int ParsePort(absl::string_view text) {
  if (text.empty()) return 0;
  int port = 0;
  if (!std::all_of(text.begin(), text.end(), absl::ascii_isdigit) || !absl::SimpleAtoi(text, &port)) return -1;
  return port;
}

// C-DBG-08
void LogTime(EventLoop& loop, MonotonicTime started, const std::string& what) {
  if (!loop.debug()) return;
  const absl::Duration took = loop.Time() - started;
  const std::string text = absl::StrCat("resolving ", what, " took ", absl::FormatDuration(took));
  if (took >= loop.slow_callback_duration()) {
    LOG(INFO) << text;
  } else {
    VLOG(1) << text;
  }
}

Task<Addresses> ResolveQueried(EventLoop& loop, ResolveQuery query) {
  const int port = ParsePort(query.service);
  if (port > 65535) {
    co_return absl::InvalidArgumentError(absl::StrCat("expected a port from 0 to 65535, got ", query.service));
  }
  if (port >= 0 && !query.host.empty()) {
    absl::StatusOr<SocketAddress> address = SocketAddress::FromIp(query.host, static_cast<uint16_t>(port));
    if (address.ok() && (query.family == AF_UNSPEC || query.family == address->family())) {
      std::vector<SocketAddress> one = {*address};
      co_return one;
    }
  }
  const MonotonicTime started = loop.Time();
  const auto resolve = [&os = loop.os(), query] { return os.Resolve(query); };
  auto asked = RunInExecutor(loop, loop.resolver(), resolve);
  Addresses answer = co_await std::move(asked);
  LogTime(loop, started, absl::StrCat("\"", query.host, "\""));
  if (answer.ok() && answer->empty()) {
    co_return absl::NotFoundError(absl::StrCat("resolving \"", query.host, "\" returned an empty list"));  // C-CSV-05
  }
  co_return answer;
}

Task<absl::StatusOr<HostName>> ResolveAddress(EventLoop& loop, SocketAddress address, HostNameQuery query) {
  // Then it does not block.
  if (query.numeric_host && query.numeric_service) co_return loop.os().ResolveHostName(address, query);
  const MonotonicTime started = loop.Time();
  const auto resolve = [&os = loop.os(), address, query] { return os.ResolveHostName(address, query); };
  auto asked = RunInExecutor(loop, loop.resolver(), resolve);
  absl::StatusOr<HostName> answer = co_await std::move(asked);
  LogTime(loop, started, address.ToString());
  co_return answer;
}

}  // namespace

absl::StatusOr<HostPort> SplitHostPort(absl::string_view text) {
  const auto error = [&](absl::string_view expected) {
    return absl::InvalidArgumentError(absl::StrCat("expected ", expected, ", got \"", absl::CEscape(text), "\""));
  };
  if (!text.empty() && text.front() == '[') {
    const size_t end = text.find("]:");
    if (end == absl::string_view::npos || text.find('[', 1) < end) return error("[ipv6]:port");
    return HostPort{std::string(text.substr(1, end - 1)), std::string(text.substr(end + 2))};
  }
  const size_t colon = text.find(':');
  if (colon == absl::string_view::npos) return error("host:port");
  if (text.find(':', colon + 1) != absl::string_view::npos) return error("host:port with an IPv6 host in brackets");
  return HostPort{std::string(text.substr(0, colon)), std::string(text.substr(colon + 1))};
}

Task<Addresses> GetAddrInfo(EventLoop& loop, const ResolveQuery& query) { return ResolveQueried(loop, query); }

Task<absl::StatusOr<HostName>> GetNameInfo(EventLoop& loop, const SocketAddress& address, HostNameQuery query) {
  return ResolveAddress(loop, address, query);
}

}  // namespace troupe
