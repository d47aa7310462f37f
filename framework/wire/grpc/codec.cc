#include "troupe/wire/grpc/codec.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/types/optional.h"
#include "glog/logging.h"
#include "troupe/wire/grpc/internal/gzip.h"
#include "troupe/wire/grpc/limits.h"

namespace troupe {

using grpc_wire::Http2Error;

namespace {

constexpr size_t kPrefixBytes = 5;

CodecOptions Checked(CodecOptions options) {
  options.call_credit_bytes = std::clamp(options.call_credit_bytes, 1024u, grpc_wire::kWindowMost / 2);
  options.connection_credit_bytes = std::clamp(options.connection_credit_bytes, 65535u, grpc_wire::kWindowMost / 2);
  options.calls_max = std::min(options.calls_max, grpc_wire::kWindowMost);
  options.message_bytes_max = std::min(options.message_bytes_max, grpc_wire::kMessageLimit);
  return options;
}

absl::string_view TextOf(const uint8_t* bytes, size_t size) {
  return absl::string_view(reinterpret_cast<const char*>(bytes), size);
}

// The length of the message that a head of five bytes begins.
size_t LengthIn(const char* prefix) {
  size_t length = 0;
  for (int i = 1; i < 5; ++i) length = length << 8 | static_cast<uint8_t>(prefix[i]);
  return length;
}

uint64_t Load64(const uint8_t* bytes) {
  uint64_t number = 0;
  for (int i = 0; i < 8; ++i) number = number << 8 | bytes[i];
  return number;
}

}  // namespace

// nghttp2's callbacks: what they say is noted, and dealt with when nghttp2 has returned.
struct GrpcCodecCallbacks {
  static GrpcCodec& Codec(void* user_data) { return *static_cast<GrpcCodec*>(user_data); }

  static ssize_t Send(nghttp2_session*, const uint8_t* data, size_t size, int, void* user_data) noexcept {
    Codec(user_data).output_.Append(absl::MakeConstSpan(reinterpret_cast<const char*>(data), size));
    return static_cast<ssize_t>(size);
  }
  static int SendData(nghttp2_session*, nghttp2_frame* frame, const uint8_t* frame_header, size_t size,
                      nghttp2_data_source*, void* user_data) noexcept {
    Codec(user_data).SendData(static_cast<CallId>(frame->hd.stream_id), frame_header, size);
    return 0;
  }
  static ssize_t OfferData(nghttp2_session*, int32_t stream_id, uint8_t*, size_t bytes_max, uint32_t* flags,
                           nghttp2_data_source*, void* user_data) noexcept {
    return Codec(user_data).OfferData(static_cast<CallId>(stream_id), bytes_max, flags);
  }
  static int OnFrameHeader(nghttp2_session*, const nghttp2_frame_hd* header, void* user_data) noexcept {
    Codec(user_data).NoteFrameHeader(*header);
    return 0;
  }
  static int OnFrame(nghttp2_session*, const nghttp2_frame* frame, void* user_data) noexcept {
    Codec(user_data).NoteFrame(*frame);
    return 0;
  }
  static int OnInvalidFrame(nghttp2_session*, const nghttp2_frame* frame, int error, void* user_data) noexcept {
    Codec(user_data).NoteInvalidFrame(*frame, error);
    return 0;
  }
  static int OnHeadersBegin(nghttp2_session*, const nghttp2_frame* frame, void* user_data) noexcept {
    Codec(user_data).NoteHeadersBegin(static_cast<CallId>(frame->hd.stream_id),
                                      frame->headers.cat == NGHTTP2_HCAT_REQUEST);
    return 0;
  }
  static int OnHeader(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name, size_t name_size,
                      const uint8_t* value, size_t value_size, uint8_t, void* user_data) noexcept {
    Codec(user_data).NoteHeader(static_cast<CallId>(frame->hd.stream_id), TextOf(name, name_size),
                                TextOf(value, value_size));
    return Codec(user_data).flood_.ok() ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
  }
  // nghttp2 would leave such a field out; RFC 9113, section 8.2.1, calls the whole malformed.
  static int OnInvalidHeader(nghttp2_session*, const nghttp2_frame*, const uint8_t*, size_t, const uint8_t*, size_t,
                             uint8_t, void*) noexcept {
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  }
  static int OnData(nghttp2_session*, uint8_t, int32_t stream_id, const uint8_t* data, size_t size,
                    void* user_data) noexcept {
    Codec(user_data).NoteData(static_cast<CallId>(stream_id),
                              absl::MakeConstSpan(reinterpret_cast<const char*>(data), size));
    return 0;
  }
  static int OnStreamClosed(nghttp2_session*, int32_t stream_id, uint32_t error, void* user_data) noexcept {
    GrpcCodec& codec = Codec(user_data);
    if (codec.calls_.contains(static_cast<CallId>(stream_id))) {
      codec.notes_.push_back({.kind = GrpcCodec::Note::kClosed, .id = static_cast<CallId>(stream_id), .number = error});
    }
    return 0;
  }
  static int OnFrameSent(nghttp2_session*, const nghttp2_frame* frame, void* user_data) noexcept {
    Codec(user_data).NoteSent(*frame);
    return 0;
  }
  // Frames of unknown types are read past; all there is to them is that they came.
  static int OnUnknownBytes(nghttp2_session*, const nghttp2_frame_hd*, const uint8_t*, size_t, void*) noexcept {
    return 0;
  }
  static int OnUnknown(nghttp2_session*, void** payload, const nghttp2_frame_hd*, void*) noexcept {
    *payload = nullptr;
    return 0;
  }
  static int OnError(nghttp2_session*, int, const char* message, size_t size, void* user_data) noexcept {
    Codec(user_data).debug_.assign(message, size);
    return 0;
  }

