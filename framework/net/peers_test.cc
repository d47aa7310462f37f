// Datagrams and Unix sockets with peers that are not ours, over the kernel's sockets: socat and Python's asyncio. What has
// TLS is in tls_peers_test.cc.
#include <stdlib.h>
#include <unistd.h>

#include <fstream>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/base/socket_address.h"
#include "troupe/loop/event_loop.h"
#include "troupe/loop/exception_context.h"
#include "troupe/net/connect.h"
#include "troupe/net/datagram.h"
#include "troupe/net/internal/recording_datagrams.h"
#include "troupe/net/internal/recording_protocol.h"
#include "troupe/net/process.h"
#include "troupe/net/stream_server.h"
#include "troupe/os/posix_os.h"

namespace troupe::internal {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class PeersTest : public ::testing::Test {
 protected:
  PeersTest() {
    loop_.SetExceptionHandler([](EventLoop&, const ExceptionContext& context) { ADD_FAILURE() << context.ToString(); });
  }
  ~PeersTest() override { loop_.Close(); }
  static void SetUpTestSuite() {
    const char* const folder = ::getenv("TEST_TMPDIR");
    if (folder != nullptr) {
      ASSERT_EQ(::chdir(folder), 0);
    }
  }
  // Of this process, so that nobody else has it.
  static std::string Name(absl::string_view name) { return absl::StrCat(name, "_", ::getpid()); }

  Process Start(const std::string& command) {
    const SubprocessOptions options = {.input = Stdio::Pipe(), .output = Stdio::Pipe(), .error = Stdio::Output()};
    absl::StatusOr<Process> started = loop_.RunUntilComplete(CreateSubprocessShell(loop_, command, options));
    EXPECT_TRUE(started.ok()) << started.status();
    return *std::move(started);
  }
  // What `command` says when it is given `input`.
  std::string Ask(const std::string& command, absl::string_view input = {}) {
    Process process = Start(command);
    const CommunicateOptions options = {.input = input};
    const absl::StatusOr<ProcessResult> result = loop_.RunUntilComplete(process.Communicate(options));
    EXPECT_TRUE(result.ok()) << result.status();
    loop_.RunUntilComplete(process.transport().Closed());
    return result.ok() ? result->output : "";
  }
  // Up to the line of a process that has `text` in it.
  std::string LineWith(Process& process, absl::string_view text) {
    ProcessReader output = process.output();
    while (true) {
      const absl::StatusOr<std::string> line = loop_.RunUntilComplete(output.ReadLine());
      EXPECT_TRUE(line.ok() && !line->empty()) << "it ended before it said " << text;
      if (!line.ok() || line->empty() || absl::StrContains(*line, text)) return line.ok() ? *line : "";
    }
  }
  void End(Process& process) {
    process.Close();
    loop_.RunUntilComplete(process.transport().Closed());
  }
  template <class T>
  void End(T& transport) {
    transport->Close();
    loop_.RunUntilComplete(transport->Closed());
    transport.reset();
  }
  DatagramTransportPtr Create(const DatagramOptions& options) {
    const auto factory = [this] { return datagrams_.NewProtocol(); };
    absl::StatusOr<DatagramEndpoint<>> made = loop_.RunUntilComplete(CreateDatagramEndpoint(loop_, factory, options));
    EXPECT_TRUE(made.ok()) << made.status();
    return made.ok() ? std::move(made->transport) : nullptr;
  }
  void EchoDatagrams() {
    datagrams_.on_data = [this](DatagramTransport& transport, absl::string_view text) {
      transport.SendTo(absl::StrCat("echo ", text), datagrams_.from);
    };
  }
  template <class Condition>
  void Until(Condition condition) {
    while (!condition()) loop_.RunOnceWithoutWaiting();
  }

