// TimerHeap against a plain sorted list: random additions, removals from anywhere, and pops, from a seed.
#include "troupe/loop/timer_heap.h"

#include <algorithm>
#include <memory>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace troupe {
namespace {

struct TestTimer final : Timer {
  void Run() override {}
};

TEST(TimerHeap, GivesTheEarliestThenTheOneScheduledFirst) {
  for (uint32_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    TimerHeap heap;
    std::vector<std::unique_ptr<TestTimer>> timers;
    struct Model {
      MonotonicTime when;
      int sequence;
      TestTimer* timer;
      bool operator<(const Model& o) const { return when != o.when ? when < o.when : sequence < o.sequence; }
    };
    std::vector<Model> model;
    int sequence = 0;
    for (int step = 0; step < 300; ++step) {
      const uint32_t what = random() % 10;
      if (what < 5) {
        timers.push_back(std::make_unique<TestTimer>());
        const MonotonicTime when = MonotonicTime::FromNanos(static_cast<int64_t>(random() % 40) - 5);
        heap.Add(*timers.back(), when);
        EXPECT_TRUE(timers.back()->scheduled());
        EXPECT_EQ(timers.back()->when(), when);
        model.push_back({when, sequence++, timers.back().get()});
      } else if (what < 8 && !model.empty()) {
        const size_t at = random() % model.size();
        heap.Remove(*model[at].timer);
        EXPECT_FALSE(model[at].timer->scheduled());
        heap.Remove(*model[at].timer);  // no effect
        model.erase(model.begin() + at);
      } else if (!model.empty()) {
        const auto first = std::min_element(model.begin(), model.end());
        EXPECT_EQ(heap.next(), first->when);
        EXPECT_EQ(&heap.PopFront(), first->timer);
        model.erase(first);
      }
      ASSERT_EQ(heap.size(), model.size());
      ASSERT_EQ(heap.empty(), model.empty());
    }
    std::sort(model.begin(), model.end());
    for (const Model& next : model) EXPECT_EQ(&heap.PopFront(), next.timer);
    EXPECT_TRUE(heap.empty());
  }
}

}  // namespace
}  // namespace troupe
