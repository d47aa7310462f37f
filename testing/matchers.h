// Matchers for statuses and messages, and assertions that work inside a coroutine.
//
//   ASSERT_OK(status_or);   EXPECT_OK(status);
//   EXPECT_THAT(got, IsOkAndHolds(EqualsProto(R"pb(value: "v")pb")));
//   EXPECT_THAT(got, StatusIs(absl::StatusCode::kNotFound, HasSubstr("no such key")));
//   CO_ASSERT_OK(status);   CO_ASSERT_TRUE(ok);   CO_ASSERT_THAT(value, Eq(3));      in a coroutine that returns
//   Task<void>
//
// GoogleTest's own ASSERT_* return from the function and do not compile in a coroutine.
#ifndef TROUPE_TESTING_MATCHERS_H_
#define TROUPE_TESTING_MATCHERS_H_

#include <ostream>
#include <string>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "google/protobuf/message.h"
#include "google/protobuf/text_format.h"
#include "google/protobuf/util/message_differencer.h"
#include "gtest/gtest.h"

namespace troupe::testing {

namespace internal {

inline const absl::Status& GetStatus(const absl::Status& status) { return status; }
template <class T>
const absl::Status& GetStatus(const absl::StatusOr<T>& value) {
  return value.status();
}

// Of absl::Status and absl::StatusOr<T>.
class IsOkMatcher {
 public:
  using is_gtest_matcher = void;
  template <class T>
  bool MatchAndExplain(const T& value, ::testing::MatchResultListener* listener) const {
    const absl::Status& status = GetStatus(value);
    if (!status.ok()) *listener << "which is " << status;
    return status.ok();
  }
  void DescribeTo(std::ostream* os) const { *os << "is OK"; }
  void DescribeNegationTo(std::ostream* os) const { *os << "is not OK"; }
};

class StatusIsMatcher {
 public:
  using is_gtest_matcher = void;
  StatusIsMatcher(::testing::Matcher<absl::StatusCode> code, ::testing::Matcher<const std::string&> message)
      : code_(std::move(code)), message_(std::move(message)) {}
  template <class T>
  bool MatchAndExplain(const T& value, ::testing::MatchResultListener* listener) const {
    const absl::Status& status = GetStatus(value);
    *listener << "which is " << status;
    return code_.Matches(status.code()) && message_.Matches(std::string(status.message()));
  }
  void DescribeTo(std::ostream* os) const {
    *os << "has a code that ";
    code_.DescribeTo(os);
    *os << " and a message that ";
    message_.DescribeTo(os);
  }
  void DescribeNegationTo(std::ostream* os) const {
    *os << "not (";
    DescribeTo(os);
    *os << ")";
  }

 private:
  ::testing::Matcher<absl::StatusCode> code_;
  ::testing::Matcher<const std::string&> message_;
};

template <class Inner>
class IsOkAndHoldsMatcher {
 public:
  using is_gtest_matcher = void;
  explicit IsOkAndHoldsMatcher(Inner inner) : inner_(std::move(inner)) {}
  template <class T>
  bool MatchAndExplain(const absl::StatusOr<T>& value, ::testing::MatchResultListener* listener) const {
    if (!value.ok()) {
      *listener << "which is " << value.status();
      return false;
    }
    return ::testing::SafeMatcherCast<const T&>(inner_).MatchAndExplain(*value, listener);
  }
  void DescribeTo(std::ostream* os) const { *os << "is OK and holds what is wanted"; }
  void DescribeNegationTo(std::ostream* os) const { *os << "is not OK or holds something else"; }

