#include "troupe/wire/grpc/internal/frame_watch.h"

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/wire/grpc/testing_peer.h"

namespace troupe::grpc_wire {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr size_t kPrefaceBytes = 24;

// What nghttp2 is told of `said`, which comes in pieces.
std::string Told(FrameWatch& watch, absl::string_view said, size_t piece) {
  std::string told;
  for (size_t at = 0; at < said.size(); at += piece) {
    absl::Span<const char> bytes = absl::MakeConstSpan(said).subspan(at, piece);
    while (!bytes.empty()) {
      const absl::Span<const char> next = watch.Next(bytes);
      told.append(next.begin(), next.end());
    }
  }
  return told;
}

TEST(FrameWatchTest, TakesPaddingOutWhereverTheBytesAreCut) {
  std::string said = H2Bytes().Preface().Settings({{4, 1}}).Request(1, "/a.B/C").str();
  std::string expected = said;
  const std::string ping = H2Bytes().Ping(7).str();
  uint32_t padding = 0;
  for (const size_t bytes : {0, 1, 5, 300}) {
    for (const size_t pad : {0, 1, 9, 255}) {
      const std::string data(bytes, 'd');
      said += H2Bytes().PaddedData(1, data, pad).str() + ping;
      expected += H2Bytes().Data(1, data).str() + ping;
      padding += static_cast<uint32_t>(pad) + 1;
    }
  }
  said += H2Bytes().PaddedData(1, "", 3, kEndStream).PaddedData(3, "x", 0).Data(1, "y").str();
  expected += H2Bytes().Data(1, "", kEndStream).Data(3, "x").Data(1, "y").str();
  for (const size_t piece : {SIZE_MAX / 2, size_t{1}, size_t{2}, size_t{7}, size_t{10}, size_t{11}, size_t{64}}) {
    FrameWatch watch(kPrefaceBytes);
    EXPECT_EQ(Told(watch, said, piece), expected) << piece;
    uint32_t of_first = 0, of_third = 0;
    for (const FrameWatch::Padding& taken : watch.TakePadding()) (taken.id == 1 ? of_first : of_third) += taken.bytes;
    EXPECT_EQ(of_first, padding + 4) << piece;
    EXPECT_EQ(of_third, 1u) << piece;
    EXPECT_THAT(watch.TakePadding(), IsEmpty());
  }
}

TEST(FrameWatchTest, WrongPaddingIsPassedOnAsItIs) {
  const H2Bytes wrong[] = {
      H2Bytes().Frame(kDataFrame, kPadded, 1, ""),
      H2Bytes().Frame(kDataFrame, kPadded, 1, "\x01"),
      H2Bytes().Frame(kDataFrame, kPadded, 1,
                      "\x04"
                      "abc"),
      H2Bytes().Frame(kDataFrame, kPadded, 1, "\x01" + std::string(16384, 'x')),
  };
  for (const H2Bytes& said : wrong) {
    for (const size_t piece : {SIZE_MAX / 2, size_t{1}}) {
      FrameWatch watch(0);
      EXPECT_EQ(Told(watch, said.str(), piece), said.str());
      EXPECT_THAT(watch.TakePadding(), IsEmpty());
    }
  }
}

TEST(FrameWatchTest, PaddingOfHeadersIsNghttp2sAffair) {
  const std::string said =
      H2Bytes()
          .Frame(kHeadersFrame, kPadded | kEndHeaders, 1, "\x02" + HeaderBlock(RequestFields("/a.B/C")) + "pp")
          .str();
  FrameWatch watch(0);
  EXPECT_EQ(Told(watch, said, 3), said);
}

}  // namespace
}  // namespace troupe::grpc_wire
