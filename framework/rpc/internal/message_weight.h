// MessageWeight: what it takes to parse a message, told from its bytes before anything is made of them.
//
// A message of few bytes may be much work: two bytes are a field of their own, and an unknown one of these takes a
// hundred nanoseconds and 32 bytes. So a server looks first, which takes a few nanoseconds a field, and none where a
// field is long.
#ifndef TROUPE_RPC_INTERNAL_MESSAGE_WEIGHT_H_
#define TROUPE_RPC_INTERNAL_MESSAGE_WEIGHT_H_

#include <cstddef>

#include "absl/types/span.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message_lite.h"

namespace troupe::internal {

// Messages of fewer bytes are light in any case.
inline constexpr size_t kLightMessageBytes = 4 << 10;

// False: `bytes`, parsed into `message`, would come to more than `most`. A field of a known message or string counts
// one, as do sixteen bytes of packed ones; other known fields count a quarter; unknown ones count four, and an unknown
// group twelve. Of types for the lite runtime nothing is known: all fields count as known ones, and what stands in them
// and may be a message as that message. Bytes that are malformed are light: parsing will tell.
bool IsLight(absl::Span<const char> bytes, const google::protobuf::MessageLite& message, size_t most);
// The same by the type, null for one of the lite runtime, of however few bytes.
bool IsLight(absl::Span<const char> bytes, const google::protobuf::Descriptor* type, size_t most);

}  // namespace troupe::internal

#endif  // TROUPE_RPC_INTERNAL_MESSAGE_WEIGHT_H_
