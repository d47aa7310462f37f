#include "troupe/async/gather.h"

#include <coroutine>
#include <string>

#include "absl/strings/str_cat.h"
#include "troupe/async/internal/root.h"
#include "troupe/base/errors.h"

namespace troupe::internal {
namespace {

// Waits until each of several futures is done.
class AllDoneLeaf final : public Leaf {
 public:
  explicit AllDoneLeaf(const std::vector<Ref>& futures) : left_(futures.size()), count_(futures.size()) {
    watchers_ = std::make_unique<Watcher[]>(count_);
    for (size_t i = 0; i < count_; ++i) {
      watchers_[i].leaf = this;
      watchers_[i].Watch(futures[i]);
    }
  }
  bool await_ready() const noexcept { return left_ == 0; }
  void await_suspend(std::coroutine_handle<>) { Suspend(); }
  void await_resume() { Resumed(); }
  std::string DescribeWait() const override { return absl::StrCat(left_, " futures"); }

 private:
  class Watcher final : public DoneWatcher {
   public:
    AllDoneLeaf* leaf = nullptr;

   private:
    void OnDone() override {
      if (--leaf->left_ == 0) leaf->Wake();
    }
  };
  void CancelWait() override {
    for (size_t i = 0; i < count_; ++i) watchers_[i].Stop();
    WakeCancelled();
  }

  size_t left_;
  const size_t count_;
  std::unique_ptr<Watcher[]> watchers_;
};

}  // namespace

// Those that go on although nobody waits for them.
class Gathering::Kept final : public LoopLocal {
 public:
  explicit Kept(EventLoop&) {}
  void Add(Gathering& gathering) { kept_.PushBack(gathering); }
  void OnLoopClose() override {
    while (!kept_.empty()) kept_.PopFront().outer().Release();
  }

 private:
  IntrusiveList<Gathering> kept_;
};

Gathering::Gathering(EventLoop&, std::vector<Child> children, bool settle)
    : children_(std::move(children)), watchers_(std::make_unique<Watcher[]>(children_.size())), settle_(settle) {}

Gathering::~Gathering() {
  watchers_.reset();
  if (failed_.get() != nullptr && !cancel_requested_) {
    // Whoever still runs was left behind by a failure: it goes on, and its own failure is dropped, as asyncio does.
    for (Child& child : children_) {
      child.owned = false;
      child.future->MarkRetrieved();
    }
  }
  // Where nobody waited for the outcome (the whole is pending), the futures speak for themselves and the tasks go.
  DestroyChildren(children_);
}

void Gathering::Start() {
  for (size_t i = 0; i < children_.size(); ++i) {
    watchers_[i].gathering = this;
    watchers_[i].Watch(children_[i].future);
  }
}

bool Gathering::CancelChildren() {
  bool any = false;
  for (const Child& child : children_) {
    if (child.future->Cancel()) any = true;
  }
  if (any) cancel_requested_ = true;
  return any;
}

void Gathering::DestroyOwned() {
  for (auto child = children_.rbegin(); child != children_.rend(); ++child) {
    if (child->owned) child->future->DestroyNow();
  }
}

void Gathering::Keep() {
  EventLoop& loop = outer().loop();
  if (linked() || loop.IsClosed()) return;
  loop.Local<Kept>().Add(*this);
  outer().Retain();
}

void Gathering::ForgetIfDone() {
  if (!linked() || !outer().done()) return;
  Unlink();
  outer().Release();
}

void Gathering::OnChildDone(FutureCore& child) {
  ++ended_;
  child.MarkRetrieved();
  if (outer().done()) return;
  const bool failed = child.state() != FutureCore::kValue || !child.ValueStatus().ok();
  if (failed && !settle_ && failed_.get() == nullptr) {
    child.Retain();
    failed_ = Ref(&child);
    if (!cancel_requested_) return Fail(child);
  }
  if (ended_ < children_.size()) return;
  if (!cancel_requested_) {
    try {
      return Complete();
    } catch (...) {  // a value that does not let itself be copied or moved: becomes the outcome of the whole
      return outer().SetError(std::current_exception());
    }
  }
  if (failed_.get() != nullptr) return Fail(*failed_.get());
  outer().SetError(std::make_exception_ptr(Cancelled()));
  outer().MarkRetrieved();
}

void Gathering::Fail(FutureCore& child) {
  if (child.state() == FutureCore::kValue) return Fail(child.ValueStatus());
  if (child.state() == FutureCore::kCancelled) {
    outer().SetError(std::make_exception_ptr(Cancelled()));
    if (cancel_requested_) outer().MarkRetrieved();
    return;
  }
  std::exception_ptr error = child.exception();
  if (HoldsStatus()) {
    absl::Status status = StatusIn(error);
    if (!status.ok()) return Fail(std::move(status));
  }
  outer().SetError(std::move(error));
}

Task<void> AwaitAll(std::vector<Ref> futures) { co_await AllDoneLeaf(futures); }

}  // namespace troupe::internal
