#include "troupe/async/sleep.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace troupe {
namespace {

// Gives up one iteration.
class YieldAwaiter final : public internal::Leaf {
 public:
  YieldAwaiter() = default;
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<>) {
    Suspend();
    if (suspended()) Wake();
  }
  void await_resume() { Resumed(); }
  std::string DescribeWait() const override { return "Sleep(0)"; }

 private:
  void CancelWait() override { WakeCancelled(); }
};

class SleepAwaiter final : public internal::Leaf, public Timer {
 public:
  SleepAwaiter(EventLoop& loop, MonotonicTime until) : loop_(loop), until_(until) {}
  ~SleepAwaiter() { loop_.Cancel(*this); }
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<>) {
    loop_.ScheduleAt(*this, until_);
    Suspend();
  }
  void await_resume() { Resumed(); }
  std::string DescribeWait() const override { return absl::StrCat("Sleep until ", until_.ToSeconds()); }

 private:
  // Due: asyncio completes a future here, whose waiter runs in the iteration after.
  void Run() override { Wake(); }
  std::string Describe() const override { return DescribeWait(); }
  void CancelWait() override {
    loop_.Cancel(*this);
    WakeCancelled();
  }

  EventLoop& loop_;
  const MonotonicTime until_;
};

}  // namespace

Task<void> Sleep(absl::Duration delay) {
  if (delay <= absl::ZeroDuration()) {
    co_await YieldAwaiter();
  } else {
    EventLoop& loop = EventLoop::Current();
    co_await SleepAwaiter(loop, loop.Time() + delay);
  }
}

Task<void> SleepUntil(MonotonicTime when) {
  EventLoop& loop = EventLoop::Current();
  if (when <= loop.Time()) {
    co_await YieldAwaiter();
  } else {
    co_await SleepAwaiter(loop, when);
  }
}

}  // namespace troupe
