// ExceptionContext: all that is known about a failure which no one handled (C-EXC-02).
//
// Reaches EventLoop::SetExceptionHandler's handler; the default handler logs it. Exactly one of `exception` and
// `status` is set where there was an error at all.
#ifndef TROUPE_LOOP_EXCEPTION_CONTEXT_H_
#define TROUPE_LOOP_EXCEPTION_CONTEXT_H_

#include <exception>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace troupe {

struct ExceptionContext {
  // "Exception in callback ...", lower-case details in the entries. Empty: "Unhandled exception in event loop".
  std::string message;
  std::exception_ptr exception;
  absl::Status status;

  // Who was involved: "handle", "task", "future", "transport", "protocol", "actor", "method", "server", "peer",
  // "asyncgen", "socket", and what users add. `object` identifies it and may be dead when a log is read.
  struct Involved {
    std::string key;
    std::string what;
    const void* object = nullptr;
  };
  std::vector<Involved> involved;

  // Where the failing thing was created, in debug mode: one "file:line function" a line.
  std::string source_traceback;

  ExceptionContext& Add(absl::string_view key, std::string what, const void* object = nullptr) {
    involved.push_back({std::string(key), std::move(what), object});
    return *this;
  }
  // The entry's text, or "".
  absl::string_view Get(absl::string_view key) const;
  // As the default handler logs it: the message, then the entries sorted by key, then the error.
  std::string ToString() const;
};

// What an exception says of itself: its what(), a status, or the name of one of ours.
std::string DescribeException(const std::exception_ptr& exception);

}  // namespace troupe

#endif  // TROUPE_LOOP_EXCEPTION_CONTEXT_H_
