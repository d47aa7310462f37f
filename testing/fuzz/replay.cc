// Runs a fuzz target once over each file that is named: what a fuzzer found stays found, with every compiler.
//
// Each input is also cut short and damaged, in the same way every time, so that a small corpus reaches further.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

void Run(const std::string& input) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
}

}  // namespace

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    std::ifstream in(argv[i], std::ios::binary);
    const std::string input(std::istreambuf_iterator<char>(in), {});
    if (!in) {
      std::fprintf(stderr, "cannot read %s\n", argv[i]);
      return 1;
    }
    Run(input);
    const size_t stride = input.size() / 64 + 1;
    for (size_t at = 0; at < input.size(); at += stride) {
      Run(input.substr(0, at));
      for (const int bit : {0, 4, 7}) {
        std::string damaged = input;
        damaged[at] = static_cast<char>(damaged[at] ^ 1 << bit);
        Run(damaged);
      }
    }
  }
  std::printf("%d inputs\n", argc - 1);
  return argc > 1 ? 0 : 1;
}
