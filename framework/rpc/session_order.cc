#include "troupe/rpc/session_order.h"

#include <string>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"

namespace troupe {
namespace {

// protobuf's wire format, for google/rpc/error_details.proto: a copy of that file in this library would meet the one
// that a program may have. Fields shorter than 128 bytes have a length of one byte.
void AppendField(int number, absl::string_view value, std::string& message) {
  message += static_cast<char>(number << 3 | 2);
  size_t size = value.size();
  for (; size >= 0x80; size >>= 7) message += static_cast<char>((size & 0x7F) | 0x80);
  message += static_cast<char>(size);
  message.append(value.data(), value.size());
}

void AppendMetadata(absl::string_view key, absl::string_view value, std::string& error_info) {
  std::string entry;
  AppendField(1, key, entry);
  AppendField(2, value, entry);
  AppendField(3, entry, error_info);
}

}  // namespace

absl::Status SessionOrder::Refusal(const States& possible, uint16_t step) const {
  std::string allowed;
  for (uint16_t other = 0; other < steps.size(); ++other) {
    bool allows = false;
    for (uint8_t state = 0; state < accepting.size(); ++state) allows |= possible[state] && Allows(state, other);
    if (allows) absl::StrAppend(&allowed, allowed.empty() ? "" : ", ", steps[other]);
  }
  absl::Status status = absl::FailedPreconditionError(
      absl::StrCat(steps[step], " is out of order in this session of ", service, ", whose order is ", text,
                   ": allowed ", allowed.empty() ? "is nothing more" : absl::StrCat("now: ", allowed)));
  std::string error_info;
  AppendField(1, "SESSION_ORDER", error_info);
  AppendField(2, "troupe", error_info);
  AppendMetadata("service", service, error_info);
  AppendMetadata("method", steps[step], error_info);
  AppendMetadata("allowed", allowed, error_info);
  status.SetPayload("type.googleapis.com/google.rpc.ErrorInfo", absl::Cord(std::move(error_info)));
  return status;
}

}  // namespace troupe
