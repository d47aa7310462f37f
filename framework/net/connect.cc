#include "troupe/net/connect.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <coroutine>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "troupe/async/internal/root.h"
#include "troupe/base/errors.h"
#include "troupe/base/os_error.h"
#include "troupe/base/status_macros.h"
#include "troupe/loop/fd_watcher.h"
#include "troupe/loop/timer_heap.h"
#include "troupe/net/internal/byte_transport.h"
#include "troupe/net/internal/tls_settings.h"
#include "troupe/net/internal/tls_state.h"
#include "troupe/net/internal/tls_transport.h"
#include "troupe/net/resolve.h"
#include "troupe/net/stream_transport.h"
#include "troupe/os/os.h"

namespace troupe::internal {
namespace {

// Connects to the first of some addresses that answers. The next one is tried when the last one has failed or, with a
// `delay`, has not answered for so long (C-CON-10), as asyncio's staggered_race. Once decided only the winner's socket is
// open.
class ConnectRace final : public Leaf, private Timer {
 public:
  // What is referred to outlives it.
  ConnectRace(EventLoop& loop, const std::vector<SocketAddress>& addresses, const std::vector<SocketAddress>& locals,
              absl::Duration delay)
      : loop_(loop), addresses_(addresses), locals_(locals), delay_(delay), attempts_(addresses.size()) {}
  ~ConnectRace() {
    Stop();
    if (winner_ >= 0) loop_.os().Close(winner_);
  }

  bool await_ready() {
    TryNext();
    return decided();
  }
  void await_suspend(std::coroutine_handle<>) { Suspend(); }
  void await_resume() { Resumed(); }
  std::string DescribeWait() const override {
    std::string text = "connect to";
    for (size_t i = 0; i < attempts_.size(); ++i) {
      if (attempts_[i] != nullptr) absl::StrAppend(&text, " ", addresses_[i].ToString());
    }
    return text;
  }

  // The winner's socket, the caller's from now on; -1 if there is none.
  int Take() { return std::exchange(winner_, -1); }
  // Why each address that was tried failed, in their order. REQUIRES: nobody won.
  const std::vector<absl::Status>& errors() const { return errors_; }

 private:
  // A socket that is connecting. Closes it.
  class Attempt final : public FdWatcher {
   public:
    Attempt(ConnectRace& race, size_t index, int fd) : FdWatcher(race.loop_, fd), race_(race), index_(index) {}
    ~Attempt() override {
      Release();
      if (!taken_) watcher_loop_.os().Close(fd());
    }
    int Take() {
      taken_ = true;
      return fd();
    }

   private:
    void OnReadable() override {}
    void OnWritable() override { race_.OnOutcome(index_, watcher_loop_.os().SocketError(fd())); }
    std::string DescribeWatcher() const override {
      return absl::StrCat("<connect to ", race_.addresses_[index_].ToString(), ">");
    }

    ConnectRace& race_;
    const size_t index_;
    bool taken_ = false;
  };

  bool decided() const { return winner_ >= 0 || (under_way_ == 0 && next_ == addresses_.size()); }

