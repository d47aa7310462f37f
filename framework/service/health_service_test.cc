// How this test works: InProcess joins a real server and a real client over memory, in virtual time, by each wire. What
// the client asks is grpc.health.v1.Health; what the server's program would say, the test says.
#include "troupe/service/health_service.h"

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "echo/v1/echo.troupe.h"
#include "gmock/gmock.h"
#include "grpc/health/v1/health.troupe.h"
#include "gtest/gtest.h"
#include "troupe/base/errors.h"
#include "troupe/service/server.h"
#include "troupe/testing/in_process.h"
#include "troupe/testing/matchers.h"

namespace troupe {
namespace {

using ::grpc::health::v1::HealthCheckRequest;
using ::grpc::health::v1::HealthCheckResponse;
using ::grpc::health::v1::HealthListRequest;
using ::grpc::health::v1::HealthListResponse;
using ::grpc::health::v1::HealthStub;
using ::testing::ElementsAre;
using ::troupe::testing::EqualsProto;
using ::troupe::testing::InProcess;
using ::troupe::testing::InProcessOptions;
using ::troupe::testing::IsOkAndHolds;
using ::troupe::testing::StatusIs;

class Echo final : public echo::v1::EchoActor {};

HealthCheckRequest About(const std::string& service) {
  HealthCheckRequest request;
  request.set_service(service);
  return request;
}

class HealthServiceTest : public ::testing::TestWithParam<Wire> {
 protected:
  InProcess<Echo>& service() {
    if (service_ == nullptr) {
      options_.wire = GetParam();
      service_ = std::make_unique<InProcess<Echo>>(options_);
    }
    return *service_;
  }
  HealthService& health() { return service().server().health(); }
  HealthStub stub() { return HealthStub(service().caller()); }
  absl::StatusOr<HealthCheckResponse> Check(const std::string& name) {
    return service().Run(stub().Check(About(name)));
  }
  // Notes what a watch hears, and how it ended.
  void Watch(const std::string& name, std::vector<std::string>& heard) {
    service().loop().CreateTask(Listen(stub(), name, heard), "listen");
    service().RunUntilIdle();
  }
  static Task<void> Listen(HealthStub stub, std::string name, std::vector<std::string>& heard) {
    auto updates = stub.Watch(About(name));
    HealthCheckResponse update;
    while (true) {
      const bool more = co_await updates.Read(update);
      if (!more) break;
      heard.push_back(HealthCheckResponse::ServingStatus_Name(update.status()));
    }
    const absl::Status end = co_await updates.Finish();
    heard.push_back(absl::StatusCodeToString(end.code()));
  }

