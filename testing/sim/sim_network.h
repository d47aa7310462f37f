// SimNetwork: the hosts, links and stream sockets of a simulation, in memory. Datagram sockets: sim_datagram.h.
//
// Tests do not use it directly: SimOs gives its sockets descriptors, and SimKernel sets its links. It follows Linux
// where a program can tell: which errno, what is readable, what becomes of a connection whose other end was closed with
// bytes unread. What is left out: TIME_WAIT, urgent data, congestion.
//
// A connection has two directions. What is sent (bytes, end, reset, acknowledgement) travels in order and takes the
// link's latency. A direction holds at most the sender's send buffer, in flight and unread together. What cannot arrive
// for 15 minutes breaks the connection for its sender, ETIMEDOUT.
//
// Threading: the clock's thread.     Lifetime: the network outlives its sockets.
#ifndef TROUPE_TESTING_SIM_SIM_NETWORK_H_
#define TROUPE_TESTING_SIM_SIM_NETWORK_H_

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "troupe/base/monotonic_time.h"
#include "troupe/base/socket_address.h"
#include "troupe/testing/sim/sim_clock.h"
#include "troupe/testing/sim/sim_descriptor.h"
#include "troupe/testing/sim/sim_random.h"

namespace troupe::testing {

// How one host reaches another. Every packet takes latency plus a random part of jitter, but never overtakes within its
// connection; datagrams overtake each other. While a link is stalled nothing arrives; what was sent on a connection arrives
// when it no longer is, and datagrams are lost.
struct SimLink {
  absl::Duration latency = absl::Microseconds(250);
  absl::Duration jitter = absl::ZeroDuration();
  bool stalled = false;
  // What goes wrong by itself, of so many packets that carry bytes, by the kernel's seed: 0 never, 1 each time.
  double stall_chance = 0;  // it comes up to stall_max later, and all behind it with it
  absl::Duration stall_max = absl::Seconds(1);
  double reset_chance = 0;  // both ends find the connection reset when it arrives
  // Of datagrams, which are also late by stall_chance.
  double loss_chance = 0;
  double duplicate_chance = 0;  // it arrives twice, each by itself
};

class SimDatagramSocket;
class SimNamedSocket;
class SimSocket;
struct SimConnection;

class SimNetwork {
 public:
  SimNetwork(SimClock& clock, SimRandom random) : clock_(clock), random_(random) {}
  SimNetwork(const SimNetwork&) = delete;
  SimNetwork& operator=(const SimNetwork&) = delete;

  // Hosts are numbered from 0.
  int AddHost();
  // The host's own addresses, besides loopback; the ports are ignored.
  void SetIps(int host, const std::vector<SocketAddress>& ips);
  // Its addresses are free again; nothing reaches it.
  void RemoveHost(int host);
  // While a host is down nothing arrives there, as behind a stalled link.
  void SetDown(int host, bool down);

  // How `from` reaches `to`, in that direction.
  void SetLink(int from, int to, const SimLink& link);
  // For pairs of hosts that SetLink was not called for; and for each host to itself.
  void SetDefaultLink(const SimLink& link);
  void SetLoopbackLink(const SimLink& link);
  const SimLink& Link(int from, int to) const;

  void SetSendBufferBytes(size_t bytes) { send_buffer_bytes_ = bytes; }  // of sockets made from now on

  // Two that are connected, without names.
  std::pair<std::unique_ptr<SimSocket>, std::unique_ptr<SimSocket>> NewPair(int host);

  // ---- files
  // A regular one. One that is there gets other contents, also for those who have it open.
  void AddFile(int host, const std::string& path, std::string contents);
  // 0, or why not: ENOENT, ENXIO (a socket's).
  int OpenFile(int host, const std::string& path, std::shared_ptr<const std::string>* contents) const;
  bool IsSocketFile(int host, const std::string& path) const;
  int Unlink(int host, const std::string& path);

 private:
  friend class SimDatagramSocket;
  friend class SimNamedSocket;
  friend class SimSocket;

