#include "troupe/rpc/internal/serial_gate.h"

#include <algorithm>

namespace troupe::internal {

std::string EncodeSerialTurns(const SerialTurns& turns) {
  std::string bytes;
  for (const uint64_t turn : turns) {
    for (int shift = 0; shift < 64; shift += 8) bytes += static_cast<char>(turn >> shift & 0xFF);
  }
  return bytes;
}

SerialTurns DecodeSerialTurns(absl::string_view bytes) {
  SerialTurns turns;
  if (bytes.size() % 8 != 0 || bytes.size() / 8 > kSerialTurnsMax) return turns;
  for (size_t i = 0; i < bytes.size(); i += 8) {
    uint64_t turn = 0;
    for (size_t j = 0; j < 8; ++j) turn |= uint64_t{static_cast<unsigned char>(bytes[i + j])} << (8 * j);
    turns.push_back(turn);
  }
  return turns;
}

bool SerialGate::IsCircle(const SerialTurns& turns) const {
  return running_ != nullptr && std::find(turns.begin(), turns.end(), turn_) != turns.end();
}

}  // namespace troupe::internal
