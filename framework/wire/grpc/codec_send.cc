#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "troupe/wire/grpc/codec.h"
#include "troupe/wire/grpc/internal/gzip.h"
#include "troupe/wire/grpc/limits.h"

namespace troupe {

using google::protobuf::MessageLite;
using grpc_wire::Http2Error;

namespace {

constexpr size_t kPrefixBytes = 5;
// What GoAway's ping carries, so that its answer is known: "troupe-g".
constexpr uint64_t kGoAwayPing = 0x74726f7570652d67;

void StoreSize(char* to, size_t size) {
  for (int i = 0; i < 4; ++i) to[i] = static_cast<char>(size >> (24 - 8 * i));
}

void Store64(uint8_t* to, uint64_t number) {
  for (int i = 0; i < 8; ++i) to[i] = static_cast<uint8_t>(number >> (56 - 8 * i));
}

// Headers on their way to nghttp2, which copies them.
class HeaderList {
 public:
  // `name` and `value` outlive the list.
  void Add(absl::string_view name, absl::string_view value) {
    nghttp2_nv entry;
    entry.name = Bytes(name);
    entry.namelen = name.size();
    entry.value = Bytes(value);
    entry.valuelen = value.size();
    entry.flags = NGHTTP2_NV_FLAG_NONE;
    entries_.push_back(entry);
  }
  void AddOwned(absl::string_view name, std::string value) {
    owned_.push_back(std::make_unique<std::string>(std::move(value)));
    Add(name, *owned_.back());
  }
  void Add(const Metadata& metadata) {
    for (const Metadata::Entry& entry : metadata.entries()) {
      if (Metadata::IsBinaryKey(entry.key)) {
        AddOwned(entry.key, grpc_wire::EncodeBinary(entry.value));
      } else {
        Add(entry.key, entry.value);
      }
    }
  }
  const nghttp2_nv* data() const { return entries_.data(); }
  size_t size() const { return entries_.size(); }

 private:
  static uint8_t* Bytes(absl::string_view text) {
    return const_cast<uint8_t*>(reinterpret_cast<const uint8_t*>(text.data()));
  }

  std::vector<nghttp2_nv> entries_;
  std::vector<std::unique_ptr<std::string>> owned_;
};

}  // namespace

GrpcCodec::Call* GrpcCodec::FindToSend(CallId id) const {
  Call* call = dead_.ok() ? Find(id) : nullptr;
  return call == nullptr || call->send_done || call->over ? nullptr : call;
}

void GrpcCodec::WriteFrame(uint8_t type, CallId id, absl::string_view payload) {
  char header[9];
  StoreSize(header, payload.size() << 8);  // three bytes
  header[3] = static_cast<char>(type);
  header[4] = 0;
  StoreSize(header + 5, id);
  output_.Append(absl::MakeConstSpan(header));
  output_.Append(absl::MakeConstSpan(payload.data(), payload.size()));
}

void GrpcCodec::WriteWindowUpdate(CallId id, uint32_t bytes) {
  char payload[4];
  StoreSize(payload, bytes);
  WriteFrame(NGHTTP2_WINDOW_UPDATE, id, absl::string_view(payload, sizeof(payload)));
  ++caused_unsent_;
}

void GrpcCodec::WriteGoAway(CallId last, Http2Error error, absl::string_view debug) {
  char fixed[8];
  StoreSize(fixed, last);
  StoreSize(fixed + 4, static_cast<uint32_t>(error));
  WriteFrame(NGHTTP2_GOAWAY, 0, absl::StrCat(absl::string_view(fixed, sizeof(fixed)), debug));
}

// ---------------------------------------------------------------- nghttp2 writes

void GrpcCodec::Pump() {
  if (!dead_.ok()) return;
  if (output_.empty()) acks_unsent_ = caused_unsent_ = 0;  // what stood here has been read, as far as we can know
  while (true) {
    if (nghttp2_session_send(session_) != 0) {
      dead_ = Die(absl::InternalError("HTTP/2 framing failed"));
      return;
    }
    if (over_.empty()) break;
    for (const CallId id : std::exchange(over_, {})) {
      Call* call = Find(id);
      if (call == nullptr) continue;
      call->over = true;
      // Answered before the request had ended: the rest need not be sent.
      if (nghttp2_session_get_stream_remote_close(session_, static_cast<int32_t>(id)) == 0) {
        nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, static_cast<int32_t>(id),
                                  static_cast<uint32_t>(Http2Error::kNoError));
      }
      if (!static_cast<ListNode<InDrained>*>(call)->linked()) Remove(*call);
    }
  }
  if (!receiving_) {
    // Streams that are closed by what we sent: their calls are known to be over.
    notes_.clear();
  }
}

