// The exceptions of the framework, and the rule for each.
//
// What a caller is expected to handle is an absl::Status; these are for bugs and for cancellation. Cancelled and Fatal
// derive from nothing, so that `catch (const std::exception&)` does not eat them; whoever writes `catch (...)`
// rethrows.
//
// Cancelled     thrown at the co_await of a task that was cancelled. Clean up and let it pass.
// Fatal         leaves the loop at once; nobody swallows it.
// GeneratorExit thrown at the co_yield of an AsyncGenerator that is being closed. As Cancelled: let it pass.
// InvalidState  our API was misused: the text says what was expected and what was found.
// StatusError   carries a status out of an expression whose type cannot hold one.
#ifndef TROUPE_BASE_ERRORS_H_
#define TROUPE_BASE_ERRORS_H_

#include <exception>
#include <stdexcept>
#include <string>
#include <utility>

#include "absl/status/status.h"

namespace troupe {

struct Cancelled {};

struct GeneratorExit {};

class Fatal {
 public:
  explicit Fatal(std::string message) : message_(std::move(message)) {}
  const std::string& message() const { return message_; }

 private:
  std::string message_;
};

class InvalidState : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

class StatusError : public std::exception {
 public:
  // REQUIRES: !status.ok()
  explicit StatusError(absl::Status status) : status_(std::move(status)), text_(status_.ToString()) {}
  const absl::Status& status() const { return status_; }
  const char* what() const noexcept override { return text_.c_str(); }

 private:
  absl::Status status_;
  std::string text_;
};

}  // namespace troupe

#endif  // TROUPE_BASE_ERRORS_H_
