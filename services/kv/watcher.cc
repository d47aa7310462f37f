#include "services/kv/watcher.h"

#include <memory>
#include <utility>

namespace kv {
namespace {

// What a watch that lags behind reads at once: it holds that for as long as its client does not read, and a client may
// have a thousand of them.
constexpr size_t kPageBytes = 64 << 10;

}  // namespace

Watcher::Watcher(AsyncStore::Caller& caller, std::string prefix, FeedLimits limits)
    : caller_(caller), prefix_(prefix), subscription_(caller.store().feed(), std::move(prefix), limits), live_(true) {}

Watcher::Watcher(AsyncStore::Caller& caller, std::string prefix, int64_t after, FeedLimits limits)
    : Watcher(caller, std::move(prefix), limits) {
  page_.after = after;
  live_ = after == caller.store().feed().revision();
  if (!live_) subscription_.Pause();
}

troupe::Task<absl::StatusOr<SharedChange>> Watcher::Next() {
  while (true) {
    if (live_) {
      if (SharedChange change = subscription_.Take()) co_return change;
      if (!subscription_.lagging()) {
        co_await subscription_.Changed();
        continue;
      }
      page_.after = subscription_.after();
      live_ = false;
    }
    if (taken_ < page_.changes.size()) {
      co_return std::make_shared<const Change>(std::move(page_.changes[taken_++]));
    }
    // Turns of the store are told in their order: when nothing was published that the page has not seen, what will be
    // published from now on is all that is missing.
    if (page_.after == caller_.store().feed().revision()) {
      page_.changes.clear();
      subscription_.Resume();
      live_ = true;
      continue;
    }
    ChangesQuery query;
    query.after = page_.after;
    query.prefix = prefix_;
    query.bytes_max = kPageBytes;
    absl::StatusOr<ChangesPage> page = co_await caller_.Changes(std::move(query));
    if (!page.ok()) co_return std::move(page).status();
    page_ = *std::move(page);
    taken_ = 0;
  }
}

}  // namespace kv
