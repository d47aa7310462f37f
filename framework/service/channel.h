// Channel: the way to a server: what stubs are made from.
//
//   Channel channel(loop, "dns:///kv.internal:7400");
//   KeyValueStub kv(channel);
//
// It connects at the first call and again at the first call after a connection was lost. Calls made while it connects
// wait, their deadlines running; calls in flight on a connection that is lost end UNAVAILABLE.
//
// State:     IDLE -> CONNECTING -> READY -> IDLE: nobody calls, the server goes away, the connection is lost
//                               -> TRANSIENT_FAILURE -> CONNECTING after a while, or IDLE when nobody calls
// A server that cannot be reached is tried again ever more rarely, gRPC's connection-backoff, as long as there are calls.
// Meanwhile calls end UNAVAILABLE with what was wrong, at once, unless their options say wait_for_ready.
//
// A name is asked for again when a connection was lost or could not be made, at most every 30 s. Of several addresses
// Balancing::kPickFirst connects to the first that answers and stays there; kRoundRobin connects to all, and calls take
// turns; what stays when the addresses change keeps its connections, and what goes ends its calls first.
//
// A call that no handler has seen is sent again by itself, its deadline running: by the next connection and however
// often when it waited for room and was never sent; once, perhaps on the same connection, when the server says that it
// did not start it, because it takes no more or is going away. So a server that drains loses no call. Not moved are
// requests of more than 256 KiB and streams of requests once they were sent, and calls of a session. calls_moved
//
// Targets:   "dns:///host:port", "host:port", "ipv4:127.0.0.1:7400", "ipv6:[::1]:7400", "unix:/path", "unix:///path",
//            "unix-abstract:name". Addresses may be several, "ipv4:10.0.0.1:7400,10.0.0.2:7400": like those of a name
//            that has them all; certificates and authority go by the first.
// Wire:      gRPC, so that any gRPC server may be at the other end; Troupe's own when the target begins with "troupe+",
//            "troupe+dns:///host:port", or the options say so; over TLS what the server chooses of the two, its own
//            first. Never by trial. Sessions with an order need Troupe's own.
// Threading: the loop's.     Lifetime: calls that outlive it end UNAVAILABLE. Destroyed without Close() it drops what
//            the peer has not taken yet.
#ifndef TROUPE_SERVICE_CHANNEL_H_
#define TROUPE_SERVICE_CHANNEL_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "troupe/async/future.h"
#include "troupe/async/task.h"
#include "troupe/base/monotonic_time.h"
#include "troupe/base/socket_address.h"
#include "troupe/loop/event_loop.h"
#include "troupe/net/tls_context.h"
#include "troupe/rpc/caller.h"
#include "troupe/rpc/compression.h"
#include "troupe/rpc/interceptor.h"
#include "troupe/rpc/metadata.h"
#include "troupe/service/internal/backoff.h"
#include "troupe/service/internal/call_mover.h"
#include "troupe/service/internal/interception.h"
#include "troupe/service/limits.h"
#include "troupe/service/memory_guard.h"
#include "troupe/service/session.h"

namespace troupe {

enum class ConnectivityState : uint8_t { kIdle, kConnecting, kReady, kTransientFailure, kShutdown };

// Which of a name's addresses calls go to.
enum class Balancing : uint8_t { kPickFirst, kRoundRobin };

// For whom credentials are asked, in gRPC's words.
struct CallCredentialsRequest {
  std::string service_url;  // "https://kv.internal:7400/kv.v1.KeyValue"
  std::string method;       // "Get"
};
// Gives the metadata that says who calls: {{"authorization", "Bearer ..."}}. Asked for every call: it keeps what it has
// got for as long as that is good. A lambda with captures must not be a coroutine itself.
using CallCredentials = std::function<Task<absl::StatusOr<Metadata>>(const CallCredentialsRequest& request)>;

struct ChannelOptions {
  // Nothing else is spoken, nor offered over TLS. A target that begins with "troupe+" is native whatever stands here.
  std::optional<Wire> wire = std::nullopt;
  // The host that gRPC calls; empty: the target's. Proxies and virtual hosts go by it.
  std::string authority = {};
  // Of its connection. An idle one is given up before a server does so: the client knows whether it is about to call.
  ConnectionLimits limits = {.idle_timeout = absl::Minutes(3)};
  // What all connections of the process may hold, as in ServerOptions; near it the server is granted no new credit.
  int64_t memory_bytes_max = 0;
  Balancing balancing = Balancing::kPickFirst;
  // Of one attempt, until the server has said something.
  absl::Duration connect_timeout = absl::Seconds(20);
  // From the beginning of the first attempt that fails to that of the next; 1.6 times that for each further one.
  absl::Duration backoff_initial = absl::Seconds(1);
  absl::Duration backoff_max = absl::Minutes(2);
  // Of requests, where a call's options do not say.
  Compression compression = Compression::kNone;

