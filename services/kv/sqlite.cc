#include "services/kv/sqlite.h"

#include <sqlite3.h>

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "glog/logging.h"
#include "troupe/base/status_macros.h"

namespace kv::sqlite {
namespace {

absl::StatusCode CodeOf(int code) {
  switch (code & 0xff) {
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE:
      return absl::StatusCode::kOk;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return absl::StatusCode::kUnavailable;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::StatusCode::kDataLoss;
    case SQLITE_FULL:
    case SQLITE_NOMEM:
      return absl::StatusCode::kResourceExhausted;
    case SQLITE_PERM:
    case SQLITE_AUTH:
    case SQLITE_READONLY:
      return absl::StatusCode::kPermissionDenied;
    default:
      return absl::StatusCode::kInternal;
  }
}

absl::Status ErrorOf(sqlite3* db, int code) {
  // The extended code where the connection has it: a failed sync and a failed read are both "disk I/O error".
  const int extended = db == nullptr ? code : sqlite3_extended_errcode(db);
  if ((extended & 0xff) == (code & 0xff)) code = extended;
  if ((code & 0xff) == SQLITE_IOERR) return ToStatus(code, absl::StrCat(sqlite3_errstr(code), " ", code >> 8));
  // Not sqlite3_errmsg for the rest: it may name files, and these texts reach clients.
  const bool says_more = (code & 0xff) == SQLITE_ERROR || (code & 0xff) == SQLITE_CONSTRAINT;
  return ToStatus(code, db != nullptr && says_more ? sqlite3_errmsg(db) : sqlite3_errstr(code));
}

// Called by SQLite after each commit: only notes a number.
int OnCommit(void* log_pages, sqlite3*, const char*, int pages) noexcept {
  *static_cast<int*>(log_pages) = pages;
  return SQLITE_OK;
}

}  // namespace

absl::Status ToStatus(int code, absl::string_view text) { return absl::Status(CodeOf(code), text); }

// ---- Connection

Connection::Connection(sqlite3* db) : db_(db), log_pages_(new int(0)) {
  sqlite3_extended_result_codes(db_, 1);
  // Takes the place of the automatic checkpoint, whose errors SQLite swallows.
  sqlite3_wal_hook(db_, &OnCommit, log_pages_);
}

Connection::Connection(Connection&& other) noexcept
    : db_(std::exchange(other.db_, nullptr)), log_pages_(std::exchange(other.log_pages_, nullptr)) {}

Connection::~Connection() {
  const int code = sqlite3_close(db_);
  LOG_IF(ERROR, code != SQLITE_OK) << "closing a database: " << sqlite3_errstr(code);
  delete log_pages_;
}

absl::StatusOr<Connection> Connection::Open(const std::string& path, const std::string& vfs) {
  sqlite3* db = nullptr;
  const int code = sqlite3_open_v2(path.c_str(), &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
                                   vfs.empty() ? nullptr : vfs.c_str());
  if (db == nullptr) return ToStatus(code, sqlite3_errstr(code));
  Connection connection(db);  // also a connection that failed to open wants to be closed
  // Later it is any other file that SQLite wants, and none that its user has named.
  if ((code & 0xff) == SQLITE_CANTOPEN) return absl::NotFoundError(sqlite3_errstr(code));
  if (code != SQLITE_OK) return connection.Error(code);
  // What may only be read is opened all the same, and then fails in ways that say nothing.
  if (sqlite3_db_readonly(db, "main") == 1) return absl::PermissionDeniedError("may be read, but not written");
  return connection;
}

absl::Status Connection::Error(int code) const { return ErrorOf(db_, code); }

absl::Status Connection::Execute(const char* sql) {
  const int code = sqlite3_exec(db_, sql, nullptr, nullptr, nullptr);
  return code == SQLITE_OK ? absl::OkStatus() : Error(code);
}

absl::StatusOr<int64_t> Connection::QueryInt(const char* sql) {
  ASSIGN_OR_RETURN(Statement statement, Statement::Prepare(*this, sql));
  Query query(statement);
  ASSIGN_OR_RETURN(const bool row, query.Step());
  if (!row) return absl::NotFoundError("no row");
  return query.Int(0);
}

absl::StatusOr<std::string> Connection::QueryText(const char* sql) {
  ASSIGN_OR_RETURN(Statement statement, Statement::Prepare(*this, sql));
  Query query(statement);
  ASSIGN_OR_RETURN(const bool row, query.Step());
  if (!row) return absl::NotFoundError("no row");
  return std::string(query.Blob(0));
}

bool Connection::in_transaction() const { return sqlite3_get_autocommit(db_) == 0; }

absl::Status Connection::Checkpoint() {
  const int code = sqlite3_wal_checkpoint_v2(db_, nullptr, SQLITE_CHECKPOINT_PASSIVE, nullptr, nullptr);
  if (code != SQLITE_OK) return Error(code);
  *log_pages_ = 0;
  return absl::OkStatus();
}

int Connection::last_code() const { return sqlite3_extended_errcode(db_); }

// ---- Statement

absl::StatusOr<Statement> Statement::Prepare(Connection& connection, absl::string_view sql) {
  sqlite3_stmt* statement = nullptr;
  const int code = sqlite3_prepare_v3(connection.get(), sql.data(), static_cast<int>(sql.size()),
                                      SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
  if (code != SQLITE_OK) return ErrorOf(connection.get(), code);
  return Statement(statement);
}

Statement::Statement(Statement&& other) noexcept : statement_(std::exchange(other.statement_, nullptr)) {}

Statement& Statement::operator=(Statement&& other) noexcept {
  std::swap(statement_, other.statement_);
  return *this;
}

// Repeats the error of the last step, which was reported then.
Statement::~Statement() { sqlite3_finalize(statement_); }

// ---- Query

Query::~Query() {
  sqlite3_reset(statement_);
  sqlite3_clear_bindings(statement_);
}

// Binding fails only for a wrong number or without memory, which SQLite takes in advance for numbers and pointers.
Query& Query::Bind(int parameter, int64_t value) {
  CHECK_EQ(sqlite3_bind_int64(statement_, parameter, value), SQLITE_OK);
  return *this;
}

Query& Query::BindBlob(int parameter, absl::string_view bytes) {
  // A null pointer would bind NULL, which is not the same as nothing.
  const char* const data = bytes.data() == nullptr ? "" : bytes.data();
  CHECK_EQ(sqlite3_bind_blob64(statement_, parameter, data, bytes.size(), SQLITE_STATIC), SQLITE_OK);
  return *this;
}

Query& Query::BindNull(int parameter) {
  CHECK_EQ(sqlite3_bind_null(statement_, parameter), SQLITE_OK);
  return *this;
}

absl::StatusOr<bool> Query::Step() {
  const int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  return ErrorOf(sqlite3_db_handle(statement_), code);
}

absl::Status Query::Run() { return Step().status(); }

int64_t Query::Int(int column) const { return sqlite3_column_int64(statement_, column); }

bool Query::IsNull(int column) const { return sqlite3_column_type(statement_, column) == SQLITE_NULL; }

absl::string_view Query::Blob(int column) const {
  const void* const data = sqlite3_column_blob(statement_, column);  // null when empty
  const int bytes = sqlite3_column_bytes(statement_, column);
  return data == nullptr ? absl::string_view() : absl::string_view(static_cast<const char*>(data), bytes);
}

}  // namespace kv::sqlite
