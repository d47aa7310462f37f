// What the plugin refuses, and in which words; and what comes close and is accepted.
#include "tools/protoc_gen_troupe/refusals.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/protobuf/descriptor.pb.h"
#include "google/protobuf/unknown_field_set.h"
#include "gtest/gtest.h"
#include "tools/protoc_gen_troupe/in_memory.h"
#include "troupe/options.pb.h"

namespace troupe::generator {
namespace {

using ::testing::HasSubstr;

constexpr char kHead[] =
    "syntax = 'proto3'; package p; import 'troupe/options.proto'; "
    "import 'google/protobuf/empty.proto'; message M {}\n";

// The error for p.proto, which is the head and then, from line 2, `source`; empty if it is accepted.
std::string Refusal(const std::string& source) {
  InMemoryProtos protos(InMemoryProtos::Files{{"p.proto", absl::StrCat(kHead, source)}});
  return RunInMemory(protos, {"p.proto"}).error;
}

TEST(RefusalsTest, EachGeneratedClassAgainstEachKindOfDeclaration) {
  for (const std::string name : {"KeyValueActor", "KeyValueStub", "KeyValueProtocol"}) {
    const std::string service = "service KeyValue { rpc Get(M) returns (M); }\n";
    const std::string error = absl::StrCat("p.proto:2:1: service p.KeyValue needs the C++ name p::", name, ", which ");
    EXPECT_EQ(Refusal(absl::StrCat(service, "message ", name, " {}")),
              absl::StrCat(error, "message p.", name, " (p.proto:3:1) has; rename one of them"));
    EXPECT_EQ(Refusal(absl::StrCat(service, "enum ", name, " { ZERO = 0; }")),
              absl::StrCat(error, "enum p.", name, " (p.proto:3:1) has; rename one of them"));
    EXPECT_EQ(Refusal(absl::StrCat(service, "enum E { ", name, " = 0; }")),
              absl::StrCat(error, "enum value p.", name, " (p.proto:3:10) has; rename one of them"));
    EXPECT_EQ(Refusal(absl::StrCat(service, "service ", name, " {}")),
              absl::StrCat(error, "the gRPC class of service p.", name, " (p.proto:3:1) has; rename one of them"));
    EXPECT_EQ(Refusal(absl::StrCat(service, "import 'google/protobuf/descriptor.proto'; ",
                                   "extend google.protobuf.FileOptions { int32 ", name, " = 5000; }")),
              absl::StrCat(error, "extension p.", name, " (p.proto:3:81) has; rename one of them"));
  }
}

TEST(RefusalsTest, NamesThatProtocMakesOfNestedOnes) {
  EXPECT_THAT(Refusal("service A_B {} message A { message BActor {} }"),
              HasSubstr("needs the C++ name p::A_BActor, which message p.A.BActor (p.proto:2:28) has"));
  EXPECT_THAT(Refusal("service A_B {} message A { enum BStub { Z = 0; } }"),
              HasSubstr("needs the C++ name p::A_BStub, which enum p.A.BStub (p.proto:2:28) has"));
  EXPECT_THAT(Refusal("service A_B_C {} message A { enum B { CStub = 0; } }"),
              HasSubstr("needs the C++ name p::A_B_CStub, which enum value p.A.CStub (p.proto:2:39) has"));
}

TEST(RefusalsTest, NamesThatTheOtherPluginsMakeOfServices) {
  EXPECT_THAT(Refusal("service A {} service MockA {}"),
              HasSubstr("service p.MockA needs the C++ name p::MockAStub, which the gRPC mock of service p.A"));
  EXPECT_THAT(Refusal("option cc_generic_services = true; service A {} service A_ {}"),
              HasSubstr("service p.A_ needs the C++ name p::A_Stub, which the generic stub of service p.A"));
  EXPECT_EQ(Refusal("service A {} service A_ {}"), "");
}

TEST(RefusalsTest, NamesInImportedFilesAndInFilesOfTheSameRun) {
  InMemoryProtos protos(
      InMemoryProtos::Files{{"taken.proto", "syntax = 'proto3'; package p;\nmessage KvStub {}"},
                            {"between.proto", "syntax = 'proto3'; import 'taken.proto';"},
                            {"importer.proto", "syntax = 'proto3'; package p; import 'between.proto';\nservice Kv {}"},
                            {"alone.proto", "syntax = 'proto3'; package p;\nservice Kv2 {}"},
                            {"other.proto", "syntax = 'proto3'; package q; import 'taken.proto';\nservice Kv {}"},
                            {"late.proto", "syntax = 'proto3'; package p;\nmessage Kv2Stub {}"}});
  const std::string taken =
      "importer.proto:2:1: service p.Kv needs the C++ name p::KvStub, which message p.KvStub "
      "(taken.proto:2:1) has; rename one of them";
  EXPECT_EQ(RunInMemory(protos, {"importer.proto"}).error, taken);
  EXPECT_EQ(RunInMemory(protos, {"alone.proto"}).error, "");
  EXPECT_EQ(RunInMemory(protos, {"alone.proto", "late.proto"}).error,
            "alone.proto:2:1: service p.Kv2 needs the C++ name p::Kv2Stub, which message p.Kv2Stub (late.proto:2:1) "
            "has; rename one of them");
  EXPECT_EQ(RunInMemory(protos, {"other.proto"}).error, "");
}

TEST(RefusalsTest, NamespacesAndTheGlobalScope) {
  InMemoryProtos protos(InMemoryProtos::Files{
      {"inner.proto", "syntax = 'proto3'; package a.b.KvActor.c;"},
      {"outer.proto", "syntax = 'proto3'; package a.b; import 'inner.proto'; service Kv {}"},
      {"top.proto", "syntax = 'proto3'; package TopStub;"},
      {"global.proto", "syntax = 'proto3'; import 'top.proto'; service Top {}"},
      {"fine.proto", "syntax = 'proto3'; package x; import 'top.proto'; import 'inner.proto'; service Top {}"}});
  EXPECT_EQ(RunInMemory(protos, {"outer.proto"}).error,
            "outer.proto:1:55: service a.b.Kv needs the C++ name a::b::KvActor, which package a.b.KvActor.c "
            "(inner.proto) has; rename one of them");
  EXPECT_EQ(RunInMemory(protos, {"global.proto"}).error,
            "global.proto:1:40: service Top needs the C++ name TopStub, which package TopStub (top.proto) has; rename "
            "one of them");
  EXPECT_EQ(RunInMemory(protos, {"fine.proto"}).error, "");
}

TEST(RefusalsTest, ClassesAreCheckedInTheScopeOfTheServiceOnly) {
  EXPECT_EQ(Refusal("service A {} message B { message AStub {} message AActor {} enum E { AProtocol = 0; } }"), "");
  EXPECT_EQ(Refusal("service A {} message a_actor {} message Actor {} message Stub {}"), "");
}

TEST(RefusalsTest, KeywordsInThePackageOfAService) {
  InMemoryProtos protos(InMemoryProtos::Files{{"a.proto", "syntax = 'proto3'; package x.concept.v1; service A {}"},
                                              {"b.proto", "syntax = 'proto3'; package x.concept.v1; message M {}"}});
  EXPECT_EQ(RunInMemory(protos, {"a.proto"}).error,
            "a.proto:1:20: package x.concept.v1 holds the C++ keyword concept, which this version of protoc makes a "
            "namespace; rename it");
  EXPECT_EQ(RunInMemory(protos, {"b.proto"}).error, "");
}

TEST(RefusalsTest, NamespacesOfTheFrameworkAndOfCpp) {
  InMemoryProtos protos(InMemoryProtos::Files{{"a.proto", "syntax = 'proto3';\npackage troupe; service A {}"},
                                              {"b.proto", "syntax = 'proto3';\npackage std; service A {}"},
                                              {"c.proto", "syntax = 'proto3';\npackage std.v1; service A {}"},
                                              {"d.proto", "syntax = 'proto3'; package troupe.v1; service A {}"},
                                              {"e.proto", "syntax = 'proto3'; package a.troupe; service A {}"},
                                              {"f.proto", "syntax = 'proto3'; package a.std; service A {}"},
                                              {"g.proto", "syntax = 'proto3'; package stdlib; service A {}"},
                                              {"h.proto", "syntax = 'proto3'; package absl; service A {}"},
                                              {"i.proto", "syntax = 'proto3'; package std; message M {}"}});
  EXPECT_EQ(RunInMemory(protos, {"a.proto"}).error,
            "a.proto:2:1: package troupe is the framework's own namespace, where a generated class could meet one of "
            "its names; put the service into a package of another name, or below it");
  EXPECT_EQ(RunInMemory(protos, {"b.proto"}).error,
            "b.proto:2:1: package std is within the namespace std, which C++ keeps for itself; put the service into a "
            "package of another name");
  EXPECT_EQ(RunInMemory(protos, {"c.proto"}).error,
            "c.proto:2:1: package std.v1 is within the namespace std, which C++ keeps for itself; put the service into "
            "a package of another name");
  for (const char* fine : {"d.proto", "e.proto", "f.proto", "g.proto", "h.proto", "i.proto"}) {
    EXPECT_EQ(RunInMemory(protos, {fine}).error, "") << fine;
  }
}

// As protoc hands over an option that was read with a newer troupe/options.proto.
TEST(RefusalsTest, OptionsOfANewerRelease) {
  google::protobuf::FileDescriptorProto file;
  file.set_name("p.proto");
  file.set_package("p");
  file.add_dependency("troupe/options.proto");
  file.add_message_type()->set_name("M");
  google::protobuf::ServiceDescriptorProto& service = *file.add_service();
  service.set_name("A");
  google::protobuf::MethodDescriptorProto& method = *service.add_method();
  method.set_name("Do");
  method.set_input_type(".p.M");
  method.set_output_type(".p.M");
  const auto refusals = [&file] {
    google::protobuf::DescriptorPool pool(google::protobuf::DescriptorPool::generated_pool());
    const google::protobuf::FileDescriptor* built = pool.BuildFile(file);
    std::vector<std::string> lines = Refusals({&built, 1});
    return lines.empty() ? "" : lines.front();
  };
  const auto add_unknown = [](google::protobuf::Message& declaration) {
    declaration.GetReflection()->MutableUnknownFields(&declaration)->AddVarint(99, 1);
  };
  EXPECT_EQ(refusals(), "");
  add_unknown(*method.mutable_options()->MutableExtension(troupe::call));
  EXPECT_EQ(
      refusals(),
      "p.proto: p.A.Do: option (troupe.call) has the field number 99, which this protoc-gen-troupe does not know; "
      "use the plugin and the troupe/options.proto of one release");
  add_unknown(*service.mutable_options()->MutableExtension(troupe::actor));
  EXPECT_THAT(refusals(), HasSubstr("p.proto: p.A: option (troupe.actor) has the field number 99"));
  add_unknown(*service.mutable_options()->MutableExtension(troupe::session));
  EXPECT_THAT(refusals(), HasSubstr("p.proto: p.A: option (troupe.session) has the field number 99"));
}

TEST(RefusalsTest, RpcsThatWouldBeOneFunction) {
  EXPECT_EQ(Refusal("service A { rpc delete(M) returns (M);\nrpc delete_(M) returns (M); }"),
            "p.proto:3:1: rpcs p.A.delete and p.A.delete_ would both be the C++ function delete_; rename one of them");
  EXPECT_EQ(Refusal("service A { rpc ConnectionLost_(M) returns (M);\nrpc ConnectionLost(M) returns (M); }"),
            "p.proto:3:1: rpcs p.A.ConnectionLost_ and p.A.ConnectionLost would both be the C++ function "
            "ConnectionLost_; rename one of them");
  EXPECT_EQ(Refusal("service A { rpc delete(M) returns (M); } service B { rpc delete_(M) returns (M); }"), "");
}

TEST(RefusalsTest, OneWayRpcsReturnEmptyAndDoNotStream) {
  const std::string one_way = " { option (troupe.call) = { one_way: true }; } }";
  EXPECT_EQ(
      Refusal(absl::StrCat("service A {\nrpc Tell(M) returns (M)", one_way)),
      "p.proto:3:1: rpc p.A.Tell is one_way and must return google.protobuf.Empty, not p.M; nobody would read it");
  EXPECT_EQ(Refusal(absl::StrCat("service A {\nrpc Tell(stream M) returns (google.protobuf.Empty)", one_way)),
            "p.proto:3:1: rpc p.A.Tell is one_way and must not stream: it is one request that nobody answers");
  EXPECT_EQ(Refusal(absl::StrCat("service A {\nrpc Tell(M) returns (stream google.protobuf.Empty)", one_way)),
            "p.proto:3:1: rpc p.A.Tell is one_way and must not stream: it is one request that nobody answers");
  EXPECT_EQ(Refusal(absl::StrCat("service A { rpc Tell(M) returns (google.protobuf.Empty)", one_way)), "");
  EXPECT_EQ(Refusal("service A { rpc Ask(M) returns (M) { option (troupe.call) = { one_way: false }; } }"), "");
}

TEST(RefusalsTest, WrongSessionOrders) {
  EXPECT_EQ(Refusal("service A { option (troupe.session) = { order: 'In (Do' };\n"
                    "rpc In(M) returns (M); rpc Do(M) returns (M); }"),
            "p.proto:2:1: service p.A: session order, at its end: \")\" expected");
  EXPECT_EQ(Refusal("service A { option (troupe.session) = { order: 'In Do*' anytime: 'Out' };\n"
                    "rpc In(M) returns (M); rpc Do(M) returns (M); rpc Out(M) returns (M); }"),
            "");
}

TEST(RefusalsTest, OneWayRpcsDoNotMoveTheSession) {
  const auto service = [](const std::string& order) {
    return absl::StrCat("service A { option (troupe.session) = { order: '", order, "' };\nrpc In(M) returns (M);\n",
                        "rpc Tell(M) returns (google.protobuf.Empty) { option (troupe.call) = { one_way: true }; } }");
  };
  EXPECT_EQ(Refusal(service("In Tell")),
            "p.proto:4:1: rpc p.A.Tell is one_way and moves its session, whose caller would not know where it stands; "
            "drop one_way, or name the rpc in anytime");
  EXPECT_EQ(Refusal(service("In Tell*")), "");
}

TEST(RefusalsTest, AllOfThemAreSaidAtOnce) {
  EXPECT_EQ(Refusal("service A { rpc delete(M) returns (M); rpc delete_(M) returns (M); }\nmessage AStub {}"),
            "p.proto:2:1: service p.A needs the C++ name p::AStub, which message p.AStub (p.proto:3:1) has; rename one "
            "of them\n"
            "p.proto:2:40: rpcs p.A.delete and p.A.delete_ would both be the C++ function delete_; rename one of them");
}

}  // namespace
}  // namespace troupe::generator
