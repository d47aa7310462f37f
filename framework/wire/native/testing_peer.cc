#include "troupe/wire/native/testing_peer.h"

#include <algorithm>
#include <cctype>

#include "absl/strings/cord.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace troupe::native {
namespace {

using wire_testing::Shown;

constexpr MetadataLimits kNoLimits = {1 << 20, 1 << 20};

std::string DescribeFrame(const FrameHeader& header, absl::Span<const char> payload) {
  static constexpr const char* kNames[] = {"?0",    "CALL",   "MESSAGE", "END",   "METADATA",
                                           "RESET", "CREDIT", "PING",    "GOAWAY"};
  const auto type = static_cast<uint8_t>(header.type);
  std::string text = type < std::size(kNames) ? kNames[type] : absl::StrCat("?", type);
  if (header.id != 0) absl::StrAppend(&text, " ", header.id);
  const bool message_type =
      header.type == FrameType::kCall || header.type == FrameType::kMessage || header.type == FrameType::kEnd;
  if (message_type) {
    if (header.flags & kFlagHead) {
      uint64_t size = 0;
      if (!ReadVarint(payload, size) || size > payload.size()) return text + " malformed";
      const absl::Span<const char> head = payload.subspan(0, size);
      payload.remove_prefix(size);
      if (header.type == FrameType::kCall) {
        CallHead call;
        if (!ReadCallHead(head, kNoLimits, call)) return text + " malformed";
        if (call.has_method) absl::StrAppend(&text, " method=", call.method);
        if (!call.path.empty()) absl::StrAppend(&text, " path=", call.path);
        if (call.timeout != absl::InfiniteDuration()) {
          absl::StrAppend(&text, " timeout=", absl::FormatDuration(call.timeout));
        }
        absl::StrAppend(&text, Shown(call.metadata));
      } else {
        EndHead end;
        if (!ReadEndHead(head, kNoLimits, end)) return text + " malformed";
        absl::StrAppend(&text, " ", Shown(end.status), Shown(end.trailers));
      }
    }
    if ((header.flags & kFlagBegin) && (header.flags & kFlagMore)) {
      uint64_t total = 0;
      if (!ReadVarint(payload, total)) return text + " malformed";
      absl::StrAppend(&text, " first of ", total, ":");
    } else if (header.flags & kFlagBegin) {
      text += " whole:";
    } else if (header.flags & kFlagMore) {
      text += " piece:";
    } else if (!payload.empty()) {
      text += " last piece:";
    }
    if ((header.flags & (kFlagBegin | kFlagMore)) || !payload.empty()) absl::StrAppend(&text, " ", Shown(payload));
    if (header.flags & kFlagClose) text += " close";
    return text;
  }
  switch (header.type) {
    case FrameType::kMetadata: {
      Metadata metadata;
      absl::Status refused;
      if (!ReadMetadataBlock(payload, kNoLimits, metadata, refused)) return text + " malformed";
      return text + Shown(metadata);
    }
    case FrameType::kReset: {
      native::Reset reset;
      if (!ReadReset(payload, reset)) return text + " malformed";
      if (reset.not_started) reset.status.SetPayload(kNotStartedPayload, absl::Cord());
      return absl::StrCat(text, " ", Shown(reset.status));
    }
    case FrameType::kCredit: {
      uint64_t credit = 0;
      if (!ReadCredit(payload, credit)) return text + " malformed";
      return absl::StrCat(text, " ", credit);
    }
    case FrameType::kPing: {
      uint64_t opaque = 0;
      if (!ReadPing(payload, opaque)) return text + " malformed";
      return absl::StrCat(text, header.flags & kFlagAck ? " ack " : " ", opaque);
    }
    case FrameType::kGoAway: {
      native::GoAway go_away;
      if (!ReadGoAway(payload, go_away)) return text + " malformed";
      return absl::StrCat(text, " ", go_away.last, " ", Shown(go_away.status));
    }
    default:
      return absl::StrCat(text, " ", Shown(payload));
  }
}

}  // namespace

FrameBytes& FrameBytes::Raw(absl::string_view bytes) {
  absl::StrAppend(&bytes_, bytes);
  return *this;
}

FrameBytes& FrameBytes::Hex(absl::string_view hex) { return Raw(absl::HexStringToBytes(hex)); }

FrameBytes& FrameBytes::Preface(const std::vector<std::pair<FeatureId, uint32_t>>& features) {
  char header[kPrefaceHeaderBytes] = {'\xF1', 'T', 'R', 'P', 1, 0};
  Store16(header + 6, static_cast<uint16_t>(8 * features.size()));
  Raw(absl::string_view(header, sizeof(header)));
  for (const auto& [id, value] : features) {
    char record[8];
    Store16(record, static_cast<uint16_t>(id));
    Store16(record + 2, 4);
    Store32(record + 4, value);
    Raw(absl::string_view(record, sizeof(record)));
  }
  return *this;
}

FrameBytes& FrameBytes::Frame(FrameType type, uint8_t flags, uint32_t id, absl::string_view payload) {
  char header[kFrameHeaderBytes];
  WriteFrameHeader(header, payload.size(), type, flags, id);
  return Raw(absl::string_view(header, sizeof(header))).Raw(payload);
}

