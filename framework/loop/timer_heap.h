// TimerHeap: timers ordered by time, ties by the order of scheduling; one that is cancelled leaves at once.
//
// A 4-ary heap of (time, sequence, timer) that tells each timer its index, so that removal from the middle is O(log n)
// and no cancelled timer is ever kept (which keeps C-LOOP-29 and C-LOOP-30).
#ifndef TROUPE_LOOP_TIMER_HEAP_H_
#define TROUPE_LOOP_TIMER_HEAP_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "troupe/base/monotonic_time.h"
#include "troupe/loop/runnable.h"

namespace troupe {

// A Runnable that is due at a time. Embedded in sleeping coroutines and in the nodes behind TimerHandle.
class Timer : public Runnable {
 public:
  MonotonicTime when() const { return when_; }
  // Waits in a heap; false again from the moment that the timer is due.
  bool scheduled() const { return index_ != kNone; }

 protected:
  // REQUIRES: !scheduled(): the owner cancels first.
  ~Timer() = default;

 private:
  friend class TimerHeap;
  static constexpr uint32_t kNone = ~uint32_t{0};
  MonotonicTime when_;
  uint32_t index_ = kNone;
};

class TimerHeap {
 public:
  bool empty() const { return entries_.empty(); }
  size_t size() const { return entries_.size(); }
  // REQUIRES: !empty().
  MonotonicTime next() const { return entries_.front().when; }

  // REQUIRES: !timer.scheduled().
  void Add(Timer& timer, MonotonicTime when);
  // No effect on a timer that is not scheduled.
  void Remove(Timer& timer);
  // REQUIRES: !empty().
  Timer& PopFront();

 private:
  struct Entry {
    MonotonicTime when;
    uint64_t sequence;
    Timer* timer;
    bool operator<(const Entry& other) const {
      return when != other.when ? when < other.when : sequence < other.sequence;
    }
  };
  void Place(size_t index, const Entry& entry) {
    entries_[index] = entry;
    entry.timer->index_ = static_cast<uint32_t>(index);
  }
  void SiftUp(size_t index, Entry entry);
  void SiftDown(size_t index, Entry entry);

  std::vector<Entry> entries_;
  uint64_t sequence_ = 0;
};

}  // namespace troupe

#endif  // TROUPE_LOOP_TIMER_HEAP_H_
