#include "troupe/net/internal/byte_transport.h"

#include <glog/logging.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <typeinfo>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "troupe/async/task.h"
#include "troupe/base/errors.h"
#include "troupe/base/os_error.h"
#include "troupe/loop/context.h"
#include "troupe/loop/event_loop.h"
#include "troupe/net/internal/callback_errors.h"
#include "troupe/net/internal/read_buffer.h"

namespace troupe::internal {
namespace {

// Pieces offered to one send: 64 standard chunks are 512 KiB, more than a socket takes.
constexpr size_t kPiecesPerSend = 64;
// asyncio's LOG_THRESHOLD_FOR_CONNLOST_WRITES.
constexpr uint8_t kLostWritesBeforeLog = 5;

}  // namespace

// ---------------------------------------------------------------------------------------------------- life

ByteTransport::ByteTransport(EventLoop& loop, const char* kind, std::unique_ptr<BaseProtocol> protocol,
                             DeviceKind device)
    : loop_(loop),
      context_(Context::Current().WithoutDeadline()),
      protocol_(std::move(protocol)),
      buffered_protocol_(IsBuffered(*protocol_)),
      device_(device),
      layer_(device == DeviceKind::kLayer),
      opening_(layer_),
      kind_(kind) {
  Attach(*protocol_, this);
}

ByteTransport::~ByteTransport() {
  if (file_ != nullptr) file_->transport_ = nullptr;
}

void ByteTransport::Start() {
  opening_ = false;
  loop_.Schedule(*this);
}

void ByteTransport::StartMade() {
  opening_ = false;
  made_.Happen();
  Watch();
}

void ByteTransport::GivePlaceTo(ByteTransport& layer) {
  layer.marks_ = marks_;
  layer.paused_writing_ = paused_writing_;
  if (owner_ == nullptr) return;
  layer.owner_ = std::exchange(owner_, nullptr);
  layer.owner_->OnTransportReplaced(*this, layer);
}

void ByteTransport::Step() {
  if (!Runnable::linked() && !loop_.IsClosed()) loop_.Schedule(*this);
}

void ByteTransport::Run() {
  if (!connection_made_ && !opening_) {
    DeliverMade();
  } else if (conn_lost_ != 0 && !lost_.happened()) {
    DeliverLost();
  } else if (orphaned_) {
    delete this;
  } else if (conn_lost_ == 0) {
    ContextScope scope(context_);
    MaybePause();
    MaybeResume();
  }
}

void ByteTransport::DeliverMade() {
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
    EndByException("ConnectionMade");
  }
  MaybePause();  // for what was written before
}

void ByteTransport::DeliverLost() {
  ContextScope scope(context_);
  // Comes before a report, which may leave by Fatal.
  const auto finish = [this] {
    DeviceClose();
    if (!made_.happened()) made_.Happen();
    lost_.Happen();
    if (owner_ != nullptr) std::exchange(owner_, nullptr)->OnTransportLost(*this);
    if (orphaned_) Step();
  };
  try {
    if (connection_made_) protocol_->ConnectionLost(reason_);  // C-TLS-10
  } catch (...) {  // reports to the exception handler, which passes Fatal on
    finish();
    return ReportException("Exception in protocol.ConnectionLost()");
  }
  finish();
}

void ByteTransport::Drop() noexcept {
  // The loop closes: no callback comes any more, but the descriptor goes.
  DeviceClose();
  if (orphaned_) delete this;
}

void ByteTransport::Destroy() {
  orphaned_ = true;
  owner_ = nullptr;
  ListNode<TransportOwner>::Unlink();
  LOG_IF(WARNING, !closing_) << "unclosed transport " << DebugString();
  if (loop_.IsClosed()) {
    delete this;
    return;
  }
  Abort();
  Step();
}

Task<void> ByteTransport::Closed() { co_await lost_.Wait("Transport::Closed"); }

std::unique_ptr<BaseProtocol> ByteTransport::ExchangeProtocol(std::unique_ptr<BaseProtocol> protocol) {
  Attach(*protocol, this);
  buffered_protocol_ = IsBuffered(*protocol);
  std::unique_ptr<BaseProtocol> old = std::exchange(protocol_, std::move(protocol));
  Attach(*old, nullptr);
  return old;
}

void ByteTransport::PutProtocolBack(std::unique_ptr<BaseProtocol> protocol, bool told_paused) {
  SetProtocol(std::move(protocol));
  paused_writing_ = told_paused;
  if (layer_) Watch();
  if (connection_made_) Step();
}

