// What TLS costs: a handshake (both ends), and 16 KiB sent and received, by Troupe and Boost.Asio over a socket pair in one
// thread, and by OpenSSL alone over memory, which is what nobody can get below.
//
//   bazel run --config=clang --config=O2 //testing/benchmarks:tls_benchmark
#include <openssl/bio.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/local/connect_pair.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/write.hpp>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "benchmark/benchmark.h"
#include "troupe/async/task.h"
#include "troupe/loop/event_loop.h"
#include "troupe/net/connect.h"
#include "troupe/net/protocol.h"
#include "troupe/net/tls_context.h"
#include "troupe/net/transport.h"
#include "troupe/os/posix_os.h"
#include "troupe/testing/tls_certificates.h"

namespace troupe {
namespace {

constexpr size_t kBlock = 16 << 10;

struct Certificates {
  const testing::TestCertificate root = testing::TestCertificate::Root();
  const testing::TestCertificate leaf = [this] {
    testing::TestCertificateOptions options;
    options.dns_names = {"kv.test"};
    return root.Issue(options);
  }();
  static const Certificates& Get() {
    static const auto* const certificates = new Certificates;
    return *certificates;
  }
};

// ---------------------------------------------------------------------------------------------------- Troupe

class Counting final : public Protocol {
 public:
  void DataReceived(absl::Span<const char> data) override {
    received += data.size();
    if (received >= wanted) loop->Stop();
  }
  static inline EventLoop* loop = nullptr;
  static inline size_t received = 0;
  static inline size_t wanted = 0;
};

class TroupePair {
 public:
  TroupePair() {
    Counting::loop = &loop_;
    TlsOptions server;
    server.certificates.emplace_back();
    server.certificates[0].chain = Certificates::Get().leaf.chain();
    server.certificates[0].key = Certificates::Get().leaf.key();
    server.session_tickets = false;
    server_context_ = std::make_unique<TlsContext>(*TlsContext::ForServer(server));
    TlsOptions client;
    client.roots = Certificates::Get().root.certificate();
    client.session_tickets = false;
    client_context_ = std::make_unique<TlsContext>(*TlsContext::ForClient(client));
  }
  ~TroupePair() {
    Disconnect();
    loop_.Close();
  }
  void Connect() {
    int fds[2];
    PosixOs::Get().SocketPair(AF_UNIX, SOCK_STREAM, fds);
    auto accepting = loop_.CreateTask(Accept(fds[1]));
    client_ = loop_.RunUntilComplete(Open(fds[0]));
    server_ = loop_.RunUntilComplete(Future<TransportPtr>(accepting));
  }
  void Disconnect() {
    if (client_ == nullptr) return;
    client_->Abort();
    server_->Abort();
    client_.reset();
    server_.reset();
    loop_.CallLater(absl::ZeroDuration(), [this] { loop_.CallSoon([this] { loop_.Stop(); }); });
    loop_.RunForever();
  }
  void Send(const std::string& block) {
    Counting::wanted = Counting::received + block.size();
    client_->Write(absl::MakeConstSpan(block));
    loop_.RunForever();
  }

 private:
  Task<TransportPtr> Accept(int fd) {
    AcceptedSocketOptions options;
    options.tls = server_context_.get();
    auto made = co_await ConnectAcceptedSocket(
        loop_, [] { return std::make_unique<Counting>(); }, fd, options);
    co_return std::move(made->transport);
  }
  Task<TransportPtr> Open(int fd) {
    ConnectOptions options;
    options.socket = fd;
    options.tls = client_context_.get();
    options.server_hostname = "kv.test";
    auto made = co_await CreateConnection(
        loop_, [] { return std::make_unique<Counting>(); }, options);
    co_return std::move(made->transport);
  }

  EventLoop loop_{PosixOs::Get()};
  std::unique_ptr<TlsContext> server_context_, client_context_;
  TransportPtr client_, server_;
};

void HandshakeTroupe(benchmark::State& state) {
  TroupePair pair;
  for (auto _ : state) {
    pair.Connect();
    pair.Disconnect();
  }
}
BENCHMARK(HandshakeTroupe);

void BulkTroupe(benchmark::State& state) {
  TroupePair pair;
  pair.Connect();
  const std::string block(kBlock, 'x');
  for (auto _ : state) pair.Send(block);
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kBlock));
}
BENCHMARK(BulkTroupe);

// ---------------------------------------------------------------------------------------------------- Asio

class AsioPair {
  using Socket = boost::asio::local::stream_protocol::socket;
  using Stream = boost::asio::ssl::stream<Socket>;

