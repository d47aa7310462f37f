// Session: one connection: the Protocol that joins a transport, a codec and the actors.
//
// Server and Channel make sessions; users meet them as Connection. Either end may serve: incoming calls go to the
// actors of the ServiceTable, and a stub made from the session calls the peer.
//
// Life:      made -> (calls of ours wait) -> ConnectionMade -> wire known -> calls both ways -> lost ->
//            actors end -> ended
// Reading    never stops for the sake of a handler or of unsent bytes; credit does: what a call may send before its
//            receiver has read the rest.
// Writing    is gathered: what a batch of the loop produced leaves at its end.
// Threading: the loop's.
// Lifetime:  owned by who made it, until `on_ended` was called, which happens once, from the loop, when the connection
//            is gone and no handler runs any more; it may be destroyed inside that call.
#ifndef TROUPE_SERVICE_SESSION_H_
#define TROUPE_SERVICE_SESSION_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "troupe/actor/actor.h"
#include "troupe/base/counter.h"
#include "troupe/base/intrusive_list.h"
#include "troupe/base/socket_address.h"
#include "troupe/loop/event_loop.h"
#include "troupe/loop/timer_heap.h"
#include "troupe/net/protocol.h"
#include "troupe/net/transport.h"
#include "troupe/rpc/call.h"
#include "troupe/rpc/compression.h"
#include "troupe/rpc/connection.h"
#include "troupe/rpc/internal/call_core.h"
#include "troupe/service/limits.h"
#include "troupe/service/memory_guard.h"
#include "troupe/service/service_table.h"
#include "troupe/wire/codec.h"
#include "troupe/wire/counters.h"

namespace troupe {

namespace internal {
class CallGates;
class CallMover;
class SessionServerCall;
class SessionClientCall;
}  // namespace internal

// One set a server or channel; for statistics, and for tests of limits.
struct SessionCounters {
  Counter calls_started;
  Counter calls_ended_ok;
  Counter calls_failed;
  Counter calls_cancelled;  // by the peer, or by its loss
  Counter calls_unimplemented;
  Counter calls_refused_draining;
  Counter turns_exhausted;         // more calls came at once than a turn takes
  Counter starts_delayed_unsent;   // calls waited unstarted because output was not read
  Counter starts_delayed_replies;  // or because those that run were likely to answer much
  Counter replies_dropped;         // answered RESOURCE_EXHAUSTED, over unsent_bytes_max
  Counter requests_delayed;        // calls waited unstarted, over request_bytes_max
  Counter requests_refused;        // the same, for too long
  Counter credit_pauses;           // actors held more than actor_bytes_max
  Counter calls_waiting_refused;   // ours, over calls_waiting_max
  Counter calls_moved;             // ours, not started by one connection and sent again by another, or once more
  Counter messages_malformed;      // requests that do not parse, or are nested deeper than 100 messages
  Counter messages_heavy;          // requests of more fields than message_fields_max
  Counter reads_delayed;           // a turn had no time for all that came: packed messages became too much
  Counter wires_unknown;
  Counter preface_timeouts;
  Counter header_timeouts;
  Counter linger_timeouts;  // peers that did not close their end after ours
  Counter idle_timeouts;
  Counter keepalive_timeouts;
  Counter connections_aged;  // ended for their age
  Counter write_stalls;      // connections that took no bytes for a window_timeout
  Counter format_errors;
  Counter connections_refused;  // over connections_max or the share of a peer, or not serving
  WireCounters wire;
  MemoryCounters memory;
};

// What a connection speaks.
enum class Wire : uint8_t {
  kNative,  // troupe/1
  kGrpc,    // gRPC over HTTP/2
};
// What it is called in a TLS handshake.
const char* AlpnOf(Wire wire);

class Session;

// Who may refuse a connection once it is known whose it is.
class SessionGate {
 public:
  virtual bool Admit(Session& session) = 0;

 protected:
  ~SessionGate() = default;
};

struct SessionOptions {
  ConnectionLimits limits;
  // For a client; a server is told by the first bytes.
  Wire wire = Wire::kNative;
  // For a client: the handshake of TLS decides, and calls wait for it. A server that agrees on nothing is refused.
  bool wire_by_alpn = false;
  std::string authority = {};                    // the host that is called, for gRPC
  bool tls = false;                              // of the transport, for gRPC
  Compression compression = Compression::kNone;  // of what we send, where a call does not say
  MemoryGuard* memory = nullptr;                 // outlives the session; null: nobody counts
  SessionGate* gate = nullptr;                   // asked in ConnectionMade; null: nobody refuses
};

class Session final : public Connection, public ListNode<Session>, public MemoryGuard::Holder, private CodecEvents {
 public:
  enum class Role { kServer, kClient };

