#include "troupe/testing/faults/datagram_scenarios.h"

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "troupe/base/socket_address.h"
#include "troupe/net/datagram.h"

namespace troupe::testing {
namespace {

using OnDatagram = std::function<void(DatagramTransport&, absl::Span<const char>, const SocketAddress&)>;

class ScriptedDatagrams final : public DatagramProtocol {
 public:
  ScriptedDatagrams(Life& life, OnDatagram on_datagram)
      : life_(life), token_(life.Token()), on_datagram_(std::move(on_datagram)) {}
  void ConnectionMade(DatagramTransport&) override { life_.Made(); }
  void DatagramReceived(absl::Span<const char> data, const SocketAddress& from) override {
    life_.Heard("DatagramReceived");
    on_datagram_(transport(), data, from);
  }
  void ErrorReceived(const absl::Status&) override { life_.Heard("ErrorReceived"); }
  void PauseWriting() override { life_.Heard("PauseWriting"); }
  void ResumeWriting() override { life_.Heard("ResumeWriting"); }
  void ConnectionLost(const absl::Status& reason) override { life_.Lost(reason); }

 private:
  Life& life_;
  const std::shared_ptr<int> token_;
  const OnDatagram on_datagram_;
};

struct Endpoint {
  DatagramTransportPtr transport;
  Life* life = nullptr;
};

Endpoint Open(Stage& stage, SimHost& host, const char* name, const DatagramOptions& options,
              const OnDatagram& on_datagram) {
  Endpoint endpoint;
  const auto make = [&] {
    auto factory = [&]() -> std::unique_ptr<DatagramProtocol> {
      endpoint.life = &stage.NewLife(name);
      return std::make_unique<ScriptedDatagrams>(*endpoint.life, on_datagram);
    };
    return CreateDatagramEndpoint(host.loop(), factory, options);
  };
  absl::StatusOr<DatagramEndpoint<DatagramProtocol>> opened = stage.Try(host, name, make);
  endpoint.transport = std::move(opened->transport);
  return endpoint;
}

// Two ends talk. What is lost is said again, as everybody does who uses datagrams.
void Talk(Stage& stage, SimHost& client_host, const DatagramOptions& served, const DatagramOptions& asking) {
  Endpoint server = Open(stage, stage.server(), "served", served,
                         [](DatagramTransport& transport, absl::Span<const char> data, const SocketAddress& from) {
                           transport.SendTo(data, from);
                         });
  int answers = 0;
  Endpoint client = Open(stage, client_host, "client", asking,
                         [&answers](DatagramTransport&, absl::Span<const char> data, const SocketAddress&) {
                           if (absl::string_view(data.data(), data.size()) == "hello") ++answers;
                         });
  const auto over = [&] { return client.life->lost() || server.life->lost(); };
  for (int i = 0; i < 100 && answers < 2 && !over(); ++i) {
    client.transport->SendTo("hello");
    stage.RunFor(absl::Milliseconds(100));
  }
  stage.Expect(answers >= 2 || over(), "ten seconds without an answer");
  client.transport->PauseReading();
  client.transport->ResumeReading();
  for (Endpoint* endpoint : {&client, &server}) {
    endpoint->transport->Close();
    stage.RunUntil([&] { return endpoint->life->lost(); });
  }
}

void Udp(Stage& stage) {
  DatagramOptions served;
  served.local = "0.0.0.0:7000";
  DatagramOptions asking;
  asking.remote = "server:7000";
  asking.family = 2;  // AF_INET: the server has no other
  Talk(stage, stage.client(), served, asking);
}

void UdpFromAnAddress(Stage& stage) {
  DatagramOptions served;
  served.local = "[::]:7000";
  served.reuse_port = true;
  DatagramOptions asking;
  asking.local = "[fd00::2]:5000";
  asking.remote = "[fd00::1]:7000";
  asking.allow_broadcast = true;
  Talk(stage, stage.client(), served, asking);
}

void UnixDatagrams(Stage& stage) {
  DatagramOptions served;
  served.local = "unix:/run/served.sock";
  DatagramOptions asking;
  asking.local = "unix-abstract:asking";
  asking.remote = "unix:/run/served.sock";
  Talk(stage, stage.server(), served, asking);
}

}  // namespace

std::vector<Scenario> DatagramScenarios() {
  return {
      {"datagrams", Udp},
      {"datagrams_from_an_address", UdpFromAnAddress},
      {"unix_datagrams", UnixDatagrams},
  };
}

}  // namespace troupe::testing
