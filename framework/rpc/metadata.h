// Metadata: what travels beside a call's messages, as keys and values: of the caller, of the server before its first
// message, and as trailers of the call.
//
// An ordered multimap: entries stay in the order in which they were added, a key may stand several times. Keys are
// lower case, of [0-9a-z_.-]; those that begin with "grpc-" belong to the protocols. A key that ends in "-bin" has a
// value of any bytes (protocols encode it where they must); any other value is printable ASCII that neither begins nor
// ends with a space.
//
// Most calls have none, so an empty one is one null pointer.
//
// Threading: none.   Lifetime: a value; what Get() and entries() show lives until the next change.
#ifndef TROUPE_RPC_METADATA_H_
#define TROUPE_RPC_METADATA_H_

#include <cstddef>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"

namespace troupe {

class Metadata {
 public:
  struct Entry {
    std::string key;
    std::string value;
    friend bool operator==(const Entry& a, const Entry& b) { return a.key == b.key && a.value == b.value; }
  };
  // What an entry counts beyond its characters against a limit on metadata, as in RFC 9113, section 6.5.2.
  static constexpr size_t kEntryOverheadBytes = 32;

  Metadata() = default;
  Metadata(std::initializer_list<Entry> entries);
  Metadata(const Metadata& other);
  Metadata(Metadata&&) noexcept = default;
  Metadata& operator=(const Metadata& other);
  Metadata& operator=(Metadata&&) noexcept = default;

  // INVALID_ARGUMENT, with what is wrong, for a key or value that may not travel.
  static absl::Status Validate(absl::string_view key, absl::string_view value);
  static bool IsBinaryKey(absl::string_view key);

  // Throws InvalidState where Validate() objects: for keys and values that the program chose.
  void Add(absl::string_view key, absl::string_view value);
  // For what came from elsewhere. Nothing is added unless OK.
  absl::Status TryAdd(absl::string_view key, absl::string_view value);
  // Says how many there were.
  size_t Remove(absl::string_view key);
  void Clear() { entries_.reset(); }

  // The first value of the key.
  absl::optional<absl::string_view> Get(absl::string_view key) const;
  std::vector<absl::string_view> GetAll(absl::string_view key) const;
  absl::Span<const Entry> entries() const {
    return entries_ == nullptr ? absl::Span<const Entry>() : absl::MakeConstSpan(*entries_);
  }
  bool empty() const { return entries_ == nullptr; }
  size_t size() const { return entries_ == nullptr ? 0 : entries_->size(); }
  // Characters of all keys and values, and kEntryOverheadBytes for each entry.
  size_t bytes() const;

  friend bool operator==(const Metadata& a, const Metadata& b) { return a.entries() == b.entries(); }
  friend bool operator!=(const Metadata& a, const Metadata& b) { return !(a == b); }

 private:
  std::unique_ptr<std::vector<Entry>> entries_;  // never an empty vector
};

}  // namespace troupe

#endif  // TROUPE_RPC_METADATA_H_
