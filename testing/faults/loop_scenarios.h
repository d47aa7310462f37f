// The loop by itself: its poller, watched descriptors, signals, the executor, names.
#ifndef TROUPE_TESTING_FAULTS_LOOP_SCENARIOS_H_
#define TROUPE_TESTING_FAULTS_LOOP_SCENARIOS_H_

#include <vector>

#include "troupe/testing/faults/sweep.h"

namespace troupe::testing {

std::vector<Scenario> LoopScenarios();

}  // namespace troupe::testing

#endif  // TROUPE_TESTING_FAULTS_LOOP_SCENARIOS_H_
