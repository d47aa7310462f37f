#include "troupe/net/internal/datagram_transport.h"

#include <glog/logging.h>

#include <algorithm>
#include <cerrno>
#include <typeinfo>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "troupe/async/task.h"
#include "troupe/base/errors.h"
#include "troupe/base/os_error.h"
#include "troupe/net/internal/callback_errors.h"
#include "troupe/net/internal/read_buffer.h"
#include "troupe/os/os.h"

namespace troupe::internal {
namespace {

// asyncio's LOG_THRESHOLD_FOR_CONNLOST_WRITES.
constexpr uint8_t kLostDatagramsBeforeLog = 5;

}  // namespace

// ---------------------------------------------------------------------------------------------------- life

SocketDatagramTransport::SocketDatagramTransport(EventLoop& loop, int fd, std::unique_ptr<DatagramProtocol> protocol,
                                                 const SocketAddress& remote)
    : FdWatcher(loop, fd),
      loop_(loop),
      context_(Context::Current().WithoutDeadline()),
      protocol_(std::move(protocol)),
      remote_(remote) {
  loop_.os().LocalAddress(fd, &local_);
  if (remote_.family() == AF_UNSPEC) connected_ = loop_.os().PeerAddress(fd, &remote_) == 0;
  Attach(*protocol_, this);
}

SocketDatagramTransport::~SocketDatagramTransport() {
  retry_.Cancel();
  CloseSocket();
}

void SocketDatagramTransport::Step() {
  if (!Runnable::linked() && !loop_.IsClosed()) loop_.Schedule(*this);
}

void SocketDatagramTransport::Run() {
  if (!connection_made_) {
    DeliverMade();
  } else if (conn_lost_ != 0 && !lost_.happened()) {
    DeliverLost();
  } else if (orphaned_) {
    delete this;
  }
}

void SocketDatagramTransport::DeliverMade() {
  ContextScope scope(context_);
  connection_made_ = true;
  // Also when a report leaves by Fatal.
  const absl::Cleanup finish = [this] {
    Watch();
    made_.Happen();
    if (conn_lost_ != 0 || orphaned_) Step();
  };
  try {
    protocol_->ConnectionMade(*this);
  } catch (...) {  // reports to the exception handler, which passes Fatal on
    std::string message = "Fatal error: protocol.ConnectionMade() call failed.";
    End(StatusOfCurrentException(message));
    ReportException(std::move(message));
  }
  MaybePause();  // for what was sent before
}

void SocketDatagramTransport::DeliverLost() {
  ContextScope scope(context_);
  // Also when a report leaves by Fatal.
  const absl::Cleanup finish = [this] {
    CloseSocket();
    lost_.Happen();
    if (orphaned_) Step();
  };
  try {
    protocol_->ConnectionLost(reason_);
  } catch (...) {  // reports to the exception handler, which passes Fatal on
    ReportException("Exception in protocol.ConnectionLost()");
  }
}

void SocketDatagramTransport::Drop() noexcept {
  // The loop closes: no callback comes any more, but the descriptor goes.
  CloseSocket();
  if (orphaned_) delete this;
}

void SocketDatagramTransport::Destroy() {
  orphaned_ = true;
  LOG_IF(WARNING, !closing_) << "unclosed transport " << DebugString();
  if (loop_.IsClosed()) {
    delete this;
    return;
  }
  Abort();
  Step();
}

void SocketDatagramTransport::CloseSocket() {
  if (!std::exchange(open_, false)) return;
  const int closed = fd();
  FdWatcher::Release();
  loop_.os().Close(closed);
}

Task<void> SocketDatagramTransport::Closed() { co_await lost_.Wait("DatagramTransport::Closed"); }

void SocketDatagramTransport::SetProtocol(std::unique_ptr<DatagramProtocol> protocol) {
  Attach(*protocol, this);
  std::unique_ptr<DatagramProtocol> old = std::exchange(protocol_, std::move(protocol));
  Attach(*old, nullptr);
  loop_.DeleteLater(std::move(old));
}

std::string SocketDatagramTransport::DebugString() const {
  std::string text = absl::StrCat("<datagram transport fd=", descriptor());
  if (local_.family() != AF_UNSPEC) absl::StrAppend(&text, " ", local_.ToString());
  if (remote_.family() != AF_UNSPEC) absl::StrAppend(&text, " -> ", remote_.ToString());
  if (lost_.happened()) return absl::StrCat(text, " lost>");
  if (closing_) absl::StrAppend(&text, " closing");
  if (is_reading() && connection_made_) absl::StrAppend(&text, " reading");
  return absl::StrCat(text, " write_buffer=", waiting_bytes_, ">");
}

void SocketDatagramTransport::Close() {
  if (closing_) return;
  closing_ = true;
  if (waiting_.empty()) return End(absl::OkStatus());
  Watch();
}

void SocketDatagramTransport::End(absl::Status reason) {
  if (conn_lost_ != 0) return;
  conn_lost_ = 1;
  closing_ = true;
  reason_ = std::move(reason);
  waiting_.clear();
  waiting_bytes_ = 0;
  if (std::exchange(retrying_, false)) retry_.Cancel();
  if (std::exchange(starved_, false)) receive_again_.Cancel();
  Watch();
  Step();
}

void SocketDatagramTransport::ReportException(std::string message) {
  const DatagramProtocol& protocol = *protocol_;
  ReportCallback(loop_, std::move(message), DebugString(), this, typeid(protocol), &protocol);
}

// ---------------------------------------------------------------------------------------------------- receiving

void SocketDatagramTransport::Watch() {
  uint32_t interest = 0;
  if (conn_lost_ == 0) {
    if (connection_made_ && is_reading() && !starved_) interest |= kReadable;
    if (!waiting_.empty() && !retrying_) interest |= kWritable;
  }
  const int result = FdWatcher::Watch(interest);
  if (result < 0 && conn_lost_ == 0) End(OsError(result, "Fatal watch error on datagram transport"));
}

void SocketDatagramTransport::PauseReading() {
  if (closing_ || paused_reading_) return;
  paused_reading_ = true;
  Watch();
}

void SocketDatagramTransport::ResumeReading() {
  if (closing_ || !paused_reading_) return;
  paused_reading_ = false;
  Watch();
}

void SocketDatagramTransport::OnReadable() {
  ContextScope scope(context_);
  ReadBuffer buffer;
  SocketAddress from;
  const int64_t received = loop_.os().ReceiveFrom(fd(), buffer.span(), &from);
  if (received == -EAGAIN) return;
  if (received < 0) {
    // The datagram is still there.
    if (received == -ENOMEM || received == -ENOBUFS) ReceiveLater();
    return TellError(OsError(static_cast<int>(received), "receive"));
  }
  const auto size = static_cast<size_t>(received);
  if (size > buffer.span().size()) {
    return TellError(absl::ResourceExhaustedError(
        absl::StrCat("a datagram of ", size, " bytes was dropped: at most ", buffer.span().size(), " are received")));
  }
  try {
    protocol_->DatagramReceived(buffer.span().first(size), from);
  } catch (...) {  // reports to the exception handler, which passes Fatal on
    ReportException("protocol.DatagramReceived() failed");
  }
}

void SocketDatagramTransport::ReceiveLater() {
  starved_ = true;
  receive_again_ = loop_.CallLater(kRetryDelayMax, [this] {
    starved_ = false;
    Watch();
  });
  Watch();  // may be the end
}

void SocketDatagramTransport::TellError(const absl::Status& error) {
  in_error_ = true;
  const absl::Cleanup done = [this] { in_error_ = false; };
  try {
    protocol_->ErrorReceived(error);
  } catch (...) {  // reports to the exception handler, which passes Fatal on
    ReportException("protocol.ErrorReceived() failed");
  }
}

// ---------------------------------------------------------------------------------------------------- sending

int64_t SocketDatagramTransport::Send(absl::Span<const char> data, const SocketAddress* to) {
  if (to == nullptr && !connected_ && remote_.family() != AF_UNSPEC) to = &remote_;
  return loop_.os().SendTo(fd(), data, to);
}

void SocketDatagramTransport::Submit(absl::Span<const char> data, const SocketAddress* to) {
  if (to != nullptr && remote_.family() != AF_UNSPEC) {
    if (*to != remote_) {
      throw InvalidState(
          absl::StrCat("Invalid address: must be none or ", remote_.ToString(), ", got ", to->ToString()));
    }
    to = nullptr;
  }
  if (conn_lost_ != 0) {
    if (conn_lost_ >= kLostDatagramsBeforeLog) {
      LOG(WARNING) << "socket.send() raised exception.";
    } else {
      ++conn_lost_;
    }
    return;
  }
  if (waiting_.empty() && !in_error_) {
    const int64_t sent = Send(data, to);
    if (sent >= 0) return;
    if (sent != -EAGAIN) return TellError(OsError(static_cast<int>(sent), "send"));
  }
  waiting_.push_back({std::string(data.data(), data.size()), to == nullptr ? SocketAddress() : *to});
  waiting_bytes_ += data.size() + kHeaderBytes;
  if (waiting_.size() == 1) Watch();
  MaybePause();
}

void SocketDatagramTransport::OnWritable() {
  ContextScope scope(context_);
  bool stuck = false;
  bool sent_some = false;
  while (conn_lost_ == 0 && !waiting_.empty()) {
    const Waiting& next = waiting_.front();
    const int64_t sent = Send(next.bytes, next.to.family() == AF_UNSPEC ? nullptr : &next.to);
    if (sent == -EAGAIN) {
      stuck = !sent_some;
      break;
    }
    sent_some = true;
    waiting_bytes_ -= next.bytes.size() + kHeaderBytes;
    waiting_.pop_front();
    if (sent < 0) {
      // The next ones go in the next iteration, whatever ErrorReceived makes of it: it may send again what fails again.
      TellError(OsError(static_cast<int>(sent), "send"));
      break;
    }
  }
  if (conn_lost_ != 0) return;
  if (stuck) return RetryLater();
  retry_delay_ = kRetryDelayMin;
  MaybeResume();
  // ResumeWriting may have sent more, or ended the endpoint.
  if (conn_lost_ != 0) return;
  if (waiting_.empty() && closing_) return End(absl::OkStatus());
  Watch();
}

void SocketDatagramTransport::RetryLater() {
  retrying_ = true;
  retry_ = loop_.CallLater(retry_delay_, [this] {
    retrying_ = false;
    Watch();
  });
  retry_delay_ = std::min(2 * retry_delay_, kRetryDelayMax);
  Watch();  // may be the end
}

// ---------------------------------------------------------------------------------------------------- flow control

absl::Status SocketDatagramTransport::SetWriteBufferLimits(WriteBufferLimits limits) {
  const absl::Status set = marks_.Set(limits);
  if (set.ok()) MaybePause();
  return set;
}

void SocketDatagramTransport::MaybePause() {
  if (waiting_bytes_ <= marks_.high || paused_writing_ || !connection_made_) return;
  paused_writing_ = true;
  try {
    protocol_->PauseWriting();
  } catch (...) {  // reports to the exception handler, which passes Fatal on
    ReportException("protocol.PauseWriting() failed");
  }
}

void SocketDatagramTransport::MaybeResume() {
  if (!paused_writing_ || waiting_bytes_ > marks_.low) return;
  paused_writing_ = false;
  try {
    protocol_->ResumeWriting();
  } catch (...) {  // reports to the exception handler, which passes Fatal on
    ReportException("protocol.ResumeWriting() failed");
  }
}

}  // namespace troupe::internal
