// SimClock: the virtual clock of a simulation and what is to happen on it.
//
// Time stands still while code runs. It moves only in AdvanceTo, which runs what is due on the way, in the order of
// time, then of scheduling.
//
// Threading: the thread that made it; any other is told so by a failed CHECK.
// Lifetime:  outlives what schedules on it; events still outstanding at its end are dropped.
#ifndef TROUPE_TESTING_SIM_SIM_CLOCK_H_
#define TROUPE_TESTING_SIM_SIM_CLOCK_H_

#include <cstdint>
#include <map>
#include <thread>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"
#include "troupe/base/monotonic_time.h"
#include "troupe/testing/sim/sim_trace.h"

namespace troupe::testing {

class SimClock {
 public:
  // Names a scheduled event; a default one names none.
  struct EventId {
    MonotonicTime time;
    uint64_t sequence = 0;
    friend auto operator<=>(const EventId&, const EventId&) = default;
  };

  explicit SimClock(SimTrace& trace) : trace_(trace) {}
  SimClock(const SimClock&) = delete;
  SimClock& operator=(const SimClock&) = delete;

  MonotonicTime Now() const { return now_; }

  // A time in the past counts as now; InfiniteFuture never comes, and is not outstanding either.
  EventId At(MonotonicTime time, absl::AnyInvocable<void()> event);
  EventId After(absl::Duration delay, absl::AnyInvocable<void()> event) { return At(now_ + delay, std::move(event)); }
  // False: it has run, runs now, or was cancelled.
  bool Cancel(const EventId& id) { return events_.erase(id) > 0; }

  // InfiniteFuture when nothing is outstanding.
  MonotonicTime NextEventTime() const {
    return events_.empty() ? MonotonicTime::InfiniteFuture() : events_.begin()->first.time;
  }

  // Runs what is due up to and including `time`, and what that makes due, then sets the clock to `time`; a time in the
  // past counts as now. REQUIRES: `time` is finite; not called by an event.
  void AdvanceTo(MonotonicTime time);

  // Called by events that run the test's or the program's own code, which may have given a loop something to do without
  // the loop's poller knowing: whoever waits then returns.
  void NoteForeignCode() { ++foreign_runs_; }
  uint64_t foreign_runs() const { return foreign_runs_; }

  void CheckThread() const;

 private:
  SimTrace& trace_;
  const std::thread::id thread_ = std::this_thread::get_id();
  MonotonicTime now_;
  uint64_t last_sequence_ = 0;
  uint64_t foreign_runs_ = 0;
  bool advancing_ = false;
  std::map<EventId, absl::AnyInvocable<void()>> events_;
};

}  // namespace troupe::testing

#endif  // TROUPE_TESTING_SIM_SIM_CLOCK_H_
