#include "troupe/service/channel.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "troupe/async/task.h"
#include "troupe/net/connect.h"
#include "troupe/net/transport.h"
#include "troupe/rpc/internal/client_call.h"
#include "troupe/service/internal/target.h"

namespace troupe {
namespace {

// The host and port of a parsed target, as a URL names them; a Unix socket has none.
std::string AuthorityOf(const std::string& address) {
  return absl::StartsWith(address, "unix") ? "localhost" : address;
}

}  // namespace

Channel::Channel(EventLoop& loop, std::string target, ChannelOptions options)
    : loop_(loop),
      target_(std::move(target)),
      options_(std::move(options)),
      memory_(loop, options_.memory_bytes_max, counters_.memory) {
  absl::StatusOr<std::string> address = internal::ParseTarget(target_, internal::TargetUse::kConnect);
  if (address.ok()) {
    address_ = *std::move(address);
  } else {
    bad_target_ = address.status();
  }
  session_options_.limits = options_.limits;
  session_options_.wire = absl::StartsWith(target_, "troupe+") ? Wire::kNative : options_.wire;
  session_options_.tls = options_.tls.has_value();
  session_options_.authority = options_.authority.empty() ? AuthorityOf(address_) : options_.authority;
  session_options_.memory = &memory_;
}

// One connection and the attempt to make it.
struct Channel::Link {
  // What the attempt and the channel share: the attempt may outlive the link by the iteration in which it is cancelled.
  struct Attempt {
    Link* link;  // null: nobody wants the connection any more
  };

  Link(Channel& owner, EventLoop& loop)
      : channel(owner), session(loop, Session::Role::kClient, owner.session_options_, nullptr, owner.counters_) {
    session.set_on_ended([this](Session&) { channel.OnLinkEnded(*this); });
    attempt->link = this;
    connecting = loop.CreateTask(Connect(loop, owner.address_, attempt), "connect");
    timeout = loop.CallLater(owner.options_.connect_timeout, [this] {
      connecting.Cancel();
      Failed("no answer in time");
    });
  }
  ~Link() {
    Ended();
    attempt->link = nullptr;
    timeout.Cancel();
    connecting.Cancel();
  }

  void Failed(absl::string_view why) {
    const absl::Status failed = absl::UnavailableError(absl::StrCat("cannot connect to ", channel.target_, ": ", why));
    TellConnected(failed);
    session.Fail(failed);
  }
  void TellConnected(const absl::Status& made) {
    if (connected != nullptr && !connected->done()) connected->SetValue(made);
  }
  // The session of a user has lost it.
  void Ended() {
    TellConnected(absl::UnavailableError("the connection ended before it was made"));
    if (pinned != nullptr) std::exchange(pinned, nullptr)->link_ = nullptr;
  }
  static Task<void> Connect(EventLoop& loop, std::string address, std::shared_ptr<Attempt> attempt);

  Channel& channel;
  TransportPtr transport;  // outlives the session, which uses it
  Session session;
  std::shared_ptr<Attempt> attempt = std::make_shared<Attempt>();
  TaskHandle<void> connecting;
  TimerHandle timeout;
  Pinned* pinned = nullptr;                          // whose connection it is; null: the channel's
  std::unique_ptr<Promise<absl::Status>> connected;  // null unless it is pinned
};

// RFC 8305, section 8.
constexpr absl::Duration kHappyEyeballsDelay = absl::Milliseconds(250);

Task<void> Channel::Link::Connect(EventLoop& loop, std::string address, std::shared_ptr<Attempt> attempt) {
  ConnectOptions options;
  options.target = address;
  options.happy_eyeballs_delay = kHappyEyeballsDelay;
  if (attempt->link == nullptr) co_return;  // cancelled before it began
  const ChannelOptions& wanted = attempt->link->channel.options_;
  const std::vector<std::string> alpn = {attempt->link->channel.session_options_.wire == Wire::kGrpc ? "h2"
                                                                                                     : "troupe/1"};
  if (wanted.tls.has_value()) {
    options.tls = &*wanted.tls;
    options.tls_alpn = alpn;
  }
  options.server_hostname = wanted.server_hostname;
  auto factory = [attempt]() -> std::unique_ptr<BaseProtocol> {
    // Never called for a link that is gone: the attempt was cancelled with it.
    return attempt->link->session.MakeProtocol();
  };
  auto connecting = CreateConnection(loop, factory, options);
  auto made = co_await std::move(connecting);
  Link* const link = attempt->link;
  if (link == nullptr) co_return;
  link->timeout.Cancel();
  if (!made.ok()) {
    link->Failed(made.status().message());
    co_return;
  }
  ++link->channel.connections_made_;
  link->transport = std::move(made->transport);
  link->TellConnected(absl::OkStatus());
}

Channel::Pinned::Pinned(Channel& channel) : loop_(channel.loop_) {
  channel.retired_.push_back(std::make_unique<Link>(channel, channel.loop_));
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

Channel::~Channel() {
  Close();
  link_.reset();
  retired_.clear();
}

void Channel::Close() {
  if (std::exchange(closed_, true)) return;
  const absl::Status why = absl::UnavailableError("the channel is closed");
  if (link_ != nullptr) link_->session.CloseAs(absl::OkStatus(), why);
  for (auto& link : retired_) link->session.CloseAs(absl::OkStatus(), why);
}

Connection* Channel::connection() { return link_ == nullptr ? nullptr : &link_->session; }

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
  return UsableLink().session.StartMovableCall(method, options, message, this);
}

Session* Channel::Destination() { return closed_ ? nullptr : &UsableLink().session; }

Channel::Link& Channel::UsableLink() {
  if (link_ != nullptr && (link_->session.draining() || link_->session.lost())) {
    retired_.push_back(std::move(link_));
    // It may have ended in this iteration, before its owner heard of it.
  }
  if (link_ == nullptr) link_ = std::make_unique<Link>(*this, loop_);
  return *link_;
}

void Channel::OnLinkEnded(Link& link) {
  link.Ended();
  if (link_.get() == &link) return loop_.DeleteLater(std::move(link_));
  const auto found =
      std::find_if(retired_.begin(), retired_.end(), [&](const auto& retired) { return retired.get() == &link; });
  if (found == retired_.end()) return;
  loop_.DeleteLater(std::move(*found));
  retired_.erase(found);
}

}  // namespace troupe
