// InteropService: grpc.testing.TestService, with which any implementation of gRPC can be tried against Troupe.
//
// Does what the requests say: answers of a size, statuses, pauses. Two keys of a call's metadata come back:
// "x-grpc-test-echo-initial" before the first message, "x-grpc-test-echo-trailing-bin" with the status.
//
// Threading: one loop.     Lifetime: one per connection, made by the server; it has no state of its own.
#ifndef TROUPE_SERVICES_INTEROP_INTEROP_SERVICE_H_
#define TROUPE_SERVICES_INTEROP_INTEROP_SERVICE_H_

#include "absl/status/status.h"
#include "grpc/testing/test.troupe.h"
#include "troupe/async/task.h"
#include "troupe/rpc/call.h"
#include "troupe/rpc/stream.h"
#include "troupe/service/limits.h"
#include "xds/data/orca/v3/orca_load_report.pb.h"

namespace interop {

// For a server of it: one case has a thousand calls of 270 kB in each direction at once, which is more than a server
// holds for a stranger by default.
troupe::ConnectionLimits InteropLimits();

class InteropService final : public grpc::testing::TestServiceActor {
 public:
  // `load`, which outlives it, becomes what a request says that the server's load is (load_report.h); null: such requests
  // end UNIMPLEMENTED.
  explicit InteropService(xds::data::orca::v3::OrcaLoadReport* load = nullptr) : load_(load) {}

  troupe::Task<absl::Status> EmptyCall(const grpc::testing::Empty& request, grpc::testing::Empty& response,
                                       troupe::Call& call) override;
  // INVALID_ARGUMENT: a size below 0 or above 4 MiB. Otherwise the status that the request names.
  troupe::Task<absl::Status> UnaryCall(const grpc::testing::SimpleRequest& request,
                                       grpc::testing::SimpleResponse& response, troupe::Call& call) override;
  troupe::Task<absl::Status> CacheableUnaryCall(const grpc::testing::SimpleRequest& request,
                                                grpc::testing::SimpleResponse& response, troupe::Call& call) override;
  troupe::Task<absl::Status> StreamingOutputCall(
      const grpc::testing::StreamingOutputCallRequest& request,
      troupe::Writer<grpc::testing::StreamingOutputCallResponse> responses, troupe::Call& call) override;
  troupe::Task<absl::Status> StreamingInputCall(troupe::Reader<grpc::testing::StreamingInputCallRequest> requests,
                                                grpc::testing::StreamingInputCallResponse& response,
                                                troupe::Call& call) override;
  troupe::Task<absl::Status> FullDuplexCall(troupe::Reader<grpc::testing::StreamingOutputCallRequest> requests,
                                            troupe::Writer<grpc::testing::StreamingOutputCallResponse> responses,
                                            troupe::Call& call) override;
  // RESOURCE_EXHAUSTED: more than 1,000 requests, which all wait for the last.
  troupe::Task<absl::Status> HalfDuplexCall(troupe::Reader<grpc::testing::StreamingOutputCallRequest> requests,
                                            troupe::Writer<grpc::testing::StreamingOutputCallResponse> responses,
                                            troupe::Call& call) override;

 private:
  xds::data::orca::v3::OrcaLoadReport* const load_;
};

}  // namespace interop

#endif  // TROUPE_SERVICES_INTEROP_INTEROP_SERVICE_H_
