#include "troupe/testing/sim/sim_datagram.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/match.h"
#include "troupe/base/monotonic_time.h"
#include "troupe/os/os.h"
#include "troupe/testing/sim/sim_clock.h"

namespace troupe::testing {
namespace {

constexpr size_t kBytesMax4 = 65535 - 20 - 8;  // less the headers of IP, which IPv6 does not count, and UDP
constexpr size_t kBytesMax6 = 65535 - 8;
constexpr size_t kUnixUnreadMax = 10;                   // net.unix.max_dgram_qlen
constexpr int kReceiveBufferBytes = 208 << 10;          // net.core.rmem_default
constexpr size_t kCost = 512;                           // of a datagram in a receive buffer, beside its bytes

// The IPv4 address that an IPv6 socket shows as `address`; others as they are.
SocketAddress Unmapped(const SocketAddress& address) {
  const std::string host = address.host();
  constexpr absl::string_view kPrefix = "::ffff:";
  if (address.family() != AF_INET6 || !absl::StartsWith(host, kPrefix)) return address;
  const absl::StatusOr<SocketAddress> ip = SocketAddress::FromIp(host.substr(kPrefix.size()), address.port());
  return ip.ok() ? *ip : address;
}

bool IsBroadcast(const SocketAddress& address) {
  const std::string host = address.host();
  return host == "255.255.255.255" || host == "127.255.255.255";
}

// The same datagrams, the same number: which of several receivers a flow belongs to.
size_t FlowHash(const SocketAddress& from, const SocketAddress& to) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const std::string& text : {from.ToString(), to.ToString()}) {
    for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  }
  return static_cast<size_t>(hash >> 32);
}

}  // namespace

SimDatagramSocket::SimDatagramSocket(SimNetwork& network, int host, int family)
    : SimNamedSocket(network, host, family, SOCK_DGRAM) {
  options_[{SOL_SOCKET, SO_RCVBUF}] = kReceiveBufferBytes;
}

SimDatagramSocket::~SimDatagramSocket() {
  TellClosed();
  *self_ = nullptr;
  Unbind();
  // Those who waited for room here find that there is nobody.
  for (const Datagram& datagram : unread_) {
    if (const Handle sender = datagram.sender.lock(); sender != nullptr && *sender != nullptr) (*sender)->Changed();
  }
}

std::pair<std::unique_ptr<SimDatagramSocket>, std::unique_ptr<SimDatagramSocket>> SimDatagramSocket::NewPair(
    SimNetwork& network, int host) {
  auto first = std::make_unique<SimDatagramSocket>(network, host, AF_UNIX);
  auto second = std::make_unique<SimDatagramSocket>(network, host, AF_UNIX);
  first->unix_peer_ = second->self_;
  second->unix_peer_ = first->self_;
  first->peer_ = second->peer_ = UnnamedUnix();
  return {std::move(first), std::move(second)};
}

// ---- connecting

int SimDatagramSocket::Connect(const SocketAddress& address) {
  if (family_ == AF_UNIX) return address.family() == AF_UNIX ? ConnectUnix(address) : -EINVAL;
  if (!address.is_ip() || (family_ == AF_INET && address.family() == AF_INET6)) return -EAFNOSUPPORT;
  return ConnectIp(address);
}

int SimDatagramSocket::ConnectUnix(const SocketAddress& address) {
  SimNamedSocket* found = nullptr;
  if (const int error = FindUnix(address, &found); error != 0) return error;
  auto* const peer = static_cast<SimDatagramSocket*>(found);
  if (peer->is_connected() && peer->unix_peer() != this) return -EPERM;
  unix_peer_ = peer->self_;
  peer_ = address;
  Changed();
  return 0;
}

int SimDatagramSocket::ConnectIp(const SocketAddress& address) {
  SocketAddress to = Unmapped(address);
  if (IsWildcard(to)) to = Loopback(to.family(), to.port());
  if (IsBroadcast(to) && !option(SOL_SOCKET, SO_BROADCAST)) return -EACCES;
  SocketAddress source;
  if (const int error = SourceFor(to, &source); error != 0) return error;
  source = MappedIf(to.family() != family_, source);
  if (!is_bound()) {
    if (const int error = BindToFreePort(source, EAGAIN); error != 0) return error;
  } else if (IsWildcard(local_)) {
    local_ = WithPort(source, local_.port());
  }
  peer_ = MappedIf(to.family() != family_, to);
  return 0;
}

int SimDatagramSocket::PeerAddress(SocketAddress* address) const {
  if (!is_connected()) return -ENOTCONN;
  *address = peer_;
  return 0;
}

int SimDatagramSocket::ShutdownWrite() {
  if (!is_connected()) return -ENOTCONN;
  shut_down_ = true;
  return 0;
}

// ---- sending

int64_t SimDatagramSocket::SendTo(absl::Span<const char> bytes, const SocketAddress* to) {
  if (error_ != 0) return -TakeError();
  if (shut_down_) return -EPIPE;
  if (family_ == AF_UNIX) return SendUnix(bytes, to);
  if (to == nullptr) return is_connected() ? SendIp(bytes, peer_) : -EDESTADDRREQ;
  if (!to->is_ip() || (family_ == AF_INET && to->family() == AF_INET6)) return -EAFNOSUPPORT;
  return SendIp(bytes, *to);
}

