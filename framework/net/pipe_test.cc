// Transports over pipes, on a simulated machine; and, at the end, over what only a real one has: files, FIFOs, terminals
// and devices.
#include "troupe/net/pipe.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "glog/logging.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/task.h"
#include "troupe/base/errors.h"
#include "troupe/base/os_error.h"
#include "troupe/loop/event_loop.h"
#include "troupe/loop/loop_testing.h"
#include "troupe/net/internal/log_count.h"
#include "troupe/net/internal/net_testing.h"
#include "troupe/net/internal/recording_protocol.h"
#include "troupe/os/posix_os.h"

namespace troupe {
namespace {

using internal::LogCount;
using internal::Recording;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr int kReader = 0, kWriter = 1;

class PipeTest : public internal::NetTest {
 protected:
  absl::StatusOr<Connected<>> TryRead(int fd) {
    return loop_.RunUntilComplete(ConnectReadPipe(
        loop_, [this] { return client_.NewProtocol(); }, fd));
  }
  absl::StatusOr<Connected<>> TryWrite(int fd) {
    return loop_.RunUntilComplete(ConnectWritePipe(
        loop_, [this] { return client_.NewProtocol(); }, fd));
  }
  // A transport that reads a pipe; fds_[kWriter] is the test's.
  Transport& Read() {
    EXPECT_EQ(os_.MakePipe(fds_), 0);
    return Keep(TryRead(fds_[kReader]));
  }
  // One that writes; fds_[kReader] is the test's.
  Transport& Write() {
    EXPECT_EQ(os_.MakePipe(fds_), 0);
    return Keep(TryWrite(fds_[kWriter]));
  }
  Transport& Keep(absl::StatusOr<Connected<>> connected) {
    EXPECT_TRUE(connected.ok()) << connected.status();
    clients_.push_back(std::move(connected->transport));
    return *clients_.back();
  }
  void Feed(absl::string_view text) {
    const iovec part = {const_cast<char*>(text.data()), text.size()};
    EXPECT_EQ(os_.Write(fds_[kWriter], absl::MakeConstSpan(&part, 1)), static_cast<int64_t>(text.size()));
  }
  // Everything that has arrived; "|" is the end.
  std::string Drain(int fd) {
    std::string all;
    while (true) {
      char bytes[1000];
      const int64_t n = os_.Read(fd, absl::MakeSpan(bytes));
      if (n == 0) return all + "|";
      if (n < 0) return all;
      all.append(bytes, static_cast<size_t>(n));
    }
  }
  std::string Drain() { return Drain(fds_[kReader]); }
  void CloseFd(int fd) { EXPECT_EQ(os_.Close(fd), 0); }
  // Calls of `operation` fail with `error` from now on.
  void Fail(absl::string_view operation, int error) {
    os_.SetFault([operation, error](absl::string_view called, int) { return called == operation ? error : 0; });
  }

