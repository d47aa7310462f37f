// The order of a session, `option (troupe.session) = { order: ... anytime: ... }`, as text that is right or wrong.
//
//   order       = alternative
//   alternative = sequence ("|" sequence)*
//   sequence    = repetition+
//   repetition  = (method | "(" alternative ")") ("*" | "+" | "?")?
//
// Methods are named as in the .proto. Each method of the service stands in the order or among those of any time, and
// not in both: one that stands in neither could never be called.
// Threading: pure functions.
#ifndef TROUPE_PROTOC_GEN_TROUPE_SESSION_ORDER_H_
#define TROUPE_PROTOC_GEN_TROUPE_SESSION_ORDER_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace troupe::generator {

// Parentheses nest at most this deep: the parser calls itself for each.
inline constexpr int kSessionOrderDepthMax = 100;

// INVALID_ARGUMENT says what is wrong and where. An empty order with no methods of any time is right.
absl::Status CheckSessionOrder(absl::string_view order, absl::Span<const std::string> anytime,
                               absl::Span<const std::string> methods);

}  // namespace troupe::generator

#endif  // TROUPE_PROTOC_GEN_TROUPE_SESSION_ORDER_H_
