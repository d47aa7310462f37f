#include "troupe/async/internal/wait_list.h"

namespace troupe::internal {

WaitList::~WaitList() {
  while (!waiting_.empty()) waiting_.PopFront().list_ = nullptr;
  while (!woken_.empty()) {
    Waiter& waiter = woken_.PopFront();
    waiter.list_ = nullptr;
    waiter.woken_ = false;
    if (owner_ != nullptr) waiter.Unwake();
  }
}

bool WaitList::WakeOne() {
  if (waiting_.empty()) return false;
  Waiter& waiter = waiting_.PopFront();
  woken_.PushBack(waiter);
  waiter.woken_ = true;
  waiter.Wake();
  return true;
}

void WaitList::WakeAll() {
  while (WakeOne()) {
  }
}

WaitList::Waiter::~Waiter() {
  Unlink();
  if (woken_ && list_ != nullptr && list_->on_lost_ != nullptr) list_->on_lost_(list_->owner_);
}

void WaitList::Waiter::await_suspend(std::coroutine_handle<>) {
  list_->waiting_.PushBack(*this);
  Suspend();
}

void WaitList::Waiter::await_resume() {
  Resumed();  // when it throws, the destructor passes the turn on
  Unlink();
  woken_ = false;
}

void WaitList::Waiter::CancelWait() {
  Unlink();
  WakeCancelled();
}

}  // namespace troupe::internal
