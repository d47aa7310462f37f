// What the store promises of a disk that fails: one scenario, run once for each change that it makes to the disk, with
// that change failing, or with the power going out there.
#include <sqlite3.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "services/kv/memory_disk.h"
#include "services/kv/store.h"

namespace kv {
namespace {

using State = std::map<std::string, std::string>;

// What was submitted, batch by batch, and what of it was acknowledged.
class Scenario {
 public:
  explicit Scenario(const MemoryDisk& disk) {
    options_.path = "kv.db";
    options_.vfs = disk.name();
    options_.log_pages_max = 8;  // several checkpoints
  }

  StoreOptions& options() { return options_; }

  // Opens, applies and closes; goes on after errors. Says what failed first.
  absl::Status Run() {
    absl::Status first;
    const auto note = [&](const absl::Status& status) {
      if (first.ok()) first = status;
    };
    for (int session = 0; session < 2; ++session) {
      auto store = Store::Open(options_);
      if (!store.ok()) {
        note(store.status());
        continue;
      }
      for (int i = 0; i < 6; ++i) {
        note(Apply(**store));
        if ((*store)->NeedsCheckpoint()) note((*store)->Checkpoint());
      }
    }
    return first;
  }

  // Opens and compares: the state is that after a whole number of batches, no fewer than were acknowledged.
  void ExpectNothingLost() {
    auto store = Store::Open(options_);
    ASSERT_TRUE(store.ok()) << store.status();
    const int64_t revision = (*store)->revision();
    EXPECT_GE(revision, acknowledged_) << "an acknowledged batch is lost";
    ASSERT_EQ(states_.count(revision), 1u) << "revision " << revision << " is in the middle of a batch";
    ListQuery query;
    query.entries_max = 1000;
    const auto page = (*store)->List(query);
    ASSERT_TRUE(page.ok()) << page.status();
    State got;
    for (const Entry& entry : page->entries) got[entry.key] = entry.value;
    EXPECT_TRUE(got == states_[revision]) << "not what was put up to revision " << revision;
    EXPECT_TRUE((*store)->Put("after", "1").ok());
  }

  int64_t acknowledged() const { return acknowledged_; }
  int64_t refused() const { return refused_; }

 private:
  absl::Status Apply(Store& store) {
    // Who may be there without having been acknowledged is there now, or never will be.
    const int64_t revision = store.revision();
    State state = states_[revision];
    std::vector<Mutation> batch;
    for (int i = 0; i < 5; ++i) {
      ++step_;
      const std::string key = absl::StrCat("key", step_ * 7 % 23);
      if (step_ % 4 == 0 && state.count(key) != 0) {
        batch.push_back({key, std::nullopt});
        state.erase(key);
      } else {
        const std::string value = absl::StrCat(step_, std::string(static_cast<size_t>(step_) * 211 % 1500, 'v'));
        batch.push_back({key, value});
        state[key] = value;
      }
    }
    const int64_t after = revision + static_cast<int64_t>(batch.size());
    states_[after] = state;
    const auto revisions = store.Apply(batch);
    if (!revisions.ok()) {
      ++refused_;
      return revisions.status();
    }
    EXPECT_EQ(revisions->back(), after);
    acknowledged_ = after;
    return absl::OkStatus();
  }

