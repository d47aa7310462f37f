// Wait: waits until one, or all, of several futures are done, or the time is up; it cancels nothing and never throws
// for their sake (C-CMB-18). AsCompleted: gives results in the order in which they come.
//
//   auto [done, pending] = co_await Wait(handles, {.return_when = WaitUntil::kFirstCompleted});
//
//   AsCompleted<int> results(std::move(tasks));
//   while (results.more()) {
//     absl::StatusOr<int> result = co_await results.Next();
//   }
//
// Wait leaves errors in the futures: look at them. For all results together use Gather.
// Lifetime:  tasks given to AsCompleted belong to it: they are destroyed with it, those left included.
// Threading: the loop's.
#ifndef TROUPE_ASYNC_WAIT_H_
#define TROUPE_ASYNC_WAIT_H_

#include <coroutine>
#include <cstddef>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "troupe/async/ensure_future.h"
#include "troupe/async/future.h"
#include "troupe/async/internal/child_leaf.h"
#include "troupe/async/internal/done_watcher.h"
#include "troupe/async/internal/root.h"
#include "troupe/async/internal/wait_list.h"
#include "troupe/async/task.h"
#include "troupe/async/wait_for.h"
#include "troupe/base/monotonic_time.h"
#include "troupe/loop/event_loop.h"
#include "troupe/loop/timer_heap.h"

namespace troupe {

enum class WaitUntil {
  kAllCompleted,
  kFirstCompleted,  // several may be done by the time that the caller resumes
  kFirstException,  // or all; a status that is not OK counts, being cancelled does not (C-CMB-19)
};

struct WaitOptions {
  WaitUntil return_when = WaitUntil::kAllCompleted;
  absl::Duration timeout = absl::InfiniteDuration();
};

// In the order of the arguments, each future once.
template <class F>
struct WaitResult {
  std::vector<F> done;
  std::vector<F> pending;
};

namespace internal {

// Waits in several futures at once. Throws InvalidState when there are none.
Task<void> WaitSeveral(std::vector<Ref> futures, WaitOptions options);

// What WaitFor answers when nothing came in time, for a time that began elsewhere.
absl::Status NoneCompletedInTime();

}  // namespace internal

// F is Future<T> or TaskHandle<T>. Throws InvalidState when there are none, or of several loops.
template <class F>
Task<WaitResult<F>> Wait(std::vector<F> futures, WaitOptions options = {}) {
  std::vector<F> unique;
  std::vector<internal::Ref> refs;
  for (F& future : futures) {
    bool known = false;
    for (const internal::Ref& ref : refs) known = known || ref.get() == future.core().get();
    if (known) continue;
    refs.push_back(future.core());
    unique.push_back(std::move(future));
  }
  co_await internal::WaitSeveral(std::move(refs), options);
  WaitResult<F> result;
  for (F& future : unique) (future.done() ? result.done : result.pending).push_back(std::move(future));
  co_return result;
}

template <class T>
class AsCompleted {
 public:
  // A is Task<T>, Future<T> or TaskHandle<T>.
  template <class A>
  explicit AsCompleted(std::vector<A> tasks_or_futures, absl::Duration timeout = absl::InfiniteDuration())
      : loop_(internal::MakeChildren(std::move(tasks_or_futures), children_)),
        watchers_(std::make_unique<Watcher[]>(children_.size())),
        left_(children_.size()) {
    for (size_t i = 0; i < children_.size(); ++i) {
      watchers_[i].all = this;
      watchers_[i].child = &children_[i];
      watchers_[i].Watch(children_[i].future);
    }
    if (timeout < absl::InfiniteDuration()) loop_.ScheduleAt(expiry_, loop_.Time() + timeout);
  }
  AsCompleted(const AsCompleted&) = delete;
  AsCompleted& operator=(const AsCompleted&) = delete;
  ~AsCompleted() {
    loop_.Cancel(expiry_);
    watchers_.reset();
    internal::DestroyChildren(children_);
  }

  // Results that Next() has not given yet.
  bool more() const { return left_ > 0; }

  // The next result, as of WaitFor: a status where it failed with one, thrown where it failed otherwise. When the time
  // is up each further call gives DEADLINE_EXCEEDED and leaves the rest running (C-CMB-21). REQUIRES: more().
  Task<internal::NotNested<T>> Next() {
    if (left_ == 0) throw InvalidState("every result was given already");
    while (completed_.empty() && !expired_) {
      co_await ready_.Wait();
    }
    --left_;
    if (completed_.empty()) co_return internal::NoneCompletedInTime();
    const internal::Child& child = *completed_.front();
    completed_.pop_front();
    co_return internal::OutcomeOf<T>(child.future, child.owned);
  }

 private:
  class Watcher final : public internal::DoneWatcher {
   public:
    AsCompleted* all = nullptr;
    const internal::Child* child = nullptr;

   private:
    void OnDone() override {
      all->completed_.push_back(child);
      all->ready_.WakeOne();
    }
  };
  class Expiry final : public Timer {
   public:
    explicit Expiry(AsCompleted& all) : all_(all) {}

   private:
    void Run() override {
      all_.expired_ = true;
      // What has not arrived by now comes too late, though it may be under way already.
      for (size_t i = 0; i < all_.children_.size(); ++i) all_.watchers_[i].Stop();
      all_.ready_.WakeAll();
    }
    AsCompleted& all_;
  };
  // A turn that was not taken: there is still something for another one.
  static void OnLost(void* all) { static_cast<AsCompleted*>(all)->ready_.WakeOne(); }

  std::vector<internal::Child> children_;
  EventLoop& loop_;
  internal::WaitList ready_{"AsCompleted::Next", this, OnLost};
  std::deque<const internal::Child*> completed_;
  Expiry expiry_{*this};
  std::unique_ptr<Watcher[]> watchers_;
  size_t left_;
  bool expired_ = false;
};

}  // namespace troupe

#endif  // TROUPE_ASYNC_WAIT_H_
