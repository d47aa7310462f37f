// RETURN_IF_ERROR(status)            leaves the function with a status that is not OK.
// ASSIGN_OR_RETURN(lhs, status_or)   assigns the value, or leaves with the status.
// CO_RETURN_IF_ERROR, CO_ASSIGN_OR_RETURN   the same in a coroutine.
//
// The expression may be a co_await. Every form declares a name, which keeps g++ 12 right about awaits in conditions.
#ifndef TROUPE_BASE_STATUS_MACROS_H_
#define TROUPE_BASE_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace troupe::internal {
inline absl::Status ToStatus(absl::Status status) { return status; }
template <class T>
absl::Status ToStatus(absl::StatusOr<T>&& value) {
  return std::move(value).status();
}
}  // namespace troupe::internal

#define TROUPE_CONCAT_(a, b) a##b
#define TROUPE_CONCAT(a, b) TROUPE_CONCAT_(a, b)

#define TROUPE_IF_ERROR_(leave, ...)                                         \
  do {                                                                       \
    absl::Status troupe_status_ = ::troupe::internal::ToStatus(__VA_ARGS__); \
    if (!troupe_status_.ok()) leave troupe_status_;                          \
  } while (false)

#define TROUPE_ASSIGN_OR_(leave, name, lhs, ...)  \
  auto name = (__VA_ARGS__);                      \
  if (!name.ok()) leave std::move(name).status(); \
  lhs = *std::move(name)

#ifndef RETURN_IF_ERROR
#define RETURN_IF_ERROR(...) TROUPE_IF_ERROR_(return, __VA_ARGS__)
#endif
#ifndef ASSIGN_OR_RETURN
#define ASSIGN_OR_RETURN(lhs, ...) TROUPE_ASSIGN_OR_(return, TROUPE_CONCAT(troupe_value_, __LINE__), lhs, __VA_ARGS__)
#endif
#ifndef CO_RETURN_IF_ERROR
#define CO_RETURN_IF_ERROR(...) TROUPE_IF_ERROR_(co_return, __VA_ARGS__)
#endif
#ifndef CO_ASSIGN_OR_RETURN
#define CO_ASSIGN_OR_RETURN(lhs, ...) \
  TROUPE_ASSIGN_OR_(co_return, TROUPE_CONCAT(troupe_value_, __LINE__), lhs, __VA_ARGS__)
#endif

#endif  // TROUPE_BASE_STATUS_MACROS_H_
