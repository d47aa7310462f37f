#include "troupe/async/run_threadsafe.h"

#include <chrono>
#include <utility>

namespace troupe::internal {

bool ThreadFutureCore::Wait(absl::Duration timeout) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (done_) return true;
  if (loop_ == EventLoop::CurrentOrNull()) {
    throw InvalidState("a ThreadFuture was waited for on the thread of the loop that would complete it");
  }
  if (timeout == absl::InfiniteDuration()) {
    changed_.wait(lock, [this] { return done_; });
    return true;
  }
  return changed_.wait_for(lock, absl::ToChronoNanoseconds(timeout), [this] { return done_; });
}

bool ThreadFutureCore::done() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return done_;
}

bool ThreadFutureCore::cancelled() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return cancelled_;
}

bool ThreadFutureCore::Cancel() {
  // The lock keeps the loop: it does not go before it has ended the task, which takes the lock.
  std::lock_guard<std::mutex> lock(mutex_);
  if (done_) return false;
  cancel_requested_ = true;
  try {
    loop_->CallSoonThreadsafe([self = shared_from_this()] {
      if (self->task_.get() != nullptr) self->task_->Cancel();
    });
  } catch (const InvalidState&) {
    // The loop is closing, and ends the task anyway.
  }
  return true;
}

bool ThreadFutureCore::Begin(Ref task) {
  std::lock_guard<std::mutex> lock(mutex_);
  task_ = std::move(task);
  return !cancel_requested_;
}

void ThreadFutureCore::SetError(std::exception_ptr error) {
  std::unique_lock<std::mutex> lock(mutex_);
  error_ = std::move(error);
  Finish(lock);
}

void ThreadFutureCore::SetCancelled() {
  std::unique_lock<std::mutex> lock(mutex_);
  cancelled_ = true;
  Finish(lock);
}

void ThreadFutureCore::Finish(std::unique_lock<std::mutex>& lock) {
  const Ref task = std::exchange(task_, Ref());
  loop_ = nullptr;
  done_ = true;
  const auto observers = std::exchange(observers_, {});
  lock.unlock();
  changed_.notify_all();
  for (const auto& observer : observers) observer->OnThreadFutureDone();
}

void ThreadFutureCore::Observe(std::shared_ptr<ThreadFutureObserver> observer) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!done_) {
      observers_.push_back(std::move(observer));
      return;
    }
  }
  observer->OnThreadFutureDone();
}

void ThreadFutureCore::ThrowIfFailed() const {
  if (cancelled_) throw Cancelled();
  if (error_) std::rethrow_exception(error_);
}

}  // namespace troupe::internal
