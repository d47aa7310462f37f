// Gunzip: a message that its sender packed with gzip, as gRPC packs each by itself.
#ifndef TROUPE_WIRE_GRPC_INTERNAL_GZIP_H_
#define TROUPE_WIRE_GRPC_INTERNAL_GZIP_H_

#include <cstddef>
#include <string>

#include "absl/types/span.h"

namespace troupe::grpc_wire {

enum class Gunzipped { kOk, kTooLarge, kMalformed };

// Stops as soon as more than `bytes_max` come out: what a bomb would become is never held.
Gunzipped Gunzip(absl::Span<const char> packed, size_t bytes_max, std::string& bytes);
std::string Gzip(absl::Span<const char> bytes);

}  // namespace troupe::grpc_wire

#endif  // TROUPE_WIRE_GRPC_INTERNAL_GZIP_H_
