// AsyncStore: a Store for an event loop: it works on a thread of its own, and commits in groups.
//
// What several callers ask for while a commit is on its way to the disk is committed together afterwards, so that the
// number of syncs, not of puts, is what the disk sets a limit to. Reads and commits take turns: a read waits for the
// one commit that is under way, never for those behind it.
//
// Order:        changes are made in the order of the calls. A read sees every change that was acknowledged before it
//               was asked for; one that is not acknowledged yet, perhaps.
// Cancellation: a future that is cancelled (or whose awaiting task is) before its turn takes nothing with it: what was
//               to be changed is not. Later, the change is made and nobody is told. Nothing refers to the
//               caller's frame.
// Bounds:       what waits is bounded; beyond, RESOURCE_EXHAUSTED at once.
// Threading:    the loop's.     Lifetime: ends before its loop is closed. What waits then is answered UNAVAILABLE.
#ifndef TROUPE_SERVICES_KV_ASYNC_STORE_H_
#define TROUPE_SERVICES_KV_ASYNC_STORE_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/kv/change_feed.h"
#include "services/kv/store.h"
#include "troupe/async/future.h"
#include "troupe/base/counter.h"
#include "troupe/loop/event_loop.h"
#include "troupe/loop/runnable.h"
#include "troupe/os/os.h"

namespace kv {

struct AsyncStoreOptions {
  // What may wait, running included.
  size_t reads_max = 8192;
  size_t mutations_max = 64 * 1024;
  size_t mutation_bytes_max = 64 << 20;  // of keys and values
  // What one commit takes, so that it does not keep reads waiting for long. A caller's mutations stay together.
  size_t commit_mutations_max = 1024;
  size_t commit_bytes_max = 4 << 20;
  // What one turn of reads takes, so that they do not hold more than this in memory. One is taken in any case.
  size_t turn_reads_max = 64;
  size_t turn_bytes_max = 4 << 20;
};

class AsyncStore {
 public:
  // Without `pool`, one thread of the loop's Os.
  AsyncStore(troupe::EventLoop& loop, std::unique_ptr<Store> store, AsyncStoreOptions options = {},
             std::unique_ptr<troupe::WorkerPool> pool = nullptr);
  AsyncStore(const AsyncStore&) = delete;
  AsyncStore& operator=(const AsyncStore&) = delete;
  // Waits for the turn that is under way.
  ~AsyncStore();

  // As the Store's functions of these names. RESOURCE_EXHAUSTED: too much waits; for Apply also a full disk.
  troupe::Future<absl::StatusOr<Entry>> Get(std::string key);
  troupe::Future<absl::StatusOr<ListPage>> List(ListQuery query);
  troupe::Future<absl::StatusOr<ChangesPage>> Changes(ChangesQuery query);
  // All of them or none, in one commit, perhaps with those of other callers, whose failures are their own.
  troupe::Future<absl::StatusOr<std::vector<int64_t>>> Apply(std::vector<Mutation> mutations);

  // What Apply refuses at once for the mutation's own sake.
  absl::Status Validate(const Mutation& mutation) const { return store_->Validate(mutation); }

  // Every change, after it was committed and before it is acknowledged.
  ChangeFeed& feed() { return feed_; }
  troupe::EventLoop& loop() { return loop_; }

  struct Counters {
    troupe::Counter commits;    // that succeeded
    troupe::Counter mutations;  // in them
    troupe::Counter reads;
    troupe::Counter cancelled;  // that were cancelled before their turn
    troupe::Counter refused;    // because too much waited
  };
  const Counters& counters() const { return counters_; }

 private:
  class Read;
  template <class Query, class Result>
  class ReadOf;
  struct Write;
  class Turn;
  struct Anchor {
    AsyncStore* store;
  };

  template <class Result, class Query>
  troupe::Future<absl::StatusOr<Result>> Ask(absl::StatusOr<Result> (*ask)(Store&, const Query&), Query query);
  absl::Status Refuse(absl::string_view what);
  void StartSoon();
  void Start();
  void Begin(std::unique_ptr<Turn> turn);
  void OnTurnDone();
  void Deliver(Turn& turn);

  troupe::EventLoop& loop_;
  const AsyncStoreOptions options_;
  const std::unique_ptr<Store> store_;  // used by the turn that runs; what is constant in it, by us
  ChangeFeed feed_;
  Counters counters_;

  std::deque<std::unique_ptr<Read>> reads_;
  std::deque<std::unique_ptr<Write>> writes_;
  size_t mutations_ = 0;  // in writes_ and in the turn
  size_t mutation_bytes_ = 0;
  bool checkpoint_due_ = false;
  bool reads_had_the_last_turn_ = false;

  class Starter final : public troupe::Runnable {
   public:
    explicit Starter(AsyncStore& store) : store_(store) {}
    void Run() override { store_.Start(); }

   private:
    AsyncStore& store_;
  };
  Starter starter_{*this};
  // Shared with the word of a finished turn that is on its way through the loop when we go.
  std::shared_ptr<Anchor> anchor_;
  std::unique_ptr<Turn> turn_;                // that runs
  std::unique_ptr<troupe::WorkerPool> pool_;  // goes first, and so waits for turn_
};

}  // namespace kv

#endif  // TROUPE_SERVICES_KV_ASYNC_STORE_H_
