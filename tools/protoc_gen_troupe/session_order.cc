#include "tools/protoc_gen_troupe/session_order.h"

#include <algorithm>
#include <cstddef>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "troupe/base/status_macros.h"

namespace troupe::generator {
namespace {

template <class Words>
bool Contains(const Words& words, absl::string_view word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

bool IsNameCharacter(char c) { return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_'; }

class OrderParser {
 public:
  OrderParser(absl::string_view text, absl::Span<const std::string> methods) : text_(text), methods_(methods) {}

  absl::Status Parse() {
    RETURN_IF_ERROR(Alternative(0));
    if (Peek() == ')') return Error("\")\" without \"(\"");
    return absl::OkStatus();
  }

  const std::set<std::string>& named() const { return named_; }

 private:
  absl::Status Alternative(int depth) {
    RETURN_IF_ERROR(Sequence(depth));
    while (Peek() == '|') {
      ++position_;
      RETURN_IF_ERROR(Sequence(depth));
    }
    return absl::OkStatus();
  }

  absl::Status Sequence(int depth) {
    RETURN_IF_ERROR(Repetition(depth));
    while (Peek() != '\0' && Peek() != '|' && Peek() != ')') RETURN_IF_ERROR(Repetition(depth));
    return absl::OkStatus();
  }

  absl::Status Repetition(int depth) {
    if (Peek() == '(') {
      if (depth == kSessionOrderDepthMax) return Error(absl::StrCat("more than ", depth, " nested parentheses"));
      ++position_;
      RETURN_IF_ERROR(Alternative(depth + 1));
      if (Peek() != ')') return Error("\")\" expected");
      ++position_;
    } else {
      RETURN_IF_ERROR(Method());
    }
    if (const char c = Peek(); c == '*' || c == '+' || c == '?') ++position_;
    return absl::OkStatus();
  }

  absl::Status Method() {
    if (!IsNameCharacter(Peek())) return Error("a method or \"(\" expected");
    const size_t start = position_;
    while (position_ < text_.size() && IsNameCharacter(text_[position_])) ++position_;
    const std::string name(text_.substr(start, position_ - start));
    if (!Contains(methods_, name)) {
      position_ = start;
      return Error(absl::StrCat("the service has no method ", name));
    }
    named_.insert(name);
    return absl::OkStatus();
  }

  // The next character that is not a blank; 0 at the end.
  char Peek() {
    while (position_ < text_.size() && absl::ascii_isspace(static_cast<unsigned char>(text_[position_]))) ++position_;
    return position_ < text_.size() ? text_[position_] : '\0';
  }

  absl::Status Error(absl::string_view what) {
    const absl::string_view rest = text_.substr(position_);
    return absl::InvalidArgumentError(
        absl::StrCat("session order, ", rest.empty() ? "at its end" : absl::StrCat("at \"", rest, "\""), ": ", what));
  }

  absl::string_view text_;
  absl::Span<const std::string> methods_;
  size_t position_ = 0;
  std::set<std::string> named_;
};

}  // namespace

absl::Status CheckSessionOrder(absl::string_view order, absl::Span<const std::string> anytime,
                               absl::Span<const std::string> methods) {
  if (absl::StripAsciiWhitespace(order).empty()) {
    if (anytime.empty()) return absl::OkStatus();
    return absl::InvalidArgumentError("methods of any time without a session order");
  }
  OrderParser parser(order, methods);
  RETURN_IF_ERROR(parser.Parse());
  for (size_t i = 0; i < anytime.size(); ++i) {
    const std::string& name = anytime[i];
    if (!Contains(methods, name)) {
      return absl::InvalidArgumentError(absl::StrCat("session anytime: the service has no method ", name));
    }
    if (Contains(anytime.first(i), name)) {
      return absl::InvalidArgumentError(absl::StrCat("session anytime: ", name, " stands there twice"));
    }
    if (Contains(parser.named(), name)) {
      return absl::InvalidArgumentError(absl::StrCat("session anytime: ", name, " stands in the order too"));
    }
  }
  for (const std::string& name : methods) {
    if (!Contains(parser.named(), name) && !Contains(anytime, name)) {
      return absl::InvalidArgumentError(absl::StrCat("session order: ", name,
                                                     " could never be called: it stands neither in the order nor "
                                                     "in anytime"));
    }
  }
  return absl::OkStatus();
}

}  // namespace troupe::generator
