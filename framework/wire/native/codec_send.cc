// The sending half of NativeCodec: calls, messages, replies, and what waits for credit.
#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "troupe/wire/native/codec.h"
#include "troupe/wire/native/limits.h"

namespace troupe {

using google::protobuf::MessageLite;
using native::FrameType;
using native::kFlagBegin;
using native::kFlagClose;
using native::kFlagHead;
using native::kFlagMore;
using native::kFrameHeaderBytes;
using native::kMessageCost;
using native::kPieceBytes;

absl::Status NativeCodec::CheckSize(size_t bytes) const {
  const size_t most = std::min(peer_message_max_, native::kMessageLimit);
  if (bytes <= most) return absl::OkStatus();
  counters_.messages_too_large.Add();
  return absl::ResourceExhaustedError(absl::StrCat("message of ", bytes, " bytes, the peer takes at most ", most));
}

void NativeCodec::Serialize(const MessageLite& message, size_t size, char* to) const {
  auto* bytes = reinterpret_cast<uint8_t*>(to);
  if (!options_.deterministic) {
    message.SerializeWithCachedSizesToArray(bytes);
    return;
  }
  google::protobuf::io::ArrayOutputStream stream(bytes, static_cast<int>(size));
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  message.SerializeWithCachedSizes(&coded);
}

Bytes NativeCodec::Serialized(const MessageLite& message, size_t size) const {
  if (size == 0) return Bytes();
  return Bytes::Make(size, [&](char* to) { Serialize(message, size, to); });
}

absl::StatusOr<Bytes> NativeCodec::Encode(const MessageLite& message) const {
  const size_t size = message.ByteSizeLong();
  if (absl::Status fits = CheckSize(size); !fits.ok()) return absl::OutOfRangeError(fits.message());
  return Serialized(message, size);
}

void NativeCodec::BeforeFrame(FrameType type) {
  if (output_.empty()) acks_unsent_ = caused_unsent_ = 0;  // what stood here has been read, as far as we can know
  if (type <= FrameType::kMetadata) ping_strikes_ = 0;
}

char* NativeCodec::BeginFrame(size_t payload, FrameType type, uint8_t flags, CallId id) {
  BeforeFrame(type);
  char* to = output_.Reserve(kFrameHeaderBytes + payload).data();
  native::WriteFrameHeader(to, payload, type, flags, id);
  return to + kFrameHeaderBytes;
}

void NativeCodec::SendFrame(FrameType type, uint8_t flags, CallId id, absl::string_view payload) {
  char* to = BeginFrame(payload.size(), type, flags, id);
  if (!payload.empty()) std::memcpy(to, payload.data(), payload.size());
  output_.Commit(kFrameHeaderBytes + payload.size());
}

void NativeCodec::SendCredit(CallId id, uint32_t credit) {
  char payload[native::kCreditBytesMax];
  const size_t size = native::WriteCredit(payload, credit) - payload;
  SendFrame(FrameType::kCredit, 0, id, absl::string_view(payload, size));
  ++caused_unsent_;
}

bool NativeCodec::MaySendNow(const Call& call, size_t size) const {
  return size <= kPieceBytes && call.waiting_first == nullptr && ready_.empty() &&
         size + kMessageCost <= call.send_credit && size + kMessageCost <= send_credit_;
}

void NativeCodec::Spend(Call& call, size_t cost) {
  call.send_credit -= static_cast<uint32_t>(cost);
  send_credit_ -= static_cast<uint32_t>(cost);
}

absl::StatusOr<CallId> NativeCodec::StartCall(const OutgoingCall& outgoing, CallEvents& events) {
  if (!dead_.ok()) return absl::UnavailableError(dead_.message());
  if (peer_going_away_) return absl::UnavailableError("the peer is going away");
  if (next_id_ == 0) return absl::UnavailableError("the connection has used up its call ids");
  if (calls_of_ours_ >= peer_calls_max_) {
    room_wanted_ = true;
    return absl::ResourceExhaustedError(absl::StrCat(calls_of_ours_, " calls in flight, the peer takes no more"));
  }
  const bool has_message = outgoing.message != nullptr || outgoing.encoded != nullptr;
  size_t size = 0;
  if (outgoing.encoded != nullptr) {
    size = outgoing.encoded->size();
  } else if (outgoing.message != nullptr) {
    size = outgoing.message->ByteSizeLong();
  }
  if (absl::Status fits = CheckSize(size); !fits.ok()) return absl::OutOfRangeError(fits.message());
  if (outgoing.path.empty() || outgoing.path.size() > native::kPathBytesMax) {
    return absl::OutOfRangeError(absl::StrCat("method path of ", outgoing.path.size(), " bytes, 1 to 1024"));
  }
  if (outgoing.metadata != nullptr && outgoing.metadata->bytes() > peer_metadata_max_) {
    counters_.metadata_refused.Add();
    return absl::OutOfRangeError(
        absl::StrCat("metadata of ", outgoing.metadata->bytes(), " bytes, the peer takes ", peer_metadata_max_));
  }
  int64_t method = -1;
  absl::string_view path;  // to be sent
  bool new_method = false;
  const auto place = std::make_pair(outgoing.path.data(), outgoing.path.size());
  if (place == last_path_) {
    method = last_method_;
  } else if (auto numbered = our_methods_.find(place); numbered != our_methods_.end()) {
    method = numbered->second;
    last_path_ = place;
    last_method_ = numbered->second;
  } else {
    path = outgoing.path;
    new_method = our_methods_.size() < native::kMethodsMax;
    if (new_method) method = static_cast<int64_t>(our_methods_.size());
  }
  const size_t head = native::CallHeadBytes(method, path, outgoing.timeout, outgoing.metadata);
  if (head > native::kHeadBytesMax) return absl::OutOfRangeError(absl::StrCat("head of a call of ", head, " bytes"));
  if (new_method) our_methods_.emplace(place, static_cast<uint32_t>(method));

  auto* call = new Call;
  call->id = next_id_;
  call->ours = true;
  call->events = &events;
  call->receive_credit = options_.call_credit_bytes;
  call->send_credit = peer_call_credit_;
  next_id_ = next_id_ >= UINT32_MAX - 1 ? 0 : next_id_ + 2;
  table_.Insert(*call);
  calls_.PushBack(*call);
  ++calls_of_ours_;
  counters_.calls_opened_by_us.Add();

  const bool whole = has_message && MaySendNow(*call, size);
  const size_t payload = native::VarintBytes(head) + head + (whole ? size : 0);
  char* to = BeginFrame(payload, FrameType::kCall, kFlagHead | (whole ? kFlagBegin | kFlagClose : 0), call->id);
  to = native::WriteVarint(to, head);
  to = native::WriteCallHead(to, method, path, outgoing.timeout, outgoing.metadata);
  if (whole && outgoing.encoded == nullptr) {
    Serialize(*outgoing.message, size, to);
  } else if (whole && size > 0) {
    std::memcpy(to, outgoing.encoded->data(), size);
  }
  output_.Commit(kFrameHeaderBytes + payload);
  call->send_done = has_message;
  if (whole) {
    Spend(*call, size + kMessageCost);
    counters_.messages_sent.Add();
  } else if (has_message) {
    call->close_waits = true;
    outgoing.encoded != nullptr ? Enqueue(*call, *outgoing.encoded) : Enqueue(*call, *outgoing.message, size);
  }
  return call->id;
}

absl::Status NativeCodec::SendMessage(CallId id, const MessageLite& message, Packing) {
  Call* call = FindToSend(id);
  if (call == nullptr) return absl::OkStatus();
  const size_t size = message.ByteSizeLong();
  if (absl::Status fits = CheckSize(size); !fits.ok()) return fits;
  call->metadata_done |= !call->ours;
  if (!MaySendNow(*call, size)) {
    Enqueue(*call, message, size);
    return absl::OkStatus();
  }
  Serialize(message, size, BeginFrame(size, FrameType::kMessage, kFlagBegin, id));
  output_.Commit(kFrameHeaderBytes + size);
  Spend(*call, size + kMessageCost);
  counters_.messages_sent.Add();
  return absl::OkStatus();
}

void NativeCodec::Enqueue(Call& call, const MessageLite& message, size_t size) {
  Enqueue(call, Serialized(message, size));
}

void NativeCodec::Enqueue(Call& call, Bytes message) {
  auto* waiting = new Waiting;
  const size_t size = message.size();
  waiting->size = size;
  waiting->rest = std::move(message);
  (call.waiting_last == nullptr ? call.waiting_first : call.waiting_last->next) = waiting;
  call.waiting_last = waiting;
  call.waiting_bytes += size + kMessageCost;
  waiting_bytes_ += size + kMessageCost;
  if (call.reply_waits) waiting_reply_bytes_ += size + kMessageCost;
  counters_.messages_sent.Add();
  Push(call);
}

void NativeCodec::Push(Call& call) {
  call.send_room_wanted = true;
  if (call.ListNode<InTurn>::linked()) return;
  if (!ready_.empty()) return ready_.PushBack(call);
  while (true) {
    switch (SendPiece(call)) {
      case Sent::kPiece:
        break;
      case Sent::kAll:
        call.send_room_wanted = false;
        return Drained(call);
      case Sent::kNoCallCredit:
        return;
      case Sent::kNoConnectionCredit:
        return ready_.PushBack(call);
      case Sent::kOthersFlow:
        return dammed_.PushBack(call);
    }
  }
}

void NativeCodec::Pump() {
  while (!ready_.empty()) {
    Call& call = ready_.front();
    const Sent sent = SendPiece(call);
    if (sent == Sent::kNoConnectionCredit) return;
    call.ListNode<InTurn>::Unlink();
    if (sent == Sent::kPiece) {
      ready_.PushBack(call);
    } else if (sent == Sent::kOthersFlow) {
      dammed_.PushBack(call);
    } else if (sent == Sent::kAll) {
      CallEvents* events = call.send_room_wanted ? call.events : nullptr;
      call.send_room_wanted = false;
      Drained(call);
      if (events != nullptr) events->OnSendRoom();
    }
  }
}

NativeCodec::Sent NativeCodec::SendPiece(Call& call) {
  Waiting& waiting = *call.waiting_first;
  const size_t overhead = waiting.begun ? 0 : kMessageCost + (waiting.size > kPieceBytes ? 5 : 0);
  const size_t left = waiting.rest.size();
  // All of a small rest, or at least so much that the frame is worth it.
  const size_t least = overhead + std::min<size_t>(left, native::kWorthwhileCredit);
  if (call.send_credit < least) return Sent::kNoCallCredit;
  if (send_credit_ < least) return Sent::kNoConnectionCredit;
  const size_t credit = std::min(call.send_credit, send_credit_);
  size_t piece = std::min({left, kPieceBytes, credit - overhead});
  // What a reader has of messages that are not whole is bounded. So one that is not sent at once is sent when its call's
  // credit covers all of it, not many at a time; until then the reader is told how large it will be, and no more.
  if (piece < left && !waiting.flowing) {
    constexpr size_t kLengthBytesMost = 5;
    const size_t all = left + (waiting.begun ? 0 : kMessageCost + kLengthBytesMost);
    if (call.send_credit >= all) {
      if (flowing_ >= native::kFlowingMax) return Sent::kOthersFlow;
      ++flowing_;
      waiting.flowing = true;
    } else if (waiting.begun) {
      return Sent::kNoCallCredit;
    } else {
      piece = std::min<size_t>(piece, native::kWorthwhileCredit);
    }
  }
  uint8_t flags = 0;
  char length[10];
  size_t length_bytes = 0;
  if (!waiting.begun) {
    flags |= kFlagBegin;
    if (piece < left) {
      length_bytes = native::WriteVarint(length, waiting.size) - length;
      // Where the length was not reckoned with above, it goes at the cost of the piece.
      piece = std::min(piece, credit - kMessageCost - length_bytes);
    }
  }
  if (piece < left) flags |= kFlagMore;
  const bool last = piece == left && waiting.next == nullptr;
  if (last && call.close_waits) {
    flags |= kFlagClose;
    call.close_waits = false;
  }
  BeforeFrame(FrameType::kMessage);
  char* to = output_.Reserve(kFrameHeaderBytes + length_bytes).data();
  native::WriteFrameHeader(to, length_bytes + piece, FrameType::kMessage, flags, call.id);
  std::memcpy(to + kFrameHeaderBytes, length, length_bytes);
  output_.Commit(kFrameHeaderBytes + length_bytes);
  call.stalled = 0;
  output_.Append(waiting.rest.Slice(0, piece));
  waiting.rest.RemovePrefix(piece);
  Spend(call, (waiting.begun ? 0 : kMessageCost) + length_bytes + piece);
  const size_t gone = (waiting.begun ? 0 : kMessageCost) + piece;
  call.waiting_bytes -= gone;
  waiting_bytes_ -= gone;
  if (call.reply_waits) waiting_reply_bytes_ -= gone;
  waiting.begun = true;
  if (piece == left) {
    call.waiting_first = waiting.next;
    if (call.waiting_first == nullptr) call.waiting_last = nullptr;
    StopFlowing(waiting);
    delete &waiting;
  }
  return last ? Sent::kAll : Sent::kPiece;
}

void NativeCodec::StopFlowing(Waiting& waiting) {
  if (!std::exchange(waiting.flowing, false)) return;
  --flowing_;
  // Some flow still and wait for credit, or this is inside Pump(): it will be sent.
  if (!dammed_.empty()) ready_.PushBack(dammed_.PopFront());
}

void NativeCodec::Drained(Call& call) {
  if (call.close_waits) {
    call.close_waits = false;
    SendFrame(FrameType::kMessage, kFlagClose, call.id, {});
  }
  if (call.ending != nullptr) {
    const std::unique_ptr<std::string> head = std::move(call.ending);
    SendEnd(call, *head, nullptr, 0);
  }
}

void NativeCodec::SendEnd(Call& call, absl::string_view head, const MessageLite* message, size_t size) {
  const size_t head_bytes = head.empty() ? 0 : native::VarintBytes(head.size()) + head.size();
  const uint8_t flags = (head.empty() ? 0 : kFlagHead) | (message == nullptr ? 0 : kFlagBegin);
  char* to = BeginFrame(head_bytes + size, FrameType::kEnd, flags, call.id);
  if (!head.empty()) {
    to = native::WriteVarint(to, head.size());
    std::memcpy(to, head.data(), head.size());
    to += head.size();
  }
  if (message != nullptr) {
    Serialize(*message, size, to);
    Spend(call, size + kMessageCost);
    counters_.messages_sent.Add();
  }
  output_.Commit(kFrameHeaderBytes + head_bytes + size);
  Remove(call);
  // What a call brought that came to something pays for some mistakes; one that was refused pays for none.
  if (message == nullptr && !head.empty()) return;
  resets_.Refill();
  glitches_.Refill();
}

void NativeCodec::SendHalfClose(CallId id) {
  Call* call = FindToSend(id);
  if (call == nullptr || !call->ours) return;
  call->send_done = true;
  call->close_waits = true;
  if (call->waiting_first == nullptr) Drained(*call);
}

void NativeCodec::SendInitialMetadata(CallId id, const Metadata& metadata) {
  Call* call = FindToSend(id);
  if (call == nullptr || call->ours || call->metadata_done) return;
  call->metadata_done = true;
  const size_t size = native::MetadataBlockBytes(metadata);
  if (metadata.bytes() > peer_metadata_max_ || size > native::kHeadBytesMax) {
    counters_.metadata_refused.Add();
    call->failure = absl::ResourceExhaustedError(
        absl::StrCat("initial metadata of ", metadata.bytes(), " bytes, the peer takes ", peer_metadata_max_));
    return;
  }
  native::WriteMetadataBlock(BeginFrame(size, FrameType::kMetadata, 0, id), metadata);
  output_.Commit(kFrameHeaderBytes + size);
}

void NativeCodec::SendReply(CallId id, const MessageLite* message, const absl::Status& status,
                            const Metadata* trailers) {
  Call* call = FindToSend(id);
  if (call == nullptr || call->ours) return;
  size_t size = message == nullptr ? 0 : message->ByteSizeLong();
  absl::Status failure = call->failure;
  if (absl::Status fits = CheckSize(size); !fits.ok()) failure = std::move(fits);
  const bool has_trailers = trailers != nullptr && !trailers->empty();
  if (has_trailers && trailers->bytes() > peer_metadata_max_) {
    counters_.metadata_refused.Add();
    failure = absl::ResourceExhaustedError(
        absl::StrCat("trailers of ", trailers->bytes(), " bytes, the peer takes ", peer_metadata_max_));
    trailers = nullptr;
  }
  const absl::Status& result = status.ok() && !failure.ok() ? failure : status;
  if (!failure.ok()) {
    message = nullptr;
    size = 0;
  }
  std::string head;
  if (!result.ok() || has_trailers) {
    head = native::MakeEndHead(result, trailers);
    if (head.size() > native::kHeadBytesMax) {
      counters_.metadata_refused.Add();
      head = native::MakeEndHead(
          result.ok() ? absl::ResourceExhaustedError("trailers do not fit a frame")
                      : absl::Status(result.code(), result.message().substr(0, native::kShortMessageBytes)),
          nullptr);
      if (result.ok()) {
        message = nullptr;
        size = 0;
      }
    }
  }
  call->send_done = true;
  if (call->waiting_first == nullptr && (message == nullptr || MaySendNow(*call, size))) {
    return SendEnd(*call, head, message, size);
  }
  call->ending = std::make_unique<std::string>(std::move(head));
  call->reply_waits = call->waiting_first == nullptr;
  if (message != nullptr) Enqueue(*call, *message, size);
}

size_t NativeCodec::WaitingBytes(CallId id) const {
  const Call* call = Find(id);
  return call == nullptr ? 0 : call->waiting_bytes;
}

void NativeCodec::Reset(CallId id, const absl::Status& why) {
  Call* call = Find(id);
  if (call == nullptr) return;
  if (dead_.ok()) {
    const bool not_started = why.GetPayload(kNotStartedPayload).has_value();
    SendFrame(
        FrameType::kReset, 0, id,
        native::MakeReset(absl::Status(why.code(), why.message().substr(0, native::kShortMessageBytes)), not_started));
  }
  Remove(*call);
}

void NativeCodec::Forget(CallId id) {
  Call* call = Find(id);
  if (call == nullptr) return;
  call->events = nullptr;
  call->unread = 0;
  GrantCall(*call);
}

void NativeCodec::DropWaiting(Call& call) {
  while (Waiting* waiting = call.waiting_first) {
    call.waiting_first = waiting->next;
    StopFlowing(*waiting);
    delete waiting;
  }
  call.waiting_last = nullptr;
  waiting_bytes_ -= call.waiting_bytes;
  if (call.reply_waits) waiting_reply_bytes_ -= call.waiting_bytes;
  call.waiting_bytes = 0;
}

void NativeCodec::Remove(Call& call) {
  DropWaiting(call);
  partial_bytes_ -= std::exchange(call.partial_capacity, 0);
  DropUnfinished(call);
  AllowLate(call.receive_credit, call.receive_done);
  --(call.ours ? calls_of_ours_ : calls_of_peer_);
  table_.Erase(call.id);
  call.assembling = false;
  ReturnAssembly(call);
  delete &call;
}

void NativeCodec::AllowLate(uint32_t credit, bool done) {
  // What may still come for a call that is over: as many frames as its credit pays for, and some without cost.
  const uint32_t frames = 4 + (done ? 0 : credit / (kMessageCost + 1));
  late_allowed_ = std::min(late_allowed_ + frames, native::kCreditMax);
}

void NativeCodec::SendPing(uint64_t opaque) {
  if (!dead_.ok()) return;
  char payload[native::kPingBytes];
  native::WritePing(payload, opaque);
  SendFrame(FrameType::kPing, 0, 0, absl::string_view(payload, sizeof(payload)));
}

void NativeCodec::SendGoAway(const absl::Status& why) {
  if (!dead_.ok()) return;
  if (!going_away_) {
    going_away_ = true;
    our_last_ = last_peer_id_;
  }
  SendFrame(
      FrameType::kGoAway, 0, 0,
      native::MakeGoAway(our_last_, absl::Status(why.code(), why.message().substr(0, native::kShortMessageBytes))));
}

void NativeCodec::Abandon(const absl::Status& why) {
  if (dead_.ok()) dead_ = why.ok() ? absl::UnavailableError("connection lost") : why;
  DropInput();
  while (!calls_.empty()) {
    Call& call = calls_.front();
    CallEvents* events = call.events;
    Remove(call);
    if (events != nullptr) events->OnReset(dead_);
  }
}

}  // namespace troupe
