// OsContract: the world of the cases of what every Os promises: one system, real or simulated, and one poller.
//
// A case that passes on PosixOs only shows that SimOs lies; one that passes on SimOs only, that tests in virtual time
// prove nothing. So a case may use nothing that one of them lacks: waiting "until nothing more happens" is spelled
// Settle(), a wait that must end has no deadline (SimOs answers -EDEADLK, PosixOs runs into the test's time limit), and
// what Linux leaves open (whether a refused connect fails at once) is left open here.
//
// Each case checks at its end that no descriptor is left open.
#ifndef TROUPE_TESTING_OS_CONTRACT_OS_CONTRACT_H_
#define TROUPE_TESTING_OS_CONTRACT_OS_CONTRACT_H_

#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/base/monotonic_time.h"
#include "troupe/base/socket_address.h"
#include "troupe/os/os.h"
#include "troupe/os/posix_os.h"
#include "troupe/testing/sim/sim_os.h"

namespace troupe {

inline constexpr MonotonicTime kForever = MonotonicTime::InfiniteFuture();
inline constexpr MonotonicTime kPast = MonotonicTime::FromNanos(0);

inline SocketAddress Address(absl::string_view text) { return *SocketAddress::Parse(text); }

enum class Kind { kPosix, kSim };

class OsContract : public ::testing::TestWithParam<Kind> {
 protected:
  OsContract() : sim_(GetParam() == Kind::kSim ? std::make_unique<testing::SimOs>() : nullptr) {}

  // Unix paths have 107 bytes at most, and Bazel's folder for temporary files alone may have more: so they are
  // relative.
  static void SetUpTestSuite() {
    const char* const folder = ::getenv("TEST_TMPDIR");
    if (folder != nullptr) {
      ASSERT_EQ(::chdir(folder), 0);
    }
  }
  void SetUp() override {
    poller_ = os().NewPoller();
    descriptors_before_ = CountDescriptors();
  }
  void TearDown() override {
    for (const std::string& path : paths_) os().Unlink(path);
    EXPECT_EQ(CountDescriptors(), descriptors_before_) << "descriptors were left open";
  }

  Os& os() { return sim_ != nullptr ? static_cast<Os&>(*sim_) : PosixOs::Get(); }
  Poller& poller() { return *poller_; }

  size_t CountDescriptors() {
    if (sim_ != nullptr) return sim_->OpenDescriptors().size();
    const std::filesystem::directory_iterator all("/proc/self/fd");
    return static_cast<size_t>(std::distance(begin(all), end(all)));
  }

  // Runs `f` while no further descriptor can be opened.
  template <class F>
  void WithoutFreeDescriptors(F f) {
    if (sim_ != nullptr) {
      const int64_t limit = sim_->DescriptorLimit();
      sim_->SetDescriptorLimit(0);
      f();
      return sim_->SetDescriptorLimit(static_cast<int>(limit));
    }
    rlimit before;
    ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
    const int lowest_free = ::dup(0);
    ASSERT_EQ(::close(lowest_free), 0);
    rlimit none = before;
    none.rlim_cur = static_cast<rlim_t>(lowest_free);
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
    f();
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  }

  // Lets everything under way arrive. In Linux's loopback it has arrived already.
  void Settle() {
    if (sim_ == nullptr) return;
    while (!sim_->kernel().NextEventTime().is_infinite()) {
      sim_->kernel().AdvanceTo(sim_->kernel().NextEventTime());
    }
  }

  std::string TempPath(absl::string_view name) {
    paths_.push_back(absl::StrCat("contract_", ::getpid(), "_", name));
    return paths_.back();
  }
  // Such names belong to the network namespace, which other tests share; and process numbers repeat in sandboxes.
  static SocketAddress AbstractName(absl::string_view name) {
    uint64_t random = 0;
    PosixOs::Get().FillRandom(absl::MakeSpan(reinterpret_cast<char*>(&random), sizeof(random)));
    return *SocketAddress::FromUnixAbstract(absl::StrCat("troupe-contract-", name, "-", absl::Hex(random)));
  }
  void MakeRegularFile(const std::string& path, absl::string_view contents = "regular") {
    if (sim_ != nullptr) {
      sim_->AddFile(path, std::string(contents));
    } else {
      std::ofstream(path) << contents;
    }
  }

