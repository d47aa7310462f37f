// REQUIRE: what must hold for every input. Aborts, so that a fuzzer keeps the input.
#ifndef TROUPE_TESTING_FUZZ_FUZZ_H_
#define TROUPE_TESTING_FUZZ_FUZZ_H_

#include <cstdio>
#include <cstdlib>

#define REQUIRE(condition)                                                 \
  do {                                                                     \
    if (!(condition)) {                                                    \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                        \
    }                                                                      \
  } while (false)

#endif  // TROUPE_TESTING_FUZZ_FUZZ_H_