  StoreOptions options_;
  int64_t step_ = 0;
  int64_t acknowledged_ = 0;
  int64_t refused_ = 0;
  std::map<int64_t, State> states_ = {{0, {}}};  // after each batch, by revision
};

int64_t ChangesOfAHealthyRun() {
  MemoryDisk disk(1);
  Scenario scenario(disk);
  EXPECT_TRUE(scenario.Run().ok());
  EXPECT_EQ(scenario.acknowledged(), 2 * 6 * 5);
  const int64_t changes = disk.changes();
  scenario.ExpectNothingLost();
  return changes;
}

TEST(StoreDiskTest, NothingAcknowledgedIsLostWhenThePowerGoesOutAtAnyMoment) {
  const int64_t changes = ChangesOfAHealthyRun();
  ASSERT_GT(changes, 100);
  for (int64_t k = 1; k <= changes; ++k) {
    SCOPED_TRACE(absl::StrCat("power cut at change ", k));
    MemoryDisk disk(static_cast<uint32_t>(k));
    Scenario scenario(disk);
    disk.CutPowerAt(k);
    const absl::Status status = scenario.Run();
    EXPECT_TRUE(disk.failed());
    // While the last session closes nobody is told.
    EXPECT_TRUE(!status.ok() || k > changes - 20) << "nobody was told";
    disk.Restore();
    scenario.ExpectNothingLost();
    if (HasFailure()) return;
  }
}

TEST(StoreDiskTest, NothingAcknowledgedIsLostWhenAnyChangeOfTheDiskFails) {
  const int64_t changes = ChangesOfAHealthyRun();
  for (const int code : {SQLITE_IOERR, SQLITE_FULL}) {
    int64_t refused = 0;
    for (int64_t k = 1; k <= changes; ++k) {
      SCOPED_TRACE(absl::StrCat("change ", k, " fails with ", sqlite3_errstr(code)));
      MemoryDisk disk(static_cast<uint32_t>(k));
      Scenario scenario(disk);
      disk.FailAt(k, code);
      const absl::Status status = scenario.Run();
      EXPECT_TRUE(disk.failed());
      EXPECT_TRUE(!status.ok() || scenario.refused() == 0);
      refused += scenario.refused();
      scenario.ExpectNothingLost();
      if (HasFailure()) return;
    }
    EXPECT_GT(refused, 0);
  }
}

// A disk that failed to sync may say OK the next time without having written.
TEST(StoreDiskTest, AfterAFailedSyncNothingMoreIsAcknowledged) {
  for (int64_t k = 1; k < 30; ++k) {
    MemoryDisk disk(1);
    StoreOptions options;
    options.path = "kv.db";
    options.vfs = disk.name();
    auto store = Store::Open(options);
    ASSERT_TRUE(store.ok());
    disk.FailAt(k, SQLITE_IOERR_FSYNC);
    absl::Status status;
    while (status.ok()) status = (*store)->Put("a", "1").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_EQ((*store)->Put("a", "2").status().code(), absl::StatusCode::kInternal);
    EXPECT_EQ((*store)->Checkpoint().code(), absl::StatusCode::kInternal);
    const auto got = (*store)->Get("a").status();
    EXPECT_TRUE(got.ok() || absl::IsNotFound(got)) << "reading goes on: " << got;
  }
}

TEST(StoreDiskTest, AFullDiskRefusesDeletionsTooUntilThereIsRoom) {
  MemoryDisk disk(1);
  StoreOptions options;
  options.path = "kv.db";
  options.vfs = disk.name();
  auto store = Store::Open(options);
  ASSERT_TRUE(store.ok());
  ASSERT_TRUE((*store)->Put("a", "1").ok());
  disk.FailAt(1, SQLITE_FULL);
  const absl::Status refused = (*store)->Delete("a").status();
  // It is tried once more, with the room that deletions have of their own; a disk that was full for a moment takes it.
  EXPECT_TRUE(refused.ok() || absl::IsResourceExhausted(refused)) << refused;
  if (!refused.ok()) {
    EXPECT_TRUE(*(*store)->Delete("a"));
  }
  EXPECT_TRUE(absl::IsNotFound((*store)->Get("a").status()));
  EXPECT_EQ((*store)->revision(), 2);
}

TEST(StoreDiskTest, AFullDiskIsNoReasonToStop) {
  MemoryDisk disk(1);
  StoreOptions options;
  options.path = "kv.db";
  options.vfs = disk.name();
  auto store = Store::Open(options);
  ASSERT_TRUE(store.ok());
  disk.FailAt(1, SQLITE_FULL);
  EXPECT_EQ((*store)->Put("a", "1").status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(*(*store)->Put("a", "2"), 1);
  EXPECT_EQ((*store)->Get("a")->value, "2");
}

}  // namespace
}  // namespace kv
