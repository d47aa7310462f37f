#include "troupe/wire/grpc/headers.h"

#include <algorithm>
#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/cord.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "troupe/wire/codec.h"
#include "troupe/wire/native/frame.h"

namespace troupe::grpc_wire {
namespace {

constexpr absl::string_view kTravels = "type.googleapis.com/";
constexpr int64_t kTimeoutMost = 99'999'999;
constexpr int kDetailsMax = 100;

}  // namespace

absl::optional<absl::Duration> ParseTimeout(absl::string_view text) {
  if (text.size() < 2 || text.size() > 9) return absl::nullopt;
  int64_t amount = 0;
  for (const char c : text.substr(0, text.size() - 1)) {
    if (!absl::ascii_isdigit(static_cast<unsigned char>(c))) return absl::nullopt;
    amount = amount * 10 + (c - '0');
  }
  switch (text.back()) {
    case 'H':
      return absl::Hours(amount);
    case 'M':
      return absl::Minutes(amount);
    case 'S':
      return absl::Seconds(amount);
    case 'm':
      return absl::Milliseconds(amount);
    case 'u':
      return absl::Microseconds(amount);
    case 'n':
      return absl::Nanoseconds(amount);
    default:
      return absl::nullopt;
  }
}

std::string FormatTimeout(absl::Duration timeout) {
  if (timeout <= absl::ZeroDuration()) return "0n";
  const struct {
    absl::Duration unit;
    char name;
  } units[] = {{absl::Nanoseconds(1), 'n'}, {absl::Microseconds(1), 'u'}, {absl::Milliseconds(1), 'm'},
               {absl::Seconds(1), 'S'},     {absl::Minutes(1), 'M'},      {absl::Hours(1), 'H'}};
  for (const auto& [unit, name] : units) {
    absl::Duration rest;
    int64_t amount = absl::IDivDuration(timeout, unit, &rest);
    if (rest > absl::ZeroDuration() && amount < std::numeric_limits<int64_t>::max()) ++amount;
    if (amount <= kTimeoutMost) return absl::StrCat(amount, absl::string_view(&name, 1));
  }
  return absl::StrCat(kTimeoutMost, "H");
}

std::string EncodeMessage(absl::string_view message) {
  std::string text;
  for (size_t i = 0; i < message.size(); ++i) {
    const char c = message[i];
    // RFC 9113, section 8.2.1: no value begins or ends with a space.
    const bool edge = i == 0 || i + 1 == message.size();
    if (c >= ' ' && c <= '~' && c != '%' && !(c == ' ' && edge)) {
      text.push_back(c);
    } else {
      constexpr char kDigits[] = "0123456789ABCDEF";
      const auto byte = static_cast<unsigned char>(c);
      text.push_back('%');
      text.push_back(kDigits[byte >> 4]);
      text.push_back(kDigits[byte & 15]);
    }
  }
  return text;
}

std::string DecodeMessage(absl::string_view text) {
  std::string message;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto is_digit = [&](size_t at) {
      return at < text.size() && absl::ascii_isxdigit(static_cast<unsigned char>(text[at]));
    };
    if (text[i] == '%' && is_digit(i + 1) && is_digit(i + 2)) {
      message += absl::HexStringToBytes(text.substr(i + 1, 2));
      i += 2;
    } else {
      message.push_back(text[i]);
    }
  }
  return message;
}

std::string EncodeBinary(absl::string_view value) {
  std::string text = absl::Base64Escape(value);
  while (!text.empty() && text.back() == '=') text.pop_back();
  return text;
}

bool DecodeBinary(absl::string_view text, std::string& value) {
  // Abseil takes white space and URL-safe characters too, which nobody sends; they do no harm.
  return absl::Base64Unescape(text, &value);
}

bool IsGrpcContentType(absl::string_view type) {
  if (!absl::ConsumePrefix(&type, "application/grpc")) return false;
  if (absl::ConsumePrefix(&type, "+")) {
    const absl::string_view subtype = type.substr(0, type.find(';'));
    return absl::StripTrailingAsciiWhitespace(subtype) == "proto";
  }
  return type.empty() || type.front() == ';' || type.front() == ' ';
}

