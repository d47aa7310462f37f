// What a user or an operator writes as the place of a server: what is taken says where, the same again, and what is
// refused is quoted so that a log can show it.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "testing/fuzz/fuzz.h"
#include "troupe/net/resolve.h"
#include "troupe/service/internal/target.h"

using troupe::internal::ParseTarget;
using troupe::internal::TargetUse;

namespace {

bool IsUnix(absl::string_view text) {
  return absl::StartsWith(text, "unix:") || absl::StartsWith(text, "unix-abstract:");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  for (const TargetUse use : {TargetUse::kConnect, TargetUse::kListen}) {
    const absl::StatusOr<std::string> address = ParseTarget(text, use);
    if (!address.ok()) {
      REQUIRE(absl::IsInvalidArgument(address.status()));
      const absl::string_view said = address.status().message();
      REQUIRE(std::all_of(said.begin(), said.end(), absl::ascii_isprint));
      continue;
    }
    // No host is taken for a path, nor a path for a host.
    absl::string_view meant = text;
    if (use == TargetUse::kConnect) absl::ConsumePrefix(&meant, "troupe+");
    REQUIRE(IsUnix(*address) == IsUnix(meant));
    const std::string spelled = IsUnix(*address) ? *address : absl::StrCat("dns:///", *address);
    const absl::StatusOr<std::string> again = ParseTarget(spelled, use);
    REQUIRE(again.ok() && *again == *address);
    if (IsUnix(*address)) continue;
    const absl::StatusOr<troupe::HostPort> parts = troupe::SplitHostPort(*address);
    REQUIRE(parts.ok() && !parts->port.empty());
    REQUIRE(use == TargetUse::kListen || !parts->host.empty());
    REQUIRE(ParseTarget(spelled, TargetUse::kListen).ok());
  }
  return 0;
}
