// How this test works: a server of HTTP/2 that misbehaves as gRPC's negative tests describe, on a simulated network and
// in virtual time, and our channel as its client. The server speaks frames by itself: it keeps to flow control and to
// nothing else.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "grpc/testing/test.troupe.h"
#include "gtest/gtest.h"
#include "troupe/async/sleep.h"
#include "troupe/async/task.h"
#include "troupe/base/errors.h"
#include "troupe/loop/event_loop.h"
#include "troupe/net/protocol.h"
#include "troupe/net/stream_server.h"
#include "troupe/net/transport.h"
#include "troupe/rpc/reply.h"
#include "troupe/service/channel.h"
#include "troupe/service/session.h"
#include "troupe/testing/matchers.h"
#include "troupe/testing/sim/sim_os.h"
#include "troupe/wire/grpc/testing_peer.h"

namespace interop {
namespace {

using grpc::testing::SimpleRequest;
using grpc::testing::SimpleResponse;
using grpc::testing::TestServiceStub;
using troupe::grpc_wire::Framed;
using troupe::grpc_wire::H2Bytes;
using troupe::testing::StatusIs;

constexpr size_t kMagicBytes = 24, kHeadBytes = 9;
constexpr int kRequestBytes = 271828;
constexpr int64_t kWindowAtFirst = 65535;
constexpr uint16_t kMaxConcurrentStreams = 3, kInitialWindowSize = 4;
constexpr uint8_t kPadded = 8;

struct Scene {
  // What the server does.
  bool goaway_after_call = false;
  bool reset_after_headers = false;
  bool reset_during_data = false;
  bool reset_after_data = false;
  bool pings = false;
  bool one_stream = false;
  size_t frame_bytes = 16384;  // of an answer
  size_t padding = 0;          // of each frame; 0: not padded
  size_t response_bytes = 314159;

  // What it saw.
  int connections = 0;
  int pings_sent = 0;
  int pings_acked = 0;
  int streams_open = 0;
  int streams_open_max = 0;
};

class BadServer final : public troupe::Protocol {
 public:
  explicit BadServer(Scene& scene) : scene_(scene) {}

  void ConnectionMade(troupe::Transport& transport) override {
    transport_ = &transport;
    ++scene_.connections;
    H2Bytes settings;
    scene_.one_stream ? settings.Settings({{kMaxConcurrentStreams, 1}}) : settings.Settings();
    Send(settings);
  }
  void DataReceived(absl::Span<const char> data) override {
    received_.append(data.data(), data.size());
    if (!greeted_ && received_.size() >= kMagicBytes) {
      received_.erase(0, kMagicBytes);
      greeted_ = true;
    }
    while (greeted_ && received_.size() >= kHeadBytes) {
      const size_t length = Number(0, 3);
      if (received_.size() < kHeadBytes + length) break;
      const std::string payload = received_.substr(kHeadBytes, length);
      const auto type = static_cast<uint8_t>(received_[3]), flags = static_cast<uint8_t>(received_[4]);
      const auto id = static_cast<uint32_t>(Number(5, 4));
      received_.erase(0, kHeadBytes + length);
      OnFrame(type, flags, id, payload);
    }
  }
  void ConnectionLost(const absl::Status&) override {
    transport_ = nullptr;
    scene_.streams_open -= static_cast<int>(streams_.size());
  }

 private:
  struct Stream {
    int64_t window;
    std::deque<std::string> frames = {};  // of the answer, not sent yet
  };

  size_t Number(size_t at, size_t bytes) const {
    size_t number = 0;
    for (size_t i = 0; i < bytes; ++i) number = number << 8 | static_cast<uint8_t>(received_[at + i]);
    return number;
  }
  static uint32_t Number(absl::string_view bytes) {
    uint32_t number = 0;
    for (const char byte : bytes) number = number << 8 | static_cast<uint8_t>(byte);
    return number;
  }
  void Send(const H2Bytes& bytes) {
    if (transport_ != nullptr) transport_->Write(bytes);
  }
  void Ping() {
    if (!scene_.pings) return;
    ++scene_.pings_sent;
    Send(H2Bytes().Ping(7));
  }

