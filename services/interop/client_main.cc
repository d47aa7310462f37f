// The client of gRPC's interoperability tests.
//
//   interop_client --server_port=8080 --test_case=large_unary
//   interop_client --server_port=8080 --test_case=all
//   interop_client --server_port=8080 --use_tls --ca_file=ca.pem --server_host_override=foo.test.google.fr ...
//
// One line on stdout for each case: its name, and "ok" or what went wrong. Exit code 0: all passed.
#include <cstdint>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/usage.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "services/interop/interop_cases.h"
#include "troupe/async/run.h"
#include "troupe/async/task.h"
#include "troupe/async/wait_for.h"
#include "troupe/base/status_macros.h"
#include "troupe/loop/event_loop.h"
#include "troupe/net/tls_context.h"
#include "troupe/service/channel.h"
#include "troupe/service/session.h"

ABSL_FLAG(std::string, server_host, "127.0.0.1", "where the server is");
ABSL_FLAG(uint16_t, server_port, 8080, "its port");
ABSL_FLAG(std::string, server_uri, "", "instead of host and port: a target as a Channel takes it");
ABSL_FLAG(std::string, server_host_override, "", "TLS: the name on the server's certificate");
ABSL_FLAG(std::vector<std::string>, test_case, {"large_unary"}, "names of cases, separated by commas; all");
ABSL_FLAG(bool, use_tls, false, "TLS");
ABSL_FLAG(std::string, ca_file, "", "TLS: whom to trust, PEM; \"\": the system's roots");
ABSL_FLAG(std::string, custom_credentials_type, "", "understood are \"\" and \"insecure\"");
ABSL_FLAG(bool, native_wire, false, "Troupe's own wire instead of gRPC's");
ABSL_FLAG(absl::Duration, case_timeout, absl::Minutes(2), "of one case");
ABSL_FLAG(int, soak_iterations, 10, "calls of rpc_soak and channel_soak");
ABSL_FLAG(int, soak_max_failures, 0, "so many of them may fail");
ABSL_FLAG(int, soak_per_iteration_max_acceptable_latency_ms, 1000, "a longer call has failed");
ABSL_FLAG(int, soak_request_size, 271828, "bytes");
ABSL_FLAG(int, soak_response_size, 314159, "bytes");

namespace {

using troupe::Task;

absl::StatusOr<troupe::ChannelOptions> Options() {
  troupe::ChannelOptions options;
  options.wire = absl::GetFlag(FLAGS_native_wire) ? troupe::Wire::kNative : troupe::Wire::kGrpc;
  const std::string credentials = absl::GetFlag(FLAGS_custom_credentials_type);
  if (!credentials.empty() && credentials != "insecure") {
    return absl::InvalidArgumentError(absl::StrCat("credentials of type ", credentials));
  }
  if (!absl::GetFlag(FLAGS_use_tls)) return options;
  troupe::TlsOptions tls;
  tls.roots_file = absl::GetFlag(FLAGS_ca_file);
  ASSIGN_OR_RETURN(options.tls, troupe::TlsContext::ForClient(tls));
  options.server_hostname = absl::GetFlag(FLAGS_server_host_override);
  options.authority = options.server_hostname;
  return options;
}

std::string Target() {
  const std::string uri = absl::GetFlag(FLAGS_server_uri), host = absl::GetFlag(FLAGS_server_host);
  if (!uri.empty()) return uri;
  const bool bare_ipv6 = absl::StrContains(host, ':') && !absl::StartsWith(host, "[");
  return absl::StrCat(bare_ipv6 ? absl::StrCat("[", host, "]") : host, ":", absl::GetFlag(FLAGS_server_port));
}

Task<absl::Status> WithinTime(const interop::InteropCase& each, interop::InteropContext& context) {
  Task<absl::Status> work = each.run(context);
  absl::Status outcome = co_await troupe::WaitFor(std::move(work), absl::GetFlag(FLAGS_case_timeout));
  co_return outcome;
}

Task<absl::Status> Main(troupe::EventLoop& loop, const std::vector<char*>& arguments) {
  if (!arguments.empty()) co_return absl::InvalidArgumentError(absl::StrCat("unexpected argument: ", arguments[0]));
  const absl::StatusOr<troupe::ChannelOptions> options = Options();
  CO_RETURN_IF_ERROR(options.status());
  std::vector<std::string> names = absl::GetFlag(FLAGS_test_case);
  if (names == std::vector<std::string>{"all"}) {
    names.clear();
    for (const interop::InteropCase& each : interop::InteropCases()) names.emplace_back(each.name);
  }
  troupe::Channel channel(loop, Target(), *options);
  interop::InteropContext context{channel, !absl::GetFlag(FLAGS_native_wire), Target()};
  context.soak.iterations = absl::GetFlag(FLAGS_soak_iterations);
  context.soak.failures_max = absl::GetFlag(FLAGS_soak_max_failures);
  context.soak.call_time_max = absl::Milliseconds(absl::GetFlag(FLAGS_soak_per_iteration_max_acceptable_latency_ms));
  context.soak.request_bytes = absl::GetFlag(FLAGS_soak_request_size);
  context.soak.response_bytes = absl::GetFlag(FLAGS_soak_response_size);
  context.new_channel = [&] { return std::make_unique<troupe::Channel>(loop, Target(), *options); };
  context.say = [](const std::string& line) { std::cerr << line << std::endl; };
  int failures = 0;
  for (const std::string& name : names) {
    const interop::InteropCase* const each = interop::FindInteropCase(name);
    if (each == nullptr) co_return absl::InvalidArgumentError(absl::StrCat("no case ", name));
    const absl::Status outcome = co_await WithinTime(*each, context);
    std::cout << name << " " << (outcome.ok() ? "ok" : absl::CEscape(outcome.ToString())) << std::endl;
    failures += !outcome.ok();
  }
  if (failures > 0) co_return absl::InternalError(absl::StrCat(failures, " of ", names.size(), " cases failed"));
  co_return absl::OkStatus();
}

}  // namespace

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("runs the cases of gRPC's interoperability tests against a server");
  return troupe::Run(argc, argv, Main);
}
