#include "troupe/service/session.h"

#include <algorithm>
#include <climits>
#include <exception>
#include <memory>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "troupe/base/errors.h"
#include "troupe/rpc/internal/client_call.h"
#include "troupe/service/internal/call_gates.h"
#include "troupe/service/internal/session_call.h"
#include "troupe/wire/grpc/codec.h"
#include "troupe/wire/native/codec.h"
#include "troupe/wire/native/frame.h"

namespace troupe {

using internal::SessionClientCall;
using internal::SessionServerCall;

namespace {

const absl::string_view kNativeMagic(reinterpret_cast<const char*>(native::kMagic), sizeof(native::kMagic));
// What every client of HTTP/2 says first (RFC 9113, section 3.4), as far as it tells.
constexpr absl::string_view kGrpcMagic = "PRI * HTTP/2.0";

// For the caller, of a call that its codec did not take: too large is RESOURCE_EXHAUSTED, as it is at the other end.
absl::Status StatusOfRefusal(const absl::Status& refused) {
  return absl::IsOutOfRange(refused) ? absl::ResourceExhaustedError(refused.message()) : refused;
}

// After a peer has ended its direction: until it is asked for the second time whether it is there, and then again. No
// more pings than it bears.
constexpr absl::Duration kProbeAgain = absl::Seconds(1);
// Which part of unsent_bytes_max handlers that run may be likely to answer; how many run at once of which nothing is
// known; and what a reply is taken for at the least, so that a thousand calls may run.
constexpr size_t kRepliesToComePart = 4;
constexpr size_t kUnknownReplies = 8;
constexpr size_t kSmallReplyBytes = 4 << 10;
// What is expected of a method becomes less by this part with each reply.
constexpr uint32_t kForgottenPart = 64;
// A handler that has not answered for so long waits for something that others need not wait for, as long as all that may
// come is not more than unsent_bytes_max; and after so many times that, even then.
constexpr absl::Duration kReplyOverdue = absl::Milliseconds(5);
constexpr uint32_t kRepliesLongOverdue = 200;
// So much input of HTTP/2 is taken at once, and so much where messages are packed.
constexpr size_t kPieceBytes = 16 << 10;
constexpr size_t kPackedPieceBytes = 4 << 10;
// What is behind a piece waits for the next turn when those before it took so long. Bytes do not tell what they cost.
constexpr absl::Duration kInputTurn = absl::Microseconds(500);
// Calls wait so long for others to give up what their requests occupy.
constexpr absl::Duration kRequestsOverdue = absl::Seconds(5);
constexpr absl::Duration kProbeRarely = absl::Minutes(6);

CodecOptions CodecOptionsOf(const ConnectionLimits& limits) {
  CodecOptions codec;
  codec.message_bytes_max = limits.message_bytes_max;
  codec.calls_max = limits.calls_max;
  codec.call_credit_bytes = limits.call_credit_bytes;
  codec.connection_credit_bytes = limits.connection_credit_bytes;
  codec.metadata_bytes_max = limits.metadata_bytes_max;
  codec.metadata_entries_max = limits.metadata_entries_max;
  codec.resets_max = limits.resets_max;
  codec.resets_per_second = limits.resets_per_second;
  codec.glitches_max = limits.glitches_max;
  codec.glitches_per_second = limits.glitches_per_second;
  codec.acks_unsent_max = limits.acks_unsent_max;
  codec.frames_unsent_max = limits.frames_unsent_max;
  codec.ping_interval_min = limits.ping_interval_min;
  codec.ping_strikes_max = limits.ping_strikes_max;
  return codec;
}

// For a call that no handler has seen: it may be sent again elsewhere.
absl::Status NotStarted(absl::Status status) {
  status.SetPayload(kNotStartedPayload, absl::Cord());
  return status;
}

// As every codec does; whether the wire takes so much shows when it is sent.
absl::StatusOr<Bytes> EncodeForLater(const google::protobuf::MessageLite& message) {
  const size_t size = message.ByteSizeLong();
  if (size > INT_MAX) return absl::OutOfRangeError(absl::StrCat("message of ", size, " bytes"));
  if (size == 0) return Bytes();
  return Bytes::Make(size, [&](char* to) {
    google::protobuf::io::ArrayOutputStream array(to, static_cast<int>(size));
    google::protobuf::io::CodedOutputStream coded(&array);
    coded.SetSerializationDeterministic(true);
    message.SerializeWithCachedSizes(&coded);
  });
}

// Of a connection's age, more or less, as gRPC's MAX_CONNECTION_AGE (A9).
constexpr double kAgeJitter = 0.1;

// Calls that ask how we are: answered also when memory is short.
bool IsHealth(absl::string_view path) { return absl::StartsWith(path, "/grpc.health.v1.Health/"); }

}  // namespace

// What the transport owns. It may outlive the session, and the session may outlive it.
class Session::Adapter final : public Protocol {
 public:
  explicit Adapter(Session& session) : session_(&session) {}
  ~Adapter() override {
    // Dropped before the connection was made: there will be none.
    if (session_ != nullptr) {
      session_->adapter_ = nullptr;
      if (session_->transport_ == nullptr) session_->Fail(absl::UnavailableError("the connection was not made"));
    }
  }
  void Detach() { session_ = nullptr; }

  void ConnectionMade(Transport& transport) override {
    if (session_ == nullptr) return transport.Abort();
    session_->ConnectionMade(transport);
  }
  void DataReceived(absl::Span<const char> data) override {
    if (session_ != nullptr) session_->DataReceived(data);
  }
  bool EofReceived() override { return session_ != nullptr && session_->EofReceived(); }
  void PauseWriting() override {
    if (session_ != nullptr) session_->PauseWriting();
  }
  void ResumeWriting() override {
    if (session_ != nullptr) session_->ResumeWriting();
  }
  void ConnectionLost(const absl::Status& reason) override {
    if (session_ == nullptr) return;
    Session& session = *std::exchange(session_, nullptr);
    session.adapter_ = nullptr;
    session.ConnectionLost(reason);
  }

