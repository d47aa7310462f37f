// Reply<T>: the answer to a unary call that has been sent.
//
// `absl::StatusOr<GetResponse> got = co_await kv.Get(request);` The call is under way before the expression that made
// it returns, so several are concurrent when they are made first and awaited afterwards.
//
// Life:      made (sent) -> awaited once -> the status, or the message.    Destroyed before the end: cancels the call.
// Errors:    every way in which the call can fail is a status; CANCELLED means that someone ended the call. The
//            awaiting task's own cancellation is thrown, and cancels the call when the Reply goes.
// Threading: the loop's.     Lifetime: may outlive channel and stub.
#ifndef TROUPE_RPC_REPLY_H_
#define TROUPE_RPC_REPLY_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "troupe/async/task.h"
#include "troupe/base/errors.h"
#include "troupe/rpc/internal/client_call.h"
#include "troupe/rpc/metadata.h"

namespace troupe {

namespace internal {

template <class T>
class ReplyLeaf final : public EndLeaf {
 public:
  using EndLeaf::EndLeaf;
  absl::StatusOr<T> await_resume() {
    Resumed();
    if (call_->reply_taken()) throw InvalidState("the reply was awaited before");
    absl::StatusOr<T> reply = T();
    absl::Status status = call_->TakeReply(*reply);
    if (!status.ok()) reply = std::move(status);
    return reply;
  }
};

// Cancels the call when the handle goes.
class OwnedCall {
 public:
  explicit OwnedCall(ClientCallRef call) : call_(std::move(call)) {}
  OwnedCall(OwnedCall&&) noexcept = default;
  OwnedCall& operator=(OwnedCall&& other) noexcept {
    if (this != &other) {
      if (call_) call_->Cancel();
      call_ = std::move(other.call_);
    }
    return *this;
  }
  ~OwnedCall() {
    if (call_) call_->Cancel();
  }

  // Ends the call now: it gives CANCELLED, unless it has ended already.
  void Cancel() { Get().Cancel(); }
  // What the server sent before its first message, and with its status; complete once the call has ended.
  const Metadata& initial_metadata() const { return Get().initial_metadata(); }
  const Metadata& trailers() const { return Get().trailers(); }
  bool done() const { return Get().ended(); }
  // The reply, or the message of a stream that was read last, came packed.
  bool message_compressed() const { return Get().last_compressed(); }

 protected:
  ClientCall& Get() const {
    if (!call_) throw InvalidState("the call was moved away");
    return *call_;
  }
  ClientCallRef call_;
};

}  // namespace internal

template <class T>
class Reply;

namespace internal {

template <class T>
Task<absl::StatusOr<T>> AwaitReply(Reply<T> reply) {
  absl::StatusOr<T> got = co_await reply;
  co_return got;
}

}  // namespace internal

template <class T>
class [[nodiscard]] Reply : public internal::OwnedCall {
 public:
  using value_type = T;
  using OwnedCall::OwnedCall;

  // For what takes tasks: CreateTask, RunUntilComplete, TaskGroup. Gather and WaitFor take the Reply itself.
  Task<absl::StatusOr<T>> AsTask() && { return internal::AwaitReply(std::move(*this)); }

  // Gives absl::StatusOr<T>, once.
  auto operator co_await() & {
    Get();
    return internal::ReplyLeaf<T>(call_);
  }
  auto operator co_await() && {
    Get();
    return internal::ReplyLeaf<T>(call_);
  }
};

// Told: a one-way call, `option (troupe.call) = { one_way: true }`: nobody waits for what becomes of it.
//
// `kv.Touch(request);` is all: dropping it does not cancel the call. Awaited, it gives OK as soon as the request is on
// its way (it may still be lost with its connection), or why it could not be sent.
class Told {
 public:
  explicit Told(internal::ClientCallRef call) : call_(std::move(call)) {}

  // Gives absl::Status.
  auto operator co_await() const { return internal::StatusLeaf(call_); }

 private:
  internal::ClientCallRef call_;
};

}  // namespace troupe

#endif  // TROUPE_RPC_REPLY_H_
