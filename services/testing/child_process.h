// ChildProcess: a program under test, for what only processes can show: signals, exit codes, what is left after kill
// -9.
//
//   ChildProcess server({Runfile("services/kv/kv_server"), "--listen=127.0.0.1:0"});
//   std::string line = server.ReadLine();
//   server.Signal(SIGTERM);
//   EXPECT_EQ(server.Wait(), 0);
//
// Its stdout is a pipe, its stdin a file, its stderr a file that errors() reads. It ends with the test, however that
// ends.
//
// Threading: the thread that made it, which outlives it.     Lifetime: the destructor kills what still runs.
#ifndef TROUPE_SERVICES_TESTING_CHILD_PROCESS_H_
#define TROUPE_SERVICES_TESTING_CHILD_PROCESS_H_

#include <sys/types.h>

#include <string>
#include <vector>

namespace services {

// The path of a data dependency, given as in the workspace.
std::string Runfile(const std::string& path);

class ChildProcess {
 public:
  struct Options {
    std::string folder = {};  // to run in; empty: the test's
    std::string input = {};   // on stdin
  };
  // argv[0] is the program. Fails the test, and is not running, if that cannot be run.
  explicit ChildProcess(const std::vector<std::string>& argv) : ChildProcess(argv, Options()) {}
  ChildProcess(const std::vector<std::string>& argv, const Options& options);
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;
  ~ChildProcess();

  pid_t pid() const { return pid_; }
  // The next line of stdout, without its end; waits for it. Empty at the end of the output.
  std::string ReadLine();
  // What is left of stdout, when it has ended.
  std::string ReadAll();
  void Signal(int signo);
  // Waits for the end: its exit code, or minus the signal that killed it. May be called again.
  int Wait();
  // What it has written to stderr so far.
  std::string errors() const;
  // Waits until errors() contains `text`. False: it ended without.
  bool WaitForError(const std::string& text);

 private:
  // More of stdout into rest_; false at its end.
  bool ReadMore();

  pid_t pid_ = -1;
  int out_ = -1;
  int err_ = -1;
  bool ended_ = false;
  int exit_code_ = 0;
  std::string rest_;
};

// Runs a program to its end.
struct Outcome {
  int exit_code;
  std::string output;
  std::string errors;
};
Outcome RunProgram(const std::vector<std::string>& argv,
                   const ChildProcess::Options& options = ChildProcess::Options());

}  // namespace services

#endif  // TROUPE_SERVICES_TESTING_CHILD_PROCESS_H_
