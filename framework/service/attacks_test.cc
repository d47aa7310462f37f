// How this test works: one hostile connection against a server over memory in virtual time, with honest clients beside
// it who call all the while. After everything that happens the bytes that the server holds are compared with what the
// design allows one connection: the credit that was granted, the write mark, one reply for each call, and the counted
// answers to its own frames. No honest call may fail.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "echo/v1/echo.troupe.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/future.h"
#include "troupe/async/sleep.h"
#include "troupe/net/memory_transport.h"
#include "troupe/service/limits.h"
#include "troupe/service/server.h"
#include "troupe/service/session.h"
#include "troupe/service/testing_actor.h"
#include "troupe/service/testing_stranger.h"
#include "troupe/testing/in_process.h"
#include "troupe/testing/matchers.h"
#include "troupe/wire/native/frame.h"
#include "troupe/wire/native/testing_peer.h"

namespace troupe {
namespace {

using ::echo::v1::CollectRequest;
using ::echo::v1::CollectResponse;
using ::echo::v1::EchoRequest;
using ::echo::v1::EchoResponse;
using ::echo::v1::EchoStub;
using ::testing::IsEmpty;
using ::troupe::internal::Script;
using ::troupe::internal::ScriptedEcho;
using ::troupe::internal::Stranger;
using ::troupe::native::FrameBytes;
using ::troupe::testing::InProcess;
using ::troupe::testing::InProcessOptions;
using ::troupe::testing::PatientLimits;

using Status = Script::Status;

constexpr char kEcho[] = "/echo.v1.Echo/Echo";
constexpr char kCollect[] = "/echo.v1.Echo/Collect";

std::string Encoded(size_t size) {
  EchoRequest request;
  request.set_message(std::string(size, 'x'));
  return request.SerializeAsString();
}

Status Copy(const EchoRequest& request, EchoResponse& response) {
  response.set_message(request.message());
  co_return absl::OkStatus();
}
Status CopyAfter(absl::Duration duration, const EchoRequest& request, EchoResponse& response) {
  co_await Sleep(duration);
  response.set_message(request.message());
  co_return absl::OkStatus();
}

// A client on a connection of its own that makes one call after the other.
class HonestClient {
 public:
  explicit HonestClient(Server& server)
      : session_(server.loop(), Session::Role::kClient, Options(), nullptr, counters_),
        pair_(MakeMemoryPair(server.loop(), session_.MakeProtocol(), server.NewConnection())),
        calling_(server.loop().CreateTask(Call(), "honest client")) {}
  ~HonestClient() {
    calling_.Cancel();
    session_.Close(absl::OkStatus());
  }
  int answered() const { return answered_; }
  const std::vector<std::string>& failures() const { return failures_; }

 private:
  static SessionOptions Options() {
    SessionOptions options;
    options.limits = PatientLimits();
    return options;
  }
  Task<void> Call() {
    EchoStub echo(session_);
    EchoRequest request;
    while (true) {
      request.set_message(absl::StrCat("honest ", answered_));
      absl::StatusOr<EchoResponse> got = co_await echo.Echo(request);
      if (!got.ok() || got->message() != request.message()) {
        failures_.push_back(got.status().ToString());
      } else {
        ++answered_;
      }
      co_await Sleep(absl::Milliseconds(10));
    }
  }

  SessionCounters counters_;
  Session session_;
  MemoryPair pair_;
  int answered_ = 0;
  std::vector<std::string> failures_;
  TaskHandle<void> calling_;
};

class AttacksTest : public ::testing::Test {
 protected:
  // What a connection of `limits` may make us hold for calls with requests and replies of these sizes: see limits.h.
  static int64_t Allowed(const ConnectionLimits& limits, int64_t request_bytes, int64_t reply_bytes) {
    constexpr int64_t kAnswerBytes = 100;  // a RESET or END with its reason
    const int64_t calls = limits.calls_max;
    return calls * std::min<int64_t>(request_bytes, limits.call_credit_bytes)            // unread or incomplete
           + static_cast<int64_t>(native::kFrameHeaderBytes) + native::kFramePayloadMax  // one incomplete frame
           + static_cast<int64_t>(limits.write_high_bytes) + calls * (reply_bytes + 40)  // unsent
           + (calls + limits.frames_unsent_max) * kAnswerBytes;
  }
  // Two honest clients hold less than this at any moment.
  static constexpr int64_t kHonestBytes = 2 * 200;

