// ChangeFeed: tells subscribers of changes as they are committed.
//
// The fan-out of AsyncStore; to watch keys from some revision on, use Watcher, which combines the two. The latest changes
// stand in one log, as long as someone has still to take them; a subscription is no more than a place in it. So a feed
// never waits for a subscriber, and a thousand of them hold nothing: one that falls behind the log is told how far it had
// come, and reads the rest from the store.
//
// Subscription's life:  made -> Take* -> [lagging -> SkipTo* -> live]*
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

// Shared by all who were told of it and still hold it.
using SharedChange = std::shared_ptr<const Change>;

// What the log of a feed holds at most. Bytes of keys and values; one change is held in any case.
struct FeedLimits {
  size_t changes_max = 4096;
  size_t bytes_max = 1 << 20;
};

class ChangeFeed {
 public:
  class Subscription;

  // `revision`: of the latest change before the first that will be published.
  ChangeFeed(troupe::EventLoop& loop, int64_t revision, FeedLimits limits = {})
      : loop_(loop), limits_(limits), revision_(revision), forgotten_(revision) {}
  ChangeFeed(const ChangeFeed&) = delete;
  ChangeFeed& operator=(const ChangeFeed&) = delete;

  // To all whose prefix it has. REQUIRES: revisions ascend.
  void Publish(SharedChange change);
  // Of the latest change that was published.
  int64_t revision() const { return revision_; }
  // Of keys and values that the log holds.
  size_t held_bytes() const { return bytes_; }
  // Times that a subscription fell behind the log.
  const troupe::Counter& overflows() const { return overflows_; }

 private:
  void DropOldest();
  // Nobody has to take anything from the log any more.
  void OnNobodyBehind();

  troupe::EventLoop& loop_;
  const FeedLimits limits_;
  int64_t revision_;
  int64_t forgotten_;             // the log has all changes after this revision
  std::deque<SharedChange> log_;  // by revision
  size_t bytes_ = 0;
  size_t behind_ = 0;  // subscriptions for which something stands in the log
  troupe::IntrusiveList<Subscription> subscriptions_;
  troupe::Counter overflows_;
};

class ChangeFeed::Subscription : public troupe::ListNode<> {
 public:
  // To what is published after a revision. Where the log does not reach back to it, or it lies in the future, it lags.
  Subscription(ChangeFeed& feed, std::string prefix, int64_t after);
  ~Subscription();

  const std::string& prefix() const { return prefix_; }
  // The next change; null if there is none now.
  SharedChange Take();
  // Everything was taken.
  bool live() const { return state_ == State::kLive; }
  // What comes next is not in the log any more.
  bool lagging() const { return state_ == State::kLagging; }
  // Every change up to here was taken, or is of no interest.
  int64_t after() const { return state_ == State::kLive ? feed_.revision_ : after_; }
  // Every change up to a revision was read elsewhere. Lags no more, if that is in the log.
  void SkipTo(int64_t after);
  // Done when there may be something to take, or it lags. One waiter at a time.
  troupe::Future<void> Changed();

 private:
  friend class ChangeFeed;
  // kLive: everything was taken. kBehind: there is something in the log.
  enum class State : uint8_t { kLive, kBehind, kLagging };
  void Offer(const Change& change);
  void Become(State state);
  State StateAt(int64_t after) const;
  void Wake();

  ChangeFeed& feed_;
  const std::string prefix_;
  State state_ = State::kLive;
  int64_t after_;  // unless live
  std::optional<troupe::Promise<void>> waiter_;
};

}  // namespace kv

#endif  // TROUPE_SERVICES_KV_CHANGE_FEED_H_
