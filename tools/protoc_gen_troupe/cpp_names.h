// The C++ names of what a .proto declares: those that protoc's own generator gives, and ours.
//
// Types are named as protoc names them (nested ones joined by underscores, keywords with an underscore behind), always
// from the global namespace, so that no package, message or rpc called `troupe`, `std` or `absl` can come between.
// Threading: pure functions.
#ifndef TROUPE_PROTOC_GEN_TROUPE_CPP_NAMES_H_
#define TROUPE_PROTOC_GEN_TROUPE_CPP_NAMES_H_

#include <string>

#include "absl/strings/string_view.h"
#include "google/protobuf/descriptor.h"

namespace troupe::generator {

// A word that C++20 keeps for itself.
bool IsKeyword(absl::string_view word);

// "kv.v1" -> "kv::v1", "" -> "". A keyword in it comes out as protoc has it: 3.21 leaves it as it is, 22 and later put
// an underscore behind.
std::string Namespace(absl::string_view package);

// "::kv::v1::Outer_Inner".
std::string QualifiedName(const google::protobuf::Descriptor& message);

// "kv/v1/kv.proto" -> "kv/v1/kv".
std::string Stem(absl::string_view file);

// "kv/v1/kv.proto" -> "kv_2fv1_2fkv_2eproto": an identifier, different for different files.
std::string FileIdentifier(absl::string_view file);

// The classes of a service.
std::string ActorName(const google::protobuf::ServiceDescriptor& service);
std::string StubName(const google::protobuf::ServiceDescriptor& service);
std::string ProtocolName(const google::protobuf::ServiceDescriptor& service);

// The member function of an rpc, the same in the actor and in the stub: its name, with an underscore behind where that
// is a C++ keyword, a callback of the connection, another member of the generated classes or one of those classes.
std::string FunctionName(const google::protobuf::MethodDescriptor& method);

}  // namespace troupe::generator

#endif  // TROUPE_PROTOC_GEN_TROUPE_CPP_NAMES_H_
