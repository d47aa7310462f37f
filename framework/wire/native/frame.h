// Frames of the native wire: their header, and reading and writing the protobuf messages that they carry, by hand.
//
// FORMAT.md, in this folder, is the specification; protos/troupe/wire/native.proto declares the messages. The hot
// frames (a small call, its reply, credit) must cost no allocation, which generated classes do not promise.
//
// Everything that reads takes bytes of a stranger: it looks at nothing beyond the span and returns false or a status on
// whatever is malformed. Everything that writes has a companion that says how many bytes it will write.
//
// Threading: none; functions and values.
#ifndef TROUPE_WIRE_NATIVE_FRAME_H_
#define TROUPE_WIRE_NATIVE_FRAME_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "troupe/rpc/metadata.h"

namespace troupe::native {

inline constexpr unsigned char kMagic[4] = {0xF1, 'T', 'R', 'P'};
inline constexpr uint8_t kVersion = 1;
inline constexpr size_t kPrefaceHeaderBytes = 8;  // magic, version, zero, u16 length of the features
inline constexpr size_t kFeatureBytesMax = 1024;

inline constexpr size_t kFrameHeaderBytes = 8;
inline constexpr size_t kFramePayloadMax = 64 << 10;
// A message of at most this size travels in one frame; larger ones in pieces of it, between which others may pass.
inline constexpr size_t kPieceBytes = 16 << 10;

// What holds until the peer's features have been read, and the least that features may say of credit.
inline constexpr uint32_t kBaselineCallCredit = 64 << 10;
inline constexpr uint32_t kBaselineConnectionCredit = 256 << 10;
inline constexpr uint32_t kBaselineCalls = 100;
inline constexpr uint32_t kCreditMax = (uint32_t{1} << 31) - 1;
// What a message costs in credit beyond its bytes, so that empty ones are not free to hold.
inline constexpr uint32_t kMessageCost = 32;
inline constexpr uint32_t kMethodsMax = 4096;
inline constexpr size_t kPathBytesMax = 1024;

enum class FeatureId : uint16_t {
  kCallCreditBytes = 1,
  kConnectionCreditBytes = 2,
  kCallsMax = 3,
  kMessageBytesMax = 4,
  kMetadataBytesMax = 5,
};
// A record whose id has this bit must be understood, or the connection refused.
inline constexpr uint16_t kFeatureMustBeKnown = 0x8000;

enum class FrameType : uint8_t {
  kCall = 1,      // opens a call; head, perhaps a message
  kMessage = 2,   // of an open call, or a piece of one; perhaps the half-close
  kEnd = 3,       // the call's status; perhaps a head, perhaps the last message
  kMetadata = 4,  // initial metadata of the serving end
  kReset = 5,     // the call is over in both directions
  kCredit = 6,
  kPing = 7,
  kGoAway = 8,
};
inline constexpr uint8_t kTypeMask = 0x0F;

// Flags of CALL, MESSAGE and END.
inline constexpr uint8_t kFlagBegin = 0x10;  // a message begins in this frame
inline constexpr uint8_t kFlagMore = 0x20;   // and is not complete with it; with kFlagBegin its length stands first
inline constexpr uint8_t kFlagClose = 0x40;  // the calling end sends no more messages
inline constexpr uint8_t kFlagHead = 0x80;   // the payload begins with the length of a head and the head
// Flag of PING.
inline constexpr uint8_t kFlagAck = 0x10;

struct FrameHeader {
  uint32_t length = 0;  // of the payload
  FrameType type{};     // may be none of the above
  uint8_t flags = 0;
  uint32_t id = 0;
};

inline uint32_t Load32(const char* at) {
  const auto* p = reinterpret_cast<const unsigned char*>(at);
  return p[0] | p[1] << 8 | p[2] << 16 | static_cast<uint32_t>(p[3]) << 24;
}
inline void Store32(char* to, uint32_t v) {
  for (int i = 0; i < 4; ++i) to[i] = static_cast<char>(v >> 8 * i);
}
inline uint16_t Load16(const char* at) {
  const auto* p = reinterpret_cast<const unsigned char*>(at);
  return static_cast<uint16_t>(p[0] | p[1] << 8);
}
inline void Store16(char* to, uint16_t v) {
  to[0] = static_cast<char>(v);
  to[1] = static_cast<char>(v >> 8);
}

inline FrameHeader ReadFrameHeader(const char* at) {
  const uint32_t first = Load32(at);
  const auto kind = static_cast<uint8_t>(first >> 24);
  return {.length = first & 0xFFFFFF,
          .type = static_cast<FrameType>(kind & kTypeMask),
          .flags = static_cast<uint8_t>(kind & ~kTypeMask),
          .id = Load32(at + 4)};
}
inline void WriteFrameHeader(char* to, size_t length, FrameType type, uint8_t flags, uint32_t id) {
  const uint32_t kind = static_cast<uint8_t>(type) | flags;
  Store32(to, static_cast<uint32_t>(length) | kind << 24);
  Store32(to + 4, id);
}

// ---- varints, as protobuf writes them

inline constexpr size_t VarintBytes(uint64_t v) {
  size_t n = 1;
  for (; v >= 0x80; v >>= 7) ++n;
  return n;
}
inline char* WriteVarint(char* to, uint64_t v) {
  for (; v >= 0x80; v >>= 7) *to++ = static_cast<char>(v | 0x80);
  *to++ = static_cast<char>(v);
  return to;
}
// Takes a varint off the front of `bytes`. False: cut short, longer than ten bytes, or beyond 64 bits.
bool ReadVarintSlow(absl::Span<const char>& bytes, uint64_t& v);
inline bool ReadVarint(absl::Span<const char>& bytes, uint64_t& v) {
  if (!bytes.empty() && static_cast<signed char>(bytes[0]) >= 0) {
    v = static_cast<unsigned char>(bytes[0]);
    bytes.remove_prefix(1);
    return true;
  }
  return ReadVarintSlow(bytes, v);
}

// ---- the messages of native.proto

struct MetadataLimits {
  size_t bytes_max;  // as Metadata::bytes() counts
  int entries_max;
};

// Reading: false is a malformed message, which ends the connection. What is well formed and not acceptable (metadata
// beyond the limits, or with a key that may not be) is said in `refused`, and concerns the call alone.
struct CallHead {
  bool has_method = false;
  uint32_t method = 0;
  absl::string_view path;
  absl::Duration timeout = absl::InfiniteDuration();
  Metadata metadata;
  absl::Status refused;
};
bool ReadCallHead(absl::Span<const char> bytes, const MetadataLimits& limits, CallHead& head);
// `method` < 0: none.
size_t CallHeadBytes(int64_t method, absl::string_view path, absl::Duration timeout, const Metadata* metadata);
char* WriteCallHead(char* to, int64_t method, absl::string_view path, absl::Duration timeout, const Metadata* metadata);

bool ReadMetadataBlock(absl::Span<const char> bytes, const MetadataLimits& limits, Metadata& metadata,
                       absl::Status& refused);
size_t MetadataBlockBytes(const Metadata& metadata);
char* WriteMetadataBlock(char* to, const Metadata& metadata);

struct EndHead {
  absl::Status status;
  Metadata trailers;
  absl::Status refused;
};
bool ReadEndHead(absl::Span<const char> bytes, const MetadataLimits& limits, EndHead& head);
// Of a status, its payloads under type.googleapis.com/ travel; others stay home.
std::string MakeEndHead(const absl::Status& status, const Metadata* trailers);

struct Reset {
  absl::Status status;
  bool not_started = false;
};
bool ReadReset(absl::Span<const char> bytes, Reset& reset);
std::string MakeReset(const absl::Status& status, bool not_started);

bool ReadCredit(absl::Span<const char> bytes, uint64_t& credit);
inline constexpr size_t kCreditBytesMax = 6;
char* WriteCredit(char* to, uint32_t credit);

bool ReadPing(absl::Span<const char> bytes, uint64_t& opaque);
inline constexpr size_t kPingBytes = 9;
void WritePing(char* to, uint64_t opaque);

struct GoAway {
  uint32_t last = 0;
  absl::Status status;
};
bool ReadGoAway(absl::Span<const char> bytes, GoAway& go_away);
std::string MakeGoAway(uint32_t last, const absl::Status& status);

// The code of a peer's status: one that is unknown here is UNKNOWN.
absl::StatusCode StatusCodeOf(uint64_t code);

}  // namespace troupe::native

#endif  // TROUPE_WIRE_NATIVE_FRAME_H_
