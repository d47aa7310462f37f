#include "services/kv/watcher.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/kv/async_store.h"
#include "services/kv/budget.h"
#include "services/kv/change_feed.h"
#include "services/kv/manual_pool.h"
#include "services/kv/temporary_store.h"
#include "troupe/async/task.h"
#include "troupe/base/errors.h"
#include "troupe/os/posix_os.h"

namespace kv {
namespace {

using ::testing::HasSubstr;
using troupe::Future;
using troupe::Task;

std::string ToString(const Change& change) {
  return absl::StrCat(change.revision, ":", change.key, change.value ? "=" + *change.value : "-");
}

SharedChange Shared(Change change) { return std::make_shared<const Change>(std::move(change)); }

// Appends what the watcher gives to *seen, and at the end its error.
Task<void> Follow(Watcher& watcher, std::vector<std::string>* seen) {
  while (true) {
    const absl::StatusOr<SharedChange> change = co_await watcher.Next();
    if (!change.ok()) {
      seen->push_back(change.status().ToString());
      co_return;
    }
    seen->push_back(ToString(**change));
  }
}

class WatcherTest : public ::testing::Test {
 protected:
  WatcherTest() { Open(); }
  ~WatcherTest() override {
    for (auto& task : tasks_) task.Cancel();
    AllTurns();
    store_.reset();
    loop_.Close();
  }
  void Open(FeedLimits limits = {}) {
    store_.reset();
    AsyncStoreOptions options;
    options.feed = limits;
    auto pool = std::make_unique<ManualPool>();
    pool_ = pool.get();
    store_ = std::make_unique<AsyncStore>(loop_, files_.Open(), options, std::move(pool));
  }
  void Settle() {
    do loop_.RunOnceWithoutWaiting();
    while (loop_.HasReady());
  }
  void AllTurns() {
    do Settle();
    while (pool_->RunOne());
  }
  void Put(const std::string& key, const std::string& value) { Apply({Mutation{key, value}}); }
  void Delete(const std::string& key) { Apply({Mutation{key, std::nullopt}}); }
  void Apply(std::vector<Mutation> mutations) {
    auto applied = store_->Apply(std::move(mutations));
    AllTurns();
    ASSERT_TRUE(applied.done() && applied.result().ok());
  }
  Watcher WatchFrom(int64_t after, const std::string& prefix = "") {
    return Watcher(store_->anyone(), budget_, prefix, after);
  }
  Watcher WatchFromNow(const std::string& prefix = "") { return WatchFrom(store_->feed().revision(), prefix); }
  // Starts to follow in the background.
  std::vector<std::string>& Start(Watcher& watcher) {
    seen_.push_back(std::make_unique<std::vector<std::string>>());
    tasks_.push_back(loop_.CreateTask(Follow(watcher, seen_.back().get())));
    AllTurns();
    return *seen_.back();
  }
  // The next change, or "nothing" if there is none yet.
  std::string Next(Watcher& watcher) {
    auto task = loop_.CreateTask(watcher.Next());
    AllTurns();
    if (task.done()) {
      const absl::StatusOr<SharedChange>& change = task.result();
      return change.ok() ? ToString(**change) : change.status().ToString();
    }
    task.Cancel();
    AllTurns();
    return "nothing";
  }

