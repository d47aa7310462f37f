// MethodInfo, ServiceInfo: what generated code says of an rpc and of a service. Constants with static storage.
//
// A stub names the method of a call by its MethodInfo; a server joins an actor's ServiceBinding with its own tables.
// Threading: immutable.     Lifetime: of the program.
#ifndef TROUPE_RPC_METHOD_H_
#define TROUPE_RPC_METHOD_H_

#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "google/protobuf/message_lite.h"
#include "troupe/rpc/session_order.h"

namespace troupe {

template <class T>
class Task;

namespace internal {

class ServerCall;

template <class Message>
const google::protobuf::MessageLite& Prototype() {
  return Message::default_instance();
}
// Moves *from to *to, for calls that stay in the process.
template <class Message>
void MoveMessage(google::protobuf::MessageLite& from, google::protobuf::MessageLite& to) {
  static_cast<Message&>(to) = std::move(static_cast<Message&>(from));
}
// All that the message occupies, its unknown fields included.
template <class Message>
size_t MessageSpace(const google::protobuf::MessageLite& message) {
  const Message& typed = static_cast<const Message&>(message);
  if constexpr (requires { typed.SpaceUsedLong(); }) {
    return typed.SpaceUsedLong();
  } else {
    return typed.ByteSizeLong();  // generated for the lite runtime, which does not say
  }
}

}  // namespace internal

enum class CallKind : uint8_t { kUnary, kServerStreaming, kClientStreaming, kBidiStreaming };

// The type of a request or response, without its template.
struct MessageType {
  const google::protobuf::MessageLite& (*prototype)() = nullptr;
  void (*move)(google::protobuf::MessageLite& from, google::protobuf::MessageLite& to) = nullptr;
  size_t (*space)(const google::protobuf::MessageLite& message) = nullptr;

  template <class Message>
  static constexpr MessageType Of() {
    return {&internal::Prototype<Message>, &internal::MoveMessage<Message>, &internal::MessageSpace<Message>};
  }
};

struct MethodInfo {
  absl::string_view name;  // "Get"
  absl::string_view path;  // "/kv.v1.KeyValue/Get"
  CallKind kind = CallKind::kUnary;
  MessageType request;
  MessageType response;
  bool one_way = false;     // option (troupe.call).one_way: nobody waits for the reply
  bool idempotent = false;  // idempotency_level = IDEMPOTENT or NO_SIDE_EFFECTS: may be sent again
  // option (troupe.session): the order of its service, and which step of it this is; null: may be called at any time.
  const SessionOrder* order = nullptr;
  uint16_t step = 0;

  bool client_streams() const { return kind == CallKind::kClientStreaming || kind == CallKind::kBidiStreaming; }
  bool server_streams() const { return kind == CallKind::kServerStreaming || kind == CallKind::kBidiStreaming; }
  // May be called in some states of a session only.
  bool ordered() const { return order != nullptr; }
};

struct ServiceInfo {
  absl::string_view full_name;  // "kv.v1.KeyValue"
  absl::Span<const MethodInfo> methods;
  bool serial = false;  // option (troupe.actor).serial: an actor finishes one call before it starts the next
};

// Starts the handler of one call. `actor` points to the generated actor class of the service.
using StartHandler = Task<absl::Status> (*)(void* actor, internal::ServerCall& call);

// A service as an actor serves it: handlers[i] serves info->methods[i].
struct ServiceBinding {
  const ServiceInfo* info = nullptr;
  absl::Span<const StartHandler> handlers;
};

}  // namespace troupe

#endif  // TROUPE_RPC_METHOD_H_