  void Begin() {
    service_ = std::make_unique<InProcess<ScriptedEcho>>(options_, std::ref(script_));
    ASSERT_OK(service_->Run(server().Start()));
    for (int i = 0; i < 2; ++i) honest_.push_back(std::make_unique<HonestClient>(server()));
    service_->Advance(absl::Milliseconds(100));
    stranger_ = std::make_unique<Stranger>(server());
    stranger_->Send(FrameBytes().Preface());
  }
  Server& server() { return service_->server(); }
  // Lets what was sent be dealt with, and compares.
  void Settle(int64_t allowed) {
    service_->RunUntilIdle();
    most_ = std::max(most_, server().held_bytes());
    ASSERT_LE(server().held_bytes(), allowed + kHonestBytes);
    ASSERT_EQ(server().memory().held(), server().held_bytes());
  }
  // Afterwards: honest clients were served all along, and still are; nothing is left of the attack.
  void ExpectHonestClientsServed() {
    for (const auto& honest : honest_) {
      EXPECT_THAT(honest->failures(), IsEmpty());
      const int before = honest->answered();
      EXPECT_GT(before, 10);
      service_->Advance(absl::Seconds(1));
      EXPECT_GT(honest->answered(), before + 90);
    }
    stranger_.reset();
    service_->Advance(absl::Seconds(10));
    EXPECT_EQ(server().connections(), honest_.size());
    EXPECT_LE(server().held_bytes(), kHonestBytes);
    honest_.clear();
    service_->Advance(absl::Seconds(10));
    EXPECT_EQ(server().held_bytes(), 0);
    EXPECT_EQ(server().memory().held(), 0);
    EXPECT_EQ(server().connections(), 0u);
  }

