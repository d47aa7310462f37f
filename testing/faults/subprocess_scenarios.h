// Programs that are run and talked to.
#ifndef TROUPE_TESTING_FAULTS_SUBPROCESS_SCENARIOS_H_
#define TROUPE_TESTING_FAULTS_SUBPROCESS_SCENARIOS_H_

#include <vector>

#include "troupe/testing/faults/sweep.h"

namespace troupe::testing {

std::vector<Scenario> SubprocessScenarios();

}  // namespace troupe::testing

#endif  // TROUPE_TESTING_FAULTS_SUBPROCESS_SCENARIOS_H_
