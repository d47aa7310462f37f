#include "troupe/base/os_error.h"

#include <cerrno>
#include <cstdlib>
#include <string>
#include <system_error>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace troupe {
namespace {

constexpr char kPayload[] = "troupe/errno";

absl::StatusCode Code(int error) {
  switch (error) {
    case EPIPE:
    case ENOTCONN:
    case ESHUTDOWN:
    case ETIMEDOUT:  // of a connection; our own deadlines never come from the kernel
      return absl::StatusCode::kUnavailable;
    case EADDRNOTAVAIL:  // Abseil says ALREADY_EXISTS
      return absl::StatusCode::kFailedPrecondition;
    default:
      return absl::ErrnoToStatusCode(error);
  }
}

}  // namespace

std::string ErrnoText(int error) { return std::generic_category().message(std::abs(error)); }

absl::Status OsError(int error, absl::string_view what) {
  error = std::abs(error);
  absl::Status status(Code(error), absl::StrCat(what, ": ", ErrnoText(error)));
  status.SetPayload(kPayload, absl::Cord(absl::StrCat(error)));
  return status;
}

int ErrnoOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kPayload);
  int error = 0;
  if (!payload.has_value() || !absl::SimpleAtoi(std::string(*payload), &error)) return 0;
  return error;
}

}  // namespace troupe
