// How this test works: each case of the interoperability tests, our client against our server, in process and in virtual
// time, by each wire, in clear and with TLS over simulated sockets.
#include "services/interop/interop_cases.h"

#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "grpc/testing/test.troupe.h"
#include "gtest/gtest.h"
#include "services/interop/interop_service.h"
#include "services/interop/load_report.h"
#include "troupe/async/task.h"
#include "troupe/base/errors.h"
#include "troupe/base/monotonic_time.h"
#include "troupe/loop/event_loop.h"
#include "troupe/net/tls_context.h"
#include "troupe/service/channel.h"
#include "troupe/service/server.h"
#include "troupe/service/session.h"
#include "troupe/testing/in_process.h"
#include "troupe/testing/matchers.h"
#include "troupe/testing/sim/sim_os.h"
#include "troupe/testing/tls_certificates.h"
#include "xds/data/orca/v3/orca_load_report.pb.h"

namespace interop {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using troupe::Task;
using troupe::Wire;
using troupe::testing::InProcess;
using troupe::testing::SimOs;
using troupe::testing::StatusIs;
using troupe::testing::TestCertificate;
using troupe::testing::TestCertificateOptions;

enum class How { kClear, kTls };

using Parameters = std::tuple<std::string, Wire, How>;

class EachCase : public ::testing::TestWithParam<Parameters> {
 protected:
  EachCase() {
    troupe::ServerOptions server;
    server.listen = {"127.0.0.1:0"};
    server.limits = InteropLimits();
    client_.wire = std::get<Wire>(GetParam());
    if (std::get<How>(GetParam()) == How::kTls) {
      const TestCertificate root = TestCertificate::Root();
      TestCertificateOptions names;
      names.dns_names = {"foo.test.google.fr"};
      const TestCertificate leaf = root.Issue(names);
      troupe::TlsOptions tls;
      tls.certificates.emplace_back();
      tls.certificates.back().chain = leaf.chain();
      tls.certificates.back().key = leaf.key();
      server.tls = *troupe::TlsContext::ForServer(tls);
      troupe::TlsOptions trust;
      trust.roots = root.certificate();
      client_.tls = *troupe::TlsContext::ForClient(trust);
      client_.server_hostname = "foo.test.google.fr";
    }
    server_.emplace(loop_, server);
    server_->Add<InteropService>(&load_);
    server_->Add<LoadReportService>(&load_);
    EXPECT_OK(loop_.RunUntilComplete(server_->Start()));
    target_ = server_->addresses()[0].ToString();
  }
  ~EachCase() override {
    server_->Drain();
    loop_.RunUntilComplete(server_->WaitClosed());
    loop_.Close();
  }

  SimOs os_;
  troupe::EventLoop loop_{os_};
  troupe::ChannelOptions client_;
  xds::data::orca::v3::OrcaLoadReport load_;
  std::optional<troupe::Server> server_;
  std::string target_;
};

std::vector<std::string> AllCases() {
  std::vector<std::string> names;
  for (const InteropCase& each : InteropCases()) names.emplace_back(each.name);
  return names;
}

INSTANTIATE_TEST_SUITE_P(All, EachCase,
                         ::testing::Combine(::testing::ValuesIn(AllCases()),
                                            ::testing::Values(Wire::kGrpc, Wire::kNative),
                                            ::testing::Values(How::kClear, How::kTls)),
                         [](const auto& info) {
                           return absl::StrCat(std::get<std::string>(info.param), "_",
                                               std::get<Wire>(info.param) == Wire::kGrpc ? "grpc" : "native",
                                               std::get<How>(info.param) == How::kTls ? "_tls" : "");
                         });

TEST_P(EachCase, Passes) {
  troupe::Channel channel(loop_, target_, client_);
  InteropContext context{channel, client_.wire == Wire::kGrpc, target_};
  std::vector<std::string> said;
  context.say = [&said](const std::string& line) { said.push_back(line); };
  context.new_channel = [this] { return std::make_unique<troupe::Channel>(loop_, target_, client_); };
  const std::string& name = std::get<std::string>(GetParam());
  const InteropCase* const found = FindInteropCase(name);
  ASSERT_NE(found, nullptr);
  EXPECT_OK(loop_.RunUntilComplete(found->run(context)));
  EXPECT_EQ(said.size(), name == "rpc_soak" || name == "channel_soak" ? 10u : 0u);
  if (!said.empty()) {
    EXPECT_EQ(said[0], absl::StrCat("soak iteration: 0 elapsed_ms: 0 peer: ", target_, " succeeded"));
  }
}

// A server that does everything a little wrong: each case must notice what it is there to notice.
class WrongService final : public grpc::testing::TestServiceActor {
 public:
  Task<absl::Status> EmptyCall(const grpc::testing::Empty&, grpc::testing::Empty&, troupe::Call&) override {
    co_return absl::UnavailableError("not today");
  }
  Task<absl::Status> UnaryCall(const grpc::testing::SimpleRequest& request, grpc::testing::SimpleResponse& response,
                               troupe::Call&) override {
    response.mutable_payload()->set_body(std::string(static_cast<size_t>(request.response_size()), 'x'));
    co_return absl::OkStatus();
  }
  Task<absl::Status> CacheableUnaryCall(const grpc::testing::SimpleRequest&, grpc::testing::SimpleResponse& response,
                                        troupe::Call&) override {
    response.mutable_payload()->set_body(absl::StrCat(++count_));
    co_return absl::OkStatus();
  }
  Task<absl::Status> StreamingOutputCall(const grpc::testing::StreamingOutputCallRequest& request,
                                         troupe::Writer<grpc::testing::StreamingOutputCallResponse> responses,
                                         troupe::Call&) override {
    grpc::testing::StreamingOutputCallResponse response;
    for (int i = request.response_parameters_size() - 1; i >= 0; --i) {
      response.mutable_payload()->set_body(
          std::string(static_cast<size_t>(request.response_parameters(i).size()), '\0'));
      const bool more = co_await responses.Write(response);
      if (!more) break;
    }
    co_return absl::OkStatus();
  }
  Task<absl::Status> StreamingInputCall(troupe::Reader<grpc::testing::StreamingInputCallRequest>,
                                        grpc::testing::StreamingInputCallResponse& response, troupe::Call&) override {
    response.set_aggregated_payload_size(1);
    co_return absl::OkStatus();
  }
  Task<absl::Status> FullDuplexCall(troupe::Reader<grpc::testing::StreamingOutputCallRequest>,
                                    troupe::Writer<grpc::testing::StreamingOutputCallResponse> responses,
                                    troupe::Call&) override {
    const grpc::testing::StreamingOutputCallResponse response;
    co_await responses.Write(response);
    co_return absl::OkStatus();
  }
  Task<absl::Status> UnimplementedCall(const grpc::testing::Empty&, grpc::testing::Empty&, troupe::Call&) override {
    co_return absl::OkStatus();
  }

