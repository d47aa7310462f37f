// SockRecv, SockSendAll, SockConnect, SockAccept ...: the operations of a socket as things to await, without a transport.
//
// For porting code that was written against descriptors, and for the few protocols that no transport fits. Everything
// else is simpler and faster as a Protocol (protocol.h) on a Transport.
//
//   const int fd = loop.os().Socket(AF_INET, SOCK_STREAM);
//   CO_RETURN_IF_ERROR(co_await SockConnect(loop, fd, "kv.example:7000"));
//   CO_RETURN_IF_ERROR(co_await SockSendAll(loop, fd, absl::string_view("PING\r\n")));
//   absl::StatusOr<std::string> reply = co_await SockRecv(loop, fd, 4096);
//
// Each is tried at once and waits only where it would block (C-SCK-04). The descriptor stays the caller's, to close too;
// it must not block (in debug mode one that does is INVALID_ARGUMENT, C-DBG-05) and must not be a transport's, which
// throws InvalidState (C-TRN-14). It is watched as by AddReader and AddWriter: one operation of each direction at a time.
// A second one takes the watch over from the first, as does AddReader, and the first then waits until it is cancelled.
//
// Threading:    the loop's, which is the running one.
// Lifetime:     buffers outlive the operation. Do not close the descriptor under it: cancel it first.
// Cancellation: ends the wait, and the descriptor is no longer watched. What was to be received or accepted is still
//               there for the next call; of what was to be sent an unknown part is gone.
#ifndef TROUPE_NET_SOCKETS_H_
#define TROUPE_NET_SOCKETS_H_

#include <cstddef>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "troupe/async/task.h"
#include "troupe/base/socket_address.h"
#include "troupe/loop/event_loop.h"
#include "troupe/os/os.h"

namespace troupe {

// What has arrived, at least a byte and at most `bytes_max`; "" at the end of the stream.
Task<absl::StatusOr<std::string>> SockRecv(EventLoop& loop, int fd, size_t bytes_max);
// Into `bytes`: how many; 0 at the end of the stream.
Task<absl::StatusOr<size_t>> SockRecvInto(EventLoop& loop, int fd, absl::Span<char> bytes);

// Returns when the kernel has taken all of `bytes`, at once if there are none. After an error it is unknown how many.
Task<absl::Status> SockSendAll(EventLoop& loop, int fd, absl::Span<const char> bytes);

struct ReceivedFrom {
  size_t bytes = 0;  // of the datagram; more than there was room for if it was cut
  SocketAddress from;
};
// One datagram.
Task<absl::StatusOr<ReceivedFrom>> SockRecvFrom(EventLoop& loop, int fd, absl::Span<char> bytes);
Task<absl::Status> SockSendTo(EventLoop& loop, int fd, absl::Span<const char> bytes, const SocketAddress& to);

Task<absl::Status> SockConnect(EventLoop& loop, int fd, const SocketAddress& address);
// `target`: "host:port", "[::1]:port", "unix:/path", "unix-abstract:name". A name is resolved in the socket's family, and
// its first address is taken (C-SCK-09).
Task<absl::Status> SockConnect(EventLoop& loop, int fd, absl::string_view target);

// A connection that was accepted. It is closed with this, unless somebody has taken it: so none is left behind by a task
// whose outcome nobody waits for any more.
class Accepted {
 public:
  Accepted() = default;
  Accepted(Os& os, int fd, const SocketAddress& peer) : os_(&os), fd_(fd), peer_(peer) {}
  Accepted(Accepted&& other) noexcept : os_(other.os_), fd_(other.Release()), peer_(other.peer_) {}
  Accepted& operator=(Accepted&& other) noexcept;
  ~Accepted();

  int fd() const { return fd_; }  // does not block (C-SCK-10); -1: taken
  const SocketAddress& peer() const { return peer_; }
  // The descriptor is the caller's from now on, to close too: for ConnectAcceptedSocket (connect.h), for instance.
  [[nodiscard]] int Release() { return std::exchange(fd_, -1); }

 private:
  Os* os_ = nullptr;
  int fd_ = -1;
  SocketAddress peer_;
};
Task<absl::StatusOr<Accepted>> SockAccept(EventLoop& loop, int fd);

}  // namespace troupe

#endif  // TROUPE_NET_SOCKETS_H_
