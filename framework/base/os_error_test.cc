#include "troupe/base/os_error.h"

#include <cerrno>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace troupe {
namespace {

using ::testing::HasSubstr;

TEST(OsError, SaysWhatFailedAndWhyInTheSystemsWords) {
  const absl::Status status = OsError(EADDRINUSE, "bind [::1]:7400");
  EXPECT_EQ(status.message(), "bind [::1]:7400: Address already in use");
}

TEST(OsError, TakesBothSignsAndKeepsTheNumber) {
  EXPECT_EQ(ErrnoOf(OsError(-ECONNRESET, "read")), ECONNRESET);
  EXPECT_EQ(ErrnoOf(OsError(ECONNRESET, "read")), ECONNRESET);
}

TEST(OsError, WhatBreaksAConnectionIsUnavailable) {
  for (const int error : {EPIPE, ECONNRESET, ECONNREFUSED, ECONNABORTED, ETIMEDOUT, ENOTCONN, EHOSTUNREACH, ENETUNREACH,
                          ENETDOWN, ESHUTDOWN}) {
    EXPECT_EQ(OsError(error, "x").code(), absl::StatusCode::kUnavailable) << ErrnoText(error);
  }
}

TEST(OsError, TheRestKeepsItsOwnCode) {
  EXPECT_EQ(OsError(EMFILE, "accept").code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(OsError(EACCES, "bind").code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(OsError(EINVAL, "bind").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(OsError(EADDRINUSE, "bind").code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(OsError(EADDRNOTAVAIL, "bind").code(), absl::StatusCode::kFailedPrecondition);
}

TEST(OsError, AStatusFromElsewhereHasNoNumber) {
  EXPECT_EQ(ErrnoOf(absl::OkStatus()), 0);
  EXPECT_EQ(ErrnoOf(absl::UnavailableError("Connection reset by peer")), 0);
}

}  // namespace
}  // namespace troupe
