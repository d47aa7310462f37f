// FrameWatch: what nghttp2 does not tell of a peer's frames, and what it is not told of.
//
//   - Where a block of headers is open: nghttp2 tells when one has ended, and not that it will not. RFC 9113, section 4.3.
//   - Padding of DATA, section 6.1. nghttp2 gives its credit back when that comes to half of a window, which may be
//     megabytes, and meanwhile a peer that pads may have none left. So padding is taken out on the way to nghttp2, and
//     whoever owns this gives its credit back: windows then count messages alone.
//
// Wrong padding is passed on as it is: what is wrong with it is for nghttp2 to say.
#ifndef TROUPE_WIRE_GRPC_INTERNAL_FRAME_WATCH_H_
#define TROUPE_WIRE_GRPC_INTERNAL_FRAME_WATCH_H_

#include <nghttp2/nghttp2.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"

namespace troupe::grpc_wire {

class FrameWatch {
 public:
  // What padding has taken of the credit of a stream, and as much of the connection's.
  struct Padding {
    uint32_t id;
    uint32_t bytes;
  };

  // Bytes that stand before the first frame.
  explicit FrameWatch(size_t preface_bytes) : payload_left_(preface_bytes) {}

  // Takes bytes from the front; gives what nghttp2 is to be told instead: a part of them, or a header, which is valid until
  // the next time. Nothing: not yet.
  absl::Span<const char> Next(absl::Span<const char>& bytes) {
    if (payload_left_ == 0) {
      const size_t dropped = std::min(padding_left_, bytes.size());
      padding_left_ -= dropped;
      bytes.remove_prefix(dropped);
    }
    if (header_bytes_ == 0) {
      const size_t run = Run(bytes);
      const absl::Span<const char> told = bytes.subspan(0, run);
      bytes.remove_prefix(run);
      if (run > 0) return told;
    }
    // A header that is cut, or that changes.
    while (!bytes.empty()) {
      header_[header_bytes_++] = bytes.front();
      bytes.remove_prefix(1);
      if (header_bytes_ < kHeaderBytes || (header_bytes_ == kHeaderBytes && IsPadded(header_))) continue;
      const size_t told = std::exchange(header_bytes_, 0);
      return absl::MakeConstSpan(header_, told == kHeaderBytes ? Begin(header_) : BeginPadded());
    }
    return {};
  }

  // A block of headers that is open. 0: none; else a number of its own, above 1.
  uint64_t open_block() const { return in_block_ && (!last_frame_ || payload_left_ > 0) ? blocks_ + 1 : 0; }

  // Since it was asked last.
  std::vector<Padding> TakePadding() { return std::exchange(padding_, {}); }

 private:
  static constexpr size_t kHeaderBytes = 9;
  // RFC 9113, section 4.2: what we take; longer frames are a mistake, padded or not.
  static constexpr size_t kFrameBytesMax = 16384;

  static uint32_t Number(const char* from, int bytes) {
    uint32_t number = 0;
    for (int i = 0; i < bytes; ++i) number = number << 8 | static_cast<uint8_t>(from[i]);
    return number;
  }
  static bool IsPadded(const char* header) {
    const uint32_t length = Number(header, 3);
    return header[3] == NGHTTP2_DATA && (header[4] & NGHTTP2_FLAG_PADDED) != 0 && length > 0 &&
           length <= kFrameBytesMax;
  }

  // How much of `bytes` can be told as it is.
  size_t Run(absl::Span<const char> bytes) {
    size_t run = 0;
    while (true) {
      const size_t passed = std::min(payload_left_, bytes.size() - run);
      payload_left_ -= passed;
      run += passed;
      if (padding_left_ > 0 || bytes.size() - run < kHeaderBytes || IsPadded(&bytes[run])) return run;
      run += Begin(&bytes[run]);
    }
  }
  size_t Begin(const char* header) {
    payload_left_ = Number(header, 3);
    const auto type = static_cast<uint8_t>(header[3]), flags = static_cast<uint8_t>(header[4]);
    if (type == NGHTTP2_HEADERS) ++blocks_;
    in_block_ = type == NGHTTP2_HEADERS || type == NGHTTP2_CONTINUATION;
    last_frame_ = (flags & NGHTTP2_FLAG_END_HEADERS) != 0;
    return kHeaderBytes;
  }
  // As though the frame had no padding.
  size_t BeginPadded() {
    Begin(header_);
    const size_t length = payload_left_, padding = static_cast<uint8_t>(header_[kHeaderBytes]);
    if (padding >= length) {
      --payload_left_;
      return kHeaderBytes + 1;
    }
    padding_left_ = padding;
    payload_left_ = length - 1 - padding;
    for (int i = 0; i < 3; ++i) header_[i] = static_cast<char>(payload_left_ >> (16 - 8 * i));
    header_[4] = static_cast<char>(header_[4] & ~NGHTTP2_FLAG_PADDED);
    const uint32_t id = Number(header_ + 5, 4) & 0x7fffffff, bytes = static_cast<uint32_t>(1 + padding);
    if (!padding_.empty() && padding_.back().id == id) {
      padding_.back().bytes += bytes;
    } else {
      padding_.push_back({id, bytes});
    }
    return kHeaderBytes;
  }

  size_t payload_left_;
  size_t padding_left_ = 0;  // behind the payload
  char header_[kHeaderBytes + 1];
  size_t header_bytes_ = 0;
  bool in_block_ = false;
  bool last_frame_ = false;
  uint64_t blocks_ = 0;
  std::vector<Padding> padding_;
};

}  // namespace troupe::grpc_wire

#endif  // TROUPE_WIRE_GRPC_INTERNAL_FRAME_WATCH_H_
