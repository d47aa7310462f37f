// The order of a session's methods as text: right or wrong, never a crash, however deep it is nested; and what is right
// becomes an automaton that holds together.
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "testing/fuzz/fuzz.h"
#include "tools/protoc_gen_troupe/session_order.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using troupe::generator::CompileSessionOrder;
  using troupe::generator::SessionAutomaton;
  const std::string order(reinterpret_cast<const char*>(data), size);
  const std::vector<std::string> methods = {"Login", "Get", "Put", "Watch", "Logout", "Ping"};
  const std::vector<std::string> anytime = {"Ping"};
  const absl::StatusOr<SessionAutomaton> made = CompileSessionOrder(order, anytime, methods);
  REQUIRE(made.ok() || absl::IsInvalidArgument(made.status()));
  // Blanks around it change nothing.
  const absl::StatusOr<SessionAutomaton> again = CompileSessionOrder(absl::StrCat(" ", order, " "), anytime, methods);
  REQUIRE(again.ok() == made.ok());
  if (!made.ok()) return 0;
  REQUIRE(*again == *made);
  REQUIRE(made->next.size() == made->accepting.size());
  REQUIRE(made->next.size() <= troupe::generator::kSessionOrderStatesMax);
  for (const std::vector<int>& state : made->next) {
    REQUIRE(state.size() == made->steps.size());
    for (const int to : state) {
      REQUIRE(to == SessionAutomaton::kNotAllowed || (to >= 0 && static_cast<size_t>(to) < made->next.size()));
    }
  }
  return 0;
}
