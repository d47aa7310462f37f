// Sweep: runs a scenario once for each call that it makes of an Os and each error that the call can give (os_errors.h),
// and says what became of it.
//
// A scenario is a function over a Stage. It is run without a fault first, and must be sound then. After that, for both
// machines, every operation, k = 1, 2 ... until a run makes no k-th call, and every error of that operation, it is run
// again with that one call failing. What must hold in every run is the Stage's to check; a run that breaks it fails the
// test and names the site.
//
// Outcomes: unnoticed   everything ended as it would have without the fault
//           retried     the same, and the operation was called more often
//           paused      the same, but half a second later or more
//           refused     something that was asked for ended with a status that says no; a second attempt was OK
//           lost        a connection was told of its end, once, with an error
//           otherwise   everything ended OK, by another way: fewer connections, more attempts
//           BROKEN      the test has failed
// followed by "+report" when the loop's exception handler was told.
#ifndef TROUPE_TESTING_FAULTS_SWEEP_H_
#define TROUPE_TESTING_FAULTS_SWEEP_H_

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "troupe/testing/faults/stage.h"

namespace troupe::testing {

struct Scenario {
  std::string name;
  std::function<void(Stage&)> run;
};

struct FaultOutcome {
  Fault fault;
  std::string outcome;
};

// The table of one scenario.
class FaultTable {
 public:
  explicit FaultTable(std::string scenario) : scenario_(std::move(scenario)) {}
  void Add(Fault fault, std::string outcome) { cells_.push_back({std::move(fault), std::move(outcome)}); }
  const std::string& scenario() const { return scenario_; }
  const std::vector<FaultOutcome>& cells() const { return cells_; }
  // Sites in the order of the machines' first calls; neighbouring calls with the same outcomes share a row.
  std::string ToString() const;

 private:
  const std::string scenario_;
  std::vector<FaultOutcome> cells_;
};

// "ECONNRESET"
std::string ErrnoName(int error);

// Runs it, without a fault; failures fail the test. Gives the operations that it called, of both machines.
std::vector<std::string> RunWithoutFault(const Scenario& scenario);
// Failures fail the test; after several of them the sweep ends early.
FaultTable Sweep(const Scenario& scenario);
// The same with shortages: of descriptors and memory, for three seconds from the k-th call on.
FaultTable SweepShortages(const Scenario& scenario);
// No call fails, but one moves a byte only: nobody may notice.
FaultTable SweepShortCalls(const Scenario& scenario);
// Operations down, errors across: how often each outcome came.
std::string Totals(const std::vector<FaultTable>& tables);

}  // namespace troupe::testing

#endif  // TROUPE_TESTING_FAULTS_SWEEP_H_
