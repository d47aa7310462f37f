#include "services/kv/async_store.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "glog/logging.h"
#include "troupe/base/errors.h"

namespace kv {

using troupe::Future;
using troupe::Promise;

// A question: made and answered on the loop, asked on the worker.
class AsyncStore::Read {
 public:
  virtual ~Read() = default;
  virtual bool cancelled() const = 0;
  virtual void Ask(Store& store) = 0;   // worker
  virtual size_t bytes() const = 0;     // worker: of the answer
  virtual void Answer() = 0;            // loop
  virtual void Fail(absl::Status) = 0;  // loop
};

namespace {

size_t BytesOf(const absl::StatusOr<Entry>& entry) { return entry.ok() ? entry->value.size() : 0; }
size_t BytesOf(const absl::StatusOr<ListPage>& page) {
  size_t bytes = 0;
  if (page.ok()) {
    for (const Entry& entry : page->entries) bytes += entry.key.size() + entry.value.size();
  }
  return bytes;
}
size_t BytesOf(const absl::StatusOr<ChangesPage>& page) {
  size_t bytes = 0;
  if (page.ok()) {
    for (const Change& change : page->changes) bytes += change.key.size() + (change.value ? change.value->size() : 0);
  }
  return bytes;
}

}  // namespace

template <class Query, class Result>
class AsyncStore::ReadOf final : public Read {
 public:
  using Function = absl::StatusOr<Result> (*)(Store&, const Query&);

  ReadOf(troupe::EventLoop& loop, Function function, Query query)
      : promise_(loop), function_(function), query_(std::move(query)) {}

  Future<absl::StatusOr<Result>> future() const { return promise_.future(); }
  bool cancelled() const override { return promise_.cancelled(); }
  void Ask(Store& store) override { answer_ = function_(store, query_); }
  size_t bytes() const override { return BytesOf(answer_); }
  void Answer() override { promise_.SetValueUnlessCancelled(std::move(answer_)); }
  void Fail(absl::Status status) override { promise_.SetValueUnlessCancelled(std::move(status)); }

 private:
  const Promise<absl::StatusOr<Result>> promise_;
  const Function function_;
  const Query query_;
  absl::StatusOr<Result> answer_;
};

struct AsyncStore::Write {
  explicit Write(troupe::EventLoop& loop) : promise(loop) {}
  Promise<absl::StatusOr<std::vector<int64_t>>> promise;
  std::vector<Mutation> mutations;
  size_t bytes = 0;
  absl::StatusOr<std::vector<int64_t>> revisions;  // set by the worker
};

// What the worker does at once: reads, or one commit, or a checkpoint.
class AsyncStore::Turn final : public troupe::Work {
 public:
  Turn(AsyncStore& owner)
      : loop_(owner.loop_), store_(*owner.store_), options_(owner.options_), anchor_(owner.anchor_) {}

  void Run() override {
    size_t bytes = 0;
    for (const std::unique_ptr<Read>& read : reads) {
      read->Ask(store_);
      bytes += read->bytes();
      ++asked;
      if (bytes >= options_.turn_bytes_max) break;
    }
    if (!writes.empty()) Commit();
    if (checkpoint) {
      const absl::Status status = store_.Checkpoint();
      LOG_IF(ERROR, !status.ok()) << store_.options().path << ": checkpoint: " << status;
    }
    checkpoint_due = store_.NeedsCheckpoint() && !checkpoint;
    try {
      loop_.CallSoonThreadsafe([anchor = std::move(anchor_)] {
        if (anchor->store != nullptr) anchor->store->OnTurnDone();
      });
    } catch (const troupe::InvalidState& closed) {
      LOG(ERROR) << store_.options().path << ": " << closed.what();  // the loop went first: nobody is left to be told
    }
  }

  std::vector<std::unique_ptr<Read>> reads;
  std::vector<std::unique_ptr<Write>> writes;
  bool checkpoint = false;
  // Results.
  size_t asked = 0;  // of reads, from the first
  uint64_t commits = 0;
  bool checkpoint_due = false;