  EventLoop loop_{PosixOs::Get()};
  DatagramRecording datagrams_;
  Recording heard_;
};

TEST_F(PeersTest, SocatAsksAnEndpoint) {
  EchoDatagrams();
  const std::string path = Name("endpoint");
  for (const std::string& local : {std::string("127.0.0.1:0"), std::string("[::1]:0"), absl::StrCat("unix:", path)}) {
    SCOPED_TRACE(local);
    datagrams_.log.clear();
    DatagramTransportPtr endpoint = Create({.local = local});
    const uint16_t port = endpoint->local().port();
    const std::string to = port == 0 ? absl::StrCat("UNIX-CONNECT:", path, ",type=2,bind=", Name("socat"))
                           : absl::StartsWith(local, "[") ? absl::StrCat("UDP6:[::1]:", port)
                                                          : absl::StrCat("UDP4:127.0.0.1:", port);
    EXPECT_EQ(Ask(absl::StrCat("exec socat -t 60 - ", to, ",readbytes=10"), "hello"), "echo hello");
    EXPECT_THAT(datagrams_.log, ElementsAre("made", "data hello"));
    End(endpoint);
  }
  ::unlink(path.c_str());
  ::unlink(Name("socat").c_str());
}

TEST_F(PeersTest, WeAskSocatByDatagrams) {
  Process socat = Start("exec socat -d -d UDP4-LISTEN:0,bind=127.0.0.1 PIPE");
  const std::string said = LineWith(socat, "listening on UDP");
  const std::string remote = said.substr(said.rfind(' ') + 1, said.find('\n') - said.rfind(' ') - 1);
  DatagramTransportPtr endpoint = Create({.remote = remote});
  endpoint->SendTo("hello");
  Until([&] { return datagrams_.log.size() == 2; });
  EXPECT_THAT(datagrams_.log, ElementsAre("made", "data hello"));
  End(endpoint);
  End(socat);
}

TEST_F(PeersTest, SocatConnectsToUnixServers) {
  heard_.on_data = [](Transport& transport, absl::Span<const char> data) {
    transport.Write("echo ");
    transport.Write(data);
    transport.Close();
  };
  const std::string path = Name("server");
  const std::pair<std::string, std::string> ways[] = {
      {"unix:" + path, "UNIX-CONNECT:" + path},
      {"unix-abstract:" + path, "ABSTRACT-CONNECT:" + path},
  };
  for (const auto& [listen, to] : ways) {
    SCOPED_TRACE(listen);
    heard_.log.clear();
    StreamServerOptions options;
    options.listen = {listen};
    const auto factory = [this] { return heard_.NewProtocol(); };
    auto server = *loop_.RunUntilComplete(CreateServer(loop_, factory, options));
    EXPECT_EQ(Ask(absl::StrCat("exec socat -t 60 - ", to), "hello"), "echo hello");
    server->Close();
    loop_.RunUntilComplete(server->WaitClosed());
    EXPECT_THAT(heard_.log, ElementsAre("made", "data hello", "lost OK"));
  }
  ::unlink(path.c_str());
}

TEST_F(PeersTest, WeConnectToUnixServersOfSocat) {
  const std::string path = Name("socat_server");
  const std::pair<std::string, std::string> ways[] = {
      {"UNIX-LISTEN:" + path, "unix:" + path},
      {"ABSTRACT-LISTEN:" + path, "unix-abstract:" + path},
  };
  for (const auto& [listen, target] : ways) {
    SCOPED_TRACE(listen);
    heard_.log.clear();
    Process socat = Start(absl::StrCat("exec socat -d -d ", listen, " PIPE"));
    LineWith(socat, "listening on AF=1");
    ConnectOptions options;
    options.target = target;
    const auto factory = [this] { return heard_.NewProtocol(); };
    auto connected = loop_.RunUntilComplete(CreateConnection(loop_, factory, options));
    ASSERT_TRUE(connected.ok()) << connected.status();
    connected->transport->Write("hello");
    Until([&] { return heard_.log.size() == 2; });
    connected->transport->WriteEof();
    Until([&] { return heard_.lost(); });
    EXPECT_THAT(heard_.log, ElementsAre("made", "data hello", "eof", "lost OK"));
    connected->transport.reset();
    End(socat);
  }
  ::unlink(path.c_str());
}

// asyncio's datagrams, over UDP and over Unix sockets.
constexpr absl::string_view kAsyncioAsks = R"py(
import asyncio, socket, sys
class Client(asyncio.DatagramProtocol):
    def __init__(self): self.got = asyncio.Queue()
    def datagram_received(self, data, sender): self.got.put_nowait(data)
async def main():
    loop = asyncio.get_running_loop()
    if sys.argv[1] == "unix":
        where = dict(local_addr=sys.argv[3], remote_addr=sys.argv[2], family=socket.AF_UNIX)
    else:
        where = dict(remote_addr=(sys.argv[1], int(sys.argv[2])))
    transport, client = await loop.create_datagram_endpoint(Client, **where)
    for data in (b"one", b"x" * 20000):  # before CPython 3.12 it sends no empty ones
        transport.sendto(data)
        print(len(await client.got.get()))
    transport.close()
asyncio.run(main())
)py";

