// Counter: a named count that only grows, one per limit, drop and refusal.
//
// Add() is for the owner's thread; value() may be read from any thread, for statistics.
#ifndef TROUPE_BASE_COUNTER_H_
#define TROUPE_BASE_COUNTER_H_

#include <atomic>
#include <cstdint>

namespace troupe {

class Counter {
 public:
  Counter() = default;
  Counter(const Counter&) = delete;
  Counter& operator=(const Counter&) = delete;

  // A load and a store, not an atomic addition: one thread adds.
  void Add(uint64_t n = 1) { value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_ = 0;
};

}  // namespace troupe

#endif  // TROUPE_BASE_COUNTER_H_
