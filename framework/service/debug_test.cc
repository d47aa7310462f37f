// What is said of handlers that hang, are slow, or are called from where they may not be: their method and their peer.
#include <glog/logging.h>

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "echo/v1/echo.troupe.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/future.h"
#include "troupe/base/errors.h"
#include "troupe/rpc/reply.h"
#include "troupe/rpc/stream.h"
#include "troupe/service/testing_actor.h"
#include "troupe/testing/in_process.h"
#include "troupe/testing/matchers.h"

namespace troupe {
namespace {

using ::echo::v1::EchoRequest;
using ::echo::v1::EchoResponse;
using ::echo::v1::ExpandRequest;
using ::echo::v1::ExpandResponse;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::troupe::internal::Script;
using ::troupe::internal::ScriptedEcho;
using ::troupe::testing::InProcess;

using Status = Script::Status;

class Warnings final : public google::LogSink {
 public:
  Warnings() { google::AddLogSink(this); }
  ~Warnings() override { google::RemoveLogSink(this); }
  void send(google::LogSeverity severity, const char*, const char*, int, const struct tm*, const char* message,
            size_t length) override {
    if (severity == google::GLOG_WARNING) said.emplace_back(message, length);
  }
  std::vector<std::string> said;
};

class DebugTest : public ::testing::Test {
 protected:
  // A step that takes so long.
  void Take(absl::Duration time) { service_.os().kernel().clock().AdvanceTo(service_.loop().Time() + time); }
  // What a call of the stub says when it is made on another thread than the loop's, while that runs.
  template <class F>
  std::string OnAnotherThread(F call) {
    std::string said = "nothing";
    std::thread stranger([&] {
      try {
        call();
      } catch (const InvalidState& refused) {
        said = refused.what();
      }
    });
    stranger.join();
    return said;
  }

  Script script_;
  InProcess<ScriptedEcho> service_{std::ref(script_)};
};

Status WaitFor(Future<void> something) {
  co_await std::move(something);
  co_return absl::OkStatus();
}

TEST_F(DebugTest, AHangNamesTheHandlerThatHangs) {
  auto never = std::make_unique<Promise<void>>(service_.loop());
  script_.echo = [&](const EchoRequest&, EchoResponse&, Call&) { return WaitFor(never->future()); };
  std::string said = "nothing";
  try {
    static_cast<void>(service_.Run(service_.stub().Echo(EchoRequest())));
  } catch (const InvalidState& stalled) {
    said = stalled.what();
  }
  EXPECT_THAT(said, AllOf(HasSubstr("nothing is left that could wake the event loop"),
                          HasSubstr("<Handler of /echo.v1.Echo/Echo for troupe/1 "), HasSubstr("debug_test.cc:"),
                          HasSubstr("waits in <Future pending")));
  never->SetValue();
  service_.RunUntilIdle();
  EXPECT_TRUE(service_.loop().tasks().empty()) << "and goes when it ends";
  static_cast<void>(service_.TakeReports());  // nobody took the result of the task that stood still
}

TEST_F(DebugTest, AHandlerThatEndsInPlaceIsNoTask) {
  bool listed = true;
  script_.echo = [&](const EchoRequest&, EchoResponse&, Call&) -> Status {
    listed = false;
    for (const internal::TaskNode& task : service_.loop().tasks()) {
      listed = listed || task.DescribeTask().find("Handler") != std::string::npos;
    }
    co_return absl::OkStatus();
  };
  EXPECT_OK(service_.Run(service_.stub().Echo(EchoRequest())));
  EXPECT_FALSE(listed);
}

// C-DBG-03
TEST_F(DebugTest, ASlowHandlerIsNamedWithItsPeerInEachOfItsSteps) {
  auto next = std::make_unique<Promise<void>>(service_.loop());
  absl::Duration first = absl::Seconds(1), second = absl::ZeroDuration();
  script_.echo = [&](const EchoRequest&, EchoResponse&, Call&) -> Status {
    Take(first);
    Future<void> wakes = next->future();
    co_await std::move(wakes);
    Take(second);
    co_return absl::OkStatus();
  };
  service_.loop().SetDebug(true);
  const auto run = [&] {
    Warnings warnings;
    Reply<EchoResponse> reply = service_.stub().Echo(EchoRequest());
    service_.RunUntilIdle();
    next->SetValue();
    EXPECT_OK(service_.Run(reply));
    next = std::make_unique<Promise<void>>(service_.loop());
    return warnings.said;
  };
  const auto names_it =
      Contains(AllOf(HasSubstr("Executing <Handler of /echo.v1.Echo/Echo for troupe/1 "), HasSubstr("> took 1.000")));
  EXPECT_THAT(run(), names_it) << "the first, which its transport runs";
  first = absl::ZeroDuration();
  second = absl::Seconds(1);
  EXPECT_THAT(run(), names_it) << "a later one, which the loop runs";
  second = absl::ZeroDuration();
  EXPECT_THAT(run(), IsEmpty());
}

// C-DBG-01
TEST_F(DebugTest, ACallFromTheWrongThreadIsNamedWithItsPeer) {
  std::string call, write;
  script_.echo = [&](const EchoRequest&, EchoResponse&, Call&) -> Status {
    call = OnAnotherThread([&] { service_.stub().Echo(EchoRequest()).Cancel(); });
    co_return absl::OkStatus();
  };
  script_.expand = [&](const ExpandRequest&, Writer<ExpandResponse> writer, Call&) -> Status {
    write = OnAnotherThread([&] { writer.WriteWithoutWaiting(ExpandResponse()); });
    co_return absl::OkStatus();
  };
  service_.loop().SetDebug(true);
  EXPECT_OK(service_.Run(service_.stub().Echo(EchoRequest())));
  EXPECT_THAT(call, AllOf(HasSubstr("Non-thread-safe operation invoked on an event loop other than the current one: "
                                    "/echo.v1.Echo/Echo, troupe/1 "),
                          HasSubstr(" -> ")));
  auto stream = service_.stub().Expand(ExpandRequest());
  EXPECT_OK(service_.Run([&] { return stream.Finish(); }));
  EXPECT_THAT(write, AllOf(HasSubstr("/echo.v1.Echo/Expand, troupe/1 "), HasSubstr(" <- ")));
}

}  // namespace
}  // namespace troupe
