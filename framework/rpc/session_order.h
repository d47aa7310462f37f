// SessionOrder: in which order the methods of a service may be called within one session, as generated code says it.
//
// From `option (troupe.session) = { order: "Login (Get | Put)* Logout?" }` protoc-gen-troupe makes the smallest
// automaton and writes it as a table. A step is a method that stands in the order; methods of any time are none. A call
// moves the session when it ends OK, from each state to the one that the table names; a method that leads from a state
// to the same one does not change it. Servers enforce it before a handler sees the call
// (internal/session_order_gate.h), stubs before they send (internal/session_order_memory.h).
//
// Threading: immutable.     Lifetime: of the program.
#ifndef TROUPE_RPC_SESSION_ORDER_H_
#define TROUPE_RPC_SESSION_ORDER_H_

#include <bitset>
#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace troupe {

struct SessionOrder {
  static constexpr size_t kStatesMax = 255;
  static constexpr uint8_t kNotAllowed = 255;  // instead of a state
  using States = std::bitset<kStatesMax>;

  absl::string_view service;                  // "kv.v1.KeyValue"
  absl::string_view text;                     // "Login (Get | Put)* Logout?"
  absl::Span<const absl::string_view> steps;  // names of methods
  absl::Span<const uint8_t> next;             // next[state * steps.size() + step]; a session begins in state 0
  absl::Span<const bool> accepting;           // by state: the session may end there

  uint8_t Next(uint8_t state, uint16_t step) const { return next[state * steps.size() + step]; }
  bool Allows(uint8_t state, uint16_t step) const { return Next(state, step) != kNotAllowed; }
  bool Changes(uint8_t state, uint16_t step) const { return Allows(state, step) && Next(state, step) != state; }

  // FAILED_PRECONDITION for a call of `step` when the session is in one of `possible`, with a google.rpc.ErrorInfo as
  // its detail: domain "troupe", reason "SESSION_ORDER", and in its metadata service, method and, separated by ", ",
  // what was allowed.
  absl::Status Refusal(const States& possible, uint16_t step) const;
};

}  // namespace troupe

#endif  // TROUPE_RPC_SESSION_ORDER_H_
