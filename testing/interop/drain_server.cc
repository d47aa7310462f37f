// A server for grpc_drain_test: Echo, with a journal of what its handlers did.
//
//   drain_server --socket=FD --begins=10000
//
// It takes over a listening socket, says "serving", and "begun" once so many calls have begun. Calls whose message begins
// with "hold " go on until the server drains and then end one after the other; others are answered at once. SIGTERM
// drains it. At its end it says a line for each call: its number, and how often a handler began and finished it.
#include <cstdint>
#include <functional>
#include <iostream>
#include <map>
#include <string>
#include <utility>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "echo/v1/echo.troupe.h"
#include "troupe/async/run.h"
#include "troupe/async/sleep.h"
#include "troupe/async/task.h"
#include "troupe/base/status_macros.h"
#include "troupe/loop/event_loop.h"
#include "troupe/rpc/call.h"
#include "troupe/rpc/until_draining.h"
#include "troupe/service/server.h"

ABSL_FLAG(int, socket, -1, "a listening socket, inherited");
ABSL_FLAG(int, begins, 0, "so many calls are waited for");

namespace {

using troupe::Task;

struct Journal {
  struct Line {
    int began = 0;
    int finished = 0;
  };
  std::map<int, Line> calls;
  int begun = 0;
};

class Noting final : public echo::v1::EchoActor {
 public:
  explicit Noting(Journal& journal) : journal_(journal) {}

  Task<absl::Status> Echo(const echo::v1::EchoRequest& request, echo::v1::EchoResponse& response,
                          troupe::Call& call) override {
    absl::string_view text = request.message();
    const bool holds = absl::ConsumePrefix(&text, "hold ");
    int number = 0;
    if (!absl::SimpleAtoi(text, &number)) co_return absl::InvalidArgumentError("a call without a number");
    ++journal_.calls[number].began;
    if (++journal_.begun == absl::GetFlag(FLAGS_begins)) std::cout << "begun" << std::endl;
    if (holds) {
      Task<absl::Status> forever = WaitForever();
      const absl::Status drained = co_await troupe::UntilDraining(call, std::move(forever));
      if (!absl::IsUnavailable(drained)) co_return drained;
      co_await troupe::Sleep(absl::Milliseconds(number % 199));
    }
    ++journal_.calls[number].finished;
    response.set_message(request.message());
    co_return absl::OkStatus();
  }

 private:
  static Task<absl::Status> WaitForever() {
    co_await troupe::Sleep(absl::Hours(1));
    co_return absl::OkStatus();
  }
  Journal& journal_;
};

Task<absl::Status> Main(troupe::EventLoop& loop) {
  Journal journal;
  troupe::ServerOptions options;
  options.sockets = {absl::GetFlag(FLAGS_socket)};
  troupe::Server server(loop, std::move(options));
  server.Add<Noting>(std::ref(journal));
  CO_RETURN_IF_ERROR(co_await server.Start());
  std::cout << "serving" << std::endl;
  absl::Status end = co_await server.ServeForever();
  for (const auto& [number, line] : journal.calls) {
    std::cout << number << " " << line.began << " " << line.finished << "\n";
  }
  std::cout << std::flush;
  co_return end;
}

}  // namespace

int main(int argc, char** argv) { return troupe::Run(argc, argv, Main); }
