// Codec: one wire format of a connection, as a state machine without I/O: bytes in, events out; calls in, bytes out.
//
// A session owns one codec per connection, feeds it what arrives and writes what stands in output(). The codec owns all
// state of the format: framing, the table of calls, method numbers, flow control in both directions, limits on what a
// peer may make us do. It has no socket, no loop and no clock, so it is fuzzed and tested as a pure function.
//
// Flow control: a message handed to Send* is encoded before the call returns. What the peer has given credit for stands
// in output(), the rest waits inside, in order, and OnSendRoom tells when a call's waiting bytes have gone. Received
// message bytes are charged until Consumed() returns them as credit; a peer that sends beyond its credit has broken the
// format.
//
// Limits on how often a peer may do what costs it nothing (resets, pings, frames without use) are budgets that refill
// with time and with calls that end well. A codec has no clock: whoever owns it says what time has passed.
//
// Re-entry:  events are delivered from inside Receive(), ExpireStalled() and Abandon(), none from anywhere else. Every
//            other member may be called from an event; the codec may not be destroyed in one.
// Threading: one thread.
// Lifetime:  CallEvents stay valid until OnEnd or OnReset was delivered, Reset(), Forget(), or a SendReply() after
//            which WaitingBytes() is 0; after one with bytes waiting, until OnSendRoom or OnReset.
#ifndef TROUPE_WIRE_CODEC_H_
#define TROUPE_WIRE_CODEC_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "google/protobuf/message_lite.h"
#include "troupe/base/byte_queue.h"
#include "troupe/rpc/metadata.h"
#include "troupe/wire/counters.h"

namespace troupe {

using CallId = uint32_t;

// A status given to OnReset has this payload (its value is empty) when no handler has seen the call: it was refused, or
// the peer was going away. It may be sent again elsewhere, whatever it does.
inline constexpr char kNotStartedPayload[] = "troupe/not-started";

// What one call hears from its codec. Implemented by a session's call records.
class CallEvents {
 public:
  // Initial metadata of the server, before the first message; at most once. Client side only.
  virtual void OnInitialMetadata(Metadata metadata) = 0;
  // One whole message, valid during the call. `charged` bytes are to be given back by Consumed().
  virtual void OnMessage(absl::Span<const char> message, size_t charged) = 0;
  // The peer sends no more messages.    Server side only; a client hears OnEnd.
  virtual void OnHalfClose() = 0;
  // The server's status and trailers; the call is over for the codec.    Client side only.
  virtual void OnEnd(absl::Status status, Metadata trailers) = 0;
  // The peer reset the call, or broke its rules; over for the codec. Client side: the status to give to the caller.
  // Server side: CANCELLED when the caller cancelled, otherwise what was wrong.
  virtual void OnReset(absl::Status why) = 0;
  // Everything sent so far is in output(): the call has no waiting bytes any more.
  virtual void OnSendRoom() = 0;

 protected:
  ~CallEvents() = default;
};

// A call that a peer opened.
struct IncomingCall {
  CallId id = 0;
  const void* method = nullptr;  // what CodecEvents::FindMethod gave for its path; null: unknown here
  absl::string_view path;        // "/kv.v1.KeyValue/Get", valid during the event; may be empty when method is not null
  Metadata metadata;
  absl::Duration timeout = absl::InfiniteDuration();  // as sent: relative to now
  // Set when the whole request came at once: a single message and the half-close. Valid during the event. OnMessage and
  // OnHalfClose are then not delivered; `charged` bytes are to be given back as for OnMessage.
  bool complete = false;
  absl::Span<const char> message;
  size_t charged = 0;
};

// What a connection hears from its codec. Implemented by the session.
class CodecEvents {
 public:
  // The path's method for the IncomingCall that follows, or null. The codec asks once per path where its format numbers
  // methods.
  virtual const void* FindMethod(absl::string_view path) = 0;
  // A call was opened. The session answers by the call's id: with SendReply, Reset, or later. Returns who hears about
  // the call from now on; null: it has been answered already, or will hear nothing (the codec drops what else comes of
  // it).
  virtual CallEvents* OnCall(IncomingCall& call) = 0;
  // The peer will open no more calls after `last` of ours was accepted; calls above `last` were not and will not be
  // started: their OnReset follows, with `why`, or UNAVAILABLE for an end that is graceful (`why` is OK then).
  virtual void OnGoAway(CallId last, absl::Status why) = 0;
  // Answer to SendPing.
  virtual void OnPong(uint64_t opaque) = 0;
  // StartCall said that there was no room, and now there is: the peer's settings have come, or calls have ended. (Room
  // that the session makes itself, by Reset(), is not announced.)
  virtual void OnCallRoom() = 0;

