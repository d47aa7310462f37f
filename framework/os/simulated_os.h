// SimulatedOs: an Os of which all that happens follows from a seed. What has random numbers of its own (TLS) asks whether
// it runs on one, and takes them from FillRandom() then.
#ifndef TROUPE_OS_SIMULATED_OS_H_
#define TROUPE_OS_SIMULATED_OS_H_

#include "troupe/os/os.h"

namespace troupe {

class SimulatedOs : public Os {};

}  // namespace troupe

#endif  // TROUPE_OS_SIMULATED_OS_H_
