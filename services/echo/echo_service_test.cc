#include "services/echo/echo_service.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/task.h"
#include "troupe/testing/in_process.h"
#include "troupe/testing/matchers.h"

namespace echo::v1 {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using troupe::Task;
using troupe::testing::EqualsProto;
using troupe::testing::InProcess;
using troupe::testing::IsOk;
using troupe::testing::IsOkAndHolds;
using troupe::testing::StatusIs;

class EchoServiceTest : public ::testing::Test {
 protected:
  InProcess<EchoService> echo_;
};

TEST_F(EchoServiceTest, EchoGivesBackTheMessage) {
  EchoRequest request;
  EXPECT_THAT(echo_.Run(echo_.stub().Echo(request)), IsOkAndHolds(EqualsProto("")));
  request.set_message("hello");
  EXPECT_THAT(echo_.Run(echo_.stub().Echo(request)), IsOkAndHolds(EqualsProto(R"pb(message: "hello")pb")));
}

TEST_F(EchoServiceTest, ManyEchoesAtOnceKeepTheirAnswersApart) {
  auto stub = echo_.stub();
  std::vector<troupe::Reply<EchoResponse>> replies;
  EchoRequest request;
  for (int i = 0; i < 200; ++i) {
    request.set_message(absl::StrCat(i));
    replies.push_back(stub.Echo(request));
  }
  for (int i = 0; i < 200; ++i) EXPECT_EQ(echo_.Run(std::move(replies[i]))->message(), absl::StrCat(i));
}

Task<absl::Status> Expand(EchoStub stub, ExpandRequest request, std::vector<std::string>& got) {
  auto responses = stub.Expand(request);
  ExpandResponse response;
  while (true) {
    const bool more = co_await responses.Read(response);
    if (!more) break;
    got.push_back(absl::StrCat(response.message(), response.index()));
  }
  co_return co_await responses.Finish();
}

TEST_F(EchoServiceTest, ExpandGivesTheMessageAsOftenAsWanted) {
  std::vector<std::string> got;
  ExpandRequest request;
  EXPECT_OK(echo_.Run(Expand(echo_.stub(), request, got)));
  EXPECT_THAT(got, ElementsAre());
  request.set_message("m");
  request.set_count(3);
  EXPECT_OK(echo_.Run(Expand(echo_.stub(), request, got)));
  EXPECT_THAT(got, ElementsAre("m0", "m1", "m2"));
}

TEST_F(EchoServiceTest, ExpandRefusesANegativeCount) {
  std::vector<std::string> got;
  ExpandRequest request;
  request.set_count(-1);
  EXPECT_THAT(echo_.Run(Expand(echo_.stub(), request, got)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("count: -1")));
}

TEST_F(EchoServiceTest, ExpandWaitsForAClientThatDoesNotRead) {
  ExpandRequest request;
  request.set_message(std::string(10'000, 'm'));
  request.set_count(1'000'000);  // 10 GB, if nobody waited
  auto responses = echo_.stub().Expand(request);
  echo_.RunUntilIdle();
  ExpandResponse response;
  const bool more = echo_.Run([&] { return responses.Read(response); });
  EXPECT_TRUE(more);
  EXPECT_EQ(response.index(), 0);
  responses.Cancel();
  EXPECT_THAT(echo_.Run([&] { return responses.Finish(); }), StatusIs(absl::StatusCode::kCancelled));
}

Task<absl::StatusOr<CollectResponse>> Collect(EchoStub stub, std::vector<std::string> messages) {
  auto requests = stub.Collect();
  CollectRequest request;
  for (std::string& message : messages) {
    request.set_message(std::move(message));
    const bool more = co_await requests.Write(request);
    if (!more) break;
  }
  co_return co_await requests.Finish();
}

TEST_F(EchoServiceTest, CollectGivesAllMessagesInOrder) {
  EXPECT_THAT(echo_.Run(Collect(echo_.stub(), {})), IsOkAndHolds(EqualsProto("")));
  EXPECT_THAT(echo_.Run(Collect(echo_.stub(), {"a", "", "b"})),
              IsOkAndHolds(EqualsProto(R"pb(messages: "a" messages: "" messages: "b")pb")));
}

TEST_F(EchoServiceTest, CollectIsBounded) {
  const std::vector<std::string> fits(10, std::string(100'000, 'm')), too_many(11, std::string(100'000, 'm'));
  EXPECT_THAT(echo_.Run(Collect(echo_.stub(), fits)), IsOk());
  EXPECT_THAT(echo_.Run(Collect(echo_.stub(), too_many)), StatusIs(absl::StatusCode::kResourceExhausted));
}

// Lock-step: each answer comes before the next question.
Task<absl::Status> Talk(EchoStub stub, int rounds) {
  auto chat = stub.Chat();
  ChatRequest request;
  ChatResponse response;
  for (int i = 0; i < rounds; ++i) {
    request.set_message(absl::StrCat(i));
    const bool written = co_await chat.Write(request);
    EXPECT_TRUE(written);
    const bool read = co_await chat.Read(response);
    EXPECT_TRUE(read);
    EXPECT_EQ(response.message(), absl::StrCat(i));
  }
  chat.WritesDone();
  const bool more = co_await chat.Read(response);
  EXPECT_FALSE(more);
  co_return co_await chat.Finish();
}

TEST_F(EchoServiceTest, ChatAnswersEachMessageAtOnce) { EXPECT_OK(echo_.Run(Talk(echo_.stub(), 100))); }

TEST_F(EchoServiceTest, ChatEndsWhenTheClientCancels) {
  auto chat = echo_.stub().Chat();
  ChatRequest request;
  request.set_message("hello");
  EXPECT_TRUE(echo_.Run([&] { return chat.Write(request); }));
  ChatResponse response;
  EXPECT_TRUE(echo_.Run([&] { return chat.Read(response); }));
  EXPECT_EQ(echo_.server().calls_in_flight(), 1u);
  chat.Cancel();
  echo_.RunUntilIdle();
  EXPECT_EQ(echo_.server().calls_in_flight(), 0u);
}

}  // namespace
}  // namespace echo::v1
