// SimFile: an open regular file of a simulated host, for reading.
//
// Tests put files there with SimOs::AddFile, also under descriptors that are open: who adds a file again changes what
// they read, as a program would that writes to it.
//
// Threading: the clock's thread.
#ifndef TROUPE_TESTING_SIM_SIM_FILE_H_
#define TROUPE_TESTING_SIM_SIM_FILE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "troupe/testing/sim/sim_descriptor.h"

namespace troupe::testing {

class SimFile final : public SimDescriptor {
 public:
  explicit SimFile(std::shared_ptr<const std::string> contents) : contents_(std::move(contents)) {}

  int64_t bytes() const { return static_cast<int64_t>(contents_->size()); }
  // At most `bytes_max` from `offset` on; "" at the end. REQUIRES: offset >= 0.
  absl::string_view At(int64_t offset, size_t bytes_max) const;
  int64_t ReadAt(int64_t offset, absl::Span<char> bytes) const;

  uint32_t Readiness() const override { return 0; }
  bool can_be_polled() const override { return false; }

 private:
  const std::shared_ptr<const std::string> contents_;  // with the host's directory
};

}  // namespace troupe::testing

#endif  // TROUPE_TESTING_SIM_SIM_FILE_H_