  // Tries addresses from the next one on until one is under way.
  void TryNext() {
    loop_.Cancel(*this);
    while (!decided() && next_ < addresses_.size()) {
      const size_t index = next_++;
      errors_.push_back(Begin(index));
      if (winner_ >= 0) return Stop();
      if (attempts_[index] == nullptr) continue;
      if (next_ < addresses_.size() && delay_ != absl::InfiniteDuration()) loop_.ScheduleAt(*this, loop_.Time() + delay_);
      return;
    }
  }
  // OK: it is under way, or has won already.
  absl::Status Begin(size_t index) {
    Os& os = loop_.os();
    const SocketAddress& address = addresses_[index];
    const std::string where = absl::StrCat("connect ", address.ToString());
    const auto fits = [&](const SocketAddress& local) { return local.family() == address.family(); };
    if (!locals_.empty() && std::none_of(locals_.begin(), locals_.end(), fits)) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, ": the local address ", locals_.front().ToString(), " is of another family"));
    }
    const int fd = os.Socket(address.family(), SOCK_STREAM);
    if (fd < 0) return OsError(fd, where);
    auto attempt = std::make_unique<Attempt>(*this, index, fd);
    absl::Status bound;
    for (const SocketAddress& local : locals_) {
      if (!fits(local)) continue;
      const int result = os.Bind(fd, local);
      bound = result == 0 ? absl::OkStatus() : OsError(result, absl::StrCat(where, " from ", local.ToString()));
      if (bound.ok()) break;
    }
    RETURN_IF_ERROR(bound);
    int error = -os.Connect(fd, address);
    if (error == 0) {
      winner_ = attempt->Take();
      return absl::OkStatus();
    }
    if (error == EINPROGRESS) error = -attempt->Watch(kWritable);
    if (error != 0) return OsError(error, where);
    attempts_[index] = std::move(attempt);
    ++under_way_;
    return absl::OkStatus();
  }
  // An attempt has come to its end: 0, or a positive errno.
  void OnOutcome(size_t index, int error) {
    std::unique_ptr<Attempt> attempt = std::move(attempts_[index]);
    --under_way_;
    if (error == 0) {
      winner_ = attempt->Take();
      Stop();
    } else {
      errors_[index] = OsError(error, absl::StrCat("connect ", addresses_[index].ToString()));
      attempt.reset();
      // An earlier one's failure hurries nobody: the last one has its time.
      if (index + 1 == next_) TryNext();
    }
    if (decided() && suspended()) Wake();
  }
  // Closes what is under way.
  void Stop() {
    loop_.Cancel(*this);
    for (std::unique_ptr<Attempt>& attempt : attempts_) attempt.reset();
    under_way_ = 0;
  }

  // The last one has had its time.
  void Run() override {
    TryNext();
    if (decided() && suspended()) Wake();
  }
  std::string Describe() const override { return DescribeWait(); }
  void CancelWait() override {
    Stop();
    WakeCancelled();
  }

  EventLoop& loop_;
  const std::vector<SocketAddress>& addresses_;
  const std::vector<SocketAddress>& locals_;  // none: wherever the system likes
  const absl::Duration delay_;
  std::vector<std::unique_ptr<Attempt>> attempts_;  // by address; null unless under way
  std::vector<absl::Status> errors_;                // by address, of those that were tried
  size_t next_ = 0;                                 // the address to try
  size_t under_way_ = 0;
  int winner_ = -1;
};

// So many of the first family, from which on the families take turns; each keeps its order.
std::vector<SocketAddress> Interleaved(const std::vector<SocketAddress>& addresses, size_t first_count) {
  std::vector<std::vector<SocketAddress>> families;
  for (const SocketAddress& address : addresses) {
    const auto family = std::find_if(families.begin(), families.end(), [&](const std::vector<SocketAddress>& known) {
      return known.front().family() == address.family();
    });
    if (family == families.end()) {
      families.push_back({address});
    } else {
      family->push_back(address);
    }
  }
  std::vector<SocketAddress> ordered;
  for (size_t row = 0; ordered.size() < addresses.size(); ++row) {
    for (size_t f = 0; f < families.size(); ++f) {
      const std::vector<SocketAddress>& family = families[f];
      // The first family is ahead of the others by what came before they began.
      const size_t begin = f == 0 && row > 0 ? row + first_count - 1 : row;
      const size_t end = f == 0 ? row + first_count : row + 1;
      for (size_t i = begin; i < end && i < family.size(); ++i) ordered.push_back(family[i]);
    }
  }
  return ordered;
}

// What becomes of a connected socket. `host`: what is connected to, "" if that is no host. The rules of C-CON-01.
absl::StatusOr<TlsSettings> ParseSecurity(const ConnectOptions& options, const std::string& host) {
  if (options.tls != nullptr && options.tls->is_server()) {
    return absl::InvalidArgumentError("to connect takes a TlsContext for clients");
  }
  ASSIGN_OR_RETURN(TlsSettings settings,
                   TlsSettings::Make(options.tls, options.server_hostname, options.tls_handshake_timeout,
                                     options.tls_shutdown_timeout));
  RETURN_IF_ERROR(settings.SetAlpn(options.tls_alpn));
  if (settings.server_hostname.empty()) settings.server_hostname = host;
  if (settings.secure() && settings.server_hostname.empty() && settings.state->verifies_host_name()) {
    return absl::InvalidArgumentError("You must set server_hostname when using TLS without a host");
  }
  return settings;
}

