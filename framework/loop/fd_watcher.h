// FdWatcher: calls OnReadable and OnWritable of its owner while a descriptor is ready.
//
// The base of transports and listeners. Users watch descriptors with EventLoop::AddReader and AddWriter.
// Level-triggered; readiness becomes a queued callback of the iteration, reading before writing (C-SCK-03), and what is
// no longer wanted by then does not run.
//
// The descriptor belongs to its first watcher, whether that waits for something or not, until it is released
// (C-TRN-14).
//
// Life:      made -> Watch(bits)* -> destroyed (or Release), before the descriptor is closed
// Threading: the loop's.     Lifetime: within the loop's; may be destroyed in its own callbacks.
#ifndef TROUPE_LOOP_FD_WATCHER_H_
#define TROUPE_LOOP_FD_WATCHER_H_

#include <cstdint>
#include <string>

#include "troupe/loop/runnable.h"
#include "troupe/os/os.h"

namespace troupe {

class EventLoop;

class FdWatcher {
 public:
  FdWatcher(EventLoop& loop, int fd);
  FdWatcher(const FdWatcher&) = delete;
  FdWatcher& operator=(const FdWatcher&) = delete;

  int fd() const { return fd_; }
  uint32_t interest() const { return interest_; }

  // Watches for these Readiness bits from now on, none included. 0 or -errno. The loop must not be closed, unless
  // `interest` is 0.
  int Watch(uint32_t interest);
  // Watches no more and gives the descriptor up: its number may become another's.
  void Release();

 protected:
  virtual ~FdWatcher();
  virtual void OnReadable() = 0;
  virtual void OnWritable() = 0;
  // Who it is, for "File descriptor ... is used by transport ..." (C-TRN-14).
  virtual std::string DescribeWatcher() const = 0;

  EventLoop& watcher_loop_;

 private:
  friend class EventLoop;
  class Ready final : public Runnable {
   public:
    Ready(FdWatcher& watcher, bool writing) : watcher_(watcher), writing_(writing) {}
    void Run() override { writing_ ? watcher_.OnWritable() : watcher_.OnReadable(); }
    std::string Describe() const override { return watcher_.DescribeWatcher(); }

   private:
    FdWatcher& watcher_;
    const bool writing_;
  };
  // Queues what is wanted of `ready`.
  void Notify(uint32_t ready);

  const int fd_;
  uint32_t interest_ = 0;
  Ready readable_{*this, false};
  Ready writable_{*this, true};
};

}  // namespace troupe

#endif  // TROUPE_LOOP_FD_WATCHER_H_
