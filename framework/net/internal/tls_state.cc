#include "troupe/net/internal/tls_state.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "troupe/base/os_error.h"
#include "troupe/base/socket_address.h"
#include "troupe/base/status_macros.h"

namespace troupe::internal {
namespace {

// Certificates between a leaf and its root; public chains have one or two.
constexpr int kIntermediatesMax = 10;
constexpr unsigned char kSessionIdContext[] = "troupe";
// Two labels have to follow a wildcard, which stands for one label; the subject's common name is not looked at.
constexpr unsigned int kHostFlags = X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT;

absl::Status Refused(absl::string_view what) {
  const std::string why = TakeOpenSslErrors();
  return absl::InvalidArgumentError(absl::StrCat("TLS: ", what, why.empty() ? "" : ": ", why));
}

int NotesIndex() {
  static const int index = SSL_get_ex_new_index(0, nullptr, nullptr, nullptr, nullptr);
  return index;
}

// ---------------------------------------------------------------------------------------------------- callbacks: they
// run inside OpenSSL's calls, call nobody back and throw nothing.

const TlsGeneration& GenerationOf(const SSL* ssl) noexcept {
  return *static_cast<const TlsGeneration*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)));
}
TlsNotes& NotesOf(const SSL* ssl) noexcept { return *static_cast<TlsNotes*>(SSL_get_ex_data(ssl, NotesIndex())); }

int NoPassword(char*, int, int, void*) noexcept { return -1; }

void OnMessage(int write, int, int type, const void*, size_t, SSL* ssl, void*) noexcept {
  if (write == 0 && type == SSL3_RT_HANDSHAKE) ++NotesOf(ssl).handshake_messages;
}

void OnKeyLogLine(const SSL* ssl, const char* line) noexcept { GenerationOf(ssl).key_log->Append(line); }

int OnNewSession(SSL* ssl, SSL_SESSION* session) noexcept {
  const std::string& key = NotesOf(ssl).session_key;
  if (key.empty()) return 0;
  GenerationOf(ssl).sessions->Put(key, OpenSslPtr<SSL_SESSION>(session));
  return 1;  // the reference is ours
}

int ChooseAlpn(SSL* ssl, const unsigned char** chosen, unsigned char* chosen_bytes, const unsigned char* offered,
               unsigned int offered_bytes, void*) noexcept {
  const std::string& own = NotesOf(ssl).alpn;
  const std::string& ours = own.empty() ? GenerationOf(ssl).alpn : own;
  if (ours.empty()) return SSL_TLSEXT_ERR_NOACK;
  unsigned char* found = nullptr;
  const int result = SSL_select_next_proto(&found, chosen_bytes, reinterpret_cast<const unsigned char*>(ours.data()),
                                           static_cast<unsigned int>(ours.size()), offered, offered_bytes);
  if (result != OPENSSL_NPN_NEGOTIATED) return SSL_TLSEXT_ERR_ALERT_FATAL;  // RFC 7301, 3.2
  *chosen = found;
  return SSL_TLSEXT_ERR_OK;
}

int UseIdentity(SSL* ssl, const TlsIdentity& identity) noexcept {
  return SSL_use_cert_and_key(ssl, identity.certificate.get(), identity.key.get(), identity.chain.get(), 1);
}

// A server with several certificates.
int ChooseIdentity(SSL* ssl, void* argument) noexcept {
  const auto& identities = static_cast<const TlsGeneration*>(argument)->identities;
  const char* name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
  SSL_certs_clear(ssl);
  bool fits = false;
  // One of each kind of key may be set, and OpenSSL takes what the client can verify: the first comes last.
  for (auto it = identities.rbegin(); name != nullptr && it != identities.rend(); ++it) {
    if (X509_check_host(it->certificate.get(), name, 0, kHostFlags, nullptr) != 1) continue;
    if (UseIdentity(ssl, *it) != 1) return 0;
    fits = true;
  }
  return fits ? 1 : UseIdentity(ssl, identities.front());
}

// ---------------------------------------------------------------------------------------------------- reading PEM

