// What becomes of an exception out of a protocol's callback: for transports.
//
// Threading: the loop's.
#ifndef TROUPE_NET_INTERNAL_CALLBACK_ERRORS_H_
#define TROUPE_NET_INTERNAL_CALLBACK_ERRORS_H_

#include <string>
#include <typeinfo>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "troupe/loop/event_loop.h"

namespace troupe::internal {

// Why a connection ends that ends by the exception: its status, or UNKNOWN with `message` and its text. REQUIRES: in a
// catch block.
absl::Status StatusOfCurrentException(absl::string_view message);

// Tells the loop's exception handler, with who took part. Passes Fatal on. REQUIRES: in a catch block.
void ReportCallback(EventLoop& loop, std::string message, const std::string& transport, const void* transport_address,
                    const std::type_info& protocol, const void* protocol_address);

}  // namespace troupe::internal

#endif  // TROUPE_NET_INTERNAL_CALLBACK_ERRORS_H_
