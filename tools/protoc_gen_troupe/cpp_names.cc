#include "tools/protoc_gen_troupe/cpp_names.h"

#include <algorithm>
#include <iterator>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "google/protobuf/compiler/cpp/names.h"
#include "google/protobuf/descriptor.pb.h"

namespace troupe::generator {
namespace {

namespace pb = ::google::protobuf;
namespace cpp = ::google::protobuf::compiler::cpp;

// Keywords of C++20 that protoc 3.21 lets through.
constexpr absl::string_view kLaterKeywords[] = {
    "char16_t", "char32_t", "char8_t",   "co_await",  "co_return",
    "co_yield", "concept",  "consteval", "constinit", "requires",
};

// Macros of the standard library that any header may bring.
constexpr absl::string_view kMacros[] = {"EOF", "assert", "errno", "stderr", "stdin", "stdout"};

// Members of the generated classes and of their bases.
constexpr absl::string_view kMembers[] = {
    "ConnectionLost", "ConnectionMade", "EofReceived", "PauseWriting", "ResumeWriting",
    "TroupeActor",    "TroupeStub",     "caller_",     "service_info", "troupe_binding",
};

template <size_t kSize>
bool Contains(const absl::string_view (&words)[kSize], absl::string_view word) {
  return std::find(std::begin(words), std::end(words), word) != std::end(words);
}

// What protoc names `message` in `package`. It has the rules in itself but no header for them, so it is asked.
std::string ProtocName(absl::string_view package, absl::string_view message) {
  pb::FileDescriptorProto file;
  file.set_name("name.proto");
  file.set_package(std::string(package));
  file.add_message_type()->set_name(std::string(message));
  pb::DescriptorPool pool;
  return cpp::QualifiedClassName(pool.BuildFile(file)->message_type(0));
}

}  // namespace

bool IsKeyword(absl::string_view word) {
  return Contains(kLaterKeywords, word) || ProtocName("", word) != absl::StrCat("::", word);
}

std::string Namespace(absl::string_view package) {
  if (package.empty()) return "";
  std::string name = ProtocName(package, "M");
  return name.substr(2, name.size() - 5);  // without "::" and "::M"
}

std::string QualifiedName(const pb::Descriptor& message) {
  const std::string scope = Namespace(message.file()->package());
  return absl::StrCat(scope.empty() ? "" : "::", scope, "::", cpp::ClassName(&message));
}

std::string Stem(absl::string_view file) { return cpp::StripProto(std::string(file)); }

std::string FileIdentifier(absl::string_view file) {
  std::string result;
  for (const char c : file) {
    if (absl::ascii_isalnum(static_cast<unsigned char>(c))) {
      result += c;
    } else {
      absl::StrAppendFormat(&result, "_%02x", static_cast<unsigned char>(c));
    }
  }
  return result;
}

std::string ActorName(const pb::ServiceDescriptor& service) { return absl::StrCat(service.name(), "Actor"); }

std::string StubName(const pb::ServiceDescriptor& service) { return absl::StrCat(service.name(), "Stub"); }

std::string ProtocolName(const pb::ServiceDescriptor& service) { return absl::StrCat(service.name(), "Protocol"); }

std::string FunctionName(const pb::MethodDescriptor& method) {
  const pb::ServiceDescriptor& service = *method.service();
  const std::string& name = method.name();
  const bool taken = IsKeyword(name) || Contains(kMacros, name) || Contains(kMembers, name) ||
                     name == ActorName(service) || name == StubName(service) || name == ProtocolName(service);
  return taken ? absl::StrCat(name, "_") : name;
}

}  // namespace troupe::generator
