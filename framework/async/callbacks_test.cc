// Every callback that the loop, its futures and its tasks call: throwing, destroying the very thing that called it, both,
// and throwing Fatal.
//
// Each row of the table arranges for one callback to be called and says how to destroy what calls it. What a callback
// captured stays alive until it has returned, whatever it destroyed (AddressSanitizer looks); what it threw is reported,
// once; the callbacks behind it run; Fatal leaves the loop, and the loop can go on.
#include <glog/logging.h>
#include <sys/socket.h>

#include <csignal>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "troupe/async/blocking.h"
#include "troupe/async/internal/shutdown_hooks.h"
#include "troupe/async/sleep.h"
#include "troupe/async/task.h"
#include "troupe/loop/loop_testing.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::StartsWith;

enum class Mode { kThrows, kDestroys, kDestroysAndThrows, kFatal };

class World;

// The callback. Counts those that are alive, and owns something on the heap that must outlive its call.
class Act {
 public:
  explicit Act(World& world);
  Act(Act&& other) noexcept = default;
  void operator()() const;

 private:
  World* world_;
  std::shared_ptr<int> alive_;
  std::unique_ptr<int> owned_ = std::make_unique<int>(7);
};

class World {
 public:
  World(Polling polling, Mode mode) : loop(os, {.strict_polling = polling == Polling::kStrict}), mode_(mode) {
    Report();
    EXPECT_EQ(os.SocketPair(AF_UNIX, SOCK_STREAM, fds), 0);
  }
  ~World() {
    destroy = nullptr;
    loop.Close();
    loop.SetExceptionHandler(nullptr);
    for (const int fd : fds) os.Close(fd);
    EXPECT_THAT(os.OpenDescriptors(), IsEmpty());
    EXPECT_EQ(alive.use_count(), 1) << "a callback is left";
  }
  // Reports go to `reports`.
  void Report() {
    loop.SetExceptionHandler(
        [this](EventLoop&, const ExceptionContext& context) { reports.push_back(context.message); });
  }
  // What `fds[0]` can read.
  void Send() {
    char byte = 'x';
    const iovec bytes = {&byte, 1};
    EXPECT_EQ(os.Send(fds[1], absl::MakeConstSpan(&bytes, 1)), 1);
  }
  void DoAct(const int& owned) {
    // A descriptor that is still ready: nobody reads.
    if (++called > 1) return destroy();
    if (mode_ == Mode::kDestroys || mode_ == Mode::kDestroysAndThrows) destroy();
    EXPECT_EQ(owned, 7);
    if (mode_ == Mode::kDestroys) return;
    if (mode_ == Mode::kFatal) throw Fatal("out");
    throw std::runtime_error("x");
  }

  testing::SimOs os;
  EventLoop loop;
  int fds[2];
  std::shared_ptr<int> alive = std::make_shared<int>();  // shared with every Act
  std::vector<std::string> reports;
  std::function<void()> destroy;
  int called = 0;

 private:
  const Mode mode_;
};

Act::Act(World& world) : world_(&world), alive_(world.alive) {}
void Act::operator()() const { world_->DoAct(*owned_); }

// Lives where a callback can destroy it, and is gone after the test if it did not.
template <class T>
std::shared_ptr<std::unique_ptr<T>> Held(World& world, std::unique_ptr<T> object) {
  auto held = std::make_shared<std::unique_ptr<T>>(std::move(object));
  world.destroy = [held] { *held = nullptr; };
  return held;
}

struct Case {
  const char* name;
  void (*arrange)(World& world);
  const char* report = "Exception in callback";
  bool fatal_leaves = true;
  const char* report_of_fatal = nullptr;  // null: none, it left the loop
};

class Watching final : public FdWatcher {
 public:
  Watching(World& world, uint32_t interest) : FdWatcher(world.loop, world.fds[0]), act_(std::make_shared<Act>(world)) {
    EXPECT_EQ(Watch(interest), 0);
  }

 private:
  // What the framework's own watchers throw is for them to report.
  void Call() {
    EventLoop& loop = watcher_loop_;
    const std::shared_ptr<Act> act = act_;  // this may go
    try {
      (*act)();
    } catch (...) {  // reports to the exception handler, which passes Fatal on
      ExceptionContext context;
      context.message = "Exception in callback of a watcher";
      loop.ReportCurrentException(std::move(context));
    }
  }
  void OnReadable() override { Call(); }
  void OnWritable() override {
    Watch(0);
    Call();
  }
  std::string DescribeWatcher() const override { return "<watching>"; }
  std::shared_ptr<Act> act_;  // shared with the call in progress
};