// Where an end is: some addresses, or something to resolve.
struct End {
  ResolveQuery query;  // where `addresses` say nothing
  std::vector<SocketAddress> addresses;
};

struct Target : End {
  std::optional<End> local;
  absl::Duration delay = absl::InfiniteDuration();
  size_t interleave = 0;
  TlsSettings security;
};

absl::StatusOr<std::optional<End>> ParseLocal(const ConnectOptions& options) {
  const bool both = !options.local.empty() && options.local_address.has_value();
  if (both) return absl::InvalidArgumentError("local and local_address exclude each other");
  if (options.local.empty() && !options.local_address.has_value()) return std::nullopt;
  if (options.socket >= 0) {
    return absl::InvalidArgumentError("local and local_address are only meaningful without a socket");
  }
  End local;
  if (options.local_address.has_value()) {
    local.addresses.push_back(*options.local_address);
    return local;
  }
  ASSIGN_OR_RETURN(HostPort where, SplitHostPort(options.local));
  local.query.host = std::move(where.host);
  local.query.service = std::move(where.port);
  local.query.family = options.family;
  local.query.passive = true;
  return local;
}

absl::StatusOr<Target> ParseTarget(const ConnectOptions& options) {
  Target target;
  target.query.family = options.family;
  target.addresses.assign(options.addresses.begin(), options.addresses.end());
  if (options.address.has_value()) target.addresses.push_back(*options.address);
  ASSIGN_OR_RETURN(target.local, ParseLocal(options));
  target.delay = options.happy_eyeballs_delay.value_or(absl::InfiniteDuration());
  if (target.delay < absl::ZeroDuration()) {
    return absl::InvalidArgumentError(
        absl::StrCat("happy_eyeballs_delay must not be negative, got ", absl::FormatDuration(target.delay)));
  }
  if (options.interleave < -1) {
    return absl::InvalidArgumentError(absl::StrCat("interleave must be at least -1, got ", options.interleave));
  }
  if (options.interleave > 0 || (options.interleave == -1 && options.happy_eyeballs_delay.has_value())) {
    target.interleave = static_cast<size_t>(std::max(1, options.interleave));
  }
  const bool host = !options.host.empty() || !options.port.empty();
  const int given = (options.target.empty() ? 0 : 1) + (host ? 1 : 0) + (options.address.has_value() ? 1 : 0) +
                    (options.addresses.empty() ? 0 : 1) +
                    (options.socket >= 0 ? 1 : 0);
  if (given != 1) {
    return absl::InvalidArgumentError(given == 0 ? "none of target, host and port, address, and socket were specified"
                                                 : "target, host and port, address, and socket exclude each other");
  }
  if (absl::StartsWith(options.target, "unix:") || absl::StartsWith(options.target, "unix-abstract:")) {
    ASSIGN_OR_RETURN(const SocketAddress address, SocketAddress::Parse(options.target));
    target.addresses.push_back(address);
  } else if (!options.target.empty()) {
    ASSIGN_OR_RETURN(HostPort where, SplitHostPort(options.target));
    target.query.host = std::move(where.host);
    target.query.service = std::move(where.port);
  } else {
    target.query.host = std::string(options.host);
    target.query.service = std::string(options.port);
  }
  if (target.addresses.empty() && options.socket < 0 && target.query.service.empty()) {
    return absl::InvalidArgumentError("a port to connect to was not specified");
  }
  ASSIGN_OR_RETURN(target.security, ParseSecurity(options, target.query.host));
  return target;
}

