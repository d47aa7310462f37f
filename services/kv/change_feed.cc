#include "services/kv/change_feed.h"

#include <utility>

#include "absl/strings/match.h"
#include "troupe/base/errors.h"

namespace kv {
namespace {

size_t BytesOf(const Change& change) { return change.key.size() + (change.value ? change.value->size() : 0); }

}  // namespace

void ChangeFeed::Publish(Change change) {
  if (change.revision <= revision_) throw troupe::InvalidState("changes are published in the order of their revisions");
  revision_ = change.revision;
  if (subscriptions_.empty()) return;
  const SharedChange shared = std::make_shared<const Change>(std::move(change));
  // Offer runs nobody's code: whom it wakes, the loop resumes later.
  for (Subscription& subscription : subscriptions_) subscription.Offer(shared);
}

ChangeFeed::Subscription::Subscription(ChangeFeed& feed, std::string prefix, FeedLimits limits)
    : feed_(feed), prefix_(std::move(prefix)), limits_(limits) {
  feed_.subscriptions_.PushBack(*this);
}

void ChangeFeed::Subscription::Offer(const SharedChange& change) {
  if (lagging_ || !absl::StartsWith(change->key, prefix_)) return;
  const size_t bytes = BytesOf(*change);
  if (!buffer_.empty() && (buffer_.size() == limits_.changes_max || bytes_ + bytes > limits_.bytes_max)) {
    Pause();
    feed_.overflows_.Add();
  } else {
    buffer_.push_back(change);
    bytes_ += bytes;
  }
  Wake();
}

void ChangeFeed::Subscription::Pause() {
  lost_after_ = after();
  buffer_.clear();
  bytes_ = 0;
  lagging_ = true;
}

SharedChange ChangeFeed::Subscription::Take() {
  if (buffer_.empty()) return nullptr;
  SharedChange change = std::move(buffer_.front());
  buffer_.pop_front();
  bytes_ -= BytesOf(*change);
  return change;
}

int64_t ChangeFeed::Subscription::after() const {
  if (lagging_) return lost_after_;
  return buffer_.empty() ? feed_.revision_ : buffer_.front()->revision - 1;
}

void ChangeFeed::Subscription::Resume() { lagging_ = false; }

troupe::Future<void> ChangeFeed::Subscription::Changed() {
  if (waiter_ && !waiter_->done()) throw troupe::InvalidState("a subscription has one waiter at a time");
  waiter_.emplace(feed_.loop_);
  troupe::Future<void> changed = waiter_->future();
  if (lagging_ || !buffer_.empty()) Wake();
  return changed;
}

void ChangeFeed::Subscription::Wake() {
  if (waiter_ && !waiter_->done()) waiter_->SetValue();
  waiter_.reset();
}

}  // namespace kv
