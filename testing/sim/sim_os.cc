#include "troupe/testing/sim/sim_os.h"

#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <initializer_list>
#include <iterator>
#include <limits>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "glog/logging.h"
#include "troupe/base/errors.h"
#include "troupe/base/os_error.h"
#include "troupe/base/status_macros.h"
#include "troupe/os/io_limit.h"
#include "troupe/testing/sim/sim_datagram.h"
#include "troupe/testing/sim/sim_file.h"
#include "troupe/testing/sim/sim_pipe.h"
#include "troupe/testing/sim/sim_poller.h"
#include "troupe/testing/sim/sim_worker_pool.h"

namespace troupe::testing {
namespace {

SimHostOptions Completed(SimHostOptions options, int number) {
  if (options.name.empty()) options.name = absl::StrCat("host", number);
  if (options.ips.empty()) {
    const int n = number + 1;
    options.ips.push_back(*SocketAddress::FromIp(absl::StrCat("10.0.", n / 256, ".", n % 256), 0));
    if (options.ipv6) options.ips.push_back(*SocketAddress::FromIp(absl::StrCat("fd00::", absl::Hex(n)), 0));
  }
  return options;
}

absl::StatusOr<uint16_t> ServicePort(const std::string& service) {
  if (service.empty()) return 0;
  if (service == "http") return 80;
  if (service == "https") return 443;
  uint32_t port = 0;
  if (!std::all_of(service.begin(), service.end(), absl::ascii_isdigit) || !absl::SimpleAtoi(service, &port) ||
      port > 65535) {
    return absl::InvalidArgumentError(absl::StrCat("no such service, and no port from 0 to 65535: ", service));
  }
  return static_cast<uint16_t>(port);
}

}  // namespace

SimOs::SimOs(uint64_t seed, SimHostOptions options)
    : SimOs(std::make_unique<SimKernel>(seed), nullptr, std::move(options)) {}

SimOs::SimOs(SimKernel& kernel, SimHostOptions options) : SimOs(nullptr, &kernel, std::move(options)) {}

SimOs::SimOs(std::unique_ptr<SimKernel> own, SimKernel* kernel, SimHostOptions options)
    : own_kernel_(std::move(own)),
      kernel_(own_kernel_ != nullptr ? *own_kernel_ : *kernel),
      options_(std::move(options)),
      random_(kernel_.ForkRandom()),
      io_random_(kernel_.ForkRandom()),
      wall_at_zero_(options_.wall_start),
      processes_(kernel_.clock(), kernel_.trace()) {
  const troupe::IoLimit& limit = troupe::IoLimit::FromEnvironment();
  io_limits_ = {.recv_bytes_max = limit.bytes_max(), .send_bytes_max = limit.bytes_max(), .random = limit.random()};
  number_ = kernel_.network().AddHost();
  options_ = Completed(std::move(options_), number_);
  kernel_.network().SetIps(number_, options_.ips);
  kernel_.SetName(options_.name, options_.ips);
}

SimOs::~SimOs() {
  descriptors_.clear();
  kernel_.network().RemoveHost(number_);
  kernel_.RemoveName(options_.name);
}

// ---- faults

void SimOs::FailCall(int64_t k, int error) {
  fail_at_ = k == 0 ? 0 : calls_ + k;
  fail_with_ = error;
  fault_was_injected_ = false;
}

int SimOs::Begin(absl::string_view operation, int fd) {
  ++calls_;
  kernel_.clock().CheckThread();
  kernel_.trace().Add(operation);
  kernel_.trace().Add(number_);
  kernel_.trace().Add(fd);
  int error = 0;
  if (crashed_) {
    error = EIO;
  } else if (calls_ == fail_at_) {
    fault_was_injected_ = true;
    error = fail_with_;
  } else if (fault_) {
    error = fault_(operation, fd);
  }
  kernel_.trace().Add(error);
  return -error;
}

int SimOs::Begin(absl::string_view operation, int fd, SimDescriptor** descriptor) {
  if (const int error = Begin(operation, fd); error != 0) return error;
  *descriptor = Find(fd);
  return *descriptor == nullptr ? -EBADF : 0;
}

template <class D>
int SimOs::Begin(absl::string_view operation, int fd, D** found) {
  SimDescriptor* descriptor = nullptr;
  if (const int error = Begin(operation, fd, &descriptor); error != 0) return error;
  *found = dynamic_cast<D*>(descriptor);
  if (*found != nullptr) return 0;
  if (!std::is_base_of_v<SimNamedSocket, D>) return -EINVAL;
  return dynamic_cast<SimNamedSocket*>(descriptor) == nullptr ? -ENOTSOCK : -EOPNOTSUPP;
}

template <class Result>
Result SimOs::Traced(Result result) {
  kernel_.trace().Add(result);
  return result;
}

void SimOs::Reset(int fd) {
  auto* const socket = dynamic_cast<SimSocket*>(Find(fd));
  CHECK(socket != nullptr) << "no socket: " << fd;
  socket->Reset();
}

void SimOs::HangUp(int fd) {
  SimDescriptor* const descriptor = Find(fd);
  CHECK(descriptor != nullptr) << "not open: " << fd;
  descriptor->HangUp();
}

void SimOs::Crash() {
  CHECK(!crashed_);
  kernel_.trace().Add("Crash");
  kernel_.trace().Add(number_);
  crashed_ = true;
  kernel_.network().SetDown(number_, true);
  kernel_.RemoveName(options_.name);
  signal_watchers_.clear();
  for (const auto& [fd, descriptor] : descriptors_) descriptor->Vanish();
  processes_.Clear();
  descriptors_.clear();
  lowest_free_ = kFirstDescriptor;
}

void SimOs::Restart() {
  CHECK(crashed_);
  CHECK_EQ(pollers_, 0) << "destroy what lived on the machine before it comes back";
  kernel_.trace().Add("Restart");
  kernel_.trace().Add(number_);
  crashed_ = false;
  kernel_.SetName(options_.name, options_.ips);
  kernel_.network().SetDown(number_, false);
}

void SimOs::AddFile(const std::string& path, std::string contents) {
  kernel_.network().AddFile(number_, path, std::move(contents));
}

std::vector<int> SimOs::OpenDescriptors() const {
  std::vector<int> fds;
  for (const auto& [fd, descriptor] : descriptors_) fds.push_back(fd);
  return fds;
}

int SimOs::GetSocketOption(int fd, int level, int name, int* value) {
  auto* const socket = dynamic_cast<SimNamedSocket*>(Find(fd));
  return socket == nullptr ? -EBADF : socket->GetOption(level, name, value);
}

// ---- time, randomness, readiness, threads

MonotonicTime SimOs::Now() { return kernel_.Now(); }

absl::Time SimOs::WallNow() { return wall_at_zero_ + (kernel_.Now() - MonotonicTime()); }

void SimOs::FillRandom(absl::Span<char> bytes) { random_.Fill(bytes); }

std::unique_ptr<Poller> SimOs::NewPoller() {
  if (const int error = Begin("NewPoller"); error != 0) throw StatusError(OsError(error, "a poller cannot be made"));
  ++pollers_;
  return std::make_unique<SimPoller>(*this, kernel_.clock());
}

std::unique_ptr<WorkerPool> SimOs::NewWorkerPool(int threads_max, absl::string_view /*name*/) {
  return std::make_unique<SimWorkerPool>(*this, kernel_.clock(), threads_max, options_.worker_latency);
}

// ---- sockets

SimDescriptor* SimOs::Find(int fd) {
  const auto found = descriptors_.find(fd);
  return found == descriptors_.end() ? nullptr : found->second.get();
}

int SimOs::LowestFree() {
  // No descriptor below the hint is free, so that thousands can be opened in linear time.
  for (auto it = descriptors_.find(lowest_free_); it != descriptors_.end() && it->first == lowest_free_; ++it)
    ++lowest_free_;
  return lowest_free_ < options_.descriptors_max ? lowest_free_ : -EMFILE;
}

int SimOs::Install(std::shared_ptr<SimDescriptor> descriptor) {
  const int fd = LowestFree();
  if (fd >= 0) descriptors_.emplace(fd, std::move(descriptor));
  return fd;
}

int SimOs::InstallPair(std::shared_ptr<SimDescriptor> first, std::shared_ptr<SimDescriptor> second, int fds[2]) {
  const int first_fd = Install(std::move(first));
  if (first_fd < 0) return first_fd;
  const int second_fd = Install(std::move(second));
  if (second_fd < 0) {
    TakeOut(first_fd);
    return second_fd;
  }
  fds[0] = first_fd;
  fds[1] = second_fd;
  return 0;
}

int SimOs::Socket(int family, int type) {
  if (const int error = Begin("Socket"); error != 0) return error;
  if (family != AF_INET && family != AF_UNIX && (family != AF_INET6 || !options_.ipv6)) return -EAFNOSUPPORT;
  if (type == SOCK_DGRAM) {
    return Traced(Install(std::make_unique<SimDatagramSocket>(kernel_.network(), number_, family)));
  }
  if (type != SOCK_STREAM) return -ESOCKTNOSUPPORT;
  return Traced(Install(std::make_unique<SimSocket>(kernel_.network(), number_, family)));
}

int SimOs::SocketPair(int family, int type, int fds[2]) {
  if (const int error = Begin("SocketPair"); error != 0) return error;
  if (family != AF_UNIX) return -EOPNOTSUPP;
  if (type == SOCK_DGRAM) {
    auto [first, second] = SimDatagramSocket::NewPair(kernel_.network(), number_);
    return InstallPair(std::move(first), std::move(second), fds);
  }
  if (type != SOCK_STREAM) return -ESOCKTNOSUPPORT;
  auto [first, second] = kernel_.network().NewPair(number_);
  return InstallPair(std::move(first), std::move(second), fds);
}

int SimOs::AdoptSocket(int fd, int type) {
  SimNamedSocket* socket = nullptr;
  if (const int error = Begin("AdoptSocket", fd, &socket); error != 0) return error;
  return type == socket->type() ? socket->family() : -ESOCKTNOSUPPORT;
}

int SimOs::IsNonBlocking(int fd) {
  SimDescriptor* descriptor = nullptr;
  if (const int error = Begin("IsNonBlocking", fd, &descriptor); error != 0) return error;
  return 1;  // there are no others
}

int SimOs::SetSocketOption(int fd, int level, int name, int value) {
  SimNamedSocket* socket = nullptr;
  if (const int error = Begin("SetSocketOption", fd, &socket); error != 0) return error;
  return socket->SetOption(level, name, value);
}

int SimOs::Bind(int fd, const SocketAddress& address) {
  SimNamedSocket* socket = nullptr;
  if (const int error = Begin("Bind", fd, &socket); error != 0) return error;
  return Traced(socket->Bind(address));
}

int SimOs::Listen(int fd, int backlog) {
  SimSocket* socket = nullptr;
  if (const int error = Begin("Listen", fd, &socket); error != 0) return error;
  return Traced(socket->Listen(backlog));
}

int SimOs::Accept(int fd, SocketAddress* peer) {
  SimSocket* socket = nullptr;
  if (const int error = Begin("Accept", fd, &socket); error != 0) return error;
  // As in Linux the descriptor is found first: without one the connection stays in the queue.
  if (const int free = LowestFree(); free < 0) return free;
  int error = 0;
  std::unique_ptr<SimSocket> accepted = socket->Accept(peer, &error);
  return Traced(accepted == nullptr ? -error : Install(std::move(accepted)));
}

int SimOs::Connect(int fd, const SocketAddress& address) {
  SimNamedSocket* socket = nullptr;
  if (const int error = Begin("Connect", fd, &socket); error != 0) return error;
  return Traced(socket->Connect(address));
}

int SimOs::SocketError(int fd) {
  SimNamedSocket* socket = nullptr;
  if (const int error = Begin("SocketError", fd, &socket); error != 0) return -error;
  return Traced(socket->TakeError());
}

int SimOs::LocalAddress(int fd, SocketAddress* address) {
  SimNamedSocket* socket = nullptr;
  if (const int error = Begin("LocalAddress", fd, &socket); error != 0) return error;
  return socket->LocalAddress(address);
}

int SimOs::PeerAddress(int fd, SocketAddress* address) {
  SimNamedSocket* socket = nullptr;
  if (const int error = Begin("PeerAddress", fd, &socket); error != 0) return error;
  return socket->PeerAddress(address);
}

int SimOs::ShutdownWrite(int fd) {
  SimNamedSocket* socket = nullptr;
  if (const int error = Begin("ShutdownWrite", fd, &socket); error != 0) return error;
  return Traced(socket->ShutdownWrite());
}

size_t SimOs::IoLimit(size_t bytes_max) {
  if (bytes_max == 0) return std::numeric_limits<size_t>::max();
  return io_limits_.random ? 1 + io_random_.Below(bytes_max) : bytes_max;
}

int64_t SimOs::Recv(int fd, absl::Span<char> bytes) {
  SimNamedSocket* socket = nullptr;
  if (const int error = Begin("Recv", fd, &socket); error != 0) return error;
  return Traced(socket->Recv(bytes, IoLimit(io_limits_.recv_bytes_max)));
}

int64_t SimOs::Send(int fd, absl::Span<const iovec> bytes) {
  SimNamedSocket* socket = nullptr;
  if (const int error = Begin("Send", fd, &socket); error != 0) return error;
  return Traced(socket->Send(bytes, IoLimit(io_limits_.send_bytes_max)));
}

int SimOs::Close(int fd) {
  const int error = Begin("Close", fd);
  return TakeOut(fd) == nullptr ? -EBADF : error;
}

std::shared_ptr<SimDescriptor> SimOs::TakeOut(int fd) {
  auto node = descriptors_.extract(fd);
  if (node.empty()) return nullptr;
  lowest_free_ = std::min(lowest_free_, fd);
  return std::move(node.mapped());
}

// ---- datagrams, pipes, files, processes

int64_t SimOs::ReceiveFrom(int fd, absl::Span<char> bytes, SocketAddress* from) {
  SimDatagramSocket* socket = nullptr;
  if (const int error = Begin("ReceiveFrom", fd, &socket); error != 0) return error;
  return Traced(socket->ReceiveFrom(bytes, from));
}

int64_t SimOs::SendTo(int fd, absl::Span<const char> bytes, const SocketAddress* to) {
  SimDatagramSocket* socket = nullptr;
  if (const int error = Begin("SendTo", fd, &socket); error != 0) return error;
  return Traced(socket->SendTo(bytes, to));
}

int SimOs::MakePipe(int fds[2]) {
  if (const int error = Begin("MakePipe"); error != 0) return error;
  auto [reader, writer] = SimPipeEnd::NewPair();
  return Traced(InstallPair(std::move(reader), std::move(writer), fds));
}

int SimOs::AdoptPipe(int fd) {
  SimDescriptor* descriptor = nullptr;
  if (const int error = Begin("AdoptPipe", fd, &descriptor); error != 0) return error;
  return descriptor->is_pipe_like() ? 0 : -EINVAL;
}

int64_t SimOs::Read(int fd, absl::Span<char> bytes) {
  SimDescriptor* descriptor = nullptr;
  if (const int error = Begin("Read", fd, &descriptor); error != 0) return error;
  return Traced(descriptor->Read(bytes.subspan(0, IoLimit(io_limits_.recv_bytes_max))));
}

int64_t SimOs::Write(int fd, absl::Span<const iovec> bytes) {
  SimDescriptor* descriptor = nullptr;
  if (const int error = Begin("Write", fd, &descriptor); error != 0) return error;
  return Traced(descriptor->Write(bytes, IoLimit(io_limits_.send_bytes_max)));
}

int SimOs::OpenFile(const std::string& path) {
  if (const int error = Begin("OpenFile"); error != 0) return error;
  std::shared_ptr<const std::string> contents;
  if (const int error = kernel_.network().OpenFile(number_, path, &contents); error != 0) return error;
  return Traced(Install(std::make_shared<SimFile>(std::move(contents))));
}

int64_t SimOs::FileBytes(int fd) {
  SimFile* file = nullptr;
  if (const int error = Begin("FileBytes", fd, &file); error != 0) return error;
  return Traced(file->bytes());
}

int64_t SimOs::ReadAt(int fd, int64_t offset, absl::Span<char> bytes) {
  SimFile* file = nullptr;
  if (const int error = Begin("ReadAt", fd, &file); error != 0) return error;
  return Traced(file->ReadAt(offset, bytes.subspan(0, IoLimit(io_limits_.recv_bytes_max))));
}

int64_t SimOs::SendFile(int socket, int file, int64_t offset, int64_t bytes_max) {
  SimSocket* to = nullptr;
  if (const int error = Begin("SendFile", socket, &to); error != 0) return error;
  auto* const from = dynamic_cast<SimFile*>(Find(file));
  if (from == nullptr) return Find(file) == nullptr ? -EBADF : -EINVAL;
  if (offset < 0 || bytes_max < 0) return -EINVAL;
  const absl::string_view part = from->At(offset, static_cast<size_t>(bytes_max));
  if (part.empty()) return 0;
  const iovec piece = {const_cast<char*>(part.data()), part.size()};
  return Traced(to->Send(absl::MakeConstSpan(&piece, 1), IoLimit(io_limits_.send_bytes_max)));
}

void SimOs::AddProgram(const std::string& name, std::function<void(SimProcess&)> run) {
  class Program final : public SimProgram {
   public:
    explicit Program(std::function<void(SimProcess&)> run) : run_(std::move(run)) {}
    void Run(SimProcess& process) override { run_(process); }

   private:
    const std::function<void(SimProcess&)> run_;
  };
  AddProgram(name, [run = std::move(run)] { return std::make_unique<Program>(run); });
}

int SimOs::Spawn(const ProcessOptions& options, int* pid) {
  if (const int error = Begin("Spawn"); error != 0) return error;
  if (options.arguments.empty()) return -EINVAL;
  std::vector<std::shared_ptr<SimDescriptor>> descriptors;
  for (const int fd : {options.input, options.output, options.error}) {
    if (fd < 0) {
      descriptors.push_back(SimProcesses::NewNullDevice());
    } else if (fd < kFirstDescriptor) {
      descriptors.push_back(processes_.NewConsole());
    } else {
      const auto found = descriptors_.find(fd);
      if (found == descriptors_.end()) return -EBADF;
      descriptors.push_back(found->second);
    }
  }
  if (const int free = LowestFree(); free < 0) return free;
  std::shared_ptr<SimProcess> process = processes_.Start(options, std::move(descriptors));
  if (process == nullptr) return Traced(-ENOENT);
  *pid = process->pid();
  return Traced(Install(std::move(process)));
}

int SimOs::TakeExitStatus(int fd, int* status) {
  SimProcess* process = nullptr;
  if (const int error = Begin("TakeExitStatus", fd, &process); error != 0) return error;
  return Traced(process->TakeExitStatus(status));
}

int SimOs::SignalProcess(int fd, int signo) {
  SimProcess* process = nullptr;
  if (const int error = Begin("SignalProcess", fd, &process); error != 0) return error;
  return Traced(process->Signal(signo));
}

// ---- names, files

absl::StatusOr<std::vector<SocketAddress>> SimOs::Resolve(const ResolveQuery& query) {
  if (const int error = Begin("Resolve"); error != 0) {
    return absl::UnavailableError(absl::StrCat("cannot resolve ", query.host, ": ", ErrnoText(-error)));
  }
  if (query.family != AF_UNSPEC && query.family != AF_INET && query.family != AF_INET6) {
    return absl::InvalidArgumentError(absl::StrCat("address family not supported: ", query.family));
  }
  if (absl::StrContains(query.host, '\0')) return absl::InvalidArgumentError("a host name may not hold a NUL");
  ASSIGN_OR_RETURN(const uint16_t port, ServicePort(query.service));
  std::vector<SocketAddress> found;
  const auto find_ips = [&](std::initializer_list<const char*> ips) {
    for (const char* ip : ips) found.push_back(*SocketAddress::FromIp(ip, port));
  };
  if (query.host.empty() && query.passive) {
    find_ips({"0.0.0.0", "::"});
  } else if (query.host.empty() || absl::EqualsIgnoreCase(query.host, "localhost")) {
    find_ips({"::1", "127.0.0.1"});
  } else if (absl::StatusOr<SocketAddress> numeric = SocketAddress::FromIp(query.host, port); numeric.ok()) {
    found.push_back(*numeric);
  } else {
    ASSIGN_OR_RETURN(const std::vector<SocketAddress> addresses, kernel_.LookUp(query.host));
    for (const SocketAddress& address : addresses) found.push_back(*SocketAddress::FromIp(address.host(), port));
  }
  std::vector<SocketAddress> addresses;
  for (const SocketAddress& address : found) {
    if (query.family != AF_UNSPEC && address.family() != query.family) continue;
    if (std::find(addresses.begin(), addresses.end(), address) == addresses.end()) addresses.push_back(address);
  }
  if (addresses.empty()) {
    return absl::NotFoundError(absl::StrCat("no address of the family asked for: ", query.host));
  }
  return addresses;
}

absl::StatusOr<HostName> SimOs::ResolveHostName(const SocketAddress& address, const HostNameQuery& query) {
  if (const int error = Begin("ResolveHostName"); error != 0) {
    return absl::UnavailableError(absl::StrCat("cannot resolve ", address.ToString(), ": ", ErrnoText(-error)));
  }
  if (!address.is_ip()) return absl::InvalidArgumentError("only addresses of IP have host names");
  HostName found = {address.host(), absl::StrCat(address.port())};
  if (!query.numeric_service && address.port() == 80) found.service = "http";
  if (!query.numeric_service && address.port() == 443) found.service = "https";
  if (query.numeric_host) return found;
  const std::string name = address.is_loopback() ? "localhost" : kernel_.NameOf(address);
  if (!name.empty()) {
    found.host = name;
  } else if (query.name_required) {
    return absl::NotFoundError(absl::StrCat("no name of ", address.ToString()));
  }
  return found;
}

bool SimOs::IsSocketFile(const std::string& path) { return kernel_.network().IsSocketFile(number_, path); }

int SimOs::Unlink(const std::string& path) {
  if (const int error = Begin("Unlink"); error != 0) return error;
  return kernel_.network().Unlink(number_, path);
}

// ---- signals

int SimOs::WatchSignal(int signo, Poller& poller) {
  if (const int error = Begin("WatchSignal", signo); error != 0) return error;
  if (signo < 1 || signo > 63) return -EINVAL;
  if (signo == SIGKILL || signo == SIGSTOP) return -EPERM;
  const auto [entry, added] = signal_watchers_.emplace(signo, &static_cast<SimPoller&>(poller));
  return added || entry->second == &poller ? 0 : -EBUSY;
}

int SimOs::UnwatchSignal(int signo, Poller& poller) {
  const auto found = signal_watchers_.find(signo);
  if (found == signal_watchers_.end() || found->second != &poller) return -ENOENT;
  signal_watchers_.erase(found);
  return 0;
}

uint64_t SimOs::TakeSignals(Poller& poller) { return std::exchange(static_cast<SimPoller&>(poller).signals_, 0); }

int SimOs::RaiseSignal(int signo) {
  if (signo < 0 || signo > 64) return -EINVAL;
  if (crashed_) return -EIO;
  if (signo == 0) return 0;
  kernel_.trace().Add("RaiseSignal");
  kernel_.trace().Add(signo);
  const auto found = signal_watchers_.find(signo);
  if (found == signal_watchers_.end()) {
    unwatched_signals_.push_back(signo);
    return 0;
  }
  found->second->signals_ |= uint64_t{1} << signo;
  found->second->Wake();
  return 0;
}

// ---- what a service manager handed over

absl::StatusOr<std::vector<ListenDescriptor>> SimOs::TakeListenDescriptors() {
  if (const int error = Begin("TakeListenDescriptors"); error != 0) {
    return absl::InvalidArgumentError(absl::StrCat("no descriptors were handed over: ", ErrnoText(-error)));
  }
  return std::exchange(handed_over_, {});
}

void SimOs::ForgetPoller(SimPoller& poller) {
  --pollers_;
  for (auto it = signal_watchers_.begin(); it != signal_watchers_.end();) {
    it = it->second == &poller ? signal_watchers_.erase(it) : std::next(it);
  }
}

}  // namespace troupe::testing
