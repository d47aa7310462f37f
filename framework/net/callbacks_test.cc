// Every callback of every byte protocol, and the factory of a server, throwing, and destroying what called it (P-4): over
// every device, whatever the polling. Whatever comes of it, nothing that is gone is used (the sanitizers watch), each
// connection is lost exactly once and last (C-TRN-02), each exception is reported exactly once, nothing is left.
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/task.h"
#include "troupe/base/errors.h"
#include "troupe/loop/event_loop.h"
#include "troupe/loop/loop_testing.h"
#include "troupe/net/connect.h"
#include "troupe/net/internal/recording_protocol.h"
#include "troupe/net/internal/transport_testing.h"
#include "troupe/net/stream_server.h"

namespace troupe {
namespace {

using internal::Device;
using internal::Recording;
using ::testing::Combine;
using ::testing::SizeIs;
using ::testing::Values;

enum class Callback { kMade, kData, kEof, kPause, kResume, kLost, kGetBuffer, kBufferUpdated, kFactory };

std::string CallbackName(Callback callback) {
  constexpr const char* kNames[] = {"Made", "Data",      "Eof",           "Pause",  "Resume",
                                    "Lost", "GetBuffer", "BufferUpdated", "Factory"};
  return kNames[static_cast<int>(callback)];
}

// Calls `then` in the first `callback` that comes.
template <class Then>
void Hook(Recording& recording, Callback callback, Then then) {
  const auto hook = [then, done = std::make_shared<bool>(false)] {
    if (!std::exchange(*done, true)) then();
  };
  switch (callback) {
    case Callback::kMade:
      recording.on_made = [hook](Transport&) { hook(); };
      break;
    case Callback::kData:
    case Callback::kBufferUpdated:
      recording.on_data = [hook](Transport&, absl::Span<const char>) { hook(); };
      break;
    case Callback::kEof:
      recording.on_eof = [hook](Transport&) { hook(); };
      break;
    case Callback::kPause:
      recording.on_pause = [hook](Transport&) { hook(); };
      break;
    case Callback::kResume:
      recording.on_resume = [hook](Transport&) { hook(); };
      break;
    case Callback::kLost:
      recording.on_lost = [hook](Transport&) { hook(); };
      break;
    case Callback::kGetBuffer:
      recording.get_buffer = [hook, buffer = std::make_shared<std::vector<char>>(64)](int64_t) {
        hook();
        return absl::MakeSpan(*buffer);
      };
      break;
    case Callback::kFactory:
      break;
  }
}

size_t Losses(const Recording& recording) {
  size_t losses = 0;
  for (const std::string& entry : recording.log) losses += absl::StartsWith(entry, "lost") ? 1 : 0;
  return losses;
}

// ---------------------------------------------------------------------------------------------------- transports

enum class Action { kThrow, kThrowStatus, kThrowFatal, kAbort, kClose, kDrop, kDropBoth, kDropAndThrow, kReplace };

std::string ActionName(Action action) {
  constexpr const char* kNames[] = {"Throw", "ThrowStatus", "ThrowFatal",   "Abort",  "Close",
                                    "Drop",  "DropBoth",    "DropAndThrow", "Replace"};
  return kNames[static_cast<int>(action)];
}

using TransportCase = std::tuple<Device, Polling, Callback, Action>;

class TransportCallbacksTest : public internal::TransportWorld, public ::testing::TestWithParam<TransportCase> {
 protected:
  TransportCallbacksTest() : TransportWorld(std::get<Device>(GetParam()), std::get<Polling>(GetParam())) {}

  void Act() {
    ++acted_;
    switch (std::get<Action>(GetParam())) {
      case Action::kThrow:
        throw std::runtime_error("thrown");
      case Action::kThrowStatus:
        throw StatusError(absl::DataLossError("thrown"));
      case Action::kThrowFatal:
        throw Fatal("thrown");
      case Action::kAbort:
        return first_->Abort();
      case Action::kClose:
        return first_->Close();
      case Action::kDrop:
        return first_.reset();
      case Action::kDropBoth:
        second_.reset();
        return first_.reset();
      case Action::kDropAndThrow:
        first_.reset();
        throw std::runtime_error("thrown");
      case Action::kReplace:
        return first_->SetProtocol(c_.NewProtocol());
    }
  }
  // Fatal leaves the loop, or the call of Write in which PauseWriting threw it; then the loop goes on.
  template <class F>
  void Outlive(F f) {
    try {
      f();
    } catch (const Fatal&) {
      ++fatals_;
    }
    Settle();
  }
  void SettleThrough() {
    Outlive([this] { Settle(); });
  }

