// TLS: connections, servers, upgrades of connections that are open.
#ifndef TROUPE_TESTING_FAULTS_TLS_SCENARIOS_H_
#define TROUPE_TESTING_FAULTS_TLS_SCENARIOS_H_

#include <vector>

#include "troupe/testing/faults/sweep.h"

namespace troupe::testing {

std::vector<Scenario> TlsScenarios();

}  // namespace troupe::testing

#endif  // TROUPE_TESTING_FAULTS_TLS_SCENARIOS_H_
