#include "troupe/wire/native/codec.h"

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/wire/native/frame.h"
#include "troupe/wire/native/testing_peer.h"

namespace troupe::native {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;

#define EXPECT_OK(...) EXPECT_EQ(absl::OkStatus(), (__VA_ARGS__))
#define ASSERT_OK(...) ASSERT_EQ(absl::OkStatus(), (__VA_ARGS__))

std::string Hex(absl::string_view bytes) {
  std::string hex;
  for (char c : bytes) {
    hex += "0123456789abcdef"[static_cast<unsigned char>(c) >> 4];
    hex += "0123456789abcdef"[c & 15];
  }
  return hex;
}

// ---------------------------------------------------------------- the common call, byte by byte

TEST(NativeCodec, BothEndsBeginWithMagicAndFeatures) {
  CodecEnd client(Client());
  EXPECT_EQ(Hex(client.TakeOutput()),
            "f154525001002800"    // magic, version 1, zero, 40 bytes of features
            "0100040000000100"    // 64 KiB a call
            "0200040000000400"    // 256 KiB the connection
            "03000400e8030000"    // 1,000 calls
            "0400040000004000"    // 4 MiB a message
            "0500040000400000");  // 16 KiB of metadata
  CodecEnd server(Server());
  EXPECT_THAT(Describe(server.TakeOutput()), ElementsAre(StartsWith("PREFACE ")));
}

TEST(NativeCodec, FirstUnaryCallNumbersItsMethodAndTheSecondUsesTheNumber) {
  CodecEnd client(Client());
  client.TakeOutput();
  const auto message = Value("hi");
  EXPECT_EQ(client.Start("/a.B/C", &message), 1u);
  EXPECT_EQ(Hex(client.TakeOutput()),
            "0f0000d101000000"  // 15 bytes; CALL, head, close, begin; call 1
            "0a"
            "0800"
            "1206"
            "2f612e422f43"  // head of 10 bytes: method 0, path
            "0a026869");    // the message
  EXPECT_EQ(client.Start("/a.B/C", &message), 3u);
  EXPECT_EQ(Hex(client.TakeOutput()),
            "070000d103000000"
            "02"
            "0800"
            "0a026869");
}

TEST(NativeCodec, UnaryReplyIsOneFrameWithoutAHead) {
  CodecEnd server(Server());
  server.TakeOutput();
  server.on_call = [&server](IncomingCall& call) {
    const auto reply = Value("ho");
    server.codec().SendReply(call.id, &reply, absl::OkStatus(), nullptr);
  };
  ASSERT_OK(server.Receive(FrameBytes().Preface().Call(1, 0, "/a.B/C", "hi")));
  EXPECT_THAT(server.TakeLog(), ElementsAre("method /a.B/C", "call 1 /a.B/C complete: 'hi'"));
  EXPECT_EQ(Hex(server.TakeOutput()),
            "0400001301000000"
            "0a02686f");
  EXPECT_EQ(server.codec().open_calls(), 0u);
}

TEST(NativeCodec, WholeFramesAreHandledWhereTheyLie) {
  CodecEnd server(Server());
  const FrameBytes bytes = FrameBytes().Preface().Call(1, 0, "/a.B/C", "a message");
  const char* seen = nullptr;
  server.on_call = [&seen](IncomingCall& call) { seen = call.message.data(); };
  ASSERT_OK(server.Receive(bytes));
  EXPECT_EQ(seen, bytes.str().data() + bytes.str().size() - 9);
  EXPECT_EQ(server.codec().held_bytes(), 0u);
}

// ---------------------------------------------------------------- every kind of call

// A server that answers by path: /echo unary; /count says how long the stream was; /repeat sends every message twice
// and /fail ends with a status.
void ServeByPath(CodecEnd& server) {
  struct State {
    std::string path;
    std::vector<std::string> messages;
  };
  auto calls = std::make_shared<std::map<CallId, State>>();
  server.on_call = [&server, calls](IncomingCall& call) {
    NativeCodec& codec = server.codec();
    const std::string path = *static_cast<const std::string*>(call.method);
    if (path == "/fail") {
      const Metadata trailers = {{"trailer", "t"}};
      absl::Status status = absl::NotFoundError("no such key");
      status.SetPayload("type.googleapis.com/kv.Detail", absl::Cord("detail"));
      codec.SendReply(call.id, nullptr, status, &trailers);
      return;
    }
    if (path == "/repeat") codec.SendInitialMetadata(call.id, {{"initial", "i"}});
    if (path == "/echo" && call.complete) {
      google::protobuf::BytesValue reply;
      ASSERT_TRUE(reply.ParseFromArray(call.message.data(), static_cast<int>(call.message.size())));
      codec.SendReply(call.id, &reply, absl::OkStatus(), nullptr);
      return;
    }
    (*calls)[call.id] = {path, {}};
  };
  server.on_message = [&server, calls](CallId id, absl::Span<const char> bytes, size_t) {
    google::protobuf::BytesValue message;
    ASSERT_TRUE(message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())));
    State& state = calls->at(id);
    state.messages.push_back(message.value());
    if (state.path != "/repeat") return;
    ASSERT_OK(server.codec().SendMessage(id, message));
    ASSERT_OK(server.codec().SendMessage(id, message));
  };
  server.on_half_close = [&server, calls](CallId id) {
    const State state = std::move(calls->at(id));
    calls->erase(id);
    if (state.path == "/repeat") return server.codec().SendReply(id, nullptr, absl::OkStatus(), nullptr);
    size_t bytes = 0;
    for (const std::string& message : state.messages) bytes += message.size();
    const auto reply = Value(absl::StrCat(state.messages.size(), " messages of ", bytes));
    server.codec().SendReply(id, &reply, absl::OkStatus(), nullptr);
  };
  server.on_over = [calls](CallId id) { calls->erase(id); };
}

