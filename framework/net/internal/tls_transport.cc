#include "troupe/net/internal/tls_transport.h"

#include <glog/logging.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "troupe/base/os_error.h"
#include "troupe/net/stream_transport.h"
#include "troupe/os/os.h"

namespace troupe::internal {
namespace {

// A record's most (RFC 8446, 5.1).
constexpr size_t kRecordBytesMax = 16 << 10;
// Pieces from this size on have a record of their own, smaller ones share one.
constexpr size_t kOwnRecordBytes = 4 << 10;
// How much is encrypted before it is written below.
constexpr size_t kBatchBytes = 64 << 10;
// Handshake messages after the handshake (key updates, tickets): this many, and one more for each MiB received. An
// honest peer sends two tickets, and a key update per 2^24 records.
constexpr uint32_t kMessagesMax = 32;
// The first byte of TLS (RFC 8446, 5.1): no text begins with it.
constexpr char kHandshakeRecord = 22;

absl::Status Truncated() {
  return absl::DataLossError("TLS: the peer ended the connection without close_notify: what came may be cut short");
}

// Of a call on `ssl` that has failed; takes OpenSSL's errors.
absl::Status Failure(const char* what, SSL* ssl) {
  const long verified = SSL_get_verify_result(ssl);  // NOLINT(runtime/int): OpenSSL's type
  const bool no_certificate = ERR_GET_REASON(ERR_peek_last_error()) == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE;
  const std::string errors = TakeOpenSslErrors();
  if ((SSL_get_verify_mode(ssl) & SSL_VERIFY_PEER) != 0 && verified != X509_V_OK && !SSL_is_init_finished(ssl)) {
    return absl::UnauthenticatedError(
        absl::StrCat(what, " failed on verifying the certificate: ", X509_verify_cert_error_string(verified)));
  }
  const std::string text = absl::StrCat(what, " failed: ", errors.empty() ? "the peer broke the protocol" : errors);
  return no_certificate ? absl::UnauthenticatedError(text) : absl::UnavailableError(text);
}

bool WantsMore(SSL* ssl, int result) {
  const int error = SSL_get_error(ssl, result);
  return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
}

}  // namespace

// OpenSSL's view of a transport. Called inside its calls.
struct TlsBio {
  static TlsTransport& Of(BIO* bio) { return *static_cast<TlsTransport*>(BIO_get_data(bio)); }
  static int Read(BIO* bio, char* bytes, int size) noexcept {
    BIO_clear_retry_flags(bio);
    const size_t n = Of(bio).Read(bytes, static_cast<size_t>(size));
    if (n > 0) return static_cast<int>(n);
    BIO_set_retry_read(bio);
    return -1;
  }
  static int Write(BIO* bio, const char* bytes, int size) noexcept {
    BIO_clear_retry_flags(bio);
    Of(bio).Append(bytes, static_cast<size_t>(size));
    return size;
  }
  static long Control(BIO*, int command, long, void*) noexcept {  // NOLINT(runtime/int): OpenSSL's types
    return command == BIO_CTRL_FLUSH ? 1 : 0;
  }
  static const BIO_METHOD* Method() {
    static const BIO_METHOD* const method = [] {
      BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "troupe transport");
      BIO_meth_set_read(made, Read);
      BIO_meth_set_write(made, Write);
      BIO_meth_set_ctrl(made, Control);
      return made;
    }();
    return method;
  }
};

// What below has lent, for as long as it lives; what is left of it then is kept.
class TlsTransport::LentInput {
 public:
  LentInput(TlsTransport& transport, absl::Span<const char> bytes) : transport_(transport) { transport_.lent_ = bytes; }
  LentInput(const LentInput&) = delete;
  LentInput& operator=(const LentInput&) = delete;
  ~LentInput() {
    if (!transport_.lent_.empty() && !transport_.ended()) transport_.stash_.Append(transport_.lent_);
    transport_.lent_ = {};
    transport_.Notify();
  }

 private:
  TlsTransport& transport_;
};

// ---------------------------------------------------------------------------------------------------- the end below

