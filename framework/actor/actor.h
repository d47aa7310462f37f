// Actor: one object, on one event loop, whose callbacks a connection drives.
//
// Users derive from the class that protoc-gen-troupe writes for a service (KeyValueActor), which derives from this. A
// server makes one object per connection; calls on it interleave only at co_await, so it needs no lock.
//
// Life:      made -> ConnectionMade -> (calls | PauseWriting -> ResumeWriting)* -> EofReceived? -> ConnectionLost ->
//            end
//            An actor that does not override ConnectionMade is made at its first call, and then has no ConnectionLost
//            without one.
// Threading: its loop's.     Lifetime: owned by the connection; deleted after ConnectionLost, when no handler runs.
// Errors:    what a callback throws ends the connection and reaches the loop's exception handler.
#ifndef TROUPE_ACTOR_ACTOR_H_
#define TROUPE_ACTOR_ACTOR_H_

#include "absl/status/status.h"
#include "troupe/rpc/connection.h"

namespace troupe {

class Actor {
 public:
  virtual ~Actor() = default;

  // The connection is there, its handshake done and its wire known; no call has been made yet.
  virtual void ConnectionMade(Connection& /*connection*/) {}
  // The peer sends no more, and most likely is gone. False (the default) closes the connection: calls in flight are
  // cancelled. True keeps it open for what we still send, until a write fails or the connection is closed.
  virtual bool EofReceived() { return false; }
  // More than the high mark waits to be sent to a peer that does not read; writers wait by themselves.
  virtual void PauseWriting() {}
  virtual void ResumeWriting() {}
  // The last callback, exactly once: the connection is gone and no handler runs any more. OK: closed in good order.
  virtual void ConnectionLost(const absl::Status& /*reason*/) {}
};

}  // namespace troupe

#endif  // TROUPE_ACTOR_ACTOR_H_
