#include "troupe/net/memory_transport.h"

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include "absl/types/span.h"
#include "troupe/base/byte_queue.h"
#include "troupe/base/socket_address.h"
#include "troupe/loop/runnable.h"
#include "troupe/net/internal/byte_transport.h"
#include "troupe/os/io_limit.h"

namespace troupe {
namespace {

class MemoryTransport final : public internal::ByteTransport {
 public:
  MemoryTransport(EventLoop& loop, std::unique_ptr<BaseProtocol> protocol, const char* name,
                  const MemoryTransportOptions& options)
      : ByteTransport(loop, "memory transport", std::move(protocol)), name_(name), options_(options) {}

  static void Connect(MemoryTransport& a, MemoryTransport& b) {
    a.other_ = &b;
    b.other_ = &a;
  }

  const SocketAddress& peer() const override { return nowhere_; }
  const SocketAddress& local() const override { return nowhere_; }
  int descriptor() const override { return -1; }

 private:
  // Readiness, queued as a descriptor's is.
  class Ready final : public troupe::Runnable {
   public:
    Ready(MemoryTransport& transport, bool writing) : transport_(transport), writing_(writing) {}
    void Run() override {
      // Level-triggered: again while there is more, also after a Fatal.
      struct Again {
        MemoryTransport& transport;
        ~Again() { transport.Notify(); }
      } again{transport_};
      writing_ ? transport_.OnWritable() : transport_.OnReadable();
    }
    std::string Describe() const override { return transport_.DebugString(); }

   private:
    MemoryTransport& transport_;
    const bool writing_;
  };

  ~MemoryTransport() override { MemoryTransport::DeviceClose(); }

  int64_t DeviceSend(absl::Span<const iovec> pieces) override {
    if (other_ == nullptr) return -EPIPE;
    size_t room = other_->Room();
    if (room == 0) return -EAGAIN;
    room = std::min(room, io_limit_.Next());
    int64_t sent = 0;
    for (const iovec& piece : pieces) {
      const size_t n = std::min(room, piece.iov_len);
      other_->inbox_.Append(absl::MakeConstSpan(static_cast<const char*>(piece.iov_base), n));
      sent += static_cast<int64_t>(n);
      room -= n;
    }
    other_->Notify();
    return sent;
  }

  int64_t DeviceReceive(absl::Span<char> bytes) override {
    const size_t n = std::min({bytes.size(), inbox_.size(), options_.delivery_bytes_max, io_limit_.Next()});
    if (n == 0) {
      if (reset_) return -ECONNRESET;
      return inbox_ended_ ? 0 : -EAGAIN;
    }
    inbox_.CopyTo(bytes.data(), n);
    inbox_.Consume(n);
    if (other_ != nullptr) other_->Notify();
    return static_cast<int64_t>(n);
  }

  int DeviceWatch(uint32_t interest) override {
    interest_ = interest;
    if ((interest & kReadable) == 0) readable_.Unlink();
    if ((interest & kWritable) == 0) writable_.Unlink();
    Notify();
    return 0;
  }

  void DeviceShutdownWrite() override {
    if (other_ == nullptr) return;
    other_->inbox_ended_ = true;
    other_->Notify();
  }

  void DeviceClose() override {
    MemoryTransport* other = std::exchange(other_, nullptr);
    if (other == nullptr) return;
    other->other_ = nullptr;
    other->inbox_ended_ = true;
    // As a kernel does: who closes without having read everything resets the connection.
    other->reset_ = !inbox_.empty();
    other->Notify();
    inbox_.Clear();
  }

  std::string DescribeDevice() const override { return name_; }

  size_t Room() const { return options_.pipe_bytes_max - inbox_.size(); }

  void Notify() {
    if (loop().IsClosed()) return;
    const bool readable = !inbox_.empty() || inbox_ended_;
    const bool writable = other_ == nullptr || other_->Room() > 0;
    if (readable && (interest_ & kReadable) != 0 && !readable_.linked()) loop().Schedule(readable_);
    if (writable && (interest_ & kWritable) != 0 && !writable_.linked()) loop().Schedule(writable_);
  }

  const char* const name_;
  const MemoryTransportOptions options_;
  const SocketAddress nowhere_;
  IoLimit io_limit_ = IoLimit::FromEnvironment();
  MemoryTransport* other_ = nullptr;  // null once either end has closed
  ByteQueue inbox_;                   // under way to this end
  bool inbox_ended_ = false;
  bool reset_ = false;
  uint32_t interest_ = 0;
  Ready readable_{*this, false};
  Ready writable_{*this, true};
};

}  // namespace

MemoryPair MakeMemoryPair(EventLoop& first_loop, std::unique_ptr<BaseProtocol> first, EventLoop& second_loop,
                          std::unique_ptr<BaseProtocol> second, const MemoryTransportOptions& options) {
  auto* a = new MemoryTransport(first_loop, std::move(first), "first end", options);
  TransportPtr owned_a(a);
  auto* b = new MemoryTransport(second_loop, std::move(second), "second end", options);
  TransportPtr owned_b(b);
  MemoryTransport::Connect(*a, *b);
  a->Start();
  b->Start();
  return {std::move(owned_a), std::move(owned_b)};
}

MemoryPair MakeMemoryPair(EventLoop& loop, std::unique_ptr<BaseProtocol> first, std::unique_ptr<BaseProtocol> second,
                          const MemoryTransportOptions& options) {
  return MakeMemoryPair(loop, std::move(first), loop, std::move(second), options);
}

}  // namespace troupe
