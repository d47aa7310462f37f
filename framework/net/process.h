// CreateSubprocessExec, CreateSubprocessShell: run a program and talk to it in a task.
//
//   const std::vector<std::string> command = {"sort", "-n"};
//   auto sort = co_await troupe::CreateSubprocessExec(loop, command, {.input = troupe::Stdio::Pipe(),
//                                                                     .output = troupe::Stdio::Pipe()});
//   CO_RETURN_IF_ERROR(sort.status());
//   auto result = co_await sort->Communicate({.input = "3\n1\n2\n"});
//   CO_RETURN_IF_ERROR(result.status());
//   Use(result->returncode, result->output);
//
// What is not said otherwise the child inherits. Communicate is the safe way to feed and to read a child; who reads and
// writes piece by piece must do both at the same time when there is much of it, since a pipe holds 64 KiB and a child
// whose output is full does not go on. For callbacks instead of tasks: SubprocessExec (subprocess.h).
//
// Threading: the loop's.
// Lifetime:  a Process that goes while its child runs kills it, with a warning; close it before. Tasks that wait in its
//            streams then see their end.
#ifndef TROUPE_NET_PROCESS_H_
#define TROUPE_NET_PROCESS_H_

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "troupe/async/task.h"
#include "troupe/loop/event_loop.h"
#include "troupe/net/subprocess.h"

namespace troupe {

namespace internal {
struct ProcessState;
}  // namespace internal

// What a child writes. At most 128 KiB and what one read brings are held; then the child waits.
class ProcessReader {
 public:
  static constexpr size_t kLineBytesMax = 64 << 10;
  static constexpr size_t kAllBytesMax = 64 << 20;

  // Some bytes, at least one and at most `bytes_max`; none: the end. One reader at a time: InvalidState.
  Task<absl::StatusOr<std::string>> Read(size_t bytes_max = 64 << 10);
  // Up to and including the next newline; the rest at the end; then none. RESOURCE_EXHAUSTED: the line is longer than
  // kLineBytesMax; it can still be read by Read().
  Task<absl::StatusOr<std::string>> ReadLine();
  // Up to the end. RESOURCE_EXHAUSTED: there is more than that; what was read is lost, the rest can still be read.
  Task<absl::StatusOr<std::string>> ReadToEnd(size_t bytes_max = kAllBytesMax);

 private:
  friend class Process;
  ProcessReader(std::shared_ptr<internal::ProcessState> state, int fd) : state_(std::move(state)), fd_(fd) {}

  std::shared_ptr<internal::ProcessState> state_;  // with the transport's protocol
  int fd_;
};

// What a child reads.
class ProcessWriter {
 public:
  // Copied and queued before this returns, in the order of the calls; the task waits until there is room for more.
  // UNAVAILABLE: the child reads no more.
  Task<absl::Status> Write(absl::string_view bytes);
  // The child reads the end behind what was written.
  void Close();

 private:
  friend class Process;
  explicit ProcessWriter(std::shared_ptr<internal::ProcessState> state) : state_(std::move(state)) {}

  std::shared_ptr<internal::ProcessState> state_;  // with the transport's protocol
};

struct CommunicateOptions {
  absl::string_view input = {};
  // Of each stream. A child that writes more is killed: RESOURCE_EXHAUSTED.
  size_t output_bytes_max = 64 << 20;
};
static_assert(std::is_trivially_destructible_v<CommunicateOptions>);

struct ProcessResult {
  int returncode = 0;  // as of SubprocessTransport
  std::string output = {};
  std::string error = {};
};

class Process {
 public:
  Process(Process&&) = default;
  Process& operator=(Process&&) = default;
  ~Process() = default;

  int pid() const { return transport_->pid(); }
  std::optional<int> returncode() const { return transport_->returncode(); }
  // Throw InvalidState where the stream is no pipe.
  ProcessWriter input();
  ProcessReader output();
  ProcessReader error();

  absl::Status SendSignal(int signo) { return transport_->SendSignal(signo); }
  absl::Status Terminate() { return transport_->Terminate(); }
  absl::Status Kill() { return transport_->Kill(); }
  // As SubprocessTransport::Wait: does not wait for the pipes.
  Task<int> Wait() { return transport_->Wait(); }
  // Writes the input, closes it, reads output and error to their ends, and waits until the child has ended; of the
  // streams that are pipes. That a child does not read its input is no error (C-SUB-08). INVALID_ARGUMENT: there is input
  // and no pipe for it. One at a time: InvalidState. Cancelled it leaves the child running, as in asyncio, its input
  // closed, and what has been read is kept for who reads next.
  Task<absl::StatusOr<ProcessResult>> Communicate(const CommunicateOptions& options = {});
  // Kills a child that runs, and closes its pipes.
  void Close() { transport_->Close(); }

  SubprocessTransport& transport() { return *transport_; }

 private:
  friend Task<absl::StatusOr<Process>> CreateProcess(EventLoop& loop, absl::StatusOr<internal::SubprocessPlan> plan);
  Process(SubprocessTransportPtr transport, std::shared_ptr<internal::ProcessState> state)
      : transport_(std::move(transport)), state_(std::move(state)) {}

  SubprocessTransportPtr transport_;
  std::shared_ptr<internal::ProcessState> state_;  // with the transport's protocol and the tasks that wait
};

// Arguments and errors as of SubprocessExec and SubprocessShell. Everything is copied before this returns.
Task<absl::StatusOr<Process>> CreateSubprocessExec(EventLoop& loop, absl::Span<const std::string> arguments,
                                                   const SubprocessOptions& options = {});
Task<absl::StatusOr<Process>> CreateSubprocessShell(EventLoop& loop, absl::string_view command,
                                                    const SubprocessOptions& options = {});

}  // namespace troupe

#endif  // TROUPE_NET_PROCESS_H_
