// AsyncStore: a Store for an event loop: it works on a thread of its own, and commits in groups.
//
// What several callers ask for while a commit is on its way to the disk is committed together afterwards, so that the
// number of syncs, not of puts, is what the disk sets a limit to.
//
// Fairness:     gets, scans (List, Changes) and commits have turns of their own. Gets, which are quick, have every other
//               one: a get waits for the one scan or commit that is under way, never for those behind it. Within a turn
//               callers are served one by one, an answer each before anyone has a second: who asks for much waits for
//               itself.
//               A commit is bounded by what the disk has to move for it; who asks for more has several. While the store
//               is shared, that is, has been used by others within a second, each caller has a part of that in a commit,
//               so that nobody waits for long commits of others: who fills the disk alone has all of it.
// Order:        a caller's changes are made in the order of its calls. A read sees every change that was acknowledged
//               before it was asked for; one that is not acknowledged yet, perhaps.
// Cancellation: a future that is cancelled (or whose awaiting task is) before its turn takes nothing with it: what was
//               to be changed is not. Later, the change is made and nobody is told. Nothing refers to the
//               caller's frame.
// Bounds:       what waits is bounded. When too much does, callers with more than an equal share are refused,
//               RESOURCE_EXHAUSTED at once, and others are served, who has nothing waiting in any case; so it is never
//               more than twice the bound.
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
#include "absl/strings/string_view.h"
#include "services/kv/change_feed.h"
#include "services/kv/store.h"
#include "troupe/async/future.h"
#include "troupe/base/counter.h"
#include "troupe/base/intrusive_list.h"
#include "troupe/base/monotonic_time.h"
#include "troupe/loop/event_loop.h"
#include "troupe/loop/runnable.h"
#include "troupe/os/os.h"

namespace kv {

struct AsyncStoreOptions {
  // What may wait, running included, before shares are looked at.
  size_t reads_max = 8192;
  size_t mutations_max = 64 * 1024;
  size_t mutation_bytes_max = 64 << 20;  // of keys and values
  // What one commit takes, so that it does not keep reads waiting for long.
  TransactionLimits commit;
  // Which part of that one caller has while the store is shared. One change in any case.
  size_t shared_part = 16;
  // What one turn of reads takes, so that others do not wait for long, nor the answers hold more than this in memory. One
  // is taken in any case. Rows are keys that a scan has looked at.
  size_t turn_reads_max = 64;
  size_t turn_bytes_max = 1 << 20;
  size_t turn_rows_max = 1000;
  FeedLimits feed;
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

  // One of those who share the store, with its place in the turns: a connection, a tool.
  //
  // Threading: the loop's.
  // Lifetime:  within the store's. Destroyed, it takes what waits with it: those futures end UNAVAILABLE.
  class Caller;

  // Who uses the store alone.
  Caller& anyone() { return *anyone_; }
  // Of anyone(); see there.
  troupe::Future<absl::StatusOr<Entry>> Get(std::string key);
  troupe::Future<absl::StatusOr<ListPage>> List(ListQuery query);
  troupe::Future<absl::StatusOr<ChangesPage>> Changes(ChangesQuery query);
  troupe::Future<absl::StatusOr<std::vector<SharedChange>>> Apply(std::vector<Mutation> mutations);

  // For what is refused at once for its own sake: the functions of the Store that any thread may call.
  const Store& rules() const { return *store_; }

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
  struct InGets;
  struct InScans;
  struct InWrites;
  enum class Kind : uint8_t { kGets, kScans, kChanges };  // kChanges: a commit, or a checkpoint

  absl::Status Refuse(absl::string_view what);
  void StartSoon();
  void Start();
  bool HasWork(Kind kind);
  bool HasWaiting();
  Kind NextKind();
  // Takes from the callers in line, one from each and again.
  template <class Tag>
  void FillReads(Turn& turn, troupe::IntrusiveList<Caller, Tag>& line);
  void FillWrites(Turn& turn);
  // How many changes of a caller's first write are in its part of the commit that is being filled.
  size_t InItsPart(const Caller& caller) const;
  // A caller asks for something.
  void Asks(const Caller& caller);
  void Begin(std::unique_ptr<Turn> turn);
  void OnTurnDone();
  void Deliver(Turn& turn);
  void PutBack(std::unique_ptr<Write> write);

