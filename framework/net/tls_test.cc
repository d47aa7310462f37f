#include "troupe/net/tls.h"

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/task.h"
#include "troupe/base/byte_queue.h"
#include "troupe/base/errors.h"
#include "troupe/base/monotonic_time.h"
#include "troupe/base/os_error.h"
#include "troupe/base/tls_info.h"
#include "troupe/net/internal/log_count.h"
#include "troupe/net/internal/tls_state.h"
#include "troupe/net/internal/tls_testing.h"
#include "troupe/net/memory_transport.h"
#include "troupe/net/sendfile.h"
#include "troupe/net/tls_context.h"
#include "troupe/os/io_limit.h"

namespace troupe::internal {
namespace {

using ::testing::AnyOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::TestCertificate;

INSTANTIATE_POLLING(TlsTest);

// A peer that is not ours: OpenSSL over buffers, driven by hand.
class RawPeer final : public Protocol {
 public:
  RawPeer(const TlsOptions& options, bool server) : context_(SSL_CTX_new(TLS_method())), ssl_(nullptr) {
    SSL_CTX_set_verify(context_.get(), SSL_VERIFY_NONE, nullptr);
    SSL_CTX_set_max_proto_version(context_.get(),
                                  options.version_max == TlsVersion::k1_2 ? TLS1_2_VERSION : TLS1_3_VERSION);
    SSL_CTX_set_keylog_callback(context_.get(), [](const SSL* ssl, const char* line) noexcept {
      static_cast<RawPeer*>(SSL_get_app_data(ssl))->secrets.append(line).append("\n");
    });
    ssl_.reset(SSL_new(context_.get()));
    SSL_set_app_data(ssl(), this);
    SSL_set_bio(ssl(), BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    server ? SSL_set_accept_state(ssl()) : SSL_set_connect_state(ssl());
  }
  SSL* ssl() { return ssl_.get(); }
  // Sends what OpenSSL has made.
  void Send() {
    char bytes[4096];
    for (int n = 0; (n = BIO_read(SSL_get_wbio(ssl()), bytes, sizeof(bytes))) > 0;) {
      transport().Write(absl::MakeConstSpan(bytes, static_cast<size_t>(n)));
    }
  }
  void SendBytes(absl::string_view bytes) { transport().Write(absl::MakeConstSpan(bytes)); }
  void DataReceived(absl::Span<const char> data) override {
    BIO_write(SSL_get_rbio(ssl()), data.data(), static_cast<int>(data.size()));
    if (!SSL_is_init_finished(ssl())) SSL_do_handshake(ssl());
    char bytes[4096];
    for (int n = 0; (n = SSL_read(ssl(), bytes, sizeof(bytes))) > 0;) received.append(bytes, static_cast<size_t>(n));
    Send();
  }
  bool EofReceived() override { return true; }

  std::string received;
  std::string secrets;  // as in a key log

 private:
  OpenSslPtr<SSL_CTX> context_;
  OpenSslPtr<SSL> ssl_;
};

// Makes the records of TLS 1.3 that OpenSSL would not make, in place of a client that has sent none since its handshake.
class RecordMaker {
 public:
  // With the secret of TLS_AES_128_GCM_SHA256.
  explicit RecordMaker(const RawPeer& client) {
    const std::string label = "CLIENT_TRAFFIC_SECRET_0 ";
    const size_t line = client.secrets.find(label);
    EXPECT_NE(line, std::string::npos);
    const size_t begin = client.secrets.find(' ', line + label.size()) + 1;
    const std::string secret =
        absl::HexStringToBytes(client.secrets.substr(begin, client.secrets.find('\n', begin) - begin));
    EXPECT_EQ(secret.size(), 32u);
    key_ = Expand(secret, "key", 16);
    nonce_ = Expand(secret, "iv", 12);
  }
  std::string Make(absl::string_view content, char type = 23) {
    const std::string inner = absl::StrCat(content, std::string(1, type));
    const size_t size = inner.size() + 16;
    std::string record = {23, 3, 3, static_cast<char>(size >> 8), static_cast<char>(size)};
    std::string nonce = nonce_;
    for (size_t i = 0; i < 8; ++i) nonce[11 - i] = static_cast<char>(nonce[11 - i] ^ static_cast<char>(made_ >> 8 * i));
    ++made_;
    EVP_CIPHER_CTX* const cipher = EVP_CIPHER_CTX_new();
    int n = 0;
    std::string sealed(inner.size(), '\0'), tag(16, '\0');
    EVP_EncryptInit_ex(cipher, EVP_aes_128_gcm(), nullptr, Bytes(key_), Bytes(nonce));
    EVP_EncryptUpdate(cipher, nullptr, &n, Bytes(record), static_cast<int>(record.size()));
    EVP_EncryptUpdate(cipher, Bytes(sealed), &n, Bytes(inner), static_cast<int>(inner.size()));
    EVP_EncryptFinal_ex(cipher, Bytes(tag), &n);
    EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_GCM_GET_TAG, 16, tag.data());
    EVP_CIPHER_CTX_free(cipher);
    return record + sealed + tag;
  }

 private:
  static const unsigned char* Bytes(const std::string& text) {
    return reinterpret_cast<const unsigned char*>(text.data());
  }
  static unsigned char* Bytes(std::string& text) { return reinterpret_cast<unsigned char*>(text.data()); }
  // HKDF-Expand-Label of RFC 8446, 7.1, for what is no longer than a hash.
  static std::string Expand(const std::string& secret, absl::string_view label, size_t size) {
    std::string info = {0, static_cast<char>(size), static_cast<char>(6 + label.size())};
    absl::StrAppend(&info, "tls13 ", label, std::string("\0\1", 2));
    std::string hash(32, '\0');
    HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()), Bytes(info), info.size(), Bytes(hash), nullptr);
    return hash.substr(0, size);
  }

