// The cases of gRPC's interoperability tests, by their official names: what a client does and what must come of it.
//
//   const InteropCase* const found = FindInteropCase("ping_pong");
//   const absl::Status outcome = co_await found->run(context);      // OK, or what went otherwise
//
// Threading: the loop's.
#ifndef TROUPE_SERVICES_INTEROP_INTEROP_CASES_H_
#define TROUPE_SERVICES_INTEROP_INTEROP_CASES_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "troupe/async/task.h"
#include "troupe/rpc/caller.h"
#include "troupe/service/channel.h"

namespace interop {

// Of rpc_soak and channel_soak: large_unary again and again.
struct SoakOptions {
  int iterations = 10;
  int failures_max = 0;
  absl::Duration call_time_max = absl::Seconds(1);
  int request_bytes = 271828;
  int response_bytes = 314159;
};

struct InteropContext {
  troupe::Caller& caller;
  // False: by Troupe's own wire, which packs nothing: cases of it look at everything else, or at nothing.
  bool packs = true;
  std::string target = {};  // for what the soak tests say
  SoakOptions soak = {};
  // For channel_soak; null: it says that it cannot be run.
  std::function<std::unique_ptr<troupe::Channel>()> new_channel = nullptr;
  // What a case has to tell; null: nobody listens.
  std::function<void(const std::string&)> say = nullptr;
};

struct InteropCase {
  absl::string_view name;
  // `context` outlives the task.
  troupe::Task<absl::Status> (*run)(InteropContext& context);
};

// In the order of gRPC's description.
absl::Span<const InteropCase> InteropCases();
// Null: no such case.
const InteropCase* FindInteropCase(absl::string_view name);

}  // namespace interop

#endif  // TROUPE_SERVICES_INTEROP_INTEROP_CASES_H_
