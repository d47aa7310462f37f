#include "troupe/net/connect.h"

#include <sys/socket.h>

#include <cerrno>
#include <coroutine>
#include <string>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "troupe/async/internal/root.h"
#include "troupe/base/errors.h"
#include "troupe/base/os_error.h"
#include "troupe/base/status_macros.h"
#include "troupe/loop/fd_watcher.h"
#include "troupe/net/internal/byte_transport.h"
#include "troupe/net/internal/tls_transport.h"
#include "troupe/net/resolve.h"
#include "troupe/net/stream_transport.h"
#include "troupe/os/os.h"

namespace troupe::internal {
namespace {

// Waits until a connecting socket has an outcome.
class ConnectWait final : public Leaf, public FdWatcher {
 public:
  ConnectWait(EventLoop& loop, int fd, const SocketAddress& address) : FdWatcher(loop, fd), address_(address) {}
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<>) {
    watched_ = Watch(kWritable);
    Suspend();
    if (watched_ != 0 && suspended()) Wake();
  }
  // 0, or a positive errno.
  int await_resume() {
    Resumed();
    return watched_ != 0 ? -watched_ : watcher_loop_.os().SocketError(fd());
  }
  std::string DescribeWait() const override { return absl::StrCat("connect to ", address_.ToString()); }

 private:
  void OnReadable() override {}
  void OnWritable() override {
    Watch(0);
    Wake();
  }
  std::string DescribeWatcher() const override { return absl::StrCat("<", DescribeWait(), ">"); }
  void CancelWait() override {
    Watch(0);
    WakeCancelled();
  }