  static const nghttp2_session_callbacks* Get() {
    static const nghttp2_session_callbacks* const made = [] {
      nghttp2_session_callbacks* callbacks = nullptr;
      CHECK_EQ(nghttp2_session_callbacks_new(&callbacks), 0);
      nghttp2_session_callbacks_set_send_callback(callbacks, Send);
      nghttp2_session_callbacks_set_send_data_callback(callbacks, SendData);
      nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, OnFrameHeader);
      nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, OnFrame);
      nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, OnInvalidFrame);
      nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, OnHeadersBegin);
      nghttp2_session_callbacks_set_on_header_callback(callbacks, OnHeader);
      nghttp2_session_callbacks_set_on_invalid_header_callback(callbacks, OnInvalidHeader);
      nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, OnData);
      nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, OnStreamClosed);
      nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, OnFrameSent);
      nghttp2_session_callbacks_set_on_extension_chunk_recv_callback(callbacks, OnUnknownBytes);
      nghttp2_session_callbacks_set_unpack_extension_callback(callbacks, OnUnknown);
      nghttp2_session_callbacks_set_error_callback2(callbacks, OnError);
      return callbacks;
    }();
    return made;
  }

  static const nghttp2_option* Options() {
    static const nghttp2_option* const made = [] {
      nghttp2_option* option = nullptr;
      CHECK_EQ(nghttp2_option_new(&option), 0);
      nghttp2_option_set_no_auto_window_update(option, 1);
      nghttp2_option_set_no_closed_streams(option, 1);
      nghttp2_option_set_max_settings(option, grpc_wire::kSettingsEntriesMax);
      nghttp2_option_set_max_continuations(option, grpc_wire::kContinuationsMax);
      nghttp2_option_set_max_send_header_block_length(option, grpc_wire::kHeaderBlockBytesMax);
      nghttp2_option_set_peer_max_concurrent_streams(option, grpc_wire::kCallsBeforeSettings);
      for (int type = NGHTTP2_CONTINUATION + 1; type < 256; ++type) {
        nghttp2_option_set_user_recv_extension_type(option, static_cast<uint8_t>(type));
      }
      // Counted here, where time is the session's and not the machine's.
      nghttp2_option_set_stream_reset_rate_limit(option, std::numeric_limits<uint32_t>::max(),
                                                 std::numeric_limits<uint32_t>::max());
      // A grpc-message may begin and end with spaces.
      nghttp2_option_set_no_rfc9113_leading_and_trailing_ws_validation(option, 1);
      nghttp2_option_set_max_outbound_ack(option, std::numeric_limits<uint32_t>::max());
      return option;
    }();
    return made;
  }
};

nghttp2_data_source_read_callback GrpcCodec::Provider() { return GrpcCodecCallbacks::OfferData; }

GrpcCodec::GrpcCodec(const CodecOptions& options, GrpcOptions grpc, CodecEvents& events)
    : options_(Checked(options)),
      grpc_(std::move(grpc)),
      events_(events),
      own_counters_(options.counters == nullptr ? std::make_unique<WireCounters>() : nullptr),
      counters_(options.counters == nullptr ? *own_counters_ : *options.counters),
      frames_(/*preface_bytes=*/options_.client ? 0 : NGHTTP2_CLIENT_MAGIC_LEN),
      resets_{.left = options_.resets_max, .most = options_.resets_max, .per_second = options_.resets_per_second},
      glitches_{
          .left = options_.glitches_max, .most = options_.glitches_max, .per_second = options_.glitches_per_second} {
  const auto make = options_.client ? nghttp2_session_client_new2 : nghttp2_session_server_new2;
  CHECK_EQ(make(&session_, GrpcCodecCallbacks::Get(), this, GrpcCodecCallbacks::Options()), 0) << "out of memory";
  std::vector<nghttp2_settings_entry> settings = {
      {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, options_.client ? 0 : options_.calls_max},
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, options_.call_credit_bytes},
      {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE,
       static_cast<uint32_t>(std::min<size_t>(options_.metadata_bytes_max, grpc_wire::kWindowMost))},
  };
  if (options_.client) settings.push_back({NGHTTP2_SETTINGS_ENABLE_PUSH, 0});
  nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings.data(), settings.size());
  window_told_ = options_.call_credit_bytes;
  connection_window_ = options_.connection_credit_bytes;
  nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, static_cast<int32_t>(connection_window_));
  Pump();
}

GrpcCodec::~GrpcCodec() {
  while (!in_order_.empty()) Remove(in_order_.front());
  nghttp2_session_del(session_);
}

GrpcCodec::Call* GrpcCodec::Find(CallId id) const {
  const auto found = calls_.find(id);
  return found == calls_.end() ? nullptr : found->second;
}

GrpcCodec::Call& GrpcCodec::Add(CallId id, bool ours) {
  Call* call = new Call;
  call->id = id;
  call->ours = ours;
  calls_.emplace(id, call);
  call->receive_credit = first_window_;
  call->window = options_.call_credit_bytes;
  if (ours) ++calls_of_ours_;
  in_order_.PushBack(*call);
  return *call;
}

