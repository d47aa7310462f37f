// Calls over gRPC C++: by its callback API at both ends, which is its fastest, and servers of its other two kinds.
//
//   rpc_grpc server [KIND [CERTIFICATES]]            prints its port, serves until it is killed; KIND: callback, async (a
//                                                    completion queue) or sync; with TLS if there is a folder of
//                                                    server.pem and server.key
//   rpc_grpc client PORT SERVER_PID CALLERS SECONDS  prints the results of RpcLoad
//   rpc_grpc idle PORT SERVER_PID CONNECTIONS        one call on each, then none; prints the server's memory for each
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <latch>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "echo/v1/echo.grpc.pb.h"
#include "echo/v1/echo.pb.h"
#include "grpcpp/grpcpp.h"
#include "troupe/testing/benchmarks/meter.h"
#include "troupe/testing/benchmarks/rpc_load.h"

namespace {

using benchmarks::RpcLoad;
using echo::v1::EchoRequest;
using echo::v1::EchoResponse;

using echo::v1::ExpandRequest;
using echo::v1::ExpandResponse;

// Writes one message again and again, as many times as it was asked to.
class Expansion final : public grpc::ServerWriteReactor<ExpandResponse> {
 public:
  explicit Expansion(const ExpandRequest& request) : left_(request.count()) {
    response_.set_message(request.message());
    WriteNext();
  }

 private:
  void WriteNext() { left_-- > 0 ? StartWrite(&response_) : Finish(grpc::Status::OK); }
  void OnWriteDone(bool ok) override { ok ? WriteNext() : Finish(grpc::Status::CANCELLED); }
  void OnDone() override { delete this; }

  int left_;
  ExpandResponse response_;
};

class EchoService final : public echo::v1::Echo::CallbackService {
 public:
  grpc::ServerUnaryReactor* Echo(grpc::CallbackServerContext* context, const EchoRequest* request,
                                 EchoResponse* response) override {
    response->set_message(request->message());
    grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
  grpc::ServerWriteReactor<ExpandResponse>* Expand(grpc::CallbackServerContext*,
                                                   const ExpandRequest* request) override {
    return new Expansion(*request);
  }
};

class SyncEchoService final : public echo::v1::Echo::Service {
 public:
  grpc::Status Echo(grpc::ServerContext*, const EchoRequest* request, EchoResponse* response) override {
    response->set_message(request->message());
    return grpc::Status::OK;
  }
};

// A call of the completion queue: waits to be made, is answered, is gone.
class QueuedCall {
 public:
  QueuedCall(echo::v1::Echo::AsyncService& service, grpc::ServerCompletionQueue& queue)
      : service_(service), queue_(queue), responder_(&context_) {
    service_.RequestEcho(&context_, &request_, &responder_, &queue_, &queue_, this);
  }
  void Proceed(bool ok) {
    if (!ok || answered_) {
      delete this;
      return;
    }
    answered_ = true;
    new QueuedCall(service_, queue_);
    EchoResponse response;
    response.set_message(request_.message());
    responder_.Finish(response, grpc::Status::OK, this);
  }

