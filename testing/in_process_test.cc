#include "troupe/testing/in_process.h"

#include <functional>
#include <string>

#include "echo/v1/echo.troupe.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/testing/matchers.h"

namespace troupe::testing {
namespace {

using ::echo::v1::EchoRequest;
using ::echo::v1::EchoResponse;
using ::echo::v1::EchoStub;
using ::testing::ElementsAre;

// What all connections share, and what each has of its own.
struct Shared {
  int actors = 0;
  int calls = 0;
};

class Counting final : public echo::v1::EchoActor {
 public:
  explicit Counting(Shared& shared) : shared_(shared), number_(++shared.actors) {}
  Task<absl::Status> Echo(const EchoRequest&, EchoResponse& response, Call& call) override {
    ++shared_.calls;
    response.set_message("actor " + std::to_string(number_) + ", call " + std::to_string(++calls_) + " of " +
                         std::to_string(shared_.calls));
    call.trailers().Add("actor", std::to_string(number_));
    co_return absl::OkStatus();
  }

 private:
  Shared& shared_;
  const int number_;
  int calls_ = 0;
};

std::string Echo(InProcessServer& server, EchoStub stub) {
  const absl::StatusOr<EchoResponse> got = server.Run(stub.Echo(EchoRequest()));
  return got.ok() ? got->message() : got.status().ToString();
}

TEST(InProcess, NewClientsHaveConnectionsAndActorsOfTheirOwn) {
  Shared shared;
  InProcess<Counting> service(std::ref(shared));
  EchoStub second(service.NewClient()), third(service.NewClient());
  EXPECT_EQ(Echo(service, service.stub()), "actor 1, call 1 of 1");
  EXPECT_EQ(Echo(service, second), "actor 2, call 1 of 2");
  EXPECT_EQ(Echo(service, third), "actor 3, call 1 of 3");
  EXPECT_EQ(Echo(service, second), "actor 2, call 2 of 4");
  EXPECT_EQ(service.server().connections(), 3u);
}

TEST(InProcess, AClientThatGoesLeavesTheOthers) {
  Shared shared;
  InProcess<Counting> service(std::ref(shared));
  Session& leaving = service.NewClient();
  EchoStub stub(leaving);
  EXPECT_EQ(Echo(service, stub), "actor 1, call 1 of 1");
  leaving.Abort(absl::OkStatus());
  service.RunUntilIdle();
  EXPECT_THAT(service.Run(stub.Echo(EchoRequest())), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(Echo(service, service.stub()), "actor 2, call 1 of 2");
  EXPECT_EQ(service.server().connections(), 1u);
}

TEST(InProcess, AServerThatIsFullRefusesAnotherClient) {
  Shared shared;
  InProcessOptions options;
  options.server.connections_max = 1;
  InProcess<Counting> service(options, std::ref(shared));
  EXPECT_EQ(Echo(service, service.stub()), "actor 1, call 1 of 1");
  EXPECT_EQ(Echo(service, EchoStub(service.NewClient())), "UNAVAILABLE: the server takes no more connections");
}

TEST(InProcess, AReplyThatHasANameKeepsItsTrailers) {
  Shared shared;
  InProcess<Counting> service(std::ref(shared));
  Reply<EchoResponse> reply = service.stub().Echo(EchoRequest());
  EXPECT_FALSE(reply.done());
  EXPECT_OK(service.Run(reply));
  EXPECT_EQ(reply.trailers().Get("actor"), "1");
}

}  // namespace
}  // namespace troupe::testing
