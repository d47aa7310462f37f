// ConnectionLimits: what one peer may make us hold and do, and how long it may keep us waiting.
//
// In ServerOptions and ChannelOptions as `limits`; every field has a default that is safe against strangers. Who wants
// no limit says so: a large number, absl::InfiniteDuration(). SessionCounters (Server::counters(), Channel::counters())
// tells how often each was hit; the counter's name stands behind the field.
//
// What one connection makes us hold: what streams have not read, within the credit that we granted; request_bytes_max of
// requests, and one; of messages that are not whole 64 times a call's credit (over HTTP/2 twice the largest message, or 32
// times a call's credit if that is more) and beside them two of the largest message; the write mark and unsent_bytes_max of
// replies, and one; and answers to its own frames, which are counted. Nothing beyond, whatever it sends and however little
// it reads. What all connections of the process hold is
// bounded by memory_bytes_max of the options.
#ifndef TROUPE_SERVICE_LIMITS_H_
#define TROUPE_SERVICE_LIMITS_H_

#include <cstddef>
#include <cstdint>

#include "absl/time/time.h"

namespace troupe {

struct ConnectionLimits {
  // ---- calls
  // In flight, opened by the peer, each until its handler has ended. Beyond: UNAVAILABLE, not started. wire.calls_refused
  uint32_t calls_max = 1000;
  // Started before the loop goes round, and what their requests may occupy together, and what packed messages become;
  // one is dealt with in any case, and the others wait. turns_exhausted
  uint32_t calls_per_turn_max = 64;
  size_t bytes_per_turn_max = 256 << 10;
  // Ours, until the peer has room. Beyond: RESOURCE_EXHAUSTED. calls_waiting_refused
  size_t calls_waiting_max = 10000;

  // ---- bytes
  // One message, checked before anything is allocated for it. Beyond: RESOURCE_EXHAUSTED. wire.messages_too_large
  size_t message_bytes_max = 4 << 20;
  // What one message may be made of, as far as it is work: each field of a known string or message counts one, of another
  // known type a quarter, as do four bytes of packed ones, an unknown one four, an unknown group twelve. So 4 MiB take
  // some 15 ms and 20 MiB at the most, and not 200 and 130. Beyond: RESOURCE_EXHAUSTED. messages_heavy
  size_t message_fields_max = 300'000;
  // What a call's messages may occupy unread, and those of all calls on their way to them; at least 64 and 256 KiB.
  // Beyond: the connection ends. wire.credit_overruns
  uint32_t call_credit_bytes = 64 << 10;
  uint32_t connection_credit_bytes = 256 << 10;
  // In one direction of a call. Beyond: RESOURCE_EXHAUSTED. wire.metadata_refused
  size_t metadata_bytes_max = 16 << 10;
  int metadata_entries_max = 100;
  // What the requests and the metadata of calls in flight may occupy, all together; one is taken in any case. Beyond,
  // calls wait unstarted, as they came, and the peer is given no credit until others have ended: requests_delayed. When
  // none has for five seconds, those that wait end RESOURCE_EXHAUSTED, as do calls whose metadata alone comes to so much,
  // and those that wait for their turn in a session or at a serial actor: requests_refused
  size_t request_bytes_max = 8 << 20;
  // What actors hold for the peer beside that, by Connection::Charge. Beyond: no credit until it is half. credit_pauses
  size_t actor_bytes_max = 2 << 20;
  // Above `high` of unsent bytes accepted calls wait unstarted and writers wait, until it is `low`. starts_delayed_unsent
  size_t write_high_bytes = 64 << 10;
  size_t write_low_bytes = 16 << 10;
  // What handlers that run already may add to that. Calls start while what those that run are likely to answer, by what
  // was sent before, is a quarter of it, and else wait for an answer, though not for long: starts_delayed_replies. What
  // comes nevertheless when so much is unsent ends its call RESOURCE_EXHAUSTED in its place: replies_dropped
  size_t unsent_bytes_max = 16 << 20;

  // ---- what costs a peer nothing: a burst, and so many a second; a call that ends well gives one back. Beyond: the
  // connection ends with RESOURCE_EXHAUSTED
  // Calls reset by the peer, or because of what it sent. wire.reset_floods
  uint32_t resets_max = 1000;
  uint32_t resets_per_second = 33;
  // Frames without use: empty, unknown, needless credit, pings. wire.glitch_floods
  uint32_t glitches_max = 10000;
  uint32_t glitches_per_second = 330;
  // Answers to pings that are not read. wire.ack_floods
  uint32_t acks_unsent_max = 1000;
  // All answers to its own frames that are not read, beside one for each of calls_max. wire.frame_floods
  uint32_t frames_unsent_max = 5000;
  // Pings sooner than this one after the other, with nothing of ours in between. wire.ping_floods
  absl::Duration ping_interval_min = absl::Minutes(5);
  uint32_t ping_strikes_max = 2;

  // ---- time
  // For what a peer says first: which wire it speaks, and how. preface_timeouts
  absl::Duration preface_timeout = absl::Seconds(10);
  // From the beginning of a client's block of headers of HTTP/2 to its end. Beyond: the connection ends. header_timeouts
  absl::Duration header_timeout = absl::Seconds(10);
  // For the peer to close its end after we did ours, as long as it reads nothing. linger_timeouts
  absl::Duration linger_timeout = absl::Seconds(5);
  // A reply, or a stream of a server, whose caller gives no credit is reset with RESOURCE_EXHAUSTED: wire.calls_stalled;
  // a connection that takes no bytes above the write mark ends: write_stalls. At most half as long again.
  absl::Duration window_timeout = absl::Seconds(30);
  // No call in either direction: the connection is closed in good order. At most a quarter as long again. idle_timeouts
  absl::Duration idle_timeout = absl::Minutes(5);
  // Of a server's: one that is older is told to go, a tenth sooner or later, so that clients spread anew over servers and
  // names that change; the calls in flight have the grace to end in. connections_aged
  absl::Duration connection_age_max = absl::InfiniteDuration();
  absl::Duration connection_age_grace = absl::InfiniteDuration();
  // Nothing was received for so long: a ping is sent, and without any byte in answer the connection ends with
  // UNAVAILABLE. keepalive_timeouts
  absl::Duration keepalive_time = absl::Hours(2);
  absl::Duration keepalive_timeout = absl::Seconds(20);
};

}  // namespace troupe

#endif  // TROUPE_SERVICE_LIMITS_H_
