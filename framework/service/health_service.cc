#include "troupe/service/health_service.h"

#include <tuple>

namespace troupe {

void HealthService::Change(Watch::Watched& service, ServingStatus status) {
  service.status = status;
  for (Watch& watch : service.watches) watch.changed_.Set();
}

void HealthService::SetServingStatus(absl::string_view service, ServingStatus status) {
  if (!shut_down_) Change(services_[std::string(service)], status);
}

void HealthService::SetServingStatusAtFirst(absl::string_view service, ServingStatus status) {
  if (!GetServingStatus(service).has_value()) SetServingStatus(service, status);
}

std::optional<ServingStatus> HealthService::GetServingStatus(absl::string_view service) const {
  const auto found = services_.find(service);
  return found == services_.end() ? std::nullopt : found->second.status;
}

void HealthService::Shutdown() {
  shut_down_ = true;
  for (auto& [name, service] : services_) {
    if (service.status.has_value()) service.status = ServingStatus::kNotServing;
    for (Watch& watch : service.watches) watch.changed_.Set();
  }
}

std::vector<HealthService::Entry> HealthService::List() const {
  std::vector<Entry> list;
  for (const auto& [name, service] : services_) {
    if (service.status.has_value()) list.push_back({name, *service.status});
  }
  return list;
}

HealthService::Watch::Watch(HealthService& health, absl::string_view service)
    : health_(health), watched_(health.services_.try_emplace(std::string(service)).first) {
  watched_->second.watches.PushBack(*this);
  ++health_.watches_;
}

HealthService::Watch::~Watch() {
  --health_.watches_;
  Unlink();
  // A name that only clients have said is kept as long as they wait.
  if (watched_->second.watches.empty() && !watched_->second.status.has_value()) health_.services_.erase(watched_);
}

}  // namespace troupe