absl::StatusOr<OpenSslPtr<BIO>> OpenPem(const std::string& text, const std::string& file, const char* what) {
  if (!text.empty() && !file.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("TLS: ", what, ": a text and a file exclude each other"));
  }
  ERR_clear_error();
  OpenSslPtr<BIO> bio(file.empty() ? BIO_new_mem_buf(text.data(), static_cast<int>(text.size()))
                                   : BIO_new_file(file.c_str(), "r"));
  if (bio != nullptr) return bio;
  const unsigned long error = ERR_peek_error();  // NOLINT(runtime/int): OpenSSL's type
  ERR_clear_error();
  const std::string name = absl::StrCat("TLS: ", what, " ", file);
  if (ERR_SYSTEM_ERROR(error)) return OsError(ERR_GET_REASON(error), name);
  return absl::ResourceExhaustedError(name);
}

// Every object of one kind, at least one.
template <class T, class Read>
absl::StatusOr<std::vector<OpenSslPtr<T>>> ReadAll(BIO* bio, Read read, const char* what) {
  std::vector<OpenSslPtr<T>> all;
  while (T* one = read(bio, nullptr, NoPassword, nullptr)) all.emplace_back(one);
  const unsigned long error = ERR_peek_last_error();  // NOLINT(runtime/int): OpenSSL's type
  if (ERR_GET_LIB(error) != ERR_LIB_PEM || ERR_GET_REASON(error) != PEM_R_NO_START_LINE) {
    return Refused(absl::StrCat(what, " is no PEM"));
  }
  ERR_clear_error();
  if (all.empty()) return absl::InvalidArgumentError(absl::StrCat("TLS: ", what, " holds no PEM of its kind"));
  return all;
}

absl::StatusOr<TlsIdentity> ReadIdentity(const TlsCertificate& given) {
  TlsIdentity identity;
  ASSIGN_OR_RETURN(const OpenSslPtr<BIO> chain_pem, OpenPem(given.chain, given.chain_file, "certificate chain"));
  ASSIGN_OR_RETURN(auto chain, ReadAll<X509>(chain_pem.get(), PEM_read_bio_X509, "certificate chain"));
  identity.certificate = std::move(chain.front());
  identity.chain.reset(sk_X509_new_null());
  for (size_t i = 1; i < chain.size(); ++i) sk_X509_push(identity.chain.get(), chain[i].release());
  ASSIGN_OR_RETURN(const OpenSslPtr<BIO> key_pem, OpenPem(given.key, given.key_file, "private key"));
  identity.key.reset(PEM_read_bio_PrivateKey(key_pem.get(), nullptr, NoPassword, nullptr));
  if (identity.key == nullptr) return Refused("private key");
  if (X509_check_private_key(identity.certificate.get(), identity.key.get()) != 1) {
    return Refused("the private key is not the certificate's");
  }
  return identity;
}

int OpenSslVersion(TlsVersion version) { return version == TlsVersion::k1_2 ? TLS1_2_VERSION : TLS1_3_VERSION; }

absl::Status Trust(SSL_CTX* context, const TlsOptions& options, bool server) {
  X509_STORE* store = SSL_CTX_get_cert_store(context);
  if (options.roots.empty() && options.roots_file.empty()) {
    if (SSL_CTX_set_default_verify_paths(context) != 1) return Refused("the system's roots");
  } else {
    ASSIGN_OR_RETURN(const OpenSslPtr<BIO> pem, OpenPem(options.roots, options.roots_file, "roots"));
    ASSIGN_OR_RETURN(const auto roots, ReadAll<X509>(pem.get(), PEM_read_bio_X509, "roots"));
    for (const OpenSslPtr<X509>& root : roots) {
      if (X509_STORE_add_cert(store, root.get()) != 1) return Refused("roots");
      if (server && SSL_CTX_add_client_CA(context, root.get()) != 1) return Refused("roots");
    }
  }
  if (options.revocation_lists.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const OpenSslPtr<BIO> pem, OpenPem(options.revocation_lists, "", "revocation lists"));
  ASSIGN_OR_RETURN(const auto lists, ReadAll<X509_CRL>(pem.get(), PEM_read_bio_X509_CRL, "revocation lists"));
  for (const OpenSslPtr<X509_CRL>& list : lists) {
    if (X509_STORE_add_crl(store, list.get()) != 1) return Refused("revocation lists");
  }
  X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
  return absl::OkStatus();
}

