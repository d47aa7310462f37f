#include "services/kv/watcher.h"

#include <memory>
#include <utility>

namespace kv {
namespace {

// What a watch that lags reads ahead.
constexpr size_t kPageBytes = 64 << 10;

size_t BytesOf(const Change& change) { return change.key.size() + (change.value ? change.value->size() : 0); }

}  // namespace

Watcher::Watcher(AsyncStore::Caller& caller, Budget& budget, std::string prefix, int64_t after)
    : caller_(caller),
      budget_(budget),
      subscription_(caller.store().feed(), std::move(prefix), after),
      held_page_(budget),
      held_(budget) {}

troupe::Task<absl::StatusOr<SharedChange>> Watcher::Next() {
  held_.Set(0);
  while (true) {
    if (taken_ < page_.changes.size()) {
      Change& change = page_.changes[taken_++];
      // Before the last of them it is not known whether the feed has what follows.
      subscription_.SkipTo(taken_ < page_.changes.size() ? change.revision : page_.after);
      held_page_.Set(held_page_.bytes() - BytesOf(change));
      co_return Given(std::make_shared<const Change>(std::move(change)));
    }
    page_ = ChangesPage();
    taken_ = 0;
    held_page_.Set(0);
    if (subscription_.live()) {
      co_await subscription_.Changed();
    }
    if (!budget_.has_room()) {
      co_await budget_.Room();
    }
    if (SharedChange change = subscription_.Take()) co_return Given(std::move(change));
    if (!subscription_.lagging()) continue;

    const StoreOptions& options = caller_.store().rules().options();
    held_page_.Set(options.key_bytes_max + options.value_bytes_max);  // a page has one change in any case
    ChangesQuery query;
    query.after = subscription_.after();
    query.prefix = subscription_.prefix();
    query.bytes_max = kPageBytes;
    absl::StatusOr<ChangesPage> page = co_await caller_.Changes(std::move(query));
    if (!page.ok()) co_return std::move(page).status();
    page_ = *std::move(page);
    size_t bytes = 0;
    for (const Change& change : page_.changes) bytes += BytesOf(change);
    held_page_.Set(bytes);
    if (page_.changes.empty()) subscription_.SkipTo(page_.after);
  }
}

SharedChange Watcher::Given(SharedChange change) {
  held_.Set(BytesOf(*change));
  return change;
}

void Watcher::Stalled() {
  if (!budget_.scarce()) return;
  page_ = ChangesPage();
  taken_ = 0;
  held_page_.Set(0);
}

}  // namespace kv
