// SubprocessExec, SubprocessShell: run a program, and tell a protocol what it writes and how it ends; asyncio's forms.
//
// To run a program and use what it says in a task, CreateSubprocessExec (process.h) is shorter. With a protocol:
//
//   class Lines final : public troupe::SubprocessProtocol {
//     void PipeDataReceived(int fd, absl::Span<const char> data) override { ... }
//   };
//   const std::vector<std::string> command = {"journalctl", "-f"};
//   auto started = co_await troupe::SubprocessExec(loop, [] { return std::make_unique<Lines>(); }, command,
//                                                  {.input = troupe::Stdio::Null()});
//   CO_RETURN_IF_ERROR(started.status());
//   started->transport->Terminate().IgnoreError();
//
// The child gets its three descriptors and no other, no signal is blocked or ignored in it, and it is never left as a
// zombie: whatever becomes of its transport or its loop, its status is taken (C-SUB). It is killed with them, unless it
// has ended.
//
// Life:      ConnectionMade -> (PipeDataReceived | PipeConnectionLost | PauseWriting | ResumeWriting | ProcessExited)*
//            -> ConnectionLost. PipeConnectionLost once for every pipe, ProcessExited once, in any order.
// Threading: the loop's. No callback comes inside a call to the transport, but PauseWriting.
// Lifetime:  owned through a SubprocessTransportPtr, which may be dropped at any time, also in a callback: that kills a
//            child that runs, with a warning unless it was closed, and drops what its pipes hold; the callbacks that are
//            due still come, and then transport and protocol are destroyed.
// Errors:    what a callback throws is reported to the loop's exception handler. Out of ConnectionMade it ends the
//            subprocess, out of PipeDataReceived that pipe.
#ifndef TROUPE_NET_SUBPROCESS_H_
#define TROUPE_NET_SUBPROCESS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "troupe/async/task.h"
#include "troupe/loop/event_loop.h"
#include "troupe/net/protocol.h"
#include "troupe/net/transport.h"
#include "troupe/os/os.h"

namespace troupe {

class SubprocessTransport;

class SubprocessProtocol {
 public:
  SubprocessProtocol() = default;
  SubprocessProtocol(const SubprocessProtocol&) = delete;
  SubprocessProtocol& operator=(const SubprocessProtocol&) = delete;
  virtual ~SubprocessProtocol() = default;

  // The child runs, and its pipes can be used.
  virtual void ConnectionMade(SubprocessTransport& transport) { (void)transport; }
  // Some bytes, at least one, that the child wrote to descriptor 1 or 2. Lent until the return.
  virtual void PipeDataReceived(int fd, absl::Span<const char> data) { (void)fd, (void)data; }
  // The child's 0, 1 or 2 has ended. OK: in good order; the input's also when the child reads no more and nothing was
  // left to write.
  virtual void PipeConnectionLost(int fd, const absl::Status& reason) { (void)fd, (void)reason; }
  // More waits to be written to the child's input than the high mark of pipe(0) allows; it has drained.
  virtual void PauseWriting() {}
  virtual void ResumeWriting() {}
  // The child has ended: returncode() is known. What it wrote may still be arriving, and its pipes may be held open by
  // children of its own.
  virtual void ProcessExited() {}
  // The last callback: the child has ended, and so has every pipe (C-SUB-03).
  virtual void ConnectionLost(const absl::Status& reason) { (void)reason; }
};

class SubprocessTransport {
 public:
  struct Deleter {
    void operator()(SubprocessTransport* transport) const { transport->Destroy(); }
  };

  SubprocessTransport() = default;
  SubprocessTransport(const SubprocessTransport&) = delete;
  SubprocessTransport& operator=(const SubprocessTransport&) = delete;

  virtual EventLoop& loop() = 0;
  virtual int pid() const = 0;
  // The exit status, or minus the signal that ended it; none while it runs. 255, with a warning in the log: somebody
  // else waited for it.
  virtual std::optional<int> returncode() const = 0;
  // The pipe that is the child's 0, 1 or 2: to write and to close its input, to hold back its output. Null: it has been
  // given something else. Its protocol is the subprocess's.
  virtual Transport* pipe(int fd) = 0;

  // NOT_FOUND: it has ended (C-SUB-06). INVALID_ARGUMENT: there is no such signal.
  virtual absl::Status SendSignal(int signo) = 0;
  absl::Status Terminate();
  absl::Status Kill();
  // Returns when the child has ended, with returncode(); any number may wait, also later (C-SUB-04). Does not wait for
  // the pipes. A child that writes more than a pipe holds ends only when that is read.
  virtual Task<int> Wait() = 0;

  // Closes the pipes, the input behind what is buffered for it, and kills a child that runs (C-SUB-05).
  virtual void Close() = 0;
  virtual bool is_closing() const = 0;  // from Close or the end on
  // Returns when ConnectionLost has returned.
  virtual Task<void> Closed() = 0;

  virtual SubprocessProtocol& protocol() = 0;
  virtual std::string DebugString() const = 0;