  std::string key_, nonce_;
  uint64_t made_ = 0;
};

// ---------------------------------------------------------------------------------------------------- bytes

// C-TLS-01, C-STL-03
TEST_P(TlsTest, BytesArriveInBothDirections) {
  Handshake();
  client_->Write("hello");
  server_->Write("good day");
  Settle();
  EXPECT_THAT(b_.log, ElementsAre("made", "data hello"));
  EXPECT_THAT(a_.log, ElementsAre("made", "data good day"));
  CloseBoth();
}

TEST_P(TlsTest, NothingLeavesInClear) {
  ConnectInClear();
  const std::string secret = "attack at dawn";
  StartClient(ClientContext());
  StartServer(ServerContext());
  // Written before the handshake, at each of its messages, after it, and while closing.
  ClientsTransport().Write(absl::MakeConstSpan(secret));
  int writes = 1;
  tap_.change = [&](Tap::Side, std::string bytes) {
    if (writes < 20 && client_status_.code() == absl::StatusCode::kUnknown) {
      ++writes;
      ClientsTransport().Write(absl::MakeConstSpan(secret));
    }
    return bytes;
  };
  Settle();
  EXPECT_GT(writes, 2);
  ASSERT_TRUE(client_status_.ok()) << client_status_;
  client_->Write(absl::MakeConstSpan(secret));
  client_->Close();
  Settle();
  EXPECT_EQ(b_.received, (static_cast<size_t>(writes) + 1) * secret.size());
  EXPECT_THAT(tap_.seen[Tap::kClient], Not(HasSubstr(secret)));
}