absl::Status Check(const TlsOptions& options, bool server) {
  const auto refuse = [](const char* why) { return absl::InvalidArgumentError(absl::StrCat("TLS: ", why)); };
  if (server && options.certificates.empty()) return refuse("a server needs a certificate");
  if (!server && options.certificates.size() > 1) return refuse("a client has one certificate at most");
  if (!server && options.verify == TlsVerify::kRequest) return refuse("a client cannot only request a certificate");
  const bool roots = !options.roots.empty() || !options.roots_file.empty();
  const bool verifies = options.verify == TlsVerify::kRequest || options.verify == TlsVerify::kRequire;
  if (server && verifies && !roots) return refuse("a server that verifies its clients needs roots");
  if (options.version_min > options.version_max) return refuse("version_min is above version_max");
  return absl::OkStatus();
}

bool Verifies(const TlsOptions& options, bool server) {
  return options.verify == TlsVerify::kDefault ? !server : options.verify != TlsVerify::kNone;
}

// ---------------------------------------------------------------------------------------------------- what a peer is

std::string NameText(const X509_NAME* name) {
  const OpenSslPtr<BIO> bio(BIO_new(BIO_s_mem()));
  X509_NAME_print_ex(bio.get(), name, 0, XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB);
  char* text = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &text);  // NOLINT(runtime/int): OpenSSL's type
  return std::string(text, static_cast<size_t>(size));
}

absl::Time TimeOf(const ASN1_TIME* time) {
  struct tm calendar = {};
  return ASN1_TIME_to_tm(time, &calendar) == 1 ? absl::FromTM(calendar, absl::UTCTimeZone()) : absl::InfinitePast();
}

std::string StringOf(const ASN1_STRING* text) {
  return std::string(reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
                     static_cast<size_t>(ASN1_STRING_length(text)));
}

// "192.0.2.1", "2001:db8::1"; "" of what is no address.
std::string AddressText(absl::string_view bytes) {
  const auto at = [&](size_t i) { return static_cast<unsigned char>(bytes[i]); };
  if (bytes.size() == 4) return absl::StrCat(at(0), ".", at(1), ".", at(2), ".", at(3));
  if (bytes.size() != 16) return "";
  std::string text;
  for (size_t i = 0; i < 16; i += 2) absl::StrAppend(&text, i > 0 ? ":" : "", absl::Hex(at(i) << 8 | at(i + 1)));
  const absl::StatusOr<SocketAddress> address = SocketAddress::FromIp(text, 0);
  if (!address.ok()) return "";
  const std::string short_form = address->ToString();  // "[2001:db8::1]:0"
  return short_form.substr(1, short_form.rfind(']') - 1);
}

TlsPeerCertificate Describe(X509* certificate) {
  TlsPeerCertificate peer;
  peer.subject = NameText(X509_get_subject_name(certificate));
  peer.issuer = NameText(X509_get_issuer_name(certificate));
  auto* names = static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr));
  for (int i = 0; i < sk_GENERAL_NAME_num(names); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names, i);
    if (name->type == GEN_DNS) peer.dns_names.push_back(StringOf(name->d.dNSName));
    if (name->type == GEN_URI) peer.uris.push_back(StringOf(name->d.uniformResourceIdentifier));
    if (name->type == GEN_EMAIL) peer.emails.push_back(StringOf(name->d.rfc822Name));
    if (name->type != GEN_IPADD) continue;
    if (std::string address = AddressText(StringOf(name->d.iPAddress)); !address.empty()) {
      peer.ip_addresses.push_back(std::move(address));
    }
  }
  GENERAL_NAMES_free(names);
  if (BIGNUM* serial = ASN1_INTEGER_to_BN(X509_get0_serialNumber(certificate), nullptr); serial != nullptr) {
    char* text = BN_bn2hex(serial);
    peer.serial = text;
    OPENSSL_free(text);
    BN_free(serial);
  }
  peer.not_before = TimeOf(X509_get0_notBefore(certificate));
  peer.not_after = TimeOf(X509_get0_notAfter(certificate));
  unsigned char* der = nullptr;
  const int der_bytes = i2d_X509(certificate, &der);
  if (der_bytes > 0) peer.der.assign(reinterpret_cast<char*>(der), static_cast<size_t>(der_bytes));
  OPENSSL_free(der);
  return peer;
}

}  // namespace

