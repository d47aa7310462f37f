#include "troupe/async/task_group.h"

#include <coroutine>
#include <string>

#include "absl/strings/str_cat.h"
#include "troupe/async/internal/root.h"
#include "troupe/base/errors.h"
#include "troupe/base/pool.h"

namespace troupe {

class TaskGroup::Child final : public internal::DoneWatcher, public ListNode<TaskGroup>, public Pooled {
 public:
  explicit Child(TaskGroup& group) : group_(group) {}

 private:
  void OnDone() override { group_.OnChildDone(*this); }
  TaskGroup& group_;
};

class TaskGroup::JoinLeaf final : public internal::Leaf {
 public:
  explicit JoinLeaf(TaskGroup& group) : group_(&group) {}
  ~JoinLeaf() {
    if (group_ != nullptr && group_->joining_ == this) group_->joining_ = nullptr;
  }
  bool await_ready() const noexcept { return group_->empty(); }
  void await_suspend(std::coroutine_handle<>) {
    group_->joining_ = this;
    Suspend();
  }
  void await_resume() {
    Resumed();
    if (group_ != nullptr) group_->joining_ = nullptr;
  }
  std::string DescribeWait() const override {
    return absl::StrCat("TaskGroup::Join of ", group_ != nullptr ? group_->size() : 0, " tasks");
  }

  void OnEmpty() {
    if (woken_) return;  // and another child came and went since
    woken_ = true;
    group_->cancelling_ = false;
    if (cancelled_ && !group_->exception_) {
      WakeCancelled();
    } else {
      Wake();
    }
  }
  void Abandon() {
    group_ = nullptr;
    if (woken_) Unwake();
  }

 private:
  void CancelWait() override {
    if (group_ == nullptr) return WakeCancelled();
    cancelled_ = true;
    group_->Cancel();
  }

  TaskGroup* group_;
  bool woken_ = false;
  bool cancelled_ = false;
};

TaskGroup::TaskGroup(EventLoop& loop) : loop_(loop) {}

TaskGroup::~TaskGroup() {
  if (joining_ != nullptr) joining_->Abandon();
  while (!children_.empty()) {
    Child& youngest = children_.back();
    static_cast<ListNode<TaskGroup>&>(youngest).Unlink();
    const internal::Ref task = youngest.ref();
    delete &youngest;
    task->DestroyNow();
  }
  if (!exception_) return;
  ExceptionContext context;
  context.message = "TaskGroup exception was never retrieved";
  context.exception = exception_;
  loop_.CallExceptionHandlerLater(context);
}

void TaskGroup::Add(internal::Ref task) {
  auto* child = new Child(*this);
  children_.PushBack(*child);
  ++size_;
  if (cancelling_) task->Cancel();
  child->Watch(std::move(task));
}

void TaskGroup::Cancel() {
  cancelling_ = true;
  // Cancelling runs nothing: no child leaves the list meanwhile.
  for (Child& child : children_) child.future().Cancel();
}

void TaskGroup::OnChildDone(Child& child) {
  const internal::Ref task = child.ref();
  static_cast<ListNode<TaskGroup>&>(child).Unlink();
  delete &child;
  --size_;

  task->MarkRetrieved();
  const bool failed_before = exception_ || !status_.ok();
  if (task->state() == internal::FutureCore::kError) {
    std::exception_ptr error = task->exception();
    absl::Status status = internal::StatusIn(error);
    if (!failed_before) {
      status_ = std::move(status);
      if (status_.ok()) exception_ = std::move(error);
    } else if (status.ok()) {
      ExceptionContext context;
      context.message = "Exception in a task of a TaskGroup that had failed before";
      context.exception = std::move(error);
      context.Add("task", task->Describe(), task.get());
      loop_.CallExceptionHandlerLater(context);
    }
  } else if (!failed_before) {
    status_ = task->ValueStatus();
  }
  if (!failed_before && (exception_ || !status_.ok())) Cancel();
  if (children_.empty() && joining_ != nullptr) joining_->OnEmpty();
}

absl::Status TaskGroup::TakeError() {
  if (exception_) std::rethrow_exception(std::exchange(exception_, nullptr));
  return std::exchange(status_, absl::OkStatus());
}

Task<absl::Status> TaskGroup::Join() {
  if (joining_ != nullptr) throw InvalidState("the TaskGroup is being joined already");
  while (!empty()) {
    co_await JoinLeaf(*this);
  }
  cancelling_ = false;
  co_return TakeError();
}

}  // namespace troupe
