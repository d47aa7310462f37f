#include "troupe/service/internal/target.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/testing/matchers.h"

namespace troupe::internal {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::troupe::testing::StatusIs;

struct Row {
  const char* target;
  const char* connect;  // null: refused
  const char* listen;
};

constexpr Row kRows[] = {
    {"localhost:7400", "localhost:7400", "localhost:7400"},
    {"localhost:http-alt", "localhost:http-alt", "localhost:http-alt"},
    {"127.0.0.1:65535", "127.0.0.1:65535", "127.0.0.1:65535"},
    {"127.0.0.1:0", nullptr, "127.0.0.1:0"},
    {":7400", nullptr, ":7400"},
    {"[::1]:7400", "[::1]:7400", "[::1]:7400"},
    {"[fe80::1%eth0]:7400", "[fe80::1%eth0]:7400", "[fe80::1%eth0]:7400"},
    {"dns:///kv.internal:7400", "kv.internal:7400", "kv.internal:7400"},
    {"dns:///unix:7400", nullptr, nullptr},
    {"dns:///unix.:7400", "unix.:7400", "unix.:7400"},
    {"dns:kv.internal:7400", "kv.internal:7400", "kv.internal:7400"},
    {"ipv4:127.0.0.1:7400", "127.0.0.1:7400", "127.0.0.1:7400"},
    {"ipv6:[::1]:7400", "[::1]:7400", "[::1]:7400"},
    {"unix:kv.sock", "unix:kv.sock", "unix:kv.sock"},
    {"unix:/run/kv.sock", "unix:/run/kv.sock", "unix:/run/kv.sock"},
    {"unix:///run/kv.sock", "unix:/run/kv.sock", "unix:/run/kv.sock"},
    {"unix:////run/kv.sock", "unix:/run/kv.sock", "unix:/run/kv.sock"},
    {"unix-abstract:kv", "unix-abstract:kv", "unix-abstract:kv"},
    {"troupe+dns:///kv:7400", "kv:7400", nullptr},
    {"troupe+unix:/run/kv.sock", "unix:/run/kv.sock", nullptr},

    {"", nullptr, nullptr},
    {"localhost", nullptr, nullptr},
    {"localhost:", nullptr, nullptr},
    {"localhost:65536", nullptr, nullptr},
    {"127.0.0.1:99999", nullptr, nullptr},
    {"127.0.0.1:99999999999999999999", nullptr, nullptr},
    {"127.0.0.1:-1", nullptr, nullptr},
    {"127.0.0.1:+1", nullptr, nullptr},
    {"127.0.0.1: 80", nullptr, nullptr},
    {"localhost:80/path", nullptr, nullptr},
    {"a b:80", nullptr, nullptr},
    {"a\nb:80", nullptr, nullptr},
    {"::1:5", nullptr, nullptr},
    {"[::1:5", nullptr, nullptr},
    {"[::1]", nullptr, nullptr},
    {"[::1]5", nullptr, nullptr},
    {"[]:5", nullptr, nullptr},
    {"[localhost]:5", nullptr, nullptr},
    {"[127.0.0.1]:5", nullptr, nullptr},
    {"[::g]:5", nullptr, nullptr},
    {"ipv4:localhost:70", nullptr, nullptr},
    {"ipv4:[::1]:70", nullptr, nullptr},
    {"ipv4:10.0.0.1:70,10.0.0.2:70", "10.0.0.1:70", nullptr},
    {"ipv6:[::1]:70,[::2]:70,[::3]:71", "[::1]:70", nullptr},
    {"ipv4:10.0.0.1:70,", nullptr, nullptr},
    {"ipv4:,10.0.0.1:70", nullptr, nullptr},
    {"ipv4:10.0.0.1:70,kv.internal:70", nullptr, nullptr},
    {"ipv4:10.0.0.1:70,[::1]:70", nullptr, nullptr},
    {"ipv4:10.0.0.1:70,10.0.0.2:0", nullptr, nullptr},
    {"dns:///10.0.0.1:70,10.0.0.2:70", nullptr, nullptr},
    {"ipv6:127.0.0.1:70", nullptr, nullptr},
    {"ipv6:::1:70", nullptr, nullptr},
    {"dns:///", nullptr, nullptr},
    {"dns://kv:7400", nullptr, nullptr},
    {"dns://8.8.8.8/kv:7400", nullptr, nullptr},
    {"http://kv:1", nullptr, nullptr},
    {"unix:", nullptr, nullptr},
    {"unix://", nullptr, nullptr},
    {"unix://run/kv.sock", nullptr, nullptr},
    {"unix-abstract:", nullptr, nullptr},
};

TEST(ParseTarget, TakesTheFormsOfChannelHAndRefusesTheRestByName) {
  for (const Row& row : kRows) {
    for (const TargetUse use : {TargetUse::kConnect, TargetUse::kListen}) {
      SCOPED_TRACE(std::string(use == TargetUse::kConnect ? "connect " : "listen ") + row.target);
      const char* const wanted = use == TargetUse::kConnect ? row.connect : row.listen;
      const absl::StatusOr<std::string> parsed = ParseTarget(row.target, use);
      if (wanted == nullptr) {
        EXPECT_THAT(parsed.status(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("target \"")));
      } else {
        EXPECT_THAT(parsed, troupe::testing::IsOkAndHolds(std::string(wanted)));
      }
    }
  }
}

TEST(ListedAddresses, AreThoseOfAListAndOfNothingElse) {
  const auto listed = [](const char* target) {
    std::vector<std::string> texts;
    for (const SocketAddress& address : ListedAddresses(target)) texts.push_back(address.ToString());
    return texts;
  };
  EXPECT_THAT(listed("ipv4:10.0.0.1:70,10.0.0.2:71"), ElementsAre("10.0.0.1:70", "10.0.0.2:71"));
  EXPECT_THAT(listed("troupe+ipv6:[::1]:70,[::2]:70"), ElementsAre("[::1]:70", "[::2]:70"));
  for (const char* const target : {"ipv4:10.0.0.1:70", "10.0.0.1:70", "unix:/a,b", "dns:///kv:70"}) {
    EXPECT_THAT(listed(target), IsEmpty()) << target;
  }
}

TEST(ParseTarget, SaysWhatWasWanted) {
  const auto message = [](const char* target) {
    return std::string(ParseTarget(target, TargetUse::kConnect).status().message());
  };
  EXPECT_EQ(message("127.0.0.1:99999"),
            "target \"127.0.0.1:99999\": wanted a port from 1 to 65535 or the name of a service");
  EXPECT_EQ(message("[::1:5"), "target \"[::1:5\": wanted [ipv6]:port");
  EXPECT_EQ(message("ipv4:localhost:70"),
            "target \"ipv4:localhost:70\": wanted a numeric address: ipv4:127.0.0.1:7400");
  EXPECT_EQ(message("http://kv:1"), "target \"http://kv:1\": wanted a scheme that is known, or none");
  EXPECT_THAT(message("a\nb:1"), AllOf(HasSubstr("a\\nb:1"), HasSubstr("a host's name")));
  EXPECT_THAT(message(("unix:" + std::string(108, 'x')).c_str()), HasSubstr("at most 107 bytes"));
}

}  // namespace
}  // namespace troupe::internal
