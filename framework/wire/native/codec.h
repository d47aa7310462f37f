// NativeCodec: the native wire, troupe/1, for either end of a connection; either end may serve.
//
// FORMAT.md, in this folder, is the specification; frame.h reads and writes single frames. This is the state: the table
// of calls, method numbers, credit, what waits, and what a peer may make us do.
//
// What it holds for one connection, whatever the peer does:
//   - one incomplete frame                      64 KiB, allocated as it comes
//   - for each call the peer opened (calls_max) call_credit_bytes of messages unread or incomplete, and its metadata
//   - messages larger than a call's credit      kAssemblyMessages * message_bytes_max in all; the next waits its turn
//   - other messages that are not whole         kUnfinishedWindows * call_credit_bytes in all
//   - method numbers                            4,096 of 16 bytes, 16 KiB of paths that nobody here knows
//   - unsent                                    what the session sent, frames_unsent_max + calls_max answers to the
//                                               peer's own frames
// and idle, with no call open: itself, its methods, no chunk.
//
// A message of at most 16 KiB for which there is credit is encoded straight into output(), and one that arrives whole
// is delivered where it lies: the common call costs no allocation beyond its record, which is pooled.
//
// Threading and lifetime as Codec says.
#ifndef TROUPE_WIRE_NATIVE_CODEC_H_
#define TROUPE_WIRE_NATIVE_CODEC_H_

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
#include "absl/types/span.h"
#include "google/protobuf/message_lite.h"
#include "troupe/base/byte_queue.h"
#include "troupe/base/intrusive_list.h"
#include "troupe/base/pool.h"
#include "troupe/rpc/metadata.h"
#include "troupe/wire/budget.h"
#include "troupe/wire/codec.h"
#include "troupe/wire/counters.h"
#include "troupe/wire/native/call_table.h"
#include "troupe/wire/native/frame.h"

namespace troupe {

class NativeCodec final : public Codec {
 public:
  // Credit below the format's baseline is raised to it. `events` outlives the codec.
  NativeCodec(const CodecOptions& options, CodecEvents& events);
  ~NativeCodec() override;

  absl::string_view name() const override { return "troupe/1"; }
  absl::Status Receive(absl::Span<const char> bytes) override;
  ByteQueue& output() override { return output_; }

  absl::StatusOr<CallId> StartCall(const OutgoingCall& call, CallEvents& events) override;
  void SendHalfClose(CallId id) override;
  absl::StatusOr<Bytes> Encode(const google::protobuf::MessageLite& message) const override;

  using Codec::SendMessage;
  absl::Status SendMessage(CallId id, const google::protobuf::MessageLite& message, Packing packing) override;
  size_t WaitingBytes(CallId id) const override;
  void Reset(CallId id, const absl::Status& why) override;
  void Consumed(CallId id, size_t bytes) override;
  void Forget(CallId id) override;

  void SendInitialMetadata(CallId id, const Metadata& metadata) override;
  void SendReply(CallId id, const google::protobuf::MessageLite* message, const absl::Status& status,
                 const Metadata* trailers) override;

  void SendPing(uint64_t opaque) override;
  void SendGoAway(const absl::Status& why) override;
  void SendLastWords() override {}
  void Abandon(const absl::Status& why) override;
  void PauseCredit() override { credit_paused_ = true; }
  void ResumeCredit() override;
  void TimePassed(absl::Duration since_last) override;
  absl::Status ExpireStalled() override;
  uint64_t unfinished() const override { return preface_received_ ? 0 : kPreface; }
  size_t open_calls() const override { return table_.size(); }
  size_t held_bytes() const override { return input_capacity_ + waiting_bytes_ + partial_bytes_; }
  size_t waiting_bytes() const override { return waiting_bytes_; }
  size_t waiting_reply_bytes() const override { return waiting_reply_bytes_; }

 private:
  struct InOrder;  // all calls, as they were opened
  struct InTurn;   // calls that wait for the connection's credit, or to send a message piece by piece
  struct InLine;   // calls with a message larger than their credit, that wait for others to be assembled

  // A message that waits for credit, or the rest of one.
  struct Waiting : Pooled {
    Waiting* next = nullptr;
    Bytes rest;
    size_t size = 0;       // of the whole message
    bool begun = false;    // its first piece has gone
    bool flowing = false;  // its call's credit covers it: one of those that are sent piece by piece
  };

