// How this test works: a client and up to three servers on hosts of one simulated world, all under the name "kv.test".
// What the client's system is asked for, "Connect" and "Resolve", is written down with its time; servers stop, start,
// say nothing or hang up as the test wants.
#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "echo/v1/echo.troupe.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/sleep.h"
#include "troupe/net/protocol.h"
#include "troupe/net/stream_server.h"
#include "troupe/net/transport.h"
#include "troupe/service/channel.h"
#include "troupe/service/server.h"
#include "troupe/testing/matchers.h"
#include "troupe/testing/sim_world.h"
#include "troupe/wire/native/testing_peer.h"

namespace troupe {
namespace {

using ::echo::v1::EchoRequest;
using ::echo::v1::EchoResponse;
using ::echo::v1::EchoStub;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::troupe::testing::SimHost;
using ::troupe::testing::SimWorld;
using ::troupe::testing::StatusIs;
using State = ConnectivityState;

// Answers with the name of its host; "slow" after a minute, "long" after an hour.
class Named final : public echo::v1::EchoActor {
 public:
  explicit Named(std::string name) : name_(std::move(name)) {}
  Task<absl::Status> Echo(const EchoRequest& request, EchoResponse& response, Call&) override {
    if (request.message() == "slow") co_await Sleep(absl::Minutes(1));
    if (request.message() == "long") co_await Sleep(absl::Hours(1));
    response.set_message(name_);
    co_return absl::OkStatus();
  }
  // Answers after a while, whatever comes.
  Task<absl::Status> Collect(Reader<echo::v1::CollectRequest>, echo::v1::CollectResponse&, Call&) override {
    co_await Sleep(absl::Seconds(10));
    co_return absl::OkStatus();
  }

 private:
  const std::string name_;
};

Task<absl::StatusOr<std::string>> Ask(EchoStub echo, std::string text, CallOptions options) {
  EchoRequest request;
  request.set_message(std::move(text));
  absl::StatusOr<EchoResponse> got = co_await echo.Echo(request, options);
  if (!got.ok()) co_return got.status();
  co_return got->message();
}

// Writes down each state that it sees, until the channel is shut down.
Task<void> Watch(Channel& channel, std::vector<State>& states) {
  State state = channel.state();
  states.push_back(state);
  while (state != State::kShutdown) {
    Task<State> change = channel.WaitForStateChange(state);
    state = co_await std::move(change);
    states.push_back(state);
  }
}

class ReconnectTest : public ::testing::Test {
 protected:
  ReconnectTest() {
    client_.os().SetFault([this](absl::string_view operation, int) {
      if (operation == "Connect") connects_.push_back(world_.Now());
      if (operation == "Resolve") resolves_.push_back(world_.Now());
      return 0;
    });
  }
  ~ReconnectTest() override {
    channel_.reset();
    world_.RunFor(absl::Seconds(1));
    for (auto& [host, server] : servers_) {
      if (server == nullptr) continue;
      server->Close();
      world_.Run(*host, server->WaitClosed());
    }
    for (auto& [host, front] : fronts_) front->Close();
    fronts_.clear();
    world_.RunFor(absl::Minutes(5));
  }

