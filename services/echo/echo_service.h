// EchoService: gives back what it gets; every kind of call in its smallest form.
//
// Read it to learn the shapes, or copy it to begin a service of your own. It has no state, so all that a call uses are
// its parameters.
//
// Threading: one loop.     Lifetime: one per connection, made by the server.
#ifndef TROUPE_SERVICES_ECHO_ECHO_SERVICE_H_
#define TROUPE_SERVICES_ECHO_ECHO_SERVICE_H_

#include "absl/status/status.h"
#include "echo/v1/echo.troupe.h"
#include "troupe/async/task.h"
#include "troupe/rpc/call.h"
#include "troupe/rpc/stream.h"

namespace echo::v1 {

class EchoService final : public EchoActor {
 public:
  // One in, one out.
  troupe::Task<absl::Status> Echo(const EchoRequest& request, EchoResponse& response, troupe::Call& call) override;

  // One in, many out, as fast as the client takes them. INVALID_ARGUMENT: a count below 0.
  troupe::Task<absl::Status> Expand(const ExpandRequest& request, troupe::Writer<ExpandResponse> responses,
                                    troupe::Call& call) override;

  // Many in, one out. RESOURCE_EXHAUSTED: the answer would be larger than 1 MiB.
  troupe::Task<absl::Status> Collect(troupe::Reader<CollectRequest> requests, CollectResponse& response,
                                     troupe::Call& call) override;

  // Many in, many out.
  troupe::Task<absl::Status> Chat(troupe::Reader<ChatRequest> requests, troupe::Writer<ChatResponse> responses,
                                  troupe::Call& call) override;
};

}  // namespace echo::v1

#endif  // TROUPE_SERVICES_ECHO_ECHO_SERVICE_H_
