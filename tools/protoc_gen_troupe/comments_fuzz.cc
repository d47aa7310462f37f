// Whatever stands in a comment of a .proto, what comes out is a comment on every line and nothing else.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "tools/protoc_gen_troupe/comments.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const std::string comment = troupe::generator::AsComment(troupe::generator::CommentLines(text), "");
  if (comment.empty()) return 0;
  if (comment.back() != '\n') std::abort();
  const std::vector<std::string> lines = absl::StrSplit(comment.substr(0, comment.size() - 1), '\n');
  for (const std::string& line : lines) {
    if (!absl::StartsWith(line, "//")) std::abort();
    for (const char* end : {"\\",
                            "?"
                            "?/",
                            " ", "\r"}) {
      if (absl::EndsWith(line, end)) std::abort();
    }
    for (const char c : line) {
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) std::abort();
    }
  }
  return 0;
}
