#include "troupe/net/datagram.h"

#include <sys/socket.h>

#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "troupe/base/errors.h"
#include "troupe/base/os_error.h"
#include "troupe/base/status_macros.h"
#include "troupe/net/internal/datagram_transport.h"
#include "troupe/net/internal/socket_file.h"
#include "troupe/net/resolve.h"
#include "troupe/os/os.h"

namespace troupe {

DatagramTransport& DatagramProtocol::transport() const {
  if (transport_ == nullptr) throw InvalidState("the protocol has no transport: ConnectionMade has not come yet");
  return *transport_;
}

// SendTo({}) is one of these, with a null: the empty datagram.
void DatagramTransport::SendTo(const char* text) { SendTo(absl::Span<const char>(absl::NullSafeStringView(text))); }

void DatagramTransport::SendTo(const char* text, const SocketAddress& to) {
  SendTo(absl::Span<const char>(absl::NullSafeStringView(text)), to);
}

namespace internal {
namespace {

// One end of an endpoint, as it was asked for: an address, or something to resolve, or nothing.
struct End {
  bool given = false;
  std::optional<SocketAddress> address;
  ResolveQuery query;
};

// Owns what DatagramOptions borrow.
struct Plan {
  End local;
  End remote;
  int family = 0;
  bool reuse_port = false;
  bool allow_broadcast = false;
  int socket = -1;
};

absl::StatusOr<End> ParseEnd(absl::string_view text, const std::optional<SocketAddress>& address, int family,
                             bool local) {
  End end;
  end.given = !text.empty() || address.has_value();
  if (!end.given) return end;
  const char* const name = local ? "local" : "remote";
  if (!text.empty() && address.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat(name, " and ", name, "_address exclude each other"));
  }
  if (absl::StartsWith(text, "unix:") || absl::StartsWith(text, "unix-abstract:")) {
    ASSIGN_OR_RETURN(end.address, SocketAddress::Parse(text));
  } else if (address.has_value()) {
    end.address = address;
  } else {
    ASSIGN_OR_RETURN(HostPort where, SplitHostPort(text));
    if (!local && where.port.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("a port to send to was not specified: ", text));
    }
    end.query.host = std::move(where.host);
    end.query.service = std::move(where.port);
    end.query.family = family;
    end.query.type = SOCK_DGRAM;
    end.query.passive = local;
    if (family == AF_UNIX) {
      return absl::InvalidArgumentError(absl::StrCat("expected unix: or unix-abstract:, got ", text));
    }
  }
  return end;
}

absl::StatusOr<Plan> ParseOptions(const DatagramOptions& options) {
  Plan plan;
  plan.family = options.family;
  plan.reuse_port = options.reuse_port;
  plan.allow_broadcast = options.allow_broadcast;
  plan.socket = options.socket;
  if (options.socket >= 0) {
    std::vector<std::string> others;
    const auto note = [&](const char* name, absl::string_view value) {
      others.push_back(absl::StrCat(name, "=", value));
    };
    if (!options.local.empty()) note("local", options.local);
    if (options.local_address.has_value()) note("local_address", options.local_address->ToString());
    if (!options.remote.empty()) note("remote", options.remote);
    if (options.remote_address.has_value()) note("remote_address", options.remote_address->ToString());
    if (options.family != 0) note("family", absl::StrCat(options.family));
    if (options.reuse_port) note("reuse_port", "true");
    if (options.allow_broadcast) note("allow_broadcast", "true");
    if (!others.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("socket modifier arguments can not be used when socket is specified. (",
                                                     absl::StrJoin(others, ", "), ")"));
    }
    return plan;
  }
  if (options.family != 0 && options.family != AF_INET && options.family != AF_INET6 && options.family != AF_UNIX) {
    return absl::InvalidArgumentError(absl::StrCat("unexpected address family ", options.family));
  }
  ASSIGN_OR_RETURN(plan.local, ParseEnd(options.local, options.local_address, options.family, true));
  ASSIGN_OR_RETURN(plan.remote, ParseEnd(options.remote, options.remote_address, options.family, false));
  if (!plan.local.given && !plan.remote.given && options.family == 0) {
    return absl::InvalidArgumentError("unexpected address family: neither local, remote, family nor socket was specified");
  }
  return plan;
}

// What a socket is bound and connected to; AF_UNSPEC: not at all.
struct Candidate {
  int family;
  SocketAddress local;
  SocketAddress remote;
};

// Every local address with every remote one of its family, in the order of preference.
absl::StatusOr<std::vector<Candidate>> Pair(const Plan& plan, const std::vector<SocketAddress>& locals,
                                            const std::vector<SocketAddress>& remotes) {
  std::vector<Candidate> candidates;
  if (!plan.local.given && !plan.remote.given) {
    candidates.push_back({plan.family, SocketAddress(), SocketAddress()});
    return candidates;
  }
  const std::vector<SocketAddress> none(1);
  for (const SocketAddress& local : plan.local.given ? locals : none) {
    for (const SocketAddress& remote : plan.remote.given ? remotes : none) {
      const int family = plan.local.given ? local.family() : remote.family();
      if (plan.remote.given && remote.family() != family) continue;
      if (plan.family != 0 && family != plan.family) continue;
      candidates.push_back({family, local, remote});
    }
  }
  if (candidates.empty()) return absl::InvalidArgumentError("can not get address information: no common family");
  return candidates;
}

