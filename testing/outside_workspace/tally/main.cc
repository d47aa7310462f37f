// The Tally service on a port: tally --listen 127.0.0.1:7500
#include <functional>
#include <iostream>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "tally/tally_service.h"
#include "troupe/async/run.h"
#include "troupe/async/task.h"
#include "troupe/base/status_macros.h"
#include "troupe/loop/event_loop.h"
#include "troupe/service/server.h"

ABSL_FLAG(std::vector<std::string>, listen, {"127.0.0.1:7500"}, "where to listen; port 0 takes a free one");

troupe::Task<absl::Status> Main(troupe::EventLoop& loop) {
  tally::Sums sums;
  troupe::Server server(loop, {.listen = absl::GetFlag(FLAGS_listen)});
  server.Add<tally::TallyService>(std::ref(sums));
  CO_RETURN_IF_ERROR(co_await server.Start());
  for (const auto& address : server.addresses()) std::cout << "listening on " << address.ToString() << std::endl;
  co_return co_await server.ServeForever();
}

int main(int argc, char** argv) { return troupe::Run(argc, argv, Main); }
