// How this test works: a Channel calls an address where the first connections are answered by an Impostor, who says what
// the test tells it to, and later ones by a real server. So a call is refused, passed over by a GOAWAY or never sent by
// the first connection, and what becomes of it shows on the next.
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "desk.troupe.h"
#include "echo/v1/echo.troupe.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/sleep.h"
#include "troupe/net/protocol.h"
#include "troupe/net/stream_server.h"
#include "troupe/net/transport.h"
#include "troupe/service/channel.h"
#include "troupe/service/server.h"
#include "troupe/testing/matchers.h"
#include "troupe/testing/sim/sim_os.h"
#include "troupe/wire/native/frame.h"
#include "troupe/wire/native/testing_peer.h"

namespace troupe {
namespace {

using ::echo::v1::EchoRequest;
using ::echo::v1::EchoResponse;
using ::echo::v1::EchoStub;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::troupe::native::FrameBytes;
using ::troupe::testing::SimOs;
using ::troupe::testing::StatusIs;

class Echoes final : public echo::v1::EchoActor {
 public:
  Task<absl::Status> Echo(const EchoRequest& request, EchoResponse& response, Call& call) override {
    if (request.message() == "slow") co_await Sleep(absl::Seconds(3));
    response.set_message(absl::StrCat(request.message(), call.metadata().Get("key").value_or("")));
    co_return absl::OkStatus();
  }
  Task<absl::Status> Collect(Reader<echo::v1::CollectRequest> reader, echo::v1::CollectResponse& response,
                             Call&) override {
    echo::v1::CollectRequest request;
    while (true) {
      const bool more = co_await reader.Read(request);
      if (!more) break;
      response.add_messages(request.message());
    }
    co_return absl::OkStatus();
  }
};

class Bells final : public desk::BellActor {
 public:
  explicit Bells(int& rung) : rung_(rung) {}
  Task<absl::Status> Ring(const desk::Note&, google::protobuf::Empty&, Call&) override {
    ++rung_;
    co_return absl::OkStatus();
  }

 private:
  int& rung_;
};

class MovedCallsTest : public ::testing::Test {
 protected:
  // What an impostor says when so many calls have come, each new one: the ids, in order.
  using Says = std::function<void(Transport&, const std::vector<uint32_t>&)>;

  class Impostor final : public Protocol {
   public:
    explicit Impostor(MovedCallsTest& test, Says says) : test_(test), says_(std::move(says)) {}
    void ConnectionMade(Transport& made) override {
      transport_ = &made;
      made.Write(FrameBytes().Preface(test_.features_));
    }
    void DataReceived(absl::Span<const char> data) override {
      input_.append(data.data(), data.size());
      if (!preface_read_) {
        if (input_.size() < 8 || input_.size() < 8 + size_t{native::Load16(input_.data() + 6)}) return;
        input_.erase(0, 8 + size_t{native::Load16(input_.data() + 6)});
        preface_read_ = true;
      }
      while (input_.size() >= native::kFrameHeaderBytes) {
        const native::FrameHeader frame = native::ReadFrameHeader(input_.data());
        if (input_.size() < native::kFrameHeaderBytes + frame.length) break;
        input_.erase(0, native::kFrameHeaderBytes + frame.length);
        if (frame.type == native::FrameType::kCall) calls_.push_back(frame.id);
      }
      test_.calls_seen_ += calls_.size();
      if (!calls_.empty()) says_(*transport_, std::exchange(calls_, {}));
    }

   private:
    MovedCallsTest& test_;
    const Says says_;
    Transport* transport_ = nullptr;
    bool preface_read_ = false;
    std::string input_;
    std::vector<uint32_t> calls_;
  };

  ~MovedCallsTest() override {
    channel_.reset();
    loop_.RunUntilComplete(Sleep(absl::Seconds(1)));
    front_->Close();
    server_.Close();
    loop_.RunUntilComplete(server_.WaitClosed());
    front_.reset();
    loop_.Close();
  }