  // TLS, verified by the target's host or by `server_hostname`, which targets without a host need ("unix:"). Within
  // connect_timeout.
  std::optional<TlsContext> tls = std::nullopt;
  std::string server_hostname = {};

  // Around every call, the first one outermost: rpc/interceptor.h.
  std::vector<ClientInterceptor> interceptors = {};
  // Asked for each call for what to send with it, within its deadline. Its error ends the call: UNAUTHENTICATED where it
  // says UNKNOWN, INTERNAL for the codes that are left to services (gRPC's A54), else as it is.
  CallCredentials credentials = nullptr;
  // They are sent by TLS, Unix sockets and loopback addresses, and not to others, where calls end UNAUTHENTICATED.
  bool credentials_in_clear_text = false;
};

template <class Stub>
class OpenedSession;

class Channel final : public Caller, private internal::CallMover {
 public:
  // A target that cannot be understood makes every call end INVALID_ARGUMENT, at once and with what is wrong.
  Channel(EventLoop& loop, std::string target, ChannelOptions options = {});
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;
  ~Channel();

  EventLoop& loop() override { return loop_; }
  // Calls of services with a session order end FAILED_PRECONDITION: they need a session.
  internal::ClientCallRef StartCall(const MethodInfo& method, const CallOptions& options,
                                    const google::protobuf::MessageLite* message) override;

  // A session of the stub's service: a connection of its own, made when it is OK. UNAVAILABLE: it could not be made.
  template <class Stub>
  Task<absl::StatusOr<OpenedSession<Stub>>> OpenSession();

  // Ends calls in flight UNAVAILABLE and refuses new ones; what was sent before still goes. Idempotent.
  void Close();
  const std::string& target() const { return target_; }
  ConnectivityState state() const { return state_; }
  // Gives the state once it is another than `known`. When the channel is destroyed: kShutdown.
  Task<ConnectivityState> WaitForStateChange(ConnectivityState known);
  // Connects without a call.
  void Connect();
  // One that takes calls; null while there is none.
  Connection* connection();
  uint64_t connections_made() const { return connections_made_; }
  // Work done, and each limit when it was hit.
  const SessionCounters& counters() const { return counters_; }

 private:
  template <class Stub>
  friend class OpenedSession;
  struct Link;

  // One connection for one session. When it is lost it is not made again.
  class Pinned final : public Caller {
   public:
    explicit Pinned(Channel& channel);
    Pinned(const Pinned&) = delete;
    Pinned& operator=(const Pinned&) = delete;
    ~Pinned();

    EventLoop& loop() override { return loop_; }
    internal::ClientCallRef StartCall(const MethodInfo& method, const CallOptions& options,
                                      const google::protobuf::MessageLite* message) override;
    Connection* connection();
    void Close();

   private:
    friend class Channel;
    EventLoop& loop_;
    Link* link_;  // null once it has ended
    const internal::ClientInterceptors interceptors_;
  };
  Task<absl::StatusOr<std::unique_ptr<Pinned>>> OpenPinned();

  // Shared with the task that resolves.
  struct Anchor {
    Channel* channel;
  };

  // ---- connections
  struct Subchannel;
  Session* Destination(const internal::SessionClientCall& call) override;
  absl::Status WhyNone() const override;
  // The connection for the next call; null: none is ready.
  Session* Pick();
  // Calls are there, or somebody asks: goes on towards connections.
  void Want();
  void ConnectTo(Subchannel& subchannel);
  void OnConnected(Link& link);
  void OnNotConnected(Link& link, const absl::Status& why);
  void OnLinkEnded(Link& link);
  // Its connection takes no more calls.
  void Retire(Subchannel& subchannel);
  // Its connection is needed no more.
  void LetGo(Subchannel& subchannel);
  // It is not tried again for a while; calls that do not wait end with `why`, or all wait if that is OK.
  void BackOff(Subchannel& subchannel, const absl::Status& why);
  void ScheduleRetry();
  void OnRetryTimer();
  // Uniform, at least 0 and below 1.
  double Random();

