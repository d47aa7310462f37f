// Programs as one writes them with asyncio, over bytes: a client that reads lines, a server with TLS whose certificates
// are renewed, a question by datagrams, a program with a time limit, a file over a connection. Each runs in simulation.
#include <csignal>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/blocking.h"
#include "troupe/async/event.h"
#include "troupe/async/queue.h"
#include "troupe/async/task.h"
#include "troupe/async/wait_for.h"
#include "troupe/base/socket_address.h"
#include "troupe/base/status_macros.h"
#include "troupe/loop/event_loop.h"
#include "troupe/net/connect.h"
#include "troupe/net/datagram.h"
#include "troupe/net/process.h"
#include "troupe/net/protocol.h"
#include "troupe/net/sendfile.h"
#include "troupe/net/stream_server.h"
#include "troupe/net/tls_context.h"
#include "troupe/net/transport.h"
#include "troupe/testing/matchers.h"
#include "troupe/testing/sim/sim_kernel.h"
#include "troupe/testing/sim/sim_os.h"
#include "troupe/testing/sim/sim_process.h"
#include "troupe/testing/tls_certificates.h"

using troupe::testing::StatusIs;

namespace {

// ---------------------------------------------------------------------------------------------------- lines

// What asyncio's StreamReader is for: a protocol that a task reads from. Holds 64 KiB and what one read brings.
class Lines final : public troupe::Protocol {
 public:
  // Without its end; none: the connection has ended.
  troupe::Task<std::optional<std::string>> ReadLine() {
    while (true) {
      const size_t size = received_.find('\n');
      if (size != std::string::npos) {
        std::string line = received_.substr(0, size);
        received_.erase(0, size + 1);
        if (!ended_) transport().ResumeReading();
        co_return line;
      }
      if (ended_) co_return std::nullopt;
      changed_.Clear();
      co_await changed_.Wait();
    }
  }

 private:
  void DataReceived(absl::Span<const char> data) override {
    received_.append(data.data(), data.size());
    if (received_.size() > 64 << 10) transport().PauseReading();
    changed_.Set();
  }
  void ConnectionLost(const absl::Status&) override {
    ended_ = true;
    changed_.Set();
  }