 public:
  AsioPair() {
    const Certificates& certificates = Certificates::Get();
    server_context_.use_certificate_chain(boost::asio::buffer(certificates.leaf.chain()));
    server_context_.use_private_key(boost::asio::buffer(certificates.leaf.key()), boost::asio::ssl::context::pem);
    client_context_.add_certificate_authority(boost::asio::buffer(certificates.root.certificate()));
    client_context_.set_verify_mode(boost::asio::ssl::verify_peer);
    SSL_CTX_set_num_tickets(server_context_.native_handle(), 0);
  }
  void Connect() {
    Socket a(loop_), b(loop_);
    boost::asio::local::connect_pair(a, b);
    client_ = std::make_unique<Stream>(std::move(a), client_context_);
    server_ = std::make_unique<Stream>(std::move(b), server_context_);
    client_->set_verify_callback(boost::asio::ssl::host_name_verification("kv.test"));
    client_->async_handshake(boost::asio::ssl::stream_base::client, [](const boost::system::error_code&) {});
    server_->async_handshake(boost::asio::ssl::stream_base::server, [](const boost::system::error_code&) {});
    Run();
  }
  void Disconnect() {
    client_.reset();
    server_.reset();
  }
  void Send(const std::string& block) {
    boost::asio::async_write(*client_, boost::asio::buffer(block), [](const boost::system::error_code&, size_t) {});
    into_.resize(block.size());
    boost::asio::async_read(*server_, boost::asio::buffer(into_), [](const boost::system::error_code&, size_t) {});
    Run();
  }

 private:
  void Run() {
    loop_.restart();
    loop_.run();
  }
  boost::asio::io_context loop_{1};
  boost::asio::ssl::context server_context_{boost::asio::ssl::context::tls_server};
  boost::asio::ssl::context client_context_{boost::asio::ssl::context::tls_client};
  std::unique_ptr<Stream> client_, server_;
  std::string into_;
};

void HandshakeAsio(benchmark::State& state) {
  AsioPair pair;
  for (auto _ : state) {
    pair.Connect();
    pair.Disconnect();
  }
}
BENCHMARK(HandshakeAsio);

void BulkAsio(benchmark::State& state) {
  AsioPair pair;
  pair.Connect();
  const std::string block(kBlock, 'x');
  for (auto _ : state) pair.Send(block);
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kBlock));
}
BENCHMARK(BulkAsio);

// ---------------------------------------------------------------------------------------------------- OpenSSL alone

class OpenSslPair {
 public:
  OpenSslPair() {
    const Certificates& certificates = Certificates::Get();
    server_context_.use_certificate_chain(boost::asio::buffer(certificates.leaf.chain()));
    server_context_.use_private_key(boost::asio::buffer(certificates.leaf.key()), boost::asio::ssl::context::pem);
    client_context_.add_certificate_authority(boost::asio::buffer(certificates.root.certificate()));
    SSL_CTX_set_verify(client_context_.native_handle(), SSL_VERIFY_PEER, nullptr);
    SSL_CTX_set_num_tickets(server_context_.native_handle(), 0);
  }
  ~OpenSslPair() { Disconnect(); }
  void Connect() {
    client_ = SSL_new(client_context_.native_handle());
    server_ = SSL_new(server_context_.native_handle());
    SSL_set1_host(client_, "kv.test");
    BIO* a = nullptr;
    BIO* b = nullptr;
    BIO_new_bio_pair(&a, 64 << 10, &b, 64 << 10);
    SSL_set_bio(client_, a, a);
    SSL_set_bio(server_, b, b);
    SSL_set_connect_state(client_);
    SSL_set_accept_state(server_);
    while (SSL_do_handshake(client_) != 1 || SSL_do_handshake(server_) != 1) SSL_do_handshake(server_);
  }
  void Disconnect() {
    SSL_free(std::exchange(client_, nullptr));
    SSL_free(std::exchange(server_, nullptr));
  }
  void Send(const std::string& block) {
    into_.resize(block.size());
    SSL_write(client_, block.data(), static_cast<int>(block.size()));
    size_t received = 0;
    while (received < into_.size()) {
      const int n = SSL_read(server_, into_.data(), static_cast<int>(into_.size() - received));
      if (n > 0) received += static_cast<size_t>(n);
    }
  }

 private:
  boost::asio::ssl::context server_context_{boost::asio::ssl::context::tls_server};
  boost::asio::ssl::context client_context_{boost::asio::ssl::context::tls_client};
  SSL* client_ = nullptr;
  SSL* server_ = nullptr;
  std::string into_;
};

void HandshakeOpenSsl(benchmark::State& state) {
  OpenSslPair pair;
  for (auto _ : state) {
    pair.Connect();
    pair.Disconnect();
  }
}
BENCHMARK(HandshakeOpenSsl);

void BulkOpenSsl(benchmark::State& state) {
  OpenSslPair pair;
  pair.Connect();
  const std::string block(kBlock, 'x');
  for (auto _ : state) pair.Send(block);
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kBlock));
}
BENCHMARK(BulkOpenSsl);

}  // namespace
}  // namespace troupe
