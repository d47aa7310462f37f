// How this test works: a session with all four kinds of call, metadata, statuses and packed messages is recorded between a
// real client and a real server, of either wire. Then each byte of what the client said is changed, and each prefix of it cut off, and told to a new connection of the same
// server, which ends in end of file or in a stall; and what the server said, in the same ways, to a new client. Either is
// a right answer or a clean error: every call ends, nothing is left behind, and the next connection works.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "echo/v1/echo.troupe.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/sleep.h"
#include "troupe/net/memory_transport.h"
#include "troupe/net/protocol.h"
#include "troupe/net/transport.h"
#include "troupe/rpc/compression.h"
#include "troupe/service/server.h"
#include "troupe/service/session.h"
#include "troupe/service/testing_actor.h"
#include "troupe/service/testing_stranger.h"
#include "troupe/testing/in_process.h"
#include "troupe/testing/matchers.h"

namespace troupe {
namespace {

using ::echo::v1::ChatRequest;
using ::echo::v1::ChatResponse;
using ::echo::v1::CollectRequest;
using ::echo::v1::CollectResponse;
using ::echo::v1::EchoRequest;
using ::echo::v1::EchoResponse;
using ::echo::v1::EchoStub;
using ::echo::v1::ExpandRequest;
using ::echo::v1::ExpandResponse;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::IsEmpty;
using ::testing::Not;
using ::troupe::internal::Script;
using ::troupe::internal::ScriptedEcho;
using ::troupe::internal::Stranger;
using ::troupe::testing::InProcess;
using ::troupe::testing::InProcessOptions;
using ::troupe::testing::PatientLimits;

using Status = Script::Status;

Status Echo(const EchoRequest& request, EchoResponse& response, Call& call) {
  call.initial_metadata().Add("first", "1");
  call.trailers().Add("last", "2");
  call.set_compression(request.message().size() > 100 ? Compression::kGzip : Compression::kNone);
  response.set_message(request.message());
  if (request.message() == "fail") co_return absl::NotFoundError("no such thing");
  co_return absl::OkStatus();
}
Status Expand(const ExpandRequest& request, Writer<ExpandResponse> writer) {
  ExpandResponse response;
  for (int i = 0; i < request.count() && i < 10; ++i) {
    response.set_index(i);
    const bool more = co_await writer.Write(response);
    if (!more) break;
  }
  co_return absl::OkStatus();
}
Status Collect(Reader<CollectRequest> reader, CollectResponse& response) {
  CollectRequest request;
  while (true) {
    const bool more = co_await reader.Read(request);
    if (!more) break;
    response.add_messages(request.message());
  }
  co_return absl::OkStatus();
}
Status Chat(Reader<ChatRequest> reader, Writer<ChatResponse> writer) {
  ChatRequest request;
  ChatResponse response;
  while (true) {
    const bool more = co_await reader.Read(request);
    if (!more) break;
    response.set_message("re: " + request.message());
    co_await writer.Write(response);
  }
  co_return absl::OkStatus();
}

// All calls at once, so that the answers may come in one piece; a line for each outcome.
Task<std::vector<std::string>> Talk(EchoStub echo) {
  const Metadata metadata = {{"key", "value"}, {"key-bin", std::string("\0\xff", 2)}};
  const CallOptions options = {.timeout = absl::Seconds(10), .metadata = &metadata};
  EchoRequest request;
  request.set_message("hello");
  Reply<EchoResponse> reply = echo.Echo(request, options);
  request.set_message("fail");
  Reply<EchoResponse> failing = echo.Echo(request, options);
  CallOptions packing = options;
  packing.compression = Compression::kGzip;
  request.set_message(std::string(150, 'z'));
  Reply<EchoResponse> packed = echo.Echo(request, packing);
  ExpandRequest count;
  count.set_count(3);
  auto expand = echo.Expand(count, options);
  auto collect = echo.Collect(options);
  CollectRequest part;
  part.set_message("part");
  for (int i = 0; i < 2; ++i) co_await collect.Write(part);
  auto chat = echo.Chat(options);
  ChatRequest said;
  said.set_message("said");
  for (int i = 0; i < 2; ++i) co_await chat.Write(said);
  chat.WritesDone();

  std::vector<std::string> outcomes;
  absl::StatusOr<EchoResponse> replied = co_await reply;
  outcomes.push_back(replied.ok() ? replied->message() : replied.status().ToString());
  absl::StatusOr<EchoResponse> failed = co_await failing;
  outcomes.push_back(failed.ok() ? failed->message() : failed.status().ToString());
  absl::StatusOr<EchoResponse> unpacked = co_await packed;
  outcomes.push_back(unpacked.ok() ? absl::StrCat(unpacked->message().size(), " bytes") : unpacked.status().ToString());
  ExpandResponse expanded;
  int messages = 0;
  while (true) {
    const bool more = co_await expand.Read(expanded);
    if (!more) break;
    ++messages;
  }
  const absl::Status expand_end = co_await expand.Finish();
  outcomes.push_back(absl::StrCat(messages, " messages, ", expand_end.ToString()));
  absl::StatusOr<CollectResponse> collected = co_await collect.Finish();
  outcomes.push_back(collected.ok() ? absl::StrCat(collected->messages_size(), " parts")
                                    : collected.status().ToString());
  ChatResponse heard;
  messages = 0;
  while (true) {
    const bool more = co_await chat.Read(heard);
    if (!more) break;
    ++messages;
  }
  const absl::Status chat_end = co_await chat.Finish();
  outcomes.push_back(absl::StrCat(messages, " heard, ", chat_end.ToString()));
  co_return outcomes;
}

// Between two ends: passes on what comes and writes it down.
class Relay final : public Protocol {
 public:
  explicit Relay(std::string& recorded) : recorded_(recorded) {}
  static void Join(Relay& a, Relay& b) {
    a.other_ = &b;
    b.other_ = &a;
  }
  void ConnectionMade(Transport& transport) override {
    transport_ = &transport;
    if (!other_->early_.empty()) transport.Write(other_->early_);
  }
  void DataReceived(absl::Span<const char> data) override {
    recorded_.append(data.data(), data.size());
    if (other_ == nullptr) return;
    if (other_->transport_ == nullptr) {
      early_.append(data.data(), data.size());
    } else {
      other_->transport_->Write(data);
    }
  }
  void ConnectionLost(const absl::Status&) override {
    if (other_ != nullptr) {
      other_->other_ = nullptr;
      if (other_->transport_ != nullptr) other_->transport_->Close();
    }
  }

