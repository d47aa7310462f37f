// RecordParser: finds keys and values in text, as the text arrives.
//
//   kLines    one record a line: KEY, a tab, VALUE. Empty lines are skipped.
//   kDeb822   one record a stanza, as in /var/lib/dpkg/status and RFC 822 headers: fields "Name: value", whose further
//             lines begin with a space or tab; stanzas end with an empty line. The key is the value of one of the
//             fields, the value the whole stanza with its last newline.
//
// Life:      Parse* -> Finish
// Errors:    INVALID_ARGUMENT with the line; then it is over.
// Threading: none.
#ifndef TROUPE_SERVICES_KV_RECORDS_H_
#define TROUPE_SERVICES_KV_RECORDS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace kv {

enum class RecordFormat { kLines, kDeb822 };

struct Record {
  std::string key;
  std::string value;
};

class RecordParser {
 public:
  // `key_field`: of kDeb822; upper and lower case are the same. `record_bytes_max`: a longer one is an error.
  RecordParser(RecordFormat format, std::string key_field, size_t record_bytes_max = 2 << 20);

  // Adds the records that `text` completes.
  absl::Status Parse(absl::string_view text, std::vector<Record>* records);
  // The end of the text: adds what its last line completes.
  absl::Status Finish(std::vector<Record>* records);

 private:
  absl::Status OnLine(absl::string_view line, std::vector<Record>* records);
  absl::Status OnStanzaEnd(std::vector<Record>* records);
  absl::Status TooLong(int64_t line) const;

  const RecordFormat format_;
  const std::string key_field_;
  const size_t record_bytes_max_;
  std::string rest_;  // of the text: a line that has not ended
  int64_t line_ = 0;  // number of the last one that has
  // The stanza so far.
  std::string stanza_;
  std::string key_;
  int64_t stanza_line_ = 0;
};

}  // namespace kv

#endif  // TROUPE_SERVICES_KV_RECORDS_H_
