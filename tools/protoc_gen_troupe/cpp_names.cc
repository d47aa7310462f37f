#include "tools/protoc_gen_troupe/cpp_names.h"

#include <algorithm>
#include <iterator>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
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

// Macros that headers of C, POSIX, glibc, glog and Abseil bring and that ReservedForMacros() does not cover; linux,
// unix and i386 are the compilers' own outside -std=c++20.
constexpr absl::string_view kMacros[] = {
    "ABS",
    "ASSERT",
    "BIG_ENDIAN",
    "BUFSIZ",
    "BYTE_ORDER",
    "CHECK",
    "CHECK_EQ",
    "CSIGNAL",
    "DCHECK",
    "DEBUG",
    "DELETE",
    "DOMAIN",
    "FALSE",
    "HUGE_VAL",
    "INFINITY",
    "LITTLE_ENDIAN",
    "LOG",
    "MAX",
    "MIN",
    "NAN",
    "NDEBUG",
    "NSIG",
    "NULL",
    "OVERFLOW",
    "PDP_ENDIAN",
    "TRUE",
    "UNDERFLOW",
    "VLOG",
    "alloca",
    "assert",
    "assert_perror",
    "be16toh",
    "be32toh",
    "be64toh",
    "clrbit",
    "errno",
    "h_addr",
    "h_errno",
    "howmany",
    "htobe16",
    "htobe32",
    "htobe64",
    "htole16",
    "htole32",
    "htole64",
    "i386",
    "isclr",
    "isset",
    "issubnormal",
    "le16toh",
    "le32toh",
    "le64toh",
    "linux",
    "major",
    "makedev",
    "math_errhandling",
    "minor",
    "offsetof",
    "powerof2",
    "roundup",
    "sched_priority",
    "setbit",
    "setjmp",
    "sigmask",
    "sigsetjmp",
    "st_atime",
    "st_ctime",
    "st_mtime",
    "stderr",
    "stdin",
    "stdout",
    "strdupa",
    "strndupa",
    "timeradd",
    "timerclear",
    "timercmp",
    "timerisset",
    "timersub",
    "unix",
    "va_arg",
    "va_copy",
    "va_end",
    "va_start",
};

// What the C standard (7.31) and POSIX (2.2.2) keep for macros of their headers, as prefixes of names in upper case.
constexpr absl::string_view kMacroPrefixes[] = {
    "AF_",   "ATOMIC_", "CLOCK_", "DBL_",  "EXIT_", "FE_",  "FLT_", "FP_",  "F_",    "INADDR_", "IPPROTO_",
    "IPV6_", "IP_",     "LC_",    "LDBL_", "MAP_",  "MSG_", "O_",   "PF_",  "POLL",  "PROT_",   "PTHREAD_",
    "SA_",   "SEEK_",   "SIG",    "SI_",   "SOCK_", "SO_",  "S_",   "TCP_", "TIME_", "W_",
};
constexpr absl::string_view kMacroSuffixes[] = {"_C", "_MAX", "_MIN", "_WIDTH"};

// Members of the generated classes and of their bases.
constexpr absl::string_view kMembers[] = {
    "ConnectionLost", "ConnectionMade", "EofReceived", "PauseWriting", "ResumeWriting",
    "TroupeActor",    "TroupeStub",     "caller_",     "service_info", "troupe_binding",
};

template <size_t kSize>
bool Contains(const absl::string_view (&words)[kSize], absl::string_view word) {
  return std::find(std::begin(words), std::end(words), word) != std::end(words);
}

// Names of macros by their form: EOF, EINVAL and E2BIG, SIGTERM, INT64_MAX, PRIu64.
bool ReservedForMacros(absl::string_view name) {
  const auto upper = [](char c) {
    return absl::ascii_isupper(static_cast<unsigned char>(c)) || absl::ascii_isdigit(static_cast<unsigned char>(c));
  };
  if ((absl::StartsWith(name, "PRI") || absl::StartsWith(name, "SCN")) && name.size() > 3) {
    return absl::ascii_islower(static_cast<unsigned char>(name[3])) || name[3] == 'X';
  }
  if (!std::all_of(name.begin(), name.end(), [&](char c) { return upper(c) || c == '_'; })) return false;
  if (name.size() > 2 && name[0] == 'E' && upper(name[1])) return true;
  return std::any_of(std::begin(kMacroPrefixes), std::end(kMacroPrefixes),
                     [&](absl::string_view prefix) { return name != prefix && absl::StartsWith(name, prefix); }) ||
         std::any_of(std::begin(kMacroSuffixes), std::end(kMacroSuffixes),
                     [&](absl::string_view suffix) { return absl::EndsWith(name, suffix); });
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
  const bool taken = IsKeyword(name) || Contains(kMacros, name) || ReservedForMacros(name) ||
                     Contains(kMembers, name) || name == ActorName(service) || name == StubName(service) ||
                     name == ProtocolName(service);
  return taken ? absl::StrCat(name, "_") : name;
}

}  // namespace troupe::generator
