#include "troupe/net/stream_transport.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "troupe/base/os_error.h"

namespace troupe {
namespace internal {

// A connection costs this much of our memory beside its protocol; the design's bound is 1 KiB.
static_assert(sizeof(StreamTransport) <= 640);

StreamTransport::StreamTransport(EventLoop& loop, int fd, std::unique_ptr<BaseProtocol> protocol,
                                 const SocketAddress* peer)
    : FdWatcher(loop, fd), ByteTransport(loop, "socket transport", std::move(protocol)) {
  // Either may fail when the peer is gone already: then there is none (C-TRN-03).
  os().LocalAddress(fd, &local_);
  if (peer != nullptr) {
    peer_ = *peer;
  } else {
    os().PeerAddress(fd, &peer_);
  }
  if (local_.is_ip()) os().SetSocketOption(fd, IPPROTO_TCP, TCP_NODELAY, 1);  // C-TRN-12
}

StreamTransport::~StreamTransport() { StreamTransport::DeviceClose(); }

void StreamTransport::DeviceShutdownWrite() {
  // Fails when the peer has reset the connection, which reading or the next write will report.
  os().ShutdownWrite(fd());
}

void StreamTransport::DeviceClose() {
  if (!std::exchange(open_, false)) return;
  FdWatcher::Release();
  os().Close(fd());
}

std::string StreamTransport::DescribeDevice() const {
  std::string text = absl::StrCat("fd=", descriptor());
  if (local_.family() != AF_UNSPEC) absl::StrAppend(&text, " ", local_.ToString());
  if (peer_.family() != AF_UNSPEC) absl::StrAppend(&text, " -> ", peer_.ToString());
  return text;
}

absl::Status AdoptStreamSocket(Os& os, int fd) {
  const int family = os.AdoptSocket(fd, SOCK_STREAM);
  if (family >= 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("A Stream Socket was expected, got descriptor ", fd, ": ", ErrnoText(-family)));
}

}  // namespace internal

TransportPtr MakeStreamTransport(EventLoop& loop, int fd, std::unique_ptr<BaseProtocol> protocol) {
  auto* transport = new internal::StreamTransport(loop, fd, std::move(protocol));
  TransportPtr owned(transport);
  transport->Start();
  return owned;
}

}  // namespace troupe
