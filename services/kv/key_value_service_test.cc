// Every rpc in process, over memory, in virtual time; the store's file is real.
#include "services/kv/key_value_service.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kv/v1/kv.troupe.h"
#include "services/kv/async_store.h"
#include "services/kv/manual_pool.h"
#include "services/kv/store.h"
#include "services/kv/temporary_store.h"
#include "troupe/async/task.h"
#include "troupe/testing/in_process.h"
#include "troupe/testing/matchers.h"

namespace kv::v1 {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using troupe::Task;
using troupe::testing::EqualsProto;
using troupe::testing::InProcessServer;
using troupe::testing::IsOk;
using troupe::testing::IsOkAndHolds;
using troupe::testing::StatusIs;

PutRequest MakePut(const std::string& key, const std::string& value) {
  PutRequest put;
  put.set_key(key);
  put.set_value(value);
  return put;
}
GetRequest MakeGet(const std::string& key) {
  GetRequest get;
  get.set_key(key);
  return get;
}
DeleteRequest MakeDelete(const std::string& key) {
  DeleteRequest request;
  request.set_key(key);
  return request;
}
WatchRequest MakeWatch(const std::string& prefix) {
  WatchRequest watch;
  watch.set_prefix(prefix);
  return watch;
}
WatchRequest MakeWatch(const std::string& prefix, int64_t after) {
  WatchRequest watch = MakeWatch(prefix);
  watch.set_after_revision(after);
  return watch;
}
std::string ToString(const WatchEvent& event) {
  const bool put = event.type() == WatchEvent::TYPE_PUT;
  return absl::StrCat(event.revision(), ":", event.key(), put ? "=" : "-", event.value());
}

class KeyValueServiceTest : public ::testing::Test {
 protected:
  KeyValueServiceTest() {
    server_.server().AddFactory<KeyValueService>(
        [this](troupe::Connection&) { return std::make_unique<KeyValueService>(*store_); });
    Make();
  }
  ~KeyValueServiceTest() override {
    server_.server().Drain();
    server_.Run(server_.server().WaitClosed());
    store_.reset();
  }

  // Makes the store anew, as files_ says. With `manual`, its work waits for pool_->RunOne().
  void Make(bool manual = false) {
    store_.reset();
    auto pool = manual ? std::make_unique<ManualPool>() : nullptr;
    pool_ = pool.get();
    store_ = std::make_unique<AsyncStore>(server_.loop(), files_.Open(), AsyncStoreOptions(), std::move(pool));
  }
  KeyValueStub stub() { return KeyValueStub(server_.caller()); }
  template <class T>
  auto Run(T&& what) {
    return server_.Run(std::forward<T>(what));
  }
  // Time enough for all that was begun.
  void Settle() { server_.Advance(absl::Seconds(1)); }

  int64_t Put(const std::string& key, const std::string& value) {
    const auto response = Run(stub().Put(MakePut(key, value)));
    EXPECT_OK(response);
    return response.ok() ? response->revision() : -1;
  }
  void PutOnDisk(std::vector<Mutation> mutations) { EXPECT_OK(Run(ApplyAll(*store_, std::move(mutations)))); }
  static Task<absl::Status> ApplyAll(AsyncStore& store, std::vector<Mutation> mutations) {
    const auto applied = co_await store.Apply(std::move(mutations));
    co_return applied.status();
  }
  std::vector<std::string> Keys(ListRequest request = {}) {
    std::vector<std::string> keys;
    const auto page = Run(stub().List(request));
    EXPECT_OK(page);
    if (page.ok()) {
      for (const v1::Entry& entry : page->entries()) keys.push_back(entry.key());
    }
    return keys;
  }
  // What the stream gives until nothing more comes by itself.
  std::string NextEvent(troupe::ClientReader<WatchEvent>& events) {
    WatchEvent event;
    const bool more = Run([&] { return events.Read(event); });
    return more ? ToString(event) : "end";
  }

