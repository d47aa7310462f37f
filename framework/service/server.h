// Server: offers the services of actors on listening sockets, one actor per service and connection.
//
//   Server server(loop, {.listen = {"0.0.0.0:7400", "unix:/run/kv.sock"}});
//   server.Add<KeyValueService>(std::ref(store));
//   CO_RETURN_IF_ERROR(co_await server.Start());
//   co_return co_await server.ServeForever();        // the first SIGTERM or SIGINT drains
//
// For a protocol that is not protobuf use CreateServer (net/stream_server.h).
//
// Life:      made -> Add* -> Start -> serving -> Drain -> draining -> closed;  Close: closed at once
// Drain:     health says NOT_SERVING, accepting stops, peers are told, call.draining() is true, and what is in flight goes on: streams for
//            `stream_drain_timeout`, after which they end UNAVAILABLE, other calls for `drain_timeout`, after which
//            they are cancelled; handlers that run 3 s later are destroyed where they stand. So it always ends, after 28 s
//            by default: Kubernetes kills after 30.
// Threading: the loop's.     Lifetime: outlived by the loop. Destroying an open server closes it at once,
//            with a report: handlers are destroyed where they stand, actors hear ConnectionLost and go. It may be
//            destroyed in any of its own handlers, callbacks and factories: what of it is on the stack lives on until
//            that has returned or next suspends.
#ifndef TROUPE_SERVICE_SERVER_H_
#define TROUPE_SERVICE_SERVER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "troupe/async/future.h"
#include "troupe/async/task.h"
#include "troupe/base/intrusive_list.h"
#include "troupe/base/monotonic_time.h"
#include "troupe/base/socket_address.h"
#include "troupe/loop/event_loop.h"
#include "troupe/net/protocol.h"
#include "troupe/net/stream_server.h"
#include "troupe/net/tls_context.h"
#include "troupe/rpc/compression.h"
#include "troupe/rpc/interceptor.h"
#include "troupe/service/health_service.h"
#include "troupe/service/limits.h"
#include "troupe/service/memory_guard.h"
#include "troupe/service/service_table.h"
#include "troupe/service/session.h"

namespace troupe {

// Who may ask what a server offers, by grpc.reflection.v1 and v1alpha: names of services and methods, and all message
// types that are linked into the program.
enum class Reflection : uint8_t {
  kNobody,
  kLocal,  // connections to a loopback address or a Unix socket, and those in process
  kEverybody,
};

struct ServerOptions {
  // Where: what a Channel takes as its target (channel.h) without "troupe+", and ":7400" for all interfaces. A name is
  // bound at all its addresses; port 0 takes a free one: see addresses(). Empty: nowhere, for a server whose connections
  // come by NewConnection(), as in InProcess.
  std::vector<std::string> listen = {};
  // Instead of `listen`: bound sockets that came from elsewhere, for instance from systemd (Os::TakeListenDescriptors). Start
  // takes them over, unless it refuses one of them with INVALID_ARGUMENT.
  std::vector<int> sockets = {};
  int backlog = 1024;
  bool reuse_port = false;

  // TLS on every address of `listen`; nobody is served in clear text there, unless allowed below. With
  // TlsOptions::verify an actor finds who its client is at Connection::tls(). The context may be reloaded while the
  // server serves. The protocols to agree on are "troupe/1" and "h2", whatever its `alpn` says.
  std::optional<TlsContext> tls = std::nullopt;
  absl::Duration tls_handshake_timeout = absl::Seconds(60);  // tls_handshake_failures
  // Serves clear text too, on the same ports, to who does not begin with a handshake.
  bool allow_clear_text = false;

  // Of one connection.
  ConnectionLimits limits = {};

  // Connections at once; 0: the descriptor limit less 64. Over it new ones are closed at once. connections_refused
  int64_t connections_max = 0;
  // Of one IP address (of IPv6: of 64 bits of it), while three quarters of connections_max are taken: further ones are
  // closed at once, so that nobody keeps all others out. 0: half of connections_max. One address is normal behind a proxy,
  // which may say here what it wants. Unix sockets and memory have no share. connections_refused
  int64_t peer_connections_max = 0;

  // What all connections of the process may hold, in bytes; 0: half of the cgroup's or machine's memory. At 80 % nobody
  // is granted new credit, memory.tight; at 100 % new calls end RESOURCE_EXHAUSTED, but for health: memory.calls_refused
  int64_t memory_bytes_max = 0;

  // Of responses to who unpacks them, where a handler does not say.
  Compression compression = Compression::kNone;

  // Serves grpc.health.v1.Health beside what is added: see Server::health(). A service of that name that is added takes
  // its place, as is true of reflection.
  bool health = true;
  Reflection reflection = Reflection::kLocal;

  absl::Duration stream_drain_timeout = absl::Seconds(5);
  absl::Duration drain_timeout = absl::Seconds(25);
};

class Server final : private SessionGate {
 public:
  enum class State : uint8_t { kMade, kServing, kDraining, kClosed };

  explicit Server(EventLoop& loop, ServerOptions options = {});
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  ~Server();

