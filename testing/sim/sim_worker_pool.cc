#include "troupe/testing/sim/sim_worker_pool.h"

#include <memory>
#include <utility>

#include "glog/logging.h"

namespace troupe::testing {

SimWorkerPool::SimWorkerPool(SimClock& clock, int threads_max, absl::Duration latency)
    : clock_(clock), threads_max_(static_cast<size_t>(threads_max)), latency_(latency) {
  CHECK_GT(threads_max, 0);
}

SimWorkerPool::~SimWorkerPool() {
  CHECK(running_ == nullptr) << "a worker pool ended on one of its own workers";
  for (const SimClock::EventId& id : starting_) clock_.Cancel(id);
}

void SimWorkerPool::Submit(Work& work) {
  clock_.CheckThread();
  CHECK(!WorkQueue::Contains(work)) << "submitted twice";
  queue_.Push(work);
  StartWorkers();
}

bool SimWorkerPool::Cancel(Work& work) { return queue_.Remove(work); }

void SimWorkerPool::Wait(Work& work) {
  CHECK(running_ != &work) << "work waits for itself";
  while (WorkQueue::Contains(work)) RunNext();
}

void SimWorkerPool::RunNext() {
  Work* const work = queue_.Pop();
  if (work == nullptr) return;  // cancelled, or somebody waited for it
  clock_.NoteForeignCode();
  const Work* const outer = std::exchange(running_, work);
  work->Run();
  running_ = outer;
}

void SimWorkerPool::StartWorkers() {
  while (starting_.size() < threads_max_ && starting_.size() < queue_.size()) {
    // The event needs its own name, which only scheduling gives.
    auto id = std::make_shared<SimClock::EventId>();
    *id = clock_.After(latency_, [this, id] {
      starting_.erase(*id);
      RunNext();
      StartWorkers();
    });
    starting_.insert(*id);
  }
}

}  // namespace troupe::testing