  SimHost& Host(const std::string& name) {
    for (auto& [host, server] : servers_) {
      if (host->name() == name) return *host;
    }
    servers_.emplace_back(&world_.AddHost(name), nullptr);
    return *servers_.back().first;
  }
  std::unique_ptr<Server>& ServerOf(const std::string& name) {
    Host(name);
    return std::find_if(servers_.begin(), servers_.end(), [&](auto& entry) { return entry.first->name() == name; })->second;
  }
  Server& Start(const std::string& name, ConnectionLimits limits = {}) {
    ServerOptions options;
    options.listen = {"0.0.0.0:7400"};
    options.limits = limits;
    SimHost& host = Host(name);
    ServerOf(name) = std::make_unique<Server>(host.loop(), options);
    Server& server = *ServerOf(name);
    server.Add<Named>(name);
    EXPECT_OK(world_.Run(host, server.Start()));
    return server;
  }
  // Its connections are lost.
  void Stop(const std::string& name) {
    std::unique_ptr<Server> server = std::move(ServerOf(name));
    server->Close();
    world_.Run(Host(name), server->WaitClosed());
    world_.RunFor(absl::Milliseconds(1));
  }
  // What accepts on `name` is a protocol of bytes.
  void StartBytes(const std::string& name, std::function<std::unique_ptr<BaseProtocol>()> factory) {
    StreamServerOptions options{.listen = {"0.0.0.0:7400"}};
    SimHost& host = Host(name);
    auto starting = CreateServer(host.loop(), std::move(factory), options);
    auto front = world_.Run(host, std::move(starting));
    ASSERT_OK(front.status());
    fronts_.emplace_back(&host, *std::move(front));
  }
  void NameIs(const std::vector<std::string>& hosts) {
    std::vector<SocketAddress> addresses;
    for (const std::string& host : hosts) addresses.push_back(Host(host).os().ips().front());
    world_.kernel().SetName("kv.test", addresses);
  }
  Channel& Open(ChannelOptions options = {}, const std::string& target = "dns:///kv.test:7400") {
    channel_ = std::make_unique<Channel>(client_.loop(), target, std::move(options));
    return *channel_;
  }
  absl::StatusOr<std::string> Say(std::string text = "hello", CallOptions options = {}) {
    return world_.Run(client_, Ask(EchoStub(*channel_), std::move(text), options));
  }
  TaskHandle<absl::StatusOr<std::string>> SayLater(std::string text, CallOptions options = {}) {
    return client_.loop().CreateTask(Ask(EchoStub(*channel_), std::move(text), options), "says");
  }
  // A call is always under way that waits for a connection, looked at every `step`.
  void KeepSaying(const std::string& text, absl::Duration duration, absl::Duration step) {
    const MonotonicTime end = world_.Now() + duration;
    auto call = SayLater(text, {.wait_for_ready = true});
    while (world_.Now() < end) {
      world_.RunFor(step);
      if (!call.done()) continue;
      static_cast<void>(call.result());
      call = SayLater(text, {.wait_for_ready = true});
    }
    call.Cancel();
    world_.RunFor(absl::Milliseconds(1));
  }

  SimWorld world_;
  SimHost& client_ = world_.AddHost("client");
  std::vector<std::pair<SimHost*, std::unique_ptr<Server>>> servers_;
  std::vector<std::pair<SimHost*, std::unique_ptr<StreamServer>>> fronts_;
  std::vector<MonotonicTime> connects_, resolves_;
  std::unique_ptr<Channel> channel_;
};

// ---------------------------------------------------------------------------------------------------- back-off

TEST_F(ReconnectTest, AServerThatRefusesIsTriedEverMoreRarely) {
  NameIs({"a"});
  Open();
  auto waits = SayLater("hello", {.wait_for_ready = true});
  world_.RunFor(absl::Minutes(20));
  EXPECT_FALSE(waits.done());
  ASSERT_GE(connects_.size(), 15u);
  double expected = 1;
  for (size_t i = 1; i < connects_.size(); ++i) {
    const double pause = absl::ToDoubleSeconds(connects_[i] - connects_[i - 1]);
    EXPECT_GE(pause, expected * 0.79) << i;
    EXPECT_LE(pause, expected * 1.21) << i;
    expected = std::min(expected * 1.6, 120.0);
  }
  Start("a");
  world_.RunFor(absl::Minutes(3));
  ASSERT_TRUE(waits.done());
  EXPECT_OK(waits.result());
}

TEST_F(ReconnectTest, TwoClientsDoNotComeInStep) {
  NameIs({"a"});
  Open();
  Channel other(client_.loop(), "dns:///kv.test:7400");
  auto one = SayLater("x", {.wait_for_ready = true});
  auto two = client_.loop().CreateTask(Ask(EchoStub(other), "x", {.wait_for_ready = true}), "other");
  world_.RunFor(absl::Minutes(1));
  std::vector<MonotonicTime> times = connects_;
  times.erase(std::unique(times.begin(), times.end()), times.end());
  EXPECT_GE(times.size(), connects_.size() - 1) << "but for the first attempt";
  one.Cancel();
  two.Cancel();
  world_.RunFor(absl::Milliseconds(1));
}

TEST_F(ReconnectTest, CallsEndAtOnceWhileItBacksOffAndAfterwardsTheNextOneConnects) {
  NameIs({"a"});
  Open();
  EXPECT_THAT(Say(), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("Connection refused")));
  EXPECT_EQ(channel_->state(), State::kTransientFailure);
  Start("a");
  const MonotonicTime start = world_.Now();
  for (int i = 0; i < 10; ++i) {
    EXPECT_THAT(Say(), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("Connection refused")));
  }
  EXPECT_EQ(world_.Now(), start);
  EXPECT_EQ(connects_.size(), 1u);
  world_.RunFor(absl::Seconds(2));
  EXPECT_EQ(channel_->state(), State::kReady) << "there were calls, so it has tried again by itself";
  EXPECT_OK(Say());
}

