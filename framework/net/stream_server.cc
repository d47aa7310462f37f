#include "troupe/net/stream_server.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "glog/logging.h"
#include "troupe/async/sleep.h"
#include "troupe/base/errors.h"
#include "troupe/base/os_error.h"
#include "troupe/base/status_macros.h"
#include "troupe/loop/exception_context.h"
#include "troupe/loop/fd_watcher.h"
#include "troupe/net/internal/socket_file.h"
#include "troupe/net/internal/tls_transport.h"
#include "troupe/net/resolve.h"
#include "troupe/net/stream_transport.h"
#include "troupe/os/os.h"

namespace troupe {
namespace {

// asyncio's ACCEPT_RETRY_DELAY.
constexpr absl::Duration kAcceptRetryDelay = absl::Seconds(1);
// Descriptors that connections leave to listeners, files, resolvers, logs.
constexpr int64_t kDescriptorsReserved = 64;

size_t DefaultConnectionsMax(Os& os) {
  return static_cast<size_t>(std::max<int64_t>(1, os.DescriptorLimit() - kDescriptorsReserved));
}

}  // namespace

// ---------------------------------------------------------------------------------------------------- listening

// One listening socket. Outlives its server by the callback in which that is destroyed.
class StreamServer::Listener final : public FdWatcher {
 public:
  Listener(StreamServer& server, int fd, SocketAddress address)
      : FdWatcher(server.loop_, fd), server_(&server), os_(server.loop_.os()), address_(address) {}
  ~Listener() override { Stop(); }

  // Accepts from now on, as far as the server has room.
  absl::Status Start() {
    listening_ = true;
    const int result = Rewatch();
    return result == 0 ? absl::OkStatus() : OsError(result, absl::StrCat("watch ", address_.ToString()));
  }
  // Looks again at whether it may accept.
  void Update() {
    if (server_ == nullptr || !listening_) return;
    const int result = Rewatch();
    if (result == 0 || !MayAccept()) return;  // what is watched in vain comes back here
    LOG(ERROR) << "watch " << address_.ToString() << ": " << ErrnoText(result);
    Pause();
  }
  // The descriptor is closed when this returns.
  void Stop() {
    if (std::exchange(server_, nullptr) == nullptr) return;
    retry_.Cancel();
    Release();
    os_.Close(fd());
  }

  const SocketAddress& address() const { return address_; }

 private:
  bool MayAccept() const { return !backing_off_ && !server_->IsFull(); }
  int Rewatch() { return Watch(MayAccept() ? uint32_t{kReadable} : 0); }

  void OnReadable() override {
    if (backing_off_) return Update();
    // At most a backlog of them, so that a flood of clients does not hold the loop (C-ACC-01).
    for (int i = server_->backlog_; i > 0; --i) {
      if (server_->IsFull()) {
        server_->connections_max_hits_.Add();
        return Update();
      }
      SocketAddress peer;
      const int fd = os_.Accept(FdWatcher::fd(), &peer);
      if (fd < 0) return OnAcceptError(-fd);
      OnAccepted(fd, peer);
      if (server_ == nullptr) return;
    }
  }
  void OnWritable() override {}
  std::string DescribeWatcher() const override { return absl::StrCat("<listener ", address_.ToString(), ">"); }

