// How this test works: random calls, each made to our server and to gRPC C++'s, programs of their own, and what came of
// them compared: every message, the metadata that came back, the status. What a call does follows from the seed and its
// number alone; a failure names both.
//
//   bazel run --config=clang-O2 //testing/interop:random_calls_test -- --calls=10000 --seed=7
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "grpc/testing/test.troupe.h"
#include "gtest/gtest.h"
#include "services/testing/child_process.h"
#include "troupe/async/task.h"
#include "troupe/loop/event_loop.h"
#include "troupe/os/posix_os.h"
#include "troupe/rpc/metadata.h"
#include "troupe/rpc/reply.h"
#include "troupe/service/channel.h"
#include "troupe/service/session.h"

ABSL_FLAG(int, calls, 1000, "how many");
ABSL_FLAG(uint32_t, seed, 1, "of the calls");

namespace interop {
namespace {

using grpc::testing::Empty;
using grpc::testing::SimpleRequest;
using grpc::testing::SimpleResponse;
using grpc::testing::StreamingInputCallRequest;
using grpc::testing::StreamingInputCallResponse;
using grpc::testing::StreamingOutputCallRequest;
using grpc::testing::StreamingOutputCallResponse;
using grpc::testing::TestServiceStub;
using grpc::testing::UnimplementedServiceStub;
using troupe::CallOptions;
using troupe::Metadata;
using troupe::Task;

constexpr absl::string_view kEchoInitial = "x-grpc-test-echo-initial";
constexpr absl::string_view kEchoTrailing = "x-grpc-test-echo-trailing-bin";
constexpr int kTogether = 16;
constexpr int32_t kLongPauseUs = 1'000'000'000;

enum class Kind { kEmpty, kUnary, kInput, kOutput, kDuplex, kHalfDuplex, kNoMethod, kNoService };
enum class End { kByItself, kDeadline, kPastDeadline, kCancelAtOnce, kCancelAfterAnswers };

// What one call does.
struct Plan {
  Kind kind;
  End end;
  std::vector<int> request_sizes;
  std::vector<std::vector<int>> response_sizes;  // for each request
  int code = 0;
  std::string message;
  Metadata metadata;
};

class Planner {
 public:
  Planner(uint32_t seed, int number) : random_({seed, static_cast<uint32_t>(number)}), engine_(random_) {}

  Plan Next() {
    Plan plan;
    plan.kind = static_cast<Kind>(Below(8));
    plan.end = Below(4) == 0 ? static_cast<End>(Below(5)) : End::kByItself;
    const bool streams = plan.kind == Kind::kInput || plan.kind == Kind::kDuplex || plan.kind == Kind::kHalfDuplex;
    const size_t requests = streams ? Below(6) : 1;
    for (size_t i = 0; i < requests; ++i) {
      plan.request_sizes.push_back(Size());
      plan.response_sizes.emplace_back();
      const size_t responses = plan.kind == Kind::kUnary ? 1 : Below(4);
      for (size_t j = 0; j < responses; ++j) plan.response_sizes.back().push_back(Size());
    }
    if (Below(3) == 0) {
      plan.code = 1 + static_cast<int>(Below(16));
      plan.message = Text();
    }
    for (size_t i = Below(4); i > 0; --i) plan.metadata.Add(kEchoInitial, Printable());
    for (size_t i = Below(4); i > 0; --i) plan.metadata.Add(kEchoTrailing, Bytes());
    for (size_t i = Below(3); i > 0; --i) plan.metadata.Add(absl::StrCat("x-other-", Below(3)), Printable());
    return plan;
  }

 private:
  size_t Below(size_t bound) { return std::uniform_int_distribution<size_t>(0, bound - 1)(engine_); }
  // Mostly small, some over a frame, a window, a megabyte.
  int Size() {
    const size_t magnitude = Below(Below(20) == 0 ? 21 : 16);
    return static_cast<int>(Below((size_t{1} << magnitude) + 1));
  }
  std::string Printable() {
    std::string text(Below(60), ' ');
    for (char& each : text) each = static_cast<char>('!' + Below(94));
    return text;
  }
  std::string Bytes() {
    std::string bytes(Below(60), ' ');
    for (char& each : bytes) each = static_cast<char>(Below(256));
    return bytes;
  }
  std::string Text() {
    std::string text;
    for (size_t i = Below(12); i > 0; --i) {
      const char* const pieces[] = {"a",   " ",            "\t",               "\r\n", "%",
                                    "%41", "\xE2\x98\xBA", "\xF0\x9F\x98\x88", "\x7f", "~"};
      text += pieces[Below(std::size(pieces))];
    }
    return text;
  }

  std::seed_seq random_;
  std::mt19937 engine_;
};

// Everything that a caller can see.
struct Outcome {
  std::vector<size_t> sizes;
  absl::Status status;
  std::vector<std::string> initial, trailing;