 private:
  void Commit() {
    std::vector<Mutation> all;
    for (const std::unique_ptr<Write>& write : writes) {
      for (Mutation& mutation : write->mutations) all.push_back(std::move(mutation));
    }
    absl::StatusOr<std::vector<int64_t>> revisions = store_.Apply(all);
    auto mutation = all.begin();
    for (const std::unique_ptr<Write>& write : writes) {
      for (Mutation& own : write->mutations) own = std::move(*mutation++);
    }
    if (absl::IsResourceExhausted(revisions.status()) && writes.size() > 1) {
      // What does not fit may be one caller's: the others shall not pay for it.
      for (const std::unique_ptr<Write>& write : writes) {
        write->revisions = store_.Apply(write->mutations);
        if (write->revisions.ok()) ++commits;
      }
      return;
    }
    if (!revisions.ok()) {
      for (const std::unique_ptr<Write>& write : writes) write->revisions = revisions.status();
      return;
    }
    ++commits;
    auto revision = revisions->begin();
    for (const std::unique_ptr<Write>& write : writes) {
      const auto end = revision + static_cast<ptrdiff_t>(write->mutations.size());
      write->revisions = std::vector<int64_t>(revision, end);
      revision = end;
    }
  }

  troupe::EventLoop& loop_;
  Store& store_;
  const AsyncStoreOptions& options_;
  std::shared_ptr<Anchor> anchor_;
};

AsyncStore::AsyncStore(troupe::EventLoop& loop, std::unique_ptr<Store> store, AsyncStoreOptions options,
                       std::unique_ptr<troupe::WorkerPool> pool)
    : loop_(loop),
      options_(options),
      store_(std::move(store)),
      feed_(loop, store_->revision()),
      anchor_(std::make_shared<Anchor>(Anchor{this})),
      pool_(pool != nullptr ? std::move(pool) : loop.os().NewWorkerPool(1, "kv")) {}

AsyncStore::~AsyncStore() {
  anchor_->store = nullptr;
  if (turn_ != nullptr) {
    if (pool_->Cancel(*turn_)) {
      for (std::unique_ptr<Write>& write : turn_->writes) writes_.push_back(std::move(write));
      turn_->writes.clear();
    } else {
      pool_->Wait(*turn_);
    }
    Deliver(*turn_);  // what was done is told as it is; the reads that were not asked are back in the queue
  }
  const absl::Status closed = absl::UnavailableError("the store is being closed");
  for (const std::unique_ptr<Read>& read : reads_) read->Fail(closed);
  for (const std::unique_ptr<Write>& write : writes_) write->promise.SetValueUnlessCancelled(closed);
}

absl::Status AsyncStore::Refuse(absl::string_view what) {
  counters_.refused.Add();
  return absl::ResourceExhaustedError(absl::StrCat("too many ", what, " wait for the disk"));
}

template <class Result, class Query>
Future<absl::StatusOr<Result>> AsyncStore::Ask(absl::StatusOr<Result> (*ask)(Store&, const Query&), Query query) {
  auto read = std::make_unique<ReadOf<Query, Result>>(loop_, ask, std::move(query));
  Future<absl::StatusOr<Result>> future = read->future();
  if (reads_.size() + (turn_ != nullptr ? turn_->reads.size() : 0) >= options_.reads_max) {
    read->Fail(Refuse("reads"));
    return future;
  }
  reads_.push_back(std::move(read));
  StartSoon();
  return future;
}

Future<absl::StatusOr<Entry>> AsyncStore::Get(std::string key) {
  return Ask<Entry, std::string>([](Store& store, const std::string& k) { return store.Get(k); }, std::move(key));
}

Future<absl::StatusOr<ListPage>> AsyncStore::List(ListQuery query) {
  return Ask<ListPage, ListQuery>([](Store& store, const ListQuery& q) { return store.List(q); }, std::move(query));
}

Future<absl::StatusOr<ChangesPage>> AsyncStore::Changes(ChangesQuery query) {
  return Ask<ChangesPage, ChangesQuery>([](Store& store, const ChangesQuery& q) { return store.Changes(q); },
                                        std::move(query));
}

Future<absl::StatusOr<std::vector<int64_t>>> AsyncStore::Apply(std::vector<Mutation> mutations) {
  auto write = std::make_unique<Write>(loop_);
  Future<absl::StatusOr<std::vector<int64_t>>> future = write->promise.future();
  absl::Status valid;
  for (const Mutation& mutation : mutations) {
    if (valid.ok()) valid = store_->Validate(mutation);
    write->bytes += mutation.key.size() + (mutation.value ? mutation.value->size() : 0);
  }
  // One caller's commit is never larger than the queue, and an empty queue takes any that is not.
  const bool full = mutations_ + mutations.size() > options_.mutations_max ||
                    mutation_bytes_ + write->bytes > options_.mutation_bytes_max;
  if (!valid.ok() || full) {
    write->promise.SetValue(valid.ok() ? Refuse("changes") : std::move(valid));
    return future;
  }
  write->mutations = std::move(mutations);
  mutations_ += write->mutations.size();
  mutation_bytes_ += write->bytes;
  writes_.push_back(std::move(write));
  StartSoon();
  return future;
}

// Once the batch of callbacks is over, so that what they ask for together is done together.
void AsyncStore::StartSoon() {
  if (turn_ == nullptr && !starter_.linked()) loop_.AfterBatch(starter_);
}

void AsyncStore::Start() {
  if (turn_ != nullptr) return;
  auto turn = std::make_unique<Turn>(*this);
  const bool others = checkpoint_due_ || !writes_.empty();
  if (!reads_.empty() && !(reads_had_the_last_turn_ && others)) {
    while (!reads_.empty() && turn->reads.size() < options_.turn_reads_max) {
      if (reads_.front()->cancelled()) {
        counters_.cancelled.Add();
      } else {
        turn->reads.push_back(std::move(reads_.front()));
      }
      reads_.pop_front();
    }
    reads_had_the_last_turn_ = true;
  } else if (checkpoint_due_) {
    turn->checkpoint = true;
    reads_had_the_last_turn_ = false;
  } else {
    size_t mutations = 0, bytes = 0;
    while (!writes_.empty()) {
      Write& write = *writes_.front();
      if (write.promise.cancelled()) {
        counters_.cancelled.Add();
        mutations_ -= write.mutations.size();
        mutation_bytes_ -= write.bytes;
      } else {
        mutations += write.mutations.size();
        bytes += write.bytes;
        const bool fits = mutations <= options_.commit_mutations_max && bytes <= options_.commit_bytes_max;
        if (!fits && !turn->writes.empty()) break;
        turn->writes.push_back(std::move(writes_.front()));
      }
      writes_.pop_front();
    }
    reads_had_the_last_turn_ = false;
  }
  if (turn->reads.empty() && turn->writes.empty() && !turn->checkpoint) {
    // All were cancelled. The other queue may have something.
    if (!reads_.empty() || !writes_.empty()) StartSoon();
    return;
  }
  Begin(std::move(turn));
}

void AsyncStore::Begin(std::unique_ptr<Turn> turn) {
  turn_ = std::move(turn);
  try {
    pool_->Submit(*turn_);
  } catch (const troupe::StatusError& no_thread) {
    const std::unique_ptr<Turn> failed = std::move(turn_);
    for (const std::unique_ptr<Read>& read : failed->reads) read->Fail(no_thread.status());
    for (const std::unique_ptr<Write>& write : failed->writes) write->revisions = no_thread.status();
    failed->reads.clear();
    checkpoint_due_ = false;  // until the next commit asks for it
    Deliver(*failed);
    if (!reads_.empty() || !writes_.empty()) StartSoon();
  }
}

void AsyncStore::OnTurnDone() {
  const std::unique_ptr<Turn> turn = std::move(turn_);
  pool_->Wait(*turn);  // its Run is over but for the last instructions
  Deliver(*turn);
  if (turn->checkpoint) checkpoint_due_ = false;
  if (turn->checkpoint_due) checkpoint_due_ = true;
  if (checkpoint_due_ || !reads_.empty() || !writes_.empty()) Start();
}

void AsyncStore::Deliver(Turn& turn) {
  for (size_t i = 0; i < turn.asked; ++i) turn.reads[i]->Answer();
  counters_.reads.Add(turn.asked);
  // Those for which there was no room go first next time.
  for (size_t i = turn.reads.size(); i > turn.asked; --i) reads_.push_front(std::move(turn.reads[i - 1]));
  turn.reads.clear();

  counters_.commits.Add(turn.commits);
  for (const std::unique_ptr<Write>& write : turn.writes) {
    mutations_ -= write->mutations.size();
    mutation_bytes_ -= write->bytes;
    if (!write->revisions.ok()) continue;
    counters_.mutations.Add(write->mutations.size());
    for (size_t i = 0; i < write->mutations.size(); ++i) {
      const int64_t revision = (*write->revisions)[i];
      if (revision == 0) continue;
      Mutation& mutation = write->mutations[i];
      feed_.Publish({revision, std::move(mutation.key), std::move(mutation.value)});
    }
  }
  for (const std::unique_ptr<Write>& write : turn.writes) {
    write->promise.SetValueUnlessCancelled(std::move(write->revisions));
  }
}

}  // namespace kv
