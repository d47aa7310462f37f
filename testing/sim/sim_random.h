// SimRandom: the random numbers of a simulation, the same on every machine for the same seed.
//
// SplitMix64 (Steele, Lea, Flood 2014), because the standard's distributions differ between libraries. Not for secrets.
#ifndef TROUPE_TESTING_SIM_SIM_RANDOM_H_
#define TROUPE_TESTING_SIM_SIM_RANDOM_H_

#include <cstdint>

#include "absl/types/span.h"

namespace troupe::testing {

class SimRandom {
 public:
  explicit SimRandom(uint64_t seed) : state_(seed) {}

  uint64_t Next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

  // From 0 to bound - 1; the bias of the remainder is below 2^-32 for the bounds of a simulation. REQUIRES: bound > 0.
  uint64_t Below(uint64_t bound) { return Next() % bound; }

  void Fill(absl::Span<char> bytes) {
    uint64_t word = 0;
    int left = 0;
    for (char& byte : bytes) {
      if (left == 0) {
        word = Next();
        left = 8;
      }
      byte = static_cast<char>(word);
      word >>= 8;
      --left;
    }
  }

  // A generator of its own for a part of the simulation, so that what one part draws does not shift the others.
  SimRandom Fork() { return SimRandom(Next()); }

 private:
  uint64_t state_;
};

}  // namespace troupe::testing

#endif  // TROUPE_TESTING_SIM_SIM_RANDOM_H_
