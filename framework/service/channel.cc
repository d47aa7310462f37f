#include "troupe/service/channel.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "troupe/async/task.h"
#include "troupe/async/wait_for.h"
#include "troupe/net/connect.h"
#include "troupe/net/resolve.h"
#include "troupe/net/transport.h"
#include "troupe/rpc/internal/client_call.h"
#include "troupe/service/internal/session_call.h"
#include "troupe/service/internal/target.h"

namespace troupe {
namespace {

// RFC 8305, section 8.
constexpr absl::Duration kHappyEyeballsDelay = absl::Milliseconds(250);
// Between two questions for the addresses of a name, as gRPC's dns_min_time_between_resolutions.
constexpr absl::Duration kResolveAgain = absl::Seconds(30);
// So many connections in a row that spoke and answered no call are followed by the next one at once.
constexpr int kFruitlessMax = 3;

// The host and port of a parsed target, as a URL names them; a Unix socket has none.
std::string AuthorityOf(const std::string& address) {
  return absl::StartsWith(address, "unix") ? "localhost" : address;
}

// The session in which calls wait has no wire.
SessionOptions LobbyOptions(const ChannelOptions& options, MemoryGuard& memory) {
  SessionOptions lobby;
  lobby.limits = options.limits;
  lobby.compression = options.compression;
  lobby.wire_by_alpn = true;
  lobby.memory = &memory;
  return lobby;
}

// What the interceptor that adds call credentials knows of its channel.
struct Credentials {
  CallCredentials source;
  std::string url;  // "https://host:port"
  bool may_be_sent;
};

// A54: what a source of credentials may not pretend that the service has said.
absl::Status RestrictedStatus(const absl::Status& failed) {
  const std::string what = absl::StrCat("call credentials: ", failed.message());
  switch (failed.code()) {
    case absl::StatusCode::kUnknown:
      return absl::UnauthenticatedError(what);
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kDataLoss:
      return absl::InternalError(what);
    default:
      return absl::Status(failed.code(), what);
  }
}

Task<absl::Status> AddCredentials(std::shared_ptr<const Credentials> credentials, ClientInterception& rpc, Next next) {
  if (!credentials->may_be_sent) {
    co_return absl::UnauthenticatedError("call credentials are not sent in clear text: the channel needs TLS");
  }
  // "/kv.v1.KeyValue/Get"
  const absl::string_view path = rpc.method().path;
  const size_t slash = path.rfind('/');
  CallCredentialsRequest request;
  request.service_url = absl::StrCat(credentials->url, path.substr(0, slash));
  request.method = std::string(path.substr(slash + 1));
  Task<absl::StatusOr<Metadata>> asking = credentials->source(request);
  const absl::StatusOr<Metadata> more = co_await std::move(asking);
  if (!more.ok()) co_return RestrictedStatus(more.status());
  for (const Metadata::Entry& entry : more->entries()) rpc.metadata().Add(entry.key, entry.value);
  const absl::Status status = co_await next();
  co_return status;
}

bool IsLoopback(const std::string& host) {
  return host == "::1" || (absl::StartsWith(host, "127.") && SocketAddress::FromIp(host, 0).ok());
}

ClientInterceptor CredentialsOf(const ChannelOptions& options, const std::string& authority, bool local) {
  auto credentials = std::make_shared<Credentials>();
  credentials->source = options.credentials;
  credentials->url = absl::StrCat(options.tls.has_value() ? "https://" : "http://", authority);
  credentials->may_be_sent = options.tls.has_value() || options.credentials_in_clear_text || local;
  return [credentials = std::shared_ptr<const Credentials>(std::move(credentials))](ClientInterception& rpc, Next next) {
    return AddCredentials(credentials, rpc, next);
  };
}

}  // namespace

Channel::Channel(EventLoop& loop, std::string target, ChannelOptions options)
    : loop_(loop),
      target_(std::move(target)),
      options_(std::move(options)),
      memory_(loop, options_.memory_bytes_max, counters_.memory),
      resolve_backoff_(options_.backoff_initial, options_.backoff_max),
      lobby_(loop, Session::Role::kClient, LobbyOptions(options_, memory_), nullptr, counters_) {
  absl::StatusOr<std::string> address = internal::ParseTarget(target_, internal::TargetUse::kConnect);
  if (address.ok()) {
    address_ = *std::move(address);
    if (!absl::StartsWith(address_, "unix")) {
      HostPort parts = *SplitHostPort(address_);
      host_ = std::move(parts.host);
      port_ = std::move(parts.port);
    }
    listed_ = internal::ListedAddresses(target_);
  } else {
    bad_target_ = address.status();
  }
  session_options_.limits = options_.limits;
  session_options_.wire = options_.wire.value_or(Wire::kGrpc);
  if (absl::StartsWith(target_, "troupe+")) {
    session_options_.wire = Wire::kNative;
  } else {
    session_options_.wire_by_alpn = options_.tls.has_value() && !options_.wire.has_value();
  }
  session_options_.tls = options_.tls.has_value();
  session_options_.compression = options_.compression;
  session_options_.authority = options_.authority.empty() ? AuthorityOf(address_) : options_.authority;
  session_options_.memory = &memory_;
  std::vector<ClientInterceptor> interceptors = options_.interceptors;
  if (options_.credentials != nullptr) {
    const bool local = host_.empty() || (IsLoopback(host_) && std::all_of(listed_.begin(), listed_.end(), [](const auto& each) {
                                           return each.is_loopback();
                                         }));
    interceptors.push_back(CredentialsOf(options_, session_options_.authority, local));
  }
  if (!interceptors.empty()) {
    interceptors_ = std::make_shared<const std::vector<ClientInterceptor>>(std::move(interceptors));
  }
}

// One connection and the attempt to make it.
struct Channel::Link {
  // What the attempt and the channel share: the attempt may outlive the link by the iteration in which it is cancelled.
  struct Attempt {
    Link* link;  // null: nobody wants the connection any more
  };

