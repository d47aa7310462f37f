// SimOs: an operating system in memory, with a virtual clock, for tests of everything that is written against Os.
//
//   SimOs os;                       // a machine of its own
//   EventLoop loop(os);             // its timers fire in virtual time: nothing sleeps
//
//   SimKernel kernel(seed);         // or several machines on one network
//   SimOs server(kernel, {.name = "server"}), client(kernel, {.name = "client"});
//
// What it promises is what PosixOs does (testing/os_contract runs on both), in an order that depends on the seed only.
// The clock moves when a Poller waits and nothing is ready: to its deadline or to the next event of the kernel,
// whichever comes first. A wait that nothing could ever end gives -EDEADLK. Work for pools runs on the same thread.
//
// Faults: FailCall makes the k-th call fail, SetFault is asked at every call, SetIoLimits splits reads and writes,
// Reset breaks a connection; kernel().SetLink delays, stalls and resets, at once or by chance.
//
// Threading: the kernel's thread; Wake() and Submit() too: a real thread that reaches in fails a CHECK.
// Lifetime:  outlives its pollers and pools; its open descriptors are closed at its end.
#ifndef TROUPE_TESTING_SIM_SIM_OS_H_
#define TROUPE_TESTING_SIM_SIM_OS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "troupe/base/monotonic_time.h"
#include "troupe/base/socket_address.h"
#include "troupe/os/os.h"
#include "troupe/os/simulated_os.h"
#include "troupe/testing/sim/sim_descriptor.h"
#include "troupe/testing/sim/sim_kernel.h"
#include "troupe/testing/sim/sim_network.h"
#include "troupe/testing/sim/sim_process.h"
#include "troupe/testing/sim/sim_random.h"

namespace troupe::testing {

class SimPoller;

struct SimHostOptions {
  std::string name = {};  // in DNS; empty: "host<n>"
  // Addresses; empty: 10.0.x.y and fd00::x:y by the host's number, from 10.0.0.1 on.
  std::vector<SocketAddress> ips = {};
  bool ipv6 = true;  // false: EAFNOSUPPORT
  absl::Time wall_start = absl::FromUnixSeconds(1'700'000'000);
  int descriptors_max = 1024;
  int64_t memory_bytes = int64_t{1} << 30;
  absl::Duration worker_latency = absl::Microseconds(20);  // from Submit to the start of the work
};

// How many bytes one Recv or Read, one Send or Write may move; 0: as many as there are. The socket stays ready for the rest. Unless a test
// sets them, they are those of TROUPE_IO_BYTES_MAX (troupe/os/io_limit.h), drawn from the host's seed.
struct SimIoLimits {
  size_t recv_bytes_max = 0;
  size_t send_bytes_max = 0;
  bool random = false;  // from 1 to the maximum, by the seed
};

class SimOs final : public SimulatedOs {
 public:
  // On a kernel of its own.
  explicit SimOs(uint64_t seed = 1, SimHostOptions options = {});
  explicit SimOs(SimKernel& kernel, SimHostOptions options = {});
  ~SimOs() override;

  // ---- the machine
  SimKernel& kernel() { return kernel_; }
  int number() const { return number_; }  // of the host on its kernel, from 0
  const std::string& name() const { return options_.name; }
  const std::vector<SocketAddress>& ips() const { return options_.ips; }

  // ---- faults
  // Asked at every call that names an operation ("Accept", "Poller.Add", "Resolve" ...) and has a descriptor, or -1. A
  // positive errno fails the call before it does anything, except that Close always closes.
  using Fault = std::function<int(absl::string_view operation, int fd)>;
  void SetFault(Fault fault) { fault_ = std::move(fault); }
  // The k-th such call from now, counting from 1, fails with `error`, once. 0 undoes it.
  void FailCall(int64_t k, int error);
  // The call that FailCall named has come.
  bool fault_was_injected() const { return fault_was_injected_; }
  int64_t calls() const { return calls_; }  // that could have failed, so far

  void SetIoLimits(const SimIoLimits& limits) { io_limits_ = limits; }
  // Both ends see ECONNRESET. REQUIRES: fd is a socket.
  void Reset(int fd);
  // Both ends see the end of file: of a socket's connection, or of a pipe.
  void HangUp(int fd);

  // The machine loses power: its sockets are gone and nobody is told, its names no longer answer, no work starts any
  // more, and whatever is called fails with EIO. What lives on it is to be destroyed then: it can only notice, not act.
  void Crash();
  // The machine comes back, with the addresses and files that it had. Peers that speak to an old connection are told
  // then. REQUIRES: it crashed, and its pollers and pools of before are destroyed.
  void Restart();
  bool crashed() const { return crashed_; }

  // ---- clock, resources
  void SetWallTime(absl::Time now) { wall_at_zero_ = now - (kernel_.Now() - MonotonicTime()); }
  void SetDescriptorLimit(int limit) { options_.descriptors_max = limit; }
  // ---- programs that Spawn finds by the name that they are started with: see sim_process.h.
  void AddProgram(const std::string& name, SimProgramFactory factory) {
    processes_.AddProgram(name, std::move(factory));
  }
  // One that is done in a turn, or needs nothing but the process to know how far it is.
  void AddProgram(const std::string& name, std::function<void(SimProcess&)> run);
  size_t running_processes() const { return processes_.running(); }
  size_t zombies() const { return processes_.zombies(); }  // ended, and nobody has taken the status
  // What programs wrote to the host's own descriptors 1 and 2.
  const std::string& console() const { return processes_.console(); }

  // A regular file, to be opened, or in the way of a Unix socket. One that is there gets other contents, also for those
  // who have it open.
  void AddFile(const std::string& path, std::string contents = "");
  // What TakeListenDescriptors() gives: `fd` is open already, as if a service manager had opened it.
  void HandOver(int fd, absl::string_view name) { handed_over_.push_back({fd, std::string(name)}); }

