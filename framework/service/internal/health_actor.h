// HealthActor: grpc.health.v1.Health for one connection of a Server.
//
// Threading: the loop's.     Lifetime: as an actor; the HealthService outlives its calls.
#ifndef TROUPE_SERVICE_INTERNAL_HEALTH_ACTOR_H_
#define TROUPE_SERVICE_INTERNAL_HEALTH_ACTOR_H_

#include <cstddef>

#include "absl/status/status.h"
#include "grpc/health/v1/health.troupe.h"
#include "troupe/async/task.h"
#include "troupe/rpc/call.h"
#include "troupe/rpc/stream.h"
#include "troupe/service/health_service.h"

namespace troupe::internal {

class HealthActor final : public grpc::health::v1::HealthActor {
 public:
  explicit HealthActor(HealthService& health) : health_(health) {}

  Task<absl::Status> Check(const grpc::health::v1::HealthCheckRequest& request,
                           grpc::health::v1::HealthCheckResponse& response, Call& call) override;
  Task<absl::Status> Watch(const grpc::health::v1::HealthCheckRequest& request,
                           Writer<grpc::health::v1::HealthCheckResponse> updates, Call& call) override;
  Task<absl::Status> List(const grpc::health::v1::HealthListRequest& request,
                          grpc::health::v1::HealthListResponse& response, Call& call) override;

 private:
  HealthService& health_;
  size_t watches_ = 0;
};

}  // namespace troupe::internal

#endif  // TROUPE_SERVICE_INTERNAL_HEALTH_ACTOR_H_
