// EchoProtocol, as generated, on the bare loop: a StreamServer makes one per connection, a stub calls it over sockets.
#include "troupe/service/actor_protocol.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "echo/v1/echo.troupe.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/sleep.h"
#include "troupe/base/errors.h"
#include "troupe/net/stream_server.h"
#include "troupe/service/channel.h"
#include "troupe/testing/matchers.h"
#include "troupe/testing/sim/sim_os.h"

namespace troupe {
namespace {

using ::echo::v1::ChatRequest;
using ::echo::v1::ChatResponse;
using ::echo::v1::EchoActor;
using ::echo::v1::EchoProtocol;
using ::echo::v1::EchoRequest;
using ::echo::v1::EchoResponse;
using ::echo::v1::EchoStub;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::troupe::testing::SimOs;
using ::troupe::testing::StatusIs;

using Log = std::vector<std::string>;

class Logging final : public EchoActor {
 public:
  explicit Logging(Log& log) : log_(log) {}
  ~Logging() override { log_.push_back("destroyed"); }

  void ConnectionMade(Connection&) override { log_.push_back("ConnectionMade"); }
  bool EofReceived() override {
    log_.push_back("EofReceived");
    return false;
  }
  void ConnectionLost(const absl::Status& reason) override {
    log_.push_back("ConnectionLost " + absl::StatusCodeToString(reason.code()));
  }

  Task<absl::Status> Echo(const EchoRequest& request, EchoResponse& response, Call&) override {
    response.set_message(request.message());
    const Ends frame(log_);
    try {
      if (request.message() == "slow") co_await Sleep(absl::Hours(1));
    } catch (const Cancelled&) {
      log_.push_back("cancelled");
      throw;
    }
    while (request.message() == "deaf") {
      try {
        co_await Sleep(absl::Hours(1));
      } catch (const Cancelled&) {  // will not hear of it
      }
    }
    co_return absl::OkStatus();
  }
  Task<absl::Status> Chat(Reader<ChatRequest> reader, Writer<ChatResponse> writer, Call&) override {
    ChatRequest request;
    ChatResponse response;
    while (true) {
      const bool more = co_await reader.Read(request);
      if (!more) co_return absl::OkStatus();
      response.set_message(request.message());
      co_await writer.Write(response);
    }
  }

 private:
  struct Ends {
    explicit Ends(Log& to) : log(to) {}
    ~Ends() { log.push_back("frame ends"); }
    Log& log;
  };
  Log& log_;
};

class ActorProtocolTest : public ::testing::Test {
 protected:
  ActorProtocolTest() {
    server_ = loop_.RunUntilComplete(Serve(loop_, log_));
    channel_ = std::make_unique<Channel>(loop_, "127.0.0.1:7000");
  }
  ~ActorProtocolTest() override {
    channel_.reset();
    server_.reset();
    loop_.Close();
  }
  static Task<std::unique_ptr<StreamServer>> Serve(EventLoop& loop, Log& log) {
    StreamServerOptions options;
    options.listen = {"127.0.0.1:7000"};
    auto factory = [&log]() -> std::unique_ptr<BaseProtocol> {
      return std::make_unique<EchoProtocol>(std::make_unique<Logging>(log));
    };
    auto server = co_await CreateServer(loop, factory, options);
    co_return *std::move(server);
  }
  static Task<absl::StatusOr<EchoResponse>> Say(EchoStub echo, std::string message) {
    EchoRequest request;
    request.set_message(std::move(message));
    absl::StatusOr<EchoResponse> got = co_await echo.Echo(request);
    co_return got;
  }
  TaskHandle<absl::StatusOr<EchoResponse>> Begin(std::string message) {
    auto call = loop_.CreateTask(Say(EchoStub(*channel_), std::move(message)));
    Advance();
    return call;
  }
  void Advance(absl::Duration time = absl::Seconds(1)) { loop_.RunUntilComplete(Sleep(time)); }

  Log log_;
  SimOs os_;
  EventLoop loop_{os_};
  std::unique_ptr<StreamServer> server_;
  std::unique_ptr<Channel> channel_;
};

TEST_F(ActorProtocolTest, AnActorHasTheLifeOfItsConnection) {
  EXPECT_OK(loop_.RunUntilComplete(Say(EchoStub(*channel_), "hello")));
  EXPECT_THAT(log_, ElementsAre("ConnectionMade", "frame ends"));
  channel_->Close();
  Advance();
  EXPECT_THAT(log_, ElementsAre("ConnectionMade", "frame ends", "EofReceived", "ConnectionLost OK", "destroyed"));
  EXPECT_EQ(server_->connections(), 0u);
}

TEST_F(ActorProtocolTest, WhatItHoldsIsChargedToTheProcess) {
  auto slow = Begin("slow");
  const auto request = static_cast<int64_t>(2 + std::string("slow").size());
  // With the channel's, which it might have to send again, and the metadata that a client of gRPC sends of its own.
  EXPECT_GT(os_.held_memory().load(), 2 * request);
  EXPECT_LE(os_.held_memory().load(), 2 * request + 100);
  slow.Cancel();
  Advance();
  EXPECT_EQ(os_.held_memory().load(), 0);
}

TEST_F(ActorProtocolTest, TheNextConnectionHasAnActorOfItsOwn) {
  for (int i = 0; i < 3; ++i) {
    EXPECT_OK(loop_.RunUntilComplete(Say(EchoStub(*channel_), "hello")));
    channel_ = std::make_unique<Channel>(loop_, "127.0.0.1:7000");
    Advance();
    EXPECT_EQ(std::exchange(log_, {}).back(), "destroyed");
  }
}

TEST_F(ActorProtocolTest, ALostConnectionCancelsItsCalls) {
  auto call = Begin("slow");
  channel_.reset();
  Advance();
  EXPECT_THAT(call.result(), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(log_[1], "cancelled");
  EXPECT_EQ(log_[2], "frame ends");
  EXPECT_EQ(log_.back(), "destroyed");
}

TEST_F(ActorProtocolTest, ADestroyedServerEndsItsCallsAndActors) {
  auto call = Begin("slow");
  server_.reset();
  Advance();
  EXPECT_THAT(call.result(), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(log_[1], "cancelled");
  EXPECT_EQ(log_.back(), "destroyed");
}

TEST_F(ActorProtocolTest, AHandlerThatIgnoresTheLossLivesAsLongAsTheLoop) {
  auto call = Begin("deaf");
  server_.reset();
  Advance(absl::Hours(5));
  EXPECT_THAT(call.result(), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(log_, ElementsAre("ConnectionMade"));
  channel_.reset();
  Advance();
  loop_.Close();
  EXPECT_THAT(log_, ElementsAre("ConnectionMade", "frame ends", "ConnectionLost OK", "destroyed"));
}

TEST_F(ActorProtocolTest, AClosedLoopEndsWhatIsLeft) {
  auto call = Begin("slow");
  channel_->Close();
  loop_.Close();
  channel_.reset();
  server_.reset();
  EXPECT_EQ(log_.front(), "ConnectionMade");
  EXPECT_EQ(log_.back(), "destroyed");
}

}  // namespace
}  // namespace troupe
