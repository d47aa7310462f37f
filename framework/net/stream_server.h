// StreamServer: listens on addresses and makes a transport and a protocol for every connection. CreateServer makes one.
//
// For byte protocols, as asyncio's server. A service of protobuf types uses Server (service/server.h), which builds on
// this.
//
//   troupe::StreamServerOptions options{.listen = {"[::1]:7000", "unix:/run/echo.sock"}};
//   auto server = co_await troupe::CreateServer(loop, [] { return std::make_unique<Echo>(); }, options);
//   CO_RETURN_IF_ERROR(server.status());
//   co_return co_await (*server)->ServeForever();
//
// Life:      bound -> StartServing -> Close -> (last connection lost) -> closed
// Threading: the loop's.
// Lifetime:  owns its connections; outlives the tasks that wait in it. Destroying it closes it and aborts what is left:
//            the protocols still hear ConnectionLost, from the loop. It may be destroyed in any callback of theirs.
#ifndef TROUPE_NET_STREAM_SERVER_H_
#define TROUPE_NET_STREAM_SERVER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "troupe/async/task.h"
#include "troupe/base/counter.h"
#include "troupe/base/intrusive_list.h"
#include "troupe/base/socket_address.h"
#include "troupe/loop/context.h"
#include "troupe/loop/event_loop.h"
#include "troupe/net/internal/byte_transport.h"
#include "troupe/net/internal/occurrence.h"
#include "troupe/net/internal/tls_settings.h"
#include "troupe/net/protocol.h"
#include "troupe/net/tls_context.h"

namespace troupe {

// Named before the co_await: g++ 12 destroys temporaries that own something twice there, and CreateServer refuses them.
struct StreamServerOptions {
  // "127.0.0.1:7000", "[::1]:0", "localhost:http", ":7000" (all interfaces), "unix:/path", "unix-abstract:name". A name
  // is bound at all its addresses, equal ones once. Port 0 takes a free one: see addresses().
  std::vector<std::string> listen = {};
  // Instead of `listen`: bound stream sockets, TCP or Unix, that came from elsewhere (a service manager: see
  // Os::TakeListenDescriptors; a process that is being replaced). They are taken over, unless one of them is refused with
  // INVALID_ARGUMENT.
  std::vector<int> sockets = {};
  // Connections that may wait to be accepted, and the most that are accepted in one go (C-CSV-10, C-ACC-01).
  int backlog = 100;
  bool reuse_address = true;
  // Lets several processes or loops listen on one port; the kernel spreads the connections.
  bool reuse_port = false;
  // False: bound only, until StartServing().
  bool start_serving = true;
  // Beyond it connections wait in the backlog. 0: the limit of descriptors less 64, which are left for other uses.
  size_t connections_max = 0;

  // TLS, as the context says, which may be reloaded while the server serves, and may go once the server is made.
  // ConnectionMade comes after the handshake; one that fails costs its own connection only, and its protocol hears nothing
  // (C-ACC-07).
  const TlsContext* tls = nullptr;
  // Instead of the context's `alpn`.
  std::vector<std::string> tls_alpn = {};
  // Beside TLS the same port serves clear text to who does not begin with a handshake: Transport::tls() is null there.
  // The peer has to speak first, within the handshake's limit. There is no half-open state either.
  bool allow_clear_text = false;
  std::optional<absl::Duration> tls_handshake_timeout = std::nullopt;  // 60 s
  // From Close() on: to send what is buffered and to close down. 30 s.
  std::optional<absl::Duration> tls_shutdown_timeout = std::nullopt;
};

class StreamServer;

namespace internal {

Task<absl::StatusOr<std::unique_ptr<StreamServer>>> BuildServer(EventLoop& loop, ProtocolFactory factory,
                                                                StreamServerOptions options);

}  // namespace internal

class StreamServer final : private internal::TransportOwner {
 public:
  StreamServer(const StreamServer&) = delete;
  StreamServer& operator=(const StreamServer&) = delete;
  ~StreamServer();

  EventLoop& loop() const { return loop_; }

