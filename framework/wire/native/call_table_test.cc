#include "troupe/wire/native/call_table.h"

#include <cstdlib>
#include <map>
#include <memory>
#include <random>
#include <string>

#include "gtest/gtest.h"

namespace troupe::native {
namespace {

struct Call {
  uint32_t id;
};

TEST(CallTable, EmptyHoldsNoMemoryUntilItIsUsed) {
  CallTable<Call> table;
  EXPECT_EQ(table.footprint(), 0u);
  EXPECT_EQ(table.Find(1), nullptr);
}

TEST(CallTable, GivesItsMemoryBackWhenABurstIsOver) {
  CallTable<Call> table;
  std::map<uint32_t, std::unique_ptr<Call>> calls;
  for (uint32_t id = 1; id < 2001; id += 2) {
    calls[id] = std::make_unique<Call>(Call{id});
    table.Insert(*calls[id]);
  }
  EXPECT_EQ(table.size(), 1000u);
  EXPECT_GT(table.footprint(), 1000u);
  for (uint32_t id = 1; id < 2001; id += 2) table.Erase(id);
  EXPECT_EQ(table.size(), 0u);
  EXPECT_LE(table.footprint(), 64u);
}

TEST(CallTable, FindsWhatAMapFinds) {
  const char* given = std::getenv("TROUPE_SEED");
  const uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device()();
  SCOPED_TRACE("TROUPE_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  CallTable<Call> table;
  std::map<uint32_t, std::unique_ptr<Call>> model;
  uint32_t next = 1;
  for (int step = 0; step < 50000; ++step) {
    // Grows for a while, shrinks for a while; who leaves is anyone.
    const bool grow = model.empty() || random() % 100 < (step / 5000 % 2 == 0 ? 60u : 40u);
    if (grow) {
      const uint32_t id = next;
      next += random() % 3 == 0 ? 2 * (1 + random() % 1000) : 2;
      model[id] = std::make_unique<Call>(Call{id});
      table.Insert(*model[id]);
    } else {
      auto it = model.lower_bound(static_cast<uint32_t>(random() % next));
      if (it == model.end()) it = model.begin();
      table.Erase(it->first);
      EXPECT_EQ(table.Find(it->first), nullptr);
      model.erase(it);
    }
    ASSERT_EQ(table.size(), model.size());
    if (step % 100 == 0) {
      for (const auto& [id, call] : model) {
        ASSERT_EQ(table.Find(id), call.get()) << id;
        ASSERT_EQ(table.Find(id + 1), nullptr);
      }
    }
  }
}

}  // namespace
}  // namespace troupe::native
