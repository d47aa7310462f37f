// BlockWatch: where a block of headers is open in the frames of a peer.
//
// nghttp2 tells when a block has ended, and not that it will not. RFC 9113, sections 4.1 and 4.3.
#ifndef TROUPE_WIRE_GRPC_INTERNAL_BLOCK_WATCH_H_
#define TROUPE_WIRE_GRPC_INTERNAL_BLOCK_WATCH_H_

#include <nghttp2/nghttp2.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"

namespace troupe::grpc_wire {

class BlockWatch {
 public:
  // Bytes that stand before the first frame.
  explicit BlockWatch(size_t preface_bytes) : payload_left_(preface_bytes) {}

  void Pass(absl::Span<const char> bytes) {
    while (true) {
      const size_t passed = std::min(payload_left_, bytes.size());
      payload_left_ -= passed;
      bytes.remove_prefix(passed);
      if (bytes.empty()) return;
      header_[header_bytes_++] = static_cast<uint8_t>(bytes.front());
      bytes.remove_prefix(1);
      if (header_bytes_ < sizeof(header_)) continue;
      header_bytes_ = 0;
      payload_left_ = size_t{header_[0]} << 16 | size_t{header_[1]} << 8 | header_[2];
      const uint8_t type = header_[3], flags = header_[4];
      if (type == NGHTTP2_HEADERS) ++blocks_;
      in_block_ = type == NGHTTP2_HEADERS || type == NGHTTP2_CONTINUATION;
      last_frame_ = (flags & NGHTTP2_FLAG_END_HEADERS) != 0;
    }
  }

  // 0: none; else a number of its own, above 1.
  uint64_t open() const { return in_block_ && (!last_frame_ || payload_left_ > 0) ? blocks_ + 1 : 0; }

 private:
  size_t payload_left_;
  uint8_t header_[9];
  uint8_t header_bytes_ = 0;
  bool in_block_ = false;
  bool last_frame_ = false;
  uint64_t blocks_ = 0;
};

}  // namespace troupe::grpc_wire

#endif  // TROUPE_WIRE_GRPC_INTERNAL_BLOCK_WATCH_H_
