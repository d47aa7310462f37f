#include "services/interop/load_report.h"

#include <algorithm>
#include <utility>

#include "absl/time/time.h"
#include "troupe/async/sleep.h"
#include "troupe/rpc/until_draining.h"

namespace interop {
namespace {

using troupe::Task;
using xds::data::orca::v3::OrcaLoadReport;

constexpr absl::Duration kIntervalMin = absl::Milliseconds(100);

Task<absl::Status> Report(const OrcaLoadReport& load, absl::Duration interval, troupe::Writer<OrcaLoadReport> reports) {
  while (true) {
    const bool more = co_await reports.Write(load);
    if (!more) co_return absl::CancelledError("the caller has gone");
    co_await troupe::Sleep(interval);
  }
}

}  // namespace

OrcaLoadReport LoadReportOf(const grpc::testing::TestOrcaReport& wanted) {
  OrcaLoadReport report;
  report.set_cpu_utilization(wanted.cpu_utilization());
  report.set_mem_utilization(wanted.memory_utilization());
  *report.mutable_request_cost() = wanted.request_cost();
  *report.mutable_utilization() = wanted.utilization();
  return report;
}

Task<absl::Status> LoadReportService::StreamCoreMetrics(const xds::service::orca::v3::OrcaLoadReportRequest& request,
                                                        troupe::Writer<OrcaLoadReport> reports, troupe::Call& call) {
  const absl::Duration wanted =
      absl::Seconds(request.report_interval().seconds()) + absl::Nanoseconds(request.report_interval().nanos());
  Task<absl::Status> report = Report(load_, std::max(wanted, kIntervalMin), std::move(reports));
  co_return co_await troupe::UntilDraining(call, std::move(report));
}

}  // namespace interop
