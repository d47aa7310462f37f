#include "services/interop/interop_service.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "services/interop/load_report.h"
#include "troupe/async/sleep.h"
#include "troupe/base/status_macros.h"
#include "troupe/rpc/compression.h"
#include "troupe/rpc/metadata.h"

namespace interop {
namespace {

using grpc::testing::Empty;
using grpc::testing::Payload;
using grpc::testing::SimpleRequest;
using grpc::testing::SimpleResponse;
using grpc::testing::StreamingInputCallRequest;
using grpc::testing::StreamingInputCallResponse;
using grpc::testing::StreamingOutputCallRequest;
using grpc::testing::StreamingOutputCallResponse;
using troupe::Call;
using troupe::Compression;
using troupe::Reader;
using troupe::Task;
using troupe::Writer;

constexpr int32_t kPayloadBytesMax = 4 << 20;
constexpr size_t kHalfDuplexRequestsMax = 1000;
constexpr absl::string_view kEchoInitial = "x-grpc-test-echo-initial";
constexpr absl::string_view kEchoTrailing = "x-grpc-test-echo-trailing-bin";

void EchoMetadata(Call& call) {
  for (const absl::string_view value : call.metadata().GetAll(kEchoInitial)) {
    call.initial_metadata().Add(kEchoInitial, value);
  }
  for (const absl::string_view value : call.metadata().GetAll(kEchoTrailing)) call.trailers().Add(kEchoTrailing, value);
}

// OK: the request names none.
template <class Request>
absl::Status WantedStatus(const Request& request) {
  const int code = request.response_status().code();
  if (code == 0) return absl::OkStatus();
  if (code < 0 || code > 16) return absl::InvalidArgumentError(absl::StrCat("a status of code ", code));
  return absl::Status(static_cast<absl::StatusCode>(code), request.response_status().message());
}

absl::Status Fill(int32_t size, Payload& payload) {
  if (size < 0 || size > kPayloadBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat("a payload of ", size, " bytes, want 0 to ", kPayloadBytesMax));
  }
  payload.set_type(grpc::testing::COMPRESSABLE);
  payload.mutable_body()->assign(static_cast<size_t>(size), '\0');
  return absl::OkStatus();
}

// INVALID_ARGUMENT: the request says that it was packed, and was not.
template <class Request>
absl::Status CheckPacked(const Request& request, const Call& call) {
  if (!request.expect_compressed().value() || call.message_compressed()) return absl::OkStatus();
  return absl::InvalidArgumentError("the request says that it is packed, and came as it is");
}

// Before the first message of a stream: whether any of them is to be packed.
void PackIfWanted(const StreamingOutputCallRequest& request, Call& call) {
  for (const grpc::testing::ResponseParameters& wanted : request.response_parameters()) {
    if (wanted.compressed().value()) call.set_compression(Compression::kGzip);
  }
}

// Sends the messages that one request wants.
Task<absl::Status> Output(const StreamingOutputCallRequest& request, Writer<StreamingOutputCallResponse>& responses) {
  StreamingOutputCallResponse response;
  for (const grpc::testing::ResponseParameters& wanted : request.response_parameters()) {
    CO_RETURN_IF_ERROR(Fill(wanted.size(), *response.mutable_payload()));
    if (wanted.interval_us() > 0) co_await troupe::Sleep(absl::Microseconds(wanted.interval_us()));
    const troupe::WriteOptions options{.compress = wanted.compressed().value()};
    const bool more = co_await responses.Write(response, options);
    if (!more) co_return absl::CancelledError("the caller has gone");
  }
  co_return absl::OkStatus();
}

}  // namespace

troupe::ConnectionLimits InteropLimits() {
  troupe::ConnectionLimits limits;
  limits.request_bytes_max = size_t{512} << 20;
  limits.unsent_bytes_max = size_t{512} << 20;
  return limits;
}

