// SessionOrderMemory: the caller's side of a session order: what a stub knows of where its session stands.
//
// A stub may send a step before it knows how the one before it ended, and it may never hear of an end. So what is kept
// is the set of states in which the server can be. A call is refused before it is sent only when no one of them, after
// whatever the steps under way may do, allows it: the server has the last word.
//
// Threading: one thread.     Lifetime: of the session.
#ifndef TROUPE_RPC_INTERNAL_SESSION_ORDER_MEMORY_H_
#define TROUPE_RPC_INTERNAL_SESSION_ORDER_MEMORY_H_

#include <cstdint>
#include <deque>

#include "absl/status/status.h"
#include "troupe/rpc/session_order.h"

namespace troupe::internal {

class SessionOrderMemory {
 public:
  // Of a call that may move the session; 0 of one that cannot.
  using Ticket = uint64_t;
  enum class Outcome : uint8_t { kOk, kFailed, kUnknown };

  explicit SessionOrderMemory(const SessionOrder& order) : order_(order) { settled_.set(0); }

  const SessionOrder& order() const { return order_; }

  // FAILED_PRECONDITION: it cannot be in order, and is not to be sent.
  absl::Status Check(uint16_t step) const;
  // It is sent. REQUIRES: Check() was OK.
  Ticket Sent(uint16_t step);
  // kUnknown: cancelled, timed out, or lost with its connection: the server may have gone on or not.
  void Ended(Ticket ticket, Outcome outcome);

  // In which the server can be once all that was sent has ended.
  SessionOrder::States Possible() const;

 private:
  enum class Progress : uint8_t { kUnderWay, kOk, kFailed, kUnknown };
  struct Sending {
    uint16_t step;
    Progress progress;
  };
  SessionOrder::States After(const SessionOrder::States& before, const Sending& sending) const;

  const SessionOrder& order_;
  SessionOrder::States settled_;  // before the first of sent_
  std::deque<Sending> sent_;      // in order; the first has not ended
  Ticket first_ticket_ = 1;       // of sent_.front()
};

}  // namespace troupe::internal

#endif  // TROUPE_RPC_INTERNAL_SESSION_ORDER_MEMORY_H_
