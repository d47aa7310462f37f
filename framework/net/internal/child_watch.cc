#include "troupe/net/internal/child_watch.h"

#include <signal.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <optional>

#include "absl/types/span.h"
#include "glog/logging.h"
#include "troupe/base/errors.h"
#include "troupe/base/os_error.h"
#include "troupe/loop/internal/loop_local.h"
#include "troupe/os/os.h"

namespace troupe::internal {
namespace {

// What asyncio gives where somebody else has taken the status.
constexpr int kUnknownStatus = 255;
// From SIGKILL to the end of a child: a moment, unless the kernel waits for a device.
constexpr absl::Duration kKillTimeMax = absl::Seconds(1);
constexpr absl::Duration kCheckIntervalMax = absl::Milliseconds(100);

}  // namespace

// The children of a loop.
class Children final : public LoopLocal {
 public:
  explicit Children(EventLoop& loop) : loop_(loop) {}
  ~Children() override {
    while (!children_.empty()) children_.PopFront().OnLoopGone();
  }

  void Add(ChildWatch& child) { children_.PushBack(child); }

  void OnLoopClose() override {
    for (ChildWatch& child : children_) child.SignalChild(SIGKILL);
    const MonotonicTime deadline = loop_.Time() + kKillTimeMax;
    for (ChildWatch& child : children_) child.OnLoopClose(End(child, deadline));
  }

 private:
  // The status of a child that has not ended yet, and was killed.
  std::optional<int> End(ChildWatch& child, MonotonicTime deadline) {
    if (child.has_ended()) return std::nullopt;
    int status = kUnknownStatus;
    while (!child.TakeStatus(&status)) {
      if (AwaitEnd(child, deadline)) continue;
      LOG(ERROR) << "process " << child.pid() << " was killed and has not ended: it is left";
      child.Forget();
      break;
    }
    return status;
  }
  // False: there is no time left, or nothing to wait with.
  bool AwaitEnd(ChildWatch& child, MonotonicTime deadline) {
    if (loop_.Time() >= deadline) return false;
    try {
      const std::unique_ptr<Poller> poller = loop_.os().NewPoller();
      PollEvent event;
      return poller->Add(child.fd(), kReadable, this) == 0 && poller->Wait(deadline, absl::MakeSpan(&event, 1)) >= 0;
    } catch (const StatusError&) {
      return false;  // no descriptor is left for a poller
    }
  }

  EventLoop& loop_;
  IntrusiveList<ChildWatch, ChildWatch> children_;
};

ChildWatch::ChildWatch(EventLoop& loop, int process, int pid) : FdWatcher(loop, process), pid_(pid) {
  loop.Local<Children>().Add(*this);
}

ChildWatch::~ChildWatch() { check_.Cancel(); }

int ChildWatch::SignalChild(int signo) { return ended_ ? -ESRCH : watcher_loop_.os().SignalProcess(fd(), signo); }

void ChildWatch::StartWatching() {
  const int error = Watch(kReadable);
  if (error == 0) return;
  LOG(WARNING) << "process " << pid_ << " cannot be watched and is looked at now and then: " << ErrnoText(error);
  CheckLater();
}

bool ChildWatch::TakeStatus(int* status) {
  const int error = watcher_loop_.os().TakeExitStatus(fd(), status);
  if (error == -EAGAIN) return false;
  if (error != 0) {
    LOG(WARNING) << "the exit status of process " << pid_ << " is unknown, " << kUnknownStatus
                 << " is reported: " << ErrnoText(error);
    *status = kUnknownStatus;
  }
  Forget();
  return true;
}

void ChildWatch::Forget() {
  ended_ = true;
  check_.Cancel();
  FdWatcher::Release();
  watcher_loop_.os().Close(fd());
}

void ChildWatch::CheckNow() {
  int status = kUnknownStatus;
  if (TakeStatus(&status)) {
    OnExit(status);
  } else if (interest() == 0) {
    CheckLater();
  }
}

void ChildWatch::CheckLater() {
  check_ = watcher_loop_.CallLater(check_after_, [this] { CheckNow(); });
  check_after_ = std::min(2 * check_after_, kCheckIntervalMax);
}

}  // namespace troupe::internal
