// MemoryGuard: what the connections of one server or channel do when the process is short of memory.
//
// All connections of a process charge what they hold to one gauge, Os::held_memory(): unread input, messages held,
// unsent output. From 80 % of the bound on nobody is granted new credit; from 100 % on new calls are refused.
//
// A session says what it holds after each batch of input and output; what a kernel took of its output since then is
// still charged. So every session is asked again before it is believed that memory is short, and while it is.
//
// Threading: the loop's; the gauge is shared by all loops of the process.     Lifetime: outlives its sessions.
#ifndef TROUPE_SERVICE_MEMORY_GUARD_H_
#define TROUPE_SERVICE_MEMORY_GUARD_H_

#include <atomic>
#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "troupe/base/counter.h"
#include "troupe/base/intrusive_list.h"
#include "troupe/loop/event_loop.h"
#include "troupe/loop/timer_heap.h"

namespace troupe {

struct MemoryCounters {
  Counter tight;          // times that 80 % were reached
  Counter calls_refused;  // at 100 %
};

class MemoryGuard {
 public:
  // How often it looks again while memory is short.
  static constexpr absl::Duration kLookAgain = absl::Milliseconds(100);

  // One who holds memory.
  class Holder : public ListNode<MemoryGuard> {
   public:
    // What it holds, in bytes.
    virtual int64_t held_bytes() const = 0;
    virtual void PauseCredit() = 0;
    virtual void ResumeCredit() = 0;

   protected:
    ~Holder() = default;

   private:
    friend class MemoryGuard;
    int64_t charged_ = 0;
  };

  // `bytes_max` 0: half of what the Os says that the process may use. `counters` outlives it.
  MemoryGuard(EventLoop& loop, int64_t bytes_max, MemoryCounters& counters);
  MemoryGuard(const MemoryGuard&) = delete;
  MemoryGuard& operator=(const MemoryGuard&) = delete;
  // REQUIRES: everyone has left.
  ~MemoryGuard() { loop_.Cancel(timer_); }

  void Join(Holder& holder);
  void Leave(Holder& holder);
  // What the holder holds has changed.
  void Recharge(Holder& holder) {
    Charge(holder);
    if (held() >= tight_bytes_ && !tight_) BecomeTight();
  }

  bool tight() const { return tight_; }
  bool full() const { return held() >= bytes_max_; }
  // Of the process.
  int64_t held() const { return gauge_.load(std::memory_order_relaxed); }
  int64_t bytes_max() const { return bytes_max_; }
  void CountRefusedCall() { counters_.calls_refused.Add(); }

 private:
  class LookAgain final : public Timer {
   public:
    explicit LookAgain(MemoryGuard& guard) : guard_(guard) {}
    ~LookAgain() = default;
    void Run() override { guard_.OnLookAgain(); }
    std::string Describe() const override { return "memory of connections"; }

   private:
    MemoryGuard& guard_;
  };

  void Charge(Holder& holder) {
    const int64_t now = holder.held_bytes();
    if (now == holder.charged_) return;
    gauge_.fetch_add(now - holder.charged_, std::memory_order_relaxed);
    holder.charged_ = now;
  }
  void BecomeTight();
  void OnLookAgain();

  EventLoop& loop_;
  std::atomic<int64_t>& gauge_;
  const int64_t bytes_max_;
  const int64_t tight_bytes_;
  bool tight_ = false;
  MemoryCounters& counters_;
  IntrusiveList<Holder, MemoryGuard> holders_;
  LookAgain timer_{*this};
};

}  // namespace troupe

#endif  // TROUPE_SERVICE_MEMORY_GUARD_H_
