// Costs of Troupe's loop: loop_troupe CASE prints the nanoseconds of CPU of one operation. Cases as in loop_asio.cc.
#include <cstdint>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "troupe/async/event.h"
#include "troupe/async/task.h"
#include "troupe/base/monotonic_time.h"
#include "troupe/loop/event_loop.h"
#include "troupe/os/posix_os.h"
#include "troupe/testing/benchmarks/meter.h"

namespace troupe {
namespace {

using benchmarks::CpuNanosPerOperation;
using benchmarks::kMillion;
using benchmarks::kTasksAtOnce;
using benchmarks::Scattered;

// A callback that posts the next one.
double PostChain() {
  EventLoop loop(PosixOs::Get());
  struct Link {
    EventLoop& loop;
    int& left;
    void operator()() const {
      if (--left == 0) return loop.Stop();
      loop.Post(*this);
    }
  };
  const double cost = CpuNanosPerOperation([&](int n) {
    int left = n;
    loop.Post(Link{loop, left});
    loop.RunForever();
  });
  loop.Close();
  return cost;
}

// Callbacks that are posted together and then run.
double PostBatch() {
  EventLoop loop(PosixOs::Get());
  int64_t ran = 0;
  const double cost = CpuNanosPerOperation(
      [&](int n) {
        for (int i = 0; i < n; ++i) loop.Post([&ran] { ++ran; });
        loop.Stop();
        loop.RunForever();
      },
      500);
  loop.Close();
  return cost;
}

// Timers that are already due when the loop looks, beside 1000 that are not.
double TimerFired() {
  EventLoop loop(PosixOs::Get());
  for (int i = 0; i < 1000; ++i) loop.CallLater(absl::Hours(1) + absl::Seconds(i), [] {});
  const double cost = CpuNanosPerOperation(
      [&](int n) {
        int left = n;
        for (int i = 0; i < n; ++i) {
          loop.CallLater(absl::ZeroDuration(), [&] {
            if (--left == 0) loop.Stop();
          });
        }
        loop.RunForever();
      },
      500);
  loop.Close();
  return cost;
}

// Timers that are cancelled before they are due, beside 1000 others: a timeout that does not happen.
double TimerCancelled() {
  EventLoop loop(PosixOs::Get());
  for (int i = 0; i < 1000; ++i) loop.CallLater(absl::Hours(1) + absl::Seconds(i), [] {});
  const double cost = CpuNanosPerOperation(
      [&](int n) {
        for (int i = 0; i < n; ++i) loop.CallLater(absl::Seconds(10), [] {}).Cancel();
        loop.Stop();
        loop.RunForever();
      },
      500);
  loop.Close();
  return cost;
}

// Timers that are all there at once, at times in no order, and all due.
double TimersFiredMillion() {
  EventLoop loop(PosixOs::Get());
  const double cost = CpuNanosPerOperation(
      [&](int n) {
        const MonotonicTime past = loop.Time() - absl::Seconds(2);
        int left = n;
        for (int i = 0; i < n; ++i) {
          loop.CallAt(past + absl::Nanoseconds(Scattered(i)), [&] {
            if (--left == 0) loop.Stop();
          });
        }
        loop.RunForever();
      },
      kMillion);
  loop.Close();
  return cost;
}

// Timers that are all there at once, at times in no order, and are then cancelled in the order of their making.
double TimersCancelledMillion() {
  EventLoop loop(PosixOs::Get());
  std::vector<TimerHandle> timers(kMillion);
  const double cost = CpuNanosPerOperation(
      [&](int n) {
        const MonotonicTime later = loop.Time() + absl::Seconds(10);
        for (int i = 0; i < n; ++i) timers[i] = loop.CallAt(later + absl::Nanoseconds(Scattered(i)), [] {});
        for (TimerHandle& timer : timers) timer.Cancel();
        loop.Stop();
        loop.RunForever();
      },
      kMillion);
  timers.clear();
  loop.Close();
  return cost;
}

// Callbacks that another thread posts as fast as it can, both threads' CPU.
double ThreadsafeBurst() {
  EventLoop loop(PosixOs::Get());
  const double cost = CpuNanosPerOperation(
      [&](int n) {
        int left = n;
        std::thread poster([&] {
          for (int i = 0; i < n; ++i) {
            loop.CallSoonThreadsafe([&] {
              if (--left == 0) loop.Stop();
            });
          }
        });
        loop.RunForever();
        poster.join();
      },
      50'000);
  loop.Close();
  return cost;
}

// From one loop to another and back, both sleeping meanwhile, both threads' CPU.
double ThreadsafeRoundTrip() {
  EventLoop here(PosixOs::Get());
  EventLoop there(PosixOs::Get());
  std::thread thread([&] { there.RunForever(); });
  struct Ball {
    EventLoop& here;
    EventLoop& there;
    int& left;
    void operator()() const {
      if (--left == 0) return here.Stop();
      there.CallSoonThreadsafe([ball = *this] { ball.here.CallSoonThreadsafe(ball); });
    }
  };
  const double cost = CpuNanosPerOperation(
      [&](int n) {
        int left = n + 1;
        here.CallSoon(Ball{here, there, left});
        here.RunForever();
      },
      1000);
  there.CallSoonThreadsafe([&] { there.Stop(); });
  thread.join();
  here.Close();
  there.Close();
  return cost;
}

Task<int> Child(int i) { co_return i; }

// co_await of a coroutine that does not wait.
double TaskAwait() {
  EventLoop loop(PosixOs::Get());
  const double cost = CpuNanosPerOperation([&](int n) {
    const auto parent = [](int count) -> Task<int> {
      int sum = 0;
      for (int i = 0; i < count; ++i) sum += co_await Child(i);
      co_return sum;
    };
    loop.RunUntilComplete(parent(n));
  });
  loop.Close();
  return cost;
}

// A coroutine that the loop runs beside its parent, which waits for it.
double TaskSpawn() {
  EventLoop loop(PosixOs::Get());
  const double cost = CpuNanosPerOperation([&](int n) {
    const auto parent = [](EventLoop& on, int count) -> Task<int> {
      int sum = 0;
      for (int i = 0; i < count; ++i) sum += co_await on.CreateTask(Child(i));
      co_return sum;
    };
    loop.RunUntilComplete(parent(loop, n));
  });
  loop.Close();
  return cost;
}

// A task that waits for a callback, again and again.
double TaskWoken() {
  EventLoop loop(PosixOs::Get());
  const double cost = CpuNanosPerOperation([&](int n) {
    const auto waiter = [](EventLoop& on, int count) -> Task<int> {
      Event event;
      for (int i = 0; i < count; ++i) {
        on.Post([&event] { event.Set(); });
        co_await event.Wait();
        event.Clear();
      }
      co_return count;
    };
    loop.RunUntilComplete(waiter(loop, n));
  });
  loop.Close();
  return cost;
}

// Tasks that are spawned, wait all for one event, and end when it comes.
double TasksWokenTogether() {
  EventLoop loop(PosixOs::Get());
  const double cost = CpuNanosPerOperation(
      [&](int n) {
        Event event;
        int left = n;
        const auto waiter = [](EventLoop& on, Event& awaited, int& waiting) -> Task<> {
          co_await awaited.Wait();
          if (--waiting == 0) on.Stop();
        };
        for (int i = 0; i < n; ++i) loop.CreateTask(waiter(loop, event, left));
        loop.Post([&] { event.Set(); });
        loop.RunForever();
      },
      kTasksAtOnce);
  loop.Close();
  return cost;
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) {
  const std::map<std::string, double (*)()> cases = {
      {"post_chain", troupe::PostChain},
      {"post_batch", troupe::PostBatch},
      {"timer_fired", troupe::TimerFired},
      {"timer_cancelled", troupe::TimerCancelled},
      {"threadsafe_burst", troupe::ThreadsafeBurst},
      {"threadsafe_round_trip", troupe::ThreadsafeRoundTrip},
      {"task_await", troupe::TaskAwait},
      {"task_spawn", troupe::TaskSpawn},
      {"timers_fired_million", troupe::TimersFiredMillion},
      {"timers_cancelled_million", troupe::TimersCancelledMillion},
      {"task_woken", troupe::TaskWoken},
      {"tasks_woken_together", troupe::TasksWokenTogether},
  };
  const auto found = cases.find(argc > 1 ? argv[1] : "");
  if (found == cases.end()) return 2;
  benchmarks::Print("cpu_ns", found->second());
}
