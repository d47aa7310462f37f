#include "troupe/os/posix_os.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
extern "C" {  // glibc 2.36 leaves it out
#include <sys/pidfd.h>
}

#include <algorithm>
#include <climits>
#include <fstream>
#include <iterator>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "glog/logging.h"
#include "troupe/os/io_limit.h"
#include "troupe/os/posix_poller.h"
#include "troupe/os/posix_worker_pool.h"

namespace troupe {
namespace {

using internal::PosixPoller;
using internal::PosixWorkerPool;

// Makes the call until no signal interrupts it: its result, or -errno.
template <class Call>
auto Retry(Call call) -> decltype(call()) {
  while (true) {
    const auto result = call();
    if (result >= 0) return result;
    if (errno != EINTR) return -errno;
  }
}

// `what` could not be resolved.
absl::Status ResolveError(int error, int saved_errno, absl::string_view what) {
  const std::string text =
      absl::StrCat("cannot resolve ", what, ": ", error == EAI_SYSTEM ? strerror(saved_errno) : gai_strerror(error));
  switch (error) {
    case EAI_NONAME:
    case EAI_NODATA:
    case EAI_ADDRFAMILY:
      return absl::NotFoundError(text);
    case EAI_AGAIN:
    case EAI_FAIL:
    case EAI_SYSTEM:
      return absl::UnavailableError(text);
    case EAI_SERVICE:
    case EAI_FAMILY:
    case EAI_SOCKTYPE:
    case EAI_BADFLAGS:
      return absl::InvalidArgumentError(text);
    case EAI_MEMORY:
      return absl::ResourceExhaustedError(text);
    default:
      return absl::InternalError(text);
  }
}

// The first line of a file as a number; "max", or no such file, is no limit.
int64_t ReadLimit(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  int64_t limit = 0;
  if (!std::getline(file, line) || !absl::SimpleAtoi(line, &limit)) return std::numeric_limits<int64_t>::max();
  return limit;
}

// The least limit of `group` and the groups above it.
int64_t CgroupLimit(const std::string& root, absl::string_view group, const std::string& file) {
  int64_t limit = std::numeric_limits<int64_t>::max();
  while (true) {
    limit = std::min(limit, ReadLimit(absl::StrCat(root, group, "/", file)));
    const size_t slash = group.rfind('/');
    if (slash == absl::string_view::npos) return limit;
    group = group.substr(0, slash);
  }
}

// As Retry, of a call that cannot be told not to raise SIGPIPE: it never reaches the process. One that was pending before
// stays pending.
template <class Call>
int64_t RetryHoldingSigpipeBack(Call call) {
  sigset_t sigpipe, before, pending;
  sigemptyset(&sigpipe);
  sigaddset(&sigpipe, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &sigpipe, &before);
  const bool was_blocked = sigismember(&before, SIGPIPE) == 1;
  bool was_pending = false;
  if (was_blocked) {
    sigpending(&pending);
    was_pending = sigismember(&pending, SIGPIPE) == 1;
  }
  const int64_t result = Retry(call);
  if (result == -EPIPE && !was_pending) {
    const timespec at_once = {};
    while (sigtimedwait(&sigpipe, nullptr, &at_once) < 0 && errno == EINTR) {
    }
  }
  if (!was_blocked) pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return result;
}

// sd_listen_fds(3).
absl::StatusOr<std::vector<ListenDescriptor>> ListenDescriptors(const std::optional<std::string>& pid_text,
                                                                const std::optional<std::string>& count_text,
                                                                const std::optional<std::string>& names_text) {
  constexpr int kFirst = 3;
  std::vector<ListenDescriptor> descriptors;
  if (!pid_text.has_value() || !count_text.has_value()) return descriptors;
  const auto number = [](const std::string& text) {
    int value = -1;
    const bool digits = !text.empty() && std::all_of(text.begin(), text.end(), absl::ascii_isdigit);
    return digits && absl::SimpleAtoi(text, &value) ? value : -1;
  };
  const int pid = number(*pid_text);
  if (pid <= 0) return absl::InvalidArgumentError(absl::StrCat("LISTEN_PID is no process's number: ", *pid_text));
  if (pid != getpid()) return descriptors;
  const int count = number(*count_text);
  if (count < 0 || count > std::numeric_limits<int>::max() - kFirst) {
    return absl::InvalidArgumentError(absl::StrCat("LISTEN_FDS is no number of descriptors: ", *count_text));
  }
  std::vector<std::string> names;
  if (names_text.has_value()) {
    if (!names_text->empty() || count > 0) names = absl::StrSplit(*names_text, ':');
    if (names.size() != static_cast<size_t>(count)) {
      return absl::InvalidArgumentError(
          absl::StrCat("LISTEN_FDNAMES has ", names.size(), " names for ", count, " descriptors"));
    }
  }
  // Looked at before anything is changed, and before memory is taken for as many as somebody wrote there.
  for (int fd = kFirst; fd < kFirst + count; ++fd) {
    if (fcntl(fd, F_GETFD) < 0) {
      return absl::InvalidArgumentError(absl::StrCat("LISTEN_FDS is ", count, ", but descriptor ", fd, " is not open"));
    }
  }
  for (int i = 0; i < count; ++i) {
    fcntl(kFirst + i, F_SETFD, FD_CLOEXEC);
    descriptors.push_back({kFirst + i, names.empty() ? "unknown" : std::move(names[static_cast<size_t>(i)])});
  }
  return descriptors;
}

std::vector<char*> Pointers(const std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (const std::string& text : texts) pointers.push_back(const_cast<char*>(text.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

// How posix_spawn(3) prepares a child.
class SpawnActions {
 public:
  SpawnActions() {
    posix_spawn_file_actions_init(&file_actions_);
    posix_spawnattr_init(&attributes_);
  }
  SpawnActions(const SpawnActions&) = delete;
  SpawnActions& operator=(const SpawnActions&) = delete;
  ~SpawnActions() {
    for (const Source& source : sources_) {
      if (!started_) fcntl(source.fd, F_SETFL, source.flags);
      close(source.fd);
    }
    posix_spawn_file_actions_destroy(&file_actions_);
    posix_spawnattr_destroy(&attributes_);
  }

  // 0 or a positive errno.
  int Prepare(const ProcessOptions& options) {
    const int given[] = {options.input, options.output, options.error};
    for (int fd = 0; fd < 3; ++fd) {
      int error = 0;
      if (given[fd] < 0) {
        error = posix_spawn_file_actions_addopen(&file_actions_, fd, "/dev/null", fd == 0 ? O_RDONLY : O_WRONLY, 0);
      } else {
        // From above 2, where no other of the three is put before it has been copied.
        const int source = fcntl(given[fd], F_DUPFD_CLOEXEC, 3);
        if (source < 0) return errno;
        const int flags = fcntl(source, F_GETFL);
        sources_.push_back({source, flags});
        // Programs do not expect to be told to come again.
        if (flags < 0 || fcntl(source, F_SETFL, flags & ~O_NONBLOCK) != 0) return errno;
        error = posix_spawn_file_actions_adddup2(&file_actions_, source, fd);
      }
      if (error != 0) return error;
    }
    if (const int error = posix_spawn_file_actions_addclosefrom_np(&file_actions_, 3); error != 0) return error;
    if (!options.directory.empty()) {
      const int error = posix_spawn_file_actions_addchdir_np(&file_actions_, options.directory.c_str());
      if (error != 0) return error;
    }
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes_, &none);
    posix_spawnattr_setsigdefault(&attributes_, &all);
    return posix_spawnattr_setflags(&attributes_, static_cast<short>(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                                                     (options.new_session ? POSIX_SPAWN_SETSID : 0)));
  }

  const posix_spawn_file_actions_t* file_actions() const { return &file_actions_; }
  const posix_spawnattr_t* attributes() const { return &attributes_; }
  // What was given blocks from now on; without this it is as it was.
  void set_started() { started_ = true; }

 private:
  struct Source {
    int fd;
    int flags;  // as they were
  };

  posix_spawn_file_actions_t file_actions_;
  posix_spawnattr_t attributes_;
  std::vector<Source> sources_;
  bool started_ = false;
};

class PosixOsImpl : public Os {
 public:
  MonotonicTime Now() override {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return MonotonicTime::FromNanos(now.tv_sec * 1'000'000'000 + now.tv_nsec);
  }

  absl::Time WallNow() override { return absl::Now(); }

  void FillRandom(absl::Span<char> bytes) override {
    while (!bytes.empty()) {
      const ssize_t n = Retry([&] { return getrandom(bytes.data(), bytes.size(), 0); });
      CHECK_GT(n, 0) << "getrandom: errno " << -n;
      bytes.remove_prefix(static_cast<size_t>(n));
    }
  }

  std::unique_ptr<Poller> NewPoller() override { return std::make_unique<PosixPoller>(); }

  std::unique_ptr<WorkerPool> NewWorkerPool(int threads_max, absl::string_view name) override {
    return std::make_unique<PosixWorkerPool>(threads_max, name);
  }

  int Socket(int family, int type) override {
    return Retry([&] { return socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0); });
  }

  int SocketPair(int family, int type, int fds[2]) override {
    return Retry([&] { return socketpair(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds); });
  }

  int AdoptSocket(int fd, int type) override {
    int found_type = 0, family = 0;
    for (const auto& [name, value] : {std::pair(SO_TYPE, &found_type), std::pair(SO_DOMAIN, &family)}) {
      socklen_t length = sizeof(*value);
      if (getsockopt(fd, SOL_SOCKET, name, value, &length) != 0) return -errno;
    }
    if (found_type != type) return -ESOCKTNOSUPPORT;
    if (family != AF_INET && family != AF_INET6 && family != AF_UNIX) return -EAFNOSUPPORT;
    const int error = MakeOurs(fd);
    return error != 0 ? error : family;
  }

  int IsNonBlocking(int fd) override {
    const int flags = fcntl(fd, F_GETFL);
    if (flags < 0) return -errno;
    return (flags & O_NONBLOCK) != 0 ? 1 : 0;
  }

  int SetSocketOption(int fd, int level, int name, int value) override {
    return Retry([&] { return setsockopt(fd, level, name, &value, sizeof(value)); });
  }

  int Bind(int fd, const SocketAddress& address) override {
    return Retry([&] { return bind(fd, address.get(), address.length()); });
  }

  int Listen(int fd, int backlog) override {
    return Retry([&] { return listen(fd, backlog); });
  }

  int Accept(int fd, SocketAddress* peer) override {
    sockaddr_storage address;
    socklen_t length = sizeof(address);
    const int accepted = Retry([&] {
      length = sizeof(address);
      return accept4(fd, reinterpret_cast<sockaddr*>(&address), &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    });
    if (accepted >= 0) {
      if (peer != nullptr) *peer = SocketAddress(reinterpret_cast<sockaddr*>(&address), length);
      return accepted;
    }
    switch (-accepted) {
      // Linux hands out what happened to the connection before it was accepted (accept(2), "Error handling").
      case ENETDOWN:
      case EPROTO:
      case ENOPROTOOPT:
      case EHOSTDOWN:
      case ENONET:
      case EHOSTUNREACH:
      case ENETUNREACH:
        return -ECONNABORTED;
      default:
        return accepted;
    }
  }

  int Connect(int fd, const SocketAddress& address) override {
    if (connect(fd, address.get(), address.length()) == 0) return 0;
    // An interrupted connect goes on by itself; to call again would be refused.
    return errno == EINTR ? -EINPROGRESS : -errno;
  }

  int SocketError(int fd) override {
    int error = 0;
    socklen_t length = sizeof(error);
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0 ? error : errno;
  }

  int LocalAddress(int fd, SocketAddress* address) override { return Name(getsockname, fd, address); }

  int PeerAddress(int fd, SocketAddress* address) override { return Name(getpeername, fd, address); }

  int ShutdownWrite(int fd) override {
    return Retry([&] { return shutdown(fd, SHUT_WR); });
  }

  int64_t Recv(int fd, absl::Span<char> bytes) override {
    return Retry([&]() -> int64_t { return recv(fd, bytes.data(), bytes.size(), 0); });
  }

  int64_t Send(int fd, absl::Span<const iovec> bytes) override {
    if (bytes.size() == 1) {
      // Saves the kernel the copy of a header and of a vector.
      return Retry([&]() -> int64_t { return send(fd, bytes[0].iov_base, bytes[0].iov_len, MSG_NOSIGNAL); });
    }
    msghdr message = {};
    message.msg_iov = const_cast<iovec*>(bytes.data());
    message.msg_iovlen = std::min<size_t>(bytes.size(), IOV_MAX);
    return Retry([&]() -> int64_t { return sendmsg(fd, &message, MSG_NOSIGNAL); });
  }

  int64_t ReceiveFrom(int fd, absl::Span<char> bytes, SocketAddress* from) override {
    sockaddr_storage address;
    iovec piece = {bytes.data(), bytes.size()};
    msghdr message = {};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    const int64_t received = Retry([&]() -> int64_t {
      message.msg_name = &address;
      message.msg_namelen = sizeof(address);
      return recvmsg(fd, &message, MSG_TRUNC);  // the true size, also of a datagram that is cut
    });
    if (received >= 0) *from = SocketAddress(reinterpret_cast<sockaddr*>(&address), message.msg_namelen);
    return received;
  }

  int64_t SendTo(int fd, absl::Span<const char> bytes, const SocketAddress* to) override {
    return Retry([&]() -> int64_t {
      return sendto(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL, to == nullptr ? nullptr : to->get(),
                    to == nullptr ? 0 : to->length());
    });
  }

  int MakePipe(int fds[2]) override {
    return Retry([&] { return pipe2(fds, O_NONBLOCK | O_CLOEXEC); });
  }

  int AdoptPipe(int fd) override {
    struct stat status;
    if (fstat(fd, &status) != 0) return -errno;
    if (!S_ISFIFO(status.st_mode) && !S_ISSOCK(status.st_mode) && !S_ISCHR(status.st_mode)) return -EINVAL;
    return MakeOurs(fd);
  }

  int64_t Read(int fd, absl::Span<char> bytes) override {
    return Retry([&]() -> int64_t { return read(fd, bytes.data(), bytes.size()); });
  }

  int64_t Write(int fd, absl::Span<const iovec> bytes) override {
    return RetryHoldingSigpipeBack([&]() -> int64_t {
      return writev(fd, bytes.data(), static_cast<int>(std::min<size_t>(bytes.size(), IOV_MAX)));
    });
  }

  int OpenFile(const std::string& path) override {
    // O_NONBLOCK: a FIFO shall not wait for its writer. It means nothing to a file's reads.
    return Retry([&] { return open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); });
  }

  int64_t FileBytes(int fd) override {
    struct stat status;
    if (fstat(fd, &status) != 0) return -errno;
    return S_ISREG(status.st_mode) ? static_cast<int64_t>(status.st_size) : -EINVAL;
  }

  int64_t ReadAt(int fd, int64_t offset, absl::Span<char> bytes) override {
    return Retry([&]() -> int64_t { return pread(fd, bytes.data(), bytes.size(), offset); });
  }

  int64_t SendFile(int socket, int file, int64_t offset, int64_t bytes_max) override {
    // There is no MSG_NOSIGNAL for sendfile(2).
    return RetryHoldingSigpipeBack([&]() -> int64_t {
      off_t position = offset;
      return sendfile(socket, file, &position, static_cast<size_t>(bytes_max));
    });
  }

  int Spawn(const ProcessOptions& options, int* pid) override {
    if (options.arguments.empty()) return -EINVAL;
    SpawnActions actions;
    if (const int error = actions.Prepare(options); error != 0) return -error;
    const std::vector<char*> arguments = Pointers(options.arguments);
    std::vector<char*> environment;
    if (options.environment.has_value()) environment = Pointers(*options.environment);
    pid_t child = -1;
    const int error = posix_spawnp(&child, arguments[0], actions.file_actions(), actions.attributes(), arguments.data(),
                                   options.environment.has_value() ? environment.data() : environ);
    if (error != 0) return -error;
    const int process = pidfd_open(child, 0);
    if (process < 0) {
      const int saved = errno;
      if (saved != ESRCH) {  // it was waited for elsewhere, or SIGCHLD is ignored: the number may be another's
        // Nobody could wait for it any more.
        kill(child, SIGKILL);
        Retry([&] { return waitpid(child, nullptr, 0); });
      }
      return -saved;
    }
    actions.set_started();
    *pid = child;
    return process;
  }

  int TakeExitStatus(int process, int* status) override {
    siginfo_t info = {};
    const int waited = Retry([&] { return waitid(P_PIDFD, static_cast<id_t>(process), &info, WEXITED | WNOHANG); });
    if (waited < 0) return waited;
    if (info.si_pid == 0) return -EAGAIN;
    *status = info.si_code == CLD_EXITED ? info.si_status : -info.si_status;
    return 0;
  }

  int SignalProcess(int process, int signo) override {
    return pidfd_send_signal(process, signo, nullptr, 0) == 0 ? 0 : -errno;
  }

  int Close(int fd) override {
    // Not retried: on Linux the descriptor is gone after EINTR too, and its number may already be another's.
    return close(fd) == 0 || errno == EINTR ? 0 : -errno;
  }

  absl::StatusOr<std::vector<SocketAddress>> Resolve(const ResolveQuery& query) override {
    // getaddrinfo cuts a number to 16 bits without a word.
    if (!query.service.empty() && std::all_of(query.service.begin(), query.service.end(), absl::ascii_isdigit)) {
      uint32_t port = 0;
      if (!absl::SimpleAtoi(query.service, &port) || port > 65535) {
        return absl::InvalidArgumentError(absl::StrCat("expected a port from 0 to 65535, got ", query.service));
      }
    }
    if (query.host.find('\0') != std::string::npos || query.service.find('\0') != std::string::npos) {
      return absl::InvalidArgumentError("a host or service name may not hold a NUL");
    }
    addrinfo hints = {};
    hints.ai_family = query.family;
    hints.ai_socktype = query.type;
    hints.ai_flags = query.passive ? AI_PASSIVE : 0;
    addrinfo* found = nullptr;
    const int error = getaddrinfo(query.host.empty() ? nullptr : query.host.c_str(),
                                  query.service.empty() ? "0" : query.service.c_str(), &hints, &found);
    const std::string what = absl::StrCat("host \"", query.host, "\" service \"", query.service, "\"");
    if (error != 0) return ResolveError(error, errno, what);
    const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owned(found, freeaddrinfo);
    std::vector<SocketAddress> addresses;
    for (const addrinfo* info = found; info != nullptr; info = info->ai_next) {
      SocketAddress address(info->ai_addr, info->ai_addrlen);
      if (!address.is_ip() || std::find(addresses.begin(), addresses.end(), address) != addresses.end()) continue;
      addresses.push_back(address);
    }
    if (addresses.empty()) return ResolveError(EAI_NONAME, 0, what);
    return addresses;
  }

  absl::StatusOr<HostName> ResolveHostName(const SocketAddress& address, const HostNameQuery& query) override {
    if (!address.is_ip()) return absl::InvalidArgumentError("only addresses of IP have host names");
    char host[NI_MAXHOST], service[NI_MAXSERV];
    const int flags = (query.numeric_host ? NI_NUMERICHOST : 0) | (query.numeric_service ? NI_NUMERICSERV : 0) |
                      (query.name_required ? NI_NAMEREQD : 0) | (query.datagram ? NI_DGRAM : 0);
    const int error = getnameinfo(address.get(), address.length(), host, sizeof(host), service, sizeof(service), flags);
    if (error != 0) return ResolveError(error, errno, address.ToString());
    return HostName{host, service};
  }

  bool IsSocketFile(const std::string& path) override {
    struct stat status;
    return stat(path.c_str(), &status) == 0 && S_ISSOCK(status.st_mode);
  }

  int Unlink(const std::string& path) override { return unlink(path.c_str()) == 0 ? 0 : -errno; }

  int WatchSignal(int signo, Poller& poller) override { return static_cast<PosixPoller&>(poller).WatchSignal(signo); }
  int UnwatchSignal(int signo, Poller& poller) override {
    return static_cast<PosixPoller&>(poller).UnwatchSignal(signo);
  }
  uint64_t TakeSignals(Poller& poller) override { return static_cast<PosixPoller&>(poller).TakeSignals(); }
  int RaiseSignal(int signo) override { return kill(getpid(), signo) == 0 ? 0 : -errno; }

  absl::StatusOr<std::vector<ListenDescriptor>> TakeListenDescriptors() override {
    std::optional<std::string> values[3];
    constexpr const char* kNames[] = {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"};
    for (int i = 0; i < 3; ++i) {
      if (const char* const value = getenv(kNames[i]); value != nullptr) values[i] = value;
      unsetenv(kNames[i]);
    }
    unsetenv("LISTEN_PIDFDID");  // of newer managers; what it repeats is in LISTEN_PID
    return ListenDescriptors(values[0], values[1], values[2]);
  }

  int64_t DescriptorLimit() override {
    rlimit limit;
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
    constexpr rlim_t kMax = std::numeric_limits<int64_t>::max();
    return static_cast<int64_t>(std::min(limit.rlim_cur, kMax));
  }

  int64_t MemoryLimit() override {
    int64_t limit = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
    // Lines "0::/group" (version 2) and "4:memory:/group" (version 1).
    std::ifstream groups("/proc/self/cgroup");
    for (std::string line; std::getline(groups, line);) {
      const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));
      if (parts.size() != 3) continue;
      const std::string group = parts[2] == "/" ? "" : parts[2];
      if (parts[0] == "0" && parts[1].empty()) {
        limit = std::min(limit, CgroupLimit("/sys/fs/cgroup", group, "memory.max"));
      } else if (const std::vector<std::string> controllers = absl::StrSplit(parts[1], ',');
                 std::find(controllers.begin(), controllers.end(), "memory") != controllers.end()) {
        limit = std::min(limit, CgroupLimit("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes"));
      }
    }
    return limit;
  }

 private:
  // Non-blocking and close-on-exec: 0, or -errno.
  static int MakeOurs(int fd) {
    const int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) return -errno;
    return 0;
  }

  template <class GetName>
  static int Name(GetName get_name, int fd, SocketAddress* address) {
    sockaddr_storage storage;
    socklen_t length = sizeof(storage);
    if (get_name(fd, reinterpret_cast<sockaddr*>(&storage), &length) != 0) return -errno;
    *address = SocketAddress(reinterpret_cast<sockaddr*>(&storage), length);
    return 0;
  }
};

// Reads and writes a few bytes at a time: see IoLimit.
class PosixOsInBits final : public PosixOsImpl {
 public:
  int64_t Recv(int fd, absl::Span<char> bytes) override {
    return PosixOsImpl::Recv(fd, bytes.subspan(0, Limit().Next()));
  }

