#include "troupe/async/blocking.h"

#include "troupe/base/errors.h"

namespace troupe::internal {

void BlockingLeaf::await_suspend(std::coroutine_handle<>) {
  Root& root = *Root::Current();
  loop_ = &root.loop();
  // Cancelled while it ran: it sees that here, and the function does not start.
  if (!root.cancel_requested()) {
    if (pool_ == nullptr) pool_ = &loop_->executor();
    context_ = Context::Current();
    try {
      pool_->Submit(job_);
    } catch (const StatusError& error) {
      refused_ = error.status();
      return;  // resumes at once
    }
    submitted_ = true;
  }
  Suspend();
}

void BlockingLeaf::Job::Run() {
  {
    ContextScope scope(leaf_.context_);
    try {
      leaf_.Call();
    } catch (...) {  // thrown again at the co_await
      leaf_.error_ = std::current_exception();
    }
  }
  // The last touch: the loop's thread may destroy the leaf from here on.
  leaf_.loop_->ScheduleFromThread(leaf_.arrival_);
}

void BlockingLeaf::OnArrival() {
  done_ = true;
  if (cancelled_) {
    WakeCancelled();
  } else {
    Wake();
  }
}

void BlockingLeaf::CancelWait() {
  cancelled_ = true;
  if (submitted_ && !pool_->Cancel(job_)) return;  // it runs: wait for it
  submitted_ = false;
  WakeCancelled();
}

void BlockingLeaf::Stop() {
  if (!submitted_ || done_) return;
  if (pool_->Cancel(job_)) return;
  pool_->Wait(job_);
  loop_->CancelFromThread(arrival_);
}

void BlockingLeaf::Finish() {
  try {
    Resumed();
  } catch (const Cancelled&) {
    if (error_) {
      ExceptionContext context;
      context.message = "Exception in a function of Blocking whose caller was cancelled";
      context.exception = std::exchange(error_, nullptr);
      loop_->CallExceptionHandler(context);
    }
    throw;
  }
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

}  // namespace troupe::internal
