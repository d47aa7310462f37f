// The generator's output, compared with the golden files, and what must hold of any output.
// After a change that is meant: bazel run //tools/protoc_gen_troupe:update_golden
#include "tools/protoc_gen_troupe/generator.h"

#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tools/protoc_gen_troupe/golden.h"
#include "tools/protoc_gen_troupe/in_memory.h"

namespace troupe::generator {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Key;
using ::testing::Not;
using ::testing::Pair;

std::string ReadGolden(const std::string& path) {
  std::ifstream file(absl::StrCat(kGoldenFolder, "/", path), std::ios::binary);
  EXPECT_TRUE(file) << "no golden file " << path;
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// The files of one source, which must be accepted.
InMemoryOutput Generate(const std::string& source) {
  InMemoryProtos protos(InMemoryProtos::Files{{"a/b.proto", source}});
  InMemoryOutput output = RunInMemory(protos, {"a/b.proto"});
  EXPECT_EQ(output.error, "");
  return output;
}

class GoldenTest : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenTest, OutputIsWhatStandsBesideTheInput) {
  InMemoryProtos protos(kGoldenFolder);
  const InMemoryOutput output = RunInMemory(protos, {GetParam()});
  ASSERT_EQ(output.error, "");
  ASSERT_EQ(output.files.size(), 2u);
  for (const auto& [path, text] : output.files) EXPECT_EQ(text, ReadGolden(path)) << path;
}

INSTANTIATE_TEST_SUITE_P(All, GoldenTest, ::testing::ValuesIn(kGoldenProtos), [](const auto& info) {
  std::string name(info.param);
  for (char& c : name) c = c == '/' || c == '.' ? '_' : c;
  return name;
});

TEST(GeneratorTest, AcceptsProto3Optional) {
  EXPECT_EQ(Generator().GetSupportedFeatures(), Generator::FEATURE_PROTO3_OPTIONAL);
}

TEST(GeneratorTest, WritesBothFilesWithoutAService) {
  const InMemoryOutput output = Generate("syntax = 'proto3'; message M {}");
  EXPECT_THAT(output.files, ElementsAre(Pair("a/b.troupe.cc", HasSubstr("#include \"a/b.troupe.h\"\n")),
                                        Pair("a/b.troupe.h", HasSubstr("#include \"a/b.pb.h\"\n"))));
}

TEST(GeneratorTest, OneRunWritesTheFilesOfAllProtosInIt) {
  InMemoryProtos protos(InMemoryProtos::Files{
      {"one.proto", "syntax = 'proto3'; package x; message M {} service One { rpc Do(M) returns (M); }"},
      {"two.proto", "syntax = 'proto3'; package x; import 'one.proto'; service Two { rpc Do(M) returns (M); }"}});
  const InMemoryOutput output = RunInMemory(protos, {"one.proto", "two.proto"});
  EXPECT_EQ(output.error, "");
  EXPECT_THAT(output.files,
              ElementsAre(Key("one.troupe.cc"), Key("one.troupe.h"), Key("two.troupe.cc"), Key("two.troupe.h")));
}

TEST(GeneratorTest, ARefusedFileWritesNothingOfTheWholeRun) {
  InMemoryProtos protos(InMemoryProtos::Files{
      {"good.proto", "syntax = 'proto3'; package x; message M {} service Good { rpc Do(M) returns (M); }"},
      {"bad.proto", "syntax = 'proto3'; package y; message AStub {} service A { rpc Do(AStub) returns (AStub); }"}});
  const InMemoryOutput output = RunInMemory(protos, {"good.proto", "bad.proto"});
  EXPECT_THAT(output.error, HasSubstr("bad.proto"));
  EXPECT_THAT(output.files, ElementsAre());
}

TEST(GeneratorTest, RefusesParameters) {
  InMemoryProtos protos(InMemoryProtos::Files{{"a.proto", "syntax = 'proto3';"}});
  const InMemoryOutput output = RunInMemory(protos, {"a.proto"}, "comments=false");
  EXPECT_EQ(output.error, "protoc-gen-troupe takes no parameters, but was given \"comments=false\"");
  EXPECT_THAT(output.files, ElementsAre());
}

TEST(GeneratorTest, MessagesOfImportedFilesComeThroughTheFilesOwnHeader) {
  InMemoryProtos protos(InMemoryProtos::Files{
      {"deep/types.proto", "syntax = 'proto3'; package t; message M { message N {} }"},
      {"front.proto", "syntax = 'proto3'; import public 'deep/types.proto';"},
      {"a.proto", "syntax = 'proto3'; package a; import 'front.proto'; service S { rpc Do(t.M) returns (t.M.N); }"}});
  const InMemoryOutput output = RunInMemory(protos, {"a.proto"});
  ASSERT_EQ(output.error, "");
  const std::string& header = output.files.at("a.troupe.h");
  EXPECT_THAT(header, HasSubstr("#include \"a.pb.h\"\n"));
  EXPECT_THAT(header, Not(HasSubstr("types.pb.h")));
  EXPECT_THAT(header, HasSubstr("Do(const ::t::M& request, ::t::M_N& response, ::troupe::Call& call)"));
}

TEST(GeneratorTest, LinesOfCodeStayWithin120ColumnsWhereNamesAllow) {
  std::string source = "syntax = 'proto3'; package p.v1; service Service {";
  for (size_t size = 1; size < 40; ++size) {
    absl::StrAppend(&source, "rpc ", std::string(size, 'R'), "(M) returns (stream M); ");
    absl::StrAppend(&source, "rpc ", std::string(size, 'S'), "(stream M) returns (M);");
  }
  const InMemoryOutput output = Generate(absl::StrCat(source, "} message M {}"));
  for (const auto& [path, text] : output.files) {
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 120u) << path << ": " << line;
  }
}

