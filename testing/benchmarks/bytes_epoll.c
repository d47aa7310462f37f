// A server that sends bytes back, by hand: what the kernel costs. Prints its port and serves until it is killed.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { kBufferSize = 64 << 10, kEvents = 256 };

struct connection {
  int fd;
  // What the kernel did not take; reading waits until it has.
  size_t unsent_size;
  size_t unsent_at;
  char unsent[kBufferSize];
};

static void die(const char* what) {
  perror(what);
  exit(1);
}

static void end(struct connection* c) {
  close(c->fd);
  free(c);
}

static void watch(int epoll, int operation, struct connection* c, uint32_t events) {
  struct epoll_event event = {.events = events, .data = {.ptr = c}};
  if (epoll_ctl(epoll, operation, c->fd, &event) != 0) die("epoll_ctl");
}

static void on_readable(int epoll, struct connection* c) {
  static char buffer[kBufferSize];
  const ssize_t size = recv(c->fd, buffer, sizeof(buffer), 0);
  if (size < 0 && errno == EAGAIN) return;
  if (size <= 0) return end(c);
  ssize_t sent = send(c->fd, buffer, size, MSG_NOSIGNAL);
  if (sent == size) return;
  if (sent < 0 && errno != EAGAIN) return end(c);
  if (sent < 0) sent = 0;
  c->unsent_at = 0;
  c->unsent_size = size - sent;
  memcpy(c->unsent, buffer + sent, c->unsent_size);
  watch(epoll, EPOLL_CTL_MOD, c, EPOLLOUT);
}

static void on_writable(int epoll, struct connection* c) {
  const ssize_t sent = send(c->fd, c->unsent + c->unsent_at, c->unsent_size, MSG_NOSIGNAL);
  if (sent < 0 && errno == EAGAIN) return;
  if (sent < 0) return end(c);
  c->unsent_at += sent;
  c->unsent_size -= sent;
  if (c->unsent_size == 0) watch(epoll, EPOLL_CTL_MOD, c, EPOLLIN);
}

static void on_acceptable(int epoll, int listener) {
  const int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) return;
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  struct connection* c = calloc(1, sizeof(*c));
  if (c == NULL) die("calloc");
  c->fd = fd;
  watch(epoll, EPOLL_CTL_ADD, c, EPOLLIN);
}

int main(void) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t length = sizeof(address);
  if (listener < 0 || bind(listener, (struct sockaddr*)&address, length) != 0) die("bind");
  if (listen(listener, 100) != 0 || getsockname(listener, (struct sockaddr*)&address, &length) != 0) die("listen");
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event = {.events = EPOLLIN, .data = {.ptr = NULL}};
  if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) != 0) die("epoll");
  printf("port %d\n", ntohs(address.sin_port));
  fflush(stdout);
  struct epoll_event events[kEvents];
  for (;;) {
    const int count = epoll_wait(epoll, events, kEvents, -1);
    if (count < 0 && errno != EINTR) die("epoll_wait");
    for (int i = 0; i < count; ++i) {
      struct connection* c = events[i].data.ptr;
      if (c == NULL) {
        on_acceptable(epoll, listener);
      } else if (c->unsent_size != 0) {
        on_writable(epoll, c);
      } else {
        on_readable(epoll, c);
      }
    }
  }
}
