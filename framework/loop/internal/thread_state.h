// What the framework keeps per thread: one block, one thread-local access.
#ifndef TROUPE_LOOP_INTERNAL_THREAD_STATE_H_
#define TROUPE_LOOP_INTERNAL_THREAD_STATE_H_

namespace troupe {

class EventLoop;

namespace internal {

class Root;
struct ContextData;

struct ThreadState {
  EventLoop* loop = nullptr;       // the running loop
  ContextData* context = nullptr;  // in force; owned by who put it there, null: empty
  Root* root = nullptr;            // the chain of coroutines that is being driven
};

// constinit: no initialisation guard on access, in any translation unit.
extern thread_local constinit ThreadState thread_state;

}  // namespace internal
}  // namespace troupe

#endif  // TROUPE_LOOP_INTERNAL_THREAD_STATE_H_
