#include "troupe/os/io_limit.h"

#include <cstdlib>

#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "glog/logging.h"

namespace troupe {

IoLimit IoLimit::Parse(absl::string_view text) {
  IoLimit limit;
  if (text.empty()) return limit;
  absl::string_view rest = text;
  limit.random_ = absl::ConsumePrefix(&rest, "1-");
  const size_t colon = limit.random_ ? rest.find(':') : absl::string_view::npos;
  uint64_t seed = 1;
  const bool seeded = colon == absl::string_view::npos || absl::SimpleAtoi(rest.substr(colon + 1), &seed);
  CHECK(seeded && absl::SimpleAtoi(rest.substr(0, colon), &limit.bytes_max_) && limit.any())
      << "expected TROUPE_IO_BYTES_MAX=N, 1-N or 1-N:SEED, got " << text;
  limit.state_ = seed;
  return limit;
}

const IoLimit& IoLimit::FromEnvironment() {
  static const IoLimit limit = [] {
    const char* const text = std::getenv("TROUPE_IO_BYTES_MAX");
    return Parse(text == nullptr ? "" : text);
  }();
  return limit;
}

}  // namespace troupe
