// CallCore: one side of a call: received messages that wait to be read, the tasks that wait to read or write.
//
// What brings messages and takes them away (a session with its codec, later a local actor) derives from it through
// ClientCall or ServerCall and calls Deliver, CloseReading and WakeWriters.
//
// Threading: the loop's.     Lifetime: reference-counted: whoever runs the call and each handle that a user holds.
#ifndef TROUPE_RPC_INTERNAL_CALL_CORE_H_
#define TROUPE_RPC_INTERNAL_CALL_CORE_H_

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "google/protobuf/message_lite.h"
#include "troupe/async/internal/root.h"
#include "troupe/base/intrusive_list.h"
#include "troupe/loop/event_loop.h"
#include "troupe/rpc/compression.h"

namespace troupe::internal {

class ReadLeaf;
class WriteLeaf;

class CallCore {
 public:
  explicit CallCore(EventLoop& loop) : core_loop_(loop) {}
  CallCore(const CallCore&) = delete;
  CallCore& operator=(const CallCore&) = delete;

  void Retain() { ++references_; }
  void Release() {
    if (--references_ == 0) OnUnreferenced();
  }

  EventLoop& core_loop() { return core_loop_; }

  // ---- the application's side
  enum class ReadResult { kMessage, kEnd, kWait };
  // Takes the next message. A message that does not parse ends the call and gives kEnd.
  ReadResult TryRead(google::protobuf::MessageLite& message);
  // Encodes and sends. False: the call is over, or its writing side is.
  virtual bool Send(const google::protobuf::MessageLite& message, WriteOptions options) = 0;
  // The message that was read last came packed.
  bool last_compressed() const { return last_compressed_; }
  // From here on OnRead is told of messages.
  void WatchReads() { reads_watched_ = true; }
  // Nothing that is sent will arrive any more.
  virtual bool over() const = 0;
  // What was sent is on its way, or the call is over: the next write need not wait.
  virtual bool HasRoom() const = 0;

 protected:
  virtual ~CallCore();

  // Nobody refers to it any more: to be deleted or kept for reuse.
  virtual void OnUnreferenced() = 0;
  // `charged` bytes of received messages have been read.
  virtual void Consumed(size_t charged) = 0;
  // The reader gets `message` as this leaves it.
  virtual void OnRead(google::protobuf::MessageLite&) {}
  // A received message could not be parsed: ends the call.
  virtual void OnBadMessage() = 0;

  enum class Packed : bool { kNo, kYes };
  // One message has come; parses it into a waiting reader's, or keeps a copy.
  void Deliver(absl::Span<const char> message, size_t charged, Packed packed);
  void set_last_compressed(Packed packed) { last_compressed_ = packed == Packed::kYes; }
  // No more messages will come; those that wait can still be read.
  void CloseReading();
  // Drops the messages that wait and gives their credit back.
  void DropReceived();
  void WakeWriters();
  // Wakes whoever waits in this call.
  void WakeAll();
  // Messages that would be more work than this are not parsed (message_weight.h), and too_heavy() tells afterwards.
  void set_weight_max(size_t most) { weight_max_ = most; }
  bool too_heavy() const { return too_heavy_; }
  // False: it does not parse, or was too heavy.
  bool Parse(absl::Span<const char> bytes, google::protobuf::MessageLite& message);
  bool reading_closed() const { return reading_closed_; }
  bool has_received() const { return first_ != nullptr; }
  // Makes it as new, for reuse. REQUIRES: nobody waits in it.
  void ResetCore();

 private:
  friend class ReadLeaf;
  friend class WriteLeaf;

  struct Received {
    Received* next;
    size_t charged;
    size_t size;
    Packed packed;
    char* bytes() { return reinterpret_cast<char*>(this + 1); }
  };

  EventLoop& core_loop_;
  uint32_t references_ = 1;
  bool reading_closed_ = false;
  bool last_compressed_ = false;
  bool reads_watched_ = false;
  bool too_heavy_ = false;
  size_t weight_max_ = SIZE_MAX;
  Received* first_ = nullptr;
  Received* last_ = nullptr;
  ReadLeaf* reader_ = nullptr;
  IntrusiveList<WriteLeaf> writers_;
};

template <class Core>
class CoreRef {
 public:
  CoreRef() = default;
  // Takes over one reference.
  explicit CoreRef(Core* core) : core_(core) {}
  CoreRef(const CoreRef& other) : core_(other.core_) {
    if (core_ != nullptr) core_->Retain();
  }
  CoreRef(CoreRef&& other) noexcept : core_(std::exchange(other.core_, nullptr)) {}
  CoreRef& operator=(CoreRef other) noexcept {
    std::swap(core_, other.core_);
    return *this;
  }
  ~CoreRef() {
    if (core_ != nullptr) core_->Release();
  }
  static CoreRef Share(Core& core) {
    core.Retain();
    return CoreRef(&core);
  }
  Core* get() const { return core_; }
  Core* operator->() const { return core_; }
  Core& operator*() const { return *core_; }
  explicit operator bool() const { return core_ != nullptr; }

 private:
  Core* core_ = nullptr;
};

// Waits for the next message: true, or false at the end.
class ReadLeaf final : public Leaf {
 public:
  ReadLeaf(CoreRef<CallCore> core, google::protobuf::MessageLite& message)
      : core_(std::move(core)), message_(message) {}
  ~ReadLeaf();
  bool await_ready();
  void await_suspend(std::coroutine_handle<>);
  bool await_resume();
  std::string DescribeWait() const override { return "reading the next message of a call"; }

 private:
  friend class CallCore;
  void CancelWait() override;

  CoreRef<CallCore> core_;
  google::protobuf::MessageLite& message_;
  bool got_ = false;
};

// Waits until what was written is on its way: true, or false when the call is over.
class WriteLeaf final : public Leaf, public ListNode<> {
 public:
  // `sent`: what CallCore::Send said.
  WriteLeaf(CoreRef<CallCore> core, bool sent) : core_(std::move(core)), sent_(sent) {}
  ~WriteLeaf() = default;
  bool await_ready() { return !sent_ || core_->HasRoom(); }
  void await_suspend(std::coroutine_handle<>);
  bool await_resume();
  std::string DescribeWait() const override { return "writing a message of a call, without room"; }

 private:
  friend class CallCore;
  void CancelWait() override;

  CoreRef<CallCore> core_;
  bool sent_;
};

}  // namespace troupe::internal

#endif  // TROUPE_RPC_INTERNAL_CALL_CORE_H_