absl::StatusCode ParseStatusCode(absl::string_view text) {
  uint32_t code = 0;
  if (!absl::SimpleAtoi(text, &code) || code > static_cast<uint32_t>(absl::StatusCode::kUnauthenticated)) {
    return absl::StatusCode::kUnknown;
  }
  return static_cast<absl::StatusCode>(code);
}

absl::Status StatusOfHttp(int http_status) {
  const std::string text = absl::StrCat("the server answered with HTTP status ", http_status);
  switch (http_status) {
    case 400:
    case 431:
      return absl::InternalError(text);
    case 401:
      return absl::UnauthenticatedError(text);
    case 403:
      return absl::PermissionDeniedError(text);
    case 404:
      return absl::UnimplementedError(text);
    case 429:
    case 502:
    case 503:
    case 504:
      return absl::UnavailableError(text);
    default:
      return absl::UnknownError(text);
  }
}

absl::Status StatusOfReset(uint32_t error) {
  const std::string text = absl::StrCat("the peer reset the stream with HTTP/2 error ", error);
  switch (static_cast<Http2Error>(error)) {
    case Http2Error::kRefusedStream: {
      absl::Status refused = absl::UnavailableError(text);
      refused.SetPayload(kNotStartedPayload, absl::Cord());
      return refused;
    }
    case Http2Error::kCancel:
      return absl::CancelledError(text);
    case Http2Error::kEnhanceYourCalm:
      return absl::ResourceExhaustedError(text);
    case Http2Error::kInadequateSecurity:
      return absl::PermissionDeniedError(text);
    case Http2Error::kHttp11Required:
      return absl::UnknownError(text);
    default:
      return absl::InternalError(text);
  }
}

Http2Error ResetErrorOf(const absl::Status& why) {
  // Who has too little is told so: REFUSED_STREAM would be UNAVAILABLE, and sent again at once.
  const bool not_started = why.GetPayload(kNotStartedPayload).has_value();
  if (not_started && !absl::IsResourceExhausted(why)) return Http2Error::kRefusedStream;
  switch (why.code()) {
    case absl::StatusCode::kOk:
      return Http2Error::kNoError;
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kDeadlineExceeded:
      return Http2Error::kCancel;
    case absl::StatusCode::kResourceExhausted:
      return Http2Error::kEnhanceYourCalm;
    case absl::StatusCode::kUnavailable:
      return Http2Error::kCancel;
    default:
      return Http2Error::kInternalError;
  }
}

Http2Error GoAwayErrorOf(const absl::Status& why) {
  switch (why.code()) {
    case absl::StatusCode::kOk:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kUnavailable:
      return Http2Error::kNoError;
    case absl::StatusCode::kResourceExhausted:
      return Http2Error::kEnhanceYourCalm;
    case absl::StatusCode::kInvalidArgument:
      return Http2Error::kProtocolError;
    default:
      return Http2Error::kInternalError;
  }
}

std::string EncodeDetails(const absl::Status& status) {
  bool any = false;
  status.ForEachPayload([&any](absl::string_view url, const absl::Cord&) { any |= absl::StartsWith(url, kTravels); });
  // The end of a native call begins with the fields of google.rpc.Status.
  return any ? native::MakeEndHead(status, nullptr) : std::string();
}

void DecodeDetails(absl::string_view bytes, absl::Status& status) {
  native::EndHead head;
  const native::MetadataLimits limits = {.bytes_max = bytes.size(), .entries_max = kDetailsMax};
  if (!native::ReadEndHead(absl::MakeConstSpan(bytes.data(), bytes.size()), limits, head)) return;
  head.status.ForEachPayload([&status](absl::string_view url, const absl::Cord& value) {
    if (absl::StartsWith(url, kTravels)) status.SetPayload(url, value);
  });
}

}  // namespace troupe::grpc_wire