 protected:
  ~CodecEvents() = default;
};

struct CodecOptions {
  bool client = false;                    // we opened the connection
  size_t message_bytes_max = 4 << 20;     // received; checked before anything is allocated for it
  uint32_t calls_max = 1000;              // calls in flight that the peer may open
  uint32_t call_credit_bytes = 64 << 10;  // how much of one call's messages we hold unread
  // How much of all calls' messages may be on its way to them. Returned as bytes reach their call, not as they are
  // read, so that a call that nobody reads does not stop the others; withheld by PauseCredit().
  uint32_t connection_credit_bytes = 256 << 10;
  size_t metadata_bytes_max = 16 << 10;
  int metadata_entries_max = 100;
  // What a peer may do that costs it nothing: a burst, and then so many a second. Calls that end well give one back.
  uint32_t resets_max = 1000;  // received, or caused by what it sent
  uint32_t resets_per_second = 33;
  uint32_t glitches_max = 10000;  // frames without use: empty, unknown, needless credit, pings
  uint32_t glitches_per_second = 330;
  // What it makes us send and does not read: answers to pings; and all frames that answer its own at once, beside one
  // for each of `calls_max`.
  uint32_t acks_unsent_max = 1000;
  uint32_t frames_unsent_max = 5000;
  // A ping sooner than this after the one before, with no message or end of ours in between, is a strike.
  absl::Duration ping_interval_min = absl::Minutes(5);
  uint32_t ping_strikes_max = 2;
  bool deterministic = false;        // serialize maps in one order (simulation)
  WireCounters* counters = nullptr;  // outlives the codec; null: nobody wants to know
};

struct OutgoingCall {
  absl::string_view path;  // "/kv.v1.KeyValue/Get"; its storage lives as long as the codec (a method table's)
  const Metadata* metadata = nullptr;
  absl::Duration timeout = absl::InfiniteDuration();
  // The only message, and the half-close with it, as it is or as Encode() gave it; both null: messages follow by
  // SendMessage and SendHalfClose.
  const google::protobuf::MessageLite* message = nullptr;
  const Bytes* encoded = nullptr;
  // Its messages are packed where the format can, and the peer is not known to mind.
  bool pack = false;
};

// Of one message of a call whose messages are packed.
enum class Packing : uint8_t { kAsCall, kNone };

class Codec {
 public:
  virtual ~Codec() = default;

  // What connections are told apart by: "troupe/1", "h2".
  virtual absl::string_view name() const = 0;

  // Takes what the transport received; keeps what is incomplete. Not OK: the peer broke the connection's rules; the
  // farewell stands in output(), to be sent before the transport is closed, and nothing more may be received.
  virtual absl::Status Receive(absl::Span<const char> bytes) = 0;

  // Bytes for the transport, in order. The caller takes them out whenever it likes: what stands here counts as unread
  // by the peer.
  virtual ByteQueue& output() = 0;

  // ---- calls that we open
  // RESOURCE_EXHAUSTED: no room for another call now (OnCallRoom tells when). UNAVAILABLE: the peer is going away, or
  // the connection has broken. OUT_OF_RANGE: the message or the metadata is larger than the peer or the format takes;
  // it will never do.
  virtual absl::StatusOr<CallId> StartCall(const OutgoingCall& call, CallEvents& events) = 0;
  virtual void SendHalfClose(CallId id) = 0;
  // For a call that starts later, or again. OUT_OF_RANGE as StartCall.
  virtual absl::StatusOr<Bytes> Encode(const google::protobuf::MessageLite& message) const = 0;

