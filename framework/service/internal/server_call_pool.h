// ServerCallPool: call records of one method that wait for reuse, with their messages.
#ifndef TROUPE_SERVICE_INTERNAL_SERVER_CALL_POOL_H_
#define TROUPE_SERVICE_INTERNAL_SERVER_CALL_POOL_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace troupe::internal {

class SessionServerCall;

// Reference-counted by the table that it belongs to and by each record that is in use, on one thread.
class ServerCallPool {
 public:
  // Enough for a pipelined burst; each record holds at most 16 KiB a message.
  static constexpr size_t kRecordsMax = 128;

  ServerCallPool() = default;
  ServerCallPool(const ServerCallPool&) = delete;
  ServerCallPool& operator=(const ServerCallPool&) = delete;

  void Retain() { ++references_; }
  void Release() {
    if (--references_ == 0) delete this;
  }

  // The size of the largest reply lately, of all connections.
  uint32_t reply_bytes() const { return reply_bytes_; }
  void Learn(uint32_t reply_bytes) { reply_bytes_ = std::max(reply_bytes, reply_bytes_ - reply_bytes_ / 1024); }

  // Null: none is kept.
  SessionServerCall* Take() {
    if (records_.empty()) return nullptr;
    SessionServerCall* const record = records_.back();
    records_.pop_back();
    return record;
  }
  // False: full.
  bool Keep(SessionServerCall& record) {
    if (records_.size() >= kRecordsMax) return false;
    records_.push_back(&record);
    return true;
  }

 private:
  ~ServerCallPool();

  uint32_t references_ = 1;
  uint32_t reply_bytes_ = 0;
  std::vector<SessionServerCall*> records_;
};

}  // namespace troupe::internal

#endif  // TROUPE_SERVICE_INTERNAL_SERVER_CALL_POOL_H_
