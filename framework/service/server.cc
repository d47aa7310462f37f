#include "troupe/service/server.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/message_lite.h"
#include "troupe/async/internal/shutdown_hooks.h"
#include "troupe/base/errors.h"
#include "troupe/base/status_macros.h"
#include "troupe/net/transport.h"
#include "troupe/service/internal/health_actor.h"
#include "troupe/service/internal/reflection_actor.h"
#include "troupe/service/internal/target.h"

namespace troupe {
namespace {

// Descriptors that a full server keeps for everything else.
constexpr int64_t kDescriptorsKept = 64;
// From the cancellation of handlers to their destruction: with a drain_timeout of 25 s two are left of the 30 after which
// Kubernetes kills.
constexpr absl::Duration kHandlerGrace = absl::Seconds(3);

// Protobuf writes a line to stderr for each message with a string that is not UTF-8: a peer could fill the log, and stop
// the loop where nobody reads it. Such messages are refused and counted all the same.
void SilenceProtobuf() {
#if GOOGLE_PROTOBUF_VERSION < 4022000
  static const auto& silencer = *new google::protobuf::LogSilencer;
  (void)silencer;
#endif
}

// Whose a connection is: the address, and of IPv6 the part that names a network, since whoever has one has many. Empty:
// nobody's.
std::string PeerKey(const SocketAddress& peer) {
  const auto bytes = [](const void* at, size_t size) { return std::string(static_cast<const char*>(at), size); };
  if (peer.family() == AF_INET) {
    const in_addr ip = reinterpret_cast<const sockaddr_in*>(peer.get())->sin_addr;
    return bytes(&ip, sizeof(ip));
  }
  if (peer.family() != AF_INET6) return {};
  const in6_addr& ip = reinterpret_cast<const sockaddr_in6*>(peer.get())->sin6_addr;
  return IN6_IS_ADDR_V4MAPPED(&ip) ? bytes(&ip.s6_addr[12], 4) : bytes(&ip.s6_addr[0], 8);
}

// For a connection over the limit.
class Refusal final : public Protocol {
 public:
  void ConnectionMade(Transport& transport) override { transport.Abort(); }
  void DataReceived(absl::Span<const char>) override {}
};

}  // namespace

Server::Server(EventLoop& loop, ServerOptions options)
    : loop_(loop),
      options_(std::move(options)),
      sockets_(options_.sockets),
      shared_(std::make_shared<Shared>(loop, options_.memory_bytes_max)) {
  SilenceProtobuf();
  session_options_.limits = options_.limits;
  session_options_.memory = &shared_->memory;
  session_options_.compression = options_.compression;
  session_options_.gate = this;
}

Server::~Server() {
  anchor_->server = nullptr;
  loop_.Cancel(drain_timer_);
  if (state_ == State::kServing || state_ == State::kDraining) {
    ExceptionContext context;
    context.message = "Server was destroyed but it is open!";
    context.Add("server", absl::StrCat(connections_, " connections, ", calls_in_flight(), " calls in flight"), this);
    loop_.CallExceptionHandlerLater(context);
    state_ = State::kClosed;
  }
  while (!sessions_.empty()) Session::Destroy(std::unique_ptr<Session>(&sessions_.PopFront()), shared_);
  for (const Promise<void>& waiter : closed_waiters_) waiter.SetValueUnlessCancelled();
}

void Server::CheckNotStarted() const {
  if (state_ != State::kMade || starting_) throw InvalidState("services are added before the server starts");
}

void Server::AddBuiltIns() {
  if (std::exchange(built_ins_added_, true)) return;
  ServiceTable& table = shared_->table;
  if (options_.health && !table.Offers(internal::HealthActor::troupe_binding().info->full_name)) {
    table.Add<internal::HealthActor>(std::ref(shared_->health));
  }
  if (options_.reflection == Reflection::kNobody) return;
  const internal::ReflectionOptions reflection{&table, options_.reflection == Reflection::kEverybody};
  if (!table.Offers(internal::ReflectionV1Actor::troupe_binding().info->full_name)) {
    table.Add<internal::ReflectionV1Actor>(reflection);
  }
  if (!table.Offers(internal::ReflectionV1AlphaActor::troupe_binding().info->full_name)) {
    table.Add<internal::ReflectionV1AlphaActor>(reflection);
  }
}

Task<absl::Status> Server::Start() {
  if (starting_ || state_ == State::kServing || state_ == State::kDraining) {
    throw InvalidState("the server was started before");
  }
  if (state_ == State::kClosed) throw InvalidState("the server is closed");
  // Looked at wherever this goes on: the server may be destroyed meanwhile.
  const std::shared_ptr<Anchor> anchor = anchor_;
  AddBuiltIns();
  starting_ = true;
  const absl::Cleanup started = [anchor] {
    if (anchor->server != nullptr) anchor->server->starting_ = false;
  };
  if (!options_.listen.empty() || !sockets_.empty()) {
    StreamServerOptions listen;
    // Given away: a second attempt must not touch what may have their numbers by then.
    listen.sockets = std::exchange(sockets_, {});
    for (const std::string& where : options_.listen) {
      absl::StatusOr<std::string> address = internal::ParseTarget(where, internal::TargetUse::kListen);
      if (!address.ok()) co_return address.status();
      listen.listen.push_back(*std::move(address));
    }
    listen.backlog = options_.backlog;
    // One that is over is told so by being closed, and may go elsewhere: in the backlog it would wait for nobody knows
    // how long. The listener's own limit is there for the moment that it takes.
    listen.connections_max = static_cast<size_t>(ConnectionsMax() + kDescriptorsKept / 2);
    listen.reuse_port = options_.reuse_port;
    if (options_.tls.has_value()) {
      listen.tls = &*options_.tls;
      listen.tls_alpn = {"troupe/1", "h2"};
      listen.tls_handshake_timeout = options_.tls_handshake_timeout;
    }
    listen.allow_clear_text = options_.allow_clear_text;
    auto factory = [anchor]() -> std::unique_ptr<BaseProtocol> {
      std::unique_ptr<Protocol> protocol;
      if (anchor->server != nullptr) protocol = anchor->server->NewConnection();
      if (protocol == nullptr) return std::make_unique<Refusal>();
      return protocol;
    };
    auto starting = CreateServer(loop_, factory, listen);
    absl::StatusOr<std::unique_ptr<StreamServer>> listener = co_await std::move(starting);
    if (anchor->server == nullptr) co_return absl::CancelledError("the server was destroyed while it started");
    if (absl::IsInvalidArgument(listener.status())) sockets_ = listen.sockets;  // refused: still the caller's
    if (!listener.ok()) co_return listener.status();
    listener_ = *std::move(listener);
    if (state_ == State::kClosed) {  // closed in the meantime
      listener_->Close();
      co_return absl::CancelledError("the server was closed while it started");
    }
  }
  state_ = State::kServing;
  shared_->health.SetServingStatusAtFirst("", ServingStatus::kServing);
  for (const ServiceInfo* const service : shared_->table.services()) {
    shared_->health.SetServingStatusAtFirst(service->full_name, ServingStatus::kServing);
  }
  co_return absl::OkStatus();
}

Task<absl::Status> Server::ServeForever() {
  if (serving_forever_) throw InvalidState("the server is already being awaited on ServeForever()");
  if (state_ == State::kClosed) throw InvalidState("the server is closed");
  // Looked at wherever this goes on: the server may be destroyed meanwhile.
  const std::shared_ptr<Anchor> anchor = anchor_;
  serving_forever_ = true;
  const absl::Cleanup done = [anchor] {
    if (anchor->server != nullptr) anchor->server->serving_forever_ = false;
  };
  if (state_ == State::kMade) CO_RETURN_IF_ERROR(co_await Start());
  const auto drained_at_shutdown = loop_.Local<internal::ShutdownHooks>().AddDrainable([anchor] {
    if (anchor->server != nullptr) anchor->server->Drain();
  });
  bool cancelled = false;
  try {
    co_await WaitClosed();
  } catch (const Cancelled&) {
    cancelled = true;  // rethrown below, when all is closed
  }
  if (!cancelled) {
    if (anchor->server == nullptr) co_return absl::CancelledError("the server was destroyed while it served");
    co_return absl::OkStatus();
  }
  if (anchor->server != nullptr) {
    Close();
    co_await WaitClosed();
  }
  throw Cancelled();
}

std::unique_ptr<Protocol> Server::NewConnection() {
  if (state_ != State::kServing || static_cast<int64_t>(connections_) >= ConnectionsMax()) {
    shared_->counters.connections_refused.Add();
    return nullptr;
  }
  auto* session = new Session(loop_, Session::Role::kServer, session_options_, &shared_->table, shared_->counters);
  sessions_.PushBack(*session);
  ++connections_;
  session->set_on_ended([this](Session& ended) { OnSessionEnded(ended); });
  return session->MakeProtocol();
}

bool Server::Admit(Session& session) {
  const std::string peer = PeerKey(session.peer());
  if (peer.empty()) return true;
  const int64_t most = ConnectionsMax();
  const int64_t share =
      options_.peer_connections_max > 0 ? options_.peer_connections_max : std::max<int64_t>(1, most / 2);
  int64_t& own = connections_of_[peer];
  if (own >= share && static_cast<int64_t>(connections_) > most - most / 4) {
    shared_->counters.connections_refused.Add();
    return false;
  }
  ++own;
  return true;
}

int64_t Server::ConnectionsMax() const {
  if (options_.connections_max > 0) return options_.connections_max;
  return std::max<int64_t>(1, loop_.os().DescriptorLimit() - kDescriptorsKept);
}

void Server::OnSessionEnded(Session& session) {
  session.ListNode<Session>::Unlink();
  --connections_;
  const auto own = session.admitted() ? connections_of_.find(PeerKey(session.peer())) : connections_of_.end();
  if (own != connections_of_.end() && --own->second == 0) connections_of_.erase(own);
  loop_.DeleteLater(std::unique_ptr<Session>(&session));
  MaybeClosed();
}

void Server::Drain() {
  if (state_ == State::kMade) state_ = State::kClosed;
  if (state_ != State::kServing) return;
  state_ = State::kDraining;
  shared_->health.Shutdown();
  drain_began_ = loop_.Time();
  drain_step_ = DrainStep::kEndStreams;
  if (listener_ != nullptr) listener_->Close();
  loop_.ScheduleAt(drain_timer_, drain_began_ + std::min(options_.stream_drain_timeout, options_.drain_timeout));
  for (Session& session : sessions_) session.Drain();
  MaybeClosed();
}

void Server::OnDrainTimer() {
  switch (drain_step_) {
    case DrainStep::kEndStreams:
      drain_step_ = DrainStep::kCancelCalls;
      for (Session& session : sessions_) session.EndStreams(absl::UnavailableError("the server is shutting down"));
      return loop_.ScheduleAt(drain_timer_, drain_began_ + options_.drain_timeout);
    case DrainStep::kCancelCalls:
      return Close();
    case DrainStep::kDestroyHandlers:
      for (Session& session : sessions_) {
        session.Abort(absl::UnavailableError("the server is closed"));
        session.DestroyHandlers();
      }
  }
}

void Server::Close() {
  if (state_ == State::kMade) state_ = State::kClosed;
  if (state_ == State::kClosed || drain_step_ == DrainStep::kDestroyHandlers) return;
  state_ = State::kDraining;
  shared_->health.Shutdown();
  drain_step_ = DrainStep::kDestroyHandlers;
  if (listener_ != nullptr) listener_->Close();
  loop_.Cancel(drain_timer_);
  loop_.ScheduleAt(drain_timer_, loop_.Time() + kHandlerGrace);
  for (Session& session : sessions_) session.Close(absl::UnavailableError("the server is closed"));
  MaybeClosed();
}

void Server::MaybeClosed() {
  if (state_ != State::kDraining || connections_ > 0) return;
  state_ = State::kClosed;
  loop_.Cancel(drain_timer_);
  for (const Promise<void>& waiter : std::exchange(closed_waiters_, {})) waiter.SetValueUnlessCancelled();
}

Task<void> Server::WaitClosed() {
  if (state_ == State::kClosed) co_return;
  closed_waiters_.emplace_back(loop_);
  Future<void> closed = closed_waiters_.back().future();
  co_await std::move(closed);
}

uint64_t Server::tls_handshake_failures() const {
  return listener_ == nullptr ? 0 : listener_->tls_handshake_failures().value();
}

std::vector<SocketAddress> Server::addresses() const {
  return listener_ == nullptr ? std::vector<SocketAddress>() : listener_->addresses();
}

int64_t Server::held_bytes() const {
  int64_t bytes = 0;
  for (Session& session : const_cast<Server*>(this)->sessions_) bytes += session.held_bytes();
  return bytes;
}

size_t Server::calls_in_flight() const {
  size_t count = 0;
  for (Session& session : const_cast<Server*>(this)->sessions_) count += session.calls_in_flight();
  return count;
}

}  // namespace troupe