  TemporaryStore files_;
  std::unique_ptr<AsyncStore> store_;
  ManualPool* pool_ = nullptr;
  InProcessServer server_;
};

// ---- Get, Put, Delete

TEST_F(KeyValueServiceTest, GetsWhatWasPut) {
  EXPECT_THAT(Run(stub().Put(MakePut("a", "1"))), IsOkAndHolds(EqualsProto("revision: 1")));
  EXPECT_THAT(Run(stub().Put(MakePut("a", "2"))), IsOkAndHolds(EqualsProto("revision: 2")));
  EXPECT_THAT(Run(stub().Get(MakeGet("a"))), IsOkAndHolds(EqualsProto(R"pb(value: "2" revision: 2)pb")));
  EXPECT_THAT(Run(stub().Get(MakeGet("b"))), StatusIs(absl::StatusCode::kNotFound, HasSubstr("no such key")));
}

TEST_F(KeyValueServiceTest, DeleteSaysWhetherTheKeyWasThere) {
  Put("a", "1");
  EXPECT_THAT(Run(stub().Delete(MakeDelete("a"))), IsOkAndHolds(EqualsProto("found: true revision: 2")));
  EXPECT_THAT(Run(stub().Delete(MakeDelete("a"))), IsOkAndHolds(EqualsProto("")));
  EXPECT_THAT(Run(stub().Get(MakeGet("a"))), StatusIs(absl::StatusCode::kNotFound));
}

TEST_F(KeyValueServiceTest, RefusesKeysAndValuesThatMayNotBe) {
  const auto is_invalid = StatusIs(absl::StatusCode::kInvalidArgument);
  const std::string long_key(1025, 'k');
  EXPECT_THAT(Run(stub().Put(MakePut("", "1"))), is_invalid);
  EXPECT_THAT(Run(stub().Get(MakeGet(""))), is_invalid);
  EXPECT_THAT(Run(stub().Delete(MakeDelete(""))), is_invalid);
  EXPECT_THAT(Run(stub().Put(MakePut(long_key, "1"))),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("1025 bytes, at most 1024")));
  EXPECT_THAT(Run(stub().Get(MakeGet(long_key))), is_invalid);
  EXPECT_THAT(Run(stub().Put(MakePut("a", std::string((1 << 20) + 1, 'v')))), is_invalid);
  EXPECT_THAT(Run(stub().Put(MakePut("a", std::string(1 << 20, 'v')))), IsOk());
}

TEST_F(KeyValueServiceTest, PutsMadeTogetherShareACommit) {
  std::vector<troupe::Reply<PutResponse>> replies;
  auto kv = stub();
  for (int i = 0; i < 200; ++i) replies.push_back(kv.Put(MakePut(absl::StrCat("k", i), "v")));
  for (auto& reply : replies) EXPECT_OK(Run(std::move(reply)));
  EXPECT_EQ(store_->counters().mutations.value(), 200u);
  EXPECT_LE(store_->counters().commits.value(), 10u);
}

// ---- List

TEST_F(KeyValueServiceTest, ListsInPages) {
  for (int i = 0; i < 5; ++i) Put(absl::StrCat("k", i), absl::StrCat("v", i));
  Put("other", "");
  ListRequest request;
  request.set_prefix("k");
  request.set_page_size(2);
  auto page = Run(stub().List(request));
  ASSERT_OK(page);
  EXPECT_EQ(page->entries_size(), 2);
  EXPECT_THAT(page->entries(1), EqualsProto(R"pb(key: "k1" value: "v1" revision: 2)pb"));
  EXPECT_EQ(page->revision(), 6);
  request.set_page_token(page->next_page_token());
  EXPECT_THAT(Keys(request), ElementsAre("k2", "k3"));
  request.set_page_token("nonsense");
  EXPECT_THAT(Run(stub().List(request)), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("page token")));
  request.clear_page_token();
  request.set_page_size(-1);
  EXPECT_THAT(Run(stub().List(request)), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("page size")));
  request.set_page_size(5);
  request.set_keys_only(true);
  page = Run(stub().List(request));
  EXPECT_EQ(page->entries(4).value(), "");
  EXPECT_EQ(page->next_page_token(), "");
}

