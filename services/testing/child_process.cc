#include "services/testing/child_process.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace services {
namespace {

// A file without a name.
int TemporaryFile() {
  const char* const folder = getenv("TEST_TMPDIR");
  std::string name = absl::StrCat(folder == nullptr ? "/tmp" : folder, "/child.XXXXXX");
  const int fd = mkostemp(name.data(), O_CLOEXEC);
  EXPECT_GE(fd, 0);
  unlink(name.c_str());
  return fd;
}

}  // namespace

std::string Runfile(const std::string& path) {
  const char* const sources = getenv("TEST_SRCDIR");
  const char* const workspace = getenv("TEST_WORKSPACE");
  if (sources == nullptr || workspace == nullptr) return path;
  return absl::StrCat(sources, "/", workspace, "/", path);
}

ChildProcess::ChildProcess(const std::vector<std::string>& argv, const Options& options) {
  int out[2];
  EXPECT_EQ(pipe2(out, O_CLOEXEC), 0);
  const int in = TemporaryFile();
  EXPECT_EQ(pwrite(in, options.input.data(), options.input.size(), 0), static_cast<ssize_t>(options.input.size()));
  err_ = TemporaryFile();
  std::vector<char*> arguments;
  for (const std::string& argument : argv) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);

  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ == 0) {
    // Only calls that are safe between fork and exec.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(126);
    if (!options.folder.empty() && chdir(options.folder.c_str()) != 0) _exit(126);
    dup2(in, STDIN_FILENO);
    dup2(out[1], STDOUT_FILENO);
    dup2(err_, STDERR_FILENO);
    execv(arguments[0], arguments.data());
    _exit(127);
  }
  EXPECT_GT(pid_, 0);
  close(in);
  close(out[1]);
  out_ = out[0];
}

ChildProcess::~ChildProcess() {
  if (pid_ > 0 && !ended_) {
    kill(pid_, SIGKILL);
    Wait();
  }
  close(out_);
  close(err_);
}

bool ChildProcess::ReadMore() {
  char bytes[4096];
  ssize_t count;
  do count = read(out_, bytes, sizeof(bytes));
  while (count < 0 && errno == EINTR);
  if (count <= 0) return false;
  rest_.append(bytes, static_cast<size_t>(count));
  return true;
}

std::string ChildProcess::ReadLine() {
  size_t end;
  while ((end = rest_.find('\n')) == std::string::npos) {
    if (!ReadMore()) return std::exchange(rest_, "");
  }
  std::string line = rest_.substr(0, end);
  rest_.erase(0, end + 1);
  return line;
}

std::string ChildProcess::ReadAll() {
  while (ReadMore()) {
  }
  return std::exchange(rest_, "");
}

void ChildProcess::Signal(int signo) {
  // Before it is waited for, its id cannot be another's.
  if (!ended_) kill(pid_, signo);
}

int ChildProcess::Wait() {
  if (ended_) return exit_code_;
  int status = 0;
  pid_t waited;
  do waited = waitpid(pid_, &status, 0);
  while (waited < 0 && errno == EINTR);
  EXPECT_EQ(waited, pid_);
  ended_ = true;
  exit_code_ = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  return exit_code_;
}

std::string ChildProcess::errors() const {
  struct stat file;
  if (fstat(err_, &file) != 0) return "";
  std::string text(static_cast<size_t>(file.st_size), '\0');
  text.resize(static_cast<size_t>(pread(err_, text.data(), text.size(), 0)));
  return text;
}

bool ChildProcess::WaitForError(const std::string& text) {
  while (true) {
    siginfo_t info{};
    const bool ended = ended_ || (waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOWAIT | WNOHANG) == 0 &&
                                  info.si_pid == pid_);
    // Looked at after: what it wrote last counts too.
    if (absl::StrContains(errors(), text)) return true;
    if (ended) return false;
    sched_yield();  // a file cannot be waited for
  }
}

Outcome RunProgram(const std::vector<std::string>& argv, const ChildProcess::Options& options) {
  ChildProcess program(argv, options);
  Outcome outcome;
  outcome.output = program.ReadAll();
  outcome.exit_code = program.Wait();
  outcome.errors = program.errors();
  return outcome;
}

}  // namespace services
