// SimPoller: Poller over simulated descriptors; waiting advances the virtual clock.
//
// As in epoll, they are reported in the order in which they became ready, those still ready again behind the others.
// Tests get it from SimOs::NewPoller.
//
// Threading: the clock's thread, Wake() too.     Lifetime: ends before its SimOs.
#ifndef TROUPE_TESTING_SIM_SIM_POLLER_H_
#define TROUPE_TESTING_SIM_SIM_POLLER_H_

#include <cstdint>
#include <map>
#include <memory>

#include "absl/types/span.h"
#include "troupe/base/intrusive_list.h"
#include "troupe/base/monotonic_time.h"
#include "troupe/os/os.h"
#include "troupe/testing/sim/sim_clock.h"
#include "troupe/testing/sim/sim_descriptor.h"

namespace troupe::testing {

class SimOs;

class SimPoller final : public Poller {
 public:
  SimPoller(SimOs& os, SimClock& clock);
  ~SimPoller() override;

  int Add(int fd, uint32_t interest, void* token) override;
  int Modify(int fd, uint32_t interest, void* token) override;
  int Remove(int fd) override;
  int Wait(MonotonicTime deadline, absl::Span<PollEvent> events) override;
  void Wake() override;

 private:
  friend class SimOs;
  struct Watch;

  int CollectReady(absl::Span<PollEvent> events);

  SimOs& os_;
  SimClock& clock_;
  bool woken_ = false;
  uint64_t signals_ = 0;             // SimOs writes and takes them
  IntrusiveList<Watch> candidates_;  // maybe ready; one that is not leaves when it is looked at
  std::map<int, std::unique_ptr<Watch>> watches_;
};

}  // namespace troupe::testing

#endif  // TROUPE_TESTING_SIM_SIM_POLLER_H_
