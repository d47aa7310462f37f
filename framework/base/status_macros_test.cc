#include "troupe/base/status_macros.h"

#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gtest/gtest.h"

namespace troupe {
namespace {

// Counts its evaluations, and gives what it was made with.
struct Source {
  absl::Status Status() {
    ++evaluated;
    return status;
  }
  absl::StatusOr<std::string> Value() {
    ++evaluated;
    if (!status.ok()) return status;
    return std::string("value");
  }
  absl::Status status;
  int evaluated = 0;
};

absl::Status Forward(Source& source, bool& went_on) {
  RETURN_IF_ERROR(source.Status());
  RETURN_IF_ERROR(source.Value());  // what it holds is dropped
  went_on = true;
  return absl::OkStatus();
}

TEST(ReturnIfError, GoesOnWhenOk) {
  Source source;
  bool went_on = false;
  EXPECT_TRUE(Forward(source, went_on).ok());
  EXPECT_TRUE(went_on);
  EXPECT_EQ(source.evaluated, 2);
}

TEST(ReturnIfError, LeavesWithTheErrorAndEvaluatesOnce) {
  Source source{absl::NotFoundError("gone")};
  bool went_on = false;
  EXPECT_EQ(Forward(source, went_on), absl::NotFoundError("gone"));
  EXPECT_FALSE(went_on);
  EXPECT_EQ(source.evaluated, 1);
}

absl::StatusOr<size_t> Length(Source& source) {
  ASSIGN_OR_RETURN(const std::string text, source.Value());
  std::string again;
  ASSIGN_OR_RETURN(again, source.Value());  // an existing variable, and the second of a function
  return text.size() + again.size();
}

TEST(AssignOrReturn, AssignsOrLeaves) {
  Source good, bad{absl::InternalError("broken")};
  EXPECT_EQ(Length(good).value(), 10u);
  EXPECT_EQ(good.evaluated, 2);
  EXPECT_EQ(Length(bad).status(), absl::InternalError("broken"));
  EXPECT_EQ(bad.evaluated, 1);
}

absl::StatusOr<std::unique_ptr<int>> Make(int n) { return std::make_unique<int>(n); }

absl::StatusOr<int> Unwrap() {
  ASSIGN_OR_RETURN(const std::unique_ptr<int> owned, Make(7));
  ASSIGN_OR_RETURN(const auto both, absl::StatusOr<std::pair<int, int>>(std::pair(1, 2)));
  return *owned + both.first + both.second;
}

TEST(AssignOrReturn, MovesAndTakesExpressionsWithCommas) { EXPECT_EQ(Unwrap().value(), 10); }

absl::Status InBranches(bool choose, Source& source) {
  if (choose)
    RETURN_IF_ERROR(source.Status());
  else
    return absl::UnknownError("the other branch");
  return absl::OkStatus();
}

TEST(ReturnIfError, IsOneStatement) {
  Source source;
  EXPECT_TRUE(InBranches(true, source).ok());
  EXPECT_EQ(InBranches(false, source), absl::UnknownError("the other branch"));
}

}  // namespace
}  // namespace troupe