  troupe::EventLoop& loop_;
  const AsyncStoreOptions options_;
  const std::unique_ptr<Store> store_;  // used by the turn that runs; what is constant in it, by us
  ChangeFeed feed_;
  Counters counters_;

  // Callers whose turn has something to take from.
  troupe::IntrusiveList<Caller, InGets> getting_;
  troupe::IntrusiveList<Caller, InScans> scanning_;
  troupe::IntrusiveList<Caller, InWrites> writing_;
  // What waits and what is in the turn, and of how many callers.
  size_t reads_ = 0;
  size_t reading_callers_ = 0;
  size_t mutations_ = 0;
  size_t mutation_bytes_ = 0;
  size_t writing_callers_ = 0;
  const Caller* last_asker_ = nullptr;
  troupe::MonotonicTime shared_until_;
  bool checkpoint_due_ = false;
  Kind last_kind_ = Kind::kChanges;        // of turns
  Kind last_other_kind_ = Kind::kChanges;  // that was not kGets

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
  std::unique_ptr<Caller> anyone_;            // goes before what it refers to
  std::unique_ptr<troupe::WorkerPool> pool_;  // goes first, and so waits for turn_
};

class AsyncStore::Caller final : public troupe::ListNode<InGets>,
                                 public troupe::ListNode<InScans>,
                                 public troupe::ListNode<InWrites> {
 public:
  explicit Caller(AsyncStore& store);
  Caller(const Caller&) = delete;
  Caller& operator=(const Caller&) = delete;
  ~Caller();

  // As the Store's functions of these names. RESOURCE_EXHAUSTED: too much waits; for Apply also a full disk.
  // UNAVAILABLE: the disk fails.
  troupe::Future<absl::StatusOr<Entry>> Get(std::string key);
  troupe::Future<absl::StatusOr<ListPage>> List(ListQuery query);
  troupe::Future<absl::StatusOr<ChangesPage>> Changes(ChangesQuery query);
  // Makes them in order, in one commit or several, perhaps with those of other callers, whose failures are their own.
  // Gives what was done, one for each, when all are on the disk: null for the deletion of a key that was not there. When
  // it fails or is cancelled, those up to some point have been made and none after it.
  troupe::Future<absl::StatusOr<std::vector<SharedChange>>> Apply(std::vector<Mutation> mutations);

  // For who cannot take answers at the moment: what it reads waits, unasked, until Resume(). Changes go on.
  void Pause();
  void Resume();

  AsyncStore& store() { return store_; }

 private:
  friend class AsyncStore;

  template <class Result, class Query>
  troupe::Future<absl::StatusOr<Result>> Ask(absl::StatusOr<Result> (*ask)(Store&, const Query&), Query query,
                                             absl::Status valid, bool scan);
  // Stands in the lines where it has something to be taken.
  void LineUp();
  template <class Tag>
  std::deque<std::unique_ptr<Read>>& Queue();
  template <class Tag>
  troupe::ListNode<Tag>& Place() {
    return *this;
  }
  void Took(const Read& read);
  void Took(const Write& write);

  AsyncStore& store_;
  bool paused_ = false;
  std::deque<std::unique_ptr<Read>> gets_;
  std::deque<std::unique_ptr<Read>> scans_;
  std::deque<std::unique_ptr<Write>> writes_;
  // These, and what is in the turn.
  size_t reads_ = 0;
  size_t mutations_ = 0;
  size_t mutation_bytes_ = 0;
  size_t changes_ = 0;  // calls of Apply
  // In the commit that is being filled.
  size_t part_mutations_ = 0;
  size_t part_bytes_ = 0;
};

}  // namespace kv

#endif  // TROUPE_SERVICES_KV_ASYNC_STORE_H_