Task<absl::Status> InteropService::EmptyCall(const Empty&, Empty&, Call& call) {
  EchoMetadata(call);
  co_return absl::OkStatus();
}

Task<absl::Status> InteropService::UnaryCall(const SimpleRequest& request, SimpleResponse& response, Call& call) {
  EchoMetadata(call);
  CO_RETURN_IF_ERROR(CheckPacked(request, call));
  if (request.has_orca_per_query_report()) {
    call.trailers().Add(kLoadReportTrailer, LoadReportOf(request.orca_per_query_report()).SerializeAsString());
  }
  CO_RETURN_IF_ERROR(WantedStatus(request));
  if (request.response_compressed().value()) call.set_compression(Compression::kGzip);
  co_return Fill(request.response_size(), *response.mutable_payload());
}

Task<absl::Status> InteropService::CacheableUnaryCall(const SimpleRequest& request, SimpleResponse& response,
                                                      Call& call) {
  call.initial_metadata().Add("cache-control", "max-age=60, public");
  co_return co_await UnaryCall(request, response, call);
}

Task<absl::Status> InteropService::StreamingOutputCall(const StreamingOutputCallRequest& request,
                                                       Writer<StreamingOutputCallResponse> responses, Call& call) {
  EchoMetadata(call);
  CO_RETURN_IF_ERROR(WantedStatus(request));
  PackIfWanted(request, call);
  co_return co_await Output(request, responses);
}

Task<absl::Status> InteropService::StreamingInputCall(Reader<StreamingInputCallRequest> requests,
                                                      StreamingInputCallResponse& response, Call& call) {
  EchoMetadata(call);
  StreamingInputCallRequest request;
  int64_t sum = 0;
  while (true) {
    const bool more = co_await requests.Read(request);
    if (!more) break;
    CO_RETURN_IF_ERROR(CheckPacked(request, call));
    sum += static_cast<int64_t>(request.payload().body().size());
  }
  if (sum > INT32_MAX) co_return absl::OutOfRangeError(absl::StrCat(sum, " bytes: the answer holds 32 bits"));
  response.set_aggregated_payload_size(static_cast<int32_t>(sum));
  co_return absl::OkStatus();
}

Task<absl::Status> InteropService::FullDuplexCall(Reader<StreamingOutputCallRequest> requests,
                                                  Writer<StreamingOutputCallResponse> responses, Call& call) {
  EchoMetadata(call);
  StreamingOutputCallRequest request;
  while (true) {
    const bool more = co_await requests.Read(request);
    if (!more) co_return absl::OkStatus();
    if (request.has_orca_oob_report()) {
      if (load_ == nullptr) co_return absl::UnimplementedError("no load reports here");
      *load_ = LoadReportOf(request.orca_oob_report());
    }
    CO_RETURN_IF_ERROR(WantedStatus(request));
    CO_RETURN_IF_ERROR(co_await Output(request, responses));
  }
}

Task<absl::Status> InteropService::HalfDuplexCall(Reader<StreamingOutputCallRequest> requests,
                                                  Writer<StreamingOutputCallResponse> responses, Call& call) {
  EchoMetadata(call);
  std::vector<StreamingOutputCallRequest> kept;
  StreamingOutputCallRequest request;
  while (true) {
    const bool more = co_await requests.Read(request);
    if (!more) break;
    if (kept.size() >= kHalfDuplexRequestsMax) {
      co_return absl::ResourceExhaustedError(absl::StrCat("more than ", kHalfDuplexRequestsMax, " requests"));
    }
    // The payload of a request says nothing, and may be large.
    request.clear_payload();
    kept.push_back(std::move(request));
  }
  for (const StreamingOutputCallRequest& each : kept) {
    CO_RETURN_IF_ERROR(WantedStatus(each));
    CO_RETURN_IF_ERROR(co_await Output(each, responses));
  }
  co_return absl::OkStatus();
}

}  // namespace interop
