// What replies do with the combinators of tasks; how calls go, session_test.cc has.
#include "troupe/rpc/reply.h"

#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "echo/v1/echo.troupe.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/gather.h"
#include "troupe/async/sleep.h"
#include "troupe/async/wait_for.h"
#include "troupe/base/errors.h"
#include "troupe/testing/in_process.h"
#include "troupe/testing/matchers.h"

namespace troupe {
namespace {

using echo::v1::EchoActor;
using echo::v1::EchoRequest;
using echo::v1::EchoResponse;
using echo::v1::EchoStub;
using testing::StatusIs;

int cancelled = 0;

// Answers at once, and never when asked to.
class Echoes final : public EchoActor {
 public:
  Task<absl::Status> Echo(const EchoRequest& request, EchoResponse& response, Call&) override {
    if (request.message() == "nothing") co_return absl::NotFoundError("nothing");
    try {
      if (request.message() == "never") {
        co_await Sleep(absl::Hours(1000));
      }
    } catch (const Cancelled&) {
      ++cancelled;
      throw;
    }
    response.set_message(request.message());
    co_return absl::OkStatus();
  }
};

EchoRequest Request(std::string text) {
  EchoRequest request;
  request.set_message(std::move(text));
  return request;
}

class ReplyTest : public ::testing::Test {
 protected:
  ReplyTest() { cancelled = 0; }
  testing::InProcess<Echoes> service_;
};

Task<absl::Status> GatherReplies(EchoStub stub) {
  auto both = co_await Gather(stub.Echo(Request("a")), stub.Echo(Request("b")));
  if (!both.ok()) co_return both.status();
  EXPECT_EQ(std::get<0>(*both).message() + std::get<1>(*both).message(), "ab");
  std::vector<Reply<EchoResponse>> replies;
  for (const char* text : {"c", "d", "nothing"}) replies.push_back(stub.Echo(Request(text)));
  auto settled = co_await GatherSettled(std::move(replies));
  EXPECT_EQ(settled.size(), 3u);
  EXPECT_EQ(settled[1].result()->message(), "d");
  EXPECT_THAT(settled[2].result(), StatusIs(absl::StatusCode::kNotFound, "nothing"));
  auto failed = co_await Gather(stub.Echo(Request("e")), stub.Echo(Request("nothing")));
  co_return failed.status();
}

TEST_F(ReplyTest, GatherTakesReplies) {
  EXPECT_THAT(service_.Run(GatherReplies(service_.stub())), StatusIs(absl::StatusCode::kNotFound, "nothing"));
}

TEST_F(ReplyTest, WaitForTakesAReplyAndCancelsTheCallWhenTheTimeIsUp) {
  EchoStub stub = service_.stub();
  EXPECT_THAT(service_.Run(WaitFor(stub.Echo(Request("x")), absl::Seconds(1))), testing::IsOk());
  EXPECT_THAT(service_.Run(WaitFor(stub.Echo(Request("never")), absl::Seconds(1))),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  service_.Advance(absl::Seconds(1));
  EXPECT_EQ(cancelled, 1);
}

TEST_F(ReplyTest, ATaskOfAReplyCancelsTheCallWhenItIsCancelled) {
  auto waiting = service_.loop().CreateTask(service_.stub().Echo(Request("never")).AsTask());
  service_.Advance(absl::Seconds(1));
  waiting.Cancel();
  service_.Advance(absl::Seconds(1));
  EXPECT_TRUE(waiting.cancelled());
  EXPECT_EQ(cancelled, 1);
}

Task<std::string> AwaitTwice(EchoStub stub) {
  Reply<EchoResponse> reply = stub.Echo(Request("x"));
  const absl::StatusOr<EchoResponse> first = co_await reply;
  if (!first.ok()) co_return first.status().ToString();
  try {
    const absl::StatusOr<EchoResponse> second = co_await reply;
    co_return "twice";
  } catch (const InvalidState& error) {
    co_return error.what();
  }
}

TEST_F(ReplyTest, AReplyIsAwaitedOnce) {
  EXPECT_EQ(service_.Run(AwaitTwice(service_.stub())), "the reply was awaited before");
}

TEST_F(ReplyTest, AStringThatIsNotUtf8IsRefusedWithoutALineInTheLog) {
  EchoStub stub = service_.stub();
  const EchoRequest request = Request("\xff");
  ::testing::internal::CaptureStderr();
  const absl::StatusOr<EchoResponse> got = service_.Run(stub.Echo(request));
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
  EXPECT_FALSE(got.ok());
}

// A handler that is no coroutine and has forgotten to make a task, and one that ends without a status.
class Forgetful final : public EchoActor {
 public:
  Task<absl::Status> Echo(const EchoRequest&, EchoResponse&, Call&) override { return {}; }
};

TEST_F(ReplyTest, AHandlerThatReturnsATaskOfNothingFailsItsCall) {
  testing::InProcess<Forgetful> service;
  EXPECT_THAT(service.Run(service.stub().Echo(Request("x"))), StatusIs(absl::StatusCode::kUnknown));
  EXPECT_THAT(service.TakeReports(), ::testing::SizeIs(1));
}

#ifndef __clang__
class Endless final : public EchoActor {
 public:
  Task<absl::Status> Echo(const EchoRequest&, EchoResponse&, Call&) override { co_await Sleep(absl::ZeroDuration()); }
};

TEST_F(ReplyTest, AHandlerThatEndsWithoutAStatusFailsItsCall) {
  testing::InProcess<Endless> service;
  EXPECT_THAT(service.Run(service.stub().Echo(Request("x"))), StatusIs(absl::StatusCode::kUnknown));
  EXPECT_THAT(service.TakeReports(), ::testing::SizeIs(1));
}
#endif

}  // namespace
}  // namespace troupe
