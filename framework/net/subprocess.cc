#include "troupe/net/subprocess.h"

#include <signal.h>

#include <algorithm>
#include <exception>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "glog/logging.h"
#include "troupe/async/future.h"
#include "troupe/base/errors.h"
#include "troupe/base/os_error.h"
#include "troupe/base/status_macros.h"
#include "troupe/loop/context.h"
#include "troupe/loop/exception_context.h"
#include "troupe/loop/runnable.h"
#include "troupe/net/internal/child_watch.h"
#include "troupe/net/internal/occurrence.h"
#include "troupe/net/pipe.h"

namespace troupe {

absl::Status SubprocessTransport::Terminate() { return SendSignal(SIGTERM); }

absl::Status SubprocessTransport::Kill() { return SendSignal(SIGKILL); }

namespace internal {
namespace {

// What those who wait for a subprocess look at: they share it with the transport, which they may outlive.
struct Outcome {
  std::optional<int> returncode;
  absl::Status made_error;  // what ConnectionMade threw
  Occurrence made, exited, lost;
};

Task<int> AwaitExit(std::shared_ptr<Outcome> outcome) {
  co_await outcome->exited.Wait("SubprocessTransport::Wait");
  co_return *outcome->returncode;
}

Task<void> AwaitLost(std::shared_ptr<Outcome> outcome) { co_await outcome->lost.Wait("SubprocessTransport::Closed"); }

class Subprocess final : public SubprocessTransport, private ChildWatch, private Runnable {
 public:
  static absl::StatusOr<Subprocess*> Start(EventLoop& loop, std::unique_ptr<SubprocessProtocol> protocol,
                                           SubprocessPlan plan);

  EventLoop& loop() override { return loop_; }
  int pid() const override { return ChildWatch::pid(); }
  std::optional<int> returncode() const override { return outcome_->returncode; }
  Transport* pipe(int fd) override { return fd < 0 || fd > 2 ? nullptr : pipes_[fd].get(); }
  absl::Status SendSignal(int signo) override;
  Task<int> Wait() override { return AwaitExit(outcome_); }
  void Close() override;
  bool is_closing() const override { return closing_; }
  Task<void> Closed() override { return AwaitLost(outcome_); }
  SubprocessProtocol& protocol() override { return *protocol_; }
  std::string DebugString() const override;

  const std::shared_ptr<Outcome>& outcome() const { return outcome_; }

 private:
  // The protocol of one pipe.
  class Pipe final : public Protocol {
   public:
    Pipe(Subprocess& owner, int fd) : owner_(owner), fd_(fd) {}
    void DataReceived(absl::Span<const char> data) override { owner_.protocol_->PipeDataReceived(fd_, data); }
    void PauseWriting() override { owner_.protocol_->PauseWriting(); }
    void ResumeWriting() override { owner_.protocol_->ResumeWriting(); }
    void ConnectionLost(const absl::Status& reason) override { owner_.OnPipeLost(fd_, reason); }

   private:
    Subprocess& owner_;
    const int fd_;
  };

  Subprocess(EventLoop& loop, int process, int pid, std::string program, std::unique_ptr<SubprocessProtocol> protocol)
      : ChildWatch(loop, process, pid),
        loop_(loop),
        context_(Context::Current().WithoutDeadline()),
        protocol_(std::move(protocol)),
        program_(std::move(program)) {}
  ~Subprocess() override = default;
  void Destroy() override;

  // ConnectionMade, ConnectionLost, deletion: one a time, in this order.
  void Run() override;
  std::string Describe() const override { return DebugString(); }
  void Step();
  void AddPipe(int fd, int ours);
  void DeliverMade();
  void DeliverLost();
  void OnExit(int status) override;
  void OnPipeLost(int fd, const absl::Status& reason);
  void OnLoopClose(std::optional<int> status) noexcept override;
  void OnLoopGone() noexcept override;
  std::string DescribeWatcher() const override { return DebugString(); }
  void FinishWhenAllHasEnded();
  void KillIfRunning();
  // REQUIRES: in a catch block.
  void ReportException(std::string message);

