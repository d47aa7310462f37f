#include "troupe/net/internal/read_buffer.h"

#if defined(__SANITIZE_ADDRESS__)
#define TROUPE_POISON 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TROUPE_POISON 1
#endif
#endif

#ifdef TROUPE_POISON
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) static_cast<void>(0)
#define ASAN_UNPOISON_MEMORY_REGION(address, size) static_cast<void>(0)
#endif

namespace troupe::internal {
namespace {

// Uninitialised on purpose: pages that no message reaches are never touched.
struct ThreadBuffer {
  std::unique_ptr<char[]> data;
  bool lent = false;
  ~ThreadBuffer() {
    if (data) ASAN_UNPOISON_MEMORY_REGION(data.get(), ReadBuffer::kBytes);
  }
};

// One for a transport, one for a layer (TLS) over it.
thread_local ThreadBuffer thread_buffers[2];

}  // namespace

ReadBuffer::ReadBuffer() {
  for (ThreadBuffer& shared : thread_buffers) {
    if (shared.lent) continue;
    if (!shared.data) shared.data.reset(new char[kBytes]);
    shared.lent = true;
    lent_ = &shared.lent;
    data_ = shared.data.get();
    ASAN_UNPOISON_MEMORY_REGION(data_, kBytes);
    return;
  }
  data_ = new char[kBytes];
}

ReadBuffer::~ReadBuffer() {
  if (lent_ == nullptr) {
    delete[] data_;
    return;
  }
  ASAN_POISON_MEMORY_REGION(data_, kBytes);
  *lent_ = false;
}

}  // namespace troupe::internal
