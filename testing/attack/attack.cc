// One hostile connection after the other against an echo server over real sockets, with honest clients beside it: what
// the server's resident memory grows by, and what becomes of the honest clients' calls and of their p99.
//
//   bazel run -c opt //testing/attack -- --seconds=3
//
// Three processes: the server, the attacker, and the honest clients, who also watch the server's memory. The exit code
// is 1 when an honest call failed, or memory grew by more than --growth_mib_max. Times are printed and not judged: that
// needs a machine of one's own.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "echo/v1/echo.troupe.h"
#include "troupe/async/run.h"
#include "troupe/async/sleep.h"
#include "troupe/async/task.h"
#include "troupe/base/status_macros.h"
#include "troupe/loop/event_loop.h"
#include "troupe/rpc/call.h"
#include "troupe/rpc/stream.h"
#include "troupe/service/channel.h"
#include "troupe/service/server.h"
#include "troupe/wire/native/frame.h"
#include "troupe/wire/native/testing_peer.h"

ABSL_FLAG(double, seconds, 2, "of each attack, and of the measurement before it");
ABSL_FLAG(int, clients, 4, "honest clients, each on a connection of its own");
ABSL_FLAG(double, growth_mib_max, 8, "more than this is a failure; 0: not judged, as under a sanitizer");

namespace {

using troupe::native::FrameBytes;

constexpr char kEcho[] = "/echo.v1.Echo/Echo";
constexpr char kCollect[] = "/echo.v1.Echo/Collect";

// ---------------------------------------------------------------------------------------------------- the server

class EchoService final : public echo::v1::EchoActor {
 public:
  troupe::Task<absl::Status> Echo(const echo::v1::EchoRequest& request, echo::v1::EchoResponse& response,
                                  troupe::Call&) override {
    if (request.message() == "much") {
      co_await troupe::Sleep(absl::Milliseconds(1));
      response.set_message(std::string(256 << 10, 'm'));
    } else {
      response.set_message(request.message());
    }
    co_return absl::OkStatus();
  }
  troupe::Task<absl::Status> Collect(troupe::Reader<echo::v1::CollectRequest> requests,
                                     echo::v1::CollectResponse& response, troupe::Call&) override {
    echo::v1::CollectRequest request;
    while (true) {
      const bool more = co_await requests.Read(request);
      if (!more) break;
      response.add_messages(request.message());
    }
    co_return absl::OkStatus();
  }
};

troupe::Task<absl::Status> Serve(troupe::EventLoop& loop, int port_pipe) {
  troupe::Server server(loop, {.listen = {"127.0.0.1:0"}});
  server.Add<EchoService>();
  CO_RETURN_IF_ERROR(co_await server.Start());
  const uint16_t port = server.addresses()[0].port();
  if (write(port_pipe, &port, sizeof(port)) != sizeof(port)) co_return absl::InternalError("nobody wants the port");
  close(port_pipe);
  co_return co_await server.ServeForever();
}

// ---------------------------------------------------------------------------------------------------- the attacker

// A blocking socket that gives up when the server has closed it.
class Hostile {
 public:
  explicit Hostile(uint16_t port) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    const int small = 4096, on = 1;
    setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    const timeval patience = {.tv_sec = 0, .tv_usec = 100000};
    setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    open_ = connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  }
  ~Hostile() { close(fd_); }
  bool Send(absl::Span<const char> bytes) {
    while (open_ && !bytes.empty()) {
      const ssize_t sent = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent < 0 && errno == EAGAIN) continue;  // it does not read us either
      if (sent < 0) {
        open_ = false;
      } else {
        bytes.remove_prefix(static_cast<size_t>(sent));
      }
    }
    return open_;
  }
  // Until the server says something, or so many milliseconds.
  void WaitToRead(int milliseconds) {
    pollfd waiting = {.fd = fd_, .events = POLLIN, .revents = 0};
    poll(&waiting, 1, milliseconds);
    Read();
  }
  // Throws away what the server says.
  void Read() {
    char bytes[65536];
    while (recv(fd_, bytes, sizeof(bytes), MSG_DONTWAIT) > 0) {
    }
  }

 private:
  const int fd_;
  bool open_ = false;
};

