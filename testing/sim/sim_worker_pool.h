// SimWorkerPool: WorkerPool without threads: work runs as kernel events on the thread of the simulation.
//
// Each of the `threads_max` workers takes its next work after the host's worker_latency. On a host that crashed none
// does. Tests get it from SimOs::NewWorkerPool.
//
// Threading: the clock's thread.     Lifetime: ends before its SimOs.
#ifndef TROUPE_TESTING_SIM_SIM_WORKER_POOL_H_
#define TROUPE_TESTING_SIM_SIM_WORKER_POOL_H_

#include <cstddef>
#include <set>

#include "absl/time/time.h"
#include "troupe/os/os.h"
#include "troupe/os/work_queue.h"
#include "troupe/testing/sim/sim_clock.h"

namespace troupe::testing {

class SimOs;

class SimWorkerPool final : public WorkerPool {
 public:
  SimWorkerPool(SimOs& os, SimClock& clock, int threads_max, absl::Duration latency);
  ~SimWorkerPool() override;

  void Submit(Work& work) override;
  bool Cancel(Work& work) override;
  // Runs it now if it is queued, after what was submitted before it.
  void Wait(Work& work) override;

 private:
  void RunNext();
  void StartWorkers();

  SimOs& os_;
  SimClock& clock_;
  const size_t threads_max_;
  const absl::Duration latency_;
  WorkQueue queue_;
  bool has_thread_ = false;
  const Work* running_ = nullptr;         // compared, never followed
  std::set<SimClock::EventId> starting_;  // workers about to take the next work
};

}  // namespace troupe::testing

#endif  // TROUPE_TESTING_SIM_SIM_WORKER_POOL_H_
