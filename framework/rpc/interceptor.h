// ServerInterceptor, ClientInterceptor: what stands around every call: who may, how long it took, what is sent with it.
//
// A coroutine that is given the call and `next`, as in Go. What stands before `co_await next()` happens before the
// handler, or before the call is sent; what stands behind it, when that has ended. Without next() it answers early:
//
//   troupe::Task<absl::Status> AdminsOnly(troupe::ServerInterception& rpc, troupe::Next next) {
//     if (rpc.metadata().Get("x-role") != "admin") co_return absl::PermissionDeniedError("admins only");
//     absl::Status status = co_await next();
//     rpc.call().trailers().Add("x-checked", "yes");
//     co_return status;      // this one, or another
//   }
//   server.AddInterceptor(AdminsOnly);
//
// Order:     as they were added: the first sees a call first and its end last; next() is the next one, at last the handler
//            or the wire. Once: a second call of it throws InvalidState.
// Which:     every call of a method that the server has; every call that is made by the channel, its sessions' too. None
//            installed cost nothing.
// Errors:    what one throws ends the call as a handler's would, and what one changes is changed for all further out.
// Deadline:  runs meanwhile. A server's gets Cancelled at its co_await, as a handler does, when it passes, or the caller
//            is gone. A client's gets it inside next() as the call's status; before next() the call ends and the
//            interceptor gets Cancelled. A caller that cancels its call ends it at once, whatever stands around it.
// Threading: the loop's, and shared by all calls: what it keeps of one lives in its own frame.
// Lifetime:  `rpc` and what it gives live until the coroutine is done. A lambda with captures must not be a coroutine
//            itself: it calls one and returns its task.
#ifndef TROUPE_RPC_INTERCEPTOR_H_
#define TROUPE_RPC_INTERCEPTOR_H_

#include <cstddef>
#include <functional>

#include "absl/status/status.h"
#include "google/protobuf/message_lite.h"
#include "troupe/async/task.h"
#include "troupe/base/monotonic_time.h"
#include "troupe/rpc/call.h"
#include "troupe/rpc/metadata.h"
#include "troupe/rpc/method.h"

namespace troupe {

// Goes on with the call. Its task gives the status with which that ended.
class Next {
 public:
  using Go = Task<absl::Status> (*)(void* chain, size_t at);
  Next(Go go, void* chain, size_t at) : go_(go), chain_(chain), at_(at) {}

  Task<absl::Status> operator()() const { return go_(chain_, at_); }

 private:
  Go go_;
  void* chain_;
  size_t at_;
};

// May look at a message, and change it.
using MessageHook = std::function<void(google::protobuf::MessageLite& message)>;

// A call that a server was sent.
class ServerInterception {
 public:
  virtual Call& call() = 0;
  // What came with the call. What is changed before next() reaches the handler so.
  virtual Metadata& metadata() = 0;
  // The only request; null where the client streams.
  virtual google::protobuf::MessageLite* request() = 0;
  // What the handler has answered, behind next(); what is answered, of an early OK. Null where the server streams.
  virtual google::protobuf::MessageLite* response() = 0;
  // Of streams, from here on: each request as the handler reads it, each response before it is sent. As they were
  // installed: the first hook is called first.
  virtual void OnRead(MessageHook hook) = 0;
  virtual void OnWrite(MessageHook hook) = 0;

 protected:
  ~ServerInterception() = default;
};
using ServerInterceptor = std::function<Task<absl::Status>(ServerInterception& rpc, Next next)>;

// A call that a client makes.
class ClientInterception {
 public:
  virtual const MethodInfo& method() const = 0;
  // InfiniteFuture() if there is none.
  virtual MonotonicTime deadline() const = 0;
  // What is sent with the call, before next().
  virtual Metadata& metadata() = 0;
  // The only request, to be changed before next(); null where the client streams.
  virtual google::protobuf::MessageLite* request() = 0;
  // Behind next(): what the server has said.
  virtual const Metadata& initial_metadata() const = 0;
  virtual Metadata& trailers() = 0;
  // The only response: of a call that ended OK, behind next(); of an early OK what it is to be. Null where the server
  // streams.
  virtual google::protobuf::MessageLite* reply() = 0;
  // As ServerInterception's: each response as the caller reads it, each request before it is sent.
  virtual void OnRead(MessageHook hook) = 0;
  virtual void OnWrite(MessageHook hook) = 0;

 protected:
  ~ClientInterception() = default;
};
using ClientInterceptor = std::function<Task<absl::Status>(ClientInterception& rpc, Next next)>;

}  // namespace troupe

#endif  // TROUPE_RPC_INTERCEPTOR_H_
