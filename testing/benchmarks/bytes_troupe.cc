// A server that sends bytes back, with CreateServer and a Protocol. Prints its port and serves until it is killed.
#include <memory>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "troupe/async/run.h"
#include "troupe/async/task.h"
#include "troupe/base/status_macros.h"
#include "troupe/loop/event_loop.h"
#include "troupe/net/protocol.h"
#include "troupe/net/stream_server.h"
#include "troupe/net/transport.h"
#include "troupe/testing/benchmarks/meter.h"

namespace {

class Echo final : public troupe::Protocol {
 public:
  void DataReceived(absl::Span<const char> data) override { transport().Write(data); }
};

troupe::Task<absl::Status> Main(troupe::EventLoop& loop) {
  troupe::StreamServerOptions options{.listen = {"127.0.0.1:0"}};
  auto server = co_await troupe::CreateServer(loop, [] { return std::make_unique<Echo>(); }, options);
  CO_RETURN_IF_ERROR(server.status());
  benchmarks::PrintPort((*server)->addresses()[0].port());
  co_return co_await (*server)->ServeForever();
}

}  // namespace

int main(int argc, char** argv) {
  benchmarks::EndWithParent();
  return troupe::Run(argc, argv, Main);
}