  int fds_[2] = {-1, -1};
};

INSTANTIATE_POLLING(PipeTest);

// ---- reading

TEST_P(PipeTest, AReaderHearsWhatIsWrittenAndTheEnd) {
  Transport& transport = Read();
  EXPECT_THAT(client_.log, ElementsAre("made"));
  Feed("hello ");
  Settle();
  Feed("world");
  CloseFd(fds_[kWriter]);
  Settle();
  EXPECT_THAT(client_.log, ElementsAre("made", "data hello world", "eof", "lost OK"));
  EXPECT_EQ(transport.descriptor(), -1);
  EXPECT_EQ(transport.peer().family(), AF_UNSPEC);
}

// C-PIP-02
TEST_P(PipeTest, TheEndOfAPipeLeavesNothingToKeepOpen) {
  client_.keep_open = true;
  Read();
  CloseFd(fds_[kWriter]);
  Settle();
  EXPECT_THAT(client_.log, ElementsAre("made", "eof", "lost OK"));
}

// C-PIP-02
TEST_P(PipeTest, ATerminalThatWentIsOnlyLoggedInDebugMode) {
  for (const bool debug : {false, true}) {
    loop_.SetDebug(debug);
    client_.log.clear();
    const LogCount logged(google::GLOG_INFO, "Fatal read error on read pipe transport: Input/output error");
    Read();
    Fail("Read", EIO);
    Feed("x");
    Settle();
    os_.SetFault(nullptr);
    EXPECT_THAT(client_.log, ElementsAre("made", "lost UNKNOWN"));
    EXPECT_EQ(ErrnoOf(client_.reason), EIO);
    EXPECT_EQ(logged.count(), debug ? 1 : 0);
    CloseFd(fds_[kWriter]);
  }
}

TEST_P(PipeTest, AReaderHoldsBackWhilePaused) {
  Transport& transport = Read();
  transport.PauseReading();
  EXPECT_FALSE(transport.is_reading());
  Feed("later");
  Settle();
  EXPECT_THAT(client_.log, ElementsAre("made"));
  transport.ResumeReading();
  Settle();
  EXPECT_THAT(client_.log, ElementsAre("made", "data later"));
  CloseFd(fds_[kWriter]);
}

// C-PIP-05
TEST_P(PipeTest, PausingAndResumingWhatIsPausedOrClosedDoesNothing) {
  Transport& transport = Read();
  const auto polls = [&](const std::function<void()>& f) {
    return Count("Poller.Add", f) + Count("Poller.Modify", [] {}) + Count("Poller.Remove", [] {});
  };
  transport.ResumeReading();
  EXPECT_TRUE(transport.is_reading());
  transport.PauseReading();
  const int64_t calls = os_.calls();
  transport.PauseReading();
  EXPECT_EQ(os_.calls(), calls);
  transport.Close();
  EXPECT_EQ(polls([&] { transport.ResumeReading(); }), 0);
  EXPECT_EQ(polls([&] { transport.PauseReading(); }), 0);
  EXPECT_FALSE(transport.is_reading());
  Settle();
  transport.ResumeReading();
  EXPECT_THAT(client_.log, ElementsAre("made", "lost OK"));
  CloseFd(fds_[kWriter]);
}

TEST_P(PipeTest, AReaderCannotBeWritten) {
  Transport& transport = Read();
  EXPECT_FALSE(transport.CanWriteEof());
  EXPECT_THROW(transport.Write("x"), InvalidState);
  EXPECT_THROW(transport.WriteEof(), InvalidState);
  Settle();
  EXPECT_THAT(client_.log, ElementsAre("made"));
  CloseFd(fds_[kWriter]);
}

TEST_P(PipeTest, AReaderThatClosesHearsNoMore) {
  Transport& transport = Read();
  Feed("unheard");
  transport.Close();
  Settle();
  EXPECT_THAT(client_.log, ElementsAre("made", "lost OK"));
  const iovec part = {const_cast<char*>("x"), 1};
  EXPECT_EQ(os_.Write(fds_[kWriter], absl::MakeConstSpan(&part, 1)), -EPIPE);
  CloseFd(fds_[kWriter]);
}

// ---- writing

TEST_P(PipeTest, AWriterWritesInOrderAndPausesWhenThePipeIsFull) {
  Transport& transport = Write();
  std::string expected;
  for (int i = 0; i < 30'000; ++i) {
    const std::string text = absl::StrCat(i, " ");
    transport.Write(absl::MakeConstSpan(text));
    expected += text;
  }
  EXPECT_THAT(client_.log, ElementsAre("made", "pause"));
  std::string found;
  while (found.size() < expected.size()) {
    found += Drain();
    Settle();
  }
  EXPECT_EQ(found, expected);
  EXPECT_THAT(client_.log, ElementsAre("made", "pause", "resume"));
  EXPECT_EQ(transport.write_buffer_size(), 0u);
  transport.Close();
  Settle();
  EXPECT_EQ(Drain(), "|");
  EXPECT_THAT(client_.log, ElementsAre("made", "pause", "resume", "lost OK"));
  CloseFd(fds_[kReader]);
}

// C-PIP-04
TEST_P(PipeTest, TheEndOfWritingIsCloseBehindWhatIsBuffered) {
  for (const bool eof : {true, false}) {
    client_.log.clear();
    Transport& transport = Write();
    EXPECT_TRUE(transport.CanWriteEof());
    transport.Write(std::string(100'000, 'x').c_str());
    ASSERT_GT(transport.write_buffer_size(), 0u);
    eof ? transport.WriteEof() : transport.Close();
    EXPECT_TRUE(transport.is_closing());
    transport.WriteEof();
    const LogCount logged(google::GLOG_WARNING, "pipe closed by peer or os.write(pipe, data) raised exception.");
    for (int i = 0; i < 7; ++i) transport.Write("dropped");
    EXPECT_EQ(logged.count(), 2);
    Settle();
    EXPECT_FALSE(client_.lost());
    std::string found = Drain();
    Settle();
    found += Drain();
    EXPECT_EQ(found, std::string(100'000, 'x') + "|");
    EXPECT_EQ(client_.log.back(), "lost OK");
    transport.Write("dropped too");
    CloseFd(fds_[kReader]);
  }
}

TEST_P(PipeTest, AWriterNoticesWithoutWritingThatNobodyReads) {
  Transport& transport = Write();
  Settle();
  CloseFd(fds_[kReader]);
  Settle();
  EXPECT_THAT(client_.log, ElementsAre("made", "lost OK"));
  EXPECT_TRUE(transport.is_closing());
  EXPECT_FALSE(transport.is_reading());
  transport.Write("dropped");
}

TEST_P(PipeTest, WhatCouldNotBeWrittenMakesTheEndAnError) {
  for (const bool closing : {false, true}) {
    client_.log.clear();
    Transport& transport = Write();
    transport.Write(std::string(66'000, 'x').c_str());
    if (closing) transport.Close();
    Settle();
    CloseFd(fds_[kReader]);
    Settle();
    EXPECT_THAT(client_.log, ElementsAre("made", "lost UNAVAILABLE"));
    EXPECT_EQ(ErrnoOf(client_.reason), EPIPE);
    EXPECT_EQ(transport.write_buffer_size(), 0u);
  }
}

TEST_P(PipeTest, AWriteThatFailsEndsTheTransport) {
  Transport& transport = Write();
  Fail("Write", ENOMEM);
  transport.Write("x");
  Settle();
  EXPECT_THAT(client_.log, ElementsAre("made", "lost RESOURCE_EXHAUSTED"));
  os_.SetFault(nullptr);
  CloseFd(fds_[kReader]);
}

TEST_P(PipeTest, AbortDropsWhatIsBuffered) {
  Transport& transport = Write();
  transport.Write(std::string(100'000, 'x').c_str());
  transport.Abort();
  Settle();
  EXPECT_EQ(Drain(), std::string(65'536, 'x') + "|");
  EXPECT_THAT(client_.log, ElementsAre("made", "lost OK"));
  CloseFd(fds_[kReader]);
}

TEST_P(PipeTest, PausingTheReadingOfAWriterDoesNothing) {
  Transport& transport = Write();
  transport.PauseReading();
  Settle();
  CloseFd(fds_[kReader]);
  Settle();
  EXPECT_THAT(client_.log, ElementsAre("made", "lost OK"));
}

// ---- sockets

TEST_P(PipeTest, ASocketIsWrittenAndWhatItsPeerSendsIsDropped) {
  ASSERT_EQ(os_.SocketPair(AF_UNIX, SOCK_STREAM, fds_), 0);
  Transport& transport = Keep(TryWrite(fds_[kWriter]));
  const iovec part = {const_cast<char*>("nobody asked"), 12};
  EXPECT_EQ(os_.Send(fds_[kReader], absl::MakeConstSpan(&part, 1)), 12);
  Settle();
  transport.Write("hello");
  Settle();
  EXPECT_EQ(Drain(), "hello");
  EXPECT_THAT(client_.log, ElementsAre("made"));
  CloseFd(fds_[kReader]);
  Settle();
  EXPECT_THAT(client_.log, ElementsAre("made", "lost OK"));
}

TEST_P(PipeTest, ASocketIsRead) {
  ASSERT_EQ(os_.SocketPair(AF_UNIX, SOCK_STREAM, fds_), 0);
  Keep(TryRead(fds_[kReader]));
  Feed("hello");
  Settle();
  CloseFd(fds_[kWriter]);
  Settle();
  EXPECT_THAT(client_.log, ElementsAre("made", "data hello", "eof", "lost OK"));
}

// ---- making them

// C-PIP-01
TEST_P(PipeTest, WhatIsNotOpenIsRefused) {
  EXPECT_EQ(TryRead(99).status().code(), absl::StatusCode::kInvalidArgument);
  const absl::Status refused = TryWrite(99).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(refused.message(), HasSubstr("only for pipes, sockets and character devices"));
  EXPECT_THAT(client_.log, IsEmpty());
}

TEST_P(PipeTest, AFactoryThatThrowsAndAConnectionMadeThatThrowsCloseTheDescriptor) {
  ASSERT_EQ(os_.MakePipe(fds_), 0);
  const auto fails = []() -> std::unique_ptr<BaseProtocol> { throw std::runtime_error("no protocol"); };
  EXPECT_THROW(static_cast<void>(loop_.RunUntilComplete(ConnectReadPipe(loop_, fails, fds_[kReader]))),
               std::runtime_error);
  client_.on_made = [](Transport&) { throw StatusError(absl::DataLossError("not so")); };
  EXPECT_EQ(TryWrite(fds_[kWriter]).status(), absl::DataLossError("not so"));
  EXPECT_THAT(TakeReports(), ElementsAre("Fatal error: protocol.ConnectionMade() call failed."));
  Settle();
  EXPECT_THAT(client_.log, ElementsAre("made", "lost DATA_LOSS"));
}

// C-TRN-14
TEST_P(PipeTest, ItsDescriptorIsItsOwn) {
  Transport& transport = Read();
  EXPECT_THROW(loop_.AddReader(transport.descriptor(), [] {}), InvalidState);
  CloseFd(fds_[kWriter]);
}

TEST_P(PipeTest, APollerThatTakesNoMoreEndsTheTransport) {
  ASSERT_EQ(os_.MakePipe(fds_), 0);
  Fail("Poller.Add", ENOSPC);
  EXPECT_EQ(ErrnoOf(TryRead(fds_[kReader]).status()), ENOSPC);
  Settle();
  os_.SetFault(nullptr);
  EXPECT_THAT(client_.log, ElementsAre("made", "lost RESOURCE_EXHAUSTED"));
  CloseFd(fds_[kWriter]);
}

// ---- callbacks that fail, and those that destroy their transport (P-4)

TEST_P(PipeTest, ACallbackMayThrowOrDestroyItsTransport) {
  enum Action { kThrow, kThrowFatal, kAbort, kClose, kDrop, kDropAndThrow };
  struct Row {
    const char* callback;
    bool reads;
    bool buffered;  // a BufferedProtocol
    std::function<void(std::function<void(Transport&)>)> hook;
  };
  const auto data = [this](auto f) { client_.on_data = [f](Transport& t, absl::Span<const char>) { f(t); }; };
  const auto made = [this](auto f) { client_.on_made = f; };
  const auto lost = [this](auto f) { client_.on_lost = f; };
  const Row rows[] = {
      {"made", true, false, made},
      {"made", false, false, made},
      {"data", true, false, data},
      {"data", true, true, data},
      {"eof", true, false, [this](auto f) { client_.on_eof = f; }},
      {"pause", false, false, [this](auto f) { client_.on_pause = f; }},
      {"resume", false, false, [this](auto f) { client_.on_resume = f; }},
      {"lost", true, false, lost},
      {"lost", false, false, lost},
  };
  for (const Row& row : rows) {
    for (const Action action : {kThrow, kThrowFatal, kAbort, kClose, kDrop, kDropAndThrow}) {
      SCOPED_TRACE(
          absl::StrCat(row.callback, row.reads ? " of a reader, " : " of a writer, ", static_cast<int>(action)));
      // Whoever makes one has it only after ConnectionMade, and is told of what that throws: another test's.
      if (absl::string_view(row.callback) == "made" && action != kAbort && action != kClose) continue;
      client_ = Recording();
      TransportPtr transport;
      int acted = 0, fatals = 0;
      // Fatal leaves the loop, or the call of Write in which PauseWriting threw it; then the loop goes on.
      const auto outlive = [&](auto step) {
        try {
          step();
        } catch (const Fatal&) {
          ++fatals;
        }
      };
      const auto settle = [&] {
        outlive([&] { Settle(); });
        Settle();
      };
      row.hook([&](Transport& t) {
        if (acted++ > 0) return;
        if (action == kAbort) t.Abort();
        if (action == kClose) t.Close();
        if (action == kDrop || action == kDropAndThrow) transport.reset();
        if (action == kThrowFatal) throw Fatal("thrown");
        if (action == kThrow || action == kDropAndThrow) throw std::runtime_error("thrown");
      });
      ASSERT_EQ(os_.MakePipe(fds_), 0);
      absl::StatusOr<Connected<>> connected =
          row.buffered ? loop_.RunUntilComplete(ConnectReadPipe(
                             loop_, [this] { return client_.NewBufferedProtocol(); }, fds_[kReader]))
          : row.reads  ? TryRead(fds_[kReader])
                       : TryWrite(fds_[kWriter]);
      ASSERT_TRUE(connected.ok()) << connected.status();
      transport = std::move(connected->transport);
      settle();
      if (row.reads) {
        if (!client_.lost()) Feed("x");
        settle();
        CloseFd(fds_[kWriter]);
      } else {
        outlive([&] { transport->Write(std::string(200'000, 'x').c_str()); });
        for (int i = 0; i < 4; ++i) {
          settle();
          Drain();
        }
        CloseFd(fds_[kReader]);
      }
      settle();
      EXPECT_TRUE(client_.lost());
      EXPECT_EQ(std::count_if(client_.log.begin(), client_.log.end(),
                              [](const std::string& entry) { return absl::StartsWith(entry, "lost"); }),
                1);
      EXPECT_EQ(acted, 1);
      EXPECT_EQ(fatals, action == kThrowFatal ? 1 : 0);
      EXPECT_THAT(TakeReports(), SizeIs(action == kThrow || action == kDropAndThrow ? 1 : 0));
      transport.reset();
      Settle();
      EXPECT_EQ(client_.alive, 0);
    }
  }
}

// ---- real descriptors

class RealPipeTest : public ::testing::TestWithParam<Polling> {
 protected:
  void SetUp() override {
    descriptors_before_ = CountDescriptors();
    loop_ =
        std::make_unique<EventLoop>(PosixOs::Get(), EventLoopOptions{.strict_polling = GetParam() == Polling::kStrict});
  }
  void TearDown() override {
    transports_.clear();
    Until([&] { return read_.alive == 0 && written_.alive == 0; });
    loop_->Close();
    loop_.reset();
    EXPECT_EQ(CountDescriptors(), descriptors_before_) << "descriptors were left open";
  }
  static size_t CountDescriptors() {
    const std::filesystem::directory_iterator all("/proc/self/fd");
    return static_cast<size_t>(std::distance(begin(all), end(all)));
  }
  static std::string TempPath(const char* name) {
    const char* const temp = ::getenv("TEST_TMPDIR");
    return absl::StrCat(temp == nullptr ? "/tmp" : temp, "/pipe_", ::getpid(), "_", name);
  }
  template <class Condition>
  void Until(Condition condition) {
    while (!condition()) loop_->RunOnceWithoutWaiting();
  }
  absl::StatusOr<Connected<>> TryRead(int fd) {
    return loop_->RunUntilComplete(ConnectReadPipe(
        *loop_, [this] { return read_.NewProtocol(); }, fd));
  }
  absl::StatusOr<Connected<>> TryWrite(int fd) {
    return loop_->RunUntilComplete(ConnectWritePipe(
        *loop_, [this] { return written_.NewProtocol(); }, fd));
  }
  Transport& Keep(absl::StatusOr<Connected<>> connected) {
    EXPECT_TRUE(connected.ok()) << connected.status();
    transports_.push_back(std::move(connected->transport));
    return *transports_.back();
  }

  std::unique_ptr<EventLoop> loop_;
  Recording read_, written_;
  std::vector<TransportPtr> transports_;
  size_t descriptors_before_ = 0;
};

INSTANTIATE_POLLING(RealPipeTest);

// C-PIP-01
TEST_P(RealPipeTest, AFileIsRefusedAndStaysOpen) {
  const int fd = ::open("/proc/self/exe", O_RDONLY);
  EXPECT_EQ(TryRead(fd).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(TryWrite(fd).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(::fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
  ::close(fd);
}

TEST_P(RealPipeTest, APipeCarriesWhatIsWritten) {
  int fds[2];
  ASSERT_EQ(::pipe(fds), 0);
  Keep(TryRead(fds[kReader]));
  Transport& writer = Keep(TryWrite(fds[kWriter]));
  const std::string many(300'000, 'x');
  writer.Write(absl::MakeConstSpan(many));
  writer.Close();
  Until([&] { return read_.lost() && written_.lost(); });
  EXPECT_EQ(read_.received, many.size());
  EXPECT_TRUE(read_.reason.ok() && written_.reason.ok());
}

TEST_P(RealPipeTest, AWriterOfAPipeNoticesThatItsReaderHasGone) {
  int fds[2];
  ASSERT_EQ(::pipe(fds), 0);
  Transport& reader = Keep(TryRead(fds[kReader]));
  Keep(TryWrite(fds[kWriter]));
  reader.Close();
  Until([&] { return written_.lost(); });
  EXPECT_TRUE(written_.reason.ok());
}

TEST_P(RealPipeTest, AFifoThatIsOpenBothWaysIsNotTakenForOneThatNobodyReads) {
  const std::string path = TempPath("fifo");
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  const int fd = ::open(path.c_str(), O_RDWR);
  ASSERT_GE(fd, 0);
  Transport& writer = Keep(TryWrite(fd));
  writer.Write("own");
  for (int i = 0; i < 5; ++i) loop_->RunOnceWithoutWaiting();
  writer.Write(" words");
  EXPECT_THAT(written_.log, ElementsAre("made"));
  Keep(TryRead(::open(path.c_str(), O_RDONLY | O_NONBLOCK)));
  Until([&] { return read_.received == 9; });
  EXPECT_THAT(read_.log, ElementsAre("made", "data own words"));
  ::unlink(path.c_str());
}

TEST_P(RealPipeTest, ATerminalIsWrittenAndReadAndItsEndIsAnError) {
  const int terminal = ::posix_openpt(O_RDWR | O_NOCTTY);
  ASSERT_GE(terminal, 0);
  ASSERT_EQ(::grantpt(terminal), 0);
  ASSERT_EQ(::unlockpt(terminal), 0);
  char name[100];
  ASSERT_EQ(::ptsname_r(terminal, name, sizeof(name)), 0);
  const int program_end = ::open(name, O_RDWR | O_NOCTTY);
  ASSERT_GE(program_end, 0);
  const int second = ::dup(terminal);
  Keep(TryRead(terminal));
  Transport& typist = Keep(TryWrite(second));
  typist.Write("typed\n");
  // The echo.
  Until([&] { return read_.received == 7; });
  EXPECT_THAT(read_.log, ElementsAre("made", "data typed\r\n"));
  char line[100];
  EXPECT_EQ(::read(program_end, line, sizeof(line)), 6);
  EXPECT_EQ(::write(program_end, "reply", 5), 5);
  Until([&] { return read_.received == 12; });
  ::close(program_end);
  Until([&] { return read_.lost(); });
  EXPECT_EQ(ErrnoOf(read_.reason), EIO);
}

TEST_P(RealPipeTest, TheNullDeviceEndsAtOnceAndTakesEverything) {
  Keep(TryRead(::open("/dev/null", O_RDONLY)));
  Until([&] { return read_.lost(); });
  EXPECT_THAT(read_.log, ElementsAre("made", "eof", "lost OK"));
  Transport& writer = Keep(TryWrite(::open("/dev/null", O_WRONLY)));
  const std::string many(300'000, 'x');
  writer.Write(absl::MakeConstSpan(many));
  for (int i = 0; i < 5; ++i) loop_->RunOnceWithoutWaiting();
  EXPECT_FALSE(loop_->HasReady()) << "it asks for nothing";
  EXPECT_THAT(written_.log, ElementsAre("made"));
  EXPECT_EQ(writer.write_buffer_size(), 0u);
  writer.Close();
  Until([&] { return written_.lost(); });
}

TEST_P(RealPipeTest, ADeviceThatIsAlwaysReadyLeavesTheLoopItsTurns) {
  Transport& zeros = Keep(TryRead(::open("/dev/zero", O_RDONLY)));
  int turns = 0;
  std::function<void()> again = [&] {
    ++turns;
    if (turns < 5) loop_->Post(again);
  };
  loop_->Post(again);
  Until([&] { return turns == 5 && read_.received > 0; });
  zeros.PauseReading();
  const size_t received = read_.received;
  for (int i = 0; i < 5; ++i) loop_->RunOnceWithoutWaiting();
  EXPECT_EQ(read_.received, received);
  zeros.ResumeReading();
  Until([&] { return read_.received > received; });
  zeros.Abort();
  Until([&] { return read_.lost(); });
}

}  // namespace
}  // namespace troupe
