// ByteTransport: the rules of a byte stream (CONTRACT.md, sections 10 to 13), over a device that sends and receives.
//
// Sockets (stream_transport.h), pairs over memory (memory_transport.h), pipes (pipe.h) and TLS (tls_transport.h) are
// devices; what users may rely on is written here once. A device behaves as a non-blocking socket does, and reports readiness
// level-triggered through OnReadable and OnWritable. A layer (TLS) is a device over another transport: it takes time to
// open and to close, holds bytes of its own, and has no half-open state.
//
// Life:      made -> [opening] -> Start (ConnectionMade is queued) -> ... -> [closing down] -> ending (ConnectionLost is
//            queued) -> lost -> destroyed
// Invariants: 1. Bytes are in `buffer_` only while the device takes no more; then it is watched for writing.
//            2. Nothing is sent or received once `conn_lost_` is not 0; one ConnectionLost follows.
//            3. The protocol is called from the loop only, PauseWriting excepted, and after such a call returned the
//               transport still exists: dropping it (Destroy) is deferred to the next step.
#ifndef TROUPE_NET_INTERNAL_BYTE_TRANSPORT_H_
#define TROUPE_NET_INTERNAL_BYTE_TRANSPORT_H_

#include <sys/uio.h>

#include <cerrno>
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
#include "troupe/net/internal/file_sending.h"
#include "troupe/net/internal/occurrence.h"
#include "troupe/net/internal/write_marks.h"
#include "troupe/net/transport.h"

namespace troupe::internal {

class ByteTransport;

// Who made a transport and keeps it until it is lost: a server.
class TransportOwner {
 public:
  // ConnectionLost has returned. The owner drops the transport.
  virtual void OnTransportLost(ByteTransport& transport) = 0;
  // `layer` takes the place of `transport`, over which it was made and which it owns from now on.
  virtual void OnTransportReplaced(ByteTransport& transport, ByteTransport& layer) = 0;

 protected:
  ~TransportOwner() = default;
};

class ByteTransport : public Transport, public ListNode<TransportOwner>, private Runnable {
 public:
  // Queues ConnectionMade. Once, first.
  void Start();
  // Waits until ConnectionMade has returned and reading has started: the last to know (C-TRN-01); or until the transport
  // was lost before that.
  Occurrence::Waiter Made() { return made_.Wait("ConnectionMade"); }
  // Another transport can be layered over it: it stands, and both directions are open.
  bool can_be_layered() const {
    return connection_made_ && !closing_ && !read_eof_ && !write_eof_ && file_ == nullptr;
  }
  // False: ConnectionMade has not been called, and if the transport is lost never will be.
  bool connection_made() const { return connection_made_; }
  // The status that ConnectionLost gets or got; OK before the end.
  const absl::Status& lost_reason() const { return reason_; }
  // `owner` owns this transport from now on.
  void set_owner(TransportOwner* owner) { owner_ = owner; }
  bool has_owner() const { return owner_ != nullptr; }
  // `layer`, made over this transport, stands at its owner's from now on, if it has one, and may pause as it did.
  void GivePlaceTo(ByteTransport& layer);

  // ---- a file in place of other writes: for who sends it (file_sending.h, sendfile.cc).
  // Throws InvalidState: closing, after WriteEof(), or another one is being sent.
  void CheckMaySendFile() const;
  // As Os::SendFile; a broken connection ends. REQUIRES: sendfile_mode() is kNative, and OnRoom runs.
  int64_t SendFromFile(int file, int64_t offset, int64_t bytes_max);
  // Write, for the one who may.
  void WriteOfFile(absl::Span<const char> bytes);
  // The protocol heard PauseWriting last.
  bool writing_is_paused() const { return paused_writing_; }
  // SetProtocol, with one that was there before and last heard PauseWriting (`told_paused`) or ResumeWriting: it hears of
  // what has changed since, from the loop.
  void PutProtocolBack(std::unique_ptr<BaseProtocol> protocol, bool told_paused);

  EventLoop& loop() final { return loop_; }
  using Transport::Write;
  void Write(absl::Span<const char> bytes) final;
  void Write(ByteQueue&& bytes) final;
  void Writev(absl::Span<const absl::Span<const char>> pieces) final;
  void WriteEof() final;
  bool CanWriteEof() const final { return !layer_ && device_ != DeviceKind::kReader; }
  absl::Status SetWriteBufferLimits(WriteBufferLimits limits) final;
  size_t write_high_mark() const final { return marks_.high; }
  size_t write_low_mark() const final { return marks_.low; }
  size_t write_buffer_size() const final { return layer_ ? buffer_.size() + DeviceBuffered() : buffer_.size(); }
  SendfileMode sendfile_mode() const override {
    return device_ == DeviceKind::kReader ? SendfileMode::kNone : SendfileMode::kCopied;
  }
  void PauseReading() final;
  void ResumeReading() final;
  bool is_reading() const final { return !paused_reading_ && !closing_ && device_ != DeviceKind::kWriter; }
  void Close() final;
  void Abort() final { End(absl::OkStatus()); }
  bool is_closing() const final { return closing_; }
  Task<void> Closed() final;
  BaseProtocol& protocol() final { return *protocol_; }
  std::unique_ptr<BaseProtocol> ExchangeProtocol(std::unique_ptr<BaseProtocol> protocol) final;
  std::string DebugString() const final;