std::string Request(size_t size) {
  echo::v1::EchoRequest request;
  request.set_message(std::string(size, 'x'));
  return request.SerializeAsString();
}

void CallAndNeverRead(uint16_t port) {
  Hostile hostile(port);
  const std::string request = Request(1000);
  hostile.Send(FrameBytes().Preface().Credit(0, 1 << 30));
  for (uint32_t i = 0; i < 100000; ++i) {
    if (!hostile.Send(FrameBytes().Call(1 + 2 * i, 0, i == 0 ? kEcho : "", request))) return;
  }
  pause();
}

// Handlers that wait before they answer: none has answered when the last call comes.
void AskForMuchAndNeverRead(uint16_t port) {
  Hostile hostile(port);
  FrameBytes bytes = FrameBytes().Preface({{troupe::native::FeatureId::kCallCreditBytes, 1 << 30},
                                           {troupe::native::FeatureId::kConnectionCreditBytes, 1 << 30}});
  echo::v1::EchoRequest much;
  much.set_message("much");
  for (uint32_t i = 0; i < 1000; ++i) bytes.Call(1 + 2 * i, 0, i == 0 ? kEcho : "", much.SerializeAsString());
  hostile.Send(bytes);
  pause();
}

void SendHalfMessages(uint16_t port) {
  Hostile hostile(port);
  hostile.Send(FrameBytes().Preface());
  const std::string half(2000, 'x');
  for (uint32_t i = 0; i < 1000; ++i) {
    hostile.Send(FrameBytes().Open(1 + 2 * i, 0, i == 0 ? kEcho : "").First(1 + 2 * i, 4000, half));
    hostile.Read();
  }
  pause();
}

void Trickle(uint16_t port) {
  Hostile hostile(port);
  const std::string call = FrameBytes().Preface().Call(1, 0, kEcho, Request(100000)).str();
  for (const char byte : call) {
    if (!hostile.Send(absl::MakeConstSpan(&byte, 1))) return;
    hostile.WaitToRead(1000);
  }
}

void ResetEverything(uint16_t port) {
  Hostile hostile(port);
  hostile.Send(FrameBytes().Preface());
  for (uint32_t i = 0; i < 1000000; ++i) {
    const uint32_t id = 1 + 2 * i;
    hostile.Read();
    if (!hostile.Send(FrameBytes().Open(id, 0, i == 0 ? kCollect : "").Reset(id, absl::CancelledError("")))) return;
  }
}

struct Attack {
  const char* name;
  void (*run)(uint16_t port);
};
constexpr Attack kAttacks[] = {
    {"100,000 calls, never reads", CallAndNeverRead},
    {"1,000 replies of 256 KiB, unread", AskForMuchAndNeverRead},
    {"1,000 calls, half a message each", SendHalfMessages},
    {"a byte a second", Trickle},
    {"resets everything it opens", ResetEverything},
};

// Until it is killed: whoever is thrown out comes again.
pid_t StartAttack(const Attack& attack, uint16_t port) {
  const pid_t child = fork();
  if (child != 0) return child;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  while (true) {
    attack.run(port);
  }
}

// ---------------------------------------------------------------------------------------------------- honest clients

double ResidentMib(pid_t process) {
  std::ifstream status(absl::StrCat("/proc/", process, "/status"));
  for (std::string line; std::getline(status, line);) {
    absl::string_view rest = line;
    int64_t kib = 0;
    if (absl::ConsumePrefix(&rest, "VmRSS:") && absl::SimpleAtoi(absl::StripSuffix(rest, " kB"), &kib)) {
      return static_cast<double>(kib) / 1024;
    }
  }
  return 0;
}

struct Measured {
  std::vector<double> micros;  // of calls that were answered
  int failed = 0;
  double resident_mib_max = 0;

  double Percentile(double part) {
    if (micros.empty()) return 0;
    std::sort(micros.begin(), micros.end());
    return micros[std::min(micros.size() - 1, static_cast<size_t>(part * static_cast<double>(micros.size())))];
  }
};

