// WireCounters: what codecs count: work done, and each limit when it is hit.
//
// A server or channel owns one for each loop, and all codecs of that loop add to it.
//
// Threading: added to by one thread, read by any.   Lifetime: outlives the codecs that were given it.
#ifndef TROUPE_WIRE_COUNTERS_H_
#define TROUPE_WIRE_COUNTERS_H_

#include "troupe/base/counter.h"

namespace troupe {

struct WireCounters {
  // Work.
  Counter calls_opened_by_peer;  // accepted: OnCall was told
  Counter calls_opened_by_us;
  Counter messages_received;  // whole ones that reached their call
  Counter messages_sent;
  Counter messages_packed;  // of these
  // What peers did beyond limits; the call answers with a status.
  Counter calls_refused;        // beyond the calls granted
  Counter messages_too_large;   // received; or ours, refused before they were sent
  Counter messages_unfinished;  // begun, with too many others that were not finished
  Counter metadata_refused;     // too large, too many, or malformed
  Counter resets_received;      // of calls that the peer had opened
  Counter resets_caused;        // sent because of what the peer did
  Counter late_frames;          // of calls that were over
  Counter glitches;             // frames without use: empty, unknown, needless credit, pings
  Counter calls_stalled;        // reset because their peer gave no credit
  Counter pings_received;
  // What ended a connection.
  Counter format_errors;
  Counter credit_overruns;
  Counter reset_floods;
  Counter glitch_floods;
  Counter ack_floods;    // answers to pings that were not read
  Counter frame_floods;  // other frames that the peer caused and did not read
  Counter ping_floods;   // more strikes than allowed
};

}  // namespace troupe

#endif  // TROUPE_WIRE_COUNTERS_H_
