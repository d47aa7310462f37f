// TaskGroup: runs tasks that belong together; they end together, and before their owner does.
//
//   TaskGroup group;
//   group.Spawn(Pump(from, to), "pump");
//   group.Spawn(Watch(from), "watch");
//   CO_RETURN_IF_ERROR(co_await group.Join());
//
// Use it for a varying number of tasks, for tasks that borrow from their owner, and as the last member of a class whose
// tasks use its other members. For a fixed number of results Gather is shorter.
//
// Life:      made -> Spawn* -> Join -> Spawn* -> ... -> destroyed
// Errors:    the first child that fails (an exception, or a status that is not OK) cancels the others. Join waits until
//            the last one has ended and then throws the exception or returns the status. Exceptions after the first are
//            reported to the loop's exception handler; statuses after it are dropped. A child that somebody cancelled
//            by its handle has not failed.
// Cancelled: a cancelled Join cancels the children, waits until they have ended, and throws Cancelled; an
//            exception of a child goes before it.
// Lifetime:  what borrows from the children's arguments. The destructor destroys what is left where it stands, the
//            youngest first; a child that is running just then goes when it suspends. An exception that no Join has
//            taken is reported.
// Context:   children inherit all of it, deadline included.
// Threading: the loop's.
#ifndef TROUPE_ASYNC_TASK_GROUP_H_
#define TROUPE_ASYNC_TASK_GROUP_H_

#include <cstddef>
#include <exception>
#include <source_location>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "troupe/async/future.h"
#include "troupe/async/internal/done_watcher.h"
#include "troupe/async/task.h"
#include "troupe/base/intrusive_list.h"
#include "troupe/loop/context.h"
#include "troupe/loop/event_loop.h"

namespace troupe {

class TaskGroup {
 public:
  explicit TaskGroup(EventLoop& loop = EventLoop::Current());
  TaskGroup(const TaskGroup&) = delete;
  TaskGroup& operator=(const TaskGroup&) = delete;
  ~TaskGroup();

  // Its first step runs in the next iteration. In a group that has failed or was cancelled it never does, until Join
  // has returned: the handle ends cancelled. The handle need not be kept; await it for the value.
  template <class T>
  TaskHandle<T> Spawn(Task<T> task, absl::string_view name = "",
                      std::source_location where = std::source_location::current()) {
    TaskHandle<T> handle = internal::StartTask(loop_, std::move(task), name, Context::Current(), where, /*quiet=*/true);
    Add(handle.core());
    return handle;
  }

  // Waits until no child is left, also of those that are spawned meanwhile. OK, or the first error. One at a time.
  [[nodiscard]] Task<absl::Status> Join();

  // Cancels every child, and those that are spawned until Join has returned. Join still waits for them.
  void Cancel();

  // Children that have not ended.
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  EventLoop& loop() const { return loop_; }

 private:
  class Child;
  class JoinLeaf;
  void Add(internal::Ref task);
  void OnChildDone(Child& child);
  absl::Status TakeError();

  EventLoop& loop_;
  IntrusiveList<Child, TaskGroup> children_;
  size_t size_ = 0;
  bool cancelling_ = false;
  absl::Status status_;           // the first error, or
  std::exception_ptr exception_;  // the first error
  JoinLeaf* joining_ = nullptr;
};

}  // namespace troupe

#endif  // TROUPE_ASYNC_TASK_GROUP_H_
