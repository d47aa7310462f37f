// Files sent over connections, by the kernel and by copying.
#ifndef TROUPE_TESTING_FAULTS_SENDFILE_SCENARIOS_H_
#define TROUPE_TESTING_FAULTS_SENDFILE_SCENARIOS_H_

#include <vector>

#include "troupe/testing/faults/sweep.h"

namespace troupe::testing {

std::vector<Scenario> SendfileScenarios();

}  // namespace troupe::testing

#endif  // TROUPE_TESTING_FAULTS_SENDFILE_SCENARIOS_H_
