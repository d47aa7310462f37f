// Which loop a thread has where none runs in it: see loop_policy.h.
#ifndef TROUPE_LOOP_INTERNAL_ASSIGNED_LOOP_H_
#define TROUPE_LOOP_INTERNAL_ASSIGNED_LOOP_H_

namespace troupe {

class EventLoop;

namespace internal {

struct AssignedLoop {
  EventLoop* loop = nullptr;  // none once that loop is destroyed in this thread
  bool was_set = false;       // SetEventLoop was called: none is made any more
};
extern thread_local constinit AssignedLoop assigned_loop;

}  // namespace internal
}  // namespace troupe

#endif  // TROUPE_LOOP_INTERNAL_ASSIGNED_LOOP_H_