  // `table` may be null: nothing is served. `counters` outlives the session.
  Session(EventLoop& loop, Role role, const SessionOptions& options, const ServiceTable* table,
          SessionCounters& counters);
  ~Session();

  // The protocol for the session's transport. Once; the transport owns it.
  std::unique_ptr<Protocol> MakeProtocol();
  // Ends and destroys it at once, as its destructor does; but what of it is on the stack at this moment is let out
  // first: when one of its own handlers or callbacks destroys the server, the rest of it lives until that has returned,
  // and keeps `used`.
  static void Destroy(std::unique_ptr<Session> session, std::shared_ptr<const void> used);
  // Instead of a transport: there will be none. Ends all calls with `why`.
  void Fail(const absl::Status& why);
  void set_on_ended(absl::AnyInvocable<void(Session&)> on_ended) { on_ended_ = std::move(on_ended); }

  // ---- the end
  // Tells the peer to open no more calls; ends by itself when those in flight have ended and the peer has what was
  // answered.
  void Drain();
  // Ends the streams in flight with `why`; unary calls go on.
  void EndStreams(const absl::Status& why);
  void Close(const absl::Status& why) override;
  // Close, with one status for the peer and another for calls in flight.
  void CloseAs(const absl::Status& for_peer, const absl::Status& for_calls);
  // Drops unsent bytes and ends the connection.
  void Abort(const absl::Status& why);
  // Destroys the frames of handlers that still run, where they stand. REQUIRES: the connection was closed or aborted.
  void DestroyHandlers();
  bool ended() const { return ended_; }
  bool lost() const { return state_ == State::kLost; }
  // By the gate of its options.
  bool admitted() const { return admitted_; }
  // Calls of the peer that were taken up and have not ended.
  size_t calls_in_flight() const { return in_flight_; }
  size_t handlers_running() const;

  // ---- memory: unread input, messages held, what actors hold, unsent output.
  int64_t held_bytes() const override;
  void PauseCredit() override;
  void ResumeCredit() override;

  // As StartCall; while no handler has seen the call, `mover` may give it another connection.
  internal::ClientCallRef StartMovableCall(const MethodInfo& method, const CallOptions& options,
                                           const google::protobuf::MessageLite* message, internal::CallMover* mover);

  // Calls that wait for room, or for a connection.
  size_t calls_waiting() const { return waiting_count_; }
  // Gives them to where `destination` says, in their order, until it says null.
  void HandOver(absl::FunctionRef<Session*()> destination);
  // Ends those that do not wait for a connection however long it takes.
  void EndWaitingForConnection(const absl::Status& why);
  // The peer has said anything; it has answered a call.
  bool heard() const { return heard_; }
  bool answered() const { return answered_; }
  // Why it ends, as far as it or its peer has said; OK in good order.
  const absl::Status& why_ended() const { return state_ == State::kLost ? lost_reason_ : close_reason_; }

  // ---- Connection
  EventLoop& loop() override { return loop_; }
  internal::ClientCallRef StartCall(const MethodInfo& method, const CallOptions& options,
                                    const google::protobuf::MessageLite* message) override;
  const SocketAddress& peer() const override { return peer_; }
  const SocketAddress& local() const override { return local_; }
  const TlsInfo* tls() const override { return transport_ != nullptr ? transport_->tls() : tls_.get(); }
  absl::string_view wire() const override { return codec_ ? codec_->name() : "unknown"; }
  bool single_client() const override { return wire_ == Wire::kNative; }
  bool draining() const override { return draining_; }
  void Charge(int64_t bytes) override;
  std::string DebugString() const override;

 private:
  friend class internal::SessionServerCall;
  friend class internal::SessionClientCall;
  enum class State : uint8_t { kConnecting, kDetecting, kOpen, kClosing, kLost };
  class Adapter;
  // A Runnable that calls a member.
  template <void (Session::*kMember)()>
  class Step final : public Runnable {
   public:
    explicit Step(Session& session) : session_(session) {}
    ~Step() = default;
    void Run() override { (session_.*kMember)(); }
    std::string Describe() const override { return session_.DebugString(); }

