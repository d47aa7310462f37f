// Event: a flag that tasks wait for.
//
// Use it for "this has happened", which stays true until Clear(). For a value use Promise; for a count use Semaphore.
// Every task that waits when Set() is called resumes, even if Clear() follows at once.
//
// Threading: the loop's.     Lifetime: outlives the tasks that wait in it.
#ifndef TROUPE_ASYNC_EVENT_H_
#define TROUPE_ASYNC_EVENT_H_

#include "troupe/async/internal/wait_list.h"
#include "troupe/async/task.h"

namespace troupe {

class Event {
 public:
  Event() = default;
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void Set() {
    if (set_) return;
    set_ = true;
    waiters_.WakeAll();
  }
  void Clear() { set_ = false; }
  bool is_set() const { return set_; }

  // Returns at once when it is set.
  Task<void> Wait() {
    if (!set_) {
      co_await waiters_.Wait();
    }
  }

 private:
  bool set_ = false;
  internal::WaitList waiters_{"Event::Wait"};
};

}  // namespace troupe

#endif  // TROUPE_ASYNC_EVENT_H_
