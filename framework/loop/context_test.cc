// Context and ContextVar: values that travel and do not leak.
#include "troupe/loop/context.h"

#include <string>
#include <thread>

#include "gtest/gtest.h"

namespace troupe {
namespace {

const ContextVar<std::string> kName("nobody");
const ContextVar<int> kNumber(0);

TEST(Context, AVariableHasAValuePerContext) {
  Context kept;
  Context().Run([&] {
    EXPECT_EQ(kName.Get(), "nobody");
    kName.Set("outer");
    kept = Context::Current();
    kName.Set("changed after the copy");
    Context::Current().Run([] {
      kName.Set("inner");
      EXPECT_EQ(kName.Get(), "inner");
    });
    EXPECT_EQ(kName.Get(), "changed after the copy");
  });
  EXPECT_EQ(kName.Get(), "nobody");
  kept.Run([] { EXPECT_EQ(kName.Get(), "outer"); });
}

TEST(Context, VariablesAreIndependent) {
  Context().Run([] {
    kName.Set("x");
    EXPECT_EQ(kNumber.Get(), 0);
    kNumber.Set(3);
    kNumber.Set(4);
    EXPECT_EQ(kName.Get(), "x");
    EXPECT_EQ(kNumber.Get(), 4);
  });
}

TEST(Context, TheEarlierDeadlineStaysInForce) {
  const Context none;
  EXPECT_TRUE(none.deadline().is_infinite());
  const Context ten = none.WithDeadline(MonotonicTime::FromNanos(10));
  EXPECT_EQ(ten.deadline(), MonotonicTime::FromNanos(10));
  EXPECT_EQ(ten.WithDeadline(MonotonicTime::FromNanos(20)).deadline(), MonotonicTime::FromNanos(10));
  EXPECT_EQ(ten.WithDeadline(MonotonicTime::FromNanos(5)).deadline(), MonotonicTime::FromNanos(5));
  EXPECT_TRUE(ten.WithoutDeadline().deadline().is_infinite());
  EXPECT_TRUE(none.deadline().is_infinite());
  EXPECT_EQ(ten.deadline(), MonotonicTime::FromNanos(10));
}

TEST(Context, ADerivedContextKeepsTheRest) {
  Context context;
  Context().Run([&] {
    kName.Set("kept");
    context = Context::Current().WithDeadline(MonotonicTime::FromNanos(10));
  });
  TraceContext trace;
  trace.trace_id_low = 1;
  trace.span_id = 2;
  trace.state = "a=b";
  const Context traced = context.WithTrace(trace);
  EXPECT_FALSE(context.trace().valid());
  EXPECT_TRUE(traced.trace().valid());
  EXPECT_EQ(traced.WithoutDeadline().trace().state, "a=b");
  traced.WithoutDeadline().Run([] { EXPECT_EQ(kName.Get(), "kept"); });
}

TEST(Context, AScopeKeepsWhatWasSetInIt) {
  Context context;
  {
    ContextScope scope(context);
    kNumber.Set(7);
  }
  EXPECT_EQ(kNumber.Get(), 0);
  {
    ContextScope scope(context);
    EXPECT_EQ(kNumber.Get(), 7);
  }
}

TEST(Context, MayBeHandedToAnotherThread) {
  Context context;
  context.Run([&] {
    kNumber.Set(1);
    context = Context::Current();
  });
  std::thread other([context] {
    context.Run([] {
      EXPECT_EQ(kNumber.Get(), 1);
      kNumber.Set(2);
      EXPECT_EQ(kNumber.Get(), 2);
    });
    EXPECT_EQ(kNumber.Get(), 0);
  });
  context.Run([] {
    kNumber.Set(3);
    EXPECT_EQ(kNumber.Get(), 3);
  });
  other.join();
  context.Run([] { EXPECT_EQ(kNumber.Get(), 1); });
}

}  // namespace
}  // namespace troupe
