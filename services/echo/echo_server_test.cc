// The real server, over loopback: what it says, when it ends, and with what.
#include <signal.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/strip.h"
#include "echo/v1/echo.troupe.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/testing/child_process.h"
#include "troupe/async/task.h"
#include "troupe/loop/event_loop.h"
#include "troupe/os/posix_os.h"
#include "troupe/service/channel.h"
#include "troupe/testing/matchers.h"

namespace echo::v1 {
namespace {

using services::ChildProcess;
using services::Outcome;
using services::Runfile;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using troupe::Task;

class EchoServerTest : public ::testing::Test {
 protected:
  ~EchoServerTest() override { loop_.Close(); }

  std::unique_ptr<ChildProcess> Start(const std::string& listen = "127.0.0.1:0") {
    const std::vector<std::string> argv = {Runfile("services/echo/echo_server"), "--listen=" + listen};
    auto server = std::make_unique<ChildProcess>(argv);
    const std::string line = server->ReadLine();
    EXPECT_THAT(line, StartsWith("listening on ")) << server->errors();
    address_ = std::string(absl::StripPrefix(line, "listening on "));
    return server;
  }

  std::string address_;
  troupe::EventLoop loop_{troupe::PosixOs::Get()};
};

Task<absl::Status> EchoOnce(EchoStub echo) {
  EchoRequest request;
  request.set_message("hello");
  const absl::StatusOr<EchoResponse> reply = co_await echo.Echo(request);
  if (reply.ok()) {
    EXPECT_EQ(reply->message(), "hello");
  }
  co_return reply.status();
}

// Tells the server to end in the middle of a chat, which goes on to its own end.
Task<absl::Status> ChatThroughSignal(EchoStub echo, ChildProcess& server, int signo) {
  auto chat = echo.Chat();
  ChatRequest request;
  ChatResponse response;
  for (int i = 0; i < 10; ++i) {
    request.set_message(std::to_string(i));
    const bool wrote = co_await chat.Write(request);
    EXPECT_TRUE(wrote);
    const bool read = co_await chat.Read(response);
    EXPECT_TRUE(read);
    EXPECT_EQ(response.message(), request.message());
    if (i == 5) {
      server.Signal(signo);
      EXPECT_TRUE(server.WaitForError("draining"));
    }
  }
  chat.WritesDone();
  const bool more = co_await chat.Read(response);
  EXPECT_FALSE(more);
  co_return co_await chat.Finish();
}

TEST_F(EchoServerTest, AnswersAndDrainsWithItsCallsInFlight) {
  for (const int signo : {SIGTERM, SIGINT}) {
    auto server = Start();
    {
      troupe::Channel channel(loop_, address_);
      EXPECT_OK(loop_.RunUntilComplete(EchoOnce(EchoStub(channel))));
      EXPECT_OK(loop_.RunUntilComplete(ChatThroughSignal(EchoStub(channel), *server, signo)));
    }
    EXPECT_EQ(server->Wait(), 0) << server->errors();
    EXPECT_EQ(server->ReadAll(), "");
  }
}

TEST_F(EchoServerTest, RefusesToStartAndSaysWhy) {
  auto server = Start();
  const std::string program = Runfile("services/echo/echo_server");
  Outcome second = services::RunProgram({program, "--listen=" + address_});
  EXPECT_EQ(second.exit_code, 1);
  EXPECT_THAT(second.errors, HasSubstr(address_));
  second = services::RunProgram({program, "--listen=nonsense"});
  EXPECT_EQ(second.exit_code, 1);
  EXPECT_THAT(second.errors, HasSubstr("nonsense"));
  second = services::RunProgram({program, "argument"});
  EXPECT_EQ(second.exit_code, 1);
  EXPECT_THAT(second.errors, HasSubstr("unexpected argument: argument"));
  server->Signal(SIGTERM);
  EXPECT_EQ(server->Wait(), 0) << server->errors();
}

}  // namespace
}  // namespace echo::v1
