#include "troupe/testing/sim/sim_network.h"

#include <netinet/in.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <cerrno>
#include <limits>

#include "glog/logging.h"
#include "troupe/os/os.h"

namespace troupe::testing {
namespace {

constexpr int kKnocksMax = 7;  // after 1, 2, 4 ... 64 s: Linux gives up a connect after 127 s
// Linux's tcp_retries2 of 15, counted from the first try.
constexpr absl::Duration kRetransmissionTimeout = absl::Milliseconds(924'600);

std::string AbstractName(const SocketAddress& address) {
  return std::string(reinterpret_cast<const char*>(address.get()), address.length());
}

}  // namespace

SocketAddress WithPort(const SocketAddress& address, uint16_t port) {
  return *SocketAddress::FromIp(address.host(), port);
}

SocketAddress Loopback(int family, uint16_t port) {
  return *SocketAddress::FromIp(family == AF_INET ? "127.0.0.1" : "::1", port);
}

SocketAddress Wildcard(int family) { return *SocketAddress::FromIp(family == AF_INET ? "0.0.0.0" : "::", 0); }

SocketAddress UnnamedUnix() {
  sockaddr_un un = {};
  un.sun_family = AF_UNIX;
  return SocketAddress(reinterpret_cast<const sockaddr*>(&un), sizeof(sa_family_t));
}

bool IsWildcard(const SocketAddress& address) { return WithPort(address, 0) == Wildcard(address.family()); }

SocketAddress MappedIf(bool mapped, const SocketAddress& address) {
  if (!mapped) return address;
  return *SocketAddress::FromIp("::ffff:" + address.host(), address.port());
}

struct SimConnection {
  struct Side {
    int host = 0;
    SimSocket* socket = nullptr;  // null: not there yet, or closed
    std::deque<SimNetwork::Packet> inbound;
    MonotonicTime last_arrival;
    bool scheduled = false;  // an arrival is scheduled, or stuck
    bool stuck = false;      // waits for its link
    bool giving_up = false;  // the sender's patience is scheduled to end

