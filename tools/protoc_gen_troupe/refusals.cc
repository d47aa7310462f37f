#include "tools/protoc_gen_troupe/refusals.h"

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "google/protobuf/compiler/cpp/names.h"
#include "google/protobuf/descriptor.pb.h"
#include "google/protobuf/unknown_field_set.h"
#include "tools/protoc_gen_troupe/cpp_names.h"
#include "tools/protoc_gen_troupe/session_order.h"
#include "troupe/options.pb.h"

namespace troupe::generator {
namespace {

namespace pb = ::google::protobuf;
namespace cpp = ::google::protobuf::compiler::cpp;

template <class Descriptor>
std::string Where(const Descriptor& descriptor) {
  pb::SourceLocation location;
  if (!descriptor.GetSourceLocation(&location)) return descriptor.file()->name();
  return absl::StrCat(descriptor.file()->name(), ":", location.start_line + 1, ":", location.start_column + 1);
}

// Qualified C++ names, and in words who has them.
class Names {
 public:
  void AddFile(const pb::FileDescriptor& file) {
    if (!seen_.insert(&file).second) return;
    const std::string scope = Namespace(file.package());
    AddPackage(file, scope);
    for (int i = 0; i < file.message_type_count(); ++i) AddMessage(scope, *file.message_type(i));
    for (int i = 0; i < file.enum_type_count(); ++i) AddEnum(scope, *file.enum_type(i));
    for (int i = 0; i < file.extension_count(); ++i) {
      const pb::FieldDescriptor& extension = *file.extension(i);
      Add(scope, cpp::FieldName(&extension), "extension", extension);
      Add(scope, extension.name(), "extension", extension);
    }
    for (int i = 0; i < file.service_count(); ++i) {
      const pb::ServiceDescriptor& service = *file.service(i);
      Add(scope, service.name(), "the gRPC class of service", service);
      Add(scope, absl::StrCat("Mock", service.name(), "Stub"), "the gRPC mock of service", service);
      if (file.options().cc_generic_services()) {
        Add(scope, absl::StrCat(service.name(), "_Stub"), "the generic stub of service", service);
      }
    }
    for (int i = 0; i < file.dependency_count(); ++i) AddFile(*file.dependency(i));
  }

  // Who has the name; empty for nobody.
  std::string OwnerOf(const std::string& name) const {
    const auto owner = owners_.find(name);
    return owner == owners_.end() ? "" : owner->second;
  }

 private:
  template <class Descriptor>
  void Add(const std::string& scope, const std::string& name, const std::string& what, const Descriptor& who) {
    owners_.emplace(absl::StrCat(scope, scope.empty() ? "" : "::", name),
                    absl::StrCat(what, " ", who.full_name(), " (", Where(who), ")"));
  }

  // A package a.b.c is the namespaces a, a::b and a::b::c.
  void AddPackage(const pb::FileDescriptor& file, const std::string& scope) {
    for (size_t end = 0; end != std::string::npos && !scope.empty();) {
      end = scope.find("::", end + 1);
      owners_.emplace(scope.substr(0, end), absl::StrCat("package ", file.package(), " (", file.name(), ")"));
    }
  }

  void AddMessage(const std::string& scope, const pb::Descriptor& message) {
    Add(scope, cpp::ClassName(&message), "message", message);
    for (int i = 0; i < message.nested_type_count(); ++i) AddMessage(scope, *message.nested_type(i));
    for (int i = 0; i < message.enum_type_count(); ++i) AddEnum(scope, *message.enum_type(i));
  }

  // protoc puts the values of an enum beside it, those of a nested one behind its name.
  void AddEnum(const std::string& scope, const pb::EnumDescriptor& type) {
    Add(scope, cpp::ClassName(&type), "enum", type);
    const std::string prefix = type.containing_type() == nullptr ? "" : absl::StrCat(cpp::ClassName(&type), "_");
    for (int i = 0; i < type.value_count(); ++i) {
      Add(scope, prefix + cpp::EnumValueName(type.value(i)), "enum value", *type.value(i));
    }
  }

