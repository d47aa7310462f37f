// A session of Login (Get | Watch)* (Save Get*)? Logout?, as protoc-gen-troupe would write it. Calls are named by their
// methods; the log says what the gate did with them.
#include "troupe/rpc/session_order.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/cord.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/rpc/internal/session_order_gate.h"
#include "troupe/rpc/internal/session_order_memory.h"

namespace troupe::internal {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr absl::string_view kSteps[] = {"Login", "Get", "Watch", "Save", "Logout"};
constexpr uint8_t kNo = SessionOrder::kNotAllowed;
constexpr uint8_t kNext[] = {
    1,   kNo, kNo, kNo, kNo,  // 0: nothing yet
    kNo, 1,   1,   2,   3,    // 1: logged in
    kNo, 2,   kNo, kNo, 3,    // 2: saved
    kNo, kNo, kNo, kNo, kNo,  // 3: logged out
};
constexpr bool kAccepting[] = {false, true, true, true};
constexpr SessionOrder kOrder = {.service = "p.Store",
                                 .text = "Login (Get | Watch)* (Save Get*)? Logout?",
                                 .steps = kSteps,
                                 .next = kNext,
                                 .accepting = kAccepting};
enum Step : uint16_t { kLogin, kGet, kWatch, kSave, kLogout };

TEST(SessionOrderTest, ARefusalSaysWhatWasAllowedInWordsAndAsErrorInfo) {
  const absl::Status status = kOrder.Refusal(SessionOrder::States().set(1), kLogin);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(
      status.message(),
      "Login is out of order in this session of p.Store, whose order is Login (Get | Watch)* (Save Get*)? Logout?: "
      "allowed now: Get, Watch, Save, Logout");
  const absl::optional<absl::Cord> payload = status.GetPayload("type.googleapis.com/google.rpc.ErrorInfo");
  ASSERT_TRUE(payload.has_value());
  EXPECT_EQ(std::string(*payload),
            "\n\rSESSION_ORDER\x12\x06troupe"
            "\x1a\x12\n\7service\x12\7p.Store"
            "\x1a\x0f\n\6method\x12\5Login"
            "\x1a\x23\n\7allowed\x12\x18Get, Watch, Save, Logout");
}

TEST(SessionOrderTest, ARefusalAtTheEndAndOfSeveralPossibleStates) {
  EXPECT_THAT(std::string(kOrder.Refusal(SessionOrder::States().set(3), kGet).message()),
              HasSubstr("allowed is nothing more"));
  EXPECT_THAT(std::string(kOrder.Refusal(SessionOrder::States().set(0).set(2), kSave).message()),
              HasSubstr("allowed now: Login, Get, Logout"));
}

class GateTest : public ::testing::Test {
 protected:
  class LoggingCall final : public OrderedCall {
   public:
    LoggingCall(GateTest& test, std::string name) : test_(test), name_(std::move(name)) {}
    ~LoggingCall() = default;
    void OnOrderAdmitted() override {
      test_.log_.push_back("start " + name_);
      if (ends_at_once) test_.gate_.End(*this, true);
    }
    void OnOrderRefused(const absl::Status& why) override {
      EXPECT_EQ(why.code(), absl::StatusCode::kFailedPrecondition);
      test_.log_.push_back("refuse " + name_);
    }
    void OnOrderExpelled(const absl::Status& why) override {
      EXPECT_EQ(why.code(), absl::StatusCode::kFailedPrecondition);
      test_.log_.push_back("expel " + name_);
      if (ends_at_once) test_.gate_.End(*this, false);
    }
    bool ends_at_once = false;

   private:
    GateTest& test_;
    std::string name_;
  };

  LoggingCall& Arrive(uint16_t step, bool ends_at_once = false) {
    calls_.push_back(std::make_unique<LoggingCall>(*this, std::string(kSteps[step])));
    calls_.back()->ends_at_once = ends_at_once;
    gate_.Arrive(*calls_.back(), step, /*open_ended=*/step == kWatch);
    return *calls_.back();
  }
  void LogIn() {
    gate_.End(Arrive(kLogin), true);
    log_.clear();
  }
  std::vector<std::string> Log() { return std::exchange(log_, {}); }

