// SimProgram, SimProcess: programs of a simulated host, for tests of what starts them.
//
//   os.AddProgram("/bin/cat", [] { return std::make_unique<SimCat>(); });
//   os.AddProgram("fails", [](SimProcess& process) { process.Exit(3); });
//
// A program is an object that runs on the host's clock, for 10 us of it a turn. It reads and writes its three
// descriptors, hears signals and ends with a status; what it is to its parent is what a process of Linux is: it stays as
// a zombie until its status is taken, its descriptors stay open while it or a child of its own has them, writing to a
// pipe that nobody reads kills it.
//
// Threading: the clock's thread.     Lifetime: a program is destroyed when it has ended, a process when its status has
// been taken and nobody refers to it.
#ifndef TROUPE_TESTING_SIM_SIM_PROCESS_H_
#define TROUPE_TESTING_SIM_SIM_PROCESS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "troupe/base/monotonic_time.h"
#include "troupe/os/os.h"
#include "troupe/testing/sim/sim_clock.h"
#include "troupe/testing/sim/sim_descriptor.h"
#include "troupe/testing/sim/sim_trace.h"

namespace troupe::testing {

class SimProcess;
class SimProcesses;

class SimProgram {
 public:
  virtual ~SimProgram() = default;
  // Goes on as far as it can without waiting. Called when it starts, and again when something may have changed for it: a
  // descriptor, the time that it asked for, a signal. After Exit never again.
  virtual void Run(SimProcess& process) = 0;
  // Run() follows. False: what a signal does to a program that knows nothing of it. SIGKILL is not asked.
  virtual bool HandleSignal(SimProcess& /*process*/, int /*signo*/) { return false; }
};

using SimProgramFactory = std::function<std::unique_ptr<SimProgram>()>;

// As its program sees it; and what a process's descriptor stands for.
class SimProcess final : public SimDescriptor, public std::enable_shared_from_this<SimProcess> {
 public:
  ~SimProcess() override;

  int pid() const { return pid_; }
  const std::vector<std::string>& arguments() const { return options_.arguments; }
  // As they were given.
  const ProcessOptions& options() const { return options_; }
  MonotonicTime Now() const;

  // -EAGAIN: Run() is called again when it may have changed.
  int64_t ReadFrom(int fd, absl::Span<char> bytes);
  int64_t WriteTo(int fd, absl::string_view bytes);
  void Close(int fd);
  // Run() is called then, besides. One time is remembered.
  void WakeAfter(absl::Duration delay);
  // Another program that has the same descriptors, and that nobody waits for. 0 or -ENOENT.
  int StartChild(std::vector<std::string> arguments);
  // Its descriptors are closed now.
  void Exit(int status) { End(status & 0xff); }

  // ---- as its parent sees it. As of Os.
  int TakeExitStatus(int* status);
  int Signal(int signo);
  bool ended() const { return ended_; }

  uint32_t Readiness() const override;

 private:
  friend class SimProcesses;
  class Watcher;

  SimProcess(SimProcesses& table, int pid, ProcessOptions options, std::unique_ptr<SimProgram> program);
  void Give(int fd, std::shared_ptr<SimDescriptor> descriptor);
  void RunSoon();
  void RunNow();
  void Deliver(int signo);
  void End(int status);
  void Stop();

  SimProcesses& table_;
  const int pid_;
  const ProcessOptions options_;
  std::unique_ptr<SimProgram> program_;
  std::map<int, std::unique_ptr<Watcher>> descriptors_;
  std::set<int> signals_;  // that are to be delivered
  SimClock::EventId next_run_, wake_;
  bool run_scheduled_ = false;
  bool orphan_ = false;  // nobody waits for it
  bool ended_ = false;
  bool taken_ = false;
  int status_ = 0;
};

// The processes of a host. Tests see it through SimOs.
class SimProcesses {
 public:
  SimProcesses(SimClock& clock, SimTrace& trace) : clock_(clock), trace_(trace) {}
  SimProcesses(const SimProcesses&) = delete;
  SimProcesses& operator=(const SimProcesses&) = delete;
  ~SimProcesses() { Clear(); }

  void AddProgram(const std::string& name, SimProgramFactory factory) { programs_[name] = std::move(factory); }
  // Null: there is no such program.
  std::shared_ptr<SimProcess> Start(const ProcessOptions& options,
                                    std::vector<std::shared_ptr<SimDescriptor>> descriptors);
  size_t running() const;
  size_t zombies() const { return processes_.size() - running(); }
  // What stands for descriptors 0, 1 and 2 of the host: it reads nothing; what is written there can be read here.
  std::shared_ptr<SimDescriptor> NewConsole();
  static std::shared_ptr<SimDescriptor> NewNullDevice();
  const std::string& console() const { return console_; }
  // As if the machine had lost power.
  void Clear();

 private:
  friend class SimProcess;
  class Device;

  static constexpr absl::Duration kTurn = absl::Microseconds(10);

  SimClock& clock_;
  SimTrace& trace_;
  std::map<std::string, SimProgramFactory> programs_;
  std::map<int, std::shared_ptr<SimProcess>> processes_;  // by number
  std::string console_;
  int last_pid_ = 1000;
};

// Writes what it reads, until the end: cat(1).
class SimCat final : public SimProgram {
 public:
  void Run(SimProcess& process) override;

 private:
  std::string unwritten_;
};

}  // namespace troupe::testing

#endif  // TROUPE_TESTING_SIM_SIM_PROCESS_H_
