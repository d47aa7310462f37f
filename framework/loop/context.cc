#include "troupe/loop/context.h"

#include <algorithm>

namespace troupe {
namespace internal {

const std::any* ContextData::Find(const void* key) const {
  for (const Variable& variable : variables) {
    if (variable.key == key) return &variable.value;
  }
  return nullptr;
}

void ReleaseLast(ContextData* data) { delete data; }

ContextData* Unshare(ContextData* data) {
  if (data == nullptr) return new ContextData;
  if (data->references.load(std::memory_order_acquire) == 1) return data;
  auto* copy = new ContextData;
  copy->deadline = data->deadline;
  copy->trace = data->trace;
  copy->variables = data->variables;
  Release(data);
  return copy;
}

}  // namespace internal

const TraceContext& Context::trace() const {
  static const TraceContext& none = *new TraceContext;
  return data_ ? data_->trace : none;
}

Context Context::WithDeadline(MonotonicTime deadline) const {
  if (deadline >= this->deadline()) return *this;
  internal::ContextData* data = internal::Unshare(internal::Retain(data_));
  data->deadline = deadline;
  return Context(data);
}

Context Context::WithoutDeadline() const {
  if (deadline().is_infinite()) return *this;
  internal::ContextData* data = internal::Unshare(internal::Retain(data_));
  data->deadline = MonotonicTime::InfiniteFuture();
  return Context(data);
}

Context Context::WithTrace(TraceContext trace) const {
  internal::ContextData* data = internal::Unshare(internal::Retain(data_));
  data->trace = std::move(trace);
  return Context(data);
}

}  // namespace troupe
