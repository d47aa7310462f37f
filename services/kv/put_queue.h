// PutQueue: what a stream of puts has brought and the store has not taken yet.
//
// One task reads the stream and adds, another takes all that is there and commits it: so the next commit fills while
// one is on its way to the disk, and a client that is faster than the disk waits.
//
// Life:      Add* -> Finish;  Take* until it gives nothing, then end()
// Threading: one loop; one task adds and one takes.     Lifetime: outlives the tasks that wait in it.
#ifndef TROUPE_SERVICES_KV_PUT_QUEUE_H_
#define TROUPE_SERVICES_KV_PUT_QUEUE_H_

#include <cstddef>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "services/kv/store.h"
#include "troupe/async/event.h"
#include "troupe/async/task.h"

namespace kv {

class PutQueue {
 public:
  // Add waits while this much is there: what one stream may hold, and what one commit of it takes.
  static constexpr size_t kPutsMax = 512;
  static constexpr size_t kBytesMax = 1 << 20;

  troupe::Task<void> Add(Mutation put) {
    while (puts_.size() >= kPutsMax || bytes_ >= kBytesMax) {
      taken_.Clear();
      co_await taken_.Wait();
    }
    bytes_ += put.key.size() + put.value->size();
    puts_.push_back(std::move(put));
    added_.Set();
  }
  // Nothing more will be added, because of `end`.
  void Finish(absl::Status end) {
    finished_ = true;
    end_ = std::move(end);
    added_.Set();
  }
  // All that is there; waits until there is something. Empty: finished.
  troupe::Task<std::vector<Mutation>> Take() {
    while (puts_.empty() && !finished_) {
      added_.Clear();
      co_await added_.Wait();
    }
    bytes_ = 0;
    taken_.Set();
    co_return std::exchange(puts_, {});
  }
  // What Finish was called with.
  const absl::Status& end() const { return end_; }

 private:
  std::vector<Mutation> puts_;
  size_t bytes_ = 0;
  bool finished_ = false;
  absl::Status end_;
  troupe::Event added_;
  troupe::Event taken_;
};

}  // namespace kv

#endif  // TROUPE_SERVICES_KV_PUT_QUEUE_H_
