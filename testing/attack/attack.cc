// One hostile connection after the other, each against an echo server of its own over real sockets, with honest clients
// of both wires beside it: what the server's resident memory grows by, and what becomes of the honest clients' calls and
// of their p99.
//
//   bazel run -c opt //testing/attack -- --seconds=3 --only=reset
//
// Processes: for each attack a server and the attacker; and the honest clients, who also watch the servers' memory. The
// exit code is 1 when an honest call failed, or memory grew by more than --growth_mib_max. Times are printed and not
// judged: that needs a machine of one's own.
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
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
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
#include "troupe/rpc/metadata.h"
#include "troupe/rpc/stream.h"
#include "troupe/service/channel.h"
#include "troupe/service/server.h"
#include "troupe/service/session.h"
#include "troupe/wire/grpc/internal/gzip.h"
#include "troupe/wire/grpc/testing_peer.h"
#include "troupe/wire/native/frame.h"
#include "troupe/wire/native/testing_peer.h"

ABSL_FLAG(double, seconds, 2, "of each attack, and of the measurement before it");
ABSL_FLAG(int, clients, 4, "honest clients, each on a connection of its own, half of them of gRPC");
ABSL_FLAG(std::string, only, "", "attacks with this in their names");
ABSL_FLAG(double, growth_mib_max, 8, "more than this is a failure; 0: not judged, as under a sanitizer");

namespace {

using troupe::grpc_wire::H2Bytes;
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
      // Messages behind this one are not read.
      if (request.message() == "hold") co_await troupe::Sleep(absl::Hours(1));
      response.add_messages(request.message().substr(0, 100));
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
  bool open() const { return open_; }
  // Until the server says something, or so many milliseconds.
  void WaitToRead(int milliseconds) {
    pollfd waiting = {.fd = fd_, .events = POLLIN, .revents = 0};
    poll(&waiting, 1, milliseconds);
    Read();
  }
  // Remembers what the server grants the connection, and throws away what else it says.
  void Read() {
    char bytes[65536];
    while (true) {
      const ssize_t got = recv(fd_, bytes, sizeof(bytes), MSG_DONTWAIT);
      if (got == 0) open_ = false;
      if (got <= 0) return;
      if (!counts_credit_) continue;
      received_.append(bytes, static_cast<size_t>(got));
      TakeFrames();
    }
  }

  // ---- who keeps to its credit, as far as the connection's goes
  void CountCredit(bool http2) {
    counts_credit_ = true;
    http2_ = http2;
    credit_ = http2 ? 65535 : 256 << 10;
    skipped_preface_ = http2;
  }
  // False: none has come for a second.
  bool Spend(int64_t bytes) {
    for (int tries = 0; credit_ < bytes && tries < 10 && open_; ++tries) WaitToRead(100);
    if (credit_ < bytes) return false;
    credit_ -= bytes;
    return true;
  }

 private:
  void TakeFrames() {
    if (!skipped_preface_) {
      if (received_.size() < 8) return;
      received_.erase(0, 8 + size_t{troupe::native::Load16(received_.data() + 6)});
      skipped_preface_ = true;
    }
    const size_t header = http2_ ? size_t{9} : troupe::native::kFrameHeaderBytes;
    size_t at = 0;
    while (received_.size() - at >= header) {
      const char* const from = received_.data() + at;
      const auto byte = [from](size_t i) { return static_cast<uint8_t>(from[i]); };
      size_t length = 0;
      if (http2_) {
        length = size_t{byte(0)} << 16 | byte(1) << 8 | byte(2);
      } else {
        length = troupe::native::ReadFrameHeader(from).length;
      }
      if (received_.size() - at < header + length) break;
      if (http2_) {
        const bool update = byte(3) == troupe::grpc_wire::kWindowUpdateFrame;
        const bool of_connection = (byte(5) | byte(6) | byte(7) | byte(8)) == 0;
        if (update && of_connection) credit_ += byte(9) << 24 | byte(10) << 16 | byte(11) << 8 | byte(12);
      } else {
        const troupe::native::FrameHeader frame = troupe::native::ReadFrameHeader(from);
        uint64_t credit = 0;
        const bool granted = frame.type == troupe::native::FrameType::kCredit && frame.id == 0 &&
                             troupe::native::ReadCredit({from + header, length}, credit);
        if (granted) credit_ += static_cast<int64_t>(credit);
      }
      at += header + length;
    }
    received_.erase(0, at);
  }

  const int fd_;
  bool open_ = false;
  bool counts_credit_ = false;
  bool http2_ = false;
  bool skipped_preface_ = false;
  int64_t credit_ = 0;
  std::string received_;
};

