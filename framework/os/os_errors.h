// What each call of an Os can fail with on Linux, for tests that let every call fail with every error.
//
// Calls go by the names that a simulated Os gives to its fault hook: the function of Os, "Poller." before one of Poller,
// "StartThread" for what WorkerPool::Submit does first. An error is listed when a program that keeps to the contract of
// os.h can meet it: by the manual pages of Linux (section 2, and socket(7), ip(7), tcp(7), udp(7), unix(7)), and EBADF and
// the like only where the descriptor comes from a user. EINTR is not: an Os retries it. EINPROGRESS is not: it is
// Connect's good news.
#ifndef TROUPE_OS_OS_ERRORS_H_
#define TROUPE_OS_OS_ERRORS_H_

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace troupe {

struct OsCallErrors {
  absl::string_view call;
  absl::Span<const int> errors;  // positive, each once; none: it cannot fail
};

// Every call, in the order of os.h.
absl::Span<const OsCallErrors> AllOsErrors();

// REQUIRES: `call` is listed.
absl::Span<const int> OsErrorsOf(absl::string_view call);

}  // namespace troupe

#endif  // TROUPE_OS_OS_ERRORS_H_
