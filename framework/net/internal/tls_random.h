// TlsRandom: the random numbers that OpenSSL draws in a simulation: keys, nonces, salts and tickets follow from a seed.
//
// Each connection of a simulated Os has one, so that what OpenSSL draws for one of them shifts nothing in the others. With
// the first one a method is put before OpenSSL's, for the whole process and for good; a process that simulates nothing
// keeps OpenSSL as it is.
//
// Whoever is not inside of a Scope draws what was drawn before there was a method: other threads, other connections of the
// same thread, keys that are made between two calls. So nothing real is predictable, with a simulation beside it. What a
// context keeps from a simulation (the blinding of its RSA key, sessions to resume) it has from the simulation's numbers:
// do not share it with the real world.
//
// Threading: each is used by one thread at a time; any number of threads may have theirs in force.
#ifndef TROUPE_NET_INTERNAL_TLS_RANDOM_H_
#define TROUPE_NET_INTERNAL_TLS_RANDOM_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "troupe/os/os.h"

namespace troupe::internal {

class TlsRandom {
 public:
  explicit TlsRandom(uint64_t seed);
  TlsRandom(const TlsRandom&) = delete;
  TlsRandom& operator=(const TlsRandom&) = delete;
  // For a new connection; null where `os` is no simulation.
  static std::unique_ptr<TlsRandom> Of(Os& os);

  // What OpenSSL draws in this thread comes from `random` as long as this lives; null: it is OpenSSL's own.
  class Scope {
   public:
    explicit Scope(TlsRandom* random);
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
    ~Scope();

   private:
    TlsRandom* const before_;
  };

  void Fill(unsigned char* bytes, size_t size) noexcept;

 private:
  uint64_t Next() noexcept;

  uint64_t state_;
};

}  // namespace troupe::internal

#endif  // TROUPE_NET_INTERNAL_TLS_RANDOM_H_
