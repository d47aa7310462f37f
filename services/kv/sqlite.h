// Connection, Statement, Query: SQLite in our types: owned, with absl::Status.
//
// Just what the Store needs: statements are prepared once and used through a Query, which resets them however the scope
// is left. SQLite's result codes become statuses here and nowhere else.
//
// Threading: one thread at a time (the connection is opened without SQLite's own mutex).
// Lifetime:  Connection > Statement > Query. What a Query binds lives as long as it; what it returns, until its next
// Step.
#ifndef TROUPE_SERVICES_KV_SQLITE_H_
#define TROUPE_SERVICES_KV_SQLITE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

struct sqlite3;
struct sqlite3_stmt;

namespace kv::sqlite {

// What an (extended) result code means to a caller; `text` is the message, lower case, without paths.
//   BUSY, LOCKED            UNAVAILABLE
//   CORRUPT, NOTADB         DATA_LOSS
//   FULL, NOMEM             RESOURCE_EXHAUSTED
//   PERM, AUTH, READONLY    PERMISSION_DENIED
//   IOERR and all others    INTERNAL
// Connection::Open says NOT_FOUND where the file cannot be opened.
absl::Status ToStatus(int code, absl::string_view text);

class Connection {
 public:
  // Opens or makes the file at `path`. `vfs`: a name given to sqlite3_vfs_register, or empty for the system's files.
  static absl::StatusOr<Connection> Open(const std::string& path, const std::string& vfs);

  Connection(Connection&& other) noexcept;
  Connection& operator=(Connection&&) = delete;
  // REQUIRES: no Statement of it is left.
  ~Connection();

  // Runs statements that give no rows, or whose rows do not matter.
  absl::Status Execute(const char* sql);
  // The first column of the first row. NOT_FOUND if there is no row.
  absl::StatusOr<int64_t> QueryInt(const char* sql);
  absl::StatusOr<std::string> QueryText(const char* sql);

  // True inside BEGIN ... COMMIT.
  bool in_transaction() const;
  // Pages in the write-ahead log after the last commit that changed something.
  int log_pages() const { return *log_pages_; }
  // Copies the write-ahead log into the database and syncs both.
  absl::Status Checkpoint();

  // The extended code of the last call that failed.
  int last_code() const;
  sqlite3* get() const { return db_; }

 private:
  explicit Connection(sqlite3* db);
  absl::Status Error(int code) const;

  sqlite3* db_;
  int* log_pages_;  // on the heap, since SQLite's hook keeps its address
};

class Statement {
 public:
  static absl::StatusOr<Statement> Prepare(Connection& connection, absl::string_view sql);

  Statement() = default;  // of nothing
  Statement(Statement&& other) noexcept;
  Statement& operator=(Statement&& other) noexcept;
  ~Statement();

 private:
  friend class Query;
  explicit Statement(sqlite3_stmt* statement) : statement_(statement) {}
  sqlite3_stmt* statement_ = nullptr;
};

// One use of a Statement: Bind* -> Step* -> reset by the destructor.
class Query {
 public:
  explicit Query(Statement& statement) : statement_(statement.statement_) {}
  Query(const Query&) = delete;
  Query& operator=(const Query&) = delete;
  ~Query();

  // Parameters count from 1.
  Query& Bind(int parameter, int64_t value);
  Query& BindBlob(int parameter, absl::string_view bytes);
  Query& BindNull(int parameter);

  // True: there is a row to look at. False: done.
  absl::StatusOr<bool> Step();
  // For statements without rows.
  absl::Status Run();

  // Columns count from 0.
  int64_t Int(int column) const;
  bool IsNull(int column) const;
  absl::string_view Blob(int column) const;

 private:
  sqlite3_stmt* const statement_;
};

}  // namespace kv::sqlite

#endif  // TROUPE_SERVICES_KV_SQLITE_H_
