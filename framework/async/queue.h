// Queue<T>: hands values from producers to consumers on one loop, bounded if asked.
//
// Use it between tasks of one loop, as asyncio.Queue. Producers wait while it is full, consumers while it is empty;
// both are served in the order in which they came. Between threads use EventLoop::CallSoonThreadsafe.
//
//   Queue<Job> jobs(16);
//   co_await jobs.Put(std::move(job));     // name the job first: g++ 12 frees a temporary here twice
//   Job job = co_await jobs.Get();
//
// Cancelled: a cancelled Put has put nothing, a cancelled Get has taken nothing, and who waits behind is served
// instead. Threading: the loop's.     Lifetime: outlives the tasks that wait in it.
#ifndef TROUPE_ASYNC_QUEUE_H_
#define TROUPE_ASYNC_QUEUE_H_

#include <cstddef>
#include <deque>
#include <optional>
#include <utility>

#include "troupe/async/internal/wait_list.h"
#include "troupe/async/task.h"
#include "troupe/base/errors.h"

namespace troupe {

template <class T>
class Queue {
 public:
  // Zero: without a bound.
  explicit Queue(size_t size_max = 0) : size_max_(size_max) {}
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  // Waits while the queue is full.
  Task<void> Put(T value) {
    while (full()) {
      co_await putters_.Wait();
    }
    Push(std::move(value));
  }
  // False, and `value` was not moved from: the queue is full.
  [[nodiscard]] bool TryPut(T&& value) {
    if (full()) return false;
    Push(std::move(value));
    return true;
  }

  // Waits while the queue is empty.
  Task<T> Get() {
    while (empty()) {
      co_await getters_.Wait();
    }
    co_return Pop();
  }
  // Nothing: the queue is empty.
  std::optional<T> TryGet() {
    if (empty()) return std::nullopt;
    return Pop();
  }

  // A value that Get gave has been dealt with. InvalidState: more often than values were put.
  void TaskDone() {
    if (unfinished_ == 0) throw InvalidState("TaskDone() called too many times");
    if (--unfinished_ == 0) joiners_.WakeAll();
  }
  // Waits until TaskDone has been called for every value that was put.
  Task<void> Join() {
    while (unfinished_ > 0) {
      co_await joiners_.Wait();
    }
  }

  size_t size() const { return values_.size(); }
  size_t size_max() const { return size_max_; }
  bool empty() const { return values_.empty(); }
  bool full() const { return size_max_ > 0 && values_.size() >= size_max_; }

 private:
  void Push(T value) {
    values_.push_back(std::move(value));
    ++unfinished_;
    getters_.WakeOne();
  }
  T Pop() {
    T value = std::move(values_.front());
    values_.pop_front();
    putters_.WakeOne();
    return value;
  }
  static void OnGetterLost(void* self) {
    auto& queue = *static_cast<Queue*>(self);
    if (!queue.empty()) queue.getters_.WakeOne();
  }
  static void OnPutterLost(void* self) {
    auto& queue = *static_cast<Queue*>(self);
    if (!queue.full()) queue.putters_.WakeOne();
  }

  const size_t size_max_;
  std::deque<T> values_;
  size_t unfinished_ = 0;
  internal::WaitList getters_{"Queue::Get", this, OnGetterLost};
  internal::WaitList putters_{"Queue::Put", this, OnPutterLost};
  internal::WaitList joiners_{"Queue::Join", this, nullptr};
};

}  // namespace troupe

#endif  // TROUPE_ASYNC_QUEUE_H_
