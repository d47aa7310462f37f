#include "troupe/net/process.h"

#include <algorithm>
#include <iterator>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "troupe/async/event.h"
#include "troupe/base/errors.h"
#include "troupe/base/status_macros.h"
#include "troupe/net/transport.h"

namespace troupe {
namespace internal {
namespace {

// Above twice this a stream is held back until it is at this again, as in asyncio.
constexpr size_t kHeldBytes = 64 << 10;

// What has come and has not been taken. Taking moves what is behind it only now and then: there may be many short lines.
class Held {
 public:
  size_t size() const { return bytes_.size() - taken_; }
  bool empty() const { return size() == 0; }
  size_t Find(char c, size_t from) const {
    const size_t found = bytes_.find(c, taken_ + from);
    return found == std::string::npos ? found : found - taken_;
  }
  void Append(absl::Span<const char> data) { bytes_.append(data.data(), data.size()); }
  std::string Take(size_t bytes_max) {
    if (taken_ == 0 && bytes_max >= bytes_.size()) return std::exchange(bytes_, std::string());
    std::string taken = bytes_.substr(taken_, bytes_max);
    taken_ += taken.size();
    if (taken_ > bytes_.size() / 2) bytes_.erase(0, std::exchange(taken_, 0));
    return taken;
  }
  std::string TakeAll() { return Take(size()); }

 private:
  std::string bytes_;
  size_t taken_ = 0;  // of them
};

struct OutputState {
  Transport* pipe = nullptr;  // until it has ended
  bool piped = false;
  bool ended = false;
  bool held_back = false;
  bool being_read = false;
  absl::Status reason;  // of the end
  Held bytes;
  Event changed;
};

}  // namespace

// What a child's protocol, its Process and the tasks that wait in its streams share.
struct ProcessState {
  SubprocessTransport* transport = nullptr;  // until it is lost
  Transport* input = nullptr;                // until it has ended
  bool input_piped = false;
  bool input_closed = false;
  bool input_full = false;
  Event input_changed;
  OutputState outputs[2];  // descriptors 1 and 2
  std::optional<int> returncode;
  bool communicating = false;
  size_t communicated_bytes_max = 0;
  Event changed;  // whatever Communicate waits for

  OutputState& output(int fd) { return outputs[fd - 1]; }
  void HoldBackOrGoOn(OutputState& output) {
    if (output.pipe == nullptr) return;
    if (!output.held_back && !communicating && output.bytes.size() > 2 * kHeldBytes) {
      output.held_back = true;
      output.pipe->PauseReading();
    } else if (output.held_back && (communicating || output.bytes.size() <= kHeldBytes)) {
      output.held_back = false;
      output.pipe->ResumeReading();
    }
  }
  bool HasTooMuch() const {
    return std::any_of(std::begin(outputs), std::end(outputs),
                       [&](const OutputState& output) { return output.bytes.size() > communicated_bytes_max; });
  }
  bool HasAll() const { return returncode.has_value() && !outputs[0].pipe && !outputs[1].pipe; }
  // The child and its output have ended: nothing is left to do with its input either.
  void CloseWhenAllHasEnded() {
    if (HasAll() && transport != nullptr) transport->Close();
  }
  void CloseInput() {
    input_closed = true;
    if (input != nullptr) input->Close();
  }
};

namespace {

class ProcessProtocol final : public SubprocessProtocol {
 public:
  explicit ProcessProtocol(std::shared_ptr<ProcessState> state) : state_(std::move(state)) {}

