#include "troupe/os/io_limit.h"

#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace troupe {
namespace {

TEST(IoLimit, WithoutOneEverythingMayMove) {
  IoLimit none = IoLimit::Parse("");
  EXPECT_FALSE(none.any());
  EXPECT_GT(none.Next(), size_t{1} << 40);
}

TEST(IoLimit, ANumberIsTheLimitOfEveryCall) {
  IoLimit three = IoLimit::Parse("3");
  for (int i = 0; i < 5; ++i) EXPECT_EQ(three.Next(), 3u);
}

TEST(IoLimit, ARangeIsDrawnFromWholeAndReplaysFromItsSeed) {
  IoLimit one = IoLimit::Parse("1-7"), same = IoLimit::Parse("1-7:1"), other = IoLimit::Parse("1-7:2");
  std::set<size_t> seen;
  bool differs = false;
  for (int i = 0; i < 200; ++i) {
    const size_t next = one.Next();
    seen.insert(next);
    EXPECT_EQ(next, same.Next());
    differs |= next != other.Next();
  }
  EXPECT_THAT(seen, ::testing::ElementsAre(1u, 2u, 3u, 4u, 5u, 6u, 7u));
  EXPECT_TRUE(differs);
}

TEST(IoLimitDeathTest, ATextThatSaysSomethingElseIsRefused) {
  for (const char* text : {"0", "x", "2-7", "1-", "1-0", "1-7:", "-1", "3:1"}) {
    EXPECT_DEATH(IoLimit::Parse(text), "expected TROUPE_IO_BYTES_MAX") << text;
  }
}

}  // namespace
}  // namespace troupe