TEST(GeneratorTest, AServiceMayHaveThousandsOfRpcs) {
  std::string source = "syntax = 'proto3'; package p; message M {} service Large {";
  for (int i = 0; i < 5000; ++i) absl::StrAppend(&source, "rpc Do", i, "(M) returns (stream M);\n");
  const InMemoryOutput output = Generate(absl::StrCat(source, "}"));
  EXPECT_THAT(output.files.at("a/b.troupe.cc"), HasSubstr("service_info().methods[4999]"));
  EXPECT_THAT(output.files.at("a/b.troupe.h"), HasSubstr("ClientReader<::p::M> Do4999("));
}

TEST(GeneratorTest, CommentsThatStandApartAreCarriedOver) {
  const InMemoryOutput output = Generate(R"(
// A licence.

// What the file is for.
syntax = "proto3";

// A chapter.

// The service.
service S {
  rpc First(M) returns (M);

  // A group
  // of rpcs.

  /* Before it.
   * Two lines. */
  rpc Do(M) returns (M);  // Behind it.
}
message M {}
)");
  const std::string& header = output.files.at("a/b.troupe.h");
  EXPECT_THAT(header, HasSubstr("Do not edit.\n//\n// A licence.\n//\n// What the file is for.\n#ifndef"));
  EXPECT_THAT(header,
              HasSubstr("\n// A chapter.\n\n// The server side of S: by default one object is one connection's.\n"
                        "//\n// The service.\n//\n"));
  const std::string comment =
      "  // A group\n  // of rpcs.\n\n  // Before it.\n  // Two lines.\n  //\n  // Behind it.\n  ";
  EXPECT_THAT(header, HasSubstr(comment + "virtual ::troupe::Task")) << "in the actor";
  EXPECT_THAT(header, HasSubstr(comment + "[[nodiscard]] ::troupe::Reply")) << "in the stub";
}

TEST(GeneratorTest, TheHeadOfAFileWithoutASyntaxStandsAboveItsPackage) {
  const InMemoryOutput output = Generate("// A licence.\npackage p; message M {} service S { rpc Do(M) returns (M); }");
  EXPECT_THAT(output.files.at("a/b.troupe.h"), HasSubstr("Do not edit.\n//\n// A licence.\n#ifndef"));
}

TEST(GeneratorTest, GeneratedCodeNamesNothingThatAPackageCouldHide) {
  InMemoryProtos protos(kGoldenFolder);
  const InMemoryOutput output = RunInMemory(protos, {"library/v1/library.proto"});
  for (const auto& [path, text] : output.files) {
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      if (absl::StrContains(line, "//")) continue;
      for (const std::string name : {"troupe::", "std::", "absl::", "google::", "library::"}) {
        for (size_t at = line.find(name); at != std::string::npos; at = line.find(name, at + 1)) {
          if (absl::StartsWith(line, "namespace ")) continue;
          EXPECT_TRUE(at >= 2 && line.substr(at - 2, 2) == "::") << path << ": " << line;
        }
      }
    }
  }
}

}  // namespace
}  // namespace troupe::generator
