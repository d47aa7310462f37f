// WorkQueue: the queue of an implementation of WorkerPool: first in, first out, leaving from the middle in O(1).
//
// It links the Works themselves, so nothing allocates. Users of worker pools have no use for it.
//
// Threading: as its owner locks it.     Lifetime: each Work stays alive while it is queued.
#ifndef TROUPE_OS_WORK_QUEUE_H_
#define TROUPE_OS_WORK_QUEUE_H_

#include <cstddef>

#include "troupe/os/os.h"

namespace troupe {

class WorkQueue {
 public:
  WorkQueue() = default;
  WorkQueue(const WorkQueue&) = delete;
  WorkQueue& operator=(const WorkQueue&) = delete;
  ~WorkQueue() {
    while (Pop() != nullptr) {
    }
  }

  size_t size() const { return size_; }

  // `work` is in a queue of this kind. A Work is submitted to one pool at a time.
  static bool Contains(const Work& work) { return work.queued_; }

  // REQUIRES: !Contains(work).
  void Push(Work& work) {
    work.queued_ = true;
    work.previous_ = last_;
    work.next_ = nullptr;
    (last_ == nullptr ? first_ : last_->next_) = &work;
    last_ = &work;
    ++size_;
  }

  // The oldest, or null.
  Work* Pop() {
    Work* const work = first_;
    if (work != nullptr) Remove(*work);
    return work;
  }

  // False: it was not here.
  bool Remove(Work& work) {
    if (!work.queued_) return false;
    (work.previous_ == nullptr ? first_ : work.previous_->next_) = work.next_;
    (work.next_ == nullptr ? last_ : work.next_->previous_) = work.previous_;
    work.next_ = work.previous_ = nullptr;
    work.queued_ = false;
    --size_;
    return true;
  }

 private:
  Work* first_ = nullptr;
  Work* last_ = nullptr;
  size_t size_ = 0;
};

}  // namespace troupe

#endif  // TROUPE_OS_WORK_QUEUE_H_
