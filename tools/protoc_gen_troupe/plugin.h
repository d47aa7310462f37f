// Respond: one run of the plugin: protoc's request in, its response out.
//
// What protoc's own entry point writes to stderr and ends with a number is an error of the response here, so that every
// build tool shows it: a file in a syntax that this plugin was not built for, or descriptors that do not fit together.
// Threading: a pure function.
#ifndef TROUPE_PROTOC_GEN_TROUPE_PLUGIN_H_
#define TROUPE_PROTOC_GEN_TROUPE_PLUGIN_H_

#include "google/protobuf/compiler/plugin.pb.h"

namespace troupe::generator {

google::protobuf::compiler::CodeGeneratorResponse Respond(
    const google::protobuf::compiler::CodeGeneratorRequest& request);

}  // namespace troupe::generator

#endif  // TROUPE_PROTOC_GEN_TROUPE_PLUGIN_H_
