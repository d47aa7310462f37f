// Names and addresses, in virtual time, where the simulated resolver takes 20 us. Numbers in comments are those of the
// contract's rules.
#include "troupe/net/resolve.h"

#include <sys/socket.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/task.h"
#include "troupe/loop/event_loop.h"
#include "troupe/loop/loop_testing.h"
#include "troupe/net/internal/log_count.h"
#include "troupe/testing/sim/sim_os.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class ResolveTest : public LoopTest {
 protected:
  static SocketAddress Address(absl::string_view text) { return *SocketAddress::Parse(text); }
  static ResolveQuery Query(std::string host, std::string service = "", int family = AF_UNSPEC) {
    ResolveQuery query;
    query.host = std::move(host);
    query.service = std::move(service);
    query.family = family;
    return query;
  }
  absl::StatusOr<std::vector<SocketAddress>> Resolve(const ResolveQuery& query) {
    return loop_.RunUntilComplete(GetAddrInfo(loop_, query));
  }
  absl::StatusOr<std::vector<SocketAddress>> Resolve(std::string host, std::string service) {
    return Resolve(Query(std::move(host), std::move(service)));
  }
  // "host service", or the code of the error.
  std::string NameOf(absl::string_view address, HostNameQuery query = {}) {
    const absl::StatusOr<HostName> name = loop_.RunUntilComplete(GetNameInfo(loop_, Address(address), query));
    return name.ok() ? absl::StrCat(name->host, " ", name->service) : absl::StatusCodeToString(name.status().code());
  }
  // How often the system's resolver was asked while `f` ran.
  template <class F>
  int Asked(F f) {
    int asked = 0;
    os_.SetFault([&](absl::string_view operation, int) {
      asked += operation == "Resolve" || operation == "ResolveHostName" ? 1 : 0;
      return 0;
    });
    f();
    os_.SetFault(nullptr);
    return asked;
  }
};
INSTANTIATE_POLLING(ResolveTest);

// C-DNS-01
TEST_P(ResolveTest, NumbersSkipTheResolver) {
  EXPECT_EQ(Asked([&] {
              EXPECT_THAT(*Resolve("1.2.3.4", "80"), ElementsAre(Address("1.2.3.4:80")));
              EXPECT_THAT(*Resolve("::1", "80"), ElementsAre(Address("[::1]:80")));
              EXPECT_THAT(*Resolve("1.2.3.4", ""), ElementsAre(Address("1.2.3.4:0")));
              EXPECT_EQ(Resolve("1.2.3.4", "70000").status().code(), absl::StatusCode::kInvalidArgument);
              EXPECT_THAT(*Resolve(Query("1.2.3.4", "80", AF_INET)), ElementsAre(Address("1.2.3.4:80")));
            }),
            0);
  EXPECT_EQ(loop_.Time(), MonotonicTime());
  EXPECT_EQ(Asked([&] { EXPECT_FALSE(Resolve("1.2.3.4", "no-such-service").ok()); }), 1);
  EXPECT_EQ(Asked([&] { EXPECT_THAT(*Resolve("1.2.3.4", "http"), ElementsAre(Address("1.2.3.4:80"))); }), 1);
  EXPECT_EQ(Asked([&] { EXPECT_TRUE(Resolve("localhost", "80").ok()); }), 1);
}

// C-DNS-01
TEST_P(ResolveTest, ANumberOfTheOtherFamilyIsNoAddress) {
  EXPECT_EQ(Resolve(Query("1.2.3.4", "80", AF_INET6)).status().code(), absl::StatusCode::kNotFound);
}

TEST_P(ResolveTest, TheFamilyAskedForIsWhatComes) {
  os_.kernel().SetName("kv.test", {Address("[::2]:0"), Address("10.1.1.1:0")});
  EXPECT_THAT(*Resolve("kv.test", "7"), ElementsAre(Address("[::2]:7"), Address("10.1.1.1:7")));
  EXPECT_THAT(*Resolve(Query("kv.test", "7", AF_INET)), ElementsAre(Address("10.1.1.1:7")));
  EXPECT_THAT(*Resolve(Query("kv.test", "7", AF_INET6)), ElementsAre(Address("[::2]:7")));
}

TEST_P(ResolveTest, WhatTheSystemSaysComesThrough) {
  EXPECT_EQ(Resolve("nowhere.test", "1").status().code(), absl::StatusCode::kNotFound);
  os_.kernel().SetNameError("broken.test", absl::UnavailableError("no name server answers"));
  EXPECT_EQ(Resolve("broken.test", "1").status(), absl::UnavailableError("no name server answers"));
}

