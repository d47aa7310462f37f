#include "services/kv/key_value_service.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "services/kv/change_feed.h"
#include "services/kv/put_queue.h"
#include "services/kv/watcher.h"
#include "troupe/async/task_group.h"
#include "troupe/base/status_macros.h"
#include "troupe/rpc/until_draining.h"

namespace kv::v1 {
namespace {

using troupe::Call;
using troupe::Reader;
using troupe::Task;
using troupe::Writer;

constexpr int kPageSizeDefault = 100;
constexpr size_t kKeptValueBytes = 4 << 10;

void SetEvent(WatchEvent& event, const Change& change) {
  event.set_type(change.value.has_value() ? WatchEvent::TYPE_PUT : WatchEvent::TYPE_DELETE);
  event.set_key(change.key);
  if (change.value.has_value()) {
    event.set_value(*change.value);
  } else {
    event.clear_value();
  }
  event.set_revision(change.revision);
}

// Fills the queue with the puts of the stream, to its end or to the first that is wrong. What came before that is
// committed all the same.
Task<void> Collect(AsyncStore& store, Reader<PutRequest> puts, PutQueue& queue) {
  PutRequest put;
  int64_t number = 0;
  absl::Status end;
  while (true) {
    co_await queue.Room();
    const bool more = co_await puts.Read(put);
    if (!more) break;
    ++number;
    Mutation mutation{std::move(*put.mutable_key()), std::move(*put.mutable_value())};
    const absl::Status valid = store.rules().Validate(mutation);
    if (!valid.ok()) {
      end = absl::InvalidArgumentError(absl::StrCat("put ", number, ": ", valid.message()));
      break;
    }
    queue.Add(std::move(mutation));
  }
  queue.Finish(std::move(end));
}

// Commits what the queue brings, one commit after the other, and sums it up.
Task<absl::Status> CommitAll(AsyncStore::Caller& store, PutQueue& queue, LoadSummary& summary) {
  while (true) {
    std::vector<Mutation> batch = co_await queue.Take();
    if (batch.empty()) co_return queue.end();
    int64_t bytes = 0;
    for (const Mutation& put : batch) bytes += static_cast<int64_t>(put.key.size() + put.value->size());
    CO_ASSIGN_OR_RETURN(const std::vector<SharedChange> changes, co_await store.Apply(std::move(batch)));
    summary.set_puts(summary.puts() + static_cast<int64_t>(changes.size()));
    summary.set_bytes(summary.bytes() + bytes);
    summary.set_revision(changes.back()->revision);
  }
}

// Commits what the queue brings and answers each put.
Task<absl::Status> CommitAndAnswer(AsyncStore::Caller& store, PutQueue& queue, Writer<WatchEvent> events) {
  WatchEvent event;
  while (true) {
    std::vector<Mutation> batch = co_await queue.Take();
    if (batch.empty()) co_return queue.end();
    CO_ASSIGN_OR_RETURN(std::vector<SharedChange> changes, co_await store.Apply(std::move(batch)));
    for (SharedChange& change : changes) {
      SetEvent(event, *change);
      const size_t bytes = HeldBytes(change->key.size(), change->value->size());
      change.reset();
      const bool more = co_await events.Write(event);
      if (!more) co_return absl::CancelledError("the call is over");
      queue.Done(bytes);
    }
  }
}

// Tells of every change, until the call is over.
Task<absl::Status> TellAll(Watcher& watcher, Writer<WatchEvent> events) {
  WatchEvent event;
  while (true) {
    {
      CO_ASSIGN_OR_RETURN(const SharedChange change, co_await watcher.Next());
      SetEvent(event, *change);
    }
    // While it waits for its reader a large value stands in the output, and only there.
    auto written = events.Write(event);
    if (!written.await_ready()) watcher.Stalled();
    if (event.value().size() > kKeptValueBytes) event = WatchEvent();
    const bool more = co_await written;
    if (!more) co_return absl::CancelledError("the call is over");
  }
}

}  // namespace

Task<absl::Status> KeyValueService::Get(const GetRequest& request, GetResponse& response, Call&) {
  CO_ASSIGN_OR_RETURN(kv::Entry entry, co_await caller_.Get(request.key()));
  response.set_value(std::move(entry.value));
  response.set_revision(entry.revision);
  co_return absl::OkStatus();
}

Task<absl::Status> KeyValueService::Put(const PutRequest& request, PutResponse& response, Call& call) {
  Charge held(call.connection());
  held.Set(HeldBytes(request.key().size(), request.value().size()));
  std::vector<Mutation> one(1);
  one[0].key = request.key();
  one[0].value = request.value();
  CO_ASSIGN_OR_RETURN(const std::vector<SharedChange> changes, co_await caller_.Apply(std::move(one)));
  response.set_revision(changes[0]->revision);
  co_return absl::OkStatus();
}

Task<absl::Status> KeyValueService::Delete(const DeleteRequest& request, DeleteResponse& response, Call&) {
  std::vector<Mutation> one(1);
  one[0].key = request.key();
  CO_ASSIGN_OR_RETURN(const std::vector<SharedChange> changes, co_await caller_.Apply(std::move(one)));
  response.set_found(changes[0] != nullptr);
  response.set_revision(changes[0] != nullptr ? changes[0]->revision : 0);
  co_return absl::OkStatus();
}

Task<absl::Status> KeyValueService::List(const ListRequest& request, ListResponse& response, Call&) {
  ListQuery query;
  query.prefix = request.prefix();
  query.page_token = request.page_token();
  query.entries_max = request.page_size() == 0 ? kPageSizeDefault : request.page_size();
  query.keys_only = request.keys_only();
  CO_ASSIGN_OR_RETURN(ListPage page, co_await caller_.List(std::move(query)));
  for (kv::Entry& entry : page.entries) {
    v1::Entry& to = *response.add_entries();
    to.set_key(std::move(entry.key));
    to.set_value(std::move(entry.value));
    to.set_revision(entry.revision);
  }
  response.set_next_page_token(std::move(page.next_page_token));
  response.set_revision(page.revision);
  co_return absl::OkStatus();
}

Task<absl::Status> KeyValueService::Watch(const WatchRequest& request, Writer<WatchEvent> events, Call& call) {
  CO_RETURN_IF_ERROR(caller_.store().rules().ValidatePrefix(request.prefix()));
  const int64_t after = request.has_after_revision() ? request.after_revision() : caller_.store().feed().revision();
  Watcher watcher(caller_, told_, request.prefix(), after);
  // A watch never ends by itself. Cut short anywhere it loses nothing: the client goes on after the last event it got.
  Task<absl::Status> tell = TellAll(watcher, events);
  co_return co_await troupe::UntilDraining(call, std::move(tell));
}

Task<absl::Status> KeyValueService::Load(Reader<PutRequest> puts, LoadSummary& summary, Call& call) {
  PutQueue queue(call.connection());
  troupe::TaskGroup group;
  group.Spawn(Collect(caller_.store(), puts, queue), "collect");
  group.Spawn(CommitAll(caller_, queue, summary), "commit");
  co_return co_await group.Join();
}

Task<absl::Status> KeyValueService::Mirror(Reader<PutRequest> puts, Writer<WatchEvent> events, Call& call) {
  PutQueue queue(call.connection());
  troupe::TaskGroup group;
  group.Spawn(Collect(caller_.store(), puts, queue), "collect");
  group.Spawn(CommitAndAnswer(caller_, queue, events), "commit");
  co_return co_await group.Join();
}

}  // namespace kv::v1
