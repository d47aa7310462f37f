// What gRPC writes into the headers of HTTP/2: timeouts, statuses, binary metadata, and what HTTP's own errors mean.
//
// Pure functions of text, for GrpcCodec. The sources are gRPC's "gRPC over HTTP2" and "HTTP to gRPC status code mapping".
//
// Threading: none.
#ifndef TROUPE_WIRE_GRPC_HEADERS_H_
#define TROUPE_WIRE_GRPC_HEADERS_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "troupe/rpc/metadata.h"

namespace troupe::grpc_wire {

// Error codes of RFC 9113, section 7.
enum class Http2Error : uint32_t {
  kNoError = 0,
  kProtocolError = 1,
  kInternalError = 2,
  kFlowControlError = 3,
  kSettingsTimeout = 4,
  kStreamClosed = 5,
  kFrameSizeError = 6,
  kRefusedStream = 7,
  kCancel = 8,
  kCompressionError = 9,
  kConnectError = 10,
  kEnhanceYourCalm = 11,
  kInadequateSecurity = 12,
  kHttp11Required = 13,
};

// ---- grpc-timeout: one to eight digits and a unit, H M S m u n. None: it is not one. What overflows is infinite.
absl::optional<absl::Duration> ParseTimeout(absl::string_view text);
// Rounded up to what eight digits can say; "0n" for what has passed. REQUIRES: not infinite.
std::string FormatTimeout(absl::Duration timeout);

// ---- grpc-message: UTF-8, percent-encoded outside of printable ASCII.
std::string EncodeMessage(absl::string_view message);
// Never fails: what is no escape stands for itself.
std::string DecodeMessage(absl::string_view text);

// ---- values of keys that end in "-bin": base64, written without padding, read with or without.
std::string EncodeBinary(absl::string_view value);
// False: it is no base64.
bool DecodeBinary(absl::string_view text, std::string& value);

// "application/grpc", also with "+proto" or parameters behind; not "+json", which nobody here reads.
bool IsGrpcContentType(absl::string_view type);

// ---- statuses.
// Of trailers: the numbers that gRPC gives to codes. UNKNOWN for a number that it does not know.
absl::StatusCode ParseStatusCode(absl::string_view text);
// Of a response that has no grpc-status.
absl::Status StatusOfHttp(int http_status);
// Of a stream that ended with RST_STREAM. REFUSED_STREAM is marked as not started.
absl::Status StatusOfReset(uint32_t error);
// How a call is reset for `why`, and how a connection is.
Http2Error ResetErrorOf(const absl::Status& why);
Http2Error GoAwayErrorOf(const absl::Status& why);
// google.rpc.Status, for grpc-status-details-bin; "" when no payload of the status travels.
std::string EncodeDetails(const absl::Status& status);
// Adds the payloads that travel. What cannot be read is left out: the call has its code.
void DecodeDetails(absl::string_view bytes, absl::Status& status);

}  // namespace troupe::grpc_wire

#endif  // TROUPE_WIRE_GRPC_HEADERS_H_
