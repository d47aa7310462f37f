#include "troupe/testing/sim/sim_process.h"

#include <signal.h>

#include <cerrno>
#include <limits>
#include <utility>

#include "glog/logging.h"

namespace troupe::testing {

// A descriptor of a process: whatever changes there gives the program a turn.
class SimProcess::Watcher final : public SimDescriptorWatcher {
 public:
  Watcher(SimProcess& process, std::shared_ptr<SimDescriptor> descriptor)
      : process_(process), descriptor_(std::move(descriptor)) {
    descriptor_->AddWatcher(*this);
  }
  ~Watcher() { descriptor_->RemoveWatcher(*this); }
  SimDescriptor& descriptor() { return *descriptor_; }
  const std::shared_ptr<SimDescriptor>& shared() const { return descriptor_; }

 private:
  void DescriptorChanged() override { process_.RunSoon(); }
  void DescriptorClosed() override { LOG(FATAL) << "the descriptor is held here"; }

  SimProcess& process_;
  const std::shared_ptr<SimDescriptor> descriptor_;
};

// A character device: nothing to read, and somewhere to write to, or nowhere.
class SimProcesses::Device final : public SimDescriptor {
 public:
  explicit Device(std::string* text) : text_(text) {}
  uint32_t Readiness() const override { return kReadable | kWritable; }
  bool is_pipe_like() const override { return true; }
  int64_t Read(absl::Span<char> /*bytes*/) override { return 0; }
  int64_t Write(absl::Span<const iovec> bytes, size_t /*bytes_max*/) override {
    int64_t written = 0;
    for (const iovec& part : bytes) {
      if (text_ != nullptr) text_->append(static_cast<const char*>(part.iov_base), part.iov_len);
      written += static_cast<int64_t>(part.iov_len);
    }
    return written;
  }

