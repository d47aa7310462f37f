// ClientCall: the caller's side of one call, behind Reply, ClientReader, ClientWriter and ClientReaderWriter.
#ifndef TROUPE_RPC_INTERNAL_CLIENT_CALL_H_
#define TROUPE_RPC_INTERNAL_CLIENT_CALL_H_

#include <coroutine>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "google/protobuf/message_lite.h"
#include "troupe/async/internal/root.h"
#include "troupe/base/intrusive_list.h"
#include "troupe/rpc/internal/call_core.h"
#include "troupe/rpc/metadata.h"
#include "troupe/rpc/method.h"

namespace troupe::internal {

class EndLeaf;

class ClientCall : public CallCore {
 public:
  ClientCall(EventLoop& loop, const MethodInfo& method) : CallCore(loop), method_(method) {}

  const MethodInfo& method() const { return method_; }

  // ---- the application's side
  virtual void HalfClose() = 0;
  // The caller has lost interest. No effect on a call that has ended.
  void Cancel();
  bool ended() const { return ended_; }
  // REQUIRES: ended().
  const absl::Status& status() const { return status_; }
  const Metadata& initial_metadata() const { return initial_metadata_; }
  const Metadata& trailers() const { return trailers_; }
  // The only message of a reply, once the call has ended: OK, the call's status, or what is wrong with the reply.
  absl::Status TakeReply(google::protobuf::MessageLite& message);
  bool reply_taken() const { return reply_taken_; }
  // From now on messages are dropped instead of kept, so that the end can come (ClientReader::Finish).
  void StopReading();
  bool over() const override { return ended_; }
  bool HasRoom() const override { return ended_ || !IsBlocked(); }

 protected:
  // ---- for what carries the call
  // Tells the server that the caller has gone.
  virtual void SendCancel(const absl::Status& why) = 0;
  // Sent messages wait for room.
  virtual bool IsBlocked() const = 0;
  void DeliverInitialMetadata(Metadata metadata) { initial_metadata_ = std::move(metadata); }
  void DeliverMessage(absl::Span<const char> message, size_t charged, Packed packed);
  // The end; only the first one counts. Unread messages can still be read when the status is OK.
  void DeliverEnd(absl::Status status, Metadata trailers);
  void OnBadMessage() override;

 private:
  friend class EndLeaf;
  const MethodInfo& method_;
  bool ended_ = false;
  bool dropping_ = false;
  bool reply_taken_ = false;
  absl::Status status_;
  Metadata initial_metadata_;
  Metadata trailers_;
  IntrusiveList<EndLeaf> end_waiters_;
};

class ClientCallRef : public CoreRef<ClientCall> {
 public:
  using CoreRef::CoreRef;
  CoreRef<CallCore> core() const { return CoreRef<CallCore>::Share(*get()); }
};

// A call that cannot be made: it has ended with `status`.
ClientCallRef FailedCall(EventLoop& loop, const MethodInfo& method, const absl::Status& status);

// Waits for the end of a call.
class EndLeaf : public Leaf, public ListNode<> {
 public:
  explicit EndLeaf(ClientCallRef call) : call_(std::move(call)) {}
  ~EndLeaf() = default;
  bool await_ready() const { return call_->ended(); }
  void await_suspend(std::coroutine_handle<>) {
    call_->end_waiters_.PushBack(*this);
    Suspend();
  }
  std::string DescribeWait() const override;

 protected:
  ClientCallRef call_;

 private:
  friend class ClientCall;
  void CancelWait() override {
    Unlink();
    WakeCancelled();
  }
};

class StatusLeaf final : public EndLeaf {
 public:
  using EndLeaf::EndLeaf;
  absl::Status await_resume() {
    Resumed();
    return call_->status();
  }
};

}  // namespace troupe::internal

#endif  // TROUPE_RPC_INTERNAL_CLIENT_CALL_H_
