// Run: the main function of a program that is one task on one loop, as asyncio.run is.
//
//   troupe::Task<absl::Status> Main(troupe::EventLoop& loop) { ... }
//   int main(int argc, char** argv) { return troupe::Run(argc, argv, Main); }
//
// It parses the absl flags, makes a loop (on PosixOs, unless loop/loop_policy.h was told otherwise), runs the task, cancels and awaits what is left, waits for the
// executor, closes the loop and gives the exit code. Logs go to stderr unless glog was set up before.
//
// Exit code: 0: main returned OK. 1: it returned another status, or threw; what it was is logged. 128+n: it ended by
//            the Cancelled that signal n caused.
// Signals:   the first SIGINT or SIGTERM drains the servers of the loop; with none, it cancels main. The second cancels
//            main. The third restores the former action and raises itself: it kills.
// Threading: refuses, by InvalidState, to run where a loop runs already (C-RUN-01).
#ifndef TROUPE_ASYNC_RUN_H_
#define TROUPE_ASYNC_RUN_H_

#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "troupe/async/task.h"
#include "troupe/loop/event_loop.h"
#include "troupe/os/os.h"

namespace troupe {

// Called once, on the running loop. A lambda that is a coroutine stays alive until its task is done.
using MainFunction = absl::AnyInvocable<Task<absl::Status>(EventLoop&)>;
// `args`: what the flags left over, without the program's name.
using MainFunctionWithArgs = absl::AnyInvocable<Task<absl::Status>(EventLoop&, const std::vector<char*>& args)>;

int Run(int argc, char** argv, MainFunction main);
int Run(int argc, char** argv, MainFunctionWithArgs main);

// The same on any Os, without flags and logging: for tests and simulations. Throws what is no outcome of `main`:
// InvalidState when someone stopped the loop before main was done, Fatal.
int RunMain(Os& os, MainFunction main, EventLoopOptions options = {});

}  // namespace troupe

#endif  // TROUPE_ASYNC_RUN_H_
