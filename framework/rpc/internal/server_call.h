// ServerCall: the server's side of one call: the Call that its handler sees, and the chain in which the handler runs.
//
// What brings the call (a session, later a local reference) derives from it, fills in request and deadline and calls
// RunHandler(); the handler runs in place until it first waits. When it has ended, SendOutcome gets its status.
//
// A call has two lives: it is over for the peer (answered, refused, cancelled or lost), and its handler has ended, or
// never started. Whichever comes last ends the record: OnEnded(), once, whatever happens to the call how often.
//
// Life:      made -> Begin -> (Deliver | CloseReading | PeerGone)* -> SendOutcome -> OnEnded -> reused or deleted
// Threading: the loop's.
#ifndef TROUPE_RPC_INTERNAL_SERVER_CALL_H_
#define TROUPE_RPC_INTERNAL_SERVER_CALL_H_

#include <cstddef>
#include <exception>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "google/protobuf/message_lite.h"
#include "troupe/async/internal/root.h"
#include "troupe/async/task.h"
#include "troupe/loop/timer_heap.h"
#include "troupe/rpc/call.h"
#include "troupe/rpc/internal/call_core.h"
#include "troupe/rpc/internal/serial_gate.h"
#include "troupe/rpc/method.h"
#include "troupe/rpc/stream.h"

namespace troupe::internal {

class ServerCall : public CallCore, public Call, public Root {
 public:
  // ---- for generated code
  template <class T>
  const T& request() const {
    return static_cast<const T&>(*request_);
  }
  template <class T>
  T& response() {
    return static_cast<T&>(*response_);
  }
  template <class T>
  Reader<T> reader() {
    return Reader<T>(CoreRef<CallCore>::Share(*this));
  }
  template <class T>
  Writer<T> writer() {
    return Writer<T>(CoreRef<CallCore>::Share(*this));
  }

  bool over() const override { return over_; }
  bool HasRoom() const override { return over_ || !IsBlocked(); }
  bool message_compressed() const override { return last_compressed(); }

 protected:
  explicit ServerCall(EventLoop& loop) : CallCore(loop), Root(loop, Context()) {}
  ~ServerCall() override { core_loop().Cancel(deadline_timer_); }

  // Takes up a call of `method`, making the messages that its kind needs or clearing those of an earlier call of the
  // same method. `deadline` by the loop's clock.
  void Begin(const MethodInfo& method, MonotonicTime deadline, Metadata metadata);
  // The single request of a call whose client does not stream. False: it does not parse. REQUIRES: Begin().
  bool ParseRequest(absl::Span<const char> bytes);
  // What it holds: its bytes, or, where those are not few, the room that they take as a message. Two bytes of an unknown
  // field take 16 to 32.
  size_t request_space() const { return request_space_; }
  // For a call that waits to be started: it ends when its deadline passes.
  void WatchDeadline();
  // What its handler does is waited for by these turns. REQUIRES: Begin(), and the handler has not started.
  void SetSerialTurns(SerialTurns turns);
  // Starts the handler in place: it may have ended when this returns.
  void RunHandler(StartHandler start, void* actor);
  // The caller cancelled or is gone: the handler gets Cancelled, nothing is sent any more. No effect on one that is over.
  void PeerGone();
  // Ends the call for the peer, whether its handler runs, which then gets Cancelled, or has not started, which it then
  // never does. No effect on one that is over.
  void EndEarly(const absl::Status& status);
  bool handler_runs() const { return handler_runs_; }
  // Destroys the handler where it stands; one that is running at this moment, where it next suspends. REQUIRES:
  // PeerGone().
  void DestroyHandler();

  // Sends status and trailers, with `response` if there is one. Called once, unless the peer was gone before.
  virtual void SendOutcome(const absl::Status& status, const google::protobuf::MessageLite* response) = 0;
  // The call is over, and no frame of its handler is left. May release this.
  virtual void OnEnded() = 0;
  virtual bool IsBlocked() const = 0;

  void OnBadMessage() override;
  absl::Status MalformedRequest() const;

 private:
  class DeadlineTimer final : public Timer {
   public:
    explicit DeadlineTimer(ServerCall& call) : call_(call) {}
    ~DeadlineTimer() = default;
    void Run() override { call_.OnDeadline(); }
    std::string Describe() const override { return "deadline of a call"; }

   private:
    ServerCall& call_;
  };

  void OnDeadline();
  void OnFinished() override;
  void OnCancelledUnstarted() override;
  void OnDoomed() override;
  // The handler has ended by itself: answers, unless the call was over before.
  void Answer(const absl::Status& status);
  // The one place where records end. The last thing that is done in whatever calls it: it may release this.
  void EndIfDone();
  // The handler threw `error`: answers, then reports what is a bug to the loop's exception handler. The last thing that
  // is done here: the exception handler may destroy this, and Fatal is passed on.
  void Failed(std::exception_ptr error);

  std::unique_ptr<google::protobuf::MessageLite> request_;
  std::unique_ptr<google::protobuf::MessageLite> response_;
  size_t request_space_ = 0;
  DeadlineTimer deadline_timer_{*this};
  bool over_ = false;
  bool handler_runs_ = false;
  bool ended_ = false;
  bool starting_ = false;  // the handler's function has not given its task yet
};

// The body of an rpc that is not overridden.
Task<absl::Status> Unimplemented(const MethodInfo& method);

}  // namespace troupe::internal

#endif  // TROUPE_RPC_INTERNAL_SERVER_CALL_H_