std::string TakeOpenSslErrors() {
  std::string text;
  const char* data = nullptr;
  int flags = 0;
  while (const unsigned long error = ERR_get_error_all(nullptr, nullptr, nullptr, &data, &flags)) {  // NOLINT: theirs
    const char* reason = ERR_reason_error_string(error);
    absl::StrAppend(&text, text.empty() ? "" : "; ", reason != nullptr ? reason : absl::StrCat("error ", error));
    if ((flags & ERR_TXT_STRING) != 0 && data != nullptr && *data != '\0') absl::StrAppend(&text, " (", data, ")");
  }
  return text;
}

// ---------------------------------------------------------------------------------------------------- sessions, key log

void TlsSessionCache::Put(const std::string& key, OpenSslPtr<SSL_SESSION> session) {
  const std::lock_guard<std::mutex> lock(mutex_);
  Server& server = servers_[key];
  server.last_used = ++uses_;
  server.sessions.push_back(std::move(session));
  if (server.sessions.size() > kSessionsPerServerMax) server.sessions.pop_front();
  if (servers_.size() <= kServersMax) return;
  servers_.erase(std::min_element(servers_.begin(), servers_.end(), [](const auto& a, const auto& b) {
    return a.second.last_used < b.second.last_used;
  }));
}

OpenSslPtr<SSL_SESSION> TlsSessionCache::Take(const std::string& key) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = servers_.find(key);
  if (found == servers_.end()) return nullptr;
  found->second.last_used = ++uses_;
  SSL_SESSION* const latest = found->second.sessions.back().get();
  if (SSL_SESSION_get_protocol_version(latest) == TLS1_2_VERSION) {
    SSL_SESSION_up_ref(latest);
    return OpenSslPtr<SSL_SESSION>(latest);
  }
  OpenSslPtr<SSL_SESSION> session = std::move(found->second.sessions.back());
  found->second.sessions.pop_back();
  if (found->second.sessions.empty()) servers_.erase(found);
  return session;
}

void TlsSessionCache::Clear() {
  const std::lock_guard<std::mutex> lock(mutex_);
  servers_.clear();
}

void TlsKeyLog::Append(const char* line) {
  const std::lock_guard<std::mutex> lock(mutex_);
  BIO_printf(file_.get(), "%s\n", line);
  BIO_flush(file_.get());
}

// ---------------------------------------------------------------------------------------------------- the state

TlsState::TlsState(const TlsOptions& options, bool server)
    : options_(options), server_(server), verifies_(Verifies(options, server)) {}

absl::StatusOr<std::shared_ptr<TlsState>> TlsState::Make(const TlsOptions& options, bool server) {
  RETURN_IF_ERROR(Check(options, server));
  std::shared_ptr<TlsState> state(new TlsState(options, server));
  std::string key_log = options.key_log_file;
  if (const char* by_environment = std::getenv("SSLKEYLOGFILE"); key_log.empty() && by_environment != nullptr) {
    key_log = by_environment;
  }
  if (!key_log.empty()) {
    OpenSslPtr<BIO> file(BIO_new_file(key_log.c_str(), "a"));
    if (file == nullptr) return Refused(absl::StrCat("key log file ", key_log));
    state->key_log_ = std::make_shared<TlsKeyLog>(std::move(file));
  }
  ASSIGN_OR_RETURN(state->generation_, state->MakeGeneration(options.certificates));
  return state;
}