std::string ByteTransport::DebugString() const {
  std::string text = absl::StrCat("<", kind_, " ", DescribeDevice());
  if (lost_.happened()) return absl::StrCat(text, " lost>");
  if (closing_) absl::StrAppend(&text, " closing");
  if (is_reading() && connection_made_ && !read_eof_) absl::StrAppend(&text, " reading");
  return absl::StrCat(text, " write_buffer=", buffer_.size(), ">");
}

// ---------------------------------------------------------------------------------------------------- the end

void ByteTransport::Close() {
  if (closing_) return;
  closing_ = true;
  LoseFile();
  if (layer_) DeviceClosing();
  if (buffer_.empty() || opening_) return Finish();
  Watch();
}

void ByteTransport::Finish() {
  if (layer_) {
    if (conn_lost_ != 0 || std::exchange(finishing_, true)) return;
    Watch();
    if (!DeviceFinish()) return;
  }
  End(absl::OkStatus());
}

void ByteTransport::End(absl::Status reason) {
  if (conn_lost_ != 0) return;
  conn_lost_ = 1;
  closing_ = true;
  reason_ = std::move(reason);
  buffer_.Clear();
  LoseFile();
  Watch();
  Step();
}

void ByteTransport::EndByOs(int error, absl::string_view what) {
  const std::string message = absl::StrCat("Fatal ", what, " error on ", kind_);
  LOG_IF(INFO, loop_.debug()) << DebugString() << ": " << message << ": " << ErrnoText(error);
  End(OsError(error, message));
}

void ByteTransport::EndByException(const char* callback) {
  std::string message = absl::StrCat("Fatal error: protocol.", callback, "() call failed.");
  End(StatusOfCurrentException(message));
  ReportException(std::move(message));
}

void ByteTransport::ReportException(std::string message) {
  const BaseProtocol& protocol = *protocol_;
  ReportCallback(loop_, std::move(message), DebugString(), this, typeid(protocol), &protocol);
}

// ---------------------------------------------------------------------------------------------------- readiness

void ByteTransport::Watch() {
  uint32_t interest = 0;
  if (conn_lost_ == 0) {
    // Who only writes is told that way that nobody reads any more.
    const bool reads = !paused_reading_ && !closing_ && !read_eof_ && file_ == nullptr;
    if (connection_made_ && reads) interest |= kReadable;
    // A layer that holds bytes of its own may have paused the protocol with nothing in the buffer.
    if (!buffer_.empty() || (layer_ && paused_writing_)) interest |= kWritable;
    if (file_ != nullptr && file_->wants_room_) interest |= kWritable;
    if (finishing_) interest = 0;
  }
  const int result = DeviceWatch(interest);
  if (result < 0 && conn_lost_ == 0) EndByOs(result, "watch");
}

// ---------------------------------------------------------------------------------------------------- reading

void ByteTransport::PauseReading() {
  if (closing_ || paused_reading_ || device_ == DeviceKind::kWriter) return;
  paused_reading_ = true;
  Watch();
}

void ByteTransport::ResumeReading() {
  if (closing_ || !paused_reading_) return;
  paused_reading_ = false;
  Watch();
}

void ByteTransport::OnReadable() {
  ContextScope scope(context_);
  if (buffered_protocol_) return ReceiveBuffered();
  ReadBuffer buffer;
  const int64_t result = DeviceReceive(buffer.span());
  if (result <= 0) return OnNothingReceived(result);
  try {
    static_cast<Protocol&>(*protocol_).DataReceived(buffer.span().first(static_cast<size_t>(result)));
  } catch (...) {  // reports to the exception handler, which passes Fatal on
    EndByException("DataReceived");
  }
}

void ByteTransport::ReceiveBuffered() {
  auto* protocol = static_cast<BufferedProtocol*>(protocol_.get());
  absl::Span<char> buffer;
  try {
    buffer = protocol->GetBuffer(-1);
    if (buffer.empty()) throw InvalidState("GetBuffer() returned an empty buffer");
  } catch (...) {  // reports to the exception handler, which passes Fatal on
    return EndByException("GetBuffer");
  }
  // It may have stopped reading, or handed over to another protocol, which is asked when the descriptor is looked at
  // next.
  if (!is_reading() || protocol_.get() != protocol) return;
  const int64_t result = DeviceReceive(buffer);
  if (result <= 0) return OnNothingReceived(result);
  try {
    protocol->BufferUpdated(static_cast<size_t>(result));
  } catch (...) {  // reports to the exception handler, which passes Fatal on
    EndByException("BufferUpdated");
  }
}

