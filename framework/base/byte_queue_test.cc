#include "troupe/base/byte_queue.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace troupe {
namespace {

// Letters that tell their place.
std::string Text(size_t n, size_t from = 0) {
  std::string text(n, ' ');
  for (size_t i = 0; i < n; ++i) text[i] = static_cast<char>('a' + (from + i) * 7 % 26);
  return text;
}

std::string ThroughIovec(const ByteQueue& queue) {
  std::array<iovec, 64> pieces;
  const size_t n = queue.FillIovec(absl::MakeSpan(pieces));
  std::string all;
  for (size_t i = 0; i < n; ++i) all.append(static_cast<const char*>(pieces[i].iov_base), pieces[i].iov_len);
  return all;
}

TEST(ByteQueue, EmptyHoldsNothing) {
  static_assert(sizeof(ByteQueue) == 24);
  ByteQueue queue;
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(queue.footprint(), 0u);
  EXPECT_TRUE(queue.front().empty());
  iovec piece;
  EXPECT_EQ(queue.FillIovec(absl::MakeSpan(&piece, 1)), 0u);
  queue.Append(absl::Span<const char>());
  queue.Append(Bytes());
  queue.Append(ByteQueue());
  EXPECT_EQ(queue.footprint(), 0u);
}

TEST(ByteQueue, GivesItsChunksBackWhenItRunsEmpty) {
  ByteQueue queue;
  queue.Append("hello");
  EXPECT_GT(queue.footprint(), 0u);
  queue.Consume(2);
  EXPECT_GT(queue.footprint(), 0u);
  queue.Consume(3);
  EXPECT_EQ(queue.footprint(), 0u);
}

TEST(ByteQueue, KeepsOrderAcrossChunks) {
  ByteQueue queue;
  const std::string text = Text(50000);
  for (size_t at = 0; at < text.size(); at += 1000) queue.Append(absl::MakeConstSpan(text).subspan(at, 1000));
  EXPECT_EQ(queue.size(), text.size());
  EXPECT_EQ(queue.ToString(), text);
  EXPECT_EQ(ThroughIovec(queue), text);
  std::string read;
  while (!queue.empty()) {
    ASSERT_FALSE(queue.front().empty());
    const size_t n = std::min<size_t>(queue.front().size(), 777);
    read.append(queue.front().data(), n);
    queue.Consume(n);
  }
  EXPECT_EQ(read, text);
}

TEST(ByteQueue, SmallAppendsShareOneChunk) {
  ByteQueue queue;
  for (int i = 0; i < 100; ++i) queue.Append("0123456789");
  std::array<iovec, 8> pieces;
  EXPECT_EQ(queue.FillIovec(absl::MakeSpan(pieces)), 1u);
}

TEST(ByteQueue, LargeCopyTakesFewChunks) {
  ByteQueue queue;
  const std::string text = Text(1 << 20);
  queue.Append(text);
  std::array<iovec, 64> pieces;
  EXPECT_LE(queue.FillIovec(absl::MakeSpan(pieces)), 17u);
  EXPECT_EQ(queue.ToString(), text);
}

TEST(ByteQueue, FillIovecStopsWhenItsEntriesAreUsed) {
  ByteQueue queue;
  for (int i = 0; i < 5; ++i) queue.Append(Bytes::Adopt(Text(1000, i)));
  std::array<iovec, 3> pieces;
  ASSERT_EQ(queue.FillIovec(absl::MakeSpan(pieces)), 3u);
  EXPECT_EQ(std::string(static_cast<char*>(pieces[2].iov_base), pieces[2].iov_len), Text(1000, 2));
}

TEST(ByteQueue, ReserveGivesOnePieceAndCommitTakesWhatWasFilled) {
  ByteQueue queue;
  queue.Append("ab");
  absl::Span<char> room = queue.Reserve(100);
  ASSERT_GE(room.size(), 100u);
  std::memcpy(room.data(), "cdef", 4);
  EXPECT_EQ(queue.size(), 2u);
  queue.Commit(3);
  EXPECT_EQ(queue.ToString(), "abcde");
  // More than a chunk holds: one of its own.
  room = queue.Reserve(100000);
  ASSERT_GE(room.size(), 100000u);
  std::fill(room.begin(), room.begin() + 100000, 'x');
  queue.Commit(100000);
  EXPECT_EQ(queue.size(), 100005u);
  EXPECT_EQ(queue.ToString(), "abcde" + std::string(100000, 'x'));
}

TEST(ByteQueue, ReservationGivenUpLeavesNoTrace) {
  ByteQueue queue;
  queue.Reserve(10);
  queue.Commit(0);
  EXPECT_EQ(queue.footprint(), 0u);

  queue.Append("abc");
  queue.Reserve(100000);  // a new segment, never filled
  queue.Append(Bytes::Adopt(Text(2000)));
  EXPECT_EQ(queue.ToString(), "abc" + Text(2000));
  EXPECT_EQ(ThroughIovec(queue), "abc" + Text(2000));
  queue.Consume(3);
  ASSERT_FALSE(queue.front().empty());
  EXPECT_EQ(queue.ToString(), Text(2000));

  ByteQueue other;
  other.Append("abc");
  other.Reserve(100000);
  other.Append(Bytes::Adopt(Text(2000)));
  EXPECT_EQ(other.TakeFront(3).ToString(), "abc");
  ASSERT_FALSE(other.front().empty());
  EXPECT_EQ(other.ToString(), Text(2000));

  ByteQueue only;
  only.Reserve(10);
  only.Append(Bytes::Adopt(Text(2000)));
  EXPECT_EQ(only.front().size(), 2000u);
}

TEST(ByteQueue, SharedSliceIsNotCopiedAndIsNeverWrittenBehind) {
  Bytes bytes = Bytes::Copy(absl::MakeConstSpan(Text(5000)));
  Bytes part = bytes.Slice(1000, 2000);
  ByteQueue queue;
  queue.Append(part);
  EXPECT_EQ(queue.front().data(), bytes.data() + 1000);
  queue.Append("more");
  EXPECT_EQ(queue.ToString(), Text(2000, 1000) + "more");
  EXPECT_EQ(bytes.view(), Text(5000));
}

TEST(ByteQueue, SmallPiecesBetweenSharedOnesStandInOneChunk) {
  const Bytes large = Bytes::Adopt(Text(100000));
  ByteQueue queue;
  std::string expected;
  std::vector<const char*> places;
  for (size_t i = 0; i < 20; ++i) {
    const std::string header = "header " + std::to_string(i);
    queue.Append(header);
    queue.Append(large.Slice(i * 1000, 1000));
    expected += header + Text(1000, i * 1000);
  }
  EXPECT_EQ(queue.ToString(), expected);
  std::array<iovec, 64> pieces;
  ASSERT_EQ(queue.FillIovec(absl::MakeSpan(pieces)), 40u);
  for (size_t i = 2; i < 40; i += 2) {
    const auto* before = static_cast<const char*>(pieces[i - 2].iov_base) + pieces[i - 2].iov_len;
    EXPECT_EQ(pieces[i].iov_base, before) << i;
  }
  // What is taken away keeps its bytes while the rest is written on.
  ByteQueue front = queue.TakeFront(5000);
  queue.Append("tail");
  front.Append("front's tail");
  EXPECT_EQ(front.ToString(), expected.substr(0, 5000) + "front's tail");
  EXPECT_EQ(queue.ToString(), expected.substr(5000) + "tail");
}

TEST(ByteQueue, SliceOfTheTailStaysAsItWasWhileTheQueueGrows) {
  ByteQueue queue;
  queue.Append(Text(1000));
  ByteQueue taken = queue.TakeFront(600);
  queue.Append(Text(3000, 1000));
  taken.Append("!");  // must not write into the chunk that both hold
  EXPECT_EQ(taken.ToString(), Text(600) + "!");
  EXPECT_EQ(queue.ToString(), Text(3400, 600));
}

TEST(ByteQueue, TakesOverAnotherQueue) {
  ByteQueue a, b;
  a.Append("head ");
  const std::string text = Text(20000);
  b.Append(text);
  const char* where = b.front().data();
  a.Append(std::move(b));
  EXPECT_TRUE(b.empty());
  EXPECT_EQ(b.footprint(), 0u);
  EXPECT_EQ(a.ToString(), "head " + text);
  a.Consume(5);
  EXPECT_EQ(a.front().data(), where);
  a.Append("tail");
  EXPECT_EQ(a.ToString(), text + "tail");
  b.Append("usable again");
  EXPECT_EQ(b.ToString(), "usable again");

  ByteQueue empty;
  empty.Append(std::move(a));
  EXPECT_EQ(empty.ToString(), text + "tail");
  EXPECT_TRUE(a.empty());
}

TEST(ByteQueue, AppendsItsOwnBytes) {
  ByteQueue queue;
  queue.Append(Text(8000));
  queue.Append(queue.front());
  EXPECT_EQ(queue.ToString(), Text(8000) + Text(8000));
}

TEST(ByteQueue, TakeBytesSharesOnePieceAndGathersSeveral) {
  ByteQueue queue;
  queue.Append(Bytes::Adopt(Text(1000)));
  queue.Append(Bytes::Adopt(Text(1000, 1000)));
  const char* where = queue.front().data();
  Bytes first = queue.TakeBytes(600);
  EXPECT_EQ(first.data(), where);
  Bytes second = queue.TakeBytes(1000);
  EXPECT_EQ(second.view(), Text(1000, 600));
  EXPECT_EQ(queue.ToString(), Text(400, 1600));
  EXPECT_TRUE(queue.TakeBytes(0).empty());
}

TEST(Bytes, OutliveQueueAndThread) {
  Bytes kept;
  std::thread([&kept] {
    ByteQueue queue;
    queue.Append(Text(100));
    queue.Append(Bytes::Adopt(Text(9000)));
    kept = queue.TakeBytes(9100);
    Bytes copy = kept;
  }).join();
  EXPECT_EQ(kept.view(), Text(100) + Text(9000));
}

TEST(Bytes, AreSharedBetweenThreads) {
  Bytes bytes = Bytes::Copy(absl::MakeConstSpan(Text(8000)));
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([bytes] {
      for (int i = 0; i < 1000; ++i) {
        ByteQueue queue;
        queue.Append(bytes.Slice(i, 1000));
        queue.Append("own");
        if (queue.size() != 1003 || queue.front()[0] != bytes.data()[i]) std::abort();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(bytes.view(), Text(8000));
}

TEST(Bytes, StaticAndAdoptedNeedNoCopy) {
  static const char kText[] = "constant";
  EXPECT_EQ(Bytes::Static(kText).data(), kText);
  std::string text = Text(4000);
  const char* where = text.data();
  EXPECT_EQ(Bytes::Adopt(std::move(text)).data(), where);
  EXPECT_EQ(Bytes::Adopt("few").view(), "few");
  EXPECT_TRUE(Bytes::Adopt("").empty());
}

// Every operation at random beside a std::string that says what must be there.
TEST(ByteQueue, BehavesAsAString) {
  const char* given = std::getenv("TROUPE_SEED");
  const uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device()();
  SCOPED_TRACE("TROUPE_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  const auto below = [&random](size_t n) { return static_cast<size_t>(random() % n); };
  ByteQueue queue;
  std::string model;
  size_t made = 0;
  for (int step = 0; step < 20000; ++step) {
    const size_t n = below(10) == 0 ? below(30000) : below(900);
    const std::string text = Text(n, made);
    made += n;
    switch (below(9)) {
      case 0:
        queue.Append(text);
        model += text;
        break;
      case 1:
        queue.Append(Bytes::Adopt(text));
        model += text;
        break;
      case 2: {
        ByteQueue other;
        other.Append(absl::MakeConstSpan(text).subspan(0, n / 2));
        other.Append(Bytes::Copy(absl::MakeConstSpan(text).subspan(n / 2)));
        queue.Append(std::move(other));
        model += text;
        break;
      }
      case 3: {
        absl::Span<char> room = queue.Reserve(n + 1);
        std::copy(text.begin(), text.end(), room.begin());
        queue.Commit(n);
        model += text;
        break;
      }
      case 4: {
        const size_t take = below(model.size() + 1);
        ByteQueue front = queue.TakeFront(take);
        ASSERT_EQ(front.ToString(), model.substr(0, take));
        front.Append(std::move(queue));
        queue = std::move(front);
        break;
      }
      case 5: {
        const size_t take = std::min(n, model.size());
        ASSERT_EQ(queue.TakeBytes(take).view(), model.substr(0, take));
        model.erase(0, take);
        break;
      }
      default: {
        const size_t take = std::min(n, model.size());
        queue.Consume(take);
        model.erase(0, take);
      }
    }
    ASSERT_EQ(queue.size(), model.size());
    ASSERT_EQ(queue.front().empty(), model.empty());
    if (step % 50 == 0) {
      ASSERT_EQ(queue.ToString(), model);
    }
    if (model.size() > 200000) {
      queue.Consume(150000);
      model.erase(0, 150000);
    }
  }
  ASSERT_EQ(queue.ToString(), model);
}

}  // namespace
}  // namespace troupe