ssize_t GrpcCodec::OfferData(CallId id, size_t bytes_max, uint32_t* flags) {
  Call* call = Find(id);
  if (call == nullptr) return NGHTTP2_ERR_DEFERRED;
  const size_t waiting = call->outbox.size();
  const bool all_known = call->ours ? call->send_done : (call->trailers != nullptr || call->plain_http);
  if (waiting == 0 && !all_known) {
    call->deferred = true;
    return NGHTTP2_ERR_DEFERRED;
  }
  *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
  const size_t offered = std::min(waiting, bytes_max);
  if (offered < waiting || !all_known) return static_cast<ssize_t>(offered);
  *flags |= NGHTTP2_DATA_FLAG_EOF;
  if (call->trailers == nullptr) return static_cast<ssize_t>(offered);
  *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
  HeaderList headers;
  for (const auto& [name, value] : *call->trailers) headers.Add(name, value);
  nghttp2_submit_trailer(session_, static_cast<int32_t>(id), headers.data(), headers.size());
  return static_cast<ssize_t>(offered);
}

void GrpcCodec::SendData(CallId id, const uint8_t* frame_header, size_t bytes) {
  output_.Append(absl::MakeConstSpan(reinterpret_cast<const char*>(frame_header), 9));
  Call* call = Find(id);
  if (call == nullptr || bytes == 0) return;
  output_.Append(call->outbox.TakeFront(bytes));
  waiting_bytes_ -= bytes;
  if (call->reply_waits) waiting_reply_bytes_ -= bytes;
  call->stalled = 0;
  call->partly_sent = !call->outbox.empty();
  if (updates_expected_ < grpc_wire::kWindowMost) updates_expected_ += 2;
  if (call->outbox.empty() && call->room_wanted) {
    call->room_wanted = false;
    drained_.PushBack(*call);
  }
}

