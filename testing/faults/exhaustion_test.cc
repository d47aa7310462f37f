// How this test works: a server's machine has no descriptor left for ten virtual seconds, while clients knock. Work is
// counted in what happens on the machines and in calls of Accept: time costs nothing here.
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "echo/v1/echo.troupe.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/echo/echo_service.h"
#include "troupe/async/task.h"
#include "troupe/base/monotonic_time.h"
#include "troupe/service/channel.h"
#include "troupe/service/server.h"
#include "troupe/testing/faults/stage.h"
#include "troupe/testing/matchers.h"

namespace troupe::testing {
namespace {

using ::echo::v1::EchoRequest;
using ::echo::v1::EchoResponse;
using ::echo::v1::EchoStub;

Task<absl::Status> Say(EchoStub echo) {
  EchoRequest request;
  request.set_message("hello");
  const absl::StatusOr<EchoResponse> got = co_await echo.Echo(request, {.timeout = absl::Minutes(1)});
  co_return got.status();
}

ServerOptions Options() {
  ServerOptions options;
  options.listen = {"0.0.0.0:7400"};
  options.connections_max = 1000;
  return options;
}

class ExhaustionTest : public ::testing::Test {
 protected:
  ExhaustionTest() {
    server_.Add<echo::v1::EchoService>();
    stage_.Try(stage_.server(), "start", [this] { return server_.Start(); });
  }
  void TearDown() override {
    server_.Close();
    stage_.Run(stage_.server(), server_.WaitClosed());
    stage_.Finish();
    EXPECT_THAT(stage_.broken(), ::testing::IsEmpty());
  }

  // No descriptor is left to `os` from now on.
  static void Exhaust(SimOs& os) { os.SetDescriptorLimit(3 + static_cast<int>(os.OpenDescriptors().size())); }
  absl::Status SayOver(Channel& channel) { return stage_.Run(stage_.client(), "Echo", Say(EchoStub(channel))); }

  Stage stage_;
  Server server_{stage_.server().loop(), Options()};
};

// C-ACC-02
TEST_F(ExhaustionTest, AServerWithoutDescriptorsSaysSoOnceASecondAndServesSoonAfterItHasSome) {
  SimOs& os = stage_.server().os();
  Channel open(stage_.client().loop(), "server:7400");
  ASSERT_OK(SayOver(open));
  Exhaust(os);
  std::vector<std::unique_ptr<Channel>> late;
  std::vector<TaskHandle<absl::Status>> waiting;
  for (int i = 0; i < 5; ++i) {
    late.push_back(std::make_unique<Channel>(stage_.client().loop(), "server:7400"));
    waiting.push_back(stage_.client().loop().CreateTask(Say(EchoStub(*late.back()))));
  }

  const int accepts = stage_.CallsOf("server", "Accept");
  int happened = 0;
  bool over = false;
  stage_.world().kernel().After(absl::Seconds(10), [&over] { over = true; });
  stage_.RunUntil([&] {
    ++happened;
    return over;
  });
  const std::vector<std::string> reports = stage_.server().TakeReports();
  EXPECT_GE(reports.size(), 9u);
  EXPECT_LE(reports.size(), 11u);
  EXPECT_THAT(reports, ::testing::Each(::testing::HasSubstr("out of system resource")));
  EXPECT_LE(stage_.CallsOf("server", "Accept") - accepts, 11);
  EXPECT_LE(happened, 200);
  for (const auto& handle : waiting) EXPECT_FALSE(handle.done());

  // Open connections do not notice.
  const MonotonicTime asked = stage_.world().Now();
  EXPECT_OK(SayOver(open));
  EXPECT_LE(stage_.world().Now() - asked, absl::Milliseconds(10));

  os.SetDescriptorLimit(1024);
  const MonotonicTime freed = stage_.world().Now();
  for (const auto& handle : waiting) {
    stage_.RunUntil([&] { return handle.done(); });
    EXPECT_OK(handle.result());
  }
  EXPECT_LE(stage_.world().Now() - freed, absl::Milliseconds(1500));
  late.clear();
  stage_.server().TakeReports();
}

TEST_F(ExhaustionTest, AClientWithoutDescriptorsSaysWhyAndConnectsWhenItHasSome) {
  SimOs& os = stage_.client().os();
  Channel open(stage_.client().loop(), "server:7400");
  ASSERT_OK(SayOver(open));
  Exhaust(os);
  Channel late(stage_.client().loop(), "server:7400");
  EXPECT_THAT(SayOver(late), StatusIs(absl::StatusCode::kUnavailable, ::testing::HasSubstr("Too many open files")));
  EXPECT_OK(SayOver(open));
  os.SetDescriptorLimit(1024);
  stage_.RunFor(absl::Seconds(2));  // until it tries again
  EXPECT_OK(SayOver(late));
}

}  // namespace
}  // namespace troupe::testing
