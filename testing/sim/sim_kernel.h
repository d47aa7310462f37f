// SimKernel: the world below one or more simulated operating systems: one clock, one network, one seed.
//
// Tests of a single program need none: SimOs makes its own. To run several hosts, make a kernel, a SimOs on it per
// host, and drive them in one thread:
//   poll every loop with a deadline in the past, until none has work;
//   kernel.AdvanceTo(the earliest of kernel.NextEventTime() and the loops' timers).
// With one loop only, waiting in its poller advances the clock by itself.
//
// The same seed and the same calls give the same trace, always. TraceHash() proves it.
//
// Threading: the thread that made it.     Lifetime: outlives its hosts.
#ifndef TROUPE_TESTING_SIM_SIM_KERNEL_H_
#define TROUPE_TESTING_SIM_SIM_KERNEL_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "troupe/base/monotonic_time.h"
#include "troupe/base/socket_address.h"
#include "troupe/testing/sim/sim_clock.h"
#include "troupe/testing/sim/sim_network.h"
#include "troupe/testing/sim/sim_random.h"
#include "troupe/testing/sim/sim_trace.h"

namespace troupe::testing {

class SimOs;

class SimKernel {
 public:
  explicit SimKernel(uint64_t seed = 1);
  SimKernel(const SimKernel&) = delete;
  SimKernel& operator=(const SimKernel&) = delete;

  uint64_t seed() const { return seed_; }

  // ---- time. See SimClock; it starts at zero.
  MonotonicTime Now() const { return clock_.Now(); }
  // InfiniteFuture when nothing is outstanding.
  MonotonicTime NextEventTime() const { return clock_.NextEventTime(); }
  void AdvanceTo(MonotonicTime time) { clock_.AdvanceTo(time); }
  // An event of the test's own: a fault at a time, a call to a loop. A Poller that waits meanwhile returns after it.
  SimClock::EventId At(MonotonicTime time, absl::AnyInvocable<void()> event);
  SimClock::EventId After(absl::Duration delay, absl::AnyInvocable<void()> event) {
    return At(Now() + delay, std::move(event));
  }
  bool Cancel(const SimClock::EventId& id) { return clock_.Cancel(id); }

  // ---- network. How `from` reaches `to`, in that direction only; a host to itself is its loopback.
  void SetLink(const SimOs& from, const SimOs& to, const SimLink& link);
  const SimLink& Link(const SimOs& from, const SimOs& to) const;
  // Of all pairs that SetLink was not called for.
  void SetDefaultLink(const SimLink& link) { network_.SetDefaultLink(link); }
  void SetLoopbackLink(const SimLink& link) { network_.SetLoopbackLink(link); }
  // Of sockets made from now on, until they set SO_SNDBUF.
  void SetSendBufferBytes(size_t bytes) { network_.SetSendBufferBytes(bytes); }

  // ---- names. Every host answers to its own; "localhost" and numbers need no entry.
  // `addresses` in the order in which they are preferred; ports are ignored.
  void SetName(const std::string& name, std::vector<SocketAddress> addresses);
  // Resolving it fails with `status`.
  void SetNameError(const std::string& name, absl::Status status);
  void RemoveName(const std::string& name) { names_.erase(name); }
  // NOT_FOUND where there is no such name.
  absl::StatusOr<std::vector<SocketAddress>> LookUp(const std::string& name) const;
  // The first name, in the alphabet's order, that has the address; its port does not matter. "": none.
  std::string NameOf(const SocketAddress& address) const;

  uint64_t TraceHash() const { return trace_.hash(); }

  // For the parts of the simulation.
  SimClock& clock() { return clock_; }
  SimNetwork& network() { return network_; }
  SimTrace& trace() { return trace_; }
  SimRandom ForkRandom() { return random_.Fork(); }

 private:
  const uint64_t seed_;
  SimRandom random_;
  SimTrace trace_;
  SimClock clock_;
  SimNetwork network_;
  std::map<std::string, absl::StatusOr<std::vector<SocketAddress>>> names_;
};

}  // namespace troupe::testing

#endif  // TROUPE_TESTING_SIM_SIM_KERNEL_H_
