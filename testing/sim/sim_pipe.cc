#include "troupe/testing/sim/sim_pipe.h"

#include <algorithm>
#include <cerrno>

#include "troupe/os/os.h"

namespace troupe::testing {

std::pair<std::shared_ptr<SimPipeEnd>, std::shared_ptr<SimPipeEnd>> SimPipeEnd::NewPair() {
  std::shared_ptr<SimPipeEnd> reader(new SimPipeEnd(/*reads=*/true)), writer(new SimPipeEnd(/*reads=*/false));
  reader->other_ = writer.get();
  writer->other_ = reader.get();
  return {std::move(reader), std::move(writer)};
}

SimPipeEnd::~SimPipeEnd() {
  TellClosed();
  if (other_ == nullptr) return;
  other_->other_ = nullptr;
  other_->Changed();
}

void SimPipeEnd::HangUp() {
  bytes_.clear();
  taken_ = 0;
  if (other_ == nullptr) return;
  SimPipeEnd& other = *std::exchange(other_, nullptr);
  other.other_ = nullptr;
  other.Changed();
  Changed();
}

void SimPipeEnd::Vanish() {
  if (other_ != nullptr) other_->other_ = nullptr;
  other_ = nullptr;
}

uint32_t SimPipeEnd::Readiness() const {
  if (other_ == nullptr) return kHangUp;
  if (reads_) return unread() > 0 ? uint32_t{kReadable} : 0;
  return kBytesMax - other_->unread() >= kPageBytes ? uint32_t{kWritable} : 0;
}

int64_t SimPipeEnd::Read(absl::Span<char> bytes) {
  if (!reads_) return -EBADF;
  if (bytes.empty()) return 0;
  if (unread() == 0) return other_ == nullptr ? 0 : -EAGAIN;
  const size_t n = std::min(bytes.size(), unread());
  std::copy_n(bytes_.data() + taken_, n, bytes.data());
  taken_ += n;
  if (taken_ > bytes_.size() / 2) bytes_.erase(0, std::exchange(taken_, 0));
  if (other_ != nullptr) other_->Changed();
  return static_cast<int64_t>(n);
}

int64_t SimPipeEnd::Write(absl::Span<const iovec> bytes, size_t bytes_max) {
  if (reads_) return -EBADF;
  const bool nothing = std::all_of(bytes.begin(), bytes.end(), [](const iovec& part) { return part.iov_len == 0; });
  if (nothing) return 0;
  if (other_ == nullptr) return -EPIPE;
  size_t room = std::min(bytes_max, kBytesMax - other_->unread());
  if (room == 0) return -EAGAIN;
  int64_t written = 0;
  for (const iovec& part : bytes) {
    const size_t n = std::min(room, part.iov_len);
    other_->bytes_.append(static_cast<const char*>(part.iov_base), n);
    room -= n;
    written += static_cast<int64_t>(n);
  }
  other_->Changed();
  return written;
}

}  // namespace troupe::testing
