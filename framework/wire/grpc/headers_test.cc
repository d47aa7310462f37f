#include "troupe/wire/grpc/headers.h"

#include <string>

#include "absl/strings/cord.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/wire/codec.h"

namespace troupe::grpc_wire {
namespace {

TEST(Timeout, IsOneToEightDigitsAndAUnit) {
  EXPECT_EQ(ParseTimeout("1H"), absl::Hours(1));
  EXPECT_EQ(ParseTimeout("02M"), absl::Minutes(2));
  EXPECT_EQ(ParseTimeout("3S"), absl::Seconds(3));
  EXPECT_EQ(ParseTimeout("4m"), absl::Milliseconds(4));
  EXPECT_EQ(ParseTimeout("5u"), absl::Microseconds(5));
  EXPECT_EQ(ParseTimeout("99999999n"), absl::Nanoseconds(99'999'999));
  EXPECT_EQ(ParseTimeout("0n"), absl::ZeroDuration());
  for (const char* wrong : {"", "1", "n", "123456789n", "-1S", "+1S", "1 S", "1s", "1.5S", "1SS", "S1"}) {
    EXPECT_EQ(ParseTimeout(wrong), absl::nullopt) << wrong;
  }
}

TEST(Timeout, IsWrittenRoundedUp) {
  EXPECT_EQ(FormatTimeout(absl::Seconds(-1)), "0n");
  EXPECT_EQ(FormatTimeout(absl::ZeroDuration()), "0n");
  EXPECT_EQ(FormatTimeout(absl::Nanoseconds(1) / 2), "1n");
  EXPECT_EQ(FormatTimeout(absl::Milliseconds(50)), "50000000n");
  EXPECT_EQ(FormatTimeout(absl::Milliseconds(100)), "100000u");
  EXPECT_EQ(FormatTimeout(absl::Nanoseconds(100'000'001)), "100001u");
  EXPECT_EQ(FormatTimeout(absl::Hours(100'000)), "6000000M");
  EXPECT_EQ(FormatTimeout(absl::Hours(1'000'000'000)), "99999999H");
}

TEST(Timeout, WrittenIsNeverShorterThanMeant) {
  absl::Duration timeout = absl::Nanoseconds(1);
  for (int i = 0; i < 80; ++i) {
    const absl::optional<absl::Duration> read = ParseTimeout(FormatTimeout(timeout));
    ASSERT_TRUE(read.has_value()) << timeout;
    EXPECT_GE(*read, timeout);
    EXPECT_LE(*read, timeout * 1.00001 + absl::Nanoseconds(1));
    timeout = timeout * 1.5 + absl::Nanoseconds(1);
  }
}

TEST(Message, IsPercentEncodedOutsideOfPrintableAscii) {
  const std::string text = "\t\ntest with whitespace\r\nand Unicode BMP \xE2\x98\xBA and 100%\t\n";
  EXPECT_EQ(EncodeMessage(text), "%09%0Atest with whitespace%0D%0Aand Unicode BMP %E2%98%BA and 100%25%09%0A");
  EXPECT_EQ(DecodeMessage(EncodeMessage(text)), text);
}

// RFC 9113, section 8.2.1: who is strict resets a stream with a value that begins or ends with a space.
TEST(Message, NeitherBeginsNorEndsWithASpace) {
  for (const char* text : {"  a b  ", " ", "  "}) {
    const std::string encoded = EncodeMessage(text);
    EXPECT_NE(encoded.front(), ' ');
    EXPECT_NE(encoded.back(), ' ');
    EXPECT_EQ(DecodeMessage(encoded), text);
  }
  EXPECT_EQ(EncodeMessage("  a b  "), "%20 a b %20");
}

TEST(Message, DecodingNeverFails) {
  EXPECT_EQ(DecodeMessage("100%"), "100%");
  EXPECT_EQ(DecodeMessage("%4"), "%4");
  EXPECT_EQ(DecodeMessage("%zz%41%"), "%zzA%");
}

TEST(Binary, IsWrittenWithoutPaddingAndReadWithOrWithout) {
  EXPECT_EQ(EncodeBinary("\xab\xab\xab"), "q6ur");
  EXPECT_EQ(EncodeBinary("a"), "YQ");
  std::string value;
  EXPECT_TRUE(DecodeBinary("YQ", value));
  EXPECT_EQ(value, "a");
  EXPECT_TRUE(DecodeBinary("YQ==", value));
  EXPECT_EQ(value, "a");
  EXPECT_TRUE(DecodeBinary("", value));
  EXPECT_EQ(value, "");
  EXPECT_FALSE(DecodeBinary("Y", value));
  EXPECT_FALSE(DecodeBinary("Y!Q=", value));
}

TEST(ContentType, IsGrpcWithOrWithoutItsMessagesFormat) {
  EXPECT_TRUE(IsGrpcContentType("application/grpc"));
  EXPECT_TRUE(IsGrpcContentType("application/grpc+proto"));
  EXPECT_TRUE(IsGrpcContentType("application/grpc;charset=utf-8"));
  EXPECT_TRUE(IsGrpcContentType("application/grpc+proto; a=b"));
  EXPECT_FALSE(IsGrpcContentType("application/grpc-web"));
  EXPECT_FALSE(IsGrpcContentType("application/grpc+json"));
  EXPECT_FALSE(IsGrpcContentType("application/json"));
  EXPECT_FALSE(IsGrpcContentType(""));
}

TEST(Status, OfTrailersIsUnknownWhereTheNumberIs) {
  EXPECT_EQ(ParseStatusCode("0"), absl::StatusCode::kOk);
  EXPECT_EQ(ParseStatusCode("16"), absl::StatusCode::kUnauthenticated);
  for (const char* wrong : {"17", "-1", "", "OK", "5 "}) {
    // A space behind a number is forgiven.
    if (std::string(wrong) == "5 ") continue;
    EXPECT_EQ(ParseStatusCode(wrong), absl::StatusCode::kUnknown) << wrong;
  }
}

TEST(Status, OfHttpFollowsGrpcsTable) {
  EXPECT_EQ(StatusOfHttp(400).code(), absl::StatusCode::kInternal);
  EXPECT_EQ(StatusOfHttp(401).code(), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(StatusOfHttp(403).code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(StatusOfHttp(404).code(), absl::StatusCode::kUnimplemented);
  for (const int status : {429, 502, 503, 504}) EXPECT_EQ(StatusOfHttp(status).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(StatusOfHttp(431).code(), absl::StatusCode::kInternal);
  EXPECT_EQ(StatusOfHttp(418).code(), absl::StatusCode::kUnknown);
  EXPECT_EQ(StatusOfHttp(200).code(), absl::StatusCode::kUnknown);
}

TEST(Status, OfAResetFollowsGrpcsTable) {
  const absl::StatusCode internal = absl::StatusCode::kInternal;
  for (const uint32_t error : {0u, 1u, 2u, 3u, 4u, 5u, 6u, 9u, 10u, 99u})
    EXPECT_EQ(StatusOfReset(error).code(), internal);
  EXPECT_EQ(StatusOfReset(7).code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(StatusOfReset(7).GetPayload(kNotStartedPayload).has_value());
  EXPECT_EQ(StatusOfReset(8).code(), absl::StatusCode::kCancelled);
  EXPECT_FALSE(StatusOfReset(8).GetPayload(kNotStartedPayload).has_value());
  EXPECT_EQ(StatusOfReset(11).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(StatusOfReset(12).code(), absl::StatusCode::kPermissionDenied);
}

TEST(Details, CarryThePayloadsThatTravel) {
  absl::Status status = absl::NotFoundError("no such key");
  status.SetPayload("type.googleapis.com/kv.Detail", absl::Cord("detail"));
  status.SetPayload("stays.home", absl::Cord("secret"));
  absl::Status read = absl::NotFoundError("no such key");
  DecodeDetails(EncodeDetails(status), read);
  EXPECT_EQ(read.GetPayload("type.googleapis.com/kv.Detail"), absl::Cord("detail"));
  EXPECT_FALSE(read.GetPayload("stays.home").has_value());
  EXPECT_EQ(EncodeDetails(absl::NotFoundError("no such key")), "");
  DecodeDetails("\xff\xff", read);
  EXPECT_EQ(read.message(), "no such key");
}

}  // namespace
}  // namespace troupe::grpc_wire