 private:
  std::string& recorded_;
  Relay* other_ = nullptr;
  Transport* transport_ = nullptr;
  std::string early_;
};

// A server of recorded bytes: says them when the client has said something, and then ends or stalls.
class Replayer final : public Protocol {
 public:
  Replayer(std::string bytes, bool ends) : bytes_(std::move(bytes)), ends_(ends) {}
  void ConnectionMade(Transport& transport) override { transport_ = &transport; }
  void DataReceived(absl::Span<const char>) override {
    if (std::exchange(said_, true)) return;
    transport_->Write(bytes_);
    if (ends_) transport_->WriteEof();
  }

 private:
  const std::string bytes_;
  const bool ends_;
  bool said_ = false;
  Transport* transport_ = nullptr;
};

// Whether HTTP/2 could read it: whole frames, and none longer than anybody has allowed.
bool IsWholeFrames(absl::string_view bytes) {
  while (bytes.size() >= 9) {
    const auto byte = [&bytes](size_t i) { return static_cast<size_t>(static_cast<uint8_t>(bytes[i])); };
    const size_t length = byte(0) << 16 | byte(1) << 8 | byte(2);
    if (length > 16384 || bytes.size() - 9 < length) return false;
    bytes.remove_prefix(9 + length);
  }
  return bytes.empty();
}

class RecordedTest : public ::testing::TestWithParam<Wire> {
 protected:
  RecordedTest() : service_(Options(), std::ref(script_)) {
    script_.echo = &Echo;
    script_.expand = [](const ExpandRequest& request, Writer<ExpandResponse> writer, Call&) {
      return Expand(request, writer);
    };
    script_.collect = [](Reader<CollectRequest> reader, CollectResponse& response, Call&) {
      return Collect(reader, response);
    };
    script_.chat = [](Reader<ChatRequest> reader, Writer<ChatResponse> writer, Call&) { return Chat(reader, writer); };
    Record();
  }
  static InProcessOptions Options() {
    InProcessOptions options;
    options.wire = GetParam();
    options.server.limits.idle_timeout = absl::Minutes(5);
    options.server.limits.keepalive_time = absl::Hours(2);
    return options;
  }
  static SessionOptions ClientOptions() {
    SessionOptions options;
    options.limits = PatientLimits();
    options.wire = GetParam();
    options.authority = "echo.test";
    return options;
  }

  void Record() {
    EXPECT_OK(service_.Run(service_.server().Start()));
    SessionCounters counters;
    Session client(service_.loop(), Session::Role::kClient, ClientOptions(), nullptr, counters);
    auto to_client = std::make_unique<Relay>(client_said_);
    auto to_server = std::make_unique<Relay>(server_said_);
    Relay::Join(*to_client, *to_server);
    MemoryPair first = MakeMemoryPair(service_.loop(), client.MakeProtocol(), std::move(to_client));
    MemoryPair second = MakeMemoryPair(service_.loop(), std::move(to_server), service_.server().NewConnection());
    EXPECT_THAT(service_.Run(Talk(EchoStub(client))), ElementsAre("hello", "NOT_FOUND: no such thing", "150 bytes",
                                                                  "3 messages, OK", "2 parts", "2 heard, OK"));
    // As it is while the session lives: what says good-bye is not recorded.
    client_said_whole_ = client_said_;
    server_said_whole_ = server_said_;
    client.Close(absl::OkStatus());
    service_.Advance(absl::Minutes(1));
    ExpectNothingLeft("the recording");
    EXPECT_GT(client_said_whole_.size(), 300u);
    EXPECT_GT(server_said_whole_.size(), 200u);
  }

