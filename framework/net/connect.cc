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

struct Target {
  ResolveQuery query;  // where `address` says nothing
  std::optional<SocketAddress> address;
  std::optional<SocketAddress> local;
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
Task<absl::StatusOr<Connected<>>> MakeConnected(EventLoop& loop, ProtocolFactory factory, int fd) {
  absl::Cleanup close = [&loop, fd] { loop.os().Close(fd); };
  std::unique_ptr<BaseProtocol> protocol = factory();
  if (protocol == nullptr) throw InvalidState("the protocol factory returned null");
  std::move(close).Cancel();
  auto* transport = new StreamTransport(loop, fd, std::move(protocol));
  Connected<> made{TransportPtr(transport), &transport->protocol()};
  absl::Cleanup abort = [transport] { transport->Abort(); };
  transport->Start();
  co_await transport->Made();
  // ConnectionMade threw.
  if (!transport->lost_reason().ok()) co_return transport->lost_reason();
  std::move(abort).Cancel();
  co_return made;
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
    if (connected.ok()) co_return co_await MakeConnected(loop, std::move(factory), *connected);
    errors.push_back(connected.status());
  }
  co_return Combine(errors);
}

}  // namespace

Task<absl::StatusOr<Connected<>>> Connect(EventLoop& loop, ProtocolFactory factory, const ConnectOptions& options) {
  absl::StatusOr<Target> target = ParseTarget(options);
  if (target.ok() && options.socket >= 0) return ConnectGiven(loop, std::move(factory), options.socket);
  return ConnectTo(loop, std::move(factory), std::move(target));
}

Task<absl::StatusOr<Connected<>>> ConnectGiven(EventLoop& loop, ProtocolFactory factory, int fd) {
  CO_RETURN_IF_ERROR(AdoptStreamSocket(loop.os(), fd));
  co_return co_await MakeConnected(loop, std::move(factory), fd);
}

}  // namespace troupe::internal
