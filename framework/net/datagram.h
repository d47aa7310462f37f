// CreateDatagramEndpoint: datagrams over UDP and Unix sockets; asyncio's datagram endpoints.
//
//   class Echo final : public troupe::DatagramProtocol {
//     void DatagramReceived(absl::Span<const char> data, const troupe::SocketAddress& from) override {
//       transport().SendTo(data, from);
//     }
//   };
//   auto endpoint = co_await troupe::CreateDatagramEndpoint(loop, [] { return std::make_unique<Echo>(); },
//                                                           {.local = "[::1]:7000"});
//   CO_RETURN_IF_ERROR(endpoint.status());
//   endpoint->protocol->...;                 // an Echo&; lives as long as endpoint->transport
//
// A datagram arrives whole, or not at all: the network may lose it, double it and let others overtake it. For bytes in
// order use CreateConnection (connect.h).
#ifndef TROUPE_NET_DATAGRAM_H_
#define TROUPE_NET_DATAGRAM_H_

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "troupe/async/task.h"
#include "troupe/base/socket_address.h"
#include "troupe/loop/event_loop.h"
#include "troupe/net/protocol.h"
#include "troupe/net/transport.h"

namespace troupe {

class DatagramTransport;

// What an application does with the datagrams of one endpoint.
//
// Life:      ConnectionMade -> (DatagramReceived | ErrorReceived)* -> ConnectionLost -> end
//            PauseWriting and ResumeWriting alternate, any time between the first and the last.
// Threading: the loop's.
// Lifetime:  owned by its transport. Inside any callback it may send, close, abort, replace itself or drop its transport:
//            it lives at least until the callback has returned.
// Errors:    what a callback throws is reported to the loop's exception handler. Out of ConnectionMade it ends the
//            endpoint; out of the others it does not: one bad datagram is not the end for all who send good ones.
class DatagramProtocol {
 public:
  DatagramProtocol() = default;
  DatagramProtocol(const DatagramProtocol&) = delete;
  DatagramProtocol& operator=(const DatagramProtocol&) = delete;
  virtual ~DatagramProtocol() = default;

  // The socket is there. Nothing arrives before this has returned.
  virtual void ConnectionMade(DatagramTransport& transport) { (void)transport; }
  // One datagram, which may be empty. `data` is lent until the return. `from` is AF_UNSPEC for a Unix socket without a
  // name.
  virtual void DatagramReceived(absl::Span<const char> data, const SocketAddress& from) = 0;
  // A datagram could not be sent and is lost, or the system says what became of an earlier one: on a connected endpoint
  // ECONNREFUSED, nobody is there. The endpoint goes on (C-DGM-01, C-DGM-04). May come inside SendTo; what is sent from
  // inside this waits for the next iteration, so that a protocol may try again.
  virtual void ErrorReceived(const absl::Status& error) { (void)error; }
  // More waits to be sent than the high mark allows. Comes inside the SendTo that crossed it.
  virtual void PauseWriting() {}
  virtual void ResumeWriting() {}
  // The last callback. OK: the endpoint was closed or aborted.
  virtual void ConnectionLost(const absl::Status& reason) { (void)reason; }

 protected:
  // From ConnectionMade on, as long as it and this protocol belong together. Throws InvalidState otherwise.
  DatagramTransport& transport() const;

 private:
  friend class DatagramTransport;
  DatagramTransport* transport_ = nullptr;
};

// Makes the protocol of an endpoint.
using DatagramProtocolFactory = absl::AnyInvocable<std::unique_ptr<DatagramProtocol>()>;

// An open datagram socket.
//
// Life:      made -> (SendTo | PauseReading | ...)* -> Close or Abort -> ConnectionLost -> inert -> destroyed
// Threading: the loop's. No callback of the protocol comes inside a call to its transport, but PauseWriting and
//            ErrorReceived, inside SendTo.
// Context:   as of a Transport (transport.h).
// Lifetime:  owned through a DatagramTransportPtr, which may be dropped at any time, also in a callback: that aborts an
//            endpoint which is not closed yet, with a warning; ConnectionLost still follows.
class DatagramTransport {
 public:
  struct Deleter {
    void operator()(DatagramTransport* transport) const { transport->Destroy(); }
  };

  DatagramTransport() = default;
  DatagramTransport(const DatagramTransport&) = delete;
  DatagramTransport& operator=(const DatagramTransport&) = delete;

  virtual EventLoop& loop() = 0;

  // ---- sending. At once if nothing waits and the system takes it, else behind what waits (C-DGM-02). It never fails:
  // see ErrorReceived. After Close() it is still sent while earlier ones wait, and vanishes once the endpoint is lost
  // (C-DGM-07). An empty datagram is one (D-5).
  // To the remote address of the endpoint; without one the error is EDESTADDRREQ.
  virtual void SendTo(absl::Span<const char> data) = 0;
  // Throws InvalidState where the endpoint has another remote address (C-DGM-03).
  virtual void SendTo(absl::Span<const char> data, const SocketAddress& to) = 0;
  // Text, up to its NUL: literals.
  void SendTo(const char* text);
  void SendTo(const char* text, const SocketAddress& to);

