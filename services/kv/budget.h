// Budget: what the watches of one connection may hold at a time. Charge: what is held for a connection, as it is told.
//
// Nobody can tell how large a change will be before it is there. So who takes one waits until there is room, and then
// holds what has come, be it more than there was room for. Room comes back when half of the budget is free.
//
//   co_await budget.Room();
//   held.Set(change->value->size());              // a Budget::Lease; gives it back when it goes
//
// Threading: one loop.     Lifetime: outlives its leases and the tasks that wait in it.
#ifndef TROUPE_SERVICES_KV_BUDGET_H_
#define TROUPE_SERVICES_KV_BUDGET_H_

#include <cstddef>
#include <cstdint>

#include "troupe/async/event.h"
#include "troupe/async/task.h"
#include "troupe/rpc/connection.h"

namespace kv {

class Budget {
 public:
  class Lease;

  explicit Budget(size_t bytes_max) : bytes_max_(bytes_max) { room_.Set(); }
  Budget(const Budget&) = delete;
  Budget& operator=(const Budget&) = delete;

  // Returns at once when there is some. Who waits is not served in order.
  troupe::Task<void> Room() {
    while (!has_room()) {
      co_await room_.Wait();
    }
  }
  bool has_room() const { return room_.is_set(); }
  // Who holds what it could do without should let it go.
  bool scarce() const { return held_ > bytes_max_ / 2; }
  size_t held() const { return held_; }

 private:
  void Hold(size_t more, size_t less) {
    held_ += more;
    held_ -= less;
    if (held_ >= bytes_max_) room_.Clear();
    if (!scarce()) room_.Set();
  }

  const size_t bytes_max_;
  size_t held_ = 0;
  troupe::Event room_;
};

// What one holder holds of it.
class Budget::Lease {
 public:
  explicit Lease(Budget& budget) : budget_(budget) {}
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  ~Lease() { Set(0); }

  void Set(size_t bytes) {
    if (bytes == bytes_) return;
    budget_.Hold(bytes, bytes_);
    bytes_ = bytes;
  }
  size_t bytes() const { return bytes_; }

 private:
  Budget& budget_;
  size_t bytes_ = 0;
};

// What one holder holds for a connection, whose peer is given no more credit when that is too much.
class Charge {
 public:
  explicit Charge(troupe::Connection& connection) : connection_(connection) {}
  Charge(const Charge&) = delete;
  Charge& operator=(const Charge&) = delete;
  ~Charge() { Set(0); }

  void Set(size_t bytes) {
    if (bytes != bytes_) connection_.Charge(static_cast<int64_t>(bytes) - static_cast<int64_t>(bytes_));
    bytes_ = bytes;
  }

 private:
  troupe::Connection& connection_;
  size_t bytes_ = 0;
};

}  // namespace kv

#endif  // TROUPE_SERVICES_KV_BUDGET_H_
