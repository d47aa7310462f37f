// The load of the byte servers.
//
//   bytes_load PORT SERVER_PID MESSAGE_BYTES CONNECTIONS SECONDS
//   bytes_load idle PORT SERVER_PID CONNECTIONS
//
// idle: each connection gets one message back and then does nothing more; prints the server's memory for each.
//
// Otherwise each connection sends a message, waits until it is back in full, and sends the next. Prints messages per second and
// the server's CPU per message, counted after a quarter of the time has passed.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "troupe/testing/benchmarks/meter.h"

namespace {

using benchmarks::Die;

struct Connection {
  int fd = -1;
  size_t to_receive = 0;
};

int Connect(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  if (fd < 0 || connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) Die("connect");
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  return fd;
}

// Blocks until the kernel has all of it, which it has room for: one message is under way.
void Send(Connection& connection, const std::string& message) {
  size_t sent = 0;
  while (sent < message.size()) {
    const ssize_t size = send(connection.fd, message.data() + sent, message.size() - sent, MSG_NOSIGNAL);
    if (size <= 0) Die("send");
    sent += static_cast<size_t>(size);
  }
  connection.to_receive = message.size();
}

int Idle(int port, pid_t server, int connections) {
  const std::string message = "8 bytes.";
  benchmarks::IdleMeter meter(server);
  for (int open = 1; open <= connections; ++open) {
    Connection connection = {.fd = Connect(port)};
    Send(connection, message);
    char buffer[8];
    if (recv(connection.fd, buffer, sizeof(buffer), MSG_WAITALL) != sizeof(buffer)) Die("recv");
    meter.Opened(open);
  }
  meter.PrintResults();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 5 && std::string(argv[1]) == "idle") return Idle(std::atoi(argv[2]), std::atoi(argv[3]), std::atoi(argv[4]));
  if (argc != 6) return 2;
  const int port = std::atoi(argv[1]);
  const pid_t server = std::atoi(argv[2]);
  const std::string message(std::strtoul(argv[3], nullptr, 10), 'x');
  std::vector<Connection> connections(std::strtoul(argv[4], nullptr, 10));
  const auto nanos = static_cast<int64_t>(std::atof(argv[5]) * 1e9);

  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  if (epoll < 0) Die("epoll_create1");
  for (Connection& connection : connections) {
    connection.fd = Connect(port);
    epoll_event event = {.events = EPOLLIN, .data = {.ptr = &connection}};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, connection.fd, &event) != 0) Die("epoll_ctl");
    Send(connection, message);
  }

  std::vector<char> buffer(256 << 10);
  std::vector<epoll_event> events(connections.size());
  const int64_t begin = benchmarks::NowNanos();
  int64_t counted_from = 0;
  int64_t cpu_before = 0;
  int64_t messages = 0;
  int64_t now = begin;
  while (now < begin + nanos) {
    const int count = epoll_wait(epoll, events.data(), static_cast<int>(events.size()), 5000);
    if (count <= 0) Die("no answer within 5 s");
    for (int i = 0; i < count; ++i) {
      auto& connection = *static_cast<Connection*>(events[static_cast<size_t>(i)].data.ptr);
      const ssize_t size = recv(connection.fd, buffer.data(), buffer.size(), 0);
      if (size <= 0 || static_cast<size_t>(size) > connection.to_receive) Die("recv");
      connection.to_receive -= static_cast<size_t>(size);
      if (connection.to_receive > 0) continue;
      ++messages;
      Send(connection, message);
    }
    now = benchmarks::NowNanos();
    if (counted_from == 0 && now >= begin + nanos / 4) {
      counted_from = now;
      cpu_before = benchmarks::CpuNanos(server);
      messages = 0;
    }
  }
  const double counted = static_cast<double>(messages);
  benchmarks::Print("per_s", counted * 1e9 / static_cast<double>(now - counted_from));
  benchmarks::Print("server_us", static_cast<double>(benchmarks::CpuNanos(server) - cpu_before) / 1e3 / counted);
}
