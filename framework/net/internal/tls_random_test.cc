#include "troupe/net/internal/tls_random.h"

#include <openssl/rand.h>

#include <string>
#include <thread>

#include "gtest/gtest.h"
#include "troupe/os/posix_os.h"
#include "troupe/testing/sim/sim_os.h"

namespace troupe::internal {
namespace {

std::string Drawn() {
  std::string bytes(32, '\0');
  EXPECT_EQ(RAND_status(), 1);
  EXPECT_EQ(RAND_bytes(reinterpret_cast<unsigned char*>(bytes.data()), 16), 1);
  EXPECT_EQ(RAND_priv_bytes(reinterpret_cast<unsigned char*>(bytes.data()) + 16, 16), 1);
  return bytes;
}

std::string DrawnFrom(uint64_t seed) {
  TlsRandom random(seed);
  const TlsRandom::Scope scope(&random);
  return Drawn();
}

TEST(TlsRandom, WhatIsDrawnFollowsFromTheSeed) {
  EXPECT_EQ(DrawnFrom(1), DrawnFrom(1));
  EXPECT_NE(DrawnFrom(1), DrawnFrom(2));
}

// Were one of these the simulation's, it would be the same the second time.
TEST(TlsRandom, WhoeverIsNotInAScopeDrawsWhatNobodyCanPredict) {
  std::string before[2], between[2], elsewhere[2], within[2], after[2];
  for (const int i : {0, 1}) {
    before[i] = Drawn();
    TlsRandom random(1);
    {
      const TlsRandom::Scope scope(&random);
      std::thread([&] { elsewhere[i] = Drawn(); }).join();
      const TlsRandom::Scope real(nullptr);
      within[i] = Drawn();
    }
    between[i] = Drawn();
    {
      const TlsRandom::Scope scope(&random);
      EXPECT_EQ(Drawn(), DrawnFrom(1)) << "nothing was taken from it meanwhile";
    }
    after[i] = Drawn();
  }
  for (auto* drawn : {&before, &between, &elsewhere, &within, &after}) {
    EXPECT_NE((*drawn)[0], (*drawn)[1]);
    EXPECT_NE((*drawn)[0], DrawnFrom(1));
  }
}

TEST(TlsRandom, OnlyConnectionsOfASimulationHaveOne) {
  EXPECT_EQ(TlsRandom::Of(PosixOs::Get()), nullptr);
  testing::SimOs os;
  EXPECT_NE(TlsRandom::Of(os), nullptr);
}

}  // namespace
}  // namespace troupe::internal