  std::string received_;
  bool ended_ = false;
  troupe::Event changed_;
};

// Says what it hears, to who may be known.
class Echo final : public troupe::Protocol {
  void ConnectionMade(troupe::Transport& transport) override {
    if (transport.tls() == nullptr) return;
    const auto& peer = transport.tls()->peer;
    transport.Write("hello " + (peer.has_value() ? peer->dns_names.front() : "stranger") + "\n");
  }
  void DataReceived(absl::Span<const char> data) override { transport().Write(data); }
  void PauseWriting() override { transport().PauseReading(); }
  void ResumeWriting() override { transport().ResumeReading(); }
};

troupe::Task<absl::StatusOr<std::vector<std::string>>> Ask(troupe::EventLoop& loop, troupe::ConnectOptions where,
                                                           std::string text) {
  auto connected = co_await troupe::CreateConnection(loop, [] { return std::make_unique<Lines>(); }, where);
  CO_RETURN_IF_ERROR(connected.status());
  connected->transport->Write(text + "\n");
  std::vector<std::string> answers;
  while (std::optional<std::string> line = co_await connected->protocol->ReadLine()) {
    answers.push_back(*line);
    if (*line == text) connected->transport->Close();
  }
  co_return answers;
}

TEST(ByteSamples, ATaskReadsLines) {
  troupe::testing::SimOs os;
  troupe::EventLoop loop(os);
  troupe::StreamServerOptions options;
  options.listen = {"localhost:7000"};
  auto server = loop.RunUntilComplete(troupe::CreateServer(loop, [] { return std::make_unique<Echo>(); }, options));
  ASSERT_OK(server.status());
  const auto answers = loop.RunUntilComplete(Ask(loop, {.target = "localhost:7000"}, "one"));
  ASSERT_OK(answers.status());
  EXPECT_THAT(*answers, testing::ElementsAre("one"));
  server->reset();
  loop.Close();
}

// ---------------------------------------------------------------------------------------------------- TLS

troupe::TlsCertificate Named(const troupe::testing::TestCertificate& authority, std::string name) {
  troupe::testing::TestCertificateOptions options;
  options.dns_names = {std::move(name)};
  const auto made = authority.Issue(options);
  return {.chain = made.chain(), .key = made.key()};
}

TEST(ByteSamples, CertificatesAreRenewedWhileAServerServes) {
  troupe::testing::SimOs os;
  troupe::EventLoop loop(os);
  const auto old_root = troupe::testing::TestCertificate::Root("old");
  const auto new_root = troupe::testing::TestCertificate::Root("new");

  troupe::TlsOptions ours;  // files, of a real server: chain_file, key_file, and Reload() reads them again
  ours.certificates = {Named(old_root, "echo.test")};
  ours.roots = old_root.certificate() + new_root.certificate();
  ours.verify = troupe::TlsVerify::kRequire;  // mTLS
  absl::StatusOr<troupe::TlsContext> context = troupe::TlsContext::ForServer(ours);
  ASSERT_OK(context.status());
  troupe::StreamServerOptions options;
  options.listen = {"localhost:7000"};
  options.tls = &*context;
  auto server = loop.RunUntilComplete(troupe::CreateServer(loop, [] { return std::make_unique<Echo>(); }, options));
  ASSERT_OK(server.status());
  ASSERT_OK(loop.AddSignalHandler(SIGHUP, [&] { EXPECT_OK(context->Reload({Named(new_root, "echo.test")})); }));

  for (const auto* root : {&old_root, &new_root}) {
    troupe::TlsOptions theirs;
    theirs.roots = root->certificate();
    theirs.certificates = {Named(*root, "alice.test")};
    const absl::StatusOr<troupe::TlsContext> client = troupe::TlsContext::ForClient(theirs);
    ASSERT_OK(client.status());
    const troupe::ConnectOptions where = {
        .target = "localhost:7000", .tls = &*client, .server_hostname = "echo.test"};
    if (root == &new_root) {
      EXPECT_THAT(loop.RunUntilComplete(Ask(loop, where, "x")).status(), StatusIs(absl::StatusCode::kUnauthenticated));
      os.RaiseSignal(SIGHUP);
    }
    const auto answers = loop.RunUntilComplete(Ask(loop, where, "secret"));
    ASSERT_OK(answers.status());
    EXPECT_THAT(*answers, testing::ElementsAre("hello alice.test", "secret"));
  }
  server->reset();
  loop.Close();
}

// ---------------------------------------------------------------------------------------------------- datagrams

class Answers final : public troupe::DatagramProtocol {
 public:
  troupe::Queue<std::string> answers;

