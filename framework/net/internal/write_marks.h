// WriteMarks: how much may wait to be sent before a protocol is told to hold back (C-FLW-01, C-FLW-02).
#ifndef TROUPE_NET_INTERNAL_WRITE_MARKS_H_
#define TROUPE_NET_INTERNAL_WRITE_MARKS_H_

#include <cstddef>
#include <cstdint>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "troupe/net/transport.h"

namespace troupe::internal {

struct WriteMarks {
  size_t high = 64 << 10;
  size_t low = 16 << 10;

  // INVALID_ARGUMENT unless high >= low >= 0: then nothing has changed.
  absl::Status Set(const WriteBufferLimits& limits) {
    int64_t new_high = 64 << 10;
    if (limits.high.has_value()) {
      new_high = *limits.high;
    } else if (limits.low.has_value()) {
      constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
      new_high = *limits.low > kMax / 4 ? kMax : 4 * *limits.low;
    }
    const int64_t new_low = limits.low.value_or(new_high / 4);
    if (!(new_high >= new_low && new_low >= 0)) {
      return absl::InvalidArgumentError(
          absl::StrCat("high (", new_high, ") must be >= low (", new_low, ") must be >= 0"));
    }
    high = static_cast<size_t>(new_high);
    low = static_cast<size_t>(new_low);
    return absl::OkStatus();
  }
};

}  // namespace troupe::internal

#endif  // TROUPE_NET_INTERNAL_WRITE_MARKS_H_