int64_t SimDatagramSocket::Send(absl::Span<const iovec> bytes, size_t /*bytes_max*/) {
  std::string datagram;
  for (const iovec& part : bytes) datagram.append(static_cast<const char*>(part.iov_base), part.iov_len);
  return SendTo(datagram, nullptr);
}

int64_t SimDatagramSocket::SendUnix(absl::Span<const char> bytes, const SocketAddress* to) {
  if (bytes.size() > static_cast<size_t>(options_.at({SOL_SOCKET, SO_SNDBUF}))) return -EMSGSIZE;
  SimDatagramSocket* receiver = nullptr;
  if (to != nullptr) {
    if (to->family() != AF_UNIX) return -EINVAL;
    SimNamedSocket* found = nullptr;
    if (const int error = FindUnix(*to, &found); error != 0) return error;
    receiver = static_cast<SimDatagramSocket*>(found);
  } else {
    if (unix_peer_ == nullptr) return -ENOTCONN;
    receiver = unix_peer();
    if (receiver == nullptr) {
      unix_peer_ = nullptr;
      peer_ = SocketAddress();
      return -ECONNREFUSED;
    }
  }
  if (receiver->is_connected() && receiver->unix_peer() != this) return -EPERM;
  if (receiver->is_full_for(*this)) return -EAGAIN;
  receiver->Receive({local_, std::string(bytes.data(), bytes.size()), self_});
  return static_cast<int64_t>(bytes.size());
}

int64_t SimDatagramSocket::SendIp(absl::Span<const char> bytes, SocketAddress to) {
  to = Unmapped(to);
  if (to.port() == 0) return -EINVAL;
  if (to.family() != family_ && option(IPPROTO_IPV6, IPV6_V6ONLY)) return -ENETUNREACH;
  if (bytes.size() > (to.family() == AF_INET ? kBytesMax4 : kBytesMax6)) return -EMSGSIZE;
  if (IsWildcard(to)) to = Loopback(to.family(), to.port());
  const bool broadcast = IsBroadcast(to);
  if (broadcast && !option(SOL_SOCKET, SO_BROADCAST)) return -EACCES;
  SocketAddress source;
  if (const int error = SourceFor(to, &source); error != 0) return error;
  if (!is_bound()) {
    if (const int error = BindToFreePort(Wildcard(family_), EAGAIN); error != 0) return error;
  }
  const SocketAddress local = Unmapped(local_);
  if (!IsWildcard(local)) {
    if (local.family() != to.family()) return -ENETUNREACH;
    if (local.is_loopback() && !to.is_loopback()) return -EINVAL;
    source = local;
  }
  if (under_way_ >= static_cast<size_t>(options_.at({SOL_SOCKET, SO_SNDBUF}))) return -EAGAIN;
  Flight flight = {.from_host = host_,
                   .to_host = host_,
                   .from = WithPort(source, local_.port()),
                   .to = to,
                   .bytes = std::string(bytes.data(), bytes.size()),
                   .broadcast = broadcast};
  // The last one to arrive, or to be lost, gives the room back.
  const std::shared_ptr<void> room(nullptr, [sender = std::weak_ptr(self_), n = bytes.size()](void*) {
    const Handle handle = sender.lock();
    if (handle == nullptr || *handle == nullptr) return;
    (*handle)->under_way_ -= n;
    (*handle)->Changed();
  });
  under_way_ += bytes.size();
  const auto launch = [&](int to_host) {
    flight.to_host = to_host;
    const SimLink& link = network_.Link(host_, to_host);
    const int copies = network_.Happens(link.duplicate_chance) ? 2 : 1;
    for (int i = 0; i < copies; ++i) {
      if (network_.Blocked(host_, to_host) || network_.Happens(link.loss_chance)) continue;
      const MonotonicTime arrival = network_.ArrivalTime(host_, to_host) + network_.StallTime(host_, to_host);
      network_.clock_.At(arrival, [&network = network_, flight, room] { Arrive(network, flight); });
    }
  };
  if (broadcast && !to.is_loopback()) {
    for (size_t i = 0; i < network_.hosts_.size(); ++i) {
      if (!network_.hosts_[i].removed) launch(static_cast<int>(i));
    }
    return static_cast<int64_t>(bytes.size());
  }
  const int to_host = network_.FindHost(host_, to);
  if (to_host >= 0) {
    launch(to_host);
  } else {
    // The router next door says so.
    network_.clock_.At(network_.ArrivalTime(host_, host_),
                       [&network = network_, flight, room] { TellSender(network, flight, EHOSTUNREACH); });
  }
  return static_cast<int64_t>(bytes.size());
}

// ---- arriving

