// Call: the server's side of one rpc: what came with it, what goes back with it, and how long it has.
//
// A handler gets it as its last parameter. Work that the handler starts inherits the call's deadline through Context,
// so most handlers need no more of a Call than its name.
//
// Threading: the loop's.     Lifetime: until the handler's Task is done.
#ifndef TROUPE_RPC_CALL_H_
#define TROUPE_RPC_CALL_H_

#include <optional>

#include "troupe/base/intrusive_list.h"
#include "troupe/base/monotonic_time.h"
#include "troupe/rpc/compression.h"
#include "troupe/rpc/connection.h"
#include "troupe/rpc/metadata.h"
#include "troupe/rpc/method.h"

namespace troupe {

namespace internal {

// Told once, when the server begins to drain. Destroyed, it is told nothing.
class DrainWatcher : public ListNode<DrainWatcher> {
 public:
  virtual void OnDraining() = 0;

 protected:
  ~DrainWatcher() = default;
};

}  // namespace internal

class Call {
 public:
  const MethodInfo& method() const { return *method_; }
  // What the client sent with the call.
  const Metadata& metadata() const { return metadata_; }
  // Goes back before the first message. Throws InvalidState once it has gone.
  virtual Metadata& initial_metadata() = 0;
  // Goes back with the status.
  Metadata& trailers() { return trailers_; }

  // Of the responses, if the caller unpacks them; else as the server's options say. Before the first one, or nothing
  // comes of it.
  void set_compression(Compression compression) { compression_ = compression; }
  // The request, or the message of a stream that was read last, came packed.
  virtual bool message_compressed() const = 0;

  // By the loop's clock; InfiniteFuture() if there is none.
  MonotonicTime deadline() const { return deadline_; }
  // The caller has gone: cancelled, its deadline passed, or its connection was lost. The handler hears of it as
  // Cancelled at its co_await.
  bool cancelled() const { return cancelled_; }
  // The server drains: long streams should come to an end. UntilDraining (rpc/until_draining.h) waits for it.
  virtual bool draining() const = 0;
  // For UntilDraining. REQUIRES: !draining().
  virtual void WatchDraining(internal::DrainWatcher& watcher) = 0;
  virtual Connection& connection() = 0;

 protected:
  ~Call() = default;

  const MethodInfo* method_ = nullptr;
  Metadata metadata_;
  Metadata trailers_;
  MonotonicTime deadline_ = MonotonicTime::InfiniteFuture();
  bool cancelled_ = false;
  std::optional<Compression> compression_;
};

}  // namespace troupe

#endif  // TROUPE_RPC_CALL_H_
