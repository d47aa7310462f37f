// KeyValueService: kv.v1.KeyValue over an AsyncStore. The .proto says what each call promises.
//
//   server.Add<kv::v1::KeyValueService>(std::ref(store));
//
// Threading: one loop, the store's.     Lifetime: one per connection, made by the server; the store outlives the
// server.
#ifndef TROUPE_SERVICES_KV_KEY_VALUE_SERVICE_H_
#define TROUPE_SERVICES_KV_KEY_VALUE_SERVICE_H_

#include <cstddef>

#include "absl/status/status.h"
#include "kv/v1/kv.troupe.h"
#include "services/kv/async_store.h"
#include "services/kv/budget.h"
#include "troupe/async/task.h"
#include "troupe/rpc/call.h"
#include "troupe/rpc/stream.h"

namespace kv::v1 {

class KeyValueService final : public KeyValueActor {
 public:
  // What one connection may make us hold of changes that are being told. Puts that wait for the disk, or for their answers
  // to be read, are charged to it. So who does not read the answers of one stream may hold up the others of its connection,
  // until the session ends the one that nobody reads.
  static constexpr size_t kToldBytesMax = 1 << 20;

  explicit KeyValueService(AsyncStore& store) : caller_(store) {}

  // Who does not read its answers has no more made for it.
  void PauseWriting() override { caller_.Pause(); }
  void ResumeWriting() override { caller_.Resume(); }

  troupe::Task<absl::Status> Get(const GetRequest& request, GetResponse& response, troupe::Call& call) override;
  troupe::Task<absl::Status> Put(const PutRequest& request, PutResponse& response, troupe::Call& call) override;
  troupe::Task<absl::Status> Delete(const DeleteRequest& request, DeleteResponse& response,
                                    troupe::Call& call) override;
  troupe::Task<absl::Status> List(const ListRequest& request, ListResponse& response, troupe::Call& call) override;
  troupe::Task<absl::Status> Watch(const WatchRequest& request, troupe::Writer<WatchEvent> events,
                                   troupe::Call& call) override;
  troupe::Task<absl::Status> Load(troupe::Reader<PutRequest> puts, LoadSummary& summary, troupe::Call& call) override;
  troupe::Task<absl::Status> Mirror(troupe::Reader<PutRequest> puts, troupe::Writer<WatchEvent> events,
                                    troupe::Call& call) override;

 private:
  AsyncStore::Caller caller_;
  Budget told_{kToldBytesMax};
};

}  // namespace kv::v1

#endif  // TROUPE_SERVICES_KV_KEY_VALUE_SERVICE_H_
