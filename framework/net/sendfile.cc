#include "troupe/net/sendfile.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <coroutine>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "troupe/async/blocking.h"
#include "troupe/async/internal/root.h"
#include "troupe/base/errors.h"
#include "troupe/base/os_error.h"
#include "troupe/base/status_macros.h"
#include "troupe/net/internal/byte_transport.h"
#include "troupe/net/internal/file_sending.h"
#include "troupe/net/internal/readiness_wait.h"
#include "troupe/net/protocol.h"
#include "troupe/net/sockets.h"
#include "troupe/os/os.h"

namespace troupe {
namespace internal {
namespace {

// asyncio's blocks: SENDFILE_FALLBACK_READBUFFER_SIZE of sockets, and that of transports.
constexpr size_t kSocketBlockBytes = 256 << 10;
constexpr size_t kTransportBlockBytes = 16 << 10;
// One call of sendfile(2) reads from the disk on the loop's thread: it shall not for long.
constexpr int64_t kNativeBytesPerCall = 1 << 20;

bool IsUnsupported(int64_t result) { return result == -EINVAL || result == -ENOSYS || result == -EOPNOTSUPP; }

// How much of a part has been sent.
struct Progress {
  explicit Progress(const SendfileOptions& options) : offset(options.offset), count(options.count) {}
  // Of the next at most `bytes_max`, 0: all is sent.
  int64_t Next(int64_t bytes_max) const { return count.has_value() ? std::min(bytes_max, *count - sent) : bytes_max; }

  const int64_t offset;
  const std::optional<int64_t> count;
  int64_t sent = 0;
};

absl::Status CheckPart(Os& os, int file, const SendfileOptions& options) {
  if (options.offset < 0) {
    return absl::InvalidArgumentError(absl::StrCat("offset must be a non-negative integer, got ", options.offset));
  }
  if (options.count.has_value() && *options.count <= 0) {
    return absl::InvalidArgumentError(absl::StrCat("count must be a positive integer, got ", *options.count));
  }
  const int64_t bytes = os.FileBytes(file);
  if (bytes == -EINVAL || bytes == -EBADF) {
    return absl::InvalidArgumentError(absl::StrCat("a regular file was expected, got descriptor ", file, ": ",
                                                   ErrnoText(static_cast<int>(-bytes))));
  }
  return bytes < 0 ? OsError(static_cast<int>(bytes), "sendfile") : absl::OkStatus();
}

// On a worker.
absl::StatusOr<int64_t> ReadAt(Os& os, int file, int64_t offset, absl::Span<char> block) {
  const int64_t read = os.ReadAt(file, offset, block);
  if (read < 0) return OsError(static_cast<int>(read), "sendfile: read");
  return read;
}

absl::Status Unsupported(int error) {
  return absl::UnimplementedError(
      absl::StrCat("the kernel cannot send this file, and fallback is off: ", ErrnoText(error)));
}

// What ConnectionLost is told, or that it was closed.
absl::Status LostStatus(const absl::Status& reason) {
  return reason.ok() ? absl::UnavailableError("the connection was closed while a file was being sent") : reason;
}

// ---------------------------------------------------------------------------------------------------- transports

// The kernel sends the file, piece by piece, as the socket takes it. Awaited once.
class NativeSending final : public FileSending, public Leaf {
 public:
  NativeSending(ByteTransport& transport, int file, const SendfileOptions& options)
      : FileSending(transport), file_(file), progress_(options) {}

  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<>) {
    Suspend();
    WantRoom(true);
  }
  void await_resume() { Resumed(); }
  std::string DescribeWait() const override { return absl::StrCat("Sendfile, ", progress_.sent, " bytes sent"); }

  // The kernel did not want to begin.
  bool unsupported() const { return lost_.ok() && progress_.sent == 0 && IsUnsupported(error_); }
  absl::StatusOr<int64_t> outcome() const {
    if (done_ && error_ == 0) return progress_.sent;
    if (!lost_.ok()) return lost_;
    if (unsupported()) return Unsupported(static_cast<int>(-error_));
    return OsError(static_cast<int>(error_), "sendfile");
  }

