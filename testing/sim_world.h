// SimWorld, Simulate: hosts with loops of their own, one network, one clock, one thread, one seed.
//
//   Simulate({.seeds = 200}, [](SimWorld& world) {
//     SimHost& server = world.AddHost("server");
//     SimHost& client = world.AddHost("client");
//     ...Server on server.loop(), Channel(client.loop(), "server:7400")...
//     world.Partition(server, client);
//     world.RunFor(absl::Seconds(30));
//     world.Heal(server, client);
//     EXPECT_OK(world.Run(client, Call(channel)));
//   });
//
// It runs the real framework above the Os seam; time passes when no host has anything to do. A seed that fails prints
// the line that runs it alone. The same seed gives the same trace: Simulate runs some seeds twice and compares.
//
// Threading: the test's. Lifetime: what lives on a host's loop is destroyed before the world; hosts close in the order
// of their creation.
#ifndef TROUPE_TESTING_SIM_WORLD_H_
#define TROUPE_TESTING_SIM_WORLD_H_

#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "troupe/async/task.h"
#include "troupe/base/monotonic_time.h"
#include "troupe/loop/event_loop.h"
#include "troupe/testing/sim/sim_kernel.h"
#include "troupe/testing/sim/sim_os.h"

namespace troupe::testing {

// One machine with one loop.
class SimHost {
 public:
  SimHost(SimKernel& kernel, SimHostOptions options);
  SimHost(const SimHost&) = delete;
  SimHost& operator=(const SimHost&) = delete;
  // Closes the loop. Reports that nobody took fail the test.
  ~SimHost();

  const std::string& name() const { return os_.name(); }
  SimOs& os() { return os_; }
  EventLoop& loop() { return loop_; }
  // Messages of what reached the loop's exception handler since the last call; what is left at the end fails the test.
  std::vector<std::string> TakeReports() { return std::exchange(reports_, {}); }

 private:
  std::vector<std::string> reports_;
  SimOs os_;
  EventLoop loop_;
};

class SimWorld {
 public:
  explicit SimWorld(uint64_t seed = 1);
  SimWorld(const SimWorld&) = delete;
  SimWorld& operator=(const SimWorld&) = delete;

  uint64_t seed() const { return kernel_.seed(); }
  SimKernel& kernel() { return kernel_; }
  MonotonicTime Now() const { return kernel_.Now(); }

  // Other hosts reach it by its name.
  SimHost& AddHost(absl::string_view name);

  // Runs all hosts until `task`, on `host`'s loop, is done, and gives its result. Throws InvalidState, with the tasks
  // of every host, when nothing is left that could happen.
  template <class T>
  T Run(SimHost& host, Task<T> task) {
    const TaskHandle<T> handle = host.loop().CreateTask(std::move(task), "simulated");
    RunUntil([&handle] { return handle.done(); });
    if constexpr (std::is_void_v<T>) {
      handle.result();
    } else {
      return handle.state().Take();
    }
  }
  // Lets `duration` pass.
  void RunFor(absl::Duration duration);
  // Until `done`, which is asked after everything that happens.
  void RunUntil(absl::FunctionRef<bool()> done);

  // Nothing travels between the two, in either direction, until Heal; what was sent waits.
  void Partition(SimHost& a, SimHost& b) { SetStalled(a, b, true); }
  void Heal(SimHost& a, SimHost& b) { SetStalled(a, b, false); }

  uint64_t TraceHash() const { return kernel_.TraceHash(); }

 private:
  void SetStalled(SimHost& a, SimHost& b, bool stalled);
  // Everything that can happen now; false: nothing did.
  bool RunReady();
  MonotonicTime NextTime();

  SimKernel kernel_;
  std::vector<std::unique_ptr<SimHost>> hosts_;
};

struct SimulateOptions {
  int seeds = 100;
  // The first one; TROUPE_SIM_SEED in the environment runs that one alone.
  uint64_t first_seed = 1;
};

// Runs `test` in a new world for each seed, until one fails.
void Simulate(const SimulateOptions& options, absl::FunctionRef<void(SimWorld&)> test);

}  // namespace troupe::testing

#endif  // TROUPE_TESTING_SIM_WORLD_H_
