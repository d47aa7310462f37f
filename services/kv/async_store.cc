#include "services/kv/async_store.h"

#include <algorithm>
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
  Read(Caller& asker, bool is_scan) : caller(&asker), scan(is_scan) {}
  virtual ~Read() = default;
  virtual bool cancelled() const = 0;
  virtual void Ask(Store& store) = 0;   // worker
  virtual size_t bytes() const = 0;     // worker: of the answer
  virtual size_t rows() const = 0;      // worker: that were looked at for it
  virtual void Answer() = 0;            // loop
  virtual void Fail(absl::Status) = 0;  // loop

  Caller* caller;  // loop; null: it has gone
  const bool scan;
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
// What a caller can do about a disk that fails is to try again, later or elsewhere; what it was stands in the log.
absl::Status ForCaller(const absl::Status& status) {
  if (!absl::IsInternal(status) && !absl::IsPermissionDenied(status)) return status;
  return absl::UnavailableError(status.message());
}

size_t BytesOf(const Mutation& mutation) { return mutation.key.size() + (mutation.value ? mutation.value->size() : 0); }

// Who uses the store so seldom that others may have all of a commit.
constexpr absl::Duration kSharedFor = absl::Seconds(1);

size_t RowsOf(const absl::StatusOr<Entry>&) { return 1; }
size_t RowsOf(const absl::StatusOr<ListPage>& page) { return 1 + (page.ok() ? page->looked_at : 0); }
size_t RowsOf(const absl::StatusOr<ChangesPage>& page) { return 1 + (page.ok() ? page->looked_at : 0); }

}  // namespace

template <class Query, class Result>
class AsyncStore::ReadOf final : public Read {
 public:
  using Function = absl::StatusOr<Result> (*)(Store&, const Query&);

  ReadOf(Caller& caller, bool scan, Function function, Query query)
      : Read(caller, scan), promise_(caller.store().loop()), function_(function), query_(std::move(query)) {}

  Future<absl::StatusOr<Result>> future() const { return promise_.future(); }
  bool cancelled() const override { return promise_.cancelled(); }
  void Ask(Store& store) override {
    answer_ = function_(store, query_);
    if (!answer_.ok()) {
      LOG_IF(ERROR, absl::IsInternal(answer_.status())) << store.options().path << ": " << answer_.status();
      answer_ = ForCaller(answer_.status());
    }
  }
  size_t bytes() const override { return BytesOf(answer_); }
  size_t rows() const override { return RowsOf(answer_); }
  void Answer() override { promise_.SetValueUnlessCancelled(std::move(answer_)); }
  void Fail(absl::Status status) override { promise_.SetValueUnlessCancelled(std::move(status)); }

 private:
  const Promise<absl::StatusOr<Result>> promise_;
  const Function function_;
  const Query query_;
  absl::StatusOr<Result> answer_;
};

// What one Apply asked for, and how far it has come.
struct AsyncStore::Write {
  explicit Write(Caller& asker) : caller(&asker), promise(asker.store().loop()) {}
  bool over() const { return !failure.ok() || made.size() == mutations.size(); }

  Caller* caller;  // null: it has gone
  Promise<absl::StatusOr<std::vector<SharedChange>>> promise;
  std::vector<Mutation> mutations;  // those that are made have been moved from
  size_t bytes = 0;
  size_t most = 0;  // mutations that this commit may make
  // Set by the worker: what came of the first mutations, and why it goes no further.
  std::vector<SharedChange> made;
  absl::Status failure;
  size_t published = 0;  // of `made`
};

// What the worker does at once: reads, or one commit, or a checkpoint.
class AsyncStore::Turn final : public troupe::Work {
 public:
  Turn(AsyncStore& owner)
      : loop_(owner.loop_), store_(*owner.store_), options_(owner.options_), anchor_(owner.anchor_) {}

