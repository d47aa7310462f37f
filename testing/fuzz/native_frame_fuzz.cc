// The payloads of native frames: what is read and accepted is written back, and read again it is the same.
//
// The first byte says which payload; the rest is the payload.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "testing/fuzz/fuzz.h"
#include "troupe/rpc/metadata.h"
#include "troupe/wire/native/frame.h"

namespace troupe::native {
namespace {

constexpr MetadataLimits kLimits = {16 << 10, 100};

absl::Span<const char> SpanOf(absl::string_view text) { return {text.data(), text.size()}; }

void Within(const Metadata& metadata) {
  REQUIRE(metadata.bytes() <= kLimits.bytes_max);
  REQUIRE(metadata.size() <= static_cast<size_t>(kLimits.entries_max));
  for (const Metadata::Entry& entry : metadata.entries()) REQUIRE(Metadata::Validate(entry.key, entry.value).ok());
}

void TryCallHead(absl::Span<const char> bytes) {
  CallHead head;
  if (!ReadCallHead(bytes, kLimits, head)) return;
  if (!head.refused.ok()) return;
  Within(head.metadata);
  REQUIRE(head.timeout > absl::ZeroDuration() || head.timeout == absl::ZeroDuration());
  const int64_t method = head.has_method ? static_cast<int64_t>(head.method) : -1;
  const Metadata* metadata = head.metadata.empty() ? nullptr : &head.metadata;
  std::string written(CallHeadBytes(method, head.path, head.timeout, metadata), '\0');
  REQUIRE(WriteCallHead(written.data(), method, head.path, head.timeout, metadata) == written.data() + written.size());
  CallHead again;
  REQUIRE(ReadCallHead(SpanOf(written), kLimits, again));
  REQUIRE(again.refused.ok());
  REQUIRE(again.has_method == head.has_method && again.method == head.method && again.path == head.path);
  REQUIRE(again.metadata == head.metadata);
  REQUIRE(again.timeout == std::max(head.timeout, absl::Nanoseconds(1)) || again.timeout == head.timeout);
}

void TryMetadata(absl::Span<const char> bytes) {
  Metadata metadata, again;
  absl::Status refused;
  if (!ReadMetadataBlock(bytes, kLimits, metadata, refused) || !refused.ok()) return;
  Within(metadata);
  std::string written(MetadataBlockBytes(metadata), '\0');
  REQUIRE(WriteMetadataBlock(written.data(), metadata) == written.data() + written.size());
  REQUIRE(ReadMetadataBlock(SpanOf(written), kLimits, again, refused) && refused.ok());
  REQUIRE(again == metadata);
}

void TryEndHead(absl::Span<const char> bytes) {
  EndHead head, again;
  if (!ReadEndHead(bytes, kLimits, head) || !head.refused.ok()) return;
  Within(head.trailers);
  const std::string written = MakeEndHead(head.status, &head.trailers);
  REQUIRE(ReadEndHead(SpanOf(written), kLimits, again) && again.refused.ok());
  REQUIRE(again.status == head.status);
  REQUIRE(again.trailers == head.trailers);
}

void TryRest(uint8_t which, absl::Span<const char> bytes) {
  if (which == 3) {
    Reset reset, again;
    if (!ReadReset(bytes, reset)) return;
    REQUIRE(!reset.status.ok());
    const std::string written = MakeReset(reset.status, reset.not_started);
    REQUIRE(ReadReset(SpanOf(written), again));
    REQUIRE(again.not_started == reset.not_started && again.status.code() == reset.status.code());
  } else if (which == 4) {
    GoAway go_away, again;
    if (!ReadGoAway(bytes, go_away)) return;
    const std::string written = MakeGoAway(go_away.last, go_away.status);
    REQUIRE(ReadGoAway(SpanOf(written), again));
    REQUIRE(again.last == go_away.last && again.status.code() == go_away.status.code());
  } else if (which == 5) {
    uint64_t credit = 0;
    if (!ReadCredit(bytes, credit) || credit > UINT32_MAX) return;
    char written[kCreditBytesMax];
    uint64_t again = 0;
    const size_t size = static_cast<size_t>(WriteCredit(written, static_cast<uint32_t>(credit)) - written);
    REQUIRE(size <= sizeof(written) && ReadCredit({written, size}, again) && again == credit);
  } else if (which == 6) {
    uint64_t opaque = 0, again = 0;
    if (!ReadPing(bytes, opaque)) return;
    char written[kPingBytes];
    WritePing(written, opaque);
    REQUIRE(ReadPing(absl::MakeConstSpan(written), again) && again == opaque);
  } else {
    uint64_t v = 0, again = 0;
    absl::Span<const char> rest = bytes;
    if (!ReadVarint(rest, v)) return;
    REQUIRE(rest.size() < bytes.size() && bytes.size() - rest.size() <= 10);
    char written[10];
    absl::Span<const char> back = {written, static_cast<size_t>(WriteVarint(written, v) - written)};
    REQUIRE(back.size() == VarintBytes(v) && ReadVarint(back, again) && again == v && back.empty());
  }
}

}  // namespace
}  // namespace troupe::native

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  // Memory of its own, so that a sanitizer sees what is read behind it.
  const std::vector<char> copy(data + 1, data + size);
  const auto bytes = absl::MakeConstSpan(copy);
  switch (data[0] % 8) {
    case 0:
      troupe::native::TryCallHead(bytes);
      break;
    case 1:
      troupe::native::TryMetadata(bytes);
      break;
    case 2:
      troupe::native::TryEndHead(bytes);
      break;
    default:
      troupe::native::TryRest(data[0] % 8, bytes);
  }
  return 0;
}
