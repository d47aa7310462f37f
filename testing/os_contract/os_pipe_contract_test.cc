// What every Os promises of pipes, and of reading and writing what may be anything.
#include <errno.h>
#include <sys/socket.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/os/os.h"
#include "troupe/testing/os_contract/os_contract.h"

namespace troupe {
namespace {

constexpr int kReader = 0, kWriter = 1;

class OsPipeContract : public OsContract {
 protected:
  void MakePipe(int fds[2]) { ASSERT_EQ(os().MakePipe(fds), 0); }
  int64_t Write(int fd, absl::string_view text) {
    const iovec part = {const_cast<char*>(text.data()), text.size()};
    return os().Write(fd, absl::MakeConstSpan(&part, 1));
  }
  // The bytes, "end", or "error <n>".
  std::string Read(int fd, size_t bytes_max = 256) {
    std::string bytes(bytes_max, '\0');
    const int64_t n = os().Read(fd, absl::MakeSpan(&bytes[0], bytes.size()));
    if (n < 0) return absl::StrCat("error ", -n);
    return n == 0 ? "end" : bytes.substr(0, static_cast<size_t>(n));
  }
  static std::string Error(int error) { return absl::StrCat("error ", error); }
};

INSTANTIATE_OS_CONTRACT(OsPipeContract);

TEST_P(OsPipeContract, WhatIsWrittenIsReadInItsOrder) {
  int fds[2];
  MakePipe(fds);
  EXPECT_EQ(Read(fds[kReader]), Error(EAGAIN));
  char ab[] = "ab", cd[] = "cd";
  const iovec parts[] = {{ab, 2}, {nullptr, 0}, {cd, 2}};
  EXPECT_EQ(os().Write(fds[kWriter], absl::MakeConstSpan(parts)), 4);
  EXPECT_EQ(Write(fds[kWriter], "ef"), 2);
  EXPECT_EQ(Ready(fds[kReader], kReadable), uint32_t{kReadable});
  EXPECT_EQ(Read(fds[kReader], 3), "abc");
  EXPECT_EQ(Read(fds[kReader]), "def");
  EXPECT_EQ(Read(fds[kReader]), Error(EAGAIN));
  EXPECT_EQ(Ready(fds[kReader], kReadable, kPast), 0u);
  Close({fds[kReader], fds[kWriter]});
}

TEST_P(OsPipeContract, AFullPipeTakesNothingUntilItIsRead) {
  int fds[2];
  MakePipe(fds);
  EXPECT_EQ(Ready(fds[kWriter], kWritable), uint32_t{kWritable});
  const std::string many(100'000, 'x');
  EXPECT_EQ(Write(fds[kWriter], many), 65536);
  EXPECT_EQ(Write(fds[kWriter], "y"), -EAGAIN);
  EXPECT_EQ(Ready(fds[kWriter], kWritable, kPast), 0u);
  EXPECT_EQ(Read(fds[kReader], 32768), std::string(32768, 'x'));
  EXPECT_EQ(Ready(fds[kWriter], kWritable), uint32_t{kWritable});
  EXPECT_EQ(Write(fds[kWriter], "z"), 1);
  EXPECT_EQ(Read(fds[kReader], 65536), std::string(32768, 'x') + "z");
  Close({fds[kReader], fds[kWriter]});
}

TEST_P(OsPipeContract, TheEndComesBehindWhatWasWritten) {
  int fds[2];
  MakePipe(fds);
  EXPECT_EQ(Write(fds[kWriter], "last"), 4);
  Close({fds[kWriter]});
  EXPECT_EQ(Ready(fds[kReader], kReadable), kReadable | kWritable);
  EXPECT_EQ(Read(fds[kReader]), "last");
  EXPECT_EQ(Ready(fds[kReader], kReadable), kReadable | kWritable);
  EXPECT_EQ(Read(fds[kReader]), "end");
  EXPECT_EQ(Read(fds[kReader]), "end");
  Close({fds[kReader]});
}

// P-1
TEST_P(OsPipeContract, WritingToAPipeThatNobodyReadsFailsWithoutASignal) {
  int fds[2];
  MakePipe(fds);
  EXPECT_EQ(Write(fds[kWriter], "unread"), 6);
  Close({fds[kReader]});
  EXPECT_EQ(Ready(fds[kWriter], kWritable), kReadable | kWritable);
  EXPECT_EQ(Write(fds[kWriter], "x"), -EPIPE);
  EXPECT_EQ(Write(fds[kWriter], "x"), -EPIPE);
  Close({fds[kWriter]});
}

// So a writer learns that its reader has gone without writing.
TEST_P(OsPipeContract, AWritingEndIsReadableOnceItsReaderHasGone) {
  int fds[2];
  MakePipe(fds);
  EXPECT_EQ(Ready(fds[kWriter], kReadable, kPast), 0u);
  EXPECT_EQ(Write(fds[kWriter], "x"), 1);
  EXPECT_EQ(Ready(fds[kWriter], kReadable, kPast), 0u);
  Close({fds[kReader]});
  EXPECT_EQ(Ready(fds[kWriter], kReadable), kReadable | kWritable);
  Close({fds[kWriter]});
}

TEST_P(OsPipeContract, AWaitEndsWhenTheOtherEndGoes) {
  int fds[2];
  MakePipe(fds);
  ASSERT_EQ(poller().Add(fds[kReader], kReadable, &fds[kReader]), 0);
  EXPECT_THAT(Wait(kPast), ::testing::IsEmpty());
  Close({fds[kWriter]});
  EXPECT_THAT(Wait(), ::testing::ElementsAre(&fds[kReader]));
  Close({fds[kReader]});
}

TEST_P(OsPipeContract, EachEndHasItsDirection) {
  int fds[2];
  MakePipe(fds);
  EXPECT_EQ(Read(fds[kWriter]), Error(EBADF));
  EXPECT_EQ(os().Read(fds[kWriter], {}), -EBADF);
  EXPECT_EQ(Write(fds[kReader], "x"), -EBADF);
  Close({fds[kReader], fds[kWriter]});
}

TEST_P(OsPipeContract, NothingIsReadAndWrittenAtOnce) {
  int fds[2];
  MakePipe(fds);
  EXPECT_EQ(os().Read(fds[kReader], {}), 0);
  EXPECT_EQ(Write(fds[kWriter], ""), 0);
  EXPECT_EQ(os().Write(fds[kWriter], {}), 0);
  Close({fds[kReader]});
  EXPECT_EQ(Write(fds[kWriter], ""), 0);
  Close({fds[kWriter]});
}

TEST_P(OsPipeContract, SocketsAreReadAndWrittenTheSameWay) {
  int fds[2];
  ASSERT_EQ(os().SocketPair(AF_UNIX, SOCK_STREAM, fds), 0);
  EXPECT_EQ(Write(fds[0], "hello"), 5);
  EXPECT_NE(Ready(fds[1], kReadable), 0u);
  EXPECT_EQ(Read(fds[1]), "hello");
  EXPECT_EQ(Read(fds[1]), Error(EAGAIN));
  Close({fds[0]});
  EXPECT_NE(Ready(fds[1], kReadable), 0u);
  EXPECT_EQ(Read(fds[1]), "end");
  EXPECT_EQ(Write(fds[1], "x"), -EPIPE);
  Close({fds[1]});
}

TEST_P(OsPipeContract, PipesAndSocketsAreTakenIn) {
  int fds[2], pair[2];
  MakePipe(fds);
  ASSERT_EQ(os().SocketPair(AF_UNIX, SOCK_STREAM, pair), 0);
  for (const int fd : {fds[0], fds[1], pair[0]}) EXPECT_EQ(os().AdoptPipe(fd), 0);
  EXPECT_EQ(os().AdoptSocket(fds[0], SOCK_STREAM), -ENOTSOCK);
  Close({fds[0], fds[1], pair[0], pair[1]});
  EXPECT_EQ(os().AdoptPipe(fds[0]), -EBADF);
}

TEST_P(OsPipeContract, AClosedPipeIsBad) {
  int fds[2];
  MakePipe(fds);
  Close({fds[kReader], fds[kWriter]});
  EXPECT_EQ(Read(fds[kReader]), Error(EBADF));
  EXPECT_EQ(Write(fds[kWriter], "x"), -EBADF);
}

TEST_P(OsPipeContract, WithoutAFreeDescriptorThereIsNoPipe) {
  int fds[2] = {-7, -7};
  WithoutFreeDescriptors([&] { EXPECT_EQ(os().MakePipe(fds), -EMFILE); });
  EXPECT_EQ(fds[0], -7);
}

}  // namespace
}  // namespace troupe
