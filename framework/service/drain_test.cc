// How this test works: a server and its clients on simulated hosts. Both keep journals of every call, and at the end
// the two are compared: what the server began it finished, once, and the client knows it; what it did not begin, the
// client may try again. Time is virtual, so that a drain of half a minute costs nothing.
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "echo/v1/echo.troupe.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/sleep.h"
#include "troupe/base/errors.h"
#include "troupe/net/connect.h"
#include "troupe/net/transport.h"
#include "troupe/rpc/until_draining.h"
#include "troupe/service/channel.h"
#include "troupe/service/server.h"
#include "troupe/testing/matchers.h"
#include "troupe/testing/sim_world.h"

namespace troupe {
namespace {

using ::echo::v1::ChatRequest;
using ::echo::v1::ChatResponse;
using ::echo::v1::EchoRequest;
using ::echo::v1::EchoResponse;
using ::echo::v1::EchoStub;
using ::echo::v1::ExpandRequest;
using ::echo::v1::ExpandResponse;
using ::troupe::testing::SimHost;
using ::troupe::testing::Simulate;
using ::troupe::testing::SimWorld;
using ::troupe::testing::StatusIs;

// What happened to each call, by its number.
struct Journals {
  struct Line {
    int began = 0;                            // the server's: times that a handler started
    int finished = 0;                         // and came to its end
    std::optional<absl::StatusCode> outcome;  // the client's
  };
  std::vector<Line> lines;
  size_t begun = 0;  // calls that began

  int NewCall() {
    lines.emplace_back();
    return static_cast<int>(lines.size()) - 1;
  }
};

// Echo answers after as many milliseconds as its request says, behind the call's number. Expand lasts until the server
// drains.
class Slow final : public echo::v1::EchoActor {
 public:
  explicit Slow(Journals& journals) : journals_(journals) {}

  Task<absl::Status> Echo(const EchoRequest& request, EchoResponse& response, Call&) override {
    const size_t number = static_cast<size_t>(std::stoi(request.message()));
    const absl::Duration time = absl::Milliseconds(std::stoi(request.message().substr(request.message().find(' '))));
    ++journals_.lines[number].began;
    ++journals_.begun;
    co_await Sleep(time);
    ++journals_.lines[number].finished;
    response.set_message(request.message());
    co_return absl::OkStatus();
  }
  Task<absl::Status> Expand(const ExpandRequest&, Writer<ExpandResponse> writer, Call& call) override {
    Task<absl::Status> ticks = Tick(writer);
    co_return co_await UntilDraining(call, std::move(ticks));
  }