void TlsProtocol::ConnectionMade(Transport&) {
  if (above_ != nullptr) above_->OnBelowMade();
}
void TlsProtocol::DataReceived(absl::Span<const char> data) {
  if (above_ != nullptr) above_->OnBelowData(data);
}
bool TlsProtocol::EofReceived() { return above_ != nullptr && above_->OnBelowEof(); }
void TlsProtocol::PauseWriting() {
  if (above_ != nullptr) above_->below_paused_ = true;
}
void TlsProtocol::ResumeWriting() {
  if (above_ == nullptr) return;
  above_->below_paused_ = false;
  above_->Notify();
}
void TlsProtocol::ConnectionLost(const absl::Status& reason) {
  if (above_ != nullptr) above_->OnBelowLost(reason);
}

// ---------------------------------------------------------------------------------------------------- making

TlsTransport::TlsTransport(EventLoop& loop, std::unique_ptr<BaseProtocol> protocol, TlsProtocol& protocol_below,
                           TlsSettings settings)
    : ByteTransport(loop, "TLS transport", std::move(protocol), DeviceKind::kLayer),
      settings_(std::move(settings)),
      protocol_below_(protocol_below),
      random_(TlsRandom::Of(loop.os())) {
  protocol_below_.set_above(this);
}

void TlsTransport::SetBelow(TransportPtr below) {
  below_ = std::move(below);
  peer_ = below_->peer();
  local_ = below_->local();
}

TlsTransport* TlsTransport::OverSocket(EventLoop& loop, int fd, const SocketAddress* peer,
                                       std::unique_ptr<BaseProtocol> protocol, TlsSettings settings) {
  auto protocol_below = std::make_unique<TlsProtocol>();
  auto* made = new TlsTransport(loop, std::move(protocol), *protocol_below, std::move(settings));
  auto* below = new StreamTransport(loop, fd, std::move(protocol_below), peer);
  made->SetBelow(TransportPtr(below));
  below->Start();
  return made;
}

TlsTransport* TlsTransport::Upgrade(TransportPtr below, TlsSettings settings) {
  const bool reading = below->is_reading();
  below->PauseReading();
  auto protocol_below = std::make_unique<TlsProtocol>();
  TlsProtocol& in_between = *protocol_below;
  std::unique_ptr<BaseProtocol> protocol = below->ExchangeProtocol(std::move(protocol_below));
  auto* made = new TlsTransport(below->loop(), std::move(protocol), in_between, std::move(settings));
  made->upgraded_ = true;
  made->below_reading_ = false;
  made->set_connection_made();
  if (auto* bytes = dynamic_cast<ByteTransport*>(below.get()); bytes != nullptr) bytes->GivePlaceTo(*made);
  made->SetBelow(std::move(below));
  made->loop().Schedule(made->begin_);
  if (!reading) made->PauseReading();
  return made;
}

const TlsInfo* TlsTransport::tls() const {
  if (info_ == nullptr && opened() && !clear_) info_ = std::make_unique<TlsInfo>(session_->Info());
  return info_.get();
}

// ---------------------------------------------------------------------------------------------------- handshake

void TlsTransport::OnBelowMade() {
  if (ended()) return;
  if (!settings_.clear_text_allowed) return StartHandshake();
  state_ = State::kDetecting;
  StartTimeout(settings_.handshake_timeout);
}

void TlsTransport::Detect() {
  const char first = stash_.empty() ? lent_.front() : stash_.front().front();
  if (first == kHandshakeRecord) return StartHandshake();
  clear_ = true;
  PrepareBelow();
  Opened();
}

void TlsTransport::PrepareBelow() {
  // It says when it holds something, and when it does not any more.
  below_paused_ = below_->write_buffer_size() > 0;
  below_->SetWriteBufferLimits({.high = 0}).IgnoreError();
}

void TlsTransport::StartHandshake() {
  if (ended()) return;
  state_ = State::kHandshake;
  PrepareBelow();
  auto made = [this] {
    const TlsRandom::Scope randomness = Randomness();
    return TlsSession::Make(settings_, loop().os().WallNow());
  }();
  if (!made.ok()) return Fail(made.status());
  session_ = *std::move(made);
  BIO* const bio = BIO_new(TlsBio::Method());
  if (bio == nullptr) return Fail(absl::ResourceExhaustedError(absl::StrCat("TLS: ", TakeOpenSslErrors())));
  BIO_set_data(bio, this);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl(), bio, bio);
  StartTimeout(settings_.handshake_timeout);
  Handshake();
  Notify();
}

