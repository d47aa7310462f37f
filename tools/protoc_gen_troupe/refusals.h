// What the plugin refuses to generate, with the reason in words: rather an error here than one of the C++ compiler in a
// file that nobody wrote.
//   - a generated class whose C++ name a message, enum, enum value, extension, package or service has already,
//     including what protoc and the gRPC plugin make of services;
//   - a package with a C++ keyword in it, where protoc makes that a namespace;
//   - a service in the package troupe, or in std;
//   - two rpcs of one service that would be one C++ function;
//   - one_way on an rpc that does not return google.protobuf.Empty, that streams, or that moves a session;
//   - a session order that is wrong;
//   - an option of Troupe's with fields that this plugin does not know.
// Threading: pure functions.
#ifndef TROUPE_PROTOC_GEN_TROUPE_REFUSALS_H_
#define TROUPE_PROTOC_GEN_TROUPE_REFUSALS_H_

#include <string>
#include <vector>

#include "absl/types/span.h"
#include "google/protobuf/descriptor.h"

namespace troupe::generator {

// "kv/v1/kv.proto:3:1: ..." per refusal, in the order of the files and of their lines. Names are compared among `files`
// and all that they import: whatever can meet in one translation unit by their own includes.
std::vector<std::string> Refusals(absl::Span<const google::protobuf::FileDescriptor* const> files);

}  // namespace troupe::generator

#endif  // TROUPE_PROTOC_GEN_TROUPE_REFUSALS_H_