  void ConnectionMade(SubprocessTransport& transport) override {
    state_->transport = &transport;
    state_->input = transport.pipe(0);
    state_->input_piped = state_->input != nullptr;
    for (const int fd : {1, 2}) {
      OutputState& output = state_->output(fd);
      output.pipe = transport.pipe(fd);
      output.piped = output.pipe != nullptr;
    }
  }
  void PipeDataReceived(int fd, absl::Span<const char> data) override {
    OutputState& output = state_->output(fd);
    output.bytes.Append(data);
    state_->HoldBackOrGoOn(output);
    output.changed.Set();
    state_->changed.Set();
  }
  void PipeConnectionLost(int fd, const absl::Status& reason) override {
    if (fd == 0) {
      state_->input = nullptr;
      state_->input_changed.Set();
    } else {
      OutputState& output = state_->output(fd);
      output.pipe = nullptr;
      output.ended = true;
      output.reason = reason;
      output.changed.Set();
      state_->CloseWhenAllHasEnded();
    }
    state_->changed.Set();
  }
  void PauseWriting() override { state_->input_full = true; }
  void ResumeWriting() override {
    state_->input_full = false;
    state_->input_changed.Set();
  }
  void ProcessExited() override {
    state_->returncode = state_->transport->returncode();
    state_->CloseWhenAllHasEnded();
    state_->changed.Set();
  }
  void ConnectionLost(const absl::Status& /*reason*/) override { state_->transport = nullptr; }

 private:
  const std::shared_ptr<ProcessState> state_;
};

// One reader at a time.
class Reading {
 public:
  explicit Reading(OutputState& output) : output_(output) {
    if (output.being_read) throw InvalidState("another task reads this stream");
    output.being_read = true;
  }
  Reading(const Reading&) = delete;
  Reading& operator=(const Reading&) = delete;
  ~Reading() { output_.being_read = false; }

