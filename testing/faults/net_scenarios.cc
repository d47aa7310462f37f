#include "troupe/testing/faults/net_scenarios.h"

#include <sys/socket.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "troupe/async/task.h"
#include "troupe/async/wait_for.h"
#include "troupe/base/socket_address.h"
#include "troupe/base/status_macros.h"
#include "troupe/loop/event_loop.h"
#include "troupe/net/connect.h"
#include "troupe/net/protocol.h"
#include "troupe/net/resolve.h"
#include "troupe/net/sockets.h"
#include "troupe/net/stream_server.h"
#include "troupe/net/transport.h"
#include "troupe/os/os.h"
#include "troupe/testing/faults/echo_ends.h"

namespace troupe::testing {
namespace {

void ConnectByAddress(Stage& stage) {
  const auto server = ServeOn(stage, {"0.0.0.0:7000"});
  Client client = ConnectTo(stage, stage.client(), "10.0.0.1:7000");
  Converse(stage, client, "hello");
  ExpectServed(stage, stage.client(), Address("10.0.0.1:7000"));
  CloseServer(stage, *server);
}

// The name has an address that nobody listens at, before one that somebody does.
void ConnectByName(Stage& stage) {
  const auto server = ServeOn(stage, {"0.0.0.0:7000"});
  stage.world().kernel().SetName("service",
                                 {*SocketAddress::FromIp("fd00::1", 0), *SocketAddress::FromIp("10.0.0.1", 0)});
  Client client = ConnectTo(stage, stage.client(), "service:7000");
  Converse(stage, client, "hello");
  CloseServer(stage, *server);
}

void ConnectFromAnAddress(Stage& stage) {
  const auto server = ServeOn(stage, {"[::]:7000"});
  ConnectOptions options;
  options.host = "fd00::1";
  options.port = "7000";
  options.local_address = Address("[fd00::2]:5000");
  Client client = Connect(stage, stage.client(), options);
  Converse(stage, client, "hello");
  CloseServer(stage, *server);
}

// Both ends made of sockets that came from elsewhere. What is refused stays the caller's; what is taken is closed.
void ConnectGivenSockets(Stage& stage) {
  SimHost& host = stage.client();
  SimOs& os = host.os();
  for (int tries = 0; tries < 3; ++tries) {
    if (tries > 0) stage.Recover();
    int fds[2];
    if (os.SocketPair(AF_UNIX, SOCK_STREAM, fds) != 0) continue;
    auto echo = [&stage]() -> std::unique_ptr<BaseProtocol> { return stage.NewProtocol("accepted", Echoing()); };
    auto accepting = ConnectAcceptedSocket(host.loop(), echo, fds[1]);
    const MadeConnection accepted = stage.Run(host, "accept", std::move(accepting));
    if (absl::IsInvalidArgument(accepted.status())) os.Close(fds[1]);
    Client client;
    auto hear = [&] { return NewClientProtocol(stage, client); };
    ConnectOptions options;
    options.socket = fds[0];
    auto connecting = CreateConnection(host.loop(), hear, options);
    MadeConnection connected = stage.Run(host, "connect", std::move(connecting));
    if (absl::IsInvalidArgument(connected.status())) os.Close(fds[0]);
    if (!connected.ok()) continue;
    client.transport = std::move(connected->transport);
    Converse(stage, client, "hello");
    stage.RunUntil([&] { return stage.AllLost(); });
    if (*client.received == "hello") return;
  }
  stage.Broken("three attempts failed");
}

// Several ways in; a client by each at once.
void ServeOnSeveralAddresses(Stage& stage) {
  StreamServerOptions options;
  options.listen = {"localhost:7000", "unix-abstract:echo"};
  options.reuse_port = true;
  const auto server = Serve(stage, options);
  // Addresses of a family that the machine seems not to have are left out.
  std::vector<Client> clients;
  for (const SocketAddress& address : server->addresses()) {
    ConnectOptions where;
    where.address = address;
    clients.push_back(Connect(stage, stage.server(), where));
    clients.back().transport->Write("hello");
  }
  stage.RunUntil([&] {
    return std::all_of(clients.begin(), clients.end(), [](const Client& client) { return client.Heard("hello"); });
  });
  for (Client& client : clients) client.transport->Close();
  stage.RunUntil([&] { return stage.AllLost(); });
  ExpectServed(stage, stage.server(), server->addresses().front());
  CloseServer(stage, *server);
}

// At a path where a server was that has ended.
void ServeOnAStalePath(Stage& stage) {
  {
    const auto former = ServeOn(stage, {"unix:/run/echo.sock"});
    CloseServer(stage, *former);
  }
  const auto server = ServeOn(stage, {"unix:/run/echo.sock"});
  ExpectServed(stage, stage.server(), Address("unix:/run/echo.sock"));
  CloseServer(stage, *server);
}

Task<absl::StatusOr<std::vector<ListenDescriptor>>> Take(Os& os) { co_return os.TakeListenDescriptors(); }

// A listener that a service manager has bound and handed over.
void ServeOnGivenSockets(Stage& stage) {
  SimOs& os = stage.server().os();
  const SocketAddress address = Address("127.0.0.1:7000");
  int fd = -1;
  for (int tries = 0; tries < 2 && fd < 0; ++tries) {
    if (tries > 0) stage.Recover();
    fd = os.Socket(AF_INET, SOCK_STREAM);
    if (fd >= 0 && os.Bind(fd, address) != 0) {
      os.Close(fd);
      fd = -1;
    }
  }
  os.HandOver(fd, "echo");
  const auto take = [&]() -> Task<absl::StatusOr<std::vector<ListenDescriptor>>> { return Take(os); };
  const absl::StatusOr<std::vector<ListenDescriptor>> taken = stage.Try(stage.server(), "take", take);
  StreamServerOptions options;
  options.sockets = {taken->front().fd};
  std::unique_ptr<StreamServer> server;
  {
    auto factory = [&stage]() -> std::unique_ptr<BaseProtocol> { return stage.NewProtocol("served"); };
    auto making = CreateServer(stage.server().loop(), factory, options);
    MadeServer made = stage.Run(stage.server(), "serve", std::move(making));
    if (!made.ok()) {
      // Taken over, or left alone if it was refused.
      if (absl::IsInvalidArgument(made.status())) stage.Expect(os.Close(fd) == 0, "a refused socket was closed");
      return;
    }
    server = *std::move(made);
  }
  Client client = ConnectTo(stage, stage.server(), "127.0.0.1:7000");
  client.transport->WriteEof();
  stage.RunUntil([&] { return client.life->lost(); });
  CloseServer(stage, *server);
}

// More clients than the server takes at once: the last is served when the first has gone.
void ServeUpToTheLimit(Stage& stage) {
  StreamServerOptions options;
  options.listen = {"0.0.0.0:7000"};
  options.connections_max = 1;
  const auto server = Serve(stage, options);
  Client first = ConnectTo(stage, stage.client(), "10.0.0.1:7000");
  Client second = ConnectTo(stage, stage.client(), "10.0.0.1:7000");
  first.transport->Write("first");
  second.transport->Write("second");
  stage.RunUntil([&] { return first.Heard("first"); });
  first.transport->Close();
  stage.RunUntil([&] { return second.Heard("second"); });
  second.transport->Close();
  stage.RunUntil([&] { return stage.AllLost(); });
  ExpectServed(stage, stage.client(), Address("10.0.0.1:7000"));
  CloseServer(stage, *server);
}

// Much more than the sockets hold, to an end that stops reading from time to time.
void FlowControl(Stage& stage) {
  stage.world().kernel().SetSendBufferBytes(20'000);
  const auto server = ServeOn(stage, {"0.0.0.0:7000"});
  Client client = ConnectTo(stage, stage.client(), "10.0.0.1:7000");
  const std::string much(100'000, 'x');
  client.transport->PauseReading();
  client.transport->Write(much);
  stage.RunFor(absl::Milliseconds(100));
  client.transport->ResumeReading();
  stage.RunUntil([&] { return client.life->lost() || client.received->size() > 10'000; });
  client.transport->PauseReading();
  stage.RunFor(absl::Milliseconds(100));
  client.transport->ResumeReading();
  stage.RunUntil([&] { return client.Heard(much); });
  client.transport->WriteEof();
  stage.RunUntil([&] { return client.life->lost(); });
  CloseServer(stage, *server);
}

// The client aborts while it has something to say and the server too.
void Abort(Stage& stage) {
  stage.world().kernel().SetSendBufferBytes(2'000);
  const auto server = ServeOn(stage, {"0.0.0.0:7000"});
  Client client = ConnectTo(stage, stage.client(), "10.0.0.1:7000");
  client.transport->Write(std::string(30'000, 'x'));
  stage.RunUntil([&] { return client.life->lost() || !client.received->empty(); });
  client.transport->Abort();
  stage.RunUntil([&] { return client.life->lost(); });
  stage.RunFor(absl::Seconds(1));
  CloseServer(stage, *server);
}

// The server goes while clients are connected and one waits to be accepted.
void ServerDestroyed(Stage& stage) {
  auto server = ServeOn(stage, {"0.0.0.0:7000"});
  Client client = ConnectTo(stage, stage.client(), "10.0.0.1:7000");
  client.transport->Write("hello");
  stage.RunUntil([&] { return client.Heard("hello"); });
  server.reset();
  stage.RunUntil([&] { return client.life->lost(); });
}

// ---- sockets without transports

// As many bytes as "hello" has, or fewer at the end.
Task<absl::StatusOr<std::string>> ReceiveHello(EventLoop& loop, int fd) {
  std::string all;
  while (all.size() < 5) {
    const absl::StatusOr<std::string> some = co_await SockRecv(loop, fd, 5 - all.size());
    if (!some.ok()) co_return some.status();
    if (some->empty()) break;
    all += *some;
  }
  co_return all;
}

Task<absl::Status> AcceptAndEcho(EventLoop& loop, int listener) {
  const absl::StatusOr<Accepted> accepted = co_await SockAccept(loop, listener);
  if (!accepted.ok()) co_return accepted.status();
  const int fd = accepted->fd();
  const absl::StatusOr<std::string> said = co_await ReceiveHello(loop, fd);
  if (!said.ok()) co_return said.status();
  co_return co_await SockSendAll(loop, fd, *said);
}

Task<absl::Status> ConnectAndSay(EventLoop& loop, int fd) {
  CO_RETURN_IF_ERROR(co_await SockConnect(loop, fd, "server:7000"));
  const std::string text = "hello";
  CO_RETURN_IF_ERROR(co_await SockSendAll(loop, fd, text));
  const absl::StatusOr<std::string> heard = co_await ReceiveHello(loop, fd);
  if (!heard.ok()) co_return heard.status();
  co_return *heard == text ? absl::OkStatus() : absl::UnavailableError("the server went away");
}

Task<absl::Status> WithinASecond(Task<absl::Status> task) {
  auto waiting = WaitFor(std::move(task), absl::Seconds(1));
  const absl::Status end = co_await std::move(waiting);
  co_return end;
}

Task<void> Noted(Stage& stage, const char* what, Task<absl::Status> task) {
  const absl::Status end = co_await std::move(task);
  stage.Answered(what, end);
}

// In debug mode, which looks at descriptors more closely.
void SocketsWithoutTransports(Stage& stage) {
  SimOs& server = stage.server().os();
  SimOs& client = stage.client().os();
  for (SimHost* host : {&stage.server(), &stage.client()}) host->loop().SetDebug(true);
  for (int tries = 0; tries < 3; ++tries) {
    if (tries > 0) stage.Recover();
    const int listener = server.Socket(AF_INET, SOCK_STREAM);
    const int fd = client.Socket(AF_INET, SOCK_STREAM);
    bool over = listener < 0 || fd < 0 || server.Bind(listener, Address("0.0.0.0:7000")) != 0 ||
                server.Listen(listener, 10) != 0;
    if (!over) {
      stage.Asked("accept");
      TaskHandle<void> accepting =
          stage.server().loop().CreateTask(Noted(stage, "accept", AcceptAndEcho(stage.server().loop(), listener)));
      const absl::Status said =
          stage.Run(stage.client(), "connect", WithinASecond(ConnectAndSay(stage.client().loop(), fd)));
      stage.RunFor(absl::Seconds(1));
      if (!accepting.done()) accepting.Cancel();
      stage.RunFor(absl::Milliseconds(1));
      if (accepting.cancelled()) stage.Answered("accept", absl::CancelledError("nobody came"));
      over = !said.ok();
    }
    if (listener >= 0) server.Close(listener);
    if (fd >= 0) client.Close(fd);
    stage.RunFor(absl::Milliseconds(10));
    if (!over) return;
  }
  stage.Broken("three attempts failed");
}

void NameOfAnAddress(Stage& stage) {
  const auto ask = [&] { return GetNameInfo(stage.client().loop(), Address("10.0.0.1:80")); };
  for (int i = 0; i < 2; ++i) {
    const absl::StatusOr<HostName> name = stage.Try(stage.client(), "name", ask);
    stage.Expect(name->host == "server" && name->service == "http", "another name");
  }
}

}  // namespace

std::vector<Scenario> NetScenarios() {
  return {
      {"connect", ConnectByAddress},
      {"connect_by_name", ConnectByName},
      {"connect_from_an_address", ConnectFromAnAddress},
      {"connect_given_sockets", ConnectGivenSockets},
      {"serve", ServeOnSeveralAddresses},
      {"serve_on_a_stale_path", ServeOnAStalePath},
      {"serve_on_given_sockets", ServeOnGivenSockets},
      {"serve_up_to_the_limit", ServeUpToTheLimit},
      {"flow_control", FlowControl},
      {"abort", Abort},
      {"server_destroyed", ServerDestroyed},
      {"sockets_without_transports", SocketsWithoutTransports},
      {"name_of_an_address", NameOfAnAddress},
  };
}

}  // namespace troupe::testing
