// ChildWatch: a child process of a loop: how it ends, and that it never stays as a zombie.
//
// The base of subprocess transports. It takes over the descriptor of Os::Spawn, which is readable when the child has
// ended, and closes it then. When the loop closes first, the child is killed and waited for, for a second at most.
//
// Life:      made -> StartWatching -> [OnExit] -> [OnLoopClose -> OnLoopGone] -> destroyed, not while the child runs and
//            the loop is open
// Threading: the loop's.     Lifetime: within the loop's.
#ifndef TROUPE_NET_INTERNAL_CHILD_WATCH_H_
#define TROUPE_NET_INTERNAL_CHILD_WATCH_H_

#include <optional>
#include <string>

#include "absl/time/time.h"
#include "troupe/base/intrusive_list.h"
#include "troupe/base/monotonic_time.h"
#include "troupe/loop/event_loop.h"
#include "troupe/loop/fd_watcher.h"
#include "troupe/loop/handle.h"

namespace troupe::internal {

class ChildWatch : private FdWatcher, public ListNode<ChildWatch> {
 public:
  ChildWatch(EventLoop& loop, int process, int pid);

  int pid() const { return pid_; }
  bool has_ended() const { return ended_; }
  // 0 or -errno; -ESRCH once it has ended.
  int SignalChild(int signo);

 protected:
  ~ChildWatch() override;
  void StartWatching();
  // From the loop, once. `status`: as of Os::TakeExitStatus. May destroy this.
  virtual void OnExit(int status) = 0;
  // The loop closes, and no callback comes any more. `status`: of a child that had not ended, and was killed.
  virtual void OnLoopClose(std::optional<int> status) noexcept = 0;
  // The loop goes, and this is still here: it belongs to nobody. May destroy this.
  virtual void OnLoopGone() noexcept = 0;

 private:
  friend class Children;

  // False: it runs. Otherwise *status is set, once.
  bool TakeStatus(int* status);
  // It has ended, or nobody can tell.
  void Forget();
  void CheckNow();
  void CheckLater();
  void OnReadable() override { CheckNow(); }
  void OnWritable() override {}

  const int pid_;
  bool ended_ = false;
  absl::Duration check_after_ = absl::Milliseconds(1);
  TimerHandle check_;  // where no poller tells
};

}  // namespace troupe::internal

#endif  // TROUPE_NET_INTERNAL_CHILD_WATCH_H_
