// StreamTransport: a Transport over a connected stream socket, TCP or Unix.
//
// Users get theirs from CreateConnection (connect.h) and CreateServer (stream_server.h). Make one directly for a socket
// that came from elsewhere: inherited, passed over a Unix socket, a socket pair.
//
// Threading, lifetime: as Transport.
#ifndef TROUPE_NET_STREAM_TRANSPORT_H_
#define TROUPE_NET_STREAM_TRANSPORT_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "troupe/base/socket_address.h"
#include "troupe/loop/event_loop.h"
#include "troupe/loop/fd_watcher.h"
#include "troupe/net/internal/byte_transport.h"
#include "troupe/net/protocol.h"
#include "troupe/net/transport.h"
#include "troupe/os/os.h"

namespace troupe {
namespace internal {

// The watcher comes first: what readiness touches is then in the same cache lines as what reading does.
class StreamTransport final : private FdWatcher, public ByteTransport {
 public:
  // Takes `fd` over. `peer`: as accept(2) gave it; null: the kernel is asked.
  StreamTransport(EventLoop& loop, int fd, std::unique_ptr<BaseProtocol> protocol, const SocketAddress* peer = nullptr);

  const SocketAddress& peer() const override { return peer_; }
  const SocketAddress& local() const override { return local_; }
  int descriptor() const override { return open_ ? fd() : -1; }
  SendfileMode sendfile_mode() const override { return SendfileMode::kNative; }

 private:
  ~StreamTransport() override;

  Os& os() { return watcher_loop_.os(); }
  int64_t DeviceSend(absl::Span<const iovec> pieces) override { return os().Send(fd(), pieces); }
  int64_t DeviceReceive(absl::Span<char> bytes) override { return os().Recv(fd(), bytes); }
  int DeviceWatch(uint32_t interest) override { return FdWatcher::Watch(interest); }
  void DeviceShutdownWrite() override;
  int64_t DeviceSendFile(int file, int64_t offset, int64_t bytes_max) override {
    return os().SendFile(fd(), file, offset, bytes_max);
  }
  void DeviceClose() override;
  std::string DescribeDevice() const override;

  void OnReadable() override { ByteTransport::OnReadable(); }
  void OnWritable() override { ByteTransport::OnWritable(); }
  std::string DescribeWatcher() const override { return DebugString(); }

  SocketAddress local_;
  SocketAddress peer_;
  bool open_ = true;
};

// Makes sure that `fd`, which came from elsewhere, is a stream socket, and makes it non-blocking. INVALID_ARGUMENT: it is
// not, and stays as it was.
absl::Status AdoptStreamSocket(Os& os, int fd);

}  // namespace internal

// Takes over `fd`, a connected, non-blocking stream socket. ConnectionMade is queued.
TransportPtr MakeStreamTransport(EventLoop& loop, int fd, std::unique_ptr<BaseProtocol> protocol);

}  // namespace troupe

#endif  // TROUPE_NET_STREAM_TRANSPORT_H_