 private:
  Session* session_;
};

const char* AlpnOf(Wire wire) { return wire == Wire::kNative ? "troupe/1" : "h2"; }

Session::Session(EventLoop& loop, Role role, const SessionOptions& options, const ServiceTable* table,
                 SessionCounters& counters)
    : loop_(loop),
      role_(role),
      wire_(options.wire),
      options_(options),
      table_(table),
      counters_(counters),
      memory_(options.memory) {
  // A client says first what it speaks, so its calls can be encoded before the connection stands.
  if (role_ == Role::kClient && !options.wire_by_alpn) OpenCodec();
  if (memory_ != nullptr) memory_->Join(*this);
}

Session::~Session() {
  if (ended_) return;
  on_ended_ = nullptr;
  EndAtOnce();
  try {
    End();
  } catch (...) {  // Fatal, which leaves the loop in its next iteration
    if (!loop_.IsClosed()) loop_.Post([fatal = std::current_exception()] { std::rethrow_exception(fatal); });
  }
  // The actors go with it, not later: what they refer to may be gone by then.
}

// All that the life of a connection promises, but for the end of the actors.
void Session::EndAtOnce() {
  if (adapter_ != nullptr) std::exchange(adapter_, nullptr)->Detach();
  if (state_ != State::kLost) {
    // What a codec makes after it was closed, in the middle of what it received, goes nowhere: our direction has ended.
    if (state_ != State::kClosing) FlushNow();
    if (transport_ != nullptr) transport_->Abort();
    ConnectionLost(absl::UnavailableError("the connection was destroyed"));
  }
  DestroyHandlers();
}

bool Session::user_code_is_running() const {
  if (user_code_ > 0) return true;
  for (SessionServerCall& call : const_cast<Session*>(this)->server_calls_) {
    if (call.running()) return true;
  }
  return false;
}

void Session::Destroy(std::unique_ptr<Session> session, std::shared_ptr<const void> used) {
  if (!session->user_code_is_running()) return;
  Session& living = *session.release();
  living.used_ = std::move(used);
  living.on_ended_ = [](Session& ended) { ended.loop_.DeleteLater(std::unique_ptr<Session>(&ended)); };
  living.EndAtOnce();
}

std::unique_ptr<Protocol> Session::MakeProtocol() {
  auto adapter = std::make_unique<Adapter>(*this);
  adapter_ = adapter.get();
  return adapter;
}

std::string Session::DebugString() const {
  return absl::StrCat(wire(), " ", local_.ToString(), role_ == Role::kServer ? " <- " : " -> ", peer_.ToString());
}

// ---------------------------------------------------------------------------------------------------- the transport

void Session::ConnectionMade(Transport& transport) {
  transport_ = &transport;
  peer_ = transport.peer();
  local_ = transport.local();
  if (state_ == State::kClosing) return CloseTransport();  // closed while it was being connected
  if (options_.gate != nullptr) {
    admitted_ = options_.gate->Admit(*this);
    if (!admitted_) return Abort(absl::ResourceExhaustedError("too many connections of this peer"));
  }
  const absl::Status marks = transport.SetWriteBufferLimits(
      {.high = options_.limits.write_high_bytes, .low = options_.limits.write_low_bytes});
  if (!marks.ok()) throw StatusError(marks);
  const MonotonicTime now = loop_.Time();
  if (role_ == Role::kClient) {
    if (codec_ == nullptr && !TakeAlpn()) return;
    unfinished_ = 0;  // nothing was begun
    state_ = State::kOpen;
    last_received_ = active_at_ = now;
    WatchFrom(now);
    OnCallRoom();
    FlushSoon();
    return;
  }
  state_ = State::kDetecting;
  loop_.ScheduleAt(unfinished_timer_, now + options_.limits.preface_timeout);
}

bool Session::TakeAlpn() {
  const std::string agreed = transport_->tls() == nullptr ? "" : transport_->tls()->alpn;
  if (agreed != AlpnOf(Wire::kNative) && agreed != AlpnOf(Wire::kGrpc)) {
    Abort(absl::UnavailableError("the server agreed on neither troupe/1 nor h2 (ALPN)"));
    return false;
  }
  wire_ = agreed == AlpnOf(Wire::kNative) ? Wire::kNative : Wire::kGrpc;
  OpenCodec();
  return true;
}

void Session::DataReceived(absl::Span<const char> data) {
  if (state_ == State::kDetecting) {
    if (held_input_.empty()) {
      Detect(data);
    } else {
      // The first bytes came in pieces.
      held_input_.append(data.data(), data.size());
      const std::string first = std::exchange(held_input_, {});
      Detect(first);
      return Receive(first);
    }
  }
  Receive(data);
}

void Session::Receive(absl::Span<const char> data) {
  if (state_ != State::kOpen) return;  // what comes after the end is not looked at
  BeginTurn();
  ping_outstanding_ = false;
  heard_ = true;
  const MonotonicTime now = loop_.Time();
  codec_->TimePassed(now - std::exchange(last_received_, now));
  if (!held_input_.empty()) {  // it came although reading is paused
    held_input_.append(data.data(), data.size());
    return;
  }
  TakeIn(data);
}

void Session::TakeIn(absl::Span<const char> data) {
  absl::Status received;
  taking_in_ = true;
  MonotonicTime began = MonotonicTime::InfiniteFuture();
  try {
    while (received.ok() && !data.empty() && state_ == State::kOpen) {
      bool over = false;
      if (began.is_infinite()) {
        began = loop_.Time();
      } else {
        over = loop_.Time() - began >= kInputTurn;
      }
      // Calls that wait for something else than their turn may need what comes.
      if (over || (unpacks_ && (TurnIsOver() || MayStartPending()))) {
        counters_.reads_delayed.Add();
        held_input_.assign(data.data(), data.size());
        transport_->PauseReading();
        if (!take_rest_.linked()) loop_.Schedule(take_rest_);
        break;
      }
      // What a piece unpacks to is known when it was unpacked: a thousand times as much.
      size_t piece = data.size();
      if (wire_ == Wire::kGrpc) piece = std::min(piece, unpacks_ ? kPackedPieceBytes : kPieceBytes);
      received = codec_->Receive(data.subspan(0, piece));
      data.remove_prefix(piece);
      const size_t unpacked = codec_->TakeUnpackedBytes();
      unpacks_ |= unpacked > 0;
      bytes_this_turn_ += unpacked;
    }
  } catch (...) {  // Fatal out of a handler or an actor: what came behind it will not be looked at
    taking_in_ = close_after_input_ = false;
    Abort(absl::InternalError("the connection failed"));
    throw;
  }
  taking_in_ = false;
  if (std::exchange(close_after_input_, false)) CloseTransport();
  if (!received.ok()) {
    counters_.format_errors.Add();
    CloseWith(received);
  } else if (draining_) {
    MaybeCloseIdle();  // credit may have let the last reply go
  }
  if (state_ == State::kOpen) WatchUnfinished();
  FlushSoon();
  Recharge();
}

void Session::TakeRest() {
  if (state_ != State::kOpen) return;
  BeginTurn();
  const std::string rest = std::exchange(held_input_, {});
  TakeIn(rest);
  if (held_input_.empty() && state_ == State::kOpen) transport_->ResumeReading();
}

void Session::WatchUnfinished() {
  const uint64_t unfinished = codec_->unfinished();
  if (unfinished == unfinished_) return;
  unfinished_ = unfinished;
  loop_.Cancel(unfinished_timer_);
  // A client has chosen its server, and its calls have deadlines.
  if (unfinished == 0 || (role_ == Role::kClient && unfinished != Codec::kPreface)) return;
  const ConnectionLimits& limits = options_.limits;
  const absl::Duration time = unfinished == Codec::kPreface ? limits.preface_timeout : limits.header_timeout;
  loop_.ScheduleAt(unfinished_timer_, last_received_ + time);
}

void Session::Detect(absl::Span<const char> data) {
  const absl::string_view first(data.data(), data.size());
  if (absl::StartsWith(first, kNativeMagic)) {
    wire_ = Wire::kNative;
  } else if (absl::StartsWith(first, kGrpcMagic)) {
    wire_ = Wire::kGrpc;
  } else if (absl::StartsWith(kNativeMagic, first) || absl::StartsWith(kGrpcMagic, first)) {
    held_input_.assign(data.data(), data.size());
    return;
  } else {
    counters_.wires_unknown.Add();
    return CloseWith(absl::InvalidArgumentError("the peer speaks none of our wires"));
  }
  state_ = State::kOpen;
  OpenCodec();
  active_at_ = last_received_;
  if (options_.limits.connection_age_max != absl::InfiniteDuration()) {
    // Connections that came together need not go together.
    uint32_t bits = 0;
    loop_.os().FillRandom(absl::MakeSpan(reinterpret_cast<char*>(&bits), sizeof(bits)));
    const double jitter = kAgeJitter * (bits / 2147483648.0 - 1);
    age_ends_at_ = last_received_ + options_.limits.connection_age_max * (1 + jitter);
  }
  WatchFrom(last_received_);
  for (uint32_t i = 0; table_ != nullptr && i < table_->actors().size(); ++i) {
    if (table_->actors()[i].at_connection && ActorAt(i) == nullptr) return;
  }
  if (draining_) codec_->SendGoAway(absl::OkStatus());
}

void Session::OpenCodec() {
  CodecOptions options = CodecOptionsOf(options_.limits);
  options.client = role_ == Role::kClient;
  options.counters = &counters_.wire;
  last_received_ = loop_.Time();
  if (wire_ == Wire::kGrpc) {
    codec_.reset(new GrpcCodec(options, {.authority = options_.authority, .tls = options_.tls}, *this));
  } else {
    codec_.reset(new NativeCodec(options, *this));
  }
  if (WithholdsCredit()) codec_->PauseCredit();
}

void Session::OnUnfinished() {
  if (unfinished_ == Codec::kPreface) {
    counters_.preface_timeouts.Add();
    return Abort(absl::DeadlineExceededError("the peer did not say what it speaks"));
  }
  counters_.header_timeouts.Add();
  CloseWith(absl::DeadlineExceededError("a block of headers was not ended in time"));
}

bool Session::EofReceived() {
  // Nothing answers a client's calls any more, or the peer has seen our end of file: nothing is left to wait for.
  if (role_ == Role::kClient || state_ != State::kOpen || std::exchange(eof_received_, true)) return false;
  if (!transport_->CanWriteEof()) return false;  // TLS has no half-open state: the connection ends
  for (const uint32_t index : actor_order_) {
    const bool called = CallActor("EofReceived", [&] { keep_open_ = actors_[index]->EofReceived() || keep_open_; });
    if (!called) return false;
  }
  if (state_ != State::kOpen) return false;  // closed or destroyed by one of them
  // What the peer did not say to its end cannot be answered, and it answers nothing itself.
  for (const auto& call : ServerCalls()) {
    if (call->requested() || call->over()) continue;
    counters_.calls_cancelled.Add();
    codec_->Reset(call->id(), absl::CancelledError("the connection ended inside the request"));
    call->Lost();
  }
  EndClientCalls(absl::UnavailableError("the peer sends no more"));
  if (MaybeCloseIdle()) return true;
  // It may have ended its direction, or be gone: a peer that is gone answers bytes with a reset, which the next bytes
  // find out.
  const MonotonicTime now = loop_.Time();
  codec_->SendPing(0);
  ping_outstanding_ = false;
  probe_at_ = now + kProbeAgain;
  WatchFrom(now);
  FlushSoon();
  return true;
}

void Session::PauseWriting() {
  write_paused_ = true;
  stalled_bytes_ = SIZE_MAX;
  TellActors();
}

void Session::ResumeWriting() {
  write_paused_ = false;
  room_wanted_ = true;
  FlushSoon();
  TellActors();
}

void Session::TellActors() {
  // Not what streams have queued: their callers may read it when they like, after something else was answered.
  const size_t waiting = codec_ == nullptr ? 0 : codec_->waiting_reply_bytes();
  const ConnectionLimits& limits = options_.limits;
  const bool pause = write_paused_ || waiting > (actors_paused_ ? limits.write_low_bytes : limits.write_high_bytes);
  if (pause == std::exchange(actors_paused_, pause)) return;
  for (const uint32_t index : actor_order_) {
    const bool told = pause ? CallActor("PauseWriting", [&] { actors_[index]->PauseWriting(); })
                            : CallActor("ResumeWriting", [&] { actors_[index]->ResumeWriting(); });
    if (!told) return;
  }
}

bool Session::IsStalled() {
  if (write_paused_) return true;
  const size_t unsent = codec_->output().size() + (transport_ == nullptr ? 0 : transport_->write_buffer_size());
  if (unsent <= options_.limits.write_high_bytes) return false;
  room_wanted_ = true;
  return true;
}

size_t Session::unsent_bytes() const {
  return codec_->output().size() + codec_->waiting_bytes() +
         (transport_ == nullptr ? 0 : transport_->write_buffer_size());
}

absl::Status Session::CheckRoomFor(const google::protobuf::MessageLite& message) {
  const size_t unsent = unsent_bytes();
  if (unsent <= options_.limits.write_high_bytes) return absl::OkStatus();
  const bool short_of_memory = memory_ != nullptr && memory_->full();
  if (unsent <= options_.limits.unsent_bytes_max && !short_of_memory) return absl::OkStatus();
  // That something was done is worth telling, and takes little.
  if (message.ByteSizeLong() <= kSmallReplyBytes) return absl::OkStatus();
  counters_.replies_dropped.Add();
  return absl::ResourceExhaustedError(
      absl::StrCat(unsent, " bytes of replies are not read", short_of_memory ? ", and memory is short" : ""));
}

void Session::OnRoom() {
  for (SessionServerCall& call : server_calls_) {
    if (call.HasRoom()) call.Wake();
  }
  for (SessionClientCall& call : client_calls_) {
    if (call.HasRoom()) call.Wake();
  }
}

void Session::ConnectionLost(const absl::Status& reason) {
  if (const TlsInfo* tls = Session::tls(); tls != nullptr) tls_ = std::make_unique<const TlsInfo>(*tls);
  transport_ = nullptr;
  lost_reason_ = close_reason_.ok() ? reason : close_reason_;
  state_ = State::kLost;
  loop_.Cancel(unfinished_timer_);
  loop_.Cancel(linger_timer_);
  loop_.Cancel(watch_timer_);
  loop_.Cancel(replies_timer_);
  loop_.Cancel(requests_timer_);
  flush_.Unlink();
  start_pending_.Unlink();
  take_rest_.Unlink();
  const absl::Status why = absl::UnavailableError(
      reason.ok() ? "the connection was closed" : absl::StrCat("the connection was lost: ", reason.message()));
  while (!waiting_.empty()) waiting_.front().MoveOrEnd(why);
  EndAllCalls(why);
  if (codec_ != nullptr) {
    // Replies that waited for credit, and what was not sent: handlers may run on, but nobody will read it.
    codec_->Abandon(lost_reason_);
    codec_->output().Clear();
  }
  Recharge();
  MaybeEnd();
}

void Session::Flush() {
  if (state_ != State::kOpen) return Recharge();  // CloseTransport has sent all
  if (!write_paused_) {
    FlushNow();
    if (!write_paused_ && std::exchange(room_wanted_, false)) OnRoom();
    if (MayStartPending()) SchedulePending();
  }
  if (state_ != State::kOpen) return Recharge();  // an actor that was told to pause has ended it
  if (!watching_stalls_ && (write_paused_ || codec_->waiting_bytes() > 0)) {
    watching_stalls_ = true;
    stalls_looked_at_ = loop_.Time();
    if (CheckStalls()) WatchFrom(stalls_looked_at_);
  }
  Recharge();
  TellActors();
}

void Session::FlushNow() {
  if (transport_ == nullptr || codec_ == nullptr) return;
  ByteQueue& output = codec_->output();
  if (output.empty()) return;
  transport_->Write(std::move(output));
}

// ---------------------------------------------------------------------------------------------------- the watch

bool Session::IsIdle() const {
  return in_flight_ == 0 && client_calls_.empty() && waiting_.empty() && codec_->open_calls() == 0;
}

void Session::WatchFrom(MonotonicTime now) {
  const ConnectionLimits& limits = options_.limits;
  MonotonicTime next = last_received_ + limits.keepalive_time;
  if (ping_outstanding_) next = ping_sent_at_ + limits.keepalive_timeout;
  if (eof_received_) next = probe_at_;  // nobody will answer
  next = std::min({next, now + limits.idle_timeout / 4, age_ends_at_});
  if (watching_stalls_) next = std::min(next, stalls_looked_at_ + limits.window_timeout / 2);
  if (watch_timer_.scheduled()) {
    if (watch_timer_.when() == next) return;
    loop_.Cancel(watch_timer_);
  }
  if (!next.is_infinite()) loop_.ScheduleAt(watch_timer_, next);
}

void Session::OnWatch() {
  if (state_ != State::kOpen) return;
  const ConnectionLimits& limits = options_.limits;
  const MonotonicTime now = loop_.Time();
  if (std::exchange(active_, false)) active_at_ = now;
  if (IsIdle() && now - active_at_ >= limits.idle_timeout) {
    counters_.idle_timeouts.Add();
    return CloseAs(absl::OkStatus(), absl::OkStatus());
  }
  if (now >= age_ends_at_ && !CheckAge(now)) return;
  if (ping_outstanding_) {
    if (now - ping_sent_at_ >= limits.keepalive_timeout) {
      counters_.keepalive_timeouts.Add();
      return Abort(absl::UnavailableError("the peer does not answer: keepalive timeout"));
    }
  } else if (eof_received_) {
    if (now >= probe_at_) {
      codec_->SendPing(0);
      probe_at_ = now + kProbeRarely;
      FlushSoon();
    }
  } else if (now - last_received_ >= limits.keepalive_time) {
    ping_outstanding_ = true;
    ping_sent_at_ = now;
    codec_->SendPing(0);
    FlushSoon();
  }
  if (watching_stalls_ && now - stalls_looked_at_ >= limits.window_timeout / 2) {
    stalls_looked_at_ = now;
    if (!CheckStalls()) return;
  }
  WatchFrom(now);
}

bool Session::CheckAge(MonotonicTime now) {
  if (draining_) {  // for its age, or with its server, which has a time of its own
    if (!aged_) {
      age_ends_at_ = MonotonicTime::InfiniteFuture();
      return true;
    }
    CloseAs(absl::OkStatus(), absl::UnavailableError("the connection has come to its age"));
    return false;
  }
  counters_.connections_aged.Add();
  aged_ = true;
  age_ends_at_ = now + options_.limits.connection_age_grace;
  Drain();
  return state_ == State::kOpen;
}

bool Session::CheckStalls() {
  if (!write_paused_ && codec_->waiting_bytes() == 0) {
    watching_stalls_ = false;
    return true;
  }
  if (write_paused_) {
    // While it is paused nothing is added, so that anything that goes makes it less.
    const size_t unsent = transport_->write_buffer_size();
    if (unsent < std::exchange(stalled_bytes_, unsent)) stalled_looks_ = 0;
    if (++stalled_looks_ > 2) {
      counters_.write_stalls.Add();
      Abort(absl::UnavailableError("the peer reads nothing"));
      return false;
    }
  }
  const absl::Status expired = codec_->ExpireStalled();
  FlushSoon();
  if (expired.ok()) return true;
  CloseWith(expired);
  return false;
}

// ---------------------------------------------------------------------------------------------------- memory

int64_t Session::held_bytes() const {
  size_t bytes = held_input_.size() + unread_bytes_ + request_bytes_ + kept_bytes_ + static_cast<size_t>(actor_bytes_);
  if (codec_ != nullptr) bytes += codec_->held_bytes() + codec_->output().size();
  if (transport_ != nullptr) bytes += transport_->write_buffer_size();
  return static_cast<int64_t>(bytes);
}

void Session::PauseCredit() {
  if (codec_ != nullptr) codec_->PauseCredit();
}

void Session::ResumeCredit() {
  if (codec_ == nullptr || WithholdsCredit()) return;
  codec_->ResumeCredit();
  FlushSoon();
}

void Session::Charge(int64_t bytes) {
  actor_bytes_ += bytes;
  const int64_t bytes_max = static_cast<int64_t>(options_.limits.actor_bytes_max);
  if (!actors_full_ && actor_bytes_ > bytes_max) {
    actors_full_ = true;
    counters_.credit_pauses.Add();
    PauseCredit();
  } else if (actors_full_ && actor_bytes_ <= bytes_max / 2) {
    actors_full_ = false;
    ResumeCredit();
  }
  Recharge();
}

// ---------------------------------------------------------------------------------------------------- the end

void Session::Fail(const absl::Status& why) {
  if (state_ == State::kLost) return;
  if (adapter_ != nullptr) std::exchange(adapter_, nullptr)->Detach();
  close_reason_ = why;
  EndAllCalls(why);  // before they hear that a connection was lost: there was none
  ConnectionLost(why);
}

void Session::Drain() {
  if (std::exchange(draining_, true) || state_ == State::kLost) return;
  GoAwayWhenOrdersAllow();
  while (!drain_watchers_.empty()) drain_watchers_.PopFront().OnDraining();
  MaybeCloseIdle();
}

bool Session::OrdersAllowAnEnd() const { return gates_ == nullptr || gates_->Unfinished() == nullptr; }

void Session::GoAwayWhenOrdersAllow() {
  if (state_ != State::kOpen || !OrdersAllowAnEnd() || std::exchange(goaway_sent_, true)) return;
  codec_->SendGoAway(absl::OkStatus());
  FlushSoon();
}

void Session::EndStreams(const absl::Status& why) {
  EndServerCalls(why, [](const SessionServerCall& call) { return call.method().kind != CallKind::kUnary; });
}

template <class Which>
void Session::EndServerCalls(const absl::Status& why, Which which) {
  for (const auto& call : ServerCalls()) {
    if (which(*call)) call->EndEarly(why);
  }
}

std::vector<internal::CoreRef<SessionServerCall>> Session::ServerCalls() {
  std::vector<internal::CoreRef<SessionServerCall>> calls;
  calls.reserve(in_flight_);
  for (SessionServerCall& call : server_calls_) calls.push_back(internal::CoreRef<SessionServerCall>::Share(call));
  return calls;
}

void Session::Close(const absl::Status& why) {
  if (state_ == State::kLost || state_ == State::kClosing) return;
  CloseWith(why);
}

void Session::CloseAs(const absl::Status& for_peer, const absl::Status& for_calls) {
  if (state_ == State::kLost || state_ == State::kClosing) return;
  close_reason_ = for_peer;
  draining_ = true;
  const bool open = state_ == State::kOpen;
  state_ = State::kClosing;
  EndAllCalls(for_calls.ok() ? absl::UnavailableError("the connection is closing") : for_calls);
  if (open) codec_->SendGoAway(for_peer);
  CloseTransport();
}

void Session::CloseTransport() {
  if (transport_ == nullptr) return;
  loop_.Cancel(unfinished_timer_);
  loop_.Cancel(watch_timer_);
  // A codec says its last words once it is through with what came.
  if (taking_in_) {
    close_after_input_ = true;
    return;
  }
  if (codec_ != nullptr) codec_->SendLastWords();
  FlushNow();
  lingering_bytes_ = transport_->write_buffer_size();
  loop_.ScheduleAt(linger_timer_, loop_.Time() + options_.limits.linger_timeout);
  if (eof_received_ || !transport_->CanWriteEof()) return transport_->Close();
  // Closing a socket with unread bytes resets the connection, and what we sent last may be lost with it. So the peer is
  // told that no more comes, and given a while to close its end.
  transport_->WriteEof();
}

void Session::OnLingerTimeout() {
  // A slow peer that still takes the last replies of a connection in good order is not cut off; a drain has an end of
  // its own.
  if (transport_ != nullptr && close_reason_.ok() && transport_->write_buffer_size() < lingering_bytes_) {
    lingering_bytes_ = transport_->write_buffer_size();
    return loop_.ScheduleAt(linger_timer_, loop_.Time() + options_.limits.linger_timeout);
  }
  counters_.linger_timeouts.Add();
  if (transport_ != nullptr) transport_->Abort();
}

void Session::Abort(const absl::Status& why) {
  if (state_ == State::kLost) return;
  if (close_reason_.ok()) close_reason_ = why;
  draining_ = true;
  if (state_ != State::kClosing) {
    state_ = State::kClosing;
    while (!waiting_.empty()) waiting_.front().MoveOrEnd(why);
    EndAllCalls(why.ok() ? absl::UnavailableError("the connection is closing") : why);
  }
  if (transport_ != nullptr) transport_->Abort();
}

void Session::EndAllCalls(const absl::Status& why) {
  // No user code runs here: handlers and waiting tasks are woken through the loop.
  for (const auto& call : ServerCalls()) {
    if (!call->over()) counters_.calls_cancelled.Add();
    call->Lost();
  }
  EndClientCalls(why);
}

void Session::EndClientCalls(const absl::Status& why) {
  while (!client_calls_.empty()) {
    SessionClientCall& call = client_calls_.front();
    // The peer need not go on with what nobody waits for.
    if (call.started()) {
      codec_->Reset(std::exchange(call.id_, 0), absl::CancelledError("the caller closed the connection"));
    }
    call.End(why);
  }
  while (!waiting_.empty()) waiting_.front().End(why);
}

void Session::DestroyHandlers() {
  for (const auto& call : ServerCalls()) call->DestroyHandler();
}

size_t Session::handlers_running() const {
  size_t count = 0;
  for (SessionServerCall& call : const_cast<Session*>(this)->server_calls_) count += call.handler_runs() ? 1 : 0;
  return count;
}

bool Session::MaybeCloseIdle() {
  if (!draining_ && (!eof_received_ || keep_open_)) return false;
  if (in_flight_ > 0 || state_ == State::kClosing || state_ == State::kLost) return false;
  if (!client_calls_.empty() || !waiting_.empty()) return false;
  // Replies that wait for credit, calls that would bring a session to its end: who sends no more gives neither.
  if (!eof_received_ && (!OrdersAllowAnEnd() || (codec_ != nullptr && codec_->open_calls() > 0))) return false;
  // A call whose headers have come in part: GOAWAY would name it as one that is dealt with.
  if (!eof_received_ && codec_ != nullptr && codec_->unfinished() > Codec::kPreface) return false;
  state_ = State::kClosing;
  CloseTransport();
  return true;
}

void Session::MaybeEnd() {
  if (state_ != State::kLost || in_flight_ > 0 || ended_ || end_.linked()) return;
  if (loop_.IsClosed()) return End();
  loop_.Schedule(end_);
}

void Session::End() {
  if (ended_) return;
  ended_ = true;
  if (const SessionOrder* order = gates_ == nullptr ? nullptr : gates_->Unfinished()) {
    lost_reason_ = absl::Status(lost_reason_.ok() ? absl::StatusCode::kAborted : lost_reason_.code(),
                                absl::StrCat(lost_reason_.message(), lost_reason_.ok() ? "" : "; ", "the session of ",
                                             order->service, " ended before its order did: ", order->text));
  }
  std::exception_ptr fatal;
  if (memory_ != nullptr) std::exchange(memory_, nullptr)->Leave(*this);
  for (const uint32_t index : actor_order_) {
    try {
      CallActor("ConnectionLost", [&] { actors_[index]->ConnectionLost(lost_reason_); });
    } catch (...) {  // Fatal: rethrown below
      fatal = std::current_exception();
    }
  }
  if (on_ended_) {
    for (auto& actor : actors_) loop_.DeleteLater(std::move(actor));
    std::exchange(on_ended_, nullptr)(*this);
  }
  if (fatal) std::rethrow_exception(fatal);
}

// ------------------------------------------------------------------------------------------------- calls of the peer

const void* Session::FindMethod(absl::string_view path) { return table_ == nullptr ? nullptr : table_->Find(path); }

CallEvents* Session::OnCall(IncomingCall& incoming) {
  if (memory_ != nullptr && memory_->full() && !IsHealth(incoming.path)) {
    memory_->CountRefusedCall();
    codec_->Reset(incoming.id, NotStarted(absl::ResourceExhaustedError("the server is short of memory")));
    return nullptr;
  }
  if (in_flight_ >= options_.limits.calls_max) {
    // The peer has reset calls whose handlers have not stopped yet.
    counters_.wire.calls_refused.Add();
    codec_->Reset(incoming.id, NotStarted(absl::UnavailableError(absl::StrCat(in_flight_, " handlers still run"))));
    return nullptr;
  }
  const auto* served = static_cast<const internal::ServedMethod*>(incoming.method);
  if (served == nullptr) {
    counters_.calls_unimplemented.Add();
    codec_->SendReply(
        incoming.id, nullptr,
        absl::UnimplementedError(absl::StrCat("this server has no method ", incoming.path.substr(0, 200))), nullptr);
    return nullptr;
  }
  // A session that has begun may go on to an end of its order, as long as the drain lasts. Over HTTP/2 what comes here has
  // crossed the first GOAWAY, and the second will name it: not every client sends a refused call again (gRPC C++ 1.51).
  if ((draining_ && wire_ == Wire::kNative && OrdersAllowAnEnd()) || state_ != State::kOpen) {
    counters_.calls_refused_draining.Add();
    codec_->Reset(incoming.id, NotStarted(absl::UnavailableError("the server is shutting down")));
    return nullptr;
  }
  counters_.calls_started.Add();
  SessionServerCall& call = SessionServerCall::Acquire(*served, *this, incoming.id);
  server_calls_.PushBack(call);
  ++in_flight_;
  // The record is kept while its events are dealt with: a handler that ends in place releases it.
  internal::CoreRef<SessionServerCall> keep = internal::CoreRef<SessionServerCall>::Share(call);
  call.TakeUp(incoming);
  if (call.over()) return nullptr;
  if (call.method().ordered() && single_client()) {
    call.EnterOrder(gates().Order(*call.method().order));
    // What it waits for may need credit.
    if (!call.admitted_ && !call.over() && RequestsAreOver()) call.EndEarly(RequestsRefused());
  } else if (call.method().ordered()) {
    call.EndEarly(absl::FailedPreconditionError(
        absl::StrCat(call.method().path, " has a place in the order of a session, and the calls of ", wire(),
                     " connections may come from many clients; call it on a connection of its own client: "
                     "troupe+dns:///host:port")));
  }
  if (call.ready() && !call.over()) Start(call);
  if (!call.over()) call.KeepRequest();
  // Forgotten: the handler has closed the connection, and may run on.
  const bool forgotten = call.id() == 0;
  return forgotten || (call.over() && !call.handler_runs()) ? nullptr : &call;
}

internal::CallGates& Session::gates() {
  if (gates_ == nullptr) gates_ = std::make_unique<internal::CallGates>(loop_.os());
  return *gates_;
}

void Session::StartLater(SessionServerCall& call) {
  if (state_ != State::kOpen) return;  // it ends with the others
  pending_.PushBack(call);
  if (MayStartPending()) SchedulePending();
}

bool Session::MustWait(const SessionServerCall& next, Counter** delayed) {
  const ConnectionLimits& limits = options_.limits;
  Counter* cause = nullptr;
  if (IsStalled() || codec_->waiting_reply_bytes() > limits.write_high_bytes) {
    cause = &counters_.starts_delayed_unsent;
  } else if (running_bytes_ > 0 && running_bytes_ + next.request_bytes_ > limits.request_bytes_max) {
    cause = &counters_.requests_delayed;
    if (!requests_timer_.scheduled()) loop_.ScheduleAt(requests_timer_, loop_.Time() + kRequestsOverdue);
  } else if (replies_to_come_ > 0 || all_replies_to_come_ > 0) {
    const RepliesExpected expected = Expect(next.served());
    if ((replies_to_come_ > 0 && replies_to_come_ + expected.soon > limits.unsent_bytes_max / kRepliesToComePart) ||
        (all_replies_to_come_ > 0 && all_replies_to_come_ + expected.ever > limits.unsent_bytes_max)) {
      cause = &counters_.starts_delayed_replies;
      if (!replies_timer_.scheduled()) loop_.ScheduleAt(replies_timer_, loop_.Time() + kReplyOverdue);
    }
  }
  if (delayed != nullptr) *delayed = cause;
  return cause != nullptr;
}

bool Session::MayStartPending() { return !pending_.empty() && !MustWait(pending_.front()); }

bool Session::WouldStart(const SessionServerCall& call) {
  return pending_.empty() && !TurnIsOver() && call.admitted_ && !MustWait(call);
}

Session::RepliesExpected Session::Expect(const internal::ServedMethod& method) const {
  const size_t known = reply_bytes_.empty() ? 0 : reply_bytes_[method.index];
  if (known > 0) return {std::max(known, kSmallReplyBytes), std::max(known, kSmallReplyBytes)};
  // Other connections may know better.
  const size_t unknown = options_.limits.unsent_bytes_max / kRepliesToComePart / kUnknownReplies;
  return {std::max<size_t>(unknown, method.pool->reply_bytes()), kSmallReplyBytes};
}

void Session::Learn(const internal::ServedMethod& method, const google::protobuf::MessageLite& message) {
  const auto bytes = static_cast<uint32_t>(message.GetCachedSize());
  if (reply_bytes_.empty()) reply_bytes_.resize(table_->methods());
  uint32_t& expected = reply_bytes_[method.index];
  expected = std::max({uint32_t{1}, bytes, expected - expected / kForgottenPart});
  method.pool->Learn(bytes);
  silent_reckonings_ = 0;
}

void Session::OnRepliesOverdue() {
  ++reckoning_;
  replies_to_come_ = 0;
  if (++silent_reckonings_ >= kRepliesLongOverdue) {
    silent_reckonings_ = 0;
    ++long_reckoning_;
    all_replies_to_come_ = 0;
  }
  if (MayStartPending()) SchedulePending();
}

absl::Status Session::RequestsRefused() {
  counters_.requests_refused.Add();
  return absl::ResourceExhaustedError(absl::StrCat("the requests of ", in_flight_, " calls of this connection occupy ",
                                                   request_bytes_, " bytes, at most ",
                                                   options_.limits.request_bytes_max));
}

void Session::OnRequestBytes() {
  const size_t most = options_.limits.request_bytes_max;
  const bool full = !requests_overdue_ && request_bytes_ > (requests_full_ ? most - most / 4 : most);
  if (full && !requests_timer_.scheduled() && state_ == State::kOpen) {
    loop_.ScheduleAt(requests_timer_, loop_.Time() + kRequestsOverdue);
  }
  if (full == std::exchange(requests_full_, full) || state_ != State::kOpen) return;
  full ? PauseCredit() : ResumeCredit();
}

void Session::OnRequestsOverdue() {
  if (state_ != State::kOpen || (!requests_full_ && pending_.empty())) return;
  // A peer that reads nothing is another matter.
  const bool unread = IsStalled() || codec_->waiting_reply_bytes() > options_.limits.write_high_bytes;
  if (std::exchange(request_ended_, false) || unread) {
    return loop_.ScheduleAt(requests_timer_, loop_.Time() + kRequestsOverdue);
  }
  requests_overdue_ = true;
  for (const auto& call : ServerCalls()) {
    if (call->request_bytes_ == 0 || call->handler_runs() || call->over()) continue;
    call->EndEarly(RequestsRefused());
  }
  OnRequestBytes();
}

void Session::SchedulePending() {
  if (!start_pending_.linked()) loop_.Schedule(start_pending_);
}

void Session::Start(SessionServerCall& call) {
  Counter* delayed = nullptr;
  const bool turn_is_over = call.unpacked() ? started_this_turn_ >= options_.limits.calls_per_turn_max : TurnIsOver();
  if (MustWait(call, &delayed) || !pending_.empty() || turn_is_over) {
    if (delayed == &counters_.requests_delayed && requests_overdue_) return call.EndEarly(RequestsRefused());
    (delayed != nullptr ? *delayed : counters_.turns_exhausted).Add();
    pending_.PushBack(call);
    if (delayed == nullptr) SchedulePending();
    return;
  }
  StartNow(call);
}

void Session::StartNow(SessionServerCall& call) {
  if (table_->actors()[call.served().actor].serial && !call.HasTurn(gates().Serial(call.served().actor))) {
    if (!call.over() && RequestsAreOver()) call.EndEarly(RequestsRefused());
    return;
  }
  ++started_this_turn_;
  if (!call.deadline().is_infinite() && call.deadline() <= loop_.Time()) {
    return call.EndEarly(absl::DeadlineExceededError("the deadline passed before the call was started"));
  }
  if (!call.unpacked()) {
    if (const absl::Status unpacked = call.UnpackRequest(); !unpacked.ok()) return call.EndEarly(unpacked);
    bytes_this_turn_ += call.request_bytes_;
  }
  Actor* const actor = ActorAt(call.served().actor);
  if (actor == nullptr) return;  // the connection is closing, and the call with it
  const InUserCode entered(*this);
  const auto keep = internal::CoreRef<SessionServerCall>::Share(call);
  call.running_bytes_ = call.request_bytes_;
  running_bytes_ += call.running_bytes_;
  call.RunHandlerNow(*actor);
  if (!call.handler_runs()) return;
  loop_.tasks().PushBack(call);
  const RepliesExpected expected = Expect(call.served());
  call.reckoning_ = reckoning_;
  call.long_reckoning_ = long_reckoning_;
  call.replies_expected_ = expected;
  replies_to_come_ += expected.soon;
  all_replies_to_come_ += expected.ever;
}

void Session::StartPending() {
  BeginTurn();
  const auto go_on_later = [this] {
    if (MayStartPending()) SchedulePending();
  };
  try {
    while (!TurnIsOver() && MayStartPending()) StartNow(pending_.PopFront());
  } catch (...) {  // Fatal
    go_on_later();
    throw;
  }
  go_on_later();
}

void Session::OnCallEnded(SessionServerCall& call) {
  static_cast<ListNode<InFlight>&>(call).Unlink();
  static_cast<ListNode<Pending>&>(call).Unlink();
  static_cast<internal::TaskNode&>(call).Unlink();
  active_ = true;
  if (const size_t bytes = std::exchange(call.request_bytes_, 0); bytes > 0) {
    request_bytes_ -= bytes;
    metadata_bytes_ -= std::exchange(call.metadata_bytes_, 0);
    if (const size_t ran = std::exchange(call.running_bytes_, 0); ran > 0) {
      running_bytes_ -= ran;
      request_ended_ = true;
      requests_overdue_ = false;
    }
    OnRequestBytes();
  }
  const RepliesExpected expected = std::exchange(call.replies_expected_, {});
  if (call.reckoning_ == reckoning_) replies_to_come_ -= expected.soon;
  if (call.long_reckoning_ == long_reckoning_) all_replies_to_come_ -= expected.ever;
  if (gates_ != nullptr) {
    // Either may let others in, which start later, or refuse them. Those end in here, and must not find the session idle.
    if (call.method().ordered()) gates_->Order(*call.method().order).End(call, call.ended_ok());
    if (table_->actors()[call.served().actor].serial) gates_->Serial(call.served().actor).End(call);
    if (draining_) GoAwayWhenOrdersAllow();
  }
  --in_flight_;
  call.Release();
  state_ == State::kLost ? Recharge() : FlushSoon();  // what it held is free
  if (in_flight_ > 0) return;
  MaybeCloseIdle();
  MaybeEnd();
}

Actor* Session::ActorAt(uint32_t index) {
  if (actors_.empty()) actors_.resize(table_->actors().size());
  if (actors_[index] == nullptr) {
    std::unique_ptr<Actor> made;
    const bool done = CallActor("constructor", [&] {
      made = table_->actors()[index].make(*this);
      if (made == nullptr) throw InvalidState("the factory of an actor returned null");
    });
    if (!done) return nullptr;
    if (state_ != State::kOpen) {  // closed or destroyed by its own actor's constructor
      loop_.DeleteLater(std::move(made));
      return nullptr;
    }
    actors_[index] = std::move(made);
    actor_order_.push_back(index);
    if (!CallActor("ConnectionMade", [&] { actors_[index]->ConnectionMade(*this); })) return nullptr;
  }
  return state_ == State::kOpen ? actors_[index].get() : nullptr;
}

template <class F>
bool Session::CallActor(const char* callback, F&& f) {
  const InUserCode entered(*this);
  try {
    std::forward<F>(f)();
    return true;
  } catch (...) {  // reports to the exception handler, which passes Fatal on
    ExceptionContext context;
    context.message = absl::StrCat("Fatal error: actor.", callback, "() call failed.");
    context.Add("peer", DebugString(), this);
    // The calls are answered before the connection closes: UNAVAILABLE would invite their callers to try again.
    const absl::Status why = absl::InternalError("the actor of this connection failed");
    if (state_ == State::kOpen) EndServerCalls(why, [](const SessionServerCall&) { return true; });
    CloseWith(why);
    loop_.ReportCurrentException(std::move(context));
  }
  return false;
}

// ---------------------------------------------------------------------------------------------------- calls of ours

internal::ClientCallRef Session::StartCall(const MethodInfo& method, const CallOptions& options,
                                           const google::protobuf::MessageLite* message) {
  return StartMovableCall(method, options, message, nullptr);
}

internal::ClientCallRef Session::StartMovableCall(const MethodInfo& method, const CallOptions& options,
                                                  const google::protobuf::MessageLite* message,
                                                  internal::CallMover* mover) {
  SessionClientCall* call = nullptr;
  internal::ClientCallRef handle = MakeCall(method, options, message, mover, call);
  if (call == nullptr) return handle;
  const bool keep = mover != nullptr && message != nullptr && message->ByteSizeLong() <= internal::kKeptRequestBytes;
  if (keep && !KeepRequest(*call, *message)) return handle;
  Launch(*call, message);
  return handle;
}

internal::ClientCallRef Session::MakeCall(const MethodInfo& method, const CallOptions& options,
                                          const google::protobuf::MessageLite* message, internal::CallMover* mover,
                                          SessionClientCall*& made) {
  internal::CheckThread(*this, method);
  internal::SessionOrderMemory* memory = nullptr;
  if (method.ordered() && state_ != State::kLost && state_ != State::kClosing) {
    memory = &gates().Memory(*method.order);
    const absl::Status in_order = memory->Check(method.step);
    if (!in_order.ok()) return internal::FailedCall(loop_, method, in_order);
  }
  MonotonicTime deadline = Context::Current().deadline();
  if (options.timeout != absl::InfiniteDuration()) deadline = std::min(deadline, loop_.Time() + options.timeout);
  auto* call = new SessionClientCall(*this, method, deadline);
  internal::ClientCallRef handle(call);
  client_calls_.PushBack(*call);
  call->Retain();  // the session's
  if (state_ == State::kLost || state_ == State::kClosing) {
    call->End(absl::UnavailableError(close_reason_.ok() ? "the connection is closed" : close_reason_.message()));
    return handle;
  }
  if (memory != nullptr) call->RememberIn(*memory);
  if (options.metadata != nullptr) call->metadata_ = *options.metadata;
  call->wait_for_ready_ = options.wait_for_ready;
  call->compression_ = options.compression.value_or(options_.compression);
  if (const internal::SerialTurns& turns = internal::current_serial_turns.Get(); !turns.empty()) {
    call->metadata_.Add(internal::kSerialTurnsKey, internal::EncodeSerialTurns(turns));
  }
  call->half_closed_ = message != nullptr;
  call->mover_ = mover;
  made = call;
  return handle;
}

bool Session::KeepRequest(SessionClientCall& call, const google::protobuf::MessageLite& message) {
  absl::StatusOr<Bytes> encoded = codec_ != nullptr ? codec_->Encode(message) : EncodeForLater(message);
  if (!encoded.ok()) {
    call.End(StatusOfRefusal(encoded.status()));
    return false;
  }
  call.has_request_ = true;
  call.request_ = *std::move(encoded);
  kept_bytes_ += call.request_.size();
  return true;
}

void Session::Launch(SessionClientCall& call, const google::protobuf::MessageLite* message) {
  if (!call.deadline_.is_infinite() && call.deadline_ <= loop_.Time()) {
    return call.End(absl::DeadlineExceededError(absl::StrCat(call.method().path, ": the deadline has passed")));
  }
  const absl::Status sent = waiting_.empty() ? TrySend(call, message) : absl::ResourceExhaustedError("others wait");
  if (sent.ok()) return SendUnsent(call);
  if (!absl::IsResourceExhausted(sent)) return call.End(StatusOfRefusal(sent));
  if (waiting_count_ >= options_.limits.calls_waiting_max) {
    counters_.calls_waiting_refused.Add();
    return call.End(
        absl::ResourceExhaustedError(absl::StrCat(waiting_count_, " calls wait for the peer to grant room")));
  }
  if (message != nullptr && !call.has_request_ && !KeepRequest(call, *message)) return;
  static_cast<ListNode<InFlight>&>(call).Unlink();
  waiting_.PushBack(call);
  ++waiting_count_;
  FlushSoon();  // what is kept of it is charged
}

absl::Status Session::TrySend(SessionClientCall& call, const google::protobuf::MessageLite* message) {
  if (codec_ == nullptr) return absl::ResourceExhaustedError("what to speak is not known yet");
  OutgoingCall outgoing;
  outgoing.path = call.method().path;
  outgoing.metadata = call.metadata_.empty() ? nullptr : &call.metadata_;
  outgoing.pack = call.compression_ == Compression::kGzip;
  outgoing.message = message;
  if (call.has_request_) outgoing.encoded = &call.request_;
  if (!call.deadline_.is_infinite()) {
    outgoing.timeout = std::max(call.deadline_ - loop_.Time(), absl::Nanoseconds(1));
  }
  const absl::StatusOr<CallId> id = codec_->StartCall(outgoing, call);
  if (!id.ok()) return id.status();
  call.id_ = *id;
  call.Sent();
  FlushSoon();
  return absl::OkStatus();
}

void Session::OnCallRoom() {
  while (!waiting_.empty()) {
    SessionClientCall& call = waiting_.front();
    const absl::Status sent = TrySend(call, nullptr);
    if (!sent.ok()) {
      if (absl::IsResourceExhausted(sent)) return;
      call.End(StatusOfRefusal(sent));
      continue;
    }
    static_cast<ListNode<Pending>&>(call).Unlink();
    --waiting_count_;
    client_calls_.PushBack(call);
    SendUnsent(call);
  }
}

void Session::SendUnsent(SessionClientCall& call) {
  if (!call.method().client_streams()) return;
  for (const auto& [message, options] : std::exchange(call.unsent_, {})) {
    if (!call.Encode(*message, options)) return;
  }
  if (call.half_closed_) codec_->SendHalfClose(call.id_);
  if (call.HasRoom()) call.Wake();
}

void Session::HandOver(absl::FunctionRef<Session*()> destination) {
  if (waiting_.empty()) return;
  // No more than there are: none comes back to be given away again.
  for (size_t left = waiting_count_; left > 0 && !waiting_.empty(); --left) {
    Session* const to = destination();
    if (to == nullptr || to == this) break;
    SessionClientCall& call = waiting_.front();
    Leave(call);
    to->Adopt(call);
  }
  FlushSoon();
}

void Session::EndWaitingForConnection(const absl::Status& why) {
  std::vector<internal::CoreRef<SessionClientCall>> ending;
  for (SessionClientCall& call : waiting_) {
    if (!call.waits_for_ready()) ending.push_back(internal::CoreRef<SessionClientCall>::Share(call));
  }
  for (const auto& call : ending) call->End(why);
}

void Session::Leave(SessionClientCall& call) {
  static_cast<ListNode<InFlight>&>(call).Unlink();
  if (static_cast<ListNode<Pending>&>(call).linked()) {
    static_cast<ListNode<Pending>&>(call).Unlink();
    --waiting_count_;
  }
  kept_bytes_ -= call.request_.size();
  call.session_ = nullptr;
  active_ = true;
}

void Session::Adopt(SessionClientCall& call) {
  call.session_ = this;
  kept_bytes_ += call.request_.size();
  client_calls_.PushBack(call);
  Launch(call, nullptr);
}

void Session::OnClientCallEnded(SessionClientCall& call) {
  Leave(call);
  call.Release();
  if (draining_) MaybeCloseIdle();
}

void Session::OnGoAway(CallId, absl::Status why) {
  // Calls that were accepted go on; those above get OnReset. A new one needs another connection.
  if (role_ == Role::kClient) {
    if (close_reason_.ok() && !why.ok()) close_reason_ = why;
    draining_ = true;
    // As the codec does with calls that were sent and not started.
    const bool failing = !why.ok() && !absl::IsUnavailable(why);
    if (!failing) why = absl::UnavailableError("the server is going away");
    while (!waiting_.empty()) failing ? waiting_.front().End(why) : waiting_.front().MoveOrEnd(why);
    MaybeCloseIdle();
  }
}

void Session::OnPong(uint64_t) {}

}  // namespace troupe
