// How this test works: each row of testing_scripts.h is said to a codec, whole, byte by byte, and in pieces of seven. What
// it says is compared with the row; where it goes on, it must answer a further ping and a further call, and where it ends,
// it must say so once and take nothing more.
#include <algorithm>
#include <cctype>
#include <cstddef>
#include <cstdint>
#include <map>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/wire/codec.h"
#include "troupe/wire/grpc/testing_peer.h"
#include "troupe/wire/grpc/testing_scripts.h"
#include "troupe/wire/testing_end.h"

namespace troupe::grpc_wire {

// For the names of tests that fail.
void PrintTo(const ByteScript& script, std::ostream* to) { *to << script.name; }

namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::IsEmpty;
using ::testing::StartsWith;
using wire_testing::Value;

constexpr size_t kPieces[] = {SIZE_MAX, 1, 7};

absl::Status Say(CodecEnd& end, const H2Bytes& said, size_t piece) {
  const std::string& bytes = said.str();
  for (size_t at = 0; at < bytes.size();) {
    const size_t size = std::min(piece, bytes.size() - at);
    if (absl::Status status = end.Receive(absl::MakeConstSpan(bytes).subspan(at, size)); !status.ok()) return status;
    at += size;
  }
  return absl::OkStatus();
}

std::string TestName(const ::testing::TestParamInfo<ByteScript>& info) {
  std::string name = absl::StrCat(info.index, "_");
  for (const char* c = info.param.name; *c != '\0'; ++c) {
    if (std::isalnum(static_cast<unsigned char>(*c)) != 0) {
      name.push_back(*c);
    } else if (name.back() != '_') {
      name.push_back('_');
    }
  }
  return name;
}

// ---------------------------------------------------------------- a server

class ServerConformanceTest : public ::testing::TestWithParam<ByteScript> {
 protected:
  static CodecOptions Options() {
    CodecOptions options;
    options.calls_max = kScriptCalls;
    return options;
  }
  static void Serve(CodecEnd& server, std::map<CallId, std::string>& paths) {
    server.consume = false;
    const auto answer = [&](CallId id) {
      if (absl::StartsWith(paths[id], "/wait/")) return;
      const auto message = Value("x");
      const bool with_message = absl::StartsWith(paths[id], "/reply/");
      server.codec().SendReply(id, with_message ? &message : nullptr, absl::OkStatus(), nullptr);
    };
    server.on_call = [&paths, answer](IncomingCall& call) {
      paths[call.id] = std::string(call.path);
      if (call.complete) answer(call.id);
    };
    server.on_half_close = answer;
  }
};

TEST_P(ServerConformanceTest, AnswersAsTheRfcSays) {
  const ByteScript& script = GetParam();
  for (const size_t piece : kPieces) {
    SCOPED_TRACE(piece);
    CodecEnd server(Options());
    std::map<CallId, std::string> paths;
    Serve(server, paths);
    ASSERT_TRUE(Say(server, script.before, SIZE_MAX).ok());
    server.TakeOutput();
    const absl::Status status = Say(server, script.bytes, piece);
    EXPECT_THAT(LinesOf(server.TakeFrames()), ElementsAreArray(script.answer)) << status;
    if (script.ends_connection()) {
      EXPECT_FALSE(status.ok());
      EXPECT_FALSE(server.Receive(H2Bytes().Ping(1)).ok());
      EXPECT_THAT(server.TakeFrames(), IsEmpty());
      EXPECT_EQ(server.counters().format_errors.value(), 1u);
      continue;
    }
    ASSERT_TRUE(status.ok()) << status;
    const bool full = server.codec().open_calls() == kScriptCalls;
    ASSERT_TRUE(server.Receive(H2Bytes().Ping(1).Call(101, "/a.B/C", "m")).ok());
    EXPECT_THAT(LinesOf(server.TakeFrames()),
                ElementsAre("PING ack", full ? "RST_STREAM 101 REFUSED_STREAM" : "HEADERS 101 end"));
  }
}

INSTANTIATE_TEST_SUITE_P(Rfc9113, ServerConformanceTest, ::testing::ValuesIn(ServerScripts()), TestName);

// ---------------------------------------------------------------- a client

class ClientConformanceTest : public ::testing::TestWithParam<ByteScript> {};

TEST_P(ClientConformanceTest, AnswersAsTheRfcSays) {
  const ByteScript& script = GetParam();
  for (const size_t piece : kPieces) {
    SCOPED_TRACE(piece);
    CodecOptions options;
    options.client = true;
    CodecEnd client(options);
    client.consume = false;
    const auto request = Value("r");
    ASSERT_EQ(client.Start("/a.B/C", &request), 1u);
    ASSERT_EQ(client.Start("/a.B/C"), 3u);
    ASSERT_TRUE(Say(client, script.before, SIZE_MAX).ok());
    client.TakeOutput();
    const absl::Status status = Say(client, script.bytes, piece);
    EXPECT_THAT(LinesOf(client.TakeFrames()), ElementsAreArray(script.answer)) << status;
    if (script.ends_connection()) {
      EXPECT_FALSE(status.ok());
      EXPECT_FALSE(client.Receive(H2Bytes().Ping(1)).ok());
      client.codec().Abandon(status);
      EXPECT_THAT(client.TakeFrames(), IsEmpty());
      EXPECT_EQ(client.counters().format_errors.value(), 1u);
    }
    std::vector<std::string> ends;
    for (const std::string& line : client.TakeLog()) {
      if (absl::StartsWith(line, "end 1 ") || absl::StartsWith(line, "reset 1 ")) ends.push_back(line);
    }
    if (*script.end == '\0') {
      EXPECT_THAT(ends, IsEmpty());
    } else {
      EXPECT_THAT(ends, ElementsAre(StartsWith(script.end)));
    }
    if (script.ends_connection()) continue;
    ASSERT_TRUE(status.ok()) << status;
    const absl::StatusOr<CallId> next = client.TryStart("/a.B/C", &request);
    // With no call open, nghttp2 reads nothing more of a server that goes away; and no session does.
    if (!next.ok() && client.codec().open_calls() == 0) continue;
    client.TakeOutput();
    ASSERT_TRUE(client.Receive(H2Bytes().Ping(1)).ok());
    EXPECT_THAT(LinesOf(client.TakeFrames()), ElementsAre("PING ack"));
    if (!next.ok()) {
      EXPECT_TRUE(absl::IsUnavailable(next.status())) << "the server goes away";
      continue;
    }
    const HeaderFields end = {{":status", "200"}, {"content-type", "application/grpc"}, {"grpc-status", "0"}};
    ASSERT_TRUE(client.Receive(H2Bytes().Headers(*next, end, kEndStream)).ok());
    EXPECT_EQ(client.last_line(), absl::StrCat("end ", *next, " OK"));
  }
}

INSTANTIATE_TEST_SUITE_P(Rfc9113, ClientConformanceTest, ::testing::ValuesIn(ClientScripts()), TestName);

}  // namespace
}  // namespace troupe::grpc_wire
