// ManualPool: a worker pool whose work runs when the test says so, on the test's own thread.
#ifndef TROUPE_SERVICES_KV_MANUAL_POOL_H_
#define TROUPE_SERVICES_KV_MANUAL_POOL_H_

#include <algorithm>
#include <cstddef>
#include <deque>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "troupe/base/errors.h"
#include "troupe/os/os.h"

namespace kv {

class ManualPool final : public troupe::WorkerPool {
 public:
  void Submit(troupe::Work& work) override {
    if (no_threads_) throw troupe::StatusError(absl::ResourceExhaustedError("no thread"));
    queue_.push_back(&work);
  }
  bool Cancel(troupe::Work& work) override {
    const auto it = std::find(queue_.begin(), queue_.end(), &work);
    if (it == queue_.end()) return false;
    queue_.erase(it);
    return true;
  }
  void Wait(troupe::Work& work) override {
    EXPECT_EQ(std::count(queue_.begin(), queue_.end(), &work), 0) << "would wait for ever";
  }

  // False: there was none.
  bool RunOne() {
    if (queue_.empty()) return false;
    troupe::Work* const work = queue_.front();
    queue_.pop_front();
    work->Run();
    return true;
  }
  size_t size() const { return queue_.size(); }
  void set_no_threads(bool none) { no_threads_ = none; }

 private:
  std::deque<troupe::Work*> queue_;
  bool no_threads_ = false;
};

}  // namespace kv

#endif  // TROUPE_SERVICES_KV_MANUAL_POOL_H_
