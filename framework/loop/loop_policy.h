// LoopPolicy, GetEventLoop, SetEventLoop, NewEventLoop: how the loops of a process are made, and which loop a thread has
// where none runs in it.
//
// Hardly any code needs this: a task or callback has EventLoop::Current(), and a program has troupe::Run (async/run.h),
// which makes its loop here. Install a policy to give every loop of the process its options, or another Os:
//
//   class Quick final : public troupe::LoopPolicy {
//     std::unique_ptr<troupe::EventLoop> NewLoop() override {
//       return std::make_unique<troupe::EventLoop>(troupe::PosixOs::Get(), {.executor_threads_max = 4});
//     }
//   };
//   troupe::SetLoopPolicy(std::make_shared<Quick>());   // before Run
//
// Threading: any thread; a loop is set for the calling thread only.
#ifndef TROUPE_LOOP_LOOP_POLICY_H_
#define TROUPE_LOOP_LOOP_POLICY_H_

#include <memory>

#include "troupe/loop/event_loop.h"

namespace troupe {

class LoopPolicy {
 public:
  virtual ~LoopPolicy() = default;
  // A loop that does not run yet. Called on any thread.
  virtual std::unique_ptr<EventLoop> NewLoop() = 0;
};

// From now on `policy` makes the loops. Null, and at the start: loops on PosixOs with the default options.
void SetLoopPolicy(std::shared_ptr<LoopPolicy> policy);

// A loop from the policy. It is not set for the thread.
std::unique_ptr<EventLoop> NewEventLoop();

// The loop that runs in this thread; else the one that was set for it; else, in the process's main thread and unless
// something, if only null, was set before, a new one, which lives as long as the thread. Throws InvalidState "There is no
// current event loop in thread ..." (C-POL-03). EventLoop::Current() gives running loops only.
EventLoop& GetEventLoop();
// Borrows `loop`, which is forgotten when this thread destroys it; null: there is none.
void SetEventLoop(EventLoop* loop);

}  // namespace troupe

#endif  // TROUPE_LOOP_LOOP_POLICY_H_
