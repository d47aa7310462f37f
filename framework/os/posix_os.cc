#include "troupe/os/posix_os.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <fstream>
#include <iterator>
#include <limits>
#include <memory>
#include <utility>

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

absl::Status ResolveError(int error, int saved_errno, const ResolveQuery& query) {
  const std::string text = absl::StrCat("cannot resolve host \"", query.host, "\" service \"", query.service,
                                        "\": ", error == EAI_SYSTEM ? strerror(saved_errno) : gai_strerror(error));
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
    const int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) return -errno;
    return family;
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
    if (error != 0) return ResolveError(error, errno, query);
    const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owned(found, freeaddrinfo);
    std::vector<SocketAddress> addresses;
    for (const addrinfo* info = found; info != nullptr; info = info->ai_next) {
      SocketAddress address(info->ai_addr, info->ai_addrlen);
      if (!address.is_ip() || std::find(addresses.begin(), addresses.end(), address) != addresses.end()) continue;
      addresses.push_back(address);
    }
    if (addresses.empty()) return ResolveError(EAI_NONAME, 0, query);
    return addresses;
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

  int64_t Send(int fd, absl::Span<const iovec> bytes) override {
    size_t room = Limit().Next();
    std::vector<iovec> pieces;
    for (iovec piece : bytes) {
      piece.iov_len = std::min(piece.iov_len, room);
      room -= piece.iov_len;
      if (piece.iov_len > 0) pieces.push_back(piece);
    }
    return PosixOsImpl::Send(fd, pieces);
  }

 private:
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
