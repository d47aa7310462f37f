#include "troupe/net/internal/callback_errors.h"

#include <cxxabi.h>

#include <cstdlib>
#include <exception>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "troupe/base/errors.h"
#include "troupe/loop/exception_context.h"

namespace troupe::internal {
namespace {

std::string TypeName(const std::type_info& type) {
  int failed = 0;
  const std::unique_ptr<char, decltype(&std::free)> name(abi::__cxa_demangle(type.name(), nullptr, nullptr, &failed),
                                                         &std::free);
  return failed == 0 ? name.get() : type.name();
}

}  // namespace

absl::Status StatusOfCurrentException(absl::string_view message) {
  const std::exception_ptr exception = std::current_exception();
  try {
    throw;
  } catch (const StatusError& error) {
    return error.status();
  } catch (...) {  // its caller has it and reports it
    return absl::UnknownError(absl::StrCat(message, " ", DescribeException(exception)));
  }
}

void ReportCallback(EventLoop& loop, std::string message, const std::string& transport, const void* transport_address,
                    const std::type_info& protocol, const void* protocol_address) {
  ExceptionContext context;
  context.message = std::move(message);
  context.Add("transport", transport, transport_address);
  context.Add("protocol", TypeName(protocol), protocol_address);
  loop.ReportCurrentException(std::move(context));
}

}  // namespace troupe::internal