absl::StatusOr<std::shared_ptr<const TlsGeneration>> TlsState::MakeGeneration(
    const std::vector<TlsCertificate>& certificates) {
  ERR_clear_error();
  auto made = std::make_shared<TlsGeneration>();
  made->sessions = sessions_;
  made->key_log = key_log_;
  ASSIGN_OR_RETURN(made->alpn, AlpnOnWire(options_.alpn));
  made->context.reset(SSL_CTX_new(server_ ? TLS_server_method() : TLS_client_method()));
  SSL_CTX* context = made->context.get();
  if (context == nullptr) return absl::ResourceExhaustedError(absl::StrCat("TLS: ", TakeOpenSslErrors()));
  SSL_CTX_set_app_data(context, made.get());
  SSL_CTX_set_security_level(context, options_.security_level);
  SSL_CTX_set_default_passwd_cb(context, NoPassword);
  SSL_CTX_set_msg_callback(context, OnMessage);
  if (key_log_ != nullptr) SSL_CTX_set_keylog_callback(context, OnKeyLogLine);
  // Idle connections hold no record buffers; a write may be repeated with the bytes elsewhere.
  SSL_CTX_set_mode(context,
                   SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  if (SSL_CTX_set_min_proto_version(context, OpenSslVersion(options_.version_min)) != 1 ||
      SSL_CTX_set_max_proto_version(context, OpenSslVersion(options_.version_max)) != 1) {
    return Refused("versions");
  }
  if (!options_.ciphers.empty() && SSL_CTX_set_cipher_list(context, options_.ciphers.c_str()) != 1) {
    return Refused(absl::StrCat("ciphers ", options_.ciphers));
  }
  if (!options_.cipher_suites.empty() && SSL_CTX_set_ciphersuites(context, options_.cipher_suites.c_str()) != 1) {
    return Refused(absl::StrCat("cipher_suites ", options_.cipher_suites));
  }

  for (const TlsCertificate& certificate : certificates) {
    ASSIGN_OR_RETURN(TlsIdentity identity, ReadIdentity(certificate));
    // Also where one is chosen later: whatever cannot be used is refused now.
    if (SSL_CTX_use_cert_and_key(context, identity.certificate.get(), identity.key.get(), identity.chain.get(), 1) !=
        1) {
      return Refused("certificate");
    }
    made->identities.push_back(std::move(identity));
  }
  if (made->identities.size() > 1) SSL_CTX_set_cert_cb(context, ChooseIdentity, made.get());

  const bool roots = !options_.roots.empty() || !options_.roots_file.empty();
  if (verifies_ || roots) RETURN_IF_ERROR(Trust(context, options_, server_));
  int mode = verifies_ ? SSL_VERIFY_PEER : SSL_VERIFY_NONE;
  if (server_ && options_.verify == TlsVerify::kRequire) mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
  SSL_CTX_set_verify(context, mode, nullptr);
  SSL_CTX_set_verify_depth(context, kIntermediatesMax);

  if (server_) {
    SSL_CTX_set_alpn_select_cb(context, ChooseAlpn, nullptr);
    SSL_CTX_set_options(context, SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_session_id_context(context, kSessionIdContext, sizeof(kSessionIdContext) - 1);
    if (!options_.session_tickets) {
      SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
      SSL_CTX_set_num_tickets(context, 0);
    }
    // Tickets of the generation before stay good.
    if (const auto before = generation(); before != nullptr) {
      unsigned char keys[128];
      const auto size = SSL_CTX_get_tlsext_ticket_keys(before->context.get(), nullptr, 0);
      if (size > static_cast<long>(sizeof(keys)) ||  // NOLINT(runtime/int): OpenSSL's type
          SSL_CTX_get_tlsext_ticket_keys(before->context.get(), keys, size) != 1 ||
          SSL_CTX_set_tlsext_ticket_keys(context, keys, size) != 1) {
        return Refused("ticket keys");
      }
    }
  } else {
    if (!made->alpn.empty() &&
        SSL_CTX_set_alpn_protos(context, reinterpret_cast<const unsigned char*>(made->alpn.data()),
                                static_cast<unsigned int>(made->alpn.size())) != 0) {
      return Refused("ALPN");
    }
    if (options_.session_tickets) {
      SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
      SSL_CTX_sess_set_new_cb(context, OnNewSession);
    } else {
      SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
      SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
    }
  }
  return made;
}

absl::Status TlsState::Reload(std::vector<TlsCertificate> certificates) {
  if (server_ && certificates.empty()) return absl::InvalidArgumentError("TLS: a server needs a certificate");
  if (!server_ && certificates.size() > 1) {
    return absl::InvalidArgumentError("TLS: a client has one certificate at most");
  }
  ASSIGN_OR_RETURN(auto made, MakeGeneration(certificates));
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    generation_ = std::move(made);
    options_.certificates = std::move(certificates);
  }
  if (!server_) sessions_->Clear();
  return absl::OkStatus();
}

absl::Status TlsState::Reload() {
  std::vector<TlsCertificate> certificates;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    certificates = options_.certificates;
  }
  return Reload(std::move(certificates));
}