  void ExpectNothingLeft(const std::string& what) {
    ASSERT_EQ(service_.server().connections(), 0u) << what;
    ASSERT_EQ(service_.server().calls_in_flight(), 0u) << what;
    ASSERT_EQ(service_.server().memory().held(), 0) << what;
    ASSERT_THAT(service_.TakeReports(), IsEmpty()) << what;
  }

  // Bytes of a client, and then the end or nothing any more.
  void TellServer(const std::string& bytes, bool ends, const std::string& what) {
    {
      Stranger stranger(service_.server());
      stranger.Send(bytes);
      if (ends) stranger.HalfClose();
      service_.RunUntilIdle();
      // Whatever it was told, what the server says is frames.
      if (GetParam() == Wire::kGrpc) {
        ASSERT_TRUE(IsWholeFrames(stranger.received())) << what;
      } else {
        ASSERT_THAT(stranger.TakeFrames(), Each(Not(EndsWith(" malformed")))) << what;
      }
      service_.Advance(ends ? absl::Minutes(1) : absl::Minutes(7));
      if (ends) {
        ASSERT_TRUE(stranger.ended()) << what;
      }
    }
    service_.Advance(absl::Minutes(1));
    ExpectNothingLeft(what);
  }
  // Bytes of a server, to a client with its calls under way.
  void TellClient(const std::string& bytes, bool ends, const std::string& what) {
    SessionCounters counters;
    auto client =
        std::make_unique<Session>(service_.loop(), Session::Role::kClient, ClientOptions(), nullptr, counters);
    MemoryPair pair = MakeMemoryPair(service_.loop(), client->MakeProtocol(), std::make_unique<Replayer>(bytes, ends));
    const std::vector<std::string> outcomes = service_.Run(Talk(EchoStub(*client)));
    ASSERT_EQ(outcomes.size(), 6u) << what;
    client->Close(absl::OkStatus());
    service_.Advance(absl::Minutes(1));
    ASSERT_TRUE(client->ended()) << what;
    ASSERT_EQ(client->held_bytes(), 0) << what;
    ASSERT_THAT(service_.TakeReports(), IsEmpty()) << what;
  }
  void ExpectNextConnectionWorks() {
    EXPECT_THAT(service_.Run(Talk(service_.stub())), ElementsAre("hello", "NOT_FOUND: no such thing", "150 bytes",
                                                                 "3 messages, OK", "2 parts", "2 heard, OK"));
    service_.client().Close(absl::OkStatus());
    service_.Advance(absl::Minutes(1));
  }

  Script script_;
  InProcess<ScriptedEcho> service_;
  std::string client_said_, server_said_;
  std::string client_said_whole_, server_said_whole_;
};

INSTANTIATE_TEST_SUITE_P(Wires, RecordedTest, ::testing::Values(Wire::kNative, Wire::kGrpc));

TEST_P(RecordedTest, ServerBearsEveryPrefix) {
  for (size_t size = 0; size <= client_said_whole_.size() && !HasFatalFailure(); ++size) {
    for (const bool ends : {true, false}) {
      TellServer(client_said_whole_.substr(0, size), ends, absl::StrCat(size, " bytes, ", ends ? "end" : "stall"));
    }
    if (size % 50 == 0) ExpectNextConnectionWorks();
  }
  EXPECT_EQ(service_.server().counters().format_errors.value(), 0u);
}

TEST_P(RecordedTest, ServerBearsEveryByteChanged) {
  for (size_t at = 0; at < client_said_whole_.size() && !HasFatalFailure(); ++at) {
    for (const int change : {0x01, 0x10, 0x80, 0xff}) {
      std::string bytes = client_said_whole_;
      bytes[at] = static_cast<char>(bytes[at] ^ change);
      for (const bool ends : {true, false}) {
        TellServer(bytes, ends, absl::StrCat("byte ", at, " ^ ", change, ", ", ends ? "end" : "stall"));
      }
    }
    if (at % 50 == 0) ExpectNextConnectionWorks();
  }
  EXPECT_GT(service_.server().counters().format_errors.value(), 100u);
}

TEST_P(RecordedTest, ClientBearsEveryPrefix) {
  for (size_t size = 0; size <= server_said_whole_.size() && !HasFatalFailure(); ++size) {
    for (const bool ends : {true, false}) {
      TellClient(server_said_whole_.substr(0, size), ends, absl::StrCat(size, " bytes, ", ends ? "end" : "stall"));
    }
  }
  ExpectNextConnectionWorks();
}

TEST_P(RecordedTest, ClientBearsEveryByteChanged) {
  for (size_t at = 0; at < server_said_whole_.size() && !HasFatalFailure(); ++at) {
    for (const int change : {0x01, 0x10, 0x80, 0xff}) {
      std::string bytes = server_said_whole_;
      bytes[at] = static_cast<char>(bytes[at] ^ change);
      for (const bool ends : {true, false}) {
        TellClient(bytes, ends, absl::StrCat("byte ", at, " ^ ", change, ", ", ends ? "end" : "stall"));
      }
    }
  }
  ExpectNextConnectionWorks();
}

}  // namespace
}  // namespace troupe
