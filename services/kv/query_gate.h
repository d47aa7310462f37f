// QueryGate: stops SQLite in the middle of a query, on the thread that runs it, until the test lets it go on.
//
// What a test of real threads needs in place of luck: the query surely runs while the test does what it likes.
//
//   QueryGate gate;                                     // before the store is opened
//   troupe::Future<void> stops = gate.StopNext(QueryGate::Where::kRead, loop);
//   ...call the store...
//   loop.RunUntilComplete(stops);                       // a worker stands in sqlite3_step()
//   gate.Open();
//
// Life:      made -> (StopNext -> [stopped] -> Open)*
// Threading: the test's thread; any number of workers. Lifetime: outlives the connections opened meanwhile. One at a
// time.
#ifndef TROUPE_SERVICES_KV_QUERY_GATE_H_
#define TROUPE_SERVICES_KV_QUERY_GATE_H_

#include <condition_variable>
#include <memory>
#include <mutex>
#include <utility>

#include "troupe/async/future.h"
#include "troupe/loop/event_loop.h"
#include "troupe/os/os.h"

struct sqlite3;
struct sqlite3_api_routines;

namespace kv {

class QueryGate {
 public:
  enum class Where {
    kRead,    // between two steps of SQLite's virtual machine
    kCommit,  // everything is done but for the commit itself
  };

  QueryGate();
  QueryGate(const QueryGate&) = delete;
  QueryGate& operator=(const QueryGate&) = delete;
  ~QueryGate();

  // The next query that comes by there stops; the future, of `loop`, is done when it has.
  troupe::Future<void> StopNext(Where where, troupe::EventLoop& loop);
  // Lets what has stopped go on, and stops nothing more. Any thread.
  void Open();
  // A query stands in the gate.
  bool stopped() const;

 private:
  static int Watch(sqlite3* db, char**, const sqlite3_api_routines*) noexcept;  // every new connection
  static int OnProgress(void* gate) noexcept;
  static int OnCommit(void* gate) noexcept;
  void Pass(Where where);

  // Not absl::Mutex: ThreadSanitizer does not see into the system's, which evaluates a Condition in other threads.
  mutable std::mutex mutex_;
  std::condition_variable opened_;
  bool armed_ = false;
  bool stopped_ = false;
  Where where_ = Where::kRead;
  troupe::EventLoop* loop_ = nullptr;
  std::shared_ptr<troupe::Promise<void>> promise_;  // the loop's thread
};

// A pool in which nobody waits for a query that the gate has stopped: who waits for it opens the gate first.
class GatedPool final : public troupe::WorkerPool {
 public:
  GatedPool(QueryGate& gate, std::unique_ptr<troupe::WorkerPool> pool) : gate_(gate), pool_(std::move(pool)) {}

  void Submit(troupe::Work& work) override { pool_->Submit(work); }
  bool Cancel(troupe::Work& work) override { return pool_->Cancel(work); }
  void Wait(troupe::Work& work) override {
    gate_.Open();
    pool_->Wait(work);
  }

 private:
  QueryGate& gate_;
  const std::unique_ptr<troupe::WorkerPool> pool_;
};

}  // namespace kv

#endif  // TROUPE_SERVICES_KV_QUERY_GATE_H_
