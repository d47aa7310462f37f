#include "services/kv/records.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gtest/gtest.h"

namespace kv {
namespace {

// "[a=1][b=2]", then the error if there is one. The same whatever pieces the text arrives in.
std::string Parse(RecordFormat format, const std::string& text, size_t record_bytes_max = 1000) {
  std::string first;
  for (size_t piece = 1; piece <= text.size() + 1; ++piece) {
    RecordParser parser(format, "Package", record_bytes_max);
    std::vector<Record> records;
    absl::Status status;
    for (size_t at = 0; at < text.size() && status.ok(); at += piece) {
      status = parser.Parse(text.substr(at, piece), &records);
    }
    if (status.ok()) status = parser.Finish(&records);
    std::string result;
    for (const Record& record : records) absl::StrAppend(&result, "[", record.key, "=", record.value, "]");
    if (!status.ok()) absl::StrAppend(&result, status.ToString());
    if (piece == 1) first = result;
    EXPECT_EQ(result, first) << "in pieces of " << piece;
  }
  return first;
}

std::string Lines(const std::string& text) { return Parse(RecordFormat::kLines, text); }
std::string Deb822(const std::string& text) { return Parse(RecordFormat::kDeb822, text); }

TEST(RecordsTest, Lines) {
  EXPECT_EQ(Lines(""), "");
  EXPECT_EQ(Lines("a\t1\nb\t2\n"), "[a=1][b=2]");
  EXPECT_EQ(Lines("a\t1"), "[a=1]") << "without a last newline";
  EXPECT_EQ(Lines("\na\t1\n\n\nb\t\n"), "[a=1][b=]");
  EXPECT_EQ(Lines("a b\t1\t2 \n"), "[a b=1\t2 ]");
  EXPECT_EQ(Lines("a\t1\nb 2\nc\t3\n"), "[a=1]INVALID_ARGUMENT: line 2: no tab between key and value");
}

TEST(RecordsTest, Stanzas) {
  EXPECT_EQ(Deb822(""), "");
  EXPECT_EQ(Deb822("Package: a\nVersion: 1\n\nPackage: b\n"), "[a=Package: a\nVersion: 1\n][b=Package: b\n]");
  EXPECT_EQ(Deb822("Package: a"), "[a=Package: a\n]");
  EXPECT_EQ(Deb822("\n\nPackage: a\n \t\n\n\nPackage: b\n\n"), "[a=Package: a\n][b=Package: b\n]");
  EXPECT_EQ(Deb822("Version: 1\npackage:a\n"), "[a=Version: 1\npackage:a\n]");
  EXPECT_EQ(Deb822("Package: a\nDescription: x\n Package: b\n .\n y\n"),
            "[a=Package: a\nDescription: x\n Package: b\n .\n y\n]")
      << "a further line is no field";
  EXPECT_EQ(Deb822("Package: a\n\nVersion: 1\nX: 2\n\nPackage: b\n"),
            "[a=Package: a\n]INVALID_ARGUMENT: line 3: the stanza has no field \"Package\"");
  EXPECT_EQ(Deb822("Package:\n"), "INVALID_ARGUMENT: line 1: the stanza has no field \"Package\"");
}

TEST(RecordsTest, RecordsAreBounded) {
  EXPECT_EQ(Parse(RecordFormat::kLines, "a\t12345678\n", 10), "[a=12345678]");
  EXPECT_EQ(Parse(RecordFormat::kLines, "b\t1\na\t123456789\n", 10),
            "[b=1]INVALID_ARGUMENT: line 2: the record has more than 10 bytes");
  EXPECT_EQ(Parse(RecordFormat::kDeb822, "Package: a\nX: 1\n", 15),
            "INVALID_ARGUMENT: line 2: the record has more than 15 bytes");
  EXPECT_EQ(Parse(RecordFormat::kDeb822, "Package: a\nX: 1\n", 16), "[a=Package: a\nX: 1\n]");
}

}  // namespace
}  // namespace kv
