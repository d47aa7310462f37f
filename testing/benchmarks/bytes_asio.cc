// A server that sends bytes back, with Boost.Asio. Prints its port and serves until it is killed.
#include <array>
#include <memory>
#include <utility>

#include "boost/asio.hpp"
#include "troupe/testing/benchmarks/meter.h"

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  explicit Connection(tcp::socket socket) : socket_(std::move(socket)) { socket_.set_option(tcp::no_delay(true)); }

  void Read() {
    socket_.async_read_some(asio::buffer(buffer_),
                            [self = shared_from_this()](boost::system::error_code error, size_t size) {
                              if (!error) self->Write(size);
                            });
  }

 private:
  void Write(size_t size) {
    asio::async_write(socket_, asio::buffer(buffer_.data(), size),
                      [self = shared_from_this()](boost::system::error_code error, size_t) {
                        if (!error) self->Read();
                      });
  }

  tcp::socket socket_;
  std::array<char, 64 << 10> buffer_;
};

void Accept(tcp::acceptor& acceptor) {
  acceptor.async_accept([&acceptor](boost::system::error_code error, tcp::socket socket) {
    if (!error) std::make_shared<Connection>(std::move(socket))->Read();
    Accept(acceptor);
  });
}

}  // namespace

int main() {
  benchmarks::EndWithParent();
  asio::io_context context(BOOST_ASIO_CONCURRENCY_HINT_UNSAFE);
  tcp::acceptor acceptor(context, tcp::endpoint(asio::ip::address_v4::loopback(), 0));
  benchmarks::PrintPort(acceptor.local_endpoint().port());
  Accept(acceptor);
  context.run();
}