 protected:
  virtual ~SubprocessTransport() = default;
  virtual void Destroy() = 0;
};

using SubprocessTransportPtr = std::unique_ptr<SubprocessTransport, SubprocessTransport::Deleter>;

// Where one of a child's descriptors leads.
class Stdio {
 public:
  enum class Kind : uint8_t { kDefault, kPipe, kInherit, kNull, kDescriptor, kOutput };

  // As in asyncio: a pipe for SubprocessExec and SubprocessShell; Inherit() for CreateSubprocessExec and
  // CreateSubprocessShell.
  constexpr Stdio() = default;
  // To this process.
  static constexpr Stdio Pipe() { return Stdio(Kind::kPipe, -1); }
  // Where this process's own leads. Whoever reads or writes that without blocking will block from then on.
  static constexpr Stdio Inherit() { return Stdio(Kind::kInherit, -1); }
  // To /dev/null.
  static constexpr Stdio Null() { return Stdio(Kind::kNull, -1); }
  // Where `fd` leads, which stays the caller's, and blocks from then on.
  static constexpr Stdio Descriptor(int fd) { return Stdio(Kind::kDescriptor, fd); }
  // Of the error stream only: where the output leads.
  static constexpr Stdio Output() { return Stdio(Kind::kOutput, -1); }

  constexpr Kind kind() const { return kind_; }
  constexpr int fd() const { return fd_; }

 private:
  constexpr Stdio(Kind kind, int fd) : kind_(kind), fd_(fd) {}

  Kind kind_ = Kind::kDefault;
  int fd_ = -1;
};

struct SubprocessOptions {
  Stdio input = {};
  Stdio output = {};
  Stdio error = {};
  absl::string_view directory = {};  // to run in; empty: this process's
  // "NAME=value"; none: this process's.
  std::optional<absl::Span<const std::string>> environment = std::nullopt;
  bool new_session = false;  // as setsid(2): out of reach of the terminal's signals
};
static_assert(std::is_trivially_destructible_v<SubprocessOptions>);

// `protocol` belongs to `transport`.
template <class P = SubprocessProtocol>
struct StartedSubprocess {
  SubprocessTransportPtr transport;
  P* protocol = nullptr;
};

using SubprocessProtocolFactory = absl::AnyInvocable<std::unique_ptr<SubprocessProtocol>()>;

namespace internal {

// What is to be started, once it has been found to make sense (C-SUB-01).
struct SubprocessPlan {
  ProcessOptions process;  // but for the descriptors
  Stdio stdio[3];
};
absl::StatusOr<SubprocessPlan> PlanExec(absl::Span<const std::string> arguments, const SubprocessOptions& options,
                                        Stdio otherwise);
absl::StatusOr<SubprocessPlan> PlanShell(absl::string_view command, const SubprocessOptions& options, Stdio otherwise);

Task<absl::StatusOr<StartedSubprocess<>>> StartSubprocess(EventLoop& loop, SubprocessProtocolFactory factory,
                                                          absl::StatusOr<SubprocessPlan> plan);

template <class P>
Task<absl::StatusOr<StartedSubprocess<P>>> StartSubprocessTyped(Task<absl::StatusOr<StartedSubprocess<>>> starting) {
  absl::StatusOr<StartedSubprocess<>> started = co_await std::move(starting);
  if (!started.ok()) co_return started.status();
  auto* protocol = static_cast<P*>(started->protocol);
  StartedSubprocess<P> typed{std::move(started->transport), protocol};
  co_return typed;
}

}  // namespace internal

// Starts a program. arguments[0] is a path (from options.directory, if it is relative), or without a slash a name that is
// looked for in PATH: in this process's, unlike in Python, also where the child gets another. `factory` (which
// returns a unique_ptr to a protocol) is called first; on return ConnectionMade has been called. INVALID_ARGUMENT: the
// arguments or options make no sense; otherwise the system's error: NOT_FOUND there is no such program or directory,
// PERMISSION_DENIED it cannot be executed, RESOURCE_EXHAUSTED no descriptor or process is left. What the factory throws
// passes through. Everything is copied before this returns. No argument but the first ever reaches the log (C-SUB-10).
template <class Factory>
auto SubprocessExec(EventLoop& loop, Factory&& factory, absl::Span<const std::string> arguments,
                    const SubprocessOptions& options = {}) {
  internal::CheckFactory<Factory>();
  using P = typename std::invoke_result_t<std::decay_t<Factory>&>::element_type;
  return internal::StartSubprocessTyped<P>(
      internal::StartSubprocess(loop, SubprocessProtocolFactory(std::forward<Factory>(factory)),
                                internal::PlanExec(arguments, options, Stdio::Pipe())));
}

// The same for a command of /bin/sh. Quote what comes from elsewhere, or rather use SubprocessExec.
template <class Factory>
auto SubprocessShell(EventLoop& loop, Factory&& factory, absl::string_view command,
                     const SubprocessOptions& options = {}) {
  internal::CheckFactory<Factory>();
  using P = typename std::invoke_result_t<std::decay_t<Factory>&>::element_type;
  return internal::StartSubprocessTyped<P>(
      internal::StartSubprocess(loop, SubprocessProtocolFactory(std::forward<Factory>(factory)),
                                internal::PlanShell(command, options, Stdio::Pipe())));
}

}  // namespace troupe

#endif  // TROUPE_NET_SUBPROCESS_H_
