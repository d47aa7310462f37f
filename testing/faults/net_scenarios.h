// Byte protocols: connections, servers, flow control.
#ifndef TROUPE_TESTING_FAULTS_NET_SCENARIOS_H_
#define TROUPE_TESTING_FAULTS_NET_SCENARIOS_H_

#include <vector>

#include "troupe/testing/faults/sweep.h"

namespace troupe::testing {

std::vector<Scenario> NetScenarios();

}  // namespace troupe::testing

#endif  // TROUPE_TESTING_FAULTS_NET_SCENARIOS_H_
