#include "troupe/os/posix_worker_pool.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "glog/logging.h"
#include "troupe/base/errors.h"

namespace troupe::internal {
namespace {

// A thread inherits the mask of the one that makes it: no signal can reach it before its first line.
class BlockSignals {
 public:
  BlockSignals() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~BlockSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

}  // namespace

PosixWorkerPool::PosixWorkerPool(int threads_max, absl::string_view name)
    : threads_max_(static_cast<size_t>(threads_max)), name_(name.substr(0, 15)) {
  CHECK_GT(threads_max, 0);
}

PosixWorkerPool::~PosixWorkerPool() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    while (queue_.Pop() != nullptr) {
    }
  }
  submitted_.notify_all();
  for (Worker& worker : workers_) {
    CHECK(worker.thread.get_id() != std::this_thread::get_id()) << "a worker pool ended on one of its own workers";
    worker.thread.join();
  }
}

void PosixWorkerPool::Submit(Work& work) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    CHECK(!WorkQueue::Contains(work)) << "submitted twice";
    if (stopping_) return;  // by work that still runs: dropped, like all that has not started
    // Idle threads that were told of earlier work and have not woken yet still count as idle: hence the comparison.
    if (queue_.size() + 1 > idle_ && workers_.size() < threads_max_ && !StartWorker() && workers_.empty()) {
      throw StatusError(absl::ResourceExhaustedError(absl::StrCat("no thread could be started for ", name_)));
    }
    queue_.Push(work);
  }
  submitted_.notify_one();
}

bool PosixWorkerPool::Cancel(Work& work) {
  std::lock_guard<std::mutex> lock(mutex_);
  const bool removed = queue_.Remove(work);
  if (removed && waiters_ > 0) left_.notify_all();
  return removed;
}

void PosixWorkerPool::Wait(Work& work) {
  std::unique_lock<std::mutex> lock(mutex_);
  ++waiters_;
  left_.wait(lock, [&] { return !WorkQueue::Contains(work) && !IsRunning(work); });
  --waiters_;
}

// False: the system refuses another thread.
bool PosixWorkerPool::StartWorker() {
  const BlockSignals block;
  Worker& worker = workers_.emplace_back();
  try {
    worker.thread = std::thread([this, &worker] { RunWorker(worker); });
  } catch (const std::system_error& error) {
    workers_.pop_back();
    LOG(WARNING) << "worker pool " << name_ << ": no thread beyond " << workers_.size() << ": " << error.what();
    return false;
  }
  return true;
}

void PosixWorkerPool::RunWorker(Worker& self) {
  pthread_setname_np(pthread_self(), name_.c_str());
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    ++idle_;
    submitted_.wait(lock, [&] { return stopping_ || queue_.size() > 0; });
    --idle_;
    if (stopping_) return;
    Work* const work = queue_.Pop();
    self.running = work;
    lock.unlock();
    work->Run();
    lock.lock();
    self.running = nullptr;
    if (waiters_ > 0) left_.notify_all();
  }
}

bool PosixWorkerPool::IsRunning(const Work& work) const {
  return std::any_of(workers_.begin(), workers_.end(), [&](const Worker& worker) { return worker.running == &work; });
}

}  // namespace troupe::internal
