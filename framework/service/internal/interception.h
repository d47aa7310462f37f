// ServerChain, ClientChain: interceptors at work on one call of a session.
//
// Threading: the loop's.     Lifetime: of the call's record; nothing of a chain runs any more when it goes.
#ifndef TROUPE_SERVICE_INTERNAL_INTERCEPTION_H_
#define TROUPE_SERVICE_INTERNAL_INTERCEPTION_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "google/protobuf/message_lite.h"
#include "troupe/async/future.h"
#include "troupe/async/task.h"
#include "troupe/base/monotonic_time.h"
#include "troupe/loop/event_loop.h"
#include "troupe/rpc/interceptor.h"
#include "troupe/rpc/internal/call_core.h"
#include "troupe/rpc/metadata.h"
#include "troupe/rpc/method.h"

namespace troupe::internal {

class ServerCall;
class SessionClientCall;
class SessionServerCall;

// The hooks of a call's streams.
class MessageHooks {
 public:
  void Add(MessageHook hook) { hooks_.push_back(std::move(hook)); }
  bool empty() const { return hooks_.empty(); }
  void Run(google::protobuf::MessageLite& message) const {
    for (const MessageHook& hook : hooks_) hook(message);
  }
  // `message` as the hooks make it.
  std::unique_ptr<google::protobuf::MessageLite> Changed(const google::protobuf::MessageLite& message) const;

 private:
  std::vector<MessageHook> hooks_;
};

class ServerChain final : public ServerInterception {
 public:
  // What is referred to outlives it.
  ServerChain(SessionServerCall& call, const std::vector<ServerInterceptor>& interceptors, StartHandler start,
              void* actor)
      : call_(call), interceptors_(interceptors), start_(start), actor_(actor) {}
  virtual ~ServerChain() = default;

  // A StartHandler, of which `chain` is the actor.
  static Task<absl::Status> Start(void* chain, ServerCall&) { return Go(chain, 0); }
  const MessageHooks& reads() const { return reads_; }
  const MessageHooks& writes() const { return writes_; }

  Call& call() override;
  Metadata& metadata() override;
  google::protobuf::MessageLite* request() override;
  google::protobuf::MessageLite* response() override;
  void OnRead(MessageHook hook) override;
  void OnWrite(MessageHook hook) override { writes_.Add(std::move(hook)); }

 private:
  static Task<absl::Status> Go(void* chain, size_t at);

  SessionServerCall& call_;
  const std::vector<ServerInterceptor>& interceptors_;
  const StartHandler start_;
  void* const actor_;
  bool handler_started_ = false;
  MessageHooks reads_;
  MessageHooks writes_;
};

using ClientInterceptors = std::shared_ptr<const std::vector<ClientInterceptor>>;  // of the channel and its calls

// Life: made -> Begin -> (next() -> sent -> Takes(end))? -> the outermost is done -> the call ends
class ClientChain final : public ClientInterception {
 public:
  // `request`: the only one, of which a copy is kept; null where the client streams.
  ClientChain(SessionClientCall& call, ClientInterceptors interceptors, const google::protobuf::MessageLite* request);
  virtual ~ClientChain() = default;

  // The first one runs in the next iteration of the loop.
  void Begin();
  // What is beneath the interceptors has ended. True: they have it now, and the call goes on. False: they have not been
  // asked, and will not be.
  bool Takes(const absl::Status& status, Metadata& trailers);
  // The only response has come. False: one has come before.
  bool TakesReply(absl::Span<const char> reply, bool& parsed);
  // The caller has gone.
  void Drop();
  const MessageHooks& reads() const { return reads_; }
  const MessageHooks& writes() const { return writes_; }

  const MethodInfo& method() const override;
  MonotonicTime deadline() const override;
  Metadata& metadata() override;
  google::protobuf::MessageLite* request() override { return request_.get(); }
  const Metadata& initial_metadata() const override;
  Metadata& trailers() override { return trailers_; }
  google::protobuf::MessageLite* reply() override;
  void OnRead(MessageHook hook) override;
  void OnWrite(MessageHook hook) override { writes_.Add(std::move(hook)); }

 private:
  enum class State : uint8_t { kBefore, kBeneath, kBehind, kDone };

  static Task<absl::Status> Go(void* chain, size_t at);
  Task<absl::Status> Beneath();
  static Task<void> Run(CoreRef<SessionClientCall> call);
  void Finish(absl::Status status);

  SessionClientCall& call_;
  const ClientInterceptors interceptors_;
  State state_ = State::kBefore;
  std::unique_ptr<google::protobuf::MessageLite> request_;
  std::unique_ptr<google::protobuf::MessageLite> reply_;
  bool has_reply_ = false;
  Metadata trailers_;
  Promise<absl::Status> ended_;
  TaskHandle<void> task_;
  MessageHooks reads_;
  MessageHooks writes_;
};

}  // namespace troupe::internal

#endif  // TROUPE_SERVICE_INTERNAL_INTERCEPTION_H_
