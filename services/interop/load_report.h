// LoadReportOf, LoadReportService: what a server of the interoperability tests says of its load (ORCA): what it was told
// to say.
//
//   xds::data::orca::v3::OrcaLoadReport load;
//   server.Add<InteropService>(&load);                 // calls of it change what ...
//   server.Add<LoadReportService>(&load);              // ... is said here
//
// Threading: one loop.     Lifetime: the report outlives the actors.
#ifndef TROUPE_SERVICES_INTEROP_LOAD_REPORT_H_
#define TROUPE_SERVICES_INTEROP_LOAD_REPORT_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "grpc/testing/test.pb.h"
#include "troupe/async/task.h"
#include "troupe/rpc/call.h"
#include "troupe/rpc/stream.h"
#include "xds/data/orca/v3/orca_load_report.pb.h"
#include "xds/service/orca/v3/orca.troupe.h"

namespace interop {

// The trailer in which a call says what it has cost.
inline constexpr absl::string_view kLoadReportTrailer = "endpoint-load-metrics-bin";

xds::data::orca::v3::OrcaLoadReport LoadReportOf(const grpc::testing::TestOrcaReport& wanted);

class LoadReportService final : public xds::service::orca::v3::OpenRcaServiceActor {
 public:
  explicit LoadReportService(const xds::data::orca::v3::OrcaLoadReport* load) : load_(*load) {}

  // At most ten a second, until the caller has gone or the server drains.
  troupe::Task<absl::Status> StreamCoreMetrics(const xds::service::orca::v3::OrcaLoadReportRequest& request,
                                               troupe::Writer<xds::data::orca::v3::OrcaLoadReport> reports,
                                               troupe::Call& call) override;

 private:
  const xds::data::orca::v3::OrcaLoadReport& load_;
};

}  // namespace interop

#endif  // TROUPE_SERVICES_INTEROP_LOAD_REPORT_H_