void ByteTransport::OnNothingReceived(int64_t result) {
  if (result == 0) return OnEof();
  if (result != -EAGAIN) EndByOs(static_cast<int>(result), "read");
}

void ByteTransport::OnEof() {
  read_eof_ = true;
  Watch();
  bool keep_open = false;
  try {
    keep_open = protocol_->EofReceived();
  } catch (...) {  // reports to the exception handler, which passes Fatal on
    return EndByException("EofReceived");
  }
  if (keep_open && layer_) {
    LOG(WARNING) << "returning true from EofReceived() has no effect on a " << kind_;  // C-TLS-11
    keep_open = false;
  }
  if (!keep_open || device_ == DeviceKind::kReader) Close();
}

// ---------------------------------------------------------------------------------------------------- writing

bool ByteTransport::MayWrite(bool empty) {
  if (device_ == DeviceKind::kReader) throw InvalidState(absl::StrCat("a ", kind_, " cannot be written"));
  if (file_ != nullptr && !writing_file_) throw InvalidState("unable to write; sendfile is in progress");
  if (write_eof_) throw InvalidState("Cannot call Write() after WriteEof()");
  if (empty) return false;
  const bool takes_no_more = closing_ && (layer_ || device_ == DeviceKind::kWriter);  // C-TLS-13, C-PIP-04
  if (conn_lost_ == 0 && !takes_no_more) return true;
  if (conn_lost_ == 0 && layer_) return false;
  uint8_t& dropped = conn_lost_ != 0 ? conn_lost_ : dropped_writes_;
  if (dropped >= kLostWritesBeforeLog) {
    LOG(WARNING) << (device_ == DeviceKind::kWriter ? "pipe closed by peer or os.write(pipe, data) raised exception."
                                                    : "socket.send() raised exception.");
  } else {
    ++dropped;
  }
  return false;
}

int64_t ByteTransport::Send(absl::Span<const iovec> pieces) {
  const int64_t sent = DeviceSend(pieces);
  if (sent >= 0) return sent;
  if (conn_lost_ != 0) return -1;  // a layer has reported its failure itself
  if (sent == -EAGAIN) return 0;
  EndByOs(static_cast<int>(sent), "write");
  return -1;
}

bool ByteTransport::SendBuffered() {
  std::array<iovec, kPiecesPerSend> pieces;
  const int64_t sent = Send(absl::MakeConstSpan(pieces.data(), buffer_.FillIovec(absl::MakeSpan(pieces))));
  if (sent < 0) return false;
  buffer_.Consume(static_cast<size_t>(sent));
  return true;
}

void ByteTransport::BufferedSome() {
  Watch();
  MaybePause();
}

void ByteTransport::Write(absl::Span<const char> bytes) {
  if (!MayWrite(bytes.empty())) return;
  if (!buffer_.empty()) {
    buffer_.Append(bytes);
    return MaybePause();
  }
  const iovec piece = {const_cast<char*>(bytes.data()), bytes.size()};
  const int64_t sent = Send(absl::MakeConstSpan(&piece, 1));
  if (sent < 0) return;
  if (static_cast<size_t>(sent) == bytes.size()) return SentAll();
  buffer_.Append(bytes.subspan(static_cast<size_t>(sent)));
  BufferedSome();
}

void ByteTransport::Write(ByteQueue&& bytes) {
  if (!MayWrite(bytes.empty())) return bytes.Clear();
  if (!buffer_.empty()) {
    buffer_.Append(std::move(bytes));
    return MaybePause();
  }
  buffer_ = std::move(bytes);
  if (!SendBuffered()) return;
  if (buffer_.empty()) return SentAll();
  BufferedSome();
}

void ByteTransport::Writev(absl::Span<const absl::Span<const char>> pieces) {
  std::array<iovec, kPiecesPerSend> offered;
  size_t count = 0;
  size_t next = 0;  // the first piece that is not offered
  for (; next < pieces.size() && count < offered.size(); ++next) {
    if (pieces[next].empty()) continue;
    offered[count++] = {const_cast<char*>(pieces[next].data()), pieces[next].size()};
  }
  if (!MayWrite(count == 0)) return;
  auto rest = absl::MakeSpan(offered.data(), count);
  const bool was_empty = buffer_.empty();
  if (was_empty) {
    int64_t sent = Send(rest);
    if (sent < 0) return;
    while (!rest.empty() && static_cast<size_t>(sent) >= rest.front().iov_len) {
      sent -= static_cast<int64_t>(rest.front().iov_len);
      rest.remove_prefix(1);
    }
    if (!rest.empty()) {
      rest.front().iov_base = static_cast<char*>(rest.front().iov_base) + sent;
      rest.front().iov_len -= static_cast<size_t>(sent);
    }
  }
  for (const iovec& piece : rest)
    buffer_.Append(absl::MakeConstSpan(static_cast<char*>(piece.iov_base), piece.iov_len));
  for (; next < pieces.size(); ++next) buffer_.Append(pieces[next]);
  if (buffer_.empty()) return SentAll();
  was_empty ? BufferedSome() : MaybePause();
}

