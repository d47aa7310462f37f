// Any text is a session order or is refused with INVALID_ARGUMENT; what is right stays right as a choice between itself
// and itself.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "tools/protoc_gen_troupe/session_order.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string order(reinterpret_cast<const char*>(data), size);
  const std::vector<std::string> methods = {"A", "B", "C"};
  const absl::Status status = troupe::generator::CheckSessionOrder(order, {}, methods);
  if (!status.ok() && !absl::IsInvalidArgument(status)) std::abort();
  if (!status.ok() || absl::StripAsciiWhitespace(order).empty()) return 0;
  const absl::Status again = troupe::generator::CheckSessionOrder(absl::StrCat(order, "|", order), {}, methods);
  if (!again.ok()) std::abort();
  return 0;
}
