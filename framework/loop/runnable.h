// Runnable: something that a loop can run, linked into the loop's queue without an allocation.
//
// The framework's own hot paths (task steps, sleeping coroutines, descriptor readiness, session flushes) are Runnables
// embedded in their owners. Users schedule callables with EventLoop::CallSoon and Post instead.
//
// Life:      idle -> EventLoop::Schedule -> Run -> idle ...   or  -> Unlink (cancelled) or Drop (the loop closed)
// Threading: the loop's.      Lifetime: its owner's; a destroyed Runnable leaves the queue by itself.
#ifndef TROUPE_LOOP_RUNNABLE_H_
#define TROUPE_LOOP_RUNNABLE_H_

#include <string>

#include "troupe/base/intrusive_list.h"

namespace troupe {

class Runnable : public ListNode<Runnable> {
 public:
  // Called unlinked; may schedule or destroy itself. What it throws, but for Fatal, is for it to report: see
  // EventLoop::CallExceptionHandler.
  virtual void Run() = 0;
  // The loop was closed while this stood in its queue. Called unlinked; may destroy itself.
  virtual void Drop() noexcept {}
  // For debug mode's log of slow callbacks.
  virtual std::string Describe() const { return "internal callback"; }

 protected:
  ~Runnable() = default;
};

using RunQueue = IntrusiveList<Runnable, Runnable>;

}  // namespace troupe

#endif  // TROUPE_LOOP_RUNNABLE_H_