void ByteTransport::OnWritable() {
  ContextScope scope(context_);
  if (!buffer_.empty() && !SendBuffered()) return;
  MaybeResume();
  // ResumeWriting may have written more, or ended the connection.
  if (conn_lost_ != 0 || !buffer_.empty()) return;
  if (closing_) return Finish();
  if (file_ != nullptr && file_->wants_room_) return file_->OnRoom();
  Watch();
  if (write_eof_) ShutdownWrite();
}

void ByteTransport::WriteEof() {
  if (layer_) throw InvalidState(absl::StrCat("a ", kind_, " cannot end one direction alone: see CanWriteEof()"));
  if (device_ == DeviceKind::kReader) throw InvalidState(absl::StrCat("a ", kind_, " cannot be written"));
  if (device_ == DeviceKind::kWriter) return Close();  // C-PIP-04
  if (closing_ || write_eof_) return;
  if (file_ != nullptr) throw InvalidState("unable to end writing; sendfile is in progress");
  write_eof_ = true;
  if (buffer_.empty()) ShutdownWrite();
}

void ByteTransport::ShutdownWrite() {
  if (std::exchange(shut_down_, true)) return;
  DeviceShutdownWrite();
}

// ---------------------------------------------------------------------------------------------------- files

FileSending::FileSending(ByteTransport& transport) : transport_(&transport) { transport.file_ = this; }

void FileSending::Begin() { transport_->Watch(); }

FileSending::~FileSending() {
  if (transport_ == nullptr) return;
  transport_->file_ = nullptr;
  transport_->Watch();
}

void FileSending::WantRoom(bool wanted) {
  wants_room_ = wanted;
  if (transport_ != nullptr) transport_->Watch();
}

void ByteTransport::CheckMaySendFile() const {
  if (closing_) throw InvalidState("Transport is closing");
  if (write_eof_) throw InvalidState("cannot send a file after WriteEof()");
  if (file_ != nullptr) throw InvalidState("a file is being sent already");
}

int64_t ByteTransport::SendFromFile(int file, int64_t offset, int64_t bytes_max) {
  const int64_t sent = DeviceSendFile(file, offset, bytes_max);
  if (sent < 0 && IsOfTheSocket(static_cast<int>(-sent), file)) EndByOs(static_cast<int>(sent), "sendfile");
  return sent;
}

bool ByteTransport::IsOfTheSocket(int error, int file) const {
  switch (error) {
    case EPIPE:
    case ECONNRESET:
    case ETIMEDOUT:
    case ENOTCONN:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ENETDOWN:
    case ENOBUFS:
      return true;
    case EBADF:  // whichever of the two somebody has closed
      return loop_.os().FileBytes(file) >= 0;
    default:
      return false;
  }
}

void ByteTransport::WriteOfFile(absl::Span<const char> bytes) {
  writing_file_ = true;
  const absl::Cleanup done = [this] { writing_file_ = false; };
  Write(bytes);
}

void ByteTransport::LoseFile() {
  if (file_ == nullptr) return;
  FileSending* const file = std::exchange(file_, nullptr);
  file->OnLost();
  file->transport_ = nullptr;
}

// ---------------------------------------------------------------------------------------------------- flow control

absl::Status ByteTransport::SetWriteBufferLimits(WriteBufferLimits limits) {
  const absl::Status set = marks_.Set(limits);
  if (set.ok()) MaybePause();
  return set;
}

void ByteTransport::MaybePause() {
  if (write_buffer_size() <= marks_.high || paused_writing_ || !connection_made_) return;
  paused_writing_ = true;
  if (layer_) Watch();
  try {
    protocol_->PauseWriting();
  } catch (...) {  // reports to the exception handler, which passes Fatal on
    ReportException("protocol.PauseWriting() failed");
  }
}

void ByteTransport::MaybeResume() {
  if (!paused_writing_ || write_buffer_size() > marks_.low) return;
  paused_writing_ = false;
  try {
    protocol_->ResumeWriting();
  } catch (...) {  // reports to the exception handler, which passes Fatal on
    ReportException("protocol.ResumeWriting() failed");
  }
}

}  // namespace troupe::internal
