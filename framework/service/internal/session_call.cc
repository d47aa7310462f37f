#include "troupe/service/internal/session_call.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "glog/logging.h"
#include "troupe/base/errors.h"

namespace troupe::internal {

ServerCallPool::~ServerCallPool() {
  for (SessionServerCall* record : records_) delete record;
}

// ---------------------------------------------------------------------------------------------------- server side

SessionServerCall& SessionServerCall::Acquire(const ServedMethod& method, Session& session, CallId id) {
  SessionServerCall* record = method.pool->Take();
  if (record == nullptr) {
    record = new SessionServerCall(session.loop());
    record->served_ = &method;
  } else {
    record->Retain();
  }
  record->pool_ = method.pool;
  record->session_ = &session;
  record->id_ = id;
  record->ready_ = false;
  record->admitted_ = true;
  record->has_turn_ = false;
  record->ended_ok_ = false;
  record->replies_expected_ = {};
  record->request_state_ = Request::kNone;
  record->set_weight_max(session.options_.limits.message_fields_max);
  record->serial_turns_.clear();
  record->has_request_ = false;
  record->initial_metadata_sent_ = false;
  record->initial_metadata_.Clear();
  return *record;
}

void SessionServerCall::TakeUp(IncomingCall& incoming) {
  MonotonicTime deadline = MonotonicTime::InfiniteFuture();
  if (incoming.timeout != absl::InfiniteDuration()) deadline = core_loop().Time() + incoming.timeout;
  if (!incoming.metadata.empty()) {
    if (const auto turns = incoming.metadata.Get(kSerialTurnsKey)) {
      serial_turns_ = DecodeSerialTurns(*turns);
      incoming.metadata.Remove(kSerialTurnsKey);
    }
  }
  if (!incoming.metadata.empty()) {
    metadata_bytes_ = incoming.metadata.bytes();
    session_->metadata_bytes_ += metadata_bytes_;
    Charge(metadata_bytes_);
  }
  Begin(*served_->info, deadline, std::move(incoming.metadata));
  const size_t others = session_->metadata_bytes_ - metadata_bytes_;
  if (others > 0 && metadata_bytes_ > 0 && session_->metadata_bytes_ > session_->options_.limits.request_bytes_max) {
    return EndEarly(session_->RequestsRefused());
  }
  if (served_->info->client_streams()) {
    ready_ = true;
    if (incoming.complete) {
      Keep(incoming.message, incoming.charged, Packed::kNo);
      CloseReading();
    }
    return;
  }
  if (!incoming.complete) return;  // OnMessage and OnHalfClose follow
  const absl::Status taken = TakeRequest(incoming.message);
  if (incoming.charged != 0) session_->codec_->Consumed(id_, incoming.charged);
  if (!taken.ok()) return EndEarly(taken);
  has_request_ = true;
  ready_ = true;
}

absl::Status SessionServerCall::TakeRequest(absl::Span<const char> request) {
  const ConnectionLimits& limits = session_->options_.limits;
  // Of others: one is taken in any case, as large as a message may be.
  const size_t others = session_->request_bytes_ - request_bytes_;
  Charge(request.size());
  request_state_ = Request::kArriving;
  arriving_request_ = request;
  // What is on its way when credit ends is taken; packed messages become more than their credit.
  const size_t most = limits.request_bytes_max + limits.message_bytes_max + limits.connection_credit_bytes;
  if (others > 0 && session_->request_bytes_ > most) return session_->RequestsRefused();
  session_->OnRequestBytes();
  return absl::OkStatus();
}

absl::Status SessionServerCall::Unpack(absl::Span<const char> request) {
  request_state_ = Request::kParsed;
  const bool parsed = ParseRequest(request);
  if (!parsed) {
    CountBadMessage();
    return MalformedRequest();
  }
  Charge(request_space() - request.size());
  session_->OnRequestBytes();
  return absl::OkStatus();
}

void SessionServerCall::KeepRequest() {
  if (request_state_ != Request::kArriving) return;
  request_state_ = Request::kKept;
  kept_request_ = Bytes::Copy(arriving_request_);
}

absl::Status SessionServerCall::UnpackRequest() {
  if (request_state_ == Request::kArriving) return Unpack(arriving_request_);
  if (request_state_ != Request::kKept) return absl::OkStatus();
  const Bytes kept = std::move(kept_request_);
  return Unpack(kept.span());
}

void SessionServerCall::Keep(absl::Span<const char> message, size_t charged, Packed packed) {
  unread_bytes_ += charged;
  session_->unread_bytes_ += charged;
  Deliver(message, charged, packed);
}

SessionServerCall::Packed SessionServerCall::ArrivedPacked() const {
  return session_->codec_->message_was_packed() ? Packed::kYes : Packed::kNo;
}

void SessionServerCall::OnMessage(absl::Span<const char> message, size_t charged) {
  if (over()) return Consumed(charged);
  if (served_->info->client_streams()) return Keep(message, charged, ArrivedPacked());
  set_last_compressed(ArrivedPacked());
  const bool second = std::exchange(has_request_, true);
  absl::Status taken = second ? absl::UnimplementedError(absl::StrCat(method().path, ": more than one request came"))
                              : TakeRequest(message);
  if (taken.ok() && session_->WouldStart(*this)) {
    taken = UnpackRequest();
    session_->bytes_this_turn_ += request_bytes_;
  }
  if (taken.ok()) KeepRequest();
  Consumed(charged);
  if (!taken.ok()) EndEarly(taken);
}

void SessionServerCall::OnHalfClose() {
  if (over()) return;
  if (served_->info->client_streams()) return CloseReading();
  if (has_request_) {
    ready_ = true;
    if (ready()) session_->Start(*this);
    return;
  }
  EndEarly(absl::UnimplementedError(absl::StrCat(method().path, ": no request came")));
}

void SessionServerCall::EnterOrder(SessionOrderGate& gate) {
  admitted_ = false;
  arriving_ = true;
  gate.Arrive(*this, served_->info->step, served_->info->server_streams());
  arriving_ = false;
  if (!admitted_ && !over()) WatchDeadline();
}

void SessionServerCall::OnOrderAdmitted() {
  admitted_ = true;
  if (!arriving_ && ready()) session_->StartLater(*this);
}

bool SessionServerCall::HasTurn(SerialGate& gate) {
  if (!has_turn_) LineUp(gate);
  if (!has_turn_) return false;
  serial_turns_.push_back(gate.turn());
  return true;
}

void SessionServerCall::LineUp(SerialGate& gate) {
  if (gate.IsCircle(serial_turns_)) {
    EndEarly(absl::AbortedError(absl::StrCat(method().path, " is called by what its serial actor waits for")));
  } else if (serial_turns_.size() >= kSerialTurnsMax) {
    EndEarly(absl::AbortedError(absl::StrCat(serial_turns_.size(), " serial actors wait for each other")));
  } else {
    arriving_ = true;
    gate.Arrive(*this);
    arriving_ = false;
    if (!has_turn_) WatchDeadline();
  }
}

void SessionServerCall::OnTurn() {
  has_turn_ = true;
  if (!arriving_) session_->StartLater(*this);
}

void SessionServerCall::OnReset(absl::Status) {
  session_->counters_.calls_cancelled.Add();
  Lost();
}

void SessionServerCall::Lost() {
  session_->codec_->Forget(std::exchange(id_, 0));
  PeerGone();
}

void SessionServerCall::OnSendRoom() {
  if (HasRoom()) WakeWriters();
}

Metadata& SessionServerCall::initial_metadata() {
  if (initial_metadata_sent_) throw InvalidState("the initial metadata has been sent");
  return initial_metadata_;
}

void SessionServerCall::SendInitialMetadataOnce() {
  if (std::exchange(initial_metadata_sent_, true)) return;
  if (compression_.value_or(session_->options_.compression) == Compression::kGzip) session_->codec_->PackReplies(id_);
  if (!initial_metadata_.empty()) session_->codec_->SendInitialMetadata(id_, initial_metadata_);
}

void SessionServerCall::RunHandlerNow(Actor& actor) {
  if (!serial_turns_.empty()) SetSerialTurns(serial_turns_);
  EventLoop& loop = core_loop();
  StartHandler start_handler = served_->start;
  void* target = served_->generated(actor);
  if (const auto& interceptors = session_->table_->interceptors(); !interceptors.empty()) {
    chain_ = std::make_unique<ServerChain>(*this, interceptors, start_handler, target);
    start_handler = &ServerChain::Start;
    target = chain_.get();
  }
  if (!loop.debug()) return RunHandler(start_handler, target);
  const std::string what = Describe();
  const MonotonicTime start = loop.Time();
  RunHandler(start_handler, target);
  const absl::Duration took = loop.Time() - start;
  if (took < loop.slow_callback_duration()) return;
  LOG(WARNING) << absl::StrFormat("Executing %s took %.3f seconds", what, absl::ToDoubleSeconds(took));
}

std::string SessionServerCall::Describe() const {
  return absl::StrCat("<Handler of ", served_->info->path, " for ", session_->DebugString(), ">");
}

std::string SessionServerCall::DescribeTask() const { return absl::StrCat(Describe(), "\n", DescribeChain()); }

namespace {

Packing PackingOf(WriteOptions options) { return options.compress ? Packing::kAsCall : Packing::kNone; }

}  // namespace

bool SessionServerCall::Send(const google::protobuf::MessageLite& message, WriteOptions options) {
  CheckThread(*session_, method());
  if (over()) return false;
  if (chain_ != nullptr && !chain_->writes().empty()) return SendAsItIs(*chain_->writes().Changed(message), options);
  return SendAsItIs(message, options);
}

bool SessionServerCall::SendAsItIs(const google::protobuf::MessageLite& message, WriteOptions options) {
  SendInitialMetadataOnce();
  absl::Status sent = session_->CheckRoomFor(message);
  if (sent.ok()) {
    sent = session_->codec_->SendMessage(id_, message, PackingOf(options));
    session_->Learn(*served_, message);
  }
  session_->FlushSoon();
  if (sent.ok()) return true;
  EndEarly(sent);
  return false;
}

void SessionServerCall::Consumed(size_t charged) {
  const size_t kept = std::min(charged, unread_bytes_);
  unread_bytes_ -= kept;
  session_->unread_bytes_ -= kept;
  if (id_ == 0 || charged == 0) return;
  session_->codec_->Consumed(id_, charged);
  session_->FlushSoon();
}

bool SessionServerCall::IsBlocked() const { return session_->codec_->WaitingBytes(id_) > 0 || session_->IsStalled(); }

void SessionServerCall::SendOutcome(const absl::Status& outcome, const google::protobuf::MessageLite* response) {
  SendInitialMetadataOnce();
  absl::Status status = outcome;
  if (response != nullptr) {
    status = session_->CheckRoomFor(*response);
    if (!status.ok()) response = nullptr;
  }
  session_->codec_->SendReply(id_, response, status, trailers().empty() ? nullptr : &trailers());
  if (response != nullptr) session_->Learn(*served_, *response);
  session_->FlushSoon();
  ended_ok_ = status.ok();
  (status.ok() ? session_->counters_.calls_ended_ok : session_->counters_.calls_failed).Add();
}

void SessionServerCall::CountBadMessage() {
  (too_heavy() ? session_->counters_.messages_heavy : session_->counters_.messages_malformed).Add();
}

void SessionServerCall::OnBadMessage() {
  CountBadMessage();
  ServerCall::OnBadMessage();
}

void SessionServerCall::OnEnded() {
  kept_request_ = Bytes();
  chain_.reset();
  // What was sent still goes; what still comes of this call is of no interest.
  if (id_ != 0) session_->codec_->Forget(id_);
  session_->OnCallEnded(*this);
}

void SessionServerCall::OnUnreferenced() {
  const CoreRef<ServerCallPool> pool = std::move(pool_);
  if (!pool->Keep(*this)) delete this;
}

// ---------------------------------------------------------------------------------------------------- client side

SessionClientCall::SessionClientCall(Session& session, const MethodInfo& method, MonotonicTime deadline)
    : ClientCall(session.loop(), method), session_(&session), deadline_(deadline) {
  if (!deadline.is_infinite()) core_loop().ScheduleAt(deadline_timer_, deadline);
}

void SessionClientCall::OnEnd(absl::Status status, Metadata trailers) {
  id_ = 0;
  AnsweredByPeer();
  TellOrder(status.ok() ? SessionOrderMemory::Outcome::kOk : SessionOrderMemory::Outcome::kFailed);
  Conclude(std::move(status), std::move(trailers));
  Ended();
}

void SessionClientCall::OnReset(absl::Status why) {
  id_ = 0;
  const bool not_started = why.GetPayload(kNotStartedPayload).has_value();
  why.ErasePayload(kNotStartedPayload);  // a log shows it to no one's use
  // Once, as gRPC does; and not what will be refused again for what it is.
  if (not_started && absl::IsUnavailable(why) && has_request_ && !std::exchange(was_refused_, true) && TryMove())
    return;
  End(why);
}

bool SessionClientCall::TryMove() {
  if (mover_ == nullptr || session_ == nullptr) return false;
  Session* const destination = mover_->Destination(*this);
  if (destination == nullptr) return false;
  session_->counters_.calls_moved.Add();
  session_->Leave(*this);
  destination->Adopt(*this);
  return true;
}

void SessionClientCall::AnsweredByPeer() {
  session_->answered_ = true;
  Answered();
}

void SessionClientCall::Answered() {
  mover_ = nullptr;
  metadata_.Clear();
  if (session_ != nullptr) session_->kept_bytes_ -= request_.size();
  request_ = Bytes();
}

void SessionClientCall::OnSendRoom() {
  if (HasRoom()) WakeWriters();
}

void SessionClientCall::OnMessage(absl::Span<const char> message, size_t charged) {
  AnsweredByPeer();
  const Packed packed = session_->codec_->message_was_packed() ? Packed::kYes : Packed::kNo;
  unread_bytes_ += charged;
  session_->unread_bytes_ += charged;
  bool parsed = true;
  if (chain_ == nullptr || method().server_streams() || !chain_->TakesReply(message, parsed)) {
    return DeliverMessage(message, charged, packed);
  }
  set_last_compressed(packed);
  Consumed(charged);
  if (parsed) return;
  const absl::Status why = absl::InternalError(absl::StrCat(method().path, ": a message from the server does not parse"));
  const CoreRef<SessionClientCall> keep = CoreRef<SessionClientCall>::Share(*this);
  Conclude(why, {});
  CancelBeneath(why);
}

bool SessionClientCall::Send(const google::protobuf::MessageLite& message, WriteOptions options) {
  if (session_ == nullptr || half_closed_) return false;
  CheckThread(*session_, method());
  if (!started()) {
    unsent_.emplace_back(message.New(), options);
    unsent_.back().first->CheckTypeAndMergeFrom(message);
    return true;
  }
  return Encode(message, options);
}

bool SessionClientCall::Encode(const google::protobuf::MessageLite& message, WriteOptions options) {
  const bool changes = chain_ != nullptr && !chain_->writes().empty();
  const absl::Status sent =
      changes ? session_->codec_->SendMessage(id_, *chain_->writes().Changed(message), PackingOf(options))
              : session_->codec_->SendMessage(id_, message, PackingOf(options));
  session_->FlushSoon();
  if (sent.ok()) return true;
  const CoreRef<SessionClientCall> keep = CoreRef<SessionClientCall>::Share(*this);
  CancelBeneath(sent);
  Conclude(sent, {});
  return false;
}

void SessionClientCall::HalfClose() {
  if (session_ == nullptr || std::exchange(half_closed_, true) || !started()) return;
  session_->codec_->SendHalfClose(id_);
  session_->FlushSoon();
}

void SessionClientCall::Consumed(size_t charged) {
  if (session_ == nullptr || charged == 0) return;
  const size_t kept = std::min(charged, unread_bytes_);
  unread_bytes_ -= kept;
  session_->unread_bytes_ -= kept;
  if (id_ == 0) return;
  session_->codec_->Consumed(id_, charged);
  session_->FlushSoon();
}

bool SessionClientCall::IsBlocked() const {
  if (session_ == nullptr) return false;
  return !started() || session_->codec_->WaitingBytes(id_) > 0 || session_->IsStalled();
}

void SessionClientCall::CancelBeneath(const absl::Status& why) {
  if (session_ == nullptr) return;
  if (started()) {
    session_->codec_->Reset(std::exchange(id_, 0), why);
    session_->FlushSoon();
  }
  Ended();
}

void SessionClientCall::OnDeadline() {
  if (session_ == nullptr) return;
  const absl::Status why = absl::DeadlineExceededError(absl::StrCat(method().path, ": the deadline has passed"));
  Retain();
  CancelBeneath(absl::CancelledError("the deadline has passed"));
  Conclude(why, {});
  Release();
}

void SessionClientCall::Ended() {
  if (session_ == nullptr) return;
  core_loop().Cancel(deadline_timer_);
  Answered();
  session_->unread_bytes_ -= std::exchange(unread_bytes_, 0);
  TellOrder(was_sent_ ? SessionOrderMemory::Outcome::kUnknown : SessionOrderMemory::Outcome::kFailed);
  session_->OnClientCallEnded(*this);
}

ClientCallRef SessionClientCall::StartIntercepted(Session& session, const MethodInfo& method,
                                                  const CallOptions& options,
                                                  const google::protobuf::MessageLite* message, CallMover* mover,
                                                  const ClientInterceptors& interceptors) {
  SessionClientCall* call = nullptr;
  ClientCallRef handle = session.MakeCall(method, options, message, mover, call);
  if (call == nullptr) return handle;
  call->chain_ = std::make_unique<ClientChain>(*call, interceptors, message);
  call->chain_->Begin();
  return handle;
}

void SessionClientCall::SendBeneath() {
  if (session_ == nullptr) return;  // it has ended meanwhile
  const CoreRef<SessionClientCall> keep = CoreRef<SessionClientCall>::Share(*this);
  if (chain_->request() != nullptr && !session_->KeepRequest(*this, *chain_->request())) return;
  Session* destination = session_;
  if (mover_ != nullptr) destination = mover_->Destination(*this);
  if (destination == nullptr) return End(mover_->WhyNone());
  session_->Leave(*this);
  destination->Adopt(*this);
}

void SessionClientCall::EndIntercepted(absl::Status status, Metadata trailers, const std::string* reply) {
  if (reply != nullptr) DeliverMessage(absl::MakeConstSpan(*reply), 0, last_compressed() ? Packed::kYes : Packed::kNo);
  DeliverEnd(std::move(status), std::move(trailers));
}

}  // namespace troupe::internal
