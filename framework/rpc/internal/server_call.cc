#include "troupe/rpc/internal/server_call.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "troupe/base/errors.h"

namespace troupe::internal {
namespace {

// Messages that grew beyond this are not kept for the next call.
constexpr size_t kKeptMessageBytes = 16 << 10;
// A request of fewer bytes is charged as it came: to ask what it occupies takes longer than most handlers run.
constexpr size_t kFewRequestBytes = 512;

void Prepare(std::unique_ptr<google::protobuf::MessageLite>& message, const MessageType& type) {
  if (message == nullptr) {
    message.reset(type.prototype().New());
  } else {
    message->Clear();
  }
}

}  // namespace

void ServerCall::Begin(const MethodInfo& method, MonotonicTime deadline, Metadata metadata) {
  if (method_ != &method) {
    request_.reset();
    response_.reset();
  }
  method_ = &method;
  deadline_ = deadline;
  metadata_ = std::move(metadata);
  trailers_.Clear();
  request_space_ = 0;
  cancelled_ = false;
  compression_.reset();
  over_ = ended_ = false;
  if (!method.client_streams()) Prepare(request_, method.request);
  if (!method.server_streams()) Prepare(response_, method.response);
  ResetCore();
  Recycle(deadline.is_infinite() ? Context() : Context().WithDeadline(deadline));
}

bool ServerCall::ParseRequest(absl::Span<const char> bytes) {
  request_space_ = bytes.size();
  const bool parsed = Parse(bytes, *request_);
  if (too_heavy()) return false;
  if (bytes.size() >= kFewRequestBytes) request_space_ = std::max(request_space_, method_->request.space(*request_));
  return parsed;
}

void ServerCall::WatchDeadline() {
  if (!deadline_.is_infinite() && !deadline_timer_.scheduled()) core_loop().ScheduleAt(deadline_timer_, deadline_);
}

void ServerCall::OnDeadline() { EndEarly(absl::DeadlineExceededError("the deadline has passed")); }

void ServerCall::SetSerialTurns(SerialTurns turns) {
  Context context = deadline_.is_infinite() ? Context() : Context().WithDeadline(deadline_);
  {
    ContextScope scope(context);
    current_serial_turns.Set(std::move(turns));
  }
  Recycle(std::move(context));
}

void ServerCall::RunHandler(StartHandler start, void* actor) {
  handler_runs_ = starting_ = true;
  Task<absl::Status> handler;
  try {
    handler = start(actor, *this);
    if (!handler.valid()) throw InvalidState("the handler returned a task of nothing");
  } catch (...) {  // becomes the call's status, and is reported; Fatal passes
    handler_runs_ = starting_ = false;
    return Failed(std::current_exception());
  }
  starting_ = false;
  if (over_) {  // by what the function did before it gave its task
    handler = Task<absl::Status>();
    return OnCancelledUnstarted();
  }
  Adopt(*handler.Release());
  const CoreRef<ServerCall> keep = CoreRef<ServerCall>::Share(*this);
  Run();
  // Most handlers have ended by now; only one that waits needs its deadline watched.
  if (handler_runs_ && !over_) WatchDeadline();
}

void ServerCall::OnFinished() {
  auto& promise = static_cast<TaskPromise<absl::Status>&>(*frame());
  const std::exception_ptr error = promise.TakeError();
  absl::Status status;
  if (error == nullptr) status = std::move(*promise.value);
  DestroyChain();
  handler_runs_ = false;
  if (error != nullptr) return Failed(error);
  Answer(status);
}

void ServerCall::OnDoomed() {
  DestroyChain();
  handler_runs_ = false;
  EndIfDone();
}

void ServerCall::OnCancelledUnstarted() {
  handler_runs_ = false;
  Answer(absl::CancelledError("the call was cancelled"));
}

void ServerCall::Answer(const absl::Status& status) {
  core_loop().Cancel(deadline_timer_);
  if (!over_) {
    over_ = true;
    SendOutcome(status, status.ok() ? response_.get() : nullptr);
  }
  DropReceived();
  CloseReading();
  WakeWriters();
  EndIfDone();
}

void ServerCall::EndIfDone() {
  if (!over_ || handler_runs_ || std::exchange(ended_, true)) return;
  if (request_space_ > kKeptMessageBytes) request_.reset();
  if (response_ != nullptr && static_cast<size_t>(response_->GetCachedSize()) > kKeptMessageBytes) response_.reset();
  OnEnded();
}

void ServerCall::Failed(std::exception_ptr error) {
  try {
    std::rethrow_exception(error);
  } catch (const Cancelled&) {
    Answer(absl::CancelledError("the call was cancelled"));
  } catch (const StatusError& failed) {
    Answer(failed.status());
  } catch (...) {  // reports to the exception handler, which passes Fatal on
    ExceptionContext context;
    context.message = absl::StrCat("Exception in the handler of ", method().path);
    context.Add("method", std::string(method().path), &method());
    context.Add("peer", connection().DebugString(), &connection());
    EventLoop& loop = core_loop();
    // What was thrown stays in the log: it may hold what a client must not see.
    Answer(absl::UnknownError("the handler failed"));
    loop.ReportCurrentException(std::move(context));
  }
}

void ServerCall::PeerGone() {
  if (over_) return;
  over_ = true;
  cancelled_ = true;
  core_loop().Cancel(deadline_timer_);
  DropReceived();
  CloseReading();
  WakeWriters();
  Cancel();
  EndIfDone();
}

void ServerCall::EndEarly(const absl::Status& status) {
  if (over_) return;
  over_ = true;
  cancelled_ = true;
  core_loop().Cancel(deadline_timer_);
  SendOutcome(status, nullptr);
  DropReceived();
  CloseReading();
  WakeWriters();
  Cancel();
  EndIfDone();
}

void ServerCall::DestroyHandler() {
  if (!handler_runs_) return;
  if (starting_) return;
  if (running()) return DestroyOnceSuspended();
  DestroyChain();
  handler_runs_ = false;
  EndIfDone();
}

absl::Status ServerCall::MalformedRequest() const {
  if (too_heavy()) return absl::ResourceExhaustedError(absl::StrCat(method().path, ": a request of too many fields"));
  return absl::InternalError(absl::StrCat(method().path, ": a request does not parse"));
}

void ServerCall::OnBadMessage() { EndEarly(MalformedRequest()); }

Task<absl::Status> Unimplemented(const MethodInfo& method) {
  co_return absl::UnimplementedError(absl::StrCat(method.path, " is not implemented"));
}

}  // namespace troupe::internal
