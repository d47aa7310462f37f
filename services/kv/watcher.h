// Watcher: the changes of keys with a prefix, from a revision on, for as long as one likes.
//
// It gives for each key every change in order of revisions, or at least the latest: while it lags behind what is being
// committed (it began at an old revision, or its reader is slow), a change that a later one of the same key has made
// obsolete may be left out. It holds a bounded buffer, whatever the speeds, and never slows down a commit.
//
// Threading: one loop.     Lifetime: the caller outlives it.
#ifndef TROUPE_SERVICES_KV_WATCHER_H_
#define TROUPE_SERVICES_KV_WATCHER_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "services/kv/async_store.h"
#include "services/kv/change_feed.h"
#include "services/kv/store.h"
#include "troupe/async/task.h"

namespace kv {

class Watcher {
 public:
  // From now on.
  Watcher(AsyncStore::Caller& caller, std::string prefix, FeedLimits limits = {});
  // From the first change after the revision `after` on.
  Watcher(AsyncStore::Caller& caller, std::string prefix, int64_t after, FeedLimits limits = {});

  // The next change; waits until there is one. Errors as Store::Changes has them; then it is over.
  // OUT_OF_RANGE: deletions may have been missed: read everything, then watch from the revision of that reading.
  troupe::Task<absl::StatusOr<SharedChange>> Next();

 private:
  AsyncStore::Caller& caller_;
  const std::string prefix_;
  ChangeFeed::Subscription subscription_;
  bool live_;
  // While not live: what was read from the store, and from where it goes on.
  ChangesPage page_;
  size_t taken_ = 0;  // of page_.changes
};

}  // namespace kv

#endif  // TROUPE_SERVICES_KV_WATCHER_H_
