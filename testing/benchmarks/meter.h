// What the programs of a comparison share: clocks, and how they speak to table.py.
//
// A program measures one case of one peer and prints lines "NAME NUMBER" on stdout. CPU time is what is compared where
// it can be: unlike elapsed time it is the same on a machine that does other things besides.
#ifndef TROUPE_TESTING_BENCHMARKS_METER_H_
#define TROUPE_TESTING_BENCHMARKS_METER_H_

#include <signal.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <time.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace benchmarks {

[[noreturn]] inline void Die(const char* what) {
  std::perror(what);
  std::exit(1);
}

inline int64_t Nanos(clockid_t clock) {
  timespec time;
  if (clock_gettime(clock, &time) != 0) Die("clock_gettime");
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}
inline int64_t NowNanos() { return Nanos(CLOCK_MONOTONIC); }
// Of all threads of a process, in user and kernel mode; 0 is the calling process.
inline int64_t CpuNanos(pid_t process = 0) {
  clockid_t clock;
  if (clock_getcpuclockid(process, &clock) != 0) Die("clock_getcpuclockid");
  return Nanos(clock);
}

// How many of a thing are there at once, where many are what is measured.
inline constexpr int kMillion = 1'000'000;
inline constexpr int kTasksAtOnce = 100'000;

// Numbers below 2^30, for i = 0, 1, ..., in no order: the same for all peers.
inline int64_t Scattered(int i) {
  return static_cast<int64_t>((static_cast<uint64_t>(i) + 1) * 0x9E37'79B9'7F4A'7C15 >> 34);
}

inline void Print(const char* name, double value) { std::printf("%s %.6g\n", name, value); }

// What a process holds of the machine's memory.
inline int64_t ResidentBytes(pid_t process) {
  std::FILE* const file = std::fopen(("/proc/" + std::to_string(process) + "/statm").c_str(), "r");
  if (file == nullptr) Die("statm");
  long long size = 0, resident = 0;
  if (std::fscanf(file, "%lld %lld", &size, &resident) != 2) Die("statm");
  std::fclose(file);
  return resident * 4096;
}

// What a server holds for each of many connections that idle: the first ones, which make it allocate what it needs once,
// do not count.
class IdleMeter {
 public:
  static constexpr int kUncounted = 200;

  explicit IdleMeter(pid_t server) : server_(server) {}
  // `open` connections stand, all of them idle.
  void Opened(int open) {
    if (open == kUncounted) before_ = ResidentBytes(server_);
    open_ = open;
  }
  void PrintResults() const {
    if (before_ == 0 || open_ <= kUncounted) {
      std::fprintf(stderr, "too few connections\n");
      std::exit(1);
    }
    Print("bytes_each", static_cast<double>(ResidentBytes(server_) - before_) / (open_ - kUncounted));
  }

 private:
  const pid_t server_;
  int64_t before_ = 0;
  int open_ = 0;
};

// A server's first words. It serves until it is killed, at the latest when the program that started it ends.
inline void PrintPort(int port) {
  std::printf("port %d\n", port);
  std::fflush(stdout);
}
inline void EndWithParent() { prctl(PR_SET_PDEATHSIG, SIGKILL); }

// CPU of this process per operation, where run(n) makes n of them: the median of several stretches, after one that
// nobody counts.
template <class F>
double CpuNanosPerOperation(F&& run, int operations = 10'000) {
  constexpr int64_t kStretchNanos = 30'000'000;
  constexpr int kStretches = 3;
  std::vector<double> costs;
  for (int stretch = 0; stretch <= kStretches; ++stretch) {
    const int64_t start = CpuNanos();
    int64_t made = 0;
    int64_t used = 0;
    do {
      run(operations);
      made += operations;
      used = CpuNanos() - start;
    } while (used < kStretchNanos);
    if (stretch > 0) costs.push_back(static_cast<double>(used) / static_cast<double>(made));
  }
  std::sort(costs.begin(), costs.end());
  return costs[costs.size() / 2];
}

}  // namespace benchmarks

#endif  // TROUPE_TESTING_BENCHMARKS_METER_H_
