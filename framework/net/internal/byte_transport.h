// ByteTransport: the rules of a byte stream (CONTRACT.md, sections 10 to 13), over a device that sends and receives.
//
// Sockets (stream_transport.h) and pairs over memory (memory_transport.h) are devices; what users may rely on is
// written here once. A device behaves as a non-blocking socket does, and reports readiness level-triggered through
// OnReady.
//
// Life:      made -> Start (ConnectionMade is queued) -> ... -> ending (ConnectionLost is queued) -> lost -> destroyed
// Invariants: 1. Bytes are in `buffer_` only while the device takes no more; then it is watched for writing.
//            2. Nothing is sent or received once `conn_lost_` is not 0; one ConnectionLost follows.
//            3. The protocol is called from the loop only, PauseWriting excepted, and after such a call returned the
//               transport still exists: dropping it (Destroy) is deferred to the next step.
#ifndef TROUPE_NET_INTERNAL_BYTE_TRANSPORT_H_
#define TROUPE_NET_INTERNAL_BYTE_TRANSPORT_H_

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "troupe/base/byte_queue.h"
#include "troupe/base/intrusive_list.h"
#include "troupe/base/socket_address.h"
#include "troupe/loop/context.h"
#include "troupe/loop/runnable.h"
#include "troupe/net/internal/occurrence.h"
#include "troupe/net/transport.h"

namespace troupe::internal {

class ByteTransport;

// Who made a transport and keeps it until it is lost: a server.
class TransportOwner {
 public:
  // ConnectionLost has returned. The owner drops the transport.
  virtual void OnTransportLost(ByteTransport& transport) = 0;

 protected:
  ~TransportOwner() = default;
};

class ByteTransport : public Transport, public ListNode<TransportOwner>, private Runnable {
 public:
  // Queues ConnectionMade. Once, first.
  void Start();
  // Waits until ConnectionMade has returned and reading has started: the last to know (C-TRN-01).
  Occurrence::Waiter Made() { return made_.Wait("ConnectionMade"); }
  // The status that ConnectionLost gets or got; OK before the end.
  const absl::Status& lost_reason() const { return reason_; }
  // `owner` owns this transport from now on.
  void set_owner(TransportOwner* owner) { owner_ = owner; }

  EventLoop& loop() final { return loop_; }
  using Transport::Write;
  void Write(absl::Span<const char> bytes) final;
  void Write(ByteQueue&& bytes) final;
  void Writev(absl::Span<const absl::Span<const char>> pieces) final;
  void WriteEof() final;
  bool CanWriteEof() const final { return true; }
  absl::Status SetWriteBufferLimits(WriteBufferLimits limits) final;
  size_t write_high_mark() const final { return high_; }
  size_t write_low_mark() const final { return low_; }
  size_t write_buffer_size() const final { return buffer_.size(); }
  void PauseReading() final;
  void ResumeReading() final;
  bool is_reading() const final { return !paused_reading_ && !closing_; }
  void Close() final;
  void Abort() final { End(absl::OkStatus()); }
  bool is_closing() const final { return closing_; }
  Task<void> Closed() final;
  BaseProtocol& protocol() final { return *protocol_; }
  std::unique_ptr<BaseProtocol> ExchangeProtocol(std::unique_ptr<BaseProtocol> protocol) final;
  std::string DebugString() const final;

 protected:
  // `kind`: a literal, "socket transport", for messages.
  ByteTransport(EventLoop& loop, const char* kind, std::unique_ptr<BaseProtocol> protocol);
  ~ByteTransport() override;
  void Destroy() final;

  // ---- the device. Results as those of Os.
  virtual int64_t DeviceSend(absl::Span<const iovec> pieces) = 0;
  virtual int64_t DeviceReceive(absl::Span<char> bytes) = 0;
  // Reports these Readiness bits from now on, none included. 0 or -errno.
  virtual int DeviceWatch(uint32_t interest) = 0;
  virtual void DeviceShutdownWrite() = 0;
  // No more calls follow. Safe to repeat.
  virtual void DeviceClose() = 0;
  // "fd=7 [::1]:40000 -> [::1]:7400"
  virtual std::string DescribeDevice() const = 0;

  // ---- what a device reports, from the loop.
  void OnReadable();
  void OnWritable();

 private:
  // ConnectionMade, ConnectionLost, deletion: one a time, in this order.
  void Run() final;
  void Drop() noexcept final;
  std::string Describe() const final { return DebugString(); }
  void Step();

  bool MayWrite(bool empty);
  // Sends once from `pieces`; the number of bytes sent, or -1: the connection has failed.
  int64_t Send(absl::Span<const iovec> pieces);
  // Sends once from the buffer; false: the connection has failed.
  bool SendBuffered();
  void BufferedSome();
  void MaybePause();
  void MaybeResume();
  void ShutdownWrite();
  void Watch();

  void ReceiveBuffered();
  // What DeviceReceive gave, when it is no data.
  void OnNothingReceived(int64_t result);
  void OnEof();
  void DeliverMade();
  void DeliverLost();

  // Ends the connection: drops what is buffered and queues ConnectionLost(reason). Once.
  void End(absl::Status reason);
  // The device failed: only logged, and only in debug mode (C-TRN-08).
  void EndByOs(int error, absl::string_view what);
  // A callback threw: ends the connection and reports. REQUIRES: in a catch block.
  void EndByException(const char* callback);
  void ReportException(std::string message);

  // What every message touches comes first, so that it shares cache lines.
  EventLoop& loop_;
  Context context_;  // the protocol's: what one callback sets, the next one sees
  std::unique_ptr<BaseProtocol> protocol_;
  ByteQueue buffer_;
  uint8_t conn_lost_ = 0;  // as asyncio's: 0, then 1 and the writes since, up to where they are logged
  bool buffered_protocol_;
  bool closing_ = false;
  bool paused_reading_ = false;
  bool read_eof_ = false;
  bool write_eof_ = false;
  bool shut_down_ = false;
  bool paused_writing_ = false;
  bool connection_made_ = false;
  bool orphaned_ = false;  // no TransportPtr any more
  size_t high_ = 64 << 10;
  size_t low_ = 16 << 10;
  TransportOwner* owner_ = nullptr;
  const char* const kind_;
  absl::Status reason_;
  Occurrence made_;
  Occurrence lost_;
};

}  // namespace troupe::internal

#endif  // TROUPE_NET_INTERNAL_BYTE_TRANSPORT_H_
