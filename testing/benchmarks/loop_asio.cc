// Costs of Boost.Asio's loop: loop_asio CASE prints the nanoseconds of CPU of one operation. Cases as in
// loop_troupe.cc.
//
// Where one thread is all there is, Asio is told so and takes no locks. Each context has a timer that does not fire
// while it is measured: without any descriptor or timer Asio does not poll at all, and no real program is like that.
#include <chrono>
#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>  // which boost/asio/awaitable.hpp uses without including it
#include <vector>

#include "boost/asio.hpp"
#include "boost/asio/awaitable.hpp"
#include "boost/asio/co_spawn.hpp"
#include "boost/asio/detached.hpp"
#include "boost/asio/redirect_error.hpp"
#include "troupe/testing/benchmarks/meter.h"

namespace {

namespace asio = boost::asio;
using benchmarks::CpuNanosPerOperation;
using benchmarks::kMillion;
using benchmarks::kTasksAtOnce;
using benchmarks::Scattered;

constexpr int kOneThread = BOOST_ASIO_CONCURRENCY_HINT_UNSAFE;

class Context : public asio::io_context {
 public:
  explicit Context(int concurrency_hint) : asio::io_context(concurrency_hint), timer_(*this, std::chrono::hours(1)) {
    timer_.async_wait([](boost::system::error_code) {});
  }
  // Until someone calls stop().
  void Run() {
    restart();
    run();
  }

 private:
  asio::steady_timer timer_;
};

double PostChain() {
  Context context(kOneThread);
  struct Link {
    asio::io_context& context;
    int& left;
    void operator()() const {
      if (--left == 0) return context.stop();
      asio::post(context, *this);
    }
  };
  return CpuNanosPerOperation([&](int n) {
    int left = n;
    asio::post(context, Link{context, left});
    context.Run();
  });
}

double PostBatch() {
  Context context(kOneThread);
  int64_t ran = 0;
  return CpuNanosPerOperation(
      [&](int n) {
        for (int i = 0; i < n; ++i) asio::post(context, [&ran] { ++ran; });
        asio::post(context, [&context] { context.stop(); });
        context.Run();
      },
      500);
}

// Timers are made once and used again, which is Asio's cheapest.
class Timers {
 public:
  explicit Timers(asio::io_context& context, int count) {
    for (int i = 0; i < 1000; ++i) {
      others_.push_back(std::make_unique<asio::steady_timer>(context, std::chrono::seconds(3600 + i)));
      others_.back()->async_wait([](boost::system::error_code) {});
    }
    for (int i = 0; i < count; ++i) used_.push_back(std::make_unique<asio::steady_timer>(context));
  }
  asio::steady_timer& operator[](int i) { return *used_[i]; }

