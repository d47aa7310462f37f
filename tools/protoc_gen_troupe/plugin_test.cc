// What protoc gets back: files, or an error in words.
#include "tools/protoc_gen_troupe/plugin.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace troupe::generator {
namespace {

using ::google::protobuf::FileDescriptorProto;
using ::google::protobuf::compiler::CodeGeneratorRequest;
using ::google::protobuf::compiler::CodeGeneratorResponse;
using ::testing::HasSubstr;

FileDescriptorProto& AddFile(CodeGeneratorRequest& request, const std::string& name, const std::string& syntax) {
  FileDescriptorProto& file = *request.add_proto_file();
  file.set_name(name);
  file.set_package("p");
  file.set_syntax(syntax);
  return file;
}

void AddService(FileDescriptorProto& file, const std::string& name) {
  file.add_message_type()->set_name("M");
  google::protobuf::ServiceDescriptorProto& service = *file.add_service();
  service.set_name(name);
  google::protobuf::MethodDescriptorProto& method = *service.add_method();
  method.set_name("Do");
  method.set_input_type(".p.M");
  method.set_output_type(".p.M");
}

TEST(PluginTest, WritesTheFilesThatAreAskedForAndSupportsProto3Optional) {
  CodeGeneratorRequest request;
  AddService(AddFile(request, "a.proto", "proto3"), "A");
  AddFile(request, "b.proto", "");
  request.add_file_to_generate("a.proto");
  const CodeGeneratorResponse response = Respond(request);
  EXPECT_FALSE(response.has_error()) << response.error();
  ASSERT_EQ(response.file_size(), 2);
  EXPECT_EQ(response.file(0).name(), "a.troupe.h");
  EXPECT_EQ(response.file(1).name(), "a.troupe.cc");
  EXPECT_EQ(response.supported_features(), uint64_t{CodeGeneratorResponse::FEATURE_PROTO3_OPTIONAL});
}

TEST(PluginTest, ARefusalIsTheErrorOfTheResponseAndNothingIsWritten) {
  CodeGeneratorRequest request;
  FileDescriptorProto& file = AddFile(request, "a.proto", "proto3");
  AddService(file, "A");
  file.add_message_type()->set_name("AStub");
  request.add_file_to_generate("a.proto");
  const CodeGeneratorResponse response = Respond(request);
  EXPECT_THAT(response.error(), HasSubstr("a.proto: service p.A needs the C++ name p::AStub, which message p.AStub"));
  EXPECT_EQ(response.file_size(), 0);
}

TEST(PluginTest, EditionsAreRefusedByName) {
  CodeGeneratorRequest request;
  AddFile(request, "deep/imported.proto", "editions");
  AddService(AddFile(request, "a.proto", "proto3"), "A");
  request.add_file_to_generate("a.proto");
  EXPECT_EQ(Respond(request).error(),
            "deep/imported.proto: its syntax is \"editions\", and protoc-gen-troupe knows proto2 and proto3; write "
            "syntax = \"proto3\" at its head");
}

TEST(PluginTest, DescriptorsThatDoNotFitTogetherAreAnErrorInWords) {
  CodeGeneratorRequest request;
  FileDescriptorProto& file = AddFile(request, "a.proto", "proto3");
  AddService(file, "A");
  file.mutable_service(0)->mutable_method(0)->set_input_type(".p.Missing");
  request.add_file_to_generate("a.proto");
  EXPECT_NE(Respond(request).error(), "");
  CodeGeneratorRequest absent;
  absent.add_file_to_generate("absent.proto");
  EXPECT_NE(Respond(absent).error(), "");
}

TEST(PluginTest, ParametersAreRefused) {
  CodeGeneratorRequest request;
  AddService(AddFile(request, "a.proto", "proto3"), "A");
  request.add_file_to_generate("a.proto");
  request.set_parameter("comments=false");
  EXPECT_EQ(Respond(request).error(), "protoc-gen-troupe takes no parameters, but was given \"comments=false\"");
}

}  // namespace
}  // namespace troupe::generator
