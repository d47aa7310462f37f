// The two ends of the scenarios of byte protocols: a server that says everything again, and clients that hear it.
#ifndef TROUPE_TESTING_FAULTS_ECHO_ENDS_H_
#define TROUPE_TESTING_FAULTS_ECHO_ENDS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "troupe/base/socket_address.h"
#include "troupe/net/connect.h"
#include "troupe/net/stream_server.h"
#include "troupe/net/transport.h"
#include "troupe/testing/faults/stage.h"

namespace troupe::testing {

using MadeServer = absl::StatusOr<std::unique_ptr<StreamServer>>;
using MadeConnection = absl::StatusOr<Connected<>>;

// REQUIRES: it can be parsed.
SocketAddress Address(absl::string_view text);

// What says everything again.
Script Echoing();

// A server on the server's machine; made once more if it cannot be at first. Its connections are Echoing() unless
// `script` says otherwise.
std::unique_ptr<StreamServer> Serve(Stage& stage, const StreamServerOptions& options, const Script& script = Echoing());
std::unique_ptr<StreamServer> ServeOn(Stage& stage, std::vector<std::string> listen);
// Closes it as one does, and waits for the last connection.
void CloseServer(Stage& stage, StreamServer& server);

// What a client has.
struct Client {
  TransportPtr transport;
  Life* life = nullptr;
  std::shared_ptr<std::string> received = std::make_shared<std::string>();  // shared with its protocol

  // Or never will.
  bool Heard(absl::string_view text) const { return life->lost() || *received == text; }
};

// A protocol of a client to be.
std::unique_ptr<BaseProtocol> NewClientProtocol(Stage& stage, Client& client);
// Tried a second time if it fails.
Client Connect(Stage& stage, SimHost& host, const ConnectOptions& options);
Client ConnectTo(Stage& stage, SimHost& host, absl::string_view target);

// Says `text`, hears it, and says goodbye.
void Converse(Stage& stage, Client& client, const std::string& text);
// After a fault everything works as before.
void ExpectServed(Stage& stage, SimHost& host, const SocketAddress& address);

}  // namespace troupe::testing

#endif  // TROUPE_TESTING_FAULTS_ECHO_ENDS_H_
