// The comments of a .proto, as // comments of C++.
//
// What stands in a proto comment is text from anywhere; what comes out is always a comment and never more. A backslash
// at the end of a line would swallow the next one, carriage returns and control characters would hide, and compilers
// warn of bytes that are not UTF-8 and of unpaired bidirectional controls: all of them are defused.
// Threading: pure functions.
#ifndef TROUPE_PROTOC_GEN_TROUPE_COMMENTS_H_
#define TROUPE_PROTOC_GEN_TROUPE_COMMENTS_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "google/protobuf/descriptor.h"

namespace troupe::generator {

// The lines of a comment as protoc hands it over, without its markers: common indentation, blank lines at both ends and
// trailing blanks are gone.
std::vector<std::string> CommentLines(absl::string_view text);

// What is said before and behind the declaration, with an empty line between; detached comments are not included.
std::vector<std::string> CommentsOf(const google::protobuf::ServiceDescriptor& service);
std::vector<std::string> CommentsOf(const google::protobuf::MethodDescriptor& method);

// Comments above the declaration that an empty line keeps apart from it, such as the heading of a group of rpcs.
using Paragraphs = std::vector<std::vector<std::string>>;
Paragraphs DetachedCommentsOf(const google::protobuf::ServiceDescriptor& service);
Paragraphs DetachedCommentsOf(const google::protobuf::MethodDescriptor& method);

// What stands above the first statement of the file: its licence, and what it is for.
Paragraphs HeadOf(const google::protobuf::FileDescriptor& file);

// "// a\n//\n// b\n", each line behind `indent`. Empty for no lines.
std::string AsComment(const std::vector<std::string>& lines, absl::string_view indent);

}  // namespace troupe::generator

#endif  // TROUPE_PROTOC_GEN_TROUPE_COMMENTS_H_
