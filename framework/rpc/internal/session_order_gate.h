// SessionOrderGate: the server's side of a session order: which calls of one session and service may start, and when.
//
// Calls are judged in the order of their arrival. One that does not change the state starts at once, beside any number
// of others. One that changes it waits until the calls before it have ended, and those behind it wait until it has: so
// each is judged in the state in which it will run. Calls that stream responses may last as long as the session; they
// are not waited for, but cancelled when the state moves to one that does not allow them. A call that ends OK moves the
// state, any other end leaves it. Methods of any time never come here.
//
// Life of a call: Arrive -> [waits] -> admitted -> End   or   Arrive -> [waits] -> refused   or   Arrive -> waits ->
// End Threading: one thread.     Lifetime: outlives its calls.
#ifndef TROUPE_RPC_INTERNAL_SESSION_ORDER_GATE_H_
#define TROUPE_RPC_INTERNAL_SESSION_ORDER_GATE_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "troupe/base/intrusive_list.h"
#include "troupe/rpc/session_order.h"

namespace troupe::internal {

class SessionOrderGate;

// A call as the gate sees it. Each of the three may be called from within Arrive() or End() of this or of another call,
// and may itself call them.
class OrderedCall : public ListNode<OrderedCall> {
 public:
  // It may start.
  virtual void OnOrderAdmitted() = 0;
  // Its turn has come and the order does not allow it. The gate has forgotten it.
  virtual void OnOrderRefused(const absl::Status& why) = 0;
  // It runs and streams, and the session has moved to a state that does not allow it. End() is still to come.
  virtual void OnOrderExpelled(const absl::Status& why) = 0;

 protected:
  ~OrderedCall() = default;

 private:
  friend class SessionOrderGate;
  enum class Place : uint8_t { kOutside, kWaiting, kRunning };

  Place place_ = Place::kOutside;
  bool open_ended_ = false;
  uint16_t step_ = 0;
};

class SessionOrderGate {
 public:
  explicit SessionOrderGate(const SessionOrder& order) : order_(order) {}
  SessionOrderGate(const SessionOrderGate&) = delete;
  SessionOrderGate& operator=(const SessionOrderGate&) = delete;

  const SessionOrder& order() const { return order_; }

  // `open_ended`: it streams responses. REQUIRES: the call is outside.
  void Arrive(OrderedCall& call, uint16_t step, bool open_ended);
  // It has ended, wherever it was. No effect on one that is outside.
  void End(OrderedCall& call, bool ok);

  uint8_t state() const { return state_; }
  // The session has begun, by a step that ended OK, and may not end yet.
  bool unfinished() const { return begun_ && !order_.accepting[state_]; }

 private:
  void Advance();
  void Expel();

  const SessionOrder& order_;
  uint8_t state_ = 0;
  bool begun_ = false;
  OrderedCall* changing_ = nullptr;  // runs and will move the state
  size_t awaited_ = 0;               // calls that run and that a change waits for
  bool advancing_ = false;
  IntrusiveList<OrderedCall, OrderedCall> waiting_;  // in order of arrival
  IntrusiveList<OrderedCall, OrderedCall> running_;
};

}  // namespace troupe::internal

#endif  // TROUPE_RPC_INTERNAL_SESSION_ORDER_GATE_H_