  Recording c_;
  int acted_ = 0;
  int fatals_ = 0;
};

INSTANTIATE_TEST_SUITE_P(
    All, TransportCallbacksTest,
    Combine(Values(Device::kMemory, Device::kSimulated, Device::kPosix), Values(Polling::kStrict, Polling::kShared),
            Values(Callback::kMade, Callback::kData, Callback::kEof, Callback::kPause, Callback::kResume,
                   Callback::kLost, Callback::kGetBuffer, Callback::kBufferUpdated),
            Values(Action::kThrow, Action::kThrowStatus, Action::kThrowFatal, Action::kAbort, Action::kClose,
                   Action::kDrop, Action::kDropBoth, Action::kDropAndThrow, Action::kReplace)),
    [](const ::testing::TestParamInfo<TransportCase>& info) {
      return internal::DeviceName(std::get<Device>(info.param)) +
             (std::get<Polling>(info.param) == Polling::kStrict ? "Strict" : "Shared") +
             CallbackName(std::get<Callback>(info.param)) + ActionName(std::get<Action>(info.param));
    });

// P-2, P-4, C-TRN-02, C-TRN-08, C-TRN-09, C-TRN-13
TEST_P(TransportCallbacksTest, MayThrowOrDestroyWhatCallsThem) {
  const Callback callback = std::get<Callback>(GetParam());
  const Action action = std::get<Action>(GetParam());
  const bool buffered = callback == Callback::kGetBuffer || callback == Callback::kBufferUpdated;
  a_.keep_open = c_.keep_open = true;
  Hook(a_, callback, [this] { Act(); });

  // A life in which every callback comes.
  Connect(buffered ? a_.NewBufferedProtocol() : a_.NewProtocol(), b_.NewProtocol());
  ASSERT_TRUE(first_->SetWriteBufferLimits({.high = 100}).ok());
  SettleThrough();
  if (second_ != nullptr) second_->Write("x");
  SettleThrough();
  if (first_ != nullptr && second_ != nullptr) {
    second_->PauseReading();
    Outlive([this] { first_->Write(std::string(MoreThan100(), 'x')); });
  }
  if (second_ != nullptr) second_->ResumeReading();
  SettleThrough();
  if (second_ != nullptr) second_->WriteEof();
  SettleThrough();
  if (first_ != nullptr) first_->Close();
  SettleThrough();
  first_.reset();
  second_.reset();
  SettleThrough();

  EXPECT_EQ(acted_, 1);
  EXPECT_EQ(a_.log.front(), "made");
  EXPECT_EQ(Losses(a_) + Losses(c_), 1u);
  EXPECT_TRUE(c_.log.empty() ? a_.lost() : c_.lost());
  EXPECT_EQ(Losses(b_), 1u);
  EXPECT_TRUE(b_.lost());
  EXPECT_EQ(a_.alive + b_.alive + c_.alive, 0);
  const bool throws = action == Action::kThrow || action == Action::kThrowStatus || action == Action::kDropAndThrow;
  EXPECT_THAT(reports_, SizeIs(throws ? 1 : 0));
  EXPECT_EQ(fatals_, action == Action::kThrowFatal ? 1 : 0);
}

// ---------------------------------------------------------------------------------------------------- servers

enum class ServerAction { kThrow, kThrowFatal, kReset, kClose, kAbortAll, kResetAndThrow, kResetAll };

std::string ServerActionName(ServerAction action) {
  constexpr const char* kNames[] = {"Throw", "ThrowFatal", "Reset", "Close", "AbortAll", "ResetAndThrow", "ResetAll"};
  return kNames[static_cast<int>(action)];
}

using ServerCase = std::tuple<Device, Polling, Callback, ServerAction>;

// first_ is a client; a_ records what the protocols of its server's connections hear.
class ServerCallbacksTest : public internal::TransportWorld, public ::testing::TestWithParam<ServerCase> {
 protected:
  ServerCallbacksTest() : TransportWorld(std::get<Device>(GetParam()), std::get<Polling>(GetParam())) {}

  // A Unix path has 107 bytes at most, and the folder for temporary files alone may have more: so it is relative.
  static void SetUpTestSuite() {
    const char* const folder = ::getenv("TEST_TMPDIR");
    if (folder != nullptr) {
      ASSERT_EQ(::chdir(folder), 0);
    }
  }