  InProcessOptions options_;
  Script script_;
  std::unique_ptr<InProcess<ScriptedEcho>> service_;
  std::vector<std::unique_ptr<HonestClient>> honest_;
  std::unique_ptr<Stranger> stranger_;
  int64_t most_ = 0;
};

TEST_F(AttacksTest, SendsAHundredThousandCallsAndNeverReads) {
  script_.echo = [](const EchoRequest& request, EchoResponse& response, Call&) { return Copy(request, response); };
  Begin();
  stranger_->StopReading();
  stranger_->Send(FrameBytes().Credit(0, 1 << 30));  // it gives all the credit there is
  const std::string request = Encoded(1000);
  const int64_t allowed = Allowed(options_.server.limits, static_cast<int64_t>(request.size()) + 32, request.size());
  for (uint32_t i = 0; i < 100000 && !HasFatalFailure(); ++i) {
    stranger_->Send(FrameBytes().Call(1 + 2 * i, 0, i == 0 ? kEcho : "", request));
    if (i % (i < 5000 ? 10 : 1000) == 0) Settle(allowed);
    if (i % 1000 == 0) service_->Advance(absl::Milliseconds(1));
  }
  EXPECT_GT(most_, 1000 * 1000) << "a thousand calls wait unstarted";
  EXPECT_EQ(server().counters().wire.reset_floods.value(), 1u);
  EXPECT_GE(server().counters().wire.calls_refused.value(), 1000u);
  ExpectHonestClientsServed();
}

// The same, by one who counts how many calls it may have open, and so is never refused: it holds what it may, until it
// has read nothing for too long.
TEST_F(AttacksTest, SendsAsManyCallsAsItMayAndNeverReads) {
  script_.echo = [](const EchoRequest& request, EchoResponse& response, Call&) { return Copy(request, response); };
  Begin();
  stranger_->StopReading();
  stranger_->Send(FrameBytes().Credit(0, 1 << 30));
  const std::string request = Encoded(1000);
  const int64_t allowed = Allowed(options_.server.limits, static_cast<int64_t>(request.size()) + 32, request.size());
  uint32_t calls = 0;
  while (server().counters().wire.calls_opened_by_peer.value() < 5000 && !HasFatalFailure()) {
    if (server().calls_in_flight() >= 1000) break;
    stranger_->Send(FrameBytes().Call(1 + 2 * calls, 0, calls == 0 ? kEcho : "", request));
    ++calls;
    Settle(allowed);
  }
  EXPECT_EQ(server().counters().wire.calls_refused.value(), 0u);
  EXPECT_GE(server().calls_in_flight(), 1000u);
  service_->Advance(absl::Seconds(46));
  EXPECT_EQ(server().counters().write_stalls.value(), 1u);
  EXPECT_LE(server().held_bytes(), kHonestBytes);
  ExpectHonestClientsServed();
}

Status AnswerMuch(absl::Duration after, EchoResponse& response) {
  co_await Sleep(after);
  response.set_message(std::string(1 << 20, 'x'));
  co_return absl::OkStatus();
}

// Small requests with large replies, of handlers that all wait for something before they answer: none has answered when
// the calls arrive, so that nothing is unsent yet.
TEST_F(AttacksTest, AsksForMuchAThousandTimesAndNeverReads) {
  for (const bool gives_credit : {true, false}) {
    script_.echo = [](const EchoRequest& request, EchoResponse& response, Call&) {
      return request.message() == "much" ? AnswerMuch(absl::Milliseconds(3), response) : Copy(request, response);
    };
    Begin();
    EchoRequest much;
    much.set_message("much");
    stranger_->StopReading();
    FrameBytes bytes;
    if (gives_credit) bytes.Credit(0, 1 << 30);
    const ConnectionLimits& limits = options_.server.limits;
    const auto allowed = static_cast<int64_t>(limits.write_high_bytes) + 17 * (1 << 20) + 200'000;
    for (uint32_t i = 0; i < 1000 && !HasFatalFailure(); ++i) {
      bytes.Call(1 + 2 * i, 0, i == 0 ? kEcho : "", much.SerializeAsString());
      if (gives_credit) bytes.Credit(1 + 2 * i, 1 << 30);
      stranger_->Send(bytes);
      bytes = FrameBytes();
    }
    Settle(allowed);
    for (int i = 0; i < 100 && !HasFatalFailure(); ++i) {
      service_->Advance(absl::Milliseconds(1));
      Settle(allowed);
    }
    EXPECT_GT(most_, 4 << 20);
    EXPECT_EQ(server().counters().replies_dropped.value(), 0u);
    EXPECT_GT(server().counters().starts_delayed_replies.value() + server().counters().starts_delayed_unsent.value(),
              900u);
    EXPECT_GT(server().calls_in_flight(), 900u) << "which wait unstarted";
    ExpectHonestClientsServed();
    service_.reset();
    most_ = 0;
  }
}

// Once it is known how large its replies are, only so many calls run at once as fit.
TEST_F(AttacksTest, AsksForMuchAgainAfterItHasReadOnce) {
  script_.echo = [](const EchoRequest& request, EchoResponse& response, Call&) {
    return request.message() == "much" ? AnswerMuch(absl::Milliseconds(3), response) : Copy(request, response);
  };
  Begin();
  EchoRequest much;
  much.set_message("much");
  const std::string request = much.SerializeAsString();
  stranger_->Send(FrameBytes().Credit(0, 1 << 30).Call(1, 0, kEcho, request).Credit(1, 1 << 30));
  service_->Advance(absl::Milliseconds(20));
  EXPECT_GT(stranger_->received_bytes(), size_t{1} << 20);
  stranger_->StopReading();
  for (uint32_t i = 1; i < 60; ++i) {
    stranger_->Send(FrameBytes().Call(1 + 2 * i, 0, "", request).Credit(1 + 2 * i, 1 << 30));
  }
  const int64_t allowed = (5 << 20) + 300'000;
  for (int i = 0; i < 100 && !HasFatalFailure(); ++i) {
    Settle(allowed);
    service_->Advance(absl::Milliseconds(1));
  }
  EXPECT_GT(most_, 2 << 20);
  EXPECT_EQ(server().counters().replies_dropped.value(), 0u);
  EXPECT_GE(server().calls_in_flight(), 54u);
  stranger_->Read();
  service_->Advance(absl::Seconds(5));
  EXPECT_EQ(server().calls_in_flight(), 0u) << "and all are answered when it reads";
  EXPECT_GT(stranger_->received_bytes(), size_t{60} << 20);
  ExpectHonestClientsServed();
}

// What bounds calls that run must not hold up those that others wait for.
TEST_F(AttacksTest, CallsThatWaitForALaterOneAllStart) {
  int running = 0;
  std::unique_ptr<Promise<void>> all;
  script_.echo = [&](const EchoRequest& request, EchoResponse& response, Call&) -> Status {
    if (request.message() != "wait") {
      response.set_message(request.message());
      co_return absl::OkStatus();
    }
    if (++running == 1000) all->SetValue();
    Future<void> ready = all->future();
    co_await std::move(ready);
    co_return absl::OkStatus();
  };
  Begin();
  all = std::make_unique<Promise<void>>(server().loop());
  EchoRequest wait;
  wait.set_message("wait");
  for (uint32_t i = 0; i < 1000; ++i) {
    stranger_->Send(FrameBytes().Call(1 + 2 * i, 0, i == 0 ? kEcho : "", wait.SerializeAsString()));
  }
  service_->Advance(absl::Milliseconds(700));
  EXPECT_EQ(running, 1000);
  EXPECT_EQ(server().calls_in_flight(), 0u);
  ExpectHonestClientsServed();
}

TEST_F(AttacksTest, OpensCallsAndSendsHalfAMessage) {
  script_.echo = [](const EchoRequest& request, EchoResponse& response, Call&) { return Copy(request, response); };
  Begin();
  const std::string half(2000, 'x');
  const int64_t allowed = Allowed(options_.server.limits, 2 * 2000 + 32, 0);
  for (uint32_t i = 0; i < 1000 && !HasFatalFailure(); ++i) {
    stranger_->Send(FrameBytes().Open(1 + 2 * i, 0, i == 0 ? kEcho : "").First(1 + 2 * i, 4000, half));
    Settle(allowed);
    if (i % 10 == 0) service_->Advance(absl::Milliseconds(1));
  }
  EXPECT_GE(most_, 1000 * 2000);
  EXPECT_EQ(server().calls_in_flight(), 1000u);
  EXPECT_EQ(server().counters().calls_ended_ok.value(),
            static_cast<uint64_t>(honest_[0]->answered() + honest_[1]->answered()));
  service_->Advance(absl::Minutes(1));
  Settle(allowed);
  ExpectHonestClientsServed();
}

TEST_F(AttacksTest, AnnouncesMuchAndSendsLittle) {
  script_.echo = [](const EchoRequest& request, EchoResponse& response, Call&) { return Copy(request, response); };
  Begin();
  for (uint32_t i = 0; i < 1000 && !HasFatalFailure(); ++i) {
    stranger_->Send(
        FrameBytes().Open(1 + 2 * i, 0, i == 0 ? kEcho : "").First(1 + 2 * i, i % 2 == 0 ? 60000 : 4 << 20, "x"));
    Settle(1000 * 100);
  }
  EXPECT_EQ(server().calls_in_flight(), 1000u);
  ExpectHonestClientsServed();
}

TEST_F(AttacksTest, TricklesAByteASecond) {
  script_.echo = [](const EchoRequest& request, EchoResponse& response, Call&) { return Copy(request, response); };
  options_.server.limits.idle_timeout = absl::Minutes(5);
  Begin();
  const std::string call = FrameBytes().Call(1, 0, kEcho, Encoded(3000)).str();
  const int64_t allowed = Allowed(options_.server.limits, 3000, 0);
  size_t sent = 0;
  for (; sent < 2000 && !stranger_->ended() && !HasFatalFailure(); ++sent) {
    stranger_->Send(absl::MakeConstSpan(call).subspan(sent, 1));
    service_->Advance(absl::Seconds(1));
    Settle(allowed);
  }
  EXPECT_LE(most_, 1024 + kHonestBytes) << "as it comes, and not as announced";
  EXPECT_TRUE(stranger_->ended()) << "bytes that make no call are no activity";
  EXPECT_LE(sent, 5u * 60 + 5 * 60 / 4 + 1);
  EXPECT_GE(sent, 5u * 60);
  EXPECT_EQ(server().counters().idle_timeouts.value(), 1u);
  ExpectHonestClientsServed();
}

TEST_F(AttacksTest, ResetsEverythingItOpens) {
  int running = 0;
  script_.echo = [&](const EchoRequest& request, EchoResponse& response, Call&) {
    return request.message().size() > 100 ? CopyAfter(absl::Seconds(1), request, response) : Copy(request, response);
  };
  script_.collect = [&](Reader<CollectRequest>, CollectResponse&, Call&) -> Status {
    struct Counted {
      int& count;
      explicit Counted(int& c) : count(c) { ++count; }
      ~Counted() { --count; }
    } counted(running);
    co_await Sleep(absl::Hours(1));
    co_return absl::OkStatus();
  };
  Begin();
  const std::string request = Encoded(1000);
  const int64_t allowed = Allowed(options_.server.limits, static_cast<int64_t>(request.size()) + 32, 0);
  int most_running = 0;
  for (uint32_t i = 0; i < 100000 && !stranger_->ended() && !HasFatalFailure(); ++i) {
    const uint32_t id = 1 + 2 * i;
    if (i % 2 == 0) {
      stranger_->Send(FrameBytes().Call(id, 0, i == 0 ? kEcho : "", request).Reset(id, absl::CancelledError("")));
    } else {
      stranger_->Send(FrameBytes().Open(id, 1, i == 1 ? kCollect : "").Reset(id, absl::CancelledError("")));
    }
    most_running = std::max(most_running, running);
    Settle(allowed);
    if (i % 10 == 0) service_->Advance(absl::Milliseconds(1));
  }
  EXPECT_TRUE(stranger_->ended());
  EXPECT_EQ(server().counters().wire.reset_floods.value(), 1u);
  EXPECT_GE(server().counters().wire.resets_received.value(), 1000u);
  EXPECT_LE(server().counters().wire.resets_received.value(), 1100u);
  EXPECT_LE(most_running, 2);
  EXPECT_EQ(running, 0);
  ExpectHonestClientsServed();
}

}  // namespace
}  // namespace troupe
