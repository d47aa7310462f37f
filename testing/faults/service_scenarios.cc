#include "troupe/testing/faults/service_scenarios.h"

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "echo/v1/echo.troupe.h"
#include "services/echo/echo_service.h"
#include "troupe/async/sleep.h"
#include "troupe/async/task.h"
#include "troupe/base/status_macros.h"
#include "troupe/rpc/call.h"
#include "troupe/rpc/connection.h"
#include "troupe/rpc/stream.h"
#include "troupe/service/channel.h"
#include "troupe/service/server.h"
#include "troupe/testing/faults/tls_contexts.h"

namespace troupe::testing {
namespace {

using ::echo::v1::ChatRequest;
using ::echo::v1::ChatResponse;
using ::echo::v1::CollectRequest;
using ::echo::v1::CollectResponse;
using ::echo::v1::EchoRequest;
using ::echo::v1::EchoResponse;
using ::echo::v1::EchoStub;
using ::echo::v1::ExpandRequest;
using ::echo::v1::ExpandResponse;

// The echo service, with a life. Echo takes a second for what begins with "slow".
class Echoes final : public echo::v1::EchoActor {
 public:
  explicit Echoes(Stage& stage) : life_(stage.NewLife("actor")), token_(life_.Token()) {}

  void ConnectionMade(Connection&) override { life_.Made(); }
  bool EofReceived() override {
    life_.Heard("EofReceived");
    return EchoActor::EofReceived();
  }
  void ConnectionLost(const absl::Status& reason) override { life_.Lost(reason); }

  Task<absl::Status> Echo(const EchoRequest& request, EchoResponse& response, Call& call) override {
    life_.Heard("Echo");
    if (request.message().rfind("slow", 0) == 0) co_await Sleep(absl::Seconds(1));
    co_return co_await echo_.Echo(request, response, call);
  }
  Task<absl::Status> Expand(const ExpandRequest& request, Writer<ExpandResponse> responses, Call& call) override {
    return echo_.Expand(request, std::move(responses), call);
  }
  Task<absl::Status> Collect(Reader<CollectRequest> requests, CollectResponse& response, Call& call) override {
    return echo_.Collect(std::move(requests), response, call);
  }
  Task<absl::Status> Chat(Reader<ChatRequest> requests, Writer<ChatResponse> responses, Call& call) override {
    return echo_.Chat(std::move(requests), std::move(responses), call);
  }

 private:
  Life& life_;
  const std::shared_ptr<int> token_;
  echo::v1::EchoService echo_;
};

absl::Status Wrong(absl::string_view what) { return absl::DataLossError(absl::StrCat("not what was said: ", what)); }

Task<absl::Status> Echo(EchoStub echo, std::string text, absl::Duration timeout = absl::InfiniteDuration()) {
  EchoRequest request;
  request.set_message(text);
  const absl::StatusOr<EchoResponse> got = co_await echo.Echo(request, {.timeout = timeout});
  if (!got.ok()) co_return got.status();
  co_return got->message() == text ? absl::OkStatus() : Wrong("Echo");
}

Task<absl::Status> Expand(EchoStub echo) {
  ExpandRequest request;
  request.set_message("hello");
  request.set_count(5);
  auto responses = echo.Expand(request);
  ExpandResponse response;
  int count = 0;
  while (true) {
    const bool more = co_await responses.Read(response);
    if (!more) break;
    ++count;
  }
  const absl::Status end = co_await responses.Finish();
  co_return end.ok() && count != 5 ? Wrong("Expand") : end;
}

Task<absl::Status> Collect(EchoStub echo) {
  auto requests = echo.Collect();
  CollectRequest request;
  for (int i = 0; i < 5; ++i) {
    request.set_message(absl::StrCat("message ", i));
    const bool sent = co_await requests.Write(request);
    if (!sent) break;
  }
  const absl::StatusOr<CollectResponse> got = co_await requests.Finish();
  if (!got.ok()) co_return got.status();
  co_return got->messages_size() == 5 ? absl::OkStatus() : Wrong("Collect");
}

Task<absl::Status> Chat(EchoStub echo) {
  auto chat = echo.Chat();
  ChatRequest request;
  ChatResponse response;
  int answers = 0;
  for (int i = 0; i < 3; ++i) {
    request.set_message(absl::StrCat("message ", i));
    const bool sent = co_await chat.Write(request);
    if (!sent) break;
    const bool answered = co_await chat.Read(response);
    if (!answered || response.message() != request.message()) break;
    ++answers;
  }
  chat.WritesDone();
  const absl::Status end = co_await chat.Finish();
  co_return end.ok() && answers != 3 ? Wrong("Chat") : end;
}

// A call beside others, noted.
Task<void> Beside(Stage& stage, std::string what, Task<absl::Status> call) {
  const absl::Status end = co_await std::move(call);
  stage.Answered(what, end);
}
void StartCall(Stage& stage, const std::string& what, Task<absl::Status> call) {
  stage.Asked(what);
  stage.client().loop().CreateTask(Beside(stage, what, std::move(call)), what);
}

// A server that has started, and a channel to it.
struct World {
  Stage& stage;
  Server& server;
  Channel& channel;
  EchoStub echo{channel};

