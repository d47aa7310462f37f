#include "troupe/loop/timer_heap.h"

#include <algorithm>

namespace troupe {
namespace {
constexpr size_t kArity = 4;
}

void TimerHeap::Add(Timer& timer, MonotonicTime when) {
  timer.when_ = when;
  const Entry entry{when, sequence_++, &timer};
  entries_.push_back(entry);
  SiftUp(entries_.size() - 1, entry);
}

void TimerHeap::Remove(Timer& timer) {
  if (!timer.scheduled()) return;
  const size_t index = timer.index_;
  timer.index_ = Timer::kNone;
  const Entry last = entries_.back();
  entries_.pop_back();
  if (index == entries_.size()) return;
  if (index > 0 && last < entries_[(index - 1) / kArity]) {
    SiftUp(index, last);
  } else {
    SiftDown(index, last);
  }
}

Timer& TimerHeap::PopFront() {
  Timer& first = *entries_.front().timer;
  Remove(first);
  return first;
}

void TimerHeap::SiftUp(size_t index, Entry entry) {
  while (index > 0) {
    const size_t parent = (index - 1) / kArity;
    if (!(entry < entries_[parent])) break;
    Place(index, entries_[parent]);
    index = parent;
  }
  Place(index, entry);
}

void TimerHeap::SiftDown(size_t index, Entry entry) {
  const size_t count = entries_.size();
  while (true) {
    const size_t first = index * kArity + 1;
    if (first >= count) break;
    size_t least = first;
    for (size_t child = first + 1; child < std::min(first + kArity, count); ++child) {
      if (entries_[child] < entries_[least]) least = child;
    }
    if (!(entries_[least] < entry)) break;
    Place(index, entries_[least]);
    index = least;
  }
  Place(index, entry);
}

}  // namespace troupe