TEST_F(ReconnectTest, NobodyIsTriedAgainForNobody) {
  NameIs({"a"});
  Open();
  EXPECT_THAT(Say(), StatusIs(absl::StatusCode::kUnavailable));
  world_.RunFor(absl::Hours(1));
  EXPECT_EQ(connects_.size(), 1u);
  EXPECT_EQ(channel_->state(), State::kIdle);
  world_.kernel().SetNameError("elsewhere.test", absl::NotFoundError("no such host"));
  Open({}, "elsewhere.test:7400");
  resolves_.clear();
  EXPECT_THAT(Say(), StatusIs(absl::StatusCode::kUnavailable));
  world_.RunFor(absl::Hours(1));
  EXPECT_EQ(resolves_.size(), 1u);
  EXPECT_EQ(channel_->state(), State::kIdle);
}

TEST_F(ReconnectTest, ConnectsWithoutACall) {
  Start("a");
  NameIs({"a"});
  Open();
  channel_->Connect();
  world_.RunFor(absl::Seconds(1));
  EXPECT_EQ(channel_->state(), State::kReady);
}

TEST_F(ReconnectTest, WhoWaitsForReadyWaitsForItsDeadlineOrItsEnd) {
  NameIs({"a"});
  Open();
  EXPECT_THAT(Say("x", {.timeout = absl::Seconds(10), .wait_for_ready = true}),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_EQ(world_.Now().nanos(), absl::ToInt64Nanoseconds(absl::Seconds(10)));
  EchoRequest request;
  Reply<EchoResponse> dropped = EchoStub(*channel_).Echo(request, {.wait_for_ready = true});
  dropped.Cancel();
  auto closed = SayLater("x", {.wait_for_ready = true});
  world_.RunFor(absl::Seconds(1));
  EXPECT_FALSE(closed.done());
  channel_->Close();
  world_.RunFor(absl::Seconds(1));
  ASSERT_TRUE(closed.done());
  EXPECT_THAT(closed.result(), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("closed")));
  const size_t before = connects_.size();
  world_.RunFor(absl::Hours(1));
  EXPECT_EQ(connects_.size(), before);
}

TEST_F(ReconnectTest, AServerThatHangsUpWithoutAWordIsNotConnectedToAgainAndAgain) {
  class HangsUp final : public Protocol {
   public:
    void ConnectionMade(Transport& transport) override { transport.Abort(); }
    void DataReceived(absl::Span<const char>) override {}
  };
  StartBytes("a", [] { return std::make_unique<HangsUp>(); });
  NameIs({"a"});
  Open();
  KeepSaying("hello", absl::Minutes(1), absl::Milliseconds(10));
  EXPECT_GE(connects_.size(), 4u);
  EXPECT_LE(connects_.size(), 9u);
}