void GrpcCodec::Remove(Call& call) {
  DropWaiting(call);
  partial_bytes_ -= std::exchange(call.partial_capacity, 0);
  DropUnfinished(call);
  growth_ -= call.window - options_.call_credit_bytes;
  if (call.ours) --calls_of_ours_;
  calls_.erase(call.id);
  if (call.assembly_bytes != 0 || !assembly_queue_.empty()) ReturnAssembly(call);
  delete &call;
}

// ---------------------------------------------------------------- notes: inside nghttp2

void GrpcCodec::Flood(Counter& counter, absl::string_view what) {
  if (!flood_.ok()) return;
  counter.Add();
  flood_ = absl::ResourceExhaustedError(what);
}

void GrpcCodec::Glitch() {
  counters_.glitches.Add();
  if (!glitches_.Spend()) Flood(counters_.glitch_floods, "too many frames without use");
}

void GrpcCodec::CountReset() {
  if (!resets_.Spend()) Flood(counters_.reset_floods, "too many resets");
}

void GrpcCodec::NoteFrameHeader(const nghttp2_frame_hd& header) {
  // What nghttp2 reads and forgets: priorities and what it does not know.
  if (header.type == NGHTTP2_PRIORITY || header.type > NGHTTP2_CONTINUATION) Glitch();
}

