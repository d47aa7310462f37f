// The codec: two ends of ours, and one of ours with a peer that is spelled byte by byte.
#include "troupe/wire/grpc/codec.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/rpc/metadata.h"
#include "troupe/wire/codec.h"
#include "troupe/wire/grpc/internal/gzip.h"
#include "troupe/wire/grpc/limits.h"
#include "troupe/wire/grpc/testing_peer.h"
#include "troupe/wire/testing_end.h"

namespace troupe::grpc_wire {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::Pair;
using ::testing::SizeIs;
using ::testing::StartsWith;
using wire_testing::Encoded;
using wire_testing::Exchange;
using wire_testing::Lines;
using wire_testing::Value;

CodecOptions Server() { return {}; }
CodecOptions Client() {
  CodecOptions options;
  options.client = true;
  return options;
}

// A BytesValue of this value, as the log shows it.
std::string Shown(absl::string_view value) { return wire_testing::Shown(absl::string_view(Encoded(value))); }

bool IsFrame(const SentFrame& frame, uint8_t type, uint32_t id) { return frame.type == type && frame.id == id; }
std::vector<SentFrame> FramesOfType(const std::vector<SentFrame>& frames, uint8_t type) {
  std::vector<SentFrame> found;
  for (const SentFrame& frame : frames) {
    if (frame.type == type) found.push_back(frame);
  }
  return found;
}
uint32_t Number(absl::string_view bytes) {
  uint32_t number = 0;
  for (const char c : bytes.substr(0, 4)) number = number << 8 | static_cast<uint8_t>(c);
  return number;
}

// Client and server of ours, whole and byte by byte.
class TwoEnds : public ::testing::TestWithParam<size_t> {
 protected:
  TwoEnds() { EXPECT_TRUE(Carry().ok()); }
  absl::Status Carry() { return Exchange(client_, server_, GetParam()); }