  // The first connections are answered by these, in order.
  void Begin(std::vector<Says> impostors) {
    impostors_ = std::move(impostors);
    server_.Add<Echoes>();
    server_.Add<Bells>(std::ref(rung_));
    ASSERT_OK(loop_.RunUntilComplete(server_.Start()));
    StreamServerOptions options{.listen = {"127.0.0.1:7400"}};
    auto front = loop_.RunUntilComplete(CreateServer(
        loop_,
        [this]() -> std::unique_ptr<BaseProtocol> {
          if (connections_ < impostors_.size()) return std::make_unique<Impostor>(*this, impostors_[connections_++]);
          ++connections_;
          return server_.NewConnection();
        },
        options));
    ASSERT_OK(front.status());
    front_ = *std::move(front);
    channel_ = std::make_unique<Channel>(loop_, "troupe+dns:///127.0.0.1:7400");
  }
  static Task<absl::StatusOr<EchoResponse>> Await(Reply<EchoResponse> reply) {
    absl::StatusOr<EchoResponse> got = co_await reply;
    co_return got;
  }
  Reply<EchoResponse> Call(std::string text, CallOptions options = {}) {
    EchoRequest request;
    request.set_message(std::move(text));
    return EchoStub(*channel_).Echo(request, options);
  }
  absl::StatusOr<EchoResponse> Result(Reply<EchoResponse> reply) {
    return loop_.RunUntilComplete(Await(std::move(reply)));
  }
  uint64_t moved() const { return channel_->counters().calls_moved.value(); }

  static void RefuseAll(Transport& transport, const std::vector<uint32_t>& calls) {
    for (const uint32_t id : calls) {
      transport.Write(FrameBytes().Reset(id, absl::UnavailableError("not now"), /*not_started=*/true));
    }
  }
  static void GoAway(Transport& transport, const std::vector<uint32_t>&) { transport.Write(FrameBytes().GoAway(0)); }