void GrpcCodec::NoteFrame(const nghttp2_frame& frame) {
  const auto id = static_cast<CallId>(frame.hd.stream_id);
  const bool end_stream = (frame.hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
  const bool ack = (frame.hd.flags & NGHTTP2_FLAG_ACK) != 0;
  switch (frame.hd.type) {
    case NGHTTP2_HEADERS:
      if (Call* call = Find(id)) {
        notes_.push_back({.kind = Note::kHeaders, .end_stream = end_stream, .id = id, .head = std::move(call->head)});
      }
      break;
    case NGHTTP2_DATA:
      if (frame.hd.length == 0 && !end_stream) Glitch();
      if (!end_stream) break;
      if (!notes_.empty() && notes_.back().kind == Note::kData && notes_.back().id == id) {
        notes_.back().end_stream = true;
      } else {
        notes_.push_back({.kind = Note::kEnd, .id = id});
      }
      break;
    case NGHTTP2_RST_STREAM:
      if (options_.client) break;
      // Of a call that was answered meanwhile: its caller could not know.
      if (const Call* call = Find(id); call == nullptr || call->over) {
        counters_.late_frames.Add();
        Glitch();
        break;
      }
      counters_.resets_received.Add();
      CountReset();
      break;
    case NGHTTP2_SETTINGS:
      if (ack) {
        notes_.push_back({.kind = Note::kSettingsAck});
        break;
      }
      settings_received_ = true;
      if (++settings_seen_ > grpc_wire::kSettingsFree) Glitch();
      break;
    case NGHTTP2_PING: {
      Glitch();
      if (ack) {
        notes_.push_back({.kind = Note::kPong, .number = Load64(frame.ping.opaque_data)});
        break;
      }
      counters_.pings_received.Add();
      const bool strike = since_ping_ < options_.ping_interval_min;
      since_ping_ = absl::ZeroDuration();
      // By this text clients of gRPC know that they are to ask less often.
      if (strike && ++ping_strikes_ > options_.ping_strikes_max) Flood(counters_.ping_floods, "too_many_pings");
      break;
    }
    case NGHTTP2_GOAWAY:
      Glitch();
      peer_going_away_ = true;
      debug_.assign(reinterpret_cast<const char*>(frame.goaway.opaque_data), frame.goaway.opaque_data_len);
      notes_.push_back({.kind = Note::kGoAway,
                        .id = static_cast<CallId>(frame.goaway.last_stream_id),
                        .number = frame.goaway.error_code});
      break;
    case NGHTTP2_WINDOW_UPDATE:
      if (updates_expected_ > 0) {
        --updates_expected_;
      } else {
        Glitch();
      }
      break;
    default:
      break;
  }
}

void GrpcCodec::NoteInvalidFrame(const nghttp2_frame& frame, int error) {
  // One call too many; other mistakes are counted as the reset goes, since nghttp2 does not tell of all of them.
  if (frame.hd.stream_id == 0 || error != NGHTTP2_ERR_REFUSED_STREAM) return;
  counters_.resets_caused.Add();
  CountReset();
}

void GrpcCodec::NoteHeadersBegin(CallId id, bool request) {
  Call* call = request ? &Add(id, /*ours=*/false) : Find(id);
  if (call != nullptr) call->head = std::make_unique<Head>();
}

void GrpcCodec::NoteHeader(CallId id, absl::string_view name, absl::string_view value) {
  Call* call = Find(id);
  if (call == nullptr || call->head == nullptr) return;
  Head& head = *call->head;
  if (name != "grpc-message") value = absl::StripAsciiWhitespace(value);
  if (absl::StartsWith(name, ":")) {
    if (name == ":path") head.path = std::string(value.substr(0, options_.metadata_bytes_max));
    if (name == ":method") head.method = std::string(value.substr(0, 16));
    if (name == ":status") static_cast<void>(absl::SimpleAtoi(value, &head.http_status));
    return;
  }
  if (name == "content-type" && head.content_type.empty()) {
    head.content_type = std::string(value.substr(0, 128));
    return;
  }
  head.bytes += name.size() + value.size() + Metadata::kEntryOverheadBytes;
  if (head.bytes / grpc_wire::kHeadersBeyond > options_.metadata_bytes_max) {
    return Flood(counters_.glitch_floods, "headers that become far more than is taken");
  }
  if (!head.refused.ok()) return;
  // Nothing is decoded that stands beyond the limit: a reference of one byte to HPACK's table may be 4 KiB to decode.
  if (head.bytes > options_.metadata_bytes_max) return Refuse(head);
  if (name == "te" || name == "content-length") return;
  if (absl::ConsumePrefix(&name, "grpc-")) {
    if (name == "timeout") {
      head.timeout = grpc_wire::ParseTimeout(value);
      head.bad_timeout = !head.timeout.has_value();
    } else if (name == "encoding") {
      head.encoding = std::string(value.substr(0, 64));
    } else if (name == "accept-encoding") {
      head.says_accepted = true;
      for (const absl::string_view accepted : absl::StrSplit(value, ',')) {
        if (absl::StripAsciiWhitespace(accepted) == "gzip") head.accepts_gzip = true;
      }
    } else if (!options_.client) {
      return;  // what servers say
    } else if (name == "status") {
      head.code = grpc_wire::ParseStatusCode(value);
    } else if (name == "message" && head.message.empty()) {
      head.message = grpc_wire::DecodeMessage(value);
    } else if (name == "status-details-bin" && head.details.empty()) {
      grpc_wire::DecodeBinary(value, head.details);
    }
    return;  // the others are between gRPC and itself
  }
  if (++head.entries > options_.metadata_entries_max) return Refuse(head);
  if (!Metadata::IsBinaryKey(name)) {
    absl::Status added = head.metadata.TryAdd(name, value);
    if (!added.ok()) head.refused = absl::InternalError(added.message());
    return;
  }
  // Repeated keys may have been joined: each piece counts as one.
  bool first = true;
  for (const absl::string_view piece : absl::StrSplit(value, ',')) {
    if (!std::exchange(first, false)) {
      head.bytes += name.size() + Metadata::kEntryOverheadBytes;
      if (++head.entries > options_.metadata_entries_max || head.bytes > options_.metadata_bytes_max) {
        return Refuse(head);
      }
    }
    std::string bytes;
    absl::Status added = grpc_wire::DecodeBinary(absl::StripAsciiWhitespace(piece), bytes)
                             ? head.metadata.TryAdd(name, bytes)
                             : absl::InternalError("a binary value of the metadata is no base64");
    if (!added.ok()) {
      head.refused = absl::InternalError(added.message());
      return;
    }
  }
}

void GrpcCodec::Refuse(Head& head) const {
  head.refused = absl::ResourceExhaustedError(absl::StrCat("metadata of more than ", options_.metadata_bytes_max,
                                                           " bytes or ", options_.metadata_entries_max, " entries"));
  head.metadata.Clear();
}

void GrpcCodec::NoteData(CallId id, absl::Span<const char> data) {
  notes_.push_back({.kind = Note::kData, .id = id, .data = data});
}

// ---------------------------------------------------------------- receiving

absl::Status GrpcCodec::Die(absl::Status why) {
  if (!dead_.ok()) return dead_;
  dead_ = std::move(why);
  if (broken_) return dead_;  // nghttp2 has said so
  WriteGoAway(static_cast<CallId>(std::max(nghttp2_session_get_last_proc_stream_id(session_), 0)),
              grpc_wire::GoAwayErrorOf(dead_), dead_.message().substr(0, grpc_wire::kShortMessageBytes));
  return dead_;
}

absl::Status GrpcCodec::Receive(absl::Span<const char> bytes) {
  if (!dead_.ok()) return dead_;
  receiving_ = true;
  ssize_t taken = 0;
  while (!bytes.empty() && taken >= 0) {
    const absl::Span<const char> told = frames_.Next(bytes);
    if (told.empty()) break;
    taken = nghttp2_session_mem_recv(session_, reinterpret_cast<const uint8_t*>(told.data()), told.size());
  }
  // What came before a mistake still counts.
  for (size_t i = 0; i < notes_.size() && dead_.ok(); ++i) DealWith(i);
  notes_.clear();
  if (notes_.capacity() > 1024) notes_.shrink_to_fit();
  receiving_ = false;
  if (!dead_.ok()) return dead_;
  if (!flood_.ok()) return Die(flood_);
  if (taken < 0) {
    counters_.format_errors.Add();
    const std::string what = debug_.empty() ? nghttp2_strerror(static_cast<int>(taken)) : debug_;
    if (taken == NGHTTP2_ERR_FLOODED || taken == NGHTTP2_ERR_TOO_MANY_SETTINGS) {
      return Die(absl::ResourceExhaustedError(absl::StrCat("HTTP/2: ", what)));
    }
    return Die(absl::InvalidArgumentError(absl::StrCat("HTTP/2: ", absl::CHexEscape(what))));
  }
  ConsumeConnection(0);
  AdjustWindows();
  receiving_ = true;
  Pump();
  // Streams that nghttp2 ends for what came on them, as it says so.
  while (!notes_.empty() && dead_.ok()) {
    for (size_t i = 0; i < notes_.size() && dead_.ok(); ++i) DealWith(i);
    notes_.clear();
    Pump();
  }
  notes_.clear();
  receiving_ = false;
  ReturnPadding();
  TellDrained();
  if (!dead_.ok()) return dead_;
  if (!flood_.ok()) return Die(flood_);
  if (broken_) {
    counters_.format_errors.Add();
    return Die(absl::InvalidArgumentError(absl::StrCat("HTTP/2: ", absl::CHexEscape(debug_))));
  }
  if (caused_unsent_ > uint64_t{options_.frames_unsent_max} + options_.calls_max) {
    Flood(counters_.frame_floods, "too many frames that are answered and not read");
    return Die(flood_);
  }
  if (room_wanted_ && HasRoom()) {
    room_wanted_ = false;
    events_.OnCallRoom();
  }
  return dead_;
}

void GrpcCodec::DealWith(size_t index) {
  const Note note = std::move(notes_[index]);  // further ones may be added meanwhile
  Call* const call = Find(note.id);
  switch (note.kind) {
    case Note::kHeaders:
      if (call == nullptr || call->over || note.head == nullptr) return;
      if (options_.client) return OnResponseHead(*call, *note.head, note.end_stream);
      if (!call->headers_done) return OnRequestHead(*call, *note.head, index);
      // Trailers of a request say nothing to gRPC.
      if (note.end_stream) OnPeerEnd(note.id);
      return;
    case Note::kData:
      OnData(note.id, note.data);
      if (note.end_stream) OnPeerEnd(note.id);
      return;
    case Note::kEnd:
      return OnPeerEnd(note.id);
    case Note::kClosed:
      return OnClosed(note.id, grpc_wire::StatusOfReset(static_cast<uint32_t>(note.number)));
    case Note::kMistake:
      return OnClosed(note.id, absl::InternalError(absl::StrCat("the peer broke HTTP/2's rules, error ", note.number)));
    case Note::kGoAway:
      return OnGoAway(note.id, static_cast<uint32_t>(note.number), absl::MakeConstSpan(debug_));
    case Note::kPong:
      return OnPong(note.number);
    case Note::kSettingsAck:
      return OnSettingsAck();
  }
}

void GrpcCodec::OnRequestHead(Call& call, Head& head, size_t index) {
  const CallId id = call.id;
  call.headers_done = true;
  if (!grpc_wire::IsGrpcContentType(head.content_type)) {
    if ((head.method == "GET" || head.method == "HEAD" || head.method == "POST") && head.path == "/") {
      return AnswerPlain(call, head, 200, "This is a server of gRPC, made with Troupe.\n");
    }
    return AnswerPlain(call, head, 415, "expected content-type application/grpc\n");
  }
  if (head.method != "POST") return AnswerPlain(call, head, 405, "calls of gRPC are made by POST\n");
  absl::Status refused = std::move(head.refused);
  if (!refused.ok()) {
    counters_.metadata_refused.Add();
    CountReset();
  }
  if (refused.ok() && head.bad_timeout) refused = absl::InternalError("malformed grpc-timeout");
  if (refused.ok() && !head.encoding.empty() && head.encoding != "identity" && head.encoding != "gzip") {
    refused = absl::UnimplementedError(
        absl::StrCat("messages packed by ", absl::CHexEscape(head.encoding), "; understood are identity and gzip"));
  }
  if (!refused.ok()) {
    ++caused_unsent_;
    return SendEnd(call, refused, nullptr);
  }
  call.gzip = head.encoding == "gzip";
  call.peer_takes_gzip = head.accepts_gzip;

  IncomingCall incoming;
  incoming.id = id;
  incoming.method = events_.FindMethod(head.path);
  incoming.path = head.path;
  incoming.metadata = std::move(head.metadata);
  incoming.timeout = head.timeout.value_or(absl::InfiniteDuration());
  const bool ended = notes_[index].end_stream;
  Note* const next = index + 1 < notes_.size() ? &notes_[index + 1] : nullptr;
  if (next != nullptr && next->kind == Note::kData && next->id == id && next->end_stream) {
    // The common call: all of it is here.
    const absl::Span<const char> data = next->data;
    if (data.size() >= kPrefixBytes && data[0] == 0 && LengthIn(data.data()) == data.size() - kPrefixBytes &&
        data.size() - kPrefixBytes <= options_.message_bytes_max) {
      incoming.complete = true;
      incoming.message = data.subspan(kPrefixBytes);
      incoming.charged = data.size();
      call.unread = data.size();
      call.receive_credit -= static_cast<int64_t>(data.size());
      call.receive_done = true;
      counters_.messages_received.Add();
      ConsumeConnection(data.size());
      next->data = {};
      next->end_stream = false;
    }
  }
  counters_.calls_opened_by_peer.Add();
  CallEvents* const events = events_.OnCall(incoming);
  Call* const still = Find(id);
  if (events == nullptr) ++caused_unsent_;
  if (still == nullptr || still->over) return;
  still->events = events;
  if (events == nullptr) {
    still->unread = 0;
    GrantCall(*still);
  }
  if (ended) OnPeerEnd(id);
}

void GrpcCodec::OnResponseHead(Call& call, Head& head, bool end_stream) {
  if (!call.headers_done && head.http_status >= 100 && head.http_status < 200) return;
  const bool first = !std::exchange(call.headers_done, true);
  if (head.says_accepted) server_takes_gzip_ = head.accepts_gzip;
  if (!head.refused.ok()) counters_.metadata_refused.Add();
  if (first && !end_stream) {
    if (head.http_status != 200) return Fail(call, grpc_wire::StatusOfHttp(head.http_status));
    if (!grpc_wire::IsGrpcContentType(head.content_type)) {
      return Fail(call, absl::UnknownError(absl::StrCat("the server answered with content-type ",
                                                        absl::CHexEscape(head.content_type), " and not with gRPC")));
    }
    if (!head.refused.ok()) return Fail(call, head.refused);
    if (!head.encoding.empty() && head.encoding != "identity" && head.encoding != "gzip") {
      return Fail(call, absl::InternalError(absl::StrCat("the server packs messages by ",
                                                         absl::CHexEscape(head.encoding), ", which was not offered")));
    }
    call.gzip = head.encoding == "gzip";
    if (call.events != nullptr) call.events->OnInitialMetadata(std::move(head.metadata));
    return;
  }
  // The end. One that is all there is says the HTTP status too.
  absl::Status status;
  if (head.code.has_value()) {
    status = absl::Status(*head.code, head.message);
    if (!head.details.empty()) grpc_wire::DecodeDetails(head.details, status);
  } else if (first && head.http_status != 200) {
    status = grpc_wire::StatusOfHttp(head.http_status);
  } else {
    status = absl::UnknownError("the server's end of the call has no grpc-status");
  }
  if (call.in_message || call.prefix_bytes > 0) status = absl::InternalError("the call ended inside a message");
  if (!head.refused.ok() && status.ok()) status = head.refused;
  DeliverEnd(call, std::move(status), std::move(head.metadata));
}

void GrpcCodec::DeliverEnd(Call& call, absl::Status status, Metadata trailers) {
  const CallId id = call.id;
  CallEvents* const events = call.events;
  // Of a stream that has ended both ways nghttp2 knows nothing any more.
  const bool all_sent = nghttp2_session_get_stream_local_close(session_, static_cast<int32_t>(id)) != 0;
  Remove(call);
  // Nobody reads what we would still send.
  if (!all_sent) ResetStream(id, Http2Error::kCancel);
  resets_.Refill();
  glitches_.Refill();
  if (events != nullptr) events->OnEnd(std::move(status), std::move(trailers));
}

absl::Status GrpcCodec::ReadPrefix(Call& call, const char* prefix) {
  const auto packed = static_cast<uint8_t>(prefix[0]);
  const size_t length = LengthIn(prefix);
  if (packed > 1) return absl::InternalError("malformed head of a message");
  if (packed == 1 && !call.gzip) return absl::InternalError("a packed message, and no grpc-encoding");
  if (length > options_.message_bytes_max) {
    counters_.messages_too_large.Add();
    return absl::ResourceExhaustedError(
        absl::StrCat("message of ", length, " bytes, at most ", options_.message_bytes_max));
  }
  call.packed = packed == 1;
  call.in_message = true;
  call.partial_total = length;
  call.partial_size = 0;
  return absl::OkStatus();
}

bool GrpcCodec::TakeMessage(Call& call, absl::Span<const char>& data, absl::Span<const char>& message,
                            std::unique_ptr<char[]>& storage, size_t& charged, absl::Status& wrong) {
  if (!call.in_message) {
    if (data.empty()) return false;
    const size_t take = std::min(data.size(), kPrefixBytes - call.prefix_bytes);
    std::memcpy(call.prefix + call.prefix_bytes, data.data(), take);
    call.prefix_bytes = static_cast<uint8_t>(call.prefix_bytes + take);
    data.remove_prefix(take);
    if (call.prefix_bytes < kPrefixBytes) return false;
    call.prefix_bytes = 0;
    wrong = ReadPrefix(call, call.prefix);
    if (!wrong.ok()) return false;
  }
  if (call.partial_size == 0 && data.size() >= call.partial_total) {
    message = data.subspan(0, call.partial_total);
    data.remove_prefix(call.partial_total);
  } else {
    const size_t take = std::min(data.size(), call.partial_total - call.partial_size);
    const size_t needed = call.partial_size + take;
    if (needed > call.partial_capacity) {
      // All of it at once when a good part is there; otherwise as it comes, and not for the length that a stranger
      // announces.
      const size_t capacity = call.partial_total <= 2 * needed
                                  ? call.partial_total
                                  : std::min(call.partial_total, std::max(needed, 2 * call.partial_capacity));
      std::unique_ptr<char[]> larger(new char[capacity]);
      if (call.partial_size > 0) std::memcpy(larger.get(), call.partial.get(), call.partial_size);
      call.partial = std::move(larger);
      partial_bytes_ += capacity - call.partial_capacity;
      call.partial_capacity = capacity;
    }
    if (take > 0) std::memcpy(call.partial.get() + call.partial_size, data.data(), take);
    data.remove_prefix(take);
    call.partial_size = needed;
    if (call.assembly_bytes == 0) unfinished_bytes_ += take;
    if (needed < call.partial_total) return false;
    DropUnfinished(call);
    call.partial_size = 0;
    storage = std::move(call.partial);
    partial_bytes_ -= std::exchange(call.partial_capacity, 0);
    message = absl::MakeConstSpan(storage.get(), needed);
    ReturnAssembly(call);
  }
  charged = kPrefixBytes + call.partial_total;
  call.in_message = false;
  call.partial_size = 0;
  return true;
}

absl::Status GrpcCodec::Unpack(absl::Span<const char> packed, std::string& message) const {
  const auto result = grpc_wire::Gunzip(packed, options_.message_bytes_max, message);
  unpacked_bytes_ += message.size();
  switch (result) {
    case grpc_wire::Gunzipped::kOk:
      return absl::OkStatus();
    case grpc_wire::Gunzipped::kTooLarge:
      counters_.messages_too_large.Add();
      return absl::ResourceExhaustedError(
          absl::StrCat("a packed message of more than ", options_.message_bytes_max, " bytes"));
    case grpc_wire::Gunzipped::kMalformed:
      break;
  }
  return absl::InternalError("a packed message is not gzip");
}

bool GrpcCodec::Deliver(CallId id, absl::Span<const char> message, size_t charged) {
  Call* call = Find(id);
  counters_.messages_received.Add();
  if (call->events == nullptr) return true;
  call->unread += charged;
  call->events->OnMessage(message, charged);
  call = Find(id);
  return call != nullptr && !call->over && (call->ours || !call->send_done);
}

void GrpcCodec::OnData(CallId id, absl::Span<const char> data) {
  ConsumeConnection(data.size());
  Call* call = Find(id);
  if (call == nullptr) return;
  call->receive_credit -= static_cast<int64_t>(data.size());
  // Nobody is interested in what comes behind the answer.
  if (call->over || (!call->ours && call->send_done) || !call->headers_done) return;
  std::unique_ptr<char[]> storage;
  absl::Span<const char> message;
  size_t charged = 0;
  absl::Status wrong;
  while (TakeMessage(*call, data, message, storage, charged, wrong)) {
    bool goes_on = false;
    if (call->packed) {
      std::string unpacked;
      wrong = Unpack(message, unpacked);
      // What is held is what came out. One call holds no more of it than of a message.
      if (wrong.ok() && call->unread > options_.message_bytes_max) {
        wrong = absl::ResourceExhaustedError("packed messages are larger than what the reader has room for");
      }
      if (!wrong.ok()) break;
      delivering_packed_ = true;
      const absl::Cleanup delivered = [this] { delivering_packed_ = false; };
      goes_on = Deliver(id, absl::MakeConstSpan(unpacked), std::max(charged, unpacked.size()));
    } else {
      goes_on = Deliver(id, message, charged);
    }
    if (!goes_on) return;
    call = Find(id);
  }
  if (!wrong.ok()) return Fail(*call, wrong);
  GrantCall(*call);
}

void GrpcCodec::OnPeerEnd(CallId id) {
  Call* call = Find(id);
  if (call == nullptr) return;
  call->receive_done = true;
  if (call->over || (!call->ours && call->send_done)) return;
  if (call->in_message || call->prefix_bytes > 0) {
    return Fail(*call, absl::InternalError("the call ended inside a message"));
  }
  if (call->ours) return Fail(*call, absl::InternalError("the server ended the call without trailers"));
  if (call->events != nullptr) call->events->OnHalfClose();
}

void GrpcCodec::OnClosed(CallId id, absl::Status why) {
  Call* call = Find(id);
  if (call == nullptr) return;
  CallEvents* const events = call->events;
  // An answer that had gone whole was heard.
  const bool told = call->over;
  Remove(*call);
  if (told || events == nullptr) return;
  events->OnReset(std::move(why));
}

void GrpcCodec::OnGoAway(CallId last, uint32_t error, absl::Span<const char> debug) {
  absl::Status why;
  if (error != static_cast<uint32_t>(Http2Error::kNoError)) {
    const absl::string_view text(debug.data(), std::min(debug.size(), grpc_wire::kShortMessageBytes));
    const bool calm = error == static_cast<uint32_t>(Http2Error::kEnhanceYourCalm);
    why = absl::Status(calm ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kUnavailable,
                       absl::StrCat("the peer is going away with HTTP/2 error ", error, ": ", absl::CHexEscape(text)));
  }
  events_.OnGoAway(last, std::move(why));
}

void GrpcCodec::Fail(Call& call, const absl::Status& why) {
  const CallId id = call.id;
  CallEvents* const events = call.events;
  counters_.resets_caused.Add();
  CountReset();
  if (call.ours) {
    Remove(call);
    const bool has_ended = nghttp2_session_get_stream_local_close(session_, static_cast<int32_t>(id)) < 0;
    if (!has_ended) ResetStream(id, Http2Error::kCancel);
  } else {
    call.events = nullptr;
    Reset(id, why);
  }
  if (events != nullptr) events->OnReset(why);
}

// ---------------------------------------------------------------- credit

size_t GrpcCodec::UnfinishedMax() const {
  return std::max(grpc_wire::kAssemblyMessages * options_.message_bytes_max,
                  grpc_wire::kUnfinishedWindows * options_.call_credit_bytes);
}

void GrpcCodec::AdjustWindows() {
  if (window_told_.has_value() || !dead_.ok()) return;  // one step after the other
  const size_t most = UnfinishedMax();
  const uint32_t before = window();
  narrow_ = unfinished_bytes_ > (narrow_ ? most / 8 : most / 2);
  if (window() == before) return;
  if (narrow_ && growth_ > 0) {
    growth_ = 0;
    for (Call& call : in_order_) {
      call.window = options_.call_credit_bytes;
    }
  }
  window_told_ = window();
  const nghttp2_settings_entry entry = {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, window()};
  nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, &entry, 1);
}

