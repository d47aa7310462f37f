#include "troupe/testing/faults/subprocess_scenarios.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "troupe/async/task.h"
#include "troupe/loop/event_loop.h"
#include "troupe/net/process.h"
#include "troupe/net/subprocess.h"
#include "troupe/net/transport.h"
#include "troupe/testing/sim/sim_process.h"

namespace troupe::testing {
namespace {

const std::vector<std::string>& Cat() {
  static const auto& cat = *new std::vector<std::string>{"cat"};
  return cat;
}

// The subprocess, and each of its pipes, which are lives of their own.
class ScriptedSubprocess final : public SubprocessProtocol {
 public:
  ScriptedSubprocess(Stage& stage, Life& life, std::string* received)
      : stage_(stage), life_(life), token_(life.Token()), received_(received) {
    for (int fd = 0; fd < 3; ++fd) pipes_[fd] = &stage.NewLife(absl::StrCat("pipe ", fd));
  }
  void ConnectionMade(SubprocessTransport&) override {
    life_.Made();
    for (Life* pipe : pipes_) pipe->Made();
  }
  void PipeDataReceived(int fd, absl::Span<const char> data) override {
    life_.Heard("PipeDataReceived");
    pipes_[fd]->Heard("PipeDataReceived");
    received_->append(data.data(), data.size());
  }
  void PipeConnectionLost(int fd, const absl::Status& reason) override {
    life_.Heard("PipeConnectionLost");
    pipes_[fd]->Lost(reason);
  }
  void PauseWriting() override { life_.Heard("PauseWriting"); }
  void ResumeWriting() override { life_.Heard("ResumeWriting"); }
  void ProcessExited() override {
    life_.Heard("ProcessExited");
    stage_.Expect(++exits_ == 1, "ProcessExited twice");
  }
  void ConnectionLost(const absl::Status& reason) override {
    for (const Life* pipe : pipes_) stage_.Expect(pipe->lost(), "ConnectionLost before a pipe was");
    stage_.Expect(exits_ == 1, "ConnectionLost before ProcessExited");
    life_.Lost(reason);
  }

 private:
  Stage& stage_;
  Life& life_;
  const std::shared_ptr<int> token_;
  std::string* const received_;
  Life* pipes_[3];
  int exits_ = 0;
};

struct Child {
  SubprocessTransportPtr transport;
  Life* life = nullptr;
  std::shared_ptr<std::string> received = std::make_shared<std::string>();
};

Child Start(Stage& stage) {
  SimHost& host = stage.server();
  host.os().AddProgram("cat", [] { return std::make_unique<SimCat>(); });
  Child child;
  const auto make = [&] {
    auto factory = [&]() -> std::unique_ptr<SubprocessProtocol> {
      child.life = &stage.NewLife("subprocess");
      return std::make_unique<ScriptedSubprocess>(stage, *child.life, child.received.get());
    };
    return SubprocessExec(host.loop(), factory, Cat());
  };
  absl::StatusOr<StartedSubprocess<SubprocessProtocol>> started = stage.Try(host, "start", make);
  child.transport = std::move(started->transport);
  return child;
}

// It is told something, says it again, and ends by itself.
void Talk(Stage& stage) {
  Child child = Start(stage);
  const std::string text(100'000, 'x');
  Transport* const input = child.transport->pipe(0);
  input->Write(text);
  input->Close();
  stage.RunUntil([&] { return child.life->lost(); });
  if (!stage.AnyLostByError() && !stage.cut_short()) stage.Expect(*child.received == text, "bytes were lost");
}

// It would not end by itself.
void Killed(Stage& stage) {
  Child child = Start(stage);
  child.transport->pipe(0)->Write("hello");
  stage.RunFor(absl::Milliseconds(10));
  child.transport->Terminate().IgnoreError();  // Close kills it, whatever became of this
  stage.RunFor(absl::Milliseconds(10));
  child.transport->Close();
  stage.RunUntil([&] { return child.life->lost(); });
}

Task<absl::Status> CommunicateOnce(EventLoop& loop) {
  SubprocessOptions options;
  options.input = Stdio::Pipe();
  options.output = Stdio::Pipe();
  auto starting = CreateSubprocessExec(loop, Cat(), options);
  absl::StatusOr<Process> process = co_await std::move(starting);
  if (!process.ok()) co_return process.status();
  CommunicateOptions said;
  said.input = "hello";
  auto communicating = process->Communicate(said);
  const absl::StatusOr<ProcessResult> result = co_await std::move(communicating);
  if (!result.ok()) co_return result.status();
  co_return result->output == "hello" && result->returncode == 0
      ? absl::OkStatus()
      : absl::UnavailableError(absl::StrCat("it said ", result->output, " and ended with ", result->returncode));
}

void Communicates(Stage& stage) {
  SimHost& host = stage.server();
  host.os().AddProgram("cat", [] { return std::make_unique<SimCat>(); });
  stage.Try(host, "communicate", [&] { return CommunicateOnce(host.loop()); });
}

}  // namespace

std::vector<Scenario> SubprocessScenarios() {
  return {
      {"subprocess", Talk},
      {"subprocess_killed", Killed},
      {"subprocess_communicate", Communicates},
  };
}

}  // namespace troupe::testing
