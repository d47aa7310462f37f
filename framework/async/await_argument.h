// kFitsAwait<F>: whether a callable of this type may be a temporary in an expression that awaits.
//
// g++ 12 destroys closures and aggregates twice there if they own something. Functions whose results are awaited at once
// take a callable as F&& and refuse what does not fit: it is to be named first and passed by name, or wrapped in an
// absl::AnyInvocable, which is a class and safe.
#ifndef TROUPE_ASYNC_AWAIT_ARGUMENT_H_
#define TROUPE_ASYNC_AWAIT_ARGUMENT_H_

#include <functional>
#include <type_traits>

#include "absl/functional/any_invocable.h"

namespace troupe::internal {

template <class F>
inline constexpr bool kIsInvocableClass = false;
template <class Signature>
inline constexpr bool kIsInvocableClass<absl::AnyInvocable<Signature>> = true;
template <class Signature>
inline constexpr bool kIsInvocableClass<std::function<Signature>> = true;

// F as deduced for a parameter F&&.
template <class F>
inline constexpr bool kFitsAwait =
    std::is_lvalue_reference_v<F> || std::is_trivially_destructible_v<F> || kIsInvocableClass<F>;

}  // namespace troupe::internal

#endif  // TROUPE_ASYNC_AWAIT_ARGUMENT_H_
