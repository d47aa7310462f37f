// MakeMemoryPair: two connected transports without a socket, for tests and for services in one process.
//
// They behave as two ends of a socket pair do: the pipe of each direction holds a bounded number of bytes and what does
// not fit waits in the write buffer, so that flow control is the real one; bytes are delivered by the loop, never
// inside a Write; a peer that is gone is an end of file for the reader and a broken pipe for the writer.
//
// Threading: one thread, but each end may live on a loop of its own.     Lifetime: as Transport; either end may go
// first.
#ifndef TROUPE_NET_MEMORY_TRANSPORT_H_
#define TROUPE_NET_MEMORY_TRANSPORT_H_

#include <cstddef>
#include <memory>

#include "troupe/loop/event_loop.h"
#include "troupe/net/protocol.h"
#include "troupe/net/transport.h"

namespace troupe {

struct MemoryTransportOptions {
  // What is under way in one direction, at least 1.
  size_t pipe_bytes_max = 64 << 10;
  // The most that one DataReceived gets, at least 1: 1 shows every byte alone, which no correct protocol may notice.
  size_t delivery_bytes_max = 256 << 10;
};

struct MemoryPair {
  TransportPtr first;
  TransportPtr second;
};

// ConnectionMade of both is queued, the first one's first.
MemoryPair MakeMemoryPair(EventLoop& loop, std::unique_ptr<BaseProtocol> first, std::unique_ptr<BaseProtocol> second,
                          const MemoryTransportOptions& options = {});
// One end each. REQUIRES: both loops run in the same thread.
MemoryPair MakeMemoryPair(EventLoop& first_loop, std::unique_ptr<BaseProtocol> first, EventLoop& second_loop,
                          std::unique_ptr<BaseProtocol> second, const MemoryTransportOptions& options = {});

}  // namespace troupe

#endif  // TROUPE_NET_MEMORY_TRANSPORT_H_