TEST_F(PeersTest, AsyncioAsksAnEndpoint) {
  EchoDatagrams();
  std::ofstream("ask.py") << kAsyncioAsks;
  const std::string path = Name("endpoint");
  for (const std::string& local : {std::string("127.0.0.1:0"), std::string("[::1]:0"), absl::StrCat("unix:", path)}) {
    SCOPED_TRACE(local);
    DatagramTransportPtr endpoint = Create({.local = local});
    const SocketAddress& where = endpoint->local();
    EXPECT_EQ(Ask(where.is_ip() ? absl::StrCat("exec python3 ask.py ", where.host(), " ", where.port())
                                : absl::StrCat("exec python3 ask.py unix ", path, " ", Name("asker"))),
              "8\n20005\n");
    End(endpoint);
  }
  ::unlink(path.c_str());
  ::unlink(Name("asker").c_str());
}

TEST_F(PeersTest, WeAskAsyncioByDatagrams) {
  std::ofstream("answer.py") << R"py(
import asyncio
class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport): self.transport = transport
    def datagram_received(self, data, sender): self.transport.sendto(b"echo " + data, sender)
async def main():
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    print("port", transport.get_extra_info("sockname")[1], flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
)py";
  Process asyncio = Start("exec python3 answer.py");
  const std::string said = LineWith(asyncio, "port ");
  const std::string remote = absl::StrCat("127.0.0.1:", said.substr(5, said.size() - 6));
  DatagramTransportPtr endpoint = Create({.remote = remote});
  endpoint->SendTo("hello");
  endpoint->SendTo({});
  Until([&] { return datagrams_.log.size() == 3; });
  EXPECT_THAT(datagrams_.log, ElementsAre("made", "data echo hello", "data echo "));
  End(endpoint);
  End(asyncio);
}

// Streams over Unix sockets, the library's own tools at the other end.
TEST_F(PeersTest, AsyncioConnectsToAUnixServer) {
  heard_.on_data = [](Transport& transport, absl::Span<const char> data) { transport.Write(data); };
  const std::string path = Name("server");
  StreamServerOptions options;
  options.listen = {absl::StrCat("unix:", path)};
  const auto factory = [this] { return heard_.NewProtocol(); };
  auto server = *loop_.RunUntilComplete(CreateServer(loop_, factory, options));
  std::ofstream("connect.py") << R"py(
import asyncio, sys
async def main():
    reader, writer = await asyncio.open_unix_connection(sys.argv[1])
    big = b"x" * 1000000
    writer.write(big)
    print(await reader.readexactly(len(big)) == big)
    writer.write_eof()
    print(await reader.read())
    writer.close()
    await writer.wait_closed()
asyncio.run(main())
)py";
  EXPECT_EQ(Ask(absl::StrCat("exec python3 connect.py ", path)), "True\nb''\n");
  server->Close();
  loop_.RunUntilComplete(server->WaitClosed());
  EXPECT_EQ(heard_.received, 1000000u);
  EXPECT_EQ(heard_.log.back(), "lost OK");
  ::unlink(path.c_str());
}

}  // namespace
}  // namespace troupe::internal
