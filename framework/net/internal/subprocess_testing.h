// SubprocessTest: the world of the tests of subprocesses: a simulated machine with programs on it, a loop, and what a
// protocol hears.
//
// Every test runs with strict polling and with batches that share a poll. Teardown checks that no descriptor is open, no
// protocol alive and no child left, running or not.
#ifndef TROUPE_NET_INTERNAL_SUBPROCESS_TESTING_H_
#define TROUPE_NET_INTERNAL_SUBPROCESS_TESTING_H_

#include <signal.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/task.h"
#include "troupe/base/errors.h"
#include "troupe/base/monotonic_time.h"
#include "troupe/loop/loop_testing.h"
#include "troupe/net/subprocess.h"
#include "troupe/testing/sim/sim_process.h"

namespace troupe::internal {

// What a protocol hears, and what it does then. Data of one stream that comes in pieces is one entry.
struct SubprocessRecording {
  std::vector<std::string> log;
  int alive = 0;
  size_t received = 0;
  // Called with the entry behind which it stands: "made", "data 1", "pipe 0", "exited", "lost", "pause", "resume".
  std::function<void(SubprocessTransport*, const std::string&)> on;

  bool lost() const { return !log.empty() && absl::StartsWith(log.back(), "lost"); }
  std::unique_ptr<SubprocessProtocol> NewProtocol();
};

class RecordingSubprocess final : public SubprocessProtocol {
 public:
  explicit RecordingSubprocess(SubprocessRecording& recording) : recording_(recording) { ++recording_.alive; }
  ~RecordingSubprocess() override { --recording_.alive; }
  void ConnectionMade(SubprocessTransport& transport) override {
    transport_ = &transport;
    Note("made", "");
  }
  void PipeDataReceived(int fd, absl::Span<const char> data) override {
    recording_.received += data.size();
    const std::string entry = absl::StrCat("data ", fd), text(data.data(), data.size());
    if (!recording_.log.empty() && absl::StartsWith(recording_.log.back(), absl::StrCat(entry, " "))) {
      recording_.log.back() += text;
      if (recording_.on) recording_.on(transport_, entry);
    } else {
      Note(entry, absl::StrCat(" ", text));
    }
  }
  void PipeConnectionLost(int fd, const absl::Status& reason) override {
    Note(absl::StrCat("pipe ", fd), absl::StrCat(" ", absl::StatusCodeToString(reason.code())));
  }
  void PauseWriting() override { Note("pause", ""); }
  void ResumeWriting() override { Note("resume", ""); }
  void ProcessExited() override { Note("exited", absl::StrCat(" ", *transport_->returncode())); }
  void ConnectionLost(const absl::Status& reason) override {
    Note("lost", absl::StrCat(" ", absl::StatusCodeToString(reason.code())));
  }

 private:
  void Note(const std::string& entry, const std::string& detail) {
    recording_.log.push_back(entry + detail);
    if (recording_.on) recording_.on(transport_, entry);
  }

