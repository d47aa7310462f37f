#include "tools/protoc_gen_troupe/cpp_names.h"

#include <string>
#include <vector>

#include "google/protobuf/descriptor.h"
#include "gtest/gtest.h"
#include "tools/protoc_gen_troupe/in_memory.h"

namespace troupe::generator {
namespace {

TEST(CppNamesTest, KeywordsOfEveryStandard) {
  for (const char* word : {"class", "delete", "int", "namespace", "operator", "union", "xor_eq", "alignas", "nullptr",
                           "thread_local", "char8_t", "co_await", "concept", "constinit", "requires"}) {
    EXPECT_TRUE(IsKeyword(word)) << word;
  }
  for (const char* word : {"Class", "Get", "final", "override", "troupe", "string", "class_", "module"}) {
    EXPECT_FALSE(IsKeyword(word)) << word;
  }
}

TEST(CppNamesTest, NamespacesOfPackages) {
  EXPECT_EQ(Namespace(""), "");
  EXPECT_EQ(Namespace("kv"), "kv");
  EXPECT_EQ(Namespace("kv.v1"), "kv::v1");
  EXPECT_EQ(Namespace("M.M.M"), "M::M::M");
  EXPECT_EQ(Namespace("google.protobuf"), "google::protobuf");
}

TEST(CppNamesTest, MessagesAreNamedAsProtocNamesThem) {
  InMemoryProtos protos(InMemoryProtos::Files{
      {"a.proto",
       "syntax = 'proto3'; package a.b; import 'google/protobuf/empty.proto'; import 'top.proto';"
       "message union { message Inner { message int {} } }"
       "service S { rpc A(union) returns (union.Inner); rpc B(union.Inner.int) returns (google.protobuf.Empty);"
       " rpc C(Top) returns (Top); }"},
      {"top.proto", "syntax = 'proto3'; message Top {}"}});
  const google::protobuf::FileDescriptor* file = protos.Find("a.proto");
  ASSERT_NE(file, nullptr) << protos.errors();
  const google::protobuf::ServiceDescriptor& service = *file->service(0);
  EXPECT_EQ(QualifiedName(*service.method(0)->input_type()), "::a::b::union_");
  EXPECT_EQ(QualifiedName(*service.method(0)->output_type()), "::a::b::union__Inner");
  EXPECT_EQ(QualifiedName(*service.method(1)->input_type()), "::a::b::union__Inner_int");
  EXPECT_EQ(QualifiedName(*service.method(1)->output_type()), "::google::protobuf::Empty");
  EXPECT_EQ(QualifiedName(*service.method(2)->input_type()), "::Top");
}

TEST(CppNamesTest, FilesKeepTheirFoldersAndLoseTheirSuffix) {
  EXPECT_EQ(Stem("kv/v1/kv.proto"), "kv/v1/kv");
  EXPECT_EQ(Stem("kv/v1/kv.protodevel"), "kv/v1/kv");
  EXPECT_EQ(FileIdentifier("kv/v1/kv.proto"), "kv_2fv1_2fkv_2eproto");
  EXPECT_NE(FileIdentifier("a_b.proto"), FileIdentifier("a/b.proto"));
  EXPECT_NE(FileIdentifier("a_2fb.proto"), FileIdentifier("a/b.proto"));
}

TEST(CppNamesTest, FunctionsThatWouldMeetSomethingGetAnUnderscore) {
  InMemoryProtos protos(InMemoryProtos::Files{
      {"a.proto",
       "syntax = 'proto3'; message M {} service S {"
       " rpc Get(M) returns (M); rpc delete(M) returns (M); rpc co_await(M) returns (M);"
       " rpc ConnectionMade(M) returns (M); rpc EofReceived(M) returns (M); rpc PauseWriting(M) returns (M);"
       " rpc ResumeWriting(M) returns (M); rpc ConnectionLost(M) returns (M); rpc TroupeActor(M) returns (M);"
       " rpc TroupeStub(M) returns (M); rpc troupe_binding(M) returns (M); rpc service_info(M) returns (M);"
       " rpc caller_(M) returns (M); rpc SActor(M) returns (M); rpc SStub(M) returns (M); rpc SProtocol(M) returns (M);"
       " rpc assert(M) returns (M); rpc S(M) returns (M); rpc connection_made(M) returns (M); rpc Actor(M) returns (M);"
       " rpc OtherStub(M) returns (M); }"}});
  const google::protobuf::FileDescriptor* file = protos.Find("a.proto");
  ASSERT_NE(file, nullptr) << protos.errors();
  std::string taken;
  std::string kept;
  for (int i = 0; i < file->service(0)->method_count(); ++i) {
    const google::protobuf::MethodDescriptor& method = *file->service(0)->method(i);
    (FunctionName(method) == method.name() + "_" ? taken : kept) += method.name() + " ";
  }
  EXPECT_EQ(
      taken,
      "delete co_await ConnectionMade EofReceived PauseWriting ResumeWriting ConnectionLost TroupeActor TroupeStub "
      "troupe_binding service_info caller_ SActor SStub SProtocol assert ");
  EXPECT_EQ(kept, "Get S connection_made Actor OtherStub ");
}

TEST(CppNamesTest, FunctionsNamedAsMacrosGetAnUnderscore) {
  const std::vector<std::string> macros = {"EOF",    "NULL",   "assert", "errno",  "major",     "minor",
                                           "linux",  "unix",   "stdin",  "stdout", "E2BIG",     "EINVAL",
                                           "SIGINT", "LC_ALL", "PRIu64", "SCNX8",  "INT64_MAX", "UINT8_C",
                                           "LOG",    "CHECK",  "MAX",    "TRUE",   "DOMAIN",    "O_RDONLY"};
  const std::vector<std::string> others = {"Get",   "GET",    "PUT",        "E",       "Email", "EMail",
                                           "PRINT", "Signal", "Assert",     "Major",   "SCAN",  "O_",
                                           "Log",   "eof",    "NullObject", "MAXIMUM", "is_set"};
  std::string source = "syntax = 'proto3'; message M {} service S {";
  for (const auto& names : {macros, others}) {
    for (const std::string& name : names) source += "rpc " + name + "(M) returns (M);";
  }
  InMemoryProtos protos(InMemoryProtos::Files{{"a.proto", source + "}"}});
  const google::protobuf::FileDescriptor* file = protos.Find("a.proto");
  ASSERT_NE(file, nullptr) << protos.errors();
  const google::protobuf::ServiceDescriptor& service = *file->service(0);
  for (const std::string& name : macros) EXPECT_EQ(FunctionName(*service.FindMethodByName(name)), name + "_");
  for (const std::string& name : others) EXPECT_EQ(FunctionName(*service.FindMethodByName(name)), name);
}

}  // namespace
}  // namespace troupe::generator
