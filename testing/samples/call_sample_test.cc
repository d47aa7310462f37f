// What goes with a call beside its messages, and how a call ends before its time: errors that carry payloads, metadata,
// cancellation.
#include <memory>
#include <string>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/cord.h"
#include "echo/v1/echo.troupe.h"
#include "gmock/gmock.h"
#include "google/protobuf/duration.pb.h"
#include "gtest/gtest.h"
#include "troupe/async/sleep.h"
#include "troupe/base/errors.h"
#include "troupe/rpc/metadata.h"
#include "troupe/testing/in_process.h"
#include "troupe/testing/matchers.h"

using echo::v1::EchoRequest;
using echo::v1::EchoResponse;
using echo::v1::EchoStub;
using testing::ElementsAre;
using troupe::testing::InProcess;
using troupe::testing::StatusIs;

namespace {

EchoRequest Request(std::string text) {
  EchoRequest request;
  request.set_message(std::move(text));
  return request;
}

// ---------------------------------------------------------------------------------------------------- errors

// A payload whose key is a type's URL travels with the status; any other key stays in the process that set it.
constexpr char kRetryAfter[] = "type.googleapis.com/google.protobuf.Duration";

class Busy final : public echo::v1::EchoActor {
  troupe::Task<absl::Status> Echo(const EchoRequest&, EchoResponse&, troupe::Call&) override {
    google::protobuf::Duration retry_after;
    retry_after.set_seconds(3);
    absl::Status status = absl::ResourceExhaustedError("busy");
    status.SetPayload(kRetryAfter, absl::Cord(retry_after.SerializeAsString()));
    status.SetPayload("busy/queue", absl::Cord("17 wait"));  // for this side's log
    co_return status;
  }
};

TEST(Samples, AnErrorCarriesAPayload) {
  InProcess<Busy> service;
  const absl::Status status = service.Run(service.stub().Echo(Request("x"))).status();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted, "busy"));
  google::protobuf::Duration retry_after;
  ASSERT_TRUE(retry_after.ParseFromString(std::string(status.GetPayload(kRetryAfter).value())));
  EXPECT_EQ(retry_after.seconds(), 3);
  EXPECT_FALSE(status.GetPayload("busy/queue").has_value());
}

// ---------------------------------------------------------------------------------------------------- metadata

class Greets final : public echo::v1::EchoActor {
  troupe::Task<absl::Status> Echo(const EchoRequest&, EchoResponse& response, troupe::Call& call) override {
    const auto user = call.metadata().Get("user");
    if (!user.has_value()) co_return absl::UnauthenticatedError("who is there?");
    call.initial_metadata().Add("server", "one");  // goes before the first message
    response.set_message("hello, " + std::string(*user));
    call.trailers().Add("cost", "1");  // goes with the status
    co_return absl::OkStatus();
  }
};

TEST(Samples, MetadataGoesBothWays) {
  InProcess<Greets> service;
  EXPECT_THAT(service.Run(service.stub().Echo(Request("x"))), StatusIs(absl::StatusCode::kUnauthenticated));

  troupe::Metadata metadata;  // copied by the call
  metadata.Add("user", "ann");
  troupe::Reply<EchoResponse> reply = service.stub().Echo(Request("x"), {.metadata = &metadata});
  const absl::StatusOr<EchoResponse> got = service.Run(reply);
  ASSERT_OK(got);
  EXPECT_EQ(got->message(), "hello, ann");
  EXPECT_EQ(reply.initial_metadata().Get("server"), "one");
  EXPECT_EQ(reply.trailers().Get("cost"), "1");
}

// ---------------------------------------------------------------------------------------------------- cancellation

// A handler hears that its caller has gone as troupe::Cancelled, thrown by its co_await. It need not catch it: locals
// go as they do with any exception. Whoever catches it throws it on.
class Patient final : public echo::v1::EchoActor {
 public:
  explicit Patient(std::vector<std::string>& log) : log_(log) {}

 private:
  troupe::Task<absl::Status> Echo(const EchoRequest& request, EchoResponse&, troupe::Call& call) override {
    const absl::Cleanup released = [&] { log_.push_back("released " + request.message()); };
    try {
      co_await troupe::Sleep(absl::Hours(1));
    } catch (const troupe::Cancelled&) {
      log_.push_back(call.cancelled() ? "the caller has gone" : "someone else cancelled");
      throw;
    }
    co_return absl::OkStatus();
  }

  std::vector<std::string>& log_;
};

TEST(Samples, ACallIsCancelled) {
  std::vector<std::string> log;
  InProcess<Patient> service(std::ref(log));
  EchoStub stub = service.stub();

  // By its Reply: CANCELLED.
  troupe::Reply<EchoResponse> reply = stub.Echo(Request("a"));
  service.Advance(absl::Seconds(1));
  reply.Cancel();
  EXPECT_THAT(service.Run(reply), StatusIs(absl::StatusCode::kCancelled));

  // By its deadline: DEADLINE_EXCEEDED, at both ends at once.
  EXPECT_THAT(service.Run(stub.Echo(Request("b"), {.timeout = absl::Seconds(1)})),
              StatusIs(absl::StatusCode::kDeadlineExceeded));

  // By dropping the Reply, which is what happens when the task that awaits it is cancelled.
  {
    const troupe::Reply<EchoResponse> dropped = stub.Echo(Request("c"));
    service.Advance(absl::Seconds(1));
  }
  service.Advance(absl::Seconds(1));

  EXPECT_THAT(log, ElementsAre("the caller has gone", "released a", "the caller has gone", "released b",
                               "the caller has gone", "released c"));
}

}  // namespace
