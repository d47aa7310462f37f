// RpcLoad: how calls are counted, the same for every client.
//
// A client keeps a number of callers busy; each starts its next call when the last one is done. The first quarter of
// the time warms up and is not counted.
//
// Threading: a Caller belongs to one thread at a time, any; the rest to the thread that made the load.
#ifndef TROUPE_TESTING_BENCHMARKS_RPC_LOAD_H_
#define TROUPE_TESTING_BENCHMARKS_RPC_LOAD_H_

#include <sys/types.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

#include "troupe/testing/benchmarks/meter.h"

namespace benchmarks {

class RpcLoad {
 public:
  class Caller {
   public:
    explicit Caller(RpcLoad& load) : load_(load) { latencies_.reserve(1 << 16); }
    void Started() { started_ = NowNanos(); }
    // A call has ended well. True: make the next one.
    bool Ended() {
      const Phase phase = load_.phase_.load(std::memory_order_relaxed);
      if (phase == kCounting && latencies_.size() < kLatenciesMax) {
        latencies_.push_back(static_cast<uint32_t>(std::min<int64_t>(NowNanos() - started_, UINT32_MAX)));
      }
      return phase != kOver;
    }

   private:
    friend class RpcLoad;
    // Bounds memory; a caller alone makes fewer calls in the time there is.
    static constexpr size_t kLatenciesMax = 2'000'000;
    RpcLoad& load_;
    int64_t started_ = 0;
    std::vector<uint32_t> latencies_;
  };

  RpcLoad(int callers, pid_t server, double seconds) : server_(server), seconds_(seconds) {
    for (int i = 0; i < callers; ++i) callers_.emplace_back(*this);
  }
  std::vector<Caller>& callers() { return callers_; }

  // Lets the callers, which run by now, go on for the time; when it returns they make no more calls.
  void Run() {
    Pass(seconds_ / 4);
    server_cpu_ = -CpuNanos(server_);
    client_cpu_ = -CpuNanos();
    elapsed_ = -NowNanos();
    phase_ = kCounting;
    Pass(seconds_ * 3 / 4);
    phase_ = kOver;
    elapsed_ += NowNanos();
    client_cpu_ += CpuNanos();
    server_cpu_ += CpuNanos(server_);
  }
  // REQUIRES: every caller has been told that it is over.
  void PrintResults() {
    std::vector<uint32_t> all;
    for (const Caller& caller : callers_) all.insert(all.end(), caller.latencies_.begin(), caller.latencies_.end());
    if (all.empty()) Die("no call ended in time");
    std::sort(all.begin(), all.end());
    const double calls = static_cast<double>(all.size());
    Print("per_s", calls * 1e9 / static_cast<double>(elapsed_));
    Print("server_us", static_cast<double>(server_cpu_) / 1e3 / calls);
    Print("client_us", static_cast<double>(client_cpu_) / 1e3 / calls);
    Print("p50_us", all[all.size() / 2] / 1e3);
    Print("p99_us", all[all.size() * 99 / 100] / 1e3);
  }

 private:
  enum Phase { kWarmingUp, kCounting, kOver };

  static void Pass(double seconds) {
    const std::chrono::duration<double> time(seconds);
    std::this_thread::sleep_for(time);  // NOLINT(troupe-sleep): the callers work meanwhile; this is how long
  }

  const pid_t server_;
  const double seconds_;
  std::vector<Caller> callers_;
  std::atomic<Phase> phase_ = kWarmingUp;
  int64_t elapsed_ = 0;
  int64_t client_cpu_ = 0;
  int64_t server_cpu_ = 0;
};

}  // namespace benchmarks

#endif  // TROUPE_TESTING_BENCHMARKS_RPC_LOAD_H_
