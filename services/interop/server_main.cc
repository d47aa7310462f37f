// The server of gRPC's interoperability tests.
//
//   interop_server --port=8080
//   interop_server --port=8080 --use_tls --tls_cert_file=server.pem --tls_key_file=server.key
//
// Says "listening on ADDRESS" on stdout; port 0 takes a free one. SIGTERM or SIGINT drains it.
#include <cstdint>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/usage.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "services/interop/interop_service.h"
#include "services/interop/load_report.h"
#include "troupe/async/run.h"
#include "troupe/async/task.h"
#include "troupe/base/socket_address.h"
#include "troupe/base/status_macros.h"
#include "troupe/loop/event_loop.h"
#include "troupe/net/tls_context.h"
#include "troupe/service/server.h"
#include "xds/data/orca/v3/orca_load_report.pb.h"

ABSL_FLAG(uint16_t, port, 0, "where to listen");
ABSL_FLAG(std::string, host, "127.0.0.1", "the address to listen on; \"\": all");
ABSL_FLAG(std::string, listen, "", "instead of host and port: what a server takes, also unix:PATH");
ABSL_FLAG(bool, use_tls, false, "TLS, with the two files");
ABSL_FLAG(std::string, tls_cert_file, "", "the chain of certificates, PEM");
ABSL_FLAG(std::string, tls_key_file, "", "its key, PEM");

namespace {

troupe::Task<absl::Status> Main(troupe::EventLoop& loop, const std::vector<char*>& arguments) {
  if (!arguments.empty()) co_return absl::InvalidArgumentError(absl::StrCat("unexpected argument: ", arguments[0]));
  troupe::ServerOptions options;
  options.limits = interop::InteropLimits();
  options.listen = {absl::GetFlag(FLAGS_listen)};
  if (options.listen[0].empty()) {
    options.listen[0] = absl::StrCat(absl::GetFlag(FLAGS_host), ":", absl::GetFlag(FLAGS_port));
  }
  if (absl::GetFlag(FLAGS_use_tls)) {
    troupe::TlsOptions tls;
    tls.certificates.emplace_back();
    tls.certificates.back().chain_file = absl::GetFlag(FLAGS_tls_cert_file);
    tls.certificates.back().key_file = absl::GetFlag(FLAGS_tls_key_file);
    CO_ASSIGN_OR_RETURN(options.tls, troupe::TlsContext::ForServer(tls));
  }
  xds::data::orca::v3::OrcaLoadReport load;
  troupe::Server server(loop, std::move(options));
  server.Add<interop::InteropService>(&load);
  server.Add<interop::LoadReportService>(&load);
  CO_RETURN_IF_ERROR(co_await server.Start());
  for (const troupe::SocketAddress& address : server.addresses()) {
    std::cout << "listening on " << address.ToString() << std::endl;
  }
  co_return co_await server.ServeForever();
}

}  // namespace

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("serves grpc.testing.TestService");
  return troupe::Run(argc, argv, Main);
}