  EventLoop& loop_;
  Context context_;  // the protocol's
  const std::unique_ptr<SubprocessProtocol> protocol_;
  const std::string program_;
  const std::shared_ptr<Outcome> outcome_ = std::make_shared<Outcome>();
  TransportPtr pipes_[3];
  int open_pipes_ = 0;
  bool made_ = false;
  bool closing_ = false;
  bool finished_ = false;  // ConnectionLost is due
  bool orphaned_ = false;  // no SubprocessTransportPtr any more
};

// Descriptors that are closed together.
class Descriptors {
 public:
  explicit Descriptors(Os& os) : os_(os) {}
  Descriptors(const Descriptors&) = delete;
  Descriptors& operator=(const Descriptors&) = delete;
  ~Descriptors() {
    for (const int fd : fds_) {
      if (fd >= 0) os_.Close(fd);
    }
  }
  int& operator[](int i) { return fds_[i]; }
  int Take(int i) { return std::exchange(fds_[i], -1); }

 private:
  Os& os_;
  int fds_[3] = {-1, -1, -1};
};

absl::StatusOr<Subprocess*> Subprocess::Start(EventLoop& loop, std::unique_ptr<SubprocessProtocol> protocol,
                                              SubprocessPlan plan) {
  Os& os = loop.os();
  const std::string program = plan.process.arguments.front();
  const std::string where = plan.process.directory.empty() ? "" : absl::StrCat(" in ", plan.process.directory);
  Descriptors ours(os), theirs(os);
  int given[3] = {-1, -1, -1};
  for (int fd = 0; fd < 3; ++fd) {
    switch (plan.stdio[fd].kind()) {
      case Stdio::Kind::kPipe: {
        int fds[2];
        if (const int error = os.MakePipe(fds); error != 0) return OsError(error, absl::StrCat("start ", program));
        ours[fd] = fds[fd == 0 ? 1 : 0];
        given[fd] = theirs[fd] = fds[fd == 0 ? 0 : 1];
        break;
      }
      case Stdio::Kind::kInherit:
        given[fd] = fd;
        break;
      case Stdio::Kind::kDescriptor:
        given[fd] = plan.stdio[fd].fd();
        break;
      case Stdio::Kind::kOutput:
        given[fd] = given[1];
        break;
      case Stdio::Kind::kNull:
      case Stdio::Kind::kDefault:
        break;
    }
  }
  plan.process.input = given[0];
  plan.process.output = given[1];
  plan.process.error = given[2];
  int pid = 0;
  const int process = os.Spawn(plan.process, &pid);
  if (process < 0) return OsError(process, absl::StrCat("start ", program, where));
  LOG_IF(INFO, loop.debug()) << "process " << program << " created: pid " << pid;
  auto* const subprocess = new Subprocess(loop, process, pid, program, std::move(protocol));
  for (int fd = 0; fd < 3; ++fd) {
    if (ours[fd] >= 0) subprocess->AddPipe(fd, ours.Take(fd));
  }
  // Behind the pipes, which are open then; and what they and the child have to say comes behind it.
  loop.Schedule(static_cast<Runnable&>(*subprocess));
  subprocess->StartWatching();
  return subprocess;
}

void Subprocess::AddPipe(int fd, int ours) {
  auto* const transport = new PipeTransport(loop_, ours, std::make_unique<Pipe>(*this, fd),
                                            fd == 0 ? PipeSide::kWriting : PipeSide::kReading);
  pipes_[fd] = TransportPtr(transport);
  ++open_pipes_;
  transport->Start();
}

std::string Subprocess::DebugString() const {
  const std::string state =
      outcome_->returncode.has_value() ? absl::StrCat("returncode=", *outcome_->returncode) : "running";
  return absl::StrCat("<subprocess ", program_, " pid=", ChildWatch::pid(), " ", state, closing_ ? " closing>" : ">");
}

// ---------------------------------------------------------------------------------------------------- callbacks

void Subprocess::Step() {
  if (!Runnable::linked() && !loop_.IsClosed()) loop_.Schedule(static_cast<Runnable&>(*this));
}

void Subprocess::Run() {
  if (!made_) {
    DeliverMade();
  } else if (finished_ && !outcome_->lost.happened()) {
    DeliverLost();
  } else if (orphaned_ && outcome_->lost.happened()) {
    delete this;
  }
}

void Subprocess::DeliverMade() {
  ContextScope scope(context_);
  made_ = true;
  const absl::Cleanup tell = [this] { outcome_->made.Happen(); };
  try {
    protocol_->ConnectionMade(*this);
  } catch (...) {  // reports to the exception handler, which passes Fatal on
    std::string message = "Fatal error: protocol.ConnectionMade() call failed.";
    const std::exception_ptr exception = std::current_exception();
    outcome_->made_error = StatusIn(exception);
    if (outcome_->made_error.ok()) {
      outcome_->made_error = absl::UnknownError(absl::StrCat(message, " ", DescribeException(exception)));
    }
    Close();
    ReportException(std::move(message));
  }
}

void Subprocess::OnExit(int status) {
  ContextScope scope(context_);
  outcome_->returncode = status;
  LOG_IF(INFO, loop_.debug()) << DebugString() << " exited with return code " << status;
  outcome_->exited.Happen();
  const absl::Cleanup finish = [this] { FinishWhenAllHasEnded(); };
  try {
    protocol_->ProcessExited();
  } catch (...) {  // reports to the exception handler, which passes Fatal on
    ReportException("Exception in protocol.ProcessExited()");
  }
}

void Subprocess::OnPipeLost(int fd, const absl::Status& reason) {
  --open_pipes_;
  const absl::Cleanup finish = [this] { FinishWhenAllHasEnded(); };
  try {
    protocol_->PipeConnectionLost(fd, reason);
  } catch (...) {  // reports to the exception handler, which passes Fatal on
    ReportException("Exception in protocol.PipeConnectionLost()");
  }
}

void Subprocess::FinishWhenAllHasEnded() {
  if (!outcome_->returncode.has_value() || open_pipes_ > 0 || std::exchange(finished_, true)) return;
  Step();
}

void Subprocess::DeliverLost() {
  ContextScope scope(context_);
  closing_ = true;
  const absl::Cleanup finish = [this] {
    outcome_->lost.Happen();
    if (orphaned_) Step();
  };
  try {
    protocol_->ConnectionLost(absl::OkStatus());
  } catch (...) {  // reports to the exception handler, which passes Fatal on
    ReportException("Exception in protocol.ConnectionLost()");
  }
}

void Subprocess::ReportException(std::string message) {
  ExceptionContext context;
  context.message = std::move(message);
  context.Add("transport", DebugString(), this);
  loop_.ReportCurrentException(std::move(context));
}

// ---------------------------------------------------------------------------------------------------- the end

absl::Status Subprocess::SendSignal(int signo) {
  const int error = SignalChild(signo);
  if (error == 0) return absl::OkStatus();
  return OsError(error, absl::StrCat("signal ", signo, " to process ", ChildWatch::pid()));
}

void Subprocess::KillIfRunning() {
  if (has_ended()) return;
  LOG_IF(WARNING, loop_.debug()) << "Close running child process: kill " << DebugString();
  SignalChild(SIGKILL);
}

void Subprocess::Close() {
  if (std::exchange(closing_, true)) return;
  for (const TransportPtr& pipe : pipes_) {
    if (pipe != nullptr) pipe->Close();
  }
  KillIfRunning();
}

void Subprocess::Destroy() {
  LOG_IF(WARNING, !closing_ && !finished_) << "unclosed transport " << DebugString();
  orphaned_ = true;
  if (loop_.IsClosed()) {
    delete this;
    return;
  }
  const bool killed = std::exchange(closing_, true);
  for (const TransportPtr& pipe : pipes_) {
    if (pipe != nullptr) pipe->Abort();
  }
  if (!killed) KillIfRunning();
  if (outcome_->lost.happened()) Step();
}

void Subprocess::OnLoopClose(std::optional<int> status) noexcept {
  if (status.has_value()) outcome_->returncode = status;
  closing_ = true;
}

void Subprocess::OnLoopGone() noexcept {
  if (orphaned_) delete this;
}

// ---------------------------------------------------------------------------------------------------- plans

bool HasNul(absl::string_view text) { return absl::StrContains(text, '\0'); }

absl::StatusOr<SubprocessPlan> Plan(std::vector<std::string> arguments, const SubprocessOptions& options,
                                    Stdio otherwise) {
  SubprocessPlan plan;
  if (arguments.empty() || arguments.front().empty()) {
    return absl::InvalidArgumentError("a program to start was not specified");
  }
  if (std::any_of(arguments.begin(), arguments.end(), HasNul)) {
    return absl::InvalidArgumentError("an argument of a program may not hold a NUL");
  }
  if (HasNul(options.directory)) return absl::InvalidArgumentError("a directory may not hold a NUL");
  if (options.environment.has_value()) {
    for (const std::string& variable : *options.environment) {
      const size_t name_bytes = variable.find('=');
      if (name_bytes == 0 || name_bytes == std::string::npos || HasNul(variable)) {
        return absl::InvalidArgumentError("an environment variable must be NAME=value, and may not hold a NUL");
      }
    }
    plan.process.environment.emplace(options.environment->begin(), options.environment->end());
  }
  const Stdio given[] = {options.input, options.output, options.error};
  for (int fd = 0; fd < 3; ++fd) {
    plan.stdio[fd] = given[fd].kind() == Stdio::Kind::kDefault ? otherwise : given[fd];
    if (fd != 2 && given[fd].kind() == Stdio::Kind::kOutput) {
      return absl::InvalidArgumentError("only the error stream can lead where the output does");
    }
    if (given[fd].kind() == Stdio::Kind::kDescriptor && given[fd].fd() < 0) {
      return absl::InvalidArgumentError(absl::StrCat("no descriptor: ", given[fd].fd()));
    }
  }
  plan.process.arguments = std::move(arguments);
  plan.process.directory = std::string(options.directory);
  plan.process.new_session = options.new_session;
  return plan;
}

}  // namespace

absl::StatusOr<SubprocessPlan> PlanExec(absl::Span<const std::string> arguments, const SubprocessOptions& options,
                                        Stdio otherwise) {
  return Plan({arguments.begin(), arguments.end()}, options, otherwise);
}

absl::StatusOr<SubprocessPlan> PlanShell(absl::string_view command, const SubprocessOptions& options, Stdio otherwise) {
  return Plan({"/bin/sh", "-c", std::string(command)}, options, otherwise);
}

Task<absl::StatusOr<StartedSubprocess<>>> StartSubprocess(EventLoop& loop, SubprocessProtocolFactory factory,
                                                          absl::StatusOr<SubprocessPlan> plan) {
  CO_RETURN_IF_ERROR(plan.status());
  std::unique_ptr<SubprocessProtocol> protocol = factory();
  if (protocol == nullptr) throw InvalidState("the protocol factory returned null");
  CO_ASSIGN_OR_RETURN(Subprocess* const subprocess, Subprocess::Start(loop, std::move(protocol), *std::move(plan)));
  StartedSubprocess<> started{SubprocessTransportPtr(subprocess), &subprocess->protocol()};
  absl::Cleanup close = [subprocess] { subprocess->Close(); };
  const std::shared_ptr<Outcome> outcome = subprocess->outcome();
  co_await outcome->made.Wait("SubprocessProtocol::ConnectionMade");
  CO_RETURN_IF_ERROR(outcome->made_error);
  std::move(close).Cancel();
  co_return started;
}

}  // namespace internal
}  // namespace troupe
