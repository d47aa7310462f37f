// How this test works: a server of ours in a process of its own, on a socket that this test holds as systemd would, and
// gRPC C++'s client here. Ten thousand calls are in flight when the server is sent SIGTERM; while it drains, a successor
// serves the same socket and each channel makes further calls, one behind the other. At the end the journals of both
// servers are compared with the client's: what GOAWAY in two steps promises and gRPC C++'s transparent retries assume is
// that each call ran once, and was answered.
//
//   bazel run //testing/interop:grpc_drain_test -- --rounds=20
#include <arpa/inet.h>
#include <grpcpp/grpcpp.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "echo/v1/echo.grpc.pb.h"
#include "echo/v1/echo.pb.h"
#include "gtest/gtest.h"
#include "services/testing/child_process.h"

#if defined(__SANITIZE_ADDRESS__)
ABSL_FLAG(int, rounds, 2, "how often");
#else
ABSL_FLAG(int, rounds, 5, "how often");
#endif

namespace {

using echo::v1::Echo;
using echo::v1::EchoRequest;
using echo::v1::EchoResponse;
using services::ChildProcess;
using services::Runfile;

// A thousand calls are what a server takes of one connection.
constexpr int kChannels = 11;
constexpr int kHeldPerChannel = 910;
constexpr int kHeld = kChannels * kHeldPerChannel;
constexpr int kFurtherPerChannel = 200;
constexpr int kCalls = kHeld + kChannels * kFurtherPerChannel;
static_assert(kHeld >= 10'000 && kHeldPerChannel < 1000);

// The client's journal.
class Outcomes {
 public:
  void Note(int number, const grpc::Status& status, bool right) {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++ended_[number];
    if (!status.ok()) errors_[number] = absl::StrCat(status.error_code(), ": ", status.error_message());
    if (status.ok() && !right) errors_[number] = "another answer";
    if (++count_ == kCalls) all_.notify_all();
  }
  void WaitForAll() {
    std::unique_lock<std::mutex> lock(mutex_);
    all_.wait(lock, [this] { return count_ == kCalls; });
  }
  // Once all have ended.
  const std::map<int, std::string>& errors() const { return errors_; }
  const std::map<int, int>& ended() const { return ended_; }

 private:
  std::mutex mutex_;
  std::condition_variable all_;
  int count_ = 0;
  std::map<int, int> ended_;
  std::map<int, std::string> errors_;
};

// One call of a journal's number; then those behind it, if any.
class OneCall {
 public:
  static void Start(Echo::Stub& stub, Outcomes& outcomes, std::string prefix, int number, int further) {
    auto* const call = new OneCall(stub, outcomes, std::move(prefix), number, further);
    call->stub_.async()->Echo(&call->context_, &call->request_, &call->response_,
                              [call](const grpc::Status& status) { call->OnDone(status); });
  }

 private:
  OneCall(Echo::Stub& stub, Outcomes& outcomes, std::string prefix, int number, int further)
      : stub_(stub), outcomes_(outcomes), prefix_(std::move(prefix)), number_(number), further_(further) {
    request_.set_message(absl::StrCat(prefix_, number));
    context_.set_wait_for_ready(true);  // the successor's turn comes
  }
  void OnDone(const grpc::Status& status) {
    const std::unique_ptr<OneCall> own(this);
    if (further_ > 0) Start(stub_, outcomes_, prefix_, number_ + 1, further_ - 1);
    outcomes_.Note(number_, status, response_.message() == request_.message());
  }

  Echo::Stub& stub_;
  Outcomes& outcomes_;
  const std::string prefix_;
  const int number_;
  const int further_;
  grpc::ClientContext context_;
  EchoRequest request_;
  EchoResponse response_;
};

// number -> (began, finished), of all servers together.
using Runs = std::map<int, std::pair<int, int>>;
void AddJournal(const std::string& text, Runs& runs) {
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ');
    int number = 0, began = 0, finished = 0;
    ASSERT_TRUE(words.size() == 3 && absl::SimpleAtoi(words[0], &number) && absl::SimpleAtoi(words[1], &began) &&
                absl::SimpleAtoi(words[2], &finished))
        << line;
    runs[number].first += began;
    runs[number].second += finished;
  }
}

class GrpcDrainTest : public ::testing::Test {
 protected:
  GrpcDrainTest() {
    // Inherited by the servers: not SOCK_CLOEXEC.
    socket_ = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(bind(socket_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(listen(socket_, 1024), 0);
    EXPECT_EQ(getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    target_ = absl::StrCat("ipv4:127.0.0.1:", ntohs(address.sin_port));
  }
  ~GrpcDrainTest() override { close(socket_); }

  std::unique_ptr<ChildProcess> StartServer(int begins) {
    auto server = std::make_unique<ChildProcess>(std::vector<std::string>{Runfile("testing/interop/drain_server"),
                                                                          absl::StrCat("--socket=", socket_),
                                                                          absl::StrCat("--begins=", begins)});
    EXPECT_EQ(server->ReadLine(), "serving") << server->errors();
    return server;
  }

  int socket_;
  std::string target_;
};

TEST_F(GrpcDrainTest, TenThousandCallsOfGrpcCppAreAnsweredAndNoneRunsTwice) {
  for (int round = 0; round < absl::GetFlag(FLAGS_rounds); ++round) {
    SCOPED_TRACE(absl::StrCat("round ", round));
    const std::unique_ptr<ChildProcess> server = StartServer(kHeld);
    Outcomes outcomes;
    std::vector<std::unique_ptr<Echo::Stub>> stubs;
    for (int c = 0; c < kChannels; ++c) {
      grpc::ChannelArguments arguments;
      arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
      stubs.push_back(Echo::NewStub(grpc::CreateCustomChannel(target_, grpc::InsecureChannelCredentials(), arguments)));
      for (int i = 0; i < kHeldPerChannel; ++i) {
        OneCall::Start(*stubs.back(), outcomes, "hold ", c * kHeldPerChannel + i, 0);
      }
    }
    ASSERT_EQ(server->ReadLine(), "begun") << server->errors();
    // In every second round the further calls begin before the server hears of it, and meet GOAWAY on their way.
    const bool early = round % 2 == 0;
    const auto press_on = [&] {
      for (int c = 0; c < kChannels; ++c) {
        OneCall::Start(*stubs[static_cast<size_t>(c)], outcomes, "", kHeld + c * kFurtherPerChannel,
                       kFurtherPerChannel - 1);
      }
    };
    if (early) press_on();
    server->Signal(SIGTERM);
    if (!early) press_on();
    const std::unique_ptr<ChildProcess> successor = StartServer(0);
    outcomes.WaitForAll();

    Runs runs;
    AddJournal(server->ReadAll(), runs);
    EXPECT_EQ(server->Wait(), 0) << server->errors();
    successor->Signal(SIGTERM);
    AddJournal(successor->ReadAll(), runs);
    EXPECT_EQ(successor->Wait(), 0) << successor->errors();

    for (const auto& [number, error] : outcomes.errors()) ADD_FAILURE() << "call " << number << ": " << error;
    ASSERT_EQ(outcomes.ended().size(), size_t{kCalls});
    ASSERT_EQ(runs.size(), size_t{kCalls});
    for (const auto& [number, times] : outcomes.ended()) ASSERT_EQ(times, 1) << "call " << number;
    for (const auto& [number, run] : runs) ASSERT_EQ(run, std::pair(1, 1)) << "call " << number;
    if (HasFailure()) break;
  }
}

}  // namespace

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  absl::ParseCommandLine(argc, argv);
  return RUN_ALL_TESTS();
}