 private:
  void OnRoom() override {
    const int64_t bytes_max = progress_.Next(kNativeBytesPerCall);
    const int64_t sent = transport()->SendFromFile(file_, progress_.offset + progress_.sent, bytes_max);
    if (transport() == nullptr || sent == -EAGAIN) return;
    if (sent < 0) error_ = sent;
    if (sent > 0) progress_.sent += sent;
    if (sent > 0 && progress_.Next(1) > 0) return;
    done_ = true;
    WantRoom(false);
    Wake();
  }
  void OnLost() override {
    lost_ = LostStatus(transport()->lost_reason());
    if (suspended()) Wake();
  }
  void CancelWait() override {
    WantRoom(false);
    WakeCancelled();
  }

  const int file_;
  Progress progress_;
  int64_t error_ = 0;
  bool done_ = false;
  absl::Status lost_;
};

// Takes the place of a transport's protocol while a file is copied: it hears of flow control only (C-SND-12).
class CopyProtocol final : public Protocol {
 public:
  class Listener {
   public:
    virtual void OnPaused(bool paused) = 0;

   protected:
    ~Listener() = default;
  };
  explicit CopyProtocol(Listener& listener) : listener_(&listener) {}
  // It may outlive the listener by the callback in which that goes.
  void Forget() { listener_ = nullptr; }

  void DataReceived(absl::Span<const char>) override { throw InvalidState("nothing is received while a file is sent"); }
  bool EofReceived() override { throw InvalidState("nothing is received while a file is sent"); }
  void PauseWriting() override {
    if (listener_ != nullptr) listener_->OnPaused(true);
  }
  void ResumeWriting() override {
    if (listener_ != nullptr) listener_->OnPaused(false);
  }

 private:
  Listener* listener_;
};

// Holds a transport whose file is copied, and gives back what it borrowed.
class Copying final : public FileSending, private CopyProtocol::Listener {
 public:
  explicit Copying(ByteTransport& transport)
      : FileSending(transport), paused_(transport.writing_is_paused()), original_told_paused_(paused_) {
    CopyProtocol::Listener& listener = *this;
    auto protocol = std::make_unique<CopyProtocol>(listener);
    protocol_ = protocol.get();
    original_ = transport.ExchangeProtocol(std::move(protocol));
    Begin();
  }
  ~Copying() {
    if (transport() != nullptr) GiveBack(*transport());
  }

  // Waits until the transport wants more; also until it is lost.
  class Room final : public Leaf {
   public:
    explicit Room(Copying& copying) : copying_(copying) {}
    ~Room() { copying_.waiter_ = nullptr; }
    bool await_ready() const noexcept { return !copying_.paused_ || copying_.transport() == nullptr; }
    void await_suspend(std::coroutine_handle<>) {
      copying_.waiter_ = this;
      Suspend();
    }
    void await_resume() { Resumed(); }
    std::string DescribeWait() const override { return "Sendfile, for room to write"; }

   private:
    friend class Copying;
    void CancelWait() override {
      copying_.waiter_ = nullptr;
      WakeCancelled();
    }
    Copying& copying_;
  };
  Room WaitForRoom() { return Room(*this); }

  const absl::Status& lost() const { return lost_; }
  // False: the connection is lost.
  bool Write(absl::Span<const char> bytes) {
    if (transport() != nullptr) transport()->WriteOfFile(bytes);
    return transport() != nullptr;
  }

 private:
  void OnPaused(bool paused) override {
    paused_ = paused;
    if (!paused) WakeWaiter();
  }
  void OnLost() override {
    lost_ = LostStatus(transport()->lost_reason());
    GiveBack(*transport());
    WakeWaiter();
  }
  void WakeWaiter() {
    if (waiter_ != nullptr) std::exchange(waiter_, nullptr)->Wake();
  }
  void GiveBack(ByteTransport& transport) {
    // Somebody else's by now: then the one that was borrowed is not wanted any more.
    if (&transport.protocol() != protocol_) return;
    protocol_->Forget();
    transport.PutProtocolBack(std::move(original_), original_told_paused_);
  }

