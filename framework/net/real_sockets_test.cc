// Servers and connections over the kernel's own sockets: what the other tests of this folder show on a simulated machine
// holds here too. A step waits until what must happen has happened; what must not happen is tested in simulation.
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/task.h"
#include "troupe/base/errors.h"
#include "troupe/base/os_error.h"
#include "troupe/loop/event_loop.h"
#include "troupe/loop/loop_testing.h"
#include "troupe/net/connect.h"
#include "troupe/net/internal/recording_protocol.h"
#include "troupe/net/stream_server.h"
#include "troupe/net/stream_transport.h"
#include "troupe/os/posix_os.h"

namespace troupe {
namespace {

using internal::Recording;
using ::testing::AnyOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class RealSocketsTest : public ::testing::TestWithParam<Polling> {
 protected:
  using MadeServer = absl::StatusOr<std::unique_ptr<StreamServer>>;

  // A Unix path has 107 bytes at most, and the folder for temporary files alone may have more: so paths are relative.
  static void SetUpTestSuite() {
    const char* const folder = ::getenv("TEST_TMPDIR");
    if (folder != nullptr) {
      ASSERT_EQ(::chdir(folder), 0);
    }
  }
  void SetUp() override {
    // Made here, not in the constructor: the count below includes the loop's own.
    descriptors_before_ = CountDescriptors();
    loop_ =
        std::make_unique<EventLoop>(PosixOs::Get(), EventLoopOptions{.strict_polling = GetParam() == Polling::kStrict});
    served_.on_data = [](Transport& transport, absl::Span<const char> data) { transport.Write(data); };
  }
  void TearDown() override {
    clients_.clear();
    server_.reset();
    Until([&] { return served_.alive == 0 && client_.alive == 0; });
    loop_->Close();
    loop_.reset();
    EXPECT_EQ(CountDescriptors(), descriptors_before_) << "descriptors were left open";
    for (const std::string& path : paths_) ::unlink(path.c_str());
  }
  static size_t CountDescriptors() {
    const std::filesystem::directory_iterator all("/proc/self/fd");
    return static_cast<size_t>(std::distance(begin(all), end(all)));
  }

  template <class Condition>
  void Until(Condition condition) {
    while (!condition()) loop_->RunOnceWithoutWaiting();
  }
  std::string TempPath(const char* name) {
    paths_.push_back(absl::StrCat("net_", ::getpid(), "_", name));
    return paths_.back();
  }

  MadeServer Create(const StreamServerOptions& options) {
    return loop_->RunUntilComplete(CreateServer(*loop_, [this] { return served_.NewProtocol(); }, options));
  }
  void Serve(const StreamServerOptions& options) {
    MadeServer made = Create(options);
    ASSERT_TRUE(made.ok()) << made.status();
    server_ = *std::move(made);
  }
  absl::StatusOr<Connected<>> TryConnect(const ConnectOptions& options) {
    return loop_->RunUntilComplete(CreateConnection(*loop_, [this] { return client_.NewProtocol(); }, options));
  }
  absl::StatusOr<Connected<>> TryConnect(const SocketAddress& address) {
    ConnectOptions options;
    options.address = address;
    return TryConnect(options);
  }
  Transport& Connect(const SocketAddress& address) {
    absl::StatusOr<Connected<>> connected = TryConnect(address);
    EXPECT_TRUE(connected.ok()) << connected.status();
    clients_.push_back(std::move(connected->transport));
    return *clients_.back();
  }
  // A blocking one, as it comes from elsewhere.
  static int ForeignSocket(const SocketAddress& bound_to) {
    const int fd = ::socket(bound_to.family(), SOCK_STREAM, 0);
    EXPECT_EQ(::bind(fd, bound_to.get(), bound_to.length()), 0);
    return fd;
  }
  static int Option(int fd, int level, int name) {
    int value = 0;
    socklen_t length = sizeof(value);
    EXPECT_EQ(::getsockopt(fd, level, name, &value, &length), 0);
    return value;
  }
  static bool IsNonBlocking(int fd) { return (::fcntl(fd, F_GETFL) & O_NONBLOCK) != 0; }
  // Says something to `address` and waits for the echo and for the end at both sides.
  void TalkTo(const SocketAddress& address) {
    SCOPED_TRACE(address.ToString());
    client_ = Recording();
    served_.log.clear();
    Transport& client = Connect(address);
    client.Write("hello");
    Until([&] { return client_.received == 5; });
    client.WriteEof();
    Until([&] { return client_.lost() && served_.lost(); });
    EXPECT_THAT(client_.log, ElementsAre("made", "data hello", "eof", "lost OK"));
    EXPECT_THAT(served_.log, ElementsAre("made", "data hello", "eof", "lost OK"));
    clients_.clear();
    Until([&] { return client_.alive == 0; });
  }

  size_t descriptors_before_ = 0;
  std::vector<std::string> paths_;
  std::unique_ptr<EventLoop> loop_;
  Recording served_, client_;
  std::unique_ptr<StreamServer> server_;
  std::vector<TransportPtr> clients_;
};

INSTANTIATE_POLLING(RealSocketsTest);

// C-TRN-01, C-TRN-02, C-SRV-02, C-SRV-04, C-CON-07
TEST_P(RealSocketsTest, ALifeOverEveryFamilyAndSeveralAddresses) {
  const std::string path = TempPath("life");
  Serve({.listen = {"127.0.0.1:0", "[::1]:0", "unix:" + path}});
  ASSERT_THAT(server_->addresses(), SizeIs(3));
  for (const SocketAddress& address : server_->addresses()) TalkTo(address);
  EXPECT_EQ(server_->accepted().value(), 3u);
  EXPECT_EQ(server_->connections(), 0u);
}

// C-CSV-10, C-ACC-09
TEST_P(RealSocketsTest, EverySocketIsNonBlockingAndBothEndsKnowBothAddresses) {
  Serve({.listen = {"127.0.0.1:0"}});
  EXPECT_TRUE(IsNonBlocking(server_->sockets().front()));
  bool checked = false;
  served_.on_made = [&](Transport& transport) {
    checked = IsNonBlocking(transport.descriptor());
    served_.log.push_back(absl::StrCat(transport.local().ToString(), " ", transport.peer().ToString()));
  };
  Transport& client = Connect(server_->addresses().front());
  Until([&] { return served_.log.size() == 2; });
  EXPECT_TRUE(checked);
  EXPECT_TRUE(IsNonBlocking(client.descriptor()));
  EXPECT_EQ(client.peer(), server_->addresses().front());
  EXPECT_EQ(served_.log[1], absl::StrCat(client.peer().ToString(), " ", client.local().ToString()));
}

// C-TRN-12
TEST_P(RealSocketsTest, NagleIsOffOnTcp) {
  Serve({.listen = {"127.0.0.1:0"}});
  int nodelay = -1;
  served_.on_made = [&](Transport& transport) { nodelay = Option(transport.descriptor(), IPPROTO_TCP, TCP_NODELAY); };
  const Transport& client = Connect(server_->addresses().front());
  Until([&] { return nodelay >= 0; });
  EXPECT_NE(nodelay, 0);
  EXPECT_NE(Option(client.descriptor(), IPPROTO_TCP, TCP_NODELAY), 0);
}

// C-CSV-04, C-CSV-08: "" is every interface of both families, on one port.
TEST_P(RealSocketsTest, AnEmptyHostServesBothFamiliesOnOnePort) {
  // A free port, kept by a socket of the other family until the server has it.
  const int probe = ForeignSocket(*SocketAddress::Parse("0.0.0.0:0"));
  SocketAddress bound;
  ASSERT_EQ(PosixOs::Get().LocalAddress(probe, &bound), 0);
  ::close(probe);
  Serve({.listen = {absl::StrCat(":", bound.port())}});
  std::vector<std::string> texts;
  for (const SocketAddress& address : server_->addresses()) texts.push_back(address.ToString());
  EXPECT_THAT(texts, ::testing::UnorderedElementsAre(absl::StrCat("0.0.0.0:", bound.port()),
                                                     absl::StrCat("[::]:", bound.port())));
  for (const int fd : server_->sockets()) {
    if (Option(fd, SOL_SOCKET, SO_DOMAIN) == AF_INET6) {
      EXPECT_EQ(Option(fd, IPPROTO_IPV6, IPV6_V6ONLY), 1);
    }
  }
  TalkTo(*SocketAddress::FromIp("127.0.0.1", bound.port()));
  TalkTo(*SocketAddress::FromIp("::1", bound.port()));
}

// C-CSV-07
TEST_P(RealSocketsTest, ReuseOptionsAreSetAsAskedFor) {
  Serve({.listen = {"127.0.0.1:0"}});
  EXPECT_EQ(Option(server_->sockets()[0], SOL_SOCKET, SO_REUSEADDR), 1);
  EXPECT_EQ(Option(server_->sockets()[0], SOL_SOCKET, SO_REUSEPORT), 0);
  Serve({.listen = {"127.0.0.1:0"}, .reuse_address = false, .reuse_port = true});
  EXPECT_EQ(Option(server_->sockets()[0], SOL_SOCKET, SO_REUSEADDR), 0);
  EXPECT_EQ(Option(server_->sockets()[0], SOL_SOCKET, SO_REUSEPORT), 1);
  MadeServer second =
      Create({.listen = {server_->addresses()[0].ToString()}, .reuse_address = false, .reuse_port = true});
  EXPECT_TRUE(second.ok()) << second.status();
}

// C-CSV-11
TEST_P(RealSocketsTest, AStaleSocketFileIsReplacedAndAnotherFileIsNot) {
  const std::string path = TempPath("stale");
  Serve({.listen = {"unix:" + path}});
  MadeServer second = Create({.listen = {"unix:" + path}});
  EXPECT_EQ(ErrnoOf(second.status()), EADDRINUSE);
  EXPECT_THAT(second.status().message(), HasSubstr("is already in use"));
  Until([&] { return served_.lost(); });  // who asked whether somebody is there
  TalkTo(server_->addresses().front());

  server_.reset();  // leaves the file
  loop_->RunOnceWithoutWaiting();
  ASSERT_TRUE(std::filesystem::is_socket(path));
  Serve({.listen = {"unix:" + path}});
  TalkTo(server_->addresses().front());

  const std::string plain = TempPath("plain");
  std::ofstream(plain) << "kept";
  EXPECT_EQ(ErrnoOf(Create({.listen = {"unix:" + plain}}).status()), EADDRINUSE);
  EXPECT_TRUE(std::filesystem::is_regular_file(plain));
}

// C-SRV-03, C-SRV-05
TEST_P(RealSocketsTest, CloseStopsListeningAtOnceAndWaitClosedWaitsForTheLastConnection) {
  Serve({.listen = {"127.0.0.1:0"}});
  const SocketAddress address = server_->addresses().front();
  Transport& client = Connect(address);
  Until([&] { return server_->connections() == 1; });
  server_->Close();
  EXPECT_THAT(server_->sockets(), IsEmpty());
  EXPECT_EQ(ErrnoOf(TryConnect(address).status()), ECONNREFUSED);
  const auto waits = loop_->CreateTask(server_->WaitClosed());
  client.Write("still here");
  Until([&] { return client_.received == 10; });
  EXPECT_FALSE(waits.done());
  client.Close();
  loop_->RunUntilComplete(waits);
  EXPECT_TRUE(served_.lost());
}

// C-ACC-01
TEST_P(RealSocketsTest, AFloodIsAcceptedABacklogAtATime) {
  Serve({.listen = {"127.0.0.1:0"}, .backlog = 4, .start_serving = false});
  ASSERT_EQ(::listen(server_->sockets().front(), 32), 0);
  std::vector<int> fds;
  for (int i = 0; i < 9; ++i) {
    fds.push_back(::socket(AF_INET, SOCK_STREAM, 0));
    const SocketAddress& address = server_->addresses().front();
    ASSERT_EQ(::connect(fds.back(), address.get(), address.length()), 0);
  }
  const auto starting = loop_->CreateTask(server_->StartServing());
  std::vector<uint64_t> accepted = {0};
  Until([&] {
    if (server_->accepted().value() != accepted.back()) accepted.push_back(server_->accepted().value());
    return accepted.back() == 9;
  });
  EXPECT_THAT(accepted, ElementsAre(0u, 4u, 8u, 9u));
  EXPECT_TRUE(starting.done());
  for (const int fd : fds) ::close(fd);
}

// C-CON-03, C-CON-04
TEST_P(RealSocketsTest, ARefusedConnectSaysSo) {
  // Bound and not listening: the port is nobody else's.
  const int bound = ForeignSocket(*SocketAddress::Parse("127.0.0.1:0"));
  SocketAddress address;
  ASSERT_EQ(PosixOs::Get().LocalAddress(bound, &address), 0);
  const absl::Status status = TryConnect(address).status();
  EXPECT_EQ(ErrnoOf(status), ECONNREFUSED);
  EXPECT_EQ(status.message(), absl::StrCat("connect ", address.ToString(), ": Connection refused"));
  ::close(bound);
}

// C-CSV-03, C-CSV-10
TEST_P(RealSocketsTest, AServerTakesListeningSocketsOver) {
  const std::string path = TempPath("given");
  const int tcp = ForeignSocket(*SocketAddress::Parse("127.0.0.1:0"));
  const int local = ForeignSocket(*SocketAddress::FromUnixPath(path));
  Serve({.sockets = {tcp, local}});
  EXPECT_THAT(server_->sockets(), ElementsAre(tcp, local));
  EXPECT_TRUE(IsNonBlocking(tcp));
  EXPECT_TRUE(IsNonBlocking(local));
  ASSERT_THAT(server_->addresses(), SizeIs(2));
  EXPECT_EQ(server_->addresses()[1].unix_path(), path);
  for (const SocketAddress& address : server_->addresses()) TalkTo(address);
}

// C-CSV-03
TEST_P(RealSocketsTest, WhatIsNoStreamSocketIsRefusedAndStaysTheCallers) {
  const int stream = ForeignSocket(*SocketAddress::Parse("127.0.0.1:0"));
  const int datagrams = ::socket(AF_INET, SOCK_DGRAM, 0);
  int pipe[2];
  ASSERT_EQ(::pipe(pipe), 0);
  for (const int wrong : {datagrams, pipe[0], 1'000'000, stream}) {
    const absl::Status refused = Create({.sockets = {stream, wrong}}).status();
    EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
    if (wrong != stream) {
      EXPECT_THAT(refused.message(), HasSubstr("A Stream Socket was expected"));
      EXPECT_THAT(TryConnect({.socket = wrong}).status().message(), HasSubstr("A Stream Socket was expected"));
    }
  }
  for (const int fd : {stream, datagrams, pipe[0], pipe[1]}) EXPECT_EQ(::close(fd), 0);
}

// C-CON-02: TCP and Unix.
TEST_P(RealSocketsTest, AConnectedSocketIsTakenOver) {
  const std::string path = TempPath("connected");
  Serve({.listen = {"127.0.0.1:0", "unix:" + path}});
  for (const SocketAddress& address : server_->addresses()) {
    SCOPED_TRACE(address.ToString());
    client_ = Recording();
    const int fd = ::socket(address.family(), SOCK_STREAM, 0);
    ASSERT_EQ(::connect(fd, address.get(), address.length()), 0);
    absl::StatusOr<Connected<>> connected = TryConnect({.socket = fd});
    ASSERT_TRUE(connected.ok()) << connected.status();
    EXPECT_EQ(connected->transport->descriptor(), fd);
    EXPECT_TRUE(IsNonBlocking(fd));
    EXPECT_EQ(connected->transport->peer(), address);
    connected->transport->Write("hi");
    Until([&] { return client_.received == 2; });
    connected->transport->Close();
    Until([&] { return client_.lost(); });
    connected->transport.reset();
    Until([&] { return client_.alive == 0; });
  }
}

// C-CON-09
TEST_P(RealSocketsTest, AnAcceptedSocketIsTakenOver) {
  const int listener = ForeignSocket(*SocketAddress::Parse("127.0.0.1:0"));
  ASSERT_EQ(::listen(listener, 1), 0);
  SocketAddress address;
  ASSERT_EQ(PosixOs::Get().LocalAddress(listener, &address), 0);
  Transport& client = Connect(address);
  const int fd = ::accept(listener, nullptr, nullptr);
  auto accepted = loop_->RunUntilComplete(ConnectAcceptedSocket(*loop_, [this] { return served_.NewProtocol(); }, fd));
  ASSERT_TRUE(accepted.ok()) << accepted.status();
  EXPECT_THAT(served_.log, ElementsAre("made"));
  EXPECT_TRUE(IsNonBlocking(fd));
  EXPECT_EQ(accepted->transport->peer(), client.local());
  client.Write("hello");
  Until([&] { return client_.received == 5; });
  accepted->transport->Close();
  Until([&] { return client_.lost() && served_.lost(); });
  ::close(listener);
}

// P-1: the peer is gone, and writing goes on.
TEST_P(RealSocketsTest, WritingToAClosedPeerEndsTheConnectionAndNotTheProcess) {
  ASSERT_NE(::signal(SIGPIPE, SIG_DFL), SIG_ERR);
  int fds[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
  absl::StatusOr<Connected<>> connected = TryConnect({.socket = fds[0]});
  ASSERT_TRUE(connected.ok()) << connected.status();
  connected->transport->PauseReading();
  ::close(fds[1]);
  connected->transport->Write("x");
  Until([&] { return client_.lost(); });
  EXPECT_EQ(ErrnoOf(client_.reason), EPIPE);
}

}  // namespace
}  // namespace troupe
