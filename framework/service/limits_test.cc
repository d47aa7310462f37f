// How this test works: a real server over memory in virtual time, and a Stranger who sends it bytes of our choosing. Each
// limit of ConnectionLimits and ServerOptions is hit by a test that carries its name; the counter says so, the peer gets
// the status, and an honest client on the same server goes on.
#include "troupe/service/limits.h"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "echo/v1/echo.troupe.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/sleep.h"
#include "troupe/net/connect.h"
#include "troupe/net/memory_transport.h"
#include "troupe/net/protocol.h"
#include "troupe/net/transport.h"
#include "troupe/service/channel.h"
#include "troupe/service/memory_guard.h"
#include "troupe/service/server.h"
#include "troupe/service/session.h"
#include "troupe/service/testing_actor.h"
#include "troupe/service/testing_stranger.h"
#include "troupe/testing/in_process.h"
#include "troupe/testing/matchers.h"
#include "troupe/testing/sim_world.h"
#include "troupe/wire/grpc/internal/gzip.h"
#include "troupe/wire/grpc/testing_peer.h"
#include "troupe/wire/native/frame.h"
#include "troupe/wire/native/testing_peer.h"

namespace troupe {
namespace {

using ::echo::v1::EchoRequest;
using ::echo::v1::EchoResponse;
using ::echo::v1::EchoStub;
using ::echo::v1::ExpandRequest;
using ::echo::v1::ExpandResponse;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;
using ::testing::UnorderedElementsAre;
using ::troupe::grpc_wire::H2Bytes;
using ::troupe::internal::Script;
using ::troupe::internal::ScriptedEcho;
using ::troupe::internal::Stranger;
using ::troupe::native::FrameBytes;
using ::troupe::native::FrameType;
using ::troupe::testing::InProcess;
using ::troupe::testing::InProcessOptions;
using ::troupe::testing::SimHost;
using ::troupe::testing::SimWorld;
using ::troupe::testing::StatusIs;

using Status = Script::Status;

constexpr char kEcho[] = "/echo.v1.Echo/Echo";
constexpr char kExpand[] = "/echo.v1.Echo/Expand";
constexpr char kCollect[] = "/echo.v1.Echo/Collect";

EchoRequest Request(std::string text) {
  EchoRequest request;
  request.set_message(std::move(text));
  return request;
}
std::string Encoded(std::string text) { return Request(std::move(text)).SerializeAsString(); }

Status Copy(const EchoRequest& request, EchoResponse& response) {
  response.set_message(request.message());
  co_return absl::OkStatus();
}
Status AnswerAfter(absl::Duration duration) {
  co_await Sleep(duration);
  co_return absl::OkStatus();
}

class LimitsTest : public ::testing::Test {
 protected:
  LimitsTest() {
    script_.echo = [](const EchoRequest& request, EchoResponse& response, Call&) { return Copy(request, response); };
  }
  InProcess<ScriptedEcho>& service() {
    if (service_ == nullptr) {
      service_ = std::make_unique<InProcess<ScriptedEcho>>(options_, std::ref(script_));
      EXPECT_OK(service_->Run(service_->stub().Echo(Request("starts the server"))));
    }
    return *service_;
  }
  ConnectionLimits& limits() { return options_.server.limits; }
  const SessionCounters& counters() { return service().server().counters(); }
  // Sends what makes `count` handlers run, each of which adds one to `started`: how many every turn of the loop starts.
  std::vector<int> StartsByTurn(Stranger& stranger, const FrameBytes& bytes, int& started, int count) {
    service().RunUntilIdle();
    started = 0;
    stranger.Send(bytes);
    std::vector<int> starts;
    std::function<void()> each_turn = [&, seen = 0]() mutable {
      if (started != seen) starts.push_back(started - std::exchange(seen, started));
      if (started < count) service().loop().CallSoon([&] { each_turn(); });
    };
    each_turn();
    service().RunUntilIdle();
    return starts;
  }
  // An honest client is served, by the connection that it had before.
  void ExpectHonestClientServed() { EXPECT_OK(service().Run(service().stub().Echo(Request("honest")))); }
  std::unique_ptr<Stranger> NewStranger(const MemoryTransportOptions& transport = {}) {
    return std::make_unique<Stranger>(service().server(), transport);
  }
  // What the server says in answer.
  std::vector<std::string> Say(Stranger& stranger, const FrameBytes& bytes) {
    stranger.Send(bytes);
    service().RunUntilIdle();
    return stranger.TakeFrames();
  }