TEST_F(KeyValueServiceTest, PagesAreBoundedInEntriesAndBytes) {
  std::vector<Mutation> many(1500);
  for (int i = 0; i < 1500; ++i) many[i] = {absl::StrCat("k", 10'000 + i), ""};
  PutOnDisk(std::move(many));
  EXPECT_EQ(Keys().size(), 100u);
  ListRequest request;
  request.set_page_size(5000);
  EXPECT_EQ(Keys(request).size(), 1000u);
  PutOnDisk(std::vector<Mutation>{
      {"large1", std::string(1 << 20, 'v')}, {"large2", std::string(1 << 20, 'v')}, {"large3", "v"}});
  request.set_prefix("large");
  EXPECT_THAT(Keys(request), ElementsAre("large1")) << "two of them do not fit into a message";
}

// ---- Watch

TEST_F(KeyValueServiceTest, WatchTellsWhatChangesFromNowOn) {
  Put("a", "before");
  auto events = stub().Watch(MakeWatch("a"));
  Settle();
  Put("a", "1");
  Put("b", "2");
  EXPECT_OK(Run(stub().Delete(MakeDelete("a"))));
  EXPECT_EQ(NextEvent(events), "2:a=1");
  EXPECT_EQ(NextEvent(events), "4:a-");
}

TEST_F(KeyValueServiceTest, ListAndWatchLeaveNoGap) {
  Put("a", "1");
  Put("b", "2");
  const auto page = Run(stub().List({}));
  Put("c", "3");
  EXPECT_OK(Run(stub().Delete(MakeDelete("a"))));
  auto events = stub().Watch(MakeWatch("", page->revision()));
  Put("d", "5");
  EXPECT_EQ(NextEvent(events), "3:c=3");
  EXPECT_EQ(NextEvent(events), "4:a-");
  EXPECT_EQ(NextEvent(events), "5:d=5");
  auto all = stub().Watch(MakeWatch("", 0));
  EXPECT_EQ(NextEvent(all), "2:b=2");
}

TEST_F(KeyValueServiceTest, WatchRefusesARevisionThatDoesNotExist) {
  auto events = stub().Watch(MakeWatch("", 7));
  EXPECT_EQ(NextEvent(events), "end");
  EXPECT_THAT(Run([&] { return events.Finish(); }), StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("future")));
  auto negative = stub().Watch(MakeWatch("", -7));
  EXPECT_THAT(Run([&] { return negative.Finish(); }), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(KeyValueServiceTest, AWatcherThatDoesNotReadHoldsUpNobodyAndCatchesUp) {
  auto events = stub().Watch(MakeWatch(""));
  Settle();
  const std::string value(10'000, 'v');
  for (int i = 0; i < 100; ++i) {
    std::vector<Mutation> twenty;
    for (int k = 0; k < 20; ++k) twenty.push_back({absl::StrCat("k", k), value});
    PutOnDisk(std::move(twenty));  // 20 MB in all
  }
  EXPECT_GT(store_->feed().overflows().value(), 0u);
  int64_t last = 0;
  int count = 0;
  while (last < 2000) {
    WatchEvent event;
    ASSERT_TRUE(Run([&] { return events.Read(event); }));
    ASSERT_GT(event.revision(), last);
    last = event.revision();
    ++count;
  }
  EXPECT_LT(count, 1000) << "so much cannot have been waiting for it";
}

TEST_F(KeyValueServiceTest, AWatchEndsWithItsClient) {
  auto events = stub().Watch(MakeWatch(""));
  Settle();
  EXPECT_EQ(server_.server().calls_in_flight(), 1u);
  events.Cancel();
  Settle();
  EXPECT_EQ(server_.server().calls_in_flight(), 0u);
  Put("a", "1");
  EXPECT_EQ(store_->feed().overflows().value(), 0u);
}

TEST_F(KeyValueServiceTest, AWatchEndsUnavailableWhenTheServerDrains) {
  auto events = stub().Watch(MakeWatch(""));
  Put("a", "1");
  EXPECT_EQ(NextEvent(events), "1:a=1");
  const troupe::MonotonicTime start = server_.loop().Time();
  server_.server().Drain();
  EXPECT_EQ(NextEvent(events), "end");
  EXPECT_THAT(Run([&] { return events.Finish(); }), StatusIs(absl::StatusCode::kUnavailable));
  Run(server_.server().WaitClosed());
  EXPECT_EQ(server_.loop().Time(), start) << "a watch held the drain up";
}

TEST_F(KeyValueServiceTest, AWatchThatNobodyReadsHoldsNoDrainUp) {
  auto events = stub().Watch(MakeWatch("", 0));
  std::vector<Mutation> much;
  for (int i = 0; i < 50; ++i) much.push_back({absl::StrCat("k", i), std::string(10'000, 'v')});
  PutOnDisk(std::move(much));
  Settle();
  const troupe::MonotonicTime start = server_.loop().Time();
  server_.server().Drain();
  EXPECT_THAT(Run([&] { return events.Finish(); }), StatusIs(absl::StatusCode::kUnavailable));
  Run(server_.server().WaitClosed());
  EXPECT_EQ(server_.loop().Time(), start);
}

// ---- Load

Task<absl::StatusOr<LoadSummary>> LoadAll(KeyValueStub kv, std::vector<PutRequest> puts) {
  auto load = kv.Load();
  for (const PutRequest& put : puts) {
    const bool more = co_await load.Write(put);
    if (!more) break;
  }
  co_return co_await load.Finish();
}

TEST_F(KeyValueServiceTest, LoadPutsEverythingInFewCommits) {
  std::vector<PutRequest> puts;
  for (int i = 0; i < 3000; ++i) puts.push_back(MakePut(absl::StrCat("k", i), std::string(100, 'v')));
  puts.push_back(MakePut("k0", "last"));
  const auto summary = Run(LoadAll(stub(), puts));
  ASSERT_OK(summary);
  EXPECT_EQ(summary->puts(), 3001);
  EXPECT_EQ(summary->bytes(), 3000 * 100 + 4 + 10 * 2 + 90 * 3 + 900 * 4 + 2000 * 5 + 2);
  EXPECT_EQ(summary->revision(), 3001);
  EXPECT_EQ(Run(stub().Get(MakeGet("k0")))->value(), "last");
  EXPECT_LT(store_->counters().commits.value(), 200u);
}

TEST_F(KeyValueServiceTest, LoadOfNothing) { EXPECT_THAT(Run(LoadAll(stub(), {})), IsOkAndHolds(EqualsProto(""))); }

TEST_F(KeyValueServiceTest, LoadEndsAtABadPutAndKeepsWhatCameBefore) {
  EXPECT_THAT(Run(LoadAll(stub(), {MakePut("a", "1"), MakePut("b", "2"), MakePut("", "3"), MakePut("d", "4")})),
              StatusIs(absl::StatusCode::kInvalidArgument, "put 3: the key is empty"));
  EXPECT_THAT(Keys(), ElementsAre("a", "b"));
}

TEST_F(KeyValueServiceTest, LoadIsWatchedWhileItRuns) {
  auto events = stub().Watch(MakeWatch(""));
  auto load = stub().Load();
  const PutRequest put = MakePut("a", "1");
  EXPECT_TRUE(Run([&] { return load.Write(put); }));
  EXPECT_EQ(NextEvent(events), "1:a=1") << "before the load has ended";
  EXPECT_THAT(Run([&] { return load.Finish(); }), IsOkAndHolds(EqualsProto("puts: 1 bytes: 2 revision: 1")));
}

TEST_F(KeyValueServiceTest, LoadThatIsCancelledStops) {
  {
    auto load = stub().Load();
    const PutRequest put = MakePut("a", "1");
    EXPECT_TRUE(Run([&] { return load.Write(put); }));
    Settle();
    EXPECT_EQ(server_.server().calls_in_flight(), 1u);
  }
  Settle();
  EXPECT_EQ(server_.server().calls_in_flight(), 0u);
  EXPECT_THAT(Keys(), ElementsAre("a"));
}

// ---- Mirror

TEST_F(KeyValueServiceTest, MirrorAnswersEachPutInOrder) {
  auto mirror = stub().Mirror();
  WatchEvent event;
  for (int i = 1; i <= 20; ++i) {
    const PutRequest put = MakePut("k", absl::StrCat(i));
    ASSERT_TRUE(Run([&] { return mirror.Write(put); }));
    ASSERT_TRUE(Run([&] { return mirror.Read(event); }));
    EXPECT_EQ(ToString(event), absl::StrCat(i, ":k=", i));
  }
  mirror.WritesDone();
  EXPECT_FALSE(Run([&] { return mirror.Read(event); }));
  EXPECT_OK(Run([&] { return mirror.Finish(); }));
}

TEST_F(KeyValueServiceTest, MirrorAnswersWhatWasPutBeforeABadOne) {
  auto mirror = stub().Mirror();
  for (const char* key : {"a", "b", "", "d"}) {
    const PutRequest put = MakePut(key, "1");
    Run([&] { return mirror.Write(put); });
  }
  WatchEvent event;
  ASSERT_TRUE(Run([&] { return mirror.Read(event); }));
  EXPECT_EQ(ToString(event), "1:a=1");
  ASSERT_TRUE(Run([&] { return mirror.Read(event); }));
  EXPECT_EQ(ToString(event), "2:b=1");
  EXPECT_FALSE(Run([&] { return mirror.Read(event); }));
  EXPECT_THAT(Run([&] { return mirror.Finish(); }),
              StatusIs(absl::StatusCode::kInvalidArgument, "put 3: the key is empty"));
  EXPECT_THAT(Keys(), ElementsAre("a", "b"));
}

// Writes until it has to wait for longer than the server could need.
Task<void> WriteAll(troupe::ClientReaderWriter<PutRequest, WatchEvent>& mirror, const PutRequest& put, int* written) {
  while (true) {
    const bool more = co_await mirror.Write(put);
    if (!more) co_return;
    ++*written;
  }
}

TEST_F(KeyValueServiceTest, MirrorStopsReadingFromAClientThatDoesNotReadItsAnswers) {
  auto mirror = stub().Mirror();
  const PutRequest put = MakePut("k", std::string(10'000, 'v'));
  int written = 0;
  auto writing = server_.loop().CreateTask(WriteAll(mirror, put, &written));
  Settle();
  const int stopped_at = written;
  EXPECT_GT(stopped_at, 10);
  EXPECT_LT(stopped_at, 2000) << "20 MB wait somewhere";
  Settle();
  EXPECT_EQ(written, stopped_at);
  // It goes on when the client reads.
  WatchEvent event;
  for (int i = 1; i <= stopped_at; ++i) {
    ASSERT_TRUE(Run([&] { return mirror.Read(event); }));
    ASSERT_EQ(event.revision(), i);
  }
  Settle();
  EXPECT_GT(written, stopped_at);
  mirror.Cancel();
  Settle();
  EXPECT_TRUE(writing.done());
}

// ---- who brings more than the disk takes, and reads nothing

Task<void> WriteAll(troupe::ClientWriter<PutRequest, LoadSummary>& load, const PutRequest& put, int count,
                    int* written) {
  for (int i = 0; i < count; ++i) {
    const bool more = co_await load.Write(put);
    if (!more) co_return;
    ++*written;
  }
}

Task<absl::StatusOr<LoadSummary>> Finish(troupe::ClientWriter<PutRequest, LoadSummary>& load) {
  co_return co_await load.Finish();
}

Task<void> ReadSome(troupe::ClientReaderWriter<PutRequest, WatchEvent>& mirror, int count, int* read) {
  WatchEvent event;
  for (int i = 0; i < count; ++i) {
    const bool more = co_await mirror.Read(event);
    if (!more) co_return;
    ++*read;
  }
}

// A thousand streams of one connection held 1 MiB each, and as much again while it was on its way to the disk.
TEST_F(KeyValueServiceTest, LoadsOfOneConnectionTogetherHoldNoMoreThanItMay) {
  Make(true);
  constexpr int kLoads = 100, kPuts = 20;
  const PutRequest put = MakePut("k", std::string(50'000, 'v'));
  std::vector<troupe::ClientWriter<PutRequest, LoadSummary>> loads;
  std::vector<troupe::TaskHandle<void>> writing;
  int written = 0;
  auto kv = stub();
  for (int i = 0; i < kLoads; ++i) loads.push_back(kv.Load());
  for (auto& load : loads) writing.push_back(server_.loop().CreateTask(WriteAll(load, put, kPuts, &written)));
  Settle();
  EXPECT_LT(server_.server().held_bytes(), 14 << 20) << "2 MiB, and what each had credit for before its handler ran";
  EXPECT_GT(server_.server().held_bytes(), 2 << 20);
  EXPECT_GT(server_.server().counters().credit_pauses.value(), 0u);
  EXPECT_LT(written, 400) << "of 2,000, those in the client's own hands included";
  while (written < kLoads * kPuts) {
    server_.RunUntilIdle();
    ASSERT_TRUE(pool_->RunOne()) << "all wait for each other";
  }
  for (auto& load : loads) {
    const auto summary = server_.loop().CreateTask(Finish(load));
    do {
      server_.RunUntilIdle();
    } while (pool_->RunOne());
    ASSERT_TRUE(summary.done());
    ASSERT_OK(summary.result());
    EXPECT_EQ(summary.result()->puts(), kPuts);
  }
  EXPECT_LT(server_.server().held_bytes(), 1000);
}

TEST_F(KeyValueServiceTest, MirrorsWhoseAnswersNobodyReadsTogetherHoldNoMoreThanAConnectionMay) {
  const PutRequest put = MakePut("k", std::string(50'000, 'v'));
  std::vector<troupe::ClientReaderWriter<PutRequest, WatchEvent>> mirrors;
  std::vector<troupe::TaskHandle<void>> writing;
  int written = 0;
  auto kv = stub();
  for (int i = 0; i < 100; ++i) mirrors.push_back(kv.Mirror());
  for (auto& mirror : mirrors) writing.push_back(server_.loop().CreateTask(WriteAll(mirror, put, &written)));
  Settle();
  const int stopped_at = written;
  EXPECT_LT(written, 500) << "25 MB";
  EXPECT_LT(server_.server().held_bytes(), 9 << 20);
  Settle();
  EXPECT_EQ(written, stopped_at);
  // Who reads goes on.
  int read = 0;
  std::vector<troupe::TaskHandle<void>> reading;
  for (auto& mirror : mirrors) reading.push_back(server_.loop().CreateTask(ReadSome(mirror, 10, &read)));
  for (const auto& task : reading) server_.loop().RunUntilComplete(troupe::Future<void>(task));
  EXPECT_EQ(read, 1000);
  EXPECT_GT(written, stopped_at);
  for (auto& mirror : mirrors) mirror.Cancel();
  Settle();
  for (const auto& task : writing) EXPECT_TRUE(task.done());
  EXPECT_LT(server_.server().held_bytes(), 1000);
}

// Each took a change of 1 MiB to write it to a client that does not read.
TEST_F(KeyValueServiceTest, WatchesOfOneConnectionTakeTurnsWithALargeChange) {
  std::vector<troupe::ClientReader<WatchEvent>> watches;
  auto kv = stub();
  for (int i = 0; i < 100; ++i) watches.push_back(kv.Watch(MakeWatch("w")));
  Settle();
  std::vector<Mutation> large(1);
  large[0] = {"w", std::string(1 << 20, 'W')};
  PutOnDisk(std::move(large));
  Settle();
  EXPECT_LT(server_.server().held_bytes(), 4 << 20);
  EXPECT_LE(store_->feed().held_bytes(), (1u << 20) + 1);
  for (auto& watch : watches) EXPECT_EQ(NextEvent(watch).substr(0, 4), "1:w=");
}

TEST_F(KeyValueServiceTest, APrefixThatNoKeyCanHaveIsRefusedBeforeItIsKept) {
  const std::string prefix(1 << 20, 'p');
  ListRequest list;
  list.set_prefix(prefix);
  EXPECT_THAT(Run(stub().List(list)), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("prefix")));
  auto watch = stub().Watch(MakeWatch(prefix));
  EXPECT_THAT(Run([&] { return watch.Finish(); }), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("prefix")));
}

// ---- failures of the disk

TEST_F(KeyValueServiceTest, AFullDiskFailsWritesButNotReads) {
  files_.options().file_bytes_max = 60 * 4096;
  Make();
  Put("small", "1");
  EXPECT_THAT(Run(stub().Put(MakePut("large", std::string(500'000, 'v')))),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("full")));
  std::vector<PutRequest> puts;
  for (int i = 0; i < 100; ++i) puts.push_back(MakePut(absl::StrCat("k", 100 + i), std::string(10'000, 'v')));
  EXPECT_THAT(Run(LoadAll(stub(), puts)), StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("full")));
  // Pairs up to some point, and none after it.
  std::vector<std::string> keys = Keys();
  ASSERT_EQ(keys.back(), "small");
  for (size_t i = 0; i + 1 < keys.size(); ++i) EXPECT_EQ(keys[i], absl::StrCat("k", 100 + i));
  EXPECT_LT(keys.size(), 40u);
  EXPECT_EQ(Run(stub().Get(MakeGet("small")))->value(), "1");
  EXPECT_OK(Run(stub().Delete(MakeDelete("small"))));
}

// ---- clients that go away while the store works for them

class CancelledCallTest : public KeyValueServiceTest {
 protected:
  CancelledCallTest() { Make(true); }

  // The store has begun with what a call asked for.
  void ExpectRunning() {
    server_.RunUntilIdle();
    ASSERT_EQ(pool_->size(), 1u);
    ASSERT_EQ(server_.server().calls_in_flight(), 1u);
  }
  // The call is over while the store still works for it, and when that is done nothing comes of it.
  void ExpectGone() {
    server_.RunUntilIdle();
    EXPECT_EQ(server_.server().calls_in_flight(), 0u);
    EXPECT_EQ(pool_->size(), 1u);
    do {
      server_.RunUntilIdle();
    } while (pool_->RunOne());
    EXPECT_EQ(server_.server().calls_in_flight(), 0u);
  }
  std::string GetNow(const std::string& key) {
    auto reply = stub().Get(MakeGet(key));
    do {
      server_.RunUntilIdle();
    } while (pool_->RunOne());
    const auto response = Run(std::move(reply));
    return response.ok() ? response->value() : response.status().ToString();
  }
};

TEST_F(CancelledCallTest, Get) {
  {
    auto reply = stub().Get(MakeGet("a"));
    ExpectRunning();
  }
  ExpectGone();
}

TEST_F(CancelledCallTest, Put) {
  {
    auto reply = stub().Put(MakePut("a", "1"));
    ExpectRunning();
  }
  ExpectGone();
  EXPECT_EQ(GetNow("a"), "1") << "the commit was under way";
}

TEST_F(CancelledCallTest, PutThatWaitsForItsTurnIsNotMade) {
  auto first = stub().Put(MakePut("a", "1"));
  ExpectRunning();
  {
    auto second = stub().Put(MakePut("b", "2"));
    server_.RunUntilIdle();
    EXPECT_EQ(server_.server().calls_in_flight(), 2u);
  }
  server_.RunUntilIdle();
  EXPECT_EQ(server_.server().calls_in_flight(), 1u);
  EXPECT_THAT(GetNow("b"), HasSubstr("NOT_FOUND"));
  EXPECT_OK(Run(std::move(first)));
}

TEST_F(CancelledCallTest, Delete) {
  {
    auto reply = stub().Delete(MakeDelete("a"));
    ExpectRunning();
  }
  ExpectGone();
}

TEST_F(CancelledCallTest, List) {
  {
    auto reply = stub().List({});
    ExpectRunning();
  }
  ExpectGone();
}

TEST_F(CancelledCallTest, WatchThatReadsOldChanges) {
  Make();
  PutOnDisk(std::vector<Mutation>{{"a", "1"}});
  Make(true);
  {
    auto events = stub().Watch(MakeWatch("", 0));
    ExpectRunning();
  }
  ExpectGone();
}

TEST_F(CancelledCallTest, Load) {
  {
    auto load = stub().Load();
    const PutRequest put = MakePut("a", "1");
    Run([&] { return load.Write(put); });
    ExpectRunning();
  }
  ExpectGone();
  EXPECT_EQ(GetNow("a"), "1");
}

TEST_F(CancelledCallTest, Mirror) {
  {
    auto mirror = stub().Mirror();
    const PutRequest put = MakePut("a", "1");
    Run([&] { return mirror.Write(put); });
    ExpectRunning();
  }
  ExpectGone();
  EXPECT_EQ(GetNow("a"), "1");
}

TEST_F(CancelledCallTest, ADeadlineEndsACallLikeItsClient) {
  auto reply = stub().Get(MakeGet("a"), {.timeout = absl::Milliseconds(50)});
  ExpectRunning();
  server_.Advance(absl::Milliseconds(60));
  ExpectGone();
  EXPECT_THAT(Run(std::move(reply)), StatusIs(absl::StatusCode::kDeadlineExceeded));
}

TEST_F(CancelledCallTest, AConnectionThatIsLostEndsItsCalls) {
  auto reply = stub().Get(MakeGet("a"));
  ExpectRunning();
  server_.client().Close(absl::OkStatus());
  ExpectGone();
  EXPECT_THAT(Run(std::move(reply)), StatusIs(absl::StatusCode::kUnavailable));
}

}  // namespace
}  // namespace kv::v1
