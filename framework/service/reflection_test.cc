// How this test works: a client asks a real server, over memory and by each wire, as a tool without .proto files would,
// and puts the files that it gets into a pool of its own. On simulated hosts it asks from elsewhere.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bell.troupe.h"
#include "echo/v1/echo.troupe.h"
#include "gmock/gmock.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/descriptor.pb.h"
#include "google/protobuf/text_format.h"
#include "grpc/reflection/v1/reflection.troupe.h"
#include "grpc/reflection/v1alpha/reflection.troupe.h"
#include "gtest/gtest.h"
#include "troupe/base/errors.h"
#include "troupe/options.pb.h"
#include "troupe/service/channel.h"
#include "troupe/service/server.h"
#include "troupe/testing/in_process.h"
#include "troupe/testing/matchers.h"
#include "troupe/testing/sim_world.h"

namespace troupe {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::troupe::testing::EqualsProto;
using ::troupe::testing::InProcess;
using ::troupe::testing::InProcessOptions;
using ::troupe::testing::SimHost;
using ::troupe::testing::SimWorld;
using ::troupe::testing::StatusIs;

namespace v1 = ::grpc::reflection::v1;
namespace v1alpha = ::grpc::reflection::v1alpha;
using Question = v1::ServerReflectionRequest;
using Answer = v1::ServerReflectionResponse;

class Echo final : public echo::v1::EchoActor {};

Question QuestionOf(const std::string& text) {
  Question question;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &question)) << text;
  return question;
}

class ReflectionTest : public ::testing::TestWithParam<Wire> {
 protected:
  InProcess<Echo>& service() {
    if (service_ == nullptr) {
      options_.wire = GetParam();
      service_ = std::make_unique<InProcess<Echo>>(options_);
    }
    return *service_;
  }
  // One stream for all that a test asks.
  Answer Ask(const std::string& text) {
    if (stream_ == nullptr) {
      stream_ = std::make_unique<ClientReaderWriter<Question, Answer>>(
          v1::ServerReflectionStub(service().caller()).ServerReflectionInfo());
    }
    const Question question = QuestionOf(text);
    EXPECT_TRUE(service().Run([&] { return stream_->Write(question); })) << text;
    Answer answer;
    EXPECT_TRUE(service().Run([&] { return stream_->Read(answer); })) << text;
    EXPECT_EQ(answer.original_request().SerializeAsString(), question.SerializeAsString());
    return answer;
  }
  // Names of the files of an answer.
  std::vector<std::string> Files(const std::string& text) {
    std::vector<std::string> names;
    const Answer answer = Ask(text);
    for (const std::string& bytes : answer.file_descriptor_response().file_descriptor_proto()) {
      google::protobuf::FileDescriptorProto file;
      EXPECT_TRUE(file.ParseFromString(bytes));
      names.push_back(file.name());
    }
    return names;
  }
  absl::Status End() {
    stream_->WritesDone();
    absl::Status end = service().Run([&] { return stream_->Finish(); });
    stream_.reset();
    return end;
  }

  InProcessOptions options_;
  std::unique_ptr<InProcess<Echo>> service_;
  std::unique_ptr<ClientReaderWriter<Question, Answer>> stream_;
};

INSTANTIATE_TEST_SUITE_P(Wires, ReflectionTest, ::testing::Values(Wire::kNative, Wire::kGrpc),
                         [](const auto& info) { return info.param == Wire::kGrpc ? "Grpc" : "Native"; });

