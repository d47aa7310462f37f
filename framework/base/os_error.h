// OsError(errno, what): a status that carries an error number of the operating system and its text.
//
// UNAVAILABLE for whatever says that a connection cannot be had or has broken, otherwise as absl::ErrnoToStatusCode.
// The number travels in a payload, for the few callers who decide by it.
#ifndef TROUPE_BASE_OS_ERROR_H_
#define TROUPE_BASE_OS_ERROR_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace troupe {

// "bind [::1]:7400: Address already in use". `error` is positive or, as Os gives it, negative; not 0.
absl::Status OsError(int error, absl::string_view what);
// The positive number that OsError put into `status`; 0 if it is from elsewhere.
int ErrnoOf(const absl::Status& status);
// "Address already in use". Any thread.
std::string ErrnoText(int error);

}  // namespace troupe

#endif  // TROUPE_BASE_OS_ERROR_H_
