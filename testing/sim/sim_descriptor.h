// SimDescriptor: what a descriptor of a simulated host stands for: a socket, an end of a pipe, a file, a process.
//
// Tests do not use it: SimOs gives each a number. Derive from it for another kind, with calls of its own, and tell
// Changed() whenever Readiness() may have changed. Several descriptors, also of several hosts, may share one.
//
// Threading: the clock's thread.
#ifndef TROUPE_TESTING_SIM_SIM_DESCRIPTOR_H_
#define TROUPE_TESTING_SIM_SIM_DESCRIPTOR_H_

#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"

namespace troupe::testing {

// Told when what a descriptor is ready for may have changed, and when it is gone.
class SimDescriptorWatcher {
 public:
  virtual void DescriptorChanged() = 0;
  virtual void DescriptorClosed() = 0;  // the last call; the watcher is forgotten already

 protected:
  ~SimDescriptorWatcher() = default;
};

class SimDescriptor {
 public:
  enum ReadinessBits : uint32_t { kHangUp = 1 << 16 };  // reported whatever one waits for

  SimDescriptor() = default;
  SimDescriptor(const SimDescriptor&) = delete;
  SimDescriptor& operator=(const SimDescriptor&) = delete;
  virtual ~SimDescriptor() { TellClosed(); }

  // troupe::Readiness bits, and the above.
  virtual uint32_t Readiness() const = 0;
  // False: a poller refuses it, EPERM.
  virtual bool can_be_polled() const { return true; }
  // What Os::AdoptPipe takes: a pipe, a socket, a character device.
  virtual bool is_pipe_like() const { return false; }
  // As read(2) and write(2), at most `bytes_max` of them; -EBADF: not in this direction, -EINVAL: in none.
  virtual int64_t Read(absl::Span<char> /*bytes*/) { return -EINVAL; }
  virtual int64_t Write(absl::Span<const iovec> /*bytes*/, size_t /*bytes_max*/) { return -EINVAL; }
  // The other end goes, in good order: here is the end of file, and there too. What has not been read here is lost.
  virtual void HangUp() {}
  // As if the machine had lost power: nobody is told. Nothing is left to do but to destroy it.
  virtual void Vanish() {}

  void AddWatcher(SimDescriptorWatcher& watcher) { watchers_.push_back(&watcher); }
  void RemoveWatcher(SimDescriptorWatcher& watcher) {
    watchers_.erase(std::find(watchers_.begin(), watchers_.end(), &watcher));
  }

 protected:
  void Changed() {
    for (SimDescriptorWatcher* watcher : watchers_) watcher->DescriptorChanged();
  }
  // For destructors that go on to use what watchers could ask about.
  void TellClosed() {
    for (SimDescriptorWatcher* watcher : std::exchange(watchers_, {})) watcher->DescriptorClosed();
  }

 private:
  std::vector<SimDescriptorWatcher*> watchers_;
};

}  // namespace troupe::testing

#endif  // TROUPE_TESTING_SIM_SIM_DESCRIPTOR_H_
