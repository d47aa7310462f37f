// ReadinessWait: waits until a descriptor is ready, once, through AddReader or AddWriter.
//
// What may take it away from here is whatever replaces or removes that registration: then the wait ends by cancellation
// only.
//
// Life:      made -> Watch -> co_await -> destroyed
// Threading: the loop's.
#ifndef TROUPE_NET_INTERNAL_READINESS_WAIT_H_
#define TROUPE_NET_INTERNAL_READINESS_WAIT_H_

#include <coroutine>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "troupe/async/internal/root.h"
#include "troupe/loop/event_loop.h"
#include "troupe/os/os.h"

namespace troupe::internal {

class ReadinessWait final : public Leaf {
 public:
  // `what`: a literal, for dumps.
  ReadinessWait(EventLoop& loop, int fd, Readiness direction, const char* what)
      : loop_(loop), fd_(fd), direction_(direction), what_(what) {}
  ~ReadinessWait() { Leave(); }

  // First. 0, or -errno: it cannot be watched. Throws InvalidState when a transport owns the descriptor.
  int Watch() {
    const int result = direction_ == kReadable ? loop_.AddReader(fd_, Claim(*this)) : loop_.AddWriter(fd_, Claim(*this));
    return result;
  }

  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<>) { Suspend(); }
  void await_resume() { Resumed(); }
  std::string DescribeWait() const override { return absl::StrCat(what_, " on descriptor ", fd_); }

 private:
  // The callback of the registration. Lives as long as that does.
  class Claim {
   public:
    explicit Claim(ReadinessWait& wait) : wait_(&wait) { wait.claim_ = this; }
    Claim(Claim&& other) noexcept : wait_(std::exchange(other.wait_, nullptr)) {
      if (wait_ != nullptr) wait_->claim_ = this;
    }
    Claim(const Claim&) = delete;
    Claim& operator=(const Claim&) = delete;
    ~Claim() { Forget(); }
    void operator()() {
      if (wait_ != nullptr) wait_->OnReady();
    }
    void Forget() {
      if (wait_ != nullptr) std::exchange(wait_, nullptr)->claim_ = nullptr;
    }

   private:
    ReadinessWait* wait_;
  };

  void OnReady() {
    Leave();
    if (suspended()) Wake();
  }
  void CancelWait() override {
    Leave();
    WakeCancelled();
  }
  void Leave() {
    if (claim_ == nullptr) return;  // taken over, removed, or over
    claim_->Forget();
    if (direction_ == kReadable) {
      loop_.RemoveReader(fd_);
    } else {
      loop_.RemoveWriter(fd_);
    }
  }

  EventLoop& loop_;
  const int fd_;
  const Readiness direction_;
  const char* const what_;
  Claim* claim_ = nullptr;  // while the registration is this one's
};

}  // namespace troupe::internal

#endif  // TROUPE_NET_INTERNAL_READINESS_WAIT_H_