  CodecEnd client_{Client()};
  CodecEnd server_{Server()};
};

INSTANTIATE_TEST_SUITE_P(Pieces, TwoEnds, ::testing::Values(SIZE_MAX, 1, 7));

TEST_P(TwoEnds, AUnaryCall) {
  const auto request = Value("hello"), reply = Value("world");
  const CallId id = client_.Start("/kv.v1.KeyValue/Get", &request);
  ASSERT_TRUE(Carry().ok());
  const Lines heard = server_.TakeLog();
  if (GetParam() == SIZE_MAX) {
    EXPECT_THAT(heard, ElementsAre("method /kv.v1.KeyValue/Get",
                                   HasSubstr("call 1 /kv.v1.KeyValue/Get user-agent=grpc-c++-troupe/0.1 complete: ")));
  } else {
    EXPECT_THAT(heard, ElementsAre("method /kv.v1.KeyValue/Get", HasSubstr("call 1 /kv.v1.KeyValue/Get"),
                                   StartsWith("message 1 "), "half-close 1"));
  }
  server_.codec().SendReply(id, &reply, absl::OkStatus(), nullptr);
  ASSERT_TRUE(Carry().ok());
  EXPECT_THAT(client_.TakeLog(),
              ElementsAre("metadata 1", AllOf(StartsWith("message 1 "), HasSubstr(Shown("world"))), "end 1 OK"));
  EXPECT_EQ(client_.codec().open_calls(), 0u);
  EXPECT_EQ(server_.codec().open_calls(), 0u);
}

TEST_P(TwoEnds, AFailureIsTrailersAlone) {
  const auto request = Value("hello");
  const CallId id = client_.Start("/kv.v1.KeyValue/Get", &request);
  ASSERT_TRUE(Carry().ok());
  absl::Status failure = absl::NotFoundError("no key \"\xE2\x98\xBA\" 100%\n");
  failure.SetPayload("type.googleapis.com/kv.Detail", absl::Cord("detail"));
  Metadata trailers = {{"x-a", "1"}, {"x-b-bin", std::string("\0\xff", 2)}, {"x-a", "2"}};
  server_.codec().SendReply(id, nullptr, failure, &trailers);
  client_.TakeLog();
  ASSERT_TRUE(Carry().ok());
  EXPECT_THAT(client_.TakeLog(), ElementsAre(absl::StrCat("end 1 NOT_FOUND: ", failure.message(),
                                                          " x-a=1 x-b-bin=", std::string("\0\xff", 2), " x-a=2")));
}

TEST_P(TwoEnds, StreamsBothWays) {
  const CallId id = client_.Start("/kv.v1.KeyValue/Mirror");
  ASSERT_TRUE(client_.codec().SendMessage(id, Value("one")).ok());
  ASSERT_TRUE(Carry().ok());
  EXPECT_THAT(server_.TakeLog(), Contains(HasSubstr(Shown("one"))));
  Metadata initial = {{"x-initial", "yes"}};
  server_.codec().SendInitialMetadata(id, initial);
  ASSERT_TRUE(server_.codec().SendMessage(id, Value("two")).ok());
  ASSERT_TRUE(Carry().ok());
  EXPECT_THAT(client_.TakeLog(), ElementsAre("metadata 1 x-initial=yes", HasSubstr(Shown("two"))));
  ASSERT_TRUE(client_.codec().SendMessage(id, Value("three")).ok());
  client_.codec().SendHalfClose(id);
  ASSERT_TRUE(Carry().ok());
  EXPECT_THAT(server_.TakeLog(), ElementsAre(HasSubstr(Shown("three")), "half-close 1"));
  server_.codec().SendReply(id, nullptr, absl::OkStatus(), nullptr);
  ASSERT_TRUE(Carry().ok());
  EXPECT_THAT(client_.TakeLog(), ElementsAre("end 1 OK"));
}

TEST_P(TwoEnds, TimeoutAndMetadataArrive) {
  Metadata metadata = {{"x-user", "ann"}, {"x-bytes-bin", std::string("\0\1\2", 3)}};
  const auto request = Value("r");
  client_.Start("/a.B/C", &request, &metadata, absl::Milliseconds(1500));
  ASSERT_TRUE(Carry().ok());
  const Lines lines = server_.TakeLog();
  ASSERT_GE(lines.size(), 2u);
  EXPECT_THAT(lines[1], HasSubstr(absl::StrCat("timeout=1.5s user-agent=grpc-c++-troupe/0.1 x-user=ann x-bytes-bin=",
                                               std::string("\0\1\2", 3))));
}

TEST_P(TwoEnds, CancelReachesTheServer) {
  const CallId id = client_.Start("/a.B/C");
  ASSERT_TRUE(Carry().ok());
  server_.TakeLog();
  client_.codec().Reset(id, absl::CancelledError("enough"));
  ASSERT_TRUE(Carry().ok());
  EXPECT_THAT(server_.TakeLog(), ElementsAre(StartsWith("reset 1 CANCELLED")));
  EXPECT_EQ(client_.codec().open_calls() + server_.codec().open_calls(), 0u);
}

TEST_P(TwoEnds, ARefusalSaysThatTheCallWasNotStarted) {
  const auto request = Value("r");
  server_.on_call = [&](IncomingCall& call) {
    absl::Status refused = absl::UnavailableError("full");
    refused.SetPayload(kNotStartedPayload, absl::Cord());
    server_.codec().Reset(call.id, refused);
  };
  server_.listen = false;
  client_.Start("/a.B/C", &request);
  client_.TakeLog();
  ASSERT_TRUE(Carry().ok());
  EXPECT_THAT(client_.TakeLog(), ElementsAre(AllOf(StartsWith("reset 1 UNAVAILABLE"), HasSubstr("(not started)"))));
}

TEST_P(TwoEnds, WhoHasTooLittleSaysSo) {
  const auto request = Value("r");
  server_.on_call = [&](IncomingCall& call) {
    absl::Status refused = absl::ResourceExhaustedError("short of memory");
    refused.SetPayload(kNotStartedPayload, absl::Cord());
    server_.codec().Reset(call.id, refused);
  };
  server_.listen = false;
  client_.Start("/a.B/C", &request);
  client_.TakeLog();
  ASSERT_TRUE(Carry().ok());
  EXPECT_THAT(client_.TakeLog(), ElementsAre("end 1 RESOURCE_EXHAUSTED: short of memory"));
}

TEST_P(TwoEnds, AnErrorOfTheServerTravelsAsStatusWhileItCan) {
  const CallId id = client_.Start("/a.B/C");
  ASSERT_TRUE(Carry().ok());
  server_.codec().Reset(id, absl::DataLossError("the disk is gone"));
  client_.TakeLog();
  ASSERT_TRUE(Carry().ok());
  EXPECT_THAT(client_.TakeLog(), ElementsAre("end 1 DATA_LOSS: the disk is gone"));
  EXPECT_EQ(client_.codec().open_calls() + server_.codec().open_calls(), 0u);
}

TEST_P(TwoEnds, AnAnswerBeforeTheRequestHasEndedStopsTheRequest) {
  const CallId id = client_.Start("/a.B/C");
  ASSERT_TRUE(client_.codec().SendMessage(id, Value("one")).ok());
  ASSERT_TRUE(Carry().ok());
  server_.codec().SendReply(id, nullptr, absl::FailedPreconditionError("no more"), nullptr);
  client_.TakeLog();
  ASSERT_TRUE(Carry().ok());
  EXPECT_THAT(client_.TakeLog(), ElementsAre("end 1 FAILED_PRECONDITION: no more"));
  EXPECT_EQ(client_.codec().open_calls() + server_.codec().open_calls(), 0u);
}

// More than a stream's window and the connection's: it goes as the receiver takes it.
TEST_P(TwoEnds, LargeMessagesTravelWholeBothWays) {
  const std::string large(3 << 20, 'x');
  const auto request = Value(large);
  client_.log_messages = server_.log_messages = false;
  size_t received = 0, answered = 0;
  server_.on_message = [&](CallId, absl::Span<const char> message, size_t) { received = message.size(); };
  client_.on_message = [&](CallId, absl::Span<const char> message, size_t) { answered = message.size(); };
  const size_t piece = GetParam() == SIZE_MAX ? SIZE_MAX : 4099;
  const CallId id = client_.Start("/a.B/C", &request);
  EXPECT_GT(client_.codec().WaitingBytes(id), 0u);
  ASSERT_TRUE(Exchange(client_, server_, piece).ok());
  EXPECT_EQ(received, Encoded(large).size());
  EXPECT_EQ(client_.codec().WaitingBytes(id), 0u);
  server_.codec().SendReply(id, &request, absl::OkStatus(), nullptr);
  ASSERT_TRUE(Exchange(client_, server_, piece).ok());
  EXPECT_EQ(answered, Encoded(large).size());
  EXPECT_EQ(client_.last_line(), "end 1 OK");
  EXPECT_EQ(client_.codec().held_bytes() + server_.codec().held_bytes(), 0u);
}

TEST_P(TwoEnds, WhatTheApplicationDoesNotTakeStopsItsCallAndNoOther) {
  server_.consume = false;
  const CallId slow = client_.Start("/a.B/Slow");
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(client_.codec().SendMessage(slow, Value(std::string(30000, 'x'))).ok());
  ASSERT_TRUE(Carry().ok());
  EXPECT_GT(client_.codec().WaitingBytes(slow), 200'000u);
  EXPECT_LE(server_.unconsumed[slow], 64u << 10);
  const auto request = Value("quick");
  client_.Start("/a.B/Quick", &request);
  ASSERT_TRUE(Carry().ok());
  EXPECT_THAT(server_.TakeLog(), Contains(HasSubstr("/a.B/Quick")));
  // It goes on when the application does.
  client_.TakeLog();
  server_.consume = true;
  server_.codec().Consumed(slow, server_.unconsumed[slow]);
  ASSERT_TRUE(Carry().ok());
  EXPECT_EQ(client_.codec().WaitingBytes(slow), 0u);
  EXPECT_THAT(client_.TakeLog(), ElementsAre(absl::StrCat("room ", slow)));
}

TEST_P(TwoEnds, PausedCreditHoldsAndResumedCreditLetsGo) {
  server_.codec().PauseCredit();
  const CallId id = client_.Start("/a.B/C");
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(client_.codec().SendMessage(id, Value(std::string(30000, 'x'))).ok());
  ASSERT_TRUE(Carry().ok());
  EXPECT_GT(client_.codec().WaitingBytes(id), 0u);
  server_.codec().ResumeCredit();
  ASSERT_TRUE(Carry().ok());
  EXPECT_EQ(client_.codec().WaitingBytes(id), 0u);
}

TEST_P(TwoEnds, OneCallMoreThanThePeerTakesWaits) {
  CodecOptions two = Server();
  two.calls_max = 2;
  CodecEnd server(two), client(Client());
  ASSERT_TRUE(Exchange(client, server, GetParam()).ok());
  const CallId first = client.Start("/a.B/C");
  client.Start("/a.B/C");
  EXPECT_EQ(client.TryStart("/a.B/C").status().code(), absl::StatusCode::kResourceExhausted);
  ASSERT_TRUE(Exchange(client, server, GetParam()).ok());
  server.codec().SendReply(first, nullptr, absl::OkStatus(), nullptr);
  client.TakeLog();
  ASSERT_TRUE(Exchange(client, server, GetParam()).ok());
  EXPECT_THAT(client.TakeLog(), ElementsAre("end 1 OK", "call room"));
  EXPECT_TRUE(client.TryStart("/a.B/C").ok());
}

TEST_P(TwoEnds, GoAwayTakesTwoStepsAndLosesNoCall) {
  const CallId before = client_.Start("/a.B/Before");
  ASSERT_TRUE(Carry().ok());
  server_.codec().SendGoAway(absl::OkStatus());
  // This one crosses the announcement.
  const auto request = Value("r");
  client_.Start("/a.B/Crossing", &request);
  client_.TakeLog();
  server_.TakeLog();
  ASSERT_TRUE(Carry().ok());
  EXPECT_THAT(server_.TakeLog(), Contains(HasSubstr("/a.B/Crossing")));
  const Lines heard = client_.TakeLog();
  EXPECT_THAT(heard, ElementsAre("goaway 2147483647 OK", "goaway 3 OK"));
  EXPECT_EQ(client_.TryStart("/a.B/C").status().code(), absl::StatusCode::kUnavailable);
  server_.codec().SendReply(before, nullptr, absl::OkStatus(), nullptr);
  server_.codec().SendReply(3, nullptr, absl::OkStatus(), nullptr);
  ASSERT_TRUE(Carry().ok());
  EXPECT_THAT(client_.TakeLog(), ElementsAre("end 1 OK", "end 3 OK"));
}

TEST_P(TwoEnds, PingsAreAnswered) {
  client_.codec().SendPing(42);
  client_.TakeLog();
  ASSERT_TRUE(Carry().ok());
  EXPECT_THAT(client_.TakeLog(), ElementsAre("pong 42"));
}

TEST_P(TwoEnds, AbandonEndsEveryCallInTheirOrder) {
  client_.Start("/a.B/C");
  client_.Start("/a.B/D");
  ASSERT_TRUE(Carry().ok());
  client_.TakeLog();
  client_.codec().Abandon(absl::UnavailableError("gone"));
  EXPECT_THAT(client_.TakeLog(), ElementsAre("reset 1 UNAVAILABLE: gone", "reset 3 UNAVAILABLE: gone"));
}

// ---------------------------------------------------------------- a server of ours, and a peer made of bytes

class ServerAndBytes : public ::testing::Test {
 protected:
  ServerAndBytes() { Restart(Server()); }
  void Restart(const CodecOptions& options) {
    server_ = std::make_unique<CodecEnd>(options);
    EXPECT_TRUE(server_->Receive(H2Bytes().Preface().Settings().SettingsAck()).ok());
    server_->TakeOutput();
  }
  GrpcCodec& codec() { return server_->codec(); }

  std::unique_ptr<CodecEnd> server_;
};

TEST_F(ServerAndBytes, AMethodThatNobodyKnowsIsTheSessionsAffair) {
  ASSERT_TRUE(server_->Receive(H2Bytes().Call(1, "/unknown/X", "m")).ok());
  EXPECT_THAT(server_->TakeLog(), Contains(HasSubstr("unknown '/unknown/X'")));
}

TEST_F(ServerAndBytes, AWebBrowserGetsAnAnswer) {
  const HeaderFields get = {{":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {":authority", "kv.test"}};
  ASSERT_TRUE(server_->Receive(H2Bytes().Headers(1, get, kEndStream)).ok());
  const std::vector<SentFrame> frames = server_->TakeFrames();
  ASSERT_THAT(frames, SizeIs(2));
  EXPECT_TRUE(IsFrame(frames[0], kHeadersFrame, 1));
  EXPECT_THAT(frames[1].payload, HasSubstr("gRPC"));
  EXPECT_EQ(frames[1].flags & kEndStream, kEndStream);
  EXPECT_THAT(server_->TakeLog(), IsEmpty());
  EXPECT_EQ(codec().open_calls(), 0u);
}

// RFC 9110, section 9.3.2.
TEST_F(ServerAndBytes, HeadHasTheHeadersOfGetAndNoBody) {
  for (const absl::string_view path : {"/", "/x"}) {
    std::vector<SentFrame> frames[2];
    for (const int i : {0, 1}) {
      Restart(Server());
      const HeaderFields fields = {{":method", i == 0 ? "GET" : "HEAD"},
                                   {":scheme", "http"},
                                   {":path", std::string(path)},
                                   {":authority", "kv.test"}};
      ASSERT_TRUE(server_->Receive(H2Bytes().Headers(1, fields, kEndStream)).ok());
      frames[i] = server_->TakeFrames();
      EXPECT_EQ(codec().open_calls(), 0u);
    }
    ASSERT_THAT(frames[0], SizeIs(2));
    ASSERT_THAT(frames[1], SizeIs(1));
    EXPECT_EQ(frames[0][0].payload, frames[1][0].payload);
    EXPECT_EQ(frames[1][0].flags & kEndStream, kEndStream);
  }
}

TEST_F(ServerAndBytes, AnotherContentTypeIsRefusedAsHttpDoes) {
  HeaderFields fields = RequestFields("/a.B/C");
  fields.back() = {"content-type", "application/json"};
  ASSERT_TRUE(server_->Receive(H2Bytes().Headers(1, fields).Data(1, "{}", kEndStream)).ok());
  const std::vector<SentFrame> frames = server_->TakeFrames();
  ASSERT_FALSE(frames.empty());
  // ":status 415" as HPACK has it: name by index 8, value as text.
  EXPECT_THAT(frames[0].payload, StartsWith("\x48"));
  EXPECT_THAT(server_->TakeLog(), IsEmpty());
  EXPECT_EQ(codec().open_calls(), 0u);
}

TEST_F(ServerAndBytes, MessagesMayBeCutAnywhereAndShareFrames) {
  const std::string stream = Framed("one") + Framed("") + Framed("three");
  for (size_t cut = 0; cut <= stream.size(); ++cut) {
    Restart(Server());
    ASSERT_TRUE(
        server_
            ->Receive(
                H2Bytes().Request(1, "/a.B/C").Data(1, stream.substr(0, cut)).Data(1, stream.substr(cut), kEndStream))
            .ok());
    const Lines lines = server_->TakeLog();
    EXPECT_THAT(Lines(lines.begin() + 2, lines.end()),
                ElementsAre("message 1 'one'", "message 1 ''", "message 1 'three'", "half-close 1"))
        << cut;
  }
}

TEST_F(ServerAndBytes, PackedMessagesAreUnpacked) {
  const std::string text(5000, 'z');
  const std::string packed = Gzip(absl::MakeConstSpan(text));
  EXPECT_LT(packed.size(), 200u);
  server_->log_messages = false;
  std::string got;
  server_->on_message = [&](CallId, absl::Span<const char> message, size_t) {
    got.assign(message.begin(), message.end());
  };
  ASSERT_TRUE(server_
                  ->Receive(H2Bytes()
                                .Request(1, "/a.B/C", {{"grpc-encoding", "gzip"}})
                                .Data(1, Framed(packed, true) + Framed("plain"), kEndStream))
                  .ok());
  EXPECT_EQ(got, "plain");
  got.clear();
  ASSERT_TRUE(
      server_
          ->Receive(
              H2Bytes().Request(3, "/a.B/C", {{"grpc-encoding", "gzip"}}).Data(3, Framed(packed, true), kEndStream))
          .ok());
  EXPECT_EQ(got, text);
}

TEST_F(ServerAndBytes, RepliesArePackedOnlyForWhoUnpacksThem) {
  const auto reply = Value(std::string(5000, 'z'));
  uint32_t id = 1;
  for (const auto& [accepts, packed] :
       std::vector<std::pair<HeaderFields, bool>>{{{}, false},
                                                  {{{"grpc-accept-encoding", "identity"}}, false},
                                                  {{{"grpc-accept-encoding", "identity,deflate, gzip"}}, true},
                                                  {{{"grpc-accept-encoding", "gzipped"}}, false}}) {
    ASSERT_TRUE(server_->Receive(H2Bytes().Request(id, "/a.B/C", accepts).Data(id, Framed("m"), kEndStream)).ok());
    codec().PackReplies(id);
    codec().SendReply(id, &reply, absl::OkStatus(), nullptr);
    const std::vector<SentFrame> data = FramesOfType(server_->TakeFrames(), kDataFrame);
    ASSERT_THAT(data, SizeIs(1));
    EXPECT_EQ(data[0].payload[0], packed ? 1 : 0);
    EXPECT_EQ(data[0].payload.size() < 200, packed);
    id += 2;
  }
  // Too late: the head has gone.
  ASSERT_TRUE(server_->Receive(H2Bytes().Request(id, "/a.B/C", {{"grpc-accept-encoding", "gzip"}})).ok());
  codec().SendInitialMetadata(id, {{"x-a", "1"}});
  codec().PackReplies(id);
  ASSERT_TRUE(codec().SendMessage(id, reply).ok());
  EXPECT_EQ(FramesOfType(server_->TakeFrames(), kDataFrame).front().payload[0], 0);
  codec().PackReplies(999);
}

// How much a peer that sends whatever it may has open for call `id`, when `rounds` windows have been sent and read.
class GrowingWindows : public ServerAndBytes {
 protected:
  // As a peer of HTTP/2 counts.
  struct Windows {
    int64_t connection = 256 << 10;
    std::map<uint32_t, int64_t> streams;
  };
  void Open(uint32_t id) {
    server_->log_messages = false;
    ASSERT_TRUE(server_->Receive(H2Bytes().Request(id, "/a.B/C")).ok());
    windows_.streams[id] = 64 << 10;
    Hear();
  }
  void Hear() {
    const std::vector<SentFrame> frames = server_->TakeFrames();
    for (const SentFrame& frame : FramesOfType(frames, kWindowUpdateFrame)) {
      (frame.id == 0 ? windows_.connection : windows_.streams[frame.id]) += Number(frame.payload);
    }
    heard_settings_ = heard_settings_ || !FramesOfType(frames, kSettingsFrame).empty();
  }
  // Sends messages of 1 KiB as long as there is room.
  void Fill(uint32_t id) {
    const std::string message = Framed(std::string(1019, 'x'));
    std::string bytes;
    while (std::min(windows_.connection, windows_.streams[id]) >= 1024) {
      bytes += H2Bytes().Data(id, message).str();
      windows_.connection -= 1024;
      windows_.streams[id] -= 1024;
    }
    ASSERT_TRUE(server_->Receive(absl::MakeConstSpan(bytes)).ok());
    Hear();
  }
  Windows windows_;
  bool heard_settings_ = false;
};

TEST_F(GrowingWindows, AReaderThatKeepsUpIsGrantedMoreUpToABound) {
  Open(1);
  for (int i = 0; i < 40; ++i) Fill(1);
  EXPECT_GE(windows_.streams[1], 3 << 20);
  EXPECT_LE(windows_.streams[1], 4 << 20);
  EXPECT_GE(windows_.connection, 2 << 20);
  Open(3);
  Open(5);
  for (int i = 0; i < 40; ++i) {
    Fill(3);
    Fill(5);
  }
  EXPECT_LE(windows_.streams[1] + windows_.streams[3] + windows_.streams[5], (4 << 20) + 3 * (64 << 10));
  EXPECT_LE(windows_.connection, (4 << 20) + (256 << 10));
  // What a call that ends had is there for others.
  ASSERT_TRUE(server_->Receive(H2Bytes().Reset(1, 8)).ok());
  for (int i = 0; i < 40; ++i) Fill(5);
  EXPECT_GE(windows_.streams[5], 3 << 20);
}

TEST_F(GrowingWindows, AReaderThatLagsIsGrantedNoMoreThanAtFirst) {
  Open(1);
  server_->consume = false;
  for (int i = 0; i < 40; ++i) {
    Fill(1);
    // Half of what lies there.
    const size_t half = server_->unconsumed[1] / 2;
    server_->unconsumed[1] -= half;
    codec().Consumed(1, half);
    Hear();
  }
  EXPECT_LE(windows_.streams[1] + static_cast<int64_t>(server_->unconsumed[1]), 64 << 10);
}

// What has begun and is not whole comes to half of what there is room for: no call may send more unasked then, and what
// some had grown to is taken back.
TEST_F(GrowingWindows, NothingGrowsAndNothingStaysGrownWhileWindowsAreNarrow) {
  CodecOptions options = Server();
  options.message_bytes_max = 1 << 20;
  Restart(options);
  Open(1);
  for (int i = 0; i < 40; ++i) Fill(1);
  ASSERT_GE(windows_.streams[1], 1 << 20);
  const std::string half = Framed(std::string(100'000, 'x')).substr(0, 60'000);
  for (uint32_t id = 3; id < 200 && !heard_settings_; id += 2) {
    Open(id);
    for (size_t at = 0; at < half.size(); at += 16'000) {
      ASSERT_TRUE(server_->Receive(H2Bytes().Data(id, half.substr(at, 16'000))).ok());
    }
    windows_.connection -= static_cast<int64_t>(half.size());
    Hear();
  }
  ASSERT_TRUE(heard_settings_);
  ASSERT_TRUE(server_->Receive(H2Bytes().SettingsAck()).ok());
  Hear();
  windows_.streams[1] -= (64 << 10) - kNarrowWindow;
  for (int i = 0; i < 40; ++i) Fill(1);
  EXPECT_LE(windows_.streams[1], int64_t{kNarrowWindow});
}

TEST_F(GrowingWindows, NothingGrowsWhileCreditIsShort) {
  Open(1);
  Fill(1);
  codec().PauseCredit();
  for (int i = 0; i < 10; ++i) Fill(1);
  codec().ResumeCredit();
  Hear();
  EXPECT_LE(windows_.streams[1], 128 << 10);
}

// A peer that pads, and counts its windows as the RFC says.
class PaddedWindows : public ServerAndBytes {
 protected:
  void Open(uint32_t id) {
    server_->log_messages = false;
    ASSERT_TRUE(server_->Receive(H2Bytes().Request(id, "/a.B/C")).ok());
    stream_ = 64 << 10;
    Hear();
  }
  void Hear() {
    for (const SentFrame& frame : FramesOfType(server_->TakeFrames(), kWindowUpdateFrame)) {
      (frame.id == 0 ? connection_ : stream_) += Number(frame.payload);
    }
  }
  // False: there is no window for it.
  bool Send(uint32_t id, absl::string_view data, size_t padding) {
    const auto size = static_cast<int64_t>(data.size() + 1 + padding);
    if (std::min(stream_, connection_) < size) return false;
    EXPECT_TRUE(server_->Receive(H2Bytes().PaddedData(id, data, padding)).ok());
    stream_ -= size;
    connection_ -= size;
    Hear();
    return true;
  }
  int64_t connection_ = 256 << 10;
  int64_t stream_ = 0;
};

// gRPC's interop case data_frame_padding, and for messages that are larger than their call's window.
TEST_F(PaddedWindows, PaddingNeverStopsACallWhoseMessageIsAwaited) {
  uint32_t id = 1;
  for (const size_t size : {1000, 65'000, 300'000, 4 << 20}) {
    for (const size_t padding : {0, 1, 100, 255}) {
      Open(id);
      const std::string message = Framed(std::string(size - 5, 'x'));
      const size_t piece = size > 65'000 ? 500 : 5;
      bool sent = true;
      for (size_t at = 0; at < size && sent; at += piece) {
        sent = Send(id, absl::string_view(message).substr(at, piece), padding);
        ASSERT_TRUE(sent) << at << " of " << size << ", padded by " << padding;
      }
      EXPECT_GT(stream_, 0) << "and a window is left for the end";
      ASSERT_TRUE(server_->Receive(H2Bytes().Data(id, "", kEndStream)).ok());
      Hear();
      id += 2;
    }
  }
  EXPECT_EQ(server_->counters().messages_received.value(), 16u);
}

// Whatever has been padded, the peer may send what its windows say and not a byte more.
TEST_F(PaddedWindows, PaddingLeavesWindowsAsTheyWere) {
  server_->consume = false;
  for (const bool beyond : {false, true}) {
    Restart(Server());
    server_->consume = false;
    connection_ = 256 << 10;
    Open(1);
    const int64_t before = stream_;
    const std::string message = Framed(std::string(11, 'm'));
    for (size_t padding = 0; padding <= 255; ++padding) ASSERT_TRUE(Send(1, message, padding));
    EXPECT_EQ(stream_, before - 256 * 16) << "messages are not read, and padding takes nothing";
    std::string rest;
    while (stream_ >= 16'005) ASSERT_TRUE(Send(1, Framed(std::string(15'990, 'm')), 4));
    rest = Framed(std::string(static_cast<size_t>(stream_) - 5 + (beyond ? 1 : 0), 'm'));
    ASSERT_TRUE(server_->Receive(H2Bytes().Data(1, rest)).ok());
    const std::vector<SentFrame> resets = FramesOfType(server_->TakeFrames(), kResetFrame);
    ASSERT_THAT(resets, SizeIs(beyond ? 1 : 0));
    if (beyond) {
      EXPECT_EQ(Number(resets[0].payload), 3u);  // FLOW_CONTROL_ERROR
    }
  }
}

TEST_F(PaddedWindows, PaddingOfAStreamThatIsOverGivesBackTheConnectionsWindow) {
  Open(1);
  ASSERT_TRUE(server_->Receive(H2Bytes().Reset(1, 8)).ok());
  Hear();
  const int64_t before = stream_;
  for (int i = 0; i < 10'000; ++i) {
    connection_ -= 256;
    ASSERT_TRUE(server_->Receive(H2Bytes().PaddedData(1, "", 255)).ok()) << i;
    Hear();
    server_->codec().TimePassed(absl::Milliseconds(100));
  }
  EXPECT_EQ(connection_, 256 << 10);
  EXPECT_EQ(stream_, before) << "of a stream that is over nothing is said";
}

TEST_F(ServerAndBytes, ABombIsRefusedAndNotUnpacked) {
  CodecOptions small = Server();
  small.message_bytes_max = 100'000;
  Restart(small);
  const std::string packed = Gzip(absl::MakeConstSpan(std::string(50 << 20, 0)));
  ASSERT_LT(packed.size(), 100'000u);
  ASSERT_TRUE(server_->Receive(H2Bytes().Request(1, "/a.B/C", {{"grpc-encoding", "gzip"}})).ok());
  for (size_t at = 0; at < Framed(packed, true).size(); at += 16000) {
    ASSERT_TRUE(server_->Receive(H2Bytes().Data(1, Framed(packed, true).substr(at, 16000))).ok());
  }
  EXPECT_THAT(std::string(server_->last_line()), AllOf(StartsWith("reset 1 RESOURCE_EXHAUSTED"), HasSubstr("100000")));
  EXPECT_EQ(server_->counters().messages_too_large.value(), 1u);
}

TEST_F(ServerAndBytes, WhatIsNotGzipIsTheCallersMistake) {
  const std::string packed = Gzip(absl::MakeConstSpan(std::string(1000, 'z')));
  for (const std::string& wrong :
       {std::string("rubbish"), std::string(), packed.substr(0, packed.size() - 1), packed + "x"}) {
    Restart(Server());
    ASSERT_TRUE(
        server_
            ->Receive(
                H2Bytes().Request(1, "/a.B/C", {{"grpc-encoding", "gzip"}}).Data(1, Framed(wrong, true), kEndStream))
            .ok());
    EXPECT_THAT(std::string(server_->last_line()), StartsWith("reset 1 INTERNAL"));
  }
}

TEST_F(ServerAndBytes, PackingThatWasNotAnnouncedOrIsUnknownIsRefused) {
  ASSERT_TRUE(server_->Receive(H2Bytes().Request(1, "/a.B/C").Data(1, Framed("m", true), kEndStream)).ok());
  EXPECT_THAT(server_->TakeLog(), Contains(StartsWith("reset 1 INTERNAL")));
  ASSERT_TRUE(
      server_
          ->Receive(
              H2Bytes().Request(3, "/a.B/C", {{"grpc-encoding", "snappy"}}).Data(3, Framed("m", true), kEndStream))
          .ok());
  EXPECT_THAT(server_->TakeLog(), IsEmpty());
  EXPECT_THAT(FramesOfType(server_->TakeFrames(), kHeadersFrame), SizeIs(2));
  // With what is understood.
  Restart(Server());
  ASSERT_TRUE(server_->Receive(H2Bytes().Request(1, "/a.B/C", {{"grpc-encoding", "snappy"}}, kEndStream)).ok());
  EXPECT_THAT(FieldsOf(server_->TakeFrames().at(0).payload),
              AllOf(Contains(Pair("grpc-status", "12")), Contains(Pair("grpc-accept-encoding", "identity,gzip"))));
}

TEST_F(ServerAndBytes, AnAnswerBeforeTheRequestHasEndedAsksForNoMore) {
  ASSERT_TRUE(server_->Receive(H2Bytes().Request(1, "/a.B/C")).ok());
  codec().SendReply(1, nullptr, absl::OkStatus(), nullptr);
  const std::vector<SentFrame> frames = server_->TakeFrames();
  ASSERT_THAT(frames, SizeIs(2));
  EXPECT_TRUE(IsFrame(frames[0], kHeadersFrame, 1));
  EXPECT_TRUE(IsFrame(frames[1], kResetFrame, 1));
  EXPECT_EQ(Number(frames[1].payload), 0u);  // NO_ERROR
}

TEST_F(ServerAndBytes, ALengthBeyondTheLimitIsRefusedBeforeAnythingIsHeld) {
  std::string head(1, 0);
  head += "\xff\xff\xff\xff";
  ASSERT_TRUE(server_->Receive(H2Bytes().Request(1, "/a.B/C").Data(1, head)).ok());
  EXPECT_THAT(std::string(server_->last_line()), StartsWith("reset 1 RESOURCE_EXHAUSTED"));
  EXPECT_EQ(codec().held_bytes(), 0u);
  EXPECT_EQ(server_->counters().messages_too_large.value(), 1u);
}

TEST_F(ServerAndBytes, AnAnnouncedLengthAllocatesNothing) {
  std::string head(1, 0);
  head += std::string("\0\x3f\xff\xff", 4);
  ASSERT_TRUE(server_->Receive(H2Bytes().Request(1, "/a.B/C").Data(1, head)).ok());
  EXPECT_EQ(codec().held_bytes(), 0u);
  ASSERT_TRUE(server_->Receive(H2Bytes().Data(1, "ten bytes.")).ok());
  EXPECT_LE(codec().held_bytes(), 100u);
}

TEST_F(ServerAndBytes, AnEndInsideAMessageEndsTheCall) {
  ASSERT_TRUE(server_->Receive(H2Bytes().Request(1, "/a.B/C").Data(1, Framed("abc").substr(0, 6), kEndStream)).ok());
  EXPECT_THAT(std::string(server_->last_line()), StartsWith("reset 1 INTERNAL: the call ended inside a message"));
  // The caller hears it too.
  EXPECT_THAT(FramesOfType(server_->TakeFrames(), kHeadersFrame), SizeIs(1));
}

TEST_F(ServerAndBytes, MetadataBeyondTheLimitsIsRefused) {
  HeaderFields many;
  for (int i = 0; i < 101; ++i) many.push_back({absl::StrCat("x-", i), "v"});
  ASSERT_TRUE(server_->Receive(H2Bytes().Request(1, "/a.B/C", many, kEndStream)).ok());
  HeaderFields large = {{"x", std::string(8100, 'v')}, {"y", std::string(7000, 'v')}};
  for (int i = 0; i < 50; ++i) large.push_back({absl::StrCat("x-", i), "v"});
  ASSERT_TRUE(server_->Receive(H2Bytes().Request(3, "/a.B/C", large, kEndStream)).ok());
  EXPECT_THAT(server_->TakeLog(), IsEmpty());
  EXPECT_EQ(server_->counters().metadata_refused.value(), 2u);
  EXPECT_THAT(FramesOfType(server_->TakeFrames(), kHeadersFrame), SizeIs(2));
}

TEST_F(ServerAndBytes, BinaryMetadataIsBase64OrTheCallIsRefused) {
  ASSERT_TRUE(server_->Receive(H2Bytes().Request(1, "/a.B/C", {{"x-bin", "YQ==,Yg"}}, kEndStream)).ok());
  EXPECT_THAT(server_->TakeLog(), Contains(HasSubstr("x-bin=a x-bin=b")));
  ASSERT_TRUE(server_->Receive(H2Bytes().Request(3, "/a.B/C", {{"x-bin", "!!"}}, kEndStream)).ok());
  EXPECT_THAT(server_->TakeLog(), IsEmpty());
  EXPECT_EQ(server_->counters().metadata_refused.value(), 1u);
}

TEST_F(ServerAndBytes, EachPieceOfAJoinedBinaryValueCounts) {
  ASSERT_TRUE(server_->Receive(H2Bytes().Request(1, "/a.B/C", {{"x-bin", std::string(200, ',')}}, kEndStream)).ok());
  EXPECT_THAT(server_->TakeLog(), IsEmpty());
  EXPECT_EQ(server_->counters().metadata_refused.value(), 1u);
}

TEST_F(ServerAndBytes, WhatStandsBeyondTheLimitIsNotDecoded) {
  HeaderFields many;
  for (int i = 0; i < 8; ++i) many.push_back({"grpc-message", std::string(1800, '%')});
  for (int i = 0; i < 50; ++i) many.push_back({"grpc-timeout", "x"});
  many.push_back({"x", std::string(300, 'v')});
  ASSERT_TRUE(server_->Receive(H2Bytes().Request(1, "/a.B/C", many, kEndStream)).ok());
  EXPECT_THAT(server_->TakeLog(), IsEmpty());
  EXPECT_EQ(server_->counters().metadata_refused.value(), 1u);
}

TEST_F(ServerAndBytes, PackedMessagesThatNobodyReadsAreBoundedByWhatTheyBecome) {
  CodecOptions options = Server();
  options.message_bytes_max = 100'000;
  Restart(options);
  server_->consume = false;
  server_->log_messages = false;
  const std::string packed = Framed(Gzip(absl::MakeConstSpan(std::string(90'000, 'z'))), true);
  ASSERT_TRUE(server_->Receive(H2Bytes().Request(1, "/a.B/C", {{"grpc-encoding", "gzip"}})).ok());
  int sent = 0;
  while (codec().open_calls() > 0 && sent < 100 && server_->last_line().substr(0, 5) != "reset") {
    ASSERT_TRUE(server_->Receive(H2Bytes().Data(1, packed)).ok());
    ++sent;
  }
  EXPECT_EQ(sent, 3);
  EXPECT_THAT(std::string(server_->last_line()), StartsWith("reset 1 RESOURCE_EXHAUSTED"));
}

TEST_F(ServerAndBytes, AMalformedTimeoutIsRefused) {
  ASSERT_TRUE(server_->Receive(H2Bytes().Request(1, "/a.B/C", {{"grpc-timeout", "soon"}}, kEndStream)).ok());
  EXPECT_THAT(server_->TakeLog(), IsEmpty());
  EXPECT_THAT(FramesOfType(server_->TakeFrames(), kHeadersFrame), SizeIs(1));
}

// ---- what a peer may not do for long

// Its caller could not know that it had been answered.
TEST_F(ServerAndBytes, AResetOfACallThatWasAnsweredIsNone) {
  CodecOptions options = Server();
  options.resets_max = 3;
  options.resets_per_second = 0;
  Restart(options);
  const auto reply = Value("x");
  for (uint32_t i = 0; i < 50; ++i) {
    const uint32_t id = 2 * i + 1;
    // Of a call that has sent all, and of one that has not.
    H2Bytes call = H2Bytes().Request(id, "/a.B/C");
    if (i % 2 == 0) call.Data(id, Framed("x"), grpc_wire::kEndStream);
    ASSERT_TRUE(server_->Receive(call).ok());
    server_->codec().SendReply(id, &reply, absl::OkStatus(), nullptr);
    server_->TakeOutput();
    ASSERT_TRUE(server_->Receive(H2Bytes().Reset(id, 8)).ok()) << i;
  }
  EXPECT_EQ(server_->counters().resets_received.value(), 0u);
  EXPECT_EQ(server_->counters().late_frames.value(), 50u);
  // But not for ever.
  absl::Status status;
  int resets = 0;
  for (; status.ok() && resets < 100'000; ++resets) status = server_->Receive(H2Bytes().Reset(1, 8));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(server_->counters().glitch_floods.value(), 1u);
}

// A byte says again what is four thousand to decode.
TEST_F(ServerAndBytes, HeadersThatBecomeFarMoreThanIsTakenAreNotReadToTheirEnd) {
  std::string block = HeaderBlock(RequestFields("/a.B/C"));
  block += "\x40\x01" "a" "\x7f\x81\x1e" + std::string(3968, 'v') + std::string(12'000, '\xbe');
  const absl::Status status = server_->Receive(H2Bytes().Frame(kHeadersFrame, kEndHeaders, 1, block));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(server_->counters().glitch_floods.value(), 1u);
  EXPECT_THAT(server_->TakeLog(), IsEmpty());
  const std::vector<SentFrame> frames = server_->TakeFrames();
  ASSERT_FALSE(frames.empty());
  EXPECT_TRUE(IsFrame(frames.back(), kGoAwayFrame, 0));
}

TEST_F(ServerAndBytes, MetadataThatIsRefusedCountsAsAReset) {
  CodecOptions options = Server();
  options.resets_max = 10;
  options.resets_per_second = 0;
  Restart(options);
  HeaderFields large = {{"x", std::string(8100, 'v')}, {"y", std::string(7000, 'v')}};
  for (int i = 0; i < 50; ++i) large.push_back({absl::StrCat("x-", i), "v"});
  absl::Status status;
  int calls = 0;
  while (status.ok() && calls < 100) {
    const auto id = static_cast<uint32_t>(2 * calls++ + 1);
    status = server_->Receive(H2Bytes().Request(id, "/a.B/C", large));
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(calls, 11);
  EXPECT_EQ(server_->counters().reset_floods.value(), 1u);
}

TEST_F(ServerAndBytes, RapidResetEndsTheConnection) {
  CodecOptions options = Server();
  options.resets_max = 10;
  options.resets_per_second = 0;
  Restart(options);
  absl::Status status;
  int calls = 0;
  while (status.ok() && calls < 100) {
    const auto id = static_cast<uint32_t>(2 * calls++ + 1);
    status = server_->Receive(H2Bytes().Request(id, "/a.B/C").Reset(id, 8));
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(calls, 11);
  EXPECT_EQ(server_->counters().reset_floods.value(), 1u);
  const std::vector<SentFrame> frames = server_->TakeFrames();
  ASSERT_FALSE(frames.empty());
  EXPECT_TRUE(IsFrame(frames.back(), kGoAwayFrame, 0));
  EXPECT_EQ(Number(absl::string_view(frames.back().payload).substr(4)), 11u);  // ENHANCE_YOUR_CALM
}

// RFC 9113 has many mistakes of a stream that the other end must answer with RST_STREAM. Whichever a peer makes, it may not
// make it for ever.
TEST_F(ServerAndBytes, ResetsThatItMakesUsSendEndTheConnection) {
  struct Mistake {
    const char* what;
    H2Bytes (*bytes)(uint32_t id);
  };
  static const HeaderFields twice = {{":path", "/a.B/D"}};
  const Mistake mistakes[] = {
      {"a window that overflows",
       [](uint32_t id) { return H2Bytes().Request(id, "/a.B/C").WindowUpdate(id, 0x7fffffff); }},
      {"a window that is raised by nothing",
       [](uint32_t id) { return H2Bytes().Request(id, "/a.B/C").WindowUpdate(id, 0); }},
      {"data behind the end", [](uint32_t id) { return H2Bytes().Call(id, "/a.B/C", "m").Data(id, Framed("m")); }},
      {"headers behind the end", [](uint32_t id) { return H2Bytes().Call(id, "/a.B/C", "m").Request(id, "/a.B/C"); }},
      {"trailers that do not end",
       [](uint32_t id) { return H2Bytes().Request(id, "/a.B/C").Headers(id, {{"x", "y"}}); }},
      {"a priority of the wrong size",
       [](uint32_t id) { return H2Bytes().Request(id, "/a.B/C").Frame(kPriorityFrame, 0, id, "four"); }},
      {"a priority that depends on itself",
       [](uint32_t id) {
         const std::string itself = {0, 0, static_cast<char>(id >> 8), static_cast<char>(id), 16};
         return H2Bytes().Request(id, "/a.B/C").Frame(kPriorityFrame, 0, id, itself);
       }},
      {"a reset of the wrong size",
       [](uint32_t id) { return H2Bytes().Request(id, "/a.B/C").Frame(kResetFrame, 0, id, "abc"); }},
      {"a field in capitals", [](uint32_t id) { return H2Bytes().Request(id, "/a.B/C", {{"Key", "v"}}); }},
      {"a pseudo-field twice", [](uint32_t id) { return H2Bytes().Request(id, "/a.B/C", twice); }},
      {"a connection-specific field",
       [](uint32_t id) { return H2Bytes().Request(id, "/a.B/C", {{"connection", "x"}}); }},
      {"more data than was announced",
       [](uint32_t id) {
         return H2Bytes().Request(id, "/a.B/C", {{"content-length", "1"}}).Data(id, Framed("more than that"));
       }},
      {"less data than was announced",
       [](uint32_t id) {
         return H2Bytes().Request(id, "/a.B/C", {{"content-length", "100"}}).Data(id, Framed("m"), kEndStream);
       }},
      {"no path",
       [](uint32_t id) { return H2Bytes().Headers(id, {{":method", "POST"}, {":scheme", "http"}}, kEndStream); }},
  };
  for (const Mistake& mistake : mistakes) {
    SCOPED_TRACE(mistake.what);
    CodecOptions options = Server();
    options.resets_max = 10;
    options.resets_per_second = 0;
    options.glitches_max = 20;
    options.glitches_per_second = 0;
    Restart(options);
    absl::Status status;
    int calls = 0;
    while (status.ok() && calls < 100) {
      status = server_->Receive(mistake.bytes(static_cast<uint32_t>(2 * calls++ + 1)));
      server_->TakeOutput();
    }
    EXPECT_FALSE(status.ok());
    EXPECT_LE(calls, 11);
    // At once for what is a mistake of the connection, or as a flood.
    EXPECT_EQ(calls, absl::IsResourceExhausted(status) ? 11 : 1) << status;
    EXPECT_EQ(server_->counters().reset_floods.value(), absl::IsResourceExhausted(status) ? 1u : 0u);
    if (absl::IsResourceExhausted(status)) {
      EXPECT_EQ(server_->counters().resets_caused.value(), 11u) << "each once";
    }
  }
}

TEST_F(ServerAndBytes, ACallThatIsResetForItsCallersMistakeHasEnded) {
  ASSERT_TRUE(server_->Receive(H2Bytes().Request(1, "/a.B/C")).ok());
  server_->TakeLog();
  ASSERT_TRUE(server_->Receive(H2Bytes().WindowUpdate(1, 0x7fffffff)).ok());
  EXPECT_THAT(server_->TakeLog(), ElementsAre(StartsWith("reset 1 INTERNAL")));
  EXPECT_THAT(FramesOfType(server_->TakeFrames(), kResetFrame), SizeIs(1));
  // And one that had not begun for the session.
  ASSERT_TRUE(server_->Receive(H2Bytes().Request(3, "/a.B/C", {{"X", "v"}})).ok());
  EXPECT_THAT(server_->TakeLog(), IsEmpty());
  EXPECT_EQ(codec().open_calls(), 0u);
}

// A sender of HTTP/2 takes all its streams in turn, so that a thousand messages begin before one is whole.
TEST_F(ServerAndBytes, ManyMessagesAtOnceAreGivenTheirWindowsOneAfterTheOther) {
  CodecOptions options = Server();
  options.message_bytes_max = 128 << 10;
  options.call_credit_bytes = 64 << 10;
  server_ = std::make_unique<CodecEnd>(options);
  const auto client = std::make_unique<CodecEnd>(Client());
  server_->log_messages = client->log_messages = false;
  ASSERT_TRUE(Exchange(*client, *server_).ok());
  size_t got = 0;
  server_->on_message = [&](CallId id, absl::Span<const char> message, size_t charged) {
    EXPECT_GE(message.size(), 90'000u);
    server_->codec().Consumed(id, charged);
    ++got;
  };
  const auto request = Value(std::string(90'000, 'x'));
  for (int i = 0; i < 90; ++i) client->Start("/a.B/C", &request);
  size_t most = 0;
  for (int i = 0; i < 10'000 && got < 90; ++i) {
    const std::string to_server = client->TakeOutput();
    for (size_t at = 0; at < to_server.size(); at += 20'000) {
      ASSERT_TRUE(server_->Receive(absl::MakeConstSpan(to_server).subspan(at, 20'000)).ok());
      most = std::max(most, server_->codec().held_bytes());
    }
    ASSERT_TRUE(client->Receive(server_->TakeOutput()).ok());
  }
  EXPECT_EQ(got, 90u) << "none is refused";
  EXPECT_LE(most, size_t{4} << 20) << "and not 90 times 64 KiB";
  EXPECT_EQ(server_->counters().resets_caused.value(), 0u);
  // Afterwards windows are as before.
  client->Start("/a.B/C", &request);
  const std::string begun = client->TakeOutput();
  EXPECT_GT(begun.size(), 60'000u);
}

// One that does not say that it knows of narrow windows gets no more of the connection's.
TEST_F(ServerAndBytes, MessagesThatAreNotWholeAreBoundedWhateverThePeerAcknowledges) {
  CodecOptions options = Server();
  options.message_bytes_max = 1 << 20;
  options.call_credit_bytes = 64 << 10;
  server_ = std::make_unique<CodecEnd>(options);
  server_->log_messages = false;
  ASSERT_TRUE(server_->Receive(H2Bytes().Preface().Settings().SettingsAck()).ok());
  int64_t window = 65535;
  const auto take_windows = [&] {
    for (const SentFrame& frame : server_->TakeFrames()) {
      if (frame.type == kWindowUpdateFrame && frame.id == 0) window += Number(frame.payload);
    }
  };
  take_windows();
  size_t sent = 0;
  for (uint32_t i = 0; i < 900; ++i) {
    const uint32_t id = 1 + 2 * i;
    ASSERT_TRUE(server_->Receive(H2Bytes().Request(id, "/a.B/C")).ok());
    std::string half = Framed(std::string(100'000, 'x')).substr(0, 60'000);
    while (!half.empty() && window > 0) {
      const size_t piece = std::min({half.size(), size_t{16384}, static_cast<size_t>(window)});
      ASSERT_TRUE(server_->Receive(H2Bytes().Data(id, half.substr(0, piece))).ok());
      half.erase(0, piece);
      window -= static_cast<int64_t>(piece);
      sent += piece;
      take_windows();
    }
  }
  EXPECT_GT(sent, size_t{2} << 20);
  // So much of those that nobody asked for, and so much of those that were granted what they lack.
  EXPECT_LE(sent, (size_t{4} << 20) + (512 << 10));
  EXPECT_LE(codec().held_bytes(), size_t{5} << 20);
  // Now it knows. What it did not begin it may begin, and each is granted its own.
  ASSERT_TRUE(server_->Receive(H2Bytes().SettingsAck()).ok());
  take_windows();
  EXPECT_GT(window, 0);
}

TEST_F(ServerAndBytes, WhatThePeerMustEndSoonIsKnown) {
  server_ = std::make_unique<CodecEnd>(Server());
  EXPECT_EQ(codec().unfinished(), Codec::kPreface);
  ASSERT_TRUE(server_->Receive(H2Bytes().Preface()).ok());
  EXPECT_EQ(codec().unfinished(), Codec::kPreface) << "its settings are part of it";
  ASSERT_TRUE(server_->Receive(H2Bytes().Settings()).ok());
  EXPECT_EQ(codec().unfinished(), 0u);

  const std::string headers = HeaderBlock(RequestFields("/a.B/C"));
  const H2Bytes begun = H2Bytes().Frame(kHeadersFrame, 0, 1, headers);
  ASSERT_TRUE(server_->Receive(begun).ok());
  const uint64_t first = codec().unfinished();
  EXPECT_GT(first, Codec::kPreface);
  ASSERT_TRUE(server_->Receive(H2Bytes().Frame(kContinuationFrame, 0, 1, "")).ok());
  EXPECT_EQ(codec().unfinished(), first) << "more of the same";
  ASSERT_TRUE(server_->Receive(H2Bytes().Frame(kContinuationFrame, kEndHeaders, 1, "")).ok());
  EXPECT_EQ(codec().unfinished(), 0u);

  // Byte by byte: a frame is not there before its last byte.
  const std::string next = H2Bytes().Request(3, "/a.B/C").str();
  uint64_t second = 0;
  for (size_t i = 0; i < next.size(); ++i) {
    ASSERT_TRUE(server_->Receive({&next[i], 1}).ok());
    if (i == 8) second = codec().unfinished();
    EXPECT_EQ(codec().unfinished(), i < 8 || i + 1 == next.size() ? 0 : second) << i;
  }
  EXPECT_GT(second, first);
  ASSERT_TRUE(server_->Receive(H2Bytes().Data(3, "half of a frame").str().substr(0, 12)).ok());
  EXPECT_EQ(codec().unfinished(), 0u) << "data may take its time";
}

TEST_F(ServerAndBytes, WhatPackedMessagesBecomeIsTold) {
  const std::string packed = Gzip(absl::MakeConstSpan(Encoded(std::string(100'000, 'x'))));
  ASSERT_TRUE(server_->Receive(H2Bytes().Request(1, "/a.B/C", {{"grpc-encoding", "gzip"}})).ok());
  EXPECT_EQ(codec().TakeUnpackedBytes(), 0u);
  ASSERT_TRUE(server_->Receive(H2Bytes().Data(1, Framed(packed, /*packed=*/true))).ok());
  EXPECT_GE(codec().TakeUnpackedBytes(), 100'000u);
  EXPECT_EQ(codec().TakeUnpackedBytes(), 0u);
}

TEST_F(ServerAndBytes, FloodsOfFramesWithoutUseEndTheConnection) {
  const H2Bytes useless[] = {
      H2Bytes().Frame(kPriorityFrame, 0, 1, std::string(5, 0)),
      H2Bytes().Frame(0x42, 0, 0, "unknown"),
      H2Bytes().Settings(),
      H2Bytes().WindowUpdate(0, 1),
      H2Bytes().Data(1, ""),
      H2Bytes().GoAway(0, 0),
      H2Bytes().Ping(1, kAckFlag),
  };
  for (size_t i = 0; i < std::size(useless); ++i) {
    CodecOptions options = Server();
    options.glitches_max = 50;
    options.glitches_per_second = 0;
    Restart(options);
    ASSERT_TRUE(server_->Receive(H2Bytes().Request(1, "/a.B/C")).ok());
    absl::Status status;
    int frames = 0;
    while (status.ok() && frames++ < 200) {
      status = server_->Receive(useless[i]);
      server_->TakeOutput();
    }
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << i << " " << status;
    EXPECT_EQ(server_->counters().glitch_floods.value(), 1u) << i;
  }
}

TEST_F(ServerAndBytes, PingsTooOftenEndTheConnectionWithTheWordsThatGrpcKnows) {
  absl::Status status;
  for (int i = 0; i < 4 && status.ok(); ++i) status = server_->Receive(H2Bytes().Ping(7));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(server_->counters().ping_floods.value(), 1u);
  EXPECT_THAT(server_->TakeFrames().back().payload, HasSubstr("too_many_pings"));
}

TEST_F(ServerAndBytes, WhatIsSaidOfACallForgivesPings) {
  for (uint32_t id = 1; id < 100; id += 2) {
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(server_->Receive(H2Bytes().Ping(7)).ok()) << id;
    ASSERT_TRUE(server_->Receive(H2Bytes().Call(id, "/a.B/C", "m")).ok());
    codec().SendReply(id, nullptr, absl::OkStatus(), nullptr);
    server_->TakeOutput();
  }
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(server_->Receive(H2Bytes().Ping(7)).ok());
  EXPECT_FALSE(server_->Receive(H2Bytes().Ping(7)).ok());
}

TEST_F(ServerAndBytes, AnswersThatAreNotReadEndTheConnection) {
  CodecOptions options = Server();
  options.acks_unsent_max = 20;
  Restart(options);
  absl::Status status;
  int frames = 0;
  while (status.ok() && frames++ < 100) status = server_->Receive(H2Bytes().Settings());
  EXPECT_EQ(frames, 21);
  EXPECT_EQ(server_->counters().ack_floods.value(), 1u);
}

TEST_F(ServerAndBytes, RefusedCallsThatAreNotReadEndTheConnection) {
  CodecOptions options = Server();
  options.calls_max = 10;
  options.frames_unsent_max = 20;
  Restart(options);
  server_->on_call = [&](IncomingCall& call) {
    codec().SendReply(call.id, nullptr, absl::UnimplementedError("no"), nullptr);
  };
  server_->listen = false;
  absl::Status status;
  uint32_t calls = 0;
  while (status.ok() && calls < 200) status = server_->Receive(H2Bytes().Call(2 * calls++ + 1, "/unknown/X", "m"));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_LT(calls, 40u);
  EXPECT_EQ(server_->counters().frame_floods.value(), 1u);
}

TEST_F(ServerAndBytes, CallsRefusedForTheirHeadersThatAreNotReadEndTheConnection) {
  CodecOptions options = Server();
  options.calls_max = 10;
  options.frames_unsent_max = 20;
  Restart(options);
  absl::Status status;
  uint32_t calls = 0;
  while (status.ok() && calls < 200) {
    status = server_->Receive(H2Bytes().Request(2 * calls++ + 1, "/a.B/C", {{"grpc-timeout", "soon"}}, kEndStream));
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_LT(calls, 40u);
  EXPECT_EQ(server_->counters().frame_floods.value(), 1u);
}

TEST_F(ServerAndBytes, AFloodOfAnotherKindDoesNotSpeakOfPings) {
  CodecOptions options = Server();
  options.glitches_max = 3;
  Restart(options);
  server_->counters().ping_floods.Add();  // of another connection of the server
  absl::Status status;
  for (int i = 0; i < 10 && status.ok(); ++i) status = server_->Receive(H2Bytes().Frame(0x42, 0, 0, "unknown"));
  EXPECT_THAT(server_->TakeFrames().back().payload, Not(HasSubstr("too_many_pings")));
}

TEST_F(ServerAndBytes, AMessageThatIsTooLargeIsCountedOnce) {
  CodecOptions options = Server();
  options.message_bytes_max = 100;
  Restart(options);
  ASSERT_TRUE(server_->Receive(H2Bytes().Call(1, "/a.B/C", std::string(200, 'x'))).ok());
  EXPECT_EQ(server_->counters().messages_too_large.value(), 1u);
}

TEST_F(ServerAndBytes, ContinuationFloodsEndTheConnection) {
  H2Bytes bytes;
  bytes.Frame(kHeadersFrame, 0, 1, HeaderBlock(RequestFields("/a.B/C")));
  for (int i = 0; i < 20; ++i) bytes.Frame(kContinuationFrame, 0, 1, HeaderBlock({{absl::StrCat("x-", i), "v"}}));
  EXPECT_FALSE(server_->Receive(bytes).ok());
  EXPECT_THAT(server_->TakeLog(), IsEmpty());
}

TEST_F(ServerAndBytes, TooManySettingsEndTheConnection) {
  std::vector<std::pair<uint16_t, uint32_t>> entries(33, {0x99, 1});
  EXPECT_FALSE(server_->Receive(H2Bytes().Settings(entries)).ok());
}

TEST_F(ServerAndBytes, AReplyThatGetsNoWindowIsGivenUp) {
  Restart(Server());
  ASSERT_TRUE(server_->Receive(H2Bytes().Settings({{4, 0}}).Call(1, "/a.B/C", "m")).ok());
  const auto reply = Value(std::string(1000, 'x'));
  codec().SendReply(1, &reply, absl::OkStatus(), nullptr);
  EXPECT_EQ(codec().WaitingBytes(1), 5 + Encoded(std::string(1000, 'x')).size());
  server_->TakeOutput();
  EXPECT_TRUE(codec().ExpireStalled().ok());
  EXPECT_TRUE(codec().ExpireStalled().ok());
  EXPECT_EQ(codec().open_calls(), 1u);
  EXPECT_TRUE(codec().ExpireStalled().ok());
  EXPECT_EQ(codec().open_calls(), 0u);
  EXPECT_EQ(server_->counters().calls_stalled.value(), 1u);
  EXPECT_THAT(FramesOfType(server_->TakeFrames(), kResetFrame), SizeIs(1));
}

TEST_F(ServerAndBytes, WhatIsNotHttp2IsToldSo) {
  CodecEnd server(Server());
  EXPECT_FALSE(server.Receive(absl::MakeConstSpan(std::string("GET / HTTP/1.1\r\nHost: kv\r\n\r\n"))).ok());
  EXPECT_EQ(server.counters().format_errors.value(), 1u);
  const std::vector<SentFrame> frames = server.TakeFrames();
  ASSERT_FALSE(frames.empty());
  EXPECT_TRUE(IsFrame(frames.back(), kGoAwayFrame, 0));
}

TEST_F(ServerAndBytes, ABrokenRuleOfHttp2EndsTheConnection) {
  // DATA of a stream that was never opened.
  EXPECT_FALSE(server_->Receive(H2Bytes().Data(1, "x")).ok());
  const std::vector<SentFrame> frames = server_->TakeFrames();
  ASSERT_FALSE(frames.empty());
  EXPECT_TRUE(IsFrame(frames.back(), kGoAwayFrame, 0));
  EXPECT_FALSE(server_->Receive(H2Bytes().Ping(1)).ok());
}

// ---------------------------------------------------------------- a client of ours, and a peer made of bytes

class ClientAndBytes : public ::testing::Test {
 protected:
  ClientAndBytes() {
    EXPECT_TRUE(client_.Receive(H2Bytes().Settings().SettingsAck()).ok());
    id_ = client_.Start("/a.B/C", &request_);
    client_.TakeOutput();
    client_.TakeLog();
  }
  static HeaderFields Ok() { return {{":status", "200"}, {"content-type", "application/grpc"}}; }

  CodecEnd client_{Client()};
  google::protobuf::BytesValue request_ = Value("r");
  CallId id_ = 0;
};

TEST_F(ClientAndBytes, AServerThatSaysThatItDoesNotUnpackIsSentNothingPacked) {
  struct : CallEvents {
    void OnInitialMetadata(Metadata) override {}
    void OnMessage(absl::Span<const char>, size_t) override {}
    void OnHalfClose() override {}
    void OnEnd(absl::Status, Metadata) override {}
    void OnReset(absl::Status) override {}
    void OnSendRoom() override {}
  } nobody;
  const auto request = Value(std::string(5000, 'z'));
  OutgoingCall call;
  call.path = "/a.B/C";
  call.message = &request;
  call.pack = true;
  const auto packed = [&] {
    EXPECT_TRUE(client_.codec().StartCall(call, nobody).ok());
    return FramesOfType(client_.TakeFrames(), kDataFrame).front().payload[0] == 1;
  };
  EXPECT_TRUE(packed()) << "nothing is known yet";
  HeaderFields refusal = Ok();
  refusal.insert(refusal.end(), {{"grpc-status", "12"}, {"grpc-accept-encoding", "identity"}});
  ASSERT_TRUE(client_.Receive(H2Bytes().Headers(id_, refusal, kEndStream)).ok());
  EXPECT_FALSE(packed());
}

// nghttp2, and with it Node, has no end of a call to send before it has a window again.
TEST_F(ClientAndBytes, AWindowIsLeftForTheEndOfACallBehindItsMessage) {
  for (const size_t framed : {1000u, 65535u, 65536u, 65537u, 100'000u}) {
    CodecEnd client(Client());
    EXPECT_TRUE(client.Receive(H2Bytes().Settings().SettingsAck()).ok());
    const auto id = static_cast<uint32_t>(client.Start("/a.B/C", &request_));
    client.TakeOutput();
    const std::string message = Framed(std::string(framed - 5, 'x'));
    size_t window = Client().call_credit_bytes;
    EXPECT_TRUE(client.Receive(H2Bytes().Headers(id, Ok())).ok());
    for (size_t sent = 0; sent < framed;) {
      const size_t size = std::min({size_t{16384}, framed - sent, window});
      ASSERT_GT(size, 0u) << sent << " of " << framed;
      EXPECT_TRUE(client.Receive(H2Bytes().Data(id, message.substr(sent, size))).ok());
      sent += size;
      window -= size;
      for (const SentFrame& frame : FramesOfType(client.TakeFrames(), kWindowUpdateFrame)) {
        if (frame.id == id) window += Number(frame.payload);
      }
    }
    EXPECT_GT(window, 0u) << framed;
  }
}

// Servers count resets, and end connections with many.
TEST_F(ClientAndBytes, ACallThatHasEndedIsNotReset) {
  const HeaderFields end = {{"grpc-status", "0"}};
  ASSERT_TRUE(client_.Receive(H2Bytes().Headers(id_, Ok()).Data(id_, Framed("")).Headers(id_, end, kEndStream)).ok());
  EXPECT_EQ(client_.last_line(), "end 1 OK");
  EXPECT_THAT(FramesOfType(client_.TakeFrames(), kResetFrame), IsEmpty());
  // Malformed, and all the same at its end.
  const auto id = static_cast<uint32_t>(client_.Start("/a.B/C", &request_));
  ASSERT_TRUE(client_.Receive(H2Bytes().Headers(id, Ok()).Data(id, "", kEndStream)).ok());
  EXPECT_THAT(std::string(client_.last_line()), StartsWith("reset 3 INTERNAL"));
  EXPECT_THAT(FramesOfType(client_.TakeFrames(), kResetFrame), IsEmpty());
  // One whose request goes on is.
  const auto open = static_cast<uint32_t>(client_.Start("/a.B/C"));
  HeaderFields refusal = Ok();
  refusal.push_back({"grpc-status", "9"});
  ASSERT_TRUE(client_.Receive(H2Bytes().Headers(open, refusal, kEndStream)).ok());
  EXPECT_THAT(FramesOfType(client_.TakeFrames(), kResetFrame), SizeIs(1));
}

// nghttp2 resets the stream; the caller is not to wait for an answer to that.
TEST_F(ClientAndBytes, ACallThatIsResetForTheServersMistakeHasEnded) {
  HeaderFields wrong_name = Ok(), wrong_value = Ok();
  wrong_name.push_back({"X", "v"});
  wrong_value.push_back({"x", "a\nb"});
  const H2Bytes mistakes[] = {H2Bytes().Headers(1, wrong_name), H2Bytes().Headers(1, wrong_value, kEndStream),
                              H2Bytes().Headers(1, Ok()).Headers(1, {{"grpc-status", "0"}, {"X", "v"}}, kEndStream),
                              H2Bytes().Headers(1, {{"content-type", "application/grpc"}}),
                              H2Bytes().WindowUpdate(1, 0x7fffffff)};
  for (const H2Bytes& mistake : mistakes) {
    CodecEnd client(Client());
    ASSERT_TRUE(client.Receive(H2Bytes().Settings().SettingsAck()).ok());
    ASSERT_EQ(client.Start("/a.B/C"), 1u);
    client.TakeOutput();
    ASSERT_TRUE(client.Receive(mistake).ok());
    EXPECT_THAT(std::string(client.last_line()), StartsWith("reset 1 INTERNAL"));
    EXPECT_EQ(client.codec().open_calls(), 0u);
    EXPECT_THAT(FramesOfType(client.TakeFrames(), kResetFrame), SizeIs(1));
  }
}

// gRPC C++ sends them as they are.
TEST_F(ClientAndBytes, SpacesAroundAMessageStayAndAroundMetadataDoNot) {
  HeaderFields fields = Ok();
  fields.insert(fields.end(), {{"grpc-status", "2"}, {"grpc-message", " a b "}, {"x-a", " v "}});
  ASSERT_TRUE(client_.Receive(H2Bytes().Headers(id_, fields, kEndStream)).ok());
  EXPECT_THAT(client_.TakeLog(), ElementsAre("end 1 UNKNOWN:  a b  x-a=v"));
}

TEST_F(ClientAndBytes, AnHttpErrorBecomesAStatus) {
  ASSERT_TRUE(client_.Receive(H2Bytes().Headers(id_, {{":status", "503"}}, kEndStream)).ok());
  EXPECT_THAT(client_.TakeLog(), ElementsAre(AllOf(StartsWith("end 1 UNAVAILABLE"), HasSubstr("503"))));
}

TEST_F(ClientAndBytes, AnHttpErrorWithAPageBecomesAStatus) {
  ASSERT_TRUE(client_
                  .Receive(H2Bytes()
                               .Headers(id_, {{":status", "404"}, {"content-type", "text/html"}})
                               .Data(id_, "<html>", kEndStream))
                  .ok());
  EXPECT_THAT(client_.TakeLog(), ElementsAre(StartsWith("reset 1 UNIMPLEMENTED")));
  EXPECT_EQ(client_.codec().open_calls(), 0u);
}

TEST_F(ClientAndBytes, GrpcsStatusGoesBeforeHttps) {
  ASSERT_TRUE(client_
                  .Receive(H2Bytes().Headers(id_,
                                             {{":status", "503"},
                                              {"content-type", "application/grpc"},
                                              {"grpc-status", "5"},
                                              {"grpc-message", "no%20key"}},
                                             kEndStream))
                  .ok());
  EXPECT_THAT(client_.TakeLog(), ElementsAre("end 1 NOT_FOUND: no key"));
}

TEST_F(ClientAndBytes, InformationalResponsesAreIgnored) {
  ASSERT_TRUE(client_
                  .Receive(H2Bytes()
                               .Headers(id_, {{":status", "103"}})
                               .Headers(id_, Ok())
                               .Data(id_, Framed("m"))
                               .Headers(id_, {{"grpc-status", "0"}}, kEndStream))
                  .ok());
  EXPECT_THAT(client_.TakeLog(), ElementsAre("metadata 1", "message 1 'm'", "end 1 OK"));
}

TEST_F(ClientAndBytes, AnEndWithoutTrailersIsNoSuccess) {
  ASSERT_TRUE(client_.Receive(H2Bytes().Headers(id_, Ok()).Data(id_, Framed("m"), kEndStream)).ok());
  EXPECT_THAT(std::string(client_.last_line()), StartsWith("reset 1 INTERNAL"));
}

TEST_F(ClientAndBytes, TrailersWithoutStatusAreNoSuccess) {
  ASSERT_TRUE(client_.Receive(H2Bytes().Headers(id_, Ok()).Headers(id_, {{"x", "y"}}, kEndStream)).ok());
  EXPECT_THAT(std::string(client_.last_line()), StartsWith("end 1 UNKNOWN"));
}

TEST_F(ClientAndBytes, AResetBecomesAStatus) {
  ASSERT_TRUE(client_.Receive(H2Bytes().Reset(id_, 11)).ok());
  EXPECT_THAT(client_.TakeLog(), ElementsAre(StartsWith("reset 1 RESOURCE_EXHAUSTED")));
}

TEST_F(ClientAndBytes, AResetWithoutErrorIsNoSuccess) {
  ASSERT_TRUE(client_.Receive(H2Bytes().Headers(id_, Ok()).Reset(id_, 0)).ok());
  EXPECT_THAT(std::string(client_.last_line()), StartsWith("reset 1 INTERNAL"));
}

TEST_F(ClientAndBytes, CallsAboveTheLastOfAGoAwayWereNotStarted) {
  const CallId second = client_.Start("/a.B/C", &request_);
  client_.TakeLog();
  ASSERT_TRUE(client_.Receive(H2Bytes().GoAway(id_, 0, "bye")).ok());
  EXPECT_THAT(client_.TakeLog(),
              ElementsAre("goaway 1 OK", AllOf(StartsWith(absl::StrCat("reset ", second, " UNAVAILABLE")),
                                               HasSubstr("(not started)"))));
  ASSERT_TRUE(client_.Receive(H2Bytes().Headers(id_, Ok()).Headers(id_, {{"grpc-status", "0"}}, kEndStream)).ok());
  EXPECT_EQ(client_.last_line(), "end 1 OK");
}

TEST_F(ClientAndBytes, TooManyPingsIsHeard) {
  ASSERT_TRUE(client_.Receive(H2Bytes().GoAway(id_, 11, "too_many_pings")).ok());
  EXPECT_THAT(client_.TakeLog(),
              ElementsAre(AllOf(StartsWith("goaway 1 RESOURCE_EXHAUSTED"), HasSubstr("too_many_pings"))));
}

TEST_F(ClientAndBytes, PromisesArePaidNoAttention) {
  std::string promise("\0\0\0\2", 4);
  promise += HeaderBlock({{":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {":authority", "kv.test"}});
  EXPECT_FALSE(client_.Receive(H2Bytes().Frame(kPushPromiseFrame, kEndHeaders, id_, promise)).ok());
}

}  // namespace
}  // namespace troupe::grpc_wire