  void OnFrame(uint8_t type, uint8_t flags, uint32_t id, const std::string& payload) {
    using namespace troupe::grpc_wire;  // NOLINT(google-build-using-namespace): the types of frames
    switch (type) {
      case kSettingsFrame:
        if ((flags & kAckFlag) != 0) return;
        for (size_t i = 0; i + 6 <= payload.size(); i += 6) {
          const absl::string_view entry = absl::string_view(payload).substr(i, 6);
          if (Number(entry.substr(0, 2)) == kInitialWindowSize) stream_window_ = Number(entry.substr(2));
        }
        return Send(H2Bytes().SettingsAck());
      case kPingFrame:
        if ((flags & kAckFlag) != 0) {
          ++scene_.pings_acked;
          return;
        }
        return Send(H2Bytes().Frame(kPingFrame, kAckFlag, 0, payload));
      case kWindowUpdateFrame:
        if (id == 0) {
          window_ += Number(payload);
        } else if (const auto found = streams_.find(id); found != streams_.end()) {
          found->second.window += Number(payload);
        }
        return SendWhatFits();
      case kResetFrame:
        return Close(id);
      case kHeadersFrame:
        streams_.emplace(id, Stream{stream_window_});
        ++scene_.streams_open;
        scene_.streams_open_max = std::max(scene_.streams_open_max, scene_.streams_open);
        return;
      case kDataFrame:
        if (streams_.count(id) == 0) return;
        if (!payload.empty()) {
          const auto bytes = static_cast<uint32_t>(payload.size());
          Send(H2Bytes().WindowUpdate(0, bytes).WindowUpdate(id, bytes));
        }
        if ((flags & kEndStream) != 0) Answer(id);
        return;
      default:
        return;
    }
  }
  void Answer(uint32_t id) {
    Ping();
    Send(H2Bytes().Headers(id, {{":status", "200"}, {"content-type", "application/grpc"}}));
    Ping();
    if (scene_.reset_after_headers) return Reset(id);
    SimpleResponse response;
    response.mutable_payload()->set_body(std::string(scene_.response_bytes, '\0'));
    const std::string message = Framed(response.SerializeAsString());
    const size_t size = scene_.reset_during_data ? message.size() / 2 : message.size();
    Stream& stream = streams_.at(id);
    for (size_t i = 0; i < size; i += scene_.frame_bytes) {
      stream.frames.push_back(message.substr(i, std::min(scene_.frame_bytes, size - i)));
    }
    SendWhatFits();
  }
  void SendWhatFits() {
    std::vector<uint32_t> done;
    for (auto& [id, stream] : streams_) {
      const bool answering = !stream.frames.empty();
      while (!stream.frames.empty() && SendFrame(id, stream)) continue;
      if (answering && stream.frames.empty()) done.push_back(id);
    }
    for (const uint32_t id : done) {
      Ping();
      if (scene_.reset_during_data || scene_.reset_after_data) {
        Reset(id);
        continue;
      }
      Send(H2Bytes().Headers(id, {{"grpc-status", "0"}}, troupe::grpc_wire::kEndStream));
      Close(id);
      if (scene_.goaway_after_call) Send(H2Bytes().GoAway(id, 0));
    }
  }
  // False: there is no window for it.
  bool SendFrame(uint32_t id, Stream& stream) {
    std::string payload = stream.frames.front();
    if (scene_.padding > 0) {
      payload = std::string(1, static_cast<char>(scene_.padding)) + payload + std::string(scene_.padding, '\0');
    }
    const auto cost = static_cast<int64_t>(payload.size());
    if (cost > window_ || cost > stream.window) return false;
    window_ -= cost;
    stream.window -= cost;
    stream.frames.pop_front();
    Send(H2Bytes().Frame(troupe::grpc_wire::kDataFrame, scene_.padding > 0 ? kPadded : uint8_t{0}, id, payload));
    return true;
  }
  void Reset(uint32_t id) {
    Send(H2Bytes().Reset(id, 0));
    Close(id);
  }
  void Close(uint32_t id) { scene_.streams_open -= static_cast<int>(streams_.erase(id)); }