  // One S per connection, built from const references to the decayed arguments: std::ref for what is shared. Throws
  // InvalidState once the server serves, and when a service is offered already.
  template <class S, class... Args>
  void Add(Args&&... args) {
    CheckNotStarted();
    shared_->table.Add<S>(std::forward<Args>(args)...);
  }
  // `factory(Connection&)` gives a std::unique_ptr<S> for each connection.
  template <class S, class Factory>
  void AddFactory(Factory factory) {
    CheckNotStarted();
    shared_->table.AddFactory<S>(std::move(factory));
  }

  // Around every call, inside those that were added before: rpc/interceptor.h. Throws as Add.
  void AddInterceptor(ServerInterceptor interceptor) {
    CheckNotStarted();
    shared_->table.AddInterceptor(std::move(interceptor));
  }

  // Binds and listens; addresses() is known when it is OK. With nothing to listen on it only begins to serve. Nothing
  // stays bound after an error, and it may be tried again:
  //   INVALID_ARGUMENT     an entry of `listen` cannot be understood: the message quotes it
  //   FAILED_PRECONDITION  the port or path is in use: ErrnoOf (base/os_error.h) gives EADDRINUSE;
  //                        or the address is none of this machine's: EADDRNOTAVAIL
  //   PERMISSION_DENIED    ports below 1024, or the folder of a Unix socket: EACCES
  //   NOT_FOUND            no such host, or no folder for a Unix socket
  // Throws InvalidState the second time, while another Start runs, and on a closed server.
  Task<absl::Status> Start();
  // Starts if need be and returns when the server is closed: OK after a drain. Cancelled, it closes at once, waits for
  // that and throws Cancelled. The loop's first SIGTERM or SIGINT (troupe::Run) drains. InvalidState if called twice at
  // once, or on a closed server.
  Task<absl::Status> ServeForever();

  // A connection that is there already, an accepted socket or a memory pair: the protocol for its transport, which the
  // caller keeps until ConnectionLost. Null when the server is not serving or full.
  std::unique_ptr<Protocol> NewConnection();

  // Idempotent.
  void Drain();
  // Cancels what is in flight and closes every connection. Idempotent.
  void Close();
  // Returns when the server is closed and its last connection gone, actors and all.
  Task<void> WaitClosed();

  // What it says of its health to who asks. SERVING from Start() on, it and each of its services, unless they were given
  // another status before; NOT_SERVING from Drain() or Close() on.
  HealthService& health() { return shared_->health; }

  State state() const { return state_; }
  // Where it listens, in the order of `listen`; empty when it does not.
  std::vector<SocketAddress> addresses() const;
  EventLoop& loop() { return loop_; }
  const ServiceTable& services() const { return shared_->table; }
  size_t connections() const { return connections_; }
  size_t calls_in_flight() const;
  // Work done, and each limit when it was hit.
  const SessionCounters& counters() const { return shared_->counters; }
  // What its connections hold: unread input, messages held, unsent output.
  int64_t held_bytes() const;
  uint64_t tls_handshake_failures() const;
  uint64_t connections_refused() const { return counters().connections_refused.value(); }
  const MemoryGuard& memory() const { return shared_->memory; }

 private:
  class DrainTimer final : public Timer {
   public:
    explicit DrainTimer(Server& server) : server_(server) {}
    ~DrainTimer() = default;
    void Run() override { server_.OnDrainTimer(); }
    std::string Describe() const override { return "drain of a server"; }

   private:
    Server& server_;
  };
  // What a drain does next.
  enum class DrainStep : uint8_t { kEndStreams, kCancelCalls, kDestroyHandlers };

  void CheckNotStarted() const;
  // Health and reflection, beside what was added.
  void AddBuiltIns();
  void OnDrainTimer();
  int64_t ConnectionsMax() const;
  bool Admit(Session& session) override;
  void OnSessionEnded(Session& session);
  void MaybeClosed();

  EventLoop& loop_;
  const ServerOptions options_;
  std::vector<int> sockets_;  // of the options, until they are given away
  SessionOptions session_options_;
  // Shared with a session whose own handler or callback has destroyed the server, until that has returned.
  struct Shared {
    ServiceTable table;
    HealthService health;
    SessionCounters counters;
    MemoryGuard memory;

    Shared(EventLoop& loop, int64_t memory_bytes_max) : memory(loop, memory_bytes_max, counters.memory) {}
  };
  // Shared with the tasks of Start() and ServeForever(), which may outlive the server.
  struct Anchor {
    Server* server;
  };

  const std::shared_ptr<Shared> shared_;
  const std::shared_ptr<Anchor> anchor_ = std::make_shared<Anchor>(Anchor{this});
  State state_ = State::kMade;
  bool starting_ = false;
  bool built_ins_added_ = false;
  bool serving_forever_ = false;
  std::unique_ptr<StreamServer> listener_;
  // Owned, in order of arrival; each is deleted by the loop once it has ended.
  IntrusiveList<Session, Session> sessions_;
  size_t connections_ = 0;
  absl::flat_hash_map<std::string, int64_t> connections_of_;  // by peer; looked up only
  std::vector<Promise<void>> closed_waiters_;
  DrainStep drain_step_ = DrainStep::kEndStreams;
  MonotonicTime drain_began_;
  DrainTimer drain_timer_{*this};
};

}  // namespace troupe

#endif  // TROUPE_SERVICE_SERVER_H_
