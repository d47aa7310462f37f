#include "troupe/testing/faults/loop_scenarios.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "troupe/async/blocking.h"
#include "troupe/async/sleep.h"
#include "troupe/async/task.h"
#include "troupe/base/errors.h"
#include "troupe/base/os_error.h"
#include "troupe/base/socket_address.h"
#include "troupe/loop/event_loop.h"
#include "troupe/net/resolve.h"
#include "troupe/os/os.h"

namespace troupe::testing {
namespace {

// Tries `attempt` a second time where it fails.
template <class Attempt>
void TryInPlace(Stage& stage, absl::string_view what, Attempt attempt) {
  for (int tries = 0; tries < 2; ++tries) {
    stage.Asked(what);
    const absl::Status status = attempt();
    stage.Answered(what, status);
    if (status.ok()) return;
    stage.Recover();
  }
  stage.Broken(absl::StrCat(what, " failed twice"));
}

// A loop of one's own, on a machine that has others.
void Loop(Stage& stage) {
  std::unique_ptr<EventLoop> loop;
  TryInPlace(stage, "loop", [&] {
    try {
      loop = std::make_unique<EventLoop>(stage.server().os());
    } catch (const StatusError& error) {
      return error.status();
    }
    return absl::OkStatus();
  });
  if (loop == nullptr) return;
  bool fired = false;
  loop->CallLater(absl::Seconds(1), [&] { fired = true; });
  loop->RunUntilComplete(Sleep(absl::Seconds(2)));
  stage.Expect(fired, "a timer did not fire");
  loop->Close();
}

Task<absl::StatusOr<int>> Work() {
  auto work = [] { return 42; };
  try {
    const int answer = co_await Blocking(work);
    co_return answer;
  } catch (const StatusError& error) {
    co_return error.status();
  }
}

void Executor(Stage& stage) {
  for (int i = 0; i < 2; ++i) {
    const absl::StatusOr<int> answer = stage.Try(stage.server(), "work", Work);
    stage.Expect(*answer == 42, "the work's answer is wrong");
  }
}

void Signals(Stage& stage) {
  EventLoop& loop = stage.server().loop();
  int heard = 0;
  TryInPlace(stage, "signal", [&] {
    try {
      return loop.AddSignalHandler(SIGUSR1, [&heard] { ++heard; });
    } catch (const InvalidState& error) {
      return absl::FailedPreconditionError(error.what());
    }
  });
  stage.server().os().RaiseSignal(SIGUSR1);
  stage.RunUntil([&] { return heard == 1; });
  loop.RemoveSignalHandler(SIGUSR1);
}

absl::Status StatusOfErrno(int64_t result) {
  return result < 0 ? OsError(static_cast<int>(result), "") : absl::OkStatus();
}

// A reader and a writer on a pair of sockets, as somebody might use them who knows no transport.
void ReadersAndWriters(Stage& stage) {
  Os& os = stage.server().os();
  EventLoop& loop = stage.server().loop();
  int fds[2] = {-1, -1};
  TryInPlace(stage, "pair", [&] { return StatusOfErrno(os.SocketPair(AF_UNIX, SOCK_STREAM, fds)); });
  std::string received;
  std::string unsent = "hello";
  int64_t sent = 0;
  bool over = false;
  TryInPlace(stage, "reader", [&] {
    return StatusOfErrno(loop.AddReader(fds[0], [&] {
      char bytes[16];
      const int64_t count = os.Recv(fds[0], absl::MakeSpan(bytes));
      if (count > 0) received.append(bytes, static_cast<size_t>(count));
      over = over || count == 0 || (count < 0 && count != -EAGAIN);
      if (over) loop.RemoveReader(fds[0]);
    }));
  });
  TryInPlace(stage, "writer", [&] {
    return StatusOfErrno(loop.AddWriter(fds[1], [&] {
      const iovec piece = {unsent.data(), unsent.size()};
      sent = os.Send(fds[1], absl::MakeConstSpan(&piece, 1));
      if (sent > 0) unsent.erase(0, static_cast<size_t>(sent));
      if (unsent.empty() || (sent < 0 && sent != -EAGAIN)) loop.RemoveWriter(fds[1]);
    }));
  });
  stage.RunUntil([&] { return over || received == "hello" || (sent < 0 && sent != -EAGAIN); });
  // Both kinds on one descriptor, and one of them taken away.
  TryInPlace(stage, "reader and writer", [&] {
    int result = loop.AddReader(fds[1], [&] { loop.RemoveReader(fds[1]); });
    if (result == 0) result = loop.AddWriter(fds[1], [] {});
    return StatusOfErrno(result);
  });
  loop.RemoveWriter(fds[1]);
  stage.RunFor(absl::Milliseconds(1));
  loop.RemoveReader(fds[1]);
  loop.RemoveReader(fds[0]);
  os.Close(fds[1]);
  stage.RunFor(absl::Milliseconds(1));
  os.Close(fds[0]);
}

Task<absl::StatusOr<std::vector<SocketAddress>>> ResolveServer(EventLoop& loop) {
  ResolveQuery query;
  query.host = "server";
  query.service = "http";
  return GetAddrInfo(loop, query);
}

void ResolvesAName(Stage& stage) {
  for (int i = 0; i < 2; ++i) {
    const auto addresses = stage.Try(stage.client(), "resolve", [&] { return ResolveServer(stage.client().loop()); });
    stage.Expect(!addresses->empty(), "no address");
  }
}

}  // namespace

std::vector<Scenario> LoopScenarios() {
  return {
      {"loop", Loop},
      {"executor", Executor},
      {"signals", Signals},
      {"readers_and_writers", ReadersAndWriters},
      {"resolve", ResolvesAName},
  };
}

}  // namespace troupe::testing
