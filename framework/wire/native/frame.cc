#include "troupe/wire/native/frame.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace troupe::native {

bool ReadVarintSlow(absl::Span<const char>& bytes, uint64_t& v) {
  uint64_t value = 0;
  const size_t most = std::min<size_t>(bytes.size(), 10);
  for (size_t i = 0; i < most; ++i) {
    const auto byte = static_cast<unsigned char>(bytes[i]);
    if (i == 9 && byte > 1) return false;  // bit 64 and above
    value |= static_cast<uint64_t>(byte & 0x7F) << 7 * i;
    if (byte < 0x80) {
      v = value;
      bytes.remove_prefix(i + 1);
      return true;
    }
  }
  return false;
}

namespace {

enum WireType : uint32_t { kVarint = 0, kFixed64 = 1, kLengthDelimited = 2, kFixed32 = 5 };

constexpr uint32_t Tag(uint32_t field, WireType type) { return field << 3 | type; }

// Walks over the fields of a message. Next() is false at the end and at the first thing malformed; ok() tells which.
class Fields {
 public:
  explicit Fields(absl::Span<const char> bytes) : rest_(bytes) {}

  bool Next() {
    if (rest_.empty()) return false;
    uint64_t tag = 0;
    if (!ReadVarint(rest_, tag) || tag > UINT32_MAX || tag >> 3 == 0) return Fail();
    tag_ = static_cast<uint32_t>(tag);
    switch (tag_ & 7) {
      case kVarint:
        return ReadVarint(rest_, number_) || Fail();
      case kFixed64:
        if (rest_.size() < 8) return Fail();
        number_ = Load32(rest_.data()) | static_cast<uint64_t>(Load32(rest_.data() + 4)) << 32;
        rest_.remove_prefix(8);
        return true;
      case kLengthDelimited: {
        uint64_t length = 0;
        if (!ReadVarint(rest_, length) || length > rest_.size()) return Fail();
        bytes_ = rest_.subspan(0, length);
        rest_.remove_prefix(length);
        return true;
      }
      case kFixed32:
        if (rest_.size() < 4) return Fail();
        rest_.remove_prefix(4);
        return true;
      default:
        return Fail();  // groups, and types that do not exist
    }
  }

  // Field and type in one: a field that is known but comes with another type is skipped, as protobuf does.
  uint32_t tag() const { return tag_; }
  uint64_t number() const { return number_; }
  absl::Span<const char> bytes() const { return bytes_; }
  absl::string_view text() const { return {bytes_.data(), bytes_.size()}; }
  bool ok() const { return ok_; }

 private:
  bool Fail() {
    ok_ = false;
    return false;
  }

  absl::Span<const char> rest_;
  uint32_t tag_ = 0;
  uint64_t number_ = 0;
  absl::Span<const char> bytes_;
  bool ok_ = true;
};

size_t LengthDelimitedBytes(size_t size) { return 1 + VarintBytes(size) + size; }

char* WriteBytes(char* to, uint32_t field, absl::string_view bytes) {
  to = WriteVarint(to, Tag(field, kLengthDelimited));
  to = WriteVarint(to, bytes.size());
  if (!bytes.empty()) std::memcpy(to, bytes.data(), bytes.size());
  return to + bytes.size();
}

char* WriteNumber(char* to, uint32_t field, uint64_t number) {
  return WriteVarint(WriteVarint(to, Tag(field, kVarint)), number);
}

void AppendBytes(std::string& to, uint32_t field, absl::string_view bytes) {
  const size_t at = to.size();
  to.resize(at + LengthDelimitedBytes(bytes.size()));
  WriteBytes(&to[at], field, bytes);
}

void AppendNumber(std::string& to, uint32_t field, uint64_t number) {
  char space[1 + 10];
  to.append(space, WriteNumber(space, field, number) - space);
}

// ---- trace context: "00-<32 hex>-<16 hex>-<2 hex>" in 25 bytes

constexpr absl::string_view kTraceparent = "traceparent";
constexpr size_t kTraceparentCharacters = 55;
constexpr size_t kTraceBytes = 25;

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

// False for whatever is not exactly of this form, which travels as it is.
bool PackTraceparent(absl::string_view text, char (&packed)[kTraceBytes]) {
  if (text.size() != kTraceparentCharacters || !absl::StartsWith(text, "00-") || text[35] != '-' || text[52] != '-') {
    return false;
  }
  size_t n = 0;
  for (size_t i = 3; i < text.size(); i += 2) {
    if (i == 35 || i == 52) ++i;
    const int high = HexValue(text[i]), low = HexValue(text[i + 1]);
    if (high < 0 || low < 0) return false;
    packed[n++] = static_cast<char>(high << 4 | low);
  }
  return true;
}

std::string UnpackTraceparent(absl::string_view packed) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string text = "00-";
  for (size_t i = 0; i < packed.size(); ++i) {
    if (i == 16 || i == 24) text += '-';
    const auto byte = static_cast<unsigned char>(packed[i]);
    text += kHex[byte >> 4];
    text += kHex[byte & 15];
  }
  return text;
}

