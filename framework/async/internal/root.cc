#include "troupe/async/internal/root.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "troupe/loop/exception_context.h"

namespace troupe::internal {
namespace {

// A chain is being destroyed before its end: what it held and had not come to await goes with it.
thread_local constinit bool discarding = false;

}  // namespace

std::exception_ptr NoValueError(const PromiseBase& frame) {
  return std::make_exception_ptr(
      InvalidState(absl::StrCat("the coroutine ended without co_return, and has no value; it was last seen at ",
                                frame.where.file_name(), ":", frame.where.line())));
}

void DestroyUnawaited(PromiseBase& frame) {
  EventLoop* const loop = EventLoop::CurrentOrNull();
  if (loop != nullptr && loop->debug() && !discarding) {
    ExceptionContext context;
    context.message = "coroutine was never awaited";
    context.Add("coroutine", absl::StrCat("<coroutine at ", frame.where.file_name(), ":", frame.where.line(), " ",
                                          frame.where.function_name(), ">"));
    loop->CallExceptionHandlerLater(context);
  }
  frame.self.destroy();
}

Leaf::~Leaf() {
  if (root_ != nullptr && root_->waiting_ == this) root_->waiting_ = nullptr;
}

void Leaf::Suspend() {
  Root& root = *thread_state.root;
  root_ = &root;
  woken_ = false;
  root.running_ = false;
  root.waiting_ = this;
  // A task that was cancelled while it ran sees it here, at its next suspension (C-TSK-08).
  if (std::exchange(root.cancel_requested_, false)) CancelWait();
}

void Leaf::Wake() {
  woken_ = true;
  root_->waiting_ = nullptr;
  if (!root_->loop_.IsClosed()) root_->loop_.Schedule(*root_);
}

void Leaf::WakeCancelled() {
  root_->cancel_requested_ = true;
  Wake();
}

void Leaf::CancelOnceWoken() { root_->cancel_requested_ = true; }

void Leaf::Unwake() {
  if (root_->cancel_requested_) return;
  woken_ = false;
  root_->Unlink();
  root_->waiting_ = this;
}

void Leaf::Resumed() {
  if (root_ == nullptr) return;  // it was ready and never suspended
  Root* root = std::exchange(root_, nullptr);
  if (std::exchange(root->cancel_requested_, false)) throw Cancelled();
}

bool Root::Cancel() {
  if (finished_ || frame_ == nullptr) return false;
  if (waiting_ != nullptr) {
    if (cancelling_) {
      in_circle_ = this;
      return false;
    }
    cancelling_ = true;
    waiting_->CancelWait();
    cancelling_ = false;
    if (in_circle_ == this) in_circle_ = nullptr;
  } else {
    cancel_requested_ = true;
  }
  return true;
}

void Root::Run() {
  if (!started_ && std::exchange(cancel_requested_, false)) {
    DestroyChain();
    finished_ = true;
    return OnCancelledUnstarted();
  }
  started_ = true;
  {
    // One chain may start another in place (a session's handler, inside a step): the outer one stays what it was.
    Root* const outer = std::exchange(thread_state.root, this);
    ContextScope scope(context_);
    running_ = true;
    do {
      at_->self.resume();
    } while (running_);
    thread_state.root = outer;
  }
  if (finished_) {
    OnFinished();
  } else if (doomed_) {
    OnDoomed();
  }
}

void Root::DestroyChain() {
  Unlink();
  PromiseBase* frame = std::exchange(at_, nullptr);
  frame_ = nullptr;
  const bool outer = std::exchange(discarding, discarding || !finished_);
  while (frame != nullptr) {
    PromiseBase* const parent = frame->parent;
    if (frame->owner != nullptr) *frame->owner = nullptr;
    frame->self.destroy();
    frame = parent;
  }
  discarding = outer;
}

std::string Root::DescribeChain() const {
  std::vector<const PromiseBase*> frames;
  for (const PromiseBase* frame = at_; frame != nullptr; frame = frame->parent) frames.push_back(frame);
  std::string text;
  if (!started_) absl::StrAppend(&text, "  not started\n");
  for (auto it = frames.rbegin(); it != frames.rend(); ++it) {
    const std::source_location& where = (*it)->where;
    absl::StrAppend(&text, "  at ", where.file_name(), ":", where.line(), " ", where.function_name(), "\n");
  }
  if (waiting_ != nullptr) {
    absl::StrAppend(&text, "  waits in ", waiting_->DescribeWait(), "\n");
  } else if (running_) {
    absl::StrAppend(&text, "  running\n");
  } else if (linked()) {
    absl::StrAppend(&text, "  queued to run\n");
  }
  return text;
}

}  // namespace troupe::internal