  SimOs os_;
  EventLoop loop_{os_};
  Server server_{loop_};
  int rung_ = 0;
  std::vector<std::pair<native::FeatureId, uint32_t>> features_;
  std::vector<Says> impostors_;
  size_t connections_ = 0;
  size_t calls_seen_ = 0;  // by impostors
  std::unique_ptr<StreamServer> front_;
  std::unique_ptr<Channel> channel_;
};

TEST_F(MovedCallsTest, ACallThatAGoAwayPassedOverIsSentByTheNextConnection) {
  Begin({&GoAway});
  const Metadata metadata = {{"key", "-with-its-metadata"}};
  const absl::StatusOr<EchoResponse> got = Result(Call("moved", {.metadata = &metadata}));
  ASSERT_OK(got.status());
  EXPECT_EQ(got->message(), "moved-with-its-metadata");
  EXPECT_EQ(connections_, 2u);
  EXPECT_EQ(moved(), 1u);
  EXPECT_EQ(channel_->counters().memory.tight.value(), 0u);
  EXPECT_EQ(os_.held_memory().load(), 0) << "its request is not kept any longer";
}

TEST_F(MovedCallsTest, ARefusedCallIsSentOnceMoreAndNoOftener) {
  Begin({[](Transport& transport, const std::vector<uint32_t>& calls) { RefuseAll(transport, calls); }});
  EXPECT_THAT(Result(Call("x")), StatusIs(absl::StatusCode::kUnavailable, "not now"));
  EXPECT_EQ(connections_, 1u);
  EXPECT_EQ(calls_seen_, 2u);
  EXPECT_EQ(moved(), 1u);
}

TEST_F(MovedCallsTest, AGoAwayAfterARefusalEndsTheCall) {
  Begin({[](Transport& transport, const std::vector<uint32_t>& calls) {
           transport.Write(FrameBytes().Reset(calls[0], absl::UnavailableError("not now"), true));
           transport.Write(FrameBytes().GoAway(calls[0]));
         },
         &GoAway});
  EXPECT_THAT(Result(Call("x")), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(moved(), 1u);
}

// What was refused for what it is would be refused again.
TEST_F(MovedCallsTest, WhatIsRefusedForWhatItIsStaysRefused) {
  Begin({[](Transport& transport, const std::vector<uint32_t>& calls) {
    transport.Write(FrameBytes().Reset(calls[0], absl::ResourceExhaustedError("metadata is larger"), true));
  }});
  EXPECT_THAT(Result(Call("x")), StatusIs(absl::StatusCode::kResourceExhausted, "metadata is larger"));
  EXPECT_EQ(moved(), 0u);
}

TEST_F(MovedCallsTest, ACallThatMayHaveBeenStartedIsNotSentAgain) {
  Begin({[](Transport& transport, const std::vector<uint32_t>& calls) {
    transport.Write(FrameBytes().Reset(calls[0], absl::UnavailableError("half done")));
  }});
  EXPECT_THAT(Result(Call("x")), StatusIs(absl::StatusCode::kUnavailable, "half done"));
  EXPECT_EQ(calls_seen_, 1u);
  EXPECT_EQ(moved(), 0u);
}

// A peer that says first something and then that it had not started.
TEST_F(MovedCallsTest, ACallThatWasAnsweredIsNotSentAgainWhateverThePeerSays) {
  Begin({[](Transport& transport, const std::vector<uint32_t>& calls) {
    transport.Write(FrameBytes().InitialMetadata(calls[0], {{"a", "b"}}));
    transport.Write(FrameBytes().Reset(calls[0], absl::UnavailableError("lies"), true));
  }});
  EXPECT_THAT(Result(Call("x")), StatusIs(absl::StatusCode::kUnavailable, "lies"));
  EXPECT_EQ(moved(), 0u);
}

// A hundred calls may go before the peer has said how many it takes; it takes none of those and goes.
TEST_F(MovedCallsTest, CallsThatWereNeverSentMoveHoweverOften) {
  features_ = {{native::FeatureId::kCallsMax, 100}};
  const Says leave = [](Transport& transport, const std::vector<uint32_t>&) { transport.Abort(); };
  Begin({leave, leave});
  std::vector<Reply<EchoResponse>> replies;
  for (int i = 0; i < 250; ++i) replies.push_back(Call(absl::StrCat(i)));
  echo::v1::CollectRequest part;
  auto collect = EchoStub(*channel_).Collect();
  part.set_message("parts");
  loop_.CreateTask([](auto& stream, auto& message) -> Task<void> { co_await stream.Write(message); }(collect, part),
                   "writes");
  auto finish = [](auto& stream) -> Task<absl::StatusOr<echo::v1::CollectResponse>> {
    absl::StatusOr<echo::v1::CollectResponse> got = co_await stream.Finish();
    co_return got;
  };
  auto nothing = EchoStub(*channel_).Collect();
  auto finished = loop_.CreateTask(finish(nothing), "finishes");
  for (int i = 0; i < 250; ++i) {
    const absl::StatusOr<EchoResponse> got = Result(std::move(replies[i]));
    if (i < 200) {
      EXPECT_THAT(got, StatusIs(absl::StatusCode::kUnavailable)) << i << ": it may have been started";
    } else {
      ASSERT_OK(got.status());
      EXPECT_EQ(got->message(), absl::StrCat(i));
    }
  }
  ASSERT_TRUE(finished.done());
  EXPECT_OK(finished.result().status()) << "what was said to its end while it waited has its end";
  const absl::StatusOr<echo::v1::CollectResponse> collected = loop_.RunUntilComplete(finish(collect));
  ASSERT_OK(collected.status());
  EXPECT_THAT(collected->messages(), ElementsAre("parts")) << "what was written while it waited goes with it";
  EXPECT_EQ(connections_, 3u);
  EXPECT_EQ(moved(), 152u + 52u);
}

TEST_F(MovedCallsTest, CallsBeyondWhatAServerTakesAreServedOnceThereIsRoom) {
  Begin({});
  ServerOptions options;
  options.listen = {"127.0.0.1:7401"};
  options.limits.calls_max = 3;
  Server small(loop_, options);
  small.Add<Echoes>();
  ASSERT_OK(loop_.RunUntilComplete(small.Start()));
  channel_ = std::make_unique<Channel>(loop_, "troupe+dns:///127.0.0.1:7401");
  std::vector<Reply<EchoResponse>> replies;
  for (int i = 0; i < 10; ++i) replies.push_back(Call("slow"));  // before the server has said what it takes
  for (Reply<EchoResponse>& reply : replies) EXPECT_OK(Result(std::move(reply)).status());
  EXPECT_EQ(small.counters().wire.calls_refused.value(), 7u);
  EXPECT_EQ(moved(), 7u);
  small.Close();
  loop_.RunUntilComplete(small.WaitClosed());
}

TEST_F(MovedCallsTest, TheDeadlineRunsOn) {
  Begin({[this](Transport& transport, const std::vector<uint32_t>&) {
    loop_.CallLater(absl::Seconds(1), [&transport] { transport.Write(FrameBytes().GoAway(0)); });
  }});
  EXPECT_THAT(Result(Call("slow", {.timeout = absl::Seconds(2)})), StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_EQ(moved(), 1u);
  EXPECT_EQ(loop_.Time().nanos(), absl::ToInt64Nanoseconds(absl::Seconds(2)));
}

TEST_F(MovedCallsTest, AOneWayCallIsSentAgainToo) {
  Begin({&GoAway});
  desk::BellStub bell(*channel_);
  bell.Ring(desk::Note());
  loop_.RunUntilComplete(Sleep(absl::Seconds(1)));
  EXPECT_EQ(rung_, 1);
  EXPECT_EQ(moved(), 1u);
}

TEST_F(MovedCallsTest, ALargeRequestIsNotKept) {
  Begin({&GoAway});
  EXPECT_THAT(Result(Call(std::string(300 << 10, 'x'))), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(moved(), 0u);
}

TEST_F(MovedCallsTest, WhatIsKeptIsCharged) {
  Begin({[](Transport&, const std::vector<uint32_t>&) {}});
  Reply<EchoResponse> reply = Call(std::string(100 << 10, 'x'));
  loop_.RunUntilComplete(Sleep(absl::Seconds(1)));
  EXPECT_GE(os_.held_memory().load(), 100 << 10);
  reply.Cancel();
  loop_.RunUntilComplete(Sleep(absl::Seconds(1)));
  EXPECT_LT(os_.held_memory().load(), 100 << 10);
}

TEST_F(MovedCallsTest, TheCallsOfASessionStayWithIt) {
  Begin({&GoAway});
  auto open = [](Channel& channel) -> Task<absl::Status> {
    absl::StatusOr<OpenedSession<EchoStub>> session = co_await channel.OpenSession<EchoStub>();
    if (!session.ok()) co_return session.status();
    EchoRequest request;
    absl::StatusOr<EchoResponse> got = co_await (*session)->Echo(request);
    co_return got.status();
  };
  EXPECT_THAT(loop_.RunUntilComplete(open(*channel_)), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(moved(), 0u);
  EXPECT_EQ(connections_, 1u);
}

TEST_F(MovedCallsTest, AClosedChannelMovesNothing) {
  Begin({&GoAway});
  std::vector<Reply<EchoResponse>> waiting;
  for (int i = 0; i < 100; ++i) waiting.push_back(Call("sent"));
  Reply<EchoResponse> reply = Call("x");
  channel_->Close();
  EXPECT_THAT(Result(std::move(reply)), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("closed")));
  EXPECT_EQ(moved(), 0u);
}

}  // namespace
}  // namespace troupe
