// How this test works: InProcess joins a real server session and a real client session over memory, in virtual time.
// The actor's methods run functions that each test supplies, and it writes down the callbacks of its life.
#include "troupe/service/session.h"

#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "echo/v1/echo.troupe.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/sleep.h"
#include "troupe/base/errors.h"
#include "troupe/rpc/until_draining.h"
#include "troupe/service/server.h"
#include "troupe/service/testing_actor.h"
#include "troupe/testing/in_process.h"
#include "troupe/testing/matchers.h"

namespace troupe {
namespace {

using ::echo::v1::ChatRequest;
using ::echo::v1::ChatResponse;
using ::echo::v1::CollectRequest;
using ::echo::v1::CollectResponse;
using ::echo::v1::EchoRequest;
using ::echo::v1::EchoResponse;
using ::echo::v1::EchoStub;
using ::echo::v1::ExpandRequest;
using ::echo::v1::ExpandResponse;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::troupe::testing::EqualsProto;
using ::troupe::testing::InProcess;
using ::troupe::testing::InProcessOptions;
using ::troupe::testing::IsOkAndHolds;
using ::troupe::testing::StatusIs;

using internal::Script;
using internal::ScriptedEcho;
using Status = Script::Status;

EchoRequest Request(std::string text) {
  EchoRequest request;
  request.set_message(std::move(text));
  return request;
}

// Parameterised over the wire, and over how the bytes are cut: all at once, seven at a time, one at a time.
class SessionTest : public ::testing::TestWithParam<std::tuple<Wire, size_t>> {
 protected:
  SessionTest() {
    script_.echo = [](const EchoRequest& request, EchoResponse& response, Call&) { return Copy(request, response); };
  }
  static size_t cut() { return std::get<size_t>(GetParam()); }
  static Status Copy(const EchoRequest& request, EchoResponse& response) {
    response.set_message(request.message());
    co_return absl::OkStatus();
  }
  InProcess<ScriptedEcho>& service() {
    if (service_ == nullptr) {
      options_.wire = std::get<Wire>(GetParam());
      options_.transport.delivery_bytes_max = cut();
      service_ = std::make_unique<InProcess<ScriptedEcho>>(options_, std::ref(script_));
    }
    return *service_;
  }
  EchoStub stub() { return service().stub(); }
  // Ends the world and says what the actor heard.
  std::vector<std::string> End() {
    service_.reset();
    return script_.log;
  }

