// Records in text, as the kv client loads them: the same however the text is cut.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "services/kv/records.h"
#include "testing/fuzz/fuzz.h"

namespace {

std::string Read(absl::string_view text, kv::RecordFormat format, size_t piece) {
  kv::RecordParser parser(format, "Package", 1000);
  std::vector<kv::Record> records;
  absl::Status status;
  for (size_t at = 0; at < text.size() && status.ok(); at += piece) {
    status = parser.Parse(text.substr(at, piece), &records);
  }
  if (status.ok()) status = parser.Finish(&records);
  std::string all;
  for (const kv::Record& record : records) {
    REQUIRE(record.key.size() + record.value.size() <= 2 * 1000 + 2);
    all += record.key + "=" + record.value + ";";
  }
  return all + status.ToString();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  const absl::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto format = (data[0] & 1) != 0 ? kv::RecordFormat::kLines : kv::RecordFormat::kDeb822;
  REQUIRE(Read(text, format, text.size() + 1) == Read(text, format, data[0] / 2 % 16 + 1));
  return 0;
}