void SimDatagramSocket::Arrive(SimNetwork& network, const Flight& flight) {
  if (network.host(flight.to_host).removed || network.Blocked(flight.from_host, flight.to_host)) return;
  const std::vector<SimDatagramSocket*> receivers = Receivers(network, flight);
  for (SimDatagramSocket* const receiver : receivers) {
    receiver->Receive({MappedIf(receiver->family_ != flight.from.family(), flight.from), flight.bytes, {}});
  }
  if (!receivers.empty() || flight.broadcast || network.Blocked(flight.to_host, flight.from_host)) return;
  network.clock_.At(network.ArrivalTime(flight.to_host, flight.from_host),
                    [&network, flight] { TellSender(network, flight, ECONNREFUSED); });
}

std::vector<SimDatagramSocket*> SimDatagramSocket::Receivers(SimNetwork& network, const Flight& flight) {
  std::vector<SimDatagramSocket*> best;
  int best_rank = 1;
  const auto [begin, end] = network.host(flight.to_host).ports.equal_range({SOCK_DGRAM, flight.to.port()});
  for (auto it = begin; it != end; ++it) {
    auto& socket = static_cast<SimDatagramSocket&>(*it->second);
    const SocketAddress local = Unmapped(socket.local_);
    int rank = 0;
    if (IsWildcard(local)) {
      rank = local.family() == flight.to.family() ? 2 : 0;
      if (local.family() == AF_INET6 && rank == 0 && !socket.option(IPPROTO_IPV6, IPV6_V6ONLY)) rank = 1;
    } else if (local == flight.to) {
      rank = 3;
    }
    if (rank == 0) continue;
    if (socket.is_connected()) rank = Unmapped(socket.peer_) == flight.from ? rank + 3 : 0;
    if (rank == 0) continue;
    if (flight.broadcast) {
      best.push_back(&socket);
      continue;
    }
    if (rank < best_rank) continue;
    if (rank > best_rank) best.clear();
    best_rank = rank;
    best.push_back(&socket);
  }
  if (flight.broadcast || best.size() < 2) return best;
  // Those that share by SO_REUSEPORT share the flows; by SO_REUSEADDR alone the last one has them all.
  const bool shared = best.back()->option(SOL_SOCKET, SO_REUSEPORT);
  return {shared ? best[FlowHash(flight.from, flight.to) % best.size()] : best.back()};
}

void SimDatagramSocket::TellSender(SimNetwork& network, const Flight& flight, int error) {
  const auto [begin, end] = network.host(flight.from_host).ports.equal_range({SOCK_DGRAM, flight.from.port()});
  for (auto it = begin; it != end; ++it) {
    auto& socket = static_cast<SimDatagramSocket&>(*it->second);
    if (!socket.is_connected() || Unmapped(socket.peer_) != flight.to) continue;
    socket.error_ = error;
    socket.Changed();
  }
}

void SimDatagramSocket::Receive(Datagram datagram) {
  const auto buffer = static_cast<size_t>(options_.at({SOL_SOCKET, SO_RCVBUF}));
  if (family_ != AF_UNIX && unread_bytes_ > 0 && unread_bytes_ + datagram.bytes.size() + kCost > buffer) return;
  unread_bytes_ += datagram.bytes.size() + kCost;
  unread_.push_back(std::move(datagram));
  Changed();
}

bool SimDatagramSocket::is_full_for(const SimDatagramSocket& sender) const {
  // Its peer is held back by its own send buffer instead.
  if (unix_peer() != &sender) return unread_.size() > kUnixUnreadMax;
  return unread_bytes_ >= static_cast<size_t>(sender.options_.at({SOL_SOCKET, SO_SNDBUF}));
}

int64_t SimDatagramSocket::ReceiveFrom(absl::Span<char> bytes, SocketAddress* from) {
  if (error_ != 0) return -TakeError();
  if (unread_.empty()) return -EAGAIN;
  const Datagram datagram = std::move(unread_.front());
  unread_.pop_front();
  unread_bytes_ -= datagram.bytes.size() + kCost;
  std::copy_n(datagram.bytes.data(), std::min(bytes.size(), datagram.bytes.size()), bytes.data());
  *from = datagram.from;
  if (const Handle sender = datagram.sender.lock(); sender != nullptr && *sender != nullptr) (*sender)->Changed();
  return static_cast<int64_t>(datagram.bytes.size());
}

int64_t SimDatagramSocket::Recv(absl::Span<char> bytes, size_t /*bytes_max*/) {
  SocketAddress from;
  const int64_t received = ReceiveFrom(bytes, &from);
  return std::min(received, static_cast<int64_t>(bytes.size()));
}

uint32_t SimDatagramSocket::Readiness() const {
  if (error_ != 0) return kHangUp;
  uint32_t ready = unread_.empty() ? 0 : uint32_t{kReadable};
  if (family_ == AF_UNIX) {
    const SimDatagramSocket* const peer = unix_peer();
    if (peer == nullptr || !peer->is_full_for(*this)) ready |= kWritable;
  } else if (under_way_ < static_cast<size_t>(options_.at({SOL_SOCKET, SO_SNDBUF}))) {
    ready |= kWritable;
  }
  return ready;
}

}  // namespace troupe::testing
