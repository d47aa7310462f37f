// TlsTransport: TLS over any transport, as a device of ByteTransport. TlsProtocol: its end in the transport below.
//
//     application's protocol
//       TlsTransport       a ByteTransport, whose device encrypts and decrypts
//         TlsProtocol      what the transport below calls
//           Transport      a socket, memory, TLS again: owned by the TlsTransport
//
// What arrives is lent by the transport below for one DataReceived; OpenSSL reads it from there (a BIO of ours), and
// only what the application does not take now is copied. Nothing below is read while it does not read. What OpenSSL has
// to send goes below as chunks; the transport below pauses this one whenever it holds any of them, so that of unsent
// bytes it never has more than kBatchBytes and what the last one of them brought.
//
// Life:      made -> SetBelow -> handshake -> open -> (Close) close_notify sent -> the peer's, or its end of file, or the
//            shutdown's time limit -> the transport below closed -> lost
// Invariants: 1. No user code runs, and no other transport is called, inside a call to OpenSSL.
//            2. Nothing is written below but what OpenSSL made, and nothing read is given above but what it made; unless
//            `clear_`, which is decided once, by the first byte of the peer, before anything was written or given.
//            3. Below reads only if all that has been read was consumed.
#ifndef TROUPE_NET_INTERNAL_TLS_TRANSPORT_H_
#define TROUPE_NET_INTERNAL_TLS_TRANSPORT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "troupe/base/byte_queue.h"
#include "troupe/base/socket_address.h"
#include "troupe/base/tls_info.h"
#include "troupe/loop/event_loop.h"
#include "troupe/loop/handle.h"
#include "troupe/loop/runnable.h"
#include "troupe/net/internal/byte_transport.h"
#include "troupe/net/internal/tls_random.h"
#include "troupe/net/internal/tls_settings.h"
#include "troupe/net/internal/tls_state.h"
#include "troupe/net/protocol.h"
#include "troupe/net/tls_context.h"
#include "troupe/net/transport.h"

namespace troupe::internal {

class TlsTransport;

class TlsProtocol final : public Protocol {
 public:
  // Who hears what it is told; null: nobody.
  void set_above(TlsTransport* above) { above_ = above; }

  void ConnectionMade(Transport& transport) override;
  void DataReceived(absl::Span<const char> data) override;
  bool EofReceived() override;
  void PauseWriting() override;
  void ResumeWriting() override;
  void ConnectionLost(const absl::Status& reason) override;

 private:
  TlsTransport* above_ = nullptr;
};

class TlsTransport final : public ByteTransport {
 public:
  // Over a transport that is being made with `protocol_below`, and is given to SetBelow() then. The handshake starts with
  // its ConnectionMade (C-TLS-01).
  TlsTransport(EventLoop& loop, std::unique_ptr<BaseProtocol> protocol, TlsProtocol& protocol_below,
               TlsSettings settings);
  void SetBelow(TransportPtr below);
  // Both over a socket that is connected. `peer`: as accept(2) gave it; null: the kernel is asked.
  static TlsTransport* OverSocket(EventLoop& loop, int fd, const SocketAddress* peer,
                                  std::unique_ptr<BaseProtocol> protocol, TlsSettings settings);
  // Over one that stands, whose protocol goes up. Its reading stops here and now; the handshake is queued (C-STL-02).
  static TlsTransport* Upgrade(TransportPtr below, TlsSettings settings);

  // The handshake has succeeded.
  bool opened() const { return state_ == State::kOpen || state_ == State::kShutdown; }

  const SocketAddress& peer() const override { return peer_; }
  const SocketAddress& local() const override { return local_; }
  int descriptor() const override { return below_ != nullptr ? below_->descriptor() : -1; }
  const TlsInfo* tls() const override;

 private:
  friend class TlsProtocol;
  enum class State : uint8_t { kNew, kDetecting, kHandshake, kOpen, kShutdown };

  // Readiness of the layer, queued as a descriptor's is.
  class Ready final : public troupe::Runnable {
   public:
    Ready(TlsTransport& transport, void (TlsTransport::*run)()) : transport_(transport), run_(run) {}
    void Run() override { (transport_.*run_)(); }
    std::string Describe() const override { return transport_.DebugString(); }