  // ---- addresses
  void MaybeResolve();
  static Task<void> Resolve(EventLoop& loop, std::string host, std::string port, absl::Duration timeout,
                            std::shared_ptr<Anchor> anchor);
  void OnResolved(absl::StatusOr<std::vector<SocketAddress>> addresses);
  void UseAddresses(const std::vector<SocketAddress>& addresses);

  // ---- state: what follows from the subchannels
  void UpdateState();
  ConnectivityState StateNow() const;
  absl::Status Failure() const;

  EventLoop& loop_;
  const std::string target_;
  const ChannelOptions options_;
  SessionOptions session_options_;
  absl::Status bad_target_;
  std::string address_;  // as CreateConnection understands it
  bool closed_ = false;
  uint64_t connections_made_ = 0;
  SessionCounters counters_;
  MemoryGuard memory_;
  internal::ClientInterceptors interceptors_;  // null: none
  const std::shared_ptr<Anchor> anchor_ = std::make_shared<Anchor>(Anchor{this});

  ConnectivityState state_ = ConnectivityState::kIdle;
  bool updating_ = false;
  std::vector<Promise<ConnectivityState>> state_waiters_;
  bool interest_ = false;  // someone has called, or asked, since the last attempt began
  TimerHandle retry_timer_;
  MonotonicTime retry_at_ = MonotonicTime::InfiniteFuture();

  std::string host_, port_;             // of the address; "": it is a Unix socket
  std::vector<SocketAddress> listed_;  // by the target, when it lists several; nobody is asked for others
  bool resolving_ = false;
  bool resolve_wanted_ = true;
  MonotonicTime resolve_began_at_;
  MonotonicTime resolve_not_before_;
  absl::Status resolve_failure_;
  internal::Backoff resolve_backoff_;
  TaskHandle<void> resolution_;

  // kPickFirst: one of all addresses. kRoundRobin: one of each.
  std::vector<std::unique_ptr<Subchannel>> subchannels_;
  size_t next_pick_ = 0;
  // Where calls wait while none is ready: it has no connection and gets none.
  Session lobby_;
  // Those of sessions, and what is going away, until its calls have ended.
  std::vector<std::unique_ptr<Link>> retired_;
};

// A session of one service: its stub, on a connection that no other stub of the channel uses.
//
//   absl::StatusOr<OpenedSession<KeyValueStub>> kv = co_await channel.OpenSession<KeyValueStub>();
//   if (!kv.ok()) co_return kv.status();
//   const absl::StatusOr<LoginResponse> login = co_await (*kv)->Login(request);
//
// What an actor keeps in its members belongs to one session, and services with a session order (option
// (troupe.session)) can be called in one only. Nothing is retried or moved: once the connection is lost every call
// answers UNAVAILABLE, and the user opens another session.
//
// Threading: the loop's.
// Lifetime:  outlives copies of its stub. Destroyed, it closes its connection; calls in flight end UNAVAILABLE.
template <class Stub>
class [[nodiscard]] OpenedSession {
 public:
  Stub& stub() { return stub_; }
  Stub* operator->() { return &stub_; }
  // Null once it is lost.
  Connection* connection() { return pinned_->connection(); }
  // What was sent before still goes. Idempotent.
  void Close() { pinned_->Close(); }

 private:
  friend class Channel;
  explicit OpenedSession(std::unique_ptr<Channel::Pinned> pinned) : pinned_(std::move(pinned)), stub_(*pinned_) {}

  std::unique_ptr<Channel::Pinned> pinned_;
  Stub stub_;
};

template <class Stub>
Task<absl::StatusOr<OpenedSession<Stub>>> Channel::OpenSession() {
  absl::StatusOr<std::unique_ptr<Pinned>> pinned = co_await OpenPinned();
  if (!pinned.ok()) co_return pinned.status();
  co_return OpenedSession<Stub>(*std::move(pinned));
}

}  // namespace troupe

#endif  // TROUPE_SERVICE_CHANNEL_H_
