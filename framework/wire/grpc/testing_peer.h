// For tests of gRPC's wire: bytes spelled frame by frame, and an end of a connection that speaks it.
//
// H2Bytes   builds what a peer sends, right or wrong: H2Bytes().Preface().Settings().Request(1, "/a.B/C").Data(1, ...).
//           Header blocks use no compression, so that every byte can be told.
// CodecEnd  see wire/testing_end.h.
#ifndef TROUPE_WIRE_GRPC_TESTING_PEER_H_
#define TROUPE_WIRE_GRPC_TESTING_PEER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "troupe/wire/codec.h"
#include "troupe/wire/grpc/codec.h"
#include "troupe/wire/testing_end.h"

namespace troupe::grpc_wire {

using HeaderFields = std::vector<std::pair<std::string, std::string>>;

enum Http2FrameType : uint8_t {
  kDataFrame = 0,
  kHeadersFrame = 1,
  kPriorityFrame = 2,
  kResetFrame = 3,
  kSettingsFrame = 4,
  kPushPromiseFrame = 5,
  kPingFrame = 6,
  kGoAwayFrame = 7,
  kWindowUpdateFrame = 8,
  kContinuationFrame = 9,
};
inline constexpr uint8_t kEndStream = 1;
inline constexpr uint8_t kEndHeaders = 4;
inline constexpr uint8_t kPadded = 8;
inline constexpr uint8_t kAckFlag = 1;

// Literal fields without indexing (RFC 7541, section 6.2.2).
std::string HeaderBlock(const HeaderFields& fields);
// What the first block of a connection says.
HeaderFields FieldsOf(absl::string_view block);
// A message with its head of five bytes.
std::string Framed(absl::string_view message, bool packed = false);
HeaderFields RequestFields(absl::string_view path, const HeaderFields& more = {});

class H2Bytes {
 public:
  const std::string& str() const { return bytes_; }
  operator absl::Span<const char>() const { return absl::MakeConstSpan(bytes_); }

  H2Bytes& Raw(absl::string_view bytes);
  H2Bytes& Preface() { return Raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"); }
  H2Bytes& Frame(uint8_t type, uint8_t flags, uint32_t id, absl::string_view payload);
  H2Bytes& Settings(const std::vector<std::pair<uint16_t, uint32_t>>& entries = {});
  H2Bytes& SettingsAck() { return Frame(kSettingsFrame, kAckFlag, 0, ""); }
  H2Bytes& Headers(uint32_t id, const HeaderFields& fields, uint8_t more_flags = 0) {
    return Frame(kHeadersFrame, static_cast<uint8_t>(kEndHeaders | more_flags), id, HeaderBlock(fields));
  }
  H2Bytes& Request(uint32_t id, absl::string_view path, const HeaderFields& more = {}, uint8_t more_flags = 0) {
    return Headers(id, RequestFields(path, more), more_flags);
  }
  // A whole call.
  H2Bytes& Call(uint32_t id, absl::string_view path, absl::string_view message) {
    return Request(id, path).Data(id, Framed(message), kEndStream);
  }
  H2Bytes& Data(uint32_t id, absl::string_view bytes, uint8_t flags = 0) { return Frame(kDataFrame, flags, id, bytes); }
  H2Bytes& PaddedData(uint32_t id, absl::string_view bytes, size_t padding, uint8_t flags = 0);
  H2Bytes& Reset(uint32_t id, uint32_t error);
  H2Bytes& Ping(uint64_t opaque, uint8_t flags = 0);
  H2Bytes& GoAway(uint32_t last, uint32_t error, absl::string_view debug = "");
  H2Bytes& WindowUpdate(uint32_t id, uint32_t bytes);

 private:
  std::string bytes_;
};

// A frame that a codec sent.
struct SentFrame {
  uint8_t type;
  uint8_t flags;
  uint32_t id;
  std::string payload;
};
// The client's magic is left out.
std::vector<SentFrame> FramesOf(absl::string_view bytes);

class CodecEnd final : public wire_testing::CodecEnd {
 public:
  explicit CodecEnd(const CodecOptions& options) : codec_(WithCounters(options), {.authority = "kv.test"}, *this) {}

  GrpcCodec& codec() override { return codec_; }
  std::vector<SentFrame> TakeFrames() { return FramesOf(TakeOutput()); }

 private:
  GrpcCodec codec_;
};

}  // namespace troupe::grpc_wire

#endif  // TROUPE_WIRE_GRPC_TESTING_PEER_H_
