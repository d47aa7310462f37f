#include "troupe/os/work_queue.h"

#include <algorithm>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

struct Nothing : Work {
  void Run() override {}
};

std::vector<Work*> Drain(WorkQueue& queue) {
  std::vector<Work*> all;
  while (Work* work = queue.Pop()) all.push_back(work);
  return all;
}

TEST(WorkQueue, IsFirstInFirstOut) {
  WorkQueue queue;
  Nothing a, b, c;
  EXPECT_EQ(queue.Pop(), nullptr);
  for (Work* work : {&a, &b, &c}) queue.Push(*work);
  EXPECT_EQ(queue.size(), 3u);
  EXPECT_THAT(Drain(queue), ElementsAre(&a, &b, &c));
  EXPECT_EQ(queue.size(), 0u);
  queue.Push(b);
  EXPECT_THAT(Drain(queue), ElementsAre(&b));
}

TEST(WorkQueue, AnyoneMayLeaveFromAnywhere) {
  Nothing a, b, c, d;
  for (const std::vector<Work*>& leaving :
       std::vector<std::vector<Work*>>{{&a}, {&b}, {&d}, {&a, &d}, {&b, &c}, {&d, &c, &b, &a}}) {
    WorkQueue queue;
    std::vector<Work*> expected = {&a, &b, &c, &d};
    for (Work* work : expected) queue.Push(*work);
    for (Work* work : leaving) {
      EXPECT_TRUE(WorkQueue::Contains(*work));
      EXPECT_TRUE(queue.Remove(*work));
      EXPECT_FALSE(WorkQueue::Contains(*work));
      EXPECT_FALSE(queue.Remove(*work));
      expected.erase(std::find(expected.begin(), expected.end(), work));
    }
    EXPECT_EQ(queue.size(), expected.size());
    EXPECT_EQ(Drain(queue), expected);
  }
}

TEST(WorkQueue, AQueueThatEndsLetsGoOfItsWork) {
  Nothing a;
  {
    WorkQueue queue;
    queue.Push(a);
  }
  EXPECT_FALSE(WorkQueue::Contains(a));
  WorkQueue again;
  again.Push(a);
  EXPECT_THAT(Drain(again), ElementsAre(&a));
  EXPECT_THAT(Drain(again), IsEmpty());
}

}  // namespace
}  // namespace troupe
