#include "troupe/testing/sim_world.h"

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gtest/gtest.h"
#include "troupe/base/errors.h"

namespace troupe::testing {
namespace {

// Every tenth seed runs twice: the traces must agree.
constexpr int kSeedsPerRepetition = 10;

SimHostOptions Named(absl::string_view name) {
  SimHostOptions options;
  options.name = std::string(name);
  return options;
}

uint64_t RunSeed(uint64_t seed, absl::FunctionRef<void(SimWorld&)> test) {
  SimWorld world(seed);
  test(world);
  return world.TraceHash();
}

}  // namespace

SimHost::SimHost(SimKernel& kernel, SimHostOptions options) : os_(kernel, std::move(options)), loop_(os_) {
  loop_.SetExceptionHandler(
      [this](EventLoop&, const ExceptionContext& context) { reports_.push_back(context.ToString()); });
}

SimHost::~SimHost() {
  loop_.Close();
  if (!reports_.empty()) {
    ADD_FAILURE() << "host " << name() << ": unexpected reports to the exception handler:\n"
                  << absl::StrJoin(reports_, "\n");
  }
}

SimWorld::SimWorld(uint64_t seed) : kernel_(seed) {}

SimHost& SimWorld::AddHost(absl::string_view name) {
  hosts_.push_back(std::make_unique<SimHost>(kernel_, Named(name)));
  return *hosts_.back();
}

bool SimWorld::RunReady() {
  bool ran = false;
  for (const auto& host : hosts_) {
    if (host->loop().RunOnceWithoutWaiting()) ran = true;
  }
  return ran;
}

MonotonicTime SimWorld::NextTime() {
  MonotonicTime next = kernel_.NextEventTime();
  for (const auto& host : hosts_) next = std::min(next, host->loop().NextWakeup());
  return next;
}

void SimWorld::RunUntil(absl::FunctionRef<bool()> done) {
  while (!done()) {
    if (RunReady()) continue;
    const MonotonicTime next = NextTime();
    if (next.is_infinite()) {
      std::string text = "nothing is left that could happen; suspended tasks:";
      for (const auto& host : hosts_) {
        for (const internal::TaskNode& task : host->loop().tasks()) {
          absl::StrAppend(&text, "\n", host->name(), ": ", task.DescribeTask());
        }
      }
      throw InvalidState(text);
    }
    kernel_.AdvanceTo(next);
  }
}

void SimWorld::RunFor(absl::Duration duration) {
  const MonotonicTime end = Now() + duration;
  bool over = false;
  kernel_.At(end, [&over] { over = true; });
  RunUntil([&over] { return over; });
}

void SimWorld::SetStalled(SimHost& a, SimHost& b, bool stalled) {
  for (const auto& [from, to] : {std::pair(&a, &b), std::pair(&b, &a)}) {
    SimLink link = kernel_.Link(from->os(), to->os());
    link.stalled = stalled;
    kernel_.SetLink(from->os(), to->os(), link);
  }
}

void Simulate(const SimulateOptions& options, absl::FunctionRef<void(SimWorld&)> test) {
  uint64_t first = options.first_seed;
  int seeds = options.seeds;
  if (const char* one = std::getenv("TROUPE_SIM_SEED"); one != nullptr && absl::SimpleAtoi(one, &first)) seeds = 1;
  const ::testing::TestInfo* info = ::testing::UnitTest::GetInstance()->current_test_info();
  for (int i = 0; i < seeds; ++i) {
    const uint64_t seed = first + static_cast<uint64_t>(i);
    try {
      const uint64_t hash = RunSeed(seed, test);
      if (i % kSeedsPerRepetition == 0 && !::testing::Test::HasFailure()) {
        EXPECT_EQ(RunSeed(seed, test), hash) << "the same seed gave another trace";
      }
    } catch (const std::exception& error) {
      ADD_FAILURE() << error.what();
    }
    if (!::testing::Test::HasFailure()) continue;
    std::cerr << "\nSeed " << seed << " failed. To run it alone: TROUPE_SIM_SEED=" << seed
              << " with --gtest_filter=" << (info ? absl::StrCat(info->test_suite_name(), ".", info->name()) : "*")
              << "\n";
    return;
  }
}

}  // namespace troupe::testing