  // One call ends with whatever a fault makes of it; the one after that must be OK.
  template <class MakeCall>
  void Try(absl::string_view what, MakeCall make) {
    bool again = false;
    stage.Try(stage.client(), what, [&] {
      // A channel that could not connect does not try again at once.
      if (std::exchange(again, true)) stage.RunFor(absl::Seconds(5));
      return make();
    });
  }
  void CloseServer() {
    server.Close();
    stage.Run(stage.server(), server.WaitClosed());
  }
};

// What the calls go over.
struct Carrier {
  Wire wire = Wire::kNative;
  bool tls = false;
};

// Sets the world up, runs `scenario` in it, and lets both ends go in good order.
std::function<void(Stage&)> InWorld(void (*scenario)(World&), Carrier carrier) {
  return [scenario, carrier](Stage& stage) {
    ServerOptions options;
    options.listen = {"0.0.0.0:7400"};
    ChannelOptions channel_options;
    channel_options.wire = carrier.wire;
    if (carrier.tls) {
      options.tls = TlsServerContext();
      channel_options.tls = TlsClientContext();
    }
    Server server(stage.server().loop(), options);
    server.Add<Echoes>(std::ref(stage));
    stage.Try(stage.server(), "start", [&] { return server.Start(); });
    {
      Channel channel(stage.client().loop(), "dns:///server:7400", channel_options);
      World world{stage, server, channel};
      scenario(world);
      channel.Close();
      stage.RunFor(absl::Milliseconds(100));
    }
    server.Close();
    stage.Run(stage.server(), server.WaitClosed());
  };
}

void Unary(World& world) {
  for (int i = 0; i < 2; ++i) world.Try("Echo", [&] { return Echo(world.echo, "hello"); });
}
void ServerStream(World& world) {
  world.Try("Expand", [&] { return Expand(world.echo); });
}
void ClientStream(World& world) {
  world.Try("Collect", [&] { return Collect(world.echo); });
}
void BidirectionalStream(World& world) {
  world.Try("Chat", [&] { return Chat(world.echo); });
}

// Messages that sockets do not take at once.
void LargeMessages(World& world) {
  world.Try("Echo", [&] { return Echo(world.echo, std::string(100'000, 'x')); });
}

// A call that is over before it is answered, and one beside it.
void Deadline(World& world) {
  StartCall(world.stage, "slow Echo", Echo(world.echo, "slow"));
  const absl::Status end = world.stage.Run(world.stage.client(), "Echo with a deadline",
                                           Echo(world.echo, "slow too", absl::Milliseconds(100)));
  world.stage.Expect(!end.ok(), "a call outlived its deadline");
  world.stage.RunFor(absl::Seconds(2));
  world.Try("Echo", [&] { return Echo(world.echo, "hello"); });
}

Task<absl::Status> InSession(Channel& channel) {
  absl::StatusOr<OpenedSession<EchoStub>> session = co_await channel.OpenSession<EchoStub>();
  if (!session.ok()) co_return session.status();
  CO_RETURN_IF_ERROR(co_await Echo(session->stub(), "hello"));
  const absl::Status end = co_await Chat(session->stub());
  session->Close();
  co_return end;
}
void Session(World& world) {
  world.Try("session", [&] { return InSession(world.channel); });
}

// Calls of every kind are in flight when the server drains: each ends, and so does the drain.
void Drain(World& world) {
  Stage& stage = world.stage;
  for (int i = 0; i < 3; ++i) StartCall(stage, "slow Echo", Echo(world.echo, absl::StrCat("slow ", i)));
  StartCall(stage, "Expand", Expand(world.echo));
  StartCall(stage, "Collect", Collect(world.echo));
  StartCall(stage, "Chat", Chat(world.echo));
  stage.RunFor(absl::Milliseconds(500));
  world.server.Drain();
  stage.Run(stage.server(), world.server.WaitClosed());
  stage.RunFor(absl::Seconds(1));
}

// The server goes at once, with calls in flight.
void ServerCloses(World& world) {
  Stage& stage = world.stage;
  StartCall(stage, "slow Echo", Echo(world.echo, "slow"));
  stage.RunFor(absl::Milliseconds(500));
  world.CloseServer();
  stage.RunFor(absl::Seconds(1));
}

// The client goes at once, with a call in flight.
void ClientCloses(World& world) {
  Stage& stage = world.stage;
  StartCall(stage, "slow Echo", Echo(world.echo, "slow"));
  stage.RunFor(absl::Milliseconds(500));
  world.channel.Close();
  stage.RunFor(absl::Seconds(2));
}

}  // namespace

std::vector<Scenario> ServiceScenarios() {
  const std::pair<const char*, Carrier> carriers[] = {
      {"", {}},
      {"_tls", {.tls = true}},
      {"_grpc", {.wire = Wire::kGrpc}},
      {"_grpc_tls", {.wire = Wire::kGrpc, .tls = true}},
  };
  const std::pair<const char*, void (*)(World&)> scenarios[] = {
      {"unary_call", Unary},
      {"server_stream", ServerStream},
      {"client_stream", ClientStream},
      {"bidirectional_stream", BidirectionalStream},
      {"large_messages", LargeMessages},
      {"deadline", Deadline},
      {"drain", Drain},
      {"server_closes", ServerCloses},
      {"client_closes", ClientCloses},
  };
  std::vector<Scenario> all = {
      {"session", InWorld(Session, {})},
      {"session_tls", InWorld(Session, {.tls = true})},
  };
  for (const auto& [suffix, carrier] : carriers) {
    for (const auto& [name, scenario] : scenarios) {
      all.push_back({absl::StrCat(name, suffix), InWorld(scenario, carrier)});
    }
  }
  return all;
}

}  // namespace troupe::testing
