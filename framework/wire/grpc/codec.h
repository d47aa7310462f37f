// GrpcCodec: gRPC over HTTP/2, for either end of a connection: any gRPC client or server can be at the other one.
//
// nghttp2 does frames and HPACK; everything that gRPC adds, and what a peer may make us do, is here. nghttp2's callbacks
// run no code of ours but notes of what came; what they noted becomes events when it has returned.
//
// What it holds for one connection, whatever the peer does:
//   - nghttp2's session                          about 13 KiB, and tables of HPACK, 4 KiB each way
//   - for each call the peer opened (calls_max)  call_credit_bytes of messages unread or incomplete, and its metadata
//   - more of calls whose readers keep up        kConnectionGrowthMost * connection_credit_bytes in all
//   - messages that are not whole                kAssemblyMessages * message_bytes_max in all, one more, and kNarrowWindow
//                                                for each call. Senders of HTTP/2 take all streams in turn, so when much
//                                                has begun, SETTINGS take back what was not asked for, and each call is
//                                                given its window when it is its turn
//   - unsent                                     what the session sent, frames_unsent_max + calls_max answers to the
//                                                peer's own frames
//
// A server answers who speaks HTTP/2 and not gRPC as a web server would, without telling the session: `GET /` with a
// line of text, other content types with 415.
//
// Threading and lifetime as Codec says.
#ifndef TROUPE_WIRE_GRPC_CODEC_H_
#define TROUPE_WIRE_GRPC_CODEC_H_

#include <nghttp2/nghttp2.h>
#include <sys/types.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "google/protobuf/message_lite.h"
#include "troupe/base/byte_queue.h"
#include "troupe/base/intrusive_list.h"
#include "troupe/base/pool.h"
#include "troupe/rpc/metadata.h"
#include "troupe/wire/budget.h"
#include "troupe/wire/codec.h"
#include "troupe/wire/counters.h"
#include "troupe/wire/grpc/headers.h"
#include "troupe/wire/grpc/internal/frame_watch.h"
#include "troupe/wire/grpc/limits.h"

namespace troupe {

// What HTTP/2 wants to know beyond CodecOptions, at the connecting end.
struct GrpcOptions {
  std::string authority = {};  // the host that is called, as a URL names it
  bool tls = false;            // the scheme is https
};

class GrpcCodec final : public Codec {
 public:
  // `events` outlives the codec.
  GrpcCodec(const CodecOptions& options, GrpcOptions grpc, CodecEvents& events);
  ~GrpcCodec() override;

  absl::string_view name() const override { return "h2"; }
  absl::Status Receive(absl::Span<const char> bytes) override;
  ByteQueue& output() override { return output_; }

  absl::StatusOr<CallId> StartCall(const OutgoingCall& call, CallEvents& events) override;
  void SendHalfClose(CallId id) override;
  absl::StatusOr<Bytes> Encode(const google::protobuf::MessageLite& message) const override;

  using Codec::SendMessage;
  absl::Status SendMessage(CallId id, const google::protobuf::MessageLite& message, Packing packing) override;
  bool message_was_packed() const override { return delivering_packed_; }
  size_t WaitingBytes(CallId id) const override;
  void Reset(CallId id, const absl::Status& why) override;
  void Consumed(CallId id, size_t bytes) override;
  void Forget(CallId id) override;

  void PackReplies(CallId id) override;
  void SendInitialMetadata(CallId id, const Metadata& metadata) override;
  void SendReply(CallId id, const google::protobuf::MessageLite* message, const absl::Status& status,
                 const Metadata* trailers) override;

  void SendPing(uint64_t opaque) override;
  // A server's graceful end takes two steps: first it says that it is going, and when the peer has answered a ping, or
  // with the last words, which call was the last.
  void SendGoAway(const absl::Status& why) override;
  void SendLastWords() override;
  void Abandon(const absl::Status& why) override;
  void PauseCredit() override { credit_paused_ = true; }
  void ResumeCredit() override;
  void TimePassed(absl::Duration since_last) override;
  absl::Status ExpireStalled() override;
  uint64_t unfinished() const override { return settings_received_ ? frames_.open_block() : kPreface; }
  size_t TakeUnpackedBytes() override { return std::exchange(unpacked_bytes_, 0); }
  size_t open_calls() const override { return calls_.size(); }
  size_t held_bytes() const override { return waiting_bytes_ + partial_bytes_; }
  size_t waiting_bytes() const override { return waiting_bytes_; }
  size_t waiting_reply_bytes() const override { return waiting_reply_bytes_; }

 private:
  using Headers = std::vector<std::pair<std::string, std::string>>;
  // What of a block of headers concerns gRPC.
  struct Head {
    size_t bytes = 0;  // of metadata
    int entries = 0;
    int http_status = 0;
    std::string method;
    std::string path;
    std::string content_type;
    std::string encoding;
    Metadata metadata;
    absl::Status refused;  // metadata that is too large, or malformed
    absl::optional<absl::Duration> timeout;
    bool bad_timeout = false;
    bool says_accepted = false;  // what packed messages it takes
    bool accepts_gzip = false;
    absl::optional<absl::StatusCode> code;
    std::string message;
    std::string details;
  };
  struct InOrder;  // all calls, as they were opened
  struct InDrained;