// C-DBG-08
TEST_P(ResolveTest, InDebugModeASlowResolverIsLogged) {
  internal::LogCount forward(google::INFO, "resolving \"localhost\" took 20us");
  internal::LogCount backward(google::INFO, "resolving 127.0.0.1:80 took 20us");
  const auto resolve = [&] {
    EXPECT_TRUE(Resolve("localhost", "").ok());
    EXPECT_EQ(NameOf("127.0.0.1:80"), "localhost http");
  };
  loop_.SetSlowCallbackDuration(absl::Microseconds(20));  // as long as the simulated resolver takes
  resolve();
  EXPECT_EQ(forward.count() + backward.count(), 0) << "not in debug mode";
  loop_.SetDebug(true);
  resolve();
  EXPECT_EQ(forward.count(), 1);
  EXPECT_EQ(backward.count(), 1);
  loop_.SetSlowCallbackDuration(absl::Microseconds(21));
  resolve();
  EXPECT_EQ(forward.count() + backward.count(), 2);
}

// C-DNS-03
TEST_P(ResolveTest, TheLoopRunsWhileANameIsResolved) {
  std::vector<std::string> order;
  loop_.CallLater(absl::Microseconds(1), [&] { order.push_back("timer"); });
  ASSERT_TRUE(Resolve("localhost", "").ok());
  order.push_back("resolved");
  loop_.CallLater(absl::Microseconds(1), [&] { order.push_back("timer"); });
  ASSERT_EQ(NameOf("127.0.0.1:80"), "localhost http");
  order.push_back("named");
  EXPECT_THAT(order, ElementsAre("timer", "resolved", "timer", "named"));
}

// A name server that does not answer holds neither the loop nor the executor, and who has waited enough goes.
TEST_P(ResolveTest, CancelledItIsAbandoned) {
  const auto started = loop_.Time();
  const ResolveQuery query = Query("localhost");
  const auto under_way = loop_.CreateTask(GetAddrInfo(loop_, query));
  const auto named = loop_.CreateTask(GetNameInfo(loop_, Address("127.0.0.1:80")));
  loop_.CallLater(absl::Microseconds(5), [&] {
    under_way.Cancel();
    named.Cancel();
  });
  EXPECT_EQ(Asked([&] { EXPECT_THROW(loop_.RunUntilComplete(under_way).IgnoreError(), Cancelled); }), 0);
  EXPECT_EQ(loop_.Time() - started, absl::Microseconds(5));
  EXPECT_TRUE(named.done() || (RunReady(), named.cancelled()));
  // The resolver is free again for the next.
  EXPECT_TRUE(Resolve("localhost", "").ok());
}

TEST_P(ResolveTest, AnAddressHasTheNameThatTheSystemKnows) {
  os_.kernel().SetName("kv.test", {Address("10.1.1.1:0")});
  EXPECT_EQ(NameOf("10.1.1.1:443"), "kv.test https");
  EXPECT_EQ(NameOf("10.1.1.1:443", {.numeric_service = true}), "kv.test 443");
  EXPECT_EQ(NameOf("10.1.1.1:443", {.numeric_host = true}), "10.1.1.1 https");
  EXPECT_EQ(NameOf("10.9.9.9:1"), "10.9.9.9 1") << "no name, none required";
  EXPECT_EQ(NameOf("10.9.9.9:1", {.name_required = true}), "NOT_FOUND");
  EXPECT_EQ(NameOf("unix:/run/s"), "INVALID_ARGUMENT");
}

// C-DNS-01
TEST_P(ResolveTest, AskedForNumbersAnAddressIsNamedAtOnce) {
  EXPECT_EQ(NameOf("[::1]:80", {.numeric_host = true, .numeric_service = true}), "::1 80");
  EXPECT_EQ(NameOf("unix:/run/s", {.numeric_host = true, .numeric_service = true}), "INVALID_ARGUMENT");
  EXPECT_EQ(loop_.Time(), MonotonicTime()) << "it went to the resolver's thread";
}

TEST_P(ResolveTest, HostAndPortAreSplitAtTheLastPossibleColon) {
  const auto split = [](const char* text) {
    const absl::StatusOr<HostPort> parts = SplitHostPort(text);
    return parts.ok() ? absl::StrCat(parts->host, "|", parts->port) : "refused";
  };
  EXPECT_EQ(split("a.b:80"), "a.b|80");
  EXPECT_EQ(split("[::1]:http"), "::1|http");
  EXPECT_EQ(split(":80"), "|80");
  EXPECT_EQ(split("a:"), "a|");
  EXPECT_EQ(split("a"), "refused");
  EXPECT_EQ(split(""), "refused");
  EXPECT_EQ(split("::1:80"), "refused");
  EXPECT_EQ(split("[::1]80"), "refused");
}

}  // namespace
}  // namespace troupe