// One call of every kind, and how one can end. 3 and 9 go beyond a frame.
void CallEveryKind(CodecEnd& client) {
  NativeCodec& codec = client.codec();
  const auto small = Value("small");
  const auto large = Value(std::string(20000, 'L'));
  const Metadata metadata = {{"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
                             {"user", "me"}};
  ASSERT_EQ(client.Start("/echo", &small, &metadata, absl::Seconds(3)), 1u);
  ASSERT_EQ(client.Start("/echo", &large), 3u);
  ASSERT_EQ(client.Start("/fail", &small), 5u);
  ASSERT_EQ(client.Start("/count"), 7u);
  ASSERT_OK(codec.SendMessage(7, Value("one")));
  ASSERT_OK(codec.SendMessage(7, Value("")));
  ASSERT_OK(codec.SendMessage(7, large));
  ASSERT_EQ(client.Start("/repeat"), 9u);
  ASSERT_OK(codec.SendMessage(9, Value("again")));
  ASSERT_EQ(client.Start("/count"), 11u);
  ASSERT_OK(codec.SendMessage(11, Value("never mind")));
  codec.Reset(11, absl::CancelledError("changed my mind"));
  codec.SendHalfClose(7);
  ASSERT_OK(codec.SendMessage(9, large));
  codec.SendHalfClose(9);
  ASSERT_EQ(client.Start("/echo", &small), 13u);
  codec.SendPing(4711);
}

const Lines kServerHears = {
    "method /echo",
    "call 1 /echo timeout=3s traceparent=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 user=me complete: "
    "x0a05736d616c6c",
    "call 3 /echo",
    "message 3 20004 bytes",
    "half-close 3",
    "method /fail",
    "call 5 /fail complete: x0a05736d616c6c",
    "method /count",
    "call 7 /count",
    "message 7 x0a036f6e65",
    "message 7 ''",
    "message 7 20004 bytes",
    "method /repeat",
    "call 9 /repeat",
    "message 9 x0a05616761696e",
    "call 11 /count",
    "message 11 x0a0a6e65766572206d696e64",
    "reset 11 CANCELLED: changed my mind",
    "half-close 7",
    "message 9 20004 bytes",
    "half-close 9",
    "call 13 /echo complete: x0a05736d616c6c",
};

const Lines kClientHears = {
    "message 1 x0a05736d616c6c",
    "end 1 OK",
    "message 3 x0a1331206d65737361676573206f66203230303030",
    "end 3 OK",
    "end 5 NOT_FOUND: no such key trailer=t",
    "metadata 9 initial=i",
    "message 9 x0a05616761696e",
    "message 9 x0a05616761696e",
    "message 7 x0a1333206d65737361676573206f66203230303033",
    "end 7 OK",
    "message 9 20004 bytes",
    "message 9 20004 bytes",
    "end 9 OK",
    "message 13 x0a05736d616c6c",
    "end 13 OK",
    "pong 4711",
};

// What both ends say when nothing is split: the streams that the tests below cut.
struct Conversation {
  std::string to_server;
  std::string to_client;
};

Conversation Record() {
  Conversation bytes;
  CodecEnd client(Client()), server(Server());
  ServeByPath(server);
  CallEveryKind(client);
  bytes.to_server = client.TakeOutput();
  EXPECT_OK(server.Receive(absl::MakeConstSpan(bytes.to_server)));
  bytes.to_client = server.TakeOutput();
  return bytes;
}

TEST(NativeCodec, EveryKindOfCall) {
  CodecEnd client(Client()), server(Server());
  ServeByPath(server);
  CallEveryKind(client);
  ASSERT_OK(Exchange(client, server));
  EXPECT_EQ(server.TakeLog(), kServerHears);
  EXPECT_EQ(client.TakeLog(), kClientHears);
  EXPECT_EQ(client.codec().open_calls(), 0u);
  EXPECT_EQ(server.codec().open_calls(), 0u);
  EXPECT_EQ(client.codec().held_bytes(), 0u);
  EXPECT_EQ(server.codec().held_bytes(), 0u);
  EXPECT_EQ(client.codec().output().footprint(), 0u);
  EXPECT_EQ(client.counters().calls_opened_by_us.value(), 7u);
  EXPECT_EQ(server.counters().calls_opened_by_peer.value(), 7u);
  EXPECT_EQ(server.counters().resets_received.value(), 1u);
}

TEST(NativeCodec, EverySplitOfTheStreamIsHeardTheSame) {
  const Conversation bytes = Record();
  // Within the large messages one position is as good as another: those are taken in strides.
  const auto step = [](size_t at) { return at % 5000 < 300 ? 1 : 97; };
  for (size_t at = 1; at < bytes.to_server.size(); at += step(at)) {
    CodecEnd server(Server());
    ServeByPath(server);
    ASSERT_OK(server.Receive(absl::MakeConstSpan(bytes.to_server).subspan(0, at))) << at;
    ASSERT_OK(server.Receive(absl::MakeConstSpan(bytes.to_server).subspan(at))) << at;
    ASSERT_EQ(server.TakeLog(), kServerHears) << at;
    ASSERT_EQ(server.TakeOutput(), bytes.to_client) << at;
    ASSERT_EQ(server.codec().held_bytes(), 0u) << at;
  }
  for (size_t at = 1; at < bytes.to_client.size(); at += step(at)) {
    CodecEnd client(Client());
    CallEveryKind(client);
    ASSERT_OK(client.Receive(absl::MakeConstSpan(bytes.to_client).subspan(0, at))) << at;
    ASSERT_OK(client.Receive(absl::MakeConstSpan(bytes.to_client).subspan(at))) << at;
    ASSERT_EQ(client.TakeLog(), kClientHears) << at;
  }
}

TEST(NativeCodec, OneByteAtATimeIsHeardTheSame) {
  for (size_t piece : {size_t{1}, size_t{2}, size_t{3}, size_t{7}, size_t{8}, size_t{9}, size_t{1000}}) {
    CodecEnd client(Client()), server(Server());
    ServeByPath(server);
    CallEveryKind(client);
    ASSERT_OK(Exchange(client, server, piece));
    EXPECT_EQ(server.TakeLog(), kServerHears) << piece;
    EXPECT_EQ(client.TakeLog(), kClientHears) << piece;
    EXPECT_EQ(server.codec().held_bytes(), 0u);
  }
}

TEST(NativeCodec, TheServingEndOfAConnectionMayCallToo) {
  CodecEnd client(Client()), server(Server());
  ServeByPath(client);
  const auto message = Value("back");
  EXPECT_EQ(server.Start("/echo", &message), 2u);
  EXPECT_EQ(server.Start("/count"), 4u);
  server.codec().SendHalfClose(4);
  ASSERT_OK(Exchange(client, server));
  EXPECT_THAT(client.TakeLog(), ElementsAre("method /echo", "call 2 /echo complete: x0a046261636b", "method /count",
                                            "call 4 /count", "half-close 4"));
  EXPECT_THAT(server.TakeLog(), ElementsAre("message 2 x0a046261636b", "end 2 OK",
                                            "message 4 x0a0f30206d65737361676573206f662030", "end 4 OK"));
}

TEST(NativeCodec, StatusDetailsArrive) {
  CodecEnd client(Client()), server(Server());
  server.on_call = [&server](IncomingCall& call) {
    absl::Status status = absl::NotFoundError("no");
    status.SetPayload("type.googleapis.com/kv.Detail", absl::Cord("detail"));
    status.SetPayload("stays.home", absl::Cord("secret"));
    server.codec().SendReply(call.id, nullptr, status, nullptr);
  };
  struct : CallEvents {
    void OnInitialMetadata(Metadata) override {}
    void OnMessage(absl::Span<const char>, size_t) override {}
    void OnHalfClose() override {}
    void OnEnd(absl::Status status, Metadata) override { end = std::move(status); }
    void OnReset(absl::Status) override {}
    void OnSendRoom() override {}
    absl::Status end;
  } events;
  const auto message = Value("x");
  OutgoingCall call;
  call.path = "/a";
  call.message = &message;
  ASSERT_OK(client.codec().StartCall(call, events).status());
  ASSERT_OK(Exchange(client, server));
  EXPECT_EQ(events.end.GetPayload("type.googleapis.com/kv.Detail"), absl::Cord("detail"));
  EXPECT_FALSE(events.end.GetPayload("stays.home").has_value());
}

// ---------------------------------------------------------------- messages in pieces, and their turn

TEST(NativeCodec, LargeMessageTravelsInPiecesAndSmallOnesPass) {
  CodecEnd client(Client()), server(Server());
  ASSERT_OK(Exchange(client, server));
  const auto large = Value(std::string(200000, 'L'));
  const auto small = Value("s");
  client.Start("/large", &large);
  client.Start("/small", &small);
  // What the call's 64 KiB of credit do not cover is begun, then the small call at once.
  EXPECT_THAT(client.TakeFrames(), ElementsAre("CALL 1 method=0 path=/large", "MESSAGE 1 first of 200004: 1024 bytes",
                                               "CALL 3 method=1 path=/small whole: x0a0173 close"));
  EXPECT_GT(client.codec().WaitingBytes(1), 198000u);
  EXPECT_EQ(client.codec().WaitingBytes(3), 0u);
  // Some more credit is not enough, all of it is.
  ASSERT_OK(client.Receive(FrameBytes().Credit(1, 100'000)));
  EXPECT_THAT(client.TakeFrames(), IsEmpty());
  ASSERT_OK(client.Receive(FrameBytes().Credit(1, 100'000)));
  const Lines frames = client.TakeFrames();
  ASSERT_THAT(frames, SizeIs(13));
  EXPECT_EQ(frames[0], "MESSAGE 1 piece: 16384 bytes");
  EXPECT_THAT(frames[12], StartsWith("MESSAGE 1 last piece: 2372 bytes"));
}

TEST(NativeCodec, OnlySoManyMessagesAreUnderWayAtOnce) {
  CodecEnd client(Client()), server(Server());
  server.log_messages = false;
  ASSERT_OK(Exchange(client, server));
  const auto covered = Value(std::string(60'000, 'c')), larger = Value(std::string(100'000, 'L'));
  std::vector<CallId> calls;
  for (int i = 0; i < 60; ++i) calls.push_back(client.Start("/a", i % 3 == 0 ? &larger : &covered));
  server.TakeLog();
  size_t most = 0, rounds = 0;
  while (client.codec().waiting_bytes() > 0 && ++rounds < 1000) {
    const std::string to_server = client.TakeOutput();
    for (size_t at = 0; at < to_server.size(); at += 16'000) {
      ASSERT_OK(
          server.Receive(absl::MakeConstSpan(to_server).subspan(at, std::min<size_t>(16'000, to_server.size() - at))));
      most = std::max(most, server.codec().held_bytes());
    }
    ASSERT_OK(client.Receive(server.TakeOutput()));
  }
  ASSERT_OK(Exchange(client, server));
  EXPECT_EQ(server.counters().messages_received.value(), 60u);
  EXPECT_EQ(server.counters().messages_unfinished.value(), 0u);
  EXPECT_EQ(server.codec().held_bytes(), 0u);
  // Sixteen of them, and their beginnings, and not sixty; and what was granted to the larger ones.
  EXPECT_LE(most, 16u * 66'000 + 20u * 101'000 + 44 * 1100);
}

// Who waits for the place of another gets it when that gives up.
TEST(NativeCodec, WhoGivesUpMakesRoomForAnother) {
  CodecEnd client(Client());
  client.TakeOutput();
  ASSERT_OK(client.Receive(FrameBytes().Preface()));
  const auto covered = Value(std::string(60'000, 'c'));
  std::vector<CallId> calls;
  for (int i = 0; i < 30; ++i) calls.push_back(client.Start("/a", &covered));
  // With 256 KiB for the connection a few went. With more, sixteen are under way, and the others have not begun.
  ASSERT_OK(client.Receive(FrameBytes().Credit(0, 300'000)));
  client.TakeOutput();
  for (int i = 4; i < 24; ++i) client.codec().Reset(calls[static_cast<size_t>(i)], absl::CancelledError(""));
  client.TakeOutput();
  ASSERT_OK(client.Receive(FrameBytes().Credit(0, 4 << 20)));
  EXPECT_EQ(client.codec().waiting_bytes(), 0u);
}

TEST(NativeCodec, MessagesThatAreNotWholeAreBounded) {
  CodecOptions options = Server();
  options.connection_credit_bytes = 64 << 20;
  CodecEnd server(options);
  server.log_messages = false;
  ASSERT_OK(server.Receive(FrameBytes().Preface()));
  server.TakeOutput();
  for (uint32_t i = 0; i < 100; ++i) {
    const uint32_t id = 1 + 2 * i;
    ASSERT_OK(server.Receive(FrameBytes()
                                 .Open(id, 0, i == 0 ? "/a" : "")
                                 .First(id, 64'000, std::string(32'000, 'x'))
                                 .Next(id, std::string(30'000, 'x'), false)));
    ASSERT_LE(server.codec().held_bytes(), 70u * 64'000);
  }
  const uint64_t refused = server.counters().messages_unfinished.value();
  EXPECT_EQ(refused, 100u - (64u << 16) / 62'000);
  EXPECT_THAT(server.TakeFrames(), SizeIs(refused));
  // The others end as ever, and make room.
  ASSERT_OK(server.Receive(FrameBytes().Next(1, std::string(2'000, 'x'), true)));
  ASSERT_OK(server.Receive(FrameBytes().Open(201, 0, "").First(201, 64'000, std::string(62'000, 'x'))));
  EXPECT_EQ(server.counters().messages_unfinished.value(), refused);
  ASSERT_OK(server.Receive(
      FrameBytes().Reset(3, absl::CancelledError("")).Open(203, 0, "").First(203, 64'000, std::string(62'000, 'x'))));
  EXPECT_EQ(server.counters().messages_unfinished.value(), refused);
  ASSERT_OK(server.Receive(FrameBytes().Open(205, 0, "").First(205, 64'000, std::string(62'000, 'x'))));
  EXPECT_EQ(server.counters().messages_unfinished.value(), refused + 1);
}

TEST(NativeCodec, WaitingCallsTakeTurnsFrameByFrame) {
  CodecEnd client(Client());
  client.TakeOutput();
  const auto large = Value(std::string(1'000'000, 'L'));
  for (int i = 0; i < 5; ++i) client.Start("/large", &large);
  client.TakeOutput();
  ASSERT_OK(client.Receive(FrameBytes().Preface()));
  // 256 KiB for the connection: the first uses it up.
  ASSERT_OK(client.Receive(FrameBytes().Credit(1, 1 << 20)));
  client.TakeOutput();
  for (uint32_t id = 3; id < 10; id += 2) {
    ASSERT_OK(client.Receive(FrameBytes().Credit(id, 1 << 20)));
  }
  EXPECT_THAT(client.TakeFrames(), IsEmpty()) << "the connection has no credit";
  ASSERT_OK(client.Receive(FrameBytes().Credit(0, 8 << 20)));
  std::vector<std::string> order;
  for (const std::string& line : client.TakeFrames()) order.push_back(line.substr(0, 9));
  ASSERT_GE(order.size(), 10u);
  // Each of the five before any comes again.
  for (size_t i = 0; i + 5 <= 10; i += 5) {
    std::vector<std::string> round(order.begin() + i, order.begin() + i + 5);
    std::sort(round.begin(), round.end());
    EXPECT_EQ(std::unique(round.begin(), round.end()), round.end()) << i;
  }
  EXPECT_THAT(client.TakeLog(), SizeIs(5)) << "each heard that its bytes have gone";
}

TEST(NativeCodec, RoomIsToldWhenTheLastWaitingByteHasGone) {
  CodecEnd client(Client()), server(Server());
  server.consume = false;
  ASSERT_OK(Exchange(client, server));
  const CallId id = client.Start("/a");
  for (int i = 0; i < 10; ++i) ASSERT_OK(client.codec().SendMessage(id, Value(std::string(10000, 'x'))));
  client.codec().SendHalfClose(id);
  const size_t waiting = client.codec().WaitingBytes(id);
  EXPECT_GT(waiting, 30000u);
  ASSERT_OK(Exchange(client, server));
  EXPECT_EQ(client.codec().WaitingBytes(id), waiting) << "nobody has read";
  EXPECT_THAT(client.TakeLog(), IsEmpty());
  server.codec().Consumed(id, server.unconsumed[id]);
  ASSERT_OK(Exchange(client, server));
  EXPECT_THAT(client.TakeLog(), ElementsAre("room 1"));
  EXPECT_EQ(client.codec().WaitingBytes(id), 0u);
  EXPECT_EQ(server.TakeLog().back(), "half-close 1") << "the half-close waits behind the messages";
}

TEST(NativeCodec, ReplyBehindWaitingMessagesEndsTheCallWhenTheyHaveGone) {
  CodecEnd client(Client()), server(Server());
  client.consume = false;
  ASSERT_OK(Exchange(client, server));
  const auto message = Value("x");
  const CallId id = client.Start("/a", &message);
  ASSERT_OK(Exchange(client, server));
  for (int i = 0; i < 10; ++i) ASSERT_OK(server.codec().SendMessage(id, Value(std::string(10000, 'x'))));
  const Metadata trailers = {{"t", "v"}};
  server.codec().SendReply(id, nullptr, absl::OkStatus(), &trailers);
  EXPECT_OK(server.codec().SendMessage(id, Value("ignored")));
  server.TakeLog();
  ASSERT_OK(Exchange(client, server));
  EXPECT_EQ(server.codec().open_calls(), 1u);
  while (client.codec().open_calls() > 0) {
    ASSERT_GT(client.unconsumed[id], 0u);
    client.codec().Consumed(id, std::exchange(client.unconsumed[id], 0));
    ASSERT_OK(Exchange(client, server));
  }
  EXPECT_THAT(server.TakeLog(), ElementsAre("room 1"));
  EXPECT_EQ(server.codec().open_calls(), 0u);
  const Lines log = client.TakeLog();
  EXPECT_THAT(log, SizeIs(11));
  EXPECT_EQ(log.back(), "end 1 OK t=v");
}

TEST(NativeCodec, MessageLargerThanItsCreditIsAssembledAsItIsWantedNext) {
  CodecEnd client(Client()), server(Server());
  ASSERT_OK(Exchange(client, server));
  const auto large = Value(std::string(3 << 20, 'L'));
  const CallId id = client.Start("/a", &large);
  ASSERT_OK(Exchange(client, server));
  EXPECT_THAT(server.TakeLog(), ElementsAre("method /a", "call 1 /a", "message 1 3145733 bytes", "half-close 1"));
  EXPECT_EQ(server.codec().held_bytes(), 0u);
  EXPECT_EQ(client.codec().WaitingBytes(id), 0u);
}

TEST(NativeCodec, LargeMessageBehindOneThatIsUnreadWaits) {
  CodecEnd client(Client()), server(Server());
  server.consume = false;
  ASSERT_OK(Exchange(client, server));
  const CallId id = client.Start("/a");
  ASSERT_OK(client.codec().SendMessage(id, Value(std::string(10000, 'x'))));
  ASSERT_OK(client.codec().SendMessage(id, Value(std::string(1 << 20, 'L'))));
  ASSERT_OK(Exchange(client, server));
  EXPECT_LE(server.codec().held_bytes(), 64u << 10);
  EXPECT_GT(client.codec().WaitingBytes(id), 900000u);
  server.codec().Consumed(id, std::exchange(server.unconsumed[id], 0));
  ASSERT_OK(Exchange(client, server));
  EXPECT_EQ(server.TakeLog().back(), "message 1 1048580 bytes");
}

TEST(NativeCodec, OnlySoManyLargeMessagesAreAssembledAtOnce) {
  CodecOptions options = Server();
  options.message_bytes_max = 1 << 20;
  options.connection_credit_bytes = 64 << 20;
  CodecEnd server(options);
  server.log_messages = false;
  FrameBytes bytes = FrameBytes().Preface();
  for (uint32_t i = 0; i < 10; ++i) {
    bytes.Open(2 * i + 1, 0, i == 0 ? "/a" : "");
    bytes.First(2 * i + 1, 1 << 20, std::string(16384, 'L'));
  }
  server.TakeOutput();
  ASSERT_OK(server.Receive(bytes));
  Lines granted = server.TakeFrames();
  EXPECT_THAT(granted, SizeIs(2)) << "two of the largest";
  EXPECT_LE(server.codec().held_bytes(), 10 * (64u << 10));
  // One of the two completes: the next in line is granted.
  FrameBytes rest;
  const size_t total = (1 << 20) - 16384;
  for (size_t at = 0; at < total; at += 16384) rest.Next(1, std::string(16384, 'L'), at + 16384 == total);
  ASSERT_OK(server.Receive(rest));
  granted = server.TakeFrames();
  EXPECT_THAT(granted, ElementsAre(StartsWith("CREDIT 5 "), "CREDIT 1 65536"));
  // One that waits in line gives up, one that is granted gives up: the line moves on.
  ASSERT_OK(server.Receive(FrameBytes().Reset(7, absl::CancelledError("")).Reset(3, absl::CancelledError(""))));
  granted = server.TakeFrames();
  ASSERT_THAT(granted, SizeIs(1));
  EXPECT_THAT(granted[0], StartsWith("CREDIT 9 "));
}

// Counts steps and not time: what is looked at is never more than who stands in line and is alive.
TEST(NativeCodec, WhoGivesUpLeavesTheLineForAssemblyAtOnce) {
  CodecOptions options = Server();
  options.message_bytes_max = 1 << 20;
  options.connection_credit_bytes = 64 << 20;
  options.resets_max = 100000;
  CodecEnd server(options);
  server.log_messages = false;
  ASSERT_OK(server.Receive(FrameBytes().Preface()));
  const std::string piece(1000, 'L');
  uint32_t id = 1;
  const auto begin = [&](int calls) {
    FrameBytes bytes;
    for (; calls > 0; --calls, id += 2) bytes.Open(id, 0, id == 1 ? "/a" : "").First(id, 1 << 20, piece);
    return bytes;
  };
  // Two are granted, and stay; of the others only the first stays.
  ASSERT_OK(server.Receive(begin(3)));
  EXPECT_EQ(NativeCodecTestPeer::AssemblyLine(server.codec()), 1u);
  for (int round = 0; round < 100; ++round) {
    const uint32_t first = id;
    ASSERT_OK(server.Receive(begin(100)));
    EXPECT_EQ(NativeCodecTestPeer::AssemblyLine(server.codec()), 101u);
    FrameBytes resets;
    for (uint32_t i = first; i < id; i += 2) resets.Reset(i, absl::CancelledError(""));
    ASSERT_OK(server.Receive(resets));
    EXPECT_EQ(NativeCodecTestPeer::AssemblyLine(server.codec()), 1u);
  }
  // The one that stayed has its turn next.
  server.TakeOutput();
  ASSERT_OK(server.Receive(FrameBytes().Reset(3, absl::CancelledError(""))));
  const Lines granted = server.TakeFrames();
  ASSERT_THAT(granted, SizeIs(1));
  EXPECT_THAT(granted[0], StartsWith("CREDIT 5 "));
  EXPECT_EQ(NativeCodecTestPeer::AssemblyLine(server.codec()), 0u);
}

TEST(NativeCodec, AnEncodedRequestGoesAsTheMessageWould) {
  for (const size_t size : {size_t{0}, size_t{100}, size_t{100'000}}) {
    CodecEnd now(Client()), later(Client());
    const auto value = Value(std::string(size, 'x'));
    const google::protobuf::BytesValue empty;
    const google::protobuf::MessageLite& message = size == 0 ? empty : value;
    now.Start("/a", &message);
    const absl::StatusOr<Bytes> encoded = later.codec().Encode(message);
    ASSERT_OK(encoded.status());
    EXPECT_EQ(encoded->size(), message.ByteSizeLong());
    struct Nobody final : CallEvents {
      void OnInitialMetadata(Metadata) override {}
      void OnMessage(absl::Span<const char>, size_t) override {}
      void OnHalfClose() override {}
      void OnEnd(absl::Status, Metadata) override {}
      void OnReset(absl::Status) override {}
      void OnSendRoom() override {}
    } nobody;
    OutgoingCall call;
    call.path = "/a";
    call.encoded = &*encoded;
    ASSERT_OK(later.codec().StartCall(call, nobody).status());
    EXPECT_EQ(later.TakeOutput(), now.TakeOutput()) << size;
  }
}

// What a stream has not been read is its reader's affair; a single reply that waits is the connection's.
TEST(NativeCodec, WaitingRepliesAreCountedApart) {
  CodecEnd client(Client()), server(Server());
  ASSERT_OK(Exchange(client, server));
  const CallId stream = client.Start("/a"), unary = client.Start("/a");
  ASSERT_OK(Exchange(client, server));
  NativeCodec& codec = server.codec();
  ASSERT_OK(codec.SendMessage(stream, Value(std::string(100'000, 'x'))));
  codec.SendReply(stream, nullptr, absl::OkStatus(), nullptr);
  EXPECT_GT(codec.waiting_bytes(), 30'000u);
  EXPECT_EQ(codec.waiting_reply_bytes(), 0u);
  const size_t before = codec.waiting_bytes();
  const auto reply = Value(std::string(200'000, 'x'));
  codec.SendReply(unary, &reply, absl::OkStatus(), nullptr);
  EXPECT_GT(codec.waiting_reply_bytes(), 130'000u);
  EXPECT_EQ(codec.waiting_reply_bytes(), codec.waiting_bytes() - before);
  ASSERT_OK(Exchange(client, server));
  EXPECT_EQ(codec.waiting_reply_bytes(), 0u);
  EXPECT_EQ(codec.waiting_bytes(), 0u);

  const CallId dropped = client.Start("/a");
  ASSERT_OK(Exchange(client, server));
  codec.SendReply(dropped, &reply, absl::OkStatus(), nullptr);
  EXPECT_GT(codec.waiting_reply_bytes(), 130'000u);
  codec.Reset(dropped, absl::CancelledError(""));
  EXPECT_EQ(codec.waiting_reply_bytes(), 0u);
  EXPECT_EQ(codec.waiting_bytes(), 0u);
}

TEST(NativeCodec, CreditComesBackInHalves) {
  CodecEnd server(Server());
  server.TakeOutput();
  ASSERT_OK(server.Receive(FrameBytes().Preface().Open(1, 0, "/a").Message(1, std::string(16384, 'x'))));
  EXPECT_THAT(server.TakeFrames(), IsEmpty());
  ASSERT_OK(server.Receive(FrameBytes().Message(1, std::string(16384, 'x'))));
  EXPECT_THAT(server.TakeFrames(), ElementsAre("CREDIT 1 32832"));
}

TEST(NativeCodec, ConnectionCreditComesBackWhetherOrNotCallsAreRead) {
  CodecEnd server(Server());
  server.consume = false;
  server.TakeOutput();
  FrameBytes bytes = FrameBytes().Preface();
  for (uint32_t id = 1; id < 2 * 9; id += 2) {
    bytes.Open(id, 0, id == 1 ? "/a" : "");
    bytes.Message(id, std::string(16384, 'x'));
  }
  ASSERT_OK(server.Receive(bytes));
  EXPECT_THAT(server.TakeFrames(), ElementsAre("CREDIT 147744"));
}

TEST(NativeCodec, PausedCreditIsGivenWhenItIsResumed) {
  CodecEnd server(Server());
  server.TakeOutput();
  server.codec().PauseCredit();
  FrameBytes bytes = FrameBytes().Preface();
  for (uint32_t id = 1; id < 2 * 9; id += 2) {
    bytes.Open(id, 0, id == 1 ? "/a" : "");
    bytes.Message(id, std::string(16384, 'x')).Message(id, std::string(10384, 'x'));
  }
  ASSERT_OK(server.Receive(bytes));
  EXPECT_THAT(server.TakeFrames(), IsEmpty());
  server.codec().ResumeCredit();
  EXPECT_THAT(server.TakeFrames(), ElementsAre("CREDIT 241488"));
  ASSERT_OK(server.Receive(FrameBytes().Message(1, std::string(10000, 'x'))));
  EXPECT_THAT(server.TakeFrames(), ElementsAre("CREDIT 1 36864"));
}

TEST(NativeCodec, FeaturesWidenTheBaselineForCallsThatWereOpenBefore) {
  CodecOptions generous = Server();
  generous.call_credit_bytes = 1 << 20;
  generous.connection_credit_bytes = 4 << 20;
  CodecEnd client(Client()), server(generous);
  const auto large = Value(std::string(500000, 'L'));
  const CallId id = client.Start("/a", &large);
  EXPECT_GT(client.codec().WaitingBytes(id), 400000u);
  ASSERT_OK(client.Receive(absl::MakeConstSpan(server.TakeOutput())));
  EXPECT_EQ(client.codec().WaitingBytes(id), 0u);
  EXPECT_THAT(client.TakeLog(), ElementsAre("room 1"));
  ASSERT_OK(Exchange(client, server));
  EXPECT_EQ(server.TakeLog().back(), "half-close 1");
}

TEST(NativeCodec, OptionsBelowTheBaselineAreRaisedToIt) {
  CodecOptions stingy = Server();
  stingy.call_credit_bytes = 1;
  stingy.connection_credit_bytes = 1;
  CodecEnd client(Client()), server(stingy);
  const auto message = Value(std::string(60000, 'L'));
  client.Start("/a", &message);
  ASSERT_OK(Exchange(client, server));
  EXPECT_EQ(server.TakeLog().back(), "half-close 1");
}

// ---------------------------------------------------------------- how calls end early

TEST(NativeCodec, CancelReachesTheServerAndNothingFollows) {
  CodecEnd client(Client()), server(Server());
  const CallId id = client.Start("/a");
  ASSERT_OK(Exchange(client, server));
  server.TakeLog();
  client.codec().Reset(id, absl::CancelledError("not needed"));
  EXPECT_EQ(client.codec().open_calls(), 0u);
  ASSERT_OK(server.codec().SendMessage(id, Value("on its way")));
  server.codec().SendReply(id, nullptr, absl::OkStatus(), nullptr);
  ASSERT_OK(Exchange(client, server));
  EXPECT_THAT(server.TakeLog(), IsEmpty()) << "the reply was faster, the reset came late";
  EXPECT_THAT(client.TakeLog(), IsEmpty());
  EXPECT_EQ(client.counters().late_frames.value(), 2u);
  EXPECT_EQ(server.counters().late_frames.value(), 1u);
}

TEST(NativeCodec, ServerResetReachesTheCaller) {
  CodecEnd client(Client()), server(Server());
  const CallId id = client.Start("/a");
  ASSERT_OK(client.codec().SendMessage(id, Value(std::string(100000, 'x'))));
  ASSERT_OK(Exchange(client, server));
  server.codec().Reset(id, absl::ResourceExhaustedError("enough"));
  ASSERT_OK(Exchange(client, server));
  EXPECT_THAT(client.TakeLog(), ElementsAre("room 1", "reset 1 RESOURCE_EXHAUSTED: enough"));
  EXPECT_EQ(client.codec().held_bytes(), 0u);
  // Ignored, all of it.
  client.codec().SendHalfClose(id);
  EXPECT_OK(client.codec().SendMessage(id, Value("x")));
  client.codec().Consumed(id, 10);
  client.codec().Forget(id);
  client.codec().Reset(id, absl::CancelledError(""));
  EXPECT_EQ(client.codec().WaitingBytes(id), 0u);
  EXPECT_THAT(client.TakeFrames(), IsEmpty());
}

TEST(NativeCodec, SessionMaySayThatItDidNotStartACall) {
  CodecEnd client(Client()), server(Server());
  const auto message = Value("x");
  server.on_call = [&server](IncomingCall& call) {
    absl::Status busy = absl::UnavailableError("busy");
    busy.SetPayload(kNotStartedPayload, absl::Cord());
    server.codec().Reset(call.id, busy);
  };
  client.Start("/a", &message);
  ASSERT_OK(Exchange(client, server));
  EXPECT_THAT(client.TakeLog(), ElementsAre("reset 1 UNAVAILABLE: busy (not started)"));
}

TEST(NativeCodec, ForgottenCallGivesItsCreditBackAndSaysNothing) {
  CodecEnd client(Client()), server(Server());
  client.consume = false;
  const auto message = Value("x");
  const CallId id = client.Start("/a", &message);
  ASSERT_OK(Exchange(client, server));
  client.codec().Forget(id);
  for (int i = 0; i < 30; ++i) {
    ASSERT_OK(server.codec().SendMessage(id, Value(std::string(10000, 'x'))));
    ASSERT_OK(Exchange(client, server));
    ASSERT_EQ(server.codec().WaitingBytes(id), 0u);
  }
  server.codec().SendReply(id, nullptr, absl::OkStatus(), nullptr);
  ASSERT_OK(Exchange(client, server));
  EXPECT_THAT(client.TakeLog(), IsEmpty());
  EXPECT_EQ(client.codec().open_calls(), 0u);
}

TEST(NativeCodec, CallNobodyListensToIsStillAnswered) {
  CodecEnd client(Client()), server(Server());
  server.listen = false;
  const CallId id = client.Start("/a");
  ASSERT_OK(client.codec().SendMessage(id, Value(std::string(200000, 'x'))));
  client.codec().SendHalfClose(id);
  ASSERT_OK(Exchange(client, server));
  EXPECT_EQ(client.codec().WaitingBytes(id), 0u);
  EXPECT_EQ(server.codec().held_bytes(), 0u);
  server.codec().SendReply(id, nullptr, absl::UnimplementedError("no"), nullptr);
  ASSERT_OK(Exchange(client, server));
  EXPECT_EQ(client.TakeLog().back(), "end 1 UNIMPLEMENTED: no");
}

TEST(NativeCodec, AnsweredCallHearsNothingMoreOfItsCaller) {
  CodecEnd client(Client()), server(Server());
  client.consume = false;
  ASSERT_OK(Exchange(client, server));
  const CallId id = client.Start("/a");
  ASSERT_OK(Exchange(client, server));
  const auto reply = Value(std::string(100000, 'r'));
  server.codec().SendReply(id, &reply, absl::OkStatus(), nullptr);
  server.TakeLog();
  for (int i = 0; i < 20; ++i) ASSERT_OK(client.codec().SendMessage(id, Value(std::string(10000, 'x'))));
  client.codec().SendHalfClose(id);
  ASSERT_OK(Exchange(client, server));
  EXPECT_THAT(server.TakeLog(), ElementsAre("room 1")) << "but that the reply has gone";
  EXPECT_THAT(client.TakeLog(), ElementsAre("message 1 100004 bytes", "end 1 OK"));
}

TEST(NativeCodec, GoAwayEndsWhatWasNotStarted) {
  CodecEnd client(Client()), server(Server());
  const auto message = Value("x");
  client.Start("/a");
  ASSERT_OK(Exchange(client, server));
  server.codec().SendGoAway(absl::OkStatus());
  client.Start("/a", &message);  // crosses the GOAWAY
  client.Start("/new", &message);
  server.TakeLog();
  ASSERT_OK(Exchange(client, server));
  EXPECT_THAT(
      client.TakeLog(),
      ElementsAre("goaway 1 OK", "reset 3 UNAVAILABLE: the peer is going away and did not start the call (not started)",
                  "reset 5 UNAVAILABLE: the peer is going away and did not start the call (not started)"));
  EXPECT_THAT(server.TakeLog(), ElementsAre("method /new")) << "its number counts";
  EXPECT_EQ(client.TryStart("/a").status().code(), absl::StatusCode::kUnavailable);
  // The call that was accepted goes on.
  ASSERT_OK(client.codec().SendMessage(1, Value("more")));
  client.codec().SendHalfClose(1);
  ASSERT_OK(Exchange(client, server));
  EXPECT_THAT(server.TakeLog(), ElementsAre("message 1 x0a046d6f7265", "half-close 1"));
  server.codec().SendReply(1, nullptr, absl::OkStatus(), nullptr);
  ASSERT_OK(Exchange(client, server));
  EXPECT_THAT(client.TakeLog(), ElementsAre("end 1 OK"));
  // And this end may still call the other.
  EXPECT_EQ(server.Start("/back", &message), 2u);
}

TEST(NativeCodec, AGoAwayOfAPeerThatFailsIsTheStatusOfWhatWasNotStarted) {
  for (const absl::Status& why : {absl::InternalError("broken"), absl::UnavailableError("closed")}) {
    CodecEnd client(Client()), server(Server());
    const auto message = Value("x");
    client.Start("/a", &message);
    server.codec().SendGoAway(why);
    ASSERT_OK(Exchange(client, server));
    const std::string expected =
        absl::IsInternal(why) ? "INTERNAL: broken" : "UNAVAILABLE: the peer is going away and did not start the call";
    EXPECT_THAT(client.TakeLog(), ElementsAre("goaway 0 " + why.ToString(), "reset 1 " + expected + " (not started)"));
  }
}

TEST(NativeCodec, AbandonedCallsHearWhyInTheOrderOfTheirOpening) {
  CodecEnd client(Client()), server(Server());
  client.Start("/a");
  client.Start("/b");
  ASSERT_OK(Exchange(client, server));
  server.Start("/back");
  client.TakeLog();
  ASSERT_OK(Exchange(client, server));
  client.codec().Forget(3);
  client.TakeLog();
  client.codec().Abandon(absl::UnavailableError("connection reset by peer"));
  EXPECT_THAT(client.TakeLog(), ElementsAre("reset 1 UNAVAILABLE: connection reset by peer",
                                            "reset 2 UNAVAILABLE: connection reset by peer"));
  EXPECT_EQ(client.codec().open_calls(), 0u);
  EXPECT_EQ(client.TryStart("/a").status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(client.TakeFrames(), IsEmpty());
}

TEST(NativeCodec, EventsMayEndTheirOwnCall) {
  CodecEnd client(Client()), server(Server());
  server.on_message = [&server](CallId id, absl::Span<const char>, size_t) {
    server.codec().Reset(id, absl::InternalError("own"));
  };
  const CallId id = client.Start("/a");
  ASSERT_OK(client.codec().SendMessage(id, Value(std::string(20000, 'x'))));
  client.codec().SendHalfClose(id);
  client.on_over = [&client](CallId) {
    const auto message = Value("next");
    client.Start("/next", &message);
    client.on_over = nullptr;
  };
  ASSERT_OK(Exchange(client, server));
  EXPECT_THAT(server.TakeLog(), ElementsAre("method /a", "call 1 /a", "message 1 20004 bytes", "method /next",
                                            "call 3 /next complete: x0a046e657874"));
}

// Each event that a call hears, in turn, ends the call or forgets it; what stands behind it in the frame must not
// matter.
TEST(NativeCodec, AnyEventMayEndItsCallInAnyWay) {
  const std::vector<std::function<void(NativeCodec&, CallId)>> ways = {
      [](NativeCodec& codec, CallId id) { codec.Reset(id, absl::InternalError("own")); },
      [](NativeCodec& codec, CallId id) { codec.Forget(id); },
      [](NativeCodec& codec, CallId id) { codec.SendReply(id, nullptr, absl::OkStatus(), nullptr); },
      [](NativeCodec& codec, CallId) { codec.Abandon(absl::UnavailableError("closing")); },
  };
  const Metadata metadata = {{"k", "v"}};
  // What a caller sends of call 1, and what a server answers to it.
  const std::vector<FrameBytes> requests = {
      FrameBytes().Call(1, 0, "/a", "whole"),
      FrameBytes().Open(1, 0, "/a").Message(1, "whole").Message(1, "and another"),
      FrameBytes().Open(1, 0, "/a").Message(1, "whole", kFlagClose),
      FrameBytes().Open(1, 0, "/a").First(1, 6, "pie").Next(1, "ces", true, kFlagClose),
      FrameBytes().Open(1, 0, "/a").HalfClose(1),
      FrameBytes().Frame(FrameType::kCall, kFlagHead | kFlagBegin, 1, "\x04\x12\x02/awhole"),
      FrameBytes().Open(1, 0, "/a").Reset(1, absl::CancelledError("")),
  };
  const std::vector<FrameBytes> answers = {
      FrameBytes().Reply(1, "whole"),
      FrameBytes().InitialMetadata(1, metadata).Message(1, "whole").End(1, absl::OkStatus()),
      FrameBytes().First(1, 6, "pie").Next(1, "ces", true).End(1, absl::OkStatus(), metadata),
      FrameBytes().Reset(1, absl::AbortedError("")),
      FrameBytes().GoAway(0),
      FrameBytes().Credit(1, 1 << 20).Credit(0, 1 << 20),
  };
  for (size_t way = 0; way < ways.size(); ++way) {
    for (const bool client : {false, true}) {
      for (const FrameBytes& bytes : client ? answers : requests) {
        for (const int which : {0, 1, 2, 3}) {
          CodecEnd end(client ? Client() : Server());
          int heard = 0;
          const auto act = [&](CallId id) {
            if (heard++ == which) ways[way](end.codec(), id);
          };
          end.on_call = [&](IncomingCall& call) { act(call.id); };
          end.on_message = [&](CallId id, absl::Span<const char>, size_t) { act(id); };
          end.on_metadata = end.on_half_close = end.on_send_room = end.on_over = act;
          if (client) {
            const auto large = Value(std::string(100000, 'L'));
            end.Start("/a", &large);
          }
          const absl::Status status = end.Receive(FrameBytes().Preface().Raw(bytes.str()));
          EXPECT_TRUE(status.ok() || way == 3) << status;
        }
      }
    }
  }
}

TEST(NativeCodec, EventMayAbandonTheConnection) {
  CodecEnd server(Server());
  server.on_call = [&server](IncomingCall&) { server.codec().Abandon(absl::UnavailableError("closing")); };
  EXPECT_THAT(server.Receive(FrameBytes().Preface().Call(1, 0, "/a", "x").Call(3, 0, "", "x")).code(),
              absl::StatusCode::kUnavailable);
  EXPECT_THAT(server.TakeLog(), SizeIs(2));
}

TEST(NativeCodec, CodecMayBeDestroyedWithEverythingUnderWay) {
  CodecEnd client(Client()), server(Server());
  const CallId id = client.Start("/a");
  const CallId waits = client.Start("/a");
  ASSERT_OK(client.codec().SendMessage(id, Value(std::string(60000, 'x'))));
  ASSERT_OK(client.codec().SendMessage(waits, Value(std::string(300000, 'x'))));
  const std::string bytes = client.TakeOutput();
  ASSERT_OK(server.Receive(absl::MakeConstSpan(bytes).subspan(0, bytes.size() - 5000)));
  EXPECT_GT(server.codec().held_bytes(), 40000u);
}

}  // namespace
}  // namespace troupe::native