  struct Call : Pooled, ListNode<InOrder>, ListNode<InDrained> {
    CallId id = 0;
    bool ours = false;
    bool headers_done = false;  // the peer's; of a response, not those of 1xx
    bool headers_sent = false;
    bool send_done = false;    // half-close, or end, is said or waits
    bool plain_http = false;   // answered here
    bool deferred = false;     // nghttp2 was told that nothing is there to be sent
    bool room_wanted = false;  // bytes have waited: OnSendRoom is due when they have gone
    bool partly_sent = false;  // of what waits the first message has begun to go
    bool reply_waits = false;  // what waits is the one message of a reply
    bool over = false;         // all has been said; it goes when that is safe
    uint8_t stalled = 0;       // so often ExpireStalled() has found that nothing had gone
    CallEvents* events = nullptr;
    std::unique_ptr<Head> head;  // of headers that are coming
    // Receiving: what the peer may still send, and what was delivered and not taken.
    int64_t receive_credit = 0;
    int64_t window = 0;  // of it that may be open at a time
    int64_t taken = 0;   // by the application since the window has grown
    size_t unread = 0;
    bool receive_done = false;     // the peer sends no more
    bool gzip = false;             // messages that say so are compressed
    bool peer_takes_gzip = false;  // of a call that the peer opened
    bool pack = false;             // what we send is packed
    bool packed = false;
    bool in_message = false;
    uint8_t prefix_bytes = 0;
    char prefix[5];
    size_t partial_size = 0;
    size_t partial_total = 0;
    size_t partial_capacity = 0;
    size_t assembly_bytes = 0;  // taken from the connection's allowance for large messages
    std::unique_ptr<char[]> partial;
    // Sending.
    ByteQueue outbox;
    std::unique_ptr<Headers> trailers;  // of the end, behind what waits
    absl::Status failure;               // what makes an OK end impossible
  };

  // What a callback of nghttp2 noted. `data` lies in what is being received.
  struct Note {
    // kMistake: nghttp2 has reset the stream for what the peer did.
    enum Kind : uint8_t { kHeaders, kData, kEnd, kClosed, kMistake, kGoAway, kPong, kSettingsAck } kind;
    bool end_stream = false;
    CallId id = 0;
    uint64_t number = 0;  // error code, opaque
    absl::Span<const char> data = {};
    std::unique_ptr<Head> head = nullptr;
  };

  friend struct GrpcCodecCallbacks;

  // ---- from nghttp2: notes and counts, nothing else
  void NoteFrameHeader(const nghttp2_frame_hd& header);
  void NoteFrame(const nghttp2_frame& frame);
  void NoteInvalidFrame(const nghttp2_frame& frame, int error);
  void NoteHeadersBegin(CallId id, bool request);
  void NoteHeader(CallId id, absl::string_view name, absl::string_view value);
  void Refuse(Head& head) const;
  void NoteData(CallId id, absl::Span<const char> data);
  void NoteSent(const nghttp2_frame& frame);
  ssize_t OfferData(CallId id, size_t bytes_max, uint32_t* flags);
  void SendData(CallId id, const uint8_t* frame_header, size_t bytes);
  void Glitch();
  void CountReset();
  void Flood(Counter& counter, absl::string_view what);

  // ---- what was noted
  void DealWith(size_t index);
  void OnRequestHead(Call& call, Head& head, size_t index);
  void OnResponseHead(Call& call, Head& head, bool end_stream);
  void OnData(CallId id, absl::Span<const char> data);
  void OnPeerEnd(CallId id);
  void OnClosed(CallId id, absl::Status why);
  void OnGoAway(CallId last, uint32_t error, absl::Span<const char> debug);
  void OnPong(uint64_t opaque);
  // Takes the next message from the front of `data`. False: it is not whole yet, or `wrong` says what is wrong.
  bool TakeMessage(Call& call, absl::Span<const char>& data, absl::Span<const char>& message,
                   std::unique_ptr<char[]>& storage, size_t& charged, absl::Status& wrong);
  absl::Status ReadPrefix(Call& call, const char* prefix);
  absl::Status Unpack(absl::Span<const char> packed, std::string& message) const;
  // True: the call goes on.
  bool Deliver(CallId id, absl::Span<const char> message, size_t charged);
  void DeliverEnd(Call& call, absl::Status status, Metadata trailers);
  // Ends a call for what the peer did with it; both hear why.
  void Fail(Call& call, const absl::Status& why);
  // As a web server would.
  void AnswerPlain(Call& call, const Head& head, int http_status, absl::string_view text);

