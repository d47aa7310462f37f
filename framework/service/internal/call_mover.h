// CallMover: who knows another connection for a call that no handler has seen.
//
// Threading: the loop's.     Lifetime: outlives the sessions that calls were given by it.
#ifndef TROUPE_SERVICE_INTERNAL_CALL_MOVER_H_
#define TROUPE_SERVICE_INTERNAL_CALL_MOVER_H_

#include "absl/status/status.h"

namespace troupe {

class Session;

namespace internal {

class SessionClientCall;

class CallMover {
 public:
  // One that takes `call`, or lets it wait; null: there is none, and it ends.
  virtual Session* Destination(const SessionClientCall& call) = 0;
  // Why there was none.
  virtual absl::Status WhyNone() const = 0;

 protected:
  ~CallMover() = default;
};

}  // namespace internal
}  // namespace troupe

#endif  // TROUPE_SERVICE_INTERNAL_CALL_MOVER_H_
