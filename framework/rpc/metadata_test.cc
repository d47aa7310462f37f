#include "troupe/rpc/metadata.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/base/errors.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

TEST(Metadata, EmptyIsOnePointer) {
  static_assert(sizeof(Metadata) == sizeof(void*));
  Metadata metadata;
  EXPECT_TRUE(metadata.empty());
  EXPECT_EQ(metadata.size(), 0u);
  EXPECT_EQ(metadata.bytes(), 0u);
  EXPECT_FALSE(metadata.Get("key").has_value());
  EXPECT_THAT(metadata.GetAll("key"), IsEmpty());
  EXPECT_THAT(metadata.entries(), IsEmpty());
  EXPECT_EQ(metadata.Remove("key"), 0u);
}

TEST(Metadata, KeepsTheOrderAndAllValuesOfAKey) {
  Metadata metadata;
  metadata.Add("b", "1");
  metadata.Add("a", "2");
  metadata.Add("b", "3");
  EXPECT_EQ(metadata.Get("b"), "1");
  EXPECT_THAT(metadata.GetAll("b"), ElementsAre("1", "3"));
  EXPECT_THAT(metadata.entries(),
              ElementsAre(Metadata::Entry{"b", "1"}, Metadata::Entry{"a", "2"}, Metadata::Entry{"b", "3"}));
  EXPECT_EQ(metadata.bytes(), 3 * (2 + 32u));
}

TEST(Metadata, RemovesEveryValueOfAKey) {
  Metadata metadata = {{"b", "1"}, {"a", "2"}, {"b", "3"}};
  EXPECT_EQ(metadata.Remove("b"), 2u);
  EXPECT_THAT(metadata.entries(), ElementsAre(Metadata::Entry{"a", "2"}));
  EXPECT_EQ(metadata.Remove("a"), 1u);
  EXPECT_TRUE(metadata.empty());
}

TEST(Metadata, IsAValue) {
  Metadata a = {{"k", "v"}};
  Metadata copy = a;
  copy.Add("k", "w");
  EXPECT_EQ(a.size(), 1u);
  EXPECT_NE(a, copy);
  a = copy;
  EXPECT_EQ(a, copy);
  Metadata moved = std::move(a);
  EXPECT_EQ(moved, copy);
  a = Metadata();
  EXPECT_TRUE(a.empty());
  copy = a;
  EXPECT_TRUE(copy.empty());
}

TEST(Metadata, AddsAValueOfItsOwn) {
  Metadata metadata = {{"k", "a value too long to be kept in place"}};
  for (int i = 0; i < 20; ++i) metadata.Add(metadata.entries()[0].key, *metadata.Get("k"));
  EXPECT_THAT(metadata.GetAll("k"), ::testing::Each("a value too long to be kept in place"));
  EXPECT_EQ(metadata.size(), 21u);
}

TEST(Metadata, TakesEveryKeyCharacterThatIsAllowedAndNoOther) {
  for (int c = 0; c < 256; ++c) {
    const std::string key(1, static_cast<char>(c));
    const bool allowed = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || c == '_' || c == '.' || c == '-';
    EXPECT_EQ(Metadata::Validate(key, "v").ok(), allowed) << c;
  }
}

TEST(Metadata, TakesPrintableValuesAndAnyBytesInBinaryOnes) {
  for (int c = 0; c < 256; ++c) {
    const std::string value = std::string("a") + static_cast<char>(c) + "b";
    EXPECT_EQ(Metadata::Validate("key", value).ok(), c >= 0x20 && c <= 0x7E) << c;
    EXPECT_TRUE(Metadata::Validate("key-bin", value).ok()) << c;
  }
  EXPECT_TRUE(Metadata::Validate("key", "").ok());
  EXPECT_TRUE(Metadata::Validate("key-bin", " ").ok());
}

TEST(Metadata, SaysWhatIsWrong) {
  const auto why = [](absl::string_view key, absl::string_view value) {
    absl::Status status = Metadata::Validate(key, value);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(why("", "v"), HasSubstr("empty"));
  EXPECT_THAT(why("Upper", "v"), HasSubstr("\"Upper\" has a character outside"));
  EXPECT_THAT(why("grpc-timeout", "1S"), HasSubstr("reserved"));
  EXPECT_THAT(why("token", "se\ncret"), HasSubstr("not printable"));
  EXPECT_THAT(why("token", "se\ncret"), Not(HasSubstr("cret")));
  EXPECT_THAT(why("token", " v"), HasSubstr("space"));
  EXPECT_THAT(why("token", "v "), HasSubstr("space"));
  EXPECT_THAT(why(std::string(10000, 'A'), "v"), ::testing::SizeIs(::testing::Lt(200u)));
}

TEST(Metadata, AddThrowsAndTryAddTells) {
  Metadata metadata;
  EXPECT_THROW(metadata.Add("Bad", "v"), InvalidState);
  EXPECT_EQ(metadata.TryAdd("Bad", "v").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THROW((Metadata{{"grpc-x", "v"}}), InvalidState);
  EXPECT_TRUE(metadata.empty());
}

}  // namespace
}  // namespace troupe
