// Files over transports: over memory, where they are copied, and over simulated and real sockets, where the kernel sends
// them; whatever happens in the middle.
#include "troupe/net/sendfile.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/task.h"
#include "troupe/base/byte_queue.h"
#include "troupe/base/errors.h"
#include "troupe/base/os_error.h"
#include "troupe/loop/event_loop.h"
#include "troupe/loop/loop_testing.h"
#include "troupe/net/internal/transport_testing.h"
#include "troupe/testing/sim/sim_os.h"

namespace troupe {
namespace {

using internal::Device;
using ::testing::Combine;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Values;

std::string Pattern(size_t size) {
  std::string text(size, '\0');
  for (size_t i = 0; i < size; ++i) text[i] = static_cast<char>('a' + (i * 7 + i / 1000) % 26);
  return text;
}

using Case = std::tuple<Device, Polling>;

std::string CaseName(const ::testing::TestParamInfo<Case>& info) {
  return internal::DeviceName(std::get<Device>(info.param)) +
         (std::get<Polling>(info.param) == Polling::kStrict ? "Strict" : "Shared");
}

// first_ sends files to second_.
class SendfileTest : public internal::TransportWorld, public ::testing::TestWithParam<Case> {
 protected:
  SendfileTest() : TransportWorld(std::get<Device>(GetParam()), std::get<Polling>(GetParam())) {}
  ~SendfileTest() override {
    for (const int file : files_) os().Close(file);
    if (!path_.empty()) ::unlink(path_.c_str());
    EXPECT_THAT(reports_, IsEmpty());
  }
  static void SetUpTestSuite() {
    const char* const folder = ::getenv("TEST_TMPDIR");
    if (folder != nullptr) {
      ASSERT_EQ(::chdir(folder), 0);
    }
  }

  int File(const std::string& contents) {
    path_ = absl::StrCat("sendfile_", ::getpid());
    if (posix()) {
      std::ofstream(path_) << contents;
    } else {
      sim_.AddFile(path_, contents);
    }
    files_.push_back(os().OpenFile(path_));
    EXPECT_GE(files_.back(), 0);
    return files_.back();
  }
  void ConnectAndSettle() {
    TransportWorld::ConnectAndSettle();
    if (in_bits()) {
      ASSERT_TRUE(first_->SetWriteBufferLimits({.high = 4000}).ok());
    }
  }
  // The file has these contents from now on, also for who has it open.
  void Resize(const std::string& contents) {
    if (posix()) {
      std::ofstream(path_) << contents;
    } else {
      sim_.AddFile(path_, contents);
    }
  }
  // More than devices and buffers hold together.
  size_t Large() const { return in_bits() ? 40 << 10 : posix() ? 2 << 20 : 300 << 10; }

  TaskHandle<absl::StatusOr<int64_t>> Start(int file, SendfileOptions options = {}) {
    return loop_->CreateTask(Sendfile(*first_, file, options));
  }
  absl::StatusOr<int64_t> Send(int file, SendfileOptions options = {}) {
    return loop_->RunUntilComplete(Sendfile(*first_, file, options));
  }
  // One step of the loop, in which time may pass.
  void Step() {
    if (!posix() && !loop_->HasReady() && !sim_.kernel().NextEventTime().is_infinite()) {
      sim_.kernel().AdvanceTo(sim_.kernel().NextEventTime());
    }
    loop_->RunOnceWithoutWaiting();
  }
  template <class Condition>
  void Until(Condition condition) {
    while (!condition()) Step();
  }
  // Until the file has got as far as it can while second_ does not read.
  void UntilStuck(const TaskHandle<absl::StatusOr<int64_t>>& sending) {
    second_->PauseReading();
    for (int quiet = 0; quiet < 200; ++quiet) Step();
    if (posix()) {
      // Workers need real time; what they bring is written at once.
      size_t before = 0;
      do {
        before = first_->write_buffer_size();
        for (int i = 0; i < 2000; ++i) Step();
      } while (first_->write_buffer_size() != before);
    }
    EXPECT_FALSE(sending.done());
  }
  std::string Received() const {
    std::string all;
    for (const std::string& entry : b_.log) {
      if (absl::StartsWith(entry, "data ")) all += entry.substr(5);
    }
    return all;
  }
  void UntilReceived(size_t bytes) {
    Until([&] { return b_.received >= bytes || b_.lost(); });
  }
  bool native() const { return !memory(); }

