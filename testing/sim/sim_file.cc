#include "troupe/testing/sim/sim_file.h"

#include <algorithm>
#include <cerrno>

namespace troupe::testing {

absl::string_view SimFile::At(int64_t offset, size_t bytes_max) const {
  const auto from = std::min(static_cast<size_t>(offset), contents_->size());
  return absl::string_view(*contents_).substr(from, bytes_max);
}

int64_t SimFile::ReadAt(int64_t offset, absl::Span<char> bytes) const {
  if (offset < 0) return -EINVAL;
  const absl::string_view found = At(offset, bytes.size());
  std::copy_n(found.data(), found.size(), bytes.data());
  return static_cast<int64_t>(found.size());
}

}  // namespace troupe::testing