TEST_P(TlsTest, BytesMayComeOneAtATime) {
  wire_ = {.pipe_bytes_max = 100, .delivery_bytes_max = 1};
  Handshake();
  const std::string text(20'000, 'x');
  client_->Write(absl::MakeConstSpan(text));
  server_->Write(absl::MakeConstSpan(text));
  client_->Close();
  Settle();
  EXPECT_EQ(b_.received, text.size());
  EXPECT_THAT(b_.log.back(), "lost OK");
  EXPECT_THAT(a_.log.back(), "lost OK");
}

TEST_P(TlsTest, HugeWritesOfEveryKindArriveInOrder) {
  Handshake();
  std::string sent;
  const auto piece = [&](size_t size) {
    std::string text(size, static_cast<char>('a' + sent.size() % 23));
    sent += text;
    return text;
  };
  std::string got;
  b_.on_data = [&](Transport&, absl::Span<const char> data) { got.append(data.data(), data.size()); };
  for (const size_t size : {size_t{1}, size_t{16384}, size_t{16385}, size_t{300'000}, size_t{7}}) {
    const std::string text = piece(size);
    client_->Write(absl::MakeConstSpan(text));
    ByteQueue queue;
    for (int i = 0; i < 5; ++i) {
      const std::string part = piece(size / 3 + 1);
      queue.Append(absl::MakeConstSpan(part));
      queue.Append(Bytes::Adopt(piece(size / 5 + 1)));
    }
    client_->Write(std::move(queue));
    std::vector<std::string> texts;
    for (size_t i = 0; i < 100; ++i) texts.push_back(piece(i * 13));
    const std::vector<absl::Span<const char>> pieces(texts.begin(), texts.end());
    client_->Writev(pieces);
  }
  Settle();
  EXPECT_TRUE(got == sent) << got.size() << " of " << sent.size();
  CloseBoth();
}

// C-SND-08, C-WR-08: also while the peer does not read.
TEST_P(TlsTest, AFileIsAlwaysCopiedAndNeverInClear) {
  Handshake(ServerContext(), ClientContext());
  ASSERT_TRUE(client_->SetWriteBufferLimits({.high = 4000}).ok());
  const size_t enough = IoLimit::FromEnvironment().any() ? 500'000 : 1'000'000;
  std::string contents;
  while (contents.size() < enough) contents += absl::StrCat("line ", contents.size(), "\n");
  os_.AddFile("/file", contents);
  const int file = os_.OpenFile("/file");
  EXPECT_EQ(client_->sendfile_mode(), SendfileMode::kCopied);
  const SendfileOptions native_only = {.fallback = false};
  EXPECT_THROW((void)loop_.RunUntilComplete(Sendfile(*client_, file, native_only)), InvalidState);

  std::string received;
  b_.on_data = [&](Transport&, absl::Span<const char> data) { received.append(data.data(), data.size()); };
  server_->PauseReading();
  client_->Write("before ");
  auto sending = loop_.CreateTask(Sendfile(*client_, file));
  Settle();
  EXPECT_FALSE(sending.done());
  EXPECT_THROW(client_->Write("between"), InvalidState);
  server_->ResumeReading();
  const absl::StatusOr<int64_t> sent = loop_.RunUntilComplete(std::move(sending));
  ASSERT_TRUE(sent.ok()) << sent.status();
  EXPECT_EQ(*sent, static_cast<int64_t>(contents.size()));
  client_->Write(" after");
  Settle();
  EXPECT_TRUE(received == "before " + contents + " after");
  EXPECT_THAT(tap_.seen[Tap::kClient], Not(HasSubstr("line ")));
  os_.Close(file);
}

// C-SND-08: what a file becomes under way is what is sent.
TEST_P(TlsTest, AFileMayShrinkOrGrowWhileItIsCopied) {
  const size_t half = IoLimit::FromEnvironment().any() ? 500'000 : 1'000'000;
  const std::string whole = [&] {
    std::string text;
    while (text.size() < 2 * half) absl::StrAppend(&text, text.size(), "\n");
    return text;
  }();
  for (const size_t after : {size_t{0}, half / 2, 2 * half}) {
    SCOPED_TRACE(after);
    Handshake();
    ASSERT_TRUE(client_->SetWriteBufferLimits({.high = 4000}).ok());
    os_.AddFile("/file", whole.substr(0, half));
    const int file = os_.OpenFile("/file");
    std::string received;
    b_.on_data = [&](Transport&, absl::Span<const char> data) { received.append(data.data(), data.size()); };
    server_->PauseReading();
    auto sending = loop_.CreateTask(Sendfile(*client_, file));
    Settle();
    ASSERT_FALSE(sending.done());
    os_.AddFile("/file", whole.substr(0, after));
    server_->ResumeReading();
    const absl::StatusOr<int64_t> sent = loop_.RunUntilComplete(std::move(sending));
    ASSERT_TRUE(sent.ok()) << sent.status();
    if (after > half) {
      EXPECT_EQ(*sent, static_cast<int64_t>(after));
    } else {
      EXPECT_GE(*sent, static_cast<int64_t>(after));
      EXPECT_LT(*sent, static_cast<int64_t>(half));
    }
    client_->Write("|end");
    Settle();
    EXPECT_TRUE(received == whole.substr(0, static_cast<size_t>(*sent)) + "|end");
    os_.Close(file);
    b_.on_data = nullptr;
    Forget();
  }
}

TEST_P(TlsTest, SmallPiecesShareARecord) {
  Handshake();
  tap_.seen[Tap::kClient].clear();
  const std::string one = "x";
  const std::vector<absl::Span<const char>> pieces(50, absl::MakeConstSpan(one));
  client_->Writev(pieces);
  Settle();
  EXPECT_EQ(b_.received, 50u);
  EXPECT_LT(tap_.seen[Tap::kClient].size(), 100u);
  CloseBoth();
}

// ---------------------------------------------------------------------------------------------------- flow control

TEST_P(TlsTest, PausedReadingStopsReadingBelow) {
  Handshake();
  server_->PauseReading();
  EXPECT_FALSE(server_->is_reading());
  const std::string text(Much(), 'x');
  client_->Write(absl::MakeConstSpan(text));
  RunFor(absl::Seconds(1));
  EXPECT_EQ(b_.received, 0u);
  EXPECT_GT(client_->write_buffer_size(), client_->write_high_mark());  // it waits where it was written
  EXPECT_EQ(a_.Count("pause"), 1u);
  server_->ResumeReading();
  Settle();
  EXPECT_EQ(b_.received, text.size());
  EXPECT_EQ(client_->write_buffer_size(), 0u);
  EXPECT_EQ(a_.Count("resume"), 1u);
  CloseBoth();
}

TEST_P(TlsTest, AProtocolMayPauseAtEachDelivery) {
  Handshake();
  b_.split = true;
  b_.on_data = [&](Transport& transport, absl::Span<const char>) {
    transport.PauseReading();
    loop_.CallLater(absl::Milliseconds(1), [&] {
      if (server_ != nullptr) server_->ResumeReading();
    });
  };
  const std::string text(300'000, 'x');
  client_->Write(absl::MakeConstSpan(text));
  client_->Close();
  Settle();
  EXPECT_EQ(b_.received, text.size());
  EXPECT_EQ(b_.log.back(), "lost OK");
}

// C-FLW-04, C-WR-16
TEST_P(TlsTest, WriteMarksCountWhatTheTransportBelowHolds) {
  if (IoLimit::FromEnvironment().any()) return;  // the numbers are what whole writes leave
  Handshake();
  server_->PauseReading();
  ASSERT_TRUE(client_->SetWriteBufferLimits({.high = 1000, .low = 100}).ok());
  while (a_.Count("pause") == 0) {
    client_->Write("0123456789");
    EXPECT_EQ(a_.Count("pause") == 1, client_->write_buffer_size() > 1000);
    loop_.RunOnceWithoutWaiting();
  }
  EXPECT_GT(client_->write_buffer_size(), 1000u);
  server_->ResumeReading();
  Settle();
  EXPECT_EQ(client_->write_buffer_size(), 0u);
  EXPECT_EQ(a_.Count("pause"), 1u);
  EXPECT_EQ(a_.Count("resume"), 1u);
  // With no mark at all whatever is held pauses.
  ASSERT_TRUE(client_->SetWriteBufferLimits({.high = 0}).ok());
  server_->PauseReading();
  while (a_.Count("pause") == 1) {
    client_->Write("0123456789");
    loop_.RunOnceWithoutWaiting();
  }
  EXPECT_GT(client_->write_buffer_size(), 0u);
  server_->ResumeReading();
  Settle();
  EXPECT_EQ(a_.Count("resume"), 2u);
  CloseBoth();
}

// ---------------------------------------------------------------------------------------------------- the end

// C-TLS-08, D-7
TEST_P(TlsTest, CloseSendsWhatIsBufferedThenTheNoticeOfIt) {
  Handshake();
  server_->PauseReading();
  const std::string text(Much(), 'x');
  client_->Write(absl::MakeConstSpan(text));
  client_->Close();
  EXPECT_TRUE(client_->is_closing());
  server_->ResumeReading();
  Settle();
  EXPECT_EQ(b_.received, text.size());
  EXPECT_EQ(b_.log[b_.log.size() - 2], "eof");
  EXPECT_EQ(b_.log.back(), "lost OK");
  EXPECT_EQ(a_.log.back(), "lost OK");
  EXPECT_EQ(a_.Count("eof"), 0u);
}

// C-TLS-08
TEST_P(TlsTest, WhatIsUnderWayToAClosingEndDoesNotResetTheConnection) {
  Handshake();
  const std::string text(100'000, 'x');
  server_->Write(absl::MakeConstSpan(text));
  client_->Write("last words");
  client_->Close();
  Settle();
  EXPECT_THAT(b_.log, Contains("data last words"));
  EXPECT_EQ(b_.log.back(), "lost OK");
  EXPECT_EQ(a_.log.back(), "lost OK");
}

TEST_P(TlsTest, BothMayCloseAtOnce) {
  Handshake();
  client_->Close();
  server_->Close();
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "lost OK"));
  EXPECT_THAT(b_.log, ElementsAre("made", "lost OK"));
}

TEST_P(TlsTest, AnEndWithoutTheNoticeIsToldApart) {
  Handshake();
  client_->Write("half a mess");
  Settle();
  tap_.towards[Tap::kServer]->WriteEof();
  Settle();
  EXPECT_THAT(b_.log, ElementsAre("made", "data half a mess", "lost DATA_LOSS"));
}

TEST_P(TlsTest, AnEndInTheMiddleOfARecordIsToldApart) {
  Handshake();
  size_t left = 10;
  tap_.change = [&](Tap::Side side, std::string bytes) {
    if (side == Tap::kServer) return bytes;
    bytes.resize(std::min(bytes.size(), left));
    left -= bytes.size();
    return bytes;
  };
  client_->Write("lost");
  Settle();
  EXPECT_EQ(left, 0u);
  tap_.towards[Tap::kServer]->WriteEof();
  Settle();
  EXPECT_THAT(b_.log, ElementsAre("made", "lost DATA_LOSS"));
}

// The peer's end is read only behind all that came before it.
TEST_P(TlsTest, AnEndThatComesWhileReadingIsPausedWaits) {
  Handshake();
  b_.on_data = [](Transport& transport, absl::Span<const char>) { transport.PauseReading(); };
  client_->Write("one");
  Settle();
  client_->Write("two");
  client_->Close();
  RunFor(absl::Seconds(1));
  EXPECT_THAT(b_.log, ElementsAre("made", "data one"));
  b_.on_data = nullptr;
  server_->ResumeReading();
  Settle();
  EXPECT_THAT(b_.log, ElementsAre("made", "data onetwo", "eof", "lost OK"));
}

TEST_P(TlsTest, AbortDropsWhatIsBufferedAndReportsOnce) {
  Handshake();
  server_->PauseReading();
  const std::string text(Much(), 'x');
  client_->Write(absl::MakeConstSpan(text));
  client_->Abort();
  client_->Abort();
  client_->Close();
  EXPECT_EQ(a_.log.back(), "pause");
  Settle();
  EXPECT_EQ(a_.log.back(), "lost OK");
  server_->ResumeReading();
  Settle();
  EXPECT_TRUE(b_.lost());
}

// C-TLS-13
TEST_P(TlsTest, DataAndWritesAfterCloseAreIgnored) {
  Handshake();
  client_->Close();
  client_->Write("too late");
  server_->Write("too late");
  Settle();
  client_->Write("too late");
  server_->Write("too late");
  EXPECT_THAT(a_.log, ElementsAre("made", "lost OK"));
  EXPECT_THAT(b_.log, ElementsAre("made", "eof", "lost OK"));
}

// C-TLS-13
TEST_P(TlsTest, WritesWhileClosingAreDroppedAndEarlierOnesSent) {
  Handshake();
  server_->PauseReading();
  const std::string text(Much(), 'x');
  client_->Write(absl::MakeConstSpan(text));
  client_->Close();
  client_->Write("too late");
  server_->ResumeReading();
  Settle();
  EXPECT_EQ(b_.received, text.size());
  EXPECT_EQ(b_.log.back(), "lost OK");
}

// C-TLS-11
TEST_P(TlsTest, ThereIsNoHalfOpenState) {
  Handshake();
  EXPECT_FALSE(client_->CanWriteEof());
  EXPECT_THROW(client_->WriteEof(), InvalidState);
  const LogCount warnings(google::GLOG_WARNING, "returning true from EofReceived()");
  b_.keep_open = true;
  client_->Close();
  Settle();
  EXPECT_THAT(b_.log, ElementsAre("made", "eof", "lost OK"));
  EXPECT_EQ(warnings.count(), 1);
}

TEST_P(TlsTest, AShutdownThatThePeerDoesNotAnswerHasALimit) {
  ConnectInClear();
  StartServer(ServerContext());
  StartTlsOptions options;
  options.server_hostname = "kv.test";
  options.tls_shutdown_timeout = absl::Seconds(5);
  StartClient(ClientContext(), options);
  Settle();
  ASSERT_TRUE(client_status_.ok());
  const MonotonicTime began = loop_.Time();
  server_->PauseReading();
  // Its buffer cannot be sent; then: nobody answers the notice.
  const std::string text(Much(), 'x');
  client_->Write(absl::MakeConstSpan(text));
  client_->Close();
  RunFor(absl::Seconds(4.9));
  EXPECT_FALSE(a_.lost());
  Settle();
  EXPECT_EQ(a_.log.back(), "lost DEADLINE_EXCEEDED");
  EXPECT_EQ(loop_.Time() - began, absl::Seconds(5));
}

TEST_P(TlsTest, AnUnansweredNoticeHasTheSameLimit) {
  Handshake();
  const MonotonicTime began = loop_.Time();
  tap_.towards[Tap::kClient]->PauseReading();
  client_->Close();
  Settle();
  EXPECT_THAT(a_.log, ElementsAre("made", "lost DEADLINE_EXCEEDED"));
  EXPECT_EQ(loop_.Time() - began, absl::Seconds(30));
}

// ---------------------------------------------------------------------------------------------------- the handshake

// C-TLS-03
TEST_P(TlsTest, AHandshakeHasALimit) {
  ConnectInClear();
  const MonotonicTime began = loop_.Time();
  StartClient(ClientContext());
  tap_.change = [](Tap::Side, std::string) { return std::string(); };
  Settle();
  EXPECT_EQ(client_status_.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(client_status_.message(), "TLS handshake is taking longer than 60 seconds: aborting the connection");
  EXPECT_EQ(loop_.Time() - began, absl::Seconds(60));
  EXPECT_THAT(a_.log, ElementsAre("made", "lost UNAVAILABLE"));
  Forget();
  ConnectInClear();
  StartTlsOptions options;
  options.server_hostname = "kv.test";
  options.tls_handshake_timeout = absl::Seconds(2);
  StartClient(ClientContext(), options);
  Settle();
  EXPECT_EQ(loop_.Time() - began, absl::Seconds(62));
}

// C-TLS-03: bytes that come in drops do not prolong it.
TEST_P(TlsTest, ALimitHoldsForAHandshakeInDrops) {
  ConnectInClear();
  const MonotonicTime began = loop_.Time();
  StartServer(ServerContext());
  // A record that never ends.
  const std::string begin("\x16\x03\x01\x40\x00\x01", 6);
  tap_.Inject(Tap::kServer, begin);
  std::function<void()> drop = [&] {
    if (server_status_.code() != absl::StatusCode::kUnknown) return;
    tap_.Inject(Tap::kServer, "x");
    loop_.CallLater(absl::Seconds(1), [&] { drop(); });
  };
  drop();
  Settle();
  EXPECT_EQ(server_status_.code(), absl::StatusCode::kUnavailable) << server_status_;
  EXPECT_LE(loop_.Time() - began, absl::Seconds(61));
}

// C-TLS-03
TEST_P(TlsTest, ALimitThatIsNotPositiveIsRefused) {
  for (const absl::Duration bad : {absl::ZeroDuration(), absl::Seconds(-1)}) {
    ConnectInClear();
    StartTlsOptions options;
    options.server_hostname = "kv.test";
    options.tls_handshake_timeout = bad;
    StartClient(ClientContext(), options);
    options.tls_handshake_timeout = std::nullopt;
    options.tls_shutdown_timeout = bad;
    StartServer(ServerContext(), options);
    Settle();
    EXPECT_EQ(client_status_.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(server_status_.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(client_status_.message()), HasSubstr("should be a positive duration, got"));
    Forget();
  }
}

// C-TLS-05
TEST_P(TlsTest, APeerThatLeavesInTheHandshakeIsAReset) {
  for (int messages = 0; messages < 2; ++messages) {
    ConnectInClear();
    int left = messages;
    tap_.change = [&](Tap::Side side, std::string bytes) {
      if (left-- > 0) return bytes;
      tap_.towards[side]->Close();
      return std::string();
    };
    StartClient(ClientContext());
    StartServer(ServerContext());
    Settle();
    for (const absl::Status& status : {client_status_, server_status_}) {
      EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
      // Who still had something to send hears it of that.
      EXPECT_THAT(ErrnoOf(status), AnyOf(ECONNRESET, EPIPE)) << status;
    }
    EXPECT_THAT(a_.log, ElementsAre("made", "lost UNAVAILABLE"));
    EXPECT_THAT(b_.log, ElementsAre("made", "lost UNAVAILABLE"));
    tap_.change = nullptr;
    Forget();
  }
}

TEST_P(TlsTest, APeerThatSpeaksNoTlsIsRefused) {
  ConnectInClear();
  StartServer(ServerContext());
  tap_.Inject(Tap::kServer, "GET / HTTP/1.1\r\n\r\n");
  Settle();
  EXPECT_EQ(server_status_.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(server_status_.message()), HasSubstr("http request"));
  EXPECT_THAT(b_.log, ElementsAre("made", "lost UNAVAILABLE"));
}

// C-TLS-12
TEST_P(TlsTest, TheHandshakesOutcomeCanBeAskedForAlsoAfterTheEnd) {
  ConnectInClear();
  EXPECT_EQ(client_->tls(), nullptr);
  StartServer(ServerContext());
  StartClient(ClientContext());
  Settle();
  for (int round = 0; round < 2; ++round) {
    const TlsInfo& info = *client_->tls();
    EXPECT_EQ(info.version, TlsVersion::k1_3);
    EXPECT_EQ(info.cipher, "TLS_AES_256_GCM_SHA384");
    EXPECT_EQ(info.server_name, "kv.test");
    EXPECT_FALSE(info.session_resumed);
    EXPECT_TRUE(info.peer_verified);
    ASSERT_TRUE(info.peer.has_value());
    EXPECT_EQ(info.peer->subject, "CN=kv");
    EXPECT_EQ(info.peer->issuer, "CN=test root");
    EXPECT_THAT(info.peer->dns_names, ElementsAre("kv.test"));
    EXPECT_THAT(info.peer->ip_addresses, ElementsAre("192.0.2.1", "2001:db8::1"));
    EXPECT_THAT(info.peer->uris, ElementsAre("spiffe://test/kv"));
    EXPECT_EQ(info.peer->not_before, absl::FromCivil(absl::CivilYear(2000), absl::UTCTimeZone()));
    EXPECT_EQ(info.peer->not_after, absl::FromCivil(absl::CivilYear(2100), absl::UTCTimeZone()));
    EXPECT_GT(info.peer->der.size(), 200u);
    EXPECT_EQ(server_->tls()->server_name, "kv.test");
    EXPECT_FALSE(server_->tls()->peer.has_value());
    if (round == 0) CloseBoth();
  }
}

// C-TLS-16
TEST_P(TlsTest, AServerDoesNotCareForHostNames) {
  ConnectInClear();
  StartServer(ServerContext(), {.server_hostname = "nonsense"});
  StartClient(ClientContext());
  Settle();
  EXPECT_TRUE(server_status_.ok());
  CloseBoth();
}

TEST_P(TlsTest, AClientThatVerifiesNamesNeedsOne) {
  ConnectInClear();
  StartClient(ClientContext(), {});
  Settle();
  EXPECT_EQ(client_status_.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(client_status_.message(), "You must set server_hostname when using TLS without a host");
}

// ---------------------------------------------------------------------------------------------------- upgrading

// C-STL-01
TEST_P(TlsTest, WhatCannotBeUpgradedIsRefused) {
  const TlsContext client = ClientContext();
  ConnectInClear();
  client_->Close();
  StartClient(client);
  Settle();
  EXPECT_EQ(client_status_.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(client_status_.message()), HasSubstr("is not supported by StartTls()"));
  Forget();
  ConnectInClear();
  client_->WriteEof();
  StartClient(client);
  Settle();
  EXPECT_EQ(client_status_.code(), absl::StatusCode::kInvalidArgument);
  Forget();
  // Nobody's server's: it has an owner, whose TransportPtr this takes.
  ConnectInClear();
  const auto refused = loop_.RunUntilComplete(StartTls(*client_, client, {.server_hostname = "kv.test"}));
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(client_->is_closing());
}

// C-STL-02: what comes after the upgrade has begun is TLS or refused, also when it was under way before.
TEST_P(TlsTest, ClearTextAfterTheUpgradeIsRefused) {
  for (const bool at_the_client : {false, true}) {
    ConnectInClear();
    tap_.Inject(at_the_client ? Tap::kClient : Tap::kServer, "250 you may trust me\r\n");
    StartClient(ClientContext());
    StartServer(ServerContext());
    Settle();
    EXPECT_FALSE(client_status_.ok());
    EXPECT_FALSE(server_status_.ok());
    EXPECT_EQ(a_.received, 0u);
    EXPECT_EQ(b_.received, 0u);
    Forget();
  }
}

// C-STL-02
TEST_P(TlsTest, ClearTextBehindTheHandshakeIsRefused) {
  Handshake();
  tap_.Inject(Tap::kServer, "DROP TABLE users;\r\n");
  Settle();
  EXPECT_THAT(b_.log, ElementsAre("made", "lost UNAVAILABLE"));
  EXPECT_EQ(b_.received, 0u);
}

// C-STL-03
TEST_P(TlsTest, TheProtocolUsesTheNewTransportFromTheCallOn) {
  ConnectInClear();
  Transport* const old = client_.get();
  EXPECT_EQ(&ClientsTransport(), old);
  StartClient(ClientContext());
  EXPECT_NE(&ClientsTransport(), old);
  StartServer(ServerContext());
  Settle();
  EXPECT_EQ(&ClientsTransport(), client_.get());
  EXPECT_EQ(a_.Count("made"), 1u);
  EXPECT_EQ(&client_->protocol(), client_protocol_);
  CloseBoth();
  EXPECT_EQ(a_.Count("lost OK"), 1u);
}

// C-STL-06
TEST_P(TlsTest, BufferedProtocolsCanBeUpgraded) {
  ConnectInClear(a_.NewBufferedProtocol(), b_.NewBufferedProtocol());
  StartServer(ServerContext());
  StartClient(ClientContext());
  Settle();
  const std::string text(100'000, 'x');
  client_->Write(absl::MakeConstSpan(text));
  client_->Close();
  Settle();
  EXPECT_EQ(b_.received, text.size());
  EXPECT_EQ(b_.log.back(), "lost OK");
}

TEST_P(TlsTest, BufferedProtocolsThatFailEndTheConnection) {
  ConnectInClear(a_.NewProtocol(), b_.NewBufferedProtocol());
  StartServer(ServerContext());
  StartClient(ClientContext());
  Settle();
  b_.get_buffer = [](int64_t) { return absl::Span<char>(); };
  client_->Write("hello");
  Settle();
  EXPECT_EQ(b_.log.back(), "lost UNKNOWN");
  EXPECT_THAT(TakeReports(), ElementsAre("Fatal error: protocol.GetBuffer() call failed."));
}

TEST_P(TlsTest, PausesGoOverToTheNewTransport) {
  ConnectInClear();
  server_->PauseReading();
  const std::string text(300'000, 'x');
  client_->Write(absl::MakeConstSpan(text));
  RunFor(absl::Seconds(1));
  EXPECT_EQ(a_.Count("pause"), 1u);
  // In clear text, what has been written still leaves; the handshake comes behind it, begun by the other end.
  StartClient(ServerContext(), {});
  server_->ResumeReading();
  RunFor(absl::Seconds(1));
  EXPECT_EQ(b_.received, text.size());
  EXPECT_EQ(a_.Count("resume"), 0u);
  StartServer(ClientContext(), {.server_hostname = "kv.test"});
  Settle();
  ASSERT_TRUE(client_status_.ok()) << client_status_;
  EXPECT_EQ(a_.Count("resume"), 1u);
  CloseBoth();
}

TEST_P(TlsTest, AProtocolThatDoesNotReadStaysSo) {
  ConnectInClear();
  server_->PauseReading();
  StartClient(ClientContext());
  StartServer(ServerContext());
  Settle();
  ASSERT_TRUE(server_status_.ok()) << server_status_;
  client_->Write("hello");
  Settle();
  EXPECT_EQ(b_.received, 0u);
  server_->ResumeReading();
  Settle();
  EXPECT_EQ(b_.received, 5u);
  CloseBoth();
}

TEST_P(TlsTest, CancellingAnUpgradeAborts) {
  ConnectInClear();
  auto upgrading = loop_.CreateTask(StartTls(std::move(client_), ClientContext(), {.server_hostname = "kv.test"}));
  RunReady();
  upgrading.Cancel();
  Settle();
  EXPECT_TRUE(upgrading.cancelled());
  EXPECT_THAT(a_.log, ElementsAre("made", "lost OK"));
}

// C-TLS-06
TEST_P(TlsTest, ClosingInTheHandshakeAborts) {
  ConnectInClear();
  StartClient(ClientContext());
  RunReady();
  ClientsTransport().Write("never sent");
  ClientsTransport().Close();
  Settle();
  EXPECT_EQ(client_status_.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(a_.log, ElementsAre("made", "lost OK"));
}

TEST_P(TlsTest, TlsRunsOverTls) {
  Handshake();
  StartClient(ClientContext());
  StartServer(ServerContext());
  Settle();
  ASSERT_TRUE(client_status_.ok()) << client_status_;
  ASSERT_TRUE(server_status_.ok()) << server_status_;
  const std::string text(300'000, 'x');
  client_->Write(absl::MakeConstSpan(text));
  server_->Write("hello");
  RunFor(absl::Seconds(1));
  client_->Close();
  Settle();
  EXPECT_EQ(b_.received, text.size());
  EXPECT_EQ(b_.log.back(), "lost OK");
  EXPECT_EQ(a_.received, 5u);
  EXPECT_EQ(a_.log.back(), "lost OK");
}

// ---------------------------------------------------------------------------------------------------- bad peers

// C-TLS-14
TEST_P(TlsTest, RecordsThatMakeNoSenseEndTheConnection) {
  Handshake();
  Corrupt();
  client_->Write("hello");
  Settle();
  EXPECT_THAT(b_.log, ElementsAre("made", "lost UNAVAILABLE"));
  EXPECT_THAT(b_.reason.ToString(), HasSubstr("bad record mac"));
  // The other end has been told why.
  EXPECT_THAT(a_.log, ElementsAre("made", "lost UNAVAILABLE"));
  EXPECT_THAT(a_.reason.ToString(), HasSubstr("alert bad record mac"));
}

// C-TLS-14: what was good before the bad record is delivered first.
TEST_P(TlsTest, WhatCameBeforeABadRecordIsDelivered) {
  Handshake();
  server_->PauseReading();
  client_->Write("good");
  RunFor(absl::Seconds(1));
  Corrupt();
  client_->Write("bad");
  RunFor(absl::Seconds(1));
  server_->ResumeReading();
  Settle();
  EXPECT_THAT(b_.log, ElementsAre("made", "data good", "lost UNAVAILABLE"));
}

// C-TLS-14
TEST_P(TlsTest, AThrowingApplicationEndsTheConnection) {
  Handshake();
  b_.on_data = [](Transport&, absl::Span<const char>) { throw std::runtime_error("no more"); };
  client_->Write("hello");
  Settle();
  EXPECT_THAT(b_.log, ElementsAre("made", "data hello", "lost UNKNOWN"));
  EXPECT_THAT(TakeReports(), ElementsAre("Fatal error: protocol.DataReceived() call failed."));
}

// Records without content cost the peer little. OpenSSL takes 32 in a row, which hide when somebody speaks (RFC 8446, 5.4).
TEST_P(TlsTest, EmptyRecordsAreTakenButNotForever) {
  struct Row {
    int in_a_row;
    int times;
    char type;
    bool good;
  };
  for (const Row& row : {Row{1, 1, 23, true}, Row{32, 1, 23, true}, Row{1, 1000, 23, true}, Row{32, 100, 23, true},
                         Row{33, 1, 23, false}, Row{2000, 1, 23, false}, Row{1, 1, 21, false}, Row{1, 1, 22, false}}) {
    SCOPED_TRACE(absl::StrCat(row.times, " times ", row.in_a_row, " of type ", static_cast<int>(row.type)));
    auto owned = std::make_unique<RawPeer>(TlsOptions(), /*server=*/false);
    RawPeer& peer = *owned;
    SSL_set_ciphersuites(peer.ssl(), "TLS_AES_128_GCM_SHA256");
    ConnectInClear(std::move(owned), b_.NewProtocol());
    StartServer(ServerContext());
    SSL_do_handshake(peer.ssl());
    peer.Send();
    Settle();
    ASSERT_TRUE(server_status_.ok()) << server_status_;
    b_.received = 0;
    RecordMaker records(peer);
    for (int i = 0; i < row.times; ++i) {
      std::string bytes;
      for (int j = 0; j < row.in_a_row; ++j) bytes += records.Make("", row.type);
      peer.SendBytes(bytes + records.Make("x"));
    }
    Settle();
    EXPECT_EQ(b_.received, row.good ? static_cast<size_t>(row.times) : 0u);
    EXPECT_EQ(b_.lost(), !row.good);
    if (!row.good) {
      EXPECT_EQ(b_.log.back(), "lost UNAVAILABLE");
    }
    Forget();
  }
}

// Before there are keys: pieces of a handshake without content, and what TLS 1.3 ignores for the sake of old boxes.
TEST_P(TlsTest, RecordsThatSayNothingEndAHandshake) {
  for (const absl::string_view record :
       {absl::string_view("\x16\x03\x01\x00\x00", 5), absl::string_view("\x14\x03\x03\x00\x01\x01", 6)}) {
    for (const bool first : {true, false}) {
      SCOPED_TRACE(absl::CHexEscape(record));
      ConnectInClear();
      StartServer(ServerContext());
      StartClient(ClientContext());
      tap_.change = [&, told = false](Tap::Side side, std::string bytes) mutable {
        if (side == Tap::kServer || std::exchange(told, true)) return bytes;
        std::string many;
        for (int i = 0; i < 2000; ++i) absl::StrAppend(&many, record);
        return first ? many + bytes : bytes + many;
      };
      Settle();
      EXPECT_FALSE(server_status_.ok());
      EXPECT_TRUE(b_.lost());
      EXPECT_TRUE(a_.lost());
      tap_.change = nullptr;
      Forget();
    }
  }
}

TEST_P(TlsTest, KeyUpdatesAreBounded) {
  for (const int updates : {20, 200}) {
    TlsOptions options;
    auto owned = std::make_unique<RawPeer>(options, /*server=*/false);
    RawPeer& peer = *owned;
    ConnectInClear(std::move(owned), b_.NewProtocol());
    StartServer(ServerContext());
    SSL_do_handshake(peer.ssl());
    peer.Send();
    Settle();
    ASSERT_TRUE(server_status_.ok()) << server_status_;
    for (int i = 0; i < updates; ++i) {
      SSL_key_update(peer.ssl(), SSL_KEY_UPDATE_REQUESTED);
      SSL_do_handshake(peer.ssl());
    }
    SSL_write(peer.ssl(), "hello", 5);
    peer.Send();
    Settle();
    if (updates == 20) {
      EXPECT_THAT(b_.log, ElementsAre("made", "data hello"));
      server_->Write("hello");
      Settle();
      EXPECT_EQ(peer.received, "hello");
    } else {
      EXPECT_EQ(b_.log.back(), "lost RESOURCE_EXHAUSTED");
    }
    Forget();
  }
}

TEST_P(TlsTest, RenegotiationIsRefused) {
  TlsOptions options;
  options.version_max = TlsVersion::k1_2;
  auto owned = std::make_unique<RawPeer>(options, /*server=*/false);
  RawPeer& peer = *owned;
  ConnectInClear(std::move(owned), b_.NewProtocol());
  StartServer(ServerContext());
  SSL_do_handshake(peer.ssl());
  peer.Send();
  Settle();
  ASSERT_TRUE(server_status_.ok()) << server_status_;
  const int handshakes = SSL_num_renegotiations(peer.ssl());
  SSL_renegotiate(peer.ssl());
  SSL_do_handshake(peer.ssl());
  peer.Send();
  Settle();
  EXPECT_EQ(SSL_num_renegotiations(peer.ssl()), handshakes + 1);  // begun by the peer
  EXPECT_FALSE(SSL_is_init_finished(peer.ssl()));                 // and never answered
  EXPECT_EQ(b_.received, 0u);
}

// ---------------------------------------------------------------------------------------------------- P-4

TEST_P(TlsTest, AnythingMayBeDestroyedInAnyCallback) {
  using Hook = std::function<void(Transport&)> Recording::*;
  const std::vector<Hook> hooks = {&Recording::on_eof, &Recording::on_pause, &Recording::on_resume,
                                   &Recording::on_lost};
  for (size_t i = 0; i <= hooks.size(); ++i) {
    for (int way = 0; way < 3; ++way) {
      SCOPED_TRACE(absl::StrCat("callback ", i, " way ", way));
      Handshake();
      const auto destroy = [&](TransportPtr& transport) {
        if (transport == nullptr) return;
        if (way == 0) transport.reset();
        if (way == 1) transport->Abort();
        if (way == 2) transport->Close();
      };
      if (i < hooks.size()) {
        a_.*hooks[i] = [&](Transport&) { destroy(client_); };
        b_.*hooks[i] = [&](Transport&) { destroy(server_); };
      } else {
        b_.on_data = [&](Transport&, absl::Span<const char>) { destroy(server_); };
        a_.on_data = [&](Transport&, absl::Span<const char>) { destroy(client_); };
      }
      server_->PauseReading();
      const std::string text(Much(), 'x');
      client_->Write(absl::MakeConstSpan(text));
      RunFor(absl::Seconds(1));
      if (server_ != nullptr) server_->ResumeReading();
      if (server_ != nullptr) server_->Write("hello");
      RunFor(absl::Seconds(1));
      if (client_ != nullptr) client_->Close();
      Settle();
      EXPECT_TRUE(a_.lost());
      EXPECT_EQ(a_.Count("lost OK") + a_.Count("lost DATA_LOSS") + a_.Count("lost UNAVAILABLE"), 1u);
      a_.on_eof = a_.on_pause = a_.on_resume = a_.on_lost = b_.on_eof = b_.on_pause = b_.on_resume = b_.on_lost =
          nullptr;
      a_.on_data = b_.on_data = nullptr;
      Forget();
    }
  }
}

TEST_P(TlsTest, EveryCallbackMayThrow) {
  using Hook = std::function<void(Transport&)> Recording::*;
  const std::vector<std::pair<Hook, const char*>> hooks = {
      {&Recording::on_eof, "Fatal error: protocol.EofReceived() call failed."},
      {&Recording::on_pause, "protocol.PauseWriting() failed"},
      {&Recording::on_resume, "protocol.ResumeWriting() failed"},
      {&Recording::on_lost, "Exception in protocol.ConnectionLost()"}};
  for (const auto& [hook, report] : hooks) {
    SCOPED_TRACE(report);
    Handshake();
    const auto fail = [](Transport&) { throw std::runtime_error("no"); };
    const bool of_server = hook == &Recording::on_eof;
    (of_server ? b_ : a_).*hook = fail;
    server_->PauseReading();
    const std::string text(Much(), 'x');
    client_->Write(absl::MakeConstSpan(text));
    server_->ResumeReading();
    Settle();
    client_->Close();
    Settle();
    EXPECT_THAT(TakeReports(), ElementsAre(report));
    EXPECT_EQ(a_.log.back(), "lost OK");
    EXPECT_TRUE(b_.lost());
    EXPECT_EQ(b_.received, text.size());
    (of_server ? b_ : a_).*hook = nullptr;
    a_.received = b_.received = 0;
    Forget();
  }
}

TEST_P(TlsTest, TheLoopMayCloseAtAnyTime) {
  Handshake();
  client_->Write("hello");
  client_->Close();
  RunIterations(1);
  loop_.Close();
}

}  // namespace
}  // namespace troupe::internal