   private:
    Session& session_;
  };
  template <void (Session::*kMember)()>
  class Timeout final : public Timer {
   public:
    explicit Timeout(Session& session) : session_(session) {}
    ~Timeout() = default;
    void Run() override { (session_.*kMember)(); }
    std::string Describe() const override { return session_.DebugString(); }

   private:
    Session& session_;
  };

  // ---- from the transport, through the adapter
  void ConnectionMade(Transport& transport);
  void DataReceived(absl::Span<const char> data);
  bool EofReceived();
  void PauseWriting();
  void ResumeWriting();
  void ConnectionLost(const absl::Status& reason);

  // ---- from the codec
  const void* FindMethod(absl::string_view path) override;
  CallEvents* OnCall(IncomingCall& call) override;
  void OnGoAway(CallId last, absl::Status why) override;
  void OnPong(uint64_t opaque) override;
  void OnCallRoom() override;

  void Detect(absl::Span<const char> data);
  // False: what TLS has agreed on is none of ours, and the connection is ending.
  bool TakeAlpn();
  void Receive(absl::Span<const char> data);
  // Gives it to the codec, as far as the turn's time goes; the rest is taken later.
  void TakeIn(absl::Span<const char> data);
  void TakeRest();
  // Watches over what the peer has begun and has to end soon.
  void WatchUnfinished();
  void OpenCodec();
  void OnUnfinished();
  void OnLingerTimeout();
  // Sends what is there and ends our direction; the connection is lost when the peer ends its own, or after a while.
  void CloseTransport();
  // Hands what the codec made to the transport when the batch ends; while the transport is paused, when it resumes.
  void FlushSoon() {
    if (!flush_.linked() && state_ != State::kLost) loop_.AfterBatch(flush_);
  }
  void Flush();
  void FlushNow();
  // Tells actors when what is unsent, in the transport or waiting for credit as single replies, is too much, and when it
  // is not any more.
  void TellActors();
  // Unsent bytes are above the write mark: OnRoom() follows when they are not.
  bool IsStalled();
  void OnRoom();
  size_t unsent_bytes() const;
  // Not OK: so much is unsent that the message is not sent, nor anything in its place but this.
  absl::Status CheckRoomFor(const google::protobuf::MessageLite& message);
  void Recharge() {
    if (memory_ != nullptr) memory_->Recharge(*this);
  }
  // The process is short of memory, or our actors hold too much for the peer, or its requests do.
  bool WithholdsCredit() const { return actors_full_ || requests_full_ || (memory_ != nullptr && memory_->tight()); }
  // Idle, silent, stalled and old connections.
  void OnWatch();
  // False: the connection is ending.
  bool CheckAge(MonotonicTime now);
  void WatchFrom(MonotonicTime now);
  // False: the connection is ending.
  bool CheckStalls();
  bool IsIdle() const;
  // The peer broke the format, or an actor failed: says so to the peer and closes.
  void CloseWith(const absl::Status& why) { CloseAs(why, why); }
  // Answers the peer's calls for which `which(call)` is true; their handlers are cancelled.
  template <class Which>
  void EndServerCalls(const absl::Status& why, Which which);
  // Shared: the end of one may be the end of another that waited behind it.
  std::vector<internal::CoreRef<internal::SessionServerCall>> ServerCalls();
  // `why`: for calls of ours; the peer's are cancelled.
  void EndAllCalls(const absl::Status& why);
  void EndClientCalls(const absl::Status& why);

