#include "troupe/rpc/internal/client_call.h"

#include "absl/strings/str_cat.h"

namespace troupe::internal {

void ClientCall::Cancel() {
  if (ended_) return;
  const absl::Status why = absl::CancelledError("the caller cancelled the call");
  SendCancel(why);
  DeliverEnd(why, {});
}

absl::Status ClientCall::TakeReply(google::protobuf::MessageLite& message) {
  reply_taken_ = true;
  if (!status_.ok()) return status_;
  if (TryRead(message) != ReadResult::kMessage) {
    if (!status_.ok()) return status_;  // it did not parse
    return absl::InternalError(absl::StrCat(method_.path, ": OK came without a reply"));
  }
  if (has_received()) return absl::InternalError(absl::StrCat(method_.path, ": more than one reply came"));
  return absl::OkStatus();
}

void ClientCall::StopReading() {
  dropping_ = true;
  DropReceived();
}

void ClientCall::DeliverMessage(absl::Span<const char> message, size_t charged, Packed packed) {
  if (ended_ || dropping_) return Consumed(charged);
  Deliver(message, charged, packed);
}

void ClientCall::DeliverEnd(absl::Status status, Metadata trailers) {
  if (ended_) return;
  ended_ = true;
  status_ = std::move(status);
  trailers_ = std::move(trailers);
  // A failed call gives nothing more: what came before its end was ordered before the failure only by chance.
  if (!status_.ok() && !method_.server_streams()) DropReceived();
  CloseReading();
  WakeWriters();
  while (!end_waiters_.empty()) end_waiters_.PopFront().Wake();
}

void ClientCall::OnBadMessage() {
  const absl::Status why =
      absl::InternalError(absl::StrCat(method_.path, ": a message from the server does not parse"));
  if (!ended_) {
    SendCancel(why);
    DeliverEnd(why, {});
  }
  status_ = why;
}

namespace {

class NoCall final : public ClientCall {
 public:
  NoCall(EventLoop& loop, const MethodInfo& method, const absl::Status& status) : ClientCall(loop, method) {
    DeliverEnd(status, {});
  }
  bool Send(const google::protobuf::MessageLite&, WriteOptions) override { return false; }
  void HalfClose() override {}

 private:
  void OnUnreferenced() override { delete this; }
  void Consumed(size_t) override {}
  void SendCancel(const absl::Status&) override {}
  bool IsBlocked() const override { return false; }
};

}  // namespace

ClientCallRef FailedCall(EventLoop& loop, const MethodInfo& method, const absl::Status& status) {
  return ClientCallRef(new NoCall(loop, method, status));
}

std::string EndLeaf::DescribeWait() const { return absl::StrCat("the end of the call ", call_->method().path); }

}  // namespace troupe::internal