  SubprocessRecording& recording_;
  SubprocessTransport* transport_ = nullptr;
};

inline std::unique_ptr<SubprocessProtocol> SubprocessRecording::NewProtocol() {
  return std::make_unique<RecordingSubprocess>(*this);
}

// Ends only by a signal that it does not know, which SIGTERM is not.
class Stubborn final : public testing::SimProgram {
 public:
  void Run(testing::SimProcess& /*process*/) override {}
  bool HandleSignal(testing::SimProcess& /*process*/, int signo) override { return signo == SIGTERM; }
};

// Writes as many bytes as its argument says to 1, and to 2 if there are two arguments, then ends.
class Spew final : public testing::SimProgram {
 public:
  void Run(testing::SimProcess& process) override {
    for (size_t fd = 1; fd < process.arguments().size(); ++fd) {
      size_t bytes = 0;
      if (!absl::SimpleAtoi(process.arguments()[fd], &bytes)) return process.Exit(2);
      while (written_[fd] < bytes) {
        const std::string text(std::min<size_t>(bytes - written_[fd], 10'000), static_cast<char>('0' + fd));
        const int64_t n = process.WriteTo(static_cast<int>(fd), text);
        if (n < 0) return;
        written_[fd] += static_cast<size_t>(n);
      }
    }
    process.Exit(0);
  }

 private:
  size_t written_[3] = {};
};

// Says its argument, and goes on until a signal ends it.
class Say final : public testing::SimProgram {
 public:
  void Run(testing::SimProcess& process) override {
    if (!std::exchange(said_, true)) process.WriteTo(1, process.arguments()[1]);
  }

 private:
  bool said_ = false;
};

class SubprocessTest : public LoopTest {
 protected:
  SubprocessTest() {
    os_.AddProgram("cat", [] { return std::make_unique<testing::SimCat>(); });
    os_.AddProgram("/bin/sh",
                   [](testing::SimProcess& process) { process.WriteTo(1, process.arguments()[2]), process.Exit(0); });
    os_.AddProgram("exit", [](testing::SimProcess& process) {
      int status = 0;
      process.Exit(absl::SimpleAtoi(process.arguments()[1], &status) ? status : 99);
    });
    os_.AddProgram("wait", [](testing::SimProcess&) {});
    os_.AddProgram("stubborn", [] { return std::make_unique<Stubborn>(); });
    os_.AddProgram("spew", [] { return std::make_unique<Spew>(); });
    // Leaves a child of its own that holds its descriptors.
    os_.AddProgram("leave", [](testing::SimProcess& process) { process.StartChild({"cat"}), process.Exit(0); });
    // Ends a second after its output.
    os_.AddProgram("linger", [](testing::SimProcess& process) {
      if (process.Now() >= MonotonicTime() + absl::Seconds(1)) return process.Exit(0);
      for (const int fd : {0, 1, 2}) process.Close(fd);
      process.WakeAfter(absl::Seconds(1));
    });
    // Says something and goes on.
    os_.AddProgram("say", [] { return std::make_unique<Say>(); });
    // Does not read.
    os_.AddProgram("deaf", [](testing::SimProcess& process) { process.WriteTo(1, "said"), process.Exit(0); });
    os_.AddProgram("environment", [](testing::SimProcess& process) {
      const ProcessOptions& options = process.options();
      std::string text = absl::StrCat(options.directory, options.new_session ? " new" : "");
      for (const std::string& variable : options.environment.value_or(std::vector<std::string>{"inherited"})) {
        absl::StrAppend(&text, " ", variable);
      }
      process.WriteTo(1, text);
      process.Exit(0);
    });
  }
  ~SubprocessTest() override {
    transports_.clear();
    if (!loop_.IsClosed()) Settle();
    loop_.Close();
    EXPECT_THAT(os_.OpenDescriptors(), ::testing::IsEmpty());
    EXPECT_EQ(os_.zombies() + os_.running_processes(), 0u) << "children were left";
  }

  // Runs the loop until nothing happens any more by itself.
  void Settle() {
    try {
      loop_.RunForever();
      FAIL() << "the loop stopped";
    } catch (const InvalidState& stalled) {
      ASSERT_THAT(stalled.what(), ::testing::HasSubstr("nothing is left"));
    }
  }
  Task<absl::StatusOr<StartedSubprocess<>>> Starting(const std::vector<std::string>& arguments,
                                                     const SubprocessOptions& options = {}) {
    return SubprocessExec(
        loop_, [this] { return heard_.NewProtocol(); }, arguments, options);
  }
  absl::StatusOr<StartedSubprocess<>> TryStart(const std::vector<std::string>& arguments,
                                               const SubprocessOptions& options = {}) {
    return loop_.RunUntilComplete(Starting(arguments, options));
  }
  SubprocessTransport& Start(const std::vector<std::string>& arguments, const SubprocessOptions& options = {}) {
    absl::StatusOr<StartedSubprocess<>> started = TryStart(arguments, options);
    EXPECT_TRUE(started.ok()) << started.status();
    transports_.push_back(std::move(started->transport));
    return *transports_.back();
  }

  // What was heard is the whole life of a child, with this between its beginning and its end, in whatever order.
  void ExpectLife(const std::vector<std::string>& between) {
    ASSERT_GE(heard_.log.size(), 2u);
    EXPECT_EQ(heard_.log.front(), "made");
    EXPECT_EQ(heard_.log.back(), "lost OK");
    EXPECT_THAT(std::vector<std::string>(heard_.log.begin() + 1, heard_.log.end() - 1),
                ::testing::UnorderedElementsAreArray(between));
  }

  SubprocessRecording heard_;
  std::vector<SubprocessTransportPtr> transports_;
};

}  // namespace troupe::internal

#endif  // TROUPE_NET_INTERNAL_SUBPROCESS_TESTING_H_
