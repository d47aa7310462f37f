// For tests of wires: one end of a connection, with someone at it who writes down what happens.
//
// CodecEnd  a codec, events that become lines of text, and for a server what it answers.
// Exchange  carries the bytes of two ends to each other until neither has anything to say.
#ifndef TROUPE_WIRE_TESTING_END_H_
#define TROUPE_WIRE_TESTING_END_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "google/protobuf/message_lite.h"
#include "google/protobuf/wrappers.pb.h"
#include "troupe/rpc/metadata.h"
#include "troupe/wire/codec.h"
#include "troupe/wire/counters.h"

namespace troupe::wire_testing {

using Lines = std::vector<std::string>;

std::string Shown(absl::string_view bytes);
std::string Shown(absl::Span<const char> bytes);
std::string Shown(const Metadata& metadata);
std::string Shown(const absl::Status& status);

// A message whose bytes are easily told: BytesValue holds its `value` behind two or more bytes of its own.
google::protobuf::BytesValue Value(absl::string_view value);
// How a BytesValue of this value looks on the wire.
std::string Encoded(absl::string_view value);

class CodecEnd : public CodecEvents {
 public:
  // Every path but "/unknown/..." is known.
  CodecEnd();
  virtual ~CodecEnd();

  virtual Codec& codec() = 0;
  WireCounters& counters() { return counters_; }

  absl::Status Receive(absl::Span<const char> bytes) { return codec().Receive(bytes); }
  // What stands in output(), taken out.
  std::string TakeOutput();
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

 protected:
  CodecOptions WithCounters(CodecOptions options) {
    options.counters = &counters_;
    return options;
  }

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
};

// In pieces of at most `piece` bytes. OK, or the first error; the other direction still gets the farewell.
absl::Status Exchange(CodecEnd& a, CodecEnd& b, size_t piece = SIZE_MAX);

}  // namespace troupe::wire_testing

#endif  // TROUPE_WIRE_TESTING_END_H_
