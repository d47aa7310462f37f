// What every Os promises of files, and of sending them. See os_contract.h.
#include <errno.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/os/os.h"
#include "troupe/testing/os_contract/os_contract.h"

namespace troupe {
namespace {

using ::testing::AnyOf;

class OsFileContract : public OsContract {
 protected:
  int Open(absl::string_view contents) {
    const std::string path = TempPath("file");
    MakeRegularFile(path, contents);
    const int fd = os().OpenFile(path);
    EXPECT_GE(fd, 0);
    return fd;
  }
  std::string ReadAt(int fd, int64_t offset, size_t bytes_max) {
    std::string buffer(bytes_max, '\0');
    const int64_t n = os().ReadAt(fd, offset, absl::MakeSpan(&buffer[0], buffer.size()));
    EXPECT_GE(n, 0);
    return buffer.substr(0, static_cast<size_t>(std::max<int64_t>(n, 0)));
  }
  struct Pair {
    int first = -1;
    int second = -1;
  };
  Pair StreamPair() {
    int fds[2];
    EXPECT_EQ(os().SocketPair(AF_UNIX, SOCK_STREAM, fds), 0);
    return {fds[0], fds[1]};
  }
};

INSTANTIATE_OS_CONTRACT(OsFileContract);

TEST_P(OsFileContract, AFileIsReadFromAnyOffset) {
  const int file = Open("0123456789");
  EXPECT_EQ(os().FileBytes(file), 10);
  EXPECT_EQ(ReadAt(file, 0, 4), "0123");
  EXPECT_EQ(ReadAt(file, 8, 4), "89");
  EXPECT_EQ(ReadAt(file, 10, 4), "");
  EXPECT_EQ(ReadAt(file, 1'000'000, 4), "");
  EXPECT_EQ(ReadAt(file, 3, 1), "3");
  char byte;
  EXPECT_EQ(os().ReadAt(file, -1, absl::MakeSpan(&byte, 1)), -EINVAL);
  Close({file});
}

TEST_P(OsFileContract, AnEmptyFileEndsAtOnce) {
  const int file = Open("");
  const Pair pair = StreamPair();
  EXPECT_EQ(os().FileBytes(file), 0);
  EXPECT_EQ(ReadAt(file, 0, 4), "");
  EXPECT_EQ(os().SendFile(pair.first, file, 0, 100), 0);
  Close({file, pair.first, pair.second});
}

TEST_P(OsFileContract, WhatIsNotThereOrNoFileIsRefused) {
  EXPECT_EQ(os().OpenFile(TempPath("nowhere")), -ENOENT);
  EXPECT_EQ(os().FileBytes(1'000'000), -EBADF);
  char byte;
  EXPECT_EQ(os().ReadAt(1'000'000, 0, absl::MakeSpan(&byte, 1)), -EBADF);
  const Pair pair = StreamPair();
  EXPECT_EQ(os().FileBytes(pair.first), -EINVAL);
  EXPECT_THAT(os().SendFile(pair.first, pair.second, 0, 1), AnyOf(-EINVAL, -ESPIPE));
  const int file = Open("x");
  EXPECT_EQ(poller().Add(file, kReadable, nullptr), -EPERM);
  EXPECT_EQ(os().SendFile(1'000'000, file, 0, 1), -EBADF);
  EXPECT_EQ(os().SendFile(pair.first, 1'000'000, 0, 1), -EBADF);
  EXPECT_EQ(os().SendFile(pair.first, file, -1, 1), -EINVAL);
  const std::string path = TempPath("file");
  WithoutFreeDescriptors([&] { EXPECT_EQ(os().OpenFile(path), -EMFILE); });
  Close({pair.first, pair.second, file});
}

TEST_P(OsFileContract, SendFileHonoursOffsetAndCount) {
  const int file = Open("0123456789");
  const Pair pair = StreamPair();
  EXPECT_EQ(os().SendFile(pair.first, file, 2, 5), 5);
  EXPECT_EQ(RecvText(pair.second, 5), "23456");
  EXPECT_EQ(os().SendFile(pair.first, file, 8, 100), 2);
  EXPECT_EQ(RecvText(pair.second, 2), "89");
  EXPECT_EQ(os().SendFile(pair.first, file, 10, 100), 0);
  EXPECT_EQ(os().SendFile(pair.first, file, 4, 0), 0);
  Settle();
  EXPECT_EQ(Recv(pair.second), -EAGAIN);
  // The same place again: no position moves.
  EXPECT_EQ(os().SendFile(pair.first, file, 0, 2), 2);
  EXPECT_EQ(RecvText(pair.second, 2), "01");
  Close({file, pair.first, pair.second});
}

TEST_P(OsFileContract, AFullSocketTakesWhatFitsAndIsWritableLater) {
  std::string contents;
  for (int i = 0; i < 400'000; ++i) contents.push_back(static_cast<char>('a' + i % 23));
  const int file = Open(contents);
  const Pair pair = StreamPair();
  ASSERT_EQ(os().SetSocketOption(pair.first, SOL_SOCKET, SO_SNDBUF, 20'000), 0);
  const auto size = static_cast<int64_t>(contents.size());
  int64_t sent = 0;
  bool was_full = false;
  std::string received;
  while (sent < size) {
    const int64_t n = os().SendFile(pair.first, file, sent, size - sent);
    if (n == -EAGAIN) {
      was_full = true;
      EXPECT_EQ(Ready(pair.first, kWritable, kPast), 0u);
      received += RecvText(pair.second, static_cast<size_t>(sent) - received.size());
      EXPECT_EQ(Ready(pair.first, kWritable), uint32_t{kWritable});
      continue;
    }
    ASSERT_GT(n, 0);
    sent += n;
  }
  received += RecvText(pair.second, contents.size() - received.size());
  EXPECT_TRUE(was_full);
  EXPECT_EQ(received, contents);
  Close({file, pair.first, pair.second});
}

TEST_P(OsFileContract, APeerThatHasGoneIsAnError) {
  const int file = Open("0123456789");
  const Pair pair = StreamPair();
  Close({pair.second});
  Settle();
  EXPECT_EQ(os().SendFile(pair.first, file, 0, 10), -EPIPE);
  Close({file, pair.first});
}

}  // namespace
}  // namespace troupe