 protected:
  // kReader and kWriter have one direction.
  enum class DeviceKind : uint8_t { kKernel, kLayer, kReader, kWriter };

  // `kind`: a literal, "socket transport", for messages.
  ByteTransport(EventLoop& loop, const char* kind, std::unique_ptr<BaseProtocol> protocol,
                DeviceKind device = DeviceKind::kKernel);
  ~ByteTransport() override;
  void Destroy() final;

  // ---- the device. Results as those of Os.
  virtual int64_t DeviceSend(absl::Span<const iovec> pieces) = 0;
  virtual int64_t DeviceReceive(absl::Span<char> bytes) = 0;
  // Reports these Readiness bits from now on, none included. 0 or -errno.
  virtual int DeviceWatch(uint32_t interest) = 0;
  virtual void DeviceShutdownWrite() = 0;
  virtual int64_t DeviceSendFile(int /*file*/, int64_t /*offset*/, int64_t /*bytes_max*/) { return -EOPNOTSUPP; }
  // No more calls follow. Safe to repeat.
  virtual void DeviceClose() = 0;
  // "fd=7 [::1]:40000 -> [::1]:7400"
  virtual std::string DescribeDevice() const = 0;

  // ---- a layer only.
  // Of the bytes that it has taken, those that the kernel has not.
  virtual size_t DeviceBuffered() const { return 0; }
  // Close() was called: what is left to send and to close down has a time limit from now on.
  virtual void DeviceClosing() {}
  // Everything is sent. True: the end may come now; false: End() follows.
  virtual bool DeviceFinish() { return true; }

  // ---- what a device reports, from the loop.
  void OnReadable();
  void OnWritable();

  // ---- what a pipe reports.
  // The device failed: only logged, and only in debug mode (C-TRN-08).
  void EndByOs(int error, absl::string_view what);
  // What it can be watched for has changed.
  void Watch();

  // ---- what a layer reports. It is opening when it is made.
  // Its protocol has had ConnectionMade from another transport: instead of Start().
  void StartMade();
  // Its protocol shall get ConnectionMade when it is open. For GivePlaceTo: the protocol has had it already.
  void set_connection_made() { connection_made_ = true; }
  // Ends the connection: drops what is buffered and queues ConnectionLost(reason), if there was a ConnectionMade. Once.
  void End(absl::Status reason);
  bool ended() const { return conn_lost_ != 0; }

 private:
  friend class FileSending;

  // ConnectionMade, ConnectionLost, deletion: one a time, in this order. What PutProtocolBack leaves to tell.
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
  void SentAll() {
    if (layer_) MaybePause();  // it may hold them
  }
  void MaybePause();
  void MaybeResume();
  void ShutdownWrite();

  void ReceiveBuffered();
  // What DeviceReceive gave, when it is no data.
  void OnNothingReceived(int64_t result);
  void OnEof();
  void DeliverMade();
  void DeliverLost();

  // The file that is being sent never will be.
  void LoseFile();
  // An error of sending `file`: writing would have given it too.
  bool IsOfTheSocket(int error, int file) const;
  // Nothing is left to send: the end, for a layer after it has closed down.
  void Finish();
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
  const DeviceKind device_;
  const bool layer_;
  bool opening_;            // a layer that is not open yet
  bool finishing_ = false;  // a layer that closes down: nothing more is written
  bool connection_made_ = false;
  bool orphaned_ = false;       // no TransportPtr any more
  bool writing_file_ = false;   // WriteOfFile runs
  uint8_t dropped_writes_ = 0;  // of a pipe that is closing, up to where they are logged
  WriteMarks marks_;
  FileSending* file_ = nullptr;  // while it is sent nobody else writes, and nothing is received
  TransportOwner* owner_ = nullptr;
  const char* const kind_;
  absl::Status reason_;
  Occurrence made_;
  Occurrence lost_;
};

}  // namespace troupe::internal

#endif  // TROUPE_NET_INTERNAL_BYTE_TRANSPORT_H_
