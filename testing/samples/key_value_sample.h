// The server side of the sample: a KeyValue service in memory, as a newcomer would write it.
#ifndef TROUPE_TESTING_SAMPLES_KEY_VALUE_SAMPLE_H_
#define TROUPE_TESTING_SAMPLES_KEY_VALUE_SAMPLE_H_

#include <map>
#include <string>
#include <vector>

#include "kv/v1/kv.troupe.h"
#include "troupe/async/event.h"
#include "troupe/service/server.h"

namespace kv::v1 {

// What all connections share. On one loop, so without a lock.
struct Store {
  std::map<std::string, std::string> values;
  std::vector<WatchEvent> changes;
  troupe::Event changed;  // set, and cleared at once, with each change
};

// One KeyValueService per connection. Parameters in order: in, out, call; references live until the returned Task is
// done.
class KeyValueService final : public KeyValueActor {
 public:
  explicit KeyValueService(Store& store) : store_(store) {}
  troupe::Task<absl::Status> Get(const GetRequest& request, GetResponse& response, troupe::Call& call) override;
  troupe::Task<absl::Status> Put(const PutRequest& request, PutResponse& response, troupe::Call& call) override;
  troupe::Task<absl::Status> Watch(const WatchRequest& request, troupe::Writer<WatchEvent> events,
                                   troupe::Call& call) override;
  troupe::Task<absl::Status> Load(troupe::Reader<PutRequest> puts, LoadSummary& summary, troupe::Call& call) override;
  troupe::Task<absl::Status> Mirror(troupe::Reader<PutRequest> puts, troupe::Writer<WatchEvent> events,
                                    troupe::Call& call) override;
  // Callbacks of the connection, each optional:
  void ConnectionMade(troupe::Connection& connection) override;
  bool EofReceived() override;  // true keeps the write side open
  void PauseWriting() override;
  void ResumeWriting() override;
  void ConnectionLost(const absl::Status& reason) override;

 private:
  WatchEvent Change(const PutRequest& put);

  Store& store_;
};

}  // namespace kv::v1

#endif  // TROUPE_TESTING_SAMPLES_KEY_VALUE_SAMPLE_H_