TEST_F(ReconnectTest, AServerThatSaysNothingIsGivenUp) {
  class Silent final : public Protocol {
   public:
    void DataReceived(absl::Span<const char>) override {}
  };
  StartBytes("a", [] { return std::make_unique<Silent>(); });
  NameIs({"a"});
  Open();
  EXPECT_THAT(Say(), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("says nothing")));
  EXPECT_EQ(world_.Now().nanos() / 1'000'000'000, 20);
}

// Each connection speaks, answers nothing, and sends the calls away unstarted.
TEST_F(ReconnectTest, AServerThatOnlySaysThatItGoesIsNotConnectedToAgainAndAgain) {
  class Goes final : public Protocol {
   public:
    void ConnectionMade(Transport& transport) override {
      transport.Write(native::FrameBytes().Preface({}));
      transport.Write(native::FrameBytes().GoAway(0));
    }
    void DataReceived(absl::Span<const char>) override {}
  };
  StartBytes("a", [] { return std::make_unique<Goes>(); });
  NameIs({"a"});
  Open({}, "troupe+dns:///kv.test:7400");
  KeepSaying("hello", absl::Minutes(1), absl::Milliseconds(10));
  EXPECT_GE(connects_.size(), 6u);
  EXPECT_LE(connects_.size(), 14u);
  EXPECT_NE(channel_->state(), State::kTransientFailure) << "it can be reached";
  fronts_.front().second->Close();
  world_.RunFor(absl::Seconds(1));
  Start("a");
  EXPECT_OK(Say());
}

TEST_F(ReconnectTest, AConnectionThatWasOfUseIsFollowedByTheNextOneAtOnce) {
  Start("a");
  NameIs({"a"});
  Open();
  for (int i = 0; i < 10; ++i) {
    const MonotonicTime start = world_.Now();
    EXPECT_OK(Say());
    EXPECT_LT(world_.Now() - start, absl::Milliseconds(100));
    Stop("a");
    Start("a");
  }
  EXPECT_EQ(channel_->connections_made(), 10u);
}

// The last call of a connection that goes away ends it; what the codec says afterwards, that the rest of the request need
// not come, has no way to go any more.
TEST_F(ReconnectTest, AChannelMayGoWhileItsLastConnectionLingers) {
  Start("a");
  NameIs({"a"});
  Open();
  auto collect = EchoStub(*channel_).Collect();
  world_.RunFor(absl::Seconds(1));
  ServerOf("a")->Drain();
  world_.RunUntil([&] { return collect.done(); });
  channel_.reset();
}

// ---------------------------------------------------------------------------------------------------- states

TEST_F(ReconnectTest, StatesAreAwaited) {
  NameIs({"a"});
  Open();
  std::vector<State> states;
  auto watching = client_.loop().CreateTask(Watch(*channel_, states), "watches");
  world_.RunFor(absl::Seconds(1));
  EXPECT_THAT(states, ElementsAre(State::kIdle));
  channel_->Connect();
  world_.RunFor(absl::Milliseconds(10));
  EXPECT_THAT(std::exchange(states, {}), ElementsAre(State::kIdle, State::kConnecting, State::kTransientFailure));
  Start("a");
  world_.RunFor(absl::Seconds(2));
  EXPECT_THAT(std::exchange(states, {}), ElementsAre(State::kConnecting, State::kReady))
      << "who watches wants to know, and so it is tried again";
  Stop("a");
  world_.RunFor(absl::Seconds(1));
  EXPECT_THAT(std::exchange(states, {}), ElementsAre(State::kIdle));
  channel_.reset();
  world_.RunFor(absl::Seconds(1));
  EXPECT_THAT(states, ElementsAre(State::kShutdown));
  EXPECT_TRUE(watching.done());
}