  InProcessOptions options_;
  std::vector<std::string> heard_, heard_too_, heard_by_other_;
  std::unique_ptr<InProcess<Echo>> service_;
};

INSTANTIATE_TEST_SUITE_P(Wires, HealthServiceTest, ::testing::Values(Wire::kNative, Wire::kGrpc),
                         [](const auto& info) { return info.param == Wire::kGrpc ? "Grpc" : "Native"; });

TEST_P(HealthServiceTest, AServerServesFromItsStartItselfAndItsServices) {
  for (const char* name : {"", "echo.v1.Echo", "grpc.health.v1.Health"}) {
    EXPECT_THAT(Check(name), IsOkAndHolds(EqualsProto("status: SERVING"))) << name;
  }
}

TEST_P(HealthServiceTest, WhatNobodyHasNamedIsNotFound) {
  EXPECT_THAT(Check("echo.v1"), StatusIs(absl::StatusCode::kNotFound, "no service echo.v1 here"));
  EXPECT_THAT(Check(std::string(HealthService::kNameBytesMax, 'x')), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(Check(std::string(HealthService::kNameBytesMax + 1, 'x')),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_P(HealthServiceTest, WhatTheProgramSaysIsAnswered) {
  health().SetServingStatus("disk", ServingStatus::kNotServing);
  health().SetServingStatus("", ServingStatus::kUnknown);
  EXPECT_THAT(Check("disk"), IsOkAndHolds(EqualsProto("status: NOT_SERVING")));
  EXPECT_THAT(Check(""), IsOkAndHolds(EqualsProto(""))) << "said before the start, and kept";
  EXPECT_THAT(Check("echo.v1.Echo"), IsOkAndHolds(EqualsProto("status: SERVING")));
  health().SetServingStatus("disk", ServingStatus::kServing);
  EXPECT_THAT(Check("disk"), IsOkAndHolds(EqualsProto("status: SERVING")));
}

TEST_P(HealthServiceTest, AWatchHearsTheStatusAndEachChange) {
  Watch("disk", heard_);
  Watch("echo.v1.Echo", heard_too_);
  EXPECT_THAT(heard_, ElementsAre("SERVICE_UNKNOWN"));
  EXPECT_THAT(heard_too_, ElementsAre("SERVING"));
  for (const ServingStatus status :
       {ServingStatus::kServing, ServingStatus::kServing, ServingStatus::kUnknown, ServingStatus::kNotServing}) {
    health().SetServingStatus("disk", status);
    service().RunUntilIdle();
  }
  EXPECT_THAT(heard_, ElementsAre("SERVICE_UNKNOWN", "SERVING", "UNKNOWN", "NOT_SERVING")) << "no change, no word";
  EXPECT_THAT(heard_too_, ElementsAre("SERVING"));
}

TEST_P(HealthServiceTest, ADrainIsSaidToWhoWatchesAndThenTheWatchEnds) {
  Watch("", heard_);
  Watch("nobody.knows", heard_too_);
  service().server().Drain();
  EXPECT_EQ(health().GetServingStatus(""), ServingStatus::kNotServing);
  health().SetServingStatus("", ServingStatus::kServing);
  const MonotonicTime before = service().loop().Time();
  service().Run(service().server().WaitClosed());
  EXPECT_EQ(service().loop().Time(), before) << "nothing waits for an idle watch";
  service().RunUntilIdle();
  EXPECT_THAT(heard_, ElementsAre("SERVING", "NOT_SERVING", "UNAVAILABLE"));
  EXPECT_THAT(heard_too_, ElementsAre("SERVICE_UNKNOWN", "UNAVAILABLE"));
  EXPECT_EQ(health().watches(), 0u);
}

TEST_P(HealthServiceTest, AServerThatIsClosedServesNoMore) {
  Watch("", heard_);
  service().server().Close();
  EXPECT_EQ(health().GetServingStatus(""), ServingStatus::kNotServing);
  service().Run(service().server().WaitClosed());
  EXPECT_EQ(health().watches(), 0u);
}

// What is written while nobody reads is not queued: the last word counts.
TEST_P(HealthServiceTest, AWatchThatIsNotReadHearsTheLatestOnly) {
  auto updates = stub().Watch(About("disk"));
  service().RunUntilIdle();
  // More than any credit would hold.
  for (int i = 0; i < 100'000; ++i) {
    health().SetServingStatus("disk", i % 2 == 0 ? ServingStatus::kServing : ServingStatus::kNotServing);
    if (i % 100 == 0) service().RunUntilIdle();
  }
  service().RunUntilIdle();
  EXPECT_LT(service().server().held_bytes(), 1000);
  HealthCheckResponse update;
  int heard = 0;
  HealthCheckResponse::ServingStatus last = HealthCheckResponse::UNKNOWN;
  while (last != HealthCheckResponse::NOT_SERVING || heard < 2) {
    ASSERT_TRUE(service().Run([&] { return updates.Read(update); }));
    last = update.status();
    ++heard;
  }
  updates.Cancel();
  service().RunUntilIdle();
  EXPECT_EQ(health().watches(), 0u);
}

TEST_P(HealthServiceTest, WatchesOfOneConnectionAreBoundedAndOthersStillWatch) {
  std::vector<ClientReader<HealthCheckResponse>> watches;
  for (size_t i = 0; i < HealthService::kWatchesMax; ++i) watches.push_back(stub().Watch(About(absl::StrCat(i))));
  service().RunUntilIdle();
  EXPECT_EQ(health().watches(), HealthService::kWatchesMax);
  Watch("", heard_);
  EXPECT_THAT(heard_, ElementsAre("RESOURCE_EXHAUSTED"));
  EXPECT_EQ(health().watches_refused(), 1u);
  EXPECT_THAT(Check(""), IsOkAndHolds(EqualsProto("status: SERVING")));
  service().loop().CreateTask(Listen(HealthStub(service().NewClient()), "", heard_by_other_), "other");
  service().RunUntilIdle();
  EXPECT_THAT(heard_by_other_, ElementsAre("SERVING"));
  // Names that only clients have said go with them.
  watches.clear();
  service().RunUntilIdle();
  EXPECT_EQ(health().watches(), 1u);
  Watch("", heard_too_);
  EXPECT_THAT(heard_too_, ElementsAre("SERVING"));
}

TEST_P(HealthServiceTest, AllThatHaveANameAreListed) {
  Watch("nobody.knows", heard_);
  health().SetServingStatus("disk", ServingStatus::kNotServing);
  const absl::StatusOr<HealthListResponse> list = service().Run(stub().List(HealthListRequest()));
  ASSERT_OK(list);
  std::vector<std::string> names;
  for (const HealthService::Entry& entry : health().List()) names.push_back(entry.service);
  EXPECT_THAT(names, ElementsAre("", "disk", "echo.v1.Echo", "grpc.health.v1.Health",
                                 "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"));
  EXPECT_EQ(static_cast<size_t>(list->statuses_size()), names.size());
  EXPECT_EQ(list->statuses().at("disk").status(), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(list->statuses().at("").status(), HealthCheckResponse::SERVING);
}

TEST_P(HealthServiceTest, MoreThanAMessageShouldHoldAreNotListed) {
  service();
  ASSERT_OK(Check("").status());
  for (size_t i = health().List().size(); i < HealthService::kListedMax; ++i) {
    health().SetServingStatus(absl::StrCat("service ", i), ServingStatus::kServing);
  }
  EXPECT_OK(service().Run(stub().List(HealthListRequest())));
  health().SetServingStatus("one more", ServingStatus::kServing);
  EXPECT_THAT(service().Run(stub().List(HealthListRequest())), StatusIs(absl::StatusCode::kResourceExhausted));
}

TEST_P(HealthServiceTest, IsAnsweredWhenMemoryIsShort) {
  options_.server.memory_bytes_max = 1;
  echo::v1::EchoStub echo(service().caller());
  service().os().held_memory() += 2;
  EXPECT_FALSE(service().Run(echo.Echo(echo::v1::EchoRequest())).ok());
  EXPECT_EQ(service().server().counters().memory.calls_refused.value(), 1u);
  EXPECT_THAT(Check(""), IsOkAndHolds(EqualsProto("status: SERVING")));
  Watch("", heard_);
  EXPECT_THAT(heard_, ElementsAre("SERVING"));
  service().os().held_memory() -= 2;
}

TEST_P(HealthServiceTest, AServerMayBeWithoutHealth) {
  options_.server.health = false;
  options_.server.reflection = Reflection::kNobody;
  EXPECT_THAT(Check(""), StatusIs(absl::StatusCode::kUnimplemented));
  EXPECT_THAT(service().server().services().services(), ::testing::SizeIs(1));
}

class OwnHealth final : public grpc::health::v1::HealthActor {
 public:
  Task<absl::Status> Check(const HealthCheckRequest&, HealthCheckResponse& response, Call&) override {
    response.set_status(HealthCheckResponse::UNKNOWN);
    co_return absl::OkStatus();
  }
};

TEST_P(HealthServiceTest, AProgramsOwnHealthTakesItsPlace) {
  service().server().Add<OwnHealth>();
  EXPECT_THAT(Check("anything"), IsOkAndHolds(EqualsProto("")));
}

}  // namespace
}  // namespace troupe
