#include "troupe/rpc/metadata.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "troupe/base/errors.h"

namespace troupe {
namespace {

bool IsKeyCharacter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.' || c == '-';
}

// A peer's key may be anything and long; a message shows its beginning.
std::string Shown(absl::string_view key) {
  constexpr size_t kShown = 64;
  return absl::StrCat("\"", absl::CHexEscape(key.substr(0, kShown)), key.size() > kShown ? "..." : "", "\"");
}

}  // namespace

Metadata::Metadata(std::initializer_list<Entry> entries) {
  for (const Entry& entry : entries) Add(entry.key, entry.value);
}

Metadata::Metadata(const Metadata& other)
    : entries_(other.empty() ? nullptr : std::make_unique<std::vector<Entry>>(*other.entries_)) {}

Metadata& Metadata::operator=(const Metadata& other) {
  if (this != &other) *this = Metadata(other);
  return *this;
}

bool Metadata::IsBinaryKey(absl::string_view key) { return absl::EndsWith(key, "-bin"); }

absl::Status Metadata::Validate(absl::string_view key, absl::string_view value) {
  if (key.empty()) return absl::InvalidArgumentError("metadata key is empty");
  if (!std::all_of(key.begin(), key.end(), IsKeyCharacter)) {
    return absl::InvalidArgumentError(
        absl::StrCat("metadata key ", Shown(key), " has a character outside [0-9a-z_.-]"));
  }
  if (absl::StartsWith(key, "grpc-")) {
    return absl::InvalidArgumentError(absl::StrCat("metadata key ", Shown(key), " is reserved: it begins with grpc-"));
  }
  if (IsBinaryKey(key)) return absl::OkStatus();
  // The value may be a secret and is not shown.
  if (!std::all_of(value.begin(), value.end(), [](char c) { return c >= ' ' && c <= '~'; })) {
    return absl::InvalidArgumentError(absl::StrCat("value of metadata key ", Shown(key),
                                                   " is not printable ASCII; a key ending in -bin takes any bytes"));
  }
  if (!value.empty() && (value.front() == ' ' || value.back() == ' ')) {
    return absl::InvalidArgumentError(
        absl::StrCat("value of metadata key ", Shown(key), " begins or ends with a space"));
  }
  return absl::OkStatus();
}

void Metadata::Add(absl::string_view key, absl::string_view value) {
  if (absl::Status status = TryAdd(key, value); !status.ok()) throw InvalidState(std::string(status.message()));
}

absl::Status Metadata::TryAdd(absl::string_view key, absl::string_view value) {
  if (absl::Status status = Validate(key, value); !status.ok()) return status;
  // The new entry first: key and value may be views into this very metadata.
  Entry entry{std::string(key), std::string(value)};
  if (entries_ == nullptr) entries_ = std::make_unique<std::vector<Entry>>();
  entries_->push_back(std::move(entry));
  return absl::OkStatus();
}

size_t Metadata::Remove(absl::string_view key) {
  if (entries_ == nullptr) return 0;
  const auto gone = std::remove_if(entries_->begin(), entries_->end(), [key](const Entry& e) { return e.key == key; });
  const size_t count = entries_->end() - gone;
  entries_->erase(gone, entries_->end());
  if (entries_->empty()) entries_.reset();
  return count;
}

absl::optional<absl::string_view> Metadata::Get(absl::string_view key) const {
  for (const Entry& entry : entries()) {
    if (entry.key == key) return absl::string_view(entry.value);
  }
  return absl::nullopt;
}

std::vector<absl::string_view> Metadata::GetAll(absl::string_view key) const {
  std::vector<absl::string_view> values;
  for (const Entry& entry : entries()) {
    if (entry.key == key) values.push_back(entry.value);
  }
  return values;
}

size_t Metadata::bytes() const {
  size_t bytes = 0;
  for (const Entry& entry : entries()) bytes += entry.key.size() + entry.value.size() + kEntryOverheadBytes;
  return bytes;
}

}  // namespace troupe
