// Writer, Reader: the streams of a handler. ClientReader, ClientWriter, ClientReaderWriter: those of a caller.
//
// `co_await events.Write(event)` encodes the message before it returns and waits until there is room for the next one;
// false means that the call is over. `co_await puts.Read(put)` fills the caller's own message, which may be used again
// and again; false means that there are no more.
//
// Threading: the loop's. One task reads and any number write.
// Lifetime:  Writer and Reader are copyable handles that may outlive their call: they then give false. The three of the
//            caller own their call: destroyed before the end they cancel it.
#ifndef TROUPE_RPC_STREAM_H_
#define TROUPE_RPC_STREAM_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "troupe/rpc/compression.h"
#include "troupe/rpc/internal/call_core.h"
#include "troupe/rpc/internal/client_call.h"
#include "troupe/rpc/reply.h"

namespace troupe {

// The responses of a server-streaming or bidirectional rpc.
template <class T>
class Writer {
 public:
  explicit Writer(internal::CoreRef<internal::CallCore> core) : core_(std::move(core)) {}

  // Await it: `const bool more = co_await writer.Write(message);`
  [[nodiscard]] internal::WriteLeaf Write(const T& message, WriteOptions options = {}) {
    return internal::WriteLeaf(core_, core_->Send(message, options));
  }
  // Sends without waiting for room: for a message or two; what waits is charged to the connection. False: call over.
  bool WriteWithoutWaiting(const T& message, WriteOptions options = {}) { return core_->Send(message, options); }

 private:
  internal::CoreRef<internal::CallCore> core_;
};

// The requests of a client-streaming or bidirectional rpc.
template <class T>
class Reader {
 public:
  explicit Reader(internal::CoreRef<internal::CallCore> core) : core_(std::move(core)) {}

  // Await it: `while (true) { const bool more = co_await reader.Read(message); ... }`. `message` must live until then.
  [[nodiscard]] internal::ReadLeaf Read(T& message) { return internal::ReadLeaf(core_, message); }

 private:
  internal::CoreRef<internal::CallCore> core_;
};

// The caller's side of a server-streaming rpc.
template <class T>
class [[nodiscard]] ClientReader : public internal::OwnedCall {
 public:
  using OwnedCall::OwnedCall;
  [[nodiscard]] internal::ReadLeaf Read(T& message) {
    Get();
    return internal::ReadLeaf(call_.core(), message);
  }
  // The status of the call, when it has ended; messages that were not read are dropped.
  [[nodiscard]] internal::StatusLeaf Finish() {
    Get().StopReading();
    return internal::StatusLeaf(call_);
  }
};

// The caller's side of a client-streaming rpc.
template <class Request, class Response>
class [[nodiscard]] ClientWriter : public internal::OwnedCall {
 public:
  using OwnedCall::OwnedCall;
  [[nodiscard]] internal::WriteLeaf Write(const Request& message, WriteOptions options = {}) {
    const bool sent = Get().Send(message, options);
    return internal::WriteLeaf(call_.core(), sent);
  }
  // Half-closes, then the reply: absl::StatusOr<Response>.
  [[nodiscard]] internal::ReplyLeaf<Response> Finish() {
    Get().HalfClose();
    return internal::ReplyLeaf<Response>(call_);
  }
};

// The caller's side of a bidirectional rpc.
template <class Request, class Response>
class [[nodiscard]] ClientReaderWriter : public internal::OwnedCall {
 public:
  using OwnedCall::OwnedCall;
  [[nodiscard]] internal::WriteLeaf Write(const Request& message, WriteOptions options = {}) {
    const bool sent = Get().Send(message, options);
    return internal::WriteLeaf(call_.core(), sent);
  }
  // No more requests.
  void WritesDone() { Get().HalfClose(); }
  [[nodiscard]] internal::ReadLeaf Read(Response& message) {
    Get();
    return internal::ReadLeaf(call_.core(), message);
  }
  // Half-closes; then the status of the call, when it has ended. Messages that were not read are dropped.
  [[nodiscard]] internal::StatusLeaf Finish() {
    Get().HalfClose();
    Get().StopReading();
    return internal::StatusLeaf(call_);
  }
};

}  // namespace troupe

#endif  // TROUPE_RPC_STREAM_H_
