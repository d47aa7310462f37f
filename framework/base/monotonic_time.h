// MonotonicTime: a point on the clock that only goes forward, in nanoseconds.
//
// Use it for deadlines and timers. For a time that a person or another machine reads, use absl::Time. The origin is
// arbitrary (boot on Linux, zero in simulation), so values of two machines, or of two `Os`, do not compare.
// Arithmetic with absl::Duration saturates: InfiniteFuture() plus anything stays infinite.
#ifndef TROUPE_BASE_MONOTONIC_TIME_H_
#define TROUPE_BASE_MONOTONIC_TIME_H_

#include <compare>
#include <cstdint>
#include <limits>

#include "absl/time/time.h"

namespace troupe {

class MonotonicTime {
 public:
  constexpr MonotonicTime() = default;
  static constexpr MonotonicTime FromNanos(int64_t nanos) { return MonotonicTime(nanos); }
  static constexpr MonotonicTime InfiniteFuture() { return MonotonicTime(std::numeric_limits<int64_t>::max()); }

  constexpr int64_t nanos() const { return nanos_; }
  constexpr bool is_infinite() const { return *this == InfiniteFuture(); }

  friend constexpr auto operator<=>(MonotonicTime, MonotonicTime) = default;

  // Seconds since the origin, as asyncio's loop.time() gives them. For people and logs.
  double ToSeconds() const { return static_cast<double>(nanos_) * 1e-9; }

  friend MonotonicTime operator+(MonotonicTime t, absl::Duration d) {
    return t.is_infinite() ? t : t.PlusNanos(absl::ToInt64Nanoseconds(d));
  }
  friend MonotonicTime operator-(MonotonicTime t, absl::Duration d) { return t + (-d); }
  // InfiniteFuture() minus a finite time is absl::InfiniteDuration(), and the other way round minus that.
  friend absl::Duration operator-(MonotonicTime a, MonotonicTime b) {
    if (a.is_infinite() != b.is_infinite())
      return a.is_infinite() ? absl::InfiniteDuration() : -absl::InfiniteDuration();
    int64_t difference = 0;
    if (!__builtin_sub_overflow(a.nanos_, b.nanos_, &difference)) return absl::Nanoseconds(difference);
    return absl::Nanoseconds(a.nanos_) - absl::Nanoseconds(b.nanos_);
  }

 private:
  explicit constexpr MonotonicTime(int64_t nanos) : nanos_(nanos) {}
  constexpr MonotonicTime PlusNanos(int64_t d) const {
    int64_t sum = 0;
    if (__builtin_add_overflow(nanos_, d, &sum)) {
      return MonotonicTime(d > 0 ? std::numeric_limits<int64_t>::max() : std::numeric_limits<int64_t>::min());
    }
    return MonotonicTime(sum);
  }

  int64_t nanos_ = 0;
};

}  // namespace troupe

#endif  // TROUPE_BASE_MONOTONIC_TIME_H_
