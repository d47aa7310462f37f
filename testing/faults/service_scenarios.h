// Servers and channels: the four kinds of calls, sessions, drains.
#ifndef TROUPE_TESTING_FAULTS_SERVICE_SCENARIOS_H_
#define TROUPE_TESTING_FAULTS_SERVICE_SCENARIOS_H_

#include <vector>

#include "troupe/testing/faults/sweep.h"

namespace troupe::testing {

std::vector<Scenario> ServiceScenarios();

}  // namespace troupe::testing

#endif  // TROUPE_TESTING_FAULTS_SERVICE_SCENARIOS_H_
