// Generators: the asynchronous generators of a loop that are under way, so that troupe::Run can close them (C-RUN-04).
//
// Threading: the loop's.     Lifetime: of its loop.
#ifndef TROUPE_ASYNC_INTERNAL_GENERATORS_H_
#define TROUPE_ASYNC_INTERNAL_GENERATORS_H_

#include "troupe/async/async_generator.h"
#include "troupe/async/task.h"
#include "troupe/base/intrusive_list.h"
#include "troupe/loop/event_loop.h"

namespace troupe::internal {

class Generators final : public LoopLocal {
 public:
  explicit Generators(EventLoop& loop) : loop_(loop) {}
  void Add(GeneratorPromiseBase& generator);
  // Closes all, one after the other; what they throw is reported. From then on warns of every one that starts.
  Task<void> Shutdown();

 private:
  EventLoop& loop_;
  bool shut_down_ = false;
  IntrusiveList<GeneratorPromiseBase> generators_;
};

}  // namespace troupe::internal

#endif  // TROUPE_ASYNC_INTERNAL_GENERATORS_H_
