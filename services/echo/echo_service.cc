#include "services/echo/echo_service.h"

#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"

namespace echo::v1 {
namespace {

constexpr size_t kCollectedBytesMax = 1 << 20;

}  // namespace

using troupe::Call;
using troupe::Reader;
using troupe::Task;
using troupe::Writer;

Task<absl::Status> EchoService::Echo(const EchoRequest& request, EchoResponse& response, Call&) {
  response.set_message(request.message());
  co_return absl::OkStatus();
}

Task<absl::Status> EchoService::Expand(const ExpandRequest& request, Writer<ExpandResponse> responses, Call&) {
  if (request.count() < 0) {
    co_return absl::InvalidArgumentError(absl::StrCat("count: ", request.count(), ", want 0 or more"));
  }
  ExpandResponse response;
  response.set_message(request.message());
  for (int32_t i = 0; i < request.count(); ++i) {
    response.set_index(i);
    const bool more = co_await responses.Write(response);
    if (!more) break;
  }
  co_return absl::OkStatus();
}

Task<absl::Status> EchoService::Collect(Reader<CollectRequest> requests, CollectResponse& response, Call&) {
  CollectRequest request;
  size_t bytes = 0;
  while (true) {
    const bool more = co_await requests.Read(request);
    if (!more) break;
    bytes += request.message().size();
    if (bytes > kCollectedBytesMax) {
      co_return absl::ResourceExhaustedError(absl::StrCat("more than ", kCollectedBytesMax, " bytes to collect"));
    }
    response.add_messages(std::move(*request.mutable_message()));
  }
  co_return absl::OkStatus();
}

Task<absl::Status> EchoService::Chat(Reader<ChatRequest> requests, Writer<ChatResponse> responses, Call&) {
  ChatRequest request;
  ChatResponse response;
  while (true) {
    const bool more = co_await requests.Read(request);
    if (!more) break;
    response.set_message(std::move(*request.mutable_message()));
    const bool taken = co_await responses.Write(response);
    if (!taken) break;
  }
  co_return absl::OkStatus();
}

}  // namespace echo::v1