  Script script_;
  InProcessOptions options_;
  std::unique_ptr<InProcess<ScriptedEcho>> service_;
};

// ---------------------------------------------------------------------------------------------------- calls

TEST_F(LimitsTest, CallsMax) {
  limits().calls_max = 3;
  script_.echo = [](const EchoRequest& request, EchoResponse& response, Call&) {
    return request.message() == "slow" ? AnswerAfter(absl::Seconds(1)) : Copy(request, response);
  };
  auto stranger = NewStranger();
  FrameBytes bytes = FrameBytes().Preface();
  for (uint32_t i = 0; i < 4; ++i) bytes.Call(1 + 2 * i, 0, i == 0 ? kEcho : "", Encoded("slow"));
  EXPECT_THAT(Say(*stranger, bytes), ElementsAre("RESET 7 UNAVAILABLE: more than 3 calls in flight (not started)"));
  EXPECT_EQ(counters().wire.calls_refused.value(), 1u);
  ExpectHonestClientServed();
  service().Advance(absl::Seconds(2));
  EXPECT_THAT(stranger->TakeFrames(), SizeIs(3));
}

Status Stubborn(absl::Duration duration) {
  const MonotonicTime until = EventLoop::Current().Time() + duration;
  while (EventLoop::Current().Time() < until) {
    try {
      co_await Sleep(duration);
    } catch (const Cancelled&) {  // will not hear of it
    }
  }
  co_return absl::OkStatus();
}

TEST_F(LimitsTest, CallsMaxCountsHandlersOfResetCallsUntilTheyHaveStopped) {
  limits().calls_max = 2;
  script_.echo = [](const EchoRequest& request, EchoResponse& response, Call&) {
    return request.message() == "stubborn" ? Stubborn(absl::Seconds(10)) : Copy(request, response);
  };
  auto stranger = NewStranger();
  const std::string stubborn = Encoded("stubborn");
  EXPECT_THAT(Say(*stranger, FrameBytes()
                                 .Preface()
                                 .Call(1, 0, kEcho, stubborn)
                                 .Reset(1, absl::CancelledError(""))
                                 .Call(3, 0, "", stubborn)
                                 .Reset(3, absl::CancelledError(""))
                                 .Call(5, 0, "", stubborn)),
              ElementsAre("RESET 5 UNAVAILABLE: 2 handlers still run (not started)"));
  EXPECT_EQ(service().server().calls_in_flight(), 2u);
  EXPECT_EQ(counters().wire.calls_refused.value(), 1u);
  service().Advance(absl::Seconds(11));
  EXPECT_THAT(Say(*stranger, FrameBytes().Call(7, 0, "", Encoded("x"))), ElementsAre(StartsWith("END 7")));
}

TEST_F(LimitsTest, CallsPerTurnMax) {
  limits().calls_per_turn_max = 10;
  int started = 0;
  script_.echo = [&](const EchoRequest& request, EchoResponse& response, Call&) {
    ++started;
    return Copy(request, response);
  };
  auto stranger = NewStranger();
  FrameBytes bytes = FrameBytes().Preface();
  for (uint32_t i = 0; i < 25; ++i) bytes.Call(1 + 2 * i, 0, i == 0 ? kEcho : "", "");
  EXPECT_THAT(StartsByTurn(*stranger, bytes, started, 25), ElementsAre(10, 10, 5));
  EXPECT_EQ(counters().turns_exhausted.value(), 15u);
}

TEST_F(LimitsTest, CallsWaitingMax) {
  limits().calls_max = 1;
  options_.client.calls_waiting_max = 2;
  script_.echo = [](const EchoRequest& request, EchoResponse& response, Call&) {
    return request.message() == "slow" ? AnswerAfter(absl::Seconds(1)) : Copy(request, response);
  };
  EchoStub echo = service().stub();
  std::vector<Reply<EchoResponse>> replies;
  for (int i = 0; i < 4; ++i) replies.push_back(echo.Echo(Request("slow")));
  EXPECT_THAT(service().Run(std::move(replies[3])), StatusIs(absl::StatusCode::kResourceExhausted));
  for (int i = 0; i < 3; ++i) EXPECT_OK(service().Run(std::move(replies[i])));
  EXPECT_EQ(service().client_counters().calls_waiting_refused.value(), 1u);
}

// ---------------------------------------------------------------------------------------------------- bytes

TEST_F(LimitsTest, MessageBytesMaxIsCheckedBeforeAnythingIsAllocated) {
  limits().message_bytes_max = 1000;
  auto stranger = NewStranger();
  EXPECT_THAT(Say(*stranger, FrameBytes().Preface().Open(1, 0, kEcho).First(1, 1 << 29, "x")),
              ElementsAre("RESET 1 RESOURCE_EXHAUSTED: message of 536870912 bytes, at most 1000"));
  EXPECT_EQ(service().server().held_bytes(), 0);
  EXPECT_EQ(counters().wire.messages_too_large.value(), 1u);
  EXPECT_THAT(Say(*stranger, FrameBytes().Call(3, 0, "", Encoded("x"))), ElementsAre(StartsWith("END 3")));
}

// A request with `depth` groups of an unknown field, one inside the other.
std::string Nested(int depth) { return std::string(depth, '\x13') + std::string(depth, '\x14'); }

TEST_F(LimitsTest, ProtobufDepth) {
  auto stranger = NewStranger();
  EXPECT_THAT(
      Say(*stranger, FrameBytes().Preface().Call(1, 0, kEcho, Nested(100)).Call(3, 0, "", Nested(101))),
      ElementsAre("END 1 whole: ''", HasSubstr("END 3 INTERNAL: /echo.v1.Echo/Echo: a request does not parse")));
  EXPECT_EQ(counters().messages_malformed.value(), 1u);
  ExpectHonestClientServed();
}

TEST_F(LimitsTest, MetadataBytesMax) {
  limits().metadata_bytes_max = 100;
  auto stranger = NewStranger();
  EXPECT_THAT(Say(*stranger, FrameBytes().Preface().Open(1, 0, kCollect, {{"key", std::string(100, 'v')}})),
              ElementsAre(StartsWith("RESET 1 RESOURCE_EXHAUSTED: metadata is larger")));
  EXPECT_EQ(counters().wire.metadata_refused.value(), 1u);
  ExpectHonestClientServed();
}

TEST_F(LimitsTest, MetadataEntriesMax) {
  limits().metadata_entries_max = 2;
  auto stranger = NewStranger();
  EXPECT_THAT(Say(*stranger, FrameBytes().Preface().Open(1, 0, kCollect, {{"a", ""}, {"b", ""}, {"c", ""}})),
              ElementsAre(StartsWith("RESET 1 RESOURCE_EXHAUSTED: metadata is larger")));
  EXPECT_EQ(counters().wire.metadata_refused.value(), 1u);
  ExpectHonestClientServed();
}

Status ReadNothing(Reader<echo::v1::CollectRequest>) {
  co_await Sleep(absl::Hours(1));
  co_return absl::OkStatus();
}

// Small on the wire, and work: 200 ms for 4 MiB of such, in which nobody else is served.
TEST_F(LimitsTest, MessageFieldsMax) {
  limits().message_fields_max = 10'000;
  script_.collect = [](Reader<echo::v1::CollectRequest> reader, echo::v1::CollectResponse&, Call&) -> Status {
    echo::v1::CollectRequest request;
    const bool more = co_await reader.Read(request);
    co_return more ? absl::OkStatus() : absl::CancelledError("the call is over");
  };
  auto stranger = NewStranger();
  std::string groups, fields;
  for (int i = 0; i < 1000; ++i) groups += "\x7b\x7c";
  for (int i = 0; i < 3000; ++i) fields += std::string("\x78\x00", 2);
  EXPECT_THAT(Say(*stranger, FrameBytes().Preface().Call(1, 0, kEcho, groups + groups).Call(3, 0, "", groups)),
              UnorderedElementsAre(StartsWith("END 1 "), StartsWith("END 3 ")))
      << "few are nothing";
  EXPECT_EQ(counters().messages_heavy.value(), 0u);
  EXPECT_THAT(Say(*stranger, FrameBytes().Call(5, 0, "", fields)),
              ElementsAre(AllOf(StartsWith("END 5 "),
                                HasSubstr("RESOURCE_EXHAUSTED: /echo.v1.Echo/Echo: a request of too many"))));
  EXPECT_THAT(Say(*stranger, FrameBytes().Open(7, 1, kCollect).Message(7, fields)),
              ElementsAre(AllOf(StartsWith("END 7 "), HasSubstr("RESOURCE_EXHAUSTED"))));
  EXPECT_EQ(counters().messages_heavy.value(), 2u);
  EXPECT_EQ(counters().messages_malformed.value(), 0u);
  ExpectHonestClientServed();
}

TEST_F(LimitsTest, CallCreditBytes) {
  script_.collect = [](Reader<echo::v1::CollectRequest> reader, echo::v1::CollectResponse&, Call&) {
    return ReadNothing(reader);
  };
  auto stranger = NewStranger();
  const std::string half(32000, 'x');
  EXPECT_THAT(Say(*stranger, FrameBytes().Preface().Open(1, 0, kCollect).Message(1, half).Message(1, half)), IsEmpty());
  EXPECT_EQ(service().server().held_bytes(), 2 * (32000 + 32)) << "what was granted for a call that nobody reads";
  EXPECT_THAT(Say(*stranger, FrameBytes().Message(1, half)),
              Contains(HasSubstr("INTERNAL: peer broke the format: message bytes beyond the credit of call 1")));
  EXPECT_EQ(counters().wire.credit_overruns.value(), 1u);
  EXPECT_EQ(counters().format_errors.value(), 1u);
  EXPECT_EQ(service().server().held_bytes(), 0);
  ExpectHonestClientServed();
}

TEST_F(LimitsTest, ConnectionCreditBytes) {
  script_.collect = [](Reader<echo::v1::CollectRequest> reader, echo::v1::CollectResponse&, Call&) {
    return ReadNothing(reader);
  };
  MemoryTransportOptions at_once;
  at_once.pipe_bytes_max = at_once.delivery_bytes_max = 1 << 20;
  auto stranger = NewStranger(at_once);
  // Calls within their own credit. The connection's comes back in halves, after each delivery.
  const std::string message(60000, 'x');
  EXPECT_THAT(Say(*stranger,
                  FrameBytes().Preface().Open(1, 0, kCollect).Message(1, message).Open(3, 0, "").Message(3, message)),
              IsEmpty());
  FrameBytes bytes;
  for (uint32_t id = 5; id < 11; id += 2) bytes.Open(id, 0, "").Message(id, message);
  EXPECT_THAT(Say(*stranger, bytes),
              Contains(HasSubstr("INTERNAL: peer broke the format: message bytes beyond the connection's credit")));
  EXPECT_EQ(counters().wire.credit_overruns.value(), 1u);
  ExpectHonestClientServed();
}

// Two bytes of an unknown field take sixteen and more as a message: what waits is kept as it came.
TEST_F(LimitsTest, RequestBytesMaxIsOfWhatRequestsOccupyAsMessagesAndTheOthersWait) {
  limits().request_bytes_max = 4 << 20;
  limits().connection_credit_bytes = 2 << 20;
  script_.echo = [](const EchoRequest& request, EchoResponse& response, Call&) {
    return request.message().empty() ? AnswerAfter(absl::Seconds(1)) : Copy(request, response);
  };
  auto stranger = NewStranger();
  std::string unknown;
  while (unknown.size() < 60'000) unknown += std::string("\x78\x00", 2);
  const int64_t one = 30'000 * 32;  // at most, with the room that it may grow into
  std::vector<std::string> said;
  int64_t most = 0;
  for (uint32_t i = 0; i < 20; ++i) {
    const FrameBytes call =
        i == 0 ? FrameBytes().Preface().Call(1, 0, kEcho, unknown) : FrameBytes().Call(1 + 2 * i, 0, "", unknown);
    for (std::string& line : Say(*stranger, call)) said.push_back(std::move(line));
    most = std::max(most, service().server().held_bytes());
  }
  EXPECT_GT(most, 3 << 20);
  EXPECT_LE(most, (4 << 20) + one + 20 * 60'100);
  EXPECT_EQ(service().server().memory().held(), service().server().held_bytes());
  EXPECT_THAT(said, Each(StartsWith("CREDIT "))) << "nothing is refused, nothing answered";
  EXPECT_GT(counters().requests_delayed.value(), 5u);
  ExpectHonestClientServed();
  service().Advance(absl::Seconds(30));
  EXPECT_EQ(counters().requests_refused.value(), 0u);
  EXPECT_EQ(service().server().calls_in_flight(), 0u) << "all were answered in the end";
  EXPECT_EQ(service().server().held_bytes(), 0);
  EXPECT_THAT(Say(*stranger, FrameBytes().Call(41, 0, "", Encoded("x"))), Contains(StartsWith("END 41 whole")));
}

// Who pipelines more than the server holds waits for credit, and none of its calls fails.
TEST_F(LimitsTest, RequestBytesMaxSlowsHonestClientsDown) {
  limits().request_bytes_max = 1 << 20;
  limits().message_bytes_max = 1 << 20;
  script_.echo = [](const EchoRequest& request, EchoResponse&, Call&) {
    return AnswerAfter(absl::Milliseconds(request.message().size() > 100 ? 20 : 0));
  };
  EchoStub echo = service().stub();
  std::vector<Reply<EchoResponse>> replies;
  for (int i = 0; i < 300; ++i) replies.push_back(echo.Echo(Request(std::string(15'000, 'x'))));
  int64_t most = 0;
  for (Reply<EchoResponse>& reply : replies) {
    most = std::max(most, service().server().held_bytes());
    ASSERT_OK(service().Run(std::move(reply)));
  }
  // The bound, and what was on its way when credit ended.
  EXPECT_LE(most, (1 << 20) + (256 << 10) + 100'000);
  EXPECT_GT(most, 1 << 19);
  EXPECT_GT(counters().requests_delayed.value(), 0u);
  EXPECT_EQ(counters().requests_refused.value(), 0u);
}

// What holds the requests does not end: those that wait for it are told so, and others at once.
TEST_F(LimitsTest, RequestBytesMaxRefusesWhoHasWaitedForLong) {
  limits().request_bytes_max = 100'000;
  script_.echo = [](const EchoRequest& request, EchoResponse& response, Call&) {
    return request.message().size() > 100 ? AnswerAfter(absl::Minutes(1)) : Copy(request, response);
  };
  auto stranger = NewStranger();
  const std::string much = Encoded(std::string(60'000, 'x'));
  EXPECT_THAT(
      Say(*stranger, FrameBytes().Preface().Call(1, 0, kEcho, much).Call(3, 0, "", much).Call(5, 0, "", Encoded("x"))),
      IsEmpty());
  service().Advance(absl::Seconds(4));
  EXPECT_THAT(stranger->TakeFrames(), IsEmpty());
  service().Advance(absl::Seconds(2));
  EXPECT_THAT(stranger->TakeFrames(),
              UnorderedElementsAre(AllOf(StartsWith("END 3"), HasSubstr("RESOURCE_EXHAUSTED: the requests of ")),
                                   AllOf(StartsWith("END 5"), HasSubstr("RESOURCE_EXHAUSTED"))));
  EXPECT_EQ(counters().requests_refused.value(), 2u);
  EXPECT_THAT(Say(*stranger, FrameBytes().Call(7, 0, "", much)), Contains(StartsWith("END 7 RESOURCE_EXHAUSTED")));
  EXPECT_THAT(Say(*stranger, FrameBytes().Call(9, 0, "", Encoded("x"))), ElementsAre(StartsWith("END 9 whole")));
  service().Advance(absl::Minutes(1));
  EXPECT_THAT(stranger->TakeFrames(), Contains(StartsWith("END 1")));
  EXPECT_THAT(Say(*stranger, FrameBytes().Call(11, 0, "", Encoded("x"))), ElementsAre(StartsWith("END 11 whole")));
  ExpectHonestClientServed();
}

TEST_F(LimitsTest, RequestBytesMaxIsOfMetadataToo) {
  limits().request_bytes_max = 100'000;
  script_.expand = [](const ExpandRequest&, Writer<ExpandResponse>, Call&) { return AnswerAfter(absl::Seconds(1)); };
  auto stranger = NewStranger();
  Metadata metadata;
  for (int i = 0; i < 10; ++i) metadata.Add(absl::StrCat("key", i), std::string(900, 'v'));
  FrameBytes bytes = FrameBytes().Preface();
  for (uint32_t i = 0; i < 20; ++i) {
    bytes.Open(1 + 2 * i, 0, i == 0 ? kExpand : "", metadata).Message(1 + 2 * i, "", native::kFlagClose);
  }
  const std::vector<std::string> said = Say(*stranger, bytes);
  EXPECT_LE(service().server().held_bytes(), 100'000 + 1000);
  EXPECT_GE(service().server().held_bytes(), 90'000);
  EXPECT_THAT(said, Each(HasSubstr("RESOURCE_EXHAUSTED: the requests of ")));
  EXPECT_EQ(said.size(), counters().requests_refused.value());
  EXPECT_EQ(service().server().calls_in_flight() + said.size(), 20u);
  ExpectHonestClientServed();
  service().Advance(absl::Seconds(10));
  EXPECT_EQ(service().server().held_bytes(), 0);
  EXPECT_EQ(service().server().calls_in_flight(), 0u);
}

TEST_F(LimitsTest, BytesPerTurnMax) {
  limits().bytes_per_turn_max = 1000;
  int started = 0;
  script_.echo = [&](const EchoRequest& request, EchoResponse& response, Call&) {
    ++started;
    return Copy(request, response);
  };
  auto stranger = NewStranger();
  FrameBytes bytes = FrameBytes().Preface();
  for (uint32_t i = 0; i < 6; ++i) bytes.Call(1 + 2 * i, 0, i == 0 ? kEcho : "", Encoded(std::string(600, 'x')));
  bytes.Call(13, 0, "", std::string(700, '\xff'));
  EXPECT_THAT(StartsByTurn(*stranger, bytes, started, 6), ElementsAre(2, 2, 2));
  EXPECT_GE(counters().turns_exhausted.value(), 4u);
  EXPECT_EQ(counters().messages_malformed.value(), 1u) << "found out in its turn";
  EXPECT_THAT(stranger->TakeFrames(), Contains(StartsWith("END 13 ")));
}

// A packed message of a few bytes is a large one: that much work is not done in one turn, nor is it held twice.
TEST_F(LimitsTest, BytesPerTurnMaxIsOfWhatPackedMessagesBecome) {
  int started = 0;
  script_.echo = [&](const EchoRequest&, EchoResponse&, Call&) -> Status {
    ++started;
    co_return absl::OkStatus();
  };
  auto stranger = NewStranger();
  const std::string packed =
      grpc_wire::Framed(grpc_wire::Gzip(absl::MakeConstSpan(Encoded(std::string(1 << 20, 'x')))), /*packed=*/true);
  ASSERT_LT(packed.size(), 2000u);
  H2Bytes bytes = H2Bytes().Preface().Settings();
  auto calls = [&bytes, &packed, next = uint32_t{1}](int times) mutable {
    for (; times > 0; --times, next += 2) {
      bytes.Request(next, kEcho, {{"grpc-encoding", "gzip"}}).Data(next, packed, grpc_wire::kEndStream);
    }
  };
  calls(1);
  stranger->Send(bytes);
  service().RunUntilIdle();
  EXPECT_EQ(started, 2) << "the honest one too";
  bytes = H2Bytes();
  calls(30);
  stranger->Send(bytes);
  int most_a_turn = 0, seen = started;
  int64_t most = 0;
  std::function<void()> each_turn = [&] {
    most_a_turn = std::max(most_a_turn, started - std::exchange(seen, started));
    most = std::max(most, service().server().held_bytes());
    if (started < 32) service().loop().CallSoon([&] { each_turn(); });
  };
  each_turn();
  service().RunUntilIdle();
  EXPECT_EQ(started, 32);
  EXPECT_LE(most_a_turn, 2);
  EXPECT_LE(most, 6 << 20);
  EXPECT_GT(counters().reads_delayed.value(), 2u);
  EXPECT_EQ(counters().requests_refused.value(), 0u);
  ExpectHonestClientServed();
}

TEST_F(LimitsTest, RequestBytesMaxTakesOneInAnyCase) {
  limits().request_bytes_max = 1000;
  EXPECT_OK(service().Run(service().stub().Echo(Request(std::string(100'000, 'x')))));
  EXPECT_EQ(counters().requests_refused.value(), 0u);
}

Status ReadAll(Reader<echo::v1::CollectRequest> reader) {
  echo::v1::CollectRequest request;
  while (true) {
    const bool more = co_await reader.Read(request);
    if (!more) co_return absl::OkStatus();
  }
}

TEST_F(LimitsTest, ActorBytesMax) {
  limits().actor_bytes_max = 100'000;
  Connection* connection = nullptr;
  script_.collect = [&connection](Reader<echo::v1::CollectRequest> reader, echo::v1::CollectResponse&, Call& call) {
    connection = &call.connection();
    return ReadAll(reader);
  };
  auto stranger = NewStranger();
  const std::string message(40'000, 'x');
  const auto credit = Contains(StartsWith("CREDIT 1"));
  EXPECT_THAT(Say(*stranger, FrameBytes().Preface().Open(1, 0, kCollect).Message(1, message)), credit);
  ASSERT_NE(connection, nullptr);
  connection->Charge(100'001);
  EXPECT_EQ(counters().credit_pauses.value(), 1u);
  EXPECT_EQ(service().server().held_bytes(), 100'001);
  EXPECT_EQ(service().server().memory().held(), 100'001);
  EXPECT_THAT(Say(*stranger, FrameBytes().Message(1, message)), IsEmpty()) << "what is read is not granted again";
  connection->Charge(-50'000);
  service().RunUntilIdle();
  EXPECT_THAT(stranger->TakeFrames(), IsEmpty()) << "more than half is held";
  ExpectHonestClientServed();
  connection->Charge(-1);
  service().RunUntilIdle();
  EXPECT_THAT(stranger->TakeFrames(), credit);
  connection->Charge(-50'000);
  EXPECT_EQ(service().server().held_bytes(), 0);
}

TEST_F(LimitsTest, UnsentBytesMax) {
  limits().unsent_bytes_max = 1 << 20;
  const std::string text(300'000, 'x');
  script_.echo = [&](const EchoRequest& request, EchoResponse& response, Call&) -> Status {
    const bool much = request.message() == "much";
    if (!request.message().empty()) co_await Sleep(absl::Seconds(1));
    response.set_message(much ? text : request.message());
    co_return absl::OkStatus();
  };
  auto stranger = NewStranger();
  stranger->StopReading();
  FrameBytes bytes = FrameBytes().Preface().Credit(0, 1 << 30);
  // Sixteen may run at once of which nothing is known; the others after a while.
  for (uint32_t i = 0; i < 20; ++i) {
    bytes.Call(1 + 2 * i, 0, i == 0 ? kEcho : "", Encoded(i < 19 ? "much" : "little")).Credit(1 + 2 * i, 1 << 30);
  }
  stranger->Send(bytes);
  service().Advance(absl::Seconds(2));
  EXPECT_EQ(service().server().calls_in_flight(), 0u);
  EXPECT_LE(service().server().held_bytes(), (1 << 20) + 300'000 + 10'000);
  EXPECT_GE(counters().replies_dropped.value(), 14u);
  stranger->Read();
  service().RunUntilIdle();
  const std::vector<std::string> said = stranger->TakeFrames();
  EXPECT_THAT(said, Contains(AllOf(HasSubstr("RESOURCE_EXHAUSTED"), HasSubstr("bytes of replies are not read"))));
  EXPECT_THAT(said, Contains(StartsWith("END 39 whole"))) << "a small one is told in any case";
  ExpectHonestClientServed();
}

TEST_F(LimitsTest, UnsentBytesMaxEndsStreamsThatWriteAllTheSame) {
  limits().unsent_bytes_max = 1 << 20;
  script_.expand = [&](const ExpandRequest&, Writer<ExpandResponse> writer, Call&) -> Status {
    ExpandResponse response;
    response.set_message(std::string(100'000, 'x'));
    while (writer.WriteWithoutWaiting(response)) {
    }
    co_return absl::OkStatus();
  };
  auto stranger = NewStranger();
  stranger->StopReading();
  stranger->Send(FrameBytes().Preface().Open(1, 0, kExpand).Message(1, "", native::kFlagClose));
  service().RunUntilIdle();
  EXPECT_EQ(service().server().calls_in_flight(), 0u);
  EXPECT_LE(service().server().held_bytes(), (1 << 20) + 110'000);
  EXPECT_EQ(counters().replies_dropped.value(), 1u);
  ExpectHonestClientServed();
}

// A caller that reads and gives no credit is told to those who could stop answering, as one that does not read is.
TEST_F(LimitsTest, RepliesThatWaitForCreditPauseActors) {
  script_.echo = [](const EchoRequest& request, EchoResponse& response, Call&) -> Status {
    if (!request.message().empty()) response.set_message(std::string(200'000, 'x'));
    co_return absl::OkStatus();
  };
  auto stranger = NewStranger();
  script_.log.clear();
  static_cast<void>(Say(*stranger, FrameBytes().Preface().Call(1, 0, kEcho, "")));
  EXPECT_THAT(script_.log, Not(Contains("PauseWriting")));
  static_cast<void>(Say(*stranger, FrameBytes().Call(3, 0, "", Encoded("much")).Call(5, 0, "", Encoded("much"))));
  EXPECT_THAT(script_.log, Contains("PauseWriting").Times(1));
  EXPECT_EQ(counters().starts_delayed_unsent.value(), 1u);
  static_cast<void>(Say(*stranger, FrameBytes().Credit(0, 1 << 20).Credit(3, 1 << 20)));
  EXPECT_THAT(script_.log, Contains("ResumeWriting").Times(1)) << "while the second was not started";
  EXPECT_THAT(script_.log, Contains("PauseWriting").Times(2)) << "and once more for that";
  static_cast<void>(Say(*stranger, FrameBytes().Credit(5, 1 << 20)));
  EXPECT_THAT(script_.log, Contains("ResumeWriting").Times(2));
}

// A caller may leave a stream unread until something else was answered.
TEST_F(LimitsTest, StreamsThatWaitForCreditPauseNobody) {
  script_.expand = [](const ExpandRequest&, Writer<ExpandResponse> writer, Call&) -> Status {
    ExpandResponse response;
    response.set_message(std::string(200'000, 'x'));
    const bool more = co_await writer.Write(response);
    co_return more ? absl::OkStatus() : absl::CancelledError("nobody reads");
  };
  auto stranger = NewStranger();
  script_.log.clear();
  static_cast<void>(Say(*stranger, FrameBytes().Preface().Open(1, 0, kExpand).Message(1, "", native::kFlagClose)));
  EXPECT_GT(service().server().held_bytes(), 130'000);
  EXPECT_THAT(script_.log, Not(Contains("PauseWriting")));
  EXPECT_THAT(Say(*stranger, FrameBytes().Call(3, 1, kEcho, Encoded("x"))), Contains(StartsWith("END 3 whole")));
}

// What is known of replies is known by method, and small ones do not make a large one forgotten at once.
TEST_F(LimitsTest, UnsentBytesMaxReckonsWithTheLargestReplyOfTheMethodLately) {
  limits().unsent_bytes_max = 4 << 20;
  int running = 0, most_running = 0;
  script_.echo = [&](const EchoRequest& request, EchoResponse& response, Call&) -> Status {
    most_running = std::max(most_running, ++running);
    if (!request.message().empty()) co_await Sleep(absl::Milliseconds(3));
    response.set_message(std::string(request.message() == "much" ? 500'000 : 10, 'x'));
    --running;
    co_return absl::OkStatus();
  };
  script_.expand = [](const ExpandRequest&, Writer<ExpandResponse> writer, Call&) -> Status {
    ExpandResponse response;
    response.set_message(std::string(500'000, 'x'));
    const bool more = co_await writer.Write(response);
    co_return more ? absl::OkStatus() : absl::CancelledError("nobody reads");
  };
  auto stranger = NewStranger();
  uint32_t id = 1;
  const auto call = [&](const char* text, int times) {
    FrameBytes bytes;
    for (int i = 0; i < times; ++i, id += 2) {
      bytes.Call(id, 0, id == 1 ? kEcho : "", text[0] == 0 ? "" : Encoded(text)).Credit(id, 1 << 30);
    }
    most_running = 0;
    stranger->Send(bytes);
    service().Advance(absl::Seconds(1));
    EXPECT_EQ(running, 0);
    return most_running;
  };
  stranger->Send(FrameBytes().Preface().Credit(0, 1 << 30));
  static_cast<void>(call("", 1));
  EXPECT_GT(call("little", 60), 50) << "which are known to be small";
  static_cast<void>(
      Say(*stranger, FrameBytes().Open(id, 1, kExpand).Credit(id, 1 << 30).Message(id, "", native::kFlagClose)));
  id += 2;
  EXPECT_GT(call("little", 60), 50) << "whatever is known of another method";
  static_cast<void>(call("much", 1));
  static_cast<void>(call("", 30));
  EXPECT_LE(call("much", 40), 4) << "two at once, by what was a moment ago";
  static_cast<void>(call("", 600));
  EXPECT_GT(call("little", 60), 30) << "long ago";
  EXPECT_EQ(counters().replies_dropped.value(), 0u);
}

TEST_F(LimitsTest, WriteHighBytes) {
  limits().write_high_bytes = 10000;
  limits().write_low_bytes = 1000;
  int started = 0;
  const std::string text(1000, 'x');
  script_.echo = [&](const EchoRequest&, EchoResponse& response, Call&) -> Status {
    ++started;
    response.set_message(text);
    co_return absl::OkStatus();
  };
  MemoryTransportOptions narrow;
  narrow.pipe_bytes_max = 2000;
  auto stranger = NewStranger(narrow);
  started = 0;
  stranger->StopReading();
  stranger->Send(FrameBytes().Preface().Call(1, 0, kEcho, ""));
  for (uint32_t i = 1; i < 100; ++i) stranger->Send(FrameBytes().Call(1 + 2 * i, 0, "", ""));
  service().RunUntilIdle();
  // What the pipe holds, and the mark; one more crosses it.
  EXPECT_LE(started, (2000 + 10000) / 1000 + 1);
  EXPECT_GE(started, 10000 / 1100);
  EXPECT_LE(service().server().held_bytes(), 10000 + 1100);
  EXPECT_GT(counters().starts_delayed_unsent.value(), 80u);
  EXPECT_EQ(service().server().calls_in_flight(), 100u - started);
  ExpectHonestClientServed();
  stranger->Read();
  service().RunUntilIdle();
  EXPECT_EQ(started, 101) << "the honest one too";
  EXPECT_THAT(stranger->TakeFrames(), SizeIs(100));
}

// Who writes without ever waiting for the loop meets the mark as well, whatever credit its peer gives.
TEST_F(LimitsTest, WriteHighBytesHoldsAStreamWhosePeerGrantsEverything) {
  int written = 0;
  script_.expand = [&](const ExpandRequest&, Writer<ExpandResponse> writer, Call&) -> Status {
    ExpandResponse response;
    response.set_message(std::string(1000, 'x'));
    for (; written < 100000; ++written) {
      const bool more = co_await writer.Write(response);
      if (!more) co_return absl::CancelledError("nobody reads");
    }
    co_return absl::OkStatus();
  };
  auto stranger = NewStranger();
  stranger->StopReading();
  stranger->Send(FrameBytes()
                     .Preface()
                     .Credit(0, 1 << 30)
                     .Open(1, 0, kExpand)
                     .Credit(1, 1 << 30)
                     .Message(1, "", native::kFlagClose));
  int64_t most = 0;
  for (int i = 0; i < 1000; ++i) {
    service().loop().RunOnceWithoutWaiting();
    most = std::max(most, service().server().held_bytes());
  }
  EXPECT_LE(most, (64 << 10) + 2 * 1100);
  EXPECT_GT(written, 64);
  EXPECT_LT(written, 200);
  ExpectHonestClientServed();
}

// ---------------------------------------------------------------------------------------------------- floods

TEST_F(LimitsTest, ResetsMaxReceived) {
  auto stranger = NewStranger();
  FrameBytes bytes = FrameBytes().Preface();
  script_.collect = [](Reader<echo::v1::CollectRequest> reader, echo::v1::CollectResponse&, Call&) {
    return ReadNothing(reader);
  };
  for (uint32_t i = 0; i < 1000; ++i) {
    bytes.Open(1 + 2 * i, 0, i == 0 ? kCollect : "").Reset(1 + 2 * i, absl::CancelledError(""));
  }
  EXPECT_THAT(Say(*stranger, bytes), IsEmpty());
  // 33 a second come back.
  service().Advance(absl::Seconds(1));
  bytes = FrameBytes();
  for (uint32_t i = 1000; i < 1033; ++i) bytes.Open(1 + 2 * i, 0, "").Reset(1 + 2 * i, absl::CancelledError(""));
  EXPECT_THAT(Say(*stranger, bytes), IsEmpty());
  EXPECT_EQ(counters().wire.resets_received.value(), 1033u);
  EXPECT_THAT(Say(*stranger, FrameBytes().Open(2067, 0, "").Reset(2067, absl::CancelledError(""))),
              ElementsAre("GOAWAY 2067 RESOURCE_EXHAUSTED: too many calls were reset"));
  EXPECT_TRUE(stranger->ended());
  EXPECT_EQ(counters().wire.reset_floods.value(), 1u);
  ExpectHonestClientServed();
}

TEST_F(LimitsTest, ResetsMaxCaused) {
  limits().resets_max = 10;
  limits().calls_max = 1;
  script_.collect = [](Reader<echo::v1::CollectRequest> reader, echo::v1::CollectResponse&, Call&) {
    return ReadNothing(reader);
  };
  auto stranger = NewStranger();
  FrameBytes bytes = FrameBytes().Preface();
  for (uint32_t i = 0; i < 12; ++i) bytes.Open(1 + 2 * i, 0, i == 0 ? kCollect : "");
  const std::vector<std::string> said = Say(*stranger, bytes);
  ASSERT_THAT(said, SizeIs(12));
  EXPECT_EQ(said.back(), "GOAWAY 23 RESOURCE_EXHAUSTED: too many calls had to be refused");
  EXPECT_EQ(counters().wire.reset_floods.value(), 1u);
  ExpectHonestClientServed();
}

TEST_F(LimitsTest, GlitchesMax) {
  limits().glitches_max = 100;
  auto stranger = NewStranger();
  FrameBytes bytes = FrameBytes().Preface();
  for (int i = 0; i < 100; ++i) bytes.Frame(static_cast<FrameType>(9), 0, 0, "");
  EXPECT_THAT(Say(*stranger, bytes), IsEmpty());
  EXPECT_THAT(Say(*stranger, FrameBytes().Frame(static_cast<FrameType>(9), 0, 0, "")),
              ElementsAre("GOAWAY 0 RESOURCE_EXHAUSTED: too many frames of unknown type"));
  EXPECT_EQ(counters().wire.glitches.value(), 101u);
  EXPECT_EQ(counters().wire.glitch_floods.value(), 1u);
  ExpectHonestClientServed();
}

// A peer that pings and never reads: the answers stand in the codec once the transport has paused, where they are
// counted, instead of in a write buffer that grows.
TEST_F(LimitsTest, AcksUnsentMax) {
  limits().ping_interval_min = absl::ZeroDuration();
  limits().glitches_max = 1 << 30;
  auto stranger = NewStranger();
  stranger->StopReading();
  stranger->Send(FrameBytes().Preface());
  constexpr int64_t kAck = native::kFrameHeaderBytes + native::kPingBytes;
  int pings = 0;
  int64_t most = 0;
  while (!stranger->ended() && counters().wire.ack_floods.value() == 0 && pings < 100000) {
    stranger->Send(FrameBytes().Ping(++pings));
    service().RunUntilIdle();
    if (!stranger->ended() && counters().wire.ack_floods.value() == 0)
      most = std::max(most, service().server().held_bytes());
  }
  EXPECT_EQ(counters().wire.ack_floods.value(), 1u);
  // In the write buffer up to the mark, which one more crosses; and a thousand before it.
  EXPECT_LE(most, (64 << 10) + kAck + 1000 * kAck);
  EXPECT_GT(most, (64 << 10) + 1000 * kAck);
  EXPECT_EQ(pings - 1, ((64 << 10) - 48 + (64 << 10)) / kAck + 1 + 1000) << "pipe, write buffer, codec";
  ExpectHonestClientServed();
  stranger->Read();
  service().RunUntilIdle();
  EXPECT_THAT(stranger->TakeFrames().back(), "GOAWAY 0 RESOURCE_EXHAUSTED: pings whose answers are not read");
}

TEST_F(LimitsTest, FramesUnsentMax) {
  limits().calls_max = 10;
  limits().frames_unsent_max = 100;
  auto stranger = NewStranger();
  stranger->StopReading();
  stranger->Send(FrameBytes().Preface());
  int calls = 0;
  int64_t most = 0;
  while (counters().wire.frame_floods.value() == 0 && calls < 100000) {
    // Each is answered at once: there is no such method.
    stranger->Send(FrameBytes().Call(1 + 2 * calls, calls == 0 ? 0 : 0, calls == 0 ? "/no.such/Method" : "", ""));
    ++calls;
    service().RunUntilIdle();
    most = std::max(most, service().server().held_bytes());
  }
  EXPECT_EQ(counters().wire.frame_floods.value(), 1u);
  const int64_t answer = 8 + 60;
  EXPECT_LE(most, (64 << 10) + (110 + 2) * answer);
  ExpectHonestClientServed();
}

TEST_F(LimitsTest, PingStrikesMax) {
  auto stranger = NewStranger();
  EXPECT_THAT(Say(*stranger, FrameBytes().Preface().Ping(1).Ping(2).Ping(3)), SizeIs(3));
  service().Advance(absl::Minutes(4));
  EXPECT_THAT(Say(*stranger, FrameBytes().Ping(4)), ElementsAre("GOAWAY 0 RESOURCE_EXHAUSTED: too many pings"));
  EXPECT_EQ(counters().wire.ping_floods.value(), 1u);
  auto patient = NewStranger();
  EXPECT_THAT(Say(*patient, FrameBytes().Preface()), IsEmpty());
  for (int i = 0; i < 10; ++i) {
    service().Advance(absl::Minutes(5));
    EXPECT_THAT(Say(*patient, FrameBytes().Ping(i)), ElementsAre(StartsWith("PING ack")));
  }
  ExpectHonestClientServed();
}

// ---------------------------------------------------------------------------------------------------- time

TEST_F(LimitsTest, PrefaceTimeout) {
  auto stranger = NewStranger();
  service().RunUntilIdle();
  stranger->Send(absl::string_view("\xF1\x54\x52", 3));
  service().Advance(absl::Seconds(9));
  EXPECT_FALSE(stranger->ended());
  service().Advance(absl::Seconds(2));
  EXPECT_TRUE(stranger->ended());
  EXPECT_EQ(counters().preface_timeouts.value(), 1u);
  ExpectHonestClientServed();
}

TEST_F(LimitsTest, PrefaceTimeoutIsOfAllOfIt) {
  const std::string beginnings[] = {
      FrameBytes().Preface().str().substr(0, 6),
      H2Bytes().Preface().str().substr(0, 20),
      H2Bytes().Preface().str(),
      H2Bytes().Preface().Settings({{4, 65535}}).str().substr(0, 30),
  };
  for (size_t i = 0; i < std::size(beginnings); ++i) {
    SCOPED_TRACE(i);
    auto stranger = NewStranger();
    stranger->Send(beginnings[i]);
    service().RunUntilIdle();
    service().Advance(absl::Seconds(9));
    EXPECT_FALSE(stranger->ended());
    service().Advance(absl::Seconds(2));
    EXPECT_TRUE(stranger->ended());
    EXPECT_EQ(counters().preface_timeouts.value(), i + 1);
  }
  auto stranger = NewStranger();
  stranger->Send(H2Bytes().Preface().Settings());
  service().Advance(absl::Seconds(20));
  EXPECT_FALSE(stranger->ended());
  ExpectHonestClientServed();
}

TEST_F(LimitsTest, HeaderTimeout) {
  auto stranger = NewStranger();
  const std::string block = grpc_wire::HeaderBlock(grpc_wire::RequestFields(kEcho));
  stranger->Send(H2Bytes().Preface().Settings());
  service().Advance(absl::Minutes(1));
  // One block after the other, each in time.
  for (uint32_t i = 0; i < 5; ++i) {
    stranger->Send(H2Bytes().Frame(grpc_wire::kHeadersFrame, 0, 1 + 2 * i, block));
    service().Advance(absl::Seconds(9));
    stranger->Send(H2Bytes().Frame(grpc_wire::kContinuationFrame, grpc_wire::kEndHeaders, 1 + 2 * i, ""));
    if (i % 2 == 0) service().Advance(absl::Seconds(9));
  }
  EXPECT_FALSE(stranger->ended());
  EXPECT_EQ(counters().header_timeouts.value(), 0u);
  // And one that never ends, although something comes all the while.
  stranger->Send(H2Bytes().Frame(grpc_wire::kHeadersFrame, 0, 11, block));
  for (int i = 0; i < 4; ++i) {
    service().Advance(absl::Seconds(2));
    stranger->Send(H2Bytes().Frame(grpc_wire::kContinuationFrame, 0, 11, ""));
  }
  EXPECT_FALSE(stranger->ended());
  service().Advance(absl::Seconds(3));
  EXPECT_TRUE(stranger->ended());
  EXPECT_EQ(counters().header_timeouts.value(), 1u);
  ExpectHonestClientServed();
}

TEST_F(LimitsTest, LingerTimeout) {
  limits().glitches_max = 0;
  auto stranger = NewStranger();
  EXPECT_THAT(Say(*stranger, FrameBytes().Preface().Frame(static_cast<FrameType>(9), 0, 0, "")), SizeIs(1));
  EXPECT_TRUE(stranger->ended());
  service().Advance(absl::Seconds(4));
  EXPECT_EQ(service().server().connections(), 2u);
  service().Advance(absl::Seconds(2));
  EXPECT_EQ(counters().linger_timeouts.value(), 1u);
  EXPECT_EQ(service().server().connections(), 1u);
}

TEST_F(LimitsTest, WindowTimeoutOfAReplyWhoseCallerGivesNoCredit) {
  script_.echo = [](const EchoRequest& request, EchoResponse& response, Call&) -> Status {
    response.set_message(request.message() == "large" ? std::string(200 << 10, 'x') : "");
    co_return absl::OkStatus();
  };
  auto stranger = NewStranger();
  static_cast<void>(
      Say(*stranger, FrameBytes().Preface().Call(1, 0, kEcho, Encoded("large")).Call(3, 0, "", Encoded("large"))));
  EXPECT_GT(service().server().held_bytes(), 2 * (34 << 10));
  std::vector<std::string> said;
  for (int i = 1; i <= 45; ++i) {  // one of them goes on, though slowly
    service().Advance(absl::Seconds(1));
    if (i < 30) {
      EXPECT_EQ(counters().wire.calls_stalled.value(), 0u) << i;
    }
    for (std::string& line : Say(*stranger, FrameBytes().Credit(3, 1024))) said.push_back(std::move(line));
  }
  EXPECT_THAT(said, Contains("RESET 1 RESOURCE_EXHAUSTED: the caller gives no credit for the reply"));
  EXPECT_EQ(counters().wire.calls_stalled.value(), 1u);
  service().Advance(absl::Minutes(1));
  EXPECT_EQ(counters().wire.calls_stalled.value(), 2u);
  EXPECT_EQ(service().server().held_bytes(), 0);
  EXPECT_FALSE(stranger->ended());
  ExpectHonestClientServed();
}

TEST_F(LimitsTest, WindowTimeoutOfAStreamWhoseCallerGivesNoCredit) {
  std::vector<std::string> log;
  script_.expand = [&](const ExpandRequest&, Writer<ExpandResponse> writer, Call&) -> Status {
    ExpandResponse response;
    response.set_message(std::string(1000, 'x'));
    try {
      while (true) {
        const bool more = co_await writer.Write(response);
        if (!more) co_return absl::OkStatus();
      }
    } catch (const Cancelled&) {
      log.push_back("cancelled");
      throw;
    }
  };
  auto stranger = NewStranger();
  static_cast<void>(Say(*stranger, FrameBytes().Preface().Open(1, 0, kExpand).Message(1, "", native::kFlagClose)));
  service().Advance(absl::Seconds(29));
  EXPECT_THAT(log, IsEmpty());
  service().Advance(absl::Seconds(17));
  EXPECT_THAT(log, ElementsAre("cancelled"));
  EXPECT_THAT(stranger->TakeFrames(), Contains(StartsWith("RESET 1 RESOURCE_EXHAUSTED")));
  ExpectHonestClientServed();
}

TEST_F(LimitsTest, WindowTimeoutOfAConnectionThatTakesNoBytes) {
  const std::string text(200 << 10, 'x');
  script_.echo = [&](const EchoRequest& request, EchoResponse& response, Call&) -> Status {
    response.set_message(request.message() == "large" ? text : "");
    co_return absl::OkStatus();
  };
  auto stranger = NewStranger();
  stranger->StopReading();
  stranger->Send(
      FrameBytes().Preface().Open(1, 0, kEcho).Credit(1, 1 << 20).Message(1, Encoded("large"), native::kFlagClose));
  service().Advance(absl::Seconds(29));
  EXPECT_FALSE(stranger->ended());
  EXPECT_GT(service().server().held_bytes(), 100 << 10);
  service().Advance(absl::Seconds(17));
  EXPECT_EQ(counters().write_stalls.value(), 1u);
  EXPECT_EQ(service().server().connections(), 1u);
  EXPECT_EQ(service().server().held_bytes(), 0);
  ExpectHonestClientServed();
}

TEST_F(LimitsTest, IdleTimeout) {
  limits().idle_timeout = absl::Minutes(5);
  auto stranger = NewStranger();
  script_.echo = [](const EchoRequest& request, EchoResponse& response, Call&) {
    return request.message() == "long" ? AnswerAfter(absl::Minutes(20)) : Copy(request, response);
  };
  EXPECT_THAT(Say(*stranger, FrameBytes().Preface().Call(1, 0, kEcho, Encoded("long"))), IsEmpty());
  service().Advance(absl::Minutes(20) + absl::Seconds(1));
  EXPECT_FALSE(stranger->ended()) << "a call was in flight";
  EXPECT_THAT(stranger->TakeFrames(), SizeIs(1));
  service().Advance(absl::Minutes(4));
  EXPECT_FALSE(stranger->ended());
  service().Advance(absl::Minutes(3));
  EXPECT_TRUE(stranger->ended());
  EXPECT_THAT(stranger->TakeFrames(), ElementsAre("GOAWAY 1 OK"));
  EXPECT_EQ(counters().idle_timeouts.value(), 2u) << "the honest one was idle too";
}

TEST_F(LimitsTest, KeepaliveTimeout) {
  limits().keepalive_time = absl::Hours(2);
  script_.collect = [](Reader<echo::v1::CollectRequest>, echo::v1::CollectResponse&, Call&) {
    return AnswerAfter(absl::Hours(100));
  };
  auto dead = NewStranger();
  auto alive = NewStranger();
  static_cast<void>(Say(*dead, FrameBytes().Preface().Open(1, 0, kCollect)));
  static_cast<void>(Say(*alive, FrameBytes().Preface().Open(1, 0, kCollect)));
  service().Advance(absl::Hours(2) - absl::Seconds(1));
  EXPECT_THAT(alive->TakeFrames(), IsEmpty());
  service().Advance(absl::Seconds(2));
  EXPECT_THAT(alive->TakeFrames(), ElementsAre("PING 0"));
  EXPECT_THAT(Say(*alive, FrameBytes().Ping(0, native::kFlagAck)), IsEmpty());
  service().Advance(absl::Seconds(18));
  EXPECT_FALSE(dead->ended());
  service().Advance(absl::Seconds(2));
  EXPECT_TRUE(dead->ended());
  EXPECT_FALSE(alive->ended());
  EXPECT_EQ(counters().keepalive_timeouts.value(), 1u);
  service().Advance(absl::Hours(2));
  EXPECT_THAT(alive->TakeFrames(), ElementsAre("PING 0")) << "again";
}

Task<absl::StatusOr<EchoResponse>> EchoOnce(Channel& channel, std::string text) {
  EchoStub echo(channel);
  absl::StatusOr<EchoResponse> got = co_await echo.Echo(Request(std::move(text)));
  co_return got;
}

TEST(ChannelLimitsTest, KeepaliveTimeoutFindsAServerThatIsGone) {
  SimWorld world;
  SimHost& server_host = world.AddHost("server");
  SimHost& client_host = world.AddHost("client");
  Script script;
  script.echo = [](const EchoRequest&, EchoResponse&, Call&) { return AnswerAfter(absl::Hours(100)); };
  ServerOptions server_options;
  server_options.listen = {"0.0.0.0:7400"};
  Server server(server_host.loop(), server_options);
  server.Add<ScriptedEcho>(std::ref(script));
  ASSERT_OK(world.Run(server_host, server.Start()));
  ChannelOptions options;
  options.limits.keepalive_time = absl::Minutes(10);
  Channel channel(client_host.loop(), "server:7400", options);
  auto call = client_host.loop().CreateTask(EchoOnce(channel, "x"));
  world.RunFor(absl::Minutes(45));
  EXPECT_FALSE(call.done()) << "it answers";
  EXPECT_EQ(server.counters().wire.pings_received.value(), 4u);
  world.Partition(server_host, client_host);
  world.RunFor(absl::Minutes(11));
  EXPECT_TRUE(call.done());
  EXPECT_THAT(call.result(), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("keepalive")));
  EXPECT_EQ(channel.counters().keepalive_timeouts.value(), 1u);
  server.Close();
  world.Run(server_host, server.WaitClosed());
}

TEST(ChannelLimitsTest, IdleTimeoutClosesAndTheNextCallConnectsAgain) {
  SimWorld world;
  SimHost& server_host = world.AddHost("server");
  SimHost& client_host = world.AddHost("client");
  Script script;
  script.echo = [](const EchoRequest& request, EchoResponse& response, Call&) { return Copy(request, response); };
  ServerOptions server_options;
  server_options.listen = {"0.0.0.0:7400"};
  Server server(server_host.loop(), server_options);
  server.Add<ScriptedEcho>(std::ref(script));
  ASSERT_OK(world.Run(server_host, server.Start()));
  Channel channel(client_host.loop(), "server:7400");
  EXPECT_OK(world.Run(client_host, EchoOnce(channel, "x")));
  world.RunFor(absl::Minutes(6));
  EXPECT_EQ(server.connections(), 0u);
  EXPECT_EQ(channel.counters().idle_timeouts.value(), 1u);
  EXPECT_EQ(server.counters().idle_timeouts.value(), 0u) << "the client is first";
  EXPECT_OK(world.Run(client_host, EchoOnce(channel, "x")));
  EXPECT_EQ(channel.connections_made(), 2u);
  server.Close();
  world.Run(server_host, server.WaitClosed());
}

// ---------------------------------------------------------------------------------------------------- the server

TEST_F(LimitsTest, ConnectionsMaxIsTheDescriptorLimitLess64) {
  service().os().SetDescriptorLimit(64 + 3);
  auto second = NewStranger();
  auto third = NewStranger();
  auto fourth = NewStranger();
  EXPECT_TRUE(fourth->lost());
  EXPECT_EQ(counters().connections_refused.value(), 1u);
  EXPECT_EQ(service().server().connections(), 3u);
  ExpectHonestClientServed();
  second.reset();
  service().Advance(absl::Seconds(1));
  EXPECT_FALSE(NewStranger()->lost());
}

// Over real sockets as over memory: a client that is one too many is told so, and may go elsewhere.
TEST(LimitsOfServers, ConnectionsBeyondTheMostAreClosedAtOnce) {
  for (const int64_t by_option : {int64_t{0}, int64_t{2}}) {
    SCOPED_TRACE(by_option);
    SimWorld world(1);
    SimHost& server_host = world.AddHost("server");
    SimHost& client_host = world.AddHost("client");
    if (by_option == 0) server_host.os().SetDescriptorLimit(64 + 2);
    Script script;
    script.echo = [](const EchoRequest& request, EchoResponse& response, Call&) { return Copy(request, response); };
    ServerOptions server_options;
    server_options.listen = {"0.0.0.0:7400"};
    server_options.connections_max = by_option;
    Server server(server_host.loop(), server_options);
    server.Add<ScriptedEcho>(std::ref(script));
    ASSERT_OK(world.Run(server_host, server.Start()));
    std::vector<std::unique_ptr<Channel>> channels;
    for (int i = 0; i < 4; ++i) {
      channels.push_back(std::make_unique<Channel>(client_host.loop(), "server:7400"));
      const absl::Status called = world.Run(client_host, EchoOnce(*channels.back(), "x")).status();
      if (i < 2) {
        EXPECT_OK(called);
      } else {
        EXPECT_THAT(called, StatusIs(absl::StatusCode::kUnavailable));
      }
    }
    EXPECT_EQ(server.counters().connections_refused.value(), 2u);
    EXPECT_EQ(server.connections(), 2u);
    channels.erase(channels.begin());
    world.RunFor(absl::Seconds(10));
    EXPECT_OK(world.Run(client_host, EchoOnce(*channels.back(), "x")).status()) << "one has gone";
    channels.clear();
    server.Close();
    world.Run(server_host, server.WaitClosed());
  }
}

// Whoever is many leaves room for others, as far as there is room at all.
TEST(LimitsOfServers, PeerConnectionsMax) {
  for (const int64_t by_option : {int64_t{0}, int64_t{6}}) {
    SCOPED_TRACE(by_option);
    SimWorld world(1);
    SimHost& server_host = world.AddHost("server");
    SimHost& many = world.AddHost("many");
    SimHost& other = world.AddHost("other");
    Script script;
    script.echo = [](const EchoRequest& request, EchoResponse& response, Call&) { return Copy(request, response); };
    ServerOptions server_options;
    server_options.listen = {"0.0.0.0:7400", "unix:/run/echo"};
    server_options.connections_max = 8;
    server_options.peer_connections_max = by_option;
    Server server(server_host.loop(), server_options);
    server.Add<ScriptedEcho>(std::ref(script));
    ASSERT_OK(world.Run(server_host, server.Start()));
    std::vector<std::unique_ptr<Channel>> channels;
    const auto connect = [&](SimHost& host, const char* target = "server:7400") {
      channels.push_back(std::make_unique<Channel>(host.loop(), target));
      return world.Run(host, EchoOnce(*channels.back(), "x")).status();
    };
    for (int i = 0; i < 6; ++i) EXPECT_OK(connect(many)) << i;  // no pressure yet
    EXPECT_THAT(connect(many), StatusIs(absl::StatusCode::kUnavailable));
    EXPECT_EQ(server.counters().connections_refused.value(), 1u);
    channels.pop_back();
    world.RunFor(absl::Seconds(1));
    EXPECT_EQ(server.connections(), 6u);
    EXPECT_OK(connect(other));
    EXPECT_OK(connect(server_host, "unix:/run/echo")) << "has no share";
    EXPECT_EQ(server.connections(), 8u);
    // What has gone is counted no more.
    channels.erase(channels.begin(), channels.begin() + 5);
    world.RunFor(absl::Seconds(10));
    EXPECT_EQ(server.connections(), 3u);
    for (int i = 0; i < 3; ++i) EXPECT_OK(connect(many)) << i;
    channels.clear();
    server.Close();
    world.Run(server_host, server.WaitClosed());
  }
}

TEST_F(LimitsTest, WhoIsShortOfMemorySaysSoToClientsOfGrpc) {
  options_.wire = Wire::kGrpc;
  options_.server.memory_bytes_max = 1 << 20;
  limits().call_credit_bytes = 2 << 20;
  limits().connection_credit_bytes = 4 << 20;
  script_.collect = [](Reader<echo::v1::CollectRequest> reader, echo::v1::CollectResponse&, Call&) {
    return ReadNothing(reader);
  };
  auto stranger = NewStranger();
  FrameBytes bytes = FrameBytes().Preface().Open(1, 0, kCollect);
  for (int i = 0; i < 20; ++i) bytes.Message(1, std::string(60000, 'x'));
  static_cast<void>(Say(*stranger, bytes));
  ASSERT_TRUE(service().server().memory().full());
  EXPECT_THAT(service().Run(service().stub().Echo(Request("honest"))).status(),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("short of memory")));
  EXPECT_EQ(counters().memory.calls_refused.value(), 1u);
  stranger.reset();
  service().Advance(absl::Seconds(1));
  ExpectHonestClientServed();
}

TEST_F(LimitsTest, MemoryBytesMax) {
  options_.server.memory_bytes_max = 1 << 20;
  options_.server.health = false;
  limits().call_credit_bytes = 512 << 10;
  limits().connection_credit_bytes = 2 << 20;
  script_.collect = [](Reader<echo::v1::CollectRequest> reader, echo::v1::CollectResponse&, Call&) {
    return ReadNothing(reader);
  };
  auto stranger = NewStranger();
  const MemoryGuard& memory = service().server().memory();
  // Just below 80 %: credit comes back for what reaches its call.
  FrameBytes bytes = FrameBytes().Preface().Open(1, 0, kCollect).Open(3, 0, "").Open(5, 0, "");
  for (int i = 0; i < 7; ++i) bytes.Message(1, std::string(60000, 'x'));
  static_cast<void>(Say(*stranger, bytes));
  EXPECT_EQ(memory.held(), 7 * 60032);
  EXPECT_FALSE(memory.tight());
  bytes = FrameBytes();
  for (int i = 0; i < 7; ++i) bytes.Message(3, std::string(60000, 'x'));
  static_cast<void>(Say(*stranger, bytes));
  EXPECT_EQ(memory.held(), 14 * 60032);
  EXPECT_TRUE(memory.tight());
  EXPECT_EQ(counters().memory.tight.value(), 1u);
  ExpectHonestClientServed();

  // At 80 % no new credit: the connection's would be due after half of 2 MiB.
  bytes = FrameBytes();
  for (int i = 0; i < 4; ++i) bytes.Message(5, std::string(60000, 'x'));
  EXPECT_THAT(Say(*stranger, bytes), IsEmpty());
  EXPECT_GE(memory.held(), 1 << 20);
  EXPECT_TRUE(memory.full());

  // At 100 % new calls are refused, whoever makes them, and none was started.
  const absl::Status refused = service().Run(service().stub().Echo(Request("honest"))).status();
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("short of memory")));
  EXPECT_THAT(Say(*stranger, FrameBytes().Open(7, 1, "/grpc.health.v1.Health/Check")),
              ElementsAre(HasSubstr("UNIMPLEMENTED")))
      << "health is answered, here by those who have none";
  EXPECT_EQ(counters().memory.calls_refused.value(), 1u);

  // What holds the memory goes, and all is as before.
  EXPECT_THAT(Say(*stranger, FrameBytes().Reset(1, absl::CancelledError("")).Reset(3, absl::CancelledError(""))),
              IsEmpty());
  service().Advance(absl::Seconds(1));
  EXPECT_FALSE(memory.tight());
  EXPECT_EQ(memory.held(), 4 * 60032);
  EXPECT_THAT(stranger->TakeFrames(), ElementsAre(StartsWith("CREDIT ")));
  ExpectHonestClientServed();
  stranger.reset();
  service().Advance(absl::Seconds(1));
  EXPECT_EQ(memory.held(), 0);
}

TEST_F(LimitsTest, MemoryBytesMaxIsHalfOfWhatTheProcessMayUse) {
  EXPECT_EQ(service().server().memory().bytes_max(), service().os().MemoryLimit() / 2);
}

TEST_F(LimitsTest, MemoryIsChargedWithRequestsWhoseHandlersRunAndWithRepliesThatWait) {
  script_.echo = [](const EchoRequest& request, EchoResponse& response, Call&) -> Status {
    if (request.message().size() > 100) co_await Sleep(absl::Seconds(1));
    response.set_message(request.message());
    co_return absl::OkStatus();
  };
  auto stranger = NewStranger();
  const std::string request = Encoded(std::string(60000, 'x'));
  static_cast<void>(Say(
      *stranger,
      FrameBytes().Preface().Call(1, 0, kEcho, request).Call(3, 0, "", request).Reset(3, absl::CancelledError(""))));
  const auto bytes = static_cast<int64_t>(request.size());
  EXPECT_GE(service().server().memory().held(), bytes);
  EXPECT_LE(service().server().memory().held(), bytes + 200) << "with what a message takes; the other has stopped";
  service().Advance(absl::Seconds(2));
  EXPECT_EQ(service().server().memory().held(), 0);
}

// ---------------------------------------------------------------------------------------------------- half-closed

Status ExpandSlowly(const ExpandRequest& request, Writer<ExpandResponse> writer) {
  ExpandResponse response;
  for (int i = 0; i < request.count(); ++i) {
    co_await Sleep(absl::Seconds(1));
    const bool more = co_await writer.Write(response);
    if (!more) break;
  }
  co_return absl::OkStatus();
}

class HalfClosedTest : public LimitsTest {
 protected:
  HalfClosedTest() {
    script_.echo = [](const EchoRequest& request, EchoResponse& response, Call&) {
      return request.message() == "slow" ? AnswerAfter(absl::Seconds(1)) : Copy(request, response);
    };
    script_.expand = [](const ExpandRequest& request, Writer<ExpandResponse> writer, Call&) {
      return ExpandSlowly(request, writer);
    };
    script_.collect = [this](Reader<echo::v1::CollectRequest> reader, echo::v1::CollectResponse&, Call&) -> Status {
      echo::v1::CollectRequest request;
      try {
        while (true) {
          const bool more = co_await reader.Read(request);
          if (!more) break;
        }
      } catch (const Cancelled&) {
        script_.log.push_back("cancelled");
        throw;
      }
      co_await Sleep(absl::Seconds(1));
      co_return absl::OkStatus();
    };
  }
};

TEST_F(HalfClosedTest, GetsTheRepliesToItsRequests) {
  auto stranger = NewStranger();
  ExpandRequest expand;
  expand.set_count(2);
  stranger->Send(FrameBytes()
                     .Preface()
                     .Call(1, 0, kEcho, Encoded("slow"))
                     .Call(3, 1, kExpand, expand.SerializeAsString())
                     .Call(5, 2, kCollect, ""));
  stranger->HalfClose();
  service().Advance(absl::Seconds(3));
  EXPECT_THAT(stranger->TakeFrames(),
              UnorderedElementsAre("PING 0", "END 1 whole: ''", "MESSAGE 3 whole: ''", "END 5 whole: ''", "PING 0",
                                   "MESSAGE 3 whole: ''", "END 3"));
  EXPECT_TRUE(stranger->ended());
  service().Advance(absl::Seconds(1));
  EXPECT_EQ(service().server().connections(), 1u);
  EXPECT_EQ(counters().calls_cancelled.value(), 0u);
  ExpectHonestClientServed();
}

TEST_F(HalfClosedTest, WhatWasNotSaidToItsEndIsCancelled) {
  auto stranger = NewStranger();
  stranger->Send(FrameBytes()
                     .Preface()
                     .Open(1, 0, kCollect)
                     .Message(1, "")
                     .Open(3, 1, kEcho)
                     .First(3, 100, "x")
                     .Call(5, 1, "", Encoded("slow")));
  stranger->HalfClose();
  service().Advance(absl::Seconds(3));
  EXPECT_THAT(stranger->TakeFrames(), ElementsAre("RESET 1 CANCELLED: the connection ended inside the request",
                                                  "RESET 3 CANCELLED: the connection ended inside the request",
                                                  "PING 0", "PING 0", "END 5 whole: ''"));
  EXPECT_THAT(script_.log, Contains("cancelled"));
  EXPECT_EQ(counters().calls_cancelled.value(), 2u);
}

TEST_F(HalfClosedTest, PeerThatIsGoneCancelsItsCalls) {
  auto stranger = NewStranger();
  ExpandRequest expand;
  expand.set_count(1000);
  stranger->Send(FrameBytes().Preface().Call(1, 0, kExpand, expand.SerializeAsString()));
  service().RunUntilIdle();
  const size_t calls = service().server().calls_in_flight();
  EXPECT_EQ(calls, 1u);
  stranger->Reset();
  service().RunUntilIdle();
  EXPECT_EQ(service().server().calls_in_flight(), 0u) << "found out without waiting for the next message";
  EXPECT_EQ(counters().calls_cancelled.value(), 1u);
  EXPECT_EQ(service().server().connections(), 1u);
}

TEST_F(HalfClosedTest, WithoutCallsItIsClosedAtOnce) {
  auto stranger = NewStranger();
  static_cast<void>(Say(*stranger, FrameBytes().Preface().Call(1, 0, kEcho, "")));
  stranger->HalfClose();
  service().RunUntilIdle();
  EXPECT_TRUE(stranger->ended());
  EXPECT_EQ(service().server().connections(), 1u);
}

TEST_F(HalfClosedTest, ActorMayKeepItOpen) {
  script_.eof_received = [] { return true; };
  auto stranger = NewStranger();
  static_cast<void>(Say(*stranger, FrameBytes().Preface().Call(1, 0, kEcho, Encoded("slow"))));
  stranger->HalfClose();
  service().Advance(absl::Seconds(10));
  EXPECT_FALSE(stranger->ended());
  EXPECT_EQ(service().server().connections(), 2u);
  service().server().Drain();
  service().RunUntilIdle();
  EXPECT_TRUE(stranger->ended());
}

class Teller final : public Protocol {
 public:
  explicit Teller(std::string bytes) : bytes_(std::move(bytes)) {}
  void ConnectionMade(Transport& transport) override { transport.Write(bytes_); }
  void DataReceived(absl::Span<const char>) override {}

 private:
  const std::string bytes_;
};

Task<absl::StatusOr<TransportPtr>> Tell(EventLoop& loop, absl::string_view target, const std::string& bytes) {
  ConnectOptions options;
  options.target = target;
  auto factory = [&bytes] { return std::make_unique<Teller>(bytes); };
  auto connecting = CreateConnection(loop, factory, options);
  auto made = co_await std::move(connecting);
  if (!made.ok()) co_return made.status();
  co_return std::move(made->transport);
}

// A process that ends closes its sockets: an end of file that looks as if it might still read.
TEST(HalfClosedSocketTest, PeerThatIsGoneCancelsItsCalls) {
  SimWorld world;
  SimHost& server_host = world.AddHost("server");
  SimHost& client_host = world.AddHost("client");
  Script script;
  script.echo = [](const EchoRequest&, EchoResponse&, Call&) { return AnswerAfter(absl::Hours(1)); };
  const ServerOptions options = {.listen = {"0.0.0.0:7400"}};
  Server server(server_host.loop(), options);
  server.Add<ScriptedEcho>(std::ref(script));
  ASSERT_OK(world.Run(server_host, server.Start()));
  const std::string bytes = FrameBytes().Preface().Call(1, 0, kEcho, "").str();
  absl::StatusOr<TransportPtr> client = world.Run(client_host, Tell(client_host.loop(), "server:7400", bytes));
  ASSERT_OK(client);
  world.RunFor(absl::Seconds(1));
  EXPECT_EQ(server.calls_in_flight(), 1u);
  (*client)->Close();
  world.RunFor(absl::Seconds(2));
  EXPECT_EQ(server.calls_in_flight(), 0u);
  EXPECT_EQ(server.connections(), 0u);
  EXPECT_EQ(server.counters().calls_cancelled.value(), 1u);
  server.Close();
  world.Run(server_host, server.WaitClosed());
}

// A client that closes its channel has its calls cancelled at once, and not when somebody notices.
TEST_F(HalfClosedTest, ClosedClientCancelsItsCalls) {
  Reply<EchoResponse> reply = service().stub().Echo(Request("slow"));
  service().RunUntilIdle();
  EXPECT_EQ(service().server().calls_in_flight(), 1u);
  service().client().Close(absl::OkStatus());
  service().RunUntilIdle();
  EXPECT_EQ(service().server().calls_in_flight(), 0u);
  EXPECT_THAT(service().Run(std::move(reply)), StatusIs(absl::StatusCode::kUnavailable));
}

// ---------------------------------------------------------------------------------------------------- the end

// A drain waits for replies that wait for their caller's credit, and not only for handlers.
TEST_F(LimitsTest, DrainWaitsForRepliesThatWaitForCredit) {
  const std::string text(300 << 10, 'x');
  script_.echo = [&](const EchoRequest& request, EchoResponse& response, Call&) -> Status {
    response.set_message(request.message() == "large" ? text : "");
    co_return absl::OkStatus();
  };
  auto stranger = NewStranger();
  static_cast<void>(Say(*stranger, FrameBytes().Preface().Call(1, 0, kEcho, Encoded("large"))));
  service().server().Drain();
  service().Advance(absl::Seconds(10));
  EXPECT_FALSE(stranger->ended());
  static_cast<void>(Say(*stranger, FrameBytes().Credit(1, 1 << 20).Credit(0, 1 << 20)));
  EXPECT_TRUE(stranger->ended());
  EXPECT_GT(stranger->received_bytes(), text.size());
}

// GOAWAY names it among those that are dealt with, so that its caller waits for an answer.
TEST_F(LimitsTest, DrainAnswersACallWhoseHeadersHaveComeInPart) {
  auto stranger = NewStranger();
  stranger->Send(H2Bytes().Preface().Settings().Call(1, kEcho, ""));
  const std::string call = H2Bytes().Call(3, kEcho, Encoded("hello")).str();
  stranger->Send(absl::string_view(call).substr(0, 20));
  service().RunUntilIdle();
  service().server().Drain();
  service().Advance(absl::Seconds(1));
  EXPECT_FALSE(stranger->ended());
  stranger->Send(absl::string_view(call).substr(20));
  service().RunUntilIdle();
  EXPECT_EQ(counters().calls_refused_draining.value(), 0u) << "no GOAWAY had named a last call before it";
  EXPECT_TRUE(stranger->ended());
  // The end came in the middle of what was received, and the last word goes nevertheless: NO_ERROR, up to 3.
  EXPECT_THAT(stranger->received(), HasSubstr(std::string("\0\0\x08\x07\0\0\0\0\0\0\0\0\x03\0\0\0\0", 17)));
}

// Bytes that a slow but honest peer still reads are not cut off by the linger timeout.
TEST_F(LimitsTest, LingerTimeoutSparesWhoReadsSlowly) {
  const std::string text(150 << 10, 'x');
  script_.echo = [&](const EchoRequest& request, EchoResponse& response, Call&) -> Status {
    response.set_message(request.message() == "large" ? text : "");
    co_return absl::OkStatus();
  };
  MemoryTransportOptions narrow;
  narrow.pipe_bytes_max = 10000;
  narrow.delivery_bytes_max = 10000;
  auto stranger = NewStranger(narrow);
  stranger->StopReading();
  stranger->Send(
      FrameBytes().Preface().Open(1, 0, kEcho).Credit(1, 1 << 20).Message(1, Encoded("large"), native::kFlagClose));
  service().RunUntilIdle();
  service().server().Drain();
  for (int i = 0; i < 60 && !stranger->ended(); ++i) {
    stranger->Read();
    service().loop().RunOnceWithoutWaiting();
    service().loop().RunOnceWithoutWaiting();
    stranger->StopReading();
    service().Advance(absl::Seconds(1));
  }
  EXPECT_TRUE(stranger->ended());
  EXPECT_GT(stranger->received_bytes(), text.size());
}

}  // namespace
}  // namespace troupe
