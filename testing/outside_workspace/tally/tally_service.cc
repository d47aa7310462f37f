#include "tally/tally_service.h"

namespace tally {

troupe::Task<absl::Status> TallyService::Add(const AddRequest& request, AddResponse& response, troupe::Call&) {
  if (request.name().empty()) co_return absl::InvalidArgumentError("a sum needs a name");
  response.set_sum(sums_[request.name()] += request.amount());
  co_return absl::OkStatus();
}

troupe::Task<absl::Status> TallyService::List(const ListRequest&, troupe::Writer<Sum> sums, troupe::Call&) {
  const Sums snapshot = sums_;  // other calls go on while this one waits for its reader
  for (const auto& [name, value] : snapshot) {
    Sum sum;
    sum.set_name(name);
    sum.set_sum(value);
    const bool more = co_await sums.Write(sum);
    if (!more) break;
  }
  co_return absl::OkStatus();
}

}  // namespace tally
