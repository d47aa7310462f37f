// LoopLocal: what a layer above the loop keeps once per loop, without the loop knowing it.
//
// `loop.Local<T>()` makes a T(EventLoop&) on first use and gives it from then on. T derives from LoopLocal.
//
// Life:      made -> OnLoopClose (by EventLoop::Close, after the tasks are gone; the last made first) -> destroyed
// Threading: the loop's.     Lifetime: destroyed with the loop, after its workers have ended.
#ifndef TROUPE_LOOP_INTERNAL_LOOP_LOCAL_H_
#define TROUPE_LOOP_INTERNAL_LOOP_LOCAL_H_

namespace troupe::internal {

class LoopLocal {
 public:
  virtual ~LoopLocal() = default;
  virtual void OnLoopClose() {}
};

// Its address is the key of T.
template <class T>
inline constexpr char kLoopLocalKey = 0;

}  // namespace troupe::internal

#endif  // TROUPE_LOOP_INTERNAL_LOOP_LOCAL_H_
