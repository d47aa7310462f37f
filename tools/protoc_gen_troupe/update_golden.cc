// Writes the golden files of the generator anew: bazel run //tools/protoc_gen_troupe:update_golden
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <string>

#include "tools/protoc_gen_troupe/golden.h"
#include "tools/protoc_gen_troupe/in_memory.h"

int main() {
  const char* const workspace = std::getenv("BUILD_WORKSPACE_DIRECTORY");
  if (workspace == nullptr) {
    std::cerr << "run it with: bazel run //tools/protoc_gen_troupe:update_golden\n";
    return 2;
  }
  const std::string folder = std::string(workspace) + "/" + troupe::generator::kGoldenFolder;
  for (const char* proto : troupe::generator::kGoldenProtos) {
    troupe::generator::InMemoryProtos protos(folder);
    const troupe::generator::InMemoryOutput output = troupe::generator::RunInMemory(protos, {proto});
    if (!output.error.empty()) {
      std::cerr << output.error << "\n";
      return 1;
    }
    for (const auto& [path, text] : output.files) {
      std::ofstream file(folder + "/" + path, std::ios::binary);
      file << text;
      if (!file.flush()) {
        std::cerr << "cannot write " << folder << "/" << path << "\n";
        return 1;
      }
      std::cout << path << "\n";
    }
  }
  return 0;
}
