// The numbers of the native codec: what a peer may make us do and hold. Starting points, unless a reason stands beside.
//
// They hold for all wires alike; those that an operator sets are in CodecOptions.
#ifndef TROUPE_WIRE_NATIVE_LIMITS_H_
#define TROUPE_WIRE_NATIVE_LIMITS_H_

#include <cstddef>
#include <cstdint>

#include "troupe/wire/native/frame.h"

namespace troupe::native {

// Messages that are sent piece by piece at once; the others wait for one of them to be whole.
inline constexpr uint32_t kFlowingMax = 16;
// What messages larger than a call's credit may come to that are assembled at once, in units of the largest message. One
// is in any case.
inline constexpr size_t kAssemblyMessages = 2;
// What may have come of all others that are not whole, in units of a call's credit: a thousand beginnings, and those that
// are sent piece by piece, are less.
inline constexpr size_t kUnfinishedWindows = 64;
// Less credit than this is not worth a frame: a sender waits for it unless it needs less, a receiver grants no less.
inline constexpr uint32_t kWorthwhileCredit = 1024;
// A head with a message of kPieceBytes behind it fits a frame.
inline constexpr size_t kHeadBytesMax = 40 << 10;
static_assert(kHeadBytesMax + 3 + kPieceBytes <= kFramePayloadMax);
// What a status whose frame would be too large keeps of its message; what RESET and GOAWAY carry of theirs.
inline constexpr size_t kShortMessageBytes = 1024;
// Paths of numbered methods that nobody here knows, kept for one connection.
inline constexpr size_t kUnknownPathBytes = 16 << 10;
// The most that options may say.
inline constexpr uint32_t kCallsLimit = 1 << 20;
inline constexpr size_t kMessageLimit = 1 << 30;

}  // namespace troupe::native

#endif  // TROUPE_WIRE_NATIVE_LIMITS_H_
