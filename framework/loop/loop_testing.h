// LoopTest: the world of the loop's own tests: a simulated machine in virtual time, a loop on it, and what it reports.
//
// Every test runs twice, with strict polling and with batches that share a poll:
//
//   using GatherTest = LoopTest;
//   INSTANTIATE_POLLING(GatherTest);
//   TEST_P(GatherTest, ResultsComeInArgumentOrder) { ... }
//
// A report to the exception handler that the test has not taken by TakeReports() fails it, and so does a task that the
// test left pending. A loop in which nothing can ever happen again throws, with the dump of its tasks.
#ifndef TROUPE_LOOP_LOOP_TESTING_H_
#define TROUPE_LOOP_LOOP_TESTING_H_

#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/loop/event_loop.h"
#include "troupe/testing/sim/sim_os.h"

namespace troupe {

enum class Polling { kStrict, kShared };

inline std::string PollingName(const ::testing::TestParamInfo<Polling>& info) {
  return info.param == Polling::kStrict ? "strict" : "shared";
}

#define INSTANTIATE_POLLING(fixture) \
  INSTANTIATE_TEST_SUITE_P(Polling, fixture, ::testing::Values(Polling::kStrict, Polling::kShared), PollingName)

class LoopTest : public ::testing::TestWithParam<Polling> {
 protected:
  LoopTest() : loop_(os_, {.strict_polling = GetParam() == Polling::kStrict}) {
    loop_.SetExceptionHandler([this](EventLoop&, const ExceptionContext& context) { reports_.push_back(context); });
  }
  ~LoopTest() override {
    EXPECT_TRUE(loop_.IsClosed() || loop_.tasks().empty()) << "left pending:\n" << loop_.tasks().front().DescribeTask();
    loop_.Close();
    for (const ExceptionContext& report : reports_) ADD_FAILURE() << "unexpected report: " << report.ToString();
  }

  // Messages reported since the last call.
  std::vector<std::string> TakeReports() {
    std::vector<std::string> messages;
    for (const ExceptionContext& report : reports_) messages.push_back(report.message);
    reports_.clear();
    return messages;
  }

  // Runs what is ready now, and what becomes ready by that, without letting time pass.
  void RunReady() {
    while (loop_.NextWakeup() <= loop_.Time()) loop_.RunOnceWithoutWaiting();
  }
  // Lets exactly n iterations pass (one of shared polling may be many batches: so only of a strict loop).
  void RunIterations(int n) {
    for (int i = 0; i < n; ++i) loop_.RunOnceWithoutWaiting();
  }

  testing::SimOs os_;
  EventLoop loop_;
  std::vector<ExceptionContext> reports_;
  std::vector<std::string> log_;
};

// Counts batches: by how many iterations something took, whatever the polling.
class Iterations final : public Runnable {
 public:
  explicit Iterations(EventLoop& loop) : loop_(loop) { loop_.Schedule(*this); }
  int count() const { return count_; }

 private:
  void Run() override {
    ++count_;
    loop_.Schedule(*this);
  }
  EventLoop& loop_;
  int count_ = 0;
};

}  // namespace troupe

#endif  // TROUPE_LOOP_LOOP_TESTING_H_
