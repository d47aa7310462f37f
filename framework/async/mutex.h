// Mutex: one task at a time, across its co_awaits; first come, first served.
//
//   Mutex::Guard guard = co_await mutex.Lock();
//
// Between co_awaits a loop needs no mutex: nothing else runs. Use it where a sequence with co_awaits in it must not be
// interleaved with another. It is not recursive.
//
// Threading: the loop's.     Lifetime: outlives its guards and the tasks that wait in it.
#ifndef TROUPE_ASYNC_MUTEX_H_
#define TROUPE_ASYNC_MUTEX_H_

#include <optional>

#include "troupe/async/semaphore.h"
#include "troupe/async/task.h"

namespace troupe {

class Mutex {
 public:
  using Guard = Semaphore::Permit;

  Mutex() = default;

  Task<Guard> Lock() { return semaphore_.Acquire(); }
  // Nothing: it is locked.
  std::optional<Guard> TryLock() { return semaphore_.TryAcquire(); }
  bool locked() const { return semaphore_.locked(); }

 private:
  Semaphore semaphore_{1};
};

}  // namespace troupe

#endif  // TROUPE_ASYNC_MUTEX_H_