  // What has a path on a host.
  struct File {
    bool is_socket = false;
    SimNamedSocket* socket = nullptr;  // null: a regular file, or its socket is closed
    std::shared_ptr<std::string> contents = nullptr;  // of a regular one
  };
  struct Host {
    bool removed = false;
    bool down = false;
    std::vector<SocketAddress> ips;
    uint16_t next_port = kEphemeralFirst;
    // By type and port; in the order of binding within them.
    std::multimap<std::pair<int, uint16_t>, SimNamedSocket*> ports;
    std::map<std::string, File> files;
    std::map<std::pair<int, std::string>, SimNamedSocket*> abstract;  // by type and name
  };
  // What travels.
  struct Packet {
    enum Kind { kBytes, kEnd, kReset, kAcknowledge, kEstablished, kRefused } kind;
    std::string bytes = {};
    size_t acknowledged = 0;
    int error = 0;
    MonotonicTime arrival = {};
    bool resets = false;
  };
  friend struct SimConnection;

  // As Linux has them by default.
  static constexpr uint16_t kEphemeralFirst = 32768;
  static constexpr uint16_t kEphemeralLast = 60999;

  const Host& host(int index) const { return hosts_[static_cast<size_t>(index)]; }
  Host& host(int index) { return hosts_[static_cast<size_t>(index)]; }
  MonotonicTime ArrivalTime(int from, int to);
  absl::Duration StallTime(int from, int to);  // zero, but for those who are stalled by chance
  bool Happens(double chance);
  int FindHost(int from, const SocketAddress& address) const;  // -1: nobody has it
  SimSocket* FindListener(int host, const SocketAddress& address);
  uint16_t AssignPort(Host& host, int type);  // 0: none is free
  static bool Conflicts(const Host& host, const SimNamedSocket& socket, const SocketAddress& address);
  bool Blocked(int from, int to) const { return Link(from, to).stalled || host(to).down; }
  void Unstick();

  // Packets to `side` of the connection.
  void Transmit(const std::shared_ptr<SimConnection>& connection, int side, Packet packet);
  void ScheduleArrival(const std::shared_ptr<SimConnection>& connection, int side);
  void Arrive(const std::shared_ptr<SimConnection>& connection, int side);
  void GiveUpInTime(const std::shared_ptr<SimConnection>& connection, int side);
  void Knock(const std::shared_ptr<SimConnection>& connection, const SocketAddress& address, int attempt);
  void KnockArrives(const std::shared_ptr<SimConnection>& connection, const SocketAddress& address, int attempt);
  void KnockAgain(const std::shared_ptr<SimConnection>& connection, const SocketAddress& address, int attempt);

  SimClock& clock_;
  SimRandom random_;
  SimLink default_link_;
  SimLink loopback_link_ = {.latency = absl::Microseconds(10)};
  size_t send_buffer_bytes_ = 64 << 10;
  std::deque<Host> hosts_;
  std::map<std::pair<int, int>, SimLink> links_;
  // Sides for which something waits behind a stalled link, in the order in which they got stuck.
  std::vector<std::pair<std::weak_ptr<SimConnection>, int>> stuck_;
};

// What sockets of every type have: options, a name, an error to ask for. Results are as of the system calls, or -errno.
class SimNamedSocket : public SimDescriptor {
 public:
  int family() const { return family_; }
  int type() const { return type_; }
  virtual int SetOption(int level, int name, int value);
  int GetOption(int level, int name, int* value) const;
  int Bind(const SocketAddress& address);
  virtual int Connect(const SocketAddress& address) = 0;
  int TakeError();
  int LocalAddress(SocketAddress* address) const;
  virtual int PeerAddress(SocketAddress* address) const = 0;
  virtual int ShutdownWrite() = 0;
  // At most `bytes_max` of them, where there is no boundary to keep.
  virtual int64_t Recv(absl::Span<char> bytes, size_t bytes_max) = 0;
  virtual int64_t Send(absl::Span<const iovec> bytes, size_t bytes_max) = 0;
  bool is_pipe_like() const override { return true; }
  int64_t Read(absl::Span<char> bytes) override { return Recv(bytes, bytes.size()); }
  int64_t Write(absl::Span<const iovec> bytes, size_t bytes_max) override { return Send(bytes, bytes_max); }

