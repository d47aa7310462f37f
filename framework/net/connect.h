// CreateConnection: connects to an address and makes a transport and a protocol for it.
//
// For byte protocols, as asyncio's. A service of protobuf types is called through a Channel (service/channel.h).
//
//   auto connected = co_await troupe::CreateConnection(loop, [] { return std::make_unique<Client>(); },
//                                                      {.target = "[::1]:7000"});
//   CO_RETURN_IF_ERROR(connected.status());
//   connected->protocol->Ask("...");          // a Client&; lives as long as connected->transport
//
// With a TlsContext the connection is TLS, verified by the name that is connected to.
//
// Threading: the loop's. Cancelling gives up and closes what was open.
#ifndef TROUPE_NET_CONNECT_H_
#define TROUPE_NET_CONNECT_H_

#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "troupe/async/task.h"
#include "troupe/base/socket_address.h"
#include "troupe/loop/event_loop.h"
#include "troupe/net/protocol.h"
#include "troupe/net/tls_context.h"
#include "troupe/net/transport.h"

namespace troupe {

// Where to. One of `target`, `host` with `port`, `address`, `addresses`, `socket`.
struct ConnectOptions {
  // "localhost:7000", "[::1]:7000", "unix:/run/kv.sock", "unix-abstract:kv"
  absl::string_view target = {};
  absl::string_view host = {};
  absl::string_view port = {};  // a number or a service's name
  std::optional<SocketAddress> address = std::nullopt;
  // Of one host, as the resolver gave them.
  absl::Span<const SocketAddress> addresses = {};
  // A connected stream socket, TCP or Unix, that came from elsewhere. It is taken over, unless it is refused with
  // INVALID_ARGUMENT.
  int socket = -1;
  // AF_INET or AF_INET6 to leave out the other one's addresses.
  int family = 0;
  // Where from: "10.0.0.5:0", "localhost:0", resolved as `target` is; each address is connected to from the first of its
  // family that can be bound, and what has none cannot be reached. Or one address (C-CON-11).
  absl::string_view local = {};
  std::optional<SocketAddress> local_address = std::nullopt;
  // RFC 8305, "happy eyeballs": an address that has not answered after this long is joined by the next one, and the first
  // to answer wins. The RFC recommends 250 ms. Without it each is tried when the one before has failed.
  std::optional<absl::Duration> happy_eyeballs_delay = std::nullopt;
  // So many addresses of the resolver's first family come first; from there on the families take turns. 0: the resolver's
  // order. -1: 1 with happy_eyeballs_delay, else 0.
  int interleave = -1;

  // TLS, as the context says. ConnectionMade comes after the handshake (C-TLS-01).
  const TlsContext* tls = nullptr;
  // Whom to ask for and to verify: the host that is connected to, unless this says otherwise.
  absl::string_view server_hostname = {};
  // Instead of the context's `alpn`.
  absl::Span<const std::string> tls_alpn = {};
  std::optional<absl::Duration> tls_handshake_timeout = std::nullopt;  // 60 s
  // From Close() on: to send what is buffered and to close down. 30 s.
  std::optional<absl::Duration> tls_shutdown_timeout = std::nullopt;
};
static_assert(std::is_trivially_destructible_v<ConnectOptions>);

// How to take over a connection that was accepted elsewhere.
struct AcceptedSocketOptions {
  const TlsContext* tls = nullptr;  // its server's end is ours
  std::optional<absl::Duration> tls_handshake_timeout = std::nullopt;
  std::optional<absl::Duration> tls_shutdown_timeout = std::nullopt;
};
static_assert(std::is_trivially_destructible_v<AcceptedSocketOptions>);

// `protocol` belongs to `transport`.
template <class P = BaseProtocol>
struct Connected {
  TransportPtr transport;
  P* protocol = nullptr;
};

namespace internal {

Task<absl::StatusOr<Connected<>>> Connect(EventLoop& loop, ProtocolFactory factory, const ConnectOptions& options);
Task<absl::StatusOr<Connected<>>> ConnectAccepted(EventLoop& loop, ProtocolFactory factory, int fd,
                                                  const AcceptedSocketOptions& options);

template <class P>
Task<absl::StatusOr<Connected<P>>> ConnectTyped(Task<absl::StatusOr<Connected<>>> connecting) {
  absl::StatusOr<Connected<>> connected = co_await std::move(connecting);
  if (!connected.ok()) co_return connected.status();
  auto* protocol = static_cast<P*>(connected->protocol);
  Connected<P> typed{std::move(connected->transport), protocol};
  co_return typed;
}

}  // namespace internal

// Tries the addresses in the resolver's order, or as the options say; `factory` (which returns a unique_ptr to a
// protocol) is called once one has been reached. On return ConnectionMade has been called (C-CON-07). INVALID_ARGUMENT:
// the options make no sense; NOT_FOUND: no such host; otherwise the system's error, or "Multiple exceptions: ..." when
// addresses failed differently (C-CON-04); with TLS, UNAUTHENTICATED: the server's certificate is not good. What the
// factory throws passes through. The options are copied before this returns.
template <class Factory>
auto CreateConnection(EventLoop& loop, Factory&& factory, const ConnectOptions& options) {
  internal::CheckFactory<Factory>();
  using P = typename std::invoke_result_t<std::decay_t<Factory>&>::element_type;
  return internal::ConnectTyped<P>(internal::Connect(loop, ProtocolFactory(std::forward<Factory>(factory)), options));
}

// Makes a transport and a protocol for `fd`, a connection that was accepted elsewhere: by a library, or by a process that
// passed it on. `fd` is taken over, unless it is refused with INVALID_ARGUMENT: it is no stream socket (C-CON-09).
template <class Factory>
auto ConnectAcceptedSocket(EventLoop& loop, Factory&& factory, int fd, const AcceptedSocketOptions& options = {}) {
  internal::CheckFactory<Factory>();
  using P = typename std::invoke_result_t<std::decay_t<Factory>&>::element_type;
  return internal::ConnectTyped<P>(
      internal::ConnectAccepted(loop, ProtocolFactory(std::forward<Factory>(factory)), fd, options));
}

}  // namespace troupe

#endif  // TROUPE_NET_CONNECT_H_
