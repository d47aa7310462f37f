#include "services/kv/records.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "troupe/base/status_macros.h"

namespace kv {

RecordParser::RecordParser(RecordFormat format, std::string key_field, size_t record_bytes_max)
    : format_(format), key_field_(std::move(key_field)), record_bytes_max_(record_bytes_max) {}

absl::Status RecordParser::Parse(absl::string_view text, std::vector<Record>* records) {
  while (true) {
    const size_t end = text.find('\n');
    if (rest_.size() + (end == absl::string_view::npos ? text.size() : end) > record_bytes_max_)
      return TooLong(line_ + 1);
    if (end == absl::string_view::npos) break;
    if (rest_.empty()) {
      RETURN_IF_ERROR(OnLine(text.substr(0, end), records));
    } else {
      absl::StrAppend(&rest_, text.substr(0, end));
      RETURN_IF_ERROR(OnLine(rest_, records));
      rest_.clear();
    }
    text.remove_prefix(end + 1);
  }
  absl::StrAppend(&rest_, text);
  return absl::OkStatus();
}

absl::Status RecordParser::Finish(std::vector<Record>* records) {
  if (!rest_.empty()) RETURN_IF_ERROR(OnLine(std::exchange(rest_, ""), records));
  return OnStanzaEnd(records);
}

absl::Status RecordParser::TooLong(int64_t line) const {
  return absl::InvalidArgumentError(
      absl::StrCat("line ", line, ": the record has more than ", record_bytes_max_, " bytes"));
}

absl::Status RecordParser::OnLine(absl::string_view line, std::vector<Record>* records) {
  ++line_;
  if (format_ == RecordFormat::kLines) {
    if (line.empty()) return absl::OkStatus();
    const size_t tab = line.find('\t');
    if (tab == absl::string_view::npos) {
      return absl::InvalidArgumentError(absl::StrCat("line ", line_, ": no tab between key and value"));
    }
    records->push_back({std::string(line.substr(0, tab)), std::string(line.substr(tab + 1))});
    return absl::OkStatus();
  }
  if (absl::StripAsciiWhitespace(line).empty()) return OnStanzaEnd(records);
  if (stanza_.empty()) stanza_line_ = line_;
  if (stanza_.size() + line.size() + 1 > record_bytes_max_) return TooLong(line_);
  absl::StrAppend(&stanza_, line, "\n");
  const size_t colon = line.find(':');
  if (colon != absl::string_view::npos && absl::EqualsIgnoreCase(line.substr(0, colon), key_field_)) {
    key_ = std::string(absl::StripAsciiWhitespace(line.substr(colon + 1)));
  }
  return absl::OkStatus();
}

absl::Status RecordParser::OnStanzaEnd(std::vector<Record>* records) {
  if (stanza_.empty()) return absl::OkStatus();
  if (key_.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("line ", stanza_line_, ": the stanza has no field \"", key_field_, "\""));
  }
  records->push_back({std::exchange(key_, ""), std::exchange(stanza_, "")});
  return absl::OkStatus();
}

}  // namespace kv
