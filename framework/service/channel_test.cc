// How this test works: a server and a channel on one loop, over stream sockets of the simulated Os and, where the
// socket is the subject, of the real one. Nothing waits for a real clock.
#include "troupe/service/channel.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "echo/v1/echo.troupe.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/run.h"
#include "troupe/async/sleep.h"
#include "troupe/base/errors.h"
#include "troupe/base/os_error.h"
#include "troupe/base/socket_address.h"
#include "troupe/base/status_macros.h"
#include "troupe/os/posix_os.h"
#include "troupe/service/server.h"
#include "troupe/testing/matchers.h"
#include "troupe/testing/sim/sim_os.h"

namespace troupe {
namespace {

using ::echo::v1::EchoRequest;
using ::echo::v1::EchoResponse;
using ::echo::v1::EchoStub;
using ::testing::HasSubstr;
using ::troupe::testing::SimOs;
using ::troupe::testing::StatusIs;

class Echoes final : public echo::v1::EchoActor {
 public:
  Task<absl::Status> Echo(const EchoRequest& request, EchoResponse& response, Call& call) override {
    if (request.message() == "slow") co_await Sleep(absl::Seconds(3));
    if (request.message() == "close") call.connection().Close(absl::UnavailableError("asked to"));
    response.set_message(request.message());
    co_return absl::OkStatus();
  }
};

EchoRequest Request(std::string text) {
  EchoRequest request;
  request.set_message(std::move(text));
  return request;
}

Task<absl::StatusOr<EchoResponse>> Await(Reply<EchoResponse> reply) {
  absl::StatusOr<EchoResponse> got = co_await reply;
  co_return got;
}

absl::StatusOr<EchoResponse> Echo(Channel& channel, std::string text, CallOptions options = {}) {
  EchoStub echo(channel);
  return channel.loop().RunUntilComplete(Await(echo.Echo(Request(std::move(text)), options)));
}

class Listening {
 public:
  Listening(EventLoop& loop, std::string listen) : server_(loop, {.listen = {std::move(listen)}}) {
    server_.Add<Echoes>();
    const absl::Status started = loop.RunUntilComplete(server_.Start());
    if (!started.ok()) throw StatusError(started);
  }
  ~Listening() {
    server_.Close();
    server_.loop().RunUntilComplete(server_.WaitClosed());
  }
  Server& operator*() { return server_; }
  Server* operator->() { return &server_; }
  std::string address() const { return server_.addresses().front().ToString(); }

 private:
  Server server_;
};

enum class Which { kSimulated, kReal };

class ChannelTest : public ::testing::TestWithParam<Which> {
 protected:
  ~ChannelTest() override { loop_.Close(); }
  Os& os() { return GetParam() == Which::kReal ? PosixOs::Get() : sim_; }
  // A path in the file system may be too long for a socket where tests run.
  std::string UnixName() {
    return GetParam() == Which::kReal ? "unix-abstract:channel_test." + std::to_string(getpid()) : "unix:/run/kv.sock";
  }

