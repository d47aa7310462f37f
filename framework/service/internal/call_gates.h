// CallGates: what the calls of one session wait for besides room: the order of the session and the turns of its actors.
//
// Made at the first call that needs it, so that a connection to plain services has none.
// Threading: the loop's.     Lifetime: of the session.
#ifndef TROUPE_SERVICE_INTERNAL_CALL_GATES_H_
#define TROUPE_SERVICE_INTERNAL_CALL_GATES_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "troupe/os/os.h"
#include "troupe/rpc/internal/serial_gate.h"
#include "troupe/rpc/internal/session_order_gate.h"
#include "troupe/rpc/internal/session_order_memory.h"
#include "troupe/rpc/session_order.h"

namespace troupe::internal {

class CallGates {
 public:
  explicit CallGates(Os& os) : os_(os) {}

  // Of calls of the peer.
  SessionOrderGate& Order(const SessionOrder& order) { return Find(order, orders_); }
  SerialGate& Serial(uint32_t actor) {
    for (auto& [index, gate] : serials_) {
      if (index == actor) return *gate;
    }
    char random[sizeof(uint64_t)];
    os_.FillRandom(absl::MakeSpan(random));
    uint64_t first_turn = 0;
    for (const char c : random) first_turn = first_turn << 8 | static_cast<unsigned char>(c);
    serials_.emplace_back(actor, std::make_unique<SerialGate>(first_turn));
    return *serials_.back().second;
  }
  // Of calls of ours.
  SessionOrderMemory& Memory(const SessionOrder& order) { return Find(order, memories_); }

  // An order of the peer's calls that has begun and may not end yet; null: none.
  const SessionOrder* Unfinished() const {
    for (const auto& gate : orders_) {
      if (gate->unfinished()) return &gate->order();
    }
    return nullptr;
  }

 private:
  // A connection has few ordered services: searched in order.
  template <class T>
  static T& Find(const SessionOrder& order, std::vector<std::unique_ptr<T>>& all) {
    for (auto& known : all) {
      if (&known->order() == &order) return *known;
    }
    all.push_back(std::make_unique<T>(order));
    return *all.back();
  }

  Os& os_;
  std::vector<std::unique_ptr<SessionOrderGate>> orders_;
  std::vector<std::unique_ptr<SessionOrderMemory>> memories_;
  std::vector<std::pair<uint32_t, std::unique_ptr<SerialGate>>> serials_;
};

}  // namespace troupe::internal

#endif  // TROUPE_SERVICE_INTERNAL_CALL_GATES_H_
