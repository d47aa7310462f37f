// Metadata of strangers: what may travel is kept as it is, and nothing else is.
//
// A byte for the length of the key, the key, and a value up to the next NUL; again and again.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "testing/fuzz/fuzz.h"
#include "troupe/rpc/metadata.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using troupe::Metadata;
  absl::string_view rest(reinterpret_cast<const char*>(data), size);
  Metadata metadata;
  std::vector<std::pair<std::string, std::string>> kept;
  size_t bytes = 0;
  while (!rest.empty()) {
    const size_t key_size = std::min<size_t>(static_cast<uint8_t>(rest[0]) % 32, rest.size() - 1);
    const std::string key(rest.substr(1, key_size));
    rest.remove_prefix(1 + key_size);
    const size_t value_size = std::min(rest.find('\0'), rest.size());
    const std::string value(rest.substr(0, value_size));
    rest.remove_prefix(std::min(rest.size(), value_size + 1));
    const bool valid = Metadata::Validate(key, value).ok();
    REQUIRE(metadata.TryAdd(key, value).ok() == valid);
    if (!valid) continue;
    REQUIRE(!key.empty() && !absl::StartsWith(key, "grpc-"));
    if (!Metadata::IsBinaryKey(key)) {
      for (const char c : value) REQUIRE(c >= ' ' && c <= '~');
    }
    kept.emplace_back(key, value);
    bytes += key.size() + value.size() + Metadata::kEntryOverheadBytes;
  }
  REQUIRE(metadata.size() == kept.size());
  REQUIRE(metadata.bytes() == bytes);
  for (size_t i = 0; i < kept.size(); ++i) {
    REQUIRE(metadata.entries()[i].key == kept[i].first && metadata.entries()[i].value == kept[i].second);
  }
  for (const auto& [key, value] : kept) {
    REQUIRE(metadata.Get(key).has_value());
    const auto all = metadata.GetAll(key);
    REQUIRE(std::find(all.begin(), all.end(), value) != all.end());
  }
  Metadata copy = metadata;
  REQUIRE(copy == metadata);
  for (const auto& [key, value] : kept) copy.Remove(key);
  REQUIRE(copy.empty() && copy.bytes() == 0);
  return 0;
}
