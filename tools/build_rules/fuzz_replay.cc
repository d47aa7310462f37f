// Runs a fuzz target over the files that the command line names: what a fuzzer found stays found, with every compiler.
//
// Each input is also cut short and damaged, in the same way every time, so that a small corpus reaches further.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

// A copy of its own for each input, so that AddressSanitizer sees a read past its end.
void Run(const std::string& input) {
  const std::vector<uint8_t> bytes(input.begin(), input.end());
  LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
}

void RunCutAndDamaged(const std::string& input) {
  const size_t stride = input.size() / 64 + 1;
  for (size_t at = 0; at < input.size(); at += stride) {
    Run(input.substr(0, at));
    for (const int bit : {0, 4, 7}) {
      std::string damaged = input;
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << bit));
      Run(damaged);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  Run("");
  for (int i = 1; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    const std::string input((std::istreambuf_iterator<char>(file)), {});
    if (!file) {
      std::fprintf(stderr, "cannot read %s\n", argv[i]);
      return 1;
    }
    std::printf("%s: %zu bytes\n", argv[i], input.size());
    std::fflush(stdout);  // the last line names the input that broke it
    Run(input);
    RunCutAndDamaged(input);
  }
  return argc > 1 ? 0 : 1;
}
