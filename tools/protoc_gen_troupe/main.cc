// protoc-gen-troupe: protoc --plugin=protoc-gen-troupe --troupe_out=DIR x.proto writes x.troupe.h and x.troupe.cc.
#include <unistd.h>

#include <iostream>

#include "tools/protoc_gen_troupe/plugin.h"

int main(int argc, char** /*argv*/) {
  google::protobuf::compiler::CodeGeneratorRequest request;
  if (argc > 1 || !request.ParseFromFileDescriptor(STDIN_FILENO)) {
    std::cerr << "protoc-gen-troupe is run by protoc: protoc --plugin=protoc-gen-troupe --troupe_out=DIR x.proto\n";
    return 2;
  }
  return troupe::generator::Respond(request).SerializeToFileDescriptor(STDOUT_FILENO) ? 0 : 1;
}
