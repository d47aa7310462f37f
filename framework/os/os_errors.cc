#include "troupe/os/os_errors.h"

#include <algorithm>
#include <cerrno>
#include <iterator>

#include "glog/logging.h"

namespace troupe {
namespace {

// ---- readiness, threads: epoll_create1(2), eventfd(2), epoll_ctl(2), pthread_create(3)
constexpr int kNewPoller[] = {EMFILE, ENFILE, ENOMEM};
constexpr int kPollerAdd[] = {EBADF, EEXIST, ENOMEM, ENOSPC, EPERM};
// A user closed the descriptor before that. Memory is what adding takes only.
constexpr int kPollerChange[] = {EBADF, ENOENT};
constexpr int kStartThread[] = {EAGAIN};

// ---- sockets
constexpr int kSocket[] = {EACCES, EAFNOSUPPORT, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPROTONOSUPPORT};
constexpr int kSocketPair[] = {EAFNOSUPPORT, EMFILE, ENFILE, ENOMEM, EOPNOTSUPP, EPROTONOSUPPORT};
constexpr int kAdoptSocket[] = {EAFNOSUPPORT, EBADF, ENOTSOCK, ESOCKTNOSUPPORT};
constexpr int kIsNonBlocking[] = {EBADF};
constexpr int kSetSocketOption[] = {EINVAL, ENOMEM, ENOPROTOOPT, EOPNOTSUPP};
constexpr int kBind[] = {EACCES, EADDRINUSE,   EADDRNOTAVAIL, EAFNOSUPPORT, EINVAL, ELOOP,
                         EROFS,  ENAMETOOLONG, ENOENT,        ENOMEM,       ENOTDIR};
constexpr int kListen[] = {EADDRINUSE, EINVAL, ENOMEM, EOPNOTSUPP};
// What was pending at the connection before it was accepted is ECONNABORTED: PosixOs sees to that.
constexpr int kAccept[] = {EAGAIN, ECONNABORTED, EINVAL, EMFILE, ENFILE, ENOBUFS, ENOMEM, EOPNOTSUPP, EPERM};
constexpr int kConnect[] = {EACCES,       EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT, EAGAIN,   ECONNREFUSED,
                            EHOSTUNREACH, EINVAL,     ELOOP,         ENETUNREACH,  ENOBUFS,  ENOENT,
                            ENOMEM,       ENOTDIR,    EPERM,         EPROTOTYPE,   ETIMEDOUT};
constexpr int kSocketError[] = {EACCES,       ECONNREFUSED, ECONNRESET,  EHOSTDOWN,
                                EHOSTUNREACH, ENETDOWN,     ENETUNREACH, ETIMEDOUT};
constexpr int kLocalAddress[] = {ENOBUFS};
constexpr int kPeerAddress[] = {ENOBUFS, ENOTCONN};
constexpr int kShutdownWrite[] = {ENOTCONN};

// ---- bytes
constexpr int kRecv[] = {EAGAIN, ECONNRESET, EHOSTUNREACH, ENETUNREACH, ENOMEM, ENOTCONN, EPIPE, ETIMEDOUT};
constexpr int kSend[] = {EAGAIN, ECONNRESET, EHOSTUNREACH, ENETDOWN, ENETUNREACH, ENOBUFS,
                         ENOMEM, ENOTCONN,   EPERM,        EPIPE,    ETIMEDOUT};
constexpr int kClose[] = {EIO};

// ---- datagrams
constexpr int kReceiveFrom[] = {EAGAIN, ECONNREFUSED, ECONNRESET, EHOSTUNREACH, ENETDOWN, ENETUNREACH, ENOBUFS, ENOMEM};
constexpr int kSendTo[] = {EACCES,       EAGAIN, EAFNOSUPPORT, ECONNREFUSED, ECONNRESET,  EDESTADDRREQ,
                           EHOSTUNREACH, EINVAL, EMSGSIZE,     ENETDOWN,     ENETUNREACH, ENOBUFS,
                           ENOENT,       ENOMEM, ENOTCONN,     EPERM,        EPIPE};

// ---- pipes: pipe(2), fstat(2), fcntl(2), read(2), writev(2), and what sockets and terminals among them give
constexpr int kMakePipe[] = {EMFILE, ENFILE, ENOMEM};
constexpr int kAdoptPipe[] = {EBADF, EINVAL, EIO, ENOMEM};
constexpr int kRead[] = {EAGAIN, ECONNRESET, EIO, ENOMEM, ETIMEDOUT};
constexpr int kWrite[] = {EAGAIN, ECONNRESET, EIO, ENOBUFS, ENOMEM, ENOSPC, EPERM, EPIPE, ETIMEDOUT};

// ---- files: open(2), fstat(2), pread(2), sendfile(2)
constexpr int kOpenFile[] = {EACCES, EIO,    ELOOP,   EMFILE, ENAMETOOLONG, ENFILE, ENODEV,
                             ENOENT, ENOMEM, ENOTDIR, ENXIO,  EOVERFLOW,    EPERM};
constexpr int kFileBytes[] = {EBADF, EINVAL, EIO, ENOMEM, EOVERFLOW};
constexpr int kReadAt[] = {EBADF, EINVAL, EIO, EISDIR, ENOMEM};
constexpr int kSendFile[] = {EAGAIN, EBADF,  ECONNRESET, EHOSTUNREACH, EINVAL,    EIO,   ENETUNREACH, ENOBUFS,
                             ENOMEM, ENOSYS, ENOTCONN,   EOPNOTSUPP,   EOVERFLOW, EPIPE, ETIMEDOUT};

// ---- processes: posix_spawn(3), fork(2), execve(2), pidfd_open(2), waitid(2), pidfd_send_signal(2)
constexpr int kSpawn[] = {E2BIG,        EACCES, EAGAIN, EBADF,   EINVAL, EIO,     EISDIR, ELOOP,  EMFILE,
                          ENAMETOOLONG, ENFILE, ENOENT, ENOEXEC, ENOMEM, ENOTDIR, EPERM,  ETXTBSY};
constexpr int kTakeExitStatus[] = {EAGAIN, ECHILD};
constexpr int kSignalProcess[] = {EINVAL, EPERM, ESRCH};

// ---- names: errno beside EAI_SYSTEM, getaddrinfo(3)
constexpr int kResolve[] = {EAGAIN, EIO, EMFILE, ENFILE, ENOMEM};

// ---- unlink(2), sigaction(2) and who may watch
constexpr int kUnlink[] = {EACCES, EBUSY, EIO, EISDIR, ELOOP, ENAMETOOLONG, ENOENT, ENOMEM, ENOTDIR, EPERM, EROFS};
constexpr int kTakeListenDescriptors[] = {EBADF};
constexpr int kWatchSignal[] = {EBUSY, EINVAL, EPERM};

constexpr OsCallErrors kAll[] = {
    {"Poller.Add", kPollerAdd},
    {"Poller.Modify", kPollerChange},
    {"Poller.Remove", kPollerChange},
    {"Poller.Wait", {}},
    {"Poller.Wake", {}},
    {"StartThread", kStartThread},
    {"Now", {}},
    {"WallNow", {}},
    {"FillRandom", {}},
    {"NewPoller", kNewPoller},
    {"NewWorkerPool", {}},
    {"Socket", kSocket},
    {"SocketPair", kSocketPair},
    {"AdoptSocket", kAdoptSocket},
    {"IsNonBlocking", kIsNonBlocking},
    {"SetSocketOption", kSetSocketOption},
    {"Bind", kBind},
    {"Listen", kListen},
    {"Accept", kAccept},
    {"Connect", kConnect},
    {"SocketError", kSocketError},
    {"LocalAddress", kLocalAddress},
    {"PeerAddress", kPeerAddress},
    {"ShutdownWrite", kShutdownWrite},
    {"Recv", kRecv},
    {"Send", kSend},
    {"Close", kClose},
    {"ReceiveFrom", kReceiveFrom},
    {"SendTo", kSendTo},
    {"MakePipe", kMakePipe},
    {"AdoptPipe", kAdoptPipe},
    {"Read", kRead},
    {"Write", kWrite},
    {"OpenFile", kOpenFile},
    {"FileBytes", kFileBytes},
    {"ReadAt", kReadAt},
    {"SendFile", kSendFile},
    {"Spawn", kSpawn},
    {"TakeExitStatus", kTakeExitStatus},
    {"SignalProcess", kSignalProcess},
    {"Resolve", kResolve},
    {"ResolveHostName", kResolve},
    {"IsSocketFile", {}},  // false where it cannot be told
    {"Unlink", kUnlink},
    {"WatchSignal", kWatchSignal},
    {"UnwatchSignal", {}},  // of what is watched
    {"TakeSignals", {}},
    {"RaiseSignal", {}},  // for this process
    {"TakeListenDescriptors", kTakeListenDescriptors},
    {"DescriptorLimit", {}},
    {"MemoryLimit", {}},
};

}  // namespace

absl::Span<const OsCallErrors> AllOsErrors() { return kAll; }

absl::Span<const int> OsErrorsOf(absl::string_view call) {
  const auto found = std::find_if(std::begin(kAll), std::end(kAll), [&](const auto& row) { return row.call == call; });
  CHECK(found != std::end(kAll)) << "os_errors.cc does not list " << call;
  return found->errors;
}

}  // namespace troupe