  bool paused_;
  const bool original_told_paused_;  // what the protocol that was borrowed from heard last
  CopyProtocol* protocol_ = nullptr;
  std::unique_ptr<BaseProtocol> original_;
  Room* waiter_ = nullptr;
  absl::Status lost_;
};

Task<absl::StatusOr<int64_t>> CopyOver(ByteTransport& transport, int file, SendfileOptions options) {
  Os& os = transport.loop().os();
  Copying copying(transport);
  Progress progress(options);
  std::vector<char> block(kTransportBlockBytes);
  while (true) {
    const auto wanted = static_cast<size_t>(progress.Next(kTransportBlockBytes));
    if (wanted == 0) co_return progress.sent;
    const absl::StatusOr<int64_t> read = co_await Blocking(
        [&] { return ReadAt(os, file, progress.offset + progress.sent, absl::MakeSpan(block.data(), wanted)); });
    if (!copying.lost().ok()) co_return copying.lost();
    CO_RETURN_IF_ERROR(read.status());
    if (*read == 0) co_return progress.sent;
    Copying::Room room(copying);
    co_await room;
    if (!copying.Write(absl::MakeConstSpan(block.data(), static_cast<size_t>(*read)))) co_return copying.lost();
    progress.sent += *read;
  }
}

// ---------------------------------------------------------------------------------------------------- sockets

// What it has sent is in `progress`; 0, or a negative errno.
Task<int64_t> SendNatively(EventLoop& loop, int socket, int file, Progress& progress) {
  Os& os = loop.os();
  while (true) {
    const int64_t wanted = progress.Next(kNativeBytesPerCall);
    if (wanted == 0) co_return 0;
    const int64_t sent = os.SendFile(socket, file, progress.offset + progress.sent, wanted);
    if (sent == 0 || (sent < 0 && sent != -EAGAIN)) co_return sent;
    if (sent > 0) progress.sent += sent;
    // Also after a success: one that is always ready shall not hold the loop.
    ReadinessWait writable(loop, socket, kWritable, "SockSendfile");
    if (const int watched = writable.Watch(); watched != 0) co_return watched;
    co_await writable;
  }
}

Task<absl::StatusOr<int64_t>> CopyTo(EventLoop& loop, int socket, int file, Progress& progress) {
  Os& os = loop.os();
  std::vector<char> block(kSocketBlockBytes);
  while (true) {
    const auto wanted = static_cast<size_t>(progress.Next(kSocketBlockBytes));
    if (wanted == 0) co_return progress.sent;
    const absl::StatusOr<int64_t> read = co_await Blocking(
        [&] { return ReadAt(os, file, progress.offset + progress.sent, absl::MakeSpan(block.data(), wanted)); });
    CO_RETURN_IF_ERROR(read.status());
    if (*read == 0) co_return progress.sent;
    const absl::Span<const char> bytes = absl::MakeConstSpan(block.data(), static_cast<size_t>(*read));
    CO_RETURN_IF_ERROR(co_await SockSendAll(loop, socket, bytes));
    progress.sent += *read;
  }
}

}  // namespace
}  // namespace internal

Task<absl::StatusOr<int64_t>> Sendfile(Transport& transport, int file, SendfileOptions options) {
  const SendfileMode mode = transport.sendfile_mode();
  if (mode == SendfileMode::kNone) {
    throw InvalidState(absl::StrCat("sendfile is not supported for transport ", transport.DebugString()));
  }
  auto& bytes = static_cast<internal::ByteTransport&>(transport);
  bytes.CheckMaySendFile();
  if (mode == SendfileMode::kCopied && !options.fallback) {
    throw InvalidState(absl::StrCat("fallback is disabled and native sendfile is not supported for transport ",
                                    transport.DebugString()));
  }
  CO_RETURN_IF_ERROR(internal::CheckPart(transport.loop().os(), file, options));
  if (mode == SendfileMode::kNative) {
    internal::NativeSending native(bytes, file, options);
    co_await native;
    if (!native.unsupported() || !options.fallback) co_return native.outcome();
  }
  co_return co_await internal::CopyOver(bytes, file, options);
}

Task<absl::StatusOr<int64_t>> SockSendfile(EventLoop& loop, int socket, int file, SendfileOptions options) {
  const int family = loop.os().AdoptSocket(socket, SOCK_STREAM);
  if (family < 0) {
    co_return absl::InvalidArgumentError(
        absl::StrCat("only stream sockets are supported, got descriptor ", socket, ": ", ErrnoText(-family)));
  }
  CO_RETURN_IF_ERROR(internal::CheckPart(loop.os(), file, options));
  internal::Progress progress(options);
  const int64_t result = co_await internal::SendNatively(loop, socket, file, progress);
  if (result == 0) co_return progress.sent;
  if (progress.sent > 0 || !internal::IsUnsupported(result)) co_return OsError(static_cast<int>(result), "sendfile");
  if (!options.fallback) co_return internal::Unsupported(static_cast<int>(-result));
  co_return co_await internal::CopyTo(loop, socket, file, progress);
}

}  // namespace troupe
