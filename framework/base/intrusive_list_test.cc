#include "troupe/base/intrusive_list.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

struct Other {};

struct Item : ListNode<>, ListNode<Other> {
  explicit Item(int n) : n(n) {}
  int n;
};
using List = IntrusiveList<Item>;
using OtherList = IntrusiveList<Item, Other>;

template <class AnyList>
std::vector<int> Numbers(AnyList& list) {
  std::vector<int> numbers;
  for (Item& item : list) numbers.push_back(item.n);
  return numbers;
}

bool IsLinked(const Item& item) { return static_cast<const ListNode<>&>(item).linked(); }
void Unlink(Item& item) { static_cast<ListNode<>&>(item).Unlink(); }

TEST(IntrusiveList, KeepsTheOrderOfBothEnds) {
  List list;
  EXPECT_TRUE(list.empty());
  EXPECT_THAT(Numbers(list), IsEmpty());
  Item a(1), b(2), c(3);
  list.PushBack(b);
  list.PushBack(c);
  list.PushFront(a);
  EXPECT_FALSE(list.empty());
  EXPECT_THAT(Numbers(list), ElementsAre(1, 2, 3));
  EXPECT_EQ(list.front().n, 1);
  EXPECT_EQ(list.back().n, 3);
  EXPECT_EQ(&list.PopFront(), &a);
  EXPECT_FALSE(IsLinked(a));
  EXPECT_THAT(Numbers(list), ElementsAre(2, 3));
}

TEST(IntrusiveList, ElementsLeaveFromAnywhere) {
  List list;
  Item a(1), b(2), c(3);
  for (Item* item : {&a, &b, &c}) list.PushBack(*item);
  Unlink(b);
  EXPECT_THAT(Numbers(list), ElementsAre(1, 3));
  Unlink(b);  // again: nothing
  Unlink(c);
  Unlink(a);
  EXPECT_TRUE(list.empty());
  list.PushBack(b);
  EXPECT_THAT(Numbers(list), ElementsAre(2));
}

TEST(IntrusiveList, ADestroyedElementLeaves) {
  List list;
  Item a(1);
  list.PushBack(a);
  {
    Item b(2);
    list.PushBack(b);
    EXPECT_THAT(Numbers(list), ElementsAre(1, 2));
  }
  EXPECT_THAT(Numbers(list), ElementsAre(1));
}

TEST(IntrusiveList, ADestroyedListUnlinksItsElements) {
  Item a(1), b(2);
  {
    List list;
    list.PushBack(a);
    list.PushBack(b);
    EXPECT_TRUE(IsLinked(a));
  }
  EXPECT_FALSE(IsLinked(a));
  EXPECT_FALSE(IsLinked(b));
  List again;
  again.PushBack(b);
  again.PushBack(a);
  EXPECT_THAT(Numbers(again), ElementsAre(2, 1));
}

TEST(IntrusiveList, SplicingMovesAllAndEmptiesTheOther) {
  List list, more, none;
  Item a(1), b(2), c(3), d(4);
  list.PushBack(b);
  more.PushBack(c);
  more.PushBack(d);
  list.SpliceBack(more);
  EXPECT_TRUE(more.empty());
  EXPECT_THAT(Numbers(list), ElementsAre(2, 3, 4));
  more.PushBack(a);
  list.SpliceFront(more);
  EXPECT_TRUE(more.empty());
  EXPECT_THAT(Numbers(list), ElementsAre(1, 2, 3, 4));
  list.SpliceBack(none);
  list.SpliceFront(none);
  EXPECT_THAT(Numbers(list), ElementsAre(1, 2, 3, 4));
  none.SpliceBack(list);
  EXPECT_TRUE(list.empty());
  EXPECT_THAT(Numbers(none), ElementsAre(1, 2, 3, 4));
}

TEST(IntrusiveList, OneElementStandsInAListPerTag) {
  List list;
  OtherList other;
  Item a(1), b(2);
  list.PushBack(a);
  list.PushBack(b);
  other.PushBack(b);
  other.PushBack(a);
  EXPECT_THAT(Numbers(list), ElementsAre(1, 2));
  EXPECT_THAT(Numbers(other), ElementsAre(2, 1));
  Unlink(a);
  EXPECT_THAT(Numbers(list), ElementsAre(2));
  EXPECT_THAT(Numbers(other), ElementsAre(2, 1));
}

TEST(IntrusiveList, OthersMayLeaveAndComeDuringIteration) {
  List list;
  Item a(1), b(2), c(3), d(4);
  for (Item* item : {&a, &b, &c}) list.PushBack(*item);
  std::vector<int> seen;
  for (Item& item : list) {
    seen.push_back(item.n);
    if (item.n != 2) continue;
    Unlink(a);
    Unlink(c);
    list.PushBack(d);
  }
  EXPECT_THAT(seen, ElementsAre(1, 2, 4));
}

}  // namespace
}  // namespace troupe
