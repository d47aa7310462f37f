// Connection: the connection that a call came by, or over which an actor lives, without its wire.
//
// An actor gets it in ConnectionMade and each of its calls names it. It is also a Caller: a stub made from it calls the
// services that the peer offers on the same connection.
//
// Threading: the loop's.     Lifetime: until the actor's ConnectionLost has returned.
#ifndef TROUPE_RPC_CONNECTION_H_
#define TROUPE_RPC_CONNECTION_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "troupe/base/socket_address.h"
#include "troupe/base/tls_info.h"
#include "troupe/rpc/caller.h"

namespace troupe {

class Connection : public Caller {
 public:
  // Where the peer is, and where it reached us. AF_UNSPEC in process.
  virtual const SocketAddress& peer() const = 0;
  virtual const SocketAddress& local() const = 0;
  // Who the peer is, when it has shown a certificate, and what else the TLS handshake has agreed on. Null in clear text
  // and in process.
  virtual const TlsInfo* tls() const { return nullptr; }
  // "troupe/1", "h2", "memory".
  virtual absl::string_view wire() const = 0;
  // True when every call of this connection comes from one client: native and in-process ones. HTTP proxies mix many
  // clients on one connection, so there it is false unless the server's options say otherwise.
  virtual bool single_client() const = 0;
  // The server drains: long streams should come to an end.
  virtual bool draining() const = 0;
  // Ends the connection: calls in flight are cancelled, the peer is told `why`, ConnectionLost follows from the loop.
  virtual void Close(const absl::Status& why) = 0;
  // An actor holds so many bytes more for the peer (negative: less) than the messages of its calls are: what it has read
  // and not dealt with. They count as held by the connection, and while they are too many (actor_bytes_max of its limits)
  // the peer is granted no more credit. What a handler has charged it takes back before it ends.
  virtual void Charge(int64_t bytes) = 0;
  // For logs: "troupe/1 127.0.0.1:7400 <- 127.0.0.1:49152".
  virtual std::string DebugString() const = 0;

 protected:
  ~Connection() = default;
};

}  // namespace troupe

#endif  // TROUPE_RPC_CONNECTION_H_
