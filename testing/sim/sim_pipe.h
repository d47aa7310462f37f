// SimPipeEnd: one end of a pipe in memory, as Linux has them.
//
// Tests get a pipe from SimOs::MakePipe. It holds 64 KiB; bytes are there for the reader as soon as they are written.
// The end of the pipe comes when the last descriptor of its writing end is closed: ends are shared with the descriptors
// of children. A pipe that is nearly full is not writable, as in Linux, where it must have a free page, but takes what
// fits.
//
// Threading: the clock's thread.     Lifetime: either end may go first.
#ifndef TROUPE_TESTING_SIM_SIM_PIPE_H_
#define TROUPE_TESTING_SIM_SIM_PIPE_H_

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/types/span.h"
#include "troupe/testing/sim/sim_descriptor.h"

namespace troupe::testing {

class SimPipeEnd final : public SimDescriptor {
 public:
  // The reading end and the writing end.
  static std::pair<std::shared_ptr<SimPipeEnd>, std::shared_ptr<SimPipeEnd>> NewPair();
  ~SimPipeEnd() override;

  uint32_t Readiness() const override;
  bool is_pipe_like() const override { return true; }
  int64_t Read(absl::Span<char> bytes) override;
  int64_t Write(absl::Span<const iovec> bytes, size_t bytes_max) override;
  void HangUp() override;
  void Vanish() override;

 private:
  static constexpr size_t kBytesMax = 64 << 10;
  static constexpr size_t kPageBytes = 4096;

  explicit SimPipeEnd(bool reads) : reads_(reads) {}
  size_t unread() const { return bytes_.size() - taken_; }

  const bool reads_;
  SimPipeEnd* other_ = nullptr;  // null: closed
  // Of a reading end: what was written, and how much of that was read.
  std::string bytes_;
  size_t taken_ = 0;
};

}  // namespace troupe::testing

#endif  // TROUPE_TESTING_SIM_SIM_PIPE_H_