namespace {

std::string CallPayload(int method, absl::string_view path, const Metadata& metadata, absl::string_view message) {
  const size_t size = CallHeadBytes(method, path, absl::InfiniteDuration(), &metadata);
  std::string payload(VarintBytes(size) + size, '\0');
  WriteCallHead(WriteVarint(payload.data(), size), method, path, absl::InfiniteDuration(), &metadata);
  return absl::StrCat(payload, message);
}

}  // namespace

FrameBytes& FrameBytes::Call(uint32_t id, int method, absl::string_view path, absl::string_view message) {
  return Frame(FrameType::kCall, kFlagHead | kFlagBegin | kFlagClose, id, CallPayload(method, path, {}, message));
}

FrameBytes& FrameBytes::Open(uint32_t id, int method, absl::string_view path, const Metadata& metadata,
                             uint8_t more_flags) {
  return Frame(FrameType::kCall, kFlagHead | more_flags, id, CallPayload(method, path, metadata, ""));
}

FrameBytes& FrameBytes::Message(uint32_t id, absl::string_view message, uint8_t more_flags) {
  return Frame(FrameType::kMessage, kFlagBegin | more_flags, id, message);
}

FrameBytes& FrameBytes::First(uint32_t id, size_t total, absl::string_view piece) {
  char length[10];
  const size_t size = WriteVarint(length, total) - length;
  return Frame(FrameType::kMessage, kFlagBegin | kFlagMore, id, absl::StrCat(absl::string_view(length, size), piece));
}

FrameBytes& FrameBytes::Next(uint32_t id, absl::string_view piece, bool last, uint8_t more_flags) {
  return Frame(FrameType::kMessage, (last ? 0 : kFlagMore) | more_flags, id, piece);
}

FrameBytes& FrameBytes::End(uint32_t id, const absl::Status& status, const Metadata& trailers) {
  if (status.ok() && trailers.empty()) return Frame(FrameType::kEnd, 0, id, "");
  const std::string head = MakeEndHead(status, &trailers);
  std::string payload(VarintBytes(head.size()), '\0');
  WriteVarint(payload.data(), head.size());
  return Frame(FrameType::kEnd, kFlagHead, id, payload + head);
}

FrameBytes& FrameBytes::Reply(uint32_t id, absl::string_view message) {
  return Frame(FrameType::kEnd, kFlagBegin, id, message);
}

FrameBytes& FrameBytes::InitialMetadata(uint32_t id, const Metadata& metadata) {
  std::string payload(MetadataBlockBytes(metadata), '\0');
  WriteMetadataBlock(payload.data(), metadata);
  return Frame(FrameType::kMetadata, 0, id, payload);
}

FrameBytes& FrameBytes::Reset(uint32_t id, const absl::Status& status, bool not_started) {
  return Frame(FrameType::kReset, 0, id, MakeReset(status, not_started));
}

FrameBytes& FrameBytes::Credit(uint32_t id, uint32_t bytes) {
  char payload[kCreditBytesMax];
  const size_t size = WriteCredit(payload, bytes) - payload;
  return Frame(FrameType::kCredit, 0, id, absl::string_view(payload, size));
}

FrameBytes& FrameBytes::Ping(uint64_t opaque, uint8_t flags) {
  char payload[kPingBytes];
  WritePing(payload, opaque);
  return Frame(FrameType::kPing, flags, 0, absl::string_view(payload, sizeof(payload)));
}

FrameBytes& FrameBytes::GoAway(uint32_t last, const absl::Status& status) {
  return Frame(FrameType::kGoAway, 0, 0, MakeGoAway(last, status));
}

std::vector<std::string> Describe(absl::string_view bytes) {
  std::vector<std::string> lines;
  if (bytes.size() >= kPrefaceHeaderBytes && bytes[0] == '\xF1') {
    const size_t features = Load16(bytes.data() + 6);
    lines.push_back(absl::StrCat("PREFACE ", absl::BytesToHexString(bytes.substr(8, features))));
    bytes.remove_prefix(std::min(bytes.size(), kPrefaceHeaderBytes + features));
  }
  while (!bytes.empty()) {
    if (bytes.size() < kFrameHeaderBytes) {
      lines.push_back("incomplete header");
      break;
    }
    const FrameHeader header = ReadFrameHeader(bytes.data());
    bytes.remove_prefix(kFrameHeaderBytes);
    if (bytes.size() < header.length) {
      lines.push_back("incomplete frame");
      break;
    }
    lines.push_back(DescribeFrame(header, absl::MakeConstSpan(bytes.data(), header.length)));
    bytes.remove_prefix(header.length);
  }
  return lines;
}

std::vector<std::string> CodecEnd::TakeFrames() {
  std::vector<std::string> lines = Describe(TakeOutput());
  if (!lines.empty() && absl::string_view(lines[0]).substr(0, 7) == "PREFACE") lines.erase(lines.begin());
  return lines;
}

}  // namespace troupe::native
