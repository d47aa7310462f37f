// Most tests here run the store's work by hand, on the loop's thread, so that what happens between two turns is under
// their control. Those at the end use its own thread.
#include "services/kv/async_store.h"

#include <sqlite3.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/kv/manual_pool.h"
#include "services/kv/memory_disk.h"
#include "services/kv/temporary_store.h"
#include "troupe/async/sleep.h"
#include "troupe/async/task.h"
#include "troupe/base/errors.h"
#include "troupe/os/posix_os.h"

namespace kv {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using troupe::Future;
using troupe::Task;

using Applied = absl::StatusOr<std::vector<SharedChange>>;

// Of what was applied; 0 for what changed nothing.
std::vector<int64_t> Revisions(const Future<Applied>& applied) {
  std::vector<int64_t> revisions;
  for (const SharedChange& change : *applied.result()) revisions.push_back(change != nullptr ? change->revision : 0);
  return revisions;
}

class AsyncStoreTest : public ::testing::Test {
 protected:
  ~AsyncStoreTest() override {
    store_.reset();
    loop_.Close();
  }

  void Make(AsyncStoreOptions options = {}) {
    auto pool = std::make_unique<ManualPool>();
    pool_ = pool.get();
    store_ = std::make_unique<AsyncStore>(loop_, files_.Open(), options, std::move(pool));
  }
  Future<Applied> Put(const std::string& key, const std::string& value) {
    std::vector<Mutation> one(1);
    one[0] = {key, value};
    return store_->Apply(std::move(one));
  }
  // What is ready on the loop, with what that makes ready.
  void Settle() {
    do loop_.RunOnceWithoutWaiting();
    while (loop_.HasReady());
  }
  // One turn of the store, and what comes of it.
  void Turn() {
    Settle();
    ASSERT_TRUE(pool_->RunOne()) << "the store has nothing to do";
    Settle();
  }
  void AllTurns() {
    do Settle();
    while (pool_->RunOne());
  }
  template <class T>
  static std::string Text(const Future<absl::StatusOr<T>>& future) {
    if (!future.done()) return "pending";
    if (future.cancelled()) return "cancelled";
    return future.result().status().ToString();
  }

