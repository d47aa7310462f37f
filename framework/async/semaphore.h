// Semaphore: lets at most so many tasks in at once; first come, first served.
//
//   Semaphore slots(10);
//   Semaphore::Permit permit = co_await slots.Acquire();   // given back when it is destroyed
//
// Nobody overtakes: a free permit goes to the task that waits longest. A task that is cancelled, or destroyed, between
// being given a permit and resuming passes it on. For one at a time use Mutex.
//
// Threading: the loop's.     Lifetime: outlives its permits and the tasks that wait in it.
#ifndef TROUPE_ASYNC_SEMAPHORE_H_
#define TROUPE_ASYNC_SEMAPHORE_H_

#include <cstddef>
#include <optional>
#include <utility>

#include "troupe/async/internal/wait_list.h"
#include "troupe/async/task.h"

namespace troupe {

class Semaphore {
 public:
  class [[nodiscard]] Permit {
   public:
    Permit() = default;  // of nothing
    Permit(Permit&& other) noexcept : semaphore_(std::exchange(other.semaphore_, nullptr)) {}
    Permit& operator=(Permit other) noexcept {
      std::swap(semaphore_, other.semaphore_);
      return *this;
    }
    ~Permit() { Release(); }

    // Earlier than the destructor would.
    void Release() {
      if (Semaphore* const semaphore = std::exchange(semaphore_, nullptr)) semaphore->Release();
    }
    bool valid() const { return semaphore_ != nullptr; }

   private:
    friend class Semaphore;
    explicit Permit(Semaphore* semaphore) : semaphore_(semaphore) {}
    Semaphore* semaphore_ = nullptr;
  };

  explicit Semaphore(size_t permits) : free_(permits) {}
  Semaphore(const Semaphore&) = delete;
  Semaphore& operator=(const Semaphore&) = delete;

  Task<Permit> Acquire() {
    if (!TakeFree()) {
      co_await waiters_.Wait();
    }
    co_return Permit(this);
  }
  // Nothing: it would have to wait.
  std::optional<Permit> TryAcquire() {
    if (!TakeFree()) return std::nullopt;
    return Permit(this);
  }

  // Permits that nobody has.
  size_t free() const { return free_; }
  bool locked() const { return free_ == 0; }

 private:
  // A permit that is free while somebody waits does not exist: Release hands it over.
  bool TakeFree() {
    if (free_ == 0) return false;
    --free_;
    return true;
  }
  void Release() {
    if (!waiters_.WakeOne()) ++free_;
  }
  static void OnLost(void* self) { static_cast<Semaphore*>(self)->Release(); }

  size_t free_;
  internal::WaitList waiters_{"Semaphore::Acquire", this, OnLost};
};

}  // namespace troupe

#endif  // TROUPE_ASYNC_SEMAPHORE_H_