  // ---- calls of either side. All ignore an id that is over.
  // Encodes before it returns. RESOURCE_EXHAUSTED: larger than the peer or the format takes; nothing was sent.
  virtual absl::Status SendMessage(CallId id, const google::protobuf::MessageLite& message, Packing packing) = 0;
  absl::Status SendMessage(CallId id, const google::protobuf::MessageLite& message) {
    return SendMessage(id, message, Packing::kAsCall);
  }
  // During OnMessage: this message came packed.
  virtual bool message_was_packed() const { return false; }
  // What of this call waits for the peer's credit, as it counts against that: an empty message counts too. 0 once the
  // call is over.
  virtual size_t WaitingBytes(CallId id) const = 0;
  // Ends the call at once in both directions: CANCELLED for a caller's cancel, otherwise the reason. No event follows.
  virtual void Reset(CallId id, const absl::Status& why) = 0;
  // The application has taken `bytes` of what was charged.
  virtual void Consumed(CallId id, size_t bytes) = 0;
  // No more events for this call; what was sent stays sent, what comes is dropped and its credit given back.
  virtual void Forget(CallId id) = 0;

  // ---- calls that the peer opened
  // Before anything is sent: the replies are packed, if the format can and the caller has said that it unpacks.
  virtual void PackReplies(CallId) {}
  virtual void SendInitialMetadata(CallId id, const Metadata& metadata) = 0;
  // Ends the call: the last message if there is one (`message` may be null), then status and trailers, after what is
  // still waiting. A unary reply in one piece. OnSendRoom, if wanted, still comes; then the call is over for the codec.
  virtual void SendReply(CallId id, const google::protobuf::MessageLite* message, const absl::Status& status,
                         const Metadata* trailers) = 0;

  // ---- the connection
  virtual void SendPing(uint64_t opaque) = 0;
  // Tells the peer to open no more calls; those already opened go on. `why` is OK for a graceful end.
  virtual void SendGoAway(const absl::Status& why) = 0;
  // The connection is about to be closed in good order: says what SendGoAway() has left to be said.
  virtual void SendLastWords() = 0;
  // The connection is gone: every call that is still open hears OnReset(why), in the order of their opening.
  virtual void Abandon(const absl::Status& why) = 0;
  // Stops giving credit to the peer, for calls and the connection, until ResumeCredit(): it can send what was granted
  // before and no more. For a process that is short of memory.
  virtual void PauseCredit() = 0;
  virtual void ResumeCredit() = 0;
  // Refills the budgets for what a peer may do only so often. Once a second while bytes come, or before Receive() with
  // the time since the last, is often enough.
  virtual void TimePassed(absl::Duration since_last) = 0;
  // Resets the calls of the peer that this finds with waiting bytes for the third time while nothing of them has gone:
  // their caller gives no credit. Not OK: as Receive().
  virtual absl::Status ExpireStalled() = 0;
  // The peer has begun what it has to end soon: its preface, or a block of headers, which has another number than the one
  // before. 0: it has not.
  static constexpr uint64_t kPreface = 1;
  virtual uint64_t unfinished() const = 0;
  // What packed messages have become since it was asked last: work of which the bytes that came do not tell.
  virtual size_t TakeUnpackedBytes() { return 0; }
  virtual size_t open_calls() const = 0;
  // Bytes held for this connection beyond output(): incomplete input, waiting messages.
  virtual size_t held_bytes() const = 0;
  // Of these, messages of ours that wait for credit.
  virtual size_t waiting_bytes() const = 0;
  // Of these, single replies: whatever their callers read or do not, a peer that keeps the rules gives credit for them.
  virtual size_t waiting_reply_bytes() const = 0;
};

}  // namespace troupe

#endif  // TROUPE_WIRE_CODEC_H_
