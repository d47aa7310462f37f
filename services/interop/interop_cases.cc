#include "services/interop/interop_cases.h"

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/util/message_differencer.h"
#include "grpc/testing/test.troupe.h"
#include "services/interop/load_report.h"
#include "troupe/base/monotonic_time.h"
#include "troupe/base/status_macros.h"
#include "troupe/loop/event_loop.h"
#include "troupe/rpc/compression.h"
#include "troupe/rpc/metadata.h"
#include "troupe/rpc/reply.h"
#include "xds/data/orca/v3/orca_load_report.pb.h"
#include "xds/service/orca/v3/orca.troupe.h"

namespace interop {
namespace {

using google::protobuf::util::MessageDifferencer;
using grpc::testing::Empty;
using grpc::testing::Payload;
using grpc::testing::SimpleRequest;
using grpc::testing::SimpleResponse;
using grpc::testing::StreamingInputCallRequest;
using grpc::testing::StreamingInputCallResponse;
using grpc::testing::StreamingOutputCallRequest;
using grpc::testing::StreamingOutputCallResponse;
using grpc::testing::TestServiceStub;
using grpc::testing::UnimplementedServiceStub;
using troupe::Compression;
using troupe::Metadata;
using troupe::Task;
using xds::data::orca::v3::OrcaLoadReport;
using xds::service::orca::v3::OpenRcaServiceStub;
using xds::service::orca::v3::OrcaLoadReportRequest;

constexpr int kLargeRequest = 271828, kLargeResponse = 314159;
constexpr int kRequestSizes[] = {27182, 8, 1828, 45904};
constexpr int kResponseSizes[] = {31415, 9, 2653, 58979};
constexpr absl::string_view kEchoInitial = "x-grpc-test-echo-initial";
constexpr absl::string_view kEchoTrailing = "x-grpc-test-echo-trailing-bin";
constexpr absl::string_view kTextValue = "test_initial_metadata_value";
constexpr absl::string_view kBinaryValue = "\xab\xab\xab";
constexpr absl::string_view kSpecialMessage =
    "\t\ntest with whitespace\r\nand Unicode BMP \xE2\x98\xBA and non-BMP \xF0\x9F\x98\x88\t\n";
constexpr int kConcurrentCalls = 1000;

absl::Status Wrong(absl::string_view what, absl::string_view got, absl::string_view wanted) {
  return absl::InternalError(absl::StrCat(what, ": got ", got, ", want ", wanted));
}

template <class T>
absl::Status Expect(absl::string_view what, const T& got, const T& wanted) {
  if (got == wanted) return absl::OkStatus();
  return Wrong(what, absl::StrCat(got), absl::StrCat(wanted));
}

absl::Status ExpectEnd(const absl::Status& got, absl::StatusCode code) {
  if (got.code() == code) return absl::OkStatus();
  return Wrong("the end of the call", got.ToString(), absl::StatusCodeToString(code));
}

absl::Status ExpectEnd(const absl::Status& got, absl::StatusCode code, absl::string_view message) {
  RETURN_IF_ERROR(ExpectEnd(got, code));
  if (got.message() == message) return absl::OkStatus();
  return Wrong("the message of the status", absl::CEscape(got.message()), absl::CEscape(message));
}

absl::Status ExpectPayload(const Payload& payload, int size) {
  RETURN_IF_ERROR(Expect("bytes of a payload", payload.body().size(), static_cast<size_t>(size)));
  if (payload.body().find_first_not_of('\0') == std::string::npos) return absl::OkStatus();
  return Wrong("a payload", "other bytes", "zeros");
}

Payload PayloadOf(int size) {
  Payload payload;
  payload.set_body(std::string(static_cast<size_t>(size), '\0'));
  return payload;
}

SimpleRequest UnaryOf(int request_size, int response_size) {
  SimpleRequest request;
  request.set_response_size(response_size);
  *request.mutable_payload() = PayloadOf(request_size);
  return request;
}

StreamingOutputCallRequest OutputOf(int request_size, int response_size) {
  StreamingOutputCallRequest request;
  if (response_size >= 0) request.add_response_parameters()->set_size(response_size);
  if (request_size >= 0) *request.mutable_payload() = PayloadOf(request_size);
  return request;
}

Task<absl::Status> CallLargeUnary(TestServiceStub test, int request_bytes, int response_bytes) {
  const SimpleRequest request = UnaryOf(request_bytes, response_bytes);
  const absl::StatusOr<SimpleResponse> response = co_await test.UnaryCall(request);
  CO_RETURN_IF_ERROR(response.status());
  co_return ExpectPayload(response->payload(), response_bytes);
}

// ---------------------------------------------------------------------------------------------------- the cases

Task<absl::Status> EmptyUnary(InteropContext& context) {
  TestServiceStub test(context.caller);
  const absl::StatusOr<Empty> response = co_await test.EmptyCall(Empty());
  CO_RETURN_IF_ERROR(response.status());
  co_return Expect("bytes of the answer", response->ByteSizeLong(), size_t{0});
}

Task<absl::Status> LargeUnary(InteropContext& context) {
  co_return co_await CallLargeUnary(TestServiceStub(context.caller), kLargeRequest, kLargeResponse);
}

// Both calls get the same answer, from whoever kept it.
Task<absl::Status> CacheableUnary(InteropContext& context) {
  TestServiceStub test(context.caller);
  SimpleRequest request = UnaryOf(0, 0);
  request.mutable_payload()->set_body(absl::FormatDuration(context.caller.loop().Time() - troupe::MonotonicTime()));
  Metadata metadata;
  metadata.Add("x-user-ip", "1.2.3.4");
  const absl::StatusOr<SimpleResponse> first = co_await test.CacheableUnaryCall(request, {.metadata = &metadata});
  CO_RETURN_IF_ERROR(first.status());
  const absl::StatusOr<SimpleResponse> second = co_await test.CacheableUnaryCall(request, {.metadata = &metadata});
  CO_RETURN_IF_ERROR(second.status());
  if (first->payload().body() == second->payload().body()) co_return absl::OkStatus();
  co_return Wrong("the second answer", second->payload().body(), first->payload().body());
}

// What a caller may ask of the packing of messages, of which Troupe's own wire knows nothing.
absl::Status ExpectPacked(InteropContext& context, bool packed, bool wanted) {
  return Expect("the answer was packed", packed, wanted && context.packs);
}

Task<absl::Status> ClientCompressedUnary(InteropContext& context) {
  if (!context.packs) co_return absl::OkStatus();
  TestServiceStub test(context.caller);
  SimpleRequest request = UnaryOf(kLargeRequest, kLargeResponse);
  // Whether the server looks at all.
  request.mutable_expect_compressed()->set_value(true);
  const absl::StatusOr<SimpleResponse> probe = co_await test.UnaryCall(request);
  CO_RETURN_IF_ERROR(ExpectEnd(probe.status(), absl::StatusCode::kInvalidArgument));
  const troupe::CallOptions gzip{.compression = Compression::kGzip};
  const absl::StatusOr<SimpleResponse> packed = co_await test.UnaryCall(request, gzip);
  CO_RETURN_IF_ERROR(packed.status());
  CO_RETURN_IF_ERROR(ExpectPayload(packed->payload(), kLargeResponse));
  request.mutable_expect_compressed()->set_value(false);
  const absl::StatusOr<SimpleResponse> plain = co_await test.UnaryCall(request);
  CO_RETURN_IF_ERROR(plain.status());
  co_return ExpectPayload(plain->payload(), kLargeResponse);
}

Task<absl::Status> ServerCompressedUnary(InteropContext& context) {
  TestServiceStub test(context.caller);
  for (const bool packed : {true, false}) {
    SimpleRequest request = UnaryOf(kLargeRequest, kLargeResponse);
    request.mutable_response_compressed()->set_value(packed);
    auto reply = test.UnaryCall(request);
    const absl::StatusOr<SimpleResponse> response = co_await reply;
    CO_RETURN_IF_ERROR(response.status());
    CO_RETURN_IF_ERROR(ExpectPayload(response->payload(), kLargeResponse));
    CO_RETURN_IF_ERROR(ExpectPacked(context, reply.message_compressed(), packed));
  }
  co_return absl::OkStatus();
}

Task<absl::Status> ClientCompressedStreaming(InteropContext& context) {
  if (!context.packs) co_return absl::OkStatus();
  TestServiceStub test(context.caller);
  StreamingInputCallRequest first, second;
  *first.mutable_payload() = PayloadOf(27182);
  first.mutable_expect_compressed()->set_value(true);
  *second.mutable_payload() = PayloadOf(45904);
  second.mutable_expect_compressed()->set_value(false);
  auto probe = test.StreamingInputCall();
  static_cast<void>(co_await probe.Write(first));
  const absl::StatusOr<StreamingInputCallResponse> refused = co_await probe.Finish();
  CO_RETURN_IF_ERROR(ExpectEnd(refused.status(), absl::StatusCode::kInvalidArgument));
  auto call = test.StreamingInputCall({.compression = Compression::kGzip});
  static_cast<void>(co_await call.Write(first));
  const troupe::WriteOptions as_it_is{.compress = false};
  static_cast<void>(co_await call.Write(second, as_it_is));
  const absl::StatusOr<StreamingInputCallResponse> response = co_await call.Finish();
  CO_RETURN_IF_ERROR(response.status());
  co_return Expect("the sum of the sizes", response->aggregated_payload_size(), 73086);
}

Task<absl::Status> ServerCompressedStreaming(InteropContext& context) {
  StreamingOutputCallRequest request;
  for (const bool packed : {true, false}) {
    grpc::testing::ResponseParameters& wanted = *request.add_response_parameters();
    wanted.set_size(packed ? 31415 : 92653);
    wanted.mutable_compressed()->set_value(packed);
  }
  auto call = TestServiceStub(context.caller).StreamingOutputCall(request);
  StreamingOutputCallResponse response;
  for (const bool packed : {true, false}) {
    const bool more = co_await call.Read(response);
    CO_RETURN_IF_ERROR(Expect("a message", more, true));
    CO_RETURN_IF_ERROR(ExpectPayload(response.payload(), packed ? 31415 : 92653));
    CO_RETURN_IF_ERROR(ExpectPacked(context, call.message_compressed(), packed));
  }
  const bool more = co_await call.Read(response);
  CO_RETURN_IF_ERROR(Expect("a message behind the last", more, false));
  co_return co_await call.Finish();
}

Task<absl::Status> ClientStreaming(InteropContext& context) {
  auto call = TestServiceStub(context.caller).StreamingInputCall();
  StreamingInputCallRequest request;
  int sum = 0;
  for (const int size : kRequestSizes) {
    *request.mutable_payload() = PayloadOf(size);
    sum += size;
    const bool goes_on = co_await call.Write(request);
    if (!goes_on) break;
  }
  const absl::StatusOr<StreamingInputCallResponse> response = co_await call.Finish();
  CO_RETURN_IF_ERROR(response.status());
  co_return Expect("the sum of the sizes", response->aggregated_payload_size(), sum);
}

Task<absl::Status> ServerStreaming(InteropContext& context) {
  StreamingOutputCallRequest request;
  for (const int size : kResponseSizes) request.add_response_parameters()->set_size(size);
  auto call = TestServiceStub(context.caller).StreamingOutputCall(request);
  StreamingOutputCallResponse response;
  size_t count = 0;
  while (true) {
    const bool more = co_await call.Read(response);
    if (!more) break;
    if (count == std::size(kResponseSizes)) co_return Wrong("messages", "more", "four");
    CO_RETURN_IF_ERROR(ExpectPayload(response.payload(), kResponseSizes[count++]));
  }
  CO_RETURN_IF_ERROR(co_await call.Finish());
  co_return Expect("messages", count, std::size(kResponseSizes));
}

Task<absl::Status> PingPong(InteropContext& context) {
  auto call = TestServiceStub(context.caller).FullDuplexCall();
  StreamingOutputCallResponse response;
  for (size_t i = 0; i < std::size(kRequestSizes); ++i) {
    const StreamingOutputCallRequest request = OutputOf(kRequestSizes[i], kResponseSizes[i]);
    const bool goes_on = co_await call.Write(request);
    if (!goes_on) break;
    const bool answered = co_await call.Read(response);
    if (!answered) break;
    CO_RETURN_IF_ERROR(ExpectPayload(response.payload(), kResponseSizes[i]));
  }
  call.WritesDone();
  const bool more = co_await call.Read(response);
  CO_RETURN_IF_ERROR(Expect("a message behind the last", more, false));
  co_return co_await call.Finish();
}

Task<absl::Status> EmptyStream(InteropContext& context) {
  auto call = TestServiceStub(context.caller).FullDuplexCall();
  call.WritesDone();
  StreamingOutputCallResponse response;
  const bool more = co_await call.Read(response);
  CO_RETURN_IF_ERROR(Expect("a message", more, false));
  co_return co_await call.Finish();
}

absl::Status ExpectEchoes(const Metadata& initial, const Metadata& trailers) {
  const absl::optional<absl::string_view> text = initial.Get(kEchoInitial);
  if (text != kTextValue) return Wrong(kEchoInitial, text.value_or("nothing"), kTextValue);
  const absl::optional<absl::string_view> binary = trailers.Get(kEchoTrailing);
  if (binary == kBinaryValue) return absl::OkStatus();
  return Wrong(kEchoTrailing, absl::CHexEscape(binary.value_or("nothing")), absl::CHexEscape(kBinaryValue));
}

Task<absl::Status> CustomMetadata(InteropContext& context) {
  TestServiceStub test(context.caller);
  Metadata metadata;
  metadata.Add(kEchoInitial, kTextValue);
  metadata.Add(kEchoTrailing, kBinaryValue);
  const SimpleRequest request = UnaryOf(kLargeRequest, kLargeResponse);
  auto reply = test.UnaryCall(request, {.metadata = &metadata});
  const absl::StatusOr<SimpleResponse> response = co_await reply;
  CO_RETURN_IF_ERROR(response.status());
  CO_RETURN_IF_ERROR(ExpectPayload(response->payload(), kLargeResponse));
  CO_RETURN_IF_ERROR(ExpectEchoes(reply.initial_metadata(), reply.trailers()));

  auto call = test.FullDuplexCall({.metadata = &metadata});
  const StreamingOutputCallRequest question = OutputOf(kLargeRequest, kLargeResponse);
  const bool goes_on = co_await call.Write(question);
  CO_RETURN_IF_ERROR(Expect("the stream goes on", goes_on, true));
  call.WritesDone();
  StreamingOutputCallResponse answer;
  const bool answered = co_await call.Read(answer);
  if (answered) CO_RETURN_IF_ERROR(ExpectPayload(answer.payload(), kLargeResponse));
  const bool more = co_await call.Read(answer);
  CO_RETURN_IF_ERROR(Expect("a message behind the last", more, false));
  CO_RETURN_IF_ERROR(co_await call.Finish());
  CO_RETURN_IF_ERROR(Expect("an answer", answered, true));
  co_return ExpectEchoes(call.initial_metadata(), call.trailers());
}

Task<absl::Status> EndWith(TestServiceStub test, absl::string_view message, bool stream) {
  SimpleRequest request;
  request.mutable_response_status()->set_code(2);
  request.mutable_response_status()->set_message(std::string(message));
  const absl::StatusOr<SimpleResponse> response = co_await test.UnaryCall(request);
  CO_RETURN_IF_ERROR(ExpectEnd(response.status(), absl::StatusCode::kUnknown, message));
  if (!stream) co_return absl::OkStatus();
  auto call = test.FullDuplexCall();
  StreamingOutputCallRequest question;
  *question.mutable_response_status() = request.response_status();
  co_await call.Write(question);
  call.WritesDone();
  StreamingOutputCallResponse answer;
  const bool more = co_await call.Read(answer);
  CO_RETURN_IF_ERROR(Expect("a message", more, false));
  const absl::Status end = co_await call.Finish();
  co_return ExpectEnd(end, absl::StatusCode::kUnknown, message);
}

Task<absl::Status> StatusCodeAndMessage(InteropContext& context) {
  co_return co_await EndWith(TestServiceStub(context.caller), "test status message", /*stream=*/true);
}

Task<absl::Status> SpecialStatusMessage(InteropContext& context) {
  co_return co_await EndWith(TestServiceStub(context.caller), kSpecialMessage, /*stream=*/false);
}

Task<absl::Status> UnimplementedMethod(InteropContext& context) {
  TestServiceStub test(context.caller);
  const absl::StatusOr<Empty> response = co_await test.UnimplementedCall(Empty());
  co_return ExpectEnd(response.status(), absl::StatusCode::kUnimplemented);
}

Task<absl::Status> UnimplementedService(InteropContext& context) {
  UnimplementedServiceStub nobody(context.caller);
  const absl::StatusOr<Empty> response = co_await nobody.UnimplementedCall(Empty());
  co_return ExpectEnd(response.status(), absl::StatusCode::kUnimplemented);
}

Task<absl::Status> CancelAfterBegin(InteropContext& context) {
  auto call = TestServiceStub(context.caller).StreamingInputCall();
  call.Cancel();
  const absl::StatusOr<StreamingInputCallResponse> response = co_await call.Finish();
  co_return ExpectEnd(response.status(), absl::StatusCode::kCancelled);
}

Task<absl::Status> CancelAfterFirstResponse(InteropContext& context) {
  auto call = TestServiceStub(context.caller).FullDuplexCall();
  const StreamingOutputCallRequest request = OutputOf(kRequestSizes[0], kResponseSizes[0]);
  co_await call.Write(request);
  StreamingOutputCallResponse response;
  const bool answered = co_await call.Read(response);
  CO_RETURN_IF_ERROR(Expect("an answer", answered, true));
  CO_RETURN_IF_ERROR(ExpectPayload(response.payload(), kResponseSizes[0]));
  call.Cancel();
  const absl::Status end = co_await call.Finish();
  co_return ExpectEnd(end, absl::StatusCode::kCancelled);
}

Task<absl::Status> TimeoutOnSleepingServer(InteropContext& context) {
  auto call = TestServiceStub(context.caller).FullDuplexCall({.timeout = absl::Milliseconds(1)});
  // No answer is asked for, so none is on its way when the time is over.
  const StreamingOutputCallRequest request = OutputOf(kRequestSizes[0], -1);
  co_await call.Write(request);
  StreamingOutputCallResponse response;
  const bool more = co_await call.Read(response);
  CO_RETURN_IF_ERROR(Expect("a message", more, false));
  const absl::Status end = co_await call.Finish();
  co_return ExpectEnd(end, absl::StatusCode::kDeadlineExceeded);
}

Task<absl::Status> ConcurrentLargeUnary(InteropContext& context) {
  TestServiceStub test(context.caller);
  const SimpleRequest request = UnaryOf(kLargeRequest, kLargeResponse);
  std::vector<troupe::Reply<SimpleResponse>> replies;
  for (int i = 0; i < kConcurrentCalls; ++i) replies.push_back(test.UnaryCall(request));
  for (troupe::Reply<SimpleResponse>& reply : replies) {
    const absl::StatusOr<SimpleResponse> response = co_await reply;
    CO_RETURN_IF_ERROR(response.status());
    CO_RETURN_IF_ERROR(ExpectPayload(response->payload(), kLargeResponse));
  }
  co_return absl::OkStatus();
}

grpc::testing::TestOrcaReport LoadOf(double cpu, double memory, double utilization) {
  grpc::testing::TestOrcaReport load;
  load.set_cpu_utilization(cpu);
  load.set_memory_utilization(memory);
  (*load.mutable_utilization())["util"] = utilization;
  return load;
}

// gRPC's own clients look at what their balancing policies are told; ours at what comes.
Task<absl::Status> OrcaPerRpc(InteropContext& context) {
  SimpleRequest request;
  *request.mutable_orca_per_query_report() = LoadOf(0.8210, 0.5847, 0.30499);
  (*request.mutable_orca_per_query_report()->mutable_request_cost())["cost"] = 3456.32;
  auto reply = TestServiceStub(context.caller).UnaryCall(request);
  const absl::StatusOr<SimpleResponse> response = co_await reply;
  CO_RETURN_IF_ERROR(response.status());
  const absl::optional<absl::string_view> trailer = reply.trailers().Get(kLoadReportTrailer);
  if (!trailer.has_value()) co_return Wrong(kLoadReportTrailer, "nothing", "a report");
  OrcaLoadReport got;
  const OrcaLoadReport wanted = LoadReportOf(request.orca_per_query_report());
  if (!got.ParseFromArray(trailer->data(), static_cast<int>(trailer->size()))) {
    co_return Wrong(kLoadReportTrailer, absl::CHexEscape(*trailer), wanted.ShortDebugString());
  }
  if (MessageDifferencer::Equals(got, wanted)) co_return absl::OkStatus();
  co_return Wrong("the report", got.ShortDebugString(), wanted.ShortDebugString());
}

// Until a report is the wanted one, for ten intervals.
Task<absl::Status> ReadUntil(troupe::ClientReader<OrcaLoadReport>& reports, const OrcaLoadReport& wanted) {
  OrcaLoadReport got;
  for (int i = 0; i < 10; ++i) {
    const bool more = co_await reports.Read(got);
    if (!more) {
      const absl::Status end = co_await reports.Finish();
      co_return Wrong("the reports", end.ToString(), wanted.ShortDebugString());
    }
    if (MessageDifferencer::Equals(got, wanted)) co_return absl::OkStatus();
  }
  co_return Wrong("the report", got.ShortDebugString(), wanted.ShortDebugString());
}

Task<absl::Status> OrcaOob(InteropContext& context) {
  OrcaLoadReportRequest each_second;
  each_second.mutable_report_interval()->set_seconds(1);
  auto reports = OpenRcaServiceStub(context.caller).StreamCoreMetrics(each_second);
  auto call = TestServiceStub(context.caller).FullDuplexCall();
  const grpc::testing::TestOrcaReport loads[] = {LoadOf(0.8210, 0.5847, 0.30499), LoadOf(0.29309, 0.2, 100.2039)};
  for (const grpc::testing::TestOrcaReport& load : loads) {
    StreamingOutputCallRequest request = OutputOf(-1, 1);
    *request.mutable_orca_oob_report() = load;
    const bool goes_on = co_await call.Write(request);
    CO_RETURN_IF_ERROR(Expect("the stream goes on", goes_on, true));
    StreamingOutputCallResponse response;
    const bool answered = co_await call.Read(response);
    CO_RETURN_IF_ERROR(Expect("an answer", answered, true));
    const OrcaLoadReport wanted = LoadReportOf(load);
    CO_RETURN_IF_ERROR(co_await ReadUntil(reports, wanted));
  }
  call.WritesDone();
  co_return co_await call.Finish();
}

Task<absl::Status> Soak(InteropContext& context, bool new_channels) {
  if (new_channels && context.new_channel == nullptr) {
    co_return absl::FailedPreconditionError("there is no way to make channels here");
  }
  int failures = 0;
  for (int i = 0; i < context.soak.iterations; ++i) {
    const std::unique_ptr<troupe::Channel> channel = new_channels ? context.new_channel() : nullptr;
    troupe::Caller& caller = channel != nullptr ? *channel : context.caller;
    const troupe::MonotonicTime begin = caller.loop().Time();
    absl::Status outcome =
        co_await CallLargeUnary(TestServiceStub(caller), context.soak.request_bytes, context.soak.response_bytes);
    const absl::Duration took = caller.loop().Time() - begin;
    if (outcome.ok() && took > context.soak.call_time_max) {
      outcome = Wrong("the time of a call", absl::FormatDuration(took), absl::FormatDuration(context.soak.call_time_max));
    }
    failures += !outcome.ok();
    if (context.say != nullptr) {
      context.say(absl::StrCat("soak iteration: ", i, " elapsed_ms: ", absl::ToInt64Milliseconds(took),
                               " peer: ", context.target, outcome.ok() ? " succeeded" : " failed: ",
                               outcome.message()));
    }
  }
  if (failures <= context.soak.failures_max) co_return absl::OkStatus();
  co_return Wrong("failed calls", absl::StrCat(failures), absl::StrCat("at most ", context.soak.failures_max));
}

Task<absl::Status> RpcSoak(InteropContext& context) { co_return co_await Soak(context, /*new_channels=*/false); }
Task<absl::Status> ChannelSoak(InteropContext& context) { co_return co_await Soak(context, /*new_channels=*/true); }

constexpr InteropCase kCases[] = {
    {"empty_unary", &EmptyUnary},
    {"cacheable_unary", &CacheableUnary},
    {"large_unary", &LargeUnary},
    {"client_compressed_unary", &ClientCompressedUnary},
    {"server_compressed_unary", &ServerCompressedUnary},
    {"client_streaming", &ClientStreaming},
    {"client_compressed_streaming", &ClientCompressedStreaming},
    {"server_streaming", &ServerStreaming},
    {"server_compressed_streaming", &ServerCompressedStreaming},
    {"ping_pong", &PingPong},
    {"empty_stream", &EmptyStream},
    {"custom_metadata", &CustomMetadata},
    {"status_code_and_message", &StatusCodeAndMessage},
    {"special_status_message", &SpecialStatusMessage},
    {"unimplemented_method", &UnimplementedMethod},
    {"unimplemented_service", &UnimplementedService},
    {"cancel_after_begin", &CancelAfterBegin},
    {"cancel_after_first_response", &CancelAfterFirstResponse},
    {"timeout_on_sleeping_server", &TimeoutOnSleepingServer},
    {"concurrent_large_unary", &ConcurrentLargeUnary},
    {"orca_per_rpc", &OrcaPerRpc},
    {"orca_oob", &OrcaOob},
    {"rpc_soak", &RpcSoak},
    {"channel_soak", &ChannelSoak},
};

}  // namespace

absl::Span<const InteropCase> InteropCases() { return kCases; }

const InteropCase* FindInteropCase(absl::string_view name) {
  for (const InteropCase& each : kCases) {
    if (each.name == name) return &each;
  }
  return nullptr;
}

}  // namespace interop