  // ---- credit
  void ConsumeConnection(size_t bytes);
  // At once, and without nghttp2, which knows of no padding.
  void ReturnPadding();
  size_t UnfinishedMax() const;
  void DropUnfinished(Call& call) {
    if (call.assembly_bytes == 0) unfinished_bytes_ -= call.partial_size;
  }
  // What a call may send unasked, and what one may whose reader keeps up.
  uint32_t window() const {
    return narrow_ ? std::min(grpc_wire::kNarrowWindow, options_.call_credit_bytes) : options_.call_credit_bytes;
  }
  int64_t WindowOf(const Call& call) const { return narrow_ ? window() : call.window; }
  void AdjustWindows();
  void OnSettingsAck();
  void GrantCall(Call& call);
  // Twice the window for a reader that has taken a whole one and left nothing lying: so a stream over a long link is not
  // held to so many bytes a round trip.
  void GrowWindow(Call& call);
  bool TakeAssembly(Call& call);
  void ReturnAssembly(Call& call);

  // ---- sending
  // Behind all that nghttp2 has said, and by hand: it may be in no state to speak, or is not to know.
  void WriteFrame(uint8_t type, CallId id, absl::string_view payload);
  void WriteWindowUpdate(CallId id, uint32_t bytes);
  void WriteGoAway(CallId last, grpc_wire::Http2Error error, absl::string_view debug);
  // Lets nghttp2 write what it may.
  void Pump();
  static nghttp2_data_source_read_callback Provider();
  void Serialize(const google::protobuf::MessageLite& message, size_t size, char* to) const;
  void Enqueue(Call& call, const google::protobuf::MessageLite& message, size_t size, Packing packing);
  void Enqueue(Call& call, const Bytes& message);
  void EnqueuePlain(Call& call, const Bytes& message);
  // False: it would not become smaller.
  bool EnqueuePacked(Call& call, absl::Span<const char> message);
  void Queued(Call& call, size_t bytes);
  void Resume(Call& call);
  bool SendResponseHead(Call& call, const Metadata* metadata);
  void SendEnd(Call& call, const absl::Status& status, const Metadata* trailers);
  void ResetStream(CallId id, grpc_wire::Http2Error error);
  void DropWaiting(Call& call);
  bool FitsPeer(const Metadata& metadata) const;
  // The calls whose waiting bytes have gone hear of it.
  void TellDrained();
  void SayLastCall(const absl::Status& why);
  absl::Status Die(absl::Status why);

  Call* Find(CallId id) const;
  // Null also where nothing may be sent any more.
  Call* FindToSend(CallId id) const;
  Call& Add(CallId id, bool ours);
  void Remove(Call& call);
  bool HasRoom() const;

  const CodecOptions options_;
  const GrpcOptions grpc_;
  CodecEvents& events_;
  std::unique_ptr<WireCounters> own_counters_;
  WireCounters& counters_;
  nghttp2_session* session_ = nullptr;
  ByteQueue output_;
  absl::Status dead_;
  absl::Status flood_;   // found inside a callback
  std::string debug_;    // nghttp2's last word on what was wrong
  bool broken_ = false;  // nghttp2 has ended the connection for it

  grpc_wire::FrameWatch frames_;
  mutable size_t unpacked_bytes_ = 0;
  std::vector<Note> notes_;
  bool receiving_ = false;
  absl::flat_hash_map<CallId, Call*> calls_;  // never iterated
  IntrusiveList<Call, InOrder> in_order_;
  IntrusiveList<Call, InDrained> drained_;
  std::vector<CallId> over_;  // their last frame has gone
  uint32_t calls_of_ours_ = 0;
  bool room_wanted_ = false;
  bool settings_received_ = false;
  bool server_takes_gzip_ = true;  // until it says otherwise
  bool delivering_packed_ = false;
  // What the peer knows that a stream begins with, and what it was told and has not acknowledged.
  int64_t first_window_ = grpc_wire::kWindowAtFirst;
  absl::optional<uint32_t> window_told_;
  bool narrow_ = false;

  bool peer_going_away_ = false;
  enum class GoingAway : uint8_t { kNo, kAnnounced, kSaid } going_away_ = GoingAway::kNo;

  // Credit.
  bool credit_paused_ = false;
  size_t connection_owed_ = 0;
  int64_t connection_window_ = 0;
  int64_t growth_ = 0;  // of all calls' windows
  size_t assembly_in_use_ = 0;
  size_t unfinished_bytes_ = 0;
  std::vector<CallId> assembly_queue_;

  Budget resets_;
  Budget glitches_;
  uint32_t updates_expected_ = 0;  // credit that what we sent makes useful
  uint32_t settings_seen_ = 0;
  uint32_t acks_unsent_ = 0;
  uint32_t caused_unsent_ = 0;
  absl::Duration since_ping_ = absl::InfiniteDuration();  // of the peer
  uint32_t ping_strikes_ = 0;

  size_t waiting_bytes_ = 0;
  size_t waiting_reply_bytes_ = 0;
  size_t partial_bytes_ = 0;
};

}  // namespace troupe

#endif  // TROUPE_WIRE_GRPC_CODEC_H_
