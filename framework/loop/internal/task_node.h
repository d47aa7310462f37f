// TaskNode: a task as its loop sees it: something unfinished that can be named and, when the loop closes, destroyed.
#ifndef TROUPE_LOOP_INTERNAL_TASK_NODE_H_
#define TROUPE_LOOP_INTERNAL_TASK_NODE_H_

#include <string>

#include "troupe/base/intrusive_list.h"

namespace troupe::internal {

class FutureCore;

class TaskNode : public ListNode<> {
 public:
  // One paragraph: name, state, and the chain of awaits with source lines, innermost last.
  virtual std::string DescribeTask() const = 0;
  // The loop closes: destroys the suspended frames and reports the task. Leaves the list.
  virtual void DestroyPending() = 0;
  // Its future, if it has one (async/future.h).
  virtual FutureCore* AsFuture() { return nullptr; }

 protected:
  ~TaskNode() = default;
};

}  // namespace troupe::internal

#endif  // TROUPE_LOOP_INTERNAL_TASK_NODE_H_
