#include "troupe/net/pipe.h"

#include <cerrno>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "glog/logging.h"
#include "troupe/base/errors.h"
#include "troupe/base/monotonic_time.h"
#include "troupe/base/os_error.h"
#include "troupe/net/internal/read_buffer.h"

namespace troupe::internal {
namespace {

// What cannot be polled and would block is asked again after so long.
constexpr absl::Duration kAskAgain = absl::Milliseconds(10);

}  // namespace

PipeTransport::PipeTransport(EventLoop& loop, int fd, std::unique_ptr<BaseProtocol> protocol, PipeSide side)
    : FdWatcher(loop, fd),
      ByteTransport(loop, side == PipeSide::kReading ? "read pipe transport" : "write pipe transport",
                    std::move(protocol), side == PipeSide::kReading ? DeviceKind::kReader : DeviceKind::kWriter),
      side_(side) {
  SocketAddress peer;
  is_socket_ = side == PipeSide::kWriting && os().PeerAddress(fd, &peer) != -ENOTSOCK;
}

PipeTransport::~PipeTransport() { PipeTransport::DeviceClose(); }

int PipeTransport::DeviceWatch(uint32_t interest) {
  if (!hears_) interest &= ~uint32_t{kReadable};
  wanted_ = interest;
  if (polled_) {
    const int result = FdWatcher::Watch(interest);
    if (result != -EPERM) return result;
    polled_ = false;
    // Nobody reads what is written there.
    if (side_ == PipeSide::kWriting) hears_ = false;
  }
  if (side_ == PipeSide::kWriting) wanted_ &= ~uint32_t{kReadable};
  if (wanted_ == 0) {
    turn_.Unlink();
    later_.Cancel();
  } else if (!turn_.linked()) {
    watcher_loop_.Schedule(turn_);
  }
  return 0;
}

void PipeTransport::TakeTurn() {
  // Again as long as something is wanted, also after a Fatal.
  const absl::Cleanup again = [this] {
    if (wanted_ == 0 || watcher_loop_.IsClosed()) return;
    if (!would_block_) {
      if (!turn_.linked()) watcher_loop_.Schedule(turn_);
      return;
    }
    turn_.Unlink();
    later_ = watcher_loop_.CallLater(kAskAgain, [this] { TakeTurn(); });
  };
  later_.Cancel();
  would_block_ = false;
  (wanted_ & kReadable) != 0 ? OnReadable() : OnWritable();
}

void PipeTransport::DeviceClose() {
  if (!std::exchange(open_, false)) return;
  wanted_ = 0;
  turn_.Unlink();
  later_.Cancel();
  FdWatcher::Release();
  os().Close(fd());
}

std::string PipeTransport::DescribeDevice() const { return absl::StrCat("fd=", descriptor()); }

void PipeTransport::OnReadable() {
  if (side_ == PipeSide::kReading) return ByteTransport::OnReadable();
  if (!ReaderHasGone()) return ByteTransport::Watch();
  if (write_buffer_size() > 0) return EndByOs(EPIPE, "write");
  LOG_IF(INFO, loop().debug()) << DebugString() << " was closed by peer";
  End(absl::OkStatus());
}

bool PipeTransport::ReaderHasGone() {
  if (is_socket_) {
    ReadBuffer dropped;
    const int64_t received = os().Read(fd(), dropped.span());
    return received <= 0 && received != -EAGAIN;
  }
  // A terminal is readable when somebody types, and a FIFO that is open in both directions when there is something in it.
  // Only that the other end has gone is told to those who ask for nothing.
  PollEvent event;
  try {
    const std::unique_ptr<Poller> poller = os().NewPoller();
    if (poller->Add(fd(), 0, this) == 0 && poller->Wait(MonotonicTime(), absl::MakeSpan(&event, 1)) == 1) return true;
  } catch (const StatusError&) {
    // No descriptor is left for it. The next write will tell.
  }
  hears_ = false;
  return false;
}

Task<absl::StatusOr<Connected<>>> ConnectPipe(EventLoop& loop, ProtocolFactory factory, int fd, PipeSide side) {
  const int adopted = loop.os().AdoptPipe(fd);
  if (adopted != 0) {
    co_return absl::InvalidArgumentError(
        absl::StrCat("Pipe transport is only for pipes, sockets and character devices, got descriptor ", fd, ": ",
                     ErrnoText(adopted)));
  }
  absl::Cleanup close = [&loop, fd] { loop.os().Close(fd); };
  std::unique_ptr<BaseProtocol> protocol = factory();
  if (protocol == nullptr) throw InvalidState("the protocol factory returned null");
  std::move(close).Cancel();
  auto* transport = new PipeTransport(loop, fd, std::move(protocol), side);
  Connected<> made{TransportPtr(transport), &transport->protocol()};
  absl::Cleanup abort = [transport] { transport->Abort(); };
  transport->Start();
  co_await transport->Made();
  // ConnectionMade threw.
  if (!transport->lost_reason().ok()) co_return transport->lost_reason();
  std::move(abort).Cancel();
  co_return made;
}

}  // namespace troupe::internal
