// For tests of gRPC's wire: RFC 9113 as a table. Each row is what a peer says, right or wrong, and what it must be told for
// that; named by the section that says so. It has a row for each case of h2spec's.
//
// Threading: none.
#ifndef TROUPE_WIRE_GRPC_TESTING_SCRIPTS_H_
#define TROUPE_WIRE_GRPC_TESTING_SCRIPTS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "troupe/wire/grpc/testing_peer.h"

namespace troupe::grpc_wire {

struct ByteScript {
  const char* name;  // begins with the section
  H2Bytes before;    // good bytes, which bring the connection into its state; what they are told is not looked at
  H2Bytes bytes;
  // Frames, as lines: "GOAWAY PROTOCOL_ERROR", "RST_STREAM 1 STREAM_CLOSED", "SETTINGS ack", "PING ack",
  // "HEADERS 1 end", "DATA 1 8"; without SETTINGS and WINDOW_UPDATE of our own. A GOAWAY ends the connection; after
  // anything else it goes on.
  std::vector<std::string> answer;
  // Of one that a client of ours reads: how the call ends, as far as this tells; "" when it goes on.
  const char* end = "";

  bool ends_connection() const { return !answer.empty() && answer.back().compare(0, 6, "GOAWAY") == 0; }
};

// Paths of the server's: of a method that is never answered, and of one that answers with a message of kScriptReplyBytes
// bytes with its head. Others it does not know, and answers with a status alone.
struct ScriptPaths {
  std::string waits = "/wait/C";
  std::string replies = "/reply/C";
};
inline constexpr size_t kScriptReplyBytes = 8;
// Said to a server that takes so many calls at a time.
inline constexpr uint32_t kScriptCalls = 4;
std::vector<ByteScript> ServerScripts(const ScriptPaths& paths = {});

// Said to a client that has asked call 1, which is a message and the end, and call 3, whose messages go on.
std::vector<ByteScript> ClientScripts();

// As ByteScript::answer says; DATA that follows DATA of its stream is one with it.
std::vector<std::string> LinesOf(const std::vector<SentFrame>& frames);

}  // namespace troupe::grpc_wire

#endif  // TROUPE_WIRE_GRPC_TESTING_SCRIPTS_H_
