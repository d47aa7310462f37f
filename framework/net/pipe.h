// ConnectReadPipe, ConnectWritePipe: transports over one direction of a pipe, a socket or a character device that came
// from elsewhere: standard input and output, a FIFO, a terminal.
//
//   auto input = co_await troupe::ConnectReadPipe(loop, [] { return std::make_unique<Lines>(); }, STDIN_FILENO);
//
// To run a program and talk to it, use a subprocess (subprocess.h, process.h). The rules are those of every Transport,
// but for these:
//   reading  Write and WriteEof throw InvalidState. The end of the pipe is EofReceived, then ConnectionLost(OK), whatever
//            EofReceived returns. A terminal that was closed ends with its error, EIO (C-PIP-02).
//   writing  Nothing is received. WriteEof is Close, and what is written after it is dropped (C-PIP-04). That nobody
//            reads any more is noticed without writing, from pipes and sockets: ConnectionLost with OK, or UNAVAILABLE
//            where something was left to write. What the peer of a socket sends is dropped.
// There are no addresses.
//
// Threading, lifetime: as Transport.
#ifndef TROUPE_NET_PIPE_H_
#define TROUPE_NET_PIPE_H_

#include <cerrno>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "troupe/async/task.h"
#include "troupe/base/socket_address.h"
#include "troupe/loop/event_loop.h"
#include "troupe/loop/fd_watcher.h"
#include "troupe/loop/runnable.h"
#include "troupe/net/connect.h"
#include "troupe/net/internal/byte_transport.h"
#include "troupe/net/protocol.h"
#include "troupe/net/transport.h"
#include "troupe/os/os.h"

namespace troupe {
namespace internal {

enum class PipeSide : uint8_t { kReading, kWriting };

class PipeTransport final : private FdWatcher, public ByteTransport {
 public:
  // Takes `fd` over, which Os::AdoptPipe has taken in or MakePipe has made.
  PipeTransport(EventLoop& loop, int fd, std::unique_ptr<BaseProtocol> protocol, PipeSide side);

  const SocketAddress& peer() const override { return nowhere_; }
  const SocketAddress& local() const override { return nowhere_; }
  int descriptor() const override { return open_ ? fd() : -1; }

 private:
  // Turns of a device that no poller takes since it is always ready, as /dev/null is.
  class Turn final : public troupe::Runnable {
   public:
    explicit Turn(PipeTransport& transport) : transport_(transport) {}
    void Run() override { transport_.TakeTurn(); }
    std::string Describe() const override { return transport_.DebugString(); }

   private:
    PipeTransport& transport_;
  };

  ~PipeTransport() override;

  Os& os() { return watcher_loop_.os(); }
  int64_t DeviceSend(absl::Span<const iovec> pieces) override { return Seen(os().Write(fd(), pieces)); }
  int64_t DeviceReceive(absl::Span<char> bytes) override { return Seen(os().Read(fd(), bytes)); }
  int64_t Seen(int64_t result) {
    would_block_ = result == -EAGAIN;
    return result;
  }
  int DeviceWatch(uint32_t interest) override;
  void DeviceShutdownWrite() override {}  // Close does it
  void DeviceClose() override;
  std::string DescribeDevice() const override;

  void OnReadable() override;
  void OnWritable() override { ByteTransport::OnWritable(); }
  std::string DescribeWatcher() const override { return DebugString(); }

  void TakeTurn();
  // Somebody who only writes: has the reader gone? False: no more will be heard, or it was something else.
  bool ReaderHasGone();

  const SocketAddress nowhere_;
  const PipeSide side_;
  bool open_ = true;
  bool is_socket_ = false;  // of a writer
  bool hears_ = true;       // the reader's end, as a writer
  bool polled_ = true;      // by the loop's poller
  uint32_t wanted_ = 0;
  bool would_block_ = false;  // the last call
  Turn turn_{*this};
  TimerHandle later_;  // for a turn
};

Task<absl::StatusOr<Connected<>>> ConnectPipe(EventLoop& loop, ProtocolFactory factory, int fd, PipeSide side);

template <class Factory>
auto ConnectPipeTyped(EventLoop& loop, Factory&& factory, int fd, PipeSide side) {
  CheckFactory<Factory>();
  using P = typename std::invoke_result_t<std::decay_t<Factory>&>::element_type;
  return ConnectTyped<P>(ConnectPipe(loop, ProtocolFactory(std::forward<Factory>(factory)), fd, side));
}

}  // namespace internal

// Reads `fd`. On return ConnectionMade has been called. INVALID_ARGUMENT: it is no pipe, socket or character device
// (C-PIP-01), and is left as it was; otherwise it is taken over, and does not block from then on.
template <class Factory>
auto ConnectReadPipe(EventLoop& loop, Factory&& factory, int fd) {
  return internal::ConnectPipeTyped(loop, std::forward<Factory>(factory), fd, internal::PipeSide::kReading);
}

// Writes to `fd`; the same.
template <class Factory>
auto ConnectWritePipe(EventLoop& loop, Factory&& factory, int fd) {
  return internal::ConnectPipeTyped(loop, std::forward<Factory>(factory), fd, internal::PipeSide::kWriting);
}

}  // namespace troupe

#endif  // TROUPE_NET_PIPE_H_
