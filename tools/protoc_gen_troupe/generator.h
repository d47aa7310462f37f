// Generator: writes x.troupe.h and x.troupe.cc for each x.proto: the actor, the stub and the protocol of every service.
//
// The layout of what it writes is best read in testdata/, where its output stands beside its input. It takes no
// parameters. All files of one run are checked together before the first one is written (refusals.h).
// Threading: immutable.
#ifndef TROUPE_PROTOC_GEN_TROUPE_GENERATOR_H_
#define TROUPE_PROTOC_GEN_TROUPE_GENERATOR_H_

#include <cstdint>
#include <string>
#include <vector>

#include "google/protobuf/compiler/code_generator.h"
#include "google/protobuf/descriptor.h"

namespace troupe::generator {

class Generator final : public google::protobuf::compiler::CodeGenerator {
 public:
  uint64_t GetSupportedFeatures() const override { return FEATURE_PROTO3_OPTIONAL; }

  bool Generate(const google::protobuf::FileDescriptor* file, const std::string& parameter,
                google::protobuf::compiler::GeneratorContext* context, std::string* error) const override;
  bool GenerateAll(const std::vector<const google::protobuf::FileDescriptor*>& files, const std::string& parameter,
                   google::protobuf::compiler::GeneratorContext* context, std::string* error) const override;
};

}  // namespace troupe::generator

#endif  // TROUPE_PROTOC_GEN_TROUPE_GENERATOR_H_
