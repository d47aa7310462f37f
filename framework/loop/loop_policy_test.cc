// Which loop a thread has. Threads are made here, so that each test finds one as new as the process's main thread was.
#include "troupe/loop/loop_policy.h"

#include <pthread.h>

#include <memory>
#include <string>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/base/errors.h"
#include "troupe/loop/event_loop.h"
#include "troupe/os/posix_os.h"

namespace troupe {
namespace {

// What GetEventLoop throws; "" if it gives a loop.
std::string Refusal() {
  try {
    GetEventLoop();
  } catch (const InvalidState& error) {
    return error.what();
  }
  return "";
}

template <class F>
void InAThread(F f) {
  std::thread([&] {
    pthread_setname_np(pthread_self(), "worker");
    f();
  }).join();
}

// Makes the loops of whoever installs it, and counts them.
struct Counting final : LoopPolicy {
  std::unique_ptr<EventLoop> NewLoop() override {
    ++made;
    return std::make_unique<EventLoop>(PosixOs::Get());
  }
  int made = 0;
};

// C-POL-03. The first test: the main thread's loop can be made once.
TEST(LoopPolicyTest, OnlyTheMainThreadGetsALoopMadeForIt) {
  InAThread([] { EXPECT_EQ(Refusal(), "There is no current event loop in thread 'worker'."); });
  const auto policy = std::make_shared<Counting>();
  SetLoopPolicy(policy);
  EventLoop& loop = GetEventLoop();
  EXPECT_EQ(&GetEventLoop(), &loop);
  EXPECT_EQ(policy->made, 1);
  EXPECT_THROW(EventLoop::Current(), InvalidState) << "it does not run";
  InAThread([] { EXPECT_NE(Refusal(), ""); });
  SetEventLoop(nullptr);
  EXPECT_THAT(Refusal(), ::testing::StartsWith("There is no current event loop in thread"));
  EXPECT_EQ(policy->made, 1) << "something was set";
  SetLoopPolicy(nullptr);
  loop.Close();
}

// C-POL-03
TEST(LoopPolicyTest, ALoopIsSetForItsThreadUntilItIsDestroyed) {
  InAThread([] {
    auto loop = NewEventLoop();
    EXPECT_NE(Refusal(), "") << "made is not set";
    SetEventLoop(loop.get());
    EXPECT_EQ(&GetEventLoop(), loop.get());
    InAThread([] { EXPECT_NE(Refusal(), ""); });
    const auto other = NewEventLoop();
    SetEventLoop(other.get());
    loop->Close();
    loop.reset();
    EXPECT_EQ(&GetEventLoop(), other.get()) << "another's end changes nothing";
    SetEventLoop(nullptr);
    EXPECT_NE(Refusal(), "");
    SetEventLoop(other.get());
    other->Close();
    EXPECT_EQ(&GetEventLoop(), other.get()) << "closed, and still there";
  });
  InAThread([] {
    auto loop = NewEventLoop();
    SetEventLoop(loop.get());
    loop->Close();
    loop.reset();
    EXPECT_NE(Refusal(), "");
  });
}

// C-POL-01
TEST(LoopPolicyTest, InACallbackItIsTheLoopThatRunsWhateverWasSet) {
  InAThread([] {
    EventLoop set(PosixOs::Get()), running(PosixOs::Get());
    SetEventLoop(&set);
    running.CallSoon([&] {
      EXPECT_EQ(&GetEventLoop(), &running);
      EXPECT_EQ(&EventLoop::Current(), &running);
      running.Stop();
    });
    running.RunForever();
    EXPECT_EQ(&GetEventLoop(), &set);
    set.Close();
    running.Close();
  });
}

TEST(LoopPolicyTest, ThePolicyMakesTheLoopsUntilThereIsNone) {
  const auto policy = std::make_shared<Counting>();
  SetLoopPolicy(policy);
  InAThread([] { NewEventLoop()->Close(); });
  EXPECT_EQ(policy->made, 1);
  SetLoopPolicy(nullptr);
  EXPECT_EQ(policy.use_count(), 1);
  NewEventLoop()->Close();
  EXPECT_EQ(policy->made, 1);
}

}  // namespace
}  // namespace troupe
