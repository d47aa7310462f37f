// Watcher: the changes of keys with a prefix, from a revision on, for as long as one likes.
//
// It gives for each key every change in order of revisions, or at least the latest: while it lags behind what is being
// committed (it began at an old revision, or its reader is slow), a change that a later one of the same key has made
// obsolete may be left out. Whatever the speeds, all watchers of a budget together hold no more than that, and never slow
// down a commit: a watcher waits for room before it takes a change, and while it waits holds nothing.
//
// Threading: one loop.     Lifetime: the caller and the budget outlive it.
#ifndef TROUPE_SERVICES_KV_WATCHER_H_
#define TROUPE_SERVICES_KV_WATCHER_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "services/kv/async_store.h"
#include "services/kv/budget.h"
#include "services/kv/change_feed.h"
#include "services/kv/store.h"
#include "troupe/async/task.h"

namespace kv {

class Watcher {
 public:
  // From the first change after the revision `after` on.
  Watcher(AsyncStore::Caller& caller, Budget& budget, std::string prefix, int64_t after);

  // The next change; waits until there is one. It is held in the budget until Next is called again. Errors as
  // Store::Changes has them; then it is over.
  // OUT_OF_RANGE: deletions may have been missed: read everything, then watch from the revision of that reading.
  troupe::Task<absl::StatusOr<SharedChange>> Next();
  // Who reads from it has to wait: what was read ahead goes where others need the room, and is read again.
  void Stalled();

 private:
  SharedChange Given(SharedChange change);

  AsyncStore::Caller& caller_;
  Budget& budget_;
  ChangeFeed::Subscription subscription_;
  // While it lags: what was read from the store.
  ChangesPage page_;
  size_t taken_ = 0;  // of page_.changes
  Budget::Lease held_page_;
  Budget::Lease held_;  // what was given last
};

}  // namespace kv

#endif  // TROUPE_SERVICES_KV_WATCHER_H_
