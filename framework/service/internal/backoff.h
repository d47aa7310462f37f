// Backoff: how long to wait before the next attempt to connect, as gRPC does: longer each time, and never the same for
// all clients of a server that comes back.
//
// From gRPC's connection-backoff: 1 s, times 1.6, at most 120 s, each a fifth more or less by chance. A delay counts
// from the beginning of an attempt, so that one that took long is followed at once.
//
// Threading: one thread.
#ifndef TROUPE_SERVICE_INTERNAL_BACKOFF_H_
#define TROUPE_SERVICE_INTERNAL_BACKOFF_H_

#include <algorithm>

#include "absl/time/time.h"

namespace troupe::internal {

class Backoff {
 public:
  Backoff(absl::Duration initial, absl::Duration most) : initial_(initial), most_(std::max(initial, most)) {}

  // The next delay. `random`: uniform, at least 0 and below 1.
  absl::Duration Next(double random) {
    const absl::Duration base = current();
    next_ = std::min(base * kMultiplier, most_);
    return base * (1 + kJitter * (2 * random - 1));
  }
  // What Next() gives, but for chance.
  absl::Duration current() const { return next_ == absl::ZeroDuration() ? initial_ : next_; }
  // After a success.
  void Reset() { next_ = absl::ZeroDuration(); }

 private:
  static constexpr double kMultiplier = 1.6;
  static constexpr double kJitter = 0.2;

  absl::Duration initial_;
  absl::Duration most_;
  absl::Duration next_ = absl::ZeroDuration();  // 0: the initial one
};

}  // namespace troupe::internal

#endif  // TROUPE_SERVICE_INTERNAL_BACKOFF_H_
