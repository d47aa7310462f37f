// Two protocols that talk over a network that splits, delays, stalls and resets, from a seed, and that pause, half-close,
// close and abort as the seed has it. Whatever happens: what arrives is a prefix of what was written, an end of file comes
// after all of it, each connection is lost exactly once, and where nothing breaks nothing is missing.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/base/byte_queue.h"
#include "troupe/base/errors.h"
#include "troupe/loop/event_loop.h"
#include "troupe/net/connect.h"
#include "troupe/net/protocol.h"
#include "troupe/net/stream_server.h"
#include "troupe/net/transport.h"
#include "troupe/testing/sim/sim_os.h"
#include "troupe/testing/sim/sim_random.h"

namespace troupe {
namespace {

using testing::SimOs;
using testing::SimRandom;

enum class Ending { kEof, kClose, kAbort };

char ByteAt(size_t position) { return static_cast<char>(position * 31 + position / 251); }

// What one end does and what became of it.
struct End {
  explicit End(SimRandom random) : random(random) {
    total = this->random.Below(4) == 0 ? this->random.Below(10) : this->random.Below(300'000);
    const uint64_t drawn = this->random.Below(8);
    ending = drawn == 0 ? Ending::kAbort : drawn < 3 ? Ending::kClose : Ending::kEof;
  }
  SimRandom random;
  size_t total = 0;
  Ending ending = Ending::kEof;
  End* other = nullptr;
  size_t sent = 0;
  size_t received = 0;
  bool made = false;
  bool eof = false;
  int losses = 0;
  absl::Status reason;
};

class Talker final : public Protocol {
 public:
  explicit Talker(End& end) : end_(end) {}

