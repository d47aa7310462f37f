#include "troupe/service/internal/interception.h"

#include <climits>
#include <string>

#include "absl/strings/str_cat.h"
#include "troupe/base/errors.h"
#include "troupe/service/internal/session_call.h"

namespace troupe::internal {
namespace {

constexpr char kTwice[] = "next was called for the second time";

std::unique_ptr<google::protobuf::MessageLite> CopyOf(const google::protobuf::MessageLite& message) {
  std::unique_ptr<google::protobuf::MessageLite> copy(message.New());
  copy->CheckTypeAndMergeFrom(message);
  return copy;
}

}  // namespace

std::unique_ptr<google::protobuf::MessageLite> MessageHooks::Changed(
    const google::protobuf::MessageLite& message) const {
  std::unique_ptr<google::protobuf::MessageLite> changed = CopyOf(message);
  Run(*changed);
  return changed;
}

// ---------------------------------------------------------------------------------------------------- server side

Task<absl::Status> ServerChain::Go(void* chain, size_t at) {
  auto& self = *static_cast<ServerChain*>(chain);
  if (at < self.interceptors_.size()) return self.interceptors_[at](self, Next(&Go, chain, at + 1));
  if (std::exchange(self.handler_started_, true)) throw InvalidState(kTwice);
  return self.start_(self.actor_, self.call_);
}

Call& ServerChain::call() { return call_; }
Metadata& ServerChain::metadata() { return call_.received_metadata(); }

google::protobuf::MessageLite* ServerChain::request() {
  if (call_.method().client_streams()) return nullptr;
  return const_cast<google::protobuf::MessageLite*>(&call_.request<google::protobuf::MessageLite>());
}

google::protobuf::MessageLite* ServerChain::response() {
  return call_.method().server_streams() ? nullptr : &call_.response<google::protobuf::MessageLite>();
}

void ServerChain::OnRead(MessageHook hook) {
  reads_.Add(std::move(hook));
  call_.WatchReads();
}

// ---------------------------------------------------------------------------------------------------- client side

ClientChain::ClientChain(SessionClientCall& call, ClientInterceptors interceptors,
                         const google::protobuf::MessageLite* request)
    : call_(call),
      interceptors_(std::move(interceptors)),
      request_(request == nullptr ? nullptr : CopyOf(*request)),
      ended_(call.core_loop()) {}

void ClientChain::Begin() {
  task_ = call_.core_loop().CreateTask(Run(CoreRef<SessionClientCall>::Share(call_)), "interceptors");
}

Task<void> ClientChain::Run(CoreRef<SessionClientCall> call) {
  ClientChain& chain = *call->chain();
  absl::Status status;
  try {
    Task<absl::Status> outermost = Go(&chain, 0);
    status = co_await std::move(outermost);
  } catch (const StatusError& failed) {
    status = failed.status();
  } catch (const Cancelled&) {
    chain.Finish(absl::CancelledError("an interceptor was cancelled"));
    throw;
  } catch (...) {  // what was thrown stays in the log
    chain.Finish(absl::UnknownError("an interceptor failed"));
    throw;
  }
  chain.Finish(std::move(status));
}

Task<absl::Status> ClientChain::Go(void* chain, size_t at) {
  auto& self = *static_cast<ClientChain*>(chain);
  if (at < self.interceptors_->size()) return (*self.interceptors_)[at](self, Next(&Go, chain, at + 1));
  return self.Beneath();
}

Task<absl::Status> ClientChain::Beneath() {
  if (state_ == State::kDone) co_return absl::CancelledError("the call has ended");
  if (state_ != State::kBefore) throw InvalidState(kTwice);
  state_ = State::kBeneath;
  Future<absl::Status> ended = ended_.future();
  call_.SendBeneath();
  const absl::Status status = co_await std::move(ended);
  co_return status;
}

bool ClientChain::Takes(const absl::Status& status, Metadata& trailers) {
  if (state_ == State::kBeneath) {
    state_ = State::kBehind;
    trailers_ = std::move(trailers);
    ended_.SetValueUnlessCancelled(status);
    return true;
  }
  if (state_ == State::kBehind) return true;
  Drop();
  return false;
}

void ClientChain::Drop() {
  if (std::exchange(state_, State::kDone) != State::kDone) task_.Cancel();
}

bool ClientChain::TakesReply(absl::Span<const char> reply, bool& parsed) {
  if (std::exchange(has_reply_, true)) return false;
  parsed = reply.size() <= INT_MAX && this->reply()->ParseFromArray(reply.data(), static_cast<int>(reply.size()));
  return true;
}

void ClientChain::Finish(absl::Status status) {
  const State before = std::exchange(state_, State::kDone);
  if (before == State::kDone) return;
  if (before != State::kBehind) call_.CancelBeneath(absl::CancelledError("an interceptor answered"));
  std::string reply;
  const bool answers = status.ok() && reply_ != nullptr;
  if (answers && !reply_->SerializeToString(&reply)) status = absl::InternalError("the reply cannot be encoded");
  call_.EndIntercepted(std::move(status), std::move(trailers_), answers ? &reply : nullptr);
}

const MethodInfo& ClientChain::method() const { return call_.method(); }
MonotonicTime ClientChain::deadline() const { return call_.deadline(); }
Metadata& ClientChain::metadata() { return call_.metadata_to_send(); }
const Metadata& ClientChain::initial_metadata() const { return call_.initial_metadata(); }

google::protobuf::MessageLite* ClientChain::reply() {
  if (method().server_streams()) return nullptr;
  if (reply_ == nullptr) reply_.reset(method().response.prototype().New());
  return reply_.get();
}

void ClientChain::OnRead(MessageHook hook) {
  reads_.Add(std::move(hook));
  call_.WatchReads();
}

}  // namespace troupe::internal
