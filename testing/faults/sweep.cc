#include "troupe/testing/faults/sweep.h"

#include <string.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "troupe/os/os_errors.h"

namespace troupe::testing {
namespace {

constexpr int kFailuresMax = 5;
constexpr absl::Duration kShortage = absl::Seconds(3);
constexpr absl::Duration kPause = absl::Milliseconds(500);
// What the exception handler may be told of because of the environment.
constexpr absl::string_view kExpectedReport = "socket.accept() out of system resource";

std::unique_ptr<Stage> RunOnce(const Scenario& scenario, const std::optional<Fault>& fault) {
  auto stage = std::make_unique<Stage>(fault);
  try {
    scenario.run(*stage);
    stage->Finish();
  } catch (const std::exception& error) {
    stage->Broken(error.what());
  }
  for (const std::string& report : stage->reports()) {
    if (!absl::StartsWith(report, kExpectedReport)) stage->Broken(absl::StrCat("reported: ", report));
  }
  return stage;
}

constexpr const char* kEnd = "end-of-file";

std::string FaultName(const Fault& fault) {
  return fault.is_short ? "one byte" : fault.is_end ? kEnd : ErrnoName(fault.error);
}

std::string Describe(const Fault& fault) {
  return absl::StrCat(fault.host, " ", fault.operation, " #", fault.call, " ", FaultName(fault));
}

std::string Outcome(const Stage& clean, const Stage& run, const Fault& fault) {
  if (!run.broken().empty()) return "BROKEN";
  const char* const report = run.reports().empty() ? "" : "+report";
  const auto refused = [](const auto& answer) { return !answer.second.ok(); };
  if (run.AnyLostByError() && !clean.AnyLostByError()) return absl::StrCat("lost", report);
  if (std::count_if(run.answers().begin(), run.answers().end(), refused) >
      std::count_if(clean.answers().begin(), clean.answers().end(), refused)) {
    return absl::StrCat("refused", report);
  }
  if (run.Summary() != clean.Summary()) return absl::StrCat("otherwise", report);
  if (run.took() >= clean.took() + kPause) return absl::StrCat("paused", report);
  if (run.CallsOf(fault.host, fault.operation) > clean.CallsOf(fault.host, fault.operation)) {
    return absl::StrCat("retried", report);
  }
  return absl::StrCat("unnoticed", report);
}

std::string Joined(const std::vector<std::string>& lines) { return absl::StrJoin(lines, "\n  "); }

// The errors of one site, by outcome.
std::string Row(std::vector<FaultOutcome>::const_iterator begin, std::vector<FaultOutcome>::const_iterator end) {
  std::vector<std::pair<std::string, std::vector<std::string>>> groups;
  for (auto cell = begin; cell != end; ++cell) {
    auto group = std::find_if(groups.begin(), groups.end(), [&](const auto& g) { return g.first == cell->outcome; });
    if (group == groups.end()) group = groups.insert(group, {cell->outcome, {}});
    group->second.push_back(FaultName(cell->fault));
  }
  return absl::StrJoin(groups, "; ", [](std::string* out, const auto& group) {
    absl::StrAppend(out, group.first, " ", absl::StrJoin(group.second, " "));
  });
}

bool CanEnd(absl::string_view operation) { return operation == "Recv" || operation == "Read"; }

std::vector<Fault> EachError(absl::string_view operation) {
  std::vector<Fault> faults;
  for (const int error : OsErrorsOf(operation)) faults.emplace_back().error = error;
  return faults;
}

std::vector<Fault> EachErrorAndTheEnd(absl::string_view operation) {
  std::vector<Fault> faults = EachError(operation);
  if (CanEnd(operation)) faults.emplace_back().is_end = true;
  return faults;
}

std::vector<Fault> EachShortage(absl::string_view operation) {
  std::vector<Fault> faults;
  for (Fault& fault : EachError(operation)) {
    if (fault.error != EMFILE && fault.error != ENFILE && fault.error != ENOBUFS && fault.error != ENOMEM) continue;
    fault.lasting = kShortage;
    faults.push_back(std::move(fault));
  }
  return faults;
}

std::vector<Fault> OneByte(absl::string_view operation) {
  std::vector<Fault> faults;
  for (const absl::string_view moves : {"Recv", "Send", "Read", "Write", "SendFile"}) {
    if (operation == moves) faults.emplace_back().is_short = true;
  }
  return faults;
}

// What to try with the calls of an operation, but for its place.
using FaultsOf = std::vector<Fault> (*)(absl::string_view operation);

FaultTable SweepFaults(const Scenario& scenario, absl::string_view suffix, FaultsOf faults_of) {
  FaultTable table(absl::StrCat(scenario.name, suffix));
  const std::unique_ptr<Stage> clean = RunOnce(scenario, std::nullopt);
  if (!clean->broken().empty()) {
    ADD_FAILURE() << scenario.name << ", without a fault:\n  " << Joined(clean->broken());
    return table;
  }
  int failures = 0;
  for (const std::string host : {"server", "client"}) {
    for (const auto& [operation, calls] : clean->Calls(host)) {
      std::vector<Fault> faults = faults_of(operation);
      bool came = !faults.empty();
      for (int call = 1; came; ++call) {
        for (Fault& fault : faults) {
          fault.host = host;
          fault.operation = operation;
          fault.call = call;
          const std::unique_ptr<Stage> run = RunOnce(scenario, fault);
          came = run->injected();
          if (!came) {
            EXPECT_EQ(call, calls + 1) << scenario.name << ": what precedes a fault depends on it: " << operation;
            break;
          }
          std::string outcome = Outcome(*clean, *run, fault);
          // Whether an abort finds something unread, which resets the connection, is a matter of luck.
          const bool expected = outcome == "unnoticed" || outcome == "retried" || scenario.name == "abort";
          if (run->broken().empty() && fault.is_short && !expected) {
            run->Broken(absl::StrCat("a short call was noticed: ", outcome));
            outcome = "BROKEN";
          }
          table.Add(fault, std::move(outcome));
          if (run->broken().empty()) continue;
          ADD_FAILURE() << table.scenario() << ", " << Describe(fault) << ":\n  " << Joined(run->broken());
          if (++failures >= kFailuresMax) return table;
        }
      }
    }
  }
  return table;
}

}  // namespace

std::string ErrnoName(int error) {
  const char* const name = strerrorname_np(error);
  return name != nullptr ? name : absl::StrCat(error);
}

std::string FaultTable::ToString() const {
  struct SiteRow {
    std::string operation;
    int first, last;
    std::string row;
  };
  std::vector<SiteRow> rows;
  int sites = 0;
  for (auto begin = cells_.begin(); begin != cells_.end();) {
    const Fault& site = begin->fault;
    const auto end = std::find_if(begin, cells_.end(), [&](const FaultOutcome& cell) {
      return cell.fault.host != site.host || cell.fault.operation != site.operation || cell.fault.call != site.call;
    });
    ++sites;
    const std::string operation = absl::StrCat(site.host, " ", site.operation);
    std::string row = Row(begin, end);
    if (!rows.empty() && rows.back().operation == operation && rows.back().row == row) {
      rows.back().last = site.call;
    } else {
      rows.push_back({operation, site.call, site.call, std::move(row)});
    }
    begin = end;
  }
  std::string text = absl::StrCat(scenario_, ": ", sites, " sites, ", cells_.size(), " faults\n");
  for (const SiteRow& row : rows) {
    const std::string calls =
        row.first == row.last ? absl::StrCat("#", row.first) : absl::StrCat("#", row.first, "-", row.last);
    absl::StrAppend(&text, absl::StrFormat("  %-24s %-8s %s\n", row.operation, calls, row.row));
  }
  return text;
}

std::vector<std::string> RunWithoutFault(const Scenario& scenario) {
  const std::unique_ptr<Stage> run = RunOnce(scenario, std::nullopt);
  EXPECT_TRUE(run->broken().empty()) << scenario.name << ", without a fault:\n  " << Joined(run->broken());
  std::vector<std::string> operations;
  for (const absl::string_view host : {"server", "client"}) {
    for (const auto& [operation, calls] : run->Calls(host)) operations.push_back(operation);
  }
  return operations;
}

FaultTable Sweep(const Scenario& scenario) { return SweepFaults(scenario, "", EachErrorAndTheEnd); }

FaultTable SweepShortages(const Scenario& scenario) { return SweepFaults(scenario, " with shortages", EachShortage); }

FaultTable SweepShortCalls(const Scenario& scenario) { return SweepFaults(scenario, " with short calls", OneByte); }

std::string Totals(const std::vector<FaultTable>& tables) {
  std::map<std::pair<std::string, std::string>, std::map<std::string, int>> counts;
  size_t faults = 0;
  for (const FaultTable& table : tables) {
    faults += table.cells().size();
    for (const FaultOutcome& cell : table.cells()) ++counts[{cell.fault.operation, FaultName(cell.fault)}][cell.outcome];
  }
  std::string text = absl::StrCat(tables.size(), " scenarios, ", faults, " faults\n");
  for (const OsCallErrors& row : AllOsErrors()) {
    for (const Fault& fault : EachErrorAndTheEnd(row.call)) {
      const auto found = counts.find({std::string(row.call), FaultName(fault)});
      const std::string outcomes =
          found == counts.end() ? "not met" : absl::StrJoin(found->second, ", ", absl::PairFormatter(" "));
      absl::StrAppend(&text, absl::StrFormat("  %-16s %-16s %s\n", row.call, FaultName(fault), outcomes));
    }
  }
  return text;
}

}  // namespace troupe::testing
