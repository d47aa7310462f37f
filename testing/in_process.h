// InProcess<S>: a service and its client in one test: the real session code over memory, in virtual time.
//
//   troupe::testing::InProcess<KeyValueService> kv(std::ref(store));
//   ASSERT_OK(kv.Run(kv.stub().Put(put)));
//   EXPECT_THAT(kv.Run(kv.stub().Get(get)), IsOkAndHolds(EqualsProto(R"pb(value: "v")pb")));
//   KeyValueStub other(kv.NewClient());          // a second connection, to another KeyValueService with the same store
//
// No ports, no threads, no sleeping: timers fire as soon as nothing else can happen. A test whose loop has nothing left
// that could wake it fails at once with a dump of the suspended tasks. What reaches the loop's exception handler and is
// not taken by TakeReports() fails the test.
//
// Threading: the test's.     Lifetime: the server drains and everything is checked in the destructor.
#ifndef TROUPE_TESTING_IN_PROCESS_H_
#define TROUPE_TESTING_IN_PROCESS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "troupe/async/task.h"
#include "troupe/loop/event_loop.h"
#include "troupe/net/memory_transport.h"
#include "troupe/rpc/caller.h"
#include "troupe/rpc/reply.h"
#include "troupe/service/limits.h"
#include "troupe/service/server.h"
#include "troupe/service/session.h"
#include "troupe/testing/sim/sim_os.h"

namespace troupe::testing {

// Idle connections stay, and nobody asks whether the other end is there: a test that waits for nothing must be seen to.
inline ConnectionLimits PatientLimits() {
  return {.idle_timeout = absl::InfiniteDuration(), .keepalive_time = absl::InfiniteDuration()};
}

struct InProcessOptions {
  uint64_t seed = 1;
  ServerOptions server = {.limits = PatientLimits()};
  ConnectionLimits client = PatientLimits();
  // What the client speaks; the server is told by the first bytes.
  Wire wire = Wire::kNative;
  // What one delivery of the transport may carry: 1 shows every byte alone.
  MemoryTransportOptions transport = {};
};

// What InProcess<S> is without S: for tests of several services at once.
class InProcessServer {
 public:
  explicit InProcessServer(InProcessOptions options = {});
  InProcessServer(const InProcessServer&) = delete;
  InProcessServer& operator=(const InProcessServer&) = delete;
  ~InProcessServer();

  EventLoop& loop() { return loop_; }
  SimOs& os() { return os_; }
  // Add services before the first call.
  Server& server() { return server_; }
  // The client's end of the connection; makes it, and starts the server, at first use. After the connection was lost, a
  // new one.
  Caller& caller();
  // The client's connection, as its session sees it.
  Session& client();
  const SessionCounters& client_counters() const { return client_counters_; }
  // Another client with a connection of its own, for which the server makes actors of their own; a stub is made from it
  // as from caller(). It lives as long as this, and is not made again when its connection is lost.
  Session& NewClient();

  // Run the loop until it is done and give its result. A Reply that has a name is kept: its trailers can be read.
  template <class T>
  T Run(Task<T> task) {
    return loop_.RunUntilComplete(std::move(task));
  }
  template <class T>
  absl::StatusOr<T> Run(Reply<T>& reply) {
    return loop_.RunUntilComplete(AwaitReply(reply));
  }
  template <class T>
  absl::StatusOr<T> Run(Reply<T>&& reply) {
    Reply<T> ended = std::move(reply);
    return Run(ended);
  }
  // Of what only a co_await can take, a stream's Read or Finish: `kv.Run([&]() { return events.Read(event); })`.
  template <class F>
    requires std::is_invocable_v<F&>
  auto Run(F make) {
    return loop_.RunUntilComplete(AwaitMade(make));
  }
  // Lets `duration` of virtual time pass.
  void Advance(absl::Duration duration);
  // Runs what is ready, and what that makes ready, without letting time pass.
  void RunUntilIdle();

  // Messages of what reached the exception handler since the last call.
  std::vector<std::string> TakeReports() { return std::exchange(reports_, {}); }

 private:
  template <class T>
  static Task<absl::StatusOr<T>> AwaitReply(Reply<T>& reply) {
    absl::StatusOr<T> got = co_await reply;
    co_return got;
  }
  template <class F>
  static auto AwaitMade(F& make) -> Task<std::decay_t<decltype(make().await_resume())>> {
    auto got = co_await make();
    co_return got;
  }
  std::unique_ptr<Session> Connect();

  const InProcessOptions options_;
  SimOs os_;
  EventLoop loop_;
  std::vector<std::string> reports_;
  Server server_;
  SessionOptions client_options_;
  SessionCounters client_counters_;
  std::unique_ptr<Session> client_;
  std::vector<std::unique_ptr<Session>> more_clients_;
  std::vector<TransportPtr> transports_;
};

template <class S>
class InProcess : public InProcessServer {
 public:
  using Stub = typename S::TroupeActor::TroupeStub;

  // Each connection gets an S built from const references to the decayed arguments, as by Server::Add.
  template <class... Args>
  explicit InProcess(Args&&... args) : InProcess(InProcessOptions(), std::forward<Args>(args)...) {}
  template <class... Args>
  explicit InProcess(InProcessOptions options, Args&&... args) : InProcessServer(std::move(options)) {
    server().template Add<S>(std::forward<Args>(args)...);
  }

  Stub stub() { return Stub(caller()); }
};

}  // namespace troupe::testing

#endif  // TROUPE_TESTING_IN_PROCESS_H_
