#include "troupe/service/internal/target.h"

#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "troupe/base/socket_address.h"
#include "troupe/base/status_macros.h"
#include "troupe/net/resolve.h"

namespace troupe::internal {
namespace {

constexpr absl::string_view kPort = "a port from 0 to 65535 or the name of a service";
constexpr absl::string_view kPortToConnect = "a port from 1 to 65535 or the name of a service";

// What is wrong, to be said after the target.
absl::Status Wanted(absl::string_view what) { return absl::InvalidArgumentError(absl::StrCat("wanted ", what)); }

absl::Status CheckPort(absl::string_view port, TargetUse use) {
  const bool connect = use == TargetUse::kConnect;
  const absl::Status wrong = Wanted(connect ? kPortToConnect : kPort);
  if (port.empty()) return wrong;
  if (std::all_of(port.begin(), port.end(), absl::ascii_isdigit)) {
    uint32_t number = 0;
    const bool fits = absl::SimpleAtoi(port, &number) && number <= 65535 && (number > 0 || !connect);
    return fits ? absl::OkStatus() : wrong;
  }
  const bool name = std::any_of(port.begin(), port.end(), absl::ascii_isalpha) &&
                    std::all_of(port.begin(), port.end(),
                                [](char c) { return absl::ascii_isalnum(c) || absl::StrContains("-_.+", c); });
  return name ? absl::OkStatus() : wrong;
}

absl::Status CheckHost(absl::string_view host, bool bracketed, TargetUse use) {
  if (bracketed) {
    // A zone may be an interface's name, which only the resolver knows.
    const absl::StatusOr<SocketAddress> address = SocketAddress::FromIp(host.substr(0, host.find('%')), 0);
    return address.ok() && address->family() == AF_INET6 ? absl::OkStatus() : Wanted("an IPv6 address in the brackets");
  }
  if (host.empty()) return use == TargetUse::kListen ? absl::OkStatus() : Wanted("host:port");
  const bool printable = std::all_of(host.begin(), host.end(),
                                     [](char c) { return absl::ascii_isgraph(c) && !absl::StrContains("/[]\"", c); });
  return printable ? absl::OkStatus() : Wanted("a host's name or address before the port");
}

// `family`: the only one that an address may be of; 0: any, and names too.
absl::StatusOr<std::string> ParseHostPort(absl::string_view text, int family, TargetUse use) {
  const bool bracketed = absl::StartsWith(text, "[");
  if (absl::StrContains(text, "://")) return Wanted("a scheme that is known, or none");
  const absl::StatusOr<HostPort> parts = SplitHostPort(text);
  if (!parts.ok()) return Wanted(bracketed ? "[ipv6]:port" : "host:port, with an IPv6 host in brackets");
  RETURN_IF_ERROR(CheckHost(parts->host, bracketed, use));
  // What is below would take it for a path.
  if (!bracketed && (parts->host == "unix" || parts->host == "unix-abstract")) {
    return Wanted("another way to write the host: unix.:7400");
  }
  RETURN_IF_ERROR(CheckPort(parts->port, use));
  if (family != 0) {
    const absl::StatusOr<SocketAddress> address = SocketAddress::Parse(text);
    if (!address.ok() || address->family() != family) {
      return Wanted(family == AF_INET ? "a numeric address: ipv4:127.0.0.1:7400"
                                      : "a numeric address: ipv6:[::1]:7400");
    }
  }
  return std::string(text);
}

// Of several addresses the first, if all are good. Who listens lists targets.
absl::StatusOr<std::string> ParseAddresses(absl::string_view list, int family, TargetUse use) {
  if (use == TargetUse::kListen) return ParseHostPort(list, family, use);
  for (const absl::string_view each : absl::StrSplit(list, ',')) {
    RETURN_IF_ERROR(ParseHostPort(each, family, use).status());
  }
  return std::string(list.substr(0, list.find(',')));
}

absl::StatusOr<std::string> Parse(absl::string_view rest, TargetUse use) {
  if (use == TargetUse::kConnect) absl::ConsumePrefix(&rest, "troupe+");
  if (absl::StartsWith(rest, "unix:") || absl::StartsWith(rest, "unix-abstract:")) {
    std::string address(rest);
    if (absl::ConsumePrefix(&rest, "unix://")) {
      if (!absl::StartsWith(rest, "/")) return Wanted("unix:///path or unix:path");
      // More slashes than one mean no more than one, and would mean something else when the address is read again.
      while (absl::StartsWith(rest, "//")) rest.remove_prefix(1);
      address = absl::StrCat("unix:", rest);
    }
    RETURN_IF_ERROR(SocketAddress::Parse(address).status());
    return address;
  }
  if (absl::ConsumePrefix(&rest, "ipv4:")) return ParseAddresses(rest, AF_INET, use);
  if (absl::ConsumePrefix(&rest, "ipv6:")) return ParseAddresses(rest, AF_INET6, use);
  if (absl::ConsumePrefix(&rest, "dns:") && absl::ConsumePrefix(&rest, "//")) {
    const size_t slash = rest.find('/');
    if (slash == absl::string_view::npos) return Wanted("dns:///host:port");
    if (slash != 0) return Wanted("dns:///host:port: no DNS server can be chosen");
    rest.remove_prefix(1);
  }
  return ParseHostPort(rest, 0, use);
}

}  // namespace

absl::StatusOr<std::string> ParseTarget(absl::string_view target, TargetUse use) {
  absl::StatusOr<std::string> parsed = Parse(target, use);
  if (parsed.ok()) return parsed;
  return absl::InvalidArgumentError(
      absl::StrCat("target \"", absl::CEscape(target), "\": ", parsed.status().message()));
}

std::vector<SocketAddress> ListedAddresses(absl::string_view target) {
  std::vector<SocketAddress> addresses;
  absl::ConsumePrefix(&target, "troupe+");
  if (!absl::ConsumePrefix(&target, "ipv4:") && !absl::ConsumePrefix(&target, "ipv6:")) return addresses;
  for (const absl::string_view each : absl::StrSplit(target, ',')) {
    absl::StatusOr<SocketAddress> address = SocketAddress::Parse(each);
    if (address.ok()) addresses.push_back(*std::move(address));
  }
  if (addresses.size() < 2) addresses.clear();
  return addresses;
}

}  // namespace troupe::internal
