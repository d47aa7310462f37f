// What gRPC writes into headers, read from a stranger: timeouts, messages, binary values, statuses with details, and a
// packed message. The first byte says which; nothing may be read or held beyond the bounds, and what was written by us
// is read back.
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "testing/fuzz/fuzz.h"
#include "troupe/wire/grpc/headers.h"
#include "troupe/wire/grpc/internal/gzip.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace wire = troupe::grpc_wire;
  if (size == 0) return 0;
  // In memory of its own, so that a sanitizer sees what is read behind it.
  const std::string copy(reinterpret_cast<const char*>(data) + 1, size - 1);
  const absl::string_view text = copy;
  switch (data[0] % 5) {
    case 0: {
      const absl::optional<absl::Duration> timeout = wire::ParseTimeout(text);
      if (!timeout.has_value()) break;
      REQUIRE(*timeout >= absl::ZeroDuration());
      REQUIRE(wire::ParseTimeout(wire::FormatTimeout(*timeout)).value() >= *timeout);
      break;
    }
    case 1:
      REQUIRE(wire::DecodeMessage(text).size() <= text.size());
      REQUIRE(wire::DecodeMessage(wire::EncodeMessage(text)) == text);
      break;
    case 2: {
      std::string value;
      static_cast<void>(wire::DecodeBinary(text, value));
      REQUIRE(wire::DecodeBinary(wire::EncodeBinary(text), value));
      REQUIRE(value == text);
      break;
    }
    case 3: {
      absl::Status status = absl::NotFoundError("x");
      wire::DecodeDetails(text, status);
      REQUIRE(status.code() == absl::StatusCode::kNotFound && status.message() == "x");
      static_cast<void>(wire::ParseStatusCode(text));
      static_cast<void>(wire::IsGrpcContentType(text));
      break;
    }
    case 4: {
      constexpr size_t kMost = 10000;
      std::string bytes;
      if (wire::Gunzip(absl::MakeConstSpan(copy), kMost, bytes) == wire::Gunzipped::kOk) {
        REQUIRE(bytes.size() <= kMost);
      }
      REQUIRE(wire::Gunzip(absl::MakeConstSpan(wire::Gzip(absl::MakeConstSpan(copy))), copy.size(), bytes) ==
              wire::Gunzipped::kOk);
      REQUIRE(bytes == copy);
      break;
    }
    default:
      break;
  }
  return 0;
}
