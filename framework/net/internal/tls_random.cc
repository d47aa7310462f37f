// RAND_METHOD is OpenSSL 1.1's, and deprecated since 3.0; but all else goes by the library context, of which a TlsContext,
// whose connections may be of any Os, has one: RAND_set_DRBG_type() is for all of it, and the numbers that a thread's
// connections draw would be of one sequence. RAND_set0_public() is 3.1's.
#define OPENSSL_API_COMPAT 0x10100000L
#include "troupe/net/internal/tls_random.h"

#include <openssl/rand.h>

#include "absl/types/span.h"
#include "troupe/os/simulated_os.h"

namespace troupe::internal {
namespace {

thread_local TlsRandom* in_force = nullptr;
const RAND_METHOD* method_before = nullptr;

// ---- OpenSSL's, inside its calls.
int Bytes(unsigned char* bytes, int size) noexcept {
  if (in_force == nullptr) return method_before->bytes(bytes, size);
  in_force->Fill(bytes, static_cast<size_t>(size));
  return 1;
}

int Status() noexcept { return in_force != nullptr ? 1 : method_before->status(); }

bool PutBefore() {
  method_before = RAND_get_rand_method();
  static RAND_METHOD method = *method_before;
  method.bytes = Bytes;
  method.pseudorand = Bytes;
  method.status = Status;
  method.cleanup = nullptr;
  return RAND_set_rand_method(&method) == 1;
}

}  // namespace

TlsRandom::TlsRandom(uint64_t seed) : state_(seed) {
  [[maybe_unused]] static const bool put = PutBefore();
}

std::unique_ptr<TlsRandom> TlsRandom::Of(Os& os) {
  if (dynamic_cast<SimulatedOs*>(&os) == nullptr) return nullptr;
  uint64_t seed = 0;
  os.FillRandom(absl::MakeSpan(reinterpret_cast<char*>(&seed), sizeof(seed)));
  return std::make_unique<TlsRandom>(seed);
}

TlsRandom::Scope::Scope(TlsRandom* random) : before_(in_force) { in_force = random; }

TlsRandom::Scope::~Scope() { in_force = before_; }

// SplitMix64: good enough, where nothing is to be kept secret.
uint64_t TlsRandom::Next() noexcept {
  state_ += 0x9e3779b97f4a7c15;
  uint64_t mixed = state_;
  mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9;
  mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111eb;
  return mixed ^ mixed >> 31;
}

void TlsRandom::Fill(unsigned char* bytes, size_t size) noexcept {
  uint64_t word = 0;
  for (size_t i = 0; i < size; ++i, word >>= 8) {
    if (i % sizeof(word) == 0) word = Next();
    bytes[i] = static_cast<unsigned char>(word);
  }
}

}  // namespace troupe::internal
