// Calls over Troupe's wires: the native one, and gRPC's where the role says so.
//
//   rpc_troupe server [CERTIFICATES]                   prints its port, serves until it is killed; with TLS if there is a
//                                                      folder of server.pem and server.key
//   rpc_troupe client PORT SERVER_PID CALLERS SECONDS [BYTES [CERTIFICATES]]
//                                                      unary calls of 8 bytes, or as many; prints the results of RpcLoad
//   rpc_troupe stream PORT SERVER_PID CALLERS SECONDS [BYTES [CERTIFICATES]]
//                                                      a stream for each caller, and what is counted is its messages
//   rpc_troupe idle PORT SERVER_PID CONNECTIONS        one call on each, then none; prints the server's memory for each
//   rpc_troupe grpc-client ..., grpc-stream ..., grpc-idle ...
//                                                      the same over gRPC's wire
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <limits>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "echo/v1/echo.pb.h"
#include "echo/v1/echo.troupe.h"
#include "troupe/async/run.h"
#include "troupe/async/task.h"
#include "troupe/base/status_macros.h"
#include "troupe/loop/event_loop.h"
#include "troupe/net/tls_context.h"
#include "troupe/os/posix_os.h"
#include "troupe/rpc/call.h"
#include "troupe/rpc/stream.h"
#include "troupe/service/channel.h"
#include "troupe/service/server.h"
#include "troupe/testing/benchmarks/meter.h"
#include "troupe/testing/benchmarks/rpc_load.h"

namespace {

using benchmarks::RpcLoad;
using echo::v1::EchoRequest;
using echo::v1::EchoResponse;
using echo::v1::ExpandRequest;
using echo::v1::ExpandResponse;

constexpr char kHostName[] = "localhost";  // in certificates

class EchoService final : public echo::v1::EchoActor {
 public:
  troupe::Task<absl::Status> Echo(const EchoRequest& request, EchoResponse& response, troupe::Call&) override {
    response.set_message(request.message());
    co_return absl::OkStatus();
  }
  troupe::Task<absl::Status> Expand(const ExpandRequest& request, troupe::Writer<ExpandResponse> responses,
                                    troupe::Call&) override {
    ExpandResponse response;
    response.set_message(request.message());
    for (int i = 0; i < request.count(); ++i) {
      const bool more = co_await responses.Write(response);
      if (!more) co_return absl::CancelledError("the caller has gone");
    }
    co_return absl::OkStatus();
  }
};

std::string certificates;

troupe::Task<absl::Status> Serve(troupe::EventLoop& loop) {
  troupe::ServerOptions options;
  options.listen = {"127.0.0.1:0"};
  if (!certificates.empty()) {
    troupe::TlsOptions tls;
    tls.certificates.emplace_back();
    tls.certificates.back().chain_file = certificates + "/server.pem";
    tls.certificates.back().key_file = certificates + "/server.key";
    CO_ASSIGN_OR_RETURN(options.tls, troupe::TlsContext::ForServer(tls));
  }
  troupe::Server server(loop, std::move(options));
  server.Add<EchoService>();
  CO_RETURN_IF_ERROR(co_await server.Start());
  benchmarks::PrintPort(server.addresses()[0].port());
  co_return co_await server.ServeForever();
}

// What a caller does until it is told that it is over: calls with so many bytes, or reads messages of so many.
using Work = troupe::Task<absl::Status> (*)(echo::v1::EchoStub& stub, RpcLoad::Caller& caller, size_t bytes);

troupe::Task<absl::Status> CallInTurn(echo::v1::EchoStub& stub, RpcLoad::Caller& caller, size_t bytes) {
  EchoRequest request;
  request.set_message(std::string(bytes, 'x'));
  do {
    caller.Started();
    absl::StatusOr<EchoResponse> response = co_await stub.Echo(request);
    CO_RETURN_IF_ERROR(response.status());
    if (response->message() != request.message()) co_return absl::InternalError("that is another message");
  } while (caller.Ended());
  co_return absl::OkStatus();
}

troupe::Task<absl::Status> ReadOn(echo::v1::EchoStub& stub, RpcLoad::Caller& caller, size_t bytes) {
  ExpandRequest request;
  request.set_message(std::string(bytes, 'x'));
  request.set_count(std::numeric_limits<int32_t>::max());
  auto stream = stub.Expand(request);
  ExpandResponse response;
  do {
    caller.Started();
    const bool more = co_await stream.Read(response);
    if (!more) co_return co_await stream.Finish();
    if (response.message().size() != bytes) co_return absl::InternalError("that is another message");
  } while (caller.Ended());
  stream.Cancel();
  co_return absl::OkStatus();
}

troupe::Task<absl::Status> CallAll(troupe::EventLoop& loop, const std::string& target, troupe::Wire wire, Work work,
                                   size_t bytes, RpcLoad& load) {
  troupe::ChannelOptions options;
  options.wire = wire;
  if (!certificates.empty()) {
    troupe::TlsOptions tls;
    tls.roots_file = certificates + "/ca.pem";
    CO_ASSIGN_OR_RETURN(options.tls, troupe::TlsContext::ForClient(tls));
    options.server_hostname = kHostName;
  }
  troupe::Channel channel(loop, target, std::move(options));
  echo::v1::EchoStub stub(channel);
  std::vector<troupe::TaskHandle<absl::Status>> tasks;
  for (RpcLoad::Caller& caller : load.callers()) tasks.push_back(loop.CreateTask(work(stub, caller, bytes)));
  absl::Status result;
  for (const auto& task : tasks) {
    const absl::Status status = co_await task;
    result.Update(status);
  }
  channel.Close();
  co_return result;
}

int Client(const std::string& port, troupe::Wire wire, Work work, size_t bytes, pid_t server, int callers,
           double seconds) {
  RpcLoad load(callers, server, seconds);
  absl::Status status;
  std::thread thread([&] {
    troupe::EventLoop loop(troupe::PosixOs::Get());
    status = loop.RunUntilComplete(CallAll(loop, absl::StrCat("ipv4:127.0.0.1:", port), wire, work, bytes, load));
    loop.Close();
  });
  load.Run();
  thread.join();
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
    return 1;
  }
  load.PrintResults();
  return 0;
}

