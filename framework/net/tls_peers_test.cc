// TLS with peers that are not ours, over the kernel's sockets: OpenSSL's command line, curl, Python's asyncio.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/task.h"
#include "troupe/loop/event_loop.h"
#include "troupe/loop/exception_context.h"
#include "troupe/net/connect.h"
#include "troupe/net/internal/recording_protocol.h"
#include "troupe/net/stream_server.h"
#include "troupe/net/tls.h"
#include "troupe/net/tls_context.h"
#include "troupe/os/posix_os.h"
#include "troupe/testing/tls_certificates.h"

namespace troupe::internal {
namespace {

using ::testing::HasSubstr;
using testing::TestCertificate;
using testing::TestCertificateOptions;

std::string Path(absl::string_view name) {
  const char* folder = std::getenv("TEST_TMPDIR");
  return absl::StrCat(folder != nullptr ? folder : "/tmp", "/", name);
}

class TlsPeersTest : public ::testing::Test {
 protected:
  TlsPeersTest() {
    loop_.SetExceptionHandler([](EventLoop&, const ExceptionContext& context) { ADD_FAILURE() << context.ToString(); });
    const TestCertificate root = TestCertificate::Root();
    TestCertificateOptions leaf;
    leaf.dns_names = {"kv.test"};
    leaf.ip_addresses = {"127.0.0.1"};
    const TestCertificate certificate = root.Issue(leaf);
    std::ofstream(Path("root.pem")) << root.certificate();
    std::ofstream(Path("leaf.pem")) << certificate.chain();
    std::ofstream(Path("leaf.key")) << certificate.key();
    server_options_.certificates.emplace_back();
    server_options_.certificates[0].chain = certificate.chain();
    server_options_.certificates[0].key = certificate.key();
    server_options_.alpn = {"http/1.1", "echo"};
    client_options_.roots = root.certificate();
  }
  ~TlsPeersTest() override {
    server_.reset();
    loop_.CallLater(absl::ZeroDuration(), [this] { loop_.CallSoon([this] { loop_.Stop(); }); });
    loop_.RunForever();
    loop_.Close();
  }

  // Serves TLS on a free port, as heard_ says.
  std::string Serve() {
    const TlsContext context = *TlsContext::ForServer(server_options_);
    StreamServerOptions options;
    options.listen = {"127.0.0.1:0"};
    options.tls = &context;
    auto made = loop_.RunUntilComplete(CreateServer(
        loop_, [this] { return heard_.NewProtocol(); }, options));
    EXPECT_TRUE(made.ok()) << made.status();
    server_ = *std::move(made);
    return absl::StrCat(server_->addresses().front().port());
  }
  // Runs the loop while a shell runs `command`, whose output this is. `line` is told each line as it comes.
  std::string Shell(const std::string& command, std::function<void(std::string)> line = nullptr) {
    std::string output;
    std::thread reader([&] {
      FILE* const pipe = popen(absl::StrCat("{ ", command, " ; } 2>&1").c_str(), "r");
      char text[4096];
      while (std::fgets(text, sizeof(text), pipe) != nullptr) {
        output += text;
        if (line) loop_.CallSoonThreadsafe([&line, said = std::string(text)] { line(said); });
      }
      pclose(pipe);
      loop_.CallSoonThreadsafe([this] { loop_.Stop(); });
    });
    loop_.RunForever();
    reader.join();
    return output;
  }
  // Connects to a server that says "port NUMBER", or OpenSSL's "ACCEPT 127.0.0.1:NUMBER", and writes `text`.
  std::function<void(std::string)> ConnectWhenTold(std::string text) {
    return [this, text = std::move(text)](std::string said) {
      if (!absl::StartsWith(said, "port ") && !absl::StartsWith(said, "ACCEPT 127.0.0.1:")) return;
      int port = 0;
      EXPECT_TRUE(absl::SimpleAtoi(said.substr(said.find_last_of(" :") + 1), &port)) << said;
      loop_.CreateTask(Converse(port, text));
    };
  }
  Task<void> Converse(int port, std::string text) {
    const TlsContext context = *TlsContext::ForClient(client_options_);
    const std::string target = absl::StrCat("127.0.0.1:", port);
    ConnectOptions options;
    options.target = target;
    options.tls = &context;
    options.server_hostname = "kv.test";
    const auto factory = [this] { return heard_.NewProtocol(); };
    auto connected = co_await CreateConnection(loop_, factory, options);
    status_ = connected.status();
    if (!connected.ok()) co_return;
    transport_ = std::move(connected->transport);
    transport_->Write(absl::MakeConstSpan(text));
  }
  Task<void> Upgrade(Task<absl::StatusOr<Transport*>> starting) {
    const absl::StatusOr<Transport*> made = co_await std::move(starting);
    status_ = made.status();
  }
  // What an echo does: a line comes back, and "bye" ends it.
  void Echo() {
    heard_.on_data = [this](Transport& transport, absl::Span<const char> data) {
      transport.Write(data);
      if (absl::EndsWith(heard_.log.back(), "bye\n")) transport.Close();
    };
  }

