// protoc-gen-troupe: protoc --plugin=protoc-gen-troupe --troupe_out=DIR x.proto writes x.troupe.h and x.troupe.cc.
#include "google/protobuf/compiler/plugin.h"
#include "tools/protoc_gen_troupe/generator.h"

int main(int argc, char** argv) {
  const troupe::generator::Generator generator;
  return google::protobuf::compiler::PluginMain(argc, argv, &generator);
}
