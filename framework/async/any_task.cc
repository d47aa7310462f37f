#include "troupe/async/any_task.h"

#include "troupe/async/internal/root.h"

namespace troupe {
namespace {

AnyTask Shared(internal::FutureCore& core) {
  core.Retain();
  return AnyTask(internal::Ref(&core));
}

}  // namespace

AnyTask CurrentTask() { return CurrentTask(EventLoop::Current()); }

AnyTask CurrentTask(EventLoop& loop) {
  internal::Root* const root = internal::Root::Current();
  if (root == nullptr || &root->loop() != &loop) return AnyTask();
  internal::FutureCore* const task = root->AsFuture();
  return task != nullptr ? Shared(*task) : AnyTask();
}

std::vector<AnyTask> AllTasks(EventLoop& loop) {
  std::vector<AnyTask> tasks;
  for (internal::TaskNode& node : loop.tasks()) {
    if (internal::FutureCore* const task = node.AsFuture()) tasks.push_back(Shared(*task));
  }
  return tasks;
}

}  // namespace troupe
