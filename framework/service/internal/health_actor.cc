#include "troupe/service/internal/health_actor.h"

#include <optional>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "troupe/async/event.h"
#include "troupe/base/status_macros.h"

namespace troupe::internal {
namespace {

using ::grpc::health::v1::HealthCheckRequest;
using ::grpc::health::v1::HealthCheckResponse;
using ::grpc::health::v1::HealthListRequest;
using ::grpc::health::v1::HealthListResponse;

HealthCheckResponse::ServingStatus OnTheWire(std::optional<ServingStatus> status) {
  if (!status.has_value()) return HealthCheckResponse::SERVICE_UNKNOWN;
  switch (*status) {
    case ServingStatus::kUnknown:
      return HealthCheckResponse::UNKNOWN;
    case ServingStatus::kServing:
      return HealthCheckResponse::SERVING;
    case ServingStatus::kNotServing:
      return HealthCheckResponse::NOT_SERVING;
  }
  return HealthCheckResponse::UNKNOWN;
}

absl::Status CheckName(const HealthCheckRequest& request) {
  if (request.service().size() <= HealthService::kNameBytesMax) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the name of a service with ", request.service().size(),
                                                 " bytes, at most ", HealthService::kNameBytesMax));
}

// Wakes a watch when its connection drains.
class WokenByDrain final : public DrainWatcher {
 public:
  WokenByDrain(Call& call, Event& event) : event_(event) {
    if (!call.draining()) call.WatchDraining(*this);
  }
  ~WokenByDrain() = default;

 private:
  void OnDraining() override { event_.Set(); }
  Event& event_;
};

}  // namespace

Task<absl::Status> HealthActor::Check(const HealthCheckRequest& request, HealthCheckResponse& response, Call&) {
  CO_RETURN_IF_ERROR(CheckName(request));
  const std::optional<ServingStatus> status = health_.GetServingStatus(request.service());
  if (!status.has_value()) co_return absl::NotFoundError(absl::StrCat("no service ", request.service(), " here"));
  response.set_status(OnTheWire(status));
  co_return absl::OkStatus();
}

Task<absl::Status> HealthActor::Watch(const HealthCheckRequest& request, Writer<HealthCheckResponse> updates,
                                      Call& call) {
  CO_RETURN_IF_ERROR(CheckName(request));
  if (watches_ >= HealthService::kWatchesMax) {
    health_.CountRefusedWatch();
    co_return absl::ResourceExhaustedError(
        absl::StrCat("this connection watches ", watches_, " services already, at most ", HealthService::kWatchesMax));
  }
  ++watches_;
  const absl::Cleanup left = [this] { --watches_; };
  HealthService::Watch watch(health_, request.service());
  const WokenByDrain woken(call, watch.changed());
  HealthCheckResponse response;
  response.set_status(OnTheWire(watch.status()));
  bool more = co_await updates.Write(response);
  while (more) {
    watch.changed().Clear();
    const HealthCheckResponse::ServingStatus now = OnTheWire(watch.status());
    if (now != response.status()) {
      response.set_status(now);
      more = co_await updates.Write(response);
    } else if (health_.is_shut_down() || call.draining()) {
      co_return absl::UnavailableError("the server is shutting down");
    } else {
      co_await watch.changed().Wait();
    }
  }
  co_return absl::CancelledError("the caller has gone");
}

Task<absl::Status> HealthActor::List(const HealthListRequest&, HealthListResponse& response, Call&) {
  const std::vector<HealthService::Entry> list = health_.List();
  if (list.size() > HealthService::kListedMax) {
    co_return absl::ResourceExhaustedError(
        absl::StrCat(list.size(), " services, at most ", HealthService::kListedMax, " are listed"));
  }
  for (const HealthService::Entry& entry : list) {
    (*response.mutable_statuses())[entry.service].set_status(OnTheWire(entry.status));
  }
  co_return absl::OkStatus();
}

}  // namespace troupe::internal
