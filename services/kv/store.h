// Store: keys and values on disk, in one SQLite file.
//
// Use it where blocking is allowed: a tool, a test, a worker thread. On an event loop use AsyncStore, which owns one.
//
// Every change gets the next revision: 1, 2, 3 ... without gaps, across restarts. The store keeps of each key its
// latest change: the value, or for some time the fact that it was deleted. So a reader that remembers a revision can
// ask for what changed since (Changes) and misses nothing but what a later change of the same key has made obsolete.
//
// Durability: what Apply acknowledged survives kill -9 and loss of power (write-ahead log, synchronous=FULL). What it
//             refused was undone; after INTERNAL or DATA_LOSS it may be there after the next Open, since the disk
//             failed half-way. From then on the store refuses changes, because a disk that failed one sync may claim
//             the next one without having written anything; it still reads.
// Exclusive:  one process, one Store a file (locking_mode=EXCLUSIVE): no shared memory, no stale readers.
// Threading:  one thread at a time.
#ifndef TROUPE_SERVICES_KV_STORE_H_
#define TROUPE_SERVICES_KV_STORE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "services/kv/sqlite.h"

namespace kv {

struct StoreOptions {
  std::string path;  // of the database; its directory exists
  size_t key_bytes_max = 1024;
  size_t value_bytes_max = 1 << 20;            // at most 256 MiB
  int64_t file_bytes_max = int64_t{16} << 30;  // of the database, without the write-ahead log
  int64_t deletions_kept_max = 100'000;        // in revisions: how far back Changes can tell of deleted keys
  int log_pages_max = 256;      // of the write-ahead log, before it is copied into the database (4 KiB each)
  bool check_integrity = true;  // on open; reads the whole file
  std::string vfs;              // SQLite's name of a file system; empty: the system's. For tests.
};

// A key and its value.
struct Entry {
  std::string key;
  std::string value;
  int64_t revision = 0;  // of the change that put it
};

// What one transaction may do, so that nobody waits for it for long.
struct TransactionLimits {
  size_t mutations_max = 128;  // each moves two pages of 4 KiB and more, where the keys lie far apart
  size_t bytes_max = 1 << 20;  // of keys, of values, and of the values that they replace: what the disk has to move
};

// What is to be done to a key: put `value`, or without one delete the key.
struct Mutation {
  std::string key;
  std::optional<std::string> value;
};

// What was done to a key.
struct Change {
  int64_t revision = 0;
  std::string key;
  std::optional<std::string> value;  // none: deleted
};

struct ListQuery {
  std::string prefix;          // of the keys; empty: all
  std::string page_token;      // of the page before; empty: from the beginning
  int entries_max = 100;       // of the page; at most 1,000
  size_t bytes_max = 1 << 20;  // of keys and values; the first entry comes in any case
  bool keys_only = false;      // leaves the values empty
};

struct ListPage {
  std::vector<Entry> entries;   // by key, bytewise
  std::string next_page_token;  // empty: this was the last. A page without entries may have one.
  int64_t revision = 0;         // of the store when the page was read
  size_t looked_at = 0;         // keys, to make the page
};

struct ChangesQuery {
  int64_t after = 0;  // a revision
  std::string prefix;
  int changes_max = 1000;
  size_t bytes_max = 1 << 20;  // the first change comes in any case
};

struct ChangesPage {
  std::vector<Change> changes;  // by revision
  int64_t after = 0;            // where the next page begins
  int64_t revision = 0;         // of the store when the page was read; equal to `after`: nothing is left
  size_t looked_at = 0;         // changes, to make the page
};

class Store {
 public:
  // Makes the file if there is none. UNAVAILABLE: in use by another process or Store. DATA_LOSS: damaged, or no
  // database. FAILED_PRECONDITION: a database of another program or of a newer version. NOT_FOUND: no such directory.
  // PERMISSION_DENIED, INVALID_ARGUMENT (options), INTERNAL (I/O). All texts begin with the path.
  static absl::StatusOr<std::unique_ptr<Store>> Open(StoreOptions options);

  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;
  ~Store();

  // What the functions below would refuse for its own sake, before anything is tried: INVALID_ARGUMENT for an empty or
  // too long key, a too long value, prefix or page token, a negative number. Any thread.
  absl::Status Validate(const Mutation& mutation) const;
  absl::Status Validate(const ListQuery& query) const;
  absl::Status Validate(const ChangesQuery& query) const;
  absl::Status ValidateKey(absl::string_view key) const;
  absl::Status ValidatePrefix(absl::string_view prefix) const;

