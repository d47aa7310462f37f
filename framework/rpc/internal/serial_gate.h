// SerialGate: one call at a time on a serial actor, `option (troupe.actor) = { serial: true }`.
//
// Calls take their turns in the order in which they arrive. Each turn has a number that no other turn has anywhere; a
// handler carries the numbers of the turns that wait for it in its Context (SerialTurns), its calls carry them on, as
// metadata where they travel. A call that carries the turn that runs here would wait for itself: it is in a circle.
//
// Life of a call: Arrive -> [waits] -> OnTurn -> End   or   Arrive -> waits -> End
// Threading: one thread.     Lifetime: outlives its calls.
#ifndef TROUPE_RPC_INTERNAL_SERIAL_GATE_H_
#define TROUPE_RPC_INTERNAL_SERIAL_GATE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "troupe/base/intrusive_list.h"
#include "troupe/loop/context.h"

namespace troupe::internal {

// The turns of serial actors that wait for the work of this context, outermost first.
using SerialTurns = std::vector<uint64_t>;
inline const ContextVar<SerialTurns> current_serial_turns;

// How they travel: eight bytes each, little-endian. Actors that wait for each other are few.
inline constexpr absl::string_view kSerialTurnsKey = "troupe-turns-bin";
inline constexpr size_t kSerialTurnsMax = 64;
std::string EncodeSerialTurns(const SerialTurns& turns);
// Empty for what EncodeSerialTurns did not write.
SerialTurns DecodeSerialTurns(absl::string_view bytes);

class SerialCall : public ListNode<SerialCall> {
 public:
  // It may start. May be called from within Arrive() or End() of this or of another call, and may itself call End().
  virtual void OnTurn() = 0;

 protected:
  ~SerialCall() = default;
};

class SerialGate {
 public:
  // `first_turn`: random.
  explicit SerialGate(uint64_t first_turn) : turn_(first_turn) {}
  SerialGate(const SerialGate&) = delete;
  SerialGate& operator=(const SerialGate&) = delete;

  void Arrive(SerialCall& call) {
    waiting_.PushBack(call);
    Advance();
  }
  // It has ended, whether it had its turn or not. No effect on one that never arrived.
  void End(SerialCall& call) {
    call.Unlink();
    if (running_ == &call) {
      running_ = nullptr;
      Advance();
    }
  }

  // Of the call that has its turn. REQUIRES: there is one.
  uint64_t turn() const { return turn_; }
  // Would a call that carries these wait for itself?
  bool IsCircle(const SerialTurns& turns) const;

 private:
  void Advance() {
    // What is called here may come back; the loop that runs already sees what it changed.
    if (std::exchange(advancing_, true)) return;
    while (running_ == nullptr && !waiting_.empty()) {
      running_ = &waiting_.PopFront();
      ++turn_;
      running_->OnTurn();
    }
    advancing_ = false;
  }

  uint64_t turn_;
  SerialCall* running_ = nullptr;
  bool advancing_ = false;
  IntrusiveList<SerialCall, SerialCall> waiting_;  // in order of arrival
};

}  // namespace troupe::internal

#endif  // TROUPE_RPC_INTERNAL_SERIAL_GATE_H_
