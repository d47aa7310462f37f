// IoLimit: the most bytes that one read or write moves, for runs of the tests in which every boundary lies between two
// bytes somewhere.
//
//   TROUPE_IO_BYTES_MAX=1       every read and write of the process moves one byte
//   TROUPE_IO_BYTES_MAX=1-7     one to seven, at random
//   TROUPE_IO_BYTES_MAX=1-7:42  the same, from another seed
//
// PosixOs, SimOs and memory transports honour it, but for datagrams, which have boundaries; without it nothing is limited and nothing is asked. No correct protocol
// notices, but by the time it takes. `tools/run test bytes` runs the tests so.
//
// Threading: each thread, or each device, has a copy of its own.
#ifndef TROUPE_OS_IO_LIMIT_H_
#define TROUPE_OS_IO_LIMIT_H_

#include <cstddef>
#include <cstdint>
#include <limits>

#include "absl/strings/string_view.h"

namespace troupe {

class IoLimit {
 public:
  IoLimit() = default;  // none
  // As in the environment; dies of a text that is none of the forms above.
  static IoLimit Parse(absl::string_view text);
  // What the environment said when this was first called.
  static const IoLimit& FromEnvironment();

  bool any() const { return bytes_max_ != 0; }
  size_t bytes_max() const { return bytes_max_; }  // 0: none
  bool random() const { return random_; }

  // How many bytes the next read or write may move, at least 1.
  size_t Next() {
    if (!random_) return any() ? bytes_max_ : std::numeric_limits<size_t>::max();
    // Knuth's MMIX generator; its upper bits are the good ones.
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return 1 + static_cast<size_t>(state_ >> 33) % bytes_max_;
  }

 private:
  size_t bytes_max_ = 0;
  uint64_t state_ = 0;
  bool random_ = false;
};

}  // namespace troupe

#endif  // TROUPE_OS_IO_LIMIT_H_
