#include "troupe/async/wait_for.h"

#include "absl/strings/str_cat.h"

namespace troupe::internal {

absl::Status TimedOut(absl::Duration timeout) {
  return absl::DeadlineExceededError(absl::StrCat("not done within ", absl::FormatDuration(timeout)));
}

}  // namespace troupe::internal
