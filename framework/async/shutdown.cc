#include "troupe/async/shutdown.h"

#include "troupe/async/internal/executor_works.h"
#include "troupe/async/internal/generators.h"

namespace troupe {

Task<void> ShutdownAsyncGenerators(EventLoop& loop) { co_await loop.Local<internal::Generators>().Shutdown(); }

Task<void> ShutdownExecutor(EventLoop& loop) {
  if (auto* works = loop.LocalOrNull<internal::ExecutorWorks>()) {
    co_await works->Drained();
  }
}

}  // namespace troupe
