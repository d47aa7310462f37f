#include "troupe/async/wait.h"

#include "absl/strings/str_cat.h"
#include "troupe/base/errors.h"

namespace troupe::internal {
namespace {

class SeveralLeaf final : public Leaf {
 public:
  SeveralLeaf(std::vector<Ref> futures, WaitOptions options)
      : loop_(futures.front()->loop()),
        options_(options),
        count_(futures.size()),
        left_(futures.size()),
        watchers_(std::make_unique<Watcher[]>(futures.size())) {
    for (size_t i = 0; i < count_; ++i) {
      watchers_[i].leaf = this;
      watchers_[i].Watch(std::move(futures[i]));
    }
  }
  ~SeveralLeaf() { loop_.Cancel(expiry_); }

  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<>) {
    if (options_.timeout < absl::InfiniteDuration()) loop_.ScheduleAt(expiry_, loop_.Time() + options_.timeout);
    Suspend();
  }
  void await_resume() { Resumed(); }
  std::string DescribeWait() const override { return absl::StrCat("Wait for ", left_, " of ", count_, " futures"); }

 private:
  class Watcher final : public DoneWatcher {
   public:
    SeveralLeaf* leaf = nullptr;

   private:
    void OnDone() override { leaf->OnDone(future()); }
  };
  class Expiry final : public Timer {
   public:
    explicit Expiry(SeveralLeaf& leaf) : leaf_(leaf) {}

   private:
    void Run() override { leaf_.End(); }
    SeveralLeaf& leaf_;
  };

  void OnDone(FutureCore& future) {
    --left_;
    bool failed = false;
    if (options_.return_when == WaitUntil::kFirstException) {
      failed = future.state() == FutureCore::kError || !future.ValueStatus().ok();
    }
    if (left_ == 0 || failed || options_.return_when == WaitUntil::kFirstCompleted) End();
  }
  void End() {
    Stop();
    Wake();
  }
  void Stop() {
    loop_.Cancel(expiry_);
    for (size_t i = 0; i < count_; ++i) watchers_[i].Stop();
  }
  void CancelWait() override {
    Stop();
    WakeCancelled();
  }

  EventLoop& loop_;
  const WaitOptions options_;
  const size_t count_;
  size_t left_;
  std::unique_ptr<Watcher[]> watchers_;
  Expiry expiry_{*this};
};

}  // namespace

Task<void> WaitSeveral(std::vector<Ref> futures, WaitOptions options) {
  if (futures.empty()) throw InvalidState("Wait: set of futures is empty");
  for (const Ref& future : futures) {
    if (&future->loop() != &EventLoop::Current()) {
      throw InvalidState(absl::StrCat(future->Describe(), " is attached to a different loop"));
    }
  }
  co_await SeveralLeaf(std::move(futures), options);
}

absl::Status NoneCompletedInTime() { return absl::DeadlineExceededError("not done within the time of AsCompleted"); }

}  // namespace troupe::internal
