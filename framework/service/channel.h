// Channel: the way to a server: what stubs are made from.
//
//   Channel channel(loop, "dns:///kv.internal:7400");
//   KeyValueStub kv(channel);
//
// It connects at the first call and again at the first call after a connection was lost. Calls made while it connects
// wait; calls in flight on a connection that is lost end UNAVAILABLE.
//
// A call that no handler has seen is sent again by itself, its deadline running: by the next connection and however
// often when it waited for room and was never sent; once, perhaps on the same connection, when the server says that it
// did not start it, because it takes no more or is going away. So a server that drains loses no call. Not moved are
// requests of more than 256 KiB and streams of requests once they were sent, and calls of a session. calls_moved
//
// Targets:   "dns:///host:port", "host:port", "ipv4:127.0.0.1:7400", "ipv6:[::1]:7400", "unix:/path", "unix:///path",
//            "unix-abstract:name"; "troupe+" before the scheme asks for the native wire. One address each.
// Threading: the loop's.     Lifetime: calls that outlive it end UNAVAILABLE. Destroyed without Close() it drops what
//            the peer has not taken yet.
#ifndef TROUPE_SERVICE_CHANNEL_H_
#define TROUPE_SERVICE_CHANNEL_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "troupe/async/task.h"
#include "troupe/loop/event_loop.h"
#include "troupe/net/tls_context.h"
#include "troupe/rpc/caller.h"
#include "troupe/service/internal/call_mover.h"
#include "troupe/service/limits.h"
#include "troupe/service/memory_guard.h"
#include "troupe/service/session.h"

namespace troupe {

struct ChannelOptions {
  // Native unless told otherwise. A target that begins with "troupe+" is native whatever stands here.
  Wire wire = Wire::kNative;
  // The host that gRPC calls; empty: the target's. Proxies and virtual hosts go by it.
  std::string authority = {};
  // Of its connection. An idle one is given up before a server does so: the client knows whether it is about to call.
  ConnectionLimits limits = {.idle_timeout = absl::Minutes(3)};
  // What all connections of the process may hold, as in ServerOptions; near it the server is granted no new credit.
  int64_t memory_bytes_max = 0;
  absl::Duration connect_timeout = absl::Seconds(20);

  // TLS, verified by the target's host or by `server_hostname`, which targets without a host need ("unix:"). Within
  // connect_timeout.
  std::optional<TlsContext> tls = std::nullopt;
  std::string server_hostname = {};
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
  // Null while there is none.
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
  };
  Task<absl::StatusOr<std::unique_ptr<Pinned>>> OpenPinned();

  Session* Destination() override;
  // The link for a new call: the one there is, or a new one that begins to connect.
  Link& UsableLink();
  void OnLinkEnded(Link& link);

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
  std::unique_ptr<Link> link_;
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
