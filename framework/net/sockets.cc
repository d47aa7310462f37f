#include "troupe/net/sockets.h"

#include <sys/uio.h>

#include <cerrno>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "troupe/base/os_error.h"
#include "troupe/base/status_macros.h"
#include "troupe/net/internal/readiness_wait.h"
#include "troupe/net/resolve.h"
#include "troupe/os/os.h"

namespace troupe {
namespace {

using internal::ReadinessWait;

absl::Status CheckDoesNotBlock(EventLoop& loop, int fd) {
  if (loop.debug() && loop.os().IsNonBlocking(fd) == 0) {
    return absl::InvalidArgumentError(absl::StrCat("the socket must be non-blocking: descriptor ", fd));
  }
  return absl::OkStatus();
}

// Makes `call`, which gives what an Os does, until it would not block. What it gives then: the operation is done in the
// task itself, so that a cancellation never drops a result.
template <class Call>
auto Attempt(EventLoop& loop, int fd, Readiness direction, const char* what, Call& call)
    -> Task<absl::StatusOr<decltype(call())>> {
  CO_RETURN_IF_ERROR(CheckDoesNotBlock(loop, fd));
  while (true) {
    const auto result = call();
    if (result >= 0) co_return result;
    if (result != -EAGAIN) co_return OsError(static_cast<int>(result), what);
    ReadinessWait ready(loop, fd, direction, what);
    if (const int watched = ready.Watch(); watched != 0) co_return OsError(watched, what);
    co_await ready;
  }
}

Task<absl::Status> ConnectResolved(EventLoop& loop, int fd, SocketAddress address) {
  CO_RETURN_IF_ERROR(CheckDoesNotBlock(loop, fd));
  const std::string what = absl::StrCat("connect ", address.ToString());
  int error = -loop.os().Connect(fd, address);
  // Two attempts at once are one.
  if (error == EINPROGRESS || error == EALREADY) {
    ReadinessWait ready(loop, fd, kWritable, "SockConnect");
    if (const int watched = ready.Watch(); watched != 0) co_return OsError(watched, what);
    co_await ready;
    error = loop.os().SocketError(fd);
  }
  if (error != 0) co_return OsError(error, what);
  co_return absl::OkStatus();
}

Task<absl::Status> ConnectTarget(EventLoop& loop, int fd, std::string target) {
  if (absl::StartsWith(target, "unix:") || absl::StartsWith(target, "unix-abstract:")) {
    CO_ASSIGN_OR_RETURN(const SocketAddress address, SocketAddress::Parse(target));
    co_return co_await ConnectResolved(loop, fd, address);
  }
  CO_ASSIGN_OR_RETURN(HostPort where, SplitHostPort(target));
  SocketAddress local;
  if (const int result = loop.os().LocalAddress(fd, &local); result != 0) co_return OsError(result, "getsockname");
  if (!local.is_ip()) {
    co_return absl::InvalidArgumentError(absl::StrCat("a host and port need a socket of IP: ", target));
  }
  ResolveQuery query;
  query.host = std::move(where.host);
  query.service = std::move(where.port);
  query.family = local.family();
  CO_ASSIGN_OR_RETURN(const std::vector<SocketAddress> addresses, co_await GetAddrInfo(loop, query));
  co_return co_await ConnectResolved(loop, fd, addresses.front());
}

}  // namespace

Task<absl::StatusOr<std::string>> SockRecv(EventLoop& loop, int fd, size_t bytes_max) {
  // Memory is taken once something is there: many may wait for long.
  std::string bytes;
  auto receive = [&]() -> int64_t {
    bytes.resize(bytes_max);
    const int64_t received = loop.os().Recv(fd, absl::MakeSpan(bytes));
    bytes.resize(received > 0 ? static_cast<size_t>(received) : 0);
    if (received == -EAGAIN) std::string().swap(bytes);
    return received;
  };
  CO_RETURN_IF_ERROR(co_await Attempt(loop, fd, kReadable, "SockRecv", receive));
  co_return bytes;
}

Task<absl::StatusOr<size_t>> SockRecvInto(EventLoop& loop, int fd, absl::Span<char> bytes) {
  auto receive = [&] { return loop.os().Recv(fd, bytes); };
  CO_ASSIGN_OR_RETURN(const int64_t received, co_await Attempt(loop, fd, kReadable, "SockRecvInto", receive));
  co_return static_cast<size_t>(received);
}

Task<absl::Status> SockSendAll(EventLoop& loop, int fd, absl::Span<const char> bytes) {
  auto send = [&]() -> int64_t {
    while (!bytes.empty()) {
      const iovec piece = {const_cast<char*>(bytes.data()), bytes.size()};
      const int64_t sent = loop.os().Send(fd, absl::MakeConstSpan(&piece, 1));
      if (sent < 0) return sent;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return 0;
  };
  CO_RETURN_IF_ERROR(co_await Attempt(loop, fd, kWritable, "SockSendAll", send));
  co_return absl::OkStatus();
}

Task<absl::StatusOr<ReceivedFrom>> SockRecvFrom(EventLoop& loop, int fd, absl::Span<char> bytes) {
  ReceivedFrom received;
  auto receive = [&] { return loop.os().ReceiveFrom(fd, bytes, &received.from); };
  CO_ASSIGN_OR_RETURN(const int64_t size, co_await Attempt(loop, fd, kReadable, "SockRecvFrom", receive));
  received.bytes = static_cast<size_t>(size);
  co_return received;
}

namespace {

Task<absl::Status> SendDatagram(EventLoop& loop, int fd, absl::Span<const char> bytes, SocketAddress to) {
  auto send = [&] { return loop.os().SendTo(fd, bytes, &to); };
  CO_RETURN_IF_ERROR(co_await Attempt(loop, fd, kWritable, "SockSendTo", send));
  co_return absl::OkStatus();
}

}  // namespace

Task<absl::Status> SockSendTo(EventLoop& loop, int fd, absl::Span<const char> bytes, const SocketAddress& to) {
  return SendDatagram(loop, fd, bytes, to);
}

Task<absl::Status> SockConnect(EventLoop& loop, int fd, const SocketAddress& address) {
  return ConnectResolved(loop, fd, address);
}
Task<absl::Status> SockConnect(EventLoop& loop, int fd, absl::string_view target) {
  return ConnectTarget(loop, fd, std::string(target));
}

Accepted::~Accepted() {
  if (fd_ >= 0) os_->Close(fd_);
}

Accepted& Accepted::operator=(Accepted&& other) noexcept {
  std::swap(os_, other.os_);
  std::swap(fd_, other.fd_);
  std::swap(peer_, other.peer_);
  return *this;
}

Task<absl::StatusOr<Accepted>> SockAccept(EventLoop& loop, int fd) {
  SocketAddress peer;
  auto accept = [&] { return loop.os().Accept(fd, &peer); };
  CO_ASSIGN_OR_RETURN(const int accepted, co_await Attempt(loop, fd, kReadable, "SockAccept", accept));
  co_return Accepted(loop.os(), accepted, peer);
}

}  // namespace troupe
