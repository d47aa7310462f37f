// Every sample that the documentation shows, compiled and run: server, client, test, simulation, bytes.
#include <csignal>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/run.h"
#include "troupe/async/sleep.h"
#include "troupe/base/errors.h"
#include "troupe/base/status_macros.h"
#include "troupe/net/connect.h"
#include "troupe/net/stream_server.h"
#include "troupe/service/channel.h"
#include "troupe/service/server.h"
#include "troupe/testing/in_process.h"
#include "troupe/testing/matchers.h"
#include "troupe/testing/samples/key_value_sample.h"
#include "troupe/testing/sim/sim_os.h"
#include "troupe/testing/sim_world.h"

using kv::v1::GetRequest;
using kv::v1::GetResponse;
using kv::v1::KeyValueService;
using kv::v1::KeyValueStub;
using kv::v1::LoadSummary;
using kv::v1::PutRequest;
using kv::v1::Store;
using kv::v1::WatchEvent;
using kv::v1::WatchRequest;
using troupe::testing::EqualsProto;
using troupe::testing::IsOkAndHolds;

namespace {

PutRequest MakePut(std::string key, std::string value) {
  PutRequest put;
  put.set_key(std::move(key));
  put.set_value(std::move(value));
  return put;
}
GetRequest MakeGet(std::string key) {
  GetRequest get;
  get.set_key(std::move(key));
  return get;
}

// ---------------------------------------------------------------------------------------------------- a server

troupe::Task<absl::Status> Main(troupe::EventLoop& loop) {
  Store store;
  troupe::Server server(loop, {.listen = {"0.0.0.0:7400"}});
  server.Add<kv::v1::KeyValueService>(std::ref(store));  // several services can share a port
  CO_RETURN_IF_ERROR(co_await server.Start());           // bound now; server.addresses() knows port 0's number
  co_return co_await server.ServeForever();              // the first SIGTERM or SIGINT drains and returns OK
}

TEST(Samples, AServerServesUntilItIsToldToEnd) {
  troupe::testing::SimOs os;
  os.kernel().After(absl::Seconds(1), [&os] { os.RaiseSignal(SIGTERM); });
  EXPECT_EQ(troupe::RunMain(os, Main), 0);
}

// ---------------------------------------------------------------------------------------------------- a client

troupe::Task<absl::Status> Client(troupe::EventLoop& loop, std::string target, std::vector<std::string>& log) {
  troupe::Channel channel(loop, target);  // also unix:, ipv4:, ipv6:
  KeyValueStub kv(channel);

  const std::vector<PutRequest> puts = {MakePut("x", "1"), MakePut("y", "2")};
  auto load = kv.Load();
  for (const PutRequest& put : puts) {
    if (!co_await load.Write(put)) break;  // false: the call is over
  }
  absl::StatusOr<LoadSummary> summary = co_await load.Finish();  // half-closes, then the reply
  CO_RETURN_IF_ERROR(summary.status());
  log.push_back("loaded " + std::to_string(summary->puts()));

  const GetRequest x = MakeGet("x"), y = MakeGet("y");
  troupe::Reply<GetResponse> a = kv.Get(x), b = kv.Get(y, {.timeout = absl::Milliseconds(50)});  // concurrent
  absl::StatusOr<GetResponse> got = co_await a;
  CO_RETURN_IF_ERROR(got.status());
  log.push_back("x = " + got->value());
  got = co_await b;
  CO_RETURN_IF_ERROR(got.status());
  log.push_back("y = " + got->value());

  WatchRequest watch_request;
  auto events = kv.Watch(watch_request);
  WatchEvent event;  // reused: no allocation per message
  co_await troupe::Sleep(absl::Milliseconds(10));
  const auto put = co_await kv.Put(puts[0]);
  CO_RETURN_IF_ERROR(put.status());
  while (co_await events.Read(event)) {
    log.push_back("watched " + event.key());
    events.Cancel();
  }
  absl::Status end = co_await events.Finish();  // [[nodiscard]]
  log.push_back(absl::StatusCodeToString(end.code()));
  co_return absl::OkStatus();
}

TEST(Samples, AClientLoadsGetsAndWatches) {
  troupe::testing::SimOs os;
  troupe::EventLoop loop(os);
  Store store;
  troupe::Server server(loop, {.listen = {"127.0.0.1:7400"}});
  server.Add<KeyValueService>(std::ref(store));
  ASSERT_OK(loop.RunUntilComplete(server.Start()));
  std::vector<std::string> log;
  EXPECT_OK(loop.RunUntilComplete(Client(loop, "dns:///localhost:7400", log)));
  EXPECT_THAT(log, testing::ElementsAre("loaded 2", "x = 1", "y = 2", "watched x", "CANCELLED"));
  server.Close();
  loop.RunUntilComplete(server.WaitClosed());
  loop.Close();
}

// ---------------------------------------------------------------------------------------------------- tests

const PutRequest put = MakePut("k", "v");
const GetRequest get = MakeGet("k");

// A test: no ports, no threads, no sleeping; the real session code over memory.
TEST(KeyValue, GetsWhatWasPut) {
  Store store;
  troupe::testing::InProcess<KeyValueService> kv(std::ref(store));
  ASSERT_OK(kv.Run(kv.stub().Put(put)));
  EXPECT_THAT(kv.Run(kv.stub().Get(get)), IsOkAndHolds(EqualsProto(R"pb(value: "v")pb")));
}

troupe::Task<std::vector<std::string>> WatchKeys(KeyValueStub kv, size_t count) {
  std::vector<std::string> keys;
  auto events = kv.Watch(WatchRequest());
  WatchEvent event;
  while (co_await events.Read(event)) {
    keys.push_back(event.key());
    if (keys.size() == count) break;
  }
  co_return keys;
}

troupe::Task<absl::Status> Put(KeyValueStub kv, std::string key) {
  const PutRequest request = MakePut(std::move(key), "v");
  const auto response = co_await kv.Put(request);
  co_return response.status();
}

// A simulation: hosts, a network that misbehaves, a clock that jumps; 200 seeds in seconds.
TEST(KeyValue, WatchSurvivesAPartition) {
  troupe::testing::Simulate({.seeds = 200}, [](troupe::testing::SimWorld& world) {
    troupe::testing::SimHost& server_host = world.AddHost("kv");
    troupe::testing::SimHost& watcher_host = world.AddHost("watcher");
    troupe::testing::SimHost& writer_host = world.AddHost("writer");
    world.kernel().SetDefaultLink({.latency = absl::Milliseconds(1), .jitter = absl::Milliseconds(10)});
    Store store;
    troupe::Server server(server_host.loop(), {.listen = {"0.0.0.0:7400"}});
    server.Add<KeyValueService>(std::ref(store));
    ASSERT_OK(world.Run(server_host, server.Start()));

    troupe::Channel watcher(watcher_host.loop(), "kv:7400");
    troupe::Channel writer(writer_host.loop(), "kv:7400");
    auto watching = watcher_host.loop().CreateTask(WatchKeys(KeyValueStub(watcher), 2));
    world.RunFor(absl::Seconds(1));
    EXPECT_OK(world.Run(writer_host, Put(KeyValueStub(writer), "before")));
    world.Partition(server_host, watcher_host);
    EXPECT_OK(world.Run(writer_host, Put(KeyValueStub(writer), "during")));
    world.RunFor(absl::Seconds(30));
    world.Heal(server_host, watcher_host);
    world.RunFor(absl::Seconds(1));
    ASSERT_TRUE(watching.done());
    EXPECT_THAT(watching.result(), testing::ElementsAre("before", "during"));
    server.Close();
    world.Run(server_host, server.WaitClosed());
  });
}

// ---------------------------------------------------------------------------------------------------- bytes

// Bytes, when a protocol is not protobuf: asyncio's Protocol, the same loop and server.
class Echo final : public troupe::Protocol {
  void DataReceived(absl::Span<const char> data) override { transport().Write(data); }
};

class Client1 final : public troupe::Protocol {
 public:
  explicit Client1(std::string& got) : got_(got) {}
  void ConnectionMade(troupe::Transport& transport) override { transport.Write("hello"); }
  void DataReceived(absl::Span<const char> data) override {
    got_.append(data.data(), data.size());
    if (got_.size() == 5) transport().Close();
  }

