// The codec of gRPC against a stranger's bytes: it must never read or hold what it may not, and tell its session of no
// call twice or too late. What it hears may depend on how the bytes are cut: an answer may be under way between two
// pieces.
//
// The first byte says which end reads, and how its session behaves; the second how the bytes are cut; the rest are the
// peer's, preface included.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "google/protobuf/wrappers.pb.h"
#include "testing/fuzz/fuzz.h"
#include "troupe/wire/codec.h"
#include "troupe/wire/grpc/codec.h"

namespace troupe {
namespace {

constexpr size_t kMessageMax = 100000;
constexpr uint32_t kCallsMax = 8;

class End final : public CodecEvents {
 public:
  explicit End(uint8_t behaviour)
      : reads_(behaviour & 2),
        answers_(behaviour & 4),
        resets_(behaviour & 8),
        codec_(Options(behaviour), {.authority = "fuzz"}, *this) {
    if ((behaviour & 17) == 17) {
      google::protobuf::BytesValue message;
      message.set_value(std::string(30000, 'm'));
      for (const char* path : {"/a", "/b", "/a"}) {
        auto listener = std::make_unique<Listener>(*this);
        OutgoingCall call;
        call.path = path;
        call.message = path[1] == 'a' ? &message : nullptr;
        const absl::StatusOr<CallId> id = codec_.StartCall(call, *listener);
        REQUIRE(id.ok());
        listener->id = *id;
        listeners_[*id] = std::move(listener);
      }
      static_cast<void>(codec_.SendMessage(3, message));
    }
  }

  absl::Status Receive(absl::Span<const char> bytes) {
    absl::Status status = codec_.Receive(bytes);
    // What each call was granted, large messages in assembly, and what we send.
    constexpr size_t kMost = (kCallsMax + 3) * ((64 << 10) + 1024) + 4 * kMessageMax + 1000000;
    REQUIRE(codec_.held_bytes() <= kMost);
    REQUIRE(codec_.open_calls() <= kCallsMax + 3);
    return status;
  }
  std::string TakeOutput() {
    std::string bytes = codec_.output().ToString();
    codec_.output().Clear();
    return bytes;
  }
  void Abandon() {
    codec_.Abandon(absl::UnavailableError("gone"));
    REQUIRE(codec_.open_calls() == 0);
    REQUIRE(codec_.held_bytes() == 0);
  }

 private:
  struct Listener final : CallEvents {
    explicit Listener(End& end) : end(end) {}
    void OnInitialMetadata(Metadata) override { Live(); }
    void OnMessage(absl::Span<const char> message, size_t charged) override {
      Live();
      REQUIRE(message.size() <= kMessageMax);
      REQUIRE(charged >= 5);
      if (end.reads_) end.codec_.Consumed(id, charged);
      if (end.resets_) {
        over = true;
        end.codec_.Reset(id, absl::AbortedError("no"));
      }
    }
    void OnHalfClose() override {
      Live();
      if (end.answers_) {
        // Once answered, room for what waits is all that may be heard.
        end.codec_.SendReply(id, nullptr, absl::OkStatus(), nullptr);
        answered = true;
      }
    }
    void OnEnd(absl::Status, Metadata) override {
      Live();
      over = true;
    }
    void OnReset(absl::Status) override {
      REQUIRE(!over);
      over = true;
    }
    void OnSendRoom() override { REQUIRE(!over); }
    void Live() { REQUIRE(!over && !answered); }
    End& end;
    CallId id = 0;
    bool over = false;
    bool answered = false;
  };

  static CodecOptions Options(uint8_t behaviour) {
    CodecOptions options;
    options.client = behaviour & 1;
    options.message_bytes_max = kMessageMax;
    options.calls_max = kCallsMax;
    return options;
  }

  const void* FindMethod(absl::string_view path) override { return path.size() % 2 == 0 ? this : nullptr; }
  CallEvents* OnCall(IncomingCall& call) override {
    REQUIRE(call.message.size() <= kMessageMax);
    auto listener = std::make_unique<Listener>(*this);
    listener->id = call.id;
    CallEvents* events = listener.get();
    REQUIRE(listeners_.emplace(call.id, std::move(listener)).second);
    if (call.complete && answers_) {
      google::protobuf::BytesValue reply;
      reply.set_value(std::string(call.message.size(), 'r'));
      codec_.SendReply(call.id, &reply, absl::OkStatus(), nullptr);
      static_cast<Listener*>(events)->answered = true;
    }
    return events;
  }
  void OnGoAway(CallId, absl::Status) override {}
  void OnPong(uint64_t) override {}
  void OnCallRoom() override {}

  const bool reads_, answers_, resets_;
  std::map<CallId, std::unique_ptr<Listener>> listeners_;
  GrpcCodec codec_;
};

}  // namespace
}  // namespace troupe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const auto bytes = absl::MakeConstSpan(reinterpret_cast<const char*>(data) + 2, size - 2);
  troupe::End whole(data[0]), cut(data[0]);
  // In one piece, in memory of its own so that a sanitizer sees what is read behind it.
  const std::vector<char> copy(bytes.begin(), bytes.end());
  static_cast<void>(whole.Receive(absl::MakeConstSpan(copy)));
  const size_t piece = data[1] % 64 + 1;
  absl::Status cut_status;
  for (size_t at = 0; at < bytes.size() && cut_status.ok(); at += piece) {
    const std::vector<char> part(bytes.begin() + at, bytes.begin() + std::min(at + piece, bytes.size()));
    cut_status = cut.Receive(absl::MakeConstSpan(part));
    if (data[1] & 64) cut.TakeOutput();
  }
  whole.Abandon();
  cut.Abandon();
  return 0;
}
