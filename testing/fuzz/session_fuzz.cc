// A whole server session against a stranger's bytes, with a service behind it and an honest client beside it: nothing is
// held beyond what was granted, nothing is left behind, and the honest client is served.
//
// The first byte says how the stranger behaves, the second how its bytes are cut; the rest is what it says, behind a
// preface if it begins with none.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/types/span.h"
#include "echo/v1/echo.troupe.h"
#include "testing/fuzz/fuzz.h"
#include "troupe/async/sleep.h"
#include "troupe/async/task.h"
#include "troupe/loop/event_loop.h"
#include "troupe/net/memory_transport.h"
#include "troupe/net/protocol.h"
#include "troupe/net/transport.h"
#include "troupe/service/server.h"
#include "troupe/service/session.h"
#include "troupe/testing/sim/sim_os.h"

namespace troupe {
namespace {

using ::echo::v1::ChatRequest;
using ::echo::v1::ChatResponse;
using ::echo::v1::CollectRequest;
using ::echo::v1::CollectResponse;
using ::echo::v1::EchoRequest;
using ::echo::v1::EchoResponse;
using ::echo::v1::ExpandRequest;
using ::echo::v1::ExpandResponse;

using Status = Task<absl::Status>;

class Service final : public echo::v1::EchoActor {
 public:
  Status Echo(const EchoRequest& request, EchoResponse& response, Call&) override {
    if (request.message().size() % 2 == 1) co_await Sleep(absl::Milliseconds(10));
    response.set_message(request.message());
    co_return absl::OkStatus();
  }
  Status Expand(const ExpandRequest& request, Writer<ExpandResponse> writer, Call&) override {
    ExpandResponse response;
    response.set_message(std::string(5000, 'x'));
    for (int i = 0; i < std::min(request.count(), 100); ++i) {
      const bool more = co_await writer.Write(response);
      if (!more) break;
    }
    co_return absl::OkStatus();
  }
  Status Collect(Reader<CollectRequest> reader, CollectResponse& response, Call&) override {
    CollectRequest request;
    while (true) {
      const bool more = co_await reader.Read(request);
      if (!more) break;
      response.add_messages(request.message());
    }
    co_return absl::OkStatus();
  }
  Status Chat(Reader<ChatRequest> reader, Writer<ChatResponse> writer, Call&) override {
    ChatRequest request;
    ChatResponse response;
    while (true) {
      const bool more = co_await reader.Read(request);
      if (!more) break;
      co_await Sleep(absl::Milliseconds(1));
      response.set_message(request.message());
      co_await writer.Write(response);
    }
    co_return absl::OkStatus();
  }
};

class Stranger final : public Protocol {
 public:
  void DataReceived(absl::Span<const char>) override {}
  bool EofReceived() override { return true; }
};

constexpr uint32_t kCallsMax = 8;
constexpr size_t kMessageMax = 100000;

Task<absl::StatusOr<EchoResponse>> Ask(Session& session) {
  echo::v1::EchoStub echo(session);
  EchoRequest request;
  request.set_message("honest");
  absl::StatusOr<EchoResponse> got = co_await echo.Echo(request);
  co_return got;
}

void Try(uint8_t behaviour, size_t piece, const std::string& bytes) {
  testing::SimOs os(1);
  EventLoop loop(os);
  bool reported = false;
  loop.SetExceptionHandler([&](EventLoop&, const ExceptionContext&) { reported = true; });
  ServerOptions options;
  options.limits.calls_max = kCallsMax;
  options.limits.message_bytes_max = kMessageMax;
  options.limits.resets_max = 20;
  options.limits.glitches_max = 50;
  options.limits.frames_unsent_max = 50;
  Server server(loop, options);
  server.Add<Service>();
  REQUIRE(loop.RunUntilComplete(server.Start()).ok());
  {
    SessionCounters counters;
    Session honest(loop, Session::Role::kClient, SessionOptions(), nullptr, counters);
    const MemoryPair beside = MakeMemoryPair(loop, honest.MakeProtocol(), server.NewConnection());
    const MemoryPair pair = MakeMemoryPair(loop, std::make_unique<Stranger>(), server.NewConnection());
    loop.RunOnceWithoutWaiting();
    if (behaviour & 1) pair.first->PauseReading();
    for (size_t at = 0; at < bytes.size(); at += piece) {
      pair.first->Write(absl::MakeConstSpan(bytes).subspan(at, piece));
      loop.RunOnceWithoutWaiting();
      // Credit granted, large messages in assembly, the write mark, a reply a call, counted answers.
      REQUIRE(server.held_bytes() <= static_cast<int64_t>(kCallsMax * (2 * 65536 + kMessageMax) + 5 * kMessageMax +
                                                          65536 + 65536 + 100 * 1100));
      REQUIRE(server.calls_in_flight() <= kCallsMax + 1);
    }
    if (behaviour & 2) pair.first->WriteEof();
    REQUIRE(loop.RunUntilComplete(Ask(honest)).ok());
    loop.RunUntilComplete(Sleep(absl::Seconds(behaviour & 4 ? 100 : 1)));
    pair.first->Abort();
    // A server hears of the end of who has ended its own direction before when it sends: a reply that waits for credit
    // is given up first, after a window_timeout and a half.
    loop.RunUntilComplete(Sleep(absl::Seconds(60)));
    REQUIRE(server.connections() == 1);
    honest.Close(absl::OkStatus());
    loop.RunUntilComplete(Sleep(absl::Seconds(10)));
  }
  REQUIRE(server.connections() == 0);
  REQUIRE(server.held_bytes() == 0);
  REQUIRE(os.held_memory() == 0);
  server.Close();
  loop.RunUntilComplete(server.WaitClosed());
  REQUIRE(!reported);
}

}  // namespace
}  // namespace troupe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  std::string bytes(reinterpret_cast<const char*>(data) + 2, size - 2);
  if (!absl::StartsWith(bytes, "\xF1")) bytes.insert(0, std::string("\xF1\x54\x52\x50\x01\0\0\0", 8));
  // Few pieces of a large input: each is a turn of the loop.
  troupe::Try(data[0], std::max<size_t>(data[1] + size_t{1}, bytes.size() / 64), bytes);
  return 0;
}