absl::StatusOr<int> OpenSocket(Os& os, const Plan& plan, const Candidate& candidate) {
  if (plan.local.given && candidate.family == AF_UNIX) {
    RETURN_IF_ERROR(RemoveStaleSocketFile(os, candidate.local, SOCK_DGRAM));
  }
  const int fd = os.Socket(candidate.family, SOCK_DGRAM);
  if (fd < 0) return OsError(fd, "socket");
  absl::Cleanup close = [&os, fd] { os.Close(fd); };
  if (plan.reuse_port && candidate.family != AF_UNIX && os.SetSocketOption(fd, SOL_SOCKET, SO_REUSEPORT, 1) != 0) {
    return absl::InvalidArgumentError("reuse_port is not supported by the system");
  }
  if (plan.allow_broadcast) {
    const int set = os.SetSocketOption(fd, SOL_SOCKET, SO_BROADCAST, 1);
    if (set != 0) return OsError(set, "allow_broadcast");
  }
  if (plan.local.given) {
    const int bound = os.Bind(fd, candidate.local);
    if (bound != 0) return OsError(bound, absl::StrCat("bind ", candidate.local.ToString()));
  }
  if (plan.remote.given && !plan.allow_broadcast) {
    const int connected = os.Connect(fd, candidate.remote);
    if (connected != 0) return OsError(connected, absl::StrCat("connect ", candidate.remote.ToString()));
  }
  std::move(close).Cancel();
  return fd;
}

// Takes `fd` over.
Task<absl::StatusOr<DatagramEndpoint<>>> MakeEndpoint(EventLoop& loop, DatagramProtocolFactory factory, int fd,
                                                      const SocketAddress& remote) {
  absl::Cleanup close = [&loop, fd] { loop.os().Close(fd); };
  std::unique_ptr<DatagramProtocol> protocol = factory();
  if (protocol == nullptr) throw InvalidState("the protocol factory returned null");
  std::move(close).Cancel();
  auto* transport = new SocketDatagramTransport(loop, fd, std::move(protocol), remote);
  DatagramEndpoint<> made{DatagramTransportPtr(transport), &transport->protocol()};
  absl::Cleanup abort = [transport] { transport->Abort(); };
  transport->Start();
  co_await transport->Made();
  // ConnectionMade threw.
  if (!transport->lost_reason().ok()) co_return transport->lost_reason();
  std::move(abort).Cancel();
  co_return made;
}

Task<absl::StatusOr<std::vector<SocketAddress>>> ResolveEnd(EventLoop& loop, const End& end) {
  std::vector<SocketAddress> addresses;
  if (end.address.has_value()) {
    addresses.push_back(*end.address);
  } else if (end.given) {
    CO_ASSIGN_OR_RETURN(addresses, co_await GetAddrInfo(loop, end.query));
  }
  co_return addresses;
}

Task<absl::StatusOr<DatagramEndpoint<>>> Open(EventLoop& loop, DatagramProtocolFactory factory,
                                              absl::StatusOr<Plan> parsed) {
  CO_ASSIGN_OR_RETURN(const Plan plan, std::move(parsed));
  if (plan.socket >= 0) {
    const int family = loop.os().AdoptSocket(plan.socket, SOCK_DGRAM);
    if (family < 0) {
      co_return absl::InvalidArgumentError(absl::StrCat("A Datagram Socket was expected, got descriptor ", plan.socket,
                                                        ": ", ErrnoText(-family)));
    }
    co_return co_await MakeEndpoint(loop, std::move(factory), plan.socket, SocketAddress());
  }
  CO_ASSIGN_OR_RETURN(const std::vector<SocketAddress> locals, co_await ResolveEnd(loop, plan.local));
  CO_ASSIGN_OR_RETURN(const std::vector<SocketAddress> remotes, co_await ResolveEnd(loop, plan.remote));
  CO_ASSIGN_OR_RETURN(const std::vector<Candidate> candidates, Pair(plan, locals, remotes));
  absl::Status first_error;
  for (const Candidate& candidate : candidates) {
    const absl::StatusOr<int> fd = OpenSocket(loop.os(), plan, candidate);
    if (fd.ok()) {
      const SocketAddress remote = plan.allow_broadcast ? candidate.remote : SocketAddress();
      co_return co_await MakeEndpoint(loop, std::move(factory), *fd, remote);
    }
    first_error.Update(fd.status());
  }
  co_return first_error;
}

}  // namespace

Task<absl::StatusOr<DatagramEndpoint<>>> OpenDatagramEndpoint(EventLoop& loop, DatagramProtocolFactory factory,
                                                              const DatagramOptions& options) {
  return Open(loop, std::move(factory), ParseOptions(options));
}

}  // namespace internal
}  // namespace troupe