std::shared_ptr<const TlsGeneration> TlsState::generation() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return generation_;
}

// ---------------------------------------------------------------------------------------------------- one connection

absl::StatusOr<std::unique_ptr<TlsSession>> TlsSession::Make(const TlsSettings& settings, absl::Time now) {
  ERR_clear_error();
  std::unique_ptr<TlsSession> made(new TlsSession(settings.state));
  const TlsState& with = *made->state_;
  made->ssl_.reset(SSL_new(made->generation_->context.get()));
  SSL* ssl = made->ssl();
  if (ssl == nullptr || SSL_set_ex_data(ssl, NotesIndex(), &made->notes_) != 1) {
    return absl::ResourceExhaustedError(absl::StrCat("TLS: ", TakeOpenSslErrors()));
  }
  X509_VERIFY_PARAM* verify = SSL_get0_param(ssl);
  X509_VERIFY_PARAM_set_time(verify, absl::ToTimeT(with.options().verification_time.value_or(now)));
  if (with.server()) {
    made->notes_.alpn = settings.alpn;
    SSL_set_accept_state(ssl);
    return made;
  }
  SSL_set_connect_state(ssl);
  if (!settings.alpn.empty() && SSL_set_alpn_protos(ssl, reinterpret_cast<const unsigned char*>(settings.alpn.data()),
                                                    static_cast<unsigned int>(settings.alpn.size())) != 0) {
    return Refused("ALPN");
  }
  const std::string name(absl::StripSuffix(settings.server_hostname, "."));
  if (name.empty()) {
    if (!with.verifies_host_name()) return made;
    return absl::InvalidArgumentError("You must set server_hostname when using TLS without a host");
  }
  X509_VERIFY_PARAM_set_hostflags(verify, kHostFlags);
  ASN1_OCTET_STRING* const address = a2i_IPADDRESS(name.c_str());
  ASN1_OCTET_STRING_free(address);
  ERR_clear_error();
  bool accepted = true;
  // An address is not asked for (RFC 6066, 3).
  if (address == nullptr) accepted = SSL_set_tlsext_host_name(ssl, name.c_str()) == 1;
  if (accepted && with.verifies_host_name()) {
    accepted = address != nullptr ? X509_VERIFY_PARAM_set1_ip_asc(verify, name.c_str()) == 1
                                  : X509_VERIFY_PARAM_set1_host(verify, name.data(), name.size()) == 1;
  }
  if (!accepted) return Refused(absl::StrCat("server_hostname ", name));
  if (!with.options().session_tickets) return made;
  made->notes_.session_key = name;
  const OpenSslPtr<SSL_SESSION> session = made->generation_->sessions->Take(name);
  if (session != nullptr && SSL_SESSION_is_resumable(session.get()) == 1) SSL_set_session(ssl, session.get());
  return made;
}

TlsInfo TlsSession::Info() const {
  TlsInfo info;
  const SSL* ssl = ssl_.get();
  info.version = SSL_version(ssl) == TLS1_2_VERSION ? TlsVersion::k1_2 : TlsVersion::k1_3;
  info.cipher = SSL_get_cipher_name(ssl);
  const unsigned char* alpn = nullptr;
  unsigned int alpn_bytes = 0;
  SSL_get0_alpn_selected(ssl, &alpn, &alpn_bytes);
  info.alpn.assign(reinterpret_cast<const char*>(alpn), alpn_bytes);
  if (const char* name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name); name != nullptr) info.server_name = name;
  info.session_resumed = SSL_session_reused(ssl) == 1;
  if (X509* peer = SSL_get0_peer_certificate(ssl); peer != nullptr) {
    info.peer = Describe(peer);
    info.peer_verified = state_->verifies() && SSL_get_verify_result(ssl) == X509_V_OK;
  }
  return info;
}

}  // namespace troupe::internal
