// Transport: one end of an open byte stream: a socket, a pair over memory, TLS over another transport.
//
// CreateConnection (connect.h) and CreateServer (stream_server.h) make them; a Protocol receives what they read.
// Writing never blocks and never fails: what cannot be sent at once is buffered, PauseWriting tells the protocol to
// hold back, and a connection that breaks is reported once, by ConnectionLost.
//
// Life:      made -> (Write | PauseReading | ...)* -> Close or Abort or lost -> ConnectionLost -> inert -> destroyed
// Threading: the loop's. No callback of the protocol comes inside a call to its transport, but PauseWriting.
// Context:   callbacks run in the one that was in force where the transport was made (for a server's connections: where
//            it began to listen), less its deadline; each transport has its own copy, and what a callback sets there the
//            next one sees. PauseWriting runs in the writer's.
// Lifetime:  owned through a TransportPtr, which may be dropped at any time, also in a callback of the protocol: that
//            aborts a connection which is not closed yet, with a warning (C-TRN-13); ConnectionLost still follows, from
//            the loop, and then the transport and its protocol are destroyed.
#ifndef TROUPE_NET_TRANSPORT_H_
#define TROUPE_NET_TRANSPORT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "troupe/async/task.h"
#include "troupe/base/byte_queue.h"
#include "troupe/base/socket_address.h"
#include "troupe/base/tls_info.h"
#include "troupe/loop/event_loop.h"
#include "troupe/net/protocol.h"

namespace troupe {

// Marks of the write buffer, in bytes. What is left out follows from the other (C-FLW-01): high = 4 * low,
// low = high / 4; with neither, 64 KiB and 16 KiB. {.high = 0} pauses whenever something is buffered.
struct WriteBufferLimits {
  std::optional<int64_t> high = std::nullopt;
  std::optional<int64_t> low = std::nullopt;
};

// How a file is sent over a transport (sendfile.h): not at all; in blocks that pass through this process; by the kernel,
// where it can.
enum class SendfileMode { kNone, kCopied, kNative };

class Transport {
 public:
  struct Deleter {
    void operator()(Transport* transport) const { transport->Destroy(); }
  };

  Transport() = default;
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;

  virtual EventLoop& loop() = 0;

  // ---- writing. Bytes leave in the order of the calls. With nothing buffered they are offered to the kernel at once;
  // the rest is buffered (C-WR-01). After Close() they are still accepted while earlier ones are being flushed, and
  // dropped without error once the connection is lost (C-WR-09). Throws InvalidState after WriteEof() (C-WR-06).
  virtual void Write(absl::Span<const char> bytes) = 0;
  // Takes the queue's chunks over, without copying; it is empty afterwards.
  virtual void Write(ByteQueue&& bytes) = 0;
  // As one Write of the concatenation (C-WR-15), gathered.
  virtual void Writev(absl::Span<const absl::Span<const char>> pieces) = 0;
  // Text, up to its NUL: literals.
  void Write(const char* text);

  // Ends our direction once everything is sent: the peer reads end of file, and may go on sending. Idempotent; without
  // effect after Close() (C-WR-13).
  virtual void WriteEof() = 0;
  // False where a direction cannot be ended alone (TLS).
  virtual bool CanWriteEof() const = 0;

  // PauseWriting comes above `high`, ResumeWriting at `low` or below. Lowering the marks pauses at once where it is
  // due; raising them does not resume (C-FLW-07). INVALID_ARGUMENT unless high >= low >= 0.
  virtual absl::Status SetWriteBufferLimits(WriteBufferLimits limits) = 0;
  virtual size_t write_high_mark() const = 0;
  virtual size_t write_low_mark() const = 0;
  // Exactly the bytes accepted and not yet given to the kernel (C-WR-16).
  virtual size_t write_buffer_size() const = 0;

  // What is not an internal::ByteTransport sends none.
  virtual SendfileMode sendfile_mode() const { return SendfileMode::kNone; }

  // ---- reading. Both are idempotent and do nothing once the transport is closing (C-RD-06).
  virtual void PauseReading() = 0;
  virtual void ResumeReading() = 0;
  virtual bool is_reading() const = 0;  // neither paused nor closing

  // ---- the end. ConnectionLost follows through the loop, never inside these calls.
  // Stops reading, sends what is buffered, then ends. It may wait as long as the peer does not read: bound it with
  // Abort.
  virtual void Close() = 0;
  // Drops what is buffered.
  virtual void Abort() = 0;
  virtual bool is_closing() const = 0;  // from Close, Abort or the connection's failure on
  // Returns when ConnectionLost has returned; any number may wait. To wait for what was written to be sent: Close, then
  // this.
  virtual Task<void> Closed() = 0;

  // ---- the protocol, which the transport owns.
  virtual BaseProtocol& protocol() = 0;
  // `protocol` receives what comes next (C-TRN-11); it hears no ConnectionMade. The old one is destroyed later, by the
  // loop, and may be the caller.
  void SetProtocol(std::unique_ptr<BaseProtocol> protocol);
  // The same, and gives the old one back, which has no transport any more. One that runs must outlive its callback.
  [[nodiscard]] virtual std::unique_ptr<BaseProtocol> ExchangeProtocol(std::unique_ptr<BaseProtocol> protocol) = 0;

  // ---- who talks. Addresses stay available after the end (C-TRN-03); family() is AF_UNSPEC where there is none.
  virtual const SocketAddress& peer() const = 0;
  virtual const SocketAddress& local() const = 0;
  virtual int descriptor() const = 0;  // -1: none, or closed
  // What the handshake has agreed on, and who the peer is; null without TLS, and before the handshake has succeeded.
  // Stays available after the end, as long as the transport (C-TLS-12).
  virtual const TlsInfo* tls() const { return nullptr; }
  virtual std::string DebugString() const = 0;

 protected:
  virtual ~Transport() = default;
  // What a TransportPtr does: from here on the transport belongs to itself, and ends as the comment on top says.
  virtual void Destroy() = 0;
  // For implementations: `protocol` belongs to `transport`, or to none.
  static void Attach(BaseProtocol& protocol, Transport* transport) { protocol.transport_ = transport; }
  static bool IsBuffered(const BaseProtocol& protocol) { return protocol.kind_ == BaseProtocol::Kind::kBuffered; }
};

using TransportPtr = std::unique_ptr<Transport, Transport::Deleter>;

}  // namespace troupe

#endif  // TROUPE_NET_TRANSPORT_H_
