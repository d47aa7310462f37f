#include "troupe/wire/native/frame.h"

#include <string>
#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/escaping.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/wire/native.pb.h"

namespace troupe::native {
namespace {

using ::testing::HasSubstr;

constexpr MetadataLimits kLimits = {16 << 10, 100};
constexpr char kTraceparentText[] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

absl::Span<const char> Span(const std::string& bytes) { return absl::MakeConstSpan(bytes); }
std::string Unhex(absl::string_view hex) { return absl::HexStringToBytes(hex); }

std::string WrittenCallHead(int64_t method, absl::string_view path, absl::Duration timeout, const Metadata* metadata) {
  std::string bytes(CallHeadBytes(method, path, timeout, metadata), '?');
  const char* end = WriteCallHead(bytes.data(), method, path, timeout, metadata);
  EXPECT_EQ(end, bytes.data() + bytes.size());
  return bytes;
}

TEST(FrameHeader, IsLittleEndianWithTheTypeInTheFourthByte) {
  char bytes[8];
  WriteFrameHeader(bytes, 0x010203, FrameType::kMessage, kFlagBegin | kFlagClose, 0xA1B2C3D4);
  EXPECT_EQ(absl::BytesToHexString(absl::string_view(bytes, 8)), "03020152d4c3b2a1");
  const FrameHeader header = ReadFrameHeader(bytes);
  EXPECT_EQ(header.length, 0x010203u);
  EXPECT_EQ(header.type, FrameType::kMessage);
  EXPECT_EQ(header.flags, kFlagBegin | kFlagClose);
  EXPECT_EQ(header.id, 0xA1B2C3D4u);
}

TEST(Varint, ReadsBackWhatItWrites) {
  for (uint64_t v : {uint64_t{0}, uint64_t{1}, uint64_t{127}, uint64_t{128}, uint64_t{16383}, uint64_t{16384},
                     uint64_t{1} << 31, uint64_t{1} << 63, UINT64_MAX}) {
    char bytes[10];
    const size_t size = WriteVarint(bytes, v) - bytes;
    EXPECT_EQ(size, VarintBytes(v));
    absl::Span<const char> rest(bytes, size);
    uint64_t read = ~v;
    ASSERT_TRUE(ReadVarint(rest, read)) << v;
    EXPECT_EQ(read, v);
    EXPECT_TRUE(rest.empty());
    for (size_t cut = 0; cut < size; ++cut) {
      rest = absl::MakeConstSpan(bytes, cut);
      EXPECT_FALSE(ReadVarint(rest, read)) << v << " cut to " << cut;
    }
  }
}

TEST(Varint, RefusesMoreThanSixtyFourBits) {
  uint64_t v = 0;
  const std::string eleven = Unhex("8080808080808080808001");
  absl::Span<const char> rest = Span(eleven);
  EXPECT_FALSE(ReadVarint(rest, v));
  const std::string bit64 = Unhex("ffffffffffffffffff02");
  rest = Span(bit64);
  EXPECT_FALSE(ReadVarint(rest, v));
}

TEST(CallHead, OfANumberedMethodIsTwoBytes) {
  EXPECT_EQ(absl::BytesToHexString(WrittenCallHead(5, "", absl::InfiniteDuration(), nullptr)), "0805");
}

TEST(CallHead, IsWhatTheGeneratedClassReads) {
  const Metadata metadata = {{"traceparent", kTraceparentText}, {"user", "me"}, {"key-bin", std::string("\0\xFF", 2)}};
  wire::CallHead head;
  ASSERT_TRUE(head.ParseFromString(WrittenCallHead(300, "/kv.v1.KeyValue/Get", absl::Milliseconds(50), &metadata)));
  EXPECT_EQ(head.method(), 300u);
  EXPECT_EQ(head.path(), "/kv.v1.KeyValue/Get");
  EXPECT_EQ(head.timeout_nanos(), 50'000'000u);
  EXPECT_EQ(absl::BytesToHexString(head.trace()), "0af7651916cd43dd8448eb211c80319cb7ad6b716920333101");
  ASSERT_EQ(head.metadata_size(), 2);
  EXPECT_EQ(head.metadata(0).key(), "user");
  EXPECT_EQ(head.metadata(1).value(), std::string("\0\xFF", 2));
  // Nothing of it was unknown to the class.
  EXPECT_EQ(head.GetReflection()->GetUnknownFields(head).field_count(), 0);
}

TEST(CallHead, ReadsWhatTheGeneratedClassWrites) {
  wire::CallHead written;
  written.set_method(7);
  written.set_path("/a.B/C");
  written.set_timeout_nanos(1500);
  written.set_trace(Unhex("0af7651916cd43dd8448eb211c80319cb7ad6b716920333101"));
  auto* entry = written.add_metadata();
  entry->set_key("k");
  entry->set_value("v");
  const std::string bytes = written.SerializeAsString();
  CallHead head;
  ASSERT_TRUE(ReadCallHead(Span(bytes), kLimits, head));
  EXPECT_TRUE(head.has_method);
  EXPECT_EQ(head.method, 7u);
  EXPECT_EQ(head.path, "/a.B/C");
  EXPECT_EQ(head.timeout, absl::Nanoseconds(1500));
  EXPECT_EQ(head.metadata, (Metadata{{"traceparent", kTraceparentText}, {"k", "v"}}));
  EXPECT_TRUE(head.refused.ok());
}

TEST(CallHead, KeepsADeadlineThatHasPassedApartFromNone) {
  CallHead head;
  const std::string past = WrittenCallHead(0, "", absl::Seconds(-3), nullptr);
  ASSERT_TRUE(ReadCallHead(Span(past), kLimits, head));
  EXPECT_EQ(head.timeout, absl::ZeroDuration());
  CallHead none;
  const std::string without = WrittenCallHead(0, "", absl::InfiniteDuration(), nullptr);
  ASSERT_TRUE(ReadCallHead(Span(without), kLimits, none));
  EXPECT_EQ(none.timeout, absl::InfiniteDuration());
}

TEST(CallHead, LeavesATraceparentOfAnotherFormAsItIs) {
  for (const char* text : {"", "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
                           "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                           "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g", "00-0af7651916cd43dd-01"}) {
    const Metadata metadata = {{"traceparent", text}};
    const std::string bytes = WrittenCallHead(0, "", absl::InfiniteDuration(), &metadata);
    wire::CallHead parsed;
    ASSERT_TRUE(parsed.ParseFromString(bytes));
    EXPECT_TRUE(parsed.trace().empty()) << text;
    CallHead head;
    ASSERT_TRUE(ReadCallHead(Span(bytes), kLimits, head));
    EXPECT_EQ(head.metadata, metadata);
  }
}

TEST(CallHead, SkipsFieldsOfALaterVersion) {
  // Fields 14 to 17 of every type, then the method.
  const std::string bytes = Unhex(
      "7001"
      "790102030405060708"
      "8201026869"
      "8d0101020304"
      "0803");
  CallHead head;
  ASSERT_TRUE(ReadCallHead(Span(bytes), kLimits, head));
  EXPECT_EQ(head.method, 3u);
}

TEST(CallHead, RefusesWhatIsMalformed) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {"", "neither method nor path"},
      {"7001", "neither method nor path"},
      {"088020", "method 4096"},
      {"08", "number cut short"},
      {"0a0141", "method as bytes, and so none"},
      {"0800"
       "12",
       "length cut short"},
      {"0800"
       "1205"
       "61",
       "path cut short"},
      {"0800"
       "1200",
       "empty path"},
      {"0800"
       "18ffffffffffffffffff01",
       "timeout of 64 bits"},
      {"0800"
       "2203414243",
       "trace of three bytes"},
      {"0800"
       "2a020a05",
       "metadata entry whose key is cut short"},
      {"0800"
       "0b",
       "group"},
      {"0800"
       "0f",
       "type 7"},
      {"0800"
       "00",
       "field 0"},
      {"0800"
       "1d010203",
       "fixed32 cut short"},
      {"0800"
       "1901",
       "fixed64 cut short"},
      {"0800"
       "ffffffffff7f",
       "tag of more than 32 bits"},
  };
  for (const auto& [hex, what] : cases) {
    const std::string bytes = Unhex(hex);
    CallHead head;
    EXPECT_FALSE(ReadCallHead(Span(bytes), kLimits, head)) << what;
  }
  const std::string long_path =
      WrittenCallHead(0, std::string(kPathBytesMax + 1, 'p'), absl::InfiniteDuration(), nullptr);
  CallHead head;
  EXPECT_FALSE(ReadCallHead(Span(long_path), kLimits, head));
}

TEST(CallHead, EveryCutIsSafe) {
  const Metadata metadata = {{"traceparent", kTraceparentText}, {"user", "me"}};
  const std::string whole = WrittenCallHead(300, "/kv.v1.KeyValue/Get", absl::Milliseconds(50), &metadata);
  for (size_t size = 0; size < whole.size(); ++size) {
    // A copy of its own, so that a sanitizer sees what is read behind it.
    const std::vector<char> cut(whole.begin(), whole.begin() + size);
    CallHead head;
    ReadCallHead(absl::MakeConstSpan(cut), kLimits, head);
  }
}

TEST(Metadata, BeyondTheLimitsConcernsTheCallAlone) {
  Metadata many;
  for (int i = 0; i < 4; ++i) many.Add("k", std::string(10, 'v'));
  const std::string bytes = WrittenCallHead(0, "", absl::InfiniteDuration(), &many);
  CallHead entries;
  ASSERT_TRUE(ReadCallHead(Span(bytes), {1000, 3}, entries));
  EXPECT_EQ(entries.refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(entries.metadata.empty());
  CallHead size;
  ASSERT_TRUE(ReadCallHead(Span(bytes), {4 * 43 - 1, 100}, size));
  EXPECT_EQ(size.refused.code(), absl::StatusCode::kResourceExhausted);
  CallHead fits;
  ASSERT_TRUE(ReadCallHead(Span(bytes), {4 * 43, 4}, fits));
  EXPECT_TRUE(fits.refused.ok());
  EXPECT_EQ(fits.metadata, many);
}

TEST(Metadata, WithAKeyThatMayNotBeConcernsTheCallAlone) {
  wire::MetadataBlock block;
  block.add_metadata()->set_key("Upper");
  const std::string bytes = block.SerializeAsString();
  Metadata metadata;
  absl::Status refused;
  ASSERT_TRUE(ReadMetadataBlock(Span(bytes), kLimits, metadata, refused));
  EXPECT_EQ(refused.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(refused.message(), HasSubstr("Upper"));
}

TEST(Metadata, BlockGoesBothWays) {
  const Metadata metadata = {{"a", "1"}, {"b-bin", std::string("\0\1", 2)}, {"a", ""}};
  std::string bytes(MetadataBlockBytes(metadata), '?');
  EXPECT_EQ(WriteMetadataBlock(bytes.data(), metadata), bytes.data() + bytes.size());
  wire::MetadataBlock block;
  ASSERT_TRUE(block.ParseFromString(bytes));
  EXPECT_EQ(block.metadata_size(), 3);
  EXPECT_EQ(block.SerializeAsString().size() + 2, bytes.size()) << "we write an empty value, the class does not";
  Metadata read;
  absl::Status refused;
  ASSERT_TRUE(ReadMetadataBlock(Span(bytes), kLimits, read, refused));
  EXPECT_EQ(read, metadata);
}

TEST(EndHead, CarriesStatusDetailsAndTrailers) {
  absl::Status status = absl::NotFoundError("no such key");
  status.SetPayload("type.googleapis.com/b", absl::Cord("2"));
  status.SetPayload("type.googleapis.com/a", absl::Cord("1"));
  status.SetPayload("stays.home/c", absl::Cord("3"));
  const Metadata trailers = {{"t", "v"}};
  const std::string bytes = MakeEndHead(status, &trailers);
  wire::EndHead parsed;
  ASSERT_TRUE(parsed.ParseFromString(bytes));
  EXPECT_EQ(parsed.code(), 5u);
  EXPECT_EQ(parsed.message(), "no such key");
  ASSERT_EQ(parsed.details_size(), 2);
  EXPECT_EQ(parsed.details(0).type_url(), "type.googleapis.com/a");
  EXPECT_EQ(parsed.details(1).value(), "2");
  EXPECT_EQ(parsed.trailers(0).key(), "t");
  EXPECT_EQ(parsed.SerializeAsString(), bytes);

  EndHead read;
  ASSERT_TRUE(ReadEndHead(Span(bytes), kLimits, read));
  EXPECT_EQ(read.status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(read.status.message(), "no such key");
  EXPECT_EQ(read.status.GetPayload("type.googleapis.com/a"), absl::Cord("1"));
  EXPECT_EQ(read.status.GetPayload("type.googleapis.com/b"), absl::Cord("2"));
  EXPECT_FALSE(read.status.GetPayload("stays.home/c").has_value());
  EXPECT_EQ(read.trailers, trailers);
}

TEST(EndHead, TakesNoPayloadThatShouldHaveStayedHome) {
  wire::EndHead head;
  head.set_code(13);
  head.add_details()->set_type_url("troupe/not-started");
  const std::string bytes = head.SerializeAsString();
  EndHead read;
  ASSERT_TRUE(ReadEndHead(Span(bytes), kLimits, read));
  EXPECT_FALSE(read.status.GetPayload("troupe/not-started").has_value());
}

TEST(EndHead, UnknownCodeIsUnknownAndOkHasNoMessage) {
  wire::EndHead head;
  head.set_code(99);
  head.set_message("why");
  std::string bytes = head.SerializeAsString();
  EndHead read;
  ASSERT_TRUE(ReadEndHead(Span(bytes), kLimits, read));
  EXPECT_EQ(read.status, absl::UnknownError("why"));
  head.set_code(0);
  bytes = head.SerializeAsString();
  EndHead ok;
  ASSERT_TRUE(ReadEndHead(Span(bytes), kLimits, ok));
  EXPECT_TRUE(ok.status.ok());
}

TEST(EndHead, ThousandsOfDetailsCostLittle) {
  wire::EndHead head;
  head.set_code(13);
  for (int i = 0; i < 2000; ++i) head.add_details()->set_type_url("type.googleapis.com/" + std::to_string(i));
  const std::string bytes = head.SerializeAsString();
  EndHead read;
  ASSERT_TRUE(ReadEndHead(Span(bytes), kLimits, read));
  int payloads = 0;
  read.status.ForEachPayload([&payloads](absl::string_view, const absl::Cord&) { ++payloads; });
  EXPECT_EQ(payloads, kLimits.entries_max);
}

TEST(Control, FramesAreWhatTheGeneratedClassesReadAndWrite) {
  wire::Reset reset;
  ASSERT_TRUE(reset.ParseFromString(MakeReset(absl::UnavailableError("full"), true)));
  EXPECT_EQ(reset.code(), 14u);
  EXPECT_EQ(reset.message(), "full");
  EXPECT_TRUE(reset.not_started());
  const std::string reset_bytes = reset.SerializeAsString();
  Reset read_reset;
  ASSERT_TRUE(ReadReset(Span(reset_bytes), read_reset));
  EXPECT_EQ(read_reset.status, absl::UnavailableError("full"));
  EXPECT_TRUE(read_reset.not_started);

  char bytes[kCreditBytesMax];
  wire::Credit credit;
  ASSERT_TRUE(credit.ParseFromArray(bytes, static_cast<int>(WriteCredit(bytes, UINT32_MAX) - bytes)));
  EXPECT_EQ(credit.bytes(), UINT32_MAX);
  const std::string credit_bytes = credit.SerializeAsString();
  uint64_t read_credit = 0;
  ASSERT_TRUE(ReadCredit(Span(credit_bytes), read_credit));
  EXPECT_EQ(read_credit, UINT32_MAX);

  char ping_bytes[kPingBytes];
  WritePing(ping_bytes, 0x0102030405060708);
  wire::Ping ping;
  ASSERT_TRUE(ping.ParseFromArray(ping_bytes, kPingBytes));
  EXPECT_EQ(ping.opaque(), 0x0102030405060708u);
  EXPECT_EQ(ping.SerializeAsString(), std::string(ping_bytes, kPingBytes));
  uint64_t opaque = 0;
  ASSERT_TRUE(ReadPing(absl::MakeConstSpan(ping_bytes), opaque));
  EXPECT_EQ(opaque, 0x0102030405060708u);

  wire::GoAway go_away;
  ASSERT_TRUE(go_away.ParseFromString(MakeGoAway(77, absl::InternalError("bad"))));
  EXPECT_EQ(go_away.last_call(), 77u);
  EXPECT_EQ(go_away.code(), 13u);
  const std::string go_away_bytes = go_away.SerializeAsString();
  GoAway read_go_away;
  ASSERT_TRUE(ReadGoAway(Span(go_away_bytes), read_go_away));
  EXPECT_EQ(read_go_away.last, 77u);
  EXPECT_EQ(read_go_away.status, absl::InternalError("bad"));
  EXPECT_EQ(MakeGoAway(0, absl::OkStatus()), "");
}

TEST(Control, AResetIsNeverOk) {
  Reset reset;
  ASSERT_TRUE(ReadReset({}, reset));
  EXPECT_EQ(reset.status.code(), absl::StatusCode::kUnknown);
  EXPECT_EQ(absl::BytesToHexString(MakeReset(absl::OkStatus(), false)), "0801") << "CANCELLED";
}

TEST(Control, RefusesNumbersThatDoNotFit) {
  GoAway go_away;
  const std::string last = Unhex(
      "0880808080"
      "10");  // 2^32
  EXPECT_FALSE(ReadGoAway(Span(last), go_away));
}

}  // namespace
}  // namespace troupe::native
