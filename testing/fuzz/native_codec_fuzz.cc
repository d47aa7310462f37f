// The native codec against a stranger's bytes: it must never read or hold what it may not, and must hear the same
// however the bytes are cut.
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

#include "absl/strings/str_cat.h"
#include "google/protobuf/wrappers.pb.h"
#include "testing/fuzz/fuzz.h"
#include "troupe/wire/codec.h"
#include "troupe/wire/native/codec.h"
#include "troupe/wire/native/frame.h"

namespace troupe {
namespace {

constexpr size_t kMessageMax = 100000;
constexpr uint32_t kCallsMax = 8;

class End final : public CodecEvents {
 public:
  explicit End(uint8_t behaviour)
      : reads_(behaviour & 2), answers_(behaviour & 4), resets_(behaviour & 8), codec_(Options(behaviour), *this) {
    if (behaviour & 16) {
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
      static_cast<void>(codec_.SendMessage((behaviour & 1) ? 3 : 4, message));
    }
  }

  absl::Status Receive(absl::Span<const char> bytes) {
    absl::Status status = codec_.Receive(bytes);
    // An unfinished frame, what each call was granted, and large messages in assembly.
    const size_t most =
        native::kFramePayloadMax + (kCallsMax + 3) * (native::kBaselineCallCredit + 1024) + 4 * kMessageMax + 200000;
    REQUIRE(codec_.held_bytes() <= most);
    REQUIRE(codec_.open_calls() <= kCallsMax + 3);
    return status;
  }
  std::string TakeOutput() {
    std::string bytes = codec_.output().ToString();
    codec_.output().Clear();
    return bytes;
  }
  const std::string& log() const { return log_; }
  void Abandon() {
    codec_.Abandon(absl::UnavailableError("gone"));
    REQUIRE(codec_.open_calls() == 0);
    REQUIRE(codec_.held_bytes() <= native::kFramePayloadMax);
  }

 private:
  struct Listener final : CallEvents {
    explicit Listener(End& end) : end(end) {}
    void OnInitialMetadata(Metadata metadata) override {
      Live();
      absl::StrAppend(&end.log_, "metadata ", id, " ", metadata.size(), "\n");
    }
    void OnMessage(absl::Span<const char> message, size_t charged) override {
      Live();
      absl::StrAppend(&end.log_, "message ", id, " ", absl::string_view(message.data(), message.size()), "\n");
      REQUIRE(message.size() <= kMessageMax);
      REQUIRE(charged >= message.size());
      if (end.reads_) end.codec_.Consumed(id, charged);
      if (end.resets_) {
        over = true;
        end.codec_.Reset(id, absl::AbortedError("no"));
      }
    }
    void OnHalfClose() override {
      Live();
      absl::StrAppend(&end.log_, "half-close ", id, "\n");
      if (end.answers_) {
        // Once answered, room for what waits is all that may be heard.
        end.codec_.SendReply(id, nullptr, absl::OkStatus(), nullptr);
        answered = true;
      }
    }
    void OnEnd(absl::Status status, Metadata trailers) override {
      Live();
      over = true;
      absl::StrAppend(&end.log_, "end ", id, " ", status.ToString(), " ", trailers.size(), "\n");
    }
    void OnReset(absl::Status why) override {
      REQUIRE(!over);
      over = true;
      absl::StrAppend(&end.log_, "reset ", id, " ", why.ToString(), "\n");
    }
    void OnSendRoom() override {
      REQUIRE(!over);
      absl::StrAppend(&end.log_, "room ", id, "\n");
    }
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

  const void* FindMethod(absl::string_view path) override {
    absl::StrAppend(&log_, "method ", path, "\n");
    return path.size() % 2 == 0 ? this : nullptr;
  }
  CallEvents* OnCall(IncomingCall& call) override {
    absl::StrAppend(&log_, "call ", call.id, " ", call.metadata.size(), " ", absl::FormatDuration(call.timeout), " ",
                    absl::string_view(call.message.data(), call.message.size()), "\n");
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
  void OnGoAway(CallId last, absl::Status why) override {
    absl::StrAppend(&log_, "goaway ", last, " ", why.ToString(), "\n");
  }
  void OnPong(uint64_t opaque) override { absl::StrAppend(&log_, "pong ", opaque, "\n"); }
  void OnCallRoom() override { log_ += "call room\n"; }

  const bool reads_, answers_, resets_;
  std::string log_;
  std::map<CallId, std::unique_ptr<Listener>> listeners_;
  NativeCodec codec_;
};

}  // namespace
}  // namespace troupe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const auto bytes = absl::MakeConstSpan(reinterpret_cast<const char*>(data) + 2, size - 2);
  troupe::End whole(data[0]), cut(data[0]);
  // In one piece, in memory of its own so that a sanitizer sees what is read behind it.
  const std::vector<char> copy(bytes.begin(), bytes.end());
  const absl::Status status = whole.Receive(absl::MakeConstSpan(copy));
  const size_t piece = data[1] % 64 + 1;
  absl::Status cut_status;
  for (size_t at = 0; at < bytes.size() && cut_status.ok(); at += piece) {
    const std::vector<char> part(bytes.begin() + at, bytes.begin() + std::min(at + piece, bytes.size()));
    cut_status = cut.Receive(absl::MakeConstSpan(part));
  }
  // The connection's credit comes back between pieces, so a peer that overran it at once may have been within it in
  // pieces; and one piece later is one credit frame earlier. Everything else is the same.
  if (status.ok()) {
    REQUIRE(cut_status.ok());
    REQUIRE(whole.log() == cut.log());
  } else {
    REQUIRE(cut.log().compare(0, whole.log().size(), whole.log()) == 0);
  }
  whole.Abandon();
  cut.Abandon();
  return 0;
}
