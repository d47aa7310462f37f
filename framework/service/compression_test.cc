// How this test works: a scripted actor behind each wire, over memory. Messages arrive the same whether they were packed
// or not; what tells is message_compressed() and the codecs' counters.
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "echo/v1/echo.troupe.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/rpc/compression.h"
#include "troupe/rpc/reply.h"
#include "troupe/rpc/stream.h"
#include "troupe/service/testing_actor.h"
#include "troupe/testing/in_process.h"
#include "troupe/testing/matchers.h"

namespace troupe {
namespace {

using ::echo::v1::CollectRequest;
using ::echo::v1::CollectResponse;
using ::echo::v1::EchoRequest;
using ::echo::v1::EchoResponse;
using ::echo::v1::ExpandRequest;
using ::echo::v1::ExpandResponse;
using ::testing::ElementsAre;
using ::troupe::testing::InProcess;
using ::troupe::testing::InProcessOptions;

using internal::Script;
using internal::ScriptedEcho;

const std::string& Zeros() {
  static const auto& zeros = *new std::string(100'000, 'z');
  return zeros;
}
EchoRequest Request(const std::string& text) {
  EchoRequest request;
  request.set_message(text);
  return request;
}

// Parameterised over the wire. Troupe's own packs nothing, and nobody notices.
class CompressionTest : public ::testing::TestWithParam<Wire> {
 protected:
  static bool packs() { return GetParam() == Wire::kGrpc; }
  InProcess<ScriptedEcho>& service() {
    if (service_ == nullptr) {
      options_.wire = GetParam();
      service_ = std::make_unique<InProcess<ScriptedEcho>>(options_, std::ref(script_));
    }
    return *service_;
  }
  // Answers with the message, packed if `compression` says so, and writes down how the request came.
  void EchoAs(std::optional<Compression> compression) {
    script_.echo = [this, compression](const EchoRequest& request, EchoResponse& response, Call& call) {
      return Answer(request, response, call, compression);
    };
  }
  Script::Status Answer(const EchoRequest& request, EchoResponse& response, Call& call,
                        std::optional<Compression> compression) {
    came_packed_.push_back(call.message_compressed());
    if (compression.has_value()) call.set_compression(*compression);
    response.set_message(request.message());
    co_return absl::OkStatus();
  }
  Script::Status CollectSizes(Reader<CollectRequest> reader, CollectResponse& response, Call& call) {
    CollectRequest request;
    while (true) {
      const bool more = co_await reader.Read(request);
      if (!more) break;
      came_packed_.push_back(call.message_compressed());
      response.add_messages(std::to_string(request.message().size()));
    }
    co_return absl::OkStatus();
  }
  // Whether the answer came packed.
  bool Echo(const std::string& text, CallOptions options = {}) {
    Reply<EchoResponse> reply = service().stub().Echo(Request(text), options);
    const absl::StatusOr<EchoResponse> got = service().Run(reply);
    EXPECT_OK(got);
    EXPECT_TRUE(got.ok() && got->message() == text);
    return reply.message_compressed();
  }

  Script script_;
  InProcessOptions options_;
  std::vector<bool> came_packed_;
  std::unique_ptr<InProcess<ScriptedEcho>> service_;
};

INSTANTIATE_TEST_SUITE_P(Wires, CompressionTest, ::testing::Values(Wire::kNative, Wire::kGrpc),
                         [](const auto& info) { return info.param == Wire::kGrpc ? "Grpc" : "Native"; });

TEST_P(CompressionTest, ARequestIsPackedWhenItsCallSaysSo) {
  EchoAs(std::nullopt);
  EXPECT_FALSE(Echo(Zeros()));
  EXPECT_FALSE(Echo(Zeros(), {.compression = Compression::kGzip}));
  EXPECT_FALSE(Echo(Zeros(), {.compression = Compression::kNone}));
  EXPECT_THAT(came_packed_, ElementsAre(false, packs(), false));
  EXPECT_EQ(service().client_counters().wire.messages_packed.value(), packs() ? 1u : 0u);
}

TEST_P(CompressionTest, AResponseIsPackedWhenItsHandlerSaysSo) {
  EchoAs(Compression::kGzip);
  EXPECT_EQ(Echo(Zeros()), packs());
  EchoAs(Compression::kNone);
  EXPECT_FALSE(Echo(Zeros()));
}

TEST_P(CompressionTest, AServerPacksByItsOptionsUnlessAHandlerSaysOtherwise) {
  options_.server.compression = Compression::kGzip;
  EchoAs(std::nullopt);
  EXPECT_EQ(Echo(Zeros()), packs());
  EchoAs(Compression::kNone);
  EXPECT_FALSE(Echo(Zeros())) << "the record of a call is used again, what it was told is not";
}

TEST_P(CompressionTest, WhatWouldNotBecomeSmallerGoesAsItIs) {
  EchoAs(Compression::kGzip);
  std::mt19937 random(1);
  std::string noise;
  for (int i = 0; i < 1000; ++i) noise.push_back(static_cast<char>('!' + random() % 94));
  for (const std::string& text : {std::string(), std::string("x"), noise.substr(0, 20)}) {
    EXPECT_FALSE(Echo(text, {.compression = Compression::kGzip}));
  }
  EXPECT_THAT(came_packed_, ElementsAre(false, false, false));
}

TEST_P(CompressionTest, EachRequestOfAStreamMayGoAsItIs) {
  script_.collect = [this](Reader<CollectRequest> reader, CollectResponse& response, Call& call) {
    return CollectSizes(reader, response, call);
  };
  const CallOptions options{.compression = Compression::kGzip};
  auto collect = service().stub().Collect(options);
  CollectRequest request;
  request.set_message(Zeros());
  EXPECT_TRUE(service().Run([&]() { return collect.Write(request); }));
  EXPECT_TRUE(service().Run([&]() { return collect.Write(request, {.compress = false}); }));
  EXPECT_TRUE(service().Run([&]() { return collect.Write(request); }));
  const absl::StatusOr<CollectResponse> got = service().Run([&]() { return collect.Finish(); });
  ASSERT_OK(got);
  EXPECT_THAT(got->messages(), ElementsAre("100000", "100000", "100000"));
  EXPECT_THAT(came_packed_, ElementsAre(packs(), false, packs()));
}

TEST_P(CompressionTest, EachResponseOfAStreamMayGoAsItIs) {
  script_.expand = [](const ExpandRequest& request, Writer<ExpandResponse> writer, Call& call) -> Script::Status {
    call.set_compression(Compression::kGzip);
    ExpandResponse response;
    response.set_message(request.message());
    for (int i = 0; i < request.count(); ++i) {
      const WriteOptions options{.compress = i != 1};
      const bool wrote = co_await writer.Write(response, options);
      if (!wrote) break;
    }
    co_return absl::OkStatus();
  };
  ExpandRequest request;
  request.set_message(Zeros());
  request.set_count(3);
  auto expand = service().stub().Expand(request);
  std::vector<bool> came;
  ExpandResponse response;
  while (service().Run([&]() { return expand.Read(response); })) {
    EXPECT_EQ(response.message(), Zeros());
    came.push_back(expand.message_compressed());
  }
  EXPECT_OK(service().Run([&]() { return expand.Finish(); }));
  EXPECT_THAT(came, ElementsAre(packs(), false, packs()));
}

TEST_P(CompressionTest, CallsThatWaitForRoomArePackedWhenTheyGo) {
  options_.server.limits.calls_max = 1;
  EchoAs(std::nullopt);
  Echo("what the server takes is known");
  came_packed_.clear();
  std::vector<Reply<EchoResponse>> replies;
  for (int i = 0; i < 200; ++i) {
    const CallOptions options{.compression = Compression::kGzip};
    replies.push_back(service().stub().Echo(Request(Zeros()), options));
  }
  for (Reply<EchoResponse>& reply : replies) EXPECT_OK(service().Run(reply));
  EXPECT_THAT(came_packed_, ::testing::Each(packs()));
  EXPECT_EQ(came_packed_.size(), 200u);
}

}  // namespace
}  // namespace troupe