 private:
  OutputState& output_;
};

Task<void> AwaitMore(OutputState& output) {
  output.changed.Clear();
  co_await output.changed.Wait();
}

std::string TakeFirst(ProcessState& state, OutputState& output, size_t bytes) {
  std::string taken = output.bytes.Take(bytes);
  state.HoldBackOrGoOn(output);
  return taken;
}

Task<absl::StatusOr<std::string>> Read(std::shared_ptr<ProcessState> state, int fd, size_t bytes_max) {
  OutputState& output = state->output(fd);
  const Reading reading(output);
  while (output.bytes.empty() && !output.ended) {
    co_await AwaitMore(output);
  }
  if (output.bytes.empty() && !output.reason.ok()) co_return output.reason;
  co_return TakeFirst(*state, output, bytes_max);
}

Task<absl::StatusOr<std::string>> ReadLine(std::shared_ptr<ProcessState> state, int fd) {
  OutputState& output = state->output(fd);
  const Reading reading(output);
  size_t searched = 0;
  while (true) {
    const size_t newline = output.bytes.Find('\n', searched);
    const size_t line_bytes = newline == std::string::npos ? output.bytes.size() : newline + 1;
    if (line_bytes > ProcessReader::kLineBytesMax) {
      co_return absl::ResourceExhaustedError(
          absl::StrCat("a line may have ", ProcessReader::kLineBytesMax, " bytes, got more"));
    }
    if (newline != std::string::npos) co_return TakeFirst(*state, output, line_bytes);
    if (output.ended) break;
    searched = output.bytes.size();
    co_await AwaitMore(output);
  }
  if (output.bytes.empty() && !output.reason.ok()) co_return output.reason;
  co_return TakeFirst(*state, output, output.bytes.size());
}

Task<absl::StatusOr<std::string>> ReadToEnd(std::shared_ptr<ProcessState> state, int fd, size_t bytes_max) {
  OutputState& output = state->output(fd);
  const Reading reading(output);
  std::string all;
  while (true) {
    all += TakeFirst(*state, output, output.bytes.size());
    if (all.size() > bytes_max) {
      co_return absl::ResourceExhaustedError(absl::StrCat("expected at most ", bytes_max, " bytes, got more"));
    }
    if (output.ended) break;
    co_await AwaitMore(output);
  }
  if (!output.reason.ok()) co_return output.reason;
  co_return all;
}

absl::Status InputError() { return absl::UnavailableError("the child reads no more"); }

Task<absl::Status> AwaitRoom(std::shared_ptr<ProcessState> state) {
  while (state->input_full && state->input != nullptr) {
    state->input_changed.Clear();
    co_await state->input_changed.Wait();
  }
  if (state->input == nullptr && !state->input_closed) co_return InputError();
  co_return absl::OkStatus();
}

Task<absl::StatusOr<ProcessResult>> Communicate(std::shared_ptr<ProcessState> state, std::string input,
                                                size_t bytes_max) {
  if (!input.empty() && !state->input_piped) {
    co_return absl::InvalidArgumentError("there is input for a child whose input is no pipe");
  }
  if (state->communicating) throw InvalidState("another task communicates with this child");
  const Reading first(state->output(1)), second(state->output(2));
  state->communicating = true;
  state->communicated_bytes_max = bytes_max;
  const absl::Cleanup end = [&state] {
    state->communicating = false;
    for (OutputState& output : state->outputs) state->HoldBackOrGoOn(output);
  };
  if (state->input != nullptr && !state->input_closed) state->input->Write(absl::MakeConstSpan(input));
  input = std::string();
  state->CloseInput();
  for (OutputState& output : state->outputs) state->HoldBackOrGoOn(output);
  bool too_much = false;
  while (!state->HasAll()) {
    if (!too_much && state->HasTooMuch()) {
      too_much = true;
      // With it, what children of its own hold open ends here too.
      state->transport->Close();
    }
    state->changed.Clear();
    co_await state->changed.Wait();
  }
  if (too_much || state->HasTooMuch()) {
    co_return absl::ResourceExhaustedError(
        absl::StrCat("expected at most ", bytes_max, " bytes of output from a child, got more; it was killed"));
  }
  for (const OutputState& output : state->outputs) CO_RETURN_IF_ERROR(output.reason);
  ProcessResult result;
  result.returncode = *state->returncode;
  result.output = state->output(1).bytes.TakeAll();
  result.error = state->output(2).bytes.TakeAll();
  co_return result;
}

}  // namespace
}  // namespace internal

using internal::ProcessState;

Task<absl::StatusOr<std::string>> ProcessReader::Read(size_t bytes_max) {
  return internal::Read(state_, fd_, bytes_max);
}

Task<absl::StatusOr<std::string>> ProcessReader::ReadLine() { return internal::ReadLine(state_, fd_); }

Task<absl::StatusOr<std::string>> ProcessReader::ReadToEnd(size_t bytes_max) {
  return internal::ReadToEnd(state_, fd_, bytes_max);
}

Task<absl::Status> ProcessWriter::Write(absl::string_view bytes) {
  if (state_->input_closed) throw InvalidState("the child's input was closed");
  if (state_->input != nullptr) state_->input->Write(absl::MakeConstSpan(bytes.data(), bytes.size()));
  return internal::AwaitRoom(state_);
}

void ProcessWriter::Close() { state_->CloseInput(); }

ProcessWriter Process::input() {
  if (!state_->input_piped) throw InvalidState("the child's input is no pipe");
  return ProcessWriter(state_);
}

ProcessReader Process::output() {
  if (!state_->output(1).piped) throw InvalidState("the child's output is no pipe");
  return ProcessReader(state_, 1);
}

ProcessReader Process::error() {
  if (!state_->output(2).piped) throw InvalidState("the child's error stream is no pipe");
  return ProcessReader(state_, 2);
}

Task<absl::StatusOr<ProcessResult>> Process::Communicate(const CommunicateOptions& options) {
  return internal::Communicate(state_, std::string(options.input), options.output_bytes_max);
}

Task<absl::StatusOr<Process>> CreateProcess(EventLoop& loop, absl::StatusOr<internal::SubprocessPlan> plan) {
  const auto state = std::make_shared<ProcessState>();
  SubprocessProtocolFactory factory = [state] { return std::make_unique<internal::ProcessProtocol>(state); };
  Task<absl::StatusOr<StartedSubprocess<>>> starting =
      internal::StartSubprocess(loop, std::move(factory), std::move(plan));
  absl::StatusOr<StartedSubprocess<>> started = co_await std::move(starting);
  CO_RETURN_IF_ERROR(started.status());
  co_return Process(std::move(started->transport), state);
}

Task<absl::StatusOr<Process>> CreateSubprocessExec(EventLoop& loop, absl::Span<const std::string> arguments,
                                                   const SubprocessOptions& options) {
  return CreateProcess(loop, internal::PlanExec(arguments, options, Stdio::Inherit()));
}

Task<absl::StatusOr<Process>> CreateSubprocessShell(EventLoop& loop, absl::string_view command,
                                                    const SubprocessOptions& options) {
  return CreateProcess(loop, internal::PlanShell(command, options, Stdio::Inherit()));
}

}  // namespace troupe
