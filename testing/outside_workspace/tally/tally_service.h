// TallyService: adds up numbers by name, for as long as the process lives.
//
// Threading: one loop's.     Lifetime: one per connection; the sums, which all of them share, outlive it.
#ifndef TALLY_TALLY_SERVICE_H_
#define TALLY_TALLY_SERVICE_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "tally/tally.troupe.h"
#include "troupe/async/task.h"
#include "troupe/rpc/call.h"
#include "troupe/rpc/stream.h"

namespace tally {

using Sums = std::map<std::string, int64_t>;

class TallyService final : public TallyActor {
 public:
  explicit TallyService(Sums& sums) : sums_(sums) {}

  troupe::Task<absl::Status> Add(const AddRequest& request, AddResponse& response, troupe::Call& call) override;
  troupe::Task<absl::Status> List(const ListRequest& request, troupe::Writer<Sum> sums, troupe::Call& call) override;

 private:
  Sums& sums_;
};

}  // namespace tally

#endif  // TALLY_TALLY_SERVICE_H_