    // The oldest packet that its sender repeats until it is acknowledged, or null.
    const SimNetwork::Packet* FirstRepeated() const {
      for (const SimNetwork::Packet& packet : inbound) {
        if (packet.kind == SimNetwork::Packet::kBytes || packet.kind == SimNetwork::Packet::kEnd) return &packet;
      }
      return nullptr;
    }
  };
  Side sides[2];
};

// ---- SimNetwork

int SimNetwork::AddHost() {
  hosts_.emplace_back();
  return static_cast<int>(hosts_.size()) - 1;
}

void SimNetwork::SetIps(int index, const std::vector<SocketAddress>& ips) {
  host(index).ips.clear();
  for (const SocketAddress& ip : ips) host(index).ips.push_back(WithPort(ip, 0));
}

void SimNetwork::RemoveHost(int index) { host(index).removed = true; }

void SimNetwork::SetDown(int index, bool down) {
  host(index).down = down;
  Unstick();
}

void SimNetwork::SetLink(int from, int to, const SimLink& link) {
  links_[{from, to}] = link;
  Unstick();
}

void SimNetwork::SetDefaultLink(const SimLink& link) {
  default_link_ = link;
  Unstick();
}

void SimNetwork::SetLoopbackLink(const SimLink& link) {
  loopback_link_ = link;
  Unstick();
}

const SimLink& SimNetwork::Link(int from, int to) const {
  const auto found = links_.find({from, to});
  if (found != links_.end()) return found->second;
  return from == to ? loopback_link_ : default_link_;
}

std::pair<std::unique_ptr<SimSocket>, std::unique_ptr<SimSocket>> SimNetwork::NewPair(int host) {
  auto first = std::make_unique<SimSocket>(*this, host, AF_UNIX);
  auto second = std::make_unique<SimSocket>(*this, host, AF_UNIX);
  const auto connection = std::make_shared<SimConnection>();
  first->Join(connection, 0);
  second->Join(connection, 1);
  first->peer_ = second->peer_ = UnnamedUnix();
  return {std::move(first), std::move(second)};
}

void SimNetwork::AddFile(int index, const std::string& path, std::string contents) {
  File& file = host(index).files[path];
  if (file.contents == nullptr) file = {.contents = std::make_shared<std::string>()};
  *file.contents = std::move(contents);
}

int SimNetwork::OpenFile(int index, const std::string& path, std::shared_ptr<const std::string>* contents) const {
  const auto found = host(index).files.find(path);
  if (found == host(index).files.end()) return -ENOENT;
  if (found->second.is_socket) return -ENXIO;
  *contents = found->second.contents;
  return 0;
}

bool SimNetwork::IsSocketFile(int index, const std::string& path) const {
  const auto found = host(index).files.find(path);
  return found != host(index).files.end() && found->second.is_socket;
}

int SimNetwork::Unlink(int index, const std::string& path) { return host(index).files.erase(path) > 0 ? 0 : -ENOENT; }

MonotonicTime SimNetwork::ArrivalTime(int from, int to) {
  const SimLink& link = Link(from, to);
  MonotonicTime arrival = clock_.Now() + link.latency;
  if (const int64_t jitter = absl::ToInt64Nanoseconds(link.jitter); jitter > 0) {
    arrival = arrival + absl::Nanoseconds(static_cast<int64_t>(random_.Below(static_cast<uint64_t>(jitter) + 1)));
  }
  return arrival;
}

absl::Duration SimNetwork::StallTime(int from, int to) {
  const SimLink& link = Link(from, to);
  if (!Happens(link.stall_chance)) return absl::ZeroDuration();
  const auto longest = static_cast<uint64_t>(std::max<int64_t>(0, absl::ToInt64Nanoseconds(link.stall_max)));
  return absl::Nanoseconds(static_cast<int64_t>(random_.Below(longest + 1)));
}

bool SimNetwork::Happens(double chance) {
  // Drawn only where it is asked for, so that other worlds replay as they did. 2^53 numbers, as a double has.
  return chance > 0 && static_cast<double>(random_.Next() >> 11) * 0x1p-53 < chance;
}

int SimNetwork::FindHost(int from, const SocketAddress& address) const {
  if (address.is_loopback()) return from;
  const SocketAddress ip = WithPort(address, 0);
  for (size_t i = 0; i < hosts_.size(); ++i) {
    const Host& host = hosts_[i];
    if (!host.removed && std::find(host.ips.begin(), host.ips.end(), ip) != host.ips.end()) return static_cast<int>(i);
  }
  return -1;
}

SimSocket* SimNetwork::FindListener(int index, const SocketAddress& address) {
  // The most specific wins; among equals, which share by SO_REUSEPORT, chance.
  std::vector<SimSocket*> best;
  int best_rank = 0;
  const auto [begin, end] = host(index).ports.equal_range({SOCK_STREAM, address.port()});
  for (auto it = begin; it != end; ++it) {
    SimSocket& socket = static_cast<SimSocket&>(*it->second);
    if (socket.state_ != SimSocket::State::kListening) continue;
    int rank = 0;
    if (socket.local_ == address) {
      rank = 3;
    } else if (IsWildcard(socket.local_)) {
      if (socket.family_ == address.family()) {
        rank = 2;
      } else if (socket.family_ == AF_INET6 && !socket.option(IPPROTO_IPV6, IPV6_V6ONLY)) {
        rank = 1;
      }
    }
    if (rank == 0 || rank < best_rank) continue;
    if (rank > best_rank) best.clear();
    best_rank = rank;
    best.push_back(&socket);
  }
  if (best.size() < 2) return best.empty() ? nullptr : best[0];
  return best[random_.Below(best.size())];
}

uint16_t SimNetwork::AssignPort(Host& host, int type) {
  for (int i = 0; i <= kEphemeralLast - kEphemeralFirst; ++i) {
    const uint16_t port = host.next_port;
    host.next_port = port == kEphemeralLast ? kEphemeralFirst : static_cast<uint16_t>(port + 1);
    if (host.ports.find({type, port}) == host.ports.end()) return port;
  }
  return 0;
}

bool SimNetwork::Conflicts(const Host& host, const SimNamedSocket& socket, const SocketAddress& address) {
  const auto overlap = [](const SimNamedSocket& a, const SocketAddress& a_ip, const SocketAddress& b_ip) {
    if (a_ip.family() == b_ip.family()) return a_ip == b_ip || IsWildcard(a_ip) || IsWildcard(b_ip);
    // [::] takes IPv4 too, unless told otherwise.
    return a_ip.family() == AF_INET6 && IsWildcard(a_ip) && !a.option(IPPROTO_IPV6, IPV6_V6ONLY);
  };
  const auto [begin, end] = host.ports.equal_range({socket.type_, address.port()});
  return std::any_of(begin, end, [&](const auto& entry) {
    const SimNamedSocket& other = *entry.second;
    if (&other == &socket) return false;
    if (!overlap(socket, address, other.local_) && !overlap(other, other.local_, address)) return false;
    if (socket.option(SOL_SOCKET, SO_REUSEPORT) && other.option(SOL_SOCKET, SO_REUSEPORT)) return false;
    return !socket.option(SOL_SOCKET, SO_REUSEADDR) || !other.option(SOL_SOCKET, SO_REUSEADDR) ||
           other.is_listening();
  });
}

void SimNetwork::Transmit(const std::shared_ptr<SimConnection>& connection, int side, Packet packet) {
  SimConnection::Side& to = connection->sides[side];
  const int from = connection->sides[1 - side].host;
  to.last_arrival = std::max(to.last_arrival, ArrivalTime(from, to.host));
  if (packet.kind == Packet::kBytes) {
    to.last_arrival = to.last_arrival + StallTime(from, to.host);
    packet.resets = Happens(Link(from, to.host).reset_chance);
  }
  packet.arrival = to.last_arrival;
  to.inbound.push_back(std::move(packet));
  if (!to.scheduled) ScheduleArrival(connection, side);
  if (to.stuck) GiveUpInTime(connection, side);
}

void SimNetwork::ScheduleArrival(const std::shared_ptr<SimConnection>& connection, int side) {
  SimConnection::Side& to = connection->sides[side];
  to.scheduled = true;
  clock_.At(to.inbound.front().arrival, [this, connection, side] { Arrive(connection, side); });
}

void SimNetwork::Arrive(const std::shared_ptr<SimConnection>& connection, int side) {
  SimConnection::Side& to = connection->sides[side];
  if (Blocked(connection->sides[1 - side].host, to.host)) {
    to.stuck = true;
    stuck_.emplace_back(connection, side);
    return GiveUpInTime(connection, side);
  }
  Packet packet = std::move(to.inbound.front());
  to.inbound.pop_front();
  to.scheduled = false;
  if (!to.inbound.empty()) ScheduleArrival(connection, side);
  if (packet.resets && to.socket != nullptr) {
    to.socket->Reset();
  } else if (to.socket != nullptr) {
    to.socket->Handle(std::move(packet));
  } else if (packet.kind == Packet::kBytes || packet.kind == Packet::kEstablished) {
    Transmit(connection, 1 - side, {.kind = Packet::kReset});
  }
}

void SimNetwork::GiveUpInTime(const std::shared_ptr<SimConnection>& connection, int side) {
  SimConnection::Side& to = connection->sides[side];
  const Packet* const first = to.FirstRepeated();
  if (first == nullptr || std::exchange(to.giving_up, true)) return;
  clock_.At(first->arrival + kRetransmissionTimeout, [this, connection, side] {
    SimConnection::Side& stuck = connection->sides[side];
    stuck.giving_up = false;
    const Packet* const oldest = stuck.FirstRepeated();
    if (!stuck.stuck || oldest == nullptr) return;
    if (oldest->arrival + kRetransmissionTimeout > clock_.Now()) return GiveUpInTime(connection, side);
    stuck.inbound.clear();
    if (SimSocket* const sender = connection->sides[1 - side].socket) sender->BecomeReset(ETIMEDOUT);
  });
}

void SimNetwork::Unstick() {
  // Those whose link is still blocked come back to stuck_ when they try to arrive.
  for (const auto& [weak, side] : std::exchange(stuck_, {})) {
    const std::shared_ptr<SimConnection> connection = weak.lock();
    if (connection == nullptr) continue;
    SimConnection::Side& to = connection->sides[side];
    to.stuck = to.scheduled = false;
    if (!to.inbound.empty()) ScheduleArrival(connection, side);
  }
}

void SimNetwork::Knock(const std::shared_ptr<SimConnection>& connection, const SocketAddress& address, int attempt) {
  SimConnection::Side& client = connection->sides[0];
  if (client.socket == nullptr) return;  // given up
  const int to = FindHost(client.host, address);
  if (to < 0) {
    // The router next door says so.
    connection->sides[1].host = client.host;
    return Transmit(connection, 0, {.kind = Packet::kRefused, .error = EHOSTUNREACH});
  }
  connection->sides[1].host = to;
  if (Blocked(client.host, to) || Blocked(to, client.host)) return KnockAgain(connection, address, attempt);
  clock_.At(ArrivalTime(client.host, to),
            [this, connection, address, attempt] { KnockArrives(connection, address, attempt); });
}

void SimNetwork::KnockArrives(const std::shared_ptr<SimConnection>& connection, const SocketAddress& address,
                              int attempt) {
  SimConnection::Side& client = connection->sides[0];
  SimConnection::Side& server = connection->sides[1];
  if (client.socket == nullptr) return;
  SimSocket* const listener = host(server.host).removed ? nullptr : FindListener(server.host, address);
  if (listener == nullptr) return Transmit(connection, 0, {.kind = Packet::kRefused, .error = ECONNREFUSED});
  if (listener->waiting_.size() > listener->backlog_) return KnockAgain(connection, address, attempt);
  auto accepted = std::make_unique<SimSocket>(*this, server.host, listener->family_);
  const bool mapped = listener->family_ != address.family();
  accepted->options_ = listener->options_;
  accepted->local_ = MappedIf(mapped, address);
  accepted->peer_ = MappedIf(mapped, client.socket->local_);
  accepted->Join(connection, 1);
  listener->waiting_.push_back(std::move(accepted));
  listener->Changed();
  Transmit(connection, 0, {.kind = Packet::kEstablished});
}

void SimNetwork::KnockAgain(const std::shared_ptr<SimConnection>& connection, const SocketAddress& address,
                            int attempt) {
  clock_.After(absl::Seconds(1 << attempt), [this, connection, address, attempt] {
    SimSocket* const client = connection->sides[0].socket;
    if (client == nullptr) return;
    if (attempt + 1 == kKnocksMax) return client->Handle({.kind = Packet::kRefused, .error = ETIMEDOUT});
    Knock(connection, address, attempt + 1);
  });
}

// ---- SimNamedSocket

SimNamedSocket::SimNamedSocket(SimNetwork& network, int host, int family, int type)
    : network_(network), host_(host), family_(family), type_(type) {
  options_[{SOL_SOCKET, SO_SNDBUF}] = static_cast<int>(network.send_buffer_bytes_);
}

bool SimNamedSocket::option(int level, int name) const {
  const auto found = options_.find({level, name});
  return found != options_.end() && found->second != 0;
}

int SimNamedSocket::SetOption(int level, int name, int value) {
  bool known = false;
  switch (level) {
    case SOL_SOCKET:
      known = name == SO_REUSEADDR || name == SO_REUSEPORT || name == SO_KEEPALIVE || name == SO_SNDBUF ||
              name == SO_RCVBUF || name == SO_BROADCAST || name == SO_INCOMING_CPU || name == SO_BUSY_POLL;
      if (name == SO_SNDBUF || name == SO_RCVBUF) value = std::max(value, 1);
      break;
    case IPPROTO_TCP:
      if (family_ == AF_UNIX) return -EOPNOTSUPP;
      if (type_ != SOCK_STREAM) return -ENOPROTOOPT;
      known = name == TCP_NODELAY || name == TCP_KEEPIDLE || name == TCP_KEEPINTVL || name == TCP_KEEPCNT ||
              name == TCP_USER_TIMEOUT || name == TCP_QUICKACK || name == TCP_DEFER_ACCEPT || name == TCP_FASTOPEN ||
              name == TCP_NOTSENT_LOWAT;
      break;
    case IPPROTO_IPV6:
      if (family_ != AF_INET6) return family_ == AF_UNIX ? -EOPNOTSUPP : -ENOPROTOOPT;
      if (name == IPV6_V6ONLY && is_bound()) return -EINVAL;
      known = name == IPV6_V6ONLY;
      break;
    default:
      break;
  }
  if (!known) return -ENOPROTOOPT;
  options_[{level, name}] = value;
  return 0;
}

int SimNamedSocket::GetOption(int level, int name, int* value) const {
  const auto found = options_.find({level, name});
  *value = found == options_.end() ? 0 : found->second;
  return 0;
}

int SimNamedSocket::Bind(const SocketAddress& address) {
  if (is_bound()) return -EINVAL;
  if (address.family() != family_) return family_ == AF_UNIX ? -EINVAL : -EAFNOSUPPORT;
  return family_ == AF_UNIX ? BindUnix(address) : BindIp(address);
}

int SimNamedSocket::BindIp(const SocketAddress& address) {
  const std::vector<SocketAddress>& ips = host().ips;
  if (!IsWildcard(address) && !address.is_loopback() &&
      std::find(ips.begin(), ips.end(), WithPort(address, 0)) == ips.end()) {
    return -EADDRNOTAVAIL;
  }
  if (address.port() == 0) return BindToFreePort(address, EADDRINUSE);
  if (SimNetwork::Conflicts(host(), *this, address)) return -EADDRINUSE;
  local_ = address;
  host().ports.emplace(std::pair(type_, address.port()), this);
  return 0;
}

int SimNamedSocket::BindToFreePort(const SocketAddress& ip, int error) {
  const uint16_t port = network_.AssignPort(host(), type_);
  if (port == 0) return -error;
  local_ = WithPort(ip, port);
  host().ports.emplace(std::pair(type_, port), this);
  return 0;
}

int SimNamedSocket::BindUnix(const SocketAddress& address) {
  if (const std::string path = address.unix_path(); !path.empty()) {
    if (!host().files.emplace(path, SimNetwork::File{.is_socket = true, .socket = this}).second) return -EADDRINUSE;
  } else {
    if (address.length() <= sizeof(sa_family_t)) return -EINVAL;  // the kernel's own choice of a name: not simulated
    if (!host().abstract.emplace(std::pair(type_, AbstractName(address)), this).second) return -EADDRINUSE;
  }
  local_ = address;
  return 0;
}

void SimNamedSocket::Unbind() {
  if (!is_bound()) return;
  if (family_ == AF_UNIX) {
    if (const auto file = host().files.find(local_.unix_path());
        file != host().files.end() && file->second.socket == this) {
      file->second.socket = nullptr;  // the file stays
    }
    if (const auto name = host().abstract.find({type_, AbstractName(local_)});
        name != host().abstract.end() && name->second == this) {
      host().abstract.erase(name);
    }
    return;
  }
  const auto [begin, end] = host().ports.equal_range({type_, local_.port()});
  for (auto it = begin; it != end; ++it) {
    if (it->second != this) continue;
    host().ports.erase(it);
    return;
  }
}

int SimNamedSocket::TakeError() { return std::exchange(error_, 0); }

int SimNamedSocket::LocalAddress(SocketAddress* address) const {
  *address = is_bound() ? local_ : family_ == AF_UNIX ? UnnamedUnix() : Wildcard(family_);
  return 0;
}

int SimNamedSocket::SourceFor(const SocketAddress& address, SocketAddress* source) const {
  *source = Loopback(address.family(), 0);
  if (address.is_loopback()) return 0;
  const std::vector<SocketAddress>& ips = host().ips;
  const auto own =
      std::find_if(ips.begin(), ips.end(), [&](const SocketAddress& ip) { return ip.family() == address.family(); });
  if (own == ips.end()) return -ENETUNREACH;
  *source = *own;
  return 0;
}

int SimNamedSocket::FindUnix(const SocketAddress& address, SimNamedSocket** found) const {
  *found = nullptr;
  if (const std::string path = address.unix_path(); !path.empty()) {
    const auto file = host().files.find(path);
    if (file == host().files.end()) return -ENOENT;
    *found = file->second.socket;
  } else if (const auto name = host().abstract.find({type_, AbstractName(address)}); name != host().abstract.end()) {
    *found = name->second;
  }
  if (*found == nullptr) return -ECONNREFUSED;
  return (*found)->type_ == type_ ? 0 : -EPROTOTYPE;
}

// ---- SimSocket

SimSocket::SimSocket(SimNetwork& network, int host, int family)
    : SimNamedSocket(network, host, family, SOCK_STREAM) {}

SimSocket::~SimSocket() {
  TellClosed();
  Unbind();
  // Whoever was not accepted is reset.
  for (const std::unique_ptr<SimSocket>& socket : waiting_) {
    if (socket->connection_ == nullptr) continue;
    network_.Transmit(socket->connection_, 1 - socket->side_, {.kind = SimNetwork::Packet::kReset});
    socket->BecomeReset(0);
  }
  if (connection_ == nullptr) return;
  connection_->sides[side_].socket = nullptr;
  if (state_ != State::kConnected) return;
  if (received_taken_ < received_.size()) {
    network_.Transmit(connection_, 1 - side_, {.kind = SimNetwork::Packet::kReset});
  } else if (!end_sent_ || family_ == AF_UNIX) {
    // A Unix peer is told twice: of the end, and that nobody is there any more.
    network_.Transmit(connection_, 1 - side_, {.kind = SimNetwork::Packet::kEnd});
  }
}

SimSocket* SimSocket::peer_socket() const {
  return connection_ == nullptr ? nullptr : connection_->sides[1 - side_].socket;
}

int SimSocket::Listen(int backlog) {
  if (state_ != State::kIdle && state_ != State::kListening) return -EINVAL;
  if (!is_bound()) {
    if (family_ == AF_UNIX) return -EINVAL;
    if (const int result = BindToFreePort(Wildcard(family_), EADDRINUSE); result != 0) return result;
  } else if (state_ == State::kIdle && family_ != AF_UNIX && SimNetwork::Conflicts(host(), *this, local_)) {
    return -EADDRINUSE;  // both had SO_REUSEADDR, and the other was first to listen
  }
  state_ = State::kListening;
  backlog_ = static_cast<size_t>(std::max(backlog, 0));
  Changed();
  return 0;
}

std::unique_ptr<SimSocket> SimSocket::Accept(SocketAddress* peer, int* error) {
  *error = state_ == State::kListening ? EAGAIN : EINVAL;
  if (state_ != State::kListening || waiting_.empty()) return nullptr;
  *error = 0;
  std::unique_ptr<SimSocket> accepted = std::move(waiting_.front());
  waiting_.pop_front();
  if (peer != nullptr) *peer = accepted->peer_;
  return accepted;
}

int SimSocket::Connect(const SocketAddress& address) {
  switch (state_) {
    case State::kConnecting:
      return -EALREADY;
    case State::kConnected:
    case State::kReset:
      return -EISCONN;
    case State::kListening:
      return family_ == AF_UNIX ? -EINVAL : -EISCONN;
    case State::kIdle:
      break;
  }
  if (address.family() != family_) return family_ == AF_UNIX ? -EINVAL : -EAFNOSUPPORT;
  return family_ == AF_UNIX ? ConnectUnix(address) : ConnectIp(address);
}

int SimSocket::ConnectIp(SocketAddress address) {
  if (address.port() == 0) return -ECONNREFUSED;
  if (IsWildcard(address)) address = Loopback(family_, address.port());
  SocketAddress source;
  if (const int result = SourceFor(address, &source); result != 0) return result;
  if (!is_bound()) {
    if (const int result = BindToFreePort(source, EADDRNOTAVAIL); result != 0) return result;
  } else if (IsWildcard(local_)) {
    local_ = WithPort(source, local_.port());
  }
  peer_ = address;
  error_ = 0;
  const auto connection = std::make_shared<SimConnection>();
  Join(connection, 0);
  state_ = State::kConnecting;
  network_.Knock(connection, address, 0);
  Changed();
  return -EINPROGRESS;
}

int SimSocket::ConnectUnix(const SocketAddress& address) {
  SimNamedSocket* found = nullptr;
  if (const int result = FindUnix(address, &found); result != 0) return result;
  auto* const listener = static_cast<SimSocket*>(found);
  if (listener->state_ != State::kListening) return -ECONNREFUSED;
  if (listener->waiting_.size() > listener->backlog_) return -EAGAIN;
  const auto connection = std::make_shared<SimConnection>();
  auto accepted = std::make_unique<SimSocket>(network_, host_, AF_UNIX);
  peer_ = listener->local_;
  accepted->peer_ = is_bound() ? local_ : UnnamedUnix();
  Join(connection, 0);
  accepted->Join(connection, 1);
  // Not bound itself: the name stays the listener's.
  accepted->local_ = listener->local_;
  listener->waiting_.push_back(std::move(accepted));
  listener->Changed();
  Changed();
  return 0;
}

void SimSocket::Join(std::shared_ptr<SimConnection> connection, int side) {
  connection_ = std::move(connection);
  side_ = side;
  connection_->sides[side].host = host_;
  connection_->sides[side].socket = this;
  state_ = State::kConnected;
}

int SimSocket::PeerAddress(SocketAddress* address) const {
  if (!is_connected()) return -ENOTCONN;
  *address = peer_;
  return 0;
}

int SimSocket::ShutdownWrite() {
  if (!is_connected()) return -ENOTCONN;
  if (std::exchange(end_sent_, true)) return 0;
  network_.Transmit(connection_, 1 - side_, {.kind = SimNetwork::Packet::kEnd});
  Changed();
  return 0;
}

int64_t SimSocket::Recv(absl::Span<char> bytes, size_t bytes_max) {
  bytes = bytes.subspan(0, bytes_max);
  if (state_ == State::kListening) return family_ == AF_UNIX ? -EINVAL : -ENOTCONN;
  if (const size_t ready = received_.size() - received_taken_; ready > 0) {
    const size_t n = std::min(bytes.size(), ready);
    std::copy_n(received_.data() + received_taken_, n, bytes.data());
    received_taken_ += n;
    if (received_taken_ == received_.size()) {
      received_.clear();
      received_taken_ = 0;
    } else if (received_taken_ > received_.size() / 2) {
      received_.erase(0, std::exchange(received_taken_, 0));
    }
    if (connection_ != nullptr && n > 0) {
      network_.Transmit(connection_, 1 - side_, {.kind = SimNetwork::Packet::kAcknowledge, .acknowledged = n});
    }
    return static_cast<int64_t>(n);
  }
  if (end_received_) return 0;
  if (error_ != 0) return -TakeError();
  switch (state_) {
    case State::kReset:
      return 0;
    case State::kConnecting:
    case State::kConnected:
      return bytes.empty() ? 0 : -EAGAIN;
    default:
      return family_ == AF_UNIX ? -EINVAL : -ENOTCONN;
  }
}

int64_t SimSocket::Send(absl::Span<const iovec> bytes, size_t bytes_max) {
  if (error_ != 0) return -TakeError();
  if (state_ == State::kConnecting) return -EAGAIN;
  if (state_ == State::kIdle && family_ == AF_UNIX) return -ENOTCONN;
  if (!is_connected() || end_sent_) return -EPIPE;
  if (family_ == AF_UNIX && peer_socket() == nullptr) return -EPIPE;
  const size_t capacity = static_cast<size_t>(options_[{SOL_SOCKET, SO_SNDBUF}]);
  size_t room = std::min(bytes_max, capacity > unacknowledged_ ? capacity - unacknowledged_ : 0);
  std::string data;
  size_t offered = 0;
  for (const iovec& part : bytes) {
    offered += part.iov_len;
    const size_t n = std::min(room, part.iov_len);
    data.append(static_cast<const char*>(part.iov_base), n);
    room -= n;
  }
  if (offered == 0) return 0;
  if (data.empty()) return -EAGAIN;
  const size_t n = data.size();
  unacknowledged_ += n;
  network_.Transmit(connection_, 1 - side_, {.kind = SimNetwork::Packet::kBytes, .bytes = std::move(data)});
  return static_cast<int64_t>(n);
}

void SimSocket::Vanish() {
  for (const std::unique_ptr<SimSocket>& socket : waiting_) socket->Vanish();
  if (connection_ == nullptr) return;
  connection_->sides[side_].socket = nullptr;
  connection_ = nullptr;
  state_ = State::kReset;
}

void SimSocket::HangUp() {
  if (!is_connected()) return;
  received_.clear();
  received_taken_ = 0;
  if (SimSocket* const peer = peer_socket()) peer->LosePeer();
  LosePeer();
}

void SimSocket::LosePeer() {
  const auto nobody = std::make_shared<SimConnection>();
  nobody->sides[1 - side_].host = connection_->sides[1 - side_].host;
  connection_->sides[side_].socket = nullptr;
  Join(nobody, side_);
  unacknowledged_ = 0;
  end_received_ = true;
  Changed();
}

void SimSocket::Reset() {
  if (!is_connected()) return;
  if (SimSocket* const peer = peer_socket()) peer->BecomeReset(ECONNRESET);
  BecomeReset(ECONNRESET);
}

void SimSocket::Handle(SimNetwork::Packet packet) {
  using Packet = SimNetwork::Packet;
  switch (packet.kind) {
    case Packet::kBytes:
      received_ += packet.bytes;
      break;
    case Packet::kEnd:
      end_received_ = true;
      break;
    case Packet::kReset:
      return BecomeReset(end_received_ ? EPIPE : ECONNRESET);
    case Packet::kAcknowledge:
      unacknowledged_ -= std::min(unacknowledged_, packet.acknowledged);
      break;
    case Packet::kEstablished:
      state_ = State::kConnected;
      break;
    case Packet::kRefused:
      connection_->sides[side_].socket = nullptr;
      connection_ = nullptr;
      state_ = State::kIdle;
      error_ = packet.error;
      break;
  }
  Changed();
}

void SimSocket::BecomeReset(int error) {
  connection_->sides[side_].socket = nullptr;
  connection_ = nullptr;
  state_ = State::kReset;
  error_ = error;
  Changed();
}

uint32_t SimSocket::Readiness() const {
  if (error_ != 0) return kHangUp;
  switch (state_) {
    case State::kIdle:
    case State::kReset:
      return kHangUp;
    case State::kConnecting:
      return 0;
    case State::kListening:
      return waiting_.empty() ? 0 : uint32_t{kReadable};
    case State::kConnected:
      break;
  }
  if (end_received_ && (end_sent_ || (family_ == AF_UNIX && peer_socket() == nullptr))) return kHangUp;
  uint32_t ready = 0;
  if (received_taken_ < received_.size() || end_received_) ready |= kReadable;
  const size_t capacity = static_cast<size_t>(options_.at({SOL_SOCKET, SO_SNDBUF}));
  if (end_sent_ || unacknowledged_ < capacity) ready |= kWritable;
  return ready;
}

}  // namespace troupe::testing
