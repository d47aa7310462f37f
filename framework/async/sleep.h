// Sleep(delay): suspends for at least `delay` of the loop's time (C-CMB-22).
//
// Zero or less gives up exactly one iteration.
//
// Threading: the loop's. Lifetime: cancelled, or destroyed while asleep, its timer leaves the loop at once.
#ifndef TROUPE_ASYNC_SLEEP_H_
#define TROUPE_ASYNC_SLEEP_H_

#include "absl/time/time.h"
#include "troupe/async/task.h"
#include "troupe/base/monotonic_time.h"

namespace troupe {

Task<void> Sleep(absl::Duration delay);
// Until a time of the running loop's clock; one iteration if it has passed.
Task<void> SleepUntil(MonotonicTime when);

}  // namespace troupe

#endif  // TROUPE_ASYNC_SLEEP_H_