  Script script_;
  InProcessOptions options_;
  std::unique_ptr<InProcess<ScriptedEcho>> service_;
};

INSTANTIATE_TEST_SUITE_P(Wires, SessionTest,
                         ::testing::Combine(::testing::Values(Wire::kNative, Wire::kGrpc),
                                            ::testing::Values(size_t{256} << 10, size_t{7}, size_t{1})),
                         [](const auto& info) {
                           return absl::StrCat(std::get<Wire>(info.param) == Wire::kGrpc ? "Grpc" : "Native",
                                               std::get<size_t>(info.param));
                         });

TEST_P(SessionTest, AUnaryCallIsAnswered) {
  EXPECT_THAT(service().Run(stub().Echo(Request("hello"))), IsOkAndHolds(EqualsProto(R"pb(message: "hello")pb")));
  EXPECT_THAT(End(), ElementsAre("made", "ConnectionMade", "ConnectionLost OK", "destroyed"));
}

TEST_P(SessionTest, CallsAreConcurrentAndAnsweredInAnyOrder) {
  script_.echo = [](const EchoRequest& request, EchoResponse& response, Call&) -> Status {
    co_await Sleep(absl::Milliseconds(100 - std::stoi(request.message())));
    response.set_message(request.message());
    co_return absl::OkStatus();
  };
  EchoStub echo = stub();
  std::vector<Reply<EchoResponse>> replies;
  for (int i = 0; i < 90; ++i) replies.push_back(echo.Echo(Request(std::to_string(i))));
  const MonotonicTime start = service().loop().Time();
  for (int i = 0; i < 90; ++i) {
    const absl::StatusOr<EchoResponse> got = service().Run(std::move(replies[i]));
    ASSERT_OK(got);
    EXPECT_EQ(got->message(), std::to_string(i));
  }
  EXPECT_LT(service().loop().Time() - start, absl::Milliseconds(200));
}

TEST_P(SessionTest, MoreCallsThanTheServerGrantsWaitTheirTurn) {
  EchoStub echo = stub();
  std::vector<Reply<EchoResponse>> replies;
  for (int i = 0; i < 3000; ++i) replies.push_back(echo.Echo(Request(std::to_string(i))));
  for (int i = 0; i < 3000; ++i) {
    const absl::StatusOr<EchoResponse> got = service().Run(std::move(replies[i]));
    ASSERT_OK(got);
    EXPECT_EQ(got->message(), std::to_string(i));
  }
}

TEST_P(SessionTest, ALargeMessageTravels) {
  // Many frames, but not more iterations than a test should take when each byte is delivered alone.
  const std::string large(cut() > 7 ? 3 << 20 : 200 << 10, 'x');
  const absl::StatusOr<EchoResponse> got = service().Run(stub().Echo(Request(large)));
  ASSERT_OK(got);
  EXPECT_EQ(got->message(), large);
}

Task<void> EchoAndNote(EchoStub echo, std::string text, std::string name, std::vector<std::string>& order) {
  absl::StatusOr<EchoResponse> got = co_await echo.Echo(Request(std::move(text)));
  order.push_back(got.ok() ? std::move(name) : got.status().ToString());
}

TEST_P(SessionTest, SmallMessagesOvertakeALargeOne) {
  const std::string large(cut() > 7 ? 3 << 20 : 200 << 10, 'x');
  std::vector<std::string> order;
  auto first = service().loop().CreateTask(EchoAndNote(stub(), large, "large", order));
  auto second = service().loop().CreateTask(EchoAndNote(stub(), "a", "small", order));
  service().Advance(absl::Seconds(1));
  EXPECT_THAT(order, ElementsAre("small", "large"));
}

TEST_P(SessionTest, AMessageOverTheLimitIsRefusedAndTheConnectionLives) {
  options_.server.limits.message_bytes_max = 1000;
  EXPECT_THAT(service().Run(stub().Echo(Request(std::string(2000, 'x')))),
              StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_OK(service().Run(stub().Echo(Request("small"))));
}

TEST_P(SessionTest, AHandlersStatusTravels) {
  script_.echo = [](const EchoRequest&, EchoResponse&, Call&) -> Status { co_return absl::NotFoundError("no such"); };
  EXPECT_THAT(service().Run(stub().Echo(Request("x"))), StatusIs(absl::StatusCode::kNotFound, "no such"));
}

TEST_P(SessionTest, StatusDetailsTravel) {
  script_.echo = [](const EchoRequest&, EchoResponse&, Call&) -> Status {
    absl::Status status = absl::NotFoundError("no such");
    status.SetPayload("type.googleapis.com/a.B", absl::Cord("travels"));
    status.SetPayload("internal.example/secret", absl::Cord("stays"));
    co_return status;
  };
  const absl::Status got = service().Run(stub().Echo(Request("x"))).status();
  EXPECT_EQ(got.GetPayload("type.googleapis.com/a.B"), absl::Cord("travels"));
  EXPECT_FALSE(got.GetPayload("internal.example/secret").has_value());
}

TEST_P(SessionTest, AThrowingHandlerFailsItsCallOnlyAndItsTextStaysHere) {
  script_.echo = [](const EchoRequest&, EchoResponse&, Call&) -> Status {
    co_await Sleep(absl::ZeroDuration());
    throw std::runtime_error("the password is x");
  };
  const absl::Status got = service().Run(stub().Echo(Request("x"))).status();
  EXPECT_THAT(got, StatusIs(absl::StatusCode::kUnknown, ::testing::Not(HasSubstr("password"))));
  EXPECT_THAT(service().TakeReports(),
              ElementsAre(AllOf(HasSubstr("the password is x"), HasSubstr("/echo.v1.Echo/Echo"))));
  script_.echo = [](const EchoRequest& request, EchoResponse& response, Call&) { return Copy(request, response); };
  EXPECT_OK(service().Run(stub().Echo(Request("again"))));
}

TEST_P(SessionTest, AHandlerThatThrowsBeforeItsFirstAwaitFailsItsCallOnly) {
  script_.echo = [](const EchoRequest&, EchoResponse&, Call&) -> Status { throw std::runtime_error("at once"); };
  EXPECT_THAT(service().Run(stub().Echo(Request("x"))), StatusIs(absl::StatusCode::kUnknown));
  EXPECT_THAT(service().TakeReports(), SizeIs(1));
}

TEST_P(SessionTest, AStatusErrorAnswersWithItsCode) {
  script_.echo = [](const EchoRequest&, EchoResponse&, Call&) -> Status {
    co_await Sleep(absl::ZeroDuration());
    throw StatusError(absl::PermissionDeniedError("no"));
  };
  EXPECT_THAT(service().Run(stub().Echo(Request("x"))), StatusIs(absl::StatusCode::kPermissionDenied, "no"));
}

// An actor that cannot be had.
class ThrowsWhenMade final : public echo::v1::EchoActor {
 public:
  ThrowsWhenMade() { throw std::runtime_error("the password is x"); }
};
class ThrowsAtConnectionMade final : public echo::v1::EchoActor {
 public:
  void ConnectionMade(Connection&) override { throw std::runtime_error("the password is x"); }
};

template <class S>
void ExpectInternalWithoutItsText() {
  InProcess<S> service;
  EchoStub echo = service.stub();
  std::vector<Reply<EchoResponse>> replies;
  for (int i = 0; i < 3; ++i) replies.push_back(echo.Echo(Request(std::to_string(i))));
  auto reader = echo.Expand(ExpandRequest());
  for (auto& reply : replies) {
    EXPECT_EQ(service.Run(std::move(reply)).status().ToString(), "INTERNAL: the actor of this connection failed");
  }
  EXPECT_EQ(service.Run([&]() { return reader.Finish(); }).ToString(), "INTERNAL: the actor of this connection failed");
  EXPECT_THAT(service.TakeReports(), ElementsAre(HasSubstr("the password is x")));
}

TEST(SessionActorTest, AnActorThatCannotBeMadeFailsItsCalls) { ExpectInternalWithoutItsText<ThrowsWhenMade>(); }
TEST(SessionActorTest, AnActorWhoseConnectionMadeThrowsFailsItsCalls) {
  ExpectInternalWithoutItsText<ThrowsAtConnectionMade>();
}

class EmptyEcho final : public echo::v1::EchoActor {};

TEST(SessionUnimplementedTest, AnRpcThatIsNotOverriddenIsUnimplemented) {
  InProcess<EmptyEcho> service;
  EXPECT_THAT(service.Run(service.stub().Echo(Request("x"))),
              StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("/echo.v1.Echo/Echo")));
}

TEST(SessionUnimplementedTest, AServiceThatIsNotOfferedIsUnimplemented) {
  testing::InProcessServer server;
  EchoStub echo(server.caller());
  EXPECT_THAT(server.Run(echo.Echo(Request("x"))), StatusIs(absl::StatusCode::kUnimplemented));
  EXPECT_EQ(server.server().counters().calls_unimplemented.value(), 1u);
}

TEST_P(SessionTest, MetadataTravelsBothWays) {
  script_.echo = [](const EchoRequest&, EchoResponse& response, Call& call) -> Status {
    response.set_message(std::string(call.metadata().Get("asked").value_or("")));
    call.initial_metadata().Add("first", "1");
    call.trailers().Add("last-bin", std::string("\0\xff", 2));
    co_return absl::OkStatus();
  };
  const Metadata metadata = {{"asked", "yes"}};
  Reply<EchoResponse> reply = stub().Echo(Request("x"), {.metadata = &metadata});
  const absl::StatusOr<EchoResponse> got = service().Run([&] { return reply.operator co_await(); });
  EXPECT_THAT(got, IsOkAndHolds(EqualsProto(R"pb(message: "yes")pb")));
  EXPECT_EQ(reply.initial_metadata().Get("first"), "1");
  EXPECT_EQ(reply.trailers().Get("last-bin"), absl::string_view("\0\xff", 2));
}

// ---------------------------------------------------------------------------------------------------- time

Status SleepsLong(std::vector<std::string>& log) {
  try {
    co_await Sleep(absl::Hours(1));
  } catch (const Cancelled&) {
    log.push_back("cancelled");
    throw;
  }
  co_return absl::OkStatus();
}

TEST_P(SessionTest, ADeadlineEndsTheCallAtBothEnds) {
  script_.echo = [this](const EchoRequest&, EchoResponse&, Call&) { return SleepsLong(script_.log); };
  const MonotonicTime start = service().loop().Time();
  EXPECT_THAT(service().Run(stub().Echo(Request("x"), {.timeout = absl::Seconds(2)})),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_EQ(service().loop().Time() - start, absl::Seconds(2));
  service().Advance(absl::Seconds(1));
  EXPECT_THAT(End(), ElementsAre("made", "ConnectionMade", "cancelled", "ConnectionLost OK", "destroyed"));
}

TEST_P(SessionTest, ADeadlineThatHasPassedIsNotSent) {
  EXPECT_THAT(service().Run(stub().Echo(Request("x"), {.timeout = absl::ZeroDuration()})),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_EQ(service().server().counters().calls_started.value(), 0u);
}

TEST_P(SessionTest, AHandlersDeadlineIsInItsContext) {
  absl::Duration left;
  script_.echo = [&left](const EchoRequest&, EchoResponse&, Call& call) -> Status {
    co_await Sleep(absl::ZeroDuration());
    left = Context::Current().deadline() - EventLoop::Current().Time();
    co_return call.deadline() == Context::Current().deadline() ? absl::OkStatus() : absl::InternalError("differ");
  };
  EXPECT_OK(service().Run(stub().Echo(Request("x"), {.timeout = absl::Seconds(7)})));
  EXPECT_EQ(left, absl::Seconds(7));
}

TEST_P(SessionTest, DroppingTheReplyCancelsTheHandler) {
  script_.echo = [this](const EchoRequest&, EchoResponse&, Call&) { return SleepsLong(script_.log); };
  {
    Reply<EchoResponse> reply = stub().Echo(Request("x"));
    service().Advance(absl::Seconds(1));
  }
  service().Advance(absl::Seconds(1));
  EXPECT_THAT(script_.log, ElementsAre("made", "ConnectionMade", "cancelled"));
  EXPECT_EQ(service().server().calls_in_flight(), 0u);
}

Task<absl::StatusOr<EchoResponse>> Await(Reply<EchoResponse> reply) {
  absl::StatusOr<EchoResponse> got = co_await reply;
  co_return got;
}

TEST_P(SessionTest, CancellingTheTaskThatWaitsCancelsTheHandler) {
  script_.echo = [this](const EchoRequest&, EchoResponse&, Call&) { return SleepsLong(script_.log); };
  auto waiting = service().loop().CreateTask(Await(stub().Echo(Request("x"))));
  service().Advance(absl::Seconds(1));
  waiting.Cancel();
  service().Advance(absl::Seconds(1));
  EXPECT_TRUE(waiting.cancelled());
  EXPECT_THAT(script_.log, ElementsAre("made", "ConnectionMade", "cancelled"));
}

// ---------------------------------------------------------------------------------------------------- streams

Status ExpandAll(const ExpandRequest& request, Writer<ExpandResponse> writer) {
  ExpandResponse response;
  for (int i = 0; i < request.count(); ++i) {
    response.set_message(request.message());
    response.set_index(i);
    const bool more = co_await writer.Write(response);
    if (!more) co_return absl::CancelledError("nobody reads");
  }
  co_return absl::OkStatus();
}

Task<std::vector<int>> ReadIndexes(ClientReader<ExpandResponse>& reader) {
  std::vector<int> indexes;
  ExpandResponse response;
  while (true) {
    const bool more = co_await reader.Read(response);
    if (!more) break;
    indexes.push_back(response.index());
  }
  co_return indexes;
}

TEST_P(SessionTest, AServerStreamArrivesWholeAndInOrder) {
  script_.expand = [](const ExpandRequest& request, Writer<ExpandResponse> writer, Call&) {
    return ExpandAll(request, writer);
  };
  ExpandRequest request;
  request.set_message("m");
  request.set_count(500);
  auto reader = stub().Expand(request);
  const std::vector<int> indexes = service().Run(ReadIndexes(reader));
  ASSERT_THAT(indexes, SizeIs(500));
  for (int i = 0; i < 500; ++i) EXPECT_EQ(indexes[i], i);
  EXPECT_OK(service().Run([&] { return reader.Finish(); }));
}

TEST_P(SessionTest, AWriterWaitsForAReaderThatDoesNotRead) {
  int written = 0;
  script_.expand = [&written](const ExpandRequest&, Writer<ExpandResponse> writer, Call&) -> Status {
    ExpandResponse response;
    response.set_message(std::string(1000, 'x'));
    for (; written < 200; ++written) {
      const bool more = co_await writer.Write(response);
      if (!more) co_return absl::CancelledError("nobody reads");
    }
    co_return absl::OkStatus();
  };
  auto reader = stub().Expand(ExpandRequest());
  service().Advance(absl::Seconds(10));
  // The call's credit is 64 KiB; one message more waits.
  EXPECT_GE(written, 60);
  EXPECT_LE(written, 70);
  // Other calls of the connection are not held up by it.
  EXPECT_OK(service().Run(stub().Echo(Request("x"))));
  EXPECT_THAT(service().Run(ReadIndexes(reader)), SizeIs(200));
  EXPECT_OK(service().Run([&] { return reader.Finish(); }));
}

Status CollectAll(Reader<CollectRequest> reader, CollectResponse& response) {
  CollectRequest request;
  while (true) {
    const bool more = co_await reader.Read(request);
    if (!more) break;
    response.add_messages(request.message());
  }
  co_return absl::OkStatus();
}

Task<absl::StatusOr<CollectResponse>> Collect(EchoStub echo, int count) {
  auto writer = echo.Collect();
  CollectRequest request;
  for (int i = 0; i < count; ++i) {
    request.set_message(std::to_string(i));
    const bool more = co_await writer.Write(request);
    if (!more) break;
  }
  absl::StatusOr<CollectResponse> got = co_await writer.Finish();
  co_return got;
}

TEST_P(SessionTest, AClientStreamArrivesWholeAndInOrder) {
  script_.collect = [](Reader<CollectRequest> reader, CollectResponse& response, Call&) {
    return CollectAll(reader, response);
  };
  const auto got = service().Run(Collect(stub(), 300));
  ASSERT_OK(got);
  ASSERT_EQ(got->messages_size(), 300);
  for (int i = 0; i < 300; ++i) EXPECT_EQ(got->messages(i), std::to_string(i));
}

TEST_P(SessionTest, AHandlerMayAnswerBeforeItHasReadAll) {
  script_.collect = [](Reader<CollectRequest>, CollectResponse&, Call&) -> Status {
    co_return absl::ResourceExhaustedError("enough");
  };
  EXPECT_THAT(service().Run(Collect(stub(), 5000)), StatusIs(absl::StatusCode::kResourceExhausted, "enough"));
  EXPECT_OK(service().Run(stub().Echo(Request("x"))));
}

Status ChatBack(Reader<ChatRequest> reader, Writer<ChatResponse> writer) {
  ChatRequest request;
  ChatResponse response;
  while (true) {
    const bool more = co_await reader.Read(request);
    if (!more) break;
    response.set_message("re: " + request.message());
    co_await writer.Write(response);
  }
  co_return absl::OkStatus();
}

Task<void> ChatInTurns(EchoStub echo, int rounds) {
  auto chat = echo.Chat();
  ChatRequest request;
  ChatResponse response;
  for (int i = 0; i < rounds; ++i) {
    request.set_message(std::to_string(i));
    const bool wrote = co_await chat.Write(request);
    CO_ASSERT_TRUE(wrote);
    const bool read = co_await chat.Read(response);
    CO_ASSERT_TRUE(read);
    CO_ASSERT_EQ(response.message(), "re: " + std::to_string(i));
  }
  chat.WritesDone();
  const bool more = co_await chat.Read(response);
  CO_ASSERT_FALSE(more);
  const absl::Status end = co_await chat.Finish();
  CO_ASSERT_OK(end);
}

TEST_P(SessionTest, ABidirectionalCallTakesTurns) {
  script_.chat = [](Reader<ChatRequest> reader, Writer<ChatResponse> writer, Call&) {
    return ChatBack(reader, writer);
  };
  service().Run(ChatInTurns(stub(), 100));
}

TEST_P(SessionTest, HandlesThatOutliveTheirCallGiveFalse) {
  std::unique_ptr<Writer<ChatResponse>> writer;
  std::unique_ptr<Reader<ChatRequest>> reader;
  script_.chat = [&](Reader<ChatRequest> r, Writer<ChatResponse> w, Call&) -> Status {
    writer = std::make_unique<Writer<ChatResponse>>(w);
    reader = std::make_unique<Reader<ChatRequest>>(r);
    co_return absl::OkStatus();
  };
  auto chat = stub().Chat();
  EXPECT_OK(service().Run([&] { return chat.Finish(); }));
  EXPECT_FALSE(service().Run([&] { return writer->Write(ChatResponse()); }));
  ChatRequest request;
  EXPECT_FALSE(service().Run([&] { return reader->Read(request); }));
}

// ---------------------------------------------------------------------------------------------------- the end

TEST_P(SessionTest, ALostConnectionEndsCallsAndThenTheActor) {
  script_.echo = [this](const EchoRequest&, EchoResponse&, Call&) { return SleepsLong(script_.log); };
  Reply<EchoResponse> reply = stub().Echo(Request("x"));
  service().Advance(absl::Seconds(1));
  service().client().Abort(absl::OkStatus());
  EXPECT_THAT(service().Run(std::move(reply)), StatusIs(absl::StatusCode::kUnavailable));
  service().Advance(absl::Seconds(1));
  EXPECT_THAT(script_.log,
              ElementsAre("made", "ConnectionMade", "cancelled", HasSubstr("ConnectionLost"), "destroyed"));
  EXPECT_EQ(service().server().connections(), 0u);
}

// Over HTTP/2 a call that crosses the first GOAWAY is in flight: the second names it.
TEST_P(SessionTest, ADrainAnswersWhatIsInFlightAndRefusesTheRest) {
  script_.echo = [](const EchoRequest& request, EchoResponse& response, Call& call) -> Status {
    co_await Sleep(absl::Seconds(10));
    response.set_message(request.message() + (call.draining() ? " draining" : ""));
    co_return absl::OkStatus();
  };
  Reply<EchoResponse> reply = stub().Echo(Request("x"));
  service().Advance(absl::Seconds(1));
  service().server().Drain();
  Reply<EchoResponse> late = stub().Echo(Request("late"));  // crosses the news of the drain
  service().Advance(absl::Seconds(1));
  Reply<EchoResponse> too_late = stub().Echo(Request("too late"));
  EXPECT_THAT(service().Run(std::move(too_late)).status(), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(service().Run(std::move(reply)), IsOkAndHolds(EqualsProto(R"pb(message: "x draining")pb")));
  const absl::StatusOr<EchoResponse> crossed = service().Run(std::move(late));
  if (std::get<Wire>(GetParam()) == Wire::kGrpc) {
    EXPECT_THAT(crossed, IsOkAndHolds(EqualsProto(R"pb(message: "late draining")pb")));
  } else {
    EXPECT_THAT(crossed.status(), StatusIs(absl::StatusCode::kUnavailable));
  }
  service().Run(service().server().WaitClosed());
  EXPECT_EQ(service().server().state(), Server::State::kClosed);
}

TEST_P(SessionTest, ADrainEndsStreamsAfterFiveSeconds) {
  script_.chat = [](Reader<ChatRequest> reader, Writer<ChatResponse> writer, Call&) {
    return ChatBack(reader, writer);
  };
  auto chat = stub().Chat();
  service().Advance(absl::Seconds(1));
  const MonotonicTime start = service().loop().Time();
  service().server().Drain();
  ChatResponse response;
  EXPECT_FALSE(service().Run([&] { return chat.Read(response); }));
  EXPECT_THAT(service().Run([&] { return chat.Finish(); }), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(service().loop().Time() - start, absl::Seconds(5));
}

TEST_P(SessionTest, ADrainEndsAtOnceAStreamThatWatchesForIt) {
  script_.expand = [this](const ExpandRequest&, Writer<ExpandResponse>, Call& call) -> Status {
    Status sleep = SleepsLong(script_.log);
    co_return co_await UntilDraining(call, std::move(sleep));
  };
  auto reader = stub().Expand(ExpandRequest());
  service().Advance(absl::Seconds(1));
  const MonotonicTime start = service().loop().Time();
  service().server().Drain();
  EXPECT_THAT(service().Run([&] { return reader.Finish(); }),
              StatusIs(absl::StatusCode::kUnavailable, "the server is shutting down"));
  service().Run(service().server().WaitClosed());
  EXPECT_EQ(service().loop().Time(), start);
  EXPECT_THAT(End(), ElementsAre("made", "ConnectionMade", "cancelled", "ConnectionLost OK", "destroyed"));
}

Task<absl::StatusOr<int>> GivesFiveWhenCancelled() {
  try {
    co_await Sleep(absl::Hours(1));
  } catch (const Cancelled&) {  // has what it wanted
  }
  co_return 5;
}

TEST_P(SessionTest, UntilDrainingGivesWhatTheTaskGaveAndStartsNoneInADrain) {
  std::vector<std::string>& log = script_.log;
  script_.echo = [&log](const EchoRequest&, EchoResponse&, Call& call) -> Status {
    const absl::Status done = co_await UntilDraining(call, Sleep(absl::Seconds(1)));
    log.push_back(absl::StrCat("done: ", done.ToString()));
    const absl::StatusOr<int> stubborn = co_await UntilDraining(call, GivesFiveWhenCancelled());
    log.push_back(absl::StrCat("value: ", stubborn.value_or(0)));
    const absl::StatusOr<int> late = co_await UntilDraining(call, GivesFiveWhenCancelled());
    log.push_back(absl::StrCat("late: ", late.status().ToString()));
    co_return absl::OkStatus();
  };
  Reply<EchoResponse> reply = stub().Echo(Request("x"));
  service().Advance(absl::Seconds(2));
  const MonotonicTime start = service().loop().Time();
  service().server().Drain();
  EXPECT_OK(service().Run(std::move(reply)));
  EXPECT_EQ(service().loop().Time(), start);
  EXPECT_THAT(End(), ElementsAre("made", "ConnectionMade", "done: OK", "value: 5",
                                 "late: UNAVAILABLE: the server is shutting down", "ConnectionLost OK", "destroyed"));
}

TEST_P(SessionTest, ACallerThatCancelsEndsWhatWaitsForADrain) {
  script_.echo = [this](const EchoRequest&, EchoResponse&, Call& call) -> Status {
    Status sleep = SleepsLong(script_.log);
    co_return co_await UntilDraining(call, std::move(sleep));
  };
  {
    Reply<EchoResponse> reply = stub().Echo(Request("x"));
    service().Advance(absl::Seconds(1));
  }
  service().Advance(absl::Seconds(1));
  EXPECT_EQ(service().server().calls_in_flight(), 0u);
  EXPECT_THAT(End(), ElementsAre("made", "ConnectionMade", "cancelled", "ConnectionLost OK", "destroyed"));
}

TEST_P(SessionTest, ADrainWaitsUntilTheLastReplyHasLeft) {
  // More than the credit of a call: what waits for the rest of it is not lost by closing.
  const size_t bytes = cut() > 7 ? 3 << 20 : 200 << 10;
  script_.echo = [this, bytes](const EchoRequest&, EchoResponse& response, Call&) -> Status {
    response.set_message(std::string(bytes, 'x'));
    service().server().Drain();
    co_return absl::OkStatus();
  };
  const absl::StatusOr<EchoResponse> got = service().Run(stub().Echo(Request("x")));
  ASSERT_OK(got);
  EXPECT_EQ(got->message().size(), bytes);
  service().Run(service().server().WaitClosed());
}

TEST_P(SessionTest, ADrainDoesNotWaitForAClientThatTakesNoReply) {
  script_.expand = [](const ExpandRequest&, Writer<ExpandResponse> writer, Call&) -> Status {
    ExpandResponse response;
    response.set_message(std::string(100'000, 'x'));
    writer.WriteWithoutWaiting(response);
    co_return absl::OkStatus();
  };
  auto reader = stub().Expand(ExpandRequest());  // is not read: the rest has no credit
  service().Advance(absl::Seconds(1));
  EXPECT_EQ(service().server().calls_in_flight(), 0u);
  const MonotonicTime start = service().loop().Time();
  service().server().Drain();
  service().Run(service().server().WaitClosed());
  EXPECT_LE(service().loop().Time() - start, absl::Seconds(28));
}

TEST_P(SessionTest, ADrainCancelsAfterItsTimeoutAndDestroysWhatIgnoresThat) {
  script_.echo = [this](const EchoRequest&, EchoResponse&, Call&) -> Status {
    struct Destroyed {
      std::vector<std::string>& log;
      explicit Destroyed(std::vector<std::string>& to) : log(to) {}
      ~Destroyed() { log.push_back("frame destroyed"); }
    } destroyed(script_.log);
    while (true) {
      try {
        co_await Sleep(absl::Hours(1));
      } catch (const Cancelled&) {  // will not hear of it
        script_.log.push_back("ignores");
      }
    }
  };
  Reply<EchoResponse> reply = stub().Echo(Request("x"));
  service().Advance(absl::Seconds(1));
  const MonotonicTime start = service().loop().Time();
  service().server().Drain();
  service().Run(service().server().WaitClosed());
  EXPECT_EQ(service().loop().Time() - start, absl::Seconds(28));
  EXPECT_THAT(service().Run(std::move(reply)), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(End(), ElementsAre("made", "ConnectionMade", "ignores", "frame destroyed", HasSubstr("ConnectionLost"),
                                 "destroyed"));
}

TEST_P(SessionTest, WhatIsNoWireOfOursIsClosedAndCounted) {
  class Stranger final : public Protocol {
   public:
    explicit Stranger(bool& lost) : lost_(lost) {}
    void ConnectionMade(Transport& transport) override { transport.Write("GET / HTTP/1.1\r\n\r\n"); }
    void DataReceived(absl::Span<const char>) override {}
    void ConnectionLost(const absl::Status&) override { lost_ = true; }

   private:
    bool& lost_;
  };
  EXPECT_OK(service().Run(stub().Echo(Request("x"))));
  bool lost = false;
  MemoryTransportOptions transport;
  transport.delivery_bytes_max = cut();
  MemoryPair pair =
      MakeMemoryPair(service().loop(), std::make_unique<Stranger>(lost), service().server().NewConnection(), transport);
  service().Advance(absl::Seconds(6));
  EXPECT_TRUE(lost);
  EXPECT_EQ(service().server().counters().wires_unknown.value(), 1u);
  EXPECT_OK(service().Run(stub().Echo(Request("x"))));
}

TEST_P(SessionTest, APeerThatSaysNothingIsClosedAfterThePrefaceTimeout) {
  class Silent final : public Protocol {
   public:
    void DataReceived(absl::Span<const char>) override {}
  };
  EXPECT_OK(service().Run(stub().Echo(Request("x"))));
  MemoryPair pair = MakeMemoryPair(service().loop(), std::make_unique<Silent>(), service().server().NewConnection());
  service().Advance(absl::Seconds(9));
  EXPECT_EQ(service().server().connections(), 2u);
  service().Advance(absl::Seconds(2));
  EXPECT_EQ(service().server().connections(), 1u);
  EXPECT_EQ(service().server().counters().preface_timeouts.value(), 1u);
}

}  // namespace
}  // namespace troupe
