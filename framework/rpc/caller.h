// Caller: what a stub calls through. Channel, Connection and actor references are Callers.
//
// Users hand one to a generated stub and otherwise do not touch it: `KeyValueStub kv(channel);`
//
// Threading: the loop's.     Lifetime: outlives the stubs made from it; calls in flight may outlive it and then end
// UNAVAILABLE.
#ifndef TROUPE_RPC_CALLER_H_
#define TROUPE_RPC_CALLER_H_

#include <optional>
#include <type_traits>

#include "absl/time/time.h"
#include "google/protobuf/message_lite.h"
#include "troupe/rpc/compression.h"
#include "troupe/rpc/method.h"

namespace troupe {

class EventLoop;
class Metadata;

namespace internal {
class ClientCall;
class ClientCallRef;
}  // namespace internal

// Of one call. Trivially destructible, because it is written inside co_await expressions, where g++ 12 would destroy
// it twice: what it points to is copied before the stub's method returns.
struct CallOptions {
  // The call ends DEADLINE_EXCEEDED after this long. The deadline of the context in force (a handler's, when the call
  // is made inside one) holds as well: the earlier one counts.
  absl::Duration timeout = absl::InfiniteDuration();
  // Sent with the call; null: none.
  const Metadata* metadata = nullptr;
  // A call waits until there is a connection, however long that takes, and does not end when one cannot be made.
  bool wait_for_ready = false;
  // Of the requests; none: as the channel's options say.
  std::optional<Compression> compression = std::nullopt;
};
static_assert(std::is_trivially_destructible_v<CallOptions>);

class Caller {
 public:
  virtual EventLoop& loop() = 0;

  // Starts a call; `message` is the only request, with the half-close, or null where the client streams. Encodes before
  // it returns. Never fails: a call that cannot be made ends with its status, later.
  virtual internal::ClientCallRef StartCall(const MethodInfo& method, const CallOptions& options,
                                            const google::protobuf::MessageLite* message) = 0;

 protected:
  ~Caller() = default;
};

}  // namespace troupe

#endif  // TROUPE_RPC_CALLER_H_
