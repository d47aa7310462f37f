// Protocol, BufferedProtocol: what an application does with the bytes of one connection; asyncio's callbacks.
//
// Derive from Protocol to be handed what arrives; from BufferedProtocol to have it received into a buffer of your own.
// Services of protobuf types derive from generated actors instead and never see bytes.
//
// Life:      ConnectionMade -> [DataReceived*] -> [EofReceived] -> ConnectionLost -> end
//            PauseWriting and ResumeWriting alternate, any time between the first and the last (C-TRN-02, C-FLW-04).
// Threading: the loop's.
// Lifetime:  owned by its transport, and destroyed after it is done with it. Inside any callback a protocol may write,
//            pause, close, abort, replace itself or drop its transport: it lives at least until the callback has
//            returned.
// Errors:    what a callback throws is reported to the loop's exception handler. Out of the callbacks that concern
//            bytes, and out of ConnectionMade, it ends the connection; the protocol hears of it in ConnectionLost.
#ifndef TROUPE_NET_PROTOCOL_H_
#define TROUPE_NET_PROTOCOL_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "troupe/async/await_argument.h"

namespace troupe {

class Transport;

// What both kinds of protocol share. Derive from one of them, not from this.
class BaseProtocol {
 public:
  BaseProtocol(const BaseProtocol&) = delete;
  BaseProtocol& operator=(const BaseProtocol&) = delete;
  virtual ~BaseProtocol() = default;

  // The connection stands. Nothing arrives before this has returned.
  virtual void ConnectionMade(Transport& transport) { (void)transport; }
  // The peer will send no more. True keeps the write side open, until Close(); false closes the transport once what was
  // written has been sent (C-RD-04).
  virtual bool EofReceived() { return false; }
  // More bytes wait to be sent than the high mark allows. Comes inside the Write that crossed it (C-FLW-06).
  virtual void PauseWriting() {}
  // They have drained to the low mark.
  virtual void ResumeWriting() {}
  // The last callback. OK: the connection was closed or aborted at this end, or by the peer in good order.
  virtual void ConnectionLost(const absl::Status& reason) { (void)reason; }

 protected:
  // The transport, from ConnectionMade on, as long as it and this protocol belong together. Throws InvalidState
  // otherwise.
  Transport& transport() const;

 private:
  friend class Protocol;
  friend class BufferedProtocol;
  friend class Transport;
  enum class Kind : uint8_t { kStreaming, kBuffered };

  explicit BaseProtocol(Kind kind) : kind_(kind) {}

  const Kind kind_;
  Transport* transport_ = nullptr;
};

class Protocol : public BaseProtocol {
 public:
  Protocol() : BaseProtocol(Kind::kStreaming) {}

  // Some bytes, at least one; how a peer's writes are cut into them means nothing. `data` is lent until the return:
  // copy what is to be kept.
  virtual void DataReceived(absl::Span<const char> data) = 0;
};

class BufferedProtocol : public BaseProtocol {
 public:
  BufferedProtocol() : BaseProtocol(Kind::kBuffered) {}

  // Where to put what comes next: not empty (C-RD-10). `size_hint`: the size that would be best, -1 if nothing is
  // known, which is all that sockets say (C-RD-09). The buffer is written before the next BufferUpdated, and not after
  // it.
  virtual absl::Span<char> GetBuffer(int64_t size_hint) = 0;
  // The first `size` bytes of the buffer hold data; size > 0.
  virtual void BufferUpdated(size_t size) = 0;
};

// Makes the protocol of a new connection. What it throws costs that connection only.
using ProtocolFactory = absl::AnyInvocable<std::unique_ptr<BaseProtocol>()>;

namespace internal {

template <class Factory>
constexpr void CheckFactory() {
  static_assert(
      kFitsAwait<Factory>,
      "name the factory first and pass it by name, or wrap it in a ProtocolFactory: g++ 12 destroys a temporary "
      "that owns something twice where it is awaited");
}

}  // namespace internal

}  // namespace troupe

#endif  // TROUPE_NET_PROTOCOL_H_
