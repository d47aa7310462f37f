#include "troupe/loop/fd_watcher.h"

#include "troupe/loop/event_loop.h"

namespace troupe {

FdWatcher::FdWatcher(EventLoop& loop, int fd) : watcher_loop_(loop), fd_(fd) { loop.ClaimDescriptor(*this); }

FdWatcher::~FdWatcher() { Release(); }

void FdWatcher::Release() {
  Watch(0);
  watcher_loop_.ReleaseDescriptor(*this);
}

int FdWatcher::Watch(uint32_t interest) {
  if ((interest & kReadable) == 0) readable_.Unlink();
  if ((interest & kWritable) == 0) writable_.Unlink();
  if (interest == interest_) return 0;
  const int result = watcher_loop_.SetWatch(*this, interest_, interest);
  if (result == 0) interest_ = interest;
  return result;
}

void FdWatcher::Notify(uint32_t ready) {
  ready &= interest_;
  if ((ready & kReadable) != 0 && !readable_.linked()) watcher_loop_.Schedule(readable_);
  if ((ready & kWritable) != 0 && !writable_.linked()) watcher_loop_.Schedule(writable_);
}

}  // namespace troupe
