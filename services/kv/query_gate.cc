#include "services/kv/query_gate.h"

#include <sqlite3.h>

#include "glog/logging.h"

namespace kv {
namespace {

QueryGate* current = nullptr;  // set before the first thread is started

}  // namespace

int QueryGate::Watch(sqlite3* db, char**, const sqlite3_api_routines*) noexcept {
  sqlite3_progress_handler(db, 1, &QueryGate::OnProgress, current);
  sqlite3_commit_hook(db, &QueryGate::OnCommit, current);
  return SQLITE_OK;
}

QueryGate::QueryGate() {
  CHECK(current == nullptr);
  current = this;
  // SQLite declares its entry points without the parameters with which it calls them.
  CHECK_EQ(sqlite3_auto_extension(reinterpret_cast<void (*)()>(&QueryGate::Watch)), SQLITE_OK);
}

QueryGate::~QueryGate() {
  sqlite3_reset_auto_extension();
  current = nullptr;
}

troupe::Future<void> QueryGate::StopNext(Where where, troupe::EventLoop& loop) {
  promise_ = std::make_shared<troupe::Promise<void>>(loop);
  const std::lock_guard lock(mutex_);
  CHECK(!stopped_);
  armed_ = true;
  where_ = where;
  loop_ = &loop;
  return promise_->future();
}

void QueryGate::Open() {
  const std::lock_guard lock(mutex_);
  armed_ = stopped_ = false;
  opened_.notify_all();
}

bool QueryGate::stopped() const {
  const std::lock_guard lock(mutex_);
  return stopped_;
}

int QueryGate::OnProgress(void* gate) noexcept {
  static_cast<QueryGate*>(gate)->Pass(Where::kRead);
  return 0;
}

int QueryGate::OnCommit(void* gate) noexcept {
  static_cast<QueryGate*>(gate)->Pass(Where::kCommit);
  return 0;
}

void QueryGate::Pass(Where where) {
  std::unique_lock lock(mutex_);
  if (!armed_ || where_ != where) return;
  armed_ = false;
  stopped_ = true;
  loop_->CallSoonThreadsafe([this] { promise_->SetValueUnlessCancelled(); });
  opened_.wait(lock, [this] { return !stopped_; });
}

}  // namespace kv
