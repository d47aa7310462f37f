#include "services/kv/store.h"

#include <linux/capability.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/kv/sqlite.h"

namespace kv {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string TestFolder() {
  const char* const folder = std::getenv("TEST_TMPDIR");
  return folder == nullptr ? ::testing::TempDir() : folder;
}

// A store on disk, and verbs whose results are strings: "3" is a revision, "v@3" a value and its revision.
class StoreTest : public ::testing::Test {
 protected:
  StoreTest() {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    std::string folder = absl::StrCat(TestFolder(), "/", test->name(), ".XXXXXX");
    EXPECT_NE(mkdtemp(folder.data()), nullptr);
    folder_ = folder;
    options_.path = folder + "/kv.db";
  }
  ~StoreTest() override {
    store_.reset();
    const std::vector<std::string> files = {"", "-wal", "-shm", "-journal"};
    for (const std::string& suffix : files) unlink((options_.path + suffix).c_str());
    EXPECT_EQ(rmdir(folder_.c_str()), 0) << "the store left files behind";
  }

  static std::string Text(const absl::Status& status) { return status.ToString(); }

  std::string Open() {
    store_.reset();
    auto store = Store::Open(options_);
    if (!store.ok()) return Text(store.status());
    store_ = *std::move(store);
    return "OK";
  }
  std::string Reopen() { return Open(); }
  std::string Put(const std::string& key, const std::string& value) {
    const auto revision = store_->Put(key, value);
    return revision.ok() ? absl::StrCat(*revision) : Text(revision.status());
  }
  std::string Delete(const std::string& key) {
    const auto found = store_->Delete(key);
    return found.ok() ? (*found ? "found" : "not found") : Text(found.status());
  }
  std::string Get(const std::string& key) {
    const auto entry = store_->Get(key);
    return entry.ok() ? absl::StrCat(entry->value, "@", entry->revision) : Text(entry.status());
  }
  // "a=1@1 b=2@2", then " ..." if there is another page.
  std::string List(const ListQuery& query, std::string* next = nullptr) {
    const auto page = store_->List(query);
    if (!page.ok()) return Text(page.status());
    std::vector<std::string> parts;
    for (const Entry& e : page->entries) parts.push_back(absl::StrCat(e.key, "=", e.value, "@", e.revision));
    if (!page->next_page_token.empty()) parts.push_back("...");
    if (next != nullptr) *next = page->next_page_token;
    return absl::StrJoin(parts, " ");
  }
  std::string List(const std::string& prefix = "") {
    ListQuery query;
    query.prefix = prefix;
    return List(query);
  }
  // "1:a=1 2:b-", then " after 2 of 7".
  std::string Changes(const ChangesQuery& query, int64_t* next = nullptr) {
    const auto page = store_->Changes(query);
    if (!page.ok()) return Text(page.status());
    std::string text;
    for (const Change& c : page->changes) {
      absl::StrAppend(&text, c.revision, ":", c.key, c.value.has_value() ? "=" + *c.value : "-", " ");
    }
    if (next != nullptr) *next = page->after;
    return absl::StrCat(text, "after ", page->after, " of ", page->revision);
  }
  std::string Changes(int64_t after, const std::string& prefix = "") {
    ChangesQuery query;
    query.after = after;
    query.prefix = prefix;
    return Changes(query);
  }

