#include "tools/protoc_gen_troupe/plugin.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "google/protobuf/compiler/plugin.h"
#include "google/protobuf/descriptor.pb.h"
#include "tools/protoc_gen_troupe/generator.h"

namespace troupe::generator {

namespace pb = ::google::protobuf;

pb::compiler::CodeGeneratorResponse Respond(const pb::compiler::CodeGeneratorRequest& request) {
  const Generator generator;
  pb::compiler::CodeGeneratorResponse response;
  for (const pb::FileDescriptorProto& file : request.proto_file()) {
    if (file.syntax().empty() || file.syntax() == "proto2" || file.syntax() == "proto3") continue;
    response.set_supported_features(generator.GetSupportedFeatures());
    response.set_error(absl::StrCat(file.name(), ": its syntax is \"", file.syntax(),
                                    "\", and protoc-gen-troupe knows proto2 and proto3; write syntax = \"proto3\" at "
                                    "its head"));
    return response;
  }
  std::string error;
  if (!pb::compiler::GenerateCode(request, generator, &response, &error)) {
    // protobuf has said on stderr what is wrong with the descriptors.
    response.clear_file();
    response.set_error(error.empty() ? "protoc handed over descriptors that do not fit together" : error);
  }
  return response;
}

}  // namespace troupe::generator
