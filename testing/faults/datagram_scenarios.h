// Datagram endpoints.
#ifndef TROUPE_TESTING_FAULTS_DATAGRAM_SCENARIOS_H_
#define TROUPE_TESTING_FAULTS_DATAGRAM_SCENARIOS_H_

#include <vector>

#include "troupe/testing/faults/sweep.h"

namespace troupe::testing {

std::vector<Scenario> DatagramScenarios();

}  // namespace troupe::testing

#endif  // TROUPE_TESTING_FAULTS_DATAGRAM_SCENARIOS_H_