  std::string folder_;
  StoreOptions options_;
  std::unique_ptr<Store> store_;
};

TEST_F(StoreTest, GetsWhatWasPutWithItsRevision) {
  ASSERT_EQ(Open(), "OK");
  EXPECT_EQ(Put("a", "1"), "1");
  EXPECT_EQ(Put("b", "2"), "2");
  EXPECT_EQ(Put("a", "3"), "3");
  EXPECT_EQ(Get("a"), "3@3");
  EXPECT_EQ(Get("b"), "2@2");
  EXPECT_EQ(Get("c"), "NOT_FOUND: no such key");
  EXPECT_EQ(store_->revision(), 3);
}

TEST_F(StoreTest, DeletionOfWhatIsNotThereChangesNothing) {
  ASSERT_EQ(Open(), "OK");
  EXPECT_EQ(Delete("a"), "not found");
  EXPECT_EQ(Put("a", "1"), "1");
  EXPECT_EQ(Delete("a"), "found");
  EXPECT_EQ(Delete("a"), "not found");
  EXPECT_EQ(Get("a"), "NOT_FOUND: no such key");
  EXPECT_EQ(List(), "");
  EXPECT_EQ(store_->revision(), 2);
  EXPECT_EQ(Put("a", "2"), "3");
  EXPECT_EQ(Get("a"), "2@3");
}

TEST_F(StoreTest, KeysAndValuesAreAnyBytes) {
  ASSERT_EQ(Open(), "OK");
  const std::string key("\0\xff\x01 \0", 5), value("\0\0", 2);
  EXPECT_EQ(Put(key, value), "1");
  EXPECT_EQ(Put(std::string("\0", 1), ""), "2");
  EXPECT_EQ(store_->Get(key)->value, value);
  EXPECT_EQ(Get(std::string("\0", 1)), "@2");
  EXPECT_EQ(store_->List({})->entries.size(), 2u);
}

TEST_F(StoreTest, EmptyValueIsAValue) {
  ASSERT_EQ(Open(), "OK");
  EXPECT_EQ(Put("a", ""), "1");
  EXPECT_EQ(Get("a"), "@1");
  EXPECT_EQ(List(), "a=@1");
  EXPECT_EQ(Changes(0), "1:a= after 1 of 1");
  EXPECT_EQ(Delete("a"), "found");
  EXPECT_EQ(Changes(0), "2:a- after 2 of 2");
}

TEST_F(StoreTest, RefusesKeysAndValuesThatAreTooLarge) {
  options_.key_bytes_max = 4;
  options_.value_bytes_max = 6;
  ASSERT_EQ(Open(), "OK");
  EXPECT_EQ(Put("", "1"), "INVALID_ARGUMENT: the key is empty");
  EXPECT_EQ(Put("1234", "123456"), "1");
  EXPECT_EQ(Put("12345", "1"), "INVALID_ARGUMENT: the key has 5 bytes, at most 4 are allowed");
  EXPECT_EQ(Put("1", "1234567"), "INVALID_ARGUMENT: the value has 7 bytes, at most 6 are allowed");
  EXPECT_EQ(Get("12345"), "INVALID_ARGUMENT: the key has 5 bytes, at most 4 are allowed");
  EXPECT_EQ(Delete(""), "INVALID_ARGUMENT: the key is empty");
  EXPECT_EQ(List(), "1234=123456@1");
}

TEST_F(StoreTest, OneBadMutationRefusesTheWholeBatch) {
  ASSERT_EQ(Open(), "OK");
  const std::vector<Mutation> batch = {{"a", "1"}, {"", "2"}};
  EXPECT_EQ(Text(store_->Apply(batch).status()), "INVALID_ARGUMENT: the key is empty");
  EXPECT_EQ(List(), "");
  EXPECT_EQ(store_->revision(), 0);
}

TEST_F(StoreTest, BatchIsAppliedInOrderAndGivesARevisionEach) {
  ASSERT_EQ(Open(), "OK");
  const std::vector<Mutation> batch = {{"a", "1"},          {"b", "2"},          {"a", "3"}, {"c", std::nullopt},
                                       {"b", std::nullopt}, {"b", std::nullopt}, {"b", "4"}};
  const auto revisions = store_->Apply(batch);
  ASSERT_TRUE(revisions.ok()) << revisions.status();
  EXPECT_THAT(*revisions, ::testing::ElementsAre(1, 2, 3, 0, 4, 0, 5));
  EXPECT_EQ(List(), "a=3@3 b=4@5");
  EXPECT_EQ(store_->Apply({})->size(), 0u);
}

TEST_F(StoreTest, OneTransactionDoesNoMoreThanItMay) {
  ASSERT_EQ(Open(), "OK");
  const auto apply = [this](const std::vector<Mutation>& batch, const TransactionLimits& limits) {
    const auto revisions = store_->ApplyFirst(batch, limits);
    return revisions.ok() ? revisions->size() : 0;
  };
  const std::string large(1000, 'v');
  const std::vector<Mutation> puts = {{"a", large}, {"b", large}, {"c", large}, {"d", large}};
  EXPECT_EQ(apply(puts, {.mutations_max = 3, .bytes_max = 10'000}), 3u);
  EXPECT_EQ(List(), absl::StrCat("a=", large, "@1 b=", large, "@2 c=", large, "@3"));
  EXPECT_EQ(apply(puts, {.mutations_max = 4, .bytes_max = 5000}), 2u) << "what they replace counts as well";
  EXPECT_EQ(apply(puts, {.mutations_max = 4, .bytes_max = 10}), 1u) << "one in any case";
  const std::vector<Mutation> deletions = {{"a", std::nullopt}, {"b", std::nullopt}, {"c", std::nullopt}};
  EXPECT_EQ(apply(deletions, {.mutations_max = 4, .bytes_max = 2500}), 2u);
  EXPECT_EQ(store_->revision(), 8);
  EXPECT_EQ(List(), absl::StrCat("c=", large, "@3"));
}

TEST_F(StoreTest, EverythingIsThereAfterReopening) {
  ASSERT_EQ(Open(), "OK");
  EXPECT_EQ(Put("a", "1"), "1");
  EXPECT_EQ(Put("b", "2"), "2");
  EXPECT_EQ(Delete("b"), "found");
  ASSERT_EQ(Reopen(), "OK");
  EXPECT_EQ(store_->revision(), 3);
  EXPECT_EQ(Changes(0), "1:a=1 3:b- after 3 of 3");
  EXPECT_EQ(Put("c", "3"), "4");
}

// ---- List

TEST_F(StoreTest, ListIsOrderedByBytesAndBoundedByPrefix) {
  ASSERT_EQ(Open(), "OK");
  const std::vector<std::string> keys = {"b", "ab", "a", "B", "a\xff", "a\xff\xff", "ac", "\xff", "\xff\xff"};
  for (const std::string& key : keys) Put(key, "");
  EXPECT_EQ(List(""), "B=@4 a=@3 ab=@2 ac=@7 a\xff=@5 a\xff\xff=@6 b=@1 \xff=@8 \xff\xff=@9");
  EXPECT_EQ(List("a"), "a=@3 ab=@2 ac=@7 a\xff=@5 a\xff\xff=@6");
  EXPECT_EQ(List("ab"), "ab=@2");
  EXPECT_EQ(List("\xff"), "\xff=@8 \xff\xff=@9");
  EXPECT_EQ(List("abc"), "");
}

TEST_F(StoreTest, PagesJoinWithoutGapOrOverlap) {
  ASSERT_EQ(Open(), "OK");
  for (int i = 0; i < 10; ++i) Put(absl::StrCat("k", i), "v");
  Put("other", "v");
  for (int size = 1; size <= 11; ++size) {
    ListQuery query;
    query.prefix = "k";
    query.entries_max = size;
    std::string keys;
    int pages = 0;
    do {
      const auto page = store_->List(query);
      ASSERT_TRUE(page.ok()) << page.status();
      ASSERT_LE(page->entries.size(), static_cast<size_t>(size));
      for (const Entry& entry : page->entries) absl::StrAppend(&keys, entry.key);
      query.page_token = page->next_page_token;
      ++pages;
    } while (!query.page_token.empty());
    EXPECT_EQ(keys, "k0k1k2k3k4k5k6k7k8k9") << size;
    EXPECT_EQ(pages, (10 + size - 1) / size) << "an empty last page at size " << size;
  }
}

TEST_F(StoreTest, ListingSurvivesChangesBetweenPages) {
  ASSERT_EQ(Open(), "OK");
  for (const char* key : {"a", "b", "c", "d"}) Put(key, "1");
  ListQuery query;
  query.entries_max = 2;
  EXPECT_EQ(List(query, &query.page_token), "a=1@1 b=1@2 ...");
  Delete("b");  // the key that the token names
  Put("c", "2");
  Put("bb", "2");
  EXPECT_EQ(List(query, &query.page_token), "bb=2@7 c=2@6 ...");
  EXPECT_EQ(List(query, &query.page_token), "d=1@4");
}

TEST_F(StoreTest, PageEndsBeforeItsBytesExceedTheLimitButHasAnEntry) {
  ASSERT_EQ(Open(), "OK");
  for (const char* key : {"a", "b", "c"}) Put(key, std::string(99, 'x'));
  ListQuery query;
  query.bytes_max = 200;
  EXPECT_EQ(store_->List(query)->entries.size(), 2u);
  query.bytes_max = 199;
  EXPECT_EQ(store_->List(query)->entries.size(), 1u);
  query.bytes_max = 0;
  EXPECT_EQ(store_->List(query)->entries.size(), 1u);
  query.keys_only = true;
  query.bytes_max = 3;
  EXPECT_EQ(List(query), "a=@1 b=@2 c=@3");
}

TEST_F(StoreTest, PageOfManyDeletedKeysEndsAndGoesOn) {
  ASSERT_EQ(Open(), "OK");
  std::vector<Mutation> batch;
  for (int i = 0; i < 1000; ++i) batch.push_back({absl::StrFormat("k%05d", i), ""});
  for (int i = 0; i < 999; ++i) batch.push_back({absl::StrFormat("k%05d", i), std::nullopt});
  ASSERT_TRUE(store_->Apply(batch).ok());
  EXPECT_EQ(store_->List({})->looked_at, 512u);
  ListQuery query;
  EXPECT_EQ(List(query, &query.page_token), "...");
  EXPECT_EQ(List(query, &query.page_token), "k00999=@1000");
}

TEST_F(StoreTest, RefusesPrefixesAndPageTokensThatNoKeyCanHave) {
  options_.key_bytes_max = 4;
  ASSERT_EQ(Open(), "OK");
  ListQuery query;
  query.prefix = "1234";
  EXPECT_EQ(List(query), "");
  query.prefix = "12345";
  EXPECT_EQ(List(query), "INVALID_ARGUMENT: the prefix has 5 bytes, no key has more than 4");
  EXPECT_EQ(Changes(0, "12345"), "INVALID_ARGUMENT: the prefix has 5 bytes, no key has more than 4");
  query.prefix = "";
  query.page_token = std::string(1000, 'A');
  EXPECT_EQ(Text(store_->Validate(query)), "INVALID_ARGUMENT: page token: not one that this service gave");
}

TEST_F(StoreTest, RefusesForeignPageTokens) {
  ASSERT_EQ(Open(), "OK");
  for (const char* key : {"a1", "a2", "a3"}) Put(key, "1");
  ListQuery query;
  query.prefix = "a";
  query.entries_max = 1;
  std::string token;
  EXPECT_EQ(List(query, &token), "a1=1@1 ...");
  query.page_token = token;
  query.prefix = "";
  EXPECT_EQ(List(query), "INVALID_ARGUMENT: page token: of a listing with another prefix");
  query.prefix = "a2";
  EXPECT_EQ(List(query), "INVALID_ARGUMENT: page token: of a listing with another prefix");
  query.prefix = "a";
  const std::vector<std::string> bad = {"x", "!", "AAAA", "AAAAAAAAAAAAAAAA", token.substr(0, 12)};
  for (const std::string& text : bad) {
    query.page_token = text;
    EXPECT_EQ(List(query), "INVALID_ARGUMENT: page token: not one that this service gave") << text;
  }
  query.page_token = "";
  query.entries_max = -1;
  EXPECT_EQ(List(query), "INVALID_ARGUMENT: page size: negative");
}

// ---- Changes

TEST_F(StoreTest, ChangesTellTheLatestOfEachKeyInOrder) {
  ASSERT_EQ(Open(), "OK");
  EXPECT_EQ(Changes(0), "after 0 of 0");
  Put("a", "1");
  Put("b", "2");
  Put("a", "3");
  Delete("b");
  Put("c", "5");
  EXPECT_EQ(Changes(0), "3:a=3 4:b- 5:c=5 after 5 of 5");
  EXPECT_EQ(Changes(3), "4:b- 5:c=5 after 5 of 5");
  EXPECT_EQ(Changes(5), "after 5 of 5");
  EXPECT_EQ(Changes(0, "b"), "4:b- after 5 of 5");
  EXPECT_EQ(Changes(6), "OUT_OF_RANGE: revision 6 lies in the future: the latest is 5");
  EXPECT_EQ(Changes(-1), "INVALID_ARGUMENT: revision: negative");
}

TEST_F(StoreTest, PagesOfChangesJoin) {
  ASSERT_EQ(Open(), "OK");
  for (int i = 1; i <= 5; ++i) Put(absl::StrCat(i % 2 == 0 ? "even" : "odd", i), "123456");
  ChangesQuery query;
  query.prefix = "odd";
  query.changes_max = 2;
  // It has looked at 4 as well, which is not wanted.
  EXPECT_EQ(Changes(query, &query.after), "1:odd1=123456 3:odd3=123456 after 4 of 5");
  EXPECT_EQ(Changes(query, &query.after), "5:odd5=123456 after 5 of 5");
  query = {};
  query.bytes_max = 21;
  EXPECT_EQ(Changes(query, &query.after), "1:odd1=123456 2:even2=123456 after 2 of 5");
  query.bytes_max = 0;
  EXPECT_EQ(Changes(query, &query.after), "3:odd3=123456 after 3 of 5");
}

TEST_F(StoreTest, ChangesPassesOverAFewHundredOnly) {
  ASSERT_EQ(Open(), "OK");
  std::vector<Mutation> batch;
  for (int i = 1; i <= 513; ++i) batch.push_back({absl::StrCat("k", i), ""});
  ASSERT_TRUE(store_->Apply(batch).ok());
  EXPECT_EQ(Changes(0, "x"), "after 512 of 513");
  EXPECT_EQ(Changes(512, "x"), "after 513 of 513");
  EXPECT_EQ(Changes(0, "k513"), "after 512 of 513");
  EXPECT_EQ(store_->Changes({})->changes.size(), 513u) << "those that are given do not count";
}

TEST_F(StoreTest, ForgetsOldDeletionsAndSaysSo) {
  options_.deletions_kept_max = 10;
  ASSERT_EQ(Open(), "OK");
  Put("gone", "1");
  Delete("gone");
  Put("kept", "3");
  std::vector<Mutation> batch;
  for (int i = 0; i < 1200; ++i) batch.push_back({"x", ""});
  ASSERT_TRUE(store_->Apply(batch).ok());
  EXPECT_EQ(store_->oldest_after(), 1193);
  // Who begins at 0 knows nothing of the key, so nothing is missing.
  EXPECT_EQ(Changes(0), "3:kept=3 1203:x= after 1203 of 1203");
  EXPECT_EQ(Changes(1192),
            "OUT_OF_RANGE: what was deleted since revision 1192 is no longer known: the oldest to go on from is 1193");
  EXPECT_EQ(Changes(1193), "1203:x= after 1203 of 1203");
  ASSERT_EQ(Reopen(), "OK");
  EXPECT_EQ(store_->oldest_after(), 1193);
  EXPECT_EQ(store_->revision(), 1203);
}

TEST_F(StoreTest, KeepsTheLatestRevisionEvenIfEverythingWasDeleted) {
  options_.deletions_kept_max = 1;
  ASSERT_EQ(Open(), "OK");
  std::vector<Mutation> batch;
  for (int i = 0; i < 2000; ++i) batch.push_back({absl::StrCat(i), ""});
  for (int i = 0; i < 2000; ++i) batch.push_back({absl::StrCat(i), std::nullopt});
  ASSERT_TRUE(store_->Apply(batch).ok());
  for (int i = 0; i < 5; ++i) Put("x", ""), Delete("x");
  EXPECT_EQ(List(), "");
  ASSERT_EQ(Reopen(), "OK");
  EXPECT_EQ(store_->revision(), 4010);
}

// The same operations on a std::map with tombstones must give the same answers.
TEST_F(StoreTest, AgreesWithAModel) {
  const char* const given = std::getenv("TEST_SEED");
  const unsigned seed = given != nullptr ? static_cast<unsigned>(std::atol(given)) : std::random_device{}();
  SCOPED_TRACE(absl::StrCat("TEST_SEED=", seed));
  std::mt19937 random(seed);
  const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  ASSERT_EQ(Open(), "OK");
  std::map<std::string, std::pair<int64_t, std::optional<std::string>>> model;
  int64_t revision = 0;
  for (int round = 0; round < 60; ++round) {
    std::vector<Mutation> batch(static_cast<size_t>(below(40)));
    std::vector<int64_t> expected;
    for (Mutation& m : batch) {
      m.key = absl::StrCat(std::string(1, static_cast<char>('a' + below(3))), below(20));
      if (below(3) != 0) m.value = std::string(static_cast<size_t>(below(200)), 'v');
      const auto it = model.find(m.key);
      if (!m.value.has_value() && (it == model.end() || !it->second.second.has_value())) {
        expected.push_back(0);
      } else {
        expected.push_back(++revision);
        model[m.key] = {revision, m.value};
      }
    }
    const auto revisions = store_->Apply(batch);
    ASSERT_TRUE(revisions.ok()) << revisions.status();
    ASSERT_EQ(*revisions, expected);
    if (below(10) == 0) {
      ASSERT_EQ(Reopen(), "OK");
    }
    const std::string prefix(static_cast<size_t>(below(2)), 'b');

    ListQuery list;
    list.prefix = prefix;
    list.entries_max = 1 + below(20);
    list.bytes_max = static_cast<size_t>(below(2000));
    std::vector<std::string> got, want;
    do {
      const auto page = store_->List(list);
      ASSERT_TRUE(page.ok()) << page.status();
      for (const Entry& e : page->entries) got.push_back(absl::StrCat(e.key, "=", e.value, "@", e.revision));
      list.page_token = page->next_page_token;
    } while (!list.page_token.empty());
    for (const auto& [key, change] : model) {
      if (!change.second.has_value() || !absl::StartsWith(key, prefix)) continue;
      want.push_back(absl::StrCat(key, "=", *change.second, "@", change.first));
    }
    ASSERT_EQ(got, want);

    ChangesQuery changes;
    changes.prefix = prefix;
    changes.after = below(static_cast<int>(revision) + 1);
    changes.changes_max = 1 + below(20);
    changes.bytes_max = static_cast<size_t>(below(2000));
    std::map<int64_t, std::string> got_changes, want_changes;
    for (const auto& [key, change] : model) {
      if (change.first <= changes.after || !absl::StartsWith(key, prefix)) continue;
      want_changes[change.first] = key + change.second.value_or("-");
    }
    while (true) {
      const auto page = store_->Changes(changes);
      ASSERT_TRUE(page.ok()) << page.status();
      for (const Change& c : page->changes) got_changes[c.revision] = c.key + c.value.value_or("-");
      if (page->after == page->revision) break;
      ASSERT_GT(page->after, changes.after) << "no progress";
      changes.after = page->after;
    }
    ASSERT_EQ(got_changes, want_changes);
  }
}

// ---- what a file can be instead

TEST_F(StoreTest, OpenRefusesAFolderThatIsNotThere) {
  const std::string path = options_.path;
  options_.path = folder_ + "/none/kv.db";
  EXPECT_EQ(Open(), absl::StrCat("NOT_FOUND: ", options_.path, ": unable to open database file"));
  options_.path = path;
}

TEST_F(StoreTest, OpenRefusesWhatIsNoDatabaseAndLeavesItAlone) {
  const std::string text(5000, 'x');
  std::ofstream(options_.path) << text;
  EXPECT_EQ(Open(), absl::StrCat("DATA_LOSS: ", options_.path, ": file is not a database"));
  std::stringstream now;
  now << std::ifstream(options_.path).rdbuf();
  EXPECT_EQ(now.str(), text);
}

TEST_F(StoreTest, OpenRefusesTheDatabaseOfAnotherProgramAndLeavesItAlone) {
  {
    auto other = sqlite::Connection::Open(options_.path, "");
    ASSERT_TRUE(other.ok());
    ASSERT_TRUE(other->Execute("CREATE TABLE theirs(x)").ok());
  }
  EXPECT_EQ(Open(), absl::StrCat("FAILED_PRECONDITION: ", options_.path, ": a database of another program"));
  auto other = sqlite::Connection::Open(options_.path, "");
  EXPECT_EQ(*other->QueryText("PRAGMA journal_mode"), "delete");
}

TEST_F(StoreTest, OpenRefusesANewerFormat) {
  ASSERT_EQ(Open(), "OK");
  store_.reset();
  {
    auto newer = sqlite::Connection::Open(options_.path, "");
    ASSERT_TRUE(newer->Execute("PRAGMA user_version = 2").ok());
  }
  EXPECT_EQ(Open(),
            absl::StrCat("FAILED_PRECONDITION: ", options_.path, ": written in format 2, this program knows format 1"));
}

TEST_F(StoreTest, OpenFindsDamage) {
  ASSERT_EQ(Open(), "OK");
  for (int i = 0; i < 100; ++i) Put(absl::StrCat("key", i), std::string(1000, 'v'));
  store_.reset();
  {
    // A page in the middle; its first bytes say what kind of page it is. The first ones are the roots of the trees.
    std::fstream bytes(options_.path, std::ios::in | std::ios::out | std::ios::binary);
    bytes.seekp(10 * 4096);
    bytes << std::string(16, '\x7f');
  }
  EXPECT_THAT(Open(), AllOf(StartsWith("DATA_LOSS: "), HasSubstr(options_.path)));
  options_.check_integrity = false;
  ASSERT_EQ(Open(), "OK");
  std::string lost;
  int others = 0;
  for (int i = 0; i < 100; ++i) {
    const std::string key = absl::StrCat("key", i), got = Get(key);
    if (got == absl::StrCat(std::string(1000, 'v'), "@", i + 1)) {
      ++others;
    } else {
      EXPECT_EQ(got, "DATA_LOSS: database disk image is malformed");
      lost = key;
    }
  }
  EXPECT_GT(others, 90);
  EXPECT_EQ(Put(lost, ""), "DATA_LOSS: database disk image is malformed");
  EXPECT_EQ(Put("other", ""),
            "DATA_LOSS: the store takes no more changes until it is opened again: database disk image is malformed");
}

TEST_F(StoreTest, OpenRefusesOptionsThatMakeNoSense) {
  const StoreOptions good = options_;
  options_.key_bytes_max = 0;
  EXPECT_THAT(Open(), AllOf(StartsWith("INVALID_ARGUMENT: "), HasSubstr("key_bytes_max is 0")));
  options_ = good;
  options_.value_bytes_max = size_t{1} << 30;
  EXPECT_THAT(Open(), HasSubstr("above 256 MiB"));
  options_ = good;
  options_.path = "";
  EXPECT_THAT(Open(), HasSubstr("the path is empty"));
  options_ = good;
  options_.deletions_kept_max = 0;
  EXPECT_THAT(Open(), HasSubstr("deletions_kept_max is not positive"));
  options_ = good;
  options_.log_pages_max = 0;
  EXPECT_THAT(Open(), HasSubstr("log_pages_max is not positive"));
  options_ = good;
  options_.file_bytes_max = 0;
  EXPECT_THAT(Open(), HasSubstr("file_bytes_max is not positive"));
  options_ = good;
}

TEST_F(StoreTest, SecondStoreOnTheSameFileIsRefused) {
  ASSERT_EQ(Open(), "OK");
  const auto second = Store::Open(options_);
  EXPECT_EQ(Text(second.status()), absl::StrCat("UNAVAILABLE: ", options_.path, ": in use by another process"));
  EXPECT_EQ(Put("a", "1"), "1");
}

// ---- other processes. The child is a fork: this process has one thread.

// Runs `body` in a child process, whose exit code is what `body` returns. Gives its id.
template <class F>
pid_t Fork(F body) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  EXPECT_GT(child, 0);
  return child;
}

int WaitFor(pid_t child) {
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return status;
}

TEST_F(StoreTest, SecondProcessIsRefusedUntilTheFirstIsGone) {
  int to_child[2], to_parent[2];
  ASSERT_EQ(pipe(to_child), 0);
  ASSERT_EQ(pipe(to_parent), 0);
  const pid_t child = Fork([&] {
    close(to_child[1]);
    auto store = Store::Open(options_);
    char byte = store.ok() ? '1' : '0';
    if (write(to_parent[1], &byte, 1) != 1) return 1;
    return static_cast<int>(read(to_child[0], &byte, 1));  // until the parent closes, or for good
  });
  char byte = 0;
  ASSERT_EQ(read(to_parent[0], &byte, 1), 1);
  EXPECT_EQ(byte, '1');
  EXPECT_EQ(Open(), absl::StrCat("UNAVAILABLE: ", options_.path, ": in use by another process"));
  kill(child, SIGKILL);
  WaitFor(child);
  EXPECT_EQ(Open(), "OK");
  for (const int fd : {to_child[0], to_child[1], to_parent[0], to_parent[1]}) close(fd);
}

// The child acknowledges through a pipe each batch that Apply has confirmed; it is killed between any two instructions.
TEST_F(StoreTest, KillLosesNothingThatWasAcknowledged) {
  int64_t acknowledged = 0;
  for (const int batch_size : {1, 7, 300}) {
    int acks[2];
    ASSERT_EQ(pipe(acks), 0);
    const pid_t child = Fork([&, this]() -> int {
      options_.log_pages_max = 20;  // many checkpoints
      auto store = Store::Open(options_);
      if (!store.ok()) return 1;
      while (true) {
        const int64_t revision = (*store)->revision();
        std::vector<Mutation> batch;
        for (int i = 1; i <= batch_size; ++i) {
          batch.push_back({absl::StrCat("k", revision + i), absl::StrCat("value of ", revision + i)});
        }
        const auto revisions = (*store)->Apply(batch);
        if (!revisions.ok() || revisions->back() != revision + batch_size) return 2;
        if (write(acks[1], &revisions->back(), 8) != 8) return 3;
        if ((*store)->NeedsCheckpoint() && !(*store)->Checkpoint().ok()) return 4;
      }
    });
    close(acks[1]);
    for (int i = 0; i < 40; ++i) ASSERT_EQ(read(acks[0], &acknowledged, 8), 8) << "the child ended by itself";
    kill(child, SIGKILL);
    const int status = WaitFor(child);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << status;
    int64_t late = 0;
    while (read(acks[0], &late, 8) == 8) acknowledged = late;  // written before it died
    close(acks[0]);

    ASSERT_EQ(Open(), "OK");
    EXPECT_GE(store_->revision(), acknowledged);
    EXPECT_LE(store_->revision(), acknowledged + batch_size) << "more than the one batch that could be under way";
    for (int64_t i = 1; i <= acknowledged; ++i) {
      ASSERT_EQ(Get(absl::StrCat("k", i)), absl::StrCat("value of ", i, "@", i));
    }
    store_.reset();
  }
}

TEST_F(StoreTest, OpenRefusesAFileThatMayNotBeWritten) {
  ASSERT_EQ(Open(), "OK");
  store_.reset();
  ASSERT_EQ(chmod(options_.path.c_str(), 0400), 0);
  int results[2];
  ASSERT_EQ(pipe(results), 0);
  const pid_t child = Fork([&, this] {
    // Root may write everything as long as it has this capability.
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct none[2] = {};
    if (syscall(SYS_capset, &header, none) != 0) return 1;
    const std::string result = Open();
    return write(results[1], result.data(), result.size()) > 0 ? 0 : 2;
  });
  close(results[1]);
  EXPECT_EQ(WaitFor(child), 0);
  std::string result(1000, '\0');
  result.resize(static_cast<size_t>(read(results[0], result.data(), result.size())));
  close(results[0]);
  EXPECT_EQ(result, absl::StrCat("PERMISSION_DENIED: ", options_.path, ": may be read, but not written"));
}

// ---- limits of the disk

TEST_F(StoreTest, FullFileRefusesPutsButReadsAndDeletes) {
  options_.file_bytes_max = 40 * 4096;
  ASSERT_EQ(Open(), "OK");
  const std::string value(4000, 'v');
  int puts = 0, revision = 0;
  std::string result;
  while (absl::SimpleAtoi(result = Put(absl::StrCat("k", puts), value), &revision)) puts = revision;
  EXPECT_EQ(result, "RESOURCE_EXHAUSTED: database or disk is full");
  EXPECT_GT(puts, 20);
  EXPECT_LT(puts, 40);
  EXPECT_EQ(store_->revision(), puts);
  EXPECT_EQ(Get("k0"), value + "@1");
  EXPECT_EQ(Delete("k0"), "found");
  EXPECT_EQ(Delete("k1"), "found");
  EXPECT_EQ(Put("new", value), absl::StrCat(puts + 3));
  ASSERT_EQ(Reopen(), "OK");
  EXPECT_EQ(store_->revision(), puts + 3);
}

// A deletion takes a row and an entry of an index before it gives back what the value had.
TEST_F(StoreTest, AFullFileOfSmallValuesCanBeEmptied) {
  options_.file_bytes_max = 40 * 4096;
  ASSERT_EQ(Open(), "OK");
  int puts = 0, revision = 0;
  while (absl::SimpleAtoi(Put(absl::StrCat("k", puts), "v"), &revision)) puts = revision;
  EXPECT_GT(puts, 1000);
  for (int i = 0; i < puts; ++i) ASSERT_EQ(Delete(absl::StrCat("k", i)), "found") << i;
  EXPECT_EQ(store_->revision(), 2 * puts);
  EXPECT_EQ(Get("k0"), "NOT_FOUND: no such key");
}

TEST_F(StoreTest, CheckpointsKeepTheLogShort) {
  options_.log_pages_max = 10;
  ASSERT_EQ(Open(), "OK");
  const std::string log = options_.path + "-wal";
  struct stat file;
  for (int i = 0; i < 200; ++i) {
    ASSERT_EQ(Put(absl::StrCat("k", i), std::string(3000, 'v')), absl::StrCat(i + 1));
    ASSERT_EQ(stat(log.c_str(), &file), 0);
    ASSERT_LT(file.st_size, 60 * 4200) << "without anybody calling Checkpoint";
  }
  ASSERT_TRUE(store_->NeedsCheckpoint() || store_->Put("x", std::string(100'000, 'x')).ok());
  ASSERT_TRUE(store_->NeedsCheckpoint());
  ASSERT_TRUE(store_->Checkpoint().ok());
  EXPECT_FALSE(store_->NeedsCheckpoint());
  store_.reset();
  EXPECT_NE(stat(log.c_str(), &file), 0) << "a log is left after closing";
}

}  // namespace
}  // namespace kv
