#include "troupe/testing/faults/echo_ends.h"

#include <utility>

#include "absl/types/span.h"
#include "troupe/loop/event_loop.h"
#include "troupe/net/protocol.h"

namespace troupe::testing {

SocketAddress Address(absl::string_view text) { return *SocketAddress::Parse(text); }

Script Echoing() {
  Script script;
  script.data = [](Transport& transport, absl::Span<const char> data) { transport.Write(data); };
  return script;
}

std::unique_ptr<StreamServer> Serve(Stage& stage, const StreamServerOptions& options, const Script& script) {
  EventLoop& loop = stage.server().loop();
  const auto make = [&] {
    auto factory = [&stage, script]() -> std::unique_ptr<BaseProtocol> { return stage.NewProtocol("served", script); };
    return CreateServer(loop, factory, options);
  };
  MadeServer server = stage.Try(stage.server(), "serve", make);
  return *std::move(server);
}

std::unique_ptr<StreamServer> ServeOn(Stage& stage, std::vector<std::string> listen) {
  StreamServerOptions options;
  options.listen = std::move(listen);
  return Serve(stage, options);
}

void CloseServer(Stage& stage, StreamServer& server) {
  server.Close();
  server.CloseConnections();
  stage.Run(stage.server(), server.WaitClosed());
}

std::unique_ptr<BaseProtocol> NewClientProtocol(Stage& stage, Client& client) {
  Script script;
  script.data = [received = client.received](Transport&, absl::Span<const char> data) {
    received->append(data.data(), data.size());
  };
  client.life = &stage.NewLife("client");
  return stage.NewProtocol(*client.life, std::move(script));
}

Client Connect(Stage& stage, SimHost& host, const ConnectOptions& options) {
  Client client;
  const auto make = [&] {
    auto factory = [&] { return NewClientProtocol(stage, client); };
    return CreateConnection(host.loop(), factory, options);
  };
  MadeConnection connected = stage.Try(host, "connect", make);
  client.transport = std::move(connected->transport);
  return client;
}

Client ConnectTo(Stage& stage, SimHost& host, absl::string_view target) {
  ConnectOptions options;
  options.target = target;
  return Connect(stage, host, options);
}

void Converse(Stage& stage, Client& client, const std::string& text) {
  client.transport->Write(text);
  stage.RunUntil([&] { return client.Heard(text); });
  if (client.transport->CanWriteEof()) {
    client.transport->WriteEof();
  } else {
    client.transport->Close();
  }
  stage.RunUntil([&] { return client.life->lost(); });
  if (stage.cut_short() && client.transport->tls() == nullptr) return;
  if (client.life->reason().ok() && !stage.AnyLostByError()) stage.Expect(*client.received == text, "bytes were lost");
}

void ExpectServed(Stage& stage, SimHost& host, const SocketAddress& address) {
  const bool spent = stage.spent();
  ConnectOptions options;
  options.address = address;
  Client later = Connect(stage, host, options);
  Converse(stage, later, "later");
  if (spent) stage.Expect(*later.received == "later", "nobody serves any more");
}

}  // namespace troupe::testing
