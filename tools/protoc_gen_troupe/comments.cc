#include "tools/protoc_gen_troupe/comments.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "google/protobuf/descriptor.pb.h"

namespace troupe::generator {
namespace {

// The length of the UTF-8 sequence at the start of `text` (RFC 3629, section 4) and its code point; 0 for none.
size_t DecodeUtf8(absl::string_view text, uint32_t& code) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  const size_t size = lead < 0x80 ? 1 : lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
  if (size == 0 || text.size() < size) return 0;
  code = size == 1 ? lead : lead & (0x7F >> size);
  for (size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
    code = code << 6 | (byte(i) & 0x3F);
  }
  const bool overlong = (size == 3 && code < 0x800) || (size == 4 && code < 0x10000);
  const bool surrogate = code >= 0xD800 && code < 0xE000;
  return overlong || surrogate || code > 0x10FFFF ? 0 : size;
}

bool IsBidirectionalControl(uint32_t code) {
  return code == 0x061C || code == 0x200E || code == 0x200F || (code >= 0x202A && code <= 0x202E) ||
         (code >= 0x2066 && code <= 0x2069);
}

std::string CleanLine(absl::string_view line) {
  std::string result;
  while (!line.empty()) {
    uint32_t code = 0;
    const size_t size = DecodeUtf8(line, code);
    if (size == 0) {
      result += '?';
    } else if (code == '\t') {
      result += "  ";
    } else if (code < 0x20 || code == 0x7F) {
      result += ' ';
    } else if (IsBidirectionalControl(code)) {
      result += '?';
    } else {
      absl::StrAppend(&result, line.substr(0, size));
    }
    line.remove_prefix(size == 0 ? 1 : size);
  }
  result.erase(result.find_last_not_of(' ') + 1);
  // The trigraph is a backslash to compilers that still know it.
  if (absl::EndsWith(result, "\\") || absl::EndsWith(result,
                                                     "?"
                                                     "?/"))
    result += " .";
  return result;
}

template <class Descriptor>
std::vector<std::string> Comments(const Descriptor& descriptor) {
  google::protobuf::SourceLocation location;
  if (!descriptor.GetSourceLocation(&location)) return {};
  std::vector<std::string> lines = CommentLines(location.leading_comments);
  std::vector<std::string> trailing = CommentLines(location.trailing_comments);
  if (!lines.empty() && !trailing.empty()) lines.emplace_back();
  lines.insert(lines.end(), trailing.begin(), trailing.end());
  return lines;
}

void AppendParagraph(absl::string_view text, Paragraphs& paragraphs) {
  std::vector<std::string> lines = CommentLines(text);
  if (!lines.empty()) paragraphs.push_back(std::move(lines));
}

template <class Descriptor>
Paragraphs DetachedComments(const Descriptor& descriptor) {
  Paragraphs paragraphs;
  google::protobuf::SourceLocation location;
  if (!descriptor.GetSourceLocation(&location)) return paragraphs;
  for (const std::string& text : location.leading_detached_comments) AppendParagraph(text, paragraphs);
  return paragraphs;
}

}  // namespace

std::vector<std::string> CommentLines(absl::string_view text) {
  std::vector<std::string> lines;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) lines.push_back(CleanLine(line));
  while (!lines.empty() && lines.back().empty()) lines.pop_back();
  lines.erase(lines.begin(), std::find_if(lines.begin(), lines.end(), [](const std::string& l) { return !l.empty(); }));
  size_t indent = std::string::npos;
  for (const std::string& line : lines) {
    if (!line.empty()) indent = std::min(indent, line.find_first_not_of(' '));
  }
  for (std::string& line : lines) {
    if (!line.empty()) line.erase(0, indent);
  }
  return lines;
}

std::vector<std::string> CommentsOf(const google::protobuf::ServiceDescriptor& service) { return Comments(service); }
std::vector<std::string> CommentsOf(const google::protobuf::MethodDescriptor& method) { return Comments(method); }

Paragraphs DetachedCommentsOf(const google::protobuf::ServiceDescriptor& service) { return DetachedComments(service); }
Paragraphs DetachedCommentsOf(const google::protobuf::MethodDescriptor& method) { return DetachedComments(method); }

Paragraphs HeadOf(const google::protobuf::FileDescriptor& file) {
  Paragraphs paragraphs;
  // protoc wants `syntax` before anything else; a file of proto2 may begin with its package.
  for (const int field : {google::protobuf::FileDescriptorProto::kSyntaxFieldNumber,
                          google::protobuf::FileDescriptorProto::kPackageFieldNumber}) {
    google::protobuf::SourceLocation location;
    if (!file.GetSourceLocation({field}, &location)) continue;
    for (const std::string& text : location.leading_detached_comments) AppendParagraph(text, paragraphs);
    AppendParagraph(location.leading_comments, paragraphs);
    break;
  }
  return paragraphs;
}

std::string AsComment(const std::vector<std::string>& lines, absl::string_view indent) {
  std::string result;
  for (const std::string& line : lines) absl::StrAppend(&result, indent, line.empty() ? "//" : "// ", line, "\n");
  return result;
}

}  // namespace troupe::generator