 private:
  Inner inner_;
};

class EqualsProtoMatcher {
 public:
  using is_gtest_matcher = void;
  explicit EqualsProtoMatcher(std::string text) : text_(std::move(text)) {}
  template <class M>
  bool MatchAndExplain(const M& message, ::testing::MatchResultListener* listener) const {
    M wanted;
    if (!google::protobuf::TextFormat::ParseFromString(text_, &wanted)) {
      *listener << "the expected text is not a " << M::descriptor()->full_name();
      return false;
    }
    std::string differences;
    google::protobuf::util::MessageDifferencer differencer;
    differencer.ReportDifferencesToString(&differences);
    if (differencer.Compare(wanted, message)) return true;
    *listener << "with the differences\n" << differences;
    return false;
  }
  void DescribeTo(std::ostream* os) const { *os << "equals the message {" << text_ << "}"; }
  void DescribeNegationTo(std::ostream* os) const { *os << "differs from the message {" << text_ << "}"; }

 private:
  std::string text_;
};

// As a value, so that a coroutine can test it after the expression is over.
template <class Matcher, class Value>
::testing::AssertionResult Matches(const char* expression, const Matcher& matcher, const Value& value) {
  return ::testing::internal::MakePredicateFormatterFromMatcher(matcher)(expression, value);
}

}  // namespace internal

inline internal::IsOkMatcher IsOk() { return {}; }
inline internal::StatusIsMatcher StatusIs(::testing::Matcher<absl::StatusCode> code,
                                          ::testing::Matcher<const std::string&> message = ::testing::_) {
  return {std::move(code), std::move(message)};
}
template <class Inner>
internal::IsOkAndHoldsMatcher<std::decay_t<Inner>> IsOkAndHolds(Inner&& inner) {
  return internal::IsOkAndHoldsMatcher<std::decay_t<Inner>>(std::forward<Inner>(inner));
}
// Compares with a message in text format; unset and default are different in proto2, as MessageDifferencer has it.
inline internal::EqualsProtoMatcher EqualsProto(absl::string_view text) {
  return internal::EqualsProtoMatcher(std::string(text));
}
inline internal::EqualsProtoMatcher EqualsProto(const google::protobuf::Message& message) {
  std::string text;
  google::protobuf::TextFormat::PrintToString(message, &text);
  return internal::EqualsProtoMatcher(std::move(text));
}

}  // namespace troupe::testing

#define EXPECT_OK(...) EXPECT_THAT((__VA_ARGS__), ::troupe::testing::IsOk())
#define ASSERT_OK(...) ASSERT_THAT((__VA_ARGS__), ::troupe::testing::IsOk())

#define TROUPE_CO_ASSERT_(...)                                                                      \
  if (const ::testing::AssertionResult troupe_result_ = (__VA_ARGS__); !troupe_result_) {           \
    ::testing::internal::AssertHelper(::testing::TestPartResult::kFatalFailure, __FILE__, __LINE__, \
                                      troupe_result_.failure_message()) = ::testing::Message();     \
    co_return;                                                                                      \
  } else                                                                                            \
    static_cast<void>(0)

#define CO_ASSERT_TRUE(...)                                                           \
  TROUPE_CO_ASSERT_(static_cast<bool>(__VA_ARGS__) ? ::testing::AssertionSuccess()    \
                                                   : ::testing::AssertionFailure()    \
                                                         << "Value of: " #__VA_ARGS__ \
                                                            "\n  Actual: false\nExpected: true")
#define CO_ASSERT_FALSE(...)                                                           \
  TROUPE_CO_ASSERT_(!static_cast<bool>(__VA_ARGS__) ? ::testing::AssertionSuccess()    \
                                                    : ::testing::AssertionFailure()    \
                                                          << "Value of: " #__VA_ARGS__ \
                                                             "\n  Actual: true\nExpected: false")
#define CO_ASSERT_THAT(value, matcher) \
  TROUPE_CO_ASSERT_(::troupe::testing::internal::Matches(#value, (matcher), (value)))
#define CO_ASSERT_OK(...) CO_ASSERT_THAT((__VA_ARGS__), ::troupe::testing::IsOk())
#define CO_ASSERT_EQ(a, b) CO_ASSERT_THAT((a), ::testing::Eq(b))

#endif  // TROUPE_TESTING_MATCHERS_H_
