// PutQueue: what a stream of puts has brought and the store has not dealt with yet.
//
// One task reads the stream and adds, another takes all that is there and commits it: so the next commit fills while
// one is on its way to the disk, and a client that is faster than the disk waits. All that the streams of a connection
// hold is charged to it: a thousand of them together make their client wait before each has filled its own queue.
//
// Life:      [Room -> Add]* -> Finish;  [Take -> Done*]* until Take gives nothing, then end()
// Threading: one loop; one task adds and one takes.     Lifetime: outlives the tasks that wait in it, and the connection it.
#ifndef TROUPE_SERVICES_KV_PUT_QUEUE_H_
#define TROUPE_SERVICES_KV_PUT_QUEUE_H_

#include <cstddef>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "services/kv/budget.h"
#include "services/kv/store.h"
#include "troupe/async/event.h"
#include "troupe/async/task.h"
#include "troupe/rpc/connection.h"

namespace kv {

// What a put, or the change that it becomes, occupies.
inline size_t HeldBytes(size_t key_bytes, size_t value_bytes) {
  constexpr size_t kBesideThem = 200;  // objects, and what the allocator adds to each
  return key_bytes + value_bytes + kBesideThem;
}

class PutQueue {
 public:
  // One stream reads no more while this much is there: it is what one commit of it takes.
  static constexpr size_t kPutsMax = 512;
  static constexpr size_t kBytesMax = 1 << 20;

  explicit PutQueue(troupe::Connection& connection) : held_(connection) {}

  // Waits until another put may be read.
  troupe::Task<void> Room() {
    while (puts_.size() >= kPutsMax || bytes_ >= kBytesMax) {
      room_.Clear();
      co_await room_.Wait();
    }
  }
  void Add(Mutation put) {
    bytes_ += HeldBytes(put.key.size(), put.value->size());
    held_.Set(bytes_ + taken_bytes_);
    puts_.push_back(std::move(put));
    added_.Set();
  }
  // Nothing more will be added, because of `end`.
  void Finish(absl::Status end) {
    finished_ = true;
    end_ = std::move(end);
    added_.Set();
  }
  // All that is there; waits until there is something. Empty: finished. What was taken before is held no more.
  troupe::Task<std::vector<Mutation>> Take() {
    Done(taken_bytes_);
    while (puts_.empty() && !finished_) {
      added_.Clear();
      co_await added_.Wait();
    }
    taken_bytes_ = std::exchange(bytes_, 0);
    room_.Set();
    co_return std::exchange(puts_, {});
  }
  // So much of what was taken is held no more.
  void Done(size_t bytes) {
    taken_bytes_ -= bytes;
    held_.Set(bytes_ + taken_bytes_);
  }
  // What Finish was called with.
  const absl::Status& end() const { return end_; }

 private:
  Charge held_;
  std::vector<Mutation> puts_;
  size_t bytes_ = 0;
  size_t taken_bytes_ = 0;
  bool finished_ = false;
  absl::Status end_;
  troupe::Event added_;
  troupe::Event room_;
};

}  // namespace kv

#endif  // TROUPE_SERVICES_KV_PUT_QUEUE_H_
