// Bytes and ByteQueue: bytes on their way through a connection, in reference-counted chunks.
//
// Bytes      a slice of a chunk, shared and read-only; copying one costs a reference. It keeps its chunk alive wherever
//            it goes: past the queue, the transport and the thread that made it.
// ByteQueue  a first-in first-out queue of bytes: appended by copy, by sharing a slice, by taking over another queue,
// or
//            encoded in place (Reserve, Commit); taken from the front by looking (front, FillIovec) and Consume.
//
// For a string that is built once and read once std::string serves better; ByteQueue is for what is written and read
// piece by piece. An empty queue holds no chunk and costs its own 24 bytes. Chunks of the standard size come from a
// free list of the calling thread (compiled out under sanitizers, so that a use after free is seen).
//
// Threading: a queue is used by one thread at a time; Bytes that share a chunk may live on different threads.
// Lifetime:  what front() and FillIovec() show is valid until it is consumed. Appending does not move it.
#ifndef TROUPE_BASE_BYTE_QUEUE_H_
#define TROUPE_BASE_BYTE_QUEUE_H_

#include <sys/uio.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "troupe/base/pool.h"

namespace troupe {
namespace internal {

// The head of a chunk; its bytes follow. One holder at a time may write behind what has been filled: the queue segment
// whose `limit` is set.
struct ByteChunk {
  std::atomic<uint32_t> references;
  bool pooled;                  // of the standard size, from the free list
  size_t capacity;              // of data(), which follows; 0 when the bytes live elsewhere
  void (*release)(ByteChunk*);  // null: plain memory of ours