void GrpcCodec::NoteSent(const nghttp2_frame& frame) {
  const auto id = static_cast<CallId>(frame.hd.stream_id);
  const bool end_stream = (frame.hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
  switch (frame.hd.type) {
    case NGHTTP2_HEADERS:
    case NGHTTP2_DATA:
      // Who is being answered has reason to ask whether we are there.
      since_ping_ = absl::InfiniteDuration();
      ping_strikes_ = 0;
      if (end_stream && !options_.client) over_.push_back(id);
      break;
    case NGHTTP2_PING:
    case NGHTTP2_SETTINGS:
      if ((frame.hd.flags & NGHTTP2_FLAG_ACK) == 0) break;
      ++caused_unsent_;
      if (++acks_unsent_ > options_.acks_unsent_max)
        Flood(counters_.ack_floods, "too many pings whose answers are not read");
      break;
    case NGHTTP2_RST_STREAM:
      ++caused_unsent_;
      // Of our own there is no call any more, or it is over.
      if (const Call* call = Find(id); call != nullptr && !call->over) {
        notes_.push_back({.kind = Note::kMistake, .id = id, .number = frame.rst_stream.error_code});
      }
      switch (frame.rst_stream.error_code) {
        // Nobody but nghttp2 says these, for what the peer did.
        case NGHTTP2_PROTOCOL_ERROR:
        case NGHTTP2_FLOW_CONTROL_ERROR:
        case NGHTTP2_STREAM_CLOSED:
        case NGHTTP2_FRAME_SIZE_ERROR:
        case NGHTTP2_COMPRESSION_ERROR:
          counters_.resets_caused.Add();
          CountReset();
          break;
        default:
          break;
      }
      break;
    case NGHTTP2_WINDOW_UPDATE:
      ++caused_unsent_;
      break;
    case NGHTTP2_GOAWAY:
      if (going_away_ != GoingAway::kSaid && frame.goaway.error_code != NGHTTP2_NO_ERROR) broken_ = true;
      break;
    default:
      break;
  }
}

void GrpcCodec::TellDrained() {
  while (!drained_.empty() && dead_.ok()) {
    Call& call = drained_.PopFront();
    CallEvents* const events = call.events;
    if (call.over) Remove(call);
    if (events != nullptr) events->OnSendRoom();
  }
}

// ---------------------------------------------------------------- what the session sends

bool GrpcCodec::HasRoom() const {
  if (peer_going_away_ || !dead_.ok()) return false;
  uint32_t most = grpc_wire::kCallsBeforeSettings;
  if (settings_received_) {
    most = nghttp2_session_get_remote_settings(session_, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
  }
  return calls_of_ours_ < most;
}

bool GrpcCodec::FitsPeer(const Metadata& metadata) const {
  size_t bytes = 0;
  for (const Metadata::Entry& entry : metadata.entries()) {
    const size_t value = Metadata::IsBinaryKey(entry.key) ? (entry.value.size() + 2) / 3 * 4 : entry.value.size();
    bytes += entry.key.size() + value + Metadata::kEntryOverheadBytes;
  }
  // A little is left for what gRPC adds.
  constexpr size_t kOwn = 1024;
  const size_t peer_max = nghttp2_session_get_remote_settings(session_, NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE);
  return bytes <= std::min(peer_max, grpc_wire::kHeaderBlockBytesMax - kOwn);
}

absl::StatusOr<CallId> GrpcCodec::StartCall(const OutgoingCall& outgoing, CallEvents& events) {
  if (!dead_.ok()) return absl::UnavailableError(dead_.message());
  if (peer_going_away_ || going_away_ != GoingAway::kNo) return absl::UnavailableError("the connection is going away");
  if (!HasRoom()) {
    room_wanted_ = true;
    return absl::ResourceExhaustedError("the peer takes no more calls now");
  }
  if (outgoing.metadata != nullptr && !FitsPeer(*outgoing.metadata)) {
    counters_.metadata_refused.Add();
    return absl::OutOfRangeError("metadata is larger than the peer takes");
  }
  size_t size = 0;
  if (outgoing.encoded != nullptr) {
    size = outgoing.encoded->size();
  } else if (outgoing.message != nullptr) {
    size = outgoing.message->ByteSizeLong();
  }
  if (size > grpc_wire::kMessageLimit) {
    counters_.messages_too_large.Add();
    return absl::OutOfRangeError(absl::StrCat("message of ", size, " bytes, at most ", grpc_wire::kMessageLimit));
  }
  HeaderList headers;
  headers.Add(":method", "POST");
  headers.Add(":scheme", grpc_.tls ? "https" : "http");
  headers.Add(":path", outgoing.path);
  headers.Add(":authority", grpc_.authority);
  headers.Add("te", "trailers");
  headers.Add("content-type", "application/grpc");
  headers.Add("user-agent", "grpc-c++-troupe/0.1");
  headers.Add("grpc-accept-encoding", "identity,gzip");
  const bool pack = outgoing.pack && server_takes_gzip_;
  if (pack) headers.Add("grpc-encoding", "gzip");
  if (outgoing.timeout != absl::InfiniteDuration()) {
    headers.AddOwned("grpc-timeout", grpc_wire::FormatTimeout(outgoing.timeout));
  }
  if (outgoing.metadata != nullptr) headers.Add(*outgoing.metadata);
  nghttp2_data_provider provider = {};
  provider.read_callback = Provider();
  const int32_t id = nghttp2_submit_request(session_, nullptr, headers.data(), headers.size(), &provider, nullptr);
  if (id <= 0) return absl::UnavailableError("the connection has used up its stream ids");
  Call& call = Add(static_cast<CallId>(id), /*ours=*/true);
  call.events = &events;
  call.headers_sent = true;
  call.pack = pack;
  counters_.calls_opened_by_us.Add();
  if (outgoing.encoded != nullptr) {
    Enqueue(call, *outgoing.encoded);
  } else if (outgoing.message != nullptr) {
    Enqueue(call, *outgoing.message, size, Packing::kAsCall);
  }
  call.send_done = outgoing.encoded != nullptr || outgoing.message != nullptr;
  Pump();
  if (!call.outbox.empty()) call.room_wanted = true;
  return call.id;
}

void GrpcCodec::Serialize(const MessageLite& message, size_t size, char* to) const {
  google::protobuf::io::ArrayOutputStream array(to, static_cast<int>(size));
  google::protobuf::io::CodedOutputStream coded(&array);
  if (options_.deterministic) coded.SetSerializationDeterministic(true);
  message.SerializeWithCachedSizes(&coded);
}

absl::StatusOr<Bytes> GrpcCodec::Encode(const MessageLite& message) const {
  const size_t size = message.ByteSizeLong();
  if (size > grpc_wire::kMessageLimit) {
    counters_.messages_too_large.Add();
    return absl::OutOfRangeError(absl::StrCat("message of ", size, " bytes, at most ", grpc_wire::kMessageLimit));
  }
  return Bytes::Make(size, [&](char* to) { Serialize(message, size, to); });
}

bool GrpcCodec::EnqueuePacked(Call& call, absl::Span<const char> message) {
  const std::string packed = grpc_wire::Gzip(message);
  if (packed.size() >= message.size()) return false;
  char prefix[kPrefixBytes] = {1};
  StoreSize(prefix + 1, packed.size());
  call.outbox.Append(absl::MakeConstSpan(prefix));
  call.outbox.Append(absl::MakeConstSpan(packed.data(), packed.size()));
  counters_.messages_packed.Add();
  Queued(call, kPrefixBytes + packed.size());
  return true;
}

void GrpcCodec::Enqueue(Call& call, const MessageLite& message, size_t size, Packing packing) {
  if (call.pack && packing == Packing::kAsCall && size > 0) {
    const Bytes whole = Bytes::Make(size, [&](char* to) { Serialize(message, size, to); });
    if (!EnqueuePacked(call, whole.span())) EnqueuePlain(call, whole);
    return;
  }
  char* const to = call.outbox.Reserve(kPrefixBytes + size).data();
  to[0] = 0;
  StoreSize(to + 1, size);
  Serialize(message, size, to + kPrefixBytes);
  call.outbox.Commit(kPrefixBytes + size);
  Queued(call, kPrefixBytes + size);
}

void GrpcCodec::Enqueue(Call& call, const Bytes& message) {
  if (!call.pack || message.empty() || !EnqueuePacked(call, message.span())) EnqueuePlain(call, message);
}

void GrpcCodec::EnqueuePlain(Call& call, const Bytes& message) {
  char prefix[kPrefixBytes] = {};
  StoreSize(prefix + 1, message.size());
  call.outbox.Append(absl::MakeConstSpan(prefix));
  call.outbox.Append(message);
  Queued(call, kPrefixBytes + message.size());
}

void GrpcCodec::Queued(Call& call, size_t bytes) {
  waiting_bytes_ += bytes;
  if (call.reply_waits) waiting_reply_bytes_ += bytes;
  counters_.messages_sent.Add();
  Resume(call);
}

void GrpcCodec::Resume(Call& call) {
  if (!std::exchange(call.deferred, false)) return;
  nghttp2_session_resume_data(session_, static_cast<int32_t>(call.id));
}

absl::Status GrpcCodec::SendMessage(CallId id, const MessageLite& message, Packing packing) {
  Call* call = FindToSend(id);
  if (call == nullptr) return absl::OkStatus();
  const size_t size = message.ByteSizeLong();
  if (size > grpc_wire::kMessageLimit) {
    counters_.messages_too_large.Add();
    return absl::ResourceExhaustedError(
        absl::StrCat("message of ", size, " bytes, at most ", grpc_wire::kMessageLimit));
  }
  if (!call->failure.ok()) return absl::OkStatus();  // the end will say so
  if (!call->ours && !call->headers_sent && !SendResponseHead(*call, nullptr)) return absl::OkStatus();
  Enqueue(*call, message, size, packing);
  Pump();
  call = Find(id);
  if (call != nullptr && !call->outbox.empty()) call->room_wanted = true;
  return absl::OkStatus();
}

void GrpcCodec::SendHalfClose(CallId id) {
  Call* call = FindToSend(id);
  if (call == nullptr || !call->ours) return;
  call->send_done = true;
  Resume(*call);
  Pump();
}

bool GrpcCodec::SendResponseHead(Call& call, const Metadata* metadata) {
  call.headers_sent = true;
  HeaderList headers;
  headers.Add(":status", "200");
  headers.Add("content-type", "application/grpc");
  headers.Add("grpc-accept-encoding", "identity,gzip");
  if (call.pack) headers.Add("grpc-encoding", "gzip");
  if (metadata != nullptr) headers.Add(*metadata);
  nghttp2_data_provider provider = {};
  provider.read_callback = Provider();
  return nghttp2_submit_response(session_, static_cast<int32_t>(call.id), headers.data(), headers.size(), &provider) ==
         0;
}

void GrpcCodec::PackReplies(CallId id) {
  Call* call = FindToSend(id);
  if (call != nullptr && !call->ours && !call->headers_sent) call->pack = call->peer_takes_gzip;
}

void GrpcCodec::SendInitialMetadata(CallId id, const Metadata& metadata) {
  Call* call = FindToSend(id);
  if (call == nullptr || call->ours || call->headers_sent) return;
  if (!FitsPeer(metadata)) {
    counters_.metadata_refused.Add();
    call->failure = absl::ResourceExhaustedError("initial metadata is larger than the peer takes");
    return;
  }
  SendResponseHead(*call, &metadata);
  Pump();
}

void GrpcCodec::SendEnd(Call& call, const absl::Status& status, const Metadata* trailers) {
  call.send_done = true;
  Headers fields;
  fields.emplace_back("grpc-status", absl::StrCat(static_cast<int>(status.code())));
  if (!status.message().empty()) {
    // What the peer would not take is cut: the code is what matters.
    const size_t most = std::min<size_t>(
        nghttp2_session_get_remote_settings(session_, NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE), 64 << 10);
    std::string message = grpc_wire::EncodeMessage(status.message());
    if (message.size() > most / 2) {
      message = grpc_wire::EncodeMessage(status.message().substr(0, grpc_wire::kShortMessageBytes));
    }
    fields.emplace_back("grpc-message", std::move(message));
    std::string details = grpc_wire::EncodeDetails(status);
    if (!details.empty() && details.size() <= most / 2) {
      fields.emplace_back("grpc-status-details-bin", grpc_wire::EncodeBinary(details));
    }
  }
  if (trailers != nullptr) {
    for (const Metadata::Entry& entry : trailers->entries()) {
      fields.emplace_back(entry.key,
                          Metadata::IsBinaryKey(entry.key) ? grpc_wire::EncodeBinary(entry.value) : entry.value);
    }
  }
  if (call.headers_sent) {
    call.trailers = std::make_unique<Headers>(std::move(fields));
    Resume(call);
  } else {
    // Trailers-Only.
    call.headers_sent = true;
    HeaderList headers;
    headers.Add(":status", "200");
    headers.Add("content-type", "application/grpc");
    headers.Add("grpc-accept-encoding", "identity,gzip");
    for (const auto& [name, value] : fields) headers.Add(name, value);
    nghttp2_submit_response(session_, static_cast<int32_t>(call.id), headers.data(), headers.size(), nullptr);
  }
  Pump();
}

void GrpcCodec::SendReply(CallId id, const MessageLite* message, const absl::Status& status, const Metadata* trailers) {
  Call* call = FindToSend(id);
  if (call == nullptr || call->ours) return;
  const size_t size = message == nullptr ? 0 : message->ByteSizeLong();
  absl::Status failure = call->failure;
  if (size > grpc_wire::kMessageLimit) {
    counters_.messages_too_large.Add();
    failure =
        absl::ResourceExhaustedError(absl::StrCat("message of ", size, " bytes, at most ", grpc_wire::kMessageLimit));
  }
  if (trailers != nullptr && !FitsPeer(*trailers)) {
    counters_.metadata_refused.Add();
    failure = absl::ResourceExhaustedError("trailers are larger than the peer takes");
    trailers = nullptr;
  }
  const absl::Status result = status.ok() ? failure : status;
  if (message != nullptr && failure.ok()) {
    if (!call->headers_sent) SendResponseHead(*call, nullptr);
    call->reply_waits = call->outbox.empty();
    Enqueue(*call, *message, size, Packing::kAsCall);
  }
  // What a call brought that came to something pays for some mistakes; one that was refused pays for none.
  if (message != nullptr || result.ok()) {
    resets_.Refill();
    glitches_.Refill();
  }
  SendEnd(*call, result, trailers);
  call = Find(id);
  if (call != nullptr && !call->outbox.empty()) call->room_wanted = true;
}

void GrpcCodec::AnswerPlain(Call& call, const Head& head, int http_status, absl::string_view text) {
  // Of the same length as for GET, and not sent (RFC 9110, section 9.3.2).
  const bool whole = head.method != "HEAD";
  call.plain_http = true;
  call.send_done = true;
  call.headers_sent = true;
  ++caused_unsent_;
  Glitch();
  if (whole) {
    call.outbox.Append(absl::MakeConstSpan(text.data(), text.size()));
    waiting_bytes_ += text.size();
  }
  const std::string status = absl::StrCat(http_status), length = absl::StrCat(text.size());
  HeaderList headers;
  headers.Add(":status", status);
  headers.Add("content-type", "text/plain");
  headers.Add("content-length", length);
  nghttp2_data_provider provider = {};
  provider.read_callback = Provider();
  nghttp2_submit_response(session_, static_cast<int32_t>(call.id), headers.data(), headers.size(),
                          whole ? &provider : nullptr);
}

size_t GrpcCodec::WaitingBytes(CallId id) const {
  const Call* call = Find(id);
  return call == nullptr ? 0 : call->outbox.size();
}

void GrpcCodec::ResetStream(CallId id, Http2Error error) {
  if (!dead_.ok()) return;
  nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, static_cast<int32_t>(id), static_cast<uint32_t>(error));
  if (!receiving_) Pump();
}

void GrpcCodec::Reset(CallId id, const absl::Status& why) {
  Call* call = Find(id);
  if (call == nullptr || call->over) return;
  const Http2Error error = grpc_wire::ResetErrorOf(why);
  const bool says_why = !call->ours && error != Http2Error::kRefusedStream && error != Http2Error::kCancel &&
                        !why.ok() && !call->partly_sent && !call->send_done && dead_.ok();
  call->events = nullptr;
  if (says_why) {
    // Trailers tell a caller more than an error code.
    DropWaiting(*call);
    call->unread = 0;
    GrantCall(*call);
    SendEnd(*call, why, nullptr);
    return;
  }
  Remove(*call);
  ResetStream(id, error);
}

void GrpcCodec::Forget(CallId id) {
  Call* call = Find(id);
  if (call == nullptr) return;
  call->events = nullptr;
  if (call->over) return;
  call->unread = 0;
  GrantCall(*call);
  if (!receiving_) Pump();
}

void GrpcCodec::DropWaiting(Call& call) {
  waiting_bytes_ -= call.outbox.size();
  if (call.reply_waits) waiting_reply_bytes_ -= call.outbox.size();
  call.outbox.Clear();
}

absl::Status GrpcCodec::ExpireStalled() {
  if (!dead_.ok()) return dead_;
  std::vector<CallId> stalled;
  for (Call& call : in_order_) {
    if (call.ours || call.outbox.empty()) continue;
    if (++call.stalled > 2) stalled.push_back(call.id);
  }
  const absl::Status why = absl::ResourceExhaustedError("the caller gave no window for the reply");
  for (const CallId id : stalled) {
    Call* call = Find(id);
    if (call == nullptr) continue;
    CallEvents* const events = std::exchange(call->events, nullptr);
    counters_.calls_stalled.Add();
    CountReset();
    Remove(*call);
    ResetStream(id, Http2Error::kEnhanceYourCalm);
    if (events != nullptr) events->OnReset(why);
    if (!dead_.ok()) return dead_;
  }
  return flood_.ok() ? absl::OkStatus() : Die(flood_);
}

// ---------------------------------------------------------------- the connection

void GrpcCodec::SendPing(uint64_t opaque) {
  if (!dead_.ok()) return;
  uint8_t bytes[8];
  Store64(bytes, opaque);
  nghttp2_submit_ping(session_, NGHTTP2_FLAG_NONE, bytes);
  if (!receiving_) Pump();
}

void GrpcCodec::OnPong(uint64_t opaque) {
  if (opaque != kGoAwayPing) return events_.OnPong(opaque);
  SendLastWords();
}

void GrpcCodec::SendGoAway(const absl::Status& why) {
  if (!dead_.ok() || going_away_ == GoingAway::kSaid) return;
  if (options_.client || grpc_wire::GoAwayErrorOf(why) != Http2Error::kNoError) return SayLastCall(why);
  if (std::exchange(going_away_, GoingAway::kAnnounced) == GoingAway::kAnnounced) return;
  nghttp2_submit_shutdown_notice(session_);
  SendPing(kGoAwayPing);
}

void GrpcCodec::SendLastWords() {
  if (dead_.ok() && going_away_ == GoingAway::kAnnounced) SayLastCall(absl::OkStatus());
}

void GrpcCodec::SayLastCall(const absl::Status& why) {
  going_away_ = GoingAway::kSaid;
  const absl::string_view debug = why.message().substr(0, grpc_wire::kShortMessageBytes);
  nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(session_),
                        static_cast<uint32_t>(grpc_wire::GoAwayErrorOf(why)),
                        reinterpret_cast<const uint8_t*>(debug.data()), debug.size());
  if (!receiving_) Pump();
}

void GrpcCodec::Abandon(const absl::Status& why) {
  if (dead_.ok()) dead_ = why.ok() ? absl::UnavailableError("connection lost") : why;
  while (!in_order_.empty()) {
    Call& call = in_order_.front();
    CallEvents* const events = call.over ? nullptr : call.events;
    Remove(call);
    if (events != nullptr) events->OnReset(dead_);
  }
}

}  // namespace troupe