  void ConnectionMade(Transport& transport) override {
    EXPECT_FALSE(std::exchange(end_.made, true));
    static_cast<void>(transport.SetWriteBufferLimits({.high = static_cast<int64_t>(end_.random.Below(40'000))}));
    Pump();
  }
  void DataReceived(absl::Span<const char> data) override {
    EXPECT_TRUE(end_.made && !end_.eof && end_.losses == 0);
    for (const char byte : data) {
      if (byte != ByteAt(end_.received++)) {
        ADD_FAILURE() << "another byte at " << end_.received - 1;
        return transport().Abort();
      }
    }
    if (end_.random.Below(20) != 0) return;
    transport().PauseReading();
    resume_ = transport().loop().CallLater(absl::Milliseconds(static_cast<int64_t>(end_.random.Below(300))),
                                           [this] { transport().ResumeReading(); });
  }
  bool EofReceived() override {
    EXPECT_FALSE(std::exchange(end_.eof, true));
    if (end_.other->ending != Ending::kAbort) {
      EXPECT_EQ(end_.received, end_.other->total);
    }
    return end_.sent < end_.total;
  }
  void PauseWriting() override { EXPECT_FALSE(std::exchange(paused_, true)); }
  void ResumeWriting() override {
    EXPECT_TRUE(std::exchange(paused_, false));
    Pump();
  }
  void ConnectionLost(const absl::Status& reason) override {
    resume_.Cancel();
    ++end_.losses;
    end_.reason = reason;
  }

 private:
  void Pump() {
    if (transport().is_closing() || done_) return;
    while (!paused_ && end_.sent < end_.total)
      Write(std::min<size_t>(1 + end_.random.Below(5000), end_.total - end_.sent));
    if (end_.sent < end_.total) return;
    done_ = true;
    if (end_.ending == Ending::kAbort) return transport().Abort();
    if (end_.ending == Ending::kClose || end_.eof) return transport().Close();
    transport().WriteEof();
  }
  void Write(size_t size) {
    std::string text(size, '\0');
    for (char& byte : text) byte = ByteAt(end_.sent++);
    const absl::Span<const char> bytes = text;
    switch (end_.random.Below(3)) {
      case 0:
        return transport().Write(bytes);
      case 1: {
        ByteQueue queue;
        queue.Append(bytes);
        return transport().Write(std::move(queue));
      }
      default:
        return transport().Writev({bytes.first(size / 3), bytes.subspan(size / 3)});
    }
  }

  End& end_;
  bool paused_ = false;
  bool done_ = false;
  TimerHandle resume_;
};

struct Outcome {
  bool whole = false;  // nothing broke, and both heard all
  bool broken = false;
  uint64_t trace = 0;
};

Outcome Play(uint64_t seed) {
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  SimRandom random(seed);
  SimOs os(seed);
  const bool resets = random.Below(3) == 0;
  os.kernel().SetLoopbackLink({.latency = absl::Microseconds(static_cast<int64_t>(random.Below(20'000))),
                               .jitter = absl::Microseconds(static_cast<int64_t>(random.Below(20'000))),
                               .stall_chance = random.Below(2) == 0 ? 0.02 : 0,
                               .stall_max = absl::Seconds(3),
                               .reset_chance = resets ? 0.005 : 0});
  os.kernel().SetSendBufferBytes(1 + random.Below(100'000));
  os.SetIoLimits(
      {.recv_bytes_max = 1 + random.Below(20'000), .send_bytes_max = 1 + random.Below(20'000), .random = true});
  EventLoop loop(os, {.strict_polling = random.Below(2) == 0});
  End client(random.Fork()), served(random.Fork());
  client.other = &served;
  served.other = &client;
  {
    StreamServerOptions options;
    options.listen = {random.Below(2) == 0 ? "127.0.0.1:7000" : "unix-abstract:bad"};
    auto server = loop.RunUntilComplete(CreateServer(loop, [&] { return std::make_unique<Talker>(served); }, options));
    EXPECT_TRUE(server.ok()) << server.status();
    ConnectOptions where;
    where.address = (*server)->addresses().front();
    auto connected =
        loop.RunUntilComplete(CreateConnection(loop, [&] { return std::make_unique<Talker>(client); }, where));
    // The server's first bytes may have met a reset already.
    EXPECT_TRUE(connected.ok() || resets) << connected.status();
    try {
      loop.RunForever();
    } catch (const InvalidState&) {
      // Nothing is left that could happen.
    }
    EXPECT_EQ((*server)->connections(), 0u);
  }
  for (int i = 0; i < 3; ++i) loop.RunOnceWithoutWaiting();
  loop.Close();
  EXPECT_THAT(os.OpenDescriptors(), ::testing::IsEmpty());
  for (const End* end : {&client, &served}) {
    EXPECT_TRUE(end->made || resets);
    EXPECT_EQ(end->losses, end->made ? 1 : 0);
    EXPECT_LE(end->received, end->other->sent);
  }
  Outcome outcome;
  const bool polite = client.ending == Ending::kEof && served.ending == Ending::kEof;
  outcome.whole = client.received == served.total && served.received == client.total;
  outcome.broken = !client.reason.ok() || !served.reason.ok();
  outcome.trace = os.kernel().TraceHash();
  if (polite && !resets) {
    EXPECT_TRUE(outcome.whole);
    EXPECT_FALSE(outcome.broken) << client.reason << " " << served.reason;
  }
  return outcome;
}

// C-TRN-02, C-TRN-04, C-RD-04, C-WR-02, C-WR-13, C-WR-14, C-FLW-04
TEST(BadNetwork, WhatArrivesIsAPrefixOfWhatWasWrittenAndAllOfItWhereNothingBreaks) {
  int whole = 0, broken = 0;
  for (uint64_t seed = 1; seed <= 300 && !::testing::Test::HasFailure(); ++seed) {
    const Outcome outcome = Play(seed);
    whole += outcome.whole ? 1 : 0;
    broken += outcome.broken ? 1 : 0;
    if (seed % 50 == 0) {
      EXPECT_EQ(Play(seed).trace, outcome.trace) << "the same seed, another trace";
    }
  }
  EXPECT_GT(whole, 20);
  EXPECT_GT(broken, 20);
}

}  // namespace
}  // namespace troupe
