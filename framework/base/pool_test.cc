#include "troupe/base/pool.h"

#include <cstdint>
#include <cstring>
#include <set>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace troupe {
namespace {

// Whatever the build: blocks are the caller's, whole, aligned, and may be freed in any order.
TEST(Pool, BlocksOfAllSizesAreWholeAndTheirOwn) {
  const std::vector<size_t> sizes = {0, 1, 63, 64, 65, 128, 1000, 2047, 2048, 2049, 4096, 100'000};
  std::vector<void*> blocks;
  for (int round = 0; round < 3; ++round) {
    for (const size_t size : sizes) {
      void* const block = PoolAllocate(size);
      ASSERT_NE(block, nullptr);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(block) % alignof(std::max_align_t), 0u) << size;
      std::memset(block, static_cast<int>(blocks.size()), size);
      blocks.push_back(block);
    }
  }
  EXPECT_EQ(std::set<void*>(blocks.begin(), blocks.end()).size(), blocks.size());
  for (size_t i = 0; i < blocks.size(); ++i) {
    const size_t size = sizes[i % sizes.size()];
    const auto* bytes = static_cast<const unsigned char*>(blocks[i]);
    for (size_t j = 0; j < size; ++j) ASSERT_EQ(bytes[j], i) << size;
    PoolFree(blocks[i], size);
  }
}

TEST(Pool, BlocksMayBeFreedOnAnotherThread) {
  std::vector<void*> blocks;
  for (int i = 0; i < 5000; ++i) blocks.push_back(PoolAllocate(256));
  std::thread([&] {
    for (void* block : blocks) PoolFree(block, 256);
    void* const own = PoolAllocate(256);
    std::memset(own, 1, 256);
    PoolFree(own, 256);
  }).join();  // its lists end with it: LeakSanitizer watches
}

struct Node : Pooled {
  explicit Node(int& alive) : alive(alive) { ++alive; }
  virtual ~Node() { --alive; }
  int& alive;
};
struct BigNode : Node {
  using Node::Node;
  char bytes[3000] = {};
};

TEST(Pool, PooledObjectsOfDerivedTypesAreFreedWithTheirOwnSize) {
  int alive = 0;
  Node* const small = new Node(alive);
  Node* const big = new BigNode(alive);
  EXPECT_EQ(alive, 2);
  delete big;
  delete small;
  EXPECT_EQ(alive, 0);
  alignas(Node) char place[sizeof(Node)];
  Node* const placed = new (place) Node(alive);
  placed->~Node();
  EXPECT_EQ(alive, 0);
}

#ifdef TROUPE_NO_POOLS
TEST(Pool, IsCompiledOutUnderSanitizers) {
  void* const block = PoolAllocate(64);
  PoolFree(block, 64);
  EXPECT_EQ(internal::thread_pools.lists[1].head, nullptr);
}
#else
TEST(Pool, AFreedBlockIsGivenAgainToItsSizeClassOnly) {
  void* const block = PoolAllocate(130);
  PoolFree(block, 130);
  void* const other = PoolAllocate(64);
  EXPECT_NE(other, block);
  void* const again = PoolAllocate(192);  // the same class: 129 to 192 bytes
  EXPECT_EQ(again, block);
  PoolFree(again, 192);
  PoolFree(other, 64);
}

TEST(Pool, AListKeepsAtMostItsBound) {
  constexpr size_t kSize = 1024;
  const internal::FreeList& list = internal::thread_pools.lists[kSize / internal::kPoolGrain];
  std::vector<void*> blocks;
  for (int i = 0; i < 200; ++i) blocks.push_back(PoolAllocate(kSize));
  for (void* block : blocks) PoolFree(block, kSize);
  EXPECT_EQ(list.count, internal::kPoolBytesPerClass / kSize);
}

TEST(Pool, LargeBlocksAreNotKept) {
  void* const block = PoolAllocate(100'000);
  PoolFree(block, 100'000);
  for (const internal::FreeList& list : internal::thread_pools.lists) {
    for (internal::FreeList::Block* kept = list.head; kept != nullptr; kept = kept->next) EXPECT_NE(kept, block);
  }
}
#endif

// Freed by a thread-local destructor that may run after the pool's own.
struct Late {
  ~Late() { PoolFree(block, 64); }
  void* block = nullptr;
};

TEST(Pool, FreesUntilTheThreadsLastBreath) {
  std::thread([] {
    static thread_local Late before;  // made before the pool's releaser: destroyed after it
    before.block = PoolAllocate(64);
    static thread_local Late after;
    after.block = PoolAllocate(64);
  }).join();
}

}  // namespace
}  // namespace troupe
