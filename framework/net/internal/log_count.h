// LogCount: counts the log records of one severity that hold a text, while it lives. For the tests of this folder.
#ifndef TROUPE_NET_INTERNAL_LOG_COUNT_H_
#define TROUPE_NET_INTERNAL_LOG_COUNT_H_

#include <glog/logging.h>  // NOLINT(troupe-log-in-header): only tests include it

#include <cstddef>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"

namespace troupe::internal {

class LogCount final : public google::LogSink {
 public:
  // `text`: a literal.
  LogCount(google::LogSeverity severity, const char* text) : severity_(severity), text_(text) {
    google::AddLogSink(this);
  }
  ~LogCount() override { google::RemoveLogSink(this); }
  int count() const { return count_; }

 private:
  void send(google::LogSeverity severity, const char*, const char*, int, const google::LogMessageTime&,
            const char* message, size_t size) override {
    if (severity == severity_ && absl::StrContains(absl::string_view(message, size), text_)) ++count_;
  }

  const google::LogSeverity severity_;
  const char* const text_;
  int count_ = 0;
};

}  // namespace troupe::internal

#endif  // TROUPE_NET_INTERNAL_LOG_COUNT_H_
