// DoneWatcher: told of a future's end in the iteration after it, as asyncio's done callbacks are.
//
// Allocates nothing: combinators embed one per future that they watch.
//
// Life:      idle -> Watch -> (OnDone | Stop) -> idle
// Threading: the loop's.     Lifetime: keeps the future alive while it watches; a destroyed watcher is told nothing.
#ifndef TROUPE_ASYNC_INTERNAL_DONE_WATCHER_H_
#define TROUPE_ASYNC_INTERNAL_DONE_WATCHER_H_

#include <string>
#include <utility>

#include "troupe/async/future.h"
#include "troupe/loop/runnable.h"

namespace troupe::internal {

class DoneWatcher : public FutureWaiter, public Runnable {
 public:
  // REQUIRES: idle.
  void Watch(Ref future) {
    future_ = std::move(future);
    if (future_->done()) {
      OnFutureDone();
    } else {
      future_->Add(*this);
    }
  }
  void Stop() {
    static_cast<FutureWaiter*>(this)->Unlink();
    static_cast<Runnable*>(this)->Unlink();
    future_ = Ref();
  }
  // What is or was last watched.
  FutureCore& future() const { return *future_.get(); }
  const Ref& ref() const { return future_; }

 protected:
  ~DoneWatcher() = default;
  // The future is done. May destroy this. Throws nothing.
  virtual void OnDone() = 0;

 private:
  void OnFutureDone() override {
    if (!future_->loop().IsClosed()) future_->loop().Schedule(*this);
  }
  void Run() override { OnDone(); }
  std::string Describe() const override { return future_->Describe() + "'s done callback"; }

  Ref future_;
};

}  // namespace troupe::internal

#endif  // TROUPE_ASYNC_INTERNAL_DONE_WATCHER_H_
