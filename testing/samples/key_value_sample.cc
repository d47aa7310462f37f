#include "troupe/testing/samples/key_value_sample.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace kv::v1 {

troupe::Task<absl::Status> KeyValueService::Get(const GetRequest& request, GetResponse& response, troupe::Call&) {
  const auto found = store_.values.find(request.key());
  if (found == store_.values.end()) co_return absl::NotFoundError(absl::StrCat("no key ", request.key()));
  response.set_value(found->second);
  co_return absl::OkStatus();
}

troupe::Task<absl::Status> KeyValueService::Put(const PutRequest& request, PutResponse& response, troupe::Call&) {
  response.set_revision(Change(request).revision());
  co_return absl::OkStatus();
}

troupe::Task<absl::Status> KeyValueService::Watch(const WatchRequest&, troupe::Writer<WatchEvent> events,
                                                  troupe::Call& call) {
  size_t next = store_.changes.size();
  while (!call.draining()) {
    while (next < store_.changes.size()) {
      const bool more = co_await events.Write(store_.changes[next++]);
      if (!more) co_return absl::OkStatus();
    }
    co_await store_.changed.Wait();
  }
  co_return absl::UnavailableError("the server is shutting down");
}

troupe::Task<absl::Status> KeyValueService::Load(troupe::Reader<PutRequest> puts, LoadSummary& summary, troupe::Call&) {
  PutRequest put;  // reused: no allocation per message
  while (co_await puts.Read(put)) {
    summary.set_revision(Change(put).revision());
    summary.set_puts(summary.puts() + 1);
  }
  co_return absl::OkStatus();
}

troupe::Task<absl::Status> KeyValueService::Mirror(troupe::Reader<PutRequest> puts, troupe::Writer<WatchEvent> events,
                                                   troupe::Call&) {
  PutRequest put;
  while (co_await puts.Read(put)) {
    const WatchEvent event = Change(put);
    const bool more = co_await events.Write(event);
    if (!more) break;
  }
  co_return absl::OkStatus();
}

WatchEvent KeyValueService::Change(const PutRequest& put) {
  store_.values[put.key()] = put.value();
  WatchEvent event;
  event.set_type(WatchEvent::TYPE_PUT);
  event.set_key(put.key());
  event.set_value(put.value());
  event.set_revision(static_cast<int64_t>(store_.changes.size()) + 1);
  store_.changes.push_back(event);
  store_.changed.Set();
  store_.changed.Clear();
  return event;
}

void KeyValueService::ConnectionMade(troupe::Connection&) {}
bool KeyValueService::EofReceived() { return false; }
void KeyValueService::PauseWriting() {}
void KeyValueService::ResumeWriting() {}
void KeyValueService::ConnectionLost(const absl::Status&) {}

}  // namespace kv::v1