  SimOs sim_;
  EventLoop loop_{os()};
};

INSTANTIATE_TEST_SUITE_P(Os, ChannelTest, ::testing::Values(Which::kSimulated, Which::kReal),
                         [](const auto& info) { return info.param == Which::kReal ? "Real" : "Simulated"; });

TEST_P(ChannelTest, CallsOverTcpAndUnixSockets) {
  for (const std::string& listen : {std::string("127.0.0.1:0"), std::string("[::1]:0"), UnixName()}) {
    SCOPED_TRACE(listen);
    Listening server(loop_, listen);
    Channel channel(loop_, server.address());
    EXPECT_EQ(channel.connections_made(), 0u);
    EXPECT_OK(Echo(channel, "hello"));
    EXPECT_OK(Echo(channel, std::string(1 << 20, 'x')));
    EXPECT_EQ(channel.connections_made(), 1u);
    EXPECT_EQ(server->connections(), 1u);
  }
}

TEST_P(ChannelTest, UnderstandsTheTargetsOfGrpc) {
  Listening server(loop_, "127.0.0.1:0");
  const std::string port = std::to_string(server->addresses().front().port());
  for (const std::string& target : {"dns:///127.0.0.1:" + port, "troupe+dns:///127.0.0.1:" + port,
                                    "ipv4:127.0.0.1:" + port, "dns:127.0.0.1:" + port, "127.0.0.1:" + port}) {
    SCOPED_TRACE(target);
    Channel channel(loop_, target);
    EXPECT_OK(Echo(channel, "hello"));
    EXPECT_EQ(channel.connection()->wire(), target.substr(0, 7) == "troupe+" ? "troupe/1" : "h2");
  }
}

TEST_P(ChannelTest, SpeaksGrpcInClearTextUnlessToldOtherwise) {
  Listening server(loop_, "127.0.0.1:0");
  Channel native(loop_, server.address(), {.wire = Wire::kNative});
  EXPECT_OK(Echo(native, "hello"));
  EXPECT_EQ(native.connection()->wire(), "troupe/1");
  Channel target_goes_first(loop_, "troupe+dns:///" + server.address(), {.wire = Wire::kGrpc});
  EXPECT_OK(Echo(target_goes_first, "hello"));
  EXPECT_EQ(target_goes_first.connection()->wire(), "troupe/1");
}

TEST_P(ChannelTest, ABadTargetIsSaidByEveryCallAtOnce) {
  for (const std::string target :
       {"", "no-port", "http://x:1", "dns:///", "host:", "127.0.0.1:99999", "[::1:5", "unix:", "ipv4:localhost:70"}) {
    SCOPED_TRACE(target);
    Channel channel(loop_, target);
    for (int i = 0; i < 2; ++i) {
      Reply<EchoResponse> reply = EchoStub(channel).Echo(Request("x"));
      EXPECT_TRUE(reply.done());
      EXPECT_THAT(loop_.RunUntilComplete(Await(std::move(reply))),
                  StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("target \"" + target + "\"")));
    }
    EXPECT_EQ(channel.connection(), nullptr);
  }
}

TEST_P(ChannelTest, AServerListensWhereChannelsConnect) {
  for (const std::string listen : {"ipv4:127.0.0.1:0", "ipv6:[::1]:0", "dns:///127.0.0.1:0"}) {
    SCOPED_TRACE(listen);
    Listening server(loop_, listen);
    Channel channel(loop_, server.address());
    EXPECT_OK(Echo(channel, "hello"));
  }
}

TEST_P(ChannelTest, ARefusedConnectionIsUnavailableAndTheNextCallTriesAgain) {
  std::string address;
  {
    Listening server(loop_, "127.0.0.1:0");
    address = server.address();
  }
  Channel channel(loop_, address, {.backoff_initial = absl::Milliseconds(1)});
  EXPECT_THAT(Echo(channel, "x"),
              StatusIs(absl::StatusCode::kUnavailable,
                       "cannot connect to " + address + ": connect " + address + ": Connection refused"));
  Listening server(loop_, address);
  EXPECT_OK(Echo(channel, "x", {.wait_for_ready = true}));
}

TEST_P(ChannelTest, AConnectionThatTheServerClosedIsMadeAgain) {
  Listening server(loop_, "127.0.0.1:0");
  Channel channel(loop_, server.address());
  EXPECT_THAT(Echo(channel, "close"), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_OK(Echo(channel, "x"));
  EXPECT_EQ(channel.connections_made(), 2u);
}

TEST_P(ChannelTest, CallsMadeBeforeTheConnectionStandsAreConcurrent) {
  Listening server(loop_, "127.0.0.1:0");
  Channel channel(loop_, server.address());
  EchoStub echo(channel);
  std::vector<Reply<EchoResponse>> replies;
  for (int i = 0; i < 500; ++i) replies.push_back(echo.Echo(Request(std::to_string(i))));
  for (int i = 0; i < 500; ++i) {
    const absl::StatusOr<EchoResponse> got = loop_.RunUntilComplete(Await(std::move(replies[i])));
    ASSERT_OK(got);
    EXPECT_EQ(got->message(), std::to_string(i));
  }
  EXPECT_EQ(channel.connections_made(), 1u);
}

TEST_P(ChannelTest, AClosedChannelEndsItsCallsAndRefusesNewOnes) {
  Listening server(loop_, "127.0.0.1:0");
  Channel channel(loop_, server.address());
  EXPECT_OK(Echo(channel, "x"));
  Reply<EchoResponse> reply = EchoStub(channel).Echo(Request("slow"));
  channel.Close();
  EXPECT_THAT(loop_.RunUntilComplete(Await(std::move(reply))), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(Echo(channel, "x"), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("closed")));
}

TEST_P(ChannelTest, ACallOutlivesItsChannel) {
  Listening server(loop_, "127.0.0.1:0");
  auto channel = std::make_unique<Channel>(loop_, server.address());
  EXPECT_OK(Echo(*channel, "x"));
  Reply<EchoResponse> reply = EchoStub(*channel).Echo(Request("slow"));
  channel.reset();
  EXPECT_THAT(loop_.RunUntilComplete(Await(std::move(reply))), StatusIs(absl::StatusCode::kUnavailable));
}

TEST_P(ChannelTest, AChannelMayGoWhileItConnects) {
  Listening server(loop_, "127.0.0.1:0");
  auto channel = std::make_unique<Channel>(loop_, server.address());
  Reply<EchoResponse> reply = EchoStub(*channel).Echo(Request("x"));
  channel.reset();
  EXPECT_THAT(loop_.RunUntilComplete(Await(std::move(reply))), StatusIs(absl::StatusCode::kUnavailable));
  loop_.RunUntilComplete(Sleep(absl::ZeroDuration()));
}

class SimulatedChannelTest : public ::testing::Test {
 protected:
  ~SimulatedChannelTest() override { loop_.Close(); }
  SimOs os_;
  EventLoop loop_{os_};
};

TEST_P(ChannelTest, StartSaysWhyItCannotListen) {
  Listening first(loop_, "127.0.0.1:0");
  const struct {
    std::string listen;
    absl::StatusCode code;
    int error;
    std::string says;
  } rows[] = {
      {first.address(), absl::StatusCode::kFailedPrecondition, EADDRINUSE, first.address()},
      {"192.0.2.1:0", absl::StatusCode::kFailedPrecondition, EADDRNOTAVAIL, "192.0.2.1:0"},
      {"127.0.0.1:99999", absl::StatusCode::kInvalidArgument, 0, "target \"127.0.0.1:99999\""},
      {"unix:", absl::StatusCode::kInvalidArgument, 0, "target \"unix:\""},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(row.listen);
    Server server(loop_, {.listen = {row.listen}});
    for (int i = 0; i < 2; ++i) {  // it may be tried again
      const absl::Status started = loop_.RunUntilComplete(server.Start());
      EXPECT_THAT(started, StatusIs(row.code, HasSubstr(row.says)));
      EXPECT_EQ(ErrnoOf(started), row.error);
      EXPECT_EQ(server.state(), Server::State::kMade);
    }
  }
}

TEST_F(SimulatedChannelTest, AServerServesOnSocketsFromElsewhere) {
  const int fd = os_.Socket(AF_INET, SOCK_STREAM);
  ASSERT_EQ(os_.Bind(fd, *SocketAddress::Parse("127.0.0.1:7400")), 0);
  {
    Server both(loop_, {.listen = {"127.0.0.1:7500"}, .sockets = {fd}});
    EXPECT_THAT(loop_.RunUntilComplete(both.Start()), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("sockets")));
  }
  Server server(loop_, {.sockets = {fd, 999}});
  for (int i = 0; i < 2; ++i) {  // refused, they are still the caller's
    EXPECT_THAT(loop_.RunUntilComplete(server.Start()), StatusIs(absl::StatusCode::kInvalidArgument));
  }
  Server good(loop_, {.sockets = {fd}});
  good.Add<Echoes>();
  ASSERT_OK(loop_.RunUntilComplete(good.Start()));
  EXPECT_EQ(good.addresses().front().ToString(), "127.0.0.1:7400");
  Channel channel(loop_, "127.0.0.1:7400");
  EXPECT_OK(Echo(channel, "hello"));
  good.Close();
  loop_.RunUntilComplete(good.WaitClosed());
  EXPECT_EQ(os_.Close(fd), -EBADF) << "it was taken over";
}

TEST_F(SimulatedChannelTest, AnAddressThatDoesNotAnswerDoesNotHoldUpTheOthers) {
  SimOs silent(os_.kernel(), {.ips = {*SocketAddress::Parse("10.9.9.9:0")}});
  os_.kernel().SetLink(os_, silent, {.stalled = true});
  os_.kernel().SetName("both.test", {*SocketAddress::Parse("10.9.9.9:0"), *SocketAddress::Parse("127.0.0.1:0")});
  Listening server(loop_, "127.0.0.1:7400");
  Channel channel(loop_, "both.test:7400");
  const MonotonicTime start = loop_.Time();
  EXPECT_OK(Echo(channel, "hello"));
  EXPECT_LT(loop_.Time() - start, absl::Seconds(1));
}

TEST_F(SimulatedChannelTest, AServerStartsOnce) {
  Server nowhere(loop_);  // connections come by NewConnection
  ASSERT_OK(loop_.RunUntilComplete(nowhere.Start()));
  EXPECT_EQ(nowhere.state(), Server::State::kServing);
  EXPECT_THAT(nowhere.addresses(), ::testing::IsEmpty());
  EXPECT_THROW((void)loop_.RunUntilComplete(nowhere.Start()), InvalidState);
  nowhere.Drain();
  EXPECT_EQ(nowhere.state(), Server::State::kClosed);
  EXPECT_THROW((void)loop_.RunUntilComplete(nowhere.Start()), InvalidState);

  Server server(loop_, {.listen = {"127.0.0.1:0"}});
  TaskHandle<absl::Status> first = loop_.CreateTask(server.Start());
  TaskHandle<absl::Status> second = loop_.CreateTask(server.Start());
  loop_.RunUntilComplete(Sleep(absl::Seconds(1)));
  EXPECT_OK(first.result());
  EXPECT_THROW((void)second.result(), InvalidState);
  server.Close();
}

TEST_F(SimulatedChannelTest, AStartThatIsCancelledMayBeTriedAgain) {
  Server server(loop_, {.listen = {"localhost:7400"}});
  TaskHandle<absl::Status> first = loop_.CreateTask(server.Start());
  loop_.CallSoon([&] { first.Cancel(); });  // while it asks for the address
  loop_.RunUntilComplete(Sleep(absl::Seconds(1)));
  EXPECT_THROW((void)first.result(), Cancelled);
  EXPECT_OK(loop_.RunUntilComplete(server.Start()));
  server.Close();
}

TEST_F(SimulatedChannelTest, AServerThatNeverAnswersEndsInTheConnectTimeout) {
  // Listens, and never accepts: the connection stands, but the channel's calls have deadlines of their own.
  const int fd = os_.Socket(AF_INET, SOCK_STREAM);
  ASSERT_EQ(os_.Bind(fd, *SocketAddress::Parse("127.0.0.1:7400")), 0);
  ASSERT_EQ(os_.Listen(fd, 1), 0);
  Channel channel(loop_, "127.0.0.1:7400");
  EXPECT_THAT(Echo(channel, "x", {.timeout = absl::Seconds(2)}), StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_EQ(loop_.Time().nanos(), absl::ToInt64Nanoseconds(absl::Seconds(2)));
  os_.Close(fd);
}

// A program's main: serves until SIGTERM comes in the middle of a call, which is answered all the same.
Task<absl::Status> ServeAndCall(EventLoop& loop, SimOs& os, std::string& outcome) {
  Server server(loop, {.listen = {"127.0.0.1:7400"}});
  server.Add<Echoes>();
  CO_RETURN_IF_ERROR(co_await server.Start());
  Channel channel(loop, "127.0.0.1:7400");
  auto call = loop.CreateTask(Await(EchoStub(channel).Echo(Request("slow"))));
  const TimerHandle signal = loop.CallLater(absl::Seconds(1), [&os] { os.RaiseSignal(SIGTERM); });
  const absl::Status served = co_await server.ServeForever();
  if (!call.done()) co_return absl::InternalError("the call was lost by the drain");
  outcome = call.result().ok() ? call.result()->message() : call.result().status().ToString();
  co_return served;
}

TEST(ServerSignalTest, SigtermDrainsAndTheProgramSucceeds) {
  SimOs os;
  std::string outcome;
  auto main = [&](EventLoop& loop) { return ServeAndCall(loop, os, outcome); };
  EXPECT_EQ(RunMain(os, main), 0);
  EXPECT_EQ(outcome, "slow");
}

}  // namespace
}  // namespace troupe
