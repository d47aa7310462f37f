// Sendfile, SockSendfile: send a file, or a part of it, over a transport or a socket; asyncio's sendfile.
//
//   const int file = co_await Blocking([&] { return loop.os().OpenFile(path); });   // opening may block
//   transport.Write(header);
//   absl::StatusOr<int64_t> sent = co_await troupe::Sendfile(transport, file);
//   transport.Write(trailer);
//
// Over a TCP or Unix socket the kernel sends it (sendfile(2)) and no byte passes through this process. Over anything else,
// TLS for instance, or where the kernel cannot, it is read in blocks on the loop's executor and written as any other bytes
// are, with flow control.
//
// Threading: the loop's. Lifetime: the file is the caller's and stays open until the task has ended; the transport may go
// before. Cancelling stops after what has been sent; a stream cut off in the middle of a file is best closed.
#ifndef TROUPE_NET_SENDFILE_H_
#define TROUPE_NET_SENDFILE_H_

#include <cstdint>
#include <optional>
#include <type_traits>

#include "absl/status/statusor.h"
#include "troupe/async/task.h"
#include "troupe/loop/event_loop.h"
#include "troupe/net/transport.h"

namespace troupe {

struct SendfileOptions {
  int64_t offset = 0;                           // where in the file to begin
  std::optional<int64_t> count = std::nullopt;  // at most this many bytes; else up to the end
  bool fallback = true;                         // false: refuse what the kernel cannot do
};
static_assert(std::is_trivially_destructible_v<SendfileOptions>);

// Sends `file`, an open regular file, behind what was written before (C-SND-03). Until it has ended Write throws
// (C-WR-08), and nothing is received. Gives the bytes sent, which the transport may still hold some of; fewer than `count`
// where the file ends first. INVALID_ARGUMENT: no such part of a file can be (C-SND-02); UNAVAILABLE: the connection ended
// or was closed in the middle (C-SND-10); UNIMPLEMENTED: the kernel cannot, and fallback is off; otherwise the system's
// error. Throws InvalidState on a transport that is closing, that cannot, or that sends another one (C-SND-01, C-SND-13).
Task<absl::StatusOr<int64_t>> Sendfile(Transport& transport, int file, SendfileOptions options = {});

// The same over `socket`, a connected stream socket that no transport has; it stays the caller's, and is made non-blocking.
// Nobody else writes to it meanwhile.
Task<absl::StatusOr<int64_t>> SockSendfile(EventLoop& loop, int socket, int file, SendfileOptions options = {});

}  // namespace troupe

#endif  // TROUPE_NET_SENDFILE_H_
