#include "troupe/testing/faults/all_scenarios.h"

#include <utility>

#include "troupe/testing/faults/datagram_scenarios.h"
#include "troupe/testing/faults/loop_scenarios.h"
#include "troupe/testing/faults/net_scenarios.h"
#include "troupe/testing/faults/pipe_scenarios.h"
#include "troupe/testing/faults/sendfile_scenarios.h"
#include "troupe/testing/faults/service_scenarios.h"
#include "troupe/testing/faults/subprocess_scenarios.h"
#include "troupe/testing/faults/tls_scenarios.h"

namespace troupe::testing {

std::vector<Scenario> AllScenarios() {
  std::vector<Scenario> all;
  for (std::vector<Scenario> some :
       {LoopScenarios(), NetScenarios(), PipeScenarios(), TlsScenarios(), SubprocessScenarios(), SendfileScenarios(),
        DatagramScenarios(), ServiceScenarios()}) {
    for (Scenario& scenario : some) all.push_back(std::move(scenario));
  }
  return all;
}

}  // namespace troupe::testing
