// AsyncGenerator: values one after another; C-RUN-04.
#include "troupe/async/async_generator.h"

#include <glog/logging.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "troupe/async/finally.h"
#include "troupe/async/run.h"
#include "troupe/async/shutdown.h"
#include "troupe/async/sleep.h"
#include "troupe/loop/loop_testing.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using AsyncGeneratorTest = LoopTest;
INSTANTIATE_POLLING(AsyncGeneratorTest);

using Log = std::vector<std::string>;

struct AtEnd {
  Log& log;
  ~AtEnd() { log.push_back("generator destroyed"); }
};

AsyncGenerator<int> Count(Log& log, int n, absl::Duration pause) {
  AtEnd at_end{log};
  for (int i = 0; i < n; ++i) {
    if (pause > absl::ZeroDuration()) {
      co_await Sleep(pause);
    }
    co_yield i;
  }
  log.push_back("end of body");
}
AsyncGenerator<int> YieldsThenThrows() {
  co_yield 1;
  throw std::runtime_error("x");
}
AsyncGenerator<int> CleansUp(Log& log) {
  auto body = []() -> Task<void> { co_await Sleep(absl::ZeroDuration()); };
  try {
    co_yield 1;
    co_yield 2;
  } catch (const GeneratorExit&) {
    log.push_back("exit");
  }
  co_await Finally(body(), [&]() -> Task<void> {
    log.push_back("cleanup");
    return Sleep(absl::Seconds(1));
  });
  log.push_back("clean");
}

TEST_P(AsyncGeneratorTest, GivesValuesThenNothing) {
  loop_.RunUntilComplete([](Log& log) -> Task<void> {
    AsyncGenerator<int> numbers = Count(log, 3, absl::Seconds(1));
    while (std::optional<int> n = co_await numbers.Next()) {
      log.push_back(std::to_string(*n));
    }
    for (int i = 0; i < 2; ++i) {
      const std::optional<int> nothing = co_await numbers.Next();
      EXPECT_EQ(nothing, std::nullopt);
    }
  }(log_));
  EXPECT_THAT(log_, ElementsAre("0", "1", "2", "end of body", "generator destroyed"));
  EXPECT_EQ(loop_.Time() - MonotonicTime(), absl::Seconds(3));
}

TEST_P(AsyncGeneratorTest, NothingRunsBeforeTheFirstNext) {
  {
    AsyncGenerator<int> numbers = Count(log_, 3, absl::ZeroDuration());
  }
  EXPECT_THAT(log_, IsEmpty());
}

TEST_P(AsyncGeneratorTest, AnErrorIsThrownOnceThenNothing) {
  loop_.RunUntilComplete([]() -> Task<void> {
    AsyncGenerator<int> numbers = YieldsThenThrows();
    std::optional<int> got = co_await numbers.Next();
    EXPECT_EQ(got, 1);
    bool thrown = false;
    try {
      got = co_await numbers.Next();
    } catch (const std::runtime_error&) {
      thrown = true;
    }
    EXPECT_TRUE(thrown);
    got = co_await numbers.Next();
    EXPECT_EQ(got, std::nullopt);
  }());
}

TEST_P(AsyncGeneratorTest, ALongOneDoesNotGrowTheStack) {
  loop_.RunUntilComplete([](Log& log) -> Task<void> {
    AsyncGenerator<int> numbers = Count(log, 100000, absl::ZeroDuration());
    int64_t sum = 0;
    while (std::optional<int> n = co_await numbers.Next()) sum += *n;
    EXPECT_EQ(sum, int64_t{100000} * 99999 / 2);
  }(log_));
}

TEST_P(AsyncGeneratorTest, GeneratorsNest) {
  auto doubled = [](AsyncGenerator<int> inner) -> AsyncGenerator<std::unique_ptr<int>> {
    while (std::optional<int> n = co_await inner.Next()) {
      auto value = std::make_unique<int>(2 * *n);
      co_yield std::move(value);
    }
  };
  loop_.RunUntilComplete([](Log& log, auto doubled) -> Task<void> {
    AsyncGenerator<std::unique_ptr<int>> numbers = doubled(Count(log, 3, absl::Seconds(1)));
    int sum = 0;
    while (std::optional<std::unique_ptr<int>> n = co_await numbers.Next()) sum += **n;
    EXPECT_EQ(sum, 6);
  }(log_, doubled));
}

