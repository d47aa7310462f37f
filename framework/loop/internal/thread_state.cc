#include "troupe/loop/internal/thread_state.h"

namespace troupe::internal {
thread_local constinit ThreadState thread_state;
}
