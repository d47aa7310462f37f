#include "troupe/base/pool.h"

#include <atomic>
#include <mutex>
#include <type_traits>
#include <utility>

namespace troupe::internal {

thread_local constinit ThreadPools thread_pools;

namespace {

using Block = FreeList::Block;

void FreeChain(Block* block) {
  while (block != nullptr) ::operator delete(std::exchange(block, block->next));
}

// Full magazines of one size, on their way between threads.
class alignas(64) Depot {
 public:
  // False: there is no room.
  bool Give(Block* magazine) {
    if (count_.load(std::memory_order_relaxed) == kMagazines) return false;
    std::lock_guard<std::mutex> lock(mutex_);
    const int count = count_.load(std::memory_order_relaxed);
    if (count == kMagazines) return false;
    magazines_[count] = magazine;
    count_.store(count + 1, std::memory_order_relaxed);
    return true;
  }
  // Null: it is empty.
  Block* Take() {
    if (count_.load(std::memory_order_relaxed) == 0) return nullptr;
    std::lock_guard<std::mutex> lock(mutex_);
    const int count = count_.load(std::memory_order_relaxed);
    if (count == 0) return nullptr;
    count_.store(count - 1, std::memory_order_relaxed);
    return magazines_[count - 1];
  }

 private:
  static constexpr int kMagazines = 8;
  std::mutex mutex_;
  std::atomic<int> count_ = 0;         // changed under the mutex
  Block* magazines_[kMagazines] = {};  // guarded by the mutex
};

// Never destroyed: threads may end after main.
constinit Depot depots[kPoolClasses];
static_assert(std::is_trivially_destructible_v<Depot>);

// Made by a thread's first refill; returns the thread's blocks when it ends.
struct PoolReleaser {
  ~PoolReleaser() {
    thread_pools.closed = true;
    for (FreeList& list : thread_pools.lists) {
      FreeChain(std::exchange(list.head, nullptr));
      FreeChain(std::exchange(list.spare, nullptr));
      list.count = 0;
    }
  }
};

}  // namespace

void* PoolRefill(size_t size_class) {
  static thread_local PoolReleaser releaser;
  static_cast<void>(&releaser);
  ThreadPools& pools = thread_pools;
  FreeList& list = pools.lists[size_class];
  Block* magazine = std::exchange(list.spare, nullptr);
  if (magazine == nullptr && !pools.closed) magazine = depots[size_class].Take();
  if (magazine == nullptr) return ::operator new(size_class * kPoolGrain);
  list.head = magazine->next;
  list.count = PoolMagazine(size_class) - 1;
  return magazine;
}

void PoolOverflow(void* block, size_t size_class) {
  ThreadPools& pools = thread_pools;
  if (pools.closed) return ::operator delete(block);
  FreeList& list = pools.lists[size_class];
  if (list.spare != nullptr && !depots[size_class].Give(list.spare)) FreeChain(list.spare);
  list.spare = std::exchange(list.head, nullptr);
  auto* free = static_cast<Block*>(block);
  free->next = nullptr;
  list.head = free;
  list.count = 1;
}

}  // namespace troupe::internal
