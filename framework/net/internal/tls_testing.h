// TlsTest: the world of the tests of TLS: a client and a server with a tap on the wire between them, in virtual time.
//
//   Handshake(ServerContext(), ClientContext());
//   client_->Write("hello");
//   Settle();
//   EXPECT_THAT(b_.log, ElementsAre("made", "data hello"));      // b_: the server's protocol, a_: the client's
//
// Both ends begin in clear text over memory and are upgraded, so both hear "made" before. The tap passes everything on,
// with backpressure, and remembers it; a test may change what it passes, or cut it.
#ifndef TROUPE_NET_INTERNAL_TLS_TESTING_H_
#define TROUPE_NET_INTERNAL_TLS_TESTING_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/task.h"
#include "troupe/base/errors.h"
#include "troupe/loop/loop_testing.h"
#include "troupe/net/internal/recording_protocol.h"
#include "troupe/net/memory_transport.h"
#include "troupe/net/tls.h"
#include "troupe/net/tls_context.h"
#include "troupe/net/transport.h"
#include "troupe/os/io_limit.h"
#include "troupe/testing/tls_certificates.h"

namespace troupe::internal {

// Two ends of two pairs, joined.
class Tap {
 public:
  enum Side { kClient, kServer };

  std::string seen[2];  // what came from each side
  // What to pass on of what came from a side; null: all of it.
  std::function<std::string(Side, std::string)> change;

  std::unique_ptr<BaseProtocol> NewProtocol(Side side) { return std::make_unique<Relay>(*this, side); }
  // The ends of the tap itself, towards each side.
  TransportPtr towards[2];

  void Inject(Side side, absl::string_view bytes) { towards[side]->Write(absl::MakeConstSpan(bytes)); }

 private:
  class Relay final : public Protocol {
   public:
    Relay(Tap& tap, Side side) : tap_(tap), side_(side) {}
    void DataReceived(absl::Span<const char> data) override {
      std::string bytes(data.data(), data.size());
      tap_.seen[side_] += bytes;
      if (tap_.change) bytes = tap_.change(side_, std::move(bytes));
      if (other() != nullptr && !bytes.empty()) other()->Write(absl::MakeConstSpan(bytes));
    }
    bool EofReceived() override {
      if (other() != nullptr) other()->WriteEof();
      return true;
    }
    void PauseWriting() override {
      if (other() != nullptr) other()->PauseReading();
    }
    void ResumeWriting() override {
      if (other() != nullptr) other()->ResumeReading();
    }
    void ConnectionLost(const absl::Status&) override {
      if (other() != nullptr) other()->Close();
    }

   private:
    Transport* other() { return tap_.towards[1 - side_].get(); }
    Tap& tap_;
    const Side side_;
  };
};

class TlsTest : public LoopTest {
 private:
  struct Peek : BaseProtocol {
    static Transport& TransportOf(const BaseProtocol& protocol) { return (protocol.*&Peek::transport)(); }
  };

 protected:
  ~TlsTest() override {
    Drop();
    if (!loop_.IsClosed()) Settle();
    loop_.Close();
    EXPECT_EQ(a_.alive, 0);
    EXPECT_EQ(b_.alive, 0);
  }

  // One for all tests: keys take time.
  static const testing::TestCertificate& Root() {
    static const auto* const root = new testing::TestCertificate(testing::TestCertificate::Root());
    return *root;
  }
  static const testing::TestCertificate& Leaf() {
    static const auto* const leaf = [] {
      testing::TestCertificateOptions options;
      options.common_name = "kv";
      options.dns_names = {"kv.test"};
      options.ip_addresses = {"192.0.2.1", "2001:db8::1"};
      options.uris = {"spiffe://test/kv"};
      return new testing::TestCertificate(Root().Issue(options));
    }();
    return *leaf;
  }
  static TlsCertificate Of(const testing::TestCertificate& certificate) {
    TlsCertificate given;
    given.chain = certificate.chain();
    given.key = certificate.key();
    return given;
  }
  // The leaf, unless the options have another.
  static TlsContext ServerContext(TlsOptions options = {}) {
    if (options.certificates.empty()) options.certificates.push_back(Of(Leaf()));
    absl::StatusOr<TlsContext> made = TlsContext::ForServer(options);
    EXPECT_TRUE(made.ok()) << made.status();
    return *std::move(made);
  }
  // Trusts the root, unless the options say otherwise.
  static TlsContext ClientContext(TlsOptions options = {}) {
    if (options.roots.empty()) options.roots = Root().certificate();
    absl::StatusOr<TlsContext> made = TlsContext::ForClient(options);
    EXPECT_TRUE(made.ok()) << made.status();
    return *std::move(made);
  }

