// Budget: what a stranger may do so often: a burst, refilled by time and by calls that end well.
//
// For codecs, which have no clock: whoever owns them says what time has passed.
#ifndef TROUPE_WIRE_BUDGET_H_
#define TROUPE_WIRE_BUDGET_H_

#include <algorithm>
#include <cstdint>

#include "absl/time/time.h"

namespace troupe {

struct Budget {
  uint32_t left;
  uint32_t most;
  uint32_t per_second;
  int64_t nanos = 0;  // since the last whole unit was refilled

  // False: nothing is left.
  bool Spend() { return left > 0 && left-- > 0; }
  void Refill() { left += left < most ? 1 : 0; }
  void Pass(absl::Duration time) {
    const int64_t passed = absl::ToInt64Nanoseconds(std::clamp(time, absl::ZeroDuration(), absl::Hours(1)));
    if (per_second == 0) return;
    nanos += passed;
    const int64_t units = nanos * per_second / 1'000'000'000;
    nanos -= units * 1'000'000'000 / per_second;
    left = static_cast<uint32_t>(std::min<int64_t>(most, left + units));
  }
};

}  // namespace troupe

#endif  // TROUPE_WIRE_BUDGET_H_
