#include "troupe/loop/internal/thread_state.h"

#include "troupe/loop/internal/assigned_loop.h"

namespace troupe::internal {
thread_local constinit ThreadState thread_state;
thread_local constinit AssignedLoop assigned_loop;
}