class Flushing final : public Runnable {
 public:
  explicit Flushing(World& world) : loop_(world.loop), act_(std::make_shared<Act>(world)) { loop_.AfterBatch(*this); }
  void Run() override {
    EventLoop& loop = loop_;
    const std::shared_ptr<Act> act = act_;  // this may go
    try {
      (*act)();
    } catch (...) {  // reports to the exception handler, which passes Fatal on
      ExceptionContext context;
      context.message = "Exception in callback of a batch's end";
      loop.ReportCurrentException(std::move(context));
    }
  }

 private:
  EventLoop& loop_;
  std::shared_ptr<Act> act_;  // shared with the call in progress
};

Task<void> Steps(Act act, int steps) {
  for (int i = 0; i < steps; ++i) {
    co_await Sleep(absl::ZeroDuration());
  }
  act();
}

void ArrangeTask(World& world, int steps) {
  auto handle = std::make_shared<TaskHandle<void>>(world.loop.CreateTask(Steps(Act(world), steps)));
  world.destroy = [handle] {
    handle->task_state().DestroyNow();
    *handle = TaskHandle<void>();
  };
  // Nobody asks for its error.
  world.loop.CallLater(absl::Seconds(1), [&world] { world.destroy = nullptr; });
}

const Case kCases[] = {
    {"call_soon",
     [](World& world) {
       auto handle = std::make_shared<Handle>(world.loop.CallSoon(Act(world)));
       world.destroy = [handle] {
         handle->Cancel();
         *handle = Handle();
       };
     }},
    {"call_soon_in",
     [](World& world) {
       auto handle = std::make_shared<Handle>(world.loop.CallSoonIn(Context(), Act(world)));
       world.destroy = [handle] { *handle = Handle(); };
     }},
    {"post",
     [](World& world) {
       world.loop.Post(Act(world));
       world.destroy = [] {};
     }},
    {"call_later",
     [](World& world) {
       auto handle = std::make_shared<TimerHandle>(world.loop.CallLater(absl::Milliseconds(1), Act(world)));
       world.destroy = [handle] {
         handle->Cancel();
         *handle = TimerHandle();
       };
     }},
    {"call_soon_threadsafe",
     [](World& world) {
       auto handle = std::make_shared<Handle>(world.loop.CallSoonThreadsafe(Act(world)));
       world.destroy = [handle] {
         handle->Cancel();
         *handle = Handle();
       };
     }},
    {"reader",
     [](World& world) {
       world.Send();
       EXPECT_EQ(world.loop.AddReader(world.fds[0], Act(world)), 0);
       world.destroy = [&world] { EXPECT_TRUE(world.loop.RemoveReader(world.fds[0])); };
     }},
    {"replaced_reader",
     [](World& world) {
       world.Send();
       EXPECT_EQ(world.loop.AddReader(world.fds[0], Act(world)), 0);
       world.destroy = [&world] {
         EXPECT_EQ(world.loop.AddReader(world.fds[0], [&world] { world.loop.RemoveReader(world.fds[0]); }), 0);
       };
     }},
    {"writer",
     [](World& world) {
       EXPECT_EQ(world.loop.AddWriter(world.fds[0], Act(world)), 0);
       world.destroy = [&world] { EXPECT_TRUE(world.loop.RemoveWriter(world.fds[0])); };
     }},
    {"watcher_reads",
     [](World& world) {
       world.Send();
       Held(world, std::make_unique<Watching>(world, kReadable));
     }},
    {"watcher_reads_and_writes",
     [](World& world) {
       world.Send();
       Held(world, std::make_unique<Watching>(world, kReadable | kWritable));
     }},
    {"signal",
     [](World& world) {
       EXPECT_TRUE(world.loop.AddSignalHandler(SIGUSR1, Act(world)).ok());
       world.os.RaiseSignal(SIGUSR1);
       world.destroy = [&world] { EXPECT_TRUE(world.loop.RemoveSignalHandler(SIGUSR1)); };
     }},
    {"after_batch", [](World& world) { Held(world, std::make_unique<Flushing>(world)); }},
    {"exception_handler",
     [](World& world) {
       world.loop.SetExceptionHandler([&world, act = Act(world)](EventLoop&, const ExceptionContext& context) {
         if (world.called == 0) return act();
         world.reports.push_back(context.message);
       });
       world.loop.CallSoon([] { throw std::runtime_error("the first"); });
       world.destroy = [&world] { world.Report(); };
     },
     "Unhandled error in exception handler"},
    {"done_callback",
     [](World& world) {
       auto promise = std::make_unique<Promise<int>>(world.loop);
       promise->future().AddDoneCallback([act = Act(world)](const Future<int>&) { act(); });
       promise->SetValue(1);
       Held(world, std::move(promise));
     }},
    {"done_callback_that_takes_itself_back",
     [](World& world) {
       Promise<int> promise(world.loop);
       auto token = std::make_shared<DoneCallbackToken>();
       *token = promise.future().AddDoneCallback([act = Act(world)](const Future<int>&) { act(); });
       promise.SetValue(1);
       world.destroy = [token, future = promise.future()] { EXPECT_FALSE(future.RemoveDoneCallback(*token)); };
     }},
    {"done_callback_of_a_task",
     [](World& world) {
       auto handle = std::make_shared<TaskHandle<void>>(world.loop.CreateTask(Sleep(absl::Seconds(1))));
       handle->AddDoneCallback([act = Act(world)](const Future<void>&) { act(); });
       world.destroy = [handle] { *handle = TaskHandle<void>(); };
     }},
    {"executor_result",
     [](World& world) {
       auto future = std::make_shared<Future<int>>(RunInExecutor(world.loop, [] { return 1; }));
       future->AddDoneCallback([act = Act(world)](const Future<int>&) { act(); });
       world.destroy = [future] { *future = Future<int>(); };
     }},
    {"executor_function",
     [](World& world) {
       RunInExecutor(world.loop, absl::AnyInvocable<void()>(Act(world)));
       world.destroy = [] {};
     },
     "Future exception was never retrieved", false},
    {"first_step", [](World& world) { ArrangeTask(world, 0); }, "Task exception was never retrieved", true,
     "Task exception was never retrieved"},
    {"later_step", [](World& world) { ArrangeTask(world, 3); }, "Task exception was never retrieved", true,
     "Task exception was never retrieved"},
    {"drain_hook",
     [](World& world) {
       auto& hooks = world.loop.Local<internal::ShutdownHooks>();
       using Registration = internal::ShutdownHooks::Registration;
       Held(world, std::make_unique<Registration>(hooks.AddDrainable(Act(world))));
       world.loop.CallSoon([&hooks] { hooks.Drain(); });
     },
     "Exception in a drain callback"},
};

