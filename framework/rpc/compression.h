// Compression, WriteOptions: how the messages of a call are packed on their way.
//
// Asked for by who sends: CallOptions, ChannelOptions, ServerOptions, Call::set_compression. A wire that cannot pack, a
// peer that has not said that it unpacks, and a message that would not become smaller leave a message as it is: the
// receiver's code sees no difference, unless it asks message_compressed().
//
// Threading: values.
#ifndef TROUPE_RPC_COMPRESSION_H_
#define TROUPE_RPC_COMPRESSION_H_

#include <cstdint>

namespace troupe {

enum class Compression : uint8_t {
  kNone,
  kGzip,  // over gRPC; Troupe's own wire packs nothing
};

// Of one message.
struct WriteOptions {
  // False: it goes as it is in a call whose others are packed. What holds a secret beside what a stranger chose should.
  bool compress = true;
};

}  // namespace troupe

#endif  // TROUPE_RPC_COMPRESSION_H_
