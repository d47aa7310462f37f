#include "troupe/service/internal/backoff.h"

#include <algorithm>

#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace troupe::internal {
namespace {

TEST(BackoffTest, EachDelayIsLongerUntilTheLongest) {
  Backoff backoff(absl::Seconds(1), absl::Minutes(2));
  double expected = 1;
  for (int i = 0; i < 40; ++i) {
    EXPECT_NEAR(absl::ToDoubleSeconds(backoff.current()), expected, 1e-6);
    EXPECT_NEAR(absl::ToDoubleSeconds(backoff.Next(0.5)), expected, 1e-6) << i;
    expected = std::min(expected * 1.6, 120.0);
  }
  backoff.Reset();
  EXPECT_EQ(backoff.Next(0.5), absl::Seconds(1));
}

TEST(BackoffTest, ChanceMovesItByAFifth) {
  EXPECT_NEAR(absl::ToDoubleSeconds(Backoff(absl::Seconds(10), absl::Minutes(2)).Next(0)), 8, 1e-6);
  EXPECT_NEAR(absl::ToDoubleSeconds(Backoff(absl::Seconds(10), absl::Minutes(2)).Next(0.999999)), 12, 1e-4);
}

TEST(BackoffTest, AnInitialDelayBeyondTheLongestStays) {
  Backoff backoff(absl::Minutes(5), absl::Minutes(2));
  EXPECT_EQ(backoff.Next(0.5), absl::Minutes(5));
  EXPECT_EQ(backoff.Next(0.5), absl::Minutes(5));
}

}  // namespace
}  // namespace troupe::internal
