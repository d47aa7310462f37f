// The echo server.
//
//   echo_server --listen=127.0.0.1:7401
//
// Says "listening on ADDRESS" on stdout, one line for each; port 0 takes a free one. SIGTERM or SIGINT drains it.
#include <iostream>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/usage.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "services/echo/echo_service.h"
#include "troupe/async/run.h"
#include "troupe/async/task.h"
#include "troupe/base/socket_address.h"
#include "troupe/base/status_macros.h"
#include "troupe/loop/event_loop.h"
#include "troupe/service/server.h"

ABSL_FLAG(std::vector<std::string>, listen, {"127.0.0.1:7401"}, "addresses, separated by commas; also unix:PATH");

namespace {

troupe::Task<absl::Status> Main(troupe::EventLoop& loop, const std::vector<char*>& arguments) {
  if (!arguments.empty()) co_return absl::InvalidArgumentError(absl::StrCat("unexpected argument: ", arguments[0]));
  troupe::ServerOptions options;
  options.listen = absl::GetFlag(FLAGS_listen);
  troupe::Server server(loop, options);
  server.Add<echo::v1::EchoService>();
  CO_RETURN_IF_ERROR(co_await server.Start());
  for (const troupe::SocketAddress& address : server.addresses()) {
    std::cout << "listening on " << address.ToString() << std::endl;
  }
  co_return co_await server.ServeForever();
}

}  // namespace

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("serves echo.v1.Echo: gives back what it gets");
  return troupe::Run(argc, argv, Main);
}
