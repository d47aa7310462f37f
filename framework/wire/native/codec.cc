#include "troupe/wire/native/codec.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "troupe/wire/native/limits.h"

namespace troupe {

using native::FrameHeader;
using native::FrameType;
using native::kFlagAck;
using native::kFlagBegin;
using native::kFlagClose;
using native::kFlagHead;
using native::kFlagMore;
using native::kFrameHeaderBytes;
using native::kFramePayloadMax;
using native::kMessageCost;

namespace {

CodecOptions Checked(CodecOptions options) {
  options.call_credit_bytes =
      std::clamp(options.call_credit_bytes, native::kBaselineCallCredit, native::kCreditMax / 2);
  options.connection_credit_bytes =
      std::clamp(options.connection_credit_bytes, native::kBaselineConnectionCredit, native::kCreditMax / 2);
  options.calls_max = std::min(options.calls_max, native::kCallsLimit);
  options.message_bytes_max = std::min(options.message_bytes_max, native::kMessageLimit);
  options.metadata_bytes_max = std::min(options.metadata_bytes_max, native::kHeadBytesMax);
  return options;
}

void AppendFeature(std::string& to, native::FeatureId id, uint32_t value) {
  char record[8];
  native::Store16(record, static_cast<uint16_t>(id));
  native::Store16(record + 2, 4);
  native::Store32(record + 4, value);
  to.append(record, sizeof(record));
}

absl::Status NotStarted(absl::Status status) {
  status.SetPayload(kNotStartedPayload, absl::Cord());
  return status;
}

absl::Span<const char> SpanOf(absl::string_view text) { return {text.data(), text.size()}; }

}  // namespace

NativeCodec::NativeCodec(const CodecOptions& options, CodecEvents& events)
    : options_(Checked(options)),
      events_(events),
      own_counters_(options.counters == nullptr ? std::make_unique<WireCounters>() : nullptr),
      counters_(options.counters == nullptr ? *own_counters_ : *options.counters),
      next_id_(options.client ? 1 : 2),
      receive_credit_(options_.connection_credit_bytes),
      resets_{.left = options_.resets_max, .most = options_.resets_max, .per_second = options_.resets_per_second},
      glitches_{
          .left = options_.glitches_max, .most = options_.glitches_max, .per_second = options_.glitches_per_second} {
  std::string features;
  AppendFeature(features, native::FeatureId::kCallCreditBytes, options_.call_credit_bytes);
  AppendFeature(features, native::FeatureId::kConnectionCreditBytes, options_.connection_credit_bytes);
  AppendFeature(features, native::FeatureId::kCallsMax, options_.calls_max);
  AppendFeature(features, native::FeatureId::kMessageBytesMax, static_cast<uint32_t>(options_.message_bytes_max));
  AppendFeature(features, native::FeatureId::kMetadataBytesMax, static_cast<uint32_t>(options_.metadata_bytes_max));
  char header[native::kPrefaceHeaderBytes] = {};
  std::memcpy(header, native::kMagic, sizeof(native::kMagic));
  header[4] = native::kVersion;
  native::Store16(header + 6, static_cast<uint16_t>(features.size()));
  output_.Append(absl::MakeConstSpan(header));
  output_.Append(SpanOf(features));
}

NativeCodec::~NativeCodec() {
  credit_paused_ = true;  // nobody is left to be granted anything
  while (!calls_.empty()) Remove(calls_.front());
}

// ---------------------------------------------------------------- receiving

absl::StatusOr<size_t> NativeCodec::LengthAfterHeader(const char* header) {
  if (preface_received_) {
    const size_t length = native::ReadFrameHeader(header).length;
    if (length > kFramePayloadMax) return Broken(absl::StrCat("frame of ", length, " bytes, at most 65536"));
    return length;
  }
  if (std::memcmp(header, native::kMagic, sizeof(native::kMagic)) != 0) return Broken("not the native wire's magic");
  if (static_cast<uint8_t>(header[4]) != native::kVersion) {
    return Broken(absl::StrCat("version ", static_cast<uint8_t>(header[4]), " of the native wire, understood is 1"));
  }
  const size_t length = native::Load16(header + 6);
  if (header[5] != 0 || length > native::kFeatureBytesMax) return Broken("malformed preface");
  return length;
}

absl::Status NativeCodec::Receive(absl::Span<const char> bytes) {
  if (!dead_.ok()) return dead_;
  while (dead_.ok()) {  // an event may abandon the connection
    absl::Span<const char> header, body;
    std::unique_ptr<char[]> kept;  // the body, where it came in parts
    if (header_bytes_ == 0 && bytes.size() >= kFrameHeaderBytes) {
      absl::StatusOr<size_t> length = LengthAfterHeader(bytes.data());
      if (!length.ok()) return length.status();
      if (bytes.size() - kFrameHeaderBytes >= *length) {
        header = bytes.subspan(0, kFrameHeaderBytes);
        body = bytes.subspan(kFrameHeaderBytes, *length);
        bytes.remove_prefix(kFrameHeaderBytes + *length);
      }
    }
    if (header.empty()) {
      if (bytes.empty()) break;
      const size_t more = std::min(bytes.size(), kFrameHeaderBytes - header_bytes_);
      std::memcpy(header_ + header_bytes_, bytes.data(), more);
      header_bytes_ += static_cast<uint8_t>(more);
      bytes.remove_prefix(more);
      if (header_bytes_ < kFrameHeaderBytes) break;
      absl::StatusOr<size_t> length = LengthAfterHeader(header_);
      if (!length.ok()) return length.status();
      const size_t here = std::min(bytes.size(), *length - input_size_);
      if (input_size_ + here > input_capacity_) {
        // As it comes, and never for the length that a stranger announces.
        input_capacity_ = std::min(*length, std::max({input_size_ + here, 2 * input_capacity_, size_t{1024}}));
        std::unique_ptr<char[]> larger(new char[input_capacity_]);
        if (input_size_ > 0) std::memcpy(larger.get(), input_.get(), input_size_);
        input_ = std::move(larger);
      }
      if (here > 0) std::memcpy(input_.get() + input_size_, bytes.data(), here);
      input_size_ += here;
      bytes.remove_prefix(here);
      if (input_size_ < *length) break;
      kept = std::move(input_);
      header = absl::MakeConstSpan(header_);
      body = absl::MakeConstSpan(kept.get(), *length);
      header_bytes_ = 0;
      input_size_ = input_capacity_ = 0;
    }
    absl::Status status =
        preface_received_ ? ReceiveFrame(native::ReadFrameHeader(header.data()), body) : ReceivePreface(header, body);
    if (!status.ok()) return status;
    if (dead_.ok() && caused_unsent_ > uint64_t{options_.frames_unsent_max} + options_.calls_max) {
      return Flood(counters_.frame_floods, "frames that it caused and does not read");
    }
  }
  if (!dead_.ok()) return dead_;
  GrantConnection();
  if (room_wanted_ && calls_of_ours_ < peer_calls_max_ && !peer_going_away_) {
    room_wanted_ = false;
    events_.OnCallRoom();
  }
  return absl::OkStatus();
}

absl::Status NativeCodec::ReceivePreface(absl::Span<const char>, absl::Span<const char> features) {
  uint32_t seen = 0;
  uint32_t call_credit = native::kBaselineCallCredit, connection_credit = native::kBaselineConnectionCredit;
  while (!features.empty()) {
    if (features.size() < 4) return Broken("feature record cut short");
    const uint16_t id = native::Load16(features.data());
    const size_t length = native::Load16(features.data() + 2);
    features.remove_prefix(4);
    if (length > features.size()) return Broken("feature record cut short");
    const absl::Span<const char> value = features.subspan(0, length);
    features.remove_prefix(length);
    if (id == 0 || id > static_cast<uint16_t>(native::FeatureId::kMetadataBytesMax)) {
      if ((id & native::kFeatureMustBeKnown) != 0) {
        return Broken(absl::StrCat("feature ", id, " must be understood and is not"));
      }
      continue;
    }
    if (length != 4) return Broken(absl::StrCat("feature ", id, " of ", length, " bytes, not 4"));
    if ((seen >> id & 1) != 0) return Broken(absl::StrCat("feature ", id, " said twice"));
    seen |= 1u << id;
    const uint32_t number = native::Load32(value.data());
    switch (static_cast<native::FeatureId>(id)) {
      case native::FeatureId::kCallCreditBytes:
        if (number < native::kBaselineCallCredit || number > native::kCreditMax) {
          return Broken(absl::StrCat("credit of ", number, " bytes for a call"));
        }
        call_credit = number;
        break;
      case native::FeatureId::kConnectionCreditBytes:
        if (number < native::kBaselineConnectionCredit || number > native::kCreditMax) {
          return Broken(absl::StrCat("credit of ", number, " bytes for the connection"));
        }
        connection_credit = number;
        break;
      case native::FeatureId::kCallsMax:
        peer_calls_max_ = number;
        break;
      case native::FeatureId::kMessageBytesMax:
        peer_message_max_ = std::min<size_t>(number, native::kMessageLimit);
        break;
      case native::FeatureId::kMetadataBytesMax:
        peer_metadata_max_ = number;
        break;
    }
  }
  preface_received_ = true;
  send_credit_ += connection_credit - native::kBaselineConnectionCredit;
  peer_call_credit_ = call_credit;
  for (Call& call : calls_) {
    call.send_credit += call_credit - native::kBaselineCallCredit;
    if (call.waiting_first != nullptr && !call.ListNode<InTurn>::linked()) ready_.PushBack(call);
  }
  Pump();
  return absl::OkStatus();
}

absl::Status NativeCodec::ReceiveFrame(const FrameHeader& frame, absl::Span<const char> payload) {
  switch (frame.type) {
    case FrameType::kCall:
      return ReceiveCall(frame, payload);
    case FrameType::kMessage:
      return ReceiveMessage(frame, payload);
    case FrameType::kEnd:
      return ReceiveEnd(frame, payload);
    case FrameType::kMetadata:
      return ReceiveMetadata(frame, payload);
    case FrameType::kReset:
      return ReceiveReset(frame, payload);
    case FrameType::kCredit:
      return ReceiveCreditFrame(frame, payload);
    case FrameType::kPing:
      return ReceivePing(frame, payload);
    case FrameType::kGoAway:
      return ReceiveGoAway(frame, payload);
  }
  // Types of a later version are passed over; 0 is what zeroed memory would send.
  if (static_cast<uint8_t>(frame.type) == 0) return Broken("frame of type 0");
  return Glitch("frames of unknown type");
}

absl::Status NativeCodec::ChargeConnection(uint8_t flags, size_t body) {
  const size_t cost = body + ((flags & kFlagBegin) != 0 ? kMessageCost : 0);
  if (cost > receive_credit_) {
    counters_.credit_overruns.Add();
    return Broken(absl::StrCat("message bytes beyond the connection's credit of ", receive_credit_));
  }
  receive_credit_ -= static_cast<uint32_t>(cost);
  return absl::OkStatus();
}

absl::Status NativeCodec::ResolveMethod(const native::CallHead& head, IncomingCall& call) {
  if (!head.has_method) {
    call.method = events_.FindMethod(head.path);
    call.path = head.path;
    return absl::OkStatus();
  }
  if (head.path.empty()) {
    if (head.method >= peer_methods_.size()) {
      return Broken(absl::StrCat("method ", head.method, " used before it was numbered"));
    }
    const Method& method = peer_methods_[head.method];
    call.method = method.known;
    if (method.path != nullptr) call.path = *method.path;
    return absl::OkStatus();
  }
  if (head.method != peer_methods_.size()) {
    return Broken(absl::StrCat("method numbered ", head.method, ", the next is ", peer_methods_.size()));
  }
  Method& method = peer_methods_.emplace_back();
  method.known = events_.FindMethod(head.path);
  if (method.known == nullptr && unknown_path_bytes_ + head.path.size() <= native::kUnknownPathBytes) {
    unknown_path_bytes_ += head.path.size();
    method.path = std::make_unique<std::string>(head.path);
  }
  call.method = method.known;
  call.path = head.path;
  return absl::OkStatus();
}

absl::Status NativeCodec::ReceiveCall(const FrameHeader& frame, absl::Span<const char> payload) {
  // 64 bits: there is none after the last.
  const uint64_t expected = last_peer_id_ == 0 ? (options_.client ? 2 : 1) : uint64_t{last_peer_id_} + 2;
  if (frame.id != expected) {
    return Broken(absl::StrCat("call opened with id ", frame.id, ", the next is ", expected));
  }
  const bool begin = (frame.flags & kFlagBegin) != 0, more = (frame.flags & kFlagMore) != 0;
  const bool close = (frame.flags & kFlagClose) != 0;
  uint64_t head_bytes = 0;
  if ((frame.flags & kFlagHead) == 0 || !native::ReadVarint(payload, head_bytes) || head_bytes > payload.size()) {
    return Broken("call without a head");
  }
  native::CallHead head;
  const native::MetadataLimits limits = {options_.metadata_bytes_max, options_.metadata_entries_max};
  if (!native::ReadCallHead(payload.subspan(0, head_bytes), limits, head)) return Broken("malformed head of a call");
  const absl::Span<const char> body = payload.subspan(head_bytes);
  if (!begin && (more || !body.empty())) return Broken("bytes of no message in the frame that opens a call");
  if (absl::Status charged = ChargeConnection(frame.flags, body.size()); !charged.ok()) return charged;
  const size_t cost = body.size() + (begin ? kMessageCost : 0);
  if (cost > options_.call_credit_bytes) {
    counters_.credit_overruns.Add();
    return Broken("message bytes beyond the call's credit");
  }
  IncomingCall incoming;
  incoming.id = frame.id;
  // Before anything is refused: later calls use the number.
  if (absl::Status resolved = ResolveMethod(head, incoming); !resolved.ok()) return resolved;
  last_peer_id_ = frame.id;
  if (going_away_) {  // its caller knows from our GOAWAY that it was not accepted
    AllowLate(options_.call_credit_bytes, close);
    return absl::OkStatus();
  }
  if (calls_of_peer_ >= options_.calls_max) {
    counters_.calls_refused.Add();
    return Refuse(frame.id, absl::UnavailableError(absl::StrCat("more than ", options_.calls_max, " calls in flight")),
                  close);
  }
  if (!head.refused.ok()) {
    counters_.metadata_refused.Add();
    return Refuse(frame.id, head.refused, close);
  }
  const bool complete = begin && !more && close;
  if (complete && body.size() > options_.message_bytes_max) {
    counters_.messages_too_large.Add();
    return Refuse(frame.id,
                  absl::ResourceExhaustedError(
                      absl::StrCat("message of ", body.size(), " bytes, at most ", options_.message_bytes_max)),
                  close);
  }
  incoming.metadata = std::move(head.metadata);
  incoming.timeout = head.timeout;

  auto* call = new Call;
  call->id = frame.id;
  call->receive_credit = options_.call_credit_bytes;
  call->send_credit = peer_call_credit_;
  table_.Insert(*call);
  calls_.PushBack(*call);
  ++calls_of_peer_;
  counters_.calls_opened_by_peer.Add();
  if (complete) {
    counters_.messages_received.Add();
    call->receive_done = true;
    call->receive_credit -= static_cast<uint32_t>(cost);
    call->unread = static_cast<uint32_t>(cost);
    incoming.complete = true;
    incoming.message = body;
    incoming.charged = cost;
  }
  CallEvents* events = events_.OnCall(incoming);
  call = Find(frame.id);
  if (call == nullptr) {
    ++caused_unsent_;
    return absl::OkStatus();
  }
  call->events = events;
  if (events == nullptr) call->unread = 0;
  if (complete || (!begin && !close)) return absl::OkStatus();
  return ReceiveBody(*call, frame.flags, body);
}

absl::Status NativeCodec::FindForFrame(const FrameHeader& frame, Call*& call) {
  call = Find(frame.id);
  if (call != nullptr) return absl::OkStatus();
  const bool opened =
      frame.id != 0 && (IsOurs(frame.id) ? next_id_ == 0 || frame.id < next_id_ : frame.id <= last_peer_id_);
  if (!opened) return Broken(absl::StrCat("frame for call ", frame.id, ", which was never opened"));
  return absl::OkStatus();
}

absl::Status NativeCodec::ReceiveMessage(const FrameHeader& frame, absl::Span<const char> payload) {
  if ((frame.flags & kFlagHead) != 0) return Broken("message with a head");
  if (absl::Status charged = ChargeConnection(frame.flags, payload.size()); !charged.ok()) return charged;
  Call* call = nullptr;
  if (absl::Status found = FindForFrame(frame, call); !found.ok()) return found;
  if (call == nullptr) return Late();
  return ReceiveBody(*call, frame.flags, payload);
}

absl::Status NativeCodec::ReceiveBody(Call& call, uint8_t flags, absl::Span<const char> body) {
  const bool begin = (flags & kFlagBegin) != 0, more = (flags & kFlagMore) != 0, close = (flags & kFlagClose) != 0;
  const CallId id = call.id;
  const auto cost = static_cast<uint32_t>(body.size() + (begin ? kMessageCost : 0));
  if (call.receive_done) return Broken(absl::StrCat("frame of call ", id, " after its half-close"));
  if (cost > call.receive_credit) {
    counters_.credit_overruns.Add();
    return Broken(absl::StrCat("message bytes beyond the credit of call ", id));
  }
  call.receive_credit -= cost;
  if (close) {
    if (more || call.ours) return Broken(absl::StrCat("half-close of call ", id, " where there can be none"));
    call.receive_done = true;
  }
  call.metadata_done |= call.ours && begin;
  const auto too_large = [this](size_t bytes) {
    counters_.messages_too_large.Add();
    return absl::ResourceExhaustedError(
        absl::StrCat("message of ", bytes, " bytes, at most ", options_.message_bytes_max));
  };
  if (begin && call.assembling) return Broken(absl::StrCat("message of call ", id, " begins inside another"));
  if (begin && !more) {
    if (body.size() > options_.message_bytes_max) return ResetForPeer(call, too_large(body.size()));
    Deliver(call, body, cost);
  } else if (begin) {
    uint64_t total = 0;
    if (!native::ReadVarint(body, total) || body.empty() || total <= body.size()) {
      return Broken(absl::StrCat("first piece of a message of call ", id, " with a wrong length"));
    }
    if (total > options_.message_bytes_max) return ResetForPeer(call, too_large(total));
    call.assembling = true;
    call.partial_total = total;
    call.partial_size = 0;
    call.partial_cost = 0;
    return Assemble(call, body, cost);
  } else if (!body.empty()) {
    const size_t missing = call.assembling ? call.partial_total - call.partial_size : 0;
    if (body.size() > missing || (body.size() == missing) == more) {
      return Broken(absl::StrCat("piece of a message of call ", id, " that does not fit its length"));
    }
    if (absl::Status assembled = Assemble(call, body, cost); !assembled.ok()) return assembled;
  } else if (!close) {
    return Glitch("empty frames");
  } else if (call.assembling) {
    return Broken(absl::StrCat("half-close of call ", id, " inside a message"));
  }
  // An event may have ended the call.
  if (close) {
    Call* still = Find(id);
    if (still != nullptr && still->events != nullptr && !still->send_done) still->events->OnHalfClose();
  }
  return absl::OkStatus();
}

absl::Status NativeCodec::Assemble(Call& call, absl::Span<const char> piece, uint32_t cost) {
  const size_t needed = call.partial_size + piece.size();
  if (needed < call.partial_total && call.assembly_bytes == 0 && unfinished_bytes_ + piece.size() > UnfinishedMax()) {
    counters_.messages_unfinished.Add();
    return ResetForPeer(call, absl::ResourceExhaustedError(absl::StrCat("messages of ", unfinished_bytes_,
                                                                        " bytes have begun and are not whole")));
  }
  if (needed > call.partial_capacity) {
    // All of it at once when credit for all of it was granted, or when a good part is there: otherwise as it comes, and
    // not for the length that a stranger announces.
    const size_t capacity = call.assembly_bytes != 0 || call.partial_total <= 2 * needed
                                ? call.partial_total
                                : std::min(call.partial_total, std::max(needed, 2 * call.partial_capacity));
    std::unique_ptr<char[]> larger(new char[capacity]);
    if (call.partial_size > 0) std::memcpy(larger.get(), call.partial.get(), call.partial_size);
    call.partial = std::move(larger);
    partial_bytes_ += capacity - call.partial_capacity;
    call.partial_capacity = capacity;
  }
  std::memcpy(call.partial.get() + call.partial_size, piece.data(), piece.size());
  call.partial_size = needed;
  call.partial_cost += cost;
  if (call.assembly_bytes == 0) unfinished_bytes_ += piece.size();
  if (needed < call.partial_total) {
    GrantCall(call);
    return absl::OkStatus();
  }
  DropUnfinished(call);
  const std::unique_ptr<char[]> message = std::move(call.partial);
  partial_bytes_ -= std::exchange(call.partial_capacity, 0);
  call.assembling = false;
  ReturnAssembly(call);
  Deliver(call, absl::MakeConstSpan(message.get(), needed), std::exchange(call.partial_cost, 0));
  return absl::OkStatus();
}

void NativeCodec::Deliver(Call& call, absl::Span<const char> message, uint32_t cost) {
  counters_.messages_received.Add();
  // A call that has been answered hears nothing more than what becomes of the answer.
  if (call.events == nullptr || (!call.ours && call.send_done)) return GrantCall(call);
  call.unread += cost;
  call.events->OnMessage(message, cost);
}

absl::Status NativeCodec::ReceiveEnd(const FrameHeader& frame, absl::Span<const char> payload) {
  const bool begin = (frame.flags & kFlagBegin) != 0;
  if ((frame.flags & (kFlagMore | kFlagClose)) != 0) return Broken("end of a call with flags that it cannot have");
  native::EndHead head;
  absl::Span<const char> body = payload;
  if ((frame.flags & kFlagHead) != 0) {
    uint64_t head_bytes = 0;
    const native::MetadataLimits limits = {options_.metadata_bytes_max, options_.metadata_entries_max};
    if (!native::ReadVarint(body, head_bytes) || head_bytes > body.size() ||
        !native::ReadEndHead(body.subspan(0, head_bytes), limits, head)) {
      return Broken("malformed end of a call");
    }
    body.remove_prefix(head_bytes);
  }
  if (!begin && !body.empty()) return Broken("bytes of no message in the end of a call");
  if (absl::Status charged = ChargeConnection(frame.flags, body.size()); !charged.ok()) return charged;
  Call* call = nullptr;
  if (absl::Status found = FindForFrame(frame, call); !found.ok()) return found;
  if (call == nullptr) return IsOurs(frame.id) ? Late() : Broken("end of a call from the end that opened it");
  if (!call->ours) return Broken("end of a call from the end that opened it");
  if (call->assembling) return Broken(absl::StrCat("end of call ", frame.id, " inside a message"));
  if (begin) {
    if (body.size() + kMessageCost > call->receive_credit) {
      counters_.credit_overruns.Add();
      return Broken(absl::StrCat("message bytes beyond the credit of call ", frame.id));
    }
    call->receive_credit -= static_cast<uint32_t>(body.size() + kMessageCost);
    call->receive_done = true;
    if (body.size() > options_.message_bytes_max) {
      counters_.messages_too_large.Add();
      head.status = absl::ResourceExhaustedError(
          absl::StrCat("message of ", body.size(), " bytes, at most ", options_.message_bytes_max));
    } else {
      Deliver(*call, body, static_cast<uint32_t>(body.size() + kMessageCost));
      call = Find(frame.id);
      if (call == nullptr) return absl::OkStatus();
    }
  }
  call->receive_done = true;
  if (!head.refused.ok()) {
    counters_.metadata_refused.Add();
    if (head.status.ok()) head.status = std::move(head.refused);
  }
  CallEvents* events = call->events;
  Remove(*call);
  resets_.Refill();
  glitches_.Refill();
  if (events != nullptr) events->OnEnd(std::move(head.status), std::move(head.trailers));
  return absl::OkStatus();
}

absl::Status NativeCodec::ReceiveMetadata(const FrameHeader& frame, absl::Span<const char> payload) {
  if (frame.flags != 0) return Broken("initial metadata with flags");
  Metadata metadata;
  absl::Status refused;
  const native::MetadataLimits limits = {options_.metadata_bytes_max, options_.metadata_entries_max};
  if (!native::ReadMetadataBlock(payload, limits, metadata, refused)) return Broken("malformed initial metadata");
  Call* call = nullptr;
  if (absl::Status found = FindForFrame(frame, call); !found.ok()) return found;
  if (!IsOurs(frame.id)) return Broken("initial metadata from the end that opened the call");
  if (call == nullptr) return Late();
  if (call->metadata_done) return Broken(absl::StrCat("initial metadata of call ", frame.id, " twice or too late"));
  call->metadata_done = true;
  if (!refused.ok()) {
    counters_.metadata_refused.Add();
    return ResetForPeer(*call, std::move(refused));
  }
  if (call->events != nullptr) call->events->OnInitialMetadata(std::move(metadata));
  return absl::OkStatus();
}

absl::Status NativeCodec::ReceiveReset(const FrameHeader& frame, absl::Span<const char> payload) {
  native::Reset reset;
  if (frame.flags != 0 || !native::ReadReset(payload, reset)) return Broken("malformed reset");
  Call* call = nullptr;
  if (absl::Status found = FindForFrame(frame, call); !found.ok()) return found;
  if (call == nullptr) return Late();
  if (!call->ours) {
    counters_.resets_received.Add();
    if (!resets_.Spend()) return Flood(counters_.reset_floods, "too many calls were reset");
  }
  absl::Status why = std::move(reset.status);
  if (reset.not_started && call->ours) why = NotStarted(std::move(why));
  CallEvents* events = call->events;
  call->receive_done = true;
  Remove(*call);
  if (events != nullptr) events->OnReset(std::move(why));
  return absl::OkStatus();
}

absl::Status NativeCodec::ReceiveCreditFrame(const FrameHeader& frame, absl::Span<const char> payload) {
  uint64_t credit = 0;
  if (frame.flags != 0 || !native::ReadCredit(payload, credit)) return Broken("malformed credit");
  if (credit == 0 || credit > native::kCreditMax) return Broken(absl::StrCat("credit of ", credit, " bytes"));
  if (credit < native::kWorthwhileCredit) {
    if (absl::Status status = Glitch("needless credit"); !status.ok()) return status;
  }
  if (frame.id == 0) {
    if (credit > native::kCreditMax - send_credit_) return Broken("credit of the connection beyond 31 bits");
    send_credit_ += static_cast<uint32_t>(credit);
    Pump();
    return absl::OkStatus();
  }
  Call* call = nullptr;
  if (absl::Status found = FindForFrame(frame, call); !found.ok()) return found;
  if (call == nullptr) return Late();
  if (credit > native::kCreditMax - call->send_credit) return Broken("credit of a call beyond 31 bits");
  call->send_credit += static_cast<uint32_t>(credit);
  if (credit >= native::kWorthwhileCredit) call->stalled = 0;  // it may need more than that to go on
  if (call->waiting_first != nullptr && !call->ListNode<InTurn>::linked()) {
    ready_.PushBack(*call);
    Pump();
  }
  return absl::OkStatus();
}

absl::Status NativeCodec::ReceivePing(const FrameHeader& frame, absl::Span<const char> payload) {
  uint64_t opaque = 0;
  if ((frame.flags & ~kFlagAck) != 0 || frame.id != 0 || !native::ReadPing(payload, opaque)) {
    return Broken("malformed ping");
  }
  if (absl::Status status = Glitch("pings"); !status.ok()) return status;
  if ((frame.flags & kFlagAck) != 0) {
    events_.OnPong(opaque);
    return absl::OkStatus();
  }
  counters_.pings_received.Add();
  const bool strike = since_ping_ < options_.ping_interval_min;
  since_ping_ = absl::ZeroDuration();
  if (strike && ++ping_strikes_ > options_.ping_strikes_max) return Flood(counters_.ping_floods, "too many pings");
  char ack[native::kPingBytes];
  native::WritePing(ack, opaque);
  SendFrame(FrameType::kPing, kFlagAck, 0, absl::string_view(ack, sizeof(ack)));
  ++caused_unsent_;
  if (++acks_unsent_ > options_.acks_unsent_max) {
    return Flood(counters_.ack_floods, "pings whose answers are not read");
  }
  return absl::OkStatus();
}

absl::Status NativeCodec::ReceiveGoAway(const FrameHeader& frame, absl::Span<const char> payload) {
  native::GoAway go_away;
  if (frame.flags != 0 || frame.id != 0 || !native::ReadGoAway(payload, go_away)) return Broken("malformed goaway");
  if (go_away.last > peer_last_) return Broken("goaway that accepts more calls than the one before");
  if (absl::Status status = Glitch("goaways"); !status.ok()) return status;
  peer_going_away_ = true;
  peer_last_ = go_away.last;
  std::vector<CallId> not_started;
  for (Call& call : calls_) {
    if (call.ours && call.id > peer_last_) not_started.push_back(call.id);
  }
  // A peer that is failing would fail the next try as well, so its reason is the calls' own.
  const bool failing = !go_away.status.ok() && !absl::IsUnavailable(go_away.status);
  const absl::Status why = NotStarted(
      failing ? go_away.status : absl::UnavailableError("the peer is going away and did not start the call"));
  events_.OnGoAway(go_away.last, std::move(go_away.status));
  for (CallId id : not_started) {
    Call* call = Find(id);
    if (call == nullptr) continue;
    CallEvents* events = call->events;
    Remove(*call);
    if (events != nullptr) events->OnReset(why);
  }
  return absl::OkStatus();
}

absl::Status NativeCodec::Late() {
  counters_.late_frames.Add();
  if (late_allowed_ > 0) {
    --late_allowed_;
    return absl::OkStatus();
  }
  return Glitch("frames for calls that are over");
}

absl::Status NativeCodec::Glitch(absl::string_view what) {
  counters_.glitches.Add();
  if (glitches_.Spend()) return absl::OkStatus();
  return Flood(counters_.glitch_floods, absl::StrCat("too many ", what));
}

absl::Status NativeCodec::Broken(absl::string_view what) {
  counters_.format_errors.Add();
  return Die(absl::InternalError(absl::StrCat("peer broke the format: ", what)));
}

absl::Status NativeCodec::Flood(Counter& counter, absl::string_view what) {
  counter.Add();
  return Die(absl::ResourceExhaustedError(what));
}

absl::Status NativeCodec::Die(absl::Status why) {
  SendGoAway(why);
  dead_ = why;
  DropInput();
  return why;
}

void NativeCodec::DropInput() {
  header_bytes_ = 0;
  input_.reset();
  input_size_ = input_capacity_ = 0;
}

absl::Status NativeCodec::ResetForPeer(Call& call, absl::Status why) {
  counters_.resets_caused.Add();
  SendFrame(FrameType::kReset, 0, call.id, native::MakeReset(why, false));
  ++caused_unsent_;
  const bool spend = !call.ours;
  CallEvents* events = call.events;
  Remove(call);
  if (events != nullptr) events->OnReset(std::move(why));
  if (spend && !resets_.Spend()) return Flood(counters_.reset_floods, "too many calls had to be reset");
  return absl::OkStatus();
}

absl::Status NativeCodec::Refuse(CallId id, const absl::Status& why, bool closed) {
  counters_.resets_caused.Add();
  AllowLate(options_.call_credit_bytes, closed);
  SendFrame(FrameType::kReset, 0, id, native::MakeReset(why, true));
  ++caused_unsent_;
  if (!resets_.Spend()) return Flood(counters_.reset_floods, "too many calls had to be refused");
  return absl::OkStatus();
}

// ---------------------------------------------------------------- credit

void NativeCodec::GrantCall(Call& call) {
  if (credit_paused_ || !dead_.ok() || call.receive_done) return;
  const uint32_t window = options_.call_credit_bytes;
  const uint32_t held = call.unread + call.partial_cost;
  const size_t missing = call.assembling ? call.partial_total - call.partial_size : 0;
  size_t allowed = window > held ? window - held : 0;
  bool needed = call.receive_credit < missing;
  if (needed && allowed < missing) {
    // A message that its call's credit cannot hold: the rest of it, once the application has taken what came before.
    if (call.unread == 0 && TakeAssembly(call)) {
      allowed = missing;
    } else {
      needed = false;
    }
  }
  if (allowed <= call.receive_credit) return;
  const size_t grant = allowed - call.receive_credit;
  if (grant < window / 2 && !needed) return;
  const auto credit = static_cast<uint32_t>(std::max<size_t>(grant, native::kWorthwhileCredit));
  call.receive_credit += credit;
  SendCredit(call.id, credit);
}

size_t NativeCodec::UnfinishedMax() const { return native::kUnfinishedWindows * options_.call_credit_bytes; }

void NativeCodec::DropUnfinished(Call& call) {
  if (call.assembling && call.assembly_bytes == 0) unfinished_bytes_ -= call.partial_size;
}

bool NativeCodec::TakeAssembly(Call& call) {
  if (call.assembly_bytes != 0) return true;
  const size_t most = native::kAssemblyMessages * options_.message_bytes_max;
  const bool first = assembly_line_.empty() || &assembly_line_.front() == &call;
  if (first && (assembly_in_use_ == 0 || assembly_in_use_ + call.partial_total <= most)) {
    call.ListNode<InLine>::Unlink();
    DropUnfinished(call);
    call.assembly_bytes = call.partial_total;
    assembly_in_use_ += call.assembly_bytes;
    return true;
  }
  if (!call.ListNode<InLine>::linked()) assembly_line_.PushBack(call);
  return false;
}

void NativeCodec::ReturnAssembly(Call& call) {
  const bool was_first = !assembly_line_.empty() && &assembly_line_.front() == &call;
  call.ListNode<InLine>::Unlink();
  if (call.assembly_bytes == 0 && !was_first) return;  // nothing has changed for those who stand there
  assembly_in_use_ -= std::exchange(call.assembly_bytes, 0);
  while (!assembly_line_.empty()) {
    Call& first = assembly_line_.front();
    GrantCall(first);
    if (first.ListNode<InLine>::linked()) return;
  }
}

void NativeCodec::GrantConnection() {
  const uint32_t window = options_.connection_credit_bytes;
  if (credit_paused_ || window - receive_credit_ < window / 2) return;
  const uint32_t credit = window - receive_credit_;
  receive_credit_ = window;
  SendCredit(0, credit);
}

void NativeCodec::ResumeCredit() {
  credit_paused_ = false;
  if (!dead_.ok()) return;
  for (Call& call : calls_) GrantCall(call);
  GrantConnection();
}

void NativeCodec::Consumed(CallId id, size_t bytes) {
  Call* call = Find(id);
  if (call == nullptr) return;
  call->unread -= static_cast<uint32_t>(std::min<size_t>(bytes, call->unread));
  GrantCall(*call);
}

void NativeCodec::TimePassed(absl::Duration since_last) {
  resets_.Pass(since_last);
  glitches_.Pass(since_last);
  since_ping_ += std::max(since_last, absl::ZeroDuration());
}

absl::Status NativeCodec::ExpireStalled() {
  std::vector<CallId> stalled;
  for (Call& call : calls_) {
    if (call.ours || call.waiting_first == nullptr) continue;
    if (++call.stalled > 2) stalled.push_back(call.id);
  }
  for (const CallId id : stalled) {
    Call* call = Find(id);
    if (call == nullptr) continue;  // ended by another's event
    counters_.calls_stalled.Add();
    absl::Status status = ResetForPeer(*call, absl::ResourceExhaustedError("the caller gives no credit for the reply"));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace troupe