  int64_t Send(int fd, absl::Span<const iovec> bytes) override { return PosixOsImpl::Send(fd, Some(bytes)); }

  int64_t Read(int fd, absl::Span<char> bytes) override {
    return PosixOsImpl::Read(fd, bytes.subspan(0, Limit().Next()));
  }

  int64_t Write(int fd, absl::Span<const iovec> bytes) override { return PosixOsImpl::Write(fd, Some(bytes)); }

  int64_t ReadAt(int fd, int64_t offset, absl::Span<char> bytes) override {
    return PosixOsImpl::ReadAt(fd, offset, bytes.subspan(0, Limit().Next()));
  }

  int64_t SendFile(int socket, int file, int64_t offset, int64_t bytes_max) override {
    const auto room = static_cast<int64_t>(std::min<size_t>(Limit().Next(), std::numeric_limits<int64_t>::max()));
    return PosixOsImpl::SendFile(socket, file, offset, std::min(bytes_max, room));
  }

 private:
  static std::vector<iovec> Some(absl::Span<const iovec> bytes) {
    size_t room = Limit().Next();
    std::vector<iovec> pieces;
    for (iovec piece : bytes) {
      piece.iov_len = std::min(piece.iov_len, room);
      room -= piece.iov_len;
      if (piece.iov_len > 0) pieces.push_back(piece);
    }
    return pieces;
  }
  static IoLimit& Limit() {
    thread_local IoLimit limit = IoLimit::FromEnvironment();
    return limit;
  }
};

}  // namespace

Os& PosixOs::Get() {
  // Never destroyed: others' thread-locals and statics may still use it.
  static PosixOsImpl& os = IoLimit::FromEnvironment().any() ? *new PosixOsInBits : *new PosixOsImpl;
  return os;
}

}  // namespace troupe
