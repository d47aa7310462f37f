// Handle and TimerHandle: what scheduling a callback returns; with it the callback can be cancelled.
//
// Dropping a handle does not cancel. A cancelled callback never runs and what it captured is destroyed at once (on the
// loop's thread; a callback from CallSoonThreadsafe that another thread cancels is destroyed by the loop later).
//
// Threading: the loop's; a handle of CallSoonThreadsafe may be used from any thread.
// Lifetime:  a handle may outlive its loop.
#ifndef TROUPE_LOOP_HANDLE_H_
#define TROUPE_LOOP_HANDLE_H_

#include <atomic>
#include <compare>
#include <cstdint>
#include <source_location>
#include <string>
#include <type_traits>
#include <utility>

#include "troupe/base/pool.h"
#include "troupe/loop/context.h"
#include "troupe/loop/runnable.h"
#include "troupe/loop/timer_heap.h"

namespace troupe {

class EventLoop;

namespace internal {

// A scheduled callable: what every kind of node shares.
class Callback {
 public:
  enum State : uint8_t { kPending, kRunning, kDone, kCancelled };

  Callback(EventLoop& loop, Context context, std::source_location where, bool shared)
      : loop_(loop), context_(std::move(context)), where_(where), shared_(shared) {}
  Callback(const Callback&) = delete;
  Callback& operator=(const Callback&) = delete;

  void Retain() { Change(+1); }
  void Release() {
    if (Change(-1) == 0) Delete();
  }
  void Cancel();
  bool cancelled() const { return state_.load(std::memory_order_acquire) == kCancelled; }
  std::source_location where() const { return where_; }
  std::string Describe() const;

 protected:
  ~Callback() = default;

  // Pending -> running; false: it was cancelled.
  bool Begin() {
    if (!shared_) {
      if (state_.load(std::memory_order_relaxed) != kPending) return false;
      state_.store(kRunning, std::memory_order_relaxed);
      return true;
    }
    uint8_t pending = kPending;
    return state_.compare_exchange_strong(pending, kRunning, std::memory_order_acq_rel);
  }
  void End() { state_.store(kDone, std::memory_order_release); }
  // Tells the loop's exception handler; passes Fatal on. REQUIRES: an exception is being handled.
  void Report();

  virtual void Delete() = 0;
  virtual void DestroyFunction() = 0;  // what was captured
  virtual void Unschedule() = 0;       // leaves queue and heap

  EventLoop& loop_;
  Context context_;

 private:
  friend class troupe::EventLoop;

  // Atomic only where threads share the node: otherwise a load and a store.
  uint32_t Change(int step) {
    const auto by = static_cast<uint32_t>(step);  // -1 wraps around, and back
    if (shared_) return references_.fetch_add(by, std::memory_order_acq_rel) + by;
    const uint32_t now = references_.load(std::memory_order_relaxed) + by;
    references_.store(now, std::memory_order_relaxed);
    return now;
  }

  std::source_location where_;
  std::atomic<uint32_t> references_ = 1;  // the queue's
  std::atomic<uint8_t> state_ = kPending;
  const bool shared_;
};

// Base is Runnable or Timer.
template <class Base, class F>
class CallbackNode final : public Base, public Callback, public Pooled {
 public:
  template <class G>
  CallbackNode(EventLoop& loop, Context context, std::source_location where, bool shared, G&& function)
      : Callback(loop, std::move(context), where, shared) {
    new (&function_) F(std::forward<G>(function));
  }
  ~CallbackNode() {
    if (live_) function().~F();
  }

  void Run() override {
    // The queue's reference goes whatever happens, after the context was left.
    struct Releaser {
      CallbackNode* node;
      ~Releaser() { node->Release(); }
    } releaser{this};
    if (!Begin()) return DestroyFunction();  // cancelled by another thread; what was captured goes here
    ContextScope scope(context_);
    try {
      function()();
    } catch (...) {  // reports to the exception handler, which passes Fatal on
      End();
      Report();
    }
    End();
    DestroyFunction();
  }
  void Drop() noexcept override {
    Begin();
    End();
    DestroyFunction();
    Release();
  }
  std::string Describe() const override { return Callback::Describe(); }

 private:
  F& function() { return *reinterpret_cast<F*>(&function_); }
  void Delete() override { delete this; }
  void DestroyFunction() override {
    if (!std::exchange(live_, false)) return;
    function().~F();
  }
  void Unschedule() override;

  alignas(F) unsigned char function_[sizeof(F)];
  bool live_ = true;
};

}  // namespace internal

class Handle {
 public:
  Handle() = default;  // of nothing: Cancel() has no effect
  explicit Handle(internal::Callback& callback) : callback_(&callback) { callback.Retain(); }
  Handle(const Handle& other) : callback_(other.callback_) {
    if (callback_) callback_->Retain();
  }
  Handle(Handle&& other) noexcept : callback_(std::exchange(other.callback_, nullptr)) {}
  Handle& operator=(Handle other) noexcept {
    std::swap(callback_, other.callback_);
    return *this;
  }
  ~Handle() {
    if (callback_) callback_->Release();
  }

  // Idempotent; no effect on a callback that runs or has run (C-HND-01).
  void Cancel() {
    if (callback_) callback_->Cancel();
  }
  bool cancelled() const { return callback_ && callback_->cancelled(); }
  // Names where the callback was scheduled, also after it was cancelled (C-HND-06).
  std::string ToString() const { return callback_ ? callback_->Describe() : "<Handle of nothing>"; }

  // Handles of the same scheduling.
  friend bool operator==(const Handle& a, const Handle& b) { return a.callback_ == b.callback_; }

 protected:
  internal::Callback* callback_ = nullptr;
};

class TimerHandle : public Handle {
 public:
  TimerHandle() = default;
  TimerHandle(internal::Callback& callback, MonotonicTime when) : Handle(callback), when_(when) {}
  // The loop time at which it is due (C-HND-04).
  MonotonicTime when() const { return when_; }

  // By time; two timers of one time that are not the same one are not ordered (C-HND-05).
  friend bool operator==(const TimerHandle& a, const TimerHandle& b) { return a.callback_ == b.callback_; }
  friend std::partial_ordering operator<=>(const TimerHandle& a, const TimerHandle& b) {
    if (a == b) return std::partial_ordering::equivalent;
    if (a.when_ == b.when_) return std::partial_ordering::unordered;
    return a.when_ < b.when_ ? std::partial_ordering::less : std::partial_ordering::greater;
  }
  friend bool operator==(const TimerHandle&, const Handle&) = delete;

 private:
  MonotonicTime when_;
};

}  // namespace troupe

#endif  // TROUPE_LOOP_HANDLE_H_
