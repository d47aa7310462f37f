#include "troupe/base/counter.h"

#include <cstdint>
#include <thread>

#include "gtest/gtest.h"

namespace troupe {
namespace {

TEST(Counter, Counts) {
  Counter counter;
  EXPECT_EQ(counter.value(), 0u);
  counter.Add();
  counter.Add(41);
  EXPECT_EQ(counter.value(), 42u);
}

// Under ThreadSanitizer: reading from another thread is no race, and never sees the count fall.
TEST(Counter, IsReadFromOtherThreads) {
  constexpr uint64_t kMax = 100'000;
  Counter counter;
  std::thread reader([&] {
    uint64_t last = 0;
    while (last < kMax) {
      const uint64_t now = counter.value();
      ASSERT_GE(now, last);
      last = now;
    }
  });
  for (uint64_t i = 0; i < kMax; ++i) counter.Add();
  reader.join();
}

}  // namespace
}  // namespace troupe
