// For tests of the native wire: bytes spelled frame by frame, and a codec with someone at it who writes down what
// happens.
//
// FrameBytes  builds what a peer sends, right or wrong: FrameBytes().Preface().Call(1, "/a.B/C", "hello").Reset(1).
// CodecEnd    one end of a connection: a codec, events that become lines of text, and for a server what it answers.
// Exchange    carries the bytes of two ends to each other until neither has anything to say.
#ifndef TROUPE_WIRE_NATIVE_TESTING_PEER_H_
#define TROUPE_WIRE_NATIVE_TESTING_PEER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "google/protobuf/wrappers.pb.h"
#include "troupe/rpc/metadata.h"
#include "troupe/wire/codec.h"
#include "troupe/wire/native/codec.h"
#include "troupe/wire/native/frame.h"

namespace troupe::native {

using Lines = std::vector<std::string>;

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

// A message whose bytes are easily told: BytesValue holds its `value` behind two or more bytes of its own.
google::protobuf::BytesValue Value(absl::string_view value);
// How a BytesValue of this value looks on the wire.
std::string Encoded(absl::string_view value);

class CodecEnd final : public CodecEvents {
 public:
  // Every path but "/unknown/..." is known.
  explicit CodecEnd(const CodecOptions& options);
  ~CodecEnd();

  NativeCodec& codec() { return codec_; }
  WireCounters& counters() { return counters_; }

  absl::Status Receive(absl::Span<const char> bytes) { return codec_.Receive(bytes); }
  // What stands in output(), taken out.
  std::string TakeOutput();
  // The same as lines, without the preface.
  std::vector<std::string> TakeFrames();
  // Lines since the last time.
  std::vector<std::string> TakeLog() { return std::exchange(log_, {}); }
  absl::string_view last_line() const { return log_.empty() ? absl::string_view() : log_.back(); }
  void Log(std::string line) { log_.push_back(std::move(line)); }

  // Calls of ours. `path` is kept for the codec.
  CallId Start(absl::string_view path, const google::protobuf::MessageLite* message = nullptr,
               const Metadata* metadata = nullptr, absl::Duration timeout = absl::InfiniteDuration());
  absl::StatusOr<CallId> TryStart(absl::string_view path, const google::protobuf::MessageLite* message = nullptr,
                                  const Metadata* metadata = nullptr,
                                  absl::Duration timeout = absl::InfiniteDuration());

  // When set, what happens instead of, or after, the line that is written.
  std::function<void(IncomingCall&)> on_call;
  std::function<void(CallId, absl::Span<const char>, size_t)> on_message;
  std::function<void(CallId)> on_metadata;
  std::function<void(CallId)> on_half_close;
  std::function<void(CallId)> on_send_room;
  std::function<void(CallId)> on_over;  // ended or reset
  std::function<void()> on_call_room;
  bool consume = true;  // give credit back at once
  bool listen = true;   // OnCall returns someone who hears
  bool log_messages = true;
  std::map<CallId, size_t> unconsumed;  // when not `consume`

  // CodecEvents
  const void* FindMethod(absl::string_view path) override;
  CallEvents* OnCall(IncomingCall& call) override;
  void OnGoAway(CallId last, absl::Status why) override;
  void OnPong(uint64_t opaque) override;
  void OnCallRoom() override;

 private:
  struct Listener;
  Listener* Listen(CallId id);

  WireCounters counters_;
  std::set<std::string> paths_;
  std::map<CallId, std::unique_ptr<Listener>> listeners_;
  std::vector<std::string> log_;
  NativeCodec codec_;
};

// In pieces of at most `piece` bytes. OK, or the first error; the other direction still gets the farewell.
absl::Status Exchange(CodecEnd& a, CodecEnd& b, size_t piece = SIZE_MAX);

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
