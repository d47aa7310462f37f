#include "troupe/rpc/internal/message_weight.h"

#include <string>

#include "absl/types/span.h"
#include "google/protobuf/descriptor.pb.h"
#include "google/protobuf/struct.pb.h"
#include "gtest/gtest.h"

namespace troupe::internal {
namespace {

using ::google::protobuf::FileDescriptorProto;
using ::google::protobuf::ListValue;
using ::google::protobuf::MessageLite;
using ::google::protobuf::SourceCodeInfo;

std::string Times(size_t times, const std::string& bytes) {
  std::string all;
  while (times-- > 0) all += bytes;
  return all;
}

// The least that it is light for.
size_t Weight(const std::string& bytes, const MessageLite& message = FileDescriptorProto::default_instance()) {
  size_t least = 0, most = 1 << 24;
  while (least < most) {
    const size_t middle = (least + most) / 2;
    if (IsLight(absl::MakeConstSpan(bytes), message, middle)) {
      most = middle;
    } else {
      least = middle + 1;
    }
  }
  return least;
}

TEST(MessageWeight, CountsFieldsByWhatTheyAre) {
  EXPECT_EQ(Weight(Times(4000, std::string("\x1a\x00", 2))), 4000u) << "strings";
  EXPECT_EQ(Weight(Times(4000, std::string("\x22\x00", 2))), 4000u) << "messages";
  EXPECT_EQ(Weight(Times(4000, std::string("\x50\x00", 2))), 1000u) << "integers";
  EXPECT_EQ(Weight(Times(4000, std::string("\xf8\x3e\x00", 3))), 16'000u) << "unknown ones";
  EXPECT_EQ(Weight(Times(4000, std::string("\xfa\x3e\x00", 3))), 16'000u) << "unknown strings";
  EXPECT_EQ(Weight(Times(4000, "\xfb\x3e\xfc\x3e")), 48'000u) << "unknown groups";
  EXPECT_EQ(Weight(Times(4000, std::string("\xfb\x3e\x08\x00\xfc\x3e", 6))), 64'000u) << "with something in them";
  EXPECT_EQ(Weight(Times(1000, std::string("\xf9\x3e") + std::string(8, '\x01')) +
                   Times(1000, std::string("\xfd\x3e") + std::string(4, '\x01'))),
            8000u);
}

TEST(MessageWeight, LooksIntoWhatIsKnown) {
  FileDescriptorProto file;
  for (int i = 0; i < 1000; ++i) file.add_message_type()->add_field()->set_name("f");
  EXPECT_EQ(Weight(file.SerializeAsString()), 3000u);
  SourceCodeInfo info;
  for (int i = 0; i < 100'000; ++i) info.add_location()->add_path(1);
  EXPECT_EQ(Weight(info.SerializeAsString(), info), 125'000u);
  info.Clear();
  for (int i = 0; i < 160'000; ++i) {
    if (i == 0) info.add_location();
    info.mutable_location(0)->add_path(1);
  }
  EXPECT_EQ(Weight(info.SerializeAsString(), info), 10'002u) << "packed";
}

TEST(MessageWeight, LongFieldsWeighNothing) {
  FileDescriptorProto file;
  file.set_name(std::string(1 << 20, 'x'));
  EXPECT_EQ(Weight(file.SerializeAsString()), 1u);
  EXPECT_EQ(Weight("\xfa\x3e\x80\x80\x40" + std::string(1 << 20, 'x')), 4u);
}

TEST(MessageWeight, ShortMessagesAreLight) {
  EXPECT_TRUE(IsLight(absl::MakeConstSpan(Times(1000, std::string("\xf8\x3e\x00", 3))), FileDescriptorProto(), 1));
}

// Of which nothing is known but that the program has a type for it.
TEST(MessageWeight, MessagesOfTheLiteRuntimeWeighAsWhatTheyMayBe) {
  const auto weighs_more_than = [](const std::string& bytes, size_t most) {
    return !IsLight(absl::MakeConstSpan(bytes), static_cast<const google::protobuf::Descriptor*>(nullptr), most);
  };
  const auto field = [](const std::string& content) {
    return "\x0a" + std::string(1, static_cast<char>(content.size())) + content;
  };
  const std::string many = Times(1000, field(""));
  EXPECT_TRUE(weighs_more_than(many, 999));
  EXPECT_FALSE(weighs_more_than(many, 1000));
  const std::string nested = Times(1000, field(field(field(""))));
  EXPECT_TRUE(weighs_more_than(nested, 2999));
  EXPECT_FALSE(weighs_more_than(nested, 3000));
  const std::string groups = Times(1000, "\x0b\x0c");
  EXPECT_TRUE(weighs_more_than(groups, 1000));
  EXPECT_FALSE(weighs_more_than(groups, 1250));
  // What breaks off is a string, and what was found in it counts no more.
  const std::string text = field(Times(30, field("")) + "\x07");
  EXPECT_FALSE(weighs_more_than(Times(1000, text), 1030));
  EXPECT_FALSE(weighs_more_than("\x0a\x80\x80\x80\x01" + std::string(2 << 20, '\0'), 1));
  // As deep as may be: not more than the parser goes, and no stack is used up.
  std::string deep;
  for (int i = 0; i < 120; ++i) deep = "\x0a" + std::string(1, static_cast<char>(deep.size() & 0x7f)) + deep;
  EXPECT_FALSE(weighs_more_than(deep, 1000));
}

TEST(MessageWeight, MalformedMessagesAreLeftToTheParser) {
  const std::string start = Times(2100, std::string("\x1a\x00", 2));
  for (const std::string& end :
       {std::string("\x1a\x05x"), std::string("\xff"), std::string("\x1f"), std::string("\x00", 1), std::string("\x0c"),
        std::string("\xfb\x3e"), std::string("\xf9\x3e\x01"), std::string("\xfd\x3e\x01"), Times(200, "\xfb\x3e"),
        std::string(11, '\xff')}) {
    EXPECT_TRUE(IsLight(absl::MakeConstSpan(start + end), FileDescriptorProto(), 5000));
    EXPECT_FALSE(FileDescriptorProto().ParsePartialFromString(start + end));
    EXPECT_FALSE(IsLight(absl::MakeConstSpan(start + end), FileDescriptorProto(), 1000)) << "too heavy before that";
  }
}

// As deep as the parser goes, and no deeper.
TEST(MessageWeight, NestedMessages) {
  ListValue list;
  ListValue* inner = &list;
  for (int i = 0; i < 45; ++i) inner = inner->add_values()->mutable_list_value();
  for (int i = 0; i < 4000; ++i) inner->add_values();
  EXPECT_EQ(Weight(list.SerializeAsString(), list), 4090u);
}

}  // namespace
}  // namespace troupe::internal