 private:
  void DatagramReceived(absl::Span<const char> data, const troupe::SocketAddress&) override {
    (void)answers.TryPut(std::string(data.data(), data.size()));
  }
};
class UdpEcho final : public troupe::DatagramProtocol {
  void DatagramReceived(absl::Span<const char> data, const troupe::SocketAddress& from) override {
    transport().SendTo(data, from);
  }
};

// Asks again until an answer gets through.
troupe::Task<absl::StatusOr<int>> Attempts(troupe::EventLoop& loop, std::string server) {
  auto endpoint = co_await troupe::CreateDatagramEndpoint(loop, [] { return std::make_unique<Answers>(); },
                                                          {.remote = server});
  CO_RETURN_IF_ERROR(endpoint.status());
  const absl::Cleanup close = [&] { endpoint->transport->Close(); };
  for (int attempt = 1; attempt <= 20; ++attempt) {
    endpoint->transport->SendTo("anybody there?");
    const auto answer = co_await troupe::WaitFor(endpoint->protocol->answers.Get(), absl::Milliseconds(100));
    if (answer.ok()) co_return attempt;
  }
  co_return absl::UnavailableError("nobody answers");
}

TEST(ByteSamples, AQuestionIsAskedAgainUntilItsAnswerGetsThrough) {
  troupe::testing::SimOs os;
  troupe::EventLoop loop(os);
  auto server = loop.RunUntilComplete(troupe::CreateDatagramEndpoint(
      loop, [] { return std::make_unique<UdpEcho>(); }, {.local = "127.0.0.1:7000"}));
  ASSERT_OK(server.status());
  EXPECT_EQ(*loop.RunUntilComplete(Attempts(loop, "127.0.0.1:7000")), 1);
  os.kernel().SetLoopbackLink({.loss_chance = 0.6});
  EXPECT_GT(*loop.RunUntilComplete(Attempts(loop, "127.0.0.1:7000")), 1);
  server->transport->Close();
  loop.RunUntilComplete(server->transport->Closed());
  server->transport.reset();
  loop.Close();
}

// ---------------------------------------------------------------------------------------------------- programs

// What a program says, if it says it in time; one that does not is killed.
troupe::Task<absl::StatusOr<std::string>> OutputOf(troupe::EventLoop& loop, std::vector<std::string> command,
                                                   absl::Duration limit) {
  auto program = co_await troupe::CreateSubprocessExec(
      loop, command, {.input = troupe::Stdio::Null(), .output = troupe::Stdio::Pipe()});
  CO_RETURN_IF_ERROR(program.status());
  const auto result = co_await troupe::WaitFor(program->Communicate(), limit);
  program->Close();
  co_await program->Wait();
  CO_RETURN_IF_ERROR(result.status());
  co_return result->output;
}

TEST(ByteSamples, AProgramHasATimeLimit) {
  troupe::testing::SimOs os;
  os.AddProgram("date", [](troupe::testing::SimProcess& process) {
    process.WriteTo(1, "today");
    process.Exit(0);
  });
  os.AddProgram("hang", [](troupe::testing::SimProcess&) {});
  troupe::EventLoop loop(os);
  EXPECT_THAT(loop.RunUntilComplete(OutputOf(loop, {"date"}, absl::Seconds(1))),
              troupe::testing::IsOkAndHolds("today"));
  EXPECT_THAT(loop.RunUntilComplete(OutputOf(loop, {"hang"}, absl::Seconds(1))).status(),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  loop.Close();
}

// ---------------------------------------------------------------------------------------------------- files

class FileServer final : public troupe::Protocol {
 public:
  FileServer(troupe::EventLoop& loop, std::string path) : loop_(loop), path_(std::move(path)) {}

 private:
  void ConnectionMade(troupe::Transport& transport) override {
    serving_ = loop_.CreateTask(Serve(loop_, transport, path_));
  }
  void DataReceived(absl::Span<const char>) override {}
  void ConnectionLost(const absl::Status&) override { serving_.Cancel(); }

  // Static: cancelled, it outlives the protocol by the steps that it still takes, and uses its own things in them.
  static troupe::Task<void> Serve(troupe::EventLoop& loop, troupe::Transport& transport, std::string path) {
    const int file = co_await troupe::Blocking([&] { return loop.os().OpenFile(path); });
    if (file < 0) co_return transport.Abort();
    const absl::Cleanup close = [&] { loop.os().Close(file); };
    transport.Write("begin\n");
    const absl::StatusOr<int64_t> sent = co_await troupe::Sendfile(transport, file);
    if (!sent.ok()) co_return transport.Abort();
    transport.Write("end\n");
    transport.Close();
  }

  troupe::EventLoop& loop_;
  const std::string path_;
  troupe::TaskHandle<void> serving_;
};

TEST(ByteSamples, AFileGoesOverAConnection) {
  troupe::testing::SimOs os;
  os.AddFile("poem", "two\nlines\n");
  troupe::EventLoop loop(os);
  troupe::StreamServerOptions options;
  options.listen = {"localhost:7000"};
  auto server = loop.RunUntilComplete(
      troupe::CreateServer(loop, [&] { return std::make_unique<FileServer>(loop, "poem"); }, options));
  ASSERT_OK(server.status());
  const auto lines = loop.RunUntilComplete(Ask(loop, {.target = "localhost:7000"}, "please"));
  ASSERT_OK(lines.status());
  EXPECT_THAT(*lines, testing::ElementsAre("begin", "two", "lines", "end"));
  server->reset();
  loop.Close();
}

}  // namespace
