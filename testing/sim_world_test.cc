// A server and a client on two simulated hosts, with the network in between at the test's mercy.
#include "troupe/testing/sim_world.h"

#include <string>
#include <utility>
#include <vector>

#include "echo/v1/echo.troupe.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/sleep.h"
#include "troupe/base/errors.h"
#include "troupe/service/channel.h"
#include "troupe/service/server.h"
#include "troupe/testing/matchers.h"

namespace troupe::testing {
namespace {

using ::echo::v1::EchoRequest;
using ::echo::v1::EchoResponse;
using ::echo::v1::EchoStub;

class Echoes final : public echo::v1::EchoActor {
 public:
  Task<absl::Status> Echo(const EchoRequest& request, EchoResponse& response, Call&) override {
    co_await Sleep(absl::Milliseconds(5));
    response.set_message(request.message());
    co_return absl::OkStatus();
  }
};

Task<absl::StatusOr<EchoResponse>> Echo(EchoStub echo, absl::Duration timeout) {
  EchoRequest request;
  request.set_message("hello");
  absl::StatusOr<EchoResponse> got = co_await echo.Echo(request, {.timeout = timeout});
  co_return got;
}

TEST(SimWorldTest, ACallSurvivesAPartitionThatIsShorterThanItsDeadline) {
  Simulate({.seeds = 50}, [](SimWorld& world) {
    SimHost& server_host = world.AddHost("server");
    SimHost& client_host = world.AddHost("client");
    world.kernel().SetDefaultLink({.latency = absl::Milliseconds(1), .jitter = absl::Milliseconds(20)});
    server_host.os().SetIoLimits({.recv_bytes_max = 7, .send_bytes_max = 5, .random = true});
    Server server(server_host.loop(), {.listen = {"0.0.0.0:7400"}});
    server.Add<Echoes>();
    ASSERT_OK(world.Run(server_host, server.Start()));
    Channel channel(client_host.loop(), "dns:///server:7400");
    EchoStub echo(channel);
    EXPECT_OK(world.Run(client_host, Echo(echo, absl::Seconds(5))));

    world.Partition(server_host, client_host);
    const MonotonicTime start = world.Now();
    EXPECT_THAT(world.Run(client_host, Echo(echo, absl::Seconds(5))), StatusIs(absl::StatusCode::kDeadlineExceeded));
    EXPECT_EQ(world.Now() - start, absl::Seconds(5));
    auto waits = client_host.loop().CreateTask(Echo(echo, absl::Minutes(1)));
    world.RunFor(absl::Seconds(30));
    EXPECT_FALSE(waits.done());
    world.Heal(server_host, client_host);
    world.RunFor(absl::Seconds(2));
    ASSERT_TRUE(waits.done());
    EXPECT_OK(waits.result());

    server.Drain();
    world.Run(server_host, server.WaitClosed());
  });
}

TEST(SimWorldTest, AWorldInWhichNothingCanHappenSaysWhoWaits) {
  SimWorld world;
  SimHost& host = world.AddHost("lonely");
  Promise<void> never(host.loop());
  auto wait = [](Future<void> future) -> Task<void> { co_await std::move(future); };
  try {
    world.Run(host, wait(never.future()));
    FAIL() << "it should have been noticed";
  } catch (const InvalidState& stalled) {
    EXPECT_THAT(stalled.what(), ::testing::AllOf(::testing::HasSubstr("lonely"), ::testing::HasSubstr("simulated")));
  }
  world.RunFor(absl::Seconds(1));
  never.SetValue();
  world.RunFor(absl::Seconds(1));
}

TEST(SimWorldTest, TheSameSeedGivesTheSameTraceAndAnotherSeedAnother) {
  const auto run = [](uint64_t seed) {
    SimWorld world(seed);
    SimHost& a = world.AddHost("a");
    SimHost& b = world.AddHost("b");
    world.kernel().SetDefaultLink({.latency = absl::Milliseconds(1), .jitter = absl::Milliseconds(20)});
    Server server(a.loop(), {.listen = {"0.0.0.0:7400"}});
    server.Add<Echoes>();
    EXPECT_OK(world.Run(a, server.Start()));
    Channel channel(b.loop(), "a:7400");
    for (int i = 0; i < 5; ++i) EXPECT_OK(world.Run(b, Echo(EchoStub(channel), absl::Seconds(5))));
    server.Close();
    world.Run(a, server.WaitClosed());
    return world.TraceHash();
  };
  EXPECT_EQ(run(1), run(1));
  EXPECT_NE(run(1), run(2));
}

}  // namespace
}  // namespace troupe::testing