 protected:
  SimNamedSocket(SimNetwork& network, int host, int family, int type);

  virtual bool is_listening() const { return false; }

  int BindToFreePort(const SocketAddress& ip, int error);
  void Unbind();
  // Where a socket without a name of its own sends from, to reach `address`: 0, or -ENETUNREACH.
  int SourceFor(const SocketAddress& address, SocketAddress* source) const;
  // Who has the name `address` on this host: 0, or -ENOENT, -ECONNREFUSED, -EPROTOTYPE.
  int FindUnix(const SocketAddress& address, SimNamedSocket** found) const;
  bool is_bound() const { return local_.family() != AF_UNSPEC; }
  bool option(int level, int name) const;
  SimNetwork::Host& host() const { return network_.host(host_); }

  SimNetwork& network_;
  const int host_;
  const int family_;
  const int type_;
  std::map<std::pair<int, int>, int> options_;  // (level, name) -> value
  int error_ = 0;  // SO_ERROR
  SocketAddress local_;  // AF_UNSPEC until it is bound, or for a Unix socket without a name

 private:
  friend class SimNetwork;
  int BindIp(const SocketAddress& address);
  int BindUnix(const SocketAddress& address);
};

// Addresses of IP.
SocketAddress WithPort(const SocketAddress& address, uint16_t port);
SocketAddress Wildcard(int family);
SocketAddress Loopback(int family, uint16_t port);
bool IsWildcard(const SocketAddress& address);
// As an IPv6 socket shows an IPv4 peer.
SocketAddress MappedIf(bool mapped, const SocketAddress& address);
// Of a Unix socket that has none.
SocketAddress UnnamedUnix();

// A stream socket.
class SimSocket final : public SimNamedSocket {
 public:
  SimSocket(SimNetwork& network, int host, int family);
  ~SimSocket() override;  // close(2): what was sent still arrives

  int Listen(int backlog);
  // Null with *error when there is none.
  std::unique_ptr<SimSocket> Accept(SocketAddress* peer, int* error);
  int Connect(const SocketAddress& address) override;
  int PeerAddress(SocketAddress* address) const override;
  int ShutdownWrite() override;
  int64_t Recv(absl::Span<char> bytes, size_t bytes_max) override;
  int64_t Send(absl::Span<const iovec> bytes, size_t bytes_max) override;
  // As a box in between does that closes both of its connections: who still sends is reset then.
  void HangUp() override;
  void Vanish() override;
  // Both ends see the connection reset, at once: what a box in between, or a peer that crashed and came back, does.
  void Reset();

  uint32_t Readiness() const override;

 private:
  friend class SimNetwork;
  enum class State { kIdle, kListening, kConnecting, kConnected, kReset };

  int ConnectUnix(const SocketAddress& address);
  int ConnectIp(SocketAddress address);
  void Join(std::shared_ptr<SimConnection> connection, int side);
  void Handle(SimNetwork::Packet packet);
  void BecomeReset(int error);
  // The other end is nobody's any more, and has said so.
  void LosePeer();
  bool is_connected() const { return state_ == State::kConnected; }
  bool is_listening() const override { return state_ == State::kListening; }
  SimSocket* peer_socket() const;

  State state_ = State::kIdle;
  SocketAddress peer_;

  // listening
  size_t backlog_ = 0;
  std::deque<std::unique_ptr<SimSocket>> waiting_;

  // connected. Shared by the two ends and the packets under way between them.
  std::shared_ptr<SimConnection> connection_;
  int side_ = 0;
  std::string received_;
  size_t received_taken_ = 0;  // of received_, by Recv
  size_t unacknowledged_ = 0;
  bool end_sent_ = false;
  bool end_received_ = false;
};

}  // namespace troupe::testing

#endif  // TROUPE_TESTING_SIM_SIM_NETWORK_H_