TEST_F(ReconnectTest, AWaitForAStateMayBeCancelled) {
  NameIs({"a"});
  Open();
  for (int i = 0; i < 10; ++i) {
    auto waiting = client_.loop().CreateTask(channel_->WaitForStateChange(State::kIdle), "waits");
    world_.RunFor(absl::Milliseconds(1));
    waiting.Cancel();
    world_.RunFor(absl::Milliseconds(1));
    EXPECT_TRUE(waiting.done());
  }
  EXPECT_EQ(world_.Run(client_, channel_->WaitForStateChange(State::kReady)), State::kIdle) << "it is another one already";
  EXPECT_THAT(Say(), StatusIs(absl::StatusCode::kUnavailable));
}

// ---------------------------------------------------------------------------------------------------- names

TEST_F(ReconnectTest, ANameThatMovedIsAskedForAgain) {
  Start("a");
  Start("b");
  NameIs({"a"});
  Open();
  EXPECT_EQ(Say().value(), "a");
  NameIs({"b"});
  world_.RunFor(absl::Minutes(1));
  EXPECT_EQ(Say().value(), "a") << "it is there, and nobody asks";
  EXPECT_EQ(resolves_.size(), 1u);
  Stop("a");
  EXPECT_EQ(Say("hello", {.wait_for_ready = true}).value(), "b");
  EXPECT_EQ(resolves_.size(), 2u);
}

TEST_F(ReconnectTest, ANameIsAskedForAtMostEveryThirtySeconds) {
  NameIs({"a"});
  Open({.backoff_max = absl::Seconds(2)});
  auto waits = SayLater("hello", {.wait_for_ready = true});
  world_.RunFor(absl::Minutes(10));
  EXPECT_GT(connects_.size(), 200u);
  ASSERT_GE(resolves_.size(), 15u);
  for (size_t i = 1; i < resolves_.size(); ++i) EXPECT_GE(resolves_[i] - resolves_[i - 1], absl::Seconds(30));
  NameIs({"b"});
  Start("b");
  world_.RunFor(absl::Seconds(35));
  ASSERT_TRUE(waits.done());
  EXPECT_EQ(waits.result().value(), "b");
}

TEST_F(ReconnectTest, ANameThatIsNotThereIsAskedForEverMoreRarely) {
  world_.kernel().SetNameError("kv.test", absl::NotFoundError("no such host"));
  Open();
  EXPECT_THAT(Say(), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("no such host")));
  EXPECT_EQ(channel_->state(), State::kTransientFailure);
  EXPECT_THAT(Say(), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("no such host"))) << "at once";
  EXPECT_EQ(resolves_.size(), 1u);
  auto waits = SayLater("hello", {.wait_for_ready = true});
  world_.RunFor(absl::Minutes(5));
  EXPECT_GE(resolves_.size(), 8u);
  EXPECT_LE(resolves_.size(), 14u);
  Start("a");
  NameIs({"a"});
  world_.RunFor(absl::Minutes(3));
  ASSERT_TRUE(waits.done());
  EXPECT_EQ(waits.result().value(), "a");
}

TEST_F(ReconnectTest, ANameThatGoesLeavesTheAddressesThatWereKnown) {
  Start("a");
  NameIs({"a"});
  Open();
  EXPECT_OK(Say());
  world_.kernel().SetNameError("kv.test", absl::UnavailableError("the name server is away"));
  world_.RunFor(absl::Minutes(1));
  Stop("a");
  Start("a");
  EXPECT_OK(Say("hello", {.wait_for_ready = true}));
}

TEST_F(ReconnectTest, AddressesAreNotResolved) {
  Start("a");
  const std::string ip = Host("a").os().ips().front().ToString();
  Open({}, absl::StrCat(ip.substr(0, ip.rfind(':')), ":7400"));
  EXPECT_OK(Say());
  EXPECT_TRUE(resolves_.empty());
}

