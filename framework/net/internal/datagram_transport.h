// SocketDatagramTransport: a DatagramTransport over a socket (CONTRACT.md, section 14).
//
// Beside ByteTransport and not on it: that one's buffer forgets where one write ends and another begins, its failures end
// the connection, and it has an end of file. What both share is in write_marks.h, callback_errors.h and occurrence.h.
//
// Life:      made -> Start (ConnectionMade is queued) -> ... -> ending (ConnectionLost is queued) -> lost -> destroyed
// Invariants: 1. Datagrams wait only while the socket takes no more, or were sent from inside ErrorReceived; then
//               writability is waited for, or `retry_` is.
//            2. Nothing is sent or received once `conn_lost_` is not 0; one ConnectionLost follows.
//            3. After a callback has returned the transport still exists: dropping it is deferred to the next step.
#ifndef TROUPE_NET_INTERNAL_DATAGRAM_TRANSPORT_H_
#define TROUPE_NET_INTERNAL_DATAGRAM_TRANSPORT_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "troupe/base/socket_address.h"
#include "troupe/loop/context.h"
#include "troupe/loop/event_loop.h"
#include "troupe/loop/fd_watcher.h"
#include "troupe/loop/handle.h"
#include "troupe/loop/runnable.h"
#include "troupe/net/datagram.h"
#include "troupe/net/internal/occurrence.h"
#include "troupe/net/internal/write_marks.h"

namespace troupe::internal {

class SocketDatagramTransport final : private FdWatcher, public DatagramTransport, private Runnable {
 public:
  // Takes `fd` over. `remote`: where all is sent to that is not connected; AF_UNSPEC: the socket's peer, if it has one.
  SocketDatagramTransport(EventLoop& loop, int fd, std::unique_ptr<DatagramProtocol> protocol,
                          const SocketAddress& remote);

  // Queues ConnectionMade. Once, first.
  void Start() { loop_.Schedule(*this); }
  Occurrence::Waiter Made() { return made_.Wait("ConnectionMade"); }
  const absl::Status& lost_reason() const { return reason_; }

  EventLoop& loop() override { return loop_; }
  using DatagramTransport::SendTo;
  void SendTo(absl::Span<const char> data) override { Submit(data, nullptr); }
  void SendTo(absl::Span<const char> data, const SocketAddress& to) override { Submit(data, &to); }
  absl::Status SetWriteBufferLimits(WriteBufferLimits limits) override;
  size_t write_high_mark() const override { return marks_.high; }
  size_t write_low_mark() const override { return marks_.low; }
  size_t write_buffer_size() const override { return waiting_bytes_; }
  void PauseReading() override;
  void ResumeReading() override;
  bool is_reading() const override { return !paused_reading_ && !closing_; }
  void Close() override;
  void Abort() override { End(absl::OkStatus()); }
  bool is_closing() const override { return closing_; }
  Task<void> Closed() override;
  DatagramProtocol& protocol() override { return *protocol_; }
  void SetProtocol(std::unique_ptr<DatagramProtocol> protocol) override;
  const SocketAddress& local() const override { return local_; }
  const SocketAddress& remote() const override { return remote_; }
  int descriptor() const override { return open_ ? fd() : -1; }
  std::string DebugString() const override;

 private:
  struct Waiting {
    std::string bytes;
    SocketAddress to;  // AF_UNSPEC: the remote one
  };

  ~SocketDatagramTransport() override;
  void Destroy() override;

  // ConnectionMade, ConnectionLost, deletion: one a time, in this order.
  void Run() override;
  void Drop() noexcept override;
  std::string Describe() const override { return DebugString(); }
  void Step();
  void DeliverMade();
  void DeliverLost();
  void CloseSocket();
  // Drops what waits and queues ConnectionLost(reason). Once.
  void End(absl::Status reason);

  void OnReadable() override;
  void OnWritable() override;
  std::string DescribeWatcher() const override { return DebugString(); }
  void Watch();

  void Submit(absl::Span<const char> data, const SocketAddress* to);
  // What the system says.
  int64_t Send(absl::Span<const char> data, const SocketAddress* to);
  // Writable, but the receiver (of a Unix socket that is not connected to it) has no room: the poller would not stop
  // saying so.
  void RetryLater();
  // There is something to receive and no memory for it: the same.
  void ReceiveLater();
  void TellError(const absl::Status& error);
  void MaybePause();
  void MaybeResume();
  // REQUIRES: in a catch block.
  void ReportException(std::string message);

  EventLoop& loop_;
  Context context_;  // the protocol's
  std::unique_ptr<DatagramProtocol> protocol_;
  std::deque<Waiting> waiting_;
  size_t waiting_bytes_ = 0;  // with kHeaderBytes each
  uint8_t conn_lost_ = 0;     // as asyncio's: 0, then 1 and the datagrams since, up to where they are logged
  bool connected_ = false;    // the socket is: to remote_
  bool closing_ = false;
  bool paused_reading_ = false;
  bool paused_writing_ = false;
  bool in_error_ = false;  // ErrorReceived runs
  bool connection_made_ = false;
  bool orphaned_ = false;  // no DatagramTransportPtr any more
  bool open_ = true;
  WriteMarks marks_;
  absl::Duration retry_delay_ = kRetryDelayMin;
  TimerHandle retry_;
  bool retrying_ = false;  // retry_ is pending
  TimerHandle receive_again_;
  bool starved_ = false;  // receive_again_ is pending
  SocketAddress local_;
  SocketAddress remote_;
  absl::Status reason_;
  Occurrence made_;
  Occurrence lost_;

  static constexpr absl::Duration kRetryDelayMin = absl::Milliseconds(1);
  static constexpr absl::Duration kRetryDelayMax = absl::Milliseconds(64);
};

}  // namespace troupe::internal

#endif  // TROUPE_NET_INTERNAL_DATAGRAM_TRANSPORT_H_