void GrpcCodec::OnSettingsAck() {
  if (!window_told_.has_value()) return;
  // It holds for the streams that are there, too (RFC 9113, section 6.9.2).
  const int64_t change = int64_t{*window_told_} - first_window_;
  first_window_ = *window_told_;
  window_told_.reset();
  for (Call& call : in_order_) {
    call.receive_credit += change;
    GrantCall(call);
  }
  ConsumeConnection(0);
}

void GrpcCodec::ConsumeConnection(size_t bytes) {
  connection_owed_ += bytes;
  if (credit_paused_ || !dead_.ok() || connection_owed_ == 0) return;
  // Until the peer knows that its calls have narrow windows, there may be no end of it.
  const size_t grown = static_cast<size_t>(connection_window_) - options_.connection_credit_bytes;
  if (narrow_ && window_told_.has_value() && unfinished_bytes_ + grown > UnfinishedMax()) return;
  nghttp2_session_consume_connection(session_, std::exchange(connection_owed_, 0));
}

void GrpcCodec::ReturnPadding() {
  uint32_t all = 0;
  for (const auto& [id, bytes] : frames_.TakePadding()) {
    all += bytes;
    const bool goes_on = nghttp2_session_get_stream_remote_close(session_, static_cast<int32_t>(id)) == 0;
    if (goes_on && dead_.ok() && !broken_) WriteWindowUpdate(id, bytes);
  }
  if (all > 0 && dead_.ok() && !broken_) WriteWindowUpdate(0, all);
}