  char* data() { return reinterpret_cast<char*>(this + 1); }
};

// All of a standard chunk, head included: two pages, an allocator's size class.
inline constexpr size_t kByteChunkBytes = 8 << 10;
inline constexpr size_t kByteChunkCapacity = kByteChunkBytes - sizeof(ByteChunk);
inline constexpr uint32_t kByteChunksPerThread = 64;  // kept for reuse: 512 KiB

struct ByteChunkPool {
  ByteChunk* head = nullptr;  // linked through their data()
  uint32_t count = 0;
  bool closed = false;  // the thread is ending
};
extern thread_local constinit ByteChunkPool byte_chunk_pool;

// A chunk with one reference and at least `capacity` bytes.
ByteChunk* NewByteChunk(size_t capacity);
void FreeByteChunk(ByteChunk* chunk);

inline void Reference(ByteChunk* chunk) {
  if (chunk != nullptr) chunk->references.fetch_add(1, std::memory_order_relaxed);
}
inline void Release(ByteChunk* chunk) {
  if (chunk == nullptr) return;
  // The only holder needs no atomic subtraction: nobody else can be adding.
  if (chunk->references.load(std::memory_order_acquire) == 1 ||
      chunk->references.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    FreeByteChunk(chunk);
  }
}

}  // namespace internal

class Bytes {
 public:
  Bytes() = default;
  Bytes(const Bytes& other) : chunk_(other.chunk_), data_(other.data_), size_(other.size_) {
    internal::Reference(chunk_);
  }
  Bytes(Bytes&& other) noexcept
      : chunk_(std::exchange(other.chunk_, nullptr)),
        data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)) {}
  Bytes& operator=(Bytes other) noexcept {
    std::swap(chunk_, other.chunk_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Bytes() { internal::Release(chunk_); }

  static Bytes Copy(absl::Span<const char> data);
  // Takes the string over; its characters are not copied, unless they are few.
  static Bytes Adopt(std::string text);
  // For memory that outlives everything: constants.
  static Bytes Static(absl::string_view text);
  // `write(char*)` fills exactly `size` bytes of a chunk made for them.
  template <class Write>
  static Bytes Make(size_t size, Write&& write) {
    Bytes made(internal::NewByteChunk(size), size);
    write(made.chunk_->data());
    return made;
  }

  const char* data() const { return data_; }
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  absl::Span<const char> span() const { return {data_, size_}; }
  absl::string_view view() const { return {data_, size_}; }

  // A part of it, sharing the chunk. REQUIRES: offset + length <= size().
  Bytes Slice(size_t offset, size_t length) const;
  void RemovePrefix(size_t n) {
    data_ += n;
    size_ -= n;
  }

 private:
  friend class ByteQueue;
  // Takes over one reference.
  Bytes(internal::ByteChunk* chunk, size_t size) : chunk_(chunk), data_(chunk->data()), size_(size) {}
  Bytes(internal::ByteChunk* chunk, const char* data, size_t size) : chunk_(chunk), data_(data), size_(size) {}

  internal::ByteChunk* chunk_ = nullptr;
  const char* data_ = nullptr;
  size_t size_ = 0;
};

class ByteQueue {
 public:
  ByteQueue() = default;
  ByteQueue(ByteQueue&& other) noexcept
      : head_(std::exchange(other.head_, nullptr)),
        tail_(std::exchange(other.tail_, nullptr)),
        size_(std::exchange(other.size_, 0)) {}
  ByteQueue& operator=(ByteQueue&& other) noexcept {
    if (this != &other) {
      Clear();
      head_ = std::exchange(other.head_, nullptr);
      tail_ = std::exchange(other.tail_, nullptr);
      size_ = std::exchange(other.size_, 0);
    }
    return *this;
  }
  ~ByteQueue() { Clear(); }

  // Copies. Safe for bytes of this queue itself.
  void Append(absl::Span<const char> data) {
    if (tail_ != nullptr && data.size() <= static_cast<size_t>(tail_->limit - tail_->end)) {
      if (data.empty()) return;
      std::memcpy(tail_->end, data.data(), data.size());
      tail_->end += data.size();
      size_ += data.size();
      return;
    }
    AppendSlow(data);
  }
  void Append(const char* text) { Append(absl::MakeConstSpan(text, std::strlen(text))); }
  // Shares; copies when there is so little of it that a segment of its own would cost more.
  void Append(Bytes bytes);
  // Takes all of `other`, which is empty afterwards. Little of it is copied, as above.
  void Append(ByteQueue&& other);

  // Room for at least `min` bytes in one piece behind the last byte, to be filled and made part of the queue by
  // Commit(). Nothing else may be appended in between. REQUIRES: min > 0.
  absl::Span<char> Reserve(size_t min) {
    if (tail_ == nullptr || static_cast<size_t>(tail_->limit - tail_->end) < min) Grow(min);
    return {tail_->end, static_cast<size_t>(tail_->limit - tail_->end)};
  }
  // The first `n` bytes of what Reserve() gave are the queue's. Commit(0) gives the room up.
  void Commit(size_t n) {
    tail_->end += n;
    size_ += n;
    if (size_ == 0) Clear();
  }

  bool empty() const { return size_ == 0; }
  size_t size() const { return size_; }
  // The longest piece of the front that lies in one place; empty only when the queue is.
  absl::Span<const char> front() const {
    return size_ == 0 ? absl::Span<const char>() : absl::MakeConstSpan(head_->begin, head_->end);
  }
  // Points as many entries as there are pieces, or as fit, at the bytes from the front on; says how many.
  size_t FillIovec(absl::Span<iovec> pieces) const;

  // REQUIRES: n <= size().
  void Consume(size_t n);
  // The first `n` bytes as a queue of their own, shared and not copied. REQUIRES: n <= size().
  ByteQueue TakeFront(size_t n);
  // The first `n` bytes in one piece, copied only when they lie in several. REQUIRES: n <= size().
  Bytes TakeBytes(size_t n);
  // Copies the first `n` bytes to `to` and leaves them in the queue. REQUIRES: n <= size().
  void CopyTo(char* to, size_t n) const;
  std::string ToString() const;
  void Clear();

  // Memory that its chunks occupy, those shared with others counted in full.
  size_t footprint() const;

 private:
  // [begin, end) is in the queue; [end, limit) may be written by this queue. A slice that was shared has limit == end.
  // Only the last segment has room that is still used.
  struct Segment : Pooled {
    Segment* next = nullptr;
    internal::ByteChunk* chunk = nullptr;
    char* begin = nullptr;
    char* end = nullptr;
    char* limit = nullptr;
    // Room that was left behind the copied bytes before a shared slice: what is copied behind the slice goes there, so
    // that frame headers between large slices share one chunk. A reference of its own.
    internal::ByteChunk* spare = nullptr;
    char* spare_begin = nullptr;
    char* spare_limit = nullptr;
  };
  static_assert(sizeof(Segment) == 64);  // one grain of the pool

  void AppendSlow(absl::Span<const char> data);
  void Grow(size_t min);
  void Push(Segment* segment);
  // Makes the room left behind the last byte, if it is worth it, the spare of `segment`, which is to be pushed next.
  void KeepRoom(Segment* segment);
  void PopFront();

  Segment* head_ = nullptr;
  Segment* tail_ = nullptr;
  size_t size_ = 0;
};

}  // namespace troupe

#endif  // TROUPE_BASE_BYTE_QUEUE_H_
