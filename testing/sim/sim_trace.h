// SimTrace: a running hash of all that a simulation did, to prove that a seed replays.
//
// FNV-1a over 64 bits. Every kernel event and every call of a simulated Os goes in, with its result.
#ifndef TROUPE_TESTING_SIM_SIM_TRACE_H_
#define TROUPE_TESTING_SIM_SIM_TRACE_H_

#include <cstdint>

#include "absl/strings/string_view.h"

namespace troupe::testing {

class SimTrace {
 public:
  void Add(absl::string_view text) {
    for (const char c : text) AddByte(static_cast<unsigned char>(c));
    AddByte(0xff);  // so that "ab","c" and "a","bc" differ
  }
  void Add(int64_t number) {
    for (int shift = 0; shift < 64; shift += 8) AddByte(static_cast<unsigned char>(number >> shift));
  }
  uint64_t hash() const { return hash_; }

 private:
  void AddByte(unsigned char byte) { hash_ = (hash_ ^ byte) * 0x100000001b3; }

  uint64_t hash_ = 0xcbf29ce484222325;
};

}  // namespace troupe::testing

#endif  // TROUPE_TESTING_SIM_SIM_TRACE_H_