 private:
  std::string& got_;
};

troupe::Task<absl::Status> EchoBytes(troupe::EventLoop& loop, std::string& got) {
  troupe::StreamServerOptions options{.listen = {"[::1]:7000"}};  // named first: g++ 12
  auto server = co_await troupe::CreateServer(loop, [] { return std::make_unique<Echo>(); }, options);
  CO_RETURN_IF_ERROR(server.status());
  auto factory = [&got] { return std::make_unique<Client1>(got); };
  auto connection = co_await troupe::CreateConnection(loop, factory, {.target = "[::1]:7000"});
  CO_RETURN_IF_ERROR(connection.status());
  co_await connection->transport->Closed();
  (*server)->Close();
  co_await (*server)->WaitClosed();
  co_return absl::OkStatus();
}

TEST(Samples, ABareProtocolEchoes) {
  troupe::testing::SimOs os;
  troupe::EventLoop loop(os);
  std::string got;
  EXPECT_OK(loop.RunUntilComplete(EchoBytes(loop, got)));
  EXPECT_EQ(got, "hello");
  loop.Close();
}

// The generated protocol on the bare loop: an actor without a Server.
troupe::Task<absl::Status> HostProtocol(troupe::EventLoop& loop, Store& store) {
  troupe::StreamServerOptions options{.listen = {"[::1]:7000"}};
  auto factory = [&store] {
    return std::make_unique<kv::v1::KeyValueProtocol>(std::make_unique<KeyValueService>(store));
  };
  auto server = co_await troupe::CreateServer(loop, factory, options);
  CO_RETURN_IF_ERROR(server.status());
  {
    troupe::Channel channel(loop, "[::1]:7000");
    KeyValueStub kv(channel);
    const auto stored = co_await kv.Put(put);
    CO_RETURN_IF_ERROR(stored.status());
    const absl::StatusOr<GetResponse> got = co_await kv.Get(get);
    CO_RETURN_IF_ERROR(got.status());
  }
  (*server)->Close();
  co_await (*server)->WaitClosed();
  co_return absl::OkStatus();
}

TEST(Samples, AGeneratedProtocolIsHostedByTheBareLoop) {
  troupe::testing::SimOs os;
  troupe::EventLoop loop(os);
  Store store;
  EXPECT_OK(loop.RunUntilComplete(HostProtocol(loop, store)));
  EXPECT_EQ(store.values["k"], "v");
  loop.Close();
}

}  // namespace
