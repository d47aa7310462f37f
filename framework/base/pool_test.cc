#include "troupe/base/pool.h"

#include <cstdint>
#include <cstring>
#include <mutex>
#include <set>
#include <thread>
#include <utility>
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
  size_t kept = list.count;
  for (const internal::FreeList::Block* block = list.spare; block != nullptr; block = block->next) ++kept;
  EXPECT_GT(kept, internal::kPoolBytesPerClass / kSize / 2);
  EXPECT_LE(kept, internal::kPoolBytesPerClass / kSize);
}

// What one thread makes and another drops comes back, all but what the other one and the depot keep.
TEST(Pool, BlocksComeBackFromTheThreadThatDropsThem) {
  constexpr size_t kSize = 1536;  // nobody else's
  constexpr int kBlocks = 300;
  std::vector<void*> blocks;
  for (int i = 0; i < kBlocks; ++i) blocks.push_back(PoolAllocate(kSize));
  const std::set<void*> made(blocks.begin(), blocks.end());
  int came_back = 0;
  std::thread([&] {
    for (void* block : blocks) PoolFree(block, kSize);
    std::thread([&] {
      for (void*& block : blocks) {
        block = PoolAllocate(kSize);
        came_back += static_cast<int>(made.count(block));
      }
      for (void* block : blocks) PoolFree(block, kSize);
    }).join();
  }).join();
  const int depot = 8 * static_cast<int>(internal::PoolMagazine(kSize / internal::kPoolGrain));
  EXPECT_GE(came_back, depot);
}

TEST(Pool, LargeBlocksAreNotKept) {
  void* const block = PoolAllocate(100'000);
  PoolFree(block, 100'000);
  for (const internal::FreeList& list : internal::thread_pools.lists) {
    for (internal::FreeList::Block* kept = list.head; kept != nullptr; kept = kept->next) EXPECT_NE(kept, block);
  }
}
#endif

// Many threads at once, each dropping what its neighbour made: nobody gets what another one has.
TEST(Pool, NoBlockIsGivenToTwo) {
  constexpr int kThreads = 4;
  constexpr int kRounds = 200;
  constexpr int kBlocks = 400;
  struct Hand {
    std::mutex mutex;
    std::vector<std::vector<uint64_t*>> given;
  };
  std::vector<Hand> hands(kThreads);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      Hand& from = hands[t];
      Hand& to = hands[(t + 1) % kThreads];
      const auto drop = [&from] {
        std::vector<std::vector<uint64_t*>> given;
        {
          std::lock_guard<std::mutex> lock(from.mutex);
          given.swap(from.given);
        }
        for (const std::vector<uint64_t*>& batch : given) {
          for (size_t i = 0; i < batch.size(); ++i) {
            ASSERT_EQ(batch[i][0], reinterpret_cast<uintptr_t>(batch[i]));
            ASSERT_EQ(batch[i][1], i);
            PoolFree(batch[i], 192);
          }
        }
      };
      for (int round = 0; round < kRounds; ++round) {
        std::vector<uint64_t*> batch;
        for (int i = 0; i < kBlocks; ++i) {
          auto* block = static_cast<uint64_t*>(PoolAllocate(192));
          block[0] = reinterpret_cast<uintptr_t>(block);
          block[1] = static_cast<uint64_t>(i);
          batch.push_back(block);
        }
        {
          std::lock_guard<std::mutex> lock(to.mutex);
          to.given.push_back(std::move(batch));
        }
        drop();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (Hand& hand : hands) {
    for (const std::vector<uint64_t*>& batch : hand.given) {
      for (uint64_t* block : batch) PoolFree(block, 192);
    }
  }
}

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
