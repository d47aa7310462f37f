#include "troupe/async/await_argument.h"

#include <functional>
#include <string>

#include "gtest/gtest.h"

namespace troupe::internal {
namespace {

TEST(AwaitArgument, WhatOwnsNothingFitsAndWhatOwnsSomethingIsNamed) {
  const std::string text = "owned";
  int number = 1;
  auto free = [] { return 1; };
  auto borrows = [&text, number] { return text.size() + static_cast<size_t>(number); };
  auto owns = [text] { return text.size(); };
  EXPECT_TRUE(kFitsAwait<decltype(free)>);
  EXPECT_TRUE(kFitsAwait<decltype(borrows)>);
  EXPECT_FALSE(kFitsAwait<decltype(owns)>);
  EXPECT_TRUE(kFitsAwait<decltype((owns))>);
  EXPECT_TRUE(kFitsAwait<absl::AnyInvocable<size_t()>>);
  EXPECT_TRUE(kFitsAwait<std::function<size_t()>>);
  EXPECT_EQ(free() + borrows() + owns(), 1 + 6 + 5u);
}

}  // namespace
}  // namespace troupe::internal