void TlsTransport::Handshake() {
  ERR_clear_error();
  const int result = [this] {
    const TlsRandom::Scope randomness = Randomness();
    return SSL_do_handshake(ssl());
  }();
  if (result == 1) {
    Flush();
    Opened();
  } else if (WantsMore(ssl(), result)) {
    Flush();
  } else {
    Fail(Failure("TLS handshake", ssl()));
  }
}

void TlsTransport::Opened() {
  timeout_.Cancel();
  state_ = State::kOpen;
  if (!clear_) session_->notes().handshake_messages = 0;
  upgraded_ ? StartMade() : Start();
}

void TlsTransport::StartTimeout(absl::Duration limit) {
  timeout_.Cancel();
  timeout_ = loop().CallLater(limit, [this] { OnTimeout(); });
}

void TlsTransport::OnTimeout() {
  if (!opened()) {
    return Fail(absl::UnavailableError(absl::StrCat("TLS handshake is taking longer than ",
                                                    absl::ToDoubleSeconds(settings_.handshake_timeout),
                                                    " seconds: aborting the connection")));
  }
  if (below_ != nullptr) below_->Abort();
  End(absl::DeadlineExceededError("TLS shutdown timed out"));
}

void TlsTransport::Fail(absl::Status reason) {
  if (ended()) return;
  LOG_IF(INFO, loop().debug()) << DebugString() << ": " << reason;
  Flush();
  failed_ = true;
  if (below_ != nullptr) below_->Close();
  End(std::move(reason));
}

// ---------------------------------------------------------------------------------------------------- from below

void TlsTransport::OnBelowData(absl::Span<const char> data) {
  if (ended()) return;
  LentInput lent(*this, data);
  TakeInput();
}

void TlsTransport::TakeInput() {
  if (ended()) return;
  if (state_ == State::kDetecting) Detect();
  if (state_ == State::kHandshake) Handshake();
  if (state_ == State::kOpen) Deliver();
  if (state_ == State::kShutdown) Discard();
}

bool TlsTransport::OnBelowEof() {
  below_eof_ = true;
  if (ended() || state_ == State::kShutdown) return false;
  if (!opened()) {
    Fail(OsError(ECONNRESET, "TLS handshake"));
    return false;
  }
  Deliver();
  // It is closed when we are.
  return !ended() && below_->CanWriteEof();
}

void TlsTransport::OnBelowLost(const absl::Status& reason) {
  const bool sent_all = !below_paused_;
  below_lost_ = true;
  if (ended()) return;
  if (!opened()) return End(reason.ok() ? OsError(ECONNRESET, "TLS handshake") : reason);
  if (state_ == State::kShutdown) return End(sent_all ? absl::OkStatus() : reason);
  if (is_closing()) return End(reason);
  // One without a half-open state: what has come is still to be read.
  if (reason.ok() && below_eof_) return Notify();
  End(reason.ok() && !clear_ ? Truncated() : reason);
}

size_t TlsTransport::Read(char* bytes, size_t size) noexcept {
  size_t n = std::min(size, stash_.size());
  if (n > 0) {
    stash_.CopyTo(bytes, n);
    stash_.Consume(n);
  } else if (n = std::min(size, lent_.size()); n > 0) {
    std::memcpy(bytes, lent_.data(), n);
    lent_.remove_prefix(n);
  }
  return n;
}

// ---------------------------------------------------------------------------------------------------- reading

bool TlsTransport::HasInput() const {
  if (!stash_.empty() || !lent_.empty() || below_eof_ || !failure_.ok()) return true;
  return !clear_ && (SSL_pending(ssl()) > 0 || (SSL_get_shutdown(ssl()) & SSL_RECEIVED_SHUTDOWN) != 0);
}

void TlsTransport::Deliver() {
  if (delivering_) return;
  delivering_ = true;
  const absl::Cleanup finish = [this] {
    delivering_ = false;
    Notify();
  };
  while (state_ == State::kOpen && (interest_ & kReadable) != 0 && HasInput()) OnReadable();
}