  // As of a Transport. Each datagram that waits counts for its bytes and kHeaderBytes.
  static constexpr size_t kHeaderBytes = 8;
  virtual absl::Status SetWriteBufferLimits(WriteBufferLimits limits) = 0;
  virtual size_t write_high_mark() const = 0;
  virtual size_t write_low_mark() const = 0;
  virtual size_t write_buffer_size() const = 0;

  // ---- receiving. While paused the system keeps what fits its receive buffer and loses the rest. Both are idempotent and
  // do nothing once the transport is closing.
  virtual void PauseReading() = 0;
  virtual void ResumeReading() = 0;
  virtual bool is_reading() const = 0;  // neither paused nor closing

  // ---- the end. ConnectionLost follows through the loop, never inside these calls.
  // Stops receiving, sends what waits, then ends (C-DGM-06).
  virtual void Close() = 0;
  // Drops what waits.
  virtual void Abort() = 0;
  virtual bool is_closing() const = 0;
  // Returns when ConnectionLost has returned; any number may wait.
  virtual Task<void> Closed() = 0;

  // ---- the protocol, which the transport owns.
  virtual DatagramProtocol& protocol() = 0;
  // `protocol` receives what comes next; it hears no ConnectionMade. The old one is destroyed later, by the loop.
  virtual void SetProtocol(std::unique_ptr<DatagramProtocol> protocol) = 0;

  // ---- addresses, also after the end; AF_UNSPEC where there is none.
  virtual const SocketAddress& local() const = 0;
  virtual const SocketAddress& remote() const = 0;  // the one that SendTo(data) sends to
  virtual int descriptor() const = 0;               // -1: closed
  virtual std::string DebugString() const = 0;

 protected:
  virtual ~DatagramTransport() = default;
  virtual void Destroy() = 0;
  static void Attach(DatagramProtocol& protocol, DatagramTransport* transport) { protocol.transport_ = transport; }
};

using DatagramTransportPtr = std::unique_ptr<DatagramTransport, DatagramTransport::Deleter>;

// A given socket excludes all else. Without any address, `family` says of which kind the socket is.
struct DatagramOptions {
  // Where to receive: "[::1]:7000", "localhost:7000", ":7000" (every interface), "unix:/run/x.sock",
  // "unix-abstract:x". A stale file of a Unix path is removed.
  absl::string_view local = {};
  std::optional<SocketAddress> local_address = std::nullopt;  // the same, as an address
  // Where everything goes, and the only one who is heard.
  absl::string_view remote = {};
  std::optional<SocketAddress> remote_address = std::nullopt;
  int family = 0;           // AF_INET or AF_INET6: leaves out the other one's addresses. AF_UNIX
  bool reuse_port = false;  // others may receive at the same port, each its share of the senders
  // Broadcasts may be sent. The remote address is then only where SendTo(data) sends to: anyone is heard (C-DGM-10).
  bool allow_broadcast = false;
  // A datagram socket that came from elsewhere, connected or not. It is taken over, unless it is refused with
  // INVALID_ARGUMENT.
  int socket = -1;
};
static_assert(std::is_trivially_destructible_v<DatagramOptions>);

// `protocol` belongs to `transport`.
template <class P = DatagramProtocol>
struct DatagramEndpoint {
  DatagramTransportPtr transport;
  P* protocol = nullptr;
};

namespace internal {

Task<absl::StatusOr<DatagramEndpoint<>>> OpenDatagramEndpoint(EventLoop& loop, DatagramProtocolFactory factory,
                                                              const DatagramOptions& options);

template <class P>
Task<absl::StatusOr<DatagramEndpoint<P>>> OpenTyped(Task<absl::StatusOr<DatagramEndpoint<>>> opening) {
  absl::StatusOr<DatagramEndpoint<>> opened = co_await std::move(opening);
  if (!opened.ok()) co_return opened.status();
  auto* protocol = static_cast<P*>(opened->protocol);
  DatagramEndpoint<P> typed{std::move(opened->transport), protocol};
  co_return typed;
}

}  // namespace internal

// Tries the addresses in the resolver's order; `factory` (which returns a unique_ptr to a protocol) is called once a
// socket is there. On return ConnectionMade has been called. INVALID_ARGUMENT: the options make no sense (C-DGM-08);
// NOT_FOUND: no such host; otherwise the first address's error (C-DGM-09). What the factory throws passes through. The
// options are copied before this returns. Threading: the loop's; cancelling gives up and closes what was open.
template <class Factory>
auto CreateDatagramEndpoint(EventLoop& loop, Factory&& factory, const DatagramOptions& options) {
  internal::CheckFactory<Factory>();
  using P = typename std::invoke_result_t<std::decay_t<Factory>&>::element_type;
  return internal::OpenTyped<P>(
      internal::OpenDatagramEndpoint(loop, DatagramProtocolFactory(std::forward<Factory>(factory)), options));
}

}  // namespace troupe

#endif  // TROUPE_NET_DATAGRAM_H_