  struct Call : Pooled, ListNode<InOrder>, ListNode<InTurn>, ListNode<InLine> {
    CallId id = 0;
    bool ours = false;
    bool receive_done = false;   // the peer sends no more messages
    bool send_done = false;      // we send no more: half-close, or end, is said or waits
    bool close_waits = false;    // half-close behind what waits
    bool metadata_done = false;  // initial metadata has come or gone, or may not any more
    bool assembling = false;
    bool send_room_wanted = false;
    bool reply_waits = false;  // what waits is a single reply
    uint8_t stalled = 0;       // so often ExpireStalled() has found that nothing had gone
    CallEvents* events = nullptr;
    // Receiving: what the peer may still send, and what it sent that was not taken.
    uint32_t receive_credit = 0;
    uint32_t unread = 0;
    // A message that comes in pieces.
    uint32_t partial_cost = 0;
    size_t partial_size = 0;
    size_t partial_total = 0;
    size_t partial_capacity = 0;
    size_t assembly_bytes = 0;  // taken from the connection's allowance for large messages
    std::unique_ptr<char[]> partial;
    // Sending.
    uint32_t send_credit = 0;
    size_t waiting_bytes = 0;
    Waiting* waiting_first = nullptr;
    Waiting* waiting_last = nullptr;
    std::unique_ptr<std::string> ending;  // head of the END that follows what waits
    absl::Status failure;                 // what makes an OK end impossible
  };

  struct Method {
    const void* known = nullptr;
    std::unique_ptr<std::string> path;  // when not known, while there is room
  };

  enum class Sent { kPiece, kAll, kNoCallCredit, kNoConnectionCredit, kOthersFlow };

  friend class NativeCodecTestPeer;

  // ---- receiving
  absl::Status ReceivePreface(absl::Span<const char> header, absl::Span<const char> features);
  absl::Status ReceiveFrame(const native::FrameHeader& frame, absl::Span<const char> payload);
  absl::Status ReceiveCall(const native::FrameHeader& frame, absl::Span<const char> payload);
  absl::Status ReceiveMessage(const native::FrameHeader& frame, absl::Span<const char> payload);
  absl::Status ReceiveEnd(const native::FrameHeader& frame, absl::Span<const char> payload);
  absl::Status ReceiveMetadata(const native::FrameHeader& frame, absl::Span<const char> payload);
  absl::Status ReceiveReset(const native::FrameHeader& frame, absl::Span<const char> payload);
  absl::Status ReceiveCreditFrame(const native::FrameHeader& frame, absl::Span<const char> payload);
  absl::Status ReceivePing(const native::FrameHeader& frame, absl::Span<const char> payload);
  absl::Status ReceiveGoAway(const native::FrameHeader& frame, absl::Span<const char> payload);

  // The length of what the eight bytes in `header` begin; an error when that cannot be.
  absl::StatusOr<size_t> LengthAfterHeader(const char* header);
  // The body of a frame, behind its head, into the call's messages.
  absl::Status ReceiveBody(Call& call, uint8_t flags, absl::Span<const char> body);
  absl::Status ChargeConnection(uint8_t flags, size_t body);
  // Both may deliver an event, after which the call may be gone.
  void Deliver(Call& call, absl::Span<const char> message, uint32_t cost);
  absl::Status Assemble(Call& call, absl::Span<const char> piece, uint32_t cost);
  absl::Status ResolveMethod(const native::CallHead& head, IncomingCall& call);
  // The call for a frame that is not CALL. OK with null: it is over, the frame is late.
  absl::Status FindForFrame(const native::FrameHeader& frame, Call*& call);
  absl::Status Late();
  absl::Status Glitch(absl::string_view what);
  // The peer has broken the rules: says farewell and returns the status.
  absl::Status Broken(absl::string_view what);
  absl::Status Flood(Counter& counter, absl::string_view what);
  absl::Status Die(absl::Status why);
  void DropInput();
  // Ends a call for what the peer did with it; both hear why.
  absl::Status ResetForPeer(Call& call, absl::Status why);
  absl::Status Refuse(CallId id, const absl::Status& why, bool closed);

  // ---- credit
  void GrantCall(Call& call);
  void GrantConnection();
  // What came of messages that are not whole, beside those that were granted more than their call's credit.
  size_t UnfinishedMax() const;
  void DropUnfinished(Call& call);
  // False: it stands in line now.
  bool TakeAssembly(Call& call);
  // The call needs none any more: it leaves the line, and gives what it had to those who stand there.
  void ReturnAssembly(Call& call);