  // Until nothing happens any more by itself, timers included.
  void Settle() {
    try {
      loop_.RunForever();
      FAIL() << "the loop stopped";
    } catch (const InvalidState& stalled) {
      ASSERT_THAT(stalled.what(), ::testing::HasSubstr("nothing is left"));
    }
  }
  void RunFor(absl::Duration time) {
    loop_.CallLater(time, [this] { loop_.Stop(); });
    loop_.RunForever();
  }

  // Both ends in clear text, with the tap between them.
  void ConnectInClear() { ConnectInClear(a_.NewProtocol(), b_.NewProtocol()); }
  void ConnectInClear(std::unique_ptr<BaseProtocol> client, std::unique_ptr<BaseProtocol> server) {
    client_protocol_ = client.get();
    auto left = MakeMemoryPair(loop_, std::move(client), tap_.NewProtocol(Tap::kClient), wire_);
    auto right = MakeMemoryPair(loop_, std::move(server), tap_.NewProtocol(Tap::kServer), wire_);
    client_ = std::move(left.first);
    server_ = std::move(right.first);
    tap_.towards[Tap::kClient] = std::move(left.second);
    tap_.towards[Tap::kServer] = std::move(right.second);
    Settle();
  }
  // As the client's protocol sees it.
  Transport& ClientsTransport() { return Peek::TransportOf(*client_protocol_); }
  // The upgrade has begun when this returns; its outcome is in client_ and client_status_ once the loop has run.
  void StartClient(const TlsContext& context, StartTlsOptions options = {.server_hostname = "kv.test"}) {
    client_status_ = absl::UnknownError("under way");
    loop_.CreateTask(Upgrade(StartTls(std::move(client_), context, options), client_, client_status_));
  }
  void StartServer(const TlsContext& context, StartTlsOptions options = {}) {
    server_status_ = absl::UnknownError("under way");
    loop_.CreateTask(Upgrade(StartTls(std::move(server_), context, options), server_, server_status_));
  }
  // From nothing to two ends that speak TLS, or to the statuses that say why not.
  void TryHandshake(const TlsContext& server, const TlsContext& client, absl::string_view host = "kv.test") {
    ConnectInClear();
    StartServer(server);
    StartTlsOptions options;
    options.server_hostname = host;
    StartClient(client, options);
    Settle();
  }
  void Handshake(const TlsContext& server, const TlsContext& client, absl::string_view host = "kv.test") {
    TryHandshake(server, client, host);
    ASSERT_TRUE(client_status_.ok()) << client_status_;
    ASSERT_TRUE(server_status_.ok()) << server_status_;
  }
  void Handshake() { Handshake(ServerContext(), ClientContext()); }
  // Another connection in the same test.
  void Forget() {
    Drop();
    Settle();
    a_.log.clear();
    b_.log.clear();
  }
  // From here on one byte of what the client says is another: behind the head of its next record.
  void Corrupt() {
    tap_.change = [passed = size_t{0}](Tap::Side side, std::string bytes) mutable {
      if (side == Tap::kServer || passed >= 10) return bytes;
      passed += bytes.size();
      if (passed >= 10) bytes.back() = static_cast<char>(bytes.back() ^ 1);
      return bytes;
    };
  }
  // More than the wire holds, both its ends and the tap.
  static size_t Much() { return IoLimit::FromEnvironment().any() ? 600'000 : 2'000'000; }
  void CloseBoth() {
    client_->Close();
    Settle();
    EXPECT_TRUE(a_.lost());
    EXPECT_TRUE(b_.lost());
  }

  void Drop() {
    for (TransportPtr* transport : {&client_, &server_, &tap_.towards[0], &tap_.towards[1]}) {
      if (*transport != nullptr && !loop_.IsClosed()) (*transport)->Abort();
      transport->reset();
    }
  }

  MemoryTransportOptions wire_;
  BaseProtocol* client_protocol_ = nullptr;
  Recording a_, b_;  // what the client's and the server's protocols hear
  Tap tap_;
  TransportPtr client_, server_;
  absl::Status client_status_, server_status_;

 private:
  static Task<void> Upgrade(Task<absl::StatusOr<TransportPtr>> starting, TransportPtr& transport,
                            absl::Status& status) {
    absl::StatusOr<TransportPtr> made = co_await std::move(starting);
    status = made.status();
    if (made.ok()) transport = *std::move(made);
  }
};

}  // namespace troupe::internal

#endif  // TROUPE_NET_INTERNAL_TLS_TESTING_H_
