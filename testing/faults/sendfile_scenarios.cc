#include "troupe/testing/faults/sendfile_scenarios.h"

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "troupe/async/blocking.h"
#include "troupe/async/task.h"
#include "troupe/base/errors.h"
#include "troupe/base/os_error.h"
#include "troupe/net/connect.h"
#include "troupe/net/sendfile.h"
#include "troupe/net/stream_server.h"
#include "troupe/net/tls_context.h"
#include "troupe/net/transport.h"
#include "troupe/os/os.h"
#include "troupe/testing/faults/echo_ends.h"
#include "troupe/testing/faults/tls_contexts.h"

namespace troupe::testing {
namespace {

Task<absl::StatusOr<int>> OpenFile(Os& os) {
  auto open = [&os] { return os.OpenFile("/srv/file"); };
  try {
    const int fd = co_await Blocking(open);
    if (fd < 0) co_return OsError(fd, "open /srv/file");
    co_return fd;
  } catch (const StatusError& error) {
    co_return error.status();
  }
}

// Sends the file; where that fails the connection is of no use any more.
Task<void> Sending(Stage& stage, StreamServer* const& server, Task<absl::StatusOr<int64_t>> sending) {
  const absl::StatusOr<int64_t> sent = co_await std::move(sending);
  stage.Answered("sendfile", sent.status());
  if (!sent.ok() && server != nullptr) server->AbortConnections();
}

// A client asks for a file and gets it.
void SendTo(Stage& stage, const TlsContext* server_tls, const TlsContext* client_tls) {
  const std::string contents(100'000, 'f');
  SimOs& os = stage.server().os();
  os.AddFile("/srv/file", contents);
  stage.world().kernel().SetSendBufferBytes(20'000);
  const absl::StatusOr<int> file = stage.Try(stage.server(), "open", [&os] { return OpenFile(os); });
  StreamServer* serving = nullptr;
  Script script;
  bool asked = false;
  script.data = [&](Transport& transport, absl::Span<const char>) {
    if (std::exchange(asked, true)) return;
    stage.Asked("sendfile");
    stage.server().loop().CreateTask(Sending(stage, serving, Sendfile(transport, *file)));
  };
  StreamServerOptions options;
  options.listen = {"0.0.0.0:7000"};
  options.tls = server_tls;
  const auto server = Serve(stage, options, script);
  serving = server.get();
  ConnectOptions where;
  where.target = "server:7000";
  where.tls = client_tls;
  Client client = Connect(stage, stage.client(), where);
  client.transport->Write("please");
  stage.RunUntil([&] { return client.life->lost() || client.received->size() >= contents.size(); });
  client.transport->Close();
  stage.RunUntil([&] { return client.life->lost(); });
  if (!stage.AnyLostByError() && !(stage.cut_short() && client_tls == nullptr)) {
    stage.Expect(*client.received == contents || stage.AnyRefused(), "another file came");
  }
  CloseServer(stage, *server);
  stage.RunFor(absl::Milliseconds(10));
  serving = nullptr;
  os.Close(*file);
}

void ByTheKernel(Stage& stage) { SendTo(stage, nullptr, nullptr); }
void OverTls(Stage& stage) { SendTo(stage, &TlsServerContext(), &TlsClientContext()); }

}  // namespace

std::vector<Scenario> SendfileScenarios() {
  return {
      {"sendfile", ByTheKernel},
      {"sendfile_over_tls", OverTls},
  };
}

}  // namespace troupe::testing