  // ---- sending
  absl::Status CheckSize(size_t bytes) const;
  Bytes Serialized(const google::protobuf::MessageLite& message, size_t size) const;
  void Serialize(const google::protobuf::MessageLite& message, size_t size, char* to) const;
  void BeforeFrame(native::FrameType type);
  char* BeginFrame(size_t payload, native::FrameType type, uint8_t flags, CallId id);
  void SendFrame(native::FrameType type, uint8_t flags, CallId id, absl::string_view payload);
  void SendCredit(CallId id, uint32_t credit);
  bool MaySendNow(const Call& call, size_t size) const;
  void Spend(Call& call, size_t cost);
  void Enqueue(Call& call, const google::protobuf::MessageLite& message, size_t size);
  void Enqueue(Call& call, Bytes message);
  // Sends what credit allows of what waits in this call.
  void Push(Call& call);
  // In turn, a frame each, what credit allows of what waits in all calls.
  void Pump();
  Sent SendPiece(Call& call);
  // A message that was sent piece by piece does not need its place any more.
  void StopFlowing(Waiting& waiting);
  // Nothing waits any more: half-close or end follow. The call may be gone afterwards.
  void Drained(Call& call);
  void SendEnd(Call& call, absl::string_view head, const google::protobuf::MessageLite* message, size_t size);
  void DropWaiting(Call& call);
  void Remove(Call& call);
  void AllowLate(uint32_t credit, bool done);

  Call* Find(CallId id) const { return table_.Find(id); }
  // Null also where nothing may be sent any more.
  Call* FindToSend(CallId id) const {
    Call* call = dead_.ok() ? Find(id) : nullptr;
    return call == nullptr || call->send_done ? nullptr : call;
  }
  bool IsOurs(CallId id) const { return (id & 1) == (options_.client ? 1u : 0u); }

  CodecOptions options_;
  CodecEvents& events_;
  std::unique_ptr<WireCounters> own_counters_;
  WireCounters& counters_;
  ByteQueue output_;
  absl::Status dead_;

  // Incomplete input: a header, then what it begins.
  bool preface_received_ = false;
  uint8_t header_bytes_ = 0;
  char header_[native::kFrameHeaderBytes];
  std::unique_ptr<char[]> input_;
  size_t input_size_ = 0;
  size_t input_capacity_ = 0;

  native::CallTable<Call> table_;
  IntrusiveList<Call, InOrder> calls_;
  IntrusiveList<Call, InTurn> ready_;   // have waiting bytes and credit of their own
  IntrusiveList<Call, InTurn> dammed_;  // so do these, and enough others are being sent
  uint32_t flowing_ = 0;
  uint32_t calls_of_peer_ = 0;
  uint32_t calls_of_ours_ = 0;
  CallId next_id_;           // of ours; 0: used up
  CallId last_peer_id_ = 0;  // highest that the peer has used
  bool room_wanted_ = false;

  // Methods.
  std::vector<Method> peer_methods_;
  size_t unknown_path_bytes_ = 0;
  using PathPlace = std::pair<const char*, size_t>;       // where a path lies: it lives as long as the codec
  absl::flat_hash_map<PathPlace, uint32_t> our_methods_;  // never iterated
  PathPlace last_path_ = {nullptr, 0};
  uint32_t last_method_ = 0;

  // Credit.
  uint32_t receive_credit_;  // the peer may still send
  uint32_t send_credit_ = native::kBaselineConnectionCredit;
  uint32_t peer_call_credit_ = native::kBaselineCallCredit;
  bool credit_paused_ = false;
  size_t assembly_in_use_ = 0;
  size_t unfinished_bytes_ = 0;
  IntrusiveList<Call, InLine> assembly_line_;

  // What the peer takes.
  uint32_t peer_calls_max_ = native::kBaselineCalls;
  size_t peer_message_max_ = native::kCreditMax;
  size_t peer_metadata_max_ = 16 << 10;

  bool peer_going_away_ = false;
  CallId peer_last_ = UINT32_MAX;  // of GOAWAY
  bool going_away_ = false;
  CallId our_last_ = 0;  // the last of the peer's that was accepted before our GOAWAY

  Budget resets_;
  Budget glitches_;
  uint32_t late_allowed_ = 0;  // frames that were on their way when their call ended
  // Of what stands in output_: answers to pings, and all that the peer made us send at once.
  uint32_t acks_unsent_ = 0;
  uint32_t caused_unsent_ = 0;
  absl::Duration since_ping_ = absl::InfiniteDuration();  // of the peer
  uint32_t ping_strikes_ = 0;

  size_t waiting_bytes_ = 0;
  size_t waiting_reply_bytes_ = 0;
  size_t partial_bytes_ = 0;
};

}  // namespace troupe

#endif  // TROUPE_WIRE_NATIVE_CODEC_H_