void GrpcCodec::GrantCall(Call& call) {
  if (credit_paused_ || !dead_.ok() || call.receive_done) return;
  const int64_t window = WindowOf(call);
  const auto held =
      static_cast<int64_t>(call.unread + call.prefix_bytes + (call.in_message ? kPrefixBytes + call.partial_size : 0));
  const auto missing =
      static_cast<int64_t>(call.in_message ? call.partial_total - call.partial_size + grpc_wire::kWindowBehind : 0);
  int64_t allowed = window - held;
  bool needed = call.receive_credit < missing;
  if (needed && allowed < missing) {
    // A message that its call's credit cannot hold: the rest of it, once the application has taken what came before.
    if (call.unread == 0 && TakeAssembly(call)) {
      allowed = missing;
    } else {
      needed = false;
    }
  }
  const int64_t grant = allowed - call.receive_credit;
  // Smaller steps than half a window cost more frames; larger ones a sender that waits.
  if (grant <= 0 || (grant < window / 4 && !needed)) return;
  call.receive_credit += grant;
  nghttp2_submit_window_update(session_, NGHTTP2_FLAG_NONE, static_cast<int32_t>(call.id), static_cast<int32_t>(grant));
}

void GrpcCodec::GrowWindow(Call& call) {
  if (narrow_ || credit_paused_ || !dead_.ok() || call.receive_done) return;
  if (call.taken < call.window || call.unread > 0) return;
  call.taken = 0;
  const int64_t least = options_.call_credit_bytes, connection = options_.connection_credit_bytes;
  const int64_t most = std::min<int64_t>(least * grpc_wire::kCallWindowsMost, grpc_wire::kWindowMost / 2);
  const int64_t left =
      std::min<int64_t>(connection * grpc_wire::kConnectionGrowthMost, grpc_wire::kWindowMost / 2 - connection) -
      growth_;
  const int64_t growth = std::min({call.window, most - call.window, left});
  if (growth <= 0) return;
  call.window += growth;
  growth_ += growth;
  // What comes for this call is no less for the others.
  if (connection + growth_ <= connection_window_) return;
  connection_window_ = connection + growth_;
  nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, static_cast<int32_t>(connection_window_));
}

