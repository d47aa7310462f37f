#include "troupe/testing/sim/sim_worker_pool.h"

#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "glog/logging.h"
#include "troupe/base/errors.h"
#include "troupe/base/os_error.h"
#include "troupe/testing/sim/sim_os.h"

namespace troupe::testing {

SimWorkerPool::SimWorkerPool(SimOs& os, SimClock& clock, int threads_max, absl::Duration latency)
    : os_(os), clock_(clock), threads_max_(static_cast<size_t>(threads_max)), latency_(latency) {
  CHECK_GT(threads_max, 0);
}

SimWorkerPool::~SimWorkerPool() {
  CHECK(running_ == nullptr) << "a worker pool ended on one of its own workers";
  for (const SimClock::EventId& id : starting_) clock_.Cancel(id);
}

void SimWorkerPool::Submit(Work& work) {
  clock_.CheckThread();
  CHECK(!WorkQueue::Contains(work)) << "submitted twice";
  if (!has_thread_) {
    if (const int error = os_.Begin("StartThread"); error != 0) {
      throw StatusError(absl::ResourceExhaustedError(ErrnoText(-error)));
    }
    has_thread_ = true;
  }
  queue_.Push(work);
  StartWorkers();
}

bool SimWorkerPool::Cancel(Work& work) { return queue_.Remove(work); }

void SimWorkerPool::Wait(Work& work) {
  CHECK(running_ != &work) << "work waits for itself";
  while (WorkQueue::Contains(work)) {
    if (os_.crashed()) {
      queue_.Remove(work);
    } else {
      RunNext();
    }
  }
}

void SimWorkerPool::RunNext() {
  if (os_.crashed()) return;
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