  std::string ToString() const {
    std::string text = absl::StrCat(absl::StatusCodeToString(status.code()), " \"", absl::CHexEscape(status.message()),
                                    "\"; messages:");
    for (const size_t size : sizes) absl::StrAppend(&text, " ", size);
    absl::StrAppend(&text, "; initial:");
    for (const std::string& value : initial) absl::StrAppend(&text, " ", value);
    absl::StrAppend(&text, "; trailing:");
    for (const std::string& value : trailing) absl::StrAppend(&text, " ", absl::CHexEscape(value));
    return text;
  }
};

void SetPayload(int size, grpc::testing::Payload& payload) {
  payload.set_body(std::string(static_cast<size_t>(size), '\0'));
}

StreamingOutputCallRequest OutputRequest(const Plan& plan, size_t index) {
  StreamingOutputCallRequest request;
  SetPayload(plan.request_sizes[index], *request.mutable_payload());
  for (const int size : plan.response_sizes[index]) request.add_response_parameters()->set_size(size);
  // Its last answer comes when nobody waits for it any more: whether an end or who gives up is first would be chance.
  const bool is_given_up =
      plan.end == End::kDeadline || (plan.end == End::kCancelAfterAnswers && !plan.response_sizes[index].empty());
  if (is_given_up) {
    request.add_response_parameters()->set_interval_us(kLongPauseUs);
  } else if (plan.code != 0 && plan.kind != Kind::kHalfDuplex && index + 1 == plan.request_sizes.size()) {
    request.mutable_response_status()->set_code(plan.code);
    request.mutable_response_status()->set_message(plan.message);
  }
  return request;
}

template <class Handle>
void NoteMetadata(const Handle& call, Outcome& outcome) {
  for (const absl::string_view value : call.initial_metadata().GetAll(kEchoInitial)) {
    outcome.initial.emplace_back(value);
  }
  for (const absl::string_view value : call.trailers().GetAll(kEchoTrailing)) outcome.trailing.emplace_back(value);
}

template <class Reply>
Task<Outcome> Unary(Reply reply) {
  Outcome outcome;
  auto response = co_await reply;
  outcome.status = response.status();
  if (response.ok()) outcome.sizes.push_back(response->ByteSizeLong());
  NoteMetadata(reply, outcome);
  co_return outcome;
}

Task<Outcome> Input(TestServiceStub test, const Plan& plan, CallOptions options) {
  Outcome outcome;
  auto call = test.StreamingInputCall(options);
  if (plan.end == End::kCancelAtOnce) call.Cancel();
  StreamingInputCallRequest request;
  for (const int size : plan.request_sizes) {
    SetPayload(size, *request.mutable_payload());
    const bool goes_on = co_await call.Write(request);
    if (!goes_on) break;
  }
  const absl::StatusOr<StreamingInputCallResponse> response = co_await call.Finish();
  outcome.status = response.status();
  if (response.ok()) outcome.sizes.push_back(static_cast<size_t>(response->aggregated_payload_size()));
  NoteMetadata(call, outcome);
  co_return outcome;
}

// Reads up to `count` answers; a call that is to be cancelled is so behind its first.
template <class Call>
Task<void> Read(Call& call, const Plan& plan, size_t count, Outcome& outcome) {
  StreamingOutputCallResponse response;
  for (size_t i = 0; i < count; ++i) {
    const bool more = co_await call.Read(response);
    if (!more) break;
    outcome.sizes.push_back(response.payload().body().size());
    if (plan.end == End::kCancelAfterAnswers) {
      call.Cancel();
      break;
    }
  }
}

Task<Outcome> Output(TestServiceStub test, const Plan& plan, CallOptions options) {
  Outcome outcome;
  const StreamingOutputCallRequest request = OutputRequest(plan, 0);
  auto call = test.StreamingOutputCall(request, options);
  if (plan.end == End::kCancelAtOnce) call.Cancel();
  co_await Read(call, plan, SIZE_MAX, outcome);
  outcome.status = co_await call.Finish();
  NoteMetadata(call, outcome);
  co_return outcome;
}

Task<Outcome> Duplex(TestServiceStub test, const Plan& plan, CallOptions options) {
  Outcome outcome;
  auto call = plan.kind == Kind::kDuplex ? test.FullDuplexCall(options) : test.HalfDuplexCall(options);
  if (plan.end == End::kCancelAtOnce) call.Cancel();
  for (size_t i = 0; i < plan.request_sizes.size(); ++i) {
    const StreamingOutputCallRequest request = OutputRequest(plan, i);
    const bool goes_on = co_await call.Write(request);
    if (!goes_on) break;
    // Who only writes would wait for a server that waits for who reads.
    if (plan.kind == Kind::kDuplex) co_await Read(call, plan, plan.response_sizes[i].size(), outcome);
  }
  call.WritesDone();
  co_await Read(call, plan, SIZE_MAX, outcome);
  outcome.status = co_await call.Finish();
  NoteMetadata(call, outcome);
  co_return outcome;
}

Task<Outcome> Make(troupe::Channel& channel, const Plan& plan) {
  TestServiceStub test(channel);
  CallOptions options{.metadata = &plan.metadata};
  if (plan.end == End::kPastDeadline) options.timeout = absl::ZeroDuration();
  // Only what waits for something can be sure to see its deadline pass.
  const bool streams = plan.kind == Kind::kOutput || plan.kind == Kind::kDuplex || plan.kind == Kind::kHalfDuplex;
  const bool waits = streams && !plan.request_sizes.empty();
  if (plan.end == End::kDeadline && waits) options.timeout = absl::Milliseconds(20);
  switch (plan.kind) {
    case Kind::kEmpty:
      return Unary(test.EmptyCall(Empty(), options));
    case Kind::kUnary: {
      SimpleRequest request;
      SetPayload(plan.request_sizes[0], *request.mutable_payload());
      request.set_response_size(plan.response_sizes[0][0]);
      if (plan.code != 0) {
        request.mutable_response_status()->set_code(plan.code);
        request.mutable_response_status()->set_message(plan.message);
      }
      return Unary(test.UnaryCall(request, options));
    }
    case Kind::kInput:
      return Input(test, plan, options);
    case Kind::kOutput:
      return Output(test, plan, options);
    case Kind::kDuplex:
    case Kind::kHalfDuplex:
      return Duplex(test, plan, options);
    case Kind::kNoMethod:
      return Unary(test.UnimplementedCall(Empty(), options));
    case Kind::kNoService:
      break;
  }
  return Unary(UnimplementedServiceStub(channel).UnimplementedCall(Empty(), options));
}

// A call that is given up says of its answers only that it was: how many had come by then is chance.
void Simplify(const Plan& plan, Outcome& outcome) {
  const bool nobody_there = plan.kind == Kind::kNoMethod || plan.kind == Kind::kNoService;
  // Each has words of its own for that.
  if (nobody_there && absl::IsUnimplemented(outcome.status)) outcome.status = absl::UnimplementedError("");
  if (plan.end == End::kByItself) return;
  const bool given_up = absl::IsCancelled(outcome.status) || absl::IsDeadlineExceeded(outcome.status);
  if (given_up) outcome = {{}, absl::Status(outcome.status.code(), ""), {}, {}};
}

class RandomCalls : public ::testing::Test {
 protected:
  static std::string Address(services::ChildProcess& server) {
    const std::string line = server.ReadLine();
    EXPECT_THAT(line, ::testing::StartsWith("listening on ")) << server.errors();
    return std::string(absl::StripPrefix(line, "listening on "));
  }
  ~RandomCalls() override { loop_.Close(); }

