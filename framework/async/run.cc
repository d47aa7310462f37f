#include "troupe/async/run.h"

#include <glog/logging.h>

#include <csignal>
#include <cstdlib>
#include <exception>
#include <memory>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/flags/parse.h"
#include "absl/strings/str_cat.h"
#include "troupe/async/gather.h"
#include "troupe/async/internal/shutdown_hooks.h"
#include "troupe/async/shutdown.h"
#include "troupe/loop/loop_policy.h"

namespace troupe {
namespace {

constexpr int kSignals[] = {SIGINT, SIGTERM};

Task<absl::Status> CallMain(MainFunction& main, EventLoop& loop) {
  Task<absl::Status> task = main(loop);
  co_return co_await std::move(task);
}

// C-RUN-03
Task<void> ShutDown(EventLoop& loop) {
  co_await ShutdownAsyncGenerators(loop);
  co_await ShutdownExecutor(loop);
}

// One run of a main task: the order of events at the end is asyncio.run's.
class Runner {
 public:
  Runner(EventLoop& loop, MainFunction main) : loop_(loop), main_(std::move(main)) {}

  int Run() {
    WatchSignals();
    handle_ = internal::StartTask(loop_, CallMain(main_, loop_), "main", Context::Current(),
                                  std::source_location::current(), /*quiet=*/true);
    // What is no outcome of main leaves at the end, after all is shut down.
    std::exception_ptr interrupted;
    try {
      RunUntilDone(handle_);
    } catch (...) {  // rethrown below
      interrupted = std::current_exception();
    }
    try {
      CancelAll();
      loop_.RunUntilComplete(ShutDown(loop_));
    } catch (...) {  // rethrown below
      if (!interrupted) interrupted = std::current_exception();
    }
    const int code = handle_.done() ? ExitCode() : 1;
    loop_.Close();
    if (interrupted) std::rethrow_exception(interrupted);
    return code;
  }

 private:
  // Without taking the result.
  void RunUntilDone(const Future<absl::Status>& future) {
    const DoneCallbackToken token = future.AddDoneCallback([this](const Future<absl::Status>&) { loop_.Stop(); });
    try {
      loop_.RunForever();
    } catch (...) {  // rethrown
      future.RemoveDoneCallback(token);
      throw;
    }
    if (!future.done()) {
      future.RemoveDoneCallback(token);
      throw InvalidState("Event loop stopped before Future completed.");
    }
  }

  void WatchSignals() {
    for (const int signo : kSignals) {
      const absl::Status watched = loop_.AddSignalHandler(signo, [this, signo] { OnSignal(signo); });
      LOG_IF(WARNING, !watched.ok()) << "signals will not end this loop: " << watched;
    }
  }

  void OnSignal(int signo) {
    ++signals_;
    if (signals_ >= 3) {
      loop_.RemoveSignalHandler(signo);
      LOG(ERROR) << "third signal " << signo << ": ending at once";
      loop_.os().RaiseSignal(signo);
      return;
    }
    auto* hooks = loop_.LocalOrNull<internal::ShutdownHooks>();
    if (signals_ == 1 && !handle_.done() && hooks != nullptr && hooks->Drain()) {
      LOG(INFO) << "signal " << signo << ": draining";
      return;
    }
    LOG(INFO) << "signal " << signo << ": cancelling";
    if (handle_.Cancel()) {
      cancelled_by_ = signo;
      return;
    }
    // Main is over; what still runs was cancelled before, and is cancelled again.
    for (const internal::Ref& task : left_) task->Cancel();
  }

  // C-RUN-02
  void CancelAll() {
    for (internal::TaskNode& task : loop_.tasks()) {
      internal::FutureCore* const future = task.AsFuture();
      if (future == nullptr) continue;
      future->Retain();
      left_.emplace_back(future);
    }
    if (left_.empty()) return;
    for (const internal::Ref& task : left_) task->Cancel();
    loop_.RunUntilComplete(internal::AwaitAll(left_));
    for (const internal::Ref& task : std::exchange(left_, {})) {
      if (task.get() == handle_.core().get()) continue;
      ExceptionContext context;
      context.message = "unhandled exception during troupe::Run() shutdown";
      context.Add("task", task->Describe(), task.get());
      if (task->state() == internal::FutureCore::kError) {
        context.exception = task->exception();
      } else if (task->state() == internal::FutureCore::kValue) {
        task->MarkRetrieved();
        context.status = task->ValueStatus();
        // A call that reports to have been cancelled has done as it was told.
        if (context.status.ok() || absl::IsCancelled(context.status)) continue;
      } else {
        continue;
      }
      loop_.CallExceptionHandler(context);
    }
  }

  int ExitCode() {
    if (handle_.cancelled()) {
      if (cancelled_by_ != 0) return 128 + cancelled_by_;
      LOG(ERROR) << "main was cancelled";
      return 1;
    }
    if (const std::exception_ptr error = handle_.exception()) {
      LOG(ERROR) << "main failed: " << DescribeException(error);
      return 1;
    }
    const absl::Status& status = handle_.result();
    if (status.ok()) return 0;
    LOG(ERROR) << "main failed: " << status;
    return 1;
  }

  EventLoop& loop_;
  MainFunction main_;
  TaskHandle<absl::Status> handle_;
  std::vector<internal::Ref> left_;  // what is being awaited after main
  int signals_ = 0;
  int cancelled_by_ = 0;
};

void CheckNoneRuns() {
  if (EventLoop::CurrentOrNull() != nullptr) {
    throw InvalidState("troupe::Run() cannot be called from a running event loop");
  }
}

int RunOn(EventLoop& loop, MainFunction main) {
  SetEventLoop(&loop);
  const absl::Cleanup none = [] { SetEventLoop(nullptr); };  // C-RUN-03
  return Runner(loop, std::move(main)).Run();
}

}  // namespace

int RunMain(Os& os, MainFunction main, EventLoopOptions options) {
  CheckNoneRuns();
  EventLoop loop(os, options);
  return RunOn(loop, std::move(main));
}

int Run(int argc, char** argv, MainFunction main) {
  return Run(argc, argv, [main = std::move(main)](EventLoop& loop, const std::vector<char*>& args) mutable {
    if (!args.empty()) {
      LOG(ERROR) << "unexpected argument: " << args.front();
      return []() -> Task<absl::Status> { co_return absl::InvalidArgumentError("arguments were not expected"); }();
    }
    return main(loop);
  });
}

int Run(int argc, char** argv, MainFunctionWithArgs main) {
  std::vector<char*> args = absl::ParseCommandLine(argc, argv);
  if (!args.empty()) args.erase(args.begin());
  if (!google::IsGoogleLoggingInitialized()) {
    if (std::getenv("GLOG_logtostderr") == nullptr) FLAGS_logtostderr = true;
    google::InitGoogleLogging(argv[0]);
  }
  CheckNoneRuns();
  const std::unique_ptr<EventLoop> loop = NewEventLoop();
  return RunOn(*loop, [&main, &args](EventLoop& loop) { return main(loop, args); });
}

}  // namespace troupe
