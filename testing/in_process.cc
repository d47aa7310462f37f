#include "troupe/testing/in_process.h"

#include <utility>

#include "absl/strings/str_join.h"
#include "glog/logging.h"
#include "gtest/gtest.h"
#include "troupe/async/sleep.h"

namespace troupe::testing {

InProcessServer::InProcessServer(InProcessOptions options)
    : options_(std::move(options)), os_(options_.seed), loop_(os_), server_(loop_, options_.server) {
  client_options_.limits = options_.client;
  client_options_.wire = options_.wire;
  client_options_.authority = "in-process";
  loop_.SetExceptionHandler(
      [this](EventLoop&, const ExceptionContext& context) { reports_.push_back(context.ToString()); });
}

InProcessServer::~InProcessServer() {
  CHECK(!loop_.IsRunning()) << "InProcess is destroyed inside its own loop";
  try {
    if (client_ != nullptr) client_->Close(absl::OkStatus());
    for (const auto& client : more_clients_) client->Close(absl::OkStatus());
    server_.Drain();
    loop_.RunUntilComplete(server_.WaitClosed());
    RunUntilIdle();
  } catch (const std::exception& failed) {
    ADD_FAILURE() << "the server did not come to its end: " << failed.what();
    server_.Close();
  }
  client_.reset();
  more_clients_.clear();
  transports_.clear();
  for (const internal::TaskNode& task : loop_.tasks()) {
    ADD_FAILURE() << "a task is left at the end of the test: " << task.DescribeTask();
  }
  if (!reports_.empty()) {
    ADD_FAILURE() << "unexpected reports to the exception handler:\n" << absl::StrJoin(TakeReports(), "\n");
  }
  loop_.SetExceptionHandler(nullptr);
  loop_.Close();
}

Caller& InProcessServer::caller() { return client(); }

Session& InProcessServer::client() {
  if (client_ == nullptr || client_->lost()) client_ = Connect();
  return *client_;
}

Session& InProcessServer::NewClient() {
  more_clients_.push_back(Connect());
  return *more_clients_.back();
}

std::unique_ptr<Session> InProcessServer::Connect() {
  if (server_.state() == Server::State::kMade) {
    const absl::Status started = loop_.RunUntilComplete(server_.Start());
    if (!started.ok()) throw StatusError(started);
  }
  auto client = std::make_unique<Session>(loop_, Session::Role::kClient, client_options_, nullptr, client_counters_);
  std::unique_ptr<Protocol> server_end = server_.NewConnection();
  if (server_end == nullptr) {
    client->Fail(absl::UnavailableError("the server takes no more connections"));
    return client;
  }
  MemoryPair pair = MakeMemoryPair(loop_, client->MakeProtocol(), std::move(server_end), options_.transport);
  transports_.push_back(std::move(pair.first));
  transports_.push_back(std::move(pair.second));
  return client;
}

void InProcessServer::Advance(absl::Duration duration) { loop_.RunUntilComplete(Sleep(duration)); }

void InProcessServer::RunUntilIdle() {
  // An idle loop stalls no iteration: when nothing is ready, nothing without time is left.
  do {
    loop_.RunOnceWithoutWaiting();
  } while (loop_.HasReady());
}

}  // namespace troupe::testing