  troupe::EventLoop loop_{troupe::PosixOs::Get()};
  services::ChildProcess ours_{{services::Runfile("services/interop/interop_server"), "--port=0"}};
  services::ChildProcess theirs_{{services::Runfile("testing/interop/cpp_peer"), "server", "--port=0", "--forever"}};
};

TEST_F(RandomCalls, ComeToTheSameWithBothServers) {
  const troupe::ChannelOptions options{.wire = troupe::Wire::kGrpc};
  troupe::Channel ours(loop_, Address(ours_), options), theirs(loop_, Address(theirs_), options);
  const int calls = absl::GetFlag(FLAGS_calls);
  const uint32_t seed = absl::GetFlag(FLAGS_seed);
  std::vector<int> ends(17);
  for (int begin = 0; begin < calls; begin += kTogether) {
    std::vector<Plan> plans;
    for (int i = begin; i < std::min(calls, begin + kTogether); ++i) plans.push_back(Planner(seed, i).Next());
    std::vector<troupe::TaskHandle<Outcome>> by_us, by_them;
    for (const Plan& plan : plans) {
      by_us.push_back(loop_.CreateTask(Make(ours, plan), "ours"));
      by_them.push_back(loop_.CreateTask(Make(theirs, plan), "theirs"));
    }
    for (size_t i = 0; i < plans.size(); ++i) {
      Outcome us = loop_.RunUntilComplete(by_us[i]), them = loop_.RunUntilComplete(by_them[i]);
      Simplify(plans[i], us);
      Simplify(plans[i], them);
      ++ends[static_cast<size_t>(us.status.raw_code())];
      ASSERT_EQ(us.ToString(), them.ToString())
          << "call " << begin + static_cast<int>(i) << " of seed " << seed << ", of kind "
          << static_cast<int>(plans[i].kind) << " that ends as " << static_cast<int>(plans[i].end);
    }
  }
  EXPECT_EQ(ours.connections_made(), 1u);
  EXPECT_EQ(theirs.connections_made(), 1u);
  for (size_t code = 0; calls >= 1000 && code < ends.size(); ++code) {
    EXPECT_GT(ends[code], 0) << "no call with status " << code;
  }
}

}  // namespace
}  // namespace interop

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  absl::ParseCommandLine(argc, argv);
  return RUN_ALL_TESTS();
}