  // To one of `addresses`, or, when there are none, to the channel's target.
  Link(Channel& owner, EventLoop& loop, std::vector<SocketAddress> addresses, absl::Duration patience)
      : channel(owner), session(loop, Session::Role::kClient, owner.session_options_, nullptr, owner.counters_) {
    session.set_on_ended([this](Session&) { channel.OnLinkEnded(*this); });
    attempt->link = this;
    connecting = loop.CreateTask(Connect(loop, owner.address_, std::move(addresses), attempt), "connect");
    timeout = loop.CallLater(patience, [this] { OnTimeout(); });
  }
  ~Link() {
    Ended();
    attempt->link = nullptr;
    timeout.Cancel();
    connecting.Cancel();
  }

  void OnTimeout() {
    if (transport == nullptr) {
      connecting.Cancel();
      Failed("no answer in time");
    } else if (!session.heard()) {
      session.Abort(absl::UnavailableError("the server says nothing"));
    }
  }
  void Failed(absl::string_view why) {
    const absl::Status failed = absl::UnavailableError(absl::StrCat("cannot connect to ", channel.target_, ": ", why));
    TellConnected(failed);
    if (subchannel != nullptr) channel.OnNotConnected(*this, failed);
    session.Fail(failed);
  }
  // Nobody waits for it any more.
  void GiveUp() {
    connecting.Cancel();
    session.Fail(absl::UnavailableError("the address is not used any more"));
  }
  void TellConnected(const absl::Status& made) {
    if (connected != nullptr && !connected->done()) connected->SetValue(made);
  }
  // The session of a user has lost it.
  void Ended() {
    TellConnected(absl::UnavailableError("the connection ended before it was made"));
    if (pinned != nullptr) std::exchange(pinned, nullptr)->link_ = nullptr;
  }
  static Task<void> Connect(EventLoop& loop, std::string target, std::vector<SocketAddress> addresses,
                            std::shared_ptr<Attempt> attempt);