troupe::Task<void> CallUntil(troupe::EventLoop& loop, troupe::Channel& channel, troupe::MonotonicTime end,
                             Measured& measured) {
  echo::v1::EchoStub stub(channel);
  echo::v1::EchoRequest request;
  request.set_message(std::string(100, 'h'));
  while (true) {
    const troupe::MonotonicTime start = loop.Time();
    if (start >= end) break;
    absl::StatusOr<echo::v1::EchoResponse> got = co_await stub.Echo(request);
    if (got.ok() && got->message() == request.message()) {
      measured.micros.push_back(absl::ToDoubleMicroseconds(loop.Time() - start));
    } else {
      ++measured.failed;
    }
    co_await troupe::Sleep(absl::Milliseconds(1));
  }
}

troupe::Task<void> Measure(troupe::EventLoop& loop, std::vector<std::unique_ptr<troupe::Channel>>& channels,
                           pid_t server, Measured& measured) {
  const troupe::MonotonicTime end = loop.Time() + absl::Seconds(absl::GetFlag(FLAGS_seconds));
  std::vector<troupe::TaskHandle<void>> calling;
  for (auto& channel : channels) calling.push_back(loop.CreateTask(CallUntil(loop, *channel, end, measured)));
  while (loop.Time() < end) {
    measured.resident_mib_max = std::max(measured.resident_mib_max, ResidentMib(server));
    co_await troupe::Sleep(absl::Milliseconds(20));
  }
  for (const auto& each : calling) co_await each;
}

troupe::Task<absl::Status> AttackAll(troupe::EventLoop& loop, uint16_t port, pid_t server) {
  std::vector<std::unique_ptr<troupe::Channel>> channels;
  for (int i = 0; i < absl::GetFlag(FLAGS_clients); ++i) {
    channels.push_back(std::make_unique<troupe::Channel>(loop, absl::StrCat("ipv4:127.0.0.1:", port)));
  }
  {
    Measured warm_up;
    co_await Measure(loop, channels, server, warm_up);
  }
  std::printf("%-34s %9s %7s %11s %11s %7s %9s %8s\n", "attack", "answered", "failed", "p99 before", "p99 during",
              "ratio", "RSS MiB", "growth");
  bool failed = false;
  for (const Attack& attack : kAttacks) {
    Measured before, during;
    co_await Measure(loop, channels, server, before);
    const double resident = ResidentMib(server);
    const pid_t attacker = StartAttack(attack, port);
    co_await Measure(loop, channels, server, during);
    kill(attacker, SIGKILL);
    waitpid(attacker, nullptr, 0);
    const double growth = during.resident_mib_max - resident;
    std::printf("%-34s %9zu %7d %8.0f us %8.0f us %7.2f %9.1f %8.1f\n", attack.name, during.micros.size(),
                before.failed + during.failed, before.Percentile(0.99), during.Percentile(0.99),
                during.Percentile(0.99) / before.Percentile(0.99), during.resident_mib_max, growth);
    std::fflush(stdout);
    const double most = absl::GetFlag(FLAGS_growth_mib_max);
    failed = failed || before.failed + during.failed > 0 || during.micros.empty() || (most > 0 && growth > most);
  }
  for (auto& channel : channels) channel->Close();
  co_return failed ? absl::FailedPreconditionError("an honest call failed, or memory grew too much") : absl::OkStatus();
}

}  // namespace

int main(int argc, char** argv) {
  int port_pipe[2];
  if (pipe(port_pipe) != 0) return 2;
  const pid_t server = fork();
  if (server == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(port_pipe[0]);
    return troupe::Run(argc, argv, [&](troupe::EventLoop& loop) { return Serve(loop, port_pipe[1]); });
  }
  close(port_pipe[1]);
  uint16_t port = 0;
  if (read(port_pipe[0], &port, sizeof(port)) != sizeof(port)) return 2;
  const int result = troupe::Run(argc, argv, [&](troupe::EventLoop& loop) { return AttackAll(loop, port, server); });
  kill(server, SIGKILL);
  waitpid(server, nullptr, 0);
  return result;
}