  std::string path_;
  std::vector<int> files_;
};

INSTANTIATE_TEST_SUITE_P(All, SendfileTest,
                         Combine(Values(Device::kMemory, Device::kMemoryInBits, Device::kSimulated, Device::kPosix),
                                 Values(Polling::kStrict, Polling::kShared)),
                         CaseName);

// C-SND-03, C-SND-05
TEST_P(SendfileTest, TheFileGoesBetweenWhatIsWrittenBeforeAndAfter) {
  ConnectAndSettle();
  EXPECT_EQ(first_->sendfile_mode(), native() ? SendfileMode::kNative : SendfileMode::kCopied);
  const std::string before = Pattern(Large() / 4), contents = Pattern(Large()), after = "and the rest";
  const int file = File(contents);
  first_->Write(before);
  const absl::StatusOr<int64_t> sent = Send(file);
  ASSERT_TRUE(sent.ok()) << sent.status();
  EXPECT_EQ(*sent, static_cast<int64_t>(contents.size()));
  first_->Write(after);
  const std::string all = before + contents + after;
  UntilReceived(all.size());
  EXPECT_TRUE(Received() == all);
  EXPECT_TRUE(first_->is_reading());
  EXPECT_EQ(a_.alive, 1);
}

// C-SND-05
TEST_P(SendfileTest, OffsetAndCountAreHonoured) {
  ConnectAndSettle();
  const std::string contents = Pattern(50'000);
  const int file = File(contents);
  EXPECT_EQ(*Send(file, {.offset = 10, .count = 20'000}), 20'000);
  EXPECT_EQ(*Send(file, {.offset = 49'000}), 1000);
  EXPECT_EQ(*Send(file, {.offset = 49'990, .count = 100}), 10);
  EXPECT_EQ(*Send(file, {.offset = 50'000}), 0);
  EXPECT_EQ(*Send(file, {.offset = 1'000'000, .count = 1}), 0);
  EXPECT_EQ(*Send(file, {.count = 1}), 1);
  const std::string all = contents.substr(10, 20'000) + contents.substr(49'000) + contents.substr(49'990) + contents[0];
  UntilReceived(all.size());
  EXPECT_TRUE(Received() == all);
  EXPECT_EQ(*Send(File("")), 0);
}

// C-SND-02
TEST_P(SendfileTest, WhatIsNoPartOfAFileIsRefused) {
  ConnectAndSettle();
  const int file = File("0123456789");
  const auto refused = [&](int fd, const SendfileOptions& options) {
    const absl::Status status = Send(fd, options).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return std::string(status.message());
  };
  EXPECT_THAT(refused(file, {.offset = -1}), HasSubstr("offset"));
  EXPECT_THAT(refused(file, {.count = 0}), HasSubstr("count"));
  EXPECT_THAT(refused(file, {.count = -1}), HasSubstr("count"));
  EXPECT_THAT(refused(1'000'000, {}), HasSubstr("a regular file was expected"));
  int fds[2];
  ASSERT_EQ(os().SocketPair(AF_UNIX, SOCK_STREAM, fds), 0);
  EXPECT_THAT(refused(fds[0], {}), HasSubstr("a regular file was expected"));
  os().Close(fds[0]);
  os().Close(fds[1]);
  first_->Write("still fine");
  UntilReceived(10);
  EXPECT_EQ(Received(), "still fine");
}

// C-SND-01
TEST_P(SendfileTest, AClosingTransportThrowsAndSoDoesOneWhoseWritingHasEnded) {
  ConnectAndSettle();
  const int file = File("0123456789");
  first_->WriteEof();
  EXPECT_THROW((void)Send(file), InvalidState);
  first_->Close();
  EXPECT_THROW((void)Send(file), InvalidState);
}

// C-SND-01, C-SND-08: that of a memory transport is the same as that of TLS.
TEST_P(SendfileTest, WithoutFallbackOnlyTheKernelMaySend) {
  ConnectAndSettle();
  const int file = File("0123456789");
  if (native()) {
    EXPECT_EQ(*Send(file, {.fallback = false}), 10);
  } else {
    EXPECT_THROW((void)Send(file, {.fallback = false}), InvalidState);
  }
}

// C-WR-08, C-SND-13
TEST_P(SendfileTest, WhileAFileIsSentWritingAndSendingAnotherThrow) {
  ConnectAndSettle();
  const std::string contents = Pattern(Large());
  const int file = File(contents);
  auto sending = Start(file);
  UntilStuck(sending);
  EXPECT_THROW(first_->Write("x"), InvalidState);
  EXPECT_THROW(first_->Write(absl::Span<const char>()), InvalidState);
  ByteQueue queue;
  queue.Append(absl::MakeConstSpan("x", 1));
  EXPECT_THROW(first_->Write(std::move(queue)), InvalidState);
  const absl::Span<const char> piece = absl::MakeConstSpan("x", 1);
  EXPECT_THROW(first_->Writev(absl::MakeConstSpan(&piece, 1)), InvalidState);
  EXPECT_THROW(first_->WriteEof(), InvalidState);
  auto another = Start(file);
  EXPECT_THROW((void)loop_->RunUntilComplete(std::move(another)), InvalidState);
  EXPECT_FALSE(sending.done());
  second_->ResumeReading();
  EXPECT_EQ(*loop_->RunUntilComplete(std::move(sending)), static_cast<int64_t>(contents.size()));
  first_->Write("x");
  UntilReceived(contents.size() + 1);
  EXPECT_TRUE(Received() == contents + "x");
}

// C-SND-09, C-SND-12
TEST_P(SendfileTest, ProtocolAndReadingAreAsTheyWereAndNothingIsDeliveredMeanwhile) {
  ConnectAndSettle();
  const std::string contents = Pattern(Large());
  const int file = File(contents);
  BaseProtocol* const protocol = &first_->protocol();
  auto sending = Start(file);
  UntilStuck(sending);
  second_->Write("meanwhile");
  for (int i = 0; i < 100; ++i) Step();
  EXPECT_THAT(a_.log, ElementsAre("made"));
  EXPECT_LE(first_->write_buffer_size(), first_->write_high_mark() + (16 << 10));
  second_->ResumeReading();
  ASSERT_TRUE(loop_->RunUntilComplete(std::move(sending)).ok());
  EXPECT_EQ(&first_->protocol(), protocol);
  Until([&] { return a_.received == 9; });
  UntilReceived(contents.size());

  first_->PauseReading();
  second_->Write("later");
  ASSERT_TRUE(Send(file).ok());
  EXPECT_FALSE(first_->is_reading());
  UntilReceived(2 * contents.size());
  EXPECT_EQ(a_.received, 9u);
  first_->ResumeReading();
  Until([&] { return a_.received == 14; });
}

// C-SND-09, C-FLW-04: whatever happened while the file was copied.
TEST_P(SendfileTest, AProtocolThatWasPausedIsResumed) {
  ConnectAndSettle();
  const int file = File(Pattern(1000));
  ASSERT_TRUE(first_->SetWriteBufferLimits({.high = 100}).ok());
  second_->PauseReading();
  Fill();
  first_->Write(std::string(200, 'x'));
  EXPECT_EQ(a_.log.back(), "pause");
  auto sending = Start(file);
  for (int i = 0; i < 100; ++i) Step();
  EXPECT_EQ(a_.log.back(), "pause");
  second_->ResumeReading();
  ASSERT_TRUE(loop_->RunUntilComplete(std::move(sending)).ok());
  Until([&] { return first_->write_buffer_size() == 0 && a_.log.back() == "resume"; });
  int paused = 0;
  for (const std::string& entry : a_.log) {
    if (entry == "pause") {
      EXPECT_EQ(paused++, 0);
    }
    if (entry == "resume") {
      EXPECT_EQ(paused--, 1);
    }
  }
  EXPECT_EQ(paused, 0);
}

// C-SND-10
TEST_P(SendfileTest, APeerThatLeavesInTheMiddleIsTheCallersError) {
  ConnectAndSettle();
  const int file = File(Pattern(Large()));
  auto sending = Start(file);
  UntilStuck(sending);
  second_->Abort();
  const absl::StatusOr<int64_t> sent = loop_->RunUntilComplete(std::move(sending));
  EXPECT_EQ(sent.status().code(), absl::StatusCode::kUnavailable) << sent.status();
  Until([&] { return a_.lost(); });
  EXPECT_EQ(a_.Count("made"), 1u);
  EXPECT_FALSE(a_.reason.ok());
}

// C-SND-10
TEST_P(SendfileTest, ClosingInTheMiddleIsTheCallersError) {
  for (const bool abort : {true, false}) {
    SCOPED_TRACE(abort);
    a_.log.clear();
    ConnectAndSettle();
    auto sending = Start(File(Pattern(Large())));
    UntilStuck(sending);
    abort ? first_->Abort() : first_->Close();
    const absl::StatusOr<int64_t> sent = loop_->RunUntilComplete(std::move(sending));
    EXPECT_EQ(sent.status().code(), absl::StatusCode::kUnavailable) << sent.status();
    second_->ResumeReading();
    Until([&] { return a_.lost() && b_.lost(); });
    EXPECT_EQ(a_.log.back(), "lost OK");
    EXPECT_EQ(a_.Count("lost OK"), 1u);
    first_.reset();
    second_.reset();
    Until([&] { return a_.alive + b_.alive == 0; });
  }
}

// P-4
TEST_P(SendfileTest, TheTransportMayBeDroppedInTheMiddle) {
  ConnectAndSettle();
  auto sending = Start(File(Pattern(Large())));
  UntilStuck(sending);
  first_.reset();
  EXPECT_EQ(loop_->RunUntilComplete(std::move(sending)).status().code(), absl::StatusCode::kUnavailable);
  Until([&] { return a_.alive == 0; });
  EXPECT_THAT(a_.log, ElementsAre("made", "lost OK"));
}

TEST_P(SendfileTest, TheLoopMayCloseInTheMiddle) {
  ConnectAndSettle();
  auto sending = Start(File(Pattern(Large())));
  UntilStuck(sending);
  loop_->Close();
  first_.reset();
  second_.reset();
  EXPECT_EQ(a_.alive + b_.alive, 0);
  { const auto dropped = std::move(sending); }
  loop_ = NewLoop();
  reports_.clear();  // of the task that was left pending
}

// C-SND-05: what a file becomes under way is what is sent, up to the end that it has then, or to `count`.
TEST_P(SendfileTest, AFileMayShrinkOrGrowWhileItIsSent) {
  const std::string whole = Pattern(2 * Large());
  const size_t half = Large();
  struct Change {
    size_t before, after;
    std::optional<int64_t> count;
    size_t sent_max;
  };
  for (const Change& change :
       {Change{2 * half, half, std::nullopt, 2 * half}, Change{2 * half, 0, std::nullopt, 2 * half},
        Change{half, 2 * half, std::nullopt, 2 * half},
        Change{half, 2 * half, static_cast<int64_t>(half + 1000), half + 1000},
        Change{half, half - 1000, static_cast<int64_t>(half), half}}) {
    SCOPED_TRACE(absl::StrCat(change.before, " -> ", change.after));
    b_.log.clear();
    b_.received = 0;
    ConnectAndSettle();
    const int file = File(whole.substr(0, change.before));
    const auto sending = Start(file, {.count = change.count});
    UntilStuck(sending);
    Resize(whole.substr(0, change.after));
    second_->ResumeReading();
    Until([&] { return sending.done(); });
    ASSERT_TRUE(sending.result().ok()) << sending.result().status();
    // What had been read before it shrank has been sent.
    const auto sent = static_cast<size_t>(*sending.result());
    EXPECT_LE(sent, change.sent_max);
    if (change.after > change.before) {
      EXPECT_EQ(sent, change.sent_max);
    } else {
      EXPECT_GE(sent, change.after);
      EXPECT_LT(sent, change.before);
    }
    first_->Write("|end");
    UntilReceived(sent + 4);
    EXPECT_TRUE(Received() == whole.substr(0, sent) + "|end");
    first_.reset();
    second_.reset();
    Settle();
    os().Close(file);
    files_.pop_back();
  }
}

// Neither who sends nor who waits for the end hangs.
TEST_P(SendfileTest, ASocketThatSomebodyHasClosedIsTheConnectionsEnd) {
  if (!native()) return;
  for (const bool under_way : {false, true}) {
    SCOPED_TRACE(under_way);
    a_.log.clear();
    ConnectAndSettle();
    const int file = File(Pattern(Large()));
    std::optional<TaskHandle<absl::StatusOr<int64_t>>> sending;
    if (under_way) {
      sending = Start(file);
      UntilStuck(*sending);
    }
    os().Close(first_->descriptor());
    if (!under_way) sending = Start(file);
    if (under_way) {
      // The kernel says no more of it, to nobody: closing is what ends it.
      for (int quiet = 0; quiet < 10; ++quiet) Step();
      first_->Abort();
    }
    Until([&] { return sending->done() && a_.lost(); });
    EXPECT_FALSE(sending->result().ok());
    EXPECT_FALSE(a_.reason.ok() && !under_way) << a_.reason;
    loop_->RunUntilComplete(first_->Closed());
    first_.reset();
    second_.reset();
    Settle();
  }
}

// C-SND-09: protocol and reading are given back after any number of steps.
TEST_P(SendfileTest, SendingMayBeCancelledAtAnyTime) {
  if (posix()) return;  // workers are not counted in steps
  const std::string contents = Pattern(Large() / 4);
  for (int steps = 0;; ++steps) {
    ASSERT_LT(steps, 100'000);
    SCOPED_TRACE(steps);
    a_.log.clear();
    b_.log.clear();
    b_.received = 0;
    ConnectAndSettle();
    if (!memory()) sim_.SetIoLimits({.send_bytes_max = 7000});
    BaseProtocol* const protocol = &first_->protocol();
    auto sending = Start(File(contents));
    for (int i = 0; i < steps && !sending.done(); ++i) Step();
    const bool done = sending.done();
    sending.Cancel();
    if (done) {
      ASSERT_TRUE(loop_->RunUntilComplete(std::move(sending)).ok());
    } else {
      EXPECT_THROW((void)loop_->RunUntilComplete(std::move(sending)), Cancelled);
    }
    EXPECT_EQ(&first_->protocol(), protocol);
    EXPECT_TRUE(first_->is_reading());
    first_->Write("|end");
    second_->Write("heard");
    Until([&] { return a_.received >= 5; });
    Until([&] { return absl::EndsWith(Received(), "|end"); });
    const std::string received = Received();
    EXPECT_EQ(received.substr(0, received.size() - 4), contents.substr(0, received.size() - 4));
    a_.received = 0;
    first_.reset();
    second_.reset();
    Settle();
    for (const int file : files_) os().Close(file);
    files_.clear();
    if (done) break;
    steps += steps / 8;  // densely at first
  }
}

// ---------------------------------------------------------------------------------------------------- faults

class SendfileFaultTest : public SendfileTest {
 protected:
  // The `nth` call of `operation` from now on fails.
  void Fail(std::string operation, int nth, int error) {
    sim_.SetFault([operation, nth, error, calls = 0](absl::string_view called, int) mutable {
      return called == operation && ++calls == nth ? error : 0;
    });
  }
};

INSTANTIATE_TEST_SUITE_P(All, SendfileFaultTest,
                         Combine(Values(Device::kMemory, Device::kSimulated), Values(Polling::kStrict, Polling::kShared)),
                         CaseName);

// C-SND-07
TEST_P(SendfileFaultTest, WhatTheKernelDoesNotWantToBeginIsCopiedIfAllowed) {
  if (!native()) return;
  for (const int error : {EINVAL, ENOSYS, EOPNOTSUPP}) {
    SCOPED_TRACE(error);
    b_.log.clear();
    b_.received = 0;
    ConnectAndSettle();
    const std::string contents = Pattern(Large());
    const int file = File(contents);
    Fail("SendFile", 1, error);
    EXPECT_EQ(Send(file, {.fallback = false}).status().code(), absl::StatusCode::kUnimplemented);
    Fail("SendFile", 1, error);
    const absl::StatusOr<int64_t> sent = Send(file);
    ASSERT_TRUE(sent.ok()) << sent.status();
    EXPECT_EQ(*sent, static_cast<int64_t>(contents.size()));
    UntilReceived(contents.size());
    EXPECT_TRUE(Received() == contents);
    first_.reset();
    second_.reset();
    Settle();
  }
}

// C-SND-07: after the first byte the error is the caller's, and the connection goes on.
TEST_P(SendfileFaultTest, AnErrorInTheMiddleIsTheCallers) {
  ConnectAndSettle();
  sim_.SetIoLimits({.send_bytes_max = 1000});
  const std::string contents = Pattern(50'000);
  const int file = File(contents);
  for (const int error : {EIO, ENOMEM, EINVAL}) {
    SCOPED_TRACE(error);
    Fail(native() ? "SendFile" : "ReadAt", 3, error);
    const absl::StatusOr<int64_t> sent = Send(file);
    EXPECT_EQ(ErrnoOf(sent.status()), error) << sent.status();
    sim_.SetFault(nullptr);
    EXPECT_FALSE(first_->is_closing());
  }
  first_->Write("|end");
  Until([&] { return absl::EndsWith(Received(), "|end"); });
}

// C-SND-10
TEST_P(SendfileFaultTest, AConnectionThatBreaksEndsWithItsError) {
  for (const int error : {EPIPE, ECONNRESET, ETIMEDOUT, ENOTCONN, EHOSTUNREACH, ENETUNREACH, ENOBUFS}) {
    if (!native()) return;
    SCOPED_TRACE(error);
    a_.log.clear();
    ConnectAndSettle();
    sim_.SetIoLimits({.send_bytes_max = 1000});
    const int file = File(Pattern(50'000));
    Fail("SendFile", 2, error);
    EXPECT_EQ(ErrnoOf(Send(file).status()), error);
    Until([&] { return a_.lost(); });
    EXPECT_EQ(ErrnoOf(a_.reason), error);
    first_.reset();
    second_.reset();
    Settle();
  }
}

// Nothing tells who only reads from a descriptor that somebody else has closed that there will be no more.
TEST_P(SendfileFaultTest, ADescriptorThatSomebodyHasClosedIsTheConnectionsEndIfItIsTheSockets) {
  ConnectAndSettle();
  sim_.SetIoLimits({.send_bytes_max = 1000});
  const int closed = File("closed");
  os().Close(closed);
  files_.pop_back();
  EXPECT_EQ(Send(closed).status().code(), absl::StatusCode::kInvalidArgument);
  const int file = File(Pattern(50'000));
  const auto fail = [&](bool of_the_file) {
    sim_.SetFault([of_the_file](absl::string_view called, int) {
      return called == "SendFile" || (called == "FileBytes" && of_the_file) ? EBADF : 0;
    });
  };
  if (native()) {
    // The file has been closed under way.
    const auto sending = Start(file);
    Until([&] { return b_.received > 0; });
    fail(/*of_the_file=*/true);
    Until([&] { return sending.done(); });
    EXPECT_EQ(ErrnoOf(sending.result().status()), EBADF);
    EXPECT_FALSE(first_->is_closing());
    fail(/*of_the_file=*/false);
    EXPECT_EQ(ErrnoOf(Send(file).status()), EBADF);
    sim_.SetFault(nullptr);
    Until([&] { return a_.lost(); });
    EXPECT_EQ(ErrnoOf(a_.reason), EBADF);
  }
}

TEST_P(SendfileFaultTest, AFileThatShrinksEndsWhereItEnds) {
  ConnectAndSettle();
  sim_.SetIoLimits({.recv_bytes_max = 1000, .send_bytes_max = 1000});
  const int file = File(Pattern(50'000));
  auto sending = Start(file);
  Until([&] { return b_.received > 5000; });
  sim_.AddFile(path_, Pattern(30'000));
  EXPECT_EQ(*loop_->RunUntilComplete(std::move(sending)), 30'000);
  UntilReceived(30'000);
  EXPECT_TRUE(Received() == Pattern(30'000));
}

TEST_P(SendfileFaultTest, WithoutAThreadThereIsNoCopy) {
  if (native()) return;
  ConnectAndSettle();
  const int file = File("0123456789");
  Fail("StartThread", 1, EAGAIN);
  EXPECT_EQ(Send(file).status().code(), absl::StatusCode::kResourceExhausted);
  sim_.SetFault(nullptr);
  first_->Write("x");
  EXPECT_TRUE(first_->is_reading());
}

// ---------------------------------------------------------------------------------------------------- no such transport

// C-SND-01
class Foreign final : public Transport {
 public:
  explicit Foreign(Transport& inner) : inner_(inner) {}
  ~Foreign() override = default;
  EventLoop& loop() override { return inner_.loop(); }
  void Write(absl::Span<const char> bytes) override { inner_.Write(bytes); }
  void Write(ByteQueue&& bytes) override { inner_.Write(std::move(bytes)); }
  void Writev(absl::Span<const absl::Span<const char>> pieces) override { inner_.Writev(pieces); }
  void WriteEof() override { inner_.WriteEof(); }
  bool CanWriteEof() const override { return inner_.CanWriteEof(); }
  absl::Status SetWriteBufferLimits(WriteBufferLimits limits) override { return inner_.SetWriteBufferLimits(limits); }
  size_t write_high_mark() const override { return inner_.write_high_mark(); }
  size_t write_low_mark() const override { return inner_.write_low_mark(); }
  size_t write_buffer_size() const override { return inner_.write_buffer_size(); }
  void PauseReading() override { inner_.PauseReading(); }
  void ResumeReading() override { inner_.ResumeReading(); }
  bool is_reading() const override { return inner_.is_reading(); }
  void Close() override { inner_.Close(); }
  void Abort() override { inner_.Abort(); }
  bool is_closing() const override { return inner_.is_closing(); }
  Task<void> Closed() override { return inner_.Closed(); }
  BaseProtocol& protocol() override { return inner_.protocol(); }
  std::unique_ptr<BaseProtocol> ExchangeProtocol(std::unique_ptr<BaseProtocol> protocol) override {
    return inner_.ExchangeProtocol(std::move(protocol));
  }
  const SocketAddress& peer() const override { return inner_.peer(); }
  const SocketAddress& local() const override { return inner_.local(); }
  int descriptor() const override { return inner_.descriptor(); }
  std::string DebugString() const override { return "<foreign transport>"; }

 private:
  void Destroy() override {}
  Transport& inner_;
};

TEST_P(SendfileFaultTest, ATransportThatCannotThrows) {
  ConnectAndSettle();
  Foreign foreign(*first_);
  const int file = File("0123456789");
  try {
    (void)loop_->RunUntilComplete(Sendfile(foreign, file));
    FAIL();
  } catch (const InvalidState& error) {
    EXPECT_THAT(error.what(), HasSubstr("sendfile is not supported for transport <foreign transport>"));
  }
}

// ---------------------------------------------------------------------------------------------------- sockets

// The far end of a socket is read by hand.
class SockSendfileTest : public SendfileTest {
 protected:
  ~SockSendfileTest() override {
    for (const int fd : fds_) {
      if (fd >= 0) os().Close(fd);
    }
  }
  void Open() { ASSERT_EQ(os().SocketPair(AF_UNIX, SOCK_STREAM, fds_), 0); }
  std::string Take() {
    std::string all;
    char buffer[4096];
    for (int64_t n; (n = os().Recv(fds_[1], absl::MakeSpan(buffer))) > 0;) all.append(buffer, static_cast<size_t>(n));
    return all;
  }
  void FailFirstSendFile(int error) {
    sim_.SetFault([error, failed = false](absl::string_view operation, int) mutable {
      return operation == "SendFile" && !std::exchange(failed, true) ? error : 0;
    });
  }
  int fds_[2] = {-1, -1};
};

INSTANTIATE_TEST_SUITE_P(All, SockSendfileTest,
                         Combine(Values(Device::kSimulated, Device::kPosix), Values(Polling::kStrict, Polling::kShared)),
                         CaseName);

// C-SND-03, C-SND-05
TEST_P(SockSendfileTest, AFileGoesOverASocketAsItTakesIt) {
  Open();
  const std::string contents = Pattern(Large());
  const int file = File(contents);
  auto sending = loop_->CreateTask(SockSendfile(*loop_, fds_[0], file, {.offset = 5}));
  std::string received;
  Until([&] {
    received += Take();
    return sending.done();
  });
  EXPECT_EQ(*loop_->RunUntilComplete(std::move(sending)), static_cast<int64_t>(contents.size()) - 5);
  Until([&] {
    received += Take();
    return received.size() + 5 >= contents.size();
  });
  EXPECT_TRUE(received == contents.substr(5));
  EXPECT_EQ(*loop_->RunUntilComplete(SockSendfile(*loop_, fds_[0], file, {.offset = 7, .count = 3})), 3);
  Until([&] {
    received += Take();
    return received.size() + 2 >= contents.size();
  });
  EXPECT_EQ(received.substr(contents.size() - 5), contents.substr(7, 3));
}

// C-SND-07
TEST_P(SockSendfileTest, WhatTheKernelDoesNotWantToBeginIsCopiedIfAllowed) {
  if (posix()) return;
  Open();
  const std::string contents = Pattern(Large());
  const int file = File(contents);
  FailFirstSendFile(EINVAL);
  const SendfileOptions native_only = {.fallback = false};
  EXPECT_EQ(loop_->RunUntilComplete(SockSendfile(*loop_, fds_[0], file, native_only)).status().code(),
            absl::StatusCode::kUnimplemented);
  FailFirstSendFile(EOPNOTSUPP);
  auto sending = loop_->CreateTask(SockSendfile(*loop_, fds_[0], file));
  std::string received;
  Until([&] {
    received += Take();
    return sending.done() && received.size() >= contents.size();
  });
  EXPECT_EQ(*loop_->RunUntilComplete(std::move(sending)), static_cast<int64_t>(contents.size()));
  EXPECT_TRUE(received == contents);
}

// C-SND-02
TEST_P(SockSendfileTest, WhatIsNoStreamOrNoFileIsRefused) {
  Open();
  const int file = File("0123456789");
  const int datagrams = os().Socket(AF_INET, SOCK_DGRAM);
  const auto refused = [&](int socket, int from, const SendfileOptions& options) {
    return loop_->RunUntilComplete(SockSendfile(*loop_, socket, from, options)).status().code();
  };
  EXPECT_EQ(refused(datagrams, file, {}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refused(1'000'000, file, {}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refused(fds_[0], fds_[1], {}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refused(fds_[0], file, {.offset = -1}), absl::StatusCode::kInvalidArgument);
  os().Close(datagrams);
}

// C-SND-10
TEST_P(SockSendfileTest, APeerThatLeavesInTheMiddleIsTheCallersError) {
  for (const bool copied : {false, true}) {
    if (copied && posix()) continue;
    SCOPED_TRACE(copied);
    Open();
    const int file = File(Pattern(Large()));
    if (copied) FailFirstSendFile(ENOSYS);
    auto sending = loop_->CreateTask(SockSendfile(*loop_, fds_[0], file));
    for (int i = 0; i < 200; ++i) Step();
    ASSERT_FALSE(sending.done());
    os().Close(std::exchange(fds_[1], -1));
    const absl::Status status = loop_->RunUntilComplete(std::move(sending)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    EXPECT_TRUE(ErrnoOf(status) == EPIPE || ErrnoOf(status) == ECONNRESET) << status;
    os().Close(std::exchange(fds_[0], -1));
  }
}

TEST_P(SockSendfileTest, SendingMayBeCancelled) {
  for (const bool copied : {false, true}) {
    if (copied && posix()) continue;
    Open();
    const int file = File(Pattern(Large()));
    if (copied) FailFirstSendFile(ENOSYS);
    auto sending = loop_->CreateTask(SockSendfile(*loop_, fds_[0], file));
    for (int i = 0; i < 200; ++i) Step();
    ASSERT_FALSE(sending.done());
    sending.Cancel();
    EXPECT_THROW((void)loop_->RunUntilComplete(std::move(sending)), Cancelled);
    // Nobody watches the socket any more.
    Take();
    for (int i = 0; i < 10; ++i) Step();
    os().Close(std::exchange(fds_[0], -1));
    os().Close(std::exchange(fds_[1], -1));
  }
}

}  // namespace
}  // namespace troupe