 private:
  std::string* const text_;
};

// ---- SimProcess

SimProcess::SimProcess(SimProcesses& table, int pid, ProcessOptions options, std::unique_ptr<SimProgram> program)
    : table_(table), pid_(pid), options_(std::move(options)), program_(std::move(program)) {}

SimProcess::~SimProcess() { TellClosed(); }

MonotonicTime SimProcess::Now() const { return table_.clock_.Now(); }

void SimProcess::Give(int fd, std::shared_ptr<SimDescriptor> descriptor) {
  descriptors_[fd] = std::make_unique<Watcher>(*this, std::move(descriptor));
}

int64_t SimProcess::ReadFrom(int fd, absl::Span<char> bytes) {
  const auto found = descriptors_.find(fd);
  return found == descriptors_.end() ? -EBADF : found->second->descriptor().Read(bytes);
}

int64_t SimProcess::WriteTo(int fd, absl::string_view bytes) {
  const auto found = descriptors_.find(fd);
  if (found == descriptors_.end()) return -EBADF;
  const iovec part = {const_cast<char*>(bytes.data()), bytes.size()};
  const int64_t written =
      found->second->descriptor().Write(absl::MakeConstSpan(&part, 1), std::numeric_limits<size_t>::max());
  if (written == -EPIPE) Deliver(SIGPIPE);
  return written;
}

void SimProcess::Close(int fd) { descriptors_.erase(fd); }

void SimProcess::WakeAfter(absl::Duration delay) {
  table_.clock_.Cancel(wake_);
  wake_ = table_.clock_.After(delay, [this] { RunNow(); });
}

int SimProcess::StartChild(std::vector<std::string> arguments) {
  ProcessOptions options = options_;
  options.arguments = std::move(arguments);
  std::vector<std::shared_ptr<SimDescriptor>> descriptors(3);
  for (const auto& [fd, watcher] : descriptors_) descriptors[static_cast<size_t>(fd)] = watcher->shared();
  const std::shared_ptr<SimProcess> child = table_.Start(options, std::move(descriptors));
  if (child == nullptr) return -ENOENT;
  child->orphan_ = true;
  return 0;
}

void SimProcess::RunSoon() {
  if (ended_ || std::exchange(run_scheduled_, true)) return;
  next_run_ = table_.clock_.After(SimProcesses::kTurn, [this] {
    run_scheduled_ = false;
    RunNow();
  });
}

void SimProcess::RunNow() {
  const std::shared_ptr<SimProcess> self = shared_from_this();
  table_.trace_.Add("Process.Run");
  table_.trace_.Add(pid_);
  while (!ended_ && !signals_.empty()) Deliver(signals_.extract(signals_.begin()).value());
  if (!ended_) program_->Run(*this);
  if (ended_) program_ = nullptr;
}

void SimProcess::Deliver(int signo) {
  if (ended_) return;
  if (signo != SIGKILL && program_->HandleSignal(*this, signo)) return;
  // What is ignored unless somebody asks for it; a process that is stopped is not simulated.
  constexpr int kIgnored[] = {SIGCHLD, SIGCONT, SIGURG, SIGWINCH, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU};
  for (const int ignored : kIgnored) {
    if (signo == ignored) return;
  }
  End(-signo);
}

void SimProcess::Stop() {
  ended_ = true;
  table_.clock_.Cancel(next_run_);
  table_.clock_.Cancel(wake_);
  descriptors_.clear();
}

void SimProcess::End(int status) {
  if (ended_) return;
  table_.trace_.Add("Process.End");
  table_.trace_.Add(pid_);
  table_.trace_.Add(status);
  status_ = status;
  Stop();
  Changed();
  if (orphan_) table_.processes_.erase(pid_);  // RunNow holds it
}

int SimProcess::TakeExitStatus(int* status) {
  if (taken_) return -ECHILD;
  if (!ended_) return -EAGAIN;
  taken_ = true;
  *status = status_;
  table_.processes_.erase(pid_);  // the descriptor holds it
  return 0;
}

int SimProcess::Signal(int signo) {
  if (signo < 0 || signo > 64) return -EINVAL;
  if (taken_) return -ESRCH;
  if (ended_ || signo == 0) return 0;
  signals_.insert(signo);
  RunSoon();
  return 0;
}

uint32_t SimProcess::Readiness() const { return ended_ ? uint32_t{kReadable} : 0; }

// ---- SimProcesses

std::shared_ptr<SimProcess> SimProcesses::Start(const ProcessOptions& options,
                                                std::vector<std::shared_ptr<SimDescriptor>> descriptors) {
  const auto found = programs_.find(options.arguments.front());
  if (found == programs_.end()) return nullptr;
  const int pid = ++last_pid_;
  const std::shared_ptr<SimProcess> process(new SimProcess(*this, pid, options, found->second()));
  processes_[pid] = process;
  for (size_t fd = 0; fd < descriptors.size(); ++fd) {
    if (descriptors[fd] != nullptr) process->Give(static_cast<int>(fd), std::move(descriptors[fd]));
  }
  process->RunSoon();
  return process;
}

size_t SimProcesses::running() const {
  size_t count = 0;
  for (const auto& [pid, process] : processes_) count += process->ended() ? 0 : 1;
  return count;
}

std::shared_ptr<SimDescriptor> SimProcesses::NewConsole() { return std::make_shared<Device>(&console_); }

std::shared_ptr<SimDescriptor> SimProcesses::NewNullDevice() { return std::make_shared<Device>(nullptr); }

void SimProcesses::Clear() {
  for (const auto& [pid, process] : processes_) {
    for (const auto& [fd, watcher] : process->descriptors_) watcher->descriptor().Vanish();
  }
  for (const auto& [pid, process] : std::exchange(processes_, {})) process->Stop();
}

// ---- SimCat

void SimCat::Run(SimProcess& process) {
  while (true) {
    while (!unwritten_.empty()) {
      const int64_t written = process.WriteTo(1, unwritten_);
      if (written == -EAGAIN) return;
      if (written < 0) return process.Exit(1);
      unwritten_.erase(0, static_cast<size_t>(written));
    }
    char bytes[4096];
    const int64_t n = process.ReadFrom(0, absl::MakeSpan(bytes));
    if (n == -EAGAIN) return;
    if (n <= 0) return process.Exit(n == 0 ? 0 : 1);
    unwritten_.assign(bytes, static_cast<size_t>(n));
  }
}

}  // namespace troupe::testing
