#include "troupe/wire/testing_end.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace troupe::wire_testing {

std::string Shown(absl::string_view bytes) {
  constexpr size_t kShown = 40;
  const bool printable = std::all_of(bytes.begin(), bytes.end(), [](char c) { return c >= ' ' && c <= '~'; });
  if (bytes.size() > kShown) return absl::StrCat(bytes.size(), " bytes");
  return printable ? absl::StrCat("'", bytes, "'") : absl::StrCat("x", absl::BytesToHexString(bytes));
}

std::string Shown(const Metadata& metadata) {
  std::string text;
  for (const Metadata::Entry& entry : metadata.entries()) absl::StrAppend(&text, " ", entry.key, "=", entry.value);
  return text;
}

std::string Shown(const absl::Status& status) {
  std::string text(absl::StatusCodeToString(status.code()));
  if (!status.message().empty()) absl::StrAppend(&text, ": ", status.message());
  if (status.GetPayload(kNotStartedPayload).has_value()) text += " (not started)";
  return text;
}

std::string Shown(absl::Span<const char> bytes) { return Shown(absl::string_view(bytes.data(), bytes.size())); }

google::protobuf::BytesValue Value(absl::string_view value) {
  google::protobuf::BytesValue message;
  message.set_value(std::string(value));
  return message;
}

std::string Encoded(absl::string_view value) { return Value(value).SerializeAsString(); }

struct CodecEnd::Listener final : CallEvents {
  Listener(CodecEnd& end, CallId id) : end(end), id(id) {}

  void OnInitialMetadata(Metadata metadata) override {
    end.Log(absl::StrCat("metadata ", id, Shown(metadata)));
    if (end.on_metadata) end.on_metadata(id);
  }
  void OnMessage(absl::Span<const char> message, size_t charged) override {
    if (end.log_messages) end.Log(absl::StrCat("message ", id, " ", Shown(message)));
    if (!end.consume) end.unconsumed[id] += charged;
    if (end.consume) end.codec().Consumed(id, charged);
    if (end.on_message) end.on_message(id, message, charged);
  }
  void OnHalfClose() override {
    end.Log(absl::StrCat("half-close ", id));
    if (end.on_half_close) end.on_half_close(id);
  }
  void OnEnd(absl::Status status, Metadata trailers) override {
    end.Log(absl::StrCat("end ", id, " ", Shown(status), Shown(trailers)));
    if (end.on_over) end.on_over(id);
  }
  void OnReset(absl::Status why) override {
    end.Log(absl::StrCat("reset ", id, " ", Shown(why)));
    if (end.on_over) end.on_over(id);
  }
  void OnSendRoom() override {
    end.Log(absl::StrCat("room ", id));
    if (end.on_send_room) end.on_send_room(id);
  }

  CodecEnd& end;
  CallId id;
};

CodecEnd::CodecEnd() = default;

CodecEnd::~CodecEnd() = default;

std::string CodecEnd::TakeOutput() {
  std::string bytes = codec().output().ToString();
  codec().output().Clear();
  return bytes;
}

absl::StatusOr<CallId> CodecEnd::TryStart(absl::string_view path, const google::protobuf::MessageLite* message,
                                          const Metadata* metadata, absl::Duration timeout) {
  const std::string& kept = *paths_.emplace(path).first;
  // Ids are known only afterwards; the listener is told then.
  auto listener = std::make_unique<Listener>(*this, 0);
  OutgoingCall call;
  call.path = kept;
  call.message = message;
  call.metadata = metadata;
  call.timeout = timeout;
  absl::StatusOr<CallId> id = codec().StartCall(call, *listener);
  if (!id.ok()) return id;
  listener->id = *id;
  listeners_[*id] = std::move(listener);
  return id;
}

CallId CodecEnd::Start(absl::string_view path, const google::protobuf::MessageLite* message, const Metadata* metadata,
                       absl::Duration timeout) {
  return TryStart(path, message, metadata, timeout).value();
}

const void* CodecEnd::FindMethod(absl::string_view path) {
  Log(absl::StrCat("method ", path));
  if (path.substr(0, 9) == "/unknown/") return nullptr;
  return &*paths_.emplace(path).first;
}

CodecEnd::Listener* CodecEnd::Listen(CallId id) {
  std::unique_ptr<Listener>& listener = listeners_[id];
  listener = std::make_unique<Listener>(*this, id);
  return listener.get();
}

CallEvents* CodecEnd::OnCall(IncomingCall& call) {
  std::string line = absl::StrCat("call ", call.id, " ",
                                  call.method != nullptr ? *static_cast<const std::string*>(call.method)
                                                         : absl::StrCat("unknown '", call.path, "'"));
  if (call.timeout != absl::InfiniteDuration()) {
    absl::StrAppend(&line, " timeout=", absl::FormatDuration(call.timeout));
  }
  absl::StrAppend(&line, Shown(call.metadata));
  if (call.complete) {
    if (log_messages) absl::StrAppend(&line, " complete: ", Shown(call.message));
    if (consume) codec().Consumed(call.id, call.charged);
  }
  Log(std::move(line));
  Listener* listener = listen ? Listen(call.id) : nullptr;
  if (on_call) on_call(call);
  return listener;
}

void CodecEnd::OnGoAway(CallId last, absl::Status why) { Log(absl::StrCat("goaway ", last, " ", Shown(why))); }
void CodecEnd::OnPong(uint64_t opaque) { Log(absl::StrCat("pong ", opaque)); }
void CodecEnd::OnCallRoom() {
  Log("call room");
  if (on_call_room) on_call_room();
}

absl::Status Exchange(CodecEnd& a, CodecEnd& b, size_t piece) {
  absl::Status first;
  bool moved = true;
  while (moved) {
    moved = false;
    for (auto [from, to] : {std::pair<CodecEnd*, CodecEnd*>{&a, &b}, {&b, &a}}) {
      const std::string bytes = from->TakeOutput();
      for (size_t at = 0; at < bytes.size(); at += piece) {
        moved = true;
        const size_t n = std::min(piece, bytes.size() - at);
        if (absl::Status status = to->Receive(absl::MakeConstSpan(bytes.data() + at, n)); !status.ok()) {
          if (first.ok()) first = status;
          break;
        }
        if (piece == SIZE_MAX) break;
      }
    }
    if (!first.ok()) return first;
  }
  return first;
}

}  // namespace troupe::wire_testing