  void Act() {
    ++acted_;
    switch (std::get<ServerAction>(GetParam())) {
      case ServerAction::kThrow:
        throw std::runtime_error("thrown");
      case ServerAction::kThrowFatal:
        throw Fatal("thrown");
      case ServerAction::kReset:
        return server_.reset();
      case ServerAction::kClose:
        return server_->Close();
      case ServerAction::kAbortAll:
        return server_->AbortConnections();
      case ServerAction::kResetAndThrow:
        server_.reset();
        throw std::runtime_error("thrown");
      case ServerAction::kResetAll:
        first_.reset();
        return server_.reset();
    }
  }
  void SettleThrough() {
    try {
      Settle();
    } catch (const Fatal&) {
      ++fatals_;
      Settle();
    }
  }
  Task<void> WaitClosed() {
    co_await server_->WaitClosed();
    closed_ = true;
  }
  // A task, so that Fatal leaves the loop and not the wait.
  Task<void> ConnectClient() {
    ConnectOptions options;
    options.address = server_->addresses().front();
    const auto factory = [this] { return b_.NewProtocol(); };
    absl::StatusOr<Connected<>> connected = co_await CreateConnection(*loop_, factory, options);
    if (connected.ok()) first_ = std::move(connected->transport);
  }

  std::unique_ptr<StreamServer> server_;
  int acted_ = 0;
  int fatals_ = 0;
  bool closed_ = false;
};

INSTANTIATE_TEST_SUITE_P(All, ServerCallbacksTest,
                         Combine(Values(Device::kSimulated, Device::kPosix), Values(Polling::kStrict, Polling::kShared),
                                 Values(Callback::kFactory, Callback::kMade, Callback::kData, Callback::kEof,
                                        Callback::kPause, Callback::kResume, Callback::kLost),
                                 Values(ServerAction::kThrow, ServerAction::kThrowFatal, ServerAction::kReset,
                                        ServerAction::kClose, ServerAction::kAbortAll, ServerAction::kResetAndThrow,
                                        ServerAction::kResetAll)),
                         [](const ::testing::TestParamInfo<ServerCase>& info) {
                           return internal::DeviceName(std::get<Device>(info.param)) +
                                  (std::get<Polling>(info.param) == Polling::kStrict ? "Strict" : "Shared") +
                                  CallbackName(std::get<Callback>(info.param)) +
                                  ServerActionName(std::get<ServerAction>(info.param));
                         });

// P-2, P-4, C-SRV-03, C-SRV-05, C-TRN-02
TEST_P(ServerCallbacksTest, MayThrowOrDestroyTheServer) {
  const Callback callback = std::get<Callback>(GetParam());
  const ServerAction action = std::get<ServerAction>(GetParam());
  const std::string path = absl::StrCat("callbacks_", ::getpid());
  os().Unlink(path);
  if (in_bits()) sim_.kernel().SetSendBufferBytes(1000);
  Hook(a_, callback, [this] { Act(); });
  // Not enough for the marks by itself: what is written when something arrives crosses them.
  const auto on_data = std::exchange(a_.on_data, nullptr);
  a_.on_data = [&](Transport& transport, absl::Span<const char> data) {
    if (on_data != nullptr) on_data(transport, data);
    ASSERT_TRUE(transport.SetWriteBufferLimits({.high = 100}).ok());
    transport.Write(std::string(MoreThan100(), 'x'));
  };
  StreamServerOptions options;
  options.listen = {"unix:" + path};
  auto made = loop_->RunUntilComplete(CreateServer(
      *loop_,
      [&] {
        if (callback == Callback::kFactory && acted_ == 0) Act();
        return a_.NewProtocol();
      },
      options));
  ASSERT_TRUE(made.ok()) << made.status();
  server_ = *std::move(made);

  loop_->CreateTask(WaitClosed());
  loop_->CreateTask(ConnectClient());
  SettleThrough();
  if (first_ != nullptr) first_->PauseReading();
  if (first_ != nullptr) first_->Write("x");
  SettleThrough();
  if (first_ != nullptr) first_->ResumeReading();
  SettleThrough();
  if (first_ != nullptr) first_->WriteEof();
  SettleThrough();
  if (first_ != nullptr) first_->Abort();
  first_.reset();
  SettleThrough();
  const bool reset = server_ == nullptr;
  server_.reset();
  SettleThrough();

  EXPECT_EQ(acted_, 1);
  EXPECT_TRUE(closed_);
  EXPECT_EQ(Losses(a_), static_cast<size_t>(a_.Count("made")));
  if (!a_.log.empty()) {
    EXPECT_TRUE(a_.lost());
  }
  EXPECT_EQ(Losses(b_), 1u);
  EXPECT_EQ(a_.alive + b_.alive, 0);
  const bool throws = action == ServerAction::kThrow || action == ServerAction::kResetAndThrow;
  EXPECT_EQ(reset, action == ServerAction::kReset || action == ServerAction::kResetAndThrow ||
                       action == ServerAction::kResetAll);
  EXPECT_THAT(reports_, SizeIs(throws ? 1 : 0));
  EXPECT_EQ(fatals_, action == ServerAction::kThrowFatal ? 1 : 0);
  os().Unlink(path);
}

}  // namespace
}  // namespace troupe
