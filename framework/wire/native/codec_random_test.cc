#include <cstdint>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "troupe/base/byte_queue.h"
#include "troupe/wire/native/codec.h"
#include "troupe/wire/native/testing_peer.h"

namespace troupe::native {
namespace {

#define EXPECT_OK(...) EXPECT_EQ(absl::OkStatus(), (__VA_ARGS__))
#define ASSERT_OK(...) ASSERT_EQ(absl::OkStatus(), (__VA_ARGS__))

// Two codecs, both calling and both serving, any number of calls, messages of all sizes, bytes that arrive in pieces of
// any length, readers that stop reading for a while. Every message must arrive once, whole and in order, every call
// must end as it was ended, and when all is read nothing may be left waiting or held.
class Chaos {
 public:
  explicit Chaos(uint64_t seed) : random_(seed) {
    for (int e = 0; e < 2; ++e) {
      CodecOptions options;
      options.client = e == 0;
      options.call_credit_bytes = 1u << (15 + Below(5));
      options.connection_credit_bytes = 1u << (17 + Below(5));
      options.calls_max = 1 + Below(120);
      options.message_bytes_max = 400000;
      options.deterministic = Below(2) == 0;
      ends_[e] = std::make_unique<CodecEnd>(options);
      ends_[e]->log_messages = false;
      ends_[e]->consume = false;
      Listen(e);
    }
  }

  void Run(int steps) {
    for (int step = 0; step < steps; ++step) {
      const int e = Below(2);
      switch (Below(10)) {
        case 0:
        case 1:
          StartCall(e);
          break;
        case 2:
        case 3:
        case 4:
          Act(e);
          break;
        case 5:
        case 6:
          Consume(e);
          break;
        default:
          Carry(e, Below(4) == 0 ? 1 + Below(20) : 1 + Below(100000));
      }
      if (::testing::Test::HasFatalFailure()) return;
    }
    Finish();
  }

 private:
  // One call, as the two ends know it. [0] is the caller's half.
  struct Model {
    std::deque<std::string> sent[2];  // not yet received by the other
    bool closed = false;              // the caller said its last
    bool close_heard = false;
    bool answered = false;
    bool over[2] = {false, false};
    bool reset = false;
    absl::StatusCode code = absl::StatusCode::kOk;
  };

  int Below(size_t n) { return static_cast<int>(random_() % n); }
  std::string Text() {
    const size_t size = Below(20) == 0 ? Below(300000) : Below(4) == 0 ? Below(20000) : Below(200);
    return std::string(size, static_cast<char>('a' + Below(26)));
  }
  // The caller of an odd id is end 0.
  static int Caller(CallId id) { return id % 2 == 1 ? 0 : 1; }
  NativeCodec& codec(int e) { return ends_[e]->codec(); }

  void Listen(int e) {
    CodecEnd& end = *ends_[e];
    end.on_call = [this, e](IncomingCall& call) {
      ASSERT_NE(Caller(call.id), e);
      Model& model = calls_.at(call.id);
      if (call.complete) {
        Received(e, call.id, call.message, call.charged);
        model.close_heard = true;
      }
    };
    end.on_message = [this, e](CallId id, absl::Span<const char> bytes, size_t charged) {
      ends_[e]->unconsumed[id] -= charged;
      Received(e, id, bytes, charged);
    };
    end.on_half_close = [this, e](CallId id) {
      Model& model = calls_.at(id);
      ASSERT_NE(Caller(id), e);
      ASSERT_TRUE(model.closed);
      ASSERT_TRUE(model.sent[0].empty());
      model.close_heard = true;
    };
    end.on_over = [this, e](CallId id) {
      Model& model = calls_.at(id);
      const int side = Caller(id) == e ? 0 : 1;
      ASSERT_FALSE(model.over[side]) << id;
      model.over[side] = true;
      // Before the features have come, more calls are opened than the other end may take.
      if (absl::StrContains(ends_[e]->last_line(), "calls in flight (not started)")) model.reset = true;
      if (!model.reset && side == 0) {
        ASSERT_TRUE(model.answered);
        ASSERT_TRUE(model.sent[1].empty()) << "replies lost";
      }
      consumable_[e].erase(id);
    };
  }

  void Received(int e, CallId id, absl::Span<const char> bytes, size_t charged) {
    Model& model = calls_.at(id);
    std::deque<std::string>& expected = model.sent[Caller(id) == e ? 1 : 0];
    ASSERT_FALSE(expected.empty()) << id;
    ASSERT_EQ(absl::string_view(bytes.data(), bytes.size()), Encoded(expected.front())) << id;
    expected.pop_front();
    consumable_[e][id] += charged;
  }

  void StartCall(int e) {
    const bool unary = Below(2) == 0;
    const std::string text = Text();
    const auto message = Value(text);
    absl::StatusOr<CallId> id =
        ends_[e]->TryStart(absl::StrCat("/m", Below(5)), unary ? &message : nullptr, nullptr, absl::Seconds(Below(9)));
    if (!id.ok()) {
      ASSERT_EQ(id.status().code(), absl::StatusCode::kResourceExhausted);
      return;
    }
    Model& model = calls_[*id];
    if (unary) model.sent[0].push_back(text);
    model.closed = unary;
    open_.push_back(*id);
  }

