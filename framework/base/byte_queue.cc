#include "troupe/base/byte_queue.h"

#include <algorithm>
#include <cassert>
#include <new>

namespace troupe {
namespace internal {

thread_local constinit ByteChunkPool byte_chunk_pool;

namespace {

#ifndef TROUPE_NO_POOLS
ByteChunk*& NextInPool(ByteChunk* chunk) { return *reinterpret_cast<ByteChunk**>(chunk->data()); }

// Made by a thread's first chunk; returns the thread's chunks when it ends.
struct PoolCloser {
  ~PoolCloser() {
    byte_chunk_pool.closed = true;
    while (ByteChunk* chunk = byte_chunk_pool.head) {
      byte_chunk_pool.head = NextInPool(chunk);
      ::operator delete(chunk);
    }
    byte_chunk_pool.count = 0;
  }
};
#endif

ByteChunk* Allocate(size_t capacity, bool pooled) {
  void* memory = ::operator new(sizeof(ByteChunk) + capacity);
  return new (memory) ByteChunk{.references = 1, .pooled = pooled, .capacity = capacity, .release = nullptr};
}

// A string that was taken over; its chunk has no bytes of its own.
struct StringChunk : ByteChunk {
  explicit StringChunk(std::string text)
      : ByteChunk{.references = 1, .pooled = false, .capacity = 0, .release = &Free}, text(std::move(text)) {}
  static void Free(ByteChunk* chunk) { delete static_cast<StringChunk*>(chunk); }
  std::string text;
};

}  // namespace

ByteChunk* NewByteChunk(size_t capacity) {
  if (capacity > kByteChunkCapacity) return Allocate(capacity, false);
#ifdef TROUPE_NO_POOLS
  // Exactly what was asked for where that is little, so that one byte too far is seen.
  return Allocate(capacity, false);
#else
  if (capacity < kByteChunkCapacity / 4) return Allocate(capacity, false);
  ByteChunkPool& pool = byte_chunk_pool;
  if (pool.head == nullptr) {
    static thread_local PoolCloser closer;
    static_cast<void>(&closer);
    return Allocate(kByteChunkCapacity, true);
  }
  ByteChunk* chunk = pool.head;
  pool.head = NextInPool(chunk);
  --pool.count;
  chunk->references.store(1, std::memory_order_relaxed);
  return chunk;
#endif
}

void FreeByteChunk(ByteChunk* chunk) {
  if (chunk->release != nullptr) return chunk->release(chunk);
#ifndef TROUPE_NO_POOLS
  ByteChunkPool& pool = byte_chunk_pool;
  if (chunk->pooled && !pool.closed && pool.count < kByteChunksPerThread) {
    NextInPool(chunk) = pool.head;
    pool.head = chunk;
    ++pool.count;
    return;
  }
#endif
  ::operator delete(chunk);
}

}  // namespace internal

using internal::ByteChunk;
using internal::kByteChunkCapacity;

namespace {
// Below this a copy is cheaper than a segment, and chunks are not left nearly empty behind it.
constexpr size_t kCopyBytesMax = 512;
// Less room than this is not kept behind a shared slice.
constexpr size_t kSpareBytesMin = 64;
// A large copy goes into chunks of this size.
constexpr size_t kLargeChunkBytes = 64 << 10;
}  // namespace

Bytes Bytes::Copy(absl::Span<const char> data) {
  if (data.empty()) return {};
  return Make(data.size(), [data](char* to) { std::memcpy(to, data.data(), data.size()); });
}

Bytes Bytes::Adopt(std::string text) {
  if (text.size() <= kCopyBytesMax) return Copy(absl::MakeConstSpan(text.data(), text.size()));
  auto* chunk = new internal::StringChunk(std::move(text));
  return Bytes(chunk, chunk->text.data(), chunk->text.size());
}

Bytes Bytes::Static(absl::string_view text) { return Bytes(nullptr, text.data(), text.size()); }

Bytes Bytes::Slice(size_t offset, size_t length) const {
  assert(offset <= size_ && length <= size_ - offset);
  internal::Reference(chunk_);
  return Bytes(chunk_, data_ + offset, length);
}

void ByteQueue::Push(Segment* segment) {
  if (tail_ == nullptr) {
    head_ = segment;
  } else {
    tail_->limit = tail_->end;
    tail_->next = segment;
  }
  tail_ = segment;
}

void ByteQueue::PopFront() {
  Segment* segment = head_;
  head_ = segment->next;
  if (head_ == nullptr) tail_ = nullptr;
  internal::Release(segment->chunk);
  internal::Release(segment->spare);
  delete segment;
}

void ByteQueue::KeepRoom(Segment* segment) {
  if (tail_ == nullptr) return;
  if (tail_->end != tail_->limit) {
    if (static_cast<size_t>(tail_->limit - tail_->end) < kSpareBytesMin) return;
    internal::Reference(tail_->chunk);
    segment->spare = tail_->chunk;
    segment->spare_begin = tail_->end;
    segment->spare_limit = tail_->limit;
  } else if (tail_->spare != nullptr) {
    segment->spare = std::exchange(tail_->spare, nullptr);
    segment->spare_begin = tail_->spare_begin;
    segment->spare_limit = tail_->spare_limit;
  }
}

void ByteQueue::Grow(size_t min) {
  // A reservation that was never used does not stay in the middle.
  if (tail_ != nullptr && size_ == 0) Clear();
  auto* segment = new Segment;
  if (tail_ != nullptr && tail_->spare != nullptr &&
      static_cast<size_t>(tail_->spare_limit - tail_->spare_begin) >= min) {
    segment->chunk = std::exchange(tail_->spare, nullptr);
    segment->begin = segment->end = tail_->spare_begin;
    segment->limit = tail_->spare_limit;
  } else {
    segment->chunk = internal::NewByteChunk(std::max(min, kByteChunkCapacity));
    segment->begin = segment->end = segment->chunk->data();
    segment->limit = segment->chunk->data() + segment->chunk->capacity;
  }
  Push(segment);
}

void ByteQueue::AppendSlow(absl::Span<const char> data) {
  while (!data.empty()) {
    if (tail_ == nullptr || tail_->end == tail_->limit) {
      Grow(std::min(data.size(), kLargeChunkBytes));
    }
    const size_t n = std::min(data.size(), static_cast<size_t>(tail_->limit - tail_->end));
    std::memcpy(tail_->end, data.data(), n);
    tail_->end += n;
    size_ += n;
    data.remove_prefix(n);
  }
}

void ByteQueue::Append(Bytes bytes) {
  if (bytes.size() <= kCopyBytesMax) return Append(bytes.span());
  if (tail_ != nullptr && size_ == 0) Clear();
  auto* segment = new Segment;
  segment->chunk = std::exchange(bytes.chunk_, nullptr);
  // Never written to: limit stands at the end.
  segment->begin = const_cast<char*>(bytes.data_);
  segment->end = segment->limit = segment->begin + bytes.size_;
  size_ += bytes.size_;
  KeepRoom(segment);
  Push(segment);
}

void ByteQueue::Append(ByteQueue&& other) {
  assert(this != &other);
  if (other.empty()) return other.Clear();
  if (empty()) {
    *this = std::move(other);
    return;
  }
  if (other.size_ <= kCopyBytesMax) {
    for (const Segment* s = other.head_; s != nullptr; s = s->next) Append(absl::MakeConstSpan(s->begin, s->end));
    return other.Clear();
  }
  tail_->limit = tail_->end;
  tail_->next = std::exchange(other.head_, nullptr);
  tail_ = std::exchange(other.tail_, nullptr);
  size_ += std::exchange(other.size_, 0);
}

size_t ByteQueue::FillIovec(absl::Span<iovec> pieces) const {
  size_t n = 0;
  for (const Segment* s = head_; s != nullptr && n < pieces.size(); s = s->next) {
    if (s->begin == s->end) continue;  // a reservation not yet committed
    pieces[n++] = {s->begin, static_cast<size_t>(s->end - s->begin)};
  }
  return n;
}

void ByteQueue::Consume(size_t n) {
  assert(n <= size_);
  size_ -= n;
  if (size_ == 0) return Clear();
  while (n > 0) {
    const size_t here = static_cast<size_t>(head_->end - head_->begin);
    if (n < here) {
      head_->begin += n;
      return;
    }
    n -= here;
    PopFront();
  }
  // Reservations that were given up leave nothing between what is behind them and the front.
  while (head_->begin == head_->end) PopFront();
}

ByteQueue ByteQueue::TakeFront(size_t n) {
  assert(n <= size_);
  if (n == size_) return std::move(*this);
  ByteQueue taken;
  while (n > 0) {
    const size_t here = static_cast<size_t>(head_->end - head_->begin);
    if (here <= n) {
      // Whole segments move; one of them cannot be the last, so none has room behind it.
      Segment* segment = head_;
      head_ = segment->next;
      segment->next = nullptr;
      taken.Push(segment);
      taken.size_ += here;
      size_ -= here;
      n -= here;
    } else {
      internal::Reference(head_->chunk);
      taken.Append(Bytes(head_->chunk, head_->begin, n));
      head_->begin += n;
      size_ -= n;
      n = 0;
    }
  }
  while (head_->begin == head_->end) PopFront();
  return taken;
}

Bytes ByteQueue::TakeBytes(size_t n) {
  assert(n <= size_);
  if (n == 0) return {};
  Bytes taken;
  if (n <= static_cast<size_t>(head_->end - head_->begin)) {
    internal::Reference(head_->chunk);
    taken = Bytes(head_->chunk, head_->begin, n);
  } else {
    taken = Bytes::Make(n, [this, n](char* to) { CopyTo(to, n); });
  }
  Consume(n);
  return taken;
}

void ByteQueue::CopyTo(char* to, size_t n) const {
  assert(n <= size_);
  for (const Segment* s = head_; n > 0; s = s->next) {
    const size_t here = std::min(n, static_cast<size_t>(s->end - s->begin));
    std::memcpy(to, s->begin, here);
    to += here;
    n -= here;
  }
}

std::string ByteQueue::ToString() const {
  std::string all(size_, '\0');
  CopyTo(all.data(), size_);
  return all;
}

void ByteQueue::Clear() {
  while (head_ != nullptr) PopFront();
  size_ = 0;
}

size_t ByteQueue::footprint() const {
  size_t bytes = 0;
  // Pieces between shared slices stand in one chunk: it is met again two segments later.
  const ByteChunk* before = nullptr;
  const ByteChunk* last = nullptr;
  for (const Segment* s = head_; s != nullptr; s = s->next) {
    bytes += sizeof(Segment);
    if (s->chunk != nullptr && s->chunk != last && s->chunk != before) bytes += sizeof(ByteChunk) + s->chunk->capacity;
    before = std::exchange(last, s->chunk);
  }
  return bytes;
}

}  // namespace troupe
