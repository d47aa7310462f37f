// PosixPoller: Poller by epoll, woken through an eventfd, also by signals.
//
// Threading, lifetime: as Poller. WatchSignal and UnwatchSignal may be called from any thread.
#ifndef TROUPE_OS_POSIX_POLLER_H_
#define TROUPE_OS_POSIX_POLLER_H_

#include <sys/epoll.h>

#include <atomic>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "troupe/base/monotonic_time.h"
#include "troupe/os/os.h"

namespace troupe::internal {

class PosixPoller final : public Poller {
 public:
  // Throws StatusError (RESOURCE_EXHAUSTED: no descriptor is left for it).
  PosixPoller();
  ~PosixPoller() override;

  int Add(int fd, uint32_t interest, void* token) override;
  int Modify(int fd, uint32_t interest, void* token) override;
  int Remove(int fd) override;
  int Wait(MonotonicTime deadline, absl::Span<PollEvent> events) override;
  void Wake() override;

  int WatchSignal(int signo);
  int UnwatchSignal(int signo);
  uint64_t TakeSignals() { return signals_.exchange(0, std::memory_order_acq_rel); }

 private:
  static void OnSignal(int signo);
  int Control(int operation, int fd, uint32_t interest, void* token);
  int EpollWait(MonotonicTime deadline, int events_max);

  int epoll_ = -1;
  int eventfd_ = -1;
  std::atomic<bool> woken_ = false;  // Wake() was called and no Wait has seen it yet
  std::atomic<uint64_t> signals_ = 0;
  std::vector<epoll_event> buffer_;
};

}  // namespace troupe::internal

#endif  // TROUPE_OS_POSIX_POLLER_H_