  // All of them, in this order, in one transaction; returns when they are on the disk. One result each: the change's
  // revision, or 0 for the deletion of a key that is not there, which changes nothing.
  // INVALID_ARGUMENT as Validate; RESOURCE_EXHAUSTED: the disk, or file_bytes_max, is full; nothing was done, and
  // reads and smaller puts may still succeed. A deletion takes some room as well, before it gives back more: nothing but
  // deletions may use 1 MiB above file_bytes_max, so that a full file can be emptied; a full disk may refuse them too.
  // INTERNAL, DATA_LOSS: see the top.
  absl::StatusOr<std::vector<int64_t>> Apply(absl::Span<const Mutation> mutations);
  // Apply of as many of them, from the first, as one transaction may do: one in any case. As many results.
  absl::StatusOr<std::vector<int64_t>> ApplyFirst(absl::Span<const Mutation> mutations,
                                                  const TransactionLimits& limits);
  // Apply of one. Delete: true if the key was there.
  absl::StatusOr<int64_t> Put(absl::string_view key, absl::string_view value);
  absl::StatusOr<bool> Delete(absl::string_view key);

  // NOT_FOUND, INVALID_ARGUMENT (the key), DATA_LOSS, INTERNAL.
  absl::StatusOr<Entry> Get(absl::string_view key);

  // Each page is one consistent view. A key that is there during the whole listing comes exactly once, whatever happens
  // to others between the pages. Passes over no more than 512 deleted keys a page. INVALID_ARGUMENT: entries_max is
  // negative, the token is not one of ours, or is of a listing with another prefix.
  absl::StatusOr<ListPage> List(const ListQuery& query);

  // The latest change of each key with a prefix that changed after a revision; at most 512 others are passed over.
  // OUT_OF_RANGE: deletions after query.after are no longer known (read everything, then go on from its revision), or
  // it lies in the future, which a restored database looks like.
  absl::StatusOr<ChangesPage> Changes(const ChangesQuery& query);

  // Of the latest change; 0 when there was none.
  int64_t revision() const { return revision_; }
  // The oldest value of ChangesQuery::after that is possible, but for 0, which is possible on any store: who knows
  // nothing has not to be told what was deleted.
  int64_t oldest_after() const { return floor_; }

  // The write-ahead log has grown beyond log_pages_max. Checkpoint() then copies it into the database, which takes a
  // few milliseconds; call it after those who wait for Apply have been answered. If nobody does, Apply does at 4 times
  // that.
  bool NeedsCheckpoint() const { return connection_.log_pages() > options_.log_pages_max; }
  // RESOURCE_EXHAUSTED: not enough room, nothing is lost, and it will be tried again. INTERNAL: as Apply.
  absl::Status Checkpoint();

  const StoreOptions& options() const { return options_; }

 private:
  Store(StoreOptions options, sqlite::Connection connection);
  absl::Status Initialize();
  absl::Status CheckFormat();
  // What there is of a key.
  struct Found {
    int64_t revision = 0;  // 0: nothing
    bool deleted = false;
    size_t value_bytes = 0;
  };
  absl::StatusOr<Found> Find(absl::string_view key);
  absl::Status ApplyOne(const Mutation& mutation, const Found& found, int64_t revision);
  absl::StatusOr<std::vector<int64_t>> ApplyInTransaction(absl::Span<const Mutation> mutations,
                                                          const TransactionLimits& limits, int64_t* revision,
                                                          int64_t* floor);
  absl::StatusOr<std::string> ValueAt(int64_t revision);
  absl::StatusOr<int64_t> ForgetDeletions(int64_t revision, size_t mutations);
  absl::Status Remember(absl::Status status);
  absl::Status LimitPages(int64_t bytes_more);
  absl::Status UndoIfHalfDone();

  const StoreOptions options_;
  sqlite::Connection connection_;  // before the statements: they go first
  sqlite::Statement begin_, commit_, rollback_, find_, remove_, put_, get_, list_, changes_, value_, forget_;
  sqlite::Statement set_floor_;
  int64_t revision_ = 0;
  int64_t floor_ = 0;     // deletions up to here may have been forgotten
  absl::Status failure_;  // why changes are refused
  int64_t page_bytes_ = 0;
};

}  // namespace kv

#endif  // TROUPE_SERVICES_KV_STORE_H_
