#include "troupe/async/internal/shutdown_hooks.h"

namespace troupe::internal {

ShutdownHooks::Registration ShutdownHooks::AddDrainable(absl::AnyInvocable<void()> drain) {
  auto entry = std::make_unique<Entry>();
  entry->drain = std::move(drain);
  entries_.PushBack(*entry);
  return Registration(std::move(entry));
}

bool ShutdownHooks::Drain() {
  if (entries_.empty()) return false;
  // A callback may register and unregister, itself included: each entry is moved over before it is called.
  IntrusiveList<Entry> left;
  left.SpliceBack(entries_);
  while (!left.empty()) {
    Entry& entry = left.PopFront();
    entries_.PushBack(entry);
    // The callable leaves the entry for the call: the entry may be gone afterwards.
    auto drain = std::make_shared<absl::AnyInvocable<void()>>(std::move(entry.drain));
    entry.drain = [drain] { (*drain)(); };
    try {
      (*drain)();
    } catch (...) {  // reports to the exception handler, which passes Fatal on
      ExceptionContext context;
      context.message = "Exception in a drain callback";
      loop_.ReportCurrentException(std::move(context));
    }
  }
  return true;
}

}  // namespace troupe::internal
