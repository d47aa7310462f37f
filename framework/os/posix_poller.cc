#include "troupe/os/posix_poller.h"

#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <mutex>

#include "glog/logging.h"
#include "troupe/base/errors.h"
#include "troupe/base/os_error.h"

namespace troupe::internal {
namespace {

uint32_t ToEpoll(uint32_t interest) {
  // EPOLLRDHUP is not asked for: a peer's half-close is readable, as end of file.
  return ((interest & kReadable) != 0 ? EPOLLIN : 0u) | ((interest & kWritable) != 0 ? EPOLLOUT : 0u);
}

uint32_t FromEpoll(uint32_t events) {
  if ((events & (EPOLLERR | EPOLLHUP)) != 0) return kReadable | kWritable;
  return ((events & EPOLLIN) != 0 ? kReadable : 0u) | ((events & EPOLLOUT) != 0 ? kWritable : 0u);
}

MonotonicTime Now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return MonotonicTime::FromNanos(now.tv_sec * 1'000'000'000 + now.tv_nsec);
}

// ---- signals
//
// The handler may run on any thread at any instruction, so it touches lock-free atomics only. A watcher leaves in the
// order: action restored, slot emptied, then waits until no handler that may have read the slot is left.
constexpr int kSignals = 64;  // 1 to 63: the bits of TakeSignals
static_assert(std::atomic<PosixPoller*>::is_always_lock_free && std::atomic<uint64_t>::is_always_lock_free);

std::atomic<PosixPoller*> watchers[kSignals];
std::atomic<int> handlers_running[kSignals];
struct sigaction actions_before[kSignals];  // guarded by SignalMutex()

std::mutex& SignalMutex() {
  static std::mutex& mutex = *new std::mutex;  // never destroyed: pollers may end after main
  return mutex;
}

}  // namespace

PosixPoller::PosixPoller() {
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  eventfd_ = epoll_ < 0 ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  // Edge-triggered: every write is reported once, and nobody needs to read.
  epoll_event event = {.events = EPOLLIN | EPOLLET, .data = {.ptr = this}};
  if (eventfd_ < 0 || epoll_ctl(epoll_, EPOLL_CTL_ADD, eventfd_, &event) != 0) {
    const int error = errno;
    if (eventfd_ >= 0) close(eventfd_);
    if (epoll_ >= 0) close(epoll_);
    throw StatusError(OsError(error, "a poller cannot be made"));
  }
}

PosixPoller::~PosixPoller() {
  for (int signo = 1; signo < kSignals; ++signo) {
    if (watchers[signo].load(std::memory_order_relaxed) == this) UnwatchSignal(signo);
  }
  close(eventfd_);
  close(epoll_);
}

int PosixPoller::Control(int operation, int fd, uint32_t interest, void* token) {
  // `this` marks the eventfd.
  DCHECK(token != this);
  epoll_event event = {.events = ToEpoll(interest), .data = {.ptr = token}};
  return epoll_ctl(epoll_, operation, fd, &event) == 0 ? 0 : -errno;
}

int PosixPoller::Add(int fd, uint32_t interest, void* token) { return Control(EPOLL_CTL_ADD, fd, interest, token); }

int PosixPoller::Modify(int fd, uint32_t interest, void* token) { return Control(EPOLL_CTL_MOD, fd, interest, token); }

int PosixPoller::Remove(int fd) { return Control(EPOLL_CTL_DEL, fd, 0, nullptr); }

int PosixPoller::EpollWait(MonotonicTime deadline, int events_max) {
  const int64_t nanos = deadline.is_infinite() ? -1 : std::max<int64_t>(0, deadline.nanos() - Now().nanos());
  if (nanos <= 0) return epoll_wait(epoll_, buffer_.data(), events_max, nanos < 0 ? -1 : 0);
  // A kernel before 5.11 knows milliseconds only, and sleeps a little too long rather than too short.
  static std::atomic<bool> has_pwait2 = true;
  if (has_pwait2.load(std::memory_order_relaxed)) {
    const timespec timeout = {.tv_sec = nanos / 1'000'000'000, .tv_nsec = nanos % 1'000'000'000};
    const int n = epoll_pwait2(epoll_, buffer_.data(), events_max, &timeout, nullptr);
    if (n >= 0 || (errno != ENOSYS && errno != EPERM)) return n;
    has_pwait2.store(false, std::memory_order_relaxed);
  }
  const int64_t millis = std::min<int64_t>((nanos - 1) / 1'000'000 + 1, std::numeric_limits<int>::max());
  return epoll_wait(epoll_, buffer_.data(), events_max, static_cast<int>(millis));
}

int PosixPoller::Wait(MonotonicTime deadline, absl::Span<PollEvent> events) {
  // No more than asked for: an event that is fetched and not reported would go behind the others in epoll's queue, and
  // might starve. So the eventfd can take a place from `events`; what it displaced is reported by the next Wait.
  const size_t events_max = std::clamp<size_t>(events.size(), 1, 4096);
  if (buffer_.size() < events_max) buffer_.resize(events_max);
  const int n = EpollWait(deadline, static_cast<int>(events_max));
  if (n < 0) return errno == EINTR ? 0 : -errno;
  size_t count = 0;
  for (int i = 0; i < n; ++i) {
    const epoll_event& event = buffer_[static_cast<size_t>(i)];
    if (event.data.ptr == this) {
      // An exchange, so that what a waker did before it found the flag set is seen by this thread from here on.
      woken_.exchange(false, std::memory_order_acq_rel);
    } else if (count < events.size()) {
      events[count++] = {event.data.ptr, FromEpoll(event.events)};
    }
  }
  return static_cast<int>(count);
}

void PosixPoller::Wake() {
  if (woken_.exchange(true, std::memory_order_acq_rel)) return;  // one write a burst
  const int saved = errno;
  const uint64_t one = 1;
  // Fails only when 2^64 - 2 wakes are unread, which takes 500 years; a reader is not needed, see the constructor.
  static_cast<void>(!write(eventfd_, &one, sizeof(one)));
  errno = saved;
}

void PosixPoller::OnSignal(int signo) {
  handlers_running[signo].fetch_add(1);
  if (PosixPoller* const poller = watchers[signo].load()) {
    poller->signals_.fetch_or(uint64_t{1} << signo);
    poller->Wake();
  }
  handlers_running[signo].fetch_sub(1);
}

int PosixPoller::WatchSignal(int signo) {
  if (signo < 1 || signo >= kSignals) return -EINVAL;
  if (signo == SIGKILL || signo == SIGSTOP) return -EPERM;
  std::lock_guard<std::mutex> lock(SignalMutex());
  PosixPoller* const watcher = watchers[signo].load();
  if (watcher != nullptr) return watcher == this ? 0 : -EBUSY;
  watchers[signo].store(this);
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  // Other threads' blocking calls are not disturbed; epoll is, regardless. A stack of the signals' own, if there is
  // one.
  action.sa_flags = SA_RESTART | SA_ONSTACK;
  sigfillset(&action.sa_mask);
  if (sigaction(signo, &action, &actions_before[signo]) != 0) {
    const int error = errno;  // those that the C library keeps for itself
    watchers[signo].store(nullptr);
    return -error;
  }
  return 0;
}

int PosixPoller::UnwatchSignal(int signo) {
  if (signo < 1 || signo >= kSignals) return -ENOENT;
  std::lock_guard<std::mutex> lock(SignalMutex());
  if (watchers[signo].load() != this) return -ENOENT;
  CHECK_EQ(sigaction(signo, &actions_before[signo], nullptr), 0);
  watchers[signo].store(nullptr);
  while (handlers_running[signo].load() != 0) sched_yield();
  return 0;
}

}  // namespace troupe::internal
