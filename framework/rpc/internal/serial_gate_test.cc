#include "troupe/rpc/internal/serial_gate.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace troupe::internal {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class SerialGateTest : public ::testing::Test {
 protected:
  class LoggingCall final : public SerialCall {
   public:
    LoggingCall(SerialGateTest& test, std::string name) : test_(test), name_(std::move(name)) {}
    ~LoggingCall() = default;
    void OnTurn() override {
      test_.log_.push_back(name_);
      if (ends_at_once) test_.gate_.End(*this);
    }
    bool ends_at_once = false;

   private:
    SerialGateTest& test_;
    std::string name_;
  };

  std::vector<std::string> log_;
  SerialGate gate_{100};
  LoggingCall a_{*this, "a"};
  LoggingCall b_{*this, "b"};
  LoggingCall c_{*this, "c"};
};

TEST_F(SerialGateTest, OneAtATimeInTheOrderOfArrival) {
  gate_.Arrive(a_);
  gate_.Arrive(b_);
  gate_.Arrive(c_);
  EXPECT_THAT(log_, ElementsAre("a"));
  gate_.End(a_);
  EXPECT_THAT(log_, ElementsAre("a", "b"));
  gate_.End(b_);
  gate_.End(c_);
  EXPECT_THAT(log_, ElementsAre("a", "b", "c"));
}

TEST_F(SerialGateTest, OneThatEndsWhileItWaitsIsPassedOver) {
  gate_.Arrive(a_);
  gate_.Arrive(b_);
  gate_.Arrive(c_);
  gate_.End(b_);
  EXPECT_THAT(log_, ElementsAre("a"));
  gate_.End(a_);
  EXPECT_THAT(log_, ElementsAre("a", "c"));
}

TEST_F(SerialGateTest, CallsThatEndInTheirTurnNeedNoStack) {
  gate_.Arrive(a_);
  std::vector<std::unique_ptr<LoggingCall>> calls;
  for (int i = 0; i < 100000; ++i) {
    calls.push_back(std::make_unique<LoggingCall>(*this, "x"));
    calls.back()->ends_at_once = true;
    gate_.Arrive(*calls.back());
  }
  gate_.Arrive(b_);
  gate_.End(a_);
  EXPECT_EQ(log_.size(), 100002u);
  EXPECT_EQ(log_.back(), "b");
}

TEST_F(SerialGateTest, ACallThatCarriesTheTurnThatRunsIsInACircle) {
  EXPECT_FALSE(gate_.IsCircle({100, 101}));
  gate_.Arrive(a_);
  const uint64_t turn = gate_.turn();
  EXPECT_TRUE(gate_.IsCircle({7, turn, 9}));
  EXPECT_FALSE(gate_.IsCircle({7, 9}));
  EXPECT_FALSE(gate_.IsCircle({}));
  gate_.End(a_);
  EXPECT_FALSE(gate_.IsCircle({turn})) << "that turn is over: nobody waits";
  gate_.Arrive(b_);
  EXPECT_FALSE(gate_.IsCircle({turn})) << "another turn of the same actor";
}

TEST(SerialTurnsTest, TravelAsBytes) {
  EXPECT_EQ(EncodeSerialTurns({0x0102030405060708u, 1}),
            std::string("\x08\x07\x06\x05\x04\x03\x02\x01\x01\0\0\0\0\0\0\0", 16));
  EXPECT_THAT(DecodeSerialTurns(EncodeSerialTurns({1, ~uint64_t{0}})), ElementsAre(1u, ~uint64_t{0}));
  EXPECT_THAT(DecodeSerialTurns(""), IsEmpty());
  EXPECT_THAT(DecodeSerialTurns("1234567"), IsEmpty());
  EXPECT_EQ(DecodeSerialTurns(std::string(8 * kSerialTurnsMax, 'x')).size(), kSerialTurnsMax);
  EXPECT_THAT(DecodeSerialTurns(std::string(8 * kSerialTurnsMax + 8, 'x')), IsEmpty());
}

}  // namespace
}  // namespace troupe::internal