 private:
  static Task<absl::Status> Tick(Writer<ExpandResponse> writer) {
    const ExpandResponse tick;
    while (true) {
      const bool more = co_await writer.Write(tick);
      if (!more) co_return absl::CancelledError("the call is over");
      co_await Sleep(absl::Seconds(1));
    }
  }
  Journals& journals_;
};

Task<void> CallOnce(EchoStub echo, Journals& journals, int number, int milliseconds) {
  EchoRequest request;
  request.set_message(absl::StrCat(number, " ", milliseconds));
  const absl::StatusOr<EchoResponse> reply = co_await echo.Echo(request);
  if (reply.ok()) {
    EXPECT_EQ(reply->message(), request.message());
  }
  journals.lines[static_cast<size_t>(number)].outcome = reply.status().code();
}

Task<void> KeepCalling(EchoStub echo, Journals& journals, absl::Duration pause, const bool& over) {
  while (!over) {
    co_await CallOnce(echo, journals, journals.NewCall(), 10);
    co_await Sleep(pause);
  }
}

Task<void> Watch(EchoStub echo, absl::Status* end) {
  const ExpandRequest request;
  auto ticks = echo.Expand(request);
  ExpandResponse tick;
  while (true) {
    const bool more = co_await ticks.Read(tick);
    if (!more) break;
  }
  *end = co_await ticks.Finish();
}

// None lost, none run twice: the journals agree.
void ExpectAgreement(const Journals& journals) {
  for (size_t i = 0; i < journals.lines.size(); ++i) {
    const Journals::Line& line = journals.lines[i];
    ASSERT_TRUE(line.outcome.has_value()) << "call " << i << " never ended";
    if (*line.outcome == absl::StatusCode::kOk) {
      ASSERT_EQ(line.began, 1) << "call " << i << " was answered";
      ASSERT_EQ(line.finished, 1) << "call " << i << " was answered";
    } else {
      ASSERT_EQ(*line.outcome, absl::StatusCode::kUnavailable) << "call " << i;
      ASSERT_EQ(line.began, 0) << "call " << i << " was begun and is lost";
    }
  }
}

#if defined(__SANITIZE_ADDRESS__)
constexpr int kRounds = 2;  // each takes twenty times as long
#else
constexpr int kRounds = 20;
#endif
constexpr int kCalls = 10'000;
constexpr int kClientHosts = 4;
constexpr int kChannelsPerHost = 10;

class DrainUnderLoad : public ::testing::TestWithParam<Wire> {};

INSTANTIATE_TEST_SUITE_P(Wires, DrainUnderLoad, ::testing::Values(Wire::kNative, Wire::kGrpc),
                         [](const auto& info) { return info.param == Wire::kGrpc ? "Grpc" : "Native"; });

TEST_P(DrainUnderLoad, TenThousandCallsInFlightAreAnsweredAndNoneRunsTwice) {
  const Wire wire = GetParam();
  // Byte by byte (os/io_limit.h) one will do.
  Simulate({.seeds = std::getenv("TROUPE_IO_BYTES_MAX") == nullptr ? kRounds : 1}, [wire](SimWorld& world) {
    Journals journals;
    SimHost& host = world.AddHost("server");
    world.kernel().SetDefaultLink({.latency = absl::Milliseconds(1), .jitter = absl::Milliseconds(20)});
    host.os().SetIoLimits({.recv_bytes_max = 20'000, .send_bytes_max = 20'000, .random = true});
    const ServerOptions options = {.listen = {"0.0.0.0:7400"}};
    Server server(host.loop(), options), successor(host.loop(), options);
    server.Add<Slow>(std::ref(journals));
    successor.Add<Slow>(std::ref(journals));
    ASSERT_OK(world.Run(host, server.Start()));

    bool over = false;
    std::vector<std::unique_ptr<Channel>> channels;
    std::vector<TaskHandle<void>> clients;
    std::vector<absl::Status> watches(kClientHosts * kChannelsPerHost);
    const char* const target = wire == Wire::kGrpc ? "server:7400" : "troupe+dns:///server:7400";
    for (int h = 0; h < kClientHosts; ++h) {
      EventLoop& loop = world.AddHost(absl::StrCat("client", h)).loop();
      for (int c = 0; c < kChannelsPerHost; ++c) {
        channels.push_back(std::make_unique<Channel>(loop, target));
        EchoStub echo(*channels.back());
        for (int i = 0; i < kCalls / kClientHosts / kChannelsPerHost; ++i) {
          // All of them last until after the drain has begun, none until it ends.
          clients.push_back(
              loop.CreateTask(CallOnce(echo, journals, journals.NewCall(), 3000 + (i * 7919 + c * 104729) % 17'000)));
        }
        clients.push_back(loop.CreateTask(Watch(echo, &watches[channels.size() - 1])));
      }
    }
    world.RunUntil([&] { return journals.begun == kCalls; });
    ASSERT_EQ(server.calls_in_flight(), size_t{kCalls} + watches.size());
    // From now on they press on, in every seed otherwise.
    for (size_t i = 0; i < channels.size(); ++i) {
      const auto pause = absl::Milliseconds(20 + 80 * ((i + world.seed()) % 5));
      clients.push_back(channels[i]->loop().CreateTask(KeepCalling(EchoStub(*channels[i]), journals, pause, over)));
    }
    world.RunFor(absl::Milliseconds(100 * (world.seed() % 10)));

    const MonotonicTime start = world.Now();
    server.Drain();
    // As in a rolling update, for every second seed another server takes over the address.
    if (world.seed() % 2 == 0) {
      ASSERT_OK(world.Run(host, successor.Start()));
    }
    world.Run(host, server.WaitClosed());
    EXPECT_LE(world.Now() - start, absl::Seconds(21)) << "the longest call takes 20 s";

    over = true;
    world.RunUntil([&] {
      for (const TaskHandle<void>& client : clients) {
        if (!client.done()) return false;
      }
      return true;
    });
    successor.Drain();
    world.Run(host, successor.WaitClosed());
    ExpectAgreement(journals);
    for (int i = 0; i < kCalls; ++i) ASSERT_EQ(*journals.lines[static_cast<size_t>(i)].outcome, absl::StatusCode::kOk);
    for (const absl::Status& watch : watches) ASSERT_THAT(watch, StatusIs(absl::StatusCode::kUnavailable));
  });
}

// ---- clients that do as they like

// Sends `bytes` when it is connected, reads nothing or everything, and never closes.
class Idler final : public Protocol {
 public:
  Idler(std::string bytes, bool reads) : bytes_(std::move(bytes)), reads_(reads) {}
  void ConnectionMade(Transport& transport) override {
    if (!reads_) transport.PauseReading();
    if (!bytes_.empty()) transport.Write(bytes_);
  }
  void DataReceived(absl::Span<const char>) override {}
  bool EofReceived() override { return true; }

 private:
  const std::string bytes_;
  const bool reads_;
};

// Never draining, never tired.
class Tireless final : public echo::v1::EchoActor {
 public:
  Task<absl::Status> Echo(const EchoRequest& request, EchoResponse& response, Call&) override {
    response.set_message(request.message());
    while (request.message() == "deaf") {
      try {
        co_await Sleep(absl::Hours(1));
      } catch (const Cancelled&) {  // will not hear of it
      }
    }
    if (request.message() == "long") co_await Sleep(absl::Hours(1));
    if (request.message() == "hello") co_await Sleep(absl::Seconds(20));
    co_return absl::OkStatus();
  }
  // More than anybody reads.
  Task<absl::Status> Expand(const ExpandRequest&, Writer<ExpandResponse> writer, Call&) override {
    ExpandResponse response;
    response.set_message(std::string(10'000, 'x'));
    while (true) {
      const bool more = co_await writer.Write(response);
      if (!more) co_return absl::CancelledError("the call is over");
    }
  }
  Task<absl::Status> Chat(Reader<ChatRequest> reader, Writer<ChatResponse>, Call&) override {
    ChatRequest request;
    while (true) {
      const bool more = co_await reader.Read(request);
      if (!more) co_return absl::OkStatus();
    }
  }
};

Task<void> ConnectIdler(EventLoop& loop, std::string bytes, bool reads, std::vector<TransportPtr>* transports) {
  ConnectOptions options;
  options.target = "server:7400";
  auto factory = [&]() -> std::unique_ptr<BaseProtocol> { return std::make_unique<Idler>(bytes, reads); };
  auto connecting = CreateConnection(loop, factory, options);
  auto made = co_await std::move(connecting);
  CO_ASSERT_OK(made.status());
  transports->push_back(std::move(made->transport));
}

Task<absl::Status> Say(EchoStub echo, std::string message) {
  EchoRequest request;
  request.set_message(std::move(message));
  const absl::StatusOr<EchoResponse> reply = co_await echo.Echo(request);
  co_return reply.status();
}

Task<void> SayAgainAndAgain(EchoStub echo, absl::Duration pause, const bool& over) {
  while (!over) {
    const absl::Status ignored = co_await Say(echo, "again");
    co_await Sleep(pause);
  }
}

// Returns how long it took.
absl::Duration WaitClosed(SimWorld& world, SimHost& host, Server& server) {
  const MonotonicTime start = world.Now();
  world.Run(host, server.WaitClosed());
  return world.Now() - start;
}

// What does not end by itself is cancelled after 25 s, what does not hear of that is destroyed 3 s later: before Kubernetes
// kills.
TEST(DrainTest, EndsInTimeWhateverTheClientsDo) {
  Simulate({.seeds = 50}, [](SimWorld& world) {
    SimHost& host = world.AddHost("server");
    SimHost& near = world.AddHost("near");
    SimHost& far = world.AddHost("far");
    world.kernel().SetDefaultLink({.latency = absl::Milliseconds(1), .jitter = absl::Milliseconds(20)});
    world.kernel().SetSendBufferBytes(4096);
    Server server(host.loop(), {.listen = {"0.0.0.0:7400"}});
    server.Add<Tireless>();
    ASSERT_OK(world.Run(host, server.Start()));

    std::vector<TransportPtr> idlers;
    const std::string magic = "\xf1TRP";
    for (const bool reads : {true, false}) {
      for (size_t bytes = 0; bytes <= magic.size(); bytes += 2) {
        world.Run(near, ConnectIdler(near.loop(), magic.substr(0, bytes), reads, &idlers));
      }
    }
    Channel good(near.loop(), "server:7400"), bad(near.loop(), "server:7400"), lost(far.loop(), "server:7400");
    bool over = false;
    auto finishes = near.loop().CreateTask(Say(EchoStub(good), "hello"));
    auto cancelled = near.loop().CreateTask(Say(EchoStub(bad), "long"));
    auto destroyed = near.loop().CreateTask(Say(EchoStub(bad), "deaf"));
    auto presses_on = near.loop().CreateTask(SayAgainAndAgain(EchoStub(bad), absl::Milliseconds(1), over));
    auto cut_off = far.loop().CreateTask(Say(EchoStub(lost), "hello"));
    const ExpandRequest request;
    auto unread = EchoStub(bad).Expand(request), unread_far = EchoStub(lost).Expand(request);
    auto silent = EchoStub(bad).Chat();
    world.RunFor(absl::Seconds(1));
    EXPECT_GE(server.calls_in_flight(), 7u);
    const bool heals = world.seed() % 2 == 0;
    world.Partition(host, far);
    if (heals) {
      world.kernel().After(absl::Seconds(10), [&] { world.Heal(host, far); });
    }

    server.Drain();
    EXPECT_LE(WaitClosed(world, host, server), absl::Seconds(28) + absl::Milliseconds(100));
    over = true;
    for (const TransportPtr& idler : idlers) idler->Abort();
    world.RunFor(absl::Seconds(1));
    ASSERT_TRUE(finishes.done());
    EXPECT_OK(finishes.result()) << "it had time enough";
    ASSERT_TRUE(cancelled.done() && destroyed.done());
    EXPECT_THAT(cancelled.result(), StatusIs(absl::StatusCode::kUnavailable));
    EXPECT_THAT(destroyed.result(), StatusIs(absl::StatusCode::kUnavailable));
    EXPECT_EQ(cut_off.done(), heals);
    if (heals) {
      EXPECT_OK(cut_off.result());
    }
    world.Heal(host, far);
    lost.Close();
    world.RunFor(absl::Seconds(10));
    EXPECT_TRUE(presses_on.done());
    ASSERT_TRUE(cut_off.done());
    if (!heals) {
      EXPECT_THAT(cut_off.result(), StatusIs(absl::StatusCode::kUnavailable));
    }
  });
}

class Large final : public echo::v1::EchoActor {
 public:
  Task<absl::Status> Echo(const EchoRequest&, EchoResponse& response, Call&) override {
    co_await Sleep(absl::Seconds(2));
    response.set_message(std::string(60'000, 'x'));
    co_return absl::OkStatus();
  }
};

TEST(DrainTest, ASlowClientGetsItsReply) {
  Simulate({.seeds = 20}, [](SimWorld& world) {
    SimHost& host = world.AddHost("server");
    SimHost& slow = world.AddHost("slow");
    // 4 KiB a second: three times as long as one lingers for a peer that takes nothing.
    world.kernel().SetDefaultLink({.latency = absl::Milliseconds(500), .jitter = absl::Milliseconds(20)});
    world.kernel().SetSendBufferBytes(4096);
    Server server(host.loop(), {.listen = {"0.0.0.0:7400"}});
    server.Add<Large>();
    ASSERT_OK(world.Run(host, server.Start()));
    Channel channel(slow.loop(), "server:7400");
    auto call = slow.loop().CreateTask(Say(EchoStub(channel), "hello"));
    world.RunUntil([&] { return server.calls_in_flight() == 1; });
    server.Drain();
    EXPECT_LE(WaitClosed(world, host, server), absl::Seconds(28) + absl::Milliseconds(100));
    world.RunFor(absl::Seconds(5));
    ASSERT_TRUE(call.done());
    EXPECT_OK(call.result());
  });
}

TEST(DrainTest, ASecondWordDoesNotWait) {
  SimWorld world;
  SimHost& host = world.AddHost("server");
  SimHost& near = world.AddHost("near");
  Server server(host.loop(), {.listen = {"0.0.0.0:7400"}});
  server.Add<Tireless>();
  ASSERT_OK(world.Run(host, server.Start()));
  Channel channel(near.loop(), "server:7400");
  auto call = near.loop().CreateTask(Say(EchoStub(channel), "long"));
  world.RunFor(absl::Seconds(1));
  server.Drain();
  world.RunFor(absl::Seconds(1));
  EXPECT_EQ(server.calls_in_flight(), 1u);
  server.Close();
  EXPECT_LE(WaitClosed(world, host, server), absl::Seconds(1));
  world.RunFor(absl::Seconds(1));
  ASSERT_TRUE(call.done());
  EXPECT_THAT(call.result(), StatusIs(absl::StatusCode::kUnavailable));
}

}  // namespace
}  // namespace troupe
