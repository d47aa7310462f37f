// NetTest: the world of the tests of servers and connections: a simulated machine with a loop, one server, any number of
// clients, all in virtual time.
//
//   Serve({.listen = {"[::1]:0"}});
//   Transport& client = Connect();
//   client.Write("hello");
//   Settle();
//   EXPECT_THAT(served_.log, ElementsAre("made", "data hello"));
//
// Every test runs with strict polling and with batches that share a poll (loop_testing.h, which also sees to reports).
// Teardown checks that no descriptor is open and no protocol alive.
#ifndef TROUPE_NET_INTERNAL_NET_TESTING_H_
#define TROUPE_NET_INTERNAL_NET_TESTING_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/task.h"
#include "troupe/base/errors.h"
#include "troupe/base/socket_address.h"
#include "troupe/loop/loop_testing.h"
#include "troupe/net/connect.h"
#include "troupe/net/internal/recording_protocol.h"
#include "troupe/net/stream_server.h"

namespace troupe::internal {

class NetTest : public LoopTest {
 protected:
  using MadeServer = absl::StatusOr<std::unique_ptr<StreamServer>>;

  ~NetTest() override {
    clients_.clear();
    server_.reset();
    Settle();
    loop_.Close();
    EXPECT_THAT(os_.OpenDescriptors(), ::testing::IsEmpty());
    EXPECT_EQ(served_.alive, 0);
    EXPECT_EQ(client_.alive, 0);
  }

  // Runs the loop until nothing happens any more by itself.
  void Settle() {
    try {
      loop_.RunForever();
      FAIL() << "the loop stopped";
    } catch (const InvalidState& stalled) {
      ASSERT_THAT(stalled.what(), ::testing::HasSubstr("nothing is left"));
    }
  }
  // Until `time` of the virtual clock.
  void RunTo(absl::Duration time) {
    loop_.CallAt(MonotonicTime() + time, [this] { loop_.Stop(); });
    loop_.RunForever();
  }

  static SocketAddress Address(absl::string_view text) { return *SocketAddress::Parse(text); }

  MadeServer Create(const StreamServerOptions& options) {
    return loop_.RunUntilComplete(CreateServer(loop_, [this] { return served_.NewProtocol(); }, options));
  }
  MadeServer Create(std::vector<std::string> listen) {
    StreamServerOptions options;
    options.listen = std::move(listen);
    return Create(options);
  }
  // A server, on a free port unless the options say where.
  void Serve(StreamServerOptions options = {}) {
    if (options.listen.empty() && options.sockets.empty()) options.listen = {"127.0.0.1:0"};
    MadeServer made = Create(options);
    ASSERT_TRUE(made.ok()) << made.status();
    server_ = *std::move(made);
  }
  void ServeOn(std::vector<std::string> listen) {
    StreamServerOptions options;
    options.listen = std::move(listen);
    Serve(options);
  }
  Task<absl::StatusOr<Connected<>>> Connecting(const ConnectOptions& options) {
    return CreateConnection(
        loop_,
        [this] {
          ++factory_calls_;
          return client_.NewProtocol();
        },
        options);
  }
  absl::StatusOr<Connected<>> TryConnect(const ConnectOptions& options) {
    return loop_.RunUntilComplete(Connecting(options));
  }
  absl::StatusOr<Connected<>> TryConnect(const SocketAddress& address) {
    ConnectOptions options;
    options.address = address;
    return TryConnect(options);
  }
  // A client of the server, kept until the end.
  Transport& Connect() { return Connect(server_->addresses().front()); }
  Transport& Connect(const SocketAddress& address) {
    absl::StatusOr<Connected<>> connected = TryConnect(address);
    EXPECT_TRUE(connected.ok()) << connected.status();
    clients_.push_back(std::move(connected->transport));
    return *clients_.back();
  }
  // A raw descriptor that connects and is never read.
  int Knock() {
    const int fd = os_.Socket(AF_INET, SOCK_STREAM);
    EXPECT_EQ(os_.Connect(fd, server_->addresses().front()), -EINPROGRESS);
    return fd;
  }
  // A bound socket as it might come from elsewhere.
  int BoundSocket(const SocketAddress& address) {
    const int fd = os_.Socket(address.family(), SOCK_STREAM);
    EXPECT_EQ(os_.Bind(fd, address), 0);
    return fd;
  }
  int Option(int fd, int level, int name) {
    int value = 0;
    EXPECT_EQ(os_.GetSocketOption(fd, level, name, &value), 0);
    return value;
  }
  // How often `operation` was asked for while `f` ran.
  template <class F>
  int Count(absl::string_view operation, F&& f) {
    int count = 0;
    os_.SetFault([&](absl::string_view called, int) {
      count += called == operation ? 1 : 0;
      return 0;
    });
    f();
    os_.SetFault(nullptr);
    return count;
  }

  Recording served_, client_;  // what protocols of the server and of the clients hear
  int factory_calls_ = 0;      // of clients
  std::unique_ptr<StreamServer> server_;
  std::vector<TransportPtr> clients_;
};

}  // namespace troupe::internal

#endif  // TROUPE_NET_INTERNAL_NET_TESTING_H_