  // Listens. Idempotent (C-SRV-02). Throws InvalidState when closed.
  Task<absl::Status> StartServing();
  // Serves until this task is cancelled, which closes the server, waits for its connections to end and passes the
  // cancellation on (C-SRV-08); or until somebody calls Close(): returns OK when the last connection has ended. Throws
  // InvalidState when closed, or when it is being awaited already (C-SRV-07).
  Task<absl::Status> ServeForever();
  bool is_serving() const { return serving_; }

  // Stops listening, at once. Connections stay (C-SRV-03). Idempotent.
  void Close();
  bool is_closed() const { return closed_; }
  // As Transport::Close and Abort of every connection.
  void CloseConnections();
  void AbortConnections();
  // Returns when the server is closed and its last connection has ended, whichever comes last (C-SRV-05).
  Task<void> WaitClosed();

  // Where it is bound, in the order of the options, with the numbers that ports 0 became; kept after Close().
  const std::vector<SocketAddress>& addresses() const { return addresses_; }
  // The listening descriptors; none after Close() (C-SRV-10).
  std::vector<int> sockets() const;
  size_t connections() const { return connections_count_; }

  const Counter& accepted() const { return accepted_; }
  // Times that accepting was suspended: no descriptors or memory; connections_max reached.
  const Counter& accept_pauses() const { return accept_pauses_; }
  const Counter& connections_max_hits() const { return connections_max_hits_; }
  const Counter& tls_handshake_failures() const { return tls_handshake_failures_; }

  std::string DebugString() const;

 private:
  class Listener;

  StreamServer(EventLoop& loop, ProtocolFactory factory, const StreamServerOptions& options);

  absl::Status Bind(const SocketAddress& address);
  // Sockets that came from elsewhere. INVALID_ARGUMENT: none has been taken over.
  absl::Status Adopt(const std::vector<int>& sockets);
  absl::Status Listen();
  // Takes `fd` over.
  void AddConnection(int fd, const SocketAddress& peer, std::unique_ptr<BaseProtocol> protocol);
  bool IsFull() const { return connections_count_ >= connections_max_; }
  void OnTransportLost(internal::ByteTransport& transport) override;
  void OnTransportReplaced(internal::ByteTransport& transport, internal::ByteTransport& layer) override;
  void CheckClosed();

  EventLoop& loop_;
  // Shared with the call in progress, which may destroy the server.
  std::shared_ptr<ProtocolFactory> factory_;
  const int backlog_;
  const bool reuse_address_;
  const bool reuse_port_;
  size_t connections_max_;
  internal::TlsSettings tls_;
  Context context_;  // in force where it began to listen; each connection gets a copy
  std::vector<std::unique_ptr<Listener>> listeners_;
  std::vector<SocketAddress> addresses_;
  IntrusiveList<internal::ByteTransport, internal::TransportOwner> connections_;  // owned
  size_t connections_count_ = 0;
  bool serving_ = false;
  bool closed_ = false;
  bool served_forever_ = false;  // ServeForever is being awaited
  internal::Occurrence ended_;   // closed, and no connection is left
  Counter accepted_;
  Counter accept_pauses_;
  Counter connections_max_hits_;
  Counter tls_handshake_failures_;

  friend Task<absl::StatusOr<std::unique_ptr<StreamServer>>> internal::BuildServer(EventLoop& loop,
                                                                                   ProtocolFactory factory,
                                                                                   StreamServerOptions options);
};

// Binds, and listens unless told not to. `factory` is called once per connection. INVALID_ARGUMENT: the options make no
// sense; otherwise what the resolver or the system said. Nothing stays bound after an error.
template <class Factory>
Task<absl::StatusOr<std::unique_ptr<StreamServer>>> CreateServer(EventLoop& loop, Factory&& factory,
                                                                 const StreamServerOptions& options) {
  internal::CheckFactory<Factory>();
  return internal::BuildServer(loop, ProtocolFactory(std::forward<Factory>(factory)), options);
}
template <class Factory>
Task<absl::StatusOr<std::unique_ptr<StreamServer>>> CreateServer(EventLoop&, Factory&&, StreamServerOptions&&) {
  static_assert(
      sizeof(Factory) == 0,
      "name the options first and pass them by name: g++ 12 destroys a temporary that owns something twice where "
      "it is awaited");
  return {};
}

}  // namespace troupe

#endif  // TROUPE_NET_STREAM_SERVER_H_