  // One event on `fd` alone, or 0 when `deadline` passed.
  uint32_t Ready(int fd, uint32_t interest, MonotonicTime deadline = kForever) {
    const std::unique_ptr<Poller> poller = os().NewPoller();
    EXPECT_EQ(poller->Add(fd, interest, &fd), 0);
    PollEvent events[2];
    const int n = poller->Wait(deadline, absl::MakeSpan(events));
    EXPECT_THAT(n, ::testing::AnyOf(0, 1)) << "fd " << fd;
    return n == 1 ? events[0].ready : 0;
  }
  // The tokens that one wait of poller() reports.
  std::vector<void*> Wait(MonotonicTime deadline = kForever, size_t events_max = 16) {
    std::vector<PollEvent> events(events_max);
    const int n = poller().Wait(deadline, absl::MakeSpan(events));
    EXPECT_GE(n, 0);
    std::vector<void*> tokens;
    for (int i = 0; i < n; ++i) tokens.push_back(events[static_cast<size_t>(i)].token);
    return tokens;
  }

  int64_t Send(int fd, absl::string_view text) {
    const iovec part = {const_cast<char*>(text.data()), text.size()};
    return os().Send(fd, absl::MakeConstSpan(&part, 1));
  }
  int64_t Recv(int fd) {
    char buffer[256];
    return os().Recv(fd, absl::MakeSpan(buffer));
  }
  // Until `bytes` have come, or the end.
  std::string RecvText(int fd, size_t bytes) {
    std::string text;
    while (text.size() < bytes) {
      EXPECT_NE(Ready(fd, kReadable), 0u);
      std::string part(std::min<size_t>(bytes - text.size(), 4096), '\0');
      const int64_t n = os().Recv(fd, absl::MakeSpan(&part[0], part.size()));
      EXPECT_GE(n, 0) << "errno " << -n;
      if (n <= 0) break;
      text.append(part, 0, static_cast<size_t>(n));
    }
    return text;
  }
  void Close(std::initializer_list<int> fds) {
    for (const int fd : fds) EXPECT_EQ(os().Close(fd), 0) << fd;
  }

  int ListenOn(const SocketAddress& address, int backlog = 16) {
    const int fd = os().Socket(address.family(), SOCK_STREAM);
    EXPECT_GE(fd, 0);
    EXPECT_EQ(os().Bind(fd, address), 0) << address.ToString();
    EXPECT_EQ(os().Listen(fd, backlog), 0);
    return fd;
  }
  SocketAddress LocalAddress(int fd) {
    SocketAddress address;
    EXPECT_EQ(os().LocalAddress(fd, &address), 0);
    return address;
  }
  SocketAddress PeerAddress(int fd) {
    SocketAddress address;
    EXPECT_EQ(os().PeerAddress(fd, &address), 0);
    return address;
  }
  // What became of a connect: 0 or an errno.
  int ConnectResult(int fd, const SocketAddress& address) {
    const int result = os().Connect(fd, address);
    if (result != -EINPROGRESS) return -result;
    EXPECT_EQ(Ready(fd, kWritable) & kWritable, kWritable);
    return os().SocketError(fd);
  }

  const std::unique_ptr<testing::SimOs> sim_;
  std::unique_ptr<Poller> poller_;
  size_t descriptors_before_ = 0;
  std::vector<std::string> paths_;
};

inline std::string KindName(const ::testing::TestParamInfo<Kind>& info) {
  return info.param == Kind::kPosix ? "PosixOs" : "SimOs";
}

#define INSTANTIATE_OS_CONTRACT(suite) \
  INSTANTIATE_TEST_SUITE_P(Both, suite, ::testing::Values(Kind::kPosix, Kind::kSim), KindName)

}  // namespace troupe

#endif  // TROUPE_TESTING_OS_CONTRACT_OS_CONTRACT_H_
