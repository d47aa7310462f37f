// SimDatagramSocket: a datagram socket of a simulated host, of UDP or Unix.
//
// UDP: a datagram takes its link's latency, and its jitter alone, so that it may overtake another; a stalled link, a host
// that is down, chance and a full receive buffer lose it without a word. What arrives where nobody is bound comes back as
// ECONNREFUSED, to sockets that are connected. A socket holds its send buffer's size under way at most, EAGAIN.
// Unix: a datagram arrives at once or not at all: a receiver with many unread gives EAGAIN.
//
// Threading: the clock's thread.     Lifetime: the network outlives it.
#ifndef TROUPE_TESTING_SIM_SIM_DATAGRAM_H_
#define TROUPE_TESTING_SIM_SIM_DATAGRAM_H_

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "troupe/base/socket_address.h"
#include "troupe/testing/sim/sim_network.h"

namespace troupe::testing {

class SimDatagramSocket final : public SimNamedSocket {
 public:
  SimDatagramSocket(SimNetwork& network, int host, int family);
  ~SimDatagramSocket() override;
  // Two of Unix that are connected, without names.
  static std::pair<std::unique_ptr<SimDatagramSocket>, std::unique_ptr<SimDatagramSocket>> NewPair(SimNetwork& network,
                                                                                                   int host);

  int64_t ReceiveFrom(absl::Span<char> bytes, SocketAddress* from);
  int64_t SendTo(absl::Span<const char> bytes, const SocketAddress* to);

  int Connect(const SocketAddress& address) override;
  int PeerAddress(SocketAddress* address) const override;
  int ShutdownWrite() override;
  int64_t Recv(absl::Span<char> bytes, size_t bytes_max) override;
  int64_t Send(absl::Span<const iovec> bytes, size_t bytes_max) override;

  uint32_t Readiness() const override;

 private:
  // Each socket has one, which outlives it in those that keep it; its end makes it null.
  using Handle = std::shared_ptr<SimDatagramSocket*>;
  struct Datagram {
    SocketAddress from;
    std::string bytes;
    std::weak_ptr<SimDatagramSocket*> sender;  // of Unix
  };
  // What travels.
  struct Flight {
    int from_host;
    int to_host;
    SocketAddress from;
    SocketAddress to;
    std::string bytes;
    bool broadcast;
  };

  int ConnectUnix(const SocketAddress& address);
  int ConnectIp(const SocketAddress& address);
  int64_t SendIp(absl::Span<const char> bytes, SocketAddress to);
  int64_t SendUnix(absl::Span<const char> bytes, const SocketAddress* to);
  SimDatagramSocket* unix_peer() const { return unix_peer_ == nullptr ? nullptr : *unix_peer_; }
  bool is_connected() const { return peer_.family() != AF_UNSPEC; }

  static void Arrive(SimNetwork& network, const Flight& flight);
  // Where it belongs: of several that are equally good, one for unicasts.
  static std::vector<SimDatagramSocket*> Receivers(SimNetwork& network, const Flight& flight);
  static void TellSender(SimNetwork& network, const Flight& flight, int error);
  void Receive(Datagram datagram);
  bool is_full_for(const SimDatagramSocket& sender) const;

  const Handle self_ = std::make_shared<SimDatagramSocket*>(this);
  SocketAddress peer_;
  Handle unix_peer_;
  std::deque<Datagram> unread_;
  size_t unread_bytes_ = 0;  // with what each costs the kernel
  size_t under_way_ = 0;     // bytes of UDP sent and not yet arrived or lost
  bool shut_down_ = false;
};

}  // namespace troupe::testing

#endif  // TROUPE_TESTING_SIM_SIM_DATAGRAM_H_
