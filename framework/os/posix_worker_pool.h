// PosixWorkerPool: WorkerPool on POSIX threads.
//
// Threads start as work outgrows the idle ones and stay until the pool ends. They block every signal, so that signals
// reach the threads that the program made. Work that has begun is never touched again by the pool: it may be gone.
//
// Locks are std::mutex, because ThreadSanitizer does not see into the distribution's absl::Mutex.
#ifndef TROUPE_OS_POSIX_WORKER_POOL_H_
#define TROUPE_OS_POSIX_WORKER_POOL_H_

#include <condition_variable>
#include <list>
#include <mutex>
#include <string>
#include <thread>

#include "absl/strings/string_view.h"
#include "troupe/os/os.h"
#include "troupe/os/work_queue.h"

namespace troupe::internal {

class PosixWorkerPool final : public WorkerPool {
 public:
  // `name` shows in top and debuggers, cut to 15 bytes. REQUIRES: threads_max > 0.
  PosixWorkerPool(int threads_max, absl::string_view name);
  ~PosixWorkerPool() override;

  void Submit(Work& work) override;
  bool Cancel(Work& work) override;
  void Wait(Work& work) override;

 private:
  struct Worker {
    std::thread thread;
    const Work* running = nullptr;  // compared, never followed
  };

  bool StartWorker();
  void RunWorker(Worker& self);
  bool IsRunning(const Work& work) const;

  const size_t threads_max_;
  const std::string name_;
  std::mutex mutex_;  // guards all below
  std::condition_variable submitted_;
  std::condition_variable left_;  // a work left the queue, or ended
  WorkQueue queue_;
  std::list<Worker> workers_;
  size_t idle_ = 0;
  size_t waiters_ = 0;
  bool stopping_ = false;
};

}  // namespace troupe::internal

#endif  // TROUPE_OS_POSIX_WORKER_POOL_H_
