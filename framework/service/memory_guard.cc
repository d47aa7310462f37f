#include "troupe/service/memory_guard.h"

#include <algorithm>

namespace troupe {

MemoryGuard::MemoryGuard(EventLoop& loop, int64_t bytes_max, MemoryCounters& counters)
    : loop_(loop),
      gauge_(loop.os().held_memory()),
      bytes_max_(bytes_max > 0 ? bytes_max : loop.os().MemoryLimit() / 2),
      tight_bytes_(std::max<int64_t>(1, bytes_max_ / 5 * 4)),
      counters_(counters) {}

void MemoryGuard::Join(Holder& holder) {
  holders_.PushBack(holder);
  Recharge(holder);
}

void MemoryGuard::Leave(Holder& holder) {
  holder.ListNode<MemoryGuard>::Unlink();
  gauge_.fetch_sub(holder.charged_, std::memory_order_relaxed);
  holder.charged_ = 0;
}

void MemoryGuard::BecomeTight() {
  for (Holder& holder : holders_) Charge(holder);
  if (held() < tight_bytes_) return;
  tight_ = true;
  counters_.tight.Add();
  for (Holder& holder : holders_) holder.PauseCredit();
  loop_.ScheduleAt(timer_, loop_.Time() + kLookAgain);
}

void MemoryGuard::OnLookAgain() {
  for (Holder& holder : holders_) Charge(holder);
  if (held() >= tight_bytes_) return loop_.ScheduleAt(timer_, loop_.Time() + kLookAgain);
  tight_ = false;
  for (Holder& holder : holders_) holder.ResumeCredit();
}

}  // namespace troupe