int64_t TlsTransport::DeviceReceive(absl::Span<char> bytes) {
  if (clear_) {
    const size_t n = Read(bytes.data(), bytes.size());
    return n > 0 || below_eof_ ? static_cast<int64_t>(n) : -EAGAIN;
  }
  if (!failure_.ok()) {
    Fail(std::exchange(failure_, absl::OkStatus()));
    return -EAGAIN;
  }
  ERR_clear_error();
  const uint32_t messages = session_->notes().handshake_messages;
  size_t received = 0;
  int result = 1;
  {
    const TlsRandom::Scope randomness = Randomness();
    while (received < bytes.size()) {
      size_t n = 0;
      result = SSL_read_ex(ssl(), bytes.data() + received, bytes.size() - received, &n);
      if (result != 1) break;
      received += n;
    }
  }
  received_ += received;
  const int error = result == 1 ? SSL_ERROR_NONE : SSL_get_error(ssl(), result);
  if (error == SSL_ERROR_WANT_READ && below_eof_) {
    failure_ = Truncated();
  } else if (error != SSL_ERROR_NONE && error != SSL_ERROR_WANT_READ && error != SSL_ERROR_ZERO_RETURN) {
    failure_ = Failure("TLS", ssl());
  } else if (TooManyMessages()) {
    failure_ = absl::ResourceExhaustedError("TLS: the peer sends too many handshake messages");
  }
  if (received == 0 && !failure_.ok()) {
    Fail(std::exchange(failure_, absl::OkStatus()));
    return -EAGAIN;
  }
  if (failure_.ok() && session_->notes().handshake_messages != messages) ReleaseWriteBuffer();
  Flush();
  if (received > 0) return static_cast<int64_t>(received);
  return error == SSL_ERROR_ZERO_RETURN ? 0 : -EAGAIN;
}

void TlsTransport::ReleaseWriteBuffer() {
  size_t written = 0;
  Encrypt("", 0, &written);
  ERR_clear_error();
}

bool TlsTransport::TooManyMessages() { return session_->notes().handshake_messages > kMessagesMax + (received_ >> 20); }

int TlsTransport::DeviceWatch(uint32_t interest) {
  interest_ = interest;
  Notify();
  return 0;
}

void TlsTransport::Notify() {
  if (below_ == nullptr || loop().IsClosed()) return;
  const bool open = state_ == State::kOpen && !ended();
  if (!open || (interest_ & kReadable) == 0) {
    readable_.Unlink();
  } else if (!delivering_ && !readable_.linked() && HasInput()) {
    loop().Schedule(readable_);
  }
  if (!open || (interest_ & kWritable) == 0 || below_paused_) {
    writable_.Unlink();
  } else if (!writable_.linked()) {
    loop().Schedule(writable_);
  }
  if (state_ == State::kNew) return;
  const bool read = !ended() && !below_eof_ && stash_.empty() && (!open || (interest_ & kReadable) != 0);
  if (read == below_reading_) return;
  below_reading_ = read;
  read ? below_->ResumeReading() : below_->PauseReading();
}

// ---------------------------------------------------------------------------------------------------- writing

int64_t TlsTransport::DeviceSend(absl::Span<const iovec> pieces) {
  if (below_lost_) return -EPIPE;
  if (state_ != State::kOpen || below_paused_) return -EAGAIN;
  if (clear_) return PassOn(pieces);
  char gathered[kRecordBytesMax];
  int64_t sent = 0;
  size_t next = 0;    // the piece to be sent next
  size_t offset = 0;  // of it, what has been
  while (next < pieces.size() && !below_paused_) {
    const char* data = static_cast<const char*>(pieces[next].iov_base) + offset;
    size_t size = std::min(pieces[next].iov_len - offset, kRecordBytesMax);
    if (size < kOwnRecordBytes && next + 1 < pieces.size()) {
      size = 0;
      for (size_t i = next, from = offset; i < pieces.size() && size < sizeof(gathered); ++i, from = 0) {
        const size_t n = std::min(pieces[i].iov_len - from, sizeof(gathered) - size);
        std::memcpy(gathered + size, static_cast<const char*>(pieces[i].iov_base) + from, n);
        size += n;
      }
      data = gathered;
    }
    size_t written = 0;
    if (size > 0) {
      if (!Encrypt(data, size, &written)) {
        Fail(Failure("TLS", ssl()));
        return -EPIPE;
      }
    }
    sent += static_cast<int64_t>(written);
    for (offset += written; next < pieces.size() && offset >= pieces[next].iov_len; ++next) {
      offset -= pieces[next].iov_len;
    }
    if (outgoing_.size() >= kBatchBytes) Flush();
  }
  Flush();
  return sent;
}