  std::vector<std::string> log_;
  SessionOrderGate gate_{kOrder};
  std::vector<std::unique_ptr<LoggingCall>> calls_;
};

TEST_F(GateTest, WhatTheOrderDoesNotAllowIsRefusedBeforeItStarts) {
  Arrive(kGet);
  Arrive(kLogout);
  EXPECT_THAT(Log(), ElementsAre("refuse Get", "refuse Logout"));
  EXPECT_EQ(gate_.state(), 0);
}

TEST_F(GateTest, OkMovesTheStateAndAnyOtherEndLeavesIt) {
  gate_.End(Arrive(kLogin), false);
  EXPECT_EQ(gate_.state(), 0);
  gate_.End(Arrive(kLogin), true);
  EXPECT_EQ(gate_.state(), 1);
  gate_.End(Arrive(kLogin), true);
  EXPECT_THAT(Log(), ElementsAre("start Login", "start Login", "refuse Login"));
}

TEST_F(GateTest, CallsThatDoNotChangeTheStateRunTogether) {
  LogIn();
  Arrive(kGet);
  Arrive(kWatch);
  Arrive(kGet);
  EXPECT_THAT(Log(), ElementsAre("start Get", "start Watch", "start Get"));
}

TEST_F(GateTest, CallsBehindAChangeWaitAndAreJudgedInTheStateThatItLeaves) {
  OrderedCall& login = Arrive(kLogin);
  Arrive(kGet);
  Arrive(kLogin);
  Arrive(kWatch);
  EXPECT_THAT(Log(), ElementsAre("start Login"));
  gate_.End(login, true);
  EXPECT_THAT(Log(), ElementsAre("start Get", "refuse Login", "start Watch"));
}

TEST_F(GateTest, CallsBehindAChangeThatFailsAreJudgedInTheStateBefore) {
  OrderedCall& login = Arrive(kLogin);
  Arrive(kGet);
  Arrive(kLogin);
  EXPECT_THAT(Log(), ElementsAre("start Login"));
  gate_.End(login, false);
  EXPECT_THAT(Log(), ElementsAre("refuse Get", "start Login"));
}

TEST_F(GateTest, AChangeWaitsForTheCallsBeforeIt) {
  LogIn();
  OrderedCall& one = Arrive(kGet);
  OrderedCall& two = Arrive(kGet);
  OrderedCall& save = Arrive(kSave);
  Arrive(kGet);
  EXPECT_THAT(Log(), ElementsAre("start Get", "start Get")) << "the third waits behind Save";
  gate_.End(two, false);
  EXPECT_THAT(Log(), IsEmpty());
  gate_.End(one, true);
  EXPECT_THAT(Log(), ElementsAre("start Save"));
  gate_.End(save, true);
  EXPECT_THAT(Log(), ElementsAre("start Get"));
}

TEST_F(GateTest, AChangeThatIsCancelledWhileItWaitsHoldsNobodyUp) {
  LogIn();
  Arrive(kGet);
  OrderedCall& save = Arrive(kSave);
  Arrive(kGet);
  EXPECT_THAT(Log(), ElementsAre("start Get"));
  gate_.End(save, false);
  EXPECT_THAT(Log(), ElementsAre("start Get"));
  EXPECT_EQ(gate_.state(), 1);
}

TEST_F(GateTest, StreamsAreNotWaitedForButExpelledByAStateThatDoesNotAllowThem) {
  LogIn();
  OrderedCall& watch = Arrive(kWatch);
  OrderedCall& save = Arrive(kSave);
  EXPECT_THAT(Log(), ElementsAre("start Watch", "start Save"));
  gate_.End(save, true);
  EXPECT_THAT(Log(), ElementsAre("expel Watch"));
  gate_.End(watch, false);
  EXPECT_EQ(gate_.state(), 2);
}

TEST_F(GateTest, AStreamGoesOnWhenTheChangeFails) {
  LogIn();
  Arrive(kWatch);
  gate_.End(Arrive(kSave), false);
  EXPECT_THAT(Log(), ElementsAre("start Watch", "start Save"));
}

TEST_F(GateTest, SeveralStreamsThatEndAsTheyAreExpelled) {
  LogIn();
  for (int i = 0; i < 3; ++i) {
    Arrive(kWatch);
    calls_.back()->ends_at_once = true;
  }
  OrderedCall& save = Arrive(kSave);
  Arrive(kGet);
  Log();
  gate_.End(save, true);
  EXPECT_THAT(Log(), ElementsAre("expel Watch", "expel Watch", "expel Watch", "start Get"));
}

TEST_F(GateTest, CallsThatEndAsTheyStartNeedNoStack) {
  OrderedCall& login = Arrive(kLogin);
  for (int i = 0; i < 100000; ++i) Arrive(kGet, true);
  Arrive(kLogout, true);
  Arrive(kGet, true);
  gate_.End(login, true);
  EXPECT_EQ(log_.size(), 100003u);
  EXPECT_THAT(log_.back(), "refuse Get");
  EXPECT_EQ(gate_.state(), 3);
}

// (Begin Put* Commit)*
TEST(UnfinishedTest, FromTheFirstStepUntilTheOrderAllowsAnEnd) {
  static constexpr absl::string_view kLedgerSteps[] = {"Begin", "Put", "Commit"};
  static constexpr uint8_t kLedgerNext[] = {1, kNo, kNo, kNo, 1, 0};
  static constexpr bool kLedgerAccepting[] = {true, false};
  static constexpr SessionOrder kLedger = {
      .service = "p.Ledger", .text = "", .steps = kLedgerSteps, .next = kLedgerNext, .accepting = kLedgerAccepting};
  class Step final : public OrderedCall {
   public:
    ~Step() = default;
    void OnOrderAdmitted() override {}
    void OnOrderRefused(const absl::Status&) override {}
    void OnOrderExpelled(const absl::Status&) override {}
  };
  SessionOrderGate gate(kLedger);
  Step begin;
  gate.Arrive(begin, 0, false);
  EXPECT_FALSE(gate.unfinished());
  gate.End(begin, true);
  EXPECT_TRUE(gate.unfinished());
  Step commit;
  gate.Arrive(commit, 2, false);
  EXPECT_TRUE(gate.unfinished());
  gate.End(commit, true);
  EXPECT_FALSE(gate.unfinished());
}

TEST_F(GateTest, ASessionThatNeverBeganIsNotUnfinished) {
  gate_.End(Arrive(kLogin), false);
  Arrive(kGet);
  EXPECT_FALSE(gate_.unfinished());
}

TEST_F(GateTest, TheEndOfACallThatTheGateDoesNotKnowIsNothing) {
  OrderedCall& refused = Arrive(kGet);
  gate_.End(refused, true);
  EXPECT_EQ(gate_.state(), 0);
}

TEST(MemoryTest, RefusesWhatCannotBeInOrder) {
  SessionOrderMemory memory(kOrder);
  EXPECT_EQ(memory.Check(kGet).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(memory.Check(kLogin).ok());
}

TEST(MemoryTest, AStepUnderWayMayBeFollowedAtOnceByWhatItAllows) {
  SessionOrderMemory memory(kOrder);
  const SessionOrderMemory::Ticket login = memory.Sent(kLogin);
  EXPECT_TRUE(memory.Check(kGet).ok());
  EXPECT_TRUE(memory.Check(kLogin).ok()) << "the first may fail";
  memory.Ended(login, SessionOrderMemory::Outcome::kOk);
  EXPECT_TRUE(memory.Check(kGet).ok());
  EXPECT_FALSE(memory.Check(kLogin).ok());
  EXPECT_EQ(memory.Sent(kGet), 0u) << "it changes nothing";
}

TEST(MemoryTest, AFailedStepLeavesTheStateAndALostOneBoth) {
  SessionOrderMemory memory(kOrder);
  memory.Ended(memory.Sent(kLogin), SessionOrderMemory::Outcome::kFailed);
  EXPECT_FALSE(memory.Check(kGet).ok());
  memory.Ended(memory.Sent(kLogin), SessionOrderMemory::Outcome::kUnknown);
  EXPECT_TRUE(memory.Check(kGet).ok());
  EXPECT_TRUE(memory.Check(kLogin).ok());
  memory.Ended(memory.Sent(kLogout), SessionOrderMemory::Outcome::kOk);
  EXPECT_TRUE(memory.Possible() == SessionOrder::States().set(3)) << "an OK tells where it came from";
}

TEST(MemoryTest, OutcomesMayComeInAnyOrder) {
  SessionOrderMemory memory(kOrder);
  const SessionOrderMemory::Ticket login = memory.Sent(kLogin);
  const SessionOrderMemory::Ticket save = memory.Sent(kSave);
  memory.Ended(save, SessionOrderMemory::Outcome::kOk);
  EXPECT_TRUE(memory.Check(kGet).ok());
  memory.Ended(login, SessionOrderMemory::Outcome::kOk);
  EXPECT_TRUE(memory.Possible() == SessionOrder::States().set(2));
}

// A stub never refuses what the server would have taken, whatever ends how and is heard of when.
TEST(MemoryTest, NeverRefusesWhatTheServerWouldAdmit) {
  class Taken final : public OrderedCall {
   public:
    ~Taken() = default;
    void OnOrderAdmitted() override { admitted = true; }
    void OnOrderRefused(const absl::Status&) override {}
    void OnOrderExpelled(const absl::Status&) override {}
    bool admitted = false;
  };
  for (unsigned seed = 0; seed < 2000; ++seed) {
    std::mt19937 random(seed);
    SessionOrderMemory memory(kOrder);
    SessionOrderGate gate(kOrder);
    // What the server has answered and the client has not heard yet.
    std::vector<std::pair<SessionOrderMemory::Ticket, SessionOrderMemory::Outcome>> news;
    for (int i = 0; i < 20; ++i) {
      while (!news.empty() && random() % 2 == 0) {
        const size_t which = random() % news.size();
        memory.Ended(news[which].first, news[which].second);
        news.erase(news.begin() + static_cast<std::ptrdiff_t>(which));
      }
      const auto step = static_cast<uint16_t>(random() % 5);
      const bool may = memory.Check(step).ok();
      const SessionOrderMemory::Ticket ticket = may ? memory.Sent(step) : 0;
      Taken call;
      const uint8_t before = gate.state();
      gate.Arrive(call, step, false);
      ASSERT_TRUE(may || !call.admitted) << "seed " << seed << ": " << kSteps[step] << " in state " << int{before};
      if (!call.admitted) {
        if (may) news.emplace_back(ticket, SessionOrderMemory::Outcome::kFailed);
        continue;
      }
      const bool ok = random() % 3 != 0;
      gate.End(call, ok);
      const bool lost = random() % 4 == 0;
      news.emplace_back(ticket, lost ? SessionOrderMemory::Outcome::kUnknown
                                : ok ? SessionOrderMemory::Outcome::kOk
                                     : SessionOrderMemory::Outcome::kFailed);
    }
  }
}

}  // namespace
}  // namespace troupe::internal
