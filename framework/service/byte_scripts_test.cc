// How this test works: each row of RFC 9113's table (wire/grpc/testing_scripts.h) is said to a server by a connection of
// its own, whole and byte by byte. The server ends the connections that the row says, and no others; every time the next
// connection is served, and in the end nothing is left.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "echo/v1/echo.troupe.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/sleep.h"
#include "troupe/service/session.h"
#include "troupe/service/testing_actor.h"
#include "troupe/service/testing_stranger.h"
#include "troupe/testing/in_process.h"
#include "troupe/testing/matchers.h"
#include "troupe/wire/grpc/testing_peer.h"
#include "troupe/wire/grpc/testing_scripts.h"

namespace troupe {
namespace {

using ::echo::v1::CollectRequest;
using ::echo::v1::CollectResponse;
using ::echo::v1::EchoRequest;
using ::echo::v1::EchoResponse;
using ::testing::IsEmpty;
using ::troupe::grpc_wire::ByteScript;
using ::troupe::grpc_wire::H2Bytes;
using ::troupe::internal::Script;
using ::troupe::internal::ScriptedEcho;
using ::troupe::internal::Stranger;
using ::troupe::testing::InProcess;
using ::troupe::testing::InProcessOptions;

Task<absl::Status> Echo(const EchoRequest& request, EchoResponse& response) {
  response.set_message(request.message());
  co_return absl::OkStatus();
}

Task<absl::Status> Wait(Reader<CollectRequest>) {
  co_await Sleep(absl::Hours(1));
  co_return absl::OkStatus();
}

TEST(ByteScriptsTest, AServerEndsTheConnectionsThatItMustAndServesTheNext) {
  Script script;
  script.collect = [](Reader<CollectRequest> reader, CollectResponse&, Call&) { return Wait(std::move(reader)); };
  script.echo = [](const EchoRequest& request, EchoResponse& response, Call&) { return Echo(request, response); };
  InProcessOptions options;
  options.wire = Wire::kGrpc;
  options.server.limits.calls_max = grpc_wire::kScriptCalls;
  InProcess<ScriptedEcho> service(options, std::ref(script));
  ASSERT_OK(service.Run(service.server().Start()));
  EchoRequest request;
  request.set_message("still here");
  const grpc_wire::ScriptPaths paths = {.waits = "/echo.v1.Echo/Collect", .replies = "/echo.v1.Echo/Echo"};
  for (const ByteScript& row : grpc_wire::ServerScripts(paths)) {
    for (const size_t piece : {SIZE_MAX, size_t{1}}) {
      SCOPED_TRACE(row.name);
      const std::string& bytes = row.bytes.str();
      {
        Stranger stranger(service.server());
        stranger.Send(row.before);
        service.RunUntilIdle();
        for (size_t at = 0; at < bytes.size(); at += std::min(piece, bytes.size() - at)) {
          stranger.Send(absl::MakeConstSpan(bytes).subspan(at, piece));
          if (piece == 1) service.RunUntilIdle();
        }
        service.RunUntilIdle();
        EXPECT_EQ(stranger.ended(), row.ends_connection());
        if (!stranger.ended()) {
          const size_t before = stranger.received_bytes();
          stranger.Send(H2Bytes().Ping(1));
          service.RunUntilIdle();
          EXPECT_EQ(stranger.received_bytes(), before + 17);
        }
      }
      service.Advance(absl::Seconds(1));
      EXPECT_OK(service.Run(service.stub().Echo(request)));
      service.client().Close(absl::OkStatus());
      service.Advance(absl::Seconds(1));
      ASSERT_EQ(service.server().connections(), 0u);
      ASSERT_THAT(service.TakeReports(), IsEmpty());
    }
  }
}

}  // namespace
}  // namespace troupe
