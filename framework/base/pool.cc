#include "troupe/base/pool.h"

namespace troupe::internal {

thread_local constinit ThreadPools thread_pools;

namespace {

// Made by a thread's first refill; returns the thread's blocks when it ends.
struct PoolReleaser {
  ~PoolReleaser() {
    thread_pools.closed = true;
    for (FreeList& list : thread_pools.lists) {
      while (FreeList::Block* block = list.head) {
        list.head = block->next;
        ::operator delete(block);
      }
      list.count = 0;
    }
  }
};

}  // namespace

void* PoolRefill(size_t size_class) {
  static thread_local PoolReleaser releaser;
  static_cast<void>(&releaser);
  return ::operator new(size_class * kPoolGrain);
}

void PoolOverflow(void* block) { ::operator delete(block); }

}  // namespace troupe::internal
