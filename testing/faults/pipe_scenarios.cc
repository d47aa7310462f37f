#include "troupe/testing/faults/pipe_scenarios.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "troupe/net/connect.h"
#include "troupe/net/pipe.h"
#include "troupe/net/protocol.h"
#include "troupe/net/transport.h"
#include "troupe/testing/faults/echo_ends.h"

namespace troupe::testing {
namespace {

// Says `text` through a pipe between two transports. What is refused stays the caller's; what is taken is closed.
bool SaidThroughAPipe(Stage& stage, const std::string& text) {
  SimHost& host = stage.server();
  SimOs& os = host.os();
  int fds[2];
  if (os.MakePipe(fds) != 0) return false;
  Client reader;
  auto hear = [&] { return NewClientProtocol(stage, reader); };
  auto reading = ConnectReadPipe(host.loop(), hear, fds[0]);
  MadeConnection read = stage.Run(host, "read", std::move(reading));
  if (absl::IsInvalidArgument(read.status())) os.Close(fds[0]);
  Life& writer = stage.NewLife("writer");
  auto say = [&]() -> std::unique_ptr<BaseProtocol> { return stage.NewProtocol(writer); };
  auto writing = ConnectWritePipe(host.loop(), say, fds[1]);
  MadeConnection write = stage.Run(host, "write", std::move(writing));
  if (absl::IsInvalidArgument(write.status())) os.Close(fds[1]);
  if (write.ok()) {
    if (read.ok()) {
      write->transport->Write(text);
      stage.RunUntil([&] { return writer.lost() || reader.Heard(text); });
      write->transport->Close();
    }
    // Nobody reads: it hears of that by itself.
    stage.RunUntil([&] { return writer.lost(); });
  }
  if (read.ok()) stage.RunUntil([&] { return reader.life->lost(); });
  return read.ok() && write.ok() && *reader.received == text;
}

void Pipe(Stage& stage) {
  for (int tries = 0; tries < 3; ++tries) {
    if (tries > 0) stage.Recover();
    if (SaidThroughAPipe(stage, std::string(100'000, 'x'))) return;
  }
  stage.Broken("three attempts failed");
}

}  // namespace

std::vector<Scenario> PipeScenarios() { return {{"pipe", Pipe}}; }

}  // namespace troupe::testing