  troupe::EventLoop loop_{troupe::PosixOs::Get()};
  TemporaryStore files_;
  ManualPool* pool_ = nullptr;
  std::unique_ptr<AsyncStore> store_;
  Budget budget_{2 << 20};
  std::vector<std::unique_ptr<std::vector<std::string>>> seen_;
  std::vector<troupe::TaskHandle<void>> tasks_;
};

using ::testing::ElementsAre;

TEST_F(WatcherTest, SeesEveryChangeFromNowOnInOrder) {
  Put("before", "");
  Watcher watcher = WatchFromNow();
  const auto& seen = Start(watcher);
  Put("a", "1");
  Apply({{"a", "2"}, {"b", "3"}, {"none", std::nullopt}, {"a", std::nullopt}});
  EXPECT_THAT(seen, ElementsAre("2:a=1", "3:a=2", "4:b=3", "5:a-"));
}

TEST_F(WatcherTest, SeesOnlyItsPrefix) {
  Watcher watcher = WatchFromNow("ab");
  const auto& seen = Start(watcher);
  for (const char* key : {"a", "ab", "abc", "b", "aab"}) Put(key, "");
  EXPECT_THAT(seen, ElementsAre("2:ab=", "3:abc="));
}

TEST_F(WatcherTest, ChangesAreSeenBeforeTheyAreAcknowledged) {
  Watcher watcher = WatchFromNow();
  const auto& seen = Start(watcher);
  auto put = store_->Apply({Mutation{"a", "1"}});
  size_t seen_when_acknowledged = 99;
  put.AddDoneCallback([&](const auto&) { seen_when_acknowledged = seen.size(); });
  AllTurns();
  EXPECT_EQ(seen_when_acknowledged, 1u);
}

TEST_F(WatcherTest, GoesOnFromARevision) {
  Put("a", "1");
  Put("b", "2");
  Put("a", "3");
  Delete("b");
  Watcher from_zero = WatchFrom(0), from_one = WatchFrom(1), from_three = WatchFrom(3), from_now = WatchFrom(4);
  const auto &zero = Start(from_zero), &one = Start(from_one), &three = Start(from_three), &now = Start(from_now);
  Put("c", "5");
  EXPECT_THAT(zero, ElementsAre("3:a=3", "4:b-", "5:c=5"));
  EXPECT_THAT(one, ElementsAre("3:a=3", "4:b-", "5:c=5"));
  EXPECT_THAT(three, ElementsAre("4:b-", "5:c=5"));
  EXPECT_THAT(now, ElementsAre("5:c=5"));
}

TEST_F(WatcherTest, NeitherMissesNorRepeatsWhatIsCommittedWhileItCatchesUp) {
  std::vector<Mutation> batch;
  for (int i = 1; i <= 3000; ++i) batch.push_back({absl::StrCat("k", i), ""});
  Apply(std::move(batch));
  Watcher watcher = WatchFrom(0);
  std::vector<std::string> seen;
  tasks_.push_back(loop_.CreateTask(Follow(watcher, &seen)));
  std::vector<std::string> expected;
  for (int i = 1; i <= 3000; ++i) expected.push_back(absl::StrCat(i, ":k", i, "="));
  for (int i = 3001; i <= 3020; ++i) {
    store_->Apply({Mutation{absl::StrCat("k", i), ""}});
    Settle();
    pool_->RunOne();
    expected.push_back(absl::StrCat(i, ":k", i, "="));
  }
  AllTurns();
  EXPECT_EQ(seen, expected);
}

TEST_F(WatcherTest, HoldsLittleOfWhatItIsBehind) {
  std::vector<Mutation> batch;
  for (int i = 0; i < 100; ++i) batch.push_back({absl::StrCat("k", i), std::string(10 << 10, 'v')});
  Apply(std::move(batch));
  Watcher watcher = WatchFrom(0);
  std::vector<std::string> seen;
  tasks_.push_back(loop_.CreateTask(Follow(watcher, &seen)));
  size_t most = 0;
  for (size_t before = 0; seen.size() < 100; before = seen.size()) {
    Settle();
    ASSERT_TRUE(pool_->RunOne());
    Settle();
    most = std::max(most, seen.size() - before);
  }
  EXPECT_LE(most, 6u) << "64 KiB at once";
}

TEST_F(WatcherTest, ASlowReaderMissesOnlyWhatIsObsolete) {
  FeedLimits limits;
  limits.changes_max = 3;
  Open(limits);
  Watcher watcher = WatchFromNow();
  for (int i = 1; i <= 3; ++i) Put("a", absl::StrCat(i));
  EXPECT_EQ(Next(watcher), "1:a=1");
  Put("a", "4");
  EXPECT_EQ(store_->feed().overflows().value(), 0u);
  Put("b", "5");  // does not fit
  EXPECT_EQ(store_->feed().overflows().value(), 1u);
  Put("c", "6");
  Delete("c");
  EXPECT_EQ(Next(watcher), "4:a=4");
  EXPECT_EQ(Next(watcher), "5:b=5");
  EXPECT_EQ(Next(watcher), "7:c-");
  EXPECT_EQ(Next(watcher), "nothing");
  Put("d", "8");
  Put("d", "9");
  EXPECT_EQ(Next(watcher), "8:d=8") << "live again";
  EXPECT_EQ(Next(watcher), "9:d=9");
}

TEST_F(WatcherTest, BufferIsBoundedInBytesButHoldsOneChange) {
  FeedLimits limits;
  limits.bytes_max = 100;
  Open(limits);
  Watcher watcher = WatchFromNow();
  Put("a", std::string(500, 'v'));
  EXPECT_EQ(store_->feed().overflows().value(), 0u);
  Put("b", "");
  EXPECT_EQ(store_->feed().overflows().value(), 1u);
  EXPECT_EQ(Next(watcher).substr(0, 4), "1:a=");
  EXPECT_EQ(Next(watcher), "2:b=");
}

TEST_F(WatcherTest, SaysWhenDeletionsMayHaveBeenMissed) {
  store_.reset();
  files_.options().deletions_kept_max = 10;
  Open();
  Put("a", "");
  Delete("a");
  Apply(std::vector<Mutation>(1100, Mutation{"x", ""}));
  Watcher watcher = WatchFrom(1);
  EXPECT_THAT(Next(watcher), HasSubstr("OUT_OF_RANGE: what was deleted since revision 1 is no longer known"));
  Watcher future = WatchFrom(5000);
  EXPECT_THAT(Next(future), HasSubstr("OUT_OF_RANGE: revision 5000 lies in the future"));
}

// Forgotten deletions are those of other keys, and all its own were seen: the position moves with what is of no
// interest.
TEST_F(WatcherTest, AnOverflowAfterALongSilenceIsNoGap) {
  store_.reset();
  files_.options().deletions_kept_max = 10;
  FeedLimits limits;
  limits.changes_max = 2;
  Open(limits);
  Watcher watcher = WatchFromNow("a");
  Put("a", "1");
  EXPECT_EQ(Next(watcher), "1:a=1");
  Apply(std::vector<Mutation>(1100, Mutation{"x", ""}));
  Put("a1", "");
  Put("a2", "");
  Put("a3", "");
  EXPECT_EQ(Next(watcher), "1102:a1=");
  EXPECT_EQ(Next(watcher), "1103:a2=");
  EXPECT_EQ(Next(watcher), "1104:a3=");
}

TEST_F(WatcherTest, IsCancelledWhileItWaitsAndWhileItReads) {
  Watcher live = WatchFromNow();
  EXPECT_EQ(Next(live), "nothing");
  EXPECT_EQ(Next(live), "nothing") << "waiting again after a cancelled wait";
  Put("a", "1");
  EXPECT_EQ(Next(live), "1:a=1");
  Watcher behind = WatchFrom(0);
  auto task = loop_.CreateTask(behind.Next());
  Settle();
  ASSERT_EQ(pool_->size(), 1u);
  task.Cancel();
  Settle();
  EXPECT_TRUE(task.cancelled());
  EXPECT_EQ(Next(behind), "1:a=1");
}

TEST_F(WatcherTest, PublishingOutOfOrderIsRefused) {
  ChangeFeed feed(loop_, 5);
  EXPECT_THROW(feed.Publish(Shared({5, "a", "1"})), troupe::InvalidState);
  feed.Publish(Shared({7, "a", "1"}));
  EXPECT_EQ(feed.revision(), 7);
}

TEST_F(WatcherTest, OneWaiterAtATime) {
  ChangeFeed feed(loop_, 0);
  ChangeFeed::Subscription subscription(feed, "", 0);
  auto changed = subscription.Changed();
  EXPECT_THROW(subscription.Changed(), troupe::InvalidState);
  feed.Publish(Shared({1, "a", "1"}));
  EXPECT_TRUE(changed.done());
  EXPECT_TRUE(subscription.Changed().done()) << "there is something to take";
}

TEST_F(WatcherTest, TheLogIsKeptForThoseWhoAreBehind) {
  ChangeFeed feed(loop_, 0);
  feed.Publish(Shared({1, "a", "1"}));
  EXPECT_EQ(feed.held_bytes(), 0u) << "nobody subscribes";
  ChangeFeed::Subscription a(feed, "a", 1), b(feed, "b", 1);
  feed.Publish(Shared({2, "a", "1"}));
  feed.Publish(Shared({3, "b", "1"}));
  feed.Publish(Shared({4, "c", "1"}));
  EXPECT_EQ(feed.held_bytes(), 6u);
  EXPECT_EQ(a.Take()->revision, 2);
  EXPECT_EQ(a.Take(), nullptr);
  {
    ChangeFeed::Subscription late(feed, "", 2);
    EXPECT_EQ(late.Take()->revision, 3);
    EXPECT_EQ(b.Take()->revision, 3);
    EXPECT_EQ(b.Take(), nullptr);
    EXPECT_EQ(feed.held_bytes(), 6u);
  }
  EXPECT_EQ(feed.held_bytes(), 0u);
  EXPECT_EQ(a.after(), 4);
  EXPECT_TRUE(ChangeFeed::Subscription(feed, "", 3).lagging());
}

// A thousand watches that lagged held a page each.
TEST_F(WatcherTest, WatchersOfOneBudgetHoldNoMoreThanThatOfWhatTheyAreBehind) {
  std::vector<Mutation> batch;
  for (int i = 0; i < 10; ++i) batch.push_back({absl::StrCat("k", i), std::string(100'000, 'v')});
  Apply(std::move(batch));
  std::vector<std::unique_ptr<Watcher>> watchers;
  std::vector<troupe::TaskHandle<absl::StatusOr<SharedChange>>> nexts;
  for (int i = 0; i < 200; ++i) {
    watchers.push_back(std::make_unique<Watcher>(store_->anyone(), budget_, "k", 0));
    nexts.push_back(loop_.CreateTask(watchers.back()->Next()));
  }
  size_t most = 0;
  const auto turns = [&] {
    do {
      Settle();
      most = std::max(most, budget_.held());
    } while (pool_->RunOne());
  };
  turns();
  size_t given = 0;
  for (const auto& next : nexts) given += next.done() ? 1 : 0;
  EXPECT_GT(given, 5u);
  EXPECT_LT(given, 25u);
  EXPECT_LT(most, size_t{4} << 20);
  // Who goes on makes room for the others.
  for (size_t i = 0; i < nexts.size(); ++i) {
    turns();
    ASSERT_TRUE(nexts[i].done()) << i;
    watchers[i].reset();
  }
  EXPECT_EQ(budget_.held(), 0u);
  EXPECT_LT(most, size_t{4} << 20);
}

// Nor does each of them take a large change at once, to write it to who does not read.
TEST_F(WatcherTest, WatchersOfOneBudgetTakeTurnsWithALargeChange) {
  std::vector<std::unique_ptr<Watcher>> watchers;
  std::vector<troupe::TaskHandle<absl::StatusOr<SharedChange>>> nexts;
  for (int i = 0; i < 200; ++i) {
    watchers.push_back(std::make_unique<Watcher>(store_->anyone(), budget_, "", 0));
    nexts.push_back(loop_.CreateTask(watchers.back()->Next()));
  }
  Put("a", std::string(1 << 20, 'v'));
  size_t given = 0;
  for (const auto& next : nexts) given += next.done() ? 1 : 0;
  EXPECT_EQ(given, 2u);
  EXPECT_LE(store_->feed().held_bytes(), (1u << 20) + 1);
  for (size_t i = 0; i < nexts.size(); ++i) {
    AllTurns();
    ASSERT_TRUE(nexts[i].done()) << i;
    watchers[i].reset();
  }
  EXPECT_EQ(store_->feed().overflows().value(), 0u);
  EXPECT_EQ(store_->feed().held_bytes(), 0u);
}

TEST_F(WatcherTest, WhatAStalledWatcherReadAheadGoesWhereRoomIsScarceAndIsReadAgain) {
  std::vector<Mutation> batch;
  for (int i = 1; i <= 5; ++i) batch.push_back({absl::StrCat("k", i), std::string(1000, 'v')});
  Apply(std::move(batch));
  Watcher watcher = WatchFrom(0);
  EXPECT_EQ(Next(watcher).substr(0, 4), "1:k1");
  const size_t held = budget_.held();
  EXPECT_GT(held, 4000u);
  watcher.Stalled();
  EXPECT_EQ(budget_.held(), held) << "there is room";
  {
    Budget::Lease other(budget_);
    other.Set(3 << 19);
    watcher.Stalled();
    EXPECT_EQ(budget_.held() - other.bytes(), 1002u) << "what it gave";
  }
  for (int i = 2; i <= 5; ++i) EXPECT_EQ(Next(watcher).substr(0, 4), absl::StrCat(i, ":k", i));
  EXPECT_EQ(Next(watcher), "nothing");
  EXPECT_EQ(budget_.held(), 0u);
}

// Many watchers of all speeds, from all revisions, while random changes are made: each sees ascending revisions, only
// values that were there, and at the end knows exactly what is in the store.
TEST_F(WatcherTest, EveryoneEndsUpWithWhatIsThere) {
  const char* const given = std::getenv("TEST_SEED");
  const unsigned seed = given != nullptr ? static_cast<unsigned>(std::atol(given)) : std::random_device{}();
  SCOPED_TRACE(absl::StrCat("TEST_SEED=", seed));
  std::mt19937 random(seed);
  const auto below = [&](size_t n) { return random() % n; };
  FeedLimits limits;
  limits.changes_max = 1 + below(20);
  limits.bytes_max = 10 + below(200);
  Open(limits);

  struct Reader {
    std::string prefix;
    std::unique_ptr<Watcher> watcher;
    troupe::TaskHandle<absl::StatusOr<SharedChange>> next;
    std::map<std::string, std::string> state;
    int64_t revision = 0;
    bool waiting = false;
  };
  std::map<std::string, std::string> model;
  std::vector<Change> history(1);
  std::vector<Reader> readers;
  const auto start = [&] {
    Reader& reader = readers.emplace_back();
    reader.prefix = std::string(below(2), 'a');
    const int64_t now = store_->feed().revision();
    const int64_t after = static_cast<int64_t>(below(static_cast<size_t>(now) + 1));
    // What a client that had followed until `after` would know.
    for (int64_t i = 1; i <= after; ++i) {
      const Change& change = history[static_cast<size_t>(i)];
      if (!absl::StartsWith(change.key, reader.prefix)) continue;
      if (change.value) {
        reader.state[change.key] = *change.value;
      } else {
        reader.state.erase(change.key);
      }
    }
    reader.revision = after;
    reader.watcher = std::make_unique<Watcher>(store_->anyone(), budget_, reader.prefix, after);
  };
  const auto step = [&](Reader& reader) {
    if (!reader.waiting) {
      reader.next = loop_.CreateTask(reader.watcher->Next());
      reader.waiting = true;
    }
    if (!reader.next.done()) return false;
    reader.waiting = false;
    const absl::StatusOr<SharedChange> result = reader.next.result();
    EXPECT_TRUE(result.ok()) << result.status();
    if (!result.ok()) return false;
    const Change& change = **result;
    EXPECT_GT(change.revision, reader.revision);
    EXPECT_EQ(change.key, history[static_cast<size_t>(change.revision)].key);
    EXPECT_EQ(change.value, history[static_cast<size_t>(change.revision)].value);
    EXPECT_TRUE(absl::StartsWith(change.key, reader.prefix));
    reader.revision = change.revision;
    if (below(10) == 0) reader.watcher->Stalled();
    if (change.value) {
      reader.state[change.key] = *change.value;
    } else {
      reader.state.erase(change.key);
    }
    return true;
  };

  start();
  for (int round = 0; round < 400; ++round) {
    if (below(40) == 0 && readers.size() < 10) start();
    std::vector<Mutation> batch(below(4));
    for (Mutation& m : batch) {
      m.key = absl::StrCat(std::string(1, static_cast<char>('a' + below(2))), below(6));
      if (below(3) != 0) m.value = absl::StrCat(round);
      if (!m.value && model.count(m.key) == 0) continue;
      history.push_back({static_cast<int64_t>(history.size()), m.key, m.value});
      if (m.value) {
        model[m.key] = *m.value;
      } else {
        model.erase(m.key);
      }
    }
    store_->Apply(std::move(batch));
    for (size_t n = below(3); n > 0; --n) {
      Settle();
      pool_->RunOne();
    }
    Settle();
    for (Reader& reader : readers) {
      // The first does not read until the end.
      for (size_t n = &reader == &readers.front() ? 0 : below(4); n > 0; --n) step(reader);
    }
  }
  AllTurns();
  for (Reader& reader : readers) {
    bool more = true;
    while (more) {
      more = step(reader);
      AllTurns();
      more = more || (reader.waiting && reader.next.done());
    }
    std::map<std::string, std::string> expected;
    for (const auto& [key, value] : model) {
      if (absl::StartsWith(key, reader.prefix)) expected[key] = value;
    }
    EXPECT_EQ(reader.state, expected);
    reader.next.Cancel();
  }
  EXPECT_GT(store_->feed().overflows().value(), 0u);
  AllTurns();
}

}  // namespace
}  // namespace kv