// The traceparent that travels in 25 bytes is a first entry of that name; anything else stays among the entries.
bool HasPackedTrace(const Metadata* metadata, char (&packed)[kTraceBytes]) {
  return metadata != nullptr && !metadata->empty() && metadata->entries()[0].key == kTraceparent &&
         PackTraceparent(metadata->entries()[0].value, packed);
}

// ---- metadata

size_t EntryBytes(const Metadata::Entry& entry) {
  return LengthDelimitedBytes(entry.key.size()) + LengthDelimitedBytes(entry.value.size());
}

size_t EntriesBytes(absl::Span<const Metadata::Entry> entries) {
  size_t bytes = 0;
  for (const Metadata::Entry& entry : entries) bytes += LengthDelimitedBytes(EntryBytes(entry));
  return bytes;
}

char* WriteEntries(char* to, uint32_t field, absl::Span<const Metadata::Entry> entries) {
  for (const Metadata::Entry& entry : entries) {
    to = WriteVarint(to, Tag(field, kLengthDelimited));
    to = WriteVarint(to, EntryBytes(entry));
    to = WriteBytes(to, 1, entry.key);
    to = WriteBytes(to, 2, entry.value);
  }
  return to;
}

// Adds entries up to the limits. What is beyond them is not kept; its form is still checked.
class MetadataReader {
 public:
  MetadataReader(const MetadataLimits& limits, Metadata& metadata, absl::Status& refused)
      : limits_(limits), metadata_(metadata), refused_(refused) {}

  bool Entry(absl::Span<const char> bytes) {
    absl::string_view key, value;
    Fields fields(bytes);
    while (fields.Next()) {
      if (fields.tag() == Tag(1, kLengthDelimited)) key = fields.text();
      if (fields.tag() == Tag(2, kLengthDelimited)) value = fields.text();
    }
    if (!fields.ok()) return false;
    Add(key, value);
    return true;
  }

  void Add(absl::string_view key, absl::string_view value) {
    if (!refused_.ok()) return;
    bytes_ += key.size() + value.size() + Metadata::kEntryOverheadBytes;
    entries_ += 1;
    if (bytes_ > limits_.bytes_max || entries_ > limits_.entries_max) {
      refused_ = absl::ResourceExhaustedError(
          absl::StrCat("metadata is larger than ", limits_.bytes_max, " bytes or ", limits_.entries_max, " entries"));
      metadata_.Clear();
      return;
    }
    if (absl::Status added = metadata_.TryAdd(key, value); !added.ok()) {
      refused_ = absl::InternalError(added.message());
      metadata_.Clear();
    }
  }

 private:
  const MetadataLimits& limits_;
  Metadata& metadata_;
  absl::Status& refused_;
  size_t bytes_ = 0;
  int entries_ = 0;
};

bool Travels(absl::string_view type_url) { return absl::StartsWith(type_url, "type.googleapis.com/"); }

absl::Status MakeStatus(uint64_t code, absl::string_view message) { return absl::Status(StatusCodeOf(code), message); }

}  // namespace

absl::StatusCode StatusCodeOf(uint64_t code) {
  return code <= 16 ? static_cast<absl::StatusCode>(code) : absl::StatusCode::kUnknown;
}

