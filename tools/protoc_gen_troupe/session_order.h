// The order of a session, `option (troupe.session) = { order: ... anytime: ... }`: from text to automaton.
//
//   order       = alternative
//   alternative = sequence ("|" sequence)*
//   sequence    = repetition+
//   repetition  = (method | "(" alternative ")") ("*" | "+" | "?")?
//
// Methods are named as in the .proto. Each method of the service stands in the order or among those of any time, and
// not in both: one that stands in neither could never be called.
//
// The automaton is the smallest one that accepts the same sequences, with its states numbered in the order in which the
// methods reach them, so that two texts that mean the same give the same tables.
// Threading: pure functions.
#ifndef TROUPE_PROTOC_GEN_TROUPE_SESSION_ORDER_H_
#define TROUPE_PROTOC_GEN_TROUPE_SESSION_ORDER_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace troupe::generator {

// Parentheses nest at most this deep: the parser calls itself for each.
inline constexpr int kSessionOrderDepthMax = 100;
// Methods that an order names, each as often as it stands there.
inline constexpr size_t kSessionOrderStepsMax = 500;
// A state is a byte in the tables, and one value of it means "not allowed".
inline constexpr size_t kSessionOrderStatesMax = 255;

struct SessionAutomaton {
  static constexpr int kNotAllowed = -1;

  std::vector<std::string> steps;      // the methods in the order, as the service declares them
  std::vector<std::vector<int>> next;  // by state, which begins with 0, and step
  std::vector<bool> accepting;         // by state: the session may end here

  friend bool operator==(const SessionAutomaton& a, const SessionAutomaton& b) {
    return a.steps == b.steps && a.next == b.next && a.accepting == b.accepting;
  }
};

// INVALID_ARGUMENT says what is wrong and where. No order and no methods of any time: an automaton without states.
absl::StatusOr<SessionAutomaton> CompileSessionOrder(absl::string_view order, absl::Span<const std::string> anytime,
                                                     absl::Span<const std::string> methods);

}  // namespace troupe::generator

#endif  // TROUPE_PROTOC_GEN_TROUPE_SESSION_ORDER_H_
