// Context: what travels with the work: deadline, trace, and the user's ContextVars.
//
// Captured where a callback or task is created and restored while it runs, so an rpc made inside a handler inherits the
// handler's deadline without being told. A value: copying is cheap (one reference count; nothing for the empty
// context), and changing the current context never changes a copy that someone else took (C-LOOP-39).
//
// Threading: a Context may be handed to another thread; Current() and ContextVar act on the calling thread.
#ifndef TROUPE_LOOP_CONTEXT_H_
#define TROUPE_LOOP_CONTEXT_H_

#include <any>
#include <atomic>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "troupe/base/monotonic_time.h"
#include "troupe/loop/internal/thread_state.h"

namespace troupe {

// W3C trace context: `traceparent` as numbers, `tracestate` as text. All zero ids: no trace.
struct TraceContext {
  uint64_t trace_id_high = 0;
  uint64_t trace_id_low = 0;
  uint64_t span_id = 0;
  uint8_t flags = 0;
  std::string state;
  bool valid() const { return (trace_id_high | trace_id_low) != 0 && span_id != 0; }
};

namespace internal {

struct ContextData {
  struct Variable {
    const void* key;
    std::any value;
  };
  std::atomic<uint32_t> references = 1;
  MonotonicTime deadline = MonotonicTime::InfiniteFuture();
  TraceContext trace;
  std::vector<Variable> variables;  // few: searched in order

  const std::any* Find(const void* key) const;
};

inline ContextData* Retain(ContextData* data) {
  if (data != nullptr) data->references.fetch_add(1, std::memory_order_relaxed);
  return data;
}
void ReleaseLast(ContextData* data);
inline void Release(ContextData* data) {
  if (data != nullptr && data->references.fetch_sub(1, std::memory_order_acq_rel) == 1) ReleaseLast(data);
}
// A context of one's own to change: `data` itself if nobody else has it, otherwise a copy that replaces the reference.
ContextData* Unshare(ContextData* data);

}  // namespace internal

class Context {
 public:
  Context() = default;  // empty: no deadline, no trace, no variables
  Context(const Context& other) : data_(internal::Retain(other.data_)) {}
  Context(Context&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
  Context& operator=(Context other) noexcept {
    std::swap(data_, other.data_);
    return *this;
  }
  ~Context() { internal::Release(data_); }

  // A copy of the context in force.
  static Context Current() { return Context(internal::Retain(internal::thread_state.context)); }

  MonotonicTime deadline() const { return data_ ? data_->deadline : MonotonicTime::InfiniteFuture(); }
  const TraceContext& trace() const;

  // The same context with another deadline (the earlier of the two stays in force), without one, with another trace.
  Context WithDeadline(MonotonicTime deadline) const;
  Context WithoutDeadline() const;
  Context WithTrace(TraceContext trace) const;

  // Runs `f` with this context in force; what it changes is lost.
  template <class F>
  decltype(auto) Run(F&& f) const;

 private:
  friend class ContextScope;
  template <class>
  friend class ContextVar;
  explicit Context(internal::ContextData* data) : data_(data) {}

  internal::ContextData* data_ = nullptr;
};

// Puts a context in force until the end of the scope.
//
// Kept changes: the scope works on `context` itself, so that a task sees in its next step what it set in this one.
class ContextScope {
 public:
  explicit ContextScope(Context& context)
      : context_(context), saved_(std::exchange(internal::thread_state.context, context.data_)) {}
  ContextScope(const ContextScope&) = delete;
  ContextScope& operator=(const ContextScope&) = delete;
  ~ContextScope() { context_.data_ = std::exchange(internal::thread_state.context, saved_); }

 private:
  Context& context_;
  internal::ContextData* saved_;
};

template <class F>
decltype(auto) Context::Run(F&& f) const {
  Context copy = *this;
  ContextScope scope(copy);
  return std::forward<F>(f)();
}

// ContextVar<T>: a variable with a value per context. Make it static or otherwise immortal; its address is its name.
template <class T>
class ContextVar {
 public:
  ContextVar() = default;
  explicit ContextVar(T initial) : initial_(std::move(initial)) {}
  ContextVar(const ContextVar&) = delete;
  ContextVar& operator=(const ContextVar&) = delete;

  // The value in the current context, or the initial one. Valid until the context in force changes.
  const T& Get() const {
    internal::ContextData* data = internal::thread_state.context;
    const std::any* value = data ? data->Find(this) : nullptr;
    return value ? *std::any_cast<T>(value) : initial_;
  }
  // Sets it for the rest of the current callback or task, and for what these create from now on.
  void Set(T value) const {
    internal::ContextData*& data = internal::thread_state.context;
    data = internal::Unshare(data);
    for (auto& variable : data->variables) {
      if (variable.key == this) {
        variable.value = std::move(value);
        return;
      }
    }
    data->variables.push_back({this, std::move(value)});
  }

 private:
  T initial_{};
};

}  // namespace troupe

#endif  // TROUPE_LOOP_CONTEXT_H_
