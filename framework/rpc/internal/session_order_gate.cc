#include "troupe/rpc/internal/session_order_gate.h"

#include <utility>

namespace troupe::internal {
namespace {

absl::Status RefusalIn(const SessionOrder& order, uint8_t state, uint16_t step) {
  return order.Refusal(SessionOrder::States().set(state), step);
}

}  // namespace

void SessionOrderGate::Arrive(OrderedCall& call, uint16_t step, bool open_ended) {
  call.step_ = step;
  call.open_ended_ = open_ended;
  call.place_ = OrderedCall::Place::kWaiting;
  waiting_.PushBack(call);
  Advance();
}

void SessionOrderGate::End(OrderedCall& call, bool ok) {
  const OrderedCall::Place place = std::exchange(call.place_, OrderedCall::Place::kOutside);
  if (place == OrderedCall::Place::kOutside) return;
  call.Unlink();
  if (place == OrderedCall::Place::kRunning) {
    if (changing_ == &call) {
      changing_ = nullptr;
      if (ok) {
        begun_ = true;
        state_ = order_.Next(state_, call.step_);
        Expel();
      }
    } else if (!call.open_ended_) {
      --awaited_;
    }
  }
  Advance();
}

void SessionOrderGate::Advance() {
  // What is called below may come back here; the loop that runs already sees what it changed.
  if (std::exchange(advancing_, true)) return;
  while (!waiting_.empty() && changing_ == nullptr) {
    OrderedCall& call = waiting_.front();
    if (!order_.Allows(state_, call.step_)) {
      waiting_.PopFront();
      call.place_ = OrderedCall::Place::kOutside;
      call.OnOrderRefused(RefusalIn(order_, state_, call.step_));
      continue;
    }
    const bool changes = order_.Changes(state_, call.step_);
    if (changes && awaited_ > 0) break;
    waiting_.PopFront();
    running_.PushBack(call);
    call.place_ = OrderedCall::Place::kRunning;
    if (changes) {
      changing_ = &call;
    } else if (!call.open_ended_) {
      ++awaited_;
    }
    call.OnOrderAdmitted();
  }
  advancing_ = false;
}

void SessionOrderGate::Expel() {
  // One at a time, from the front: an expelled call may end at once, and others with it. Those that stay go behind, and
  // nobody is let in meanwhile.
  advancing_ = true;
  IntrusiveList<OrderedCall, OrderedCall> left;
  left.SpliceBack(running_);
  while (!left.empty()) {
    OrderedCall& call = left.PopFront();
    running_.PushBack(call);
    if (!order_.Allows(state_, call.step_)) call.OnOrderExpelled(RefusalIn(order_, state_, call.step_));
  }
  advancing_ = false;
}

}  // namespace troupe::internal
