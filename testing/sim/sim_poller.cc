#include "troupe/testing/sim/sim_poller.h"

#include <algorithm>
#include <cerrno>

#include "troupe/testing/sim/sim_os.h"

namespace troupe::testing {

struct SimPoller::Watch final : SimDescriptorWatcher, ListNode<> {
  Watch(SimPoller& poller, int fd, SimDescriptor& descriptor, uint32_t interest, void* token)
      : poller(poller), fd(fd), descriptor(&descriptor), interest(interest), token(token) {}
  ~Watch() {
    if (descriptor != nullptr) descriptor->RemoveWatcher(*this);
  }

  // Readiness bits to report now.
  uint32_t Ready() const {
    const uint32_t ready = descriptor->Readiness();
    return (ready & SimDescriptor::kHangUp) != 0 ? kReadable | kWritable : ready & interest;
  }
  void DescriptorChanged() override {
    if (!linked()) poller.candidates_.PushBack(*this);
  }
  void DescriptorClosed() override {
    descriptor = nullptr;
    poller.watches_.erase(fd);  // deletes this
  }

  SimPoller& poller;
  const int fd;
  SimDescriptor* descriptor;
  uint32_t interest;
  void* token;
};

SimPoller::SimPoller(SimOs& os, SimClock& clock) : os_(os), clock_(clock) {}

SimPoller::~SimPoller() { os_.ForgetPoller(*this); }

int SimPoller::Add(int fd, uint32_t interest, void* token) {
  SimDescriptor* descriptor = nullptr;
  if (const int error = os_.Begin("Poller.Add", fd, &descriptor); error != 0) return error;
  if (!descriptor->can_be_polled()) return -EPERM;
  if (watches_.find(fd) != watches_.end()) return -EEXIST;
  auto watch = std::make_unique<Watch>(*this, fd, *descriptor, interest, token);
  descriptor->AddWatcher(*watch);
  watch->DescriptorChanged();
  watches_.emplace(fd, std::move(watch));
  return 0;
}

int SimPoller::Modify(int fd, uint32_t interest, void* token) {
  SimDescriptor* descriptor = nullptr;
  if (const int error = os_.Begin("Poller.Modify", fd, &descriptor); error != 0) return error;
  const auto found = watches_.find(fd);
  if (found == watches_.end()) return -ENOENT;
  Watch& watch = *found->second;
  watch.interest = interest;
  watch.token = token;
  watch.DescriptorChanged();
  return 0;
}

int SimPoller::Remove(int fd) {
  SimDescriptor* descriptor = nullptr;
  if (const int error = os_.Begin("Poller.Remove", fd, &descriptor); error != 0) return error;
  return watches_.erase(fd) > 0 ? 0 : -ENOENT;
}

int SimPoller::CollectReady(absl::Span<PollEvent> events) {
  size_t count = 0;
  IntrusiveList<Watch> still_ready;
  while (count < events.size() && !candidates_.empty()) {
    Watch& watch = candidates_.PopFront();
    const uint32_t ready = watch.Ready();
    if (ready == 0) continue;
    events[count++] = {watch.token, ready};
    still_ready.PushBack(watch);
  }
  candidates_.SpliceBack(still_ready);
  return static_cast<int>(count);
}

int SimPoller::Wait(MonotonicTime deadline, absl::Span<PollEvent> events) {
  const uint64_t foreign_runs = clock_.foreign_runs();
  if (!os_.crashed()) clock_.AdvanceTo(clock_.Now());  // what is due now
  while (true) {
    if (os_.crashed()) return -EIO;
    const int count = CollectReady(events);
    if (count > 0 || woken_ || deadline <= clock_.Now() || clock_.foreign_runs() != foreign_runs) {
      woken_ = false;
      return count;
    }
    const MonotonicTime next = std::min(deadline, clock_.NextEventTime());
    if (next.is_infinite()) return -EDEADLK;
    clock_.AdvanceTo(next);
  }
}

void SimPoller::Wake() {
  clock_.CheckThread();
  woken_ = true;
}

}  // namespace troupe::testing
