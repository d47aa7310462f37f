// How this test works: one stream over a link of 50 ms each way, timed by the simulated clock. With a window of 64 KiB a
// round trip 32 MiB would take fifty seconds.
#include <memory>
#include <string>
#include <utility>

#include "echo/v1/echo.troupe.h"
#include "gtest/gtest.h"
#include "troupe/service/channel.h"
#include "troupe/service/server.h"
#include "troupe/testing/matchers.h"
#include "troupe/testing/sim_world.h"

namespace troupe {
namespace {

using ::echo::v1::CollectRequest;
using ::echo::v1::CollectResponse;
using ::echo::v1::EchoStub;
using ::echo::v1::ExpandRequest;
using ::echo::v1::ExpandResponse;
using ::troupe::testing::SimHost;
using ::troupe::testing::SimWorld;

constexpr int kMessages = 1024;
constexpr size_t kMessageBytes = 32 << 10;

class Streams final : public echo::v1::EchoActor {
 public:
  Task<absl::Status> Expand(const ExpandRequest& request, Writer<ExpandResponse> writer, Call&) override {
    ExpandResponse response;
    response.set_message(request.message());
    for (int i = 0; i < request.count(); ++i) {
      const bool wrote = co_await writer.Write(response);
      if (!wrote) break;
    }
    co_return absl::OkStatus();
  }
  Task<absl::Status> Collect(Reader<CollectRequest> reader, CollectResponse& response, Call&) override {
    CollectRequest request;
    int count = 0;
    while (true) {
      const bool more = co_await reader.Read(request);
      if (!more) break;
      ++count;
    }
    response.add_messages(std::to_string(count));
    co_return absl::OkStatus();
  }
};

Task<int> Download(EchoStub echo) {
  ExpandRequest request;
  request.set_message(std::string(kMessageBytes, 'x'));
  request.set_count(kMessages);
  auto expand = echo.Expand(request);
  ExpandResponse response;
  int count = 0;
  while (true) {
    const bool more = co_await expand.Read(response);
    if (!more) break;
    ++count;
  }
  co_return count;
}

Task<std::string> Upload(EchoStub echo) {
  CollectRequest request;
  request.set_message(std::string(kMessageBytes, 'x'));
  auto collect = echo.Collect();
  for (int i = 0; i < kMessages; ++i) {
    const bool wrote = co_await collect.Write(request);
    if (!wrote) break;
  }
  absl::StatusOr<CollectResponse> got = co_await collect.Finish();
  if (!got.ok()) co_return got.status().ToString();
  co_return got->messages(0);
}

TEST(LongLinksTest, AStreamIsNotHeldToAWindowARoundTrip) {
  SimWorld world;
  SimHost& server_host = world.AddHost("server");
  SimHost& client_host = world.AddHost("client");
  world.kernel().SetDefaultLink({.latency = absl::Milliseconds(50)});
  world.kernel().SetSendBufferBytes(16 << 20);
  Server server(server_host.loop(), {.listen = {"0.0.0.0:7400"}});
  server.Add<Streams>();
  ASSERT_OK(world.Run(server_host, server.Start()));
  {
    Channel channel(client_host.loop(), "dns:///server:7400");
    MonotonicTime start = world.Now();
    EXPECT_EQ(world.Run(client_host, Download(EchoStub(channel))), kMessages);
    EXPECT_LT(world.Now() - start, absl::Seconds(5));
    start = world.Now();
    EXPECT_EQ(world.Run(client_host, Upload(EchoStub(channel))), std::to_string(kMessages));
    EXPECT_LT(world.Now() - start, absl::Seconds(5));
  }
  server.Close();
  world.Run(server_host, server.WaitClosed());
}

}  // namespace
}  // namespace troupe
