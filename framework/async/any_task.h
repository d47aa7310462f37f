// AnyTask: a task of whatever type. CurrentTask: the one that runs. AllTasks: those of a loop that are not done.
//
// For supervision, logs and tests: who they are, how they are, an end to them. For a value keep the TaskHandle.
//
//   for (const AnyTask& task : AllTasks(loop)) {
//     if (task != CurrentTask()) task.Cancel();
//   }
//
// Threading: the loop's.     Lifetime: like a TaskHandle, it keeps the outcome, not the coroutine.
#ifndef TROUPE_ASYNC_ANY_TASK_H_
#define TROUPE_ASYNC_ANY_TASK_H_

#include <string>
#include <utility>
#include <vector>

#include "troupe/async/future.h"
#include "troupe/async/task.h"
#include "troupe/base/errors.h"
#include "troupe/loop/event_loop.h"

namespace troupe {

class AnyTask {
 public:
  AnyTask() = default;  // of nothing: only assignment, comparison and valid() make sense
  template <class T>
  AnyTask(const TaskHandle<T>& task) : core_(task.core()) {}  // NOLINT(google-explicit-constructor): it is one

  bool valid() const { return core_.get() != nullptr; }
  bool done() const { return Core().done(); }
  bool cancelled() const { return Core().state() == internal::FutureCore::kCancelled; }
  bool Cancel() const { return Core().Cancel(); }
  const std::string& name() const { return Core().name(); }
  EventLoop& loop() const { return Core().loop(); }
  std::string ToString() const { return valid() ? core_->Describe() : "<Task of nothing>"; }

  // The same task.
  friend bool operator==(const AnyTask& a, const AnyTask& b) { return a.core_.get() == b.core_.get(); }

  // For the framework.
  explicit AnyTask(internal::Ref core) : core_(std::move(core)) {}

 private:
  internal::FutureCore& Core() const {
    if (!valid()) throw InvalidState("the task is of nothing");
    return *core_.get();
  }
  internal::Ref core_;
};

// The task whose step runs; of nothing in a callback, and in the handler of a call. Throws InvalidState where no loop
// runs.
AnyTask CurrentTask();
// The same for `loop`: of nothing while another loop runs in this thread, or none.
AnyTask CurrentTask(EventLoop& loop);

// In order of creation.
std::vector<AnyTask> AllTasks(EventLoop& loop);

}  // namespace troupe

#endif  // TROUPE_ASYNC_ANY_TASK_H_
