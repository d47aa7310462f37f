// ChangeFeed: tells subscribers of changes as they are committed.
//
// The fan-out of AsyncStore; to watch keys from some revision on, use Watcher, which combines the two. A feed never
// waits for a subscriber: one that does not keep up loses its buffer, is told how far it had come, and reads the rest
// from the store.
//
// Subscription's life:  made (live) -> Take* -> [overflow or Pause -> lagging -> Resume -> live]*
// Threading: one loop.     Lifetime: the feed outlives its subscriptions.
#ifndef TROUPE_SERVICES_KV_CHANGE_FEED_H_
#define TROUPE_SERVICES_KV_CHANGE_FEED_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "services/kv/store.h"
#include "troupe/async/future.h"
#include "troupe/base/counter.h"
#include "troupe/base/intrusive_list.h"
#include "troupe/loop/event_loop.h"

namespace kv {

// Shared by the buffers of all subscriptions that want it, so that a thousand watchers hold a value once.
using SharedChange = std::shared_ptr<const Change>;

// What one subscription holds at most before it is lagging. Bytes of keys and values; one change is held in any case.
struct FeedLimits {
  size_t changes_max = 1024;
  size_t bytes_max = 1 << 20;
};

class ChangeFeed {
 public:
  class Subscription;

  // `revision`: of the latest change before the first that will be published.
  ChangeFeed(troupe::EventLoop& loop, int64_t revision) : loop_(loop), revision_(revision) {}
  ChangeFeed(const ChangeFeed&) = delete;
  ChangeFeed& operator=(const ChangeFeed&) = delete;

  // To all whose prefix it has. REQUIRES: revisions ascend.
  void Publish(Change change);
  // Of the latest change that was published.
  int64_t revision() const { return revision_; }
  // Times that a subscription lost its buffer.
  const troupe::Counter& overflows() const { return overflows_; }

 private:
  troupe::EventLoop& loop_;
  int64_t revision_;
  troupe::IntrusiveList<Subscription> subscriptions_;
  troupe::Counter overflows_;
};

class ChangeFeed::Subscription : public troupe::ListNode<> {
 public:
  // Live from now on: holds what is published after feed.revision().
  Subscription(ChangeFeed& feed, std::string prefix, FeedLimits limits = {});

  // The next change; null if there is none now.
  SharedChange Take();
  // It overflowed or was paused: holds nothing and does not listen.
  bool lagging() const { return lagging_; }
  // What an overflow does.
  void Pause();
  // Every change up to here was taken, or is of no interest.
  int64_t after() const;
  // Live again, from feed.revision() on.
  void Resume();
  // Done when there may be something to take, or it lags. One waiter at a time.
  troupe::Future<void> Changed();

 private:
  friend class ChangeFeed;
  void Offer(const SharedChange& change);
  void Wake();

  ChangeFeed& feed_;
  const std::string prefix_;
  const FeedLimits limits_;
  std::deque<SharedChange> buffer_;
  size_t bytes_ = 0;
  bool lagging_ = false;
  int64_t lost_after_ = 0;  // while lagging
  std::optional<troupe::Promise<void>> waiter_;
};

}  // namespace kv

#endif  // TROUPE_SERVICES_KV_CHANGE_FEED_H_