  // ---- calls of the peer
  // The next accepted call waits unstarted, and `delayed` says for what. StartPending() follows when it need not any
  // more.
  bool MustWait(const internal::SessionServerCall& next, Counter** delayed = nullptr);
  // Some wait that need not.
  bool MayStartPending();
  // This turn has seen enough of the calls of this connection.
  bool TurnIsOver() const {
    return started_this_turn_ >= options_.limits.calls_per_turn_max ||
           bytes_this_turn_ >= options_.limits.bytes_per_turn_max;
  }
  void BeginTurn() {
    started_this_turn_ = 0;
    bytes_this_turn_ = 0;
  }
  // It would start now: its request need not be kept as it came.
  bool WouldStart(const internal::SessionServerCall& call);
  // What the handler of a call is reckoned with: within a while, and as long as it runs, where that is known.
  struct RepliesExpected {
    size_t soon = 0;
    size_t ever = 0;
  };
  RepliesExpected Expect(const internal::ServedMethod& method) const;
  // A reply, or a message of a stream, has been sent: the next may be as large.
  void Learn(const internal::ServedMethod& method, const google::protobuf::MessageLite& message);
  // The handlers that run have not answered for a while: they wait for something, and others may start.
  void OnRepliesOverdue();
  // The requests that are held have become more or less: the peer is given credit, or none.
  void OnRequestBytes();
  bool RequestsAreOver() const { return request_bytes_ > options_.limits.request_bytes_max; }
  absl::Status RequestsRefused();
  // No call that holds a request has ended for a while although others wait for that.
  void OnRequestsOverdue();
  void SchedulePending();
  // Starts the call now or queues it.
  void Start(internal::SessionServerCall& call);
  void StartNow(internal::SessionServerCall& call);
  // For calls that other calls let in: no handler runs inside the end of another.
  void StartLater(internal::SessionServerCall& call);
  void StartPending();
  void OnCallEnded(internal::SessionServerCall& call);
  internal::CallGates& gates();
  // No service with a session order is in the middle of it. Otherwise a drain waits with its GOAWAY.
  bool OrdersAllowAnEnd() const;
  void GoAwayWhenOrdersAllow();
  // Null: it could not be made, and the connection is closing.
  Actor* ActorAt(uint32_t index);
  // False: it threw; the connection is closing.
  template <class F>
  bool CallActor(const char* callback, F&& f);
  // Handlers, callbacks of actors and the exception handler run inside one of these, or in a chain of their own.
  struct InUserCode {
    explicit InUserCode(Session& entered) : session(entered) { ++session.user_code_; }
    ~InUserCode() { --session.user_code_; }
    Session& session;
  };
  bool user_code_is_running() const;
  void EndAtOnce();
  // Closes a connection that waits for its last call, when there is none. True: it is closing now.
  bool MaybeCloseIdle();
  void MaybeEnd();
  // A Fatal thrown meanwhile is passed on when all is done.
  void End();

  // ---- calls of ours
  // `made`: the call, to be launched; null: it has ended already.
  internal::ClientCallRef MakeCall(const MethodInfo& method, const CallOptions& options,
                                   const google::protobuf::MessageLite* message, internal::CallMover* mover,
                                   internal::SessionClientCall*& made);
  // Sends it, or lets it wait for room.
  void Launch(internal::SessionClientCall& call, const google::protobuf::MessageLite* message);
  // RESOURCE_EXHAUSTED: there is no room for it.
  absl::Status TrySend(internal::SessionClientCall& call, const google::protobuf::MessageLite* message);
  // What was written to a call of ours while it waited; it has been started now.
  void SendUnsent(internal::SessionClientCall& call);
  // False: the call has ended, because its request is too large.
  bool KeepRequest(internal::SessionClientCall& call, const google::protobuf::MessageLite& message);
  // Of a call's way from one session to the other.
  void Leave(internal::SessionClientCall& call);
  void Adopt(internal::SessionClientCall& call);
  void OnClientCallEnded(internal::SessionClientCall& call);

  struct InFlight;
  struct Pending;

  // What Destroy() was given: goes last.
  std::shared_ptr<const void> used_;
  EventLoop& loop_;
  const Role role_;
  Wire wire_;
  const SessionOptions options_;
  const ServiceTable* const table_;
  SessionCounters& counters_;
  MemoryGuard* memory_;  // null once it has ended
  absl::AnyInvocable<void(Session&)> on_ended_;