bool TlsTransport::Encrypt(const char* data, size_t size, size_t* written) {
  ERR_clear_error();
  const TlsRandom::Scope randomness = Randomness();
  return SSL_write_ex(ssl(), data, size, written) == 1;
}

int64_t TlsTransport::PassOn(absl::Span<const iovec> pieces) {
  int64_t sent = 0;
  for (const iovec& piece : pieces) {
    if (below_paused_) break;
    outgoing_.Append(absl::MakeConstSpan(static_cast<const char*>(piece.iov_base), piece.iov_len));
    sent += static_cast<int64_t>(piece.iov_len);
    if (outgoing_.size() >= kBatchBytes) Flush();
  }
  Flush();
  return sent;
}

void TlsTransport::DeliverWritable() {
  // Level-triggered: again while it is asked for, also after a Fatal.
  const absl::Cleanup again = [this] { Notify(); };
  OnWritable();
}

void TlsTransport::Flush() {
  if (outgoing_.empty()) return;
  if (below_ == nullptr || below_lost_ || said_goodbye_) return outgoing_.Clear();
  below_->Write(std::move(outgoing_));
}

size_t TlsTransport::DeviceBuffered() const { return below_ != nullptr ? below_->write_buffer_size() : 0; }

// ---------------------------------------------------------------------------------------------------- the end

void TlsTransport::DeviceClosing() {
  if (opened()) StartTimeout(settings_.shutdown_timeout);
}

bool TlsTransport::DeviceFinish() {
  if (!opened() || below_lost_) return true;
  state_ = State::kShutdown;
  if (clear_) {
    below_->Close();
    return false;
  }
  ERR_clear_error();
  {
    const TlsRandom::Scope randomness = Randomness();
    SSL_shutdown(ssl());
  }
  ERR_clear_error();
  Flush();
  said_goodbye_ = true;
  if (below_eof_ || (SSL_get_shutdown(ssl()) & SSL_RECEIVED_SHUTDOWN) != 0) {
    below_->Close();
  } else {
    // The peer answers in kind, or by an end of file. Closing before would reset the connection when something of it
    // is still under way (tickets), and with it what we have sent.
    if (below_->CanWriteEof()) below_->WriteEof();
    Discard();
  }
  Notify();
  return false;
}

void TlsTransport::Discard() {
  if (clear_) {
    stash_.Clear();
    lent_ = {};
    return;
  }
  char scratch[4 << 10];
  size_t n = 0;
  ERR_clear_error();
  int result = 1;
  {
    const TlsRandom::Scope randomness = Randomness();
    while (result == 1) result = SSL_read_ex(ssl(), scratch, sizeof(scratch), &n);
  }
  const bool more = WantsMore(ssl(), result);
  ERR_clear_error();
  outgoing_.Clear();
  if (more && !below_eof_) return;
  stash_.Clear();
  lent_ = {};
  below_->Close();
}

void TlsTransport::DeviceClose() {
  timeout_.Cancel();
  begin_.Unlink();
  readable_.Unlink();
  writable_.Unlink();
  stash_.Clear();
  outgoing_.Clear();
  if (below_ == nullptr) return;
  protocol_below_.set_above(nullptr);
  if (loop().IsClosed()) return below_.reset();
  if (failed_ && !below_lost_ && below_->write_buffer_size() > 0) {
    // An alert that the device has taken only in part: it was told to close behind it, and is cut off if that takes long.
    loop().CallLater(settings_.shutdown_timeout, [below = std::move(below_)] {});
    return;
  }
  below_->Abort();
  below_.reset();
}

std::string TlsTransport::DescribeDevice() const {
  return below_ != nullptr ? absl::StrCat("over ", below_->DebugString()) : "closed";
}

}  // namespace troupe::internal
