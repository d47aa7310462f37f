#include "troupe/loop/loop_policy.h"

#include <pthread.h>
#include <unistd.h>  // NOLINT(troupe-beyond-the-seam): which thread is the main one

#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "troupe/base/errors.h"
#include "troupe/loop/internal/assigned_loop.h"
#include "troupe/os/posix_os.h"

namespace troupe {
namespace {

using internal::assigned_loop;

struct Policy {
  std::mutex mutex;
  std::shared_ptr<LoopPolicy> installed;  // shared with the calls in progress; guarded by mutex
};

Policy& ThePolicy() {
  static auto& policy = *new Policy;  // never destroyed: threads may outlive main
  return policy;
}

}  // namespace

void SetLoopPolicy(std::shared_ptr<LoopPolicy> policy) {
  std::lock_guard<std::mutex> lock(ThePolicy().mutex);
  std::swap(ThePolicy().installed, policy);
}

std::unique_ptr<EventLoop> NewEventLoop() {
  std::shared_ptr<LoopPolicy> policy;
  {
    std::lock_guard<std::mutex> lock(ThePolicy().mutex);
    policy = ThePolicy().installed;
  }
  return policy != nullptr ? policy->NewLoop() : std::make_unique<EventLoop>(PosixOs::Get());
}

EventLoop& GetEventLoop() {
  if (EventLoop* const running = EventLoop::CurrentOrNull(); running != nullptr) return *running;
  if (assigned_loop.loop == nullptr && !assigned_loop.was_set && getpid() == gettid()) {
    thread_local std::unique_ptr<EventLoop> made;
    made = NewEventLoop();
    SetEventLoop(made.get());
  }
  if (assigned_loop.loop == nullptr) {
    char name[16] = "";
    pthread_getname_np(pthread_self(), name, sizeof(name));
    throw InvalidState(absl::StrCat("There is no current event loop in thread '", name, "'."));
  }
  return *assigned_loop.loop;
}

void SetEventLoop(EventLoop* loop) { assigned_loop = {.loop = loop, .was_set = true}; }

}  // namespace troupe