  EventLoop loop_{PosixOs::Get()};
  TlsOptions server_options_, client_options_;
  Recording heard_;
  std::unique_ptr<StreamServer> server_;
  TransportPtr transport_;
  absl::Status status_ = absl::UnknownError("not tried");
};

TEST_F(TlsPeersTest, OpenSslConnectsToUs) {
  Echo();
  const std::string port = Serve();
  for (const char* version : {"-tls1_2", "-tls1_3"}) {
    const std::string said = Shell(absl::StrCat(
        "printf 'hello\\nbye\\n' | openssl s_client -connect 127.0.0.1:", port, " -servername kv.test -CAfile ",
        Path("root.pem"), " -verify_return_error -verify_hostname kv.test -alpn echo -ign_eof ", version));
    EXPECT_THAT(said, HasSubstr("hello\nbye\n"));
    EXPECT_THAT(said, HasSubstr("Verify return code: 0 (ok)"));
    EXPECT_THAT(said, HasSubstr("ALPN protocol: echo"));
  }
  // It may have ended before we have heard of it.
  while (server_->connections() > 0) loop_.RunOnceWithoutWaiting();
  EXPECT_EQ(heard_.Count("lost OK"), 2u);
  const std::string refused = Shell(absl::StrCat("openssl s_client -connect 127.0.0.1:", port, " -tls1_1 < /dev/null"));
  EXPECT_THAT(refused, HasSubstr("no peer certificate available"));
  EXPECT_EQ(heard_.Count("made"), 2u);
}

TEST_F(TlsPeersTest, WeConnectToOpenSsl) {
  heard_.on_data = [this](Transport& transport, absl::Span<const char>) {
    if (absl::EndsWith(heard_.log.back(), "\n")) transport.Close();
  };
  for (const char* version : {"-tls1_2", "-tls1_3"}) {
    heard_.log.clear();
    Shell(absl::StrCat("timeout 60 openssl s_server -accept 127.0.0.1:0 -naccept 1 -rev -cert ", Path("leaf.pem"),
                       " -key ", Path("leaf.key"), " ", version),
          ConnectWhenTold("hello\n"));
    ASSERT_TRUE(status_.ok()) << status_;
    loop_.RunUntilComplete(transport_->Closed());
    EXPECT_THAT(heard_.log, ::testing::ElementsAre("made", "data olleh\n", "lost OK"));
  }
}

TEST_F(TlsPeersTest, CurlFetchesFromUs) {
  heard_.on_data = [this](Transport& transport, absl::Span<const char>) {
    if (!absl::EndsWith(heard_.log.back(), "\r\n\r\n")) return;
    transport.Write("HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n");
    transport.Close();
  };
  const std::string port = Serve();
  const std::string resolve =
      absl::StrCat(" --noproxy '*' --resolve kv.test:", port, ":127.0.0.1 --resolve other.test:", port,
                   ":127.0.0.1 -sS --cacert ", Path("root.pem"), " ");
  EXPECT_EQ(Shell(absl::StrCat("curl", resolve, "https://kv.test:", port, "/")), "hello\n");
  EXPECT_THAT(Shell(absl::StrCat("curl", resolve, "https://other.test:", port, "/")), HasSubstr("other.test"));
}

TEST_F(TlsPeersTest, AsyncioConnectsToUs) {
  Echo();
  const std::string port = Serve();
  std::ofstream(Path("client.py")) << R"py(
import asyncio, ssl, sys
async def main():
    context = ssl.create_default_context(cafile=sys.argv[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", int(sys.argv[1]), ssl=context, server_hostname="kv.test")
    big = b"x" * 3000000 + b"\n"
    async def write():
        writer.write(big)
        await writer.drain()
        writer.write(b"bye\n")
    task = asyncio.create_task(write())
    got = await reader.readexactly(len(big))
    rest = await reader.read()
    await task
    print(got == big, rest, writer.get_extra_info("cipher")[1])
    writer.close()
    await writer.wait_closed()
    print("closed")
asyncio.run(main())
)py";
  EXPECT_EQ(Shell(absl::StrCat("python3 ", Path("client.py"), " ", port, " ", Path("root.pem"))),
            "True b'bye\\n' TLSv1.3\nclosed\n");
  EXPECT_EQ(heard_.log.back(), "lost OK");
}

TEST_F(TlsPeersTest, WeConnectToAsyncio) {
  std::ofstream(Path("server.py")) << R"py(
import asyncio, ssl, sys
class Echo(asyncio.Protocol):
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data): self.transport.write(data)
    def eof_received(self): print("eof", flush=True)
    def connection_lost(self, error):
        print("lost", error, flush=True)
        done.set()
async def main():
    global done
    done = asyncio.Event()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0, ssl=context)
    print("port", server.sockets[0].getsockname()[1], flush=True)
    await asyncio.wait_for(done.wait(), 60)
asyncio.run(main())
)py";
  const std::string text(3'000'000, 'x');
  heard_.on_data = [&](Transport& transport, absl::Span<const char>) {
    if (heard_.received == text.size()) transport.Close();
  };
  const std::string said = Shell(
      absl::StrCat("python3 ", Path("server.py"), " ", Path("leaf.pem"), " ", Path("leaf.key")), ConnectWhenTold(text));
  ASSERT_TRUE(status_.ok()) << status_;
  loop_.RunUntilComplete(transport_->Closed());
  EXPECT_EQ(heard_.received, text.size());
  EXPECT_EQ(heard_.log.back(), "lost OK");
  EXPECT_THAT(said, HasSubstr("eof\nlost None\n"));
}