TEST_P(AsyncGeneratorTest, ConsumersMayTakeTurnsButNotBothWait) {
  loop_.RunUntilComplete([](EventLoop& loop, Log& log) -> Task<void> {
    AsyncGenerator<int> numbers = Count(log, 3, absl::Seconds(1));
    auto next = [](AsyncGenerator<int>& numbers) -> Task<int> {
      const std::optional<int> n = co_await numbers.Next();
      co_return n.value_or(-1);
    };
    const TaskHandle<int> first = loop.CreateTask(next(numbers));
    co_await Sleep(absl::ZeroDuration());
    bool refused = false;
    try {
      (void)co_await numbers.Next();
    } catch (const InvalidState&) {
      refused = true;
    }
    EXPECT_TRUE(refused);
    refused = false;
    try {
      co_await numbers.Close();
    } catch (const InvalidState&) {
      refused = true;
    }
    EXPECT_TRUE(refused);
    const int of_first = co_await first;
    EXPECT_EQ(of_first, 0);
    const int mine = co_await next(numbers);
    EXPECT_EQ(mine, 1);
  }(loop_, log_));
}

TEST_P(AsyncGeneratorTest, CancellingTheConsumerEndsTheGenerator) {
  AsyncGenerator<int> numbers = Count(log_, 3, absl::Hours(1));
  auto handle =
      loop_.CreateTask([](AsyncGenerator<int>& numbers) -> Task<void> { (void)co_await numbers.Next(); }(numbers));
  loop_.CallLater(absl::Seconds(1), [&] { handle.Cancel(); });
  EXPECT_THROW(loop_.RunUntilComplete(Future<void>(handle)), Cancelled);
  EXPECT_THAT(log_, ElementsAre("generator destroyed"));
  loop_.RunUntilComplete([](AsyncGenerator<int>& numbers) -> Task<void> {
    const std::optional<int> nothing = co_await numbers.Next();
    EXPECT_EQ(nothing, std::nullopt);
  }(numbers));
}

TEST_P(AsyncGeneratorTest, TheConsumerDestroyedInNextTakesTheGeneratorsFrameAlong) {
  AsyncGenerator<int> numbers = Count(log_, 3, absl::Hours(1));
  auto handle =
      loop_.CreateTask([](AsyncGenerator<int>& numbers) -> Task<void> { (void)co_await numbers.Next(); }(numbers));
  RunReady();
  AsyncGenerator<int> moved = std::move(numbers);  // while its Next waits
  handle.task_state().DestroyNow();
  EXPECT_THAT(log_, ElementsAre("generator destroyed"));
  EXPECT_THROW((void)moved.Next(), InvalidState);
}

TEST_P(AsyncGeneratorTest, DestroyedBetweenTwoNextItsFrameGoes) {
  loop_.RunUntilComplete([](Log& log) -> Task<void> {
    AsyncGenerator<int> numbers = Count(log, 3, absl::ZeroDuration());
    (void)co_await numbers.Next();
  }(log_));
  EXPECT_THAT(log_, ElementsAre("generator destroyed"));
}

// Its coroutine belongs to the Next that is under way.
TEST_P(AsyncGeneratorTest, DestroyedUnderANextItStillGivesThatValue) {
  auto next = [](AsyncGenerator<int>& numbers, Log& log) -> Task<void> {
    const std::optional<int> number = co_await numbers.Next();
    log.push_back(std::to_string(number.value_or(-1)));
  };
  for (const bool destroyed : {false, true}) {
    log_.clear();
    auto numbers = std::make_unique<AsyncGenerator<int>>(Count(log_, 3, absl::Seconds(1)));
    auto handle = loop_.CreateTask(next(*numbers, log_));
    RunReady();
    numbers = nullptr;
    EXPECT_THAT(log_, IsEmpty());
    if (destroyed) {
      handle.task_state().DestroyNow();
      EXPECT_THAT(log_, ElementsAre("generator destroyed"));
    } else {
      loop_.RunUntilComplete(Future<void>(handle));
      EXPECT_THAT(log_, ElementsAre("generator destroyed", "0"));
    }
  }
  // By its own body.
  log_.clear();
  std::unique_ptr<AsyncGenerator<int>> self;
  auto destroys_itself = [](std::unique_ptr<AsyncGenerator<int>>& self, Log& log) -> AsyncGenerator<int> {
    const AtEnd at_end{log};
    self = nullptr;
    co_await Sleep(absl::Seconds(1));
    co_yield 5;
  };
  self = std::make_unique<AsyncGenerator<int>>(destroys_itself(self, log_));
  loop_.RunUntilComplete(next(*self, log_));
  EXPECT_THAT(log_, ElementsAre("generator destroyed", "5"));
}