  Channel& channel;
  TransportPtr transport;  // outlives the session, which uses it
  Session session;
  std::shared_ptr<Attempt> attempt = std::make_shared<Attempt>();
  TaskHandle<void> connecting;
  TimerHandle timeout;
  Subchannel* subchannel = nullptr;                  // whose connection it is, while it takes calls or may come to that
  Pinned* pinned = nullptr;                          // whose it is instead
  std::unique_ptr<Promise<absl::Status>> connected;  // null unless it is pinned
};

// Addresses of which one is connected to at a time.
//
// Life: idle -> connecting -> ready -> idle; connecting -> backing off -> connecting | idle
struct Channel::Subchannel {
  enum class State : uint8_t { kIdle, kConnecting, kReady, kBackoff };

  Subchannel(std::vector<SocketAddress> addresses, const ChannelOptions& options)
      : addresses(std::move(addresses)), backoff(options.backoff_initial, options.backoff_max) {}
  bool takes_calls() const {
    return state == State::kReady && !link->session.draining() && !link->session.lost();
  }

  std::vector<SocketAddress> addresses;
  State state = State::kIdle;
  std::unique_ptr<Link> link;  // connecting, ready
  internal::Backoff backoff;
  MonotonicTime began_at;    // the last attempt
  MonotonicTime not_before;  // the next one
  absl::Status failure;      // of the last one, while it backs off; OK: calls wait nevertheless
  int fruitless = 0;         // connections in a row that answered no call
};

Task<void> Channel::Link::Connect(EventLoop& loop, std::string target, std::vector<SocketAddress> addresses,
                                  std::shared_ptr<Attempt> attempt) {
  ConnectOptions options;
  options.happy_eyeballs_delay = kHappyEyeballsDelay;
  if (attempt->link == nullptr) co_return;  // cancelled before it began
  const ChannelOptions& wanted = attempt->link->channel.options_;
  const SessionOptions& session = attempt->link->channel.session_options_;
  std::vector<std::string> alpn;
  if (session.wire_by_alpn || session.wire == Wire::kNative) alpn.push_back(AlpnOf(Wire::kNative));
  if (session.wire_by_alpn || session.wire == Wire::kGrpc) alpn.push_back(AlpnOf(Wire::kGrpc));
  if (wanted.tls.has_value()) {
    options.tls = &*wanted.tls;
    options.tls_alpn = alpn;
  }
  options.server_hostname = wanted.server_hostname;
  if (addresses.empty()) {
    options.target = target;
  } else {
    options.addresses = addresses;
    if (wanted.tls.has_value() && wanted.server_hostname.empty()) {
      options.server_hostname = attempt->link->channel.host_;
    }
  }
  auto factory = [attempt]() -> std::unique_ptr<BaseProtocol> {
    // Never called for a link that is gone: the attempt was cancelled with it.
    return attempt->link->session.MakeProtocol();
  };
  auto connecting = CreateConnection(loop, factory, options);
  auto made = co_await std::move(connecting);
  Link* const link = attempt->link;
  if (link == nullptr) co_return;
  if (!made.ok()) {
    link->timeout.Cancel();
    const absl::Status refused = link->session.why_ended();  // that we found the server wanting goes first
    link->Failed(refused.ok() ? made.status().message() : refused.message());
    co_return;
  }
  link->transport = std::move(made->transport);
  link->TellConnected(absl::OkStatus());
  link->channel.OnConnected(*link);
}

// ---------------------------------------------------------------------------------------------------- sessions

Channel::Pinned::Pinned(Channel& channel) : loop_(channel.loop_), interceptors_(channel.interceptors_) {
  channel.retired_.push_back(std::make_unique<Link>(channel, channel.loop_, channel.listed_,
                                                    channel.options_.connect_timeout));
  link_ = channel.retired_.back().get();
  link_->pinned = this;
  link_->connected = std::make_unique<Promise<absl::Status>>(loop_);
}

Channel::Pinned::~Pinned() {
  if (link_ == nullptr) return;
  link_->pinned = nullptr;
  Close();
}

void Channel::Pinned::Close() {
  if (link_ != nullptr) link_->session.CloseAs(absl::OkStatus(), absl::UnavailableError("the session is closed"));
}

Connection* Channel::Pinned::connection() { return link_ == nullptr ? nullptr : &link_->session; }

internal::ClientCallRef Channel::Pinned::StartCall(const MethodInfo& method, const CallOptions& options,
                                                   const google::protobuf::MessageLite* message) {
  if (link_ != nullptr && interceptors_ != nullptr) {
    return internal::SessionClientCall::StartIntercepted(link_->session, method, options, message, nullptr, interceptors_);
  }
  if (link_ != nullptr) return link_->session.StartCall(method, options, message);
  return internal::FailedCall(loop_, method, absl::UnavailableError("the session was lost: open another one"));
}

Task<absl::StatusOr<std::unique_ptr<Channel::Pinned>>> Channel::OpenPinned() {
  if (closed_) co_return absl::UnavailableError("the channel is closed");
  if (!bad_target_.ok()) co_return bad_target_;
  auto pinned = std::make_unique<Pinned>(*this);
  Future<absl::Status> connected = pinned->link_->connected->future();
  // From here on the channel may be gone.
  absl::Status made = co_await std::move(connected);
  if (!made.ok()) co_return made;
  co_return pinned;
}

// ---------------------------------------------------------------------------------------------------- calls

internal::ClientCallRef Channel::StartCall(const MethodInfo& method, const CallOptions& options,
                                           const google::protobuf::MessageLite* message) {
  if (closed_) return internal::FailedCall(loop_, method, absl::UnavailableError("the channel is closed"));
  if (!bad_target_.ok()) return internal::FailedCall(loop_, method, bad_target_);
  if (method.ordered()) {
    return internal::FailedCall(
        loop_, method,
        absl::FailedPreconditionError(absl::StrCat(method.path,
                                                   " has a place in the order of a session: make the stub "
                                                   "by co_await channel.OpenSession")));
  }
  interest_ = true;
  if (interceptors_ != nullptr) {
    return internal::SessionClientCall::StartIntercepted(lobby_, method, options, message, this, interceptors_);
  }
  if (Session* ready = Pick(); ready != nullptr) return ready->StartMovableCall(method, options, message, this);
  Want();
  if (state_ == ConnectivityState::kTransientFailure && !options.wait_for_ready) {
    return internal::FailedCall(loop_, method, Failure());
  }
  return lobby_.StartMovableCall(method, options, message, this);
}

Session* Channel::Destination(const internal::SessionClientCall& call) {
  if (closed_) return nullptr;
  interest_ = true;
  if (Session* ready = Pick(); ready != nullptr) return ready;
  Want();
  if (state_ == ConnectivityState::kTransientFailure && !call.waits_for_ready()) return nullptr;
  return &lobby_;
}

absl::Status Channel::WhyNone() const {
  return closed_ ? absl::UnavailableError("the channel is closed") : Failure();
}

Session* Channel::Pick() {
  bool lost = false, idle = false;
  Session* picked = nullptr;
  for (size_t i = 0; i < subchannels_.size() && picked == nullptr; ++i) {
    next_pick_ = next_pick_ + 1 < subchannels_.size() ? next_pick_ + 1 : 0;
    Subchannel& subchannel = *subchannels_[next_pick_];
    if (subchannel.takes_calls()) {
      picked = &subchannel.link->session;
    } else if (subchannel.state == Subchannel::State::kReady) {
      Retire(subchannel);
      lost = true;
    }
    idle |= subchannel.state == Subchannel::State::kIdle;
  }
  // Others of several have nothing to do with this call, and will be there for the next.
  if (picked != nullptr && idle) Want();
  if (lost) UpdateState();
  return picked;
}

Connection* Channel::connection() {
  for (const auto& subchannel : subchannels_) {
    if (subchannel->takes_calls()) return &subchannel->link->session;
  }
  return nullptr;
}

// ---------------------------------------------------------------------------------------------------- the life

Channel::~Channel() {
  Close();
  anchor_->channel = nullptr;
  if (resolving_) resolution_.Cancel();
  subchannels_.clear();
  retired_.clear();
}

void Channel::Close() {
  if (std::exchange(closed_, true)) return;
  const absl::Status why = absl::UnavailableError("the channel is closed");
  lobby_.CloseAs(absl::OkStatus(), why);
  for (const auto& subchannel : subchannels_) {
    if (subchannel->link != nullptr) subchannel->link->session.CloseAs(absl::OkStatus(), why);
  }
  for (const auto& link : retired_) link->session.CloseAs(absl::OkStatus(), why);
  UpdateState();
}

void Channel::Connect() {
  if (closed_ || !bad_target_.ok()) return;
  interest_ = true;
  Want();
}

Task<ConnectivityState> Channel::WaitForStateChange(ConnectivityState known) {
  if (state_ != known) co_return state_;
  const auto cancelled = [](const Promise<ConnectivityState>& waiter) { return waiter.cancelled(); };
  state_waiters_.erase(std::remove_if(state_waiters_.begin(), state_waiters_.end(), cancelled), state_waiters_.end());
  state_waiters_.emplace_back(loop_);
  Future<ConnectivityState> changed = state_waiters_.back().future();
  // From here on the channel may be gone.
  const ConnectivityState state = co_await std::move(changed);
  co_return state;
}

void Channel::Want() {
  if (closed_) return;
  MaybeResolve();
  const MonotonicTime now = loop_.Time();
  for (const auto& subchannel : subchannels_) {
    if (subchannel->state == Subchannel::State::kReady && !subchannel->takes_calls()) Retire(*subchannel);
    const bool waited = subchannel->state == Subchannel::State::kBackoff && subchannel->not_before <= now;
    if (waited || subchannel->state == Subchannel::State::kIdle) ConnectTo(*subchannel);
  }
  UpdateState();
}

void Channel::ConnectTo(Subchannel& subchannel) {
  interest_ = false;
  subchannel.state = Subchannel::State::kConnecting;
  subchannel.began_at = loop_.Time();
  subchannel.failure = absl::OkStatus();
  const absl::Duration patience = std::max(options_.connect_timeout, subchannel.backoff.current());
  subchannel.link = std::make_unique<Link>(*this, loop_, subchannel.addresses, patience);
  subchannel.link->subchannel = &subchannel;
}

void Channel::OnConnected(Link& link) {
  ++connections_made_;
  if (link.subchannel == nullptr) return;
  Subchannel& subchannel = *link.subchannel;
  subchannel.state = Subchannel::State::kReady;
  if (!subchannel.takes_calls()) Retire(subchannel);
  UpdateState();
}

void Channel::OnNotConnected(Link& link, const absl::Status& why) {
  Subchannel& subchannel = *std::exchange(link.subchannel, nullptr);
  retired_.push_back(std::move(subchannel.link));
  BackOff(subchannel, why);
  UpdateState();
}

void Channel::OnLinkEnded(Link& link) {
  link.Ended();
  if (link.subchannel != nullptr) Retire(*link.subchannel);
  const auto found =
      std::find_if(retired_.begin(), retired_.end(), [&](const auto& retired) { return retired.get() == &link; });
  if (found != retired_.end()) {
    loop_.DeleteLater(std::move(*found));
    retired_.erase(found);
  }
  UpdateState();
}

void Channel::Retire(Subchannel& subchannel) {
  const Session& session = subchannel.link->session;
  const bool heard = session.heard(), answered = session.answered();
  const absl::Status why = session.why_ended();
  // A server that finds us importunate is asked half as often from now on (gRPC's keepalive, A8).
  if (absl::IsResourceExhausted(why) && (absl::StrContains(why.message(), "too_many_pings") ||
                                         absl::StrContains(why.message(), "too many pings"))) {
    session_options_.limits.keepalive_time *= 2;
  }
  subchannel.link->subchannel = nullptr;
  retired_.push_back(std::move(subchannel.link));
  subchannel.state = Subchannel::State::kIdle;
  resolve_wanted_ = true;
  if (!heard) {
    return BackOff(subchannel, absl::UnavailableError(absl::StrCat("cannot connect to ", target_, ": ",
                                                                   why.ok() ? "the server hung up" : why.message())));
  }
  if (answered) {
    subchannel.backoff.Reset();
    subchannel.fruitless = 0;
  } else if (++subchannel.fruitless > kFruitlessMax) {
    BackOff(subchannel, absl::OkStatus());
  }
}

void Channel::LetGo(Subchannel& subchannel) {
  if (subchannel.link == nullptr) return;
  Link& link = *subchannel.link;
  link.subchannel = nullptr;
  retired_.push_back(std::move(subchannel.link));
  if (subchannel.state == Subchannel::State::kConnecting) return link.GiveUp();
  link.session.HandOver([this] { return &lobby_; });
  link.session.Drain();
}

void Channel::BackOff(Subchannel& subchannel, const absl::Status& why) {
  subchannel.state = Subchannel::State::kBackoff;
  subchannel.failure = why;
  subchannel.not_before = subchannel.began_at + subchannel.backoff.Next(Random());
  resolve_wanted_ = true;
}

double Channel::Random() {
  uint32_t bits = 0;
  loop_.os().FillRandom(absl::MakeSpan(reinterpret_cast<char*>(&bits), sizeof(bits)));
  return bits / 4294967296.0;
}

// ---------------------------------------------------------------------------------------------------- addresses

void Channel::MaybeResolve() {
  if (resolving_ || !resolve_wanted_) return;
  const MonotonicTime now = loop_.Time();
  if (now < resolve_not_before_) return;
  if (host_.empty() || !listed_.empty()) {
    resolve_wanted_ = false;
    return UseAddresses(listed_.empty() ? std::vector<SocketAddress>{*SocketAddress::Parse(address_)} : listed_);
  }
  interest_ = false;
  resolving_ = true;
  resolve_began_at_ = now;
  resolve_failure_ = absl::OkStatus();
  resolution_ = loop_.CreateTask(Resolve(loop_, host_, port_, options_.connect_timeout, anchor_), "resolve");
}

Task<void> Channel::Resolve(EventLoop& loop, std::string host, std::string port, absl::Duration timeout,
                            std::shared_ptr<Anchor> anchor) {
  ResolveQuery query;
  query.host = std::move(host);
  query.service = std::move(port);
  auto asking = GetAddrInfo(loop, query);
  auto in_time = WaitFor(std::move(asking), timeout);
  absl::StatusOr<std::vector<SocketAddress>> addresses = co_await std::move(in_time);
  if (anchor->channel != nullptr) anchor->channel->OnResolved(std::move(addresses));
}

void Channel::OnResolved(absl::StatusOr<std::vector<SocketAddress>> addresses) {
  resolving_ = false;
  if (closed_) return;
  const MonotonicTime now = loop_.Time();
  // Who asked for the first addresses wants a connection, whether or not a call waits for it.
  const bool go_on = (subchannels_.empty() && addresses.ok()) || interest_ || lobby_.calls_waiting() > 0;
  if (addresses.ok()) {
    resolve_wanted_ = false;
    resolve_backoff_.Reset();
    resolve_not_before_ = now + kResolveAgain;
    UseAddresses(*addresses);
  } else if (!subchannels_.empty()) {
    resolve_not_before_ = now + kResolveAgain;  // those that are known may do
  } else {
    resolve_failure_ = absl::UnavailableError(
        absl::StrCat("cannot connect to ", target_, ": ", addresses.status().message()));
    resolve_not_before_ = resolve_began_at_ + resolve_backoff_.Next(Random());
  }
  if (go_on) return Want();
  UpdateState();
}

void Channel::UseAddresses(const std::vector<SocketAddress>& addresses) {
  std::vector<std::vector<SocketAddress>> groups;
  if (options_.balancing == Balancing::kPickFirst) {
    groups.push_back(addresses);
  } else {
    for (const SocketAddress& address : addresses) {
      const std::vector<SocketAddress> alone = {address};
      if (std::find(groups.begin(), groups.end(), alone) == groups.end()) groups.push_back(alone);
    }
  }
  std::vector<std::unique_ptr<Subchannel>> before = std::exchange(subchannels_, {});
  for (const std::vector<SocketAddress>& group : groups) {
    const auto stays = [&](const std::unique_ptr<Subchannel>& known) {
      if (known == nullptr) return false;
      // A connection to an address that is still there is as good as ever.
      const auto peer = [&] { return known->link->session.peer(); };
      return known->addresses == group ||
             (known->takes_calls() && std::find(group.begin(), group.end(), peer()) != group.end());
    };
    const auto known = std::find_if(before.begin(), before.end(), stays);
    if (known == before.end()) {
      subchannels_.push_back(std::make_unique<Subchannel>(group, options_));
    } else {
      (*known)->addresses = group;
      subchannels_.push_back(std::move(*known));
    }
  }
  for (const std::unique_ptr<Subchannel>& known : before) {
    if (known != nullptr) LetGo(*known);
  }
}

// ---------------------------------------------------------------------------------------------------- state

ConnectivityState Channel::StateNow() const {
  if (closed_) return ConnectivityState::kShutdown;
  if (subchannels_.empty()) {
    if (resolving_) return ConnectivityState::kConnecting;
    return resolve_failure_.ok() ? ConnectivityState::kIdle : ConnectivityState::kTransientFailure;
  }
  bool connecting = false, idle = false;
  for (const auto& subchannel : subchannels_) {
    switch (subchannel->state) {
      case Subchannel::State::kReady:
        if (subchannel->takes_calls()) return ConnectivityState::kReady;
        idle = true;
        break;
      case Subchannel::State::kConnecting:
        connecting = true;
        break;
      case Subchannel::State::kIdle:
        idle = true;
        break;
      case Subchannel::State::kBackoff:
        connecting |= subchannel->failure.ok();
        break;
    }
  }
  // While the name is asked for, those that cannot be reached are not all there is.
  if (connecting || (resolving_ && !idle)) return ConnectivityState::kConnecting;
  return idle ? ConnectivityState::kIdle : ConnectivityState::kTransientFailure;
}

absl::Status Channel::Failure() const {
  for (const auto& subchannel : subchannels_) {
    if (!subchannel->failure.ok()) return subchannel->failure;
  }
  return resolve_failure_.ok() ? absl::UnavailableError(absl::StrCat("cannot connect to ", target_)) : resolve_failure_;
}

void Channel::UpdateState() {
  if (updating_) return;
  updating_ = true;
  ConnectivityState now = StateNow();
  while (true) {
    if (now == ConnectivityState::kReady) lobby_.HandOver([this] { return Pick(); });
    if (now == ConnectivityState::kTransientFailure) lobby_.EndWaitingForConnection(Failure());
    if (now != state_) {
      state_ = now;
      for (const auto& waiter : std::exchange(state_waiters_, {})) waiter.SetValueUnlessCancelled(state_);
    }
    const ConnectivityState then = StateNow();
    if (then == now) break;
    now = then;
  }
  updating_ = false;
  // Calls that came back from a connection.
  if (state_ == ConnectivityState::kIdle && lobby_.calls_waiting() > 0) return Want();
  ScheduleRetry();
}

void Channel::ScheduleRetry() {
  MonotonicTime next = MonotonicTime::InfiniteFuture();
  for (const auto& subchannel : subchannels_) {
    if (subchannel->state == Subchannel::State::kBackoff) next = std::min(next, subchannel->not_before);
  }
  if (subchannels_.empty() && !resolve_failure_.ok()) next = resolve_not_before_;
  if (closed_) next = MonotonicTime::InfiniteFuture();
  if (next == retry_at_) return;
  retry_timer_.Cancel();
  retry_at_ = next;
  if (!next.is_infinite()) retry_timer_ = loop_.CallAt(next, [this] { OnRetryTimer(); });
}

void Channel::OnRetryTimer() {
  retry_at_ = MonotonicTime::InfiniteFuture();
  if (interest_ || lobby_.calls_waiting() > 0 || !state_waiters_.empty()) return Want();
  // Nobody calls: the next one begins again.
  const MonotonicTime now = loop_.Time();
  for (const auto& subchannel : subchannels_) {
    if (subchannel->state == Subchannel::State::kBackoff && subchannel->not_before <= now) {
      subchannel->state = Subchannel::State::kIdle;
      subchannel->failure = absl::OkStatus();
    }
  }
  if (resolve_not_before_ <= now) resolve_failure_ = absl::OkStatus();
  UpdateState();
}

}  // namespace troupe
