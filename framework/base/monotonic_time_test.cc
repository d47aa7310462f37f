#include "troupe/base/monotonic_time.h"

#include <limits>

#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace troupe {
namespace {

constexpr MonotonicTime kForever = MonotonicTime::InfiniteFuture();
constexpr MonotonicTime kLast = MonotonicTime::FromNanos(std::numeric_limits<int64_t>::max() - 1);
constexpr MonotonicTime kFirst = MonotonicTime::FromNanos(std::numeric_limits<int64_t>::min());

TEST(MonotonicTime, StartsAtTheOrigin) {
  EXPECT_EQ(MonotonicTime().nanos(), 0);
  EXPECT_EQ(MonotonicTime(), MonotonicTime::FromNanos(0));
}

TEST(MonotonicTime, AddsAndSubtractsDurations) {
  const MonotonicTime t = MonotonicTime::FromNanos(1'000);
  EXPECT_EQ((t + absl::Microseconds(2)).nanos(), 3'000);
  EXPECT_EQ((t - absl::Microseconds(2)).nanos(), -1'000);
  EXPECT_EQ(MonotonicTime::FromNanos(5) - t, absl::Nanoseconds(-995));
  EXPECT_DOUBLE_EQ(MonotonicTime::FromNanos(1'500'000'000).ToSeconds(), 1.5);
}

TEST(MonotonicTime, Orders) {
  const MonotonicTime t = MonotonicTime::FromNanos(1);
  EXPECT_LT(MonotonicTime(), t);
  EXPECT_LT(t, kForever);
  EXPECT_LT(kLast, kForever);
  EXPECT_GE(kForever, kForever);
}

TEST(MonotonicTime, InfinityAbsorbs) {
  EXPECT_TRUE(kForever.is_infinite());
  EXPECT_FALSE(kLast.is_infinite());
  EXPECT_TRUE((kForever + absl::Hours(1)).is_infinite());
  EXPECT_TRUE((kForever - absl::Hours(1)).is_infinite());
  EXPECT_TRUE((kForever + -absl::InfiniteDuration()).is_infinite());
  EXPECT_EQ(kForever - MonotonicTime(), absl::InfiniteDuration());
  EXPECT_EQ(kForever - kForever, absl::ZeroDuration());
  EXPECT_EQ(MonotonicTime() - kForever, -absl::InfiniteDuration());
}

TEST(MonotonicTime, Saturates) {
  EXPECT_TRUE((MonotonicTime::FromNanos(1) + absl::InfiniteDuration()).is_infinite());
  EXPECT_TRUE((kLast + absl::Nanoseconds(1)).is_infinite());
  EXPECT_TRUE((kLast + absl::Hours(1)).is_infinite());
  EXPECT_EQ(MonotonicTime::FromNanos(-2) - absl::InfiniteDuration(), kFirst);
  EXPECT_EQ(kFirst - absl::Nanoseconds(1), kFirst);
}

TEST(MonotonicTime, DifferencesDoNotOverflow) {
  EXPECT_EQ(kLast - kFirst, absl::Nanoseconds(std::numeric_limits<int64_t>::max() - 1) -
                                absl::Nanoseconds(std::numeric_limits<int64_t>::min()));
  EXPECT_LT(kFirst - kLast, absl::ZeroDuration());
}

}  // namespace
}  // namespace troupe
