// PoolAllocate, PoolFree: small blocks from free lists of the calling thread.
//
// For what the hot path makes and drops: coroutine frames, queued callbacks, timers, call records. A block is a
// multiple of 64 bytes, up to 2 KiB; larger ones go to the global allocator. A thread keeps at most 64 KiB of each
// size, in two halves. A block freed on a thread other than the one that made it joins that thread's list; where one
// thread makes what another drops, full halves go back through a depot that all threads share, one lock for as many
// blocks. The depot keeps at most 256 KiB of each size, 8 MiB in all.
//
// Under AddressSanitizer and ThreadSanitizer there is no pool, so that a use after free is seen.
#ifndef TROUPE_BASE_POOL_H_
#define TROUPE_BASE_POOL_H_

#include <cstddef>
#include <cstdint>
#include <new>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TROUPE_NO_POOLS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define TROUPE_NO_POOLS 1
#endif
#endif

namespace troupe {
namespace internal {

struct FreeList {
  struct Block {
    Block* next;
  };
  Block* head = nullptr;
  uint32_t count = 0;
  Block* spare = nullptr;  // a full half, or none
};

inline constexpr size_t kPoolGrain = 64;
inline constexpr size_t kPoolClasses = 33;              // 64 bytes to 2 KiB
inline constexpr size_t kPoolBytesPerClass = 64 << 10;  // 32 classes: at most 2 MiB a thread
// Blocks of a full half, or magazine.
constexpr uint32_t PoolMagazine(size_t size_class) {
  return static_cast<uint32_t>(kPoolBytesPerClass / 2 / kPoolGrain / size_class);
}

// Trivially destructible, so that a frame freed by a late thread-local destructor still finds it; PoolReleaser gives
// the blocks back when the thread ends.
struct ThreadPools {
  FreeList lists[kPoolClasses];
  bool closed = false;  // the thread is ending: free to the global allocator
};
extern thread_local constinit ThreadPools thread_pools;

// From 1 on; no bytes count as one.
constexpr size_t PoolSizeClass(size_t bytes) { return bytes == 0 ? 1 : (bytes - 1) / kPoolGrain + 1; }

// The list is empty: a block from the spare half, the depot or the global allocator.
void* PoolRefill(size_t size_class);
// The list is a full half, or the thread is ending: makes room, and takes the block.
void PoolOverflow(void* block, size_t size_class);

}  // namespace internal

inline void* PoolAllocate(size_t bytes) {
#ifdef TROUPE_NO_POOLS
  return ::operator new(bytes);
#else
  const size_t size_class = internal::PoolSizeClass(bytes);
  if (size_class >= internal::kPoolClasses) return ::operator new(bytes);
  internal::FreeList& list = internal::thread_pools.lists[size_class];
  if (list.head == nullptr) return internal::PoolRefill(size_class);
  internal::FreeList::Block* block = list.head;
  list.head = block->next;
  --list.count;
  return block;
#endif
}

// `bytes` as given to PoolAllocate.
inline void PoolFree(void* block, size_t bytes) {
#ifdef TROUPE_NO_POOLS
  (void)bytes;
  ::operator delete(block);
#else
  const size_t size_class = internal::PoolSizeClass(bytes);
  if (size_class >= internal::kPoolClasses) return ::operator delete(block);
  internal::ThreadPools& pools = internal::thread_pools;
  internal::FreeList& list = pools.lists[size_class];
  if (pools.closed || list.count >= internal::PoolMagazine(size_class)) {
    return internal::PoolOverflow(block, size_class);
  }
  auto* free = static_cast<internal::FreeList::Block*>(block);
  free->next = list.head;
  list.head = free;
  ++list.count;
#endif
}

// Base for objects that live in the pool: `class X : public Pooled`.
class Pooled {
 public:
  static void* operator new(size_t bytes) { return PoolAllocate(bytes); }
  static void operator delete(void* block, size_t bytes) { PoolFree(block, bytes); }
  static void* operator new(size_t, void* at) noexcept { return at; }
  static void operator delete(void*, void*) noexcept {}
};

}  // namespace troupe

#endif  // TROUPE_BASE_POOL_H_
