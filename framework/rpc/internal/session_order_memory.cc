#include "troupe/rpc/internal/session_order_memory.h"

namespace troupe::internal {
namespace {

using States = SessionOrder::States;

template <class F>
void ForEach(const SessionOrder& order, const States& states, F&& f) {
  for (uint8_t state = 0; state < order.accepting.size(); ++state) {
    if (states[state]) f(state);
  }
}

}  // namespace

States SessionOrderMemory::After(const States& before, const Sending& sending) const {
  if (sending.progress == Progress::kFailed) return before;
  States after;
  ForEach(order_, before, [&](uint8_t state) {
    if (order_.Allows(state, sending.step)) after.set(order_.Next(state, sending.step));
  });
  // An OK from a state that does not allow the step tells of another idea of the order at the other end; the set would
  // be empty, and the session without a way on.
  if (sending.progress != Progress::kOk || after.none()) after |= before;
  return after;
}

States SessionOrderMemory::Possible() const {
  States states = settled_;
  for (const Sending& sending : sent_) states = After(states, sending);
  return states;
}

absl::Status SessionOrderMemory::Check(uint16_t step) const {
  const States possible = Possible();
  bool allowed = false;
  ForEach(order_, possible, [&](uint8_t state) { allowed |= order_.Allows(state, step); });
  return allowed ? absl::OkStatus() : order_.Refusal(possible, step);
}

SessionOrderMemory::Ticket SessionOrderMemory::Sent(uint16_t step) {
  bool changes = false;
  ForEach(order_, Possible(), [&](uint8_t state) { changes |= order_.Changes(state, step); });
  if (!changes) return 0;
  sent_.push_back({step, Progress::kUnderWay});
  return first_ticket_ + sent_.size() - 1;
}

void SessionOrderMemory::Ended(Ticket ticket, Outcome outcome) {
  if (ticket < first_ticket_) return;
  Sending& sending = sent_[ticket - first_ticket_];
  sending.progress = outcome == Outcome::kOk       ? Progress::kOk
                     : outcome == Outcome::kFailed ? Progress::kFailed
                                                   : Progress::kUnknown;
  while (!sent_.empty() && sent_.front().progress != Progress::kUnderWay) {
    settled_ = After(settled_, sent_.front());
    sent_.pop_front();
    ++first_ticket_;
  }
}

}  // namespace troupe::internal
