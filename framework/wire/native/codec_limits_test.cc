// What calls and peers meet at their limits: of our own callers, and of strangers who send what they should not.
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/protobuf/struct.pb.h"
#include "gtest/gtest.h"
#include "troupe/wire/native/codec.h"
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

TEST(NativeCodec, CallsBeyondTheGrantWaitForRoom) {
  CodecOptions options = Server();
  options.calls_max = 2;
  CodecEnd client(Client()), server(options);
  ASSERT_OK(Exchange(client, server));
  client.Start("/a");
  client.Start("/a");
  EXPECT_EQ(client.TryStart("/a").status().code(), absl::StatusCode::kResourceExhausted);
  ASSERT_OK(Exchange(client, server));
  client.TakeLog();
  client.on_call_room = [&client] { EXPECT_EQ(client.Start("/a"), 5u); };
  server.codec().SendReply(3, nullptr, absl::OkStatus(), nullptr);
  ASSERT_OK(Exchange(client, server));
  EXPECT_THAT(client.TakeLog(), ElementsAre("end 3 OK", "call room"));
  EXPECT_EQ(server.codec().open_calls(), 2u);
}

TEST(NativeCodec, AHundredCallsMayPrecedeTheFeatures) {
  CodecEnd client(Client());
  for (int i = 0; i < 100; ++i) client.Start("/a");
  EXPECT_EQ(client.TryStart("/a").status().code(), absl::StatusCode::kResourceExhausted);
  ASSERT_OK(client.Receive(FrameBytes().Preface({{FeatureId::kCallsMax, 101}})));
  EXPECT_THAT(client.TakeLog(), ElementsAre("call room"));
  client.Start("/a");
  EXPECT_EQ(client.TryStart("/a").status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(NativeCodec, CallsBeyondTheGrantAreRefusedAndTheRestLive) {
  CodecOptions options = Server();
  options.calls_max = 2;
  CodecEnd server(options);
  server.TakeOutput();
  ASSERT_OK(server.Receive(FrameBytes().Preface().Open(1, 0, "/a").Open(3, 0, "").Call(5, 1, "/b", "x")));
  EXPECT_THAT(server.TakeFrames(), ElementsAre("RESET 5 UNAVAILABLE: more than 2 calls in flight (not started)"));
  EXPECT_EQ(server.counters().calls_refused.value(), 1u);
  EXPECT_EQ(server.counters().resets_caused.value(), 1u);
  server.TakeLog();
  ASSERT_OK(server.Receive(FrameBytes().Reset(1, absl::CancelledError("")).Call(7, 1, "", "y")));
  EXPECT_THAT(server.TakeLog(), ElementsAre("reset 1 CANCELLED", "call 7 /b complete: 'y'")) << "its number counts";
}

TEST(NativeCodec, PeersWishesAboutSizeAreObserved) {
  CodecOptions options = Server();
  options.message_bytes_max = 1000;
  options.metadata_bytes_max = 100;
  CodecEnd client(Client()), server(options);
  ASSERT_OK(Exchange(client, server));
  const auto large = Value(std::string(1000, 'x'));
  EXPECT_EQ(client.TryStart("/a", &large).status().code(), absl::StatusCode::kOutOfRange);
  const Metadata metadata = {{"key", std::string(100, 'v')}};
  EXPECT_EQ(client.TryStart("/a", nullptr, &metadata).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(client.TryStart(std::string(1025, 'p')).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(client.TryStart("").status().code(), absl::StatusCode::kOutOfRange);
  const CallId id = client.Start("/a");
  EXPECT_EQ(client.codec().SendMessage(id, large).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_OK(client.codec().SendMessage(id, Value(std::string(900, 'x'))));
  ASSERT_OK(Exchange(client, server));
  EXPECT_EQ(server.TakeLog().back(), "message 1 903 bytes");
  EXPECT_EQ(client.counters().messages_too_large.value(), 2u);
}

TEST(NativeCodec, ReplyThatIsTooLargeBecomesAStatus) {
  CodecOptions options = Client();
  options.message_bytes_max = 1000;
  options.metadata_bytes_max = 100;
  CodecEnd client(options), server(Server());
  const Metadata large = {{"key", std::string(100, 'v')}};
  server.on_call = [&](IncomingCall& call) {
    NativeCodec& codec = server.codec();
    const auto message = Value(call.id == 1 ? std::string(1000, 'x') : "x");
    if (call.id == 5) codec.SendInitialMetadata(call.id, large);
    codec.SendReply(call.id, &message, call.id == 7 ? absl::NotFoundError("gone") : absl::OkStatus(),
                    call.id == 3 || call.id == 7 ? &large : nullptr);
  };
  const auto message = Value("x");
  for (int i = 0; i < 4; ++i) client.Start("/a", &message);
  ASSERT_OK(Exchange(client, server));
  const Lines log = client.TakeLog();
  ASSERT_THAT(log, SizeIs(4));
  EXPECT_THAT(log[0], StartsWith("end 1 RESOURCE_EXHAUSTED: message of 1003 bytes"));
  EXPECT_THAT(log[1], StartsWith("end 3 RESOURCE_EXHAUSTED: trailers of 135 bytes"));
  EXPECT_THAT(log[2], StartsWith("end 5 RESOURCE_EXHAUSTED: initial metadata of 135 bytes"));
  EXPECT_EQ(log[3], "end 7 NOT_FOUND: gone");
}

TEST(NativeCodec, EndWhoseStatusDoesNotFitAFrameKeepsItsCode) {
  CodecEnd client(Client()), server(Server());
  server.on_call = [&](IncomingCall& call) {
    server.codec().SendReply(call.id, nullptr, absl::DataLossError(std::string(100000, 'm')), nullptr);
  };
  const auto message = Value("x");
  client.Start("/a", &message);
  ASSERT_OK(Exchange(client, server));
  const Lines log = client.TakeLog();
  ASSERT_THAT(log, SizeIs(1));
  EXPECT_THAT(log[0], StartsWith("end 1 DATA_LOSS: mmm"));
  EXPECT_THAT(log[0], SizeIs(1024 + std::string("end 1 DATA_LOSS: ").size()));
}

TEST(NativeCodec, ConnectionThatHasUsedUpItsIdsOpensNoMoreCalls) {
  CodecEnd client(Client()), server(Server());
  ASSERT_OK(Exchange(client, server));
  NativeCodecTestPeer::SetNextId(client.codec(), UINT32_MAX - 2);
  NativeCodecTestPeer::SetLastPeerId(server.codec(), UINT32_MAX - 4);
  EXPECT_EQ(client.Start("/a"), UINT32_MAX - 2);
  EXPECT_EQ(client.Start("/a"), UINT32_MAX);
  EXPECT_EQ(client.TryStart("/a").status().code(), absl::StatusCode::kUnavailable);
  ASSERT_OK(Exchange(client, server));
  EXPECT_THAT(server.TakeLog(), ElementsAre("method /a", "call 4294967293 /a", "call 4294967295 /a"));
  server.codec().SendReply(UINT32_MAX, nullptr, absl::OkStatus(), nullptr);
  ASSERT_OK(Exchange(client, server));
  EXPECT_THAT(client.TakeLog(), ElementsAre("end 4294967295 OK"));
  // An id after the last is no id.
  EXPECT_THAT(server.Receive(FrameBytes().Open(1, 0, "")).message(), HasSubstr("call opened with id 1"));
}

TEST(NativeCodec, MethodsBeyondTheNumbersTravelByPath) {
  CodecOptions options = Server();
  options.calls_max = 10000;
  CodecEnd client(Client()), server(options);
  ASSERT_OK(Exchange(client, server));
  const auto message = Value("x");
  for (uint32_t i = 0; i < kMethodsMax + 2; ++i) client.Start(absl::StrCat("/m", i), &message);
  client.Start(absl::StrCat("/m", kMethodsMax), &message);
  client.Start("/m0", &message);
  const Lines frames = client.TakeFrames();
  EXPECT_EQ(frames[kMethodsMax - 1], "CALL 8191 method=4095 path=/m4095 whole: x0a0178 close");
  EXPECT_EQ(frames[kMethodsMax], "CALL 8193 path=/m4096 whole: x0a0178 close");
  EXPECT_EQ(frames[kMethodsMax + 2], "CALL 8197 path=/m4096 whole: x0a0178 close");
  EXPECT_EQ(frames[kMethodsMax + 3], "CALL 8199 method=0 whole: x0a0178 close");
}

TEST(NativeCodec, UnknownMethodKeepsItsPathWhileThereIsRoom) {
  CodecEnd server(Server());
  ASSERT_OK(server.Receive(FrameBytes().Preface().Call(1, 0, "/unknown/X", "").Call(3, 0, "", "")));
  EXPECT_THAT(server.TakeLog(), ElementsAre("method /unknown/X", "call 1 unknown '/unknown/X' complete: ''",
                                            "call 3 unknown '/unknown/X' complete: ''"));
  FrameBytes many;
  uint32_t id = 5;
  for (int i = 1; i <= 20; ++i, id += 2) {
    many.Call(id, i, absl::StrCat("/unknown/", i, "/", std::string(1000, 'p')), "");
  }
  many.Call(id, 20, "", "");
  server.on_call = [&server](IncomingCall& call) {
    server.codec().SendReply(call.id, nullptr, absl::OkStatus(), nullptr);
  };
  ASSERT_OK(server.Receive(many));
  EXPECT_EQ(server.TakeLog().back(), absl::StrCat("call ", id, " unknown '' complete: ''"));
}

TEST(NativeCodec, DeterministicMapsComeInOneOrder) {
  CodecOptions options = Client();
  options.deterministic = true;
  google::protobuf::Struct forward, backward;
  for (int i = 0; i < 50; ++i) (*forward.mutable_fields())[absl::StrCat("k", i)].set_number_value(i);
  for (int i = 49; i >= 0; --i) (*backward.mutable_fields())[absl::StrCat("k", i)].set_number_value(i);
  CodecEnd a(options), b(options);
  a.Start("/a", &forward);
  b.Start("/a", &backward);
  EXPECT_EQ(a.TakeOutput(), b.TakeOutput());
}

TEST(NativeCodec, PingIsAnsweredInOrder) {
  CodecEnd client(Client()), server(Server());
  client.codec().SendPing(1);
  client.codec().SendPing(UINT64_MAX);
  ASSERT_OK(Exchange(client, server));
  EXPECT_THAT(client.TakeLog(), ElementsAre("pong 1", "pong 18446744073709551615"));
}

TEST(NativeCodec, FramesOfALaterVersionArePassedOver) {
  CodecEnd server(Server());
  FrameBytes bytes = FrameBytes().Preface();
  for (uint8_t type = 9; type < 16; ++type) bytes.Frame(static_cast<FrameType>(type), 0xF0, 77, "later");
  bytes.Call(1, 0, "/a", "x");
  ASSERT_OK(server.Receive(bytes));
  EXPECT_EQ(server.TakeLog().back(), "call 1 /a complete: 'x'");
  EXPECT_EQ(server.counters().glitches.value(), 7u);
}

TEST(NativeCodec, FeaturesOfALaterVersionArePassedOverUnlessTheyMustBeKnown) {
  CodecEnd server(Server());
  ASSERT_OK(server.Receive(FrameBytes()
                               .Hex("f154525001000800"
                                    "0f27"
                                    "0400"
                                    "01020304")
                               .Call(1, 0, "/a", "")));
  CodecEnd strict(Server());
  EXPECT_THAT(strict
                  .Receive(FrameBytes().Hex("f154525001000400"
                                            "0180"
                                            "0000"))
                  .message(),
              HasSubstr("feature 32769 must be understood"));
}

// ---------------------------------------------------------------- what strangers send

// What a peer sends after its preface to the serving end (`to_client` false) with call 1 open, and what is said of it.
struct Offence {
  const char* name;
  FrameBytes bytes;
  const char* why;
  bool to_client = false;
  bool only_at_once = false;  // byte by byte the credit would come back in time
};

std::vector<Offence> Offences() {
  const std::string big(16384, 'x');
  FrameBytes overrun, connection_overrun;
  for (int i = 0; i < 4; ++i) overrun.Message(1, big);
  for (uint32_t id = 3; id < 50; id += 2) {
    connection_overrun.Open(id, 0, "");
    connection_overrun.Message(id, big);
  }
  const Metadata metadata = {{"k", "v"}};
  return {
      {"type 0", FrameBytes().Hex("0000000000000000"), "frame of type 0"},
      {"long frame", FrameBytes().Hex("0100010203000000"), "frame of 65537 bytes"},
      {"longest frame", FrameBytes().Hex("ffffff0203000000"), "frame of 16777215 bytes"},
      {"reused id", FrameBytes().Open(1, 0, ""), "call opened with id 1, the next is 3"},
      {"skipped id", FrameBytes().Open(5, 0, ""), "call opened with id 5, the next is 3"},
      {"other end's id", FrameBytes().Open(2, 0, ""), "call opened with id 2, the next is 3"},
      {"id 0", FrameBytes().Open(0, 0, ""), "call opened with id 0"},
      {"call without head", FrameBytes().Frame(FrameType::kCall, 0, 3, ""), "call without a head"},
      {"head flag alone", FrameBytes().Frame(FrameType::kCall, kFlagHead, 3, ""), "call without a head"},
      {"head longer than frame", FrameBytes().Frame(FrameType::kCall, kFlagHead, 3, "\x05\x08"), "call without a head"},
      {"malformed head", FrameBytes().Frame(FrameType::kCall, kFlagHead, 3, "\x01\x08"), "malformed head"},
      {"unnumbered method", FrameBytes().Open(3, 7, ""), "method 7 used before it was numbered"},
      {"method numbered again", FrameBytes().Open(3, 0, "/b"), "method numbered 0, the next is 1"},
      {"method number skipped", FrameBytes().Open(3, 2, "/b"), "method numbered 2, the next is 1"},
      {"bytes of no message", FrameBytes().Frame(FrameType::kCall, kFlagHead, 3, std::string("\x02\x08\0abc", 6)),
       "bytes of no message"},
      {"piece that opens", FrameBytes().Frame(FrameType::kCall, kFlagHead | kFlagMore, 3, std::string("\x02\x08\0", 3)),
       "bytes of no message"},
      {"call never opened", FrameBytes().Message(3, "x"), "call 3, which was never opened"},
      {"call of ours never opened", FrameBytes().Message(2, "x"), "call 2, which was never opened"},
      {"message for id 0", FrameBytes().Message(0, "x"), "call 0, which was never opened"},
      {"message with head", FrameBytes().Frame(FrameType::kMessage, kFlagHead, 1, ""), "message with a head"},
      {"call's credit", overrun, "beyond the credit of call 1"},
      {"connection's credit", connection_overrun, "beyond the connection's credit", false, true},
      {"call's credit at once", FrameBytes().Call(3, 0, "", std::string(65520, 'x')), "beyond the call's credit"},
      {"after half-close", FrameBytes().HalfClose(1).Message(1, "x"), "call 1 after its half-close"},
      {"second half-close", FrameBytes().HalfClose(1).HalfClose(1), "call 1 after its half-close"},
      {"half-close in message", FrameBytes().First(1, 100, "x").HalfClose(1), "half-close of call 1 inside a message"},
      {"half-close of a part", FrameBytes().First(1, 100, "x").Next(1, "x", false, kFlagClose),
       "half-close of call 1 where there can be none"},
      {"message in message", FrameBytes().First(1, 100, "x").Message(1, "y"), "begins inside another"},
      {"piece of nothing", FrameBytes().Next(1, "x", true), "does not fit its length"},
      {"too much", FrameBytes().First(1, 3, "x").Next(1, "xyz", true), "does not fit its length"},
      {"too little", FrameBytes().First(1, 4, "x").Next(1, "xy", true), "does not fit its length"},
      {"more than said", FrameBytes().First(1, 3, "x").Next(1, "xy", false), "does not fit its length"},
      {"no length", FrameBytes().Frame(FrameType::kMessage, kFlagBegin | kFlagMore, 1, ""), "wrong length"},
      {"length alone", FrameBytes().First(1, 100, ""), "wrong length"},
      {"length of less", FrameBytes().First(1, 2, "xyz"), "wrong length"},
      {"length of as much", FrameBytes().First(1, 3, "xyz"), "wrong length"},
      {"length beyond 64 bits",
       FrameBytes().Frame(FrameType::kMessage, kFlagBegin | kFlagMore, 1, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7fx"),
       "wrong length"},
      {"end by the caller", FrameBytes().End(1, absl::OkStatus()), "from the end that opened it"},
      {"end of a call that is over", FrameBytes().Reset(1, absl::CancelledError("")).End(1, absl::OkStatus()),
       "from the end that opened it"},
      {"metadata by the caller", FrameBytes().InitialMetadata(1, metadata), "from the end that opened the call"},
      {"malformed metadata", FrameBytes().Frame(FrameType::kMetadata, 0, 1, "\x0a\x05x"), "malformed initial metadata"},
      {"metadata with flags", FrameBytes().Frame(FrameType::kMetadata, 0x10, 1, ""), "initial metadata with flags"},
      {"malformed reset", FrameBytes().Frame(FrameType::kReset, 0, 1, "\x08"), "malformed reset"},
      {"reset with flags", FrameBytes().Frame(FrameType::kReset, 0x10, 1, ""), "malformed reset"},
      {"reset never opened", FrameBytes().Reset(9, absl::CancelledError("")), "never opened"},
      {"no credit", FrameBytes().Frame(FrameType::kCredit, 0, 0, ""), "credit of 0 bytes"},
      {"credit of 2^31", FrameBytes().Credit(0, uint32_t{1} << 31), "credit of 2147483648 bytes"},
      {"credit of 2^63", FrameBytes().Frame(FrameType::kCredit, 0, 0, "\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),
       "credit of 9223372036854775807 bytes"},
      {"connection's credit beyond 31 bits", FrameBytes().Credit(0, kCreditMax), "connection beyond 31 bits"},
      {"call's credit beyond 31 bits", FrameBytes().Credit(1, kCreditMax), "call beyond 31 bits"},
      {"malformed credit", FrameBytes().Frame(FrameType::kCredit, 0, 0, "\x08"), "malformed credit"},
      {"credit with flags", FrameBytes().Frame(FrameType::kCredit, 0x20, 0, "\x08\x01"), "malformed credit"},
      {"malformed ping", FrameBytes().Frame(FrameType::kPing, 0, 0, "\x09"), "malformed ping"},
      {"ping of a call", FrameBytes().Frame(FrameType::kPing, 0, 1, ""), "malformed ping"},
      {"ping with flags", FrameBytes().Ping(1, 0x20), "malformed ping"},
      {"malformed goaway", FrameBytes().Frame(FrameType::kGoAway, 0, 0, "\x08"), "malformed goaway"},
      {"goaway of a call", FrameBytes().Frame(FrameType::kGoAway, 0, 1, ""), "malformed goaway"},
      {"goaway that takes back", FrameBytes().GoAway(2).GoAway(4), "accepts more calls"},
      // To the calling end, with its call 1 open.
      {"end with close", FrameBytes().Frame(FrameType::kEnd, kFlagClose, 1, ""), "flags that it cannot have", true},
      {"end of a part", FrameBytes().Frame(FrameType::kEnd, kFlagBegin | kFlagMore, 1, "\x64x"),
       "flags that it cannot have", true},
      {"end with malformed head", FrameBytes().Frame(FrameType::kEnd, kFlagHead, 1, "\x02\x08"), "malformed end", true},
      {"end with bytes of no message", FrameBytes().Frame(FrameType::kEnd, 0, 1, "x"), "bytes of no message", true},
      {"end inside a message", FrameBytes().First(1, 100, "x").End(1, absl::OkStatus()), "inside a message", true},
      {"end never opened", FrameBytes().End(3, absl::OkStatus()), "never opened", true},
      {"reply beyond credit", FrameBytes().Reply(1, std::string(65530, 'x')), "beyond the credit of call 1", true},
      {"metadata twice", FrameBytes().InitialMetadata(1, metadata).InitialMetadata(1, metadata), "twice or too late",
       true},
      {"metadata after a message", FrameBytes().Message(1, "x").InitialMetadata(1, metadata), "twice or too late",
       true},
      {"half-close by the server", FrameBytes().HalfClose(1), "where there can be none", true},
      {"odd id from the serving end", FrameBytes().Open(3, 0, "/a"), "call opened with id 3, the next is 2", true},
  };
}

TEST(NativeCodec, OffencesEndTheConnectionWithAReason) {
  for (const Offence& offence : Offences()) {
    SCOPED_TRACE(offence.name);
    CodecEnd end(offence.to_client ? Client() : Server());
    end.consume = false;
    if (offence.to_client) {
      end.Start("/a");
      ASSERT_OK(end.Receive(FrameBytes().Preface()));
    } else {
      ASSERT_OK(end.Receive(FrameBytes().Preface().Open(1, 0, "/a")));
    }
    end.TakeOutput();
    const absl::Status status = end.Receive(offence.bytes);
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_THAT(std::string(status.message()), HasSubstr(offence.why));
    EXPECT_EQ(end.counters().format_errors.value(), 1u);
    // The farewell is the last thing said, whatever is asked for afterwards.
    const Lines frames = end.TakeFrames();
    ASSERT_FALSE(frames.empty());
    EXPECT_THAT(frames.back(), StartsWith("GOAWAY "));
    EXPECT_THAT(frames.back(), HasSubstr(offence.why));
    end.TakeLog();
    EXPECT_EQ(end.Receive(FrameBytes().Ping(1)), status);
    EXPECT_EQ(end.TryStart("/a").status().code(), absl::StatusCode::kUnavailable);
    EXPECT_OK(end.codec().SendMessage(1, Value("x")));
    end.codec().SendReply(1, nullptr, absl::OkStatus(), nullptr);
    end.codec().SendHalfClose(1);
    end.codec().SendPing(1);
    end.codec().SendGoAway(absl::OkStatus());
    end.codec().Consumed(1, 1 << 20);
    end.codec().ResumeCredit();
    end.codec().Reset(1, absl::CancelledError(""));
    EXPECT_THAT(end.TakeFrames(), IsEmpty());
    EXPECT_THAT(end.TakeLog(), IsEmpty());
    end.codec().Abandon(status);
    EXPECT_EQ(end.codec().open_calls(), 0u);
  }
}

TEST(NativeCodec, OffencesOneByteAtATimeAreTheSame) {
  for (const Offence& offence : Offences()) {
    SCOPED_TRACE(offence.name);
    if (offence.only_at_once) continue;
    CodecEnd end(offence.to_client ? Client() : Server());
    end.consume = false;
    if (offence.to_client) end.Start("/a");
    FrameBytes bytes = FrameBytes().Preface();
    if (!offence.to_client) bytes.Open(1, 0, "/a");
    bytes.Raw(offence.bytes.str());
    absl::Status status;
    for (const char& byte : bytes.str()) {
      status = end.Receive(absl::MakeConstSpan(&byte, 1));
      if (!status.ok()) break;
    }
    EXPECT_THAT(std::string(status.message()), HasSubstr(offence.why));
  }
}

TEST(NativeCodec, PrefaceThatIsNotOursIsRefused) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {"504f5354202f20485454502f312e310d", "magic"},
      {"f154525101000000", "magic"},
      {"f154525002000000", "version 2"},
      {"f154525001010000", "malformed preface"},
      {"f154525001000104", "malformed preface"},
      {"f154525001000300"
       "010004",
       "cut short"},
      {"f154525001000600"
       "010004000000",
       "cut short"},
      {"f154525001000600"
       "010002000000",
       "feature 1 of 2 bytes"},
      {"f154525001000800"
       "01000400"
       "ffff0000",
       "credit of 65535 bytes for a call"},
      {"f154525001000800"
       "01000400"
       "00000080",
       "credit of 2147483648 bytes for a call"},
      {"f154525001000800"
       "02000400"
       "ffff0300",
       "credit of 262143 bytes for the connection"},
      {"f154525001000800"
       "02000400"
       "ffffffff",
       "credit of 4294967295 bytes for the connection"},
      {"f154525001001000"
       "03000400"
       "01000000"
       "03000400"
       "01000000",
       "feature 3 said twice"},
  };
  for (const auto& [hex, why] : cases) {
    CodecEnd server(Server());
    EXPECT_THAT(std::string(server.Receive(FrameBytes().Hex(hex)).message()), HasSubstr(why)) << hex;
  }
}

TEST(NativeCodec, MessageBeyondTheLimitEndsTheCallAloneBeforeAnythingIsAllocated) {
  CodecOptions options = Server();
  options.message_bytes_max = 1000;
  CodecEnd server(options);
  server.TakeOutput();
  ASSERT_OK(server.Receive(FrameBytes()
                               .Preface()
                               .Call(1, 0, "/a", std::string(1001, 'x'))
                               .Open(3, 0, "")
                               .Message(3, std::string(1001, 'x'))
                               .Open(5, 0, "")
                               .First(5, uint64_t{1} << 62, "x")
                               .Next(5, "late", false)
                               .Call(7, 0, "", std::string(1000, 'x'))));
  EXPECT_EQ(server.codec().held_bytes(), 0u);
  EXPECT_THAT(server.TakeFrames(),
              ElementsAre("RESET 1 RESOURCE_EXHAUSTED: message of 1001 bytes, at most 1000 (not started)",
                          "RESET 3 RESOURCE_EXHAUSTED: message of 1001 bytes, at most 1000",
                          "RESET 5 RESOURCE_EXHAUSTED: message of 4611686018427387904 bytes, at most 1000"));
  EXPECT_THAT(server.TakeLog(),
              ElementsAre("method /a", "call 3 /a", "reset 3 RESOURCE_EXHAUSTED: message of 1001 bytes, at most 1000",
                          "call 5 /a", "reset 5 RESOURCE_EXHAUSTED: message of 4611686018427387904 bytes, at most 1000",
                          "call 7 /a complete: 1000 bytes"));
  EXPECT_EQ(server.counters().messages_too_large.value(), 3u);
}

TEST(NativeCodec, ReplyBeyondTheLimitFailsItsCallAlone) {
  CodecOptions options = Client();
  options.message_bytes_max = 1000;
  CodecEnd client(options);
  client.Start("/a");
  client.Start("/a");
  client.TakeOutput();
  ASSERT_OK(client.Receive(FrameBytes().Preface().Reply(1, std::string(1001, 'x')).First(3, 1001, "x")));
  EXPECT_THAT(client.TakeLog(), ElementsAre("end 1 RESOURCE_EXHAUSTED: message of 1001 bytes, at most 1000",
                                            "reset 3 RESOURCE_EXHAUSTED: message of 1001 bytes, at most 1000"));
  EXPECT_THAT(client.TakeFrames(), ElementsAre("RESET 3 RESOURCE_EXHAUSTED: message of 1001 bytes, at most 1000"));
}

TEST(NativeCodec, MetadataBeyondTheLimitsFailsItsCallAlone) {
  CodecOptions options;
  options.metadata_bytes_max = 100;
  options.metadata_entries_max = 2;
  CodecEnd server(options);
  server.TakeOutput();
  ASSERT_OK(server.Receive(FrameBytes()
                               .Preface()
                               .Open(1, 0, "/a", {{"k", std::string(100, 'v')}})
                               .Open(3, 0, "", {{"a", ""}, {"b", ""}, {"c", ""}})
                               .Frame(FrameType::kCall, kFlagHead, 5, std::string("\x07\x08\0\x2a\x03\x0a\x01U", 8))
                               .Open(7, 0, "", {{"a", ""}, {"b", ""}})));
  const Lines frames = server.TakeFrames();
  ASSERT_THAT(frames, SizeIs(3));
  EXPECT_THAT(frames[0], StartsWith("RESET 1 RESOURCE_EXHAUSTED: metadata is larger"));
  EXPECT_THAT(frames[1], StartsWith("RESET 3 RESOURCE_EXHAUSTED: metadata is larger"));
  EXPECT_THAT(frames[2], StartsWith("RESET 5 INTERNAL: metadata key \"U\""));
  EXPECT_THAT(server.TakeLog(), ElementsAre("method /a", "call 7 /a a= b="));
  EXPECT_EQ(server.counters().metadata_refused.value(), 3u);

  options.client = true;
  CodecEnd client(options);
  for (int i = 0; i < 3; ++i) client.Start("/a");
  ASSERT_OK(client.Receive(FrameBytes()
                               .Preface()
                               .InitialMetadata(1, {{"k", std::string(100, 'v')}})
                               .End(3, absl::OkStatus(), {{"k", std::string(100, 'v')}})
                               .End(5, absl::AbortedError("a"), {{"k", std::string(100, 'v')}})));
  const Lines log = client.TakeLog();
  ASSERT_THAT(log, SizeIs(3));
  EXPECT_THAT(log[0], StartsWith("reset 1 RESOURCE_EXHAUSTED: metadata is larger"));
  EXPECT_THAT(log[1], StartsWith("end 3 RESOURCE_EXHAUSTED: metadata is larger"));
  EXPECT_EQ(log[2], "end 5 ABORTED: a");
}

// Repeats until the connection is ended or `most` times; says how many were borne.
int Bear(CodecEnd& end, int most, const std::function<FrameBytes(int)>& make, absl::Status& status) {
  for (int i = 0; i < most; ++i) {
    status = end.Receive(make(i));
    if (!status.ok()) return i;
  }
  return most;
}

TEST(NativeCodec, FloodsEndTheConnection) {
  struct Flood {
    const char* name;
    std::function<FrameBytes(int)> make;
    int borne;
    const char* why;
    Counter WireCounters::* counter;
    bool reads = true;  // the peer reads what we say
  };
  constexpr auto kResets = &WireCounters::reset_floods, kGlitches = &WireCounters::glitch_floods;
  const std::vector<Flood> floods = {
      {"resets", [](int i) { return FrameBytes().Open(3 + 2 * i, 0, "").Reset(3 + 2 * i, absl::CancelledError("")); },
       1000, "too many calls were reset", kResets},
      {"messages too large", [](int i) { return FrameBytes().Open(3 + 2 * i, 0, "").First(3 + 2 * i, 1 << 30, "x"); },
       1000, "too many calls had to be reset", kResets},
      {"refused calls",
       [](int i) {
         return FrameBytes().Open(3 + 2 * i, 0, "", {{"a", std::string(9000, 'x')}, {"b", std::string(9000, 'x')}});
       },
       1000, "too many calls had to be refused", kResets},
      {"unknown frames", [](int) { return FrameBytes().Frame(static_cast<FrameType>(15), 0, 0, ""); }, 10000,
       "too many frames of unknown type", kGlitches},
      {"empty frames", [](int) { return FrameBytes().Frame(FrameType::kMessage, 0, 1, ""); }, 10000,
       "too many empty frames", kGlitches},
      {"needless credit", [](int) { return FrameBytes().Credit(0, 1); }, 10000, "too many needless credit", kGlitches},
      {"goaways", [](int) { return FrameBytes().GoAway(0); }, 10000, "too many goaways", kGlitches},
      {"pings", [](int) { return FrameBytes().Ping(1); }, 10000, "too many pings", kGlitches},
      {"pongs", [](int) { return FrameBytes().Ping(1, kFlagAck); }, 10000, "too many pings", kGlitches},
      {"pings whose answers are not read", [](int) { return FrameBytes().Ping(1); }, 1000,
       "pings whose answers are not read", &WireCounters::ack_floods, false},
      // One for each call that it may have open, and 5,000; of these is the connection's credit.
      {"answers that are not read", [](int i) { return FrameBytes().Call(3 + 2 * i, 0, "", "answer me"); }, 6000 - 1,
       "frames that it caused and does not read", &WireCounters::frame_floods, false},
      {"credit that is not read", [](int) { return FrameBytes().Message(1, std::string(40000, 'x')); }, 6000 * 4 / 5,
       "frames that it caused and does not read", &WireCounters::frame_floods, false},
      {"late frames",
       [](int i) {
         FrameBytes bytes;
         if (i == 0) bytes.Reset(1, absl::CancelledError(""));
         return bytes.Reset(1, absl::CancelledError(""));
       },
       // Those that could have been on their way when the call ended are not held against anyone.
       10000 + 4, "too many frames for calls that are over", kGlitches},
  };
  for (const Flood& flood : floods) {
    SCOPED_TRACE(flood.name);
    CodecOptions options = Server();
    options.ping_interval_min = absl::ZeroDuration();
    CodecEnd server(options);
    server.on_call = [&](IncomingCall& call) {
      if (call.complete) server.codec().SendReply(call.id, nullptr, absl::OkStatus(), nullptr);
    };
    ASSERT_OK(server.Receive(FrameBytes().Preface().Open(1, 0, "/a")));
    server.TakeOutput();
    absl::Status status;
    const auto make = [&](int i) {
      if (flood.reads) server.TakeOutput();
      return flood.make(i);
    };
    EXPECT_EQ(Bear(server, 20000, make, status), flood.borne);
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(std::string(status.message()), HasSubstr(flood.why));
    EXPECT_EQ((server.counters().*flood.counter).value(), 1u);
    EXPECT_THAT(Describe(server.TakeOutput()).back(), HasSubstr(flood.why));
  }
}

TEST(NativeCodec, PingsThatComeTooSoonAreStrikesAndTwoAreBorne) {
  absl::Status status;
  const auto ping = [](int i) { return FrameBytes().Ping(i); };
  {
    CodecEnd server(Server());
    ASSERT_OK(server.Receive(FrameBytes().Preface()));
    EXPECT_EQ(Bear(server, 10, ping, status), 3) << "the first is none";
    EXPECT_EQ(status, absl::ResourceExhaustedError("too many pings"));
    EXPECT_EQ(server.counters().ping_floods.value(), 1u);
    EXPECT_EQ(server.counters().pings_received.value(), 4u);
  }
  {
    CodecEnd server(Server());
    ASSERT_OK(server.Receive(FrameBytes().Preface()));
    const auto in_time = [&](int i) {
      server.codec().TimePassed(absl::Minutes(5));
      return FrameBytes().Ping(i);
    };
    EXPECT_EQ(Bear(server, 100, in_time, status), 100) << status;
  }
  {
    // While we have something to say, a peer may well ask whether we are there.
    CodecEnd server(Server());
    ASSERT_OK(server.Receive(FrameBytes().Preface().Open(1, 0, "/a")));
    const auto between_messages = [&](int i) {
      EXPECT_OK(server.codec().SendMessage(1, Value("")));
      return FrameBytes().Ping(i);
    };
    EXPECT_EQ(Bear(server, 100, between_messages, status), 100) << status;
  }
}

TEST(NativeCodec, ReplyWithoutCreditIsGivenUpWhenNothingHasGoneForTwoRounds) {
  CodecEnd server(Server());
  server.on_call = [&](IncomingCall& call) {
    const auto large = Value(std::string(100 << 10, 'x'));
    if (call.complete) server.codec().SendReply(call.id, &large, absl::OkStatus(), nullptr);
  };
  ASSERT_OK(server.Receive(FrameBytes().Preface().Call(1, 0, "/a", "").Call(3, 0, "", "").Open(5, 0, "")));
  EXPECT_EQ(server.codec().open_calls(), 3u);
  EXPECT_OK(server.codec().ExpireStalled());
  EXPECT_OK(server.codec().ExpireStalled());
  ASSERT_OK(server.Receive(FrameBytes().Credit(3, 2000)));
  server.TakeFrames();
  EXPECT_OK(server.codec().ExpireStalled());
  EXPECT_THAT(server.TakeFrames(), ElementsAre("RESET 1 RESOURCE_EXHAUSTED: the caller gives no credit for the reply"));
  EXPECT_OK(server.codec().ExpireStalled());
  EXPECT_EQ(server.codec().open_calls(), 2u) << "it had given some";
  EXPECT_OK(server.codec().ExpireStalled());
  EXPECT_EQ(server.counters().calls_stalled.value(), 2u);
  EXPECT_EQ(server.codec().open_calls(), 1u) << "that with nothing to send";
  EXPECT_EQ(server.codec().waiting_bytes(), 0u);
}

TEST(NativeCodec, BudgetsRefillWithTimeAndWithCallsThatEndWell) {
  const auto cancelled = [](int i) {
    return FrameBytes().Open(1 + 2 * i, 0, i == 0 ? "/a" : "").Reset(1 + 2 * i, absl::CancelledError(""));
  };
  absl::Status status;
  {
    CodecEnd server(Server());
    ASSERT_OK(server.Receive(FrameBytes().Preface()));
    const auto one_a_second = [&](int i) {
      server.codec().TimePassed(absl::Milliseconds(31));  // 33 a second: every 30.3 ms
      return cancelled(i);
    };
    EXPECT_EQ(Bear(server, 5000, one_a_second, status), 5000) << status;
  }
  {
    CodecEnd server(Server());
    ASSERT_OK(server.Receive(FrameBytes().Preface()));
    const auto too_often = [&](int i) {
      server.codec().TimePassed(absl::Milliseconds(15));
      return cancelled(i);
    };
    const int borne = Bear(server, 5000, too_often, status);
    EXPECT_GT(borne, 1900);
    EXPECT_LT(borne, 2100);
  }
  {
    CodecEnd server(Server());
    ASSERT_OK(server.Receive(FrameBytes().Preface()));
    server.codec().TimePassed(-absl::Hours(1));
    server.codec().TimePassed(absl::InfiniteDuration());
    const auto every_other = [&](int i) {
      server.codec().SendReply(1 + 4 * i - 4 + 2, nullptr, absl::OkStatus(), nullptr);
      return FrameBytes()
          .Open(1 + 4 * i, 0, i == 0 ? "/a" : "")
          .Reset(1 + 4 * i, absl::CancelledError(""))
          .Call(1 + 4 * i + 2, 0, "", "x");
    };
    EXPECT_EQ(Bear(server, 5000, every_other, status), 5000) << status;
  }
}

TEST(NativeCodec, FramesOnTheirWayToACallThatEndedAreNotHeldAgainstThePeer) {
  CodecEnd server(Server());
  FrameBytes bytes = FrameBytes().Preface();
  server.TakeOutput();
  ASSERT_OK(server.Receive(bytes));
  // Each call has its whole credit's worth of smallest messages on the way when it is answered.
  for (uint32_t i = 0; i < 20; ++i) {
    const uint32_t id = 1 + 2 * i;
    ASSERT_OK(server.Receive(FrameBytes().Open(id, 0, i == 0 ? "/a" : "")));
    server.codec().SendReply(id, nullptr, absl::OkStatus(), nullptr);
    FrameBytes late;
    for (int m = 0; m < 65536 / 33; ++m) late.Message(id, "x");
    ASSERT_OK(server.Receive(late));
  }
  EXPECT_EQ(server.counters().glitches.value(), 0u);
  EXPECT_EQ(server.counters().late_frames.value(), 20u * (65536 / 33));
}

TEST(NativeCodec, IncompleteFrameIsHeldAsItComesAndNotForItsAnnouncedLength) {
  CodecEnd server(Server());
  ASSERT_OK(server.Receive(FrameBytes().Preface().Hex("0000010101000000")));  // 64 KiB announced
  EXPECT_EQ(server.codec().held_bytes(), 0u);
  ASSERT_OK(server.Receive(FrameBytes().Raw("x")));
  EXPECT_LE(server.codec().held_bytes(), 1024u);
  ASSERT_OK(server.Receive(FrameBytes().Raw(std::string(5000, 'x'))));
  EXPECT_LE(server.codec().held_bytes(), 8192u);
}

TEST(NativeCodec, HoldsNoMoreThanItGrantedWhateverIsSent) {
  CodecOptions options = Server();
  options.calls_max = 50;
  CodecEnd server(options);
  server.consume = false;
  ASSERT_OK(server.Receive(FrameBytes().Preface()));
  // 50 calls that each begin a large message and never finish it.
  for (uint32_t i = 0; i < 50; ++i) {
    ASSERT_OK(server.Receive(FrameBytes().Open(1 + 2 * i, 0, i == 0 ? "/a" : "").First(1 + 2 * i, 4 << 20, "x")));
  }
  EXPECT_LE(server.codec().held_bytes(), 50u * (64 << 10));
}

}  // namespace
}  // namespace troupe::native