   private:
    TlsTransport& transport_;
    void (TlsTransport::* const run_)();
  };
  class LentInput;
  friend struct TlsBio;

  ~TlsTransport() override { TlsTransport::DeviceClose(); }

  // ---- from below.
  void OnBelowMade();
  void OnBelowData(absl::Span<const char> data);
  bool OnBelowEof();
  void OnBelowLost(const absl::Status& reason);

  // ---- the device.
  int64_t DeviceSend(absl::Span<const iovec> pieces) override;
  int64_t DeviceReceive(absl::Span<char> bytes) override;
  int DeviceWatch(uint32_t interest) override;
  void DeviceShutdownWrite() override {}  // never called: CanWriteEof() is false
  void DeviceClose() override;
  std::string DescribeDevice() const override;
  size_t DeviceBuffered() const override;
  void DeviceClosing() override;
  bool DeviceFinish() override;

  // Waits for the first byte, which says what the peer speaks.
  void Detect();
  void StartHandshake();
  void Handshake();
  void Opened();
  void PrepareBelow();
  void StartTimeout(absl::Duration limit);
  void OnTimeout();
  // Whatever has arrived goes where the state wants it.
  void TakeInput();
  // Gives to the application while it reads and there is something.
  void Deliver();
  void DeliverWritable();
  // False: OpenSSL has failed.
  bool Encrypt(const char* data, size_t size, size_t* written);
  // Sends in clear text.
  int64_t PassOn(absl::Span<const iovec> pieces);
  // After our close_notify: what still comes is thrown away.
  void Discard();
  // The application has something to be given: bytes, an end, or a failure.
  bool HasInput() const;
  // Queues what is due, and lets below read or not.
  void Notify();
  void Flush();
  // Tells the peer (if OpenSSL has an alert for it) and ends.
  void Fail(absl::Status reason);
  // The peer's handshake messages are bounded once the handshake is over.
  bool TooManyMessages();
  // OpenSSL makes the buffer for each message of a handshake that it is sent, a ticket for instance, and gives it back
  // after a write only: of nothing, which sends nothing.
  void ReleaseWriteBuffer();
  SSL* ssl() const { return session_->ssl(); }
  // To be held around each call of OpenSSL's.
  TlsRandom::Scope Randomness() const { return TlsRandom::Scope(random_.get()); }

  // ---- OpenSSL's, inside its calls.
  size_t Read(char* bytes, size_t size) noexcept;
  void Append(const char* bytes, size_t size) noexcept { outgoing_.Append(absl::MakeConstSpan(bytes, size)); }

  TlsSettings settings_;
  TlsProtocol& protocol_below_;  // below_'s, while that is not null
  TransportPtr below_;           // null once closed
  SocketAddress peer_;           // below's
  SocketAddress local_;
  std::unique_ptr<TlsSession> session_;
  const std::unique_ptr<TlsRandom> random_;  // null: OpenSSL's own
  mutable std::unique_ptr<TlsInfo> info_;  // made when first asked for

  State state_ = State::kNew;
  bool upgraded_ = false;
  bool clear_ = false;         // allowed, and the peer speaks it: this passes bytes on
  bool below_paused_ = false;  // it holds unsent bytes
  bool below_reading_ = true;
  bool below_eof_ = false;
  bool below_lost_ = false;
  bool delivering_ = false;
  bool said_goodbye_ = false;  // close_notify is sent, and nothing is to follow it
  bool failed_ = false;        // the last that it says is an alert
  uint32_t interest_ = 0;
  absl::Status failure_;         // for the application, once it has read what came before
  uint64_t received_ = 0;        // decrypted bytes
  absl::Span<const char> lent_;  // of the DataReceived below that is running
  ByteQueue stash_;              // what came before `lent_` and was not taken
  ByteQueue outgoing_;           // made by OpenSSL and not yet given below
  TimerHandle timeout_;          // the handshake's, then the shutdown's
  Ready begin_{*this, &TlsTransport::StartHandshake};
  Ready readable_{*this, &TlsTransport::TakeInput};
  Ready writable_{*this, &TlsTransport::DeliverWritable};
};

}  // namespace troupe::internal

#endif  // TROUPE_NET_INTERNAL_TLS_TRANSPORT_H_