 private:
  int count_ = 0;
};

class UnwantedService final : public grpc::testing::UnimplementedServiceActor {
 public:
  Task<absl::Status> UnimplementedCall(const grpc::testing::Empty&, grpc::testing::Empty&, troupe::Call&) override {
    co_return absl::OkStatus();
  }
};

class EachCaseNotices : public ::testing::TestWithParam<std::string> {};

INSTANTIATE_TEST_SUITE_P(All, EachCaseNotices, ::testing::ValuesIn(AllCases()),
                         [](const auto& info) { return info.param; });

TEST_P(EachCaseNotices, AServerThatIsWrong) {
  // What a client does by itself, whatever the server answers.
  if (GetParam() == "cancel_after_begin") return;
  InProcess<WrongService> wrong;
  wrong.server().Add<UnwantedService>();
  InteropContext context{wrong.caller(), true, "in process"};
  EXPECT_THAT(wrong.Run(FindInteropCase(GetParam())->run(context)), Not(troupe::testing::IsOk()));
}

TEST(InteropService, EchoesMetadataOfEveryCall) {
  InProcess<InteropService> service;
  troupe::Metadata metadata;
  metadata.Add("x-grpc-test-echo-initial", "a");
  metadata.Add("x-grpc-test-echo-initial", "b");
  metadata.Add("x-other", "c");
  auto reply = service.stub().EmptyCall(grpc::testing::Empty(), {.metadata = &metadata});
  EXPECT_OK(service.Run(reply));
  EXPECT_THAT(reply.initial_metadata().GetAll("x-grpc-test-echo-initial"), ElementsAre("a", "b"));
  EXPECT_EQ(reply.initial_metadata().size(), 2u);
}

TEST(InteropService, RefusesSizesAndStatusesThatAreNone) {
  InProcess<InteropService> service;
  grpc::testing::SimpleRequest request;
  for (const int size : {-1, (4 << 20) + 1}) {
    request.set_response_size(size);
    EXPECT_THAT(service.Run(service.stub().UnaryCall(request)),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(absl::StrCat(size))));
  }
  request.set_response_size(0);
  for (const int code : {-1, 17}) {
    request.mutable_response_status()->set_code(code);
    EXPECT_THAT(service.Run(service.stub().UnaryCall(request)), StatusIs(absl::StatusCode::kInvalidArgument));
  }
}

TEST(InteropService, SaysWithoutAPlaceForItsLoadThatItHasNone) {
  InProcess<InteropService> service;
  grpc::testing::StreamingOutputCallRequest request;
  request.mutable_orca_oob_report();
  auto call = service.stub().FullDuplexCall();
  EXPECT_TRUE(service.Run([&] { return call.Write(request); }));
  EXPECT_THAT(service.Run([&] { return call.Finish(); }), StatusIs(absl::StatusCode::kUnimplemented));
}

TEST(InteropService, WaitsBeforeAMessageAndAnswersHalfDuplexAtTheEnd) {
  InProcess<InteropService> service;
  grpc::testing::StreamingOutputCallRequest request;
  request.add_response_parameters()->set_size(1);
  request.mutable_response_parameters(0)->set_interval_us(3'000'000);
  const troupe::MonotonicTime begin = service.loop().Time();
  auto call = service.stub().HalfDuplexCall();
  EXPECT_TRUE(service.Run([&] { return call.Write(request); }));
  service.Advance(absl::Minutes(1));
  EXPECT_TRUE(service.Run([&] { return call.Write(request); }));
  call.WritesDone();
  grpc::testing::StreamingOutputCallResponse response;
  for (int i = 1; i <= 2; ++i) {
    EXPECT_TRUE(service.Run([&] { return call.Read(response); }));
    EXPECT_EQ(service.loop().Time() - begin, absl::Seconds(60 + 3 * i));
  }
  EXPECT_FALSE(service.Run([&] { return call.Read(response); }));
  EXPECT_OK(service.Run([&] { return call.Finish(); }));
}

}  // namespace
}  // namespace interop