  // ---- what is left, for teardown checks
  std::vector<int> OpenDescriptors() const;
  int GetSocketOption(int fd, int level, int name, int* value);
  // Signals that were raised while nobody watched them, in order. A real process would have ended, or not noticed.
  const std::vector<int>& unwatched_signals() const { return unwatched_signals_; }

  // ---- Os
  MonotonicTime Now() override;
  absl::Time WallNow() override;
  void FillRandom(absl::Span<char> bytes) override;
  std::unique_ptr<Poller> NewPoller() override;
  std::unique_ptr<WorkerPool> NewWorkerPool(int threads_max, absl::string_view name) override;
  int Socket(int family, int type) override;
  int SocketPair(int family, int type, int fds[2]) override;
  int AdoptSocket(int fd, int type) override;
  int IsNonBlocking(int fd) override;
  int SetSocketOption(int fd, int level, int name, int value) override;
  int Bind(int fd, const SocketAddress& address) override;
  int Listen(int fd, int backlog) override;
  int Accept(int fd, SocketAddress* peer) override;
  int Connect(int fd, const SocketAddress& address) override;
  int SocketError(int fd) override;
  int LocalAddress(int fd, SocketAddress* address) override;
  int PeerAddress(int fd, SocketAddress* address) override;
  int ShutdownWrite(int fd) override;
  int64_t Recv(int fd, absl::Span<char> bytes) override;
  int64_t Send(int fd, absl::Span<const iovec> bytes) override;
  int Close(int fd) override;
  int64_t ReceiveFrom(int fd, absl::Span<char> bytes, SocketAddress* from) override;
  int64_t SendTo(int fd, absl::Span<const char> bytes, const SocketAddress* to) override;
  int MakePipe(int fds[2]) override;
  int AdoptPipe(int fd) override;
  int64_t Read(int fd, absl::Span<char> bytes) override;
  int64_t Write(int fd, absl::Span<const iovec> bytes) override;
  int OpenFile(const std::string& path) override;
  int64_t FileBytes(int fd) override;
  int64_t ReadAt(int fd, int64_t offset, absl::Span<char> bytes) override;
  int64_t SendFile(int socket, int file, int64_t offset, int64_t bytes_max) override;
  int Spawn(const ProcessOptions& options, int* pid) override;
  int TakeExitStatus(int process, int* status) override;
  int SignalProcess(int process, int signo) override;
  absl::StatusOr<std::vector<SocketAddress>> Resolve(const ResolveQuery& query) override;
  absl::StatusOr<HostName> ResolveHostName(const SocketAddress& address, const HostNameQuery& query) override;
  bool IsSocketFile(const std::string& path) override;
  int Unlink(const std::string& path) override;
  int WatchSignal(int signo, Poller& poller) override;
  int UnwatchSignal(int signo, Poller& poller) override;
  uint64_t TakeSignals(Poller& poller) override;
  int RaiseSignal(int signo) override;
  absl::StatusOr<std::vector<ListenDescriptor>> TakeListenDescriptors() override;
  int64_t DescriptorLimit() override { return options_.descriptors_max; }
  int64_t MemoryLimit() override { return options_.memory_bytes; }

 private:
  friend class SimPoller;
  friend class SimWorkerPool;
  // On `own`, or else on `kernel`.
  SimOs(std::unique_ptr<SimKernel> own, SimKernel* kernel, SimHostOptions options);

  // Notes the call in the trace, asks for a fault and finds what the descriptor stands for: 0, or -errno.
  int Begin(absl::string_view operation, int fd, SimDescriptor** descriptor);
  // The same for one that must be a D; -ENOTSOCK, or -EINVAL where a D is no socket.
  template <class D>
  int Begin(absl::string_view operation, int fd, D** found);
  int Begin(absl::string_view operation, int fd = -1);
  // Notes the result in the trace.
  template <class Result>
  Result Traced(Result result);
  int Install(std::shared_ptr<SimDescriptor> descriptor);
  // Both, or neither: 0, or -EMFILE.
  int InstallPair(std::shared_ptr<SimDescriptor> first, std::shared_ptr<SimDescriptor> second, int fds[2]);
  int LowestFree();  // -EMFILE
  std::shared_ptr<SimDescriptor> TakeOut(int fd);
  size_t IoLimit(size_t bytes_max);
  SimDescriptor* Find(int fd);
  void ForgetPoller(SimPoller& poller);

  static constexpr int kFirstDescriptor = 3;  // 0 to 2 are taken, as in a process

  const std::unique_ptr<SimKernel> own_kernel_;  // null: it is somebody else's
  SimKernel& kernel_;
  SimHostOptions options_;
  int number_ = 0;
  SimRandom random_;     // what the program draws
  SimRandom io_random_;  // what SimIoLimits draws
  absl::Time wall_at_zero_;
  Fault fault_;
  int64_t calls_ = 0;
  int64_t fail_at_ = 0;
  int fail_with_ = 0;
  bool fault_was_injected_ = false;
  bool crashed_ = false;
  int pollers_ = 0;
  SimIoLimits io_limits_;
  std::map<int, SimPoller*> signal_watchers_;
  std::vector<int> unwatched_signals_;
  SimProcesses processes_;
  std::vector<ListenDescriptor> handed_over_;
  // Shared with the descriptors of children: a pipe's end stays open until the last is closed.
  std::map<int, std::shared_ptr<SimDescriptor>> descriptors_;
  int lowest_free_ = kFirstDescriptor;
};

}  // namespace troupe::testing

#endif  // TROUPE_TESTING_SIM_SIM_OS_H_
