#include "troupe/async/future.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace troupe::internal {

FutureCore::~FutureCore() {
  while (!waiters_.empty()) waiters_.PopFront().OnFutureDropped();
}

bool FutureCore::Cancel() {
  if (done()) return false;
  Complete(kCancelled);
  return true;
}

void FutureCore::SetError(std::exception_ptr error) {
  CheckPending();
  error_ = std::move(error);
  Complete(kError);
}

void FutureCore::CheckPending() const {
  if (done()) throw InvalidState(absl::StrCat("invalid state: ", Describe(), " is done already"));
}

void FutureCore::Complete(State state) {
  state_ = state;
  while (!waiters_.empty()) waiters_.PopFront().OnFutureDone();
}

void FutureCore::ThrowIfFailed() {
  if (state_ == kCancelled) throw Cancelled();
  if (state_ == kError) {
    retrieved_ = true;
    std::rethrow_exception(error_);
  }
}

std::exception_ptr FutureCore::exception() {
  if (!done()) throw InvalidState("Exception is not set.");
  if (state_ == kCancelled) throw Cancelled();
  retrieved_ = true;
  return error_;
}

bool FutureCore::EndedByCancellation() const {
  if (state_ != kError) return state_ == kCancelled;
  try {
    std::rethrow_exception(error_);
  } catch (const Cancelled&) {
    return true;
  } catch (...) {  // stays where it is
    return false;
  }
}

const std::string& FutureCore::name() const {
  static const std::string& none = *new std::string;
  return none;
}

std::string FutureCore::Describe() const {
  static constexpr const char* kStates[] = {"pending", "finished", "finished with an error", "cancelled"};
  return absl::StrCat("<", Kind(), " ", kStates[state_], " created at ", where_.file_name(), ":", where_.line(), ">");
}

void FutureCore::ReportUnretrieved() {
  if (retrieved_) return;
  ExceptionContext context;
  if (state_ == kError) {
    context.exception = error_;
  } else if (state_ == kValue) {
    if (ReportsStatus()) context.status = ValueStatus();
    if (context.status.ok()) return;
  } else {
    return;
  }
  retrieved_ = true;
  context.message = absl::StrCat(Kind(), " exception was never retrieved");
  context.Add(Kind() == std::string("Task") ? "task" : "future", Describe(), this);
  loop_.CallExceptionHandlerLater(context);
}

absl::Status StatusIn(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const StatusError& carrier) {
    return carrier.status();
  } catch (...) {  // not ours: stays where it is
    return absl::OkStatus();
  }
}

void CheckIsError(const std::exception_ptr& error) {
  if (!error) throw InvalidState("SetError was given no exception");
  bool ends_iteration = false;
  try {
    std::rethrow_exception(error);
  } catch (const GeneratorExit&) {
    ends_iteration = true;
  } catch (...) {  // stays where it is
    return;
  }
  if (ends_iteration)
    throw InvalidState("GeneratorExit interacts badly with generators and cannot be a future's error");
}

void FutureLeaf::CancelWait() {
  // Cancelling a task takes effect later, when the task has ended; a plain future is done at once and wakes us.
  if (core_->Cancel()) return;
  if (Root::TakeCircle()) {
    static_cast<FutureWaiter*>(this)->Unlink();
    WakeCancelled();
  } else {
    // It cannot be cancelled any more, though it is not done yet: a Gather whose children are.
    CancelOnceWoken();
  }
}

void FutureLeaf::Check() const {
  Root& root = *Root::Current();
  if (core_->root() == &root) throw InvalidState("Task cannot await on itself");
  if (&core_->loop() != &root.loop()) {
    throw InvalidState(absl::StrCat(core_->Describe(), " is attached to a different loop"));
  }
}

// Owned by itself while it waits or is queued; tokens hold it weakly. It does not keep a pending future alive.
class DoneCallback final : public FutureWaiter, public Runnable {
 public:
  DoneCallback(FutureCore& future, absl::AnyInvocable<void(Ref)> callback, std::source_location where)
      : future_(future), callback_(std::move(callback)), context_(Context::Current()), where_(where) {}

  void Start(std::shared_ptr<DoneCallback> self) {
    self_ = std::move(self);
    if (future_.done()) {
      OnFutureDone();
    } else {
      future_.Add(*this);
    }
  }
  bool Remove() {
    if (self_ == nullptr) return false;
    static_cast<FutureWaiter*>(this)->Unlink();
    static_cast<Runnable*>(this)->Unlink();
    Forget();
    return true;
  }

  void OnFutureDone() override {
    future_.Retain();
    queued_ = Ref(&future_);
    try {
      future_.loop().Schedule(*this);
    } catch (const InvalidState&) {
      Forget();
      throw;
    }
  }
  void OnFutureDropped() override { Forget(); }

  void Run() override {
    const std::shared_ptr<DoneCallback> self = std::move(self_);
    EventLoop& loop = future_.loop();
    absl::AnyInvocable<void(Ref)> callback = std::move(callback_);
    ContextScope scope(context_);
    try {
      callback(std::move(queued_));
    } catch (...) {  // reports to the exception handler, which passes Fatal on
      ExceptionContext context;
      context.message = absl::StrCat("Exception in callback ", where_.function_name());
      context.Add("handle", Describe());
      loop.ReportCurrentException(std::move(context));
    }
  }
  void Drop() noexcept override { Forget(); }
  std::string Describe() const override {
    return absl::StrCat("<done callback added at ", where_.file_name(), ":", where_.line(), ">");
  }

 private:
  void Forget() {
    const std::shared_ptr<DoneCallback> self = std::move(self_);
    const absl::AnyInvocable<void(Ref)> callback = std::move(callback_);
    const Ref queued = std::move(queued_);
  }

  FutureCore& future_;
  Ref queued_;  // the future, once it is done
  absl::AnyInvocable<void(Ref)> callback_;
  Context context_;
  std::source_location where_;
  std::shared_ptr<DoneCallback> self_;
};

std::shared_ptr<DoneCallback> AddDoneCallback(const Ref& future, absl::AnyInvocable<void(Ref)> callback,
                                              std::source_location where) {
  auto added = std::make_shared<DoneCallback>(*future.get(), std::move(callback), where);
  added->Start(added);
  return added;
}

bool RemoveDoneCallback(const std::weak_ptr<DoneCallback>& callback) {
  const std::shared_ptr<DoneCallback> found = callback.lock();
  return found != nullptr && found->Remove();
}

}  // namespace troupe::internal