  troupe::EventLoop loop_{troupe::PosixOs::Get()};
  TemporaryStore files_;
  ManualPool* pool_ = nullptr;
  std::unique_ptr<AsyncStore> store_;
};

TEST_F(AsyncStoreTest, AnswersWhatTheStoreAnswers) {
  Make();
  auto put = Put("a", "1");
  AllTurns();
  EXPECT_THAT(Revisions(put), ElementsAre(1));
  auto get = store_->Get("a");
  auto none = store_->Get("b");
  auto list = store_->List({});
  auto changes = store_->Changes({});
  AllTurns();
  EXPECT_EQ(get.result()->value, "1");
  EXPECT_EQ(Text(none), "NOT_FOUND: no such key");
  EXPECT_EQ(list.result()->entries.size(), 1u);
  EXPECT_EQ(changes.result()->after, 1);
  EXPECT_EQ(store_->counters().reads.value(), 4u);
}

TEST_F(AsyncStoreTest, WhatIsAskedForTogetherIsCommittedTogether) {
  Make();
  std::vector<Future<Applied>> puts;
  for (int i = 0; i < 100; ++i) puts.push_back(Put(absl::StrCat(i), ""));
  Turn();
  for (int i = 0; i < 100; ++i) EXPECT_THAT(Revisions(puts[i]), ElementsAre(i + 1));
  EXPECT_EQ(store_->counters().commits.value(), 1u);
  EXPECT_EQ(store_->counters().mutations.value(), 100u);
  EXPECT_FALSE(pool_->RunOne());
}

TEST_F(AsyncStoreTest, WhatComesDuringACommitIsGathered) {
  Make();
  auto first = Put("a", "");
  Settle();
  ASSERT_EQ(pool_->size(), 1u);  // under way
  std::vector<Future<Applied>> puts;
  for (int i = 0; i < 10; ++i) {
    puts.push_back(Put("b", ""));
    Settle();
  }
  EXPECT_EQ(Text(first), "pending");
  Turn();
  EXPECT_EQ(Text(first), "OK");
  EXPECT_EQ(Text(puts[0]), "pending");
  Turn();
  for (const auto& put : puts) EXPECT_EQ(Text(put), "OK");
  EXPECT_EQ(store_->counters().commits.value(), 2u);
}

TEST_F(AsyncStoreTest, CommitsAreBoundedAndWhoAsksForMoreHasSeveral) {
  AsyncStoreOptions options;
  options.commit.mutations_max = 4;
  options.commit.bytes_max = 100;
  Make(options);
  const auto apply = [&](size_t count, size_t bytes) {
    return store_->Apply(std::vector<Mutation>(count, Mutation{"k", std::string(bytes - 1, 'v')}));
  };
  auto three = apply(3, 1), two = apply(2, 1), five = apply(5, 1), large = apply(1, 150), small = apply(1, 2);
  Turn();
  EXPECT_THAT(Revisions(three), ElementsAre(1, 2, 3));
  EXPECT_EQ(Text(two), "pending");
  EXPECT_EQ(store_->feed().revision(), 4) << "one of the two";
  Turn();
  EXPECT_THAT(Revisions(two), ElementsAre(4, 5));
  EXPECT_EQ(store_->feed().revision(), 8);
  EXPECT_EQ(Text(five), "pending");
  Turn();
  EXPECT_THAT(Revisions(five), ElementsAre(6, 7, 8, 9, 10));
  EXPECT_EQ(Text(large), "pending");
  Turn();
  EXPECT_EQ(Text(large), "OK") << "one in any case";
  EXPECT_EQ(Text(small), "pending");
  Turn();
  EXPECT_EQ(Text(small), "OK");
}

// What nobody could see in the size of the requests: a deletion of 20 bytes that frees 1 MiB.
TEST_F(AsyncStoreTest, AGetWaitsForLittleOfTheDeletionOfMuch) {
  MemoryDisk disk(1);
  files_.options().path = "kv.db";
  files_.options().vfs = disk.name();
  Make();
  constexpr int kValues = 16;
  for (int i = 0; i < kValues; ++i) Put(absl::StrCat("D", i), std::string(1 << 20, 'D'));
  AllTurns();
  auto attacker = std::make_unique<AsyncStore::Caller>(*store_), honest = std::make_unique<AsyncStore::Caller>(*store_);
  std::vector<Future<Applied>> changes;
  for (int i = 0; i < kValues; ++i) {
    std::vector<Mutation> one(1);
    one[0].key = absl::StrCat("D", i);
    if (i % 2 == 0) one[0].value = "";
    changes.push_back(attacker->Apply(std::move(one)));
  }
  Settle();
  while (!changes.back().done()) {
    auto get = honest->Get("D0");
    const int64_t before = disk.bytes_moved();
    Turn();  // what was under way
    EXPECT_EQ(Text(get), "pending");
    EXPECT_LT(disk.bytes_moved() - before, 3 << 19);
    Turn();
    EXPECT_EQ(Text(get), "OK");
  }
  attacker.reset();
  honest.reset();
  store_.reset();  // before its disk
}

TEST_F(AsyncStoreTest, WhatFollowsInACancelledApplyIsNotMade) {
  AsyncStoreOptions options;
  options.commit.mutations_max = 2;
  Make(options);
  auto batch = store_->Apply(std::vector<Mutation>(5, Mutation{"k", "v"}));
  Turn();
  EXPECT_EQ(store_->feed().revision(), 2);
  batch.Cancel();
  AllTurns();
  EXPECT_EQ(store_->feed().revision(), 4) << "what was under way is made";
  EXPECT_EQ(store_->counters().cancelled.value(), 1u);
}

TEST_F(AsyncStoreTest, WhoHasHadAPartOfACommitGoesLastInTheNext) {
  AsyncStoreOptions options;
  options.commit.mutations_max = 4;
  options.shared_part = 1;
  Make(options);
  AsyncStore::Caller greedy(*store_), modest(*store_);
  auto batch = greedy.Apply(std::vector<Mutation>(100, Mutation{"k", "v"}));
  auto own = modest.Apply(std::vector<Mutation>(1, Mutation{"m", "v"}));
  Turn();
  EXPECT_EQ(Text(own), "pending");
  Turn();
  EXPECT_THAT(Revisions(own), ElementsAre(5));
  EXPECT_EQ(Text(batch), "pending");
  AllTurns();
  EXPECT_EQ(Revisions(batch).back(), 101);
}

TEST_F(AsyncStoreTest, AReadWaitsForOneCommitOnly) {
  AsyncStoreOptions options;
  options.commit.mutations_max = 1;
  Make(options);
  std::vector<Future<Applied>> puts;
  for (int i = 0; i < 3; ++i) puts.push_back(Put("k", absl::StrCat(i)));
  Settle();  // the first commit is under way
  auto get = store_->Get("k");
  Turn();
  EXPECT_EQ(Text(puts[0]), "OK");
  EXPECT_EQ(Text(get), "pending");
  Turn();
  EXPECT_EQ(get.result()->value, "0");
  EXPECT_EQ(Text(puts[1]), "pending");
  Turn();
  EXPECT_EQ(Text(puts[1]), "OK");
}

TEST_F(AsyncStoreTest, ACommitWaitsForOneTurnOfReadsOnly) {
  AsyncStoreOptions options;
  options.turn_reads_max = 2;
  Make(options);
  std::vector<Future<absl::StatusOr<Entry>>> gets;
  for (int i = 0; i < 5; ++i) gets.push_back(store_->Get("k"));
  Settle();
  auto put = Put("k", "");
  Turn();
  EXPECT_EQ(Text(gets[1]), "NOT_FOUND: no such key");
  EXPECT_EQ(Text(gets[2]), "pending");
  Turn();
  EXPECT_EQ(Text(put), "OK");
  EXPECT_EQ(Text(gets[2]), "pending");
  Turn();
  EXPECT_EQ(Text(gets[3]), "OK");
  Turn();
  EXPECT_EQ(Text(gets[4]), "OK");
}

TEST_F(AsyncStoreTest, ATurnOfReadsHoldsNoMoreThanItsBytes) {
  AsyncStoreOptions options;
  options.turn_bytes_max = 150;
  Make(options);
  Put("k", std::string(100, 'v'));
  AllTurns();
  auto a = store_->Get("k"), b = store_->Get("k");
  auto c = store_->List({});
  auto d = store_->Changes({});
  Turn();
  EXPECT_EQ(Text(b), "OK");
  EXPECT_EQ(Text(c), "pending");
  auto e = store_->Get("k");
  Turn();
  EXPECT_EQ(Text(c), "OK");
  EXPECT_EQ(Text(d), "OK");
  EXPECT_EQ(Text(e), "pending") << "overtook those that were put back";
  Turn();
  EXPECT_EQ(Text(e), "OK");
}

TEST_F(AsyncStoreTest, ReadsSeeWhatWasAcknowledgedBefore) {
  Make();
  for (int i = 0; i < 5; ++i) {
    auto put = Put("k", absl::StrCat(i));
    AllTurns();
    ASSERT_EQ(Text(put), "OK");
    auto get = store_->Get("k");
    AllTurns();
    EXPECT_EQ(get.result()->value, absl::StrCat(i));
  }
}

// ---- callers

TEST_F(AsyncStoreTest, CallersAreServedOneByOne) {
  AsyncStoreOptions options;
  options.turn_reads_max = 2;
  Make(options);
  AsyncStore::Caller greedy(*store_), modest(*store_);
  std::vector<Future<absl::StatusOr<Entry>>> gets;
  for (int i = 0; i < 10; ++i) gets.push_back(greedy.Get("k"));
  auto get = modest.Get("k");
  Turn();
  EXPECT_EQ(Text(get), "NOT_FOUND: no such key") << "in the first turn, beside one of the other";
  EXPECT_EQ(Text(gets[0]), "NOT_FOUND: no such key");
  EXPECT_EQ(Text(gets[1]), "pending");
  AllTurns();
  EXPECT_EQ(Text(gets[9]), "NOT_FOUND: no such key");
}

TEST_F(AsyncStoreTest, ChangesOfCallersTakeTurnsAndKeepTheirOwnOrder) {
  AsyncStoreOptions options;
  options.commit.mutations_max = 2;
  Make(options);
  AsyncStore::Caller greedy(*store_), modest(*store_);
  const auto put = [](AsyncStore::Caller& caller, std::string key) {
    std::vector<Mutation> one(1);
    one[0] = {std::move(key), "v"};
    return caller.Apply(std::move(one));
  };
  std::vector<Future<Applied>> puts;
  for (int i = 0; i < 10; ++i) puts.push_back(put(greedy, "g"));
  auto own = put(modest, "m");
  Turn();
  EXPECT_THAT(Revisions(puts[0]), ElementsAre(1));
  EXPECT_THAT(Revisions(own), ElementsAre(2));
  AllTurns();
  for (int i = 1; i < 10; ++i) EXPECT_THAT(Revisions(puts[i]), ElementsAre(i + 2));
}

// Who fills the disk alone has all of each commit; beside others a sixteenth, so that nobody waits long for its commits.
TEST_F(AsyncStoreTest, WhoFillsTheDiskHasAPartOfEachCommitWhileOthersUseTheStore) {
  Make();
  AsyncStore::Caller greedy(*store_), modest(*store_);
  const auto puts = [](AsyncStore::Caller& caller, int count, size_t bytes) {
    std::vector<Mutation> some(static_cast<size_t>(count));
    for (Mutation& each : some) each = {"k", std::string(bytes, 'v')};
    return caller.Apply(std::move(some));
  };
  std::vector<Future<Applied>> many;
  for (int i = 0; i < 300; ++i) many.push_back(puts(greedy, 1, 1));
  Turn();
  EXPECT_EQ(store_->counters().mutations.value(), 128u) << "alone";
  auto own = puts(modest, 1, 1);
  Turn();  // what was under way
  EXPECT_EQ(store_->counters().mutations.value(), 256u);
  Turn();
  EXPECT_EQ(Text(own), "OK");
  EXPECT_EQ(store_->counters().mutations.value(), 256u + 9);
  Turn();
  EXPECT_EQ(store_->counters().mutations.value(), 256u + 9 + 8) << "and for a while";
  AllTurns();
  for (const auto& each : many) EXPECT_EQ(Text(each), "OK");
  // As are those of one Apply, and those of large values.
  auto get = modest.Get("k");
  uint64_t before = store_->counters().mutations.value();
  auto batch = puts(greedy, 100, 1);
  auto behind = puts(greedy, 1, 1);
  own = puts(modest, 2, 1);
  Turn();  // the get
  Turn();
  EXPECT_EQ(Text(own), "OK");
  EXPECT_EQ(Text(batch), "pending");
  EXPECT_EQ(store_->counters().mutations.value() - before, 8u + 2);
  AllTurns();
  EXPECT_EQ(Revisions(batch).back() + 1, Revisions(behind)[0]) << "in its order";
  before = store_->counters().mutations.value();
  get = modest.Get("k");
  batch = puts(greedy, 10, 30'000);
  auto large = puts(greedy, 1, 500'000);
  Turn();
  Turn();
  EXPECT_EQ(store_->counters().mutations.value() - before, 2u) << "a sixteenth of 1 MiB";
  AllTurns();
  EXPECT_EQ(Text(batch), "OK");
  EXPECT_EQ(Text(large), "OK") << "one in any case";
}

TEST_F(AsyncStoreTest, WhatFollowsAChangeThatFailsInPartsIsMade) {
  files_.options().file_bytes_max = 1 << 20;
  Make();
  AsyncStore::Caller greedy(*store_), modest(*store_);
  std::vector<Mutation> some(40);
  for (size_t i = 0; i < some.size(); ++i) some[i] = {absl::StrCat(i), std::string(60'000, 'v')};
  auto get = modest.Get("k");
  auto too_much = greedy.Apply(std::move(some));
  std::vector<Mutation> one(1);
  one[0] = {"small", ""};
  auto behind = greedy.Apply(std::move(one));
  AllTurns();
  EXPECT_THAT(Text(too_much), HasSubstr("RESOURCE_EXHAUSTED"));
  EXPECT_EQ(Text(behind), "OK");
}

// What nine connections with a thousand cheap-to-ask scans did to everybody else.
TEST_F(AsyncStoreTest, AGetWaitsForTheScanUnderWayAndForNoOther) {
  AsyncStoreOptions options;
  options.turn_rows_max = 50;
  Make(options);
  std::vector<Mutation> keys;
  for (int i = 0; i < 100; ++i) keys.push_back({absl::StrCat("k", 100 + i), ""});
  auto filled = store_->Apply(std::move(keys));
  AllTurns();
  ASSERT_EQ(Text(filled), "OK");
  std::vector<std::unique_ptr<AsyncStore::Caller>> attackers;
  std::vector<Future<absl::StatusOr<ListPage>>> lists;
  ListQuery all, one_key;
  all.keys_only = true;
  one_key.entries_max = 1;
  for (int i = 0; i < 9; ++i) {
    attackers.push_back(std::make_unique<AsyncStore::Caller>(*store_));
    for (int n = 0; n < 900; ++n) lists.push_back(attackers.back()->List(all));
  }
  AsyncStore::Caller honest(*store_);
  Settle();
  for (int i = 0; i < 10; ++i) {
    auto get = honest.Get("k100");
    auto list = honest.List(one_key);
    Turn();
    EXPECT_EQ(Text(get), "pending") << "the scan under way";
    Turn();
    EXPECT_EQ(Text(get), "OK");
    std::vector<Mutation> one(1);
    one[0] = {"h", "v"};
    auto put = honest.Apply(std::move(one));
    for (int turns = 0; turns < 2; ++turns) Turn();
    EXPECT_EQ(Text(put), "OK") << "a commit has the turn after";
    for (int turns = 0; turns < 12 && !list.done(); ++turns) Turn();
    EXPECT_EQ(Text(list), "OK") << "a scan of its own waits for one of each other caller";
  }
}

TEST_F(AsyncStoreTest, GetsWithoutEndStarveNobody) {
  AsyncStoreOptions options;
  options.turn_reads_max = 1;
  Make(options);
  std::vector<Future<absl::StatusOr<Entry>>> gets;
  const auto more = [&] {
    for (int i = 0; i < 3; ++i) gets.push_back(store_->Get("k"));
  };
  more();
  auto list = store_->List({});
  auto put = Put("k", "");
  for (int turns = 0; turns < 4; ++turns) {
    more();
    Turn();
  }
  EXPECT_EQ(Text(list), "OK");
  EXPECT_EQ(Text(put), "OK");
}

TEST_F(AsyncStoreTest, WhoHasMoreThanItsShareIsRefusedWhenItIsFull) {
  AsyncStoreOptions options;
  options.reads_max = 20;
  options.mutations_max = 20;
  Make(options);
  AsyncStore::Caller a(*store_), b(*store_), honest(*store_);
  const auto put = [](AsyncStore::Caller& caller) {
    std::vector<Mutation> one(1);
    one[0] = {"k", "v"};
    return caller.Apply(std::move(one));
  };
  std::vector<Future<absl::StatusOr<Entry>>> gets;
  std::vector<Future<Applied>> puts;
  for (int i = 0; i < 30; ++i) {
    gets.push_back(a.Get("k"));
    puts.push_back(put(a));
    gets.push_back(b.Get("k"));
    puts.push_back(put(b));
  }
  EXPECT_EQ(store_->counters().refused.value(), 2u * 40);
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(Text(honest.Get("k")), "pending") << i;
    EXPECT_EQ(Text(put(honest)), "pending") << i;
  }
  EXPECT_EQ(Text(honest.Get("k")), "RESOURCE_EXHAUSTED: too many reads wait for the disk") << "a third of all";
  EXPECT_EQ(Text(put(honest)), "RESOURCE_EXHAUSTED: too many changes wait for the disk");
  AllTurns();
  for (int i = 0; i < 20; ++i) {  // all have gone
    EXPECT_EQ(Text(a.Get("k")), "pending");
    EXPECT_EQ(Text(put(a)), "pending");
  }
}

TEST_F(AsyncStoreTest, WhoIsPausedHasNothingRead) {
  Make();
  AsyncStore::Caller paused(*store_), other(*store_);
  auto get = paused.Get("k");
  auto list = paused.List({});
  paused.Pause();
  auto later = paused.Get("k");
  auto its = other.Get("k");
  auto put = paused.Apply(std::vector<Mutation>(1, Mutation{"k", "v"}));
  AllTurns();
  EXPECT_EQ(Text(its), "NOT_FOUND: no such key");
  EXPECT_EQ(Text(put), "OK") << "changes go on";
  for (const std::string& waits : {Text(get), Text(later), Text(list)}) EXPECT_EQ(waits, "pending");
  paused.Resume();
  AllTurns();
  EXPECT_EQ(Text(get), "OK");
  EXPECT_EQ(Text(later), "OK");
  EXPECT_EQ(Text(list), "OK");
}

TEST_F(AsyncStoreTest, WhatATurnHadNoRoomForWaitsWithWhoIsPausedMeanwhile) {
  AsyncStoreOptions options;
  options.turn_rows_max = 1;
  Make(options);
  auto put = Put("k", "v");
  AllTurns();
  ASSERT_EQ(Text(put), "OK");
  AsyncStore::Caller caller(*store_);
  auto first = caller.Get("k"), second = caller.Get("k");
  Settle();
  caller.Pause();
  AllTurns();
  EXPECT_EQ(Text(first), "OK");
  EXPECT_EQ(Text(second), "pending");
  caller.Resume();
  AllTurns();
  EXPECT_EQ(Text(second), "OK");
}

TEST_F(AsyncStoreTest, ACallerMayGoAtAnyMoment) {
  for (int turns = 0; turns < 6; ++turns) {
    for (const bool under_way : {false, true}) {
      SCOPED_TRACE(absl::StrCat(turns, " turns", under_way ? ", one under way" : ""));
      AsyncStoreOptions options;
      options.turn_reads_max = 1;
      options.commit.mutations_max = 1;
      options.reads_max = 8;
      options.mutations_max = 8;
      Make(options);
      {
        AsyncStore::Caller other(*store_);
        auto kept = other.Get("k");
        auto caller = std::make_unique<AsyncStore::Caller>(*store_);
        std::vector<Future<absl::StatusOr<Entry>>> gets;
        std::vector<Future<Applied>> puts;
        auto list = caller->List({});
        for (int i = 0; i < 2; ++i) {
          gets.push_back(caller->Get("k"));
          puts.push_back(caller->Apply(std::vector<Mutation>(1, Mutation{"k", "v"})));
        }
        for (int i = 0; i < turns; ++i) Turn();
        if (under_way) Settle();
        caller.reset();
        AllTurns();
        EXPECT_NE(Text(kept), "pending");
        for (const auto& get : gets) EXPECT_NE(Text(get), "pending");
        for (const auto& put : puts) EXPECT_NE(Text(put), "pending");
        EXPECT_NE(Text(list), "pending");
        // Nothing is left of it in the bounds.
        for (int i = 0; i < 8; ++i) {
          EXPECT_EQ(Text(other.Get("k")), "pending");
          EXPECT_EQ(Text(other.Apply(std::vector<Mutation>(1, Mutation{"k", "v"}))), "pending");
        }
        AllTurns();
      }
      store_.reset();
    }
  }
}

TEST_F(AsyncStoreTest, ADiskThatFailsIsUnavailable) {
  MemoryDisk disk(1);
  files_.options().path = "kv.db";
  files_.options().vfs = disk.name();
  Make();
  auto before = Put("a", "1");
  AllTurns();
  ASSERT_EQ(Text(before), "OK");
  disk.FailAt(1, SQLITE_IOERR_FSYNC);
  auto put = Put("b", "2");
  AllTurns();
  if (Text(put) == "OK") {  // it was another change than a sync's
    put = Put("c", "3");
    AllTurns();
  }
  EXPECT_THAT(Text(put), HasSubstr("UNAVAILABLE: disk I/O error"));
  auto next = Put("d", "2");
  AllTurns();
  EXPECT_THAT(Text(next), HasSubstr("UNAVAILABLE: the store takes no more changes until it is opened again"));
  auto get = store_->Get("a");
  AllTurns();
  EXPECT_EQ(Text(get), "OK") << "what can be read is read";
  store_.reset();
}

// ---- cancellation

TEST_F(AsyncStoreTest, CancelledBeforeItsTurnChangesNothing) {
  Make();
  auto first = Put("a", "");
  Settle();
  auto cancelled = Put("b", ""), kept = Put("c", "");
  auto get = store_->Get("a");
  EXPECT_TRUE(cancelled.Cancel());
  EXPECT_TRUE(get.Cancel());
  AllTurns();
  EXPECT_THAT(Revisions(first), ElementsAre(1));
  EXPECT_THAT(Revisions(kept), ElementsAre(2));
  EXPECT_EQ(store_->counters().cancelled.value(), 2u);
  EXPECT_EQ(store_->counters().reads.value(), 0u);
}

TEST_F(AsyncStoreTest, CancelledDuringItsTurnIsDoneAndNobodyIsTold) {
  Make();
  auto put = Put("a", "1");
  Settle();
  ASSERT_EQ(pool_->size(), 1u);
  EXPECT_TRUE(put.Cancel());
  AllTurns();
  EXPECT_EQ(Text(put), "cancelled");
  auto get = store_->Get("a");
  Settle();
  EXPECT_TRUE(get.Cancel());
  AllTurns();
  EXPECT_EQ(Text(get), "cancelled");
  get = store_->Get("a");
  AllTurns();
  EXPECT_EQ(get.result()->value, "1");
}

TEST_F(AsyncStoreTest, WhatNobodyWaitsForIsDoneAllTheSame) {
  Make();
  Put("a", "1");
  AllTurns();
  auto get = store_->Get("a");
  AllTurns();
  EXPECT_EQ(get.result()->value, "1");
}

TEST_F(AsyncStoreTest, ATurnWithNothingButCancelledIsLeftOut) {
  Make();
  auto get = store_->Get("a");
  auto put = Put("a", "1");
  auto other = Put("b", "1");
  get.Cancel();
  put.Cancel();
  Turn();
  EXPECT_EQ(Text(other), "OK");
  auto last = Put("c", "1");
  last.Cancel();
  Settle();
  EXPECT_EQ(pool_->size(), 0u);
  auto next = Put("d", "1");
  AllTurns();
  EXPECT_EQ(Text(next), "OK");
}

// ---- bounds and failures

TEST_F(AsyncStoreTest, RefusesReadsBeyondTheBoundAtOnce) {
  AsyncStoreOptions options;
  options.reads_max = 2;
  Make(options);
  auto a = store_->Get("k");
  Settle();  // running counts too
  auto b = store_->Get("k"), c = store_->Get("k");
  EXPECT_EQ(Text(c), "RESOURCE_EXHAUSTED: too many reads wait for the disk");
  EXPECT_EQ(Text(b), "pending");
  AllTurns();
  EXPECT_EQ(Text(b), "NOT_FOUND: no such key");
  c = store_->Get("k");
  AllTurns();
  EXPECT_EQ(Text(c), "NOT_FOUND: no such key");
  EXPECT_EQ(store_->counters().refused.value(), 1u);
}

TEST_F(AsyncStoreTest, RefusesChangesBeyondTheBoundsAtOnce) {
  AsyncStoreOptions options;
  options.mutations_max = 3;
  options.mutation_bytes_max = 100;
  Make(options);
  auto a = Put("a", "");
  Settle();
  auto b = Put("b", ""), c = Put("c", ""), d = Put("d", "");
  EXPECT_EQ(Text(d), "RESOURCE_EXHAUSTED: too many changes wait for the disk");
  c.Cancel();
  d = Put("d", "");
  EXPECT_EQ(Text(d), "RESOURCE_EXHAUSTED: too many changes wait for the disk") << "it still stands in the queue";
  AllTurns();
  auto large = Put("l", std::string(98, 'v')), more = Put("m", ""), too_much = Put("n", "");
  EXPECT_EQ(Text(more), "pending");
  EXPECT_EQ(Text(too_much), "RESOURCE_EXHAUSTED: too many changes wait for the disk");
  AllTurns();
  EXPECT_EQ(Text(large), "OK");
  EXPECT_EQ(Text(more), "OK");
  EXPECT_EQ(Text(Put("x", std::string(200, 'v'))), "RESOURCE_EXHAUSTED: too many changes wait for the disk");
  auto alone = Put("x", std::string(150, 'v'));
  AllTurns();
  EXPECT_EQ(Text(alone), "OK") << "of a caller with nothing waiting";
  EXPECT_EQ(store_->counters().refused.value(), 4u);
}

// A hundred connections that put 700 KiB each made honest puts of 1 MiB, more than an equal share, be refused.
TEST_F(AsyncStoreTest, WhoHasNothingWaitingIsServedWhileOthersFillEverything) {
  AsyncStoreOptions options;
  options.mutation_bytes_max = 64'000;
  Make(options);
  std::vector<std::unique_ptr<AsyncStore::Caller>> attackers;
  const auto put = [](AsyncStore::Caller& caller, size_t bytes) {
    return caller.Apply(std::vector<Mutation>(1, Mutation{"k", std::string(bytes, 'v')}));
  };
  std::vector<Future<Applied>> puts;
  for (int i = 0; i < 120; ++i) {
    attackers.push_back(std::make_unique<AsyncStore::Caller>(*store_));
    for (int n = 0; n < 2; ++n) puts.push_back(put(*attackers.back(), 700));
  }
  EXPECT_GT(store_->counters().refused.value(), 70u) << "second puts of those who have one";
  AsyncStore::Caller honest(*store_);
  auto own = put(honest, 1000);
  EXPECT_EQ(Text(own), "pending");
  EXPECT_EQ(Text(put(honest, 1000)), "RESOURCE_EXHAUSTED: too many changes wait for the disk");
  AllTurns();
  EXPECT_EQ(Text(own), "OK");
}

TEST_F(AsyncStoreTest, NothingWaitsForTheDiskThatIsWrongInItself) {
  Make();
  const std::string long_key(1025, 'k');
  ListQuery list;
  list.prefix = long_key;
  ChangesQuery changes;
  changes.prefix = long_key;
  EXPECT_THAT(Text(store_->Get(long_key)), HasSubstr("INVALID_ARGUMENT"));
  EXPECT_THAT(Text(store_->List(list)), HasSubstr("INVALID_ARGUMENT"));
  EXPECT_THAT(Text(store_->Changes(changes)), HasSubstr("INVALID_ARGUMENT"));
  Settle();
  EXPECT_EQ(pool_->size(), 0u);
}

TEST_F(AsyncStoreTest, BadChangesAreRefusedBeforeTheyJoinACommit) {
  Make();
  auto good = Put("a", ""), bad = Put("", "");
  EXPECT_EQ(Text(bad), "INVALID_ARGUMENT: the key is empty");
  AllTurns();
  EXPECT_EQ(Text(good), "OK");
}

TEST_F(AsyncStoreTest, WhatDoesNotFitFailsAlone) {
  files_.options().file_bytes_max = 40 * 4096;
  Make();
  auto a = Put("a", "1"), large = Put("b", std::string(300'000, 'v')), c = Put("c", "3");
  AllTurns();
  EXPECT_THAT(Revisions(a), ElementsAre(1));
  EXPECT_EQ(Text(large), "RESOURCE_EXHAUSTED: database or disk is full");
  EXPECT_THAT(Revisions(c), ElementsAre(2));
  EXPECT_EQ(store_->counters().commits.value(), 2u);
  EXPECT_EQ(store_->feed().revision(), 2);
}

TEST_F(AsyncStoreTest, WithoutAThreadEverythingFailsAndLaterWorks) {
  Make();
  pool_->set_no_threads(true);
  auto put = Put("a", "");
  auto get = store_->Get("a");
  AllTurns();
  EXPECT_EQ(Text(put), "RESOURCE_EXHAUSTED: no thread");
  EXPECT_EQ(Text(get), "RESOURCE_EXHAUSTED: no thread");
  pool_->set_no_threads(false);
  put = Put("a", "");
  AllTurns();
  EXPECT_THAT(Revisions(put), ElementsAre(1));
}

TEST_F(AsyncStoreTest, CheckpointsHaveTurnsOfTheirOwnAfterTheAnswers) {
  files_.options().log_pages_max = 10;
  Make();
  auto put = Put("a", std::string(100'000, 'v'));
  Settle();
  auto get = store_->Get("a");
  auto next = Put("b", "");
  Turn();
  EXPECT_EQ(Text(put), "OK");
  Turn();
  EXPECT_EQ(Text(get), "OK") << "a read goes before the checkpoint";
  Turn();
  EXPECT_EQ(Text(next), "pending");
  Turn();
  EXPECT_EQ(Text(next), "OK");
  EXPECT_FALSE(pool_->RunOne());
}

// ---- the end

TEST_F(AsyncStoreTest, EndAnswersWhatWaitsAndWhatRan) {
  Make();
  auto put = Put("a", "1");
  Settle();
  auto waits = Put("b", "");
  auto get = store_->Get("a");
  pool_->RunOne();  // committed; the word of it is on its way
  store_.reset();
  EXPECT_THAT(Revisions(put), ElementsAre(1));
  EXPECT_EQ(Text(waits), "UNAVAILABLE: the store is being closed");
  EXPECT_EQ(Text(get), "UNAVAILABLE: the store is being closed");
  Settle();  // nothing comes of the word
  EXPECT_EQ(files_.Open()->Get("a")->value, "1");
}

TEST_F(AsyncStoreTest, EndDropsATurnThatHasNotStarted) {
  Make();
  auto put = Put("a", "1");
  auto get = store_->Get("a");
  Settle();
  ASSERT_EQ(pool_->size(), 1u);
  store_.reset();
  EXPECT_EQ(Text(put), "UNAVAILABLE: the store is being closed");
  EXPECT_EQ(Text(get), "UNAVAILABLE: the store is being closed");
  EXPECT_EQ(files_.Open()->revision(), 0);
}

TEST_F(AsyncStoreTest, ALoopThatClosesFirstIsSurvived) {
  Make();
  auto put = Put("a", "1");
  Settle();
  loop_.Close();
  EXPECT_TRUE(pool_->RunOne());
}

// ---- with its own thread

class ThreadedAsyncStoreTest : public AsyncStoreTest {
 protected:
  ThreadedAsyncStoreTest() { store_ = std::make_unique<AsyncStore>(loop_, files_.Open()); }
};

Task<void> PutAndGet(AsyncStore& store, int client, int rounds, int* acknowledged) {
  for (int i = 0; i < rounds; ++i) {
    std::vector<Mutation> one(1);
    one[0] = {absl::StrCat("key", client), absl::StrCat(i)};
    const Applied applied = co_await store.Apply(std::move(one));
    EXPECT_TRUE(applied.ok()) << applied.status();
    ++*acknowledged;
    const absl::StatusOr<Entry> entry = co_await store.Get(absl::StrCat("key", client));
    EXPECT_EQ(entry->value, absl::StrCat(i));
  }
}

TEST_F(ThreadedAsyncStoreTest, ClientsReadTheirOwnWritesAndShareCommits) {
  constexpr int kClients = 20, kRounds = 10;
  int acknowledged = 0;
  std::vector<troupe::TaskHandle<void>> clients;
  for (int i = 0; i < kClients; ++i) {
    clients.push_back(loop_.CreateTask(PutAndGet(*store_, i, kRounds, &acknowledged)));
  }
  for (auto& client : clients) loop_.RunUntilComplete(Future<void>(client));
  EXPECT_EQ(acknowledged, kClients * kRounds);
  EXPECT_EQ(store_->counters().mutations.value(), static_cast<uint64_t>(kClients * kRounds));
  EXPECT_LT(store_->counters().commits.value(), static_cast<uint64_t>(kClients * kRounds) / 2);
}

// Callers go away at every stage of what they asked for; what they asked for may use nothing of theirs.
TEST_F(ThreadedAsyncStoreTest, CallersMayBeCancelledAtAnyMoment) {
  std::mt19937 random(1);
  int acknowledged = 0;
  for (int round = 0; round < 50; ++round) {
    std::vector<troupe::TaskHandle<void>> clients;
    for (int i = 0; i < 5; ++i) clients.push_back(loop_.CreateTask(PutAndGet(*store_, i, 3, &acknowledged)));
    for (unsigned n = random() % 40; n > 0; --n) loop_.RunOnceWithoutWaiting();
    for (auto& client : clients) client.Cancel();
    for (auto& client : clients) {
      try {
        loop_.RunUntilComplete(Future<void>(client));
      } catch (const troupe::Cancelled&) {
      }
    }
  }
  auto last = Put("last", "");
  const Applied applied = loop_.RunUntilComplete(last);
  EXPECT_TRUE(applied.ok());
  EXPECT_GE(applied->back()->revision, acknowledged);
}

TEST_F(ThreadedAsyncStoreTest, EndWaitsForTheTurnThatRuns) {
  for (int round = 0; round < 20; ++round) {
    std::vector<Future<Applied>> puts;
    for (int i = 0; i < 10; ++i) puts.push_back(Put("k", std::string(10'000, 'v')));
    for (int i = 0; i < round; ++i) loop_.RunOnceWithoutWaiting();
    store_.reset();
    int64_t told = 0;
    for (const auto& put : puts) {
      ASSERT_TRUE(put.done());
      if (put.result().ok()) told = put.result()->back()->revision;
    }
    auto store = files_.Open();
    if (told > 0) {
      EXPECT_GE(store->revision(), told);
    }
    store_ = std::make_unique<AsyncStore>(loop_, std::move(store));
  }
}

}  // namespace
}  // namespace kv