// STARTTLS, asyncio's start_tls at the other end.
TEST_F(TlsPeersTest, AsyncioUpgradesWithUs) {
  const TlsContext context = *TlsContext::ForServer(server_options_);
  heard_.on_data = [&](Transport& transport, absl::Span<const char>) {
    if (heard_.log.back() == "data STARTTLS\n") {
      transport.Write("go\n");
      loop_.CreateTask(Upgrade(StartTls(transport, context)));
    } else if (absl::EndsWith(heard_.log.back(), "secret\n")) {
      transport.Write("secret\n");
      transport.Close();
    }
  };
  StreamServerOptions options;
  options.listen = {"127.0.0.1:0"};
  server_ = *loop_.RunUntilComplete(CreateServer(
      loop_, [this] { return heard_.NewProtocol(); }, options));
  std::ofstream(Path("starttls.py")) << R"py(
import asyncio, ssl, sys
class Client(asyncio.Protocol):
    def __init__(self): self.got = asyncio.Queue()
    def data_received(self, data): self.got.put_nowait(data)
    def connection_lost(self, error): self.got.put_nowait(None)
async def main():
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_connection(Client, "127.0.0.1", int(sys.argv[1]))
    transport.write(b"STARTTLS\n")
    print(await protocol.got.get())
    context = ssl.create_default_context(cafile=sys.argv[2])
    transport = await loop.start_tls(transport, protocol, context, server_hostname="kv.test")
    transport.write(b"secret\n")
    print(await protocol.got.get())
    print(await protocol.got.get())
asyncio.run(main())
)py";
  EXPECT_EQ(Shell(absl::StrCat("python3 ", Path("starttls.py"), " ", server_->addresses().front().port(), " ",
                               Path("root.pem"))),
            "b'go\\n'\nb'secret\\n'\nNone\n");
  EXPECT_TRUE(status_.ok()) << status_;
}

}  // namespace
}  // namespace troupe::internal
