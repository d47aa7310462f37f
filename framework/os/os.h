// Os: the one seam between the framework and an operating system.
//
// Everything that the framework learns from outside (time, randomness, readiness, bytes, names, signals) and every
// thread that it starts goes through an Os. PosixOs is the real one; testing/sim has the simulated one, whose clock is
// virtual and whose sockets live in memory. Both pass testing/os_contract.
//
// Results: calls shaped like system calls give what the system call gives, or -errno; they never set errno, never raise
// SIGPIPE, retry EINTR, and make descriptors non-blocking and close-on-exec. Calls that are not system calls give a
// Status.
//
// Threading: an Os may be used by several loops in several threads; a Poller belongs to one thread, but for Wake().
// Lifetime:  outlives every loop, poller and worker pool made from it.
#ifndef TROUPE_OS_OS_H_
#define TROUPE_OS_OS_H_

#include <sys/uio.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "troupe/base/monotonic_time.h"
#include "troupe/base/socket_address.h"

namespace troupe {

// What a descriptor is watched for, and what became of it. Errors and hang-ups are reported as both.
enum Readiness : uint32_t { kReadable = 1, kWritable = 2 };

struct PollEvent {
  void* token;     // as given to Add
  uint32_t ready;  // Readiness bits
};

// Watches descriptors, level-triggered.
class Poller {
 public:
  virtual ~Poller() = default;

  // 0 or -errno: EEXIST (already watched here), EPERM (a regular file), EBADF, ENOMEM, ENOSPC.
  virtual int Add(int fd, uint32_t interest, void* token) = 0;
  // `interest` may be 0: the descriptor stays known, and nothing is reported but errors and hang-ups.
  virtual int Modify(int fd, uint32_t interest, void* token) = 0;
  virtual int Remove(int fd) = 0;

  // Waits until something is ready, Wake() was called, or `deadline` passed; a deadline in the past polls. Returns the
  // number of events (0: deadline, wake-up, signal, or for no reason), or -errno. What did not fit comes first the next
  // time. -EDEADLK, from a simulated Os only: nothing is ready and nothing ever will be, since `deadline` is infinite
  // and no event of the simulated world is outstanding.
  virtual int Wait(MonotonicTime deadline, absl::Span<PollEvent> events) = 0;

  // Makes the current Wait, or else the next one, return. Any thread, and signal handlers.
  virtual void Wake() = 0;
};

// One piece of work for a WorkerPool. The submitter owns it and keeps it until it has run, was cancelled or waited for.
class Work {
 public:
  virtual ~Work() = default;
  // Runs on a worker. Does not throw. Touches nothing of the Work after telling the submitter that it is done.
  virtual void Run() = 0;

 private:
  friend class WorkQueue;  // for implementations of WorkerPool
  Work* next_ = nullptr;
  Work* previous_ = nullptr;
  bool queued_ = false;
};

// Threads for what blocks. Started on first use, at most `threads_max`; work starts in the order of submission.
// Threading: any thread; Wait and the destructor never from a worker of the same pool.
class WorkerPool {
 public:
  // Waits for running work; what has not started is dropped.
  virtual ~WorkerPool() = default;
  // REQUIRES: work is not queued. Throws StatusError(RESOURCE_EXHAUSTED) when not even one thread can be started; the
  // work is not queued then.
  virtual void Submit(Work& work) = 0;
  // True: it had not started and will not run.
  virtual bool Cancel(Work& work) = 0;
  // Returns when `work` is no longer queued and no longer running.
  virtual void Wait(Work& work) = 0;
};

struct ResolveQuery {
  std::string host = {};     // empty: all interfaces if passive, else loopback
  std::string service = {};  // a number or a service name; empty: port 0
  int family = 0;            // AF_UNSPEC, AF_INET, AF_INET6
  int type = 1;              // SOCK_STREAM
  bool passive = false;      // for bind
};

// What getnameinfo(3) says of an address.
struct HostName {
  std::string host;
  std::string service;
};
struct HostNameQuery {
  bool numeric_host = false;     // the address itself; else a name where one is found
  bool numeric_service = false;  // the port's number; else a name where one is known
  bool name_required = false;    // an address without a name is NOT_FOUND
  bool datagram = false;         // of the services, those of UDP
};

// A program to start.
struct ProcessOptions {
  // [0] is the program: a path, or without a slash a name that is looked for in PATH.
  std::vector<std::string> arguments = {};
  std::optional<std::vector<std::string>> environment = std::nullopt;  // "NAME=value"; none: this process's
  std::string directory = {};                                          // to run in; empty: this process's
  // Descriptors of this process that become the child's 0, 1 and 2, and block from then on; it gets no others. -1: the
  // null device. One may be given more than once.
  int input = -1;
  int output = -1;
  int error = -1;
  bool new_session = false;  // as setsid(2): out of reach of the terminal's signals
};

// A descriptor that was open when the process started, for it to serve on.
struct ListenDescriptor {
  int fd = -1;
  std::string name;  // "unknown" where none was given
};

class Os {
 public:
  virtual ~Os() = default;