 private:
  echo::v1::Echo::AsyncService& service_;
  grpc::ServerCompletionQueue& queue_;
  grpc::ServerContext context_;
  EchoRequest request_;
  grpc::ServerAsyncResponseWriter<EchoResponse> responder_;
  bool answered_ = false;
};

void ServeQueue(echo::v1::Echo::AsyncService& service, grpc::ServerCompletionQueue& queue) {
  constexpr int kWaiting = 100;
  for (int i = 0; i < kWaiting; ++i) new QueuedCall(service, queue);
  void* tag = nullptr;
  bool ok = false;
  while (queue.Next(&tag, &ok)) static_cast<QueuedCall*>(tag)->Proceed(ok);
}

std::shared_ptr<grpc::ServerCredentials> Credentials(const std::string& certificates) {
  if (certificates.empty()) return grpc::InsecureServerCredentials();
  const auto content = [&certificates](const char* name) {
    std::ifstream file(certificates + "/" + name);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  grpc::SslServerCredentialsOptions options;
  options.pem_key_cert_pairs.push_back({content("server.key"), content("server.pem")});
  return grpc::SslServerCredentials(options);
}

int Serve(const std::string& kind, const std::string& certificates) {
  EchoService callbacks;
  SyncEchoService functions;
  echo::v1::Echo::AsyncService queued;
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", Credentials(certificates), &port);
  std::unique_ptr<grpc::ServerCompletionQueue> queue;
  if (kind == "async") {
    builder.RegisterService(&queued);
    queue = builder.AddCompletionQueue();
  } else if (kind == "sync") {
    builder.RegisterService(&functions);
  } else {
    builder.RegisterService(&callbacks);
  }
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) return 1;
  benchmarks::PrintPort(port);
  if (queue != nullptr) ServeQueue(queued, *queue);
  server->Wait();
  return 0;
}

class Calls {
 public:
  Calls(echo::v1::Echo::Stub& stub, RpcLoad::Caller& caller, std::latch& over)
      : stub_(stub), caller_(caller), over_(over) {
    request_.set_message("8 bytes.");
  }

  void CallNext() {
    context_.emplace();
    caller_.Started();
    stub_.async()->Echo(&*context_, &request_, &response_, [this](const grpc::Status& status) {
      if (!status.ok() || response_.message() != request_.message()) {
        std::fprintf(stderr, "%s\n", status.error_message().c_str());
        std::_Exit(1);
      }
      caller_.Ended() ? CallNext() : over_.count_down();
    });
  }

 private:
  echo::v1::Echo::Stub& stub_;
  RpcLoad::Caller& caller_;
  std::latch& over_;
  std::optional<grpc::ClientContext> context_;
  EchoRequest request_;
  EchoResponse response_;
};

int Client(const std::string& port, pid_t server, int callers, double seconds) {
  RpcLoad load(callers, server, seconds);
  const auto stub =
      echo::v1::Echo::NewStub(grpc::CreateChannel("ipv4:127.0.0.1:" + port, grpc::InsecureChannelCredentials()));
  std::latch over(callers);
  std::vector<std::unique_ptr<Calls>> calls;
  for (RpcLoad::Caller& caller : load.callers()) calls.push_back(std::make_unique<Calls>(*stub, caller, over));
  for (const auto& call : calls) call->CallNext();
  load.Run();
  over.wait();
  load.PrintResults();
  return 0;
}

int Idle(const std::string& port, pid_t server, int connections) {
  benchmarks::IdleMeter meter(server);
  std::vector<std::shared_ptr<grpc::Channel>> channels;
  for (int open = 1; open <= connections; ++open) {
    grpc::ChannelArguments own_connection;
    own_connection.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    channels.push_back(
        grpc::CreateCustomChannel("ipv4:127.0.0.1:" + port, grpc::InsecureChannelCredentials(), own_connection));
    const auto stub = echo::v1::Echo::NewStub(channels.back());
    grpc::ClientContext context;
    EchoRequest request;
    request.set_message("8 bytes.");
    EchoResponse response;
    const grpc::Status status = stub->Echo(&context, request, &response);
    if (!status.ok()) {
      std::fprintf(stderr, "%s\n", status.error_message().c_str());
      return 1;
    }
    meter.Opened(open);
  }
  meter.PrintResults();
  std::fflush(stdout);
  std::_Exit(0);  // ten thousand channels take their time to go
}

}  // namespace

int main(int argc, char** argv) {
  benchmarks::EndWithParent();
  const std::string role = argc > 1 ? argv[1] : "";
  if (role == "server") return Serve(argc > 2 ? argv[2] : "callback", argc > 3 ? argv[3] : "");
  if (role == "idle" && argc == 5) return Idle(argv[2], std::atoi(argv[3]), std::atoi(argv[4]));
  if (role != "client" || argc != 6) return 2;
  return Client(argv[2], std::atoi(argv[3]), std::atoi(argv[4]), std::atof(argv[5]));
}
