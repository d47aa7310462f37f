// TransportWorld: two connected transports over any device, and what their protocols hear; for the tests of the rules.
//
// A test writes at one end, settles the world (runs the loop until nothing more can happen by itself) and reads the two
// recordings a_ and b_, those of first_ and second_.
#ifndef TROUPE_NET_INTERNAL_TRANSPORT_TESTING_H_
#define TROUPE_NET_INTERNAL_TRANSPORT_TESTING_H_

#include <sys/socket.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/base/errors.h"
#include "troupe/loop/event_loop.h"
#include "troupe/loop/exception_context.h"
#include "troupe/loop/loop_testing.h"
#include "troupe/net/internal/recording_protocol.h"
#include "troupe/net/memory_transport.h"
#include "troupe/net/stream_transport.h"
#include "troupe/os/io_limit.h"
#include "troupe/os/posix_os.h"
#include "troupe/testing/sim/sim_os.h"

namespace troupe::internal {

enum class Device { kMemory, kMemoryInBits, kSimulated, kPosix };

inline std::string DeviceName(Device device) {
  constexpr const char* kNames[] = {"Memory", "MemoryInBits", "Simulated", "Posix"};
  return kNames[static_cast<int>(device)];
}

class TransportWorld {
 protected:
  TransportWorld(Device device, Polling polling) : device_(device), polling_(polling) {
    loop_->SetExceptionHandler([this](EventLoop&, const ExceptionContext& context) {
      reports_.push_back(context.message);
      last_report_ = context;
    });
  }
  ~TransportWorld() {
    first_.reset();
    second_.reset();
    Settle();
    EXPECT_EQ(a_.alive, 0);
    EXPECT_EQ(b_.alive, 0);
    loop_->Close();
    EXPECT_THAT(sim_.OpenDescriptors(), ::testing::IsEmpty());
  }

  bool posix() const { return device_ == Device::kPosix; }
  bool memory() const { return device_ == Device::kMemory || device_ == Device::kMemoryInBits; }
  Os& os() { return posix() ? PosixOs::Get() : sim_; }
  std::unique_ptr<EventLoop> NewLoop() {
    return std::make_unique<EventLoop>(os(), EventLoopOptions{.strict_polling = polling_ == Polling::kStrict});
  }
  // Every byte is on its way alone, or nearly: then devices hold little, so that Many is not too many.
  bool in_bits() const { return device_ == Device::kMemoryInBits || IoLimit::FromEnvironment().any(); }
  // More than the device and the high mark hold together.
  size_t Many() const { return in_bits() ? 80 << 10 : posix() ? 4 << 20 : 300 << 10; }
  // As Many, for a high mark of 100 bytes.
  size_t MoreThan100() const { return in_bits() ? 3000 : Many(); }

  // Connects the protocols; ConnectionMade is queued.
  void Connect(std::unique_ptr<BaseProtocol> first, std::unique_ptr<BaseProtocol> second) {
    if (memory()) {
      MemoryTransportOptions options;
      if (in_bits()) options = {.pipe_bytes_max = 1000, .delivery_bytes_max = 3};
      auto pair = MakeMemoryPair(*loop_, std::move(first), std::move(second), options);
      first_ = std::move(pair.first);
      second_ = std::move(pair.second);
      return;
    }
    int fds[2];
    if (in_bits()) sim_.kernel().SetSendBufferBytes(1000);
    ASSERT_EQ(os().SocketPair(AF_UNIX, SOCK_STREAM, fds), 0);
    first_ = MakeStreamTransport(*loop_, fds[0], std::move(first));
    second_ = MakeStreamTransport(*loop_, fds[1], std::move(second));
  }
  void Connect() { Connect(a_.NewProtocol(), b_.NewProtocol()); }
  // Connected, and both have been told.
  void ConnectAndSettle() {
    Connect();
    Settle();
  }

  // One iteration, without waiting; says whether anything ran.
  bool Iterate() { return loop_->RunOnceWithoutWaiting(); }
  // Until nothing more happens by itself.
  void Settle() {
    if (posix()) {
      // Unix sockets have no latency: what was sent is there.
      for (int quiet = 0; quiet < 3; ++quiet) {
        if (Iterate() || loop_->HasReady()) quiet = -1;
      }
      return;
    }
    try {
      loop_->RunForever();
      FAIL() << "the loop stopped";
    } catch (const InvalidState& stalled) {
      ASSERT_THAT(stalled.what(), ::testing::HasSubstr("nothing is left"));
    }
  }
  // Writes at first_ until the device takes no more. REQUIRES: second_ does not read.
  void Fill() {
    do {
      while (first_->write_buffer_size() == 0) first_->Write(std::string(1000, 'x'));
      Settle();
    } while (first_->write_buffer_size() == 0);
  }

  const Device device_;
  const Polling polling_;
  testing::SimOs sim_;
  std::unique_ptr<EventLoop> loop_ = NewLoop();
  Recording a_, b_;
  TransportPtr first_, second_;
  std::vector<std::string> reports_;
  ExceptionContext last_report_;
};

}  // namespace troupe::internal

#endif  // TROUPE_NET_INTERNAL_TRANSPORT_TESTING_H_
