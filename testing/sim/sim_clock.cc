#include "troupe/testing/sim/sim_clock.h"

#include <algorithm>

#include "absl/cleanup/cleanup.h"
#include "glog/logging.h"

namespace troupe::testing {

SimClock::EventId SimClock::At(MonotonicTime time, absl::AnyInvocable<void()> event) {
  CheckThread();
  const EventId id = {std::max(time, now_), ++last_sequence_};
  if (!time.is_infinite()) events_.emplace(id, std::move(event));
  return id;
}

void SimClock::AdvanceTo(MonotonicTime time) {
  CheckThread();
  CHECK(!time.is_infinite());
  CHECK(!advancing_) << "an event of the simulated kernel waits for the kernel";
  advancing_ = true;
  const absl::Cleanup done = [this] { advancing_ = false; };
  while (!events_.empty() && events_.begin()->first.time <= time) {
    auto node = events_.extract(events_.begin());
    now_ = std::max(now_, node.key().time);
    trace_.Add(now_.nanos());
    node.mapped()();
  }
  now_ = std::max(now_, time);
}

void SimClock::CheckThread() const {
  CHECK(thread_ == std::this_thread::get_id()) << "a real thread reached into a simulation";
}

}  // namespace troupe::testing