  void OnAccepted(int fd, const SocketAddress& peer) {
    // The connection's: the factory may set what its protocol shall see.
    Context context = server_->context_;
    ContextScope scope(context);
    // The factory may close or destroy the server, and itself with it.
    const std::shared_ptr<ProtocolFactory> factory = server_->factory_;
    std::unique_ptr<BaseProtocol> protocol;
    try {
      protocol = (*factory)();
      if (protocol == nullptr) throw InvalidState("the protocol factory returned null");
    } catch (...) {  // reports to the exception handler, which passes Fatal on
      os_.Close(fd);
      ExceptionContext context;
      context.message = "Error on transport creation for incoming connection";
      context.Add("socket", DescribeWatcher(), this);
      context.Add("peer", peer.ToString());
      return watcher_loop_.ReportCurrentException(std::move(context));
    }
    if (server_ == nullptr) {
      os_.Close(fd);
    } else {
      server_->AddConnection(fd, peer, std::move(protocol));
    }
  }
  void OnAcceptError(int error) {
    if (error == EAGAIN || error == EINTR || error == ECONNABORTED) return;
    // EMFILE, ENFILE, ENOBUFS, ENOMEM (C-ACC-02); what else there may be would come back at once as well.
    Pause();
    ExceptionContext context;
    context.message = "socket.accept() out of system resource";
    context.status = OsError(error, absl::StrCat("accept ", address_.ToString()));
    context.Add("socket", DescribeWatcher(), this);
    context.Add("server", server_->DebugString(), server_);
    watcher_loop_.CallExceptionHandler(context);
  }
  void Pause() {
    backing_off_ = true;
    server_->accept_pauses_.Add();
    Update();
    retry_ = watcher_loop_.CallLater(kAcceptRetryDelay, [this] {
      backing_off_ = false;
      Update();
    });
  }