 private:
  std::vector<std::unique_ptr<asio::steady_timer>> others_;
  std::vector<std::unique_ptr<asio::steady_timer>> used_;
};

double TimerFired() {
  constexpr int kTimers = 500;
  Context context(kOneThread);
  Timers timers(context, kTimers);
  return CpuNanosPerOperation(
      [&](int n) {
        int left = n;
        for (int i = 0; i < n; ++i) {
          timers[i].expires_after(std::chrono::seconds(0));
          timers[i].async_wait([&](boost::system::error_code) {
            if (--left == 0) context.stop();
          });
        }
        context.Run();
      },
      kTimers);
}

double TimerCancelled() {
  constexpr int kTimers = 500;
  Context context(kOneThread);
  Timers timers(context, kTimers);
  return CpuNanosPerOperation(
      [&](int n) {
        int left = n;
        for (int i = 0; i < n; ++i) {
          timers[i].expires_after(std::chrono::seconds(10));
          timers[i].async_wait([&](boost::system::error_code) {
            if (--left == 0) context.stop();
          });
          timers[i].cancel();
        }
        context.Run();
      },
      kTimers);
}

double TimersFiredMillion() {
  Context context(kOneThread);
  Timers timers(context, kMillion);
  return CpuNanosPerOperation(
      [&](int n) {
        const auto past = std::chrono::steady_clock::now() - std::chrono::seconds(2);
        int left = n;
        for (int i = 0; i < n; ++i) {
          timers[i].expires_at(past + std::chrono::nanoseconds(Scattered(i)));
          timers[i].async_wait([&](boost::system::error_code) {
            if (--left == 0) context.stop();
          });
        }
        context.Run();
      },
      kMillion);
}

double TimersCancelledMillion() {
  Context context(kOneThread);
  Timers timers(context, kMillion);
  return CpuNanosPerOperation(
      [&](int n) {
        const auto later = std::chrono::steady_clock::now() + std::chrono::seconds(10);
        int left = n;
        for (int i = 0; i < n; ++i) {
          timers[i].expires_at(later + std::chrono::nanoseconds(Scattered(i)));
          timers[i].async_wait([&](boost::system::error_code) {
            if (--left == 0) context.stop();
          });
        }
        for (int i = 0; i < n; ++i) timers[i].cancel();
        context.Run();
      },
      kMillion);
}

double ThreadsafeBurst() {
  Context context(1);
  return CpuNanosPerOperation(
      [&](int n) {
        int left = n;
        std::thread poster([&] {
          for (int i = 0; i < n; ++i) {
            asio::post(context, [&] {
              if (--left == 0) context.stop();
            });
          }
        });
        context.Run();
        poster.join();
      },
      50'000);
}

double ThreadsafeRoundTrip() {
  Context here(1);
  Context there(1);
  std::thread thread([&] { there.Run(); });
  struct Ball {
    asio::io_context& here;
    asio::io_context& there;
    int& left;
    void operator()() const {
      if (--left == 0) return here.stop();
      asio::post(there, [ball = *this] { asio::post(ball.here, ball); });
    }
  };
  const double cost = CpuNanosPerOperation(
      [&](int n) {
        int left = n + 1;
        asio::post(here, Ball{here, there, left});
        here.Run();
      },
      1000);
  there.stop();
  thread.join();
  return cost;
}

asio::awaitable<int> Child(int i) { co_return i; }

double TaskAwait() {
  Context context(kOneThread);
  return CpuNanosPerOperation([&](int n) {
    const auto parent = [](int count) -> asio::awaitable<int> {
      int sum = 0;
      for (int i = 0; i < count; ++i) sum += co_await Child(i);
      co_return sum;
    };
    asio::co_spawn(context, parent(n), [&](std::exception_ptr, int) { context.stop(); });
    context.Run();
  });
}

double TaskSpawn() {
  Context context(kOneThread);
  return CpuNanosPerOperation([&](int n) {
    const auto parent = [](asio::io_context& on, int count) -> asio::awaitable<int> {
      int sum = 0;
      for (int i = 0; i < count; ++i) sum += co_await asio::co_spawn(on, Child(i), asio::use_awaitable);
      co_return sum;
    };
    asio::co_spawn(context, parent(context, n), [&](std::exception_ptr, int) { context.stop(); });
    context.Run();
  });
}

// Asio's coroutines wait for each other by a timer that does not fire and is cancelled, as its chat example does.
double TaskWoken() {
  Context context(kOneThread);
  return CpuNanosPerOperation([&](int n) {
    const auto waiter = [](asio::io_context& on, int count) -> asio::awaitable<int> {
      asio::steady_timer event(on);
      for (int i = 0; i < count; ++i) {
        event.expires_at(asio::steady_timer::time_point::max());
        asio::post(on, [&event] { event.cancel(); });
        boost::system::error_code cancelled;
        co_await event.async_wait(asio::redirect_error(asio::use_awaitable, cancelled));
      }
      co_return count;
    };
    asio::co_spawn(context, waiter(context, n), [&](std::exception_ptr, int) { context.stop(); });
    context.Run();
  });
}

double TasksWokenTogether() {
  Context context(kOneThread);
  return CpuNanosPerOperation(
      [&](int n) {
        asio::steady_timer event(context, asio::steady_timer::time_point::max());
        int left = n;
        const auto waiter = [](asio::io_context& on, asio::steady_timer& awaited, int& waiting) -> asio::awaitable<void> {
          boost::system::error_code cancelled;
          co_await awaited.async_wait(asio::redirect_error(asio::use_awaitable, cancelled));
          if (--waiting == 0) on.stop();
        };
        for (int i = 0; i < n; ++i) asio::co_spawn(context, waiter(context, event, left), asio::detached);
        asio::post(context, [&] { event.cancel(); });
        context.Run();
      },
      kTasksAtOnce);
}

}  // namespace

int main(int argc, char** argv) {
  const std::map<std::string, double (*)()> cases = {
      {"post_chain", PostChain},
      {"post_batch", PostBatch},
      {"timer_fired", TimerFired},
      {"timer_cancelled", TimerCancelled},
      {"threadsafe_burst", ThreadsafeBurst},
      {"threadsafe_round_trip", ThreadsafeRoundTrip},
      {"task_await", TaskAwait},
      {"task_spawn", TaskSpawn},
      {"timers_fired_million", TimersFiredMillion},
      {"timers_cancelled_million", TimersCancelledMillion},
      {"task_woken", TaskWoken},
      {"tasks_woken_together", TasksWokenTogether},
  };
  const auto found = cases.find(argc > 1 ? argv[1] : "");
  if (found == cases.end()) return 2;
  benchmarks::Print("cpu_ns", found->second());
}
