// The numbers of the gRPC codec: what a peer may make us do and hold, beside those in CodecOptions. Starting points,
// unless a reason stands beside.
#ifndef TROUPE_WIRE_GRPC_LIMITS_H_
#define TROUPE_WIRE_GRPC_LIMITS_H_

#include <cstddef>
#include <cstdint>

namespace troupe::grpc_wire {

// What messages that have begun and are not whole may come to, in units of the largest message, and at the least in units
// of a call's credit: those that were granted more than that, as large as they will be, and what came of the others. One
// is granted in any case.
inline constexpr size_t kAssemblyMessages = 2;
inline constexpr size_t kUnfinishedWindows = 32;
// What a call may send unasked while what came of the others is half of that: the rest is granted call by call.
inline constexpr uint32_t kNarrowWindow = 4 << 10;
// What a call whose reader keeps up may be granted at the most, and all calls of a connection beyond what each is in any
// case, in units of a call's and the connection's credit: 4 MiB each.
inline constexpr int64_t kCallWindowsMost = 64;
inline constexpr int64_t kConnectionGrowthMost = 16;
// What is granted beyond a message that is awaited: nghttp2, and with it Node, sends no end of a call behind DATA without
// a byte of window, and who pads every frame needs room for the padding of the last.
inline constexpr size_t kWindowBehind = 1 + 256;
inline constexpr size_t kContinuationsMax = 8;
inline constexpr size_t kSettingsEntriesMax = 32;
// A block of headers that comes to more than so many times metadata_bytes_max is read no further.
inline constexpr size_t kHeadersBeyond = 16;
// SETTINGS of a peer that are its own affair; further ones are glitches.
inline constexpr uint32_t kSettingsFree = 4;
// What nghttp2 may make of our headers: metadata, percent-encoded texts, a status's details.
inline constexpr size_t kHeaderBlockBytesMax = 128 << 10;
inline constexpr size_t kMessageLimit = 1 << 30;
// RFC 9113, section 6.9.1.
inline constexpr uint32_t kWindowMost = 0x7fffffff;
// RFC 9113, section 6.9.2: until the peer has acknowledged our settings.
inline constexpr int64_t kWindowAtFirst = 65535;
// What a status whose trailers the peer does not take keeps of its message.
inline constexpr size_t kShortMessageBytes = 1024;
// Until a peer has said how many calls it takes (RFC 9113, section 6.5.2, advises no less).
inline constexpr uint32_t kCallsBeforeSettings = 100;

}  // namespace troupe::grpc_wire

#endif  // TROUPE_WIRE_GRPC_LIMITS_H_