  StreamServer* server_;  // null once stopped
  Os& os_;
  const SocketAddress address_;
  bool listening_ = false;
  bool backing_off_ = false;
  TimerHandle retry_;
};

StreamServer::StreamServer(EventLoop& loop, ProtocolFactory factory, const StreamServerOptions& options)
    : loop_(loop),
      factory_(std::make_shared<ProtocolFactory>(std::move(factory))),
      backlog_(options.backlog),
      reuse_address_(options.reuse_address),
      reuse_port_(options.reuse_port),
      connections_max_(options.connections_max != 0 ? options.connections_max : DefaultConnectionsMax(loop.os())) {}

StreamServer::~StreamServer() {
  Close();
  while (!connections_.empty()) {
    internal::ByteTransport& transport = connections_.PopFront();
    transport.Abort();
    TransportPtr dropped(&transport);
  }
  connections_count_ = 0;
  CheckClosed();
}

absl::Status StreamServer::Bind(const SocketAddress& address) {
  Os& os = loop_.os();
  const bool unix_socket = address.family() == AF_UNIX;
  // A stale file is in the way of bind(2); that of a server which still listens stays (C-CSV-11).
  RETURN_IF_ERROR(internal::RemoveStaleSocketFile(os, address, SOCK_STREAM));
  const int fd = os.Socket(address.family(), SOCK_STREAM);
  if (fd < 0) return OsError(fd, absl::StrCat("socket for ", address.ToString()));
  absl::Cleanup close = [&] { os.Close(fd); };
  const auto set = [&](int level, int name) { return os.SetSocketOption(fd, level, name, 1); };
  if (!unix_socket) {
    if (reuse_address_) set(SOL_SOCKET, SO_REUSEADDR);
    if (reuse_port_ && set(SOL_SOCKET, SO_REUSEPORT) != 0) {
      return absl::InvalidArgumentError("reuse_port is not supported by the system");
    }
  }
  // One port can serve both families with two sockets (C-CSV-08).
  if (address.family() == AF_INET6) set(IPPROTO_IPV6, IPV6_V6ONLY);
  if (const int result = os.Bind(fd, address); result != 0) {
    return OsError(result, result == -EADDRINUSE && unix_socket
                               ? absl::StrCat("Address ", address.ToString(), " is already in use")
                               : absl::StrCat("error while attempting to bind on address ", address.ToString()));
  }
  SocketAddress bound = address;
  if (const int result = os.LocalAddress(fd, &bound); result != 0) return OsError(result, "getsockname");
  std::move(close).Cancel();
  listeners_.push_back(std::make_unique<Listener>(*this, fd, bound));
  addresses_.push_back(bound);
  return absl::OkStatus();
}

absl::Status StreamServer::Adopt(const std::vector<int>& sockets) {
  for (auto it = sockets.begin(); it != sockets.end(); ++it) {
    RETURN_IF_ERROR(internal::AdoptStreamSocket(loop_.os(), *it));
    if (std::find(sockets.begin(), it, *it) != it) {
      return absl::InvalidArgumentError(absl::StrCat("the socket ", *it, " was given twice"));
    }
  }
  absl::Status first_error;
  for (const int fd : sockets) {
    SocketAddress bound;
    if (const int result = loop_.os().LocalAddress(fd, &bound); result != 0) {
      first_error.Update(OsError(result, "getsockname"));
    }
    listeners_.push_back(std::make_unique<Listener>(*this, fd, bound));
    addresses_.push_back(bound);
  }
  return first_error;
}

absl::Status StreamServer::Listen() {
  if (serving_) return absl::OkStatus();
  context_ = Context::Current().WithoutDeadline();
  for (const auto& listener : listeners_) {
    if (const int result = loop_.os().Listen(listener->fd(), backlog_); result != 0) {
      const absl::Status error = OsError(result, absl::StrCat("listen on ", listener->address().ToString()));
      // A given socket that is connected already: taken over by now, which INVALID_ARGUMENT would deny.
      return result == -EINVAL ? absl::FailedPreconditionError(error.message()) : error;
    }
    RETURN_IF_ERROR(listener->Start());
  }
  serving_ = true;
  return absl::OkStatus();
}

Task<absl::Status> StreamServer::StartServing() {
  if (closed_) throw InvalidState(absl::StrCat("server ", DebugString(), " is closed"));
  CO_RETURN_IF_ERROR(Listen());
  co_await Sleep(absl::ZeroDuration());
  co_return absl::OkStatus();
}

void StreamServer::AddConnection(int fd, const SocketAddress& peer, std::unique_ptr<BaseProtocol> protocol) {
  accepted_.Add();
  internal::ByteTransport* transport = nullptr;
  if (!tls_.secure()) {
    transport = new internal::StreamTransport(loop_, fd, std::move(protocol), &peer);
    transport->Start();
  } else {
    transport = internal::TlsTransport::OverSocket(loop_, fd, &peer, std::move(protocol), tls_);
  }
  transport->set_owner(this);
  connections_.PushBack(*transport);
  ++connections_count_;
}

void StreamServer::OnTransportLost(internal::ByteTransport& transport) {
  static_cast<ListNode<internal::TransportOwner>&>(transport).Unlink();
  const bool was_full = IsFull();
  --connections_count_;
  if (!transport.connection_made() && !transport.lost_reason().ok()) tls_handshake_failures_.Add();
  TransportPtr dropped(&transport);
  if (was_full) {
    for (const auto& listener : listeners_) listener->Update();
  }
  CheckClosed();
}

void StreamServer::OnTransportReplaced(internal::ByteTransport& transport, internal::ByteTransport& layer) {
  static_cast<ListNode<internal::TransportOwner>&>(transport).Unlink();
  connections_.PushBack(layer);
}

// ---------------------------------------------------------------------------------------------------- the end

void StreamServer::Close() {
  if (closed_) return;
  closed_ = true;
  serving_ = false;
  for (auto& listener : listeners_) {
    listener->Stop();
    // It may be accepting at this moment.
    if (!loop_.IsClosed()) loop_.DeleteLater(std::move(listener));
  }
  listeners_.clear();
  CheckClosed();
}

void StreamServer::CloseConnections() {
  for (internal::ByteTransport& transport : connections_) transport.Close();
}

void StreamServer::AbortConnections() {
  for (internal::ByteTransport& transport : connections_) transport.Abort();
}

void StreamServer::CheckClosed() {
  if (closed_ && connections_count_ == 0 && !ended_.happened()) ended_.Happen();
}

Task<void> StreamServer::WaitClosed() { co_await ended_.Wait("StreamServer::WaitClosed"); }

Task<absl::Status> StreamServer::ServeForever() {
  if (served_forever_) {
    throw InvalidState(absl::StrCat("server ", DebugString(), " is already being awaited on ServeForever()"));
  }
  if (closed_) throw InvalidState(absl::StrCat("server ", DebugString(), " is closed"));
  CO_RETURN_IF_ERROR(Listen());
  served_forever_ = true;
  const absl::Cleanup done = [this] { served_forever_ = false; };
  bool cancelled = false;
  try {
    co_await ended_.Wait("StreamServer::ServeForever");
  } catch (const Cancelled&) {
    cancelled = true;
  }
  if (!cancelled) co_return absl::OkStatus();
  Close();
  co_await ended_.Wait("StreamServer::ServeForever, cancelled");
  throw Cancelled();
}

std::vector<int> StreamServer::sockets() const {
  std::vector<int> descriptors;
  for (const auto& listener : listeners_) descriptors.push_back(listener->fd());
  return descriptors;
}

std::string StreamServer::DebugString() const {
  const std::string where = absl::StrJoin(addresses_, " ", [](std::string* out, const SocketAddress& address) {
    absl::StrAppend(out, address.ToString());
  });
  return absl::StrCat("<StreamServer ", where,
                      closed_    ? " closed"
                      : serving_ ? " serving"
                                 : "",
                      " connections=", connections_count_, ">");
}

// ---------------------------------------------------------------------------------------------------- making

Task<absl::StatusOr<std::unique_ptr<StreamServer>>> internal::BuildServer(EventLoop& loop, ProtocolFactory factory,
                                                                          StreamServerOptions options) {
  if (options.listen.empty() == options.sockets.empty()) {
    co_return absl::InvalidArgumentError(options.listen.empty()
                                             ? "Neither listen nor sockets were specified"
                                             : "listen and sockets cannot be specified at the same time");
  }
  if (options.backlog < 1) {
    co_return absl::InvalidArgumentError(absl::StrCat("backlog must be at least 1, got ", options.backlog));
  }
  if (options.tls != nullptr && !options.tls->is_server()) {
    co_return absl::InvalidArgumentError("a server takes a TlsContext for servers");
  }
  CO_ASSIGN_OR_RETURN(TlsSettings tls,
                      TlsSettings::Make(options.tls, "", options.tls_handshake_timeout, options.tls_shutdown_timeout));
  CO_RETURN_IF_ERROR(tls.SetAlpn(options.tls_alpn));
  if (options.allow_clear_text && !tls.secure()) {
    co_return absl::InvalidArgumentError("allow_clear_text is only meaningful with tls");
  }
  tls.clear_text_allowed = options.allow_clear_text;
  std::vector<SocketAddress> addresses;
  for (const std::string& text : options.listen) {
    std::vector<SocketAddress> found;
    if (absl::StartsWith(text, "unix:") || absl::StartsWith(text, "unix-abstract:")) {
      CO_ASSIGN_OR_RETURN(const SocketAddress address, SocketAddress::Parse(text));
      found.push_back(address);
    } else {
      CO_ASSIGN_OR_RETURN(HostPort where, SplitHostPort(text));
      ResolveQuery query;
      query.host = std::move(where.host);
      query.service = std::move(where.port);
      query.passive = true;
      CO_ASSIGN_OR_RETURN(found, co_await GetAddrInfo(loop, query));
    }
    for (const SocketAddress& address : found) {
      if (std::find(addresses.begin(), addresses.end(), address) == addresses.end()) addresses.push_back(address);
    }
  }
  std::unique_ptr<StreamServer> server(new StreamServer(loop, std::move(factory), options));
  server->tls_ = std::move(tls);
  CO_RETURN_IF_ERROR(server->Adopt(options.sockets));
  absl::Status skipped;
  for (const SocketAddress& address : addresses) {
    const absl::Status bound = server->Bind(address);
    const int error = ErrnoOf(bound);
    if (error == EAFNOSUPPORT || (error == EADDRNOTAVAIL && address.is_ip() && addresses.size() > 1)) {
      // The system does not have this family (C-CSV-06).
      LOG_IF(INFO, loop.debug()) << "CreateServer() skips " << address.ToString() << ": " << bound;
      skipped.Update(bound);
      continue;
    }
    CO_RETURN_IF_ERROR(bound);
  }
  if (server->sockets().empty()) co_return skipped;
  if (options.start_serving) {
    CO_RETURN_IF_ERROR(co_await server->StartServing());
  }
  co_return server;
}

}  // namespace troupe