  const SocketAddress& address_;
  int watched_ = 0;
};

// A connected socket, or why not.
Task<absl::StatusOr<int>> ConnectSocket(EventLoop& loop, const SocketAddress& address,
                                        const std::optional<SocketAddress>& local) {
  Os& os = loop.os();
  const std::string where = absl::StrCat("connect ", address.ToString());
  const int fd = os.Socket(address.family(), SOCK_STREAM);
  if (fd < 0) co_return OsError(fd, where);
  absl::Cleanup close = [&os, fd] { os.Close(fd); };
  if (local.has_value()) {
    const int bound = os.Bind(fd, *local);
    if (bound != 0) co_return OsError(bound, absl::StrCat(where, " from ", local->ToString()));
  }
  int error = -os.Connect(fd, address);
  if (error == EINPROGRESS) {
    ConnectWait wait(loop, fd, address);
    error = co_await wait;
  }
  if (error != 0) co_return OsError(error, where);
  std::move(close).Cancel();
  co_return fd;
}

// What is made of a connected socket.
struct Security {
  std::shared_ptr<TlsState> tls;  // null: clear text
  std::string server_hostname;
  TlsTimeouts timeouts;
};

// `host`: what is connected to, "" if that is no host. The rules of C-CON-01.
absl::StatusOr<Security> ParseSecurity(const TlsContext* tls, absl::string_view server_hostname, absl::string_view host,
                                       std::optional<absl::Duration> handshake,
                                       std::optional<absl::Duration> shutdown) {
  Security security;
  if (tls == nullptr) {
    if (!server_hostname.empty()) return absl::InvalidArgumentError("server_hostname is only meaningful with tls");
    if (handshake.has_value()) return absl::InvalidArgumentError("tls_handshake_timeout is only meaningful with tls");
    if (shutdown.has_value()) return absl::InvalidArgumentError("tls_shutdown_timeout is only meaningful with tls");
    return security;
  }
  security.tls = tls->state();
  security.server_hostname = std::string(server_hostname.empty() ? host : server_hostname);
  ASSIGN_OR_RETURN(security.timeouts, TlsTimeouts::Make(handshake, shutdown));
  if (security.tls->verifies_host_name() && security.server_hostname.empty()) {
    return absl::InvalidArgumentError("You must set server_hostname when using TLS without a host");
  }
  return security;
}

struct Target {
  ResolveQuery query;  // where `address` says nothing
  std::optional<SocketAddress> address;
  std::optional<SocketAddress> local;
  Security security;
};

absl::StatusOr<Target> ParseTarget(const ConnectOptions& options) {
  Target target;
  target.query.family = options.family;
  target.local = options.local_address;
  target.address = options.address;
  const bool host = !options.host.empty() || !options.port.empty();
  const int given = (options.target.empty() ? 0 : 1) + (host ? 1 : 0) + (options.address.has_value() ? 1 : 0) +
                    (options.socket >= 0 ? 1 : 0);
  if (given != 1) {
    return absl::InvalidArgumentError(given == 0 ? "none of target, host and port, address, and socket were specified"
                                                 : "target, host and port, address, and socket exclude each other");
  }
  if (absl::StartsWith(options.target, "unix:") || absl::StartsWith(options.target, "unix-abstract:")) {
    ASSIGN_OR_RETURN(target.address, SocketAddress::Parse(options.target));
  } else if (!options.target.empty()) {
    ASSIGN_OR_RETURN(HostPort where, SplitHostPort(options.target));
    target.query.host = std::move(where.host);
    target.query.service = std::move(where.port);
  } else {
    target.query.host = std::string(options.host);
    target.query.service = std::string(options.port);
  }
  if (!target.address.has_value() && options.socket < 0 && target.query.service.empty()) {
    return absl::InvalidArgumentError("a port to connect to was not specified");
  }
  if (options.tls != nullptr && options.tls->is_server()) {
    return absl::InvalidArgumentError("to connect takes a TlsContext for clients");
  }
  ASSIGN_OR_RETURN(target.security, ParseSecurity(options.tls, options.server_hostname, target.query.host,
                                                  options.tls_handshake_timeout, options.tls_shutdown_timeout));
  return target;
}

absl::Status Combine(const std::vector<absl::Status>& errors) {
  for (const absl::Status& error : errors) {
    if (error.message() == errors.front().message()) continue;
    const auto text = [](std::string* out, const absl::Status& status) {
      absl::StrAppend(out, absl::string_view(status.message()));
    };
    return absl::Status(errors.front().code(),
                        absl::StrCat("Multiple exceptions: ", absl::StrJoin(errors, ", ", text)));
  }
  return errors.front();
}

// Takes `fd`, a connected socket, over.
Task<absl::StatusOr<Connected<>>> MakeConnected(EventLoop& loop, ProtocolFactory factory, int fd,
                                                const Security& security) {
  absl::Cleanup close = [&loop, fd] { loop.os().Close(fd); };
  std::unique_ptr<BaseProtocol> protocol = factory();
  if (protocol == nullptr) throw InvalidState("the protocol factory returned null");
  std::move(close).Cancel();
  ByteTransport* transport = nullptr;
  if (security.tls == nullptr) {
    transport = new StreamTransport(loop, fd, std::move(protocol));
    transport->Start();
  } else {
    transport = TlsTransport::OverSocket(loop, fd, nullptr, std::move(protocol), security.tls, security.server_hostname,
                                         security.timeouts);
  }
  Connected<> made{TransportPtr(transport), &transport->protocol()};
  absl::Cleanup abort = [transport] { transport->Abort(); };
  co_await transport->Made();
  // ConnectionMade threw, or there was none: the handshake has failed.
  if (!transport->lost_reason().ok()) co_return transport->lost_reason();
  std::move(abort).Cancel();
  co_return made;
}

// Takes `fd`, which came from elsewhere, over.
Task<absl::StatusOr<Connected<>>> ConnectGiven(EventLoop& loop, ProtocolFactory factory, int fd,
                                               absl::StatusOr<Security> parsed) {
  CO_ASSIGN_OR_RETURN(const Security security, std::move(parsed));
  CO_RETURN_IF_ERROR(AdoptStreamSocket(loop.os(), fd));
  co_return co_await MakeConnected(loop, std::move(factory), fd, security);
}

Task<absl::StatusOr<Connected<>>> ConnectTo(EventLoop& loop, ProtocolFactory factory, absl::StatusOr<Target> parsed) {
  CO_ASSIGN_OR_RETURN(const Target target, std::move(parsed));
  std::vector<SocketAddress> addresses;
  if (target.address.has_value()) {
    addresses.push_back(*target.address);
  } else {
    CO_ASSIGN_OR_RETURN(addresses, co_await GetAddrInfo(loop, target.query));
  }
  std::vector<absl::Status> errors;
  for (const SocketAddress& address : addresses) {
    absl::StatusOr<int> connected = co_await ConnectSocket(loop, address, target.local);
    if (connected.ok()) co_return co_await MakeConnected(loop, std::move(factory), *connected, target.security);
    errors.push_back(connected.status());
  }
  co_return Combine(errors);
}

}  // namespace

Task<absl::StatusOr<Connected<>>> Connect(EventLoop& loop, ProtocolFactory factory, const ConnectOptions& options) {
  absl::StatusOr<Target> target = ParseTarget(options);
  if (target.ok() && options.socket >= 0) {
    return ConnectGiven(loop, std::move(factory), options.socket, std::move(target->security));
  }
  return ConnectTo(loop, std::move(factory), std::move(target));
}

Task<absl::StatusOr<Connected<>>> ConnectAccepted(EventLoop& loop, ProtocolFactory factory, int fd,
                                                  const AcceptedSocketOptions& options) {
  absl::StatusOr<Security> security =
      ParseSecurity(options.tls, "", "", options.tls_handshake_timeout, options.tls_shutdown_timeout);
  if (options.tls != nullptr && !options.tls->is_server()) {
    security = absl::InvalidArgumentError("an accepted connection takes a TlsContext for servers");
  }
  return ConnectGiven(loop, std::move(factory), fd, std::move(security));
}

}  // namespace troupe::internal
