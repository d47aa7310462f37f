// HealthService: how well a server is, by gRPC's health checking protocol, which load balancers, Kubernetes' probes and
// gRPC's own channels ask for.
//
//   server.health().SetServingStatus("kv.v1.KeyValue", ServingStatus::kNotServing);   // its disk is full
//
// A Server has one, unless its options say otherwise, and keeps it: SERVING from its start, "" for the server as a whole
// and each service by its full name, but for those that were given another status before; NOT_SERVING when it begins to
// drain, before anything else, so that those who watch hear of it while the server still answers.
//
// Life:      made -> SetServingStatus* -> Shutdown
// Threading: one loop.     Lifetime: outlives the actors of its connections.
#ifndef TROUPE_SERVICE_HEALTH_SERVICE_H_
#define TROUPE_SERVICE_HEALTH_SERVICE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "troupe/async/event.h"
#include "troupe/base/counter.h"
#include "troupe/base/intrusive_list.h"

namespace troupe {

enum class ServingStatus : uint8_t {
  kUnknown,
  kServing,
  kNotServing,
};

class HealthService {
 public:
  // Of one connection, so that no client can take those of others. Beyond: RESOURCE_EXHAUSTED. watches_refused
  static constexpr size_t kWatchesMax = 100;
  // That List answers. Beyond: RESOURCE_EXHAUSTED
  static constexpr size_t kListedMax = 100;
  // Of the name of a service in a question. Beyond: INVALID_ARGUMENT
  static constexpr size_t kNameBytesMax = 200;

  HealthService() = default;
  HealthService(const HealthService&) = delete;
  HealthService& operator=(const HealthService&) = delete;

  // "": the server as a whole, which follows from nothing else. Who watches it hears of a change; of several in a row
  // perhaps only the last. Without effect after Shutdown().
  void SetServingStatus(absl::string_view service, ServingStatus status);
  // As SetServingStatus, unless the service has a status.
  void SetServingStatusAtFirst(absl::string_view service, ServingStatus status);
  // Nullopt: nobody has named the service.
  std::optional<ServingStatus> GetServingStatus(absl::string_view service) const;
  // Everything is NOT_SERVING from now on; streams of Watch say so and then end UNAVAILABLE. Idempotent.
  void Shutdown();
  bool is_shut_down() const { return shut_down_; }

  struct Entry {
    std::string service;
    ServingStatus status;
  };
  // Sorted by name.
  std::vector<Entry> List() const;
  size_t watches() const { return watches_; }
  uint64_t watches_refused() const { return watches_refused_.value(); }
  void CountRefusedWatch() { watches_refused_.Add(); }

  // One who wants to know of changes. Lives no longer than the service.
  class Watch : public ListNode<HealthService> {
   public:
    Watch(HealthService& health, absl::string_view service);
    ~Watch();

    // Nullopt: nobody has named it.
    std::optional<ServingStatus> status() const { return watched_->second.status; }
    // Set by whatever may have changed the status, and by Shutdown(); cleared by who waits for it.
    Event& changed() { return changed_; }

   private:
    friend class HealthService;
    struct Watched {
      std::optional<ServingStatus> status;
      IntrusiveList<Watch, HealthService> watches;
    };

    HealthService& health_;
    std::map<std::string, Watched, std::less<>>::iterator watched_;
    Event changed_;
  };

 private:
  using Services = std::map<std::string, Watch::Watched, std::less<>>;

  static void Change(Watch::Watched& service, ServingStatus status);

  Services services_;
  bool shut_down_ = false;
  size_t watches_ = 0;
  Counter watches_refused_;
};

}  // namespace troupe

#endif  // TROUPE_SERVICE_HEALTH_SERVICE_H_
