// SessionServerCall, SessionClientCall: calls that travel by a session's codec.
#ifndef TROUPE_SERVICE_INTERNAL_SESSION_CALL_H_
#define TROUPE_SERVICE_INTERNAL_SESSION_CALL_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/message_lite.h"
#include "troupe/base/byte_queue.h"
#include "troupe/base/intrusive_list.h"
#include "troupe/base/pool.h"
#include "troupe/loop/internal/task_node.h"
#include "troupe/loop/timer_heap.h"
#include "troupe/rpc/compression.h"
#include "troupe/rpc/internal/client_call.h"
#include "troupe/rpc/internal/serial_gate.h"
#include "troupe/rpc/internal/server_call.h"
#include "troupe/rpc/internal/session_order_gate.h"
#include "troupe/rpc/internal/session_order_memory.h"
#include "troupe/service/internal/call_mover.h"
#include "troupe/service/internal/interception.h"
#include "troupe/service/internal/server_call_pool.h"
#include "troupe/service/service_table.h"
#include "troupe/service/session.h"
#include "troupe/wire/codec.h"

namespace troupe::internal {

// In debug mode: throws InvalidState, with the method and the peer, when this is not the loop's thread.
inline void CheckThread(Session& session, const MethodInfo& method) {
  if (!session.loop().debug()) return;
  session.loop().CheckUsable(absl::StrCat(method.path, ", ", session.DebugString()).c_str());
}

// A call that the peer opened. The session holds one reference until the handler has ended.
class SessionServerCall final : public ServerCall,
                                public TaskNode,
                                public CallEvents,
                                public ListNode<Session::InFlight>,
                                public ListNode<Session::Pending>,
                                public OrderedCall,
                                public SerialCall,
                                public Pooled {
 public:
  // A record for a call of `method` on `session`, new or used before.
  static SessionServerCall& Acquire(const ServedMethod& method, Session& session, CallId id);
  ~SessionServerCall() override = default;

  // Takes up what came with the call; a request that does not parse ends it.
  void TakeUp(IncomingCall& incoming);
  // The session's order has let it in, if there is one, and the request is there, or comes as a stream: it may start.
  bool ready() const { return ready_ && admitted_; }
  // Judges it by the order of the session: ready() follows at once or later, or it is refused.
  void EnterOrder(SessionOrderGate& gate);
  // Its actor does one call at a time: has it its turn? If not it takes its place in the line, or is refused because it
  // would wait for itself, and the session hears of it when its turn comes.
  bool HasTurn(SerialGate& gate);
  // It ended OK for the peer, too.
  bool ended_ok() const { return ended_ok_; }
  // What came with the call and is not parsed yet is kept as it came: the event that brought it is over.
  void KeepRequest();
  // Before the handler starts. Not OK: how the call ends.
  absl::Status UnpackRequest();
  bool unpacked() const { return request_state_ == Request::kParsed; }
  // In debug mode complains when the first step of the handler was slow.
  void RunHandlerNow(Actor& actor);
  // The session has lost its connection, or its peer the call.
  void Lost();
  void Wake() { WakeWriters(); }
  // All that the caller sends has come.
  bool requested() const { return served_->info->client_streams() ? reading_closed() : ready_; }

  // ---- TaskNode, Runnable: what a dump, or a complaint about a slow step, says of its handler
  std::string DescribeTask() const override;
  void DestroyPending() override { static_cast<TaskNode*>(this)->Unlink(); }  // its session destroys it
  std::string Describe() const override;

  Metadata& received_metadata() { return metadata_; }

  using ServerCall::DestroyHandler;
  using ServerCall::EndEarly;
  using ServerCall::handler_runs;
  const ServedMethod& served() const { return *served_; }
  CallId id() const { return id_; }

  // ---- CallEvents
  void OnInitialMetadata(Metadata) override {}
  void OnMessage(absl::Span<const char> message, size_t charged) override;
  void OnHalfClose() override;
  void OnEnd(absl::Status, Metadata) override {}
  void OnReset(absl::Status why) override;
  void OnSendRoom() override;

  // ---- Call, CallCore
  Metadata& initial_metadata() override;
  bool draining() const override { return session_->draining(); }
  void WatchDraining(DrainWatcher& watcher) override { session_->drain_watchers_.PushBack(watcher); }
  Connection& connection() override { return *session_; }
  bool Send(const google::protobuf::MessageLite& message, WriteOptions options) override;

  // ---- OrderedCall, SerialCall
  void OnOrderAdmitted() override;
  void OnOrderRefused(const absl::Status& why) override { EndEarly(why); }
  void OnOrderExpelled(const absl::Status& why) override { EndEarly(why); }
  void OnTurn() override;

 private:
  friend class troupe::Session;

  void OnRead(google::protobuf::MessageLite& message) override { chain_->reads().Run(message); }
  explicit SessionServerCall(EventLoop& loop) : ServerCall(loop) {}

  void OnUnreferenced() override;
  void Consumed(size_t charged) override;
  bool IsBlocked() const override;
  void OnBadMessage() override;
  void CountBadMessage();
  void SendOutcome(const absl::Status& status, const google::protobuf::MessageLite* response) override;
  void OnEnded() override;
  bool SendAsItIs(const google::protobuf::MessageLite& message, WriteOptions options);
  void SendInitialMetadataOnce();
  Packed ArrivedPacked() const;
  // Of a unary call: charges it until the call has ended. It is parsed when the call is started. Not OK: how the call
  // ends.
  absl::Status TakeRequest(absl::Span<const char> request);
  void Charge(size_t bytes) {
    request_bytes_ += bytes;
    session_->request_bytes_ += bytes;
  }
  absl::Status Unpack(absl::Span<const char> request);
  // Of a stream: kept until it is read.
  void Keep(absl::Span<const char> message, size_t charged, Packed packed);
  void LineUp(SerialGate& gate);

  const ServedMethod* served_ = nullptr;
  CoreRef<ServerCallPool> pool_;  // while in use
  Session* session_ = nullptr;
  CallId id_ = 0;
  bool ready_ = false;
  bool admitted_ = true;
  bool has_turn_ = false;
  bool arriving_ = false;  // at a gate, which may let it in at once
  bool ended_ok_ = false;
  bool has_request_ = false;
  enum class Request : uint8_t { kNone, kArriving, kKept, kParsed } request_state_ = Request::kNone;
  absl::Span<const char> arriving_request_;
  Bytes kept_request_;
  SerialTurns serial_turns_;  // that wait for it
  bool initial_metadata_sent_ = false;
  // Of the session's.
  size_t unread_bytes_ = 0;
  size_t request_bytes_ = 0;
  size_t metadata_bytes_ = 0;
  size_t running_bytes_ = 0;
  Session::RepliesExpected replies_expected_;  // of the reckonings in which it was started
  uint32_t reckoning_ = 0;
  uint32_t long_reckoning_ = 0;
  Metadata initial_metadata_;
  std::unique_ptr<ServerChain> chain_;  // null unless interceptors are installed
};

// Requests up to this are kept until a handler has seen them, to be sent again.
inline constexpr size_t kKeptRequestBytes = 256 << 10;

// A call that we opened. The session holds one reference until it has ended.
class SessionClientCall final : public ClientCall,
                                public CallEvents,
                                public ListNode<Session::InFlight>,
                                public ListNode<Session::Pending>,
                                public Pooled {
 public:
  SessionClientCall(Session& session, const MethodInfo& method, MonotonicTime deadline);
  ~SessionClientCall() override { core_loop().Cancel(deadline_timer_); }

  // As Session::StartMovableCall, but that interceptors come first. The call waits with `session` until they let it go
  // on: to where `mover` says, or, if that is null, with the same session.
  static ClientCallRef StartIntercepted(Session& session, const MethodInfo& method, const CallOptions& options,
                                        const google::protobuf::MessageLite* message, CallMover* mover,
                                        const ClientInterceptors& interceptors);

  // Ends it from this side.
  void End(const absl::Status& status) {
    Conclude(status, {});
    Ended();
  }

  // ---- for the interceptors
  ClientChain* chain() { return chain_.get(); }
  MonotonicTime deadline() const { return deadline_; }
  Metadata& metadata_to_send() { return metadata_; }
  // The last of them has called next().
  void SendBeneath();
  // They want no more of the server.
  void CancelBeneath(const absl::Status& why);
  // All of them are done. `reply`: of an OK, unless the server streams; null: none came.
  void EndIntercepted(absl::Status status, Metadata trailers, const std::string* reply);
  // One that the peer has not been told of goes to another connection, however often, or ends.
  void MoveOrEnd(const absl::Status& status) {
    if (!TryMove()) End(status);
  }
  void Wake() { WakeWriters(); }
  bool waits_for_ready() const { return wait_for_ready_; }

  // ---- CallEvents
  void OnInitialMetadata(Metadata metadata) override {
    AnsweredByPeer();
    DeliverInitialMetadata(std::move(metadata));
  }
  void OnMessage(absl::Span<const char> message, size_t charged) override;
  void OnHalfClose() override {}
  void OnEnd(absl::Status status, Metadata trailers) override;
  void OnReset(absl::Status why) override;
  void OnSendRoom() override;

  // ---- ClientCall, CallCore
  bool Send(const google::protobuf::MessageLite& message, WriteOptions options) override;
  void HalfClose() override;

 private:
  friend class troupe::Session;

  class DeadlineTimer final : public Timer {
   public:
    explicit DeadlineTimer(SessionClientCall& call) : call_(call) {}
    ~DeadlineTimer() = default;
    void Run() override { call_.OnDeadline(); }
    std::string Describe() const override { return "deadline of a call"; }

   private:
    SessionClientCall& call_;
  };

  void OnUnreferenced() override { delete this; }
  void Consumed(size_t charged) override;
  bool IsBlocked() const override;
  void OnRead(google::protobuf::MessageLite& message) override { chain_->reads().Run(message); }
  void SendCancel(const absl::Status& why) override {
    if (chain_ != nullptr) chain_->Drop();
    CancelBeneath(why);
  }
  // The end of what is beneath the interceptors; without them, of the call.
  void Conclude(absl::Status status, Metadata trailers) {
    if (chain_ == nullptr || !chain_->Takes(status, trailers)) DeliverEnd(std::move(status), std::move(trailers));
  }
  void OnDeadline();
  // Over: leaves the session.
  void Ended();
  bool started() const { return id_ != 0; }
  // Leaves its session for another one, or for a second try on the same. False: it stays where it is.
  bool TryMove();
  // It will not be sent again: a handler has seen it, or it cannot be.
  void Answered();
  void AnsweredByPeer();
  void Sent() {
    was_sent_ = true;
    if (mover_ == nullptr || !has_request_ || request_.size() > kKeptRequestBytes) Answered();
    if (method().one_way) Conclude(absl::OkStatus(), {});  // for the caller; ours ends when the server's has
  }
  // It is a step of its session.
  void RememberIn(SessionOrderMemory& memory) {
    order_memory_ = &memory;
    order_ticket_ = memory.Sent(method().step);
  }
  void TellOrder(SessionOrderMemory::Outcome outcome) {
    if (order_memory_ != nullptr) std::exchange(order_memory_, nullptr)->Ended(order_ticket_, outcome);
  }
  // Sends a message of a started call. False: the call has ended by it.
  bool Encode(const google::protobuf::MessageLite& message, WriteOptions options);

  Session* session_;  // null once it has ended
  const MonotonicTime deadline_;
  CallId id_ = 0;
  bool half_closed_ = false;
  size_t unread_bytes_ = 0;  // of the session's
  bool was_sent_ = false;
  SessionOrderMemory* order_memory_ = nullptr;  // until its outcome is known
  SessionOrderMemory::Ticket order_ticket_ = 0;
  CallMover* mover_ = nullptr;  // outlives the sessions that it moves calls between; null: it stays with its own
  bool was_refused_ = false;    // by a peer that did not start it: that is tried again once
  // While it waits, or may be moved: what it takes to send it.
  Metadata metadata_;
  bool wait_for_ready_ = false;
  Compression compression_ = Compression::kNone;
  bool has_request_ = false;  // the only one, with the half-close
  Bytes request_;             // encoded; charged to the session
  // What was written while the call waited for room: copies, in order.
  std::vector<std::pair<std::unique_ptr<google::protobuf::MessageLite>, WriteOptions>> unsent_;
  std::unique_ptr<ClientChain> chain_;  // null unless interceptors are installed
  DeadlineTimer deadline_timer_{*this};
};

}  // namespace troupe::internal

#endif  // TROUPE_SERVICE_INTERNAL_SESSION_CALL_H_