bool GrpcCodec::TakeAssembly(Call& call) {
  if (call.assembly_bytes != 0) return true;
  const size_t most = grpc_wire::kAssemblyMessages * options_.message_bytes_max;
  const bool first = assembly_queue_.empty() || assembly_queue_.front() == call.id;
  const size_t missing = call.partial_total - call.partial_size;
  // A quarter in any case, so that what has begun elsewhere does not make it one call after the other.
  const size_t in_use = assembly_in_use_ + missing;
  if (first && (assembly_in_use_ == 0 || in_use <= most / 4 || in_use + unfinished_bytes_ <= most)) {
    if (!assembly_queue_.empty()) assembly_queue_.erase(assembly_queue_.begin());
    DropUnfinished(call);
    call.assembly_bytes = call.partial_total;
    assembly_in_use_ += call.assembly_bytes;
    return true;
  }
  if (std::find(assembly_queue_.begin(), assembly_queue_.end(), call.id) == assembly_queue_.end()) {
    assembly_queue_.push_back(call.id);
  }
  return false;
}

void GrpcCodec::ReturnAssembly(Call& call) {
  assembly_in_use_ -= std::exchange(call.assembly_bytes, 0);
  const auto own = std::find(assembly_queue_.begin(), assembly_queue_.end(), call.id);
  if (own != assembly_queue_.end()) assembly_queue_.erase(own);
  while (!assembly_queue_.empty()) {
    const CallId next = assembly_queue_.front();
    Call* waiting = Find(next);
    if (waiting == nullptr || !waiting->in_message) {
      assembly_queue_.erase(assembly_queue_.begin());
      continue;
    }
    GrantCall(*waiting);
    if (!assembly_queue_.empty() && assembly_queue_.front() == next) return;
  }
}

void GrpcCodec::ResumeCredit() {
  credit_paused_ = false;
  ConsumeConnection(0);
  for (Call& call : in_order_) {
    GrantCall(call);
  }
  Pump();
}

void GrpcCodec::Consumed(CallId id, size_t bytes) {
  Call* call = Find(id);
  if (call == nullptr || call->over) return;
  call->unread -= std::min(bytes, call->unread);
  call->taken += static_cast<int64_t>(bytes);
  GrowWindow(*call);
  GrantCall(*call);
  if (!receiving_) Pump();
}

void GrpcCodec::TimePassed(absl::Duration since_last) {
  resets_.Pass(since_last);
  glitches_.Pass(since_last);
  since_ping_ += std::max(since_last, absl::ZeroDuration());
}

}  // namespace troupe
