// ReadBuffer: the buffer into which transports receive, lent for one DataReceived.
//
// Two per thread, so that an idle connection holds none: a nested borrower (TLS, which a transport feeds from inside its
// own DataReceived) gets the second, and one nested deeper a new one. Under AddressSanitizer the bytes are poisoned once they have been given
// back: a protocol that kept the span is found out.
//
// Life: made (borrowed) -> span() -> destroyed (given back), in stack order
#ifndef TROUPE_NET_INTERNAL_READ_BUFFER_H_
#define TROUPE_NET_INTERNAL_READ_BUFFER_H_

#include <cstddef>
#include <memory>

#include "absl/types/span.h"

namespace troupe::internal {

class ReadBuffer {
 public:
  // asyncio's max_size: large enough that a bulk transfer takes few calls, small enough for a second-level cache.
  static constexpr size_t kBytes = 256 << 10;

  ReadBuffer();
  ReadBuffer(const ReadBuffer&) = delete;
  ReadBuffer& operator=(const ReadBuffer&) = delete;
  ~ReadBuffer();

  absl::Span<char> span() const { return {data_, kBytes}; }

 private:
  char* data_;
  bool* lent_ = nullptr;  // the thread's; null: data_ is our own
};

}  // namespace troupe::internal

#endif  // TROUPE_NET_INTERNAL_READ_BUFFER_H_