  void Run() override {
    size_t bytes = 0, rows = 0;
    for (const std::unique_ptr<Read>& read : reads) {
      read->Ask(store_);
      bytes += read->bytes();
      rows += read->rows();
      ++asked;
      if (bytes >= options_.turn_bytes_max || rows >= options_.turn_rows_max) break;
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
    absl::Span<const std::unique_ptr<Write>> asked_for = writes;
    absl::Status status = Make(asked_for);
    if (absl::IsResourceExhausted(status) && asked_for.size() > 1) {
      // What does not fit may be one caller's: the others shall not pay for it, and have their turn again.
      asked_for = asked_for.first(1);
      status = Make(asked_for);
    }
    if (status.ok()) return;
    for (const std::unique_ptr<Write>& write : asked_for) write->failure = ForCaller(status);
  }
  // Its last mutation that this commit may make, and one.
  static size_t Behind(const Write& write) {
    return write.made.size() + std::min(write.most, write.mutations.size() - write.made.size());
  }
  // Commits as much of it as one commit takes.
  absl::Status Make(absl::Span<const std::unique_ptr<Write>> asked_for) {
    std::vector<Mutation> some;
    for (const std::unique_ptr<Write>& write : asked_for) {
      for (size_t i = write->made.size(); i < Behind(*write); ++i) {
        if (some.size() < options_.commit.mutations_max) some.push_back(std::move(write->mutations[i]));
      }
    }
    const absl::StatusOr<std::vector<int64_t>> revisions = store_.ApplyFirst(some, options_.commit);
    const size_t made = revisions.ok() ? revisions->size() : 0;
    if (made > 0) ++commits;
    size_t next = 0;
    for (const std::unique_ptr<Write>& write : asked_for) {
      const size_t behind = Behind(*write);
      for (size_t i = write->made.size(); i < behind && next < some.size(); ++i, ++next) {
        Mutation& mutation = some[next];
        if (next >= made) {
          write->mutations[i] = std::move(mutation);
        } else if (const int64_t revision = (*revisions)[next]; revision == 0) {
          write->made.push_back(nullptr);
        } else {
          write->made.push_back(
              std::make_shared<const Change>(Change{revision, std::move(mutation.key), std::move(mutation.value)}));
        }
      }
    }
    return revisions.status();
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
      feed_(loop, store_->revision(), options.feed),
      anchor_(std::make_shared<Anchor>(Anchor{this})),
      anyone_(std::make_unique<Caller>(*this)),
      pool_(pool != nullptr ? std::move(pool) : loop.os().NewWorkerPool(1, "kv")) {}

AsyncStore::~AsyncStore() {
  anchor_->store = nullptr;
  if (turn_ != nullptr) {
    if (pool_->Cancel(*turn_)) {
      const absl::Status closed = absl::UnavailableError("the store is being closed");
      for (const std::unique_ptr<Write>& write : turn_->writes) write->failure = closed;
    } else {
      pool_->Wait(*turn_);
    }
    const std::unique_ptr<Turn> turn = std::move(turn_);
    Deliver(*turn);  // what was done is told as it is; the reads that were not asked are back with their callers
  }
}

AsyncStore::Caller::Caller(AsyncStore& store) : store_(store) {}

AsyncStore::Caller::~Caller() {
  const absl::Status gone = absl::UnavailableError("the store is being closed");
  for (auto* queue : {&gets_, &scans_}) {
    for (const std::unique_ptr<Read>& read : *queue) {
      Took(*read);
      read->Fail(gone);
    }
  }
  for (const std::unique_ptr<Write>& write : writes_) {
    Took(*write);
    write->promise.SetValueUnlessCancelled(gone);
  }
  if (store_.last_asker_ == this) store_.last_asker_ = nullptr;
  if (store_.turn_ == nullptr) return;
  // The worker does not look at whose they are.
  for (const std::unique_ptr<Read>& read : store_.turn_->reads) {
    if (read->caller == this) {
      Took(*read);
      read->caller = nullptr;
    }
  }
  for (const std::unique_ptr<Write>& write : store_.turn_->writes) {
    if (write->caller == this) {
      Took(*write);
      write->caller = nullptr;
    }
  }
}

absl::Status AsyncStore::Refuse(absl::string_view what) {
  counters_.refused.Add();
  return absl::ResourceExhaustedError(absl::StrCat("too many ", what, " wait for the disk"));
}

template <>
std::deque<std::unique_ptr<AsyncStore::Read>>& AsyncStore::Caller::Queue<AsyncStore::InGets>() {
  return gets_;
}
template <>
std::deque<std::unique_ptr<AsyncStore::Read>>& AsyncStore::Caller::Queue<AsyncStore::InScans>() {
  return scans_;
}

void AsyncStore::Caller::LineUp() {
  if (!gets_.empty() && !paused_ && !Place<InGets>().linked()) store_.getting_.PushBack(*this);
  if (!scans_.empty() && !paused_ && !Place<InScans>().linked()) store_.scanning_.PushBack(*this);
  if (!writes_.empty() && !Place<InWrites>().linked()) store_.writing_.PushBack(*this);
}

void AsyncStore::Caller::Pause() {
  paused_ = true;
  Place<InGets>().Unlink();
  Place<InScans>().Unlink();
}

void AsyncStore::Caller::Resume() {
  paused_ = false;
  LineUp();
  store_.StartSoon();
}

void AsyncStore::Caller::Took(const Read&) {
  --store_.reads_;
  if (--reads_ == 0) --store_.reading_callers_;
}

void AsyncStore::Caller::Took(const Write& write) {
  store_.mutations_ -= write.mutations.size();
  store_.mutation_bytes_ -= write.bytes;
  mutations_ -= write.mutations.size();
  mutation_bytes_ -= write.bytes;
  if (--changes_ == 0) --store_.writing_callers_;
}

template <class Result, class Query>
Future<absl::StatusOr<Result>> AsyncStore::Caller::Ask(absl::StatusOr<Result> (*ask)(Store&, const Query&), Query query,
                                                       absl::Status valid, bool scan) {
  if (!valid.ok()) {
    const Promise<absl::StatusOr<Result>> refused(store_.loop());
    refused.SetValue(std::move(valid));
    return refused.future();
  }
  auto read = std::make_unique<ReadOf<Query, Result>>(*this, scan, ask, std::move(query));
  Future<absl::StatusOr<Result>> future = read->future();
  const size_t callers = store_.reading_callers_ + (reads_ == 0 ? 1 : 0);
  if (store_.reads_ >= store_.options_.reads_max && reads_ >= store_.options_.reads_max / callers) {
    read->Fail(store_.Refuse("reads"));
    return future;
  }
  store_.Asks(*this);
  store_.reading_callers_ = callers;
  ++store_.reads_;
  ++reads_;
  (scan ? scans_ : gets_).push_back(std::move(read));
  LineUp();
  store_.StartSoon();
  return future;
}

Future<absl::StatusOr<Entry>> AsyncStore::Caller::Get(std::string key) {
  absl::Status valid = store_.rules().ValidateKey(key);
  return Ask<Entry, std::string>([](Store& store, const std::string& k) { return store.Get(k); }, std::move(key),
                                 std::move(valid), false);
}

Future<absl::StatusOr<ListPage>> AsyncStore::Caller::List(ListQuery query) {
  absl::Status valid = store_.rules().Validate(query);
  return Ask<ListPage, ListQuery>([](Store& store, const ListQuery& q) { return store.List(q); }, std::move(query),
                                  std::move(valid), true);
}

Future<absl::StatusOr<ChangesPage>> AsyncStore::Caller::Changes(ChangesQuery query) {
  absl::Status valid = store_.rules().Validate(query);
  return Ask<ChangesPage, ChangesQuery>([](Store& store, const ChangesQuery& q) { return store.Changes(q); },
                                        std::move(query), std::move(valid), true);
}

Future<absl::StatusOr<std::vector<SharedChange>>> AsyncStore::Caller::Apply(std::vector<Mutation> mutations) {
  auto write = std::make_unique<Write>(*this);
  Future<absl::StatusOr<std::vector<SharedChange>>> future = write->promise.future();
  absl::Status valid;
  for (const Mutation& mutation : mutations) {
    if (valid.ok()) valid = store_.rules().Validate(mutation);
    write->bytes += BytesOf(mutation);
  }
  const AsyncStoreOptions& options = store_.options_;
  const size_t callers = store_.writing_callers_ + (changes_ == 0 ? 1 : 0);
  const size_t all = store_.mutations_ + mutations.size(), all_bytes = store_.mutation_bytes_ + write->bytes;
  const bool full = all > options.mutations_max || all_bytes > options.mutation_bytes_max;
  const bool above_share = mutations_ + mutations.size() > options.mutations_max / callers ||
                           mutation_bytes_ + write->bytes > options.mutation_bytes_max / callers;
  const bool overfull = all > 2 * options.mutations_max || all_bytes > 2 * options.mutation_bytes_max;
  if (!valid.ok() || overfull || (full && above_share && changes_ > 0)) {
    write->promise.SetValue(valid.ok() ? store_.Refuse("changes") : std::move(valid));
    return future;
  }
  write->mutations = std::move(mutations);
  store_.Asks(*this);
  store_.writing_callers_ = callers;
  store_.mutations_ += write->mutations.size();
  store_.mutation_bytes_ += write->bytes;
  mutations_ += write->mutations.size();
  mutation_bytes_ += write->bytes;
  ++changes_;
  writes_.push_back(std::move(write));
  LineUp();
  store_.StartSoon();
  return future;
}

Future<absl::StatusOr<Entry>> AsyncStore::Get(std::string key) { return anyone_->Get(std::move(key)); }
Future<absl::StatusOr<ListPage>> AsyncStore::List(ListQuery query) { return anyone_->List(std::move(query)); }
Future<absl::StatusOr<ChangesPage>> AsyncStore::Changes(ChangesQuery query) {
  return anyone_->Changes(std::move(query));
}
Future<absl::StatusOr<std::vector<SharedChange>>> AsyncStore::Apply(std::vector<Mutation> mutations) {
  return anyone_->Apply(std::move(mutations));
}

// Once the batch of callbacks is over, so that what they ask for together is done together.
void AsyncStore::StartSoon() {
  if (turn_ == nullptr && !starter_.linked()) loop_.AfterBatch(starter_);
}

bool AsyncStore::HasWork(Kind kind) {
  switch (kind) {
    case Kind::kGets:
      return !getting_.empty();
    case Kind::kScans:
      return !scanning_.empty();
    case Kind::kChanges:
      return checkpoint_due_ || !writing_.empty();
  }
  return false;
}

// Gets have every other turn, scans and changes what is left of them alternately.
AsyncStore::Kind AsyncStore::NextKind() {
  if (HasWork(Kind::kGets) && last_kind_ != Kind::kGets) return Kind::kGets;
  const Kind next = last_other_kind_ == Kind::kScans ? Kind::kChanges : Kind::kScans;
  if (HasWork(next)) return next;
  return HasWork(last_other_kind_) ? last_other_kind_ : Kind::kGets;
}

template <class Tag>
void AsyncStore::FillReads(Turn& turn, troupe::IntrusiveList<Caller, Tag>& line) {
  while (!line.empty() && turn.reads.size() < options_.turn_reads_max) {
    Caller& caller = line.PopFront();
    std::deque<std::unique_ptr<Read>>& queue = caller.Queue<Tag>();
    std::unique_ptr<Read> read = std::move(queue.front());
    queue.pop_front();
    caller.LineUp();
    if (read->cancelled()) {
      counters_.cancelled.Add();
      caller.Took(*read);
    } else {
      turn.reads.push_back(std::move(read));
    }
  }
}

void AsyncStore::Asks(const Caller& caller) {
  if (last_asker_ != nullptr && last_asker_ != &caller) shared_until_ = loop_.Time() + kSharedFor;
  last_asker_ = &caller;
}

size_t AsyncStore::InItsPart(const Caller& caller) const {
  const Write& write = *caller.writes_.front();
  const size_t left = write.mutations.size() - write.made.size();
  if (loop_.Time() >= shared_until_) return left;
  const size_t mutations_max = std::max<size_t>(1, options_.commit.mutations_max / options_.shared_part);
  const size_t bytes_max = options_.commit.bytes_max / options_.shared_part;
  size_t some = 0, bytes = caller.part_bytes_;
  while (some < left && caller.part_mutations_ + some < mutations_max) {
    bytes += BytesOf(write.mutations[write.made.size() + some]);
    if (bytes > bytes_max && caller.part_mutations_ + some > 0) break;
    ++some;
  }
  return some;
}

void AsyncStore::FillWrites(Turn& turn) {
  troupe::IntrusiveList<Caller, InWrites> had_their_part;
  size_t mutations = 0, bytes = 0;
  while (!writing_.empty() && mutations < options_.commit.mutations_max && bytes < options_.commit.bytes_max) {
    Caller& caller = writing_.PopFront();
    if (caller.writes_.front()->promise.cancelled()) {
      counters_.cancelled.Add();
      caller.Took(*caller.writes_.front());
      caller.writes_.pop_front();
      caller.LineUp();
      continue;
    }
    const size_t some = InItsPart(caller);
    if (some == 0 && caller.part_mutations_ > 0) {
      had_their_part.PushBack(caller);
      continue;
    }
    std::unique_ptr<Write> write = std::move(caller.writes_.front());
    caller.writes_.pop_front();
    write->most = some;
    size_t some_bytes = 0;
    for (size_t i = 0; i < some; ++i) some_bytes += BytesOf(write->mutations[write->made.size() + i]);
    mutations += some;
    bytes += some_bytes;
    caller.part_mutations_ += some;
    caller.part_bytes_ += some_bytes;
    const bool whole = write->made.size() + some == write->mutations.size();
    turn.writes.push_back(std::move(write));
    // What is left of it goes before what follows.
    if (whole) caller.LineUp();
  }
  while (!had_their_part.empty()) writing_.PushBack(had_their_part.PopFront());
  for (const std::unique_ptr<Write>& write : turn.writes) {
    write->caller->part_mutations_ = write->caller->part_bytes_ = 0;
  }
}

void AsyncStore::Start() {
  if (turn_ != nullptr) return;
  const Kind kind = NextKind();
  auto turn = std::make_unique<Turn>(*this);
  switch (kind) {
    case Kind::kGets:
      FillReads(*turn, getting_);
      break;
    case Kind::kScans:
      FillReads(*turn, scanning_);
      break;
    case Kind::kChanges:
      turn->checkpoint = checkpoint_due_;
      if (!checkpoint_due_) FillWrites(*turn);
      break;
  }
  if (turn->reads.empty() && turn->writes.empty() && !turn->checkpoint) {
    // All were cancelled. Another line may have something.
    if (HasWaiting()) StartSoon();
    return;
  }
  last_kind_ = kind;
  if (kind != Kind::kGets) last_other_kind_ = kind;
  Begin(std::move(turn));
}

bool AsyncStore::HasWaiting() { return !getting_.empty() || !scanning_.empty() || !writing_.empty(); }

void AsyncStore::Begin(std::unique_ptr<Turn> turn) {
  turn_ = std::move(turn);
  try {
    pool_->Submit(*turn_);
  } catch (const troupe::StatusError& no_thread) {
    const std::unique_ptr<Turn> failed = std::move(turn_);
    for (const std::unique_ptr<Read>& read : failed->reads) {
      read->Fail(no_thread.status());
      if (read->caller != nullptr) read->caller->Took(*read);
    }
    for (const std::unique_ptr<Write>& write : failed->writes) write->failure = no_thread.status();
    failed->reads.clear();
    checkpoint_due_ = false;  // until the next commit asks for it
    Deliver(*failed);
    if (HasWaiting()) StartSoon();
  }
}

void AsyncStore::OnTurnDone() {
  const std::unique_ptr<Turn> turn = std::move(turn_);
  pool_->Wait(*turn);  // its Run is over but for the last instructions
  Deliver(*turn);
  if (turn->checkpoint) checkpoint_due_ = false;
  if (turn->checkpoint_due) checkpoint_due_ = true;
  if (checkpoint_due_ || HasWaiting()) Start();
}

void AsyncStore::Deliver(Turn& turn) {
  for (size_t i = 0; i < turn.asked; ++i) {
    Read& read = *turn.reads[i];
    read.Answer();
    if (read.caller != nullptr) read.caller->Took(read);
  }
  counters_.reads.Add(turn.asked);
  // Those for which there was no room go first next time.
  for (size_t i = turn.reads.size(); i > turn.asked; --i) {
    std::unique_ptr<Read> read = std::move(turn.reads[i - 1]);
    if (read->caller == nullptr) {
      read->Fail(absl::UnavailableError("its caller has gone"));
      continue;
    }
    Caller& caller = *read->caller;
    const bool scan = read->scan;
    (scan ? caller.scans_ : caller.gets_).push_front(std::move(read));
    if (caller.paused_) continue;
    if (scan) {
      caller.Place<InScans>().Unlink();
      scanning_.PushFront(caller);
    } else {
      caller.Place<InGets>().Unlink();
      getting_.PushFront(caller);
    }
  }
  turn.reads.clear();

  counters_.commits.Add(turn.commits);
  for (const std::unique_ptr<Write>& write : turn.writes) {
    for (; write->published < write->made.size(); ++write->published) {
      counters_.mutations.Add();
      if (const SharedChange& change = write->made[write->published]) feed_.Publish(change);
    }
  }
  for (auto it = turn.writes.rbegin(); it != turn.writes.rend(); ++it) {
    if (!(*it)->over()) PutBack(std::move(*it));
  }
  for (const std::unique_ptr<Write>& write : turn.writes) {
    if (write == nullptr) continue;
    if (write->caller != nullptr) {
      write->caller->Took(*write);
      write->caller->LineUp();  // what follows one of which this was a part
    }
    if (write->failure.ok()) {
      write->promise.SetValueUnlessCancelled(std::move(write->made));
    } else {
      write->promise.SetValueUnlessCancelled(write->failure);
    }
  }
}

// Of a commit that it did not fit into: it goes first next time. But who had a part of it goes last.
void AsyncStore::PutBack(std::unique_ptr<Write> write) {
  if (write->caller == nullptr)
    return write->promise.SetValueUnlessCancelled(absl::UnavailableError("its caller has gone"));
  Caller& caller = *write->caller;
  const bool had_a_part = write->published > 0;
  caller.writes_.push_front(std::move(write));
  caller.Place<InWrites>().Unlink();
  if (had_a_part) {
    writing_.PushBack(caller);
  } else {
    writing_.PushFront(caller);
  }
}

}  // namespace kv
