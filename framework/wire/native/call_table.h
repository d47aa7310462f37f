// CallTable: finds a call by its id; the calls are the caller's.
//
// Open addressing with linear probing, which at the few calls of most connections is one cache line. It holds no memory
// while it is empty beyond its smallest size, because most connections are idle most of the time. It is never iterated:
// what needs an order keeps a list.
//
// Threading: one thread.   Lifetime: does not own what it points at.
#ifndef TROUPE_WIRE_NATIVE_CALL_TABLE_H_
#define TROUPE_WIRE_NATIVE_CALL_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

namespace troupe::native {

// T has a member `id`, never 0.
template <class T>
class CallTable {
 public:
  size_t size() const { return size_; }
  size_t footprint() const { return capacity() * sizeof(Slot); }

  T* Find(uint32_t id) const {
    if (size_ == 0) return nullptr;
    for (size_t i = Home(id);; i = (i + 1) & mask_) {
      if (slots_[i].id == id) return slots_[i].call;
      if (slots_[i].id == 0) return nullptr;
    }
  }

  // REQUIRES: no call of this id is in it.
  void Insert(T& call) {
    if ((size_ + 1) * 2 > capacity()) Resize(capacity() == 0 ? kSmallest : capacity() * 2);
    Place(call.id, &call);
    ++size_;
  }

  // REQUIRES: it is in it.
  void Erase(uint32_t id) {
    size_t hole = Home(id);
    while (slots_[hole].id != id) hole = (hole + 1) & mask_;
    // Moves those that stand behind the hole, and could stand in it, forward: no tombstones.
    for (size_t i = (hole + 1) & mask_; slots_[i].id != 0; i = (i + 1) & mask_) {
      const size_t home = Home(slots_[i].id);
      if (((i - home) & mask_) >= ((i - hole) & mask_)) {
        slots_[hole] = slots_[i];
        hole = i;
      }
    }
    slots_[hole] = {};
    if (--size_ == 0 && capacity() > kSmallest) {
      slots_.reset();
      mask_ = 0;
    }
  }

 private:
  struct Slot {
    uint32_t id = 0;
    T* call = nullptr;
  };
  static constexpr size_t kSmallest = 4;

  size_t capacity() const { return slots_ == nullptr ? 0 : mask_ + 1; }
  // Ids count up by two; the multiplication spreads them and the high bits are the mixed ones.
  size_t Home(uint32_t id) const { return (id * uint64_t{0x9E3779B97F4A7C15}) >> 32 & mask_; }

  void Place(uint32_t id, T* call) {
    size_t i = Home(id);
    while (slots_[i].id != 0) i = (i + 1) & mask_;
    slots_[i] = {id, call};
  }

  void Resize(size_t capacity) {
    const std::unique_ptr<Slot[]> old = std::move(slots_);
    const size_t old_capacity = old == nullptr ? 0 : mask_ + 1;
    slots_ = std::make_unique<Slot[]>(capacity);
    mask_ = capacity - 1;
    for (size_t i = 0; i < old_capacity; ++i) {
      if (old[i].id != 0) Place(old[i].id, old[i].call);
    }
  }

  std::unique_ptr<Slot[]> slots_;
  size_t mask_ = 0;
  size_t size_ = 0;
};

}  // namespace troupe::native

#endif  // TROUPE_WIRE_NATIVE_CALL_TABLE_H_
