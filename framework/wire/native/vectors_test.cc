// Runs vectors.textproto against the codec: whole, and one byte at a time.
#include <algorithm>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "framework/wire/native/vectors.pb.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "troupe/wire/native/testing_peer.h"

namespace troupe::native {
namespace {

using ::testing::HasSubstr;
using wire::testing::Vector;
using wire::testing::Vectors;

Vectors Load() {
  std::ifstream in("framework/wire/native/vectors.textproto");
  EXPECT_TRUE(in.is_open());
  const std::string text(std::istreambuf_iterator<char>(in), {});
  Vectors vectors;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &vectors));
  return vectors;
}

template <class Strings>
std::string Unhex(const Strings& hex) {
  std::string all;
  for (const std::string& part : hex) absl::StrAppend(&all, absl::StrReplaceAll(part, {{" ", ""}}));
  EXPECT_EQ(all.size() % 2, 0u);
  EXPECT_EQ(all.find_first_not_of("0123456789abcdef"), std::string::npos) << all;
  return absl::HexStringToBytes(all);
}

template <class Strings>
Lines ToLines(const Strings& strings) {
  return Lines(strings.begin(), strings.end());
}

void Play(const Vector& vector, size_t piece) {
  SCOPED_TRACE(absl::StrCat(vector.name(), ", ", piece, " bytes at a time"));
  ASSERT_NE(vector.reader(), Vector::END_UNSPECIFIED);
  const std::string received = Unhex(vector.received());
  EXPECT_EQ(Describe(received), ToLines(vector.frames()));

  CodecEnd reader(vector.reader() == Vector::CONNECTING ? Client() : Server());
  reader.on_call = [&reader](IncomingCall& call) {
    if (!call.complete) return;
    google::protobuf::BytesValue echo;
    ASSERT_TRUE(echo.ParseFromArray(call.message.data(), static_cast<int>(call.message.size())));
    reader.codec().SendReply(call.id, &echo, absl::OkStatus(), nullptr);
  };
  for (const std::string& path : vector.opened()) reader.Start(path);
  if (vector.after_preface()) {
    ASSERT_EQ(reader.Receive(FrameBytes().Preface()), absl::OkStatus());
  }
  reader.TakeOutput();
  absl::Status status;
  for (size_t at = 0; at < received.size() && status.ok(); at += piece) {
    status = reader.Receive(absl::MakeConstSpan(received.data() + at, std::min(piece, received.size() - at)));
  }
  EXPECT_EQ(reader.TakeLog(), ToLines(vector.events()));
  EXPECT_EQ(absl::BytesToHexString(reader.TakeOutput()), absl::BytesToHexString(Unhex(vector.sent())));
  if (vector.error().empty()) {
    EXPECT_EQ(status, absl::OkStatus());
  } else {
    EXPECT_THAT(std::string(status.message()), HasSubstr(vector.error()));
  }
}

TEST(Vectors, AreWhatTheCodecReadsAndSends) {
  const Vectors vectors = Load();
  EXPECT_GT(vectors.vector_size(), 20);
  std::set<std::string> names;
  for (const Vector& vector : vectors.vector()) {
    EXPECT_TRUE(names.insert(vector.name()).second) << vector.name();
    Play(vector, SIZE_MAX / 2);
    Play(vector, 1);
  }
}

TEST(Vectors, HoldEveryTypeOfFrame) {
  const Vectors vectors = Load();
  std::set<int> types;
  for (const Vector& vector : vectors.vector()) {
    const std::string bytes = Unhex(vector.received());
    absl::string_view rest = bytes;
    if (!vector.after_preface()) rest.remove_prefix(std::min(rest.size(), 8 + size_t{Load16(rest.data() + 6)}));
    while (rest.size() >= kFrameHeaderBytes) {
      const FrameHeader header = ReadFrameHeader(rest.data());
      types.insert(static_cast<int>(header.type));
      rest.remove_prefix(std::min<size_t>(rest.size(), kFrameHeaderBytes + header.length));
    }
  }
  for (int type = 1; type <= 8; ++type) EXPECT_EQ(types.count(type), 1u) << type;
}

}  // namespace
}  // namespace troupe::native
