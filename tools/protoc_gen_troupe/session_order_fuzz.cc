// Any text is a session order or is refused with INVALID_ARGUMENT; and what is right means the same as a choice between
// itself and itself, in parentheses: the tables, which are the smallest, are equal.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "tools/protoc_gen_troupe/session_order.h"

using troupe::generator::CompileSessionOrder;
using troupe::generator::kSessionOrderStatesMax;
using troupe::generator::SessionAutomaton;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string order(reinterpret_cast<const char*>(data), size);
  const std::vector<std::string> methods = {"A", "B", "C"};
  const absl::StatusOr<SessionAutomaton> automaton = CompileSessionOrder(order, {}, methods);
  if (!automaton.ok() && !absl::IsInvalidArgument(automaton.status())) std::abort();
  if (!automaton.ok() || automaton->next.empty()) return 0;
  if (automaton->next.size() > kSessionOrderStatesMax) std::abort();
  for (const std::string& same : {absl::StrCat("(", order, ")"), absl::StrCat(order, "|", order)}) {
    const absl::StatusOr<SessionAutomaton> again = CompileSessionOrder(same, {}, methods);
    // Twice the text may be more than one may write, and a parenthesis more than may be nested.
    if (again.ok() ? !(*again == *automaton) : !absl::IsInvalidArgument(again.status())) std::abort();
  }
  return 0;
}
