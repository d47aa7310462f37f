#include "tally/tally_service.h"

#include <cstdint>
#include <functional>
#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/testing/in_process.h"
#include "troupe/testing/matchers.h"

namespace tally {
namespace {

using ::testing::HasSubstr;
using ::troupe::testing::EqualsProto;
using ::troupe::testing::InProcess;
using ::troupe::testing::IsOkAndHolds;
using ::troupe::testing::StatusIs;

AddRequest Amount(std::string name, int64_t amount) {
  AddRequest request;
  request.set_name(std::move(name));
  request.set_amount(amount);
  return request;
}

class TallyServiceTest : public ::testing::Test {
 protected:
  Sums sums_;
  InProcess<TallyService> service_{std::ref(sums_)};
  TallyStub tally_ = service_.stub();
};

TEST_F(TallyServiceTest, AddsToTheSumOfAName) {
  EXPECT_THAT(service_.Run(tally_.Add(Amount("apples", 3))), IsOkAndHolds(EqualsProto("sum: 3")));
  EXPECT_THAT(service_.Run(tally_.Add(Amount("pears", 5))), IsOkAndHolds(EqualsProto("sum: 5")));
  EXPECT_THAT(service_.Run(tally_.Add(Amount("apples", -1))), IsOkAndHolds(EqualsProto("sum: 2")));
}

TEST_F(TallyServiceTest, RefusesASumWithoutAName) {
  EXPECT_THAT(service_.Run(tally_.Add(Amount("", 1))),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("needs a name")));
  EXPECT_TRUE(sums_.empty());
}

TEST_F(TallyServiceTest, ListsEverySumInOrder) {
  sums_ = {{"b", 2}, {"a", 1}};
  auto list = tally_.List(ListRequest());
  Sum sum;
  EXPECT_TRUE(service_.Run([&] { return list.Read(sum); }));
  EXPECT_THAT(sum, EqualsProto(R"pb(name: "a" sum: 1)pb"));
  EXPECT_TRUE(service_.Run([&] { return list.Read(sum); }));
  EXPECT_THAT(sum, EqualsProto(R"pb(name: "b" sum: 2)pb"));
  EXPECT_FALSE(service_.Run([&] { return list.Read(sum); }));
  EXPECT_OK(service_.Run([&] { return list.Finish(); }));
}

}  // namespace
}  // namespace tally