std::string Request(size_t size) {
  echo::v1::EchoRequest request;
  request.set_message(std::string(size, 'x'));
  return request.SerializeAsString();
}
std::string Word(const char* word) {
  echo::v1::EchoRequest request;
  request.set_message(word);
  return request.SerializeAsString();
}

// ---- troupe/1

FrameBytes AllCredit() {
  return FrameBytes().Preface({{troupe::native::FeatureId::kCallCreditBytes, 1 << 30},
                               {troupe::native::FeatureId::kConnectionCreditBytes, 1 << 30}});
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
  FrameBytes bytes = AllCredit();
  for (uint32_t i = 0; i < 1000; ++i) bytes.Call(1 + 2 * i, 0, i == 0 ? kEcho : "", Word("much"));
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

// As much as is granted for each, of a message that is never whole.
void SendLargeHalves(uint16_t port) {
  Hostile hostile(port);
  hostile.CountCredit(/*http2=*/false);
  hostile.Send(FrameBytes().Preface());
  const std::string half(60000, 'x');
  for (uint32_t i = 0; i < 900; ++i) {
    if (!hostile.Spend(60100)) break;
    hostile.Send(FrameBytes().Open(1 + 2 * i, 0, i == 0 ? kEcho : "").First(1 + 2 * i, 4 << 20, half));
  }
  while (hostile.open()) hostile.WaitToRead(1000);
}

// Of calls whose handlers do not read them.
void FillStreams(uint16_t port) {
  Hostile hostile(port);
  hostile.CountCredit(/*http2=*/false);
  hostile.Send(FrameBytes().Preface());
  const std::string message = Request(60000);
  for (uint32_t i = 0; i < 900; ++i) {
    if (!hostile.Spend(61000)) break;
    const uint32_t id = 1 + 2 * i;
    hostile.Send(FrameBytes().Open(id, 0, i == 0 ? kCollect : "").Message(id, Word("hold")).Message(id, message));
  }
  while (hostile.open()) hostile.WaitToRead(1000);
}

void SendMetadata(uint16_t port) {
  Hostile hostile(port);
  hostile.Send(FrameBytes().Preface());
  troupe::Metadata metadata;
  for (int i = 0; i < 99; ++i) metadata.Add(absl::StrCat("key-", i), std::string(120, 'v'));
  for (uint32_t i = 0; i < 900; ++i) {
    hostile.Send(FrameBytes().Open(1 + 2 * i, 0, i == 0 ? kCollect : "", metadata));
    hostile.Read();
  }
  while (hostile.open()) hostile.WaitToRead(1000);
}

void Trickle(uint16_t port) {
  Hostile hostile(port);
  const std::string call = FrameBytes().Preface().Call(1, 0, kEcho, Request(100000 / 2)).str();
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

// The same bytes until it is thrown out.
void Flood(uint16_t port, const std::string& first, const std::string& flood) {
  Hostile hostile(port);
  if (!hostile.Send(first)) return;
  std::string much;
  while (much.size() < 16000) much += flood;
  while (hostile.Send(much)) hostile.Read();
}
void Pings(uint16_t port) { Flood(port, FrameBytes().Preface().str(), FrameBytes().Ping(1).str()); }
void UnknownFrames(uint16_t port) {
  Flood(port, FrameBytes().Preface().str(),
        FrameBytes().Frame(static_cast<troupe::native::FrameType>(15), 0, 0, "").str());
}
void EmptyMessages(uint16_t port) {
  Flood(port, FrameBytes().Preface().Open(1, 0, kCollect).str(),
        FrameBytes().Frame(troupe::native::FrameType::kMessage, 0, 1, "").str());
}

// As many small fields as fit a message.
void FieldsByTheMillion(uint16_t port) {
  Hostile hostile(port);
  hostile.CountCredit(/*http2=*/false);
  hostile.Send(FrameBytes().Preface());
  std::string fields;
  while (fields.size() < 60000) fields += std::string("\x78\x00", 2);
  for (uint32_t i = 0; hostile.open(); ++i) {
    if (!hostile.Spend(61000)) continue;
    hostile.Send(FrameBytes().Call(1 + 2 * i, 0, i == 0 ? kEcho : "", fields));
  }
}

// ---- HTTP/2

H2Bytes H2() { return H2Bytes().Preface().Settings(); }
H2Bytes H2WithWindows() { return H2Bytes().Preface().Settings({{4, 0x7fffffff}}).WindowUpdate(0, 0x7fff0000 - 65535); }

void H2CallAndNeverRead(uint16_t port) {
  Hostile hostile(port);
  hostile.Send(H2WithWindows());
  const std::string request = Request(1000);
  for (uint32_t i = 0; i < 100000; ++i) {
    if (!hostile.Send(H2Bytes().Call(1 + 2 * i, kEcho, request))) return;
  }
  pause();
}
// Reads, and gives no windows: replies wait.
void H2AskAndGiveNoWindow(uint16_t port) {
  Hostile hostile(port);
  hostile.Send(H2Bytes().Preface().Settings({{4, 0}}));
  H2Bytes bytes;
  for (uint32_t i = 0; i < 1000; ++i) bytes.Call(1 + 2 * i, kEcho, Word("much"));
  hostile.Send(bytes);
  while (hostile.open()) hostile.WaitToRead(1000);
}
void H2RapidReset(uint16_t port) {
  Hostile hostile(port);
  hostile.Send(H2());
  for (uint32_t i = 0; i < 1000000; ++i) {
    hostile.Read();
    if (!hostile.Send(H2Bytes().Request(1 + 2 * i, kEcho).Reset(1 + 2 * i, 8))) return;
  }
}
// CVE-2025-8671: the server is made to reset what was opened.
void H2MadeYouReset(uint16_t port) {
  Hostile hostile(port);
  hostile.Send(H2());
  for (uint32_t i = 0; i < 1000000; ++i) {
    hostile.Read();
    if (!hostile.Send(H2Bytes().Call(1 + 2 * i, kEcho, Word("much")).WindowUpdate(1 + 2 * i, 0x7fffffff))) return;
  }
}
void H2FillStreams(uint16_t port) {
  Hostile hostile(port);
  hostile.CountCredit(/*http2=*/true);
  hostile.Send(H2().SettingsAck());
  const std::string message = troupe::grpc_wire::Framed(Request(15000));
  for (uint32_t i = 0; i < 900; ++i) {
    const uint32_t id = 1 + 2 * i;
    hostile.Send(H2Bytes().Request(id, kCollect).Data(id, troupe::grpc_wire::Framed(Word("hold"))));
    hostile.Spend(100);
    for (int piece = 0; piece < 4; ++piece) {
      if (!hostile.Spend(static_cast<int64_t>(message.size()))) break;
      hostile.Send(H2Bytes().Data(id, message));
    }
  }
  while (hostile.open()) hostile.WaitToRead(1000);
}
// Six bytes each on the wire, and much more where they lie.
void H2FillStreamsWithSmallMessages(uint16_t port) {
  Hostile hostile(port);
  hostile.CountCredit(/*http2=*/true);
  hostile.Send(H2().SettingsAck());
  std::string small;
  while (small.size() < 15000) small += troupe::grpc_wire::Framed("");
  for (uint32_t i = 0; i < 900; ++i) {
    const uint32_t id = 1 + 2 * i;
    hostile.Send(H2Bytes().Request(id, kCollect).Data(id, troupe::grpc_wire::Framed(Word("hold"))));
    hostile.Spend(100);
    for (int piece = 0; piece < 4; ++piece) {
      if (!hostile.Spend(static_cast<int64_t>(small.size()))) break;
      hostile.Send(H2Bytes().Data(id, small));
    }
  }
  while (hostile.open()) hostile.WaitToRead(1000);
}
void H2SendLargeHalves(uint16_t port) {
  Hostile hostile(port);
  hostile.CountCredit(/*http2=*/true);
  hostile.Send(H2().SettingsAck());
  const std::string half = troupe::grpc_wire::Framed(std::string(4 << 20, 'x')).substr(0, 60000);
  for (uint32_t i = 0; i < 900; ++i) {
    const uint32_t id = 1 + 2 * i;
    hostile.Send(H2Bytes().Request(id, kEcho));
    for (size_t at = 0; at < half.size(); at += 15000) {
      if (!hostile.Spend(15000)) break;
      hostile.Send(H2Bytes().Data(id, half.substr(at, 15000)));
    }
  }
  while (hostile.open()) hostile.WaitToRead(1000);
}
// 4 MiB in 4 KiB.
void H2Gzip(uint16_t port) {
  const std::string bomb = troupe::grpc_wire::Framed(
      troupe::grpc_wire::Gzip(absl::MakeConstSpan(Request((4 << 20) - 100))), /*packed=*/true);
  Hostile hostile(port);
  hostile.CountCredit(/*http2=*/true);
  hostile.Send(H2WithWindows().SettingsAck());
  for (uint32_t i = 0; hostile.open(); ++i) {
    if (!hostile.Spend(static_cast<int64_t>(bomb.size()))) continue;
    const uint32_t id = 1 + 2 * i;
    hostile.Send(
        H2Bytes().Request(id, kCollect, {{"grpc-encoding", "gzip"}}).Data(id, bomb, troupe::grpc_wire::kEndStream));
  }
}
// One field of 4,000 bytes into the table, and then a byte for each time that it is said again.
void H2HeaderBomb(uint16_t port) {
  Hostile hostile(port);
  hostile.Send(H2());
  const std::string once = troupe::grpc_wire::HeaderBlock(troupe::grpc_wire::RequestFields(kCollect));
  std::string entry =
      "\x40\x01"
      "a";
  entry += "\x7f\x81\x1e";  // a value of 127 + 3841 bytes
  entry += std::string(3968, 'v');
  for (uint32_t i = 0; i < 100000; ++i) {
    const std::string block = (i == 0 ? once + entry : once) + std::string(12000, '\xbe');
    const auto flags = troupe::grpc_wire::kEndHeaders;
    if (!hostile.Send(H2Bytes().Frame(troupe::grpc_wire::kHeadersFrame, flags, 1 + 2 * i, block))) return;
    hostile.Read();
  }
}
void H2Metadata(uint16_t port) {
  Hostile hostile(port);
  hostile.Send(H2());
  troupe::grpc_wire::HeaderFields fields;
  for (int i = 0; i < 99; ++i) fields.emplace_back(absl::StrCat("key-", i), std::string(110, 'v'));
  for (uint32_t i = 0; i < 900; ++i) {
    hostile.Send(H2Bytes().Request(1 + 2 * i, kCollect, fields));
    hostile.Read();
  }
  while (hostile.open()) hostile.WaitToRead(1000);
}
// Blocks of headers that never end, in frames of a byte.
void H2Continuations(uint16_t port) {
  Flood(port, H2().Frame(troupe::grpc_wire::kHeadersFrame, 0, 1, "").str(),
        H2Bytes().Frame(troupe::grpc_wire::kContinuationFrame, 0, 1, "\x82").str());
}
void H2Pings(uint16_t port) { Flood(port, H2().str(), H2Bytes().Ping(1).str()); }
void H2Settings(uint16_t port) { Flood(port, H2().str(), H2Bytes().Settings({{4, 1000}}).str()); }
void H2Priorities(uint16_t port) {
  Flood(port, H2().str(), H2Bytes().Frame(troupe::grpc_wire::kPriorityFrame, 0, 1, std::string("\0\0\0\3\1", 5)).str());
}
void H2WindowUpdates(uint16_t port) { Flood(port, H2().str(), H2Bytes().WindowUpdate(0, 1).str()); }
void H2EmptyData(uint16_t port) { Flood(port, H2().Request(1, kCollect).str(), H2Bytes().Data(1, "").str()); }
void H2UnknownFrames(uint16_t port) { Flood(port, H2().str(), H2Bytes().Frame(77, 0, 0, "").str()); }
void H2UnknownMethods(uint16_t port) {
  Hostile hostile(port);
  hostile.Send(H2WithWindows());
  for (uint32_t i = 0; i < 1000000; i += 50) {
    H2Bytes bytes;
    for (uint32_t k = i; k < i + 50; ++k) bytes.Call(1 + 2 * k, "/no.such/Method", "");
    hostile.Read();
    if (!hostile.Send(bytes)) return;
  }
}
void H2Trickle(uint16_t port) {
  Hostile hostile(port);
  const std::string call = H2().Call(1, kEcho, Request(100000)).str();
  for (const char byte : call) {
    if (!hostile.Send(absl::MakeConstSpan(&byte, 1))) return;
    hostile.WaitToRead(1000);
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
    {"900 calls, 60 KB of 4 MiB each", SendLargeHalves},
    {"900 streams, 60 KB unread each", FillStreams},
    {"900 streams, 15 KB metadata each", SendMetadata},
    {"a byte a second", Trickle},
    {"resets everything it opens", ResetEverything},
    {"pings", Pings},
    {"unknown frames", UnknownFrames},
    {"empty frames", EmptyMessages},
    {"30,000 fields a request", FieldsByTheMillion},
    {"h2: 100,000 calls, never reads", H2CallAndNeverRead},
    {"h2: 1,000 replies, no window", H2AskAndGiveNoWindow},
    {"h2: 900 calls, 60 KB of 4 MiB each", H2SendLargeHalves},
    {"h2: 900 streams, 60 KB unread each", H2FillStreams},
    {"h2: 900 streams of empty messages", H2FillStreamsWithSmallMessages},
    {"h2: 900 streams, 15 KB metadata", H2Metadata},
    {"h2: header bomb", H2HeaderBomb},
    {"h2: gzip, 4 MiB each", H2Gzip},
    {"h2: a byte a second", H2Trickle},
    {"h2: rapid reset", H2RapidReset},
    {"h2: made you reset", H2MadeYouReset},
    {"h2: continuations", H2Continuations},
    {"h2: pings", H2Pings},
    {"h2: settings", H2Settings},
    {"h2: priorities", H2Priorities},
    {"h2: window updates", H2WindowUpdates},
    {"h2: empty data", H2EmptyData},
    {"h2: unknown frames", H2UnknownFrames},
    {"h2: unknown methods", H2UnknownMethods},
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

// One for each attack: what one has left behind would hide what the next one takes.
struct ServerProcess {
  pid_t pid;
  uint16_t port;
};

absl::StatusOr<ServerProcess> StartServer(int argc, char** argv) {
  int port_pipe[2];
  if (pipe(port_pipe) != 0) return absl::InternalError("no pipe");
  const pid_t pid = fork();
  if (pid < 0) return absl::InternalError("no process");
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(port_pipe[0]);
    _exit(troupe::Run(argc, argv, [&](troupe::EventLoop& loop) { return Serve(loop, port_pipe[1]); }));
  }
  close(port_pipe[1]);
  uint16_t port = 0;
  const ssize_t got = read(port_pipe[0], &port, sizeof(port));
  close(port_pipe[0]);
  if (got != sizeof(port)) return absl::InternalError("a server has not started");
  return ServerProcess{pid, port};
}

struct Planned {
  const Attack* attack;
  ServerProcess server;
};

troupe::Task<absl::Status> AttackAll(troupe::EventLoop& loop, const std::vector<Planned>& plan) {
  std::printf("%-36s %9s %7s %11s %11s %7s %9s %8s\n", "attack", "answered", "failed", "p99 before", "p99 during",
              "ratio", "RSS MiB", "growth");
  bool failed = false;
  for (const Planned& planned : plan) {
    const Attack* const attack = planned.attack;
    const ServerProcess server = planned.server;
    if (!absl::StrContains(attack->name, absl::GetFlag(FLAGS_only))) continue;
    std::vector<std::unique_ptr<troupe::Channel>> channels;
    for (int i = 0; i < absl::GetFlag(FLAGS_clients); ++i) {
      troupe::ChannelOptions options;
      options.wire = i % 2 == 0 ? troupe::Wire::kNative : troupe::Wire::kGrpc;
      const std::string target = absl::StrCat("ipv4:127.0.0.1:", server.port);
      channels.push_back(std::make_unique<troupe::Channel>(loop, target, std::move(options)));
    }
    Measured before, during;
    co_await Measure(loop, channels, server.pid, before);
    before = Measured();  // with all that is made once
    co_await Measure(loop, channels, server.pid, before);
    const double resident = ResidentMib(server.pid);
    const pid_t attacker = StartAttack(*attack, server.port);
    co_await Measure(loop, channels, server.pid, during);
    kill(attacker, SIGKILL);
    waitpid(attacker, nullptr, 0);
    const double growth = during.resident_mib_max - resident;
    std::printf("%-36s %9zu %7d %8.0f us %8.0f us %7.2f %9.1f %8.1f\n", attack->name, during.micros.size(),
                before.failed + during.failed, before.Percentile(0.99), during.Percentile(0.99),
                during.Percentile(0.99) / before.Percentile(0.99), during.resident_mib_max, growth);
    std::fflush(stdout);
    const double most = absl::GetFlag(FLAGS_growth_mib_max);
    failed = failed || before.failed + during.failed > 0 || during.micros.empty() || (most > 0 && growth > most);
    for (auto& channel : channels) channel->Close();
    co_await troupe::Sleep(absl::Milliseconds(10));
    kill(server.pid, SIGKILL);
    waitpid(server.pid, nullptr, 0);
  }
  co_return failed ? absl::FailedPreconditionError("an honest call failed, or memory grew too much") : absl::OkStatus();
}

}  // namespace

int main(int argc, char** argv) {
  // Before there is a loop, and flags are known.
  std::vector<Planned> plan;
  for (const Attack& attack : kAttacks) {
    const absl::StatusOr<ServerProcess> server = StartServer(argc, argv);
    if (!server.ok()) return 2;
    plan.push_back({&attack, *server});
  }
  return troupe::Run(argc, argv, [&](troupe::EventLoop& loop) { return AttackAll(loop, plan); });
}