  // ---- time, randomness
  virtual MonotonicTime Now() = 0;
  virtual absl::Time WallNow() = 0;
  virtual void FillRandom(absl::Span<char> bytes) = 0;

  // ---- readiness, threads
  // Throws StatusError (RESOURCE_EXHAUSTED) when no descriptor is left for it.
  virtual std::unique_ptr<Poller> NewPoller() = 0;
  virtual std::unique_ptr<WorkerPool> NewWorkerPool(int threads_max, absl::string_view name) = 0;

  // ---- sockets. `family`, `type`: as socket(2).
  virtual int Socket(int family, int type) = 0;  // EMFILE ENFILE ENOMEM EAFNOSUPPORT EACCES
  virtual int SocketPair(int family, int type, int fds[2]) = 0;
  // Takes in a socket that came from elsewhere: inherited, passed over a Unix socket, made by a library. Gives its family;
  // it is non-blocking and close-on-exec from then on. EBADF ENOTSOCK, ESOCKTNOSUPPORT (it is of another type),
  // EAFNOSUPPORT (its family is none of AF_INET, AF_INET6, AF_UNIX): then nothing of it has changed.
  virtual int AdoptSocket(int fd, int type) = 0;
  // 1: calls on it do not wait; 0: they do. EBADF
  virtual int IsNonBlocking(int fd) = 0;
  virtual int SetSocketOption(int fd, int level, int name, int value) = 0;
  virtual int Bind(int fd, const SocketAddress& address) = 0;  // EADDRINUSE EADDRNOTAVAIL EACCES EINVAL
  virtual int Listen(int fd, int backlog) = 0;
  // The new descriptor. EAGAIN ECONNABORTED EMFILE ENFILE ENOBUFS ENOMEM
  virtual int Accept(int fd, SocketAddress* peer) = 0;
  // 0, -EINPROGRESS (wait for kWritable, then SocketError), or why not.
  virtual int Connect(int fd, const SocketAddress& address) = 0;
  virtual int SocketError(int fd) = 0;  // takes SO_ERROR: 0 or a positive errno
  virtual int LocalAddress(int fd, SocketAddress* address) = 0;
  virtual int PeerAddress(int fd, SocketAddress* address) = 0;
  virtual int ShutdownWrite(int fd) = 0;

  // ---- bytes. Recv gives 0 at end of file. EAGAIN ECONNRESET EPIPE ETIMEDOUT ENOTCONN
  virtual int64_t Recv(int fd, absl::Span<char> bytes) = 0;
  virtual int64_t Send(int fd, absl::Span<const iovec> bytes) = 0;
  virtual int Close(int fd) = 0;  // the descriptor is gone whatever is returned

  // ---- datagrams, one a call. A socket of type SOCK_DGRAM.
  // The datagram's size, which is larger than `bytes` when it was cut; 0 is a datagram without bytes. `from` is AF_UNSPEC
  // for a sender without a name. EAGAIN ECONNREFUSED EHOSTUNREACH ENETUNREACH ENOMEM
  virtual int64_t ReceiveFrom(int fd, absl::Span<char> bytes, SocketAddress* from) = 0;
  // All of it, to `to`, or if that is null to where the socket is connected. EAGAIN EMSGSIZE ECONNREFUSED EHOSTUNREACH
  // ENETUNREACH EDESTADDRREQ EACCES EPERM ENOBUFS ENOMEM
  virtual int64_t SendTo(int fd, absl::Span<const char> bytes, const SocketAddress* to) = 0;

  // ---- pipes, character devices, and whatever else is read and written without being a socket.
  virtual int MakePipe(int fds[2]) = 0;  // fds[0] reads, fds[1] writes. EMFILE ENFILE
  // Takes in a pipe, a socket or a character device that came from elsewhere: it is non-blocking and close-on-exec from
  // then on. EBADF, EINVAL (it is none of these): then nothing of it has changed.
  virtual int AdoptPipe(int fd) = 0;
  // Read gives 0 at end of file. EAGAIN EIO (a closed terminal) EPIPE ECONNRESET
  virtual int64_t Read(int fd, absl::Span<char> bytes) = 0;
  virtual int64_t Write(int fd, absl::Span<const iovec> bytes) = 0;

