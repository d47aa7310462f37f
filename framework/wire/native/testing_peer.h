// For tests of the native wire: bytes spelled frame by frame, and an end of a connection that speaks it.
//
// FrameBytes  builds what a peer sends, right or wrong: FrameBytes().Preface().Call(1, "/a.B/C", "hello").Reset(1).
// CodecEnd    see wire/testing_end.h.
#ifndef TROUPE_WIRE_NATIVE_TESTING_PEER_H_
#define TROUPE_WIRE_NATIVE_TESTING_PEER_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "troupe/rpc/metadata.h"
#include "troupe/wire/codec.h"
#include "troupe/wire/native/codec.h"
#include "troupe/wire/native/frame.h"
#include "troupe/wire/testing_end.h"

namespace troupe::native {

inline CodecOptions Server() { return {}; }
inline CodecOptions Client() {
  CodecOptions options;
  options.client = true;
  return options;
}

class FrameBytes {
 public:
  const std::string& str() const { return bytes_; }
  operator absl::Span<const char>() const { return absl::MakeConstSpan(bytes_); }

  FrameBytes& Raw(absl::string_view bytes);
  FrameBytes& Hex(absl::string_view hex);
  // Magic, version 1 and these features.
  FrameBytes& Preface(const std::vector<std::pair<FeatureId, uint32_t>>& features = {});
  FrameBytes& Frame(FrameType type, uint8_t flags, uint32_t id, absl::string_view payload);
  // A whole call: head, one message, half-close. `path` empty: uses the number. `method` < 0: not numbered.
  FrameBytes& Call(uint32_t id, int method, absl::string_view path, absl::string_view message);
  // The opening alone.
  FrameBytes& Open(uint32_t id, int method, absl::string_view path, const Metadata& metadata = {},
                   uint8_t more_flags = 0);
  FrameBytes& Message(uint32_t id, absl::string_view message, uint8_t more_flags = 0);
  // Pieces of a message of `total` bytes: the first, and the others.
  FrameBytes& First(uint32_t id, size_t total, absl::string_view piece);
  FrameBytes& Next(uint32_t id, absl::string_view piece, bool last, uint8_t more_flags = 0);
  FrameBytes& HalfClose(uint32_t id) { return Frame(FrameType::kMessage, kFlagClose, id, ""); }
  FrameBytes& End(uint32_t id, const absl::Status& status, const Metadata& trailers = {});
  FrameBytes& Reply(uint32_t id, absl::string_view message);
  FrameBytes& InitialMetadata(uint32_t id, const Metadata& metadata);
  FrameBytes& Reset(uint32_t id, const absl::Status& status, bool not_started = false);
  FrameBytes& Credit(uint32_t id, uint32_t bytes);
  FrameBytes& Ping(uint64_t opaque, uint8_t flags = 0);
  FrameBytes& GoAway(uint32_t last, const absl::Status& status = absl::OkStatus());

 private:
  std::string bytes_;
};

// One line a frame; the preface is a line of its own. Messages are shown when short and printable.
std::vector<std::string> Describe(absl::string_view bytes);

class CodecEnd final : public wire_testing::CodecEnd {
 public:
  explicit CodecEnd(const CodecOptions& options) : codec_(WithCounters(options), *this) {}

  NativeCodec& codec() override { return codec_; }
  // What stands in output(), taken out, as lines, without the preface.
  std::vector<std::string> TakeFrames();

 private:
  NativeCodec codec_;
};

using wire_testing::Encoded;
using wire_testing::Exchange;
using wire_testing::Lines;
using wire_testing::Value;

}  // namespace troupe::native

namespace troupe {

// Puts a codec where it cannot be brought otherwise.
class NativeCodecTestPeer {
 public:
  static void SetNextId(NativeCodec& codec, CallId id) { codec.next_id_ = id; }
  static void SetLastPeerId(NativeCodec& codec, CallId id) { codec.last_peer_id_ = id; }
  static uint32_t ReceiveCredit(const NativeCodec& codec) { return codec.receive_credit_; }
  // How many calls stand in line to have a large message assembled.
  static size_t AssemblyLine(NativeCodec& codec) {
    size_t count = 0;
    for (const auto& call : codec.assembly_line_) count += call.assembling ? 1 : 1'000'000;
    return count;
  }
  static uint32_t SendCredit(const NativeCodec& codec) { return codec.send_credit_; }
};

}  // namespace troupe

#endif  // TROUPE_WIRE_NATIVE_TESTING_PEER_H_