troupe::Task<absl::Status> OpenIdle(troupe::EventLoop& loop, const std::string& target, troupe::Wire wire, pid_t server,
                                    int connections) {
  benchmarks::IdleMeter meter(server);
  std::deque<troupe::Channel> channels;
  EchoRequest request;
  request.set_message("8 bytes.");
  for (int open = 1; open <= connections; ++open) {
    echo::v1::EchoStub stub(channels.emplace_back(loop, target, troupe::ChannelOptions{.wire = wire}));
    const absl::StatusOr<EchoResponse> response = co_await stub.Echo(request);
    CO_RETURN_IF_ERROR(response.status());
    meter.Opened(open);
  }
  meter.PrintResults();
  for (troupe::Channel& channel : channels) channel.Close();
  co_return absl::OkStatus();
}

int Idle(const std::string& port, troupe::Wire wire, pid_t server, int connections) {
  troupe::EventLoop loop(troupe::PosixOs::Get());
  const absl::Status status =
      loop.RunUntilComplete(OpenIdle(loop, absl::StrCat("ipv4:127.0.0.1:", port), wire, server, connections));
  loop.Close();
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  benchmarks::EndWithParent();
  const std::string role = argc > 1 ? argv[1] : "";
  if (role == "server") {
    if (argc > 2) certificates = argv[2];
    return troupe::Run(1, argv, Serve);
  }
  const troupe::Wire wire = absl::StartsWith(role, "grpc-") ? troupe::Wire::kGrpc : troupe::Wire::kNative;
  if (absl::EndsWith(role, "idle") && argc == 5) return Idle(argv[2], wire, std::atoi(argv[3]), std::atoi(argv[4]));
  const bool streams = absl::EndsWith(role, "stream");
  if ((!streams && !absl::EndsWith(role, "client")) || argc < 6 || argc > 8) return 2;
  const size_t bytes = argc > 6 ? std::strtoul(argv[6], nullptr, 10) : 8;
  if (argc > 7) certificates = argv[7];
  return Client(argv[2], wire, streams ? ReadOn : CallInTurn, bytes, std::atoi(argv[3]), std::atoi(argv[4]),
                std::atof(argv[5]));
}
