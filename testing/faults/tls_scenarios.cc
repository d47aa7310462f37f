#include "troupe/testing/faults/tls_scenarios.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "troupe/async/task.h"
#include "troupe/net/connect.h"
#include "troupe/net/stream_server.h"
#include "troupe/net/tls.h"
#include "troupe/net/transport.h"
#include "troupe/testing/faults/echo_ends.h"
#include "troupe/testing/faults/tls_contexts.h"

namespace troupe::testing {
namespace {

std::unique_ptr<StreamServer> ServeTls(Stage& stage) {
  StreamServerOptions options;
  options.listen = {"0.0.0.0:7000"};
  options.tls = &TlsServerContext();
  return Serve(stage, options);
}

Client ConnectTls(Stage& stage) {
  ConnectOptions options;
  options.target = "server:7000";
  options.tls = &TlsClientContext();
  return Connect(stage, stage.client(), options);
}

// The client ends it; then another connection, which a fault of the first leaves alone.
void ConnectAndServe(Stage& stage) {
  const auto server = ServeTls(stage);
  Client client = ConnectTls(stage);
  Converse(stage, client, "hello");
  const bool spent = stage.spent();
  Client later = ConnectTls(stage);
  Converse(stage, later, "later");
  if (spent) stage.Expect(*later.received == "later", "nobody serves any more");
  CloseServer(stage, *server);
}

// The server ends it.
void ServerCloses(Stage& stage) {
  const auto server = ServeTls(stage);
  Client client = ConnectTls(stage);
  client.transport->Write("hello");
  stage.RunUntil([&] { return client.Heard("hello"); });
  CloseServer(stage, *server);
  stage.RunUntil([&] { return client.life->lost(); });
}

// More than sockets and records hold, to an end that stops reading for a while.
void FlowControl(Stage& stage) {
  stage.world().kernel().SetSendBufferBytes(20'000);
  const auto server = ServeTls(stage);
  Client client = ConnectTls(stage);
  const std::string much(60'000, 'x');
  client.transport->PauseReading();
  client.transport->Write(much);
  stage.RunFor(absl::Milliseconds(100));
  client.transport->ResumeReading();
  stage.RunUntil([&] { return client.Heard(much); });
  client.transport->Close();
  stage.RunUntil([&] { return client.life->lost(); });
  CloseServer(stage, *server);
}

Task<void> Upgrading(Stage& stage, Task<absl::StatusOr<Transport*>> starting) {
  const absl::StatusOr<Transport*> secured = co_await std::move(starting);
  stage.Answered("server's upgrade", secured.status());
}

// Both ends of a connection that begins in clear text.
void StartsTls(Stage& stage) {
  StreamServerOptions options;
  options.listen = {"0.0.0.0:7000"};
  Script script;
  script.data = [&stage, clear = std::make_shared<std::string>()](Transport& transport, absl::Span<const char> data) {
    if (*clear == "please") return transport.Write(data);
    clear->append(data.data(), data.size());
    if (*clear != "please") return;
    transport.Write("go ahead");
    stage.Asked("server's upgrade");
    stage.server().loop().CreateTask(Upgrading(stage, StartTls(transport, TlsServerContext())));
  };
  const auto server = Serve(stage, options, script);
  Client client = ConnectTo(stage, stage.client(), "server:7000");
  client.transport->Write("please");
  stage.RunUntil([&] { return client.Heard("go ahead"); });
  if (!client.life->lost()) {
    client.received->clear();
    StartTlsOptions whom;
    whom.server_hostname = "server";
    auto starting = StartTls(std::move(client.transport), TlsClientContext(), whom);
    absl::StatusOr<TransportPtr> secured = stage.Run(stage.client(), "client's upgrade", std::move(starting));
    if (secured.ok()) {
      client.transport = *std::move(secured);
      Converse(stage, client, "secret");
    }
    stage.RunUntil([&] { return client.life->lost(); });
  }
  CloseServer(stage, *server);
}

}  // namespace

std::vector<Scenario> TlsScenarios() {
  return {
      {"tls_connect_and_serve", ConnectAndServe},
      {"tls_server_closes", ServerCloses},
      {"tls_flow_control", FlowControl},
      {"start_tls", StartsTls},
  };
}

}  // namespace troupe::testing
