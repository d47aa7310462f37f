// ShutdownHooks: what a loop asks to drain when the process is told to end.
//
// A Server that serves registers itself; troupe::Run calls the callbacks at the first SIGTERM or SIGINT instead of
// cancelling the main task. Registering a second time is another registration.
//
// Life:      AddDrainable -> (Drain)* -> Registration destroyed
// Threading: the loop's.     Lifetime: of its loop: `loop.Local<ShutdownHooks>()`. A Registration may outlive it.
#ifndef TROUPE_ASYNC_INTERNAL_SHUTDOWN_HOOKS_H_
#define TROUPE_ASYNC_INTERNAL_SHUTDOWN_HOOKS_H_

#include <memory>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "troupe/base/intrusive_list.h"
#include "troupe/loop/event_loop.h"

namespace troupe::internal {

class ShutdownHooks final : public LoopLocal {
  struct Entry : ListNode<> {
    absl::AnyInvocable<void()> drain;
  };

 public:
  // Registered while it lives.
  class Registration {
   public:
    Registration() = default;  // of nothing

   private:
    friend class ShutdownHooks;
    explicit Registration(std::unique_ptr<Entry> entry) : entry_(std::move(entry)) {}
    std::unique_ptr<Entry> entry_;
  };

  explicit ShutdownHooks(EventLoop& loop) : loop_(loop) {}

  // `drain` begins to drain and returns; an exception reaches the loop's exception handler.
  [[nodiscard]] Registration AddDrainable(absl::AnyInvocable<void()> drain);

  // Calls what is registered, in order of registration. False: there was nothing.
  bool Drain();

 private:
  EventLoop& loop_;
  IntrusiveList<Entry> entries_;
};

}  // namespace troupe::internal

#endif  // TROUPE_ASYNC_INTERNAL_SHUTDOWN_HOOKS_H_