// ---------------------------------------------------------------------------------------------------- several servers

TEST_F(ReconnectTest, PickFirstStaysWithTheFirstThatAnswers) {
  Start("b");
  Start("c");
  NameIs({"a", "b", "c"});
  Open();
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Say().value(), "b");
  Start("a");
  EXPECT_EQ(Say().value(), "b");
  EXPECT_EQ(channel_->connections_made(), 1u);
  Stop("b");
  EXPECT_EQ(Say("hello", {.wait_for_ready = true}).value(), "a") << "from the first on";
}

TEST_F(ReconnectTest, RoundRobinTakesTurns) {
  for (const char* const name : {"a", "b", "c"}) Start(name);
  NameIs({"a", "b", "c", "a"});
  Open({.balancing = Balancing::kRoundRobin});
  EXPECT_OK(Say());
  world_.RunFor(absl::Seconds(1));
  std::vector<std::string> answers;
  for (int i = 0; i < 30; ++i) answers.push_back(Say().value());
  for (const char* const name : {"a", "b", "c"}) {
    EXPECT_EQ(std::count(answers.begin(), answers.end(), name), 10) << name;
  }
  EXPECT_EQ(channel_->connections_made(), 3u);
}

TEST_F(ReconnectTest, ATargetThatListsAddressesIsLikeANameThatHasThem) {
  std::vector<std::string> addresses;
  for (const char* const name : {"a", "b", "c"}) {
    Start(name);
    addresses.push_back(SocketAddress::FromIp(Host(name).os().ips().front().host(), 7400)->ToString());
  }
  const std::string target = absl::StrCat("ipv4:", absl::StrJoin(addresses, ","));
  Stop("a");
  Open({}, target);
  EXPECT_EQ(Say().value(), "b") << "the first that answers";
  Open({.balancing = Balancing::kRoundRobin}, target);
  EXPECT_OK(Say());
  world_.RunFor(absl::Seconds(1));
  std::vector<std::string> answers;
  for (int i = 0; i < 20; ++i) answers.push_back(Say().value());
  EXPECT_EQ(std::count(answers.begin(), answers.end(), "b"), 10);
  EXPECT_EQ(std::count(answers.begin(), answers.end(), "c"), 10);
  // What comes back is used again, and nobody was asked for addresses.
  Start("a");
  for (int i = 0; i < 100; ++i) {
    answers.push_back(Say().value());
    world_.RunFor(absl::Seconds(1));
  }
  EXPECT_GE(std::count(answers.begin(), answers.end(), "a"), 20);
  EXPECT_THAT(resolves_, IsEmpty());
}

TEST_F(ReconnectTest, RoundRobinGoesOnWithThoseThatAreThere) {
  for (const char* const name : {"a", "b", "c"}) Start(name);
  NameIs({"a", "b", "c"});
  Open({.balancing = Balancing::kRoundRobin});
  EXPECT_OK(Say());
  world_.RunFor(absl::Seconds(1));
  Stop("b");
  for (int i = 0; i < 20; ++i) EXPECT_OK(Say());
  EXPECT_EQ(channel_->state(), State::kReady);
  Start("b");
  std::vector<std::string> answers;
  for (int i = 0; i < 100; ++i) {
    answers.push_back(Say().value());
    world_.RunFor(absl::Seconds(1));
  }
  EXPECT_GE(std::count(answers.begin(), answers.end(), "b"), 20) << "it is there again";
  for (const char* const name : {"a", "b", "c"}) Stop(name);
  EXPECT_THAT(Say(), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("Connection refused")));
}

