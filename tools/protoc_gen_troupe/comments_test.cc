#include "tools/protoc_gen_troupe/comments.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace troupe::generator {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(CommentLinesTest, KeepsParagraphsAndRelativeIndentation) {
  EXPECT_THAT(CommentLines(" One.\n\n   Two.\n Three.\n"), ElementsAre("One.", "", "  Two.", "Three."));
}

TEST(CommentLinesTest, DropsBlanksAroundAndBehind) {
  EXPECT_THAT(CommentLines("\n \n  One.  \t\n   \n\n"), ElementsAre("One."));
  EXPECT_THAT(CommentLines(""), IsEmpty());
  EXPECT_THAT(CommentLines(" \n\t\n"), IsEmpty());
}

TEST(CommentLinesTest, ABlankLineDoesNotCountForIndentation) {
  EXPECT_THAT(CommentLines("    One.\n\n    Two.\n"), ElementsAre("One.", "", "Two."));
}

TEST(CommentLinesTest, NoLineContinuesTheNext) {
  EXPECT_THAT(CommentLines("C:\\\nnext\n"), ElementsAre("C:\\ .", "next"));
  EXPECT_THAT(CommentLines("C:\\ \t\nnext\n"), ElementsAre("C:\\ .", "next"));
  EXPECT_THAT(CommentLines("C:\\\r\nnext\r\n"), ElementsAre("C:\\ .", "next"));
  EXPECT_THAT(CommentLines("why?"
                           "?/\nnext\n"),
              ElementsAre("why?"
                          "?/ .",
                          "next"));
  EXPECT_THAT(CommentLines("a\\b\n"), ElementsAre("a\\b"));
}

TEST(CommentLinesTest, ControlCharactersBecomeBlanks) {
  EXPECT_THAT(CommentLines("a\rb\fc\vd\x7f"
                           "e\n"),
              ElementsAre("a b c d e"));
  EXPECT_THAT(CommentLines(absl::string_view("a\0b", 3)), ElementsAre("a b"));
}

TEST(CommentLinesTest, KeepsUtf8AndReplacesWhatIsNot) {
  EXPECT_THAT(CommentLines("Zürich, 東京, 😈"), ElementsAre("Zürich, 東京, 😈"));
  EXPECT_THAT(CommentLines("a\xff"
                           "b"),
              ElementsAre("a?b"));
  EXPECT_THAT(CommentLines("a\xc3"), ElementsAre("a?"));
  EXPECT_THAT(CommentLines("a\xc0\xaf"), ElementsAre("a??")) << "overlong";
  EXPECT_THAT(CommentLines("a\xe0\x80\x80"), ElementsAre("a???")) << "overlong";
  EXPECT_THAT(CommentLines("a\xf0\x80\x80\x80"), ElementsAre("a????")) << "overlong";
  EXPECT_THAT(CommentLines("a\xed\xa0\x80"), ElementsAre("a???")) << "a surrogate";
  EXPECT_THAT(CommentLines("a\xf4\x90\x80\x80"), ElementsAre("a????")) << "beyond U+10FFFF";
}

TEST(CommentLinesTest, BidirectionalControlsCannotReorderCode) {
  EXPECT_THAT(CommentLines("a\u202eb\u2066c\u200fd"), ElementsAre("a?b?c?d"));
}

TEST(AsCommentTest, PutsTheMarkerBeforeEveryLine) {
  EXPECT_EQ(AsComment({"One.", "", "Two."}, "  "), "  // One.\n  //\n  // Two.\n");
  EXPECT_EQ(AsComment({}, "  "), "");
}

}  // namespace
}  // namespace troupe::generator
