#include "troupe/base/socket_address.h"

#include <netinet/in.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

SocketAddress Parsed(absl::string_view text) {
  absl::StatusOr<SocketAddress> address = SocketAddress::Parse(text);
  EXPECT_TRUE(address.ok()) << address.status().ToString();
  return address.value_or(SocketAddress());
}

class RoundTrip : public ::testing::TestWithParam<const char*> {};

TEST_P(RoundTrip, ParseUndoesToString) { EXPECT_EQ(Parsed(GetParam()).ToString(), GetParam()); }

TEST_P(RoundTrip, TheKernelsCopyIsEqual) {
  const SocketAddress address = Parsed(GetParam());
  EXPECT_TRUE(SocketAddress(address.get(), address.length()) == address);
}

INSTANTIATE_TEST_SUITE_P(SocketAddress, RoundTrip,
                         ::testing::Values("127.0.0.1:7400", "0.0.0.0:0", "255.255.255.255:65535", "[::1]:7400",
                                           "[::]:0", "[fe80::1%2]:7400", "[::ffff:10.0.0.1]:1", "unix:/run/kv.sock",
                                           "unix:relative path", "unix-abstract:kv"));

struct Refusal {
  const char* text;
  const char* why;
};

class Refused : public ::testing::TestWithParam<Refusal> {};

TEST_P(Refused, SaysWhatIsWrong) {
  const absl::StatusOr<SocketAddress> address = SocketAddress::Parse(GetParam().text);
  ASSERT_FALSE(address.ok()) << address->ToString();
  EXPECT_EQ(address.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(address.status().message()), HasSubstr(GetParam().why));
}

INSTANTIATE_TEST_SUITE_P(
    SocketAddress, Refused,
    ::testing::Values(Refusal{"", "expected host:port"}, Refusal{"127.0.0.1", "expected host:port"},
                      Refusal{"::1:80", "brackets"}, Refusal{"[::1]", "expected [ipv6]:port"},
                      Refusal{"[::1]80", "expected [ipv6]:port"}, Refusal{"[127.0.0.1]:80", "IPv6 address in brackets"},
                      Refusal{"localhost:80", "numeric IPv4 or IPv6"}, Refusal{":80", "numeric IPv4 or IPv6"},
                      Refusal{"127.1:80", "numeric IPv4 or IPv6"}, Refusal{"127.0.0.01:80", "numeric IPv4 or IPv6"},
                      Refusal{"127.0.0.1:", "port from 0 to 65535"}, Refusal{"127.0.0.1:65536", "port from 0 to 65535"},
                      Refusal{"127.0.0.1:-1", "port from 0 to 65535"}, Refusal{"127.0.0.1:+1", "port from 0 to 65535"},
                      Refusal{"127.0.0.1: 1", "port from 0 to 65535"},
                      Refusal{"127.0.0.1:http", "port from 0 to 65535"},
                      Refusal{"127.0.0.1:99999999999", "port from 0 to 65535"},
                      Refusal{"127.0.0.1%1:80", "numeric IPv4 or IPv6"}, Refusal{"[fe80::1%eth0]:80", "zone index"},
                      Refusal{"[fe80::1%]:80", "zone index"}, Refusal{"[fe80::1%4294967296]:80", "zone index"},
                      Refusal{"unix:", "empty"}, Refusal{"unix-abstract:", "empty"}));

TEST(SocketAddress, KnowsItsParts) {
  const SocketAddress v4 = Parsed("10.1.2.3:7400");
  EXPECT_EQ(v4.family(), AF_INET);
  EXPECT_EQ(v4.host(), "10.1.2.3");
  EXPECT_EQ(v4.port(), 7400);
  EXPECT_EQ(v4.length(), sizeof(sockaddr_in));
  EXPECT_EQ(v4.unix_path(), "");
  EXPECT_TRUE(v4.is_ip());

  const SocketAddress v6 = Parsed("[fe80::1%7]:1");
  EXPECT_EQ(v6.family(), AF_INET6);
  EXPECT_EQ(v6.host(), "fe80::1%7");
  EXPECT_EQ(v6.port(), 1);
  EXPECT_TRUE(v6.is_ip());

  const SocketAddress path = Parsed("unix:/run/x");
  EXPECT_EQ(path.family(), AF_UNIX);
  EXPECT_EQ(path.unix_path(), "/run/x");
  EXPECT_EQ(path.host(), "");
  EXPECT_EQ(path.port(), 0);
  EXPECT_FALSE(path.is_ip());
  EXPECT_EQ(Parsed("unix-abstract:x").unix_path(), "");
}

