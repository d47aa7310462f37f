#include "troupe/async/dump_tasks.h"

#include "absl/strings/str_cat.h"

namespace troupe {

std::string DumpTasks(EventLoop& loop) {
  std::string text;
  for (const internal::TaskNode& task : loop.tasks()) absl::StrAppend(&text, task.DescribeTask());
  return text;
}

}  // namespace troupe
