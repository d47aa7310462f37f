// The exception handler (C-EXC) and debug mode (C-DBG).
#include <glog/logging.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "troupe/loop/event_loop.h"
#include "troupe/loop/exception_context.h"
#include "troupe/loop/loop_testing.h"

namespace troupe {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

// What is logged while it lives.
class CapturedLog final : public google::LogSink {
 public:
  CapturedLog() { google::AddLogSink(this); }
  ~CapturedLog() override { google::RemoveLogSink(this); }
  void send(google::LogSeverity severity, const char*, const char*, int, const google::LogMessageTime&,
            const char* message, size_t bytes) override {
    records.push_back(std::string(google::GetLogSeverityName(severity)) + ": " + std::string(message, bytes));
  }
  std::vector<std::string> records;
};

using ExceptionHandlerTest = LoopTest;
INSTANTIATE_POLLING(ExceptionHandlerTest);

// C-EXC-01
TEST_P(ExceptionHandlerTest, TheDefaultHandlerLogsOneRecordMessageFirstThenTheKeysSorted) {
  loop_.SetExceptionHandler(nullptr);
  CapturedLog log;
  ExceptionContext context;
  context.Add("transport", "T").Add("future", "F").Add("custom", "C");
  context.exception = std::make_exception_ptr(std::runtime_error("x"));
  loop_.CallExceptionHandler(context);
  context.message = "Something failed";
  context.exception = nullptr;
  context.status = absl::NotFoundError("y");
  loop_.CallExceptionHandler(context);
  EXPECT_THAT(log.records,
              ElementsAre("ERROR: Unhandled exception in event loop\ncustom: C\nfuture: F\ntransport: T\n"
                          "exception: std::runtime_error: x",
                          "ERROR: Something failed\ncustom: C\nfuture: F\ntransport: T\nstatus: NOT_FOUND: y"));
}

// C-EXC-03, C-HND-03
TEST_P(ExceptionHandlerTest, ACustomHandlerReplacesTheDefaultAndMayCallIt) {
  CapturedLog log;
  loop_.SetExceptionHandler([&](EventLoop& loop, const ExceptionContext& context) {
    EXPECT_EQ(&loop, &loop_);
    log_.push_back(context.message);
    EXPECT_THAT(context.Get("handle"), HasSubstr("exception_handler_test.cc"));
    EXPECT_EQ(DescribeException(context.exception), "std::runtime_error: x");
    loop.DefaultExceptionHandler(context);
  });
  loop_.CallSoon([] { throw std::runtime_error("x"); });
  RunReady();
  EXPECT_THAT(log_, ElementsAre(StartsWith("Exception in callback ")));
  EXPECT_THAT(log.records, ElementsAre(AllOf(HasSubstr("Exception in callback "), HasSubstr("handle: <Handle"),
                                             HasSubstr("exception: std::runtime_error: x"))));
}

// C-EXC-02: a StatusError is told as the status that it carries.
TEST_P(ExceptionHandlerTest, AThrownStatusErrorIsReportedAsItsStatus) {
  loop_.CallSoon([] { throw StatusError(absl::DataLossError("d")); });
  RunReady();
  ASSERT_EQ(reports_.size(), 1u);
  EXPECT_EQ(reports_[0].status, absl::DataLossError("d"));
  EXPECT_EQ(reports_[0].exception, nullptr);
  TakeReports();
}

// C-EXC-04
TEST_P(ExceptionHandlerTest, NoneRestoresTheDefault) {
  EXPECT_TRUE(loop_.has_exception_handler());
  loop_.SetExceptionHandler(nullptr);
  EXPECT_FALSE(loop_.has_exception_handler());
  CapturedLog log;
  loop_.CallSoon([] { throw std::runtime_error("x"); });
  RunReady();
  EXPECT_EQ(log.records.size(), 1u);
}

// C-EXC-05
TEST_P(ExceptionHandlerTest, AHandlerThatThrowsFallsBackToTheDefault) {
  loop_.SetExceptionHandler([](EventLoop&, const ExceptionContext&) { throw std::logic_error("broken"); });
  CapturedLog log;
  loop_.CallSoon([] { throw std::runtime_error("x"); });
  loop_.CallSoon([this] { log_.push_back("the batch goes on"); });
  RunReady();
  EXPECT_THAT(log.records,
              ElementsAre(AllOf(StartsWith("ERROR: Unhandled error in exception handler"),
                                HasSubstr("context: Exception in callback"), HasSubstr("std::logic_error: broken"))));
  EXPECT_THAT(log_, ElementsAre("the batch goes on"));
  loop_.SetExceptionHandler([](EventLoop&, const ExceptionContext&) { throw Cancelled(); });
  loop_.CallSoon([] { throw std::runtime_error("x"); });
  RunReady();
  EXPECT_EQ(log.records.size(), 2u);
}

// C-EXC-07
TEST_P(ExceptionHandlerTest, AFatalOfTheHandlerLeavesTheLoop) {
  loop_.SetExceptionHandler([](EventLoop&, const ExceptionContext&) { throw Fatal("out"); });
  loop_.CallSoon([] { throw std::runtime_error("x"); });
  loop_.CallSoon([this] { log_.push_back("later"); });
  EXPECT_THROW(RunReady(), Fatal);
  EXPECT_THAT(log_, IsEmpty());
  RunReady();
  EXPECT_THAT(log_, ElementsAre("later"));
}

// C-EXC-07, from where nothing may be thrown.
TEST_P(ExceptionHandlerTest, AFatalOfAHandlerCalledByADestructorLeavesTheLoopInItsNextIteration) {
  loop_.SetExceptionHandler([](EventLoop&, const ExceptionContext&) { throw Fatal("out"); });
  loop_.CallExceptionHandlerLater(ExceptionContext());
  EXPECT_THROW(RunReady(), Fatal);
  loop_.SetExceptionHandler(nullptr);
}

TEST_P(ExceptionHandlerTest, AHandlerMayReplaceItself) {
  const auto owned = std::make_shared<int>(7);
  loop_.SetExceptionHandler([this, owned](EventLoop& loop, const ExceptionContext&) {
    loop.SetExceptionHandler(nullptr);
    log_.push_back(std::to_string(*owned));
  });
  loop_.CallSoon([] { throw std::runtime_error("x"); });
  RunReady();
  EXPECT_THAT(log_, ElementsAre("7"));
  EXPECT_EQ(owned.use_count(), 1);
}

// C-EXC-08, C-DBG-06
TEST_P(ExceptionHandlerTest, InDebugModeTheReportSaysWhereTheHandleWasMade) {
  loop_.SetDebug(true);
  loop_.CallSoon([] { throw std::runtime_error("x"); });
  RunReady();
  ASSERT_EQ(reports_.size(), 1u);
  EXPECT_THAT(reports_[0].source_traceback, HasSubstr("exception_handler_test.cc:"));
  EXPECT_THAT(reports_[0].ToString(), HasSubstr("created at:\nframework/loop/exception_handler_test.cc:"));
  TakeReports();

  // A context without a source of its own gets that of the callback that runs.
  loop_.SetExceptionHandler(nullptr);
  CapturedLog log;
  loop_.CallSoon([this] {
    ExceptionContext context;
    context.message = "from inside";
    loop_.CallExceptionHandler(context);
  });
  RunReady();
  EXPECT_THAT(log.records, ElementsAre(AllOf(StartsWith("ERROR: from inside\nwhile running: <Handle created at "),
                                             HasSubstr("exception_handler_test.cc:"))));
}

TEST_P(ExceptionHandlerTest, ExceptionsDescribeThemselves) {
  EXPECT_EQ(DescribeException(nullptr), "none");
  EXPECT_EQ(DescribeException(std::make_exception_ptr(Cancelled())), "troupe::Cancelled");
  EXPECT_EQ(DescribeException(std::make_exception_ptr(Fatal("f"))), "troupe::Fatal: f");
  EXPECT_EQ(DescribeException(std::make_exception_ptr(5)), "int");
  EXPECT_EQ(DescribeException(std::make_exception_ptr(StatusError(absl::NotFoundError("n")))),
            "troupe::StatusError: NOT_FOUND: n");
}

// ---------------------------------------------------------------------------------------------------- debug mode

using DebugTest = LoopTest;
INSTANTIATE_POLLING(DebugTest);

// C-DBG-03
TEST_P(DebugTest, SlowCallbacksAreLogged) {
  loop_.SetDebug(true);
  CapturedLog log;
  const auto take = [this](absl::Duration time) {
    return [this, time] { os_.kernel().clock().AdvanceTo(loop_.Time() + time); };
  };
  loop_.CallSoon(take(absl::Milliseconds(99)));
  RunReady();
  EXPECT_THAT(log.records, IsEmpty());
  loop_.CallSoon(take(absl::Milliseconds(100)));
  RunReady();
  EXPECT_THAT(log.records,
              ElementsAre(AllOf(StartsWith("WARNING: Executing <Handle created at framework/loop/exception_handler"),
                                HasSubstr("> took 0.100 seconds"))));
  loop_.SetSlowCallbackDuration(absl::Seconds(5));
  loop_.CallSoon(take(absl::Seconds(4)));
  RunReady();
  EXPECT_EQ(log.records.size(), 1u);
}

// C-DBG-04
TEST_P(DebugTest, LongPollsAreLogged) {
  loop_.SetDebug(true);
  CapturedLog log;
  loop_.CallLater(absl::Milliseconds(999), [this] { loop_.Stop(); });
  loop_.RunForever();
  EXPECT_THAT(log.records, IsEmpty());
  loop_.CallLater(absl::Seconds(1), [this] { loop_.Stop(); });
  loop_.RunForever();
  EXPECT_THAT(log.records, ElementsAre("INFO: poll took 1s: 0 events"));
}

// C-DBG-07
TEST_P(DebugTest, ItMayBeSwitchedWhileTheLoopRuns) {
  CapturedLog log;
  const auto slow = [this] { os_.kernel().clock().AdvanceTo(loop_.Time() + absl::Seconds(1)); };
  loop_.CallSoon([this] { loop_.SetDebug(true); });
  loop_.CallSoon(slow);
  loop_.CallSoon([this] { loop_.SetDebug(false); });
  loop_.CallSoon(slow);
  RunReady();
  EXPECT_EQ(log.records.size(), 1u);
}

TEST_P(DebugTest, ExceptionsLeaveItInOrder) {
  loop_.SetDebug(true);
  loop_.CallSoon([] { throw Fatal("out"); });
  loop_.CallSoon([this] { log_.push_back("b"); });
  EXPECT_THROW(RunReady(), Fatal);
  RunReady();
  EXPECT_THAT(log_, ElementsAre("b"));
}

}  // namespace
}  // namespace troupe