  std::set<const pb::FileDescriptor*> seen_;
  std::map<std::string, std::string> owners_;
};

std::string WhereIsPackage(const pb::FileDescriptor& file) {
  pb::SourceLocation location;
  if (!file.GetSourceLocation({pb::FileDescriptorProto::kPackageFieldNumber}, &location)) return file.name();
  return absl::StrCat(file.name(), ":", location.start_line + 1, ":", location.start_column + 1);
}

// What the framework and the standard library put there may have the name of a generated class.
void RefuseForeignNamespaces(const pb::FileDescriptor& file, std::vector<std::string>& refusals) {
  const std::string scope = Namespace(file.package());
  if (scope == "troupe") {
    refusals.push_back(absl::StrCat(WhereIsPackage(file),
                                    ": package troupe is the framework's own namespace, where a "
                                    "generated class could meet one of its names; put the service into a package of "
                                    "another name, or below it"));
  } else if (scope == "std" || absl::StartsWith(scope, "std::")) {
    refusals.push_back(absl::StrCat(WhereIsPackage(file), ": package ", file.package(),
                                    " is within the namespace std, "
                                    "which C++ keeps for itself; put the service into a package of another name"));
  }
}

// protoc's own C++ does not compile then, where it does not change the word.
void RefuseKeywordsInPackage(const pb::FileDescriptor& file, std::vector<std::string>& refusals) {
  for (const absl::string_view part : absl::StrSplit(Namespace(file.package()), "::")) {
    if (IsKeyword(part)) {
      refusals.push_back(absl::StrCat(WhereIsPackage(file), ": package ", file.package(), " holds the C++ keyword ",
                                      part, ", which this version of protoc makes a namespace; rename it"));
    }
  }
}

void RefuseTakenClassNames(const pb::ServiceDescriptor& service, const Names& names,
                           std::vector<std::string>& refusals) {
  const std::string scope = Namespace(service.file()->package());
  for (const std::string& name : {ActorName(service), StubName(service), ProtocolName(service)}) {
    const std::string qualified = absl::StrCat(scope, scope.empty() ? "" : "::", name);
    if (const std::string owner = names.OwnerOf(qualified); !owner.empty()) {
      refusals.push_back(absl::StrCat(Where(service), ": service ", service.full_name(), " needs the C++ name ",
                                      qualified, ", which ", owner, " has; rename one of them"));
    }
  }
}

void RefuseEqualFunctionNames(const pb::ServiceDescriptor& service, std::vector<std::string>& refusals) {
  std::map<std::string, const pb::MethodDescriptor*> functions;
  for (int i = 0; i < service.method_count(); ++i) {
    const pb::MethodDescriptor& method = *service.method(i);
    const auto [first, inserted] = functions.emplace(FunctionName(method), &method);
    if (!inserted) {
      refusals.push_back(absl::StrCat(Where(method), ": rpcs ", first->second->full_name(), " and ", method.full_name(),
                                      " would both be the C++ function ", first->first, "; rename one of them"));
    }
  }
}

void RefuseWrongOneWay(const pb::MethodDescriptor& method, std::vector<std::string>& refusals) {
  if (!method.options().GetExtension(troupe::call).one_way()) return;
  if (method.output_type()->full_name() != "google.protobuf.Empty") {
    refusals.push_back(absl::StrCat(Where(method), ": rpc ", method.full_name(),
                                    " is one_way and must return google.protobuf.Empty, not ",
                                    method.output_type()->full_name(), "; nobody would read it"));
  } else if (method.client_streaming() || method.server_streaming()) {
    refusals.push_back(absl::StrCat(Where(method), ": rpc ", method.full_name(),
                                    " is one_way and must not stream: it is one request that nobody answers"));
  }
}

// From some state the step leads to another one.
bool Moves(const SessionAutomaton& automaton, size_t step) {
  for (size_t state = 0; state < automaton.next.size(); ++state) {
    const int next = automaton.next[state][step];
    if (next != SessionAutomaton::kNotAllowed && static_cast<size_t>(next) != state) return true;
  }
  return false;
}

void RefuseWrongSession(const pb::ServiceDescriptor& service, std::vector<std::string>& refusals) {
  const SessionDeclaration& session = service.options().GetExtension(troupe::session);
  std::vector<std::string> methods;
  for (int i = 0; i < service.method_count(); ++i) methods.push_back(service.method(i)->name());
  const std::vector<std::string> anytime(session.anytime().begin(), session.anytime().end());
  const absl::StatusOr<SessionAutomaton> automaton = CompileSessionOrder(session.order(), anytime, methods);
  if (!automaton.ok()) {
    refusals.push_back(absl::StrCat(Where(service), ": service ", service.full_name(), ": ",
                                    std::string(automaton.status().message())));
    return;
  }
  for (size_t step = 0; step < automaton->steps.size(); ++step) {
    const pb::MethodDescriptor& method = *service.FindMethodByName(automaton->steps[step]);
    if (method.options().GetExtension(troupe::call).one_way() && Moves(*automaton, step)) {
      refusals.push_back(absl::StrCat(Where(method), ": rpc ", method.full_name(),
                                      " is one_way and moves its session, ",
                                      "whose caller would not know where it stands; drop one_way, or name the rpc in "
                                      "anytime"));
    }
  }
}

// An option that a newer troupe/options.proto declares asks for something that this plugin would silently leave out.
template <class Descriptor>
void RefuseUnknownOptions(const Descriptor& descriptor, absl::string_view option, const pb::Message& declaration,
                          std::vector<std::string>& refusals) {
  const pb::UnknownFieldSet& unknown = declaration.GetReflection()->GetUnknownFields(declaration);
  if (unknown.empty()) return;
  refusals.push_back(absl::StrCat(Where(descriptor), ": ", descriptor.full_name(), ": option (", option,
                                  ") has the field number ", unknown.field(0).number(),
                                  ", which this protoc-gen-troupe does not know; use the plugin and the "
                                  "troupe/options.proto of one release"));
}

}  // namespace

std::vector<std::string> Refusals(absl::Span<const pb::FileDescriptor* const> files) {
  Names names;
  for (const pb::FileDescriptor* file : files) names.AddFile(*file);
  std::vector<std::string> refusals;
  for (const pb::FileDescriptor* file : files) {
    if (file->service_count() != 0 && !file->package().empty()) {
      RefuseKeywordsInPackage(*file, refusals);
      RefuseForeignNamespaces(*file, refusals);
    }
    for (int i = 0; i < file->service_count(); ++i) {
      const pb::ServiceDescriptor& service = *file->service(i);
      RefuseTakenClassNames(service, names, refusals);
      RefuseUnknownOptions(service, "troupe.session", service.options().GetExtension(troupe::session), refusals);
      RefuseUnknownOptions(service, "troupe.actor", service.options().GetExtension(troupe::actor), refusals);
      RefuseWrongSession(service, refusals);
      RefuseEqualFunctionNames(service, refusals);
      for (int j = 0; j < service.method_count(); ++j) {
        const pb::MethodDescriptor& method = *service.method(j);
        RefuseUnknownOptions(method, "troupe.call", method.options().GetExtension(troupe::call), refusals);
        RefuseWrongOneWay(method, refusals);
      }
    }
  }
  return refusals;
}

}  // namespace troupe::generator
