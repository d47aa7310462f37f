// CallMover: who knows another connection for a call that no handler has seen.
//
// Threading: the loop's.     Lifetime: outlives the sessions that calls were given by it.
#ifndef TROUPE_SERVICE_INTERNAL_CALL_MOVER_H_
#define TROUPE_SERVICE_INTERNAL_CALL_MOVER_H_

namespace troupe {

class Session;

namespace internal {

class CallMover {
 public:
  // One that takes new calls; null: there is none.
  virtual Session* Destination() = 0;

 protected:
  ~CallMover() = default;
};

}  // namespace internal
}  // namespace troupe

#endif  // TROUPE_SERVICE_INTERNAL_CALL_MOVER_H_
