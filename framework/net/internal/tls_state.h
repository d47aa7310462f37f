// TlsState: what a TlsContext stands for, in OpenSSL's terms. TlsSession: one connection's SSL object.
//
// A generation is one SSL_CTX with its certificates. Reloading makes the next one; connections keep theirs. The sessions
// that a client may resume and the key of a server's tickets belong to the state and outlive generations.
//
// Threading: any; a TlsSession belongs to its connection's loop.
#ifndef TROUPE_NET_INTERNAL_TLS_STATE_H_
#define TROUPE_NET_INTERNAL_TLS_STATE_H_

#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "troupe/base/tls_info.h"
#include "troupe/net/internal/tls_settings.h"
#include "troupe/net/tls_context.h"

namespace troupe::internal {

// OpenSSL's objects, freed as each wants to be.
struct OpenSslFree {
  void operator()(SSL* p) const { SSL_free(p); }
  void operator()(SSL_CTX* p) const { SSL_CTX_free(p); }
  void operator()(SSL_SESSION* p) const { SSL_SESSION_free(p); }
  void operator()(X509* p) const { X509_free(p); }
  void operator()(X509_CRL* p) const { X509_CRL_free(p); }
  void operator()(EVP_PKEY* p) const { EVP_PKEY_free(p); }
  void operator()(BIO* p) const { BIO_free_all(p); }
  void operator()(STACK_OF(X509) * p) const { sk_X509_pop_free(p, X509_free); }
};
template <class T>
using OpenSslPtr = std::unique_ptr<T, OpenSslFree>;

// What the calling thread's last OpenSSL call had to say; empties its queue.
std::string TakeOpenSslErrors();

// What OpenSSL's callbacks note about a connection: they run inside its calls and do nothing else.
struct TlsNotes {
  uint32_t handshake_messages = 0;  // received
  std::string session_key;          // under which a client's sessions are kept; "": not at all
  std::string alpn;                 // of a server's connection; "": the generation's
};

// The sessions that a client may resume, by server. Bounded: the least recently used server goes first.
class TlsSessionCache {
 public:
  static constexpr size_t kServersMax = 256;
  static constexpr size_t kSessionsPerServerMax = 4;

  void Put(const std::string& key, OpenSslPtr<SSL_SESSION> session);
  // The latest one. Of TLS 1.3 it is not given out again (RFC 8446, C.4). Null: none.
  OpenSslPtr<SSL_SESSION> Take(const std::string& key);
  void Clear();

 private:
  struct Server {
    std::deque<OpenSslPtr<SSL_SESSION>> sessions;
    uint64_t last_used = 0;
  };
  std::mutex mutex_;
  std::map<std::string, Server> servers_;
  uint64_t uses_ = 0;
};

// A certificate that was read.
struct TlsIdentity {
  OpenSslPtr<X509> certificate;
  OpenSslPtr<EVP_PKEY> key;
  OpenSslPtr<STACK_OF(X509)> chain;  // what follows the certificate
};

// Appends lines to a file. Any thread.
class TlsKeyLog {
 public:
  explicit TlsKeyLog(OpenSslPtr<BIO> file) : file_(std::move(file)) {}
  void Append(const char* line);

 private:
  std::mutex mutex_;
  OpenSslPtr<BIO> file_;
};

struct TlsGeneration {
  OpenSslPtr<SSL_CTX> context;
  std::vector<TlsIdentity> identities;
  std::string alpn;                           // as on the wire
  std::shared_ptr<TlsSessionCache> sessions;  // the state's
  std::shared_ptr<TlsKeyLog> key_log;         // the state's; null: none
};

class TlsState {
 public:
  static absl::StatusOr<std::shared_ptr<TlsState>> Make(const TlsOptions& options, bool server);

  absl::Status Reload(std::vector<TlsCertificate> certificates);
  absl::Status Reload();

  bool server() const { return server_; }
  bool verifies_host_name() const { return !server_ && verifies_ && options_.verify_host_name; }
  bool verifies() const { return verifies_; }
  const TlsOptions& options() const { return options_; }
  std::shared_ptr<const TlsGeneration> generation() const;
  TlsSessionCache& sessions() { return *sessions_; }

 private:
  TlsState(const TlsOptions& options, bool server);
  absl::StatusOr<std::shared_ptr<const TlsGeneration>> MakeGeneration(const std::vector<TlsCertificate>& certificates);

  TlsOptions options_;  // its certificates: as last loaded, guarded by mutex_
  const bool server_;
  const bool verifies_;
  const std::shared_ptr<TlsSessionCache> sessions_ = std::make_shared<TlsSessionCache>();  // with each generation
  std::shared_ptr<TlsKeyLog> key_log_;                                                     // as above
  mutable std::mutex mutex_;
  std::shared_ptr<const TlsGeneration> generation_;  // with the connections made in it
};

// One connection's SSL object, with what its callbacks note.
class TlsSession {
 public:
  // RESOURCE_EXHAUSTED, or INVALID_ARGUMENT: a client's host name is none.
  static absl::StatusOr<std::unique_ptr<TlsSession>> Make(const TlsSettings& settings, absl::Time now);
  TlsSession(const TlsSession&) = delete;
  TlsSession& operator=(const TlsSession&) = delete;

  SSL* ssl() { return ssl_.get(); }
  TlsNotes& notes() { return notes_; }
  // REQUIRES: the handshake is done.
  TlsInfo Info() const;

 private:
  explicit TlsSession(std::shared_ptr<TlsState> state) : state_(std::move(state)), generation_(state_->generation()) {}

  const std::shared_ptr<TlsState> state_;                  // the context's
  const std::shared_ptr<const TlsGeneration> generation_;  // of when it was made
  TlsNotes notes_;
  OpenSslPtr<SSL> ssl_;
};

}  // namespace troupe::internal

#endif  // TROUPE_NET_INTERNAL_TLS_STATE_H_