TEST(SocketAddress, KnowsLoopback) {
  for (const char* text : {"127.0.0.1:1", "127.255.0.3:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "unix:/x"}) {
    EXPECT_TRUE(Parsed(text).is_loopback()) << text;
  }
  for (const char* text : {"128.0.0.1:1", "0.0.0.0:1", "[::]:1", "[::2]:1", "[::ffff:10.0.0.1]:1"}) {
    EXPECT_FALSE(Parsed(text).is_loopback()) << text;
  }
  EXPECT_FALSE(SocketAddress().is_loopback());
}

TEST(SocketAddress, ComparesFamilyHostPortZoneAndName) {
  EXPECT_TRUE(Parsed("10.0.0.1:1") == Parsed("10.0.0.1:1"));
  EXPECT_FALSE(Parsed("10.0.0.1:1") == Parsed("10.0.0.1:2"));
  EXPECT_FALSE(Parsed("10.0.0.1:1") == Parsed("10.0.0.2:1"));
  EXPECT_FALSE(Parsed("[fe80::1%1]:1") == Parsed("[fe80::1%2]:1"));
  EXPECT_FALSE(Parsed("unix:/a") == Parsed("unix:/ab"));
  EXPECT_FALSE(Parsed("unix:a") == Parsed("unix-abstract:a"));
  EXPECT_TRUE(SocketAddress() == SocketAddress());
  EXPECT_FALSE(SocketAddress() == Parsed("0.0.0.0:0"));
}

TEST(SocketAddress, IgnoresThePaddingOfIpv4) {
  sockaddr_in in = {};
  in.sin_family = AF_INET;
  in.sin_port = htons(80);
  in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::memset(in.sin_zero, 0x5a, sizeof(in.sin_zero));
  EXPECT_TRUE(SocketAddress(reinterpret_cast<sockaddr*>(&in), sizeof(in)) == Parsed("127.0.0.1:80"));
}

TEST(SocketAddress, RefusesWhatTheKernelWouldNotGive) {
  sockaddr_in in = {};
  in.sin_family = AF_INET;
  EXPECT_EQ(SocketAddress(reinterpret_cast<sockaddr*>(&in), sizeof(in) - 1).family(), AF_UNSPEC);
  in.sin_family = AF_APPLETALK;
  EXPECT_EQ(SocketAddress(reinterpret_cast<sockaddr*>(&in), sizeof(in)).family(), AF_UNSPEC);
  EXPECT_EQ(SocketAddress(nullptr, 0).family(), AF_UNSPEC);
  EXPECT_EQ(SocketAddress().ToString(), "");
}

TEST(SocketAddress, UnixNamesHaveAtMost107Bytes) {
  EXPECT_EQ(Parsed(absl::StrCat("unix:", std::string(107, 'a'))).unix_path(), std::string(107, 'a'));
  EXPECT_EQ(Parsed(absl::StrCat("unix-abstract:", std::string(107, 'a'))).ToString().size(), 14 + 107);
  EXPECT_THAT(std::string(SocketAddress::FromUnixPath(std::string(108, 'a')).status().message()),
              HasSubstr("at most 107 bytes, got 108"));
  EXPECT_THAT(std::string(SocketAddress::FromUnixAbstract(std::string(108, 'a')).status().message()),
              HasSubstr("at most 107 bytes, got 108"));
}

TEST(SocketAddress, APathThatFillsTheKernelsArrayIsReadWithoutItsNul) {
  struct {
    sockaddr_un un;
    char more[2];
  } full = {};
  full.un.sun_family = AF_UNIX;
  std::memset(full.un.sun_path, 'p', sizeof(full.un.sun_path));
  const SocketAddress address(reinterpret_cast<sockaddr*>(&full.un), sizeof(sockaddr_un) + 1);
  EXPECT_EQ(address.unix_path(), std::string(108, 'p'));
}

TEST(SocketAddress, NulsAreForAbstractNamesOnly) {
  const absl::string_view name("a\0b", 3);
  EXPECT_FALSE(SocketAddress::FromUnixPath(name).ok());
  EXPECT_FALSE(SocketAddress::FromIp(absl::string_view("127.0.0.1\0x", 11), 1).ok());
  const absl::StatusOr<SocketAddress> abstract = SocketAddress::FromUnixAbstract(name);
  ASSERT_TRUE(abstract.ok());
  EXPECT_EQ(abstract->ToString(), "unix-abstract:a\\000b");
  EXPECT_FALSE(*abstract == *SocketAddress::FromUnixAbstract("a"));
}

TEST(SocketAddress, AnUnnamedUnixSocketPrintsItsFamily) {
  sockaddr_un un = {};
  un.sun_family = AF_UNIX;
  EXPECT_EQ(SocketAddress(reinterpret_cast<sockaddr*>(&un), sizeof(sa_family_t)).ToString(), "unix:");
}

}  // namespace
}  // namespace troupe