bool ReadCallHead(absl::Span<const char> bytes, const MetadataLimits& limits, CallHead& head) {
  MetadataReader metadata(limits, head.metadata, head.refused);
  Fields fields(bytes);
  while (fields.Next()) {
    switch (fields.tag()) {
      case Tag(1, kVarint):
        if (fields.number() >= kMethodsMax) return false;
        head.has_method = true;
        head.method = static_cast<uint32_t>(fields.number());
        break;
      case Tag(2, kLengthDelimited):
        if (fields.text().empty() || fields.text().size() > kPathBytesMax) return false;
        head.path = fields.text();
        break;
      case Tag(3, kVarint):
        if (fields.number() > static_cast<uint64_t>(INT64_MAX)) return false;
        head.timeout = absl::Nanoseconds(static_cast<int64_t>(fields.number()));
        break;
      case Tag(4, kLengthDelimited):
        if (fields.bytes().size() != kTraceBytes) return false;
        metadata.Add(kTraceparent, UnpackTraceparent(fields.text()));
        break;
      case Tag(5, kLengthDelimited):
        if (!metadata.Entry(fields.bytes())) return false;
        break;
      default:
        break;
    }
  }
  return fields.ok() && (head.has_method || !head.path.empty());
}

namespace {

// A deadline that has passed travels as 0; one beyond what 63 bits hold (292 years) as that.
uint64_t TimeoutNanos(absl::Duration timeout) {
  return timeout <= absl::ZeroDuration() ? 0 : static_cast<uint64_t>(absl::ToInt64Nanoseconds(timeout));
}

}  // namespace

size_t CallHeadBytes(int64_t method, absl::string_view path, absl::Duration timeout, const Metadata* metadata) {
  size_t bytes = 0;
  if (method >= 0) bytes += 1 + VarintBytes(static_cast<uint64_t>(method));
  if (!path.empty()) bytes += LengthDelimitedBytes(path.size());
  if (timeout != absl::InfiniteDuration()) bytes += 1 + VarintBytes(TimeoutNanos(timeout));
  if (metadata != nullptr && !metadata->empty()) {
    char trace[kTraceBytes];
    const bool packed = HasPackedTrace(metadata, trace);
    if (packed) bytes += LengthDelimitedBytes(kTraceBytes);
    bytes += EntriesBytes(metadata->entries().subspan(packed ? 1 : 0));
  }
  return bytes;
}

char* WriteCallHead(char* to, int64_t method, absl::string_view path, absl::Duration timeout,
                    const Metadata* metadata) {
  if (method >= 0) to = WriteNumber(to, 1, static_cast<uint64_t>(method));
  if (!path.empty()) to = WriteBytes(to, 2, path);
  if (timeout != absl::InfiniteDuration()) to = WriteNumber(to, 3, TimeoutNanos(timeout));
  if (metadata != nullptr && !metadata->empty()) {
    char trace[kTraceBytes];
    const bool packed = HasPackedTrace(metadata, trace);
    if (packed) to = WriteBytes(to, 4, absl::string_view(trace, sizeof(trace)));
    to = WriteEntries(to, 5, metadata->entries().subspan(packed ? 1 : 0));
  }
  return to;
}

bool ReadMetadataBlock(absl::Span<const char> bytes, const MetadataLimits& limits, Metadata& metadata,
                       absl::Status& refused) {
  MetadataReader reader(limits, metadata, refused);
  Fields fields(bytes);
  while (fields.Next()) {
    if (fields.tag() == Tag(1, kLengthDelimited) && !reader.Entry(fields.bytes())) return false;
  }
  return fields.ok();
}

size_t MetadataBlockBytes(const Metadata& metadata) { return EntriesBytes(metadata.entries()); }

char* WriteMetadataBlock(char* to, const Metadata& metadata) { return WriteEntries(to, 1, metadata.entries()); }

bool ReadEndHead(absl::Span<const char> bytes, const MetadataLimits& limits, EndHead& head) {
  MetadataReader trailers(limits, head.trailers, head.refused);
  uint64_t code = 0;
  absl::string_view message;
  std::vector<std::pair<absl::string_view, absl::string_view>> details;
  Fields fields(bytes);
  while (fields.Next()) {
    switch (fields.tag()) {
      case Tag(1, kVarint):
        code = fields.number();
        break;
      case Tag(2, kLengthDelimited):
        message = fields.text();
        break;
      case Tag(3, kLengthDelimited): {
        absl::string_view type_url, value;
        Fields detail(fields.bytes());
        while (detail.Next()) {
          if (detail.tag() == Tag(1, kLengthDelimited)) type_url = detail.text();
          if (detail.tag() == Tag(2, kLengthDelimited)) value = detail.text();
        }
        if (!detail.ok()) return false;
        // Setting a payload looks through those that are there; a stranger's thousands would cost millions of steps.
        if (details.size() < static_cast<size_t>(limits.entries_max)) details.emplace_back(type_url, value);
        break;
      }
      case Tag(4, kLengthDelimited):
        if (!trailers.Entry(fields.bytes())) return false;
        break;
      default:
        break;
    }
  }
  if (!fields.ok()) return false;
  head.status = MakeStatus(code, message);
  for (const auto& [type_url, value] : details) {
    if (Travels(type_url)) head.status.SetPayload(type_url, absl::Cord(value));
  }
  return true;
}

