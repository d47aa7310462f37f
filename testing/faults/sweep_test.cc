// How this test works: one test for each scenario, which prints its table; then what they met together. Run alone, by
// `tools/run faults`, it prints the totals of all.
#include "troupe/testing/faults/sweep.h"

#include <glog/logging.h>

#include <iostream>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/os/os_errors.h"
#include "troupe/testing/faults/all_scenarios.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/lsan_interface.h>
#endif

namespace troupe::testing {
namespace {

std::vector<FaultTable>& Tables() {
  static auto& tables = *new std::vector<FaultTable>;
  return tables;
}

class SweepTest : public ::testing::TestWithParam<Scenario> {
 protected:
  SweepTest() { FLAGS_minloglevel = google::GLOG_FATAL; }  // thousands of things go wrong here, as they should
  ~SweepTest() override {
#if defined(__SANITIZE_ADDRESS__)
    EXPECT_EQ(__lsan_do_recoverable_leak_check(), 0);
#endif
  }
  static void TearDownTestSuite() {
    if (!Tables().empty()) std::cout << "\nAll of these: " << Totals(Tables());
  }
};

TEST_P(SweepTest, EveryCallMayFailWithEveryError) {
  Tables().push_back(Sweep(GetParam()));
  std::cout << Tables().back().ToString();
  EXPECT_FALSE(Tables().back().cells().empty());
}

TEST_P(SweepTest, DescriptorsAndMemoryMayRunOutForAWhile) { std::cout << SweepShortages(GetParam()).ToString(); }

TEST_P(SweepTest, NobodyNoticesACallThatMovesOneByteOnly) { std::cout << SweepShortCalls(GetParam()).ToString(); }

INSTANTIATE_TEST_SUITE_P(Scenarios, SweepTest, ::testing::ValuesIn(AllScenarios()),
                         [](const auto& info) { return info.param.name; });

TEST(CoverageTest, EveryCallThatCanFailIsMadeByAScenario) {
  std::set<std::string> called;
  for (const Scenario& scenario : AllScenarios()) {
    for (const std::string& operation : RunWithoutFault(scenario)) called.insert(operation);
  }
  for (const OsCallErrors& row : AllOsErrors()) {
    const std::string call(row.call);
    if (row.errors.empty()) {
      EXPECT_EQ(called.count(call), 0u) << call << " can fail, but os_errors.cc lists no error of it";
    } else {
      EXPECT_EQ(called.count(call), 1u) << call << " is not made";
    }
  }
}

}  // namespace
}  // namespace troupe::testing