TEST_P(AsyncGeneratorTest, CloseLetsItCleanUp) {
  loop_.RunUntilComplete([](Log& log) -> Task<void> {
    AsyncGenerator<int> numbers = CleansUp(log);
    (void)co_await numbers.Next();
    co_await numbers.Close();
    log.push_back("closed");
    co_await numbers.Close();
    const std::optional<int> nothing = co_await numbers.Next();
    EXPECT_EQ(nothing, std::nullopt);

    AsyncGenerator<int> simple = Count(log, 3, absl::ZeroDuration());
    (void)co_await simple.Next();
    co_await simple.Close();
    AsyncGenerator<int> unstarted = Count(log, 3, absl::ZeroDuration());
    co_await unstarted.Close();
  }(log_));
  EXPECT_THAT(log_, ElementsAre("exit", "cleanup", "clean", "closed", "generator destroyed"));
}

TEST_P(AsyncGeneratorTest, OneThatYieldsAfterGeneratorExitIsRefused) {
  auto ignores = []() -> AsyncGenerator<int> {
    for (int i = 0; i < 2; ++i) {
      try {
        co_yield i;
      } catch (const GeneratorExit&) {
        // goes on
      }
    }
  };
  loop_.RunUntilComplete([](auto ignores) -> Task<void> {
    AsyncGenerator<int> numbers = ignores();
    (void)co_await numbers.Next();
    bool refused = false;
    try {
      co_await numbers.Close();
    } catch (const InvalidState&) {
      refused = true;
    }
    EXPECT_TRUE(refused);
  }(ignores));
}

// C-RUN-04
TEST_P(AsyncGeneratorTest, RunClosesThoseThatAreAliveAndReportsTheErrorsOfEach) {
  std::vector<std::string> reports;
  AsyncGenerator<int> one, two;
  auto throws = []() -> AsyncGenerator<int> {
    try {
      co_yield 1;
    } catch (const GeneratorExit&) {
      throw std::runtime_error("in the cleanup");
    }
  };
  EXPECT_EQ(RunMain(os_,
                    [&](EventLoop& loop) {
                      loop.SetExceptionHandler([&](EventLoop&, const ExceptionContext& context) {
                        reports.push_back(context.message + " " + DescribeException(context.exception));
                      });
                      one = CleansUp(log_);
                      two = throws();
                      return [](AsyncGenerator<int>& one, AsyncGenerator<int>& two) -> Task<absl::Status> {
                        (void)co_await two.Next();
                        (void)co_await one.Next();
                        co_return absl::OkStatus();
                      }(one, two);
                    }),
            0);
  EXPECT_THAT(log_, ElementsAre("exit", "cleanup", "clean"));
  EXPECT_THAT(reports, ElementsAre(HasSubstr("an error occurred during closing of <asynchronous generator at ")));
}

// C-RUN-04, P-4
TEST_P(AsyncGeneratorTest, OneThatIsDestroyedWhileRunClosesItCleansUpAllTheSame) {
  std::unique_ptr<AsyncGenerator<int>> generator;
  EXPECT_EQ(RunMain(os_,
                    [&](EventLoop& loop) {
                      generator = std::make_unique<AsyncGenerator<int>>(CleansUp(log_));
                      loop.CallLater(absl::Milliseconds(500), [&] {
                        log_.push_back("destroyed");
                        generator = nullptr;
                      });
                      return [](AsyncGenerator<int>& generator) -> Task<absl::Status> {
                        (void)co_await generator.Next();
                        co_return absl::OkStatus();
                      }(*generator);
                    }),
            0);
  EXPECT_THAT(log_, ElementsAre("exit", "cleanup", "destroyed", "clean"));
}

// C-RUN-04
TEST_P(AsyncGeneratorTest, OneThatStartsAfterTheShutdownWarns) {
  struct Sink final : google::LogSink {
    void send(google::LogSeverity severity, const char*, const char*, int, const google::LogMessageTime&,
              const char* message, size_t bytes) override {
      if (severity == google::GLOG_WARNING) records.emplace_back(message, bytes);
    }
    std::vector<std::string> records;
  } sink;
  google::AddLogSink(&sink);
  loop_.RunUntilComplete([](EventLoop& loop, Log& log) -> Task<void> {
    co_await ShutdownAsyncGenerators(loop);
    AsyncGenerator<int> late = Count(log, 1, absl::ZeroDuration());
    (void)co_await late.Next();
  }(loop_, log_));
  google::RemoveLogSink(&sink);
  EXPECT_THAT(sink.records, ElementsAre(HasSubstr("an asynchronous generator was started after")));
}

}  // namespace
}  // namespace troupe