  Scene& scene_;
  troupe::Transport* transport_ = nullptr;
  std::string received_;
  bool greeted_ = false;
  int64_t window_ = kWindowAtFirst;
  int64_t stream_window_ = kWindowAtFirst;
  std::map<uint32_t, Stream> streams_;
};

class NegativeTest : public ::testing::Test {
 protected:
  NegativeTest() {
    troupe::StreamServerOptions options;
    options.listen = {"127.0.0.1:0"};
    auto server = loop_.RunUntilComplete(
        troupe::CreateServer(loop_, [this] { return std::make_unique<BadServer>(scene_); }, options));
    EXPECT_OK(server);
    server_ = *std::move(server);
    channel_ = std::make_unique<troupe::Channel>(loop_, server_->addresses()[0].ToString(),
                                                 troupe::ChannelOptions{.wire = troupe::Wire::kGrpc});
  }
  ~NegativeTest() override {
    channel_.reset();
    server_->Close();
    loop_.RunUntilComplete(troupe::Sleep(absl::Seconds(1)));
    server_.reset();
    loop_.Close();
  }
  static SimpleRequest Request() {
    SimpleRequest request;
    request.set_response_size(1);  // the server answers as the scene says
    request.mutable_payload()->set_body(std::string(kRequestBytes, '\0'));
    return request;
  }
  troupe::Reply<SimpleResponse> Call() { return TestServiceStub(*channel_).UnaryCall(Request()); }
  // OK: the call was answered with all that was asked for.
  absl::Status LargeUnary() { return Await(Call()); }
  absl::Status Await(troupe::Reply<SimpleResponse> reply) {
    const absl::StatusOr<SimpleResponse> response = loop_.RunUntilComplete(std::move(reply).AsTask());
    if (response.ok()) {
      EXPECT_EQ(response->payload().body(), std::string(scene_.response_bytes, '\0'));
    }
    return response.status();
  }

  Scene scene_;
  troupe::testing::SimOs os_;
  troupe::EventLoop loop_{os_};
  std::unique_ptr<troupe::StreamServer> server_;
  std::unique_ptr<troupe::Channel> channel_;
};

TEST_F(NegativeTest, GoawayAfterACallIsNoFailureOfTheNext) {
  scene_.goaway_after_call = true;
  EXPECT_OK(LargeUnary());
  loop_.RunUntilComplete(troupe::Sleep(absl::Seconds(1)));
  EXPECT_OK(LargeUnary());
  EXPECT_EQ(scene_.connections, 2);
}

TEST_F(NegativeTest, RstAfterHeaderFailsTheCall) {
  scene_.reset_after_headers = true;
  EXPECT_THAT(LargeUnary(), StatusIs(absl::StatusCode::kInternal));
  scene_.reset_after_headers = false;
  EXPECT_OK(LargeUnary());
  EXPECT_EQ(scene_.connections, 1) << "and nothing else";
}

TEST_F(NegativeTest, RstDuringDataFailsTheCall) {
  scene_.reset_during_data = true;
  EXPECT_THAT(LargeUnary(), StatusIs(absl::StatusCode::kInternal));
  scene_.reset_during_data = false;
  EXPECT_OK(LargeUnary());
  EXPECT_EQ(scene_.connections, 1);
}

TEST_F(NegativeTest, RstAfterDataFailsTheCallThoughItsMessageHasCome) {
  scene_.reset_after_data = true;
  EXPECT_THAT(LargeUnary(), StatusIs(absl::StatusCode::kInternal));
  scene_.reset_after_data = false;
  EXPECT_OK(LargeUnary());
  EXPECT_EQ(scene_.connections, 1);
}

TEST_F(NegativeTest, EachPingIsAnswered) {
  scene_.pings = true;
  EXPECT_OK(LargeUnary());
  loop_.RunUntilComplete(troupe::Sleep(absl::Seconds(1)));
  EXPECT_EQ(scene_.pings_sent, 3);
  EXPECT_EQ(scene_.pings_acked, 3);
}

TEST_F(NegativeTest, OneStreamAtATimeServesTenCalls) {
  scene_.one_stream = true;
  EXPECT_OK(LargeUnary());
  std::vector<troupe::Reply<SimpleResponse>> replies;
  for (int i = 0; i < 10; ++i) replies.push_back(Call());
  for (troupe::Reply<SimpleResponse>& reply : replies) EXPECT_OK(Await(std::move(reply)));
  EXPECT_EQ(scene_.streams_open_max, 1);
  EXPECT_EQ(scene_.connections, 1);
}

// Megabytes of padding come with it, and count against the windows.
TEST_F(NegativeTest, PaddingIsGivenBackAsCredit) {
  scene_.frame_bytes = 5;
  scene_.response_bytes = 314'159;  // 17 MB with their padding, of a message above its call's window
  scene_.padding = 255;
  for (int i = 0; i < 2; ++i) EXPECT_OK(LargeUnary());
}

TEST_F(NegativeTest, FramesOfFiveBytesAreNoFlood) {
  scene_.frame_bytes = 5;
  scene_.response_bytes = 70'000;  // 3.6 MB with their padding
  EXPECT_OK(LargeUnary());
}

}  // namespace
}  // namespace interop