  State state_ = State::kConnecting;
  bool admitted_ = false;
  bool draining_ = false;
  bool goaway_sent_ = false;  // by a drain
  bool write_paused_ = false;
  bool actors_paused_ = false;      // PauseWriting is the last that they were told
  bool requests_full_ = false;      // over request_bytes_max
  bool requests_overdue_ = false;   // and for too long: refused instead
  bool request_ended_ = false;      // since the timer was set
  bool room_wanted_ = false;        // someone waits for the output to go although the transport is not paused
  bool eof_received_ = false;       // the peer sends no more, and still reads
  bool taking_in_ = false;          // the codec is in the middle of what it received
  bool close_after_input_ = false;  // CloseTransport() was called meanwhile
  bool keep_open_ = false;          // an actor wants to go on nevertheless
  bool unpacks_ = false;            // it sends packed messages
  bool active_ = false;             // a call has ended since the watch last looked
  bool aged_ = false;               // it drains for its age
  bool heard_ = false;
  bool answered_ = false;
  bool ping_outstanding_ = false;
  bool watching_stalls_ = false;
  uint8_t stalled_looks_ = 0;  // so often the transport was found to have taken nothing
  bool ended_ = false;
  int user_code_ = 0;
  absl::Status close_reason_;
  absl::Status lost_reason_;
  Adapter* adapter_ = nullptr;          // owned by the transport
  std::unique_ptr<const TlsInfo> tls_;  // once the transport is gone
  Transport* transport_ = nullptr;      // from ConnectionMade to ConnectionLost
  SocketAddress peer_;
  SocketAddress local_;
  // The first bytes, while there are too few; later what a turn had no time for, while the transport does not read.
  std::string held_input_;
  uint64_t unfinished_ = Codec::kPreface;
  std::unique_ptr<Codec> codec_;
  MonotonicTime last_received_;
  MonotonicTime active_at_;
  MonotonicTime ping_sent_at_;
  MonotonicTime age_ends_at_ = MonotonicTime::InfiniteFuture();
  MonotonicTime probe_at_;  // whether a peer that has ended its direction is there
  MonotonicTime stalls_looked_at_;
  size_t stalled_bytes_ = 0;  // in the transport when the stall was last looked at
  size_t lingering_bytes_ = 0;
  // What applications have not read yet; unary requests and metadata of calls whose handlers have not ended, those of
  // them whose handlers run, and metadata alone; requests of ours that may have to be sent again.
  size_t unread_bytes_ = 0;
  size_t request_bytes_ = 0;
  size_t running_bytes_ = 0;
  size_t metadata_bytes_ = 0;
  size_t kept_bytes_ = 0;
  int64_t actor_bytes_ = 0;
  bool actors_full_ = false;  // they held more than actor_bytes_max, and still more than half of it

  // What handlers that run are likely to answer: each what was sent last by its method, or a little less than that before
  // it. The reckoning begins anew when nothing has come of them for a while; that of all handlers, when nothing has for
  // long.
  size_t replies_to_come_ = 0;
  size_t all_replies_to_come_ = 0;
  std::vector<uint32_t> reply_bytes_;  // by ServedMethod::index; 0: none has been sent
  uint32_t reckoning_ = 0;
  uint32_t long_reckoning_ = 0;
  uint32_t silent_reckonings_ = 0;  // since a reply has come

  IntrusiveList<internal::SessionServerCall, InFlight> server_calls_;
  IntrusiveList<internal::SessionServerCall, Pending> pending_;  // taken up, handler not started
  std::unique_ptr<internal::CallGates> gates_;                   // null until a call needs them
  size_t in_flight_ = 0;
  uint32_t started_this_turn_ = 0;
  size_t bytes_this_turn_ = 0;
  IntrusiveList<internal::SessionClientCall, InFlight> client_calls_;
  IntrusiveList<internal::SessionClientCall, Pending> waiting_;  // for the peer to grant room
  size_t waiting_count_ = 0;

  IntrusiveList<internal::DrainWatcher, internal::DrainWatcher> drain_watchers_;

  std::vector<std::unique_ptr<Actor>> actors_;  // by ServedMethod::actor; empty until one is made
  std::vector<uint32_t> actor_order_;           // in which they were made

  Step<&Session::Flush> flush_{*this};
  Step<&Session::StartPending> start_pending_{*this};
  Step<&Session::End> end_{*this};
  Step<&Session::TakeRest> take_rest_{*this};
  Timeout<&Session::OnUnfinished> unfinished_timer_{*this};
  Timeout<&Session::OnLingerTimeout> linger_timer_{*this};
  Timeout<&Session::OnWatch> watch_timer_{*this};
  Timeout<&Session::OnRepliesOverdue> replies_timer_{*this};
  Timeout<&Session::OnRequestsOverdue> requests_timer_{*this};
};

}  // namespace troupe

#endif  // TROUPE_SERVICE_SESSION_H_
