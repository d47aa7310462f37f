// DumpTasks, and the dump of a loop in which nothing can ever happen again.
#include "troupe/async/dump_tasks.h"

#include <string>

#include "troupe/async/event.h"
#include "troupe/async/gather.h"
#include "troupe/async/sleep.h"
#include "troupe/async/task.h"
#include "troupe/loop/loop_testing.h"

namespace troupe {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;

using DumpTasksTest = LoopTest;
INSTANTIATE_POLLING(DumpTasksTest);

Task<void> Inner(Event& event) { co_await event.Wait(); }
Task<void> Outer(Event& event) { co_await Inner(event); }

TEST_P(DumpTasksTest, ShowsEveryTaskWithItsChainOutermostFirst) {
  EXPECT_EQ(DumpTasks(loop_), "");
  Event event;
  loop_.CreateTask(Outer(event), "waits");
  EXPECT_THAT(DumpTasks(loop_), AllOf(HasSubstr("<Task 'waits' pending created at framework/async/dump_tasks_test.cc:"),
                                      ContainsRegex("  not started\n  at framework/async/dump_tasks_test.cc:[0-9]+ "
                                                    ".*Outer")));
  RunReady();
  const std::string dump = DumpTasks(loop_);
  EXPECT_THAT(dump, ContainsRegex("at framework/async/dump_tasks_test.cc:[0-9]+ .*Outer.*\n"
                                  "  at framework/async/dump_tasks_test.cc:[0-9]+ .*Inner.*\n"
                                  "  at .*event.h:[0-9]+ .*Wait.*\n"
                                  "  waits in Event::Wait\n"));
  event.Set();
  EXPECT_THAT(DumpTasks(loop_), HasSubstr("  queued to run\n"));
  RunReady();
  EXPECT_EQ(DumpTasks(loop_), "");
}

TEST_P(DumpTasksTest, ShowsATaskThatRuns) {
  auto handle = loop_.CreateTask([](EventLoop& loop, std::string& dump) -> Task<void> {
    dump = DumpTasks(loop);
    co_return;
  }(loop_, log_.emplace_back()));
  loop_.RunUntilComplete(Future<void>(handle));
  EXPECT_THAT(log_.front(), HasSubstr("  running\n"));
}

TEST_P(DumpTasksTest, AStalledLoopThrowsWithTheDump) {
  Event never;
  std::string text;
  try {
    loop_.RunUntilComplete(Outer(never));
  } catch (const InvalidState& error) {
    text = error.what();
  }
  EXPECT_THAT(text, AllOf(HasSubstr("nothing is left that could wake the event loop"),
                          HasSubstr("<Task 'main' pending"), HasSubstr("waits in Event::Wait")));
  loop_.Close();
}

}  // namespace
}  // namespace troupe
