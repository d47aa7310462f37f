// DumpTasks: every unfinished task of a loop with its chain of awaits, source lines, and what it waits in. For people.
//
// Threading: the loop's; from elsewhere by CallSoonThreadsafe.
#ifndef TROUPE_ASYNC_DUMP_TASKS_H_
#define TROUPE_ASYNC_DUMP_TASKS_H_

#include <string>

#include "troupe/loop/event_loop.h"

namespace troupe {

// In order of creation, one paragraph each; "" when there is none.
std::string DumpTasks(EventLoop& loop);

}  // namespace troupe

#endif  // TROUPE_ASYNC_DUMP_TASKS_H_
