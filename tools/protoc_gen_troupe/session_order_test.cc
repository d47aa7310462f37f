#include "tools/protoc_gen_troupe/session_order.h"

#include <algorithm>
#include <regex>
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
  const absl::Status status = CompileSessionOrder(order, anytime, methods).status();
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
  EXPECT_EQ(Wrong("", {"A"}), "session anytime: methods of any time without a session order");
}

TEST(SessionOrderTest, SaysWhereTheTextIsWrong) {
  EXPECT_EQ(Wrong("A (B C"), "session order, at its end: \")\" expected");
  EXPECT_EQ(Wrong("A B) C"), "session order, at \") C\": \")\" without \"(\"");
  EXPECT_EQ(Wrong("A | "), "session order, at its end: a method or \"(\" expected");
  EXPECT_EQ(Wrong("| A"), "session order, at \"| A\": a method or \"(\" expected");
  EXPECT_EQ(Wrong("A || B"), "session order, at \"| B\": a method or \"(\" expected");
  EXPECT_EQ(Wrong("A () B C"), "session order, at \") B C\": a method or \"(\" expected");
  EXPECT_EQ(Wrong("* A B C"), "session order, at \"* A B C\": a method or \"(\" expected");
  EXPECT_EQ(Wrong("A** B C"),
            "session order, at \"* B C\": what stands before it is repeated already, by \"*\"; keep one of them");
  EXPECT_EQ(Wrong("(A B)+ ? C"),
            "session order, at \"? C\": what stands before it is repeated already, by \"+\"; keep one of them");
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

// The automaton of an order over A, B and C, as "0: A1 | 1*: B1 C0": a state, a star if the session may end there, and
// where each method leads.
std::string Automaton(const std::string& order, const std::vector<std::string>& anytime = {}) {
  const std::vector<std::string> methods = {"A", "B", "C"};
  const absl::StatusOr<SessionAutomaton> automaton = CompileSessionOrder(order, anytime, methods);
  if (!automaton.ok()) return automaton.status().ToString();
  std::string text;
  for (size_t state = 0; state < automaton->next.size(); ++state) {
    absl::StrAppend(&text, state == 0 ? "" : " | ", state, automaton->accepting[state] ? "*:" : ":");
    for (size_t step = 0; step < automaton->steps.size(); ++step) {
      const int next = automaton->next[state][step];
      if (next != SessionAutomaton::kNotAllowed) absl::StrAppend(&text, " ", automaton->steps[step], next);
    }
  }
  return text;
}

TEST(SessionOrderTest, CompilesToTheSmallestAutomaton) {
  EXPECT_EQ(Automaton(""), "");
  EXPECT_EQ(Automaton("A B C"), "0: A1 | 1: B2 | 2: C3 | 3*:");
  EXPECT_EQ(Automaton("A|B|C"), "0: A1 B1 C1 | 1*:");
  EXPECT_EQ(Automaton("(A|B|C)*"), "0*: A0 B0 C0");
  EXPECT_EQ(Automaton("(A|B|C)+"), "0: A1 B1 C1 | 1*: A1 B1 C1");
  EXPECT_EQ(Automaton("A (B)* C?"), "0: A1 | 1*: B1 C2 | 2*:");
  EXPECT_EQ(Automaton("A* B+ C?"), "0: A0 B1 | 1*: B1 C2 | 2*:");
  EXPECT_EQ(Automaton("(A B? | C)+"), "0: A1 C2 | 1*: A1 B2 C2 | 2*: A1 C2");
  EXPECT_EQ(Automaton("A B*", {"C"}), "0: A1 | 1*: B1") << "methods of any time have no column";
  EXPECT_EQ(Automaton("C B A"), "0: C1 | 1: B2 | 2: A3 | 3*:")
      << "columns are the service's, states as they are reached";
}

TEST(SessionOrderTest, TextsThatMeanTheSameGiveTheSameTables) {
  EXPECT_EQ(Automaton("A (B | C)*"), Automaton("A (C* B*)*"));
  EXPECT_EQ(Automaton("A B C | A C B"), Automaton("A (B C | C B)"));
  EXPECT_EQ(Automaton("(A B C)? (A B C)*"), Automaton("(A B C)*"));
  EXPECT_EQ(Automaton("A A* B C"), Automaton("A+ B C"));
  EXPECT_EQ(Automaton("((A?)*)* B C"), Automaton("A* B C"));
  EXPECT_NE(Automaton("A* B C"), Automaton("A+ B C"));
}

// What the automaton accepts is what a regular expression over one letter a method accepts.
TEST(SessionOrderTest, AcceptsWhatTheExpressionAccepts) {
  for (const std::string order : {"A (B | C)* A+ B?", "(A B | B C | C A)*", "((A | B)? C)+", "A* B* C*",
                                  "(A (B (C)?)*)?", "(A | B)* A (A | B) C?"}) {
    std::string pattern = order;
    pattern.erase(std::remove(pattern.begin(), pattern.end(), ' '), pattern.end());
    const std::regex regex(pattern);
    const std::vector<std::string> methods = {"A", "B", "C"};
    const absl::StatusOr<SessionAutomaton> automaton = CompileSessionOrder(order, {}, methods);
    ASSERT_TRUE(automaton.ok()) << automaton.status();
    std::vector<std::string> words = {""};
    for (size_t i = 0; i < words.size() && words[i].size() <= 6; ++i) {
      int state = 0;
      for (const char c : words[i]) {
        if (state != SessionAutomaton::kNotAllowed) state = automaton->next[state][c - 'A'];
      }
      const bool accepted = state != SessionAutomaton::kNotAllowed && automaton->accepting[state];
      EXPECT_EQ(accepted, std::regex_match(words[i], regex)) << order << " and \"" << words[i] << "\"";
      for (const char c : {'A', 'B', 'C'}) words.push_back(words[i] + c);
    }
  }
}

TEST(SessionOrderTest, StatesAreCountedAndBounded) {
  const auto chain = [](size_t length) {
    std::string order;
    for (size_t i = 0; i < length; ++i) order += "A ";
    return order + "(B | C)?";
  };
  EXPECT_EQ(Wrong(chain(kSessionOrderStatesMax - 2)), "");
  EXPECT_EQ(Wrong(chain(kSessionOrderStatesMax - 1)),
            "session order: it has 256 states, and at most 255 can be had: write it shorter");
  // Where the n-th from the end is asked for, each n doubles the states.
  std::string doubling = "(A | B)* A C?";
  for (int i = 0; i < 30; ++i) doubling += " (A | B)";
  EXPECT_EQ(Wrong(doubling),
            "session order: it has too many states to be compiled; at most 255 can be had: write it "
            "shorter");
  EXPECT_THAT(Wrong(chain(kSessionOrderStepsMax - 1)), HasSubstr("more than 500 methods in one order"));
}

}  // namespace
}  // namespace troupe::generator