// What the default exception handler and others log as an error.
class LoggedErrors final : public google::LogSink {
 public:
  explicit LoggedErrors(std::vector<std::string>& to) : to_(to) { google::AddLogSink(this); }
  ~LoggedErrors() override { google::RemoveLogSink(this); }
  void send(google::LogSeverity severity, const char*, const char*, int, const google::LogMessageTime&,
            const char* message, size_t bytes) override {
    if (severity == google::GLOG_ERROR) to_.emplace_back(message, bytes);
  }

 private:
  std::vector<std::string>& to_;
};

class CallbacksTest : public ::testing::TestWithParam<std::tuple<Case, Mode, Polling>> {};

// P-4, C-LOOP-23, C-LOOP-37
TEST_P(CallbacksTest, ThrowsOrDestroysWhatCalledIt) {
  const auto& [row, mode, polling] = GetParam();
  World world(polling, mode);
  const LoggedErrors logged(world.reports);
  row.arrange(world);
  int behind = 0;
  const auto run = [&] {
    world.loop.CallSoon([&] { ++behind; });
    world.loop.RunUntilComplete(Sleep(absl::Seconds(5)));
  };
  if (mode == Mode::kFatal && row.fatal_leaves) {
    EXPECT_THROW(run(), Fatal);
    run();
    EXPECT_EQ(behind, 2);
    if (row.report_of_fatal == nullptr) {
      EXPECT_THAT(world.reports, IsEmpty());
    } else {
      EXPECT_THAT(world.reports, ElementsAre(StartsWith(row.report_of_fatal)));
    }
  } else {
    run();
    EXPECT_EQ(behind, 1);
    if (mode == Mode::kDestroys) {
      EXPECT_THAT(world.reports, IsEmpty());
    } else {
      EXPECT_THAT(world.reports, ElementsAre(StartsWith(row.report)));
    }
  }
  EXPECT_GE(world.called, 1);
}

std::string NameOf(const ::testing::TestParamInfo<std::tuple<Case, Mode, Polling>>& info) {
  static constexpr const char* kModes[] = {"Throws", "Destroys", "DestroysAndThrows", "Fatal"};
  return std::string(std::get<0>(info.param).name) + kModes[static_cast<int>(std::get<1>(info.param))] +
         (std::get<2>(info.param) == Polling::kStrict ? "Strict" : "Shared");
}

INSTANTIATE_TEST_SUITE_P(All, CallbacksTest,
                         ::testing::Combine(::testing::ValuesIn(kCases),
                                            ::testing::Values(Mode::kThrows, Mode::kDestroys, Mode::kDestroysAndThrows,
                                                              Mode::kFatal),
                                            ::testing::Values(Polling::kStrict, Polling::kShared)),
                         NameOf);

}  // namespace
}  // namespace troupe