std::string MakeEndHead(const absl::Status& status, const Metadata* trailers) {
  std::string head;
  if (!status.ok()) {
    AppendNumber(head, 1, static_cast<uint64_t>(status.code()));
    if (!status.message().empty()) AppendBytes(head, 2, status.message());
    // A status shows its payloads in an order that depends on where they lie in memory.
    std::vector<std::pair<std::string, std::string>> details;
    status.ForEachPayload([&details](absl::string_view type_url, const absl::Cord& value) {
      if (Travels(type_url)) details.emplace_back(std::string(type_url), std::string(value));
    });
    std::sort(details.begin(), details.end());
    for (const auto& [type_url, value] : details) {
      std::string detail;
      AppendBytes(detail, 1, type_url);
      AppendBytes(detail, 2, value);
      AppendBytes(head, 3, detail);
    }
  }
  if (trailers != nullptr && !trailers->empty()) {
    const size_t at = head.size();
    head.resize(at + EntriesBytes(trailers->entries()));
    WriteEntries(&head[at], 4, trailers->entries());
  }
  return head;
}

bool ReadReset(absl::Span<const char> bytes, Reset& reset) {
  uint64_t code = 0;
  absl::string_view message;
  Fields fields(bytes);
  while (fields.Next()) {
    if (fields.tag() == Tag(1, kVarint)) code = fields.number();
    if (fields.tag() == Tag(2, kLengthDelimited)) message = fields.text();
    if (fields.tag() == Tag(3, kVarint)) reset.not_started = fields.number() != 0;
  }
  if (!fields.ok()) return false;
  // A call that was reset did not end well, whatever the peer says.
  reset.status = MakeStatus(code == 0 ? static_cast<uint64_t>(absl::StatusCode::kUnknown) : code, message);
  return true;
}

std::string MakeReset(const absl::Status& status, bool not_started) {
  std::string payload;
  AppendNumber(payload, 1, static_cast<uint64_t>(status.ok() ? absl::StatusCode::kCancelled : status.code()));
  if (!status.message().empty()) AppendBytes(payload, 2, status.message());
  if (not_started) AppendNumber(payload, 3, 1);
  return payload;
}

bool ReadCredit(absl::Span<const char> bytes, uint64_t& credit) {
  credit = 0;
  Fields fields(bytes);
  while (fields.Next()) {
    if (fields.tag() == Tag(1, kVarint)) credit = fields.number();
  }
  return fields.ok();
}

char* WriteCredit(char* to, uint32_t credit) { return WriteNumber(to, 1, credit); }

bool ReadPing(absl::Span<const char> bytes, uint64_t& opaque) {
  opaque = 0;
  Fields fields(bytes);
  while (fields.Next()) {
    if (fields.tag() == Tag(1, kFixed64)) opaque = fields.number();
  }
  return fields.ok();
}

void WritePing(char* to, uint64_t opaque) {
  *to = static_cast<char>(Tag(1, kFixed64));
  Store32(to + 1, static_cast<uint32_t>(opaque));
  Store32(to + 5, static_cast<uint32_t>(opaque >> 32));
}

bool ReadGoAway(absl::Span<const char> bytes, GoAway& go_away) {
  uint64_t last = 0, code = 0;
  absl::string_view message;
  Fields fields(bytes);
  while (fields.Next()) {
    if (fields.tag() == Tag(1, kVarint)) last = fields.number();
    if (fields.tag() == Tag(2, kVarint)) code = fields.number();
    if (fields.tag() == Tag(3, kLengthDelimited)) message = fields.text();
  }
  if (!fields.ok() || last > UINT32_MAX) return false;
  go_away.last = static_cast<uint32_t>(last);
  go_away.status = MakeStatus(code, message);
  return true;
}

std::string MakeGoAway(uint32_t last, const absl::Status& status) {
  std::string payload;
  if (last != 0) AppendNumber(payload, 1, last);
  if (!status.ok()) {
    AppendNumber(payload, 2, static_cast<uint64_t>(status.code()));
    if (!status.message().empty()) AppendBytes(payload, 3, status.message());
  }
  return payload;
}

}  // namespace troupe::native
