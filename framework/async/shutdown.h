// ShutdownAsyncGenerators, ShutdownExecutor: the end of a loop that one runs oneself. troupe::Run (run.h) does both.
//
//   loop.RunUntilComplete(Main());
//   loop.RunUntilComplete(ShutdownAsyncGenerators(loop));
//   loop.RunUntilComplete(ShutdownExecutor(loop));
//   loop.Close();
//
// Threading: the loop's.
#ifndef TROUPE_ASYNC_SHUTDOWN_H_
#define TROUPE_ASYNC_SHUTDOWN_H_

#include "troupe/async/task.h"
#include "troupe/loop/event_loop.h"

namespace troupe {

// Closes the asynchronous generators that are under way, one after the other; what they throw reaches the exception
// handler. From then on each that starts is warned of (C-RUN-04).
Task<void> ShutdownAsyncGenerators(EventLoop& loop);

// Waits until nothing of RunInExecutor is under way any more (C-RUN-03).
Task<void> ShutdownExecutor(EventLoop& loop);

}  // namespace troupe

#endif  // TROUPE_ASYNC_SHUTDOWN_H_