  void Act(int e) {
    if (open_.empty()) return;
    const size_t which = Below(open_.size());
    const CallId id = open_[which];
    Model& model = calls_.at(id);
    const int side = Caller(id) == e ? 0 : 1;
    if (model.reset || model.over[0]) {
      open_.erase(open_.begin() + which);
      return;
    }
    if (side == 1 && !IsOpenAtServer(id)) return;
    switch (Below(12)) {
      case 0:
        if (side == 0 && !model.closed) {
          codec(e).SendHalfClose(id);
          model.closed = true;
        }
        break;
      case 1:
        if (side == 1 && !model.answered) Answer(id);
        break;
      case 2:
        if (Below(4) != 0 || (side == 1 && model.answered)) break;
        codec(e).Reset(id, absl::AbortedError("random"));
        model.reset = true;
        model.over[side] = true;
        consumable_[e].erase(id);
        break;
      default:
        if (side == 0 ? !model.closed && !model.answered : !model.answered) {
          // Bounded: what waits belongs to the sender.
          if (codec(e).WaitingBytes(id) > 500000) break;
          const std::string text = Text();
          ASSERT_OK(codec(e).SendMessage(id, Value(text)));
          if (!(side == 0 && model.answered)) model.sent[side].push_back(text);
        }
    }
  }

  // The server knows of the call once OnCall was told; before, or after a refusal, there is nothing to act on.
  bool IsOpenAtServer(CallId id) {
    for (const std::string& line : ends_[1 - Caller(id)]->TakeLog()) {
      if (line.substr(0, 5) == "call " && line != "call room")
        known_.insert(static_cast<CallId>(std::stoul(line.substr(5))));
    }
    return known_.count(id) > 0;
  }

  void Answer(CallId id) {
    Model& model = calls_.at(id);
    const int e = 1 - Caller(id);
    model.answered = true;
    model.sent[0].clear();  // what has not come yet is of no interest any more
    const std::string text = Text();
    const auto message = Value(text);
    const bool with_message = Below(2) == 0;
    if (with_message) model.sent[1].push_back(text);
    codec(e).SendReply(id, with_message ? &message : nullptr, absl::OkStatus(), nullptr);
    consumable_[e].erase(id);
  }

  void Consume(int e) {
    if (consumable_[e].empty()) return;
    auto it = consumable_[e].begin();
    std::advance(it, Below(consumable_[e].size()));
    const size_t some = Below(3) == 0 ? it->second / 2 : it->second;
    codec(e).Consumed(it->first, some);
    it->second -= some;
    if (it->second == 0) consumable_[e].erase(it);
  }

  // From end `e` to the other, at most `n` bytes of what stands there.
  bool Carry(int e, size_t n) {
    ByteQueue& output = codec(e).output();
    wire_[e].Append(std::move(output));
    n = std::min(n, wire_[e].size());
    if (n == 0) return false;
    const Bytes bytes = wire_[e].TakeBytes(n);
    const absl::Status status = ends_[1 - e]->Receive(bytes.span());
    EXPECT_OK(status);
    if (!status.ok()) ADD_FAILURE();
    codec(1 - e).TimePassed(absl::Milliseconds(100));
    return status.ok();
  }

  void Finish() {
    // The servers answer what is left, everyone reads everything.
    for (int round = 0; round < 2000; ++round) {
      bool moved = false;
      for (int e = 0; e < 2; ++e) {
        while (Carry(e, 50000)) moved = true;
        if (::testing::Test::HasFailure()) return;
        while (!consumable_[e].empty()) {
          Consume(e);
          moved = true;
        }
      }
      if (moved) continue;
      bool answered = false;
      for (auto& [id, model] : calls_) {
        if (!model.reset && !model.over[0] && !model.answered && IsOpenAtServer(id)) {
          Answer(id);
          answered = true;
        }
      }
      if (!answered) break;
    }
    for (auto& [id, model] : calls_) {
      ASSERT_TRUE(model.over[0] || model.reset) << "call " << id << " never ended";
    }
    for (int e = 0; e < 2; ++e) {
      EXPECT_EQ(codec(e).open_calls(), 0u);
      EXPECT_EQ(codec(e).held_bytes(), 0u);
      EXPECT_EQ(codec(e).output().footprint(), 0u);
      EXPECT_EQ(ends_[e]->counters().format_errors.value(), 0u);
      // No credit has been lost on the way: what one end may send is what the other waits for.
      EXPECT_EQ(NativeCodecTestPeer::SendCredit(codec(e)), NativeCodecTestPeer::ReceiveCredit(codec(1 - e)));
    }
  }

  std::mt19937_64 random_;
  std::unique_ptr<CodecEnd> ends_[2];
  ByteQueue wire_[2];
  std::map<CallId, Model> calls_;
  std::vector<CallId> open_;
  std::set<CallId> known_;
  std::map<CallId, size_t> consumable_[2];
};

TEST(NativeCodec, KeepsItsPromisesAtRandom) {
  const char* given = std::getenv("TROUPE_SEED");
  if (given != nullptr) {
    Chaos(std::strtoull(given, nullptr, 10)).Run(3000);
    return;
  }
  const uint64_t first = std::random_device()();
  for (uint64_t seed = first; seed < first + 12; ++seed) {
    SCOPED_TRACE("TROUPE_SEED=" + std::to_string(seed));
    Chaos(seed).Run(3000);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace troupe::native