TEST_F(ReconnectTest, RoundRobinKeepsTheConnectionsThatStay) {
  for (const char* const name : {"a", "b", "c"}) Start(name);
  NameIs({"a", "b"});
  Open({.balancing = Balancing::kRoundRobin});
  EXPECT_OK(Say());
  world_.RunFor(absl::Minutes(1));
  std::vector<TaskHandle<absl::StatusOr<std::string>>> slow;
  for (int i = 0; i < 2; ++i) slow.push_back(SayLater("slow"));
  world_.RunFor(absl::Seconds(1));
  // "a" goes from the name with a call in flight; that it is asked for again is because "b" restarts.
  NameIs({"b", "c"});
  Stop("b");
  Start("b");
  for (int i = 0; i < 3; ++i) EXPECT_OK(Say());
  world_.RunFor(absl::Seconds(5));
  std::vector<std::string> answers;
  for (int i = 0; i < 20; ++i) answers.push_back(Say().value());
  EXPECT_EQ(std::count(answers.begin(), answers.end(), "a"), 0);
  EXPECT_EQ(std::count(answers.begin(), answers.end(), "b"), 10);
  EXPECT_EQ(std::count(answers.begin(), answers.end(), "c"), 10);
  world_.RunFor(absl::Minutes(2));
  int finished = 0;
  for (auto& call : slow) {
    ASSERT_TRUE(call.done());
    if (call.result().ok()) {
      EXPECT_EQ(*call.result(), "a");
      ++finished;
    }
  }
  EXPECT_EQ(finished, 1) << "what was in flight to the address that went has its end";
  EXPECT_EQ(ServerOf("a")->connections(), 0u);
}

// ---------------------------------------------------------------------------------------------------- age, pings

TEST_F(ReconnectTest, AConnectionOfItsAgeIsFollowedByAnotherAndNoCallFails) {
  for (const char* const target : {"dns:///kv.test:7400", "troupe+dns:///kv.test:7400"}) {
    SCOPED_TRACE(target);
    world_.kernel().SetDefaultLink({.latency = absl::Milliseconds(7), .jitter = absl::Milliseconds(5)});
    Server& server = Start("a", {.connection_age_max = absl::Seconds(10), .connection_age_grace = absl::Seconds(5)});
    NameIs({"a"});
    Open({}, target);
    const MonotonicTime end = world_.Now() + absl::Minutes(2);
    std::vector<TaskHandle<absl::StatusOr<std::string>>> calls;
    while (world_.Now() < end) {
      calls.push_back(SayLater("hello"));
      world_.RunFor(absl::Milliseconds(10));
    }
    world_.RunFor(absl::Seconds(1));
    for (auto& call : calls) {
      ASSERT_TRUE(call.done());
      EXPECT_OK(call.result());
    }
    EXPECT_GE(server.counters().connections_aged.value(), 9u);
    EXPECT_LE(server.counters().connections_aged.value(), 14u);
    Stop("a");
  }
}

TEST_F(ReconnectTest, WhatIsInFlightBeyondTheGraceEnds) {
  Start("a", {.connection_age_max = absl::Seconds(10), .connection_age_grace = absl::Seconds(5)});
  NameIs({"a"});
  Open();
  auto lasts = SayLater("long");
  world_.RunFor(absl::Seconds(13));
  EXPECT_FALSE(lasts.done());
  world_.RunFor(absl::Seconds(4));
  ASSERT_TRUE(lasts.done());
  EXPECT_THAT(lasts.result(), StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(ReconnectTest, AServerThatFindsUsImportunateIsPingedHalfAsOften) {
  for (const char* const target : {"dns:///kv.test:7400", "troupe+dns:///kv.test:7400"}) {
    SCOPED_TRACE(target);
    Server& server = Start("a");
    NameIs({"a"});
    ChannelOptions options;
    options.limits.keepalive_time = absl::Seconds(10);
    Open(options, target);
    KeepSaying("long", absl::Hours(4), absl::Minutes(1));
    // 10, 20, 40, 80 and 160 s are too often, 320 s is not.
    EXPECT_EQ(server.counters().wire.ping_floods.value(), 5u);
    channel_.reset();
    Stop("a");
  }
}

}  // namespace
}  // namespace troupe