absl::Status Combine(const std::vector<absl::Status>& errors) {
  for (const absl::Status& error : errors) {
    if (error.message() == errors.front().message()) continue;
    const auto text = [](std::string* out, const absl::Status& status) {
      absl::StrAppend(out, absl::string_view(status.message()));
    };
    return absl::Status(errors.front().code(),
                        absl::StrCat("Multiple exceptions: ", absl::StrJoin(errors, ", ", text)));
  }
  return errors.front();
}

// Takes `fd`, a connected socket, over.
Task<absl::StatusOr<Connected<>>> MakeConnected(EventLoop& loop, ProtocolFactory factory, int fd,
                                                const TlsSettings& security) {
  absl::Cleanup close = [&loop, fd] { loop.os().Close(fd); };
  std::unique_ptr<BaseProtocol> protocol = factory();
  if (protocol == nullptr) throw InvalidState("the protocol factory returned null");
  std::move(close).Cancel();
  ByteTransport* transport = nullptr;
  if (!security.secure()) {
    transport = new StreamTransport(loop, fd, std::move(protocol));
    transport->Start();
  } else {
    transport = TlsTransport::OverSocket(loop, fd, nullptr, std::move(protocol), security);
  }
  Connected<> made{TransportPtr(transport), &transport->protocol()};
  absl::Cleanup abort = [transport] { transport->Abort(); };
  co_await transport->Made();
  // ConnectionMade threw, or there was none: the handshake has failed.
  if (!transport->lost_reason().ok()) co_return transport->lost_reason();
  std::move(abort).Cancel();
  co_return made;
}

// Takes `fd`, which came from elsewhere, over.
Task<absl::StatusOr<Connected<>>> ConnectGiven(EventLoop& loop, ProtocolFactory factory, int fd,
                                               absl::StatusOr<TlsSettings> parsed) {
  CO_ASSIGN_OR_RETURN(const TlsSettings security, std::move(parsed));
  CO_RETURN_IF_ERROR(AdoptStreamSocket(loop.os(), fd));
  co_return co_await MakeConnected(loop, std::move(factory), fd, security);
}

Task<absl::StatusOr<std::vector<SocketAddress>>> AddressesOf(EventLoop& loop, const End& end) {
  if (!end.addresses.empty()) co_return end.addresses;
  co_return co_await GetAddrInfo(loop, end.query);
}

Task<absl::StatusOr<Connected<>>> ConnectTo(EventLoop& loop, ProtocolFactory factory, absl::StatusOr<Target> parsed) {
  CO_ASSIGN_OR_RETURN(const Target target, std::move(parsed));
  CO_ASSIGN_OR_RETURN(std::vector<SocketAddress> addresses, co_await AddressesOf(loop, target));
  if (target.interleave > 0) addresses = Interleaved(addresses, target.interleave);
  std::vector<SocketAddress> locals;
  if (target.local.has_value()) {
    CO_ASSIGN_OR_RETURN(locals, co_await AddressesOf(loop, *target.local));
  }
  ConnectRace race(loop, addresses, locals, target.delay);
  co_await race;
  const int fd = race.Take();
  if (fd >= 0) {
    co_return co_await MakeConnected(loop, std::move(factory), fd, target.security);
  }
  co_return Combine(race.errors());
}

}  // namespace

Task<absl::StatusOr<Connected<>>> Connect(EventLoop& loop, ProtocolFactory factory, const ConnectOptions& options) {
  absl::StatusOr<Target> target = ParseTarget(options);
  if (target.ok() && options.socket >= 0) {
    return ConnectGiven(loop, std::move(factory), options.socket, std::move(target->security));
  }
  return ConnectTo(loop, std::move(factory), std::move(target));
}

Task<absl::StatusOr<Connected<>>> ConnectAccepted(EventLoop& loop, ProtocolFactory factory, int fd,
                                                  const AcceptedSocketOptions& options) {
  absl::StatusOr<TlsSettings> security =
      TlsSettings::Make(options.tls, "", options.tls_handshake_timeout, options.tls_shutdown_timeout);
  if (options.tls != nullptr && !options.tls->is_server()) {
    security = absl::InvalidArgumentError("an accepted connection takes a TlsContext for servers");
  }
  return ConnectGiven(loop, std::move(factory), fd, std::move(security));
}

}  // namespace troupe::internal
