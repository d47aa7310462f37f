#include "services/kv/change_feed.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "troupe/base/errors.h"

namespace kv {
namespace {

size_t BytesOf(const Change& change) { return change.key.size() + (change.value ? change.value->size() : 0); }

}  // namespace

void ChangeFeed::Publish(SharedChange change) {
  if (change->revision <= revision_)
    throw troupe::InvalidState("changes are published in the order of their revisions");
  revision_ = change->revision;
  bytes_ += BytesOf(*change);
  log_.push_back(std::move(change));
  while (log_.size() > 1 && (log_.size() > limits_.changes_max || bytes_ > limits_.bytes_max)) DropOldest();
  // Offer runs nobody's code: whom it wakes, the loop resumes later.
  for (Subscription& subscription : subscriptions_) subscription.Offer(*log_.back());
  if (behind_ == 0) OnNobodyBehind();
}

void ChangeFeed::DropOldest() {
  forgotten_ = log_.front()->revision;
  bytes_ -= BytesOf(*log_.front());
  log_.pop_front();
}

void ChangeFeed::OnNobodyBehind() {
  forgotten_ = revision_;
  bytes_ = 0;
  log_.clear();
}

ChangeFeed::Subscription::Subscription(ChangeFeed& feed, std::string prefix, int64_t after)
    : feed_(feed), prefix_(std::move(prefix)), after_(after) {
  feed_.subscriptions_.PushBack(*this);
  Become(StateAt(after));
}

ChangeFeed::Subscription::~Subscription() { Become(State::kLive); }

ChangeFeed::Subscription::State ChangeFeed::Subscription::StateAt(int64_t after) const {
  if (after == feed_.revision_) return State::kLive;
  return after >= feed_.forgotten_ && after < feed_.revision_ ? State::kBehind : State::kLagging;
}

void ChangeFeed::Subscription::Become(State state) {
  const State before = std::exchange(state_, state);
  if (state == State::kBehind) ++feed_.behind_;
  if (before == State::kBehind && --feed_.behind_ == 0) feed_.OnNobodyBehind();
}

// The newest change has come into the log.
void ChangeFeed::Subscription::Offer(const Change& change) {
  switch (state_) {
    case State::kLive:
      if (!absl::StartsWith(change.key, prefix_)) return;
      after_ = change.revision - 1;
      state_ = State::kBehind;
      ++feed_.behind_;
      return Wake();
    case State::kBehind:
      if (after_ >= feed_.forgotten_) return;
      state_ = State::kLagging;
      --feed_.behind_;
      return feed_.overflows_.Add();
    case State::kLagging:
      return;
  }
}

SharedChange ChangeFeed::Subscription::Take() {
  if (state_ != State::kBehind) return nullptr;
  const auto next =
      std::upper_bound(feed_.log_.begin(), feed_.log_.end(), after_,
                       [](int64_t revision, const SharedChange& change) { return revision < change->revision; });
  for (auto it = next; it != feed_.log_.end(); ++it) {
    if (!absl::StartsWith((*it)->key, prefix_)) continue;
    SharedChange change = *it;
    after_ = change->revision;
    if (after_ == feed_.revision_) Become(State::kLive);
    return change;
  }
  Become(State::kLive);
  return nullptr;
}

void ChangeFeed::Subscription::SkipTo(int64_t after) {
  if (state_ == State::kLive || after <= after_) return;
  after_ = after;
  Become(StateAt(after));
}

troupe::Future<void> ChangeFeed::Subscription::Changed() {
  if (waiter_ && !waiter_->done()) throw troupe::InvalidState("a subscription has one waiter at a time");
  waiter_.emplace(feed_.loop_);
  troupe::Future<void> changed = waiter_->future();
  if (state_ != State::kLive) Wake();
  return changed;
}

void ChangeFeed::Subscription::Wake() {
  if (waiter_ && !waiter_->done()) waiter_->SetValue();
  waiter_.reset();
}

}  // namespace kv