  // ---- files. OpenFile and ReadAt may block: call them from a worker.
  virtual int OpenFile(const std::string& path) = 0;  // for reading. ENOENT EACCES EMFILE ENFILE ENOTDIR ELOOP
  virtual int64_t FileBytes(int fd) = 0;              // EBADF, EINVAL (not a regular file), EIO
  // 0 at the end. EBADF EINVAL EIO
  virtual int64_t ReadAt(int fd, int64_t offset, absl::Span<char> bytes) = 0;
  // From a file to a stream socket, at most `bytes_max`; 0 at the end of the file. EAGAIN, EINVAL, ENOSYS and EOPNOTSUPP
  // (not for these two), EPIPE ECONNRESET ETIMEDOUT EIO ENOMEM
  virtual int64_t SendFile(int socket, int file, int64_t offset, int64_t bytes_max) = 0;

  // ---- processes.
  // Starts a program: a descriptor that is readable once it has ended. Closing it does not end the program. *pid gets its
  // number. ENOENT EACCES ENOEXEC ENOTDIR E2BIG EAGAIN ENOMEM EMFILE ENFILE
  virtual int Spawn(const ProcessOptions& options, int* pid) = 0;
  // 0 with *status: the exit status, or minus the signal that ended it. -EAGAIN: it runs. Gives the answer once: after
  // that -ECHILD.
  virtual int TakeExitStatus(int process, int* status) = 0;
  // ESRCH (it has ended, and its status was taken) EPERM EINVAL
  virtual int SignalProcess(int process, int signo) = 0;

  // ---- names. Blocks: called from a worker of the resolver. In the order of preference, never empty, each once.
  // NOT_FOUND (no such host), UNAVAILABLE (ask again later), INVALID_ARGUMENT (no such service, impossible family),
  // RESOURCE_EXHAUSTED, INTERNAL.
  virtual absl::StatusOr<std::vector<SocketAddress>> Resolve(const ResolveQuery& query) = 0;
  // The other way. Blocks unless both are asked for as numbers. NOT_FOUND (no name), UNAVAILABLE, INVALID_ARGUMENT (no
  // address of IP), RESOURCE_EXHAUSTED, INTERNAL.
  virtual absl::StatusOr<HostName> ResolveHostName(const SocketAddress& address, const HostNameQuery& query) = 0;

  // ---- files: the little that servers of Unix paths need.
  virtual bool IsSocketFile(const std::string& path) = 0;
  virtual int Unlink(const std::string& path) = 0;

  // ---- signals, 1 to 63. One watcher a signal and process. While watched, each delivery of `signo` sets its bit in
  // what TakeSignals gives and wakes `poller`. Watching again is 0 and changes nothing. A poller that is destroyed no
  // longer watches. -EINVAL: not a signal; -EPERM: cannot be caught; -EBUSY: another poller has it.
  virtual int WatchSignal(int signo, Poller& poller) = 0;
  // Restores the action that was in force before; 0, or -ENOENT.
  virtual int UnwatchSignal(int signo, Poller& poller) = 0;
  // Bits (1 << signo) of what was delivered for `poller` since the last call.
  virtual uint64_t TakeSignals(Poller& poller) = 0;
  // Raises `signo` for this process; in simulation, for this host.
  virtual int RaiseSignal(int signo) = 0;

  // ---- what a service manager opened for the process, as systemd's socket activation: LISTEN_PID, LISTEN_FDS and
  // LISTEN_FDNAMES. In the manager's order. The caller owns them; they are close-on-exec from then on, and nothing else of
  // them has changed. Given once: the variables are gone afterwards. Call it before other threads are started, which might
  // read the environment meanwhile. None: there was no manager, or it meant another process. INVALID_ARGUMENT: the
  // variables make no sense, or a descriptor is not open; none has been taken then.
  virtual absl::StatusOr<std::vector<ListenDescriptor>> TakeListenDescriptors() = 0;

  // ---- resources of the process.
  virtual int64_t DescriptorLimit() = 0;  // soft limit of open descriptors
  virtual int64_t MemoryLimit() = 0;      // bytes: the cgroup's limit, or the machine's memory
  // What the connections of the process hold, in bytes. Each adds and takes away its own.
  std::atomic<int64_t>& held_memory() { return held_memory_; }

 private:
  std::atomic<int64_t> held_memory_ = 0;
};

}  // namespace troupe

#endif  // TROUPE_OS_OS_H_
