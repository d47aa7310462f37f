#include "tools/protoc_gen_troupe/session_order.h"

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace troupe::generator {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

// What is wrong with an order over the methods A, B and C; "" for nothing.
std::string Wrong(const std::string& order, const std::vector<std::string>& anytime = {}) {
  const std::vector<std::string> methods = {"A", "B", "C"};
  const absl::Status status = CheckSessionOrder(order, anytime, methods);
  EXPECT_TRUE(status.ok() || absl::IsInvalidArgument(status)) << status;
  return std::string(status.message());
}

TEST(SessionOrderTest, AcceptsTheGrammar) {
  for (const char* order : {"A B C", "A|B|C", "A* B+ C?", "(A B) | C", "((A)) (B | C)*", "A(B|C)*", " A\tB\nC ",
                            "A A B C", "(A B? | C)+ A", "A|B C|(A)"}) {
    EXPECT_EQ(Wrong(order), "") << order;
  }
}

TEST(SessionOrderTest, NoOrderIsNoRule) {
  EXPECT_EQ(Wrong(""), "");
  EXPECT_EQ(Wrong(" \n"), "");
  EXPECT_EQ(Wrong("", {"A"}), "methods of any time without a session order");
}

TEST(SessionOrderTest, SaysWhereTheTextIsWrong) {
  EXPECT_EQ(Wrong("A (B C"), "session order, at its end: \")\" expected");
  EXPECT_EQ(Wrong("A B) C"), "session order, at \") C\": \")\" without \"(\"");
  EXPECT_EQ(Wrong("A | "), "session order, at its end: a method or \"(\" expected");
  EXPECT_EQ(Wrong("| A"), "session order, at \"| A\": a method or \"(\" expected");
  EXPECT_EQ(Wrong("A || B"), "session order, at \"| B\": a method or \"(\" expected");
  EXPECT_EQ(Wrong("A () B C"), "session order, at \") B C\": a method or \"(\" expected");
  EXPECT_EQ(Wrong("* A B C"), "session order, at \"* A B C\": a method or \"(\" expected");
  EXPECT_EQ(Wrong("A** B C"), "session order, at \"* B C\": a method or \"(\" expected");
  EXPECT_EQ(Wrong("A, B, C"), "session order, at \", B, C\": a method or \"(\" expected");
  EXPECT_EQ(Wrong("A-B"), "session order, at \"-B\": a method or \"(\" expected");
}

TEST(SessionOrderTest, NamesOnlyMethodsOfTheService) {
  EXPECT_EQ(Wrong("A B D C"), "session order, at \"D C\": the service has no method D");
  EXPECT_EQ(Wrong("AB C"), "session order, at \"AB C\": the service has no method AB");
  EXPECT_EQ(Wrong("A B", {"D"}), "session anytime: the service has no method D");
}

TEST(SessionOrderTest, EveryMethodHasOnePlace) {
  EXPECT_EQ(Wrong("A B"), "session order: C could never be called: it stands neither in the order nor in anytime");
  EXPECT_EQ(Wrong("A B", {"C"}), "");
  EXPECT_EQ(Wrong("A B C", {"C"}), "session anytime: C stands in the order too");
  EXPECT_EQ(Wrong("A B", {"C", "C"}), "session anytime: C stands there twice");
}

TEST(SessionOrderTest, NestsToItsBoundAndNoDeeper) {
  const auto nested = [](int depth) {
    return absl::StrCat(std::string(depth, '('), "A", std::string(depth, ')'), " B C");
  };
  EXPECT_EQ(Wrong(nested(kSessionOrderDepthMax)), "");
  EXPECT_THAT(Wrong(nested(kSessionOrderDepthMax + 1)), HasSubstr("more than 100 nested parentheses"));
  EXPECT_THAT(Wrong(std::string(1'000'000, '(')), StartsWith("session order, at \"("));
}

}  // namespace
}  // namespace troupe::generator