TEST_P(ReflectionTest, ServicesAreListedByName) {
  const Answer answer = Ask(R"pb(host: "kv.test" list_services: "")pb");
  EXPECT_EQ(answer.valid_host(), "kv.test");
  EXPECT_THAT(answer.list_services_response(),
              EqualsProto(R"pb(service { name: "echo.v1.Echo" }
                               service { name: "grpc.health.v1.Health" }
                               service { name: "grpc.reflection.v1.ServerReflection" }
                               service { name: "grpc.reflection.v1alpha.ServerReflection" })pb"));
  EXPECT_OK(End());
}

TEST_P(ReflectionTest, FilesAreFoundByTheirNameAndByWhatTheyDeclare) {
  for (const char* question : {
           R"pb(file_by_filename: "echo/v1/echo.proto")pb",
           R"pb(file_containing_symbol: "echo.v1.Echo")pb",
           R"pb(file_containing_symbol: "echo.v1.Echo.Chat")pb",
           R"pb(file_containing_symbol: "echo.v1.ExpandRequest")pb",
           R"pb(file_containing_symbol: "echo.v1.ExpandRequest.count")pb",
       }) {
    EXPECT_THAT(Files(question), ElementsAre("echo/v1/echo.proto")) << question;
  }
  EXPECT_THAT(Files(R"pb(file_containing_symbol: "grpc.health.v1.HealthCheckResponse.ServingStatus")pb"),
              ElementsAre("grpc/health/v1/health.proto"));
  EXPECT_OK(End());
}

TEST_P(ReflectionTest, WhatAFileImportsComesOnceAStreamAndTheFileItselfEachTime) {
  constexpr char kOptions[] = R"pb(file_by_filename: "troupe/options.proto")pb";
  EXPECT_THAT(Files(kOptions), ElementsAre("troupe/options.proto", "google/protobuf/descriptor.proto"));
  EXPECT_THAT(Files(kOptions), ElementsAre("troupe/options.proto"));
  EXPECT_THAT(Files(R"pb(file_by_filename: "google/protobuf/descriptor.proto")pb"),
              ElementsAre("google/protobuf/descriptor.proto"));
  EXPECT_OK(End());
  EXPECT_THAT(Files(kOptions), ElementsAre("troupe/options.proto", "google/protobuf/descriptor.proto"));
  EXPECT_OK(End());
}

TEST_P(ReflectionTest, AFileWithoutMessagesIsKnownByItsServices) {
  EXPECT_EQ(bell::v1::BellActor::service_info().full_name, "bell.v1.Bell");  // all that the program says of it
  EXPECT_THAT(Files(R"pb(file_containing_symbol: "bell.v1.Bell.Ring")pb"),
              ElementsAre("bell.proto", "google/protobuf/empty.proto"));
  EXPECT_OK(End());
}

TEST_P(ReflectionTest, WhatIsToldSufficesToBuildTheTypes) {
  google::protobuf::DescriptorPool pool;
  const Answer answer = Ask(R"pb(file_containing_symbol: "echo.v1.Echo")pb");
  for (const std::string& bytes : answer.file_descriptor_response().file_descriptor_proto()) {
    google::protobuf::FileDescriptorProto file;
    ASSERT_TRUE(file.ParseFromString(bytes));
    ASSERT_NE(pool.BuildFile(file), nullptr);
  }
  const google::protobuf::ServiceDescriptor* const echo = pool.FindServiceByName("echo.v1.Echo");
  ASSERT_NE(echo, nullptr);
  EXPECT_EQ(echo->method_count(), 4);
  EXPECT_OK(End());
}

TEST_P(ReflectionTest, ExtensionsAreFoundByWhatTheyExtend) {
  const int number = troupe::session.number();
  const Answer numbers = Ask(R"pb(all_extension_numbers_of_type: "google.protobuf.ServiceOptions")pb");
  EXPECT_EQ(numbers.all_extension_numbers_response().base_type_name(), "google.protobuf.ServiceOptions");
  EXPECT_THAT(numbers.all_extension_numbers_response().extension_number(), Contains(number));
  EXPECT_TRUE(std::is_sorted(numbers.all_extension_numbers_response().extension_number().begin(),
                             numbers.all_extension_numbers_response().extension_number().end()));
  EXPECT_THAT(Files(absl::StrCat(R"pb(file_containing_extension { containing_type: "google.protobuf.ServiceOptions")pb",
                                 " extension_number: ", number, "}")),
              Contains("troupe/options.proto"));
  EXPECT_THAT(Ask(R"pb(all_extension_numbers_of_type: "echo.v1.EchoRequest")pb").all_extension_numbers_response(),
              EqualsProto(R"pb(base_type_name: "echo.v1.EchoRequest")pb"));
  EXPECT_OK(End());
}

TEST_P(ReflectionTest, WhatIsNotThereIsAnAnswerAndTheStreamGoesOn) {
  for (const char* question : {
           R"pb(file_by_filename: "no/such.proto")pb",
           R"pb(file_containing_symbol: "no.Such")pb",
           R"pb(file_containing_extension { containing_type: "no.Such" extension_number: 1 })pb",
           R"pb(file_containing_extension { containing_type: "echo.v1.EchoRequest" extension_number: 7 })pb",
           R"pb(all_extension_numbers_of_type: "no.Such")pb",
       }) {
    const Answer answer = Ask(question);
    EXPECT_EQ(answer.error_response().error_code(), 5) << question;
    EXPECT_THAT(answer.error_response().error_message(), HasSubstr(" here")) << question;
  }
  EXPECT_EQ(Ask("").error_response().error_code(), 3);
  EXPECT_THAT(Files(R"pb(file_by_filename: "echo/v1/echo.proto")pb"), ElementsAre("echo/v1/echo.proto"));
  EXPECT_OK(End());
}

TEST_P(ReflectionTest, AQuestionHasABound) {
  auto stream = v1::ServerReflectionStub(service().caller()).ServerReflectionInfo();
  Question question;
  question.set_file_by_filename(std::string(5000, 'x'));
  EXPECT_TRUE(service().Run([&] { return stream.Write(question); }));
  EXPECT_THAT(service().Run([&] { return stream.Finish(); }), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_P(ReflectionTest, TheOldVersionAnswersTheSame) {
  auto stream = v1alpha::ServerReflectionStub(service().caller()).ServerReflectionInfo();
  v1alpha::ServerReflectionRequest question;
  question.set_file_containing_symbol("echo.v1.Echo");
  EXPECT_TRUE(service().Run([&] { return stream.Write(question); }));
  v1alpha::ServerReflectionResponse answer;
  EXPECT_TRUE(service().Run([&] { return stream.Read(answer); }));
  stream.WritesDone();
  EXPECT_OK(service().Run([&] { return stream.Finish(); }));
  EXPECT_EQ(answer.file_descriptor_response().SerializeAsString(),
            Ask(R"pb(file_containing_symbol: "echo.v1.Echo")pb").file_descriptor_response().SerializeAsString());
  EXPECT_OK(End());
}

TEST_P(ReflectionTest, AnOpenStreamDoesNotHoldADrainUp) {
  Ask(R"pb(list_services: "")pb");
  service().server().Drain();
  const MonotonicTime before = service().loop().Time();
  service().Run(service().server().WaitClosed());
  EXPECT_EQ(service().loop().Time(), before);
  EXPECT_THAT(service().Run([&] { return stream_->Finish(); }), StatusIs(absl::StatusCode::kUnavailable));
}

Task<absl::StatusOr<Answer>> AskOnce(v1::ServerReflectionStub reflection) {
  auto stream = reflection.ServerReflectionInfo();
  Question question;
  question.set_list_services("");
  const bool asked = co_await stream.Write(question);
  Answer answer;
  const bool got = co_await stream.Read(answer);
  stream.WritesDone();
  const absl::Status end = co_await stream.Finish();
  if (!end.ok()) co_return end;
  if (!asked || !got) co_return absl::DataLossError("no answer");
  co_return answer;
}

// Where it is offered: a server that listens everywhere, asked from the same host and from another.
class WhoMayAsk : public ::testing::TestWithParam<std::pair<Reflection, std::vector<bool>>> {};

INSTANTIATE_TEST_SUITE_P(Options, WhoMayAsk,
                         ::testing::Values(std::pair(Reflection::kLocal, std::vector<bool>{true, true, false}),
                                           std::pair(Reflection::kNobody, std::vector<bool>{false, false, false}),
                                           std::pair(Reflection::kEverybody, std::vector<bool>{true, true, true})));

TEST_P(WhoMayAsk, IsAsTheOptionsSay) {
  SimWorld world;
  SimHost& host = world.AddHost("server");
  SimHost& elsewhere = world.AddHost("elsewhere");
  {
    Server server(host.loop(), {.listen = {":7400", "unix:/run/echo.sock"}, .reflection = GetParam().first});
    server.Add<Echo>();
    ASSERT_OK(world.Run(host, server.Start()));
    std::vector<bool> got;
    for (const char* target : {"127.0.0.1:7400", "unix:/run/echo.sock"}) {
      Channel near(host.loop(), target);
      got.push_back(world.Run(host, AskOnce(v1::ServerReflectionStub(near))).ok());
    }
    Channel far(elsewhere.loop(), "server:7400");
    const absl::Status answer = world.Run(elsewhere, AskOnce(v1::ServerReflectionStub(far))).status();
    got.push_back(answer.ok());
    EXPECT_EQ(got, GetParam().second);
    if (!answer.ok()) {
      EXPECT_THAT(answer, StatusIs(absl::StatusCode::kUnimplemented));
    }
    server.Close();
    world.Run(host, server.WaitClosed());
  }
}

}  // namespace
}  // namespace troupe
