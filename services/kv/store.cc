#include "services/kv/store.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "glog/logging.h"
#include "troupe/base/status_macros.h"

namespace kv {
namespace {

using sqlite::Query;
using sqlite::Statement;

// "trkv", so that file(1) and we can tell whose database it is.
constexpr int64_t kApplicationId = 0x74726b76;
constexpr int64_t kFormat = 1;

// The latest change of each key, a deletion being a change without value. With the revision as row number, changes are
// appended to the table, and Changes reads it from front to back. The key's former change is taken out before, by a
// statement of its own: for INSERT OR REPLACE, SQLite would copy each page that it touches aside.
constexpr char kSchema[] = R"sql(
  CREATE TABLE changes(revision INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, value BLOB);
  CREATE INDEX deletions ON changes(revision) WHERE value IS NULL;
  CREATE TABLE numbers(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
  INSERT INTO numbers VALUES('floor', 0);
  PRAGMA application_id = 0x74726b76;
  PRAGMA user_version = 1;
)sql";

constexpr size_t kValueBytesLimit = size_t{256} << 20;
constexpr int kEntriesMax = 1000;
constexpr int kChangesMax = 4096;
constexpr size_t kRowsMax = 512;                // passed over in one query, so that none holds the thread for long
constexpr int64_t kRoomForDeletions = 1 << 20;  // above file_bytes_max
// Deletions are forgotten in steps of so many revisions, so that most commits have nothing to forget.
constexpr int64_t kForgetStep = 1024;

// Page tokens: one byte of version, eight of what listing it belongs to, then the last key of the page.
constexpr char kTokenVersion = 1;
constexpr size_t kTokenHeaderBytes = 9;

std::string TokenHeader(absl::string_view prefix) {
  uint64_t hash = 14695981039346656037u;  // FNV-1a: the same in every process
  for (const char c : prefix) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211u;
  std::string header(1, kTokenVersion);
  for (int shift = 0; shift < 64; shift += 8) header.push_back(static_cast<char>(hash >> shift));
  return header;
}

std::string MakeToken(absl::string_view prefix, absl::string_view last_key) {
  return absl::WebSafeBase64Escape(absl::StrCat(TokenHeader(prefix), last_key));
}

absl::Status NotOurToken() { return absl::InvalidArgumentError("page token: not one that this service gave"); }

absl::StatusOr<std::string> LastKeyOf(absl::string_view prefix, absl::string_view token) {
  std::string bytes;
  if (!absl::WebSafeBase64Unescape(token, &bytes) || bytes.size() <= kTokenHeaderBytes || bytes[0] != kTokenVersion) {
    return NotOurToken();
  }
  const absl::string_view all = bytes;
  if (all.substr(0, kTokenHeaderBytes) != TokenHeader(prefix) ||
      !absl::StartsWith(all.substr(kTokenHeaderBytes), prefix)) {
    return absl::InvalidArgumentError("page token: of a listing with another prefix");
  }
  return bytes.substr(kTokenHeaderBytes);
}

bool AreDeletions(absl::Span<const Mutation> mutations) {
  return std::none_of(mutations.begin(), mutations.end(),
                      [](const Mutation& mutation) { return mutation.value.has_value(); });
}

absl::Status WithPath(const StoreOptions& options, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(options.path, ": ", status.message()));
}

absl::Status CheckOptions(const StoreOptions& options) {
  if (options.path.empty()) return absl::InvalidArgumentError("the path is empty");
  if (options.key_bytes_max == 0) return absl::InvalidArgumentError("key_bytes_max is 0");
  if (options.value_bytes_max > kValueBytesLimit || options.key_bytes_max > kValueBytesLimit) {
    return absl::InvalidArgumentError("key_bytes_max or value_bytes_max is above 256 MiB");
  }
  if (options.file_bytes_max <= 0) return absl::InvalidArgumentError("file_bytes_max is not positive");
  if (options.deletions_kept_max < 1) return absl::InvalidArgumentError("deletions_kept_max is not positive");
  if (options.log_pages_max < 1) return absl::InvalidArgumentError("log_pages_max is not positive");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Store>> Store::Open(StoreOptions options) {
  absl::Status status = CheckOptions(options);
  if (status.ok()) {
    absl::StatusOr<sqlite::Connection> connection = sqlite::Connection::Open(options.path, options.vfs);
    if (connection.ok()) {
      std::unique_ptr<Store> store(new Store(options, *std::move(connection)));
      status = store->Initialize();
      if (status.ok()) return store;
    } else {
      status = std::move(connection).status();
    }
  }
  if (absl::IsUnavailable(status)) status = absl::UnavailableError("in use by another process");
  return WithPath(options, status);
}

Store::Store(StoreOptions options, sqlite::Connection connection)
    : options_(std::move(options)), connection_(std::move(connection)) {}

Store::~Store() = default;

absl::Status Store::Initialize() {
  // Exclusive before the first access: then the log's index stays in our memory. DEFENSIVE-like settings: the file may
  // have been written by anybody.
  // Some builds of SQLite overwrite what is deleted with zeros, in the log and in the database: a value of 1 MiB that goes
  // would cost more than one that comes.
  RETURN_IF_ERROR(
      connection_.Execute("PRAGMA locking_mode = EXCLUSIVE; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; "
                          "PRAGMA secure_delete = OFF;"));
  RETURN_IF_ERROR(CheckFormat());
  ASSIGN_OR_RETURN(const std::string mode, connection_.QueryText("PRAGMA journal_mode = WAL"));
  if (mode != "wal")
    return absl::InternalError(absl::StrCat("the file system allows journal mode ", mode, ", want wal"));
  ASSIGN_OR_RETURN(page_bytes_, connection_.QueryInt("PRAGMA page_size"));
  RETURN_IF_ERROR(connection_.Execute(
      absl::StrCat("PRAGMA synchronous = FULL; PRAGMA journal_size_limit = ", options_.log_pages_max * page_bytes_)
          .c_str()));
  RETURN_IF_ERROR(LimitPages(0));
  RETURN_IF_ERROR(connection_.Execute("BEGIN EXCLUSIVE"));
  ASSIGN_OR_RETURN(const int64_t format, connection_.QueryInt("PRAGMA user_version"));
  if (format == 0) RETURN_IF_ERROR(connection_.Execute(kSchema));
  RETURN_IF_ERROR(connection_.Execute("COMMIT"));

  if (options_.check_integrity) {
    ASSIGN_OR_RETURN(const std::string found, connection_.QueryText("PRAGMA quick_check(1)"));
    if (found != "ok") return absl::DataLossError(absl::StrCat("damaged: ", found));
  }

  const auto prepare = [this](Statement& statement, absl::string_view sql) -> absl::Status {
    ASSIGN_OR_RETURN(statement, Statement::Prepare(connection_, sql));
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(prepare(begin_, "BEGIN IMMEDIATE"));
  RETURN_IF_ERROR(prepare(commit_, "COMMIT"));
  RETURN_IF_ERROR(prepare(rollback_, "ROLLBACK"));
  // A value's length stands in front of it: it is not read to be measured, nor to be passed over.
  RETURN_IF_ERROR(prepare(find_, "SELECT revision, length(value) FROM changes WHERE key = ?1"));
  RETURN_IF_ERROR(prepare(remove_, "DELETE FROM changes WHERE revision = ?1"));
  RETURN_IF_ERROR(prepare(put_, "INSERT INTO changes(revision, key, value) VALUES(?1, ?2, ?3)"));
  RETURN_IF_ERROR(prepare(get_, "SELECT revision, value FROM changes WHERE key = ?1 AND value IS NOT NULL"));
  RETURN_IF_ERROR(prepare(list_, "SELECT revision, key, length(value) FROM changes WHERE key >= ?1 ORDER BY key"));
  RETURN_IF_ERROR(
      prepare(changes_, "SELECT revision, key, length(value) FROM changes WHERE revision > ?1 ORDER BY revision"));
  RETURN_IF_ERROR(prepare(value_, "SELECT value FROM changes WHERE revision = ?1"));
  RETURN_IF_ERROR(prepare(forget_, "DELETE FROM changes WHERE value IS NULL AND revision <= ?1"));
  RETURN_IF_ERROR(prepare(set_floor_, "UPDATE numbers SET value = ?1 WHERE name = 'floor'"));

  // The latest change is never forgotten, so it tells where to go on.
  ASSIGN_OR_RETURN(revision_, connection_.QueryInt("SELECT coalesce(max(revision), 0) FROM changes"));
  ASSIGN_OR_RETURN(floor_, connection_.QueryInt("SELECT value FROM numbers WHERE name = 'floor'"));
  return absl::OkStatus();
}

absl::Status Store::LimitPages(int64_t bytes_more) {
  const int64_t pages = std::max<int64_t>(1, (options_.file_bytes_max + bytes_more) / page_bytes_);
  return connection_.Execute(absl::StrCat("PRAGMA max_page_count = ", pages).c_str());
}

// Before anything is written: the file may belong to someone else.
absl::Status Store::CheckFormat() {
  ASSIGN_OR_RETURN(const int64_t owner, connection_.QueryInt("PRAGMA application_id"));
  ASSIGN_OR_RETURN(const int64_t format, connection_.QueryInt("PRAGMA user_version"));
  ASSIGN_OR_RETURN(const int64_t tables, connection_.QueryInt("SELECT count(*) FROM sqlite_schema"));
  if (owner == 0 && format == 0 && tables == 0) return absl::OkStatus();
  if (owner != kApplicationId) return absl::FailedPreconditionError("a database of another program");
  if (format != kFormat) {
    return absl::FailedPreconditionError(
        absl::StrCat("written in format ", format, ", this program knows format ", kFormat));
  }
  return absl::OkStatus();
}

absl::Status Store::ValidateKey(absl::string_view key) const {
  if (key.empty()) return absl::InvalidArgumentError("the key is empty");
  if (key.size() > options_.key_bytes_max) {
    return absl::InvalidArgumentError(
        absl::StrCat("the key has ", key.size(), " bytes, at most ", options_.key_bytes_max, " are allowed"));
  }
  return absl::OkStatus();
}

absl::Status Store::Validate(const Mutation& mutation) const {
  RETURN_IF_ERROR(ValidateKey(mutation.key));
  if (mutation.value.has_value() && mutation.value->size() > options_.value_bytes_max) {
    return absl::InvalidArgumentError(absl::StrCat("the value has ", mutation.value->size(), " bytes, at most ",
                                                   options_.value_bytes_max, " are allowed"));
  }
  return absl::OkStatus();
}

absl::Status Store::ValidatePrefix(absl::string_view prefix) const {
  if (prefix.size() <= options_.key_bytes_max) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the prefix has ", prefix.size(), " bytes, no key has more than ", options_.key_bytes_max));
}

absl::Status Store::Validate(const ListQuery& query) const {
  RETURN_IF_ERROR(ValidatePrefix(query.prefix));
  if (query.page_token.size() > 2 * (kTokenHeaderBytes + options_.key_bytes_max)) return NotOurToken();
  if (query.entries_max < 0) return absl::InvalidArgumentError("page size: negative");
  return absl::OkStatus();
}

absl::Status Store::Validate(const ChangesQuery& query) const {
  RETURN_IF_ERROR(ValidatePrefix(query.prefix));
  if (query.after < 0) return absl::InvalidArgumentError("revision: negative");
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int64_t>> Store::Apply(absl::Span<const Mutation> mutations) {
  constexpr size_t kAll = std::numeric_limits<size_t>::max();
  return ApplyFirst(mutations, {.mutations_max = kAll, .bytes_max = kAll});
}

absl::StatusOr<std::vector<int64_t>> Store::ApplyFirst(absl::Span<const Mutation> mutations,
                                                       const TransactionLimits& limits) {
  RETURN_IF_ERROR(failure_);
  for (const Mutation& mutation : mutations) RETURN_IF_ERROR(Validate(mutation));
  if (mutations.empty()) return std::vector<int64_t>();
  int64_t revision = revision_, floor = floor_;
  absl::StatusOr<std::vector<int64_t>> revisions = ApplyInTransaction(mutations, limits, &revision, &floor);
  if (absl::IsResourceExhausted(revisions.status()) && AreDeletions(mutations) && UndoIfHalfDone().ok() &&
      LimitPages(kRoomForDeletions).ok()) {
    revision = revision_;
    floor = floor_;
    revisions = ApplyInTransaction(mutations, limits, &revision, &floor);
    const absl::Status limited = LimitPages(0);
    LOG_IF(ERROR, !limited.ok()) << options_.path << ": max_page_count: " << limited;
  }
  if (!revisions.ok()) {
    if (absl::Status undone = UndoIfHalfDone(); !undone.ok()) failure_ = std::move(undone);
    return Remember(std::move(revisions).status());
  }
  revision_ = revision;
  floor_ = floor;
  if (connection_.log_pages() > 4 * options_.log_pages_max) {
    // These changes are on the disk: what a checkpoint meets concerns the next ones.
    const absl::Status status = Checkpoint();
    LOG_IF(ERROR, !status.ok()) << options_.path << ": checkpoint: " << status;
  }
  return revisions;
}

absl::Status Store::UndoIfHalfDone() {
  // Some errors have rolled back already.
  return connection_.in_transaction() ? Query(rollback_).Run() : absl::OkStatus();
}

absl::StatusOr<std::vector<int64_t>> Store::ApplyInTransaction(absl::Span<const Mutation> mutations,
                                                               const TransactionLimits& limits, int64_t* revision,
                                                               int64_t* floor) {
  RETURN_IF_ERROR(Query(begin_).Run());
  std::vector<int64_t> revisions;
  size_t bytes = 0;
  for (const Mutation& mutation : mutations) {
    if (revisions.size() == limits.mutations_max) break;
    ASSIGN_OR_RETURN(const Found found, Find(mutation.key));
    bytes += mutation.key.size() + (mutation.value ? mutation.value->size() : 0) + found.value_bytes;
    if (bytes > limits.bytes_max && !revisions.empty()) break;
    const bool nothing_to_do = !mutation.value && (found.revision == 0 || found.deleted);
    if (!nothing_to_do) RETURN_IF_ERROR(ApplyOne(mutation, found, ++*revision));
    revisions.push_back(nothing_to_do ? 0 : *revision);
  }
  ASSIGN_OR_RETURN(*floor, ForgetDeletions(*revision, revisions.size()));
  RETURN_IF_ERROR(Query(commit_).Run());
  return revisions;
}

absl::StatusOr<Store::Found> Store::Find(absl::string_view key) {
  Query query(find_);
  ASSIGN_OR_RETURN(const bool there, query.BindBlob(1, key).Step());
  if (!there) return Found();
  return Found{query.Int(0), query.IsNull(1), static_cast<size_t>(query.Int(1))};
}

absl::Status Store::ApplyOne(const Mutation& mutation, const Found& found, int64_t revision) {
  if (found.revision != 0) RETURN_IF_ERROR(Query(remove_).Bind(1, found.revision).Run());
  Query put(put_);
  put.Bind(1, revision).BindBlob(2, mutation.key);
  if (mutation.value.has_value()) put.BindBlob(3, *mutation.value);
  return put.Run();
}

// Moves the floor after the revision, at most some steps at once, and returns it.
absl::StatusOr<int64_t> Store::ForgetDeletions(int64_t revision, size_t mutations) {
  const int64_t due = revision - options_.deletions_kept_max - floor_;
  if (due < kForgetStep) return floor_;
  // Twice as fast as revisions are made, so that it never falls behind for good.
  const int64_t floor = floor_ + std::min(due, std::max(4 * kForgetStep, 2 * static_cast<int64_t>(mutations)));
  RETURN_IF_ERROR(Query(forget_).Bind(1, floor).Run());
  RETURN_IF_ERROR(Query(set_floor_).Bind(1, floor).Run());
  return floor;
}

// Keeps an error of the disk: see the top of the header.
absl::Status Store::Remember(absl::Status status) {
  if (absl::IsInternal(status) || absl::IsDataLoss(status)) {
    LOG(ERROR) << options_.path << ": refuses changes from now on: " << status;
    failure_ = absl::Status(
        status.code(), absl::StrCat("the store takes no more changes until it is opened again: ", status.message()));
  }
  return status;
}

absl::StatusOr<int64_t> Store::Put(absl::string_view key, absl::string_view value) {
  const Mutation mutation{std::string(key), std::string(value)};
  ASSIGN_OR_RETURN(const std::vector<int64_t> revisions, Apply(absl::MakeConstSpan(&mutation, 1)));
  return revisions[0];
}

absl::StatusOr<bool> Store::Delete(absl::string_view key) {
  const Mutation mutation{std::string(key), std::nullopt};
  ASSIGN_OR_RETURN(const std::vector<int64_t> revisions, Apply(absl::MakeConstSpan(&mutation, 1)));
  return revisions[0] != 0;
}

absl::StatusOr<Entry> Store::Get(absl::string_view key) {
  RETURN_IF_ERROR(ValidateKey(key));
  Query query(get_);
  ASSIGN_OR_RETURN(const bool found, query.BindBlob(1, key).Step());
  if (!found) return absl::NotFoundError("no such key");
  return Entry{std::string(key), std::string(query.Blob(1)), query.Int(0)};
}

absl::StatusOr<std::string> Store::ValueAt(int64_t revision) {
  Query query(value_);
  ASSIGN_OR_RETURN(const bool there, query.Bind(1, revision).Step());
  if (!there) return absl::DataLossError("damaged: a change that has no value");
  return std::string(query.Blob(0));
}

absl::StatusOr<ListPage> Store::List(const ListQuery& query) {
  RETURN_IF_ERROR(Validate(query));
  const size_t entries_max = std::clamp(query.entries_max, 1, kEntriesMax);
  std::string from = query.prefix;
  if (!query.page_token.empty()) {
    ASSIGN_OR_RETURN(from, LastKeyOf(query.prefix, query.page_token));
    from.push_back('\0');  // the key behind it
  }
  ListPage page;
  page.revision = revision_;
  Query rows(list_);
  rows.BindBlob(1, from);
  std::string last_key;
  size_t bytes = 0;
  for (;; ++page.looked_at) {
    ASSIGN_OR_RETURN(const bool row, rows.Step());
    if (!row) return page;
    const absl::string_view key = rows.Blob(1);
    if (!absl::StartsWith(key, query.prefix)) return page;
    if (page.looked_at - page.entries.size() == kRowsMax || page.entries.size() == entries_max) break;
    if (!rows.IsNull(2)) {
      bytes += key.size() + (query.keys_only ? 0 : static_cast<size_t>(rows.Int(2)));
      if (bytes > query.bytes_max && !page.entries.empty()) break;
      Entry& entry = page.entries.emplace_back();
      entry.key.assign(key.data(), key.size());
      entry.revision = rows.Int(0);
      if (!query.keys_only) {
        ASSIGN_OR_RETURN(entry.value, ValueAt(entry.revision));
      }
    }
    last_key.assign(key.data(), key.size());
  }
  page.next_page_token = MakeToken(query.prefix, last_key);
  return page;
}

absl::StatusOr<ChangesPage> Store::Changes(const ChangesQuery& query) {
  RETURN_IF_ERROR(Validate(query));
  if (query.after > revision_) {
    return absl::OutOfRangeError(
        absl::StrCat("revision ", query.after, " lies in the future: the latest is ", revision_));
  }
  if (query.after > 0 && query.after < floor_) {
    return absl::OutOfRangeError(absl::StrCat("what was deleted since revision ", query.after,
                                              " is no longer known: the oldest to go on from is ", floor_));
  }
  const size_t changes_max = std::clamp(query.changes_max, 1, kChangesMax);
  ChangesPage page;
  page.after = query.after;
  page.revision = revision_;
  Query rows(changes_);
  rows.Bind(1, query.after);
  size_t bytes = 0;
  for (;; ++page.looked_at) {
    ASSIGN_OR_RETURN(const bool row, rows.Step());
    if (!row) break;
    if (page.looked_at - page.changes.size() == kRowsMax) return page;
    const absl::string_view key = rows.Blob(1);
    if (absl::StartsWith(key, query.prefix)) {
      if (page.changes.size() == changes_max) return page;
      bytes += key.size() + static_cast<size_t>(rows.Int(2));
      if (bytes > query.bytes_max && !page.changes.empty()) return page;
      Change& change = page.changes.emplace_back();
      change.revision = rows.Int(0);
      change.key.assign(key.data(), key.size());
      if (!rows.IsNull(2)) {
        ASSIGN_OR_RETURN(change.value, ValueAt(change.revision));
      }
    }
    page.after = rows.Int(0);
  }
  page.after = page.revision;
  return page;
}

absl::Status Store::Checkpoint() {
  RETURN_IF_ERROR(failure_);
  return Remember(connection_.Checkpoint());
}

}  // namespace kv
