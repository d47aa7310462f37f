#include "troupe/rpc/internal/call_core.h"

#include <climits>
#include <cstring>

#include "troupe/base/errors.h"
#include "troupe/base/pool.h"
#include "troupe/rpc/internal/message_weight.h"

namespace troupe::internal {

CallCore::~CallCore() {
  while (first_ != nullptr) {
    Received* const next = first_->next;
    PoolFree(first_, sizeof(Received) + first_->size);
    first_ = next;
  }
}

bool CallCore::Parse(absl::Span<const char> bytes, google::protobuf::MessageLite& message) {
  too_heavy_ = !IsLight(bytes, message, weight_max_);
  return !too_heavy_ && bytes.size() <= INT_MAX && message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
}

CallCore::ReadResult CallCore::TryRead(google::protobuf::MessageLite& message) {
  if (first_ == nullptr) return reading_closed_ ? ReadResult::kEnd : ReadResult::kWait;
  Received* const taken = first_;
  first_ = taken->next;
  if (first_ == nullptr) last_ = nullptr;
  const bool parsed = Parse({taken->bytes(), taken->size}, message);
  const size_t charged = taken->charged;
  set_last_compressed(taken->packed);
  PoolFree(taken, sizeof(Received) + taken->size);
  Consumed(charged);
  if (parsed && reads_watched_) OnRead(message);
  if (parsed) return ReadResult::kMessage;
  OnBadMessage();
  return ReadResult::kEnd;
}

void CallCore::Deliver(absl::Span<const char> message, size_t charged, Packed packed) {
  if (reading_closed_) return Consumed(charged);
  if (reader_ != nullptr) {  // it waits because nothing was there
    ReadLeaf& reader = *std::exchange(reader_, nullptr);
    reader.got_ = Parse(message, reader.message_);
    const bool parsed = reader.got_;
    set_last_compressed(packed);
    if (parsed && reads_watched_) OnRead(reader.message_);
    reader.Wake();
    Consumed(charged);
    if (!parsed) OnBadMessage();
    return;
  }
  auto* received = static_cast<Received*>(PoolAllocate(sizeof(Received) + message.size()));
  received->next = nullptr;
  received->charged = charged;
  received->size = message.size();
  received->packed = packed;
  if (!message.empty()) std::memcpy(received->bytes(), message.data(), message.size());
  (last_ == nullptr ? first_ : last_->next) = received;
  last_ = received;
}

void CallCore::CloseReading() {
  reading_closed_ = true;
  if (reader_ != nullptr) std::exchange(reader_, nullptr)->Wake();
}

void CallCore::DropReceived() {
  size_t charged = 0;
  while (first_ != nullptr) {
    Received* const next = first_->next;
    charged += first_->charged;
    PoolFree(first_, sizeof(Received) + first_->size);
    first_ = next;
  }
  last_ = nullptr;
  if (charged != 0) Consumed(charged);
}

void CallCore::WakeWriters() {
  while (!writers_.empty()) writers_.PopFront().Wake();
}

void CallCore::WakeAll() {
  if (reader_ != nullptr) std::exchange(reader_, nullptr)->Wake();
  WakeWriters();
}

void CallCore::ResetCore() { reading_closed_ = last_compressed_ = reads_watched_ = false; }

// ---------------------------------------------------------------------------------------------------- leaves

ReadLeaf::~ReadLeaf() {
  if (core_ && core_->reader_ == this) core_->reader_ = nullptr;
}

bool ReadLeaf::await_ready() {
  if (core_->reader_ != nullptr) throw InvalidState("another task is reading from this call");
  const CallCore::ReadResult result = core_->TryRead(message_);
  got_ = result == CallCore::ReadResult::kMessage;
  return result != CallCore::ReadResult::kWait;
}

void ReadLeaf::await_suspend(std::coroutine_handle<>) {
  core_->reader_ = this;
  Suspend();
}

bool ReadLeaf::await_resume() {
  Resumed();
  return got_;
}

void ReadLeaf::CancelWait() {
  core_->reader_ = nullptr;
  WakeCancelled();
}

void WriteLeaf::await_suspend(std::coroutine_handle<>) {
  core_->writers_.PushBack(*this);
  Suspend();
}

bool WriteLeaf::await_resume() {
  Resumed();
  return sent_ && !core_->over();
}

void WriteLeaf::CancelWait() {
  Unlink();
  WakeCancelled();
}

}  // namespace troupe::internal
